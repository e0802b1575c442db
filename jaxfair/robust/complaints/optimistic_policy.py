r"""Go where the criteria that are left unfixed have cost least, counted cheaply: the rule for complaints with a law.

At each event criterion i draws a complaint in :math:`[0, L]` with mean :math:`\mu_i`, which is seen only of those that
are not fixed. To stay in a state costs :math:`m(S) = \sum_{i \notin S} \mu_i` an event, so the best is to go to
:math:`S^* = \arg\min_S m(S)`, a heaviest independent set, and to stay. With :math:`n_i` complaints seen about i, of
mean :math:`\hat\mu_i`,

.. math:: \mathrm{lower}_i = \max\Big(0,\; \hat\mu_i - L \sqrt{2 \log(k T) / n_i}\Big), \qquad
          S_t = \arg\min_S \sum_{i \notin S} \mathrm{lower}_i

and 0 for a criterion that was never seen. Of equal states the one with the fewest fixed criteria is taken, so at first
nothing is fixed; it is chosen anew only when some :math:`n_i` has doubled.

With high probability all lower bounds are below the means, and then

.. math:: \mathrm{regret} = \sum_t m(S_t) - m(S^*) \;\le\; \sum_t \sum_{i \notin S_t} (\mu_i - \mathrm{lower}_i)
          \;\le\; O\big(L k \sqrt{T \log(k T)}\big)

beside at most :math:`k (1 + \log_2 T)` moves. Each costs at most :math:`\sum_i c_i`, and an event in which another
state was seen than was paid for. Criteria that were counted too cheap are left unfixed, and those are the ones that are
seen: no event is set aside for exploring. Where complaints depend on which neighbours are fixed, this does not hold.

The model and the rule are ours, after the idea of arXiv 2008.09490: see :func:`jaxfair.robust.play`. Optimism where
parts of a sum are seen: Kveton, Wen, Ashkan and Szepesvári, `Tight Regret Bounds for Stochastic Combinatorial
Semi-Bandits <https://arxiv.org/abs/1410.0949>`_, 2015.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from jaxfair import tree
from jaxfair.optim import numbers
from jaxfair.robust.complaints.independent_sets import check_graph, heaviest_set
from jaxfair.robust.complaints.play import Policy


class OptimisticMemory(NamedTuple):
    """What the rule remembers.

    Attributes:
      total: ``[k]``, the sum of the complaints that were seen.
      count: ``[k]`` int32, how many.
      then: ``[k]`` int32, how many when a state was last chosen.
      state: ``[k]`` booleans, the state that was chosen.
      clipped: int32, how many complaints were above ``largest``, and taken for it.
    """

    total: jax.Array
    count: jax.Array
    then: jax.Array
    state: jax.Array
    clipped: jax.Array


def optimistic_policy(graph: Any, *, horizon: ArrayLike, largest: ArrayLike = 1.0) -> Policy:
    """Makes the rule.

    Args:
      graph: ``[k, k]`` booleans, True where two criteria exclude each other; it may be traced.
      horizon: T, how many events there will be; at least 1.
      largest: L, the largest complaint that there can be. :func:`~jaxfair.robust.play` refuses a larger one; where the
        events are traced it is taken for L, and counted in the memory.

    Returns:
      A `Policy` for :func:`~jaxfair.robust.play`.

    Raises:
      ValueError: for what is no graph, a horizon below 1, and a largest complaint that is not above 0.

    Example:
      The second criterion draws more complaints than the first, which it excludes; for 16 events the rule cannot tell:

      >>> import numpy as np
      >>> from jaxfair import robust
      >>> edge, costs = np.array([[0, 1], [1, 0]], bool), np.array([3.0, 3.0])
      >>> events = np.tile([0.1, 0.9], (200, 1))
      >>> played = robust.play(optimistic_policy(edge, horizon=200), events, edge, costs)
      >>> played.fixed[-1].tolist(), int(played.fixed[:, 1].argmax())
      ([False, True], 16)
    """
    k = check_graph(graph)
    numbers.check("horizon", horizon, 1.0, float("inf"))
    numbers.check("largest", largest, 0.0, float("inf"), ends="()")
    reach = jnp.asarray(largest, jnp.result_type(float))
    log_term = 2 * jnp.log(k * jnp.asarray(horizon, reach.dtype))

    def chosen(memory: OptimisticMemory) -> OptimisticMemory:
        count = jnp.maximum(memory.count, 1)
        lower = memory.total / count - reach * jnp.sqrt(log_term / count)
        lower = jnp.where(memory.count > 0, jnp.maximum(lower, 0), 0)
        return memory._replace(state=heaviest_set(graph, lower), then=memory.count)

    def init() -> OptimisticMemory:
        none = jnp.zeros(k, jnp.int32)
        return OptimisticMemory(jnp.zeros(k, reach.dtype), none, none, jnp.zeros(k, bool), jnp.zeros((), jnp.int32))

    def act(memory: OptimisticMemory, fixed: Array, seen: Array) -> tuple[Array, OptimisticMemory]:
        doubled = jnp.any(memory.count >= jnp.maximum(2 * memory.then, 1))
        memory = tree.cond_any(doubled, chosen, lambda memory: memory, memory)
        # The complaints of this event come too late for its own choice: who chose by them would be too hopeful.
        total = memory.total + jnp.where(fixed, 0, jnp.minimum(seen, reach)).astype(reach.dtype)
        clipped = memory.clipped + jnp.sum(seen > reach, dtype=jnp.int32)
        return memory.state, memory._replace(total=total, count=memory.count + ~fixed, clipped=clipped)

    return Policy(init, act, largest)
