"""What a user installs: the library without the extras, the files inside the wheel, and make that installs once."""

import pathlib
import shutil
import subprocess
import sys
import textwrap
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
#: What the extras bring. None of it may be needed to import the library and to load Adult.
EXTRAS = (
    "tensorflow", "tensorflow_datasets", "grain", "sklearn", "pyarrow", "PIL", "pandas", "matplotlib", "jinja2",
    "absl_test", "simple_parsing", "beartype", "chex", "fairlearn", "torch",
)  # fmt: skip


def test_the_library_imports_without_the_extras():
    script = f"""
        import pkgutil, sys, warnings

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {EXTRAS!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
        import importlib, jaxfair
        for info in pkgutil.iter_modules(jaxfair.__path__):
            importlib.import_module(f"jaxfair.{{info.name}}")
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
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "jaxfair/data/files/adult.data.xz",
        "jaxfair/data/files/adult.LICENSE.md",
        "jaxfair/report/templates/report.html",
        "jaxfair/py.typed",
    ):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("jaxfair/", "jaxfair-")) for name in names)


@pytest.mark.parametrize("target", ["demo", "test", "lint"])
def test_make_installs_when_it_must_and_only_then(tmp_path, target):
    make = shutil.which("make")
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text("")

    def would_run():
        done = subprocess.run([make, "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    assert "pip install" in would_run()
    stamp = tmp_path / ".venv" / "installed"
    stamp.parent.mkdir()
    stamp.write_text("")
    assert "pip install" not in would_run()
