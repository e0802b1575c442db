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

from jaxfair import constraints, metrics, train
from jaxfair.typing import Batch, Key


class Swept(NamedTuple):
    """What a sweep of L lanes and E epochs came to.

    Attributes:
      last: the last iterates, :class:`jaxfair.train.Networks`, ``[L, ...]``.
      delivered: in the final 30 % of the epochs the latest iterate, or moving average, that met the lane's tolerance on
        the training split, else the one that violates it least.
      epoch: ``[L]``, after which that was.
      averaged: ``[L]`` bool, whether it is the average.
      failed_at: ``[L]``, the step whose loss was not finite; -1 where there was none.
      gaps: ``[E, L, G]`` excess accuracy gaps of each epoch, in train mode as examples came by.
      multipliers: ``[E, L, K]`` after each epoch.
    """

    last: train.Networks
    delivered: train.Networks
    epoch: np.ndarray
    averaged: np.ndarray
    failed_at: np.ndarray
    gaps: np.ndarray
    multipliers: np.ndarray


def sweep(
    apply: Callable[..., Any],
    solver: Callable[[Any], Any],
    start: Callable[..., Any],
    lanes: Any,
    *,
    networks: train.Networks,
    outcomes: constraints.Outcomes,
    split: Batch,
    weight: jax.Array,
    num_groups: int,
    keys: Key,
    order: Callable[[Key, Any], Any],
    epochs: int,
    prune_epochs: int,
    steps: int,
    batch_size: int,
) -> Swept:
    """Plays L lanes.

    Args:
      apply: the model's.
      solver: ``solver(lane) -> Solver``, of `jaxfair.constraints`.
      start: ``start(lane, network, outcomes, split) -> state``, the solver's first.
      lanes: ``[L]`` each, the numbers in which they differ: a NamedTuple with a ``tolerance``.
      networks: ``[L, ...]``, what each lane starts from.
      outcomes: ``[L, N]``, how those do on the split.
      split: the training split, on the device.
      weight: ``[N]`` of its examples in training.
      num_groups: G.
      keys: ``[L]``.
      order: as of :func:`jaxfair.train.fit`.
      epochs: how many.
      prune_epochs: after these the masks are fixed, and the moving average begins.
      steps: of an epoch.
      batch_size: B.

    Returns:
      The :class:`Swept`.

    Example:
      Two tolerances of a linear model:

      >>> import collections, optax
      >>> from jaxfair import data
      >>> Lane = collections.namedtuple("Lane", "tolerance")
      >>> apply = lambda params, state, x, *, train, key=None: (x.reshape(len(x), -1) @ params, state)
      >>> split = jax.tree.map(jnp.asarray, data.load("digits").train)
      >>> problem = lambda lane: constraints.excess_accuracy_gap(apply, num_groups=10, tolerance=lane.tolerance)
      >>> solver = lambda lane: constraints.solver(problem(lane), primal=optax.sgd(0.01), dual=optax.sgd(0.01))
      >>> def start(lane, network, outcomes, split):
      ...     return solver(lane).init(network.params, problem(lane).init({}, outcomes, split))
      >>> params = jnp.zeros((2, 64, 10))
      >>> outcomes = jax.vmap(lambda p: constraints.outcomes(split.x.reshape(-1, 64) @ p, split.y))(params)
      >>> found = sweep(
      ...     apply, solver, start, Lane(jnp.array([0.01, 0.1])), networks=train.Networks(params, {}), split=split,
      ...     outcomes=outcomes, weight=split.weight, num_groups=10, keys=jax.random.split(jax.random.key(0), 2), epochs=4,
      ...     order=lambda key, epoch: jnp.arange(100).reshape(2, 50), prune_epochs=1, steps=2, batch_size=50)
      >>> found.gaps.shape, found.failed_at.tolist()
      ((4, 2, 10), [-1, -1])
    """
    meter = _meter(num_groups)
    begin, deliver = _compiled(apply, start, num_groups)
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
        solver, begin(lanes, networks, outcomes, split), split._replace(weight=weight), keys=keys, settings=lanes,
        order=order, meter=meter, epochs=epochs, batch_size=batch_size, num_steps=steps, end_epoch=end_epoch,
        average_from=prune_epochs * steps, average_decay=1.0 - 1.0 / steps,
        kept=jax.vmap(train.empty_snapshot)(*networks),
    )  # fmt: skip
    kept = state.kept
    return Swept(
        train.network_of(state.solver),
        train.Networks(kept.params, kept.model_state),
        *(np.asarray(a) for a in (kept.epoch, kept.averaged, state.failed_at)),
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

        def violation(network: train.Networks) -> jax.Array:
            right = constraints.outcomes(logits(*network, split.x), split.y).correct
            gaps = metrics.accuracy_gaps(dense, right, split.group, num_groups)
            return metrics.violation(gaps.excess, state.settings.tolerance, sizes)

        candidates = [train.network_of(state.solver), state.average]
        return train.deliver(state.kept, candidates, violation, epoch)

    return (
        jax.jit(jax.vmap(start, (0, 0, 0, None))),
        jax.jit(jax.vmap(deliver, (0, 0, None, None))),
    )
