"""The price of bilevel pruning: a step of BiP, of a weight step and a mask step, against two plain steps.

    .venv-bench/bin/python -m benchmarks.bilevel

A plain step is the gradient of a minibatch of B and `optax.sgd` with momentum. A step of BiP takes 2 B, B for the
weights and B for the masks: two gradients, a global top-k of all scores, and both updates. It may take 2.2 plain steps.
`relaxed` projects the scores on the box and a sum instead of taking the best; it is shown beside it.

Medians of pairs, and quartiles.

2026-11-30, `--rounds 15 --steps 10`; 2 cores of AMD EPYC, load 0.3; python 3.13.0, jax and jaxlib 0.12.0.1, optax
0.2.8, flax 0.12.12, numpy 2.5.5:

=================  =======  ======================
step of            kind     plain steps
=================  =======  ======================
cifar_resnet20     bip      1.949 (1.885 to 2.017)
cifar_resnet20     relaxed  1.986 (1.880 to 2.077)
mlp of 10 million  bip      2.778 (2.741 to 2.795)
mlp of 10 million  relaxed  2.577 (2.554 to 2.607)
=================  =======  ======================

So 2.2 is kept where the network computes, and not by an MLP at a batch of 128, whose plain step of 24 ms is little more
than its weights read and written: masked weights are written out twice a step, the scores move, and every tenth step
the best of ten million are found.
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
from jaxfair import bilevel, sparsity
from jaxfair.typing import Batch

#: The most that a step of BiP may cost, in plain steps.
MOST_OF_PLAIN = 2.2
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")
KINDS = ("plain", "bip", "relaxed")


def steps(network: Network, kind: str, *, num_steps: int) -> Callable[[], Any]:
    """So many steps, one compiled call each. A call goes on from where the last one ended, in its memory."""
    tx = optax.sgd(1e-3, momentum=0.9)
    number = network.shape[0] * (1 if kind == "plain" else 2)
    rng = np.random.default_rng(0)
    y = jnp.asarray(rng.integers(10, size=number), jnp.int32)
    x = jnp.asarray(rng.normal(size=(number, *network.shape[1:])), jnp.float32)
    batch = Batch(x, y, jnp.zeros(number, jnp.int32), jnp.arange(number), jnp.ones(number))
    params, model_state = network.model.init(jax.random.key(0), x[:1])
    if kind == "plain":
        state: Any = params, model_state, tx.init(params)

        def step(state: Any, batch: Batch) -> Any:
            params, model_state, opt_state = state

            def loss(params: Any) -> Any:
                logits, after = network.model.apply(params, model_state, batch.x, train=True)
                return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean(), after

            gradient, model_state = jax.grad(loss, has_aux=True)(params)
            updates, opt_state = tx.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), model_state, opt_state

    else:
        solver = bilevel.bip(
            network.model.apply, sparsity.constant(0.9), prunable=network.model.prunable, weights=tx,
            masks=optax.sgd(1e-2), gamma=10.0, weight_decay=1e-4, relaxed=kind == "relaxed",
        )  # fmt: skip
        state = solver.init(params, model_state)

        def step(state: Any, batch: Batch) -> Any:
            return solver.step(state, batch, None)[0]

    compiled = jax.jit(step, donate_argnums=0)
    kept = [compiled(jax.tree.map(jnp.array, state), batch)]

    def call() -> Any:
        for _ in range(num_steps):
            kept[0] = compiled(kept[0], batch)
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
        most = {"bip": MOST_OF_PLAIN}.get(kind, "")
        yield f"| {name} | {kind} | {1e3 * np.median(values):.2f} | {price} | {most} |"


@pytest.mark.parametrize("name", networks())
def test_a_step_of_bip(benchmark, flags, name):
    args = flags(parse)
    network = networks(args.smallest)[name]
    seconds = measure(network, rounds=args.rounds, num_steps=args.steps)
    print(f"\n{HEAD}", *rows(name, seconds), sep="\n")
    call = steps(network, "bip", num_steps=args.steps)
    benchmark.pedantic(call, rounds=min(args.rounds, 5), warmup_rounds=1)
    assert args.smallest or timing.ratio(seconds["bip"], seconds["plain"]).median <= MOST_OF_PLAIN


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
