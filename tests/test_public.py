"""What is public is documented: a docstring that says something, and an example that runs."""

import importlib
import inspect
import pathlib
import pkgutil

import pytest

import jaxfair

PACKAGE = pathlib.Path(jaxfair.__file__).parent
#: The ceiling of the one-file rule.
LINES = 320


def public_names():
    """(module, name, object) of everything that a package of jaxfair exports, and of the modules at its top."""
    for info in pkgutil.iter_modules([str(PACKAGE)]):
        module = importlib.import_module(f"jaxfair.{info.name}")
        names = getattr(module, "__all__", None) or [
            n for n in vars(module) if not n.startswith("_")
        ]
        for name in names:
            thing = getattr(module, name)
            ours = getattr(thing, "__module__", "").startswith("jaxfair")
            if ours and (inspect.isclass(thing) or inspect.isfunction(thing)):
                yield info.name, name, thing


NAMES = list(public_names())


@pytest.mark.parametrize(("module", "name", "thing"), NAMES, ids=[f"{m}.{n}" for m, n, _ in NAMES])
def test_every_public_name_has_a_docstring_with_an_example(module, name, thing):
    text = inspect.getdoc(thing) or ""
    assert len(text.splitlines()) > 2, "no docstring"
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return  # raised, not called
    state = inspect.isclass(thing) and issubclass(thing, tuple) and "Attributes:" in text
    # The fields of a named tuple are its documentation; it comes out of a function that has the example.
    assert ">>>" in text or state, "no example"


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_every_file_says_what_it_is_for_and_can_be_read_in_one_go(path):
    text = path.read_text()
    first = text.splitlines()[0]
    assert first.startswith(('"""', 'r"""'))
    assert len(first) > 20
    assert len(text.splitlines()) <= LINES


def test_the_check_sees_a_missing_docstring():
    def bare():
        pass

    with pytest.raises(AssertionError, match="no docstring"):
        test_every_public_name_has_a_docstring_with_an_example("", "bare", bare)
