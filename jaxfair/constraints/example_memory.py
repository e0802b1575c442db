"""The memory of the recipe: the last outcome of every training example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxfair.constraints.memories import Memory, errors_of, finite, ratio, sums_by_group
from jaxfair.typing import Batch


class ExampleMemoryState(NamedTuple):
    """The last outcome of every training example.

    Attributes:
      outcome: ``[N]``.
      sums: ``[G]``, the sum of the outcomes of each group. Exact for outcomes of 0 and 1 up to 16 million examples
        in a group.
      squares: ``[G]``, the sum of their squares.
      counts: ``[G]``, the number of examples of each group; a constant.
    """

    outcome: jax.Array
    sums: jax.Array
    squares: jax.Array
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
        outcome, weight = finite(outcome, weight)
        group = jnp.asarray(group)
        return ExampleMemoryState(
            outcome=weight * outcome,
            sums=sums_by_group(weight * outcome, group, num_groups),
            squares=sums_by_group(weight * outcome**2, group, num_groups),
            counts=sums_by_group(weight, group, num_groups),
        )

    def push(state: ExampleMemoryState, batch: Batch, outcome) -> ExampleMemoryState:
        index = jnp.asarray(batch.index)
        outcome, weight = finite(outcome, batch.weight)
        # Adding the change, rather than writing the value, lets XLA update both arrays in place.
        group, old = jnp.asarray(batch.group), state.outcome[index]
        change = weight * (outcome - old)
        return ExampleMemoryState(
            outcome=state.outcome.at[index].add(change),
            sums=state.sums.at[group].add(change),
            squares=state.squares.at[group].add(weight * (outcome**2 - old**2)),
            counts=state.counts,
        )

    def group_means(state: ExampleMemoryState) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
        return ratio(state.sums, state.counts), state.counts > 0

    def standard_errors(state: ExampleMemoryState) -> Float[Array, " G"]:
        return errors_of(state.sums, state.squares, state.counts)

    return Memory(init, push, group_means, standard_errors)
