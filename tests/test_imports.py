"""The order of the house: arrows point down only."""

import ast
import pathlib

import pytest

import jaxfair

PACKAGE = pathlib.Path(jaxfair.__file__).parent
ROOT = PACKAGE.parent

# A folder may import what stands on a lower level, and itself. The leaves may import the bottom only, and nothing
# in the library imports a leaf.
LEVEL = {
    "typing": 0,
    "tree": 0,
    "files": 0,
    "metrics": 1,
    "games": 1,
    "optim": 1,
    "sparsity": 1,
    "quant": 1,
    "constraints": 2,
    "bilevel": 2,
    "robust": 2,
    "study": 3,
    "train": 4,
}
LEAVES = {"models", "data", "report"}
# The only places that may import these.
OWNERS = {"flax": "models", "tensorflow_datasets": "data", "grain": "data", "sklearn": "data"}
# `games` plays with any optimizer, so it may see `optim` beside it.
SIDEWAYS = {("games", "optim")}


def imports_of(path: pathlib.Path):
    """The absolute names of the modules that a file imports, at any depth of nesting."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def part_of(name: str) -> str | None:
    """'jaxfair.sparsity.prune' -> 'sparsity'; None for what is not ours."""
    words = name.split(".")
    return words[1] if words[0] == "jaxfair" and len(words) > 1 else None


def violations(path: pathlib.Path, names) -> list[str]:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    found = []
    if here == "__init__":
        return found
    for name in names:
        top, there = name.split(".")[0], part_of(name)
        if top in OWNERS and here != OWNERS[top]:
            found.append(f"{path.name} imports {top}: only jaxfair/{OWNERS[top]} may")
        if top in {"experiments", "tests", "benchmarks"}:
            found.append(f"{path.name} imports {top}: the library does not know it")
        if there is None or there == here:
            continue
        if there in LEAVES:
            found.append(f"{path.name} imports the leaf {there}")
        elif here in LEAVES:
            if LEVEL[there] > 1 and (here, there) != ("report", "study"):
                found.append(f"the leaf {here} imports {there}")
        elif LEVEL[there] >= LEVEL[here] and (here, there) not in SIDEWAYS and LEVEL[here] > 0:
            found.append(f"{here} imports {there}: the arrow does not point down")
    return found


SOURCES = sorted(p for p in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    assert violations(path, imports_of(path)) == []


def test_every_folder_has_its_place():
    parts = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in SOURCES} - {"__init__"}
    assert parts <= set(LEVEL) | LEAVES


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("sparsity/prune.py", "jaxfair.constraints.solver"),
        ("train/loop.py", "jaxfair.data"),
        ("constraints/solver.py", "flax"),
        ("models/mlp.py", "jaxfair.train"),
        ("metrics/grouped.py", "experiments.balancing_act"),
    ],
)
def test_the_check_sees_an_arrow_that_points_up(file, name):
    assert violations(PACKAGE / file, [name])
