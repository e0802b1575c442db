r"""Shares of people by group with intervals that hold together: whose prediction changed, who became wrong, or right.

Of n_g people of group g the event happened to k_g. Given the sizes, people are drawn independently of one another; so
are groups, and G intervals for ``k_g / n_g``, each at the level ``L^(1/G)``, hold together with a chance of at least L
(Sidak). Each is Clopper and Pearson's: exact, whatever the share and however few there are.

How a group differs from everybody is another question: everybody contains the group, and what two intervals have in
common says nothing. With ``w_g = n_g / N``, ``m_g`` the group's share, ``m`` that of everybody and ``m_rest`` that of
all others::

    m_g - m = (1 - w_g) (m_g - m_rest)
    low     = (1 - w_g) (L(m_g) - U(m_rest)),    high = (1 - w_g) (U(m_g) - L(m_rest))

The error ``(1 - L) / G`` of a group (Bonferroni: its rest is the others) is divided between the two intervals, again
Clopper and Pearson's: ``1 - w_g`` of it to the group, at least a tenth and at most nine, for whichever are fewer need
it most. That looks at sizes alone, so the chance is at least L for any number of people and events. The price is width:
1.6 times that of the normal law for two groups of one size, 1.35 times for one of ten groups, 1.1 times for a small
group among many. An excess accuracy gap, to which people count 1, 0 or -1, has no law as simple, and
:func:`jaxfair.metrics.paired_bootstrap`.

(The others may have different chances. Their sum then varies less than a binomial one: Hoeffding, Annals of
Mathematical Statistics 27, 1956.)

Intervals of one event hold together over groups. Those of several events do not: for m of them to hold together, ask
for the level ``1 - (1 - L) / m``.

Source: Clopper and Pearson, Biometrika 26, 1934; Sidak, JASA 62, 1967.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike

from jaxfair.metrics._exact import Bounds, clopper_pearson
from jaxfair.metrics._grouped import correct
from jaxfair.metrics._rows import Rows, as_group, check_level, check_whole, fit, same


class ShareIntervals(NamedTuple):
    """To which share of each group it happened; a group of nobody is nan with size 0.

    Attributes:
      share: ``[G]``.
      low: ``[G]`` lower ends of intervals that hold for all groups together.
      high: ``[G]`` upper ends.
      excess: ``[G]`` the share less that of everybody.
      excess_low: ``[G]`` lower ends of its intervals, which hold for all groups together.
      excess_high: ``[G]`` upper ends.
      size: ``[G]`` people.
      count: ``[G]`` to how many of them it happened.
      overall: the share of everybody who is in a group.
      overall_low: lower end of its own interval.
      overall_high: upper end.
      level: of the intervals.
    """

    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    excess: np.ndarray
    excess_low: np.ndarray
    excess_high: np.ndarray
    size: np.ndarray
    count: np.ndarray
    overall: float
    overall_low: float
    overall_high: float
    level: float


class ChangeIntervals(NamedTuple):
    """:class:`jaxfair.metrics.PredictionChanges` with intervals.

    Attributes:
      changed: whose predicted class is another one, :class:`ShareIntervals`.
      newly_wrong: who were right before and are wrong after.
      newly_right: who were wrong before and are right after.
    """

    changed: ShareIntervals
    newly_wrong: ShareIntervals
    newly_right: ShareIntervals


def share_intervals(
    event: Rows,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
    level: ArrayLike = 0.95,
) -> ShareIntervals:
    """The share of each group to whom something happened, and how it differs from everybody's, with intervals.

    Args:
      event: ``[N]`` whether it happened: booleans, or 0 and 1.
      group: ``[N]`` integers, a partition; a person outside ``[0, num_groups)`` is left out altogether.
      num_groups: G.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      level: how often all intervals of the shares together must cover, all of the differences together, and that of
        everybody's share.

    Returns:
      :class:`ShareIntervals`.

    Raises:
      ValueError: for shapes that do not fit, for an event or a weight that is neither 0 nor 1, and for a level outside
        (0, 1).

    Example:
      >>> event = np.repeat([1, 0, 1, 0], [40, 960, 30, 70])
      >>> found = share_intervals(event, np.repeat([0, 1], [1000, 100]), 2)
      >>> for g in range(2):
      ...     print(f"{found.share[g]:.3f} [{found.low[g]:.3f}, {found.high[g]:.3f}],"
      ...           f" {found.excess[g]:+.3f} [{found.excess_low[g]:+.3f}, {found.excess_high[g]:+.3f}]")
      0.040 [0.027, 0.056], -0.024 [-0.036, -0.013]
      0.300 [0.202, 0.414], +0.236 [+0.125, +0.356]
    """
    fit(event=event, group=group, weight=weight)
    check_whole("num_groups", num_groups, 0)
    level = check_level(level)
    at = np.asarray(as_group(group, num_groups))
    keep = at < num_groups
    if weight is not None:
        keep &= _zero_or_one("weight", weight, "0 (padding) or 1 (a person): people are counted whole")
    happened = _zero_or_one("event", event, "0 or 1: whether it happened", keep)
    counts = np.stack([np.bincount(at[keep & (happened == a)], minlength=num_groups) for a in (False, True)], axis=1)
    size, count = counts.sum(1), counts[:, 1]
    seen = size > 0
    nowhere = np.where(seen, 0.0, np.nan)
    low, high = clopper_pearson(count, size, level=level ** (1 / max(seen.sum(), 1)))
    excess, apart = from_everybody(count, size, level)
    of_all = clopper_pearson(count.sum(), size.sum(), level=level)
    nobody = np.where(seen.any(), 0.0, np.nan)
    return ShareIntervals(
        share=count / np.maximum(size, 1) + nowhere,
        low=low + nowhere,
        high=high + nowhere,
        excess=excess + nowhere,
        excess_low=apart.low + nowhere,
        excess_high=apart.high + nowhere,
        size=size,
        count=count,
        overall=(count.sum() / max(size.sum(), 1) + nobody).item(),
        overall_low=(of_all.low + nobody).item(),
        overall_high=(of_all.high + nobody).item(),
        level=np.asarray(level).item(),
    )


def from_everybody(count: np.ndarray, size: np.ndarray, level: ArrayLike) -> tuple[np.ndarray, Bounds]:
    """Shares less that of everybody, of counts and sizes ``[..., G]``, with intervals that hold for all G together."""
    count, size = np.asarray(count, np.float64), np.asarray(size, np.float64)
    everybody = np.maximum(size.sum(-1, keepdims=True), 1.0)
    others = count.sum(-1, keepdims=True) - count, size.sum(-1, keepdims=True) - size
    rest = 1.0 - size / everybody
    error = (1.0 - np.asarray(level)) / np.maximum((size > 0).sum(-1, keepdims=True), 1)
    own = np.clip(rest, 0.1, 0.9) * error
    a = clopper_pearson(count, size, level=1.0 - own)
    b = clopper_pearson(*others, level=1.0 - (error - own))
    excess = count / np.maximum(size, 1.0) - count.sum(-1, keepdims=True) / everybody
    return excess, Bounds(rest * (a.low - b.high), rest * (a.high - b.low))


def _zero_or_one(name: str, values: Rows, allowed: str, among: np.ndarray | None = None) -> np.ndarray:
    """Numbers as booleans, False outside of ``among``; refuses any other number in it."""
    values = np.asarray(values)
    if among is not None:
        values = np.where(among, values, 0)
    bad = ~np.isin(values, (0, 1))
    if bad.any():
        raise ValueError(f"{name} must be {allowed}, but it is {values[bad][0]} in row {bad.argmax()}")
    return values == 1


def prediction_change_intervals(
    before: Rows,
    after: Rows,
    y: Rows,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
    level: ArrayLike = 0.95,
) -> ChangeIntervals:
    """:func:`jaxfair.metrics.prediction_changes` with intervals: churn, negative flips and positive flips by group.

    Args:
      before: ``[N]`` predicted classes.
      after: ``[N]`` predicted classes, of the same people in the same order.
      y: ``[N]`` true classes. Where they are not known, only ``changed`` says something.
      group: ``[N]`` integers, a partition; a person outside ``[0, num_groups)`` is left out altogether.
      num_groups: G.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      level: as in :func:`share_intervals`, of each of the three.

    Returns:
      :class:`ChangeIntervals`.

    Raises:
      ValueError: as :func:`share_intervals`.

    Example:
      Of 200 people of group 1 twenty became wrong and twenty right: its accuracy is what it was.

      >>> y = np.zeros(2200, int)
      >>> before, after = y.copy(), y.copy()
      >>> before[2000:2020], after[2020:2040] = 1, 1
      >>> found = prediction_change_intervals(before, after, y, np.repeat([0, 1], [2000, 200]), 2)
      >>> print(f"{found.changed.share[1]:.2f} [{found.changed.low[1]:.3f}, {found.changed.high[1]:.3f}]")
      0.20 [0.140, 0.271]
      >>> found.changed.excess_low.round(3), found.newly_wrong.excess_low.round(3)
      (array([-0.025,  0.124]), array([-0.014,  0.049]))
    """
    fit(before=before, after=after, y=y, group=group, weight=weight)
    was, is_now = np.asarray(correct(before, y)), np.asarray(correct(after, y))
    kinds = (~np.asarray(same(before, after)), was & ~is_now, ~was & is_now)
    options = {"weight": weight, "level": level}
    return ChangeIntervals(*(share_intervals(kind, group, num_groups, **options) for kind in kinds))
