"""Checks of what an objective is given: plain numbers are looked at, traced ones are data and pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike


def check_number(value: ArrayLike, allowed: Callable[[Any], Any], message: str) -> None:
    """Refuses a number that is not allowed, or more than one. A traced number cannot be looked at, and passes.

    Raises:
      ValueError: with the message.

    Example:
      >>> check_number(0.0, lambda t: t > 0, "temperature=0.0: give a number above 0.")
      Traceback (most recent call last):
      ...
      ValueError: temperature=0.0: give a number above 0.
    """
    if isinstance(value, Tracer):
        return
    number = np.asarray(value)
    # Words, complex numbers and objects cannot be compared; comparisons are false of nan.
    if number.dtype.kind not in "biuf" or number.shape != () or not np.all(allowed(number)):
        raise ValueError(message)


def is_plain(value: ArrayLike, number: float) -> bool:
    """Whether a number is known when tracing, and that one: what is special about it may then be another program."""
    return isinstance(value, int | float | np.generic) and float(value) == number
