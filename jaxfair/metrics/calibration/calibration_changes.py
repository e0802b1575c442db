r"""What a change of the model did to the calibration of every group, with intervals over people.

The error of a group is the debiased one, ``ECE = sqrt(max(D, 0))`` of :func:`jaxfair.metrics.ece_debiased`, before and
after, of the same people::

    change_g   = ECE_g(after) - ECE_g(before)
    interval   = change_g -+ c se_g,    c the quantile of max_g |change*_g - mean change*_g| / se_g    of resamples

A resample draws people within each group and keeps what both networks said of a person together. Bins stay where all
people put them. se is the standard deviation over resamples, and c makes the intervals of all groups hold together. The
resamples are centred on their own mean: each has the noise of the people once more, so they lie above the estimate.

A group gets fewer bins where they would have fewer than ten people each: it is with bins of two that intervals are too
short. A group of fewer than ten is left at ``[-1, 1]``. In 200 simulated groups each of 30, 100, 400 and 2,000 people,
an interval of 95 percent held the true change in 94 to 99 percent where there was none, and in 88 to 95 percent where a
calibrated model had come to be 13 points off: its error before, a root that cannot be negative, is too large, and the
change too small. Mistakes that were not made are not known: of a group about which both networks are always right the
intervals are too short.

Sources: Kumar, Liang and Ma, Verified uncertainty calibration, NeurIPS 2019, for the error; Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, for the resampling of pairs; Romano and Wolf, Econometrica 73, 2005, for maxima.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int32
from scipy import special

from jaxfair.metrics._rows import Rows, check_level, check_whole, fit
from jaxfair.metrics.calibration._bins import Cells, bin_of, check_binning, checked, in_order
from jaxfair.metrics.calibration.ece import squared
from jaxfair.typing import Array, Key

#: So many people at least are in a bin of equal mass, and in a group that gets an interval.
LEAST = 10
# People drawn at a time.
_DRAWN = 2_000_000


class CalibrationChanges(NamedTuple):
    """The calibration error of every group before and after; a group of nobody is nan.

    Attributes:
      before: ``[G]`` debiased error.
      after: ``[G]`` the same afterwards.
      change: ``[G]`` after less before: positive where the group's calibration became worse.
      standard_error: ``[G]`` of the change, over people; nan for fewer than ten.
      low: ``[G]`` lower ends of intervals that hold together.
      high: ``[G]`` upper ends.
      single_low: ``[G]`` lower ends of intervals that hold one at a time: for a group named in advance.
      single_high: ``[G]`` upper ends.
      size: ``[G]`` how many people.
      bins: ``[G]`` how many bins they were put into; 0 for nobody.
      level: of the intervals.
    """

    before: np.ndarray
    after: np.ndarray
    change: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    single_low: np.ndarray
    single_high: np.ndarray
    size: np.ndarray
    bins: np.ndarray
    level: float


def calibration_changes(
    confidence_before: Rows,
    correct_before: Rows,
    confidence_after: Rows,
    correct_after: Rows,
    group: Rows,
    num_groups: int,
    *,
    key: Key,
    weight: Rows | None = None,
    bins: int = 15,
    binning: str = "mass",
    resamples: int = 1000,
    level: ArrayLike = 0.95,
) -> CalibrationChanges:
    """How much better or worse calibrated every group is after than before, with simultaneous intervals.

    Args:
      confidence_before: ``[N]`` in ``[0, 1]``. Of logits: :func:`jaxfair.metrics.top_label`.
      correct_before: ``[N]`` booleans, or 0 and 1.
      confidence_after: ``[N]``, of the same people in the same order.
      correct_after: ``[N]``.
      group: ``[N]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G.
      key: of the resampling.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      bins: how many at most.
      binning: "mass" or "width", as in :func:`jaxfair.metrics.ece`.
      resamples: how many.
      level: how often all intervals together (and each single one) must cover.

    Returns:
      :class:`CalibrationChanges`. It costs ``resamples * N``: some seconds for 100,000 people.

    Raises:
      ValueError: as :func:`jaxfair.metrics.ece`, and for a level outside (0, 1).

    Example:
      Two groups whose accuracy is their confidence; afterwards the model is surer of group 1, and no more often right:

      >>> rng = np.random.default_rng(0)
      >>> group, before = np.repeat([0, 1], 1000), rng.beta(4, 1, 2000)
      >>> correct = rng.random(2000) < before
      >>> after = np.where(group == 1, before**0.25, before)
      >>> found = calibration_changes(before, correct, after, correct, group, 2, key=jax.random.key(0), resamples=200)
      >>> [f"{c:.2f} [{low:.2f}, {high:.2f}]" for c, low, high in zip(found.change, found.low, found.high)]
      ['0.00 [0.00, 0.00]', '0.18 [0.14, 0.22]']
    """
    fit(
        confidence_before=confidence_before,
        correct_before=correct_before,
        confidence_after=confidence_after,
        correct_after=correct_after,
        group=group,
        weight=weight,
    )
    level = float(check_level(level))
    check_whole("bins", bins, 1)
    check_whole("resamples", resamples, 2)
    check_binning(binning)
    before = checked(confidence_before, correct_before, group, num_groups, weight)
    after = checked(confidence_after, correct_after, group, num_groups, weight)
    sizes = np.bincount(np.asarray(before[2]), minlength=num_groups + 1)[:num_groups]
    number = np.clip(sizes // LEAST if binning == "mass" else np.full_like(sizes, bins), 1, bins)
    drawn, measured = _resampled(
        key, before[:2], after[:2], before[2], jnp.asarray(number, jnp.int32),
        num_groups=num_groups, bins=bins, binning=binning, resamples=resamples,
    )  # fmt: skip
    seen = np.where(sizes > 0, 0.0, np.nan)
    one, other = np.asarray(measured, np.float64) + seen
    together, alone, error = _reach(np.asarray(drawn, np.float64), sizes >= LEAST, level)
    change = other - one

    def ends(reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A group of few people is left with all that can be."""
        few = np.isnan(reach)
        return np.where(few, -1.0 + seen, change - reach), np.where(few, 1.0 + seen, change + reach)

    number = np.where(sizes > 0, number, 0)
    return CalibrationChanges(one, other, change, error, *ends(together), *ends(alone), sizes, number, level)


def _reach(drawn: np.ndarray, many: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``[G]`` half-widths of intervals together and one at a time, and standard errors; nan for groups of few."""
    # A group without a number makes nan, and is nan; it is not counted.
    moved = drawn - drawn.mean(0)
    error = np.where(many, drawn.std(0), np.nan)
    there = many & (error > 0)
    critical = special.ndtri((1 + level) / 2)
    largest = (np.abs(moved[:, there]) / error[there]).max(1) if there.any() else np.zeros(len(drawn))
    return max(float(np.quantile(largest, level, method="higher")), critical) * error, critical * error, error


@functools.partial(jax.jit, static_argnames=("num_groups", "bins", "binning", "resamples"))
def _resampled(
    key: Key,
    before: tuple[Float[Array, "N"], Bool[Array, "N"]],
    after: tuple[Float[Array, "N"], Bool[Array, "N"]],
    group: Int32[Array, "N"],
    number: Int32[Array, "G"],
    *,
    num_groups: int,
    bins: int,
    binning: str,
    resamples: int,
) -> tuple[Float[Array, "R G"], Float[Array, "2 G"]]:
    """Changes of resamples, and the errors before and after of the people themselves."""
    if not group.size or not num_groups:
        return jnp.full((resamples, num_groups), jnp.nan), jnp.full((2, num_groups), jnp.nan)
    sides = [_binned(*side, group, number, bins, binning) for side in (before, after)]
    row = jnp.argsort(group)  # who of a group lie side by side
    sizes = jnp.bincount(group, length=num_groups + 1)
    first, size = (jnp.cumsum(sizes) - sizes)[group[row]], sizes[group[row]]

    def errors(who: Int32[Array, "N"]) -> Float[Array, "2 G"]:
        found = []
        for spot, values in sides:
            sums = jax.ops.segment_sum(values[who], spot[who], num_segments=num_groups * bins).T
            count, gap, right = sums.reshape(3, num_groups, bins)
            accuracy = right / jnp.maximum(count, 1)
            curve = Cells(count, accuracy + gap / jnp.maximum(count, 1), accuracy)
            found.append(jnp.sqrt(jnp.maximum(squared(curve), 0)))
        return jnp.stack(found)

    def drawn(key: Key) -> Float[Array, "G"]:
        place = jax.random.uniform(key, group.shape) * size.astype(jnp.float32)
        who = row[first + jnp.minimum(place.astype(jnp.int32), size - 1)]
        one, other = errors(who)
        return other - one

    at_once = max(1, min(resamples, _DRAWN // group.size))
    return jax.lax.map(drawn, jax.random.split(key, resamples), batch_size=at_once), errors(row)


def _binned(
    confidence: Float[Array, "N"],
    correct: Bool[Array, "N"],
    group: Int32[Array, "N"],
    number: Int32[Array, "G"],
    bins: int,
    binning: str,
) -> tuple[Int32[Array, "N"], Float[Array, "N 3"]]:
    """The bin of each person among those of all groups, and what is summed over it: 1, confidence - right, right."""
    people = in_order(confidence, correct, group, number.size)
    of = number.at[people.group].get(mode="fill", fill_value=1)
    spot = jnp.zeros_like(group).at[people.row].set(people.group * bins + bin_of(people, of, binning))
    right = correct.astype(confidence.dtype)
    return spot, jnp.stack([jnp.ones_like(confidence), confidence - right, right], axis=1)
