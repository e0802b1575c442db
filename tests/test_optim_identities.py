"""The identities between one-gradient methods: exact from the first step, on gradients that are just numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import optim

# Stored, not seeded: three coordinates over twelve steps, of very different sizes.
GRADIENTS = np.array([
    [1.3, -0.02, 400.0], [-0.7, 0.05, -90.0], [0.0, 0.01, 1000.0], [2.9, -0.03, 2.0],
    [2.8, -0.04, -750.0], [-5.1, 0.06, 310.0], [0.4, 0.0, 5.0], [-1.1, 0.07, -66.0],
    [3.3, -0.09, 820.0], [0.2, 0.08, -410.0], [-2.6, 0.02, 33.0], [1.7, -0.06, 12.0],
])  # fmt: skip
ETA = 0.37


def updates(tx):
    """-> ``[12, 3]`` float64: the update at each step."""
    grads = jnp.asarray(GRADIENTS, jnp.float64)
    step = lambda state, g: tx.update(g, state, g)[::-1]
    return lax.scan(step, tx.init(grads[0]), grads)[1]


def assert_identical(*txs):
    first, *others = jax.jit(lambda: tuple(map(updates, txs)))()
    assert first.dtype == jnp.float64
    assert np.isfinite(first).all()
    for other in others:  # a handful of roundings of the largest gradient
        np.testing.assert_allclose(other, first, rtol=1e-12, atol=1e-11)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def omegam_as_omega(optimism, decay):
    return (1 - decay) * (1 + optimism) - 1


def test_1_no_optimism_is_sgd():
    assert_identical(optax.sgd(ETA), *(optim.omega(ETA, 0.0, b) for b in (0.0, 0.5, 0.9)))


@pytest.mark.parametrize("o", [-0.8, 0.5, 1.0, 10.0])
def test_2_no_decay_is_the_optimistic_gradient(o):
    assert_identical(
        optim.omega(ETA, o, 0.0),
        optim.optimistic_gradient(ETA, o),
        optax.optimistic_gradient_descent(ETA, alpha=1.0, beta=o),
        optim.past_extragradient(ETA, o * ETA),
        optim.nupi(ETA, o),
    )


@pytest.mark.parametrize(("o", "b"), [(1.0, 0.9), (20.0, 0.9), (0.0, 0.5), (-0.3, 0.99)])
def test_3_omegam_is_omega(o, b):
    assert_identical(optim.omegam(ETA, o, b), optim.omega(ETA, omegam_as_omega(o, b), b))


def test_3_the_default_of_omegam_is_negative_optimism():
    assert_identical(optim.omegam(ETA), optim.omega(ETA, -0.8, 0.9))


def dampened_momentum(rate, decay):
    """Torch's SGD with ``momentum = dampening = decay``, whose first buffer is the gradient itself."""

    def update(g, state, params=None):
        started, buffer = state
        buffer = jnp.where(started, decay * buffer + (1 - decay) * g, g)
        return -rate * buffer, (jnp.array(True), buffer)

    init = lambda params: (jnp.array(False), jnp.zeros_like(params))
    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("b", [0.5, 0.9])
def test_4_omegam_without_optimism_is_dampened_momentum(b):
    assert_identical(optim.omegam(ETA, 0.0, b), optim.omega(ETA, -b, b), dampened_momentum(ETA, b))


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9])
def test_5_omegam_can_be_sgd(b):
    assert_identical(optim.omegam(ETA, b / (1 - b), b), optax.sgd(ETA))


def two_term_recursion(rate, optimism, decay):
    """``w' - w = b (w - w_old) - eta [(1 + o) g - (o + b) g_old]``, started by an SGD step."""

    def update(g, state, params=None):
        started, last, old = state
        new = decay * last - rate * ((1 + optimism) * g - (optimism + decay) * old)
        new = jnp.where(started, new, -rate * g)
        return new, (jnp.array(True), new, g)

    init = lambda p: (jnp.array(False), jnp.zeros_like(p), jnp.zeros_like(p))
    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize(("o", "b"), [(1.0, 0.9), (-0.8, 0.9), (0.7, 0.3)])
def test_6_omega_is_a_filter_of_two_terms(o, b):
    assert_identical(optim.omega(ETA, o, b), two_term_recursion(ETA, o, b))


@pytest.mark.parametrize(("o", "b"), [(1.0, 0.9), (0.3, 0.5), (2.0, 0.0)])
def test_7_nupi_is_omega(o, b):
    assert_identical(optim.nupi(ETA, o / (1 - b), decay=b), optim.omega(ETA, o, b))


def test_7_nupi_as_polyak_momentum():
    """Momentum as it runs when it starts in its stationary state: first step ``eta K_I g_0``."""
    a, b = 0.8, 0.6
    k_i, k_p = a / (1 - b), -a * b / (1 - b) ** 2

    def update(g, state, params=None):
        started, last = state
        new = b * last - ETA * a * g
        new = jnp.where(started, new, -ETA * k_i * g)
        return new, (jnp.array(True), new)

    init = lambda p: (jnp.array(False), jnp.zeros_like(p))
    assert_identical(optim.nupi(ETA, k_p, k_i, b), optax.GradientTransformation(init, update))


def test_8_the_predictor_of_optimistic_mirror_descent():
    """``g_t + M_{t+1} - M_t`` with an average M of weight rho is nuPI(1, 1, 1 - rho)."""
    rho = 0.1

    def update(g, state, params=None):
        started, old = state
        old = jnp.where(started, old, g)
        new = (1 - rho) * old + rho * g
        return -ETA * (g + new - old), (jnp.array(True), new)

    init = lambda p: (jnp.array(False), jnp.zeros_like(p))
    tx = optax.GradientTransformation(init, update)
    assert_identical(optim.nupi(ETA, 1.0, 1.0, 1 - rho), tx, optim.omega(ETA, rho, 1 - rho))


def test_optimistic_adam_is_that_of_optax():
    """Which has the optimism as a fixed number, and Nesterov momentum by default."""
    assert_identical(
        optim.optimistic_adam(ETA, 0.6),
        optax.optimistic_adam_v2(ETA, alpha=1.0, beta=0.6, nesterov=False),
    )


def test_rates_per_player_and_schedules_of_optimism():
    """A prefix tree is one optimizer per player; a schedule is another number at each step."""
    rate, optimism = {"x": 0.1, "y": lambda t: 0.5 / (t + 1)}, {"x": lambda t: 1.0 * t, "y": 2.0}
    joint = optim.optimistic_gradient(rate, optimism)
    grads = jnp.asarray(GRADIENTS)
    tree = {"x": grads, "y": [grads, 2 * grads]}

    def play(tx, tree):
        first = jax.tree.map(lambda g: g[0], tree)
        return lax.scan(lambda s, g: tx.update(g, s)[::-1], tx.init(first), tree)[1]

    together, x, y = jax.jit(
        lambda: (
            play(joint, tree),
            play(optim.optimistic_gradient(rate["x"], optimism["x"]), tree["x"]),
            play(optim.optimistic_gradient(rate["y"], optimism["y"]), tree["y"]),
        )
    )()
    np.testing.assert_allclose(together["x"], x, rtol=1e-13)
    np.testing.assert_allclose(together["y"], y, rtol=1e-13)
    t = np.arange(1, 12)[:, None]
    expected = -0.1 * (GRADIENTS[1:] + t * np.diff(GRADIENTS, axis=0))
    np.testing.assert_allclose(x[1:], expected, rtol=1e-12, atol=1e-12)


def test_popov_with_two_schedules_equals_its_own_base_points():
    """The update, rewritten with the base points z that the state does not store."""
    eta, gamma = (lambda t: 0.3 / (t + 1)), (lambda t: 0.9 / jnp.sqrt(t + 1.0))
    ours = updates(optim.past_extragradient(eta, gamma))
    h, path = np.zeros(3), []
    z = h + float(gamma(1)) * GRADIENTS[0]
    for t, g in enumerate(GRADIENTS):
        z = z - float(eta(t)) * g
        new = z - float(gamma(t + 1)) * g
        path.append(new - h)
        h = new
    np.testing.assert_allclose(ours, path, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize(("o", "b", "gain"), [(1.0, 0.0, 5.0), (10.0, 0.0, 221.0), (1.0, 0.9, 4.0526)])
def test_gain_of_white_noise(o, b, gain):
    """The sum of squares of the impulse response, ``(1 + o)^2 + o^2 (1 - b) / (1 + b)``."""
    impulse = jnp.zeros(600).at[1].set(1.0)
    tx = optim.scale_by_omega(o, b)
    response = lax.scan(lambda s, g: tx.update(g, s)[::-1], tx.init(impulse[0]), impulse)[1]
    np.testing.assert_allclose(jnp.sum(response**2), gain, rtol=1e-5)
    np.testing.assert_allclose(gain, (1 + o) ** 2 + o**2 * (1 - b) / (1 + b), rtol=1e-5)
    np.testing.assert_allclose(response.sum(), 1.0, rtol=1e-9)  # the gain at frequency zero


def test_a_not_a_number_in_the_old_state_does_not_reach_the_first_step():
    tx = optim.omega(ETA)
    state = optax.tree.set(tx.init(jnp.zeros(3)), ema=jnp.full(3, jnp.nan))
    update, state = tx.update(jnp.ones(3), state)
    np.testing.assert_allclose(update, -ETA)
    assert np.isfinite(optax.tree.get(state, "ema")).all()


def test_numbers_out_of_range_are_refused_where_they_are_plain_numbers():
    for make in (optim.omega, optim.omegam):
        with pytest.raises(ValueError, match=r"decay must be in \[0.0, 1.0\)"):
            make(0.1, decay=1.0)
    with pytest.raises(ValueError, match="period must be"):
        optim.lookahead(optax.sgd(0.1), period=0)
    jax.eval_shape(lambda b: optim.omega(0.1, decay=b).init(jnp.zeros(2)), 2.0)  # not when traced
