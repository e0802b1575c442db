"""What each game promises beyond the laws: closed forms, spectra, geometry, and messages."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import games

KEY = jax.random.key(11)
# Orthogonal factors in float32.
TOLERANCE = 1e-5


def matrices(game, name):
    """The ``[n, ...]`` matrices of a finite sum, in double precision."""
    return np.asarray(game.operator.args[0][name], np.float64)


def test_normal_couplings_of_one_singular_value_are_the_identity():
    game = games.bilinear(KEY, dim=5, num_samples=4)
    np.testing.assert_allclose(matrices(game, "B"), np.tile(np.eye(5), (4, 1, 1)), atol=TOLERANCE)


@pytest.mark.parametrize("normal", [True, False])
def test_singular_values_of_all_samples_fill_their_range(normal):
    game = games.bilinear(KEY, dim=5, num_samples=4, min_singular=0.2, max_singular=3.0, normal=normal)
    coupling = matrices(game, "B")
    singular = np.linalg.svd(coupling, compute_uv=False)
    assert singular.min() == pytest.approx(0.2, abs=TOLERANCE)
    assert singular.max() == pytest.approx(3.0, abs=TOLERANCE)
    # The ends are reached by one value each: the stretching is joint.
    assert np.sum(singular > 3 - TOLERANCE) == np.sum(singular < 0.2 + TOLERANCE) == 1
    assert (coupling == coupling.swapaxes(1, 2)).all() == normal


def test_curvatures_are_symmetric_with_the_eigenvalues_that_were_asked_for():
    game = games.quadratic(KEY, dim=5, num_samples=4, min_eigenvalue=0.5, max_eigenvalue=2.0, num_zeros=2)
    for name in ("A", "C"):
        curvature = matrices(game, name)
        assert (curvature == curvature.swapaxes(1, 2)).all()
        eigenvalues = np.linalg.eigvalsh(curvature)
        np.testing.assert_allclose(eigenvalues[:, :2], 0, atol=TOLERANCE)
        assert eigenvalues[:, 2:].min() > 0.5 - TOLERANCE
        assert eigenvalues.max() < 2 + TOLERANCE
    assert matrices(game, "A").max() != matrices(game, "C").max()


def test_biases_have_the_scale_that_was_asked_for():
    unit, three, silent = (games.bilinear(KEY, dim=5, num_samples=4, bias=bias) for bias in (1.0, 3.0, 0.0))
    for name in ("a", "c"):
        np.testing.assert_allclose(matrices(three, name), 3 * matrices(unit, name), rtol=1e-6)
        assert not matrices(silent, name).any()
    assert not any(leaf.any() for leaf in silent.saddle.values())


def test_kappa_is_that_of_all_samples_together():
    game = games.quadratic(KEY, dim=5, num_samples=4, min_eigenvalue=0.5, min_singular=0.5)
    a, b, c = (matrices(game, name) for name in "ABC")
    jacobians = np.block([[a, b], [-b.swapaxes(1, 2), c]])

    def kappa(matrices):
        values = np.linalg.eigvals(matrices).ravel()
        return np.max(1 / np.real(1 / values)) / values.real.min()

    found = games.spectrum(game)
    assert found.kappa == pytest.approx(kappa(jacobians), rel=1e-4)
    assert found.kappa_mean == pytest.approx(kappa(jacobians.mean(axis=0)), rel=1e-4)
    singular = np.linalg.svd(jacobians.mean(axis=0), compute_uv=False)
    assert found.condition_number == pytest.approx(singular[0] / singular[-1], rel=1e-4)
    assert found.kappa > found.kappa_mean


def test_bilinear_spectra_are_imaginary_and_no_kappa_is_finite():
    game = games.bilinear_ill_conditioned(KEY, dim=5, num_samples=4, min_singular=0.01, max_singular=1.0)
    found = games.spectrum(game)
    singular = np.geomspace(0.01, 1, 5)
    assert not found.eigenvalues.real.any()
    np.testing.assert_allclose(found.eigenvalues.imag, np.concatenate([-singular[::-1], singular]), atol=TOLERANCE)
    assert found.kappa == found.kappa_mean == np.inf
    assert found.condition_number == pytest.approx(100, rel=1e-3)


def test_a_coordinate_at_a_time_the_mean_is_weak():
    game = games.bilinear_coordinates(KEY, dim=5)
    np.testing.assert_allclose(games.spectrum(game).eigenvalues.imag, [-0.2] * 5 + [0.2] * 5)
    # Rows of samples: only coordinate i is coupled by sample i.
    assert (np.argwhere(matrices(game, "B")) == np.arange(5)[:, None]).all()


def test_prescribed_eigenvalues_and_a_normal_jacobian():
    wanted = np.array([0.3 + 1.0j, 0.7 + 0.2j, 1.5 + 0.0j])
    game = games.complex_spectrum(KEY, eigenvalues=wanted, num_samples=4)
    found = games.spectrum(game).eigenvalues
    both = np.concatenate([wanted, wanted.conj()])
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(both), atol=TOLERANCE)
    jacobian = np.asarray(game.jacobian, np.float64)
    np.testing.assert_allclose(jacobian @ jacobian.T, jacobian.T @ jacobian, atol=TOLERANCE)


def test_the_distance_of_a_rank_deficient_game_is_to_the_set_of_its_solutions():
    game = games.bilinear_rank_deficient(KEY, dim=5, rank=2, num_samples=4)
    jacobian = np.asarray(game.jacobian, np.float64)
    *_, rows = np.linalg.svd(jacobian)
    null = rows[4:]
    np.testing.assert_allclose(jacobian @ null.T, 0, atol=TOLERANCE)
    along = null.T @ np.arange(1.0, 7.0)
    moved = {"x": game.saddle["x"] + along[:5], "y": game.saddle["y"] + along[5:]}
    assert games.distance(game, moved) < TOLERANCE
    assert games.residual(game, moved) < TOLERANCE
    off = rows[0]
    away = {"x": moved["x"] + 2 * off[:5], "y": moved["y"] + 2 * off[5:]}
    assert games.distance(game, away) == pytest.approx(2, rel=1e-5)
    # The saddle is the solution of least norm, and no sample moves along the null space.
    saddle = np.concatenate([game.saddle["x"], game.saddle["y"]])
    np.testing.assert_allclose(null @ saddle, 0, atol=TOLERANCE)
    for i in range(4):
        field = game.operator(away, jnp.array([i]))
        field = np.concatenate([field["x"], field["y"]])
        np.testing.assert_allclose(null @ field, 0, atol=TOLERANCE)


def test_an_interpolated_game_is_silent_at_its_saddle():
    game = games.bilinear_interpolated(KEY, dim=5, num_samples=4)
    for i in range(4):
        for entry in game.operator(game.saddle, jnp.array([i])).values():
            np.testing.assert_allclose(entry, 0, atol=TOLERANCE)


def test_additive_noise_has_its_standard_deviation_per_sample():
    game = games.bilinear_additive_noise(KEY, dim=5, noise=0.3)
    batch = game.sample(jax.random.key(0), 2000)
    # 10,000 draws: 0.7 percent.
    for noise in batch.values():
        assert float(noise.std()) == pytest.approx(0.3, rel=0.04)
    singular = np.linalg.svd(np.asarray(game.jacobian), compute_uv=False)
    assert 1 - TOLERANCE < singular.min() < singular.max() < 2 + TOLERANCE


@pytest.mark.parametrize("support", [1, 3, 5])
def test_nobody_gains_by_leaving_the_equilibrium_of_a_matrix_game(support):
    game = games.matrix_game(KEY, dim=5, support=support, num_samples=4)
    x, y = (np.asarray(game.saddle[name], np.float64) for name in "xy")
    payoff = matrices(game, "B").mean(axis=0)
    inside = np.arange(5) < support
    for strategy in (x, y):
        assert strategy.sum() == pytest.approx(1)
        assert ((strategy > 0) == inside).all()
    np.testing.assert_allclose((payoff @ y)[inside], 0, atol=TOLERANCE)
    np.testing.assert_allclose((x @ payoff)[inside], 0, atol=TOLERANCE)
    assert (payoff @ y)[~inside].min(initial=1) > 0.4
    assert (x @ payoff)[~inside].max(initial=-1) < -0.4


def test_the_gap_is_what_the_players_could_gain():
    game = games.matrix_game(KEY, dim=5, num_samples=4)
    players = game.init(jax.random.key(1))
    corners = jnp.eye(5)
    payoff = matrices(game, "B").mean(axis=0)
    best_y = max(float(players["x"] @ payoff @ corner) for corner in corners)
    best_x = min(float(corner @ payoff @ players["y"]) for corner in corners)
    assert game.gap(players) == pytest.approx(best_y - best_x, rel=1e-4)
    assert best_y - best_x > 0


def test_robust_least_squares_is_least_squares_for_x():
    game = games.robust_least_squares(KEY, dim=4, num_samples=5, penalty=3.0)
    features, targets, _ = (np.asarray(arg, np.float64) for arg in game.operator.args)
    x, *_ = np.linalg.lstsq(features, targets)
    np.testing.assert_allclose(game.saddle["x"], x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(game.saddle["y"], (3 * targets - features @ x) / 2, rtol=1e-4, atol=1e-4)
    singular = np.linalg.svd(features / 5**0.5, compute_uv=False)
    np.testing.assert_allclose([singular.min(), singular.max()], [0.3, 1.0], rtol=1e-4)
    # A row that is drawn twice counts twice.
    twice = game.operator(game.init(KEY), jnp.array([3, 3]))
    once = game.operator(game.init(KEY), jnp.array([3]))
    for name in "xy":
        np.testing.assert_allclose(twice[name], once[name], rtol=1e-5, atol=1e-6)


def test_the_damping_of_a_dirac_gan():
    game = games.dirac_gan(KEY, num_samples=4, target=2.0, noise=0.5)
    data = np.asarray(game.operator.args[0], np.float64)
    assert game.saddle["x"][0] == pytest.approx(data.mean(), rel=1e-5)
    damping = (np.mean(data**2) + data.mean() ** 2) / 4
    jacobian = np.array([[0, -0.5], [0.5, damping]])
    np.testing.assert_allclose(
        np.sort_complex(games.spectrum(game).eigenvalues),
        np.sort_complex(np.linalg.eigvals(jacobian).astype(complex)),
        rtol=1e-4,
    )


def test_the_data_of_the_mixture_lie_on_the_ring():
    game = games.gaussian_mixture_gan(KEY, num_samples=500, num_modes=5, radius=3.0, noise=0.01)
    data = np.asarray(game.operator.args[0])
    np.testing.assert_allclose(np.hypot(*data.T), 3, atol=0.06)
    angles = np.round(np.arctan2(data[:, 1], data[:, 0]) / (2 * np.pi / 5)) % 5
    # 100 expected in each of five modes, of deviation 9.
    assert np.bincount(angles.astype(int)).min() > 60
    with pytest.raises(ValueError, match="neither its Jacobian nor its saddle"):
        games.spectrum(game)


def test_the_conditions_of_karush_kuhn_and_tucker():
    game = games.lagrangian_qp(KEY, dim=5, num_constraints=4, num_active=2, num_samples=4)
    mean = {name: matrices(game, name).mean(axis=0) for name in ("A", "B", "a", "c")}
    x, y = (np.asarray(game.saddle[name], np.float64) for name in "xy")
    gradient = mean["A"] @ x + mean["a"] + mean["B"] @ y
    violation = mean["B"].T @ x - mean["c"]
    np.testing.assert_allclose(gradient, 0, atol=TOLERANCE)
    np.testing.assert_allclose(violation[:2], 0, atol=TOLERANCE)
    assert (violation[2:] < -0.4).all()
    assert (y[:2] >= 0.5).all()
    assert not y[2:].any()
    assert np.linalg.eigvalsh(mean["A"]).min() > 0.1 - TOLERANCE


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bilinear_rank_deficient", {"dim": 5, "rank": 6}, "from 1 to dim=5"),
        ("complex_spectrum", {"eigenvalues": np.ones((2, 2))}, r"shape \(2, 2\)"),
        ("matrix_game", {"dim": 5, "support": 0}, "from 1 to dim=5"),
        ("robust_least_squares", {"dim": 6, "num_samples": 5}, "many solutions"),
        ("robust_least_squares", {"penalty": 1.0}, "concave above 1"),
        ("lagrangian_qp", {"dim": 3, "num_active": 4}, "from 0 to 3"),
    ],
)
def test_games_that_cannot_be_drawn_say_why(name, options, message):
    with pytest.raises(ValueError, match=message):
        games.SUITE[name](KEY, **options)


def test_a_constrained_game_must_bring_its_saddle():
    with pytest.raises(ValueError, match="must bring its saddle"):
        games.finite_sum("box", B=jnp.ones((1, 1, 1)), projection=lambda players: players)


#: A number that a game is made of -> one that it cannot be, and what is said of it.
SPOILT = {
    "dim": (2.5, r"dim=2\.5: give a whole number"),
    "num_samples": (0, "num_samples=0: give a whole number of at least 1"),
    "rank": (np.float32(1.5), r"rank=1\.5"),
    "support": (True, "support=True"),
    "num_zeros": (-1, "num_zeros=-1: give a whole number of at least 0"),
    "num_constraints": (np.inf, "num_constraints=inf"),
    "num_active": ("2", "num_active=2"),
    "num_modes": (np.array([3]), r"num_modes=\[3\]"),
    "latent_dim": (np.nan, "latent_dim=nan"),
    "hidden": (None, "hidden=None"),
    "bias": (np.float32(np.nan), "bias must be in"),
    "noise": (-0.1, "noise must be in"),
    "bias_noise": (jnp.inf, "bias_noise must be in|noise must be in"),
    "radius": (np.ones(2), r"radius has shape \(2,\)"),
    "target": (np.nan, "target must be in"),
    "penalty": (np.float32(0.5), "penalty=0.5"),
    "min_singular": (3.0, "min_singular=3.0 is above max_singular"),
    "max_singular": (np.nan, "max_singular must be in"),
    "min_eigenvalue": (-np.inf, "min_eigenvalue must be in"),
    "max_eigenvalue": (np.float64(-1.0), "is above max_eigenvalue=-1.0"),
    "eigenvalues": (np.array([1.0, np.nan]), "give finite numbers"),
    "normal": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", games.SUITE)
def test_numbers_that_no_game_is_made_of_are_named(name):
    options = [option for option in inspect.signature(games.SUITE[name]).parameters if option != "key"]
    for option in options:
        if SPOILT[option] is not None:
            wrong, message = SPOILT[option]
            with pytest.raises(ValueError, match=message):
                inspect.unwrap(games.SUITE[name])(KEY, **{option: wrong})


@pytest.mark.parametrize("whole", [np.int8, np.float32, jnp.int32], ids=lambda of: of.__name__)
@pytest.mark.slow
def test_whole_numbers_of_numpy_and_jax_are_sizes(whole):
    game = inspect.unwrap(games.quadratic)(KEY, dim=whole(3), num_samples=whole(2), num_zeros=1)
    again = games.quadratic(KEY, dim=3, num_samples=2, num_zeros=1)
    np.testing.assert_array_equal(game.jacobian, again.jacobian)


def test_numbers_of_a_game_may_be_traced():
    size = jax.jit(lambda bias: games.bilinear(KEY, dim=2, num_samples=2, bias=bias).saddle["x"])(jnp.float32(0.0))
    assert size.tolist() == [0.0, 0.0]
