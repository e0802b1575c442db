r"""What compression did to each class and group, from two populations of networks: tests and normalised changes.

The numbers are one per network and group: its accuracy, error, false-positive or false-negative rate there. With means
``m`` before and ``m'`` after, of K and K' networks, and variances of these means ``v = s^2 / K``, ``v' = s'^2 / K'``::

    Welch       t = (m' - m) / sqrt(v + v'),      df = (v + v')^2 / (v^2 / (K - 1) + v'^2 / (K' - 1))
    normalised  change = (m' - m) / m,            all theta - 1 with (m' - theta m)^2 <= t^2 (v' + theta^2 v)

The interval of the normalised change is Fieller's: a value is outside exactly where a test of ``m' = theta m`` rejects
it. Where the rate before is so small that it cannot be told from 0, it has no upper end, and that is the truth: a
percentage of next to nothing may be anything. Both say what other *trainings* would give, of the same people.

In the papers a class is hit if Welch's p-value of its accuracy *less the network's own accuracy* is at most 0.05. Of a
thousand classes fifty are by chance, so there is a p-value adjusted by Holm's rule beside it.

Sources: Hooker et al., What Do Compressed Deep Neural Networks Forget?, 2019, and Characterising Bias in Compressed
Models, 2020; Welch, Biometrika 34, 1947; Holm, Scandinavian Journal of Statistics 6, 1979; Fieller, JRSS B 16, 1954.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike
from scipy import special

from jaxfair.metrics._fairness import false_positive_rate, true_positive_rate
from jaxfair.metrics._grouped import correct, group_means, overall_mean
from jaxfair.metrics._rows import Numbers, Rows, as_classes, check_level
from jaxfair.typing import Array


class PopulationRates(NamedTuple):
    """Rates of every network of a population; nan for one that has diverged, and where nobody is in the condition.

    Attributes:
      error: ``[K, G]`` share of wrong predictions.
      false_positive: ``[K, G]`` P(predicted positive | not positive, g).
      false_negative: ``[K, G]`` P(not predicted positive | positive, g).
      overall_error: ``[K]`` of everybody, also those of no group.
    """

    error: Array
    false_positive: Array
    false_negative: Array
    overall_error: Array


class Welch(NamedTuple):
    """The difference of two means; made by :func:`welch_test`. All of one shape.

    Attributes:
      difference: after less before.
      low: lower end of its interval, which holds one at a time.
      high: upper end.
      statistic: t.
      df: degrees of freedom.
      p_value: two-sided; 1 where nothing varies and nothing differs, nan where there are less than two networks.
      adjusted: p-values that hold for all of them together, by Holm's rule.
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    statistic: np.ndarray
    df: np.ndarray
    p_value: np.ndarray
    adjusted: np.ndarray


class NormalisedChange(NamedTuple):
    """How much of itself a rate gained or lost; made by :func:`normalised_change`.

    Attributes:
      change: ``(after - before) / before``; nan from 0.
      low: lower end of the interval, at least -1.
      high: upper end; inf where the rate before cannot be told from 0.
    """

    change: np.ndarray
    low: np.ndarray
    high: np.ndarray


def population_rates(
    predictions: Numbers, y: Rows, group: Rows, num_groups: int, *, positive: int = 1, weight: Rows | None = None
) -> PopulationRates:
    """Error, false-positive and false-negative rate of every network in every group; may be jitted.

    Args:
      predictions: ``[K, N]`` classes. -1, or the largest value of an unsigned type, is no class: wrong, and not
        positive. A network that says no class of anybody has diverged, and is nan.
      y: ``[N]`` true classes. With ``group=y`` the error is one less the recall of each class.
      group: ``[N]`` integers; a person outside ``[0, num_groups)`` counts with everybody only.
      num_groups: G, static.
      positive: the class that counts as positive.
      weight: ``[N]``, 0 for padding; all ones by default.

    Returns:
      :class:`PopulationRates`.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      Two networks, of which the second has diverged:

      >>> y, group = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
      >>> rates = population_rates(np.array([[0, 1, 1, 1], [-1, -1, -1, -1]]), y, group, 2)
      >>> rates.false_positive.tolist(), rates.overall_error.tolist()
      ([[0.5, nan], [nan, nan]], [0.25, nan])
    """
    said = as_classes(predictions, "predictions")

    def one(said: Array) -> PopulationRates:
        wrong = ~correct(said, y)
        found = PopulationRates(
            group_means(wrong, group, num_groups, weight=weight),
            false_positive_rate(said, y, group, num_groups, positive=positive, weight=weight),
            1 - true_positive_rate(said, y, group, num_groups, positive=positive, weight=weight),
            overall_mean(wrong, weight=weight),
        )
        return jax.tree.map(lambda a: jnp.where((said >= 0).any(), a, jnp.nan), found)

    return jax.vmap(one)(said)


def welch_test(before: Numbers, after: Numbers, *, level: ArrayLike = 0.95) -> Welch:
    """Whether two populations of networks differ in their means, which may vary unlike.

    Args:
      before: ``[K, ...]`` a number per network, or one per network and group.
      after: ``[K', ...]`` likewise; there may be more or fewer networks. One that is nan everywhere (it has diverged)
        is left out.
      level: of the intervals.

    Returns:
      :class:`Welch` of ``[...]`` arrays.

    Raises:
      ValueError: for shapes that do not fit, and for a level outside (0, 1).

    Example:
      Accuracies of five networks before and four after in two groups; the second loses:

      >>> before = np.array([[0.90, 0.80], [0.91, 0.82], [0.90, 0.81], [0.92, 0.80], [0.91, 0.79]])
      >>> after = np.array([[0.91, 0.70], [0.90, 0.74], [0.92, 0.69], [0.90, 0.71]])
      >>> found = welch_test(before, after)
      >>> found.difference.round(3), found.adjusted.round(3)
      (array([-0.001, -0.094]), array([0.937, 0.002]))
    """
    level = check_level(level)
    (n, m, v), (n2, m2, v2) = _moments(before, after)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference, error = m2 - m, np.sqrt(v + v2)
        df = (v + v2) ** 2 / (v**2 / (n - 1) + v2**2 / (n2 - 1))
        t = difference / error
        # Where nothing varies, what differs does so surely.
        sure = (error == 0) & ~np.isnan(difference)
        p = np.where(sure, np.where(difference == 0, 1.0, 0.0), 2 * special.stdtr(df, -np.abs(t)))
        half = np.where(sure, 0.0, special.stdtrit(df, (1 + level) / 2) * error)
    return Welch(difference, difference - half, difference + half, t, df, p, _holm(p))


def normalised_change(before: Numbers, after: Numbers, *, level: ArrayLike = 0.95) -> NormalisedChange:
    """How much of itself a rate, such as an error, gained between two populations of networks, with its interval.

    Args:
      before: ``[K, ...]`` rates, at least 0: one per network, or one per network and group.
      after: ``[K', ...]`` likewise. A network that is nan everywhere is left out.
      level: of the intervals, which hold one at a time.

    Returns:
      :class:`NormalisedChange` of ``[...]`` arrays; times 100 in per cent.

    Raises:
      ValueError: as :func:`welch_test`.

    Example:
      Of an error of 2 % that became 3 %, and of one that may as well be none:

      >>> before = np.array([[0.02, 0.0], [0.021, 0.0], [0.019, 0.0], [0.02, 0.001]])
      >>> after = np.array([[0.03, 0.001], [0.031, 0.0], [0.029, 0.001], [0.03, 0.0]])
      >>> found = normalised_change(before, after)
      >>> found.change.round(2), found.low.round(2), found.high.round(2)
      (array([0.5, 1. ]), array([ 0.41, -1.  ]), array([0.6, inf]))
    """
    level = check_level(level)
    (n, m, v), (n2, m2, v2) = _moments(before, after)
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = m2 / np.where(m > 0, m, np.nan)
        spread = theta**2 * v
        df = (spread + v2) ** 2 / (spread**2 / (n - 1) + v2**2 / (n2 - 1))
        # Where nothing varies there is nothing to multiply.
        t2 = np.where(spread + v2 == 0, 0.0, special.stdtrit(df, (1 + level) / 2)) ** 2
        # The roots of theta^2 (m^2 - t^2 v) - 2 theta m m' + (m'^2 - t^2 v').
        a, c = m**2 - t2 * v, m2**2 - t2 * v2
        root = np.sqrt(np.maximum((m * m2) ** 2 - a * c, 0.0))
        low, high = (m * m2 - root) / a - 1, (m * m2 + root) / a - 1
    told, nothing = a > 0, np.isnan(m) | np.isnan(m2) | (n < 2) | (n2 < 2)
    low, high = np.where(told, np.maximum(low, -1.0), -1.0), np.where(told, high, np.inf)
    return NormalisedChange(theta - 1, np.where(nothing, np.nan, low), np.where(nothing, np.nan, high))


def _moments(before: Numbers, after: Numbers) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Networks, means and squared standard errors of both populations."""
    both = [np.asarray(x, np.float64) for x in (before, after)]
    if min(x.ndim for x in both) == 0 or both[0].shape[1:] != both[1].shape[1:]:
        raise ValueError(
            f"before of shape {both[0].shape}, after of shape {both[1].shape}: give a row per network, and the same "
            "groups in both."
        )
    found = []
    for x in both:
        kept = x[~np.isnan(x).all(axis=tuple(range(1, x.ndim)))] if x[:1].size else x
        n, nothing = len(kept), np.full(x.shape[1:], np.nan)
        mean, variance = kept.mean(0) if n else nothing, kept.var(0, ddof=1) / n if n > 1 else nothing
        found.append((n, np.asarray(mean), np.asarray(variance)))
    return found


def _holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values: the k-th smallest of n times n - k + 1, and never below a smaller one's."""
    flat = np.asarray(p).ravel()
    order = np.argsort(flat)[: int((~np.isnan(flat)).sum())]  # nan are last
    adjusted = np.full(flat.shape, np.nan)
    factor = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(flat[order] * factor), 1.0)
    return adjusted.reshape(np.shape(p))
