"""A million constraints of which a step sees 128, against a step with 128 constraints.

    .venv-bench/bin/python -m benchmarks.indexed_multipliers

The same problem twice: the network of the other benchmarks (an MLP 107-256-256-2, batches of 128), in which every
example is a constraint of its own (its loss is at most a bound), through `constraints.indexed` of a million and through
`constraints.dense` of 128, both with momentum on the multipliers. 100 steps in one compiled call. Medians of pairs, and
quartiles.

2026-11-22, `--rounds 21`; 2 cores of an Intel Xeon (AVX-512), load 0.5; python 3.11.7, jax and jaxlib 0.10.2, optax
0.2.8, numpy 2.4.6: 744 us a step with a million, 702 with 128; **ratio 1.06 (1.06 to 1.07)**, at most 1.2.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from jaxfair import constraints, models

NUM_CONSTRAINTS, ROWS, STEPS, FEATURES = 1_000_000, 128, 100, 107
#: The most that the step with a million constraints may cost, in steps with 128.
MOST = 1.2
PACKAGES = ("jax", "jaxlib", "optax", "numpy")


def chunk(multipliers: constraints.Multipliers, *, num_steps: int = STEPS) -> Callable[[], Any]:
    """Steps in one compiled call; a call goes on from where the last one ended, in its memory."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(num_steps, ROWS, FEATURES)), jnp.float32)
    y = jnp.asarray(rng.integers(2, size=(num_steps, ROWS)), jnp.int32)
    number = jnp.asarray(
        np.stack([rng.choice(NUM_CONSTRAINTS, ROWS, replace=False) for _ in range(num_steps)]),
        jnp.int32,
    )
    model = models.mlp(2, hidden=(256, 256))
    params, _ = model.init(jax.random.key(0), x[0])

    def evaluate(params: Any, carry: Any, batch: Any, key: Any) -> constraints.Evaluation:
        x, y, index = batch
        logits, _ = model.apply(params, {}, x, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return constraints.Evaluation(loss=losses.mean(), proxy=losses - 1.0, strict=losses - 1.0, index=index)

    solver = constraints.solver(
        evaluate,
        multipliers=multipliers,
        primal=optax.sgd(1e-3, momentum=0.9),
        dual=optax.sgd(1e-3, momentum=0.5),
    )

    def run(state: Any) -> Any:
        return jax.lax.scan(lambda s, batch: (solver.step(s, batch)[0], None), state, (x, y, number))[0]

    compiled = jax.jit(run, donate_argnums=0)
    kept = [compiled(jax.tree.map(jnp.array, solver.init(params)))]

    def call() -> Any:
        kept[0] = jax.block_until_ready(compiled(kept[0]))
        return kept[0]

    return call


def contenders(num_steps: int = STEPS) -> dict[str, Callable[[], Any]]:
    return {
        "a million": chunk(constraints.indexed(NUM_CONSTRAINTS), num_steps=num_steps),
        "128": chunk(constraints.dense(ROWS), num_steps=num_steps),
    }


def test_a_million_constraints(benchmark, flags):
    args = flags(parse)
    seconds = timing.interleaved(contenders(args.steps), rounds=args.rounds)
    found = timing.ratio(seconds["a million"], seconds["128"])
    benchmark.extra_info.update(found._asdict())
    benchmark.pedantic(contenders(args.steps)["a million"], rounds=min(args.rounds, 5), warmup_rounds=1)
    assert args.smallest or found.median <= MOST


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41, help="measurements of each contender")
    parser.add_argument("--steps", type=int, default=STEPS, help="in one compiled call")
    return timing.parsed(parser, argv, rounds=2, steps=2)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    seconds = timing.interleaved(contenders(args.steps), rounds=args.rounds)
    found = timing.ratio(seconds["a million"], seconds["128"])
    print(f"{timing.machine()}; {timing.versions(PACKAGES)}; {timing.load()}")
    for name, values in seconds.items():
        print(f"{name}: {1e6 * np.median(values) / args.steps:.1f} us a step")
    print(f"ratio {found}, at most {MOST}")


if __name__ == "__main__":
    main()
