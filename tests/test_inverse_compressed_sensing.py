"""Compressed sensing with generators: closed forms, scikit-learn and SciPy, and what has to hold of any search."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.fft
from sklearn.linear_model import Lasso

from jaxfair import inverse

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def random(seed=5):
    return np.random.default_rng(seed)


#: A small problem: twelve numbers, five measurements, three signals, four numbers in a latent.
A = random(1).normal(size=(5, 12)) / np.sqrt(5)
W = random(2).normal(size=(12, 4))
Z = random(3).normal(size=(3, 4))
Y = Z @ W.T @ A.T + 0.1 * random(4).normal(size=(3, 5))


@pytest.fixture
def exact():
    """Float64."""
    with jax.enable_x64(True):
        yield


def linear(z):
    return jnp.asarray(W, z.dtype) @ z


def told(z, c):
    return linear(z) + 0 * c[0]


def starts(restarts=2, signals=3, latents=4):
    return inverse.latent_starts(jax.random.key(0), restarts, signals, latents)


adam = optax.adam(0.1)
#: One program for all tests of twenty steps.
search = jax.jit(functools.partial(inverse.latent_search, linear, optimizer=adam, steps=20))


# --- a latent is searched ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_with_the_variance_of_the_noise_as_penalty_a_linear_generator_gives_the_best_linear_estimate(exact):
    found = inverse.latent_search(linear, A, Y, starts(1), penalty=0.01, optimizer=optax.lbfgs(), steps=60)
    best = inverse.lmmse(Y, A, mean=np.zeros(12), covariance=W @ W.T, noise=0.01)
    np.testing.assert_allclose(found.x, best.x, rtol=0, atol=1e-9)
    other = inverse.lmmse(Y, A, mean=np.zeros(12), covariance=W @ W.T, noise=0.02)
    assert np.abs(found.x - other.x).max() > 1e-3


@pytest.mark.parametrize(("penalty", "z", "objective"), [(1.0, (1.0, 0.5), 1.5), (0.1, (1.176471, 0.588235), 0.176471)])
def test_two_numbers_by_hand(penalty, z, objective, exact):
    generator, one = (lambda z: jnp.array([2.0, 1.0]) * z), np.ones((1, 2))
    found = inverse.latent_search(
        generator, one, np.array([[3.0]]), np.zeros((1, 1, 2)), penalty=penalty, optimizer=optax.sgd(0.09), steps=400
    )
    np.testing.assert_allclose(found.z[0], z, atol=1e-6)
    np.testing.assert_allclose(found.x[0], np.array(z) * (2, 1), atol=1e-6)
    np.testing.assert_allclose(found.objective[0], objective, atol=1e-6)


def test_what_is_returned_belongs_together():
    found = search(A, Y, starts(), penalty=0.1)
    np.testing.assert_allclose(found.x, found.z @ W.T, rtol=1e-5, atol=1e-5)
    again = np.sum((found.x @ A.T - Y) ** 2, axis=1) + 0.1 * np.sum(np.square(found.z), axis=1)
    np.testing.assert_allclose(found.objective, again, rtol=1e-4)
    np.testing.assert_array_equal(found.objective, found.objectives.min(0))


def test_a_generator_that_ignores_the_measurement_is_a_plain_one_bit_for_bit():
    plain = search(A, Y, starts(), penalty=0.1)
    conditional = jax.jit(functools.partial(inverse.latent_search, told, optimizer=adam, steps=20))
    for one, other in zip(plain, conditional(A, Y, starts(), penalty=0.1, condition=Y), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_generator_is_told_the_condition_of_its_own_signal():
    def generator(z, c):
        return jnp.zeros(12).at[0].set(c["level"]) + 0 * z[0]

    level = jnp.array([1.0, 2.0, 3.0])
    found = inverse.latent_search(generator, A, Y, starts(1), condition={"level": level}, steps=0)
    np.testing.assert_array_equal(found.x[:, 0], level)


def test_more_restarts_never_keep_a_worse_point():
    few, many = search(A, Y, starts(2), penalty=0.1), search(A, Y, starts(6), penalty=0.1)
    np.testing.assert_allclose(few.objectives, many.objectives[:2], rtol=1e-4)
    assert (many.objective <= few.objective * (1 + 1e-4)).all()
    assert (many.objective < few.objective).any()


@pytest.mark.parametrize("rate", [1e-3, 10.0])
def test_no_rate_ends_above_where_it_began(rate):
    """The best point is kept, also of a descent that diverges."""
    begin = starts(1)
    found = inverse.latent_search(linear, A, Y, begin, optimizer=optax.sgd(rate), steps=100)
    first = np.sum((begin[0] @ W.T @ A.T - Y) ** 2, axis=1)
    assert (found.objective <= first * (1 + 1e-5)).all()
    assert np.isfinite(found.z).all()


def test_a_signal_that_is_not_finite_costs_the_others_nothing():
    """Traced, it cannot be refused: its objective says so."""
    whole, broken = (
        search(A, Y, starts(), penalty=0.1),
        search(A, Y * np.array([[1], [np.nan], [1]]), starts(), penalty=0.1),
    )
    assert np.isinf(broken.objective[1])
    np.testing.assert_array_equal(broken.z[1], starts()[0, 1])
    for i in (0, 2):
        np.testing.assert_array_equal(broken.x[i], whole.x[i])


def test_penalties_are_lanes_of_one_program():
    lanes = jax.vmap(lambda p: search(A, Y, starts(), penalty=p))(jnp.array([0.0, 0.1]))
    for lane, penalty in enumerate((0.0, 0.1)):
        np.testing.assert_allclose(lanes.x[lane], search(A, Y, starts(), penalty=penalty).x, rtol=1e-3, atol=1e-4)


@functools.cache
def curved():
    """A generator that is not linear, and signals that it can make."""
    numbers = random()
    first, second = (jnp.asarray(numbers.normal(size=s), jnp.float32) / 2 for s in ((16, 3), (24, 16)))
    truth = jnp.asarray(numbers.normal(size=(4, 3)), jnp.float32)
    return (lambda z: second @ jnp.tanh(first @ z)), truth


@pytest.mark.slow
@pytest.mark.parametrize("method", ["latent", "projected"])
def test_a_signal_that_the_generator_can_make_is_found(method):
    """Ten measurements of twenty-four numbers, no noise."""
    generator, truth = curved()
    x = jax.vmap(generator)(truth)
    A = inverse.gaussian_measurements(jax.random.key(1), 10, 24)
    begin = starts(4, 4, 3)
    if method == "latent":
        found = inverse.latent_search(generator, A, x @ A.T, begin, optimizer=adam, steps=300)
    else:
        found = inverse.projected_search(generator, A, x @ A.T, begin, step=0.25, penalty=0.0, rounds=30, steps=30)
    assert np.abs(found.x - x).max() < 0.02 * np.abs(x).max()
    # Without the generator, the nearest signal that explains the measurement is far.
    assert np.abs(inverse.consistent(jnp.zeros_like(x), A, x @ A.T) - x).max() > 0.2 * np.abs(x).max()


def test_projected_steps_of_a_linear_generator_by_hand(exact):
    """Three of them, each with its projection on the plane of the generator."""
    step, begin, descent = 1 / np.linalg.norm(A, 2) ** 2, starts(1), optax.sgd(0.45 / np.linalg.norm(W, 2) ** 2)
    found = inverse.projected_search(
        linear, A, Y, begin, step=step, penalty=0.0, optimizer=descent, rounds=3, steps=400
    )
    x, onto = np.asarray(begin[0], float) @ W.T, W @ np.linalg.pinv(W)
    for _ in range(3):
        x = (x + step * (Y - x @ A.T) @ A) @ onto
    np.testing.assert_allclose(found.x, x, atol=1e-7)
    np.testing.assert_allclose(found.objective, np.sum((x @ A.T - Y) ** 2, axis=1), rtol=1e-6)


# --- matrices ------------------------------------------------------------------------------------------------------


def test_two_numbers_of_which_the_sum_was_measured_by_hand(exact):
    found = inverse.lmmse(
        np.array([[3.0]]), np.ones((1, 2)), mean=np.zeros(2), covariance=np.diag([4.0, 1.0]), noise=1.0
    )
    np.testing.assert_allclose(found.gain[:, 0], (2 / 3, 1 / 6), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.array([[4 / 3, -2 / 3], [-2 / 3, 5 / 6]]), rtol=1e-12)


def test_no_linear_estimate_has_less_error(exact):
    """Its errors have the covariance that it says; a gain beside it is worse."""
    covariance, mean = W @ W.T + 0.1 * np.eye(12), np.arange(12.0)
    found = inverse.lmmse(Y, A, mean=mean, covariance=covariance, noise=0.2)

    def error(gain):
        left = np.eye(12) - gain @ A
        return left @ covariance @ left.T + 0.2 * gain @ gain.T

    gain = np.asarray(found.gain)
    np.testing.assert_allclose(found.covariance, error(gain), atol=1e-9)
    for other in gain + 0.01 * random().normal(size=(5, *gain.shape)):
        assert np.trace(error(other)) > np.trace(error(gain))
    np.testing.assert_allclose(found.x, mean + (Y - A @ mean) @ gain.T, rtol=1e-9)


def test_a_consistent_signal_explains_the_measurement_and_is_never_farther_from_the_truth(exact):
    truth, guess = random().normal(size=(2, 3, 12))
    y = truth @ A.T
    found = np.asarray(inverse.consistent(guess, A, y))
    np.testing.assert_allclose(found @ A.T, y, atol=1e-12)
    assert (np.linalg.norm(found - truth, axis=1) < np.linalg.norm(guess - truth, axis=1)).all()
    np.testing.assert_allclose(inverse.consistent(found, A, y), found, atol=1e-12)
    square = random().normal(size=(12, 12))  # as many measurements as numbers
    np.testing.assert_allclose(inverse.consistent(guess, square, truth @ square.T), truth, atol=1e-9)


def test_of_rows_that_follow_from_others_one_is_warned_and_they_come_as_near_as_they_can(exact):
    twice, y = np.concatenate([A, A[:1]]), np.concatenate([Y, Y[:, :1] + 1], axis=1)
    with pytest.warns(UserWarning, match="6 rows and rank 5"):
        found = inverse.consistent(np.zeros((3, 12)), twice, y)
    np.testing.assert_allclose(found @ A[0], Y[:, 0] + 0.5, atol=1e-9)  # the mean of the two that differ


def test_random_mixtures_keep_the_length_of_a_signal():
    lengths = [
        np.sum(np.square(inverse.gaussian_measurements(jax.random.key(k), 8, 16) @ np.ones(16))) for k in range(40)
    ]
    # A chi-square of 8 degrees, over 8 and times 16: its deviation is 8.
    assert abs(np.mean(lengths) - 16) < 4 * 8 / np.sqrt(40)


def test_pixels_and_blocks_are_what_they_say():
    image = random().normal(size=(4, 6)).astype(np.float32)
    seen = random().random((4, 6)) < 0.5
    np.testing.assert_array_equal(inverse.pixel_measurements(seen) @ image.ravel(), image[seen])
    means = image.reshape(2, 2, 3, 2).mean((1, 3))
    np.testing.assert_allclose(inverse.block_measurements((4, 6), 2) @ image.ravel(), means.ravel(), rtol=1e-5)


# --- few numbers in a basis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("basis", "shape"), [("dct", (12,)), ("dct", (3, 5)), ("haar", (8,)), ("haar", (4, 8))])
def test_bases_are_orthogonal(basis, shape, exact):
    made = np.asarray(getattr(inverse, f"{basis}_basis")(shape))
    np.testing.assert_allclose(made.T @ made, np.eye(len(made)), atol=1e-12)
    np.testing.assert_allclose(made[:, 0], 1 / np.sqrt(len(made)))  # the constant


def test_cosines_are_those_of_scipy(exact):
    image = random().normal(size=(4, 6))
    found = inverse.dct_basis((4, 6)).T @ image.ravel()
    np.testing.assert_allclose(found, scipy.fft.dctn(image, norm="ortho").ravel(), atol=1e-12)


def test_haar_of_four_by_hand(exact):
    half, root = 0.5, np.sqrt(0.5)
    by_hand = np.array([[half, half, root, 0], [half, half, -root, 0], [half, -half, 0, root], [half, -half, 0, -root]])
    np.testing.assert_allclose(inverse.haar_basis((4,)), by_hand, atol=1e-15)


def test_the_lasso_is_that_of_scikit_learn(exact):
    basis = np.asarray(inverse.dct_basis((3, 4)))
    found = inverse.lasso(Y, A, strength=0.3, basis=basis, steps=2000)
    peer = Lasso(alpha=0.3 / 5, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(A @ basis, Y.T).coef_
    np.testing.assert_allclose(found.coefficients, peer, atol=1e-8)
    np.testing.assert_allclose(found.x, peer @ basis.T, atol=1e-8)
    assert 0 < np.count_nonzero(peer) < peer.size


def test_the_gap_of_the_lasso_is_an_upper_bound_that_closes(exact):
    objective = [inverse.lasso(Y, A, strength=0.3, steps=n) for n in (5, 20, 2000)]
    for one in objective:
        assert (one.gap >= one.objective - objective[-1].objective - 1e-12).all()
    assert objective[0].gap.min() > 1e-3
    assert objective[-1].gap.max() < 1e-9
    np.testing.assert_allclose(
        objective[-1].objective,
        np.sum((objective[-1].x @ A.T - Y) ** 2, axis=1) / 2 + 0.3 * np.sum(np.abs(objective[-1].x), axis=1),
    )


def test_what_is_measured_itself_is_thresholded_and_strengths_are_lanes():
    y = jnp.array([[3.0, -1.0, 0.5, 2.0]])
    lanes = jax.vmap(lambda s: inverse.lasso(y, jnp.eye(4), strength=s, steps=5).x[0])(jnp.array([0.8, 3.0]))
    np.testing.assert_allclose(lanes, [[2.2, -0.2, 0.0, 1.2], [0.0] * 4], atol=1e-6)


# --- the loss of the generator -------------------------------------------------------------------------------------


def test_with_the_exact_posterior_the_bound_is_the_evidence():
    """Signals W z with noise, orthogonal columns: the posterior is a Gaussian whose numbers are independent."""
    loadings, s = jnp.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), 0.5
    x = jnp.array([1.0, -1.0, 0.3])
    square = jnp.array([4.0, 1.0])
    mean, deviation = loadings.T @ x / (square + s), jnp.sqrt(s / (square + s))

    def misfit(x, output):
        return jnp.sum((x - output) ** 2) / (2 * s) + 1.5 * jnp.log(2 * jnp.pi * s)

    found = inverse.negative_evidence(
        lambda x: (mean, jnp.log(deviation)), lambda z: loadings @ z, jnp.tile(x, (2000, 1)), jax.random.key(0),
        misfit=misfit,
    )  # fmt: skip
    covariance = np.asarray(loadings @ loadings.T + s * jnp.eye(3))
    evidence = x @ np.linalg.solve(covariance, x) / 2 + np.linalg.slogdet(2 * np.pi * covariance)[1] / 2
    assert abs(found.bound.mean() - evidence) < 4 * found.bound.std() / np.sqrt(2000)
    assert found.bound.std() < 1
    np.testing.assert_allclose(found.bound, found.misfit + found.divergence, rtol=1e-6)
    by_hand = np.sum((mean**2 + deviation**2 - 1) / 2 - np.log(deviation))
    np.testing.assert_allclose(found.divergence, by_hand, rtol=1e-5)


def test_every_signal_has_its_own_condition_and_its_own_draw():
    def encode(x, c):
        return jnp.zeros(1), c

    condition = jnp.log(jnp.array([[1.0], [2.0], [2.0]]))
    found = inverse.negative_evidence(
        encode, lambda z, c: z, jnp.zeros((3, 1)), jax.random.key(0), condition=condition, misfit=lambda x, out: out[0]
    )
    np.testing.assert_allclose(found.divergence, [0.0, 1.5 - np.log(2), 1.5 - np.log(2)], rtol=1e-5, atol=1e-7)
    assert len(set(found.misfit.tolist())) == 3


# --- what cannot be ------------------------------------------------------------------------------------------------

NAN, ONE = np.where(np.arange(15).reshape(3, 5) == 7, np.nan, Y), np.ones((1, 1))
searched = functools.partial(inverse.latent_search, linear)
projected = functools.partial(inverse.projected_search, linear, A, Y, starts())
drawn = functools.partial(inverse.gaussian_measurements, jax.random.key(0))
estimated = functools.partial(inverse.lmmse, ONE, ONE, covariance=ONE)
WRONG = {
    "more measurements than numbers": (lambda: searched(A.T, Z @ W.T, starts()), "12 measurements of 5"),
    "drawn, more than numbers": (lambda: drawn(9, 8), "9 measurements of 8"),
    "none": (lambda: drawn(0, 8), "give 1 to 8"),
    "a vector": (lambda: searched(A[0], Y, starts()), "operator has shape (12,)"),
    "a complex matrix": (lambda: inverse.consistent(Z @ W.T, A * 1j, Y), "operator is complex"),
    "another width": (lambda: inverse.lasso(Y[:, :4], A, strength=0.1), "y has shape (3, 4)"),
    "one signal without rows": (lambda: inverse.lasso(Y[0], A, strength=0.1), "y has shape (5,)"),
    "y not finite": (lambda: searched(A, NAN, starts()), "y has numbers that are not finite"),
    "A not finite": (lambda: inverse.lasso(Y, A * np.inf, strength=0.1), "operator has numbers that are not finite"),
    "a penalty below 0": (lambda: searched(A, Y, starts(), penalty=-1.0), "penalty=-1.0"),
    "a penalty that is none": (lambda: searched(A, Y, starts(), penalty=np.nan), "penalty=nan"),
    "a strength below 0": (lambda: inverse.lasso(Y, A, strength=-0.1), "strength=-0.1"),
    "a step of 0": (lambda: projected(step=0.0), "step=0.0"),
    "no round": (lambda: projected(rounds=0), "rounds=0"),
    "steps below 0": (lambda: searched(A, Y, starts(), steps=-1), "steps=-1"),
    "starts for other signals": (lambda: searched(A, Y, starts(2, 4)), "start has shape (2, 4, 4)"),
    "a start without restarts": (lambda: searched(A, Y, starts()[0]), "[restarts, 3, latents]"),
    "no restart": (lambda: starts(0), "restarts=0"),
    "another size": (lambda: inverse.latent_search(lambda z: z, A, Y, starts()), "makes signals of shape (4,)"),
    "another condition": (lambda: inverse.latent_search(told, A, Y, starts(), condition=Y[:2]), "of the 3 signals"),
    "no noise": (lambda: estimated(mean=ONE[0], noise=0.0), "noise=0.0: give a number above"),
    "another mean": (lambda: estimated(mean=Y[0], noise=1.0), "mean has shape (5,): give [1]"),
    "another x": (lambda: inverse.consistent(Y, A, Y), "x has shape (3, 5): give [3, 12]"),
    "another basis": (lambda: inverse.lasso(Y, A, strength=0.1, basis=np.eye(5)), "basis has shape (5, 5)"),
    "no power of two": (lambda: inverse.haar_basis((8, 6)), "a side of 6"),
    "an empty side": (lambda: inverse.dct_basis((8, 0)), "shape=0"),
    "nothing seen": (lambda: inverse.pixel_measurements(np.zeros(4, bool)), "0 measurements of 4"),
    "a mask of numbers": (lambda: inverse.pixel_measurements(np.ones(4)), "seen has dtype float64"),
    "a block that does not divide": (lambda: inverse.block_measurements((8, 6), 4), "8 x 6"),
    "one image without rows": (
        lambda: inverse.negative_evidence(lambda x: (x, x), lambda z: z, Y[0], jax.random.key(0)), "x has shape (5,)"
    ),
    "a condition for others": (
        lambda: inverse.negative_evidence(told, told, Y, jax.random.key(0), condition=Y[:2]), "each of the 3 signals"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_one_line(name):
    call, words = WRONG[name]
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        call()
    assert "\n" not in str(raised.value)
