r"""A deep equilibrium layer: in place of layers the fixed point of one, with the derivative that the equation implies.

.. math:: z = f(z, a), \qquad \frac{dz}{da} = (I - f_z)^{-1} f_a

Found by Anderson acceleration and differentiated by the implicit function theorem: memory does not grow with the
evaluations, and neither way needs a map that contracts.

Reference:
  Bai, Kolter and Koltun, `Deep equilibrium models <https://arxiv.org/abs/1909.01377>`_, 2019, by
  Broyden's method.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike

from jaxfair.implicit import Accelerated, Kind, Solve, anderson, anderson_solve, fixed_point


def equilibrium(
    function: Callable[[Any, Any], Any],
    z: Any,
    a: Any,
    *,
    memory: int = 5,
    kind: Kind = 1,
    evaluations: ArrayLike = 50,
    tolerance: ArrayLike = 1e-5,
    solve: Solve | None = None,
) -> Accelerated:
    r"""A deep equilibrium layer: the fixed point z = f(z, a), with its implicit derivative by a.

    Args:
      function: ``function(z, a) -> z``; parameters and input may both stand in a. It need not contract.
      z: where the iteration starts.
      a: a tree of floats.
      memory: points that are mixed.
      kind: the type of the acceleration.
      evaluations: of the function, at most.
      tolerance: it ends where :math:`|f(z) - z| \le` this times :math:`|z|`.
      solve: of the adjoint's linear system; `implicit.anderson_solve` by default.

    Returns:
      The fixed point, through whose ``value`` derivatives flow, its residual and the evaluations. Look at the residual:
      a map without a fixed point within reach is no exception.

    Raises:
      ValueError: for a function that changes structure, shape or dtype; see `implicit.mixing`.

    Example:
      The derivative of z = tanh(z / 2 + a) by a is (1 - z^2) / (1 - (1 - z^2) / 2):

      >>> layer = lambda a: equilibrium(lambda z, a: jnp.tanh(z / 2 + a), jnp.zeros(()), a).value
      >>> z, slope = jax.value_and_grad(layer)(jnp.array(0.5))
      >>> round(float(slope), 4), round(float((1 - z**2) / (1 - (1 - z**2) / 2)), 4)
      (0.7152, 0.7152)
    """
    fixed = jax.tree.map(lax.stop_gradient, a)
    start = jax.tree.map(lambda leaf: lax.stop_gradient(jnp.asarray(leaf)), z)
    found = anderson(
        lambda z: function(z, fixed), start, memory=memory, kind=kind, evaluations=evaluations, tolerance=tolerance
    )
    found = Accelerated(*(jax.tree.map(lax.stop_gradient, part) for part in found))
    solve = anderson_solve() if solve is None else solve
    return found._replace(value=fixed_point(function, found.value, a, max_iterations=0, solve=solve))
