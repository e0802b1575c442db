"""The first job: dense networks, one for each seed, stopped by the validation loss."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxfair import train
from jaxfair.data import Dataset
from jaxfair.recipes import _identity
from jaxfair.recipes._frame import at_least_one, frame, key_facts, keys_of, placed, seeds_of
from jaxfair.recipes._networks import Networks
from jaxfair.recipes._progress import Progress
from jaxfair.recipes.check_model import check_finite, check_model
from jaxfair.typing import Key, Model


def dense(
    model: Model,
    dataset: Dataset,
    *,
    seeds: SupportsIndex | Sequence[int] | Any = 5,
    key: Key | SupportsIndex = 0,
    epochs: int = 20,
    patience: int = 2,
    learning_rate: Any = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int = 128,
    folder: str | os.PathLike[str] | None = None,
    name: str = "dense",
    save_every: int = 10,
    progress: Progress | bool = True,
    stop: Callable[[], bool] = lambda: False,
    lanes: str = "auto",
    steps_per_call: int = 0,
    eval_batch_size: int = 2048,
    max_data_bytes: int = 4_000_000_000,
    mesh: Mesh | None = None,
) -> Networks:
    """Trains a dense network for each seed.

    Args:
      model: the network, of `jaxfair.models` or your own.
      dataset: of `jaxfair.data`. Without a validation split, the last iterate is kept.
      seeds: how many, or which.
      key: that all seeds are folded from.
      epochs: at most.
      patience: epochs without a better validation loss after which training ends.
      learning_rate: of Adam.
      optimizer: in place of it, any optax transformation.
      batch_size: examples a step.
      folder: where checkpoints go, into ``<folder>/<name>``; the same call goes on where a killed one stopped, and a
        finished one is read. None keeps nothing.
      name: of this job in the folder and on the screen.
      save_every: epochs between checkpoints.
      progress: whether to show it.
      stop: is looked at after every call, and ends the job after saving, by `jaxfair.study.Stopped`.
      lanes: seeds side by side (``"map"``), one after another (``"loop"``), or ``"auto"``: loop for convolutions on a
        CPU.
      steps_per_call: of one compiled call; 0 is an epoch, or 1 for convolutions on a CPU.
      eval_batch_size: examples per forward pass in evaluation.
      max_data_bytes: a training split larger than this is streamed from where it is.
      mesh: of :func:`jaxfair.train.mesh`, devices of this machine that share seeds and batches; by default they share
        seeds, where they divide. It is no setting: a run may go on with other devices.

    Returns:
      The :class:`Networks`. Those that failed have a ``failed_at``, and there is a warning of one line.

    Raises:
      FolderError: for a folder with the same job of other settings.
      ModelError: for a network that does not fit the data, as of :func:`check_model`.
      ValueError: for seeds, or numbers of epochs, that cannot be.

    Example:
      >>> from jaxfair import data, models
      >>> found = dense(models.mlp(10, hidden=(16,)), data.load("digits"), seeds=2, epochs=3, progress=False)
      >>> found, found.epoch.tolist()
      (Networks(2 networks of 1,210 parameters), [2, 2])
    """
    which = seeds_of(seeds)
    at_least_one(epochs=epochs, save_every=save_every)
    check_model(model, dataset)
    here = frame(
        model, dataset, batch_size=batch_size, lanes=lanes, steps_per_call=steps_per_call,
        eval_batch_size=eval_batch_size, max_data_bytes=max_data_bytes, mesh=mesh,
    )  # fmt: skip
    keys = keys_of(key, which)

    def settings() -> dict[str, Any]:
        network = jax.eval_shape(model.init, keys[0], example)
        return _identity.dataset_facts(dataset, streamed=here.plan.streamed) | {
            "seeds": list(which), "key": key_facts(key), "epochs": epochs, "patience": patience,
            "learning_rate": learning_rate,
            "optimizer": _identity.of_optimizer(optimizer, network[0]) if optimizer else "adam",
            "batch_size": batch_size, "lanes": lanes, "steps_per_call": steps_per_call,
            **_identity.model_facts(model, network, dataset.train.x),
        }  # fmt: skip

    example = jnp.zeros((1, *dataset.train.x.shape[1:]), jnp.float32)
    start = here.plan.lift(lambda key: model.init(jax.random.fold_in(key, 0), example))(keys)
    check_finite(start[0], which)
    validation = here.validation if len(dataset.validation.y) else None
    with placed(folder, name, settings, progress) as (place, show, clock):
        found = train.dense(
            model, here.train, validation, optimizer or optax.adam(learning_rate), keys=keys, epochs=epochs,
            batch_size=here.batch_size, patience=patience, plan=here.plan, start=start,
            meter=train.group_meter(dataset.num_groups), eval_batch_size=eval_batch_size,
            names=[{"phase": name, "seed": seed} for seed in which], record=place.record,
            checkpoints=place.checkpoints, save_every=save_every, show=show, stop=stop, stream=here.stream,
        )  # fmt: skip
        seconds, history = clock(), place.history()
    failed = np.asarray(found.failed_at)
    if (failed >= 0).any():
        said = ", ".join(f"seed {seed} at step {at}" for seed, at in zip(which, failed, strict=True) if at >= 0)
        warnings.warn(f"{name}: the loss was not finite, of {said}: lower the learning rate.", stacklevel=2)
    return Networks(
        params=found.params,
        model_state=found.model_state,
        model=model,
        seeds=which,
        epoch=np.asarray(found.epoch),
        averaged=np.zeros(len(which), bool),
        failed_at=failed,
        history=history,
        seconds=seconds,
    )
