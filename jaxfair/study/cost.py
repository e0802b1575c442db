"""What a compiled function costs: FLOPs and bytes by XLA's account, seconds by the clock, joules by a meter.

FLOPs and bytes are of the program that XLA made, not of the formula: a multiplication with its addition is two FLOPs, a
sparse network costs what the dense one does as long as its zeros are multiplied, and **the body of a loop counts
once**, however often it runs, for the program does not say how often. :func:`jaxfair.sparsity.cost_report` counts the
formula, loops and sparse weights included.

A meter is a function that gives joules since any moment. On Linux the processor counts them (RAPL, of Intel and AMD);
most systems let only an administrator read it. It counts all that the processor did, for other programs as well.
"""

import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

#: Gives the joules since some moment.
Meter = Callable[[], float]
_POWERCAP = "/sys/class/powercap"


class Cost(NamedTuple):
    """What one call costs; made by :func:`cost`.

    Attributes:
      flops: floating-point operations by XLA's account; nan where it has none.
      bytes: that are read and written, likewise.
      seconds: the median over calls.
      joules: the mean over calls; nan without a meter.
    """

    flops: float
    bytes: float
    seconds: float
    joules: float


def cost(
    function: Callable[..., Any], *args: Any, repeats: int = 20, meter: Meter | None = None, least_seconds: float = 0.0
) -> Cost:
    """Compiles a function for these arguments, calls it, and says what a call costs.

    Args:
      function: of arrays, that ``jax.jit`` takes. One that is compiled already, ``jax.jit(f).lower(*args).compile()``,
        is not compiled again: several networks of one shape share it.
      *args: its arguments, trees of arrays.
      repeats: calls that are timed, after one that is not.
      meter: of joules, such as :func:`energy_meter` gives; None measures none.
      least_seconds: further calls are made until so much time has passed, since a meter moves in steps of milliseconds.

    Returns:
      :class:`Cost`.

    Raises:
      ValueError: for less than one repeat.

    Example:
      A product of [8, 4] and [4, 2] has 64 multiplications and 64 additions:

      >>> import jax.numpy as jnp
      >>> found = cost(lambda x, w: x @ w, jnp.ones((8, 4)), jnp.ones((4, 2)), repeats=3)
      >>> found.flops, found.bytes > 4 * (32 + 8 + 16) - 1, 0 < found.seconds < 60, found.joules
      (128.0, True, True, nan)
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: give a number of calls of at least 1.")
    compiled = function if hasattr(function, "cost_analysis") else jax.jit(function).lower(*args).compile()
    account = _account(compiled)
    jax.block_until_ready(compiled(*args))
    times: list[float] = []
    before = meter() if meter is not None else float("nan")
    while len(times) < repeats or sum(times) < least_seconds:
        began = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - began)
    joules = (meter() - before) / len(times) if meter is not None else float("nan")
    return Cost(
        flops=float(account.get("flops", float("nan"))),
        bytes=float(account.get("bytes accessed", float("nan"))),
        seconds=statistics.median(times),
        joules=joules,
    )


def _account(compiled: Any) -> Mapping[str, Any]:
    """XLA's, which some devices do not give, and some versions give as a list with one for each program."""
    try:
        found = compiled.cost_analysis()
    except (NotImplementedError, RuntimeError):
        return {}
    if isinstance(found, list | tuple):
        found = found[0] if found else {}
    return found or {}


def energy_meter(folder: str | pathlib.Path = _POWERCAP) -> Meter | None:
    """The processor's own meter of energy, where there is one that may be read.

    Args:
      folder: where Linux has it.

    Returns:
      A function that gives joules since now, of all processors together; None where there is nothing to read.

    Example:
      A processor that counts microjoules up to a million, and then from 0 again:

      >>> import tempfile
      >>> place = pathlib.Path(tempfile.mkdtemp()) / "intel-rapl:0"
      >>> place.mkdir()
      >>> for name, content in {"name": "package-0", "energy_uj": 900_000, "max_energy_range_uj": 1_000_000}.items():
      ...     _ = (place / name).write_text(f"{content}")
      >>> meter = energy_meter(place.parent)
      >>> _ = (place / "energy_uj").write_text("150000")
      >>> round(meter(), 2)
      0.25
      >>> energy_meter(place) is energy_meter("/nowhere")
      True
    """
    # One level of names is a processor each; cores and memory inside of it, and the whole board, would count twice.
    places = [p for p in sorted(pathlib.Path(folder).glob("intel-rapl:*")) if p.name.count(":") == 1]
    try:
        places = [p for p in places if (p / "name").read_text().startswith("package")]
        wraps = [int((p / "max_energy_range_uj").read_text()) for p in places]
        last = [int((p / "energy_uj").read_text()) for p in places]
    except (OSError, ValueError):
        return None
    if not places:
        return None
    total = 0

    def read() -> float:
        nonlocal total
        for i, place in enumerate(places):
            now = int((place / "energy_uj").read_text())
            total += now - last[i] if now >= last[i] else now - last[i] + wraps[i]
            last[i] = now
        return total / 1e6

    return read
