r"""Bases in which images have few large numbers: cosines, and Haar's steps.

Each is B ``[N, N]`` with :math:`B'B = I`: the columns are pictures, and :math:`x = B c`. Of an image ``(H, W)`` the
basis is the product of the two along its sides; of a signal ``(N,)`` it is the one along it. Float64 where that is on.

The k-th cosine of n numbers is :math:`\sqrt{2/n} \cos(\pi k (2 i + 1) / (2 n))`, the constant :math:`\sqrt{1/n}` (the
DCT of type II, transposed). Haar's are the constant, and at each scale :math:`\pm` on the halves of every interval.
"""

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jaxfair.typing import Array, check_count


def dct_basis(shape: Sequence[int]) -> Array:
    """Cosines of all frequencies.

    Args:
      shape: of the signal, such as ``(H, W)``.

    Returns:
      B, ``[N, N]``, the constant first.

    Raises:
      ValueError: for a side that is no whole number of at least 1.

    Example:
      >>> B = dct_basis((8, 8))
      >>> ramp = jnp.tile(jnp.arange(8.0), 8)          # a picture that grows from left to right
      >>> int(jnp.sum(jnp.abs(B.T @ ramp) > 1e-3))     # has 5 numbers instead of 64
      5
    """
    return _separable(shape, _cosines)


def haar_basis(shape: Sequence[int]) -> Array:
    """Haar's wavelets.

    Args:
      shape: of the signal, such as ``(H, W)``; every side is a power of two.

    Returns:
      B, ``[N, N]``, the constant first, then from coarse to fine.

    Raises:
      ValueError: for a side that is no power of two.

    Example:
      >>> B = haar_basis((4,))
      >>> (B.T @ jnp.array([1.0, 1.0, 3.0, 3.0])).round(3).tolist()      # one step
      [4.0, -2.0, 0.0, 0.0]
    """
    return _separable(shape, _steps)


def _separable(shape: Sequence[int], along: Callable[[int], np.ndarray]) -> Array:
    for side in shape:
        check_count("shape", side)
    return jnp.asarray(functools.reduce(np.kron, [along(int(side)) for side in shape], np.ones((1, 1))), float)


def _cosines(n: int) -> np.ndarray:
    place, frequency = np.arange(n)[:, None], np.arange(n)[None]
    basis = np.sqrt(2 / n) * np.cos(np.pi * frequency * (2 * place + 1) / (2 * n))
    basis[:, 0] /= np.sqrt(2)
    return basis


def _steps(n: int) -> np.ndarray:
    if n & (n - 1):
        raise ValueError(f"shape has a side of {n}: Haar's wavelets need a power of two; dct_basis takes any.")
    if n == 1:
        return np.ones((1, 1))
    coarse = np.kron(_steps(n // 2), np.ones((2, 1)))
    fine = np.kron(np.eye(n // 2), np.array([[1.0], [-1.0]]))
    return np.concatenate([coarse, fine], axis=1) / np.sqrt(2)
