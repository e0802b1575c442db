"""Rates of a classifier in every group, and what compression did to them.

For a class called positive (of several classes: that one against the rest), with prediction
``yhat``::

    true-positive rate    P(yhat = positive | y = positive, g)       what equal opportunity asks
    false-positive rate   P(yhat = positive | y != positive, g)      with the former: equalised odds
    selection rate        P(yhat = positive | g)                     what demographic parity asks

:func:`jaxfair.metrics.difference` and :func:`jaxfair.metrics.ratio` compare groups, of all rates at once. A rate with
nobody in its condition is nan. Further rates (precision, accuracy, ...) are read off counts, by
:func:`jaxfair.metrics.confusion_rates`; those leave out whoever has no label, of whom a selection rate can be had here.

Source: Hardt, Price and Srebro, Equality of Opportunity in Supervised Learning, NeurIPS 2016.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxfair.metrics._grouped import group_means
from jaxfair.metrics._rows import Rows, as_float, fit, same
from jaxfair.typing import Array


class Rates(NamedTuple):
    """Three rates per group, or their changes.

    Attributes:
      true_positive: ``[G]``.
      false_positive: ``[G]``.
      selection: ``[G]``.
    """

    true_positive: Array
    false_positive: Array
    selection: Array


def selection_rate(
    prediction: Rows,
    group: Rows,
    num_groups: int,
    *,
    positive: int = 1,
    weight: Rows | None = None,
) -> Float[Array, "G"]:
    """P(yhat = positive | g).

    Args:
      prediction: ``[B]`` predicted classes.
      group: ``[B]`` integers in ``[0, num_groups)``.
      num_groups: G, static.
      positive: the class that counts as positive.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      ``[G]``, nan for an empty group.

    Example:
      >>> selection_rate(jnp.array([1, 0, 1]), jnp.array([0, 0, 1]), 2)
      Array([0.5, 1. ], dtype=float32)
    """
    fit(prediction=prediction, group=group, weight=weight)
    return group_means(same(prediction, positive), group, num_groups, weight=weight)


def true_positive_rate(
    prediction: Rows,
    y: Rows,
    group: Rows,
    num_groups: int,
    *,
    positive: int = 1,
    weight: Rows | None = None,
) -> Float[Array, "G"]:
    """P(yhat = positive | y = positive, g); as :func:`selection_rate`, with ``y`` ``[B]``.

    Returns:
      ``[G]``, nan for a group with no positive.

    Example:
      >>> y, group = jnp.array([1, 1, 0]), jnp.array([0, 0, 1])
      >>> true_positive_rate(jnp.array([1, 0, 1]), y, group, 2)
      Array([0.5, nan], dtype=float32)
    """
    fit(prediction=prediction, y=y, group=group, weight=weight)
    seen = _among(same(y, positive), weight)
    return selection_rate(prediction, group, num_groups, positive=positive, weight=seen)


def false_positive_rate(
    prediction: Rows,
    y: Rows,
    group: Rows,
    num_groups: int,
    *,
    positive: int = 1,
    weight: Rows | None = None,
) -> Float[Array, "G"]:
    """P(yhat = positive | y != positive, g); arguments as :func:`true_positive_rate`.

    Returns:
      ``[G]``, nan for a group with no negative.

    Example:
      >>> y, group = jnp.array([1, 1, 0]), jnp.array([0, 0, 1])
      >>> false_positive_rate(jnp.array([1, 0, 1]), y, group, 2)
      Array([nan,  1.], dtype=float32)
    """
    fit(prediction=prediction, y=y, group=group, weight=weight)
    # Whoever has no class, a nan, is in neither condition: nan is not even itself.
    seen = _among(~same(y, positive) & same(y, y), weight)
    return selection_rate(prediction, group, num_groups, positive=positive, weight=seen)


def _among(condition: Bool[Array, "N"], weight: Rows | None) -> Float[Array, "N"]:
    """The weight of those who meet a condition, and 0 of the others, whatever stands there."""
    return as_float(condition) if weight is None else jnp.where(condition, as_float(weight), 0)


def group_rates(
    prediction: Rows,
    y: Rows,
    group: Rows,
    num_groups: int,
    *,
    positive: int = 1,
    weight: Rows | None = None,
) -> Rates:
    """The three rates at once.

    Args:
      prediction: ``[B]`` predicted classes.
      y: ``[B]`` classes.
      group: ``[B]`` integers in ``[0, num_groups)``.
      num_groups: G, static.
      positive: the class that counts as positive.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      :class:`Rates` of ``[G]``.

    Example:
      >>> y, group = jnp.array([1, 1, 0, 0]), jnp.array([0, 0, 0, 0])
      >>> rates = group_rates(jnp.array([1, 0, 1, 1]), y, group, 1)
      >>> [float(rate[0]) for rate in rates]
      [0.5, 1.0, 0.75]
    """
    options = {"positive": positive, "weight": weight}
    return Rates(
        true_positive=true_positive_rate(prediction, y, group, num_groups, **options),
        false_positive=false_positive_rate(prediction, y, group, num_groups, **options),
        selection=selection_rate(prediction, group, num_groups, **options),
    )


def rate_changes(
    dense_prediction: Rows,
    sparse_prediction: Rows,
    y: Rows,
    group: Rows,
    num_groups: int,
    *,
    positive: int = 1,
    weight: Rows | None = None,
) -> Rates:
    """Rate of the sparse network minus rate of the dense one: positive where the rate rose.

    Note the sign: an accuracy *gap* is dense minus sparse (what was lost), a rate's *change* is
    sparse minus dense (where it went), for a higher selection rate is neither a loss nor a gain in
    itself.

    Args:
      dense_prediction: ``[B]`` classes predicted by the dense network.
      sparse_prediction: ``[B]`` classes predicted by the sparse one, for the same people.
      y: ``[B]`` classes.
      group: ``[B]`` integers in ``[0, num_groups)``.
      num_groups: G, static.
      positive: the class that counts as positive.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      :class:`Rates` of ``[G]``.

    Example:
      >>> y, group = jnp.array([1, 1, 0, 0]), jnp.array([0, 0, 0, 0])
      >>> changes = rate_changes(jnp.array([1, 1, 0, 0]), jnp.array([1, 0, 0, 0]), y, group, 1)
      >>> [float(change[0]) for change in changes]
      [-0.5, 0.0, -0.25]
    """
    options = {"positive": positive, "weight": weight}
    dense = group_rates(dense_prediction, y, group, num_groups, **options)
    sparse = group_rates(sparse_prediction, y, group, num_groups, **options)
    return Rates(*(after - before for before, after in zip(dense, sparse, strict=True)))
