r"""Which criteria can be fixed together: the independent sets of the graph of those that exclude each other.

The graph has an edge between two criteria that cannot both be met, such as equal precision and equal error rates where
base rates differ (:func:`~jaxfair.robust.incompatible`). A state of play is a set of criteria without an edge in it.

States stand in the order of the numbers whose bits they are, the first criterion being the highest bit. Of k criteria
there are at most :math:`2^k` states, and 20 criteria are the most that is taken.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

#: The most criteria: two to this many states are looked at.
MOST = 20


def check_graph(graph: Any) -> int:
    """The number of criteria of a graph; what is no graph is refused. A traced one may be wrong about its edges."""
    shape = np.shape(graph)
    if len(shape) != 2 or shape[0] != shape[1] or not 1 <= shape[0] <= MOST:
        raise ValueError(
            f"graph of shape {shape}: give [k, k] booleans of at most {MOST} criteria, since there are 2^k states."
        )
    if isinstance(graph, Tracer):
        return shape[0]
    edges = np.asarray(graph)
    if edges.dtype.kind not in "biuf" or not np.isin(edges, (0, 1)).all():
        raise ValueError("graph has other entries than 0 and 1: 1 stands where two criteria exclude each other.")
    if (loop := np.flatnonzero(np.diag(edges))).size:
        raise ValueError(f"graph: criterion {loop[0]} excludes itself, so it could never be fixed; leave it out.")
    if (one_way := np.argwhere(edges != edges.T)).size:
        i, j = one_way[0].tolist()
        raise ValueError(
            f"graph: criteria {i} and {j} exclude each other in one direction only; make the graph symmetric."
        )
    return shape[0]


def all_states(num_criteria: int) -> Bool[np.ndarray, "N k"]:
    """Every set of criteria, independent or not."""
    bits = np.arange(num_criteria - 1, -1, -1)
    return (np.arange(2**num_criteria)[:, None] >> bits & 1).astype(bool)


def can_be(graph: Any) -> Bool[Array, " N"]:
    """Which of `all_states` are independent; the graph may be traced."""
    states = all_states(np.shape(graph)[0])
    edges = jnp.asarray(graph, bool)
    found = jnp.ones(len(states), bool)
    for i in range(len(edges)):  # one criterion at a time: of 20, a product of states and edges has 20 million entries
        found &= ~(states[:, i] & jnp.any(states & edges[i][None, :], axis=1))
    return found


def independent_sets(graph: Any) -> Bool[np.ndarray, "N k"]:
    """All sets of criteria that can be fixed together, the empty one first.

    Args:
      graph: ``[k, k]`` booleans, True where two criteria exclude each other.

    Returns:
      ``[N, k]``, True where a criterion belongs to the set.

    Raises:
      ValueError: for a graph that is not square, has a loop or is not symmetric, and for more than 20 criteria.

    Example:
      Three criteria in a row, each of which excludes the next:

      >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
      >>> independent_sets(path).astype(int).tolist()
      [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 0, 1]]
    """
    return all_states(check_graph(graph))[np.asarray(can_be(np.asarray(graph)))]


def heaviest_set(graph: Any, weights: Any) -> Bool[Array, " k"]:
    """The independent set with the largest sum of weights, of equals one with the fewest criteria.

    It answers where to stay: with what a criterion is expected to cost unfixed, less its fixing cost, as weights.

    Args:
      graph: ``[k, k]`` booleans; it may be traced.
      weights: ``[k]``, of any sign.

    Returns:
      ``[k]`` booleans.

    Raises:
      ValueError: as :func:`independent_sets`.

    Example:
      The outer two together weigh more than the heavy one between them:

      >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
      >>> heaviest_set(path, np.array([0.5, 0.8, 0.4])).tolist()
      [True, False, True]
    """
    states = jnp.asarray(all_states(check_graph(graph)))
    value = jnp.where(can_be(graph), sum_over(states, floats(weights)), -jnp.inf)
    size = jnp.where(value == jnp.max(value), jnp.sum(states, axis=1), len(states[0]) + 1)
    return states[jnp.argmin(size)]


def sum_over(states: Bool[Array, "*N k"], weights: Float[Array, " k"]) -> Float[Array, "*N"]:
    """The weight of each state, exact zeros for what it lacks: states that differ by a weight of 0 are equal."""
    return jnp.sum(jnp.where(states, weights[(None,) * (states.ndim - 1)], 0), axis=-1)


def floats(values: Any) -> Array:
    """As an array of floats, in its own precision where it has one."""
    found = jnp.asarray(values)
    return found if jnp.issubdtype(found.dtype, jnp.floating) else found.astype(jnp.result_type(float))
