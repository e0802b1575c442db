"""Rates on deterministic games: the spectral radius of a method's own linear operator, and what a run measures.

The game is ``F(x, y) = (mu x + s y, -s x + mu y)``, whose eigenvalues are ``mu +- i s``; mu = 0 is bilinear.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxfair import optim

START = {"x": np.float64(1.0), "y": np.float64(0.3)}
PERIODS, WINDOW = 500, 120


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def stepper(tx, mu, s):
    """One step of the method on the game, ``(params, state) -> (params, state)``."""
    field = lambda w: {"x": mu * w["x"] + s * w["y"], "y": mu * w["y"] - s * w["x"]}

    def step(carry):
        params, state = carry
        g = field(params)
        updates, state = tx.update(g, state, params, operator_fn=field, independent_operator_fn=field, field=g)
        return optax.apply_updates(params, updates), state

    return step


def is_real(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def linear_operator(tx, mu, s, period):
    """``[n, n]``: one period of steps as a matrix on (parameters, what the state remembers)."""
    step = stepper(tx, mu, s)
    rounds = lambda carry: lax.scan(lambda c, _: (step(c), None), carry, None, period)[0]
    params = jax.tree.map(jnp.asarray, START)
    leaves, treedef = jax.tree.flatten(rounds((params, tx.init(params))))  # past the first step
    flat, unravel = ravel_pytree([leaf for leaf in leaves if is_real(leaf)])

    def apply(vector):
        reals = iter(unravel(vector))
        carry = treedef.unflatten([next(reals) if is_real(leaf) else leaf for leaf in leaves])
        return ravel_pytree([leaf for leaf in jax.tree.leaves(rounds(carry)) if is_real(leaf)])[0]

    return jax.vmap(apply, out_axes=1)(jnp.eye(flat.size))


def trajectory(tx, mu, s, period):
    """``[PERIODS, 2]``: the parameters after each period, divided by the growth of their norm so far."""
    step = stepper(tx, mu, s)
    params = jax.tree.map(jnp.asarray, START)

    def round_(carry, _):
        carry = lax.fori_loop(0, period, lambda _, c: step(c), carry)
        return carry, jnp.stack([carry[0]["x"], carry[0]["y"]])

    return lax.scan(round_, (params, tx.init(params)), None, PERIODS)[1]


@functools.cache
def program(make, period=1):
    """make(*numbers) -> tx. -> a function of ``[E]`` numbers, mu and s: matrices and trajectories."""

    def one(mu, s, *numbers):
        tx = make(*numbers)
        return linear_operator(tx, mu, s, period), trajectory(tx, mu, s, period)

    return jax.jit(jax.vmap(one))


def spectra(make, rows, mu=0.0, s=1.0, period=1):
    """-> ``[E]`` spectral radii per step, ``[E]`` measured rates per step; rows: ``[E, numbers]``."""
    columns = np.atleast_2d(np.asarray(rows, np.float64).T)
    full = lambda value: np.broadcast_to(np.float64(value), columns.shape[1:])
    matrices, paths = program(make, period)(full(mu), full(s), *columns)
    radii = np.abs(np.linalg.eigvals(matrices)).max(-1)
    measured = np.array([measure(path) for path in np.asarray(paths)])
    return radii ** (1 / period), measured ** (1 / period)


def measure(path):
    """The rate of a trajectory ``[T, 2]`` alone: the dominant root of the recursion that its tail satisfies."""
    tail = path[-WINDOW:]
    norms = np.linalg.norm(tail, axis=1)
    rough = (norms[-20:].max() / norms[:20].max()) ** (1 / (WINDOW - 20))
    tail = tail / norms[0] * rough ** -np.arange(WINDOW)[:, None]  # about constant in size now
    order = 4  # both coordinates satisfy one recursion, the characteristic polynomial of the method
    past = np.concatenate([np.stack([tail[i : WINDOW - order + i, c] for i in range(order)], 1) for c in (0, 1)])
    future = np.concatenate([tail[order:, c] for c in (0, 1)])
    coefficients = np.linalg.lstsq(past, future, rcond=1e-11)[0]
    return rough * np.abs(np.roots([1, *-coefficients[::-1]])).max()


def sgd(eta):
    return optax.with_extra_args_support(optax.sgd(eta))


def hamiltonian(eta):
    return optim.hamiltonian(eta)


def lookahead(eta):
    return optim.lookahead(optax.sgd(eta), period=5, slow_rate=0.5)


def competitive_gradient(eta):
    return optim.competitive_gradient(eta, tolerance=1e-14)


def lead_with_momentum(eta):
    return optim.lead(eta, 1.0, 0.3)


# name -> (make, period, the rate in closed form as a function of Q = eta s; None: no closed form here)
METHODS = {
    "gda": (sgd, 1, lambda q: np.sqrt(1 + q**2)),
    "omega": (optim.omega, 1, None),
    "omegam": (optim.omegam, 1, None),
    "nupi": (optim.nupi, 1, lambda q: np.sqrt((1 + np.sqrt(1 - 4 * q**2)) / 2)),
    "optimistic_gradient": (
        optim.optimistic_gradient, 1, lambda q: np.sqrt((1 + np.sqrt(1 - 4 * q**2)) / 2),
    ),
    "past_extragradient": (
        lambda eta: optim.past_extragradient(eta, eta), 1,
        lambda q: np.sqrt((1 + np.sqrt(1 - 4 * q**2)) / 2),
    ),
    "lead": (optim.lead, 1, lambda q: np.sqrt((1 + np.sqrt(1 - 4 * q**2)) / 2)),
    "lead with momentum": (lead_with_momentum, 1, None),
    "extragradient": (optim.extragradient, 1, lambda q: np.sqrt(1 - q**2 + q**4)),
    "two rates": (
        lambda eta: optim.extragradient(eta, 0.7), 1, lambda q: abs(1 - 1j * q - 0.7 * q),
    ),
    "competitive_gradient": (competitive_gradient, 1, lambda q: 1 / np.sqrt(1 + q**2)),
    "consensus": (optim.consensus, 1, lambda q: abs(1 - q * (1j + 1))),
    "symplectic_adjustment": (optim.symplectic_adjustment, 1, lambda q: abs(1 - q * (1j + 1))),
    "hamiltonian": (hamiltonian, 1, lambda q: 1 - q),
    "lookahead": (lookahead, 5, lambda q: abs(0.5 + 0.5 * (1 - 1j * q) ** 5) ** (1 / 5)),
}  # fmt: skip
ETAS = [0.01, 0.1, 0.3, 0.45]


@pytest.mark.parametrize("name", METHODS)
def test_measured_rate_is_the_spectral_radius(name):
    make, period, closed_form = METHODS[name]
    radii, measured = spectra(make, ETAS, period=period)
    np.testing.assert_allclose(measured, radii, rtol=1e-6)
    if closed_form:
        np.testing.assert_allclose(radii, [closed_form(q) for q in ETAS], rtol=1e-9)


# eta: GDA, OG, Omega(1, .9), Omega(1, .5), OmegaM(1, .9), OmegaM(20, .9), at s = 1
TABLE = {
    0.01: (1.00005000, 0.99994999, 0.99903984, 0.99984993, 1.00081831, 0.99893768),
    0.02: (1.00019998, 0.99979990, 0.99602658, 0.99939886, 1.00296983, 0.99558845),
    0.05: (1.00124922, 0.99874607, 0.95131490, 0.99620453, 1.01253736, 0.95777148),
    0.10: (1.00498756, 0.99493615, 0.96815314, 0.98422212, 1.02883555, 0.96763637),
}


def test_table_of_rates_on_the_bilinear_game():
    etas = np.array(list(TABLE))
    rows = lambda o, b: np.stack([etas, np.full(4, o), np.full(4, b)], 1)
    columns = [
        spectra(sgd, etas),
        spectra(optim.optimistic_gradient, etas),
        spectra(optim.omega, rows(1.0, 0.9)),
        spectra(optim.omega, rows(1.0, 0.5)),
        spectra(optim.omegam, rows(1.0, 0.9)),
        spectra(optim.omegam, rows(20.0, 0.9)),
    ]
    table = np.array(list(TABLE.values()))
    radii = np.stack([radius for radius, _ in columns], 1)
    # At eta = 0.05 Omega(1, .9) has a double root, which an eigenvalue solver finds to half the digits.
    tolerance = np.full(table.shape, 6e-9)
    tolerance[2, 2] = 1e-7
    assert (np.abs(radii - table) < tolerance).all()
    measured = np.stack([rate for _, rate in columns], 1)
    close = np.abs(measured / radii - 1) < 1e-6
    assert close[tolerance < 1e-8].all()
    assert abs(measured[2, 2] / radii[2, 2] - 1) < 1e-3


@pytest.mark.parametrize(
    ("name", "tenth", "half"),
    [
        ("extragradient", 0.99503769, 0.90138782),
        ("optimistic_gradient", 0.99493615, 0.70710678),
        ("competitive_gradient", 0.99503719, 0.89442719),
        ("consensus", 0.90553851, 0.70710678),
        ("symplectic_adjustment", 0.90553851, 0.70710678),
        ("hamiltonian", 0.9, 0.5),
        ("lookahead", 0.99623717, None),
    ],
)
def test_other_values_of_the_table(name, tenth, half):
    make, period, _ = METHODS[name]
    radii, _ = spectra(make, [0.1, 0.5, 0.1, 0.5], period=period)
    assert abs(radii[0] - tenth) < 6e-9
    if half is not None:  # where it is half, OG has a double root
        assert abs(radii[1] - half) < (1e-7 if name == "optimistic_gradient" else 6e-9)


def radii_of_omega(rows, **game):
    return spectra(optim.omega, rows, **game)[0]


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9, 0.99])
def test_threshold_of_optimism_from_both_sides(b):
    """On a bilinear game Omega converges if and only if o > (1 - b) / 2 (and the step is small enough)."""
    o, eta = (1 - b) / 2, 0.1 * (1 - b)
    below, above = radii_of_omega([(eta, 0.8 * o, b), (eta, 1.2 * o, b)])
    assert below > 1 > above


@pytest.mark.parametrize(("o", "b"), [(1.0, 0.0), (1.0, 0.5), (1.0, 0.9), (1.0, 0.99), (10.0, 0.0), (0.7, 0.3)])
def test_largest_step_from_both_sides(o, b):
    x = (1 + 2 * o * b + b**2) / (2 * (o + b))
    square = (2 - 2 * x) * (1 + b**2 - 2 * b * x)
    square /= (1 + o) ** 2 + (o + b) ** 2 - 2 * (1 + o) * (o + b) * x
    largest = np.sqrt(square)
    if o == 1.0:
        np.testing.assert_allclose(largest, np.sqrt((1 - b) / (3 + b)))
    if b == 0.0:
        np.testing.assert_allclose(square, (2 * o - 1) / (o**2 * (2 * o + 1)))
    inside, outside = radii_of_omega([(0.999 * largest, o, b), (1.001 * largest, o, b)])
    assert inside < 1 < outside


def test_omegam_diverges_by_default_and_converges_with_enough_optimism():
    """It converges on a bilinear game if and only if o > 1 / (1 - b) - 1 / 2, which is 9.5 for b = 0.9."""
    rows = [(0.01, 1.0, 0.9), (0.01, 9.3, 0.9), (0.01, 9.7, 0.9), (0.01, 20.0, 0.9)]
    default, below, above, far = spectra(optim.omegam, rows)[0]
    assert default > 1
    assert below > 1 > above > far
    assert (spectra(optim.omegam, [(eta, 1.0, 0.9) for eta in (1e-3, 1e-2, 1e-1, 1.0)])[0] > 1).all()


@pytest.mark.parametrize("b", [0.5, 0.9])
def test_closed_forms_for_unit_optimism(b):
    small, large = (1 - b) / 4, 0.9 * np.sqrt((1 - b) / (3 + b))
    best = (1 - b) / 2
    radii = radii_of_omega([(q, 1.0, b) for q in (small, best, large)])
    squares = [
        ((1 + b**2) + (1 + b) * np.sqrt((1 - b) ** 2 - 4 * small**2)) / 2,
        np.sqrt(b**2 + (1 - b**2) ** 2 / 4),
        ((1 + b) ** 2 + (2 * large + np.sqrt(4 * large**2 - (1 - b) ** 2)) ** 2) / 4,
    ]
    # The second is a double root.
    assert (np.abs(radii - np.sqrt(squares)) < [1e-10, 1e-7, 1e-10]).all()


def test_small_steps_see_the_effective_optimism():
    """rho = 1 - Q^2 (o / (1 - b) - 1/2) + O(Q^3)."""
    q = 1e-4
    for o, b in [(1.0, 0.9), (1.0, 0.0), (2.0, 0.5), (0.1, 0.9)]:
        (radius,) = radii_of_omega([(q, o, b)])
        np.testing.assert_allclose((1 - radius) / q**2, o / (1 - b) - 0.5, rtol=1e-3)


@pytest.mark.parametrize(("o", "b"), [(1.0, 0.9), (1.0, 0.0), (0.0, 0.0), (-0.8, 0.9)])
def test_largest_step_of_a_minimisation(o, b):
    largest = 2 * (1 + b) / (1 + 2 * o + b)
    if o + b > 0:
        largest = min(largest, (1 + b) / (o + b)) if o > -b else largest
    if (o, b) == (1.0, 0.9):
        assert abs(largest - 0.97436) < 1e-5
    inside, outside = radii_of_omega([(0.999 * largest, o, b), (1.001 * largest, o, b)], mu=1.0, s=0.0)
    assert inside < 1 < outside


def test_values_on_a_strongly_monotone_game():
    game = {"mu": 0.1, "s": 1.0}
    (gda,), _ = spectra(sgd, [0.1], **game)
    (og, omega), (omegam,) = (
        radii_of_omega([(0.1, 1.0, 0.0), (0.1, 1.0, 0.9)], **game),
        spectra(optim.omegam, [(0.1, 1.0, 0.9)], **game)[0],
    )
    np.testing.assert_allclose([gda, og, omega, omegam], [0.99504, 0.98489, 0.95161, 1.02433], atol=6e-6)


def test_heavy_ball_diverges_on_the_bilinear_game_whatever_its_sign():
    make = lambda eta, beta: optax.with_extra_args_support(optax.sgd(eta, momentum=beta))
    radii, _ = spectra(make, [(0.1, beta) for beta in (-0.9, -0.5, 0.0, 0.5, 0.9)])
    assert (radii > 1).all()


def test_optimistic_gradient_reads_its_number_and_not_a_default():
    radii, _ = spectra(optim.optimistic_gradient, [(0.05, 10.0), (0.05, 1.0)])
    assert radii[0] < radii[1]
    same, _ = spectra(optim.omega, [(0.05, 10.0, 0.0), (0.05, 1.0, 0.0)])
    np.testing.assert_allclose(radii, same, rtol=1e-12)


# --- Noise: the stationary variance solves the Lyapunov equation of the method's own operator. ---


def noisy_step(tx, mu, s):
    """``(carry, noise [2, 2]) -> carry``: the second row is the noise of the independent minibatch."""

    def step(carry, noise):
        params, state = carry
        on = lambda e: lambda w: {
            "x": mu * w["x"] + s * w["y"] + e[0], "y": mu * w["y"] - s * w["x"] + e[1],
        }  # fmt: skip
        first, second = on(noise[0]), on(noise[1])
        g = first(params)
        updates, state = tx.update(g, state, params, operator_fn=first, independent_operator_fn=second, field=g)
        return optax.apply_updates(params, updates), state

    return step


@functools.cache
def noise_program(make):
    def one(mu, s, *numbers):
        """-> the operator ``[n, n]``, and the response ``[n, 4]`` to the four noises of a step."""
        tx = make(*numbers)
        step = noisy_step(tx, mu, s)
        zero = jax.tree.map(jnp.zeros_like, jax.tree.map(jnp.asarray, START))
        carry = step((zero, tx.init(zero)), jnp.zeros((2, 2)))  # all zeros, past the first step
        flat = lambda carry: ravel_pytree([a for a in jax.tree.leaves(carry) if is_real(a)])[0]
        responses = jax.vmap(lambda e: flat(step(carry, e)), out_axes=1)
        return linear_operator(tx, mu, s, 1), responses(jnp.eye(4).reshape(4, 2, 2))

    return jax.jit(jax.vmap(one))


def stationary_variance(make, rows, mu=0.0, s=1.0):
    """-> ``[E]``: of one coordinate, for noise of unit variance."""
    columns = np.atleast_2d(np.asarray(rows, np.float64).T)
    full = lambda value: np.broadcast_to(np.float64(value), columns.shape[1:])
    operators, responses = noise_program(make)(full(mu), full(s), *columns)
    solve = scipy.linalg.solve_discrete_lyapunov
    covariances = [solve(np.asarray(a), np.asarray(n @ n.T)) for a, n in zip(operators, responses, strict=True)]
    return np.array([(c[0, 0] + c[1, 1]) / 2 for c in covariances])


def test_stationary_variances_of_the_table():
    rows = [
        (0.02, 1, 0),
        (0.02, 10, 0),
        (0.02, 1, 0.9),
        (0.02, 2, 0.9),
        (0.02, 1, 0.99),
        (0.05, 1, 0),
        (0.05, 1, 0.9),
    ]
    table = [1.00240, 0.10132, 0.06931, 0.05387, 0.19589, 1.015, 0.16635]
    variances = stationary_variance(optim.omega, rows)
    # To the digits that are printed: five, and three of the sixth.
    assert (np.abs(variances - table) < [*5 * [6e-6], 5e-4, 6e-6]).all()


def test_small_steps_leave_a_floor_of_noise():
    """v / (s^2 (2 o / (1 - b) - 1)), which does not vanish with the step: v for OG, v / 19 for Omega."""
    pairs = [(1.0, 0.0), (1.0, 0.9), (10.0, 0.0), (2.0, 0.5)]
    for s in (1.0, 0.5):
        variances = stationary_variance(optim.omega, [(1e-4, o, b) for o, b in pairs], s=s)
        floors = [1 / (s**2 * (2 * o / (1 - b) - 1)) for o, b in pairs]
        np.testing.assert_allclose(variances, floors, rtol=2e-3)


def test_variance_of_the_extragradient_on_independent_samples():
    """v (1 + Q^2) / (s^2 (1 - Q^2)) per coordinate, with equal rates."""
    make = lambda eta: optim.extragradient(eta, samples="independent")
    etas, s = np.array([0.02, 0.1, 0.4]), 1.5
    q = etas * s
    np.testing.assert_allclose(stationary_variance(make, etas, s=s), (1 + q**2) / (s**2 * (1 - q**2)), rtol=1e-9)


@pytest.mark.slow
def test_a_simulation_has_the_variance_of_the_equation():
    """Three methods, 400 lanes; the mean over lanes of squares has a relative error of about 1/sqrt(400 * 10)."""
    lanes, steps, burn = 400, 3000, 1500

    def simulate(tx):
        step = noisy_step(tx, 0.0, 1.0)
        params = jax.tree.map(lambda w: jnp.zeros(lanes), START)

        def body(carry, key):
            carry = step(carry, jax.random.normal(key, (2, 2, lanes)))
            return carry, jnp.mean(carry[0]["x"] ** 2 + carry[0]["y"] ** 2) / 2

        keys = jax.random.split(jax.random.key(4), steps)
        return lax.scan(body, (params, tx.init(params)), keys)[1][burn:].mean()

    eta = 0.05
    simulated = jax.jit(
        lambda: (
            simulate(optim.omega(eta)),
            simulate(optim.optimistic_gradient(eta, 10.0)),
            simulate(optim.extragradient(0.2, samples="independent")),
        )
    )()
    predicted = [
        *stationary_variance(optim.omega, [(eta, 1.0, 0.9), (eta, 10.0, 0.0)]),
        (1 + 0.04) / (1 - 0.04),
    ]
    np.testing.assert_allclose(simulated, predicted, rtol=0.05)
