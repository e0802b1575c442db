"""Kinds of batches: how many places a group has in each."""

import numpy as np

from jaxfair import train

#: Kinds of batches: the power of a group's size that its places are in proportion to; None is without replacement from
#: all people. Re-weighted exactly, the loss is the same on average.
BATCHES = {"plain": None, "balanced": 0.0, "root": 0.5}


def power_of(batches: str, group: np.ndarray, num_groups: int, batch_size: int) -> float | None:
    """The power of :data:`BATCHES` for these groups.

    Args:
      batches: plain, balanced, root; or auto, which is root where a batch has a place for each group.
      group: ``[N]`` of the training split.
      num_groups: G.
      batch_size: B.

    Raises:
      ValueError: for another word, or batches that these groups do not allow.

    Example:
      >>> power_of("auto", np.array([0, 0, 1]), 2, 3), power_of("auto", np.array([0, 0, 1]), 2, 1)
      (0.5, None)
    """
    if batches not in ("auto", *BATCHES):
        raise ValueError(f"batches={batches!r}: choose from auto, {', '.join(BATCHES)}.")
    if batches == "auto":
        present = np.bincount(group, minlength=num_groups) > 0
        batches = "root" if present.all() and batch_size >= num_groups else "plain"
    power = BATCHES[batches]
    if power is not None:
        train.balanced_places(group, num_groups, batch_size, power=power)  # says what is wrong
    return power
