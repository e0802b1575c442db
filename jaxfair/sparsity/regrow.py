r"""Dynamic sparse training: weights are exchanged while the sparsity stays.

At a scheduled step, with k weights to keep and the drop fraction f:

.. code-block:: text

    survivors = the k - round(f k) best of the living, by score                       drop
    m'        = survivors and the best of all others, by the growth's score, k in all    grow
    emitted   = u where m', else -w

- The inner step u is taken under the new masks m', as in `prune`; RigL takes none at such a step.
- A weight that was dropped may grow back at once, and keeps its value then. A newcomer starts from 0, if `apply_masks`
  was called once after ``init`` as for `prune`; its moments in the inner optimizer start afresh (`reset_moments`).
- The gradient that reaches this transformation is dense: the forward pass saw zeros, and autodiff gives the derivative
  by every weight. Nothing has to be asked for.
- The schedule may rise (sparser while it exchanges) or fall (`alternating`, AC/DC).

===========  ==================================  ===========================================================
method       growth                              here
===========  ==================================  ===========================================================
SET          random                              `set_`
RigL         largest dense gradient              `rigl`; f falls as a cosine; exchange steps do not train
AC/DC        everything                          ``regrow(inner, alternating(...), grow=by_gradient)``, f = 0
static       none                                `prune` with ``constant`` and ``score=random(key)``
===========  ==================================  ===========================================================

References:
  Mocanu et al., *Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network
  science*, 2018 (SET). Evci et al., *Rigging the lottery: making all tickets winners*, 2020 (RigL). Peste et al.,
  *AC/DC*, 2021.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import tree
from jaxfair.sparsity import _axes, _numbers
from jaxfair.sparsity._distributions import Distribution, uniform
from jaxfair.sparsity._growth import at_random, by_gradient, cosine_drop
from jaxfair.sparsity._masks import apply_masks, mask_iterates
from jaxfair.sparsity._moments import reset_moments
from jaxfair.sparsity._oracles import masked_within
from jaxfair.sparsity._prunable import same_shapes
from jaxfair.sparsity._schedules import Schedule, checked
from jaxfair.sparsity._scores import Score, as_score, magnitude, random
from jaxfair.sparsity._selection import Selection, emit, refuse_lookahead
from jaxfair.sparsity._structures import Structure, unstructured
from jaxfair.typing import Array, Key, ScalarOrSchedule


class RegrowState(NamedTuple):
    """The state of `regrow`, arrays only.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      masks: the structure of the parameters; bool, True = kept.
      inner: the state of the inner transformation.
      memory: what the score remembers of each prunable leaf.
      key: ``[]`` the key of random growth and of the first masks.
      sparsity: ``[]`` float32, the sparsity of the schedule that the masks have.
    """

    count: Array
    masks: Any
    inner: Any
    memory: Any
    key: Key
    sparsity: Array | np.float32 = np.float32(0)


def regrow(
    inner: optax.GradientTransformation,
    schedule: Schedule,
    *,
    key: Key,
    prunable: Callable[[str], bool],
    grow: Callable[[Array, Array | None, Key], Array],
    drop: ScalarOrSchedule = 0.0,
    train_on_exchange: bool = True,
    score: Score | Callable[[Array, Array | None], Array] = magnitude,
    first: Score | Callable[[Array, Array | None], Array] | None = None,
    distribution: Distribution = uniform,
    structure: Structure = unstructured,
    masks: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that it exchanges weights while it trains: `set_` and `rigl` with all their parts free.

    Args:
      inner: any transformation; gradients reach it masked.
      schedule: when weights are exchanged, and the sparsity after it: `periodic`, or any `Schedule`.
      key: of ``jax.random.key``; it lives in the state.
      prunable: which leaves, from a path such as ``"Conv_1/kernel"``.
      grow: ``grow(weights, gradients, key)``, the largest come to life: `by_gradient`, `at_random`.
      drop: the share of the living that is exchanged, a number or a schedule of the step.
      train_on_exchange: False leaves out the inner step where weights are exchanged, as RigL does, at the price of a
        copy of the inner state at every step.
      score: of what is dropped; the smallest go.
      first: the score of the masks at step 0; random by default.
      distribution: who competes with whom; ``erk()`` is usual.
      structure: what lives and dies together. `n_by_m` is refused: what grows would break it.
      masks: what is pruned at first, as of `prune`; only what lives there is among the first masks.

    Returns:
      The transformation. ``update`` needs ``params``, and takes ``score_grads=`` where the dense gradients are not the
      ones to train with.

    Raises:
      ValueError: without parameters, without prunable leaves, for `n_by_m`, a share to drop outside of [0, 1], or as
        `prune`. TypeError: as `prune`.

    Example:
      A quarter of the four living weights is one; it is exchanged for the one with the largest gradient:

      >>> from jaxfair import sparsity
      >>> tx = regrow(
      ...     optax.sgd(0.1), sparsity.periodic(0.5, every=1, end=9), key=jax.random.key(0), grow=by_gradient,
      ...     drop=0.25, prunable=lambda path: True, first=sparsity.magnitude, train_on_exchange=False)
      >>> params = {"w": jnp.array([1.0, 9.0, 8.0, 7.0, 0.0, 0.0, 0.0, 0.0])}
      >>> gradients = {"w": jnp.array([0.0, 0.0, 0.0, 0.0, 0.0, -5.0, 0.0, 1.0])}
      >>> updates, state = tx.update(gradients, tx.init(params), params)
      >>> sparsity.get_masks(state)["w"].astype(int).tolist()
      [0, 1, 1, 1, 0, 1, 0, 0]
    """
    given = masks
    rule = Selection.of(schedule, prunable=prunable, score=score, distribution=distribution, structure=structure)
    if structure.most is not None:
        raise ValueError(
            "regrow cannot keep n of every m, since what grows is chosen by another score; use "
            "sparsity.straight_through with n_by_m, where any weight may come back"
        )
    _axes.plain("grow", grow)
    if drop is cosine_drop:
        raise TypeError(
            "drop must be a share, but it is a function that makes one; did you mean sparsity.cosine_drop(first, end)?"
        )
    if not callable(drop):
        _numbers.within("drop", drop, 0, 1, hint="0.3 exchanges 30 % of the living")
    schedule = rule.schedule
    start = rule._replace(score=as_score(first or random(key)))
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        refuse_lookahead(params)
        count, masks = jnp.zeros((), jnp.int32), rule.given(given, params)
        if rule.begins_sparse:
            masks = start.anew(count, masks, params, None, start.memory(params))
        inner_state = mask_iterates(inner.init(params), masks)
        # A copy of the key: who donates the state keeps the key.
        return RegrowState(count, masks, inner_state, rule.memory(params), jnp.copy(key), schedule(0))

    def update_fn(updates, state, params=None, *, score_grads=None, **extra_args):
        if params is None:
            raise ValueError("sparsity.regrow needs the parameters; call update(grads, state, params)")
        refuse_lookahead(params)
        same_shapes("gradients", updates, params)
        gradients, dense = updates, updates if score_grads is None else score_grads
        count = jnp.asarray(optax.safe_increment(state.count))
        reached = schedule(count)
        due = schedule.is_update(count) | (reached != state.sparsity)

        def train(masks, past):
            """One step of the inner optimizer under these masks, and what the score makes of it."""
            masked, extra = masked_within(extra_args, gradients, masks)
            stepped, inner_state = inner.update(masked, past, params, **extra)
            inner_state = mask_iterates(inner_state, masks)
            seen = rule.seen(dense, inner_state)
            return stepped, inner_state, seen, rule.observe(state.memory, params, seen)

        def exchange(masks, past):
            stepped, _, seen, memory = train(masks, past)
            if not train_on_exchange:
                stepped = optax.tree.zeros_like(stepped)
            new = optax.apply_updates(params, jax.tree.map(emit, masks, stepped, params))
            step_key = jax.random.fold_in(state.key, count)
            share = jnp.asarray(drop(count) if callable(drop) else drop, jnp.float32)
            leaves, flat = jax.tree.leaves(new), same_shapes("gradients", dense, new, rule.positions(new))
            wanted = [
                structure.pool(grow(leaves[i], flat[i], jax.random.fold_in(step_key, number)))
                for number, i in enumerate(rule.positions(new))
            ]
            keep = list(jnp.asarray(rule.keep(new))[schedule.index(count)])
            after = _exchanged(rule, rule.pooled(masks, new, seen, memory), wanted, keep, share)
            after = rule.expand(after, masks, new)
            newcomers = jax.tree.map(lambda now, then: now & ~then, after, masks)
            past = reset_moments(inner, past, apply_masks(params, masks), newcomers)
            return after, mask_iterates(past, after)

        # As in `prune`, updates do not pass through the conditional, and nothing reads the old masks and moments
        # behind it: either would be copied at every step.
        masks, past = tree.cond_any(due, exchange, lambda *old: old, state.masks, state.inner)
        stepped, inner_state, _, memory = train(masks, past)
        if not train_on_exchange:
            untrained = (optax.tree.zeros_like(stepped), past)
            stepped, inner_state = jax.tree.map(partial(jnp.where, due), untrained, (stepped, inner_state))
        updates = jax.tree.map(emit, masks, stepped, params)
        return updates, RegrowState(count, masks, inner_state, memory, state.key, reached)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _exchanged(
    rule: Selection, living: list[Array], wanted: list[Array], keep: list[Array], share: Array
) -> list[Array]:
    """The units that live: the worst of the living are dropped, then the best of the others grow.

    Args:
      rule: who competes with whom.
      living: per prunable leaf the scores of its units, -inf where dead.
      wanted: per prunable leaf what the growth gives its units.
      keep: per pool how many units live then.
      share: ``[]`` of the living that is exchanged.
    """
    survive = []
    for k, pool in zip(keep, rule.distribution.pools(len(living)), strict=True):
        alive = sum((jnp.sum(living[i] > -jnp.inf, dtype=jnp.int32) for i in pool), jnp.int32(0))
        dropped = jnp.round(share * k.astype(jnp.float32)).astype(jnp.int32)
        survive.append(jnp.minimum(k - dropped, alive))
    survivors = rule.best(living, survive)
    grown = [jnp.where(s, jnp.full_like(g, jnp.inf), g) for s, g in zip(survivors, wanted, strict=True)]
    return rule.best(grown, keep)


def set_(
    inner: optax.GradientTransformation,
    schedule: Schedule,
    *,
    key: Key,
    prunable: Callable[[str], bool],
    drop: ScalarOrSchedule = 0.3,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Sparse evolutionary training: the smallest weights are exchanged for random ones.

    Args:
      inner: any transformation.
      schedule: `periodic`.
      key: of ``jax.random.key``.
      prunable: which leaves.
      drop: the share that is exchanged.
      **options: of `regrow`.

    Returns:
      The transformation.

    Example:
      >>> from jaxfair import sparsity
      >>> tx = set_(optax.adam(1e-3), sparsity.periodic(0.9, every=100, end=1000), key=jax.random.key(0),
      ...           prunable=lambda path: True, distribution=sparsity.erk())
      >>> int(sparsity.get_masks(tx.init({"w": jnp.ones((20, 10))}))["w"].sum())
      20

    References:
      Mocanu et al., 2018.
    """
    return regrow(inner, schedule, key=key, prunable=prunable, grow=at_random, drop=drop, **options)


def rigl(
    inner: optax.GradientTransformation,
    schedule: Schedule,
    *,
    key: Key,
    prunable: Callable[[str], bool],
    drop: ScalarOrSchedule | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """The rigged lottery: the smallest weights are exchanged for those with the largest dense gradient.

    Args:
      inner: any transformation.
      schedule: `periodic`; until three quarters of training is usual.
      key: of ``jax.random.key``, for the first masks.
      prunable: which leaves.
      drop: the share that is exchanged; by default `cosine_drop` from 0.3 to 0 at the schedule's last step.
      **options: of `regrow`.

    Returns:
      The transformation. At a step of exchange nothing is trained.

    Example:
      >>> from jaxfair import sparsity
      >>> tx = rigl(optax.sgd(0.1, momentum=0.9), sparsity.periodic(0.5, every=2, end=8), key=jax.random.key(0),
      ...           prunable=lambda path: True)
      >>> masks = sparsity.get_masks(tx.init({"w": jnp.ones((4, 4))}))
      >>> int(masks["w"].sum())
      8

    References:
      Evci et al., 2020.
    """
    if drop is None:
        drop = cosine_drop(0.3, checked(_axes.member("schedule", schedule, Schedule)).steps[-1])
    options = {"drop": drop, "train_on_exchange": False} | options
    return regrow(inner, schedule, key=key, prunable=prunable, grow=by_gradient, **options)
