r"""Sharpness-aware minimisation: descend by the gradient that is found a small way uphill. SAM, ASAM and GC-SAM.

With the gradient g at the parameters w, on the same minibatch:

.. code-block:: text

    SAM     w' = w + rho g / |g|                      |.| over all leaves that are perturbed
    ASAM    w' = w + rho w^2 g / | |w| g |            adaptive=True: the same if the weights are measured in other units
            the field that goes on is g' = grad at w'; the step is taken from w

    GC-SAM  per tensor, c = cos(g, g'), u = (g + g') / |g + g'|:
            c >= up          g'                       SAM
            low < c < up     (g' . u) u               what both agree on
            c <= low         g                        plain descent; never where low <= 0

Here they are transformations of the field, for any chain behind them: ``optax.chain(scale_by_sam(0.05),
optax.sgd(0.1))``. Momentum, weight decay and schedules then act at w. Two evaluations per step, as `oracle_calls` in
the state tells; `jaxfair.train.descent` and a joint optimizer of `jaxfair.constraints.solver` pass the operator.

=============  ===============
papers         here
=============  ===============
rho            ``rho``
low, up        ``low``, ``up``
=============  ===============

How this differs: from `optax.contrib.sam`, any other extra argument may be passed, a gradient of 0 stays 0 instead of
nan, and states are never mixed; from the authors' code of GC-SAM, the same for its three norms. There u is called the
bisector, which it is only where both gradients are equally long. Their defaults of `low` differ between files (0.5,
and 0.1 in the training script). The rule jumps at both thresholds.

References:
  Foret, Kleiner, Mobahi and Neyshabur, `Sharpness-Aware Minimization <https://arxiv.org/abs/2010.01412>`_, 2021; Kwon,
  Kim, Park and Choi, `ASAM <https://arxiv.org/abs/2102.11600>`_, 2021; Liu et al., `GCSCoOp
  <https://arxiv.org/abs/2309.07866>`_, 2023, for the gradient constraint.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair import tree
from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator
from jaxfair.typing import Array


class SamState(NamedTuple):
    """The state of `scale_by_sam`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field so far, the ones passed in included.
    """

    count: Array
    oracle_calls: Array


class GcSamState(NamedTuple):
    """The state of `scale_by_gcsam`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field so far, the ones passed in included.
      judged: ``[]`` int32, the pairs of a step and a perturbed tensor so far; of a step and all of them where the rule
        is not per tensor.
      projected: ``[]`` int32, in how many of them what both gradients agree on was taken.
      fell_back: ``[]`` int32, in how many the plain gradient was.
    """

    count: Array
    oracle_calls: Array
    judged: Array
    projected: Array
    fell_back: Array


def scale_by_sam(
    rho: ArrayLike | optax.Schedule,
    *,
    adaptive: bool = False,
    where: Callable[[str], bool] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The field at a point that lies uphill of the parameters, in place of the field there.

    Args:
      rho: how far, at least 0; a number, or a schedule. 0 is what stands behind it in the chain.
      adaptive: ASAM: each weight moves in proportion to its size, and a weight of 0 does not.
      where: which leaves are perturbed, from a path such as ``"Conv_0/kernel"``: the last layer, or the
        ``params`` of a game and not its multipliers. All by default; integers never are. Every leaf receives the field
        that is found there: multipliers answer what is violated at the perturbed weights.

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., field=field)``; it needs the whole tree and
      comes first in a chain.

    Raises:
      ValueError: for a negative rho; in `optax.partition`, after another transformation (where ``field=`` is passed),
        and without the parameters or the operator; where no leaf is perturbed.
      TypeError: for complex leaves.

    Example:
      On w^2 / 2 plain descent would halve w. From w + 0.1 it sees a larger gradient:

      >>> tx = optax.chain(scale_by_sam(0.1), optax.sgd(0.5))
      >>> w, field = jnp.array([1.0]), lambda w: w
      >>> updates, state = tx.update(field(w), tx.init(w), w, operator_fn=field)
      >>> print(updates, state[0].oracle_calls)
      [-0.55] 2
    """
    numbers.check("rho", rho, 0.0, float("inf"))

    def init_fn(params):
        oracles.require_joint("sam", params)
        _perturbed("sam", where, params)
        return SamState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update_fn(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        operator_fn: Operator | None = None,
        field: Any = None,
        **extra_args: Any,
    ):
        del extra_args
        found, _ = _uphill("sam", rho, adaptive, where, updates, state.count, params, operator_fn, field)
        count = jnp.asarray(optax.safe_increment(state.count))
        return found, SamState(count, numbers.count_up(state.oracle_calls, 2))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def scale_by_gcsam(
    rho: ArrayLike | optax.Schedule,
    low: ArrayLike = 0.5,
    up: ArrayLike = 0.8,
    per_tensor: bool = True,
    where: Callable[[str], bool] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM where the gradient uphill agrees with the one here, and less of it where it does not.

    Args:
      rho: as of `scale_by_sam`.
      low: the cosine up to which the plain gradient is taken, in [-1, 1]; never where it is 0 or less.
      up: the cosine from which on SAM's is. With ``low=0, up=-1`` all of it is SAM.
      per_tensor: each tensor by its own cosine; else all by that of the whole tree.
      where: which leaves are perturbed and judged; the others receive the field that SAM gives them.

    Returns:
      The transformation, as of `scale_by_sam`. Its state tells how often which rule was taken.

    Raises:
      ValueError: for thresholds outside [-1, 1], and for ``low`` above ``up`` unless ``low`` is 0 or less; as
        `scale_by_sam`.
      TypeError: for complex leaves.

    Example:
      Uphill the gradient has turned by 53 degrees; what both agree on has length 0.894:

      >>> tx = scale_by_gcsam(1.0)
      >>> w, g = jnp.zeros(2), jnp.array([1.0, 0.0])
      >>> found, state = tx.update(g, tx.init(w), w, operator_fn=lambda w: jnp.array([0.6, 0.8]))
      >>> print(f"{jnp.linalg.norm(found):.3f}", found[0] > found[1], state.projected / state.judged)
      0.894 True 1.0
    """
    numbers.check("rho", rho, 0.0, float("inf"))
    numbers.check("low", low, -1.0, 1.0, ends="[]")
    numbers.check("up", up, -1.0, 1.0, ends="[]")
    known = not any(isinstance(bound, Tracer) for bound in (low, up))
    if known and np.any((np.asarray(low) > 0) & (np.asarray(low) > np.asarray(up))):
        raise ValueError(f"low must be at most up, or 0 for no fall back, but low={low} and up={up}")

    def init_fn(params):
        oracles.require_joint("gcsam", params)
        _perturbed("gcsam", where, params)
        return GcSamState(*(jnp.zeros((), jnp.int32) for _ in GcSamState._fields))

    def update_fn(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        operator_fn: Operator | None = None,
        field: Any = None,
        **extra_args: Any,
    ):
        del extra_args
        found, mine = _uphill("gcsam", rho, False, where, updates, state.count, params, operator_fn, field)
        here, there = jax.tree.leaves(updates), jax.tree.leaves(found)
        chosen = [i for i, perturbed in enumerate(mine) if perturbed]
        pairs = [_products(here[i], there[i]) for i in chosen]
        if not per_tensor and pairs:
            aa, ab, bb = (jnp.sum(jnp.stack(each)) for each in zip(*pairs, strict=True))
            pairs = [(aa, ab, bb)] * len(chosen)
        rules = [_rule(aa, ab, bb, low, up) for aa, ab, bb in pairs]
        for i, (first, second, *_) in zip(chosen, rules, strict=True):
            wide = numbers.widen(here[i], there[i]), numbers.widen(there[i], here[i])
            # 0 times what is not finite would be nan: a factor of 0 leaves its gradient out.
            parts = [jnp.where(f == 0, 0, f * g) for f, g in zip((first, second), wide, strict=True)]
            there[i] = jnp.asarray(parts[0] + parts[1], here[i].dtype)
        counted = rules if per_tensor else rules[:1]
        projected, fell_back = (sum((r[k].astype(jnp.int32) for r in counted), jnp.int32(0)) for k in (2, 3))
        return jax.tree.unflatten(jax.tree.structure(updates), there), GcSamState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 2),
            judged=numbers.count_up(state.judged, len(counted)),
            projected=numbers.count_up(state.projected, projected),
            fell_back=numbers.count_up(state.fell_back, fell_back),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _perturbed(method: str, where: Callable[[str], bool] | None, params: Any) -> list[bool]:
    """Of each leaf, whether it is perturbed."""
    leaves = jax.tree.leaves(params)
    real = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    chosen = [where is None or bool(where(path)) for path in tree.paths(params)]
    found = [a and b for a, b in zip(real, chosen, strict=True)]
    if leaves and not any(found):
        raise ValueError(f"{method} perturbs none of the {len(leaves)} leaves; give where= that is true of some paths")
    return found


def _uphill(
    method: str, rho: Any, adaptive: bool, where: Any, updates: Any, count: Array, params: Any, operator_fn: Any,
    field: Any,
) -> tuple[Any, list[bool]]:  # fmt: skip
    """The field at the perturbed point, in the dtypes of `updates`; and which leaves were perturbed."""
    oracles.require_start(method, updates, params, field)
    oracles.require_real(method, updates)
    operator_fn = oracles.require_operator(method, "operator_fn", operator_fn)
    mine = _perturbed(method, where, params)
    weights, treedef = jax.tree.flatten(params)
    wide: list[Any] = [
        numbers.widen(g, w) if m else None for g, w, m in zip(jax.tree.leaves(updates), weights, mine, strict=True)
    ]
    units = [jnp.abs(numbers.widen(w, g)) if m and adaptive else 1 for g, w, m in zip(wide, weights, mine, strict=True)]
    scaled = [u * g for u, g, m in zip(units, wide, mine, strict=True) if m]
    norm = optax.tree.norm(scaled)
    # A gradient of 0 has no direction: nothing is perturbed.
    far = jnp.where(norm > 0, numbers.cast(numbers.at(rho, count), norm.dtype) / jnp.where(norm > 0, norm, 1), 0)
    moved = [
        numbers.move(w, -far, u * u * g) if m else w for w, u, g, m in zip(weights, units, wide, mine, strict=True)
    ]
    found = operator_fn(jax.tree.unflatten(treedef, moved))
    return optax.tree.cast_like(found, updates), mine


def _products(here: Array, there: Array) -> tuple[Array, Array, Array]:
    """The inner products of two gradients, first with first, first with second and second with second."""
    a, b = numbers.widen(here, there), numbers.widen(there, here)
    return jnp.sum(a * a), jnp.sum(a * b), jnp.sum(b * b)


def _rule(aa: Array, ab: Array, bb: Array, low: Any, up: Any) -> tuple[Array, Array, Array, Array]:
    """How much of each gradient is taken; whether they were projected; whether the first was taken alone."""
    norms = jnp.sqrt(aa) * jnp.sqrt(bb)
    cosine = jnp.clip(jnp.where(norms > 0, ab / jnp.where(norms > 0, norms, 1), 0), -1, 1)
    low, up = numbers.cast(low, cosine.dtype), numbers.cast(up, cosine.dtype)
    whole = cosine >= up
    fell_back = ~whole & (cosine <= low) & (low > 0)
    projected = ~whole & ~fell_back
    # (g' . u) u with u = (g + g') / |g + g'| is this much of g + g'.
    both = aa + 2 * ab + bb
    share = jnp.where(both > 0, (ab + bb) / jnp.where(both > 0, both, 1), 0)
    first = jnp.where(fell_back, 1, jnp.where(projected, share, 0))
    second = jnp.where(whole, 1, jnp.where(projected, share, 0))
    return first, second, projected, fell_back
