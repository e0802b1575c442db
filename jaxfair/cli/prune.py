"""``jaxfair prune``: networks for a table of one's own, pruned under a bound on what each group loses.

    jaxfair prune --data my.npz --model my_model.py:make --sparsity 0.95 --tolerance 0.02 --out pruned/

trains dense networks, prunes them as usual and under the bound, and writes into ``--out`` what may be shipped
(``ceag_seed0.safetensors``, ..., and the dense ones), what each of them is worth (``networks.csv``), what they predict
(``predictions.npz``), and the page of the audit (``report.html``; needs ``jaxfair[report]``). The same command goes on
where it was stopped.

A network that the bound made worse on the people trained on, in both the largest gap and the accuracy, is not written:
the one that is pruned as usual stands in its place, and the command says so. Where a bound was not met, the last lines
say why, and what to do.
"""

import dataclasses
import importlib.util
import io
import pathlib
import warnings
from typing import Any

import numpy as np

from jaxfair import audit, data, files, models, recipes, study
from jaxfair.cli import flags
from jaxfair.cli.dataset import identity, in_flags, loaded, told
from jaxfair.cli.failures import one_line
from jaxfair.typing import Model

#: What a network may be bound by; "none" is naive fine-tuning.
BOUNDS = {
    "ceag": recipes.ceag,
    "accuracy_gap": recipes.accuracy_gap,
    "churn": recipes.churn,
    "ceag_published": recipes.ceag_published,
    "equalized_loss": recipes.equalized_loss,
    "none": None,
}
#: Those that bound a gap itself.
ON_GAPS = ("ceag", "ceag_published", "accuracy_gap")


@dataclasses.dataclass(frozen=True)
class Config:
    """Prune networks under a bound on what each group loses."""

    # a .npz, .parquet or .csv file with x, y and group; or the name of a dataset
    data: str = ""
    # FILE.py:FUNCTION that makes a network of a number of classes; or the name of one
    model: str = "mlp"
    # folder of what is written
    out: str = ""
    # share of the weights that is removed
    sparsity: float = flags.one(0.95, low=0, below=1)
    # on what a group may lose beyond what all lose, as a share of 1: 0.02 is two points; of churn also on the share of
    # a group's predictions that may change
    tolerance: float = flags.one(0.02, low=0, below=1)
    # of ceag, accuracy_gap, churn, ceag_published, equalized_loss, none
    bound: str = flags.one("ceag", of=BOUNDS)
    # do not prune without the bound as well: half the time, and no promise that the bound does no harm
    nonaive: bool = False
    # share of the loss that follows the dense network's predictions in place of the labels: 0.5 changes fewer of them
    distill: float = flags.one(0.0, low=0, high=1)
    # how many networks
    seeds: int = flags.one(5, low=1, high=10_000)
    # of the dense networks, at most
    dense_epochs: int = flags.one(20, low=1)
    # of pruning and fine-tuning
    epochs: int = flags.one(50, low=2)
    # examples a step
    batch_size: int = flags.one(128, low=1)
    # of SGD in pruning and fine-tuning
    learning_rate: float = flags.one(0.05, above=0)
    # settings of the learning rate, and of how fast multipliers move, of which the best on validation is taken; each
    # costs as much as a whole run; 0 takes what is given here
    tune: int = flags.one(0, low=0, high=10_000)
    # of Adam in dense training
    dense_learning_rate: float = flags.one(1e-3, above=0)
    # columns whose intersection makes the groups, such as sex,region; and label
    groups: tuple[str, ...] = flags.several((), none=True)
    # groups with fewer training examples are merged into "other"
    min_group_size: int = flags.one(0, low=0)
    # names of groups that are not to be bound, such as unknown; separated by semicolons, since names may have commas
    unconstrained: tuple[str, ...] = flags.several((), none=True, separator=";")
    # the class that is the good outcome for a person, such as repaid
    positive: str = ""
    # the key that everything random is folded from
    seed: int = flags.one(0, low=0)
    # column of the class, where it is not y
    label: str = ""
    # columns to learn from; by default all numbers that are nothing else
    features: tuple[str, ...] = flags.several((), none=True)
    # columns not to learn from, such as a number of the row
    drop: tuple[str, ...] = flags.several((), none=True)
    # subtract the mean of each column on train and divide by its deviation
    standardize: bool = False

    def check(self) -> None:
        """What no flag can say by itself."""
        for name in ("data", "out"):
            if not getattr(self, name):
                raise flags.UsageError(f"--{name}: give one; --help lists the flags")


def run(config: Config) -> int:
    """From the flags to the whole job; the exit code is 1 if a network diverged."""
    dataset = loaded(config, config.data)
    model = models.build(config.model, dataset.num_classes)
    recipes.check_model(model, dataset, pruned=config.sparsity > 0, saved=True)
    made = BOUNDS[config.bound]
    bound = None if made is None else made(config.tolerance)
    out = pathlib.Path(config.out)
    study.check_folder(out, needed_bytes=50_000_000)
    with study.alone_in(out):
        if (out / "records.jsonl").exists():
            raise study.FolderError(f"{out} holds the run of an experiment: choose another folder (--out)")
        study.claim_folder(out, settings(config))
        return job(config, dataset, model, bound, out)


def settings(config: Config) -> dict[str, Any]:
    """What the files are a function of: all flags but where they go, and what is in the user's files."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name != "out"} | identity(config)


def job(config: Config, dataset: data.Dataset, model: Model, bound: recipes.Bound | None, out: pathlib.Path) -> int:
    """Trains, prunes, writes and tells; gives the exit code."""
    print(*told(dataset, config.tolerance), sep="\n", flush=True)
    with study.interruptible() as stop:
        same: dict[str, Any] = {
            "folder": out / "training",
            "stop": stop,
            "batch_size": config.batch_size,
        }
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="dense: the loss")  # said below, in the words of flags
                dense = recipes.dense(
                    model, dataset, seeds=config.seeds, key=config.seed, epochs=config.dense_epochs,
                    learning_rate=config.dense_learning_rate, **same,
                )  # fmt: skip
            if diverged(dense.failed_at, "dense networks", f"--dense_learning_rate={config.dense_learning_rate / 5:g}"):
                return 1
            same |= {
                "sparsity": config.sparsity, "tolerance": config.tolerance, "key": config.seed,
                "epochs": config.epochs, "learning_rate": config.learning_rate,
            }  # fmt: skip
            if config.tune:
                bound, same["learning_rate"] = tuned(config, model, dataset, dense, bound, same)
                config = dataclasses.replace(config, learning_rate=same["learning_rate"])
            asked = bound is not None and not config.nonaive
            naive = recipes.prune(model, dataset, dense, **same) if asked else None
            sparse = recipes.prune(model, dataset, dense, bound=bound, naive=naive, distill=config.distill, **same)
        except study.Stopped:
            raise study.Stopped(out) from None
    rows = kept(config, bound, dataset, dense, sparse, out)
    slower = f"--learning_rate={config.learning_rate / 5:g}"
    diverged(np.where(dense.failed_at < 0, sparse.failed_at, -1), "pruned networks", slower)
    sound = [row for row in rows if row["file"]]
    if not sound:
        return 1
    named = rows[0]["method"]
    usual = {} if naive is None else {"nft": naive}
    found = audit.compare(
        dense, {**usual, named: sparse}, dataset, tolerance=config.tolerance,
        labels={**dict.fromkeys(usual, "pruned as usual"), named: called(config)}, naive="".join(usual), peers=[*usual],
        on_loss=[named] if bound is not None and bound.on == "gap" else [], name_before="dense",
    )  # fmt: skip
    for line in said(config, found):
        print(line)
    if all(importlib.util.find_spec(name) for name in ("pandas", "matplotlib", "jinja2", "rich")):
        model_name = pathlib.Path(config.model.rpartition(":")[0]).name or config.model
        bounded = f"bound {100 * config.tolerance:g} point{'' if config.tolerance == 0.01 else 's'}"
        found.write(
            out, title="What pruning did to each group",
            subtitle=f"{pathlib.Path(config.data).name}, {model_name}, {100 * config.sparsity:g} % zeros, {bounded}",
        )  # fmt: skip
        print(f"page: {one_line(out / 'report.html')}")
    else:
        print("for the page, with figures and tables: pip install 'jaxfair[report]'")
    print(f"networks: {one_line(out)}, what each is worth: {one_line(out / 'networks.csv')}")
    why = []
    if bound is not None and config.bound in ON_GAPS and not all(row["bound_met"] for row in sound):
        why = recipes.why(dataset, dense, sparse, bound=bound, tolerance=config.tolerance)
    for line in (*recipes.said_naive(rows), recipes.to_ship(rows, out), *map(in_flags, why)):
        print(one_line(line))
    return 0 if len(sound) == len(rows) else 1


def tuned(
    config: Config,
    model: Model,
    dataset: data.Dataset,
    dense: recipes.Networks,
    bound: recipes.Bound | None,
    same: dict[str, Any],
) -> tuple[recipes.Bound | None, float]:
    """The bound and the learning rate that are best on validation, of ``--tune`` settings, the given one first."""
    over, start = dict(recipes.OVER), {"learning_rate": [config.learning_rate], "travel": [recipes.TRAVEL]}
    rate = over["learning_rate"]
    low, high = min(rate.low, config.learning_rate), max(rate.high, config.learning_rate)
    over["learning_rate"] = rate._replace(low=low, high=high)
    moves = config.bound in ("ceag", "accuracy_gap")
    if not moves:
        over.pop("travel")
    options = {name: value for name, value in same.items() if name not in ("folder", "learning_rate")}

    def bounded(setting: dict[str, Any]) -> recipes.Bound | None:
        return BOUNDS[config.bound](config.tolerance, travel=setting["travel"]) if moves else bound

    def play(setting: dict[str, Any]) -> recipes.Networks:
        return recipes.prune(
            model, dataset, dense, bound=bounded(setting), distill=config.distill, progress=False,
            learning_rate=setting["learning_rate"], **options,
        )  # fmt: skip

    found = recipes.tuned(
        play, over, dataset, dense, bound=bound, tolerance=config.tolerance, budget=config.tune, start=start,
        key=config.seed, folder=same["folder"] / "tuning", deliver=False,
        say=lambda line: print(one_line(line), flush=True),
    )  # fmt: skip
    chosen = ", ".join(f"{name} {value:.3g}" for name, value in found.chosen.items())
    print(f"chosen on validation, of {config.tune} settings: {chosen}\n", flush=True)
    return bounded(found.chosen), found.chosen["learning_rate"]


def diverged(failed_at: np.ndarray, what: str, instead: str) -> bool:
    """Says which networks diverged, if any; gives whether all did."""
    bad = np.flatnonzero(failed_at >= 0)
    if len(bad):
        seeds = ", ".join(map(str, bad))
        print(f"{len(bad)} of {len(failed_at)} {what} diverged and must not be used (seeds {seeds}): try {instead}")
    return len(bad) == len(failed_at)


def kept(
    config: Config,
    bound: recipes.Bound | None,
    dataset: data.Dataset,
    dense: recipes.Networks,
    sparse: recipes.Networks,
    out: pathlib.Path,
) -> list[dict[str, Any]]:
    """Writes what may be shipped, what it predicts and what it is worth; gives the latter, a row per network."""
    before, after = dense.predictions(dataset), sparse.predictions(dataset)
    arrays = {"group_names": np.array(dataset.group_names), "class_names": np.array(dataset.class_names)}
    for name in after:
        split = dataset.splits[name]
        arrays |= {
            f"before_{name}": before[name], f"after_{name}": after[name],
            f"y_{name}": np.asarray(split.y), f"group_{name}": np.asarray(split.group),
        }  # fmt: skip
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]
    files.atomic_write(out / "predictions.npz", content.getvalue())
    rows = recipes.worth(
        dataset, before, after, bound=bound, tolerance=config.tolerance, seeds=sparse.seeds, failed_at=sparse.failed_at,
        naive=sparse.naive,
    )  # fmt: skip
    facts = {name: getattr(config, name) for name in ("sparsity", "bound", "tolerance")} | identity(config)
    if config.tune:
        facts |= {"tune": config.tune, "learning_rate": config.learning_rate}
        facts |= {name: bound.settings[name] for name in ("travel",) if bound is not None and name in bound.settings}
    itself = recipes.worth(dataset, before, before, method="dense", seeds=dense.seeds, failed_at=dense.failed_at)
    recipes.ship(dataset, dense, itself, out, facts | {"sparsity": 0.0, "bound": "none", "tolerance": None})
    recipes.ship(dataset, sparse, rows, out, facts)
    files.atomic_write(out / "networks.csv", recipes.as_csv(rows))
    return rows


def called(config: Config) -> str:
    """What the pruned networks are called where they are read of."""
    words = {
        "none": "pruned as usual",
        "equalized_loss": "pruned for equal losses",
        "churn": "pruned for few changes",
    }
    return words.get(config.bound, "pruned under the bound")


def said(config: Config, found: audit.Comparison) -> list[str]:
    """The answer in a few lines, and where there was no bound on gaps, that nothing was trained for it."""
    lines = found.answer().lines()
    if config.bound not in ON_GAPS:
        lines += ["", "The networks were not trained for this bound: --bound=ceag does that."]
    return [*lines, ""]


main = flags.entry(run, Config, prog="jaxfair prune")
