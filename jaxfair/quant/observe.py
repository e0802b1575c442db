r"""Calibration of a stream: the least and the largest value that batches of activations have had.

Weights are there as a whole, activations come in batches. What is known of them is data, too: a `Range` that takes in
one batch after the other, as long as one likes, and gives a grid at any time:

.. math:: a \leftarrow \min(a, \min x), \quad b \leftarrow \max(b, \max x)

or, with a momentum m, moving averages of the extremes of batches, :math:`a \leftarrow m \min x + (1 - m)\, a`, which do
not grow with the number of batches. The first batch is taken as it is.

>>> seen = Range.empty((1, 1))
>>> for batch in (jnp.array([[0.5, 3.0]]), jnp.array([[-1.0, 2.0]])):
...     seen = observe(seen, batch)
>>> seen.least.item(), seen.most.item(), calibrated(seen, 8).scale.item()
(-1.0, 3.0, 0.0236...)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair.quant import _numbers
from jaxfair.quant._granularity import fold
from jaxfair.quant._quantizer import Grid, Quantizer
from jaxfair.quant._schemes import CHOICES, Scheme, symmetric
from jaxfair.typing import Array


class Range(NamedTuple):
    """The extremes of what was seen, a pytree of arrays.

    Attributes:
      least: of the shape of the scales, as `Grid.scale`.
      most: the same.
      count: ``[]`` int32, the number of batches.
    """

    least: Array
    most: Array
    count: Array

    @classmethod
    def empty(cls, scales: tuple[int, ...]) -> "Range":
        """Of nothing seen yet.

        Args:
          scales: the shape of the scales: all ones for one scale, the channels' number at their axis for one each.
        """
        return cls(jnp.full(scales, jnp.inf), jnp.full(scales, -jnp.inf), jnp.zeros((), jnp.int32))


def observe(seen: Range, x: Any, *, momentum: ArrayLike | None = None) -> Range:
    """Takes in a batch.

    Args:
      seen: what is known so far; ``Range.empty((1, 1))`` at first, for a batch ``[B, n]`` that shares one scale.
      x: the batch, floats, of as many dimensions.
      momentum: of moving averages, above 0 and at most 1; None for the extremes of everything.

    Returns:
      The `Range`.

    Raises:
      ValueError: for a batch that does not fit, that has no entries or nan, and for a momentum out of its range.

    Example:
      >>> seen = observe(Range.empty((1, 2)), jnp.array([[1.0, -5.0], [2.0, 4.0]]))
      >>> seen.least.tolist(), seen.most.tolist()
      ([[1.0, -5.0]], [[2.0, 4.0]])
    """
    found = _numbers.array("x", x)
    scales = seen.least.shape
    pairs = zip(found.shape, scales, strict=False)
    if found.ndim != len(scales) or any(length % max(count, 1) for length, count in pairs):
        raise ValueError(f"x of shape {found.shape} does not fit ranges of shape {scales}: begin with Range.empty(...)")
    rows = fold(found, scales).astype(jnp.float32)
    least, most = (of(rows, axis=1).reshape(scales) for of in (jnp.min, jnp.max))
    if momentum is None:
        return Range(jnp.minimum(seen.least, least), jnp.maximum(seen.most, most), seen.count + 1)
    _numbers.within("momentum", momentum, 0, 1, open_low=True)
    first, m = seen.count == 0, jnp.asarray(momentum, jnp.float32)

    def mixed(new: Array, old: Array) -> Array:
        return jnp.where(first, new, m * new + (1 - m) * jnp.where(first, 0, old))

    return Range(mixed(least, seen.least), mixed(most, seen.most), seen.count + 1)


def calibrated(seen: Range, bits: Any, *, scheme: Scheme = symmetric) -> Grid:
    """The grid of what was seen: its extremes are the last levels.

    Args:
      seen: of `observe`.
      bits: b; may be traced.
      scheme: which levels; `jaxfair.quant.affine` for what is never negative.

    Returns:
      The `Grid`.

    Raises:
      ValueError: where nothing was seen, and for bits that are none.

    Example:
      >>> from jaxfair import quant
      >>> seen = observe(Range.empty((1, 1)), jnp.array([[0.0, 6.0]]))
      >>> calibrated(seen, 2, scheme=quant.affine).scale.item()
      2.0
      >>> calibrated(Range.empty((1, 1)), 8)
      Traceback (most recent call last):
      ...
      ValueError: nothing was seen to calibrate with: give batches to quant.observe first
    """
    if not isinstance(seen.count, Tracer) and not np.asarray(seen.count):
        raise ValueError("nothing was seen to calibrate with: give batches to quant.observe first")
    _numbers.member("scheme", scheme, Scheme, CHOICES)
    low, high, _ = scheme.levels(bits)
    rows = jnp.stack([seen.least.ravel(), seen.most.ravel()], axis=1)
    step, zero = Quantizer().scale.fit(rows, bits, scheme)
    shape = seen.least.shape
    return jax.tree.map(jnp.asarray, Grid(step.reshape(shape), zero.reshape(shape), low, high))
