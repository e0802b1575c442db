r"""CVaR: the mean of the worst share of the examples, a robust objective in closed form.

.. math:: \max_{w} \sum_i w_i \ell_i \;\; \text{with} \;\; 0 \le w_i \le p_i / \alpha, \; \sum_i w_i = 1
   \; = \; \min_\eta \; \eta + \tfrac 1\alpha \sum_i p_i (\ell_i - \eta)_+

The answer is greedy from the top. At :math:`\alpha = 1` it is the mean, at :math:`\alpha \to 0` the worst example.

How this differs from published code (fast-dro, P-DRO): the remainder at the quantile is shared by *all* examples with
that loss, in proportion to p; theirs goes to the first in the order of sorting, so that equal losses have different
weights. And p need not be uniform. The CVaR of a batch is biased downwards, whatever the number of steps: of ten
uniform draws the worst tenth has the mean 10/11 where 0.95 is right.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxfair.robust._numbers import check_number, is_plain
from jaxfair.robust.objective import Objective, best_response, erm


def cvar_weights(losses: Float[Array, " B"], p: Float[Array, " B"], alpha: ArrayLike) -> Float[Array, " B"]:
    r"""The weights of the worst share of examples.

    Args:
      losses: ``[B]``.
      p: ``[B]`` nominal weights, summing to 1; 0 for padding, whose loss may be anything.
      alpha: the share, in (0, 1]. May be traced.

    Returns:
      ``[B]``, summing to 1.

    Raises:
      ValueError: for a share outside of (0, 1], unless traced.

    Example:
      >>> cvar_weights(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.full(4, 0.25), 0.5).tolist()
      [0.0, 0.0, 0.5, 0.5]
    """
    check_number(alpha, lambda a: (a > 0) & (a <= 1), f"alpha={alpha}: give a share above 0 and at most 1.")
    share = jnp.asarray(alpha, p.dtype)
    keys = jnp.where(p > 0, losses, -jnp.inf)
    order = jnp.argsort(-keys)
    reached = jnp.cumsum(p[order]) >= share
    # Sums of p may end below 1 by rounding; then all that count are within the share.
    last = jnp.where(jnp.any(reached), jnp.argmax(reached), jnp.sum(p > 0) - 1)
    quantile = keys[order][last]
    above, at = keys > quantile, (keys == quantile) & (p > 0)
    left = 1.0 - jnp.sum(jnp.where(above, p, 0.0)) / share
    mass = jnp.sum(jnp.where(at, p, 0.0))
    weights = jnp.where(above, p / share, jnp.where(at, left * p / jnp.where(mass > 0, mass, 1.0), 0.0))
    # Sorted with nan at an end, the weights would leave it out; it ends the run aloud.
    return jnp.where(jnp.any(jnp.isnan(keys)), jnp.nan, weights)


def cvar(alpha: ArrayLike) -> Objective:
    r"""Trains on the mean loss of the worst share of each batch.

    Args:
      alpha: the share, in (0, 1]; a Python 1 is :func:`erm`, bit for bit.

    Returns:
      The :class:`Objective`.

    Raises:
      ValueError: for a share outside of (0, 1], unless traced.

    Example:
      >>> from jaxfair.typing import Batch
      >>> batch = Batch(None, None, None, None, jnp.ones(4))
      >>> cvar(0.6).weigh((), jnp.array([1.0, 2.0, 3.0, 4.0]), batch, None)[2].value
      Array(3.25, dtype=float32)

    References:
      Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000; Levy et al., `Large-scale methods for
      distributionally robust optimization <https://arxiv.org/abs/2010.05893>`_, 2020.
    """
    check_number(alpha, lambda a: (a > 0) & (a <= 1), f"alpha={alpha}: give a share above 0 and at most 1.")
    if is_plain(alpha, 1.0):
        return erm()
    return best_response(lambda losses, p: cvar_weights(losses, p, alpha))
