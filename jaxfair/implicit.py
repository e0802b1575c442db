r"""Derivatives of what is defined by an equation: products with the inverse of a Jacobian, and what follows from them.

Where x solves :math:`F(x, a) = 0`, its derivative by a follows from the equation alone, however x was found:

.. math:: \frac{dx}{da} = -\Big(\frac{\partial F}{\partial x}\Big)^{-1} \frac{\partial F}{\partial a}

===========================  =================================  ======================================
x is                         F                                  function
===========================  =================================  ======================================
a minimum of f(x, a)         :math:`\nabla_x f`                 `at_minimum`, `hypergradient`
a fixed point of T(x, a)     :math:`T(x, a) - x`                `fixed_point`
n steps of an iteration      nothing: the steps are followed    `unroll`
===========================  =================================  ======================================

Nobody forms the Jacobian: a *solve* is ``solve(product, target) -> Solution`` for a linear function ``product``, made
by `conjugate_gradients` (symmetric, positive definite: Hessians), `neumann` (whatever contracts) or `dense` (small,
exact). Each is a loop inside the compiled program: it jits and vmaps.

Of the linear solves of JAX (`jax.scipy.sparse.linalg.cg`) and lineax these differ in what a minibatch needs: they count
their products, their scalars are float32 whatever the leaves are, and a nan ends a lane and costs the others nothing.

References:
  Lorraine, Vicol, Duvenaud, `Optimizing millions of hyperparameters by implicit differentiation
  <https://arxiv.org/abs/1911.02590>`_, 2020 (Neumann). Pedregosa, `Hyperparameter optimization with approximate
  gradient <https://arxiv.org/abs/1602.02355>`_, 2016 (CG). Blondel et al., `Efficient and modular implicit differentiation
  <https://arxiv.org/abs/2105.15183>`_, 2022.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
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
        flat, back = jax.flatten_util.ravel_pytree(target)
        matrix = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(product(back(v)))[0], out_axes=1)(
            jnp.eye(flat.size, dtype=flat.dtype)
        )
        matrix = matrix + jnp.asarray(damping, flat.dtype) * jnp.eye(flat.size, dtype=flat.dtype)
        v = jnp.linalg.solve(matrix, flat)
        left = flat - matrix @ v
        return Solution(back(v), jnp.asarray(flat.size, jnp.int32), _relative(left @ left, flat @ flat))

    return solve


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


def unroll(step: Callable[[Any, Any], Any], x: Any, a: Any, *, length: int, segments: int | None = None) -> Any:
    r"""N steps of an iteration, to be differentiated step by step with the memory of :math:`2 \sqrt n`.

    The states at the ends of the segments are kept, and a segment is computed again on the way back: one more forward
    pass for the memory of a square root.

    Args:
      step: ``step(x, a) -> x``.
      x: where it starts.
      a: a tree, the same at each step.
      length: n.
      segments: into how many the steps are cut; about :math:`\sqrt n` by default. n where a step is kept by itself.

    Returns:
      The last x.

    Raises:
      ValueError: for segments outside of 1 to n.

    Example:
      >>> decay = lambda x, a: a * x
      >>> jax.grad(lambda a: unroll(decay, jnp.array(1.0), a, length=3))(jnp.array(2.0)).item()
      12.0
    """
    parts = max(round(length**0.5), 1) if segments is None else segments
    if length and not 1 <= parts <= length:
        raise ValueError(f"segments={segments}: cut {length} steps into at least 1 segment and at most {length}.")
    if not length:
        return x
    each, more = divmod(length, parts)

    def run(x: Any, steps: int) -> Any:
        return lax.scan(lambda x, _: (step(x, a), None), x, length=steps)[0]

    def segment(x: Any, _: Any) -> tuple[Any, None]:
        return jax.checkpoint(lambda x: run(x, each), prevent_cse=False)(x), None

    x, _ = lax.scan(segment, x, length=parts)
    return jax.checkpoint(lambda x: run(x, more), prevent_cse=False)(x) if more else x


def _implied(equation: Callable[[Any, Any], Any], solve: Solve, x: Any, a: Any) -> Any:
    """X with the derivative by a of a root of the equation; closed over values of both are constants."""
    found = jax.tree.map(lax.stop_gradient, x)

    @jax.custom_vjp
    def root(x, a):
        del a
        return x

    def forward(x, a):
        return x, (x, a)

    def backward(kept, cotangent):
        x, a = kept
        _, pull_x = jax.vjp(lambda x: equation(x, a), x)
        u = solve(lambda v: pull_x(v)[0], cotangent).value
        _, pull_a = jax.vjp(lambda a: equation(x, a), a)
        (through,) = pull_a(u)
        return optax.tree.zeros_like(x), jax.tree.map(jnp.negative, through)

    root.defvjp(forward, backward)
    return root(found, a)


def _relative(square: Array, of: Array) -> Array:
    """The root of a square, relative to another; 0 of nothing."""
    return jnp.sqrt(square / jnp.where(of == 0, 1, of)).astype(jnp.float32)
