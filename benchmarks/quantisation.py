"""The price of training under a quantiser: a step of the optimizer alone, of ours in two ways, and of qwix's.

    .venv-bench/bin/python -m benchmarks.quantisation

An MLP of 10 million weights, a batch of 128, `optax.sgd` with momentum; the gradient is part of the step, which is one
compiled call. ``wrapped`` is `quant.quantized` with the gradient at `quant.quantized_params`, ``forward`` is
`quant.model`, ``qwix`` is `qwix.QtProvider` with the rule of `quant.qwix_rule`; all with 4 bits per channel, signed,
the largest weight a level, so that they compute the same. A wrapped step may take 1.3 plain ones, and no longer than
qwix's.

Medians of pairs, and quartiles.

2026-11-30, `--rounds 21`; 2 cores of AMD EPYC, load 0.9; python 3.13.0, jax and jaxlib 0.12.0.1, optax 0.2.8, flax
0.12.12, qwix 0.1.8, numpy 2.5.5; in megabytes what XLA says that a step reads and writes:

=======  ======================  ======================  =========
step     plain ones              of qwix's               megabytes
=======  ======================  ======================  =========
plain    1                       0.885 (0.874 to 0.915)  459
wrapped  1.093 (1.068 to 1.117)  0.973 (0.953 to 1.007)  552
forward  1.252 (1.207 to 1.284)  1.116 (1.068 to 1.170)  622
qwix     1.130 (1.093 to 1.144)  1                       512
=======  ======================  ======================  =========
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import timing
from jaxfair import models, quant
from jaxfair.typing import Model

#: The most that a step may cost, in steps of the optimizer alone.
MOST_OF_STEP = 1.3
HOW = quant.Quantizer(quant.signed, quant.per_channel())
PACKAGES = ("jax", "jaxlib", "optax", "flax", "qwix", "numpy")


class Net(nn.Module):
    """Dense layers with ReLU between them."""

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x, *, train=False):
        """The logits."""
        del train
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


def steps(name: str, hidden: tuple[int, ...], shape: tuple[int, int], *, num_steps: int) -> Callable[[], Any]:
    """So many steps, one compiled call each. A call goes on from where the last one ended, in its memory."""
    tx: optax.GradientTransformation = optax.sgd(1e-3, momentum=0.9)
    network: Model = models.linen(Net(hidden), prunable=quant.quantizable)
    if name == "wrapped":
        tx = quant.quantized(tx, bits=4, quantizer=HOW)
    if name == "forward":
        network = quant.model(network, 4, quantizer=HOW)
    if name == "qwix":
        import qwix

        provider = qwix.QtProvider([quant.qwix_rule(4, quantizer=HOW)])
        network = models.linen(qwix.quantize_model(Net(hidden), provider), prunable=quant.quantizable)
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=shape), jnp.float32), jnp.asarray(rng.integers(10, size=shape[0]), jnp.int32)

    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        params, opt_state = state

        def loss(params: Any) -> Any:
            logits, _ = network.apply(params, {}, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        at = quant.quantized_params(params, opt_state) if name == "wrapped" else params
        updates, opt_state = tx.update(jax.grad(loss)(at), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, _ = network.init(jax.random.key(0), x[:1])
    compiled = jax.jit(step, donate_argnums=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what qwix calls of flax has newer names by now
        kept = [compiled(jax.tree.map(jnp.array, (params, tx.init(params))), x, y)]

    def call() -> Any:
        for _ in range(num_steps):
            kept[0] = compiled(kept[0], x, y)
        return jax.block_until_ready(kept[0])

    return call


def contenders(smallest: bool, num_steps: int) -> dict[str, Callable[[], Any]]:
    hidden, shape = ((16,), (4, 8)) if smallest else ((2048, 2048, 2048), (128, 784))
    return {name: steps(name, hidden, shape, num_steps=num_steps) for name in ("plain", "wrapped", "forward", "qwix")}


HEAD = "| step | ms | / plain | / qwix |\n" + "|---" * 4 + "|"


def rows(seconds: dict[str, np.ndarray]) -> list[str]:
    return [
        f"| {name} | {1e3 * np.median(values):.2f} | {timing.ratio(values, seconds['plain'])} | "
        f"{timing.ratio(values, seconds['qwix'])} |"
        for name, values in seconds.items()
    ]


def measured(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Name -> ``[rounds]`` seconds of a step."""
    runs = contenders(args.smallest, args.steps)
    return {name: values / args.steps for name, values in timing.interleaved(runs, rounds=args.rounds).items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_step_under_a_quantiser(benchmark, flags):
    args = flags(parse)
    seconds = measured(args)
    print(f"\n{HEAD}", *rows(seconds), sep="\n")
    benchmark.pedantic(contenders(args.smallest, args.steps)["wrapped"], rounds=min(args.rounds, 5), warmup_rounds=1)
    if not args.smallest:
        assert timing.ratio(seconds["wrapped"], seconds["plain"]).median <= MOST_OF_STEP
        assert timing.ratio(seconds["wrapped"], seconds["qwix"]).median <= 1.0


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31, help="measurements")
    parser.add_argument("--steps", type=int, default=3, help="per measurement")
    return timing.parsed(parser, argv, rounds=2, steps=1)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    print(f"{timing.machine()}; {timing.versions(PACKAGES)}; {timing.load()}")
    print(f"\n{HEAD}", *rows(measured(args)), sep="\n")


if __name__ == "__main__":
    main()
