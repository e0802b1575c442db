"""The derivative of one objective through the minimum of another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.implicit.solves import Solution, Solve
from jaxfair.typing import Array


class Hypergradient(NamedTuple):
    """What `hypergradient` found.

    Attributes:
      value: of the outer objective.
      gradient: by a, through x: the total derivative.
      direct: the part of it that does not go through x.
      solution: of the linear system, with its residual.
    """

    value: Array
    gradient: Any
    direct: Any
    solution: Solution


def hypergradient(
    outer: Callable[[Any, Any], Array], inner: Callable[[Any, Any], Array], x: Any, a: Any, *, solve: Solve
) -> Hypergradient:
    r"""The derivative of an outer objective through the minimum of an inner one.

    .. math:: \frac{d}{da} f(x^*(a), a) = \nabla_a f - \partial_a \nabla_x h \cdot
              [\partial_x^2 h]^{-1} \nabla_x f, \qquad x^*(a) = \arg\min_x h(x, a)

    All of it at the x that is given, which is taken for the minimum: exact there, and an approximation elsewhere. One
    gradient of f, one of h, one product of the solve each, and one for the cross derivative.

    Args:
      outer: f, ``outer(x, a) -> []``.
      inner: h, ``inner(x, a) -> []``.
      x: a tree of floats, (nearly) the minimum of ``inner(., a)``.
      a: a tree of floats.
      solve: of the Hessian's linear system: `conjugate_gradients`, `neumann` or `dense`.

    Returns:
      The :class:`Hypergradient`.

    Example:
      Ridge regression of one number, h = (x - 3)^2 / 2 + a x^2 / 2, has its minimum at 3 / (1 + a), and f = x then has
      the derivative -3 / (1 + a)^2:

      >>> from jaxfair.implicit import conjugate_gradients
      >>> inner = lambda x, a: (x - 3.0) ** 2 / 2 + a * x**2 / 2
      >>> found = hypergradient(lambda x, a: x, inner, jnp.array(1.5), jnp.array(1.0), solve=conjugate_gradients())
      >>> found.gradient.item()
      -0.75
    """
    value, (to_x, direct) = jax.value_and_grad(outer, argnums=(0, 1))(x, a)
    slope = jax.grad(inner)
    _, curvature = jax.linearize(lambda x: slope(x, a), x)
    solution = solve(curvature, to_x)
    _, cross = jax.vjp(lambda a: slope(x, a), a)
    (through,) = cross(solution.value)
    return Hypergradient(value, jax.tree.map(jnp.subtract, direct, through), direct, solution)
