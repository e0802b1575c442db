"""The host's part of a run: chunks, ends of epochs, checkpoints, and a stop between two chunks."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax

from jaxfair.study.interrupt import Stopped
from jaxfair.train.checkpoints import Checkpoints

State = TypeVar("State")


class Epoch(NamedTuple):
    """What the end of an epoch gives back.

    Attributes:
      state: that the next epoch begins with.
      records: what is to be written: dicts, one for each lane. For :func:`fit`, numbers and arrays ``[L, ...]`` by
        their names, of which it makes the dicts.
      finished: whether the phase is over, before its last epoch.
    """

    state: Any
    records: Any
    finished: bool = False


def host_loop(
    state: State,
    *,
    advance: Callable[[State, int, int, int], State],
    end_epoch: Callable[[State, int], Epoch],
    epochs: int,
    steps_per_epoch: int,
    steps_per_call: int,
    even: bool = True,
    checkpoints: Checkpoints | None = None,
    save_every: int = 10,
    record: Callable[[list[dict[str, Any]]], None] = lambda records: None,
    stop: Callable[[], bool] = lambda: False,
) -> State:
    """Runs the epochs of one phase from its last checkpoint: :func:`fit`, for any state and any way to move it.

    The unit of compilation is a chunk of ``steps_per_call`` steps. Everything random in ``advance`` must be a function
    of the epoch and the step, so that a run which is cut anywhere and resumed does what it would have done.

    Args:
      state: the state before the first step, and the pattern for what is restored.
      advance: ``advance(state, epoch, first, count) -> state``: steps ``first`` to ``first + count - 1`` of an epoch.
      end_epoch: ``end_epoch(state, epoch) -> Epoch``: measures, selects, and begins the next.
      epochs: how many.
      steps_per_epoch: T.
      steps_per_call: at most so many steps a call.
      even: all calls have one length, the largest divisor of ``steps_per_epoch`` up to ``steps_per_call``, since a
        chunk is compiled for its length. Where ``advance`` takes one step after the other, lengths may differ.
      checkpoints: where to save; None saves nothing.
      save_every: epochs between checkpoints. The end of a phase and a requested stop are always saved.
      record: is given the records of each epoch, before a checkpoint that includes that epoch is written.
      stop: is looked at after every chunk.

    Returns:
      The state after the last epoch.

    Raises:
      Stopped: when ``stop()`` was true, after saving.

    Example:
      Three epochs of four steps, two at a time, on a state that counts:

      >>> def advance(state, epoch, first, count):
      ...     return state + count
      >>> def end_epoch(state, epoch):
      ...     return Epoch(state, [{"epoch": epoch, "steps": state}])
      >>> seen = []
      >>> host_loop(0, advance=advance, end_epoch=end_epoch, epochs=3, steps_per_epoch=4, steps_per_call=2,
      ...     record=seen.extend)
      12
      >>> seen[-1]
      {'epoch': 2, 'steps': 12}
    """
    total = epochs * steps_per_epoch
    most = min(steps_per_call, steps_per_epoch)
    if even:
        most = next(n for n in range(most, 0, -1) if steps_per_epoch % n == 0)
    position = 0
    if checkpoints is not None:
        restored = checkpoints.restore(state)
        if restored is not None:
            position, state = restored

    # A phase that was over early has its last checkpoint beyond its last step.
    while position < total:
        epoch, first = divmod(position, steps_per_epoch)
        count = min(most, steps_per_epoch - first)
        state = advance(state, epoch, first, count)
        position += count
        finished = False
        if position % steps_per_epoch == 0:
            state, records, finished = end_epoch(state, epoch)
            record(records)
            if finished:
                position = total
        stopping = stop() and position < total
        ended = position % steps_per_epoch == 0
        due = ended and (epoch + 1) % save_every == 0
        if checkpoints is not None and (due or stopping or position == total):
            jax.block_until_ready(state)
            checkpoints.save(position, state)
        if stopping:
            raise Stopped
    return state
