r"""Gradual pruning as an optax transformation that wraps another.

Step :math:`t` (from 0), with the weights :math:`w`, their masks :math:`m` and the raw gradient
:math:`g`:

.. code-block:: text

    m'       = top-k of score(w + inner(m * g), g)   at scheduled steps t + 1 only, k from schedule(t + 1); else m
    u        = inner(m' * g)                         the inner optimizer never sees the gradient of a pruned weight
    emitted  = u where m', else -w                   so that w + emitted is exactly 0 where m' is False

- Masks are monotone: a pruned weight ranks below every other one, and zeros only become more.
- It wraps, because a score that needs the gradient needs the raw one: after Adam every update is
  plus or minus the learning rate, and saliency would rank noise.
- There is no second call to forget: plain `optax.apply_updates` gives exact zeros, under momentum,
  weight decay and whatever else the inner optimizer does.
- The moments of pruned weights are left to the inner optimizer. They only decay (their gradient is
  zero), and as no weight comes back nothing reads them. A method that regrows weights calls
  `reset_moments`.

How this differs from published code: one call instead of three (JaxPruner masks weights before the
forward pass and again after the update); counts are exact integers; the final sparsity is reached
also where the period does not divide; the check is a conditional under vmap, so that a hundred
seeds pay for new masks at scheduled steps only.

References:
  Zhu and Gupta, *To prune, or not to prune: exploring the efficacy of pruning for model
  compression*, 2017.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import tree
from jaxfair.sparsity._distributions import Distribution, uniform
from jaxfair.sparsity._masks import mask_iterates
from jaxfair.sparsity._oracles import masked_within
from jaxfair.sparsity._prunable import same_shapes
from jaxfair.sparsity._schedules import Schedule
from jaxfair.sparsity._scores import Score, magnitude
from jaxfair.sparsity._selection import Selection, emit, refuse_lookahead
from jaxfair.sparsity._structures import Structure, unstructured
from jaxfair.typing import Array


class PruneState(NamedTuple):
    """The state of `prune`, arrays only.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      masks: the structure of the parameters; bool, True = kept; a leaf's own shape, or ``[]``
        where it is never pruned.
      inner: the state of the inner transformation.
      memory: what the score remembers of each prunable leaf; nothing for most.
      sparsity: ``[]`` float32, the sparsity of the schedule that the masks have reached.
    """

    count: Array
    masks: Any
    inner: Any
    memory: Any = ()
    sparsity: Array | np.float32 = np.float32(0)


def prune(
    inner: optax.GradientTransformation,
    schedule: Schedule,
    *,
    prunable: Callable[[str], bool],
    score: Score | Callable[[Array, Array | None], Array] = magnitude,
    distribution: Distribution = uniform,
    structure: Structure = unstructured,
    masks: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that it prunes while it trains.

    It stands outermost; only `optax.MultiSteps`, `optax.apply_if_finite` and `jaxfair.optim.average_iterates` may be
    around it. Another average belongs inside (`optax.contrib.schedule_free`, whose ``schedule_free_eval_params(
    opt_state.inner, params)`` are then exactly as sparse), or goes through `apply_masks` before it is evaluated.

    A schedule that is above 0 at step 0 prunes in ``init``, which cannot change the weights: call
    ``apply_masks(params, get_masks(opt_state))`` once after it. Zeros of earlier pruning are weights like others, and
    train again, unless ``masks=`` says that they are pruned. A state that is behind the schedule (restored under a
    sparser one, say) catches up at its next update. A weight that is NaN stays NaN: a run that diverged is not made to
    look well.

    Args:
      inner: any transformation. Gradients reach it masked; extra arguments are passed on.
      schedule: the sparsity per step: `polynomial`, `constant`, `tabulated` or any `Schedule` that does not fall.
      prunable: which leaves may be pruned, from a path such as ``"Conv_1/kernel"``. A `Model` has
        it.
      score: ``score(weights, gradients)`` or a `Score`; the largest are kept. `magnitude`, `saliency`, ``random(key)``,
        ``movement()``, ``fisher()``, ``adam_fisher()``.
      distribution: `uniform` (every layer has the sparsity of the schedule), `global_`, `global_normalized`,
        ``erk()``, ``per_path(...)``.
      structure: what lives and dies together: `unstructured`, ``n_by_m(2, 4)``, ``block((4, 4))``, ``channel()``,
        ``balanced()``.
      masks: what is pruned already, and stays so: a tree as `get_masks`, `one_shot` and `load` give, or
        ``jax.tree.map(lambda w: w != 0, params)``. The schedule counts these zeros.

    Returns:
      The transformation. ``update`` needs ``params``, and takes ``score_grads=`` where the
      gradients to score with are not the ones to train with.

    Raises:
      ValueError: in ``init`` where no leaf is prunable (scalars never are), for masks of another network, or where the
        structure cannot be that sparse; in ``update`` without parameters, and for gradients or scores of another shape;
        for a schedule that falls.
      TypeError: for a schedule that is no `Schedule`, `optax.LookaheadParams`, and prunable leaves
        that are not floats; scores that are not floats.

    Warns:
      UserWarning: in ``init``, for layers of which the final sparsity would leave nothing; they keep one unit.

    Example:
      Eight weights, half of them pruned over two updates, the first after one step:

      >>> import jax, jax.numpy as jnp, optax
      >>> from jaxfair import sparsity
      >>> tx = sparsity.prune(
      ...     optax.sgd(0.1), sparsity.polynomial(0.5, begin=0, end=2, every=1, power=1),
      ...     prunable=lambda path: path == "kernel")
      >>> params = {"bias": jnp.zeros(2), "kernel": jnp.arange(1.0, 9.0)}
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(jnp.round(params["kernel"], 1))
      [0.  0.  2.9 3.9 4.9 5.9 6.9 7.9]
      [0.  0.  0.  0.  4.8 5.8 6.8 7.8]
      >>> sparsity.get_masks(state)["kernel"].tolist()
      [False, False, False, False, True, True, True, True]
    """
    start = masks
    selection = Selection.of(
        schedule,
        prunable=prunable,
        score=score,
        distribution=distribution,
        structure=structure,
    )
    schedule = selection.schedule
    if list(schedule.sparsities) != sorted(schedule.sparsities):
        raise ValueError(
            "the sparsity of this schedule falls, but sparsity.prune brings nothing back; use sparsity.regrow"
        )
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        refuse_lookahead(params)
        if emptied := selection.emptied(params):
            warnings.warn(
                f"a sparsity of {float(max(schedule.sparsities))} would leave nothing of {', '.join(emptied)}; "
                "one unit of each is kept",
                stacklevel=2,
            )
        count, masks = jnp.zeros((), jnp.int32), selection.given(start, params)
        memory = selection.memory(params)
        if selection.begins_sparse:
            masks = selection.masks(count, masks, params, None, memory)
        return PruneState(count, masks, mask_iterates(inner.init(params), masks), memory, schedule(0))

    def update_fn(updates, state, params=None, *, score_grads=None, **extra_args):
        if params is None:
            raise ValueError("sparsity.prune needs the parameters; call update(grads, state, params)")
        refuse_lookahead(params)
        same_shapes("gradients", updates, params)
        gradients = updates
        count = jnp.asarray(optax.safe_increment(state.count))

        def train(masks):
            """One step of the inner optimizer under these masks, and what the score makes of it."""
            masked, extra = masked_within(extra_args, gradients, masks)
            stepped, inner_state = inner.update(masked, state.inner, params, **extra)
            inner_state = mask_iterates(inner_state, masks)
            seen = selection.seen(gradients if score_grads is None else score_grads, inner_state)
            return stepped, inner_state, seen, selection.observe(state.memory, params, seen)

        # Only masks go through the conditional. Updates that did would be written out for it, and copied, at every
        # step (9 % of a step of ten million weights); so a step that changes masks takes the inner step twice. And
        # nothing reads the old masks after it: that would copy them at every step (4 %), as would an inner step
        # before it the moments, since neither could then be overwritten in place.
        def prune_now(masks):
            stepped, _, seen, memory = train(masks)
            new = optax.apply_updates(params, jax.tree.map(emit, masks, stepped, params))
            return selection.masks(count, masks, new, seen, memory)

        wanted = schedule(count)
        masks = tree.cond_any(wanted > state.sparsity, prune_now, lambda masks: masks, state.masks)
        stepped, inner_state, _, memory = train(masks)
        reached = jnp.maximum(wanted, state.sparsity)
        return jax.tree.map(emit, masks, stepped, params), PruneState(count, masks, inner_state, memory, reached)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
