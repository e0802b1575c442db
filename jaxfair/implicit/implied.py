"""Minima and fixed points with the derivative that their equation implies, for whatever is made of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import ArrayLike

from jaxfair.implicit.solves import Solve, neumann
from jaxfair.tree import inner_product
from jaxfair.typing import Array


def at_minimum(objective: Callable[[Any, Any], Array], x: Any, a: Any, *, solve: Solve) -> Any:
    r"""Says that x minimises ``objective(., a)``: the same x, with the derivative that follows from it.

    The other way round of `hypergradient`: whatever is made of the result can be differentiated by `a`, to first order.

    Args:
      objective: ``objective(x, a) -> []``.
      x: a tree of floats, the minimum, however it was found; nothing flows back into that.
      a: a tree of floats.
      solve: of the Hessian's linear system.

    Returns:
      x.

    Example:
      >>> from jaxfair.implicit import conjugate_gradients
      >>> objective = lambda x, a: (x - a) ** 2
      >>> find = lambda a: at_minimum(objective, jax.lax.stop_gradient(a), a, solve=conjugate_gradients())
      >>> jax.grad(lambda a: find(a) ** 2)(jnp.array(3.0)).item()
      6.0
    """
    return _implied(jax.grad(objective), solve, x, a)


def fixed_point(
    function: Callable[[Any, Any], Any],
    x: Any,
    a: Any,
    *,
    max_iterations: ArrayLike = 100,
    tolerance: ArrayLike = 1e-6,
    solve: Solve | None = None,
) -> Any:
    r"""The fixed point :math:`x = T(x, a)` of a contraction, by iteration, with the derivative that it implies.

    .. math:: \frac{dx}{da} = \Big(I - \frac{\partial T}{\partial x}\Big)^{-1} \frac{\partial T}{\partial a}

    The memory does not grow with the iterations.

    Args:
      function: T, ``function(x, a)``, of the structure of x.
      x: where the iteration starts.
      a: a tree of floats.
      max_iterations: of T.
      tolerance: it ends where :math:`|T(x) - x| \le` this times :math:`|x|`.
      solve: of the linear system of the derivative, which is not symmetric; by default `neumann` with 100 terms, the
        iteration itself, transposed.

    Returns:
      The tree.

    Example:
      Newton's iteration for the root of a, whose derivative is 1 / (2 sqrt(a)):

      >>> root = lambda a: fixed_point(lambda x, a: (x + a / x) / 2, jnp.array(1.0), a)
      >>> round(root(jnp.array(4.0)).item(), 4), round(jax.grad(root)(jnp.array(4.0)).item(), 4)
      (2.0, 0.25)
    """

    def unfinished(carry):
        x, moved, k = carry
        return (moved > jnp.asarray(tolerance, moved.dtype) ** 2 * inner_product(x, x)) & (k < max_iterations)

    def iterate(carry):
        x, _, k = carry
        new = function(x, a)
        step = jax.tree.map(jnp.subtract, new, x)
        return new, inner_product(step, step), k + 1

    infinite = jnp.full((), jnp.inf, inner_product(x, x).dtype)
    found, _, _ = lax.while_loop(unfinished, iterate, (lax.stop_gradient(x), infinite, jnp.zeros((), jnp.int32)))

    def left(x, a):
        return jax.tree.map(jnp.subtract, x, function(x, a))

    return _implied(left, neumann(terms=100) if solve is None else solve, found, a)


def _implied(equation: Callable[[Any, Any], Any], solve: Solve, x: Any, a: Any) -> Any:
    """X with the derivative of a root of the equation, by a and by whatever the equation closes over."""
    found = jax.tree.map(lax.stop_gradient, x)
    closed, more = jax.closure_convert(equation, found, a)

    @jax.custom_vjp
    def root(x, a, more):
        del a, more
        return x

    def forward(x, a, more):
        return x, (x, a, more)

    def backward(kept, cotangent):
        x, a, more = kept
        _, pull_x = jax.vjp(lambda x: closed(x, a, *more), x)
        u = solve(lambda v: pull_x(v)[0], cotangent).value
        _, pull_a = jax.vjp(lambda a, more: closed(x, a, *more), a, more)
        return optax.tree.zeros_like(x), *jax.tree.map(jnp.negative, pull_a(u))

    root.defvjp(forward, backward)
    return root(found, a, more)
