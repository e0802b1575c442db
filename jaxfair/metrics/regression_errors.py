r"""How far predicted numbers are from true ones, in every group.

With ``e_i = yhat_i - y_i``, weights ``w_i`` that sum to 1 within the group, and ``ybar_g`` the mean of y in it::

    mean_error     sum_i w_i e_i                            the sign says in whose favour
    mean_squared   sum_i w_i e_i^2
    mean_absolute  sum_i w_i |e_i|
    r_squared      1 - sum_i w_i e_i^2 / sum_i w_i (y_i - ybar_g)^2

``r_squared`` compares a group with its own spread: a group whose y hardly varies has a low one although its errors are
those of everybody else. So groups are compared by their errors first. The largest of a group's mean losses is what
bounded group loss bounds.

Source: Agarwal, Dudik and Wu, Fair Regression, ICML 2019, for bounded group loss.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.metrics._grouped import group_sums
from jaxfair.metrics._rows import Rows, as_float, as_group, fit
from jaxfair.metrics._streams import Stream, streamed
from jaxfair.metrics._totals import Spread, Total, add, deviations, join, no_spread, nothing, read, spread, total
from jaxfair.typing import Array


class RegressionErrors(NamedTuple):
    """Errors per group; a group of nobody is nan.

    Attributes:
      mean_error: ``[G]`` predicted minus true, on average.
      mean_squared: ``[G]`` mean squared error.
      mean_absolute: ``[G]`` mean absolute error.
      r_squared: ``[G]`` share of the variance that is explained; below 0 where the group's mean would be better, nan
        where y does not vary.
    """

    mean_error: Array
    mean_squared: Array
    mean_absolute: Array
    r_squared: Array


class _State(NamedTuple):
    """Sums of a stream.

    Attributes:
      error: ``[G]`` sum of errors.
      squared: ``[G]`` of squared errors.
      absolute: ``[G]`` of absolute errors.
      y: of the true values.
    """

    error: Total
    squared: Total
    absolute: Total
    y: Spread


def _of(prediction, y, group, num_groups, weight) -> _State:
    error = as_float(prediction) - as_float(y)
    sums = [total(group_sums(e, group, num_groups, weight=weight)) for e in (error, error * error, jnp.abs(error))]
    return _State(sums[0], sums[1], sums[2], spread(y, group, num_groups, weight))


def _errors(state: _State) -> RegressionErrors:
    size = read(state.y.size)
    known = size > 0
    means = [jnp.where(known, read(s) / jnp.where(known, size, 1), jnp.nan) for s in state[:3]]
    around = deviations(state.y)
    varies = around > 0
    explained = jnp.where(varies, 1 - read(state.squared) / jnp.where(varies, around, 1), jnp.nan)
    return RegressionErrors(
        mean_error=means[0], mean_squared=means[1], mean_absolute=means[2], r_squared=explained
    )  # fmt: skip


def _merge(a: _State, b: _State) -> _State:
    return _State(*(add(x, y) for x, y in zip(a[:3], b[:3], strict=True)), y=join(a.y, b.y))


def regression_errors(
    prediction: Rows, y: Rows, group: Rows, num_groups: int, *, weight: Rows | None = None
) -> RegressionErrors:
    """Mean error, mean squared and mean absolute error, and R squared, of every group.

    Args:
      prediction: ``[B]`` predicted numbers.
      y: ``[B]`` true numbers.
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      :class:`RegressionErrors`; :func:`difference` and :func:`ratio` take it whole.

    Raises:
      ValueError: for shapes that do not fit, and for groups that are no integers.

    Example:
      >>> y, group = jnp.array([0.0, 2.0, 4.0, 4.0]), jnp.array([0, 0, 1, 1])
      >>> found = regression_errors(jnp.array([0.5, 2.5, 3.0, 5.0]), y, group, 2)
      >>> print(found.mean_error, found.mean_absolute, found.r_squared)
      [0.5 0. ] [0.5 1. ] [0.75  nan]
    """
    fit(prediction=prediction, y=y, group=group, weight=weight)
    weight = None if weight is None else as_float(weight)
    return _whole(as_float(prediction), as_float(y), as_group(group, num_groups), weight, num_groups)


@functools.partial(jax.jit, static_argnames="num_groups")
def _whole(prediction, y, group, weight, num_groups: int) -> RegressionErrors:
    """The errors of people all at once."""
    return _errors(_of(prediction, y, group, num_groups, weight))


def _init(num_groups: int) -> _State:
    return _State(nothing(num_groups), nothing(num_groups), nothing(num_groups), no_spread(num_groups))


def stream_regression(num_groups: int) -> Stream:
    """:func:`regression_errors` batch by batch.

    Args:
      num_groups: G.

    Returns:
      :class:`Stream` with ``update(state, prediction, y, group, weight=None)``.

    Example:
      >>> stream = stream_regression(1)
      >>> state = stream.init()
      >>> for prediction, y in ((1.0, 0.0), (2.0, 2.0)):
      ...     state = stream.update(state, jnp.array([prediction]), jnp.array([y]), jnp.array([0]))
      >>> print(stream.compute(state).mean_squared, stream.compute(state).r_squared)
      [0.5] [0.5]
    """

    def ready(prediction, y, group, weight):
        fit(prediction=prediction, y=y, group=group, weight=weight)
        return as_float(prediction), as_float(y), as_group(group, num_groups)

    def of(prediction, y, group, weight):
        return _of(prediction, y, group, num_groups, weight)

    return streamed(functools.partial(_init, num_groups), ready, of, _merge, _errors)
