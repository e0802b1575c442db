"""Tables and figures of numbers that are not known: nan, and columns that are missing."""

import io

import numpy as np
import pandas as pd
import pytest

from jaxfair import report
from jaxfair.report import figures
from jaxfair.report.tables import NOTHING


@pytest.mark.parametrize("unknown", [(np.nan, np.nan), (np.nan, 1.0), (np.inf, np.nan), (-np.inf, 0.0)])
def test_a_difference_that_is_not_known_is_a_dash_in_its_row(unknown):
    def drawn(**found):
        panel = figures.Compared({m: figures.Difference(*d) for m, d in found.items()}, "90 %")
        figure = figures.differences([[panel]], methods=["set", "ceag"], along="gap")
        figures.svg(figure)
        return figure.axes[0]

    axes = drawn(set=unknown, ceag=(-1.2, 0.4))
    assert axes.get_xlim() == drawn(ceag=(-1.2, 0.4)).get_xlim()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["set", "ceag"]
    assert [(text.get_text(), text.get_position()[1]) for text in axes.texts] == [(NOTHING, 0)]
    assert len(drawn(set=unknown).texts) == 1


def test_an_interval_without_an_end_reaches_the_edges():
    panel = figures.Compared({"set": figures.Difference(1.0, np.inf), "ceag": figures.Difference(-1.0, 1.0)}, "90 %")
    axes = figures.differences([[panel]], methods=["set", "ceag"], along="gap").axes[0]
    low, high = axes.get_xlim()
    assert high == pytest.approx(2.1)
    (bars,) = axes.containers[0].lines[2]
    ends = bars.get_segments()[0][:, 0]
    assert ends[0] <= low
    assert ends[1] >= high


@pytest.mark.parametrize("good", [1, -1])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_best_of_a_row_is_a_number(good, place):
    values = [0.5, 0.5]
    values.insert(place, np.nan)
    records = [{"method": "set", "rate": rate, "accuracy": a} for rate, a in enumerate(values)]
    records += [{"method": "snip", "rate": rate, "accuracy": np.nan} for rate in range(3)]
    found = report.wide_table(records, report.Name("method"), report.Name("rate"), "accuracy", good=good)
    some, none = (list(row)[1:] for row in found.itertuples(index=False))
    assert sorted(some) == sorted([NOTHING, "50.0", "50.0 *"])
    assert some[place] == NOTHING
    assert none == [NOTHING] * 3


def test_what_failed_is_no_better_than_what_is_infinite():
    records = [{"method": "set", "rate": rate, "gap": gap} for rate, gap in enumerate((np.nan, np.inf))]
    found = report.wide_table(records, report.Name("method"), report.Name("rate"), "gap", good=-1)
    assert found.iloc[0, 1:].tolist() == [NOTHING, "inf *"]


def test_a_seed_that_failed_is_infinitely_far():
    text = report.quartiles("distance")
    for failed in (np.nan, np.inf):
        assert text([{"distance": d} for d in (1, 2, 3, 4, failed)]) == "3 (2 to 4)"
        assert text([{"distance": d} for d in (1, failed, failed)]) == "∞ (∞ to ∞)"


@pytest.mark.parametrize(
    "column",
    [
        report.number("gap"),
        report.in_points("gap"),
        report.quartiles("gap"),
        report.quotient("gap", "seed"),
        report.quotient("seed", "gap"),
        report.ratio("gap", "nft", "ceag"),
    ],
)
def test_a_column_that_is_missing_is_named_with_its_cell(column):
    records = [{"method": "nft", "seed": s, "gap": 0.01} for s in (1, 2)] + [{"method": "ceag", "seed": 1}]
    with pytest.raises(ValueError, match=r"'gap'.*method='ceag'"):
        column(records[2:])
    with pytest.raises(ValueError, match=r"'gap'.*method='ceag'"):
        report.table(records, [report.Name("method")], {"gap": column})


def test_a_place_without_its_number_is_named():
    records = [{"method": "nft", "rate": 1, "gap": 0.01}, {"method": "ceag", "rate": 1}]
    with pytest.raises(ValueError, match=r"'gap'.*method='ceag'"):
        report.wide_table(records, report.Name("method"), report.Name("rate"), "gap")


def test_the_title_of_a_table_in_the_terminal_is_text():
    import rich.console

    out = io.StringIO()
    title = "gap [red] of [/x] men"
    frame, console = pd.DataFrame({"a column with a long name": [0.5]}), rich.console.Console(file=out, width=200)
    report.print_table(frame, title=title, console=console)
    assert title in out.getvalue()
