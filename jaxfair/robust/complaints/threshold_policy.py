r"""Fix a criterion when complaints have cost as much as fixing it would: the rule for complaints without a law.

Each criterion has an account :math:`A_i` of the complaints that were paid since it was last unfixed. At a complaint
:math:`l` about an unfixed criterion i,

.. math:: A_i + l \ge c_i \;\Rightarrow\; \text{fix } i,\; A_i \leftarrow 0; \qquad
          \text{else pay } l,\; A_i \leftarrow A_i + l

**Theorem.** For every stream of one complaint an event,

.. math:: \mathrm{cost} \;\le\; 2\,(1 + \Delta \rho)\, \mathrm{OPT} + \sum_i c_i

with OPT of :func:`~jaxfair.robust.offline_cost`, :math:`\Delta` the largest number of criteria that one excludes, and
:math:`\rho \ge 1` the largest :math:`c_i / c_j` over criteria that exclude each other. Without edges this is the factor
2 of ski rental, which no rule without chance can beat.

*Proof.* Cut the time of criterion i into blocks, from being unfixed (or the start) to being fixed. The rule pays at
most :math:`2 c_i` in a block. What has the optimum done meanwhile?

- (A) It had i unfixed all the time: it paid the block's complaints, at least :math:`c_i`.
- (B) It fixed i within: it paid :math:`c_i`, in this block alone.
- (C) Neither: it had i fixed at the block's start, so the block began with the rule fixing a neighbour j, and at that
  time the optimum had j unfixed. If j's block was of type (A), charge that: it is charged by at most :math:`\Delta`
  neighbours, each at :math:`\rho` times its cost. Else the optimum had j fixed at some time in j's block and i at its
  end, so it fixed i within j's block: charge that fixing, which lies in blocks of at most :math:`\Delta` neighbours.

Unfinished blocks have cost less than :math:`\sum_i c_i`. ∎

With edges the bound is not shown to be tight. Where several complaints come at once, of those that are due and exclude
each other the largest goes first, the others wait; the theorem is silent about such streams.

The model and the theorem are ours, after the idea of arXiv 2008.09490: see :func:`jaxfair.robust.play`. Ski rental:
Karlin, Manasse, Rudolph and Sleator, Competitive Snoopy Caching, Algorithmica 3, 1988.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxfair.robust.complaints.independent_sets import floats
from jaxfair.robust.complaints.play import Policy, check_costs


def threshold_policy(graph: Any, costs: Any) -> Policy:
    """Makes the rule; its memory are the accounts, ``[k]``.

    Args:
      graph: ``[k, k]`` booleans, True where two criteria exclude each other; it may be traced.
      costs: ``[k]``, above 0; they may be traced.

    Returns:
      A `Policy` for :func:`~jaxfair.robust.play`.

    Raises:
      ValueError: as :func:`~jaxfair.robust.play`.

    Example:
      Two criteria that exclude each other, at a cost of 3. The second complaint about the second finds it unfixed, but
      its account is still below 3, so the first stays fixed:

      >>> import numpy as np
      >>> from jaxfair import robust
      >>> edge, costs = np.array([[0, 1], [1, 0]], bool), np.array([3.0, 3.0])
      >>> events = np.eye(2)[[0, 0, 0, 1, 1, 1]]
      >>> played = robust.play(threshold_policy(edge, costs), events, edge, costs)
      >>> played.fixed.astype(int).tolist()
      [[0, 0], [0, 0], [1, 0], [1, 0], [1, 0], [0, 1]]
      >>> float(played.cost[-1]), float(robust.offline_cost(events, edge, costs)[-1])
      (10.0, 6.0)
    """
    k = check_costs(graph, costs)
    edges, limit = jnp.asarray(graph, bool), floats(costs)
    earlier = jnp.tri(k, k=-1, dtype=bool)  # [i, j]: j stands before i

    def act(account: Array, fixed: Array, seen: Array) -> tuple[Array, Array]:
        total = account + seen
        due = ~fixed & (seen > 0) & (total >= limit)
        mine, other = seen[:, None], seen[None, :]
        first = (other > mine) | ((other == mine) & earlier)
        fix = due & ~jnp.any(edges & due[None, :] & first, axis=1)
        after = (fixed & ~jnp.any(edges & fix[None, :], axis=1)) | fix
        return after, jnp.where(after, 0, total)

    return Policy(init=lambda: jnp.zeros_like(limit), act=act)


def threshold_bound(graph: Any, costs: Any) -> Float[Array, ""]:
    r"""The factor :math:`2 (1 + \Delta\rho)` of the theorem; what is added to it is the sum of the costs.

    Args:
      graph: ``[k, k]`` booleans; it may be traced.
      costs: ``[k]``, above 0.

    Raises:
      ValueError: as :func:`~jaxfair.robust.play`.

    Example:
      >>> import numpy as np
      >>> star = np.zeros((4, 4), bool)
      >>> star[0, 1:] = star[1:, 0] = True
      >>> float(threshold_bound(star, np.ones(4))), float(threshold_bound(star, np.array([2.0, 1.0, 1.0, 1.0])))
      (8.0, 14.0)
    """
    check_costs(graph, costs)
    edges, limit = jnp.asarray(graph, bool), floats(costs)
    degree = jnp.max(jnp.sum(edges, axis=1))
    ratio = jnp.max(jnp.where(edges, limit[None, :] / limit[:, None], 1))
    return 2 * (1 + degree * ratio)
