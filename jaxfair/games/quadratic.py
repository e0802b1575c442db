r"""Omega's quadratic game: both players have a curvature of their own.

.. math:: f_i(x, y) = \tfrac12 x^\top A_i x + x^\top B_i y - \tfrac12 y^\top C_i y + a_i^\top x - c_i^\top y

With positive :math:`A_i, C_i` the operator is strongly monotone: even gradient descent-ascent
converges linearly to a neighbourhood, and the noise decides. With a :math:`B_i` that is not normal
the couplings nearly average away in the mean game.

Source: Ramirez, Sukumaran, Bertrand, Gidel, `Omega: Optimistic EMA Gradients
<https://arxiv.org/abs/2306.07905>`_, 2023. Same distribution as the authors' generator, other
random numbers.
"""

import jax
from jaxtyping import ArrayLike

from jaxfair.games._game import Game
from jaxfair.games._matrices import random_coupling, random_symmetric
from jaxfair.games._numbers import check_scales, sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def quadratic(
    key: Key,
    *,
    dim: int = 100,
    num_samples: int = 100,
    min_eigenvalue: ArrayLike = 1.0,
    max_eigenvalue: ArrayLike = 1.0,
    num_zeros: int = 0,
    min_singular: ArrayLike = 1.0,
    max_singular: ArrayLike = 1.0,
    normal: bool = False,
    bias: ArrayLike = 1.0,
) -> Game:
    r"""Draws a quadratic game.

    Args:
      key: a PRNG key for the matrices and biases.
      dim: d, the size of each of the two players.
      num_samples: n.
      min_eigenvalue: the smallest eigenvalue of the :math:`A_i`, and of the :math:`C_i`, as
        :func:`jaxfair.games.random_symmetric` says.
      max_eigenvalue: the largest.
      num_zeros: how many eigenvalues of each :math:`A_i` and :math:`C_i` are zero instead.
      min_singular: the smallest singular value of all :math:`B_i`, drawn as
        :func:`jaxfair.games.random_coupling` says.
      max_singular: the largest.
      normal: whether the :math:`B_i` are symmetric positive.
      bias: scale of :math:`a_i, c_i \sim N(0, \mathrm{bias}^2 I/d)`.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I). It holds ``12 n d**2``
      bytes of matrices in float32.

    Example:
      >>> from jaxfair import games
      >>> game = games.quadratic(jax.random.key(0), dim=5, num_samples=4, min_eigenvalue=0.1)
      >>> bool(games.residual(game, game.saddle) < 1e-5)
      True
      >>> bool(games.spectrum(game).eigenvalues.real.min() > 0.1)
      True
    """
    dim, num_samples = sizes(dim=dim, num_samples=num_samples)
    check_scales(bias=bias)
    key_a, key_b, key_c, key_linear_a, key_linear_c = jax.random.split(key, 5)
    scale = bias / dim**0.5

    def curvature(key: Key) -> jax.Array:
        return random_symmetric(
            key,
            num_samples=num_samples,
            dim=dim,
            min_eigenvalue=min_eigenvalue,
            max_eigenvalue=max_eigenvalue,
            num_zeros=num_zeros,
        )

    return finite_sum(
        "quadratic",
        A=curvature(key_a),
        B=random_coupling(
            key_b,
            num_samples=num_samples,
            dim=dim,
            min_singular=min_singular,
            max_singular=max_singular,
            normal=normal,
        ),
        C=curvature(key_c),
        a=scale * jax.random.normal(key_linear_a, (num_samples, dim)),
        c=scale * jax.random.normal(key_linear_c, (num_samples, dim)),
    )
