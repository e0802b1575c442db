r"""A bilinear game whose *mean* operator is ill-conditioned.

.. math::
  f_i(x, y) = x^\top B_i y + a_i^\top x - c_i^\top y, \qquad B_i = \bar B + \sigma (N_i - \bar N), \quad
  \bar B = U \mathrm{diag}(s) V^\top

with singular values :math:`s` that are spaced evenly on a logarithmic scale and Gaussian noise on
every matrix. In Omega's generator the condition number is one of the samples, and is gone in the
mean; here it is one of the game that is solved. The noise of the matrices is multiplicative: it
does not vanish at the saddle, and it grows with the distance from it.

Source: the random bilinear game of Li, Loizou, et al., `On the Convergence of Stochastic
Extragradient for Bilinear Games using Restarted Iteration Averaging
<https://arxiv.org/abs/2107.00464>`_, 2022 (a diagonal mean with Gaussian noise), with rotated bases
and a prescribed spectrum.
"""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from jaxfair.games._game import Game
from jaxfair.games._matrices import around
from jaxfair.games._numbers import check_span, sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def bilinear_ill_conditioned(
    key: Key,
    *,
    dim: int = 100,
    num_samples: int = 100,
    min_singular: ArrayLike = 0.01,
    max_singular: ArrayLike = 1.0,
    noise: ArrayLike = 0.1,
    bias_noise: ArrayLike = 0.1,
) -> Game:
    r"""Draws a bilinear game with prescribed singular values of the mean.

    Args:
      key: a PRNG key for the matrices, the biases and the saddle.
      dim: d, the size of each of the two players.
      num_samples: n.
      min_singular: the smallest singular value of :math:`\bar B`.
      max_singular: the largest.
      noise: :math:`\sigma`; the noise of a matrix has a spectral norm of about :math:`2 \sigma`,
        whatever d is.
      bias_noise: the norm, about, of the noise of :math:`a_i` and of :math:`c_i`.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I) and a saddle drawn from
      N(0, I/d). It holds ``4 n d**2`` bytes of matrices in float32.

    Example:
      >>> from jaxfair import games
      >>> game = games.bilinear_ill_conditioned(jax.random.key(0), dim=5, num_samples=4)
      >>> round(games.spectrum(game).condition_number, 2)
      100.0
    """
    dim, num_samples = sizes(dim=dim, num_samples=num_samples)
    check_span("singular", min_singular, max_singular)
    key_left, key_right, key_saddle, key_coupling, key_a, key_c = jax.random.split(key, 6)
    singular = jnp.geomspace(max_singular, min_singular, dim)
    mean = (jax.random.orthogonal(key_left, dim) * singular[None]) @ jax.random.orthogonal(key_right, dim)
    x, y = jax.random.normal(key_saddle, (2, dim)) / dim**0.5
    return finite_sum(
        "bilinear_ill_conditioned",
        B=around(key_coupling, mean, num_samples=num_samples, noise=noise),
        a=around(key_a, -mean @ y, num_samples=num_samples, noise=bias_noise),
        c=around(key_c, mean.T @ x, num_samples=num_samples, noise=bias_noise),
        saddle={"x": x, "y": y},
    )
