"""What `jaxfair prune` and `jaxfair quantize` share: dense networks made smaller, as usual and under a bound.

Data and a model from flags, dense networks, the smaller ones, what may be shipped, what each of them is worth, and the
page of the audit. A command says what it does to the networks, and in which words.
"""

import dataclasses
import io
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxfair import audit, data, files, models, recipes, report, study
from jaxfair.cli import flags
from jaxfair.cli.dataset import check_apart, identity, in_flags, loaded, told
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
#: What is said where the page cannot be written.
NO_PAGE = "for the page, with figures and tables: pip install 'jaxfair[report]'"
#: Those that bound a gap itself.
ON_GAPS = ("ceag", "ceag_published", "accuracy_gap")


@dataclasses.dataclass(frozen=True)
class Flags:
    """Of both commands."""

    # a .npz, .parquet or .csv file with x, y and group; or the name of a dataset
    data: str = ""
    # FILE.py:FUNCTION that makes a network of a number of classes; or the name of one
    model: str = "mlp"
    # folder of what is written
    out: str = ""
    # on what a group may lose beyond what all lose, as a share of 1: 0.02 is two points; of churn also on the share of
    # a group's predictions that may change
    tolerance: float = flags.one(0.02, low=0, below=1)
    # of ceag, accuracy_gap, churn, ceag_published, equalized_loss, none
    bound: str = flags.one("ceag", of=BOUNDS)
    # make none without the bound beside them: half the time, and no promise that the bound does no harm
    nonaive: bool = False
    # how many networks
    seeds: int = flags.one(5, low=1, high=10_000)
    # of the dense networks, at most
    dense_epochs: int = flags.one(20, low=1)
    # of training after the dense networks
    epochs: int = flags.one(50, low=2)
    # examples a step
    batch_size: int = flags.one(128, low=1)
    # of SGD after the dense networks
    learning_rate: float = flags.one(0.05, above=0)
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
    # columns whose values are kinds, such as words: each value is a feature of 0 and 1
    categorical: tuple[str, ...] = flags.several((), none=True)
    # subtract the mean of each number on train and divide by its deviation, or =false; by default of tables, not of x
    standardize: bool | None = flags.yes_or_no()

    def check(self) -> None:
        """What no flag can say by itself."""
        for name in ("data", "out"):
            if not getattr(self, name):
                raise flags.UsageError(f"--{name}: give one; --help lists the flags")


class Command(NamedTuple):
    """What a command does to dense networks, and how it says so.

    Attributes:
      make: ``make(config, model, dataset, dense, bound=, naive=, **same) -> Networks``.
      done: ``done(config)``, what the networks are then, such as ``"pruned"``.
      doing: the noun, such as ``"pruning"``.
      less: what to do where nothing meets the bound, such as ``"prune less"``.
      size: ``size(config)``, how small the networks are, in words.
      facts: ``facts(config)``, what is to be known of a smaller network, and stands in its file.
      prunes: ``prunes(config)``, whether weights are removed.
      explained: whether `recipes.why` speaks of it.
      settle: ``settle(config, model, dataset, dense, bound, same) -> (config, bound)``, once there are dense networks.
    """

    make: Callable[..., recipes.Networks]
    done: Callable[[Any], str]
    doing: str
    less: str
    size: Callable[[Any], str]
    facts: Callable[[Any], dict[str, Any]]
    prunes: Callable[[Any], bool]
    explained: bool = True
    settle: Callable[..., Any] = lambda config, model, dataset, dense, bound, same: (config, bound)


def run(config: Any, command: Command) -> int:
    """From the flags to the whole job; the exit code is 1 if a network diverged."""
    dataset = loaded(config, config.data)
    model = models.build(config.model, dataset.num_classes)
    recipes.check_model(model, dataset, pruned=command.prunes(config), saved=True)
    made = BOUNDS[config.bound]
    bound = None if made is None else made(config.tolerance)
    out = pathlib.Path(config.out)
    check_apart(out, [config.data], [".csv", ".npz"])
    study.check_folder(out, needed_bytes=50_000_000)
    with study.alone_in(out):
        if (out / "records.jsonl").exists():
            raise study.FolderError(f"{out} holds the run of an experiment: choose another folder (--out)")
        study.claim_folder(out, settings(config))
        return job(config, command, dataset, model, bound, out)


def settings(config: Any) -> dict[str, Any]:
    """What the files are a function of: all flags but where they go, and what is in the user's files."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name != "out"} | identity(config)


def job(
    config: Any,
    command: Command,
    dataset: data.Dataset,
    model: Model,
    bound: recipes.Bound | None,
    out: pathlib.Path,
) -> int:
    """Trains, makes smaller, writes and tells; gives the exit code."""
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
            same |= {"tolerance": config.tolerance, "key": config.seed, "epochs": config.epochs}
            config, bound = command.settle(config, model, dataset, dense, bound, same)
            same["learning_rate"] = config.learning_rate
            asked = bound is not None and not config.nonaive
            naive = command.make(config, model, dataset, dense, bound=None, naive=None, **same) if asked else None
            sparse = command.make(config, model, dataset, dense, bound=bound, naive=naive, **same)
        except study.Stopped:
            raise study.Stopped(out) from None
    rows = kept(config, command, bound, dataset, dense, sparse, out)
    slower = f"--learning_rate={config.learning_rate / 5:g}"
    diverged(np.where(dense.failed_at < 0, sparse.failed_at, -1), f"{command.done(config)} networks", slower)
    sound = [row for row in rows if row["file"]]
    if not sound:
        return 1
    named = rows[0]["method"]
    usual = {} if naive is None else {"nft": naive}
    as_usual = f"{command.done(config)} as usual"
    found = audit.compare(
        dense, {**usual, named: sparse}, dataset, tolerance=config.tolerance,
        labels={**dict.fromkeys(usual, as_usual), named: called(config, command.done(config))}, naive="".join(usual),
        peers=[*usual],
        on_loss=[named] if bound is not None and bound.on == "gap" else [], name_before="dense",
    )  # fmt: skip
    for line in said(config, found):
        print(line)
    if report.can_write():
        model_name = pathlib.Path(config.model.rpartition(":")[0]).name or config.model
        bounded = f"bound {100 * config.tolerance:g} point{'' if config.tolerance == 0.01 else 's'}"
        found.write(
            out, title=f"What {command.doing} did to each group",
            subtitle=f"{pathlib.Path(config.data).name}, {model_name}, {command.size(config)}, {bounded}",
        )  # fmt: skip
        print(f"page: {one_line(out / 'report.html')}")
    else:
        print(NO_PAGE)
    print(f"networks: {one_line(out)}, what each is worth: {one_line(out / 'networks.csv')}")
    why = []
    if (
        command.explained
        and bound is not None
        and config.bound in ON_GAPS
        and not all(row["bound_met"] for row in sound)
    ):
        why = recipes.why(dataset, dense, sparse, bound=bound, tolerance=config.tolerance)
    for line in (*recipes.said_naive(rows), recipes.to_ship(rows, out, less=command.less), *map(in_flags, why)):
        print(one_line(line))
    return 0 if len(sound) == len(rows) else 1


def diverged(failed_at: np.ndarray, what: str, instead: str) -> bool:
    """Says which networks diverged, if any; gives whether all did."""
    bad = np.flatnonzero(failed_at >= 0)
    if len(bad):
        seeds = ", ".join(map(str, bad))
        print(f"{len(bad)} of {len(failed_at)} {what} diverged and must not be used (seeds {seeds}): try {instead}")
    return len(bad) == len(failed_at)


def kept(
    config: Any,
    command: Command,
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
    facts = {name: getattr(config, name) for name in ("bound", "tolerance", "learning_rate")} | identity(config)
    facts |= {name: bound.settings[name] for name in ("travel",) if bound is not None and name in bound.settings}
    own = command.facts(config)
    itself = recipes.worth(dataset, before, before, method="dense", seeds=dense.seeds, failed_at=dense.failed_at)
    before_it = {"bound": "none", "tolerance": None, "learning_rate": config.dense_learning_rate}
    recipes.ship(
        dataset, dense, itself, out, {**facts, **before_it, **({"sparsity": 0.0} if "sparsity" in own else {})}
    )
    recipes.ship(dataset, sparse, rows, out, facts | own)
    files.atomic_write(out / "networks.csv", recipes.as_csv(rows))
    return rows


def called(config: Any, done: str) -> str:
    """What the smaller networks are called where they are read of."""
    words = {"none": "as usual", "equalized_loss": "for equal losses", "churn": "for few changes"}
    return f"{done} {words.get(config.bound, 'under the bound')}"


def said(config: Any, found: audit.Comparison) -> list[str]:
    """The answer in a few lines, and where there was no bound on gaps, that nothing was trained for it."""
    lines = found.answer().lines()
    if config.bound not in ON_GAPS:
        lines += ["", "The networks were not trained for this bound: --bound=ceag does that."]
    return [*lines, ""]
