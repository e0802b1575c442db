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


def deliver(
    kept: Snapshot,
    candidates: Sequence[Networks],
    violation: Callable[[Networks], Float[Array, ""]] | Sequence[Float[Array, ""]] | Array,
    epoch: Int[Array, ""] | int,
    *,
    accuracy: Sequence[Float[Array, ""]] | Array | None = None,
) -> Snapshot:
    """The rule of delivery at the end of an epoch: the most accurate that met the bound, else the least violating.

    Args:
      kept: what would be delivered so far.
      candidates: the last iterate and, if there is one, its moving average; looked at in this order, so that of two
        that are equal the average is taken.
      violation: of each candidate, by how much it exceeds the bound, on the training split in eval mode; at most 0 is
        met. Or a function of a candidate.
      epoch: that has just ended.
      accuracy: of each candidate in ``[0, 1]``, on the same people; of equals the latest is taken. Without it, all that
        met the bound are equals.

    Returns:
      The snapshot of what is delivered now; its score is minus the accuracy (-1 without one) where the bound was met,
      else the violation. A candidate whose violation or accuracy is nan is never taken.

    Example:
      Four epochs; the second and the third met the bound, and the second was more accurate:

      >>> import jax.numpy as jnp
      >>> kept = empty_snapshot(jnp.zeros(()), {})
      >>> for epoch, (over, accuracy) in enumerate([(0.01, 0.9), (-0.01, 0.8), (0.0, 0.7), (0.02, 0.9)]):
      ...     kept = deliver(kept, [Networks(jnp.float32(epoch), {})], [jnp.float32(over)], epoch,
      ...                    accuracy=[jnp.float32(accuracy)])
      >>> int(kept.epoch), round(float(-kept.score), 2)
      (1, 0.8)
    """
    for i, candidate in enumerate(candidates):
        over: Any = violation(candidate) if callable(violation) else violation[i]
        right = jnp.ones(()) if accuracy is None else accuracy[i]
        score = jnp.where(over <= 0, -right, over)
        replace = (score < kept.score) | ((over <= 0) & (score == kept.score))
        kept = keep_if(replace, kept, *candidate, score, epoch, averaged=i > 0)
    return kept
