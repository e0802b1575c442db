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
from jaxfair.recipes import _identity
from jaxfair.recipes._bounds import Bounded, Facts
from jaxfair.recipes._delivery import How
from jaxfair.recipes._frame import Frame
from jaxfair.recipes._levels import two_levels
from jaxfair.recipes._networks import Networks
from jaxfair.recipes.sparse import sparse
from jaxfair.typing import Batch, Key, Model

#: How :func:`jaxfair.recipes.prune` may find its masks.
PRUNERS = {
    "magnitude": "the smallest weights go, gradually, the same share of every layer",
    "bip": "masks and weights found together, without the bound (BiP)",
    "bifp": "masks and weights found together, under the bound (BiFP)",
}
#: What BiP and BiFP are told where nothing else is said: the curvature, a small decay, and scores that come to rest.
GAMMA, DECAY, MASK_RATE = 10.0, 1e-4, 1.0


def check_pruner(
    method: str, bounded: Bounded, here: Frame, epochs: int, dense: Networks, levels: Mapping[str, Any], *,
    distill: Any, order: str,
) -> None:  # fmt: skip
    """Raises ValueError, in one line, for a method that is not there or does not go with the rest."""
    parts = sum(levels.get(name, 1) for name in ("weight_steps", "mask_steps"))
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
    if dense.masks is not None and not all(np.all(mask) for mask in jax.tree.leaves(dense.masks)):
        raise ValueError(f"method={method!r} begins with networks that are not pruned; go on with method='magnitude'.")
    if np.any(np.asarray(distill) != 0) or order != "dual_primal":
        raise ValueError(f"method={method!r} goes with neither distill= nor order=: leave them out.")
    if here.batch_size % parts:
        raise ValueError(f"batch_size={here.batch_size}: method={method!r} cuts it into {parts}; give a multiple.")
    if epochs < 1:
        raise ValueError(f"prune_epochs=0: method={method!r} finds its masks in them; give at least 1.")


def after(looked: int, how: How, facts: Facts) -> tuple[How, Facts]:
    """The job that is left once so many epochs have found the masks: nothing more is pruned."""
    if not looked:
        return how, facts
    left = how.epochs - looked
    return how._replace(epochs=left, prune_epochs=0), facts._replace(epochs=left, pruned=0)


def told_facts(
    method: str, model: Model, network: Any, x: Any, sparsity: Any, levels: Mapping[str, Any]
) -> dict[str, Any]:
    """What the two levels are told, as a folder knows it: a hash of the step that they make, without the bound.

    Args:
      method: of `PRUNERS`.
      model: the network.
      network: ``(params, model_state)`` of one, may be abstract.
      x: features of which one example is like ``x[0]``.
      sparsity: of the masks.
      levels: what they are told.
    """
    told = _told(1, **levels)
    fair = told.pop("fair", ("weights", "masks"))
    solver = two_levels("bip", model, sparsity, optax.sgd(1.0), None, None, told)
    number = told.get("weight_steps", 1) + told.get("mask_steps", 1)
    whole: Any = jax.ShapeDtypeStruct((number,), jnp.int32)
    some: Any = jax.ShapeDtypeStruct((number,), jnp.float32)
    batch = Batch(jax.ShapeDtypeStruct((number, *x.shape[1:]), jnp.float32), whole, whole, whole, some)
    state = jax.eval_shape(solver.init, *network)
    step = _identity.of_function(lambda state, batch: solver.step(state, batch, None), state, batch)
    return {"method": method, "levels": step, "fair": sorted(fair)}


def _told(steps: int, **levels: Any) -> dict[str, Any]:
    """What BiP and BiFP are told, for so many steps."""
    rate = optax.cosine_decay_schedule(MASK_RATE, steps)
    own = {} if "joint" in levels else {"masks": optax.sgd(rate)}
    return {"gamma": GAMMA, "weight_decay": DECAY, **own, **levels}


def found(
    method: str, model: Model, here: Frame, bounded: Bounded, dense: Networks, *, sparsity: Any, epochs: int,
    optimizer: optax.GradientTransformation, keys: Key, folder: pathlib.Path | None, levels: Mapping[str, Any],
) -> Networks:  # fmt: skip
    """The networks after these epochs, each from its file beside the folder of checkpoints where it is there."""
    said = here.predict(dense.params, dense.model_state, here.train)
    correct = (said.label == jnp.asarray(here.train.y)[None]).astype(jnp.float32)
    outcomes = constraints.Outcomes(correct, said.loss)
    # On few examples an epoch here is several passes, as it is everywhere.
    passes = here.steps // (len(here.train.y) // here.batch_size)
    told = _told(epochs * here.steps, **levels)
    if method == "bip":  # the same loss, whoever decays and whatever it is, and no constraint
        told["fair"] = ()

    def make(lanes: list[int]) -> Any:
        which = jnp.asarray(np.array(lanes))
        start, reference, own = jax.tree.map(
            lambda a: jnp.asarray(a)[which], ((dense.params, dense.model_state), outcomes, keys)
        )
        made = sparse(
            "bifp", model, here.train, sparsity, optimizer=optimizer, keys=own, start=start, epochs=epochs * passes,
            batch_size=here.batch_size, plan=here.plan, levels=told, problem=bounded.problem, dual=bounded.dual,
            reference=reference,
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
