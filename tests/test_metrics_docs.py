"""What docs/metrics.md shows runs and prints what it says, and every function of the room stands on it."""

import pathlib
import re
import types

import pytest

from jaxfair import metrics

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "metrics.md").read_text()


@pytest.mark.slow
def test_the_examples_run_one_after_the_other_and_print_what_they_say(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names = {}
    for text in blocks:
        exec(text, names)
    said = re.findall(r"^# (.*)$", "\n".join(blocks), re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == said
    assert len(said) > 3


def test_every_public_function_stands_on_the_page():
    for name in metrics.__all__:
        if isinstance(getattr(metrics, name), types.FunctionType):
            assert re.search(rf"`{name}[`(]", PAGE), name


def test_every_name_of_ours_exists():
    fields = [name for of in vars(metrics).values() if hasattr(of, "_fields") for name in of._fields]
    for name in re.findall(r"metrics\.(\w+)", PAGE):
        assert hasattr(metrics, name) or name.startswith("sklearn") or name == "metrics", name
    for name in re.findall(r"`[dr]\.(\w+)`", PAGE):
        assert name in fields, name
