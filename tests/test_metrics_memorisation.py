"""Memorised bias against counting, the least masses against a search, and who is memorised against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxfair import data, metrics, models, train

bias = jax.jit(metrics.memorised_bias)
residuals = jax.jit(metrics.zero_bias_residuals)


def drawn(seed, classes, empty=False):
    """Counts, and a confusion in tenths, so that ten people make whole ones."""
    rng = np.random.default_rng(seed)
    counts = 10.0 * rng.integers(1, 9, (2, 2, classes))
    if empty:
        counts[1, 0, 0] = counts[0, 1, classes - 1] = 0
    confusion = rng.multinomial(10, np.ones(classes) / classes, (2, classes)) / 10
    return counts, confusion


def by_counting(counts, confusion):
    """The gaps as `metrics.group_rates` finds them in a list of people."""
    rows = []
    for d, a, y in np.ndindex(counts.shape):
        said = np.eye(counts.shape[2])[y] if d else confusion[a, y]
        for t, share in enumerate(said):
            rows += [(a, y, t)] * round(counts[d, a, y] * share)
    group, y, said = np.array(rows).T
    classes = counts.shape[2]
    parity, odds = np.zeros(classes), np.zeros((classes, classes))
    for t in range(classes):
        rate = metrics.selection_rate(said, group, 2, positive=t)
        parity[t] = rate[1] - rate[0]
        for of in range(classes):
            rate = metrics.selection_rate(said[y == of], group[y == of], 2, positive=t)
            odds[of, t] = rate[1] - rate[0]
    return parity, odds


@pytest.mark.parametrize(("classes", "empty"), [(2, False), (3, True)])
def test_the_three_gaps_are_those_of_counting(classes, empty):
    counts, confusion = drawn(classes, classes, empty)
    found = bias(counts, confusion)
    parity, odds = by_counting(counts, confusion)
    np.testing.assert_allclose(found.parity, parity, atol=2e-7)
    np.testing.assert_allclose(found.odds, odds, atol=2e-7)
    np.testing.assert_allclose(found.opportunity, np.diagonal(odds), atol=2e-7)


def test_parity_is_the_covariance_of_the_formula():
    """In its own words: p_D, q, q+, r, r+."""
    n, h = drawn(7, 3)
    n = n / n.sum()
    p, p_d = n[:, 1].sum(), n[1].sum()
    q, q_plus = n[1].sum(0) / p_d, n[1, 1] / n[1].sum(0)
    base = np.einsum("ay,ayt->at", n[0], h)
    r, r_plus = base.sum(0) / (1 - p_d), base[1] / base.sum(0)
    expected = (p_d * q * (q_plus - p) + (1 - p_d) * r * (r_plus - p)) / (p * (1 - p))
    np.testing.assert_allclose(bias(n, h).parity, expected, atol=2e-7)
    np.testing.assert_allclose(residuals(n, h).parity, expected * p * (1 - p), atol=1e-7)
    cells = np.prod(n.sum(0), axis=0)
    np.testing.assert_allclose(residuals(n, h).odds, bias(n, h).odds * cells[:, None], atol=1e-7)


def test_what_stands_in_an_empty_cell_does_not_matter():
    counts, confusion = drawn(3, 3, empty=True)
    other = confusion.copy()
    other[1, 2] = np.nan
    for ours, same in zip(bias(counts, confusion), bias(counts, other), strict=True):
        np.testing.assert_array_equal(ours, same)
    counts[:, 1, 2] = 0
    found = bias(counts, other)
    assert np.isnan(found.opportunity).tolist() == [False, False, True]
    assert np.isfinite(residuals(counts, other).odds).all()
    assert np.isnan(bias(counts * np.array([[1.0], [0.0]]), confusion).parity).all()  # group 1 is empty


def test_the_gaps_map_and_differentiate():
    counts, confusion = drawn(1, 2)
    lanes = jax.jit(jax.vmap(metrics.memorised_bias, (0, None)))(jnp.stack([counts, 2 * counts]), confusion)
    np.testing.assert_allclose(lanes.parity[0], lanes.parity[1], atol=1e-6)
    slope = jax.jit(jax.grad(lambda n: metrics.memorised_bias(n, confusion).parity[1]))(jnp.asarray(counts))
    assert np.isfinite(slope).all()
    # Parity is of degree 0 in the counts.
    assert float(jnp.sum(slope * jnp.asarray(counts))) == pytest.approx(0, abs=1e-6)


def searched(people, confusion, points):
    """The least and the most mass without a parity gap of two classes: a grid of three cells, and the last by it."""
    share, (h0, h1) = people / people.sum(), confusion[:, :, 1]
    p = share[1].sum()
    slope = np.stack([np.array([0 - h0[0], 1 - h0[1]]) / -(1 - p), np.array([0 - h1[0], 1 - h1[1]]) / p])
    start = share[1] @ h1 / p - share[0] @ h0 / (1 - p)
    cells = list(np.ndindex(2, 2))
    least, most = np.inf, -np.inf
    for last in cells:
        if abs(slope[last]) < 1e-9:
            continue
        rest = [cell for cell in cells if cell != last]
        grids = np.meshgrid(*(np.linspace(0, share[cell], points) for cell in rest), indexing="ij")
        needed = -(start + sum(slope[cell] * grid for cell, grid in zip(rest, grids, strict=True))) / slope[last]
        total = sum(grids) + needed
        good = (needed >= -1e-9) & (needed <= share[last] + 1e-9)
        if good.any():
            least, most = min(least, total[good].min()), max(most, total[good].max())
    return least, most


@pytest.mark.parametrize("seed", range(6))
def test_the_masses_for_parity_are_those_of_a_search(seed):
    rng = np.random.default_rng(seed)
    people, rate = rng.uniform(0.1, 1, (2, 2)), rng.uniform(0.05, 0.95, (2, 2))
    confusion = np.stack([1 - rate, rate], axis=-1)
    found = metrics.memorised_mass(people, confusion)
    least, most = searched(people, confusion, 41)  # a vertex has all cells but one at an end of the grid
    if np.isinf(least):
        assert np.isnan([found.parity_least, found.parity_most]).all()
        return
    np.testing.assert_allclose([found.parity_least, found.parity_most], [least, most], atol=1e-7)
    share = people / people.sum()
    after = bias(np.stack([share - found.parity_set, found.parity_set]), confusion)
    np.testing.assert_allclose(after.parity, 0, atol=1e-6)
    assert found.parity_set.sum() == pytest.approx(least, abs=1e-7)


def test_who_is_right_about_all_cannot_be_made_equal_by_memorising():
    people = np.array([[30.0, 20.0], [20.0, 30.0]])
    found = metrics.memorised_mass(people, np.stack([np.eye(2)] * 2))
    assert np.isnan(found.parity_least)
    assert found.opportunity_least.tolist() == found.odds_least.tolist() == [0, 0]


def test_positive_rates_of_six_and_four_in_ten_take_a_sixth():
    assert metrics.parity_mass([[60, 40], [40, 60]]) == pytest.approx(1 / 6)
    rate = np.array([[0.4, 0.4], [0.6, 0.6]])
    found = metrics.memorised_mass(np.full((2, 2), 25), np.stack([1 - rate, rate], axis=-1))
    assert found.parity_least == pytest.approx(1 / 6, abs=1e-7)
    assert found.parity_most == pytest.approx(1, abs=1e-7)  # the labels themselves are equal


@pytest.mark.parametrize("share", [None, 0.35])
def test_the_mass_given_the_others_is_that_of_a_linear_program(share):
    predicted = np.random.default_rng(2).uniform(1, 9, (2, 4))
    joint = predicted / predicted.sum()
    p = joint[1].sum() if share is None else share
    c = joint[1] - p * joint.sum(0)
    # (1 - p) m1 - p m0 + (1 - sum of all) c = 0 for each class
    equations = np.concatenate([-p * np.eye(4), (1 - p) * np.eye(4)], axis=1) - c[:, None]
    found = optimize.linprog(np.ones(8), A_eq=equations, b_eq=-c)
    assert metrics.parity_mass(predicted, share) == pytest.approx(found.fun, abs=1e-9)
    if share is None:
        apart = np.abs(joint[1] / p - joint[0] / (1 - p)).sum() / 2
        assert found.fun == pytest.approx(apart / (1 + apart))


def errors_of(kappa, profile):
    """Confusion in class 0 of three: group 1 errs kappa times as often."""
    h = np.tile(np.eye(3), (2, 1, 1))
    for a, errors in enumerate((np.array([0.2, 0.1]), kappa * np.array(profile))):
        h[a, 0] = [1 - errors.sum(), *errors]
    return h


@pytest.mark.parametrize(
    ("kappa", "profile", "proportional"), [(1.5, (0.2, 0.1), True), (0.5, (0.2, 0.1), True), (1.0, (0.1, 0.2), False)]
)
def test_odds_are_made_equal_in_proportion_or_by_memorising_all_who_err(kappa, profile, proportional):
    h, people = errors_of(kappa, profile), np.array([[30.0, 10.0, 10.0], [20.0, 20.0, 10.0]])
    found = metrics.memorised_mass(people, h)
    assert found.proportional.tolist() == [proportional, True, True]
    worse = int(kappa > 1)
    expected = people[worse, 0] * (1 - min(kappa, 1 / kappa)) / 100 if proportional else 0.5
    np.testing.assert_allclose(found.odds_least, [expected, 0, 0], atol=1e-9)
    np.testing.assert_allclose(
        found.opportunity_least, [expected if proportional else 0, 0, 0], atol=1e-9
    )  # equal misses, though of other kinds
    for part, good in ((1.0, True), (0.98, False)):
        memorised = np.zeros((2, 3))
        memorised[:, 0] = people[:, 0] if not proportional else 0
        if proportional:
            memorised[worse, 0] = 100 * expected
        memorised *= part
        odds = bias(np.stack([people - memorised, memorised]), h).odds
        assert (np.abs(odds).max() < 1e-6) == good


def test_no_smaller_set_makes_opportunity_equal():
    people, rate = np.array([[30.0, 25.0], [25.0, 20.0]]), np.array([[0.1, 0.7], [0.3, 0.9]])
    h = np.stack([1 - rate, rate], axis=-1)
    found = metrics.memorised_mass(people, h)
    for y in range(2):
        grid = np.linspace(0, 1, 201)
        mu0, mu1 = np.meshgrid(grid, grid, indexing="ij")
        miss = 1 - h[:, y, y]
        even = np.abs((1 - mu0) * miss[0] - (1 - mu1) * miss[1]) < 1e-9
        mass = (mu0 * people[0, y] + mu1 * people[1, y]) / 100
        assert found.opportunity_least[y] <= mass[even].min() + 1e-9
        worse = int(miss.argmax())
        assert found.opportunity_least[y] == pytest.approx(people[worse, y] / 100 * (1 - miss.min() / miss.max()))


# --- who is memorised ----------------------------------------------------------------------------------------------

K, N = 12, 9
GROUP = np.array([0, 0, 0, 0, 1, 1, 1, 3, -1])


@functools.cache
def population():
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, N)
    said = np.where(rng.random((K, N)) < 0.6, y, rng.integers(0, 3, (K, N))).astype(np.uint8)
    said[3] = 255  # diverged
    told = rng.random((K, N)) < 0.5
    told[:, 2] = True  # whom all were trained on
    told[:, 6] = np.arange(K) == 0  # and one
    return said, y, told


def test_scores_are_those_of_a_loop():
    said, y, told = population()
    found = jax.jit(metrics.memorisation)(said, y, told)
    for i in range(N):
        ins, outs = ([said[k, i] == y[i] for k in range(K) if told[k, i] == part] for part in (True, False))
        assert (found.trained[i], found.held_out[i]) == (len(ins), len(outs))
        if not ins or not outs:
            assert np.isnan([found.score[i], found.error[i]]).all()
            continue
        assert found.score[i] == pytest.approx(np.mean(ins) - np.mean(outs), abs=1e-6)
        added = [((sum(part) + 1) / (len(part) + 2), len(part) + 2) for part in (ins, outs)]
        expected = np.sqrt(sum(share * (1 - share) / number for share, number in added))
        assert found.error[i] == pytest.approx(expected, rel=1e-5)


def test_groups_are_means_and_their_errors_are_of_leaving_out_networks():
    said, y, told = population()
    of_groups = jax.jit(metrics.group_memorisation, static_argnums=4)
    found = of_groups(said, y, told, GROUP, 4)
    known = (told.sum(0) > 1) & ((~told).sum(0) > 1)
    assert known.tolist() == [True, True, False, True, True, True, False, True, True]

    def means(keep):
        right, told_ = said[keep] == y, told[keep]
        score = [right[told_[:, i], i].mean() - right[~told_[:, i], i].mean() if known[i] else 0 for i in range(N)]
        return np.array([np.mean([s for s, g, k in zip(score, GROUP, known, strict=True) if g == one and k])
                         if ((one == GROUP) & known).any() else np.nan for one in range(4)])  # fmt: skip

    every = np.arange(K)
    fewer = np.array([means(every[every != k]) for k in range(K)])
    expected = np.sqrt((K - 1) / K * ((fewer - fewer.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(found.mean, means(every), atol=1e-6)
    np.testing.assert_allclose(found.error, expected, atol=1e-6)
    assert found.count.tolist() == [3, 2, 0, 1]
    heavy = of_groups(said, y, told, GROUP, 4, weight=np.where(np.arange(N) == 0, 0.0, 2.0))
    assert heavy.count.tolist() == [4, 4, 0, 2]
    np.testing.assert_allclose(heavy.mean[1], found.mean[1], atol=1e-6)


def test_errors_say_how_far_another_population_would_be():
    """Networks that are good or bad as a whole, so that people are not independent: 200 populations of 30."""
    rng = np.random.default_rng(0)
    people, y = 40, jnp.ones(40, jnp.int32)
    told = rng.random((200, 30, people)) < 0.5
    skill = rng.uniform(-0.3, 0.3, (200, 30, 1))
    said = rng.random((200, 30, people)) < np.where(told, 0.6, 0.4) + skill
    group = np.zeros(people, int)
    of_group = jax.jit(jax.vmap(lambda p, t: metrics.group_memorisation(p, y, t, group, 1)))
    found = of_group(jnp.asarray(said, jnp.int32), jnp.asarray(told))
    assert float(found.mean.mean()) == pytest.approx(0.2, abs=4 * float(found.mean.std()) / np.sqrt(200))
    # A standard deviation of 200 has itself an error of 5 %.
    assert float(found.error.mean() / found.mean.std()) == pytest.approx(1, abs=0.2)
    each = jax.jit(jax.vmap(lambda p, t: metrics.memorisation(p, y, t)))(said.astype(np.int32), told)
    ratio = np.sqrt(np.mean(np.square(each.error))) / np.std(each.score, axis=0).mean()
    assert ratio == pytest.approx(1, abs=0.1)


def test_wrong_shapes_are_all_named():
    said, y, told = population()
    with pytest.raises(
        ValueError, match=r"prediction of shape \(12, 9\), y of shape \(8,\), included of shape \(12, 9\)"
    ):
        metrics.memorisation(said, y[:-1], told)
    with pytest.raises(ValueError, match=r"predicted of shape \(3, 2\): give \[2, C\]"):
        metrics.parity_mass(np.zeros((3, 2)))
    for wrong in (np.zeros((2, 3)), np.zeros((3, 2, 2))):
        with pytest.raises(ValueError, match=r"counts of shape .*give \[2, 2, C\]"):
            metrics.memorised_bias(wrong, np.zeros((2, 3, 3)))


@pytest.mark.slow
def test_networks_memorise_the_labels_that_are_wrong():
    """16 networks on halves of 240 digits, of which every tenth has a label that no other would tell."""
    digits = data.load("digits")
    split = jax.tree.map(lambda a: a[:240], digits.train)
    wrong = np.arange(240) % 10 == 0
    split = split._replace(y=np.where(wrong, (split.y + 3) % 10, split.y).astype(np.int32))
    told = np.random.default_rng(0).random((16, 240)) < 0.5
    model = models.mlp(10, hidden=(64,))

    def fitted(keys, members):
        part = split._replace(weight=told[members].astype(np.float32))
        axes = train.SHARED._replace(weight=0)
        return train.dense(model, part, keys=keys, epochs=40, batch_size=60, split_axes=axes)

    said = train.population(fitted, model, {"train": split}, key=jax.random.key(0), size=16, num_classes=10)["train"]
    found = metrics.group_memorisation(said, split.y, told, wrong.astype(int), 2)
    assert found.mean[1] > 0.8
    assert found.mean[0] < 0.3
    assert found.mean[1] - found.mean[0] > 10 * float(found.error.max())
