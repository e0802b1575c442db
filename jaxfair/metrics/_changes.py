"""The people whose outcome changed, counted: all that inference about gaps needs to know of a split.

Every person i has a difference ``d_i = dense_i - sparse_i``: 1 is lost, -1 is gained, 0 is
unchanged. For outcomes that are means over S seeds it is a multiple of 1/S. Resampling people
within their group resamples these counts, so nothing of the size of the data is ever drawn.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxfair.metrics._rows import Rows, as_group, check_whole, fit
from jaxfair.typing import Key


class Changes(NamedTuple):
    """The people of a split, reduced to what the gaps depend on.

    Attributes:
      values: ``[V]`` the distinct differences, ascending.
      counts: ``[G, V]`` how many people of each group have each of them.
    """

    values: np.ndarray
    counts: np.ndarray


def generator(key: Key) -> np.random.Generator:
    """Numpy's generator, seeded by a JAX key: the same key gives the same numbers."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())


def count_changes(
    dense_correct: Rows,
    sparse_correct: Rows,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
) -> Changes:
    """How many people of every group have which difference.

    Args:
      dense_correct: ``[N]`` booleans, or means over seeds in ``[0, 1]``.
      sparse_correct: ``[N]`` the same people in the same order.
      group: ``[N]`` integers; a person outside ``[0, num_groups)`` is left out.
      num_groups: G.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.

    Returns:
      :class:`Changes`.

    Raises:
      ValueError: for a weight that is neither 0 nor 1, for a person cannot be resampled in part,
        for an outcome outside ``[0, 1]`` or nan, and for shapes that do not fit.

    Example:
      >>> dense, sparse = np.array([True, True, False]), np.array([True, False, True])
      >>> changes = count_changes(dense, sparse, np.array([0, 0, 1]), 2)
      >>> changes.values, changes.counts
      (array([-1.,  0.,  1.]), array([[0, 1, 1],
             [1, 0, 0]]))
    """
    fit(dense_correct=dense_correct, sparse_correct=sparse_correct, group=group, weight=weight)
    check_whole("num_groups", num_groups, 0)
    group = np.asarray(as_group(group, num_groups))
    keep = group < num_groups
    if weight is not None:
        weight = np.asarray(weight)
        if not np.isin(weight, (0, 1)).all():
            raise ValueError("weight must be 0 (padding) or 1 (a person): people are resampled whole")
        keep &= weight == 1
    dense = np.asarray(dense_correct).astype(np.float64)[keep]
    sparse = np.asarray(sparse_correct).astype(np.float64)[keep]
    if not (((dense >= 0) & (dense <= 1)).all() and ((sparse >= 0) & (sparse <= 1)).all()):
        raise ValueError("outcomes must lie in [0, 1]: booleans, or means over seeds")
    # float32 means over seeds differ in their last bits; equal differences must be counted as
    # equal.
    values, column = np.unique(np.round(dense - sparse, 6) + 0.0, return_inverse=True)
    if not values.size:
        values = np.zeros(1)  # nobody is in any group, and nothing has changed
    counts = np.zeros((num_groups, values.size), np.int64)
    np.add.at(counts, (group[keep], column.ravel()), 1)
    return Changes(values, counts)
