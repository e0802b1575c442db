r"""What decides how hard a game is: the eigenvalues of its Jacobian.

For a strongly monotone game the literature's condition number is that of Omega's authors,

.. math::
  \kappa = L / \mu, \qquad \mu = \min_j \Re \lambda_j, \qquad
  L = \max_j \frac{1}{\Re(1/\lambda_j)} = \max_j \frac{|\lambda_j|^2}{\Re \lambda_j}

over the eigenvalues of the mean Jacobian (`kappa_mean`) or over those of all samples together
(`kappa`). Both are infinite for a bilinear game, whose eigenvalues are imaginary; there the ratio
of the singular values of the mean Jacobian says what there is to say (`condition_number`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxfair.games._game import Game


class Spectrum(NamedTuple):
    """The spectrum and conditioning of a game; numbers of numpy and Python, in double precision.

    Attributes:
      eigenvalues: ``[D]`` complex, of the mean Jacobian, sorted by imaginary part, then by real
        part.
      condition_number: the largest singular value of the mean Jacobian over the smallest that is
        not zero.
      kappa_mean: of the eigenvalues of the mean Jacobian; inf where an eigenvalue has no positive
        real part.
      kappa: of the eigenvalues of all samples' Jacobians; nan where the samples are not finitely
        many.
    """

    eigenvalues: np.ndarray
    condition_number: float
    kappa_mean: float
    kappa: float


def spectrum(game: Game) -> Spectrum:
    """The eigenvalues and condition numbers of a game.

    They are those of the constant Jacobian of the mean operator, or else of its Jacobian at the
    saddle. It is a report: it runs on the host, over n eigenvalue problems of size D, and cannot be
    traced.

    Args:
      game: a game whose `jacobian` or `saddle` is known.

    Returns:
      The spectrum. Real and imaginary parts below the rounding error of the game's precision are
      given as zero.

    Raises:
      ValueError: for a game of which neither is known.

    Example:
      Curvature 1 and coupling 2 in every sample:

      >>> from jaxfair import games
      >>> one, two = jnp.ones((3, 1, 1)), jnp.full((3, 1, 1), 2.0)
      >>> result = spectrum(games.finite_sum("scalar", A=one, B=two, C=one))
      >>> result.eigenvalues.round(6)
      array([1.-2.j, 1.+2.j])
      >>> [round(kappa, 6) for kappa in (result.condition_number, result.kappa_mean, result.kappa)]
      [1.0, 5.0, 5.0]
    """
    at = game.saddle
    if at is None and game.jacobian is not None:
        # A constant mean Jacobian leaves it open where to look at the samples.
        at = game.init(jax.random.key(0))
    if at is None:
        raise ValueError(
            f"{game.name}: neither its Jacobian nor its saddle is known, so there is no point at which to look."
        )
    flat, unravel = ravel_pytree(at)

    def jacobian(field):
        return jax.jacfwd(lambda w: ravel_pytree(field(unravel(w)))[0])(flat)

    mean = jacobian(game.mean_operator) if game.jacobian is None else game.jacobian
    eigenvalues = _eigenvalues(np.asarray(mean))
    singular = np.linalg.svd(np.asarray(mean, np.float64), compute_uv=False)
    positive = singular[singular > singular[0] * singular.size * np.finfo(mean.dtype).eps]

    kappa = np.nan
    if game.num_samples is not None:
        one = jax.jit(lambda i: jacobian(lambda players: game.operator(players, i[None])))
        samples = lax.map(one, jnp.arange(game.num_samples, dtype=jnp.int32))
        kappa = _kappa(np.concatenate([_eigenvalues(matrix) for matrix in np.asarray(samples)]))
    return Spectrum(
        eigenvalues=eigenvalues[np.lexsort((np.real(eigenvalues), np.imag(eigenvalues)))],
        condition_number=float(singular[0] / positive[-1]) if positive.size else np.inf,
        kappa_mean=_kappa(eigenvalues),
        kappa=kappa,
    )


def radius(eigenvalues: np.ndarray, rate: np.ndarray, optimism: np.ndarray, decay: float) -> np.ndarray:
    r"""The spectral radius of a step of Omega on a linear game: below 1 the game without noise converges.

    For an eigenvalue :math:`\lambda` of the Jacobian the modes are the roots of
    :math:`z^2 - (1 + b - \eta\lambda(1 + o)) z + b - \eta\lambda(o + b)`; b = 0 is the optimistic gradient. The radius
    is the largest root over all eigenvalues.

    Args:
      eigenvalues: ``[D]`` of the Jacobian of the mean operator, as `Spectrum` has them.
      rate: ``[H]`` learning rates.
      optimism: ``[H]``, one for each.
      decay: of the average of gradients.

    Returns:
      ``[H]`` radii.

    Example:
      Pure rotation, near the largest rate of the optimistic gradient with optimism 1, which is
      :math:`1/\sqrt 3`:

      >>> rates = np.array([0.57, 0.58])
      >>> (radius(np.array([1j, -1j]), rates, np.ones(2), 0.0) < 1).tolist()
      [True, False]
    """
    scaled = rate[..., None] * np.unique(np.round(eigenvalues.astype(complex), 9))
    o = optimism[..., None]
    linear = -(1 + decay - scaled * (1 + o))
    constant = decay - scaled * (o + decay)
    root = np.sqrt(linear**2 - 4 * constant)
    return np.maximum(np.abs(-linear + root), np.abs(-linear - root)).max(axis=-1) / 2


def _eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """In double precision, with parts that are no larger than the rounding of the matrix set to zero."""
    values = np.linalg.eigvals(matrix.astype(np.float64)).astype(complex)
    rounding = len(values) * np.finfo(matrix.dtype).eps * np.abs(values).max()
    real, imaginary = np.real(values), np.imag(values)
    real = np.where(np.abs(real) > rounding, real, 0)
    imaginary = np.where(np.abs(imaginary) > rounding, imaginary, 0)
    return real + 1j * imaginary


def _kappa(eigenvalues: np.ndarray) -> float:
    real = np.real(eigenvalues)
    if real.min() <= 0:
        return np.inf
    return float(np.max(np.abs(eigenvalues) ** 2 / real) / real.min())
