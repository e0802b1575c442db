r"""WoodFisher: the optimal brain surgeon with a block-diagonal empirical Fisher matrix.

With the gradients :math:`g_1 \dots g_n` of examples and blocks of consecutive weights,

.. math:: F = \text{ridge} \, I + \tfrac1n \sum_i g_i g_i^\top, \qquad
   \rho_q = \frac{w_q^2}{2 [F^{-1}]_{qq}}, \qquad \delta = - F^{-1}_{:,Q} (F^{-1}_{QQ})^{-1} w_Q

rho is how much the loss rises when weight q is removed alone and the others of its block move to make up for it. The
weights of the smallest rho are removed, over all blocks together, and delta moves the others of each block to where
the removal of all of Q hurts least. The inverse is built gradient by gradient (Sherman and Morrison):

.. code-block:: text

    F_0^-1 = I / ridge,   F_(i+1)^-1 = F_i^-1 - (F_i^-1 g)(F_i^-1 g)' / (n + g' F_i^-1 g)

How this differs from the authors' code: `chunk` gradients at a time (Woodbury), which is the same matrix by fewer and
larger products; all blocks in one program; and delta for all of Q jointly. Theirs is a sum of the moves for one
weight each, after which what is removed is set to zero; that is ``update="separate"``.

Memory: ``p block`` numbers.

References:
  Singh and Alistarh, *WoodFisher: efficient second-order approximation for neural network compression*, 2020,
  https://arxiv.org/abs/2004.14340.

  Hassibi and Stork, *Second order derivatives for network pruning: optimal brain surgeon*, 1992.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike, Float

from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity.second_order._least_squares import at_least_float32, require_positive, require_rows
from jaxfair.sparsity.second_order.example_gradients import (
    flatten_prunable,
    unflatten_masks,
    unflatten_prunable,
)
from jaxfair.sparsity.top_k import top_k
from jaxfair.typing import Array, Params

UPDATES = ("joint", "separate", "none")


class WoodFisherResult(NamedTuple):
    """What `woodfisher_solve` found.

    Attributes:
      weights: ``[p]``, exactly zero where the mask is False.
      mask: ``[p]`` bool, True = kept.
      statistic: ``[p]``, rho.
    """

    weights: Array
    mask: Array
    statistic: Array


def woodfisher_inverse(
    gradients: Float[Array, "n p"], *, block: int, ridge: ArrayLike = 1e-4, chunk: int = 32
) -> Float[Array, "blocks block block"]:
    """The inverse of every block of the damped empirical Fisher matrix.

    Args:
      gradients: ``[n, p]``.
      block: weights in a block. Where p is no multiple of it, weights without gradient fill the last one up.
      ridge: above 0. In float32 keep it above 1e-6 of the largest eigenvalue of F.
      chunk: gradients in one update of the inverse; 1 is the recursion above.

    Returns:
      ``[ceil(p / block), block, block]``.

    Raises:
      ValueError: a block, chunk or ridge that is not positive.

    Example:
      >>> inverse = woodfisher_inverse(jnp.array([[1.0, 1.0]]), block=2, ridge=1.0)
      >>> (3 * inverse[0]).round(2).tolist()
      [[2.0, -1.0], [-1.0, 2.0]]
    """
    require_positive(block=block, ridge=ridge, chunk=chunk)
    gradients = at_least_float32(gradients)
    n = len(gradients)
    pieces = _blocks(gradients, block)
    pieces = jnp.moveaxis(pieces, 1, 0)  # [blocks, n, block]
    # Gradients of zero fill up the last chunk: they change nothing.
    chunk = min(chunk, n)
    pieces = jnp.pad(pieces, ((0, 0), (0, -n % chunk), (0, 0)))
    start = jnp.eye(block, dtype=gradients.dtype) / jnp.asarray(ridge, gradients.dtype)

    def of_block(piece):
        def update(inverse, some):
            seen = some @ inverse
            gram = some @ seen.T + n * jnp.eye(chunk, dtype=some.dtype)
            return inverse - seen.T @ jax.scipy.linalg.solve(gram, seen, assume_a="pos"), None

        return lax.scan(update, start, piece.reshape(-1, chunk, block))[0]

    # One block after the other: its inverse stays in the cache.
    return lax.map(of_block, pieces)


def woodfisher_solve(
    gradients: Float[Array, "n p"],
    weights: Float[Array, "p"],
    keep: Any,
    *,
    block: int = 500,
    ridge: ArrayLike = 1e-4,
    update: str = "joint",
    chunk: int = 32,
) -> WoodFisherResult:
    """The k weights to keep, and their values.

    Args:
      gradients: ``[n, p]``, a gradient per row.
      weights: ``[p]``, dense.
      keep: k, a Python integer or traced.
      block: weights in a block; p or more for the full matrix, 1 for its diagonal.
      ridge: above 0; see `woodfisher_inverse`.
      update: ``"joint"``, ``"separate"`` or ``"none"``, which only removes.
      chunk: see `woodfisher_inverse`.

    Returns:
      `WoodFisherResult`.

    Raises:
      ValueError: an unknown update, or a block, chunk or ridge that is not positive.

    Example:
      >>> A = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> found = woodfisher_solve(A, jnp.array([0.5, 1.0]), 1)
      >>> found.mask.tolist(), found.weights.round(2).tolist()
      ([False, True], [0.0, 1.5])
    """
    if update not in UPDATES:
        raise ValueError(f"update must be one of {', '.join(UPDATES)}, but it is {update!r}")
    require_positive(block=block)
    require_rows(gradients, weights)
    gradients = at_least_float32(gradients)
    p = len(weights)
    block = min(block, p)
    inverse = woodfisher_inverse(gradients, block=block, ridge=ridge, chunk=chunk)
    weights = weights.astype(gradients.dtype)
    w = _blocks(weights, block)
    diagonal = jnp.diagonal(inverse, axis1=1, axis2=2)
    statistic = (w**2 / (2 * diagonal)).reshape(-1)[:p]
    mask = top_k(statistic, keep)
    removed = ~_blocks(mask, block, fill=True)
    gone = jnp.where(removed, w, 0)

    def joint(inverse, gone, removed):
        both = removed[:, None] & removed[None, :]
        # A one on the diagonal of what stays: one system of a fixed size for any number of removed weights.
        system = jnp.where(both, inverse, 0) + jnp.diag((~removed).astype(inverse.dtype))
        return -inverse @ jax.scipy.linalg.solve(system, gone, assume_a="pos")

    if update == "joint":
        moved = lax.map(lambda args: joint(*args), (inverse, gone, removed))
    elif update == "separate":
        moved = -jnp.einsum("bij,bj->bi", inverse, gone / diagonal)
    else:
        moved = jnp.zeros_like(w)
    new = jnp.where(mask, (w + moved).reshape(-1)[:p], 0)
    return WoodFisherResult(weights=new, mask=mask, statistic=statistic)


@functools.partial(jax.jit, static_argnames=("block", "update", "chunk"))
def _compiled(gradients: Array, weights: Array, keep: Any, **settings: Any) -> WoodFisherResult:
    return woodfisher_solve(gradients, weights, keep, **settings)


def woodfisher(
    params: Params,
    gradients: Float[Array, "n p"],
    sparsity: Any,
    *,
    prunable: Callable[[str], bool],
    block: int = 500,
    ridge: ArrayLike = 1e-4,
    update: str = "joint",
    chunk: int = 32,
) -> tuple[Params, Any, WoodFisherResult]:
    """Prunes a network at once, all prunable leaves together, and moves the weights that stay.

    Blocks are cut from the vector of all prunable weights, in the order of `jax.tree.leaves`.

    Args:
      params: the tree of parameters.
      gradients: ``[n, p]``, `example_gradients` with the same `prunable`.
      sparsity: the share to prune, in ``[0, 1)``: ``ceil(sparsity p)`` weights.
      prunable: which leaves may be pruned, from a path such as ``"Conv_0/kernel"``.
      block: see `woodfisher_solve`, as are the others.
      ridge: above 0.
      update: of the weights that stay.
      chunk: gradients at once.

    Returns:
      The parameters, their tree of masks (True = kept; the scalar True for a leaf that is not prunable), and the
      `WoodFisherResult` of the vector.

    Raises:
      ValueError: a sparsity outside ``[0, 1)``, no prunable leaf, gradients of another width, or as
        `woodfisher_solve`.

    Example:
      >>> A = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> params = {"bias": jnp.ones(1), "kernel": jnp.array([0.5, 1.0])}
      >>> params, masks, _ = woodfisher(params, A, 0.5, prunable=lambda path: path == "kernel")
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
    require_positive(block=block, ridge=ridge, chunk=chunk)
    require_rows(gradients, weights)
    keep = size - counts.num_zeros(sparsity, size)
    found = _compiled(gradients, weights, keep, block=block, ridge=ridge, update=update, chunk=chunk)
    pruned = unflatten_prunable(found.weights, params, prunable=prunable)
    return pruned, unflatten_masks(found.mask, params, prunable=prunable), found


def _blocks(array: Array, block: int, fill: Any = 0) -> Array:
    """The last axis in blocks, the last one filled up."""
    missing = -array.shape[-1] % block
    width = [(0, 0)] * (array.ndim - 1) + [(0, missing)]
    return jnp.pad(array, width, constant_values=fill).reshape(*array.shape[:-1], -1, block)
