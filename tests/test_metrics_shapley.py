"""Shapley values: the laws that define them, the closed form of a linear score, all orders by hand; and leaning."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxfair import metrics

rng = np.random.default_rng(0)
X, BACKGROUND = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
W = np.array([1.0, -2.0, 0.0, 0.5], np.float32)


def rough(x):
    """Interactions of all four columns, and one that is a player of its own in none of them."""
    return jnp.tanh(x[:, 0] * x[:, 1] + x[:, 2]) * jnp.where(x[:, 3] > 0, 1.0, 2.0) + 3.0


def linear(x):
    return x @ W + 10.0


importance = jax.jit(metrics.importance, static_argnums=2)


@functools.cache
def exact(score, player=None, **options):
    return jax.jit(functools.partial(metrics.shapley, score, player=player, **options))


def sampled(score, x, key, **options):
    return jax.jit(functools.partial(metrics.shapley, score, **options))(x, BACKGROUND, key=key)


def by_hand(score, x, background, player, weight=None):
    """The average over all orders of what each player adds, in float64 but for the score."""
    count = max(player) + 1
    found = np.zeros((len(x), count))
    for n, example in enumerate(x):
        worth = {}
        for coalition in itertools.product((False, True), repeat=count):
            rows = np.where(np.array(coalition)[list(player)], example, background)
            worth[coalition] = np.average(np.asarray(score(rows), np.float64), weights=weight)
        orders = list(itertools.permutations(range(count)))
        for order in orders:
            coalition = [False] * count
            for p in order:
                before = worth[tuple(coalition)]
                coalition[p] = True
                found[n, p] += (worth[tuple(coalition)] - before) / len(orders)
    return found


@pytest.mark.parametrize("player", [(0, 1, 2, 3), (0, 1, 0, 2), (1, 0, 0, 0)])
def test_all_coalitions_are_the_mean_over_all_orders(player):
    found = exact(rough, player)(X, BACKGROUND)
    np.testing.assert_allclose(found.values, by_hand(rough, X, BACKGROUND, player), atol=2e-6)
    assert not found.standard_error.any()


def test_of_a_linear_score_it_is_the_closed_form():
    found = exact(linear)(X, BACKGROUND)
    np.testing.assert_allclose(found.values, W * (X - BACKGROUND.mean(0)), atol=5e-6)  # sums of numbers near 10
    np.testing.assert_allclose(found.base, linear(BACKGROUND).mean(), rtol=1e-6)


def test_efficiency():
    found = exact(rough)(X, BACKGROUND)
    np.testing.assert_allclose(found.base + found.values.sum(1), rough(X), rtol=1e-6)


def test_symmetry():
    """Columns that a score treats alike get alike where their values are."""
    x, background = X.copy(), BACKGROUND.copy()
    x[:, 1], background[:, 1] = x[:, 0], background[:, 0]
    values = exact(rough)(x, background).values
    np.testing.assert_allclose(values[:, 0], values[:, 1], rtol=1e-5)
    assert np.abs(values[:, 0] - values[:, 2]).min() > 0.01


def test_what_is_not_read_gets_exactly_nothing():
    """Coalition by coalition, so that no rounding depends on a row's place; at once, to the last digits of 10."""
    assert (exact(linear, batch_size=1)(X, BACKGROUND).values[:, 2] == 0).all()
    assert (np.abs(exact(linear)(X, BACKGROUND).values[:, 2]) < 1e-5).all()
    found = sampled(linear, X, jax.random.key(0), pairs=2, batch_size=1)
    assert (found.values[:, 2] == 0).all()
    assert (found.standard_error[:, 2] == 0).all()


def test_linearity():
    both = exact(lambda x: 2 * rough(x) - linear(x))(X, BACKGROUND).values
    one, other = (exact(score)(X, BACKGROUND).values for score in (rough, linear))
    np.testing.assert_allclose(both, 2 * one - other, atol=1e-5)


@pytest.mark.slow
def test_several_scores_at_once_and_images_whose_players_are_patches():
    score = lambda x: jnp.stack([linear(x.reshape(-1, 4)), rough(x.reshape(-1, 4))], axis=1)
    images, background = X.reshape(-1, 2, 2, 1), BACKGROUND.reshape(-1, 2, 2, 1)
    player = np.array([0, 0, 1, 1]).reshape(2, 2, 1)
    found = metrics.shapley(score, images, background, player=player)
    assert found.values.shape == (3, 2, 2)
    for number, one in enumerate((linear, rough)):
        expected = exact(one, (0, 0, 1, 1))(X, BACKGROUND).values
        np.testing.assert_allclose(found.values[..., number], expected, atol=5e-6)


def test_weights_of_the_background():
    """A row of weight 2 is two rows; one of weight 0 may hold anything."""
    padded = np.concatenate([BACKGROUND, np.full((1, 4), np.nan, np.float32)])
    weight = np.array([1, 2, 1, 0.5, 1, 0], np.float32)
    found = exact(rough)(X, padded, weight=weight)
    np.testing.assert_allclose(found.values, by_hand(rough, X, BACKGROUND, range(4), weight[:-1]), atol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_size_of_a_batch_changes_nothing(batch_size):
    found = exact(rough, batch_size=batch_size)(X, BACKGROUND)
    np.testing.assert_allclose(found.values, exact(rough)(X, BACKGROUND).values, atol=1e-6)


def test_a_batch_is_no_larger_than_asked_for():
    """Or than one background."""
    seen = []

    def score(x):
        seen.append(x.shape[0])
        return x[:, 0]

    jaxpr = jax.make_jaxpr(functools.partial(metrics.shapley, score, batch_size=20))(X, BACKGROUND)
    largest = max(np.prod(v.aval.shape) for eqn in _equations(jaxpr.jaxpr) for v in eqn.outvars)
    assert largest <= 20 * 4
    assert set(seen) == {5}


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_a_pair_of_orders_is_exact_where_players_interact_by_twos():
    score = lambda x: x[:, 0] * x[:, 1] - x[:, 1] * x[:, 2] + 3 * x[:, 3] * x[:, 3]
    found = sampled(score, X, jax.random.key(1), pairs=1)
    np.testing.assert_allclose(found.values, by_hand(score, X, BACKGROUND, range(4)), atol=1e-5)
    assert np.isnan(found.standard_error).all()


def test_sampled_values_are_unbiased_efficient_and_know_their_error():
    """Three of four columns interact by threes; 40 draws of 8 pairs."""
    draw = jax.jit(jax.vmap(lambda key: metrics.shapley(rough, X, BACKGROUND, pairs=8, key=key)))
    found = draw(jax.random.split(jax.random.key(0), 40))
    truth = exact(rough)(X, BACKGROUND).values
    np.testing.assert_allclose(found.values.sum(2), jnp.broadcast_to(truth.sum(1), (40, 3)), atol=2e-6)
    spread = found.values.std(0, ddof=1)
    assert (spread > 1e-3).sum() >= 8
    assert (np.abs(found.values.mean(0) - truth) < 4 * spread / np.sqrt(40) + 1e-5).all()
    told = np.sqrt((found.standard_error**2).mean(0))
    moving = spread > 1e-3
    assert (np.abs(told / spread - 1)[moving] < 0.5).all()  # a deviation of 40 is known to 11 %


def test_examples_have_orders_of_their_own():
    twice = sampled(rough, X[[0, 0, 0]], jax.random.key(0), pairs=1).values
    assert not np.allclose(twice[0], twice[1], atol=1e-4)


def test_players_of_names():
    found = metrics.players(["age", "race=a", "sex=f", "race=b=c"])
    assert found.names == ("age", "race", "sex")
    assert found.player.tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.shapley(linear, X[0], BACKGROUND), r"x of shape \(4,\), background of shape \(5, 4\)"),
        (lambda: metrics.shapley(linear, X, BACKGROUND, player=[0, 1]), r"player of int64\[2\] for x of shape"),
        (lambda: metrics.shapley(linear, X, BACKGROUND, player=[0, 1, -1, 2]), "an integer from 0"),
        (lambda: metrics.shapley(linear, X, BACKGROUND, player=[0, 1, 1.5, 2]), "an integer from 0"),
        (lambda: metrics.shapley(linear, X, BACKGROUND, weight=[1, 2]), r"weight of shape \(2,\)"),
        (lambda: metrics.shapley(linear, np.ones((1, 17)), np.ones((1, 17))), r"17 players have 2\^17 coalitions"),
        (lambda: metrics.shapley(linear, X, BACKGROUND, pairs=3), "pairs=3 without a key"),
        (lambda: metrics.shapley(linear, X, BACKGROUND, pairs=0), "pairs must be a whole number from 1"),
        (lambda: metrics.leaning(X, [1, 0, 0, 0], k=0, key=jax.random.key(0)), "k must be a whole number from 1"),
        (lambda: metrics.leaning(X, [1, 0], key=jax.random.key(0)), r"sensitive of shape \(2,\)"),
        (lambda: metrics.leaning(X, W, weight=[1], key=jax.random.key(0)), r"weight of shape \(1,\)"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


# --- over examples -------------------------------------------------------------------------------------------------

VALUES = rng.normal(size=(40, 5)) * np.array([3.0, 2.0, 1.0, 0.1, 0.0])
GROUP = rng.integers(0, 3, 40)


def test_importance_is_the_mean_of_absolute_values_and_its_usual_error():
    """A common factor of the weights changes nothing; an empty group is nan."""
    for factor in (1, 3):
        found = importance(VALUES, GROUP, 4, weight=np.full(40, factor, np.float32))
        for g in range(3):
            mine = np.abs(VALUES[g == GROUP])
            np.testing.assert_allclose(found.mean[g], mine.mean(0), rtol=1e-5)
            np.testing.assert_allclose(found.standard_error[g], scipy.stats.sem(mine), rtol=1e-5, atol=1e-7)
        assert np.isnan(found.mean[3]).all()
        assert np.isnan(found.standard_error[3]).all()


def test_importance_with_weights():
    """Padding may hold anything, and of one person no spread is known."""
    weight, padded = rng.uniform(0.5, 2, 40).astype(np.float32), VALUES.copy()
    weight[:5], padded[:5] = 0, np.nan
    found = importance(padded, np.zeros(40, int), 4, weight=weight)
    mean = np.average(np.abs(VALUES[5:]), axis=0, weights=weight[5:])
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-5)
    share = weight[5:] / weight.sum()
    error = np.sqrt(np.sum((share[:, None] * (np.abs(VALUES[5:]) - mean)) ** 2, 0) * 35 / 34)
    np.testing.assert_allclose(found.standard_error[0], error, rtol=1e-5, atol=1e-7)
    alone = importance(VALUES, np.where(np.arange(40) == 7, 1, 0), 4, weight=np.ones(40, np.float32))
    np.testing.assert_allclose(alone.mean[1], np.abs(VALUES[7]), rtol=1e-6)
    assert np.isnan(alone.standard_error[1]).all()


def lean(values, sensitive, **options):
    return metrics.leaning(values, sensitive, **{"key": jax.random.key(0), "resamples": 200, **options})


def test_ranks_shares_and_the_rule():
    found = lean(VALUES, [False, False, True, False, True], k=3)
    expected = np.abs(VALUES).mean(0)
    np.testing.assert_allclose(found.importance, expected)
    np.testing.assert_allclose(found.share, expected / expected.sum())
    assert found.rank.tolist() == [1, 2, 3, 4, 5]
    assert found.sensitive == pytest.approx((expected[2] + expected[4]) / expected.sum())
    assert (found.k, found.leans, found.certainty) == (3, 1, 1)
    assert lean(VALUES, [False, False, True, False, True], k=2).leans == 0
    # What is worth nothing is among no k.
    assert lean(VALUES, [False, False, False, False, True], k=5).leans == 0
    assert lean(np.zeros((3, 2)), [True, False], k=2).leans == 0
    assert lean([[0.5, 1e-8]], [False, True], k=2).leans == 0
    assert lean([[0.5, 1e-5]], [False, True], k=2).leans == 1


def test_equals_have_the_same_rank():
    assert lean(np.array([[1.0, 2.0, -1.0, 0.0]]), [True] + [False] * 3, k=1).rank.tolist() == [2, 1, 2, 4]


def test_intervals_are_those_of_a_plain_bootstrap():
    found = lean(VALUES, [False, True, False, False, False], k=1, resamples=4000)
    drawn = np.abs(VALUES)[rng.integers(0, 40, (4000, 40))].mean(1)
    shares = drawn / drawn.sum(1, keepdims=True)
    # Quantiles of 4,000 draws are known to 3 % of the width.
    width = np.quantile(shares, 0.975, axis=0) - np.quantile(shares, 0.025, axis=0)
    for side, at in ((found.share_low, 0.025), (found.share_high, 0.975)):
        assert (np.abs(side - np.quantile(shares, at, axis=0)) <= 0.15 * width).all()
    assert (found.sensitive_low, found.sensitive_high) == pytest.approx((found.share_low[1], found.share_high[1]))
    first = np.mean(drawn.argmax(1) == 1)
    assert 1 - found.certainty == pytest.approx(first, abs=4 * np.sqrt(0.25 / 4000))
    assert found.rank_low[1] <= found.rank[1] <= found.rank_high[1]


def test_weights_of_people():
    weight, padded = np.ones(40), VALUES.copy()
    weight[:10], padded[:10] = 0, np.nan
    sensitive = [False, True, False, True, False]
    found, expected = lean(padded, sensitive, weight=weight), lean(VALUES[10:], sensitive)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert lean(VALUES, sensitive, weight=np.arange(40)).share[0] == pytest.approx(
        np.average(np.abs(VALUES), axis=0, weights=np.arange(40))[0]
        / np.average(np.abs(VALUES), axis=0, weights=np.arange(40)).sum()
    )


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0, 100.0])
def test_k_by_the_kurtosis(threshold):
    """Features leave from the end of the list, one by one, until the kurtosis has changed by more than that."""
    for values in (VALUES, rng.gamma(0.3, size=(1, 12)), rng.normal(size=(4, 9)), np.ones((2, 6))):
        ranked, k = np.sort(np.abs(values).mean(0))[::-1], values.shape[1]
        while k > 1 and np.ptp(ranked[:k]) > 0:
            change = scipy.stats.kurtosis(ranked[:k]) - scipy.stats.kurtosis(ranked)
            if abs(change) > threshold:
                break
            k -= 1
        else:
            k = values.shape[1]
        assert lean(values, np.ones(values.shape[1]), threshold=threshold).k == k


def test_of_nobody_nothing_is_known():
    found = lean(VALUES[:0], [True] + [False] * 4)
    assert all(np.isnan(field).all() for field in found)
