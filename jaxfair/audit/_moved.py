"""Whose predictions changed, and whom that made wrong, seed by seed: of everybody, and of the group that has most."""

from typing import Any

import jax
import numpy as np

from jaxfair import metrics


def moved(
    before: np.ndarray, after: np.ndarray, y: np.ndarray, group: np.ndarray, num_groups: int
) -> metrics.PredictionChanges:
    """:func:`jaxfair.metrics.prediction_changes` of every seed.

    Args:
      before: ``[S, N]`` predicted classes.
      after: ``[S, N]``, of the same seeds.
      y: ``[N]`` true classes.
      group: ``[N]``.
      num_groups: G.

    Returns:
      With ``[S, G]`` and ``[S]`` arrays of NumPy.
    """

    def of_one(before: Any, after: Any) -> metrics.PredictionChanges:
        return metrics.prediction_changes(before, after, y, group, num_groups)

    return jax.tree.map(np.asarray, jax.vmap(of_one)(np.asarray(before, np.int32), np.asarray(after, np.int32)))


def shares(of: metrics.PredictionChanges, constrained: np.ndarray) -> dict[str, np.ndarray]:
    """What a table shows of them: ``[S]`` by the name of the column.

    Args:
      of: from :func:`moved`.
      constrained: ``[G]``, the groups of which the worst is looked for.

    Example:
      >>> labels = np.array([[0, 0, 0, 1]]), np.array([[0, 0, 1, 0]])
      >>> of = moved(*labels, np.array([0, 0, 0, 0]), np.array([0, 0, 1, 1]), 2)
      >>> for name, value in shares(of, np.ones(2, bool)).items():
      ...     print(name, value.tolist())
      changed [0.5]
      changed, worst group [1.0]
      newly wrong [0.25]
      newly wrong, worst group [0.5]
    """
    return {
        "changed": np.asarray(of.overall_changed),
        "changed, worst group": most(np.asarray(of.changed), constrained),
        "newly wrong": np.asarray(of.overall_newly_wrong),
        "newly wrong, worst group": most(np.asarray(of.newly_wrong), constrained),
    }


def most(values: np.ndarray, constrained: np.ndarray) -> np.ndarray:
    """``[S]`` the largest of ``[S, G]`` over the groups that have a bound; nan where none of them has people.

    Example:
      >>> most(np.array([[0.1, np.nan, 0.3]]), np.array([True, True, False]))
      array([0.1])
    """
    largest = np.max(np.where(np.isnan(values), -np.inf, values), axis=1, initial=-np.inf, where=constrained)
    return np.where(np.isneginf(largest), np.nan, largest)
