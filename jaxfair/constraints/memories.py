r"""Memories: what is known of every group's outcomes, from more than one batch.

A minibatch holds a few members of a group, or none; its accuracy is mostly sampling noise. A memory keeps past
outcomes. The three differ in what they keep:

==================  ===============================  ==================================  ============================
memory              keeps                            sampling noise                      lag
==================  ===============================  ==================================  ============================
minibatch           nothing                          of the batch                        none
replay_buffer       the last M outcomes of a group   :math:`\sqrt{a(1-a)/M}`             M / (examples of g per step)
example_memory      the last outcome of every        none: it is the training set        half an epoch on average
                    training example
==================  ===============================  ==================================  ============================

All are ``(init, push, group_means)`` over plain pytrees with running sums, so a push costs as much as the batch
is large, whatever the number of groups and examples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxfair.typing import Batch


class Memory(NamedTuple):
    """The functions of a memory of outcomes: correct or not (1 or 0), or a loss.

    Attributes:
      init: ``init(group [N], outcome [N], weight [N]) -> state``, from the outcomes of the reference model on the
        whole training split.
      push: ``push(state, batch, outcome [B]) -> state``. Padding (weight 0) leaves no trace.
      group_means: ``group_means(state) -> (means [G], observed [G])``. The mean of an unobserved group is 0.

    Example:
      >>> memory = minibatch(num_groups=3)
      >>> memory.init is not None
      True
    """

    init: Callable[..., Any]
    push: Callable[[Any, Batch, jax.Array], Any]
    group_means: Callable[[Any], tuple[jax.Array, jax.Array]]


def _sums(
    values: Float[Array, " B"], group: Int[Array, " B"], num_groups: int
) -> Float[Array, " G"]:
    return jnp.zeros(num_groups, values.dtype).at[group].add(values)


def _ratio(sums: Float[Array, " G"], counts: Float[Array, " G"]) -> Float[Array, " G"]:
    """The quotient, and 0 where the count is 0."""
    return jnp.where(counts > 0, sums, 0.0) / jnp.where(counts > 0, counts, 1.0)


class MinibatchState(NamedTuple):
    """The batch's own sums.

    Attributes:
      sums: ``[G]`` sum of the outcomes.
      counts: ``[G]`` number of examples.
    """

    sums: jax.Array
    counts: jax.Array


def minibatch(num_groups: int) -> Memory:
    """No memory: the outcomes of the current batch only, for the groups that are in it.

    Args:
      num_groups: G.

    Example:
      >>> import numpy as np
      >>> memory = minibatch(num_groups=3)
      >>> group, correct, one = np.array([0, 0, 2]), np.array([1.0, 0.0, 1.0], np.float32), np.ones(3, np.float32)
      >>> state = memory.push(memory.init(group, correct, one), Batch(None, None, group, None, one), correct)
      >>> memory.group_means(state)
      (Array([0.5, 0. , 1. ], dtype=float32), Array([ True, False,  True], dtype=bool))
    """

    def init(group, outcome, weight) -> MinibatchState:
        del group, outcome, weight
        return MinibatchState(jnp.zeros(num_groups), jnp.zeros(num_groups))

    def push(state: MinibatchState, batch: Batch, outcome) -> MinibatchState:
        del state
        group, weight = jnp.asarray(batch.group), jnp.asarray(batch.weight)
        return MinibatchState(
            _sums(weight * outcome, group, num_groups), _sums(weight, group, num_groups)
        )

    def group_means(state: MinibatchState) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
        return _ratio(state.sums, state.counts), state.counts > 0

    return Memory(init, push, group_means)


class ReplayBufferState(NamedTuple):
    """A ring of outcomes for every group.

    Attributes:
      ring: ``[G, M]`` outcomes; 0 where nothing was written yet.
      head: ``[G]`` int32, the place of the next write.
      count: ``[G]`` int32, how many places hold an outcome.
      sums: ``[G]``, the sum of each ring.
    """

    ring: jax.Array
    head: jax.Array
    count: jax.Array
    sums: jax.Array


def replay_buffer(num_groups: int, size: int) -> Memory:
    """The last ``size`` outcomes of every group; a group is observed once its buffer is full.

    The published memory of CEAG, with 40 places. It equals one double-ended queue of ``maxlen=size`` per group, filled
    in the order of the batch: of a group that brings more than ``size`` examples, the last ones stay. The authors' code
    loops over groups on the host; here a push is one scatter.

    Args:
      num_groups: G.
      size: M, at least 1.

    Raises:
      ValueError: for a ``size`` below 1.

    Example:
      >>> import numpy as np
      >>> memory = replay_buffer(num_groups=2, size=2)
      >>> group, correct, one = np.array([0, 0, 0, 1]), np.array([0., 1., 1., 1.], np.float32), np.ones(4, np.float32)
      >>> state = memory.push(memory.init(group, correct, one), Batch(None, None, group, None, one), correct)
      >>> memory.group_means(state)
      (Array([1., 0.], dtype=float32), Array([ True, False], dtype=bool))

    References:
      Hashemizadeh et al., `Balancing Act <https://arxiv.org/abs/2310.20673>`_, 2024.
    """
    if size < 1:
        raise ValueError(f"size={size}: a buffer needs at least one place.")

    def init(group, outcome, weight) -> ReplayBufferState:
        del group, outcome, weight  # the published buffers start empty
        return ReplayBufferState(
            ring=jnp.zeros((num_groups, size)),
            head=jnp.zeros(num_groups, jnp.int32),
            count=jnp.zeros(num_groups, jnp.int32),
            sums=jnp.zeros(num_groups),
        )

    def push(state: ReplayBufferState, batch: Batch, outcome) -> ReplayBufferState:
        weight = jnp.asarray(batch.weight)
        # Padding goes to a group of its own, past the last one, and is dropped by the scatters.
        group = jnp.where(weight > 0, jnp.asarray(batch.group), num_groups)
        num = group.shape[0]
        # The rank of an example within its group, in the order of the batch: its place in a stable sort by
        # group, less the place where the group begins.
        order = jnp.argsort(group, stable=True)
        place = jnp.zeros(num, jnp.int32).at[order].set(jnp.arange(num, dtype=jnp.int32))
        arrived = jnp.zeros(num_groups + 1, jnp.int32).at[group].add(1)
        begin = jnp.cumulative_sum(arrived) - arrived
        rank = place - begin[group]
        stays = (group < num_groups) & (rank >= arrived[group] - size)
        row = jnp.where(stays, group, num_groups)
        slot = (state.head.at[row].get(mode="clip") + rank) % size
        old = state.ring.at[row, slot].get(mode="fill", fill_value=0.0)
        change = jnp.where(stays, outcome - old, 0.0)
        return ReplayBufferState(
            ring=state.ring.at[row, slot].add(change, mode="drop"),
            head=(state.head + arrived[:num_groups]) % size,
            count=jnp.minimum(state.count + arrived[:num_groups], size),
            sums=state.sums.at[row].add(change, mode="drop"),
        )

    def group_means(state: ReplayBufferState) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
        full = state.count == size
        return jnp.where(full, state.sums / size, 0.0), full

    return Memory(init, push, group_means)


class ExampleMemoryState(NamedTuple):
    """The last outcome of every training example.

    Attributes:
      outcome: ``[N]``.
      sums: ``[G]``, the sum of the outcomes of each group. Exact for outcomes of 0 and 1 up to 16 million examples
        in a group.
      counts: ``[G]``, the number of examples of each group; a constant.
    """

    outcome: jax.Array
    sums: jax.Array
    counts: jax.Array


def example_memory(num_groups: int) -> Memory:
    """The last outcome of every example of the training split, started from the reference model's.

    A group's mean is over all of its training examples, so it has no sampling noise; it lags, as an example's
    outcome was seen when the example was last in a batch, half an epoch ago on average. Every group with an example is
    observed from the first step, when the means are the reference model's own.

    Args:
      num_groups: G.

    Example:
      >>> import numpy as np
      >>> memory = example_memory(num_groups=2)
      >>> group, correct, one = np.array([0, 0, 1]), np.array([1.0, 0.0, 1.0], np.float32), np.ones(3, np.float32)
      >>> state = memory.init(group, correct, one)
      >>> memory.group_means(state)
      (Array([0.5, 1. ], dtype=float32), Array([ True,  True], dtype=bool))
      >>> now = Batch(None, None, group[1:2], np.array([1]), one[:1])  # example 1 is seen again, and is right now
      >>> memory.group_means(memory.push(state, now, np.array([1.0], np.float32)))[0]
      Array([1., 1.], dtype=float32)
    """

    def init(group, outcome, weight) -> ExampleMemoryState:
        outcome, weight = jnp.asarray(outcome), jnp.asarray(weight)
        group = jnp.asarray(group)
        return ExampleMemoryState(
            outcome=weight * outcome,
            sums=_sums(weight * outcome, group, num_groups),
            counts=_sums(weight, group, num_groups),
        )

    def push(state: ExampleMemoryState, batch: Batch, outcome) -> ExampleMemoryState:
        index, weight = jnp.asarray(batch.index), jnp.asarray(batch.weight)
        # Adding the change, rather than writing the value, lets XLA update both arrays in place.
        change = weight * (outcome - state.outcome[index])
        return ExampleMemoryState(
            outcome=state.outcome.at[index].add(change),
            sums=state.sums.at[jnp.asarray(batch.group)].add(change),
            counts=state.counts,
        )

    def group_means(state: ExampleMemoryState) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
        return _ratio(state.sums, state.counts), state.counts > 0

    return Memory(init, push, group_means)
