r"""A bilinear game without noise at its saddle: every sample is solved at the same point.

.. math:: f_i(x, y) = (x - x^*)^\top B_i (y - y^*)

up to a constant. This is the interpolation regime of over-parametrised models: stochastic
extragradient converges linearly with a constant step, and what remains of the noise is
multiplicative.

Source: the matrices are those of Omega's generator (`Ramirez et al.
<https://arxiv.org/abs/2306.07905>`_, 2023); interpolated bilinear games are analysed by Li, Loizou,
et al., `On the Convergence of Stochastic Extragradient for Bilinear Games using Restarted Iteration
Averaging <https://arxiv.org/abs/2107.00464>`_, 2022.
"""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from jaxfair.games._game import Game
from jaxfair.games._matrices import random_coupling
from jaxfair.games._numbers import sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def bilinear_interpolated(
    key: Key,
    *,
    dim: int = 100,
    num_samples: int = 100,
    min_singular: ArrayLike = 0.1,
    max_singular: ArrayLike = 1.0,
    normal: bool = True,
) -> Game:
    r"""Draws an interpolated bilinear game.

    Args:
      key: a PRNG key for the matrices and the saddle.
      dim: d, the size of each of the two players.
      num_samples: n.
      min_singular: the smallest singular value of all :math:`B_i`, drawn as
        :func:`jaxfair.games.random_coupling` says.
      max_singular: the largest.
      normal: whether the :math:`B_i` are symmetric positive. Without that the mean game is
        ill-conditioned, since random signs average away.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I) and a saddle drawn from
      N(0, I/d). It holds ``4 n d**2`` bytes of matrices in float32.

    Example:
      >>> from jaxfair import games
      >>> game = games.bilinear_interpolated(jax.random.key(0), dim=5, num_samples=4)
      >>> field = game.operator(game.saddle, jnp.array([3]))
      >>> bool(jnp.abs(field["x"]).max() < 1e-6)
      True
    """
    dim, num_samples = sizes(dim=dim, num_samples=num_samples)
    key_coupling, key_saddle = jax.random.split(key)
    coupling = random_coupling(
        key_coupling,
        num_samples=num_samples,
        dim=dim,
        min_singular=min_singular,
        max_singular=max_singular,
        normal=normal,
    )
    x, y = jax.random.normal(key_saddle, (2, dim)) / dim**0.5
    return finite_sum(
        "bilinear_interpolated",
        B=coupling,
        a=-coupling @ y,
        c=jnp.einsum("nij,i->nj", coupling, x),
        saddle={"x": x, "y": y},
    )
