"""The same on two devices as on one: every optimizer on sharded players, and lanes spread over devices."""

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

from jaxfair import train

lanes = train.shard_lanes(jnp.arange(12.0).reshape(4, 3))
assert len(lanes.sharding.device_set) == 2
step = jax.jit(jax.vmap(lambda lane: jnp.cumsum(lane) * 2))
np.testing.assert_array_equal(step(lanes), step(jnp.arange(12.0).reshape(4, 3)))
print("lanes")
"""


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
    assert names[-1] == "lanes"
    assert len(names) > 20
