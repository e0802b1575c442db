r"""Weights exponential in the loss: a Kullback-Leibler ball around the nominal weights, or a price on leaving them.

==================  ==================================================  =========================================
objective           :math:`\max_w`                                      value
==================  ==================================================  =========================================
:func:`kl_ball`     :math:`\sum w \ell`, with KL(w || p) at most kappa  the weighted mean
:func:`kl_penalty`  :math:`\sum w \ell - \tau\, \mathrm{KL}(w \| p)`    :math:`\tau \log \sum p e^{\ell/\tau}`
==================  ==================================================  =========================================

Both answer :math:`w_i \propto p_i e^{\ell_i / \tau}`; the ball finds its temperature by bisection. A large temperature,
or a ball of radius 0, is the mean; a small one the worst example. The penalty's value is that of "tilted" risk.

How this differs from published code (P-DRO's non-parametric adversaries): the weights are held fixed in the gradient
and sum to 1, so that a step has the size of an ordinary one; theirs go through the gradient and sum to the batch's
size.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxfair.robust._numbers import check_number, is_plain
from jaxfair.robust.objective import Objective, best_response, erm, spread_out

#: The temperature is looked for between e^-12 and e^12 of the spread of the losses.
WIDEST, HALVINGS = 12.0, 40


def kl_penalty_weights(losses: Float[Array, " B"], p: Float[Array, " B"], temperature: ArrayLike) -> Float[Array, " B"]:
    r"""The weights :math:`p_i e^{\ell_i / \tau}`, normalised.

    Args:
      losses: ``[B]``.
      p: ``[B]`` nominal weights, summing to 1; 0 for padding.
      temperature: :math:`\tau` above 0. May be traced.

    Returns:
      ``[B]``, summing to 1.

    Raises:
      ValueError: for a temperature that is not above 0, unless traced.

    Example:
      >>> print(np.asarray(kl_penalty_weights(jnp.array([0.0, 1.0]), jnp.full(2, 0.5), 1.0)).round(3))
      [0.269 0.731]
    """
    _check_temperature(temperature)
    return _tilted(losses, p, jnp.asarray(temperature, p.dtype))


def kl_ball_weights(losses: Float[Array, " B"], p: Float[Array, " B"], kappa: ArrayLike) -> Float[Array, " B"]:
    r"""The worst weights whose divergence from the nominal ones, KL(w || p), is at most kappa.

    Args:
      losses: ``[B]``.
      p: ``[B]`` nominal weights, summing to 1; 0 for padding.
      kappa: the radius in nats, at least 0. From the logarithm of one over the share of the worst on, it is the worst.

    Returns:
      ``[B]``, summing to 1.

    Raises:
      ValueError: for a negative radius, unless traced.

    Example:
      >>> weights = kl_ball_weights(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.full(4, 0.25), 0.5)
      >>> round(float(jnp.sum(weights * jnp.log(weights * 4))), 4)
      0.5
    """
    check_number(kappa, lambda k: (k >= 0) & np.isfinite(k), f"kappa={kappa}: give a radius of at least 0.")
    radius = jnp.asarray(kappa, p.dtype)
    unit, scale = spread_out(losses, p)

    def divergence(weights: jax.Array) -> jax.Array:
        there = (weights > 0) & (p > 0)
        return jnp.sum(jnp.where(there, weights * jnp.log(jnp.where(there, weights / p, 1.0)), 0.0))

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        outside = divergence(_tilted(unit, p, jnp.exp(middle))) > radius
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    ends = jnp.asarray(-WIDEST, p.dtype), jnp.asarray(WIDEST, p.dtype)
    _, log_temperature = jax.lax.fori_loop(0, HALVINGS, halve, ends)
    weights = _tilted(unit, p, jnp.exp(log_temperature))
    flat = (scale <= 0) | (radius == 0)
    return jnp.where(flat, p, jnp.where(jnp.isfinite(scale), weights, jnp.nan))


def kl_penalty(temperature: ArrayLike) -> Objective:
    r"""Trains against weights that pay for their distance, down :math:`\tau \log \sum_i p_i e^{\ell_i/\tau}`.

    Args:
      temperature: :math:`\tau` above 0; ``math.inf`` is :func:`erm`, bit for bit.

    Returns:
      The :class:`Objective`.

    Raises:
      ValueError: for a temperature that is not above 0, unless traced.

    Example:
      >>> from jaxfair.typing import Batch
      >>> batch = Batch(None, None, None, None, jnp.ones(4))
      >>> kl_penalty(1.0).weigh((), jnp.array([1.0, 2.0, 3.0, 4.0]), batch, None)[2].value.round(4)
      Array(3.0539, dtype=float32)

    References:
      Li et al., `Tilted empirical risk minimization <https://arxiv.org/abs/2007.01162>`_, 2021.
    """
    _check_temperature(temperature)
    if is_plain(temperature, math.inf):
        return erm()

    def value(losses: Float[Array, " B"], p: Float[Array, " B"], w: Float[Array, " B"]) -> Float[Array, ""]:
        t = jnp.asarray(temperature, p.dtype)
        mean = jnp.sum(p * jnp.where(p > 0, losses, 0.0))
        from_mean = jnp.where(p > 0, losses - mean, 0.0)
        # A large temperature would round the logarithm of nearly 1 away: nothing is lost where it is taken from there.
        far = jnp.where(jnp.max(jnp.abs(from_mean)) > t, 1.0, 0.0)
        small = jnp.log1p(jnp.sum(p * jnp.expm1(jnp.where(far > 0, 0.0, from_mean) / t)))
        large = jax.nn.logsumexp(from_mean / t, b=jnp.where(jnp.any(p > 0), p, 1.0))
        above = t * jnp.where(far > 0, large, small)
        return mean + jnp.where(jnp.isinf(t), 0.0 * jnp.sum(w), above)

    return best_response(lambda losses, p: kl_penalty_weights(losses, p, temperature), value)


def kl_ball(kappa: ArrayLike) -> Objective:
    r"""Trains against the worst weights in a Kullback-Leibler ball around those of each batch.

    Args:
      kappa: the radius in nats, at least 0; a Python 0 is :func:`erm`, bit for bit.

    Returns:
      The :class:`Objective`.

    Raises:
      ValueError: for a negative radius, unless traced.

    Example:
      >>> from jaxfair.typing import Batch
      >>> batch = Batch(None, None, None, None, jnp.ones(4))
      >>> kl_ball(0.5).weigh((), jnp.array([1.0, 2.0, 3.0, 4.0]), batch, None)[2].value.round(3)
      Array(3.551, dtype=float32)

    References:
      Hu and Hong, Kullback-Leibler divergence constrained distributionally robust optimization, 2013.
    """
    check_number(kappa, lambda k: (k >= 0) & np.isfinite(k), f"kappa={kappa}: give a radius of at least 0.")
    if is_plain(kappa, 0.0):
        return erm()
    return best_response(lambda losses, p: kl_ball_weights(losses, p, kappa))


def _tilted(losses: Float[Array, " B"], p: Float[Array, " B"], temperature: Float[Array, ""]) -> Float[Array, " B"]:
    there = p > 0
    # Below the worst, so that a large loss, or a small temperature, does not round the logarithms of p away.
    below = losses - jnp.max(jnp.where(there, losses, -jnp.inf))
    logits = jnp.where(there, below / temperature + jnp.log(jnp.where(there, p, 1.0)), -jnp.inf)
    # Softmax of nothing but -inf is nan: a batch of nobody has weights of 0.
    return jnp.where(there, jax.nn.softmax(jnp.where(jnp.any(there), logits, 0.0)), 0.0)


def _check_temperature(temperature: ArrayLike) -> None:
    check_number(temperature, lambda t: t > 0, f"temperature={temperature}: give a number above 0.")
