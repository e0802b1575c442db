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
may be from that of all people of the group. Means are weighted, and a weight says how much a person counts: n is
:math:`(\sum w)^2 / \sum w^2`, so that people of weight 4 are as many as people of weight 1. It knows nothing of the
lag. Of ``example_memory`` too: as an estimate of the training split's own accuracy it has no sampling error, as one of
other people's it has.

A person who is in a batch more than once counts as often in the first three; ``example_memory`` keeps the last of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair.constraints._numbers import check_count, check_number, check_shape
from jaxfair.constraints._people import finite, ids, ratio, sums_by_group
from jaxfair.typing import Batch


class Memory(NamedTuple):
    """The functions of a memory of outcomes: correct or not (1 or 0), or a loss.

    Attributes:
      init: ``init(group [N], outcome [N], weight [N]) -> state``, from the outcomes of the reference model on the
        whole training split.
      push: ``push(state, batch, outcome [B]) -> state``. Padding (weight 0) leaves no trace, nor does an example of no
        group, nor one whose outcome or weight is not finite: in a running sum it would stay for ever. (What is beyond
        1e15 counts as infinite.)
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


class Moments(NamedTuple):
    r"""What is known of every group's outcomes, with weights w: all that means and their errors need.

    Attributes:
      sums: ``[G]``, :math:`\sum w o`.
      spread: ``[G]``, :math:`\sum w (o - m)^2` about the mean m.
      counts: ``[G]``, :math:`\sum w`.
      squared_counts: ``[G]``, :math:`\sum w^2`.
    """

    sums: jax.Array
    spread: jax.Array
    counts: jax.Array
    squared_counts: jax.Array


def no_moments(num_groups: int) -> Moments:
    """Of nobody; no two fields share memory."""
    return Moments(*(jnp.zeros(num_groups) for _ in Moments._fields))


def moments_of(group: ArrayLike, outcome: ArrayLike, weight: ArrayLike, num_groups: int) -> Moments:
    """Of some people, in two passes: the squares of large numbers would cancel."""
    outcome, weight = finite(outcome, weight)
    at = ids("group", group, num_groups, weight.shape)
    sums, counts, squared = (sums_by_group(v, at, num_groups) for v in (weight * outcome, weight, weight**2))
    apart = outcome - ratio(sums, counts).at[at].get(mode="fill", fill_value=0)
    return Moments(sums, sums_by_group(weight * apart**2, at, num_groups), counts, squared)


def means_of(moments: Moments) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
    """Means, 0 of nobody, and which groups have somebody."""
    return ratio(moments.sums, moments.counts), moments.counts > 0


def errors_of(moments: Moments) -> Float[Array, " G"]:
    r"""Standard errors of the means: those of a sample of :math:`n = (\sum w)^2 / \sum w^2` people.

    A weight says how much a person counts, and four times the weight is no four people: a common factor of all weights
    changes nothing.
    """
    people = ratio(moments.counts**2, moments.squared_counts)
    enough = people > 1 + 1e-4  # one person is 1 but for what sums of many have left behind
    variance = ratio(moments.spread, moments.counts)
    return jnp.where(enough, jnp.sqrt(variance / jnp.where(enough, people - 1, 1.0)), jnp.inf)


def minibatch(num_groups: int) -> Memory:
    """No memory: the outcomes of the current batch only, for the groups that are in it.

    Args:
      num_groups: G.

    Returns:
      The memory; its state is :class:`Moments`.

    Example:
      >>> import numpy as np
      >>> memory = minibatch(num_groups=3)
      >>> group, correct, one = np.array([0, 0, 2]), np.array([1.0, 0.0, 1.0], np.float32), np.ones(3, np.float32)
      >>> state = memory.push(memory.init(group, correct, one), Batch(None, None, group, None, one), correct)
      >>> memory.group_means(state)
      (Array([0.5, 0. , 1. ], dtype=float32), Array([ True, False,  True], dtype=bool))
    """
    check_count("num_groups", num_groups)

    def init(group, outcome, weight) -> Moments:
        del group, outcome, weight
        return no_moments(num_groups)

    def push(state: Moments, batch: Batch, outcome) -> Moments:
        del state
        return moments_of(batch.group, outcome, batch.weight, num_groups)

    return Memory(init, push, means_of, errors_of)


def exponential_average(num_groups: int, decay: ArrayLike = 0.99) -> Memory:
    r"""All outcomes, those of t steps ago with the weight :math:`d^t`.

    A mean is a weighted one, :math:`\sum_i w_i o_i / \sum_i w_i`, so it needs no correction at the start, and a group
    that comes seldom keeps its last value. The weights of examples multiply those of time.

    Args:
      num_groups: G.
      decay: d in ``[0, 1)`` per step, for all groups or ``[G]``. 0 is :func:`minibatch` that keeps what it saw last.

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
    check_count("num_groups", num_groups)
    check_shape("decay", decay, num_groups, "groups")

    def init(group, outcome, weight) -> Moments:
        del group, outcome, weight
        return no_moments(num_groups)

    def push(state: Moments, batch: Batch, outcome) -> Moments:
        new = moments_of(batch.group, outcome, batch.weight, num_groups)
        # Time passes for a group when it is seen, so that nothing underflows while it is not.
        d = jnp.where(new.counts > 0, jnp.asarray(decay, new.counts.dtype), 1.0)
        old = Moments(d * state.sums, d * state.spread, d * state.counts, d**2 * state.squared_counts)
        apart = jnp.where((old.counts > 0) & (new.counts > 0), means_of(new)[0] - means_of(old)[0], 0.0)
        both = Moments(*(a + b for a, b in zip(old, new, strict=True)))
        between = ratio(old.counts * new.counts, both.counts) * apart**2
        return both._replace(spread=both.spread + between)

    return Memory(init, push, means_of, errors_of)


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
        weight = jnp.asarray(weight)
        return ((weight > 0) & jnp.isfinite(weight)).astype(jnp.float32)

    def init(group, outcome, weight) -> Any:
        return memory.init(group, outcome, ones(weight))

    def push(state: Any, batch: Batch, outcome) -> Any:
        return memory.push(state, batch._replace(weight=ones(batch.weight)), outcome)

    return memory._replace(init=init, push=push)
