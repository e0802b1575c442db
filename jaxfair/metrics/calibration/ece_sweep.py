r"""The calibration error with as many bins as keep the accuracies in order.

How many bins are right depends on how many people there are. The sweep takes as many as it can: from B = 2 on, until
for the first time the accuracy of some bin is below that of the bin before it. Where a surer model is more often right,
that is chance. It then takes one bin less::

    B* = max { B <= n - 1 : for all 2 <= B' <= B the accuracies of B' bins do not decrease },  1 where there is none
    ECE_sweep = ECE_p with B* bins

With few people, or accuracies that hardly rise, B* is small, and so is what chance adds to the error.

Numbers of right people are differences of prefix sums, whole numbers throughout. The accuracy of a bin can only be
below that of the bin before it where it holds a mistake, and somebody less confident is right: only there one looks. So
each B costs O(mistakes), of the groups that are not done; and the few mistakes of a model that is nearly always right,
for which B* is large, cost little. A group that is in order as it is (all are right, say) has B* = n - 1 at once. With
one mistake among 100,000 people, the second of them, so that B* is 99,999, it takes 6 seconds on one core.

Source: Roelofs, Cain, Shlens and Mozer, `Mitigating bias in calibration error estimation
<https://arxiv.org/abs/2012.08668>`_, AISTATS 2022. As there, empty bins are passed over, ties of accuracies let pass,
and fewer than three people have one bin. Other than there, people who are equally confident are kept together.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike, Bool, Float, Int32

from jaxfair.metrics._grouped import group_sums
from jaxfair.metrics._rows import Rows
from jaxfair.metrics.calibration._bins import Sorted, bin_of, cells, check_binning, checked, in_order, taken, times_over
from jaxfair.metrics.calibration.ece import check_norm
from jaxfair.typing import Array

#: So many mistakes are looked at together.
_BLOCK = 1024


class Sweep(NamedTuple):
    """The error of every group, and the bins that it was found with.

    Attributes:
      error: ``[G]`` in ``[0, 1]``, nan for an empty group.
      bins: ``[G]`` int32, B*; 0 for an empty group.
    """

    error: Array
    bins: Array


def ece_sweep(
    confidence: Rows,
    correct: Rows,
    group: Rows | None = None,
    num_groups: int = 1,
    *,
    weight: Rows | None = None,
    binning: str = "mass",
    p: ArrayLike = 2.0,
) -> Sweep:
    """The calibration error of every group, each with its own number of bins.

    Args:
      confidence: ``[N]`` in ``[0, 1]``; nan makes its group nan. Of logits: :func:`jaxfair.metrics.top_label`.
      correct: ``[N]`` booleans, or 0 and 1.
      group: ``[N]`` integers; those outside ``[0, num_groups)`` are left out. Without it all people are one group.
      num_groups: G, static.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      binning: "mass" or "width", as in :func:`jaxfair.metrics.ece`.
      p: of the norm, from 1.

    Returns:
      :class:`Sweep`.

    Raises:
      ValueError: for shapes that do not fit, for confidences, outcomes and weights that are none, and for p below 1.

    Example:
      Group 0 is in order up to three bins; of group 1 the surest are wrong, and it has one bin:

      >>> confidence = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0] * 2
      >>> correct = [0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0]
      >>> found = ece_sweep(confidence, correct, [0] * 6 + [1] * 6, 2)
      >>> found.bins.tolist(), [f"{error:.3f}" for error in found.error]
      ([3, 1], ['0.435', '0.250'])
    """
    check_norm(p)
    check_binning(binning)
    people = checked(confidence, correct, group, num_groups, weight)
    return _sweep(*people, jnp.asarray(p, people[0].dtype), num_groups=num_groups, binning=binning)


@functools.partial(jax.jit, static_argnames=("num_groups", "binning"))
def _sweep(
    confidence: Float[Array, "N"],
    correct: Bool[Array, "N"],
    group: Int32[Array, "N"],
    p: Float[Array, ""],
    *,
    num_groups: int,
    binning: str,
) -> Sweep:
    if not num_groups:
        return Sweep(jnp.zeros(0, confidence.dtype), jnp.zeros(0, jnp.int32))
    people = in_order(confidence, correct, group, num_groups)
    bins = most_bins(people, num_groups, binning)
    of = jnp.where(people.group < num_groups, bins.at[people.group].get(mode="fill", fill_value=1), 1)
    # No group has more bins than people, so its bins have the numbers of its places.
    total = people.group.size
    found = cells(
        people, jnp.where(people.group < num_groups, people.first + bin_of(people, of, binning), total), total
    )
    gap = jnp.abs(found.confidence - found.accuracy)
    share = found.size / jnp.maximum(people.size, 1).astype(found.size.dtype)
    sums = group_sums(jnp.where(found.size > 0, gap**p * share, 0), people.group, num_groups)
    return Sweep(jnp.where(people.sizes > 0, sums ** (1 / p), jnp.nan), bins)


def most_bins(people: Sorted, num_groups: int, binning: str) -> Int32[Array, "G"]:
    """B* of every group."""
    last = people.sizes - 1
    kept = jnp.where(last >= 2, last, jnp.minimum(people.sizes, 1))
    if not people.group.size:
        return kept
    right = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(people.correct, dtype=jnp.int32)])
    places, number = _mistakes(people, right, num_groups)
    table = _table(people)
    block = min(_BLOCK, places.size)

    def fell(bins: Int32[Array, ""], going: Bool[Array, "G"]) -> Bool[Array, "G"]:
        """Whether somewhere in a group a bin has a lower accuracy than the one before it that has people."""

        def more(i, found):
            at = i * block + jnp.arange(block, dtype=jnp.int32)
            some = taken(people, places[at])
            live = (at < number) & going[some.group]

            def look(found):
                falls = live & _falls(people, some, right, table, bins, binning)
                return found.at[some.group].max(falls.astype(jnp.int32))

            return lax.cond(live.any(), look, lambda found: found, found)

        return lax.fori_loop(0, (number + block - 1) // block, more, jnp.zeros(num_groups, jnp.int32)) > 0

    def tried(state):
        bins, kept, going = state
        falls = fell(bins, going)
        ends = going & (falls | (bins >= last))
        return bins + 1, jnp.where(ends, jnp.where(falls, bins - 1, bins), kept), going & ~ends

    open_ = (last >= 2) & _out_of_order(people, right, num_groups)
    return lax.while_loop(lambda state: state[2].any(), tried, (jnp.int32(2), kept, open_))[1]


def _mistakes(people: Sorted, right: Int32[Array, "N1"], num_groups: int) -> tuple[Int32[Array, "M"], Int32[Array, ""]]:
    """The places of mistakes that are surer than somebody who is right, one for all as sure; and how many there are."""
    at = jnp.arange(people.group.size, dtype=jnp.int32)
    wrong = right[at + 1] - right[people.begin] < at + 1 - people.begin
    found = (at == people.end) & wrong & (right[people.begin] > right[people.first]) & (people.group < num_groups)
    slot = jnp.where(found, jnp.cumsum(found, dtype=jnp.int32) - 1, at.size)
    whole = -(-at.size // _BLOCK) * _BLOCK if at.size > _BLOCK else at.size
    return jnp.zeros(whole, jnp.int32).at[slot].set(at, mode="drop"), found.sum(dtype=jnp.int32)


def _out_of_order(people: Sorted, right: Int32[Array, "N1"], num_groups: int) -> Bool[Array, "G"]:
    """Whether some who are equally sure are less often right than those just below them: else no bins can fall.

    Bins are made of people who are equally confident.
    """
    before = people.begin[people.begin - 1]  # of the first of a group it is not asked
    here, there = right[people.end + 1] - right[people.begin], right[people.begin] - right[before]
    lower = _less(here, people.end + 1 - people.begin, there, people.begin - before)
    found = lower & (people.begin > people.first)
    return jax.ops.segment_max(found.astype(jnp.int32), people.group, num_segments=num_groups) > 0


def _table(people: Sorted) -> Int32[Array, "N"]:
    """At ``first + x``, the first place in the group whose rank is at least x; the end of the group where none is."""
    at = jnp.arange(people.group.size, dtype=jnp.int32)
    table = (people.first + people.size).at[people.first + people.rank].min(at)
    return lax.cummin(table, reverse=True)


def _falls(
    people: Sorted,
    some: Sorted,
    right: Int32[Array, "N1"],
    table: Int32[Array, "N"],
    bins: Int32[Array, ""],
    binning: str,
) -> Bool[Array, "M"]:
    """Whether the bins of some people have a lower accuracy than the bins before them that have people."""
    bins = jnp.full_like(some.group, bins)

    def begins(number: Int32[Array, "M"]) -> Int32[Array, "M"]:
        """The place at which a bin of the same group begins."""
        if binning == "mass":
            rank = times_over(number, some.size, bins)
            rank += (rank * bins != number * some.size).astype(jnp.int32)  # rounded up
            return jnp.where(rank < some.size, table[some.first + rank], some.first + some.size)
        ends = some.first, some.first + some.size

        def halved(_, ends):
            low, high = ends
            middle = low + (high - low) // 2
            below = (bin_of(taken(people, middle), bins, binning) < number) & (low < high)
            return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

        return lax.fori_loop(0, people.group.size.bit_length(), halved, ends)[0]

    spot = bin_of(some, bins, binning)
    begin, end = begins(spot), begins(spot + 1)
    before = begins(bin_of(taken(people, begin - 1), bins, binning))
    lower = _less(right[end] - right[begin], end - begin, right[begin] - right[before], begin - before)
    return lower & (begin > some.first)


def _less(a: Int32[Array, "N"], b: Int32[Array, "N"], c: Int32[Array, "N"], d: Int32[Array, "N"]) -> Bool[Array, "N"]:
    """``a / b < c / d``, exactly: a product that does not fit in 32 bits is far from the other, or wraps as it does."""
    near = a.astype(jnp.float32) * d.astype(jnp.float32) - c.astype(jnp.float32) * b.astype(jnp.float32)
    return jnp.where(jnp.abs(near) > 2.0**30, near < 0, a * d - c * b < 0)
