"""What the page of a room shows runs, and every public function of the room stands on it."""

import contextlib
import importlib
import io
import pathlib
import re
import types

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
ROOMS = {
    "inverse": ("jaxfair.inverse", "jaxfair.inverse.diffusion"),
    "robust": ("jaxfair.robust",),
    "search": ("jaxfair.search",),
}
each = pytest.mark.parametrize("room", ROOMS)


def page(room):
    return (DOCS / f"{room}.md").read_text()


@pytest.mark.slow
@each
def test_the_examples_run_and_print_what_they_say(room):
    """One after the other: the later ones go on with what the first has made."""
    names: dict[str, object] = {}
    for text in re.findall(r"^```python\n(.*?)^```$", page(room), re.MULTILINE | re.DOTALL):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(text, names)
        for line in re.findall(r"print\(.*\)(?:  |\n)# (.*)$", text, re.MULTILINE):
            assert line in said.getvalue()


@each
def test_every_public_function_stands_on_the_page(room):
    for module in map(importlib.import_module, ROOMS[room]):
        for name in dir(module):
            if isinstance(getattr(module, name), types.FunctionType):
                assert re.search(rf"\b{name}\b", page(room)), name


@each
def test_every_link_leads_somewhere(room):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page(room)):
        assert link.startswith("https://") or (DOCS / link).exists(), link
