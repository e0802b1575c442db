"""What devices that share batches tell each other in a step, and what a step costs as devices and batch grow together.

    .venv-bench/bin/python -m benchmarks.several_devices

A step of CEAG (an MLP 107-256-256-2, 128 examples a device, a memory of every example, 98 % pruned) through `train.fit`
on meshes of 1, 2 and 4 devices of the host, from 10 to 10,000 groups. The bytes are those of all sums and exchanges in
the program that XLA made of a chunk of steps, each counted once, also those outside of the loop over steps. Those in a
conditional stand apart (*seldom*). The cores are shared by the devices, so that the time of a step cannot stay what it
is with one: it grows with the examples.

2026-12-01, `--devices 2 4 --groups 10 1000 10000 --rounds 2`; 2 cores of an AMD EPYC, load 2.2, so that no time is
given; python 3.13.0, jax and jaxlib 0.12.0.1, optax 0.2.8, numpy 2.5.5; the gradient has 375,816 bytes:

=======  ======  ============  =======
devices  groups  bytes a step  seldom
=======  ======  ============  =======
2        10      399,540       1,440
2        1,000   415,380       144,000
2        10,000  559,380       480,000
4        10      414,900       2,720
4        1,000   430,740       272,000
4        10,000  574,740       1,120,000
=======  ======  ============  =======

With one device nothing is told. Of the rest 16 bytes are for a group, and 76 to 92 for an example of the batch.
"""

import argparse
import itertools
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks import timing

DEVICES, GROUPS, STEPS, EACH = (1, 2, 4), (10, 100, 1000, 10_000), 16, 128
FEATURES, WIDTH = 107, 256
#: Of the parameters, which is what the gradient of a step has to be summed over the devices.
GRADIENT = 4 * ((FEATURES + 1) * WIDTH + (WIDTH + 1) * WIDTH + (WIDTH + 1) * 2)
PACKAGES = ("jax", "jaxlib", "optax", "numpy")
WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
TELLS = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\((.*)")


def told(program: str) -> dict[str, int]:
    """Bytes of what the devices of a compiled program tell each other, by the kind of telling.

    ``seldom`` is what stands in a conditional, of any kind: sums of a memory that has lost digits, over all examples.
    """
    found: dict[str, int] = {}
    for shapes, kind, more in TELLS.findall(program):
        kind = "seldom" if "/cond/branch_" in more else kind
        arrays = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes)
        size = sum(WIDTHS[of] * math.prod(map(int, filter(None, dims.split(",")))) for of, dims in arrays)
        found[kind] = found.get(kind, 0) + size
    return found


def play(devices: int, groups: int, rounds: int) -> float:
    """Trains on a mesh, and gives the seconds of a step: the shortest epoch after the first."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxfair import constraints, models, sparsity, train
    from jaxfair.typing import Batch

    rng, people = np.random.default_rng(0), STEPS * EACH * devices
    split = Batch(
        x=rng.normal(size=(people, FEATURES)).astype(np.float32), y=rng.integers(2, size=people, dtype=np.int32),
        group=rng.integers(groups, size=people, dtype=np.int32), index=np.arange(people, dtype=np.int32),
        weight=np.ones(people, np.float32),
    )  # fmt: skip
    model = models.mlp(2, hidden=(WIDTH, WIDTH))
    problem = constraints.excess_accuracy_gap(
        model.apply, num_groups=groups, tolerance=0.01, memory=constraints.example_memory(groups)
    )
    primal = sparsity.prune(optax.sgd(0.05, momentum=0.9), sparsity.constant(0.98), prunable=model.prunable)
    solver = constraints.solver(problem, primal=primal, dual=optax.sgd(0.1))
    params, state = model.init(jax.random.key(0), jnp.zeros((1, FEATURES)))
    carry = problem.init(state, constraints.Outcomes(jnp.ones(people), jnp.zeros(people)), split)
    start = jax.tree.map(lambda a: a[None], solver.init(params, carry))
    at: list[float] = []
    train.fit(
        solver, start, split, keys=jax.random.split(jax.random.key(0), 1), epochs=rounds, batch_size=EACH * devices,
        num_steps=STEPS, mesh=train.mesh(1, devices), show=lambda *said: at.append(time.perf_counter()),
    )  # fmt: skip
    return min(b - a for a, b in itertools.pairwise(at)) / STEPS


def measured(devices: int, groups: int, rounds: int) -> tuple[dict[str, int], float]:
    """What is told, and the seconds of a step, of a process with so many devices."""
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            f"--xla_force_host_platform_device_count={devices} --xla_dump_to={folder} --xla_dump_hlo_as_text "
            "--xla_dump_hlo_module_re=.*held.*"
        )
        words = [sys.executable, "-m", "benchmarks.several_devices", "--play", devices, groups, rounds]
        done = subprocess.run(
            list(map(str, words)), capture_output=True, text=True, check=False, env=os.environ | {"XLA_FLAGS": flags}
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        (program,) = pathlib.Path(folder).glob("*after_optimizations.txt")
        return told(program.read_text()), float(done.stdout.split()[-1])


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES)
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS)
    parser.add_argument("--rounds", type=int, default=20, help="epochs of 16 steps, the shortest of which counts")
    parser.add_argument("--play", type=int, nargs=3, help=argparse.SUPPRESS)
    return timing.parsed(parser, argv, devices=[2], groups=[10], rounds=2)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.play:
        print(play(*args.play))
        return
    print(f"{timing.machine()}; {timing.versions(PACKAGES)}; {timing.load()}")
    print(f"gradient {GRADIENT:,} bytes")
    for devices in args.devices:
        for groups in args.groups:
            kinds, seconds = measured(devices, groups, args.rounds)
            total = sum(kinds.values()) - kinds.get("seldom", 0)
            each = ", ".join(f"{kind} {size:,}" for kind, size in sorted(kinds.items()))
            print(f"{devices} devices, {groups:,} groups: {total:,} bytes ({each}); {1e3 * seconds:.2f} ms a step")


def test_devices_tell_each_other_the_gradient_and_little_else(benchmark, flags):
    args = flags(parse)
    found = {
        (d, g): benchmark.pedantic(measured, args=(d, g, args.rounds)) if (d, g) == (args.devices[-1], args.groups[-1])
        else measured(d, g, args.rounds) for d in args.devices for g in args.groups
    }  # fmt: skip
    for (devices, groups), (kinds, _) in found.items():
        total = sum(kinds.values()) - kinds.get("seldom", 0)
        assert total == 0 if devices == 1 else GRADIENT <= total <= 1.2 * GRADIENT + 16 * groups


if __name__ == "__main__":
    main()
