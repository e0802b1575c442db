"""What the README shows runs as it stands there."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from experiments import balancing_act, flags

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
#: What the prose says about the example with a model of one's own.
CLAIM = """
assert largest["nft"] > 0.05 and largest["ceag"] < largest["nft"] / 2, largest
assert logits.shape == (len(mine.test.y), 2)
"""


@pytest.mark.slow
def test_the_python_runs_from_top_to_bottom_and_prints_what_it_says(tmp_path):
    script = tmp_path / "readme.py"
    script.write_text("\n".join(PYTHON) + CLAIM)
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    shown = re.findall(r"^print\(.*\n# (.*)$", "\n".join(PYTHON), re.MULTILINE)
    assert len(shown) == 1
    assert run.stdout.splitlines()[0] == shown[0]
    assert re.search(r"^hidden +107x128 +273 +13,696 +0\.9801$", run.stdout, re.MULTILINE)


def commands():
    """The words after ``python -m experiments.balancing_act`` wherever it stands, and after ``ARGS=``."""
    found = re.findall(r"python -m experiments\.balancing_act (--.*?)(?:`|$)", README, re.MULTILINE)
    found += re.findall(r'ARGS="(.*?)"', README)
    # Alternatives are listed behind one flag: `--dataset cifar100`, `fashion_mnist`.
    found += [text for text in re.findall(r"`(--[^`]*)`", README) if " " in text]
    return [text for text in found if text != "--help"]


@pytest.mark.parametrize("text", commands())
def test_every_command_has_flags_that_exist(text):
    config = flags.parser(balancing_act.Config, prog="readme")(["readme", *shlex.split(text)])
    balancing_act.check(config)


def test_the_commands_were_found():
    assert len(commands()) > 8


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_inside_the_repository_leads_somewhere(link):
    assert link.startswith("https://") or (ROOT / link).exists()


def test_every_method_and_package_is_named():
    for method in balancing_act.METHODS:
        assert f"| `{method}` |" in README
    for folder in (ROOT / "jaxfair").iterdir():
        if (folder / "__init__.py").exists():
            assert f"| `jaxfair.{folder.name}` |" in README
