"""Linear solves of trees without a matrix: ``solve(product, target) -> Solution``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import ArrayLike

from jaxfair.tree import inner_product
from jaxfair.typing import Array

#: A linear function of a tree.
Product = Callable[[Any], Any]


class Solution(NamedTuple):
    """What a linear solve found.

    Attributes:
      value: the tree v with ``product(v) = target``, nearly.
      products: ``[]`` int32, how often the product was taken.
      residual: ``[]`` float32, :math:`|product(v) - target| / |target|`; 0 for a target of 0.
    """

    value: Any
    products: Array
    residual: Array


#: ``solve(product, target) -> Solution``.
Solve = Callable[[Product, Any], Solution]


def conjugate_gradients(
    *, max_iterations: ArrayLike = 50, tolerance: ArrayLike = 1e-6, damping: ArrayLike = 0.0
) -> Solve:
    r"""Solves :math:`(A + \delta I) v = b` for a symmetric A, positive definite with the damping.

    Exact after as many products as A has different eigenvalues. It starts from 0, has no hidden memory, and ends where
    the residual is small, at the last iteration, or at a direction without curvature: a Hessian that is not convex
    gives the best that was reached before, not a step to infinity.

    Args:
      max_iterations: products with A, at most.
      tolerance: of the residual, relative to b.
      damping: :math:`\delta`.

    Returns:
      The solve.

    Example:
      >>> solve = conjugate_gradients()
      >>> found = solve(lambda v: {"x": jnp.array([2.0, 4.0]) * v["x"]}, {"x": jnp.array([1.0, 1.0])})
      >>> found.value["x"].round(4).tolist(), int(found.products)
      ([0.5, 0.25], 2)
    """

    def solve(product: Product, target: Any) -> Solution:
        square = inner_product(target, target)
        enough = jnp.asarray(tolerance, square.dtype) ** 2 * square

        def damped(v):
            return jax.tree.map(lambda a, v: a + jnp.asarray(damping, a.dtype) * v, product(v), v)

        def unfinished(carry):
            _, _, _, residual, k, curved = carry
            return (residual > enough) & (k < max_iterations) & curved

        def iterate(carry):
            v, r, p, residual, k, _ = carry
            q = damped(p)
            curvature = inner_product(p, q)
            curved = ~(curvature <= 0)  # nan goes on once more, into the result: it must stay visible
            a = jnp.where(curved, residual / jnp.where(curved, curvature, 1), 0)
            v = jax.tree.map(lambda v, p: v + a.astype(v.dtype) * p, v, p)
            r = jax.tree.map(lambda r, q: r - a.astype(r.dtype) * q, r, q)
            new = inner_product(r, r)
            b = new / residual
            p = jax.tree.map(lambda r, p: r + b.astype(r.dtype) * p, r, p)
            return v, r, p, new, k + 1, curved

        zero = optax.tree.scale(0.0, target)  # and not zeros: what is not finite must stay visible
        start = zero, target, target, square, jnp.zeros((), jnp.int32), jnp.ones((), bool)
        v, _, _, residual, k, _ = lax.while_loop(unfinished, iterate, start)
        return Solution(v, k, _relative(residual, square))

    return solve


def neumann(*, terms: int = 20, rate: ArrayLike = 1.0) -> Solve:
    r"""The first terms of :math:`A^{-1} b = \alpha \sum_j (I - \alpha A)^j b`, which is n steps of descent.

    It needs no symmetry, but a contraction: :math:`|1 - \alpha \lambda| < 1` for every eigenvalue of A. One term is
    :math:`\alpha b`: A for a multiple of the identity. Its error shrinks by the largest :math:`|1 - \alpha \lambda|` a
    term.

    Args:
      terms: n, at least 1; the products are n - 1, and one for the residual.
      rate: :math:`\alpha`.

    Returns:
      The solve.

    Raises:
      ValueError: for less than one term.

    Example:
      The inverse of 0.5 is 2, and 1 + 1/2 + 1/4 + 1/8 is 1.875:

      >>> neumann(terms=4)(lambda v: 0.5 * v, jnp.array(1.0)).value.item()
      1.875
    """
    if terms < 1:
        raise ValueError(f"terms={terms}: a Neumann series has at least 1 term.")

    def solve(product: Product, target: Any) -> Solution:
        def add(v, _):
            left = jax.tree.map(jnp.subtract, target, product(v))
            return jax.tree.map(lambda v, r: v + jnp.asarray(rate, v.dtype) * r, v, left), None

        first = jax.tree.map(lambda b: jnp.asarray(rate, b.dtype) * b, target)
        v, _ = lax.scan(add, first, length=terms - 1)
        left = jax.tree.map(jnp.subtract, target, product(v))
        return Solution(
            v, jnp.asarray(terms, jnp.int32), _relative(inner_product(left, left), inner_product(target, target))
        )

    return solve


def dense(*, damping: ArrayLike = 0.0) -> Solve:
    r"""The exact solve of :math:`(A + \delta I) v = b` by a matrix: as many products as there are numbers.

    For tests, and for heads of a few hundred parameters.

    Args:
      damping: :math:`\delta`.

    Returns:
      The solve.

    Example:
      >>> turn = lambda v: {"x": -2 * v["y"], "y": 2 * v["x"]}  # not symmetric
      >>> found = dense()(turn, {"x": jnp.array(0.0), "y": jnp.array(1.0)})
      >>> found.value["x"].item(), abs(found.value["y"].item())
      (0.5, 0.0)
    """

    def solve(product: Product, target: Any) -> Solution:
        flat, back = ravel_pytree(target)
        matrix = jax.vmap(lambda v: ravel_pytree(product(back(v)))[0], out_axes=1)(jnp.eye(flat.size, dtype=flat.dtype))
        matrix = matrix + jnp.asarray(damping, flat.dtype) * jnp.eye(flat.size, dtype=flat.dtype)
        v = jnp.linalg.solve(matrix, flat)
        left = flat - matrix @ v
        return Solution(back(v), jnp.asarray(flat.size, jnp.int32), _relative(left @ left, flat @ flat))

    return solve


def _relative(square: Array, of: Array) -> Array:
    """The root of a square, relative to another; 0 of nothing."""
    return jnp.sqrt(square / jnp.where(of == 0, 1, of)).astype(jnp.float32)
