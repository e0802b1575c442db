"""The certificate covers whoever truly loses most, is hardly wider than it must be, and never contradicts a verdict."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxfair import metrics

KEY = jax.random.key(0)
VALUES = np.array([-1.0, 0.0, 1.0])


def changes(*counts):
    """Of each group how many are gained, unchanged and lost."""
    return metrics.Changes(VALUES, np.array(counts))


def certify(counts, **options):
    return metrics.certificate(changes(*counts), **{"key": KEY, "resamples": 500, **options})


#: name: size of each group, share lost, share gained.
LAWS = {
    "nobody is harmed": ([1500, 800, 300, 120], [0.04, 0.05, 0.03, 0.06], [0.04, 0.05, 0.03, 0.06]),
    "a large group is harmed": ([1500, 800, 700], [0.03, 0.09, 0.03], [0.03, 0.02, 0.03]),
    "a small group is harmed": ([1500, 800, 300, 120], [0.03, 0.03, 0.03, 0.15], [0.03, 0.03, 0.03, 0.03]),
    "ten changed or fifteen": ([1500, 800, 90], [0.03, 0.02, 0.13], [0.03, 0.03, 0.01]),
    "tiny groups": ([1500, 25, 12, 9], [0.03, 0.2, 0.05, 0.3], [0.03, 0.0, 0.05, 0.1]),
    "few are lost of many who change": ([1500, 200], [0.1, 0.01], [0.1, 0.12]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_the_limit_is_below_the_truth_in_at_most_five_percent_of_samples(name):
    """Of 400 samples; were it five percent exactly, one test in a thousand would see more than the binomial bound."""
    size, lost, gained = (np.array(a) for a in LAWS[name])
    gap, rng, sets = lost - gained, np.random.default_rng(5), 400
    truth, limits, highs = (gap - gap @ size / size.sum()).max(), [], []
    for key in jax.random.split(KEY, sets):
        drawn = [rng.multinomial(n, [c, 1 - b - c, b]) for n, b, c in zip(size, lost, gained, strict=True)]
        limits.append(certify(drawn, key=key).limit)
        if len(highs) < 50:
            highs.append(metrics.infer(changes(*drawn), key=key, resamples=500).high.max())
    missed = (np.array(limits) < truth).sum()
    assert missed <= stats.binom.ppf(0.999, sets, 0.05)
    # It is worth having beside the intervals of the verdicts, whose largest upper end is a limit, too.
    first = np.array(limits[: len(highs)])
    assert (first <= highs).all()
    assert np.mean(first - truth) < 0.95 * np.mean(highs - truth)
    if name == "a large group is harmed":  # where one group alone matters, five percent are used, and not none
        assert missed >= stats.binom.ppf(0.001, sets, 0.04)


def some(rng, groups=4):
    """Groups of any size, of whom few or many change."""
    size, share = rng.choice([6, 30, 200, 2000], groups), rng.choice([0.0, 0.02, 0.1, 0.4], groups)
    return [rng.multinomial(n, [q / 2, 1 - q, q / 2]) for n, q in zip(size, share, strict=True)]


@pytest.mark.parametrize("seed", range(12))
def test_it_never_contradicts_a_verdict(seed):
    counts = some(np.random.default_rng(seed))
    one, found = certify(counts), metrics.infer(changes(*counts), key=KEY, resamples=500)
    assert (found.psi <= one.upper).all()
    assert (one.upper <= found.high).all()
    assert one.limit == one.upper.max() == one.upper[one.group]
    for bound in (0.0, 0.003, 0.01, 0.05, 0.2):
        judged = metrics.verdict(found.low, found.high, bound)
        if (judged == "holds").all():
            assert one.limit <= bound
        if (judged == "violated").any():
            assert one.limit > bound


def test_many_people_have_the_limit_of_the_normal_law():
    counts = [[900, 38_000, 1100], [500, 9000, 500]]
    one = certify(counts, resamples=20_000)
    found = metrics.infer(changes(*counts), key=KEY, resamples=100)
    expected = found.psi + stats.norm.ppf(0.95) * found.standard_error
    # A quantile of 20,000 resamples has a standard error of a hundredth; this is four, in standard errors of psi.
    np.testing.assert_allclose(one.upper, expected, atol=0.06 * found.standard_error.max())


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_equal_networks_have_a_limit_as_small_as_their_people_allow(level):
    """The closed form of nobody lost, of n, at the parts of the error that are the group's own and the rest's."""
    size, alpha = np.array([40, 400, 4000]), 1 - level
    one, rest = certify([[0, n, 0] for n in size], level=level), size.sum() - size
    tail = min(alpha, 0.5)
    own, others = 1 - (0.81 * tail) ** (1 / size), 1 - (0.09 * tail) ** (1 / rest)
    np.testing.assert_allclose(one.upper, (1 - size / size.sum()) * (own + others))
    assert one.group == 0
    assert one.limit > 0


@pytest.mark.parametrize("seed", range(8))
def test_more_people_at_the_same_shares_never_raise_it(seed):
    counts = np.array(some(np.random.default_rng(100 + seed)))
    limits = [certify(by * counts).limit for by in (1, 2, 5, 25)]
    assert (np.diff(limits) <= 0).all(), limits


@pytest.mark.parametrize("seed", range(4))
def test_a_bound_for_one_more_group_never_lowers_it_and_the_limit_is_one_of_the_groups(seed):
    counts, bounded, last = some(np.random.default_rng(200 + seed), 5), np.zeros(5, bool), -np.inf
    for g in np.random.default_rng(seed).permutation(5):
        bounded[g] = True
        one = certify(counts, constrained=bounded)
        assert one.limit >= last
        assert bounded[one.group]
        last = one.limit


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_groups_does_not_matter(seed):
    rng = np.random.default_rng(300 + seed)
    counts, order = np.array(some(rng, 5)), rng.permutation(5)
    one, other = (certify(c, resamples=4000) for c in (counts, counts[order]))
    few = np.minimum(counts[:, 0] + counts[:, 2], counts[:, 1]) < 10
    np.testing.assert_allclose(other.upper[few[order]], one.upper[order][few[order]], rtol=1e-12)
    # The others' resamples are drawn in another order. The 5 % quantile of 4,000 has a standard error of about
    # sqrt(.05 * .95 / 4000) / .1 = 0.034 standard errors of psi, the law being as thin as .1 there; the difference of
    # two of them is within five.
    np.testing.assert_allclose(other.upper, one.upper[order], atol=5 * 0.05 * one.sample.standard_error.max())


def test_who_is_not_there_leaves_it_open_and_so_do_four_people():
    counts = [[20, 960, 20], [0, 0, 0], [0, 5, 0], [0, 4, 0]]
    one = certify(counts)
    assert one.open == (1, 3)
    assert (one.limit, one.group) == (np.inf, 1)
    assert np.isnan(one.upper[1])
    assert np.isnan(one.people_for(0.1)[1])
    other = certify(counts, constrained=[True, False, True, False])
    assert other.open == ()
    assert other.group == 2
    assert 0.4 < other.limit < 1
    assert certify(counts, constrained=[True, False, True, False], level=0.99).open == (2,)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([], {}, "people are in 0 of 0 groups: give two or more, to be compared."),
        ([[1, 9, 1]], {}, "people are in 1 of 1 groups: give"),
        ([[1, 9, 1], [0, 0, 0]], {}, "people are in 1 of 2 groups: give"),
        ([[1, 9, 1], [1, 9, 1]], {"constrained": [False, False]}, "no group has a bound: there is nothing to certify."),
        (
            [[1, 9, 1], [1, 9, 1]],
            {"constrained": [True]},
            r"constrained has shape \(1,\) and there are 2 groups: give one per group.",
        ),
        ([[1, 9, 1], [1, 9, 1]], {"level": 95}, "for 95 % give 0.95"),
        ([[1, 9, 1], [1, 9, 1]], {"resamples": 0}, "resamples must be a whole number from 1"),
    ],
)
def test_what_cannot_be_certified_is_said_in_a_line(counts, options, message):
    counts = np.array(counts, int).reshape(-1, 3)
    with pytest.raises(ValueError, match=message) as error:
        metrics.certificate(metrics.Changes(VALUES, counts), key=KEY, **options)
    assert "\n" not in str(error.value)


# --- how many people ---


@pytest.mark.parametrize("counts", [
    [[100, 3800, 100], [12, 376, 12]],  # many of both
    [[100, 3800, 100], [1, 96, 3]],  # few, and with more people many
    [[100, 3800, 100], [0, 40, 0], [2, 60, 1]],  # nobody
], ids=["many", "few", "nobody"])  # fmt: skip
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_so_many_people_have_the_limit_that_was_asked_for(counts, share):
    """People are whole, and so are the multiples that can be made of them: the next below and the next above."""
    counts = np.array(counts)
    one, size = certify(counts, resamples=4000), counts.sum(1)
    g = one.group
    psi = one.sample.rule.psi[g]
    y = max(psi, 0.0) + share * (one.limit - max(psi, 0.0))
    by = one.people_for(y)[g] / size[g]
    assert by > 1
    above, below = (certify(np.round(m * counts).astype(int), resamples=4000).upper[g] for m in (0.75 * by, 1.3 * by))
    assert above > y >= below


def test_the_number_of_people_is_what_it_is_where_that_will_do():
    counts = [[100, 3800, 100], [12, 376, 12], [30, 300, 70]]
    one = certify(counts, constrained=[True, True, False])
    size, psi = one.people, one.sample.rule.psi
    np.testing.assert_array_equal(one.people_for(1.0), size)
    np.testing.assert_array_equal(one.people_for(one.limit), size)
    assert one.people_for(psi[1])[1] == np.inf
    assert one.people_for(psi.min())[2] == size[2]  # it has no bound
    wanted = [one.people_for(y)[1] for y in np.linspace(psi[1] + 1e-3, one.limit, 12)]
    assert (np.diff(wanted) <= 0).all()


def test_of_means_over_seeds_it_is_a_limit_of_the_mean():
    halves = metrics.Changes(np.array([-0.5, 0.0, 0.5, 1.0]), np.array([[60, 3800, 70, 70], [2, 30, 4, 1]]))
    one = metrics.certificate(halves, key=KEY, resamples=500)
    found = metrics.infer(halves, key=KEY, resamples=500)
    assert (found.psi < one.upper).all()
    assert (one.upper <= found.high).all()
    wanted = one.people_for(0.1)
    assert wanted[0] == 4000
    assert 37 < wanted[1] < np.inf
