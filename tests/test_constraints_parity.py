"""Performance fairness, and the smooth gap it is trained by, against the numbers that were published and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxfair import constraints
from jaxfair.typing import Batch


def binary(f):
    """Two logits whose difference is f."""
    return jnp.stack([-f / 2, f / 2], axis=1)


def two_groups(right, sizes, key):
    """Margins of two groups with so many people, of whom so many are right; classes are drawn."""
    group = np.repeat([0, 1], sizes)
    won = np.concatenate([np.arange(n) < r for n, r in zip(sizes, right, strict=True)])
    keys = jax.random.split(jax.random.key(key), 2)
    y = np.asarray(jax.random.bernoulli(keys[0], 0.3, group.shape), np.int32)
    size = np.asarray(jax.random.uniform(keys[1], group.shape, minval=0.1, maxval=3.0))
    f = np.where(won, 1, -1) * (2 * y - 1) * size
    index = np.arange(len(group))
    batch = Batch(None, jnp.asarray(y), jnp.asarray(group), index, jnp.ones(len(group)))
    return jnp.asarray(f, jnp.float32), batch


def group_gap(logits, batch, u="sigmoid", steepness=1.0):
    """The smooth gap of the library: A_0 - A_1 by means over the groups."""
    error = constraints.soft_error(u, steepness=steepness)(logits, batch)
    prevalence = jnp.bincount(batch.group, length=2) / len(batch.group)
    mean, _ = constraints.group_losses(error, batch, prevalence, "prevalence")
    return mean[1] - mean[0]


def one_mean(f, batch, u, signed=True):
    """The same as Wu et al. write it: one mean over everybody; and as BiFP prints it, without the sign of s."""
    s, y = 1 - 2 * batch.group, 2 * batch.y - 1
    share = jnp.bincount(batch.group, length=2)[batch.group] / len(batch.group)
    return jnp.mean(u((s if signed else 1) * y * f) / share) - 1


def indicator(t):
    return (t > 0).astype(jnp.float32)


def test_the_corrected_surrogate_is_the_gap_and_the_printed_one_is_not():
    """20,000 points: the gap is 0.132, the corrected form says so, and the printed form says 0.374."""
    f, batch = two_groups((7534, 6210), (10_000, 10_000), key=0)
    right = np.asarray((f > 0) == (batch.y == 1))
    truth = right[:10_000].mean() - right[10_000:].mean()
    assert_allclose(truth, 0.1324, atol=1e-9)
    assert_allclose(one_mean(f, batch, indicator), truth, atol=1e-5)  # a sum of 20,000 in float32
    assert_allclose(one_mean(f, batch, indicator, signed=False), 0.3744, atol=1e-5)
    assert_allclose(group_gap(binary(f), batch, steepness=1000.0), truth, atol=1e-5)


@pytest.mark.parametrize("sizes", [(500, 500), (900, 100)])
def test_for_a_sigmoid_the_one_mean_and_the_two_are_the_same_number(sizes):
    f, batch = two_groups((sizes[0] // 2, sizes[1] // 3), sizes, key=1)
    assert_allclose(
        group_gap(binary(f), batch, steepness=2.0), one_mean(f, batch, lambda t: jax.nn.sigmoid(2 * t)), atol=1e-5
    )


@pytest.mark.parametrize("u", ["sigmoid", "hinge", "linear"])
def test_its_gradient_is_that_of_finite_differences(u):
    with jax.enable_x64(True):
        _, batch = two_groups((5, 2), (8, 4), key=2)
        logits = jax.random.normal(jax.random.key(3), (12, 3), jnp.float64)

        def gap(logits):
            return group_gap(logits, batch, u)

        away = jax.random.normal(jax.random.key(4), logits.shape, jnp.float64)
        step = 1e-2  # the loss is float32: a difference of two gaps has six digits
        measured = (gap(logits + step * away) - gap(logits - step * away)) / (2 * step)
        assert_allclose(jnp.sum(jax.grad(gap)(logits) * away), measured, rtol=2e-3)


def test_of_many_classes_the_margin_is_to_the_best_other():
    batch = Batch(None, jnp.array([2, 0]), None, None, None)
    logits = jnp.array([[0.0, 1.5, 1.0], [4.0, 1.0, 3.5]])
    assert_allclose(constraints.soft_error("linear")(logits, batch), [1.5, 0.5])
    assert_allclose(constraints.soft_error()(logits, batch), jax.nn.sigmoid(jnp.array([0.5, -0.5])), rtol=1e-6)


def evaluated(problem, right=(True, True, False, False), group=(0, 0, 0, 1)):
    x = jnp.where(jnp.array(right)[:, None], jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 2.0]]))
    batch = Batch(x, jnp.zeros(4, jnp.int32), jnp.array(group), jnp.arange(4), jnp.ones(4))
    return problem.evaluate(jnp.ones(()), problem.init({}, None, batch), batch, None)


def apply(params, state, x, *, train, key=None):
    return x * params, state


def test_parity_is_the_gap_to_everybody_or_to_the_others():
    """Two of three right, none of one: everybody's accuracy is 1/2."""
    for against, expected in (("everybody", [-1 / 6, 1 / 2]), ("others", [-2 / 3, 2 / 3])):
        problem = constraints.accuracy_parity(apply, num_groups=2, tolerance=0.1, margin=1.0, against=against)
        assert_allclose(evaluated(problem).strict, np.array(expected) - 0.1, rtol=1e-5)


def test_both_sides_bound_the_favoured_group_too():
    problem = constraints.two_sided(constraints.accuracy_parity(apply, num_groups=2, tolerance=0.1, margin=1.0))
    assert_allclose(evaluated(problem).strict, np.array([-1 / 6, 1 / 2, 1 / 6, -1 / 2]) - 0.1, rtol=1e-5)


PROXIES = [("everybody", "batch"), ("everybody", "prevalence"), ("others", "prevalence")]


@pytest.mark.parametrize(("against", "proxy"), PROXIES)
def test_a_steep_surrogate_is_the_constraint_itself(against, proxy):
    """Proxy and truth are then one number, on a batch that is the split."""
    problem = constraints.accuracy_parity(
        apply, num_groups=2, tolerance=0.1, proxy=proxy, against=against, memory=constraints.minibatch(2),
        proxy_loss=constraints.soft_error(steepness=50.0),
    )  # fmt: skip
    found = evaluated(problem)
    assert_allclose(found.proxy, found.strict, atol=1e-5)


def test_without_a_gap_nothing_is_violated():
    problem = constraints.accuracy_parity(apply, num_groups=2, tolerance=0.1)
    assert np.all(np.asarray(evaluated(problem, (False,) * 4).strict) < 0)


@pytest.mark.parametrize("power", [1, 1.5, 2, 3])
def test_the_weight_of_a_penalty_is_the_derivative_of_its_value(power):
    rule = constraints.power_penalty(2.0, power=power)
    penalties = rule.init(3)
    v = jnp.array([0.7, -0.4, 1.3])

    def total(v):
        return jnp.sum(rule.value(jnp.zeros(3), v, penalties, jax.nn.relu))

    assert_allclose(rule.weights(jnp.zeros(3), v, penalties, jax.nn.relu), jax.grad(total)(v), rtol=1e-6)
    free = rule.weights(jnp.zeros(3), v, penalties, lambda v: v)
    assert_allclose(free, 2.0 * np.sign(v) * np.abs(v) ** (power - 1), rtol=1e-6)


def test_what_cannot_be_is_one_line():
    with pytest.raises(ValueError, match=r"power=0\.5: a penalty has a power of at least 1"):
        constraints.power_penalty(1.0, power=0.5)
    with pytest.raises(ValueError, match="against='all'"):
        constraints.accuracy_parity(apply, num_groups=2, tolerance=0.1, against="all")
    with pytest.raises(ValueError, match="against='others' goes with proxy='prevalence' only"):
        constraints.accuracy_parity(apply, num_groups=2, tolerance=0.1, against="others", proxy="batch")
    with pytest.raises(ValueError, match="u='relu'"):
        constraints.soft_error("relu")
    with pytest.raises(ValueError, match=r"steepness=0\.0: give a number above 0"):
        constraints.soft_error(steepness=0.0)
    with pytest.raises(ValueError, match="tolerance"):
        constraints.accuracy_parity(apply, num_groups=2, tolerance=2.0)
