"""Thresholds chosen after training: what a decision rule alone can give back to the groups that pruning took from."""

import numpy as np
from jaxtyping import Float

from jaxfair.metrics._rows import Rows, as_group, fit


def cell_thresholds(
    margin: Rows,
    y: Rows,
    dense_correct: Rows,
    group: Rows,
    cell: Rows,
    num_cells: int,
) -> Float[np.ndarray, " K"]:
    """One threshold of a binary classifier for each cell of people, at which it is as accurate as another network.

    Of all thresholds the one for which accuracy comes nearest to the other network's, in the worst of the groups that
    the cell holds; of equals, the one nearest to 0. Choose on a validation split, and predict
    ``margin > threshold[cell]``.

    Args:
      margin: ``[N]``, logit of class 1 less that of class 0. Who has a nan is never above a threshold.
      y: ``[N]`` of 0 and 1.
      dense_correct: ``[N]`` whether the other network is right.
      group: ``[N]`` of the accuracies.
      cell: ``[N]`` of the thresholds: groups that are known when a decision is made. They may be coarser than
        ``group``, which may contain the label.
      num_cells: K.

    Returns:
      ``[K]``; 0 for a cell without people.

    Raises:
      ValueError: for shapes that do not fit, and for classes other than 0 and 1.

    Example:
      A network whose margins in cell 1 are shifted by 2:

      >>> margin = np.array([-1.0, 1.0, 1.0, 3.0])
      >>> sex = np.array([0, 0, 1, 1])
      >>> cell_thresholds(margin, np.array([0, 1, 0, 1]), np.ones(4, bool), sex, sex, 2)
      array([0., 2.])
    """
    fit(margin=margin, y=y, dense_correct=dense_correct, group=group, cell=cell)
    margin, y, dense_correct = (np.asarray(a, np.float64) for a in (margin, y, dense_correct))
    group, cell = np.asarray(group), np.asarray(as_group(cell, num_cells))
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"y with {np.setdiff1d(y, (0, 1))[0]:g}: give the classes 0 and 1.")
    threshold = np.zeros(num_cells)
    for k in range(num_cells):
        inside = cell == k
        values = np.unique(margin[inside & np.isfinite(margin)])
        if not len(values):
            continue
        middle = (values[1:] + values[:-1]) / 2
        tried = np.concatenate([[0.0, values[0] - 1], middle, values[-1:]])
        off = np.zeros(len(tried))
        for g in np.unique(group[inside]):
            here = inside & (group == g)
            right = (margin[here] > tried[:, None]) == y[here].astype(bool)
            off = np.maximum(off, np.abs(right.mean(1) - dense_correct[here].mean()))
        threshold[k] = tried[np.lexsort((np.abs(tried), off.round(9)))[0]]
    return threshold
