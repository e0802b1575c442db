"""Sparse networks on disk: weights, masks and model state in one safetensors file, which holds no code."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from jaxfair import files
from jaxfair.sparsity.masks import apply_masks
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
    safetensors understands the file.

    Args:
      path: ends in ``.safetensors`` by custom.
      params: nested dicts of arrays. Weights whose mask is False are written as zeros.
      state: nested dicts of arrays, or ``{}``.
      masks: in the structure of ``params``, as :func:`get_masks` gives it.
      metadata: strings to strings.

    Raises:
      OSError: where the file cannot be written; nothing is left behind then.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
      >>> save(path, {"kernel": jnp.array([1.0, 2.0])}, {}, {"kernel": jnp.array([True, False])})
      >>> load(path).params["kernel"]
      array([1., 0.], dtype=float32)
    """
    trees = {"params": apply_masks(params, masks), "state": state, "masks": masks}
    arrays = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf, order="C")
        for key, leaf in jax.tree_util.tree_leaves_with_path(trees)
    }
    # One entry, since safetensors writes several in any order: equal networks shall make equal files.
    note = {_KEY: json.dumps(dict(metadata or {}), sort_keys=True)}
    files.atomic_write(path, safetensors.numpy.save(arrays, metadata=note))


def load(path: str | os.PathLike[str]) -> Saved:
    """Reads a file that :func:`save` wrote.

    Args:
      path: of the file.

    Returns:
      The network as numpy arrays.

    Raises:
      ValueError: for a file that is broken, or that is no sparse network.
      FileNotFoundError: where there is none.

    Example:
      See :func:`save`. With a model, ``model.apply(saved.params, saved.state, x, train=False)``:

      >>> Saved._fields
      ('params', 'state', 'masks', 'metadata')
    """
    trees: dict[str, Any] = {"params": {}, "state": {}, "masks": {}}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            for name in file.keys():  # noqa: SIM118, the handle is not iterable
                *folders, leaf = name.split("/")
                place = trees
                for folder in folders:
                    place = place.setdefault(folder, {})
                place[leaf] = file.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): write it again."
        ) from None
    if set(trees) != {"params", "state", "masks"} or not trees["params"]:
        raise ValueError(
            f"{path} holds no sparse network: it was not written by jaxfair.sparsity.save."
        )
    return Saved(trees["params"], trees["state"], trees["masks"], metadata)
