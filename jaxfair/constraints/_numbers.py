"""Checks of what a constraint is given: plain numbers are looked at, traced ones are data and pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike


def check_number(value: ArrayLike, allowed: Callable[[Any], Any], message: str) -> None:
    """Refuses a number, or an array with one, that is not allowed. A traced number cannot be looked at, and passes.

    Args:
      value: of Python, NumPy or JAX.
      allowed: says of an array which of its numbers are allowed. Comparisons are false of nan, so nan is refused.
      message: what is wrong, the value, and what to do.

    Raises:
      ValueError: with the message.

    Example:
      >>> check_number(np.float32(-1.0), lambda t: t >= 0, "tolerance=-1.0: give at least 0.")
      Traceback (most recent call last):
      ...
      ValueError: tolerance=-1.0: give at least 0.
    """
    if not isinstance(value, Tracer) and not np.all(allowed(np.asarray(value))):
        raise ValueError(message)


def is_zero(value: ArrayLike) -> bool:
    """Whether a number is known to be 0, so that what it multiplies can be left out.

    Example:
      >>> is_zero(0.0), is_zero(0.1)
      (True, False)
    """
    return not isinstance(value, Tracer) and not np.any(np.asarray(value))


def check_word(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises for a switch that is none of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, allowed))}.")


def check_made(name: str, value: Any, kind: type) -> None:
    """Raises for something that is not of its kind; of a factory that was not called, with the call.

    Raises:
      TypeError: in one line.

    Example:
      >>> from jaxfair import constraints
      >>> check_made("formulation", constraints.lagrangian, constraints.Formulation)
      Traceback (most recent call last):
      ...
      TypeError: formulation=lagrangian is a function that makes one: did you mean lagrangian(...)?
    """
    if isinstance(value, kind):
        return
    word = getattr(value, "__name__", None)
    if callable(value) and word:
        raise TypeError(f"{name}={word} is a function that makes one: did you mean {word}(...)?")
    raise TypeError(f"{name}={value!r}: give a constraints.{kind.__name__}.")
