r"""The moves of sparse least squares: none forms a Hessian, and each can be judged by the objective.

.. math:: F(w) = \tfrac12 \|A (\bar w - w)\|^2 - a \, 1^\top A (\bar w - w) + \lambda \|w - \bar w\|^2

in some of A's columns, all other weights being zero. With the residual :math:`r = A (\bar w - w)` its gradient is
:math:`-A^\top (r - a 1) + 2 \lambda (w - \bar w)`. `jaxfair.sparsity.chita` says what they are for.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Float

from jaxfair.sparsity.top_k import top_k
from jaxfair.typing import Array

#: How often a step that changes the support is doubled: while it falls, and where the vertex lies before it.
DOUBLINGS, LAST_DOUBLINGS = 5, 10


def require_positive(**named: Any) -> None:
    """Raises for a number that is not above 0; a traced one cannot be looked at.

    Example:
      >>> require_positive(ridge=-1.0)
      Traceback (most recent call last):
      ValueError: ridge must be above 0, but it is -1.0; 1e-4 is a common choice
    """
    for name, value in named.items():
        if not isinstance(value, Tracer) and not value > 0:
            hint = "; 1e-4 is a common choice" if name == "ridge" else ""
            raise ValueError(f"{name} must be above 0, but it is {value}{hint}")


def require_rows(gradients: Array, weights: Array) -> None:
    """Raises for gradients that are not a row for each example and a column for each weight, or not finite.

    Example:
      >>> require_rows(jnp.ones((3, 2)), jnp.ones(4))
      Traceback (most recent call last):
      ValueError: gradients are (examples, 4), a column for each weight, but they have the shape (3, 2)
    """
    if jnp.ndim(gradients) != 2 or not len(gradients) or gradients.shape[1] != len(weights):
        raise ValueError(
            f"gradients are (examples, {len(weights)}), a column for each weight, but they have the shape "
            f"{jnp.shape(gradients)}"
        )
    for name, array in (("gradients", gradients), ("weights", weights)):
        bad = jnp.sum(~jnp.isfinite(array))
        if not isinstance(bad, Tracer) and bad:
            raise ValueError(f"{int(bad)} of the {name} are not finite; such weights cannot be ranked")


def at_least_float32(array: Array) -> Array:
    """Linear systems are not solved in half precision.

    Example:
      >>> at_least_float32(jnp.ones(1, jnp.bfloat16)).dtype
      dtype('float32')
    """
    return array.astype(np.promote_types(array.dtype, np.float32))


class Columns(NamedTuple):
    """The problem in m of the p columns.

    Attributes:
      rows: ``[m, n]``, the columns of A, each of them contiguous.
      squares: ``[m]``, their squared norms.
      scale: ``[m]``, the units in which weights are thresholded: w times scale.
      dense: ``[m]``, w bar.
      base: ``[n]``, the residual where w is w bar on these columns and zero elsewhere.
      tail: ``[]``, what the zeros elsewhere cost in the penalty.
      penalty: ``[]``, lambda.
      shift: ``[]``, a.
      step: ``[]``, 1 / L, in those units.
    """

    rows: Array
    squares: Array
    scale: Array
    dense: Array
    base: Array
    tail: Array
    penalty: Array
    shift: Array
    step: Array


def columns_of(rows: Array, scale: Array, dense: Array, base: Array, tail: Any, penalty: Any, shift: Any) -> Columns:
    """The `Columns`, with norms and step size; L is 1.05 of the largest curvature.

    Example:
      >>> one, zero = jnp.ones(2), jnp.zeros(())
      >>> c = columns_of(jnp.eye(2), one, one, jnp.zeros(2), zero, jnp.array(0.5), zero)
      >>> c.squares.tolist(), round(1 / c.step.item(), 3)
      ([1.0, 1.0], 2.1)
    """
    squares = jnp.sum(rows * rows, axis=1)
    largest = _largest_curvature(rows, squares, scale, penalty)
    return Columns(rows, squares, scale, dense, base, tail, penalty, shift, 1 / (1.05 * largest))


def measure(c: Columns, w: Array) -> tuple[Array, Array]:
    """The residual and the objective.

    Example:
      >>> one, zero = jnp.ones(2), jnp.zeros(())
      >>> c = columns_of(jnp.eye(2), one, one, jnp.zeros(2), zero, jnp.array(0.5), zero)
      >>> jax.tree.map(lambda a: a.tolist(), measure(c, jnp.array([1.0, 0.0])))
      ([0.0, 1.0], 1.0)
    """
    moved = w - c.dense
    residual = c.base - moved @ c.rows
    linear = -c.shift * jnp.sum(residual)
    return residual, residual @ residual / 2 + linear + c.penalty * (moved @ moved) + c.tail


def vertex(slope: Array, direction: Array, image: Array, penalty: Array) -> tuple[Array, Array]:
    """Where the parabola along minus a direction is lowest, and by how much.

    ``slope`` is the gradient, ``image`` is A times the direction.

    Example:
      >>> two = jnp.array([2.0])
      >>> [round(a.item(), 3) for a in vertex(two, two, jnp.array([4.0]), jnp.array(1.0))]
      [0.167, 0.333]
    """
    falls = slope @ direction
    curvature = image @ image + 2 * penalty * (direction @ direction)
    tau = jnp.where(falls > 0, falls / jnp.where(falls > 0, curvature, 1), 0)
    return tau, tau * falls / 2


def threshold(c: Columns, w: Array, mask: Array, keep: Any, tolerance: float) -> Any:
    """One step of hard thresholding with its line search; returns weights and mask.

    Example:
      The dead weight is the larger one:

      >>> one, zero = jnp.ones(2), jnp.zeros(())
      >>> c = columns_of(jnp.eye(2), one, jnp.array([1.0, 2.0]), jnp.zeros(2), zero, jnp.array(1e-3), zero)
      >>> threshold(c, jnp.array([1.0, 0.0]), jnp.array([True, False]), 1, 1e-6)[1].tolist()
      [False, True]
    """
    residual, value = measure(c, w)
    slope = 2 * c.penalty * (w - c.dense) - c.rows @ (residual - c.shift)
    # In the units of the scale the weights are w s, and their gradient is slope / s.
    direction = slope / c.scale**2
    inside = jnp.where(mask, direction, 0)
    lowest, gain = vertex(slope, inside, inside @ c.rows, c.penalty)
    change = _first_change(w * c.scale, mask, slope / c.scale)
    within = lowest < change

    def double(carry):
        tau, j, last, _, best, w_best, mask_best = carry
        moved = w - tau * direction
        new = top_k(jnp.abs(moved * c.scale), keep)
        moved = jnp.where(new, moved, 0)
        reached = measure(c, moved)[1]
        better = reached < best
        w_best, mask_best = jnp.where(better, moved, w_best), jnp.where(better, new, mask_best)
        best = jnp.where(better, reached, best)
        return 2 * tau, j + 1, reached, reached < last, best, w_best, mask_best

    def change_support():
        # Where the vertex would end the search, all steps are tried, falling or not.
        most = jnp.where(within, LAST_DOUBLINGS, DOUBLINGS)
        begin = jnp.maximum(jnp.where(jnp.isfinite(change), change, 0), c.step)
        start = (begin, jnp.int32(0), value, jnp.array(True), value, w, mask)
        return lax.while_loop(lambda s: (s[1] <= most) & (s[3] | within), double, start)[-2:]

    by_vertex = within & (gain > tolerance * jnp.abs(value))
    return lax.cond(by_vertex, lambda: (w - lowest * inside, mask), change_support)


def descend(c: Columns, w: Array, mask: Array, places: Array) -> Array:
    """One cyclic pass over the support, each weight at its optimum given the others.

    ``places`` begins with the support's.

    Example:
      >>> one, zero, rows = jnp.ones(2), jnp.zeros(()), jnp.array([[1.0], [2.0]])
      >>> c = columns_of(rows, one, one, jnp.zeros(1), zero, jnp.array(1e-6), zero)
      >>> descend(c, jnp.array([0.0, 1.0]), jnp.array([False, True]), jnp.array([1])).round(2).tolist()
      [0.0, 1.5]
    """

    def one(i, carry):
        w, shifted = carry
        j = places[i]
        row, square = c.rows[j], c.squares[j]
        pull = row @ shifted + square * w[j] + 2 * c.penalty * c.dense[j]
        best = pull / (square + 2 * c.penalty)
        return w.at[j].set(best), shifted - (best - w[j]) * row

    shifted = measure(c, w)[0] - c.shift
    return lax.fori_loop(0, jnp.sum(mask, dtype=jnp.int32), one, (w, shifted))[0]


def back_solve(c: Columns, mask: Array, places: Array | None) -> Array:
    """The best values on the support: the displacement as a ridge regression of what the dead weights did.

    ``places`` are those of the support where their number is known, and else None.

    Example:
      >>> one, zero, rows = jnp.ones(2), jnp.zeros(()), jnp.array([[1.0], [2.0]])
      >>> c = columns_of(rows, one, one, jnp.zeros(1), zero, jnp.array(1e-6), zero)
      >>> back_solve(c, jnp.array([False, True]), None).round(2).tolist()
      [0.0, 1.5]
    """
    rows = jnp.where(mask[:, None], c.rows, 0) if places is None else c.rows[places]
    target = c.base + jnp.where(mask, 0, c.dense) @ c.rows - c.shift
    moved = ridge_regression(rows, target, 2 * c.penalty)
    if places is None:
        return jnp.where(mask, c.dense + moved, 0)
    return jnp.zeros_like(c.dense).at[places].set(c.dense[places] + moved)


def ridge_regression(
    rows: Float[Array, "k n"], target: Float[Array, "n"], penalty: Float[Array, ""]
) -> Float[Array, "k"]:
    """``argmin_d |d' rows - target|^2 + penalty |d|^2``, by the smaller of its two systems.

    Args:
      rows: ``[k, n]``. A row of zeros gets a zero.
      target: ``[n]``.
      penalty: ``[]``, above 0.

    Returns:
      ``[k]``: with R the rows, ``(R R' + penalty)^{-1} R target`` where ``k <= n``, and else the same number as
      ``R (R' R + penalty)^{-1} target``. Not a number where the dtype cannot tell the system from a singular one.

    Example:
      >>> rows = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> ridge_regression(rows, jnp.array([10.0, 2.0]), jnp.array(1.0)).round(2).tolist()
      [3.0, 1.0]
    """
    k, n = rows.shape
    gram = rows @ rows.T if k <= n else rows.T @ rows
    factor = jax.scipy.linalg.cho_factor(gram + penalty * jnp.eye(min(k, n), dtype=gram.dtype))
    if k <= n:
        return jax.scipy.linalg.cho_solve(factor, rows @ target)
    return rows @ jax.scipy.linalg.cho_solve(factor, target)


def _first_change(w: Array, mask: Array, slope: Array) -> Array:
    """The first tau at which an entry inside ``w - tau slope`` is no larger than one outside."""
    outside = jnp.max(jnp.where(mask, 0, jnp.abs(slope)), initial=0)
    speed = outside + jnp.where(w == 0, -jnp.abs(slope), jnp.sign(w) * slope)
    tau = jnp.where(speed > 0, jnp.abs(w) / jnp.where(speed > 0, speed, 1), jnp.inf)
    return jnp.min(jnp.where(mask, tau, jnp.inf), initial=jnp.inf)


def _largest_curvature(rows: Array, squares: Array, scale: Array, penalty: Any, rounds: int = 10) -> Array:
    """The largest eigenvalue of the Hessian in the units of the scale, by power iteration.

    From below, to a few percent: no step is taken on its word. It begins at the column of the largest curvature,
    which has a share in it.
    """

    def once(_, v):
        u = v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny) / scale
        return (rows @ (u @ rows) + 2 * penalty * u) / scale

    largest = jnp.argmax(squares / scale**2)
    start = jnp.zeros_like(scale).at[largest].set(1)
    return jnp.linalg.norm(lax.fori_loop(0, rounds, once, start))
