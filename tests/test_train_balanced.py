"""Balanced batches: places, weights, and that the weighted mean is unbiased."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import constraints, train

GROUP = np.repeat(np.arange(3), (30, 9, 5))[np.random.default_rng(0).permutation(44)]
PLAN = {"group": GROUP, "num_groups": 3, "batch_size": 8}


def orders(epochs, num_steps=6):
    draw = jax.jit(jax.vmap(lambda e: train.balanced_order(jax.random.key(0), e, num_steps=num_steps, **PLAN)))
    return np.asarray(draw(jnp.arange(epochs)))


def test_every_step_has_the_places_of_each_group_and_no_example_twice():
    places = train.balanced_places(**PLAN)
    assert places.tolist() == [3, 3, 2]
    for step in orders(50, num_steps=13).reshape(-1, 8):
        assert np.bincount(GROUP[step], minlength=3).tolist() == places.tolist()
        assert len(set(step.tolist())) == 8


def test_weights_sum_to_the_batch_whatever_was_drawn():
    weight = train.balanced_weights(**PLAN)
    np.testing.assert_allclose(weight[orders(20)].sum(-1), 8, rtol=1e-6)
    # A group counts with its share of the split.
    share = np.bincount(GROUP) / 44
    places = train.balanced_places(**PLAN)
    np.testing.assert_allclose([weight[g == GROUP][0] * places[g] / 8 for g in range(3)], share, rtol=1e-6)


def test_the_weighted_mean_is_unbiased_and_every_example_comes_as_often_as_its_group_allows():
    epochs, steps = 3000, 6
    drawn, weight = orders(epochs, steps), train.balanced_weights(**PLAN)
    counts = np.bincount(drawn.ravel(), minlength=44)
    expected = epochs * steps * train.balanced_places(**PLAN)[GROUP] / np.bincount(GROUP)[GROUP]
    # Draws without replacement vary less than binomial ones.
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    loss = np.random.default_rng(1).exponential(size=44) * (1 + GROUP)
    means = (weight[drawn] * loss[drawn]).sum(-1) / weight[drawn].sum(-1)
    error = means.std() / np.sqrt(means.size)
    assert abs(means.mean() - loss.mean()) < 5 * error
    # Unweighted, it would be far off: the test can see a bias.
    assert abs(loss[drawn].mean() - loss.mean()) > 20 * error


def test_over_a_whole_pass_of_every_group_the_mean_is_exact():
    """30 = 3 x 10, 9 = 3 x 3 and, with the places of 12 = 6 + 3 + 3, one step of each group's whole permutation."""
    group = np.repeat(np.arange(2), (12, 4))
    plan = {"group": group, "num_groups": 2, "batch_size": 8}
    order = np.asarray(train.balanced_order(jax.random.key(3), 0, num_steps=3, **plan))
    weight = train.balanced_weights(**plan)
    loss = np.random.default_rng(0).normal(size=16)
    # Group 0 in three steps of four, group 1 whole in every step: exhaustive for both.
    assert sorted(order[:, :4].ravel().tolist()) == list(range(12))
    assert all(sorted(step[4:].tolist()) == [12, 13, 14, 15] for step in order)
    np.testing.assert_allclose((weight[order] * loss[order]).sum() / 24, loss.mean(), rtol=1e-6)


def test_constraints_see_the_same_proxies_on_the_average():
    """The prevalence proxy of a group, through the library's own sums: fixed places make it the group's own mean."""
    weight, order = train.balanced_weights(**PLAN), orders(400)
    loss = np.random.default_rng(2).exponential(size=44).astype(np.float32)
    share = jnp.asarray(np.bincount(GROUP) / 44, jnp.float32)

    def proxy(index):
        batch = constraints.problem.Batch(None, None, jnp.asarray(GROUP)[index], index, jnp.asarray(weight)[index])
        return constraints.problem.group_losses(jnp.asarray(loss)[index], batch, share, "prevalence")[0]

    found = np.asarray(jax.vmap(proxy)(jnp.asarray(order.reshape(-1, 8))))
    truth = np.array([loss[g == GROUP].mean() for g in range(3)])
    error = found.std(0) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(0) - truth) < 5 * error + 1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_with_any_power_the_weighted_mean_is_unbiased(power):
    plan = PLAN | {"power": power}
    weight = train.balanced_weights(**plan)
    order = np.asarray(train.balanced_order(jax.random.key(0), 0, num_steps=4000, **plan))
    loss = np.random.default_rng(1).exponential(size=44) * (1 + GROUP)
    means = (weight[order] * loss[order]).sum(-1) / 8
    assert abs(means.mean() - loss.mean()) < 5 * means.std() / np.sqrt(len(means))
    places = train.balanced_places(**plan)
    assert places.sum() == 8
    # Places are the claims up to rounding: Webster's method moves no group by more than one seat here.
    claim = np.bincount(GROUP) ** power
    assert np.all(abs(places - 8 * claim / claim.sum()) < 1)


def test_places_end_at_the_people_of_a_group_and_never_leave_one_out():
    group = np.repeat(np.arange(3), (97, 2, 1))
    assert train.balanced_places(group, 3, 30).tolist() == [27, 2, 1]
    assert train.balanced_places(group, 3, 100).tolist() == [97, 2, 1]
    assert train.balanced_places(group, 3, 10, power=1.0).tolist() == [8, 1, 1]
    # With every place a person the weights are ones.
    np.testing.assert_allclose(train.balanced_weights(group, 3, 100), 1.0)


@pytest.mark.parametrize(
    ("group", "num_groups", "batch_size", "power", "match"),
    [
        (GROUP, 3, 2, 0.0, "a place for each of 3 groups"),
        (GROUP, 3, 45, 0.0, "there are 44 examples"),
        (GROUP, 4, 18, 0.0, "group 3 has no example"),
        (GROUP, 3, 18, -0.5, "power=-0.5"),
    ],
)
def test_what_cannot_be_balanced_is_refused(group, num_groups, batch_size, power, match):
    with pytest.raises(ValueError, match=match):
        train.balanced_weights(group, num_groups, batch_size, power=power)
