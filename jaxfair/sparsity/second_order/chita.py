r"""CHITA: one-shot pruning as a sparse least-squares problem, without ever forming a Hessian.

With the gradients of n examples as the rows of A, the dense weights :math:`\bar w` and the second-order model of the
loss around them, keep k weights and choose their values:

.. math::
    \min_{\|w\|_0 \le k} \; \tfrac12 \|A (\bar w - w)\|^2 + \lambda \|w - \bar w\|^2 + \alpha^\top (w - \bar w),
    \qquad \lambda = \tfrac{n}{2} \text{ridge}, \quad \alpha = a \, A^\top 1

which is n times the predicted rise of the loss, 0 at :math:`\bar w`. (With rows that are means of b examples and
a = 1 / b it is n / b times, and the ridge b times as strong.) As :math:`\alpha` is a sum of rows, the linear term
only shifts the residual: with :math:`r = A (\bar w - w)` the gradient is :math:`-A^\top (r - a 1) + 2 \lambda
(w - \bar w)`, and a support's best values are a ridge regression. Everything costs O(n p) time and memory.

.. code-block:: text

    w = P_k(w_bar - tau alpha), tau exact                 magnitude pruning where a = 0
    repeat, within an active set of columns
      hard thresholding   w = P_k(w - tau gradient):
        on a fixed support the objective is a parabola in tau. Take its vertex, if that lies before the first tau
        at which the support changes; else begin there (or at 1 / L, if larger) and double while it falls
      descent             one cyclic pass over the support, each weight at its optimum
      back-solve          all of the support at its optimum, once the two stall: a k x k or an n x n system
      new active set      the support and the columns with the largest gradient

=============  ===========  ======================================
paper          here         meaning
=============  ===========  ======================================
A              gradients    [n, p], from `example_gradients`
w bar          weights      [p], dense
k              keep         how many live
lambda_2       penalty      ridge n / 2
alpha          first_order  the factor a: 1 / (examples a row), or 0
=============  ===========  ======================================

How this differs from the authors' code: every step is checked, so that the objective never rises; the active set has
a fixed size and is filled by gradient, where theirs grows; step sizes that change the support are also tried where the
vertex would stop the search; the back-solve is for the displacement :math:`w - \bar w`, which stays accurate in
float32 for a small ridge, where the usual Woodbury formula subtracts two large numbers.

References:
  Benbaki, Chen, Meng, Hazimeh, Ponomareva, Zhao and Mazumder, *Fast as CHITA: neural network pruning with
  combinatorial optimization*, 2023, https://arxiv.org/abs/2302.14623.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import ArrayLike, Float, Int

from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity.second_order import _least_squares as moves
from jaxfair.sparsity.second_order.example_gradients import (
    flatten_prunable,
    unflatten_masks,
    unflatten_prunable,
)
from jaxfair.sparsity.top_k import top_k
from jaxfair.typing import Array, Params

#: Thresholding and descent stall where the objective falls by less, relatively; the back-solve does the rest at once.
STALL = 1e-2


class ChitaResult(NamedTuple):
    """What `chita_solve` found.

    Attributes:
      weights: ``[p]``, exactly zero where the mask is False.
      mask: ``[p]`` bool, True = kept; exactly k.
      objective: ``[]``, as above: n / b times the predicted rise of the loss, below 0 only with a first-order term.
      iterations: ``[]`` int32, passes of thresholding and descent, and back-solves.
      trace: ``[max_iterations + 1]``, the objective at the start and after each of them. It never rises; its last
        value is repeated to the end.
    """

    weights: Array
    mask: Array
    objective: Array
    iterations: Array
    trace: Array


def chita_solve(
    gradients: Float[Array, "n p"],
    weights: Float[Array, "p"],
    keep: Int[Any, ""] | int,
    *,
    ridge: ArrayLike = 1e-4,
    first_order: ArrayLike = 0.0,
    scaled: bool = False,
    active: int | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-6,
) -> ChitaResult:
    """The k weights to keep, and their values.

    Args:
      gradients: ``[n, p]``, a gradient per row.
      weights: ``[p]``, dense.
      keep: k. As an integer it makes the active set and the back-solve small; traced, one program serves all k.
      ridge: at least so much curvature in every direction, above 0.
      first_order: a: 1 / (examples a row) where the network is not at its minimum; 0 leaves the linear term out.
      scaled: threshold weights in units of the root of their own curvature, ``|a_j|^2 + 2 lambda``, where the paper
        compares bare weights. The problem stays the same. On random columns of different size it finds much better
        supports, on a small trained network worse ones: try both.
      active: the number of columns that are searched at once, at least k; by default 1.5 k, and all p for a traced k.
      max_iterations: the most iterations, over all active sets.
      tolerance: stop where the objective falls by less, relatively.

    Returns:
      `ChitaResult`.

    Raises:
      ValueError: a ridge or a number of iterations that is not above 0, or an active set that is or may be smaller
        than k.

    Example:
      Both weights pull the output the same way. The larger one is kept, and takes over what the other did:

      >>> A = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> found = chita_solve(A, jnp.array([0.5, 1.0]), 1)
      >>> found.mask.tolist(), found.weights.round(2).tolist()
      ([False, True], [0.0, 1.5])
    """
    moves.require_positive(ridge=ridge, max_iterations=max_iterations)
    moves.require_rows(gradients, weights)
    gradients = moves.at_least_float32(gradients)
    n, p = gradients.shape
    dtype = gradients.dtype
    dense = weights.astype(dtype)
    stall = max(STALL, tolerance)
    k, size = _sizes(keep, active, p)
    places = None if isinstance(k, Tracer) or k == 0 else k  # of none, there are no places
    penalty = jnp.asarray(ridge, dtype) * n / 2
    shift = jnp.asarray(first_order, dtype)
    scale = jnp.ones_like(dense)
    if scaled:
        scale = jnp.sqrt(jnp.sum(gradients * gradients, axis=0) + 2 * penalty)

    def restricted(columns):
        rows = (gradients[:, columns] if size < p else gradients).T
        rest = dense.at[columns].set(0)
        tail = penalty * (rest @ rest)
        base = gradients @ rest
        return moves.columns_of(rows, scale[columns], dense[columns], base, tail, penalty, shift)

    def best_columns(w, mask):
        if size == p:
            return jnp.arange(p)
        gradient = 2 * penalty * (w - dense) - (gradients @ (dense - w) - shift) @ gradients
        chosen = top_k(jnp.where(mask, jnp.inf, jnp.abs(gradient) / scale), size)
        return jnp.nonzero(chosen, size=size)[0]

    def places_of(mask):
        return jnp.nonzero(mask, size=places or size)[0]

    def one_active_set(carry):
        w, mask, began, trace, began_count, _ = carry
        columns = best_columns(w, mask)
        c = restricted(columns)

        def iterate(carry):
            w, mask, value, trace, count, _ = carry
            moved, new = moves.threshold(c, w, mask, k, stall)
            moved = moves.descend(c, moved, new, places_of(new))
            reached = moves.measure(c, moved)[1]
            better = reached < value
            w, mask = jnp.where(better, moved, w), jnp.where(better, new, mask)
            going = value - reached > stall * jnp.abs(value)
            value = jnp.minimum(value, reached)
            return w, mask, value, trace.at[count + 1].set(value), count + 1, going

        w, mask, value, trace, count, _ = lax.while_loop(
            lambda s: s[-1] & (s[-2] < max_iterations - 1),
            iterate,
            (w[columns], mask[columns], began, trace, began_count, jnp.array(True)),
        )

        def polish(w, value):
            solved = moves.back_solve(c, mask, places_of(mask) if places else None)
            reached = moves.measure(c, solved)[1]  # not a number where the system was singular
            return jnp.where(reached < value, solved, w), jnp.fmin(reached, value)

        # After the first time, a search that found nothing is at the optimum of its support already.
        new = (began_count == 0) | (began - value > tolerance * jnp.abs(began))
        w, value = lax.cond(new, polish, lambda w, value: (w, value), w, value)
        count = count + 1
        w, mask = (jnp.zeros(p, a.dtype).at[columns].set(a) for a in (w, mask))
        going = (began - value > tolerance * jnp.abs(began)) & (count < max_iterations)
        return w, mask, value, trace.at[count].set(value), count, going

    start, mask, value = _start(gradients, dense, k, scale, penalty, shift)
    trace = jnp.full(max_iterations + 1, value)
    state = (start, mask, value, trace, jnp.int32(0), jnp.array(True))
    w, mask, value, trace, count, _ = lax.while_loop(lambda s: s[-1], one_active_set, state)
    trace = jnp.where(jnp.arange(max_iterations + 1) <= count, trace, value)
    return ChitaResult(w, mask, value, count, trace)


def _sizes(keep: Any, active: int | None, p: int) -> tuple[Any, int]:
    """How many weights live, an integer within p or traced, and how many columns are searched at once."""
    if isinstance(keep, Tracer):
        if active is not None and active < p:
            raise ValueError(
                f"active={active}: with a traced keep all {p} weights are searched; give keep as an integer"
            )
        return keep, p
    keep = max(0, min(operator.index(keep), p))
    active = math.ceil(1.5 * keep) if active is None else active
    if active < keep:
        raise ValueError(f"active={active} is smaller than keep={keep}; give at least as many")
    return keep, max(1, min(active, p))


def _start(
    gradients: Array, dense: Array, keep: Any, scale: Array, penalty: Array, shift: Array
) -> tuple[Array, Array, Array]:
    """From the dense weights, one step along the linear term; without it (and without scale), magnitude pruning."""
    alpha = shift * jnp.sum(gradients, axis=0)
    downhill = alpha / scale**2
    start = dense - moves.vertex(alpha, downhill, gradients @ downhill, penalty)[0] * downhill
    mask = top_k(jnp.abs(start * scale), keep)
    start = jnp.where(mask, start, 0)
    residual = gradients @ (dense - start)
    value = residual @ residual / 2 - shift * jnp.sum(residual)
    return start, mask, value + penalty * jnp.sum((start - dense) ** 2)


@functools.partial(jax.jit, static_argnames=("keep", "scaled", "max_iterations", "tolerance"))
def _compiled(gradients: Array, weights: Array, **settings: Any) -> ChitaResult:
    return chita_solve(gradients, weights, **settings)


def chita(
    params: Params,
    gradients: Float[Array, "n p"],
    sparsity: Any,
    *,
    prunable: Callable[[str], bool],
    ridge: ArrayLike = 1e-4,
    first_order: ArrayLike = 0.0,
    scaled: bool = False,
    max_iterations: int = 200,
    tolerance: float = 1e-6,
) -> tuple[Params, Any, ChitaResult]:
    """Prunes a network at once, all prunable leaves together, and corrects the weights that stay.

    Networks with BatchNorm want their statistics estimated again afterwards.

    Args:
      params: the tree of parameters.
      gradients: ``[n, p]``, `example_gradients` with the same `prunable`.
      sparsity: the share to prune, in ``[0, 1)``: ``ceil(sparsity p)`` weights.
      prunable: which leaves may be pruned, from a path such as ``"Conv_0/kernel"``.
      ridge: see `chita_solve`, as are the others.
      first_order: 1 / (examples a row), or 0.
      scaled: threshold in units of curvature.
      max_iterations: the most iterations.
      tolerance: stop where the objective falls by less, relatively.

    Returns:
      The parameters, their tree of masks (True = kept; the scalar True for a leaf that is not prunable), and the
      `ChitaResult` of the vector.

    Raises:
      ValueError: a sparsity outside ``[0, 1)``, no prunable leaf, gradients of another width, or as `chita_solve`.

    Example:
      >>> A = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> params = {"bias": jnp.ones(1), "kernel": jnp.array([0.5, 1.0])}
      >>> params, masks, found = chita(params, A, 0.5, prunable=lambda path: path == "kernel")
      >>> params["kernel"].round(2).tolist(), masks["kernel"].tolist()
      ([0.0, 1.5], [False, True])
    """
    weights = flatten_prunable(params, prunable=prunable)
    size = len(weights)
    if jnp.ndim(gradients) == 2 and gradients.shape[1] != size:
        raise ValueError(
            f"the prunable leaves have {size} weights, but gradients has {gradients.shape[1]} columns; "
            "make it by example_gradients with the same prunable"
        )
    moves.require_positive(ridge=ridge, max_iterations=max_iterations)
    moves.require_rows(gradients, weights)
    keep = size - counts.num_zeros(sparsity, size)
    limits = {"max_iterations": max_iterations, "tolerance": tolerance}
    problem = {"ridge": ridge, "first_order": first_order, "scaled": scaled}
    found = _compiled(gradients, weights, keep=keep, **problem, **limits)
    pruned = unflatten_prunable(found.weights, params, prunable=prunable)
    return pruned, unflatten_masks(found.mask, params, prunable=prunable), found
