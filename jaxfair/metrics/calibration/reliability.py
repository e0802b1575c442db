r"""How sure a model is, and how often it is right: the reliability curve, per group.

A model is calibrated where, of the people to whom it is sure by 80 percent, 80 percent are predicted rightly. The curve
shows it bin by bin: of the people in bin b, the mean confidence, and the share who are right::

    conf_b = mean f_i,    acc_b = mean h_i,    i in bin b        (h_i = 1 where the prediction is right)

What counts as confidence is the caller's affair. Mostly it is that of the predicted class (:func:`top_label`). With two
classes it may be the probability of class 1, and "right" is then whether the person is of class 1.

Source of the two ways to make bins: Roelofs, Cain, Shlens and Mozer, `Mitigating bias in calibration error estimation
<https://arxiv.org/abs/2012.08668>`_, AISTATS 2022. Unlike theirs, equal mass keeps people who are equally confident
together (:mod:`jaxfair.metrics.calibration._bins`); without ties the bins are the same.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Float, Int32

from jaxfair.metrics._grouped import correct as right_about
from jaxfair.metrics._rows import Numbers, Rows, as_float, check_whole
from jaxfair.metrics.calibration._bins import Cells, bin_of, cells, check_binning, checked, in_order
from jaxfair.typing import Array


class Reliability(NamedTuple):
    """The reliability curve of every group.

    Attributes:
      size: ``[G, B]`` how many people are in each bin.
      confidence: ``[G, B]`` their mean confidence; nan for a bin of nobody.
      accuracy: ``[G, B]`` the share of them who are right; nan for a bin of nobody.
    """

    size: Array
    confidence: Array
    accuracy: Array


class TopLabel(NamedTuple):
    """What calibration is measured on.

    Attributes:
      confidence: ``[N]`` the probability of the predicted class.
      correct: ``[N]`` booleans, whether it is the right one.
    """

    confidence: Array
    correct: Array


def top_label(prediction: Numbers, y: Rows, *, logits: bool = False) -> TopLabel:
    """The confidence of the predicted class, and whether it is right.

    Args:
      prediction: ``[N, C]`` probabilities, a column per class.
      y: ``[N]`` classes.
      logits: whether ``prediction`` are logits; logarithms of probabilities are some.

    Returns:
      :class:`TopLabel`. A person whose largest number is not finite has a confidence of nan, and is predicted wrongly,
      as in :func:`jaxfair.metrics.correct`.

    Raises:
      ValueError: for shapes that do not fit, and for a largest probability that is none.

    Example:
      >>> found = top_label(jnp.array([[0.75, 0.25], [0.375, 0.625]]), jnp.array([0, 0]))
      >>> found.confidence.tolist(), found.correct.tolist()
      ([0.75, 0.625], [True, False])
      >>> top_label(jnp.array([[2.0, 2.0]]), jnp.array([0]), logits=True).confidence
      Array([0.5], dtype=float32)
    """
    if np.ndim(prediction) != 2:
        shapes = f"prediction of shape {np.shape(prediction)} for classes of shape {np.shape(y)}"
        raise ValueError(f"{shapes}: give [N, C], a number for each class, and [N] classes.")
    correct = right_about(prediction, y)
    scores = as_float(prediction)
    top = (jax.nn.softmax(scores, axis=-1) if logits else scores).max(-1)
    if not isinstance(top, Tracer):
        wrong = np.asarray(top)[np.asarray((top < 0) | (top > 1))]
        if wrong.size:
            raise ValueError(
                f"the largest of a row's probabilities must be between 0 and 1, but one is {wrong[0]:g}; "
                "for logits say logits=True"
            )
    return TopLabel(jnp.where(jnp.isfinite(scores.max(-1)), top, jnp.nan), correct)


@functools.partial(jax.jit, static_argnames=("num_groups", "bins", "binning"))
def curve(
    confidence: Float[Array, "N"],
    correct: Bool[Array, "N"],
    group: Int32[Array, "N"],
    *,
    num_groups: int,
    bins: int,
    binning: str,
) -> Cells:
    """``[G, B]`` sizes, mean confidences and accuracies of people who are checked already."""
    people = in_order(confidence, correct, group, num_groups)
    spot = people.group * bins + bin_of(people, jnp.full_like(people.group, bins), binning)
    found = cells(people, spot, num_groups * bins)
    return Cells(*(x.reshape(num_groups, bins) for x in found))


def reliability(
    confidence: Rows,
    correct: Rows,
    group: Rows | None = None,
    num_groups: int = 1,
    *,
    weight: Rows | None = None,
    bins: int = 15,
    binning: str = "mass",
) -> Reliability:
    """How sure and how often right, bin by bin and group by group.

    Args:
      confidence: ``[N]`` in ``[0, 1]``; nan makes its bin nan.
      correct: ``[N]`` booleans, or 0 and 1.
      group: ``[N]`` integers; those outside ``[0, num_groups)`` are left out. Without it all people are one group.
      num_groups: G, static.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      bins: B, static.
      binning: "mass", bins of as many people each, group by group; or "width", bins that are equally wide.

    Returns:
      :class:`Reliability`.

    Raises:
      ValueError: for shapes that do not fit, and for confidences, outcomes and weights that are none.

    Example:
      A model that is sure by 0.9 about four people, of whom it is right about three, and by 0.6 about two:

      >>> confidence, correct = [0.9, 0.9, 0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0, 1, 0]
      >>> found = reliability(confidence, correct, bins=2)
      >>> found.size.tolist(), found.accuracy.tolist()
      ([[2.0, 4.0]], [[0.5, 0.75]])

      Of equal width, both are in the upper bin, and nobody is in the lower one:

      >>> found = reliability(confidence, correct, bins=2, binning="width")
      >>> found.size.tolist(), np.asarray(found.confidence).round(2)
      ([[0.0, 6.0]], array([[nan, 0.8]], dtype=float32))
    """
    check_whole("bins", bins, 1)
    check_binning(binning)
    people = checked(confidence, correct, group, num_groups, weight)
    return Reliability(*curve(*people, num_groups=num_groups, bins=bins, binning=binning))
