r"""Quantisation-aware training as an optax transformation that wraps another.

.. code-block:: text

    forward   loss(q(w))             with the grids of the state: `quantized_params`
    backward  g = d loss / d q(w)    given to w as if rounding were the identity; 0 for weights that are clipped
    update    w <- w + inner(g);     the grids are found again, or their steps trained (LSQ)

The straight-through gradient is the gradient *at* the quantised weights, so that no rule of differentiation is needed,
and a step costs what a step costs, and one pass over the weights:

.. code-block:: python

    gradients = jax.grad(loss)(quant.quantized_params(params, state))
    updates, state = tx.update(gradients, state, params)      # params: the float ones

It is one line of `jaxfair.train.descent`: ``descent(model.apply, tx, at=quant.quantized_params)``. With pruning,
`jaxfair.sparsity.prune` stands around it, ``prune(quantized(optax.adam(1e-3), bits=4), schedule, ...)``: zero is a
level of every scheme, so that pruned weights stay exactly zero. A problem with constraints is given the quantised
network instead (`jaxfair.quant.model`), whose gradient is the same.

With `learned` scales the steps are parameters (LSQ): their gradient follows from g alone,

.. math:: \frac{\partial L}{\partial s} = \frac{1}{\sqrt{N h}} \sum_i g_i\, \frac{\partial q(w_i)}{\partial s}

for N weights that share the step and the highest code h, and an optimizer of their own, ``learning=``, moves them.

References:
  Bengio, Léonard, Courville, *Estimating or propagating gradients through stochastic neurons*, 2013. Esser et al.,
  `Learned Step Size Quantization <https://arxiv.org/abs/1902.08153>`_, 2020.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxfair.quant._numbers import working
from jaxfair.quant._quantizer import Grid, Quantizer, fake_quantize, inside
from jaxfair.quant._trees import grids as grids_of
from jaxfair.quant._trees import mapped, quantizable
from jaxfair.typing import Array


class QuantizedState(NamedTuple):
    """The state of `quantized`, arrays only.

    Attributes:
      grids: the structure of the parameters, a `Grid` for each leaf: those of the weights that the next loss is taken
        at.
      inner: the state of the inner transformation.
      learning: the state of the optimizer of the steps; ``()`` where they are not trained.
    """

    grids: Any
    inner: Any
    learning: Any = ()


def quantized(
    inner: optax.GradientTransformation,
    *,
    bits: Any,
    quantizer: Quantizer = Quantizer(),  # noqa: B008, a constant
    quantized: Callable[[str], bool] = quantizable,
    learning: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer that trains float weights for a network that is quantised.

    Args:
      inner: any transformation; it sees the gradients, 0 where a weight is clipped.
      bits: b, for all leaves or by path, as in `grids`; may be traced.
      quantizer: how; by default per tensor, symmetric, the largest weight is a level.
      quantized: which leaves, from a path; by default weights, but no norms and biases.
      learning: the optimizer of the steps, for a quantizer with `learned` scales, and only there. LSQ takes that of the
        weights.

    Returns:
      The transformation. Gradients are those at ``quantized_params(params, state)``, which at the end is the network.
      ``update`` needs the parameters. Where something around it changes what it emits (a pruner whose masks change),
      the grids of that step are those of the weights before, and follow at the next one.

    Raises:
      ValueError: as `grids`; for `learning` without learned scales, or the reverse; in ``update`` without parameters.
      TypeError: for an optimizer that is none.

    Example:
      Two bits are the levels -s, 0, s; the second weight crosses from 0 to s:

      >>> from jaxfair import quant
      >>> params = {"w": jnp.array([1.0, 0.4])}
      >>> tx = quant.quantized(optax.sgd(0.1), bits=2)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     at = quant.quantized_params(params, state)
      ...     print(at["w"])
      ...     gradients = jax.grad(lambda p: jnp.sum((p["w"] - jnp.array([1.0, 0.6])) ** 2))(at)
      ...     updates, state = tx.update(gradients, state, params)
      ...     params = optax.apply_updates(params, updates)
      [1. 0.]
      [1. 1.]
    """
    for name, given in (("inner", inner), ("learning", learning)):
        if given is not None and not all(callable(getattr(given, of, None)) for of in ("init", "update")):
            raise TypeError(f"{name}={given!r}: give an optax optimizer, such as optax.sgd(0.1)")
    if quantizer.checked().scale.learned != (learning is not None):
        raise ValueError(
            "learned scales need learning=, the optimizer of the steps, such as optax.sgd(1e-3)"
            if learning is None
            else "learning= is of learned scales: give quantizer=quant.Quantizer(scale=quant.learned), or leave it out"
        )
    inner = optax.with_extra_args_support(inner)
    rule = {"quantizer": quantizer, "quantized": quantized}

    def init_fn(params):
        found = grids_of(params, bits, **rule)
        steps = () if learning is None else learning.init(_steps(found))
        return QuantizedState(found, inner.init(params), steps)

    def update_fn(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError("quant.quantized needs the parameters; call update(grads, state, params)")
        passed = mapped(_passed, updates, state.grids, params) if quantizer.scale.clips else updates
        stepped, inner_state = inner.update(passed, state.inner, params, **extra_args)
        if learning is None:
            grids, trained = grids_of(optax.apply_updates(params, stepped), bits, **rule), ()
        else:
            slopes = _steps(mapped(_slope, updates, state.grids, params))
            moves, trained = learning.update(slopes, state.learning, _steps(state.grids))
            grids = _moved(state.grids, jax.tree.leaves(moves))
        return stepped, QuantizedState(grids, inner_state, trained)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _passed(gradient: Array, grid: Grid, param: Array) -> Array:
    """The gradient, 0 where the weight is clipped."""
    return jnp.where(inside(param, grid), gradient, jnp.zeros_like(gradient))


def _slope(gradient: Array, grid: Grid, param: Array) -> Grid:
    """The gradient of the steps of a leaf, in place of the steps of its grid."""

    def value(scale: Array) -> Array:
        wide = param.astype(working(param.dtype))
        return fake_quantize(wide, grid._replace(scale=scale), scale_gradient=True)

    _, pull = jax.vjp(value, grid.scale)
    (slope,) = pull(gradient.astype(working(param.dtype)))
    shared = param.size / grid.scale.size
    return grid._replace(scale=slope / jnp.sqrt(shared * jnp.maximum(grid.high, 1)).astype(slope.dtype))


def _is_grid(node: Any) -> bool:
    return isinstance(node, Grid)


def _steps(grids: Any) -> list[Array]:
    """The steps of the leaves that are quantised."""
    found = [g.scale for g in jax.tree.leaves(grids, is_leaf=_is_grid) if _is_grid(g) and jnp.ndim(g.scale)]
    return [jnp.array(scale, copy=True) for scale in found]


def _moved(grids: Any, moves: list[Array]) -> Any:
    """The grids with their steps moved; a step stays above 0."""
    flat, treedef = jax.tree.flatten(grids, is_leaf=_is_grid)
    following, found = iter(moves), []
    for grid in flat:
        if jnp.ndim(grid.scale):
            step = grid.scale + next(following).astype(grid.scale.dtype)
            grid = grid._replace(scale=jnp.where(step > 0, step, grid.scale))
        found.append(grid)
    return jax.tree.unflatten(treedef, found)
