"""Everything that the benchmarks measure, on an accelerator, in one table and under four minutes.

    .venv-bench/bin/python -m benchmarks.accelerator --data_dir folder/of/cifar10

Each line is a question that another benchmark asks of a CPU, with the figure that is asked for where there is one: what
a bound costs (`benchmarks.constrained_step`), new masks against reading the scores twice, and a step without new masks
(`benchmarks.pruning`), a sweep of 32 seeds against the memory (`benchmarks.games`), thirty networks side by side
against one (`train.dense`), and a ResNet-20 on CIFAR-10, pruned under CEAG's bound (`recipes.prune`), from the first
dense epoch to the last. Without ``--data_dir`` that one learns noise of the same shape: its time is the same, and its
accuracy says nothing.

A part is begun only while there is time (``--seconds``), and what was left out is named. Where there is no accelerator
the table says so, and is played at the smallest size, which shows that it runs and no more.

No accelerator's figures have been taken yet.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import constrained_step, games, pruning, timing
from jaxfair import data, models, recipes, train
from jaxfair.typing import Model

PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")
#: Bytes that are read once, for the bandwidth.
BYTES_READ = 2**30


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      what: was measured.
      figure: that came out, in words.
      asked: of it, in words; empty where nothing is.
      met: whether it is; None where nothing is asked.
    """

    what: str
    figure: str
    asked: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        met = "" if self.met is None else "yes" if self.met else "no"
        return f"| {self.what} | {self.figure} | {self.asked} | {met} |"


def at_most(what: str, ratio: timing.Ratio, most: float, more: str = "") -> Row:
    return Row(what, f"{ratio}{more}", f"at most {most:g}", ratio.median <= most)


def constrained(args: argparse.Namespace) -> Iterator[Row]:
    """What a bound costs, in plain steps."""
    for groups in args.groups:
        seconds = constrained_step.measure(constrained_step.sized(args, groups), rounds=args.rounds, peers=[])
        price, step = constrained_step.claims(seconds).price, 1e6 * np.median(seconds["ceag"])
        most = constrained_step.MOST_OF_PLAIN.get(groups, 1.15)
        yield at_most(f"CEAG step / plain step, {groups:,} groups", price, most, f"; {step:.0f} us")


def masks(args: argparse.Namespace) -> Iterator[Row]:
    """New masks of a ResNet-50, in two reads of the scores."""
    found = pruning.masks(pruning.resnet50_shapes()[: args.layers], sort=False)
    seconds = timing.interleaved(found.calls, rounds=args.rounds)
    for name in ("uniform", "global"):
        ratio, taken = pruning.against_reads(seconds, name), 1e3 * np.median(seconds[name])
        yield at_most(f"new masks ({name}) / two reads", ratio, pruning.MOST_OF_TWO_READS, f"; {taken:.2f} ms")


def pruned(args: argparse.Namespace) -> Iterator[Row]:
    """A step of pruning that makes no masks, in steps of the optimizer alone."""
    for name, network in pruning.networks(args.smallest).items():
        seconds = pruning.measure_steps(network, lanes=1, rounds=args.rounds, num_steps=args.steps or 20)
        ratio = timing.ratio(seconds["pruned"], seconds["plain"])
        yield at_most(f"pruned step / plain step, {name}", ratio, pruning.MOST_OF_STEP)


def bandwidth(size: int, rounds: int) -> float:
    """Bytes per second of the device's memory: the best of all readings of one large array."""
    array = jnp.ones(size // 4, jnp.float32)
    read = jax.jit(jnp.sum)
    return size / timing.interleaved({"read": lambda: read(array).block_until_ready()}, rounds=rounds)["read"].min()


def sweeps(args: argparse.Namespace) -> Iterator[Row]:
    """Lanes of a game, in what the memory allows the matrices that they draw."""
    speed = bandwidth(BYTES_READ if not args.smallest else 2**20, args.rounds)
    yield Row("memory is read at", f"{speed / 1e9:,.0f} GB/s")
    for lanes in games.LANES:
        work = games.workload(*lanes, dim=args.dim, num_samples=args.dim, num_steps=args.sweep_steps)
        run = games.sweep_run(work)
        step = np.median(timing.interleaved({"sweep": run}, rounds=args.rounds)["sweep"]) / args.sweep_steps
        share = lanes[0] * lanes[1] * 4 * args.dim**2 / speed / step
        rate = f"{lanes[0] * lanes[1] / step:,.0f} steps of a lane a second, {share:.2f} of what memory allows"
        least = games.LEAST_OF_MEMORY
        yield Row(f"sweep of {lanes[0]} settings x {lanes[1]} seeds", rate, f"at least {least:g}", share >= least)


def epoch_seconds(model: Model, split: Any, lanes: int, args: argparse.Namespace) -> float:
    """The shortest epoch of dense training after the first, which compiles."""
    at: list[float] = []
    train.dense(
        model, split, keys=jax.random.split(jax.random.key(0), lanes), epochs=args.rounds + 1, batch_size=128,
        show=lambda *said: at.append(time.perf_counter()),
    )  # fmt: skip
    return min(b - a for a, b in itertools.pairwise(at))


def population(args: argparse.Namespace) -> Iterator[Row]:
    """Networks side by side, in networks one after another."""
    work = constrained_step.sized(args, 10)
    model = models.mlp(2, hidden=work.hidden)
    one, many = (epoch_seconds(model, work.split, lanes, args) for lanes in (1, args.networks))
    times = args.networks * one / many
    yield Row(
        f"{args.networks} networks side by side", f"{times:.1f} times as fast as in turn; {1e3 * many:.0f} ms an epoch"
    )


def cifar10(args: argparse.Namespace) -> data.Dataset:
    """CIFAR-10; without its files noise of the same shape."""
    if args.data_dir:
        return data.load("cifar10", data_dir=args.data_dir)
    rng, people, side = np.random.default_rng(0), args.images, 8 if args.smallest else 32
    y = rng.integers(10, size=people)
    x = rng.normal(size=(people, side, side, 3)).astype(np.float32)
    return data.dataset(x, y, y)


def ceag(args: argparse.Namespace) -> Iterator[Row]:
    """The main job on CIFAR-10."""
    dataset = cifar10(args)
    model = models.cifar_resnet(8, 10) if args.smallest else models.cifar_resnet20(10)
    same: dict[str, Any] = {"epochs": args.epochs, "batch_size": 8 if args.smallest else 128, "progress": False}
    began = time.perf_counter()
    dense = recipes.dense(model, dataset, seeds=1, **same)
    middle = time.perf_counter()
    sparse = recipes.prune(model, dataset, dense, sparsity=0.95, bound=recipes.ceag(0.01), **same)
    ended = time.perf_counter()
    right = [100 * float(np.mean(found.predict(dataset.test)[0] == dataset.test.y)) for found in (dense, sparse)]
    images = args.epochs * len(dataset.train.y)
    yield Row(
        f"CEAG on {'CIFAR-10' if args.data_dir else 'noise like CIFAR-10'}, {args.epochs} + {args.epochs} epochs",
        f"{ended - began:.0f} s; {images / (middle - began):,.0f} images a second dense, "
        f"{images / (ended - middle):,.0f} under the bound, compiling included; right {right[0]:.1f}, {right[1]:.1f} %",
    )  # fmt: skip


#: What is measured, in the order in which it is left out last.
PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "constrained": constrained, "masks": masks, "pruned": pruned, "sweeps": sweeps, "population": population,
    "ceag": ceag,
}  # fmt: skip


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--seconds", type=float, default=200, help="after which no part is begun")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each contender")
    parser.add_argument("--groups", type=int, nargs="+", default=constrained_step.GROUPS)
    parser.add_argument("--examples", type=int, default=22_795, help="in the training split of the constrained step")
    parser.add_argument("--steps", type=int, help="at most; by default an epoch")
    parser.add_argument("--layers", type=int, help="of the ResNet-50 whose masks are made; by default all")
    parser.add_argument("--dim", type=int, default=100, help="of the game")
    parser.add_argument("--sweep_steps", type=int, default=2_000, help="of the game")
    parser.add_argument("--networks", type=int, default=30, help="side by side")
    parser.add_argument("--epochs", type=int, default=8, help="of dense training, and as many under the bound")
    parser.add_argument("--images", type=int, default=60_000, help="of noise, where there is no --data_dir")
    parser.add_argument("--data_dir", default="", help="with cifar10_train.npz and cifar10_test.npz, or of TFDS")
    return timing.parsed(
        parser, argv, rounds=1, groups=[10], examples=256, steps=2, layers=2, dim=8, sweep_steps=8, networks=2,
        epochs=2, images=100,
    )  # fmt: skip


HEAD = "| what | came out | asked | met |\n" + "|---" * 4 + "|"


def main(argv: Sequence[str] | None = None) -> None:
    args, device = parse(argv), jax.devices()[0]
    if device.platform == "cpu" and not args.smallest:
        print("There is no accelerator here: everything once, at the smallest size.")
        args = parse([*(sys.argv[1:] if argv is None else argv), "--smallest"])
    print(f"{device.device_kind}; {timing.machine()}; {timing.versions(PACKAGES)}; {timing.load()}")
    print(f"\n{HEAD}", flush=True)
    began, left = time.perf_counter(), []
    for name in args.parts:
        if time.perf_counter() - began > args.seconds:
            left.append(name)
            continue
        for row in PARTS[name](args):
            print(row, flush=True)
    if left:
        print(f"\nLeft out after {args.seconds:g} seconds: --parts {' '.join(left)}")
    print(f"\n{time.perf_counter() - began:.0f} seconds in all.")


def test_all_parts_in_one_table(flags, capsys):
    argv = ["--smallest"] if flags(parse).smallest else []
    main(argv)
    said = capsys.readouterr().out
    print(said)
    assert "Left out" not in said


if __name__ == "__main__":
    main()
