"""Shares by group with intervals: exact, together at their level, and the churn that they are made for."""

import inspect

import numpy as np
import pytest
from scipy import stats

from jaxfair import metrics
from jaxfair.metrics.share_intervals import from_everybody

RNG = np.random.default_rng(0)
SIZES = np.array([300, 60, 0, 25])
GROUP = np.repeat(np.arange(4), SIZES)
EVENT = RNG.random(SIZES.sum()) < np.array([0.1, 0.3, 0.5, 0.9])[GROUP]


def test_intervals_are_clopper_and_pearsons_at_the_level_of_independent_groups():
    found = metrics.share_intervals(EVENT, GROUP, 4)
    for g in (0, 1, 3):
        k, n = EVENT[g == GROUP].sum(), SIZES[g]
        low, high = stats.binomtest(int(k), int(n)).proportion_ci(0.95 ** (1 / 3), method="exact")
        np.testing.assert_allclose([found.low[g], found.high[g]], [low, high], rtol=1e-9)
        assert (found.count[g], found.size[g], found.share[g]) == (k, n, k / n)
    everybody = stats.binomtest(int(EVENT.sum()), len(EVENT)).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose([found.overall_low, found.overall_high], everybody, rtol=1e-9)
    assert found.overall == EVENT.mean()
    assert np.isnan([found.share[2], found.low[2], found.high[2], found.excess[2], found.excess_low[2]]).all()
    assert found.size[2] == 0


def test_the_difference_from_everybody_is_that_from_the_rest_in_part():
    found = metrics.share_intervals(EVENT, GROUP, 4)
    np.testing.assert_allclose(found.excess, found.share - found.overall, atol=1e-12)
    for g in (0, 1, 3):
        w, here = SIZES[g] / SIZES.sum(), g == GROUP
        np.testing.assert_allclose(found.excess[g], (1 - w) * (EVENT[here].mean() - EVENT[~here].mean()))
        error = 0.05 / 3
        own = error * np.clip(1 - w, 0.1, 0.9)
        a, b = (
            stats.binomtest(int(EVENT[of].sum()), int(of.sum())).proportion_ci(1 - part, method="exact")
            for of, part in ((here, own), (~here, error - own))
        )
        np.testing.assert_allclose(found.excess_low[g], (1 - w) * (a.low - b.high), rtol=1e-9)
        np.testing.assert_allclose(found.excess_high[g], (1 - w) * (a.high - b.low), rtol=1e-9)
    # Of one group, which is everybody, nothing differs.
    one = metrics.share_intervals(EVENT, np.zeros(len(EVENT), int), 1)
    assert one.excess == one.excess_low == one.excess_high == 0


def test_people_of_no_group_and_padding_are_left_out():
    found = metrics.share_intervals(EVENT, GROUP, 4)
    more = np.append(EVENT, [1.0, np.nan]), np.append(GROUP, [-1, 0]), np.append(np.ones(len(EVENT)), [1, 0])
    again = metrics.share_intervals(*more[:2], 4, weight=more[2])
    for a, b in zip(found, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5])
def test_all_groups_are_covered_together_as_often_as_is_said(p):
    """The chance, computed exactly: in each group all counts that there can be, weighted by how likely they are."""
    n, level = 12, 0.9
    # One group for every count from 0 to n, so that their intervals are those of n + 1 groups.
    event = np.concatenate([np.arange(n) < k for k in range(n + 1)])
    found = metrics.share_intervals(event, np.repeat(np.arange(n + 1), n), n + 1, level=level)
    inside = (found.low <= p) & (p <= found.high)
    of_one = (stats.binom.pmf(np.arange(n + 1), n, p) * inside).sum()
    assert of_one ** (n + 1) >= level
    alone = metrics.clopper_pearson(np.arange(n + 1), np.full(n + 1, n), level=level)
    assert (found.low <= alone.low).all()
    assert (found.high >= alone.high).all()


@pytest.mark.parametrize("chance", [(0.02, 0.02), (0.3, 0.05), (0.5, 0.99), (0.001, 0.4)])
@pytest.mark.parametrize("sizes", [(200, 10), (40, 40), (7, 300)])
def test_differences_from_everybody_are_covered_whoever_is_few(sizes, chance):
    """The chance, computed exactly over all pairs of counts: also of many beside a few to whom it hardly happens."""
    n, p, level = np.array(sizes), np.array(chance), 0.9
    count = np.stack(np.meshgrid(*(np.arange(m + 1) for m in n), indexing="ij"), -1)
    likely = np.prod([stats.binom.pmf(count[..., g], n[g], p[g]) for g in range(2)], axis=0)
    _, (low, high) = from_everybody(count, np.broadcast_to(n, count.shape), level)
    truth = p - (p * n).sum() / n.sum()
    inside = ((low <= truth + 1e-12) & (truth <= high + 1e-12)).all(-1)
    assert (likely * inside).sum() >= level


def test_differences_of_several_groups_from_everybody_are_covered_together():
    """Of groups whose chances differ, so that the rest of each is no binomial; 20,000 draws."""
    n, p, level, draws = np.array([400, 80, 30, 9]), np.array([0.05, 0.3, 0.02, 0.5]), 0.8, 20_000
    count = np.random.default_rng(1).binomial(n, p, (draws, 4))
    _, (low, high) = from_everybody(count, np.broadcast_to(n, count.shape), level)
    truth = p - (p * n).sum() / n.sum()
    covered = ((low <= truth) & (truth <= high)).all(-1).mean()
    assert level < covered < 0.99  # and not because they are as wide as can be


def test_changes_are_those_of_predictions_each_with_an_interval():
    y, before, after = np.random.default_rng(2).integers(0, 3, (3, len(GROUP)))
    found = metrics.prediction_change_intervals(before, after, y, GROUP, 4)
    plain = metrics.prediction_changes(before, after, y, GROUP, 4)
    for name, shares in found._asdict().items():
        np.testing.assert_allclose(shares.share, getattr(plain, name), rtol=1e-6)
        np.testing.assert_allclose(shares.overall, getattr(plain, f"overall_{name}"), rtol=1e-6)
    event = (before == y) & (after != y)
    alone = metrics.share_intervals(event, GROUP, 4)
    for a, b in zip(found.newly_wrong, alone, strict=True):
        np.testing.assert_array_equal(a, b)
    # A group whose predictions all stay has a share of 0, and what it may still be.
    same = metrics.prediction_change_intervals(y, y, y, GROUP, 4).changed
    np.testing.assert_array_equal(same.low[[0, 1, 3]], 0)
    assert (np.diff(same.high[[0, 1, 3]]) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event": np.full(len(GROUP), 0.5)}, "event must be 0 or 1: whether it happened, but it is 0.5 in row 0"),
        ({"weight": np.full(len(GROUP), 2)}, r"weight must be 0 \(padding\) or 1 \(a person\).*, but it is 2 in row 0"),
        ({"level": 95}, "level must be between 0 and 1, but it is 95; for 95 % give 0.95"),
        ({"num_groups": 2.5}, "num_groups must be a whole number from 0, but it is 2.5"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options, message):
    call = inspect.unwrap(metrics.share_intervals)
    with pytest.raises(ValueError, match=message):
        call(**{"event": EVENT, "group": GROUP, "num_groups": 4, **options})
