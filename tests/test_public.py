"""What is public is documented and teaches; what is private says so; every file and function can be read in one go."""

import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import types

import pytest

import jaxfair

PACKAGE = pathlib.Path(jaxfair.__file__).parent
ROOT = PACKAGE.parent
#: Lines of a file of the library, which holds one algorithm; a subject of more is a folder.
LINES = 320
#: Lines of an experiment, its page included, and of the one that is larger.
LINES_OF_AN_EXPERIMENT = 450
LARGER = {"dual_dynamics.py": 600}
#: Lines of code of a function: without its docstring, comments and empty lines.
CODE = 80
#: Rooms whose modules are private or bear the name of what they make, and the modules that are offered as such.
TIDY = {
    "data": {"folders"},
    "games": set(),
    "metrics": {"calibration"},
    "models": {"channels"},
    "optim": {"numbers"},
    "quant": set(),
    "sparsity": {"second_order"},
}


def public_names():
    """(module, name, object) of everything that a package of jaxfair exports, and of the modules at its top."""
    for info in pkgutil.iter_modules([str(PACKAGE)]):
        module = importlib.import_module(f"jaxfair.{info.name}")
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        for name in names:
            thing = getattr(module, name)
            ours = getattr(thing, "__module__", "").startswith("jaxfair")
            if ours and (inspect.isclass(thing) or inspect.isfunction(thing)):
                yield info.name, name, thing


NAMES = list(public_names())


def teaches(source: str) -> bool:
    """Whether a line of an example calls something, and does not only look at what a name consists of."""
    nodes = list(ast.walk(ast.parse(source)))
    calls = any(isinstance(node, ast.Call) for node in nodes)
    return calls and not any(empty(node) for node in nodes)


def empty(node: ast.AST) -> bool:
    """``X._fields``, ``x is not None`` and ``x >= 0`` are true of anything."""
    if isinstance(node, ast.Attribute):
        return node.attr == "_fields"
    if not isinstance(node, ast.Compare):
        return False
    (operator, *_), (right, *_) = node.ops, node.comparators
    constant = right.value if isinstance(right, ast.Constant) else ...
    nothing = isinstance(operator, (ast.Is, ast.IsNot)) and constant is None
    return nothing or (isinstance(operator, ast.GtE) and constant in (0, 0.0))


def examples_of(text: str) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(text)


@pytest.mark.parametrize(("module", "name", "thing"), NAMES, ids=[f"{m}.{n}" for m, n, _ in NAMES])
def test_every_public_name_has_a_docstring_with_an_example_that_teaches(module, name, thing):
    text = inspect.getdoc(thing) or ""
    assert len(text.splitlines()) > 2, "no docstring"
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return  # raised, not called
    examples = examples_of(text)
    state = inspect.isclass(thing) and issubclass(thing, tuple) and "Attributes:" in text
    # The fields of a named tuple are its documentation; it comes out of a function that has the example.
    assert examples or state, "no example"
    if examples:
        assert any(teaches(example.source) for example in examples), "the example calls nothing"
        shown = [e for e in examples if any(map(empty, ast.walk(ast.parse(e.source))))]
        assert not shown, f"says nothing: {shown[0].source}"


def code_lines(function: ast.AST, lines: list[str]) -> int:
    """Lines of a function without docstrings, comments and empty lines."""
    left_out = set()
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                left_out.update(range(first.lineno, first.end_lineno + 1))
    inside = (i for i in range(function.lineno, function.end_lineno + 1) if i not in left_out)
    stripped = (lines[i - 1].strip() for i in inside)
    return sum(bool(line) and not line.startswith("#") for line in stripped)


def too_long(text: str) -> list[str]:
    lines = text.splitlines()
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    counted = ((node.name, code_lines(node, lines)) for node in functions)
    return [f"{name} has {count} lines of code" for name, count in counted if count > CODE]


def limit_of(path: pathlib.Path) -> int:
    if path.is_relative_to(PACKAGE):
        return LINES
    return LARGER.get(path.name, LINES_OF_AN_EXPERIMENT)


FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "experiments").glob("*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_says_what_it_is_for_and_can_be_read_in_one_go(path):
    text = path.read_text()
    first = text.splitlines()[0]
    assert first.startswith(('"""', 'r"""'))
    assert len(first) > 20
    assert len(text.splitlines()) <= limit_of(path)
    assert too_long(text) == []


@pytest.mark.parametrize("room", TIDY)
def test_modules_that_are_nobodys_business_say_so(room):
    """What ``dir(room)`` shows is offered: a module without an underscore has the name of what it makes."""
    package = importlib.import_module(f"jaxfair.{room}")
    modules = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    shown = {name for name in modules if isinstance(getattr(package, name), types.ModuleType)}
    assert shown == TIDY[room]


def test_the_check_sees_a_missing_docstring():
    def bare():
        pass

    with pytest.raises(AssertionError, match="no docstring"):
        test_every_public_name_has_a_docstring_with_an_example_that_teaches("", "bare", bare)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ("", "no example"),
        (">>> thing._fields", "calls nothing"),
        (">>> thing().init is not None", "calls nothing"),
        (">>> bool((thing() >= 0).all())", "calls nothing"),
        (">>> 1 + 1", "calls nothing"),
        (">>> thing(2)\n>>> thing._fields", "says nothing"),
    ],
)
def test_the_check_sees_an_example_that_teaches_nothing(example, reason):
    def thing():
        pass

    thing.__doc__ = f"Does it.\n\nExample:\n\n{example}\n"
    with pytest.raises(AssertionError, match=reason):
        test_every_public_name_has_a_docstring_with_an_example_that_teaches("", "thing", thing)
    thing.__doc__ = "Does it.\n\nExample:\n\n>>> thing(3) >= 0.5\nTrue\n"
    test_every_public_name_has_a_docstring_with_an_example_that_teaches("", "thing", thing)


def test_the_check_counts_code_alone():
    head = 'def f(x):\n    """One.\n\n    Two.\n    """\n    # why\n\n'
    body = "    x = 1\n" * (CODE - 1)
    assert too_long(head + body) == []
    assert too_long(head + body + "    return x\n") == [f"f has {CODE + 1} lines of code"]
