"""The order of the house: arrows point down only, no circle, and what is private stays in its room."""

import ast
import graphlib
import pathlib

import pytest

import jaxfair

PACKAGE = pathlib.Path(jaxfair.__file__).parent
ROOT = PACKAGE.parent

GROUND = {"typing", "tree", "files", "implicit"}
#: A room may import what stands in a lower row. Rooms that are not there yet have their place already.
FLOORS = (
    GROUND,
    {"metrics", "optim", "games", "sparsity", "quant", "search"},
    {"constraints", "bilevel", "robust", "inverse"},
    {"study"},
    {"train", "report"},
    {"recipes", "audit"},
    {"cli"},
    {"__main__"},
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
#: Arrows within a floor: who -> whom it may see beside it.
SIDEWAYS = {("games", "optim"), ("quant", "sparsity"), ("bilevel", "constraints"), ("robust", "constraints")}
#: Leaves stand at the side. Of the library only the roof may import them.
LEAVES = {"models", "data"}
ROOF = {"recipes", "audit", "cli"}
#: Rooms that may see less than what stands below them.
ONLY = {
    "models": GROUND | {"metrics"},
    "data": GROUND | {"metrics"},
    "report": GROUND | {"metrics", "study"},
    "train": GROUND | {"metrics", "study"},  # any Solver: it knows no constraint
}
#: The only rooms that may import these.
OWNERS = {
    "flax": "models",
    "tensorflow_datasets": "data",
    "grain": "data",
    "sklearn": "data",
    "absl": "cli",
    "simple_parsing": "cli",
}
#: What stands on the library.
ABOVE = {"experiments", "tests", "benchmarks", "notebooks"}


def imports_of(path: pathlib.Path):
    """The absolute names of what a file imports, at any depth of nesting."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def refusal(here: str, there: str) -> str | None:
    """Why one room may not import another."""
    if there == here or (here in GROUND and there in GROUND):
        return None
    if there not in LEVEL and there not in LEAVES:
        return f"{here} imports {there}, which has no place in the house"
    if here == "__init__":
        return f"import jaxfair would load {there}: rooms are loaded when they are asked for"
    if there in LEAVES:
        return None if here in ROOF else f"{here} imports the leaf {there}"
    if here in ONLY:
        return None if there in ONLY[here] else f"{here} may not import {there}"
    if LEVEL[there] < LEVEL[here] or (here, there) in SIDEWAYS:
        return None
    return f"{here} imports {there}: the arrow does not point down"


def violations(path: pathlib.Path, names) -> list[str]:
    here, found = room_of(path), []
    for name in names:
        top, *rest = name.split(".")
        if top in OWNERS and here != OWNERS[top]:
            found.append(f"{here} imports {top}: only jaxfair/{OWNERS[top]} may")
        if top in ABOVE:
            found.append(f"{here} imports {top}: the library does not know it")
        if top != "jaxfair" or rest[:1] == ["__version__"]:
            continue
        if not rest:
            found.append(f"{here} imports jaxfair as a whole: name the room")
            continue
        if reason := refusal(here, rest[0]):
            found.append(reason)
        if rest[0] != here and (private := private_of(name)):
            found.append(f"{here} imports {private}: it is private to its room")
    return found


def private_of(name: str) -> str | None:
    """What begins with an underscore in a name of ours, None if nothing does."""
    top, *words = name.split(".")
    hidden = [w for w in words if w.startswith("_") and not w.startswith("__")]
    return name if top == "jaxfair" and hidden else None


def module_of(path: pathlib.Path) -> str:
    words = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def graph(imports) -> dict[str, set[str]]:
    """Which module imports which, of ``{module: names}``; a name inside of a module is that module."""
    found = {}
    for module, names in imports.items():
        found[module] = set()
        for name in names:
            target = name if name in imports else name.rpartition(".")[0]
            if target in imports and target != module:
                found[module].add(target)
    return found


def circle(imports) -> list[str]:
    """Modules that import each other in a circle; none if there is none."""
    try:
        graphlib.TopologicalSorter(graph(imports)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


SOURCES = sorted(PACKAGE.rglob("*.py"))
USERS = sorted(p for folder in ("experiments", "benchmarks") for p in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    assert violations(path, imports_of(path)) == []


def test_no_circle():
    assert circle({module_of(path): list(imports_of(path)) for path in SOURCES}) == []


def test_every_room_has_its_place():
    assert {room_of(path) for path in SOURCES} - {"__init__"} <= set(LEVEL) | LEAVES
    assert not set(LEVEL) & LEAVES


@pytest.mark.parametrize("path", USERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_who_uses_the_library_takes_what_it_offers(path):
    assert [name for name in imports_of(path) if private_of(name)] == []


#: What a file may not import -> a word of the reason.
WRONG = [
    # up
    ("tree.py", "jaxfair.metrics", "does not point down"),
    ("metrics/_grouped.py", "jaxfair.study", "does not point down"),
    ("sparsity/prune.py", "jaxfair.constraints.solver", "does not point down"),
    ("constraints/solver.py", "jaxfair.study.records", "does not point down"),
    ("constraints/solver.py", "jaxfair.train", "does not point down"),
    ("bilevel/bip.py", "jaxfair.train", "does not point down"),
    ("study/cells.py", "jaxfair.train.fit", "does not point down"),
    ("audit/page.py", "jaxfair.cli", "does not point down"),
    ("recipes/prune.py", "jaxfair.cli", "does not point down"),
    # sideways
    ("optim/omega.py", "jaxfair.games.play", "does not point down"),
    ("sparsity/prune.py", "jaxfair.quant", "does not point down"),
    ("sparsity/prune.py", "jaxfair.optim.omega", "does not point down"),
    ("optim/omega.py", "jaxfair.metrics", "does not point down"),
    ("robust/dro.py", "jaxfair.bilevel", "does not point down"),
    ("recipes/prune.py", "jaxfair.audit", "does not point down"),
    # leaves see the ground and metrics, report also the study
    ("report/page.py", "jaxfair.sparsity.prune", "report may not import sparsity"),
    ("report/page.py", "jaxfair.train", "report may not import train"),
    ("models/mlp.py", "jaxfair.optim.omega", "models may not import optim"),
    ("models/channels.py", "jaxfair.sparsity", "models may not import sparsity"),
    ("models/mlp.py", "jaxfair.train", "models may not import train"),
    ("data/own.py", "jaxfair.games.play", "data may not import games"),
    ("data/own.py", "jaxfair.study", "data may not import study"),
    ("data/own.py", "jaxfair.models", "the leaf models"),
    # nobody but the roof sees a leaf
    ("train/loop.py", "jaxfair.data", "the leaf data"),
    ("report/page.py", "jaxfair.models", "the leaf models"),
    ("sparsity/_removal.py", "jaxfair.models.channels", "the leaf models"),
    ("study/cells.py", "jaxfair.data", "the leaf data"),
    ("train/loop.py", "jaxfair.report", "may not import report"),
    ("constraints/solver.py", "jaxfair.report", "does not point down"),
    # training knows what a Solver is, and nothing that is one
    ("train/loop.py", "jaxfair.sparsity", "train may not import sparsity"),
    ("train/loop.py", "jaxfair.optim", "train may not import optim"),
    ("train/loop.py", "jaxfair.bilevel", "train may not import bilevel"),
    # the face, and rooms that nobody has heard of
    ("__init__.py", "jaxfair.sparsity", "asked for"),
    ("tree.py", "jaxfair", "as a whole"),
    ("metrics/_grouped.py", "jaxfair", "as a whole"),
    ("metrics/_grouped.py", "jaxfair.helpers", "no place in the house"),
    # what is private
    ("report/audit.py", "jaxfair.metrics._decisions", "private"),
    ("games/play.py", "jaxfair.optim._oracles.Operator", "private"),
    # other people's packages, and what stands on the library
    ("constraints/solver.py", "flax", "only jaxfair/models may"),
    ("train/loop.py", "flax.linen", "only jaxfair/models may"),
    ("models/mlp.py", "sklearn", "only jaxfair/data may"),
    ("recipes/prune.py", "absl.flags", "only jaxfair/cli may"),
    ("metrics/_grouped.py", "experiments.balancing_act", "does not know it"),
    ("cli/flags.py", "benchmarks.timing", "does not know it"),
]
RIGHT = [
    ("implicit.py", "jaxfair.tree"),
    ("games/play.py", "jaxfair.optim.omega"),
    ("quant/bits.py", "jaxfair.sparsity"),
    ("constraints/solver.py", "jaxfair.sparsity"),
    ("study/claims.py", "jaxfair.metrics"),
    ("train/loop.py", "jaxfair.study.interrupt"),
    ("train/loop.py", "jaxfair.typing.Solver"),
    ("report/page.py", "jaxfair.study"),
    ("models/mlp.py", "flax.linen"),
    ("models/mlp.py", "jaxfair.metrics"),
    ("recipes/prune.py", "jaxfair.models"),
    ("audit/page.py", "jaxfair.report"),
    ("cli/main.py", "jaxfair.recipes"),
    ("cli/main.py", "absl.flags"),
    ("study/folder.py", "jaxfair.__version__"),
    ("sparsity/prune.py", "jaxfair.sparsity._selection"),
]


@pytest.mark.parametrize(("file", "name", "reason"), WRONG)
def test_the_check_sees_what_is_wrong(file, name, reason):
    (found,) = violations(PACKAGE / file, [name])
    assert reason in found


@pytest.mark.parametrize(("file", "name"), RIGHT)
def test_the_check_lets_what_is_right_pass(file, name):
    assert violations(PACKAGE / file, [name]) == []


def test_the_check_sees_a_circle():
    straight = {"jaxfair.a": ["jaxfair.b.f"], "jaxfair.b": ["jaxfair.c"], "jaxfair.c": ["jax"]}
    assert circle(straight) == []
    assert set(circle(straight | {"jaxfair.c": ["jaxfair.a.g"]})) == set(straight)


def test_the_check_sees_imports_however_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr("test_imports.ROOT", tmp_path)
    (tmp_path / "jaxfair" / "room").mkdir(parents=True)
    file = tmp_path / "jaxfair" / "room" / "file.py"
    file.write_text(
        "import jaxfair.a.b as c\nfrom jaxfair import d\nfrom . import e\nfrom ..f import g\n"
        "def h():\n    from jaxfair.i import j\n"
    )
    assert set(imports_of(file)) == {
        "jaxfair.a.b", "jaxfair.d", "jaxfair.room.e", "jaxfair.f.g", "jaxfair.i.j",
    }  # fmt: skip
