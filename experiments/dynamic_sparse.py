"""Every way to a sparse network, at the same length of training, and which of them harms groups least.

    .venv/bin/python -m experiments.dynamic_sparse

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
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import constraints, data, metrics, models, recipes, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch, Model

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
METHODS, LATER = (*SCRATCH, *FURTHER), (*FURTHER, "dense_longer")
#: What all are compared with, and what else some are.
PEER, PEERS = "magnitude", {"ceag": ("fairgrape", "gmp"), "fairgrape": ("gmp",)}
CIFAR_NETWORKS = {"cifar_resnet20": models.cifar_resnet20, "small_cnn": models.small_cnn}
RATES_SEED = 1000  # of networks that learning rates are chosen by: none of the comparison
OWN = Batch(0, 0, 0, 0, 0)  # every seed has a split of its own


@dataclasses.dataclass(frozen=True)
class Config:
    """Sparse training by many methods, and what it costs each group."""

    datasets: tuple[str, ...] = flags.several(("digits",), of=("digits", "adult", "cifar10"))
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)  # of those named in this file
    # shares of zeros
    sparsities: tuple[float, ...] = flags.several((0.8, 0.9, 0.95, 0.98), float, above=0, below=1)
    seeds: int = flags.one(5, low=1, high=10_000)  # how many
    hidden: tuple[int, ...] = flags.several((256, 256), int, low=1)  # widths of the mlp's layers
    epochs: int = flags.one(40, low=1)  # of digits; as many again from the dense network
    adult_epochs: int = flags.one(6, low=1)  # of Adult
    cifar_epochs: int = flags.one(6, low=1)  # of CIFAR-10
    # of cifar10: cifar_resnet20, or small_cnn, three convolutions that a CPU trains in seconds an epoch
    cifar_network: str = flags.one("cifar_resnet20", of=CIFAR_NETWORKS)
    examples: int = flags.one(5000, low=1)  # training images of cifar10
    data_dir: str = ""  # folder with cifar10_train.npz and cifar10_test.npz, or of TFDS
    batch_size: int = flags.one(64, low=1)  # examples a step, of digits; 128 of the others
    learning_rate: float = flags.one(0.05, above=0)  # of SGD with momentum 0.9, along a cosine to 0
    cifar_learning_rate: float = flags.one(0.1, above=0)  # likewise, of CIFAR-10
    # instead of it, for each method the one with the best accuracy on validation
    cifar_rates: tuple[float, ...] = flags.several((), float, above=0, none=True)
    cifar_rates_sparsity: float = flags.one(0.95, above=0, below=1)  # share of zeros in that choice
    tolerance: float = flags.one(0.01, above=0)  # bound of ceag on the excess gap of every group
    dual_rate: float = flags.one(0.01, above=0)  # step size of its multipliers
    fairgrape_keep: float = flags.one(0.75, above=0, below=1)  # share that a round of it keeps
    importance_batches: int = flags.one(4, low=1)  # that its importances are averaged over
    synflow_rounds: int = flags.one(100, low=1)  # of synflow
    runs_dir: str = "runs/dynamic_sparse"  # the run goes into a folder in here
    id: str = ""  # name of that folder; a hash of the settings by default


class Task(NamedTuple):
    """Data of S seeds, ``[S, N, ...]``; ``few`` has equally many examples of every class, for scores taken once."""

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
        parts = [data.sample(cifar.train, config.examples, seed=seed) for seed in seeds]
        sets = [dataclasses.replace(cifar, train=split) for split in parts]
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
        raise flags.UsageError(f"{name}: {steps} steps of training; give more epochs")
    # Convolutions side by side are slow on a CPU, and several splits of images are large.
    plan = train.plan(model, splits[0][0], "loop" if name == "cifar10" else "map")
    how = sets[0].num_groups, batch_size, epochs, steps
    return Task(name, tuple(seeds), model, plan, split, test, few, *how)


def keys(task: Task, purpose: int) -> jax.Array:
    """``[S]`` keys; another purpose has other ones."""
    return jnp.stack([jax.random.fold_in(jax.random.key(s), purpose) for s in task.seeds])


class Networks(NamedTuple):
    """Networks of S seeds: ``[S, N]`` outcomes; masks, None for dense ones; ``[S]`` multiply-adds of training."""

    params: Any
    state: Any
    train: constraints.Outcomes
    test: constraints.Outcomes
    masks: Any
    cost: Any
    seconds: float


predictor = functools.cache(lambda model, plan: train.predictor(model.apply, plan, own=True))


def judged(task: Task, params: Any, state: Any, *more: Any) -> Networks:
    """Networks with what they make of every example."""
    predict, outcomes = predictor(task.model, task.plan), []
    for split in (task.train, task.test):
        said = predict(params, state, split)
        outcomes.append(constraints.Outcomes(jnp.float32(said.label == split.y), said.loss))
    return Networks(params, state, *outcomes, *more)


def fresh(task: Task, purpose: int) -> tuple[Any, Any]:
    """Networks at initialisation."""
    example = jnp.asarray(task.train.x[0, :1])
    return task.plan.lift(lambda key: task.model.init(key, example))(keys(task, purpose))


def trained(config: Config, task: Task, method: str, share: float, dense: Any) -> Networks:
    """Networks of one method at one sparsity: from the dense ones, or from scratch."""
    began, images = time.perf_counter(), task.name == "cifar10"
    rate = config.cifar_learning_rate if images else config.learning_rate
    sgd = optax.sgd(optax.cosine_decay_schedule(rate, task.steps), momentum=0.9)
    if images:
        sgd = optax.chain(optax.add_decayed_weights(5e-4), sgd)
    if method in LATER:
        start, order = (dense.params, dense.state), 2
    else:
        begun, order = (5, 3) if method == "dense_again" else (0, 1)
        start = fresh(task, begun)
    bound: dict[str, Any] = {}
    if method == "ceag":
        more = {"num_groups": task.groups, "tolerance": config.tolerance}
        problem = constraints.excess_accuracy_gap(task.model.apply, **more)
        dual = optax.sgd(config.dual_rate)
        bound = {"problem": problem, "dual": dual, "reference": dense.train}
    name = {"gmp": "magnitude", "ceag": "magnitude", **dict.fromkeys(CONTROLS, "dense")}
    found = recipes.sparse(
        name.get(method, method), task.model, task.train, share, optimizer=sgd, keys=keys(task, order),
        mask_keys=keys(task, 4), start=start, epochs=task.epochs, batch_size=task.batch_size,
        plan=task.plan, split_axes=OWN, few=task.few, num_groups=task.groups,
        keep=config.fairgrape_keep, batches=config.importance_batches, rounds=config.synflow_rounds, **bound,
    )  # fmt: skip
    return judged(task, *found[:3], found.cost, time.perf_counter() - began)


def dense_networks(config: Config, task: Task, folder: Any) -> Networks:
    """From their files where there are some, else trained now."""
    seconds = [np.nan]

    def make(rows: list[int]) -> Any:
        split, test, few = train.take((task.train, task.test, task.few), np.array(rows))
        seeds = tuple(task.seeds[i] for i in rows)
        mine = task._replace(seeds=seeds, train=split, test=test, few=few)
        found = trained(config, mine, "dense", 0.0, None)
        seconds.append(found.seconds)
        return found.params, found.state

    files = [folder / f"dense_{task.name}_{seed}.npz" for seed in task.seeds]
    like = jax.eval_shape(lambda: train.take(fresh(task, 0), 0))
    return judged(task, *train.from_files(files, like, make), None, None, seconds[-1])


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

    task = start = None
    wanted = study.grid(dataset=[name], method=("dense", *config.methods), rate=config.cifar_rates)
    for shared, cells in log.missing(wanted, together=("method",)):
        task = task or load(config, name, (RATES_SEED,), measured_on="validation")
        if shared["method"] != "dense":
            start = start or dense_networks(best("dense"), task, this.folder)
        for cell in cells:
            settings = dataclasses.replace(config, cifar_learning_rate=cell["rate"])
            found = trained(settings, task, cell["method"], config.cifar_rates_sparsity, start)
            log.record(cell, {"accuracy": float(found.test.correct.mean())})
    return {m: best("dense" if m in CONTROLS else m) for m in (*CONTROLS, *config.methods)}


def measured(task: Task, method: str, found: Networks, dense: Networks) -> list[dict[str, Any]]:
    """The numbers of a record per seed."""
    flat = jax.vmap(functools.partial(sparsity.flatten_prunable, prunable=task.model.prunable))
    weights = np.asarray(flat(found.params))
    shape = jax.ShapeDtypeStruct((task.batch_size, *task.train.x.shape[2:]), jnp.float32)
    step = sparsity.cost_report(task.model, shape)
    cost_dense = sparsity.training_cost(step, np.ones(task.steps))
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
            "cost": cost_dense if found.cost is None else found.cost[i],
            "cost_before": cost_dense if method in LATER else 0.0,
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
    """All networks on one dataset: seeds side by side, or one after another where there are convolutions."""
    together, where, seeds = ("method", "sparsity"), [name], range(config.seeds)
    methods, shares = config.methods, config.sparsities
    wanted = study.grid(dataset=where, method=CONTROLS, sparsity=[0.0], seed=seeds)
    wanted += study.grid(dataset=where, sparsity=shares, method=methods, seed=seeds)
    if name == "cifar10":
        together = "seed", *together
        wanted.sort(key=lambda cell: cell["seed"])

    @functools.lru_cache(maxsize=1)
    def ready(seeds: tuple[int, ...]) -> tuple[dict[str, Config], Task, Networks]:
        settings, task = chosen_rates(config, name, this), load(config, name, seeds)
        return settings, task, dense_networks(settings["dense"], task, this.folder)

    for shared, cells in this.missing(wanted, together=together, whole=True):
        method = shared["method"]
        settings, task, dense = ready(tuple(cell["seed"] for cell in cells))
        how = settings[method], task, method, shared["sparsity"], dense
        found = dense if method == "dense" else trained(*how)
        for cell, row in zip(cells, measured(task, method, found, dense), strict=True):
            this.record(cell, row)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of a bound on gaps, beside FairGRAPE, and beside the same pruner without it."""
    kinder = "max_excess", ("kinder to the group that loses most", "harder on it"), -1
    better = "accuracy", ("more accurate", "less accurate"), 1
    return [
        study.Claim("ceag", peer, *what, among={"dataset": dataset})
        for dataset in study.values(records, "dataset")
        for peer in ("fairgrape", "gmp")
        if all(study.chosen(records, dataset=dataset, method=m) for m in ("ceag", peer))
        for what in (kinder, better)
    ]


def headline(records: Sequence[Any], found: Sequence[study.Beside]) -> list[str]:
    """What was found of all methods, on each dataset."""
    said = []
    for name in study.values(records, "dataset"):
        mine = study.chosen(records, dataset=name)
        floor = study.by_seed(mine, "max_excess", method="dense_again")
        dense = study.by_seed(mine, "accuracy", method="dense")
        ranks = [
            f"{study.rank_correlation(mine, 'accuracy', 'max_excess', sparsity=s)[0]:.2f} at {study.percent(s)}"
            for s in sorted({r["sparsity"] for r in mine} - {0.0})
        ]
        said += [
            f"{name}, {len(dense)} seeds, dense accuracy {100 * dense.mean():.1f} %. Noise floor, the largest excess "
            f"gap of two dense networks: {100 * floor.mean():.1f} points. Rank correlation of accuracy and gap over "
            f"methods: {', '.join(ranks)}.",
            study.among_equals([b for b in found if b.cell["dataset"] == name], PEER),
        ]
    return [line for line in said if line]


def drawn(records: Sequence[Any], found: Sequence[study.Beside]) -> list[report.Drawn]:
    """Accuracy against the share of zeros, and who pays."""
    rows, sides = [], {"scratch": SCRATCH, "the dense network": FURTHER}
    for name in study.values(records, "dataset"):
        mine = study.chosen(records, dataset=name)
        dense = 100 * study.by_seed(mine, "accuracy", method="dense").mean()
        parts = {start: [r for r in mine if r["method"] in side] for start, side in sides.items()}
        rows.append([
            figures.Panel(
                report.lines(part, "accuracy", along="sparsity"), f"{name}: from {start}",
                "accuracy on test (%)" if start == "scratch" else "", dense,
            )
            for start, part in parts.items()
        ])  # fmt: skip
    return [
        report.Drawn(
            "accuracy",
            figures.levels(rows, methods=METHODS, along="zeros", say=study.percent, shared=True),
            "Dotted: dense. Bars are 95 % intervals over seeds; what lies below the view is in the table.",
            alt="accuracy against sparsity, a line per method; the numbers are in the table",
        ),
        report.Drawn(
            "who_pays",
            report.differences(
                found, rows="dataset", columns="sparsity", methods=METHODS, say=study.percent,
                along=f"largest excess gap less that of {PEER} (points)",
            ),
            "Who pays, at equal accuracy: the largest excess gap less that of gradual magnitude pruning from scratch, "
            "with 95 % intervals over the same seeds. Left of the line harms less. Full: as accurate as magnitude, as "
            "far as these seeds tell; triangles up and down: more and less accurate. What lies beyond the view is at "
            "its edge, without its interval.",
            alt="differences of the gap to magnitude by method; the numbers are in the table of differences",
        ),
    ][: 2 if found else 1]  # fmt: skip


def tell(this: study.Run) -> None:
    """The page."""
    records, rates = this.records, study.read(this.folder / "rates.jsonl")
    found = study.beside(records, PEER, "max_excess", "accuracy", at=("dataset", "sparsity"))
    words = CONTROLS | SCRATCH | FURTHER
    zeros = report.Name("sparsity", "zeros", study.percent)
    names = [report.Name("dataset"), zeros, report.Name("method", order=tuple(words))]
    columns = {
        "accuracy": report.in_points("accuracy"),
        "largest excess gap": report.in_points("max_excess"),
        "accuracy, train": report.in_points("accuracy_train"),
        "gap, train": report.in_points("max_excess_train"),
        "cost": report.quotient("cost", "cost_dense"),
        "before": report.quotient("cost_before", "cost_dense", ".0f"),
        "seconds": report.number("seconds", ".1f", of=np.median),
    }
    compared = {"accuracy": "accuracy", "gap": "max_excess", "gap, train": "max_excess_train"}
    peers = {m: (PEER, *PEERS.get(m, ())) for m in METHODS} | dict.fromkeys(CONTROLS, ())
    shown = [
        report.Shown(
            "table",
            report.table(records, names, columns),
            "Every method at every sparsity.",
            "Accuracy and gaps in points, on test unless it says train; mean and half-width of the 95 % t interval. "
            "Largest excess gap: what the group that lost most against the dense network of the same seed lost beyond "
            "what all lost; the largest of noisy numbers, so above 0 by chance alone: compare with dense_again. Cost: "
            "multiply-adds of the training, with the masks as they were at every step, over those of dense training; "
            "before: of the dense network it started from. FairGRAPE's importances are counted, scores and masks that "
            "are taken once are not. Seconds: all seeds side by side, compilation included.",
            numbers=pd.DataFrame(records),
            title="in points, mean ± 95 % over seeds",
        ),
        report.Shown(
            "paired",
            report.paired_table(records, names, compared, peers=peers.__getitem__),
            "Paired differences on the same seeds, in points.",
            "An interval without 0 is a difference; of twenty comparisons one is by chance. More accuracy is better, a "
            "smaller gap is better. What starts from the dense network was trained twice as long.",
        ),
        report.Shown(
            "rates",
            report.wide_table(rates, names[-1], report.Name("rate"), "accuracy"),
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
