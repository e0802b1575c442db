r"""The nearest masks in the box that fit into a budget.

.. math:: \min_m |m - v|^2 \quad \text{subject to} \quad 0 \le m \le 1, \quad \textstyle\sum_i m_i \le k

The solution is :math:`m_i = \mathrm{clip}(v_i - \tau, 0, 1)` with :math:`\tau = 0` where that fits, and else the one
number for which the sum is k. The sum falls in :math:`\tau` and is piecewise linear, so Newton's steps find it in a few
passes; where one leaves the bracket, or there is no slope, the bracket is halved.

References:
  Wang and Lu, `Projection onto the capped simplex <https://arxiv.org/abs/1503.01002>`_, 2015, who sort.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike

from jaxfair.typing import Array

#: The sum ends between 1 - 4 SLACK and 1 of the budget: what a sum of millions in float32 can tell.
SLACK = 1e-6


def onto_budget(scores: Any, budget: ArrayLike) -> Any:
    """Projects a tree onto the box [0, 1] and a budget for its sum.

    Args:
      scores: a tree of floats v.
      budget: k, at least 0; may be traced. The sum is never above it, and within four millionths of it where it binds;
        of leaves narrower than float32, before they are rounded to their dtype.

    Returns:
      The tree m.

    Example:
      >>> masks = onto_budget({"a": jnp.array([1.5, 0.5]), "b": jnp.array([0.75, -1.0])}, 1.5)
      >>> masks["a"].round(4).tolist(), masks["b"].round(4).tolist()
      ([1.0, 0.125], [0.375, 0.0])
    """
    given, treedef = jax.tree.flatten(scores)
    wide = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in given))
    leaves = [leaf.astype(wide) for leaf in given]
    # An infinite score is one more than the largest of the others: enough to be 1 where these are 0.
    finite = [jnp.where(jnp.isposinf(leaf), -jnp.inf, leaf) for leaf in leaves]
    most = jnp.max(jnp.stack([jnp.max(leaf, initial=0) for leaf in finite])) + 1
    leaves = [jnp.where(jnp.isposinf(leaf), most, leaf) for leaf in leaves]
    k = jnp.asarray(budget, wide)
    aim = k * (1 - 2 * SLACK)

    def clipped(leaf: Array, tau: Array) -> Array:
        return jnp.clip(leaf - tau, 0, 1)

    def at(tau: Array) -> tuple[Array, Array]:
        """By how much the sum is above what is aimed at, and how many are inside: one pass over the numbers."""
        sums = [(jnp.sum(clipped(leaf, tau), dtype=wide), jnp.sum(inside(leaf, tau), dtype=wide)) for leaf in leaves]
        excess, number = (sum(part, start=jnp.zeros((), wide)) for part in zip(*sums, strict=True))
        return excess - aim, number

    def inside(leaf: Array, tau: Array) -> Array:
        v = leaf - tau
        return (v > 0) & (v < 1)

    def unfinished(carry: tuple[Array, ...]) -> Array:
        _, low, high, excess, _, turns = carry
        enough = jnp.abs(excess) <= 2 * SLACK * k
        return ~enough & (high > low) & (turns < 100)

    def turn(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        tau, low, high, excess, number, turns = carry
        low, high = jnp.where(excess > 0, tau, low), jnp.where(excess > 0, high, tau)
        newton = tau + excess / jnp.where(number == 0, 1, number)
        good = (number > 0) & (newton > low) & (newton < high)
        new = jnp.where(good, newton, 0.5 * (low + high))
        stuck = (new <= low) | (new >= high)  # no number between them
        new = jnp.where(stuck, high, new)
        return new, jnp.where(stuck, high, low), high, *at(new), turns + 1

    nothing = jnp.zeros((), wide)
    top = jnp.max(jnp.stack([jnp.max(leaf, initial=0) for leaf in leaves]))
    excess, number = at(nothing)
    fits = excess <= k - aim
    start = nothing, nothing, jnp.where(fits, nothing, top), excess, number, jnp.zeros((), jnp.int32)
    tau, *_ = lax.while_loop(unfinished, turn, start)
    found = [clipped(leaf, tau).astype(own.dtype) for leaf, own in zip(leaves, given, strict=True)]
    return jax.tree.unflatten(treedef, found)
