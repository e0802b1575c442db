"""Which constraints hold: the dynamics of the multipliers, factor by factor, on several data sets.

    python -m experiments.dual_dynamics

prunes networks under bounds on every group's excess accuracy gap, in two stages. `screen` plays the 48 settings of
`dual_dynamics_design.csv` (eight factors: where the estimate comes from, how multipliers weigh, the mean, the start,
the margin, the batches, the dual optimizer and its rate) on one split with a few seeds, and chooses the best by what
they did on train and validation. `confirm` plays the chosen, the recipe (the library's default) on plain and on
balanced batches, the published mode, naive fine-tuning and three baselines, on other splits with more seeds; and the
dual rate and the tolerance of some. The questions: why the published method does not keep its bound, what does, and
what optimism brings to multipliers.

The design is the best of 20,000 draws of `study.fractions`, a fraction of 16 for each estimate; it is stored, not drawn
again. All levels of a factor, and all pairs of levels of two, occur equally often; the page says what is aliased.

All settings of a program are lanes of one compiled call. The dual optimizers are one family, `optim.nupi`, whose gain
and decay are data:

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
with the same records on a CPU. Two cores take some two hours.
"""

import csv
import dataclasses
import functools
import hashlib
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import constraints, data, metrics, models, optim, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.constraints import problem as problems
from jaxfair.constraints.memories import Memory
from jaxfair.report import figures
from jaxfair.study import factorial
from jaxfair.tree import cond_any
from jaxfair.typing import Batch, Model

#: Each factor with its levels; the first is the published one.
LEVELS: dict[str, tuple[Any, ...]] = {
    "estimate": ("ring", "memory", "exact"),
    "weights": ("published", "normalized"),
    "mean": ("uniform", "prevalence"),
    "start": ("after", "before"),
    "margin": (1.0, 0.5),
    "batches": ("plain", "balanced"),
    "optimizer": ("ascent", "optimistic", "omega", "nupi"),
    "rate": (0.001, 0.01, 0.1, 1.0),
}
#: The two-factor interactions that the design was chosen for.
INTERACTIONS = (
    *(("weights", other) for other in ("rate", "mean", "start")),
    *(("estimate", other) for other in ("mean", "rate", "optimizer", "batches")),
)
DESIGN = pathlib.Path(__file__).with_name("dual_dynamics_design.csv")
#: Kinds of batches: the power of a group's size that its places are in proportion to; None is without replacement from
#: all people. Re-weighted exactly, the loss is the same on average.
BATCHES = {"plain": None, "balanced": 0.0, "root": 0.5}
#: Of distillation: the share of the teacher's part of the loss, and its temperature.
DISTILLED, TEMPERATURE = 0.5, 2.0
#: A run may lose so much accuracy against naive fine-tuning.
ALLOWED_LOSS = 0.003
#: A published replay buffer has so many places.
RING = 40


def design() -> list[dict[str, Any]]:
    """The 48 settings, in the order of the file."""
    with open(DESIGN, newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: next(v for v in of if str(v) == row[name]) for name, of in LEVELS.items()}
        for row in rows
    ]


@dataclasses.dataclass(frozen=True)
class Config:
    """Find out which dynamics of the multipliers keep a bound."""

    # of adult_label, adult_race, planted, planted_many, cifar10; by default all, cifar10 only with --full
    data_sets: tuple[str, ...] = flags.several((), of=lambda: DATA_SETS, none=True)
    # screen, confirm (needs what screen has written) or all
    stage: str = flags.one("all", of=("screen", "confirm", "all"))
    # seeds of the screening
    screen_seeds: int = flags.one(2, low=1)
    # seeds of the confirmation
    seeds: int = flags.one(5, low=1)
    # splits of the confirmation; the screening has another one, 0
    splits: int = flags.one(4, low=1)
    # the first of them
    first_split: int = flags.one(1, low=1)
    # seeds on which dual rates and tolerances are varied
    frontier_seeds: int = flags.one(3, low=0)
    # epochs of pruning and fine-tuning; 0 is each data set's own number
    epochs: int = flags.one(0, low=0)
    # bound on the excess accuracy gap of every group, as a share of 1
    tolerance: float = flags.one(0.01, above=0)
    # step size of the multipliers in the published mode
    published_rate: float = flags.one(0.002, above=0)
    # how often an epoch the exact estimate goes through the training split
    refreshes: int = flags.one(4, low=1)
    # settings of the design, by number; all by default
    cells: tuple[int, ...] = flags.several((), int, low=0, high=47, none=True)
    # dual rates of the confirmation
    rates: tuple[float, ...] = flags.several((0.001, 0.01, 0.1, 1.0), float, above=0, none=True)
    # tolerances of the frontier
    tolerances: tuple[float, ...] = flags.several(
        (0.0025, 0.005, 0.02, 0.04), float, above=0, none=True
    )
    # what is confirmed, by name: of nft, recipe, recipe_balanced, recipe_root, recipe_epoch, published, nft_balanced,
    # nft_distilled and best_1, ...; all by default. Without a best_ one, --stage=confirm needs no screening
    settings: tuple[str, ...] = flags.several((), none=True)
    # how many screened settings are confirmed, next to one that a model of the screening predicts
    best: int = flags.one(2, low=0)
    # people in the planted sets, relative to their own number
    size: float = flags.one(1.0, above=0)
    # runs side by side in one compiled call; a setting of the run, since sums may depend on it in the last digit
    lanes: int = flags.one(8, low=1)
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

    def check(self) -> None:
        """What no flag says by itself."""
        if self.epochs and self.epochs < 3:
            raise flags.UsageError(
                f"--epochs={self.epochs}: give at least 3, or 0 for the data set's own"
            )
        if self.frontier_seeds > self.seeds:
            raise flags.UsageError(
                f"--frontier_seeds={self.frontier_seeds}: at most --seeds={self.seeds}"
            )
        named = [*controls(self), *BASELINES, *(f"best_{i + 1}" for i in range(self.best + 1))]
        for name in self.settings:
            if name not in named:
                raise flags.UsageError(
                    f"--settings: there is no {name!r}; choose from {', '.join(named)}"
                )
        if self.settings and "nft" not in self.settings:
            raise flags.UsageError("--settings: all is measured against nft; add it")

    @property
    def sets(self) -> tuple[str, ...]:
        """The data sets of the run."""
        every = (name for name in DATA_SETS if name != "cifar10" or self.full)
        return self.data_sets or tuple(every)


# --- data sets and networks ----------------------------------------------------------------------------------------


class DataSet(NamedTuple):
    """A data set, its network and its schedule.

    Attributes:
      name: on the page.
      load: ``load(config, split)``.
      model: ``model(num_classes)``.
      epochs: of pruning and fine-tuning; the first 30 % prune, the rate falls to a tenth after 70 %.
      sparsity: of the prunable weights.
      batch_size: B.
      rate: of SGD, in pruning and fine-tuning.
      cells: ``cells(config, split)``: the data set with groups that one may use at test time, where its own contain
        the label; else None.
    """

    name: str
    load: Callable[[Config, int], data.Dataset]
    model: Callable[[int], Model]
    epochs: int
    sparsity: float
    batch_size: int = 128
    rate: float = 0.05
    cells: Callable[[Config, int], data.Dataset] | None = None


def _adult(*groups: str) -> Callable[[Config, int], data.Dataset]:
    return lambda config, split: data.load("adult", groups=groups, split_seed=split)


def _planted(config: Config, split: int) -> data.Dataset:
    numbers = {"num_train": (20_000, 500), "num_validation": (4_000, 200), "num_test": (8_000, 400),
               "minority_test": (2_000, 100)}  # fmt: skip
    scaled = {name: max(round(config.size * of), low) for name, (of, low) in numbers.items()}
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


_wide, _narrow = (partial(models.mlp, hidden=(width, width)) for width in (256, 64))
DATA_SETS = {
    "adult_label": DataSet(
        "Adult, sex x label", _adult("sex", "label"), _wide, 50, 0.98, cells=_adult("sex")
    ),
    "adult_race": DataSet("Adult, race x sex", _adult("race", "sex"), _wide, 50, 0.98),
    "planted": DataSet("planted minority", _planted, _narrow, 30, 0.985),
    "planted_many": DataSet("planted, many groups", _planted_many, _narrow, 20, 0.95, 600),
    # At 0.05 the small network, which has no norms, collapsed in two of five runs, with constraints and without.
    "cifar10": DataSet("CIFAR-10, classes", _cifar10, _cifar_model, 30, 0.95, rate=0.02),
}
#: Those on which a gap of the test split can be told from noise.
TESTED = ("adult_label", "planted", "planted_many", "cifar10")


# --- settings, and the runs of the stages --------------------------------------------------------------------------

_PUBLISHED = {name: levels[0] for name, levels in LEVELS.items()}
#: The default of `constraints.excess_accuracy_gap` with the normalised Lagrangian.
RECIPE = {"estimate": "memory", "weights": "normalized", "mean": "prevalence", "start": "before", "margin": 0.5,
          "batches": "plain", "optimizer": "ascent", "rate": 0.01}  # fmt: skip
#: The recipe on batches in which small groups have more places: 1 % of the people are 1 of 128 in a plain batch.
BALANCED, ROOT = (RECIPE | {"batches": batches} for batches in ("balanced", "root"))
#: The default of `balancing_act`: a rate of 1 an epoch, since the estimate lags by half of one.
EPOCH = ROOT | {"rate": 1.0, "per": "epoch"}
#: Without constraints: a dual rate of 0 keeps all multipliers at 0.
NFT = RECIPE | {"rate": 0.0}
BASELINES = {
    "nft_balanced": NFT | {"loss": "balanced", "batches": "balanced"},
    "nft_distilled": NFT | {"loss": "distilled"},
}
RECIPES = {"recipe": RECIPE, "recipe_balanced": BALANCED, "recipe_root": ROOT, "recipe_epoch": EPOCH}  # fmt: skip
NAMES = ("of", "stage", "data_set", "split", "seed", "cell")


def controls(config: Config) -> dict[str, dict[str, Any]]:
    """Settings that are known beforehand."""
    return {"nft": NFT, **RECIPES, "published": _PUBLISHED | {"rate": config.published_rate}}


def jobs(stage: str, data_set: str, splits: Iterable[int], settings: Mapping[str, Mapping[str, Any]],
         seeds: int) -> list[study.Cell]:  # fmt: skip
    """Runs: what names them, their settings, and what is compiled for them."""
    return [
        {"of": "run", "stage": stage, "data_set": data_set, "split": split, "seed": seed, "cell": cell,
         "setting": setting, "program": program_of(setting)}
        for split in splits for cell, setting in settings.items() for seed in range(seeds)
    ]  # fmt: skip


def program_of(setting: Mapping[str, Any]) -> str:
    """What is compiled for a setting."""
    return "distilled" if setting.get("loss") == "distilled" else setting["estimate"]


def screen_jobs(config: Config) -> list[study.Cell]:
    """The design and the controls, on split 0."""
    rows = design()
    settings = controls(config) | {f"{n:02d}": rows[n] for n in config.cells or range(len(rows))}
    return [
        job
        for data_set in config.sets
        for job in jobs("screen", data_set, [0], settings, config.screen_seeds)
    ]


def confirm_jobs(config: Config, best: Mapping[str, Mapping[str, Any]]) -> list[study.Cell]:
    """The chosen settings, controls and baselines on all splits; then rates and tolerances on the first."""
    settings = controls(config) | BASELINES | {name: dict(s) for name, s in best.items()}
    settings = {k: s for k, s in settings.items() if not config.settings or k in config.settings}
    varied = {
        f"{name} rate {rate:g}": settings[name] | {"rate": rate}
        for name in ("recipe", "recipe_balanced", "recipe_root", "published", *list(best)[:1])
        if name in settings
        for rate in config.rates
        if rate != settings[name]["rate"]
    } | {
        f"{name} tolerance {tolerance:g}": settings[name] | {"tolerance": tolerance}
        for name in ("recipe", "published")
        if name in settings
        for tolerance in config.tolerances
    }
    splits = range(config.first_split, config.first_split + config.splits)
    return [
        job
        for of in config.sets
        for job in (
            *jobs("confirm", of, splits, settings, config.seeds),
            *jobs("frontier", of, splits[:1], varied, config.frontier_seeds),
        )
    ]


# --- a lane --------------------------------------------------------------------------------------------------------


class Lane(NamedTuple):
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
        list(BATCHES).index(setting["batches"]), loss == "balanced",
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


def logits_of(apply: Callable[..., Any], batch_size: int = 2048) -> Callable[..., jax.Array]:
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
      name: of the data set.
      dataset: the data.
      model: the network.
      splits: the three splits on the device.
      share: ``[G]``, of the groups in the training split.
      cells: split -> ``[N]``, the groups that have a threshold of their own.
      keys: ``[S]``.
      dense: the networks, ``[S, ...]``.
      logits: of the dense networks on each split, ``[S, N, C]``.
      steps: of an epoch.
      epochs: how many.
      prune: epochs of pruning.
      weights: ``[K, N]`` of the examples, for each of `BATCHES`.
      orders: for each of `BATCHES` ``order(epoch) -> [S, T, B]``.
    """

    name: str
    dataset: data.Dataset
    model: Model
    splits: dict[str, Batch]
    share: np.ndarray
    cells: dict[str, np.ndarray]
    keys: jax.Array
    dense: train.Networks
    logits: dict[str, jax.Array]
    steps: int
    epochs: int
    prune: int
    weights: jax.Array
    orders: list[Callable[[int], jax.Array]]


def make_setup(config: Config, folder: pathlib.Path, name: str, split: int) -> Setup:
    """Loads a split and its dense networks, which are trained where they are not on disk yet."""
    spec = DATA_SETS[name]
    dataset = spec.load(config, split)
    model = spec.model(dataset.num_classes)
    root = jax.random.fold_in(jax.random.key(config.seed), split)
    seeds = config.seeds if split else config.screen_seeds
    keys = jnp.stack([jax.random.fold_in(root, seed) for seed in range(seeds)])
    size = min(spec.batch_size, len(dataset.train.y))
    found = train.dense(
        model, dataset.train, dataset.validation, optax.adam(1e-3), keys=keys, epochs=20, patience=2,
        batch_size=size, file=folder / "dense" / f"{name}_{split}.npz",
    )  # fmt: skip
    dense = train.Networks(found.params, found.model_state)
    splits = {w: jax.tree.map(jnp.asarray, b) for w, b in dataset.splits.items()}
    logits = jax.jit(jax.vmap(logits_of(model.apply), (0, 0, None)))
    group = np.asarray(dataset.train.group)
    steps, epochs = train.steps_per_epoch(len(group), size), config.epochs or spec.epochs
    own = dataset if spec.cells is None else spec.cells(config, split)

    def order(power: float | None) -> Callable[[int], jax.Array]:
        def of(key: jax.Array, epoch: Any) -> jax.Array:
            if power is None:
                key = jax.random.fold_in(key, 1)
                return train.epoch_order(
                    key, epoch, num_examples=len(group), batch_size=size, num_steps=steps
                )
            return train.balanced_order(
                jax.random.fold_in(key, 2), epoch, group=group, num_groups=dataset.num_groups,
                power=power, batch_size=size, num_steps=steps,
            )  # fmt: skip

        # All chunks of a split ask for the same epochs in turn.
        return partial(jax.jit(jax.vmap(of, (0, None))), keys)

    def weight(power: float | None) -> jax.Array:
        if power is None:
            return jnp.ones(len(group))
        return jnp.asarray(train.balanced_weights(group, dataset.num_groups, size, power=power))

    return Setup(
        name=name, dataset=dataset, model=model, splits=splits, keys=keys, dense=dense,
        share=np.bincount(group, minlength=dataset.num_groups) / len(group),
        cells={w: np.asarray(b.group) for w, b in own.splits.items()},
        logits={w: logits(*dense, b.x) for w, b in splits.items()},
        steps=steps, epochs=epochs, prune=max(1, round(0.3 * epochs)),
        weights=jnp.stack([weight(power) for power in BATCHES.values()]),
        orders=[order(power) for power in BATCHES.values()],
    )  # fmt: skip


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


@functools.lru_cache(maxsize=32)
def make_program(
    program: str, name: str, refreshes: int, num_groups: int, num_classes: int, steps: int, epochs: int,
    prune: int,
) -> Program:  # fmt: skip
    """The functions of a chunk of lanes; the arrays of a split are arguments, so that all splits share them.

    It is a loop of its own, and not `train.fit`, since lanes differ in their batches, and the exact estimate needs the
    whole split in a step; and what is compiled serves all chunks.
    """
    spec = DATA_SETS[name]
    model = spec.model(num_classes)
    begun, refresh_every = prune * steps, -(-steps // refreshes)
    memory = (
        constraints.replay_buffer(num_groups, RING)
        if program == "ring"
        else constraints.example_memory(num_groups)
    )
    decayed = {round(0.7 * epochs) * steps: 0.1}
    primal = sparsity.prune(
        optax.sgd(optax.piecewise_constant_schedule(spec.rate, decayed), momentum=0.9),
        sparsity.polynomial(spec.sparsity, begin=0, end=begun, every=steps),
        prunable=model.prunable,
    )
    logits, measured = logits_of(model.apply), train.group_meter(num_groups)

    def outcomes(network: train.Networks, split: Batch) -> Any:
        return constraints.outcomes(logits(*network, split.x), split.y)

    def solver_of(lane: Lane, teacher: jax.Array) -> constraints.Solver:
        return constraints.solver(
            make_evaluate(model.apply, memory, lane, teacher if program == "distilled" else None),
            multipliers=constraints.dense(num_groups),
            primal=primal,
            dual=optim.nupi(lane.rate, lane.proportional, 1.0, lane.decay),
            formulation=blended(lane.normalized),
        )

    def init(lane: Lane, networks: train.Networks, teacher: jax.Array, split: Batch) -> Phase:
        params, model_state = jax.tree.map(lambda a: a[lane.seed], networks)
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

        def refreshed(carry: Any, params: Any) -> Any:
            right = outcomes(train.Networks(params, carry.model_state), split).correct
            return memory.init(split.group, right, jnp.ones(len(split.y)))

        def exact_step(state: Any, batch: Batch, key: Any) -> Any:
            due = state.step % refresh_every == 0
            now = cond_any(
                due, refreshed, lambda carry, params: carry.memory, state.carry, state.params
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
        lost = ref.group_accuracy - measured.read(state.meters)["group_accuracy"]
        seen, observed = excess_of(memory, solver.carry.memory, ref, lane.uniform)
        values = {
            "gaps": lost - jnp.sum(ref.prevalence * lost),
            "estimate": jnp.max(jnp.where(observed, seen, -jnp.inf)),
            "multipliers": solver.multipliers,
        }
        return state._replace(meters=measured.init()), values

    def deliver(state: Phase, lane: Lane, split: Batch, teacher: jax.Array, epoch: Any) -> Phase:
        counts = jnp.maximum(state.train.solver.carry.reference.prevalence * len(split.y), 1.0)
        # One person is not a violation, nor the last digit of a float32 mean.
        allowed = jnp.maximum(lane.tolerance, 1.0 / counts) + 1e-6
        dense = constraints.outcomes(teacher[lane.seed], split.y).correct

        def violation(network: train.Networks) -> jax.Array:
            right = outcomes(network, split).correct
            gaps = metrics.accuracy_gaps(dense, right, split.group, num_groups)
            return metrics.max_excess_accuracy_gap(gaps.excess - allowed)

        candidates = [train.network_of(state.train.solver), state.train.average]
        kept = train.deliver(state.delivered, candidates, violation, epoch)
        return state._replace(delivered=kept)

    weighed = Batch(x=None, y=None, group=None, index=None, weight=0)
    return Program(
        init=jax.jit(jax.vmap(init, (0, None, None, None))),
        chunk=jax.jit(jax.vmap(chunk, (0, 0, weighed, 0, 0, None))),
        meter=jax.jit(jax.vmap(meter)),
        deliver=jax.jit(jax.vmap(deliver, (0, 0, None, None, None))),
        logits=jax.jit(jax.vmap(logits, (0, 0, None))),
    )


def played(config: Config, setup: Setup, cells: Sequence[study.Cell]) -> list[tuple[study.Cell, dict[str, Any]]]:
    """The records of a chunk of runs."""
    program = make_program(
        cells[0]["program"], setup.name, config.refreshes, setup.dataset.num_groups,
        setup.dataset.num_classes, setup.steps, setup.epochs, setup.prune,
    )  # fmt: skip
    lanes = train.stack([lane_of(cell["setting"], cell["seed"], config.tolerance, setup.steps, setup.prune * setup.steps) for cell in cells])
    split, teacher = setup.splits["train"], setup.logits["train"]
    kinds = lanes.batches.astype(jnp.int32)
    mapped, keys = split._replace(weight=setup.weights[kinds]), setup.keys[lanes.seed]
    state = program.init(lanes, setup.dense, teacher, split)
    window = max(setup.epochs - math.ceil(0.3 * setup.epochs), setup.prune)
    paths: list[dict[str, np.ndarray]] = []
    for epoch in range(setup.epochs):
        orders = {kind: setup.orders[kind](epoch) for kind in {*np.asarray(kinds).tolist()}}
        order = jnp.stack([orders[int(k)][cell["seed"]] for k, cell in zip(kinds, cells, strict=True)])
        moved = program.chunk(state.train, lanes, mapped, order, keys, teacher)
        moved, values = program.meter(moved, lanes)
        state = state._replace(train=moved)
        paths.append(jax.tree.map(np.asarray, values))
        if epoch >= window:
            state = program.deliver(state, lanes, split, teacher, epoch)
    networks = {"last": train.network_of(state.train.solver),
                "delivered": train.Networks(state.delivered.params, state.delivered.model_state)}  # fmt: skip
    said = {
        name: {w: np.asarray(program.logits(*network, b.x)) for w, b in setup.splits.items()}
        for name, network in networks.items()
    }
    found = []
    for i, cell in enumerate(cells):
        name, seed = {n: cell[n] for n in NAMES}, cell["seed"]
        tolerance = cell["setting"].get("tolerance", config.tolerance)
        failed = int(state.train.failed_at[i])
        logits = {of: {w: values[i] for w, values in mine.items()} for of, mine in said.items()}

        def numbers(labels: Callable[..., Any], more: Mapping[str, Any]) -> dict[str, Any]:
            did = {of: judged(setup, seed, labels(mine), tolerance, failed < 0) for of, mine in logits.items()}
            out = did["delivered"]
            return {"setting": cell["setting"], "failed_at": failed, **more, **did,
                    "train_gap": out["train"]["gap"], "test_gap": out["test"]["gap_large"],
                    "test_accuracy": out["test"]["accuracy"]}  # fmt: skip

        if cell["stage"] == "confirm" and cell["cell"] == "nft" and setup.dataset.num_classes == 2:
            # Before its network: what a killed run has of it is made again.
            found.append((name | {"cell": "nft_threshold"}, numbers(partial(thresholded, setup, seed), {})))
        paths_of_lane = [train.take(path, i) for path in paths]
        more = {
            "epoch": int(state.delivered.epoch[i]),
            "averaged": bool(state.delivered.averaged[i]),
            "multipliers": float(np.sum(paths[-1]["multipliers"][i])),
            "path": path_of(paths_of_lane),
        }
        found.append((name, numbers(lambda of: {w: v.argmax(-1) for w, v in of.items()}, more)))
    return found


def path_of(paths: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Gaps and multipliers of at most 17 epochs; of many groups, quantiles."""
    thin = sorted({*np.linspace(0, len(paths) - 1, min(len(paths), 17)).round().astype(int)})
    found = {k: np.stack([paths[e][k] for e in thin]) for k in ("gaps", "estimate", "multipliers")}
    if found["gaps"].shape[1] > 12:
        for k in ("gaps", "multipliers"):
            found[k] = np.quantile(found[k], (1.0, 0.9, 0.5, 0.0), axis=1).T
    return {"epochs": [int(e) + 1 for e in thin]} | {k: _rounded(v) for k, v in found.items()}


def _rounded(values: Any) -> Any:
    return np.round(np.asarray(values, np.float64), 6).tolist()


# --- what a network did --------------------------------------------------------------------------------------------


def judged(
    setup: Setup, seed: int, labels: Mapping[str, np.ndarray], tolerance: float, ok: bool
) -> dict[str, Any]:
    """What a network did on each split; groups are weighed by their share of the training split."""
    share = setup.share * len(setup.dataset.train.y)
    share = share / share.sum()
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
    threshold = np.zeros(max(int(cells.max()) for cells in setup.cells.values()) + 1)
    for cell in range(len(threshold)):
        inside = setup.cells["validation"] == cell
        values = np.unique(margin[inside])
        if len(values):
            middle = (values[1:] + values[:-1]) / 2
            tried = np.concatenate([[0.0, values[0] - 1], middle, values[-1:]])
            off = np.zeros(len(tried))
            for g in np.unique(group[inside]):
                here = inside & (group == g)
                right = (margin[here] > tried[:, None]) == y[here].astype(bool)
                off = np.maximum(off, np.abs(right.mean(1) - dense[here].mean()))
            threshold[cell] = tried[np.lexsort((np.abs(tried), off.round(9)))[0]]
    return {w: (m > threshold[setup.cells[w]]).astype(np.int64) for w, m in margins.items()}


# --- the run -------------------------------------------------------------------------------------------------------


def play(config: Config, this: study.Run, wanted: Sequence[study.Cell]) -> None:
    """All runs that are not done, chunk by chunk."""
    at, setup = None, None
    together = ("stage", "data_set", "split", "program")
    for shared, cells in this.missing(wanted, together=together, at_most=config.lanes, whole=True):
        if setup is None or at != (shared["data_set"], shared["split"]):
            setup = None  # so that two are never in memory
            at = shared["data_set"], shared["split"]
            setup = make_setup(config, this.folder, *at)
            record_dense(config, this, setup, *at)
        for cell, numbers in played(config, setup, cells):
            this.record(cell, numbers)


def record_dense(config: Config, this: study.Run, setup: Setup, name: str, split: int) -> None:
    """How well the dense networks do, and how far the next seed's is from each: the floor of the noise."""
    seeds = len(setup.keys)
    for seed in range(seeds):
        found = {
            of: judged(
                setup, seed, {w: np.asarray(v[number]).argmax(-1) for w, v in setup.logits.items()}, config.tolerance, ok
            )
            for of, number, ok in (
                ("dense", seed, True),
                ("retrained", (seed + 1) % seeds, seeds > 1),
            )
        }
        about = {
            "groups": list(setup.dataset.group_names)[:12],
            "num_groups": setup.dataset.num_groups,
            "prune": setup.prune,
            "steps": setup.steps,
        }
        this.record(
            {"of": "dense", "data_set": name, "split": split, "seed": seed}, found | about
        )


def is_active(nft: Sequence[Mapping[str, Any]]) -> bool:
    """Whether naive fine-tuning, its last iterate, violates the bound in at least 4 of 5 runs."""
    return bool(nft) and float(np.mean([r["last"]["train"]["violation"] > 0 for r in nft])) >= 0.8


def choose(config: Config, records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings to be confirmed, from what the screened ones did on train and validation; test is not looked at.

    On the data sets on which naive fine-tuning violates (all, if there is none), a run is *good* whose delivered
    network meets the tolerance on train with an accuracy of at least naive fine-tuning's less 0.3 points on train and
    on validation; its *debt* is what the last iterate, before any choice, lacks in both, in points. Cells are ranked by
    the number of good runs, then by the mean debt. The first few are chosen, and the setting, of all 1,536, for which a
    linear model of log(0.1 + debt), fitted to the cells, predicts least.
    """
    screened = study.chosen(records, of="run", stage="screen")
    played = {(r["data_set"], r["cell"], r["seed"]): r for r in screened}
    active = [
        d for d in config.sets if is_active(study.chosen(screened, data_set=d, cell="nft"))
    ] or config.sets
    rows, good, debt = design(), {}, {}
    for number in config.cells or range(len(rows)):
        cell, owed = f"{number:02d}", []
        good[cell] = 0
        for of, seed in itertools.product(active, range(config.screen_seeds)):
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
    response = np.array([np.log(0.1 + owed).mean() for owed in debt.values()])
    found = factorial.fit([rows[int(cell)] for cell in debt], response, LEVELS, INTERACTIONS)
    predicted = found and factorial.least(found, list(chosen.values()))
    return chosen | ({f"best_{len(chosen) + 1}": predicted} if predicted else {})


def run(config: Config) -> None:
    """The stages that were asked for, and the page."""
    # Another backend has another network for images, and other last digits.
    more = {"design_sha256": hashlib.sha256(DESIGN.read_bytes()).hexdigest(), "backend": jax.default_backend()}  # fmt: skip
    grows = ("stage", "data_dir", "splits")
    with study.opened(config, NAMES, grows=grows, more=more, room=200_000_000) as this:
        if "cifar10" in config.sets:
            _cifar10(config, 0)  # says at once if it is not there
        choice = {"of": "choice"}
        needed = not config.settings or any(n.startswith("best_") for n in config.settings)
        if config.stage == "confirm" and needed and not this.has(choice):
            raise flags.UsageError(
                "--stage=confirm needs a finished screening: run --stage=screen first"
            )
        if config.stage != "confirm":
            play(config, this, screen_jobs(config))
            this.get(choice, lambda: {"settings": choose(config, this.records)})
        if config.stage != "screen":
            play(config, this, confirm_jobs(config, chosen_of(this.records)))
        tell(config, this)


def chosen_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that the screening chose; none before it is done."""
    return next((r["settings"] for r in records if r["of"] == "choice"), {})


# --- what was found ------------------------------------------------------------------------------------------------


def claims(records: Sequence[Mapping[str, Any]]) -> list[study.Claim]:
    """What would have to be seen of every constrained method, on all data sets together."""
    confirmed = study.chosen(records, stage="confirm")
    there = study.values(confirmed, "cell")
    stated = {
        "published": ("train_gap", ("closer to the bound on train", "further from it")),
        "nft": ("test_gap", ("kinder on test to the group that loses most", "harder on it")),
    }
    return [
        study.Claim(
            method, peer, column, words, good=-1, at=("data_set",), among={"stage": "confirm"}, of="cell",
            over=("split", "seed"), level=lambda name: DATA_SETS[name].name,
        )
        for method in (*RECIPES, *chosen_of(records))
        for peer, (column, words) in stated.items()
        if {method, peer} <= {*there}
    ]  # fmt: skip


def flat(config: Config, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the tables and figures of the confirmation ask for, a row per run."""
    found = study.chosen(records, of="run")
    key = ("data_set", "split", "seed")
    nft = {tuple(r[k] for k in key): r["last"]["train"]["accuracy"]
           for r in study.chosen(found, stage="confirm", cell="nft")}  # fmt: skip
    rows = []
    for r in found:
        last, out = r["last"]["train"], r["delivered"]["train"]
        lost = nft.get(tuple(r[k] for k in key), math.nan) - out["accuracy"]
        rows.append({k: r[k] for k in ("stage", *key, "cell")} | {
            "last_gap": last["gap"], "by_chance": out["by_chance"], "accuracy": out["accuracy"],
            "met_last": last["violation"] <= 0, "met": out["violation"] <= 0, "lost": lost,
            "joint": out["violation"] <= 0 and lost <= ALLOWED_LOSS,
            "dual rate": r["setting"]["rate"],
            "tolerance": r["setting"].get("tolerance", config.tolerance),
        } | {k: r[k] for k in ("train_gap", "test_gap", "test_accuracy")})  # fmt: skip
    return rows


def swept(rows: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The runs over a dual rate or a tolerance, those of the confirmation among them; the first split only."""
    varied = [
        {**r, "cell": r["cell"].split(f" {kind.split()[-1]} ")[0]}
        for r in study.chosen(rows, stage="frontier")
        if f" {kind.split()[-1]} " in r["cell"]
    ]
    cells, splits, seeds = (study.values(varied, name) for name in ("cell", "split", "seed"))
    own = [
        dict(r)
        for r in study.chosen(rows, stage="confirm")
        if r["cell"] in cells and r["split"] in splits and r["seed"] in seeds
    ]
    return own + varied


def fits(records: Sequence[Mapping[str, Any]], what: str) -> dict[str, factorial.Fit]:
    """For each data set the linear model of the screened cells: of log2 of the largest gap, or of accuracy in points.

    Of the last iterate on train, means over seeds. A run that failed counts as the worst that was measured on the data
    set: to leave it out would praise its cell. Gaps below a tenth of a point are told apart no more.
    """
    found = {}
    for name in study.values(study.chosen(records, of="run"), "data_set"):
        mine = study.chosen(records, of="run", stage="screen", data_set=name)
        mine = [r for r in mine if r["cell"].isdigit()]
        right = [r["last"]["train"][what] for r in mine if r["failed_at"] < 0]
        if not right:
            continue
        worst = max(right) if what == "gap" else min(right)

        def response(rows: Sequence[Mapping[str, Any]], worst: float = worst) -> float:
            values = [r["last"]["train"][what] if r["failed_at"] < 0 else worst for r in rows]
            log = np.log2(np.maximum(values, 1e-3))
            return float(np.mean(log)) if what == "gap" else 100 * float(np.mean(values))

        cells = [study.chosen(mine, cell=cell) for cell in study.values(mine, "cell")]
        values = np.array([response(rows) for rows in cells])
        fit = factorial.fit([rows[0]["setting"] for rows in cells], values, LEVELS, INTERACTIONS)
        if fit is not None:
            found[name] = fit
    return found


def say(effect: factorial.Effect, what: str) -> str:
    """``0.42 (0.30 to 0.58)`` of gaps, which are multiplied, and points of accuracy."""
    a, b, c = effect[3:]
    if what == "gap":
        return f"{2**a:.2f} ({2**b:.2f} to {2**c:.2f})"
    return f"{a:+.2f} ({b:+.2f} to {c:+.2f})"


def effects_table(fitted: Mapping[str, factorial.Fit], what: str) -> pd.DataFrame:
    """A row per level, a column per data set."""
    rows: dict[Any, dict[str, str]] = {}
    for name, fit in fitted.items():
        for e in factorial.effects(fit):
            row = {"factor": e.factor, "level": f"{e.level} (against {e.against})"}
            rows.setdefault(e[:2], row)[DATA_SETS[name].name] = say(e, what)
    return pd.DataFrame(list(rows.values()))


def terms_table(fitted: Mapping[str, factorial.Fit]) -> pd.DataFrame:
    """F tests of all terms of the model of the gap, per data set."""
    rows: dict[str, dict[str, Any]] = {}
    for name, fit in fitted.items():
        for t in factorial.f_tests(fit):
            p = "p < 0.001" if t.p < 0.001 else f"p = {t.p:.3f}"
            row = rows.setdefault(t.term, {"term": t.term, "df": t.df})
            row[DATA_SETS[name].name] = f"{t.ratio:.1f} ({p})"
    return pd.DataFrame(list(rows.values())).fillna("–")


def optimism(fitted: Mapping[str, factorial.Fit]) -> list[str]:
    """What the three methods with memory bring to multipliers, each in a sentence."""
    said = []
    for level in LEVELS["optimizer"][1:] if fitted else ():
        mine = {DATA_SETS[name].name: e for name, fit in fitted.items()
                for e in factorial.effects(fit) if e[:2] == ("optimizer", level)}  # fmt: skip
        better = ", ".join(name for name, e in mine.items() if e.high < 0)
        worse = ", ".join(name for name, e in mine.items() if e.low > 0)
        words = [f"smaller gaps on {better}"] * bool(better) + [f"larger gaps on {worse}"] * bool(worse)
        numbers = "; ".join(f"{name}: x {say(e, 'gap')}" for name, e in mine.items())
        verdict = " and ".join(words) or "no difference that the screening can tell from 0"
        said.append(f"{level} against gradient ascent of the multipliers: {verdict} ({numbers}).")
    return said


def headline(config: Config, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was done, and what is missing."""
    runs = study.chosen(records, of="run")
    count = {s: len(study.chosen(runs, stage=s)) for s in ("screen", "confirm", "frontier")}
    sets = study.values(runs, "data_set")
    said = [
        f"{count['screen']} runs of the screening, {count['confirm']} of the confirmation and {count['frontier']} of the "
        f"frontier, on {', '.join(DATA_SETS[d].name for d in sets)}. The bound is {report.points(config.tolerance)} points "
        "on every group's excess accuracy gap, or one person where that is more."
    ]  # fmt: skip
    stage = "confirm" if count["confirm"] else "screen"
    inactive = [DATA_SETS[d].name for d in sets
                if not is_active(study.chosen(runs, stage=stage, data_set=d, cell="nft"))]  # fmt: skip
    if inactive:
        said.append(
            f"Inactive, since naive fine-tuning meets the bound too often: {', '.join(inactive)}. Nothing is to be "
            "concluded there."
        )
    failed = sum(r["failed_at"] >= 0 for r in runs)
    if failed:
        said.append(f"In {failed} runs the loss was not finite; they count as violations.")
    return said


def points(column: str) -> Callable[..., str]:
    """A column in points, of the runs that did not fail."""

    def text(rows: Sequence[Mapping[str, Any]]) -> str:
        seen = [r for r in rows if math.isfinite(r.get(column, math.nan))]
        return report.in_points(column)(seen) if seen else "–"

    return text


def of_all(column: str) -> Callable[..., str]:
    """In how many of the runs something holds."""
    return lambda rows: f"{sum(r[column] for r in rows)} of {len(rows)}" if column in rows[0] else "–"


def tables(config: Config, records: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
           gap: Mapping[str, factorial.Fit]) -> list[report.Shown]:  # fmt: skip
    """All tables of the page."""
    named = report.Name("data_set", "data set", lambda name: DATA_SETS[name].name)
    order = ("nft", *BASELINES, "nft_threshold", "published", *RECIPES)
    method = report.Name("cell", "method", order=order)
    confirmed = study.chosen(rows, stage="confirm")
    floor = [
        {k: r[k] for k in ("data_set", "split", "seed")}
        | {"cell": "dense, retrained", "test_gap": r["retrained"]["test"]["gap_large"]}
        for r in study.chosen(records, of="dense") if r["split"]
    ]  # fmt: skip
    columns = {
        "train gap, last": points("last_gap"), "train gap": points("train_gap"), "by chance": points("by_chance"),
        "met, last": of_all("met_last"), "met": of_all("met"), "met and accurate": of_all("joint"),
        "train accuracy": points("accuracy"), "test gap": points("test_gap"), "test accuracy": points("test_accuracy"),
    }  # fmt: skip
    compared = {"train gap": "train_gap", "test gap": "test_gap", "test accuracy": "test_accuracy"}
    constrained = (*RECIPES, "published", *chosen_of(records))
    shown = [
        report.Shown(
            "table", report.table([*confirmed, *floor] if confirmed else [], [named, method], columns),
            "Delivered networks, unless it says last: in points, mean ± half-width of the 95 % t interval over splits and "
            "seeds.",
            "Gap: the largest excess accuracy gap; on test over groups of at least 200 people. By chance: what the train gap "
            "would be on average if every prediction that changed were a coin flip. Met: runs within the bound on train; and "
            "accurate: at most 0.3 points less so than naive fine-tuning's last iterate. Groups are weighed by their share "
            "of the training split. dense, retrained: the gap between two dense networks, the floor of the noise. "
            "nft_threshold of sex x label has one threshold per sex, since the label is not known at test time.",
            numbers=pd.DataFrame(rows), title="in points, mean ± 95 % over splits and seeds",
        ),
        report.Shown(
            "paired",
            report.paired_table(
                confirmed, [named, method], compared, of="cell", over=("split", "seed"),
                peers=lambda m: ("nft", *BASELINES, "nft_threshold") if m in constrained else (),
            ),
            "Paired differences in points, the same splits and seeds, 95 % t intervals.",
            "The interval takes the runs for independent; those of a split share their people.",
        ),
    ]  # fmt: skip
    for kind in ("dual rate", "tolerance"):
        level = report.Name(kind, say=lambda value: f"{value:g}")
        some = {k: columns[k] for k in ("train gap", "met", "train accuracy", "test gap", "test accuracy")}
        some["largest loss"] = report.number("lost", ".3f", of=np.max)
        shown.append(report.Shown(
            f"over_{kind.split()[-1]}", report.table(swept(rows, kind), [named, method, level], some),
            f"Over the {kind}, on one split: in points, means over seeds. Largest loss: of accuracy on train against naive "
            "fine-tuning, as a share.",
        ))  # fmt: skip
    for what, fitted, caption in (
        ("gap", gap, "Factor by which the largest gap on train (last iterate) is multiplied, 95 % intervals."),
        ("accuracy", fits(records, "accuracy"), "Change of the accuracy on train (last iterate), in points."),
    ):  # fmt: skip
        shown.append(report.Shown(f"effects_{what}", effects_table(fitted, what), caption))
    shown.append(report.Shown(
        "terms", terms_table(gap), "F statistics of all terms of the model of the logarithm of the gap.",
        "Least squares on the means of each cell over seeds: main effects and the interactions shown. It takes the errors "
        "for independent, of one variance, and interactions that are not in the model for noise, so that they widen the "
        "intervals.",
    ))  # fmt: skip
    return shown


def pictures(config: Config, records: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
             gap: Mapping[str, factorial.Fit]) -> list[report.Drawn]:  # fmt: skip
    """All figures of the page."""
    drawn, cells = [], ("published", *RECIPES, *list(chosen_of(records))[:1])
    if gap:
        panels = {
            DATA_SETS[name].name: {f"{e.factor}: {e.level}": tuple(2.0 ** np.array([e.low, e.value, e.high]))
                                   for e in factorial.effects(fit)}
            for name, fit in gap.items()
        }  # fmt: skip
        drawn.append(report.Drawn(
            "effects", figures.forest(panels, label="gap multiplied by"),
            "Main effects of the screening: the factor by which the largest gap of the last iterate on train is multiplied "
            "when a level takes the place of the published one, with 95 % intervals. Left of 1 (round markers) is better; "
            "filled where the interval leaves out 1.", alt="the numbers are in the table of effects",
        ))  # fmt: skip
    for kind in ("dual rate", "tolerance"):
        varied = swept(rows, kind)
        sets = study.values(varied, "data_set")
        if varied:
            grid = [
                [
                    figures.Panel(
                        report.lines(study.chosen(varied, data_set=d), column, along=kind, of="cell"),
                        title=DATA_SETS[d].name, label=label,
                        baseline=100 * config.tolerance if (column, kind) == ("train_gap", "dual rate") else np.nan,
                    )
                    for d in sets
                ]
                for column, label in (("train_gap", "largest gap (points)"), ("accuracy", "accuracy (%)"))
            ]  # fmt: skip
            drawn.append(report.Drawn(
                f"over_{kind.split()[-1]}",
                figures.levels(grid, methods=study.values(varied, "cell"), along=kind, say=lambda v: f"{v:g}"),
                f"Delivered networks on train over the {kind}: the largest gap (dotted: the bound) and the accuracy, with 95 % "
                "intervals over seeds.", alt="the numbers are in the table",
            ))  # fmt: skip
    for name in study.values(rows, "data_set"):
        mine = study.chosen(rows, stage="confirm", data_set=name)
        sides = {"train": ("train_gap", "accuracy"), "test": ("test_gap", "test_accuracy")}
        panels = {
            side: {cell: tuple(np.array([r[k] for r in study.chosen(mine, cell=cell)]) for k in pair)
                   for cell in study.values(mine, "cell")}
            for side, pair in sides.items()
        }  # fmt: skip
        if mine:
            drawn.append(report.Drawn(
                f"tradeoff_{name}", figures.accuracy_against_gap(panels, tolerance=config.tolerance),
                f"{DATA_SETS[name].name}: accuracy against the largest gap of delivered networks, on train over all groups and "
                "on test over groups of at least 200 people.", alt="means are in the table",
            ))  # fmt: skip
        drawn.append(report.Drawn(
            f"path_{name}", trajectories(config, records, name, cells),
            f"{DATA_SETS[name].name}: excess gaps during training, in train mode as examples came by, and multipliers; means "
            "over runs. The vertical line is the end of pruning. Of many groups quantiles are shown.",
            alt="gaps and multipliers over epochs",
        ))  # fmt: skip
    return [one for one in drawn if one.figure is not None]


def trajectories(config: Config, records: Sequence[Mapping[str, Any]], name: str, cells: Iterable[str]) -> Any:
    """Gaps and multipliers during training; None where no run of these came to its end."""
    mine = [r for r in study.chosen(records, of="run", data_set=name) if r["failed_at"] == -1 and "path" in r]
    stage = "confirm" if study.chosen(mine, stage="confirm") else "screen"
    played = {cell: study.chosen(mine, stage=stage, cell=cell) for cell in cells}
    paths = {
        cell: figures.Trajectory(
            *(np.mean([r["path"][k] for r in rows], axis=0) for k in ("gaps", "multipliers"))
        )
        for cell, rows in played.items() if rows
    }  # fmt: skip
    if not paths:
        return None
    about = study.chosen(records, of="dense", data_set=name)[0]
    few = about["num_groups"] <= 12
    return figures.trajectories(
        np.array(mine[0]["path"]["epochs"]), paths, tolerance=config.tolerance, pruning_end=np.array(about["prune"]),
        names=about["groups"] if few else ["largest", "90 %", "median", "smallest"],
    )  # fmt: skip


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records, best = this.records, chosen_of(this.records)
    tested = [r for r in records if r.get("data_set") in TESTED]
    rows, gap = flat(config, records), fits(records, "gap")
    aliases = pd.DataFrame([
        {"factor": factor, "interaction": other, "correlation": f"{size:.2f}"}
        for (factor, other), size in sorted(factorial.aliasing(design(), LEVELS).items(), key=lambda item: -item[1])
    ])  # fmt: skip
    chosen = {name: ", ".join(f"{k} {v}" for k, v in setting.items()) for name, setting in best.items()}
    report.study(
        this, prog="experiments.dual_dynamics", title="Which constraints hold",
        subtitle="Networks pruned under a bound on what every group may lose",
        found=[*headline(config, records), *(study.judge(tested, c) for c in claims(records)), *optimism(gap)],
        drawn=pictures(config, records, rows, gap), shown=tables(config, records, rows, gap),
        done=[f"{name}: {setting}." for name, setting in chosen.items()],
        paragraphs=[
            "Networks are pruned in the first 30 % of the epochs. What is delivered is the latest iterate, or average, that "
            "met the bound on train, else the one that violates it least. Test is only measured.",
            " ".join((choose.__doc__ or "").split()),
            " ".join((fits.__doc__ or "").split()),
        ],
        sections=[report.Section(title="What the design cannot tell apart", folded=True, blocks=[report.Table.from_frame(
            aliases, caption="Main effects that are aliased with two-factor interactions, and how far.")])],
    )  # fmt: skip


main = flags.entry(run, Config, prog="dual_dynamics")


if __name__ == "__main__":
    main()
