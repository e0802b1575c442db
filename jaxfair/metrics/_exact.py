"""Exact inference from few changed people: the McNemar test and intervals that need no normal law.

Two networks see the same n people of a group. Those on whom they agree say nothing about the
difference; of the m who changed, ``lost`` became wrong and ``gained`` became right. If nothing but
chance were at work, ``lost`` would be Binomial(m, 1/2): that is McNemar's test in its exact form.

Of the gap itself, of which 0 is one value, :func:`jaxfair.metrics.exact_gap_interval` tells.

Functions of this file run on the host, in float64, on numpy arrays: an audit is done once.

Sources: McNemar, Psychometrika 12, 1947; Clopper and Pearson, Biometrika 26, 1934; for outcomes
that are means over seeds, the relative-entropy form of Hoeffding, JASA 58, 1963.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike
from scipy import special

from jaxfair.metrics._rows import Numbers, alike, check_level


class Bounds(NamedTuple):
    """An interval, or one per group.

    Attributes:
      low: lower ends.
      high: upper ends, of the same shape.
    """

    low: np.ndarray
    high: np.ndarray


def mcnemar(gained: Numbers, lost: Numbers) -> np.ndarray:
    """Exact two-sided p-value that people are gained and lost equally often.

    Args:
      gained: people whom the sparse network gets right and the dense one wrong; a count or an array
        of counts.
      lost: the converse, of the same shape.

    Returns:
      ``min(1, 2 P(Binomial(gained + lost, 1/2) <= min(gained, lost)))``, 1 where nobody changed.

    Example:
      >>> mcnemar(np.array([2, 0, 5]), np.array([9, 0, 5])).round(4)
      array([0.0654, 1.    , 1.    ])
    """
    alike(gained=gained, lost=lost)
    gained, lost = np.asarray(gained, np.float64), np.asarray(lost, np.float64)
    changed = gained + lost
    tail = special.bdtr(np.minimum(gained, lost), changed.astype(np.int64), 0.5)
    return np.asarray(np.minimum(1.0, 2.0 * tail))


def clopper_pearson(successes: Numbers, trials: Numbers, *, level: ArrayLike = 0.95) -> Bounds:
    """The exact interval of a share, from ``successes`` out of ``trials``.

    Args:
      successes: a count or an array of counts.
      trials: of the same shape; where it is 0 the interval is ``[0, 1]``.
      level: how often the interval must cover the true share.

    Returns:
      :class:`Bounds` of shares in ``[0, 1]``.

    Example:
      >>> low, high = clopper_pearson(np.array([0, 5]), np.array([10, 10]))
      >>> low.round(3), high.round(3)
      (array([0.   , 0.187]), array([0.308, 0.813]))
    """
    alike(successes=successes, trials=trials, level=level)
    level = check_level(level)
    k, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    tail = (1.0 - np.asarray(level, np.float64)) / 2.0
    # The inner maxima only keep the unused branch of the where inside the domain of the inverse.
    low = np.where(k > 0, special.betaincinv(np.maximum(k, 1.0), n - k + 1.0, tail), 0.0)
    high = np.where(k < n, special.betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - tail), 1.0)
    return Bounds(low, high)


def bounded_mean_interval(mean: Numbers, count: Numbers, *, level: ArrayLike = 0.95) -> Bounds:
    """An interval for the mean of ``count`` independent values in ``[0, 1]``, whatever their law.

    It holds those mu with ``count * kl(mean, mu) <= log(2 / (1 - level))``, with kl the relative
    entropy of two Bernoulli laws: wider than Clopper-Pearson, which knows that the values are 0 or
    1.

    Args:
      mean: the sample's mean or an array of them.
      count: how many values each is the mean of; where it is 0 the interval is ``[0, 1]``.
      level: how often the interval must cover the true mean.

    Returns:
      :class:`Bounds` in ``[0, 1]``.

    Example:
      >>> low, high = bounded_mean_interval(np.array(0.5), np.array(10))
      >>> print(low.round(3), high.round(3))
      0.139 0.861
    """
    alike(mean=mean, count=count, level=level)
    level = check_level(level)
    mean, count, level = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (mean, count, level)))
    mean = np.where(count > 0, mean, 0.5)  # of nothing, whatever stands there
    with np.errstate(divide="ignore"):
        budget = np.log(2.0 / (1.0 - level)) / count

    low, high = furthest(mean, budget, 0.0), furthest(mean, budget, 1.0)
    return Bounds(low, high)


def furthest(mean: np.ndarray, budget: ArrayLike, outside: ArrayLike) -> np.ndarray:
    """Of the mu between a mean and an end, 0 or 1, the furthest whose relative entropy is within the budget.

    By bisection down to the last bits of float64, for all of an array at once.
    """
    inside, outside = mean, np.broadcast_to(np.asarray(outside, np.float64), mean.shape)
    rest = 1 - mean
    for _ in range(60):
        middle = (outside + inside) / 2
        good = special.rel_entr(mean, middle) + special.rel_entr(rest, 1 - middle) <= budget
        outside, inside = np.where(good, outside, middle), np.where(good, middle, inside)
    return outside
