r"""Whose prediction changed, and whom it made wrong: of networks before and after, of the same people.

With ``c_i`` and ``c'_i`` the classes that are predicted before and after of person i, and ``y_i`` the true one, of
the people of a group, or of everybody::

    changed        share with c_i != c'_i
    newly wrong    share with c_i = y_i != c'_i
    newly right    share with c_i != y_i = c'_i

An accuracy gap is a difference, ``newly wrong - newly right``: a group of which a tenth became wrong and another tenth
right has none. Neither share can be larger than ``changed``, so no group loses more accuracy than that; with more than
two classes, who is wrong before and after may have changed as well. ``changed`` needs no true classes.

In the literature the first is churn (Milani Fard et al., Launch and Iterate: Reducing Prediction Churn, NeurIPS 2016),
the second are negative flips (Yan et al., Positive-Congruent Training, CVPR 2021).
"""

from typing import NamedTuple

from jaxfair.metrics._grouped import correct, group_means, overall_mean
from jaxfair.metrics._rows import Rows, fit, same
from jaxfair.typing import Array


class PredictionChanges(NamedTuple):
    """Shares of people whose prediction changed, and how; in ``[0, 1]``.

    Attributes:
      changed: ``[G]``, whose predicted class is another one; nan for a group of nobody.
      newly_wrong: ``[G]``, who were right before and are wrong after.
      newly_right: ``[G]``, who were wrong before and are right after.
      overall_changed: scalar, over everybody, also those of no group.
      overall_newly_wrong: scalar.
      overall_newly_right: scalar.
    """

    changed: Array
    newly_wrong: Array
    newly_right: Array
    overall_changed: Array
    overall_newly_wrong: Array
    overall_newly_right: Array


def prediction_changes(
    before: Rows,
    after: Rows,
    y: Rows,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
) -> PredictionChanges:
    """How many predictions changed, and how many became wrong or right; by group and of everybody.

    Args:
      before: ``[N]`` predicted classes.
      after: ``[N]`` predicted classes, of the same people in the same order.
      y: ``[N]`` true classes. Where they are not known, only ``changed`` says something.
      group: ``[N]`` integers; a person outside ``[0, num_groups)`` counts with everybody only.
      num_groups: G, static.
      weight: ``[N]``, 0 for padding; all ones by default.

    Returns:
      :class:`PredictionChanges`. A class is compared as an integer of any width; -1, of a network that has diverged, is
      a class of its own, and wrong.

    Raises:
      ValueError: for shapes that do not fit, and for groups that are no integers.

    Example:
      Six people. In group 0 one becomes wrong and one right, which leaves the accuracy as it was; group 2 is empty:

      >>> import numpy as np
      >>> y, group = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1])
      >>> before, after = np.array([0, 1, 1, 1, 1, 1]), np.array([1, 0, 1, 1, 1, 1])
      >>> found = prediction_changes(before, after, y, group, 3)
      >>> found.changed.tolist(), found.newly_wrong.tolist(), round(float(found.overall_changed), 3)
      ([0.5, 0.0, nan], [0.25, 0.0, nan], 0.333)
    """
    fit(before=before, after=after, y=y, group=group, weight=weight)
    was, is_now = correct(before, y), correct(after, y)
    kinds = (~same(before, after), was & ~is_now, ~was & is_now)
    return PredictionChanges(
        *(group_means(kind, group, num_groups, weight=weight) for kind in kinds),
        *(overall_mean(kind, weight=weight) for kind in kinds),
    )
