r"""A bilinear game of which a sample shows one coordinate: :math:`B_i = e_i e_i^\top`.

.. math:: f_i(x, y) = x_i y_i + a_i^\top x - c_i^\top y, \qquad i \in \{1, \dots, d\}

The mean coupling is :math:`I/d`: all singular values are 1/d while each sample has the Lipschitz
constant 1, so the variance of the field is d times its square. It is the game on which variance
reduction and the stochastic Hamiltonian method were shown.

Source: Chavdarova, Gidel, Fleuret, Lacoste-Julien, `Reducing Noise in GAN Training with Variance
Reduced Extragradient <https://arxiv.org/abs/1904.08598>`_, 2019; Loizou et al., `Stochastic
Hamiltonian Gradient Methods for Smooth Games <https://arxiv.org/abs/2007.04202>`_, 2020. Start and
biases are N(0, I/d), as there.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import ArrayLike

from jaxfair.games._game import Game
from jaxfair.games._numbers import check_scales, sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def bilinear_coordinates(key: Key, *, dim: int = 100, bias: ArrayLike = 1.0) -> Game:
    r"""Draws the biases of the game.

    Args:
      key: a PRNG key for the biases.
      dim: d, the size of each of the two players, and the number of samples.
      bias: scale of :math:`a_i, c_i \sim N(0, \mathrm{bias}^2 I/d)`.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I/d). It holds ``4 d**3``
      bytes of matrices in float32.

    Example:
      >>> from jaxfair import games
      >>> game = games.bilinear_coordinates(jax.random.key(0), dim=5)
      >>> game.jacobian[:5, 5:].diagonal()
      Array([0.2, 0.2, 0.2, 0.2, 0.2], dtype=float32)
    """
    (dim,) = sizes(dim=dim)
    check_scales(bias=bias)
    key_a, key_c = jax.random.split(key)
    identity = jnp.eye(dim)
    a, c = (bias / dim**0.5 * jax.random.normal(k, (dim, dim)) for k in (key_a, key_c))

    return finite_sum(
        "bilinear_coordinates",
        B=identity[:, :, None] * identity[:, None, :],
        a=a,
        c=c,
        init=Partial(_init, dim),
        # y / d + mean(a) = 0 and x / d = mean(c)
        saddle={"x": jnp.sum(c, axis=0), "y": -jnp.sum(a, axis=0)},
    )


def _init(dim: int, key: Key) -> Any:
    x, y = jax.random.normal(key, (2, dim)) / dim**0.5
    return {"x": x, "y": y}
