r"""The k largest of an array, exactly, for a k that is known only at run time.

`jax.lax.top_k` wants a Python integer and sorting costs ``n log n``; a mask needs neither an order
nor a static k. It needs the k-th largest value :math:`\tau`, and the bits of :math:`\tau` can be
found from the highest to the lowest:

.. math:: \tau = \max \{ v : |\{i : a_i \ge v\}| \ge k\}

Floats are compared as unsigned integers of the same order (the sign bit flipped for positive
numbers, all bits for negative ones), so 32 rounds of counting find :math:`\tau` exactly: no
tolerance, no dependence on the range, zero and denormal numbers included. Ties at :math:`\tau` are
broken in favour of the lowest flat index, the last one kept being found by the same bisection over
indices. All arrays of a call share the two loops.

NaN counts as larger than every number, so that exactly k entries are kept whatever the scores are.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxfair.typing import Array


def sortable(x: Float[Array, "..."]) -> Array:
    """Unsigned integers in the order of the floats; -0 and 0 become one, NaN the largest.

    Args:
      x: ``[...]`` float16, bfloat16, float32 or float64.

    Returns:
      ``[...]`` of the unsigned integer type of the same width.

    Example:
      >>> import numpy as np
      >>> x = jnp.array([-jnp.inf, -1.0, -0.0, 0.0, 1e-45, 1.0, jnp.inf])
      >>> np.sign(np.diff(np.asarray(sortable(x)).astype(np.int64))).tolist()
      [1, 1, 0, 1, 1, 1]
    """
    bits = jnp.finfo(x.dtype).bits
    unsigned = jnp.dtype(f"uint{bits}")
    sign = jnp.array(1 << (bits - 1), unsigned)
    u = lax.bitcast_convert_type(x, unsigned)
    # Done on integers, because a comparison of floats may take a denormal number for zero.
    infinity = lax.bitcast_convert_type(jnp.array(jnp.inf, x.dtype), unsigned)
    is_nan = (u & ~sign) > infinity
    u = jnp.where(u == sign, jnp.zeros_like(u), u)
    u = jnp.where(u >= sign, ~u, u | sign)
    return jnp.where(is_nan, ~jnp.zeros_like(u), u)


def top_k(scores: Float[Array, "..."], k: Int[Any, ""] | int) -> Bool[Array, "..."]:
    """The mask of the k largest scores.

    Args:
      scores: ``[...]``, of any shape and float dtype.
      k: ``[]`` integer, traced or not; below 0 it counts as 0, above the size as the size.

    Returns:
      ``[...]`` bool with exactly k entries True. Among equal scores the ones of the lowest flat
      index are kept.

    Example:
      >>> top_k(jnp.array([3.0, 1.0, 2.0, 2.0]), 2).tolist()
      [True, False, True, False]
    """
    return top_k_of_groups([[scores]], [k])[0][0]


def global_top_k(scores: Any, k: Int[Any, ""] | int) -> Any:
    """The mask of the k largest scores of a whole tree.

    Args:
      scores: a pytree of float arrays, each of any shape.
      k: ``[]`` integer, traced or not.

    Returns:
      The tree of bool arrays with exactly k entries True in all. Among equal scores, earlier
      leaves (in the order of `jax.tree.leaves`) win, and within a leaf the lowest flat index.

    Example:
      >>> global_top_k({"a": jnp.array([1.0, 4.0]), "b": jnp.array([[4.0, 4.0]])}, 2)["b"].tolist()
      [[True, False]]
    """
    leaves, structure = jax.tree.flatten(scores)
    return jax.tree.unflatten(structure, top_k_of_groups([leaves], [k])[0])


def top_k_of_groups(groups: Sequence[Sequence[Array]], ks: Sequence[Any]) -> list[list[Array]]:
    """The masks of the k largest scores of each group of arrays, all groups in one search.

    Args:
      groups: lists of float arrays. The arrays of a group compete with each other.
      ks: for each group the number of entries to keep, ``[]`` integers.

    Returns:
      Bool arrays in the same lists.

    Example:
      >>> masks = top_k_of_groups([[jnp.array([1.0, 2.0]), jnp.array([3.0])], [jnp.array([5.0, 5.0])]], [2, 1])
      >>> [[mask.tolist() for mask in group] for group in masks]
      [[[False, True], [True]], [[True, False]]]
    """
    leaves = [leaf for group in groups for leaf in group]
    if not leaves:
        return [[] for _ in groups]
    owner = np.array([g for g, group in enumerate(groups) for _ in group])
    widest = jnp.result_type(*leaves) if len({x.dtype for x in leaves}) > 1 else leaves[0].dtype

    # Leaves of one size are the rows of one matrix: a network has many layers and few sizes, and
    # what is compiled grows with the number of arrays.
    by_size: dict[int, list[int]] = {}
    for i, leaf in enumerate(leaves):
        by_size.setdefault(leaf.size, []).append(i)
    rows = [np.array(positions) for positions in by_size.values()]
    to_leaf_order = np.argsort(np.concatenate(rows))
    keys = [
        sortable(jnp.stack([leaves[i].astype(widest).reshape(-1) for i in positions]))
        for positions in rows
    ]

    def count(matrices):  # -> [leaves], how many entries are True in each
        numbers = [jnp.sum(m, axis=1, dtype=jnp.int32) for m in matrices]
        return jnp.concatenate(numbers)[to_leaf_order]

    def per_group(numbers):  # [leaves] -> [groups]
        return jax.ops.segment_sum(numbers, owner, len(groups))

    def compare(op, arrays, per_leaf):  # each row with the number of its leaf
        return [op(x, per_leaf[i][:, None]) for x, i in zip(arrays, rows, strict=True)]

    # The k-th largest key of every group, bit by bit.
    k = jnp.stack([jnp.asarray(k).astype(jnp.int32) for k in ks])
    unsigned = keys[0].dtype
    bits = jnp.iinfo(unsigned).bits

    def set_bit(i, kth):
        candidate = kth | (jnp.ones_like(kth) << jnp.asarray(bits - 1 - i).astype(unsigned))
        enough = per_group(count(compare(jnp.greater_equal, keys, candidate[owner]))) >= k
        return jnp.where(enough, candidate, kth)

    kth = lax.fori_loop(0, bits, set_bit, jnp.zeros(len(groups), unsigned))
    above = compare(jnp.greater, keys, kth[owner])
    ties = compare(jnp.equal, keys, kth[owner])

    # What the strictly larger ones leave goes to the ties: leaf after leaf, and in a leaf up to some
    # flat index, which is searched for only where a leaf must turn a tie down.
    left = k - per_group(count(above))
    number = count(ties)
    before = jnp.cumsum(number) - number  # ties in the leaves before this one ...
    first = np.searchsorted(owner, owner)
    before = before - before[first]  # ... of its own group
    quota = jnp.clip(left[owner] - before, 0, number)
    crowded = jnp.any(quota < number)
    index = [lax.broadcasted_iota(jnp.int32, x.shape, 1) for x in keys]
    longest = max(by_size)
    rounds = longest.bit_length()

    def raise_end(i, end):  # the largest end such that at most `quota` ties lie before it
        candidate = end | (jnp.ones_like(end) << jnp.asarray(rounds - 1 - i).astype(jnp.int32))
        earlier = compare(jnp.less, index, candidate)
        kept = count([t & e for t, e in zip(ties, earlier, strict=True)])
        return jnp.where(kept <= quota, candidate, end)

    end = lax.fori_loop(
        0,
        jnp.where(crowded, rounds, 0),
        raise_end,
        jnp.full(len(leaves), jnp.where(crowded, 0, longest), jnp.int32),
    )
    earlier = compare(jnp.less, index, end)
    masks: list[Any] = [None] * len(leaves)
    for positions, a, t, e in zip(rows, above, ties, earlier, strict=True):
        kept = a | (t & e)
        for row, i in enumerate(positions):
            masks[i] = kept[row].reshape(leaves[i].shape)
    flat = iter(masks)
    return [[next(flat) for _ in group] for group in groups]
