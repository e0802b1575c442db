"""Confusion, rates, differences and ratios, AUC and regression by group: against fairlearn, AIF360 and scikit-learn."""

import inspect
import re

import fairlearn.metrics as fairlearn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sklearn

from jaxfair import metrics

N, G, C = 160, 5, 3
RNG = np.random.default_rng(0)
#: Group 3 is empty; everybody in group 4 has class 1.
GROUP = RNG.choice([0, 1, 2, 4], N, p=[0.5, 0.3, 0.12, 0.08])
HERE = [0, 1, 2, 4]
CLASSES = np.where(GROUP == 4, 1, RNG.integers(0, C, N))
PREDICTED = np.where(RNG.random(N) < 0.5, CLASSES, RNG.integers(0, C, N))
WEIGHT = RNG.choice([0.0, 0.5, 1.0, 3.0], N).astype(np.float32)
Y, P = (CLASSES == 1).astype(int), (PREDICTED == 1).astype(int)
#: Few different scores: many ties.
SCORE = (np.round(3 * RNG.random(N) + Y) / 4).astype(np.float32)


@jax.jit
def measured(prediction, y, group, weight):
    matrix = metrics.confusion(prediction, y, group, G, num_classes=C, weight=weight)
    single = metrics.confusion_rates(metrics.one_against_rest(matrix))
    return matrix, single, metrics.confusion_rates(metrics.one_against_rest(matrix.sum(0)))


MATRIX, BY_CLASS, BY_CLASS_OF_ALL = measured(PREDICTED, CLASSES, GROUP, WEIGHT)
RATES, OVERALL = (jax.tree.map(lambda x: x[..., 1], rates) for rates in (BY_CLASS, BY_CLASS_OF_ALL))


# --- confusion ---


def test_confusion_is_scikit_learns_of_each_group():
    for g in range(G):
        here = g == GROUP
        expected = np.zeros((C, C))
        if here.any():
            expected = sklearn.confusion_matrix(
                CLASSES[here], PREDICTED[here], labels=range(C), sample_weight=WEIGHT[here]
            )
        np.testing.assert_allclose(MATRIX[g], expected, rtol=1e-6)
    several = sklearn.multilabel_confusion_matrix(CLASSES, PREDICTED, sample_weight=WEIGHT)
    np.testing.assert_allclose(metrics.one_against_rest(MATRIX).sum(0), several, rtol=1e-6)
    # Of two classes the second against the first is the matrix itself.
    two = metrics.confusion(P, Y, GROUP, G, weight=WEIGHT)
    np.testing.assert_array_equal(metrics.one_against_rest(two)[:, 1], two)
    np.testing.assert_allclose(two, metrics.one_against_rest(MATRIX)[:, 1], rtol=1e-6)


@pytest.mark.usefixtures("strict_dtype")
def test_multilabel_confusion_is_scikit_learns_of_each_group():
    labels, given = np.stack([CLASSES == 1, CLASSES > 0], 1), np.stack([PREDICTED == 1, PREDICTED < 2], 1)
    found = metrics.multilabel_confusion(given, labels, GROUP, G, weight=WEIGHT)
    assert found.shape == (G, 2, 2, 2)
    assert not found[3].any()
    for g in HERE:
        here = g == GROUP
        expected = sklearn.multilabel_confusion_matrix(
            labels[here].astype(int), given[here].astype(int), sample_weight=WEIGHT[here]
        )
        np.testing.assert_allclose(found[g], expected, rtol=1e-6)


def test_who_has_no_class_or_no_group_or_no_weight_stands_in_no_cell():
    prediction, y, group = (
        np.array([0, 1, 2, -1, 1, 1, 1]),
        np.array([0, 1, 1, 1, 7, 1, 1]),
        np.array([0] * 5 + [-1, 0]),
    )
    found = metrics.confusion(prediction, y, group, 1, weight=np.float32([1, 1, 1, 1, 1, 1, 0]))
    np.testing.assert_array_equal(found, [[[1, 0], [0, 1]]])


def test_rates_of_a_matrix_are_those_of_the_people():
    """The same true-positive, false-positive and selection rates as those that audits show."""
    for name, rate in metrics.group_rates(P, Y, GROUP, G, weight=WEIGHT)._asdict().items():
        np.testing.assert_allclose(getattr(RATES, name), rate, rtol=1e-6)
    np.testing.assert_allclose(RATES.base, metrics.group_means(Y == 1, GROUP, G, weight=WEIGHT), rtol=1e-6)
    np.testing.assert_allclose(RATES.accuracy, metrics.group_means(Y == P, GROUP, G, weight=WEIGHT), rtol=1e-6)
    np.testing.assert_allclose(RATES.true_positive + RATES.false_negative, [1, 1, 1, np.nan, 1], rtol=1e-6)
    np.testing.assert_allclose(RATES.false_positive + RATES.true_negative, [1, 1, 1, np.nan, np.nan], rtol=1e-6)
    for flip, name in ((0, "precision"), (1, "negative_precision")):
        of = [
            sklearn.precision_score(Y[g == GROUP] ^ flip, P[g == GROUP] ^ flip, sample_weight=WEIGHT[g == GROUP])
            for g in HERE
        ]
        np.testing.assert_allclose(np.asarray(getattr(RATES, name))[HERE], of, rtol=1e-6)


@pytest.mark.slow
def test_rounding_leaves_nobody_where_nobody_is():
    """Of weights that are no binary fractions, the negatives of a class that all have must be 0, not 1e-7."""
    y = np.ones(1000, int)
    weight = RNG.random(1000).astype(np.float32)
    matrix = metrics.confusion(RNG.integers(0, 3, 1000), y, np.zeros(1000, int), 1, num_classes=3, weight=weight)
    assert np.isnan(metrics.confusion_rates(metrics.one_against_rest(matrix)).false_positive[0, 1])


# --- fairlearn's convention ---


def as_fairlearn(rates, matrix):
    """fairlearn says 0 where nobody of a group is in the condition, and has no group of nobody; here both are nan."""
    there = matrix.sum((-1, -2)) > 0
    return jax.tree.map(lambda rate: jnp.where(there, jnp.nan_to_num(rate), jnp.nan), rates)


SAME = as_fairlearn(RATES, MATRIX)
OPTIONS = {"sensitive_features": GROUP, "sample_weight": WEIGHT}


@pytest.mark.parametrize("method", ["between_groups", "to_overall"])
@pytest.mark.parametrize(("of", "ours"), [("difference", metrics.difference), ("ratio", metrics.ratio)])
def test_parities_are_those_of_fairlearn(method, of, ours):
    found = ours(SAME, method=method, overall=OVERALL)
    names = {"selection": "demographic_parity", "true_positive": "equal_opportunity"}
    for field, name in names.items():
        expected = getattr(fairlearn, f"{name}_{of}")(Y, P, method=method, **OPTIONS)
        np.testing.assert_allclose(getattr(found, field), expected, rtol=1e-5, err_msg=name)
    odds = {"difference": metrics.equalized_odds_difference, "ratio": metrics.equalized_odds_ratio}[of]
    for agg in ("worst_case", "mean"):
        expected = getattr(fairlearn, f"equalized_odds_{of}")(Y, P, method=method, agg=agg, **OPTIONS)
        np.testing.assert_allclose(odds(SAME, method=method, combine=agg, overall=OVERALL), expected, rtol=1e-5)
    functions = {
        "accuracy": sklearn.accuracy_score,
        "precision": sklearn.precision_score,
        "true_negative": fairlearn.true_negative_rate,
        "false_negative": fairlearn.false_negative_rate,
    }
    frame = fairlearn.MetricFrame(
        metrics=functions, y_true=Y, y_pred=P, sensitive_features=GROUP,
        sample_params={name: {"sample_weight": WEIGHT} for name in functions},
    )  # fmt: skip
    for name, expected in getattr(frame, of)(method=method).items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-5, err_msg=name)


def test_a_rate_of_nobody_is_unknown_here_and_0_there():
    """Group 4 has no negative: as 0 it would be the group with the best false-positive rate."""
    ours = float(metrics.difference(RATES).false_positive)
    there = fairlearn.MetricFrame(
        metrics=fairlearn.false_positive_rate, y_true=Y, y_pred=P, sensitive_features=GROUP,
        sample_params={"sample_weight": WEIGHT},
    )  # fmt: skip
    assert there.by_group[4] == 0
    assert ours < there.difference()
    np.testing.assert_allclose(ours, np.ptp(there.by_group[:3]), rtol=1e-5)


def test_several_classes_are_each_compared_by_themselves():
    found = metrics.difference(as_fairlearn(BY_CLASS, metrics.one_against_rest(MATRIX)))
    odds = metrics.equalized_odds_difference(as_fairlearn(BY_CLASS, metrics.one_against_rest(MATRIX)))
    assert found.selection.shape == odds.shape == (C,)
    for c in range(C):
        y, p = (c == CLASSES).astype(int), (c == PREDICTED).astype(int)
        expected = fairlearn.demographic_parity_difference(y, p, **OPTIONS)
        np.testing.assert_allclose(found.selection[c], expected, rtol=1e-5)
        np.testing.assert_allclose(odds[c], fairlearn.equalized_odds_difference(y, p, **OPTIONS), rtol=1e-5)


def test_bounded_group_loss_is_the_largest_mean_of_a_group():
    loss = RNG.gamma(1.0, 1.0, N).astype(np.float32)
    found = metrics.largest_loss(metrics.group_means(loss, GROUP, G, weight=WEIGHT))
    frame = fairlearn.MetricFrame(
        metrics=sklearn.mean_absolute_error, y_true=np.zeros(N), y_pred=loss, sensitive_features=GROUP,
        sample_params={"sample_weight": WEIGHT},
    )  # fmt: skip
    np.testing.assert_allclose(found, frame.group_max(), rtol=1e-5)


# --- AIF360's convention ---


def aif360(y, prediction, privileged, weight):
    """The formulas of ``aif360.sklearn.metrics`` in NumPy: of who is not privileged less of who is, and the quotient.

    Compared once with version 0.6.1 of the library, on these arrays and for each group as the privileged one: equal to
    1e-12 where nobody is missing in a condition.
    """

    def share(event, among):
        return np.average(event[among], weights=weight[among])

    positive, given = y == 1, prediction == 1
    sides = [
        {
            "base": share(positive, side),
            "selection": share(given, side),
            "true_positive": share(given, side & positive),
            "false_positive": share(given, side & ~positive),
            "precision": share(positive, side & given),
            "negative_precision": 1 - share(positive, side & ~given),
        }
        for side in (~privileged, privileged)
    ]
    lower = {name: sides[0][name] - sides[1][name] for name in sides[0]}
    return {
        "statistical_parity_difference": lower["selection"],
        "disparate_impact_ratio": sides[0]["selection"] / sides[1]["selection"],
        "equal_opportunity_difference": lower["true_positive"],
        "average_odds_difference": (lower["true_positive"] + lower["false_positive"]) / 2,
        "average_odds_error": (abs(lower["true_positive"]) + abs(lower["false_positive"])) / 2,
        "average_predictive_value_difference": (lower["precision"] - lower["negative_precision"]) / 2,
    }


@pytest.mark.parametrize("privileged", [0, 1, 2])
def test_signed_differences_are_those_of_aif360(privileged):
    """Who is not privileged is one group: 1, and the privileged ones 0."""
    others = (privileged != GROUP).astype(int)
    rates = metrics.confusion_rates(metrics.confusion(P, Y, others, 2, weight=WEIGHT))
    at = {"method": "to_reference", "reference": 0}
    less, times = metrics.difference(rates, **at), metrics.ratio(rates, **at)
    found = {
        "statistical_parity_difference": less.selection,
        "disparate_impact_ratio": times.selection,
        "equal_opportunity_difference": less.true_positive,
        "average_odds_difference": metrics.equalized_odds_difference(rates, **at, combine="mean"),
        "average_odds_error": metrics.equalized_odds_difference(rates, **at, combine="mean_absolute"),
        "average_predictive_value_difference": (less.precision - less.negative_precision) / 2,
    }
    for name, expected in aif360(Y, P, privileged == GROUP, WEIGHT.astype(np.float64)).items():
        np.testing.assert_allclose(found[name][1], expected, rtol=1e-5, atol=1e-7, err_msg=name)
        assert found[name][0] == (1 if name == "disparate_impact_ratio" else 0)


@pytest.mark.usefixtures("strict_dtype")
def test_every_group_against_one_of_them_and_a_reference_that_is_traced():
    compared = jax.jit(lambda r: metrics.difference(RATES, method="to_reference", reference=r).selection)
    for r in range(3):
        np.testing.assert_allclose(compared(r), RATES.selection - RATES.selection[r], atol=1e-7)
    assert np.isnan(compared(3)).all()  # nobody is there


# --- edges of differences and ratios ---


def test_equal_groups_differ_by_nothing_and_zeros_have_no_ratio():
    for method in ("between_groups", "to_overall"):
        assert metrics.difference([0.25, 0.25], method=method, overall=0.25) == 0
        assert metrics.ratio([0.25, 0.25], method=method, overall=0.25) == 1
        assert np.isnan(metrics.ratio([0.0, 0.0], method=method, overall=0.0))
        assert metrics.ratio([0.0, 0.5], method=method, overall=0.25) == 0
        assert metrics.difference([0.5, np.nan, 0.25], method=method, overall=0.5) == 0.25
    assert np.isnan(metrics.difference([np.nan, np.nan]))
    np.testing.assert_array_equal(metrics.ratio([0.0, 0.5], method="to_reference", reference=0), [np.nan, np.inf])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.difference([0.1, 0.2], method="largest"), "method='largest': give one of between_groups, to_"),
        (
            lambda: metrics.difference([0.1, 0.2], method="to_overall"),
            "without overall: give the same numbers",
        ),
        (lambda: metrics.ratio([0.1, 0.2], method="to_reference"), "without reference: give the number of a group"),
        (lambda: metrics.ratio([0.1], method="to_reference", reference=1), "reference=1: give a group from 0 to 0"),
        (lambda: metrics.difference(0.5), r"one number, 0.5: give one per group"),
        (
            lambda: metrics.difference([0.1], method="to_overall", overall=[0.1]),
            r"overall of shape \(1,\)",
        ),
        (
            lambda: metrics.equalized_odds_difference(RATES, combine="sum"),
            "combine='sum': give one of worst_case",
        ),
        (lambda: metrics.equalized_odds_ratio(RATES, combine="mean_absolute"), "combine='mean_absolute': give one of"),
        (
            lambda: metrics.confusion([0.7], [1], [0], 1),
            "prediction of dtype float64: give integers from 0",
        ),
        (lambda: metrics.confusion([1], [0.7], [0], 1), "y of dtype float64: give integers"),
        (lambda: metrics.confusion_rates(np.zeros((2, 3, 3))), r"\(2, 3, 3\): give .* one_against_rest of it"),
        (lambda: metrics.one_against_rest(np.zeros((2, 3))), r"\(2, 3\): give \[..., C, C\]"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


# --- the area under the curve ---

area = jax.jit(lambda score, y, group, weight: metrics.group_auc(score, y, group, G, weight=weight))


def by_pairs(score, y, group, weight):
    """Every pair of a positive and a negative of a group."""
    beats = (score[:, None] > score).astype(float) + 0.5 * (score[:, None] == score)
    pairs = np.outer(weight * (y == 1), weight * (y != 1))
    out = [(pairs * beats)[np.ix_(group == g, group == g)].sum() for g in range(G)]
    with np.errstate(invalid="ignore"):
        return np.array(out) / [pairs[np.ix_(group == g, group == g)].sum() for g in range(G)]


def test_auc_counts_pairs_and_is_scikit_learns():
    weight = WEIGHT.astype(np.float64)
    found = area(SCORE, Y, GROUP, WEIGHT)
    np.testing.assert_allclose(found, by_pairs(SCORE, Y, GROUP, weight), rtol=1e-6)
    assert np.isnan(found[3:]).all()  # nobody, and nobody of class 0
    order = RNG.permutation(N)
    np.testing.assert_allclose(area(SCORE[order], Y[order], GROUP[order], WEIGHT[order]), found, rtol=1e-6)
    both = jax.vmap(area, in_axes=(0, None, None, None))(jnp.stack([SCORE, -SCORE]), Y, GROUP, WEIGHT)
    np.testing.assert_allclose(both, [found, 1 - found], rtol=1e-6)
    among = GROUP < 3
    frame = fairlearn.MetricFrame(
        metrics=sklearn.roc_auc_score, y_true=Y[among], y_pred=SCORE[among], sensitive_features=GROUP[among],
        sample_params={"sample_weight": weight[among]},
    )  # fmt: skip
    np.testing.assert_allclose(found[:3], frame.by_group, rtol=1e-6)
    np.testing.assert_allclose(metrics.difference(found), frame.difference(), rtol=1e-5)


@pytest.mark.slow
def test_auc_of_a_few_among_many_has_the_precision_of_float32():
    """In running sums over everybody, those of ten people would be lost behind a hundred thousand others."""
    rng = np.random.default_rng(1)
    group = np.repeat([1, 2], [100_000, 20])
    y, score, weight = (
        rng.integers(0, 2, len(group)),
        rng.normal(size=len(group)).astype(np.float32),
        rng.random(len(group)),
    )
    found = area(score, y, group, weight.astype(np.float32))
    for g in (1, 2):
        here = group == g
        expected = sklearn.roc_auc_score(y[here], score[here], sample_weight=weight[here])
        np.testing.assert_allclose(found[g], expected, rtol=1e-6)


def test_a_score_that_is_nan_leaves_its_group_unknown_and_padding_does_not_matter():
    broken = np.where(np.arange(N) == np.flatnonzero(GROUP == 1)[0], np.nan, SCORE).astype(np.float32)
    expected = area(SCORE, Y, GROUP, np.ones(N, np.float32))
    found = area(broken, Y, GROUP, np.ones(N, np.float32))
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, True, True])
    np.testing.assert_array_equal(found[0], expected[0])
    weight = np.where(np.isnan(broken), 0, 1).astype(np.float32)
    shorter = ~np.isnan(broken)
    without = by_pairs(SCORE[shorter], Y[shorter], GROUP[shorter], np.ones(shorter.sum()))
    np.testing.assert_allclose(area(broken, Y, GROUP, weight), without, rtol=1e-6)
    infinite = np.where(Y == 1, np.inf, -np.inf).astype(np.float32)
    np.testing.assert_array_equal(area(infinite, Y, GROUP, weight)[:3], 1)


def test_scores_of_64_bits_that_differ_are_no_tie():
    score = np.array([1.0, 1.0 + 1e-12])
    assert metrics.group_auc(score, [0, 1], [0, 0], 1)[0] == 1
    assert metrics.group_auc(score.astype(np.float32), [0, 1], [0, 0], 1)[0] == 0.5
    assert metrics.group_auc(np.array([2**40, 2**40 + 1]), [1, 0], [0, 0], 1)[0] == 0


# --- regression ---


@pytest.mark.usefixtures("strict_dtype")
def test_regression_errors_are_those_of_scikit_learn():
    """Far from 0, where squares in float32 would have nothing left of the spread."""
    y = (1000 + RNG.normal(size=N)).astype(np.float32)
    prediction = (y + RNG.normal(size=N)).astype(np.float32)
    found = metrics.regression_errors(prediction, y, GROUP, G, weight=WEIGHT)
    functions = {
        "mean_squared": sklearn.mean_squared_error,
        "mean_absolute": sklearn.mean_absolute_error,
        "r_squared": sklearn.r2_score,
    }
    for g in HERE:
        here = g == GROUP
        of = (y[here].astype(np.float64), prediction[here].astype(np.float64))
        for name, function in functions.items():
            np.testing.assert_allclose(
                getattr(found, name)[g], function(*of, sample_weight=WEIGHT[here]), rtol=2e-6, atol=1e-6, err_msg=name
            )
        mean = np.average(of[1] - of[0], weights=WEIGHT[here])
        np.testing.assert_allclose(found.mean_error[g], mean, rtol=1e-4, atol=1e-6)
    assert np.isnan([x[3] for x in found]).all()


@pytest.mark.slow
def test_without_any_spread_there_is_nothing_to_explain():
    """0.1 is no binary fraction: its mean over many may be a last digit away from it."""
    y, group = np.full(5000, 0.1, np.float32), np.arange(5000) % 3
    found = metrics.regression_errors(y + 0.25, y, group, 3)
    assert np.isnan(found.r_squared).all()
    np.testing.assert_allclose(found.mean_error, 0.25, rtol=1e-6)
    np.testing.assert_array_equal(metrics.group_moments(y, group, 3).variance, 0)


def test_shapes_of_labels_are_named():
    confusion = inspect.unwrap(metrics.multilabel_confusion)
    with pytest.raises(ValueError, match=re.escape("prediction of shape (3,), y of shape (3,)")):
        confusion(np.zeros(3, int), np.zeros(3, int), np.zeros(3, int), 1)
