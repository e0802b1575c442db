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

from jaxfair.metrics._bootstrap import GapInference
from jaxfair.metrics._few import SETTLED
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


def people_to_judge(inference: GapInference, bound: float) -> np.ndarray:
    """How many people it would take to judge each group, at the share of them that changed.

    So many that a gap as large as the bound could be seen. A group that has these, and cannot be judged, lies near the
    bound: so many that an interval about the gap that was seen would leave it out. Intervals shrink with the root of
    the number of people; exact ones, of a few who changed, faster.

    Args:
      inference: what is known of the groups.
      bound: on the excess gap, a share.

    Returns:
      ``[G]``; nan where no number would do, and of one group alone. Of a group of nobody: if they change as all do.

    Example:
      A tenth of each group changed, as many for the worse as for the better. The first has more than it needs:

      >>> import jax
      >>> from jaxfair.metrics import Changes, infer
      >>> changes = Changes(np.array([-1.0, 0.0, 1.0]), np.array([[200, 3600, 200], [20, 360, 20]]))
      >>> people_to_judge(infer(changes, key=jax.random.key(0)), 0.02).round(-2)
      array([100., 900.])
    """
    size, psi = np.asarray(inference.size, float), np.asarray(inference.psi, float)
    if (size > 0).sum() < 2:
        return np.full(len(size), np.nan)
    # Nobody is there to tell how many would change: as many as of all.
    groups = int((size > 0).sum())
    everybody = smallest_visible_gap(inference.squared.sum(), size.sum(), groups=groups, level=inference.level)
    # Where these people can show no gap, half of what is left open.
    half = (inference.high - inference.low) / 2
    visible_gap = np.where(np.isfinite(inference.visible), inference.visible, half)
    with np.errstate(divide="ignore", invalid="ignore"):
        few = np.minimum(inference.changed, size - inference.changed) < SETTLED
        wanted = np.where(few, _planned(inference, bound), size * (visible_gap / bound) ** 2)
        wanted = np.where(size > 0, wanted, size.sum() * (everybody / bound) ** 2)
        reach = np.where(psi <= bound, inference.high - psi, psi - inference.low)
        near, planned = size * (reach / np.abs(bound - psi)) ** 2, _planned(inference, np.abs(bound - psi))
        near = np.where(few & (planned > size), planned, near)
    found = np.ceil(np.where((wanted > size) & np.isfinite(wanted), wanted, near))
    return np.where(np.isfinite(found), found, np.nan)


def _planned(inference: GapInference, gap: ArrayLike) -> np.ndarray:
    """``[G]`` the people of whom an interval would reach no further than a gap, from the share that changed alone.

    The interval of n people of whom a share q changed reaches ``z sqrt(q / n)``, and as long as n q is below fifteen,
    where it is an exact one, about ``2 log(2 G / alpha) / n`` more. What a handful cannot rule out says nothing of how
    many it would take: q is theirs and that of one more person who changed, of as many as it takes among everybody.
    """
    size, squared, gap = (np.asarray(x, float) for x in (inference.size, inference.squared, gap))
    error = (1 - inference.level) / max(int((size > 0).sum()), 1)
    share = (squared + 1) / (size + size.sum() / max(squared.sum(), 1.0))
    z, more = float(special.ndtri(1 - error / 2)), 2 * np.log(2 / error)
    exact = ((z * np.sqrt(share) + np.sqrt(z**2 * share + 4 * more * gap)) / (2 * gap)) ** 2
    return np.maximum(z**2 * share / gap**2, np.minimum(exact, SETTLED / share))
