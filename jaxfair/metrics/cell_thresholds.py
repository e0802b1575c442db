"""Thresholds chosen after training: what a decision rule alone can give back to the groups that pruning took from."""

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped


def cell_thresholds(
    margin: Float[np.ndarray, " N"],
    y: Num[np.ndarray, " N"],
    dense_correct: Bool[np.ndarray, " N"],
    group: Int[np.ndarray, " N"],
    cell: Int[np.ndarray, " N"],
    num_cells: int,
) -> Shaped[np.ndarray, " K"]:
    """One threshold of a binary classifier for each cell of people, at which it is as accurate as another network.

    Of all thresholds the one for which accuracy comes nearest to the other network's, in the worst of the groups that
    the cell holds; of equals, the one nearest to 0. Choose on a validation split, and predict
    ``margin > threshold[cell]``.

    Args:
      margin: ``[N]``, logit of class 1 less that of class 0.
      y: ``[N]`` of 0 and 1.
      dense_correct: ``[N]`` whether the other network is right.
      group: ``[N]`` of the accuracies.
      cell: ``[N]`` of the thresholds: groups that are known when a decision is made. They may be coarser than
        ``group``, which may contain the label.
      num_cells: K.

    Returns:
      ``[K]``; 0 for a cell without people.

    Example:
      A network whose margins in cell 1 are shifted by 2:

      >>> margin = np.array([-1.0, 1.0, 1.0, 3.0])
      >>> sex = np.array([0, 0, 1, 1])
      >>> cell_thresholds(margin, np.array([0, 1, 0, 1]), np.ones(4, bool), sex, sex, 2)
      array([0., 2.])
    """
    threshold = np.zeros(num_cells)
    for k in range(num_cells):
        inside = cell == k
        values = np.unique(margin[inside])
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
