"""What people pass in, made ready: arrays of any kind and width, lists, ids of any range; and shapes that must fit."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Int, Int32

from jaxfair.typing import Array, whole

#: Numbers of any shape: an array of NumPy or JAX, a list, or one. Whether shapes fit is for `fit` and `alike` to say,
#: to users as well as in tests.
Numbers: TypeAlias = ArrayLike | Sequence[Any]
#: One number per person.
Rows: TypeAlias = Numbers
#: One number per group.
PerGroup: TypeAlias = Numbers


def fit(**arrays: Any) -> None:
    """Refuses arrays that are not one number per person, of the same people.

    Args:
      **arrays: by name; None is left out.

    Raises:
      ValueError: which gives all shapes.

    Example:
      >>> fit(values=np.zeros(3), group=[0, 1], weight=None)
      Traceback (most recent call last):
      ...
      ValueError: values of shape (3,), group of shape (2,): give one number per person in each, of the same people.
    """
    shapes = {name: np.shape(array) for name, array in arrays.items() if array is not None}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        said = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise ValueError(f"{said}: give one number per person in each, of the same people.")


def alike(**arrays: Any) -> None:
    """Refuses arrays whose shapes differ; a single number goes with any shape.

    Raises:
      ValueError: which gives all shapes.

    Example:
      >>> alike(low=np.zeros(3), high=np.zeros((3, 1)), bound=0.01)
      Traceback (most recent call last):
      ...
      ValueError: low of shape (3,), high of shape (3, 1): give arrays of one shape.
    """
    shapes = {name: np.shape(array) for name, array in arrays.items() if np.shape(array) != ()}
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise ValueError(f"{said}: give arrays of one shape.")


def as_float(x: Any) -> Array:
    """``x`` in a floating dtype of at least 32 bits: sums of bfloat16 or bool would lose count.

    Example:
      >>> as_float([True, False]).dtype, as_float(np.array([2**40])).item() == 2.0**40
      (dtype('float32'), True)
    """
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
        if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
            x = x.astype(np.float64)  # JAX would cut off what is above 32 bits
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.result_type(float))
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def as_group(group: Any, num_groups: int, *, name: str = "group") -> Int32[Array, "N"]:
    """Groups as int32, ``num_groups`` for everybody outside ``[0, num_groups)``, whatever dtype they came in.

    Classes are such numbers as well; ``name`` says what is meant where they are no integers.

    Raises:
      ValueError: for groups that are not integers.

    Example:
      >>> as_group(np.array([0, -1, 2**32, 7]), 3).tolist()
      [0, 3, 3, 3]
      >>> as_group(jnp.array([1, 255], jnp.uint8), 300).tolist()
      [1, 255]
    """
    if not isinstance(group, jax.Array):
        group = np.asarray(group)
    if group.dtype.kind not in "iub" and group.size:
        nobody = "nobody's group" if name == "group" else "what is not known"
        raise ValueError(f"{name} of dtype {group.dtype}: give integers from 0, and -1 for {nobody}.")
    if not isinstance(group, jax.Array):
        group = group.astype(object if group.dtype == np.uint64 else np.int64)
        inside = (group >= 0) & (group < num_groups)
        return jnp.asarray(np.where(inside, group, num_groups).astype(np.int32))
    if group.dtype.itemsize < 8:
        group = group.astype(jnp.int32)  # above 2^31 this is negative: outside, as it was
    return jnp.where((group >= 0) & (group < num_groups), group, num_groups).astype(jnp.int32)


def as_classes(predictions: Numbers, name: str) -> Int[Array, "K N"]:
    """What networks say as int32, -1 where it is no class: -1 itself, and the largest value of an unsigned type.

    Raises:
      ValueError: for what are no integers, or not one row per network.

    Example:
      >>> as_classes(np.array([[3, 255]], np.uint8), "before").tolist()
      [[3, -1]]
    """
    if not isinstance(predictions, jax.Array):
        predictions = np.asarray(predictions)
    kind, shape = predictions.dtype.kind, predictions.shape
    if kind not in "iub" or len(shape) != 2:
        raise ValueError(
            f"{name} of shape {shape} and dtype {predictions.dtype}: give [K, N] integer classes, a row per network."
        )
    # In the dtype itself: as a number of Python the largest of 32 bits is no int32, which JAX would make of it.
    none = (
        predictions == np.asarray(np.iinfo(predictions.dtype).max, predictions.dtype)
        if kind == "u"
        else predictions < 0
    )
    most = np.iinfo(np.int32).max
    said = as_group(predictions.reshape(-1), most).reshape(shape)
    return jnp.where(jnp.asarray(none) | (said == most), -1, said)


def same(a: Any, b: Any) -> Bool[Array, "*shape"]:
    """Equality in a dtype that holds both sides: 300 is not 44, though it is in eight bits. Nan equals nothing.

    Example:
      >>> same(jnp.array([44, 1], jnp.uint8), jnp.array([300, 1])).tolist()
      [False, True]
      >>> same(np.array([2**32]), np.array([0])).tolist(), same(jnp.uint32(2**32 - 1), jnp.int32(-1)).item()
      ([False], False)
    """
    if not isinstance(a, jax.Array) and not isinstance(b, jax.Array):
        return jnp.asarray(np.asarray(a) == np.asarray(b))
    a, b = (x if isinstance(x, jax.Array) else _in_range(np.asarray(x)) for x in (a, b))
    signed = [not jnp.issubdtype(x.dtype, jnp.unsignedinteger) for x in (a, b)]
    if signed[0] != signed[1] and all(jnp.issubdtype(x.dtype, jnp.integer) and x.itemsize <= 4 for x in (a, b)):
        # No 32 bits hold both: what is negative as a signed number is no number of the other side.
        below = (a < 0) | (b < 0) | (a.astype(jnp.int32) < 0) | (b.astype(jnp.int32) < 0)
        return (a.astype(jnp.int32) == b.astype(jnp.int32)) & ~below
    wide = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.int32)
    if jnp.issubdtype(wide, jnp.floating):
        wide = jnp.promote_types(wide, jnp.float32)  # bfloat16 would end at 256
    return a.astype(wide) == b.astype(wide)


def _in_range(x: np.ndarray) -> Array:
    """A NumPy array of 64 bits whose integers are outside 32 stay outside of what JAX holds as classes."""
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        x = np.clip(x, np.iinfo(np.int32).min, np.iinfo(np.int32).max).astype(np.int32)
    return jnp.asarray(x)


def check_level(level: Any) -> Any:
    """The level in float64; refuses what is not between 0 and 1, such as 95.

    Raises:
      ValueError: which gives the level.

    Example:
      >>> check_level(95)
      Traceback (most recent call last):
      ...
      ValueError: level must be between 0 and 1, but it is 95; for 95 % give 0.95
    """
    value = np.asarray(level, np.float64)
    if not ((value > 0) & (value < 1)).all():
        hint = f"; for {level} % give {level / 100:g}" if value.ndim == 0 and 1 < value < 100 else ""
        raise ValueError(f"level must be between 0 and 1, but it is {level}{hint}")
    return value[()]


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuses what is not a whole number from ``least``.

    Raises:
      ValueError: which names the argument and gives the value.

    Example:
      >>> check_whole("resamples", 0, 1)
      Traceback (most recent call last):
      ...
      ValueError: resamples must be a whole number from 1, but it is 0
    """
    number = whole(value)
    if number is None or number < least:
        raise ValueError(f"{name} must be a whole number from {least}, but it is {value}")
