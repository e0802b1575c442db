"""Whether a bound can be told from chance on these data: said before anything is trained."""

from typing import Any

import jax
import numpy as np

from jaxfair import metrics
from jaxfair.data import Dataset
from jaxfair.files import visible
from jaxfair.recipes._gaps import per_group
from jaxfair.report import rounded, who


def noise(dataset: Dataset, tolerance: Any, *, changed: float = 0.05, most: int = 5) -> list[str]:
    """What chance alone does to the largest gap, and which groups are too small to be judged; else nothing.

    Compression changes the outcome of some people. If each of them were lost or won by the toss of a coin, the largest
    of the groups' excess gaps would be positive all the same (:func:`jaxfair.metrics.sign_flip_null`): a bound below
    that asks for less than noise. And a group needs so many people for a gap of the tolerance to be seen at all
    (:func:`jaxfair.metrics.people_needed`). How many will change is not known beforehand; one in twenty is assumed.

    Args:
      dataset: the data.
      tolerance: of the bound, one for all groups or ``[G]``; nothing is said of None.
      changed: the share of people whose outcome the compression changes.
      most: groups that are named.

    Returns:
      Sentences.

    Example:
      >>> from jaxfair import data
      >>> people = np.arange(2000)
      >>> mine = data.dataset(np.ones((2000, 1)), people % 2, np.where(people < 1900, "many", "few"))
      >>> print("; ".join(noise(mine, 0.01)))
      a bound of 1 point is below the noise on train: where 5 % of people change, the largest gap is about 1... points
      by chance alone; groups too small to be judged on test at a tolerance of 1 point, if 5 % of them change: few
      (20 people; about 2,600 would be needed); many (380 people; about 2,600 would be needed)
      >>> noise(mine, 0.5)
      []
    """
    if tolerance is None:
        return []
    limit, bounded, found = per_group(tolerance, dataset.num_groups), np.asarray(dataset.constrained), []
    asked = np.unique(limit[bounded]).tolist() or [float(limit[0])]
    points = " to ".join(dict.fromkeys(f"{100 * one:g}" for one in (asked[0], asked[-1])))
    group = np.asarray(dataset.train.group)
    bound_to = bounded[group]
    by_chance = _by_chance(group[bound_to], dataset.num_groups, changed)
    if by_chance > asked[0]:
        found.append(
            f"a bound of {_points(f'{100 * asked[0]:g}')} is below the noise on train: where {100 * changed:g} % of "
            f"people change, the largest gap is about {100 * by_chance:.1f} points by chance alone"
        )
    judged = [name for name, split in dataset.splits.items() if len(split.y)][-1]
    sizes = dataset.group_sizes()[judged]
    needed = {one: _needed(one, changed, int(bounded.sum())) for one in asked}
    small = [g for g in np.argsort(sizes, kind="stable") if bounded[g] and sizes[g] < needed[float(limit[g])]]
    if small:
        would = {
            one: f"about {rounded(of):,} would be needed" if np.isfinite(of) else "no number would be enough"
            for one, of in needed.items()
        }
        named = [
            f"{visible(dataset.group_names[g])} ({who(int(sizes[g]))}; {would[float(limit[g])]})" for g in small[:most]
        ]
        named += [f"and {len(small) - most} more"] if len(small) > most else []
        found.append(
            f"groups too small to be judged on {judged} at a tolerance of {_points(points)}, if {100 * changed:g} % of "
            f"them change: {'; '.join(named)}"
        )
    return found


def _points(number: str) -> str:
    return f"{number} point{'' if number == '1' else 's'}"


def _by_chance(group: np.ndarray, num_groups: int, changed: float) -> float:
    if not len(group):
        return 0.0
    # Of each group its first few have changed; which way is drawn.
    sizes, order = np.bincount(group, minlength=num_groups), np.argsort(group, kind="stable")
    place = np.empty(len(group), int)
    place[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    share = np.ceil(changed * sizes)
    after = place >= share[group]
    null = metrics.sign_flip_null(
        np.ones(len(group), bool), after, group, num_groups, key=jax.random.key(0), permutations=1000
    )
    return float(null.mean)


def _needed(tolerance: float, changed: float, groups: int) -> float:
    if tolerance <= 0:
        return np.inf
    return float(metrics.people_needed(tolerance, changed, groups=max(groups, 1)))
