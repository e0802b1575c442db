"""Checks of what a constraint is given: plain numbers are looked at, traced ones are data and pass."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair import typing


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
    if isinstance(value, Tracer):
        return
    number = np.asarray(value)
    # Words, complex numbers and objects cannot be compared.
    comparable = number.dtype.kind in "biuf" or jnp.issubdtype(number.dtype, jnp.floating)
    if not comparable or not np.all(allowed(number)):
        raise ValueError(message)


def check_count(name: str, value: Any, low: int = 1) -> None:
    """Refuses what is no whole number, or too small a one; a traced number passes.

    Raises:
      ValueError: with the name and the value.

    Example:
      >>> check_count("size", 2.5)
      Traceback (most recent call last):
      ...
      ValueError: size=2.5: give a whole number of at least 1.
    """
    if not isinstance(value, Tracer):
        typing.check_count(name, value, low)


def check_shape(name: str, value: ArrayLike, num: int | None, per: str = "constraints") -> None:
    """Refuses what is neither one number nor one for each constraint, also where it is traced.

    Args:
      name: for the message.
      value: a scalar or ``[K]``.
      num: K; None where only a scalar will do.
      per: the word for what there are K of.

    Raises:
      ValueError: with both shapes.

    Example:
      >>> check_shape("maximum", np.ones(3), 2)
      Traceback (most recent call last):
      ...
      ValueError: maximum has shape (3,): give one number, or one for each of the 2 constraints.
    """
    if np.shape(value) not in ((), (num,)):
        each = "" if num is None else f", or one for each of the {num} {per}"
        raise ValueError(f"{name} has shape {np.shape(value)}: give one number{each}.")


def check_alike(coefficient: ArrayLike, per_constraint: bool, **numbers: ArrayLike) -> None:
    """Refuses numbers per constraint beside one coefficient for all, and other shapes, also where they are traced.

    Raises:
      ValueError: with both shapes.

    Example:
      >>> check_alike(1.0, False, growth=np.ones(3))
      Traceback (most recent call last):
      ...
      ValueError: growth has shape (3,) beside a coefficient of shape (): give one number, or as many as there are ...
    """
    shape = np.shape(coefficient)
    for name, value in numbers.items():
        one = np.shape(value) == ()
        if not one and not (np.ndim(value) == 1 and (shape == np.shape(value) or (per_constraint and shape == ()))):
            raise ValueError(
                f"{name} has shape {np.shape(value)} beside a coefficient of shape {shape}: "
                "give one number, or as many as there are coefficients."
            )


def as_mask(name: str, value: Any, num: int, per: str = "constraints") -> np.ndarray:
    """``[K]`` bool, of one bool or ``[K]``. A list of numbers is not taken for a mask.

    Raises:
      ValueError: with dtype and shape.

    Example:
      >>> as_mask("equality", True, 2).tolist()
      [True, True]
      >>> as_mask("equality", [0, 1], 2)
      Traceback (most recent call last):
      ...
      ValueError: equality has dtype int64 and shape (2,): give one bool, or one for each of the 2 constraints.
    """
    mask = np.asarray(value)
    if mask.dtype != bool or mask.shape not in ((), (num,)):
        raise ValueError(
            f"{name} has dtype {mask.dtype} and shape {mask.shape}: give one bool, or one for each of the {num} {per}."
        )
    return np.broadcast_to(mask, (num,))


def is_zero(value: ArrayLike) -> bool:
    """Whether a number is known to be 0, so that what it multiplies can be left out.

    Example:
      >>> is_zero(0.0), is_zero(0.1)
      (True, False)
    """
    return not isinstance(value, Tracer) and not np.any(np.asarray(value))


def check_word(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises for a switch that is none of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, allowed))}.")


def check_switch(name: str, value: Any) -> None:
    """Raises for a switch that is neither on nor off: "no" would be on.

    Raises:
      ValueError: with the value.

    Example:
      >>> check_switch("restart", "no")
      Traceback (most recent call last):
      ...
      ValueError: restart='no': give True or False.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r}: give True or False.")


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
