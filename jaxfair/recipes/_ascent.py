r"""How fast multipliers move: a rule that knows tolerance, epochs and the size of a group, and has nothing to tune.

.. math::

   \lambda_g \leftarrow \Big[\lambda_g + \frac{R}{T}\, \mathrm{clip}\Big(
   \frac{\psi_g - \epsilon_g}{\epsilon + \sqrt{c / n_g}},\ -1,\ 1\Big)\Big]_+

with T the steps of the run. Plain ascent moves a multiplier by the violation itself, a share: of one point by 0.01 an
epoch at one epoch's rate, so that it never arrives where 0.7 to 1.3 is needed; and by a third of an epoch's worth while
pruning costs a small group 30 points, so that it overshoots. Here a violation that is clear moves its multiplier by
R / E an epoch, however large it is; one that is less than the noise of its group by less.

What the gap of n people is uncertain by is the standard error of the share who changed. A group of n people cannot be
held to less than one of them: then :math:`\epsilon_g` is that, and not the tolerance.
"""

from typing import Any

import numpy as np
import optax

#: R: how far a multiplier can go in a run, if its group violates the bound all the time. Those that hold a bound end
#: between 0 and 2; it is met from 5 on, and up to 500 that costs no more accuracy (docs/findings/constraints.md).
TRAVEL = 5.0
#: c: the share of a group whose predictions pruning changes, roughly.
CHANGED = 0.05
#: The network is trained to so much of the tolerance.
MARGIN = 0.5


def ascent(tolerance: Any, people: Any, steps: int, travel: Any = TRAVEL) -> optax.GradientTransformation:
    """The optimizer of the multipliers.

    Args:
      tolerance: the bound, a share.
      people: ``[G]``, how many each group has.
      steps: T, of the run.
      travel: R.

    Example:
      A gap that is 30 points beyond the bound, and one that is half a point, of 5,000 people each:

      >>> dual = ascent(0.01, np.array([5000, 5000]), steps=50)
      >>> violations = np.array([0.3, 0.005], np.float32)
      >>> dual.update(-violations, dual.init(violations))[0].round(3)
      Array([0.1  , 0.038], dtype=float32)
    """
    unit = noise_unit(tolerance, people).astype(np.float32)
    return optax.chain(optax.scale(1 / unit), optax.clip(1.0), optax.sgd(travel / steps))


def noise_unit(tolerance: Any, people: Any) -> np.ndarray:
    r"""What a violation is measured by, for each group: :math:`\epsilon + \sqrt{c / n_g}`.

    Args:
      tolerance: the bound, a share.
      people: ``[G]``, how many each group has.

    Example:
      >>> noise_unit(0.01, np.array([77, 500, 5000])).round(3)
      array([0.035, 0.02 , 0.013])
    """
    return np.asarray(tolerance) + np.sqrt(CHANGED / np.maximum(people, 1))


def people_of(group: np.ndarray, weight: Any, num_groups: int) -> np.ndarray:
    """``[G]``: `metrics.effective_counts`, in NumPy, since a solver may be made inside of a program.

    Example:
      >>> people_of(np.array([0, 0, 1]), None, 2)
      array([2., 1.])
    """
    weight = np.ones(len(group)) if weight is None else np.asarray(weight, np.float64)
    sums, squares = (np.bincount(group, of, num_groups) for of in (weight, weight**2))
    return np.divide(sums**2, squares, out=np.zeros_like(sums), where=squares > 0)


def aims(tolerance: Any, people: Any, margin: Any) -> np.ndarray:
    """``[G]``: the tolerance, or what times the margin is one person of the group, where that is more.

    Example:
      No group can be held to less than one of its people:

      >>> aims(0.01, np.array([100, 1000]), 0.5)
      array([0.02, 0.01])
    """
    return np.clip(1 / (margin * np.maximum(people, 1)), tolerance, 1.0)
