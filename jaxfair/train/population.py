"""Many networks from one key, in chunks that fit, of which only the predictions are kept.

What statements about a *distribution* of networks need (which examples compression forgets, how much two trainings
differ, memorisation): hundreds of networks, each of which says a class of each example. A class is a byte, so a
thousand networks on ten thousand examples are ten megabytes.
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import study
from jaxfair.train import identity
from jaxfair.train.checkpoints import tree_bytes
from jaxfair.train.evaluate import predictor
from jaxfair.train.networks import load, save
from jaxfair.train.plan import Plan
from jaxfair.typing import Batch, Key, Model


def population(
    train: Callable[[Key, np.ndarray], Any],
    model: Model,
    splits: Mapping[str, Batch],
    *,
    key: Key,
    size: int,
    num_classes: int,
    plan: Plan | None = None,
    at_once: int = 0,
    max_bytes: int = 2_000_000_000,
    eval_batch_size: int = 2048,
    folder: str | os.PathLike[str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Trains K networks, and says what each predicts.

    Args:
      train: ``train(keys [L], members [L]) -> networks``, with ``params`` and ``model_state`` ``[L, ...]``: such as
        :func:`jaxfair.train.dense`. Network k is member k, whose key is ``key`` folded by k: it is the same network in
        a population of any size.
      model: the network.
      splits: what is predicted, by name.
      key: of the population.
      size: K.
      num_classes: C.
      plan: of :func:`jaxfair.train.plan`; it decides how ``predict`` runs.
      at_once: networks that are trained in one call; by default as many as fit, with an optimizer of two moments, an
        average and a snapshot.
      max_bytes: what fits.
      eval_batch_size: examples per forward pass.
      folder: chunks are written there as they are done, and a run that was killed goes on after the last of them. It
        knows ``key``, ``model`` and ``splits``.
      facts: what ``train`` is a function of, such as its epochs: a folder with other ones is refused.

    Returns:
      Split -> ``[K, N]`` classes: uint8 for up to 255 classes, else uint16. The largest value of the type stands for no
      class at all: the network has diverged.

    Raises:
      FolderError: for a folder of another population.
      ValueError: for no network, or more classes than uint16 can say.

    Example:
      >>> from jaxfair import data, models
      >>> from jaxfair.train import dense
      >>> digits, model = data.load("digits"), models.mlp(10, hidden=(16,))
      >>> train = lambda keys, members: dense(model, digits.train, keys=keys, epochs=1, batch_size=126)
      >>> said = population(train, model, {"test": digits.test}, key=jax.random.key(0), size=3, num_classes=10,
      ...                   at_once=2)
      >>> said["test"].shape, said["test"].dtype, bool((said["test"] == digits.test.y).mean() > 0.5)
      ((3, 358), dtype('uint8'), True)
    """
    if size < 1:
        raise ValueError(f"size={size}: give a number of networks of at least 1.")
    if not 1 <= num_classes <= 65_535:
        raise ValueError(f"num_classes={num_classes}: give a number from 1 to 65535.")
    plan = Plan() if plan is None else plan
    dtype = np.uint8 if num_classes <= 255 else np.uint16
    first = next(iter(splits.values()))
    x = jax.ShapeDtypeStruct((1, *first.x.shape[1:]), jnp.float32)
    network = jax.eval_shape(model.init, key, x)
    at_once = at_once or (max(1, min(size, max_bytes // max(5 * tree_bytes(network), 1))) if plan.mapped else 1)
    predict = predictor(model.apply, plan, batch_size=eval_batch_size)
    if folder is not None:
        study.check_folder(folder)
        if not pathlib.Path(folder, "config.json").exists() and any(pathlib.Path(folder).glob("members_*.npz")):
            raise study.FolderError(f"{folder} holds networks, and nothing says whose: choose another folder")
        study.claim_folder(folder, _known(model, splits, network, {
            "key": identity.of_key(key), "classes": num_classes, "facts": dict(facts or {}),
        }))  # fmt: skip
    chunks: list[dict[str, np.ndarray]] = []
    for begin in range(0, size, at_once):
        members = np.arange(begin, min(begin + at_once, size))
        shapes = {name: jax.ShapeDtypeStruct((len(members), len(split.y)), dtype) for name, split in splits.items()}
        path = None
        if folder is not None:
            path = pathlib.Path(folder) / f"members_{begin}_to_{begin + len(members) - 1}.npz"
        if path is not None and path.exists():
            chunks.append(jax.tree.map(np.asarray, load(path, shapes)))
            continue
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, members)
        found = train(keys, members)
        said = {
            name: _packed(predict(found.params, found.model_state, split).label, dtype)
            for name, split in splits.items()
        }
        if path is not None:
            save(path, said)
        chunks.append(said)
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in splits}


def _known(model: Model, splits: Mapping[str, Batch], network: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder knows its population by. Of features that are read from a disk it knows no more than the shape."""
    arrays = {
        name: [split.y, *([split.x] if isinstance(split.x, np.ndarray | jax.Array) else [])]
        for name, split in splits.items()
    }
    return identity.plain({
        **more, **identity.model_facts(model, network, next(iter(splits.values())).x),
        "splits": {
            name: identity.digest([str(splits[name].x.shape), *(part for a in of for part in identity.of_array(a))])
            for name, of in arrays.items()
        },
    })  # fmt: skip


def _packed(label: jax.Array, dtype: Any) -> np.ndarray:
    """Classes in as few bits as they need; -1, no class, becomes the largest value."""
    return np.where(np.asarray(label) < 0, np.iinfo(dtype).max, label).astype(dtype)
