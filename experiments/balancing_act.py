"""Prunes a network, and keeps every group's loss of accuracy under a bound.

    python -m experiments.balancing_act --dataset adult --groups sex,label --methods nft,nft_es,el,ceag

trains a dense network per seed, then prunes and fine-tunes it with each method, and measures on full splits what each
group lost. The claim: on the training split, gradual magnitude pruning to 98 % costs some group nearly three points
more than the average (`nft (last)`), and what training under CEAG's constraints delivers keeps that below the tolerance
at the same accuracy (`ceag`).

It writes `runs/balancing_act/<id>/`: config.json, records.jsonl, table.md and .csv, figures, report.html, weights and
checkpoints. The same command goes on where a killed run stopped. Two cores take about three minutes for the defaults.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app

from experiments import balancing_act_report, flags, progress, runs
from jaxfair import constraints, data, files, metrics, models, sparsity, study, train
from jaxfair.study import records as records_lib
from jaxfair.typing import Batch, Model

# --------------------------------------------------------------------------------------------------------------------
# What can be asked for.

#: Runs of pruning and fine-tuning. `nft_es` is another choice of iterate from the run of `nft`.
RUNS = ("nft", "el", "accuracy_gap", "ceag", "ceag_published", "nft_dense")
METHODS = (
    "nft",
    "nft_es",
    "el",
    "accuracy_gap",
    "ceag",
    "ceag_published",
    "nft_dense",
    "dense_retrained",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Prune a network without harming a subgroup."""

    # adult, digits, cifar10, cifar100, fashion_mnist, celeb_a, fairface, utkface or lfw
    dataset: str = "adult"
    # your own data instead: a .npz or .parquet file with x, y, group and optionally split
    data: str = ""
    # where the files of the dataset are or shall be put, for those that are not shipped
    data_dir: str = ""
    # the folder that you downloaded, for fairface, utkface and lfw
    folder: str = ""
    # attributes whose intersection makes the groups; the dataset's own choice by default
    groups: tuple[str, ...] = flags.items(())
    # attributes that are left out of the features (adult)
    exclude: tuple[str, ...] = flags.items(())
    # names of groups that have no bound, separated by semicolons, since names may have commas
    unconstrained: tuple[str, ...] = flags.items((), separator=";")
    # smaller groups are merged into `other`; -1 is the dataset's own choice
    min_group_size: int = -1
    # mlp, cifar_resnet20, cifar_resnet32, cifar_resnet56, or FILE.py:FUNCTION for your own
    model: str = "mlp"
    # widths of the mlp's hidden layers
    hidden: tuple[int, ...] = flags.items((256, 256), int)
    # of nft, nft_es, el, accuracy_gap, ceag, ceag_published, and the controls nft_dense, dense_retrained
    methods: tuple[str, ...] = flags.items(
        ("nft", "nft_es", "el", "ceag", "nft_dense", "dense_retrained")
    )
    # share of the prunable weights that is removed, at least 0 and below 1
    sparsity: float = 0.98
    # bound on the excess accuracy gap of every group, as a share of 1
    tolerance: float = 0.01
    # how many seeds
    seeds: int = 5
    # the key that all seeds are folded from
    seed: int = 0
    # of pruning and fine-tuning together
    epochs: int = 50
    # the sparsity rises over these first epochs
    prune_epochs: int = 15
    # examples a step
    batch_size: int = 128
    # of SGD in pruning and fine-tuning
    learning_rate: float = 0.05
    # of SGD
    momentum: float = 0.9
    # after these epochs the learning rate falls to a tenth
    decay_epochs: tuple[int, ...] = flags.items((35,), int)
    # half of it times the squared norm of the parameters is added to the loss
    weight_decay: float = 0.0
    # only parameters whose path contains this decay (with the name of the last layer: the paper's code)
    decay_only: str = ""
    # at most; dense training is stopped by the validation loss
    dense_epochs: int = 20
    # epochs without a better validation loss after which dense training ends
    dense_patience: int = 2
    # of Adam, in dense training
    dense_learning_rate: float = 1e-3
    # step size of the multipliers of ceag and accuracy_gap; 0 is 1 / (steps of an epoch), since what moves them lags by
    # half an epoch
    dual_rate: float = 0.0
    # step size of the multipliers of el; at 1e-3 and above its accuracy collapses on Adult
    el_dual_rate: float = 1e-4
    # step size of the multipliers of ceag_published
    published_dual_rate: float = 0.002
    # of ceag and accuracy_gap: plain; balanced or root, where each group has equally many places, or in proportion to
    # the root of its size, re-weighted; auto is root where a batch has a place for each group
    batches: str = "auto"
    # dual_primal, simultaneous or primal_dual
    order: str = "dual_primal"
    # the split that stops nft_es early: validation or train
    select_on: str = "validation"
    # examples per forward pass in evaluation
    eval_batch_size: int = 2048
    # steps in one compiled call; 0 is a whole epoch, or 1 for convolutions on a CPU
    steps_per_call: int = 0
    # seeds: map (side by side), loop (one after another), auto (loop for convolutions on a CPU)
    lanes: str = "auto"
    # a training split larger than this is streamed from where it is
    max_data_bytes: int = 4_000_000_000
    # epochs between checkpoints
    save_every: int = 10
    # the run goes into a folder in here
    runs_dir: str = "runs/balancing_act"
    # name of that folder; a hash of the settings by default
    id: str = ""


#: Settings that say where and how a run is done, not what it computes.
NOT_OF_THE_RUN = ("runs_dir", "id", "save_every")


def check(config: Config) -> None:
    """Raises UsageError for what can be known to be wrong before anything is loaded."""

    def demand(condition: bool, flag: str, allowed: str) -> None:
        if not condition:
            raise runs.UsageError(f"--{flag}={getattr(config, flag)}: {allowed}")

    demand(
        0 <= config.sparsity < 1,
        "sparsity",
        "give the share of weights to remove, at least 0 and below 1",
    )
    demand(
        config.tolerance >= 0,
        "tolerance",
        "give a bound of at least 0, such as 0.01 for one point of accuracy",
    )
    for method in config.methods:
        if method not in METHODS:
            raise runs.UsageError(
                f"--methods: there is no method {method!r}; choose from {', '.join(METHODS)}"
            )
    demand(len(config.methods) > 0, "methods", f"choose from {', '.join(METHODS)}")
    demand(len(set(config.methods)) == len(config.methods), "methods", "name each method once")
    for flag in (
        "seeds",
        "epochs",
        "batch_size",
        "dense_epochs",
        "dense_patience",
        "eval_batch_size",
        "save_every",
    ):
        demand(getattr(config, flag) >= 1, flag, "give a number of at least 1")
    demand(
        0 <= config.prune_epochs < config.epochs,
        "prune_epochs",
        "give at least 0 and fewer than --epochs",
    )
    for flag in (
        "learning_rate", "dense_learning_rate", "el_dual_rate", "published_dual_rate",
    ):  # fmt: skip
        demand(getattr(config, flag) > 0, flag, "give a number above 0")
    for flag in ("weight_decay", "steps_per_call", "dual_rate"):
        demand(getattr(config, flag) >= 0, flag, "give a number of at least 0")
    demand(0 <= config.momentum < 1, "momentum", "give at least 0 and below 1")
    for flag, allowed in {
        "batches": ("auto", *runs.BATCHES),
        "order": ("dual_primal", "simultaneous", "primal_dual"),
        "select_on": ("validation", "train"),
        "lanes": ("auto", "map", "loop"),
    }.items():
        demand(getattr(config, flag) in allowed, flag, f"choose from {', '.join(allowed)}")


def load_dataset(config: Config) -> data.Dataset:
    """The dataset that the flags describe."""
    options: dict[str, Any] = {}
    for flag in ("groups", "exclude", "unconstrained"):
        if getattr(config, flag):
            options[flag] = getattr(config, flag)
    if config.min_group_size >= 0:
        options["min_group_size"] = config.min_group_size
    for flag in ("data_dir", "folder"):
        if getattr(config, flag):
            options[flag] = getattr(config, flag)
    return data.load(config.data or config.dataset, **options)


def power_of(config: Config, dataset: data.Dataset) -> float | None:
    """Of `runs.BATCHES`, for these groups."""
    group, batches = np.asarray(dataset.train.group), config.batches
    size = min(config.batch_size, len(group))
    if batches == "auto":
        present = np.bincount(group, minlength=dataset.num_groups) > 0
        batches = "root" if present.all() and size >= dataset.num_groups else "plain"
    power = runs.BATCHES[batches]
    if power is not None:
        try:
            train.balanced_places(group, dataset.num_groups, size, power=power)
        except ValueError as error:
            raise runs.UsageError(
                f"--batches={batches}: {str(error).rstrip('.')}; give a larger --batch_size, or --batches=plain"
            ) from None
    return power


# --------------------------------------------------------------------------------------------------------------------
# What a run is made of.


class Setup(NamedTuple):
    """All that the phases of a run share."""

    config: Config
    dataset: data.Dataset
    model: Model
    train: Batch  # on the device, or with a lazy x
    validation: Batch
    test: Batch
    streamed: bool
    mapped: bool  # seeds side by side, or one after another
    steps_per_epoch: int
    steps_per_call: int
    batch_size: int
    predict: Callable[..., train.Predictions]  # over one lane, or over all lanes if mapped
    folder: pathlib.Path
    log: pathlib.Path
    screen: progress.Progress
    stop: Callable[[], bool]


class Phase(NamedTuple):
    """What a lane carries through a phase."""

    train: train.TrainState
    delivered: train.Snapshot  # the latest that met the bound, else the least violating
    stopped: train.Snapshot  # by early stopping


class Dense(NamedTuple):
    """A trained dense network, and how it did on the training split."""

    params: Any
    model_state: Any
    outcomes: constraints.Outcomes


def lift(function: Callable, mapped: bool, in_axes: Any = 0) -> Callable:
    """A function of one lane, over all lanes at once where they are mapped."""
    return jax.vmap(function, in_axes=in_axes) if mapped else function


def make_setup(
    config: Config,
    dataset: data.Dataset,
    model: Model,
    folder: pathlib.Path,
    stop: Callable[[], bool],
) -> Setup:
    """Decides what follows backend, model and size of the data, and moves the data to the device."""
    example = jnp.zeros((min(2, len(dataset.train.y)), *dataset.train.x.shape[1:]), jnp.float32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), example)
    convolves = train.has_convolution(
        lambda p, s, x: model.apply(p, s, x, train=False), *abstract, example
    )
    slow_loops = convolves and jax.default_backend() == "cpu"
    streamed = not data.fits(dataset.train, max_bytes=config.max_data_bytes)
    mapped = config.lanes == "map" or (config.lanes == "auto" and not slow_loops)
    if streamed:
        mapped = False
    batch_size = min(config.batch_size, len(dataset.train.y))
    steps = train.steps_per_epoch(len(dataset.train.y), batch_size)
    # Streamed, a call is a stretch of steps that are read ahead; a stop is looked for between two calls.
    per_call = config.steps_per_call or (64 if streamed else 1 if slow_loops else steps)
    predict = train.make_predict(
        model.apply, batch_size=config.eval_batch_size, looped=slow_loops or streamed
    )
    if not (slow_loops or streamed):
        predict = jax.jit(lift(predict, mapped, (0, 0, None)))

    def resident(split: Batch) -> Batch:
        return split if streamed else jax.tree.map(jnp.asarray, split)

    return Setup(
        config=config,
        dataset=dataset,
        model=model,
        train=resident(dataset.train),
        validation=resident(dataset.validation),
        test=resident(dataset.test),
        streamed=streamed,
        mapped=mapped,
        steps_per_epoch=steps,
        steps_per_call=per_call,
        batch_size=batch_size,
        predict=predict,
        folder=folder,
        log=folder / "records.jsonl",
        screen=progress.Progress(),
        stop=stop,
    )


def lane_keys(setup: Setup, lanes: Sequence[int]) -> jax.Array:
    """``[L]`` keys of these lanes (a scalar key where they run one by one)."""
    keys = jnp.stack(
        [jax.random.fold_in(jax.random.key(setup.config.seed), lane) for lane in lanes]
    )
    return keys if setup.mapped else keys[0]


def largest_gap(
    correct: jax.Array, reference: jax.Array, split: Batch, constrained: jax.Array
) -> jax.Array:
    r"""``max_g psi_g`` over the groups that have a bound."""
    gaps = metrics.accuracy_gaps(reference, correct, split.group, constrained.shape[0])
    return metrics.max_excess_accuracy_gap(jnp.where(constrained, gaps.excess, jnp.nan))


def run_phase(
    setup: Setup,
    name: str,
    lanes: Sequence[int],
    *,
    problem: constraints.Problem,
    multipliers: constraints.Multipliers,
    formulation: constraints.Formulation,
    primal: optax.GradientTransformation,
    dual: optax.GradientTransformation,
    start: Dense,
    epochs: int,
    average_from: int,
    end_epoch: Callable[[Phase, int], tuple[Phase, dict[str, Any], bool]],
    power: float | None = None,
) -> Phase:
    """Trains these lanes through one phase, from its last checkpoint where there is one."""
    config, mapped = setup.config, setup.mapped
    num_groups = setup.dataset.num_groups
    meter = train.group_meter(num_groups)
    solver = constraints.solver(
        problem.evaluate,
        multipliers=multipliers,
        primal=primal,
        dual=dual,
        formulation=formulation,
        order=config.order,
    )
    keys = lane_keys(setup, lanes)
    labels = Batch(*(jnp.asarray(f) for f in setup.train._replace(x=np.zeros(0, np.float32))))

    def init(dense: Dense) -> Phase:
        carry = problem.init(dense.model_state, dense.outcomes, labels)
        state = solver.init(dense.params, carry)
        return Phase(
            train=train.init_state(state, meter),
            delivered=train.empty_snapshot(dense.params, dense.model_state),
            stopped=train.empty_snapshot(dense.params, dense.model_state),
        )

    step = train.make_step(
        solver.step,
        meter=meter,
        average_from=average_from,
        average_decay=1.0 - 1.0 / setup.steps_per_epoch,
    )
    if setup.streamed:
        chunk = jax.jit(train.make_streamed_chunk(step))
    else:
        chunk = jax.jit(lift(train.make_chunk(step), mapped, (0, None, 0, 0)))
    people = np.asarray(setup.dataset.train.group)
    batches = {"batch_size": setup.batch_size, "num_steps": setup.steps_per_epoch}
    split = setup.train
    if power is None:

        def draw(key: jax.Array, epoch: jax.Array) -> jax.Array:
            return train.epoch_order(
                jax.random.fold_in(key, 1), epoch, num_examples=len(split.y), **batches
            )

    else:
        weight = train.balanced_weights(people, num_groups, setup.batch_size, power=power)
        split = split._replace(weight=weight if setup.streamed else jnp.asarray(weight))

        def draw(key: jax.Array, epoch: jax.Array) -> jax.Array:
            return train.balanced_order(
                jax.random.fold_in(key, 1),
                epoch,
                group=people,
                num_groups=num_groups,
                power=power,
                **batches,
            )

    orders = jax.jit(lift(draw, mapped, (0, None)))
    drawn: dict[int, jax.Array] = {}

    def advance(state: Phase, epoch: int, first: int, count: int) -> Phase:
        if epoch not in drawn:
            drawn.clear()
            drawn[epoch] = orders(keys, epoch)
        order = drawn[epoch][..., first : first + count, :]
        if setup.streamed:
            moved = state.train
            for batch in data.stream(split, np.asarray(order)):
                moved = chunk(moved, batch, keys)
        else:
            moved = chunk(state.train, split, order, keys)
        if count < setup.steps_per_epoch:
            setup.screen.steps(first + count, setup.steps_per_epoch)
        return state._replace(train=moved)

    def finish(state: Phase, epoch: int) -> train.Epoch:
        state, measured, finished = end_epoch(state, epoch)
        measured = jax.tree.map(np.asarray, measured)
        rows = []
        for i, lane in enumerate(lanes):
            values = {k: (v[i] if mapped else v) for k, v in measured.items()}
            rows.append({"phase": name, "seed": lane, "epoch": epoch, **jsonable(values)})
        fresh = meter.init()
        if mapped:
            fresh = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(lanes), *a.shape)), fresh)
        state = state._replace(train=state.train._replace(meters=fresh))
        setup.screen.epoch(name, epoch, epochs, rows)
        return train.Epoch(state, rows, finished)

    label = name if mapped else f"{name}_{lanes[0]}"
    began = time.monotonic()
    with train.Checkpoints(setup.folder / "checkpoints" / label) as store:
        latest = store.latest()
        done = -1 if latest is None else latest // setup.steps_per_epoch - 1
        records_lib.truncate(
            setup.log,
            lambda row: row["phase"] != name or row["seed"] not in lanes or row["epoch"] <= done,
        )
        pattern = jax.jit(lift(init, mapped))(start)
        if mapped:
            pattern = train.shard_lanes(pattern)
        try:
            state = train.host_loop(
                pattern,
                advance=advance,
                end_epoch=finish,
                epochs=epochs,
                steps_per_epoch=setup.steps_per_epoch,
                steps_per_call=setup.steps_per_call,
                even=not setup.streamed,
                checkpoints=store,
                save_every=config.save_every,
                record=lambda rows: records_lib.append(setup.log, *rows),
                stop=setup.stop,
            )
        finally:
            note_time(setup.folder, label, time.monotonic() - began)
    return jax.block_until_ready(state)


def jsonable(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers and lists that json can write."""
    return {k: v.item() if np.ndim(v) == 0 else v.tolist() for k, v in values.items()}


def note_time(folder: pathlib.Path, label: str, seconds: float) -> None:
    """Adds to the wall time of a phase, in a file of its own: all other files are the same in every run."""
    path = folder / "wall_times.json"
    times = json.loads(path.read_text()) if path.exists() else {}
    times[label] = round(times.get(label, 0.0) + seconds, 3)
    files.atomic_write(path, json.dumps(times, indent=2) + "\n")


def meter_values(state: train.TrainState) -> dict[str, jax.Array]:
    """The epoch's train-mode means of one lane."""
    meters = state.meters
    return {
        "loss": meters.loss / jnp.maximum(meters.steps, 1.0),
        "accuracy": jnp.sum(meters.correct) / jnp.maximum(jnp.sum(meters.count), 1.0),
        "group_accuracy": meters.correct / jnp.maximum(meters.count, 1.0),
        "failed_at": state.failed_at,
    }


# --------------------------------------------------------------------------------------------------------------------
# The phases.


def train_dense(setup: Setup, lanes: Sequence[int]) -> Phase:
    """Dense networks by Adam, stopped by the validation loss."""
    config, model, mapped = setup.config, setup.model, setup.mapped
    problem = constraints.unconstrained(model.apply, num_groups=setup.dataset.num_groups)
    example = jnp.zeros((1, *setup.train.x.shape[1:]), jnp.float32)

    def init(key: jax.Array) -> Dense:
        params, model_state = model.init(jax.random.fold_in(key, 0), example)
        nothing = jnp.zeros(len(setup.train.y))
        return Dense(params, model_state, constraints.Outcomes(nothing, nothing))

    def measure(state: Phase, epoch: int, loss: jax.Array) -> tuple[Phase, dict[str, jax.Array]]:
        solver = state.train.solver
        kept = train.keep_if(
            train.better_score(state.stopped, loss),
            state.stopped,
            solver.params,
            solver.carry.model_state,
            loss,
            epoch,
            averaged=False,
        )
        values = {**meter_values(state.train), "validation_loss": loss, "best_epoch": kept.epoch}
        return state._replace(stopped=kept), values

    measure = jax.jit(lift(measure, mapped, (0, None, 0)))

    def end_epoch(state: Phase, epoch: int) -> tuple[Phase, dict[str, Any], bool]:
        solver = state.train.solver
        predicted = setup.predict(solver.params, solver.carry.model_state, setup.validation)
        state, values = measure(state, epoch, jnp.mean(predicted.loss, axis=-1))
        waited = epoch - np.asarray(values["best_epoch"])
        return state, values, bool(np.all(waited >= config.dense_patience))

    return run_phase(
        setup,
        "dense",
        lanes,
        problem=problem,
        multipliers=constraints.dense(0),
        formulation=constraints.lagrangian(),
        primal=optax.adam(config.dense_learning_rate),
        dual=optax.sgd(1.0),
        start=jax.jit(lift(init, mapped))(lane_keys(setup, lanes)),
        epochs=config.dense_epochs,
        average_from=10**9,
        end_epoch=end_epoch,
    )


class Method(NamedTuple):
    """How a run of pruning and fine-tuning is constrained."""

    problem: constraints.Problem
    formulation: constraints.Formulation
    dual: optax.GradientTransformation
    power: float | None = None


def make_method(setup: Setup, name: str) -> Method:
    """The method of that name, for this model and these groups."""
    config, dataset = setup.config, setup.dataset
    shared: dict[str, Any] = {
        "num_groups": dataset.num_groups,
        "weight_decay": config.weight_decay,
        "decayed": lambda path: config.decay_only in path,
    }
    if name in ("nft", "nft_dense"):
        return Method(
            constraints.unconstrained(setup.model.apply, **shared),
            constraints.lagrangian(),
            optax.sgd(1.0),
        )
    shared["constrained"] = dataset.constrained
    if name == "el":
        problem = constraints.equalized_loss(setup.model.apply, **shared)
        return Method(problem, constraints.normalized_lagrangian(), optax.sgd(config.el_dual_rate))
    shared["tolerance"] = config.tolerance
    if name in ("ceag", "accuracy_gap"):
        make = constraints.excess_accuracy_gap if name == "ceag" else constraints.accuracy_gap
        power = power_of(config, dataset)
        if power is not None:
            shared["memory"] = constraints.unweighted(
                constraints.example_memory(dataset.num_groups)
            )
        dual = optax.sgd(config.dual_rate or 1 / setup.steps_per_epoch)
        return Method(
            make(setup.model.apply, **shared), constraints.normalized_lagrangian(), dual, power
        )
    problem = constraints.published_excess_accuracy_gap(
        setup.model.apply,
        start=config.prune_epochs * setup.steps_per_epoch,
        **shared,
    )
    return Method(problem, constraints.lagrangian(), optax.sgd(config.published_dual_rate))


def fine_tune(setup: Setup, name: str, lanes: Sequence[int], dense: Dense) -> Phase:
    """Gradual magnitude pruning and fine-tuning from the dense networks, by one method."""
    config, mapped, steps = setup.config, setup.mapped, setup.steps_per_epoch
    method = make_method(setup, name)
    final = 0.0 if name == "nft_dense" else config.sparsity
    begun = config.prune_epochs * steps
    if config.prune_epochs:
        schedule = sparsity.polynomial(final, begin=0, end=begun, every=steps)
    else:
        schedule = sparsity.constant(final, begin=1)
    rate = optax.piecewise_constant_schedule(
        config.learning_rate, {epoch * steps: 0.1 for epoch in config.decay_epochs}
    )
    primal = sparsity.prune(
        optax.sgd(rate, momentum=config.momentum or None), schedule, prunable=setup.model.prunable
    )
    constrained = jnp.asarray(setup.dataset.constrained)
    # Delivery looks at the final 30 % of the epochs, where the masks are fixed.
    window = max(config.epochs - math.ceil(0.3 * config.epochs), config.prune_epochs)
    selection = getattr(setup, config.select_on)

    def meter(state: Phase, outcomes: constraints.Outcomes) -> dict[str, jax.Array]:
        values = meter_values(state.train)
        reference = metrics.group_means(
            outcomes.correct, setup.train.group, setup.dataset.num_groups
        )
        lost = reference - values.pop("group_accuracy")
        overall = jnp.mean(outcomes.correct) - values["accuracy"]
        values["gaps"] = lost - overall
        values["max_gap"] = jnp.max(jnp.where(constrained, lost - overall, -jnp.inf))
        values["multipliers"] = state.train.solver.multipliers
        values["max_multiplier"] = jnp.max(jnp.abs(state.train.solver.multipliers), initial=0.0)
        return values

    def early(state: Phase, epoch: int, labels: jax.Array) -> tuple[Phase, jax.Array]:
        solver = state.train.solver
        accuracy = jnp.mean(labels == selection.y)
        kept = train.keep_if(
            train.better_score(state.stopped, -accuracy),
            state.stopped,
            solver.params,
            solver.carry.model_state,
            -accuracy,
            epoch,
            averaged=False,
        )
        return state._replace(stopped=kept), accuracy

    def deliver(
        state: Phase,
        epoch: int,
        last: jax.Array,
        average: jax.Array,
        outcomes: constraints.Outcomes,
    ) -> tuple[Phase, dict[str, jax.Array]]:
        """Looks at the last iterate and then at the average, so that the average is taken where both meet the bound."""
        solver, kept, values = state.train.solver, state.delivered, {}
        candidates = {
            "last": (last, solver.params, solver.carry.model_state),
            "average": (average, state.train.average.params, state.train.average.model_state),
        }
        for which, (labels, params, model_state) in candidates.items():
            correct = (labels == setup.train.y).astype(jnp.float32)
            gap = largest_gap(correct, outcomes.correct, setup.train, constrained)
            violation = gap - config.tolerance
            kept = train.keep_if(
                train.better_violation(kept, violation),
                kept,
                params,
                model_state,
                violation,
                epoch,
                averaged=which == "average",
            )
            values |= {f"{which}_train_gap": gap, f"{which}_train_accuracy": jnp.mean(correct)}
        return state._replace(delivered=kept), values

    meter = jax.jit(lift(meter, mapped))
    early = jax.jit(lift(early, mapped, (0, None, 0)))
    deliver = jax.jit(lift(deliver, mapped, (0, None, 0, 0, 0)))

    def end_epoch(state: Phase, epoch: int) -> tuple[Phase, dict[str, Any], bool]:
        solver, average = state.train.solver, state.train.average
        values = meter(state, dense.outcomes)
        values["sparsity"] = jnp.full_like(values["loss"], float(schedule((epoch + 1) * steps)))
        if epoch >= config.prune_epochs:
            predicted = setup.predict(solver.params, solver.carry.model_state, selection)
            state, values[f"{config.select_on}_accuracy"] = early(state, epoch, predicted.label)
        if epoch >= window:
            last = setup.predict(solver.params, solver.carry.model_state, setup.train)
            mean = setup.predict(average.params, average.model_state, setup.train)
            state, more = deliver(state, epoch, last.label, mean.label, dense.outcomes)
            values |= more
        return state, values, False

    return run_phase(
        setup,
        name,
        lanes,
        problem=method.problem,
        multipliers=constraints.dense(
            method.problem.num_constraints, equality=method.problem.equality
        ),
        formulation=method.formulation,
        primal=primal,
        dual=method.dual,
        start=dense,
        epochs=config.epochs,
        average_from=begun,
        end_epoch=end_epoch,
        power=method.power,
    )


# --------------------------------------------------------------------------------------------------------------------
# The run.


def take(tree: Any, lanes: slice) -> Any:
    """Some lanes of a mapped pytree."""
    return jax.tree.map(lambda a: a[lanes], tree)


def predictions(setup: Setup, params: Any, model_state: Any) -> dict[str, np.ndarray]:
    """Split -> ``[L, N]`` predicted classes (``[1, N]`` where lanes run one by one)."""
    labels = {
        split: np.asarray(setup.predict(params, model_state, getattr(setup, split)).label)
        for split in ("train", "validation", "test")
    }
    return labels if setup.mapped else {split: label[None] for split, label in labels.items()}


def run_lanes(setup: Setup, seeds: Sequence[int]) -> dict[str, Any]:
    """All phases of these seeds: variant -> split -> ``[L, N]`` predictions; and what failed."""
    config, mapped = setup.config, setup.mapped
    wanted = [r for r in RUNS if r in config.methods or (r == "nft" and "nft_es" in config.methods)]
    control = "dense_retrained" in config.methods
    # The dense network of another seed: same data, other initial weights and batches.
    others = [seed + config.seeds for seed in seeds] if control else []

    result: dict[str, Any] = {"labels": {}, "failed": {}, "delivered": {}, "weights": {}}
    if mapped:
        phases = [train_dense(setup, [*seeds, *others])]
        both = phases[0].stopped
        first, second = take(both, slice(0, len(seeds))), take(both, slice(len(seeds), None))
        failed = np.asarray(phases[0].train.failed_at)
        result["failed"]["dense"] = failed[: len(seeds)]
        if control:
            result["failed"]["dense_retrained"] = failed[len(seeds) :]
    else:
        phase = train_dense(setup, seeds)
        first = phase.stopped
        result["failed"]["dense"] = np.asarray(phase.train.failed_at)[None]
        if control:
            phase = train_dense(setup, others)
            second = phase.stopped
            result["failed"]["dense_retrained"] = np.asarray(phase.train.failed_at)[None]
    predicted = setup.predict(first.params, first.model_state, setup.train)
    truth = jnp.broadcast_to(jnp.asarray(setup.train.y), predicted.label.shape)
    correct = (predicted.label == truth).astype(jnp.float32)
    dense = Dense(first.params, first.model_state, constraints.Outcomes(correct, predicted.loss))
    result["labels"]["dense"] = predictions(setup, first.params, first.model_state)
    if control:
        result["labels"]["dense_retrained"] = predictions(setup, second.params, second.model_state)

    for name in wanted:
        phase = fine_tune(setup, name, seeds, dense)
        state = phase.train
        failed_at = np.atleast_1d(np.asarray(state.failed_at))
        last = predictions(setup, state.solver.params, state.solver.carry.model_state)
        delivered = predictions(setup, phase.delivered.params, phase.delivered.model_state)
        masks = sparsity.get_masks(state.solver.primal_state)
        if name in config.methods:
            result["labels"][name] = delivered
            result["labels"][f"{name} (last)"] = last
            result["failed"][name] = failed_at
            result["delivered"][name] = {
                "epoch": np.atleast_1d(np.asarray(phase.delivered.epoch)),
                "averaged": np.atleast_1d(np.asarray(phase.delivered.averaged)),
            }
            result["weights"][name] = (phase.delivered.params, phase.delivered.model_state, masks)
        if name == "nft" and "nft_es" in config.methods:
            stopped = phase.stopped
            result["labels"]["nft_es"] = predictions(setup, stopped.params, stopped.model_state)
            result["failed"]["nft_es"] = failed_at
            result["delivered"]["nft_es"] = {
                "epoch": np.atleast_1d(np.asarray(stopped.epoch)),
                "averaged": np.zeros(len(failed_at), bool),
            }
            result["weights"]["nft_es"] = (stopped.params, stopped.model_state, masks)
    if not mapped:
        result["weights"] = jax.tree.map(lambda a: np.asarray(a)[None], result["weights"])
    return result


def save_weights(folder: pathlib.Path, result: dict[str, Any], seeds: Sequence[int]) -> None:
    """One safetensors file per method and seed: the delivered weights, their masks and the model's state."""
    for name, (params, model_state, masks) in result["weights"].items():
        for i, seed in enumerate(seeds):
            one = jax.tree.map(lambda a, i=i: np.asarray(a[i]), (params, model_state, masks))
            sparsity.save(
                folder / "weights" / f"{name}_seed{seed}.safetensors", *one,
                metadata={"method": name, "seed": str(seed)},
            )  # fmt: skip


def identity(config: Config) -> dict[str, Any]:
    """All that a run is a function of: the settings, and what is in the user's own files."""
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in NOT_OF_THE_RUN}
    for flag, file in {"data": config.data, "model": config.model.rpartition(":")[0]}.items():
        if file:
            with open(file, "rb") as content:
                settings[f"{flag}_sha256"] = hashlib.file_digest(content, "sha256").hexdigest()
    return settings


def run(config: Config) -> int:
    """Everything, from the flags to the page; gives the exit code."""
    check(config)
    dataset = load_dataset(config)
    power_of(config, dataset)  # says at once what is wrong
    options = {"hidden": config.hidden} if config.model == "mlp" else {}
    model = models.build(config.model, dataset.num_classes, **options)

    settings = identity(config)
    abstract = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, *dataset.train.x.shape[1:]), jnp.float32)
    )
    # Parameters, momentum, average and two snapshots, for every seed and phase.
    needed = 8 * config.seeds * (len(config.methods) + 2) * train.tree_bytes(abstract) + 10_000_000
    with runs.opened(config, settings, needed) as folder:
        return work(config, settings, dataset, model, folder)


def work(
    config: Config,
    settings: dict[str, Any],
    dataset: data.Dataset,
    model: Model,
    folder: pathlib.Path,
) -> int:
    """Trains, measures and writes; gives the exit code."""
    seeds = list(range(config.seeds))
    with study.interruptible() as stop:
        setup = make_setup(config, dataset, model, folder, stop)
        try:
            with setup.screen:
                parts = [
                    run_lanes(setup, s) for s in ([seeds] if setup.mapped else [[s] for s in seeds])
                ]
        except study.Stopped:
            print(f"stopped and saved in {folder}; the same command goes on from there")
            return 0
    result = jax.tree.map(lambda *lanes: np.concatenate([np.asarray(a) for a in lanes]), *parts)
    failures = [
        f"{name}, seed {seed}: the loss was not finite at step {step}; last good checkpoint in "
        f"{folder / 'checkpoints' / (name if setup.mapped else f'{name}_{seed}')}"
        for name, steps in result["failed"].items()
        for seed, step in zip(seeds, steps, strict=True)
        if step >= 0
    ]
    for failure in failures:
        print(failure, file=sys.stderr)
    save_weights(folder, result, seeds)
    result["layers"] = {
        name: sparsity.sparsity_report(
            *(jax.tree.map(lambda a: a[0], tree) for tree in (params, masks))
        )
        for name, (params, _, masks) in result["weights"].items()
    }
    balancing_act_report.write(folder, settings, dataset, result, records_lib.read(setup.log))
    return 1 if failures else 0


main = runs.entry(run, "balancing_act")


if __name__ == "__main__":
    app.run(main, flags_parser=flags.parser(Config, prog="balancing_act"))
