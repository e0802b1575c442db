"""What is made when it is first asked for, and once, also where threads ask at the same time."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Made = TypeVar("Made")


def once(make: Callable[..., Made]) -> Callable[..., Made]:
    """A function that remembers what it gave, as `functools.cache`, and never makes the same thing twice.

    With `functools.cache` two threads that ask at the same time both make it: for a data set or a network that is
    twice the time and the memory. Here one waits for the other. A run that has all of its records asks for nothing,
    so nothing is made.

    Args:
      make: of hashable arguments. It must not ask for another thing of the same function.

    Returns:
      The same function, with a memory.

    Example:
      >>> made = []
      >>> square = once(lambda n: made.append(n) or n * n)
      >>> square(3), square(3), made
      (9, 9, [3])
    """
    there: dict[tuple[Hashable, ...], Any] = {}
    lock = threading.Lock()

    def get(*of: Hashable) -> Made:
        with lock:
            if of not in there:
                there[of] = make(*of)
            return there[of]

    return get
