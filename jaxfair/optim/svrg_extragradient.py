r"""SVRE: the extragradient method with variance reduction.

The game is a mean of n minibatches, ``F = (F_1 + ... + F_n) / n``. At a snapshot S the full field ``mu = F(S)`` is
known, and a minibatch i gives the direction ``d_i(w) = F_i(w) - F_i(S) + mu``, which is unbiased, and exact at S:

.. code-block:: text

    with probability p (and at t = 0):   S <- w_t,  mu <- F(S)
    h_t    = P(w_t - gamma d_i(w_t))
    w_{t+1} = P(w_t - eta d_j(h_t))

- Near the saddle the noise vanishes with the distance, so a constant step converges linearly on strongly
  monotone games.
- Bilinear games are not: there the authors restart from the average. With ``restart_probability=q``, each snapshot is
  taken, with probability q, at the mean of the iterates since the last such restart, and the iterate jumps there.
- ``samples="independent"`` has j independent of i, as published; ``"same"`` has j = i, and saves an evaluation.

=======================  ===============================================
paper                    here
=======================  ===============================================
eta                      ``learning_rate`` and ``extrapolation_rate``
1 / n                    ``snapshot_probability``
p (restart)              ``restart_probability``
=======================  ===============================================

How this differs from the authors' code: there an epoch's length is drawn from a geometric distribution, here every
step asks whether an epoch ends, which is the same law without a loop in a loop. The snapshot is rare work
behind `jaxfair.tree.cond_any`. Both players use one minibatch, as everywhere in a joint field.

References:
  Chavdarova, Gidel, Fleuret and Lacoste-Julien, `Reducing Noise in GAN Training with Variance Reduced Extragradient
  <https://arxiv.org/abs/1904.08598>`_, 2019.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from jaxfair import tree
from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array, Key


class SvrgExtragradientState(NamedTuple):
    """The state of `svrg_extragradient`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field so far, the ones passed in included; one of the mean
        counts as `mean_cost`.
      key: the key of the next step.
      snapshot: the structure and dtype of the parameters: S.
      mean_field: the same: mu, the full field at the snapshot.
      mean_params: the structure of the parameters, float32 or wider: the mean of the iterates since the last
        restart, or `optax.EmptyState` where there are no restarts.
      since_restart: ``[]`` int32, how many iterates are in that mean.
    """

    count: Array
    oracle_calls: Array
    key: Key
    snapshot: Any
    mean_field: Any
    mean_params: Any
    since_restart: Array


def _restarted(state: SvrgExtragradientState, params: Any, restart: Array) -> tuple:
    """Where to go on, the mean of the iterates, this one included, and how many are in it."""
    since = jnp.asarray(optax.safe_increment(state.since_restart))
    weight = 1 / since.astype(jnp.float32)
    here = optax.tree.cast_like(params, state.mean_params)
    mean = optax.tree.where(since == 1, here, state.mean_params)
    mean = numbers.move(mean, weight, optax.tree.sub(mean, here))
    start = optax.tree.where(restart, optax.tree.cast_like(mean, params), params)
    return start, mean, jnp.where(restart, 0, since)


def svrg_extragradient(
    learning_rate: Rate,
    extrapolation_rate: Rate | None = None,
    *,
    key: Key,
    snapshot_probability: ArrayLike,
    restart_probability: ArrayLike | None = None,
    mean_cost: ArrayLike = 1,
    samples: Samples = "independent",
    projection: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The extragradient with directions of reduced variance.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      extrapolation_rate: gamma, likewise; the learning rate where it is None.
      key: seeds the times of snapshots and restarts; it lives in the state.
      snapshot_probability: p, per step; 1 / n is the authors' choice.
      restart_probability: q, per snapshot (0.1 in the paper); None keeps no mean and never restarts.
      mean_cost: what one evaluation of ``mean_operator_fn`` counts in ``oracle_calls``; n, where it is
        a pass over n minibatches.
      samples: where the second direction is taken: on an independent minibatch
        (``independent_operator_fn``) or on the same one.
      projection: of the joint tree onto the feasible set; applied to both points.

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., independent_operator_fn=...,
      mean_operator_fn=..., field=field)``; it needs the joint tree and comes first in a chain.

    Raises:
      ValueError: in `optax.partition`, after another transformation (where ``field=`` is passed), and without
        the parameters or an operator.

    Example:
      Two minibatches whose noise is a constant: all of it cancels, and the method is the extragradient.

      >>> field = lambda w, noise: jnp.array([w[1], -w[0]]) + noise
      >>> tx = svrg_extragradient(0.5, key=jax.random.key(0), snapshot_probability=0.5, mean_cost=2)
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for noise in (3.0, -3.0, 3.0):
      ...     ours, other = (lambda w: field(w, noise)), (lambda w: field(w, -noise))
      ...     g = ours(w)
      ...     updates, state = tx.update(
      ...         g, state, w, operator_fn=ours, independent_operator_fn=other,
      ...         mean_operator_fn=lambda w: field(w, 0.0), field=g)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"{jnp.linalg.norm(w):.4f}")
      0.9014
      0.8125
      0.7324
    """
    oracles.check_samples(samples)
    numbers.check_rates(learning_rate=learning_rate)
    if extrapolation_rate is not None:
        numbers.check_rates(extrapolation_rate=extrapolation_rate)
    numbers.check("snapshot_probability", snapshot_probability, 0.0, 1.0, ends="[]")
    if restart_probability is not None:
        numbers.check("restart_probability", restart_probability, 0.0, 1.0, ends="[]")
    numbers.check("mean_cost", mean_cost, 0.0, float("inf"))

    def init_fn(params):
        oracles.require_joint("svrg_extragradient", params)
        zero, zeros = jnp.zeros((), jnp.int32), partial(optax.tree.zeros_like, params)
        mean_params = optax.EmptyState() if restart_probability is None else numbers.zeros_like(params)
        return SvrgExtragradientState(zero, zero, key, zeros(), zeros(), mean_params, zero)

    def update_fn(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        operator_fn: Operator | None = None,
        independent_operator_fn: Operator | None = None,
        mean_operator_fn: Operator | None = None,
        field: Any = None,
        **extra_args: Any,
    ):
        del extra_args
        name = "svrg_extragradient"
        oracles.require_start(name, updates, params, field)
        ours = oracles.require_operator(name, "operator_fn", operator_fn)
        mean = oracles.require_operator(name, "mean_operator_fn", mean_operator_fn)
        second = oracles.second_operator(name, samples, operator_fn, independent_operator_fn)
        next_key, snapshot_key, restart_key = jax.random.split(state.key, 3)
        first = state.count == 0
        renew = first | jax.random.bernoulli(snapshot_key, jnp.asarray(snapshot_probability))

        start, mean_params, since = params, state.mean_params, state.since_restart
        if restart_probability is not None:
            chance = jax.random.bernoulli(restart_key, jnp.asarray(restart_probability))
            start, mean_params, since = _restarted(state, params, renew & ~first & chance)

        def take(start, *_):
            return start, optax.tree.cast_like(mean(start), start)

        old = state.snapshot, state.mean_field
        snapshot, mean_field = tree.cond_any(renew, take, lambda _, *kept: kept, start, *old)

        def correct(at_point, at_snapshot):
            return jax.tree.map(lambda g, s, mu: g - s + mu.astype(g.dtype), at_point, at_snapshot, mean_field)

        # Where the snapshot was just taken, the direction at it is the full field, whatever the minibatch.
        at_snapshot = ours(snapshot)
        full = optax.tree.cast_like(mean_field, updates)
        direction = optax.tree.where(renew, full, correct(updates, at_snapshot))

        eta = numbers.at(learning_rate, state.count)
        gamma = eta if extrapolation_rate is None else numbers.at(extrapolation_rate, state.count)
        half = numbers.move(start, gamma, direction)
        if projection is not None:
            half = projection(half)
        if samples == "independent":
            at_snapshot = second(snapshot)
        new = numbers.emit(start, eta, correct(second(half), at_snapshot), updates, projection)
        if restart_probability is not None:
            jump = optax.tree.sub(start, params)
            new = optax.tree.add(new, optax.tree.cast_like(jump, updates))
        calls = numbers.count_up(state.oracle_calls, 3 if samples == "same" else 4)
        calls = jnp.where(renew, numbers.count_up(calls, mean_cost), calls)
        return new, SvrgExtragradientState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=calls,
            key=next_key,
            snapshot=snapshot,
            mean_field=mean_field,
            mean_params=mean_params,
            since_restart=since,
        )

    # A state in arrays of its own: who gives it away keeps the key.
    return optax.GradientTransformationExtraArgs(lambda params: tree.copied(init_fn(params)), update_fn)
