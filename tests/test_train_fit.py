"""`train.fit`, `run`, `dense`, `population`: any Solver, in every way that a plan allows."""

import ast
import functools
import pathlib
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfair
from jaxfair import constraints, data, metrics, models, study, train
from jaxfair.typing import Batch, Model, Solver

NUM, FEATURES, EPOCHS, STEPS = 40, 3, 4, 10


# --- a solver that knows no classes and no groups -----------------------------------------------------------------


class State(NamedTuple):
    """Least squares by a second player: the weights descend, the residuals' prices ascend."""

    params: Any
    prices: jax.Array
    step: jax.Array


class Info(NamedTuple):
    loss: jax.Array


def least_squares(rate=0.05):
    r"""min_w max_p  mean(p (x w - y) - p^2 / 4), whose inner maximum is the mean of (x w - y)^2."""

    def init(params):
        return State({"w": params}, jnp.zeros(NUM), jnp.int32(0))

    def step(state, batch, key):
        noise = 1e-3 * jax.random.normal(key, state.params["w"].shape)
        residual = batch.x @ state.params["w"] - batch.y
        prices = state.prices[batch.index]
        prices += 0.5 * (residual - prices / 2)
        gradient = batch.x.T @ prices / len(batch.y)
        new = State(
            {"w": state.params["w"] - rate * gradient + rate * noise},
            state.prices.at[batch.index].set(prices),
            state.step + 1,
        )
        return new, Info(jnp.mean(residual**2))

    return Solver(init, step)


@functools.cache
def points():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM, FEATURES)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5], np.float32) + 0.01 * rng.normal(size=NUM).astype(np.float32)
    nothing = np.zeros(NUM, np.int32)
    return Batch(x=x, y=y, group=nothing, index=np.arange(NUM, dtype=np.int32), weight=np.ones(NUM))


KEYS = jax.random.split(jax.random.key(1), 3)


def fit(plan=None, start=None, **options):
    solver = least_squares()
    if start is None:
        start = jax.vmap(solver.init)(jnp.zeros((3, FEATURES)))
    options = {"epochs": EPOCHS, "batch_size": 8, "num_steps": STEPS} | options
    return train.fit(solver, start, points(), keys=KEYS, plan=plan, **options)


def test_least_squares_by_a_second_player_is_solved():
    state = fit(epochs=40)
    best = np.linalg.lstsq(points().x, points().y, rcond=None)[0]
    np.testing.assert_allclose(state.solver.params["w"], np.tile(best, (3, 1)), atol=2e-2)
    assert state.average == ()
    assert state.solver.step.tolist() == [40 * STEPS] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "stream"),
    [
        (train.Plan(steps_per_call=3), None),
        (train.Plan(mapped=False, steps_per_call=1), None),
        (train.Plan(mapped=False, streamed=True, steps_per_call=4), None),
        (train.Plan(mapped=False, streamed=True, steps_per_call=4), data.stream),
    ],
)
def test_every_plan_is_the_same_run(plan, stream):
    # Alone, in a scan or mapped, XLA sums in another order.
    found = fit(plan, stream=stream)
    chex.assert_trees_all_close(found, fit(), rtol=1e-4, atol=1e-5)


def test_run_is_the_same_in_one_program():
    solver = least_squares()

    def one(key):
        return train.run(
            solver, solver.init(jnp.zeros(FEATURES)), points(), key, epochs=EPOCHS, batch_size=8,
            num_steps=STEPS, look=lambda state, epoch: (epoch, state.solver.params["w"]),
        )  # fmt: skip

    state, (epochs, seen) = jax.jit(jax.vmap(one))(KEYS)
    rows = []
    expected = fit(show=lambda done, total, new: rows.extend(new))
    chex.assert_trees_all_close(state.solver, expected.solver, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(seen[:, -1], state.solver.params["w"])
    assert epochs[0].tolist() == list(range(EPOCHS))


@pytest.mark.slow
def test_lanes_may_differ_in_numbers_and_see_the_whole_split():
    rates = jnp.array([0.02, 0.05, 0.1])
    start = jax.vmap(least_squares().init)(jnp.zeros((3, FEATURES)))
    options = {"keys": KEYS, "settings": rates, "epochs": 5, "batch_size": None, "num_steps": 4}
    for plan in (train.Plan(), train.Plan(mapped=False)):
        state = train.fit(least_squares, start, points(), plan=plan, **options)
        np.testing.assert_array_equal(state.settings, rates)
        for i, rate in enumerate(rates):
            solver = least_squares(rate)
            alone, step = solver.init(jnp.zeros(FEATURES)), jax.jit(solver.step)
            for t in range(20):
                alone, _ = step(alone, points(), jax.random.fold_in(KEYS[i], t))
            chex.assert_trees_all_close(train.take(state.solver, i), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_lanes_may_have_data_of_their_own():
    more = jax.tree.map(lambda a: np.stack([a, a, a]), points())
    scales = np.array([1.0, 1.0, 3.0], np.float32)
    more = more._replace(y=more.y * scales[:, None])
    every = Batch(0, 0, 0, 0, 0)
    state = fit(epochs=30)
    for plan in (train.Plan(), train.Plan(mapped=False)):
        solver = least_squares()
        start = jax.vmap(solver.init)(jnp.zeros((3, FEATURES)))
        own = train.fit(solver, start, more, keys=KEYS, plan=plan, epochs=30, batch_size=8, num_steps=STEPS,
                        split_axes=every)  # fmt: skip
        chex.assert_trees_all_close(own.solver.params["w"][:2], state.solver.params["w"][:2], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(own.solver.params["w"][2], 3 * state.solver.params["w"][2], atol=5e-2)  # fmt: skip


def test_a_meter_may_keep_something_of_every_step_and_begins_again():
    meter = train.trace("w", lambda state, info: state.params["w"], (FEATURES,), STEPS)
    seen = []

    def end_epoch(state, epoch, values):
        seen.append(values["w"])
        return train.Epoch(state, {"largest": jnp.abs(values["w"]).max((1, 2))})

    rows = []
    fit(meter=meter, end_epoch=end_epoch, show=lambda done, total, new: rows.extend(new))
    assert [r["epoch"] for r in rows if r["lane"] == 2] == list(range(EPOCHS))
    assert all(isinstance(row["largest"], float) for row in rows)
    whole = np.concatenate(seen, axis=1)
    np.testing.assert_array_equal(whole[:, 0], 0.0)
    assert (np.abs(np.diff(whole, axis=1)).max(axis=(0, 2)) > 0).all()


def test_a_trace_counts_its_own_steps_from_the_middle_of_a_training():
    first = fit(epochs=1).solver
    meter = train.trace("step", lambda state, info: jnp.float32(state.step), (), STEPS)
    seen = []

    def end_epoch(state, epoch, values):
        seen.append(np.asarray(values["step"]))
        return train.Epoch(state, {})

    moved = first._replace(step=first.step + 1)  # no multiple of the steps of an epoch
    fit(start=moved, epochs=1, meter=meter, end_epoch=end_epoch)
    np.testing.assert_array_equal(np.diff(seen[0], axis=1), 1.0)
    assert seen[0][0, 0] == STEPS + 1


# --- stopped and resumed ------------------------------------------------------------------------------------------


def keep_best(state, epoch, values):
    kept = jax.vmap(
        lambda kept, params, loss: train.keep_if(
            train.better_score(kept, loss), kept, params, {}, loss, epoch, averaged=False
        )
    )(state.kept, state.solver.params, values["loss"])
    return train.Epoch(state._replace(kept=kept), values | {"best": kept.epoch})


def resumable(folder, plan, stop_after=None):
    calls = []
    empty = jax.vmap(lambda w: train.empty_snapshot({"w": w}, {}))(jnp.zeros((3, FEATURES)))
    state = fit(
        plan, epochs=5, kept=empty, end_epoch=keep_best, average_from=20, average_decay=0.9, save_every=2,
        record=folder / "records.jsonl", checkpoints=folder / "checkpoints",
        names=[{"phase": "toy", "seed": s} for s in range(3)],
        show=lambda done, total, rows: calls.append(done),
        stop=lambda: stop_after is not None and len(calls) >= stop_after,
    )  # fmt: skip
    return state, study.read(folder / "records.jsonl")


@pytest.mark.parametrize(("mapped", "stop_after"), [(True, 1), (True, 8), (False, 14)])
@pytest.mark.slow
def test_a_stopped_fit_goes_on_bit_for_bit(tmp_path, mapped, stop_after):
    plan = train.Plan(mapped=mapped, steps_per_call=5)
    state, records = resumable(tmp_path / "a", plan)
    with pytest.raises(study.Stopped):
        resumable(tmp_path / "b", plan, stop_after)
    # As if an epoch more had been recorded before the power went, and another phase were in the file.
    study.append(tmp_path / "b" / "records.jsonl", {"phase": "toy", "seed": 2, "epoch": 4, "loss": -1.0})  # fmt: skip
    again, resumed = resumable(tmp_path / "b", plan)
    chex.assert_trees_all_equal(state, again)
    assert sorted(resumed, key=str) == sorted(records, key=str)
    finished, unchanged = resumable(tmp_path / "b", plan)
    chex.assert_trees_all_equal(finished, state)
    assert unchanged == resumed


def test_keys_in_a_state_survive_a_checkpoint(tmp_path):
    state = {"key": jax.random.split(jax.random.key(3), 2), "w": jnp.ones(2)}
    with train.Checkpoints(tmp_path) as store:
        store.save(1, state)
        _, read = store.restore(jax.tree.map(lambda a: a, state))
    np.testing.assert_array_equal(jax.random.key_data(read["key"]), jax.random.key_data(state["key"]))  # fmt: skip


@pytest.mark.slow
def test_all_of_the_state_can_be_donated():
    donated = fit(average_from=10, average_decay=0.9, donate=True)
    chex.assert_trees_all_equal(donated, fit(average_from=10, average_decay=0.9))
    chunk = jax.jit(
        train.make_chunk(train.make_step(least_squares().step, average_from=0, average_decay=0.5)),
        donate_argnums=0,
    )
    state = train.init_state(least_squares().init(jnp.zeros(FEATURES)))
    chunk(state, points(), jnp.zeros((2, 8), jnp.int32), KEYS[0])
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_a_lane_that_fails_is_said_and_the_others_go_on():
    rates = jnp.array([0.05, 1e30, 0.05])
    start = jax.vmap(least_squares().init)(jnp.zeros((3, FEATURES)))
    rows = []
    state = train.fit(
        least_squares, start, points(), keys=KEYS, settings=rates, epochs=2, batch_size=8, num_steps=STEPS,
        show=lambda done, total, new: rows.extend(new),
    )  # fmt: skip
    assert (state.failed_at[::2] == -1).all()
    assert 0 <= int(state.failed_at[1]) < STEPS
    assert [row["failed_at"] for row in rows if row["lane"] == 1] == [int(state.failed_at[1])] * 2
    assert np.isfinite(state.solver.params["w"]).all()


# --- networks -----------------------------------------------------------------------------------------------------


def test_a_network_of_nans_is_right_about_nobody():
    x = jnp.array([[jnp.nan, jnp.nan], [jnp.nan, 0.0], [0.0, 1.0]])
    y = jnp.array([0, 0, 1])
    index = jnp.arange(3)
    predict = train.predictor(lambda p, s, x, *, train: (x * p, s), train.Plan())
    label = predict(jnp.ones(1), {}, Batch(x, y, index, index, jnp.ones(3))).label[0]
    np.testing.assert_array_equal(label == y, metrics.correct(x, y))
    assert label.tolist() == [-1, -1, 1]


@functools.cache
def digits():
    return data.load("digits")


def test_plans_know_convolutions_and_large_data():
    split = digits().train
    assert train.plan(models.mlp(10), split) == train.Plan()
    convolved = Model(
        init=lambda key, x: ({"k": jnp.ones((3, 3, 1, 10))}, {}),
        apply=lambda p, s, x, *, train, key=None: (
            jax.lax.conv(x.transpose(0, 3, 1, 2), p["k"].T, (1, 1), "SAME").mean((2, 3)),
            s,
        ),
        prunable=lambda path: True,
    )
    on_cpu = jax.default_backend() == "cpu"
    plan = train.plan(convolved, split)
    assert plan == train.Plan(not on_cpu, False, on_cpu, 1 if on_cpu else 0)
    assert train.plan(convolved, split, "map").mapped
    streamed = train.plan(models.mlp(10), split, max_data_bytes=1000)
    assert streamed == train.Plan(mapped=False, streamed=True, steps_per_call=64)
    with pytest.raises(ValueError, match="lanes='side'"):
        train.plan(models.mlp(10), split, "side")


@pytest.mark.slow
def test_descent_is_the_unconstrained_problem():
    model, split = models.mlp(10, hidden=(16,)), jax.tree.map(jnp.asarray, digits().train)
    params, state = model.init(jax.random.key(0), split.x[:1])
    problem = constraints.unconstrained(model.apply, num_groups=10)
    other = constraints.solver(
        problem.evaluate, multipliers=constraints.dense(0), primal=optax.adam(1e-3), dual=optax.sgd(1.0)
    )  # fmt: skip
    nothing = jnp.zeros(len(split.y))
    begun = other.init(params, problem.init(state, constraints.Outcomes(nothing, nothing), split))
    one = train.descent(model.apply, optax.adam(1e-3))
    found = {}
    for name, solver, start in (("plain", one, one.init(params, state)), ("solver", other, begun)):
        rows = []
        meter = train.group_meter(10)
        done = train.fit(
            solver, jax.tree.map(lambda a: a[None], start), split, keys=KEYS[:1], epochs=2, batch_size=64,
            num_steps=19, meter=meter, show=lambda d, t, new, rows=rows: rows.extend(new),
        )  # fmt: skip
        found[name] = train.network_of(done.solver), rows
    chex.assert_trees_all_close(found["plain"][0], found["solver"][0], rtol=1e-5, atol=1e-6)
    for a, b in zip(found["plain"][1], found["solver"][1], strict=True):
        assert a["group_accuracy"] == b["group_accuracy"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


@pytest.mark.slow
def test_dense_networks_stop_early_and_are_read_again(tmp_path):
    model, file, rows = models.mlp(10, hidden=(16,)), tmp_path / "dense.npz", []
    arguments = {"keys": KEYS[:2], "epochs": 30, "batch_size": 64, "patience": 2}
    arguments["show"] = lambda done, total, new: rows.extend(new)
    found = train.dense(model, digits().train, digits().validation, optax.adam(0.03), file=file, **arguments)
    best = [min((r["validation_loss"], r["epoch"]) for r in rows if r["lane"] == i)[1] for i in (0, 1)]  # fmt: skip
    assert found.epoch.tolist() == best
    assert rows[-1]["epoch"] == max(best) + 2 < 29
    count = len(rows)
    again = train.dense(model, digits().train, digits().validation, optax.adam(0.03), file=file, **arguments)
    chex.assert_trees_all_equal(found, again)
    assert len(rows) == count
    other = models.mlp(10, hidden=(8,))
    with pytest.raises(ValueError, match="holds another network"):
        train.dense(other, digits().train, file=file, **arguments)


@pytest.mark.slow
def test_a_population_does_not_depend_on_its_chunks_and_goes_on(tmp_path):
    model, asked = models.mlp(10, hidden=(8,)), []

    def one(keys, members):
        asked.append(members.tolist())
        return train.dense(model, digits().train, keys=keys, epochs=1, batch_size=126)

    options = {"key": jax.random.key(0), "size": 5, "num_classes": 10, "folder": tmp_path}
    said = train.population(one, model, {"test": digits().test}, at_once=2, **options)
    assert asked == [[0, 1], [2, 3], [4]]
    again = train.population(one, model, {"test": digits().test}, at_once=2, **options)
    assert len(asked) == 3
    np.testing.assert_array_equal(said["test"], again["test"])
    other = digits().test._replace(x=1 - digits().test.x)
    for change, says in (
        ({"key": jax.random.key(1)}, "key is"),
        ({"model": models.mlp(10, hidden=(9,))}, "model is"),
        ({"splits": {"test": other}}, "splits is"),
        ({"facts": {"epochs": 2}}, "facts is"),
    ):
        asks = {"model": model, "splits": {"test": digits().test}, "at_once": 2} | options | change
        with pytest.raises(study.FolderError, match=says):
            train.population(one, **asks)
    (tmp_path / "config.json").rename(tmp_path / "gone.json")
    with pytest.raises(study.FolderError, match="holds networks, and nothing says whose"):
        train.population(one, model, {"test": digits().test}, at_once=2, **options)
    assert len(asked) == 3
    whole = train.population(one, model, {"test": digits().test}, **options | {"folder": None})
    assert asked[3:] == [[0, 1, 2, 3, 4]]
    assert (whole["test"] != said["test"]).mean() < 0.01  # rounding in another order
    assert len({row.tobytes() for row in whole["test"]}) == 5

    def diverged(keys, members):
        found = one(keys, members)
        return found._replace(params=jax.tree.map(lambda a: a * jnp.nan, found.params))

    lost = train.population(diverged, model, {"test": digits().test}, **options | {"folder": None})
    assert (lost["test"] == 255).all()


# --- the order of the house ---------------------------------------------------------------------------------------


def test_train_knows_the_ground_the_study_and_what_is_right():
    """No constraints, no groups: `metrics` only for `metrics.correct`."""
    folder = pathlib.Path(jaxfair.__file__).parent / "train"
    rooms = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxfair"):  # fmt: skip
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                rooms |= {name.split(".")[1] for name in names}
    assert rooms <= {"typing", "tree", "files", "metrics", "study", "train"}


@pytest.mark.parametrize("stopped", [False, True], ids=["last iterate", "best on validation"])
@pytest.mark.slow
def test_a_dense_network_that_failed_is_right_about_nobody(stopped):
    """It stands where its call began, which is its start: an untrained network that nobody asked for."""
    digits, model = data.load("digits"), models.mlp(10, hidden=(8,))
    found = train.dense(
        model,
        digits.train,
        digits.validation if stopped else None,
        optax.sgd(1e30),
        keys=jax.random.split(jax.random.key(0), 2),
        epochs=2,
        batch_size=126,
    )
    assert (np.asarray(found.failed_at) >= 0).all()
    predict = train.predictor(model.apply, train.plan(model, digits.train))
    assert (np.asarray(predict(found.params, found.model_state, digits.test).label) == -1).all()


@pytest.mark.slow
def test_where_no_loss_on_validation_is_finite_the_last_network_is_taken_and_that_is_said():
    digits, model = data.load("digits"), models.mlp(10, hidden=())
    beyond = digits.validation._replace(x=np.full_like(digits.validation.x, 1e38))
    of = {"keys": jax.random.split(jax.random.key(0), 2), "epochs": 2, "batch_size": 126}
    with pytest.warns(UserWarning, match="no loss on validation was finite: the last network is taken"):
        found = train.dense(model, digits.train, beyond, optax.sgd(0.1), **of)
    last = train.dense(model, digits.train, None, optax.sgd(0.1), **of)
    assert np.asarray(found.epoch).tolist() == [1, 1]
    chex.assert_trees_all_equal(found.params, last.params)
