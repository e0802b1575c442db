"""Which constraints hold: the dynamics of the multipliers, factor by factor, on several data sets.

    python -m experiments.dual_dynamics

prunes networks under bounds on every group's excess accuracy gap, in two stages. `screen` plays the 48 settings of
`dual_dynamics_design.csv` (eight factors: where the estimate comes from, how multipliers weigh, the mean, the start,
the margin, the batches, the dual optimizer and its rate) on one split with a few seeds, and chooses the best by what
they did on train and validation. `confirm` plays the chosen, the recipe (the library's default) on plain and on
balanced batches, the published mode, naive fine-tuning and three baselines, on other splits with more seeds; and the
dual rate and the tolerance of some. The questions: why the published method does not keep its bound, what does, and
what optimism brings to multipliers.

All settings of a program are lanes of one compiled call; only the kind of memory makes another program. The dual
optimizers are one family, `optim.nupi`, whose gain and decay are data:

==========  ==========================  ===========================  =======================================
optimizer   proportional gain K_P       decay of the average         as it is known
==========  ==========================  ===========================  =======================================
ascent      0                           0                            gradient ascent
optimistic  tau                         0                            the optimistic gradient, optimism tau
omega       tau                         1 - 1 / tau                  Omega with optimism 1
nupi        tau                         1 - 10 / tau                 a PI controller with a filtered slope
==========  ==========================  ===========================  =======================================

The gain follows from the lag. An example's outcome was seen up to an epoch ago, half of one on average: tau = T / 2
steps. To first order the multipliers see v / (1 + tau s) of the violation v (s of the Laplace transform, in steps).
Gradient ascent integrates, eta / s; with a proportional term it is eta (1 + K_P s) / s, and K_P = tau cancels the lag:
what is left is an integrator of the true violation. The usual defaults (optimism 1 or, of Omega, effectively 10 steps)
are an order of magnitude below that. The three methods with K_P = tau differ only in how the slope is filtered: not at
all, over tau steps, over tau / 10 steps.

It writes `runs/dual_dynamics/<id>/`: config.json, records.jsonl, tables, figures, report.html, and the dense networks.
records.jsonl is the truth: what is in it is not computed again. Killed at any moment, the same command goes on and ends
with the same records on a CPU. Two cores take some two hours; the first lines say how long.
"""

import dataclasses
import hashlib
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app

from experiments import dual_dynamics_design as design
from experiments import dual_dynamics_report, flags, runs
from jaxfair import constraints, data, metrics, models, optim, sparsity, study, train
from jaxfair.constraints import problem as problems
from jaxfair.constraints.memories import Memory
from jaxfair.study import records as records_lib
from jaxfair.tree import cond_any
from jaxfair.typing import Batch, Model

# --------------------------------------------------------------------------------------------------------------------
# What can be asked for.

STAGES = ("screen", "confirm", "all")
#: A published replay buffer has so many places.
RING = 40
#: Of distillation: the share of the teacher's part of the loss, and its temperature.
DISTILLED, TEMPERATURE = 0.5, 2.0
#: A run may lose so much accuracy against naive fine-tuning.
ALLOWED_LOSS = 0.003


@dataclasses.dataclass(frozen=True)
class Config:
    """Find out which dynamics of the multipliers keep a bound."""

    # of adult_label, adult_race, planted, planted_many, cifar10; by default all, cifar10 only with --full
    data_sets: tuple[str, ...] = flags.items(())
    # screen, confirm (needs what screen has written) or all
    stage: str = "all"
    # seeds of the screening
    screen_seeds: int = 2
    # seeds of the confirmation
    seeds: int = 5
    # splits of the confirmation; the screening has another one, 0
    splits: int = 4
    # the first of them
    first_split: int = 1
    # seeds on which dual rates and tolerances are varied
    frontier_seeds: int = 3
    # epochs of pruning and fine-tuning; 0 is each data set's own number
    epochs: int = 0
    # bound on the excess accuracy gap of every group, as a share of 1
    tolerance: float = 0.01
    # step size of the multipliers in the published mode
    published_rate: float = 0.002
    # how often an epoch the exact estimate goes through the training split
    refreshes: int = 4
    # settings of the design, by number; all by default
    cells: tuple[int, ...] = flags.items((), int)
    # dual rates of the confirmation
    rates: tuple[float, ...] = flags.items((0.001, 0.01, 0.1, 1.0), float)
    # tolerances of the frontier
    tolerances: tuple[float, ...] = flags.items((0.0025, 0.005, 0.02, 0.04), float)
    # what is confirmed, by name: of nft, recipe, recipe_balanced, recipe_root, recipe_epoch, published, nft_balanced,
    # nft_distilled and best_1, ...; all by default. Without a best_ one, --stage=confirm needs no screening
    settings: tuple[str, ...] = flags.items(())
    # how many screened settings are confirmed, next to one that a model of the screening predicts
    best: int = 2
    # people in the planted sets, relative to their own number
    size: float = 1.0
    # runs side by side in one compiled call; a setting of the run, since sums may depend on it in the last digit
    lanes: int = 8
    # for an accelerator: cifar10 as well
    full: bool = False
    # where the files of cifar10 are
    data_dir: str = ""
    # the key that data, seeds and batches are folded from
    seed: int = 0
    # the run goes into a folder in here
    runs_dir: str = "runs/dual_dynamics"
    # name of that folder; a hash of the settings by default
    id: str = ""


NOT_OF_THE_RUN = ("runs_dir", "id", "stage", "data_dir")


def check(config: Config) -> None:
    """Raises UsageError for what can be known to be wrong."""
    if config.stage not in STAGES:
        raise runs.UsageError(f"--stage={config.stage}: choose from {', '.join(STAGES)}")
    for name in config.data_sets:
        if name not in DATA_SETS:
            raise runs.UsageError(
                f"--data_sets: there is no {name!r}; choose from {', '.join(DATA_SETS)}"
            )
    smallest = {"screen_seeds": 1, "seeds": 1, "splits": 1, "first_split": 1, "frontier_seeds": 0, "refreshes": 1,
                "lanes": 1, "best": 0}  # fmt: skip
    for flag, low in smallest.items():
        if getattr(config, flag) < low:
            raise runs.UsageError(
                f"--{flag}={getattr(config, flag)}: give a number of at least {low}"
            )
    if config.epochs and config.epochs < 3:
        raise runs.UsageError(
            f"--epochs={config.epochs}: give at least 3, or 0 for the data set's own"
        )
    if config.frontier_seeds > config.seeds:
        raise runs.UsageError(
            f"--frontier_seeds={config.frontier_seeds}: at most --seeds={config.seeds}"
        )
    named = (*controls(config), *BASELINES, *(f"best_{i + 1}" for i in range(config.best + 1)))
    for name in config.settings:
        if name not in named:
            raise runs.UsageError(
                f"--settings: there is no {name!r}; choose from {', '.join(named)}"
            )
    if config.settings and "nft" not in config.settings:
        raise runs.UsageError("--settings: all is measured against nft; add it")
    for cell in config.cells:
        if not 0 <= cell < len(design.read()):
            raise runs.UsageError(
                f"--cells={cell}: give numbers from 0 to {len(design.read()) - 1}"
            )
    for flag in ("tolerance", "published_rate", "size"):
        if not getattr(config, flag) > 0:
            raise runs.UsageError(f"--{flag}={getattr(config, flag)}: give a number above 0")
    for flag in ("rates", "tolerances"):
        if not all(value > 0 for value in getattr(config, flag)):
            raise runs.UsageError(f"--{flag}: give numbers above 0")


# --------------------------------------------------------------------------------------------------------------------
# Data sets and networks.


class DataSet(NamedTuple):
    """A data set, its network and its schedule.

    Attributes:
      load: ``load(config, split)``.
      model: ``model(num_classes)``.
      epochs: of pruning and fine-tuning; the first 30 % prune, the rate falls to a tenth after 70 %.
      batch_size: B.
      sparsity: of the prunable weights.
      rate: of SGD, in pruning and fine-tuning.
      cost: of a run, relative to Adult's; a first guess for the estimate of the time.
      cells: ``cells(config, split)``: the data set with groups that one may use at test time, where its own contain
        the label; else None.
    """

    load: Callable[[Config, int], data.Dataset]
    model: Callable[[int], Model]
    epochs: int
    batch_size: int
    sparsity: float
    rate: float
    cost: float
    cells: Callable[[Config, int], data.Dataset] | None = None


def _adult(groups: tuple[str, ...]) -> Callable[[Config, int], data.Dataset]:
    return lambda config, split: data.load("adult", groups=groups, split_seed=split)


def _planted(config: Config, split: int) -> data.Dataset:
    scaled = {
        name: max(round(config.size * number), low)
        for name, number, low in (
            ("num_train", 20_000, 500), ("num_validation", 4_000, 200),
            ("num_test", 8_000, 400), ("minority_test", 2_000, 100),
        )
    }  # fmt: skip
    minority = max(0.01, 80 / scaled["num_train"])  # a balanced batch has 64 of them
    key = jax.random.fold_in(jax.random.key(config.seed), 101)
    return data.planted(key=key, minority=minority, split_seed=split, **scaled)


def _planted_many(config: Config, split: int) -> data.Dataset:
    key = jax.random.fold_in(jax.random.key(config.seed), 102)
    return data.planted_many(key=key, num_groups=max(round(300 * config.size), 5), split_seed=split)


def _cifar10(config: Config, split: int) -> data.Dataset:
    options = {"data_dir": config.data_dir} if config.data_dir else {}
    return data.load("cifar10", split_seed=split, max_bytes=10**10, **options)


def _cifar_model(num_classes: int) -> Model:
    on_cpu = jax.default_backend() == "cpu"
    return models.small_cnn(num_classes) if on_cpu else models.build("cifar_resnet20", num_classes)


DATA_SETS = {
    "adult_label": DataSet(
        _adult(("sex", "label")), partial(models.mlp, hidden=(256, 256)), 50, 128, 0.98, 0.05, 1.0,
        _adult(("sex",)),
    ),
    "adult_race": DataSet(
        _adult(("race", "sex")), partial(models.mlp, hidden=(256, 256)), 50, 128, 0.98, 0.05, 1.0
    ),
    "planted": DataSet(_planted, partial(models.mlp, hidden=(64, 64)), 30, 128, 0.985, 0.05, 0.1),
    "planted_many": DataSet(
        _planted_many, partial(models.mlp, hidden=(64, 64)), 20, 600, 0.95, 0.05, 0.5
    ),
    # At 0.05 the small network, which has no norms, collapsed in two of five runs, with constraints and without.
    "cifar10": DataSet(_cifar10, _cifar_model, 30, 128, 0.95, 0.02, 8.0),
}  # fmt: skip


def chosen_sets(config: Config) -> tuple[str, ...]:
    """The data sets of a run."""
    if config.data_sets:
        return config.data_sets
    return tuple(name for name in DATA_SETS if name != "cifar10" or config.full)


# --------------------------------------------------------------------------------------------------------------------
# Settings, and the jobs of the stages.

_PUBLISHED = {name: levels[0] for name, levels in design.LEVELS.items()}
#: The default of `constraints.excess_accuracy_gap` with the normalised Lagrangian.
RECIPE = {
    "estimate": "memory", "weights": "normalized", "mean": "prevalence", "start": "before", "margin": 0.5,
    "batches": "plain", "optimizer": "ascent", "rate": 0.01,
}  # fmt: skip
#: The recipe on batches in which small groups have more places: 1 % of the people are 1 of 128 in a plain batch.
BALANCED, ROOT = (RECIPE | {"batches": batches} for batches in ("balanced", "root"))
#: The default of `balancing_act`: a rate of 1 an epoch, since the estimate lags by half of one.
EPOCH = ROOT | {"rate": 1.0, "per": "epoch"}
#: Without constraints: a dual rate of 0 keeps all multipliers at 0.
NFT = RECIPE | {"rate": 0.0}


def controls(config: Config) -> dict[str, dict[str, Any]]:
    """Settings that are known beforehand."""
    return {
        "nft": NFT, "recipe": RECIPE, "recipe_balanced": BALANCED, "recipe_root": ROOT,
        "recipe_epoch": EPOCH,
        "published": _PUBLISHED | {"rate": config.published_rate},
    }  # fmt: skip


#: Of the controls, those whose dual rate is varied.
CONSTRAINED = ("recipe", "recipe_balanced", "recipe_root", "published")
BASELINES = {
    "nft_balanced": NFT | {"loss": "balanced", "batches": "balanced"},
    "nft_distilled": NFT | {"loss": "distilled"},
}


class Job(NamedTuple):
    """One run: a lane of a program."""

    stage: str
    data_set: str
    split: int
    seed: int
    cell: str
    setting: dict[str, Any]

    @property
    def at(self) -> tuple[Any, ...]:
        """Its name in the records."""
        return (self.stage, self.data_set, self.split, self.seed, self.cell)

    @property
    def program(self) -> str:
        """What is compiled for it."""
        return "distilled" if self.setting.get("loss") == "distilled" else self.setting["estimate"]


def screen_jobs(config: Config) -> list[Job]:
    """The design and the controls, on split 0."""
    rows = design.read()
    numbers = config.cells or range(len(rows))
    settings = controls(config) | {f"{n:02d}": rows[n] for n in numbers}
    return [
        Job("screen", data_set, 0, seed, cell, setting)
        for data_set in chosen_sets(config)
        for cell, setting in settings.items()
        for seed in range(config.screen_seeds)
    ]


def confirm_jobs(config: Config, best: Mapping[str, Mapping[str, Any]]) -> list[Job]:
    """The chosen settings, controls and baselines on all splits; then rates and tolerances on the first."""
    settings = controls(config) | BASELINES | {name: dict(s) for name, s in best.items()}
    settings = {k: s for k, s in settings.items() if not config.settings or k in config.settings}
    varied: dict[str, dict[str, Any]] = {}
    for name in [n for n in (*CONSTRAINED, *list(best)[:1]) if n in settings]:
        for rate in config.rates:
            if rate != settings[name]["rate"]:
                varied[f"{name} rate {rate:g}"] = settings[name] | {"rate": rate}
    for name in [n for n in ("recipe", "published") if n in settings]:
        for tolerance in config.tolerances:
            varied[f"{name} tolerance {tolerance:g}"] = settings[name] | {"tolerance": tolerance}
    jobs = []
    for data_set in chosen_sets(config):
        jobs += [
            Job("confirm", data_set, split, seed, cell, setting)
            for split in range(config.first_split, config.first_split + config.splits)
            for cell, setting in settings.items()
            for seed in range(config.seeds)
        ]
        jobs += [
            Job("frontier", data_set, config.first_split, seed, cell, setting)
            for cell, setting in varied.items()
            for seed in range(config.frontier_seeds)
        ]
    return jobs


def chunks(jobs: Iterable[Job], lanes: int) -> list[list[Job]]:
    """The jobs of one compiled call each; a function of the jobs alone, so that a resumed run cuts them alike."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.stage, job.data_set, job.split, job.program), []).append(job)
    found = []
    for group in groups.values():
        number = -(-len(group) // lanes)
        size = -(-len(group) // number)
        found += [group[i : i + size] for i in range(0, len(group), size)]
    return found


# --------------------------------------------------------------------------------------------------------------------
# A lane.


class Lane(NamedTuple):
    """The factors that are data.

    Attributes:
      seed: position of its dense network, int32.
      normalized: 1 for normalised weights with prevalence in the proxy, 0 for the published ones.
      uniform: 1 for the unweighted mean over groups, 0 for prevalence.
      start: the first step with constraints.
      bound: what the multipliers see: the tolerance times the margin.
      tolerance: what is delivered by.
      rate: of the multipliers.
      proportional: gain, K_P.
      decay: of the average of violations.
      batches: position in `runs.BATCHES`.
      equal: 1 for a loss in which every group counts the same.
      distilled: share of the teacher in the loss.
    """

    seed: jax.Array
    normalized: jax.Array
    uniform: jax.Array
    start: jax.Array
    bound: jax.Array
    tolerance: jax.Array
    rate: jax.Array
    proportional: jax.Array
    decay: jax.Array
    batches: jax.Array
    equal: jax.Array
    distilled: jax.Array


def gains(optimizer: str, steps: int) -> tuple[float, float]:
    """Proportional gain and decay of a dual optimizer, for a signal that lags by half an epoch of so many steps.

    >>> gains("omega", 200), gains("ascent", 200)
    ((100.0, 0.99), (0.0, 0.0))
    """
    tau = max(steps / 2, 1.0)
    return {
        "ascent": (0.0, 0.0),
        "optimistic": (tau, 0.0),
        "omega": (tau, 1 - 1 / tau),
        "nupi": (tau, max(0.0, 1 - 10 / tau)),
    }[optimizer]


def lane_of(
    setting: Mapping[str, Any], seed: int, tolerance: float, steps: int, prune: int
) -> Lane:
    """A setting as numbers; ``prune`` is the number of steps of pruning."""
    tolerance = setting.get("tolerance", tolerance)
    proportional, decay = gains(setting["optimizer"], steps)
    loss = setting.get("loss", "plain")
    rate = setting["rate"] / (steps if setting.get("per") == "epoch" else 1)
    values = (
        setting["weights"] == "normalized", setting["mean"] == "uniform",
        prune if setting["start"] == "after" else 0,
        setting["margin"] * tolerance, tolerance, rate, proportional, decay,
        list(runs.BATCHES).index(setting["batches"]), loss == "balanced",
        DISTILLED if loss == "distilled" else 0.0,
    )  # fmt: skip
    return Lane(jnp.int32(seed), *(jnp.float32(value) for value in values))


def blended(normalized: jax.Array) -> constraints.Formulation:
    r"""The Lagrangian at 0, the normalised Lagrangian at 1: :math:`\lambda / (1 + b \sum |\lambda|)`."""

    def weights(multipliers: Any, strict: Any, penalties: Any, project: Any) -> jax.Array:
        del strict, penalties, project
        return multipliers / (1.0 + normalized * jnp.sum(jnp.abs(multipliers)))

    def value(multipliers: Any, violation: Any, penalties: Any, project: Any) -> jax.Array:
        return weights(multipliers, violation, penalties, project) * violation

    return constraints.lagrangian()._replace(weights=weights, value=value, needs_all=True)


def make_evaluate(
    apply: Callable[..., Any], memory: Memory, lane: Lane, teacher: jax.Array | None
) -> Callable[..., constraints.Evaluation]:
    """`constraints.excess_accuracy_gap` with its switches as data; a test holds it to the library's, bit for bit."""

    def evaluate(params: Any, carry: Any, batch: Batch, key: Any) -> constraints.Evaluation:
        ref = carry.reference
        logits, model_state = apply(params, carry.model_state, batch.x, train=True, key=key)
        weight = jnp.asarray(batch.weight)
        result = constraints.outcomes(logits, batch.y, weight)
        plain = jnp.sum(weight * result.loss) / jnp.sum(weight)
        losses = result.loss
        if teacher is not None:
            said = teacher[lane.seed, batch.index] / TEMPERATURE
            share = jax.nn.softmax(said)
            far = jnp.sum(
                share * (jax.nn.log_softmax(said) - jax.nn.log_softmax(logits / TEMPERATURE)), -1
            )
            losses = (1.0 - lane.distilled) * losses + lane.distilled * TEMPERATURE**2 * far
        equal = 1.0 / (ref.prevalence.shape[0] * jnp.maximum(ref.prevalence, 1e-12))
        counted = weight * jnp.where(lane.equal > 0, equal[batch.group], 1.0)
        other = jnp.sum(counted * losses) / jnp.sum(weight) - plain
        # The loss of a baseline is the plain one and a rest, so that without a rest not even the last digit changes.
        loss = plain + jnp.where((lane.equal > 0) | (lane.distilled > 0), other, 0.0)

        # A memory counts people: it is fed ones, whatever the weights of balanced batches are.
        active = carry.step >= lane.start
        fed = batch._replace(weight=jnp.where(active & (weight > 0), 1.0, 0.0))
        remembered = memory.push(carry.memory, fed, result.correct)
        excess, observed = excess_of(memory, remembered, ref, lane.uniform)

        by_share, seen_share = problems.group_losses(
            result.loss, batch, ref.prevalence, "prevalence"
        )
        by_count, seen_count = problems.group_losses(result.loss, batch, ref.prevalence, "batch")
        group_loss = jnp.where(lane.normalized > 0, by_share, by_count)
        surrogate = (group_loss - ref.group_loss) - (plain - ref.loss)
        return constraints.Evaluation(
            loss=loss,
            proxy=surrogate - lane.bound,
            strict=excess - lane.bound,
            proxy_observed=jnp.where(lane.normalized > 0, seen_share, seen_count),
            strict_observed=observed & active,
            carry=problems.Carry(model_state, remembered, ref, carry.step + 1),
            aux=problems.Aux(result.correct, excess),
        )

    return evaluate


def excess_of(
    memory: Memory, remembered: Any, ref: problems.Reference, uniform: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What a memory says of the excess gaps, and of which groups."""
    accuracy, observed = memory.group_means(remembered)
    gap = jnp.where(observed, ref.group_accuracy - accuracy, 0.0)
    share = jnp.where(observed, ref.prevalence, 0.0)
    average = jnp.sum(share * gap) / jnp.maximum(jnp.sum(share), 1e-12)
    unweighted = ref.accuracy - jnp.sum(jnp.where(observed, accuracy, 0.0)) / jnp.maximum(
        jnp.sum(observed), 1
    )
    return gap - jnp.where(uniform > 0, unweighted, average), observed


def make_logits(apply: Callable[..., Any], batch_size: int = 2048) -> Callable[..., jax.Array]:
    """``logits(params, model_state, x) -> [N, C]`` of one lane, in eval mode."""

    def logits(params: Any, model_state: Any, x: jax.Array) -> jax.Array:
        num = x.shape[0]
        size = min(batch_size, num)
        padded = jnp.concatenate([x, jnp.zeros((-num % size, *x.shape[1:]), x.dtype)])
        batches = padded.reshape(-1, size, *x.shape[1:])
        found = jax.lax.map(lambda b: apply(params, model_state, b, train=False)[0], batches)
        return found.reshape(-1, found.shape[-1])[:num].astype(jnp.float32)

    return logits


class Setup(NamedTuple):
    """A split of a data set, its dense networks, and the numbers of its schedule.

    Attributes:
      dataset: the data.
      model: the network.
      split: the number of the split.
      splits: the three splits on the device.
      sizes: ``[G]`` people of each group in the training split.
      keys: ``[S]``.
      params: of the dense networks, ``[S, ...]``.
      model_state: likewise.
      logits: of the dense networks on each split, ``[S, N, C]``.
      steps: of an epoch.
      epochs: how many.
      prune: epochs of pruning.
      spec: of the data set.
      cells: split -> ``[N]``, the groups that have a threshold of their own.
    """

    dataset: data.Dataset
    model: Model
    split: int
    splits: dict[str, Batch]
    sizes: np.ndarray
    keys: jax.Array
    params: Any
    model_state: Any
    logits: dict[str, jax.Array]
    steps: int
    epochs: int
    prune: int
    spec: DataSet
    cells: dict[str, np.ndarray]


#: What is mapped over lanes of a split: the weights only.
_BY_LANE = Batch(x=None, y=None, group=None, index=None, weight=0)


class Phase(NamedTuple):
    """What a lane carries."""

    train: train.TrainState
    delivered: train.Snapshot


class Program(NamedTuple):
    """The compiled functions of a data set and a kind of estimate, over lanes."""

    init: Callable[..., Phase]
    chunk: Callable[..., train.TrainState]
    meter: Callable[..., tuple[train.TrainState, dict[str, jax.Array]]]
    deliver: Callable[..., Phase]
    logits: Callable[..., jax.Array]


def make_program(config: Config, setup: Setup, program: str) -> Program:
    """The functions of a chunk of lanes; the arrays of a split are arguments, so all splits share them."""
    apply, num_groups = setup.model.apply, setup.dataset.num_groups
    steps, begun = setup.steps, setup.prune * setup.steps
    ring = program == "ring"
    memory = (
        constraints.replay_buffer(num_groups, RING) if ring else constraints.example_memory(num_groups)
    )  # fmt: skip
    schedule = sparsity.polynomial(setup.spec.sparsity, begin=0, end=begun, every=steps)
    decayed_at = round(0.7 * setup.epochs) * steps
    primal = sparsity.prune(
        optax.sgd(
            optax.piecewise_constant_schedule(setup.spec.rate, {decayed_at: 0.1}), momentum=0.9
        ),
        schedule,
        prunable=setup.model.prunable,
    )
    logits, measured = make_logits(apply), train.group_meter(num_groups)
    refresh_every = -(-steps // config.refreshes)

    def outcomes(params: Any, model_state: Any, x: jax.Array, y: jax.Array) -> Any:
        return constraints.outcomes(logits(params, model_state, x), y)

    def solver_of(lane: Lane, teacher: jax.Array | None) -> constraints.Solver:
        return constraints.solver(
            make_evaluate(apply, memory, lane, teacher if program == "distilled" else None),
            multipliers=constraints.dense(num_groups),
            primal=primal,
            dual=optim.nupi(lane.rate, lane.proportional, 1.0, lane.decay),
            formulation=blended(lane.normalized),
        )

    def init(lane: Lane, params: Any, model_state: Any, teacher: jax.Array, split: Batch) -> Phase:
        params, model_state = jax.tree.map(lambda a: a[lane.seed], (params, model_state))
        dense = constraints.outcomes(teacher[lane.seed], split.y)
        start = constraints.excess_accuracy_gap(
            apply, num_groups=num_groups, tolerance=0.0, memory=memory
        )
        carry = start.init(model_state, dense, split._replace(weight=jnp.ones(len(split.y))))
        state = solver_of(lane, teacher).init(params, carry)
        return Phase(train.init_state(state, measured), train.empty_snapshot(params, model_state))

    def chunk(
        state: train.TrainState, lane: Lane, split: Batch, order: jax.Array, key: jax.Array,
        teacher: jax.Array,
    ) -> train.TrainState:  # fmt: skip
        solver = solver_of(lane, teacher)

        def refreshed(carry: problems.Carry, params: Any) -> Any:
            right = outcomes(params, carry.model_state, split.x, split.y).correct
            return memory.init(split.group, right, jnp.ones(len(split.y)))

        def exact_step(state: Any, batch: Batch, key: Any) -> Any:
            now = cond_any(
                state.step % refresh_every == 0,
                refreshed,
                lambda carry, params: carry.memory,
                state.carry,
                state.params,
            )
            return solver.step(state._replace(carry=state.carry._replace(memory=now)), batch, key)

        step = train.make_step(
            exact_step if program == "exact" else solver.step,
            meter=measured,
            average_from=begun,
            average_decay=1.0 - 1.0 / steps,
        )
        return train.make_chunk(step)(state, split, order, key)

    def meter(state: train.TrainState, lane: Lane) -> tuple[train.TrainState, dict[str, jax.Array]]:
        ref, solver = state.solver.carry.reference, state.solver
        lost = ref.group_accuracy - state.meters.correct / jnp.maximum(state.meters.count, 1.0)
        seen, observed = excess_of(memory, solver.carry.memory, ref, lane.uniform)
        values = {
            "gaps": lost - jnp.sum(ref.prevalence * lost),
            "estimate": jnp.max(jnp.where(observed, seen, -jnp.inf)),
            "multipliers": solver.multipliers,
            "loss": state.meters.loss / jnp.maximum(state.meters.steps, 1.0),
        }
        return state._replace(meters=measured.init()), values

    def deliver(state: Phase, lane: Lane, split: Batch, teacher: jax.Array, epoch: Any) -> Phase:
        ref, kept = state.train.solver.carry.reference, state.delivered
        counts = jnp.maximum(ref.prevalence * len(split.y), 1.0)
        allowed = (
            jnp.maximum(lane.tolerance, 1.0 / counts) + 1e-6
        )  # the last digit of a float32 mean
        dense = constraints.outcomes(teacher[lane.seed], split.y).correct
        solver = state.train.solver
        candidates = (
            (False, solver.params, solver.carry.model_state),
            (True, state.train.average.params, state.train.average.model_state),
        )
        for averaged, params, model_state in candidates:
            right = outcomes(params, model_state, split.x, split.y).correct
            gaps = metrics.accuracy_gaps(dense, right, split.group, num_groups)
            violation = metrics.max_excess_accuracy_gap(gaps.excess - allowed)
            kept = train.keep_if(
                train.better_violation(kept, violation),
                kept, params, model_state, violation, epoch, averaged=averaged,
            )  # fmt: skip
        return state._replace(delivered=kept)

    return Program(
        init=jax.jit(jax.vmap(init, (0, None, None, None, None))),
        chunk=jax.jit(jax.vmap(chunk, (0, 0, _BY_LANE, 0, 0, None))),
        meter=jax.jit(jax.vmap(meter)),
        deliver=jax.jit(jax.vmap(deliver, (0, 0, None, None, None))),
        logits=jax.jit(jax.vmap(logits, (0, 0, None))),
    )


class Orders:
    """The batches of an epoch for every seed, plain and balanced; drawn once for all chunks that ask in a row."""

    def __init__(self, setup: Setup) -> None:
        group = np.asarray(setup.dataset.train.group)
        size = min(setup.spec.batch_size, len(group))
        shared = {"batch_size": size, "num_steps": setup.steps}
        self.keys = setup.keys
        self.plain = jax.jit(jax.vmap(
            lambda key, epoch: train.epoch_order(
                jax.random.fold_in(key, 1), epoch, num_examples=len(group), **shared),
            (0, None),
        ))  # fmt: skip
        self.balanced = {
            name: jax.jit(jax.vmap(
                lambda key, epoch, power=power: train.balanced_order(
                    jax.random.fold_in(key, 2), epoch, group=group,
                    num_groups=setup.dataset.num_groups, power=power, **shared),
                (0, None),
            ))
            for name, power in runs.BATCHES.items() if power is not None
        }  # fmt: skip
        self.weights = jnp.stack([
            jnp.ones(len(group)) if power is None else jnp.asarray(
                train.balanced_weights(group, setup.dataset.num_groups, size, power=power))
            for power in runs.BATCHES.values()
        ])  # fmt: skip

    def of(self, lanes: Lane, epoch: int) -> jax.Array:
        """``[L, T, B]``."""
        order, kinds = self.plain(self.keys, epoch)[lanes.seed], np.asarray(lanes.batches)
        for kind, name in enumerate(runs.BATCHES):
            if name in self.balanced and (kinds == kind).any():
                other = self.balanced[name](self.keys, epoch)[lanes.seed]
                order = jnp.where(lanes.batches[:, None, None] == kind, other, order)
        return order


def play(
    config: Config, setup: Setup, program: Program, orders: Orders, jobs: Sequence[Job]
) -> list[dict[str, Any]]:
    """The records of a chunk of jobs."""
    lanes = [
        lane_of(j.setting, j.seed, config.tolerance, setup.steps, setup.prune * setup.steps)
        for j in jobs
    ]
    lanes = jax.tree.map(lambda *a: jnp.stack(a), *lanes)
    split, teacher = setup.splits["train"], setup.logits["train"]
    mapped = split._replace(weight=orders.weights[lanes.batches.astype(jnp.int32)])
    keys = setup.keys[lanes.seed]
    state = program.init(lanes, setup.params, setup.model_state, teacher, split)
    window = max(setup.epochs - math.ceil(0.3 * setup.epochs), setup.prune)
    paths: list[dict[str, np.ndarray]] = []
    for epoch in range(setup.epochs):
        moved = program.chunk(
            state.train, lanes, mapped, orders.of(lanes, epoch), keys, teacher
        )  # fmt: skip
        moved, values = program.meter(moved, lanes)
        state = state._replace(train=moved)
        paths.append(jax.tree.map(np.asarray, values))
        if epoch >= window:
            state = program.deliver(state, lanes, split, teacher, epoch)
    found = {}
    for name, (params, model_state) in {
        "last": (state.train.solver.params, state.train.solver.carry.model_state),
        "delivered": (state.delivered.params, state.delivered.model_state),
    }.items():
        found[name] = {
            which: np.asarray(program.logits(params, model_state, batch.x))
            for which, batch in setup.splits.items()
        }
    records = []
    for i, job in enumerate(jobs):
        of_lane = {
            name: {which: logits[i] for which, logits in of.items()} for name, of in found.items()
        }
        tolerance = job.setting.get("tolerance", config.tolerance)
        failed = int(state.train.failed_at[i])
        record = describe(job) | {
            "failed_at": failed,
            "epoch": int(state.delivered.epoch[i]),
            "averaged": bool(state.delivered.averaged[i]),
            "multipliers": float(np.sum(paths[-1]["multipliers"][i])),
            "path": path_of([jax.tree.map(lambda a, i=i: a[i], p) for p in paths], setup),
        }
        for name, logits in of_lane.items():
            labels = {which: values.argmax(-1) for which, values in logits.items()}
            record[name] = judge(setup, job.seed, labels, tolerance, failed < 0)
        records.append(record)
        binary = setup.dataset.num_classes == 2
        if job.stage == "confirm" and job.cell == "nft" and binary:
            other = describe(job._replace(cell="nft_threshold")) | {"failed_at": failed}
            for name, logits in of_lane.items():
                labels = thresholded(setup, job.seed, logits)
                other[name] = judge(setup, job.seed, labels, tolerance, failed < 0)
            records.append(other)
    return records


def describe(job: Job) -> dict[str, Any]:
    """The head of a record."""
    return {
        "of": "run", "stage": job.stage, "data_set": job.data_set, "split": job.split,
        "seed": job.seed, "cell": job.cell, "setting": job.setting,
    }  # fmt: skip


def path_of(paths: Sequence[Mapping[str, np.ndarray]], setup: Setup) -> dict[str, Any]:
    """Gaps and multipliers of at most 17 epochs; of many groups, quantiles."""
    thin = sorted({*np.linspace(0, len(paths) - 1, min(len(paths), 17)).round().astype(int)})
    gaps, multipliers = (np.stack([p[k] for p in paths])[thin] for k in ("gaps", "multipliers"))
    if gaps.shape[1] > 12:
        levels = (1.0, 0.9, 0.5, 0.0)
        gaps, multipliers = (np.quantile(a, levels, axis=1).T for a in (gaps, multipliers))
    return {
        "epochs": [int(e) + 1 for e in thin],
        "gaps": _rounded(gaps),
        "estimate": _rounded(np.array([paths[e]["estimate"] for e in thin])),
        "multipliers": _rounded(multipliers),
    }


def _rounded(values: Any, digits: int = 6) -> Any:
    return np.round(np.asarray(values, np.float64), digits).tolist()


def judge(
    setup: Setup, seed: int, labels: Mapping[str, np.ndarray], tolerance: float, ok: bool
) -> dict[str, Any]:
    """What a network did on each split; groups are weighed by their share of the training split."""
    share = setup.sizes / setup.sizes.sum()
    result = {}
    for which, predicted in labels.items():
        batch = getattr(setup.dataset, which)
        group, y = np.asarray(batch.group), np.asarray(batch.y)
        dense = np.asarray(setup.logits[which][seed]).argmax(-1) == y
        right = predicted == y
        sizes = np.bincount(group, minlength=len(share))
        some = sizes > 0
        lost = (np.bincount(group, dense, len(share)) - np.bincount(group, right, len(share)))[some]
        lost, among = lost / sizes[some], share[some] / share[some].sum()
        psi = lost - among @ lost
        accuracy = among @ (np.bincount(group, right, len(share))[some] / sizes[some])
        # One person is not a violation; 1e-9 is the rounding of the float64 arithmetic above.
        over = psi - np.maximum(tolerance, 1.0 / sizes[some]) - 1e-9
        large = sizes[some] >= 200
        both = [
            len(np.unique(predicted[group == g])) > 1 for g in np.flatnonzero(sizes >= 100)
        ]  # fmt: skip
        numbers = {
            "accuracy": accuracy,
            "gap": psi.max(),
            "violation": over.max(),
            "gap_large": psi[large].max() if large.any() else np.nan,
        }
        if which == "train":
            # What the largest gap would be if nobody in particular were harmed: a coin flip for everyone who changed.
            numbers["by_chance"] = metrics.sign_flip_null(
                dense, right, group, len(share), key=setup.keys[seed], permutations=200
            ).mean
        result[which] = {k: float(v) if ok else math.nan for k, v in numbers.items()}
        result[which]["both"] = bool(all(both))
        if len(share) <= 12:
            full = np.full(len(share), np.nan)
            full[some] = psi
            result[which]["psi"] = _rounded(full)
    return result


def thresholded(setup: Setup, seed: int, logits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predictions with one threshold for each cell of people, chosen on the validation split.

    Of all thresholds the one for which accuracy comes nearest to the dense network's, in the worst of the groups that
    the cell holds; of equals, the one nearest to none at all.
    """
    margins = {which: of[:, 1] - of[:, 0] for which, of in logits.items()}
    batch, margin = setup.dataset.validation, margins["validation"]
    group, y = np.asarray(batch.group), np.asarray(batch.y)
    dense = np.asarray(setup.logits["validation"][seed]).argmax(-1) == y
    num_cells = max(int(cells.max()) for cells in setup.cells.values()) + 1
    threshold = np.zeros(num_cells)
    for cell in range(num_cells):
        inside = setup.cells["validation"] == cell
        values = np.unique(margin[inside])
        if not len(values):
            continue
        tried = np.concatenate([[0.0, values[0] - 1], (values[1:] + values[:-1]) / 2, values[-1:]])
        off = np.zeros(len(tried))
        for g in np.unique(group[inside]):
            here = inside & (group == g)
            right = (margin[here] > tried[:, None]) == y[here].astype(bool)
            off = np.maximum(off, np.abs(right.mean(1) - dense[here].mean()))
        threshold[cell] = tried[np.lexsort((np.abs(tried), off.round(9)))[0]]
    return {
        which: (margins[which] > threshold[setup.cells[which]]).astype(np.int64)
        for which in margins
    }


# --------------------------------------------------------------------------------------------------------------------
# Dense networks.


def train_dense(
    spec: DataSet, dataset: data.Dataset, model: Model, keys: jax.Array
) -> tuple[Any, Any]:
    """Adam, stopped by the validation loss; ``[S, ...]`` parameters and model states."""
    batch_size = min(spec.batch_size, len(dataset.train.y))
    steps = train.steps_per_epoch(len(dataset.train.y), batch_size)
    problem = constraints.unconstrained(model.apply, num_groups=dataset.num_groups)
    solver = constraints.solver(
        problem.evaluate, multipliers=constraints.dense(0), primal=optax.adam(1e-3), dual=optax.sgd(1.0)
    )  # fmt: skip
    split, validation = (jax.tree.map(jnp.asarray, b) for b in (dataset.train, dataset.validation))
    logits = make_logits(model.apply)

    def init(key: jax.Array, split: Batch) -> tuple[train.TrainState, train.Snapshot]:
        params, model_state = model.init(jax.random.fold_in(key, 0), split.x[:1])
        nothing = jnp.zeros(len(split.y))
        carry = problem.init(model_state, constraints.Outcomes(nothing, nothing), split)
        state = train.init_state(solver.init(params, carry))
        return state, train.empty_snapshot(params, model_state)

    chunk = train.make_chunk(
        train.make_step(solver.step, average_from=10**9, average_decay=0.0)
    )  # fmt: skip

    def epoch(
        state: train.TrainState,
        kept: train.Snapshot,
        key: jax.Array,
        split: Batch,
        validation: Batch,
        number: Any,
    ) -> tuple[train.TrainState, train.Snapshot]:
        order = train.epoch_order(
            jax.random.fold_in(key, 1), number, num_examples=len(split.y), batch_size=batch_size, num_steps=steps
        )  # fmt: skip
        state = chunk(state, split, order, key)
        params, model_state = state.solver.params, state.solver.carry.model_state
        loss = jnp.mean(
            constraints.outcomes(logits(params, model_state, validation.x), validation.y).loss
        )
        better = train.better_score(kept, loss)
        kept = train.keep_if(better, kept, params, model_state, loss, number, averaged=False)
        return state, kept

    mapped = jax.jit(jax.vmap(epoch, (0, 0, 0, None, None, None)))
    state, kept = jax.jit(jax.vmap(init, (0, None)))(keys, split)
    for number in range(20):
        state, kept = mapped(state, kept, keys, split, validation, number)
        if np.all(number - np.asarray(kept.epoch) >= 2):
            break
    return kept.params, kept.model_state


def dense_networks(
    config: Config, folder: pathlib.Path, name: str, dataset: data.Dataset, split: int, seeds: int
) -> tuple[Model, jax.Array, Any, Any]:
    """The model, keys, parameters and states of all seeds of a split, trained where they are not on disk yet."""
    spec = DATA_SETS[name]
    model = spec.model(dataset.num_classes)
    root = jax.random.fold_in(jax.random.key(config.seed), split)
    keys = jnp.stack([jax.random.fold_in(root, seed) for seed in range(seeds)])
    paths = [folder / "dense" / f"{name}_{split}_{seed}.safetensors" for seed in range(seeds)]
    if not all(path.exists() for path in paths):
        params, model_state = train_dense(spec, dataset, model, keys)
        unmasked = jax.tree.map(lambda a: np.ones((), bool), params)
        for i, path in enumerate(paths):
            one = jax.tree.map(lambda a, i=i: np.asarray(a[i]), (params, model_state))
            sparsity.save(path, *one, unmasked)
    saved = [sparsity.load(path) for path in paths]
    params, model_state = (
        jax.tree.map(lambda *a: jnp.stack([jnp.asarray(x) for x in a]), *trees)
        for trees in ([s.params for s in saved], [s.state for s in saved])
    )
    return model, keys, params, model_state


def make_setup(config: Config, folder: pathlib.Path, name: str, split: int, seeds: int) -> Setup:
    """Loads a split and its dense networks."""
    spec = DATA_SETS[name]
    dataset = spec.load(config, split)
    model, keys, params, model_state = dense_networks(config, folder, name, dataset, split, seeds)
    splits = {w: jax.tree.map(jnp.asarray, b) for w, b in dataset.splits.items()}
    logits = jax.jit(jax.vmap(make_logits(model.apply), (0, 0, None)))
    epochs = config.epochs or spec.epochs
    cells = dataset if spec.cells is None else spec.cells(config, split)
    num = len(dataset.train.y)
    return Setup(
        dataset=dataset, model=model, split=split, splits=splits,
        sizes=np.bincount(dataset.train.group, minlength=dataset.num_groups),
        keys=keys, params=params, model_state=model_state,
        logits={w: logits(params, model_state, b.x) for w, b in splits.items()},
        steps=train.steps_per_epoch(num, min(spec.batch_size, num)),
        epochs=epochs, prune=max(1, round(0.3 * epochs)), spec=spec,
        cells={w: np.asarray(b.group) for w, b in cells.splits.items()},
    )  # fmt: skip


def dense_records(setup: Setup, name: str, tolerance: float) -> list[dict[str, Any]]:
    """How well the dense networks do, and how far the next seed's is from each: the floor of the noise."""
    seeds = len(setup.keys)
    records = []
    for seed in range(seeds):
        other = (seed + 1) % seeds
        labels = {w: np.asarray(logits[other]).argmax(-1) for w, logits in setup.logits.items()}
        own = {w: np.asarray(logits[seed]).argmax(-1) for w, logits in setup.logits.items()}
        records.append({
            "of": "dense", "data_set": name, "split": setup.split, "seed": seed,
            "dense": judge(setup, seed, own, tolerance, True),
            "retrained": judge(setup, seed, labels, tolerance, seeds > 1),
            "groups": list(setup.dataset.group_names)[:12],
            "num_groups": setup.dataset.num_groups, "prune": setup.prune, "steps": setup.steps,
        })  # fmt: skip
    return records


# --------------------------------------------------------------------------------------------------------------------
# The choice.


def choose(config: Config, records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings to be confirmed, from what the screened ones did on train and validation; test is not looked at.

    On the data sets on which naive fine-tuning violates (all, if there is none), a run is *good* whose delivered
    network meets the tolerance on train with an accuracy of at least naive fine-tuning's less 0.3 points on train and
    on validation; its *debt* is what the last iterate, before any choice, lacks in both, in points. Cells are ranked by
    the number of good runs, then by the mean debt. The first few are chosen, and the setting, of all 1,536, for which a
    linear model of log(0.1 + debt), fitted to the cells, predicts least.
    """
    played = {tuple(r[k] for k in ("data_set", "cell", "seed")): r for r in records
            if r["of"] == "run" and r["stage"] == "screen"}  # fmt: skip
    sets = chosen_sets(config)
    active = [d for d in sets if dual_dynamics_report.is_active(
        [r for (of, cell, _), r in played.items() if of == d and cell == "nft"])] or list(sets)  # fmt: skip
    rows = design.read()
    good: dict[str, int] = {}
    debt: dict[str, np.ndarray] = {}
    for number in config.cells or range(len(rows)):
        cell, owed = f"{number:02d}", []
        good[cell] = 0
        for of in active:
            for seed in range(config.screen_seeds):
                run, nft = played[of, cell, seed], played[of, "nft", seed]
                least = {
                    w: nft["last"][w]["accuracy"] - ALLOWED_LOSS for w in ("train", "validation")
                }
                good[cell] += run["delivered"]["train"]["violation"] <= 0 and all(
                    run["delivered"][w]["accuracy"] >= value for w, value in least.items()
                )
                lacking = [run["last"]["train"]["violation"]] + [
                    value - run["last"][w]["accuracy"] for w, value in least.items()
                ]
                lacks = float(np.sum(np.maximum(lacking, 0.0)))  # nan, of a run that failed, stays
                owed.append(100 * lacks if math.isfinite(lacks) else 100.0)
        debt[cell] = np.array(owed)
    ranked = sorted(good, key=lambda cell: (-good[cell], debt[cell].mean(), cell))
    chosen = {f"best_{i + 1}": rows[int(cell)] for i, cell in enumerate(ranked[: config.best])}
    predicted = dual_dynamics_report.predicted_best(
        [rows[int(cell)] for cell in debt],
        np.array([np.log(0.1 + owed).mean() for owed in debt.values()]),
        list(chosen.values()),
    )
    if predicted is not None:
        chosen[f"best_{len(chosen) + 1}"] = predicted
    return chosen


# --------------------------------------------------------------------------------------------------------------------
# The run.


class Clock:
    """Seconds of the chunks, and from them how long the rest will take."""

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file
        self.measured: dict[tuple[str, str], list[float]] = {}
        for row in records_lib.read(file):
            self.add(row["data_set"], row["program"], row["seconds"] / row["lanes"])

    def add(self, data_set: str, program: str, seconds: float) -> None:
        """Seconds of one lane."""
        self.measured.setdefault((data_set, program), []).append(seconds)

    def note(self, jobs: Sequence[Job], seconds: float) -> None:
        """After a chunk."""
        job = jobs[0]
        self.add(job.data_set, job.program, seconds / len(jobs))
        records_lib.append(self.file, {
            "stage": job.stage, "data_set": job.data_set, "program": job.program, "split": job.split,
            "lanes": len(jobs), "seconds": round(seconds, 3),
        })  # fmt: skip

    def of(self, job: Job) -> float:
        """Seconds that a job will take: as its like did, or scaled from what was measured."""
        known = self.measured.get((job.data_set, job.program))
        if known:
            return float(np.median(known))

        def guess(data_set: str, program: str) -> float:
            return DATA_SETS[data_set].cost * (2.2 if program == "exact" else 1.0)

        scales = [np.median(s) / guess(*at) for at, s in self.measured.items()]
        same = [
            np.median(s) / guess(*at) for at, s in self.measured.items() if at[0] == job.data_set
        ]
        return guess(job.data_set, job.program) * float(np.median(same or scales or [10.0]))


def say(seconds: float) -> str:
    """A time that a person can plan with."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


class Run:
    """A run's folder, what is done, and what is loaded."""

    def __init__(self, config: Config, folder: pathlib.Path) -> None:
        self.config, self.folder = config, folder
        self.file = folder / "records.jsonl"
        self.records = records_lib.read(self.file)
        self.clock = Clock(folder / "times.jsonl")
        self.setup: tuple[tuple[str, int], Setup] | None = None
        self.orders: Orders | None = None
        self.programs: dict[tuple[str, str, int], Program] = {}

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """New records, as they will be read again."""
        records_lib.append(self.file, *rows)
        self.records += [records_lib.loads(records_lib.dumps(row)) for row in rows]

    @property
    def done(self) -> set[tuple[Any, ...]]:
        """The names of all records."""
        return {name_of(record) for record in self.records}

    def at(self, data_set: str, split: int) -> Setup:
        """A split, loaded unless it is the one at hand."""
        if self.setup is None or self.setup[0] != (data_set, split):
            self.setup = self.orders = None  # so that two are never in memory
            if not any(of == data_set for of, *_ in self.programs):
                self.programs.clear()
                jax.clear_caches()
            seeds = self.config.seeds if split else self.config.screen_seeds
            setup = make_setup(self.config, self.folder, data_set, split, seeds)
            self.setup, self.orders = ((data_set, split), setup), Orders(setup)
            done = self.done
            rows = dense_records(setup, data_set, self.config.tolerance)
            self.append([row for row in rows if name_of(row) not in done])
        return self.setup[1]

    def play(self, jobs: Sequence[Job], stop: Callable[[], bool], later: Sequence[Job]) -> None:
        """All jobs that are not done, chunk by chunk; ``later`` are jobs of another stage, for the estimate."""
        todo = []
        done = self.done
        for chunk in chunks(jobs, self.config.lanes):
            missing = [job for job in chunk if ("run", *job.at) not in done]
            if missing:
                todo.append(chunk)
        total = sum(map(len, todo))
        for number, chunk in enumerate(todo):
            job = chunk[0]
            setup = self.at(job.data_set, job.split)
            key = (job.data_set, job.program, setup.dataset.num_groups)
            if key not in self.programs:
                self.programs[key] = make_program(self.config, setup, job.program)
            begun = time.perf_counter()
            assert self.orders is not None
            rows = play(self.config, setup, self.programs[key], self.orders, chunk)
            done = self.done
            self.append([row for row in rows if name_of(row) not in done])
            self.clock.note(chunk, time.perf_counter() - begun)
            left = [j for c in todo[number + 1 :] for j in c]
            rest = sum(self.clock.of(j) for j in [*left, *later])
            print(
                f"{job.stage} {job.data_set} {job.program}, split {job.split}: {total - len(left)} of {total} runs, "
                f"{(time.perf_counter() - begun) / len(chunk):.1f} s a run; about {say(rest)} to go",
                file=sys.stderr,
            )
            if stop():
                raise study.Stopped


def name_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a record is the record of; there is one at most."""
    if record["of"] == "choice":
        return ("choice",)
    keys = ("data_set", "split", "seed")
    more = (record["stage"],) if record["of"] == "run" else ()
    last = (record["cell"],) if record["of"] == "run" else ()
    return (record["of"], *more, *(record[k] for k in keys), *last)


def run(config: Config) -> int:
    """Everything, from the flags to the page; gives the exit code."""
    check(config)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in NOT_OF_THE_RUN}
    settings["design_sha256"] = hashlib.sha256(design.FILE.read_bytes()).hexdigest()
    # Another backend has another network for images, and other last digits.
    settings["backend"] = jax.default_backend()
    if "cifar10" in chosen_sets(config):
        _cifar10(config, 0)  # says at once if it is not there
    with runs.opened(config, settings, 200_000_000) as folder, study.interruptible() as stop:
        this = Run(config, folder)
        if config.stage == "confirm" and needs_choice(config) and ("choice",) not in this.done:
            raise runs.UsageError(
                "--stage=confirm needs a finished screening: run --stage=screen first"
            )
        try:
            work(config, this, stop)
        except study.Stopped:
            print(f"stopped and saved in {folder}; the same command goes on from there")
            return 0
        dual_dynamics_report.write(folder, settings, records_lib.read(this.file))
    return 0


def work(config: Config, this: Run, stop: Callable[[], bool]) -> None:
    """The stages that were asked for."""
    if config.stage in ("screen", "all"):
        # For the estimate only: the settings to be confirmed are not known yet.
        unknown = {f"best_{i + 1}": RECIPE for i in range(config.best + 1)}
        later = confirm_jobs(config, unknown) if config.stage == "all" else []
        this.play(screen_jobs(config), stop, later)
        if ("choice",) not in this.done:
            this.append([{"of": "choice", "settings": choose(config, this.records)}])
    if config.stage in ("confirm", "all"):
        choices = [r["settings"] for r in this.records if r["of"] == "choice"]
        this.play(confirm_jobs(config, choices[0] if choices else {}), stop, [])


def needs_choice(config: Config) -> bool:
    """Whether anything is confirmed that only the screening knows."""
    return not config.settings or any(name.startswith("best_") for name in config.settings)


main = runs.entry(run, "dual_dynamics")


if __name__ == "__main__":
    app.run(main, flags_parser=flags.parser(Config, prog="dual_dynamics"))
