"""Splits that are drawn have the right size whatever the classes and groups, and people of each as far as it can be."""

import numpy as np
import pytest

from jaxfair import data
from jaxfair.data._splits import apportion, drawn

SHARE = np.array([0.7, 0.1, 0.2])


def of(cells, size, classes):
    """``cells`` cells of ``size`` rows each, class after class in each group."""
    cell = np.repeat(np.arange(cells), size)
    return cell % classes, cell // classes


def random(seed):
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(30, 1500))
    return rng.integers(0, rng.integers(2, 12), rows), np.minimum(rng.geometric(0.1, rows), 60)


CASES = {
    "cells of five": of(200, 5, 2),
    "cells of two": of(200, 2, 2),
    "cells of one": of(1000, 1, 10),
    "cells of ten": of(40, 10, 2),
    "one cell": of(1, 1000, 1),
    "groups of one": of(50, 1, 1),
    "uneven": (np.arange(300) % 7 // 6, np.arange(300) % 50 // 3),
    **{f"{rows} rows": (np.arange(rows) % 2, np.zeros(rows, int)) for rows in range(3, 16)},
    **{f"random {seed}": random(seed) for seed in range(20)},
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_a_drawn_split_has_the_right_totals(name, seed):
    y, group = CASES[name]
    parts = drawn(y, group, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(y)))
    sizes = np.array([len(part) for part in parts])
    assert (sizes > 0).all()
    # Of three rows each split has one.
    assert (np.abs(sizes - len(y) * SHARE) <= (1 if len(y) > 3 else 1.1 + 1e-9)).all()
    if len(y) > 9:
        assert sizes.tolist() == apportion(len(y), (70, 10, 20))


@pytest.mark.parametrize("name", CASES)
def test_every_class_and_group_is_in_every_split_as_far_as_it_can_be(name):
    y, group = CASES[name]
    parts = drawn(y, group, seed=0)
    for kind in (y, group):
        for value in np.unique(kind):
            counts = np.array([(kind[part] == value).sum() for part in parts])
            assert (np.abs(counts - counts.sum() * SHARE) <= 2).all(), (value, counts)
            # Groups of one person each cannot all be in the first split, which has its size.
            assert counts[0] > 0 or name in ("groups of one", "3 rows")


def test_a_seed_is_one_split_and_another_is_another():
    y, group = CASES["random 3"]
    one, same, other = (drawn(y, group, seed=seed) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_the_rows_of_a_cell_are_drawn_at_random():
    y, group = np.zeros(1000, int), np.zeros(1000, int)
    means = [drawn(y, group, seed=seed)[1].mean() for seed in range(20)]
    # 100 of 1,000 row numbers: a mean of 499.5 with a standard error of 289 / sqrt(100) * sqrt(0.9).
    assert np.abs(np.array(means) - 499.5).max() < 4 * 27.4


def test_fewer_rows_than_splits_are_refused():
    for rows in (1, 2):
        with pytest.raises(data.DataError, match=r"few for .*3"):
            drawn(np.zeros(rows, int), np.zeros(rows, int), seed=0)


def mine(rows=40, **options):
    rng = np.random.default_rng(0)
    x = options.pop("x", rng.normal(size=(rows, 2)))
    y, group = options.pop("y", np.arange(rows) // 4 % 2), options.pop("group", np.arange(rows) // 8 % 2)
    return data.dataset(x, y, group, **options)


def test_validation_that_a_column_lacks_is_drawn_from_train():
    split = np.array(["train", "train", "train", "test"] * 10)
    found = mine(split=split)
    assert np.array_equal(found.rows["test"], np.flatnonzero(split == "test"))
    assert len(found.validation.y) == 4
    assert set(found.rows["train"]) | set(found.rows["validation"]) == set(np.flatnonzero(split == "train"))
    assert found.group_sizes()["validation"].tolist() == [2, 2]  # of 18 and 12, of which 12 per cent are 2.2 and 1.4
    said = "26 train, 4 validation, 10 test; it has no validation, which was drawn from its 30 rows of train"
    assert any(said in sentence for sentence in found.read)
    assert np.array_equal(mine(split=split, split_seed=0).train.x, found.train.x)
    assert not np.array_equal(mine(split=split, split_seed=5).train.x, found.train.x)


def test_a_column_that_knows_all_splits_is_kept():
    split = np.array(["train", "validation", "train", "test"] * 10)
    found = mine(split=split)
    assert all(np.array_equal(found.rows[name], np.flatnonzero(split == name)) for name in found.rows)
    assert "split: as the column says, 20 train, 10 validation, 10 test" in found.read


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (["test"] * 40, "no example in train"),
        (["train"] + ["test"] * 39, "one row in train"),
        (["train", "dev"] * 20, "'dev' in row 1: use train, validation, test"),
        (["train", None] * 20, "missing in row 1"),
        (["train", float("nan")] * 20, "missing in row 1"),
        (["train", ""] * 20, "missing in row 1"),
        ([0, 1] * 20, "0"),
    ],
)
def test_a_column_that_says_something_else_is_refused(split, words):
    with pytest.raises(data.DataError, match=words):
        mine(split=split, group=np.zeros(40))


@pytest.mark.parametrize("kind", [list, np.array, lambda v: np.array(v, "S"), lambda v: np.array(v, object)])
def test_a_split_may_be_of_any_kind_of_words(kind):
    assert mine(split=kind([" train", "validation", "train", "test"] * 10)).rows["test"][0] == 3


def test_a_group_that_is_only_in_test_is_told_what_works():
    """The number that the message gives is tried."""
    split = np.array(["train"] * 24 + ["validation"] * 6 + ["test"] * 10)
    group = np.array(["a"] * 4 + ["b"] * 20 + ["a", "b"] * 3 + ["c"] * 10)
    for given in (0, 1, 3):
        with pytest.raises(data.DataError) as caught:
            mine(split=split, group=group, min_group_size=given)
        message = str(caught.value)
        assert "no example in the training split (10 in test)" in message
        assert "'c'" in message
        assert "min_group_size=5, which puts it together with 'a'" in message
    found = mine(split=split, group=group, min_group_size=5)
    assert found.merged == {"other": {"a": 4, "c": 0}}
    with pytest.raises(data.DataError, match="choose other groups"):
        mine(split=split, group=np.array(["a"] * 30 + ["c"] * 10), min_group_size=1)


def test_a_class_that_is_only_in_test_is_warned_of():
    split = np.array(["train"] * 24 + ["validation"] * 6 + ["test"] * 10)
    y = np.array([0, 1] * 15 + [2] * 10)
    with pytest.warns(data.DataWarning, match="nobody in train has the class 2"):
        assert mine(split=split, y=y).num_classes == 3


def test_a_training_split_of_one_class_is_refused():
    split = np.array(["train"] * 24 + ["validation"] * 6 + ["test"] * 10)
    with pytest.raises(data.DataError, match="one class in train, '0'"):
        mine(split=split, y=np.array([0] * 30 + [1] * 10))
