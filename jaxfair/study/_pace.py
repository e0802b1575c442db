"""How long the rest of a run will take, and how a time is said."""

import sys
import time
from collections.abc import Callable, Sequence


class Pace:
    """How long the rest will take, from what the groups took so far."""

    def __init__(self, sizes: Sequence[int], say: Callable[[str], None] | None) -> None:
        self._sizes, self._count, self._began = sizes, 0, time.monotonic()
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))

    def done(self) -> None:
        """After a group."""
        self._count += 1
        made, total = sum(self._sizes[: self._count]), sum(self._sizes)
        left = (time.monotonic() - self._began) / made * (total - made)
        rest = f"; about {in_words(left)} to go" if made < total else ""
        self._say(f"{made} of {total} done{rest}")


def in_words(seconds: float | int) -> str:
    """A time that a person can plan with.

    Example:
      >>> in_words(40), in_words(600), in_words(9000)
      ('40 s', '10 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 90 else f"{minutes} min"
