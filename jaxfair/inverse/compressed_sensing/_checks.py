"""Checks of a measurement: shapes always, numbers where they are known."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair.typing import Array


def check_size(measurements: int, numbers: int) -> None:
    """Refuses more measurements than numbers, and none.

    Raises:
      ValueError: with both.
    """
    if not 1 <= measurements <= numbers:
        raise ValueError(
            f"{measurements} measurements of {numbers} numbers: give 1 to {numbers}; with more, least squares will do."
        )


def check_operator(operator: Any) -> Array:
    """The matrix A ``[M, N]`` as floats.

    Raises:
      ValueError: for no matrix, one with more rows than columns, or one that is not finite.
    """
    if np.ndim(operator) != 2:
        raise ValueError(f"operator has shape {np.shape(operator)}: give a matrix [measurements, numbers].")
    if np.iscomplexobj(operator):
        raise ValueError(f"operator is complex ({np.asarray(operator).dtype}): give real numbers.")
    check_size(*np.shape(operator))
    _check_finite("operator", operator)
    return _floats(operator)


def check_measured(operator: Any, y: Any, name: str = "y") -> tuple[Array, Array]:
    """A ``[M, N]`` and y ``[B, M]`` as floats of one dtype.

    Raises:
      ValueError: as `check_operator`, for a y of another shape, or one that is not finite.
    """
    matrix = check_operator(operator)
    if np.ndim(y) != 2 or np.shape(y)[1] != matrix.shape[0]:
        raise ValueError(
            f"{name} has shape {np.shape(y)}: give a row of {matrix.shape[0]} measurements for every signal, "
            f"[B, {matrix.shape[0]}]."
        )
    _check_finite(name, y)
    return matrix, jnp.asarray(y, matrix.dtype)


def check_rows(name: str, rows: Any, shape: tuple[int, ...]) -> None:
    """Refuses rows of another shape.

    Raises:
      ValueError: with the name and both shapes.
    """
    if np.shape(rows) != shape:
        raise ValueError(f"{name} has shape {np.shape(rows)}: give {list(shape)}.")


def check_number(name: str, value: ArrayLike, *, above: bool = False) -> None:
    """Refuses a number below 0, or where ``above`` also 0; nan and infinity too. A traced one passes.

    Raises:
      ValueError: with the name and the value.
    """
    if isinstance(value, Tracer):
        return
    number = np.asarray(value)
    right = number.dtype.kind in "iuf" and number.shape == () and np.isfinite(number)
    if not right or number < 0 or (above and number == 0):
        raise ValueError(f"{name}={value}: give a number {'above' if above else 'of at least'} 0.")


def check_generator(generator: Callable[..., Any], numbers: int, *given: Any) -> None:
    """Refuses a generator whose signals have another size.

    Raises:
      ValueError: with both sizes.
    """
    made = jax.eval_shape(generator, *given)
    shape = getattr(made, "shape", None)
    if shape != (numbers,):
        raise ValueError(f"the generator makes signals of shape {shape}, and the operator measures {numbers} numbers.")


def _check_finite(name: str, value: Any) -> None:
    if not isinstance(value, Tracer) and not np.isfinite(np.asarray(value, np.float64)).all():
        raise ValueError(f"{name} has numbers that are not finite: leave those signals out.")


def _floats(value: Any) -> Array:
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
