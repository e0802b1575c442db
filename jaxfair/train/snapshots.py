r"""Which iterate is kept: the rules of selection, as pure functions of what was measured.

A rule sees a candidate (the last iterate, or its average) at the end of an epoch and says whether it replaces the one
that is kept. None of them sees the test split.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxfair.train.networks import Networks
from jaxfair.typing import ModelState, Params


class Snapshot(NamedTuple):
    """The best network so far, by some rule.

    Attributes:
      params: its parameters.
      model_state: its state.
      score: scalar float32, what the rule compares; lower is better. Infinite before the first candidate.
      epoch: scalar int32, after which it was taken; -1 before the first candidate.
      averaged: scalar bool, whether it is the moving average.
    """

    params: Params
    model_state: ModelState
    score: jax.Array
    epoch: jax.Array
    averaged: jax.Array


def empty_snapshot(params: Params, model_state: ModelState) -> Snapshot:
    """A snapshot that any candidate replaces, unless its score is not a number.

    Example:
      >>> import jax.numpy as jnp
      >>> empty_snapshot(jnp.zeros(2), {}).epoch
      Array(-1, dtype=int32)
    """
    params, model_state = jax.tree.map(jnp.copy, (params, model_state))
    return Snapshot(
        params,
        model_state,
        jnp.full((), jnp.inf, jnp.float32),
        jnp.full((), -1, jnp.int32),
        jnp.zeros((), bool),
    )


def keep_if(
    replace: Bool[Array, ""],
    kept: Snapshot,
    params: Params,
    model_state: ModelState,
    score: Float[Array, ""],
    epoch: Int[Array, ""] | int,
    averaged: bool,
) -> Snapshot:
    """The candidate where ``replace``, else what was kept.

    Args:
      replace: scalar bool, of a rule such as :func:`better_score`; may be traced.
      kept: the best so far.
      params: the candidate's.
      model_state: the candidate's.
      score: the candidate's; lower is better.
      epoch: after which it was taken.
      averaged: whether it is the moving average.

    Raises:
      ValueError: for a candidate of other shapes.

    Example:
      Three epochs, of which the second has the lowest validation loss:

      >>> import jax.numpy as jnp
      >>> kept = empty_snapshot(jnp.zeros(()), {})
      >>> for epoch, loss in enumerate(jnp.array([0.5, 0.3, 0.4])):
      ...     params = jnp.float32(10 * epoch)
      ...     kept = keep_if(better_score(kept, loss), kept, params, {}, loss, epoch, averaged=False)
      >>> int(kept.epoch), float(kept.params), round(float(kept.score), 2)
      (1, 10.0, 0.3)
    """
    candidate = Snapshot(
        params,
        model_state,
        score.astype(jnp.float32),
        jnp.asarray(epoch, jnp.int32),
        jnp.asarray(averaged),
    )

    def choose(new: Any, old: Any) -> Any:
        if jnp.shape(new) != jnp.shape(old):
            raise ValueError(
                f"the candidate has a leaf of shape {jnp.shape(new)}, but what was kept has {jnp.shape(old)}"
            )
        return jnp.where(replace, new, old)

    return jax.tree.map(choose, candidate, kept)


def better_score(kept: Snapshot, score: Float[Array, ""]) -> Bool[Array, ""]:
    """Early stopping: a strictly lower score replaces, so the earliest of equals stays; NaN never does.

    Example:
      >>> import jax.numpy as jnp
      >>> better_score(empty_snapshot(jnp.zeros(1), {}), jnp.array(0.3))
      Array(True, dtype=bool)
    """
    return score < kept.score


def better_violation(kept: Snapshot, violation: Float[Array, ""]) -> Bool[Array, ""]:
    r"""Delivery: the latest candidate that meets the bound, else the one that violates it least.

    ``violation`` is :math:`\max_g \psi_g - \epsilon` on the training split, in eval mode. A candidate that meets the
    bound replaces whatever was kept before it, since later iterates are better trained; one that does not only
    replaces a worse one.

    Example:
      >>> import jax.numpy as jnp
      >>> kept = empty_snapshot(jnp.zeros(1), {})._replace(score=jnp.array(-0.01))
      >>> better_violation(kept, jnp.array(-0.001)), better_violation(kept, jnp.array(0.001))
      (Array(True, dtype=bool), Array(False, dtype=bool))
    """
    return (violation <= 0) | ((kept.score > 0) & (violation < kept.score))


def deliver(
    kept: Snapshot,
    candidates: Sequence[Networks],
    violation: Callable[[Networks], Float[Array, ""]] | Sequence[Float[Array, ""]] | Array,
    epoch: Int[Array, ""] | int,
) -> Snapshot:
    """The rule of delivery at the end of an epoch: the latest that met the bound, else the one that violates it least.

    Args:
      kept: what would be delivered so far.
      candidates: the last iterate and, if there is one, its moving average; looked at in this order, so that the
        average is taken where both meet the bound.
      violation: of each candidate, by how much it exceeds the bound, on the training split in eval mode; at most 0 is
        met. Or a function of a candidate.
      epoch: that has just ended.

    Returns:
      The snapshot of what is delivered now. A candidate whose violation is nan is never taken.

    Example:
      Three epochs; the second is the last that met the bound, and there the average is taken:

      >>> import jax.numpy as jnp
      >>> kept = empty_snapshot(jnp.zeros(()), {})
      >>> for epoch, violations in enumerate([(-0.01, 0.02), (-0.01, 0.0), (0.01, 0.02)]):
      ...     candidates = [Networks(jnp.float32(epoch), {}), Networks(jnp.float32(epoch + 0.5), {})]
      ...     kept = deliver(kept, candidates, jnp.array(violations), epoch)
      >>> int(kept.epoch), float(kept.params), bool(kept.averaged)
      (1, 1.5, True)
    """
    for i, candidate in enumerate(candidates):
        over: Any = violation(candidate) if callable(violation) else violation[i]
        replace = better_violation(kept, over)
        kept = keep_if(replace, kept, *candidate, over, epoch, averaged=i > 0)
    return kept
