"""Sums, counts and means over groups, and the accuracy they are mostly taken of.

For examples ``i`` with value ``v_i``, weight ``w_i`` and group ``g_i``::

    sum_g   = sum_i w_i v_i [g_i = g]
    count_g = sum_i w_i     [g_i = g]
    mean_g  = sum_g / count_g            (nan for a group with no weight)

All functions jit, vmap and differentiate. Padding has weight 0 and may hold anything, nan included.
An example whose group lies outside ``[0, G)`` belongs to no group, so -1 stands for "unknown".
"""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Int, Integer, Shaped

from jaxfair.typing import Array


def as_float(x: ArrayLike) -> Array:
    """``x`` in a floating dtype of at least 32 bits: sums of bfloat16 or bool would lose count.

    Example:
      >>> as_float(jnp.array([True, False])).dtype
      dtype('float32')
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.result_type(float))
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def group_sums(
    values: Shaped[ArrayLike, "B"],
    group: Int[ArrayLike, "B"],
    num_groups: int,
    *,
    weight: Shaped[ArrayLike, "B"] | None = None,
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
    values, group = as_float(values), jnp.asarray(group)
    if weight is not None:
        weight = as_float(weight).astype(values.dtype)
        # 0 * nan is nan: what stands in the padding must not matter.
        values = jnp.where(weight != 0, values, 0) * weight
    # A negative index would count from the end; G is out of bounds, and is dropped.
    group = jnp.where(group < 0, num_groups, group)
    return jax.ops.segment_sum(values, group, num_segments=num_groups)


def group_counts(
    group: Int[ArrayLike, "B"],
    num_groups: int,
    *,
    weight: Shaped[ArrayLike, "B"] | None = None,
) -> Float[Array, "G"]:
    """How many examples (or how much weight) every group has.

    Args:
      group: ``[B]`` integers; those outside ``[0, num_groups)`` are left out.
      num_groups: G, static.
      weight: ``[B]``, 0 for padding; all ones by default.

    Returns:
      ``[G]`` floats, exact up to 2^24 examples of weight 1 in float32.

    Example:
      >>> group_counts(jnp.array([0, 0, 2]), 3, weight=jnp.array([1.0, 0.0, 1.0]))
      Array([1., 0., 1.], dtype=float32)
    """
    return group_sums(jnp.ones(jnp.shape(group)), group, num_groups, weight=weight)


def group_means(
    values: Shaped[ArrayLike, "B"],
    group: Int[ArrayLike, "B"],
    num_groups: int,
    *,
    weight: Shaped[ArrayLike, "B"] | None = None,
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


def overall_mean(values: Shaped[ArrayLike, "B"], *, weight: Shaped[ArrayLike, "B"] | None = None) -> Float[Array, ""]:
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
    values = as_float(values)
    if weight is None:
        return values.sum() / values.size if values.size else jnp.asarray(jnp.nan, values.dtype)
    weight = as_float(weight).astype(values.dtype)
    total = weight.sum()
    sums = (jnp.where(weight != 0, values, 0) * weight).sum()
    return jnp.where(total > 0, sums / jnp.where(total > 0, total, 1), jnp.nan)


def correct(
    prediction: Shaped[ArrayLike, "B"] | Float[ArrayLike, "B C"], y: Integer[ArrayLike, "B"]
) -> Bool[Array, "B"]:
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
    prediction, y = jnp.asarray(prediction), jnp.asarray(y)
    if y.ndim != 1 or prediction.ndim not in (1, 2) or prediction.shape[0] != y.shape[0]:
        raise ValueError(
            f"predictions of shape {prediction.shape} for classes of shape {y.shape}: "
            "give [B] classes or [B, C] logits, and [B] classes."
        )
    if prediction.ndim == 1:
        return _same(prediction, y)
    if prediction.shape[1] < 2:
        raise ValueError(
            f"logits of shape {prediction.shape} for classes of shape {y.shape}: "
            "give one logit per class, also with two classes."
        )
    finite = jnp.isfinite(jnp.max(prediction, axis=-1))
    return _same(jnp.argmax(prediction, axis=-1), y) & finite


def _same(a: Shaped[Array, "B"], b: Shaped[Array, "B"]) -> Bool[Array, "B"]:
    """Equality in a dtype that holds both sides: 300 is not 44, though it is in eight bits."""
    wide = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.int32)
    if jnp.issubdtype(wide, jnp.floating):
        wide = jnp.promote_types(wide, jnp.float32)  # bfloat16 would end at 256
    return a.astype(wide) == b.astype(wide)


def accuracy(
    prediction: Shaped[ArrayLike, "B"] | Float[ArrayLike, "B C"],
    y: Int[ArrayLike, "B"],
    *,
    weight: Shaped[ArrayLike, "B"] | None = None,
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
