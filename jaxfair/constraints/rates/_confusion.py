"""Counts of people by group, class and prediction: all that a rate can say about a classifier."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Shaped


def confusion(
    prediction: Int[ArrayLike, " N"],
    y: Int[ArrayLike, " N"],
    group: Int[ArrayLike, " N"],
    num_groups: int,
    num_classes: int,
    weight: Shaped[ArrayLike, " N"] | None = None,
) -> Float[Array, "G C C"]:
    """How many people of every group and class are predicted to be what.

    Args:
      prediction: ``[N]`` predicted classes. Here, in ``y`` and in ``group``, a negative number is unknown and left out.
      y: ``[N]`` classes.
      group: ``[N]`` groups.
      num_groups: G.
      num_classes: C.
      weight: ``[N]``, 0 for padding; ones by default.

    Returns:
      ``[G, C, C]`` float32, by group, class and prediction; exact up to 2^24 people in a cell.

    Example:
      >>> confusion(jnp.array([1, 0, 1]), jnp.array([1, 1, 0]), jnp.zeros(3, int), 1, 2).tolist()
      [[[0.0, 1.0], [1.0, 1.0]]]
    """
    counted = jnp.ones(jnp.shape(y)) if weight is None else jnp.asarray(weight, jnp.float32)
    cells = cell(prediction, y, group, num_groups, num_classes)
    return jnp.zeros((num_groups, num_classes, num_classes)).at[cells].add(counted, mode="drop")


def cell(
    prediction: Int[ArrayLike, " N"],
    y: Int[ArrayLike, " N"],
    group: Int[ArrayLike, " N"],
    num_groups: int,
    num_classes: int,
) -> tuple[Int[Array, " N"], Int[Array, " N"], Int[Array, " N"]]:
    """Where people are counted. A negative index would count from the end: it goes past the end, and is dropped."""
    sizes = (group, num_groups), (y, num_classes), (prediction, num_classes)
    g, label, predicted = (jnp.where(jnp.asarray(index) < 0, size, jnp.asarray(index)) for index, size in sizes)
    return g, label, predicted
