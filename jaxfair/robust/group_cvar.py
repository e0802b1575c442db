r"""CVaR over groups: the mean loss of the worst groups that together make up a share of the people."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxfair.robust._numbers import check_number
from jaxfair.robust.cvar import cvar_weights
from jaxfair.robust.group_dro import GroupInfo, check_groups, check_sizes, group_means
from jaxfair.robust.objective import Objective
from jaxfair.typing import Batch, check_count


def group_cvar(
    num_groups: int, *, sizes: ArrayLike | Sequence[int], alpha: ArrayLike = 0.2, decay: ArrayLike = 0.9
) -> Objective:
    r"""Trains on the worst groups that make up a share of the people, by moving averages of their losses.

    .. math:: \bar L_g \leftarrow \gamma \bar L_g + (1 - \gamma) L_g, \qquad
       q = \arg\max_q \sum_g q_g \bar L_g \;\; \text{with} \;\; q_g \le n_g / (N \alpha)

    A group that is absent keeps its average. At a share of 1 it is ordinary training wherever batches have the groups'
    shares.

    How this differs from the authors' code ("by the loss"): their search runs past the last group where the shares sum
    to less than the level.

    Args:
      num_groups: G.
      sizes: ``[G]`` numbers of examples in the training split, at least 1 each.
      alpha: the share of people, in (0, 1].
      decay: :math:`\gamma` in [0, 1).

    Returns:
      The :class:`Objective`, whose ``init(key, batch)`` gives the averages.

    Raises:
      ValueError: for numbers out of range, unless traced, or a group without a training example.

    Example:
      A quarter of the people are in group 1, the worse one:

      >>> objective = group_cvar(2, sizes=[3, 1], alpha=0.5, decay=0.0)
      >>> batch = Batch(None, None, jnp.array([0, 1]), None, jnp.ones(2))
      >>> start = objective.init(None, batch)
      >>> objective.weigh(start, jnp.array([1.0, 2.0]), batch, None)[2].q.tolist()
      [0.5, 0.5]

    References:
      Sagawa et al., 2020, their code; Oren et al., `Distributionally robust language modeling
      <https://arxiv.org/abs/1909.02060>`_, 2019.
    """
    check_count("num_groups", num_groups)
    people = check_sizes(sizes, num_groups)
    if people is None:
        raise ValueError("sizes=None: give how many examples each group has in training.")
    check_number(alpha, lambda a: (a > 0) & (a <= 1), f"alpha={alpha}: give a share above 0 and at most 1.")
    check_number(decay, lambda d: (d >= 0) & (d < 1), f"decay={decay}: give a number from 0 to below 1.")
    shares = (people / people.sum()).astype(np.float32)

    def init(key: Any, batch: Batch) -> jax.Array:
        del key
        check_groups(batch, num_groups)
        return jnp.zeros(num_groups)

    def weigh(
        state: Float[Array, " G"], losses: Float[Array, " B"], batch: Batch, key: Any
    ) -> tuple[Float[Array, " B"], Float[Array, " G"], GroupInfo]:
        del key
        means, count, part = group_means(losses, batch, num_groups)
        # An average begins with what is seen first: from 0 a rare group would count as the best one for a long time.
        mixed = jnp.where(state == 0.0, means, decay * state + (1.0 - decay) * means)
        average = jnp.where(count > 0, mixed, state)
        q = cvar_weights(average, jnp.asarray(shares), alpha)
        return q @ part, average, GroupInfo(jnp.sum(q * means), means, q, count)

    return Objective(init, weigh)
