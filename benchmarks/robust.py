"""The price of an adversary: a step of robust training against the plain step of the same network.

    .venv-bench/bin/python -m benchmarks.robust

A plain step is the gradient of a minibatch and `optax.sgd` with momentum (`train.descent`). A step of Group DRO may
take 1.05 of it, with 10 groups as with 1,000; a step of RP-DRO, whose adversary is a network of the same size with an
optimizer of its own, 2.1.

Medians of pairs, and quartiles.

2026-11-30, `--rounds 15 --steps 4`; 2 cores of AMD EPYC, load 0.9; python 3.13.0, jax and jaxlib 0.12.0.1, optax
0.2.8, flax 0.12.12, numpy 2.5.5:

=================  ==============  ======================
step of            kind            plain steps
=================  ==============  ======================
cifar_resnet20     group_dro       1.004 (0.988 to 1.025)
cifar_resnet20     group_dro 1000  1.005 (0.986 to 1.013)
cifar_resnet20     cvar            1.016 (0.996 to 1.042)
cifar_resnet20     chi_square      1.009 (0.994 to 1.024)
cifar_resnet20     kl_ball         1.021 (1.003 to 1.062)
cifar_resnet20     rp_dro          2.291 (2.205 to 2.547)
mlp of 10 million  group_dro       1.019 (0.996 to 1.047)
mlp of 10 million  group_dro 1000  0.996 (0.950 to 1.044)
mlp of 10 million  cvar            1.028 (0.990 to 1.041)
mlp of 10 million  chi_square      1.004 (0.989 to 1.035)
mlp of 10 million  kl_ball         1.013 (0.970 to 1.046)
mlp of 10 million  rp_dro          1.901 (1.859 to 1.927)
=================  ==============  ======================

So 1.05 is kept, and 2.1 by the MLP; not by the ResNet at a batch of 8, where two convolutional networks in one program
take more than twice the time of one on a CPU.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import timing
from benchmarks.pruning import Network, networks
from jaxfair import robust, train
from jaxfair.typing import Batch

#: The most that a step may cost, in plain steps.
MOST_OF_PLAIN = {"group_dro": 1.05, "group_dro 1000": 1.05, "rp_dro": 2.1}
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")
KINDS = ("plain", "erm", "group_dro", "group_dro 1000", "cvar", "chi_square", "kl_ball", "rp_dro")


def objective(network: Network, kind: str) -> robust.Objective:
    return {
        "erm": robust.erm,
        "group_dro": lambda: robust.group_dro(10),
        "group_dro 1000": lambda: robust.group_dro(1000),
        "cvar": lambda: robust.cvar(0.2),
        "chi_square": lambda: robust.chi_square(1.0),
        "kl_ball": lambda: robust.kl_ball(0.5),
        "rp_dro": lambda: robust.ratio_dro(network.model, optax.sgd(1e-3, momentum=0.9), temperature=1.0),
    }[kind]()


def steps(network: Network, kind: str, *, num_steps: int) -> Callable[[], Any]:
    """So many steps, one compiled call each. A call goes on from where the last one ended, in its memory."""
    tx = optax.sgd(1e-3, momentum=0.9)
    number = network.shape[0]
    rng = np.random.default_rng(0)
    y = jnp.asarray(rng.integers(10, size=number), jnp.int32)
    x = jnp.asarray(rng.normal(size=(number, *network.shape[1:])), jnp.float32)
    batch = Batch(x, y, y, jnp.arange(number), jnp.ones(number))
    params, model_state = network.model.init(jax.random.key(0), x[:1])
    if kind == "plain":
        solver = train.descent(network.model.apply, tx)
        state: Any = solver.init(params, model_state)
    else:
        adversary = objective(network, kind)
        solver = robust.solver(network.model.apply, adversary, tx)
        state = solver.init(params, model_state, adversary.init(jax.random.key(1), batch))

    # What a step measures is asked for, as the meters of a training run do.
    def step(state: Any, batch: Batch) -> Any:
        state, info = solver.step(state, batch, None)
        return state, info.loss

    compiled = jax.jit(step, donate_argnums=0)
    kept = [compiled(state, batch)[0]]

    def call() -> Any:
        for _ in range(num_steps):
            kept[0], _ = compiled(kept[0], batch)
        return jax.block_until_ready(kept[0])

    return call


HEAD = "| step of | kind | ms | plain steps | at most |\n" + "|---" * 5 + "|"


def measure(network: Network, *, rounds: int, num_steps: int) -> dict[str, np.ndarray]:
    """Name -> ``[rounds]`` seconds of a step."""
    runs = {kind: steps(network, kind, num_steps=num_steps) for kind in KINDS}
    seconds = timing.interleaved(runs, rounds=rounds)
    return {name: values / num_steps for name, values in seconds.items()}


def rows(name: str, seconds: dict[str, np.ndarray]) -> Iterator[str]:
    for kind, values in seconds.items():
        price = timing.ratio(values, seconds["plain"])
        yield f"| {name} | {kind} | {1e3 * np.median(values):.2f} | {price} | {MOST_OF_PLAIN.get(kind, '')} |"


@pytest.mark.parametrize("name", networks())
def test_a_robust_step(benchmark, flags, name):
    args = flags(parse)
    network = networks(args.smallest)[name]
    seconds = measure(network, rounds=args.rounds, num_steps=args.steps)
    print(f"\n{HEAD}", *rows(name, seconds), sep="\n")
    benchmark.pedantic(steps(network, "group_dro", num_steps=args.steps), rounds=min(args.rounds, 5), warmup_rounds=1)
    for kind, most in MOST_OF_PLAIN.items():
        assert args.smallest or timing.ratio(seconds[kind], seconds["plain"]).median <= most


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="measurements of steps")
    parser.add_argument("--steps", type=int, default=3, help="per measurement")
    return timing.parsed(parser, argv, rounds=2, steps=1)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    print(f"{timing.machine()}; {timing.versions(PACKAGES)}; {timing.load()}\n\n{HEAD}")
    for name, network in networks(args.smallest).items():
        print(*rows(name, measure(network, rounds=args.rounds, num_steps=args.steps)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
