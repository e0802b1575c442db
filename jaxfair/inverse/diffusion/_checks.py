"""Checks of what a person gives: plain numbers and arrays are looked at, traced ones are data and pass."""

from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike


def check_above_zero(name: str, value: ArrayLike) -> None:
    """Refuses a number that is not finite, or not above 0.

    Raises:
      ValueError: with the name and the value.

    Example:
      >>> check_above_zero("noise", 0.0)
      Traceback (most recent call last):
      ...
      ValueError: noise=0.0: give a finite number above 0.
    """
    if isinstance(value, Tracer):
        return
    number = np.asarray(value)
    if number.dtype.kind not in "biuf" or number.shape != () or not (number > 0 and np.isfinite(number)):
        raise ValueError(f"{name}={value}: give a finite number above 0.")


def check_finite(name: str, values: ArrayLike, weight: Any = None) -> None:
    """Refuses an array with a number that is not finite; rows of weight 0 may hold anything.

    Raises:
      ValueError: with the name, the place of the first such number, and the number.

    Example:
      >>> check_finite("y", np.array([0.5, np.nan]))
      Traceback (most recent call last):
      ...
      ValueError: y[1] is nan: give finite numbers.
    """
    if isinstance(values, Tracer) or isinstance(weight, Tracer):
        return
    array = np.asarray(values, np.float64)
    wrong = ~np.isfinite(array)
    if weight is not None:
        wrong &= (np.asarray(weight) > 0).reshape((-1,) + (1,) * (array.ndim - 1))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"[{', '.join(map(str, at))}]" if at else ""
        or_not = ", or leave the row out by a weight of 0" if weight is not None else ""
        raise ValueError(f"{name}{where} is {array[at]}: give finite numbers{or_not}.")


def check_rows(name: str, rows: Any, *others: tuple[str, Any]) -> None:
    """Refuses rows ``[N, D]`` that are none or nobody's, and what has not an entry for each.

    Raises:
      ValueError: with names and shapes.

    Example:
      >>> check_rows("x", np.zeros((3, 2)), ("y", np.zeros(4)))
      Traceback (most recent call last):
      ...
      ValueError: x of shape (3, 2), y of shape (4,): give as many of each.
    """
    shape = np.shape(rows)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} of shape {shape}: give [N, D] with at least one row and one column.")
    for other, values in others:
        if values is not None and np.shape(values) != shape[:1]:
            raise ValueError(f"{name} of shape {shape}, {other} of shape {np.shape(values)}: give as many of each.")


def check_times(first: ArrayLike, last: ArrayLike) -> None:
    """Refuses times that are not above 0, or out of order.

    Raises:
      ValueError: with both.

    Example:
      >>> check_times(8.0, 1e-3)
      Traceback (most recent call last):
      ...
      ValueError: first=8.0, last=0.001: give a first time below the last.
    """
    check_above_zero("first", first)
    check_above_zero("last", last)
    if not isinstance(first, Tracer) and not isinstance(last, Tracer) and np.asarray(first) >= np.asarray(last):
        raise ValueError(f"first={first}, last={last}: give a first time below the last.")
