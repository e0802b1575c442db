"""Sums, counts and means over groups, and the accuracy they are mostly taken of.

For examples ``i`` with value ``v_i``, weight ``w_i`` and group ``g_i``::

    sum_g   = sum_i w_i v_i [g_i = g]
    count_g = sum_i w_i     [g_i = g]
    mean_g  = sum_g / count_g            (nan for a group with no weight)

All functions jit, vmap and differentiate. Padding has weight 0 and may hold anything, nan included.
An example whose group lies outside ``[0, G)`` belongs to no group, so -1 stands for "unknown".
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int32

from jaxfair.metrics._rows import Rows, as_float, as_group, fit, same
from jaxfair.typing import Array

#: Up to so many people are summed one after the other; more in blocks, and then once more.
_BLOCK = 1024


def group_sums(
    values: Rows,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
) -> Float[Array, "G"]:
    """The weighted sum of ``values`` in every group.

    Args:
      values: ``[B]`` numbers or booleans.
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      ``[G]``, 0 for an empty group.

    Example:
      >>> group = jnp.array([0, 0, 2, -1])
      >>> group_sums(jnp.array([1.0, 2.0, 4.0, 8.0]), group, 3)
      Array([3., 0., 4.], dtype=float32)
    """
    fit(values=values, group=group, weight=weight)
    group = as_group(group, num_groups)
    if weight is None and jnp.asarray(values).dtype == bool:
        return _counts(group, num_groups, jnp.asarray(values))
    values = as_float(values)
    if weight is not None:
        weight = as_float(weight).astype(values.dtype)
        # 0 * nan is nan: what stands in the padding must not matter.
        values = jnp.where(weight != 0, values, 0) * weight
    return _sums(values, group, num_groups)


# Compiled, and not a dozen primitives one by one: an audit on arrays asks for hundreds of them. Inline, so that in a
# larger program nothing is left of it.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def _counts(group: Int32[Array, "N"], num_groups: int, of: Bool[Array, "N"]) -> Float[Array, "G"]:
    """How many are true, in integers: float32 cannot count beyond 2^24."""
    counts = jax.ops.segment_sum(of.astype(jnp.int32), group, num_segments=num_groups)
    return counts.astype(jnp.result_type(float))


@functools.partial(jax.jit, static_argnums=2, inline=True)
def _sums(values: Float[Array, "N"], group: Int32[Array, "N"], num_groups: int) -> Float[Array, "G"]:
    """Sums to the precision of their dtype, however many there are; a group outside is ``num_groups``.

    One after the other, a million times 0.1 in float32 is 100,958. So blocks are summed first; and what is left of the
    values when their group's mean by that sum is taken off is summed again, and added.
    """
    if values.size <= _BLOCK:
        return jax.ops.segment_sum(values, group, num_segments=num_groups)
    size = _counts(group, num_groups, jnp.ones(group.shape, bool)).astype(values.dtype)
    mean = lax.stop_gradient(_in_blocks(values, group, num_groups)) / jnp.maximum(size, 1)
    mean = jnp.where(jnp.isfinite(mean), mean, 0)
    left = _in_blocks(values - mean.at[group].get(mode="fill", fill_value=0), group, num_groups)
    return size * mean + left


def _in_blocks(values: Float[Array, "N"], group: Int32[Array, "N"], num_groups: int) -> Float[Array, "G"]:
    """Sums of sums of about a thousand; of more, where blocks times groups were more than four times the values."""
    blocks = max(1, min(values.size // _BLOCK, 4 * values.size // max(num_groups, 1)))
    block = jnp.arange(values.size, dtype=jnp.int32) // -(-values.size // blocks)
    spot = jnp.where(group < num_groups, block * num_groups + group, blocks * num_groups)
    sums = jax.ops.segment_sum(values, spot, num_segments=blocks * num_groups)
    return sums.reshape(blocks, num_groups).sum(0)


def group_counts(
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
) -> Float[Array, "G"]:
    """How many examples (or how much weight) every group has.

    Args:
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      ``[G]`` floats: the nearest to the number of examples, or to the sum of their weights.

    Example:
      >>> group_counts(jnp.array([0, 0, 2]), 3, weight=jnp.array([1.0, 0.0, 1.0]))
      Array([1., 0., 1.], dtype=float32)
    """
    fit(group=group, weight=weight)
    return group_sums(jnp.ones(np.shape(group), bool), group, num_groups, weight=weight)


def effective_counts(
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
) -> Float[Array, "G"]:
    """How many people of equal weight would say as much about every group: ``(sum w)^2 / sum w^2``.

    The number of people where all weigh the same, whatever that is: weights that sum to 1 make no less of them. What
    one person is of a weighted group is one over it; see :func:`jaxfair.metrics.violation`.

    Args:
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      weight: ``[B]``, at least 0, and 0 for padding; all ones by default.

    Returns:
      ``[G]`` floats, 0 for an empty group.

    Example:
      >>> group, weight = jnp.array([0, 0, 1, 1, 1]), jnp.array([0.125, 0.125, 0.5, 0.125, 0.125])
      >>> effective_counts(group, 2, weight=weight).tolist()
      [2.0, 2.0]

    References:
      Kish, *Survey Sampling*, 1965.
    """
    if weight is None:
        return group_counts(group, num_groups)
    fit(group=group, weight=weight)
    weight = as_float(weight)
    # Of the largest, so that no square is lost.
    weight = weight / jnp.maximum(jnp.max(weight, initial=0), jnp.finfo(weight.dtype).tiny)
    sums, squares = (group_sums(w, group, num_groups) for w in (weight, weight * weight))
    # Not the square of the sum: of ones it is more than float32 can count.
    return jnp.where(sums > 0, sums / jnp.where(sums > 0, squares / jnp.where(sums > 0, sums, 1), 1), 0.0)


def group_means(
    values: Rows,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
) -> Float[Array, "G"]:
    """The weighted mean of ``values`` in every group.

    Args:
      values: ``[B]`` numbers or booleans.
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      ``[G]``. A group with no weight is nan, never 0: nothing is known about it. Its gradient is 0.

    Example:
      >>> correct = jnp.array([True, False, True])
      >>> group_means(correct, jnp.array([0, 0, 2]), 3)
      Array([0.5, nan, 1. ], dtype=float32)
    """
    sums = group_sums(values, group, num_groups, weight=weight)
    counts = group_counts(group, num_groups, weight=weight).astype(sums.dtype)
    # The inner where keeps 0/0 out of the gradient.
    return jnp.where(counts > 0, sums / jnp.where(counts > 0, counts, 1), jnp.nan)


def overall_mean(values: Rows, *, weight: Rows | None = None) -> Float[Array, ""]:
    """The weighted mean of all ``values``; nan without weight. A group of everyone, without the scatter.

    Args:
      values: ``[B]`` numbers or booleans.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      A scalar.

    Example:
      >>> overall_mean(jnp.array([1.0, 3.0, jnp.nan]), weight=jnp.array([1.0, 1.0, 0.0]))
      Array(2., dtype=float32)
    """
    fit(values=values, weight=weight)
    if weight is None and jnp.asarray(values).dtype == bool:
        total = jnp.sum(jnp.asarray(values), dtype=jnp.int32).astype(jnp.result_type(float))
        return total / np.size(values) if np.size(values) else jnp.full_like(total, jnp.nan)
    values = as_float(values)
    if weight is None:
        return _total(values) / values.size if values.size else jnp.full((), jnp.nan, values.dtype)
    weight = as_float(weight).astype(values.dtype)
    total = _total(weight)
    sums = _total(jnp.where(weight != 0, values, 0) * weight)
    return jnp.where(total > 0, sums / jnp.where(total > 0, total, 1), jnp.nan)


def _total(values: Float[Array, "N"]) -> Float[Array, ""]:
    """The sum of all values, as precise as that of a group: what their mean leaves is summed again."""
    if values.size <= _BLOCK:
        return values.sum()
    mean = lax.stop_gradient(values.sum()) / values.size
    mean = jnp.where(jnp.isfinite(mean), mean, 0)
    return values.size * mean + (values - mean).sum()


def correct(prediction: Rows, y: Rows) -> Bool[Array, "N"]:
    """Whether each prediction is right: the one answer to this question in the library.

    Args:
      prediction: ``[B]`` predicted classes, or ``[B, C]`` logits, of which the largest counts (the
        first of equals). A row whose largest logit is not finite is wrong: a network that has
        diverged is right about nobody. (``-inf`` rules out a class.)
      y: ``[B]`` classes.

    Returns:
      ``[B]`` booleans.

    Raises:
      ValueError: for shapes that do not fit, and for a single logit.

    Example:
      >>> correct(jnp.array([[0.1, 2.0], [jnp.nan, 0.0]]), jnp.array([1, 0]))
      Array([ True, False], dtype=bool)
    """
    shape, of = np.shape(prediction), np.shape(y)
    if len(of) != 1 or len(shape) not in (1, 2) or shape[0] != of[0]:
        raise ValueError(
            f"predictions of shape {shape} for classes of shape {of}: "
            "give [B] classes or [B, C] logits, and [B] classes."
        )
    if len(shape) == 1:
        return same(prediction, y)
    if shape[1] < 2:
        raise ValueError(
            f"logits of shape {shape} for classes of shape {of}: give one logit per class, also with two classes."
        )
    prediction = jnp.asarray(prediction)
    finite = jnp.isfinite(jnp.max(prediction, axis=-1))
    return same(jnp.argmax(prediction, axis=-1), y) & finite


def accuracy(
    prediction: Rows,
    y: Rows,
    *,
    weight: Rows | None = None,
) -> Float[Array, ""]:
    """The weighted share of right predictions, in ``[0, 1]``; nan if there is no weight at all.

    Args:
      prediction: ``[B]`` classes or ``[B, C]`` logits, as in :func:`correct`.
      y: ``[B]`` classes.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      A scalar.

    Example:
      >>> accuracy(jnp.array([0, 1, 1]), jnp.array([0, 1, 0]), weight=jnp.array([1.0, 1.0, 0.0]))
      Array(1., dtype=float32)
    """
    return overall_mean(correct(prediction, y), weight=weight)
