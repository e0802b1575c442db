r"""CHITA for large networks: a support by magnitude, and exact values block by block.

With the objective of `jaxfair.sparsity.chita` and blocks :math:`B` of consecutive weights, the Hessian taken to be
zero between blocks,

.. code-block:: text

    w       = w_bar - tau alpha, tau exact     alpha = a A' 1, the linear term; w_bar itself where a = 0
    mask    = the k largest |w| of all         which gives every block its budget
    w_B     = argmin on the mask's support of  |A_B (w_bar_B - w_B)|^2 / 2 + lambda |w_B - w_bar_B|^2 + alpha_B' w_B

Each block is a ridge regression, of a system as large as the block or the number of gradients, whichever is smaller.
Without the linear term this is magnitude pruning with its weights corrected. It needs no search, and memory for the
gradients and one block; on supports of WoodFisher's choice it is WoodFisher's joint update, with the same ridge.

How this differs from the authors' code: the displacement is solved for, as in `chita`, which is what makes float32
accurate enough.

References:
  Benbaki, Chen, Meng, Hazimeh, Ponomareva, Zhao and Mazumder, *Fast as CHITA: neural network pruning with
  combinatorial optimization*, 2023, https://arxiv.org/abs/2302.14623.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike, Bool, Float

from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity.second_order import _least_squares as least_squares
from jaxfair.sparsity.second_order.example_gradients import (
    flatten_prunable,
    unflatten_masks,
    unflatten_prunable,
)
from jaxfair.sparsity.top_k import top_k
from jaxfair.typing import Array, Params


class ChitaBlockResult(NamedTuple):
    """What `chita_block_solve` found.

    Attributes:
      weights: ``[p]``, exactly zero where the mask is False.
      mask: ``[p]`` bool, True = kept.
      objective: ``[]``, CHITA's, with the whole Hessian and not only its blocks.
    """

    weights: Array
    mask: Array
    objective: Array


def chita_block_solve(
    gradients: Float[Array, "n p"],
    weights: Float[Array, "p"],
    keep: Any,
    *,
    block: int = 500,
    ridge: ArrayLike = 1e-4,
    first_order: ArrayLike = 0.0,
    mask: Bool[Array, "p"] | None = None,
) -> ChitaBlockResult:
    """The k weights to keep, and their values.

    Args:
      gradients: ``[n, p]``, a gradient per row.
      weights: ``[p]``, dense.
      keep: k, a Python integer or traced.
      block: weights in a block.
      ridge: at least so much curvature in every direction, above 0.
      first_order: a: 1 / (examples a row) where the network is not at its minimum; 0 leaves the linear term out.
      mask: ``[p]`` bool, a support that is given; `keep` is then not used.

    Returns:
      `ChitaBlockResult`.

    Raises:
      ValueError: a ridge or a block that is not positive.

    Example:
      In blocks of two, the third weight is alone:

      >>> A = jnp.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
      >>> found = chita_block_solve(A, jnp.array([0.5, 1.0, 2.0]), 2, block=2)
      >>> found.mask.tolist(), found.weights.round(2).tolist()
      ([False, True, True], [0.0, 1.5, 2.0])
    """
    least_squares.require_positive(ridge=ridge, block=block)
    least_squares.require_rows(gradients, weights)
    gradients = least_squares.at_least_float32(gradients)
    n, p = gradients.shape
    dtype = gradients.dtype
    dense = weights.astype(dtype)
    penalty = jnp.asarray(ridge, dtype) * n / 2
    shift = jnp.asarray(first_order, dtype)
    if mask is None:
        alpha = shift * jnp.sum(gradients, axis=0)
        tau = least_squares.vertex(alpha, alpha, gradients @ alpha, penalty)[0]
        mask = top_k(jnp.abs(dense - tau * alpha), keep)

    def values(piece, dense, mask):
        rows = jnp.where(mask[:, None], piece.T, 0)
        target = piece @ jnp.where(mask, 0, dense) - shift
        return dense + least_squares.ridge_regression(rows, target, 2 * penalty)

    # Cut out one by one: the gradients are not copied. What is left over is a smaller block.
    block = min(block, p)
    whole = p // block * block

    def of_block(begin):
        piece = lax.dynamic_slice(gradients, (0, begin), (n, block))
        return values(piece, *(lax.dynamic_slice(a, (begin,), (block,)) for a in (dense, mask)))

    found = [lax.map(of_block, jnp.arange(0, whole, block)).reshape(-1)]
    if whole < p:
        found.append(values(gradients[:, whole:], dense[whole:], mask[whole:]))
    # Not a number where a system was singular: such a block keeps its weights.
    found = jnp.concatenate(found)
    w = jnp.where(mask, jnp.where(jnp.isfinite(found), found, dense), 0)
    residual = gradients @ (dense - w)
    moved = w - dense
    objective = residual @ residual / 2 - shift * jnp.sum(residual) + penalty * (moved @ moved)
    return ChitaBlockResult(weights=w, mask=mask, objective=objective)


@functools.partial(jax.jit, static_argnames=("block",))
def _compiled(gradients: Array, weights: Array, keep: Any, **settings: Any) -> ChitaBlockResult:
    return chita_block_solve(gradients, weights, keep, **settings)


def chita_block(
    params: Params,
    gradients: Float[Array, "n p"],
    sparsity: Any,
    *,
    prunable: Callable[[str], bool],
    block: int = 500,
    ridge: ArrayLike = 1e-4,
    first_order: ArrayLike = 0.0,
) -> tuple[Params, Any, ChitaBlockResult]:
    """Prunes a network at once, all prunable leaves together, and corrects the weights that stay, in blocks.

    Blocks are cut from the vector of all prunable weights, in the order of `jax.tree.leaves`.

    Args:
      params: the tree of parameters.
      gradients: ``[n, p]``, `example_gradients` with the same `prunable`.
      sparsity: the share to prune, in ``[0, 1)``: ``ceil(sparsity p)`` weights.
      prunable: which leaves may be pruned, from a path such as ``"Conv_0/kernel"``.
      block: see `chita_block_solve`, as are the others.
      ridge: above 0.
      first_order: 1 / (examples a row), or 0.

    Returns:
      The parameters, their tree of masks (True = kept; the scalar True for a leaf that is not prunable), and the
      `ChitaBlockResult` of the vector.

    Raises:
      ValueError: a sparsity outside ``[0, 1)``, no prunable leaf, gradients of another width, or a ridge or a block
        that is not above 0.

    Example:
      >>> A = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> params = {"bias": jnp.ones(1), "kernel": jnp.array([0.5, 1.0])}
      >>> params, masks, _ = chita_block(params, A, 0.5, prunable=lambda path: path == "kernel")
      >>> params["kernel"].round(2).tolist(), masks["kernel"].tolist()
      ([0.0, 1.5], [False, True])
    """
    weights = flatten_prunable(params, prunable=prunable)
    size = len(weights)
    if jnp.ndim(gradients) == 2 and gradients.shape[1] != size:
        raise ValueError(
            f"the prunable leaves have {size} weights, but gradients has {gradients.shape[1]} columns; "
            "make it by example_gradients with the same prunable"
        )
    least_squares.require_rows(gradients, weights)
    keep = size - counts.num_zeros(sparsity, size)
    least_squares.require_positive(ridge=ridge, block=block)
    settings = {"block": block, "ridge": ridge, "first_order": first_order}
    found = _compiled(gradients, weights, keep, **settings)
    pruned = unflatten_prunable(found.weights, params, prunable=prunable)
    return pruned, unflatten_masks(found.mask, params, prunable=prunable), found
