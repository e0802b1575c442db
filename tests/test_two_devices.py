"""The same on two devices as on one: optimizers and pruners and quantisers on sharded arrays."""

import os
import pathlib
import subprocess
import sys

import pytest

LAWS = pathlib.Path(__file__).parent / "laws" / "test_optim.py"
SCRIPT = """
import importlib.util, sys
import jax, jax.numpy as jnp, numpy as np

spec = importlib.util.spec_from_file_location("laws", sys.argv[1])
laws = importlib.util.module_from_spec(spec)
spec.loader.exec_module(laws)

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("d",))
split = jax.NamedSharding(mesh, jax.P("d"))
start = {"x": jnp.arange(4.0), "y": jnp.ones(4)}
oracles = dict.fromkeys(laws.ORACLES, lambda w: {"x": w["x"] + 2 * w["y"], "y": w["y"] - 2 * w["x"]})

for name, entry in laws.TABLE.items():
    tx = entry.make(0.0625)

    def play(params):
        state = tx.init(params)
        for _ in range(3):
            params, state, _ = laws.stepper(tx, oracles)(params, state)
        return params

    play = jax.jit(play)
    alone = play(start)
    for tree in (jax.device_put(start, split), {"x": start["x"], "y": jax.device_put(start["y"], split)}):
        spread = play(tree)
        for key in start:
            # Sums over the devices may be taken in another order.
            np.testing.assert_allclose(spread[key], alone[key], rtol=1e-5, atol=1e-6, err_msg=name)
    spread = play(jax.device_put(start, split))
    assert all(leaf.sharding.is_equivalent_to(split, 1) for leaf in jax.tree.leaves(spread)), name
    print(name)
"""

PRUNERS = """
import jax, jax.numpy as jnp, numpy as np, optax
from jaxfair import sparsity

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
split = jax.NamedSharding(mesh, jax.P("d"))
rng = np.random.default_rng(0)
# Rounded, so that there are ties on either side of the cut, and between the devices.
params = {f"Dense_{i}": {"kernel": jnp.asarray(rng.normal(size=(8, 8)).round(1), jnp.float32)} for i in range(3)}
target = {f"Dense_{i}": {"kernel": jnp.asarray(rng.normal(size=(8, 8)).round(1), jnp.float32)} for i in range(3)}
prunable = lambda path: path != "Dense_2/kernel"
rising = sparsity.polynomial(0.75, begin=1, end=5, every=2)
still = sparsity.periodic(0.75, every=2, end=6)
sgd = lambda: optax.sgd(0.1, momentum=0.9)
prune = lambda **more: sparsity.prune(sgd(), rising, prunable=prunable, **more)
key = jax.random.key(1)
TABLE = {
    "magnitude": prune(),
    "saliency": prune(score=sparsity.saliency),
    "random": prune(score=sparsity.random(key)),
    "movement": prune(score=sparsity.movement()),
    "fisher": prune(score=sparsity.fisher()),
    "global": prune(distribution=sparsity.global_),
    "global_normalized": prune(distribution=sparsity.global_normalized),
    "erk": prune(distribution=sparsity.erk()),
    "n_by_m": prune(structure=sparsity.n_by_m(1, 4)),
    "block": prune(structure=sparsity.block((2, 2))),
    "channel": prune(structure=sparsity.channel(-1)),
    "balanced": prune(structure=sparsity.balanced()),
    "set": sparsity.set_(sgd(), still, key=key, prunable=prunable),
    "rigl": sparsity.rigl(sgd(), still, key=key, prunable=prunable),
    "straight_through": sparsity.straight_through(sgd(), rising, prunable=prunable),
}
for name, tx in TABLE.items():
    def run(params):
        state = tx.init(params)
        def step(carry, _):
            params, state = carry
            gradient = jax.tree.map(lambda p, t: p - t, params, target)
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None
        (params, state), _ = jax.lax.scan(step, (params, state), None, 6)
        return params, sparsity.get_masks(state)

    run = jax.jit(run)
    (alone, masks), (spread, spread_masks) = run(params), run(jax.device_put(params, split))
    jax.tree.map(np.testing.assert_array_equal, spread_masks, masks)
    # A step is element by element: nothing is summed in another order.
    jax.tree.map(np.testing.assert_array_equal, spread, alone)
    assert all(w.sharding.is_equivalent_to(split, 2) for w in jax.tree.leaves(spread)), name
    zeros = sum(int((~np.asarray(m)).sum()) for m in jax.tree.leaves(masks))
    assert zeros == 96, (name, zeros)
    print(name)
"""


QUANTISERS = """
import jax, jax.numpy as jnp, numpy as np, optax
from jaxfair import quant

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
split = jax.NamedSharding(mesh, jax.P("d"))
rng = np.random.default_rng(0)
params, target = ({"w": jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)} for _ in range(2))
LSQ = {"quantizer": quant.Quantizer(scale=quant.learned), "learning": optax.sgd(1e-3)}
TABLE = {
    "tensor": quant.quantized(optax.sgd(0.1), bits=4),
    "channel": quant.quantized(optax.sgd(0.1), bits=4, quantizer=quant.Quantizer(quant.signed, quant.per_channel())),
    "group": quant.quantized(optax.sgd(0.1), bits=4, quantizer=quant.Quantizer(quant.affine, quant.per_group(2))),
    "squares": quant.quantized(
        optax.sgd(0.1), bits=3, quantizer=quant.Quantizer(scale=quant.least_squares(8))),
    "learned": quant.quantized(optax.sgd(0.1), bits=3, **LSQ),
    "watched": quant.watch(quant.quantized(optax.sgd(0.1), bits=2), threshold=0.02),
}
for name, tx in TABLE.items():
    def run(params):
        state = tx.init(params)
        for _ in range(3):
            at = quant.quantized_params(params, state)
            updates, state = tx.update(jax.tree.map(lambda p, t: p - t, at, target), state, params)
            params = optax.apply_updates(params, updates)
        return params, quant.quantized_params(params, state)

    run = jax.jit(run)
    alone, spread = run(params), run(jax.device_put(params, split))
    # Sums over the devices, of squared errors and of a step's gradient, may be taken in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), spread, alone)
    assert spread[0]["w"].sharding.is_equivalent_to(split, 2), name
    print(name)
"""


@pytest.mark.slow
def test_quantisers_give_the_same_levels_on_two_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    run = subprocess.run(
        [sys.executable, "-c", QUANTISERS], capture_output=True, text=True, timeout=600,
        env=os.environ | {"XLA_FLAGS": flags}, cwd=LAWS.parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) == 6


@pytest.mark.slow
def test_pruners_give_the_same_masks_on_two_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    run = subprocess.run(
        [sys.executable, "-c", PRUNERS], capture_output=True, text=True, timeout=600,
        env=os.environ | {"XLA_FLAGS": flags}, cwd=LAWS.parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) == 15


@pytest.mark.slow
def test_two_devices_give_what_one_does():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(LAWS)],
        capture_output=True, text=True, timeout=600, env=os.environ | {"XLA_FLAGS": flags},
        cwd=LAWS.parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    names = run.stdout.split()
    assert len(names) > 20
