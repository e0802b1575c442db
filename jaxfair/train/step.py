"""A run as a pure function: the state of a lane, and the chunk of steps that moves it.

A *lane* is one seed of a run. The functions here are written for one lane; ``jax.vmap`` makes them a row of seeds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxfair.constraints.solver import Info, SolverState
from jaxfair.typing import Batch, Key, ModelState, Params


class Average(NamedTuple):
    """An exponential moving average of the iterates, for evaluation only.

    Attributes:
      params: averaged parameters. Begun at the last mask update, so every iterate in it has the same zeros and the
        average is exactly as sparse as the network.
      model_state: averaged with them, since BatchNorm statistics belong to the weights that they were taken under.
    """

    params: Params
    model_state: ModelState


class Meters(NamedTuple):
    """Sums over the steps of the current epoch, all measured in train mode before each step.

    Attributes:
      loss: scalar sum of the batch losses.
      steps: scalar float32, the steps summed over.
      correct: ``[G]`` examples of each group that were right.
      count: ``[G]`` examples of each group.
    """

    loss: jax.Array
    steps: jax.Array
    correct: jax.Array
    count: jax.Array


class TrainState(NamedTuple):
    """All that one lane carries from chunk to chunk, and all that a checkpoint holds.

    Attributes:
      solver: parameters, multipliers, optimizer states, memories.
      average: see :class:`Average`.
      meters: see :class:`Meters`.
      failed_at: scalar int32, the step whose loss was not finite; -1 as long as there was none. A failed lane stands
        still, at the start of the chunk in which it failed.
    """

    solver: SolverState
    average: Average
    meters: Meters
    failed_at: jax.Array


def zero_meters(num_groups: int) -> Meters:
    """Meters at the beginning of an epoch.

    Args:
      num_groups: G.

    Example:
      >>> zero_meters(num_groups=2).correct
      Array([0., 0.], dtype=float32)
    """
    return Meters(jnp.zeros(()), jnp.zeros(()), jnp.zeros(num_groups), jnp.zeros(num_groups))


def init_state(solver_state: SolverState, num_groups: int) -> TrainState:
    """The state of a lane before its first step.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from jaxfair import constraints
      >>> problem = constraints.unconstrained(lambda p, s, x, **_: (x @ p, s), num_groups=2)
      >>> solver = constraints.solver(problem.evaluate, multipliers=constraints.dense(0),
      ...                             primal=optax.sgd(0.1), dual=optax.sgd(0.1))
      >>> carry = constraints.problem.Carry({}, (), (), jnp.zeros((), int))
      >>> init_state(solver.init(jnp.zeros((3, 2)), carry), num_groups=2).failed_at
      Array(-1, dtype=int32)
    """
    # A copy: the average must not share its buffers with the parameters, or neither could be donated.
    average = jax.tree.map(jnp.copy, Average(solver_state.params, solver_state.carry.model_state))
    return TrainState(solver_state, average, zero_meters(num_groups), jnp.full((), -1, jnp.int32))


def make_step(
    solver_step: Callable[[SolverState, Batch, Any], tuple[SolverState, Info]],
    *,
    average_from: int,
    average_decay: float,
) -> Callable[[TrainState, Batch, Key], TrainState]:
    r"""One training step of one lane: the solver's step, the average and the meters.

    Args:
      solver_step: ``Solver.step`` of a problem whose ``aux`` has ``correct``.
      average_from: the number of steps after which the average begins; until then it follows the iterate.
      average_decay: :math:`\beta` of :math:`\bar\theta \leftarrow \beta \bar\theta + (1 - \beta)\theta`; a horizon of
        n steps is :math:`1 - 1/n`.

    Returns:
      ``step(state, batch, key) -> state``. The key is the lane's: the step's own is folded from it and the number of
      the step, so that a run that is resumed draws the same numbers.

    Example:
      A linear model on two examples, both of class 0 and one of each group. From zero, both logits are equal, the
      loss is log 2, and class 0 is predicted:

      >>> import jax.numpy as jnp, optax
      >>> from jaxfair import constraints
      >>> problem = constraints.unconstrained(lambda p, s, x, **_: (x @ p, s), num_groups=2)
      >>> solver = constraints.solver(problem.evaluate, multipliers=constraints.dense(0),
      ...                             primal=optax.sgd(1.0), dual=optax.sgd(1.0))
      >>> zero = jnp.zeros(2, jnp.int32)
      >>> batch = Batch(x=jnp.eye(2), y=zero, group=jnp.arange(2), index=jnp.arange(2), weight=jnp.ones(2))
      >>> carry = problem.init({}, constraints.Outcomes(jnp.zeros(2), jnp.zeros(2)), batch)
      >>> state = init_state(solver.init(jnp.zeros((2, 2)), carry), num_groups=2)
      >>> step = jax.jit(make_step(solver.step, average_from=0, average_decay=0.5))
      >>> state = step(state, batch, jax.random.key(0))
      >>> state.solver.params.tolist(), state.average.params.tolist()
      ([[0.25, -0.25], [0.25, -0.25]], [[0.125, -0.125], [0.125, -0.125]])
      >>> round(float(state.meters.loss), 3), state.meters.correct.tolist(), state.meters.count.tolist()
      (0.693, [1.0, 1.0], [1.0, 1.0])
    """

    def step(state: TrainState, batch: Batch, key: Key) -> TrainState:
        number = state.solver.step
        new, info = solver_step(state.solver, batch, jax.random.fold_in(key, number))

        decay = jnp.where(new.step <= average_from, 0.0, average_decay)

        def averaged(old: Array, current: Array) -> Array:
            if not jnp.issubdtype(current.dtype, jnp.inexact):
                return current  # counters of a model's state
            mixed = decay * old.astype(jnp.float32) + (1.0 - decay) * current.astype(jnp.float32)
            return mixed.astype(current.dtype)

        average = jax.tree.map(averaged, state.average, Average(new.params, new.carry.model_state))

        weight, group = jnp.asarray(batch.weight), jnp.asarray(batch.group)
        meters = Meters(
            loss=state.meters.loss + info.loss.astype(jnp.float32),
            steps=state.meters.steps + 1.0,
            correct=state.meters.correct.at[group].add(weight * info.aux.correct),
            count=state.meters.count.at[group].add(weight),
        )
        first = (state.failed_at < 0) & ~jnp.isfinite(info.loss)
        return TrainState(new, average, meters, jnp.where(first, number, state.failed_at))

    return step


def make_chunk(
    step: Callable[[TrainState, Batch, Key], TrainState],
) -> Callable[[TrainState, Batch, Int[Array, "T B"], Key], TrainState]:
    """A chunk of steps of one lane as one program: ``chunk(state, split, order [T, B], key) -> state``.

    ``split`` is a whole split in device memory and ``order`` says which of its examples go into which step. A loss or
    a parameter that is not finite freezes the lane: it goes back to the beginning of the chunk, and stays there.

    Args:
      step: of :func:`make_step`.

    Example:
      Two steps of two examples each, on a step that only counts them by group:

      >>> import jax.numpy as jnp
      >>> from jaxfair.constraints.problem import Carry
      >>> def step(state, batch, key):
      ...     count = state.meters.count.at[batch.group].add(batch.weight)
      ...     return state._replace(meters=state.meters._replace(count=count))
      >>> solver = SolverState(jnp.zeros(3), (), (), (), (), Carry({}, (), (), ()), step=jnp.int32(0))
      >>> state = init_state(solver, num_groups=2)
      >>> split = Batch(x=jnp.zeros((4, 3)), y=jnp.zeros(4, jnp.int32), group=jnp.array([0, 1, 1, 1]),
      ...               index=jnp.arange(4), weight=jnp.ones(4))
      >>> chunk = jax.jit(make_chunk(step))
      >>> chunk(state, split, jnp.array([[0, 3], [2, 1]]), jax.random.key(0)).meters.count
      Array([1., 3.], dtype=float32)
    """

    def chunk(state: TrainState, split: Batch, order: Int[Array, "T B"], key: Key) -> TrainState:
        def body(carried: TrainState, index: Int[Array, " B"]) -> tuple[TrainState, None]:
            return step(carried, jax.tree.map(lambda a: a[index], split), key), None

        if order.shape[0] == 1:
            # No scan around a single step: XLA runs convolutions inside a loop many times slower on a CPU.
            new, _ = body(state, order[0])
        else:
            new, _ = jax.lax.scan(body, state, order)
        return freeze_failed(state, new)

    return chunk


def make_streamed_chunk(
    step: Callable[[TrainState, Batch, Key], TrainState],
) -> Callable[[TrainState, Batch, Key], TrainState]:
    """The same step on a batch that was read on the host: ``chunk(state, batch, key) -> state``.

    For a training split that does not fit on the device: the batches come from :func:`jaxfair.data.stream`.

    Args:
      step: of :func:`make_step`.

    Example:
      >>> import numpy as np
      >>> from jaxfair import data
      >>> from jaxfair.constraints.problem import Carry
      >>> def step(state, batch, key):
      ...     count = state.meters.count.at[batch.group].add(batch.weight)
      ...     return state._replace(meters=state.meters._replace(count=count))
      >>> solver = SolverState(jnp.zeros(3), (), (), (), (), Carry({}, (), (), ()), step=jnp.int32(0))
      >>> state = init_state(solver, num_groups=2)
      >>> split = Batch(x=np.zeros((4, 3)), y=np.zeros(4, np.int32), group=np.array([0, 1, 1, 1]),
      ...               index=np.arange(4), weight=np.ones(4, np.float32))
      >>> chunk = jax.jit(make_streamed_chunk(step))
      >>> for batch in (data.gather(split, [0, 3]), data.gather(split, [2, 1])):
      ...     state = chunk(state, batch, jax.random.key(0))
      >>> state.meters.count
      Array([1., 3.], dtype=float32)
    """

    def chunk(state: TrainState, batch: Batch, key: Key) -> TrainState:
        return freeze_failed(state, step(state, batch, key))

    return chunk


def freeze_failed(old: TrainState, new: TrainState) -> TrainState:
    """``new``, or ``old`` with the failure noted where the lane failed, now or before.

    Args:
      old: before the chunk.
      new: after it.

    Example:
      A step, number 7, after which a parameter is infinite:

      >>> import jax.numpy as jnp
      >>> from jaxfair.constraints.problem import Carry
      >>> solver = SolverState(jnp.zeros(2), (), (), (), (), Carry({}, (), (), ()), step=jnp.int32(7))
      >>> old = init_state(solver, num_groups=1)
      >>> new = old._replace(solver=solver._replace(params=jnp.array([1.0, jnp.inf]), step=jnp.int32(8)))
      >>> kept = freeze_failed(old, new)
      >>> kept.solver.params.tolist(), int(kept.failed_at)
      ([0.0, 0.0], 7)
    """
    finite = jnp.array(True)
    for leaf in jax.tree.leaves(new.solver.params):
        finite &= jnp.all(jnp.isfinite(leaf))
    # A parameter that overflowed in the last step has spoilt no loss yet.
    failed_at = jnp.where((new.failed_at < 0) & ~finite, new.solver.step - 1, new.failed_at)
    kept = jax.tree.map(lambda n, o: jnp.where(failed_at >= 0, o, n), new, old)
    return kept._replace(failed_at=failed_at)
