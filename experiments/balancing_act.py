"""Prunes a network, and keeps every group's loss of accuracy under a bound.

    .venv/bin/python -m experiments.balancing_act --dataset adult --groups sex,label --methods nft,nft_es,el,ceag

trains a dense network per seed, then prunes and fine-tunes it with each method, and measures on full splits what each
group lost: `jaxfair.recipes` side by side, and `jaxfair.audit` of what they made. The claim: on the training split,
gradual magnitude pruning to 98 % costs some group two and a half points more than the average (`nft (last)`), and what
training under CEAG's constraints delivers keeps that below the tolerance at the same accuracy (`ceag`).

It writes `runs/balancing_act/<id>/`: config.json, records.jsonl, predictions, weights, tables, figures, report.html,
and `training/<job>/` with checkpoints and a line per epoch. The same command goes on where a killed run stopped, and
with more methods it keeps what it has. Two cores take about three minutes for the defaults.
"""

import dataclasses
import functools
import io
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import audit, data, files, models, recipes, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.cli.dataset import identity, in_flags, loaded, told
from jaxfair.typing import Model

#: What is compared, in words.
METHODS = {
    "nft": "gradual magnitude pruning and naive fine-tuning, without a constraint",
    "nft_es": "the same run, stopped where validation accuracy was best",
    "el": "constraints that ask for equal losses; they do not look at the dense network",
    "accuracy_gap": "constraints on each group's own loss of accuracy",
    "churn": "constraints on the share of each group's predictions that differ from the dense network's: 5 % at most",
    "ceag": "constraints on the excess accuracy gap of every group, on batches in which small groups have more places",
    "ceag_published": "the same with the published choices: replay buffers of 40, uniform mean, no margin",
    "nft_dense": "control: the same schedule with nothing pruned",
    "dense_retrained": "control: the dense network of another seed; a gap below its own may be that of training again",
}
RUN_OF = {"nft_es": "nft"}  # of which run a method is a choice of iterate
CONSTRAINED = ("ceag", "accuracy_gap", "ceag_published", "el", "churn")
#: What nothing was removed from: none of them is what pruning made.
UNPRUNED = ("dense", "nft_dense", "dense_retrained")
NAIVE = "nft (last)"  # naive fine-tuning as it is usually done
#: What the answer calls them: the first that there is of each, and the networks before.
WORDS = (
    ("pruned as usual", (NAIVE, "nft_es")),
    ("pruned under the bound", ("ceag", "accuracy_gap", "ceag_published")),
    ("pruned for equal losses", ("el",)),
    ("pruned for few changes", ("churn",)),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Prune a network without harming a subgroup."""

    # adult, digits, cifar10, cifar100, fashion_mnist, celeb_a, fairface, utkface or lfw
    dataset: str = "adult"
    # your own data instead: a .csv, .parquet or .npz file with x, y, group and optionally split
    data: str = ""
    # of your own data: the column of the class, where it is not y
    label: str = ""
    # columns to learn from; by default all numbers that are nothing else
    features: tuple[str, ...] = flags.several((), none=True)
    # columns not to learn from, such as a number of the row
    drop: tuple[str, ...] = flags.several((), none=True)
    # columns whose values are kinds, such as words: each value is a feature of 0 and 1
    categorical: tuple[str, ...] = flags.several((), none=True)
    # subtract the mean of each number on train and divide by its deviation, or =false; by default of tables, not of x
    standardize: bool | None = flags.yes_or_no()
    # where the files of the dataset are or shall be put, for those that are not shipped
    data_dir: str = ""
    # the folder that you downloaded, for fairface, utkface and lfw
    folder: str = ""
    # attributes whose intersection makes the groups; the dataset's own choice by default
    groups: tuple[str, ...] = flags.several((), none=True)
    # attributes that are left out of the features (adult)
    exclude: tuple[str, ...] = flags.several((), none=True)
    # names of groups that have no bound, separated by semicolons, since names may have commas
    unconstrained: tuple[str, ...] = flags.several((), none=True, separator=";")
    # smaller groups are merged into `other`; -1 is the dataset's own choice
    min_group_size: int = flags.one(-1, low=-1)
    # mlp, cifar_resnet20, cifar_resnet32, cifar_resnet56, or FILE.py:FUNCTION for your own
    model: str = "mlp"
    # widths of the mlp's hidden layers
    hidden: tuple[int, ...] = flags.several((256, 256), int, low=1)
    # of nft, nft_es, el, accuracy_gap, ceag, ceag_published, churn, and the controls nft_dense, dense_retrained
    methods: tuple[str, ...] = flags.several(
        ("nft", "nft_es", "el", "ceag", "nft_dense", "dense_retrained"), of=METHODS
    )
    # share of the prunable weights that is removed, at least 0 and below 1
    sparsity: float = flags.one(0.98, low=0, below=1)
    # bound on the excess accuracy gap of every group, as a share of 1
    tolerance: float = flags.one(0.01, low=0, below=1)
    # how many seeds
    seeds: int = flags.one(5, low=1, high=10_000)
    # the key that all seeds are folded from
    seed: int = flags.one(0, low=0)
    # of pruning and fine-tuning together
    epochs: int = flags.one(50, low=1)
    # the sparsity rises over these first epochs
    prune_epochs: int = flags.one(15, low=0)
    # examples a step
    batch_size: int = flags.one(128, low=1)
    # of SGD in pruning and fine-tuning
    learning_rate: float = flags.one(0.05, above=0)
    # of SGD
    momentum: float = flags.one(0.9, low=0, below=1)
    # after these epochs the learning rate falls to a tenth
    decay_epochs: tuple[int, ...] = flags.several((35,), int, low=0, none=True)
    # half of it times the squared norm of the parameters is added to the loss
    weight_decay: float = flags.one(0.0, low=0)
    # only parameters whose path contains this decay (with the name of the last layer: the paper's code)
    decay_only: str = ""
    # at most; dense training is stopped by the validation loss
    dense_epochs: int = flags.one(20, low=1)
    # epochs without a better validation loss after which dense training ends
    dense_patience: int = flags.one(2, low=1)
    # of Adam, in dense training
    dense_learning_rate: float = flags.one(1e-3, above=0)
    # step size of the multipliers of ceag, accuracy_gap and churn; 0 is the rule that has nothing to tune
    dual_rate: float = flags.one(0.0, low=0)
    # step size of the multipliers of el; at 1e-3 and above its accuracy collapses on Adult
    el_dual_rate: float = flags.one(1e-4, above=0)
    # step size of the multipliers of ceag_published
    published_dual_rate: float = flags.one(0.002, above=0)
    # of the same: plain; balanced or root, where a group's places are as many, or by the root of its size; auto is root
    batches: str = flags.one("auto", of=("auto", *recipes.BATCHES))
    # dual_primal, simultaneous or primal_dual
    order: str = flags.one("dual_primal", of=("dual_primal", "simultaneous", "primal_dual"))
    # the split that stops nft_es early: validation or train
    select_on: str = flags.one("validation", of=("validation", "train"))
    # examples per forward pass in evaluation
    eval_batch_size: int = flags.one(2048, low=1)
    # steps in one compiled call; 0 is a whole epoch, or 1 for convolutions on a CPU
    steps_per_call: int = flags.one(0, low=0)
    # seeds: map (side by side), loop (one after another), auto (loop for convolutions on a CPU)
    lanes: str = flags.one("auto", of=("auto", "map", "loop"))
    # a training split larger than this is streamed from where it is
    max_data_bytes: int = flags.one(4_000_000_000, low=0, high=2**63 - 1)
    # epochs between checkpoints
    save_every: int = flags.one(10, low=1)
    # the class that is the good outcome for a person; the dataset's own by default
    positive: str = ""
    # prints the tables and what was found of each method, too; they are on the page anyway
    verbose: bool = False
    # the run goes into a folder in here
    runs_dir: str = "runs/balancing_act"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """What no flag can say by itself."""
        if self.prune_epochs >= self.epochs:
            raise flags.UsageError(f"--prune_epochs={self.prune_epochs}: give at least 0 and fewer than --epochs")


def load(config: Config) -> tuple[data.Dataset, Model]:
    """The dataset and the network that the flags describe."""
    dataset = loaded(config, config.data or config.dataset)
    group = np.asarray(dataset.train.group)
    try:
        recipes.power_of(config.batches, group, dataset.num_groups, min(config.batch_size, len(group)))
    except ValueError as error:
        raise flags.UsageError(
            f"--batches={config.batches}: {str(error).rstrip('.')}; give a larger --batch_size, or --batches=plain"
        ) from None
    hidden = {"hidden": config.hidden} if config.model == "mlp" else {}
    model = models.build(config.model, dataset.num_classes, **hidden)
    pruned = config.sparsity > 0 and bool({*config.methods} - {*UNPRUNED})
    recipes.check_model(model, dataset, pruned=pruned, saved=True)
    return dataset, model


# --- the jobs ------------------------------------------------------------------------------------------------------


def bound_of(config: Config, name: str) -> recipes.Bound | None:
    """What a method bounds."""
    tolerance, rate = config.tolerance, config.dual_rate or None
    makers: dict[str, Callable[[], recipes.Bound]] = {
        "el": lambda: recipes.equalized_loss(tolerance, rate=config.el_dual_rate),
        "ceag": lambda: recipes.ceag(tolerance, rate=rate, batches=config.batches),
        "accuracy_gap": lambda: recipes.accuracy_gap(tolerance, rate=rate, batches=config.batches),
        "churn": lambda: recipes.churn(rate=rate, batches=config.batches),
        "ceag_published": lambda: recipes.ceag_published(tolerance, rate=config.published_dual_rate),
    }  # fmt: skip
    return makers[name]() if name in makers else None


def made_by(
    config: Config, this: study.Run, dataset: data.Dataset, model: Model, screen: recipes.Progress
) -> Callable[[str], recipes.Networks]:
    """``job(name) -> networks``: trained, or taken up from their checkpoints."""
    shared: dict[str, Any] = {
        "key": config.seed, "folder": this.folder / "training", "progress": screen, "stop": this.stop,
        **{name: getattr(config, name) for name in (
            "batch_size", "save_every", "lanes", "steps_per_call", "eval_batch_size", "max_data_bytes")},
    }  # fmt: skip

    @functools.cache
    def job(name: str) -> recipes.Networks:
        if name in ("dense", "dense_retrained"):
            # The dense network of another seed: same data, other initial weights and batches.
            first = config.seeds if name == "dense_retrained" else 0
            return recipes.dense(
                model, dataset, seeds=range(first, first + config.seeds), epochs=config.dense_epochs,
                patience=config.dense_patience, learning_rate=config.dense_learning_rate, name=name, **shared,
            )  # fmt: skip
        naive = job("nft") if name in ("ceag", "accuracy_gap") and "nft" in jobs(config) else None
        return recipes.prune(
            model, dataset, job("dense"), naive=naive, sparsity=0.0 if name == "nft_dense" else config.sparsity,
            bound=bound_of(config, name), tolerance=config.tolerance, epochs=config.epochs,
            prune_epochs=config.prune_epochs, learning_rate=config.learning_rate, momentum=config.momentum,
            decay_epochs=config.decay_epochs, weight_decay=config.weight_decay,
            decayed=lambda path: config.decay_only in path, order=config.order,
            select_on=config.select_on, name=name, **shared,
        )  # fmt: skip

    return job


def variants(config: Config, job: str) -> list[str]:
    """The methods that a job makes networks of: what is delivered, the last iterate, and other choices."""
    if job in ("dense", "dense_retrained"):
        return [job]
    chosen = [name for name in config.methods if RUN_OF.get(name, name) == job]
    return [name for m in chosen for name in ((m,) if m in RUN_OF else (m, f"{m} (last)"))]


def jobs(config: Config) -> list[str]:
    """What has to be trained, in order."""
    order = ("nft", "el", "accuracy_gap", "ceag", "ceag_published", "churn", "nft_dense")
    wanted = {RUN_OF.get(name, name) for name in config.methods}
    again = ["dense_retrained"] if "dense_retrained" in wanted else []
    return ["dense", *again, *(name for name in order if name in wanted)]


def keep(
    config: Config, this: study.Run, dataset: data.Dataset, name: str, of: recipes.Networks, seconds: float
) -> list[dict[str, Any]]:
    """Writes what networks predict, and those that may be shipped; gives what is recorded of each."""
    content = io.BytesIO()
    np.savez_compressed(content, **of.predictions(dataset))  # pyright: ignore[reportArgumentType]
    files.atomic_write(this.folder / "predictions" / f"{name}.npz", content.getvalue())
    before, after = (predictions(this.folder, which) for which in ("dense", name))
    rows = recipes.worth(
        dataset, before, after, bound=bound_of(config, name.removesuffix(" (last)")), tolerance=config.tolerance,
        method=name, seeds=of.seeds, failed_at=of.failed_at, naive=of.naive,
    )  # fmt: skip
    if name.endswith("(last)") or name == "dense_retrained":
        rows = [row | {"file": ""} for row in rows]  # there to be compared with
    about = {"sparsity": 0.0 if name in UNPRUNED else config.sparsity, "tolerance": config.tolerance}
    recipes.ship(dataset, of, rows, this.folder / "weights", {**about, **identity(config)})
    return [
        {**about, "epoch": int(of.epoch[i]), "averaged": bool(of.averaged[i]), "seconds": round(seconds, 3)}
        | {key: value for key, value in row.items() if key not in ("method", "seed", "recommended")}
        | {"file": row["file"] and f"weights/{row['file']}"}
        for i, row in enumerate(rows)
    ]  # fmt: skip


def worth(config: Config, this: study.Run, wanted: Sequence[study.Cell]) -> list[dict[str, Any]]:
    """All networks, a row each; one of those that were trained under a bound is recommended, or of all, if none was."""
    rows = [{k: v for k, v in this.get(cell, dict).items() if k not in ("job", "seconds")} for cell in wanted]
    pruned = [name for name in config.methods if name not in UNPRUNED]
    asked = [name for name in pruned if name in CONSTRAINED] or pruned
    rows = recipes.recommend(rows, among=lambda row: bool(row["file"]) and row["method"] in asked)
    files.atomic_write(this.folder / "networks.csv", recipes.as_csv(rows))
    return [row for row in rows if row["method"] in asked]


def iterate(networks: recipes.Networks, name: str) -> recipes.Networks:
    """The networks of a method among those that its run made."""
    which = "last" if name.endswith("(last)") else {"nft_es": "stopped"}.get(name)
    return networks if which is None else networks.iterates[which]


def predictions(folder: pathlib.Path, name: str) -> dict[str, np.ndarray]:
    """Split -> ``[S, N]`` classes."""
    return files.arrays(folder / "predictions" / f"{name}.npz", again(folder))


def again(folder: pathlib.Path) -> str:
    """What to do where a file of these is damaged."""
    return f"remove {folder / 'records.jsonl'}, and it is written again from the checkpoints"


# --- the run -------------------------------------------------------------------------------------------------------


def run(config: Config) -> int:
    """Everything, from the flags to the page; gives the exit code."""
    dataset, model = load(config)
    abstract = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *dataset.train.x.shape[1:]), jnp.float32))
    # Parameters, momentum, average and two snapshots, for every seed and job.
    room = 8 * config.seeds * (len(config.methods) + 2) * train.tree_bytes(abstract) + 10_000_000
    wanted = [
        {"job": job, "method": name, "seed": seed}
        for job in jobs(config)
        for name in variants(config, job)
        for seed in range(config.seeds)
    ]
    opened = study.opened(
        config, ("job", "method", "seed"), grows=("methods", "save_every", "positive", "verbose"),
        more=identity(config), room=room,
    )  # fmt: skip
    with opened as this, recipes.Progress() as screen:
        print(*told(dataset, config.tolerance), sep="\n", flush=True)
        job = made_by(config, this, dataset, model, screen)
        quiet: Any = {"say": lambda line: None}
        for shared, cells in this.missing(wanted, together=("job",), whole=True, **quiet):
            networks = job(shared["job"])
            for name in dict.fromkeys(cell["method"] for cell in cells):
                found = keep(config, this, dataset, name, iterate(networks, name), networks.seconds)
                for cell in study.chosen(cells, method=name):
                    this.record(cell, found[cell["seed"]])
        failed, rows = failures(this, wanted), worth(config, this, wanted)
        why = tell(config, this, dataset, wanted, rows)
    to_ship = recipes.to_ship(rows, this.folder) if rows else "to ship: nothing was pruned"
    print(*recipes.said_naive(rows), to_ship, *why, sep="\n")
    for failure in failed:
        print(failure, file=sys.stderr)
    return 1 if failed else 0


def failures(this: study.Run, wanted: Sequence[study.Cell]) -> list[str]:
    """A line for each network whose training was not finite."""
    return [
        f"{cell['method']}, seed {cell['seed']}: the loss was not finite at step {record['failed_at']}; last good "
        f"checkpoint in {this.folder / 'training' / cell['job'] / 'checkpoints'}"
        for cell in wanted
        if (record := this.get(cell, dict))["failed_at"] >= 0 and not cell["method"].endswith("(last)")
    ]  # fmt: skip


# --- the page ------------------------------------------------------------------------------------------------------


def claims(records: Sequence[Mapping[str, Any]]) -> list[study.Claim]:
    """What would have to be seen of every bound, beside naive fine-tuning as it is usually done."""
    there = study.values(records, "method")
    kinder = ("kinder to the group that loses most", "harder on it")
    return [
        claim
        for name in CONSTRAINED
        if name in there and NAIVE in there
        for claim in (
            study.Claim(name, NAIVE, "largest_gap_train", kinder, good=-1),
            study.Claim(name, NAIVE, "accuracy_test", ("no less accurate", "less accurate"), margin=-0.003),
        )
    ]  # fmt: skip


def finite(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What claims may count: seeds whose dense network, and whose own training, did not fail."""
    lost = {record["seed"] for record in records if record["method"] == "dense" and record["failed_at"] >= 0}
    return [record for record in records if record["failed_at"] < 0 and record["seed"] not in lost]


def variant(config: Config, this: study.Run, job: str, name: str) -> audit.Variant:
    """What the audit is told of a method, from the files of the run."""
    found = study.chosen(this.records, job=job, method=name)
    records = sorted(found, key=lambda record: record["seed"])[: config.seeds]
    layers, weights = None, this.folder / "weights" / f"{name}_seed0.safetensors"
    if weights.exists():
        try:
            saved = sparsity.load(weights)
        except ValueError:
            raise files.DamagedError(weights, "no whole network", again(this.folder)) from None
        layers = sparsity.sparsity_report(saved.params, saved.masks)
    return audit.Variant(
        labels=predictions(this.folder, name),
        ok=np.array([record["failed_at"] < 0 for record in records]),
        seconds=records[0]["seconds"],
        history=study.read(this.folder / "training" / job / "epochs.jsonl"),
        layers=layers,
    )


def tell(config: Config, this: study.Run, dataset: data.Dataset, wanted: Sequence[study.Cell], rows: Any) -> list[str]:
    """Compares what was made, and writes the page; says why the bound was not met, where it was not."""
    job_of: Mapping[str, str] = {cell["method"]: cell["job"] for cell in wanted}
    order = [f"{m}{last}" for m in config.methods for last in ("", " (last)")]
    after = {n: variant(config, this, job_of[n], n) for n in order if n in job_of}
    before = variant(config, this, "dense", "dense")
    bounded = [m for m in CONSTRAINED if m in after]
    shown = [n for n in after if n in config.methods or n == NAIVE]
    focus = [*[m for m in (NAIVE, "nft_es") if m in after][:1], *bounded[:1]] or shown[:2]
    compared = audit.compare(
        before, after, dataset, tolerance=config.tolerance, name_before="dense", labels=called(after), focus=focus,
        naive=NAIVE if NAIVE in after else "", peers=[n for n in ("nft", NAIVE) if n in after], shown=shown,
        on_loss=[n for n in after if n.startswith("accuracy_gap")], pruned_at=config.prune_epochs,
        controls=[n for n in ("dense_retrained",) if n in after],
    )  # fmt: skip
    compared.write_details(this.folder)
    why = [in_flags(line) for m in bounded[:1] if m != "el" for line in recipes.why(
        dataset, before.labels, after[m].labels, bound=bound_of(config, m), history=after[m].history)]  # fmt: skip
    name = pathlib.Path(config.data).name or dataset.name
    network = pathlib.Path(config.model.rpartition(":")[0]).name or config.model
    made = (
        f"{config.seeds} dense networks ({network}) were trained on {name}, then pruned to {100 * config.sparsity:g} % "
        "sparsity and fine-tuned by each method."
    )
    minutes = sum({record["job"]: record["seconds"] for record in this.records}.values()) / 60
    against = [line for peer in (NAIVE, "nft") for m in bounded[:1] for line in compared.differences(m, peer)]
    sound = finite(this.records)
    judged = [study.judge(sound, claim) for claim in claims(sound)]
    note = (
        "Transfer: gap closed on test over gap closed on train, against nft (last), where the latter is more than 0. "
        "dense_retrained is the dense network of another seed: no gap below its own can be told from training again."
    )
    met = ", ".join(f"{m} in {k} of {n} seeds" for m, (k, n) in compared.met().items() if f"{m} (last)" in after)
    report.study(
        this, prog="experiments.balancing_act", title="What pruning did to each group",
        subtitle=f"{name}, {network}, sparsity {100 * config.sparsity:g} %, bound {100 * config.tolerance:g} "
        f"point{'' if config.tolerance == 0.01 else 's'}, {config.seeds} seeds",
        found=[*compared.summary()[:1], *against, *judged, *compared.verdicts],
        drawn=compared.drawn(), shown=compared.shown(note=note), sections=compared.sections(),
        done=[f"{name}: {METHODS[name]}" for name in config.methods], verbose=config.verbose,
        paragraphs=[
            f"The bound was met on train by {met or 'nothing'}. A method delivers the most accurate iterate, or "
            "average of iterates, of the final 30 % of the epochs that met it there; where none did, the one that "
            "violated it least. “(last)” is the last iterate, which is what one gets without this choice.",
            *recipes.said_naive(rows), *why,
        ],
        lead=compared.answer().lead(
            [made], [f"{made} Training took {minutes:.1f} minutes. Figures and tables are on the page."]
        ),
        unused=["verbose", *(["dataset"] if config.data else []), *(["hidden"] if config.model != "mlp" else [])],
    )  # fmt: skip
    return why


def called(after: Mapping[str, audit.Variant]) -> dict[str, str]:
    """What the answer is about, in plain words: at most two ways of pruning, the others are on the page."""
    found = {next(n for n in names if n in after): words for words, names in WORDS if any(n in after for n in names)}
    return dict([("dense", "dense"), *found.items()][:3]) if found else {}


main = flags.entry(run, Config, prog="balancing_act")


if __name__ == "__main__":
    main()
