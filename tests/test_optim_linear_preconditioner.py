"""The metric of a bound on the curvature: it is a bound, and descent in it does not see how features are measured."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import optim

NUM, FEATURES, CLASSES = 40, 3, 3


@pytest.fixture
def task():
    rng = np.random.default_rng(0)
    return rng.normal(size=(NUM, FEATURES)), rng.integers(CLASSES, size=NUM)


def loss(params, x, y, decay=0.0):
    layer = params["Dense_0"]
    logits = x @ layer["kernel"] + layer["bias"][None]
    penalty = 0.5 * decay * jnp.sum(layer["kernel"] ** 2)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean() + penalty


def zeros():
    return {"Dense_0": {"kernel": jnp.zeros((FEATURES, CLASSES)), "bias": jnp.zeros(CLASSES)}}


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_bounds_the_hessian_at_any_weights(task, decay):
    x, y = task
    bound = np.linalg.inv(optim.linear_curvature(x, weight_decay=decay).astype(float))
    for scale in (0.0, 1.0, 5.0):
        flat = scale * np.random.default_rng(1).normal(size=(FEATURES + 1, CLASSES))

        def of(flat):
            layer = {"kernel": flat[:-1], "bias": flat[-1]}
            return loss({"Dense_0": layer}, jnp.asarray(x, jnp.float32), jnp.asarray(y), decay)

        size = flat.size
        hessian = np.asarray(jax.jit(jax.hessian(of))(jnp.asarray(flat, jnp.float32)))
        slack = np.kron(bound, np.eye(CLASSES)) - hessian.reshape(size, size)
        assert np.linalg.eigvalsh(slack).min() > -1e-5  # float32


def test_descent_does_not_see_how_features_are_measured(task):
    """Rotated, stretched a hundredfold and shifted: the same losses at each step."""
    x, y = task
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(FEATURES, FEATURES)))
    other = x @ rotation @ np.diag([0.1, 1.0, 10.0]) + 0.2
    losses = []
    for features in (x, other):
        tx = optax.chain(optim.linear_preconditioner(optim.linear_curvature(features)), optax.sgd(1.0))
        shown = jnp.asarray(features, jnp.float32)

        def step(carry, _, tx=tx, shown=shown):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, shown, jnp.asarray(y))
            updates, state = tx.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        _, found = jax.lax.scan(step, (zeros(), tx.init(zeros())), length=10)
        losses.append(found)
    assert (np.diff(losses[0]) < 0).all()
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)  # float32, features up to 30


def test_what_it_cannot_take_is_refused(task):
    x, _ = task
    with pytest.raises(ValueError, match=r"features of shape \(40,\): give \[N, D\]"):
        optim.linear_curvature(x[:, 0])
    with pytest.raises(ValueError, match="give a number above 0"):
        optim.linear_curvature(np.zeros((4, 2)))
    tx = optim.linear_preconditioner(np.eye(FEATURES + 1))
    for params in (zeros() | {"Dense_1": {}}, {"kernel": jnp.zeros((FEATURES, 1))}):
        with pytest.raises(ValueError, match="give the parameters of one linear layer"):
            tx.update(params, tx.init(params))


@pytest.mark.parametrize("people", [100, 997])
def test_a_bound_that_is_singular_but_for_rounding_is_refused(people):
    """Of two attributes as indicators of each of their values, which both add up to 1."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.eye(3)[rng.integers(3, size=people)], np.eye(5)[rng.integers(5, size=people)]], axis=1)
    with pytest.raises(ValueError, match="some features are sums of others"):
        optim.linear_curvature(x)
