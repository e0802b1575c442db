"""Methods beside a peer, where records lack what is asked for or a number is not known."""

import numpy as np
import pytest

from jaxfair import report, study


def table(**methods):
    """Records of four seeds, of (accuracy, gap) by method."""
    return [
        {"method": m, "sparsity": 0.9, "seed": s, "accuracy": accuracy + 0.01 * (-1) ** s * (m == "ceag"), "gap": gap}
        for m, (accuracy, gap) in methods.items()
        for s in range(4)
    ]


NFT, CEAG = (0.8, 0.04), (0.8, 0.02)


def test_an_accuracy_that_is_not_known_is_not_the_same_accuracy():
    found = study.beside(table(nft=NFT, ceag=CEAG, set=(np.nan, 0.01)), "nft", "gap", "accuracy")
    assert [(b.cell["method"], b.side) for b in found] == [("ceag", 0), ("set", None)]
    said = study.among_equals(found, "nft")
    assert said.startswith("Of 1 comparisons")
    assert "set" not in said


def test_a_gap_that_is_not_known_is_no_comparison():
    found = study.beside(table(nft=NFT, ceag=CEAG, set=(0.8, np.nan)), "nft", "gap", "accuracy")
    assert study.among_equals(found, "nft").startswith("Of 1 comparisons")
    assert study.among_equals(found[1:], "nft") == ""


def test_a_figure_marks_an_accuracy_that_is_not_known():
    records = [{"data": "digits", **r} for r in table(nft=NFT, ceag=CEAG, set=(np.nan, 0.01))]
    found = study.beside(records, "nft", "gap", "accuracy", at=("data", "sparsity"))
    figure = report.differences(found, rows="data", columns="sparsity", methods=["ceag", "set"], along="gap")
    markers = [bars.lines[0].get_marker() for bars in figure.axes[0].containers]
    assert markers == ["o", "x"]


def test_records_without_a_level_are_left_out():
    dense = [{"method": "dense", "seed": s, "accuracy": 0.9, "gap": 0.0} for s in range(4)]
    found = study.beside(dense + table(nft=NFT, ceag=CEAG), "nft", "gap", "accuracy")
    assert [b.cell for b in found] == [{"sparsity": 0.9, "method": "ceag"}]


@pytest.mark.parametrize("column", ["gap", "accuracy"])
def test_a_column_that_is_missing_is_named_with_its_cell(column):
    records = table(nft=NFT, ceag=CEAG)
    del records[-1][column]
    with pytest.raises(ValueError, match=f"'{column}'") as error:
        study.beside(records, "nft", "gap", "accuracy")
    for word in ("sparsity=0.9", "method='ceag'"):
        assert word in str(error.value)
