"""Training: orders, chunks, averages, selection, checkpoints, failure and resumption."""

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import constraints, sparsity, study, train
from jaxfair.constraints.problem import Outcomes
from jaxfair.typing import Batch

FEATURES, CLASSES, GROUPS, NUM = 6, 3, 2, 96


def apply(params, state, x, *, train, key=None):
    hidden = jnp.tanh(x @ params["first"])
    return hidden @ params["last"], {"seen": state["seen"] + 1.0}


def make_split(num=NUM, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        x=jnp.asarray(rng.normal(size=(num, FEATURES)), jnp.float32),
        y=jnp.asarray(rng.integers(0, CLASSES, num), jnp.int32),
        group=jnp.asarray(rng.integers(0, GROUPS, num), jnp.int32),
        index=jnp.arange(num, dtype=jnp.int32),
        weight=jnp.ones(num),
    )


SPLIT = make_split()
METER = train.group_meter(GROUPS)
STEPS = 12  # an epoch of batches of eight


def make_params(key):
    a, b = jax.random.split(key)
    return {
        "first": jax.random.normal(a, (FEATURES, 16)),
        "last": jax.random.normal(b, (16, CLASSES)),
    }


def make_lane(key, *, learning_rate=0.1, average_from=2 * STEPS, sparsities=0.5):
    """(state, chunk) of a constrained, pruned run of one lane."""
    problem = constraints.excess_accuracy_gap(apply, num_groups=GROUPS, tolerance=0.01)
    solver = constraints.solver(
        problem.evaluate,
        multipliers=constraints.dense(GROUPS),
        primal=sparsity.prune(
            optax.sgd(learning_rate, momentum=0.9),
            sparsity.polynomial(sparsities, begin=0, end=2 * STEPS, every=STEPS),
            prunable=lambda path: path == "first",
        ),
        dual=optax.sgd(0.1),
        formulation=constraints.normalized_lagrangian(),
    )
    step = train.make_step(solver.step, meter=METER, average_from=average_from, average_decay=1 - 1 / STEPS)
    outcomes = Outcomes(jnp.ones(NUM), jnp.zeros(NUM))

    def init(key):
        carry = problem.init({"seen": jnp.zeros(())}, outcomes, SPLIT)
        return train.init_state(solver.init(make_params(key), carry), METER)

    return init, step


def orders(key, epoch):
    return train.epoch_order(key, epoch, num_examples=NUM, batch_size=8, num_steps=STEPS)


# --- orders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num", "batch", "steps"), [(22_795, 128, 178), (1260, 128, 108), (10, 10, 100), (7, 2, 102)])
def test_an_epoch_has_whole_passes_and_at_least_a_hundred_steps(num, batch, steps):
    assert train.steps_per_epoch(num, batch) == steps
    order = np.asarray(train.epoch_order(jax.random.key(0), 3, num_examples=num, batch_size=batch, num_steps=steps))
    a_pass = num // batch
    assert steps % a_pass == 0
    assert order.min() >= 0
    assert order.max() < num
    for start in range(0, steps, a_pass):
        used = order[start : start + a_pass].ravel()
        assert len(set(used)) == len(used)  # nobody twice in a pass, so nobody twice in a batch


def test_orders_differ_by_epoch_and_by_lane_and_are_reproducible():
    keys = jax.random.split(jax.random.key(5), 2)
    assert not np.array_equal(orders(keys[0], 0), orders(keys[0], 1))
    assert not np.array_equal(orders(keys[0], 0), orders(keys[1], 0))
    np.testing.assert_array_equal(orders(keys[0], 4), orders(keys[0], 4))
    mapped = jax.vmap(orders, in_axes=(0, None))(keys, 4)
    np.testing.assert_array_equal(mapped[1], orders(keys[1], 4))


@pytest.mark.parametrize("batch", [0, NUM + 1])
def test_a_batch_size_that_does_not_fit_is_named(batch):
    with pytest.raises(ValueError, match=f"batch_size={batch}"):
        train.steps_per_epoch(NUM, batch)


# --- chunks ------------------------------------------------------------------------------------------------------


def run(init, step, key, *, per_call, epochs=3):
    chunk = jax.jit(train.make_chunk(step))
    state = jax.jit(init)(key)
    for epoch in range(epochs):
        order = orders(key, epoch)
        for first in range(0, STEPS, per_call):
            state = chunk(state, SPLIT, order[first : first + per_call], key)
    return state


@pytest.mark.slow
def test_chunks_streams_and_lanes_are_the_same_run():
    init, step = make_lane(jax.random.key(1))
    key = jax.random.key(1)
    whole = run(init, step, key, per_call=STEPS)
    chex.assert_trees_all_equal(whole, run(init, step, key, per_call=STEPS))
    # Alone or in a scan, XLA fuses differently; a few units in the last place, 36 steps.
    for per_call in (1, 4):
        chex.assert_trees_all_close(whole, run(init, step, key, per_call=per_call), rtol=1e-4, atol=1e-5)

    streamed = jax.jit(train.make_streamed_chunk(step))
    state = jax.jit(init)(key)
    for epoch in range(3):
        for index in orders(key, epoch):
            state = streamed(state, jax.tree.map(lambda a, i=index: a[i], SPLIT), key)
    chex.assert_trees_all_close(whole, state, rtol=1e-4, atol=1e-5)

    keys = jnp.stack([jax.random.key(0), key])
    chunk = jax.jit(jax.vmap(train.make_chunk(step), in_axes=(0, None, 0, 0)))
    lanes = jax.jit(jax.vmap(init))(keys)
    for epoch in range(3):
        lanes = chunk(lanes, SPLIT, jax.vmap(orders, in_axes=(0, None))(keys, epoch), keys)
    assert chunk._cache_size() == 1
    lane = jax.tree.map(lambda a: a[1], lanes)
    chex.assert_trees_all_close(whole, lane, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_meters_count_every_example_once_and_the_average_is_exactly_sparse():
    init, step = make_lane(jax.random.key(2))
    key = jax.random.key(2)
    state = run(init, step, key, per_call=STEPS, epochs=1)
    np.testing.assert_array_equal(state.meters.count, np.bincount(SPLIT.group))
    assert float(state.meters.steps) == STEPS
    assert np.isfinite(state.meters.loss)
    chex.assert_trees_all_equal(state.average.params, state.solver.params)  # not begun yet

    state = run(init, step, key, per_call=STEPS, epochs=4)
    mask = sparsity.get_masks(state.solver.primal_state)["first"]
    assert int(mask.sum()) == FEATURES * 16 // 2
    np.testing.assert_array_equal(np.asarray(state.average.params["first"])[~mask], 0.0)
    assert float(jnp.abs(state.average.params["first"] - state.solver.params["first"]).max()) > 0
    # The model's state counts steps; its average lags behind by less than the horizon.
    assert 4 * STEPS - 2 * STEPS < float(state.average.model_state["seen"]) < 4 * STEPS


def test_the_average_by_hand():
    problem = constraints.unconstrained(lambda p, s, x, **_: (x @ p, s), num_groups=GROUPS)
    solver = constraints.solver(
        problem.evaluate,
        multipliers=constraints.dense(0),
        primal=optax.sgd(0.5),
        dual=optax.sgd(1.0),
    )
    step = jax.jit(train.make_step(solver.step, average_from=2, average_decay=0.75))
    carry = problem.init({}, Outcomes(jnp.ones(NUM), jnp.zeros(NUM)), SPLIT)
    state = train.init_state(solver.init(jnp.zeros((FEATURES, CLASSES)), carry))
    expected = None
    for t in range(5):
        state = step(state, jax.tree.map(lambda a, t=t: a[8 * t : 8 * t + 8], SPLIT), jax.random.key(0))
        now = np.asarray(state.solver.params)
        expected = now if t < 2 else 0.75 * expected + 0.25 * now
        np.testing.assert_allclose(state.average.params, expected, rtol=1e-6, atol=1e-7)


# --- failure -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_lane_that_fails_is_frozen_and_the_others_go_on():
    """One lane gets a weight so large that its loss overflows at once; a third fails later, through a spoilt batch."""
    init, step = make_lane(jax.random.key(3))
    keys = jax.random.split(jax.random.key(3), 3)
    lanes = jax.vmap(init)(keys)
    big = lanes.solver.params["last"].at[1].set(jnp.inf)
    lanes = lanes._replace(solver=lanes.solver._replace(params={**lanes.solver.params, "last": big}))
    chunk = jax.jit(jax.vmap(train.make_chunk(step), in_axes=(0, None, 0, 0)))
    order = jax.vmap(orders, in_axes=(0, None))(keys, 0)
    start = lanes
    for first in range(0, STEPS, 4):
        split = SPLIT
        if first == 4:  # what lane 2 sees in its sixth step is not a number
            bad = order[2, 5]
            split = SPLIT._replace(x=SPLIT.x.at[bad].set(jnp.nan))
            # the other lanes do not meet these examples in this chunk
            clash = np.isin(np.asarray(order[0, 4:8]), np.asarray(bad))
            order = order.at[0, 4:8].set(jnp.where(clash, order[0, 0, 0], order[0, 4:8]))
            early = np.isin(np.asarray(order[2, 4]), np.asarray(bad))
            assert not early.any()
            before = jax.tree.map(lambda a: a[2], lanes)
        lanes = chunk(lanes, split, order[:, first : first + 4], keys)
    assert lanes.failed_at.tolist() == [-1, 0, 5]
    frozen = jax.tree.map(lambda a: a[2], lanes)._replace(failed_at=jnp.int32(-1))
    chex.assert_trees_all_equal(frozen, before)  # the beginning of its chunk
    assert int(lanes.solver.step[0]) == STEPS
    assert int(lanes.solver.step[1]) == 0
    one = jax.tree.map(lambda a: a[1], lanes.solver)
    chex.assert_trees_all_equal(one, jax.tree.map(lambda a: a[1], start.solver))
    assert all(np.isfinite(leaf[0]).all() for leaf in jax.tree.leaves(lanes.solver.params))


# --- evaluation and selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, NUM, 1000])
@pytest.mark.parametrize("looped", [False, True])
def test_prediction_does_not_depend_on_batches_and_padding(batch_size, looped):
    params = make_params(jax.random.key(4))
    logits, _ = apply(params, {"seen": jnp.zeros(())}, SPLIT.x, train=False)
    predict = train.make_predict(apply, batch_size=batch_size, looped=looped)
    predicted = predict(params, {"seen": jnp.zeros(())}, SPLIT)
    np.testing.assert_array_equal(predicted.label, logits.argmax(-1))
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, SPLIT.y)
    # Products of matrices of other shapes are summed in another order.
    np.testing.assert_allclose(predicted.loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("looped", [False, True])
def test_nobody_is_predicted_nothing(looped):
    nobody = jax.tree.map(lambda a: np.asarray(a)[:0], SPLIT)
    params, state = make_params(jax.random.key(4)), {"seen": jnp.zeros(())}
    found = train.make_predict(apply, looped=looped)(params, state, nobody)
    assert (found.label.shape, found.label.dtype, found.loss.shape) == ((0,), jnp.int32, (0,))
    assert train.make_logits(apply)(params, state, jnp.asarray(nobody.x)).shape[0] == 0


def early(scores):
    kept = train.empty_snapshot(jnp.zeros(()), {})
    for epoch, score in enumerate(jnp.asarray(scores, jnp.float32)):
        better = train.better_score(kept, score)
        kept = train.keep_if(better, kept, jnp.full((), float(epoch)), {}, score, epoch, averaged=False)
    return int(kept.epoch)


def delivered(violations, accuracy=None):
    kept = train.empty_snapshot(jnp.zeros(()), {})
    for epoch, over in enumerate(jnp.asarray(violations, jnp.float32)):
        of = None if accuracy is None else [jnp.float32(accuracy[epoch])]
        kept = train.deliver(kept, [train.Networks(jnp.full((), float(epoch)), {})], [over], epoch, accuracy=of)
    return int(kept.epoch)


@pytest.mark.parametrize(
    ("scores", "score_rule", "violation_rule"),
    [
        ([0.3, 0.1, 0.2], 1, 1),
        ([0.3, 0.3], 0, 0),  # the earliest of equals
        ([-0.2, -0.1, 0.5], 0, 1),  # the latest that meets the bound
        ([0.1, 0.0, 0.01], 1, 1),  # meeting it exactly is meeting it
        ([0.5, -0.1, 0.2, 0.1], 1, 1),
        ([float("nan"), 0.2, float("nan")], 1, 1),
    ],
)
def test_selection_rules(scores, score_rule, violation_rule):
    assert early(scores) == score_rule
    assert delivered(scores) == violation_rule


@pytest.mark.parametrize(
    ("violations", "accuracy", "epoch"),
    [
        ([-0.2, -0.1, 0.5], [0.8, 0.7, 0.9], 0),  # the most accurate of those that met the bound
        ([-0.2, -0.1, 0.5], [0.8, 0.8, 0.9], 1),  # the latest of equals
        ([0.1, 0.0, -0.3], [0.9, 0.0, float("nan")], 1),  # meeting it comes first, whatever it costs
        ([0.2, 0.1, 0.1], [0.9, 0.1, 0.8], 1),  # none met it: the least violating, the earliest of equals
        ([float("nan"), 0.2, float("nan")], [0.9, 0.1, 0.9], 1),
    ],
)
def test_the_most_accurate_that_met_the_bound_is_delivered(violations, accuracy, epoch):
    assert delivered(violations, accuracy) == epoch


# --- the host's loop ---------------------------------------------------------------------------------------------


@functools.cache
def compiled():
    init, step = make_lane(jax.random.key(6))
    return jax.jit(init), jax.jit(train.make_chunk(step))


def host_run(folder, *, stop_after=None, epochs=5, per_call=4):
    """A real lane through `host_loop` with checkpoints; gives the state and the records that are on disk."""
    init, chunk = compiled()
    key = jax.random.key(6)
    calls, rows = 0, folder / "rows.json"
    written = json.loads(rows.read_text()) if rows.exists() else []

    def advance(state, epoch, first, count):
        nonlocal calls
        calls += 1
        return chunk(state, SPLIT, orders(key, epoch)[first : first + count], key)

    def end_epoch(state, epoch):
        record = {"epoch": epoch, "loss": float(state.meters.loss)}
        return train.Epoch(state._replace(meters=METER.init()), [record])

    def record(new):
        written.extend(new)
        rows.write_text(json.dumps(written))

    with train.Checkpoints(folder / "checkpoints") as store:
        latest = store.latest()
        done = -1 if latest is None else latest // STEPS - 1
        written = [row for row in written if row["epoch"] <= done]
        state = train.host_loop(
            init(key),
            advance=advance,
            end_epoch=end_epoch,
            epochs=epochs,
            steps_per_epoch=STEPS,
            steps_per_call=per_call,
            checkpoints=store,
            save_every=2,
            record=record,
            stop=lambda: stop_after is not None and calls >= stop_after,
        )
    return state, written


@pytest.mark.parametrize("stop_after", [1, 3, 7, 14])
@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stop_after):
    """Within an epoch, at its end, and in the last one."""
    state, written = host_run(tmp_path / "a")
    with pytest.raises(study.Stopped):
        host_run(tmp_path / "b", stop_after=stop_after)
    resumed, rewritten = host_run(tmp_path / "b")
    chex.assert_trees_all_equal(state, resumed)
    assert rewritten == written
    assert [row["epoch"] for row in written] == list(range(5))
    again, unchanged = host_run(tmp_path / "b")  # a finished run is not run again
    chex.assert_trees_all_equal(again, state)
    assert unchanged == written


@pytest.mark.slow
def test_a_run_killed_after_its_records_and_before_its_checkpoint(tmp_path):
    state, written = host_run(tmp_path / "a")
    with pytest.raises(study.Stopped):
        host_run(tmp_path / "b", stop_after=7)
    # As if epochs 2 and 3 had been recorded and then the power went.
    rows = tmp_path / "b" / "rows.json"
    rows.write_text(json.dumps([*json.loads(rows.read_text()), {"epoch": 2, "loss": -1.0}]))
    resumed, rewritten = host_run(tmp_path / "b")
    chex.assert_trees_all_equal(state, resumed)
    assert rewritten == written


def test_the_loop_lowers_the_call_to_a_divisor_and_ends_early():
    counts = []

    def advance(state, epoch, first, count):
        counts.append(count)
        return state + count

    def end_epoch(state, epoch):
        return train.Epoch(state, [], finished=epoch == 1)

    state = train.host_loop(0, advance=advance, end_epoch=end_epoch, epochs=9, steps_per_epoch=12, steps_per_call=5)
    assert set(counts) == {4}
    assert state == 24

    counts.clear()
    state = train.host_loop(
        0,
        advance=advance,
        end_epoch=end_epoch,
        epochs=2,
        steps_per_epoch=12,
        steps_per_call=5,
        even=False,
    )
    assert counts == [5, 5, 2, 5, 5, 2]
    assert state == 24


def test_leaves_without_elements_and_integers_survive_a_checkpoint(tmp_path):
    state = {"none": jnp.zeros((3, 0)), "count": jnp.int32(7), "tuple": (jnp.ones(2), ())}
    with train.Checkpoints(tmp_path) as store:
        assert store.restore(state) is None
        store.save(1, state)
        store.save(1, state)  # again: nothing happens
        step, read = store.restore(jax.tree.map(jnp.zeros_like, state))
    assert step == 1
    chex.assert_trees_all_equal(read, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(read, state)


def test_a_folder_of_another_run_or_none_that_can_be_written(tmp_path):
    assert not study.claim_folder(tmp_path / "run", {"tolerance": 0.01, "groups": ("sex",)})
    assert study.claim_folder(tmp_path / "run", {"tolerance": 0.01, "groups": ("sex",)})
    with pytest.raises(study.FolderError, match=r"tolerance is 0.01 there and 0.02 here"):
        study.claim_folder(tmp_path / "run", {"tolerance": 0.02, "groups": ("sex",)})
    assert not study.claim_folder(tmp_path / "diverged", {"rate": np.nan, "steps": 1})
    assert study.claim_folder(tmp_path / "diverged", {"rate": np.nan, "steps": 1.0})
    with pytest.raises(study.FolderError, match=r"rate is nan there and not set here\): choose another folder"):
        study.claim_folder(tmp_path / "diverged", {"steps": 1})
    study.claim_folder(tmp_path / "seeds", {"seeds": 2, "key": "a"})
    with pytest.raises(study.FolderError, match=r"seeds is 2 there and 3 here"):  # the first, as the caller has them
        study.claim_folder(tmp_path / "seeds", {"seeds": 3, "key": "b"})
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(study.FolderError, match="cannot be read"):
        study.claim_folder(tmp_path / "run", {"tolerance": 0.01})
    with pytest.raises(study.FolderError, match="free some space"):
        study.check_folder(tmp_path, needed_bytes=10**18)
    (tmp_path / "file").write_text("")
    with pytest.raises(study.FolderError, match="cannot write"):
        study.check_folder(tmp_path / "file" / "below")


def test_two_processes_do_not_share_a_folder(tmp_path):
    """The second one is refused; the lock of a process that was killed is gone."""
    hold = textwrap.dedent(f"""
        import time
        from jaxfair import study
        with study.alone_in({str(tmp_path)!r}):
            print("in", flush=True)
            time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    with (
        pytest.raises(study.FolderError, match="another process is working"),
        study.alone_in(tmp_path),
    ):
        pass
    process.kill()
    process.communicate()
    with study.alone_in(tmp_path):
        pass


def test_a_request_to_end_is_noted_once_and_handlers_come_back():
    both = signal.SIGTERM, signal.SIGINT
    before = [signal.getsignal(number) for number in both]
    for first in both:
        with study.interruptible() as stop:
            assert not stop()
            os.kill(os.getpid(), first)
            assert stop()
            assert [signal.getsignal(number) for number in both] == before  # a second one, of either, ends the process
        assert [signal.getsignal(number) for number in both] == before


# --- machines ----------------------------------------------------------------------------------------------------


def test_convolutions_are_found_at_any_depth():
    kernel, image = jnp.ones((3, 3, 1, 1)), jnp.ones((1, 8, 8, 1))

    def convolve(x):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def deep(x):
        body = jax.jit(jax.checkpoint(convolve))
        return jax.lax.scan(lambda c, _: (jax.lax.cond(True, body, lambda y: y, c), None), x, length=2)

    assert train.has_convolution(convolve, image)
    assert train.has_convolution(deep, image)
    assert not train.has_convolution(lambda x: x @ jnp.ones((1, 2)), image)


@pytest.mark.slow
def test_lanes_on_two_devices_are_the_lanes_on_one():
    """In a process of its own, since the number of devices is fixed when JAX starts."""
    script = textwrap.dedent("""
        import jax, jax.numpy as jnp, numpy as np, optax
        from jaxfair import train
        from jaxfair.typing import Batch
        assert jax.device_count() == 2
        apply = lambda params, state, x, *, train, key=None: (x @ params, state)
        solver = train.descent(apply, optax.sgd(0.1))
        ids = np.arange(8, dtype=np.int32)
        split = Batch(np.eye(8, 3, dtype=np.float32), ids % 2, ids % 2, ids, np.ones(8, np.float32))
        def run(lanes, mesh=None):
            start = jax.vmap(lambda _: solver.init(jnp.zeros((3, 2))))(jnp.arange(lanes))
            keys = jax.random.split(jax.random.key(0), lanes)
            state = train.fit(solver, start, split, keys=keys, epochs=1, batch_size=4, num_steps=4, mesh=mesh)
            return state.solver.params
        spread, alone = run(4), run(4, train.mesh(1, 1))
        assert len(spread.sharding.device_set) == 2 and len(alone.sharding.device_set) == 1
        np.testing.assert_array_equal(spread, alone)
        assert len(run(3).sharding.device_set) == 1  # three do not divide
        print("same")
    """)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "same", done.stderr
