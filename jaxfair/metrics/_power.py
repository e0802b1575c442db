"""What a sample of people can show at all: the smallest visible gap, and the people needed.

If a share q of n people changes, the standard error of their accuracy gap is at most ``sqrt(q /
n)``. A gap is visible when it exceeds the half-width of its interval; with G groups looked at
together (Bonferroni) that is::

    gap = z_{1 - alpha / (2 G)} sqrt(q / n),        alpha = 1 - level

A gap of one point at q = 3 % needs about 1,150 people for one group, 2,370 for each of ten, 3,630
for each of a hundred. Where a table shows smaller groups, "no harm was found" means "nobody could
have seen it".
"""

import numpy as np
from jaxtyping import ArrayLike
from scipy import special

from jaxfair.metrics._rows import Numbers, alike, check_level, check_whole


def _z(level, groups):
    level = check_level(level)
    check_whole("groups", groups, 1)
    return special.ndtri(1.0 - (1.0 - level) / (2.0 * groups))


def smallest_visible_gap(
    changed: Numbers,
    size: Numbers,
    *,
    groups: int = 1,
    level: ArrayLike = 0.95,
) -> np.ndarray:
    """The gap that this many people could just show, by the normal law: to plan with.

    What the people of an audit could show, by the very rule that judges them, is
    ``jaxfair.metrics.GapInference.visible``.

    Args:
      changed: number of people whose outcome differs between the networks, per group (for means
        over S seeds, the sum of squared differences). Nobody is counted as one person: an unseen
        change is not an impossible one.
      size: number of people.
      groups: G, how many groups are looked at together.
      level: of the intervals.

    Returns:
      An array like ``size``, as a share (0.01 is one point); nan where there is nobody.

    Example:
      >>> smallest_visible_gap(np.array([35, 3]), np.array([1152, 100]), groups=1).round(4)
      array([0.0101, 0.0339])
    """
    alike(changed=changed, size=size)
    changed, size = np.asarray(changed, np.float64), np.asarray(size, np.float64)
    people = np.where(size > 0, size, np.nan)
    return np.asarray(_z(level, groups) * np.sqrt(np.maximum(changed, 1.0)) / people)


def people_needed(gap: Numbers, changed_share: Numbers, *, groups: int = 1, level: ArrayLike = 0.95) -> np.ndarray:
    """How many people a group needs for a gap to be visible: ``n = z^2 q / gap^2``, rounded up.

    Args:
      gap: the gap to be seen, as a share.
      changed_share: q, the share of people whose outcome differs between the networks.
      groups: G, how many groups are looked at together.
      level: of the intervals.

    Returns:
      Numbers of people; inf for a gap of 0.

    Raises:
      ValueError: for a negative gap, a share outside [0, 1], a level outside (0, 1), and less than one group.

    Example:
      >>> [int(people_needed(0.01, 0.03, groups=g)) for g in (1, 10, 100)]
      [1153, 2364, 3635]
    """
    alike(gap=gap, changed_share=changed_share)
    gap, share = np.asarray(gap, np.float64), np.asarray(changed_share, np.float64)
    if (gap < 0).any() or ((share < 0) | (share > 1)).any():
        raise ValueError(f"gap={gap}, changed_share={share}: give a gap from 0 and a share in [0, 1].")
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.ceil(_z(level, groups) ** 2 * share / gap**2)
    return np.where(gap > 0, needed, np.where(np.isnan(gap), np.nan, np.inf))
