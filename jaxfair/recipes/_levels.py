"""Methods of `recipes.sparse` whose masks come from two levels, or from outside."""

from collections.abc import Mapping
from typing import Any

import optax

from jaxfair import bilevel
from jaxfair import sparsity as sparsity_lib
from jaxfair.typing import Model

#: Beside those of `SPARSE`.
LEVELS = {
    "given": "given masks, trained on",
    "bip": "masks and weights found together, without constraints (BiP)",
    "bifp": "masks and weights found together, under constraints at both levels (BiFP)",
}


TWO_LEVELS = ("bip", "bifp")


def two_levels(
    method: str, model: Model, sparsity: Any, optimizer: Any, problem: Any, dual: Any, levels: Mapping[str, Any]
) -> Any:
    """BiP or BiFP; the scores descend at a rate of 1 where nothing else is said."""
    schedule = sparsity_lib.constant(sparsity)
    own = {} if "joint" in levels else {"weights": optimizer, "masks": optax.sgd(1.0)}
    given = {"prunable": model.prunable, **own, **levels}
    if method == "bip":
        return bilevel.bip(model.apply, schedule, **given)
    return bilevel.bifp(problem, schedule, dual=dual, **given)


def weights_part(batch_size: int, people: int, levels: Mapping[str, Any]) -> int:
    """How many of a batch are the weights', where the rest are held out for the masks.

    Raises:
      ValueError: for fewer people than a batch.
    """
    if people < batch_size:
        raise ValueError(
            f"held_out= leaves {max(people, 0)} people to the weights: leave at least {batch_size}, a batch."
        )
    lower, upper = (levels.get(name, 1) for name in ("weight_steps", "mask_steps"))
    return batch_size * lower // (lower + upper)


def with_masks(state: Any, masks: Any) -> Any:
    """The state of a solver whose pruner has these masks."""
    field = "primal_state" if hasattr(state, "primal_state") else "opt_state"
    pruner = getattr(state, field)
    return state._replace(**{field: pruner._replace(masks=masks)})
