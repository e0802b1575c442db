r"""The chi-square ball: all weights whose squared distance from the nominal ones is bounded.

.. math:: \max_w \sum_i w_i \ell_i \;\; \text{with} \;\; \tfrac 12 \sum_i p_i (w_i / p_i - 1)^2 \le \rho, \; w \ge 0

The answer is :math:`w_i \propto p_i (\ell_i - \eta)_+`, with one number :math:`\eta` found by bisection. While no
weight is 0 the value is the mean plus :math:`\sqrt{2 \rho\, \mathrm{Var}\, \ell}`: a bound on variance.
:math:`\rho = 0` is the mean; from :math:`\rho = (1/p - 1)/2` on, p the share of the worst, it is the worst example.

How this differs from published code (fast-dro, P-DRO): losses are scaled to [0, 1] before, so that zeros give no nan
and negative losses no wrong weights; and the weights are held fixed in the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxfair.robust._numbers import check_number, is_plain
from jaxfair.robust.objective import Objective, best_response, erm, spread_out

#: Halvings: after as many, an interval of a million is below the rounding of float32 at its end.
HALVINGS = 48


def chi_square_weights(losses: Float[Array, " B"], p: Float[Array, " B"], rho: ArrayLike) -> Float[Array, " B"]:
    r"""The worst weights in the ball.

    Args:
      losses: ``[B]``.
      p: ``[B]`` nominal weights, summing to 1; 0 for padding.
      rho: the radius, at least 0. May be traced.

    Returns:
      ``[B]``, summing to 1.

    Raises:
      ValueError: for a negative radius, unless traced.

    Example:
      >>> print(np.asarray(chi_square_weights(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.full(4, 0.25), 0.1)).round(3))
      [0.1 0.2 0.3 0.4]
    """
    check_number(rho, lambda r: (r >= 0) & np.isfinite(r), f"rho={rho}: give a radius of at least 0.")
    radius = jnp.asarray(rho, p.dtype)
    unit, scale = spread_out(losses, p)

    def at(eta: jax.Array) -> tuple[jax.Array, jax.Array]:
        tilt = jnp.where(p > 0, jnp.maximum(unit - eta, 0.0), 0.0)
        first, second = jnp.sum(p * tilt), jnp.sum(p * tilt**2)
        return tilt, 0.5 * (second / jnp.where(first > 0, first, 1.0) ** 2 - 1.0)

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        inside = at(middle)[1] <= radius
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    # Below its end no divergence is above rho: unit values lie in [0, 1].
    lowest = -1.0 / jnp.maximum(jnp.sqrt(1.0 + 2.0 * radius) - 1.0, 1e-6)
    eta, _ = jax.lax.fori_loop(0, HALVINGS, halve, (lowest, jnp.ones_like(lowest)))
    tilt, _ = at(eta)
    # Where even the worst alone are in the ball, the interval ends at 1, and nothing is above it.
    worst = jnp.where((unit >= 1.0) & (p > 0), 1.0, 0.0)
    alone = 0.5 * (1.0 / jnp.maximum(jnp.sum(p * worst), 1e-30) - 1.0) <= radius
    tilt = jnp.where(alone | (jnp.sum(p * tilt) <= 0), worst, tilt)
    weights = p * tilt / jnp.where(jnp.sum(p * tilt) > 0, jnp.sum(p * tilt), 1.0)
    flat = (scale <= 0) | (radius == 0)
    return jnp.where(flat, p, jnp.where(jnp.isfinite(scale), weights, jnp.nan))


def chi_square(rho: ArrayLike) -> Objective:
    r"""Trains against the worst weights in a chi-square ball around those of each batch.

    Args:
      rho: the radius, at least 0; a Python 0 is :func:`erm`, bit for bit. 1 is usual.

    Returns:
      The :class:`Objective`.

    Raises:
      ValueError: for a negative radius, unless traced.

    Example:
      The mean, 2.5, and the root of 2 rho times the variance, 1.25:

      >>> from jaxfair.typing import Batch
      >>> batch = Batch(None, None, None, None, jnp.ones(4))
      >>> chi_square(0.1).weigh((), jnp.array([1.0, 2.0, 3.0, 4.0]), batch, None)[2].value.round(1)
      Array(3., dtype=float32)

    References:
      Namkoong and Duchi, `Variance-based regularization with convex objectives
      <https://arxiv.org/abs/1610.02581>`_, 2017; Levy et al., `Large-scale methods for distributionally robust
      optimization <https://arxiv.org/abs/2010.05893>`_, 2020.
    """
    check_number(rho, lambda r: (r >= 0) & np.isfinite(r), f"rho={rho}: give a radius of at least 0.")
    if is_plain(rho, 0.0):
        return erm()
    return best_response(lambda losses, p: chi_square_weights(losses, p, rho))
