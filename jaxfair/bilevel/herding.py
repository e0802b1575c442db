r"""Herding: examples in an order in which the mean of the first k is close to the mean of all, for every k.

.. math:: i_t = \operatorname{argmax}_{i \text{ left}} \langle v_{t-1}, \varphi_i \rangle, \qquad
          v_t = v_{t-1} + \bar\varphi - \varphi_{i_t}, \qquad v_0 = \bar\varphi

What was left out so far pulls, what was taken pushes away. With features that are a product of the class and the input,
such as ``one_hot(y)[:, :, None] * x[:, None, :]``, classes keep their shares.

Source: Welling, `Herding dynamical weights to learn
<https://dl.acm.org/doi/10.1145/1553374.1553517>`_, ICML 2009; here without taking an example twice.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from jaxfair.bilevel.coreset import check_counts
from jaxfair.typing import Array


def herding(features: Float[Array, "N F"], size: int) -> Int[Array, "size"]:
    """The first examples by herding, in order: every beginning is a coreset.

    Args:
      features: ``[N, F]``.
      size: how many, static, at most N.

    Returns:
      ``[size]`` int32 rows; of equal ones the first is taken.

    Raises:
      ValueError: for a size that cannot be.

    Example:
      >>> herding(jnp.array([[1.0], [5.0], [3.0], [2.5]]), 2).tolist()
      [1, 2]
    """
    check_size(size, len(features))
    mean = jnp.mean(features, 0)

    def take(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        pull, left = carry
        row = jnp.argmax(jnp.where(left, features @ pull, -jnp.inf)).astype(jnp.int32)
        return (pull + mean - features[row], left.at[row].set(False)), row

    return lax.scan(take, (mean, jnp.ones(len(features), bool)), length=size)[1]


def check_size(size: int, num_examples: int) -> None:
    """Raises for a number of examples that there are not."""
    check_counts(size=size)
    if size > num_examples:
        raise ValueError(f"size={size}: there are {num_examples} examples.")
