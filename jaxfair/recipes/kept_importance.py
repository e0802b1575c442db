"""What masks leave of each group's importance: whose network was pruned."""

import functools
from typing import Any

import jax

from jaxfair import sparsity, train
from jaxfair.typing import Batch, Model, ModelState, Params


def kept_importance(
    model: Model, batch: Batch, dense: tuple[Params, ModelState], masks: Any, *, num_groups: int, plan: train.Plan
) -> jax.Array:
    """The share of each group's importance of the dense network's weights that masks keep, network by network.

    Args:
      model: the network.
      batch: people of the training split.
      dense: parameters and model state before pruning, ``[S, ...]``.
      masks: ``[S, ...]``, of the networks after it.
      num_groups: G.
      plan: of :func:`jaxfair.train.plan`.

    Returns:
      ``[S, G]``, see `jaxfair.sparsity.kept_importance`; nan for a group that has nobody in the batch.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxfair import data, models
      >>> digits, model = data.load("digits"), models.mlp(10, hidden=(16,))
      >>> some = jax.tree.map(lambda a: jnp.asarray(a[:200]), digits.train)
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> start = jax.vmap(lambda key: model.init(key, some.x[:1]))(keys)
      >>> half = jax.vmap(lambda p: sparsity.one_shot(p, 0.5, prunable=model.prunable)[1])(start[0])
      >>> found = kept_importance(model, some, start, half, num_groups=10, plan=train.Plan())
      >>> found.shape, bool((found > 0.5).all())
      ((2, 10), True)
    """
    return _lifted(model, plan, num_groups)(*dense, masks, batch)


@functools.cache  # compiled once for all masks of a model
def _lifted(model: Model, plan: train.Plan, num_groups: int) -> Any:
    def kept(params: Params, state: ModelState, masks: Any, batch: Batch) -> jax.Array:
        def loss(params: Params, batch: Batch) -> jax.Array:
            return train.mean_cross_entropy(model.apply(params, state, batch.x, train=False)[0], batch)

        return sparsity.kept_importance(sparsity.group_importance(loss, params, batch, num_groups), masks)

    return plan.lift(kept, (0, 0, 0, None))
