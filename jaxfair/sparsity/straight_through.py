r"""Straight-through training: masked in the forward pass, dense in memory.

.. code-block:: text

    forward   loss(m * w)            with the masks of `get_masks`
    backward  g = d loss / d (m * w)    given to w as if the mask were not there
    update    w <- w + inner(g + lambda (1 - m) w);   m from score(w) at scheduled steps

All weights go on learning, the masked ones too, and any may come back: masks are not monotone. The straight-through
gradient is nothing but the gradient *at* the masked weights, so that no rule of differentiation is needed:

.. code-block:: python

    masked = sparsity.apply_masks(params, sparsity.get_masks(state))
    gradients = jax.grad(loss)(masked)
    updates, state = tx.update(gradients, state, params)      # params: the dense ones

With ``decay > 0`` it is SR-STE: masked weights are drawn to zero, which keeps masks from flickering.

How this differs from JaxPruner: there a pruner of this kind needs one call before the forward pass and none after it,
the others the reverse; here the only difference to `prune` is the line that masks.

References:
  Bengio, Léonard, Courville, *Estimating or propagating gradients through stochastic neurons*, 2013. Zhou et al.,
  *Learning N:M fine-grained structured sparse neural networks from scratch*, 2021 (SR-STE).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike

from jaxfair import tree
from jaxfair.sparsity import _numbers
from jaxfair.sparsity._distributions import Distribution, uniform
from jaxfair.sparsity._oracles import seen_within
from jaxfair.sparsity._prunable import same_shapes
from jaxfair.sparsity._schedules import Schedule
from jaxfair.sparsity._scores import Score, magnitude
from jaxfair.sparsity._selection import Selection, refuse_lookahead
from jaxfair.sparsity._structures import Structure, unstructured
from jaxfair.typing import Array


class StraightThroughState(NamedTuple):
    """The state of `straight_through`, arrays only.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      masks: the structure of the parameters; bool, True = used in the forward pass.
      inner: the state of the inner transformation.
      memory: what the score remembers of each prunable leaf.
      sparsity: ``[]`` float32, the sparsity of the schedule that the masks have.
    """

    count: Array
    masks: Any
    inner: Any
    memory: Any
    sparsity: Array | np.float32 = np.float32(0)


def straight_through(
    inner: optax.GradientTransformation,
    schedule: Schedule,
    *,
    prunable: Callable[[str], bool],
    decay: ArrayLike = 0.0,
    score: Score | Callable[[Array, Array | None], Array] = magnitude,
    distribution: Distribution = uniform,
    structure: Structure = unstructured,
    masks: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimizer that trains dense weights under masks that follow them.

    Args:
      inner: any transformation; it sees every gradient.
      schedule: the sparsity per step; masks are chosen anew at its steps only. `periodic` with ``every=1`` follows the
        weights at every step.
      prunable: which leaves, from a path such as ``"Conv_1/kernel"``.
      decay: :math:`\lambda` of SR-STE, 2e-4 in the paper; 0 is STE.
      score: as in `prune`; of dense weights.
      distribution: as in `prune`.
      structure: as in `prune`; `n_by_m` is what SR-STE is for.
      masks: what is masked at first, as of `prune`; it may come back.

    Returns:
      The transformation. Gradients are those at ``apply_masks(params, get_masks(state))``; at the end these are also
      the sparse network, and so is an average of iterates after `apply_masks`.

    Raises:
      ValueError: as `prune`.
      TypeError: as `prune`.

    Example:
      The pruned weight grows while it is out, and comes back:

      >>> from jaxfair import sparsity
      >>> tx = straight_through(
      ...     optax.sgd(1.0), sparsity.periodic(0.5, every=1, end=9), prunable=lambda path: True)
      >>> params = {"w": jnp.array([2.0, 1.0])}
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     print(sparsity.apply_masks(params, sparsity.get_masks(state))["w"])
      ...     updates, state = tx.update({"w": jnp.array([0.0, -1.5])}, state, params)
      ...     params = optax.apply_updates(params, updates)
      [2. 0.]
      [0.  2.5]
    """
    _numbers.within("decay", decay, 0)
    given = masks
    rule = Selection.of(schedule, prunable=prunable, score=score, distribution=distribution, structure=structure)
    schedule = rule.schedule
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        refuse_lookahead(params)
        count, memory = jnp.zeros((), jnp.int32), rule.memory(params)
        masks = rule.given(given, params)
        if rule.begins_sparse:
            masks = rule.anew(count, masks, params, None, memory)
        return StraightThroughState(count, masks, inner.init(params), memory, schedule(0))

    def update_fn(updates, state, params=None, *, score_grads=None, **extra_args):
        if params is None:
            raise ValueError("sparsity.straight_through needs the parameters; call update(grads, state, params)")
        refuse_lookahead(params)
        same_shapes("gradients", updates, params)
        gradients = updates
        count = jnp.asarray(optax.safe_increment(state.count))

        def drawn(mask, gradient, param):
            pull = jnp.asarray(decay, gradient.dtype) * param.astype(gradient.dtype)
            return gradient + jnp.where(mask, jnp.zeros_like(pull), pull)

        def train(masks):
            """One step of the inner optimizer, and what the score makes of it."""

            def pull(gradients, params):
                return jax.tree.map(drawn, masks, gradients, params)

            pulled = pull(gradients, params)
            extra = seen_within(extra_args, pull, gradients, pulled)
            stepped, inner_state = inner.update(pulled, state.inner, params, **extra)
            seen = rule.seen(gradients if score_grads is None else score_grads, inner_state)
            return stepped, inner_state, seen, rule.observe(state.memory, params, seen)

        def renew(masks):
            stepped, _, seen, memory = train(masks)
            new = optax.apply_updates(params, stepped)
            return rule.anew(count, rule.freed(masks, new), new, seen, memory), jnp.ones((), bool)

        # As in `prune`, updates do not pass through the conditional: they would be copied at every step.
        reached = schedule(count)
        due = schedule.is_update(count) | (reached != state.sparsity)
        masks, after = tree.cond_any(due, renew, lambda masks: (masks, count > 0), state.masks)
        # `after` is True always, but nobody tells the compiler. It keeps the inner step, which is taken under the old
        # masks, behind the conditional: before it, weights and moments could not be overwritten in place.
        stepped, inner_state, _, memory = train(jax.tree.map(lambda m: m & after, state.masks))
        return stepped, StraightThroughState(count, masks, inner_state, memory, reached)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
