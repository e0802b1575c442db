"""People in the order of their confidence, group after group, and the bins that they fall into.

Everything about calibration is a sum over bins, and a bin is a run of people once they are sorted. So all groups are
sorted together, once, and no loop goes over groups: the people of group g lie side by side, those of no group, and
padding, at the end.

With ``n`` people in a group and ``B`` bins, the person of confidence ``f`` and rank ``r`` (from 0) is in bin::

    equal mass    floor(r B / n)               sizes differ by at most one
    equal width   min(floor(f B), B - 1)       right-open, but the last

People who are equally confident are in one bin, also of equal mass: that of their middle rank. A sort would split them
by how the rows happen to stand: of rows that are sorted by outcome, and all of the same confidence, it makes bins in
which all are right, or none.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Bool, Float, Int32

from jaxfair.metrics._grouped import group_counts, group_means
from jaxfair.metrics._rows import Rows, as_float, as_group, check_whole, fit
from jaxfair.typing import Array

#: How people are put into bins.
BINNINGS = ("mass", "width")


class Sorted(NamedTuple):
    """People by group and confidence.

    Attributes:
      confidence: ``[N]``, ascending within a group.
      correct: ``[N]`` booleans.
      row: ``[N]`` where a person stood before.
      group: ``[N]``, ascending; ``num_groups`` for nobody's.
      first: ``[N]`` the place at which a person's group begins.
      size: ``[N]`` how many people are in it.
      begin: ``[N]`` the first place of those who are as confident.
      end: ``[N]`` the last place of those.
      rank: ``[N]`` within the group, from 0; of people who are equally confident their middle rank.
      sizes: ``[G]`` people of each group.
    """

    confidence: Array
    correct: Array
    row: Array
    group: Array
    first: Array
    size: Array
    begin: Array
    end: Array
    rank: Array
    sizes: Array


def checked(
    confidence: Rows, correct: Rows, group: Rows | None, num_groups: int, weight: Rows | None
) -> tuple[Float[Array, "N"], Bool[Array, "N"], Int32[Array, "N"]]:
    """Confidences, outcomes and groups as arrays of JAX; without groups everybody is in the first.

    Raises:
      ValueError: for shapes that do not fit; for a confidence outside ``[0, 1]``, an outcome or a weight that is
        neither 0 nor 1, of somebody who counts and where it can be looked at.

    Example:
      >>> [x.tolist() for x in checked([0.5, 1.0, 7.0], [1, 0, 7], [0, 4, 0], 2, [1, 1, 0])]
      [[0.5, 1.0, 7.0], [True, False, True], [0, 2, 2]]
    """
    fit(confidence=confidence, correct=correct, group=group, weight=weight)
    check_whole("num_groups", num_groups, 0)
    if group is None:
        group = np.zeros(np.shape(confidence), np.int32)
    counts = np.ones(np.shape(confidence), bool)
    if weight is not None:
        _among(weight, (0, 1), counts, "weight must be 0 (padding) or 1 (a person): people are ranked whole")
        if not isinstance(weight, Tracer):
            counts = np.asarray(weight) != 0
    if not isinstance(weight, Tracer):
        _among(correct, (0, 1), counts, "correct must be 0 or 1: whether the prediction is right")
        _within(confidence, counts)
    group = as_group(group, num_groups)
    if weight is not None:
        group = jnp.where(as_float(weight) != 0, group, jnp.int32(num_groups))
    return as_float(confidence), as_float(correct) != 0, group


def _among(values: Any, allowed: tuple[int, ...], counts: np.ndarray, words: str) -> None:
    if isinstance(values, Tracer):
        return
    found = np.asarray(values)[counts]
    wrong = found[~np.isin(found, allowed)]
    if wrong.size:
        raise ValueError(f"{words}; but one is {wrong[0]}")


def _within(confidence: Any, counts: np.ndarray) -> None:
    """Nan is let pass: it makes its group nan."""
    if isinstance(confidence, Tracer):
        return
    found = np.asarray(confidence)[counts].astype(np.float64)
    wrong = found[(found < 0) | (found > 1)]
    if wrong.size:
        raise ValueError(f"confidence must be between 0 and 1, but one is {wrong[0]:g}; for logits see top_label")


def check_binning(binning: str) -> None:
    """Refuses what is no way to make bins.

    Example:
      >>> check_binning("equal_mass")
      Traceback (most recent call last):
      ...
      ValueError: binning='equal_mass': choose from mass, width
    """
    if binning not in BINNINGS:
        raise ValueError(f"binning={binning!r}: choose from {', '.join(BINNINGS)}")


def in_order(
    confidence: Float[Array, "N"], correct: Bool[Array, "N"], group: Int32[Array, "N"], num_groups: int
) -> Sorted:
    """Sorts people by group, then by confidence.

    Example:
      The two people of 0.5 share the middle rank, rounded down:

      >>> people = checked([0.5, 0.9, 0.5, 0.1], [1, 1, 0, 0], [1, 0, 1, 1], 2, None)
      >>> found = in_order(*people, 2)
      >>> found.group.tolist(), found.rank.tolist(), found.sizes.tolist()
      ([0, 1, 1, 1], [0, 0, 1, 1], [1, 3])
    """
    at = jnp.arange(group.size, dtype=jnp.int32)
    group, confidence, correct, row = lax.sort((group, confidence, correct, at), num_keys=2)
    sizes = jax.ops.segment_sum(jnp.ones_like(group), group, num_segments=num_groups + 1)
    ends = jnp.cumsum(sizes, dtype=jnp.int32)
    first, size = (ends - sizes)[group], sizes[group]
    # Nan equals nothing, and each is a run of its own: its group is nan anyhow.
    new = jnp.concatenate([
        jnp.ones_like(correct[:1]),
        (group[1:] != group[:-1]) | (confidence[1:] != confidence[:-1]),
    ])  # fmt: skip
    last = jnp.concatenate([new[1:], jnp.ones_like(new[:1])])
    begin = lax.cummax(jnp.where(new, at, 0))
    end = lax.cummin(jnp.where(last, at, at.size), reverse=True)
    rank = begin + (end - begin) // 2 - first
    return Sorted(confidence, correct, row, group, first, size, begin, end, rank, sizes[:num_groups])


def taken(people: Sorted, places: Int32[Array, "M"]) -> Sorted:
    """What there is to know of some people; ``sizes``, which is of groups, is not."""
    return jax.tree.map(lambda x: x[places], people._replace(sizes=people.size))


def bin_of(people: Sorted, bins: Int32[Array, "N"], binning: str) -> Int32[Array, "N"]:
    """The bin of each person, in ``[0, bins)``.

    Args:
      people: sorted; all of them, or some.
      bins: how many their group has.
      binning: "mass" or "width".
    """
    if binning == "mass":
        return times_over(people.rank, bins, jnp.maximum(people.size, 1))
    spot = jnp.floor(people.confidence * bins.astype(people.confidence.dtype))
    return jnp.clip(spot.astype(jnp.int32), 0, bins - 1)


def times_over(a: Int32[Array, "N"], b: Int32[Array, "N"], c: Int32[Array, "N"]) -> Int32[Array, "N"]:
    """``a * b // c`` of whole numbers, though the product may not fit in 32 bits.

    The quotient in floats is off by a little; what it leaves is small, so it is right in numbers that wrap around.

    Example:
      >>> at = jnp.array([999_999], jnp.int32)
      >>> times_over(at, at, at + 1).tolist(), 999_999 * 999_999 // 1_000_000
      ([999998], 999998)
    """
    near = (a.astype(jnp.float32) * (b.astype(jnp.float32) / c.astype(jnp.float32))).astype(jnp.int32)
    return near + (a * b - near * c) // c


class Cells(NamedTuple):
    """What there is to know of bins.

    Attributes:
      size: ``[K]`` how many people.
      confidence: ``[K]`` their mean confidence; nan for nobody.
      accuracy: ``[K]`` the share who are right; nan for nobody.
    """

    size: Array
    confidence: Array
    accuracy: Array


def cells(people: Sorted, cell: Int32[Array, "N"], num_cells: int) -> Cells:
    """The means of bins whose people have the same number; whoever has none in ``[0, num_cells)`` is left out."""
    return Cells(
        size=group_counts(cell, num_cells).astype(people.confidence.dtype),
        confidence=group_means(people.confidence, cell, num_cells),
        accuracy=group_means(people.correct, cell, num_cells).astype(people.confidence.dtype),
    )
