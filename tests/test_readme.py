"""What the README and the pages behind it show runs as it stands there, and agrees with what the demo printed."""

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
from jaxfair.cli import flags, prune

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DEMO, OWN_DATA, INDEX = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("demo", "own", "index"))
#: What a reader meets, in this order.
PAGES = {"README.md": README, "docs/index.md": INDEX, "docs/demo.md": DEMO, "docs/own.md": OWN_DATA}
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", "\n".join(PAGES.values()), re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
ANSWER = re.search(r"^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]
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
        cwd=folder, capture_output=True, text=True, timeout=600, env=os.environ | {"PYTHONPATH": path},
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
    shown = re.findall(r"^print\(.*\n# (.*)$", first, re.MULTILINE)
    assert len(shown) == 1
    command = re.search(r"^\.venv/bin/python (-m experiments\.balancing_act --data .*)$", OWN_DATA, re.MULTILINE)
    small = ("--methods=ceag", "--seeds=1", "--epochs=4", "--prune_epochs=2", "--dense_epochs=1")
    words = [sys.executable, *shlex.split(command[1]), *small]
    between = f"""
import subprocess
run = subprocess.run({words}, capture_output=True, text=True, timeout=300)
assert run.returncode == 0, run.stderr
print("the command has run")
"""
    (tmp_path / "readme.py").write_text(f"{first}\n{between}\n{after}\nassert logits.shape == (len(adult.y), 2)")
    before, _, read = python(tmp_path, "readme.py").partition("the command has run\n")
    *verdicts, last = before.splitlines()
    assert [last] == shown
    assert len(verdicts) == 1
    assert verdicts[0].startswith("after, test: the bound of 1 point ")
    assert re.search(r"^hidden/kernel +107x128 +684 +13,696 +0\.9501$", read, re.MULTILINE)


def test_your_own_data_and_model_take_twenty_lines():
    own = OWN_DATA.partition("# Your own data, your own network")[2].partition("\n## ")[0]
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
    pages = "\n".join(PAGES.values())
    found = re.findall(r"python -m experiments\.balancing_act (--.*?)(?:`|$)", pages, re.MULTILINE)
    found += re.findall(r'ARGS="(.*?)"', pages) + re.findall(r"ARGS=(-[^ `]*)", pages)
    # Alternatives are listed behind one flag: `--dataset cifar100`, `fashion_mnist`.
    found += [text for text in re.findall(r"`(--[^`]*)`", pages) if " " in text]
    return [text for text in found if text != "--help"]


def test_the_command_for_a_table_of_ones_own_has_flags_that_exist():
    (text,) = re.findall(r"^jaxfair prune (--.*)$", README, re.MULTILINE)
    flags.check(flags.parser(prune.Config, prog="readme")(["readme", *shlex.split(text)]))


@pytest.mark.parametrize("text", commands())
def test_every_command_has_flags_that_exist(text):
    config = flags.parser(balancing_act.Config, prog="readme")(["readme", *shlex.split(text)])
    flags.check(config)


def test_the_commands_were_found():
    assert len(commands()) > 8


LINKS = [
    (page, link)
    for page, text in PAGES.items()
    for link in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]
]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{page}: {link}" for page, link in LINKS])
def test_every_link_inside_the_repository_leads_somewhere(page, link):
    if link.startswith("https://"):
        return
    path, _, heading = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if heading:
        titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_method_and_package_is_named():
    for method in balancing_act.METHODS:
        assert f"| `{method}` |" in DEMO
    for folder in (ROOT / "jaxfair").iterdir():
        if (folder / "__init__.py").exists():
            assert f"| `jaxfair.{folder.name}` |" in INDEX


def test_the_readme_can_be_read_in_a_minute():
    """Three sentences and a picture before the first heading, no table, and what is long behind links."""
    first = README.partition("\n## ")[0]
    words = first.partition("<img")[0].partition("\n")[2]
    assert len(re.findall(r"[.!?](?=\s|$)", words)) == 3
    assert first.count("<img") == 1
    assert "\n|" not in README
    assert len(README.splitlines()) < 140


def test_the_answer_is_that_of_the_table():
    """The README, the page of the demo and its table are of one run: the same digits."""
    assert ANSWER in DEMO
    assert all(len(line) <= 80 for line in ANSWER.splitlines())
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DEMO.splitlines()
        if re.search(r"[|] (train|test) [|]", line)
    ]
    table = {(cells[0].replace("\\", ""), cells[2]): cells for cells in rows}
    shown = {"dense": "dense", "pruned as usual": "nft (last)", "pruned under the bound": "ceag"}
    for words, method in shown.items():
        accuracy, met = re.search(rf"^{words} +([\d.]+) %.*?(\d of \d)?$", ANSWER, re.MULTILINE).groups()
        assert table[method, "test"][3].startswith(f"{accuracy} ±")
        assert table[method, "train"][1] == (f"met in {met}" if met else "–")
    counts = re.findall(r"holds for (\d) of 4 groups and\s+cannot\s+be\s+judged\s+for (\d)", ANSWER)
    assert [f"holds {a}, cannot tell {b}" for a, b in counts] == [
        table[m, "test"][1] for m in ("nft (last)", "ceag")
    ]  # fmt: skip
    # Every number with its interval in the README is one of the demo's page, and the picture is of this answer.
    assert re.findall(r"[\d.]*\d ± [\d.]*\d", README)
    assert all(text in DEMO for text in re.findall(r"[\d.]*\d ± [\d.]*\d", README))
    gaps = {f"{float(table[m, 'train'][4].split()[0]):.1f}" for m in ("nft (last)", "ceag")}
    said = re.findall(r"loses (\d\.\d) points|point (\d\.\d)", README)
    assert {number for pair in said for number in pair if number} == gaps


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
