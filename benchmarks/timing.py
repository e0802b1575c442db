"""What the benchmarks share: contenders timed in turn, ratios of pairs, and a line about the machine."""

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Ratio(NamedTuple):
    """How one contender's time compares with another's, over pairs of neighbouring measurements.

    Attributes:
      median: of the pairs' ratios.
      low: their first quartile.
      high: their third quartile.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def interleaved(contenders: Mapping[str, Callable[[], Any]], *, rounds: int, warmup: int = 1) -> dict[str, np.ndarray]:
    """Times every contender once per round, so that a machine that slows down slows all of them.

    Args:
      contenders: name -> a function that returns when its work is done (``block_until_ready``).
      rounds: measurements of each.
      warmup: calls of each before the first measurement; compilation belongs there.

    Returns:
      Name -> ``[rounds]`` seconds.
    """
    for run in contenders.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        # Backwards every other round: whoever runs second finds the caches as the first left them.
        for name in names if number % 2 == 0 else reversed(names):
            began = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(seconds: np.ndarray, of: np.ndarray) -> Ratio:
    """The median, and the quartiles, of the ratios of measurements of the same round.

    The median of ratios, and not the ratio of medians: load that comes and goes hits both of a pair.
    """
    low, median, high = np.quantile(seconds / of, (0.25, 0.5, 0.75))
    return Ratio(float(median), float(low), float(high))


def machine() -> str:
    """Cores, model of the processor, and Python, in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        model = next((v.strip() for k, _, v in lines if k.strip() == "model name"), model)
    return f"{os.cpu_count()} cores of {model}, {platform.system()}"


def versions(packages: Sequence[str]) -> str:
    """Python's version and those of these packages, without the ones that are not installed."""
    found = [f"python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def load() -> str:
    """The date, and how busy the machine is: a figure taken on a busy machine is worth less."""
    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{datetime.date.today().isoformat()}{busy}"


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None, **smallest: Any) -> argparse.Namespace:
    """The flags of a benchmark, which has ``--smallest``, too: everything once, at sizes that show no more than that.

    Args:
      parser: with the other flags.
      argv: what was typed; None for what the process was called with.
      **smallest: what the others are under ``--smallest`` where they are not given.

    Returns:
      The flags.
    """
    parser.add_argument("--smallest", action="store_true", help="whether it runs, in seconds; its times say nothing")
    if parser.parse_args(argv).smallest:
        parser.set_defaults(**smallest)
    return parser.parse_args(argv)
