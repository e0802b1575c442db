"""Many settings of one constrained job side by side: what differs in numbers are lanes of one program.

A tolerance, a dual rate, a start, a seed: all may be traced, so a whole frontier is one compiled call. What differs in
words (another memory, another formulation) is another program, and another call. What is compiled is kept for the next
call with the same ``solver`` and ``start``, on other data of the same shapes, too.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair import constraints, metrics, train
from jaxfair.recipes.base import Base
from jaxfair.typing import Batch


class Swept(NamedTuple):
    """What a sweep of L lanes and E epochs came to.

    Attributes:
      last: the last iterates, :class:`jaxfair.train.Networks`, ``[L, ...]``.
      delivered: in the final 30 % of the epochs the most accurate iterate, or moving average, that met the lane's
        tolerance on the training split, else the one that violates it least.
      logits: of ``"last"`` and ``"delivered"``, on each split, ``[L, N, C]``.
      epoch: ``[L]``, after which that was.
      averaged: ``[L]`` bool, whether it is the average.
      failed_at: ``[L]``, the step whose loss was not finite; -1 where there was none.
      gaps: ``[E, L, G]`` excess accuracy gaps of each epoch, in train mode as examples came by.
      multipliers: ``[E, L, K]`` after each epoch.
    """

    last: train.Networks
    delivered: train.Networks
    logits: dict[str, dict[str, np.ndarray]]
    epoch: np.ndarray
    averaged: np.ndarray
    failed_at: np.ndarray
    gaps: np.ndarray
    multipliers: np.ndarray

    def path(self, lane: int, *, epochs: int = 17, groups: int = 12) -> dict[str, Any]:
        """How a lane went, for a record: gaps and multipliers of a few epochs, to six digits.

        Args:
          lane: which.
          epochs: at most so many.
          groups: of more than these, four quantiles: the largest, 90 %, the median and the smallest.

        Returns:
          ``epochs`` (from 1), ``gaps`` and ``multipliers``, lists of lists.
        """
        count = min(len(self.gaps), epochs)
        thin = sorted({*np.linspace(0, len(self.gaps) - 1, count).round().astype(int)})
        found = {"gaps": self.gaps[thin, lane], "multipliers": self.multipliers[thin, lane]}
        if self.gaps.shape[2] > groups:
            levels = (1.0, 0.9, 0.5, 0.0)
            found = {k: np.quantile(v, levels, axis=1).T for k, v in found.items()}
        rounded = {k: np.round(v.astype(np.float64), 6).tolist() for k, v in found.items()}
        return {"epochs": [int(e) + 1 for e in thin]} | rounded


def sweep(
    base: Base,
    solver: Callable[[Any], Any],
    start: Callable[..., Any],
    lanes: Any,
    *,
    seeds: ArrayLike,
    epochs: int,
    prune_epochs: int,
    batches: str = "plain",
    weighted: bool = True,
) -> Swept:
    """Plays L lanes.

    Args:
      base: of :func:`base`, the split and the dense networks.
      solver: ``solver(lane) -> Solver``, of `jaxfair.constraints`.
      start: ``start(lane, network, outcomes, split) -> state``, the solver's first.
      lanes: ``[L]`` each, the numbers in which they differ: a NamedTuple with a ``tolerance``.
      seeds: ``[L]``, the dense network that each lane starts from.
      epochs: how many.
      prune_epochs: after these the masks are fixed, and the moving average begins.
      batches: of :data:`BATCHES`.
      weighted: whether examples are re-weighted for what their kind of batches does.

    Returns:
      The :class:`Swept`.

    Example:
      Two tolerances of a linear model:

      >>> import collections, optax
      >>> from jaxfair import data, models, recipes
      >>> Lane = collections.namedtuple("Lane", "tolerance")
      >>> model = models.mlp(10, hidden=())
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> base = recipes.base(model, data.load("digits"), keys=keys, batch_size=500, epochs=1)
      >>> problem = lambda lane: constraints.excess_accuracy_gap(model.apply, num_groups=10, tolerance=lane.tolerance)
      >>> solver = lambda lane: constraints.solver(problem(lane), primal=optax.sgd(0.01), dual=optax.sgd(0.01))
      >>> def start(lane, network, outcomes, split):
      ...     return solver(lane).init(network.params, problem(lane).init({}, outcomes, split))
      >>> lanes = Lane(jnp.array([0.01, 0.1]))
      >>> found = sweep(base, solver, start, lanes, seeds=np.array([0, 0]), epochs=4, prune_epochs=1)
      >>> found.gaps.shape, found.failed_at.tolist(), found.path(0)["epochs"]
      ((4, 2, 10), [-1, -1], [1, 2, 3, 4])
    """
    num_groups, split = base.dataset.num_groups, base.splits["train"]
    begin, deliver = _compiled(base.model.apply, start, num_groups)
    seeds, (order, weight) = jnp.asarray(seeds), base.batches[batches]
    networks, outcomes = train.take((base.networks, base.outcomes["train"]), seeds)
    gaps, multipliers = [], []

    def end_epoch(state: train.TrainState, epoch: int, values: dict[str, Any]) -> train.Epoch:
        ref = state.solver.carry.reference
        lost = ref.group_accuracy - values["group_accuracy"]
        gaps.append(np.asarray(lost - jnp.sum(ref.prevalence * lost, axis=1, keepdims=True)))
        multipliers.append(np.asarray(state.solver.multipliers))
        # The masks are fixed in the final 30 %.
        if epoch >= max(epochs - math.ceil(0.3 * epochs), prune_epochs):
            state = state._replace(kept=deliver(state, outcomes.correct, split, epoch))
        return train.Epoch(state, {})

    state = train.fit(
        solver, begin(lanes, networks, outcomes, split), split._replace(weight=weight) if weighted else split,
        keys=base.keys[seeds], settings=lanes, order=order, meter=_meter(num_groups), epochs=epochs,
        batch_size=base.batch_size, end_epoch=end_epoch, average_from=prune_epochs * base.steps,
        average_decay=1.0 - 1.0 / base.steps, kept=jax.vmap(train.empty_snapshot)(*networks),
    )  # fmt: skip
    kept, said = state.kept, _logits(base.model.apply)
    ends = {
        "last": train.network_of(state.solver),
        "delivered": train.Networks(kept.params, kept.model_state),
    }
    return Swept(
        **ends,
        logits={
            name: {which: np.asarray(said(*network, b.x)) for which, b in base.splits.items()}
            for name, network in ends.items()
        },
        epoch=np.asarray(kept.epoch),
        averaged=np.asarray(kept.averaged),
        failed_at=np.asarray(state.failed_at),
        gaps=np.stack(gaps),
        multipliers=np.stack(multipliers),
    )


@functools.lru_cache(maxsize=32)
def _meter(num_groups: int) -> train.Meter:
    return train.group_meter(num_groups)


@functools.lru_cache(maxsize=32)
def _compiled(
    apply: Callable[..., Any], start: Callable[..., Any], num_groups: int
) -> tuple[Callable[..., Any], Callable[..., train.Snapshot]]:
    logits = train.make_logits(apply)

    def deliver(state: train.TrainState, dense: Any, split: Batch, epoch: Any) -> train.Snapshot:
        sizes = metrics.group_counts(split.group, num_groups)

        def judge(network: train.Networks) -> tuple[jax.Array, jax.Array]:
            right = constraints.outcomes(logits(*network, split.x), jnp.asarray(split.y)).correct
            gaps = metrics.accuracy_gaps(dense, right, split.group, num_groups)
            return metrics.violation(gaps.excess, state.settings.tolerance, sizes), jnp.mean(right)

        candidates = [train.network_of(state.solver), state.average]
        found = [judge(one) for one in candidates]
        over, accuracy = zip(*found, strict=True)
        return train.deliver(state.kept, candidates, over, epoch, accuracy=accuracy)

    return (
        jax.jit(jax.vmap(start, (0, 0, 0, None))),
        jax.jit(jax.vmap(deliver, (0, 0, None, None))),
    )


@functools.lru_cache(maxsize=32)
def _logits(apply: Callable[..., Any]) -> Callable[..., jax.Array]:
    return jax.jit(jax.vmap(train.make_logits(apply), (0, 0, None)))
