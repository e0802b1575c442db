"""Masks: True = kept.

A tree of masks has the structure of the parameters. A leaf that may be pruned has a bool array of
its own shape; one that never is has the scalar True, which broadcasts. There is no None.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.typing import Params


def apply_masks(params: Params, masks: Any) -> Params:
    """Sets the pruned weights to zero.

    Needed once, after ``init``, where a schedule starts above 0. From then on the updates of a
    pruner keep the zeros.

    Args:
      params: a tree of arrays.
      masks: the tree of bool arrays, True = kept.

    Returns:
      The parameters with exact zeros where the mask is False, also in place of NaN or infinity.

    Example:
      >>> apply_masks({"kernel": jnp.ones(3)}, {"kernel": jnp.array([True, False, True])})["kernel"].tolist()
      [1.0, 0.0, 1.0]
    """
    return jax.tree.map(lambda p, m: jnp.where(m, p, jnp.zeros_like(p)), params, masks)


def get_masks(opt_state: Any) -> Any:
    """The masks in the state of an optimizer, however deep they lie.

    Args:
      opt_state: the state of a pruner, or of a wrapper around one such as `optax.MultiSteps`.

    Returns:
      The tree of bool arrays, True = kept.

    Raises:
      ValueError: where there is no pruner, or more than one.

    Example:
      >>> import optax
      >>> from jaxfair import sparsity
      >>> schedule = sparsity.constant(0.5, begin=10)
      >>> tx = sparsity.prune(optax.adam(1e-3), schedule, prunable=lambda path: path == "kernel")
      >>> get_masks(tx.init({"bias": jnp.zeros(2), "kernel": jnp.ones(2)}))
      {'bias': Array(True, dtype=bool), 'kernel': Array([ True,  True], dtype=bool)}
    """

    def has_masks(node):
        return "masks" in getattr(node, "_fields", ())

    found = [node for node in jax.tree.leaves(opt_state, is_leaf=has_masks) if has_masks(node)]
    if len(found) != 1:
        raise ValueError(
            f"get_masks needs the state of one pruner, but it found {len(found)} in this {type(opt_state).__name__}; "
            "pass what tx.init or tx.update of sparsity.prune returned"
        )
    return found[0].masks
