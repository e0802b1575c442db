r"""How well designs keep to the subspace that the data lie in.

For data :math:`x = A z` the part of a design outside is :math:`x_\perp = x - P_A x`, and two subspaces differ by
:math:`\|P_V - P_A\|_F^2`, which is 0 where they are the same, and twice the smaller dimension at most where the
dimensions are equal.

Source: Yuan et al., `Reward-directed conditional diffusion <https://arxiv.org/abs/2307.07055>`_, 2023: what the
off-support penalty and the subspace angle of the analysis measure.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def off_support(x: Float[Array, "N D"], basis: Float[Array, "D d"]) -> Float[Array, " N"]:
    """The norm of what lies outside of a subspace.

    Args:
      x: ``[N, D]`` designs, centred as the data are.
      basis: ``[D, d]``, columns that span the subspace, linearly independent; they need not be orthonormal.

    Example:
      >>> off_support(jnp.array([[3.0, 0.0, 4.0]]), jnp.array([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]])).round(4).tolist()
      [4.0]
    """
    axes, _ = jnp.linalg.qr(basis)
    return jnp.linalg.norm(x - (x @ axes) @ axes.T, axis=1)


def subspace_distance(a: Float[Array, "D d"], b: Float[Array, "D e"]) -> Float[Array, ""]:
    """How far two subspaces are apart: the squared Frobenius norm of the difference of their projections.

    Args:
      a: ``[D, d]``, columns that span the one, linearly independent.
      b: ``[D, e]``, and the other.

    Example:
      A line, and one at 45 degrees to it: half of it is outside, on both sides.

      >>> subspace_distance(jnp.array([[1.0], [0.0]]), jnp.array([[1.0], [1.0]])).round(4).item()
      1.0
    """
    (one, _), (other, _) = jnp.linalg.qr(a), jnp.linalg.qr(b)
    # Of nearly equal ones the difference of two large numbers would be rounding.
    outside = other - one @ (one.T @ other)
    return 2 * jnp.sum(outside**2) + (one.shape[1] - other.shape[1])
