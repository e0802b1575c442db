r"""The cheapest play of a stream of complaints in hindsight, by dynamic programming, and the best state to stay in.

With :math:`v_t(S)` the least that the first t events cost a play that ends in the independent set :math:`S`,

.. math:: v_t(S) = \min_{S'} \Big[ v_{t-1}(S') + \sum_{i \in S \setminus S'} c_i \Big] + \sum_{i \notin S} l_{t,i}

Costs of moving are a sum over criteria, so the minimum is taken one criterion at a time over the cube of all
:math:`2^k` sets: k passes over it, in place of all pairs of states. Sets that are not independent are infinite at the
end of each event. It is :math:`O(T k 2^k)`.

The model is ours: see :func:`jaxfair.robust.play`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxfair.robust.complaints.independent_sets import can_be, floats, heaviest_set
from jaxfair.robust.complaints.play import check_game


def offline_cost(events: Any, graph: Any, costs: Any) -> Float[Array, " T"]:
    """What the first t events cost who knows them beforehand, for every t; the last is the offline optimum.

    Args:
      events: ``[T, k]``, at least 0.
      graph: ``[k, k]`` booleans; it may be traced.
      costs: ``[k]``, above 0.

    Returns:
      ``[T]``. Every entry is an optimum of its own: the play behind it may differ from that behind the entry before.

    Raises:
      ValueError: as :func:`~jaxfair.robust.play`.

    Example:
      Two criteria that exclude each other, and cost 3: complaints about the first, then the second, then the first. To
      fix the first costs 3, and two complaints about the second:

      >>> import numpy as np
      >>> edge = np.array([[0, 1], [1, 0]], bool)
      >>> events = np.eye(2)[[0] * 3 + [1] * 2 + [0]]
      >>> offline_cost(events, edge, np.array([3.0, 3.0])).tolist()
      [1.0, 2.0, 3.0, 4.0, 5.0, 5.0]
    """
    check_game(events, graph, costs)
    allowed, costs = can_be(graph), floats(costs)

    def one_criterion(value: Array, numbers: tuple[Array, Array]) -> tuple[Array, None]:
        loss, cost = numbers
        without, within = value.reshape(2, -1)
        moved = jnp.minimum(without, within) + loss, jnp.minimum(within, without + cost)
        return jnp.stack(moved, axis=-1).reshape(-1), None  # this criterion is the lowest bit now, the next the highest

    def event(value: Array, losses: Array) -> tuple[Array, Array]:
        value, _ = jax.lax.scan(one_criterion, value, (losses, costs), unroll=True)
        value = jnp.where(allowed, value, jnp.inf)
        return value, jnp.min(value)

    losses = floats(events)
    empty = jnp.full(len(allowed), jnp.inf, jnp.result_type(losses, costs)).at[0].set(0)
    return jax.lax.scan(event, empty, losses)[1]


def best_state(events: Any, graph: Any, costs: Any) -> Bool[Array, " k"]:
    """The state that is cheapest to stay in from the first event on, in hindsight.

    Args:
      events: ``[T, k]``, at least 0.
      graph: ``[k, k]`` booleans.
      costs: ``[k]``, above 0.

    Returns:
      ``[k]`` booleans, for :func:`~jaxfair.robust.stay_policy`.

    Raises:
      ValueError: as :func:`~jaxfair.robust.play`.

    Example:
      >>> import numpy as np
      >>> edge = np.array([[0, 1], [1, 0]], bool)
      >>> best_state(np.tile([1.0, 2.0], (10, 1)), edge, np.array([3.0, 3.0])).tolist()
      [False, True]
    """
    check_game(events, graph, costs)
    return heaviest_set(graph, jnp.sum(floats(events), axis=0) - floats(costs))
