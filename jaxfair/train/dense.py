"""Dense networks: trained by descent, stopped by the validation loss, or read from a file where they were before."""

import functools
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import tree
from jaxfair.train import networks as networks_lib
from jaxfair.train.descent import descent
from jaxfair.train.evaluate import predictor
from jaxfair.train.fit import SHARED, fit
from jaxfair.train.host import Epoch
from jaxfair.train.networks import network_of
from jaxfair.train.plan import Plan
from jaxfair.train.snapshots import Snapshot, better_score, empty_snapshot, keep_if
from jaxfair.train.step import TrainState
from jaxfair.typing import Batch, Key, Model, ModelState, Params


class Trained(NamedTuple):
    """Networks side by side, and how their training went.

    Attributes:
      params: ``[S, ...]``.
      model_state: ``[S, ...]``.
      epoch: ``[S]`` int32, after which each was taken.
      failed_at: ``[S]`` int32, the step whose loss was not finite; -1 where there was none.
    """

    params: Params
    model_state: ModelState
    epoch: jax.Array
    failed_at: jax.Array


def dense(
    model: Model,
    split: Batch,
    validation: Batch | None = None,
    tx: optax.GradientTransformation | None = None,
    *,
    keys: Key,
    epochs: int,
    batch_size: int,
    patience: int | None = None,
    plan: Plan | None = None,
    solver: Any = None,
    start: Any = None,
    eval_batch_size: int = 2048,
    file: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Trained:
    """Trains a network per key.

    Args:
      model: the network.
      split: the training split.
      validation: of whose loss, weighted, the lowest is kept; None keeps the last iterate.
      tx: the optimizer; ``optax.adam(1e-3)`` by default.
      keys: ``[S]``.
      epochs: at most.
      batch_size: B.
      patience: epochs without a better validation loss after which training ends; None goes on to the last.
      plan: of :func:`jaxfair.train.plan`.
      solver: in place of ``tx``: any :class:`~jaxfair.typing.Solver` with ``init(params, model_state)``.
      start: ``(params, model_state)``, ``[S, ...]``; by default ``model.init`` of the lane's key folded by 0.
      eval_batch_size: examples per forward pass in evaluation.
      file: a ``.npz`` of :func:`jaxfair.train.save`: read where it is, else written.
      **options: further ones of :func:`fit`: ``meter``, ``order``, ``record``, ``checkpoints``, ``stop``, ...

    Returns:
      The networks; the parameters of one that failed before anything was kept are nan.

    Raises:
      ValueError: for a file that holds other networks, and for ``tx`` beside ``solver``.

    Example:
      >>> from jaxfair import data, models
      >>> digits = data.load("digits")
      >>> found = dense(models.mlp(10, hidden=(16,)), digits.train, digits.validation,
      ...               keys=jax.random.split(jax.random.key(0), 2), epochs=2, batch_size=126)
      >>> found.epoch.tolist(), found.params["Dense_1"]["bias"].shape
      ([1, 1], (2, 10))
    """
    if solver is not None and tx is not None:
        raise ValueError("tx= beside solver=: a solver has an optimizer of its own; give one of them.")
    plan = Plan() if plan is None else plan
    x = split.x[0] if options.get("split_axes", SHARED).x == 0 else split.x
    example = jnp.zeros((1, *x.shape[1:]), jnp.float32)
    if start is None:
        # Compiled for a lane; a model's own initialiser need not know of lanes.
        start = plan.lift(lambda key: model.init(jax.random.fold_in(key, 0), example))(keys)
    if solver is None:
        solver = descent(model.apply, optax.adam(1e-3) if tx is None else tx)
    if file is not None and pathlib.Path(file).exists():
        count = jnp.zeros(len(keys), jnp.int32)
        return networks_lib.load(file, Trained(start[0], start[1], count, count))
    begun, measured = _lifted(plan)
    kept, predict = begun(*start), predictor(model.apply, plan, batch_size=eval_batch_size)

    def end_epoch(state: TrainState, epoch: int, values: dict[str, Any]) -> Epoch:
        if validation is None:
            return Epoch(state, values)
        predicted = predict(*network_of(state.solver), validation)
        weight = np.asarray(validation.weight, np.float32)
        mean = jnp.sum(predicted.loss * jnp.broadcast_to(weight, predicted.loss.shape), axis=-1) / weight.sum(axis=-1)
        kept, more = measured(state, epoch, mean)
        waited = epoch - np.asarray(more["best_epoch"])
        finished = patience is not None and bool(np.all(waited >= patience))
        return Epoch(state._replace(kept=kept), values | more, finished)

    state = fit(
        solver, plan.lift(solver.init)(*start), split, keys=keys, epochs=epochs, batch_size=batch_size,
        plan=plan, kept=kept, end_epoch=end_epoch, **options,
    )  # fmt: skip
    network, epoch = network_of(state.solver), jnp.full(len(keys), epochs - 1, jnp.int32)
    if validation is not None:
        kept = state.kept.params, state.kept.model_state
        lost = (state.kept.epoch < 0) & (state.failed_at < 0)
        if lost.any():
            warnings.warn("no loss on validation was finite: the last network is taken.", stacklevel=2)
        network = tree.by_lane(lost, (network[0], network[1]), kept)
        epoch = jnp.where(lost, epoch, state.kept.epoch)
    nothing = (state.failed_at >= 0) & ((epoch < 0) | (validation is None))
    found = Trained(networks_lib.spoilt(network[0], nothing), network[1], epoch, state.failed_at)
    if file is not None:
        networks_lib.save(file, found)
    return found


@functools.lru_cache(maxsize=32)
def _lifted(plan: Plan) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What is kept before the first epoch, and what is of it after one; compiled once for all networks of a shape."""

    def measure(state: TrainState, epoch: Any, loss: jax.Array) -> tuple[Snapshot, dict[str, Any]]:
        network = network_of(state.solver)
        # A lane that failed stands where a call began: it is measured again, and is no candidate.
        better = better_score(state.kept, loss) & (state.failed_at < 0)
        kept = keep_if(better, state.kept, *network, loss, epoch, averaged=False)
        return kept, {"validation_loss": loss, "best_epoch": kept.epoch}

    return plan.lift(empty_snapshot), plan.lift(measure, (0, None, 0))
