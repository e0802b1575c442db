"""The number that a bound on gaps is judged by, of a network on a split."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxfair import metrics
from jaxfair.typing import Batch


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
    return metrics.violation(bounded, tolerance, metrics.group_counts(split.group, num_groups, weight=split.weight))
