"""A run as a pure function: the state of a lane, and the chunk of steps that moves it.

A *lane* is one seed, or one setting, of a run. The functions here are written for one lane; ``jax.vmap`` makes them a
row. They run any :class:`jaxfair.typing.Solver`: what it solves is not asked.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxfair import tree
from jaxfair.train.meters import Meter, loss_meter
from jaxfair.train.networks import network_of
from jaxfair.tree import copied
from jaxfair.typing import Batch, Key


class TrainState(NamedTuple):
    """All that one lane carries from chunk to chunk, and all that a checkpoint holds.

    Attributes:
      solver: the solver's state: parameters, multipliers, optimizer states, memories.
      average: an exponential moving average of the iterates, for evaluation only, as `train.Networks`; ``()`` where
        none was asked for. Where the optimizer prunes, it is zero where the masks are: exactly as sparse as the
        network, whenever it began. Begin it at the last mask update all the same: earlier iterates are other networks.
        The model state is averaged with the parameters, since BatchNorm statistics
        belong to the weights that they were taken under.
      meters: the values of the :class:`~jaxfair.train.Meter` over the current epoch.
      failed_at: scalar int32, the step whose loss was not finite; -1 as long as there was none. A failed lane stands
        still, at the start of the chunk in which it failed.
      kept: what ``end_epoch`` keeps, such as snapshots; the steps do not see it.
      settings: the numbers of this lane, where lanes differ in more than their key; constant.
    """

    solver: Any
    average: Any
    meters: Any
    failed_at: jax.Array
    kept: Any = ()
    settings: Any = ()


def init_state(
    solver_state: Any,
    meter: Meter | None = None,
    *,
    average: bool = True,
    kept: Any = (),
    settings: Any = (),
) -> TrainState:
    """The state of a lane before its first step. No two of its arrays share memory, so all of it can be donated.

    Args:
      solver_state: of ``solver.init``.
      meter: that the step will have; :func:`loss_meter` by default.
      average: whether there is a moving average.
      kept: what ``end_epoch`` keeps, before the first epoch.
      settings: the numbers of this lane.

    Example:
      >>> import optax
      >>> from jaxfair import train
      >>> solver = train.descent(lambda p, s, x, **_: (x @ p, s), optax.sgd(0.1))
      >>> init_state(solver.init(jnp.zeros((3, 2)))).failed_at
      Array(-1, dtype=int32)
    """
    meter = loss_meter() if meter is None else meter
    begun = network_of(solver_state) if average else ()
    state = TrainState(solver_state, begun, meter.init(), jnp.full((), -1, jnp.int32), kept, settings)
    return copied(state)


def make_step(
    solver_step: Callable[[Any, Batch, Any], tuple[Any, Any]],
    *,
    meter: Meter | None = None,
    average_from: int | None = None,
    average_decay: float = 0.0,
) -> Callable[[TrainState, Batch, Key], TrainState]:
    r"""One training step of one lane: the solver's step, the average and the meters.

    Args:
      solver_step: ``Solver.step``.
      meter: what is summed up; :func:`loss_meter` by default.
      average_from: the number of steps after which the average begins; until then it follows the iterate. None where
        the state has no average.
      average_decay: :math:`\beta` of :math:`\bar\theta \leftarrow \beta \bar\theta + (1 - \beta)\theta`; a horizon of
        n steps is :math:`1 - 1/n`.

    Returns:
      ``step(state, batch, key) -> state``. The key is the lane's: the step's own is folded from it and the number of
      the step, so that a run that is resumed draws the same numbers.

    Raises:
      ValueError: for a decay without an average.

    Example:
      A linear model on two examples, both of class 0 and one of each group. From zero, both logits are equal, the
      loss is log 2, and class 0 is predicted:

      >>> import optax
      >>> from jaxfair import train
      >>> solver = train.descent(lambda p, s, x, **_: (x @ p, s), optax.sgd(1.0))
      >>> zero = jnp.zeros(2, jnp.int32)
      >>> batch = Batch(x=jnp.eye(2), y=zero, group=jnp.arange(2), index=jnp.arange(2), weight=jnp.ones(2))
      >>> meter = train.group_meter(num_groups=2)
      >>> state = init_state(solver.init(jnp.zeros((2, 2))), meter)
      >>> step = jax.jit(make_step(solver.step, meter=meter, average_from=0, average_decay=0.5))
      >>> state = step(state, batch, jax.random.key(0))
      >>> state.solver.params.tolist(), state.average.params.tolist()
      ([[0.25, -0.25], [0.25, -0.25]], [[0.125, -0.125], [0.125, -0.125]])
      >>> round(float(state.meters.loss), 3), state.meters.correct.tolist(), state.meters.count.tolist()
      (0.693, [1.0, 1.0], [1.0, 1.0])
    """
    if average_from is None and np.any(np.asarray(average_decay) != 0):
        raise ValueError(
            f"average_decay={average_decay} without average_from=: give the step where the average begins."
        )
    meter = loss_meter() if meter is None else meter

    def step(state: TrainState, batch: Batch, key: Key) -> TrainState:
        number = state.solver.step
        new, info = solver_step(state.solver, batch, jax.random.fold_in(key, number))
        average = state.average
        if average_from is not None:
            decay = jnp.where(new.step <= average_from, 0.0, average_decay)

            def averaged(old: Array, current: Array) -> Array:
                if not jnp.issubdtype(current.dtype, jnp.inexact):
                    return current  # counters of a model's state
                mixed = decay * old.astype(jnp.float32) + (1.0 - decay) * current.astype(jnp.float32)
                return mixed.astype(current.dtype)

            average = jax.tree.map(averaged, average, network_of(new))
            average = average._replace(params=tree.prune_like(average.params, new))
        first = (state.failed_at < 0) & ~jnp.isfinite(info.loss)
        return state._replace(
            solver=new,
            average=average,
            meters=meter.update(state.meters, state.solver, batch, info),
            failed_at=jnp.where(first, number, state.failed_at),
        )

    return step


def make_chunk(
    step: Callable[[TrainState, Batch, Key], TrainState], *, whole: bool = False
) -> Callable[[TrainState, Batch, Int[Array, "T B"], Key], TrainState]:
    """A chunk of steps of one lane as one program: ``chunk(state, split, order [T, B], key) -> state``.

    ``split`` is a whole split in device memory and ``order`` says which of its examples go into which step. A loss or
    a parameter that is not finite freezes the lane: it goes back to the beginning of the chunk, and stays there.

    Args:
      step: of :func:`make_step`.
      whole: every step sees the whole split, and of ``order`` only the length is read.

    Example:
      Two steps of two examples each, on a step that only counts them:

      >>> import collections
      >>> State = collections.namedtuple("State", "params step")
      >>> def step(state, batch, key):
      ...     return state._replace(meters=state.meters.at[batch.group].add(batch.weight))
      >>> state = TrainState(State(jnp.zeros(3), jnp.int32(0)), (), jnp.zeros(2), jnp.int32(-1))
      >>> split = Batch(x=jnp.zeros((4, 3)), y=jnp.zeros(4, jnp.int32), group=jnp.array([0, 1, 1, 1]),
      ...               index=jnp.arange(4), weight=jnp.ones(4))
      >>> chunk = jax.jit(make_chunk(step))
      >>> chunk(state, split, jnp.array([[0, 3], [2, 1]]), jax.random.key(0)).meters
      Array([1., 3.], dtype=float32)
    """

    def chunk(state: TrainState, split: Batch, order: Int[Array, "T B"], key: Key) -> TrainState:
        settings = state.settings
        # Neither is carried through the loop: what is kept may be several networks, and nothing moves it.
        begun = state._replace(kept=(), settings=())

        def body(carried: TrainState, index: Int[Array, " B"]) -> tuple[TrainState, None]:
            batch = split if whole else jax.tree.map(lambda a: a[index], split)
            return step(carried._replace(settings=settings), batch, key)._replace(settings=()), None

        if order.shape[0] == 1:
            # No scan around a single step: XLA runs convolutions inside a loop many times slower on a CPU.
            new, _ = body(begun, order[0])
        else:
            new, _ = jax.lax.scan(body, begun, order)
        return freeze_failed(begun, new)._replace(kept=state.kept, settings=settings)

    return chunk


def make_streamed_chunk(
    step: Callable[[TrainState, Batch, Key], TrainState],
) -> Callable[[TrainState, Batch, Key], TrainState]:
    """The same step on a batch that was read on the host: ``chunk(state, batch, key) -> state``.

    For a training split that does not fit on the device: the batches come from :func:`jaxfair.data.stream`.

    Args:
      step: of :func:`make_step`.

    Example:
      >>> import collections
      >>> import numpy as np
      >>> from jaxfair import data
      >>> State = collections.namedtuple("State", "params step")
      >>> def step(state, batch, key):
      ...     return state._replace(meters=state.meters.at[batch.group].add(batch.weight))
      >>> state = TrainState(State(jnp.zeros(3), jnp.int32(0)), (), jnp.zeros(2), jnp.int32(-1))
      >>> split = Batch(x=np.zeros((4, 3)), y=np.zeros(4, np.int32), group=np.array([0, 1, 1, 1]),
      ...               index=np.arange(4), weight=np.ones(4, np.float32))
      >>> chunk = jax.jit(make_streamed_chunk(step))
      >>> for batch in (data.gather(split, [0, 3]), data.gather(split, [2, 1])):
      ...     state = chunk(state, batch, jax.random.key(0))
      >>> state.meters
      Array([1., 3.], dtype=float32)
    """

    def chunk(state: TrainState, batch: Batch, key: Key) -> TrainState:
        begun = state._replace(kept=(), settings=())
        moved = step(begun._replace(settings=state.settings), batch, key)._replace(settings=())
        return freeze_failed(begun, moved)._replace(kept=state.kept, settings=state.settings)

    return chunk


def freeze_failed(old: TrainState, new: TrainState) -> TrainState:
    """``new``, or ``old`` with the failure noted where the lane failed, now or before.

    Args:
      old: before the chunk.
      new: after it.

    Example:
      A step, number 7, after which a parameter is infinite:

      >>> import collections
      >>> State = collections.namedtuple("State", "params step")
      >>> old = init_state(State(jnp.zeros(2), jnp.int32(7)))
      >>> new = old._replace(solver=State(params=jnp.array([1.0, jnp.inf]), step=jnp.int32(8)))
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
