"""What the benchmarks compare computes the same thing, also in PyTorch; and every benchmark runs by its command."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch

from benchmarks import constrained_step
from benchmarks import games as games_benchmark
from jaxfair import constraints

FILES = pathlib.Path(__file__).parent.glob("[a-z]*.py")
#: Every benchmark, by the command at its head.
BENCHMARKS = sorted(path.stem for path in FILES if f"-m benchmarks.{path.stem}\n" in path.read_text())


@pytest.fixture(scope="module")
def work():
    """An epoch of 8 steps, on 7 groups."""
    return constrained_step.workload(7, num_examples=300, num_features=11, hidden=(16, 16), batch_size=32, num_steps=8)


def the_same(ours, theirs):
    multipliers = theirs.multipliers().numpy()
    assert multipliers.max() > 0.0
    np.testing.assert_allclose(np.asarray(ours.multipliers), multipliers, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours.carry.memory.outcome, theirs.gaps.outcome)
    layers = [m for m in theirs.network.layers if isinstance(m, torch.nn.Linear)]
    for i, layer in enumerate(layers):
        kernel, weight = np.asarray(ours.params[f"Dense_{i}"]["kernel"]).T, layer.weight.detach().numpy()
        # Sums in another order, carried on through 16 steps.
        np.testing.assert_allclose(kernel, weight, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(kernel == 0, weight == 0)
    assert not np.all(layers[0].weight.detach().numpy())


@pytest.mark.parametrize("loop", [False, True])
def test_cooper_takes_the_same_steps(work, loop):
    ours = constrained_step.solver_epoch("ceag", work)().solver
    run = constrained_step.torch_epoch("cooper", work, loop=loop, threads=torch.get_num_threads())
    run()
    the_same(ours, run())


def test_humancompatible_takes_the_same_steps(work):
    formulation = constraints.augmented_lagrangian(constrained_step.DUAL_RATE)
    ours = constrained_step.solver_epoch("ceag", work, formulation)().solver
    run = constrained_step.torch_epoch("humancompatible", work, threads=torch.get_num_threads())
    run()
    the_same(ours, run())


# Sums of 7 products in another order, carried on through 40 steps whose map is nearly a rotation: each
# adds an error of about 1e-7 of the players and keeps the older ones, so 40 of them stay below 1e-5.
def test_torch_loop_is_a_lane_of_the_sweep():
    lanes = games_benchmark.workload(3, 2, dim=7, num_samples=5, num_steps=40)
    ours = games_benchmark.sweep_run(lanes)().players
    expected = np.concatenate([np.asarray(ours[name])[0, 0] for name in "xy"])
    run = games_benchmark.torch_run(lanes, threads=torch.get_num_threads())
    players = np.concatenate([player.detach().numpy() for player in run()])
    np.testing.assert_allclose(players, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs_by_its_command(name):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--smallest"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not installed" not in done.stdout
    assert f"jax {jax.__version__}" in done.stdout
