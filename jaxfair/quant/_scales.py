r"""How long a step is: rules that look at the entries that share a scale, ``[R, n]``, a row for each.

==================  ==============================================================================================
rule                the step
==================  ==============================================================================================
`extremes`          the largest value is the last level: nothing is clipped
`percentile(p)`     so that the p-th percentile of the sizes is; the rest is clipped
`least_squares`     the one with the least mean squared error, of a fixed list of candidates
`fixed(step)`       given
`learned`           :math:`2\,\overline{|w|} / \sqrt{n}` to begin with (LSQ), and then trained like a weight
==================  ==============================================================================================

`least_squares` has a promise that a search on a grid of ranges does not have: **more bits never make the error
larger**. Its candidates are :math:`s = c \cdot \max|w| / 2^{b-1}` for c from one list for all b, so that half of every
candidate of b bits is one of b + 1 bits; and the levels of b + 1 bits with half the step contain those of b bits, also
with a zero in the middle of an affine range, because the code of zero is rounded *down* there. The list has the steps
of `extremes` for all b, so that with a symmetric scheme it is never worse than that either.

References:
  Esser et al., `Learned Step Size Quantization <https://arxiv.org/abs/1902.08153>`_, 2020.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxfair.quant import _numbers
from jaxfair.quant._schemes import Scheme
from jaxfair.typing import Array, whole


class Scale(NamedTuple):
    """A rule for the step.

    Attributes:
      fit: ``fit(rows, bits, scheme) -> (step, zero)`` from ``[R, n]`` to ``[R]`` each; zero is the code of 0.
      learned: whether the step goes on as a parameter.
      clips: whether anything may lie beyond the last level.
    """

    fit: Callable[[Array, Any, Scheme], tuple[Array, Array]]
    learned: bool = False
    clips: bool = True


def _alive(step: Array) -> Array:
    """Steps of rows that are zero, or next to it, are 1: every entry is the level 0. What is nan stays so."""
    return jnp.where(step < jnp.finfo(step.dtype).tiny, jnp.ones_like(step), step)


def _between(least: Array, most: Array, bits: Any, scheme: Scheme) -> tuple[Array, Array]:
    """Step and zero of a range; it is widened to hold 0."""
    low, high, span = (level.astype(most.dtype) for level in scheme.levels(bits))
    least, most = jnp.minimum(least, 0), jnp.maximum(most, 0)
    if not scheme.affine:
        return _alive(jnp.maximum(-least, most) / span), jnp.zeros_like(most)
    step = _alive((most - least) / span)
    return step, lax.stop_gradient(jnp.clip(jnp.round(-least / step), low, high))


def _extremes(rows: Array, bits: Any, scheme: Scheme) -> tuple[Array, Array]:
    return _between(jnp.min(rows, axis=1), jnp.max(rows, axis=1), bits, scheme)


#: The largest value is the last level: nothing is clipped.
extremes = Scale(_extremes, clips=False)


def percentile(p: Any = 99.9) -> Scale:
    """Steps that leave the largest entries out.

    Args:
      p: from 50 to 100: of the sizes, or of the entries on either side for an affine scheme.

    Returns:
      The `Scale`.

    Raises:
      ValueError: for another number.

    Example:
      >>> from jaxfair import quant
      >>> w = jnp.append(jnp.linspace(-1, 1, 100), 50.0)
      >>> for rule in (extremes, percentile(99)):
      ...     print(round(float(quant.calibrate(w, 8, quant.Quantizer(scale=rule)).scale[0]), 3))
      0.394
      0.008
    """
    _numbers.within("percentile", p, 50, 100)

    def fit(rows: Array, bits: Any, scheme: Scheme) -> tuple[Array, Array]:
        share = jnp.asarray(p, rows.dtype) / 100
        if scheme.affine:
            return _between(jnp.quantile(rows, 1 - share, axis=1), jnp.quantile(rows, share, axis=1), bits, scheme)
        top = jnp.quantile(jnp.abs(rows), share, axis=1)
        return _between(-top, top, bits, scheme)

    return Scale(fit)


def least_squares(candidates: Any = 64) -> Scale:
    """Steps with the least squared error, of a list of candidates.

    Args:
      candidates: evenly spread up to twice the step that reaches the largest entry with many bits. Each is one pass
        over the array.

    Returns:
      The `Scale`. Its error never grows with bits, and with a symmetric scheme is never above that of `extremes`.

    Raises:
      ValueError: for a number that is not whole, or below 1.

    Example:
      >>> import jax
      >>> from jaxfair import quant
      >>> w = jax.random.normal(jax.random.key(0), (400,))
      >>> for rule in (extremes, least_squares()):
      ...     grid = quant.calibrate(w, 3, quant.Quantizer(scale=rule))
      ...     print(round(float(jnp.mean((quant.quantize(w, grid) - w) ** 2)), 3))
      0.084
      0.042
    """
    count = whole(candidates)
    if count is None or count < 1:
        raise ValueError(f"candidates={candidates}: give a whole number, 1 or more")
    half = 2.0 ** np.arange(_numbers.MOST)
    # The factors that give the steps of `extremes`, of each scheme and for all bits.
    own = np.concatenate([half[1:] / (half[1:] - 1), half / (half - 0.5), 2 * half / (2 * half - 1)])
    factors = np.concatenate([2.0 * np.arange(1, count + 1) / count, own])

    def fit(rows: Array, bits: Any, scheme: Scheme) -> tuple[Array, Array]:
        low, high, _ = (level.astype(rows.dtype) for level in scheme.levels(bits))
        least, most = jnp.minimum(jnp.min(rows, axis=1), 0), jnp.maximum(jnp.max(rows, axis=1), 0)
        if scheme.affine:
            width, codes = most - least, high + 1
            share = jnp.where(width > 0, -least / jnp.where(width > 0, width, 1), 0)
            zero = jnp.clip(jnp.floor(share * codes), low, high)
        else:
            width, codes, zero = jnp.maximum(-least, most), (high + 1), jnp.zeros_like(most)
        unit = width / codes

        def try_one(best: tuple[Array, Array], factor: Array) -> tuple[tuple[Array, Array], None]:
            step = _alive(unit * factor)
            code = jnp.clip(jnp.round(rows / step[:, None]) + zero[:, None], low, high)
            error = jnp.mean(jnp.square((code - zero[:, None]) * step[:, None] - rows), axis=1)
            better = error < best[0]
            return (jnp.where(better, error, best[0]), jnp.where(better, step, best[1])), None

        begin = jnp.full_like(unit, jnp.inf), unit * jnp.nan
        (_, step), _ = lax.scan(try_one, begin, jnp.asarray(factors, rows.dtype))
        return lax.stop_gradient(step), lax.stop_gradient(zero)

    return Scale(fit)


def fixed(step: Any) -> Scale:
    """A step that is known; what lies beyond the last level is clipped.

    Args:
      step: above 0; may be traced.

    Returns:
      The `Scale`. The code of zero is 0, or the middle one of an affine scheme.

    Raises:
      ValueError: for a step that is not above 0.

    Example:
      >>> from jaxfair import quant
      >>> w = jnp.array([0.4, -0.6, 9.0])
      >>> quant.quantize(w, quant.calibrate(w, 3, quant.Quantizer(scale=fixed(1.0)))).tolist()
      [0.0, -1.0, 3.0]
    """
    _numbers.within("step", step, 0, open_low=True)

    def fit(rows: Array, bits: Any, scheme: Scheme) -> tuple[Array, Array]:
        high = scheme.levels(bits)[1].astype(rows.dtype)
        steps = jnp.full(rows.shape[:1], jnp.asarray(step, rows.dtype))
        return steps, jnp.zeros_like(steps) + (jnp.floor((high + 1) / 2) if scheme.affine else 0)

    return Scale(fit)


def _lsq(rows: Array, bits: Any, scheme: Scheme) -> tuple[Array, Array]:
    if scheme.affine:
        raise ValueError("a learned scale has no zero of its own: use quant.symmetric or quant.signed")
    high = scheme.levels(bits)[1].astype(rows.dtype)
    step = _alive(2 * jnp.mean(jnp.abs(rows), axis=1) / jnp.sqrt(jnp.maximum(high, 1)))
    return step, jnp.zeros_like(step)


#: A step that is trained like a weight, from the one of LSQ.
learned = Scale(_lsq, learned=True)
CHOICES = "quant.extremes, quant.percentile(p), quant.least_squares(), quant.fixed(step), quant.learned"
