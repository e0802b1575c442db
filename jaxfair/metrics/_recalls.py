r"""Metrics of a whole confusion: functions of R, the shares of each class that are taken for each class.

``R`` is ``[C, C]``, a row for each true class, and every row sums to 1; ``R[c, c]`` is the recall of class c. Each is a
number that may be differentiated: what a minimum is softened by, and the multipliers of a constraint, are constants
for the derivative, as in the method that they are from. See :func:`jaxfair.metrics.metric_gain`.

Source: Ramasubramanian et al., `Selective Mixup Fine-Tuning for Optimizing Non-Decomposable Objectives
<https://arxiv.org/abs/2403.18301>`_, ICLR 2024; the constants are those of the authors' configurations.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from jaxfair.metrics._rows import Numbers, as_float


def mean_recall(recall: Numbers) -> Float[Array, ""]:
    """The mean over classes of their recall; accuracy, if all classes had as many people.

    Args:
      recall: R, ``[C, C]``.

    Example:
      >>> mean_recall(jnp.array([[0.75, 0.25], [0.5, 0.5]])).item()
      0.625
    """
    return jnp.mean(jnp.diagonal(as_float(recall)))


def min_recall(recall: Numbers, sharpness: ArrayLike = 50.0) -> Float[Array, ""]:
    r"""The smallest recall, softly: the mean by the weights :math:`\mathrm{softmax}(-s\, R_{cc})`, held fixed.

    Args:
      recall: R, ``[C, C]``.
      sharpness: s; with 0 it is the mean.

    Example:
      >>> min_recall(jnp.array([[0.75, 0.25], [0.5, 0.5]])).round(4).item()
      0.5
    """
    return _softest(jnp.diagonal(as_float(recall)), sharpness)


def head_tail_recall(recall: Numbers, tail: Any = None, sharpness: ArrayLike = 50.0) -> Float[Array, ""]:
    """The smaller of two mean recalls, that of the common classes and that of the rare ones; softly.

    Args:
      recall: R, ``[C, C]``.
      tail: ``[C]`` bool, the rare classes; by default the last tenth, and at least the last.
      sharpness: as of :func:`min_recall`.

    Raises:
      ValueError: for a mask of another shape, or without a class on either side.

    Example:
      >>> R = jnp.array([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0], [0.0, 0.75, 0.25]])
      >>> head_tail_recall(R).round(4).item(), head_tail_recall(R, tail=[False, True, True]).round(4).item()
      (0.25, 0.375)
    """
    recall = as_float(recall)
    count = len(recall)
    if tail is None:
        tail = np.arange(count) >= min(int(0.9 * count), count - 1)
    if np.shape(tail) != (count,):
        raise ValueError(f"tail of shape {np.shape(tail)}: give [{count}] booleans, one for each class.")
    if not isinstance(tail, Tracer) and len(set(np.asarray(tail, bool).tolist())) < 2:
        raise ValueError(f"tail={np.asarray(tail).tolist()}: it takes rare classes and others, at least one of each.")
    rare = jnp.asarray(tail).astype(recall.dtype)
    own = jnp.diagonal(recall)
    means = jnp.stack([jnp.sum(own * side) / jnp.sum(side) for side in (1 - rare, rare)])
    return _softest(means, sharpness)


def _softest(values: Float[Array, "n"], sharpness: ArrayLike) -> Float[Array, ""]:
    return jnp.sum(lax.stop_gradient(jax.nn.softmax(-jnp.asarray(sharpness) * values)) * values)


def g_mean(recall: Numbers) -> Float[Array, ""]:
    """The geometric mean of the recalls; 0 where one is 0, which :func:`metric_gain` therefore clips.

    Args:
      recall: R, ``[C, C]``.

    Example:
      >>> g_mean(jnp.array([[0.5, 0.5], [0.875, 0.125]])).round(6).item()
      0.25
    """
    return jnp.exp(jnp.mean(jnp.log(jnp.diagonal(as_float(recall)))))


def h_mean(recall: Numbers) -> Float[Array, ""]:
    """The harmonic mean of the recalls, which the smallest dominate.

    Args:
      recall: R, ``[C, C]``.

    Example:
      >>> round(h_mean(jnp.array([[0.5, 0.5], [0.75, 0.25]])).item(), 4)
      0.3333
    """
    return 1 / jnp.mean(1 / jnp.diagonal(as_float(recall)))


def coverage(
    recall: Numbers,
    of: Callable[[Any], Any] = mean_recall,
    *,
    share: ArrayLike = 0.95,
    most: ArrayLike = 100.0,
    temperature: ArrayLike = 0.01,
) -> Float[Array, ""]:
    r"""A metric under the constraint that each class is predicted about as often as it occurs.

    .. math:: \frac{\psi(R) + \sum_l \lambda_l (v_l - \alpha / C)}{1 + \max_l \lambda_l}, \qquad
       \lambda_l = \max\big(0,\ \Lambda (1 - e^{(v_l - \alpha / C) / \tau})\big)

    with :math:`v_l` the mean of column l of R, and the multipliers held fixed: almost :math:`\Lambda` for a class that
    is predicted too rarely, 0 for the others.

    Args:
      recall: R, ``[C, C]``.
      of: psi, any metric of R.
      share: alpha, of what a class would have at equal shares.
      most: Lambda.
      temperature: tau.

    Example:
      The second class is never predicted:

      >>> round(coverage(jnp.array([[1.0, 0.0], [1.0, 0.0]])).item(), 4)
      -0.4653
    """
    recall = as_float(recall)
    least = jnp.mean(recall, axis=0) - share / len(recall)
    multipliers = lax.stop_gradient(jnp.maximum(0.0, most * (1 - jnp.exp(least / temperature))))
    return (of(recall) + jnp.sum(multipliers * least)) / (1 + jnp.max(multipliers))
