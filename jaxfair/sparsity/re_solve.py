r"""The best values of the weights that stay: a layer's outputs as they were, as far as its kept weights can.

With W the weights of a dense layer, X its inputs and a mask, the V on the mask that minimises

.. math:: \| X (W - V) \|^2 + \text{ridge} \cdot \overline{\operatorname{diag}(X^\top X)}\, \| W - V \|^2,

a ridge regression per output, each with a support of its own, all of them in one run of conjugate gradients that are
scaled by the diagonal. It needs no labels, costs products with :math:`X^\top X` only, and works behind any pruner.

References:
  Hestenes and Stiefel, *Methods of conjugate gradients*, 1952; Frantar and Alistarh, *Optimal Brain Compression*, 2022,
  for the problem.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from jaxfair import tree
from jaxfair.sparsity import _quadratic as quadratic
from jaxfair.sparsity._masks import apply_masks
from jaxfair.sparsity._prunable import positions, same_structure
from jaxfair.sparsity.second_order._least_squares import require_positive
from jaxfair.typing import Array, Params


def re_solve(
    params: Params,
    grams: Mapping[str, Array],
    masks: Any,
    *,
    prunable: Callable[[str], bool],
    ridge: ArrayLike = 1e-4,
    steps: int = 100,
) -> Params:
    """Corrects the kept weights of the dense layers of a network for what its masks take away.

    Args:
      params: the weights before pruning.
      grams: by path ``[n, n]``, or ``[G, n, n]``, which are added up: `input_grams` with the same `prunable`.
      masks: the tree of masks, True = kept.
      prunable: which leaves are corrected: kernels ``[n, out]`` of dense layers. Other leaves are only masked.
      ridge: what a changed weight costs by itself, in units of the mean of the diagonal, above 0.
      steps: of the conjugate gradients, at most.

    Returns:
      The parameters, exactly 0 where pruned. No layer's outputs change more than those of the masked weights do.

    Raises:
      ValueError: for masks of another network, a layer without a Gram matrix or with one of another width, numbers that
        are not finite, and a ridge or a number of steps that is not above 0.

    Example:
      Two inputs that agree. What the second did the first takes over:

      >>> from jaxfair import sparsity
      >>> x = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> params, masks = {"w": jnp.array([[1.0], [0.5]])}, {"w": jnp.array([[True], [False]])}
      >>> grams = sparsity.input_grams(lambda p: x @ p["w"], params, prunable=lambda path: True)
      >>> re_solve(params, grams, masks, prunable=lambda path: True)["w"][:, 0].round(2)
      Array([1.5, 0. ], dtype=float32)
    """
    require_positive(ridge=ridge, steps=steps)
    same_structure("masks", masks, params)
    paths, leaves = tree.paths(params), jax.tree.leaves(params)
    kept = jax.tree.leaves(apply_masks(params, masks))
    flags = jax.tree.leaves(masks)
    for i in positions(params, prunable):
        gram = quadratic.gram_of(grams, paths[i])
        quadratic.check_layer(leaves[i], gram)
        mask = jnp.broadcast_to(jnp.asarray(flags[i]) != 0, leaves[i].shape)
        kept[i] = _compiled(leaves[i], gram, mask, jnp.asarray(ridge, jnp.float32), steps=steps)
    return jax.tree.unflatten(jax.tree.structure(params), kept)


@partial(jax.jit, static_argnames=("steps",))
def _compiled(weights: Array, gram: Array, mask: Array, ridge: Array, *, steps: int) -> Array:
    dense, moments, _ = quadratic.moments_of(weights, gram, ridge)
    begun = quadratic.place_of(moments, dense, jnp.where(mask, dense, 0), mask)
    return quadratic.solved(moments, dense, begun, steps).weights.astype(weights.dtype)
