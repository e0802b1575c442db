r"""Oscillation measured, and frozen: which weights jump back and forth between two levels.

A weight *oscillates* at a step if its code changes, and in the direction opposite to its last change. Its frequency is
a moving average:

.. math::

   o_t = [c_t \ne c_{t-1}]\,[\mathrm{sign}(c_t - c_{t-1}) \ne \mathrm{sign\ of\ the\ last\ change}], \qquad
   f_t = m\, o_t + (1 - m)\, f_{t-1}

Iterative freezing: a weight whose frequency exceeds a threshold is held, from then on, at the level that it was at
most, the rounded moving average of its codes, and is trained no more. With a threshold of infinity, the default,
nothing is frozen and `watch` is a meter.

======================  =========================
Nagel et al.            here
======================  =========================
m                       ``momentum``, 0.01
:math:`f_{th}`          ``threshold``
frozen in the integer   codes; the level follows the step of the grid
======================  =========================

The authors let the threshold fall during training, and keep it at two to three times m at least: a schedule of the
step. How this differs from their code: the average of codes is of all steps, that of the freezing step included; a
wrapper of any optimizer around `quantized`, not of a quantiser's method.

References:
  Nagel, Fournarakis, Bondarenko, Blankevoort, `Overcoming Oscillations in Quantization-Aware Training
  <https://arxiv.org/abs/2203.11086>`_, 2022.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from jaxfair.quant import _numbers
from jaxfair.quant._granularity import spread
from jaxfair.quant._quantizer import Grid, codes, values
from jaxfair.quant._trees import get_grids
from jaxfair.tree import named
from jaxfair.typing import Array, Params


class Seen(NamedTuple):
    """What is remembered of the codes of a leaf.

    Attributes:
      code: int32, of the leaf's shape; the last one.
      direction: int8, the sign of its last change; 0 where there was none.
      frequency: float32, the moving average of oscillations.
      average: float32, the moving average of codes.
      frozen: bool.
    """

    code: Array
    direction: Array
    frequency: Array
    average: Array
    frozen: Array


class WatchState(NamedTuple):
    """The state of `watch`, arrays only.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      seen: a `Seen` for each leaf that is quantised, in the order of the leaves.
      flips: ``[]`` float32, the share of weights whose code changed in the last step.
      inner: the state of the inner transformation.
    """

    count: Array
    seen: tuple[Seen, ...]
    flips: Array
    inner: Any


class Oscillations(NamedTuple):
    """What `oscillations` says.

    Attributes:
      flips: ``[]``, the share of quantised weights whose code changed in the last step.
      oscillating: ``[]``, the share whose frequency is above the threshold that was asked for.
      frozen: ``[]``, the share that is frozen.
      frequency: the mean frequency.
    """

    flips: Array
    oscillating: Array
    frozen: Array
    frequency: Array


def watch(
    inner: optax.GradientTransformation,
    *,
    threshold: ArrayLike | Callable[[Any], Any] = math.inf,
    momentum: ArrayLike = 0.01,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer with `quantized` in it: measures oscillation, and freezes weights that oscillate.

    Args:
      inner: has `quantized` in it: ``watch(quantized(optax.sgd(0.1), bits=3))``.
      threshold: the frequency above which a weight is frozen, above 0; a number, or a schedule of the step. Infinity
        freezes none.
      momentum: m of the frequency, above 0 and at most 1.

    Returns:
      The transformation; `oscillations` reads its state. A frozen weight is at its level, but for the rounding of
      one addition, after plain `optax.apply_updates`. A pruner stands around it.

    Raises:
      ValueError: for numbers out of their range, an inner optimizer without `quantized`; in ``update`` without
        parameters.

    Example:
      The gradient drives a weight over its threshold and back; frozen, it stays:

      >>> from jaxfair import quant
      >>> tx = watch(quant.quantized(optax.sgd(0.5), bits=2), threshold=0.15, momentum=0.1)
      >>> params = {"w": jnp.array([1.0, 0.45])}
      >>> state = tx.init(params)
      >>> for _ in range(6):
      ...     level = quant.quantized_params(params, state)["w"][1]
      ...     gradients = {"w": jnp.array([0.0, 0.4 * (level - 0.5)])}
      ...     updates, state = tx.update(gradients, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> params["w"].tolist(), oscillations(state).frozen.item()
      ([1.0, 0.0], 0.5)
    """
    if not callable(threshold) and not (isinstance(threshold, float) and math.isinf(threshold)):
        _numbers.within("threshold", threshold, 0, open_low=True)
    _numbers.within("momentum", momentum, 0, 1, open_low=True)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        state = inner.init(params)
        seen = tuple(_begun(codes(leaf, grid)) for leaf, grid in _pairs(params, get_grids(state)))
        return WatchState(jnp.zeros((), jnp.int32), seen, jnp.zeros((), jnp.float32), state)

    def update_fn(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError("quant.watch needs the parameters; call update(grads, state, params)")
        stepped, inner_state = inner.update(updates, state.inner, params, **extra_args)
        grids = get_grids(inner_state)
        new = optax.apply_updates(params, stepped)
        limit = threshold(state.count) if callable(threshold) else threshold
        seen, flips = [], []
        for (leaf, grid), before in zip(_pairs(new, grids), state.seen, strict=True):
            after, flipped = _looked(before, codes(leaf, grid), jnp.asarray(momentum, jnp.float32), limit)
            seen.append(after)
            flips.append(flipped)
        total = sum(s.code.size for s in seen)
        flips = sum(jnp.sum(f) for f in flips) / jnp.asarray(total, jnp.float32)
        emitted = _held(stepped, params, grids, seen)
        count = jnp.asarray(optax.safe_increment(state.count))
        return emitted, WatchState(count, tuple(seen), flips, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _begun(code: Array) -> Seen:
    return Seen(
        code,
        jnp.zeros(code.shape, jnp.int8),
        jnp.zeros(code.shape, jnp.float32),
        code.astype(jnp.float32),
        jnp.zeros(code.shape, bool),
    )


def _looked(before: Seen, code: Array, momentum: Array, threshold: Any) -> tuple[Seen, Array]:
    """One step of what is remembered, and which codes changed."""
    code = jnp.where(before.frozen, before.code, code)
    turn = jnp.sign(code - before.code).astype(jnp.int8)
    flipped = turn != 0
    back = flipped & (turn == -before.direction)
    frequency = momentum * back + (1 - momentum) * before.frequency
    average = momentum * code.astype(jnp.float32) + (1 - momentum) * before.average
    newly = (frequency > jnp.asarray(threshold, jnp.float32)) & ~before.frozen
    held = jnp.where(newly, jnp.round(average).astype(jnp.int32), code)
    return Seen(held, jnp.where(flipped, turn, before.direction), frequency, average, before.frozen | newly), flipped


def _held(updates: Any, params: Params, grids: Any, seen: list[Seen]) -> Any:
    """Updates after which frozen weights are at their levels."""
    moves, treedef = jax.tree.flatten(updates)
    flat = jax.tree.leaves(grids, is_leaf=lambda node: isinstance(node, Grid))
    leaves, following = jax.tree.leaves(params), iter(seen)
    for i, grid in enumerate(flat):
        if jnp.ndim(grid.scale):
            now = next(following)
            level = values(now.code, grid, dtype=leaves[i].dtype)
            moves[i] = jnp.where(now.frozen, (level - leaves[i]).astype(moves[i].dtype), moves[i])
    return jax.tree.unflatten(treedef, moves)


def _pairs(params: Params, grids: Any) -> list[tuple[Array, Grid]]:
    """Each leaf that is quantised, with its grid."""
    flat = jax.tree.leaves(grids, is_leaf=lambda node: isinstance(node, Grid))
    return [(leaf, grid) for leaf, grid in zip(jax.tree.leaves(params), flat, strict=True) if jnp.ndim(grid.scale)]


def oscillations(opt_state: Any, *, above: ArrayLike = 0.02) -> Oscillations:
    """How much the weights of a run oscillate.

    Args:
      opt_state: of an optimizer with `watch` in it.
      above: the frequency from which a weight counts as oscillating.

    Returns:
      The `Oscillations`, over all quantised weights together.

    Raises:
      ValueError: for a state without `watch`.

    Example:
      >>> from jaxfair import quant
      >>> state = watch(quant.quantized(optax.sgd(0.5), bits=2)).init({"w": jnp.ones(3)})
      >>> oscillations(state).flips.item()
      0.0
    """
    found = named("seen", opt_state)
    if len(found) != 1:
        raise ValueError(f"oscillations needs the state of one quant.watch, but it found {len(found)}: wrap one")
    frequency = jnp.concatenate([s.frequency.ravel() for s in found[0]])
    frozen = jnp.concatenate([s.frozen.ravel() for s in found[0]])
    (flips,) = named("flips", opt_state)
    return Oscillations(flips, jnp.mean(frequency > above), jnp.mean(frozen), jnp.mean(frequency))


def bin_histogram(params: Params, grids: Any, *, bins: int = 20) -> Array:
    """Where in their bin the weights lie: at a level, or at a threshold.

    Args:
      params: the float parameters.
      grids: of `grids`, or of a state.
      bins: of the histogram, from -1/2 (the threshold below the level) over 0 (the level) to 1/2.

    Returns:
      ``[bins]`` float32, shares. What is clipped is left out.

    Raises:
      ValueError: for the grids of another network.

    Example:
      >>> from jaxfair import quant
      >>> params = {"w": jnp.array([3.0, 1.2, -0.8, 0.05])}      # a step of 1
      >>> bin_histogram(params, quant.grids(params, 3), bins=5).tolist()
      [0.0, 0.0, 0.5, 0.5, 0.0]
    """
    counts = jnp.zeros(bins, jnp.float32)
    for leaf, grid in _pairs(params, grids):
        place = leaf.astype(jnp.float32) / spread(jnp.asarray(grid.scale, jnp.float32), leaf.shape)
        offset = place - (
            codes(leaf, grid).astype(jnp.float32) - spread(jnp.asarray(grid.zero, jnp.float32), leaf.shape)
        )
        at = jnp.clip(jnp.floor((offset + 0.5) * bins), 0, bins - 1).astype(jnp.int32)
        counts = counts.at[at.ravel()].add((jnp.abs(offset) <= 0.5).ravel().astype(jnp.float32))
    return counts / jnp.maximum(jnp.sum(counts), 1)
