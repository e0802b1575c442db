"""Masks found together with weights, as the first part of a recipe: BiP, and under its bound BiFP."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import constraints, train
from jaxfair import sparsity as sparsity_lib
from jaxfair.recipes._bounds import Bounded
from jaxfair.recipes._frame import Frame
from jaxfair.recipes._networks import Networks
from jaxfair.recipes.sparse import sparse
from jaxfair.typing import Key, Model

#: How :func:`jaxfair.recipes.prune` may find its masks.
PRUNERS = {
    "magnitude": "the smallest weights go, gradually, the same share of every layer",
    "bip": "masks and weights found together, without the bound (BiP)",
    "bifp": "masks and weights found together, under the bound (BiFP)",
}
#: What BiP and BiFP are told where nothing else is said: the curvature, a small decay, and scores that come to rest.
GAMMA, DECAY, MASK_RATE = 10.0, 1e-4, 1.0


def check_pruner(method: str, bounded: Bounded, here: Frame, epochs: int) -> None:
    """Raises ValueError, in one line, for a method that is not there or does not go with the rest."""
    if method not in PRUNERS:
        raise ValueError(f"method={method!r}: choose one of {', '.join(PRUNERS)}.")
    if method == "magnitude":
        return
    if method == "bifp" and bounded.problem.num_constraints == 0:
        raise ValueError("method='bifp' without a bound: give bound=, or method='bip'.")
    if bounded.begin is not None:
        raise ValueError(f"method={method!r} goes with bounds on what groups lose, such as recipes.ceag(0.01).")
    if here.plan.streamed:
        raise ValueError(f"method={method!r} needs the training split in memory: raise max_data_bytes.")
    if epochs < 1:
        raise ValueError(f"prune_epochs=0: method={method!r} finds its masks in them; give at least 1.")


def told_facts(levels: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the two levels are told, as a folder knows it: numbers and words as they are, of other things the kind.

    Example:
      >>> told_facts({"gamma": 10.0, "fair": ("masks",), "masks": optax.sgd(1.0)})
      {'gamma': 10.0, 'fair': ['masks'], 'masks': 'GradientTransformationExtraArgs'}
    """

    def fact(value: Any) -> Any:
        if isinstance(value, bool | int | float | str | None):
            return value
        if not hasattr(value, "_fields") and isinstance(value, list | tuple | set | frozenset):
            return sorted(map(str, value))
        return type(value).__name__

    return {name: fact(value) for name, value in (levels or {}).items()}


def found(
    method: str, model: Model, here: Frame, bounded: Bounded, dense: Networks, *, sparsity: Any, epochs: int,
    optimizer: optax.GradientTransformation, keys: Key, folder: pathlib.Path | None, levels: Mapping[str, Any],
) -> Networks:  # fmt: skip
    """The networks after these epochs, each from its file beside the folder of checkpoints where it is there."""
    said = here.predict(dense.params, dense.model_state, here.train)
    correct = (said.label == jnp.asarray(here.train.y)[None]).astype(jnp.float32)
    outcomes = constraints.Outcomes(correct, said.loss)
    rate = optax.cosine_decay_schedule(MASK_RATE, epochs * here.steps)
    told = {"gamma": GAMMA, "weight_decay": DECAY, "masks": optax.sgd(rate), **levels}
    constrained = {"problem": bounded.problem, "dual": bounded.dual} if method == "bifp" else {}

    def make(lanes: list[int]) -> Any:
        which = jnp.asarray(np.array(lanes))
        start, reference, own = jax.tree.map(
            lambda a: jnp.asarray(a)[which], ((dense.params, dense.model_state), outcomes, keys)
        )
        more = constrained | ({"reference": reference} if constrained else {})
        made = sparse(
            method, model, here.train, sparsity, optimizer=optimizer, keys=own, start=start, epochs=epochs,
            batch_size=here.batch_size, plan=here.plan, levels=told, **more,
        )  # fmt: skip
        return made.params, made.model_state, made.masks, made.failed_at

    if folder is None:
        params, state, masks, failed = make(list(range(len(dense))))
    else:
        files = [pathlib.Path(folder).parent / f"masks_{seed}.npz" for seed in dense.seeds]
        lane = jax.tree.map(lambda a: a[0], (dense.params, dense.model_state))
        axes = sparsity_lib.Selection.of(sparsity_lib.constant(0), prunable=model.prunable)
        like = (*lane, axes.all_kept(lane[0]), jnp.int32(0))
        params, state, masks, failed = train.from_files(files, like, make)
    failed = np.where(dense.failed_at >= 0, dense.failed_at, np.asarray(failed))
    return Networks(params=params, model_state=state, masks=masks, model=model, seeds=dense.seeds, failed_at=failed)
