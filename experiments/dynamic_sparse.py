"""Every way to a sparse network, at the same length of training, and which of them harms groups least.

    python -m experiments.dynamic_sparse

trains networks that become sparse, or are sparse from the start, by sixteen methods from scratch and five from a
trained dense network, to 80, 90, 95 and 98 percent of zeros. Measured: accuracy, the largest excess accuracy gap over
groups against the dense network of the same seed, and what the training cost in multiply-adds. The question: does a
method that is as accurate as another also leave groups as they were, and what does asking for it (FairGRAPE, CEAG) buy?

The data are scikit-learn's digits, whose groups are the classes, every seed another split. `--datasets adult` is Adult
with the groups sex x label; `--datasets cifar10 --data_dir FOLDER` a ResNet-20, minutes per network on a CPU, or with
`--cifar_network small_cnn` a smaller one. The noise floor is a second dense network of another initialisation, measured
against the first. The last iterate counts, and test is only measured. All methods train at one learning rate; on
CIFAR-10 with `--cifar_rates 0.02,0.05,0.1`, each at the one of these that is best on the validation split.

It writes `runs/dynamic_sparse/<id>/`: config.json, records.jsonl (one line per network; the same command goes on where
a killed run stopped), rates.jsonl, the dense networks, table.md and .csv, paired.md, figures, report.html.
"""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import constraints, data, metrics, models, recipes, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch, Model, Solver

#: Made always: the network all gaps are against, another one, and the first trained for as long again.
CONTROLS = {
    "dense": "the dense network; all gaps are against it",
    "dense_again": "another initialisation and order of the data: the noise floor",
    "dense_longer": "the dense network, trained for as long again",
}
FURTHER = {
    "gmp": "the dense network, pruned gradually by magnitude",
    "fairgrape": "the dense network, in rounds that keep each group's share of importance",
    "ceag": "the dense network, gmp with a bound on every group's excess gap",
    "wanda": "the dense network, pruned at once by weight times input, then trained",
    "magnitude_once": "the dense network, pruned at once by magnitude, then trained",
}
SCRATCH = {m: w for m, w in recipes.SPARSE.items() if m not in ("dense", *FURTHER)}
METHODS, PEER = (*SCRATCH, *FURTHER), "magnitude"
DATASETS = ("digits", "adult", "cifar10")
CIFAR_NETWORKS = {"cifar_resnet20": models.cifar_resnet20, "small_cnn": models.small_cnn}
#: Of the networks that learning rates are chosen by; no network of the comparison has it.
RATES_SEED = 1000
OWN = Batch(0, 0, 0, 0, 0)  # every seed has a split of its own


@dataclasses.dataclass(frozen=True)
class Config:
    """Sparse training by many methods, and what it costs each group."""

    datasets: tuple[str, ...] = flags.several(("digits",), of=DATASETS)  # of digits, adult, cifar10
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)  # of those named in this file
    # shares of zeros
    sparsities: tuple[float, ...] = flags.several((0.8, 0.9, 0.95, 0.98), float, above=0, below=1)
    seeds: int = flags.one(5, low=1)  # how many
    hidden: tuple[int, ...] = flags.several((256, 256), int, low=1)  # widths of the mlp's layers
    # of digits, and once more for the methods that start from the dense network
    epochs: int = flags.one(40, low=1)
    adult_epochs: int = flags.one(6, low=1)
    cifar_epochs: int = flags.one(6, low=1)
    # of cifar10: cifar_resnet20, or small_cnn, three convolutions that a CPU trains in seconds an epoch
    cifar_network: str = flags.one("cifar_resnet20", of=CIFAR_NETWORKS)
    examples: int = flags.one(5000, low=1)  # training images of cifar10
    data_dir: str = ""  # folder with cifar10_train.npz and cifar10_test.npz, or of TFDS
    batch_size: int = flags.one(64, low=1)  # examples a step, of digits; 128 of the others
    # of SGD with momentum 0.9, falling to 0 along a cosine
    learning_rate: float = flags.one(0.05, above=0)
    cifar_learning_rate: float = flags.one(0.1, above=0)
    # instead of it, for each method the one with the best accuracy on validation
    cifar_rates: tuple[float, ...] = flags.several((), float, above=0, none=True)
    # share of zeros of the networks that they are chosen by, one of each method and rate
    cifar_rates_sparsity: float = flags.one(0.95, above=0, below=1)
    tolerance: float = flags.one(0.01, above=0)  # bound of ceag on the excess gap of every group
    dual_rate: float = flags.one(0.01, above=0)  # step size of its multipliers
    # share of the weights that a round of fairgrape keeps
    fairgrape_keep: float = flags.one(0.75, above=0, below=1)
    importance_batches: int = flags.one(4, low=1)  # that its importances are averaged over
    synflow_rounds: int = flags.one(100, low=1)  # of synflow
    runs_dir: str = "runs/dynamic_sparse"  # the run goes into a folder in here
    id: str = ""  # name of that folder; a hash of the settings by default


# --- data ----------------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """Data of S seeds, ``[S, N, ...]``, and how they are trained on.

    ``test`` is the validation split where learning rates are chosen, ``few`` a batch with equally many examples of
    every class.
    """

    name: str
    seeds: tuple[int, ...]
    model: Model
    plan: train.Plan
    train: Batch
    test: Batch
    few: Batch
    groups: int
    batch_size: int
    epochs: int
    steps: int


def load(config: Config, name: str, seeds: Sequence[int], *, measured_on: str = "test") -> Task:
    """The data of these seeds."""
    if name == "cifar10":
        cifar = data.load("cifar10", data_dir=config.data_dir or None)
        sets = [
            cifar._replace(train=data.sample(cifar.train, config.examples, seed=s)) for s in seeds
        ]
        model = CIFAR_NETWORKS[config.cifar_network](cifar.num_classes)
    else:
        more = {"groups": ("sex", "label")} if name == "adult" else {}
        sets = [data.load(name, split_seed=seed, **more) for seed in seeds]
        model = models.mlp(sets[0].num_classes, hidden=config.hidden)
    each = max(10, 128 // sets[0].num_classes)
    splits = [(d.train, getattr(d, measured_on), data.of_each_class(d.train, each)) for d in sets]
    split, test, few = jax.tree.map(lambda *arrays: np.stack(arrays), *splits)
    epochs = {"adult": config.adult_epochs, "cifar10": config.cifar_epochs}.get(name, config.epochs)
    batch_size = min(config.batch_size if name == "digits" else 128, split.y.shape[1])
    steps = epochs * (split.y.shape[1] // batch_size)
    if steps < 20:
        raise flags.UsageError(
            f"{name}: {steps} steps of training; give more epochs or a smaller batch"
        )
    # Convolutions side by side are slow on a CPU, and several splits of images are large.
    plan = train.plan(model, splits[0][0], "loop" if name == "cifar10" else "map")
    groups = sets[0].num_groups
    return Task(
        name, tuple(seeds), model, plan, split, test, few, groups, batch_size, epochs, steps
    )


def keys(task: Task, purpose: int) -> jax.Array:
    """``[S]`` keys; another purpose has other ones."""
    return jnp.stack([jax.random.fold_in(jax.random.key(s), purpose) for s in task.seeds])


# --- training ------------------------------------------------------------------------------------------------------


class Networks(NamedTuple):
    """Networks of S seeds: masks, None for dense ones; ``[S]`` multiply-adds of training; ``[S, N]`` outcomes."""

    params: Any
    state: Any
    masks: Any
    cost: Any
    seconds: float
    train: constraints.Outcomes
    test: constraints.Outcomes


def judged(task: Task, params: Any, state: Any, masks: Any, cost: Any, seconds: float) -> Networks:
    """Networks with what they make of every example."""
    predict, outcomes = _predictor(task.model, task.plan), []
    for split in (task.train, task.test):
        said = predict(params, state, split)
        outcomes.append(constraints.Outcomes(jnp.float32(said.label == split.y), said.loss))
    return Networks(params, state, masks, cost, seconds, *outcomes)


@functools.cache
def _predictor(model: Model, plan: train.Plan) -> Any:
    return train.predictor(model.apply, plan, own=True)


def trained(
    config: Config, task: Task, method: str, share: float, dense: Networks | None
) -> Networks:
    """Networks of one method at one sparsity: from the dense ones, or from scratch."""
    began, images = time.perf_counter(), task.name == "cifar10"
    rate = config.cifar_learning_rate if images else config.learning_rate
    sgd = optax.sgd(optax.cosine_decay_schedule(rate, task.steps), momentum=0.9)
    if images:
        sgd = optax.chain(optax.add_decayed_weights(5e-4), sgd)
    if dense is not None and method in (*FURTHER, "dense_longer"):
        start, purpose = (dense.params, dense.state), 2
    else:
        begun, purpose = (5, 3) if method == "dense_again" else (0, 1)
        start = initial(task, begun)
    more: dict[str, Any] = {}
    if method == "ceag":
        # The start of its constraints reads groups and weights only.
        more = {
            "solver": bound(config, task),
            "given": (dense.train, task.train._replace(x=task.train.y)),
        }
    name = {"gmp": "magnitude", "ceag": "magnitude", **dict.fromkeys(CONTROLS, "dense")}
    found = recipes.sparse(
        name.get(method, method), task.model, task.train, share, optimizer=sgd, keys=keys(task, purpose),
        mask_keys=keys(task, 4), start=start, epochs=task.epochs, batch_size=task.batch_size,
        plan=task.plan, split_axes=OWN, few=task.few, num_groups=task.groups,
        keep=config.fairgrape_keep, batches=config.importance_batches, rounds=config.synflow_rounds, **more,
    )  # fmt: skip
    seconds, (report_, _) = time.perf_counter() - began, costs(task)
    # A column of ones, for products without weights.
    densities = np.pad(found.densities, ((0, 0), (0, 0), (0, 1)), constant_values=1)
    cost = [
        sparsity.training_cost(report_, d, dense_gradient=found.dense_gradient) for d in densities
    ]
    return judged(task, found.params, found.model_state, found.masks, cost, seconds)


def initial(task: Task, purpose: int) -> tuple[Any, Any]:
    """Fresh networks."""
    example = jnp.asarray(task.train.x[0, :1])
    return task.plan.lift(lambda key: task.model.init(key, example))(keys(task, purpose))


def costs(task: Task) -> tuple[sparsity.CostReport, float]:
    """Multiply-adds of a step, by layer, and those of a dense training."""
    shape = jax.ShapeDtypeStruct((task.batch_size, *task.train.x.shape[2:]), jnp.float32)
    found = sparsity.cost_report(task.model, shape)
    return found, sparsity.training_cost(found, np.ones(task.steps))


def bound(config: Config, task: Task) -> Any:
    """CEAG: a bound on the excess gap of every group against the dense network."""
    problem = constraints.excess_accuracy_gap(
        task.model.apply, num_groups=task.groups, tolerance=config.tolerance
    )

    def make(tx: Any) -> Solver:
        found = constraints.solver(
            problem.evaluate, multipliers=constraints.dense(problem.num_constraints), primal=tx,
            dual=optax.sgd(config.dual_rate), formulation=constraints.normalized_lagrangian(),
        )  # fmt: skip
        return Solver(lambda params, *of: found.init(params, problem.init(*of)), found.step)

    return make


def dense_networks(config: Config, task: Task, folder: pathlib.Path) -> Networks:
    """From their files where there are some, else trained now."""
    files = [folder / f"dense_{task.name}_{seed}.npz" for seed in task.seeds]
    rows, seconds = [i for i, file in enumerate(files) if not file.exists()], math.nan
    if rows:
        splits = train.take((task.train, task.test, task.few), np.array(rows))
        parts = dict(zip(("train", "test", "few"), splits, strict=True))
        mine = task._replace(seeds=tuple(task.seeds[i] for i in rows), **parts)
        found = trained(config, mine, "dense", 0.0, None)
        seconds = found.seconds
        for number, i in enumerate(rows):
            train.save(files[i], train.take((found.params, found.state), number))
    like = jax.eval_shape(lambda: train.take(initial(task, 0), 0))
    params, state = train.stack([train.load(file, like) for file in files])
    return judged(task, params, state, None, [costs(task)[1]] * len(files), seconds)


def chosen_rates(config: Config, name: str, this: study.Run) -> dict[str, Config]:
    """Each method's settings, with the learning rate of its most accurate network on validation.

    The dense network's is chosen first. It is also that of the controls, and of the network from which the methods
    start that start from a trained one. Digits and Adult have another split with every seed, so that the validation
    split of one has examples of another's test split: nothing is chosen there.
    """
    if name != "cifar10" or not config.cifar_rates:
        return dict.fromkeys((*CONTROLS, *METHODS), config)
    by = ("dataset", "method", "rate")
    log = study.Run(this.folder, names=by, log="rates.jsonl", stop=this.stop)

    def best(method: str) -> Config:
        tried = study.chosen(log.records, dataset=name, method=method)
        rate = max(tried, key=lambda row: row["accuracy"])["rate"]
        return dataclasses.replace(config, cifar_learning_rate=rate)

    methods, task, start = ("dense", *config.methods), None, None
    wanted = study.grid(dataset=[name], method=methods, rate=config.cifar_rates)
    for shared, cells in log.missing(wanted, together=("method",)):
        task = task or load(config, name, (RATES_SEED,), measured_on="validation")
        if shared["method"] != "dense":
            start = start or dense_networks(best("dense"), task, this.folder)
        for cell in cells:
            settings = dataclasses.replace(config, cifar_learning_rate=cell["rate"])
            found = trained(settings, task, cell["method"], config.cifar_rates_sparsity, start)
            log.record(cell, {"accuracy": float(found.test.correct.mean())})
    return {m: best("dense" if m in CONTROLS else m) for m in (*CONTROLS, *config.methods)}


# --- the run -------------------------------------------------------------------------------------------------------


def measured(task: Task, method: str, found: Networks, dense: Networks) -> list[dict[str, Any]]:
    """The numbers of a record per seed."""
    flat = jax.vmap(functools.partial(sparsity.flatten_prunable, prunable=task.model.prunable))
    weights, cost_dense = np.asarray(flat(found.params)), costs(task)[1]
    pruned = np.zeros_like(weights, bool) if found.masks is None else ~np.asarray(flat(found.masks))
    if np.any(weights[pruned] != 0):
        raise AssertionError(f"{method}: a pruned weight is not zero")
    sides = {
        "": (dense.test.correct, found.test.correct, task.test.group),
        "_train": (dense.train.correct, found.train.correct, task.train.group),
    }
    rows = []
    for i in range(len(task.seeds)):
        row = {
            "weights": weights.shape[1],
            "pruned": int(pruned[i].sum()),
            "zeros": int((weights[i] == 0).sum()),
            "cost": found.cost[i],
            "cost_before": cost_dense if method in (*FURTHER, "dense_longer") else 0.0,
            "cost_dense": cost_dense,
            "seconds": found.seconds,
            "side_by_side": len(task.seeds),
        }
        for suffix, (before, after, group) in sides.items():
            gaps = metrics.accuracy_gaps(before[i], after[i], group[i], task.groups)
            row[f"accuracy{suffix}"] = float(after[i].mean())
            row[f"accuracy_dense{suffix}"] = float(before[i].mean())
            row[f"max_excess{suffix}"] = float(gaps.max_excess)
            row[f"disparity{suffix}"] = float(gaps.disparity)
            row[f"worst_group{suffix}"] = int(np.nanargmax(gaps.excess))
        rows.append(row)
    return rows


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the page."""
    names = ("dataset", "method", "sparsity", "seed")
    with study.opened(config, names, grows=("datasets", "methods", "sparsities", "seeds")) as this:
        for name in config.datasets:
            train_missing(config, name, this)
        tell(this)


def train_missing(config: Config, name: str, this: study.Run) -> None:
    """All networks on one dataset, seeds side by side; of convolutions one after another."""
    apart, seeds = name == "cifar10", range(config.seeds)
    wanted = study.grid(dataset=[name], method=CONTROLS, sparsity=[0.0], seed=seeds)
    wanted += study.grid(
        dataset=[name], sparsity=config.sparsities, method=config.methods, seed=seeds
    )
    if apart:
        wanted.sort(key=lambda cell: cell["seed"])

    @functools.lru_cache(maxsize=1)
    def ready(seeds: tuple[int, ...]) -> tuple[dict[str, Config], Task, Networks]:
        settings, task = chosen_rates(config, name, this), load(config, name, seeds)
        return settings, task, dense_networks(settings["dense"], task, this.folder)

    together = ("method", "sparsity", *(["seed"] if apart else []))
    for shared, cells in this.missing(wanted, together=together, whole=True):
        method = shared["method"]
        settings, task, dense = ready(tuple(cell["seed"] for cell in cells))
        found = dense
        if method != "dense":
            found = trained(settings[method], task, method, shared["sparsity"], dense)
        for cell, row in zip(cells, measured(task, method, found, dense), strict=True):
            this.record(cell, row)


# --- what was found ------------------------------------------------------------------------------------------------


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of a bound on gaps, beside FairGRAPE, and beside the same pruner without it."""
    columns = {
        "max_excess": ("kinder to the group that loses most", "harder on it", -1),
        "accuracy": ("more accurate", "less accurate", 1),
    }
    return [
        study.Claim("ceag", peer, column, (better, worse), good, among={"dataset": dataset})
        for dataset in study.values(records, "dataset")
        for peer in ("fairgrape", "gmp")
        if all(study.chosen(records, dataset=dataset, method=m) for m in ("ceag", peer))
        for column, (better, worse, good) in columns.items()
    ]


def headline(records: Sequence[Any], found: Sequence[study.Beside]) -> list[str]:
    """What was found of all methods, on each dataset."""
    said = []
    for name in study.values(records, "dataset"):
        mine = study.chosen(records, dataset=name)
        floor, dense = (
            100 * study.by_seed(mine, column, method="dense_again").mean()
            for column in ("max_excess", "accuracy_dense")
        )
        ranks = [
            f"{study.rank_correlation(mine, 'accuracy', 'max_excess', sparsity=share)[0]:.2f} at {100 * share:g} %"
            for share in shares(mine)
        ]
        said += [
            f"{name}, {len(study.values(mine, 'seed'))} seeds, dense accuracy {dense:.1f} %. Noise floor: of two dense "
            f"networks the largest excess gap is {floor:.1f} points. Rank correlation of accuracy and gap over methods: "
            f"{', '.join(ranks)}.",
            study.among_equals([b for b in found if b.cell["dataset"] == name], PEER),
        ]
    return [line for line in said if line]


def shares(records: Sequence[Any]) -> list[float]:
    """The sparsities, dense networks left out."""
    return sorted({r["sparsity"] for r in records} - {0.0})


def drawn(records: Sequence[Any], found: Sequence[study.Beside]) -> list[report.Drawn]:
    """Accuracy against the share of zeros, and who pays."""
    rows = []
    for name in study.values(records, "dataset"):
        mine = study.chosen(records, dataset=name)
        dense = 100 * study.by_seed(mine, "accuracy", method="dense").mean()
        rows.append([
            figures.Panel(
                report.lines([r for r in mine if r["method"] in side], "accuracy", along="sparsity"),
                f"{name}: from {start}", label, dense,
            )
            for start, side, label in (
                ("scratch", SCRATCH, "accuracy on test (%)"), ("the dense network", FURTHER, ""),
            )
        ])  # fmt: skip
    say = lambda share: f"{100 * share:g}"
    curves = figures.levels(rows, methods=METHODS, along="zeros (%)", say=say, shared=True)
    pays = report.differences(
        found, rows="dataset", columns="sparsity", methods=METHODS, say=lambda s: f"{say(s)} % zeros",
        along=f"largest excess gap less that of {PEER} (points)",
    )  # fmt: skip
    return [
        report.Drawn(
            "accuracy", curves,
            "Accuracy against sparsity (dotted: dense). Bars are 95 % intervals over seeds; what lies below the view is "
            "in the table.",
            alt="accuracy against sparsity, a line per method; the numbers are in the table",
        ),
        report.Drawn(
            "who_pays", pays,
            "Who pays, at equal accuracy: the largest excess gap less that of gradual magnitude pruning from scratch, "
            "with 95 % intervals over the same seeds. Left of the line harms less. Full: as accurate as magnitude, as "
            "far as these seeds tell; triangles up and down: more and less accurate. What lies beyond the view is at "
            "its edge, without its interval.",
            alt="differences of the gap to magnitude by method; the numbers are in the table of differences",
        ),
    ][: 2 if found else 1]  # fmt: skip


def cost(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of a training, over that of a dense one."""
    own, before, dense = (
        np.mean([r[c] for r in rows]) for c in ("cost", "cost_before", "cost_dense")
    )
    return f"{own / dense:.2f}" + (f" + {before / dense:.0f}" if before else "")


def peers(method: str) -> list[str]:
    """What a method is compared with in the table of differences."""
    more = {"ceag": ["fairgrape", "gmp"], "fairgrape": ["gmp"]}
    return [] if method in CONTROLS else [PEER, *more.get(method, [])]


def tell(this: study.Run) -> None:
    """The page."""
    records, rates = this.records, study.read(this.folder / "rates.jsonl")
    found = study.beside(records, PEER, "max_excess", "accuracy", at=("dataset", "sparsity"))
    words = CONTROLS | SCRATCH | FURTHER
    method, zeros = report.Name("method", order=tuple(words)), lambda share: f"{100 * share:g}"
    names = [report.Name("dataset", "data"), report.Name("sparsity", "zeros (%)", zeros), method]
    columns = {
        "accuracy": report.in_points("accuracy"),
        "largest excess gap": report.in_points("max_excess"),
        "accuracy, train": report.in_points("accuracy_train"),
        "gap, train": report.in_points("max_excess_train"),
        "cost": cost,
        "seconds": report.number("seconds", ".1f", of=np.median),
    }
    compared = {
        "accuracy": "accuracy",
        "excess gap": "max_excess",
        "gap, train": "max_excess_train",
    }
    shown = [
        report.Shown(
            "table",
            report.table(records, names, columns),
            "Every method at every sparsity.",
            "Accuracy and gaps in points, on test unless it says train; mean and half-width of the 95 % t interval over "
            "seeds. Largest excess gap: what the group that lost most against the dense network of the same seed lost "
            "beyond what all lost; the largest of noisy numbers, so above 0 by chance alone: compare with dense_again. "
            "Cost: multiply-adds of the training, with the masks as they were at every step, over those of dense "
            "training; + 1 where a dense network was trained before. FairGRAPE's importances are counted, scores and "
            "masks that are taken once are not. Seconds: all seeds side by side, compilation included.",
            numbers=pd.DataFrame(records),
            title="in points, mean ± 95 % over seeds",
        ),
        report.Shown(
            "paired",
            report.paired_table(records, names, compared, peers=peers),
            "Paired differences on the same seeds, in points.",
            "An interval without 0 is a difference; of twenty comparisons one is by chance. More accuracy is better, a "
            "smaller gap is better. What starts from the dense network was trained twice as long.",
        ),
        report.Shown(
            "rates",
            report.wide_table(rates, method, report.Name("rate"), "accuracy"),
            "Learning rates (columns), and which each method has (*).",
            "Accuracy on the validation split, in percent, of one network each, whose seed is not in the comparison. "
            "The controls and the network that others start from have that of dense.",
        ),
    ]
    each = " On CIFAR-10 each has its own learning rate, chosen on validation." if rates else ""
    report.study(
        this,
        prog="experiments.dynamic_sparse",
        title="Sparse training",
        subtitle="Which way to a sparse network harms groups least?",
        found=[*headline(records, found), *(study.judge(records, c) for c in claims(records))],
        drawn=drawn(records, found),
        shown=shown,
        done=[f"{m}: {w}." for m, w in words.items() if m in study.values(records, "method")],
        paragraphs=[
            "All methods have the same optimizer, the same examples at each step and the same number of steps; those "
            f"that start from the dense network have as many again.{each} The last iterate counts, and test is only "
            "measured. Numbers of zeros are exact."
        ],
    )


main = flags.entry(run, Config, prog="dynamic_sparse")


if __name__ == "__main__":
    main()
