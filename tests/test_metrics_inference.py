"""Inference: exact coverage by enumeration, simulated coverage, brute-force twins, and scipy as the oracle."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxfair import metrics

SIZE = np.array([1500, 800, 300, 60])
GROUP = np.repeat(np.arange(4), SIZE).astype(np.int32)
LOST = np.array([0.03, 0.06, 0.05, 0.10])
GAINED = np.array([0.03, 0.02, 0.03, 0.02])


def outcomes(rng, lost=LOST, gained=GAINED):
    """Correctness of both networks for everyone, with given chances of a loss and of a gain."""
    u = rng.random(GROUP.size)
    down = u < lost[GROUP]
    up = (u >= lost[GROUP]) & (u < (lost + gained)[GROUP])
    rest = rng.random(GROUP.size) < 0.85
    return np.where(down, True, np.where(up, False, rest)), np.where(down, False, np.where(up, True, rest))


def true_psi(lost=LOST, gained=GAINED):
    gap = lost - gained
    return gap - gap @ SIZE / SIZE.sum()


# --- exact tests and intervals ---


def test_mcnemar_is_the_binomial_test():
    for gained in range(8):
        for lost in range(8):
            if gained + lost:
                expected = stats.binomtest(gained, gained + lost, 0.5).pvalue
                assert metrics.mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12)
    assert metrics.mcnemar(0, 0) == 1


def test_clopper_pearson_is_scipys():
    for k, n in [(0, 5), (5, 5), (2, 9), (40, 1000)]:
        expected = stats.binomtest(k, n).proportion_ci(0.9, method="exact")
        found = metrics.clopper_pearson(k, n, level=0.9)
        np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-12)
    np.testing.assert_array_equal(np.array(metrics.clopper_pearson(0, 0)), [0, 1])


def test_the_interval_of_a_bounded_mean_contains_the_one_of_a_share():
    k = np.arange(11)
    inner = metrics.clopper_pearson(k, np.full(11, 10))
    outer = metrics.bounded_mean_interval(k / 10, np.full(11, 10.0))
    assert (outer.low <= inner.low + 1e-12).all()
    assert (outer.high >= inner.high - 1e-12).all()


@pytest.mark.parametrize("binary", [True, False])
def test_the_exact_interval_covers_for_every_law(binary):
    """The chance of covering, summed over all outcomes of 25 people: no simulation."""
    n, level = 25, 0.9
    lost, gained = (a.ravel() for a in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    lost, gained = lost[lost + gained <= n], gained[lost + gained <= n]
    low, high = metrics.exact_gap_interval(np.full(lost.shape, n), lost, gained, level=level, binary=binary)
    for p in np.linspace(0, 0.6, 7):
        for q in np.linspace(0, 0.4, 5):
            mass = stats.multinomial.pmf(np.stack([lost, gained, n - lost - gained], -1), n, [p, q, 1 - p - q])
            assert mass[(low <= p - q) & (p - q <= high)].sum() >= level


def test_the_exact_interval_does_not_shrink_to_a_point_when_nobody_changed():
    low, high = metrics.exact_gap_interval(np.array([50]), np.zeros(1), np.zeros(1))
    assert high[0] > 0.05
    assert low[0] == -high[0]


# --- the bootstrap ---


def test_psi_is_the_excess_accuracy_gap():
    dense, sparse = outcomes(np.random.default_rng(0))
    found = metrics.paired_bootstrap(dense, sparse, GROUP, 4, key=jax.random.key(0), resamples=100)
    expected = metrics.accuracy_gaps(dense, sparse, GROUP, 4)
    np.testing.assert_allclose(found.psi, expected.excess, atol=1e-6)
    np.testing.assert_allclose(found.overall, expected.overall, atol=1e-6)
    np.testing.assert_array_equal(found.size, SIZE)


def test_the_multinomial_equals_resampling_people():
    """Twin: draw people with replacement within each group, recompute everything from the people."""
    rng = np.random.default_rng(1)
    size = np.array([120, 80, 60])
    group = np.repeat(np.arange(3), size)
    sparse_loss = rng.random(260) < np.array([0.15, 0.3, 0.25])[group]
    dense = rng.random(260) < 0.8
    sparse = np.where(sparse_loss, ~dense, dense)
    d = dense.astype(float) - sparse
    share = size / 260

    def statistic(d):
        parts = [d[group == g] for g in range(3)]
        gap = np.array([p.mean() for p in parts])
        noise = np.array([p.var(ddof=1) / len(p) for p in parts])
        away = np.eye(3) - share  # [g, h]: how psi_g moves with Delta_h
        return gap - gap @ share, np.sqrt((away**2 * noise).sum(1))

    psi, error = statistic(d)
    starts = np.concatenate([[0], np.cumsum(size)[:-1]])
    largest, draws = [], []
    for _ in range(4000):
        rows = np.concatenate([s + rng.integers(0, n, n) for s, n in zip(starts, size, strict=True)])
        psi_star, error_star = statistic(d[rows])
        largest.append(np.abs((psi_star - psi) / error_star).max())
        draws.append(psi_star)
    found = metrics.paired_bootstrap(dense, sparse, group.astype(np.int32), 3, key=jax.random.key(0), resamples=20_000)
    np.testing.assert_allclose(found.psi, psi, atol=1e-12)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-9)
    np.testing.assert_allclose(found.standard_error, np.std(draws, axis=0), rtol=0.04)
    # The 95 % quantile of 4,000 draws has a standard error of about 0.035 here.
    assert found.critical == pytest.approx(np.quantile(largest, 0.95), abs=0.12)
    np.testing.assert_allclose(found.high - found.psi, found.critical * found.standard_error)


@pytest.mark.usefixtures("intervals_alone")
@pytest.mark.parametrize("factor", [1.0, 0.15], ids=["mostly normal", "half exact"])
@pytest.mark.slow
def test_simultaneous_intervals_cover(factor):
    """All four intervals must hold together in 90 % of data sets, less three standard errors."""
    rng = np.random.default_rng(2)
    sets, level = 400, 0.9
    lost, gained = LOST * factor, GAINED * factor
    psi = true_psi(lost, gained)
    together, single, few = 0, np.zeros(4), np.zeros(4)
    for key in jax.random.split(jax.random.key(0), sets):
        counts = np.stack([rng.multinomial(n, [b, 1 - a - b, a]) for n, a, b in zip(SIZE, lost, gained, strict=True)])
        changes = metrics.Changes(np.array([-1.0, 0.0, 1.0]), counts)
        found = metrics.infer(changes, key=key, resamples=500, level=level)
        inside = (found.low <= psi) & (psi <= found.high)
        together += inside.all()
        single += (found.single_low <= psi) & (psi <= found.single_high)
        few += found.exact
    assert (few[2:] > sets / 2).all() == (factor < 1)  # the two kinds of intervals are both tried
    slack = 3 * np.sqrt(level * (1 - level) / sets)
    assert together / sets >= level - slack
    assert (single / sets >= level - slack).all()
    if factor == 1:  # nor are they so wide as to be useless
        assert together / sets <= level + slack + 0.02
        assert (single[:3] / sets <= level + slack + 0.02).all()


@pytest.mark.usefixtures("intervals_alone")
@pytest.mark.slow
def test_a_large_group_beside_a_small_one_is_no_surer_than_the_small_one():
    """Of fifty people one or two change: what is said of the thousand, compared with them, must cover as well."""
    rng, sets, level, size = np.random.default_rng(3), 100, 0.95, np.array([1000, 50])
    together = 0
    for key in jax.random.split(jax.random.key(0), sets):
        counts = np.stack([rng.multinomial(n, [0.02, 0.98, 0.0]) for n in size])
        found = metrics.infer(metrics.Changes(np.array([-1.0, 0.0, 1.0]), counts), key=key, resamples=300, level=level)
        together += ((found.low <= 0) & (found.high >= 0)).all()
    # Three standard errors below the level; by the thousand's own changes alone it was 0.7.
    assert together / sets >= level - 3 * np.sqrt(level * (1 - level) / sets)


def test_simultaneous_intervals_contain_single_ones():
    dense, sparse = outcomes(np.random.default_rng(3))
    found = metrics.paired_bootstrap(dense, sparse, GROUP, 4, key=jax.random.key(0))
    assert (found.low <= found.single_low).all()
    assert (found.high >= found.single_high).all()


def test_a_mean_over_seeds_is_resampled_as_it_is():
    rng = np.random.default_rng(4)
    runs = [outcomes(rng) for _ in range(5)]
    dense, sparse = (np.mean(side, axis=0, dtype=np.float32) for side in zip(*runs, strict=True))
    changes = metrics.count_changes(dense, sparse, GROUP, 4)
    assert changes.values.size <= 11  # multiples of a fifth, not of float32's rounding
    found = metrics.infer(changes, key=jax.random.key(0))
    expected = metrics.accuracy_gaps(dense, sparse, GROUP, 4)
    np.testing.assert_allclose(found.psi, expected.excess, atol=1e-6)
    one = metrics.paired_bootstrap(*runs[0], GROUP, 4, key=jax.random.key(0))
    assert (found.standard_error < one.standard_error).all()


def test_empty_groups_are_nan_and_change_nothing():
    dense, sparse = outcomes(np.random.default_rng(5))
    wide = np.where(GROUP == 3, 5, GROUP).astype(np.int32)  # groups 3 and 4 are empty
    with_empty = metrics.paired_bootstrap(dense, sparse, wide, 6, key=jax.random.key(0))
    without = metrics.paired_bootstrap(dense, sparse, GROUP, 4, key=jax.random.key(0))
    assert np.isnan(with_empty.low[[3, 4]]).all()
    assert np.isnan(with_empty.p_value[[3, 4]]).all()
    seen = [0, 1, 2, 5]
    np.testing.assert_allclose(with_empty.psi[seen], without.psi)
    np.testing.assert_allclose(with_empty.high[seen], without.high, rtol=0.1)


def test_padding_is_dropped_and_half_a_person_is_refused():
    dense, sparse = outcomes(np.random.default_rng(6))
    key = jax.random.key(0)
    weight = np.append(np.ones(GROUP.size), 0)
    padded = metrics.paired_bootstrap(
        np.append(dense, True),
        np.append(sparse, False),
        np.append(GROUP, 0),
        4,
        key=key,
        weight=weight,
    )
    plain = metrics.paired_bootstrap(dense, sparse, GROUP, 4, key=key)
    np.testing.assert_array_equal(padded.low, plain.low)
    with pytest.raises(ValueError, match="whole"):
        metrics.paired_bootstrap(dense, sparse, GROUP, 4, key=key, weight=np.full(GROUP.size, 0.5))
    with pytest.raises(ValueError, match="outcomes"):
        metrics.count_changes(dense.astype(float) * 2, sparse, GROUP, 4)


def test_one_group_and_identical_networks_have_no_gap():
    dense, sparse = outcomes(np.random.default_rng(7))
    one = metrics.paired_bootstrap(dense, sparse, np.zeros_like(GROUP), 1, key=jax.random.key(0))
    assert one.psi == one.low == one.high == 0
    same = metrics.paired_bootstrap(dense, dense, GROUP, 4, key=jax.random.key(0))
    np.testing.assert_array_equal(same.psi, 0)
    assert same.exact.all()
    assert np.isnan(same.critical)
    assert ((same.low < 0) & (same.high > 0)).all()


def test_a_key_fixes_the_result():
    dense, sparse = outcomes(np.random.default_rng(8))
    a, b, c = (
        metrics.paired_bootstrap(dense, sparse, GROUP, 4, key=jax.random.key(k), resamples=500) for k in (0, 0, 1)
    )
    assert a.critical == b.critical != c.critical


# --- the noise floor ---


def test_binomials_equal_flipping_people():
    rng = np.random.default_rng(9)
    runs = [outcomes(rng) for _ in range(2)]  # two seeds: differences of a half and of one
    dense, sparse = (np.mean(side, axis=0) for side in zip(*runs, strict=True))
    found = metrics.sign_flip_null(dense, sparse, GROUP, 4, key=jax.random.key(0))
    d, changed = dense - sparse, np.flatnonzero(dense != sparse)
    largest = []
    for _ in range(4000):
        flipped = rng.choice([-1, 1], changed.size) * d[changed]
        gap = np.bincount(GROUP[changed], flipped, 4) / SIZE
        largest.append((gap - gap @ SIZE / SIZE.sum()).max())
    spread = np.std(largest)
    assert found.mean == pytest.approx(np.mean(largest), abs=5 * spread / np.sqrt(4000))
    assert found.quantile == pytest.approx(np.quantile(largest, 0.95), abs=0.15 * spread)


def test_p_values_are_uniform_under_the_null_and_small_under_harm():
    rng = np.random.default_rng(10)
    keys = jax.random.split(jax.random.key(0), 300)
    fair = np.full(4, 0.03)
    p = np.array(
        [
            metrics.sign_flip_null(*outcomes(rng, fair, fair), GROUP, 4, key=key, permutations=199).p_value
            for key in keys
        ]
    )
    for level in (0.05, 0.2, 0.5):
        slack = 3 * np.sqrt(level * (1 - level) / len(p))
        assert level - slack - 0.03 <= (p <= level).mean() <= level + slack
    harmed = np.array([0.02, 0.02, 0.2, 0.02])
    dense, sparse = outcomes(rng, harmed, np.full(4, 0.02))
    assert metrics.sign_flip_null(dense, sparse, GROUP, 4, key=keys[0]).p_value < 0.001


def test_a_copy_is_never_significant():
    dense, _ = outcomes(np.random.default_rng(11))
    found = metrics.sign_flip_null(dense, dense, GROUP, 4, key=jax.random.key(0))
    assert (found.observed, found.mean, found.p_value) == (0, 0, 1)


# --- seeds, power, statements ---


def test_t_interval_is_scipys():
    values = np.random.default_rng(12).normal(size=(5, 3))
    found = metrics.t_interval(values, level=0.9)
    for column in range(3):
        expected = stats.ttest_1samp(values[:, column], 0).confidence_interval(0.9)
        np.testing.assert_allclose([found.low[column], found.high[column]], [expected.low, expected.high])


def test_paired_differences_see_what_overlapping_intervals_hide():
    rng = np.random.default_rng(13)
    seed_noise = rng.normal(size=6)
    a, b = seed_noise + 0.1, seed_noise + rng.normal(size=6) * 0.01
    first, second = metrics.t_interval(a), metrics.t_interval(b)
    assert first.low < second.high  # they overlap
    difference = metrics.paired_difference(a, b)
    assert difference.low > 0
    assert difference.mean == pytest.approx(first.mean - second.mean)


def test_one_seed_has_a_mean_and_no_interval():
    found = metrics.t_interval(np.array([0.25]))
    assert found.mean == 0.25
    assert np.isnan([found.low, found.high, found.half_width]).all()
    assert "no interval" in str(found)
    assert np.isnan(metrics.t_interval(np.zeros(0)).mean)
    assert np.isnan(metrics.t_interval(np.array([0.1, np.nan])).mean)


def test_people_needed_are_those_of_the_power_table():
    needed = [float(metrics.people_needed(0.01, 0.03, groups=g)) for g in (1, 10, 100)]
    np.testing.assert_allclose(needed, [1150, 2370, 3630], rtol=0.005)
    for n, g in zip(needed, (1, 10, 100), strict=True):
        visible = metrics.smallest_visible_gap(np.array(0.03 * n), np.array(n), groups=g)
        assert visible == pytest.approx(0.01, rel=1e-3)


def test_a_change_of_one_seed_in_four_counts_a_sixteenth():
    """Averaged over seeds, a person who changes in one seed moves the mean by a quarter."""
    dense, sparse = np.ones(8), np.array([0.75] * 4 + [1.0] * 4)
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = metrics.paired_bootstrap(dense, sparse, group, 2, key=jax.random.key(0))
    np.testing.assert_array_equal(found.changed, [4, 0])
    np.testing.assert_allclose(found.squared, [0.25, 0.0])


def test_the_smallest_visible_gap_is_the_half_width_of_an_interval():
    """A quarter of the people in the group, changes of both signs: the bootstrap's own half-width."""
    rng = np.random.default_rng(14)
    even = np.full(4, 0.05)
    dense, sparse = outcomes(rng, even, even)
    found = metrics.paired_bootstrap(dense, sparse, GROUP, 4, key=jax.random.key(0), level=0.95)
    np.testing.assert_array_equal(found.squared, found.changed)
    visible = metrics.smallest_visible_gap(found.squared, found.size)
    half = (found.single_high - found.single_low) / 2
    # The overall term takes part of the noise away from a large group, hence the factor 1 - p_g.
    np.testing.assert_allclose(half[:3], (visible * np.sqrt(1 - SIZE / SIZE.sum()))[:3], rtol=0.15)


def test_nobody_changed_is_not_proof():
    visible = metrics.smallest_visible_gap(np.array([0, 0]), np.array([100, 0]))
    assert visible[0] > 0.01
    assert np.isnan(visible[1])


def test_verdicts_are_exhaustive():
    low, high = np.array([-1.0, 0.5, 0.0, np.nan]), np.array([0.1, 0.9, 0.3, 0.0])
    expected = ["holds", "violated", "cannot tell", "cannot tell"]
    assert metrics.verdict(low, high, 0.1).tolist() == expected


def test_the_worst_group_is_biased_where_it_is_picked_and_not_where_it_is_scored():
    rng = np.random.default_rng(15)
    validation, test = rng.normal(size=(2, 2000, 10))  # nobody is harmed
    picked = [metrics.worst_group(row) for row in validation]
    rows = np.arange(2000)
    assert validation[rows, picked].mean() > 1.4
    assert abs(test[rows, picked].mean()) < 0.1
    assert metrics.worst_group(np.array([np.nan, -0.1, -0.2])) == 1
    with pytest.raises(ValueError, match="worst"):
        metrics.worst_group(np.array([np.nan]))


def test_transfer():
    assert metrics.transfer(nft_train=0.04, nft_test=0.03, train=0.01, test=0.03) == 0
    assert metrics.transfer(nft_train=0.04, nft_test=0.04, train=0.01, test=0.01) == 1
    assert np.isnan(metrics.transfer(nft_train=0.01, nft_test=0.04, train=0.01, test=0.01))


def test_of_no_people_nothing_is_known():
    nobody = np.zeros(0, bool)
    found = metrics.paired_bootstrap(nobody, nobody, np.zeros(0, int), 2, key=jax.random.key(0), resamples=9)
    assert np.isnan(found.overall)
    assert np.isnan(found.psi).all()
