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
from jaxfair import constraints, models

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


class Block(torch.nn.Module):
    """Of He et al.'s networks for CIFAR, with a projection where the shape changes."""

    def __init__(self, inputs, outputs):
        super().__init__()
        stride = outputs // inputs
        self.Conv_0 = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.Conv_1 = torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.BatchNorm_0, self.BatchNorm_1 = (torch.nn.BatchNorm2d(outputs) for _ in range(2))
        if stride > 1:
            self.Conv_2 = torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.BatchNorm_2 = torch.nn.BatchNorm2d(outputs)

    def forward(self, x):
        """Its output."""
        y = self.BatchNorm_1(self.Conv_1(self.BatchNorm_0(self.Conv_0(x)).relu()))
        return (y + (self.BatchNorm_2(self.Conv_2(x)) if hasattr(self, "Conv_2") else x)).relu()


class ResNet8(torch.nn.Module):
    """Ours by the names of its layers, but for the last one."""

    def __init__(self):
        super().__init__()
        self.Conv_0, self.BatchNorm_0 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(16)
        self.Block_0_0, self.Block_1_0, self.Block_2_0 = Block(16, 16), Block(16, 32), Block(32, 64)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x):
        """The logits."""
        x = self.BatchNorm_0(self.Conv_0(x)).relu()
        return self.head(self.Block_2_0(self.Block_1_0(self.Block_0_0(x))).mean((2, 3)))


def loaded(module, arrays):
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return module.eval()


def test_pytorch_loads_a_residual_network_of_ours_and_ours_loads_its():
    model, rng, names = models.cifar_resnet(8, 10), np.random.default_rng(0), {"Dense_0": "head"}
    x = rng.normal(size=(4, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    theirs = ResNet8()
    with torch.no_grad():
        for value in theirs.state_dict().values():
            if value.ndim == 1:
                value.uniform_(0.5, 1.5)
        # PyTorch, whose module nobody has touched, by its own means; then there and back.
        params, state = models.from_torch(theirs.state_dict(), *shapes, names=names)
        for module in (theirs.eval(), loaded(ResNet8(), models.to_torch(params, state, names=names))):
            logits = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
            # Sums of up to 576 products in another order, through seven layers.
            ours = model.apply(params, state, x, train=False)[0]
            np.testing.assert_allclose(logits.numpy(), ours, rtol=1e-3, atol=1e-4)


def test_pytorch_loads_attention_of_ours():
    import flax.linen as nn

    module, rng = nn.MultiHeadDotProductAttention(2), np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 6)).astype(np.float32)
    params = module.init(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
    arrays = {name.removeprefix("at."): array for name, array in models.to_torch({"at": params}).items()}
    theirs = loaded(torch.nn.MultiheadAttention(6, 2, batch_first=True), arrays)
    with torch.no_grad():
        found, _ = theirs(*[torch.from_numpy(x)] * 3)
    ours = np.asarray(module.apply({"params": params}, x))
    np.testing.assert_allclose(found.numpy(), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs_by_its_command(name):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--smallest"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not installed" not in done.stdout
    assert f"jax {jax.__version__}" in done.stdout
