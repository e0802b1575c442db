r"""The area under the ROC curve in every group: how often a positive is ranked above a negative of its own group.

With scores s and weights w, over the positives i and the negatives j of group g::

    AUC_g = sum_ij w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / (sum_i w_i sum_j w_j)

This is the area of the curve with ties joined by straight lines, and 1/2 of a score that says nothing. It is computed
exactly, in O(n log n): people are sorted by group and score, and each positive is credited with the weight of the
negatives below it and half of that beside it. No pair is ever formed, and no threshold is chosen.

A group's AUC compares people *within* the group. Of two groups with an AUC of 1, one may still have all scores above
the other's.

Source: Hanley and McNeil, Radiology 143, 1982: the area is the probability of the Wilcoxon statistic.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int32

from jaxfair.metrics._grouped import group_sums
from jaxfair.metrics._rows import Rows, as_float, as_group, fit, same
from jaxfair.typing import Array


def group_auc(
    score: Rows,
    y: Rows,
    group: Rows,
    num_groups: int,
    *,
    positive: int = 1,
    weight: Rows | None = None,
) -> Float[Array, "G"]:
    """The exact area under the ROC curve of every group, with ties and weights.

    Args:
      score: ``[B]`` numbers, higher for whoever is likelier positive; of several classes the column of ``positive``.
        NumPy's 64 bits are compared as such: what differs is no tie.
      y: ``[B]`` classes.
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out. All zeros for everybody at once.
      num_groups: G, static.
      positive: the class that counts as positive; all others are negative.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      ``[G]`` in ``[0, 1]``; nan for a group without a positive or without a negative, or with a score that is nan: it
      cannot be ranked.

    Raises:
      ValueError: for shapes that do not fit, and for groups that are no integers.

    Example:
      In group 0 a positive is above both negatives, and one ties with one of them: 3.5 of 4 pairs.

      >>> score = jnp.array([0.9, 0.5, 0.5, 0.1, 0.3])
      >>> group_auc(score, jnp.array([1, 1, 0, 0, 1]), jnp.array([0, 0, 0, 0, 1]), 2)
      Array([0.875,   nan], dtype=float32)
    """
    fit(score=score, y=y, group=group, weight=weight)
    score, unranked = _ranked(score)
    hit = same(y, positive)
    missed = ~hit & same(y, y)  # who has no class, a nan, is neither
    rows = jnp.ones(score.shape, jnp.result_type(float)) if weight is None else as_float(weight)
    return _areas(score, unranked, hit, missed, rows, as_group(group, num_groups), num_groups)


@functools.partial(jax.jit, static_argnames="num_groups")
def _areas(score, unranked, hit, missed, rows, group, num_groups: int) -> Float[Array, "G"]:
    """The areas, of scores that are made ready."""
    above, below = jnp.where(hit, rows, 0), jnp.where(missed, rows, 0)
    credit = _credit(score, group, below) if score.size else below
    total = group_sums(above, group, num_groups) * group_sums(below, group, num_groups)
    won = group_sums(credit, group, num_groups, weight=above)
    counted = unranked & ((above != 0) | (below != 0))
    known = (total > 0) & (group_sums(counted, group, num_groups) == 0)
    return jnp.where(known, won / jnp.where(known, total, 1), jnp.nan)


def _ranked(score: Rows) -> tuple[Array, Bool[Array, "N"]]:
    """Scores that JAX sorts without losing a difference, those of NumPy by their ranks; and which of them are nan."""
    if isinstance(score, Array):
        if score.dtype.itemsize < 4:
            score = score.astype(jnp.float32 if jnp.issubdtype(score.dtype, jnp.floating) else jnp.int32)
        return score, jnp.isnan(score)
    score = np.asarray(score)
    unranked = np.isnan(score) if score.dtype.kind == "f" else np.zeros(score.shape, bool)
    return jnp.asarray(np.unique(score, return_inverse=True)[1].astype(np.int32)), jnp.asarray(unranked)


def _credit(score: Array, group: Int32[Array, "N"], below: Float[Array, "N"]) -> Float[Array, "N"]:
    """For everyone the weight of the negatives of the group with a lower score, and half of that with the same."""
    place = jnp.arange(score.size, dtype=jnp.int32)
    order = jnp.lexsort((score, group))
    score, group, below = score[order], group[order], below[order]
    first = jnp.ones(1, bool)
    opens = jnp.concatenate([first, group[1:] != group[:-1]])  # a group begins
    run = opens | jnp.concatenate([first, score[1:] != score[:-1]])  # people of one score begin
    # Within each group by itself: the difference of two running sums over everybody would lose a small group.
    _, upto = lax.associative_scan(_onward, (opens, below))
    before = jnp.where(opens, 0, jnp.roll(upto, 1))
    start = lax.cummax(jnp.where(run, place, 0))
    ends = jnp.concatenate([run[1:], first])
    end = lax.cummin(jnp.where(ends, place, score.size - 1), reverse=True)
    credit = (before[start] + upto[end]) / 2
    return jnp.zeros_like(credit).at[order].set(credit)


def _onward(a, b):
    """Running sums that begin anew where a flag is up."""
    return a[0] | b[0], jnp.where(b[0], b[1], a[1] + b[1])
