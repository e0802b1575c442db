r"""Who shares a scale: all entries of an array, those of a channel, or a group of neighbours within a channel.

The scales of an array have its number of dimensions: an axis has 1 where all of it shares one, its own length where
each entry has its own, and the number of groups where an axis is cut into groups.

>>> per_tensor.shape((6, 4)), per_channel().shape((6, 4)), per_group(3).shape((6, 4))
((1, 1), (1, 4), (2, 4))
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxfair.typing import Array, whole


class Granularity(NamedTuple):
    """The axes that have scales of their own.

    Attributes:
      channel: an axis whose entries have one each; None without.
      axis: an axis that is cut into groups; None without.
      size: of a group.
    """

    channel: int | None = None
    axis: int | None = None
    size: int = 1

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the scales of an array.

        Args:
          shape: of the array.

        Raises:
          ValueError: for an array that has not these axes, or an axis that is not a multiple of the group.
        """
        found = [1] * len(shape)
        for name in (self.channel, self.axis):
            if name is not None and not -len(shape) <= name < len(shape):
                raise ValueError(f"an array of shape {shape} has no axis {name}: leave it out, or give another axis")
        if self.channel is not None:
            found[self.channel] = shape[self.channel]
        if self.axis is not None:
            if self.channel is not None and (self.axis - self.channel) % len(shape) == 0:
                raise ValueError(f"axis {self.axis} of shape {shape} is that of the channels too: give another axis")
            length = shape[self.axis]
            if length % self.size:
                raise ValueError(
                    f"axis {self.axis} of shape {shape} is no multiple of {self.size}: give a size that divides it"
                )
            found[self.axis] = length // self.size
        return tuple(found)

    def fold(self, x: Array) -> Array:
        """``[R, n]``: a row of entries for each scale, in the order of the scales."""
        return fold(x, self.shape(x.shape))


def fold(x: Array, scales: tuple[int, ...]) -> Array:
    """``[R, n]``: a row of entries for each scale of that shape.

    Example:
      >>> fold(jnp.arange(6).reshape(3, 2), (1, 2)).tolist()
      [[0, 2, 4], [1, 3, 5]]
    """
    split = [part for length, count in zip(x.shape, scales, strict=True) for part in (count, length // count)]
    order = [*range(0, len(split), 2), *range(1, len(split), 2)]
    return x.reshape(split).transpose(order).reshape(math.prod(scales), -1)


def spread(scales: Array, shape: tuple[int, ...]) -> Array:
    """Scales as they broadcast against the array: groups repeated.

    Args:
      scales: of the array's number of dimensions.
      shape: of the array.

    Raises:
      ValueError: for scales of another array.

    Example:
      >>> spread(jnp.array([[1.0], [2.0]]), (4, 3)).ravel().tolist()
      [1.0, 1.0, 2.0, 2.0]
    """
    pairs = zip(shape, scales.shape, strict=False)
    if scales.ndim != len(shape) or any(count == 0 or length % count for length, count in pairs):
        raise ValueError(f"scales of shape {scales.shape} do not fit an array of shape {shape}: calibrate this array")
    for axis, (length, count) in enumerate(zip(shape, scales.shape, strict=True)):
        if 1 < count < length:
            scales = jnp.repeat(scales, length // count, axis=axis, total_repeat_length=length)
    return scales


#: One scale for the whole array.
per_tensor = Granularity()


def per_channel(axis: Any = -1) -> Granularity:
    """A scale for each entry of an axis.

    Args:
      axis: -1 is the outputs of a kernel of JAX.

    Returns:
      The `Granularity`.

    Raises:
      ValueError: for an axis that is no whole number.

    Example:
      >>> from jaxfair import quant
      >>> w = jnp.array([[1.0, 10.0], [-2.0, 4.0]])
      >>> quant.calibrate(w, 2, quant.Quantizer(granularity=per_channel())).scale.tolist()
      [[2.0, 10.0]]
    """
    return Granularity(channel=_axis("axis", axis))


def per_group(size: Any, *, axis: Any = -2, channel: Any = -1) -> Granularity:
    """A scale for every so many neighbours along an axis, in each channel by itself.

    Args:
      size: of a group; it divides the length of the axis.
      axis: along which they are neighbours: -2 is the inputs of a kernel of JAX.
      channel: an axis whose entries do not share; None where they do.

    Returns:
      The `Granularity`.

    Raises:
      ValueError: for numbers that are not whole, or a size below 1.

    Example:
      >>> from jaxfair import quant
      >>> w = jnp.array([[1.0], [-2.0], [30.0], [4.0]])
      >>> quant.calibrate(w, 2, quant.Quantizer(granularity=per_group(2))).scale.ravel().tolist()
      [2.0, 30.0]
    """
    number = whole(size)
    if number is None or number < 1:
        raise ValueError(f"size={size}: a group has a whole number of entries, 1 or more")
    return Granularity(None if channel is None else _axis("channel", channel), _axis("axis", axis), number)


def _axis(name: str, given: Any) -> int:
    number = whole(given)
    if number is None:
        raise ValueError(f"{name}={given}: an axis is a whole number, such as -1")
    return number


CHOICES = "quant.per_tensor, quant.per_channel(axis), quant.per_group(size)"
