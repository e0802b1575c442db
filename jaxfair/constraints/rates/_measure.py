"""Expressions of rates on any split, with their standard errors."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Shaped

from jaxfair.constraints._people import as_float, check_classes
from jaxfair.constraints.rates._confusion import confusion
from jaxfair.constraints.rates._expressions import Constraint, Expression
from jaxfair.constraints.rates._tables import strict_values, tables


class Measured(NamedTuple):
    """Expressions on a split.

    Attributes:
      value: ``[K]``: the left sides of constraints, with the right sides taken off; nan where a rate has nobody in its
        condition.
      standard_error: ``[K]``, nan there too.
    """

    value: jax.Array
    standard_error: jax.Array


def measure(
    constraints: Sequence[Constraint | Expression],
    prediction: Shaped[ArrayLike, "..."],
    y: Shaped[ArrayLike, "..."],
    group: Shaped[ArrayLike, "..."],
    *,
    num_groups: int,
    num_classes: int,
    weight: Shaped[ArrayLike, "..."] | None = None,
) -> Measured:
    """Expressions and constraints on any split, such as the test set.

    Args:
      constraints: K of them.
      prediction: ``[N]`` predicted classes.
      y: ``[N]`` classes.
      group: ``[N]`` groups. Here and in the classes a number that is out of range is unknown: such a person counts
        nowhere.
      num_groups: G.
      num_classes: C.
      weight: ``[N]``, how much a person counts, 0 for padding; ones by default. A common factor changes nothing.

    Returns:
      Values and standard errors. A constraint holds where its value is at most 0, an equality where it is 0.

    Raises:
      TypeError, ValueError: as :func:`problem`; also for shapes that do not fit, and two classes called -1 and 1.

    Example:
      >>> import numpy as np
      >>> from jaxfair.constraints import rates
      >>> prediction, y, group = np.array([[1, 0, 1, 1], [1, 1, 0, 1], [0, 0, 1, 1]])
      >>> measured = measure([rates.positive(group=0), rates.error() <= 0.25], prediction, y, group,
      ...                    num_groups=2, num_classes=2)
      >>> measured.value.tolist(), measured.standard_error.round(3).tolist()
      ([0.5, 0.25], [0.354..., 0.25])
    """
    check_classes(y, num_classes)
    check_classes(prediction, num_classes)
    t = tables(constraints, num_groups, num_classes)
    counts = squares = confusion(prediction, y, group, num_groups, num_classes, weight)
    if weight is not None:
        squares = confusion(prediction, y, group, num_groups, num_classes, as_float(weight) ** 2)
    value, error, observed = strict_values(t, counts, squares)
    return Measured(jnp.where(observed, value, jnp.nan), jnp.where(observed, error, jnp.nan))
