"""Populations before and after: exemplars, noise floor, representation, tests and changes, against loops and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfair import metrics

K, L, N, C = 6, 4, 60, 3


rates_of = jax.jit(functools.partial(metrics.population_rates, num_groups=4, positive=2))


@pytest.fixture(scope="module")
def votes():
    """Networks that guess, so that there are ties, some of whom say nothing now and then, or at all."""
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, C, (K, N)), rng.integers(0, C, (L, N))
    before[rng.random((K, N)) < 0.1] = -1
    before[4], before[:, 7], after[:, 8] = -1, -1, -1
    return before, after


def brute(before, after):
    """Modes, exemplars and scores of every example, by counting on fingers."""
    found = []
    for x, z in zip(before.T, after.T, strict=True):
        count = [[list(of).count(c) for c in range(C)] for of in (x, z)]
        modes = [{c for c in range(C) if n[c] == max(n) > 0} for n in count]
        both = modes[0] & modes[1]
        first = [min(both or m, default=-1) for m in modes]
        known = all(modes)
        score = (
            sum(abs(a / sum(count[0]) - b / sum(count[1])) for a, b in zip(*count, strict=True)) if known else np.nan
        )
        found.append((*first, known and not both, score))
    return map(np.array, zip(*found, strict=True))


def as_uint8(said):
    return np.where(said < 0, 255, said).astype(np.uint8)


@pytest.mark.parametrize("kind", [np.asarray, as_uint8, lambda said: jnp.asarray(said, jnp.int32), np.ndarray.tolist])
def test_exemplars_are_what_a_count_says(votes, kind):
    with jax.numpy_dtype_promotion("strict"):
        found = metrics.exemplars(*map(kind, votes), C)
    before, after, exemplar, score = brute(*votes)
    np.testing.assert_array_equal(found.before, before)
    np.testing.assert_array_equal(found.after, after)
    np.testing.assert_array_equal(found.exemplar, exemplar)
    np.testing.assert_allclose(found.score, score, rtol=1e-6, atol=1e-7)
    assert 0 < exemplar.sum() < N


def test_what_classes_are_called_and_which_side_is_first_does_not_matter(votes):
    found, back = metrics.exemplars(*votes, C), metrics.exemplars(*votes[::-1], C)
    names = np.array([2, 0, 1, -1])  # the last is -1 itself
    called = metrics.exemplars(*(names[said] for said in votes), C)
    jitted = jax.jit(metrics.exemplars, static_argnums=2)(*votes, C)
    jax.tree.map(np.testing.assert_array_equal, jitted, found)
    for other in (back, called):
        np.testing.assert_array_equal(other.exemplar, found.exemplar)
        np.testing.assert_allclose(other.score, found.score, rtol=1e-6)
    np.testing.assert_array_equal(back.before, found.after)


def test_the_authors_score_is_K_times_this_one(votes):
    before, after = np.abs(votes[0][:L]), np.abs(votes[1])  # as many on both sides, and all say something
    count = [np.stack([(said == c).sum(0) for c in range(C)]) for said in (before, after)]
    score = metrics.exemplars(before, after, C).score
    np.testing.assert_allclose(L * score, np.abs(count[0] - count[1]).sum(0), rtol=1e-6)


def test_a_network_that_has_diverged_is_as_none(votes):
    less = np.delete(votes[0], 4, 0), votes[1]
    jax.tree.map(np.testing.assert_array_equal, metrics.exemplars(*votes, C), metrics.exemplars(*less, C))
    rates = [
        rates_of(said, np.arange(N) % C, np.arange(N) % 4, weight=np.ones(N)).error for said in (votes[0], less[0])
    ]
    np.testing.assert_array_equal(np.delete(np.asarray(rates[0]), 4, 0), rates[1])
    found = [metrics.welch_test(said, 1 - np.asarray(rates[1])) for said in rates]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.isnan(rates[0][4]).all()


def test_the_noise_floor_is_the_chance_that_two_halves_differ():
    """Networks that say 1 with a chance of p: h votes on each side, of two binomial laws."""
    rng, half, p, people = np.random.default_rng(1), 5, 0.35, 4000
    before = (rng.random((2 * half, people)) < p).astype(np.uint8)
    after = (rng.random((2 * half, people)) < 0.9).astype(np.uint8)
    floor = metrics.noise_floor(before, after, 2, key=jax.random.key(2), splits=8)
    one, other = (stats.binom.sf(half // 2, half, q) for q in (p, 0.9))
    for found, chance in (
        (floor.share, 2 * one * (1 - one)),
        (floor.compressed_share, one * (1 - other) + other * (1 - one)),
    ):
        assert abs(found - chance) < 4 * np.sqrt(chance * (1 - chance) / people)
    assert floor.networks == half
    assert floor.share_range.low <= floor.share <= floor.share_range.high
    np.testing.assert_allclose(floor.excess, floor.compressed_share - floor.share)


def test_networks_that_are_the_same_after_have_the_noise_and_no_excess(votes):
    before = np.delete(votes[0], 4, 0)
    same = metrics.noise_floor(before, before, C, key=jax.random.key(0), splits=8)
    np.testing.assert_array_equal(same.noise, same.compressed)
    assert same.share > 0
    # Fewer after, whom nothing pairs: as many of them as in a half, and a half with a diverged network has none.
    fewer = metrics.noise_floor(votes[0], votes[1], C, key=jax.random.key(0), splits=8)
    assert fewer.networks == 2
    assert fewer.noise.shape == (8, N)


def test_representation_is_a_ratio_with_an_exact_interval():
    rng = np.random.default_rng(3)
    group = rng.choice([-1, 0, 1, 3], N * 10, p=[0.1, 0.6, 0.28, 0.02])
    exemplar = rng.random(N * 10) < np.where(group == 1, 0.3, 0.05)
    weight = np.arange(N * 10) % 7 != 0
    found = metrics.representation(exemplar, group, 4, weight=weight)
    e, n = (exemplar & weight).sum(), weight.sum()
    for g in (0, 1, 3):
        mine = weight & (group == g)
        assert found.people[g] == mine.sum()
        assert found.exemplars[g] == (mine & exemplar).sum()
        ratio = ((mine & exemplar).sum() / e) / (mine.sum() / n)
        exact = stats.binomtest((mine & exemplar).sum(), e).proportion_ci(1 - 0.05 / 3, "exact")
        np.testing.assert_allclose(found.ratio[g], ratio)
        np.testing.assert_allclose([found.low[g], found.high[g]], np.array(exact) / (mine.sum() / n))
    assert np.isnan(found.ratio[2])
    assert found.state.tolist() == ["under-represented", "over-represented", "cannot tell", "cannot tell"]
    one = metrics.representation_ratio(exemplar, group, 4, weight=weight)
    np.testing.assert_allclose(one, found.ratio, rtol=1e-6)
    alone = metrics.representation(exemplar, np.zeros(N * 10, int), 1)
    nobody = metrics.representation(np.zeros(N * 10, bool), group, 4)
    assert (alone.ratio[0], alone.state[0]) == (1, "cannot tell")
    assert np.isnan(nobody.ratio).all()
    assert set(nobody.state) == {"cannot tell"}


@pytest.mark.parametrize(("rate", "times"), [(0.01, 1.0), (0.02, 4.0), (0.3, 2.0)])
def test_the_interval_of_representation_covers(rate, times):
    """Of two groups one interval is the other's: 19 of 20 hold at a level of 0.9 with Bonferroni."""
    rng, n = np.random.default_rng(4), np.array([900, 100])
    chance = rate * np.array([1, times])
    truth = chance[1] / (chance @ n / n.sum())
    group = np.repeat([0, 1], n)
    held = 0
    for _ in range(200):
        low, high = metrics.representation(rng.random(1000) < chance[group], group, 2, level=0.9)[1:3]
        held += low[1] <= truth <= high[1]
    assert held >= 200 * 0.95 - 3 * np.sqrt(200 * 0.95 * 0.05)


def test_the_rates_of_every_network_are_those_of_a_loop(votes):
    said, rng = np.delete(votes[0], 4, 0), np.random.default_rng(5)
    y, group, weight = rng.integers(0, C, N), rng.integers(-1, 3, N), rng.integers(0, 2, N)
    found = jax.jit(functools.partial(metrics.population_rates, num_groups=4, positive=2))(
        said, y, group, weight=weight
    )
    for k, g in np.ndindex(len(said), 4):
        mine = (group == g) & (weight > 0)
        yes, no = mine & (y == 2), mine & (y != 2)
        told = (said[k] != y)[mine], (said[k] == 2)[no], (said[k] != 2)[yes]
        wanted = [each.mean() if each.size else np.nan for each in told]
        np.testing.assert_allclose([rate[k, g] for rate in found[:3]], wanted, rtol=1e-6)
    np.testing.assert_allclose(found.overall_error, ((said != y) * weight).sum(1) / weight.sum(), rtol=1e-6)


@pytest.fixture(scope="module")
def rates():
    rng = np.random.default_rng(6)
    return rng.normal(0.2, 0.02, (7, 4)), rng.normal([0.2, 0.21, 0.25, 0.4], 0.05, (5, 4))


def test_welch_is_that_of_scipy(rates):
    before, after = rates
    found, other = metrics.welch_test(before, after, level=0.9), stats.ttest_ind(after, before, equal_var=False)
    low, high = other.confidence_interval(0.9)
    for mine, theirs in zip(found, (after.mean(0) - before.mean(0), low, high, *other, other.df), strict=False):
        mine = found.df if theirs is other.df else mine
        if theirs is other.pvalue:
            mine = found.p_value
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)


def test_one_number_per_network_is_a_column_of_many(rates):
    one = tuple(of[:, 1].copy() for of in rates)
    for test in (metrics.welch_test, metrics.normalised_change):
        found, column = test(*one), test(*rates)
        np.testing.assert_allclose(found[:3], [field[1] for field in column[:3]])
        assert np.shape(found[1]) == ()
    one[0][3] = np.nan  # a network that has diverged
    np.testing.assert_array_equal(metrics.welch_test(*one), metrics.welch_test(np.delete(one[0], 3), one[1]))


def test_holm_is_its_rule(rates):
    p = metrics.welch_test(*rates).p_value
    adjusted = metrics.welch_test(*rates).adjusted
    # The smallest level at which Holm rejects each.
    for alpha in (0.01, 0.02, 0.05, 0.1, 0.3, 0.7):
        rejected, left = np.zeros(4, bool), 4
        for i in np.argsort(p):
            if p[i] > alpha / left:
                break
            rejected[i], left = True, left - 1
        np.testing.assert_array_equal(adjusted <= alpha, rejected)


def test_what_does_not_vary_is_sure_and_what_is_not_there_is_nan():
    before = np.array([[0.5, 0.5, np.nan], [0.5, 0.5, np.nan]])
    found = metrics.welch_test(before, before + np.array([0, 0.25, 0]))
    assert found.p_value.tolist()[:2] == [1.0, 0.0]
    assert np.isnan(found.p_value[2])
    assert found.adjusted.tolist()[:2] == [1.0, 0.0]
    change = metrics.normalised_change(before, before + np.array([0, 0.25, 0]))
    np.testing.assert_allclose(change, [[0, 0.5, np.nan]] * 3)
    assert np.isnan(metrics.welch_test(before[:1], before).p_value).all()
    assert np.isnan(metrics.normalised_change(before[:0], before).low).all()


def test_the_ends_of_a_normalised_change_are_where_a_test_begins_to_reject(rates):
    before, after = rates
    found = metrics.normalised_change(before, after)
    np.testing.assert_allclose(found.change, after.mean(0) / before.mean(0) - 1)
    v, v2 = before.var(0, ddof=1) / len(before), after.var(0, ddof=1) / len(after)
    theta = found.change + 1
    df = (theta**2 * v + v2) ** 2 / ((theta**2 * v) ** 2 / 6 + v2**2 / 4)
    for end in (found.low + 1, found.high + 1):
        t = (after.mean(0) - end * before.mean(0)) / np.sqrt(v2 + end**2 * v)
        np.testing.assert_allclose(2 * stats.t.sf(np.abs(t), df), 0.05, rtol=1e-6)


@pytest.mark.parametrize("networks", [5, 30])
def test_a_normalised_change_covers(networks):
    rng, times, many = np.random.default_rng(7), 1.5, 4000
    before, after = (rng.normal(mean, 0.004, (networks, many)) for mean in (0.02, 0.02 * times))
    found = metrics.normalised_change(before, after)
    held = ((found.low <= times - 1) & (times - 1 <= found.high)).mean()
    assert abs(held - 0.95) < 4 * np.sqrt(0.95 * 0.05 / many) + 0.005  # df are Welch's approximation


SAID = np.zeros((4, 3), int)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.exemplars(SAID * 0.5, SAID, 2), r"before of shape \(4, 3\) and dtype float64"),
        (lambda: metrics.exemplars(SAID[0], SAID, 2), r"a row per network"),
        (
            lambda: metrics.exemplars(SAID, SAID[:, :2], 2),
            r"after of shape \(4, 2\): give a row per network",
        ),
        (lambda: metrics.exemplars(SAID, SAID[:0], 2), r"after of shape \(0, 3\)"),
        (lambda: metrics.exemplars(SAID, SAID + 7, 2), r"after has the class 7: give 0 to 1, and -1 for none"),
        (lambda: metrics.exemplars(SAID, SAID, 0), r"num_classes must be a whole number from 1"),
        (lambda: metrics.noise_floor(SAID[:3], SAID, 2, key=jax.random.key(0)), r"3 networks before and 4 after"),
        (lambda: metrics.noise_floor(SAID, SAID, 2, key=jax.random.key(0), splits=0), r"splits must be"),
        (lambda: metrics.noise_floor(SAID, SAID, 2, key=jax.random.key(0), level=95), r"for 95 % give 0.95"),
        (lambda: metrics.representation([True], [0], 1, weight=[0.5]), r"people are counted whole"),
        (lambda: metrics.representation([True], [0, 1], 1), r"group of shape \(2,\)"),
        (lambda: metrics.welch_test(0.5, 0.5), r"a row per network"),
        (lambda: metrics.welch_test(np.ones((2, 3)), np.ones((2, 4))), r"the same groups in both"),
        (lambda: metrics.population_rates(SAID, [0, 1], [0, 1], 2), r"shape"),
    ],
)
def test_what_cannot_be_is_one_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
