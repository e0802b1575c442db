"""Numbers that a quantiser is given: bits and others, each checked in one line; traced ones have no value and pass."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfair.typing import Array, whole

#: The most bits that are told apart from a float.
MOST = 32


def bits(given: Any, *, least: int = 1) -> Array:
    """A number of bits as a scalar int32.

    Args:
      given: a whole number, or a traced one, which is not looked at.
      least: what the scheme needs: one level on each side of zero takes 2 bits.

    Returns:
      ``[]`` int32.

    Raises:
      ValueError: for any other number.

    Example:
      >>> bits(4).item(), bits(np.float32(8)).item()
      (4, 8)
      >>> bits(1.5)
      Traceback (most recent call last):
      ...
      ValueError: bits=1.5: give a whole number from 1 to 32
    """
    if isinstance(given, Tracer):
        return given.astype(jnp.int32)
    number = whole(given)
    if number is None or not least <= number <= MOST:
        raise ValueError(f"bits={given}: give a whole number from {least} to {MOST}")
    return jnp.asarray(number, jnp.int32)


def within(name: str, given: Any, low: Any, high: Any = math.inf, *, open_low: bool = False) -> None:
    """Raises ValueError for a number outside of a range, and for nan.

    Example:
      >>> within("percentile", 101, 50, 100)
      Traceback (most recent call last):
      ...
      ValueError: percentile=101: give a number from 50 to 100
    """
    if isinstance(given, Tracer):
        return
    try:
        number = float(np.asarray(given).item()) if np.size(given) == 1 else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not (low < number if open_low else low <= number) or not number <= high or math.isinf(number):
        least = f"{'above' if open_low else 'of at least'} {low}"
        said = least if math.isinf(high) else f"{'above' if open_low else 'from'} {low} to {high}"
        raise ValueError(f"{name}={given}: give a number {said}")


def array(name: str, given: Any) -> Array:
    """What is quantised, as an array of floats with entries.

    Args:
      name: what it is.
      given: an array.

    Returns:
      The array.

    Raises:
      ValueError: for one without entries, and for nan or infinity where they can be seen.
      TypeError: for one that has no floats.

    Example:
      >>> array("x", jnp.zeros((0, 3)))
      Traceback (most recent call last):
      ...
      ValueError: x of shape (0, 3) has no entries, and nothing to take a scale from: leave it out
    """
    found = given if isinstance(given, jax.Array) else jnp.asarray(np.asarray(given))
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise TypeError(f"{name} is {found.dtype}: only floats are quantised; leave it out, or cast it")
    if not found.size:
        raise ValueError(
            f"{name} of shape {found.shape} has no entries, and nothing to take a scale from: leave it out"
        )
    # In NumPy: within a program that is being traced, an operation of JAX on numbers is one of the program.
    if not isinstance(found, Tracer) and found.is_fully_addressable and not np.isfinite(np.asarray(found)).all():
        raise ValueError(f"{name} has nan or infinity in it, which no level is near to: look where it comes from")
    return found


def member(axis: str, given: Any, kind: type, choices: str) -> Any:
    """What was given for an axis of a quantiser, if it is a member of it.

    Example:
      >>> member("scale", 3, tuple, "quant.extremes, quant.percentile(99.9)")
      Traceback (most recent call last):
      ...
      TypeError: scale=3: choose from quant.extremes, quant.percentile(99.9)
    """
    if not isinstance(given, kind):
        said = getattr(given, "__name__", repr(given))
        raise TypeError(f"{axis}={said}: choose from {choices}")
    return given


def working(dtype: Any) -> Any:
    """The dtype that levels are computed in: float32, also for narrower ones.

    Example:
      >>> working(jnp.bfloat16).__name__
      'float32'
    """
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32
