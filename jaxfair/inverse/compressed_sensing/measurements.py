r"""Matrices that measure a signal: random mixtures, the pixels that are seen, means over blocks.

Each is A ``[M, N]``, and a measurement is :math:`y = A x + e`; an image is its pixels, row by row.

================================  =====================================================  ==========================
matrix                            what a row is                                          the inverse problem
================================  =====================================================  ==========================
`gaussian_measurements`           N(0, 1/M), so that :math:`E|Ax|^2 = |x|^2`             compressed sensing
`pixel_measurements`              one pixel                                              inpainting
`block_measurements`              the mean over a square                                 enlarging a picture
================================  =====================================================  ==========================

Bora et al. draw N(0, 1), and take the mean over measurements of the squares: the same objective, as the sum here.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair.inverse.compressed_sensing._checks import check_size
from jaxfair.typing import Array, Key, check_count


def gaussian_measurements(key: Key, num_measurements: int, num_numbers: int) -> Array:
    """Random mixtures of all numbers.

    Args:
      key: of the draw.
      num_measurements: M.
      num_numbers: N.

    Returns:
      A, ``[M, N]`` float32.

    Raises:
      ValueError: for more measurements than numbers, or none.

    Example:
      >>> A = gaussian_measurements(jax.random.key(0), 32, 64)
      >>> A.shape, f"{jnp.mean(jnp.sum(A**2, axis=0)):.1f}"
      ((32, 64), '1.0')

    References:
      Bora, Jalal, Price and Dimakis, `Compressed Sensing using Generative Models
      <https://arxiv.org/abs/1703.03208>`_, 2017.
    """
    check_count("num_numbers", num_numbers)
    check_count("num_measurements", num_measurements, low=0)
    check_size(num_measurements, num_numbers)
    return jax.random.normal(key, (num_measurements, num_numbers)) / np.sqrt(num_measurements).astype(np.float32)


def pixel_measurements(seen: ArrayLike) -> Array:
    """The pixels that are seen, as they are; the others are to be painted in.

    Args:
      seen: bool of any shape, such as ``[H, W]``; not traced, since it says how many measurements there are.

    Returns:
      A, ``[M, N]`` float32: rows of the identity.

    Raises:
      ValueError: where nothing is seen, or for what is not bool.

    Example:
      The right half of an image of 2 x 2 is hidden:

      >>> pixel_measurements(np.array([[True, False], [True, False]])).tolist()
      [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    mask = np.asarray(seen)
    if mask.dtype != bool:
        raise ValueError(f"seen has dtype {mask.dtype}: give True for a pixel that is seen, and False.")
    check_size(int(mask.sum()), mask.size)
    return jnp.asarray(np.eye(mask.size, dtype=np.float32)[mask.ravel()])


def block_measurements(shape: Sequence[int], block: int) -> Array:
    """Means over squares, as a coarser camera sees them.

    Args:
      shape: ``(H, W)`` of the image.
      block: pixels along a side of a square; it divides both.

    Returns:
      A, ``[H W / block^2, H W]`` float32, squares row by row.

    Raises:
      ValueError: for a block that does not divide the image.

    Example:
      >>> block_measurements((2, 4), 2).tolist()
      [[0.25, 0.25, 0.0, 0.0, 0.25, 0.25, 0.0, 0.0], [0.0, 0.0, 0.25, 0.25, 0.0, 0.0, 0.25, 0.25]]
    """
    check_count("block", block)
    height, width = shape
    if height % block or width % block or not height or not width:
        raise ValueError(f"block={block} does not divide an image of {height} x {width}: give one that divides both.")
    along = [np.kron(np.eye(size // block), np.ones((1, block))) / block for size in (height, width)]
    return jnp.asarray(np.kron(*along), jnp.float32)
