r"""FairGRAPE: prune so that every group keeps its share of the importance.

.. math::
  I_{g,w} = (|w| \, |\partial L_g / \partial w|)^2, \qquad
  T_{g,l} = \frac{\sum_{w \in l} I_{g,w}}{\sum_{g'} \sum_{w \in l} I_{g',w}}

with :math:`L_g` the loss on the examples of group g. In every layer l, until its quota is full: the group whose share
of the importance selected so far is furthest below its target :math:`T_{g,l}` picks its best weight that is still
free, and the weight's importance counts for all groups.

How this differs from the authors' code: importances come from one clean backward pass per group and batch (there the
pass steps Adam and never clears gradients, so that groups contaminate each other and the model moves; only the last
group is divided by the number of batches); shares start at 0 (there at 1/G); sorted once, then one step per weight in a
compiled loop, where theirs is a Python loop. With one group it is top-k of ``(w g)^2``.

References:
  Lin, Kim, Joo, *FairGRAPE: fairness-aware gradient pruning method for face attribute classification*, 2022.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Bool, Float

from jaxfair import tree
from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity import _numbers
from jaxfair.sparsity._masks import apply_masks, own_masks
from jaxfair.sparsity._prunable import over_floats, positions, same_structure
from jaxfair.typing import Array, Batch, Params


def group_importance(loss: Callable[[Params, Batch], Array], params: Params, batch: Batch, num_groups: Any) -> Params:
    r"""What every weight is worth to every group: :math:`I_{g,w}` on one batch.

    Args:
      loss: ``loss(params, batch)``, a mean weighted by ``batch.weight``.
      params: the weights.
      batch: with groups; a group that is not in it gets 0.
      num_groups: G.

    Returns:
      The structure of `params` with ``[G, ...]``. Average it over batches.

    Raises:
      ValueError: for groups and weights that are not one for each example.

    Example:
      >>> import numpy as np
      >>> batch = Batch(x=jnp.array([1.0, 3.0]), y=jnp.zeros(2, int), group=jnp.array([0, 1]),
      ...               index=jnp.arange(2), weight=jnp.ones(2))
      >>> loss = lambda p, b: jnp.sum(b.weight * b.x * p["w"]) / jnp.maximum(jnp.sum(b.weight), 1)
      >>> group_importance(loss, {"w": jnp.array(2.0)}, batch, 2)["w"].tolist()
      [4.0, 36.0]
    """
    num_groups = _numbers.whole("num_groups", num_groups, low=1)
    if jnp.ndim(batch.group) != 1 or jnp.shape(batch.group) != jnp.shape(batch.weight):
        raise ValueError(
            f"batch.group has the shape {jnp.shape(batch.group)} and batch.weight {jnp.shape(batch.weight)}, but there "
            "is one of each for every example"
        )

    def of(group):
        weight = jnp.where(batch.group == group, batch.weight, 0.0)
        alone = batch._replace(weight=weight)
        of_floats, floats, whole = over_floats(lambda p: loss(p, alone), params)
        gradients = whole(jax.grad(of_floats)(floats))
        # A mean over nobody is no number; such a group has no say.
        some = jnp.sum(weight) > 0
        return jax.tree.map(lambda w, g: jnp.where(some, jnp.square(w * g), jnp.zeros_like(w)), params, gradients)

    if num_groups == 1:  # not in a loop, where XLA is slow at convolutions on a CPU
        return jax.tree.map(lambda values: values[None], of(0))
    return lax.map(of, jnp.arange(num_groups))


def kept_importance(importance: Params, masks: Any) -> Array:
    """Which share of the importance of the prunable weights survives the masks, for each group.

    Args:
      importance: ``[G, ...]`` of each leaf, of `group_importance`, of the network before pruning.
      masks: as of `prune`; leaves that are never pruned, whose mask is ``[]``, do not count.

    Returns:
      ``[G]``.

    Example:
      >>> importance = {"w": jnp.array([[3.0, 1.0], [1.0, 1.0]])}
      >>> kept_importance(importance, {"w": jnp.array([True, False])}).tolist()
      [0.75, 0.5]
    """
    pairs = [
        (w.reshape(len(w), -1), m.reshape(1, -1))
        for w, m in zip(jax.tree.leaves(importance), jax.tree.leaves(masks), strict=True)
        if jnp.ndim(m)
    ]
    kept = sum(jnp.sum(jnp.where(m, w, 0), axis=1) for w, m in pairs)
    return jnp.asarray(kept / sum(jnp.sum(w, axis=1) for w, _ in pairs))


def fairgrape(
    params: Params,
    importance: Params,
    sparsity: Any,
    *,
    prunable: Callable[[str], bool],
    masks: Any = None,
) -> tuple[Params, Any]:
    """Prunes every layer to a sparsity so that groups keep their shares of the importance.

    The authors go in rounds that keep 0.9 of the weights each and train between them: give the last round's `masks`.

    Args:
      params: the weights.
      importance: the structure of `params` with ``[G, ...]``, from `group_importance`.
      sparsity: of every prunable leaf, in ``[0, 1)``.
      prunable: which leaves.
      masks: what is pruned already, and stays so.

    Returns:
      The weights and the masks, as `one_shot`.

    Raises:
      ValueError: for a sparsity outside ``[0, 1)``, no prunable leaf, or importances that are NaN or of another shape.
      TypeError: for importances that are no floats.

    Example:
      The first group's weights are small; by the sum of importances all of them would go:

      >>> importance = {"w": jnp.array([[2.0, 1.0, 0.0, 0.0], [0.0, 0.0, 9.0, 8.0]])}
      >>> fairgrape({"w": jnp.ones(4)}, importance, 0.5, prunable=lambda path: True)[1]["w"].tolist()
      [True, False, True, False]
    """
    leaves, treedef, chosen = jax.tree.leaves(params), jax.tree.structure(params), positions(params, prunable)
    worth = same_structure("importances", importance, params)
    for i in chosen:
        _check(tree.paths(params)[i], worth[i], leaves[i].shape)
    old = jax.tree.leaves(jax.tree.map(lambda p: True, params) if masks is None else own_masks(masks, params, chosen))
    new = [jnp.asarray(mask) for mask in old]
    for i in chosen:
        size = leaves[i].size
        free = jnp.broadcast_to(old[i], leaves[i].shape).reshape(-1)
        quota = size - counts.num_zeros(sparsity, size)
        picked = pick(jnp.asarray(worth[i]).reshape(-1, size), free, quota)
        new[i] = (picked & free).reshape(leaves[i].shape)  # fewer are free where more was pruned already
    new_masks = jax.tree.unflatten(treedef, new)
    return apply_masks(params, new_masks), new_masks


def _check(path: str, importance: Array, shape: tuple[int, ...]) -> None:
    """Raises for importances that are not a number at least 0 for each group and weight."""
    if jnp.ndim(importance) == 0 or importance.shape[1:] != shape or len(importance) == 0:
        raise ValueError(
            f"the importance of {path} has the shape {jnp.shape(importance)}, but it is a number for each group and "
            f"weight: (groups, {', '.join(map(str, shape))})"
        )
    if not jnp.issubdtype(importance.dtype, jnp.floating):
        raise TypeError(f"importances of {path} must be floats, but they are {importance.dtype}; cast them to float32")
    bad = jnp.sum(~(importance >= 0))
    if not isinstance(bad, Tracer) and bad:
        raise ValueError(f"{int(bad)} importances of {path} are NaN or negative; such weights cannot be ranked")


def pick(importance: Float[Array, "G n"], free: Bool[Array, " n"], quota: int | Array) -> Bool[Array, " n"]:
    """The greedy choice in one layer.

    Args:
      importance: ``[G, n]``, at least 0.
      free: ``[n]``, which may be picked; at least `quota` of them.
      quota: how many are.

    Returns:
      ``[n]`` bool. Ties between groups go to the lower one, between weights to the lower index.

    Example:
      >>> pick(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([True, False, True]), 2).tolist()
      [True, False, True]
    """
    importance = importance.astype(jnp.promote_types(importance.dtype, jnp.float32))  # it is summed one by one
    total = jnp.sum(importance)
    target = jnp.sum(importance, axis=1) / jnp.where(total > 0, total, 1.0)
    # Behind each other: the free ones by falling importance, then the others.
    order = jnp.argsort(jnp.where(free[None], importance, -jnp.inf), axis=1, descending=True, stable=True)

    def step(_, carry):
        picked, gained, at = carry
        share = gained / jnp.maximum(jnp.sum(gained), jnp.finfo(gained.dtype).tiny)
        group = jnp.argmax(target - share)
        place = lax.while_loop(lambda p: picked[order[group, p]], lambda p: p + 1, at[group])
        best = order[group, place]
        return picked.at[best].set(True), gained + importance[:, best], at.at[group].set(place + 1)

    at = jnp.zeros(len(target), jnp.int32)
    start = jnp.zeros_like(free), jnp.zeros_like(target), at
    return lax.fori_loop(0, quota, step, start)[0]
