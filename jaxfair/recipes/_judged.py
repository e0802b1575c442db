"""Whether a network meets its bound on the training split: one rule, for what is delivered, told and explained."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import metrics
from jaxfair.data import Dataset
from jaxfair.recipes._bounds import Bound, Facts
from jaxfair.recipes._gaps import per_group
from jaxfair.typing import Batch


class Judged(NamedTuple):
    """How a network stands to its bound on the training split.

    Attributes:
      over: by how much the bound is exceeded; at most 0 is met. None where nothing was asked for; nan where nobody has
        a bound.
      beyond: ``[G]`` by how much each group exceeds it: its gap less the tolerance, or less one person of the group
        where that is more. nan for a group without people or bound, and for a bound on something else than gaps.
      gap: ``[G]`` the gap that the bound is on, likewise.
      accuracy: of everybody.
    """

    over: float | None
    beyond: np.ndarray
    gap: np.ndarray
    accuracy: float


def judge(dataset: Dataset, before: np.ndarray, after: np.ndarray, bound: Bound, tolerance: Any) -> Judged:
    """Judges a network by the number that says which iterate its bound delivers.

    Args:
      dataset: of whose training split the two are predictions.
      before: ``[N]`` classes, of the dense network.
      after: ``[N]``, of the network that is judged.
      bound: whose gap, or whose own number, it is.
      tolerance: on the gap, one for all groups or ``[G]``; None where nothing is asked for.

    Example:
      One of two people of group b is lost, and of ten one. A tolerance below one person asks for one person:

      >>> from jaxfair import data, recipes
      >>> group, split = [*"aaaaaaaabb", "a", "b"], ["train"] * 10 + ["validation"] * 2
      >>> mine = data.dataset(np.ones((12, 1)), [0, 1] * 6, group, split=split)
      >>> after = np.where(np.arange(10) < 9, mine.train.y, 1 - mine.train.y)
      >>> judge(mine, mine.train.y, after, recipes.ceag(), 0.01).beyond.round(2)
      array([-0.23, -0.1 ], dtype=float32)
    """
    split, num_groups = dataset.train, dataset.num_groups
    y, group, weight = np.asarray(split.y), np.asarray(split.group), unequal(split)
    right = [np.asarray(metrics.correct(label, y)) for label in (before, after)]
    accuracy, nothing = float(np.average(right[1], weights=weight)), np.full(num_groups, np.nan, np.float32)
    if bound.violation is not None:
        facts = Facts(
            apply=lambda *of, **options: None, group=group, constrained=dataset.constrained, num_groups=num_groups,
            num_classes=dataset.num_classes, batch_size=1, steps=1, pruned=0, shared={},
            dense=jnp.asarray(before),
        )  # fmt: skip
        over = bound.violation(jnp.asarray(after), split._replace(x=np.zeros(0, np.float32)), facts)
        return Judged(float(over), nothing, nothing, accuracy)
    if tolerance is None:
        return Judged(None, nothing, nothing, accuracy)
    limit = per_group(tolerance, num_groups).astype(np.float32)
    over, beyond, gap = _exceeded(right, group, weight, dataset.constrained, limit, num_groups, bound.on)
    return Judged(float(over), np.asarray(beyond), np.asarray(gap), accuracy)


@functools.partial(jax.jit, static_argnames=("num_groups", "on"))  # so that all of it is one program
def _exceeded(right: Any, group: Any, weight: Any, constrained: Any, limit: Any, num_groups: int, on: str) -> Any:
    gaps = metrics.accuracy_gaps(right[0], right[1], group, num_groups, weight=weight)
    gap = jnp.where(jnp.asarray(constrained), getattr(gaps, on), jnp.nan)
    sizes = metrics.effective_counts(group, num_groups, weight=weight)
    # Of each group by itself, so that whoever asks which one it was need not know the rule.
    beyond = jax.vmap(metrics.violation)(*(of[:, None] for of in (gap, limit, sizes)))
    return metrics.violation(gap, limit, sizes), beyond, gap


def unequal(split: Batch) -> np.ndarray | None:
    """The weights of a split's people; None where all count the same, so that shares are shares of whole numbers."""
    weight = np.asarray(split.weight)
    return None if (weight == 1).all() else weight
