"""What docs/quantisation.md shows runs, and its tables are whole."""

import pathlib
import re
import types

import pytest

from jaxfair import quant

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "quantisation.md").read_text()


@pytest.mark.slow
def test_the_examples_run_one_after_the_other():
    names = {}
    for text in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(text, names)
    assert names["found"].path[-1].size < 0.15
    assert names["logits"].shape == (100, 2)


def test_every_public_function_and_every_member_of_an_axis_stands_on_the_page():
    shown = (types.FunctionType, quant.Scheme, quant.Granularity, quant.Scale)
    for name in dir(quant):
        if isinstance(getattr(quant, name), shown):
            assert re.search(rf"`{name}[`(]", PAGE), name


def test_every_name_of_ours_on_the_page_exists():
    for name in set(re.findall(r"quant\.(\w+)", PAGE)) - {"contrib"}:
        assert hasattr(quant, name), name
