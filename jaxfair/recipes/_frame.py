"""What the recipes share: a plan, splits where they belong, keys, a folder, and a clock."""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import operator
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxfair import data, files, study, train
from jaxfair.data import Dataset
from jaxfair.recipes import _identity
from jaxfair.recipes._progress import Progress
from jaxfair.typing import Batch, Key, Model


class Frame(NamedTuple):
    """How a model meets a dataset on this machine.

    Attributes:
      plan: see `jaxfair.train.plan`.
      train: the training split, on the device unless it is streamed.
      validation: likewise.
      batch_size: B, at most the training split.
      steps: of an epoch.
      predict: ``predict(params, model_state, split)`` over all lanes.
      stream: reads ahead, where the plan streams.
    """

    plan: train.Plan
    train: Batch
    validation: Batch
    batch_size: int
    steps: int
    predict: Callable[..., Any]
    stream: Any


def frame(
    model: Model,
    dataset: Dataset,
    *,
    batch_size: int,
    lanes: str,
    steps_per_call: int,
    eval_batch_size: int,
    max_data_bytes: int,
    mesh: Mesh | None = None,
) -> Frame:
    """Asks once how this model is trained on these data here.

    Raises:
      ValueError: for a mesh of several processes.
    """
    plan = train.plan(
        model, dataset.train, lanes, steps_per_call=steps_per_call, max_data_bytes=max_data_bytes, mesh=mesh
    )
    if mesh is not None and mesh.is_multi_process:
        raise ValueError("mesh= of several processes: a recipe has the devices of one; train.fit takes such a mesh.")

    def resident(split: Batch) -> Batch:
        return split if plan.streamed else jax.tree.map(jnp.asarray, split)

    size = min(batch_size, len(dataset.train.y))
    return Frame(
        plan=plan,
        train=resident(dataset.train),
        validation=resident(dataset.validation),
        batch_size=size,
        steps=train.steps_per_epoch(len(dataset.train.y), size),
        predict=train.predictor(model.apply, plan, batch_size=eval_batch_size),
        # Without grain batches are read one by one.
        stream=data.stream if importlib.util.find_spec("grain") else None,
    )


def anywhere(mesh: Mesh | None, networks: Any) -> Any:
    """For a mesh the same networks on the host, from where its devices take them; networks may be none."""
    if mesh is None or networks is None:
        return networks
    held = {name: getattr(networks, name) for name in ("params", "model_state", "masks", "grids")}
    return dataclasses.replace(networks, **jax.tree.map(np.asarray, held))


def keys_of(key: Key | SupportsIndex, seeds: Sequence[int]) -> Key:
    """``[S]``: a key for each seed, folded from one by its number."""
    return jnp.stack([jax.random.fold_in(_root(key), seed) for seed in seeds])


def key_facts(key: Key | SupportsIndex) -> list[str | int]:
    """A key as a folder's settings know it."""
    return _identity.of_key(_root(key))


def _root(key: Key | SupportsIndex) -> Key:
    return key if isinstance(key, jax.Array) else jax.random.key(operator.index(key))


def seeds_of(seeds: Any) -> tuple[int, ...]:
    """Which seeds: so many from 0 on, or these.

    Raises:
      ValueError: where they are no whole numbers, none, or one twice.
    """
    try:
        which = tuple(map(operator.index, seeds if isinstance(seeds, Iterable) else range(operator.index(seeds))))
    except TypeError:
        raise ValueError(f"seeds={seeds!r}: give a whole number of them, or which ones as whole numbers.") from None
    if not which or len(set(which)) < len(which):
        raise ValueError(f"seeds={seeds!r}: give at least one, and each once.")
    return which


def at_least_one(**counts: Any) -> None:
    """Raises for a count that is no whole number, or below 1."""
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name}={count!r}: give a whole number of at least 1.")


class Place(NamedTuple):
    """Where a recipe works.

    Attributes:
      record: the file of its epochs; None without a folder.
      checkpoints: their folder.
      history: the epochs' records, as far as they are known.
      note_time: is given the seconds of this call, and gives those of all.
    """

    record: pathlib.Path | None
    checkpoints: pathlib.Path | None
    history: Callable[[], list[dict[str, Any]]]
    note_time: Callable[[float], float]


@contextlib.contextmanager
def placed(
    folder: Any, name: str, settings: Callable[[], Mapping[str, Any]], screen: Progress | bool
) -> Iterator[tuple[Place, Callable[..., None], Callable[[], float]]]:
    """The folder of a recipe (none, if None), for this process alone; a ``show``; and a clock.

    The settings are asked for only where there is a folder.

    Raises:
      FolderError: where the folder holds the same recipe with other settings or other networks.
    """
    seen: list[dict[str, Any]] = []
    calls: list[int] = []
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if screen is True:
            screen = stack.enter_context(Progress())
        shown = screen.of(name) if isinstance(screen, Progress) else lambda *done: None

        def show(done: int, total: int, rows: list[dict[str, Any]]) -> None:
            calls.append(done)
            seen.extend(rows)
            shown(done, total, rows)

        def clock() -> float:
            # A job that is only read again takes no time.
            return place.note_time(time.monotonic() - began if calls else 0.0)

        if folder is None:
            place = Place(None, None, lambda: seen, lambda seconds: seconds)
        else:
            mine = pathlib.Path(folder) / name
            study.check_folder(mine)
            stack.enter_context(study.alone_in(mine))
            study.claim_folder(mine, _identity.plain(settings()))
            log = mine / "epochs.jsonl"
            place = Place(log, mine / "checkpoints", functools.partial(_history, log), functools.partial(_add, mine))
        try:
            yield place, show, clock
        except study.Stopped:
            clock()
            raise
        except files.DamagedError as error:
            # Its records and its checkpoints belong together.
            raise files.DamagedError(error.path, error.why, f"remove {mine}, and it is trained again") from error


def _history(log: pathlib.Path) -> list[dict[str, Any]]:
    rows = study.read(log)
    for number, row in enumerate(rows, start=1):
        if not {"epoch", "seed"} <= set(row):
            raise files.DamagedError(log, f"line {number} has no epoch and seed", f"remove {log.parent}")
    return rows


def _add(folder: pathlib.Path, seconds: float) -> float:
    """Adds to the seconds of a recipe, in a file of its own: all other files are the same in every run."""
    path = folder / "seconds.json"
    try:
        before = float(json.loads(path.read_text())) if path.exists() else 0.0
    except (ValueError, TypeError):
        before = 0.0  # how long it took is no reason to end
    total = round(before + seconds, 3)
    files.atomic_write(path, json.dumps(total))
    return total
