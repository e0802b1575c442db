"""FairGRAPE's rounds: when they are, what every weight is worth to each group, and which weights stay."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair import sparsity as sparsity_lib
from jaxfair import train
from jaxfair.typing import Batch, Model, ModelState, Params


def stages(method: str, sparsity: Any, steps: int, keep: float) -> Iterator[tuple[int, Any]]:
    """Until which step a method trains, and the share of the weights that FairGRAPE prunes then."""
    if method == "fairgrape":
        rounds = max(1, math.ceil(math.log(1 - sparsity) / math.log(keep)))
        rounds = min(rounds, steps // 2)
        begin, end = steps // 10, 3 * steps // 4
        for r in range(1, rounds):
            stop = begin + (end - begin) * (r - 1) // (rounds - 1)
            yield stop, round(1 - (1 - sparsity) ** (r / rounds), 7)
        yield end, sparsity
    yield steps, None


@functools.cache
def _worth(model: Model, plan: train.Plan, split_axes: Batch) -> Callable[..., Any]:
    """What every weight is worth to one group on one batch: group by group, as convolutions are slow in loops."""

    def worth(params: Params, state: ModelState, index: Any, group: Any, *split: Any) -> Params:
        def loss(params: Params, batch: Batch) -> jax.Array:
            logits, _ = model.apply(params, state, batch.x, train=False)
            return train.mean_cross_entropy(logits, batch)

        batch = train.take(Batch(*split), index)
        mine = batch._replace(group=jnp.where(batch.group == group, 0, 1))
        return sparsity_lib.group_importance(loss, params, mine, 1)

    return plan.lift(worth, (0, 0, 0, None, *split_axes))


def prune_round(
    model: Model, plan: train.Plan, state: Any, split: Batch, split_axes: Batch, order: Any,
    num_groups: int, sparsity: Any,
) -> Any:  # fmt: skip
    """One round of FairGRAPE: importances on the batches of ``order [S, n, B]``, then the choice by groups."""
    worth, found = _worth(model, plan, split_axes), []
    for index in jnp.moveaxis(order, 1, 0):
        given = state.params, state.model_state, index
        rows = [worth(*given, group, *split) for group in range(num_groups)]
        found.append(jax.tree.map(lambda *a: jnp.concatenate(a, axis=1), *rows))

    def choose(state: Any, importance: Params) -> Any:
        masks, prunable = sparsity_lib.get_masks(state.opt_state), model.prunable
        params, masks = sparsity_lib.fairgrape(state.params, importance, sparsity, prunable=prunable, masks=masks)
        return state._replace(params=params, opt_state=state.opt_state._replace(masks=masks))

    return plan.lift(choose)(state, jax.tree.map(lambda *a: sum(a) / len(a), *found))
