"""From numbers to statements: does the bound hold, who is worst off, did the remedy carry over."""

import numpy as np
from jaxtyping import ArrayLike

from jaxfair.metrics._rows import Numbers, alike

#: The verdict where a whole interval respects the bound.
HOLDS = "holds"
#: The verdict where a whole interval exceeds the bound.
VIOLATED = "violated"
#: The verdict where the bound lies within the interval.
CANNOT_TELL = "cannot tell"


def verdict(low: Numbers, high: Numbers, bound: ArrayLike) -> np.ndarray:
    """Whether a value with the interval ``[low, high]`` respects ``value <= bound``.

    A bound is respected only if the whole interval lies below it, and violated only if the whole
    interval lies above. Absence of evidence is the third answer, and small groups mostly get it.

    Args:
      low: lower ends; use the simultaneous ones where several groups are judged.
      high: upper ends.
      bound: the tolerance.

    Returns:
      An array of "holds", "violated", "cannot tell"; the last also where an end is nan.

    Example:
      >>> low, high = np.array([-0.01, 0.02, -0.02]), np.array([0.005, 0.06, 0.03])
      >>> verdict(low, high, 0.01).tolist()
      ['holds', 'violated', 'cannot tell']
    """
    alike(low=low, high=high, bound=bound)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    known = ~(np.isnan(low) | np.isnan(high))
    return np.select([known & (high <= bound), known & (low > bound)], [HOLDS, VIOLATED], CANNOT_TELL)


def worst_group(psi_validation: Numbers) -> int:
    """The group with the largest excess gap on validation data, to be *scored on test data*.

    The largest of many noisy gaps is too large on the data on which it was picked: with G equal
    groups whose gaps have standard error s it is about ``s sqrt(2 log G)`` although nobody is
    harmed. Pick the group where you may look, then report its gap, unpicked and hence unbiased,
    where you may not.

    Args:
      psi_validation: ``[G]``; nan (no people) is never the worst.

    Returns:
      The index of the group, the first of equals.

    Raises:
      ValueError: if every group is nan, and for what is not one number per group.

    Example:
      >>> validation, test = np.array([0.01, 0.04, np.nan]), np.array([0.02, 0.03, 0.0])
      >>> float(test[worst_group(validation)])
      0.03
    """
    psi = np.asarray(psi_validation, np.float64)
    if psi.ndim != 1:
        raise ValueError(f"psi_validation of shape {psi.shape}: give one number per group.")
    if np.isnan(psi).all():
        raise ValueError("no group has an example: there is no worst one")
    return int(np.nanargmax(psi))


def transfer(*, nft_train: Numbers, nft_test: Numbers, train: Numbers, test: Numbers) -> np.ndarray:
    """The share of the gap closed on train that was closed on test too.

    Measured from naive fine-tuning (nft)::

        (nft_test - test) / (nft_train - train)

    1 where all of it carries over, 0 where the remedy only reached the people it was trained on,
    negative where test became worse.

    Args:
      nft_train: largest excess gap after naive fine-tuning, on train (any shape: per seed, say).
      nft_test: the same on test.
      train: the largest excess gap of the method, on train.
      test: the same on test.

    Returns:
      The ratio; nan where the method closed nothing on train.

    Example:
      >>> transfer(nft_train=np.array([0.043, 0.01]), nft_test=np.array([0.027, 0.01]),
      ...          train=np.array([0.012, 0.01]), test=np.array([0.012, 0.0])).round(2)
      array([0.48,  nan])
    """
    alike(nft_train=nft_train, nft_test=nft_test, train=train, test=test)
    closed = np.asarray(nft_train, np.float64) - np.asarray(train, np.float64)
    carried = np.asarray(nft_test, np.float64) - np.asarray(test, np.float64)
    return np.asarray(carried / np.where(closed > 0, closed, np.nan))
