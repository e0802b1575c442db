"""Laws of functions of arrays: one table x whatever people pass in. A new function of `metrics` is a line in the table.

Functions are called as users have them, without the checks of shapes that tests have elsewhere.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import metrics

G = 3
GROUP = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 0, 1, 2])
Y = np.array([0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1])
BEFORE = np.array([0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1])
AFTER = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1])
KEY = jax.random.key(0)


class Entry(NamedTuple):
    arrays: dict[str, np.ndarray]
    options: dict[str, Any] = {}  # noqa: RUF012
    call: Callable[..., Any] | None = None  # where it is not ``fn(**arrays, **options)``
    people: bool = True  # one number per person
    whole: tuple[str, ...] = ()  # arrays that hold classes or groups: no float is right for them
    free: tuple[str, ...] = ()  # arrays that need not fit the others


IN_GROUPS = {"num_groups": G}
NETWORKS = {"dense_correct": (BEFORE == Y) + 0, "sparse_correct": (AFTER == Y) + 0, "group": GROUP}
RATES = {"prediction": AFTER, "y": Y, "group": GROUP}
FEW = {"key": KEY, "resamples": 50, **IN_GROUPS}
SURE = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1])
CALIBRATED = {"confidence": SURE, "correct": (AFTER == Y) + 0, "group": GROUP}
COUNTS = {"size": np.array([40, 20, 60]), "lost": np.array([3, 9, 0]), "gained": np.array([1, 0, 0])}
GAPS = {"excess": np.array([1.0, -2.0, 0.5])}
LOGITS = np.stack([1.0 - 2 * AFTER, 2.0 * AFTER - 1], axis=1)
MATRICES = np.array([[[4, 1], [2, 3]], [[5, 0], [1, 6]]])
TWO_RATES = {"true_positive": np.array([1, 0, 1]), "false_positive": np.array([0, 1, 1])}
LABELS = np.stack([AFTER, BEFORE], axis=1)


def streamed(stream):
    """One batch through a stream, which is compiled once for each number of groups."""
    made = functools.cache(stream)

    def call(num_groups, **arrays):
        one = made(num_groups)
        return one.compute(one.update(one.init(), *arrays.values()))

    return call


VALUES = np.array([[3, 0], [-1, 2], [0, 0], [1, 1]])
SAID, TOLD = np.stack([BEFORE, AFTER, Y, 1 - Y, BEFORE]), (np.add.outer(np.arange(5), np.arange(12)) % 2)
MEMORISED = {
    "counts": np.array([[[9, 4], [3, 5]], [[1, 0], [2, 6]]]),
    "confusion": np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]]),
}
PAIRED = np.stack([BEFORE, Y], axis=1)
SCORES = np.stack([3 * AFTER + BEFORE, 2 * BEFORE + Y], axis=1)
OF_FIVE = np.array([[3, 1], [4, 1], [5, 9], [2, 6], [5, 3]])
#: Metrics of a whole confusion, of three classes.
RECALL = {"recall": np.array([[5, 1, 2], [1, 3, 1], [0, 2, 7]])}
RECALLS = ("coverage", "g_mean", "h_mean", "head_tail_recall", "mean_recall", "metric_gain", "min_recall")
TABLE = {
    "amplification": Entry(
        {"given": PAIRED, "true": LABELS, "predicted": LABELS[::-1], "train_given": PAIRED, "train_true": LABELS},
        people=False,
        free=("given", "true", "predicted", "train_given", "train_true"),
    ),
    "exemplars": Entry(
        {"before": SAID, "after": SAID[::-1]},
        {"num_classes": 2},
        people=False,
        whole=("before", "after"),
        free=("before", "after"),
    ),
    "matched_thresholds": Entry({"scores": SCORES, "positive": LABELS}, people=False, free=("scores", "positive")),
    "noise_floor": Entry(
        {"before": SAID, "after": SAID[::-1]},
        {"num_classes": 2, "key": KEY, "splits": 3},
        people=False,
        whole=("before", "after"),
        free=("before", "after"),
    ),
    "normalised_change": Entry({"before": OF_FIVE, "after": OF_FIVE[::-1] + 1}, people=False, free=("before", "after")),
    "population_rates": Entry(
        {"predictions": SAID, "y": Y, "group": GROUP},
        IN_GROUPS,
        people=False,
        whole=("predictions", "y", "group"),
        free=("predictions", "y", "group"),
    ),
    # Of shares of everybody, also of those of no group.
    "representation": Entry(
        {"exemplar": (BEFORE != AFTER) + 0, "group": GROUP},
        IN_GROUPS,
        people=False,
        whole=("group",),
        free=("exemplar",),
    ),
    "representation_ratio": Entry(
        {"exemplar": (BEFORE != AFTER) + 0, "group": GROUP},
        IN_GROUPS,
        people=False,
        whole=("group",),
        free=("exemplar",),
    ),
    "welch_test": Entry({"before": OF_FIVE, "after": OF_FIVE[::-1] + 1}, people=False, free=("before", "after")),
    "accuracy": Entry({"prediction": AFTER, "y": Y, "weight": Y}, whole=("prediction", "y")),
    "accuracy_gap": Entry({"dense": np.array([1, 0]), "sparse": np.array([0, 1])}, people=False),
    "accuracy_gaps": Entry(NETWORKS, IN_GROUPS, whole=("group",)),
    "bounded_mean_interval": Entry({"mean": np.array([0, 1]), "count": np.array([4, 9])}, people=False),
    "calibration_changes": Entry(
        {
            "confidence_before": SURE,
            "correct_before": NETWORKS["dense_correct"],
            "confidence_after": 1 - SURE,
            "correct_after": NETWORKS["sparse_correct"],
            "group": GROUP,
        },
        FEW,
        whole=("group",),
    ),
    "coverage": Entry(RECALL, people=False),
    "g_mean": Entry(RECALL, people=False),
    "h_mean": Entry(RECALL, people=False),
    "head_tail_recall": Entry(RECALL, people=False),
    "mean_recall": Entry(RECALL, people=False),
    "min_recall": Entry(RECALL, people=False),
    "metric_gain": Entry(
        {
            **RECALL,
            "prototypes": np.array([[1, 0], [0, 1], [1, 2]]),
            "weights": np.array([[1, 0], [2, 1], [0, 1]]),
            "bias": np.array([0, 1, 0]),
        },
        call=lambda **arrays: metrics.metric_gain(metrics.mean_recall, **arrays),
        people=False,
    ),
    "cell_thresholds": Entry(
        {"margin": 2 * AFTER - 1, "y": Y, "dense_correct": NETWORKS["dense_correct"], "group": GROUP, "cell": GROUP},
        {"num_cells": G},
        whole=("group", "cell"),
    ),
    "certificate": Entry(
        {"values": np.array([-1, 0, 1]), "counts": np.array([[1, 30, 9], [4, 100, 3]])},
        call=lambda values, counts: metrics.certificate(metrics.Changes(values, counts), key=KEY, resamples=50),
        people=False,
        free=("counts",),
    ),
    "clopper_pearson": Entry({"successes": np.array([0, 3]), "trials": np.array([4, 9])}, people=False),
    "confusion": Entry(RATES, IN_GROUPS, whole=("prediction", "y", "group")),
    "confusion_rates": Entry({"confusion": MATRICES}, people=False),
    "correct": Entry({"prediction": AFTER, "y": Y}, whole=("prediction", "y")),
    "count_changes": Entry(NETWORKS, IN_GROUPS, whole=("group",)),
    "difference": Entry({"values": np.array([3, 1, 2])}, people=False),
    "disparity": Entry({"values": np.array([3, 1, 2])}, people=False),
    "ece": Entry(CALIBRATED, IN_GROUPS, whole=("group",)),
    "ece_debiased": Entry(CALIBRATED, IN_GROUPS, whole=("group",)),
    "ece_squared": Entry(CALIBRATED, IN_GROUPS, whole=("group",)),
    "ece_sweep": Entry(CALIBRATED, IN_GROUPS, whole=("group",)),
    "equalized_odds_difference": Entry(
        TWO_RATES,
        call=lambda **r: metrics.equalized_odds_difference(metrics.Rates(**r, selection=r["true_positive"])),
        people=False,
        free=("true_positive", "false_positive"),
    ),
    "equalized_odds_ratio": Entry(
        TWO_RATES,
        call=lambda **r: metrics.equalized_odds_ratio(metrics.Rates(**r, selection=r["true_positive"])),
        people=False,
        free=("true_positive", "false_positive"),
    ),
    "effective_counts": Entry({"group": GROUP, "weight": Y}, IN_GROUPS, whole=("group",)),
    "exact_gap_interval": Entry(COUNTS, people=False),
    "exact_gap_test": Entry({**COUNTS, "bound": np.array([0, 0, 1])}, people=False),
    "excess_accuracy_gap": Entry(
        {"dense": np.array([1, 0]), "sparse": np.array([0, 1])},
        {"dense_overall": 0.5, "sparse_overall": 0.25},
        people=False,
    ),
    "false_positive_rate": Entry(RATES, IN_GROUPS, whole=("prediction", "y", "group")),
    "group_auc": Entry({"score": 3 * BEFORE + AFTER, "y": Y, "group": GROUP}, IN_GROUPS, whole=("y", "group")),
    "group_counts": Entry({"group": GROUP, "weight": Y}, IN_GROUPS, whole=("group",)),
    "group_means": Entry({"values": Y, "group": GROUP, "weight": Y + 1}, IN_GROUPS, whole=("group",)),
    "group_moments": Entry({"values": Y, "group": GROUP, "weight": Y + 1}, IN_GROUPS, whole=("group",)),
    "group_rates": Entry(RATES, IN_GROUPS, whole=("prediction", "y", "group")),
    "group_sums": Entry({"values": Y, "group": GROUP, "weight": Y + 1}, IN_GROUPS, whole=("group",)),
    "importance": Entry({"values": VALUES, "group": np.array([0, 0, 2, 2])}, IN_GROUPS, people=False, whole=("group",)),
    "group_memorisation": Entry(
        {"prediction": SAID, "y": Y, "included": TOLD, "group": GROUP},
        IN_GROUPS,
        people=False,
        whole=("prediction", "y", "group"),
        free=("group",),
    ),
    "infer": Entry(
        {"values": np.array([-1, 0, 1]), "counts": np.array([[1, 30, 9], [4, 100, 3]])},
        call=lambda values, counts: metrics.infer(metrics.Changes(values, counts), key=KEY, resamples=50),
        people=False,
        free=("counts",),
    ),
    "largest_loss": Entry({"gap": np.array([3, 1, 2])}, people=False),
    "leaning": Entry(
        {"values": VALUES},
        call=lambda values: metrics.leaning(values, [False, True], key=KEY, resamples=50),
        people=False,
    ),
    "max_excess_accuracy_gap": Entry(GAPS, people=False),
    "mcnemar": Entry({"gained": np.array([1, 4]), "lost": np.array([9, 3])}, people=False),
    "multilabel_confusion": Entry(
        {"prediction": LABELS, "y": LABELS[::-1], "group": GROUP}, IN_GROUPS, whole=("prediction", "y", "group")
    ),
    "one_against_rest": Entry({"confusion": MATRICES}, people=False),
    "paired_bootstrap": Entry(NETWORKS, FEW, whole=("group",)),
    "paired_difference": Entry({"a": np.array([1, 2, 4]), "b": np.array([1, 1, 2])}, people=False),
    "memorisation": Entry({"prediction": SAID, "y": Y, "included": TOLD}, people=False, whole=("prediction", "y")),
    "memorised_bias": Entry(MEMORISED, people=False),
    "memorised_mass": Entry({"people": MEMORISED["counts"][0], "confusion": MEMORISED["confusion"]}, people=False),
    "pairs_overturned": Entry({"a": np.array([1, 2, 4]), "b": np.array([3, 1, 2])}, people=False),
    "parity_mass": Entry({"predicted": np.array([[60, 40], [40, 60]])}, people=False),
    "people_needed": Entry({"gap": np.array([1, 1]), "changed_share": np.array([0, 1])}, people=False),
    "people_to_judge": Entry(
        {"values": np.array([-1, 0, 1]), "counts": np.array([[1, 30, 9], [4, 100, 3]])},
        call=lambda values, counts: metrics.people_to_judge(
            metrics.infer(metrics.Changes(values, counts), key=KEY, resamples=50), 0.01
        ),
        people=False,
        free=("counts",),
    ),
    "prediction_change_intervals": Entry(
        {"before": BEFORE, "after": AFTER, "y": Y, "group": GROUP}, IN_GROUPS, whole=("before", "after", "y", "group")
    ),
    "players": Entry({}, call=lambda: metrics.players(()).player, people=False),
    "pepr": Entry({"performance": np.array([1, 1, 0]), "cost": np.array([1, 3, 5])}, people=False),
    "pepr_cohort": Entry({"performance": np.array([1, 1, 0]), "cost": np.array([1, 3, 5])}, people=False),
    "prediction_changes": Entry(
        {"before": BEFORE, "after": AFTER, "y": Y, "group": GROUP}, IN_GROUPS, whole=("before", "after", "y", "group")
    ),
    "ratio": Entry({"values": np.array([3, 1, 2])}, people=False),
    "regression_errors": Entry(
        {"prediction": 2 * BEFORE + AFTER, "y": Y, "group": GROUP, "weight": Y + 1}, IN_GROUPS, whole=("group",)
    ),
    "rate_changes": Entry(
        {"dense_prediction": BEFORE, "sparse_prediction": AFTER, "y": Y, "group": GROUP},
        IN_GROUPS,
        whole=("dense_prediction", "sparse_prediction", "y", "group"),
    ),
    "reliability": Entry(CALIBRATED, IN_GROUPS, whole=("group",)),
    "selection_rate": Entry({"prediction": AFTER, "group": GROUP}, IN_GROUPS, whole=("prediction", "group")),
    "share_intervals": Entry({"event": AFTER, "group": GROUP}, IN_GROUPS, whole=("group",)),
    "shapley": Entry(
        {"x": VALUES, "background": VALUES[1:]},
        call=lambda x, background: metrics.shapley(lambda rows: rows[:, 0] * rows[:, 1], x, background),
        people=False,
        free=("x", "background"),
    ),
    "sign_flip_null": Entry(NETWORKS, {"key": KEY, "permutations": 50, **IN_GROUPS}, whole=("group",)),
    "smallest_visible_gap": Entry({"changed": np.array([3, 0]), "size": np.array([90, 40])}, people=False),
    "stream_confusion": Entry(
        RATES, IN_GROUPS, call=streamed(metrics.stream_confusion), whole=("prediction", "y", "group")
    ),
    "stream_moments": Entry(
        {"values": Y, "group": GROUP}, IN_GROUPS, call=streamed(metrics.stream_moments), whole=("group",)
    ),
    "stream_multilabel_confusion": Entry(
        {"prediction": LABELS, "y": LABELS[::-1], "group": GROUP},
        IN_GROUPS,
        call=streamed(lambda num_groups: metrics.stream_multilabel_confusion(num_groups, 2)),
        whole=("prediction", "y", "group"),
    ),
    "stream_regression": Entry(
        {"prediction": 2 * BEFORE + AFTER, "y": Y, "group": GROUP},
        IN_GROUPS,
        call=streamed(metrics.stream_regression),
        whole=("group",),
    ),
    "t_interval": Entry({"values": np.array([1, 2, 4])}, people=False),
    "top_label": Entry(
        {"prediction": np.stack([1 - AFTER, AFTER], axis=1), "y": Y}, people=False, whole=("y",), free=("prediction",)
    ),
    "transfer": Entry(
        {"nft_train": np.array([4, 3]), "nft_test": np.array([3, 3]), "train": np.array([2, 1]), "test": Y[:2] + 1},
        people=False,
    ),
    "true_positive_rate": Entry(RATES, IN_GROUPS, whole=("prediction", "y", "group")),
    "verdict": Entry({"low": np.array([-1, 2]), "high": np.array([1, 3])}, {"bound": 1}, people=False),
    "violation": Entry({**GAPS, "sizes": np.array([5, 50, 20])}, {"tolerance": 0.1}, people=False),
    "worst_group": Entry({"psi_validation": np.array([1, 3, 2])}, people=False),
    "zero_bias_residuals": Entry(MEMORISED, people=False),
}
#: Of people who are counted already: differences, and how many of each.
COUNTED = ("certificate", "infer", "people_to_judge")
#: Of networks and people, or of two groups: an axis of fixed length, or counts that are 0.
OF_POPULATIONS = (
    *("amplification", "exemplars", "matched_thresholds", "noise_floor", "normalised_change", "population_rates"),
    *("representation", "representation_ratio", "welch_test", "group_memorisation", "memorisation"),
)
TABLES = (*OF_POPULATIONS, *RECALLS, *(n for n in TABLE if "bias" in n or n.endswith("_mass")))
each = pytest.mark.parametrize("name", TABLE)
PEOPLE = [name for name, entry in TABLE.items() if entry.people]
GROUPED = [name for name in PEOPLE if "group" in TABLE[name].arrays and "num_groups" in TABLE[name].options]


def run(name, options=None, **arrays):
    entry = TABLE[name]
    call = entry.call or inspect.unwrap(getattr(metrics, name))
    return call(**{**entry.arrays, **arrays}, **{**entry.options, **(options or {})})


def assert_equal(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if isinstance(b, str) or np.asarray(b).dtype.kind == "U":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), **{"rtol": 1e-6, "atol": 1e-7, **tolerance})


def test_the_table_has_every_function():
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert functions == set(TABLE)


@pytest.mark.parametrize(
    ("name", "array"), [(n, a) for n, e in TABLE.items() if len(e.arrays) > 1 for a in e.arrays if a not in e.free]
)
def test_shapes_that_do_not_fit_are_both_named_in_one_line(name, array):
    whole = TABLE[name].arrays[array]
    wrong = [np.append(whole, 2)] if name in COUNTED else [np.concatenate([whole, whole]), whole[:, None]]
    if whole.size > 2:
        wrong.append(whole[:-1])
    for value in wrong:
        others = next(a.shape for other, a in TABLE[name].arrays.items() if other != array)
        with pytest.raises(ValueError, match=re.escape(str(value.shape))) as raised:
            run(name, **{array: value})
        assert str(others) in str(raised.value)
        assert "\n" not in str(raised.value)


@each
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.uint32, np.uint64, bool])
def test_narrow_and_wide_integers_are_the_same_numbers(name, dtype):
    expected = run(name)
    for array, values in TABLE[name].arrays.items():
        cast = values.astype(dtype)
        if (cast == values).all():
            assert_equal(run(name, **{array: cast}), expected)
            assert_equal(run(name, **{array: jnp.asarray(cast)}), expected)


@each
@pytest.mark.parametrize("make", [list, np.ndarray.tolist, jnp.asarray, tuple], ids=["list", "tolist", "jax", "tuple"])
def test_lists_and_arrays_of_jax_are_the_same_numbers(name, make):
    expected = run(name)
    for array, values in TABLE[name].arrays.items():
        assert_equal(run(name, **{array: make(values)}), expected)
    assert_equal(run(name, **{array: make(values) for array, values in TABLE[name].arrays.items()}), expected)


@each
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_floats_of_any_width_are_the_same_numbers(name, dtype):
    expected = run(name)
    for array, values in TABLE[name].arrays.items():
        if array not in TABLE[name].whole:
            assert_equal(run(name, **{array: values.astype(dtype)}), expected)
            if dtype != np.float64:  # which JAX does not have by default
                assert_equal(run(name, **{array: jnp.asarray(values, dtype)}), expected)


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("outside", [-1, -7, G, G + 253, 2**31, 2**32, 2**32 + 1, -(2**32)])
def test_ids_out_of_range_belong_to_nobody(name, outside):
    """Whatever their remainder is in fewer bits; where there is a number of everybody, they count in that alone."""
    more = {array: np.append(values, values[:1], axis=0) for array, values in TABLE[name].arrays.items()}
    found = run(name, **{**more, "group": np.append(GROUP, outside)})
    if name == "accuracy_gaps":
        found, expected = (metrics.accuracy_gap(x.gap, 0.0) for x in (found, run(name)))
    elif name == "prediction_changes":
        found, expected = (x[:3] for x in (found, run(name)))
    else:
        expected = run(name)
    assert_equal(found, expected)
    narrow = np.append(GROUP, 255).astype(np.uint8)
    assert_equal(run(name, **{**more, "group": narrow}), run(name, **{**more, "group": np.append(GROUP, -1)}))
    assert_equal(run(name, **{**more, "group": jnp.asarray(narrow)}), run(name, **{**more, "group": narrow}))


@pytest.mark.parametrize("name", GROUPED)
def test_groups_are_integers(name):
    for wrong in (GROUP + 0.0, np.where(GROUP == 0, np.nan, GROUP), GROUP.astype(str)):
        with pytest.raises(ValueError, match=r"group of dtype .*: give integers"):
            run(name, group=wrong)


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_two_hundred_groups_in_eight_bits(name, dtype):
    many = {"num_groups": 200}
    expected = run(name, many)
    for array in (GROUP.astype(dtype), jnp.asarray(GROUP, dtype)):
        assert_equal(run(name, many, group=array), expected)


@pytest.mark.parametrize("name", PEOPLE)
def test_of_nobody_everything_is_nan_zero_or_an_error(name):
    nobody = {array: values[:0] for array, values in TABLE[name].arrays.items()}
    # An empty list says nothing of how many labels there are.
    for arrays in (nobody, {array: values if values.ndim > 1 else [] for array, values in nobody.items()}):
        for leaf in jax.tree.leaves(run(name, **arrays)):
            leaf = np.asarray(leaf, np.float64)
            assert (np.isnan(leaf) | (leaf == 0) | (leaf == 0.95)).all()  # the level of an inference
    if "num_groups" in TABLE[name].options:
        run(name, {"num_groups": 0})
        run(name, {"num_groups": 0}, **nobody)


@pytest.mark.parametrize("name", PEOPLE)
def test_of_one_person(name):
    """In a group of one, and in no group: nothing is inf, and no warning is shown."""
    for group in (0, -1):
        one = {array: values[1:2] for array, values in TABLE[name].arrays.items()}
        if "num_groups" in TABLE[name].options:
            one["group"] = np.array([group])
        for field, value in _fields(run(name, **one)):
            assert field == "visible" or not np.isinf(np.asarray(value, np.float64)).any()


def _fields(found, name=""):
    if not hasattr(found, "_asdict"):
        return [(name, found)]
    return [pair for field, value in found._asdict().items() for pair in _fields(value, field)]


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, e in TABLE.items()
        if not e.people and n not in (*COUNTED, *TABLES, "worst_group", "t_interval", "paired_difference")
    ],
)
def test_of_no_group_nothing_is_said(name):
    found = run(name, **{array: values[:0].astype(float) for array, values in TABLE[name].arrays.items()})
    for leaf in jax.tree.leaves(found):
        assert np.size(leaf) == 0 or np.isnan(np.asarray(leaf, np.float64)).all()


def test_of_no_group_there_is_no_worst_and_no_interval():
    with pytest.raises(ValueError, match="no group"):
        metrics.worst_group(np.zeros(0))
    assert np.isnan(metrics.t_interval(np.zeros(0)).mean)
    assert np.isnan(metrics.paired_difference(np.zeros(0), np.zeros(0)).mean)
    with pytest.raises(ValueError, match=r"shape \(\)"):
        inspect.unwrap(metrics.t_interval)(0.5)
    found = metrics.infer(metrics.Changes(np.zeros(0), np.zeros((2, 0), int)), key=KEY)
    assert np.isnan(found.low).all()


def test_who_has_no_label_is_right_about_nothing_and_in_no_condition():
    y = np.append(Y, np.nan)
    more = {"prediction": np.append(AFTER, 1), "group": np.append(GROUP, 0)}
    assert metrics.correct(more["prediction"], y).tolist() == [*(AFTER == Y).tolist(), False]
    found = metrics.group_rates(more["prediction"], y, more["group"], G)
    expected = metrics.group_rates(AFTER, Y, GROUP, G)
    assert_equal((found.true_positive, found.false_positive), (expected.true_positive, expected.false_positive))


@pytest.mark.parametrize("positive", [300, -1, 2**20])
def test_the_positive_class_need_not_fit_in_the_dtype_of_the_classes(positive):
    narrow = {"prediction": AFTER.astype(np.uint8), "y": Y.astype(np.uint8)}
    for arrays in (narrow, jax.tree.map(jnp.asarray, narrow)):
        assert_equal(
            metrics.group_rates(**arrays, group=GROUP, num_groups=G, positive=positive),
            metrics.group_rates(AFTER, Y, GROUP, G, positive=positive),
        )


def test_classes_of_64_bits_are_not_cut_off():
    right = lambda prediction, y: metrics.correct(prediction, y).tolist()
    assert right(np.array([2**32, 1]), np.array([0, 1])) == [False, True]
    assert right(jnp.array([0, 1]), np.array([2**32, 1])) == [False, True]
    assert right(np.array([[1.0, 0.0]]), np.array([2**32])) == [False]
    assert right(np.array([2**63], np.uint64), np.array([-(2**63)])) == [False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.t_interval(np.ones(3), level=95), "level must be between 0 and 1, but it is 95; .* 0.95"),
        (lambda: metrics.paired_difference(np.ones(3), np.ones(3), level=1.0), "level must be"),
        (lambda: metrics.clopper_pearson(1, 2, level=np.nan), "level must be"),
        (lambda: metrics.bounded_mean_interval(0.5, 2, level=0.0), "level must be"),
        (lambda: metrics.exact_gap_interval(9, 1, 1, level=95.0), "level must be"),
        (lambda: run("paired_bootstrap", {"level": 95.0}), "level must be"),
        (lambda: run("sign_flip_null", {"level": 1.5}), "level must be"),
        (lambda: run("paired_bootstrap", {"resamples": 0}), "resamples must be a whole number from 1, but it is 0"),
        (lambda: run("paired_bootstrap", {"few": -1}), "few must be"),
        (lambda: run("sign_flip_null", {"permutations": 2.5}), "permutations must be"),
        (lambda: metrics.people_needed(0.01, 0.03, groups=0), "groups must be"),
        (lambda: metrics.people_needed(0.01, 3), "changed_share=3"),
        (lambda: metrics.smallest_visible_gap(1, 2, level=95.0), "level must be"),
        (lambda: run("cell_thresholds", y=Y * 2), "y with 2"),
        (lambda: run("count_changes", dense_correct=Y * 2), "outcomes must lie"),
        (lambda: run("count_changes", weight=Y + np.nan), "weight must be"),
        (lambda: run("count_changes", {"num_groups": 2.5}), "num_groups must be"),
    ],
)
def test_wrong_numbers_are_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
