"""Sparse networks on disk: weights, masks and model state in one safetensors file, which holds no code.

A mask is packed, one bit for every weight (`numpy.packbits`, row by row, the first weight in the highest bit); its
shape is that of its weights. The True of a leaf that is never pruned stays a bool ``[]``.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxfair import files
from jaxfair.sparsity._masks import fits
from jaxfair.typing import ModelState, Params

_KEY = "jaxfair"
#: Names of what is no array: a leaf that is None, and a dict without entries.
_NONE, _EMPTY = "none", "empty"
#: What comes back as it was.
_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
)


class Saved(NamedTuple):
    """What :func:`load` gives back.

    Attributes:
      params: nested dicts of arrays, exactly zero where the masks are False.
      state: the model's state; ``{}`` where there was none.
      masks: bool arrays in the structure of ``params``, True = kept.
      metadata: what :func:`save` was given.
    """

    params: Params
    state: ModelState
    masks: Any
    metadata: dict[str, str]


def save(
    path: str | os.PathLike[str],
    params: Params,
    state: ModelState,
    masks: Any,
    *,
    metadata: Mapping[Any, Any] | None = None,
) -> None:
    """Writes a sparse network to a file, whole or not at all.

    Arrays are named ``params/...``, ``state/...`` and ``masks/...`` after their paths, so that any reader of
    safetensors understands the file. Masks take one bit for every weight.

    Args:
      path: ends in ``.safetensors`` by custom.
      params: nested dicts of arrays, of any dtype that the file has; None and empty dicts come back as such. Weights
        whose mask is False are written as zeros.
      state: nested dicts of arrays, or ``{}``.
      masks: in the structure of ``params``, as :func:`get_masks` gives it. One whose shape is not that of its weights
        (a channel's, say) is written as it is, a byte for every entry.
      metadata: strings to strings, or whatever JSON gives back as it was.

    Raises:
      ValueError: for what :func:`load` could not give back, before anything is written: a bare array, lists and
        tuples, names with ``/``, keys, other dtypes, masks of another network, metadata that are no strings.
      OSError: where the file cannot be written; nothing is left behind then.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
      >>> save(path, {"kernel": jnp.array([1.0, 2.0])}, {}, {"kernel": jnp.array([True, False])})
      >>> load(path).params["kernel"]
      array([1., 0.], dtype=float32)
    """
    if not isinstance(params, Mapping) or not jax.tree.leaves(params):
        raise ValueError(f"params must be nested dicts of arrays, but they are a {type(params).__name__}; name them")
    if not isinstance(state, Mapping):
        raise ValueError(f"the state must be nested dicts of arrays, or {{}}, but it is a {type(state).__name__}")
    flat = {kind: _flat(kind, tree) for kind, tree in (("params", params), ("state", state), ("masks", masks))}
    if flat["params"].keys() != flat["masks"].keys():
        other = sorted(flat["params"].keys() ^ flat["masks"].keys())
        raise ValueError(f"the masks have not the structure of the parameters: {', '.join(other[:3])} is in one only")
    arrays = {}
    for name, weights in flat["params"].items():
        mask = flat["masks"][name]
        if weights is None or mask is None or isinstance(weights, dict):
            if type(weights) is not type(mask):
                raise ValueError(f"the masks have not the structure of the parameters: {name} differs")
            continue
        mask = mask.astype(bool)
        if not fits(mask.shape, weights.shape):
            raise ValueError(f"the mask of {name} has the shape {mask.shape}, but its weights have {weights.shape}")
        arrays[f"params/{name}"] = np.where(mask, weights, np.zeros((), weights.dtype))
        arrays[f"masks/{name}"] = np.packbits(mask) if mask.ndim and mask.shape == weights.shape else mask
    arrays |= {f"state/{name}": array for name, array in flat["state"].items() if isinstance(array, np.ndarray)}
    # What is no array is a name alone, of nothing.
    arrays |= {
        f"{_NONE if value is None else _EMPTY}/{kind}/{name}": np.zeros(0, bool)
        for kind, values in flat.items()
        for name, value in values.items()
        if not isinstance(value, np.ndarray)
    }
    # One entry, since safetensors writes several in any order: equal networks shall make equal files.
    written = dict(metadata or {})
    note = json.dumps(written, sort_keys=True)
    if json.loads(note) != written:
        raise ValueError(f"metadata are strings by names that are strings, but they are {written}; JSON changes them")
    content = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    files.atomic_write(path, safetensors.numpy.save(content, metadata={_KEY: note}))


def _flat(kind: str, tree: Any) -> dict[str, Any]:
    """The arrays of nested dicts by their paths; None for a None, and ``{}`` for a dict without entries."""
    found = {}

    def walk(name, node):
        if isinstance(node, Mapping):
            for key, value in node.items():
                if not isinstance(key, str) or not key or "/" in key:
                    raise ValueError(
                        f"{kind}{name}: a file has nested dicts with names without '/', and no {key!r}; rename it"
                    )
                walk(f"{name}/{key}", value)
        if node is None or isinstance(node, Mapping):
            if not node and name:
                found[name[1:]] = node if node is None else {}
        else:
            found[name[1:]] = _array(f"{kind}{name}", node)

    walk("", tree)
    return found


def _array(name: str, leaf: Any) -> np.ndarray:
    if isinstance(leaf, (tuple, list)) or not jax.tree_util.all_leaves([leaf]):
        raise ValueError(
            f"{name}: a file has nested dicts with names without '/', and no {type(leaf).__name__}; make it a dict"
        )
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        raise ValueError(f"{name} is a {leaf.dtype}, which no file has; save jax.random.key_data of a key")
    array = np.asarray(leaf)
    if array.dtype.name not in _DTYPES:
        raise ValueError(f"{name} is {array.dtype}, which no file has; cast it to one of {', '.join(_DTYPES)}")
    return array.astype(array.dtype.newbyteorder("="))


def load(path: str | os.PathLike[str]) -> Saved:
    """Reads a file that :func:`save` wrote, also one from before masks were packed.

    Args:
      path: of the file.

    Returns:
      The network as numpy arrays.

    Raises:
      ValueError: for a file that is broken, or that is no sparse network.
      FileNotFoundError: where there is none.

    Example:
      What was written comes back; with a model, ``model.apply(saved.params, saved.state, x, train=False)``.

      >>> import tempfile
      >>> path = tempfile.mkdtemp() + "/network.safetensors"
      >>> save(path, {"w": np.ones(2)}, {}, {"w": np.ones(2, bool)}, metadata={"seed": "3"})
      >>> load(path).params["w"].tolist(), load(path).metadata
      ([1.0, 1.0], {'seed': '3'})
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            note = (file.metadata() or {}).get(_KEY, "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not iterable
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): write it again.") from None
    try:
        metadata = json.loads(note)
    except ValueError:
        raise ValueError(f"{path} has metadata that cannot be read ({note[:40]}): write it again.") from None
    trees: dict[str, Any] = {"params": {}, "state": {}, "masks": {}}
    for name, array in arrays.items():
        kind, _, rest = name.partition("/")
        if kind == "masks":
            array = _unpacked(path, rest, array, arrays.get(f"params/{rest}"))
        if kind in (_NONE, _EMPTY):
            name, array = rest, None if kind == _NONE else {}
        *folders, leaf = name.split("/")
        place = trees
        for folder in folders:
            place = place.setdefault(folder, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict) or leaf in place:
            raise ValueError(f"{path} has two things named {name}: it was not written by jaxfair.sparsity.save.")
        place[leaf] = array
    if set(trees) != {"params", "state", "masks"} or not trees["params"]:
        raise ValueError(f"{path} holds no sparse network: it was not written by jaxfair.sparsity.save.")
    if jax.tree.structure(trees["params"]) != jax.tree.structure(trees["masks"]):
        raise ValueError(f"{path} has weights without masks: write it again.")
    return Saved(trees["params"], trees["state"], trees["masks"], metadata)


def _unpacked(path: Any, name: str, mask: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    if mask.dtype == bool and weights is not None:
        return mask
    if weights is None or mask.dtype != np.uint8 or mask.shape != (-(-weights.size // 8),):
        raise ValueError(f"{path} has a mask of {name} that does not fit its weights: write it again.")
    return np.unpackbits(mask, count=weights.size).astype(bool).reshape(weights.shape)
