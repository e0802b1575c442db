"""How long something took, in two ways that mean different things on a machine that others use too."""

import time
from collections.abc import Callable


def clock() -> Callable[[], dict[str, float]]:
    """Begins to count.

    Returns:
      A function that tells the time since then: ``seconds`` by the clock, which other work on the machine stretches,
      and ``cpu_seconds``, those of all threads of this process together.

    Example:
      >>> passed = clock()
      >>> sorted(passed()), passed()["seconds"] < 60
      (['cpu_seconds', 'seconds'], True)
    """
    began, cpu = time.perf_counter(), time.process_time()
    return lambda: {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
    }
