r"""The k-th largest number of every group of rows, found by counting; and integers in the order of floats.

Wanted is the largest threshold that enough numbers reach,

.. math:: \tau = \max \{ v : |\{i : a_i \ge v\}| \ge k\}

for a k that is known only at run time, exactly, whatever the numbers are. Floats are compared as
unsigned integers of the same order, their keys, and an interval of keys is kept,

.. math:: |\{i : a_i \ge low\}| \ge k > |\{i : a_i \ge high\}|

A round counts for four thresholds in one pass over the numbers and keeps the part of the interval
that must hold :math:`\tau`. Only the counts decide, so where the thresholds come from is a
matter of speed:

- The first four come from a sample of every 31st column: what this same search finds in it, three
  standard errors above the wanted rank and three below.
- Later ones are read off a straight line between the ends of the interval: of the n numbers in it,
  those above its point x are a share 1 - x up to about :math:`1 / \sqrt n`. Two thresholds stand
  this far to both sides, so that a round leaves about the square root of what it began with. The
  other two leave no part longer than a third of the interval. A sample or a line that misleads
  therefore costs rounds, but not more than 21 for 32 bits.

The rounds end when the count is k, mostly long before the interval has one element, or when it has:
the numbers that are left are then equal. 25 million weights take about six passes where bit by bit
it would be 32.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int, UInt

from jaxfair.typing import Array

#: Every so many columns belong to the sample. Odd, since the last axis of a layer, its channels, is
#: often a power of two: an even stride would see some of the channels only.
STRIDE = 31
#: From so many numbers on, a sample saves more passes than it costs.
LARGE = 1 << 16
#: A count per row has 15 bits, and two of them share an int32.
LONGEST_ROW = 1 << 13


class Bracket(NamedTuple):
    """Where the search ended, for each of G groups.

    Attributes:
      low: ``[G]`` unsigned; at least k keys are not below it.
      high: ``[G]`` unsigned; fewer than k keys are not below it, unless k is 0.
      from_low: ``[G]`` int32, the number of keys that are `low` or more. Either it is k, or `high` is
        ``low + 1``.
      from_high: ``[G]`` int32, the number of keys that are `high` or more.
    """

    low: Array
    high: Array
    from_low: Array
    from_high: Array


def sortable(x: Float[Array, "..."]) -> UInt[Array, "..."]:
    """Unsigned integers in the order of the floats; -0 and 0 become one, NaN the largest.

    Neither the smallest nor the largest integer of the type is used.

    Args:
      x: ``[...]`` float16, bfloat16, float32 or float64.

    Returns:
      ``[...]`` of the unsigned integer type of the same width.

    Example:
      >>> import numpy as np
      >>> x = jnp.array([-jnp.inf, -1.0, -0.0, 0.0, 1e-45, 1.0, jnp.inf, -jnp.nan])
      >>> np.sign(np.diff(np.asarray(sortable(x)).astype(np.int64))).tolist()
      [1, 1, 0, 1, 1, 1, 1]
    """
    return keys_of(x, x.dtype)


def movable(x: Float[Array, "..."]) -> Array:
    """The numbers in a form in which XLA moves them unchanged: those of 16 bits as unsigned integers.

    It pads and cuts bfloat16 as float32, on whose way back a denormal number may become zero. Wider floats stay as they
    are, since integers made of them would be written to memory.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if jnp.finfo(x.dtype).bits == 16 else x


def keys_of(moved: Array, dtype: Any) -> UInt[Array, "..."]:
    """`sortable` of numbers of this type that came through `movable`."""
    unsigned = jnp.dtype(f"uint{jnp.finfo(dtype).bits}")
    zero = jnp.array(1 << (jnp.finfo(dtype).bits - 1), unsigned)  # the key of 0, and the mask of the sign
    u = lax.bitcast_convert_type(moved, unsigned)
    # Done on integers, because a comparison of floats may take a denormal number for zero.
    infinity = lax.bitcast_convert_type(jnp.array(jnp.inf, dtype), unsigned)
    size = u & ~zero
    key = jnp.where(u >= zero, zero - size, zero + size)
    return jnp.where(size > infinity, zero + infinity + jnp.array(1, unsigned), key)


def kth_largest(
    rows: Float[Array, "rows columns"] | UInt[Array, "rows columns"],
    owner: Int[np.ndarray, " rows"],
    filled: Int[np.ndarray, " rows"],
    k: Int[Array, " groups"],
    dtype: Any = jnp.float32,
) -> Bracket:
    """Searches all groups at once.

    Args:
      rows: ``[R, C]`` numbers that came through `movable`, ``C <= 8192``. Every row belongs to one group.
      owner: ``[R]`` the groups of the rows, ascending from 0.
      filled: ``[R]`` how many columns of a row are its numbers; the rest must be -inf and is not
        counted.
      k: ``[G]`` int32, in ``[0, n]`` for a group of n numbers.
      dtype: of the numbers.

    Returns:
      The `Bracket`.

    Example:
      The two largest of (3, 1, 4) and the largest of (1, 5):

      >>> rows = jnp.array([[3.0, 1.0, 4.0], [1.0, 5.0, -jnp.inf]])
      >>> owner, filled = np.array([0, 1]), np.array([3, 2], np.int32)
      >>> found = jax.jit(lambda rows, k: kth_largest(movable(rows), owner, filled, k))(rows, jnp.array([2, 1]))
      >>> (sortable(rows) >= found.low[:, None]).tolist(), found.from_low.tolist()
      ([[True, False, True], [False, True, False]], [2, 1])
    """
    first = None
    if rows.size >= LARGE:
        sample, of_sample = rows[:, ::STRIDE], -(-filled // STRIDE)
        size, in_sample = _per_group(filled, owner), _per_group(of_sample, owner)
        rank = k.astype(jnp.float32) * (in_sample / size).astype(np.float32)
        slack = 3.0 * jnp.sqrt(jnp.maximum(rank * (1.0 - rank / in_sample.astype(np.float32)), 0))
        ranks = jnp.stack([jnp.ceil(rank + slack) + 1.0, jnp.floor(rank - slack) - 1.0])
        ranks = jnp.clip(ranks.astype(jnp.int32), 0, in_sample[None])
        found = jax.vmap(lambda k: _search(sample, owner, of_sample, k, dtype, None))(ranks).low
        # Above the whole sample it has nothing to say; twice its largest number is likely enough.
        largest = jax.ops.segment_max(jnp.max(keys_of(sample, dtype), axis=1), owner, k.size)
        doubled = largest + jnp.minimum(1 << jnp.finfo(dtype).nmant, ~largest)
        found = jnp.where(ranks == 0, doubled[None], found)
        # Each with the next integer: of equal numbers the sample has seen the very one.
        first = jnp.concatenate([found, jnp.minimum(found, ~jnp.zeros_like(found) - 1) + 1])
    return _search(rows, owner, filled, k, dtype, first)


def _search(rows, owner, filled, k, dtype, first) -> Bracket:
    size = jnp.asarray(_per_group(filled, owner))
    lowest = sortable(jnp.full(size.shape, -jnp.inf, dtype))
    start = Bracket(lowest, ~jnp.zeros_like(lowest), size, jnp.zeros_like(size))

    def unfinished(carry):
        found, _ = carry
        return jnp.any((found.from_low > k) & (found.high - found.low > 1))

    def round_(carry):
        found, thresholds = carry
        counts = jnp.concatenate([count(rows, owner, thresholds, dtype), found.from_low[None], found.from_high[None]])
        keys = jnp.concatenate([thresholds, found.low[None], found.high[None]])
        # The counts fall where the keys rise, so each end has the extreme of both.
        enough = counts >= k[None]
        found = Bracket(
            jnp.max(jnp.where(enough, keys, 0), axis=0),
            jnp.min(jnp.where(enough, ~jnp.zeros_like(keys), keys), axis=0),
            jnp.min(jnp.where(enough, counts, size[None]), axis=0),
            jnp.max(jnp.where(enough, 0, counts), axis=0),
        )
        return found, _thresholds(found, k)

    if first is None:
        first = _thresholds(start, k)
    return lax.while_loop(unfinished, round_, (start, first))[0]


def _thresholds(found: Bracket, k: Array) -> Array:
    """``[4, G]`` keys between the ends, around the place where a straight line has the k-th."""
    inside = jnp.maximum(found.from_low - found.from_high, 1).astype(jnp.float32)
    at = jnp.clip((found.from_low - k).astype(jnp.float32) / inside, 0.0, 1.0)
    spread = 1.2 * jnp.sqrt(jnp.maximum(at * (1.0 - at), 1.0 / inside) / inside)
    spread = jnp.minimum(spread, 0.1)
    a, b = jnp.maximum(at - spread, 0.0), jnp.minimum(at + spread, 1.0)
    # Of the rest, no part is longer than a third.
    below, above = a, 1.0 - b
    c = jnp.where(above > 2 * below, b + above / 3, jnp.where(below > 2 * above, a / 3, a / 2))
    d = jnp.where(below > 2 * above, 2 * a / 3, 1.0 - jnp.where(above > 2 * below, above / 3, above / 2))
    points = jnp.stack([a, b, c, d])
    # Below 1 by enough for the product to be an integer of the type, also after rounding.
    width = (found.high - found.low)[None]
    step = (jnp.minimum(points, 0.999) * width.astype(jnp.float32)).astype(width.dtype)
    return found.low[None] + jnp.clip(step, 1, jnp.maximum(width, 2) - 1)


def count(
    rows: Float[Array, "rows columns"] | UInt[Array, "rows columns"],
    owner: Int[np.ndarray, " rows"],
    thresholds: UInt[Array, "4 groups"],
    dtype: Any,
) -> Int[Array, "4 groups"]:
    """How many keys of each group reach each of its four thresholds, in one pass."""
    return _per_group(count_rows(rows, owner, thresholds, dtype).T, owner, thresholds.shape[1]).T


def count_rows(rows, owner, thresholds, dtype) -> Array:
    """The same, before the rows of a group are added up: ``[4, R]`` int32."""
    # Tied to the thresholds, which change, the keys are computed in every pass. Computed once, outside
    # of the loop, they would be written, and memory that nobody wrote to yet costs five passes.
    rows, thresholds = lax.optimization_barrier((rows, thresholds))
    keys = keys_of(rows, dtype)
    a, b, c, d = (jnp.where(keys >= t[owner][:, None], 1, 0).astype(jnp.int32) for t in thresholds)
    # Two sums in one reduction, each of two counts: XLA splits a plain sum into steps, and writes its
    # summands for that.
    zero = jnp.zeros((), jnp.int32)
    sums = lax.reduce((a + (b << 16), c + (d << 16)), (zero, zero), lambda x, y: (x[0] + y[0], x[1] + y[1]), (1,))
    return jnp.stack([half for s in sums for half in (s & 0xFFFF, s >> 16)])


def _per_group(numbers: Any, owner: np.ndarray, num_groups: int | None = None) -> Any:
    if num_groups is None:
        return np.bincount(owner, numbers).astype(np.int32)
    return jax.ops.segment_sum(numbers, owner, num_groups, indices_are_sorted=True)
