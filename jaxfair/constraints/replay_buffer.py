"""The published memory of CEAG: the last outcomes of every group, in rings that one scatter fills."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxfair.constraints.memories import Memory, errors_of, finite
from jaxfair.typing import Batch


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
        outcome, weight = finite(outcome, batch.weight)
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

    def standard_errors(state: ReplayBufferState) -> Float[Array, " G"]:
        # Places that were not written hold 0. The whole ring is read only where somebody asks.
        squares = jnp.sum(state.ring**2, axis=1)
        return errors_of(state.sums, squares, state.count.astype(state.sums.dtype))

    return Memory(init, push, group_means, standard_errors)
