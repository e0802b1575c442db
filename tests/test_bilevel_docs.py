"""What docs/bilevel.md shows runs, and every public function of the two rooms stands on it."""

import contextlib
import io
import pathlib
import re
import types

import pytest

from jaxfair import bilevel, implicit

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "bilevel.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs_and_prints_what_it_says(number):
    text = BLOCKS[number].replace("epochs=5", "epochs=2").replace("epochs=10", "epochs=4")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(text, {})
    for line in re.findall(r"print\(.*\)  # (.*)$", text, re.MULTILINE):
        head, *_ = line.split("...")  # as of a doctest
        assert head in said.getvalue()


def test_every_public_function_stands_on_the_page():
    for room in (bilevel, implicit):
        for name in dir(room):
            if isinstance(getattr(room, name), types.FunctionType):
                assert re.search(rf"\b{name}\b", PAGE), name
