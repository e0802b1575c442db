r"""Filters by their geometric median: what is near all others can be made from them, and goes first (FPGM).

The score of filter i of a layer is the sum of its distances to the others,

.. math:: s_i = \sum_j |F_i - F_j|_2

which is smallest next to their geometric median: not the small filters go, but those that others replace.

How this differs from the authors' code: distances to all filters of a layer, at once, from the products of all pairs;
no filter is soft-pruned and brought back.

References:
  He et al., `Filter pruning via geometric median for deep convolutional neural networks acceleration
  <https://arxiv.org/abs/1811.00250>`_, 2019.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxfair import tree
from jaxfair.typing import Array, Params


def fpgm(params: Params, *, prunable: Callable[[str], bool]) -> Params:
    """Scores of filters (output channels, the last axis): sums of distances to the layer's other filters.

    Args:
      params: a tree of arrays; a kernel is ``[..., in, out]``.
      prunable: which leaves.

    Returns:
      The tree of scores, float32 or wider, the same for all weights of a filter, and 0 for leaves that are not
      prunable; for ``one_shot(params, s, scores=..., structure=sparsity.channel(-1))``.

    Example:
      The second filter is the first again, and the third, the smallest, is like none of them:

      >>> params = {"kernel": jnp.array([[3.0, 3.0, 0.0], [0.0, 0.0, 1.0]])}
      >>> scores = fpgm(params, prunable=lambda path: True)["kernel"]
      >>> [round(float(score), 2) for score in scores[0]]
      [3.16, 3.16, 6.32]
    """

    def score(path: str, given: Any) -> Array:
        leaf = jnp.asarray(given)
        if not prunable(path) or jnp.ndim(leaf) < 2:
            return jnp.zeros_like(leaf)
        filters = leaf.reshape(-1, leaf.shape[-1]).astype(jnp.promote_types(leaf.dtype, jnp.float32))
        square = jnp.sum(filters**2, axis=0)
        products = filters.T @ filters
        apart = jnp.sqrt(jnp.maximum(square[:, None] + square[None, :] - 2 * products, 0))
        # Of a filter to itself it is 0, whatever rounding makes of it.
        apart = jnp.where(jnp.eye(len(square), dtype=bool), 0, apart)
        return jnp.broadcast_to(jnp.sum(apart, axis=1), leaf.shape)

    return tree.map_with_path(score, params)
