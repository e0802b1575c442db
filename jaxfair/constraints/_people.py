"""Who is who: numbers of people, groups and classes, of which those outside their range are nobody.

One meaning for the whole library, that of `metrics.accuracy_gaps`: an example whose group is none of the G belongs to
no group, and counts with everybody only. One whose position is none of the N is not remembered, and one whose class is
none of the C has no loss and is never right.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxfair import metrics

#: What is beyond this counts as infinite: the sum of squares of as many people as there are is finite below it.
LARGEST = 1e15


def ids(name: str, values: Any, num: int, shape: tuple[int, ...] | None = None) -> Int[Array, " B"]:
    """Numbers in ``[0, num)`` as int32, and ``num`` for nobody: past the end, where a scatter drops what it is given.

    Args:
      name: for the message.
      values: ``[B]`` integers of any width. A negative one would count from the end, and is nobody.
      num: how many there are.
      shape: that they must have.

    Raises:
      ValueError: for numbers that are no integers, or of another shape.

    Example:
      >>> ids("group", np.array([0, 1, -1, 5], np.int8), 200).tolist(), ids("group", np.array([2]), 2).tolist()
      ([0, 1, 200, 5], [2])
    """
    given = values if isinstance(values, np.ndarray) else jnp.asarray(values)
    if not (jnp.issubdtype(given.dtype, jnp.integer) or given.dtype == bool):
        raise ValueError(f"{name} has dtype {given.dtype}: give integers.")
    if shape is not None and given.shape != shape:
        raise ValueError(f"{name} has shape {given.shape} beside weights of shape {shape}: give one for each example.")
    # In 8 bits a comparison with 200 overflows, and int64 of NumPy would wrap around in int32 of JAX.
    wide = given if given.dtype.itemsize > 4 else given.astype(np.int32)
    of = np if isinstance(wide, np.ndarray) else jnp
    return jnp.asarray(of.where((wide >= 0) & (wide < num), wide, num).astype(np.int32))


def as_float(values: ArrayLike) -> Float[Array, "..."]:
    """In float32 at least: the square of 300 is infinite in float16.

    Example:
      >>> as_float(np.array([True])).dtype, as_float(jnp.float16(1.0)).dtype
      (dtype('float32'), dtype('float32'))
    """
    array = jnp.asarray(values)
    wide = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize >= 4
    return array if wide else array.astype(jnp.float32)


def finite(outcome: ArrayLike, weight: ArrayLike) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Outcomes and weights, both 0 where one of them is not finite, and where the weight is not above 0.

    Raises:
      ValueError: for shapes that differ.

    Example:
      >>> values, weight = finite(jnp.array([2.0, jnp.nan, 3.0]), jnp.array([0.5, 1.0, jnp.inf]))
      >>> values.tolist(), weight.tolist()
      ([2.0, 0.0, 0.0], [0.5, 0.0, 0.0])
    """
    outcome, weight = as_float(outcome), as_float(weight)
    if outcome.shape != weight.shape or weight.ndim != 1:
        raise ValueError(
            f"outcomes have shape {outcome.shape} and weights {weight.shape}: give one of each for each example."
        )
    keep = (jnp.abs(outcome) <= LARGEST) & (weight > 0) & (weight <= LARGEST)
    return jnp.where(keep, outcome, 0.0), jnp.where(keep, weight, 0.0)


def sums_by_group(values: Float[Array, " B"], group: Int[Array, " B"], num_groups: int) -> Float[Array, " G"]:
    """``[G]`` sums of ``[B]`` values, of :func:`ids`."""
    return metrics.group_sums(values, group, num_groups)


def ratio(sums: Float[Array, "*G"], counts: Float[Array, "*G"]) -> Float[Array, "*G"]:
    """The quotient, and 0 where the count is 0.

    Example:
      >>> ratio(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0])).tolist()
      [0.5, 0.0]
    """
    return jnp.where(counts > 0, sums, 0.0) / jnp.where(counts > 0, counts, 1.0)


def last_of_each(index: Int[Array, " B"], num: int) -> Bool[Array, " B"]:
    """Which entries are the last of their number in the batch; none of nobody.

    Args:
      index: of :func:`ids`.
      num: how many there are.

    Example:
      >>> last_of_each(jnp.array([4, 1, 4, 9]), 9).tolist()
      [False, True, True, False]
    """
    place = jnp.arange(index.size)
    if index.size <= 512:  # a sort takes several times as long
        again = (index[:, None] == index[None]) & (place[:, None] < place[None])
        return ~jnp.any(again, axis=1) & (index < num)
    order = jnp.argsort(index, stable=True)
    ranked = index[order]
    ends = jnp.concatenate([ranked[1:] != ranked[:-1], jnp.ones(1, bool)])
    return jnp.zeros(index.shape, bool).at[order].set(ends) & (index < num)


def check_classes(y: Any, num_classes: int) -> None:
    """Refuses two classes that are called -1 and 1: taken for 0 and 1, everybody of the first would be nobody.

    Args:
      y: labels; traced ones cannot be looked at, and pass.
      num_classes: C.

    Raises:
      ValueError: with what to do.

    Example:
      >>> check_classes(np.array([-1, 1, 1]), 2)
      Traceback (most recent call last):
        ...
      ValueError: the classes are -1 and 1: give 0 and 1, such as (y + 1) // 2.
    """
    if num_classes == 2 and not isinstance(y, Tracer) and set(np.unique(np.asarray(y)).tolist()) == {-1, 1}:
        raise ValueError("the classes are -1 and 1: give 0 and 1, such as (y + 1) // 2.")


def check_logits(logits: Any, y: Any) -> None:
    """Refuses what is no row of logits for each class: broadcast, it would give numbers.

    Raises:
      ValueError: with both shapes.

    Example:
      >>> check_logits(np.ones((3, 1)), np.ones(3, int))
      Traceback (most recent call last):
        ...
      ValueError: logits of shape (3, 1) for classes of shape (3,): give [B, C] logits, one logit per class also ...
    """
    shape, of = np.shape(logits), np.shape(y)
    if len(shape) != 2 or of != shape[:1] or shape[1] < 2:
        raise ValueError(
            f"logits of shape {shape} for classes of shape {of}: give [B, C] logits, one logit per class also with "
            "two classes, and [B] classes."
        )


def labelled(y: Any, num_classes: int) -> Bool[Array, " B"]:
    """Who has a class.

    Example:
      >>> labelled(np.array([0, -1, 2]), 2).tolist()
      [True, False, False]
    """
    return ids("y", y, num_classes) < num_classes


def check_weights(weight: Any) -> None:
    """Refuses weights of a split that are negative or not finite, unless they are traced.

    Raises:
      ValueError: with the first of them.

    Example:
      >>> check_weights(np.array([1.0, -1.0]))
      Traceback (most recent call last):
        ...
      ValueError: a weight is -1.0: give finite numbers of at least 0, and 0 for padding.
    """
    if isinstance(weight, Tracer):
        return
    values = np.asarray(weight, np.float64)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        raise ValueError(f"a weight is {values[wrong][0]}: give finite numbers of at least 0, and 0 for padding.")


def take(values: jax.Array, index: Any, name: str = "index") -> jax.Array:
    """The rows of people, 0 for nobody.

    Example:
      >>> take(jnp.array([5.0, 7.0]), np.array([1, -1, 2])).tolist()
      [7.0, 0.0, 0.0]
    """
    return values.at[ids(name, index, values.shape[0])].get(mode="fill", fill_value=0)
