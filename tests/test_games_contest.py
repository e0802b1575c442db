"""Methods compared at an equal price: what they cost, where they start, and the formulas that comparisons rest on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import games


def contest(**more):
    return games.Contest(40, {"tuning": 2, "comparison": 3}, dim=3, num_samples=2)._replace(**more)


def turning():
    """The game x y, without noise."""
    return games.finite_sum("xy", B=jnp.ones((1, 1, 1)))


@pytest.mark.parametrize("name", [n for n, method in games.METHODS.items() if not method.measure])
def test_the_cost_of_a_step_is_what_the_method_counts(name):
    method = games.METHODS[name]
    game = games.bilinear(jax.random.key(0), dim=3, num_samples=2)
    setting = {"lr": 0.01} | ({method.second: 0.5} if method.second else {})
    seen = games.play(game, method.make(**setting), num_steps=2, key=jax.random.key(0))
    assert seen.oracle_calls.tolist() == [method.calls, 2 * method.calls]


@pytest.mark.parametrize("name", [n for n, s in games.SETUPS.items() if s.linear])
def test_every_linear_game_is_built_in_its_size_and_has_a_solution(name):
    def shapes():
        game = contest(dim=6, num_samples=3).build(name)
        return game.saddle, game.jacobian

    saddle, jacobian = jax.eval_shape(shapes)
    assert jacobian.shape == (saddle["x"].size + saddle["y"].size,) * 2
    if games.SETUPS[name].sized:
        assert saddle["x"].shape == (6,)


def test_every_game_of_the_suite_is_set_up():
    assert set(games.SUITE) <= set(games.SETUPS)


def test_methods_make_as_many_oracle_calls_as_they_may():
    rules = contest(budget=1000)
    (one, every), (two, twice) = (rules.length(games.METHODS[name], 100) for name in ("sgd", "extragradient"))
    assert (one, every) == (2 * two, 2 * twice) == (1000, 10)
    assert contest(budget=1000, max_steps=50).length(games.METHODS["sgd"], 100) == (50, 1)


def test_what_is_recorded_of_a_seed_is_what_was_played():
    rules, method = contest(), games.METHODS["sgd"]
    game = rules.build("bilinear")
    seen = rules.play(game, method, {"lr": [0.1]}, "comparison", records=100)
    rows = rules.compare(game, method, {"lr": 0.1}, "comparison")
    assert [row["final"] for row in rows] == seen.final[0].tolist()
    assert [row["log_distance"] for row in rows] == np.log(seen.final[0]).tolist()
    assert rows[1]["distance"].tolist() == seen.distance[0, 1].tolist()
    still = rules.play(game, method, {"lr": [0.0]}, "comparison")
    np.testing.assert_allclose([row["start"] for row in rows], still.distance[0, :, 0], rtol=1e-6)


def test_more_seeds_begin_with_the_same_ones_and_roles_share_none():
    few, many = contest(), contest(seeds={"tuning": 2, "comparison": 7})
    data = {role: jax.random.key_data(many.keys(role)).tolist() for role in ("tuning", "comparison")}
    assert jax.random.key_data(few.keys("comparison")).tolist() == data["comparison"][:3]
    assert not any(key in data["comparison"] for key in data["tuning"])


def test_a_seed_that_diverges_is_infinitely_far_and_never_chosen():
    distance = np.ones((2, 2, 20))
    distance[0, 1, 18:] = [np.inf, np.nan]
    final = games.tail(distance)
    np.testing.assert_array_equal(final, [[1.0, np.inf], [1.0, 1.0]])
    assert games.mean_log(final).argmin() == 1


def test_the_radius_is_the_published_boundary_and_table():
    def qmax(o, b):
        x = (1 + 2 * o * b + b * b) / (2 * (o + b))
        low = (1 + o) ** 2 + (o + b) ** 2 - 2 * (1 + o) * (o + b) * x
        return math.sqrt((2 - 2 * x) * (1 + b * b - 2 * b * x) / low)

    eigenvalues = np.array([1j, -1j])
    for o, b in ((1.0, 0.0), (10.0, 0.0), (1.0, 0.9), (3.0, 0.9), (1.0, 0.5)):
        rates = qmax(o, b) * np.array([0.999, 1.001])
        below, above = games.radius(eigenvalues, rates, np.full(2, o), b)
        assert below < 1 < above
    got = games.radius(eigenvalues, np.array([0.01, 0.1]), np.ones(2), 0.9)
    np.testing.assert_allclose(got, [0.99903984, 0.96815314], atol=5e-9)


def test_lookahead_contracts_as_its_formula_says():
    make = games.METHODS["lookahead"].make
    seen = games.play(turning(), make(0.1, 0.5), num_steps=40, record_every=10, key=jax.random.key(0))
    factor = abs(1 - 0.5 + 0.5 * (1 - 0.1j) ** 10)
    np.testing.assert_allclose(seen.distance[1:] / seen.distance[:-1], factor, rtol=1e-5)


def test_an_averaged_method_moves_alike_and_is_looked_at_through_its_average():
    plain, averaged = (games.METHODS[n] for n in ("sgd", "sgd_averaged"))
    key = jax.random.key(0)
    once, seen = (
        games.play(turning(), m.make(lr=0.1), num_steps=30, key=key, measure=m.measure) for m in (plain, averaged)
    )
    first = turning().init(jax.random.split(key, 3)[0])
    z = complex(first["x"].item(), first["y"].item())
    path = z * (1 + 0.1j) ** np.arange(1, 31)  # x' = x - 0.1 y, y' = y + 0.1 x
    np.testing.assert_allclose(once.distance, abs(path), rtol=1e-5)
    average = np.cumsum(path) / np.arange(1, 31)
    np.testing.assert_allclose(seen.distance, abs(average), rtol=1e-5)
    np.testing.assert_allclose(seen.players["x"], once.players["x"])


@pytest.mark.slow
def test_a_large_minibatch_is_the_mean_of_its_samples():
    game = contest(num_samples=5).build("quadratic_0.1")
    key, players = jax.random.key(1), game.init(jax.random.key(2))
    parts = games.sample_matrices(game)
    for size in (1, 4):
        batches = games.in_minibatches(game, parts, size, largest=4)
        got = batches.operator(players, batches.sample(key, 1))
        drawn = jax.random.randint(key, (4,), 0, 5)[:size]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            got,
            game.operator(players, drawn),
        )


def test_the_authors_settings_are_those_of_their_games():
    method, setting = games.published("quadratic_linear", "omega 1")
    assert setting == {"lr": 0.02, "optimism": 1.0}
    assert method is games.published("quadratic_linear", "omega 1")[0]  # or it would compile again
    assert games.published("quadratic", "sgd") == (games.METHODS["sgd"], {"lr": 0.01})
    with pytest.raises(ValueError, match="'matrix_game' is no game of Omega's authors"):
        games.published("matrix_game", "sgd")
