"""What docs/robust.md shows runs, and every public function of the room stands on it."""

import contextlib
import io
import pathlib
import re
import types

import pytest

from jaxfair import robust

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "robust.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_examples_run_and_print_what_they_say():
    """One after the other: the later ones go on with what the first has made."""
    names: dict[str, object] = {}
    for text in BLOCKS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(text, names)
        for line in re.findall(r"print\(.*\)  # (.*)$", text, re.MULTILINE):
            assert line in said.getvalue()


def test_every_public_function_stands_on_the_page():
    for name in dir(robust):
        if isinstance(getattr(robust, name), types.FunctionType):
            assert re.search(rf"\b{name}\b", PAGE), name


def test_every_link_leads_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert link.startswith("https://") or (DOCS / link).exists(), link
