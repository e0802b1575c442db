"""Exact inference from few changed people: the McNemar test and intervals that need no normal law.

Two networks see the same n people of a group. Those on whom they agree say nothing about the
difference; of the m who changed, ``lost`` became wrong and ``gained`` became right. If nothing but
chance were at work, ``lost`` would be Binomial(m, 1/2): that is McNemar's test in its exact form.

The gap of the group is the share of people lost less the share gained. :func:`exact_gap_interval`
takes the Clopper-Pearson bounds of both, at levels that add up. It covers at least as often as it
says, for any n. The interval that is *conditional* on m, which takes the share of people who change
for known, does not: it shrinks to the point 0 when nobody in the sample changed, and three hundred
people of whom nobody changed cannot show that nobody in ten thousand would.

Functions of this file run on the host, in float64, on numpy arrays: an audit is done once.

Sources: McNemar, Psychometrika 12, 1947; Clopper and Pearson, Biometrika 26, 1934; for outcomes
that are means over seeds, the relative-entropy form of Hoeffding, JASA 58, 1963.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Shaped
from scipy import special


class Bounds(NamedTuple):
    """An interval, or one per group.

    Attributes:
      low: lower ends.
      high: upper ends, of the same shape.
    """

    low: np.ndarray
    high: np.ndarray


def mcnemar(gained: ArrayLike, lost: ArrayLike) -> np.ndarray:
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
    gained, lost = np.asarray(gained, np.float64), np.asarray(lost, np.float64)
    changed = gained + lost
    tail = special.bdtr(np.minimum(gained, lost), changed.astype(np.int64), 0.5)
    return np.asarray(np.minimum(1.0, 2.0 * tail))


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, *, level: ArrayLike = 0.95) -> Bounds:
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
    k, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    tail = (1.0 - np.asarray(level, np.float64)) / 2.0
    # The inner maxima only keep the unused branch of the where inside the domain of the inverse.
    low = np.where(k > 0, special.betaincinv(np.maximum(k, 1.0), n - k + 1.0, tail), 0.0)
    high = np.where(k < n, special.betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - tail), 1.0)
    return Bounds(low, high)


def bounded_mean_interval(mean: ArrayLike, count: ArrayLike, *, level: ArrayLike = 0.95) -> Bounds:
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
    mean, count = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(count, np.float64))
    with np.errstate(divide="ignore"):
        budget = np.log(2.0 / (1.0 - np.asarray(level, np.float64))) / count

    def inside(mu):
        return special.rel_entr(mean, mu) + special.rel_entr(1 - mean, 1 - mu) <= budget

    low_out, low_in = np.zeros_like(mean), mean
    high_in, high_out = mean, np.ones_like(mean)
    for _ in range(60):  # bisection down to the last bits of float64
        middle = (low_out + low_in) / 2
        good = inside(middle)
        low_out, low_in = np.where(good, low_out, middle), np.where(good, middle, low_in)
        middle = (high_out + high_in) / 2
        good = inside(middle)
        high_out, high_in = np.where(good, high_out, middle), np.where(good, middle, high_in)
    return Bounds(low_out, high_out)


def exact_gap_interval(
    size: Shaped[ArrayLike, "*shape"],
    lost: Shaped[ArrayLike, "*shape"],
    gained: Shaped[ArrayLike, "*shape"],
    *,
    level: ArrayLike = 0.95,
    binary: bool = True,
) -> Bounds:
    """An interval for a group's accuracy gap that is valid however few people changed.

    Args:
      size: number of people n.
      lost: how many of them only the dense network gets right (for means over seeds: the sum of
        the positive differences, dense minus sparse).
      gained: how many of them only the sparse one gets right (the sum of the negative differences,
        without their sign). The gap is ``(lost - gained) / size``.
      level: how often the interval must cover the true gap.
      binary: whether each person is lost, gained or neither. For means over several seeds pass
        False: their differences are only known to lie in ``[-1, 1]``.

    Returns:
      :class:`Bounds` in ``[-1, 1]``, all of it where ``size`` is 0.

    Example:
      A hundred people of whom nobody changed, and a hundred of whom six were lost:

      >>> low, high = exact_gap_interval(np.full(2, 100), np.array([0, 6]), np.array([0, 0]))
      >>> low.round(3), high.round(3)
      (array([-0.037, -0.024]), array([0.037, 0.128]))
    """
    size, lost, gained = (np.asarray(x, np.float64) for x in (size, lost, gained))
    error = 1.0 - np.asarray(level, np.float64)

    def share(total, part):
        if binary:
            return clopper_pearson(total, size, level=1.0 - error * part)
        mean = np.where(size > 0, total / np.maximum(size, 1.0), 0.5)
        return bounded_mean_interval(mean, size, level=1.0 - error * part)

    # An upper end of the one share and a lower end of the other: the former is what makes the
    # interval wide when few people change, so it gets most of the error.
    low = share(lost, 0.1).low - share(gained, 0.9).high
    high = share(lost, 0.9).high - share(gained, 0.1).low
    return Bounds(low, high)
