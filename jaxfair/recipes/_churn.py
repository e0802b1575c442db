"""A bound on how many predictions change, in place of one on accuracy: by group, against the dense network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import constraints, metrics
from jaxfair.recipes._bounds import Bound, Bounded, Facts, gap_bound
from jaxfair.typing import Batch


def churn(limit: Any = 0.05, *, rate: Any = None, batches: str = "auto") -> Bound:
    """No group has more than a share of its people whose predicted class differs from the dense network's.

    The delivered network is the most accurate that kept this on train, else the one that exceeds it least.

    What it is: an objective for the group whose predictions change most. It moves weights to where changes are many, so
    that fewer people of that group become newly wrong, which may cost accuracy. It needs no labels: it can be kept on
    people whose true class nobody knows yet, where a gap cannot be measured (:func:`jaxfair.constraints.churn`). No
    group loses more accuracy than its share of changed predictions.

    What it is not: a better guarantee than one on the gap. The share that changes says little of the harm, for it does
    not tell who became wrong from who became right; whatever one does, some percent of the predictions change, as they
    do when a dense network is trained again. And a network that was wrong stays wrong.

    Args:
      limit: a share of 1; 0.05 is one person in twenty.
      rate: as of :func:`ceag`.
      batches: as of :func:`ceag`.

    Example:
      Two of the four people in a group are predicted otherwise than before, whoever is right:

      >>> bound = churn(limit=0.25)
      >>> facts = Facts(apply=lambda *a, **k: None, group=np.zeros(4, int), constrained=np.array([True]), num_groups=1,
      ...               num_classes=2, batch_size=4, steps=1, pruned=0, shared={}, dense=jnp.array([0, 0, 1, 1]))
      >>> people = Batch(None, jnp.array([0, 1, 1, 0]), jnp.zeros(4, int), jnp.arange(4), jnp.ones(4))
      >>> round(float(bound.violation(jnp.array([1, 1, 1, 1]), people, facts)), 3)
      0.25

    References:
      Milani Fard et al., `Launch and Iterate: Reducing Prediction Churn
      <https://papers.nips.cc/paper/2016/hash/dc4c44f624d600aa568390f1f1104aa0-Abstract.html>`_, 2016;
      :func:`jaxfair.constraints.churn` has the constraint.
    """

    def problem(apply: Any, *, tolerance: Any, **options: Any) -> constraints.Problem:
        return constraints.churn(apply, limit=tolerance, **options)

    def outcome(label: jax.Array, split: Batch, carry: Any) -> jax.Array:
        del split
        return label == carry.reference.label

    # Multipliers, batches and memory are those of a gap.
    moves = gap_bound("churn", problem, limit, rate, batches, outcome=outcome)

    def make(facts: Facts) -> Bounded:
        if not np.all((np.asarray(limit) >= 0) & (np.asarray(limit) <= 1)):
            raise ValueError(f"limit={limit}: give a share of 1, at least 0 and at most 1; 0.05 is five percent.")
        bounded = moves.make(facts)

        def begin(model_state: Any, outcomes: Any, split: Batch, label: jax.Array) -> Any:
            init: Any = bounded.problem.init  # of churn: it takes predictions
            return init(model_state, outcomes, split, prediction=label)

        return bounded._replace(begin=begin)

    def violation(label: jax.Array, split: Batch, facts: Facts) -> jax.Array:
        found = metrics.prediction_changes(
            facts.dense, label, split.y, split.group, facts.num_groups, weight=split.weight
        )  # fmt: skip
        sizes = metrics.effective_counts(split.group, facts.num_groups, weight=split.weight)
        return metrics.violation(jnp.where(facts.constrained, found.changed, jnp.nan), limit, sizes)

    settings = {"limit": limit, "rate": rate, "batches": batches}
    return Bound("churn", None, make, violation, settings)
