r"""The k largest of an array, exactly, for a k that is known only at run time.

`jax.lax.top_k` wants a Python integer and sorting costs ``n log n``; a mask needs neither an order
nor a static k. It needs the k-th largest value, which `jaxfair.sparsity._sortable` finds by counting
in a few passes, and a rule for what equals it:

- All arrays are laid out as the rows of one matrix, whatever their shapes, and all groups are
  searched at once: what is compiled hardly grows with the number of arrays, and a pass is one
  reduction over rows, which runs in parallel.
- Ties are broken in favour of the lowest flat index in two levels. The ties of each row are counted,
  and a running sum over rows tells which rows keep all of theirs and which none. At most one row of
  a group must be looked into. Where the count of the threshold is k there are none, and this is
  skipped.

The work is exact integers from beginning to end: no tolerance, no dependence on the range, zero and
denormal numbers included. NaN counts as larger than every number, so that exactly k entries are kept
whatever the scores are. Beside the scores and the masks, one copy of the scores is in memory.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxfair import tree
from jaxfair.sparsity._sortable import LONGEST_ROW, count_rows, keys_of, kth_largest, movable
from jaxfair.typing import Array


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
    return _masks([list(group) for group in groups], list(ks))


@jax.jit  # so that a call outside of any program is one program, too
def _masks(groups: list[list[Array]], ks: list[Any]) -> list[list[Array]]:
    leaves = [leaf for group in groups for leaf in group]
    if not any(leaf.size for leaf in leaves):
        return [[jnp.zeros(leaf.shape, bool) for leaf in group] for group in groups]
    columns = _row_length([leaf.size for leaf in leaves])
    dtype = jnp.result_type(*leaves) if len({x.dtype for x in leaves}) > 1 else leaves[0].dtype
    rows = _as_rows(leaves, columns, dtype)
    # Which group a row belongs to, and how many of its columns are taken. A group without entries has
    # no row, and so no number here.
    owner = np.repeat(
        [g for g, group in enumerate(groups) for _ in group],
        [-(-leaf.size // columns) for leaf in leaves],
    )
    searched, owner = np.unique(owner, return_inverse=True)
    filled = np.concatenate([np.minimum(columns, np.arange(leaf.size, 0, -columns)) for leaf in leaves]).astype(
        np.int32
    )
    k = jnp.stack([jnp.asarray(ks[g]).astype(jnp.int32) for g in searched])
    k = jnp.clip(k, 0, np.bincount(owner, filled).astype(np.int32))

    found = kth_largest(rows, owner, filled, k, dtype)
    exact = found.from_low == k
    all_kept = jnp.where(exact, found.low, found.high)
    end = tree.cond_any(
        jnp.any(~exact),
        lambda: _ends(rows, owner, filled, found.low, jnp.where(exact, 0, k - found.from_high), dtype),
        lambda: jnp.zeros(owner.shape, jnp.int32),
    )
    keys = keys_of(rows, dtype)
    column = lax.broadcasted_iota(jnp.int32, rows.shape, 1)
    kept = (keys == found.low[owner][:, None]) & (column < end[:, None])
    kept = (kept | (keys >= all_kept[owner][:, None])).reshape(-1)
    starts = itertools.accumulate((-(-leaf.size // columns) * columns for leaf in leaves), initial=0)
    masks = (
        _sharded_as(kept[start : start + leaf.size].reshape(leaf.shape), leaf)
        for start, leaf in zip(starts, leaves, strict=False)
    )
    return [[next(masks) for _ in group] for group in groups]


def _row_length(sizes: Sequence[int]) -> int:
    """The power of two with the least work: a row costs about as much as 16 entries, filled or not."""
    lengths = [1 << bits for bits in range(4, LONGEST_ROW.bit_length())]
    return min(lengths, key=lambda c: sum(-(-size // c) for size in sizes) * (c + 16))


def _as_rows(leaves: Sequence[Array], columns: int, dtype: Any) -> Array:
    """``[R, columns]`` of `movable` numbers, each leaf from a new row on, filled up with -inf."""
    parts = []
    for leaf in leaves:
        sharding = jax.typeof(leaf).sharding
        if any(sharding.spec):  # an explicit one, which the rows cannot keep
            leaf = jax.reshard(leaf, jax.NamedSharding(sharding.mesh, jax.P()))
        parts.append(movable(leaf.astype(dtype)).reshape(-1))
        parts.append(movable(jnp.full(-leaf.size % columns, -jnp.inf, dtype)))
    return jnp.concatenate([part for part in parts if part.size]).reshape(-1, columns)


def _sharded_as(mask: Array, leaf: Array) -> Array:
    sharding = jax.typeof(leaf).sharding
    return jax.reshard(mask, sharding) if any(sharding.spec) else mask


def _ends(rows, owner, filled, low, left, dtype) -> Array:
    """``[R]`` the columns before which a row keeps what equals `low`, the first `left` of a group in all."""
    columns = rows.shape[1]
    counts = count_rows(rows, owner, jnp.stack([low, low, low + 1, low + 1]), dtype)
    ties = jnp.minimum(counts[0], filled) - counts[2]
    before = jnp.cumsum(ties) - ties
    before = before - before[np.searchsorted(owner, owner)]
    quota = jnp.clip(left[owner] - before, 0, ties)
    # At most one row of a group keeps some and not all.
    split = (quota > 0) & (quota < ties)
    number = jnp.where(split, np.arange(len(owner), dtype=np.int32), 0)
    number = jax.ops.segment_max(number, owner, left.size, indices_are_sorted=True)
    tied = keys_of(rows[number], dtype) == low[:, None]
    within = jnp.cumsum(tied, axis=1, dtype=jnp.int32) <= quota[number][:, None]
    end = jnp.sum(within, axis=1, dtype=jnp.int32)
    return jnp.where(split, end[owner], jnp.where(quota > 0, columns, 0))
