"""Numbers that a pruner is given: whole ones, shares and others, of Python, NumPy or JAX, each checked in one line.

A traced number has no value to look at, and passes.
"""

import math
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxfair import typing


def whole(name: str, given: Any, *, low: int | None = 0, hint: str = "") -> int:
    """A whole number as a Python integer.

    Args:
      name: of the argument.
      given: an integer, or a float without a fraction such as ``1e4``.
      low: the least that is allowed; None for any.
      hint: what to write, behind a semicolon.

    Returns:
      The integer.

    Raises:
      ValueError: for anything else.

    Example:
      >>> whole("rounds", np.float32(3)), whole("rounds", np.int8(3))
      (3, 3)
      >>> whole("rounds", 2.5, low=1)
      Traceback (most recent call last):
      ...
      ValueError: rounds is a whole number, 1 or more, but it is 2.5
    """
    found = typing.whole(given)
    if found is None or (low is not None and found < low):
        least = "" if low is None else f" {low} or more,"
        behind = f"; {hint}" if hint else ""
        raise ValueError(f"{name} is a whole number,{least} but it is {given}{behind}")
    return found


def within(
    name: str, given: Any, low: Any = -math.inf, high: Any = math.inf, *, above: bool = False, hint: str = ""
) -> None:
    """Raises ValueError for a number outside of a range; nan is in none.

    Args:
      name: of the argument.
      given: a number; a traced one, or one of several lanes, is not looked at.
      low: the least.
      high: the largest.
      above: whether it must be more than `low`.
      hint: what to write, behind a semicolon.

    Example:
      >>> within("drop", 0.3, 0, 1)
      >>> within("drop", 30, 0, 1, hint="0.3 is 30 %")
      Traceback (most recent call last):
      ...
      ValueError: drop must be between 0 and 1, but it is 30; 0.3 is 30 %
    """
    if isinstance(given, Tracer):
        return
    number = _float(given)
    if number is None or not (low < number if above else low <= number) or not number <= high or math.isinf(number):
        if math.isinf(high):
            allowed = "a finite number" if math.isinf(low) else f"{'above' if above else 'at least'} {low}"
        else:
            allowed = f"{'above ' if above else 'between '}{low} and {'at most ' if above else ''}{high}"
        behind = f"; {hint}" if hint else ""
        raise ValueError(f"{name} must be {allowed}, but it is {given}{behind}")


def _float(given: Any) -> Any:
    """The value of a number, or of an array of one; None for what is none."""
    if isinstance(given, (str, bytes)):
        return None
    try:
        return float(np.asarray(given).item()) if np.size(given) == 1 else None
    except (TypeError, ValueError):
        return None
