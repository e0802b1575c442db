r"""Gradual pruning as an optax transformation that wraps another.

Step :math:`t` (from 0), with the weights :math:`w`, their masks :math:`m` and the raw gradient
:math:`g`:

.. code-block:: text

    u        = inner(m * g)                      the inner optimizer never sees the gradient of a pruned weight
    m'       = top-k of score(w + u, g)          at scheduled steps t + 1 only; k from schedule(t + 1)
    emitted  = u where m', else -w               so that w + emitted is exactly 0 where m' is False

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

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import tree
from jaxfair.sparsity.distributions import Distribution, uniform
from jaxfair.sparsity.masks import apply_masks
from jaxfair.sparsity.schedules import Schedule
from jaxfair.sparsity.scores import magnitude
from jaxfair.sparsity.structures import Structure, unstructured
from jaxfair.sparsity.top_k import top_k_of_groups
from jaxfair.typing import Array


class PruneState(NamedTuple):
    """The state of `prune`, arrays only.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      masks: the structure of the parameters; bool, True = kept; a leaf's own shape, or ``[]``
        where it is never pruned.
      inner: the state of the inner transformation.
    """

    count: Array
    masks: Any
    inner: Any


def prune(
    inner: optax.GradientTransformation,
    schedule: Schedule,
    *,
    prunable: Callable[[str], bool],
    score: Callable[[Array, Array | None], Array] = magnitude,
    distribution: Distribution = uniform,
    structure: Structure = unstructured,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that it prunes while it trains.

    It stands outermost; only `optax.MultiSteps` and `optax.apply_if_finite` may be around it. A
    schedule that is above 0 at step 0 prunes in ``init``, which cannot change the weights: call
    ``apply_masks(params, get_masks(opt_state))`` once after it. A weight that is NaN stays NaN: a
    run that diverged is not made to look well.

    Args:
      inner: any transformation. Gradients reach it masked; extra arguments are passed on.
      schedule: the sparsity per step: `polynomial`, `constant` or any `Schedule`.
      prunable: which leaves may be pruned, from a path such as ``"Conv_1/kernel"``. A `Model` has
        it.
      score: ``score(weights, gradients)``; per leaf, the largest are kept. `magnitude` or
        `saliency`.
      distribution: `uniform` (every layer has the sparsity of the schedule) or `global_`.
      structure: what lives and dies together; `unstructured`.

    Returns:
      The transformation. ``update`` needs ``params``, and takes ``score_grads=`` where the
      gradients to score with are not the ones to train with.

    Raises:
      ValueError: in ``init`` where no leaf is prunable, in ``update`` without parameters.
      TypeError: for a schedule that is no `Schedule`, `optax.LookaheadParams`, and prunable leaves
        that are not floats.

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
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"schedule must be a Schedule, but it is a {type(schedule).__name__}; "
            "use sparsity.polynomial(0.9, begin=0, end=1000, every=100) or sparsity.constant(0.9)"
        )
    inner = optax.with_extra_args_support(inner)

    def new_masks(step, masks, weights, gradients):
        """The masks of `schedule(step)`; `weights` and `gradients` are trees, the latter maybe None."""
        leaves, treedef = jax.tree.flatten(weights)
        old = jax.tree.leaves(masks)
        grads = [None] * len(leaves) if gradients is None else jax.tree.leaves(gradients)
        chosen = _prunable(weights, prunable)
        scores = []
        for i in chosen:
            s = score(leaves[i], grads[i])
            scores.append(structure.pool(jnp.where(old[i], s, jnp.full_like(s, -jnp.inf))))

        # Row j of the table: what each pool keeps once j of the scheduled steps have been reached.
        shapes = [s.shape for s in scores]
        pools = distribution.pools(len(scores))
        sizes = [sum(scores[i].size for i in pool) for pool in pools]
        table = np.array(
            [
                sizes,
                *(np.subtract(sizes, distribution.zeros(s, shapes)) for s in schedule.sparsities),
            ],
            np.int32,
        )
        keep = jnp.asarray(table)[schedule.index(step)]
        kept = top_k_of_groups([[scores[i] for i in pool] for pool in pools], list(keep))
        for pool, of_pool in zip(pools, kept, strict=True):
            for i, mask in zip(pool, of_pool, strict=True):
                old[chosen[i]] = structure.expand(mask, leaves[chosen[i]].shape)
        return jax.tree.unflatten(treedef, old)

    def init_fn(params):
        _refuse_lookahead(params)
        chosen = set(_prunable(params, prunable))
        leaves, treedef = jax.tree.flatten(params)
        masks = jax.tree.unflatten(
            treedef,
            [jnp.ones(jnp.shape(p) if i in chosen else (), bool) for i, p in enumerate(leaves)],
        )
        count = jnp.zeros((), jnp.int32)
        if 0 in schedule.steps:
            masks = new_masks(count, masks, params, None)
        return PruneState(count=count, masks=masks, inner=inner.init(params))

    def update_fn(updates, state, params=None, *, score_grads=None, **extra_args):
        if params is None:
            raise ValueError(
                "sparsity.prune needs the parameters; call update(grads, state, params)"
            )
        _refuse_lookahead(params)
        gradients = updates if score_grads is None else score_grads
        updates, inner_state = inner.update(
            apply_masks(updates, state.masks), state.inner, params, **extra_args
        )
        updates = jax.tree.map(_emit, state.masks, updates, params)
        count = jnp.asarray(optax.safe_increment(state.count))

        def prune_now(masks, updates, params, gradients):
            masks = new_masks(count, masks, optax.apply_updates(params, updates), gradients)
            return masks, jax.tree.map(_emit, masks, updates, params)

        # The updates go through the conditional too: used on both sides of it, XLA computes them twice.
        masks, updates = tree.cond_any(
            schedule.is_update(count),
            prune_now,
            lambda masks, updates, params, gradients: (masks, updates),
            state.masks, updates, params, gradients,
        )  # fmt: skip
        return updates, PruneState(count, masks, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _emit(mask, update, param):
    if mask.ndim == 0:  # never pruned
        return update
    # In a dtype that holds both: -p rounded to a narrower one would not cancel p.
    dtype = jnp.promote_types(update.dtype, param.dtype)
    return jnp.where(mask, update.astype(dtype), -param.astype(dtype))


def _prunable(params: Any, prunable: Callable[[str], bool]) -> list[int]:
    """The positions of the prunable leaves."""
    paths, leaves = tree.paths(params), jax.tree.leaves(params)
    chosen = [i for i, path in enumerate(paths) if prunable(path)]
    if not chosen:
        raise ValueError(f"no leaf is prunable; prunable(path) was False for each of {paths}")
    for i in chosen:
        if not jnp.issubdtype(leaves[i].dtype, jnp.floating):
            raise TypeError(
                f"a prunable leaf must be a float array, but {paths[i]} has the dtype {leaves[i].dtype}"
            )
    return chosen


def _refuse_lookahead(params: Any) -> None:
    def is_lookahead(x):
        return isinstance(x, optax.LookaheadParams)

    if any(map(is_lookahead, jax.tree.leaves(params, is_leaf=is_lookahead))):
        raise TypeError(
            "sparsity.prune cannot mask LookaheadParams: their update is not a sum; prune the fast weights"
        )
