r"""Gradient matching: examples in an order in which the mean gradient of the first k is close to that of all.

.. math:: i_t = \operatorname{argmin}_{i \text{ left}}
          \Big\| \tfrac{1}{t} \Big(g_i + \textstyle\sum_{s < t} g_{i_s}\Big) - \bar g \Big\|

Trained on examples whose mean gradient is that of all, a network moves as on all of them. Gradients at several points,
from along a training, stand side by side. The published methods also weigh their examples; here all count the same.

Sources: Mirzasoleiman, Bilmes and Leskovec, `CRAIG <https://arxiv.org/abs/1906.01827>`_, 2020; Killamsetty et al.,
`GRAD-MATCH <https://arxiv.org/abs/2103.00123>`_, 2021.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from jaxfair.bilevel.herding import check_size
from jaxfair.typing import Array


def gradient_matching(gradients: Float[Array, "N F"], size: int) -> Int[Array, "size"]:
    """The first examples by greedy matching of the mean gradient, in order: every beginning is a coreset.

    Args:
      gradients: ``[N, F]`` of each example, or anything whose mean is to be matched.
      size: how many, static, at most N.

    Returns:
      ``[size]`` int32 rows; of equal ones the first is taken.

    Raises:
      ValueError: for a size that cannot be.

    Example:
      The mean is 3, and 3.25 is the nearest to it; then 2.75 makes up for it.

      >>> gradient_matching(jnp.array([[1.0], [5.0], [3.25], [2.75]]), 2).tolist()
      [2, 3]
    """
    check_size(size, len(gradients))
    centred = gradients - jnp.mean(gradients, 0, keepdims=True)
    squares = jnp.sum(centred**2, 1)

    def take(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        total, left = carry
        # The square of total + g_i, less what is the same for all i.
        row = jnp.argmin(jnp.where(left, 2 * (centred @ total) + squares, jnp.inf)).astype(jnp.int32)
        return (total + centred[row], left.at[row].set(False)), row

    return lax.scan(take, (jnp.zeros_like(centred[0]), jnp.ones(len(gradients), bool)), length=size)[1]
