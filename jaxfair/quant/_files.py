r"""Quantised networks on disk: codes packed to their bits, their steps, and the rest as it is, in one safetensors file.

A leaf of b bits takes :math:`\lceil N b / 8 \rceil` bytes: the codes, less the lowest one, are written as unsigned
integers of b bits, one behind the other, the highest bit of each first, in the order of `numpy.ravel`. With 8 bits that
is a byte for each weight, with 4 two weights a byte, the first in the high half.

A reader in another language needs nothing but this page: ``codes/PATH`` are the bytes, ``scale/PATH`` and ``zero/PATH``
the steps and the codes of 0, ``params/PATH`` what is not quantised, ``state/PATH`` the state of the model; the metadata
``jaxfair.quant`` is JSON with bits, lowest code, shape and dtype by path. The weight is ``scale * (code - zero)``.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxfair import files, tree
from jaxfair.quant._quantizer import Grid, codes, values
from jaxfair.typing import ModelState, Params

_KEY = "jaxfair.quant"


class Loaded(NamedTuple):
    """What :func:`load` gives back.

    Attributes:
      params: nested dicts of arrays, at their levels.
      grids: in their structure, a `Grid` for each leaf.
      state: of the model; ``{}`` where there was none.
      metadata: what :func:`save` was given.
    """

    params: Params
    grids: Any
    state: ModelState
    metadata: dict[str, str]


def pack(codes: Any, bits: int, low: int) -> np.ndarray:
    """Codes as bytes.

    Args:
      codes: integers from ``low`` to ``low + 2**bits - 1``.
      bits: b of each, 1 to 16.
      low: the lowest code.

    Returns:
      ``[ceil(N b / 8)]`` uint8.

    Raises:
      ValueError: for codes out of this range, and bits that are none.

    Example:
      >>> pack(np.array([-7, 7, 0]), 4, -7).tolist(), pack(np.array([0, 255]), 8, 0).tolist()
      ([14, 112], [0, 255])
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"bits={bits}: 1 to 16 are packed; a float is smaller than more")
    unsigned = np.asarray(codes).astype(np.int64).ravel() - low
    if unsigned.size and not (unsigned.min() >= 0 and unsigned.max() < 2**bits):
        raise ValueError(
            f"codes from {unsigned.min() + low} to {unsigned.max() + low} are not of {bits} bits from {low}"
        )
    each = (unsigned[:, None] >> np.arange(bits)[::-1][None]) & 1
    return np.packbits(each.astype(bool))


def unpack(packed: Any, bits: int, low: int, shape: tuple[int, ...]) -> np.ndarray:
    """The codes of bytes.

    Args:
      packed: of :func:`pack`.
      bits: b.
      low: the lowest code.
      shape: of the result.

    Returns:
      int32.

    Raises:
      ValueError: for bytes of another number.

    Example:
      >>> unpack(np.array([14, 112], np.uint8), 4, -7, (3,)).tolist()
      [-7, 7, 0]
    """
    count = math.prod(shape)
    if np.shape(packed) != (-(-count * bits // 8),):
        raise ValueError(f"{np.size(packed)} bytes are not {count} codes of {bits} bits")
    each = np.unpackbits(np.asarray(packed, np.uint8), count=count * bits).reshape(count, bits)
    # The powers in 64 bits, one column after the other: no array of 64-bit numbers of all bits at once.
    found = np.zeros(count, np.int32)
    for column in range(bits):
        found = (found << 1) | each[:, column]
    return (found + low).reshape(shape).astype(np.int32)


def width(grid: Grid) -> int:
    """The bits that the codes of a grid take.

    Example:
      >>> from jaxfair import quant
      >>> width(quant.grid([0.5], 4))
      4
    """
    return max(1, int(np.asarray(grid.high) - np.asarray(grid.low)).bit_length())


def stored_bytes(params: Params, grids: Any) -> dict[str, int]:
    """What each leaf takes in a file: packed codes, steps and zeros; or its own bytes where it is not quantised.

    Args:
      params: the parameters, or their shapes.
      grids: of :func:`jaxfair.quant.grids`.

    Returns:
      By path. Their sum is what the arrays of the file take.

    Raises:
      ValueError: for the grids of another network.

    Example:
      >>> from jaxfair import quant
      >>> params = {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}
      >>> stored_bytes(params, quant.grids(params, 4))
      {'bias': 32, 'kernel': 36}
    """
    found = {}
    for path, leaf, grid in _leaves(params, grids):
        if jnp.ndim(grid.scale) == 0:
            found[path] = int(leaf.size) * leaf.dtype.itemsize
        else:
            zero = np.asarray(grid.zero).nbytes if np.asarray(grid.zero).any() else 0
            found[path] = -(-int(leaf.size) * width(grid) // 8) + np.asarray(grid.scale).nbytes + zero
    return found


def save(
    path: str | os.PathLike[str],
    params: Params,
    grids: Any,
    *,
    state: ModelState | None = None,
    metadata: Mapping[Any, Any] | None = None,
) -> None:
    """Writes a quantised network to a file, whole or not at all.

    Args:
      path: ends in ``.safetensors`` by custom.
      params: nested dicts of arrays; float weights are rounded to their levels.
      grids: of :func:`jaxfair.quant.grids`, or of a state.
      state: nested dicts of arrays; ``{}`` by default.
      metadata: strings to strings.

    Raises:
      ValueError: for grids of another network, more than 16 bits, a tree that is no nested dict of arrays with names
        without ``/``, metadata that are no strings.
      OSError: where the file cannot be written; nothing is left behind then.

    Example:
      >>> import pathlib, tempfile
      >>> from jaxfair import quant
      >>> params = {"kernel": jnp.array([[0.4, -1.0], [3.0, 0.2]])}
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
      >>> save(file, params, quant.grids(params, 3))
      >>> load(file).params["kernel"].tolist()
      [[0.0, -1.0], [3.0, 0.0]]
    """
    arrays: dict[str, np.ndarray] = {}
    layers: dict[str, Any] = {}
    for name, leaf, grid in _leaves(params, grids):
        if jnp.ndim(grid.scale) == 0:
            arrays[f"params/{name}"] = np.asarray(leaf)
            continue
        bits, low = width(grid), int(np.asarray(grid.low))
        arrays[f"codes/{name}"] = pack(codes(leaf, grid), bits, low)
        arrays[f"scale/{name}"] = np.asarray(grid.scale)
        if np.asarray(grid.zero).any():
            arrays[f"zero/{name}"] = np.asarray(grid.zero)
        layers[name] = {
            "bits": bits, "low": low, "high": int(np.asarray(grid.high)), "shape": list(leaf.shape),
            "dtype": np.dtype(leaf.dtype).name,
        }  # fmt: skip
    for name, leaf in zip(_names("state", state or {}), jax.tree.leaves(state or {}), strict=True):
        arrays[f"state/{name}"] = np.asarray(leaf)
    written = dict(metadata or {})
    if not all(isinstance(word, str) for pair in written.items() for word in pair):
        raise ValueError(f"metadata are strings by names that are strings, but they are {written}")
    note = json.dumps({"layers": layers, "metadata": written}, sort_keys=True)
    content = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    files.atomic_write(path, safetensors.numpy.save(content, metadata={_KEY: note}))


def load(path: str | os.PathLike[str]) -> Loaded:
    """Reads a file that :func:`save` wrote.

    Args:
      path: of the file.

    Returns:
      The network, its weights at their levels as numpy arrays of the dtype that they had.

    Raises:
      ValueError: for a file that is broken, or that is no quantised network.
      FileNotFoundError: where there is none.

    Example:
      >>> import tempfile
      >>> from jaxfair import quant
      >>> params, file = {"w": jnp.array([0.1, 1.0])}, tempfile.mkdtemp() + "/network.safetensors"
      >>> save(file, params, quant.grids(params, 4), metadata={"seed": "3"})
      >>> load(file).metadata, quant.codes(load(file).params["w"], load(file).grids["w"]).tolist()
      ({'seed': '3'}, [1, 7])
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            note = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not iterable
        if not isinstance(note, dict) or set(note) != {"layers", "metadata"}:
            raise ValueError("it holds no quantised network")
        trees: dict[str, Any] = {"params": {}, "state": {}, "grids": {}}
        whole: Any = Grid(*([np.zeros((), np.float32)] * 4))  # pyright: ignore[reportArgumentType]  # numpy, as all of a file
        for name in (name for name in arrays if name.startswith(("params/", "state/"))):
            _put(trees, name, arrays[name])
            if name.startswith("params/"):
                _put(trees, f"grids/{name.removeprefix('params/')}", whole)
        for name, layer in note["layers"].items():
            scale = arrays[f"scale/{name}"]
            ends: Any = [np.asarray(layer[end], np.float32) for end in ("low", "high")]
            grid = Grid(scale, arrays.get(f"zero/{name}", np.zeros_like(scale)), *ends)
            stored = unpack(arrays[f"codes/{name}"], layer["bits"], layer["low"], tuple(layer["shape"]))
            _put(trees, f"params/{name}", np.asarray(values(stored, grid, dtype=jnp.dtype(layer["dtype"]))))
            _put(trees, f"grids/{name}", grid)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path} is no whole file of jaxfair.quant.save ({said}): write it again.") from None
    return Loaded(trees["params"], trees["grids"], trees["state"], note["metadata"])


def _put(trees: dict[str, Any], name: str, value: Any) -> None:
    *folders, leaf = name.split("/")
    place = trees
    for folder in folders:
        place = place.setdefault(folder, {})
    place[leaf] = value


def _names(kind: str, nested: Any) -> list[str]:
    """The paths of nested dicts of arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(nested):
        keys = [getattr(key, "key", "/") for key in path]
        if not keys or not all(isinstance(key, str) and key and "/" not in key for key in keys):
            raise ValueError(
                f"{kind}: a file has nested dicts of arrays with names without '/', and no {tree.path_string(path)!r}"
            )
        if jnp.issubdtype(getattr(leaf, "dtype", np.dtype(object)), jax.dtypes.extended):
            raise ValueError(f"{kind}/{'/'.join(keys)} is a {leaf.dtype}, which no file has: save its data")
    return tree.paths(nested)


def _leaves(params: Params, grids: Any) -> list[tuple[str, Any, Grid]]:
    """Path, leaf and grid of each."""
    flat, like = jax.tree.flatten(grids, is_leaf=lambda node: isinstance(node, Grid))
    if like != jax.tree.structure(params):
        raise ValueError("these grids are of another network: take those of quant.grids(params, bits)")
    return list(zip(_names("params", params), jax.tree.leaves(params), flat, strict=True))
