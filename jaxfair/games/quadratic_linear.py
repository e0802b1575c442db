r"""Omega's quadratic-linear game: the minimising player has a curvature, the maximising one has none.

.. math:: f_i(x, y) = \tfrac12 x^\top A_i x + x^\top B_i y + a_i^\top x - c_i^\top y

This is the shape of a Lagrangian with linear constraints, y being the multipliers. Which player
gets which method matters here: one transformation per player through ``optax.partition``, or
:func:`jaxfair.games.play` with ``order="alternating"``.

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


def quadratic_linear(
    key: Key,
    *,
    dim: int = 100,
    num_samples: int = 100,
    min_eigenvalue: ArrayLike = 1.0,
    max_eigenvalue: ArrayLike = 1.0,
    num_zeros: int = 0,
    min_singular: ArrayLike = 1.0,
    max_singular: ArrayLike = 1.0,
    normal: bool = True,
    bias: ArrayLike = 1.0,
) -> Game:
    r"""Draws a quadratic-linear game.

    Args:
      key: a PRNG key for the matrices and biases.
      dim: d, the size of each of the two players.
      num_samples: n.
      min_eigenvalue: the smallest eigenvalue of the :math:`A_i`, drawn as
        :func:`jaxfair.games.random_symmetric` says.
      max_eigenvalue: the largest.
      num_zeros: how many eigenvalues of each :math:`A_i` are zero instead.
      min_singular: the smallest singular value of all :math:`B_i`, drawn as
        :func:`jaxfair.games.random_coupling` says.
      max_singular: the largest.
      normal: whether the :math:`B_i` are symmetric positive; with the default range each is then
        the identity.
      bias: scale of :math:`a_i, c_i \sim N(0, \mathrm{bias}^2 I/d)`.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I). It holds ``8 n d**2``
      bytes of matrices in float32.

    Example:
      With the default ranges every sample is :math:`|x|^2/2 + x^\top y`, whose eigenvalues are
      :math:`(1 \pm i \sqrt 3) / 2`:

      >>> from jaxfair import games
      >>> game = games.quadratic_linear(jax.random.key(0), dim=5, num_samples=4)
      >>> games.spectrum(game).eigenvalues[[0, -1]].round(3).tolist()
      [(0.5-0.866j), (0.5+0.866j)]
    """
    dim, num_samples = sizes(dim=dim, num_samples=num_samples)
    check_scales(bias=bias)
    key_a, key_b, key_linear_a, key_linear_c = jax.random.split(key, 4)
    scale = bias / dim**0.5
    return finite_sum(
        "quadratic_linear",
        A=random_symmetric(
            key_a,
            num_samples=num_samples,
            dim=dim,
            min_eigenvalue=min_eigenvalue,
            max_eigenvalue=max_eigenvalue,
            num_zeros=num_zeros,
        ),
        B=random_coupling(
            key_b,
            num_samples=num_samples,
            dim=dim,
            min_singular=min_singular,
            max_singular=max_singular,
            normal=normal,
        ),
        a=scale * jax.random.normal(key_linear_a, (num_samples, dim)),
        c=scale * jax.random.normal(key_linear_c, (num_samples, dim)),
    )
