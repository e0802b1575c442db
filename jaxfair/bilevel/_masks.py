"""The upper player: a score for each unit of a layer, and the masks that the network sees."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair import sparsity, tree
from jaxfair.bilevel.onto_budget import onto_budget
from jaxfair.typing import Array, Params


class Masks(NamedTuple):
    """From scores of units to masks of weights, under the budget of a step.

    Attributes:
      selection: which units may live, of `sparsity`; its score is what it is given.
      relaxed: whether the network sees the scores themselves, on the box and within the budget, or the best of them as
        zeros and ones.
      renew: every so many steps the best are taken anew.
    """

    selection: sparsity.Selection
    relaxed: bool
    renew: int = 1

    @classmethod
    def of(cls, schedule: Any, *, relaxed: bool, renew: int = 1, **axes: Any) -> "Masks":
        """Checks what was given for each axis."""
        return cls(sparsity.Selection.of(schedule, score=sparsity.Score(value=_given), **axes), relaxed, renew)

    def start(self, params: Params) -> list[Array]:
        """Scores to begin with: the magnitude of each unit, as a share of the largest."""
        leaves, found = jax.tree.leaves(params), []
        for i, layer in zip(self.selection.positions(params), self.selection.layers(params), strict=True):
            size = jnp.abs(leaves[i]).astype(jnp.float32)
            # What pools to as many units as there are weights does not pool: it ranks.
            units = size if layer.units == size.size else self.selection.structure.pool(size)
            found.append(units)
        largest = jnp.max(jnp.stack([jnp.max(units, initial=0) for units in found]))
        return [units / jnp.where(largest == 0, 1, largest) for units in found]

    def given(self, scores: Any, params: Params) -> list[Array]:
        """Scores to begin with that someone gives, or `start`.

        Raises:
          ValueError: for scores of other shapes than the units have.
        """
        own = self.start(params)
        if scores is None:
            return own
        given = [jnp.asarray(units, jnp.float32) for units in scores]
        if (have := [g.shape for g in given]) != (need := [units.shape for units in own]):
            raise ValueError(f"scores have {len(have)} arrays of shapes {have}: give {len(need)} of shapes {need}.")
        return given

    def spread(self, scores: list[Array], params: Params) -> Params:
        """The score of its unit for every weight, in the scores' dtype; 1 for a leaf that is not prunable, ``[]``."""
        leaves, treedef = jax.tree.flatten(params)
        found: list[Any] = [jnp.ones((), jnp.float32) for _ in leaves]
        for i, units in zip(self.selection.positions(params), scores, strict=True):
            found[i] = self.selection.structure.expand(units, leaves[i].shape)
        return jax.tree.unflatten(treedef, found)

    def gather(self, values: Params, scores: list[Array], params: Params) -> list[Array]:
        """The sum over the weights of each unit: the transpose of `spread`."""
        chosen, given, leaves = self.selection.positions(params), jax.tree.leaves(values), jax.tree.leaves(params)
        found = []
        for i, units in zip(chosen, scores, strict=True):
            shape = leaves[i].shape
            if units.shape == shape:
                found.append(given[i].astype(units.dtype))
                continue
            _, pull_back = jax.vjp(lambda u, shape=shape: self.selection.structure.expand(u, shape), units)
            found.append(pull_back(given[i].astype(units.dtype))[0])
        return found

    def project(self, scores: list[Array], params: Params, step: Any) -> list[Array]:
        """Onto the box and the budget of a step, where the network sees the scores.

        Where it sees the best of them, their order is all that counts: on the box those that reach 1 would be equal,
        and which of them lives a matter of their place in the array.
        """
        if not self.relaxed:
            return scores
        keep, pools = self.budgets(params, step), self.selection.distribution.pools(len(scores))
        found: list[Any] = list(scores)
        for pool, budget in zip(pools, keep, strict=True):
            for i, units in zip(pool, onto_budget([scores[i] for i in pool], budget), strict=True):
                found[i] = units
        return found

    def budgets(self, params: Params, step: Any) -> list[Array]:
        """How many units each pool may keep at a step."""
        return list(jnp.asarray(self.selection.keep(params))[self.selection.schedule.index(step)])

    def hard(self, scores: list[Array], params: Params, step: Any) -> Params:
        """Masks of the best scores: bool, True = kept, ``[]`` where a leaf is not prunable."""
        given, all_kept = self.spread(scores, params), self.selection.all_kept(params)
        return self.selection.anew(step, all_kept, params, given, self.selection.memory(params))

    def seen(self, scores: list[Array], params: Params, step: Any) -> Params:
        """What the network's weights are multiplied by."""
        return self.spread(scores, params) if self.relaxed else self.hard(scores, params, step)

    def next(self, scores: list[Array], old: Params, params: Params, step: Any) -> Params:
        """What they are multiplied by from a step on: new masks where they are due, else the old."""
        if self.relaxed or self.renew == 1:
            return self.seen(scores, params, step)
        due = (step % self.renew == 0) | self.selection.schedule.is_update(step)
        # Nothing but the masks goes through the conditional: what else did would be copied at every step.
        return tree.cond_any(due, lambda old: self.hard(scores, params, step), lambda old: old, old)


def masked(masks: Params, params: Params) -> Params:
    """The weights as the network sees them: exactly 0 under a mask of 0, whatever they are.

    Example:
      >>> from jaxfair.bilevel import masked
      >>> masked({"w": jnp.array([True, False])}, {"w": jnp.array([2.0, jnp.inf])})["w"].tolist()
      [2.0, 0.0]
    """

    def leaf(mask: Any, weights: Any) -> Any:
        if mask.dtype == jnp.bool_:
            return jnp.where(mask, weights, jnp.zeros_like(weights))
        return mask.astype(weights.dtype) * weights

    return jax.tree.map(leaf, masks, params)


def _given(weights: Array, given: Array | None, memory: Any) -> Array:
    del weights, memory
    assert given is not None
    return given


#: ``prunable(path) -> bool``.
Prunable = Callable[[str], bool]
