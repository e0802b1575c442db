"""The number that a bound on gaps is judged by, of a network on a split."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import metrics
from jaxfair.typing import Batch


def per_group(tolerance: Any, num_groups: int) -> np.ndarray:
    """``[G]`` tolerances, of one for all groups or one for each.

    Raises:
      ValueError: for what is no share of 1, or another number of them.

    Example:
      >>> per_group(0.01, 2).tolist(), per_group([0.01, 0.02], 2).tolist()
      ([0.01, 0.01], [0.01, 0.02])
    """
    given = np.asarray(tolerance, float)
    if not np.all((given >= 0) & (given <= 1)):
        raise ValueError(f"tolerance={tolerance}: give a share of 1, at least 0 and at most 1; 0.01 is one point.")
    if given.shape not in ((), (num_groups,)):
        raise ValueError(f"tolerance={tolerance}: give one share for all groups, or one for each of the {num_groups}.")
    return np.broadcast_to(given, num_groups)


def largest_gap(
    correct: jax.Array, reference: jax.Array, split: Batch, constrained: jax.Array, on: str = "excess"
) -> jax.Array:
    r"""``max_g psi_g``, or ``max_g Delta_g`` of ``on="gap"``, over the groups that have a bound."""
    gaps = metrics.accuracy_gaps(reference, correct, split.group, constrained.shape[0], weight=split.weight)
    return metrics.max_excess_accuracy_gap(jnp.where(constrained, getattr(gaps, on), jnp.nan))


def excess_of(
    correct: jax.Array, reference: jax.Array, split: Batch, constrained: jax.Array, tolerance: Any, on: str = "excess"
) -> jax.Array:
    """By how much a bound on a gap is exceeded: of the tolerance, or of one person of the group where that is more."""
    num_groups = constrained.shape[0]
    gaps = metrics.accuracy_gaps(reference, correct, split.group, num_groups, weight=split.weight)
    bounded = jnp.where(constrained, getattr(gaps, on), jnp.nan)
    return metrics.violation(bounded, tolerance, metrics.effective_counts(split.group, num_groups, weight=split.weight))
