"""Checks of what a game is made of: plain numbers are looked at, traced ones are data and pass."""

from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair.optim.numbers import check
from jaxfair.typing import whole


def sizes(least: int = 1, **given: Any) -> tuple[int, ...]:
    """Sizes of arrays and lengths of loops as Python's integers, in the order in which they are given.

    Args:
      least: the smallest that is allowed.
      **given: by name; whole numbers of Python, NumPy or JAX.

    Raises:
      ValueError: with the name and the number.

    Example:
      >>> sizes(dim=np.int8(3), num_samples=2.0)
      (3, 2)
      >>> sizes(dim=2.5)
      Traceback (most recent call last):
      ...
      ValueError: dim=2.5: give a whole number of at least 1.
    """
    found = {name: whole(value) for name, value in given.items()}
    for name, number in found.items():
        if number is None or number < least:
            raise ValueError(f"{name}={given[name]}: give a whole number of at least {least}.")
    return tuple(number for number in found.values() if number is not None)


def check_scales(**scales: ArrayLike) -> None:
    """Refuses what is no finite number of at least 0.

    Raises:
      ValueError: with the name and the number.

    Example:
      >>> check_scales(noise=float("nan"))
      Traceback (most recent call last):
      ...
      ValueError: noise must be in [0.0, inf), but it is nan
    """
    for name, value in scales.items():
        _check_single(name, value)
        check(name, value, 0.0, float("inf"))


def check_span(of: str, low: ArrayLike, high: ArrayLike, least: float = 0.0) -> None:
    """Refuses a range of ``min_<of>`` and ``max_<of>`` that is none.

    Args:
      of: what lies between them.
      low: the lower end.
      high: the upper end.
      least: below which neither may be.

    Raises:
      ValueError: with the names and the numbers.

    Example:
      >>> check_span("singular", 2.0, 1.0)
      Traceback (most recent call last):
      ...
      ValueError: min_singular=2.0 is above max_singular=1.0: give the smallest first.
    """
    for name, value in ((f"min_{of}", low), (f"max_{of}", high)):
        _check_single(name, value)
        # Eigenvalues of any sign are open on both sides.
        check(name, value, least, float("inf"), ends="[)" if np.isfinite(least) else "()")
    if not isinstance(low, Tracer) and not isinstance(high, Tracer) and np.asarray(low) > np.asarray(high):
        raise ValueError(f"min_{of}={low} is above max_{of}={high}: give the smallest first.")


def _check_single(name: str, value: ArrayLike) -> None:
    if np.shape(value) != ():
        raise ValueError(f"{name} has shape {np.shape(value)}: give one number.")
