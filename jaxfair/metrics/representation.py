r"""Which groups have more of some examples (exemplars, errors, changes) than of the people.

A group with a share s of the people and e_g of e exemplars is represented this many times::

    ratio_g = (e_g / e) / s = P(exemplar | g) / P(exemplar)

The interval is the Clopper-Pearson one of ``e_g / e``, over s. It is exact where exemplars are rare and independent, so
that their numbers are Poisson, and wider than it need be where they are not rare. Groups are judged at once
(Bonferroni), so the worst may be looked at; a group of few people is one of which one mostly cannot tell.

Who is hard to classify changes with anything, also with the seed of a training: a group that is over-represented among
the exemplars of a compression may be so among those of the noise floor as well (:func:`jaxfair.metrics.noise_floor`).

Sources: Hooker, Moorosi, Clark, Bengio and Denton, Characterising Bias in Compressed Models, 2020, for the question;
Clopper and Pearson, Biometrika 26, 1934.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from jaxfair.metrics._decisions import CANNOT_TELL
from jaxfair.metrics._exact import clopper_pearson
from jaxfair.metrics._grouped import group_counts, group_means, overall_mean
from jaxfair.metrics._rows import Rows, check_level
from jaxfair.typing import Array

OVER = "over-represented"
UNDER = "under-represented"


class Representation(NamedTuple):
    """Which groups have more of the exemplars than of the people; made by :func:`representation`.

    Attributes:
      ratio: ``[G]`` share among exemplars over share among people; nan for a group of nobody, or without exemplars.
      low: ``[G]`` lower ends of intervals that hold for all groups at once.
      high: ``[G]`` upper ends.
      exemplars: ``[G]`` how many exemplars each group has.
      people: ``[G]`` how many people.
      state: ``[G]`` "over-represented", "under-represented" or "cannot tell", as groups of few people mostly are.
    """

    ratio: np.ndarray
    low: np.ndarray
    high: np.ndarray
    exemplars: np.ndarray
    people: np.ndarray
    state: np.ndarray


def representation_ratio(
    exemplar: Rows, group: Rows, num_groups: int, *, weight: Rows | None = None
) -> Float[Array, "G"]:
    """How many times its share of the people each group has among exemplars; may be jitted and vmapped.

    Args:
      exemplar: ``[N]`` booleans; or in how many of several splits each is one, as a share.
      group: ``[N]`` integers; a person outside ``[0, num_groups)`` counts with everybody only.
      num_groups: G, static.
      weight: ``[N]``, 0 for padding; all ones by default.

    Returns:
      ``[G]``; nan for a group of nobody, or without any exemplar.

    Example:
      >>> representation_ratio(np.array([1, 1, 0, 0, 0, 1], bool), np.array([0, 0, 1, 1, 1, 1]), 3).tolist()
      [2.0, 0.5, nan]
    """
    rate = overall_mean(exemplar, weight=weight)
    return group_means(exemplar, group, num_groups, weight=weight) / jnp.where(rate > 0, rate, jnp.nan)


def representation(
    exemplar: Rows, group: Rows, num_groups: int, *, weight: Rows | None = None, level: ArrayLike = 0.95
) -> Representation:
    """Which groups have more of the exemplars than of the people, beyond what chance would give.

    Args:
      exemplar: ``[N]`` booleans.
      group: ``[N]`` integers; a person outside ``[0, num_groups)`` counts with everybody only.
      num_groups: G.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      level: of all intervals together.

    Returns:
      :class:`Representation`.

    Raises:
      ValueError: for a weight that is neither 0 nor 1, for shapes that do not fit, and for a level outside (0, 1).

    Example:
      A thousand people, of whom a hundred are in group 1 and three in group 2; 60 exemplars:

      >>> group = np.repeat([0, 1, 2], [897, 100, 3])
      >>> exemplar = np.concatenate([np.arange(897) < 38, np.arange(100) < 22, [False] * 3])
      >>> found = representation(exemplar, group, 3)
      >>> found.ratio.round(2), found.state.tolist()
      (array([0.71, 3.67, 0.  ]), ['under-represented', 'over-represented', 'cannot tell'])
    """
    level = check_level(level)
    if weight is not None and not np.isin(np.asarray(weight), (0, 1)).all():
        raise ValueError("weight must be 0 (padding) or 1 (a person): people are counted whole")
    kept = np.ones(np.shape(exemplar)) if weight is None else np.asarray(weight, np.float64)
    people = np.asarray(group_counts(group, num_groups, weight=kept), np.float64)
    among = np.asarray(group_counts(group, num_groups, weight=kept * np.asarray(exemplar, bool)), np.float64)
    everybody, exemplary = kept.sum(), kept[np.asarray(exemplar, bool)].sum()
    there = people > 0
    share = np.where(there, people, np.nan) / max(everybody, 1.0)
    each = 1 - (1 - level) / max(there.sum(), 1)
    low, high = (end / share for end in clopper_pearson(among, np.full(num_groups, exemplary), level=each))
    # A group of everybody has all of them: its ratio is 1, and rounding must not say otherwise.
    state = np.select([there & (low > 1 + 1e-12), there & (high < 1 - 1e-12)], [OVER, UNDER], CANNOT_TELL)
    ratio = among / (exemplary or np.nan) / share
    return Representation(ratio, low, high, among.astype(np.int64), people.astype(np.int64), state)
