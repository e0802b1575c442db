"""The scripts of the gallery are short, public and of one picture each; that they run is seen where they are built."""

import ast
import importlib
import pathlib

import pytest

SCRIPTS = sorted((pathlib.Path(__file__).parent.parent / "docs/gallery").glob("**/*.py"))


def test_there_is_a_gallery():
    assert 15 <= len(SCRIPTS) <= 24


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_has_a_title_and_draws_one_figure(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) < 60
    title, line, blank, *words = (ast.get_docstring(tree) or "").split("\n")
    assert title, "the docstring begins with a title"
    assert line == "=" * len(title), "a line of = stands below the title"
    assert not blank, "an empty line stands below that"
    assert words, "the docstring says what the script is about"
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert len([call for call in calls if call in ("plt.subplots", "plt.figure")]) == 1
    assert text.endswith("plt.show()\n")
    assert "# %%" in text
    assert "set_title" in text or "suptitle" in text or "title=" in text


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_uses_public_names_only(path):
    tree, rooms = ast.parse(path.read_text(encoding="utf-8")), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxfair":
            for alias in node.names:
                found = _public(importlib.import_module(node.module), alias.name)
                rooms[alias.asname or alias.name] = found
    assert rooms, "it imports nothing of jaxfair"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
            _public(rooms[node.value.id], node.attr)
        if isinstance(node, ast.Attribute):
            private = node.attr.startswith("_") and node.attr not in ("_replace", "_asdict", "_fields", "__name__")
            assert not private, node.attr


def _public(room, name):
    """A name of a room that it offers."""
    assert not name.startswith("_"), f"{room.__name__}.{name} is private"
    found = getattr(room, name, None)
    if found is None:
        found = importlib.import_module(f"{room.__name__}.{name}")
    return found
