r"""The exact test of a group's accuracy gap against any bound, and the interval that agrees with it.

Of n people, b are lost and c gained; the gap is ``Delta = p_b - p_c``, and ``q = p_b + p_c`` is the share of people who
change. A test of ``Delta <= delta`` must hold whatever q is. Which one is best depends on delta, and may, as long as
the choice does not look at the data:

- ``delta = 0``: McNemar's exact test. Given that somebody changed, lost and gained are equally likely; q has no part.
- ``delta > 0``: the unconditional test by McNemar's ``z = (b - c) / sqrt(b + c)``: the chance of one as large,
  maximised over q::

      P(delta) = max_q sum_m Bin(m; n, q) P(Bin(m, (1 + delta / q) / 2) >= k_m),    z(k_m, m - k_m) >= z(b, c)

- ``delta < 0``: the Clopper-Pearson bounds of p_b and of p_c, at levels that add up. With nobody changed, for whom the
  others have nothing to say, they are nearly the best there is. And what contradicts 0 contradicts less than 0.

The interval holds every bound that is not rejected in its direction at half of the error. So it leaves out 0 exactly
where McNemar's p-value is below the error, and any other bound exactly where :func:`exact_gap_test` is. For outcomes
that are means over seeds, of which only the range is known, every bound is treated as the last kind is, by
:func:`jaxfair.metrics.bounded_mean_interval`.

Sources: McNemar, Psychometrika 12, 1947; Hsueh, Liu and Chen, Unconditional exact tests for equivalence or
noninferiority for paired binary endpoints, Biometrics 57, 2001; Lloyd and Moldovan, Exact one-sided confidence limits
for the difference between two correlated proportions, Statistics in Medicine 26, 2007.
"""

import numpy as np
from jaxtyping import ArrayLike
from scipy import special

from jaxfair.metrics._exact import Bounds, clopper_pearson, furthest, mcnemar
from jaxfair.metrics._rows import Numbers, alike, check_level

# Shares of people who change over which the chance is maximised. It is smooth in them, and mostly largest where few do.
# The many large ones cost most, and come last.
_SHARES = np.split(np.linspace(0.0, 1.0, 61) ** 3, [20, 40])
# Of the error: to the share of people who moved in the direction, and to the other, which makes the box wide.
_SPLIT = 0.1, 0.9


def exact_gap_interval(
    size: Numbers, lost: Numbers, gained: Numbers, *, level: ArrayLike = 0.95, binary: bool = True
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
      :class:`Bounds` in ``[-1, 1]``, all of it where ``size`` is 0. A bound is outside exactly where
      :func:`exact_gap_test` is below ``1 - level``.

    Raises:
      ValueError: for shapes that do not fit, and for a level outside (0, 1).

    Example:
      A hundred people of whom nobody changed, a hundred of whom six were lost, and 19 of whom eight were:

      >>> low, high = exact_gap_interval(np.array([100, 100, 19]), np.array([0, 6, 8]), np.array([0, 0, 0]))
      >>> low.round(3), high.round(3)
      (array([-0.037,  0.016,  0.166]), array([0.037, 0.128, 0.67 ]))
    """
    alike(size=size, lost=lost, gained=gained, level=level)
    level = check_level(level)
    shape, (size, lost, gained, level) = _flat(size, lost, gained, level)
    tail = (1.0 - level) / 2
    low, high = lower_limit(size, lost, gained, tail, binary), -lower_limit(size, gained, lost, tail, binary)
    return Bounds(low.reshape(shape), high.reshape(shape))


def exact_gap_test(
    size: Numbers, lost: Numbers, gained: Numbers, bound: ArrayLike = 0.0, *, binary: bool = True
) -> np.ndarray:
    """The two-sided p-value that a group's accuracy gap is ``bound``.

    Args:
      size: number of people.
      lost: as in :func:`exact_gap_interval`.
      gained: likewise.
      bound: the gap in question.
      binary: as there.

    Returns:
      p: :func:`exact_gap_interval` leaves the bound out exactly at the levels below ``1 - p``. With a bound of 0
      it is :func:`mcnemar`.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      Eight of 19 are lost: surely some, and hardly fewer than one in ten.

      >>> exact_gap_test(19, 8, 0, bound=np.array([0.0, 0.1, 0.3])).round(4)
      array([0.0078, 0.0184, 0.3641])
    """
    alike(size=size, lost=lost, gained=gained, bound=bound)
    shape, (size, lost, gained, bound) = _flat(size, lost, gained, bound)
    up = one_sided(size, lost, gained, bound, binary)
    down = one_sided(size, gained, lost, -bound, binary)
    return np.minimum(1.0, 2.0 * np.minimum(up, down)).reshape(shape)


def _flat(*numbers: Numbers) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """The shape that numbers have together, and each of them as ``[N]`` float64."""
    arrays = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in numbers))
    return arrays[0].shape, [array.ravel() for array in arrays]


def one_sided(size: np.ndarray, lost: np.ndarray, gained: np.ndarray, delta: np.ndarray, binary: bool) -> np.ndarray:
    """The p-value of ``Delta <= delta``; ``[N]`` float64."""
    p = _box_test(size, lost, gained, delta, binary)
    if not binary:
        return p
    sign = _sign_test(lost, gained)
    p = np.where(delta < 0, np.minimum(p, sign), sign)
    out = np.where(size > 0, p, 1.0)
    # Whoever cannot reject 0 cannot reject more, and is not worth the sum over all outcomes.
    for i in range(out.size):
        if delta[i] > 0 and size[i] > 0 and lost[i] > gained[i]:
            out[i] = max(out[i], _above(int(size[i]), int(lost[i]), int(gained[i]), float(delta[i])))
    return out


def rejects(
    size: np.ndarray, lost: np.ndarray, gained: np.ndarray, delta: np.ndarray, tail: np.ndarray, binary: bool
) -> np.ndarray:
    """Whether ``Delta <= delta`` is rejected at `tail`; ``[N]`` float64."""
    found = box(size, lost, gained, tail, binary) > delta
    if not binary:
        return found
    sign = (_sign_test(lost, gained) < tail) & (size > 0)
    found = np.where(delta < 0, found | sign, sign)
    for i in np.flatnonzero(sign & (delta > 0)):
        found[i] = _above(int(size[i]), int(lost[i]), int(gained[i]), float(delta[i]), tail[i]) < tail[i]
    return found


def lower_limit(size: np.ndarray, lost: np.ndarray, gained: np.ndarray, tail: np.ndarray, binary: bool) -> np.ndarray:
    """The smallest delta of which ``Delta <= delta`` is not rejected at `tail`; ``[N]`` float64."""
    low = box(size, lost, gained, tail, binary)
    if not binary:
        return low
    positive = (_sign_test(lost, gained) < tail) & (size > 0)
    low = np.where(positive, np.nextafter(0.0, 1.0), np.minimum(low, 0.0))
    for i in np.flatnonzero(positive):
        n, b, c = (int(x[i]) for x in (size, lost, gained))
        outside, inside = 0.0, (b - c) / n
        for _ in range(18):
            middle = (outside + inside) / 2
            rejected = _above(n, b, c, middle, tail[i]) < tail[i]
            outside, inside = (middle, inside) if rejected else (outside, middle)
        low[i] = max(low[i], outside)
    return low


def _sign_test(lost, gained):
    """One-sided, of more lost than gained."""
    return np.where(lost > gained, mcnemar(gained, lost) / 2, 1.0)


def box(size: np.ndarray, lost: np.ndarray, gained: np.ndarray, tail: np.ndarray, binary: bool) -> np.ndarray:
    """The lower bound of one share less the upper bound of the other, whose errors add up to `tail`."""
    if binary:
        low = clopper_pearson(lost, size, level=1.0 - 2 * tail * _SPLIT[0]).low
        return low - clopper_pearson(gained, size, level=1.0 - 2 * tail * _SPLIT[1]).high
    # Both ends in one array: tests bisect over this, and it bisects itself.
    share = np.where(size > 0, np.stack([lost, gained]) / np.maximum(size, 1.0), 0.5)
    with np.errstate(divide="ignore"):
        budget = -np.log(np.stack([tail * part for part in _SPLIT])) / size
    low, high = furthest(share, budget, np.array([0.0, 1.0]).reshape(2, *[1] * np.ndim(size)))
    return low - high


def _box_test(size, lost, gained, delta, binary):
    """The smallest tail at which the box leaves delta out, by bisection of its logarithm."""
    low, high = np.full(delta.shape, np.log(1e-12)), np.full(delta.shape, np.log(0.5))
    for _ in range(40):
        middle = (low + high) / 2
        rejected = box(size, lost, gained, np.exp(middle), binary) > delta
        low, high = np.where(rejected, low, middle), np.where(rejected, middle, high)
    return np.where(box(size, lost, gained, np.full(delta.shape, 0.5), binary) > delta, np.exp(high), 1.0)


def _above(n: int, lost: int, gained: int, delta: float, tail: float = np.inf) -> float:
    """P(delta) of the docstring, for ``delta > 0`` and more lost than gained; of P above `tail` only that it is."""
    if delta >= 1:
        return 1.0
    z, found = (lost - gained) / np.sqrt(lost + gained), 0.0
    for part in _SHARES:
        found = max(found, _largest_chance(n, z, delta, np.minimum(delta + (1.0 - delta) * part, 1.0)))
        if found >= tail:
            break
    return found


def _largest_chance(n: int, z: float, delta: float, q: np.ndarray) -> float:
    """The largest chance over the shares q of people who change."""
    # Seven standard deviations to both sides hold all the mass that matters, for each q its own range of m.
    reach = 7 * np.sqrt(n * q * (1 - q)) + 7
    first, last = np.maximum(np.floor(n * q - reach), 1).astype(int), np.minimum(np.ceil(n * q + reach), n).astype(int)
    width = last - first + 1
    starts = np.cumsum(width) - width
    m = np.arange(width.sum()) + np.repeat(first - starts, width)
    q = np.repeat(q, width)
    # The fewest lost of m with a z as large; rounding must not shut out the outcome itself.
    least = np.ceil((m + z * np.sqrt(m)) / 2 - 1e-9)
    log_mass = _log_factorial(n) - _log_factorial(m) - _log_factorial(n - m)
    mass = np.exp(log_mass + special.xlogy(m, q) + special.xlog1py(n - m, -q))
    chance = np.zeros(m.size)
    some = (least <= m) & (mass > 1e-12)
    chance[some] = special.bdtrc(least[some] - 1, m[some], np.minimum((1.0 + delta / q[some]) / 2, 1.0))
    return float(np.add.reduceat(mass * chance, starts).max())


def _log_factorial(n):
    return special.gammaln(np.asarray(n) + 1.0)
