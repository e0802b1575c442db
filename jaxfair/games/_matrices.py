"""Random matrices with a prescribed range of eigenvalues or singular values: what the games are made of."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jaxfair.games._numbers import check_scales, check_span, sizes
from jaxfair.typing import Key


def spread(key: Key, shape: tuple[int, ...], low: ArrayLike, high: ArrayLike) -> Float[Array, "..."]:
    """Uniform draws, stretched so that the smallest of all of them is `low` and the largest is `high`.

    Args:
      key: a PRNG key.
      shape: of the result. The stretching is over all of its entries jointly.
      low: the smallest value. A single draw gets it.
      high: the largest value.

    Returns:
      An array of `shape`.

    Example:
      >>> values = spread(jax.random.key(0), (5, 7), 0.1, 2.0)
      >>> values.min(), values.max()
      (Array(0.1, dtype=float32), Array(2., dtype=float32))
    """
    draws = jax.random.uniform(key, shape)
    smallest = jnp.min(draws)
    width = jnp.max(draws) - smallest
    unit = (draws - smallest) / jnp.where(width > 0, width, 1)
    return jnp.asarray(low * (1 - unit) + high * unit)


def random_symmetric(
    key: Key,
    *,
    num_samples: int,
    dim: int,
    min_eigenvalue: ArrayLike,
    max_eigenvalue: ArrayLike,
    num_zeros: int = 0,
) -> Float[Array, "n d d"]:
    r"""Symmetric matrices :math:`Q_i \mathrm{diag}(\lambda_i) Q_i^\top`.

    :math:`Q_i` is the orthogonal factor of a matrix with entries uniform in [0, 1), which is not
    Haar distributed: all first columns are close to the diagonal :math:`(1, \dots, 1)/\sqrt d`. The
    eigenvalues are drawn by :func:`spread`, over all n d of them jointly.

    Args:
      key: a PRNG key.
      num_samples: n.
      dim: d.
      min_eigenvalue: the smallest eigenvalue among those that are not set to zero.
      max_eigenvalue: the largest.
      num_zeros: how many eigenvalues of every matrix are zero instead.

    Returns:
      ``[n, d, d]``.

    Example:
      >>> matrices = random_symmetric(jax.random.key(0), num_samples=4, dim=5, min_eigenvalue=1.0, max_eigenvalue=1.0)
      >>> bool(jnp.allclose(matrices, jnp.eye(5)[None], atol=1e-6))
      True
    """
    num_samples, dim = sizes(num_samples=num_samples, dim=dim)
    (num_zeros,) = sizes(0, num_zeros=num_zeros)
    if num_zeros > dim:
        raise ValueError(f"num_zeros={num_zeros}: give at most dim={dim}.")
    check_span("eigenvalue", min_eigenvalue, max_eigenvalue, -float("inf"))
    key_basis, key_values = jax.random.split(key)
    basis, _ = lax.map(jnp.linalg.qr, jax.random.uniform(key_basis, (num_samples, dim, dim)))
    values = spread(key_values, (num_samples, dim), min_eigenvalue, max_eigenvalue)
    values = values.at[:, :num_zeros].set(0)
    # Symmetric to the last bit: an optimizer that is given a gradient should be given a gradient.
    half = jnp.einsum("nij,nj,nkj->nik", basis, values, basis) / 2
    return half + jnp.swapaxes(half, 1, 2)


def random_coupling(
    key: Key,
    *,
    num_samples: int,
    dim: int,
    min_singular: ArrayLike,
    max_singular: ArrayLike,
    normal: bool,
) -> Float[Array, "n d d"]:
    r"""Square matrices :math:`U_i \mathrm{diag}(s_i) V_i` with singular values in a range.

    :math:`U_i` and :math:`V_i` are the singular vectors of a matrix with entries uniform in [0, 1),
    and the singular values are drawn by :func:`spread`, over all n d of them jointly.

    Args:
      key: a PRNG key.
      num_samples: n.
      dim: d.
      min_singular: the smallest singular value.
      max_singular: the largest.
      normal: take :math:`U_i^\top` for :math:`V_i`. The matrices are then symmetric and positive;
        with ``min_singular == max_singular == 1`` every one of them is the identity.

    Returns:
      ``[n, d, d]``.

    Example:
      >>> matrices = random_coupling(
      ...     jax.random.key(0), num_samples=4, dim=5, min_singular=0.5, max_singular=2.0, normal=False)
      >>> singular = jnp.linalg.svd(matrices, compute_uv=False)
      >>> [round(float(value), 4) for value in (singular.min(), singular.max())]
      [0.5, 2.0]
    """
    num_samples, dim = sizes(num_samples=num_samples, dim=dim)
    check_span("singular", min_singular, max_singular)
    key_basis, key_values = jax.random.split(key)
    # One by one: a batched decomposition runs threads of LAPACK inside of threads of XLA, and takes a
    # hundred times longer on a busy machine.
    left, _, right = lax.map(jnp.linalg.svd, jax.random.uniform(key_basis, (num_samples, dim, dim)))
    values = spread(key_values, (num_samples, dim), min_singular, max_singular)
    if normal:
        half = jnp.einsum("nij,nj,nkj->nik", left, values, left) / 2
        return half + jnp.swapaxes(half, 1, 2)
    return jnp.einsum("nij,nj,nkj->nik", left, values, right)


def around(key: Key, mean: Float[Array, "..."], *, num_samples: int, noise: ArrayLike) -> Float[Array, "n ..."]:
    r"""Samples :math:`M_i = M + \sigma (N_i - \bar N)` whose mean is a given array, with Gaussian :math:`N_i`.

    Args:
      key: a PRNG key.
      mean: an array of any shape. A matrix gets noise of entries :math:`\sigma / \sqrt d` (d its
        number of columns), whose norm does not grow with d; so does a vector.
      num_samples: n.
      noise: :math:`\sigma`.

    Returns:
      ``[n, ...]``, whose mean over the first axis is `mean` up to rounding.

    Example:
      >>> samples = around(jax.random.key(0), jnp.eye(5), num_samples=4, noise=1.0)
      >>> bool(jnp.allclose(samples.mean(axis=0), jnp.eye(5), atol=1e-6))
      True
    """
    (num_samples,) = sizes(num_samples=num_samples)
    check_scales(noise=noise)
    normal = jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
    centred = normal - jnp.mean(normal, axis=0, keepdims=True)
    return mean[None] + noise * centred / max(mean.shape[-1], 1) ** 0.5
