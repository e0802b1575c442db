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
    return factorial.read(DESIGN, LEVELS)


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
            raise flags.UsageError(
                f"--epochs={self.epochs}: give at least 3, or 0 for the data set's own"
            )
        if self.frontier_seeds > self.seeds:
            raise flags.UsageError(
                f"--frontier_seeds={self.frontier_seeds}: at most --seeds={self.seeds}"
            )
        if wrong:
            raise flags.UsageError(
                f"--settings: there is no {wrong[0]!r}; choose from {', '.join(named)}"
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


def jobs(
    stage: str, data_set: str, splits: Sequence[int], settings: Mapping[str, Any], seeds: int
) -> list[study.Cell]:
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
    return [
        j for name in config.sets for j in jobs("screen", name, [0], settings, config.screen_seeds)
    ]


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
    stages = (
        ("confirm", splits, settings, config.seeds),
        ("frontier", splits[:1], varied, config.frontier_seeds),
    )
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


@functools.lru_cache(maxsize=32)
def program(
    words: tuple[str, ...], name: str, num_classes: int, num_groups: int, steps: int, epochs: int,
    refresh_every: int, base: recipes.Base | None,
) -> tuple[Callable[[Lane], Any], Callable[..., Any]]:  # fmt: skip
    """The solver of a lane with these words, and its first state: the same function for the same words.

    Only the exact estimate is told the split (``base``), and is another program on each.
    """
    estimate, weights, mean, loss = words
    spec, model = DATA_SETS[name], model_of(name, num_classes)
    # A memory counts people, whatever the weights of balanced batches are.
    places, every = (
        constraints.replay_buffer(num_groups, RING),
        constraints.example_memory(num_groups),
    )
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
        if base is None:
            return game
        whole = base.splits["train"]

        def refreshed(carry: Any, params: Any) -> Any:
            right = constraints.outcomes(
                logits(params, carry.model_state, whole.x), whole.y
            ).correct
            return memory.init(whole.group, right, whole.weight)

        def step(state: Any, batch: Batch, key: Any) -> Any:
            due, kept = state.step % refresh_every == 0, lambda carry, params: carry.memory
            now = cond_any(due, refreshed, kept, state.carry, state.params)
            return game.step(state._replace(carry=state.carry._replace(memory=now)), batch, key)

        return game._replace(step=step)

    def start(
        lane: Lane, network: train.Networks, dense: constraints.Outcomes, split: Batch
    ) -> Any:
        return solver(lane).init(
            network.params, problem(lane).init(network.model_state, dense, split)
        )

    return solver, start


def played(config: Config, base: recipes.Base, cells: Sequence[study.Cell]) -> recipes.Swept:
    """A chunk of runs with the same words."""
    name, words, steps = cells[0]["data_set"], tuple(cells[0]["program"]), base.steps
    epochs = config.epochs or DATA_SETS[name].epochs

    def lane(setting: Mapping[str, Any], seed: int) -> Lane:
        start = pruned(epochs) * steps if setting["start"] == "after" else 0
        rate = setting["rate"] / (steps if setting.get("per") == "epoch" else 1)
        tolerance = setting.get("tolerance", config.tolerance)
        values = (start, setting["margin"], tolerance, rate, *gains(setting["optimizer"], steps))
        teacher = base.logits["train"][seed] if words[3] == "distilled" else ()
        return Lane(*(jnp.float32(value) for value in values), teacher)

    made = program(
        (*words[:3], words[3].replace("balanced", "plain")), name, base.dataset.num_classes, base.dataset.num_groups,
        steps, epochs, -(-steps // config.refreshes), base if words[0] == "exact" else None,
    )  # fmt: skip
    return recipes.sweep(
        base, *made, train.stack([lane(cell["setting"], cell["seed"]) for cell in cells]),
        seeds=np.array([cell["seed"] for cell in cells]), epochs=epochs, prune_epochs=pruned(epochs),
        # With as many places for each group, a loss in which every group counts the same is the plain one.
        batches=words[4], weighted=words[3] != "balanced",
    )  # fmt: skip


def path_of(gaps: np.ndarray, multipliers: np.ndarray) -> dict[str, Any]:
    """Gaps and multipliers ``[E, G]`` of at most 17 epochs; of many groups, quantiles."""
    thin = sorted({*np.linspace(0, len(gaps) - 1, min(len(gaps), 17)).round().astype(int)})
    found = {"gaps": gaps[thin], "multipliers": multipliers[thin]}
    if gaps.shape[1] > 12:
        found = {k: np.quantile(v, (1.0, 0.9, 0.5, 0.0), axis=1).T for k, v in found.items()}
    rounded = {k: np.round(v.astype(np.float64), 6).tolist() for k, v in found.items()}
    return {"epochs": [int(e) + 1 for e in thin]} | rounded


def thresholded(
    config: Config, base: recipes.Base, cell: study.Cell, logits: Mapping[str, Any]
) -> dict[str, Any]:
    """Predictions with one threshold for each group of people that is known at test time, chosen on validation."""
    load = DATA_SETS[cell["data_set"]].cells
    own = base.dataset if load is None else load(config, cell["split"])
    known = {which: np.asarray(b.group) for which, b in own.splits.items()}
    margins, batch = {w: z[:, 1] - z[:, 0] for w, z in logits.items()}, own.validation
    threshold = metrics.cell_thresholds(
        margins["validation"], np.asarray(batch.y), np.asarray(base.outcomes["validation"].correct[cell["seed"]]) > 0,
        np.asarray(base.dataset.validation.group), known["validation"], max(int(g.max()) for g in known.values()) + 1,
    )  # fmt: skip
    return {
        which: (margin > threshold[known[which]]).astype(np.int64)
        for which, margin in margins.items()
    }


# --- the run -------------------------------------------------------------------------------------------------------


def play(config: Config, this: study.Run, wanted: Sequence[study.Cell]) -> None:
    """All runs that are not done, chunk by chunk."""
    base, at = None, None
    together = ("stage", "data_set", "split", "program")
    for shared, cells in this.missing(wanted, together=together, at_most=config.lanes, whole=True):
        if base is None or at != (shared["data_set"], shared["split"]):
            base, at = (
                None,
                (shared["data_set"], shared["split"]),
            )  # so that two are never in memory
            base = based(config, this, *at)
        went = played(config, base, cells)
        for i, cell in enumerate(cells):
            record(config, this, base, cell, went, i)


def based(config: Config, this: study.Run, name: str, split: int) -> recipes.Base:
    """A split with its dense networks; records how far the next seed's is from each, which is the floor of the noise."""
    spec, root = DATA_SETS[name], jax.random.fold_in(jax.random.key(config.seed), split)
    seeds = config.seeds if split else config.screen_seeds
    dataset = spec.load(config, split)
    base = recipes.base(
        model_of(name, dataset.num_classes), dataset, batch_size=spec.batch_size,
        keys=jnp.stack([jax.random.fold_in(root, seed) for seed in range(seeds)]),
        file=this.folder / "dense" / f"{name}_{split}.npz",
    )  # fmt: skip
    about = {"groups": list(dataset.group_names)[:12], "num_groups": dataset.num_groups,
             "prune": pruned(config.epochs or spec.epochs), "steps": base.steps}  # fmt: skip
    for seed in range(seeds):
        own, other = base.labels(seed), base.labels((seed + 1) % seeds)
        found = {"dense": base.judged(seed, own, config.tolerance),
                 "retrained": base.judged(seed, other, config.tolerance, ok=seeds > 1)}  # fmt: skip
        this.record({"of": "dense", "data_set": name, "split": split, "seed": seed}, found | about)
    return base


def record(
    config: Config,
    this: study.Run,
    base: recipes.Base,
    cell: study.Cell,
    went: recipes.Swept,
    i: int,
) -> None:
    """The record of a run; of naive fine-tuning with two classes also what thresholds make of it."""
    setting, failed = cell["setting"], int(went.failed_at[i])
    tolerance, said = setting.get("tolerance", config.tolerance), train.take(went.logits, i)

    def write(name: str, labels: Callable[..., Any], more: Mapping[str, Any]) -> None:
        did = {
            of: base.judged(cell["seed"], labels(z), tolerance, ok=failed < 0)
            for of, z in said.items()
        }
        last, on, test = did["last"]["train"], did["delivered"]["train"], did["delivered"]["test"]
        # What claims, tables and figures are about, in one place.
        flat = {"last_gap": last["gap"], "train_gap": on["gap"], "by_chance": on["by_chance"],
                "train_accuracy": on["accuracy"], "test_gap": test["gap_large"], "test_accuracy": test["accuracy"],
                "rate": setting["rate"], "tolerance": tolerance}  # fmt: skip
        flat |= {"met_last": last["violation"] <= 0, "met": on["violation"] <= 0}
        named = {n: cell[n] for n in NAMES} | {"cell": name}
        this.record(named, {"setting": setting, "failed_at": failed, **more, **did, **flat})

    if (cell["stage"], cell["cell"]) == ("confirm", "nft") and base.dataset.num_classes == 2:
        # Before its network: of a run that is killed between the two, both are made again.
        write("nft_threshold", partial(thresholded, config, base, cell), {})
    more = {"epoch": int(went.epoch[i]), "averaged": bool(went.averaged[i]),
            "multipliers": float(np.sum(went.multipliers[-1, i])),
            "path": path_of(went.gaps[:, i], went.multipliers[:, i])}  # fmt: skip
    write(cell["cell"], lambda z: {which: values.argmax(-1) for which, values in z.items()}, more)


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
            raise flags.UsageError(
                "--stage=confirm needs a finished screening: run --stage=screen first"
            )
        if config.stage != "confirm":
            play(config, this, screen_jobs(config))
            this.get(choice, lambda: {"settings": choose(config, this.records)})
        if config.stage != "screen":
            play(config, this, confirm_jobs(config, chosen_of(this.records)))
        tell(config, this)


# --- what was found ------------------------------------------------------------------------------------------------


def claims(records: Sequence[Mapping[str, Any]]) -> list[study.Claim]:
    """What would have to be seen of every constrained method, on each of the data sets."""
    there = study.values(study.chosen(records, stage="confirm"), "cell")
    stated = {
        "published": ("train_gap", ("nearer to no gap on train", "further from it")),
        "nft": ("test_gap", ("kinder on test to the group that loses most", "harder on it")),
    }
    return [
        study.Claim(method, peer, column, words, good=-1, at=("data_set",), among={"stage": "confirm"}, of="cell",
                    over=("split", "seed"), level=title)
        for method in (*RECIPES, *chosen_of(records)) for peer, (column, words) in stated.items()
        if {method, peer} <= {*there}
    ]  # fmt: skip


def title(name: str) -> str:
    """A data set as a reader sees it."""
    return DATA_SETS[name].name


def fits(records: Sequence[Mapping[str, Any]], what: str) -> dict[str, factorial.Fit]:
    """For each data set the linear model of the screened cells: of log2 of the largest gap, or of accuracy in points.

    Of the last iterate on train, means over seeds. A run that failed counts as the worst that was measured on the data
    set: to leave it out would praise its cell. Gaps below a tenth of a point are told apart no more.
    """
    found, gap = {}, what == "gap"
    for name in study.values(study.chosen(records, stage="screen"), "data_set"):
        mine = [
            r for r in study.chosen(records, stage="screen", data_set=name) if r["cell"].isdigit()
        ]
        seen = [r["last"]["train"][what] if r["failed_at"] < 0 else math.nan for r in mine]
        if np.isfinite(seen).any():
            values = np.nan_to_num(seen, nan=np.nanmax(seen) if gap else np.nanmin(seen))
            values = np.log2(np.maximum(values, 1e-3)) if gap else 100 * values
            settings = {r["cell"]: r["setting"] for r in mine}
            means = [
                np.mean([v for v, r in zip(values, mine, strict=True) if r["cell"] == c])
                for c in settings
            ]
            found[title(name)] = factorial.fit(
                [*settings.values()], np.array(means), LEVELS, INTERACTIONS
            )
    return {name: fit for name, fit in found.items() if fit is not None}


def flat(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The runs of the confirmation beside naive fine-tuning, and the retrained dense networks: the rows of the tables."""
    nft = {(r["data_set"], r["split"], r["seed"]): r["last"]["train"]["accuracy"]
           for r in study.chosen(records, stage="confirm", cell="nft")}  # fmt: skip
    rows = [
        {k: v for k, v in r.items() if not isinstance(v, dict)}
        | {"lost": nft.get((r["data_set"], r["split"], r["seed"]), math.nan) - r["train_accuracy"]}
        for r in records if r.get("stage") in ("confirm", "frontier")
    ]  # fmt: skip
    floor = [
        {k: r[k] for k in ("data_set", "split", "seed")}
        | {"stage": "confirm", "cell": "dense, retrained", "test_gap": r["retrained"]["test"]["gap_large"]}
        for r in study.chosen(records, of="dense") if nft and r["split"]
    ]  # fmt: skip
    return [r | {"joint": r["met"] and r["lost"] <= ALLOWED_LOSS} for r in rows] + floor


def swept(rows: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """The runs over a dual rate or a tolerance, those of the confirmation among them; the first split only."""
    varied = [r for r in study.chosen(rows, stage="frontier") if f" {kind} " in r["cell"]]
    named = [{**r, "cell": r["cell"].split(f" {kind} ")[0]} for r in varied]
    there = {(r["cell"], r["split"], r["seed"]) for r in named}
    own = study.chosen(rows, stage="confirm")
    return [r for r in own if (r["cell"], r["split"], r["seed"]) in there] + named


def tables(rows: Sequence[Mapping[str, Any]], best: Sequence[str]) -> list[report.Shown]:
    """The tables of the confirmation."""
    names = [report.Name("data_set", "data set", title),
             report.Name("cell", "method", order=("nft", *BASELINES, "nft_threshold", "published", *RECIPES))]  # fmt: skip
    confirmed, points = study.chosen(rows, stage="confirm"), partial(report.in_points, lacking="–")
    few = {"train gap": points("train_gap"), "met": report.counted("met"), "train accuracy": points("train_accuracy"),
           "test gap": points("test_gap"), "test accuracy": points("test_accuracy")}  # fmt: skip
    more = {"train gap, last": points("last_gap"), "met, last": report.counted("met_last"),
            "by chance": points("by_chance"), "met and accurate": report.counted("joint")}  # fmt: skip
    compared = {"train gap": "train_gap", "test gap": "test_gap", "test accuracy": "test_accuracy"}
    constrained, peers = (*RECIPES, "published", *best), ("nft", *BASELINES, "nft_threshold")
    shown = [
        report.Shown(
            "table", report.table(confirmed, names, few | more),
            "Delivered networks, unless it says last: in points, mean and half-width of the 95 % t interval.",
            "Gap: the largest excess accuracy gap; on test over groups of at least 200 people. By chance: if every "
            "prediction that changed were a coin flip. Met: runs within the bound on train; and accurate: at most 0.3 "
            "points less so than naive fine-tuning's last iterate. dense, retrained: the gap between two dense networks, "
            "the floor of the noise. nft_threshold of sex x label has one threshold per sex.",
            numbers=pd.DataFrame(rows), title="in points, mean ± 95 % over splits and seeds",
        ),
        report.Shown(
            "paired",
            report.paired_table([r for r in confirmed if "met" in r], names, compared, of="cell", over=("split", "seed"),
                                peers=lambda method: peers if method in constrained else ()),
            "Paired differences in points, the same splits and seeds; runs of a split share their people.",
        ),
    ]  # fmt: skip
    for kind in ("rate", "tolerance"):
        level, loss = (
            report.Name(kind, say=lambda value: f"{value:g}"),
            report.number("lost", ".4f", of=np.max),
        )
        frame = report.table(swept(rows, kind), [*names, level], few | {"largest loss": loss})
        caption = f"Over the {kind}, on one split. Largest loss: of accuracy on train against naive fine-tuning."
        shown.append(report.Shown(f"over_{kind}", frame, caption))
    return shown


def screened(
    records: Sequence[Mapping[str, Any]],
) -> tuple[list[report.Shown], list[report.Drawn], list[str]]:
    """Tables, a figure and sentences of the screening."""
    gap, accuracy = fits(records, "gap"), fits(records, "accuracy")
    if not gap:
        return [], [], []
    factor = {"of": lambda value: 2.0**value}  # the model of gaps is of their logarithm
    shown = [
        report.Shown("effects_gap", report.effects_table(gap, spec=".2f", **factor),
                     "Factor by which the largest gap on train (last iterate) is multiplied, 95 % intervals."),
        report.Shown("effects_accuracy", report.effects_table(accuracy),
                     "Change of the accuracy on train (last iterate), in points, 95 % intervals."),
        report.Shown("terms", report.terms_table(gap), "F statistics of all terms of the model of the log of the gap.",
                     "Least squares on the means of each cell over seeds; interactions that are not in it are noise."),
    ]  # fmt: skip
    drawn = report.Drawn(
        "effects", report.effects_figure(gap, label="gap multiplied by", **factor),
        "What a level does to the largest gap in place of the published one. Left of 1 (round) is better; filled: not 1.",
        "the numbers are in the table of effects",
    )  # fmt: skip
    said = []
    for name, fit in gap.items():
        found = [e for e in factorial.effects(fit) if e.factor == "optimizer"]
        words = "; ".join(
            f"{e.level} by {report.say_effect(e, spec='.2f', **factor)}" for e in found
        )
        said.append(
            f"In place of gradient ascent of the multipliers, gaps on {name} are multiplied: {words}."
        )
    return shown, [drawn], said


def pictures(config: Config, records: Sequence[Any], rows: Sequence[Any]) -> list[report.Drawn]:
    """Gaps over dual rates and tolerances, and the paths of gaps and multipliers."""
    drawn, alt = [], "the numbers are in the tables and in records.jsonl"
    for kind in ("rate", "tolerance"):
        sets = {
            name: study.chosen(swept(rows, kind), data_set=name)
            for name in study.values(swept(rows, kind), "data_set")
        }
        panels = [
            [figures.Panel(report.lines(of, column, along=kind, of="cell"), title(name), label)
             for name, of in sets.items()]
            for column, label in (("train_gap", "largest gap on train (points)"), ("train_accuracy", "accuracy on train (%)"))
        ]  # fmt: skip
        if sets:
            methods = study.values(swept(rows, kind), "cell")
            figure = figures.levels(
                panels, methods=methods, along=kind, say=lambda value: f"{value:g}"
            )
            drawn.append(
                report.Drawn(f"over_{kind}", figure, f"Delivered networks over the {kind}.", alt)
            )
    for about in study.chosen(records, of="dense", seed=0):
        name, split = about["data_set"], about["split"]
        runs = [
            r
            for r in study.chosen(records, data_set=name, split=split)
            if "path" in r and r["failed_at"] < 0
        ]
        cells = [
            c for c in ("published", *RECIPES, *chosen_of(records)) if study.chosen(runs, cell=c)
        ][:6]
        if cells and split in (0, config.first_split):
            paths = {c: [r["path"] for r in study.chosen(runs, cell=c)] for c in cells}
            mean = {
                c: [np.mean([p[k] for p in of], axis=0) for k in ("gaps", "multipliers")]
                for c, of in paths.items()
            }
            quantiles = ["largest", "90 %", "median", "smallest"]
            figure = figures.trajectories(
                np.array(runs[0]["path"]["epochs"]), {c: figures.Trajectory(*of) for c, of in mean.items()},
                names=about["groups"] if about["num_groups"] <= 12 else quantiles, tolerance=config.tolerance,
                pruning_end=np.array(about["prune"]),
            )  # fmt: skip
            caption = f"{title(name)}, split {split}: gaps and multipliers during training; means over runs."
            drawn.append(report.Drawn(f"path_{name}_{split}", figure, caption, alt))
    return drawn


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records, best, rows = this.records, chosen_of(this.records), flat(this.records)
    runs, (shown, drawn, effects) = study.chosen(records, of="run"), screened(records)
    stage = "confirm" if rows else "screen"
    idle = [title(name) for name in study.values(runs, "data_set")
            if not is_active(study.chosen(runs, stage=stage, data_set=name, cell="nft"))]  # fmt: skip
    said = [f"{len(runs)} runs. The bound is {report.points(config.tolerance)} points on every group's excess accuracy "
            f"gap, or one person. In {sum(r['failed_at'] >= 0 for r in runs)} runs the loss was not finite."]  # fmt: skip
    if idle:
        said.append(
            f"Naive fine-tuning meets the bound too often to conclude anything on {', '.join(idle)}."
        )
    tested = [r for r in records if r.get("data_set") in TESTED]
    aliases = sorted(factorial.aliasing(design(), LEVELS).items(), key=lambda item: -item[1])
    aliased = "; ".join(f"{a} with {b} ({size:.2f})" for (a, b), size in aliases[:12])
    report.study(
        this, prog="experiments.dual_dynamics", title="Which constraints hold",
        subtitle="Networks pruned under a bound on what every group may lose",
        found=[*said, *effects, *(study.judge(tested, claim) for claim in claims(records))],
        drawn=drawn + pictures(config, records, rows), shown=tables(rows, [*best]) + shown,
        done=[f"{name}: {', '.join(f'{k} {v}' for k, v in setting.items())}" for name, setting in best.items()],
        paragraphs=[
            "Networks are pruned in the first 30 % of the epochs. The latest iterate, or average, that met the bound on "
            "train is delivered, else the one that violates it least. Test is only measured.",
            *(" ".join((function.__doc__ or "").split()) for function in (choose, fits)),
            f"Main effects are aliased with interactions, the most with a correlation of: {aliased}.",
        ],
    )  # fmt: skip


main = flags.entry(run, Config, prog="dual_dynamics")


if __name__ == "__main__":
    main()
