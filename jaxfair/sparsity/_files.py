"""Sparse networks on disk: weights, masks and model state in one safetensors file, which holds no code.

A mask is packed, one bit for every weight (`numpy.packbits`, row by row, the first weight in the highest bit); its
shape is that of its weights. The True of a leaf that is never pruned stays a bool ``[]``.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from jaxfair import files
from jaxfair.sparsity._masks import apply_masks
from jaxfair.typing import ModelState, Params

_KEY = "jaxfair"


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
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a sparse network to a file, whole or not at all.

    Arrays are named ``params/...``, ``state/...`` and ``masks/...`` after their paths, so that any reader of
    safetensors understands the file. Masks take one bit for every weight.

    Args:
      path: ends in ``.safetensors`` by custom.
      params: nested dicts of arrays. Weights whose mask is False are written as zeros.
      state: nested dicts of arrays, or ``{}``.
      masks: in the structure of ``params``, as :func:`get_masks` gives it. One whose shape is not that of its weights
        (a channel's, say) is written as it is, a byte for every entry.
      metadata: strings to strings.

    Raises:
      ValueError: for lists and tuples, and for names with ``/``, which :func:`load` could not give back.
      OSError: where the file cannot be written; nothing is left behind then.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
      >>> save(path, {"kernel": jnp.array([1.0, 2.0])}, {}, {"kernel": jnp.array([True, False])})
      >>> load(path).params["kernel"]
      array([1., 0.], dtype=float32)
    """
    masks = jax.tree.map(lambda m: np.asarray(m, bool), masks)
    packed = jax.tree.map(lambda p, m: np.packbits(m) if m.ndim and m.shape == p.shape else m, params, masks)
    trees = {"params": apply_masks(params, masks), "state": state, "masks": packed}
    for keys, _ in jax.tree_util.tree_leaves_with_path(trees):
        for key in keys:
            name = getattr(key, "key", None)
            if not isinstance(name, str) or not name or "/" in name:
                raise ValueError(
                    f"{jax.tree_util.keystr(keys)}: a file has nested dicts with names without '/', and no {key}; "
                    "rename it"
                )
    arrays = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf, order="C")
        for key, leaf in jax.tree_util.tree_leaves_with_path(trees)
    }
    # One entry, since safetensors writes several in any order: equal networks shall make equal files.
    note = {_KEY: json.dumps(dict(metadata or {}), sort_keys=True)}
    files.atomic_write(path, safetensors.numpy.save(arrays, metadata=note))


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
            metadata = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not iterable
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): write it again.") from None
    trees: dict[str, Any] = {"params": {}, "state": {}, "masks": {}}
    for name, array in arrays.items():
        kind, _, rest = name.partition("/")
        if kind == "masks":
            array = _unpacked(path, rest, array, arrays.get(f"params/{rest}"))
        *folders, leaf = name.split("/")
        place = trees
        for folder in folders:
            place = place.setdefault(folder, {})
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
