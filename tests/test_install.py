"""What a user installs: the library without the extras, the files inside the wheel, and make that installs once."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile

import pytest

import jaxfair

ROOT = pathlib.Path(__file__).parent.parent
#: What the extras bring. None of it may be needed to import the library and to load Adult.
EXTRAS = (
    "tensorflow", "tensorflow_datasets", "grain", "sklearn", "pyarrow", "PIL", "pandas", "matplotlib", "jinja2",
    "absl_test", "simple_parsing", "beartype", "chex", "fairlearn", "torch",
)  # fmt: skip
#: What takes half a second and more to import, and only some functions need: they import it when they are called.
SLOW = {"scipy.stats", "scipy.optimize", "flax.nnx", "orbax.checkpoint", "jax.experimental.sparse", "IPython"}


@pytest.mark.slow
def test_the_library_imports_without_the_extras_and_without_a_network():
    script = f"""
        import pkgutil, sys, warnings

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {EXTRAS!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        def alone(event, given):
            if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
                raise AssertionError(f"{{event}}: {{given}}")

        sys.meta_path.insert(0, Absent())
        sys.addaudithook(alone)
        import importlib, jaxfair
        for info in pkgutil.iter_modules(jaxfair.__path__):
            importlib.import_module(f"jaxfair.{{info.name}}")
        assert not {SLOW!r} & sys.modules.keys(), {SLOW!r} & sys.modules.keys()
        warnings.simplefilter("ignore")
        from jaxfair import data
        print(data.load("adult").num_groups)
        try:
            data.load("digits")
        except Exception as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    assert first == "4"
    assert "jaxfair[data]" in second


def test_the_command_is_there_without_a_path_to_it(tmp_path):
    words = [sys.executable, "-m", "jaxfair"]
    said = subprocess.run([*words, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout == f"jaxfair {jaxfair.__version__}\n"
    wrong = subprocess.run([*words, "prun"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


@pytest.mark.slow
def test_the_wheel_holds_data_templates_and_licences(tmp_path):
    source = tmp_path / "source"
    # A copy, since building leaves files beside the sources.
    shutil.copytree(ROOT / "jaxfair", source / "jaxfair", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        check=True,
        capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"jaxfair-{jaxfair.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "jaxfair/data/files/adult.data.xz",
        "jaxfair/data/files/adult.LICENSE.md",
        "jaxfair/report/templates/report.html",
        "jaxfair/report/templates/gallery.css",
        "jaxfair/report/templates/gallery.html",
        "jaxfair/report/templates/page.js",
        "jaxfair/py.typed",
    ):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("jaxfair/", "jaxfair-")) for name in names)


def would_run(folder, *arguments, path=os.environ["PATH"]):
    """What `make` would do here, for whoever has nothing set."""
    environment = {"PATH": path, "HOME": str(folder), "PYENV_ROOT": str(folder / "pyenv")}
    done = subprocess.run(
        ["/usr/bin/env", "make", "-n", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture
def clone(tmp_path):
    """A folder with all that `make` reads."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".ci").mkdir()
    for name in ("python", "run"):
        shutil.copy(ROOT / ".ci" / name, tmp_path / ".ci")
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench"])
def test_make_installs_when_it_must_and_only_then(clone, target):
    assert "pip install" in would_run(clone, target, f"PYTHON={sys.executable}")
    for stamp in (".venv/installed", ".venv-bench/installed", ".venv-bench/peers"):
        (clone / stamp).parent.mkdir(exist_ok=True)
        (clone / stamp).write_text("")
    assert "pip install" not in would_run(clone, target)


def test_an_environment_of_another_python_is_made_anew(clone):
    stamp, own = clone / ".venv" / "installed", clone / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    stamp.write_text("")
    python = pretend(clone / "bin", "3.12.1")
    own.symlink_to(python)
    assert "pip install" not in would_run(clone, "test", f"PYTHON={python}")
    other = pretend(clone / "other", "3.13.0")
    assert f"{other} -m venv --clear .venv\n" in would_run(clone, "test", f"PYTHON={other}")
    assert "pip install" not in would_run(clone, "test")  # who names none keeps what there is


def pretend(folder, version, *, works=True):
    """A program that answers as this Python does, or as a shim of pyenv for a version that is not switched on."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"python{version.rpartition('.')[0]}"
    answer = (
        f"[ $1 = -V ] && echo Python {version} || echo {program}" if works else "echo pyenv: not found >&2; exit 127"
    )
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("on_path", "in_pyenv", "taken"),
    [
        (("3.11.7", "3.13.0"), (), "path/python3.13"),
        (("3.11.7", "3.14.0", "3.12.1"), (), "path/python3.14"),
        (("3.11.7",), ("3.12.1",), "pyenv/versions/3.12.1/bin/python3.12"),
        (("3.11.7", "!3.13.0"), ("3.13.0",), "pyenv/versions/3.13.0/bin/python3.13"),
        (("3.11.7", "!3.13.0"), (), "path/python3.11"),
        (("3.10.1", "3.15.0"), (), None),
        ((), (), None),
    ],
)
def test_make_takes_the_newest_python_that_works(clone, on_path, in_pyenv, taken):
    for version in on_path:
        pretend(clone / "path", version.lstrip("!"), works=not version.startswith("!"))
    for version in in_pyenv:
        pretend(clone / "pyenv" / "versions" / version / "bin", version)
    said = would_run(clone, "test", path=f"{clone / 'path'}:{tools(clone)}")
    if taken:
        assert f"{clone / taken} -m venv" in said
    else:
        assert "no working Python of version 3.14 3.13 3.12 3.11 was found" in said
        assert "PYTHON=/path/to/python3" in said


def tools(folder):
    """A PATH with what a shell needs, and no Python."""
    kept = folder / "tools"
    kept.mkdir()
    for name in ("sh", "bash", "make", "cat", "test", "dirname"):
        (kept / name).symlink_to(shutil.which(name))
    return kept


@pytest.mark.parametrize(("there", "missing"), [("3.11.7", "3.13"), ("3.13.0", "3.11")])
def test_ci_says_which_python_is_missing(clone, there, missing):
    pretend(clone / "path", there)
    environment = {"PATH": f"{clone / 'path'}:{tools(clone)}", "HOME": str(clone)}
    done = subprocess.run([clone / ".ci" / "run"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert f"version {missing} was found" in done.stderr
    assert not done.stdout


def test_a_python_that_is_found_makes_environments():
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    found = subprocess.run(
        [ROOT / ".ci" / "python", version], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
    )
    program = found.stdout.strip()
    inside = "import sys, venv, ensurepip; print(*sys.version_info[:2], sep='.'); assert sys.prefix == sys.base_prefix"
    done = subprocess.run([program, "-c", inside], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == version


def commands(text):
    """Every ``python -m`` of ours, with what stands before it, and whether an environment was switched on."""
    for found in re.finditer(r"(\S*?)python -m (?:experiments|benchmarks)\.", text):
        yield found[1].lstrip("`\"('"), "source .venv/bin/activate" in text[: found.start()]


@pytest.mark.parametrize("folder", ["docs", "notebooks", "experiments", "benchmarks"])
def test_a_command_names_its_environment(folder):
    """Whoever has just called `make demo` can copy it: outside of .venv there is no jax."""
    suffixes = (".md", ".ipynb", ".py")
    built = ("_build", "__pycache__", ".ipynb_checkpoints")
    everything = [path for path in (ROOT / folder).rglob("*") if not set(built) & set(path.parts)]
    pages = [path for path in everything if path.suffix in suffixes and path.stem != "test_peers"]
    found = [(page.name, *command) for page in pages for command in commands(page.read_text())]
    assert found
    environment = ".venv-bench/bin/" if folder == "benchmarks" else ".venv/bin/"
    assert not [page for page, before, on in found if before != environment and not (on and not before)]
