r"""Fairness by complaints: criteria that exclude each other, what they cost unfixed, and a policy that fixes them.

This is **our model**, after the idea of the paper below, of which we know the abstract alone: fairness is driven by the
complaints that are received, and of many criteria not all can be met at once. In detail, k criteria are the nodes of a
graph; edges join criteria that exclude each other. The state :math:`S` is the set of fixed criteria, an independent
set, empty at first. At each event

1. complaints are revealed: :math:`l_i \ge 0` about criterion i, of those that are not fixed;
2. the policy moves to another independent set :math:`S'`. To fix i costs :math:`c_i`; to unfix costs nothing, and who
   fixes a criterion unfixes those that it excludes;
3. it pays :math:`\sum_{i \notin S'} l_i`.

In the **adversarial** setting there is no law behind the complaints, and a policy is held against the cheapest play in
hindsight, :func:`~jaxfair.robust.offline_cost`: that is :func:`~jaxfair.robust.threshold_policy`. In the **stochastic**
setting complaints are drawn anew at each event, and it is held against the best state to stay in:
:func:`~jaxfair.robust.optimistic_policy`.

Reference: Awasthi, Cortes, Mansour and Mohri, `Beyond Individual and Group Fairness
<https://arxiv.org/abs/2008.09490>`_, 2020 (the idea: complaints, incompatible criteria, both settings).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jaxfair.optim import numbers
from jaxfair.robust.complaints.independent_sets import check_graph, floats, sum_over


class Policy(NamedTuple):
    """Who decides which criteria are fixed, as two functions.

    Attributes:
      init: ``init() -> memory``, a pytree.
      act: ``act(memory, fixed [k], seen [k]) -> (fixed, memory)``, pure. ``fixed`` is the state before the move, and
        ``seen`` are the complaints of the event, 0 about criteria that are fixed. It gives the state to go to.
      largest: the largest complaint that the policy is made for; None where there is none.
    """

    init: Callable[[], Any]
    act: Callable[[Any, Array, Array], tuple[Array, Any]]
    largest: Any = None


class Played(NamedTuple):
    """What was done at each event, and what it cost; made by :func:`play`.

    Attributes:
      fixed: ``[T, k]`` booleans, the state after the move.
      paid: ``[T]`` for complaints; nan where the policy fixed two criteria that exclude each other.
      spent: ``[T]`` for fixing.
      memory: the policy's, at the end.
    """

    fixed: jax.Array
    paid: jax.Array
    spent: jax.Array
    memory: Any

    @property
    def cost(self) -> jax.Array:
        """``[T]``, or ``[..., T]`` of lanes: of all events up to and with each."""
        return jnp.cumsum(self.paid + self.spent, axis=-1)


def check_costs(graph: Any, costs: Any) -> int:
    """The number of criteria, where graph and costs fit; what is traced may have any values."""
    k = check_graph(graph)
    if np.shape(costs) != (k,):
        raise ValueError(f"costs of shape {np.shape(costs)}: give one for each of {k} criteria.")
    numbers.check("costs", costs, 0.0, float("inf"), ends="()")
    return k


def check_game(events: Any, graph: Any, costs: Any) -> int:
    """The same, of a stream of complaints, too."""
    k = check_costs(graph, costs)
    if len(np.shape(events)) != 2 or np.shape(events)[1] != k:
        raise ValueError(f"events of shape {np.shape(events)}: give [T, {k}], complaints about each of {k} criteria.")
    if not isinstance(events, Tracer):
        wrong = ~((losses := np.asarray(events)) >= 0) | ~np.isfinite(losses)
        if wrong.any():
            raise ValueError(f"a complaint of {losses[wrong][0]}: complaints cost, so give finite numbers, 0 or above.")
    return k


def play(policy: Policy, events: Any, graph: Any, costs: Any) -> Played:
    """Plays a policy through a stream of complaints, as one scan. May be vmapped, over graphs and policies, too.

    Args:
      policy: a `Policy`.
      events: ``[T, k]``, what is complained of at each event, at least 0. A row of zeros but for i is about i alone.
      graph: ``[k, k]`` booleans, True where two criteria exclude each other.
      costs: ``[k]``, of fixing each, above 0.

    Returns:
      What was done and paid at every event.

    Raises:
      ValueError: for a graph with a loop, one-way edges or more than 20 criteria, costs that are not above 0, negative
        complaints, complaints larger than the policy is made for, and shapes that do not fit.

    Example:
      One criterion that costs 10, and ten complaints of 1. Whoever waits until they have cost as much pays 9, and 10:

      >>> from jaxfair import robust
      >>> graph, costs, events = np.zeros((1, 1), bool), np.array([10.0]), np.ones((10, 1))
      >>> played = play(robust.threshold_policy(graph, costs), events, graph, costs)
      >>> played.cost.tolist()
      [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 19.0]

      Policies are closures over arrays, so four costs are four lanes:

      >>> spent = jax.vmap(lambda c: play(robust.threshold_policy(graph, c), events, graph, c).cost[-1])
      >>> spent(jnp.array([[2.0], [4.0], [8.0], [16.0]])).tolist()
      [3.0, 7.0, 15.0, 10.0]
    """
    k = check_game(events, graph, costs)
    if policy.largest is not None and not isinstance(events, Tracer) and not isinstance(policy.largest, Tracer):
        found = np.max(events, initial=0)
        if found > policy.largest:
            raise ValueError(
                f"a complaint of {found}: the policy is made for {policy.largest} at most; give largest={found}."
            )
    edges = jnp.asarray(graph, bool)
    costs = floats(costs)

    def event(before: tuple[Array, Any], losses: Array) -> tuple[tuple[Array, Any], tuple[Array, Array, Array]]:
        fixed, memory = before
        after, memory = policy.act(memory, fixed, jnp.where(fixed, 0, losses))
        clash = jnp.any(edges & after[None, :] & after[:, None])
        paid = jnp.where(clash, jnp.nan, sum_over(~after, losses))
        return (after, memory), (after, paid, sum_over(after & ~fixed, costs))

    begun = jnp.zeros(k, bool), policy.init()
    (_, memory), (fixed, paid, spent) = jax.lax.scan(event, begun, floats(events))
    return Played(fixed, paid, spent, memory)


def stay_policy(state: Any) -> Policy:
    """Goes to one state at the first event, and stays there: never to fix is the empty one.

    Args:
      state: ``[k]`` booleans, an independent set.

    Example:
      >>> graph, costs = np.zeros((2, 2), bool), np.array([1.0, 5.0])
      >>> events = np.tile([1.0, 0.5], (4, 1))
      >>> [float(play(stay_policy(jnp.array(s)), events, graph, costs).cost[-1]) for s in ([False] * 2, [True, False])]
      [6.0, 3.0]
    """
    return Policy(init=lambda: (), act=lambda memory, fixed, seen: (jnp.asarray(state, bool), memory))
