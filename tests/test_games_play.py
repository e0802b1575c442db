"""`play` and `sweep`: the orders by hand, what is recorded, and that lanes are runs."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfair import games, optim

B = np.array([[1.0, 0.5], [-0.3, 0.8]])
A = np.array([[0.6, 0.1], [0.1, 0.4]])
START = {"x": np.array([1.0, -2.0]), "y": np.array([0.5, 3.0])}
RATE = {"x": 0.1, "y": 0.2}
# A few dozen steps in float32, on numbers of order 1.
TOLERANCE = 2e-6
# One object, so that it is compiled for once.
SLOW = optax.sgd(0.01)


def deterministic(**options):
    """f = x'Ax/2 + x'By from one sample, started at START and solved at the origin."""
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), START)
    return games.finite_sum(
        "by hand",
        A=jnp.asarray(A[None], jnp.float32),
        B=jnp.asarray(B[None], jnp.float32),
        init=lambda key: start,
        **options,
    )


def field_x(x, y):
    return A @ x + B @ y


def field_y(x, y):
    return -B.T @ x


def noisy(num_samples=5, dim=3):
    """A small bilinear game with noise in everything."""
    return games.bilinear_ill_conditioned(jax.random.key(1), dim=dim, num_samples=num_samples, min_singular=0.5)


def extragradient(learning_rate):
    """A method of two evaluations, as small as can be."""

    def update(updates, state, params, *, operator_fn, **extra_args):
        half = optax.tree.add_scale(params, -learning_rate, updates)
        updates = optax.tree.scale(-learning_rate, operator_fn(half))
        return updates, {"oracle_calls": state["oracle_calls"] + 2}

    init = lambda params: {"oracle_calls": jnp.zeros((), jnp.int32)}
    return optax.GradientTransformationExtraArgs(init, update)


def close(actual, expected, tolerance=TOLERANCE):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


def distances(path):
    return [np.sqrt(x @ x + y @ y) for x, y in path]


def by_hand(step, num_steps):
    x, y = START["x"], START["y"]
    path = []
    for t in range(num_steps):
        x, y = step(t, x, y)
        path.append((x, y))
    return path


def compare(trajectory, path):
    close(trajectory.distance, distances(path))
    residuals = [np.hypot(np.linalg.norm(field_x(*w)), np.linalg.norm(field_y(*w))) for w in path]
    close(trajectory.residual, residuals)
    close(trajectory.players, dict(zip("xy", path[-1], strict=True)))


def test_simultaneous_by_hand():
    path = by_hand(lambda t, x, y: (x - 0.1 * field_x(x, y), y - 0.1 * field_y(x, y)), 20)
    key = jax.random.key(0)
    trajectory = games.play(deterministic(), optax.sgd(0.1), num_steps=20, key=key)
    compare(trajectory, path)
    assert trajectory.oracle_calls.tolist() == list(range(1, 21))
    assert np.isnan(trajectory.gap).all()


def test_two_evaluations_by_hand():
    def step(t, x, y):
        half = x - 0.1 * field_x(x, y), y - 0.1 * field_y(x, y)
        return x - 0.1 * field_x(*half), y - 0.1 * field_y(*half)

    key = jax.random.key(0)
    trajectory = games.play(deterministic(), extragradient(0.1), num_steps=20, key=key)
    compare(trajectory, by_hand(step, 20))
    assert trajectory.oracle_calls.tolist() == list(range(2, 42, 2))


@pytest.mark.parametrize("first", ["x", "y"])
def test_alternating_by_hand_in_the_order_of_the_dict(first):
    def step(t, x, y):
        if first == "x":
            x = x - RATE["x"] * field_x(x, y)
            return x, y - RATE["y"] * field_y(x, y)
        y = y - RATE["y"] * field_y(x, y)
        return x - RATE["x"] * field_x(x, y), y

    names = ["x", "y"] if first == "x" else ["y", "x"]
    trajectory = games.play(
        deterministic(),
        {name: optax.sgd(RATE[name]) for name in names},
        num_steps=20,
        key=jax.random.key(0),
        order="alternating",
    )
    compare(trajectory, by_hand(step, 20))
    assert trajectory.oracle_calls.tolist() == list(range(1, 21))


def test_local_steps_by_hand():
    synchronised = {}

    def step(t, x, y):
        if t % 3 == 0:
            synchronised.update(x=x, y=y)
        return (
            x - RATE["x"] * field_x(x, synchronised["y"]),
            y - RATE["y"] * field_y(synchronised["x"], y),
        )

    trajectory = games.play(
        deterministic(),
        {name: optax.sgd(rate) for name, rate in RATE.items()},
        num_steps=20,
        key=jax.random.key(0),
        order="local",
        local_steps=3,
    )
    compare(trajectory, by_hand(step, 20))


def test_one_local_step_is_the_simultaneous_order_also_with_noise():
    game, key = noisy(), jax.random.key(2)
    joint = games.play(game, optax.sgd(0.1, momentum=0.5), num_steps=12, key=key)
    each = {name: optax.sgd(0.1, momentum=0.5) for name in "xy"}
    local = games.play(game, each, num_steps=12, key=key, order="local")
    close(local, joint)


@pytest.mark.slow
def test_the_projection_keeps_players_where_they_belong():
    game = games.matrix_game(jax.random.key(1), dim=5, num_samples=4)
    for order, optimizer in {
        "simultaneous": optax.sgd(0.3),
        "alternating": {"x": optax.sgd(0.3), "y": optax.sgd(0.3)},
    }.items():
        trajectory = games.play(game, optimizer, num_steps=30, key=jax.random.key(0), order=order, record_every=30)
        for strategy in trajectory.players.values():
            assert (strategy >= 0).all()
            assert abs(strategy.sum() - 1) < TOLERANCE
        assert trajectory.gap > 0


def test_operators_are_this_minibatch_another_one_and_all_data():
    seen = ("operator_fn", "independent_operator_fn", "mean_operator_fn")

    def update(updates, state, params, **extra_args):
        assert extra_args["field"] is updates
        state = {"field": updates, **{name: extra_args[name](params) for name in seen}}
        return optax.tree.zeros_like(updates), state

    init = lambda params: dict.fromkeys(("field", *seen), params)
    spy = optax.GradientTransformationExtraArgs(init, update)
    game = noisy()
    fields = {}
    for first, second in (seen[:2], ("field", seen[2])):
        # Two of the four are recorded in the places of the distance and the gap.
        recording = game._replace(
            distance=lambda at, name=first: games.distance(game, at["seen"][name]),
            gap=lambda at, name=second: games.distance(game, at["seen"][name]),
        )
        trajectory = games.play(
            recording,
            spy,
            num_steps=40,
            key=jax.random.key(0),
            measure=lambda players, state: {**players, "seen": state},
        )
        fields[first], fields[second] = map(np.asarray, trajectory[:3:2])
    players = game.init(jax.random.split(jax.random.key(0), 3)[0])
    values = [game.operator(players, jnp.array([i])) for i in range(5)]
    possible = np.array([games.distance(game, value) for value in values])

    def which(found):
        return np.abs(found[:, None] - possible[None]).argmin(axis=1)

    close(fields["operator_fn"], fields["field"])
    close(fields["field"], possible[which(fields["field"])])
    close(fields["independent_operator_fn"], possible[which(fields["independent_operator_fn"])])
    close(fields["mean_operator_fn"][0], games.distance(game, game.mean_operator(players)))
    # Two independent draws of 5 agree 40 times in a row with a probability of 5^-40; that each of the five
    # is missed by 40 draws has one of 7e-4, and the key is fixed.
    assert (which(fields["field"]) != which(fields["independent_operator_fn"])).any()
    assert set(which(fields["field"])) == set(range(5))


@pytest.mark.parametrize("record_every", [7, 300])
def test_recording_less_often_is_a_selection(record_every):
    options = {"num_steps": 2100, "key": jax.random.key(3)}
    every = games.play(noisy(), SLOW, **options)
    some = games.play(noisy(), SLOW, **options, record_every=record_every)
    selected = slice(record_every - 1, None, record_every)
    assert some.distance.shape == (2100 // record_every,)
    assert some.oracle_calls.tolist() == every.oracle_calls[selected].tolist()
    # The same numbers up to the rounding of differently fused programs, over 2100 contracting steps.
    close(some.distance, every.distance[selected], 1e-4)
    close(some.residual, every.residual[selected], 1e-4)
    close(some.players, every.players, 1e-4)


def test_what_is_measured_can_be_an_average_of_the_iterates():
    """Of those before each step: the start is in it, the last one is not."""

    def update(updates, state, params):
        total, count = state
        return optax.tree.scale(-0.1, updates), (optax.tree.add(total, params), count + 1)

    init = lambda params: (optax.tree.zeros_like(params), jnp.zeros(()))
    tx = optax.GradientTransformation(init, update)
    average = lambda players, state: optax.tree.scale(1 / state[1], state[0])
    trajectory = games.play(deterministic(), tx, num_steps=20, key=jax.random.key(0), record_every=4, measure=average)
    path = by_hand(lambda t, x, y: (x - 0.1 * field_x(x, y), y - 0.1 * field_y(x, y)), 20)
    before = [(START["x"], START["y"]), *path[:-1]]
    averages = [np.mean(before[:t], axis=0) for t in range(4, 24, 4)]
    close(trajectory.distance, distances(averages))
    close(trajectory.players, dict(zip("xy", path[-1], strict=True)))


def test_batches_are_means_over_more_samples():
    """The spread of single steps from one start: its variance is that of one sample over the batch size."""
    game = noisy()
    far = game._replace(init=lambda key: {"x": jnp.full(3, 5.0), "y": jnp.full(3, -5.0)})
    keys = jax.random.split(jax.random.key(0), 2000)

    def variance(batch_size):
        run = lambda key: games.play(far, optax.sgd(1.0), num_steps=1, key=key, batch_size=batch_size)
        x = jax.vmap(run)(keys).players["x"]
        return float(x.var(axis=0).sum())

    # A variance from 2000 draws of three entries: relative errors of about 3 percent each.
    assert abs(variance(1) / variance(4) / 4 - 1) < 0.15


@pytest.mark.slow
def test_play_compiles_once_for_any_key():
    traces = []

    def update(updates, state, params=None):
        traces.append(1)
        return optax.tree.scale(-0.1, updates), state

    counting = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    game = noisy()
    games.play(game, counting, num_steps=30, key=jax.random.key(0), record_every=3)
    once = len(traces)
    other = games.play(game, counting, num_steps=30, key=jax.random.key(1), record_every=3)
    # Another game of the same kind and shape does not compile either.
    games.play(noisy(), counting, num_steps=30, key=jax.random.key(1), record_every=3)
    assert len(traces) == once
    assert np.isfinite(other.distance).all()

    make_optimizer = lambda lr: counting
    counts = []
    for lrs in ([0.1, 0.2], [0.3, 0.4]):
        keys = jax.random.split(jax.random.key(0), 2)
        games.sweep(game, make_optimizer, {"lr": np.array(lrs)}, num_steps=30, keys=keys)
        counts.append(len(traces))
    assert counts[0] == counts[1] > once


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
@pytest.mark.slow
def test_a_sweep_is_a_loop_of_plays(order):
    def make_optimizer(lr, momentum):
        tx = optax.sgd(lr, momentum=momentum)
        return tx if order == "simultaneous" else {"x": tx, "y": optax.sgd(lr)}

    game, keys = noisy(), jax.random.split(jax.random.key(6), 3)
    settings = games.grid(lr=[0.01, 0.05], momentum=[0.0, 0.5])
    options = {"num_steps": 20, "batch_size": 2, "record_every": 5, "order": order}
    swept = games.sweep(game, make_optimizer, settings, keys=keys, **options)
    assert swept.distance.shape == (4, 3, 4)
    assert swept.players["x"].shape == (4, 3, 3)
    for h, s in [(1, 2), (2, 0)]:
        optimizer = make_optimizer(**{name: float(v[h]) for name, v in settings.items()})
        alone = games.play(game, optimizer, key=keys[s], **options)
        close(jax.tree.map(lambda leaf, h=h, s=s: leaf[h, s], swept), alone)


def test_a_lane_that_diverges_stays_in_its_lane():
    game, keys = noisy(), jax.random.split(jax.random.key(7), 2)
    options = {"num_steps": 400, "record_every": 100, "keys": keys}
    swept = games.sweep(game, optax.sgd, {"learning_rate": np.array([1e3, 1e-2])}, **options)
    alone = games.sweep(game, optax.sgd, {"learning_rate": np.array([1e-2])}, **options)
    assert not np.isfinite(swept.distance[0]).any()
    assert not np.isfinite(swept.players["x"][0]).any()
    assert np.isfinite(alone.distance).all()
    close(jax.tree.map(lambda leaf: leaf[1:], swept), alone, 1e-5)


def test_a_game_per_seed():
    draw, sgd = (lambda key: games.bilinear_coordinates(key, dim=3)), optax.sgd(0.1)
    keys = jax.random.split(jax.random.key(8), 2)
    swept = games.sweep(draw, optax.sgd, {"learning_rate": np.array([0.1])}, num_steps=8, keys=keys)
    for s in range(2):
        game_key, play_key = jax.random.split(keys[s])
        alone = games.play(draw(game_key), sgd, num_steps=8, key=play_key)
        close(jax.tree.map(lambda leaf, s=s: leaf[0, s], swept), alone)
    assert abs(swept.residual[0, 0] - swept.residual[0, 1]).min() > 1e-3


def test_random_methods_get_a_key_per_lane():
    def make_optimizer(lr, key):
        noise = jax.random.normal(key)
        return optax.stateless(lambda field, params: jax.tree.map(lambda g: 0 * g + noise, field))

    game = noisy()._replace(init=lambda key: {"x": jnp.zeros(3), "y": jnp.zeros(3)})
    keys = jax.random.split(jax.random.key(9), 3)
    swept = games.sweep(game, make_optimizer, {"lr": np.ones(2)}, num_steps=1, keys=keys)
    assert len(np.unique(swept.players["x"][:, :, 0])) == 6


def test_a_grid_is_a_product_in_the_order_of_its_names():
    grid = games.grid(a=[1, 2], b=[3.0, 4.0, 5.0], c=[6])
    assert grid["a"].tolist() == [1, 1, 1, 2, 2, 2]
    assert grid["b"].tolist() == [3, 4, 5, 3, 4, 5]
    assert grid["c"].tolist() == [6] * 6


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (optax.sgd(0.1), {"num_steps": 10, "record_every": 3}, "record_every divides"),
        (optax.sgd(0.1), {"num_steps": 0}, "num_steps=0"),
        (optax.sgd(0.1), {"local_steps": 2}, "local order only"),
        (optax.sgd(0.1), {"order": "alternating"}, "dict of transformations"),
        ({"x": optax.sgd(0.1)}, {"order": "local"}, r"\['x', 'y'\]"),
        ({"x": optax.sgd(0.1), "y": optax.sgd(0.1)}, {}, "optax.partition"),
        (optax.sgd(0.1), {"num_steps": 2.5}, r"num_steps=2\.5: give a whole number"),
        (optax.sgd(0.1), {"num_steps": np.nan}, "num_steps=nan"),
        (optax.sgd(0.1), {"batch_size": 0}, "batch_size=0: give a whole number of at least 1"),
        (optax.sgd(0.1), {"batch_size": True}, "batch_size=True"),
        (optax.sgd(0.1), {"record_every": "2"}, "record_every=2: give a whole number"),
        (optax.sgd(0.1), {"record_every": np.float32(-1)}, "record_every=-1.0"),
        (optax.sgd(0.1), {"local_steps": 1.5, "order": "local"}, "local_steps=1.5|dict of transformations"),
    ],
)
def test_wrong_calls_say_what_is_wrong(optimizer, options, message):
    options = {"num_steps": 10, **options}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(games.play)(deterministic(), optimizer, key=jax.random.key(0), **options)


def test_lengths_of_numpy_and_jax_are_lengths():
    lengths = {"num_steps": jnp.int32(4), "record_every": np.int64(2), "batch_size": np.float32(1.0)}
    game, sgd = deterministic(), optax.sgd(0.1)
    one = inspect.unwrap(games.play)(game, sgd, key=jax.random.key(0), **lengths)
    two = games.play(game, sgd, key=jax.random.key(0), num_steps=4, record_every=2)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    with pytest.raises(ValueError, match="num_steps=0"):
        games.sweep(
            game, lambda lr: optax.sgd(lr), {"lr": np.ones(1)}, num_steps=0, keys=jax.random.split(jax.random.key(0), 1)
        )


@pytest.mark.parametrize(
    "settings",
    [{}, {"lr": 0.1}, {"lr": np.ones(2), "momentum": np.ones(3)}, {"lr": np.ones((2, 2))}],
)
def test_settings_must_be_zipped(settings):
    with pytest.raises(ValueError, match="one axis and one length"):
        games.sweep(
            deterministic(),
            lambda **setting: optax.sgd(0.1),
            settings,
            num_steps=1,
            keys=jax.random.split(jax.random.key(0), 1),
        )


# --- calls of an optimizer that does not count them ---


def own(moves, init=lambda params: jnp.zeros((), jnp.int32)):
    """An optimizer of somebody else: ``moves(updates, step, params, **operators) -> updates``; no `oracle_calls`."""

    def update(updates, state, params, **operators):
        return moves(updates, state, params, **operators), state + 1

    return optax.GradientTransformationExtraArgs(init, update)


def half(params, updates):
    return optax.tree.add_scale(params, -0.01, updates)


def down(updates):
    return optax.tree.scale(-0.01, updates)


def twice(updates, step, params, *, operator_fn, **rest):
    return down(operator_fn(half(params, updates)))


def on_both_minibatches(updates, step, params, *, operator_fn, independent_operator_fn, **rest):
    return down(optax.tree.add(operator_fn(params), independent_operator_fn(half(params, updates))))


def in_a_loop(updates, step, params, *, operator_fn, **rest):
    return down(lax.fori_loop(0, 5, lambda i, u: operator_fn(half(params, u)), updates))


def every_third_step(updates, step, params, *, operator_fn, **rest):
    again = lambda u: operator_fn(half(params, u))
    return down(lax.cond(step % 3 == 0, jax.jit(lambda u: again(again(u))), lambda u: u, updates))


def as_long_as_it_takes(updates, step, params, *, operator_fn, **rest):
    """In step t it evaluates t times again."""
    more = lambda carry: (carry[0] + 1, operator_fn(half(params, carry[1])))
    return down(lax.while_loop(lambda carry: carry[0] < step, more, (jnp.zeros((), jnp.int32), updates))[1])


def with_a_product(updates, step, params, *, operator_fn, **rest):
    _, vjp = jax.vjp(operator_fn, params)
    _, moved = jax.jvp(operator_fn, (params,), (updates,))
    return down(optax.tree.add(vjp(updates)[0], moved))


def of_the_mean(updates, step, params, *, mean_operator_fn, **rest):
    return down(mean_operator_fn(params))


def thrifty(updates, step, params, **rest):
    return down(updates)


CALLS = {
    "once": (own(thrifty), lambda t: 1),
    "twice": (own(twice), lambda t: 2),
    "both minibatches": (own(on_both_minibatches), lambda t: 3),
    "loop": (own(in_a_loop), lambda t: 6),
    "every third step": (own(every_third_step), lambda t: 3 if t % 3 == 0 else 1),
    "while": (own(as_long_as_it_takes), lambda t: 1 + t),
    "a product": (own(with_a_product), lambda t: 3),
    "the mean": (own(of_the_mean), lambda t: 2),
    "inside a wrapper of ours": (optim.lookahead(own(twice), period=4), lambda t: 2),
    "in a chain": (optax.chain(own(twice), optax.clip(1.0)), lambda t: 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_counted_as_they_happen(name):
    tx, calls = CALLS[name]
    trajectory = games.play(noisy(), tx, num_steps=10, key=jax.random.key(0))
    assert trajectory.oracle_calls.tolist() == np.cumsum([calls(t) for t in range(10)]).tolist()


@pytest.mark.parametrize("name", ["twice", "every third step", "while"])
def test_counting_changes_nothing_of_what_is_played(name):
    """The same steps by hand, compiled one by one."""
    game, (tx, _) = noisy(num_samples=1), CALLS[name]
    trajectory = games.play(game, tx, num_steps=8, key=jax.random.key(0))
    players = game.init(jax.random.split(jax.random.key(0), 3)[0])
    state, batch = tx.init(players), game.sample(jax.random.key(0), 1)
    field = lambda w: game.operator(w, batch)
    step = jax.jit(lambda players, state: tx.update(field(players), state, players, operator_fn=field))
    for _ in range(8):
        updates, state = step(players, state)
        players = optax.apply_updates(players, updates)
    close(trajectory.players, players)


def test_each_lane_of_a_sweep_counts_its_own_calls():
    """As many evaluations as the setting says: a loop whose length is traced."""

    def make(repeats):
        def moves(updates, step, params, *, operator_fn, **rest):
            return down(lax.fori_loop(0, repeats, lambda i, u: operator_fn(half(params, u)), updates))

        return own(moves)

    found = games.sweep(
        noisy(),
        make,
        games.grid(repeats=np.array([0, 1, 4])),
        num_steps=6,
        record_every=3,
        keys=jax.random.split(jax.random.key(0), 2),
    )
    np.testing.assert_array_equal(found.oracle_calls, np.broadcast_to([[[3, 6]], [[6, 12]], [[15, 30]]], (3, 2, 2)))


def test_a_state_that_forgets_calls_is_not_believed():
    def forgetful(updates, state, params, *, operator_fn, **rest):
        return down(operator_fn(half(params, updates))), state

    tx = optax.GradientTransformationExtraArgs(lambda params: {"oracle_calls": jnp.zeros((), jnp.int32)}, forgetful)
    assert games.play(noisy(), tx, num_steps=4, key=jax.random.key(0)).oracle_calls.tolist() == [2, 4, 6, 8]
