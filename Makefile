# Two commands do all the set-up: `make demo` and `make test`. Each creates .venv from requirements.lock
# when it is missing or older than the lock, and installs nothing otherwise.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test lint format lock test-lowest bench clean

demo: $(STAMP)
	$(BIN)/python -m experiments.balancing_act $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -q $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Run by hand after a change of the dependencies.
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" --output-file requirements.lock

# The lower bounds of pyproject.toml, in an environment of their own.
test-lowest: $(STAMP)
	$(BIN)/uv venv --quiet --allow-existing --seed --python $(PYTHON) .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/python -m pytest -n 2 --dist loadfile -q $(ARGS)

# Speed, also against PyTorch and Cooper: in an environment of their own, since the lock does not hold them.
bench: .venv-bench/installed
	.venv-bench/bin/python -m pytest -o addopts= -o python_files='[a-z]*.py' -q -s benchmarks $(ARGS)

.venv-bench/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[bench]'
	touch $@

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-bench build dist *.egg-info
