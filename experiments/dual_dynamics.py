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
again. The dual optimizers are one family, `optim.nupi`: ascent has no proportional gain, the others tau, half an epoch
of steps. For an outcome was seen up to an epoch ago, so that the multipliers see v / (1 + tau s) of the violation v (s
of the Laplace transform). Ascent integrates, eta / s; with a proportional term it is eta (1 + K_P s) / s, and K_P = tau
cancels the lag. The three differ only in how the slope is filtered: not at all (optimistic), over tau steps (omega,
Omega with optimism 1), over tau / 10 (nupi). Their usual defaults are an order of magnitude below that.

It writes `runs/dual_dynamics/<id>/`: config.json, records.jsonl, tables, figures, report.html, and the dense networks.
Killed at any moment, the same command goes on and ends with the same records on a CPU. Two cores take some two hours.
"""

import csv
import dataclasses
import functools
import hashlib
import itertools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import (
    constraints,
    data,
    metrics,
    models,
    optim,
    recipes,
    report,
    sparsity,
    study,
    train,
)
from jaxfair.cli import flags
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
        named = [*controls(self), *BASELINES, *(f"best_{i + 1}" for i in range(self.best + 1))]
        wrong = [name for name in self.settings if name not in named]
        if self.epochs in (1, 2):
            raise flags.UsageError(f"--epochs={self.epochs}: give at least 3, or 0 for the data set's own")
        if self.frontier_seeds > self.seeds:
            raise flags.UsageError(f"--frontier_seeds={self.frontier_seeds}: at most --seeds={self.seeds}")
        if wrong:
            raise flags.UsageError(f"--settings: there is no {wrong[0]!r}; choose from {', '.join(named)}")
        if self.settings and "nft" not in self.settings:
            raise flags.UsageError("--settings: all is measured against nft; add it")

    @property
    def sets(self) -> tuple[str, ...]:
        """The data sets of the run."""
        every = (name for name in DATA_SETS if name != "cifar10" or self.full)
        return self.data_sets or tuple(every)


# --- data sets and networks ----------------------------------------------------------------------------------------


class DataSet(NamedTuple):
    """A data set, its network and its schedule: the first 30 % of the epochs prune, the rate falls after 70 %."""

    name: str  # on the page
    load: Callable[[Config, int], data.Dataset]  # of a config and a split
    model: Callable[[int], Model]  # of the number of classes
    epochs: int
    sparsity: float
    batch_size: int = 128
    rate: float = 0.05
    #: Where its own groups contain the label: with groups that one may use at test time.
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


@functools.cache
def model_of(name: str, num_classes: int) -> Model:
    """The network of a data set; the same for all its splits, so that it is compiled once."""
    return DATA_SETS[name].model(num_classes)


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
RECIPE = _PUBLISHED | {"estimate": "memory", "weights": "normalized", "mean": "prevalence", "start": "before",
                       "margin": 0.5, "rate": 0.01}  # fmt: skip
#: The recipe on batches in which small groups have more places: 1 % of the people are 1 of 128 in a plain batch; and
#: the default of `balancing_act`: a rate of 1 an epoch, since the estimate lags by half of one.
RECIPES = {
    "recipe": RECIPE,
    "recipe_balanced": RECIPE | {"batches": "balanced"},
    "recipe_root": RECIPE | {"batches": "root"},
    "recipe_epoch": RECIPE | {"batches": "root", "rate": 1.0, "per": "epoch"},
}
#: Without constraints: a dual rate of 0 keeps all multipliers at 0.
NFT = RECIPE | {"rate": 0.0}
BASELINES = {
    "nft_balanced": NFT | {"loss": "balanced", "batches": "balanced"},
    "nft_distilled": NFT | {"loss": "distilled"},
}
NAMES = ("of", "stage", "data_set", "split", "seed", "cell")


def controls(config: Config) -> dict[str, dict[str, Any]]:
    """Settings that are known beforehand."""
    return {"nft": NFT, **RECIPES, "published": _PUBLISHED | {"rate": config.published_rate}}


def jobs(stage: str, data_set: str, splits: Sequence[int], settings: Mapping[str, Any], seeds: int) -> list[study.Cell]:
    """Runs: what names them, their settings, and the words in those that make another program."""
    words = ("estimate", "weights", "mean", "loss", "batches")
    return [
        {"of": "run", "stage": stage, "data_set": data_set, "split": split, "seed": seed, "cell": cell,
         "setting": setting, "program": [setting.get(word, "plain") for word in words]}
        for split in splits for cell, setting in settings.items() for seed in range(seeds)
    ]  # fmt: skip


def screen_jobs(config: Config) -> list[study.Cell]:
    """The design and the controls, on split 0."""
    rows = design()
    settings = controls(config) | {f"{n:02d}": rows[n] for n in config.cells or range(len(rows))}
    return [j for name in config.sets for j in jobs("screen", name, [0], settings, config.screen_seeds)]


def confirm_jobs(config: Config, best: Mapping[str, Mapping[str, Any]]) -> list[study.Cell]:
    """The chosen settings, controls and baselines on all splits; then rates and tolerances on the first."""
    settings = controls(config) | BASELINES | {name: dict(s) for name, s in best.items()}
    settings = {k: s for k, s in settings.items() if not config.settings or k in config.settings}
    varied = {}
    for name in ("recipe", "recipe_balanced", "recipe_root", "published", *list(best)[:1]):
        for rate in config.rates if name in settings else ():
            if rate != settings[name]["rate"]:
                varied[f"{name} rate {rate:g}"] = settings[name] | {"rate": rate}
        for value in config.tolerances if {name} <= {"recipe", "published"} & {*settings} else ():
            varied[f"{name} tolerance {value:g}"] = settings[name] | {"tolerance": value}
    splits = range(config.first_split, config.first_split + config.splits)
    stages = (("confirm", splits, settings, config.seeds), ("frontier", splits[:1], varied, config.frontier_seeds))
    return [j for name in config.sets for stage, *rest in stages for j in jobs(stage, name, *rest)]


# --- a lane, and what runs it --------------------------------------------------------------------------------------


class Lane(NamedTuple):
    """The factors of a run that are numbers."""

    start: jax.Array  # the first step with constraints
    margin: jax.Array  # the multipliers see the tolerance times this
    tolerance: jax.Array  # what is delivered by
    rate: jax.Array  # of the multipliers
    proportional: jax.Array  # gain, K_P
    decay: jax.Array  # of the average of violations
    teacher: Any  # [N, C] logits on the training split; () where nothing is distilled


def gains(optimizer: str, steps: int) -> tuple[float, float]:
    """Proportional gain and decay of a dual optimizer, for a signal that lags by half an epoch of so many steps.

    >>> gains("omega", 200), gains("ascent", 200)
    ((100.0, 0.99), (0.0, 0.0))
    """
    tau = max(steps / 2, 1.0)
    filters = {"optimistic": 0.0, "omega": 1 - 1 / tau, "nupi": max(0.0, 1 - 10 / tau)}
    return (0.0, 0.0) if optimizer == "ascent" else (tau, filters[optimizer])


def pruned(epochs: int) -> int:
    """How many of the epochs prune."""
    return max(1, round(0.3 * epochs))


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """A split of a data set, its S dense networks, and the numbers of its schedule."""

    name: str  # of the data set
    dataset: data.Dataset
    splits: dict[str, Batch]  # the three of them, on the device
    share: np.ndarray  # [G], of the groups in the training split
    cells: dict[str, np.ndarray]  # [N] of each split, the groups that have a threshold of their own
    keys: jax.Array  # [S]
    dense: train.Networks  # [S, ...]
    logits: dict[str, jax.Array]  # [S, N, C] of the dense networks on each split
    outcomes: dict[str, constraints.Outcomes]  # [S, N], likewise
    batch_size: int
    steps: int  # of an epoch
    epochs: int
    batches: dict[str, Any]  # of each kind order(key, epoch) -> [T, B], and the weights of the examples [N]


def make_setup(config: Config, folder: pathlib.Path, name: str, split: int) -> Setup:
    """Loads a split and its dense networks, which are trained where they are not on disk yet."""
    spec = DATA_SETS[name]
    dataset = spec.load(config, split)
    model, group = model_of(name, dataset.num_classes), np.asarray(dataset.train.group)
    root = jax.random.fold_in(jax.random.key(config.seed), split)
    seeds = range(config.seeds if split else config.screen_seeds)
    keys = jnp.stack([jax.random.fold_in(root, seed) for seed in seeds])
    size = min(spec.batch_size, len(group))
    steps = train.steps_per_epoch(len(group), size)
    found = train.dense(
        model, dataset.train, dataset.validation, optax.adam(1e-3), keys=keys, epochs=20, patience=2,
        batch_size=size, file=folder / "dense" / f"{name}_{split}.npz",
    )  # fmt: skip
    splits = {w: jax.tree.map(jnp.asarray, b) for w, b in dataset.splits.items()}
    forward = jax.jit(jax.vmap(train.make_logits(model.apply), (0, 0, None)))
    logits = {w: forward(found.params, found.model_state, b.x) for w, b in splits.items()}
    outcomes = jax.vmap(constraints.outcomes, (0, None))
    own = dataset if spec.cells is None else spec.cells(config, split)
    share = np.bincount(group, minlength=dataset.num_groups) / len(group)

    def order(key: jax.Array, epoch: Any, *, power: float | None) -> jax.Array:
        if power is None:
            key = jax.random.fold_in(key, 1)
            return train.epoch_order(key, epoch, num_examples=len(group), batch_size=size, num_steps=steps)
        key, groups = jax.random.fold_in(key, 2), {"group": group, "num_groups": len(share)}
        return train.balanced_order(key, epoch, batch_size=size, num_steps=steps, power=power, **groups)

    def weight(power: float | None) -> jax.Array:
        if power is None:
            return jnp.ones(len(group))
        return jnp.asarray(train.balanced_weights(group, len(share), size, power=power))

    return Setup(
        name, dataset, splits, share, {w: np.asarray(b.group) for w, b in own.splits.items()}, keys,
        train.Networks(found.params, found.model_state), logits,
        {w: outcomes(z, splits[w].y) for w, z in logits.items()}, size, steps, config.epochs or spec.epochs,
        {kind: (partial(order, power=p), weight(p)) for kind, p in recipes.BATCHES.items()},
    )  # fmt: skip


@functools.lru_cache(maxsize=32)
def program(
    words: tuple[str, ...], name: str, num_classes: int, num_groups: int, steps: int, epochs: int,
    refresh_every: int, split: Setup | None,
) -> tuple[Callable[[Lane], Any], Callable[..., Any]]:  # fmt: skip
    """The solver of a lane with these words, and its first state: the same function for the same words.

    Only the exact estimate is told the split, and is another program on each.
    """
    estimate, weights, mean, loss = words
    spec, model = DATA_SETS[name], model_of(name, num_classes)
    # A memory counts people, whatever the weights of balanced batches are.
    places, every = constraints.replay_buffer(num_groups, RING), constraints.example_memory(num_groups)
    memory = constraints.unweighted(places if estimate == "ring" else every)
    falls = optax.piecewise_constant_schedule(spec.rate, {round(0.7 * epochs) * steps: 0.1})
    schedule = sparsity.polynomial(spec.sparsity, begin=0, end=pruned(epochs) * steps, every=steps)
    primal = sparsity.prune(optax.sgd(falls, momentum=0.9), schedule, prunable=model.prunable)
    plain = weights == "published"
    formulation = constraints.lagrangian() if plain else constraints.normalized_lagrangian()
    logits = train.make_logits(model.apply)

    def problem(lane: Lane) -> constraints.Problem:
        taught = partial(constraints.distillation, temperature=TEMPERATURE, share=DISTILLED)
        return constraints.excess_accuracy_gap(
            model.apply, num_groups=num_groups, tolerance=lane.tolerance, margin=lane.margin, start=lane.start,
            mean=mean, proxy="batch" if plain else "prevalence", memory=memory,
            loss=taught(lane.teacher) if loss == "distilled" else constraints.cross_entropy,
        )  # fmt: skip

    def solver(lane: Lane) -> Any:
        dual = optim.nupi(lane.rate, lane.proportional, 1.0, lane.decay)
        game = constraints.solver(problem(lane), primal=primal, dual=dual, formulation=formulation)
        if split is None:
            return game
        whole = split.splits["train"]

        def refreshed(carry: Any, params: Any) -> Any:
            right = constraints.outcomes(logits(params, carry.model_state, whole.x), whole.y).correct
            return memory.init(whole.group, right, whole.weight)

        def step(state: Any, batch: Batch, key: Any) -> Any:
            due, kept = state.step % refresh_every == 0, lambda carry, params: carry.memory
            now = cond_any(due, refreshed, kept, state.carry, state.params)
            return game.step(state._replace(carry=state.carry._replace(memory=now)), batch, key)

        return game._replace(step=step)

    def start(lane: Lane, network: train.Networks, dense: constraints.Outcomes, split: Batch) -> Any:
        return solver(lane).init(network.params, problem(lane).init(network.model_state, dense, split))

    return solver, start


def played(config: Config, setup: Setup, cells: Sequence[study.Cell]) -> recipes.Swept:
    """A chunk of runs with the same words."""
    steps, epochs, words = setup.steps, setup.epochs, tuple(cells[0]["program"])
    split, (order, weight) = setup.splits["train"], setup.batches[cells[0]["setting"]["batches"]]

    def lane(setting: Mapping[str, Any], seed: int) -> Lane:
        start = pruned(epochs) * steps if setting["start"] == "after" else 0
        rate = setting["rate"] / (steps if setting.get("per") == "epoch" else 1)
        tolerance = setting.get("tolerance", config.tolerance)
        values = (start, setting["margin"], tolerance, rate, *gains(setting["optimizer"], steps))
        teacher = setup.logits["train"][seed] if words[3] == "distilled" else ()
        return Lane(*(jnp.float32(value) for value in values), teacher)

    seeds, num_groups = jnp.array([cell["seed"] for cell in cells]), setup.dataset.num_groups
    networks, outcomes = train.take((setup.dense, setup.outcomes["train"]), seeds)
    made = program(
        (*words[:3], words[3].replace("balanced", "plain")), setup.name, setup.dataset.num_classes, num_groups,
        steps, epochs, -(-steps // config.refreshes), setup if words[0] == "exact" else None,
    )  # fmt: skip
    return recipes.sweep(
        model_of(setup.name, setup.dataset.num_classes).apply, *made,
        train.stack([lane(cell["setting"], cell["seed"]) for cell in cells]),
        networks=networks, outcomes=outcomes, split=split, num_groups=num_groups, keys=setup.keys[seeds],
        # With as many places for each group, a loss in which every group counts the same is the plain one.
        weight=split.weight if words[3] == "balanced" else weight, order=order, epochs=epochs,
        prune_epochs=pruned(epochs), steps=steps, batch_size=setup.batch_size,
    )  # fmt: skip


def path_of(gaps: np.ndarray, multipliers: np.ndarray) -> dict[str, Any]:
    """Gaps and multipliers ``[E, G]`` of at most 17 epochs; of many groups, quantiles."""
    thin = sorted({*np.linspace(0, len(gaps) - 1, min(len(gaps), 17)).round().astype(int)})
    found = {"gaps": gaps[thin], "multipliers": multipliers[thin]}
    if gaps.shape[1] > 12:
        found = {k: np.quantile(v, (1.0, 0.9, 0.5, 0.0), axis=1).T for k, v in found.items()}
    return {"epochs": [int(e) + 1 for e in thin]} | {k: rounded(v) for k, v in found.items()}


def rounded(values: Any) -> Any:
    """To six digits, for the records."""
    return np.round(np.asarray(values, np.float64), 6).tolist()


# --- what a network did --------------------------------------------------------------------------------------------


def judged(setup: Setup, seed: int, labels: Mapping[str, np.ndarray], tolerance: float, ok: bool) -> dict[str, Any]:
    """What a network did on each split; groups are weighed by their share of the training split."""
    result, num_groups = {}, setup.dataset.num_groups
    for which, predicted in labels.items():
        group, y = (np.asarray(a) for a in (setup.splits[which].group, setup.splits[which].y))
        right, dense = predicted == y, np.asarray(setup.outcomes[which].correct[seed]) > 0
        sizes = np.bincount(group, minlength=num_groups)
        excess = metrics.accuracy_gaps(dense, right, group, num_groups, share=setup.share).excess
        large = np.asarray(excess)[sizes >= 200]
        some = sizes > 0
        among = setup.share[some] / setup.share[some].sum()
        numbers = {
            "accuracy": among @ (np.bincount(group, right, num_groups)[some] / sizes[some]),
            "gap": metrics.max_excess_accuracy_gap(excess),
            "violation": metrics.violation(excess, tolerance, sizes),
            "gap_large": large.max() if len(large) else math.nan,
        }
        if which == "train":
            # What the largest gap would be if nobody in particular were harmed: a coin flip for everyone who changed.
            numbers["by_chance"] = metrics.sign_flip_null(
                dense, right, group, num_groups, key=setup.keys[seed], permutations=200
            ).mean
        result[which] = {k: float(v) if ok else math.nan for k, v in numbers.items()}
        many = np.flatnonzero(sizes >= 100)
        result[which]["both"] = all(len({*predicted[group == g]}) > 1 for g in many)
        if num_groups <= 12:
            result[which]["psi"] = rounded(excess)
    return result


def thresholded(setup: Setup, seed: int, logits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predictions with one threshold for each cell of people, chosen on the validation split."""
    margins, batch = {w: z[:, 1] - z[:, 0] for w, z in logits.items()}, setup.splits["validation"]
    threshold = metrics.cell_thresholds(
        margins["validation"], np.asarray(batch.y), np.asarray(setup.outcomes["validation"].correct[seed]) > 0,
        np.asarray(batch.group), setup.cells["validation"], max(int(c.max()) for c in setup.cells.values()) + 1,
    )  # fmt: skip
    return {w: (m > threshold[setup.cells[w]]).astype(np.int64) for w, m in margins.items()}


# --- the run -------------------------------------------------------------------------------------------------------


def play(config: Config, this: study.Run, wanted: Sequence[study.Cell]) -> None:
    """All runs that are not done, chunk by chunk."""
    setup, at = None, None
    together = ("stage", "data_set", "split", "program")
    for shared, cells in this.missing(wanted, together=together, at_most=config.lanes, whole=True):
        if setup is None or at != (shared["data_set"], shared["split"]):
            setup, at = None, (shared["data_set"], shared["split"])  # so that two are never in memory
            setup = make_setup(config, this.folder, *at)
            record_dense(config, this, setup, {"of": "dense", "data_set": at[0], "split": at[1]})
        went, model = played(config, setup, cells), model_of(at[0], setup.dataset.num_classes)
        logits = jax.jit(jax.vmap(train.make_logits(model.apply), (0, 0, None)))
        said = {
            name: {w: np.asarray(logits(*network, b.x)) for w, b in setup.splits.items()}
            for name, network in (("last", went.last), ("delivered", went.delivered))
        }
        for i, cell in enumerate(cells):
            record(config, this, setup, cell, went, train.take(said, i), i)


def record(config: Config, this: study.Run, setup: Setup, cell: study.Cell, went: recipes.Swept, said: Any,
           i: int) -> None:  # fmt: skip
    """The record of a run; of naive fine-tuning with two classes also what thresholds make of it."""
    setting, failed = cell["setting"], int(went.failed_at[i])
    tolerance = setting.get("tolerance", config.tolerance)

    def write(name: str, labels: Callable[..., Any], more: Mapping[str, Any]) -> None:
        did = {n: judged(setup, cell["seed"], labels(z), tolerance, failed < 0) for n, z in said.items()}
        on, test = did["delivered"]["train"], did["delivered"]["test"]
        claimed = {"train_gap": on["gap"], "test_gap": test["gap_large"], "test_accuracy": test["accuracy"]}
        named = {n: cell[n] for n in NAMES} | {"cell": name}
        this.record(named, {"setting": setting, "failed_at": failed, **more, **did, **claimed})

    if (cell["stage"], cell["cell"]) == ("confirm", "nft") and setup.dataset.num_classes == 2:
        # Before its network: of a run that is killed between the two, both are made again.
        write("nft_threshold", partial(thresholded, setup, cell["seed"]), {})
    more = {"epoch": int(went.epoch[i]), "averaged": bool(went.averaged[i]),
            "multipliers": float(np.sum(went.multipliers[-1, i])),
            "path": path_of(went.gaps[:, i], went.multipliers[:, i])}  # fmt: skip
    write(cell["cell"], lambda z: {w: values.argmax(-1) for w, values in z.items()}, more)


def record_dense(config: Config, this: study.Run, setup: Setup, name: study.Cell) -> None:
    """How well the dense networks do, and how far the next seed's is from each: the floor of the noise."""
    seeds = len(setup.keys)
    about = {"groups": list(setup.dataset.group_names)[:12], "num_groups": setup.dataset.num_groups,
             "prune": pruned(setup.epochs), "steps": setup.steps}  # fmt: skip
    for seed in range(seeds):
        found = {}
        for of, number in (("dense", seed), ("retrained", (seed + 1) % seeds)):
            labels = {w: np.asarray(z[number]).argmax(-1) for w, z in setup.logits.items()}
            found[of] = judged(setup, seed, labels, config.tolerance, of == "dense" or seeds > 1)
        this.record(name | {"seed": seed}, found | about)


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
    runs = study.chosen(records, of="run", stage="screen")
    of = {(r["data_set"], r["cell"], r["seed"]): r for r in runs}
    active = [d for d in config.sets if is_active(study.chosen(runs, data_set=d, cell="nft"))]
    rows, good, debt, splits = design(), {}, {}, ("train", "validation")
    for number in config.cells or range(len(rows)):
        cell, owed = f"{number:02d}", []
        good[cell] = 0
        for name, seed in itertools.product(active or config.sets, range(config.screen_seeds)):
            run, nft = of[name, cell, seed], of[name, "nft", seed]
            least = {w: nft["last"][w]["accuracy"] - ALLOWED_LOSS for w in splits}
            met = run["delivered"]["train"]["violation"] <= 0
            good[cell] += met and all(run["delivered"][w]["accuracy"] >= least[w] for w in splits)
            lacking = [least[w] - run["last"][w]["accuracy"] for w in splits]
            lacks = float(np.sum(np.maximum([run["last"]["train"]["violation"], *lacking], 0.0)))
            owed.append(100 * lacks if math.isfinite(lacks) else 100.0)  # nan, of a run that failed
        debt[cell] = np.array(owed)
    ranked = sorted(good, key=lambda cell: (-good[cell], debt[cell].mean(), cell))
    chosen = {f"best_{i + 1}": rows[int(cell)] for i, cell in enumerate(ranked[: config.best])}
    response = np.array([np.log(0.1 + owed).mean() for owed in debt.values()])
    fit = factorial.fit([rows[int(cell)] for cell in debt], response, LEVELS, INTERACTIONS)
    predicted = None if fit is None else factorial.least(fit, list(chosen.values()))
    return chosen | ({f"best_{len(chosen) + 1}": predicted} if predicted else {})


def chosen_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that the screening chose; none before it is done."""
    return next((r["settings"] for r in records if r["of"] == "choice"), {})


def run(config: Config) -> None:
    """The stages that were asked for, and the page."""
    # Another backend has another network for images, and other last digits.
    digest = hashlib.sha256(DESIGN.read_bytes()).hexdigest()
    more = {"design_sha256": digest, "backend": jax.default_backend()}
    grows = ("stage", "data_dir", "splits")
    with study.opened(config, NAMES, grows=grows, more=more, room=200_000_000) as this:
        if "cifar10" in config.sets:
            DATA_SETS["cifar10"].load(config, 0)  # says at once if it is not there
        choice = {"of": "choice"}
        needed = not config.settings or any(name.startswith("best_") for name in config.settings)
        if config.stage == "confirm" and needed and not this.has(choice):
            raise flags.UsageError("--stage=confirm needs a finished screening: run --stage=screen first")
        if config.stage != "confirm":
            play(config, this, screen_jobs(config))
            this.get(choice, lambda: {"settings": choose(config, this.records)})
        if config.stage != "screen":
            play(config, this, confirm_jobs(config, chosen_of(this.records)))
        tell(config, this)


# --- what was found ------------------------------------------------------------------------------------------------

#: The model of gaps is of their logarithm, so its effects are factors.
FACTOR = {"of": lambda value: 2.0**value}


def claims(records: Sequence[Mapping[str, Any]]) -> list[study.Claim]:
    """What would have to be seen of every constrained method, on each of the data sets."""
    there = study.values(study.chosen(records, stage="confirm"), "cell")
    stated = {
        "published": ("train_gap", ("nearer to no gap on train", "further from it")),
        "nft": ("test_gap", ("kinder on test to the group that loses most", "harder on it")),
    }
    return [
        study.Claim(method, peer, column, words, good=-1, at=("data_set",), among={"stage": "confirm"}, of="cell",
                    over=("split", "seed"), level=lambda name: DATA_SETS[name].name)
        for method in (*RECIPES, *chosen_of(records)) for peer, (column, words) in stated.items()
        if {method, peer} <= {*there}
    ]  # fmt: skip


def fits(records: Sequence[Mapping[str, Any]], what: str) -> dict[str, factorial.Fit]:
    """For each data set the linear model of the screened cells: of log2 of the largest gap, or of accuracy in points.

    Of the last iterate on train, means over seeds. A run that failed counts as the worst that was measured on the data
    set: to leave it out would praise its cell. Gaps below a tenth of a point are told apart no more.
    """
    found = {}
    for name in study.values(study.chosen(records, stage="screen"), "data_set"):
        mine = [r for r in study.chosen(records, stage="screen", data_set=name) if r["cell"].isdigit()]
        right = [r["last"]["train"][what] for r in mine if r["failed_at"] < 0]
        worst = (max if what == "gap" else min)(right, default=0.0)
        seen = [(r["cell"], r["last"]["train"][what] if r["failed_at"] < 0 else worst) for r in mine]
        cells = {cell: [value for other, value in seen if other == cell] for cell, _ in seen}
        settings = [study.chosen(mine, cell=cell)[0]["setting"] for cell in cells]
        means = [np.mean(np.log2(np.maximum(v, 1e-3)) if what == "gap" else 100 * np.array(v)) for v in cells.values()]
        fit = factorial.fit(settings, np.array(means), LEVELS, INTERACTIONS) if right else None
        if fit is not None:
            found[DATA_SETS[name].name] = fit
    return found


def flat(config: Config, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the tables and figures of the confirmation ask for, a row per run, and one per retrained dense network."""
    runs, key = study.chosen(records, of="run"), ("data_set", "split", "seed")
    nft = {tuple(r[k] for k in key): r["last"]["train"]["accuracy"]
           for r in study.chosen(runs, stage="confirm", cell="nft")}  # fmt: skip
    rows = []
    for r in (r for r in runs if r["stage"] != "screen"):
        last, out = r["last"]["train"], r["delivered"]["train"]
        lost = nft.get(tuple(r[k] for k in key), math.nan) - out["accuracy"]
        rows.append({k: r[k] for k in ("stage", *key, "cell", "train_gap", "test_gap", "test_accuracy")} | {
            "last_gap": last["gap"], "by_chance": out["by_chance"], "accuracy": out["accuracy"], "lost": lost,
            "met_last": last["violation"] <= 0, "met": out["violation"] <= 0,
            "joint": out["violation"] <= 0 and lost <= ALLOWED_LOSS, "dual rate": r["setting"]["rate"],
            "tolerance": r["setting"].get("tolerance", config.tolerance),
        })  # fmt: skip
    played = {r["split"] for r in rows}
    return rows + [
        {k: r[k] for k in key} | {"stage": "confirm", "cell": "dense, retrained",
                                  "test_gap": r["retrained"]["test"]["gap_large"]}
        for r in study.chosen(records, of="dense") if r["split"] in played
    ]  # fmt: skip


def swept(rows: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """The runs over a dual rate or a tolerance, those of the confirmation among them; the first split only."""
    cut = f" {kind.split()[-1]} "
    varied = [{**r, "cell": r["cell"].split(cut)[0]} for r in study.chosen(rows, stage="frontier") if cut in r["cell"]]
    there = {(r["cell"], r["split"], r["seed"]) for r in varied}
    own = study.chosen(rows, stage="confirm")
    return [r for r in own if (r["cell"], r["split"], r["seed"]) in there] + varied


def tables(rows: Sequence[Mapping[str, Any]], best: Sequence[str], gap: Any, accuracy: Any) -> list[report.Shown]:
    """All tables of the page."""
    names = [report.Name("data_set", "data set", lambda name: DATA_SETS[name].name),
             report.Name("cell", "method", order=("nft", *BASELINES, "nft_threshold", "published", *RECIPES))]  # fmt: skip
    confirmed, points = study.chosen(rows, stage="confirm"), partial(report.in_points, lacking="–")
    columns = {
        "train gap, last": points("last_gap"), "train gap": points("train_gap"),
        "by chance": points("by_chance"), "met, last": report.counted("met_last"), "met": report.counted("met"),
        "met and accurate": report.counted("joint"), "train accuracy": points("accuracy"),
        "test gap": points("test_gap"), "test accuracy": points("test_accuracy"),
    }  # fmt: skip
    compared = {"train gap": "train_gap", "test gap": "test_gap", "test accuracy": "test_accuracy"}
    constrained, peers = (*RECIPES, "published", *best), ("nft", *BASELINES, "nft_threshold")
    paired = report.paired_table([r for r in confirmed if "met" in r], names, compared, of="cell",
                                 over=("split", "seed"), peers=lambda m: peers if m in constrained else ())  # fmt: skip
    few = {k: columns[k] for k in ("train gap", "met", "train accuracy", "test gap", "test accuracy")}
    few["largest loss"] = report.number("lost", ".4f", of=np.max)
    return [
        report.Shown(
            "table", report.table(confirmed, names, columns),
            "Delivered networks, unless it says last: in points, mean and half-width of the 95 % t interval.",
            "Gap: the largest excess accuracy gap; on test over groups of at least 200 people. By chance: what the train "
            "gap would be on average if every prediction that changed were a coin flip. Met: runs within the bound on "
            "train; and accurate: at most 0.3 points less so than naive fine-tuning's last iterate. dense, retrained: the "
            "gap between two dense networks, the floor of the noise. nft_threshold of sex x label has one threshold per "
            "sex, since the label is not known at test time.",
            numbers=pd.DataFrame(rows), title="in points, mean ± 95 % over splits and seeds",
        ),
        report.Shown("paired", paired, "Paired differences in points, the same splits and seeds, 95 % t intervals.",
                     "The interval takes the runs for independent; those of a split share their people."),
        *(report.Shown(f"over_{kind.split()[-1]}", report.table(
            swept(rows, kind), [*names, report.Name(kind, say=lambda value: f"{value:g}")], few
        ), f"Over the {kind}, on one split. Largest loss: of accuracy on train against naive fine-tuning, as a share.")
          for kind in ("dual rate", "tolerance")),
        report.Shown("effects_gap", report.effects_table(gap, spec=".2f", **FACTOR),
                     "Factor by which the largest gap on train (last iterate) is multiplied, 95 % intervals."),
        report.Shown("effects_accuracy", report.effects_table(accuracy),
                     "Change of the accuracy on train (last iterate), in points, 95 % intervals."),
        report.Shown("terms", report.terms_table(gap), "F statistics of all terms of the model of the log of the gap.",
                     "Least squares on the means of each cell over seeds. It takes the errors for independent, of one "
                     "variance, and interactions that are not in the model for noise, which widens the intervals."),
    ]  # fmt: skip


def pictures(config: Config, records: Sequence[Any], rows: Sequence[Any], gap: Any) -> list[report.Drawn]:
    """All figures of the page."""
    drawn, alt = [], "the numbers are in the tables"
    if gap:
        drawn.append(report.Drawn(
            "effects", report.effects_figure(gap, label="gap multiplied by", **FACTOR),
            "Main effects of the screening: the factor by which the largest gap of the last iterate on train is multiplied "
            "when a level takes the place of the published one. Left of 1 (round) is better; filled: not 1.", alt,
        ))  # fmt: skip
    sides = {"train_gap": "largest gap on train (points)", "accuracy": "accuracy on train (%)"}
    for kind in ("dual rate", "tolerance"):
        varied = swept(rows, kind)
        grid = [
            [figures.Panel(report.lines(study.chosen(varied, data_set=name), column, along=kind, of="cell"),
                           DATA_SETS[name].name, label,
                           100 * config.tolerance if (column, kind) == ("train_gap", "dual rate") else math.nan)
             for name in study.values(varied, "data_set")]
            for column, label in sides.items()
        ]  # fmt: skip
        if varied:
            drawn.append(report.Drawn(
                f"over_{kind.split()[-1]}",
                figures.levels(grid, methods=study.values(varied, "cell"), along=kind, say=lambda v: f"{v:g}"),
                f"Delivered networks over the {kind} (dotted: the bound), with 95 % intervals over seeds.", alt,
            ))  # fmt: skip
    for about in study.chosen(records, of="dense", seed=0):
        runs = [r for r in study.chosen(records, of="run", data_set=about["data_set"], split=about["split"])
                if r["failed_at"] < 0 and "path" in r]  # fmt: skip
        cells = [c for c in ("published", *RECIPES, *chosen_of(records)) if study.chosen(runs, cell=c)][:6]
        paths = {c: [r["path"] for r in study.chosen(runs, cell=c)] for c in cells}
        if cells and about["split"] in (0, config.first_split):
            many, name = about["num_groups"] > 12, DATA_SETS[about["data_set"]].name
            drawn.append(report.Drawn(
                f"path_{about['data_set']}_{about['split']}",
                figures.trajectories(
                    np.array(runs[0]["path"]["epochs"]),
                    {c: figures.Trajectory(*(np.mean([p[k] for p in of], axis=0) for k in ("gaps", "multipliers")))
                     for c, of in paths.items()},
                    tolerance=config.tolerance, pruning_end=np.array(about["prune"]),
                    names=["largest", "90 %", "median", "smallest"] if many else about["groups"],
                ),
                f"{name}, split {about['split']}: excess gaps during training, in train mode, and multipliers; means over "
                f"seeds.{' Of many groups quantiles are shown.' if many else ''}", alt,
            ))  # fmt: skip
    return drawn


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records, best, rows = this.records, chosen_of(this.records), flat(config, this.records)
    gap, accuracy = (fits(records, what) for what in ("gap", "accuracy"))
    runs = study.chosen(records, of="run")
    stage = "confirm" if study.chosen(runs, stage="confirm") else "screen"
    idle = [DATA_SETS[name].name for name in study.values(runs, "data_set")
            if not is_active(study.chosen(runs, stage=stage, data_set=name, cell="nft"))]  # fmt: skip
    said = [f"{len(runs)} runs. The bound is {report.points(config.tolerance)} points on every group's excess accuracy gap, "
            f"or one person; in {sum(r['failed_at'] >= 0 for r in runs)} runs the loss was not finite."]  # fmt: skip
    if idle:
        said.append(f"Naive fine-tuning meets the bound too often to conclude anything on {', '.join(idle)}.")
    for name, fit in gap.items():
        found = [e for e in factorial.effects(fit) if e.factor == "optimizer"]
        words = "; ".join(f"{e.level} by {report.say_effect(e, spec='.2f', **FACTOR)}" for e in found)
        said.append(f"In place of gradient ascent of the multipliers, gaps on {name} are multiplied: {words}.")
    aliases = factorial.aliasing(design(), LEVELS).items()
    frame = pd.DataFrame([{"factor": a, "interaction": b, "correlation": f"{size:.2f}"}
                          for (a, b), size in sorted(aliases, key=lambda item: -item[1])])  # fmt: skip
    caption = "Main effects that are aliased with two-factor interactions, and how far."
    tested = [r for r in records if r.get("data_set") in TESTED]
    report.study(
        this, prog="experiments.dual_dynamics", title="Which constraints hold",
        subtitle="Networks pruned under a bound on what every group may lose",
        found=[*said, *(study.judge(tested, claim) for claim in claims(records))],
        drawn=pictures(config, records, rows, gap), shown=tables(rows, [*best], gap, accuracy),
        done=[f"{name}: {', '.join(f'{k} {v}' for k, v in setting.items())}" for name, setting in best.items()],
        paragraphs=[
            "Networks are pruned in the first 30 % of the epochs. The latest iterate, or average, that met the bound on train "
            "is delivered, else the one that violates it least. Test is only measured.",
            *(" ".join((function.__doc__ or "").split()) for function in (choose, fits)),
        ],
        sections=[report.Section(title="What the design cannot tell apart", folded=True,
                                 blocks=[report.Table.from_frame(frame, caption=caption)])],
    )  # fmt: skip


main = flags.entry(run, Config, prog="dual_dynamics")


if __name__ == "__main__":
    main()
