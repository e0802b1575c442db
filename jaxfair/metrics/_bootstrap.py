r"""Intervals for the excess accuracy gap of every group, all at once.

Every person i has a difference ``d_i = dense_i - sparse_i``, in {-1, 0, 1} (or, for outcomes that
are means over S seeds, a multiple of 1/S). With n_g people in group g, shares ``p_g = n_g / N``,
``Delta_g`` the mean of d in g and ``v_g`` its variance::

    psi_g    = Delta_g - sum_h p_h Delta_h = (1 - p_g) (Delta_g - Delta_rest)
    se_g^2   = sum_h ([h = g] - p_h)^2 v_h / n_h
    t*_g     = (psi*_g - psi_g) / se*_g                of a resample
    interval = psi_g -+ c se_g,   c the quantile of max_g |t*_g|

A resample draws people within each group, keeps both outcomes of a person together, and computes
the overall term anew. As only the counts of the differences matter, it is drawn exactly as one
multinomial per group: no array of N people is ever resampled. One c for all groups makes the
intervals *simultaneous*: all of them hold together, at the stated level, so the worst one may be
looked at.

A group with fewer than ten changed people has no business with a bootstrap (its resamples often
hold no change at all). It gets the interval of :func:`jaxfair.metrics.exact_gap_interval` for
``Delta_g`` and one for ``Delta_rest``, at its Bonferroni share of the error; the other groups' c is
taken at what is left. From ten to fifteen changed people the one goes over into the other.

What these intervals mean: the networks are held fixed and the people vary. They say nothing of what
another seed would have trained; :func:`jaxfair.metrics.t_interval` does.

Source: Romano and Wolf, Econometrica 73, 2005, for studentised maxima; Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, for the resampling of pairs within strata.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike

from jaxfair.metrics._changes import Changes, count_changes, generator
from jaxfair.metrics._few import FEW, few_changed, intervals, make_rule, p_values, visible_gaps
from jaxfair.metrics._rows import Rows, check_level, check_whole
from jaxfair.typing import Key

# Resamples drawn at a time: bounds the memory at 1,000 x G x V integers.
_BLOCK = 1000


class GapInference(NamedTuple):
    """What is known about the excess gap of every group; a group with no people is nan.

    Attributes:
      psi: ``[G]`` excess accuracy gap.
      standard_error: ``[G]`` of psi, over people.
      low: ``[G]`` lower ends of the simultaneous intervals.
      high: ``[G]`` upper ends.
      single_low: ``[G]`` lower ends of intervals that hold one at a time: for a group named in
        advance.
      single_high: ``[G]`` upper ends.
      p_value: ``[G]`` that the excess gap is 0, by the rule that gives the intervals that hold one at
        a time: it is below ``1 - level`` exactly where such an interval leaves out 0. Not adjusted
        for the number of groups; of the bootstrap not below ``1 / (resamples + 1)``.
      visible: ``[G]`` the smallest visible gap: psi is at least this exactly where 0 lies below the
        simultaneous interval. inf where so few people could not show any.
      size: ``[G]`` number of people.
      changed: ``[G]`` number of people whose outcome differs.
      squared: ``[G]`` sum of the squared differences: ``changed`` for one network, less for means
        over seeds, in which most changes are those of some seeds only.
      exact: ``[G]`` whether the intervals are the exact ones for few changed people (of a group in
        which most changed: for few who did not).
      critical: c, the quantile of the largest ``|t|``; nan if every group is exact.
      overall: the overall gap Delta.
      level: the level of the intervals.
    """

    psi: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    single_low: np.ndarray
    single_high: np.ndarray
    p_value: np.ndarray
    visible: np.ndarray
    size: np.ndarray
    changed: np.ndarray
    squared: np.ndarray
    exact: np.ndarray
    critical: float
    overall: float
    level: float


def moments(
    counts: np.ndarray, values: np.ndarray, size: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Psi and se from counts ``[..., G, V]``; a group of nobody has share 0 and contributes 0."""
    n = np.maximum(size, 1)
    gap = counts @ values / n
    variance = np.maximum(counts @ values**2 / n - gap**2, 0.0) * n / np.maximum(n - 1, 1)
    psi = gap - (gap @ share)[..., None]
    noise = variance / n
    squared = (noise @ share**2)[..., None] + (1.0 - 2.0 * share) * noise
    return psi, np.sqrt(np.maximum(squared, 0.0))


def studentised(rng: np.random.Generator, changes: Changes, psi: np.ndarray, resamples: int) -> np.ndarray:
    """``[R, G]`` values of t*; infinite where a resample moved but shows no spread."""
    values, counts = changes
    size = counts.sum(1)
    share = size / max(size.sum(), 1)
    law = counts / np.maximum(size, 1)[:, None]
    law[size == 0, np.abs(values).argmin()] = 1.0  # numpy wants a law even for nobody
    blocks = []
    for start in range(0, resamples, _BLOCK):
        rows = min(_BLOCK, resamples - start)
        drawn = rng.multinomial(size, law, size=(rows, len(size)))
        psi_star, error = moments(drawn, values, size, share)
        moved = psi_star - psi
        with np.errstate(divide="ignore", invalid="ignore"):
            t = moved / error
        blocks.append(np.where(np.abs(moved) < 1e-12, 0.0, t))
    return np.concatenate(blocks)


def counted(changes: Changes) -> Changes:
    """The counts in whole numbers and at least one value; refuses shapes that do not fit."""
    values, counts = np.asarray(changes.values, np.float64), np.asarray(changes.counts).astype(np.int64)
    if counts.ndim != 2 or values.shape != counts.shape[1:]:
        raise ValueError(f"values of shape {values.shape}, counts of shape {counts.shape}: give [V] and [G, V].")
    return Changes(values, counts) if values.size else Changes(np.zeros(1), np.zeros((len(counts), 1), np.int64))


def _upper_quantile(values, level):
    """The smallest resampled value with at least ``level`` of them at or below it, along axis 0."""
    return np.quantile(values, level, axis=0, method="higher")


def paired_bootstrap(
    dense_correct: Rows,
    sparse_correct: Rows,
    group: Rows,
    num_groups: int,
    *,
    key: Key,
    weight: Rows | None = None,
    resamples: int = 10_000,
    level: ArrayLike = 0.95,
    few: int = FEW,
) -> GapInference:
    """Excess accuracy gaps with simultaneous intervals over groups.

    Args:
      dense_correct: ``[N]`` what the dense network got right: booleans, or means over seeds.
      sparse_correct: ``[N]`` what the sparse one got right, of the same people in the same order.
      group: ``[N]`` integers, a partition; a person outside ``[0, num_groups)`` is left out
        altogether.
      num_groups: G.
      key: of the resampling.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      resamples: number of resamples.
      level: how often all intervals together (and each single one) must cover.
      few: groups with fewer changed people than this get exact intervals, those with half as
        many again the bootstrap's, and those in between a weighted mean of both.

    Returns:
      :class:`GapInference`. The cost grows with ``resamples * num_groups``, not with N.

    Raises:
      ValueError: as :func:`count_changes`.

    Example:
      >>> import jax
      >>> rng = np.random.default_rng(0)
      >>> group = np.repeat([0, 1, 2], [2000, 500, 40])
      >>> dense = rng.random(2540) < 0.9
      >>> sparse = dense & ~((group == 1) & (rng.random(2540) < 0.1))      # group 1 loses a tenth
      >>> found = paired_bootstrap(dense, sparse, group, 3, key=jax.random.key(0))
      >>> for g in range(3):
      ...     psi, low, high = found.psi[g], found.low[g], found.high[g]
      ...     print(f"{psi:+.3f} [{low:+.3f}, {high:+.3f}]", found.exact[g])
      -0.018 [-0.028, -0.007] True
      +0.074 [+0.048, +0.106] True
      -0.018 [-0.144, +0.109] True

      Group 2 lost as little as group 0, but forty people cannot show it.
    """
    changes = count_changes(dense_correct, sparse_correct, group, num_groups, weight=weight)
    return infer(changes, key=key, resamples=resamples, level=level, few=few)


def infer(
    changes: Changes, *, key: Key, resamples: int = 10_000, level: ArrayLike = 0.95, few: int = FEW
) -> GapInference:
    """:func:`paired_bootstrap` for people who are counted already.

    Args:
      changes: of :func:`count_changes`.
      key: of the resampling.
      resamples: number of resamples.
      level: how often all intervals together (and each single one) must cover.
      few: groups with fewer changed people than this get exact intervals, those with half as
        many again the bootstrap's, and those in between a weighted mean of both.

    Returns:
      :class:`GapInference`.

    Example:
      >>> import jax
      >>> changes = Changes(np.array([-1.0, 0.0, 1.0]), np.array([[20, 960, 20], [10, 160, 30]]))
      >>> found = infer(changes, key=jax.random.key(0))
      >>> found.psi.round(4), found.changed
      (array([-0.0167,  0.0833]), array([40, 40]))
    """
    error_of_all = 1.0 - check_level(level)
    check_whole("resamples", resamples, 1)
    check_whole("few", few, 0)
    values, counts = counted(changes)
    size = counts.sum(1)
    seen = size > 0
    groups = max(int(seen.sum()), 1)
    share = size / max(size.sum(), 1)
    psi, error = moments(counts, values, size, share)
    rule = make_rule(values, counts, psi, few)
    exact = few_changed(rule)
    normal = seen & ~exact

    t = np.abs(studentised(generator(key), Changes(values, counts), psi, resamples))
    critical = np.nan
    if normal.any():
        left = 1.0 - error_of_all * normal.sum() / groups
        critical = float(_upper_quantile(t[:, normal].max(1), left))

    t = np.sort(t, axis=0)

    def reach_at(error_of_each):
        at = np.ceil((1.0 - error_of_each) * (resamples - 1)).astype(np.int64)
        return np.where(error > 0, t[at, np.arange(len(size))] * error, 0.0)

    one = np.full(len(size), error_of_all)
    reach = np.where(error > 0, critical * error, 0.0)
    together, alone = intervals(rule, one / groups, reach), intervals(rule, one, reach_at(one))
    nowhere = np.where(seen, 0.0, np.nan)
    return GapInference(
        psi=psi + nowhere,
        standard_error=error + nowhere,
        low=together.low + nowhere,
        high=together.high + nowhere,
        single_low=alone.low + nowhere,
        single_high=alone.high + nowhere,
        p_value=p_values(rule, reach_at, 1.0 / (resamples + 1)) + nowhere,
        visible=visible_gaps(rule, one / groups, reach) + nowhere,
        size=size,
        changed=counts[:, values != 0].sum(1),
        squared=counts @ values**2,
        exact=exact,
        critical=critical,
        overall=float((counts @ values).sum() / size.sum()) if seen.any() else np.nan,
        level=float(check_level(level)),
    )
