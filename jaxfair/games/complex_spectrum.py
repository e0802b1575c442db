r"""A quadratic game whose mean Jacobian has prescribed complex eigenvalues.

.. math:: \bar A = U \mathrm{diag}(\Re \lambda) U^\top, \quad \bar B = U \mathrm{diag}(\Im \lambda) V^\top, \quad
          \bar C = V \mathrm{diag}(\Re \lambda) V^\top

with random orthogonal :math:`U, V` gives the Jacobian the eigenvalues
:math:`\lambda_j, \bar\lambda_j`, and makes it a normal matrix: the contraction of a linear method
on this game is that of its scalar polynomial on each :math:`\lambda_j`, exactly. The whole plane
between minimisation (real) and a bilinear game (imaginary) can be asked for.

Source: ours. The spectra that decide between methods are those of Azizian et al., `Accelerating
Smooth Games by Manipulating Spectral Shapes <https://arxiv.org/abs/2001.00602>`_, 2020.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair.games._game import Game
from jaxfair.games._matrices import around
from jaxfair.games._numbers import check_scales, sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def complex_spectrum(
    key: Key,
    *,
    eigenvalues: np.ndarray | None = None,
    num_samples: int = 100,
    noise: ArrayLike = 0.1,
    bias_noise: ArrayLike = 0.1,
) -> Game:
    r"""Draws a quadratic game with given eigenvalues.

    Args:
      key: a PRNG key for the bases, the noise and the saddle.
      eigenvalues: ``[d]`` complex, one of each conjugate pair; the real parts are the curvatures of
        both players. By default 20 points on the quarter of the unit circle from :math:`i`
        (excluded) to 1 (included): as rotational as :math:`0.078 + 0.997 i`.
      num_samples: n.
      noise: scale of the noise of the matrices, as in :func:`jaxfair.games.around`. Samples of
        :math:`A_i, C_i` stay symmetric but need not be positive.
      bias_noise: the norm, about, of the noise of :math:`a_i` and of :math:`c_i`.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I) and a saddle drawn from
      N(0, I/d). It holds ``12 n d**2`` bytes of matrices in float32.

    Raises:
      ValueError: for eigenvalues that are not one axis.

    Example:
      >>> from jaxfair import games
      >>> game = games.complex_spectrum(jax.random.key(0), eigenvalues=np.array([0.5 + 1j]), num_samples=4)
      >>> games.spectrum(game).eigenvalues.round(3)
      array([0.5-1.j, 0.5+1.j])
    """
    (num_samples,) = sizes(num_samples=num_samples)
    check_scales(noise=noise, bias_noise=bias_noise)
    if eigenvalues is None:
        eigenvalues = np.exp(0.5j * np.pi * np.arange(20) / 20)
    eigenvalues = np.asarray(eigenvalues)
    if eigenvalues.ndim != 1:
        raise ValueError(f"eigenvalues have the shape {eigenvalues.shape}: give one axis, [d].")
    if not np.isfinite(eigenvalues).all() or not eigenvalues.size:
        raise ValueError(f"eigenvalues={eigenvalues}: give finite numbers, at least one.")
    (dim,) = eigenvalues.shape
    real, imaginary = (jnp.asarray(part(eigenvalues))[None] for part in (np.real, np.imag))
    keys = jax.random.split(key, 8)
    left, right = jax.random.orthogonal(keys[0], dim), jax.random.orthogonal(keys[1], dim)
    mean_a, mean_b = (left * real) @ left.T, (left * imaginary) @ right.T
    mean_c = (right * real) @ right.T
    x, y = jax.random.normal(keys[2], (2, dim)) / dim**0.5

    def symmetric_around(key: Key, mean: jax.Array) -> jax.Array:
        samples = around(key, mean, num_samples=num_samples, noise=noise)
        return (samples + jnp.swapaxes(samples, 1, 2)) / 2

    return finite_sum(
        "complex_spectrum",
        A=symmetric_around(keys[3], mean_a),
        B=around(keys[4], mean_b, num_samples=num_samples, noise=noise),
        C=symmetric_around(keys[5], mean_c),
        a=around(keys[6], -mean_a @ x - mean_b @ y, num_samples=num_samples, noise=bias_noise),
        c=around(keys[7], mean_b.T @ x - mean_c @ y, num_samples=num_samples, noise=bias_noise),
        saddle={"x": x, "y": y},
    )
