"""Counts of people by group, class and prediction: all that a rate can say about a classifier."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Shaped

from jaxfair.constraints._people import as_float, finite, ids


def confusion(
    prediction: Shaped[ArrayLike, "..."],
    y: Shaped[ArrayLike, "..."],
    group: Shaped[ArrayLike, "..."],
    num_groups: int,
    num_classes: int,
    weight: Shaped[ArrayLike, "..."] | None = None,
) -> Float[Array, "G C C"]:
    """How many people of every group and class are predicted to be what.

    Args:
      prediction: ``[N]`` predicted classes. Here, in ``y`` and in ``group``, a number that is out of range is unknown,
        and the person is left out.
      y: ``[N]`` classes.
      group: ``[N]`` groups.
      num_groups: G.
      num_classes: C.
      weight: ``[N]``, 0 for padding; ones by default.

    Returns:
      ``[G, C, C]`` float32, by group, class and prediction; exact up to 2^24 people in a cell.

    Raises:
      ValueError: for shapes that do not fit, and for numbers that are no integers.

    Example:
      >>> confusion(jnp.array([1, 0, 1]), jnp.array([1, 1, 0]), jnp.zeros(3, int), 1, 2).tolist()
      [[[0.0, 1.0], [1.0, 1.0]]]
    """
    weight = jnp.ones(jnp.shape(y)) if weight is None else as_float(weight)
    cells = cell(prediction, y, group, num_groups, num_classes, weight.shape)
    _, weight = finite(weight, weight)
    return jnp.zeros((num_groups, num_classes, num_classes)).at[cells].add(weight, mode="drop")


def cell(
    prediction: Shaped[ArrayLike, "..."],
    y: Shaped[ArrayLike, "..."],
    group: Shaped[ArrayLike, "..."],
    num_groups: int,
    num_classes: int,
    shape: tuple[int, ...] | None = None,
) -> tuple[Int[Array, " N"], Int[Array, " N"], Int[Array, " N"]]:
    """Where people are counted; past the end, where they are dropped, for a number that is out of range."""
    shape = jnp.shape(y) if shape is None else shape
    return (
        ids("group", group, num_groups, shape),
        ids("y", y, num_classes, shape),
        ids("prediction", prediction, num_classes, shape),
    )
