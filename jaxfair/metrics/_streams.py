r"""Numbers by group of data that do not fit into memory: batch by batch, in any order, on any number of devices.

A stream is four functions and no object that changes::

    state = stream.init()
    for batch in batches:
        state = stream.update(state, ...)         the arrays of the function for whole arrays, and its weight
    answer = stream.compute(state)                what the function for whole arrays gives of all batches together

``update`` and ``compute`` are pure and compiled once for each shape of batch; they may be scanned and vmapped. Pad the
last batch with weight 0. Each device may have a state of its own: ``merge`` joins two.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.metrics._rows import Rows, as_float, as_group, fit
from jaxfair.metrics._totals import Spread, add, deviations, join, no_spread, nothing, read, spread, total
from jaxfair.metrics.confusion import confusion, label_rows, multilabel_confusion
from jaxfair.typing import Array


class Stream(NamedTuple):
    """Four pure functions.

    Attributes:
      init: ``init() -> state``, of nobody.
      update: ``update(state, *arrays, weight=None) -> state``, compiled once for each shape.
      merge: ``merge(state, state) -> state``, of the people of both, jitted. Commutative and associative up to
        rounding.
      compute: ``compute(state) -> answer``, jitted.
    """

    init: Callable[[], Any]
    update: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    compute: Callable[[Any], Any]


class GroupMoments(NamedTuple):
    """What there is of a number in each group.

    Attributes:
      size: ``[G]`` people, or their weight.
      mean: ``[G]``, nan of nobody.
      variance: ``[G]``, mean of the squared distances to the mean; nan of nobody.
    """

    size: Array
    mean: Array
    variance: Array


def streamed(
    init: Callable[[], Any], ready: Callable[..., tuple], of: Callable[..., Any], merge: Callable, compute: Callable
) -> Stream:
    """A stream from the state of nobody, arrays made ready, their state, and the join of two.

    What people pass in (lists, ids of 64 bits) is made ready outside of what is compiled, which takes 32 bits.
    """
    joined = jax.jit(lambda state, *arrays: merge(state, of(*arrays)))

    def update(state: Any, *arrays: Any, weight: Rows | None = None) -> Any:
        return joined(state, *ready(*arrays, weight), None if weight is None else as_float(weight))

    return Stream(init, update, jax.jit(merge), jax.jit(compute))


def _moments(state: Spread) -> GroupMoments:
    size = read(state.size)
    known = size > 0
    variance = deviations(state) / jnp.where(known, size, 1)
    return GroupMoments(size, *(jnp.where(known, x, jnp.nan) for x in (read(state.mean), variance)))


def group_moments(values: Rows, group: Rows, num_groups: int, *, weight: Rows | None = None) -> GroupMoments:
    """The size of every group, and the mean and variance of a number in it.

    Args:
      values: ``[B]`` numbers or booleans.
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      :class:`GroupMoments`. The squares are taken about the mean: a million plus or minus one has variance 1.

    Raises:
      ValueError: for shapes that do not fit, and for groups that are no integers.

    Example:
      >>> found = group_moments(jnp.array([1.0, 3.0, 5.0]), jnp.array([0, 0, 1]), 3)
      >>> found.mean.tolist(), found.variance.tolist()
      ([2.0, 5.0, nan], [1.0, 0.0, nan])
    """
    fit(values=values, group=group, weight=weight)
    weight = None if weight is None else as_float(weight)
    return _whole(as_float(values), as_group(group, num_groups), weight, num_groups)


@functools.partial(jax.jit, static_argnames="num_groups")
def _whole(values, group, weight, num_groups: int) -> GroupMoments:
    """The moments of people all at once."""
    return _moments(spread(values, group, num_groups, weight))


def stream_moments(num_groups: int) -> Stream:
    """:func:`group_moments`, and with it counts and :func:`group_means`, batch by batch.

    Args:
      num_groups: G.

    Returns:
      :class:`Stream` with ``update(state, values, group, weight=None)``.

    Example:
      >>> stream = stream_moments(2)
      >>> state = stream.init()
      >>> for values in ([0.0, 1.0], [2.0, 5.0]):
      ...     state = stream.update(state, jnp.array(values), jnp.array([0, 1]))
      >>> stream.compute(state).mean.tolist(), stream.compute(state).size.tolist()
      ([1.0, 3.0], [2.0, 2.0])
    """

    def ready(values, group, weight):
        fit(values=values, group=group, weight=weight)
        return as_float(values), as_group(group, num_groups)

    def of(values, group, weight):
        return spread(values, group, num_groups, weight)

    return streamed(functools.partial(no_spread, num_groups), ready, of, join, _moments)


def stream_confusion(num_groups: int, num_classes: int = 2) -> Stream:
    """:func:`confusion` batch by batch, from which come all rates; counts stay exact beyond 2^24.

    Args:
      num_groups: G.
      num_classes: C.

    Returns:
      :class:`Stream` with ``update(state, prediction, y, group, weight=None)``.

    Example:
      >>> from jaxfair.metrics import confusion_rates
      >>> stream = stream_confusion(1)
      >>> state = stream.init()
      >>> for prediction in ([1, 0], [1, 1]):
      ...     state = stream.update(state, jnp.array(prediction), jnp.array([1, 0]), jnp.array([0, 0]))
      >>> confusion_rates(stream.compute(state)).false_positive.tolist()
      [0.5]
    """

    def ready(prediction, y, group, weight):
        fit(prediction=prediction, y=y, group=group, weight=weight)
        classes = (as_group(x, num_classes, name=name) for name, x in (("prediction", prediction), ("y", y)))
        return *classes, as_group(group, num_groups)

    def of(prediction, y, group, weight):
        return total(confusion(prediction, y, group, num_groups, num_classes=num_classes, weight=weight))

    return streamed(functools.partial(nothing, num_groups, num_classes, num_classes), ready, of, add, read)


def stream_multilabel_confusion(num_groups: int, num_labels: int) -> Stream:
    """:func:`multilabel_confusion` batch by batch.

    Args:
      num_groups: G.
      num_labels: L.

    Returns:
      :class:`Stream` with ``update(state, prediction, y, group, weight=None)``.

    Example:
      >>> stream = stream_multilabel_confusion(1, 2)
      >>> state = stream.update(stream.init(), jnp.array([[1, 0]]), jnp.array([[1, 1]]), jnp.array([0]))
      >>> stream.compute(state)[0, 1].tolist()                     # the second label was missed
      [[0.0, 0.0], [1.0, 0.0]]
    """

    def ready(prediction, y, group, weight):
        return *label_rows(prediction, y, group, weight), as_group(group, num_groups)

    def of(prediction, y, group, weight):
        return total(multilabel_confusion(prediction, y, group, num_groups, weight=weight))

    return streamed(functools.partial(nothing, num_groups, num_labels, 2, 2), ready, of, add, read)
