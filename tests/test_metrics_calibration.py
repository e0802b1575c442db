"""Calibration by group: brute-force twins, closed forms, laws, and what is known of the bias of each estimator."""

import functools
import importlib
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import metrics
from jaxfair.metrics import calibration
from jaxfair.metrics.calibration import _bins

sweep = importlib.import_module("jaxfair.metrics.calibration.ece_sweep")  # whose name is that of a function
N, G = 80, 5


def people(kind):
    """80 people, one shape for all kinds: groups 0 to 2, two people in group 3, nobody in 4, some of no group."""
    rng = np.random.default_rng(7)
    confidence = rng.random(N).astype(np.float32)
    if kind == "ties":
        confidence = np.round(confidence * 6) / np.float32(6)
    if kind == "equal":
        confidence[:] = 0.75
    correct = rng.random(N) < confidence
    group = rng.choice([-1, 0, 1, 2], size=N, p=[0.1, 0.5, 0.3, 0.1]).astype(np.int32)
    group[:2] = 3
    if kind == "right":
        correct[:] = True
    if kind == "in order":
        correct = confidence > 0.5
    if kind == "one mistake":
        correct = np.ones(N, bool)
        correct[np.argsort(confidence)[5]] = False
    return confidence, correct, group


#: With few settings, so that little is compiled.
ESTIMATES = {
    "ece": functools.partial(metrics.ece, num_groups=G, bins=7),
    "ece_debiased": functools.partial(metrics.ece_debiased, num_groups=G, bins=7),
    "ece_debiased of p = 1": functools.partial(metrics.ece_debiased, num_groups=G, bins=7, p=1),
    "ece_sweep": functools.partial(metrics.ece_sweep, num_groups=G),
}
KINDS = ("plain", "ties", "equal", "right", "in order", "one mistake")
BINNINGS = ("mass", "width")


def bins_of(f, bins, binning):
    """Bins by their definition, one person after the other."""
    if binning == "width":
        return np.array([min(int(np.float32(x) * np.float32(bins)), bins - 1) for x in f])
    order = np.sort(f)
    middle = [(np.flatnonzero(order == x)[0] + np.flatnonzero(order == x)[-1]) // 2 for x in f]
    return np.array([int(r) * bins // len(f) for r in middle])


def brute_bins(f, h, bins, binning):
    """(size, mean confidence, accuracy) of every bin that has people."""
    spot = bins_of(f, bins, binning)
    there = [spot == b for b in range(bins) if (spot == b).any()]
    return [(int(s.sum()), f[s].astype(float).mean(), h[s].mean()) for s in there]


def brute_ece(f, h, bins, binning, p):
    if not len(f):
        return np.nan
    return sum(n / len(f) * abs(c - a) ** p for n, c, a in brute_bins(f, h, bins, binning)) ** (1 / p)


def brute_squared(f, h, bins, binning):
    if not len(f):
        return np.nan
    found = brute_bins(f, h, bins, binning)
    return sum(n / len(f) * ((c - a) ** 2 - a * (1 - a) / (n - 1)) for n, c, a in found if n > 1)


def brute_sweep(f, h, binning):
    best = min(len(f), 1)
    for bins in range(2, len(f)):
        spot = bins_of(f, bins, binning)
        shares = [Fraction(int(h[spot == b].sum()), int((spot == b).sum())) for b in range(bins) if (spot == b).any()]
        if any(b < a for a, b in itertools.pairwise(shares)):
            break
        best = bins
    return best


def by_group(function, confidence, correct, group, *more):
    return [function(confidence[group == g], correct[group == g], *more) for g in range(G)]


@pytest.mark.usefixtures("strict_dtype")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("binning", BINNINGS)
def test_errors_equal_brute_force(kind, binning):
    rows = people(kind)
    how = {"bins": 7, "binning": binning}
    for p in (1, 2, 3.5):
        found = metrics.ece(*rows, G, p=p, **how)
        np.testing.assert_allclose(found, by_group(brute_ece, *rows, 7, binning, p), rtol=1e-5, atol=1e-7)
    squared = np.array(by_group(brute_squared, *rows, 7, binning))
    np.testing.assert_allclose(metrics.ece_squared(*rows, G, **how), squared, rtol=1e-5, atol=1e-7)
    expected = np.sqrt(np.maximum(squared, 0))
    np.testing.assert_allclose(metrics.ece_debiased(*rows, G, **how), expected, rtol=1e-4, atol=1e-6)
    assert np.isnan(found[4])


@pytest.mark.usefixtures("strict_dtype")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("binning", ["mass", pytest.param("width", marks=pytest.mark.slow)])
def test_the_sweep_equals_brute_force(kind, binning):
    rows = people(kind)
    found = metrics.ece_sweep(*rows, G, p=2, binning=binning)
    bins = by_group(brute_sweep, *rows, binning)
    assert found.bins.tolist() == bins
    sides = [(rows[0][rows[2] == g], rows[1][rows[2] == g]) for g in range(G)]
    expected = [brute_ece(*side, b, binning, 2) for side, b in zip(sides, bins, strict=True)]
    np.testing.assert_allclose(found.error, expected, rtol=1e-5, atol=1e-7)


def test_without_ties_bins_of_equal_mass_differ_by_one_person_at_most():
    confidence, correct, _ = people("plain")
    curve = metrics.reliability(confidence, correct, bins=7)
    counts = np.bincount(np.arange(N) * 7 // N, minlength=7)
    assert curve.size[0].tolist() == counts.tolist()
    parts = np.split(np.argsort(confidence), np.cumsum(counts)[:-1])
    np.testing.assert_allclose(curve.accuracy[0], [correct[part].mean() for part in parts], rtol=1e-6)
    np.testing.assert_allclose(curve.confidence[0], [confidence[part].mean() for part in parts], rtol=1e-6)


def test_who_is_as_sure_is_in_one_bin_however_the_rows_stand():
    """A sort that splits them by their rows would find an error of 0.5 in a model that is calibrated."""
    alike = np.full(N, 0.5, np.float32), np.repeat([False, True], N // 2), np.zeros(N, np.int32)
    for how in ("ece", "ece_sweep"):
        assert jax.tree.leaves(ESTIMATES[how](*alike))[0][0] == 0.0
    order = np.random.default_rng(0).permutation(N)
    rows = people("ties")
    for estimate in ESTIMATES.values():
        jax.tree.map(np.testing.assert_array_equal, estimate(*(x[order] for x in rows)), estimate(*rows))


@pytest.mark.parametrize("how", ESTIMATES)
def test_padding_is_the_same_as_being_in_no_group_whatever_it_holds(how):
    confidence, correct, group = people("plain")
    expected = ESTIMATES[how](confidence, correct, np.r_[group[:-3], [-1, -1, -1]])
    weight = np.r_[np.ones(N - 3), np.zeros(3)]
    confidence = np.r_[confidence[:-3], [np.nan, 7.0, -np.inf]].astype(np.float32)
    correct = np.r_[correct[:-3], [np.nan, 5.0, 1.0]]
    found = ESTIMATES[how](confidence, correct, group, weight=weight)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ece", "ece_sweep"])
def test_lanes_are_as_one_by_one_also_when_traced(how):
    def of(confidence, correct, group, weight):
        return ESTIMATES[how](confidence, correct, group, weight=weight)

    rows = [jnp.stack(x) for x in zip(*map(people, KINDS), strict=True)]
    weight = jnp.ones((len(KINDS), N))
    found = jax.jit(jax.vmap(of))(*rows, weight)
    for i in range(len(KINDS)):
        alone = of(*(x[i] for x in rows), weight[i])
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-6, atol=1e-7)


def test_a_confidence_that_is_nan_makes_its_group_nan_and_no_other():
    confidence, correct, group = people("plain")
    expected = ESTIMATES["ece"](confidence, correct, group)
    confidence = np.where(np.arange(N) == np.flatnonzero(group == 1)[0], np.float32(np.nan), confidence)
    for estimate in ESTIMATES.values():
        found = jax.tree.leaves(estimate(confidence, correct, group))[0]
        assert np.isnan(found).tolist() == [False, True, False, False, True]
    assert ESTIMATES["ece"](confidence, correct, group)[0] == expected[0]


def test_one_bin_is_the_difference_of_means_and_a_larger_p_is_no_smaller():
    confidence, correct, _ = people("plain")
    group = np.zeros(N, np.int32)
    for p in (1, 2):
        found = metrics.ece(confidence, correct, bins=1, p=p)
        np.testing.assert_allclose(found, [abs(confidence.mean() - correct.mean())], atol=1e-6)
    norms = [float(ESTIMATES["ece"](confidence, correct, group, p=p)[0]) for p in (1, 1.5, 2, 4)]
    assert norms == sorted(norms)


def test_the_debiased_mean_gap_is_what_resampled_accuracies_give():
    """Kumar et al.'s way, with a hundred times as many draws, within five standard errors of their mean."""
    confidence, correct, _ = people("ties")
    confidence = confidence**0.25  # far too sure, so that the error is well above 0, where it is cut off
    size, sure, right = (np.asarray(x[0], float) for x in metrics.reliability(confidence, correct, bins=6))
    many = size > 1
    size, sure, right = size[many] / N, sure[many], right[many]
    noise = np.sqrt(right * (1 - right) / (size * N))
    draws = right + noise * np.random.default_rng(0).normal(size=(100_000, len(size)))
    drawn = np.abs(sure - draws) @ size
    found = metrics.ece_debiased(confidence, correct, bins=6, p=1)
    assert found[0] > 0.1
    expected = 2 * np.abs(sure - right) @ size - drawn.mean()
    assert abs(found[0] - expected) < 5 * drawn.std() / np.sqrt(len(drawn)) + 1e-6


@pytest.mark.parametrize("largest", [50, 2**15, 3_000_000])
def test_products_that_do_not_fit_in_32_bits_are_exact(largest):
    rng = np.random.default_rng(0)
    c = rng.integers(1, largest, 2000)
    a, b = rng.integers(0, c), rng.integers(1, c + 1)
    found = _bins.times_over(*(jnp.asarray(x, jnp.int32) for x in (a, b, c)))
    assert found.tolist() == [int(x) * int(y) // int(z) for x, y, z in zip(a, b, c, strict=True)]
    d = np.maximum(c - rng.integers(0, 3, 2000), 1)
    b = np.minimum(a + rng.integers(-1, 2, 2000), d).clip(0)  # nearly the same share
    less = sweep._less(*(jnp.asarray(x, jnp.int32) for x in (a, c, b, d)))
    expected = [int(w) * int(z) < int(y) * int(x) for w, x, y, z in zip(a, c, b, d, strict=True)]
    assert less.tolist() == expected
    assert 100 < sum(expected) < 1900


# --- what is known -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["logit", "log", "logflip"])
def test_a_curve_through_the_diagonal_is_calibrated(link):
    curve = calibration.KnownCurve(3.0, 0.7, link=link, at_one=0.25)
    f = jnp.linspace(0.01, 0.99, 20)
    np.testing.assert_allclose(calibration.expected_accuracy(curve, f), f, rtol=1e-5)
    assert calibration.true_error(curve) < 1e-12


def test_the_true_error_has_its_closed_form():
    """Right ``c f``: the error is ``(1 - c) sqrt(E f^2)``; right always half: ``E (f - 1/2)^2``; 1 for a share q."""
    a, b, c = 2.5, 0.8, 0.7
    second = a * (a + 1) / ((a + b) * (a + b + 1))
    curve = calibration.KnownCurve(a, b, float(np.log(c)), link="log")
    np.testing.assert_allclose(calibration.true_error(curve), (1 - c) * second**0.5, rtol=1e-7)
    np.testing.assert_allclose(calibration.true_error(curve, p=1), (1 - c) * a / (a + b), rtol=1e-7)
    with_one = ((1 - c) ** 2 * (0.6 * second + 0.4)) ** 0.5
    np.testing.assert_allclose(calibration.true_error(curve._replace(at_one=0.4)), with_one, rtol=1e-7)
    half = calibration.KnownCurve(a, b, slope=0.0)
    expected = (second - a / (a + b) + 0.25) ** 0.5
    np.testing.assert_allclose(calibration.true_error(half), expected, rtol=1e-7)


REPEATED, EACH = 200, 200
PERFECT = calibration.KnownCurve(4.0, 1.0)


@pytest.fixture(scope="module")
def calibrated():
    """200 groups of 200 people, of a model that is calibrated: each group is a repetition."""
    confidence, correct = calibration.draw(PERFECT, jax.random.key(3), (REPEATED * EACH,))
    return confidence, correct, jnp.repeat(jnp.arange(REPEATED), EACH)


@pytest.mark.slow
def test_draws_are_right_as_often_as_the_curve_says(calibrated):
    confidence, correct, _ = calibrated
    gap = np.asarray(correct, float) - np.asarray(confidence, float)
    assert abs(gap.mean()) < 5 * gap.std() / np.sqrt(gap.size)
    assert abs(confidence.mean() - 0.8) < 5 * confidence.std() / np.sqrt(gap.size)


@pytest.mark.slow
def test_of_a_calibrated_model_the_plain_error_is_above_zero_and_the_others_are_nearer(calibrated):
    plain = metrics.ece(*calibrated, REPEATED)
    debiased = metrics.ece_debiased(*calibrated, REPEATED)
    sweep = metrics.ece_sweep(*calibrated, REPEATED)
    assert plain.min() > 0.02
    # What chance adds: the square root of B E f (1 - f) / n, where E f (1 - f) = 4 / 30.
    assert abs(plain.mean() - (15 * 4 / 30 / EACH) ** 0.5) < 0.01
    assert debiased.mean() < 0.5 * plain.mean()
    assert sweep.error.mean() < 0.75 * plain.mean()
    assert 2 < sweep.bins.mean() < 12
    squared = np.asarray(metrics.ece_squared(*calibrated, REPEATED), float)
    assert abs(squared.mean()) < 4 * squared.std() / np.sqrt(REPEATED)


# --- changes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_intervals_of_changes_hold_and_resamples_are_paired(calibrated):
    """Both models are calibrated, and differ: the true change is 0, in each of 200 groups."""
    confidence, correct, group = calibrated
    other, right = calibration.draw(PERFECT, jax.random.key(4), confidence.shape)
    # Of half of the people, the model afterwards says what it said before.
    stays = jnp.arange(confidence.size) % 2 == 0
    other, right = jnp.where(stays, confidence, other), jnp.where(stays, correct, right)
    found = metrics.calibration_changes(
        confidence, correct, other, right, group, REPEATED, key=jax.random.key(0), resamples=200
    )
    covered = np.mean((found.single_low <= 0) & (found.single_high >= 0))
    assert 0.88 < covered < 0.995  # 0.95, of 200, give or take three standard errors and what a bootstrap is off by
    assert (found.low < found.single_low).all()
    assert np.mean((found.low <= 0) & (found.high >= 0)) > 0.97
    np.testing.assert_allclose(found.before, metrics.ece_debiased(confidence, correct, group, REPEATED), atol=1e-5)
    np.testing.assert_allclose(found.change, found.after - found.before)


def test_the_same_model_has_not_changed_and_few_people_say_nothing():
    confidence, correct, group = people("plain")
    group = np.where(group < 0, 0, group)
    found = metrics.calibration_changes(
        confidence, correct, confidence, correct, group, G, key=jax.random.key(0), resamples=20
    )
    assert found.size.tolist() == [np.sum(group == g) for g in range(G)]
    assert found.bins.tolist() == [max(1, min(15, n // 10)) if n else 0 for n in found.size]
    for low, high in ((found.low, found.high), (found.single_low, found.single_high)):
        assert low[:2].tolist() == high[:2].tolist() == [0.0, 0.0]
        assert (low[3], high[3]) == (-1.0, 1.0)
        assert np.isnan(low[4])
        assert np.isnan(high[4])
    assert np.isnan(found.change[4])
    assert found.change[:4].tolist() == [0.0] * 4


# --- what people pass in -------------------------------------------------------------------------------------------


def test_the_top_label_of_logits_and_of_probabilities():
    logits = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    y = np.arange(20) % 3
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for found in (metrics.top_label(logits, y, logits=True), metrics.top_label(probability, y)):
        np.testing.assert_allclose(found.confidence, probability.max(1), rtol=1e-6)
        assert found.correct.tolist() == (probability.argmax(1) == y).tolist()
    diverged = metrics.top_label(np.array([[np.nan, 1.0], [np.inf, 0.0]]), np.array([1, 0]), logits=True)
    assert np.isnan(diverged.confidence).all()
    assert not diverged.correct.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.ece([0.5, 1.5], [1, 0]), "confidence must be between 0 and 1, but one is 1.5; for logits"),
        (lambda: metrics.ece_sweep([0.5, -1.0], [1, 0]), "confidence must be between 0 and 1, but one is -1"),
        (lambda: metrics.ece([0.5, 0.5], [1, 2]), "correct must be 0 or 1: .*; but one is 2"),
        (lambda: metrics.ece([0.5, 0.5], [1, np.nan]), "correct must be 0 or 1: .*; but one is nan"),
        (lambda: metrics.ece_debiased([0.5], [1], weight=[0.5]), r"weight must be 0 .* ranked whole; but one is 0.5"),
        (lambda: metrics.ece([0.5], [1], bins=0), "bins must be a whole number from 1, but it is 0"),
        (lambda: metrics.ece([0.5], [1], binning="equal"), "binning='equal': choose from mass, width"),
        (lambda: metrics.ece_sweep([0.5], [1], binning=""), "binning='': choose from mass, width"),
        (lambda: metrics.ece([0.5], [1], p=0.5), "p must be at least 1, but it is 0.5"),
        (lambda: metrics.ece_sweep([0.5], [1], p=np.nan), "p must be at least 1, but it is nan"),
        (lambda: metrics.ece_debiased([0.5], [1], p=3), "p=3: .* p = 1 and p = 2"),
        (lambda: metrics.top_label([[2.0, 3.0]], [1]), "must be between 0 and 1, but one is 3; for logits say"),
        (lambda: metrics.top_label([0.5], [1]), r"prediction of shape \(1,\) for classes of shape \(1,\): give"),
        (lambda: calibration.true_error(calibration.KnownCurve(1, 1, link="probit")), "link='probit': choose from"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
