r"""Quantisers as pure functions of arrays: scheme x granularity x scale, and the grid that they find.

.. math::

   c(x) = \mathrm{clip}\big(\mathrm{round}(x / s) + z,\ l,\ h\big), \qquad q(x) = s\,(c(x) - z)

A `Quantizer` says how; a `Grid` is what it found: the steps s, the codes z of zero, and the lowest and highest code.
A grid is data: it is made once (calibration), kept, traced, averaged or trained, and everything else takes it.

What holds, for every member of every axis, and is tested so:

- **zero is zero**: :math:`q(0) = 0` exactly, so that a pruned weight stays pruned;
- **levels**: there are at most :math:`h - l + 1` values for each scale;
- **idempotent**: :math:`q(q(x)) = q(x)` on one grid, bit for bit. With the grid found again it holds for `symmetric`
  with `extremes`, whose largest weight is a level;
- **monotone**: :math:`x \le y` on one scale gives :math:`q(x) \le q(y)`;
- **half a step**: :math:`|q(x) - x| \le s/2` for what lies within the levels; with `extremes` that is everything;
- **more bits are never worse**: the squared error of `least_squares` never grows with b.

Bits may be traced. Levels are computed in float32 (float64 for float64) and cast at the end: in bfloat16, levels of up
to 8 bits stay apart.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxfair.quant import _granularity, _numbers, _scales, _schemes
from jaxfair.quant._granularity import Granularity, per_tensor, spread
from jaxfair.quant._scales import Scale, extremes
from jaxfair.quant._schemes import Scheme, symmetric
from jaxfair.typing import Array


class Quantizer(NamedTuple):
    """How to quantise: one member of each axis.

    The default is the quantiser of the oscillation papers: per tensor, symmetric, the largest weight is a level.

    Attributes:
      scheme: which levels: `symmetric`, `signed`, `affine`.
      granularity: who shares a scale: `per_tensor`, ``per_channel(axis)``, ``per_group(size)``.
      scale: how long a step is: `extremes`, ``percentile(p)``, ``least_squares()``, `learned`.

    Example:
      >>> from jaxfair import quant
      >>> int4 = quant.Quantizer(quant.signed, quant.per_channel(), quant.least_squares())
      >>> quant.calibrate(jnp.ones((8, 3)), 4, int4).scale.shape
      (1, 3)
    """

    scheme: Scheme = symmetric
    granularity: Granularity = per_tensor
    scale: Scale = extremes

    def checked(self) -> "Quantizer":
        """The same, if every member is one.

        Raises:
          TypeError: for one that is not, with the choices.
        """
        _numbers.member("scheme", self.scheme, Scheme, _schemes.CHOICES)
        _numbers.member("granularity", self.granularity, Granularity, _granularity.CHOICES)
        _numbers.member("scale", self.scale, Scale, _scales.CHOICES)
        return self


class Grid(NamedTuple):
    """The levels of an array: what calibration finds.

    Attributes:
      scale: the steps, of the array's number of dimensions, see `per_tensor`. ``[]`` in a tree where a leaf is not
        quantised at all.
      zero: of the same shape, the codes of 0.
      low: ``[]``, the lowest code.
      high: ``[]``, the highest code.
    """

    scale: Array
    zero: Array
    low: Array
    high: Array


def grid(scale: Any, bits: Any, *, scheme: Scheme = symmetric, zero: Any = 0.0) -> Grid:
    """A grid of steps that are known: from a file, or from a paper.

    Args:
      scale: the steps, of as many dimensions as the array that they are for; above 0.
      bits: b.
      scheme: which levels.
      zero: the code of 0; 0 but for `affine`.

    Returns:
      The `Grid`.

    Raises:
      ValueError: for steps that are not above 0, a zero that is no code, and for bits that are none.

    Example:
      >>> quantize(jnp.array([0.3, -1.0, 9.0]), grid([0.5], 3)).tolist()
      [0.5, -1.0, 1.5]
    """
    low, high, _ = _numbers.member("scheme", scheme, Scheme, _schemes.CHOICES).levels(bits)
    step = jnp.asarray(scale)
    step = step.astype(_numbers.working(step.dtype))
    zeros = jnp.broadcast_to(jnp.asarray(zero, step.dtype), step.shape)
    if not isinstance(step, Tracer) and not ((np.asarray(step) > 0) & np.isfinite(np.asarray(step))).all():
        raise ValueError(f"scale={scale}: a step is above 0, and finite; use quant.calibrate to find it")
    if not any(isinstance(x, Tracer) for x in (zeros, low, high)):
        at = np.asarray(zeros)
        if not ((at >= np.asarray(low)) & (at <= np.asarray(high)) & (at == np.round(at))).all():
            raise ValueError(f"zero={zero}: the code of 0 is a whole number from {int(low)} to {int(high)}")
    return Grid(step, zeros, low, high)


def calibrate(x: Any, bits: Any, quantizer: Quantizer = Quantizer()) -> Grid:  # noqa: B008, a constant
    """Finds the grid of an array.

    Args:
      x: floats; an array of activations is calibrated like one of weights, see `observe` for a stream of them.
      bits: b, from 1 (2 for `symmetric`) to 32; may be traced.
      quantizer: how.

    Returns:
      The `Grid`; where all that share a scale are zero, its step is 1.

    Raises:
      ValueError: for bits that are none, an array without entries or that the granularity does not fit, nan.
      TypeError: for an array that has no floats, and for a quantiser that is none.

    Example:
      >>> found = calibrate(jnp.array([0.1, -0.6, 1.5]), 3)
      >>> found.scale.tolist(), quantize(jnp.array([0.1, -0.6, 1.5]), found).tolist()
      ([0.5], [0.0, -0.5, 1.5])
    """
    x = _numbers.array("x", x)
    rule = _numbers.member("quantizer", quantizer, Quantizer, "quant.Quantizer(scheme, granularity, scale)").checked()
    low, high, _ = rule.scheme.levels(bits)
    shape = rule.granularity.shape(x.shape)
    step, zero = rule.scale.fit(_granularity.fold(x, shape).astype(_numbers.working(x.dtype)), bits, rule.scheme)
    return Grid(step.reshape(shape), zero.reshape(shape), low, high)


def _parts(x: Array, grid: Grid) -> tuple[Array, Array, Array, Array, Array]:
    """The array and the grid in the dtype of the work, spread so that they broadcast."""
    if jnp.ndim(grid.scale) == 0 and jnp.ndim(x):
        raise ValueError("this grid is of a leaf that is not quantised: use quant.quantize_params for a tree of them")
    dtype = _numbers.working(x.dtype)
    step, zero = (spread(jnp.asarray(part, dtype), x.shape) for part in (grid.scale, grid.zero))
    return x.astype(dtype), step, zero, jnp.asarray(grid.low, dtype), jnp.asarray(grid.high, dtype)


def codes(x: Any, grid: Grid) -> Array:
    """The codes of an array: what is stored.

    Args:
      x: floats.
      grid: its grid.

    Returns:
      int32, of the shape of `x`; exact up to 24 bits.

    Raises:
      ValueError: for the grid of another array.

    Example:
      >>> codes(jnp.array([0.3, -1.0, 9.0]), grid([0.5], 3)).tolist()
      [1, -2, 3]
    """
    wide, step, zero, low, high = _parts(jnp.asarray(x), grid)
    return jnp.clip(jnp.round(wide / step) + zero, low, high).astype(jnp.int32)


def values(codes: Any, grid: Grid, *, dtype: Any = jnp.float32) -> Array:
    """What codes stand for.

    Args:
      codes: integers.
      grid: their grid.
      dtype: of the result.

    Returns:
      Floats, of the shape of the codes.

    Example:
      >>> values(jnp.array([1, -2, 3]), grid([0.5], 3)).tolist()
      [0.5, -1.0, 1.5]
    """
    wide, step, zero, _, _ = _parts(jnp.asarray(codes).astype(_numbers.working(dtype)), grid)
    return ((wide - zero) * step).astype(dtype)


def quantize(x: Any, grid: Grid) -> Array:
    """The level that each entry is nearest to.

    Args:
      x: floats.
      grid: their grid.

    Returns:
      Floats, of shape and dtype of `x`. Its derivative is 0; see `fake_quantize`.

    Raises:
      ValueError: for the grid of another array.

    Example:
      >>> w = jnp.array([0.1, -0.6, 1.5])
      >>> quantize(w, calibrate(w, 2)).tolist()
      [0.0, 0.0, 1.5]
    """
    given = jnp.asarray(x)
    wide, step, zero, low, high = _parts(given, grid)
    level = (jnp.clip(jnp.round(wide / step) + zero, low, high) - zero) * step
    return lax.stop_gradient(level.astype(given.dtype))


def inside(x: Any, grid: Grid) -> Array:
    """Which entries are rounded, and not clipped: those that lie at most half a step beyond the last level.

    Example:
      >>> inside(jnp.array([0.3, 1.7, 9.0]), grid([0.5], 3)).tolist()
      [True, True, False]
    """
    wide, step, zero, low, high = _parts(jnp.asarray(x), grid)
    return _near(wide / step + zero, low, high)


def _near(place: Array, low: Array, high: Array) -> Array:
    # The largest entry of `signed` is exactly half a step out: what the division has rounded does not count.
    slack = 0.5 + 4 * jnp.finfo(place.dtype).eps * jnp.abs(place)
    return (place >= low - slack) & (place <= high + slack)


def fake_quantize(x: Any, grid: Grid, *, scale_gradient: bool = False) -> Array:
    r"""`quantize`, with a derivative: rounding counts as the identity (the straight-through estimator).

    .. math::

       \frac{\partial q}{\partial x} = 1 \text{ inside, else } 0, \qquad
       \frac{\partial q}{\partial s} = \mathrm{round}(x/s) - x/s \text{ inside, else } c(x) - z

    Args:
      x: floats.
      grid: their grid.
      scale_gradient: whether the steps get theirs, as LSQ has it; otherwise they are constants.

    Returns:
      The values of `quantize`, bit for bit.

    Raises:
      ValueError: for the grid of another array.

    How this differs from LSQ: what lies up to half a step beyond the last level is rounded to it, not clipped, and has
    the derivatives of what is inside; the authors clip first.

    Example:
      >>> import jax
      >>> jax.grad(lambda w: fake_quantize(w, grid([0.5], 3)).sum())(jnp.array([0.3, -1.0, 9.0])).tolist()
      [1.0, 1.0, 0.0]
    """
    given = jnp.asarray(x)
    if not scale_gradient:
        grid = Grid(*(lax.stop_gradient(part) for part in grid))
    wide, step, zero, low, high = _parts(given, grid)
    place = lax.stop_gradient(wide / step)
    code = jnp.clip(jnp.round(place) + lax.stop_gradient(zero), low, high)
    # Both differences are 0, exactly; they have the derivatives that rounding has not.
    through = (wide - lax.stop_gradient(wide)) - place * (step - lax.stop_gradient(step))
    level = (code - zero) * step + jnp.where(_near(place + lax.stop_gradient(zero), low, high), through, 0)
    return level.astype(given.dtype)
