"""Laws of games: a table of the whole suite x properties. A new game is a line in the table."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxfair import games
from jaxfair.games._game import join, split

# Few shapes, so that the random draws of one game are compiled for all.
N = 4
SMALL = {
    "bilinear": {"dim": 5, "num_samples": N, "min_singular": 0.5, "normal": False},
    "quadratic": {"dim": 5, "num_samples": N, "min_eigenvalue": 0.5, "num_zeros": 1},
    "quadratic_linear": {"dim": 5, "num_samples": N, "min_eigenvalue": 0.5, "min_singular": 0.5},
    "bilinear_ill_conditioned": {"dim": 5, "num_samples": N, "min_singular": 0.1},
    "bilinear_rank_deficient": {"dim": 5, "rank": 3, "num_samples": N, "min_singular": 0.5},
    "bilinear_coordinates": {"dim": 5},
    "bilinear_interpolated": {"dim": 5, "num_samples": N, "min_singular": 0.5},
    "bilinear_additive_noise": {"dim": 5},
    "complex_spectrum": {"eigenvalues": np.array([0.1 + 1j, 0.5 + 0.5j, 1.0]), "num_samples": N},
    "matrix_game": {"dim": 5, "support": 3, "num_samples": N},
    "robust_least_squares": {"dim": 4, "num_samples": 5},
    "dirac_gan": {"num_samples": N, "target": 1.0, "noise": 1.0},
    "gaussian_mixture_gan": {"num_samples": N, "hidden": 5},
    "lagrangian_qp": {"dim": 5, "num_constraints": 5, "num_active": 2, "num_samples": N},
}
each = pytest.mark.parametrize("name", SMALL)
finite = pytest.mark.parametrize("name", [n for n in SMALL if n != "bilinear_additive_noise"])
# Numbers of order 1, sums of about ten of them: a few dozen units of float32's last place.
TOLERANCE = 3e-6


@functools.cache
def make(name):
    return games.SUITE[name](jax.random.key(3), **SMALL[name])


@functools.cache
def point(name):
    return make(name).init(jax.random.key(4))


def apply(name, function, *args):
    """`function` of the game and more, as one program: fewer and smaller compilations."""
    arrays, skeleton = split(make(name))
    return jax.jit(lambda arrays, *args: function(join(arrays, skeleton), *args))(arrays, *args)


@functools.cache
def fields(name):
    """-> the mean field, those of all samples ``[n, ...]``, and of all pairs ``[n * n, ...]``."""

    def all_of_them(game, players, pairs):
        each_of = lambda batches: jax.vmap(lambda batch: game.operator(players, batch))(batches)
        singles = jnp.arange(game.num_samples, dtype=jnp.int32)[:, None]
        return game.mean_operator(players), each_of(singles), each_of(pairs)

    return apply(name, all_of_them, point(name), pairs(name))


def pairs(name):
    """All minibatches of two, drawn with replacement."""
    n = make(name).num_samples
    return jnp.array(list(itertools.product(range(n), repeat=2)), jnp.int32)


def close(actual, expected, tolerance=TOLERANCE):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_the_table_is_the_suite():
    assert set(SMALL) == set(games.SUITE)


@pytest.mark.slow
@each
def test_the_name_is_the_one_in_the_suite(name):
    assert make(name).name == name


@each
def test_fields_and_solutions_have_the_form_of_the_players(name):
    game, players = make(name), point(name)
    describe = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    batch = jax.eval_shape(lambda k: game.sample(k, 3), jax.random.key(0))
    assert describe(jax.eval_shape(game.operator, players, batch)) == describe(players)
    assert describe(jax.eval_shape(game.mean_operator, players)) == describe(players)
    assert describe(jax.eval_shape(game.projection, players)) == describe(players)
    assert game.saddle is None or describe(game.saddle) == describe(players)
    if game.jacobian is not None:
        size = ravel_pytree(players)[0].size
        assert game.jacobian.shape == (size, size)
    if game.num_samples is not None:
        assert (batch.shape, batch.dtype) == ((3,), jnp.int32)
    else:
        assert {leaf.shape[0] for leaf in jax.tree.leaves(batch)} == {3}


@finite
def test_all_samples_are_drawn_and_no_others(name):
    game = make(name)
    batch = game.sample(jax.random.key(0), 100)
    assert set(batch.tolist()) == set(range(game.num_samples))


@finite
def test_the_mean_over_the_samples_is_the_mean_operator(name):
    mean, singles, _ = fields(name)
    close(jax.tree.map(lambda leaf: leaf.mean(axis=0), singles), mean)
    # The law says nothing of a game without noise.
    assert max(float(leaf.std(axis=0).max()) for leaf in jax.tree.leaves(singles)) > 1e-3


@finite
def test_a_minibatch_is_the_mean_of_its_samples_so_minibatches_are_unbiased(name):
    mean, singles, minibatches = fields(name)
    close(jax.tree.map(lambda leaf: leaf[pairs(name)].mean(axis=1), singles), minibatches)
    close(jax.tree.map(lambda leaf: leaf.mean(axis=0), minibatches), mean)


def test_additive_noise_is_added():
    game, players = make("bilinear_additive_noise"), point("bilinear_additive_noise")
    batch = game.sample(jax.random.key(0), 7)
    mean = game.mean_operator(players)
    close(game.operator(players, optax.tree.zeros_like(batch)), mean)
    added = jax.tree.map(lambda f, noise: f + noise.mean(axis=0), mean, batch)
    close(game.operator(players, batch), added)


@each
def test_the_operator_is_the_gradient_of_the_payoff(name):
    game, players = make(name), point(name)
    batch = game.sample(jax.random.key(1), 3)

    def both(game, players, batch):
        gradient = jax.grad(game.payoff)(players, batch)
        field = {"x": gradient["x"], "y": jax.tree.map(jnp.negative, gradient["y"])}
        return field, game.operator(players, batch)

    close(*apply(name, both, players, batch))


@each
def test_the_jacobian_is_that_of_the_mean_operator_wherever_one_looks(name):
    game = make(name)
    if game.jacobian is None:
        assert name in {"dirac_gan", "gaussian_mixture_gan"}
        return
    flat, unravel = ravel_pytree(point(name))

    def jacobian(game, w):
        return jax.jacfwd(lambda w: ravel_pytree(game.mean_operator(unravel(w)))[0])(w)

    close(apply(name, jacobian, flat), game.jacobian)
    close(apply(name, jacobian, -2 * flat), game.jacobian)


@each
def test_the_saddle_is_a_solution(name):
    game = make(name)
    if game.saddle is None:
        assert name == "gaussian_mixture_gan"
        assert jnp.isnan(games.distance(game, point(name)))
        return

    def merits(game, players):
        gap = 0.0 if game.gap is None else game.gap(players)
        return jnp.stack([games.residual(game, players), games.distance(game, players), gap])

    # The saddles that are solved for are solved in float32, with condition numbers of up to ten.
    assert (abs(apply(name, merits, game.saddle)) <= np.array([1e-5, 0, TOLERANCE])).all()
    assert (apply(name, merits, point(name))[: 2 if game.gap is None else 3] > 1e-2).all()


@each
def test_the_start_is_feasible_and_projecting_twice_changes_nothing(name):
    game = make(name)
    close(game.projection(point(name)), point(name))
    once = game.projection(jax.tree.map(lambda leaf: 3 * leaf - 1, point(name)))
    close(game.projection(once), once)
    if game.saddle is not None:
        close(game.projection(game.saddle), game.saddle)


@each
def test_vmap_over_keys_is_a_loop(name):
    game, keys = make(name), jax.random.split(jax.random.key(5), 2)
    both = lambda key: (game.init(key), game.sample(key, 2))
    loop = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(both, keys))
    close(jax.jit(jax.vmap(both))(keys), loop)


@each
def test_a_game_can_be_drawn_and_played_inside_of_vmap(name):
    def run(key):
        game = games.SUITE[name](key, **SMALL[name])
        return games.play(game, optax.sgd(0.1), num_steps=6, record_every=3, key=key)

    shapes = jax.eval_shape(jax.vmap(run), jax.random.split(jax.random.key(0), 2))
    assert {shapes.distance.shape, shapes.residual.shape, shapes.gap.shape} == {(2, 2)}
    assert jax.tree.structure(shapes.players) == jax.tree.structure(point(name))


@each
def test_in_double_precision_everything_is(name):
    with jax.enable_x64(True):
        arrays, players, field = jax.eval_shape(
            lambda key: (
                split(game := games.SUITE[name](key, **SMALL[name]))[0],
                players := game.init(key),
                game.mean_operator(players),
            ),
            jax.random.key(0),
        )
    for leaf in jax.tree.leaves((arrays, players, field)):
        assert leaf.dtype == jnp.float64


@each
def test_games_of_the_same_shapes_differ_in_their_arrays_only(name):
    """So they share their compiled programs, and nothing large is a constant of those."""
    # Traced, since the draws are nothing that this is about.
    skeletons = []
    for key in (jax.random.key(0), jax.random.key(1)):
        jax.eval_shape(lambda k: skeletons.append(split(games.SUITE[name](k, **SMALL[name]))[1]), key)
    assert skeletons[0] == skeletons[1]
    assert hash(skeletons[0]) == hash(skeletons[1])
