r"""The change of a layer's outputs as a quadratic form of the change of its weights, and its minimum on a support.

With W the weights of a dense layer, X its inputs and V other weights,

.. math:: \tfrac12 \operatorname{tr}\,(W - V)^\top G \, (W - V), \qquad
    G = X^\top X + \text{ridge} \cdot \overline{\operatorname{diag}(X^\top X)} \, I.

`jaxfair.sparsity.re_solve` and `jaxfair.sparsity.csp` say what it is for.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxfair.typing import Array


class Place(NamedTuple):
    """Sparse weights V on the way.

    Attributes:
      weights: ``[n, out]``.
      mask: ``[n, out]`` bool.
      pull: ``[n, out]``, G (W - V): minus the gradient.
      error: ``[]``.
    """

    weights: Array
    mask: Array
    pull: Array
    error: Array


def moments_of(weights: Array, gram: Array, ridge: Any) -> tuple[Array, Array, Array]:
    """W and G in a precision that serves, G in units of the mean of its diagonal; and that unit.

    In these units no square leaves the range of float32, and the ridge keeps a matrix of any rank regular.

    Example:
      >>> _, moments, unit = moments_of(jnp.ones((2, 1)), jnp.diag(jnp.array([2.0, 6.0])), 0.5)
      >>> moments.tolist(), unit.item()
      ([[1.0, 0.0], [0.0, 2.0]], 4.0)
    """
    dtype = np.promote_types(np.promote_types(weights.dtype, gram.dtype), np.float32)
    dense, moments = weights.astype(dtype), gram.astype(dtype)
    unit = jnp.mean(jnp.diagonal(moments))
    unit = jnp.where(unit > 0, unit, 1)
    penalty = jnp.asarray(ridge, dtype) * jnp.eye(len(moments), dtype=dtype)
    return dense, (moments + moments.T) / 2 / unit + penalty, unit


def place_of(moments: Array, dense: Array, weights: Array, mask: Array) -> Place:
    """The `Place` of weights that are 0 outside of their mask.

    Example:
      >>> dense = jnp.array([[3.0], [2.0]])
      >>> place_of(jnp.eye(2), dense, jnp.array([[3.0], [0.0]]), dense > 2).error.item()
      2.0
    """
    moved = dense - weights
    pull = moments @ moved
    return Place(weights, mask, pull, jnp.sum(moved * pull) / 2)


def solved(moments: Array, dense: Array, place: Place, steps: int) -> Place:
    """The best values on the support: conjugate gradients for every output by itself, scaled by the diagonal.

    Example:
      >>> moments, dense = jnp.array([[1.0, 0.9], [0.9, 1.0]]), jnp.array([[1.0], [0.8]])
      >>> begun = place_of(moments, dense, jnp.array([[1.0], [0.0]]), jnp.array([[True], [False]]))
      >>> [f"{w:.2f}" for w in solved(moments, dense, begun, 10).weights[:, 0]]
      ['1.72', '0.00']
    """
    inverse = 1 / jnp.diagonal(moments)[:, None]
    inside, over_inputs = place.mask.astype(dense.dtype), partial(jnp.sum, axis=0, keepdims=True)

    def ratio(a, b):
        return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)

    def once(carry):
        weights, residual, direction, size, count = carry
        image = inside * (moments @ direction)
        far = ratio(size, over_inputs(direction * image))
        weights, residual = weights + far * direction, residual - far * image
        scaled = inverse * residual
        new = over_inputs(residual * scaled)
        return weights, residual, scaled + ratio(new, size) * direction, new, count + 1

    residual = inside * place.pull
    scaled = inverse * residual
    size = over_inputs(residual * scaled)
    enough = jnp.finfo(dense.dtype).eps ** 1.5 * size
    start = (place.weights, residual, scaled, size, jnp.int32(0))
    weights, *_ = lax.while_loop(lambda c: jnp.any(c[3] > enough) & (c[4] < steps), once, start)
    pull = moments @ (dense - weights)
    # Where rounding has the last word an output keeps what it had.
    pairs = (weights, pull), (place.weights, place.pull)
    after, before = (over_inputs((dense - v) * p) for v, p in pairs)
    weights, pull = (jnp.where(after < before, new, old) for new, old in zip(*pairs, strict=True))
    error = jnp.sum((dense - weights) * pull) / 2
    return Place(weights, place.mask, pull, jnp.minimum(error, place.error))


def check_layer(weights: Array, gram: Array) -> None:
    """Raises for what is no dense layer with the Gram matrix of its inputs; of traced values only shapes are seen.

    Example:
      >>> check_layer(jnp.ones((2, 3)), jnp.eye(3))
      Traceback (most recent call last):
      ValueError: weights (2, 3) and a Gram matrix (3, 3): give [n, out], of a dense layer, and [n, n]
    """
    if weights.ndim != 2 or gram.shape != (weights.shape[0],) * 2:
        raise ValueError(
            f"weights {weights.shape} and a Gram matrix {gram.shape}: give [n, out], of a dense layer, and [n, n]"
        )
    for name, array in (("weights", weights), ("gram", gram)):
        bad = jnp.sum(~jnp.isfinite(array))
        if not isinstance(bad, Tracer) and bad:
            raise ValueError(f"{int(bad)} of the numbers in {name} are not finite; such inputs measure nothing")


def gram_of(grams: Mapping[str, Array], path: str) -> Array:
    """The Gram matrix of a layer, all groups together.

    Example:
      >>> gram_of({"w": jnp.ones((2, 1, 1))}, "w").tolist()
      [[2.0]]
    """
    if path not in grams:
        raise ValueError(f"grams has no {path}; make it by input_grams with the same prunable")
    gram = jnp.asarray(grams[path])
    return jnp.sum(gram, axis=0) if gram.ndim == 3 else gram
