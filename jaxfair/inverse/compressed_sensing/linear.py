r"""What one matrix can do: the best linear estimate, and the nearest signal that explains a measurement.

For signals of mean :math:`\mu` and covariance C, and noise of variance :math:`s` in each measurement, the linear
estimate with the least mean squared error (LMMSE) is

.. math:: \hat x = \mu + K (y - A\mu), \qquad K = C A' (A C A' + s I)^{-1},

with errors of covariance :math:`C - K A C`. It is :math:`E[x \mid y]` where signals and noise are Gaussian, and needs
no more than second moments of training signals: what a network does not do better than that, it does not do. With
:math:`x = W z`, z standard normal, it is what `latent_search` finds with a penalty of s.

The *consistent* signal nearest to x is :math:`x + A^+ (y - A x)`. Where y has no noise it is nearer to the truth
than x, or as near: it projects on a flat set that holds the truth.

Source: Kay, Fundamentals of Statistical Signal Processing: Estimation Theory, 1993, chapter 12.
"""

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair.inverse.compressed_sensing._checks import check_measured, check_number, check_rows
from jaxfair.typing import Array


class LinearEstimate(NamedTuple):
    """What a linear estimate says.

    Attributes:
      x: ``[B, N]``, the signals.
      gain: ``[N, M]``, K.
      covariance: ``[N, N]``, of the errors; its trace is the mean squared error, if the moments are right.
    """

    x: Array
    gain: Array
    covariance: Array


def lmmse(
    y: ArrayLike, operator: ArrayLike, *, mean: ArrayLike, covariance: ArrayLike, noise: ArrayLike
) -> LinearEstimate:
    """The best linear estimate of signals whose second moments are known.

    Args:
      y: ``[B, M]``, the measurements.
      operator: A, ``[M, N]``.
      mean: ``[N]``, of the signals.
      covariance: ``[N, N]``, of the signals, as ``jnp.cov(x, rowvar=False)``.
      noise: the variance of each measurement's noise, above 0.

    Returns:
      `LinearEstimate`.

    Raises:
      ValueError: for shapes that do not fit, numbers that are not finite, or a noise that is not above 0.

    Example:
      Two numbers of variance 4 and 1, of which the sum was measured with noise of variance 1:

      >>> moments = {"mean": jnp.zeros(2), "covariance": jnp.diag(jnp.array([4.0, 1.0]))}
      >>> found = lmmse(jnp.array([[3.0]]), jnp.array([[1.0, 1.0]]), noise=1.0, **moments)
      >>> found.x.tolist(), f"{jnp.trace(found.covariance):.4f}"
      ([[2.0, 0.5]], '2.1667')
    """
    matrix, rows = check_measured(operator, y)
    numbers = matrix.shape[1]
    check_rows("mean", mean, (numbers,))
    check_rows("covariance", covariance, (numbers, numbers))
    check_number("noise", noise, above=True)
    centre, spread = jnp.asarray(mean, matrix.dtype), jnp.asarray(covariance, matrix.dtype)
    seen = matrix @ spread
    total = seen @ matrix.T + jnp.asarray(noise, matrix.dtype) * jnp.eye(len(matrix), dtype=matrix.dtype)
    gain = jnp.linalg.solve(total, seen).T
    return LinearEstimate(centre[None] + (rows - (matrix @ centre)[None]) @ gain.T, gain, spread - gain @ seen)


def consistent(x: ArrayLike, operator: ArrayLike, y: ArrayLike) -> Array:
    """The nearest signals that explain the measurements.

    The last step of any method where noise is small; with much noise it explains that as well.

    Args:
      x: ``[B, N]``, signals.
      operator: A, ``[M, N]``. Rows that follow from others are warned of, where A is known: such measurements cannot
        all be explained, and come as near as they can.
      y: ``[B, M]``, the measurements.

    Returns:
      ``[B, N]``.

    Raises:
      ValueError: for shapes that do not fit, or numbers that are not finite.

    Example:
      >>> x = consistent(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 1.0]]), jnp.array([[3.0]]))     # the sum is 3
      >>> x.round(4).tolist()
      [[2.0, 1.0]]
    """
    matrix, rows = check_measured(operator, y)
    check_rows("x", x, (len(rows), matrix.shape[1]))
    if not isinstance(matrix, Tracer) and (rank := int(np.linalg.matrix_rank(np.asarray(matrix)))) < len(matrix):
        warnings.warn(f"the operator has {len(matrix)} rows and rank {rank}: some follow from others.", stacklevel=2)
    signals = jnp.asarray(x, matrix.dtype)
    return signals + (rows - signals @ matrix.T) @ jnp.linalg.pinv(matrix).T
