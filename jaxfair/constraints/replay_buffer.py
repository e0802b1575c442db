"""The published memory of CEAG: the last outcomes of every group, in rings that one scatter fills."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxfair.constraints._numbers import check_count
from jaxfair.constraints._people import finite, ids, ratio
from jaxfair.constraints.memories import Memory, Moments, errors_of
from jaxfair.typing import Batch


class ReplayBufferState(NamedTuple):
    """A ring of outcomes for every group.

    Attributes:
      ring: ``[G, M]`` outcomes; 0 where nothing was written yet.
      weight: ``[G, M]``, their weights; 0 there.
      head: ``[G]`` int32, the place of the next write.
      count: ``[G]`` int32, how many places hold an outcome.
      sums: ``[G]``, the weighted sum of each ring.
      total: ``[G]``, the sum of its weights.
    """

    ring: jax.Array
    weight: jax.Array
    head: jax.Array
    count: jax.Array
    sums: jax.Array
    total: jax.Array


def replay_buffer(num_groups: int, size: int) -> Memory:
    """The last ``size`` outcomes of every group, weighted; a group is observed once its buffer is full.

    The published memory of CEAG, with 40 places. It equals one double-ended queue of ``maxlen=size`` per group, filled
    in the order of the batch: of a group that brings more than ``size`` examples, the last ones stay. The authors' code
    loops over groups on the host; here a push is one scatter.

    Args:
      num_groups: G.
      size: M, at least 1.

    Raises:
      ValueError: for a ``size`` that is no whole number of at least 1.

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
    check_count("size", size)
    check_count("num_groups", num_groups)

    def init(group, outcome, weight) -> ReplayBufferState:
        del group, outcome, weight  # the published buffers start empty
        return ReplayBufferState(
            ring=jnp.zeros((num_groups, size)),
            weight=jnp.zeros((num_groups, size)),
            head=jnp.zeros(num_groups, jnp.int32),
            count=jnp.zeros(num_groups, jnp.int32),
            sums=jnp.zeros(num_groups),
            total=jnp.zeros(num_groups),
        )

    def push(state: ReplayBufferState, batch: Batch, outcome) -> ReplayBufferState:
        outcome, weight = finite(outcome, batch.weight)
        # Padding goes to a group of its own, past the last one, and is dropped by the scatters.
        group = jnp.where(weight > 0, ids("group", batch.group, num_groups, weight.shape), num_groups)
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
        ring = state.ring.at[row, slot].set(outcome, mode="drop")
        weights = state.weight.at[row, slot].set(weight, mode="drop")
        # The rings that were written to are summed up anew: what has left one leaves no rounding behind. Two of one
        # group write the same sum.
        values, of = (a.at[row].get(mode="fill", fill_value=0) for a in (ring, weights))
        return ReplayBufferState(
            ring=ring,
            weight=weights,
            head=(state.head + arrived[:num_groups]) % size,
            count=jnp.minimum(state.count + arrived[:num_groups], size),
            sums=state.sums.at[row].set(jnp.sum(of * values, axis=1), mode="drop"),
            total=state.total.at[row].set(jnp.sum(of, axis=1), mode="drop"),
        )

    def group_means(state: ReplayBufferState) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
        full = state.count == size
        return jnp.where(full, ratio(state.sums, state.total), 0.0), full

    def standard_errors(state: ReplayBufferState) -> Float[Array, " G"]:
        # Places that were not written have no weight. The whole ring is read only where somebody asks.
        mean = ratio(state.sums, state.total)
        spread = jnp.sum(state.weight * (state.ring - mean[:, None]) ** 2, axis=1)
        return errors_of(Moments(state.sums, spread, state.total, jnp.sum(state.weight**2, axis=1)))

    return Memory(init, push, group_means, standard_errors)
