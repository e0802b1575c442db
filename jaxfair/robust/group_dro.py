r"""Group DRO: groups gain weight exponentially while their loss is high; the network minimises the weighted losses.

.. math:: q_g \leftarrow \frac{q_g\, e^{\eta (L_g + C / \sqrt{n_g})}}{\sum_h q_h\, e^{\eta (L_h + C / \sqrt{n_h})}},
   \qquad \theta \leftarrow \theta - \mathrm{tx}\big(\nabla_\theta \textstyle\sum_g q_g L_g(\theta)\big)

with :math:`L_g` the batch's mean loss of group g, :math:`n_g` its number in the training split, and the new q in the
step of the weights. It plays :math:`\min_\theta \max_g L_g`. With C, small groups are held to a lower training loss,
since theirs says less about new people.

It is a game, too: :func:`jaxfair.constraints.worst_group` is the same as a constrained problem, which every optimizer
of `jaxfair.optim` plays; with gradient ascent of rate eta it gives the same numbers as this.

How this differs from the authors' code: there the adjustment is added in place and so enters the losses that are
logged and reported, too; here it moves q and nothing else. A group that is absent from a batch keeps its q up to the
normalisation, as there, and then the weights of the batch sum to the q of those present.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from jaxfair.robust._numbers import check_number
from jaxfair.robust.objective import Objective
from jaxfair.typing import Batch, check_count


class GroupWeights(NamedTuple):
    """The state of :func:`group_dro`.

    Attributes:
      log_q: ``[G]`` float32, the logarithms of the groups' weights.
    """

    log_q: jax.Array


class GroupInfo(NamedTuple):
    """What an adversary over groups saw.

    Attributes:
      value: scalar, the groups' losses weighted by q; the adjustment is not in it.
      group_loss: ``[G]``, the batch's mean losses; 0 where a group is absent.
      q: ``[G]``, the weights that the network met.
      count: ``[G]``, the weight of each group in the batch.
    """

    value: jax.Array
    group_loss: jax.Array
    q: jax.Array
    count: jax.Array


def group_means(
    losses: Float[Array, " B"], batch: Batch, num_groups: int
) -> tuple[Float[Array, " G"], Float[Array, " G"], Float[Array, "G B"]]:
    """Mean losses of groups, their weights in the batch, and the part that each example has in its group's mean.

    Returns:
      ``[G]`` means (0 where absent), ``[G]`` counts, and ``[G, B]``, whose rows sum to 1 where a group is present.

    Example:
      >>> batch = Batch(None, None, jnp.array([0, 1, 1, -1]), None, jnp.ones(4))
      >>> means, counts, part = group_means(jnp.array([1.0, 2.0, 4.0, 9.0]), batch, 2)
      >>> means.tolist(), counts.tolist(), part[1].tolist()
      ([1.0, 3.0], [1.0, 2.0], [0.0, 0.5, 0.5, 0.0])
    """
    weight = jnp.maximum(jnp.asarray(batch.weight).astype(jnp.float32), 0.0)
    belongs = jnp.arange(num_groups)[:, None] == jnp.asarray(batch.group)[None, :]
    mass = jnp.where(belongs, weight[None, :], 0.0)
    count = jnp.sum(mass, axis=1)
    part = mass / jnp.where(count > 0, count, 1.0)[:, None]
    return part @ losses, count, part


def group_dro(
    num_groups: int,
    *,
    rate: ArrayLike = 0.01,
    sizes: ArrayLike | Sequence[int] | None = None,
    adjustment: ArrayLike = 0.0,
) -> Objective:
    r"""Trains for the worst group, by exponentiated-gradient weights.

    Sample groups alike (`train.balanced_order`): a group that is hardly ever there is hardly ever weighed.

    Args:
      num_groups: G, of the batches. A group without a training example would never be seen: number those there are.
      rate: :math:`\eta`, at least 0; 0 keeps q where it starts. Published defaults are 0.01 and 0.1.
      sizes: ``[G]`` numbers of examples in the training split, at least 1 each. q starts in proportion to them where
        ``rate`` is a Python 0 (then it is ordinary training wherever batches have the groups' shares), else uniform.
      adjustment: C, at least 0; needs ``sizes``.

    Returns:
      The :class:`Objective`, whose ``init(key, batch)`` gives :class:`GroupWeights`.

    Raises:
      ValueError: for numbers out of range, unless traced, a group without a training example, or an adjustment without
        sizes.

    Example:
      Rare and lost groups gain weight; the value is of the losses alone:

      >>> objective = group_dro(2, sizes=[100, 4], adjustment=1.0)
      >>> batch = Batch(None, None, jnp.array([0, 1]), None, jnp.ones(2))
      >>> start = objective.init(jax.random.key(0), batch)
      >>> weights, state, info = objective.weigh(start, jnp.array([0.5, 0.7]), batch, None)
      >>> print(np.asarray(info.q).round(4), round(float(info.value), 4))
      [0.4985 0.5015] 0.6003

    References:
      Sagawa et al., `Distributionally robust neural networks for group shifts
      <https://arxiv.org/abs/1911.08731>`_, 2020.
    """
    check_count("num_groups", num_groups)
    check_number(rate, lambda r: (r >= 0) & np.isfinite(r), f"rate={rate}: give a number of at least 0.")
    refused = f"adjustment={adjustment}: give a number of at least 0."
    check_number(adjustment, lambda c: (c >= 0) & np.isfinite(c), refused)
    still = isinstance(rate, int | float) and rate == 0
    people = check_sizes(sizes, num_groups)
    if people is None and not (isinstance(adjustment, int | float) and adjustment == 0):
        raise ValueError(f"adjustment={adjustment}: give sizes=, how many examples each group has in training.")
    start = np.ones(num_groups) if people is None or not still else people
    start = np.log(start / start.sum()).astype(np.float32)
    above = np.zeros(num_groups, np.float32) if people is None else (1.0 / np.sqrt(people)).astype(np.float32)

    def init(key: Any, batch: Batch) -> GroupWeights:
        del key
        check_groups(batch, num_groups)
        return GroupWeights(jnp.asarray(start))

    def weigh(
        state: GroupWeights, losses: Float[Array, " B"], batch: Batch, key: Any
    ) -> tuple[Float[Array, " B"], GroupWeights, GroupInfo]:
        del key
        means, count, part = group_means(losses, batch, num_groups)
        pressed = jnp.where(count > 0, means + adjustment * above, 0.0)
        log_q = jax.nn.log_softmax(state.log_q + rate * pressed)
        q = jnp.exp(log_q)
        return q @ part, GroupWeights(log_q), GroupInfo(jnp.sum(q * means), means, q, count)

    return Objective(init, weigh)


def check_groups(batch: Batch, num_groups: int) -> None:
    """Refuses a group past the last one: nobody would ever weigh its people. -1 is nobody's; traced ones pass.

    Raises:
      ValueError: with the number.

    Example:
      >>> check_groups(Batch(None, None, np.array([1, 2]), None, None), 2)
      Traceback (most recent call last):
      ...
      ValueError: group 2 is none of 2: number groups from 0, or give a larger num_groups; -1 is nobody's.
    """
    if batch.group is None or isinstance(batch.group, Tracer):
        return
    group = np.asarray(batch.group)
    outside = group[(group < -1) | (group >= num_groups)]
    if outside.size:
        raise ValueError(
            f"group {outside[0]} is none of {num_groups}: number groups from 0, or give a larger num_groups; "
            "-1 is nobody's."
        )


def check_sizes(sizes: ArrayLike | Sequence[int] | None, num_groups: int) -> Float[np.ndarray, " G"] | None:
    """Numbers of training examples as floats, each at least 1; None as it came.

    Raises:
      ValueError: for another shape, or a group without an example.

    Example:
      >>> check_sizes([3, 0], 2)
      Traceback (most recent call last):
      ...
      ValueError: group 1 has 0 training examples: number only the groups that there are, or give it some.
    """
    if sizes is None:
        return None
    people = np.asarray(sizes, np.float64)
    if people.shape != (num_groups,):
        raise ValueError(f"sizes has shape {people.shape}: give one for each of the {num_groups} groups.")
    if not (people >= 1).all():
        empty = int(np.flatnonzero(~(people >= 1))[0])
        raise ValueError(
            f"group {empty} has {people[empty]:g} training examples: number only the groups that there are, or "
            "give it some."
        )
    return people
