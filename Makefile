# Two commands do all the set-up: `make demo` and `make test`. Each creates .venv from requirements.lock
# when it is missing or older than the lock, and installs nothing otherwise.
#
# make test PYTHON=python3.12                        with a Python that is named: .venv is made anew if it has another
# make test PYTHON=python3.12 VENV=.venv-3.12        the same beside .venv
# Python keeps what it has parsed, also where the environment says that it shall not: without, JAX takes 4 s to start
# in place of 2, and the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BENCH := $(VENV)-bench
BIN := $(VENV)/bin
ifdef PYTHON
other = $(shell test "$$($(PYTHON) -V 2>&1)" = "$$($(1)/bin/python -V 2>&1)" || echo anew)
$(VENV)/installed: $(call other,$(VENV))
$(BENCH)/installed: $(call other,$(BENCH))
else  # the newest that works
PYTHON = $(or $(shell sh .ci/python),$(error name a Python: PYTHON=/path/to/python3))
endif
PIP := bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test fuzz lint format docs lock dist test-lowest bench clean anew

demo: $(VENV)/installed
	$(BIN)/python -m experiments.balancing_act $(ARGS)

# By file, in their order: by their number of tests, the longest files would come last.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q $(ARGS)

# A longer hunt than CI's, through some twenty thousand inputs that are new every time: a right answer or one line.
fuzz: $(VENV)/installed
	JAXFAIR_INPUTS=2000 $(BIN)/python -m pytest -n 2 -q tests/laws/test_anything.py $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in docs/_build/html. A warning, a name without a page and a link that leads nowhere are errors.
# ARGS="-j 2" writes pages on two processes.
docs: $(VENV)/installed
	$(BIN)/python docs/build.py $(ARGS)

# Run by hand after a change of the dependencies. One lock for all Pythons: where the newest version of a package does
# not run on the oldest of them, it holds two.
lock: $(VENV)/installed
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" --output-file requirements.lock

# What a release is: wheel and sdist, and the list of all that the wheel brings with it (CycloneDX), read from an
# environment that holds the wheel, at the versions of the lock, and nothing else. Wheel and list are the same bytes from
# the same commit; the sdist has the same files, with the times of the clone.
dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: $(VENV)/installed
	rm -rf dist $(VENV)-dist
	umask 022; $(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	$(BIN)/twine check --strict dist/*
	$(BIN)/uv venv --quiet --python $(BIN)/python $(VENV)-dist
	$(BIN)/uv pip install --quiet --python $(VENV)-dist --constraint requirements.lock dist/*.whl
	version=$$($(BIN)/python -c "import jaxfair; print(jaxfair.__version__)"); \
	  sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml > $(VENV)-dist/pyproject.toml; \
	  PYTHONPATH= $(BIN)/cyclonedx-py environment --pyproject $(VENV)-dist/pyproject.toml --mc-type library \
	  --output-reproducible --output-file dist/jaxfair-$$version.cdx.json $(VENV)-dist
	ls -l dist

# The lower bounds of pyproject.toml on the oldest Python, in an environment of their own.
test-lowest: $(VENV)/installed
	$(BIN)/uv venv --quiet --allow-existing --seed --python $(shell sh .ci/python 3.11) $(VENV)-lowest
	$(BIN)/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct -e '.[dev]'
	$(VENV)-lowest/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q $(ARGS)

# Speed, also against PyTorch and its libraries: in an environment of their own, since the lock does not hold them.
bench: $(BENCH)/peers
	$(BENCH)/bin/python -m pytest -o addopts= -o python_files='[a-z]*.py' -q -s benchmarks $(ARGS)

$(BENCH)/peers: $(BENCH)/installed
	$(BENCH)/$(PIP) -e '.[bench]' --no-build-isolation
	touch $@

# uv by pip, and all else by uv, which takes a tenth of the time; by pip, where uv does not know its index of packages.
%/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $*
	awk '/^[^ ]/ {mine = /^uv==/} mine' requirements.lock > $*/uv.lock
	$*/$(PIP) --require-hashes -r $*/uv.lock
	$*/bin/uv pip install --quiet --python $* --require-hashes -r requirements.lock \
	  || $*/$(PIP) --require-hashes -r requirements.lock
	$*/$(PIP) --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv .venv-* build dist docs/_build *.egg-info
