"""The benchmarks run, and what they compare computes the same thing. No time is asserted here.

The peers have an environment of their own, and their tests are in `benchmarks/test_peers.py`.
"""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import constrained_step, several_devices, timing
from benchmarks import games as games_benchmark
from jaxfair import constraints, models, sparsity


@pytest.fixture(scope="module")
def work():
    """An epoch of 8 steps, on 7 groups."""
    return constrained_step.workload(7, num_examples=300, num_features=11, hidden=(16, 16), batch_size=32, num_steps=8)


@pytest.fixture(scope="module")
def epochs(work):
    """Every contender but the peers, compiled once for all tests."""
    return constrained_step.contenders(work, peers=[])


def close(tree, other, **tolerance):
    tolerance = tolerance or {"rtol": 1e-5, "atol": 1e-6}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), tree, other)


def test_contenders_are_called_in_turn():
    calls = []
    seconds = timing.interleaved({n: lambda n=n: calls.append(n) for n in "ab"}, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"  # the warm-up, and then there and back
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_ratio_is_the_median_of_pairs():
    # A load that doubles both of a pair changes no ratio; the ratio of medians would be 1.5 here.
    ratio = timing.ratio(np.array([2.0, 3.0, 8.0]), np.array([1.0, 2.0, 4.0]))
    assert ratio.median == 2.0
    assert ratio.low <= ratio.median <= ratio.high
    assert str(ratio) == "2.000 (1.750 to 2.000)"


def test_what_devices_tell_each_other_is_counted_in_bytes():
    """As XLA writes it: several arrays of one sum, one that has begun, and a copy, which stays on its device."""
    program = """
      %a = (f32[10,2]{1,0}, s32[]) all-reduce(%x, %y), replica_groups={{0,1}}
      %b = bf16[4]{0} all-gather-start(%z), dimensions={0}
      %c = pred[8]{0} all-to-all(%w)
      %d = f32[100]{0} copy(%v)
      %e = f32[5]{0} all-reduce(%u), metadata={op_name="jit(held)/while/body/cond/branch_1_fun/scatter-add"}
    """
    assert several_devices.told(program) == {"all-reduce": 84, "all-gather": 8, "all-to-all": 8, "seldom": 20}


def test_machine_and_versions_are_one_line_each():
    assert "\n" not in timing.machine() + timing.load()
    found = timing.versions(("jax", "no-such-package"))
    assert f"jax {jax.__version__}" in found
    assert "no-such-package" not in found


def test_every_group_has_an_example(work):
    assert set(np.asarray(work.split.group).tolist()) == set(range(7))
    assert work.order.shape == (8, 32)


@pytest.mark.slow
def test_plain_epoch_is_the_epoch_written_by_hand(epochs):
    ours = epochs["plain"]().solver
    params, opt_state = epochs["optax"]()
    close(ours.params, params)
    masks, by_hand = sparsity.get_masks(ours.primal_state), sparsity.get_masks(opt_state)
    jax.tree.map(np.testing.assert_array_equal, masks, by_hand)
    assert not np.all(masks["Dense_0"]["kernel"])


@pytest.mark.slow
def test_constrained_gradient_is_that_of_weighted_examples(work):
    model = models.mlp(2, hidden=work.hidden)
    params, model_state = model.init(jax.random.key(1), work.split.x[:1])
    batch = jax.tree.map(lambda a: a[work.order[0]], work.split)

    def moved(method, multipliers):
        problem = constrained_step.problem_of(method, work, model.apply)
        solver = constraints.solver(
            problem,
            primal=optax.sgd(1.0),
            dual=optax.sgd(constrained_step.DUAL_RATE),
            formulation=constraints.normalized_lagrangian(),
        )
        state = solver.init(params, problem.init(model_state, work.outcomes, work.split))
        state, info = solver.step(state._replace(multipliers=multipliers), batch)
        return optax.tree.sub(params, state.params), info

    def by_hand(weights):
        def loss(params):
            logits, _ = model.apply(params, model_state, batch.x, train=True)
            return jnp.sum(weights * optax.softmax_cross_entropy_with_integer_labels(logits, batch.y))

        return jax.grad(loss)(params)

    size = len(batch.y)
    close(moved("plain", jnp.zeros(0))[0], by_hand(jnp.full(size, 1 / size)))

    prevalence = np.bincount(work.split.group, minlength=7) / len(work.split.group)
    gradient, info = moved("ceag", jnp.linspace(0.0, 2.0, 7))
    assert 0.0 < float(info.weights.sum()) < 1.0
    mu, group = np.asarray(info.weights), np.asarray(batch.group)
    close(gradient, by_hand((1.0 - mu.sum()) / size + mu[group] / (size * prevalence[group])))

    gradient, info = moved("ceag_published", jnp.linspace(0.0, 2.0, 7))
    mu, present = np.asarray(info.weights), np.bincount(group, minlength=7)
    close(gradient, by_hand((1.0 - mu.sum()) / size + mu[group] / present[group]))


@pytest.mark.slow
def test_table_has_a_row_per_number_of_groups(epochs, capsys, monkeypatch):
    monkeypatch.setattr(constrained_step, "installed", list)
    monkeypatch.setattr(constrained_step, "contenders", lambda work, peers: epochs)
    constrained_step.main(["--groups", "3", "9", "--rounds", "2", "--examples", "256"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("PyTorch or cooper is not installed")
    assert lines[1].startswith("PyTorch or humancompatible is not installed")
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert rows == ["groups", "3", "9"]


def test_claims_compare_medians_of_pairs():
    seconds = {"plain": 2.0, "ceag": 2.1, "ceag_published": 2.4, "optax": 1.6, "cooper": 6.3}
    seconds |= {"cooper_loop": 8.4, "humancompatible": 5.25}
    found = constrained_step.claims({k: np.full(5, v) for k, v in seconds.items()})
    medians = [round(ratio.median, 6) for ratio in found]
    assert medians == [1.05, 1.2, 1.25, 3.0, 4.0, 2.5]
    alone = constrained_step.claims({k: np.ones(2) for k in list(seconds)[:4]})
    assert alone.cooper is None
    assert alone.loop is None
    assert alone.humancompatible is None


def test_smallest_gives_way_to_what_is_typed():
    args = constrained_step.parse(["--smallest", "--rounds", "3"])
    assert (args.rounds, args.groups, args.steps) == (3, [10], 2)
    assert constrained_step.parse([]).rounds == 25


NAMES = [path.stem for path in pathlib.Path(timing.__file__).parent.glob("*.py")]
#: Every benchmark: what is no helper and no test.
BENCHMARKS = sorted(
    name for name in NAMES if not name.startswith(("_", "test_")) and name not in ("conftest", "timing")
)


def test_all_benchmarks_are_found():
    assert {"chita", "constrained_step", "games", "indexed_multipliers", "pruning"} <= {*BENCHMARKS}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_its_command_and_has_a_smallest_size(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert f".venv-bench/bin/python -m benchmarks.{name}" in module.__doc__
    full, smallest = vars(module.parse([])), vars(module.parse(["--smallest"]))
    assert smallest.pop("smallest")
    assert not full.pop("smallest")
    assert smallest.keys() == full.keys()
    for flag, value in smallest.items():  # a flag that is left out by default has no bound
        assert value == full[flag] or np.max(value) <= np.max(full[flag] or np.inf), flag
    assert smallest["rounds"] <= 2


@pytest.fixture(scope="module")
def lanes():
    """Three settings of Omega and two seeds, 40 steps of a small game."""
    return games_benchmark.workload(3, 2, dim=7, num_samples=5, num_steps=40)


def first_lane(lanes):
    players = games_benchmark.sweep_run(lanes)().players
    start = np.concatenate([lanes.starts[name][0] for name in "xy"])
    end = np.concatenate([players[name][0, 0] for name in "xy"])
    assert np.linalg.norm(end - start) > 0.1
    return end


# Sums of 7 products in another order, carried on through 40 steps whose map is nearly a rotation: each
# adds an error of about 1e-7 of the players and keeps the older ones, so 40 of them stay below 1e-5.
def test_numpy_loop_is_a_lane_of_the_sweep(lanes):
    players = np.concatenate(games_benchmark.numpy_run(lanes)())
    np.testing.assert_allclose(players, first_lane(lanes), rtol=1e-5, atol=1e-5)


def test_samples_of_the_loops_are_those_of_each_seed(lanes):
    trajectory = games_benchmark.sweep_run(lanes)()
    assert trajectory.distance.shape[:2] == (3, 2)
    second = lanes._replace(batches=lanes.batches[1:], starts={name: start[1:] for name, start in lanes.starts.items()})
    players = np.concatenate(games_benchmark.numpy_run(second)())
    found = np.concatenate([trajectory.players[name][0, 1] for name in "xy"])
    np.testing.assert_allclose(players, found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("donate", [False, True])
def test_updates_of_the_large_tree_are_those_of_the_methods(donate):
    params = games_benchmark.tree(num_layers=2, width=3)
    grads = jax.tree.map(lambda p: 1e-3 * p + 1e-4, params)
    for name, factor in {"momentum": 1.9, "omega": 1.0}.items():
        run = games_benchmark.update_run(name, params, donate=donate)
        run()
        # Both start with sgd. With the same gradient again, momentum adds 0.9 of it and Omega nothing.
        expected = jax.tree.map(lambda p, g, f=factor: p - 0.01 * (1 + f) * g, params, grads)
        close(run(), expected)


def test_claims_of_a_sweep_are_shares_of_its_limits():
    seconds = {"sweep": np.full(3, 1e-6), "numpy": np.full(3, 6e-6), "torch": np.full(3, 9e-5)}
    speed = games_benchmark.Speed(
        seconds, step=np.full(3, 8e-6), memory=2e-6, unshared=16e-6, arithmetic=4e-6, bandwidth=1e9
    )
    found = games_benchmark.claims(speed)
    medians = [round(ratio.median, 6) for ratio in (found.numpy, found.torch)]
    assert medians == [6.0, 90.0]
    assert (found.memory, found.unshared, found.arithmetic) == pytest.approx((0.25, 2.0, 0.5))
    del seconds["torch"]
    assert games_benchmark.claims(speed).torch is None


@pytest.mark.slow
def test_table_has_a_row_per_layout_of_the_lanes(capsys, monkeypatch):
    monkeypatch.setattr(games_benchmark, "has_torch", lambda: False)
    small = functools.partial(games_benchmark.workload, dim=5, num_samples=3)
    monkeypatch.setattr(games_benchmark, "workload", small)
    for name, value in {"LANES": ((2, 1), (1, 2)), "BYTES_READ": 4_000, "PRODUCT_ROWS": 9}.items():
        monkeypatch.setattr(games_benchmark, name, value)
    games_benchmark.main(["--rounds", "2", "--steps", "3", "--width", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("PyTorch is not installed")
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert rows == ["settings x seeds", "2 x 1", "1 x 2", "parameters", "300", "300"]
