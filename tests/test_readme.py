"""What the README shows runs as it stands there."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types

import pytest

from experiments import balancing_act
from jaxfair import games, optim
from jaxfair.cli import flags

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
OWN = next(text for text in PYTHON if text.startswith("# my_model.py\n"))
TRAINING = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "docs" / "training.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def python(folder, *arguments):
    """Runs Python in that folder, with the repository's packages within reach."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_the_readme_runs_from_top_to_bottom_and_prints_what_it_says(tmp_path):
    """The Python in its order, and between writing the files and reading the weights the command, made small."""
    (tmp_path / "my_model.py").write_text(OWN)
    blocks = [text for text in PYTHON if text != OWN]
    before, after = blocks[:-1], blocks[-1]
    first = "\n".join(before)
    (tmp_path / "before.py").write_text(first)
    shown = re.findall(r"^print\(.*\n# (.*)$", first, re.MULTILINE)
    assert len(shown) == 1
    *verdicts, last = python(tmp_path, "before.py").splitlines()
    assert [last] == shown
    assert len(verdicts) == 1
    assert verdicts[0].startswith("after, test: the bound of 1 point ")

    command = re.search(r"^python (-m experiments\.balancing_act --data .*)$", README, re.MULTILINE)
    small = ("--methods=ceag", "--seeds=1", "--epochs=4", "--prune_epochs=2", "--dense_epochs=1")
    python(tmp_path, *shlex.split(command[1]), *small)

    (tmp_path / "after.py").write_text(f"{first}\n{after}\nassert logits.shape == (len(adult.y), 2)")
    assert re.search(
        r"^hidden/kernel +107x128 +684 +13,696 +0\.9501$",
        python(tmp_path, "after.py"),
        re.MULTILINE,
    )


def test_your_own_data_and_model_take_twenty_lines():
    own = README.partition("## Your own data, your own network")[2].partition("\n## ")[0]
    lines = [
        line
        for text in re.findall(r"^```\w+\n(.*?)^```$", own, re.MULTILINE | re.DOTALL)
        for line in text.splitlines()
        if line.strip()
    ]
    assert len(lines) <= 20


@pytest.mark.slow
def test_the_loop_in_python_shows_every_group(tmp_path):
    (tmp_path / "training.py").write_text("\n".join(TRAINING))
    shown = python(tmp_path, "training.py").splitlines()
    assert shown[0].startswith("nft, test: the bound of 1 point")
    assert shown[1].startswith("ceag, test: the bound of 1 point")
    assert len(shown) == 2 + 3 * 2  # three epochs of two networks, a number for each group
    assert {len(json.loads(line[1:])) for line in shown[2:]} == {4}
    assert (tmp_path / "report" / "report.html").exists()
    assert sorted(p.name for p in (tmp_path / "pruned").iterdir()) == [
        "network_seed0.safetensors",
        "network_seed1.safetensors",
    ]


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
    flags.check(config)


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


def test_every_game_and_optimizer_stands_in_its_table():
    page = (ROOT / "docs" / "optimizers.md").read_text()
    for name in games.SUITE:
        assert f"| `{name}` |" in page
    # The methods are the public functions, but for the scaled forms and what reads a state.
    for name in dir(optim):
        if name[0] == "_" or not isinstance(getattr(optim, name), types.FunctionType):
            continue
        if not name.startswith(("scale_by_", "get_")):
            assert f"| `{name}` |" in page, name
