r"""Omega's bilinear game: linear players, coupled by random matrices.

.. math:: f_i(x, y) = x^\top B_i y + a_i^\top x - c_i^\top y

The Jacobian of the mean operator has purely imaginary eigenvalues :math:`\pm i s_j` for the
singular values :math:`s_j` of :math:`\bar B`: gradient descent-ascent spirals outwards, and every
bit of convergence is owed to the method. The range of singular values is that of the samples;
averaging over random bases compresses it (to about [0.50, 0.60] for a minimum of 0.1), so the mean
game is well conditioned whatever is asked for here. For an ill-conditioned mean see
:func:`jaxfair.games.bilinear_ill_conditioned`.

Source: Ramirez, Sukumaran, Bertrand, Gidel, `Omega: Optimistic EMA Gradients
<https://arxiv.org/abs/2306.07905>`_, 2023. Same distribution as the authors' generator, other
random numbers.
"""

import jax
from jaxtyping import ArrayLike

from jaxfair.games._game import Game
from jaxfair.games._matrices import random_coupling
from jaxfair.games._numbers import check_scales, sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def bilinear(
    key: Key,
    *,
    dim: int = 100,
    num_samples: int = 100,
    min_singular: ArrayLike = 1.0,
    max_singular: ArrayLike = 1.0,
    normal: bool = True,
    bias: ArrayLike = 1.0,
) -> Game:
    r"""Draws a bilinear game.

    Args:
      key: a PRNG key for the matrices and biases.
      dim: d, the size of each of the two players.
      num_samples: n.
      min_singular: the smallest singular value of all :math:`B_i`, drawn as
        :func:`jaxfair.games.random_coupling` says.
      max_singular: the largest.
      normal: whether the :math:`B_i` are symmetric positive. With the default range every one of
        them is then the identity, and all noise is in the biases: its covariance has a trace of
        about 2.
      bias: scale of :math:`a_i, c_i \sim N(0, \mathrm{bias}^2 I/d)`; 0 for a game solved at the
        origin.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I). It holds ``4 n d**2``
      bytes of matrices in float32.

    Example:
      >>> from jaxfair import games
      >>> game = games.bilinear(jax.random.key(0), dim=5, num_samples=4)
      >>> bool(games.residual(game, game.saddle) < 1e-6)
      True
      >>> games.spectrum(game).eigenvalues[[0, -1]].round(5).tolist()
      [-1j, 1j]
    """
    dim, num_samples = sizes(dim=dim, num_samples=num_samples)
    check_scales(bias=bias)
    key_coupling, key_a, key_c = jax.random.split(key, 3)
    scale = bias / dim**0.5
    return finite_sum(
        "bilinear",
        B=random_coupling(
            key_coupling,
            num_samples=num_samples,
            dim=dim,
            min_singular=min_singular,
            max_singular=max_singular,
            normal=normal,
        ),
        a=scale * jax.random.normal(key_a, (num_samples, dim)),
        c=scale * jax.random.normal(key_c, (num_samples, dim)),
    )
