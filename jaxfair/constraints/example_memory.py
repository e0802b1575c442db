"""The memory of the recipe: the last outcome of every training example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxfair.constraints._numbers import check_count
from jaxfair.constraints._people import finite, ids, last_of_each, ratio
from jaxfair.constraints.memories import Memory, Moments, errors_of, means_of, moments_of
from jaxfair.tree import cond_any, copied
from jaxfair.typing import Batch


class ExampleMemoryState(NamedTuple):
    """The last outcome of every training example, with the weight that it had then.

    Attributes:
      outcome: ``[N]``.
      weight: ``[N]``; 0 for who is not known: padding, people of no group, outcomes that are not finite.
      group: ``[N]`` int32; G for who is not known.
      sums: ``[G]``, the weighted sum of the outcomes of each group. Exact for outcomes of 0 and 1 and weights of 1, up
        to 16 million examples in a group.
      spread: ``[G]``, the weighted sum of their squared distances to ``centre``.
      counts: ``[G]``, the sum of the weights.
      squared_counts: ``[G]``, of their squares.
      lost: ``[G, 4]``, what rounding took from the four sums when they last changed; it is added when they change
        again, so that what comes and goes a million times leaves nothing behind.
      centre: ``[G]``, the mean when all were last summed up: squares about it do not cancel.
    """

    outcome: jax.Array
    weight: jax.Array
    group: jax.Array
    sums: jax.Array
    spread: jax.Array
    counts: jax.Array
    squared_counts: jax.Array
    lost: jax.Array
    centre: jax.Array


def example_memory(num_groups: int) -> Memory:
    """The last outcome of every example of the training split, started from the reference model's.

    A group's mean is over all of its training examples, so it has no sampling noise; it lags, as an example's
    outcome was seen when the example was last in a batch, half an epoch ago on average. Every group with an example is
    observed from the first step, when the means are the reference model's own.

    Remembered are outcome and weight of the last time that an example was seen. Of an example that is in a batch more
    than once the last counts, and a position outside of the split is nobody's.

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
    check_count("num_groups", num_groups)

    def init(group, outcome, weight) -> ExampleMemoryState:
        outcome, weight = finite(outcome, weight)
        at = ids("group", group, num_groups, weight.shape)
        known = jnp.where(at < num_groups, weight, 0.0)
        last = copied((outcome, known, jnp.where(known > 0, at, num_groups)))
        return ExampleMemoryState(*last, *summed(*last))

    def push(state: ExampleMemoryState, batch: Batch, outcome) -> ExampleMemoryState:
        people = state.outcome.shape[0]
        outcome, weight = finite(outcome, batch.weight)
        group = ids("group", batch.group, num_groups, weight.shape)
        index = ids("index", batch.index, people, weight.shape)
        index = jnp.where((weight > 0) & (group < num_groups), index, people)
        # Of somebody who is there several times, the last.
        index = jnp.where(last_of_each(index, people), index, people)
        group = jnp.where(index < people, group, num_groups)
        old, was = (a.at[index].get(mode="fill", fill_value=0) for a in (state.outcome, state.weight))
        where = state.group.at[index].get(mode="fill", fill_value=num_groups)

        def apart(of: Float[Array, " B"], at: Int[Array, " B"]) -> Float[Array, " B"]:
            return (of - state.centre.at[at].get(mode="fill", fill_value=0)) ** 2

        last = (
            state.outcome.at[index].set(outcome, mode="drop"),
            state.weight.at[index].set(weight, mode="drop"),
            state.group.at[index].set(group, mode="drop"),
        )
        new = (weight * outcome, weight * apart(outcome, group), weight, weight**2)
        gone = (was * old, was * apart(old, where), was, was**2)
        change = jnp.concatenate([jnp.stack(new, axis=1), -jnp.stack(gone, axis=1)])
        sums, lost = _added(
            jnp.stack(state[3:7], axis=1),
            state.lost + jnp.zeros_like(state.lost).at[jnp.concatenate([group, where])].add(change, mode="drop"),
        )
        sums = (*jnp.moveaxis(sums, 1, 0), lost, state.centre)
        # What leaves a conditional is copied at every step: the sums alone do.
        anew = _has_lost_digits(state, *sums[:3])
        return ExampleMemoryState(*last, *cond_any(anew, lambda: summed(*last), lambda: sums))

    def summed(
        outcome: Float[Array, " N"], weight: Float[Array, " N"], group: Int[Array, " N"]
    ) -> tuple[jax.Array, ...]:
        found = moments_of(group, outcome, weight, num_groups)
        return *found, jnp.zeros_like(jnp.stack(found, axis=1)), means_of(found)[0]

    def group_means(state: ExampleMemoryState) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
        return means_of(Moments(state.sums, state.spread, state.counts, state.squared_counts))

    def standard_errors(state: ExampleMemoryState) -> Float[Array, " G"]:
        # From the centre to the mean. Losses that have fallen together leave a difference of almost equal numbers, so
        # then all are looked at again: only where somebody asks.
        moved = state.counts * (ratio(state.sums, state.counts) - state.centre) ** 2
        spread = state.spread - moved
        many = state.counts**2 > 1.5 * state.squared_counts  # one person has no standard error
        known = Moments(state.sums, jnp.maximum(spread, 0.0), state.counts, state.squared_counts)
        recounted = cond_any(
            jnp.any(many & (moved > 100.0 * spread)),
            lambda: moments_of(state.group, state.outcome, state.weight, num_groups),
            lambda: known,
        )
        return errors_of(recounted)

    return Memory(init, push, group_means, standard_errors)


def _added(a: Float[Array, "G 4"], b: Float[Array, "G 4"]) -> tuple[Float[Array, "G 4"], Float[Array, "G 4"]]:
    """A sum as rounded, and exactly what rounding took from it (Knuth's two-sum)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def _has_lost_digits(
    before: ExampleMemoryState, sums: Float[Array, " G"], spread: Float[Array, " G"], counts: Float[Array, " G"]
) -> Bool[Array, ""]:
    """Whether something left a sum that was large beside what stays: a loss of 1e10, of which the rounding would stay.

    Or a mean that was large when all were summed up, or a group that was left by all of its people. Outcomes of 0 and 1
    are exact, and seldom ask for it.
    """

    def fell(old: Float[Array, " G"], new: Float[Array, " G"]) -> Bool[Array, ""]:
        return jnp.any((jnp.abs(old) > 100.0 * jnp.abs(new)) & (jnp.abs(old) > before.counts))

    shrunk = jnp.any((jnp.abs(before.centre) * counts > 100.0 * jnp.abs(sums)) & (counts > 1000.0))
    left = jnp.any(before.counts > 100.0 * counts)
    return fell(before.sums, sums) | fell(before.spread, spread) | shrunk | left
