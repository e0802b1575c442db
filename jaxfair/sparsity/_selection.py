"""What every pruner shares: from scores to masks with the right counts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import tree
from jaxfair.sparsity import _axes
from jaxfair.sparsity._distributions import Distribution, Layer, uniform
from jaxfair.sparsity._masks import own_masks
from jaxfair.sparsity._prunable import positions, same_shapes
from jaxfair.sparsity._schedules import Schedule, checked
from jaxfair.sparsity._scores import Score, as_score, magnitude
from jaxfair.sparsity._structures import Structure, unstructured
from jaxfair.sparsity.top_k import top_k_of_groups
from jaxfair.typing import Array, Params


class Selection(NamedTuple):
    """Score x distribution x schedule x structure: which units live, as functions of trees.

    Attributes:
      schedule: the sparsity per step.
      score: as a `Score`.
      distribution: who competes with whom.
      structure: what lives and dies together.
      prunable: which leaves.

    Example:
      >>> from jaxfair.sparsity import constant
      >>> selection = Selection.of(constant(0.5), prunable=lambda path: path == "w")
      >>> params = {"b": jnp.ones(2), "w": jnp.array([3.0, -1.0])}
      >>> masks = selection.all_kept(params)
      >>> selection.masks(jnp.array(0), masks, params, None, selection.memory(params))["w"].tolist()
      [True, False]
    """

    schedule: Schedule
    score: Score
    distribution: Distribution
    structure: Structure
    prunable: Callable[[str], bool]

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        *,
        prunable: Callable[[str], bool],
        score: Score | Callable[..., Any] = magnitude,
        distribution: Distribution = uniform,
        structure: Structure = unstructured,
    ) -> "Selection":
        """Checks what was given for each axis, and takes a plain function for a score."""
        return cls(
            checked(_axes.member("schedule", schedule, Schedule)),
            as_score(score),
            _axes.member("distribution", distribution, Distribution),
            _axes.member("structure", structure, Structure),
            prunable,
        )

    def positions(self, params: Params) -> list[int]:
        """The positions of the prunable leaves among all."""
        return positions(params, self.prunable)

    @property
    def begins_sparse(self) -> bool:
        """Whether the masks of step 0 prune anything."""
        return self.schedule.steps[0] == 0 and self.schedule.sparsities[0] > 0

    def layers(self, params: Params) -> list[Layer]:
        """The prunable leaves as a distribution sees them."""
        paths, leaves = tree.paths(params), jax.tree.leaves(params)
        found = []
        for i in self.positions(params):
            units = jax.eval_shape(self.structure.pool, jax.ShapeDtypeStruct(leaves[i].shape, jnp.float32))
            found.append(Layer(paths[i], leaves[i].shape, units.size))
        return found

    def keep(self, params: Params) -> np.ndarray:
        """``[U + 1, P]`` int32: what each pool keeps once j of the scheduled steps have been reached."""
        layers, final = self.layers(params), max(self.schedule.sparsities)
        sizes = [sum(layers[i].units for i in p) for p in self.distribution.pools(len(layers))]
        pruned = [self.distribution.zeros(s, final, layers) for s in self.schedule.sparsities]
        if self.structure.most is not None:
            most = [self.structure.most(layer.shape) for layer in layers]
            limits = [sum(most[i] for i in p) for p in self.distribution.pools(len(layers))]
            if np.any(np.max(pruned, axis=0) > limits):
                raise ValueError(
                    f"a sparsity of {float(final)} is above what this structure allows: it would prune "
                    f"{np.max(pruned, axis=0).tolist()} units, and at most {limits} may go"
                )
        return np.array([sizes, *np.subtract(sizes, pruned)], np.int32)

    def emptied(self, params: Params) -> list[str]:
        """The layers that the final sparsity would empty, but for the one unit that is always left."""
        if self.distribution.emptied is None:
            return []
        return self.distribution.emptied(max(self.schedule.sparsities), self.layers(params))

    def all_kept(self, params: Params) -> Any:
        """Masks of True, of the leaf's shape where it may be pruned and ``[]`` elsewhere."""
        return own_masks(jax.tree.map(lambda p: True, params), params, self.positions(params))

    def given(self, masks: Any, params: Params) -> Any:
        """Given masks as the pruner's own; None gives `all_kept`."""
        return self.all_kept(params) if masks is None else own_masks(masks, params, self.positions(params))

    def memory(self, params: Params) -> tuple[Any, ...]:
        """What the score remembers at first, of each prunable leaf."""
        leaves = jax.tree.leaves(params)
        # A score may remember the very weights, which the state must not share with them.
        return tuple(tree.copied(self.score.init(leaves[i], number)) for number, i in enumerate(self.positions(params)))

    def observe(self, memory: Any, params: Params, gradients: Params) -> tuple[Any, ...]:
        """What it remembers after one more step."""
        if self.score.observe is None:
            return memory
        weights, grads = jax.tree.leaves(params), same_shapes("gradients", gradients, params, self.positions(params))
        return tuple(
            self.score.observe(m, weights[i], grads[i]) for m, i in zip(memory, self.positions(params), strict=True)
        )

    def seen(self, gradients: Any, inner_state: Any) -> Any:
        """What the score looks at in place of gradients."""
        return gradients if self.score.signal is None else self.score.signal(gradients, inner_state)

    def scores(self, params: Params, gradients: Any, memory: Any) -> list[Array]:
        """The scores of each prunable leaf, as the score gives them.

        Raises:
          ValueError: for scores of another shape than the weights, and without gradients for a score that needs them.
          TypeError: for scores that are no floats: integers are none, for their ties would be decided by position.
        """
        chosen, weights, paths = self.positions(params), jax.tree.leaves(params), tree.paths(params)
        grads = [None] * len(weights)
        if gradients is not None:
            grads = same_shapes("gradients", gradients, params, chosen)
        found = []
        for number, i in enumerate(chosen):
            gradient = None if grads[i] is None else jnp.asarray(grads[i])
            try:
                s = jnp.asarray(self.score.value(jnp.asarray(weights[i]), gradient, memory[number]))
            except (TypeError, AttributeError) as error:
                if gradient is not None:
                    raise
                raise ValueError(
                    f"the score needs gradients and there are none ({error}): in init there are none yet, so begin the "
                    "schedule at step 1 or later; one_shot takes gradients="
                ) from error
            if s.shape != weights[i].shape:
                raise ValueError(
                    f"scores of {paths[i]} have the shape {s.shape}, but its weights have {weights[i].shape}: "
                    "a score is a number for each weight"
                )
            if not jnp.issubdtype(s.dtype, jnp.floating):
                raise TypeError(f"scores of {paths[i]} must be floats, but they are {s.dtype}; cast them to float32")
            found.append(s)
        return found

    def pooled(self, masks: Any, params: Params, gradients: Any, memory: Any) -> list[Array]:
        """The scores of the units of each prunable leaf; -inf for those that are pruned, and for no others."""
        old, pooled = jax.tree.leaves(masks), []
        for i, s in zip(self.positions(params), self.scores(params, gradients, memory), strict=True):
            if self.distribution.scale is not None:
                s = self.distribution.scale(s, old[i])
            # A nan ranks first, in whatever unit it is; and a living weight is worth more than one that is pruned.
            s = jnp.where(jnp.isnan(s), jnp.full_like(s, jnp.inf), jnp.maximum(s, jnp.finfo(s.dtype).min))
            pooled.append(self.structure.pool(jnp.where(old[i], s, jnp.full_like(s, -jnp.inf))))
        return pooled

    def best(self, scores: Sequence[Array], keep: Sequence[Any]) -> list[Array]:
        """Masks of the units: of each pool the `keep` largest scores."""
        pools = self.distribution.pools(len(scores))
        kept = top_k_of_groups([[scores[i] for i in pool] for pool in pools], list(keep))
        units: list[Any] = [None] * len(scores)
        for pool, of_pool in zip(pools, kept, strict=True):
            for i, mask in zip(pool, of_pool, strict=True):
                units[i] = mask
        return units

    def expand(self, units: Sequence[Array], masks: Any, params: Params) -> Any:
        """Masks of the units as a tree of masks of the weights."""
        leaves, treedef = jax.tree.flatten(masks)
        shapes = [jnp.shape(p) for p in jax.tree.leaves(params)]
        for mask, i in zip(units, self.positions(params), strict=True):
            leaves[i] = self.structure.expand(mask, shapes[i])
        return jax.tree.unflatten(treedef, leaves)

    def masks(self, step: Any, masks: Any, params: Params, gradients: Any, memory: Any) -> Any:
        """The masks of ``schedule(step)`` under which what is pruned stays pruned, also where less lives than may."""
        return self._among(monotone(self.keep(params)), step, masks, params, gradients, memory)

    def freed(self, masks: Any, params: Params) -> Any:
        """Masks under which every prunable weight lives again; other leaves keep theirs."""
        leaves, treedef = jax.tree.flatten(masks)
        for i in self.positions(params):
            leaves[i] = jnp.ones_like(leaves[i])
        return jax.tree.unflatten(treedef, leaves)

    def anew(self, step: Any, masks: Any, params: Params, gradients: Any, memory: Any) -> Any:
        """The masks of ``schedule(step)`` under which whatever lives under `masks` may live."""
        return self._among(self.keep(params), step, masks, params, gradients, memory)

    def _among(self, table: np.ndarray, step: Any, masks: Any, params: Params, gradients: Any, memory: Any) -> Any:
        keep = list(jnp.asarray(table)[self.schedule.index(step)])
        best = self.expand(self.best(self.pooled(masks, params, gradients, memory), keep), masks, params)
        return jax.tree.map(jnp.logical_and, masks, best)


def monotone(keep: np.ndarray) -> np.ndarray:
    """Counts that never rise, and end where they ended: rounding may give a layer one back for a while.

    Example:
      >>> monotone(np.array([[9], [5], [6], [4]], np.int32)).ravel().tolist()
      [9, 5, 5, 4]
    """
    return np.maximum(np.minimum.accumulate(keep, axis=0), keep[-1:])


def emit(mask: Any, update: Any, param: Any) -> Array:
    """An update after which a pruned weight is exactly zero.

    Example:
      >>> emit(jnp.array([True, False]), jnp.array([0.5, 0.5]), jnp.array([2.0, 3.0])).tolist()
      [0.5, -3.0]
    """
    if jnp.ndim(mask) == 0 and jnp.ndim(param):  # never pruned
        return update
    # In a dtype that holds both: -p rounded to a narrower one would not cancel p.
    update, param = jnp.asarray(update), jnp.asarray(param)
    dtype = jnp.promote_types(update.dtype, param.dtype)
    return jnp.where(mask, update.astype(dtype), -param.astype(dtype))


def refuse_lookahead(params: Any) -> None:
    """Raises TypeError for `optax.LookaheadParams`, whose update is not a sum.

    Example:
      >>> refuse_lookahead({"w": jnp.ones(2)})
    """

    def is_lookahead(x):
        return isinstance(x, optax.LookaheadParams)

    if any(map(is_lookahead, jax.tree.leaves(params, is_leaf=is_lookahead))):
        raise TypeError("a pruner cannot mask LookaheadParams: their update is not a sum; prune the fast weights")
