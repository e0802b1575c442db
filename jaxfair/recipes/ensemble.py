"""Networks that each lack some features, trained side by side, whose probabilities are averaged.

A feature is removed by setting its columns to 0, in training and in prediction alike: the mask of a member stands in
its model state, next to what else it knows, so nobody can forget it. Of a standardised number 0 is the mean, of
indicators none. What multiplies a 0 is never trained and never read, so that a member is a network without these
columns.

All members of all seeds are lanes of one training. What comes out is a row of networks, one for each seed, of a model
with M members: it is audited, pruned, saved and explained as any other.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import metrics, train
from jaxfair.data import Dataset
from jaxfair.recipes import _identity
from jaxfair.recipes._frame import at_least_one, frame, key_facts, keys_of, placed, seeds_of
from jaxfair.recipes._networks import Networks
from jaxfair.recipes._progress import Progress
from jaxfair.recipes.check_model import check_finite, check_model
from jaxfair.typing import Key, Model


def pool(model: Model, kept: Any) -> Model:
    """Several networks as one, whose probabilities are averaged; each sees the features that it keeps.

    Args:
      model: of the members.
      kept: ``[M, ...]``, True where a member keeps a feature of a row of ``x``.

    Returns:
      The `Model`: parameters ``[M, ...]``; a state of ``{"kept": [M, ...], "network": [M, ...]}``; logits ``[B, C]``,
      the logarithms of the mean probabilities.

    Example:
      >>> from jaxfair import models
      >>> model = pool(models.mlp(2, hidden=()), [[True, True, False], [True, False, False]])
      >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
      >>> x = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, -3.0], [1.0, -2.0, 3.0]])
      >>> logits, _ = model.apply(params, state, x, train=False)
      >>> (logits[0] == logits[1]).tolist(), (logits[0] == logits[2]).tolist()
      ([True, True], [False, False])
      >>> jnp.exp(logits).sum(1).round(5).tolist()
      [1.0, 1.0, 1.0]
    """
    masks, member = np.asarray(kept, bool), _masked(model)

    def init(key: Any, x: Any) -> tuple[Any, Any]:
        params, state = jax.vmap(lambda key: member.init(key, x))(jax.random.split(key, len(masks)))
        return params, {**state, "kept": jnp.asarray(masks)}

    def apply(params: Any, state: Any, x: Any, *, train: bool, key: Any = None) -> tuple[Any, Any]:
        def one(params: Any, state: Any, number: Any) -> tuple[Any, Any]:
            own = None if key is None else jax.random.fold_in(key, number)
            logits, state = member.apply(params, state, x, train=train, key=own)
            return jax.nn.log_softmax(logits.astype(jnp.float32)), state

        count = len(jax.tree.leaves(params)[0])
        said, state = jax.vmap(one)(params, state, jnp.arange(count))
        return jax.nn.logsumexp(said, axis=0) - np.log(count).astype(np.float32), state

    return Model(init, apply, model.prunable)


def _masked(model: Model) -> Model:
    """A network that sees what its state keeps."""

    def init(key: Any, x: Any) -> tuple[Any, Any]:
        params, state = model.init(key, x)
        return params, {"kept": jnp.ones(x.shape[1:], bool), "network": state}

    def apply(params: Any, state: Any, x: Any, *, train: bool, key: Any = None) -> tuple[Any, Any]:
        seen, more = jnp.where(state["kept"][None], x, 0), {} if key is None else {"key": key}
        logits, inner = model.apply(params, state["network"], seen, train=train, **more)
        return logits, {"kept": state["kept"], "network": inner}

    return Model(init, apply, model.prunable)


def ensemble(
    model: Model,
    dataset: Dataset,
    drop: Sequence[Sequence[str]],
    *,
    seeds: SupportsIndex | Sequence[int] | Any = 5,
    key: Key | SupportsIndex = 0,
    epochs: int = 20,
    patience: int = 2,
    learning_rate: Any = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int = 128,
    folder: str | os.PathLike[str] | None = None,
    name: str = "ensemble",
    save_every: int = 10,
    progress: Progress | bool = True,
    stop: Callable[[], bool] = lambda: False,
    lanes: str = "auto",
    steps_per_call: int = 0,
    eval_batch_size: int = 2048,
    max_data_bytes: int = 4_000_000_000,
) -> Networks:
    """Trains networks that each lack some features, for each seed.

    Args:
      model: of the members, of `jaxfair.models` or your own.
      dataset: whose rows are ``[D]``, with ``feature_names``.
      drop: for each member the features that it lacks: names of columns, or of attributes, such as ``"race"`` for all
        of ``race=...``. ``()`` lacks none. The first member begins, and goes on, as the network of :func:`dense` for
        the same seed; where it lacks none it is that network, but for an epoch that was better after :func:`dense` had
        run out of patience, while other members went on.
      seeds: as of :func:`dense`.
      key: as of :func:`dense`.
      epochs: as of :func:`dense`.
      patience: epochs in which no member of any seed has had a better validation loss, after which training ends; each
        is kept where its own was best.
      learning_rate: as of :func:`dense`.
      optimizer: as of :func:`dense`.
      batch_size: as of :func:`dense`.
      folder: as of :func:`dense`.
      name: as of :func:`dense`.
      save_every: as of :func:`dense`.
      progress: as of :func:`dense`.
      stop: as of :func:`dense`.
      lanes: as of :func:`dense`.
      steps_per_call: as of :func:`dense`.
      eval_batch_size: as of :func:`dense`.
      max_data_bytes: as of :func:`dense`.

    Returns:
      The :class:`Networks` of :func:`pool`, one for each seed, its members along the first axis of each leaf. ``epoch``
      is that of the member taken last; one that failed spoils its seed.

    Raises:
      FolderError: for a folder with the same job of other settings.
      ModelError: for a network that does not fit the data.
      ValueError: for features that there are not, and as of :func:`dense`.

    Example:
      >>> from jaxfair import data, models
      >>> rng = np.random.default_rng(0)
      >>> x = rng.normal(size=(300, 3))
      >>> mine = data.dataset(x, x[:, 0] > 0, np.arange(300) % 2, feature_names=["pay", "age", "sex"])
      >>> ensemble(models.mlp(2), mine, [(), ("gender",)])  # of names that there are: see fixout
      Traceback (most recent call last):
        ...
      ValueError: 'gender' is no feature of mine: choose from pay, age, sex.
    """
    which, kept = seeds_of(seeds), kept_features(dataset, drop)
    at_least_one(epochs=epochs, save_every=save_every)
    whole, member = pool(model, kept), _masked(model)
    check_model(model, dataset)
    here = frame(
        member, dataset, batch_size=batch_size, lanes=lanes, steps_per_call=steps_per_call,
        eval_batch_size=eval_batch_size, max_data_bytes=max_data_bytes,
    )  # fmt: skip
    count, keys = len(kept), _member_keys(keys_of(key, which), len(kept))
    example = jnp.zeros((1, *dataset.train.x.shape[1:]), jnp.float32)

    def settings() -> dict[str, Any]:
        network = jax.eval_shape(whole.init, keys[0], example)
        return _identity.dataset_facts(dataset, streamed=here.plan.streamed) | {
            "seeds": list(which), "key": key_facts(key), "drop": [list(names) for names in drop], "epochs": epochs,
            "patience": patience, "learning_rate": learning_rate, "batch_size": batch_size, "lanes": lanes,
            "optimizer": _identity.of_optimizer(optimizer, network[0]) if optimizer else "adam",
            "steps_per_call": steps_per_call, **_identity.model_facts(whole, network, dataset.train.x),
        }  # fmt: skip

    start = here.plan.lift(lambda key: member.init(jax.random.fold_in(key, 0), example))(keys)
    start = start[0], {**start[1], "kept": jnp.tile(jnp.asarray(kept), (len(which), 1))}
    check_finite(start[0], [seed for seed in which for _ in range(count)])
    validation = here.validation if len(dataset.validation.y) else None
    with placed(folder, name, settings, progress) as (place, show, clock):
        found = train.dense(
            member, here.train, validation, optimizer or optax.adam(learning_rate), keys=keys, epochs=epochs,
            batch_size=here.batch_size, patience=patience, plan=here.plan, start=start,
            meter=train.group_meter(dataset.num_groups), eval_batch_size=eval_batch_size,
            names=[{"phase": name, "seed": seed, "member": m} for seed in which for m in range(count)],
            record=place.record, checkpoints=place.checkpoints, save_every=save_every, show=show, stop=stop,
            stream=here.stream,
        )  # fmt: skip
        seconds, history = clock(), place.history()
    return _row(found, whole, which, count, history=history, seconds=seconds, said=name)


def _member_keys(keys: Key, count: int) -> Key:
    """``[S * M]``: the first member has the seed's own key, by which it begins as the network of :func:`dense`."""
    more = [[jax.random.fold_in(jax.random.fold_in(key, 2), m) for m in range(1, count)] for key in keys]
    return jnp.stack([one for key, others in zip(keys, more, strict=True) for one in (key, *others)])


def _row(found: train.Trained, model: Model, seeds: Sequence[int], count: int, *, said: str, **more: Any) -> Networks:
    """One network for each seed, of its members."""

    def seeded(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.reshape(leaf, (len(seeds), count, *leaf.shape[1:])), tree)

    failed = np.asarray(found.failed_at).reshape(len(seeds), count).max(1)
    if (failed >= 0).any():
        which = ", ".join(f"seed {seed} at step {at}" for seed, at in zip(seeds, failed, strict=True) if at >= 0)
        warnings.warn(f"{said}: the loss was not finite, of {which}: lower the learning rate.", stacklevel=3)
    return Networks(
        params=seeded(found.params), model_state=seeded(found.model_state), model=model, seeds=tuple(seeds),
        epoch=np.asarray(found.epoch).reshape(len(seeds), count).max(1), averaged=np.zeros(len(seeds), bool),
        failed_at=failed, **more,
    )  # fmt: skip


def kept_features(dataset: Dataset, drop: Sequence[Sequence[str]]) -> np.ndarray:
    """``[M, D]``, which columns each member keeps.

    Args:
      dataset: with ``feature_names``.
      drop: for each member the names of columns or attributes that it lacks.

    Raises:
      ValueError: for data without names, no member, a name that there is not, or a member that lacks everything.

    Example:
      >>> from jaxfair import data
      >>> x, half = np.random.default_rng(0).normal(size=(300, 4)), np.arange(300) % 2
      >>> mine = data.dataset(x, half, half, feature_names=["age", "race=a", "race=b", "sex"])
      >>> kept_features(mine, [(), ("race",), ("age", "race=b")]).astype(int).tolist()
      [[1, 1, 1, 1], [1, 0, 0, 1], [0, 1, 0, 1]]
    """
    names = list(dataset.feature_names)
    if not names:
        raise ValueError(f"the features of {dataset.name} have no names: give feature_names= where it is made.")
    if isinstance(drop, str) or not len(drop) or any(isinstance(lacking, str) for lacking in drop):
        raise ValueError(f"drop={drop!r}: give for each member a sequence of the features that it lacks, such as [()].")
    found = metrics.players(names)
    attribute = np.array(found.names)[found.player]
    kept = np.ones((len(drop), len(names)), bool)
    for row, lacking in zip(kept, drop, strict=True):
        for name in lacking:
            at = (attribute == name) | (np.array(names) == name)
            if not at.any():
                raise ValueError(f"{name!r} is no feature of {dataset.name}: choose from {', '.join(found.names)}.")
            row[at] = False
        if not row.any():
            raise ValueError(f"drop={list(lacking)} leaves no feature of {dataset.name}: leave at least one.")
    return kept
