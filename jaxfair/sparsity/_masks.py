"""Masks: True = kept.

A tree of masks has the structure of the parameters. A leaf that may be pruned has a bool array of
its own shape; one that never is has the scalar True, which broadcasts. There is no None.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from jaxfair import tree
from jaxfair.sparsity._prunable import same_structure
from jaxfair.typing import Params

#: Where the states of other optimizers keep iterates, which are weights and must be pruned with them.
_ITERATES = {"ScheduleFreeState": "z", "AverageIteratesState": "iterate_average"}


def apply_masks(params: Params, masks: Any) -> Params:
    """Sets the pruned weights to zero.

    Needed once, after ``init``, where a schedule starts above 0; and for every average of iterates that is kept beside
    a pruner (a moving average, `optax.incremental_update`): its members from before the last masks are dense, and so
    is their mean. From then on the updates of a pruner keep the zeros.

    Args:
      params: a tree of arrays.
      masks: the tree of bool arrays, True = kept, of the leaf's shape or one that broadcasts to it.

    Returns:
      The parameters with exact zeros where the mask is False, also in place of NaN or infinity.

    Raises:
      ValueError: for masks of another network.

    Example:
      >>> apply_masks({"kernel": jnp.ones(3)}, {"kernel": jnp.array([True, False, True])})["kernel"].tolist()
      [1.0, 0.0, 1.0]
    """
    _check(masks, params)
    return jax.tree.map(lambda p, m: jnp.where(m, p, jnp.zeros_like(p)), params, masks)


def _check(masks: Any, params: Params) -> None:
    """Raises ValueError for masks that do not fit: they would make other weights of them, or larger ones."""
    shapes = zip(same_structure("masks", masks, params), jax.tree.leaves(params), strict=True)
    for number, (m, p) in enumerate(shapes):
        mask, weights = jnp.shape(m), jnp.shape(p)
        if not fits(mask, weights):
            raise ValueError(
                f"the mask of {tree.paths(params)[number]} has the shape {mask}, but its weights have {weights}"
            )


def fits(mask: tuple[int, ...], weights: tuple[int, ...]) -> bool:
    """Whether a mask of this shape broadcasts to weights of that one, and leaves them as large as they are.

    Example:
      >>> fits((), (2, 3)), fits((3,), (2, 3)), fits((2, 3), (3,)), fits((2,), (2, 3))
      (True, True, False, False)
    """
    ends = zip(mask[::-1], weights[::-1], strict=False)
    return len(mask) <= len(weights) and all(a in (1, b) for a, b in ends)


def own_masks(masks: Any, params: Params, chosen: Sequence[int]) -> Any:
    """Given masks as a pruner's own.

    They are bool, in no memory that anyone else has, of the leaf's shape where any weight may be pruned, and ``[]``
    True elsewhere.

    Args:
      masks: what was given.
      params: the parameters.
      chosen: positions of the prunable leaves.

    Example:
      >>> own_masks({"b": True, "w": False}, {"b": jnp.ones(3), "w": jnp.ones(2)}, [1])
      {'b': Array(True, dtype=bool), 'w': Array([False, False], dtype=bool)}
    """
    _check(masks, params)
    leaves, treedef = jax.tree.flatten(masks)
    found = []
    for i, (m, p) in enumerate(zip(leaves, jax.tree.leaves(params), strict=True)):
        mask = jnp.asarray(m).astype(bool)
        never = i not in chosen and mask.ndim == 0 and (isinstance(mask, Tracer) or bool(mask))
        found.append(jnp.array(mask if never else jnp.broadcast_to(mask, jnp.shape(p)), copy=True))
    return jax.tree.unflatten(treedef, found)


def mask_iterates(inner_state: Any, masks: Any) -> Any:
    """The state of an optimizer, with the iterates that it keeps pruned like the weights.

    `optax.contrib.schedule_free` and `jaxfair.optim.average_iterates` evaluate at an average of iterates, of which the
    first are dense. Where they stand inside of a pruner, what they average is zero where the masks are False.

    Args:
      inner_state: of any optimizer.
      masks: True = kept.

    Returns:
      The state; the same one where nothing in it is an iterate.

    Example:
      >>> state = optax.contrib.schedule_free_sgd(0.1).init({"w": jnp.ones(2)})
      >>> mask_iterates(state, {"w": jnp.array([True, False])}).z["w"].tolist()
      [1.0, 0.0]
    """

    def keeps(node):
        return type(node).__name__ in _ITERATES

    def is_gap(node):  # where `optax.partition` and `optax.masked` leave a parameter out
        return isinstance(node, optax.MaskedNode)

    def prune(node):
        if not keeps(node):
            return node
        within = {name: mask_iterates(value, masks) for name, value in node._asdict().items()}
        name = _ITERATES[type(node).__name__]
        iterates, treedef = jax.tree.flatten(within[name], is_leaf=is_gap)
        both = zip(iterates, jax.tree.leaves(masks), strict=True)
        pruned = [p if is_gap(p) else jnp.where(m, p, jnp.zeros_like(p)) for p, m in both]
        return node._replace(**within | {name: jax.tree.unflatten(treedef, pruned)})

    return jax.tree.map(prune, inner_state, is_leaf=keeps)


def get_masks(opt_state: Any) -> Any:
    """The masks in the state of an optimizer, however deep they lie.

    Args:
      opt_state: the state of a pruner, or of a wrapper around one such as `optax.MultiSteps`.

    Returns:
      The tree of bool arrays, True = kept.

    Raises:
      ValueError: where there is no pruner, or more than one, or an average around it that is not sparse.

    Example:
      >>> import optax
      >>> from jaxfair import sparsity
      >>> schedule = sparsity.constant(0.5, begin=10)
      >>> tx = sparsity.prune(optax.adam(1e-3), schedule, prunable=lambda path: path == "kernel")
      >>> get_masks(tx.init({"bias": jnp.zeros(2), "kernel": jnp.ones(2)}))
      {'bias': Array(True, dtype=bool), 'kernel': Array([ True,  True], dtype=bool)}
    """

    def averages(node):
        return type(node).__name__ == "ScheduleFreeState"

    around = [node for node in jax.tree.leaves(opt_state, is_leaf=averages) if averages(node)]
    if tree.named("masks", [node.base_optimizer_state for node in around]):
        raise ValueError(
            "schedule_free stands around this pruner, and the weights that it gives are not sparse; turn them: "
            "sparsity.prune(optax.contrib.schedule_free(...), ...)"
        )
    found = tree.named("masks", opt_state)
    if len(found) != 1:
        raise ValueError(
            f"get_masks needs the state of one pruner, but it found {len(found)} in this {type(opt_state).__name__}; "
            "pass what tx.init or tx.update of sparsity.prune returned"
        )
    return found[0]
