r"""Directional bias amplification: whether predictions tie an attribute and a task together more than the data do.

Of people with attributes ``A_a`` and tasks ``T_t``, each 0 or 1 (several at once may be 1), and predictions of one of
the two::

    y_at  = sign(P(A_a = 1, T_t = 1) - P(A_a = 1) P(T_t = 1))                 on train
    A->T  : Delta_at = P(That_t = 1 | A_a = 1) - P(T_t = 1 | A_a = 1)         on test
    T->A  : Delta_at = P(Ahat_a = 1 | T_t = 1) - P(A_a = 1 | T_t = 1)         on test
    BiasAmp = mean of y_at Delta_at over the pairs that are defined

Above 0 the predictions have more of the bias that train has, below 0 less; it lies in ``[-1, 1]``, and predictions that
are all right have 0. Both directions are one formula, in which what is *given* and what is *predicted* change places:
:func:`amplification` of attributes given and tasks predicted is A->T, of tasks given and attributes predicted is
T->A. (To predict a sensitive attribute is rarely a good idea.) A task of two classes is one column, ``y == 1``.

- A pair that is independent on train, to the last person, has ``y_at = 0`` and adds 0. (The paper's formula, an
  indicator, would take it for a negative one; the authors' code does as is done here.)
- A pair of whose condition nobody is in test is not defined: nan, and left out of the mean.
- Nobody is dropped. (The authors' code leaves out of y_at who has no attribute and no task: give them a weight of 0.)

A network that says a class more often, of everybody, differs in Delta for that alone. So scores are cut where as many
are predicted as there are, on validation: :func:`matched_thresholds`. And one network is one number: train several, and
take :func:`jaxfair.metrics.t_interval` of them. (The authors' ``1.96 std / sqrt(5)`` with a divisor of 5 is too narrow
by 1.6 times.)

Source: Wang and Russakovsky, `Directional Bias Amplification <https://arxiv.org/abs/2102.12594>`_, ICML 2021.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfair.metrics._rows import Numbers, Rows, as_float
from jaxfair.typing import Array


class Amplification(NamedTuple):
    """Bias of predictions beyond that of the data; made by :func:`amplification`.

    Attributes:
      pairs: ``[A, T]`` ``y_at Delta_at`` of what is given (rows) and predicted (columns); nan where not defined.
      mean: scalar, over the pairs that are defined; nan without any.
      direction: ``[A, T]`` y_at: 1, -1, or 0 for a pair that is independent.
      defined: scalar, how many pairs are.
    """

    pairs: Array
    mean: Array
    direction: Array
    defined: Array


def amplification(
    given: Numbers,
    true: Numbers,
    predicted: Numbers,
    *,
    train_given: Numbers,
    train_true: Numbers,
    weight: Rows | None = None,
    train_weight: Rows | None = None,
) -> Amplification:
    """How much more predictions go with what is given than the truth does; may be jitted and vmapped.

    Args:
      given: ``[N, A]`` of 0 and 1, true values on test: attributes for A->T, tasks for T->A.
      true: ``[N, T]`` of 0 and 1, what is to be predicted.
      predicted: ``[N, T]`` of 0 and 1, what is.
      train_given: ``[M, A]`` as `given`, on train.
      train_true: ``[M, T]`` as `true`, on train.
      weight: ``[N]``, 0 for padding; all ones by default.
      train_weight: ``[M]`` likewise.

    Returns:
      :class:`Amplification`.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      On train cooking (the task) goes with attribute 0. On test as many of both cook; of attribute 0 all are said to:

      >>> attribute = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
      >>> cooks = np.array([[1], [1], [1], [0]])
      >>> truth, said = np.array([[1], [0], [1], [0]]), np.array([[1], [1], [1], [0]])
      >>> found = amplification(attribute, truth, said, train_given=attribute, train_true=cooks)
      >>> found.direction.tolist(), found.pairs.tolist(), float(found.mean)
      ([[1.0], [-1.0]], [[0.5], [-0.0]], 0.25)

      The other direction, of the attributes that a network says of those who cook:

      >>> said = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
      >>> float(amplification(truth, attribute, said, train_given=cooks, train_true=attribute).mean)
      0.5
    """
    _fit(given, true, predicted, weight, "test")
    _fit(train_given, train_true, None, train_weight, "train")
    if np.shape(given)[1] != np.shape(train_given)[1] or np.shape(true)[1] != np.shape(train_true)[1]:
        raise ValueError(
            f"given and true have {np.shape(given)[1]} and {np.shape(true)[1]} columns, on train "
            f"{np.shape(train_given)[1]} and {np.shape(train_true)[1]}: give the same columns."
        )
    direction = _direction(train_given, train_true, train_weight)
    given, (size, mask) = as_float(given), _kept(weight, np.shape(given)[0])
    given = jnp.where(mask, given, 0) * size
    count = given.sum(0)[:, None]
    # The difference first, so that a perfect predictor has exactly 0.
    more = jnp.where(mask, as_float(predicted) - as_float(true), 0).astype(given.dtype)
    delta = _product(given, more) / jnp.where(count > 0, count, 1)
    pairs = jnp.where(count > 0, direction * delta, jnp.nan)
    there = ~jnp.isnan(pairs)
    defined = there.sum(dtype=jnp.int32)
    total = jnp.where(there, pairs, 0).sum()
    mean = jnp.where(defined > 0, total / jnp.maximum(defined, 1).astype(total.dtype), jnp.nan)
    return Amplification(pairs, mean, direction, defined)


def matched_thresholds(scores: Numbers, positive: Numbers) -> np.ndarray:
    """The thresholds at which as many are predicted as there are; chosen on validation, used on test.

    Predicted is ``score > threshold``. With n positives that is the (n + 1)-th largest score; where scores are equal
    and no threshold gives n, the one that comes nearest, and of two as near the higher one. On the host, in the dtype
    of the scores.

    Args:
      scores: ``[N, T]``, more for what is likelier; nan is never above a threshold.
      positive: ``[N, T]`` of 0 and 1.

    Returns:
      ``[T]``; ``-inf`` where all are positive.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      Two of five are positive. In the second column the three largest scores are equal:

      >>> scores = np.array([[4.0, 3.0], [3.0, 3.0], [2.0, 3.0], [1.0, 2.0], [0.0, 1.0]])
      >>> matched_thresholds(scores, np.array([[1, 1], [0, 0], [1, 1], [0, 0], [0, 0]])).tolist()
      [2.0, 2.0]
    """
    scores, positive = np.asarray(scores), np.asarray(positive)
    if scores.ndim != 2 or scores.shape != positive.shape:
        raise ValueError(f"scores of shape {scores.shape}, positive of {positive.shape}: give [N, T] in both.")
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)
    known = np.where(np.isnan(scores), -np.inf, scores)
    found = np.full(scores.shape[1], -np.inf, scores.dtype)
    for t, (column, wanted) in enumerate(zip(known.T, positive.astype(bool).sum(0), strict=True)):
        tried = np.concatenate([np.sort(column)[::-1], [-np.inf]])
        above = len(column) - np.searchsorted(tried[-2::-1], tried, side="right")
        found[t] = tried[np.argmin(np.abs(above - wanted))]
    return found


def _fit(given: Numbers, true: Numbers, predicted: Numbers | None, weight: Rows | None, where: str) -> None:
    shapes = {"given": np.shape(given), "true": np.shape(true)}
    if predicted is not None:
        shapes["predicted"] = np.shape(predicted)
    wrong = any(len(shape) != 2 for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) > 1
    wrong = wrong or (predicted is not None and shapes["true"] != shapes["predicted"])
    if weight is not None:
        wrong = wrong or np.shape(weight) != np.shape(given)[:1]
        shapes["weight"] = np.shape(weight)
    if wrong:
        said = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise ValueError(f"{said} on {where}: give [N, A] and [N, T] of 0 and 1, and [N] weights, of the same people.")


def _kept(weight: Rows | None, size: int) -> tuple[Array, Array]:
    """Weights ``[N, 1]``, and who has one: what stands in the padding must not matter."""
    weight = jnp.ones((size, 1)) if weight is None else as_float(weight)[:, None]
    return weight, weight != 0


def _product(a: Array, b: Array) -> Array:
    """``a.T @ b``: counts, exact up to 2^24."""
    return jnp.matmul(a.T, b, precision="highest")


def _direction(given: Numbers, true: Numbers, weight: Rows | None) -> Array:
    """y_at. Products of counts are compared, not subtracted: of equal ones nothing is left by rounding."""
    weight, mask = _kept(weight, np.shape(given)[0])
    given = jnp.where(mask, as_float(given), 0)
    true = jnp.where(mask, as_float(true), 0).astype(given.dtype)
    weight = weight.astype(given.dtype)
    both = _product(given * weight, true) * weight.sum()
    apart = (given * weight).sum(0)[:, None] * (true * weight).sum(0)[None, :]
    return (both > apart).astype(given.dtype) - (both < apart).astype(given.dtype)
