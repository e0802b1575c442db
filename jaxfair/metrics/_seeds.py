"""What varies between trainings: means over seeds with Student's interval, and paired comparisons.

Of values x_1 .. x_S, one per seed, with mean m and standard deviation s (divisor S - 1)::

    m -+ t_{S-1, (1 + level)/2} s / sqrt(S)

Two methods trained from the same seeds (the same dense network, the same batches) are compared by
the interval of their *paired differences*. Whether two intervals overlap is no test: they share the
noise of the seed, which the difference removes, and even independent intervals may overlap although
the difference is clear.

Source: Student, Biometrika 6, 1908.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike
from scipy import special

from jaxfair.metrics._rows import Numbers, check_level


class Interval(NamedTuple):
    """A mean with its interval.

    Attributes:
      mean: over seeds.
      half_width: of the interval; nan for fewer than two seeds, from which no spread can be had.
      low: ``mean - half_width``.
      high: ``mean + half_width``.
      seeds: S.
    """

    mean: np.ndarray
    half_width: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int

    def __str__(self) -> str:
        """In words: a single seed says that it has no interval."""
        if self.seeds < 2:
            return f"{self.mean} ({self.seeds} seed: no interval)"
        return f"{self.mean} ± {self.half_width}"


def t_interval(values: Numbers, *, level: ArrayLike = 0.95) -> Interval:
    """The mean over the first axis, with Student's t interval.

    Args:
      values: ``[S, ...]`` one row per seed. A nan (a training that failed) makes its column nan:
        leave a seed out only openly, by not passing it.
      level: of the interval.

    Returns:
      :class:`Interval` of ``[...]`` arrays. With S = 1 the interval is nan.

    Raises:
      ValueError: for one number, which has no seeds, and for a level outside (0, 1).

    Example:
      >>> found = t_interval(np.array([0.01, 0.02, 0.03]))
      >>> print(f"{found.mean:.3f} ± {found.half_width:.3f}")
      0.020 ± 0.025
      >>> print(t_interval(np.array([0.5])))
      0.5 (1 seed: no interval)
    """
    level = check_level(level)
    values = np.asarray(values, np.float64)
    if values.ndim == 0:
        raise ValueError(f"values of shape (), {values}: give one row per seed.")
    seeds = values.shape[0]
    if seeds == 0:
        nothing = np.full(values.shape[1:], np.nan)[()]
        return Interval(nothing, nothing, nothing, nothing, 0)
    mean = values.mean(0)
    if seeds == 1:
        nothing = np.full_like(mean, np.nan)[()]
        return Interval(mean, nothing, nothing, nothing, 1)
    quantile = special.stdtrit(seeds - 1, (1.0 + level) / 2.0)
    half = quantile * values.std(0, ddof=1) / np.sqrt(seeds)
    return Interval(mean, half, mean - half, mean + half, seeds)


def paired_difference(a: Numbers, b: Numbers, *, level: ArrayLike = 0.95) -> Interval:
    """The mean of ``a - b`` over seeds with Student's t interval.

    The methods differ, at this level, if the interval leaves out 0.

    Args:
      a: ``[S, ...]`` of one method, a row per seed.
      b: ``[S, ...]`` of the other, the same seeds in the same order.
      level: of the interval.

    Returns:
      :class:`Interval`.

    Raises:
      ValueError: for shapes that differ, and as :func:`t_interval`.

    Example:
      The seeds spread far more than the methods differ, and the difference is clear all the same:

      >>> a = np.array([0.81, 0.85, 0.90])
      >>> found = paired_difference(a, a - np.array([0.010, 0.011, 0.012]))
      >>> print(f"{found.mean:.3f} ± {found.half_width:.3f}")
      0.011 ± 0.002
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a of shape {np.shape(a)}, b of shape {np.shape(b)}: give the same seeds of both.")
    return t_interval(np.asarray(a, np.float64) - np.asarray(b, np.float64), level=level)
