"""Any solver through its epochs: lanes, orders, meters, records, checkpoints, and a stop between two calls."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxfair.study import records as records_lib
from jaxfair.train._compiled import drawer, mover, reader, starter
from jaxfair.train._layout import Layout, layout
from jaxfair.train.checkpoints import Checkpoints
from jaxfair.train.host import Epoch, host_loop
from jaxfair.train.mesh import on_host, told_of_lost
from jaxfair.train.meters import Meter, loss_meter
from jaxfair.train.order import shuffled, steps_per_epoch
from jaxfair.train.plan import Plan, take
from jaxfair.train.step import TrainState
from jaxfair.typing import Batch, Key

#: Every array of a split shared by all lanes.
SHARED = Batch._make([None] * 5)


class _Run(NamedTuple):
    """What the parts of :func:`fit` share."""

    solver: Any
    plan: Plan
    split: Batch
    split_axes: Batch
    epochs: int
    steps: int
    whole: bool
    meter: Meter
    order: Callable[[Key, Any], Any]
    average_from: int | None
    average_decay: float
    end_epoch: Callable[..., Epoch]
    save_every: int
    show: Callable[[int, int, list[dict[str, Any]]], None]
    stop: Callable[[], bool]
    stream: Callable[[Batch, np.ndarray], Iterator[Batch]]
    donate: bool
    layout: Layout


def fit(
    solver: Any,
    start: Any,
    split: Batch,
    *,
    keys: Key,
    epochs: int,
    batch_size: int | None,
    plan: Plan | None = None,
    meter: Meter | None = None,
    order: Callable[[Key, Any], Any] | None = None,
    num_steps: int | None = None,
    average_from: int | None = None,
    average_decay: float = 0.0,
    kept: Any = (),
    end_epoch: Callable[..., Epoch] | None = None,
    settings: Any = (),
    split_axes: Batch = SHARED,
    names: Sequence[Mapping[str, Any]] | None = None,
    record: str | os.PathLike[str] | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    save_every: int = 10,
    show: Callable[[int, int, list[dict[str, Any]]], None] = lambda done, total, rows: None,
    stop: Callable[[], bool] = lambda: False,
    stream: Callable[[Batch, np.ndarray], Iterator[Batch]] | None = None,
    donate: bool = False,
    mesh: Mesh | None = None,
) -> TrainState:
    """Trains lanes with any solver; from its last checkpoint where there is one.

    What is compiled is kept: another fit with the same ``solver``, ``meter``, ``order`` and plan compiles nothing anew.

    Args:
      solver: a :class:`~jaxfair.typing.Solver`, or a function that makes one from a lane's ``settings``.
      start: the solver's state before the first step, every leaf ``[S, ...]`` with S lanes.
      split: the training split; a lazy ``x`` where the plan streams.
      keys: ``[S]``. All that is random follows from a lane's key, its epochs and its steps.
      epochs: how many.
      batch_size: B; None where every step sees the whole split.
      plan: of :func:`jaxfair.train.plan`; by default all lanes side by side, and an epoch a call.
      meter: what is summed up over an epoch; :func:`loss_meter` by default.
      order: ``order(key, epoch) -> [T, B]``, the examples of each step; a function of both alone. By default
        :func:`epoch_order` with the lane's key folded by 1.
      num_steps: T, of an epoch; :func:`steps_per_epoch` by default (1 where a step sees the whole split).
      average_from: the number of steps after which the moving average of the iterates begins; None for no average.
      average_decay: of the average.
      kept: ``[S, ...]``, what ``end_epoch`` keeps, before the first epoch.
      end_epoch: ``end_epoch(state, epoch, values) -> Epoch``. ``state`` is the :class:`TrainState` of the lanes that
        run together, ``[L, ...]``, and ``values`` what the meter read, ``[L, ...]``. It gives the state (with another
        ``kept``, say), the values to be recorded, and whether the phase is over.
      settings: ``[S, ...]``, the numbers in which lanes differ: learning rates, tolerances, the seed of a teacher.
      split_axes: a `Batch` of 0 for the arrays of the split that every lane has of its own, else None.
      names: S dicts, what a lane's records begin with; ``{"lane": i}`` by default.
      record: a file of records (see `jaxfair.study`). What a resumed run is going to write again is dropped first.
      checkpoints: a folder. Where lanes run one after another, lane i has its own, called ``<folder>_<i>``.
      save_every: epochs between checkpoints. The end and a requested stop are always saved.
      show: ``show(steps done, steps in all, rows)`` after every call; rows are an epoch's records at its end.
      stop: is looked at after every call.
      stream: ``stream(split, order) -> batches``, such as `jaxfair.data.stream`, which reads ahead; where the plan
        streams.
      donate: each call takes over the memory of the state before it. ``end_epoch`` must not hand on arrays of the state
        without a copy then.
      mesh: of :func:`jaxfair.train.mesh`, in place of the plan's: devices that share lanes and batches. Where they are
        of several machines every process makes the same call; the first writes records and checkpoints, each shows its
        progress, and a stop that one was asked for is all's.

    Returns:
      The state after the last epoch, ``[S, ...]``. A lane whose ``failed_at`` is not -1 has stopped there.

    Raises:
      Stopped: when ``stop()`` was true, after saving.
      LostProcessError: where a process on another machine, or on this one, has ended; it ends this one with a line.
      ValueError: for a batch size that the split does not allow, or lanes or a batch that the mesh does not divide.

    Example:
      Two lanes of a linear model, each with a learning rate of its own:

      >>> import optax
      >>> from jaxfair import data, train
      >>> apply = lambda params, state, x, *, train, key=None: (x.reshape(len(x), -1) @ params, state)
      >>> make = lambda rate: train.descent(apply, optax.sgd(rate))
      >>> rates = jnp.array([0.01, 0.1])
      >>> start = jax.vmap(lambda rate: make(rate).init(jnp.zeros((64, 10))))(rates)
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> rows = []
      >>> state = fit(make, start, data.load("digits").train, keys=keys, settings=rates, epochs=2, batch_size=64,
      ...             show=lambda done, total, new: rows.extend(new))
      >>> state.solver.step.tolist(), [row["loss"] < 2 for row in rows if row["epoch"] == 1]
      ([228, 228], [True, True])
    """
    lanes, people = len(keys), len(split.y) if split_axes.y is None else split.y.shape[1]
    whole = batch_size is None
    steps = num_steps or (1 if batch_size is None else steps_per_epoch(people, batch_size))
    plan = Plan() if plan is None else plan
    lies = layout(plan.mesh if mesh is None else mesh, plan, lanes, people, batch_size)

    run = _Run(
        solver=solver, plan=plan, split=split if plan.streamed else jax.tree.map(jnp.asarray, split),
        split_axes=split_axes, epochs=epochs, steps=steps, whole=whole,
        meter=loss_meter() if meter is None else meter,
        order=shuffled(people, batch_size, steps) if order is None else order,
        average_from=average_from, average_decay=average_decay,
        end_epoch=end_epoch or (lambda state, epoch, values: Epoch(state, values)),
        save_every=save_every, show=show, stop=stop, stream=stream or _gathered, donate=donate,
        layout=lies,
    )  # fmt: skip
    named = [dict(n) for n in names] if names is not None else [{"lane": i} for i in range(lanes)]
    log = None if record is None else pathlib.Path(record)
    done = []
    for together in plan.groups(lanes):
        at = np.asarray(together)
        mine: Sequence[Any] = (start, keys, kept, settings)
        if donate or len(together) < lanes:  # what a call takes over is a copy
            mine = [take(tree, at) for tree in mine]
        folder = checkpoints
        if checkpoints is not None and not plan.mapped:
            folder = f"{os.fspath(checkpoints)}_{together[0]}"
        with told_of_lost(lies.spans):
            done.append(_phase(run, mine, together, [named[i] for i in together], log, folder))
    return done[0] if len(done) == 1 else jax.tree.map(lambda *a: jnp.concatenate(a), *done)


def _gathered(split: Batch, order: np.ndarray) -> Iterator[Batch]:
    for index in np.asarray(order):
        yield Batch(*(field[index] for field in split))


def _phase(
    run: _Run,
    mine: Sequence[Any],
    lanes: Sequence[int],
    names: Sequence[dict[str, Any]],
    log: pathlib.Path | None,
    folder: str | os.PathLike[str] | None,
) -> TrainState:
    """The lanes that run together, whose start, keys, kept and settings ``[L, ...]`` are ``mine``."""
    start, keys, kept, settings = mine

    log = log if run.layout.writes else None
    state = starter(run.meter, run.average_from is not None)(start, kept, settings)
    # The settings are no result: they are in no checkpoint, and are given again by whoever resumes.
    settings = run.layout.spread(state.settings)
    state = run.layout.place(_alone(run, state._replace(settings=())))
    advance = _advance(run, keys, settings, lanes)

    def record(rows: list[dict[str, Any]]) -> None:
        if log is not None:
            records_lib.append(log, *rows)

    arguments: dict[str, Any] = {
        "advance": advance,
        "end_epoch": _end_epoch(run, settings, names),
        "epochs": run.epochs,
        "steps_per_epoch": run.steps,
        "steps_per_call": run.plan.steps_per_call or run.steps,
        "even": not run.plan.streamed,
        "save_every": run.save_every,
        "record": record,
        "stop": lambda: run.layout.agreed(run.stop()),
    }

    def forget(done: int) -> None:
        """Drops the records of these lanes that will be written again."""
        if log is not None:
            records_lib.truncate(
                log,
                lambda row: row.get("epoch", -1) <= done or not any(n.items() <= row.items() for n in names),
            )

    if folder is None:
        forget(-1)
        found = host_loop(state, **arguments)
    else:
        with Checkpoints(folder, several=run.layout.spans) as store:
            latest = store.latest()
            forget(-1 if latest is None else latest // run.steps - 1)
            found = host_loop(state, checkpoints=store, **arguments)
    return jax.block_until_ready(_together(run, found)._replace(settings=settings))


def _alone(run: _Run, values: Any) -> Any:
    """Where lanes run one after another, the one lane without its axis."""
    return values if run.plan.mapped else take(values, 0)


def _together(run: _Run, values: Any) -> Any:
    return values if run.plan.mapped else jax.tree.map(lambda a: a[None], values)


def _advance(run: _Run, keys: Key, settings: Any, lanes: Sequence[int]) -> Callable[..., TrainState]:
    """``advance(state, epoch, first, count)`` of these lanes, as the plan says."""
    plan, axes = run.plan, run.split_axes

    where = np.asarray(lanes)
    split = Batch(
        *(field if axis is None else field[where] for field, axis in zip(run.split, axes, strict=True))
    )  # fmt: skip
    compiled = mover(
        run.solver, run.meter, average_from=run.average_from, average_decay=run.average_decay,
        mapped=plan.mapped, streamed=plan.streamed, split_axes=axes, whole=run.whole, donate=run.donate,
        layout=run.layout,
    )  # fmt: skip
    keys, settings = run.layout.spread(_alone(run, keys)), _alone(run, settings)
    if not plan.mapped:
        split = Batch(*(f if a is None else f[0] for f, a in zip(split, axes, strict=True)))
    if not plan.streamed:
        split = Batch(*(run.layout.spread(f, a) for f, a in zip(split, axes, strict=True)))
    orders = drawer(run.order, plan.mapped)
    drawn: dict[int, Any] = {}
    total = run.epochs * run.steps

    def advance(state: TrainState, epoch: int, first: int, count: int) -> TrainState:
        if epoch not in drawn:
            drawn.clear()
            drawn[epoch] = orders(keys, epoch)
        order = drawn[epoch][..., first : first + count, :]
        state = state._replace(settings=settings)
        if plan.streamed:
            for part in run.stream(split, run.layout.mine(np.asarray(order))):
                state = compiled(state, run.layout.assembled(part, order.shape[1]), keys)
        else:
            state = compiled(state, split, order, keys)
        if first + count < run.steps:
            run.show(epoch * run.steps + first + count, total, [])
        return state._replace(settings=())

    return advance


def _end_epoch(run: _Run, settings: Any, names: Sequence[dict[str, Any]]) -> Callable[[TrainState, int], Epoch]:
    """Reads the meters, asks ``end_epoch``, makes the rows, and begins the meters again."""
    read = reader(run.meter)

    def end(state: TrainState, epoch: int) -> Epoch:
        state = _together(run, state)._replace(settings=settings)
        values = run.layout.spread({**read(state.meters), "failed_at": state.failed_at}, None)
        state, measured, finished = run.end_epoch(state, epoch, values)
        measured = on_host(measured)
        rows = [
            {**name, "epoch": epoch, **{k: v[i].tolist() for k, v in measured.items()}} for i, name in enumerate(names)
        ]
        fresh = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(names), *a.shape)), run.meter.init())
        run.show((epoch + 1) * run.steps, run.epochs * run.steps, rows)
        state = state._replace(meters=fresh, settings=())
        return Epoch(run.layout.place(_alone(run, state)), rows, finished)

    return end
