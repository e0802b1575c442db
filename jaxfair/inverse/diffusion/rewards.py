r"""A linear reward from few labels or preferences, and pseudo-labels for the many examples that have none.

From noisy values by ridge regression, from pairs by the logistic model of who is preferred:

.. math::
   \hat\theta = (X^\top W X + \lambda I)^{-1} X^\top W y, \qquad
   \hat\theta = \arg\min_\theta\; \sum_i w_i\, \ell\big(\theta^\top (u_i - v_i),\, p_i\big)
   + \tfrac{\lambda}{2} \|\theta\|^2

with :math:`\ell(m, p) = \log(1 + e^m) - p m`, the cross entropy of :math:`P(u \succ v) = \sigma(f(u) - f(v))`. There is
no intercept: centre x and y first. From pairs a reward is known up to a constant, and with few of them its *scale* is
overestimated: a target then means less of the true reward than it says. Ask for a quantile of the pseudo-labels.

For a reward that is not linear give features of x in place of x; any other regressor will do as well, since only its
values enter `pseudo_labels`.

Sources: Bradley and Terry, Biometrika 39, 1952 (pairs); Yuan et al., `Reward-directed conditional diffusion
<https://arxiv.org/abs/2307.07055>`_, 2023.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from jaxfair.inverse.diffusion._checks import check_above_zero, check_finite, check_rows
from jaxfair.typing import Key, check_count


def reward_from_values(
    x: ArrayLike, y: ArrayLike, *, strength: ArrayLike = 1.0, weight: ArrayLike | None = None
) -> Float[Array, " D"]:
    r"""Ridge regression without an intercept.

    Args:
      x: ``[N, D]`` labelled examples, centred.
      y: ``[N]`` noisy rewards, centred.
      strength: :math:`\lambda`, above 0.
      weight: ``[N]``, 0 for padding.

    Returns:
      ``[D]``, the reward's direction: ``x @ theta`` is the reward.

    Raises:
      ValueError: for no row, shapes that do not fit, numbers that are not finite, and a strength of 0 or less.

    Example:
      The ridge of 1 takes a third from two examples along the first axis:

      >>> reward_from_values(jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([3.0, 3.0]))
      Array([2., 0.], dtype=float32)
    """
    check_rows("x", x, ("y", y), ("weight", weight))
    check_above_zero("strength", strength)
    check_finite("x", x, weight)
    check_finite("y", y, weight)
    return _ridge(x, y, weight, strength)


def reward_from_preferences(
    preferred: ArrayLike,
    other: ArrayLike,
    *,
    share: ArrayLike | None = None,
    strength: ArrayLike = 0.1,
    weight: ArrayLike | None = None,
    steps: int = 12,
) -> Float[Array, " D"]:
    r"""Logistic regression on differences, without an intercept, by Newton steps.

    A step is halved until the loss does not rise, so that pairs which some :math:`\theta` puts all in order (their
    likelihood has no maximum) end where the penalty ends them.

    Args:
      preferred: ``[N, D]`` of each pair the one that was preferred.
      other: ``[N, D]`` and the one that was not.
      share: ``[N]`` of how many raters preferred it, in [0, 1]; 1 by default.
      strength: :math:`\lambda`, above 0.
      weight: ``[N]``, 0 for padding.
      steps: of Newton; static.

    Returns:
      ``[D]``, the reward's direction; a constant of the reward is unknown.

    Raises:
      ValueError: for no pair, sides of two shapes, numbers that are not finite, a share outside [0, 1], a strength of 0
        or less, and no step.

    Example:
      Three in four prefer 1 to 0, as they do where the rewards differ by log 3:

      >>> found = reward_from_preferences(jnp.ones((4, 1)), jnp.zeros((4, 1)), share=jnp.full(4, 0.75), strength=1e-6)
      >>> print(f"{found[0]:.4f} {np.log(3):.4f}")
      1.0986 1.0986
    """
    check_rows("preferred", preferred, ("share", share), ("weight", weight))
    if np.shape(other) != np.shape(preferred):
        raise ValueError(
            f"preferred of shape {np.shape(preferred)}, other of shape {np.shape(other)}: give both sides of each pair."
        )
    check_above_zero("strength", strength)
    check_count("steps", steps)
    check_finite("preferred", preferred, weight)
    check_finite("other", other, weight)
    p = np.ones(np.shape(preferred)[0], np.float32) if share is None else share
    if not isinstance(p, Tracer) and not isinstance(weight, Tracer):
        # nan is outside, too; padding may hold anything
        wrong = ~((np.asarray(p) >= 0) & (np.asarray(p) <= 1)) & (True if weight is None else np.asarray(weight) > 0)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(f"share[{at}] is {np.asarray(p)[at]}: give shares in [0, 1].")
    return _newton(preferred, other, p, weight, strength, steps)


def _rows(x: Any, y: Any, weight: Any) -> tuple[Array, Array, Array]:
    """Rows, numbers and weights in floats, with zeros where the weight is 0."""
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    w = jnp.ones(x.shape[0], x.dtype) if weight is None else jnp.asarray(weight, x.dtype)
    there = w > 0
    return jnp.where(there[:, None], x, 0), jnp.where(there, jnp.asarray(y, x.dtype), 0), w


@jax.jit
def _ridge(x: Any, y: Any, weight: Any, strength: Any) -> Array:
    x, y, w = _rows(x, y, weight)
    gram = jnp.einsum("nd,n,ne->de", x, w, x) + jnp.asarray(strength, x.dtype) * jnp.eye(x.shape[1], dtype=x.dtype)
    return jnp.linalg.solve(gram, x.T @ (w * y))


@functools.partial(jax.jit, static_argnums=5)
def _newton(preferred: Any, other: Any, share: Any, weight: Any, strength: Any, steps: int) -> Array:
    x, p, w = _rows(jnp.asarray(preferred) - jnp.asarray(other), share, weight)
    strength = jnp.asarray(strength, x.dtype)

    def loss(theta: Array) -> Array:
        margin = x @ theta
        return jnp.sum(w * (jax.nn.softplus(margin) - p * margin)) + strength / 2 * (theta @ theta)

    halvings = 0.5 ** jnp.arange(8, dtype=x.dtype)

    def step(theta: Array, _: None) -> tuple[Array, None]:
        chance = jax.nn.sigmoid(x @ theta)
        gradient = x.T @ (w * (chance - p)) + strength * theta
        curvature = jnp.einsum("nd,n,ne->de", x, w * chance * (1 - chance), x)
        move = jnp.linalg.solve(curvature + strength * jnp.eye(x.shape[1], dtype=x.dtype), gradient)
        tried = theta[None] - halvings[:, None] * move[None]
        # Near the minimum rounding decides which is lowest: the full step is taken unless it is worse.
        losses = jax.vmap(loss)(tried)
        best = tried[jnp.argmin(losses)]
        return jnp.where(losses[0] <= loss(theta), tried[0], best), None

    return lax.scan(step, jnp.zeros(x.shape[1], x.dtype), None, length=steps)[0]


def pseudo_labels(values: ArrayLike, key: Key, *, noise: ArrayLike) -> Float[Array, " N"]:
    r"""Labels for the examples that have none: their reward as it was learned, and noise.

    Args:
      values: ``[N]``, :math:`\hat f(x)` of each.
      key: of the noise.
      noise: :math:`\nu`, above 0. What a design falls short of a target a grows with it: for Gaussian latents and the
        true reward of norm 1 by :math:`a \nu^2 / (1 + \nu^2)`, however many labels there are.

    Returns:
      ``[N]``.

    Raises:
      ValueError: for a noise of 0 or less, no value, and values that are not finite.

    Example:
      >>> labels = pseudo_labels(jnp.zeros(10_000), jax.random.key(0), noise=0.125)
      >>> labels.shape, round(float(labels.std()), 1)
      ((10000,), 0.1)
    """
    check_above_zero("noise", noise)
    if np.ndim(values) != 1 or np.size(values) == 0:
        raise ValueError(f"values of shape {np.shape(values)}: give [N], a number for each of at least one example.")
    check_finite("values", values)
    f = jnp.asarray(values)
    f = f.astype(jnp.promote_types(f.dtype, jnp.float32))
    return f + jnp.asarray(noise, f.dtype) * jax.random.normal(key, f.shape, f.dtype)
