r"""Who was taken for what, in every group: confusion matrices, and the rates that are read off them.

A matrix counts, by weight, true classes in its rows and predicted ones in its columns::

    K_g[a, b] = sum_i w_i [g_i = g, y_i = a, yhat_i = b]

The three kinds of problems differ in shape alone: ``[G, C, C]`` of C classes, ``[G, 2, 2]`` of two, ``[G, L, 2, 2]`` of
L labels that each apply or do not. :func:`one_against_rest` makes the last kind of the first, and
:func:`confusion_rates` reads any that end in ``[2, 2]``, which is ``[[true negatives, false positives], [false
negatives, true positives]]``. Counts of disjoint people add up, so everybody's matrix is the sum over groups.

Rows and columns stand as in scikit-learn. Source of the names of rates: Verma and Rubin, Fairness Definitions
Explained, FairWare 2018.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32

from jaxfair.metrics._grouped import group_counts
from jaxfair.metrics._rows import Numbers, Rows, as_float, as_group, fit
from jaxfair.typing import Array


class ConfusionRates(NamedTuple):
    """What a two by two matrix says, as shares; a share of nobody is nan.

    Attributes:
      base: P(y = 1), the share of positives.
      selection: P(yhat = 1). Demographic parity: alike in all groups.
      true_positive: P(yhat = 1 | y = 1), recall. Equal opportunity.
      false_positive: P(yhat = 1 | y = 0). With the former: equalised odds.
      true_negative: P(yhat = 0 | y = 0).
      false_negative: P(yhat = 0 | y = 1).
      precision: P(y = 1 | yhat = 1). Predictive parity.
      negative_precision: P(y = 0 | yhat = 0), the negative predictive value.
      accuracy: P(yhat = y). Accuracy parity.
    """

    base: Array
    selection: Array
    true_positive: Array
    false_positive: Array
    true_negative: Array
    false_negative: Array
    precision: Array
    negative_precision: Array
    accuracy: Array


def confusion(
    prediction: Rows,
    y: Rows,
    group: Rows,
    num_groups: int,
    *,
    num_classes: int = 2,
    weight: Rows | None = None,
) -> Float[Array, "G C C"]:
    """How many people of each group and class were predicted to be of which class.

    Args:
      prediction: ``[B]`` predicted classes, integers in ``[0, num_classes)``.
      y: ``[B]`` true classes.
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      num_classes: C, static.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      ``[G, C, C]`` floats: group, true class, predicted class. Who has another number for a class, such as -1, stands
      in no cell: compare the sum with :func:`group_counts` where that may happen.

    Raises:
      ValueError: for shapes that do not fit, and for classes or groups that are no integers.

    Example:
      Of two people of class 0 in group 0, one is taken for class 2:

      >>> found = confusion(np.array([0, 2, 1]), np.array([0, 0, 1]), np.array([0, 0, 1]), 2, num_classes=3)
      >>> found[0].tolist()
      [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    fit(prediction=prediction, y=y, group=group, weight=weight)
    column, row = as_group(prediction, num_classes, name="prediction"), as_group(y, num_classes, name="y")
    weight = None if weight is None else as_float(weight)
    return _counted(column, row, as_group(group, num_groups), weight, num_groups, num_classes)


def multilabel_confusion(
    prediction: Numbers,
    y: Numbers,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
) -> Float[Array, "G L 2 2"]:
    """For each group and label: to how many people it applies, and to how many it was given.

    Args:
      prediction: ``[B, L]`` 0 or 1, or booleans.
      y: ``[B, L]`` likewise; another number, such as -1, where it is not known whether the label applies.
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      ``[G, L, 2, 2]`` floats: group, label, whether it applies, whether it was given.

    Raises:
      ValueError: for shapes that do not fit, and for labels or groups that are no integers.

    Example:
      >>> found = multilabel_confusion(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]]), np.array([0, 0]), 1)
      >>> found[0, 0].tolist(), found[0, 1].tolist()
      ([[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    """
    prediction, y = label_rows(prediction, y, group, weight)
    weight = None if weight is None else as_float(weight)
    return _counted_labels(prediction, y, as_group(group, num_groups), weight, num_groups)


@functools.partial(jax.jit, static_argnames="num_groups")
def _counted_labels(prediction, y, group, weight, num_groups: int) -> Float[Array, "G L 2 2"]:
    """Every label of every person is a row of its own, whose group is the person's and the label."""
    people, labels = prediction.shape
    spread = group[:, None] * labels + jnp.arange(labels, dtype=jnp.int32)[None]
    rows = None if weight is None else jnp.repeat(weight, labels, total_repeat_length=people * labels)
    counts = _counted(prediction.ravel(), y.ravel(), spread.ravel(), rows, num_groups * labels, 2)
    return counts.reshape(num_groups, labels, 2, 2)


def label_rows(
    prediction: Numbers, y: Numbers, group: Rows, weight: Rows | None
) -> tuple[Int32[Array, "N L"], Int32[Array, "N L"]]:
    """Labels as 0 and 1, and 2 for another number; refuses shapes that do not fit."""
    shape, people = np.shape(prediction), np.shape(group)
    if len(shape) != 2 or np.shape(y) != shape or people != shape[:1]:
        raise ValueError(
            f"prediction of shape {shape}, y of shape {np.shape(y)}, group of shape {people}: "
            "give one row per person and one column per label, and one group per person."
        )
    fit(group=group, weight=weight)
    table = {"prediction": prediction, "y": y}
    arrays = {name: x if isinstance(x, Array) else np.asarray(x) for name, x in table.items()}
    whole = [as_group(x.reshape(-1), 2, name=name).reshape(shape) for name, x in arrays.items()]
    return whole[0], whole[1]


@functools.partial(jax.jit, static_argnames=("num_groups", "num_classes"))
def _counted(column, row, group, weight, num_groups: int, num_classes: int) -> Float[Array, "G C C"]:
    """The weight in every cell, of numbers that are made ready: too large where there is no class or group."""
    known = (group < num_groups) & (row < num_classes) & (column < num_classes)
    cells = num_groups * num_classes * num_classes
    cell = jnp.where(known, (group * num_classes + row) * num_classes + column, cells)
    return group_counts(cell, cells, weight=weight).reshape(num_groups, num_classes, num_classes)


def one_against_rest(confusion: Numbers) -> Float[Array, "*shape"]:
    """Each class as a problem of its own: this class, or another.

    Args:
      confusion: ``[..., C, C]`` of :func:`confusion`.

    Returns:
      ``[..., C, 2, 2]``: for class c, ``[[neither, taken for c], [c taken for another, c and found]]``.

    Raises:
      ValueError: for what is no square matrix.

    Example:
      >>> one_against_rest(np.array([[5, 1, 0], [2, 7, 0], [0, 0, 4]]))[1].tolist()
      [[9.0, 1.0], [2.0, 7.0]]
    """
    shape = np.shape(confusion)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"confusion of shape {shape}: give [..., C, C], true classes in rows.")
    counts = as_float(confusion)
    hit = jnp.diagonal(counts, axis1=-2, axis2=-1)
    # Sums of what is outside, not differences of sums: rounding would leave something where there is nobody.
    other = 1 - jnp.eye(shape[-1], dtype=counts.dtype)
    missed, taken = _apart(counts, other).sum(-1), _apart(counts, other).sum(-2)
    neither = _apart(jnp.matmul(counts, other, precision="highest"), other).sum(-2)
    return jnp.stack([jnp.stack([neither, taken], -1), jnp.stack([missed, hit], -1)], -2)


def _apart(counts: Float[Array, "*shape"], other: Float[Array, "C C"]) -> Float[Array, "*shape"]:
    """What stands off the diagonal."""
    return counts * jnp.broadcast_to(other, counts.shape)


def confusion_rates(confusion: Numbers) -> ConfusionRates:
    """All rates of two by two matrices: of groups, of groups and classes, or of groups and labels.

    Args:
      confusion: ``[..., 2, 2]`` of :func:`confusion`, :func:`one_against_rest` or :func:`multilabel_confusion`.
        Summed over groups first, the rates are everybody's.

    Returns:
      :class:`ConfusionRates` of ``[...]``.

    Raises:
      ValueError: for matrices of another size.

    Example:
      >>> rates = confusion_rates(np.array([[6, 2], [1, 3]]))
      >>> print(rates.true_positive, rates.false_positive, rates.precision, rates.accuracy)
      0.75 0.25 0.6 0.75

      Whoever finds nobody has no precision:

      >>> confusion_rates(np.array([[6, 0], [1, 0]])).precision
      Array(nan, dtype=float32)
    """
    shape = np.shape(confusion)
    if len(shape) < 2 or shape[-2:] != (2, 2):
        raise ValueError(f"confusion of shape {shape}: give [..., 2, 2]; of more classes, one_against_rest of it.")
    counts = as_float(confusion)
    (tn, fp), (fn, tp) = ([counts[..., a, b] for b in range(2)] for a in range(2))
    everybody = tn + fp + fn + tp
    return ConfusionRates(
        base=_share(fn + tp, everybody),
        selection=_share(fp + tp, everybody),
        true_positive=_share(tp, fn + tp),
        false_positive=_share(fp, tn + fp),
        true_negative=_share(tn, tn + fp),
        false_negative=_share(fn, fn + tp),
        precision=_share(tp, fp + tp),
        negative_precision=_share(tn, tn + fn),
        accuracy=_share(tn + tp, everybody),
    )


def _share(part: Float[Array, "*shape"], of: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Nan where there is nobody; the inner where keeps 0/0 out of the gradient."""
    return jnp.where(of > 0, part / jnp.where(of > 0, of, 1), jnp.nan)
