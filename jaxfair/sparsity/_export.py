"""Sparse networks for other programs: BCOO matrices, the N:M layout of sparse tensor cores, and compiled functions.

.. code-block:: text

    to_bcoo          kernels [in, out] as values and coordinates, for jax.experimental.sparse
    pack_nm          kernels as n values of every m and their positions; 2:4 with the metadata words of GPU kernels
    export_network   the whole network as one file of StableHLO, with the weights inside and any batch size

The N:M layout has the summed axis last, as sparse tensor cores want it. For 2:4 a metadata word of 16 bits holds the
positions of four groups, two bits each, the first in the lowest bits; this is what ``jax.experimental.sparse.nm``
called metadata while JAX had it (it is gone since JAX 0.10).

References:
  Mishra et al., *Accelerating sparse deep neural networks*, 2021 (2:4); the StableHLO files are those of `jax.export
  <https://docs.jax.dev/en/latest/export/export.html>`_.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import files
from jaxfair.sparsity import _numbers
from jaxfair.sparsity._masks import apply_masks
from jaxfair.typing import Array, Model, ModelState, Params

_MAGIC = b"jaxfair network 1\n"


def to_bcoo(params: Params, masks: Any) -> Params:
    """The matrices among the pruned kernels as sparse ones.

    Args:
      params: a tree of arrays.
      masks: in its structure, True = kept.

    Returns:
      The tree, with a `jax.experimental.sparse.BCOO` for every leaf ``[in, out]`` that has a mask of its own shape,
      its coordinates sorted and unique. Living weights are stored, also those that happen to be zero. Other leaves are
      arrays, zero where masked. Not for use under ``jit``: sizes depend on the masks.

    Example:
      >>> params = {"kernel": jnp.arange(6.0).reshape(3, 2), "bias": jnp.ones(2)}
      >>> masks = {"kernel": jnp.array([[0, 1], [0, 0], [1, 0]], bool), "bias": jnp.array(True)}
      >>> kernel = to_bcoo(params, masks)["kernel"]
      >>> kernel.data.tolist(), kernel.indices.tolist()
      ([1.0, 4.0], [[0, 1], [2, 0]])
      >>> (jnp.ones((1, 3)) @ kernel).tolist()
      [[4.0, 1.0]]
    """
    from jax.experimental import sparse  # half a second, which only who asks this waits for

    def convert(p, m):
        mask = np.asarray(m, bool)
        if p.ndim != 2 or mask.shape != p.shape:
            return p
        coordinates = np.argwhere(mask).astype(np.int32)
        values = jnp.asarray(np.asarray(p)[mask])
        return sparse.BCOO(
            (values, jnp.asarray(coordinates)),
            shape=p.shape,
            indices_sorted=True,
            unique_indices=True,
        )

    return jax.tree.map(convert, apply_masks(params, masks), masks)


class NMKernel(NamedTuple):
    """A kernel of which n of every m neighbours are stored, the summed axis last.

    Attributes:
      values: ``[..., K / m * n]``, in the order of their positions.
      positions: ``[..., K / m, n]`` uint8 in ``[0, m)``, rising. A group with fewer than n living weights has zeros at
        its first free positions.
      metadata: ``[..., K / 16]`` uint16 for 2:4 where 16 divides K; None else.
      m: size of the groups.
      axis: where the summed axis was.
    """

    values: Array
    positions: Array
    metadata: Array | None
    m: int
    axis: int


def pack_nm(kernel: Array, mask: Any, *, n: Any = 2, m: Any = 4, axis: Any = -2) -> NMKernel:
    """Stores n of every m weights along an axis.

    Args:
      kernel: the weights, of any shape.
      mask: of its shape, True = kept, at most n of every m along the axis.
      n: weights kept of each group.
      m: size of a group.
      axis: the one that a product sums over, -2 for ``[..., in, out]``.

    Returns:
      The `NMKernel`, of n / m the values.

    Raises:
      ValueError: where m does not divide the axis or is above 256, a group has more than n living weights, or the mask
        has another shape.

    Example:
      >>> kernel = jnp.array([[1.0, 2.0, 3.0, 4.0]])
      >>> packed = pack_nm(kernel, jnp.array([[False, True, False, True]]), axis=-1)
      >>> packed.values.tolist(), packed.positions.tolist()
      ([[2.0, 4.0]], [[[1, 3]]])
      >>> unpack_nm(packed).tolist()
      [[0.0, 2.0, 0.0, 4.0]]

    References:
      Mishra et al., *Accelerating sparse deep neural networks*, 2021.
    """
    n, m, axis = (_numbers.whole(name, x, low=None) for name, x in (("n", n), ("m", m), ("axis", axis)))
    if not 1 <= n < m <= 256:
        raise ValueError(f"pack_nm needs 1 <= n < m <= 256, but it got n={n}, m={m}; 2 of 4 is usual")
    axis = -1 if kernel.ndim == 1 else axis  # as n_by_m
    mask = np.asarray(mask, bool)
    if mask.shape != kernel.shape or not kernel.ndim:
        raise ValueError(
            f"the mask has the shape {mask.shape} and the kernel {tuple(kernel.shape)}: give one of its shape, and no "
            "scalar"
        )
    weights = np.where(mask, np.asarray(kernel), np.zeros((), kernel.dtype))
    weights, kept = (np.moveaxis(a, axis, -1) for a in (weights, mask))
    if kept.shape[-1] % m:
        raise ValueError(
            f"axis {axis} of a kernel of shape {tuple(kernel.shape)} is not a multiple of {m}; choose another axis"
        )
    groups = (*kept.shape[:-1], kept.shape[-1] // m, m)
    weights, kept = weights.reshape(groups), kept.reshape(groups)
    most = int(kept.sum(axis=-1).max(initial=0))
    if most > n:
        raise ValueError(
            f"a group of {m} has {most} living weights, more than {n}: prune with n_by_m({n}, {m}, axis={axis})"
        )
    positions = np.sort(np.argsort(~kept, axis=-1, kind="stable")[..., :n], axis=-1)
    values = np.take_along_axis(weights, positions, axis=-1)
    metadata = None
    if (n, m) == (2, 4) and groups[-2] % 4 == 0:
        eight = positions.reshape(*groups[:-2], -1, 8).astype(np.uint16)
        metadata = jnp.asarray((eight << np.arange(0, 16, 2, dtype=np.uint16)).sum(-1, dtype=np.uint16))
    return NMKernel(
        jnp.asarray(values.reshape(*groups[:-2], -1)),
        jnp.asarray(positions.astype(np.uint8)),
        metadata,
        m,
        axis,
    )


def unpack_nm(packed: NMKernel) -> Array:
    """The dense kernel that `pack_nm` stored, zero where its mask was False.

    Args:
      packed: what `pack_nm` returned.

    Returns:
      The array, with the summed axis where it was.

    Example:
      >>> kernel = jnp.arange(8.0).reshape(4, 2)
      >>> unpack_nm(pack_nm(kernel, kernel > 3)).tolist()
      [[0.0, 0.0], [0.0, 0.0], [4.0, 5.0], [6.0, 7.0]]
    """
    positions = np.asarray(packed.positions)
    dense = np.zeros((*positions.shape[:-1], packed.m), packed.values.dtype)
    np.put_along_axis(dense, positions.astype(int), np.reshape(packed.values, positions.shape), -1)
    return jnp.asarray(np.moveaxis(dense.reshape(*positions.shape[:-2], -1), -1, packed.axis))


def export_network(
    path: str | os.PathLike[str],
    model: Model,
    params: Params,
    state: ModelState,
    shape: Sequence[int],
    *,
    masks: Any = None,
    batch_size: int | None = None,
    dtype: Any = jnp.float32,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> None:
    """Writes the network as one file that needs neither its code nor this library's; whole or not at all.

    The file has the weights as constants, in their own dtype and dense: this is a format to run, not a small one (for
    that there is `jaxfair.sparsity.save`). It is StableHLO, which later versions of JAX read for at least half a year,
    behind a line that names it and a checksum. There is no pickle in it.

    Args:
      path: of the file; missing folders are made.
      model: asked with ``train=False``.
      params: its parameters.
      state: its state, or ``{}``.
      shape: of one example, ``(32, 32, 3)`` say.
      masks: True = kept, in the structure of ``params``; None where the weights are zero already.
      batch_size: of all inputs; None for any.
      dtype: of the inputs.
      platforms: where it will run.

    Raises:
      ImportError: without the package ``flatbuffers``, which JAX needs for this.
      OSError: where the file cannot be written; nothing is left behind then.

    Example:
      ``export_network("network.jaxfair", model, params, state, (32, 32, 3))``, then see `load_exported`. What it
      stores is this function:

      >>> from jaxfair.typing import Model
      >>> linear = Model(None, lambda p, s, x, train: (x @ p, s), None)
      >>> exported = _exported(linear, jnp.ones((3, 2)), {}, (3,), None, None, jnp.float32, ("cpu",))
      >>> exported.in_avals, exported.call(np.ones((1, 3), np.float32)).tolist()
      ((ShapedArray(float32[b,3]),), [[3.0, 3.0]])
    """
    _need_flatbuffers()
    exported = _exported(model, params, state, shape, masks, batch_size, dtype, platforms)
    content = bytes(exported.serialize())
    files.atomic_write(path, _MAGIC + hashlib.sha256(content).digest() + content)


def _exported(model, params, state, shape, masks, batch_size, dtype, platforms):
    if masks is not None:
        params = apply_masks(params, masks)
    symbols = jax.export.symbolic_shape("b") if batch_size is None else (batch_size,)
    x = jax.ShapeDtypeStruct((*symbols, *shape), dtype)
    fn = jax.jit(lambda x: model.apply(params, state, x, train=False)[0])
    return jax.export.export(fn, platforms=tuple(platforms))(x)


def load_exported(path: str | os.PathLike[str]) -> Callable[[Any], Array]:
    """The network of a file that `export_network` wrote.

    Args:
      path: of the file.

    Returns:
      A function from inputs ``[B, ...]`` to logits ``[B, C]``; it is compiled once for every batch size.

    Raises:
      ValueError: for a file that is broken, or something else.
      FileNotFoundError: where there is none.
      ImportError: without the package ``flatbuffers``.

    Example:
      ``logits = load_exported("network.jaxfair")(x)``. A file of something else is refused:

      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
      >>> _ = path.write_text("something else")
      >>> try:
      ...     load_exported(path)
      ... except ValueError as error:
      ...     print(str(error)[-59:])
      no exported network: write one with sparsity.export_network
    """
    content = Path(path).read_bytes()
    if not content.startswith(_MAGIC):
        raise ValueError(f"{path} is no exported network: write one with sparsity.export_network")
    digest, content = content[len(_MAGIC) : len(_MAGIC) + 32], content[len(_MAGIC) + 32 :]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"{path} is not a whole exported network: write it again")
    _need_flatbuffers()
    return jax.jit(jax.export.deserialize(bytearray(content)).call)


def _need_flatbuffers():
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError(
            "networks are exported and loaded with the package flatbuffers, which is not installed: "
            "pip install jaxfair[export]"
        )
