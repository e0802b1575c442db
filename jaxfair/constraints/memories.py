r"""Memories: what is known of every group's outcomes, from more than one batch.

A minibatch holds a few members of a group, or none; its accuracy is mostly sampling noise. A memory keeps past
outcomes. They differ in what they keep:

===================  ===============================  ==================================  ============================
memory               keeps                            sampling noise                      lag
===================  ===============================  ==================================  ============================
minibatch            nothing                          of the batch                        none
replay_buffer        the last M outcomes of a group   :math:`\sqrt{a(1-a)/M}`             M / (examples of g per step)
exponential_average  all, with weight :math:`d^t`     of about (1 + d) / (1 - d) steps    d / (1 - d) steps
                     after t steps
example_memory       the last outcome of every        none: it is the training set        half an epoch on average
                     training example
===================  ===============================  ==================================  ============================

All are ``(init, push, group_means, standard_errors)`` over plain pytrees with running sums, so a push costs as much as
the batch is large, whatever the number of groups and examples.

The standard error is that of the remembered outcomes as a sample of people, :math:`s_g / \sqrt{n_g}`: how far the mean
may be from that of all people of the group. It knows nothing of the lag. Of ``example_memory`` too: as an estimate of
the training split's own accuracy it has no sampling error, as one of other people's it has.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxfair.constraints._numbers import check_number
from jaxfair.typing import Batch


class Memory(NamedTuple):
    """The functions of a memory of outcomes: correct or not (1 or 0), or a loss.

    Attributes:
      init: ``init(group [N], outcome [N], weight [N]) -> state``, from the outcomes of the reference model on the
        whole training split.
      push: ``push(state, batch, outcome [B]) -> state``. Padding (weight 0) leaves no trace, nor does an outcome that
        is not finite: in a running sum it would stay for ever.
      group_means: ``group_means(state) -> (means [G], observed [G])``. The mean of an unobserved group is 0.
      standard_errors: ``standard_errors(state) -> [G]``, of the means; infinite for fewer than two outcomes.

    Example:
      What is known of three groups, after a batch with two people of the first and one of the last:

      >>> memory, group, one = minibatch(num_groups=3), jnp.array([0, 0, 2]), jnp.ones(3)
      >>> state = memory.init(group, jnp.array([1.0, 1.0, 1.0]), one)  # nothing: it keeps no one
      >>> state = memory.push(state, Batch(None, None, group, None, one), jnp.array([1.0, 0.0, 1.0]))
      >>> memory.group_means(state)
      (Array([0.5, 0. , 1. ], dtype=float32), Array([ True, False,  True], dtype=bool))
      >>> memory.standard_errors(state)
      Array([0.5, inf, inf], dtype=float32)
    """

    init: Callable[..., Any]
    push: Callable[[Any, Batch, jax.Array], Any]
    group_means: Callable[[Any], tuple[jax.Array, jax.Array]]
    standard_errors: Callable[[Any], jax.Array]


def sums_by_group(values: Float[Array, " B"], group: Int[Array, " B"], num_groups: int) -> Float[Array, " G"]:
    """``[G]`` sums of ``[B]`` values."""
    return jnp.zeros(num_groups, values.dtype).at[group].add(values)


def ratio(sums: Float[Array, " G"], counts: Float[Array, " G"]) -> Float[Array, " G"]:
    """The quotient, and 0 where the count is 0."""
    return jnp.where(counts > 0, sums, 0.0) / jnp.where(counts > 0, counts, 1.0)


def finite(outcome: ArrayLike, weight: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Outcomes and weights, both 0 where an outcome is not finite."""
    outcome, weight = jnp.asarray(outcome), jnp.asarray(weight)
    keep = jnp.isfinite(outcome)
    return jnp.where(keep, outcome, 0), jnp.where(keep, weight, 0)


def _of_batch(batch: Batch, outcome: ArrayLike, num_groups: int) -> tuple[jax.Array, ...]:
    """Sums of the outcomes, of their squares, and of ones, by group."""
    group = jnp.asarray(batch.group)
    outcome, weight = finite(outcome, batch.weight)
    values = (weight * outcome, weight * outcome**2, weight)
    return tuple(sums_by_group(jnp.asarray(v), group, num_groups) for v in values)


def errors_of(sums: Float[Array, " G"], squares: Float[Array, " G"], counts: Float[Array, " G"]) -> Float[Array, " G"]:
    """Standard errors of means from sums, sums of squares and (effective) numbers of outcomes."""
    mean = ratio(sums, counts)
    variance = jnp.maximum(ratio(squares, counts) - mean**2, 0.0)
    enough = counts > 1
    return jnp.where(enough, jnp.sqrt(variance / jnp.where(enough, counts - 1, 1.0)), jnp.inf)


class MinibatchState(NamedTuple):
    """The batch's own sums.

    Attributes:
      sums: ``[G]`` sum of the outcomes.
      squares: ``[G]`` sum of their squares.
      counts: ``[G]`` number of examples.
    """

    sums: jax.Array
    squares: jax.Array
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
        return MinibatchState(*(jnp.zeros(num_groups) for _ in range(3)))

    def push(state: MinibatchState, batch: Batch, outcome) -> MinibatchState:
        del state
        return MinibatchState(*_of_batch(batch, outcome, num_groups))

    def group_means(state: MinibatchState) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
        return ratio(state.sums, state.counts), state.counts > 0

    return Memory(init, push, group_means, lambda state: errors_of(*state))


class ExponentialAverageState(NamedTuple):
    """Sums in which what is t steps old counts :math:`d^t`.

    Attributes:
      sums: ``[G]`` of the outcomes.
      squares: ``[G]`` of their squares.
      counts: ``[G]`` of ones.
      squared_counts: ``[G]`` of the squares of the weights.
    """

    sums: jax.Array
    squares: jax.Array
    counts: jax.Array
    squared_counts: jax.Array


def exponential_average(num_groups: int, decay: ArrayLike = 0.99) -> Memory:
    r"""All outcomes, those of t steps ago with the weight :math:`d^t`.

    A mean is a weighted one, :math:`\sum_i w_i o_i / \sum_i w_i`, so it needs no correction at the start, and a group
    that comes seldom keeps its last value. Its standard error uses the effective number of outcomes,
    :math:`(\sum w_i)^2 / \sum w_i^2`.

    Args:
      num_groups: G.
      decay: d in ``[0, 1)`` per step. 0 is :func:`minibatch` that keeps what it saw last.

    Raises:
      ValueError: for a decay outside of that, unless it is traced.

    Example:
      >>> import numpy as np
      >>> memory, one = exponential_average(num_groups=2, decay=0.5), np.ones(2, np.float32)
      >>> state = memory.init(np.zeros(2, int), one, one)
      >>> for correct in (1.0, 0.0, 0.0):  # weights 1/4, 1/2, 1
      ...     state = memory.push(state, Batch(None, None, np.zeros(2, int), None, one), correct * one)
      >>> memory.group_means(state)[0].round(3)
      Array([0.143, 0.   ], dtype=float32)
    """
    check_number(
        decay,
        lambda d: (d >= 0) & (d < 1),
        f"decay={decay}: give a number of at least 0 and below 1.",
    )

    def init(group, outcome, weight) -> ExponentialAverageState:
        del group, outcome, weight
        return ExponentialAverageState(*(jnp.zeros(num_groups) for _ in range(4)))

    def push(state: ExponentialAverageState, batch: Batch, outcome) -> ExponentialAverageState:
        new = _of_batch(batch, outcome, num_groups)
        # Time passes for a group when it is seen, so that nothing underflows while it is not.
        d = jnp.where(new[2] > 0, decay, 1.0)
        return ExponentialAverageState(
            *(d * old + now for old, now in zip(state[:3], new, strict=True)),
            squared_counts=d**2 * state.squared_counts + new[2],
        )

    def group_means(state: ExponentialAverageState) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
        return ratio(state.sums, state.counts), state.counts > 0

    def standard_errors(state: ExponentialAverageState) -> Float[Array, " G"]:
        effective = ratio(state.counts**2, state.squared_counts)
        share = ratio(effective, state.counts)
        return errors_of(share * state.sums, share * state.squares, effective)

    return Memory(init, push, group_means, standard_errors)


def unweighted(memory: Memory) -> Memory:
    """A memory that counts people, whatever they weigh in the loss.

    Batches with as many of each group (`train.balanced_order`) carry weights that undo it in every mean over the batch.
    The last outcome of a person is no such mean: with those weights a memory would count a tenth of a person.

    Args:
      memory: any `Memory`.

    Returns:
      The same, for which every weight above 0 is 1. Padding still leaves no trace.

    Example:
      >>> import numpy as np
      >>> memory, group = unweighted(minibatch(num_groups=2)), np.array([0, 1, 1])
      >>> batch = Batch(None, None, group, None, np.array([2.5, 0.25, 0.25], np.float32))
      >>> memory.push(memory.init(group, np.ones(3), np.ones(3)), batch, np.ones(3, np.float32)).counts
      Array([1., 2.], dtype=float32)
    """

    def ones(weight: ArrayLike) -> jax.Array:
        return (jnp.asarray(weight) > 0).astype(jnp.float32)

    def init(group, outcome, weight) -> Any:
        return memory.init(group, outcome, ones(weight))

    def push(state: Any, batch: Batch, outcome) -> Any:
        return memory.push(state, batch._replace(weight=ones(batch.weight)), outcome)

    return memory._replace(init=init, push=push)
