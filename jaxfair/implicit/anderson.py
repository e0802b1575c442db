r"""Fixed points and linear systems by Anderson acceleration (`mixing`), one loop inside the compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import ArrayLike

from jaxfair.implicit.mixing import Kind, MixingState, mixing, unfinished
from jaxfair.implicit.solves import Product, Solution, Solve
from jaxfair.tree import inner_product
from jaxfair.typing import Array


class Accelerated(NamedTuple):
    """What `anderson` found.

    Attributes:
      value: the tree, the best point that was evaluated.
      residual: ``[]``, :math:`|x - F(x)|` there; inf where no image was finite.
      evaluations: ``[]`` int32, of F.
    """

    value: Any
    residual: Array
    evaluations: Array


def anderson(
    function: Callable[[Any], Any],
    x: Any,
    *,
    memory: int = 10,
    kind: Kind = 1,
    ridge: ArrayLike = 0.0,
    evaluations: ArrayLike = 100,
    tolerance: ArrayLike = 0.0,
) -> Accelerated:
    r"""A fixed point x = F(x) by Anderson acceleration, one loop inside the compiled program.

    Under `vmap` each lane is what it is alone; one that runs off stays in its lane.

    Args:
      function: F, of the structure, shapes and dtypes of x. It need not contract.
      x: a tree of floats, where the iteration starts.
      memory: m, how many points are mixed; 1 is the plain iteration.
      kind: 1 or 2, the type, or "truncated".
      ridge: see `mixing`.
      evaluations: of F, at most; may be traced.
      tolerance: it ends where :math:`|x - F(x)| \le` this times :math:`|x|`; by default after all evaluations.

    Returns:
      The best point with its residual: look at it, the iteration need not have converged.

    Raises:
      ValueError: see `mixing`.

    Example:
      The root of x = cos(x) from six evaluations, by the secant method, and from as many of the plain iteration:

      >>> found = anderson(jnp.cos, jnp.array(1.0), memory=2, evaluations=6)
      >>> plain = anderson(jnp.cos, jnp.array(1.0), memory=1, evaluations=6)
      >>> round(found.value.item(), 4), round(plain.value.item(), 4)
      (0.7391, 0.7014)
    """
    mix = mixing(memory=memory, kind=kind, ridge=ridge)

    state = lax.while_loop(
        unfinished(evaluations, tolerance), lambda state: mix.update(state, function(state.x)), mix.init(x)
    )
    return Accelerated(state.best, state.residual, state.evaluations)


def anderson_solve(
    *, memory: int = 20, kind: Kind = 2, max_iterations: ArrayLike = 50, tolerance: ArrayLike = 1e-6
) -> Solve:
    r"""Solves :math:`A v = b` for whatever A by Anderson acceleration of :math:`v \leftarrow v - (A v - b)`.

    For systems that are not symmetric and do not contract, where neither `conjugate_gradients` nor `neumann` will do:
    type II is GMRES, restarted softly where the memory ends.

    Args:
      memory: m; as many trees are kept, twice.
      kind: the type.
      max_iterations: products with A, at most.
      tolerance: of the residual, relative to b.

    Returns:
      The solve.

    Raises:
      ValueError: see `mixing`.

    Example:
      >>> turn = lambda v: jnp.array([[0.0, 3.0], [-3.0, 0.0]]) @ v
      >>> found = anderson_solve()(turn, jnp.array([3.0, 6.0]))
      >>> found.value.round(4).tolist()
      [-2.0, 1.0]
    """
    mix = mixing(memory=memory, kind=kind)

    def solve(product: Product, target: Any) -> Solution:
        norm = jnp.sqrt(inner_product(target, target))
        enough = jnp.asarray(tolerance, norm.dtype) * norm

        def unfinished(state: MixingState) -> Array:
            return (state.evaluations < max_iterations) & ~(state.residual <= enough)

        def iterate(state: MixingState) -> MixingState:
            return mix.update(state, jax.tree.map(lambda v, p, b: v - (p - b), state.x, product(state.x), target))

        state = lax.while_loop(unfinished, iterate, mix.init(optax.tree.zeros_like(target)))
        relative = jnp.where(norm == 0, 0, state.residual / jnp.where(norm == 0, 1, norm))
        return Solution(state.best, state.evaluations, relative.astype(jnp.float32))

    return solve
