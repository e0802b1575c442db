"""Lagrange multipliers: where they start, and the set they live in."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float


class Multipliers(NamedTuple):
    r"""The dual player's space.

    Attributes:
      num_constraints: K.
      init: ``init() -> [K]`` float32, the multipliers before the first step.
      project: ``project([K]) -> [K]``, onto :math:`\lambda_k \ge 0` for inequalities; equalities are free.

    Example:
      >>> import jax.numpy as jnp
      >>> dense(3).project(jnp.array([-1.0, 0.0, 2.0]))
      Array([0., 0., 2.], dtype=float32)
    """

    num_constraints: int
    init: Callable[[], jax.Array]
    project: Callable[[jax.Array], jax.Array]


def dense(
    num_constraints: int,
    *,
    equality: bool | np.ndarray = False,
    initial: ArrayLike = 0.0,
) -> Multipliers:
    r"""One multiplier per constraint, all of them held in one array.

    Args:
      num_constraints: K. Zero is allowed, and makes the solver a plain optimizer.
      equality: whether the constraints are equalities: one bool for all, or ``[K]`` for a problem with both kinds.
      initial: scalar or ``[K]``: the multipliers before the first step.

    Returns:
      The multipliers' space.

    Raises:
      ValueError: for a negative ``num_constraints``, an ``initial`` of another shape, or one below 0 for an
        inequality.

    Example:
      The first constraint is an inequality and the second an equality:

      >>> import numpy as np, jax.numpy as jnp
      >>> space = dense(2, equality=np.array([False, True]))
      >>> space.project(jnp.array([-1.0, -1.0]))
      Array([ 0., -1.], dtype=float32)

    References:
      Gallego-Posada et al., `Cooper <https://arxiv.org/abs/2504.01212>`_, 2025, where the same object is called
      ``DenseMultiplier``.
    """
    if num_constraints < 0:
        raise ValueError(f"num_constraints={num_constraints}: give 0 or more.")
    free = np.broadcast_to(np.asarray(equality, bool), (num_constraints,))
    start = np.asarray(initial, np.float32)
    if start.shape not in ((), (num_constraints,)):
        raise ValueError(
            f"initial has shape {start.shape}: "
            f"give a scalar or one value for each of the {num_constraints} constraints."
        )
    start = np.broadcast_to(start, (num_constraints,))
    if np.any(start[~free] < 0):
        raise ValueError(
            f"initial={start[~free].min()} for an inequality: its multiplier must be 0 or more."
        )

    def init() -> Float[jax.Array, " K"]:
        return jnp.asarray(start)

    def project(multipliers: Float[jax.Array, " K"]) -> Float[jax.Array, " K"]:
        return jnp.where(jnp.asarray(free), multipliers, jax.nn.relu(multipliers))

    return Multipliers(num_constraints, init, project)
