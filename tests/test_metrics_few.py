"""Groups with few changed people: test, interval and visible gap are one rule, and it covers."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxfair import metrics

KEY = jax.random.key(0)
VALUES = np.array([-1.0, 0.0, 1.0])
REST = [100, 3800, 100]


def infer(lost, gained, size, rest=REST, **options):
    changes = metrics.Changes(VALUES, np.array([[gained, size - lost - gained, lost], rest]))
    return metrics.infer(changes, key=KEY, **{"resamples": 300, **options})


def pairs(n, step=1):
    lost, gained = (a.ravel() for a in np.meshgrid(np.arange(0, n + 1, step), np.arange(0, n + 1, step)))
    return lost[lost + gained <= n], gained[lost + gained <= n]


# --- the group's own gap ---


@pytest.mark.parametrize("n", [1, 5, 19, 30])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.slow
def test_the_interval_leaves_out_zero_exactly_where_mcnemar_rejects(n, level):
    lost, gained = pairs(n)
    low, high = metrics.exact_gap_interval(np.full(lost.shape, n), lost, gained, level=level)
    np.testing.assert_array_equal((low > 0) | (high < 0), metrics.mcnemar(gained, lost) < 1 - level)
    gap = (lost - gained) / n
    assert ((low <= gap) & (gap <= high)).all()


@pytest.mark.parametrize("bound", [-0.3, -0.02, 0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("binary", [True, False])
def test_the_interval_leaves_out_a_bound_exactly_where_its_test_rejects(bound, binary):
    lost, gained = pairs(16, 2)
    size = np.full(lost.shape, 17)
    p = metrics.exact_gap_test(size, lost, gained, bound, binary=binary)
    for level in (0.7, 0.9, 0.99):
        low, high = metrics.exact_gap_interval(size, lost, gained, level=level, binary=binary)
        np.testing.assert_array_equal((low > bound) | (high < bound), p < 1 - level)
    if binary and bound == 0:
        np.testing.assert_allclose(p, metrics.mcnemar(gained, lost))


@pytest.mark.parametrize(("n", "level"), [(7, 0.8), (12, 0.95), (19, 0.975)])
def test_the_interval_covers_for_every_law_of_few_people(n, level):
    """The chance of covering, summed over all outcomes, on a grid that has the gaps near 0 on both sides too."""
    lost, gained = pairs(n)
    low, high = metrics.exact_gap_interval(np.full(lost.shape, n), lost, gained, level=level)
    outcomes, covered = np.stack([lost, gained, n - lost - gained], -1), []
    for q in np.linspace(0, 1, 14):
        for gap in {*np.linspace(-q, q, 9), *(d for d in (-1e-3, 1e-3, -0.03, 0.03) if abs(d) <= q)}:
            law = np.clip([(q + gap) / 2, (q - gap) / 2, 1 - q], 0, 1)
            mass = stats.multinomial.pmf(outcomes, n, law)
            covered.append(mass[(low <= gap + 1e-12) & (gap - 1e-12 <= high)].sum())
    assert min(covered) >= level
    assert np.median(covered) < 1  # and it is not all of [-1, 1]


def test_the_chance_is_that_of_all_outcomes():
    """P(z as large) summed over every outcome of nine people, at the worst share of people who change."""
    n, lost, gained, bound = 9, 6, 1, 0.15
    b, c = pairs(n)
    with np.errstate(invalid="ignore"):
        z = (b - c) / np.sqrt(b + c)
    worst = 0.0
    for q in np.linspace(bound, 1, 2000):
        law = [(q + bound) / 2, (q - bound) / 2, 1 - q]
        mass = stats.multinomial.pmf(np.stack([b, c, n - b - c], -1), n, np.maximum(law, 0))
        worst = max(worst, mass[z >= (lost - gained) / np.sqrt(lost + gained) - 1e-9].sum())
    assert metrics.exact_gap_test(n, lost, gained, bound) == pytest.approx(2 * worst, rel=0.01)


# --- the excess gap ---


def test_eight_of_nineteen():
    """The same people are judged alike by the interval, the p-value and the smallest visible gap."""
    found = infer(8, 0, 19)
    assert found.psi[0] == pytest.approx(0.419, abs=1e-3)
    assert 0 < found.p_value[0] < 0.01
    assert 0.05 < found.low[0] < found.single_low[0]
    assert 0.3 < found.visible[0] < found.psi[0]
    assert infer(6, 0, 19).low[0] < 0 < infer(7, 0, 19).low[0]
    assert found.visible[0] == pytest.approx(infer(7, 0, 19).psi[0])


@pytest.mark.parametrize(("size", "gained"), [(19, 0), (60, 2), (400, 0), (400, 6)])
@pytest.mark.slow
def test_there_is_no_jump_where_the_bootstrap_takes_over(size, gained):
    """One more person lost moves both ends by about what a person is, at ten changed people as elsewhere."""
    lost = np.arange(gained + 1, min(size, 34) - gained)
    found = [infer(b, gained, size, few=10) for b in lost]
    low, high, psi = (np.array([getattr(f, name)[0] for f in found]) for name in ("low", "high", "psi"))
    one = psi[1] - psi[0]
    # Once, where McNemar's test decides the sign of the group's own gap, the lower end may leap.
    steps = np.concatenate([np.sort(np.diff(low))[:-1], np.diff(high)])
    # The critical value of the bootstrap differs between data, hence more than one person.
    assert (steps > -one).all()
    assert (steps < 3 * one).all()
    assert (low < psi).all()
    assert (psi < high).all()


@pytest.mark.parametrize("rest", [REST, [0, 40, 0], [3, 60, 9]], ids=str)
@pytest.mark.parametrize(("size", "few"), [(9, 10), (40, 10), (40, 4), (40, 0)])
@pytest.mark.slow
def test_interval_p_value_and_visible_gap_agree(size, few, rest):
    lost, gained = pairs(size, 1 if size < 10 else 6)
    for b, c in zip(lost, gained, strict=True):
        found = infer(b, c, size, rest, few=few, resamples=200, level=0.9)
        outside = (found.single_low > 0) | (found.single_high < 0)
        np.testing.assert_array_equal(found.p_value < 0.1, outside, err_msg=f"{b} lost, {c} gained")
        np.testing.assert_array_equal(found.psi >= found.visible, found.low > 0, err_msg=f"{b}, {c}")


@pytest.mark.usefixtures("intervals_alone")
@pytest.mark.slow
@pytest.mark.parametrize("law", [(0.02, 0.0), (0.3, 0.0), (0.45, 0.25), (0.0, 0.6)], ids=str)
def test_intervals_of_a_small_group_cover(law):
    """Of the excess, beside 150 others: both groups together in 90 % of data sets, less three standard errors."""
    rng, sets, level, size = np.random.default_rng(3), 100, 0.9, np.array([14, 150])
    laws = np.array([law, (0.08, 0.05)])
    gap = laws[:, 0] - laws[:, 1]
    psi, together, single = gap - gap @ size / size.sum(), 0, np.zeros(2)
    for key in jax.random.split(KEY, sets):
        counts = [rng.multinomial(n, [c, 1 - b - c, b]) for n, (b, c) in zip(size, laws, strict=True)]
        found = metrics.infer(metrics.Changes(VALUES, np.array(counts)), key=key, resamples=200, level=level)
        together += ((found.low <= psi) & (psi <= found.high)).all()
        single += (found.single_low <= psi) & (psi <= found.single_high)
    slack = 3 * np.sqrt(level * (1 - level) / sets)
    assert together / sets >= level - slack
    assert single[0] / sets >= level - slack


def test_so_few_people_can_show_nothing():
    found = infer(1, 0, 2)
    assert found.visible[0] == np.inf
    assert found.low[0] < 0
    alone = metrics.infer(metrics.Changes(VALUES, np.array([[0, 90, 10]])), key=KEY, resamples=100)
    assert alone.p_value[0] == 1  # a group of everybody has no excess
    assert alone.psi[0] == alone.low[0] == alone.high[0] == 0


def test_of_means_over_seeds_the_rule_is_one_too():
    changes = metrics.Changes(np.array([-0.5, 0.0, 0.5, 1.0]), np.array([[0, 11, 4, 4], [60, 3800, 70, 70]]))
    for level in (0.5, 0.9, 0.99):
        found = metrics.infer(changes, key=KEY, resamples=500, level=level)
        np.testing.assert_array_equal(found.p_value < 1 - level, (found.single_low > 0) | (found.single_high < 0))
        np.testing.assert_array_equal(found.psi >= found.visible, found.low > 0)


def test_nothing_is_too_clear_to_be_said():
    """All of a small group lost, over seeds and in one network: a tiny p, and no crash on the way to it."""
    rest = [40, 3800, 30, 100]
    for values, lost in (([-1.0, 0.0, 0.5, 1.0], [0, 0, 0, 60]), ([-1.0, 0.0, 0.5, 1.0], [0, 2, 50, 8])):
        found = metrics.infer(metrics.Changes(np.array(values), np.array([lost, rest])), key=KEY, resamples=200)
        assert 0 < found.p_value[0] < 0.01
        assert found.low[0] > 0
    found = infer(60, 0, 60)
    assert 0 < found.p_value[0] < 1e-10
