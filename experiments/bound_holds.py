"""Whether the bound holds on tables that it was not tuned on, at which cost, and whether it carries to new people.

    .venv/bin/python -m experiments.bound_holds

prunes networks of two sizes to two sparsities on several data sets, by naive fine-tuning and under the bound of CEAG:
by the library's rule for the multipliers (`jaxfair.recipes.ceag`), by the one before it (plain ascent, one an epoch),
and with half of the loss at the predictions of the dense network. Networks of a split and a seed come from the same
dense network, and are compared in pairs. The rule was chosen on split 0, which is not among the default splits.

`--settings` has the parts of the rule one by one: how far a multiplier can go (`travel_0.5` to `travel_500`: four
decades), the margin, and what the multipliers are told. `credit`, `credit_label` and `fashion` are read from
`--data_dir`: `credit.npz` and `fashion_14x14.npz`, arrays x and y, and of credit group (sex x age band) and
group_by_label (sex x label).

It writes `runs/bound_holds/<id>/`: config.json, records.jsonl, tables, a figure, report.html, and the dense networks.
Killed at any moment, the same command goes on and ends with the same records on a CPU. The defaults take two cores
about an hour.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfair import data, files, metrics, models, recipes, report, study
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Model

Records = Sequence[Mapping[str, Any]]
#: A run may lose so much accuracy against naive fine-tuning.
ALLOWED_LOSS = 0.003
#: The rule of `jaxfair.recipes.ceag`.
CEAG = recipes.RULE
#: Without constraints: a dual rate of 0 keeps all multipliers at 0.
NFT = {"rate": 0.0}
#: Plain ascent: a violation of 1 moves a multiplier by 1 in an epoch.
ONE_AN_EPOCH = {"batches": "root", "rate": 1.0, "per": "epoch", "margin": 0.5}
TAUGHT = {"loss": "distilled"}
SETTINGS: dict[str, dict[str, Any]] = {
    "nft": NFT,
    "nft_distilled": NFT | TAUGHT,
    "one_an_epoch": ONE_AN_EPOCH,
    "ceag": CEAG,
    "ceag_distilled": CEAG | TAUGHT,
    # parts of the rule, on request
    **{f"travel_{travel:g}": CEAG | {"rate": travel} for travel in (0.5, 50.0, 500.0)},
    "margin_0.7": CEAG | {"margin": 0.7},
    "margin_0.9": CEAG | {"margin": 0.9},
    "from_memory": CEAG | {"estimate": "memory"},
    "ten_an_epoch": ONE_AN_EPOCH | {"rate": 10.0},
}
COMPARED = ("nft", "nft_distilled", "one_an_epoch", "ceag", "ceag_distilled")
#: What names a run.
NAMES = ("of", "data_set", "width", "sparsity", "split", "seed", "cell")


@dataclasses.dataclass(frozen=True)
class Config:
    """Find out where the bound holds, and what it costs."""

    # of adult_label, adult_race, planted, credit, credit_label, fashion; by default those that need no file
    data_sets: tuple[str, ...] = flags.several((), of=lambda: DATA_SETS, none=True)
    # widths of the two hidden layers
    widths: tuple[int, ...] = flags.several((64, 256), int, low=1)
    # shares of the prunable weights that are removed; by default two for each data set
    sparsities: tuple[float, ...] = flags.several((), float, low=0, below=1, none=True)
    # of nft, nft_distilled, one_an_epoch, ceag, ceag_distilled; and on request travel_0.5, travel_50, travel_500,
    # margin_0.7, margin_0.9, from_memory, ten_an_epoch
    settings: tuple[str, ...] = flags.several(COMPARED, of=lambda: SETTINGS)
    # how many splits
    splits: int = flags.one(5, low=1, high=10_000)
    # the first of them; the rule was chosen on split 0
    first_split: int = flags.one(1, low=0)
    # dense networks of each split
    seeds: int = flags.one(3, low=1, high=10_000)
    # epochs of pruning and fine-tuning; 0 is each data set's own number
    epochs: int = flags.one(0, low=0)
    # bound on the excess accuracy gap of every group, as a share of 1
    tolerance: float = flags.one(0.01, above=0)
    # people in the planted set, relative to their own number
    size: float = flags.one(1.0, above=0)
    # runs side by side in one compiled call; a setting of the run, since sums may depend on it in the last digit
    lanes: int = flags.one(8, low=1)
    # where credit.npz and fashion_14x14.npz are
    data_dir: str = ""
    # the key that data, seeds and batches are folded from
    seed: int = flags.one(0, low=0)
    # the run goes into a folder in here
    runs_dir: str = "runs/bound_holds"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """What no flag says by itself."""
        if "nft" not in self.settings:
            raise flags.UsageError("--settings: all is measured against nft; add it")
        if self.epochs in (1, 2):
            raise flags.UsageError(f"--epochs={self.epochs}: give at least 3, or 0 for each data set's own")
        for name in self.sets:
            file = DATA_SETS[name].file
            if file and not (pathlib.Path(self.data_dir) / file).exists():
                raise flags.UsageError(f"--data_sets={name}: there is no {file} in --data_dir={self.data_dir or '.'}")

    @property
    def sets(self) -> tuple[str, ...]:
        """The data sets of the run."""
        return self.data_sets or tuple(name for name, of in DATA_SETS.items() if not of.file)


# --- data sets -----------------------------------------------------------------------------------------------------


class DataSet(NamedTuple):
    """A data set and its schedule: the first 30 % of the epochs prune, the rate falls after 70 %."""

    name: str  # on the page
    load: Callable[[Config, int], data.Dataset]  # of a config and a split
    sparsities: tuple[float, ...] = (0.95, 0.98)
    epochs: int = 50
    file: str = ""


def _adult(*groups: str) -> Callable[[Config, int], data.Dataset]:
    return lambda config, split: data.load("adult", groups=groups, split_seed=split)


def _planted(config: Config, split: int) -> data.Dataset:
    names = ("num_train", "num_validation", "num_test", "minority_test")
    numbers = zip(names, (20_000, 4_000, 8_000, 2_000), (500, 200, 400, 100), strict=True)
    scaled: dict[str, Any] = {name: max(round(config.size * number), low) for name, number, low in numbers}
    minority = max(0.01, 80 / scaled["num_train"])  # a balanced batch has 64 of them
    key = jax.random.fold_in(jax.random.key(config.seed), 101)
    return data.planted(key=key, minority=minority, split_seed=split, **scaled)


def _file(file: str, group: str, scale: float = 1.0) -> Callable[[Config, int], data.Dataset]:
    def load(config: Config, split: int) -> data.Dataset:
        arrays = files.arrays(pathlib.Path(config.data_dir) / file, "get it again")
        for lacking in {"x", "y", group} - {*arrays}:
            raise data.DataError(f"{file} has no {lacking!r}, only {', '.join(arrays)}: it takes x, y and {group}")
        x = (arrays["x"].reshape(len(arrays["y"]), -1) / scale).astype(np.float32)
        return data.dataset(x, arrays["y"], arrays[group], split_seed=split)

    return load


DATA_SETS = {
    "adult_label": DataSet("Adult, sex x label", _adult("sex", "label")),
    "adult_race": DataSet("Adult, race x sex", _adult("race", "sex")),
    "planted": DataSet("planted minority", _planted, (0.97, 0.985), 30),
    "credit": DataSet("credit, sex x age", _file("credit.npz", "group"), file="credit.npz"),
    "credit_label": DataSet("credit, sex x label", _file("credit.npz", "group_by_label"), file="credit.npz"),
    "fashion": DataSet("fashion, classes", _file("fashion_14x14.npz", "y", 1020), file="fashion_14x14.npz"),
}


@functools.cache  # the same network for all splits is compiled once
def _model(num_classes: int, width: int) -> Model:
    return models.mlp(num_classes, hidden=(width, width))


# --- the run -------------------------------------------------------------------------------------------------------


def jobs(config: Config) -> list[study.Cell]:
    """Runs: what names them, their settings, and the words in those that make another program."""
    return [
        {"of": "run", "data_set": name, "width": width, "sparsity": sparsity, "split": split, "seed": seed,
         "cell": cell, "setting": SETTINGS[cell], "program": recipes.Setting(**SETTINGS[cell]).words}
        for name in config.sets for width in config.widths
        for split in range(config.first_split, config.first_split + config.splits)
        for sparsity in config.sparsities or DATA_SETS[name].sparsities
        for cell in config.settings for seed in range(config.seeds)
    ]  # fmt: skip


def play(config: Config, this: study.Run) -> None:
    """All runs that are not done, chunk by chunk."""
    base, at = None, None
    together = ("data_set", "width", "sparsity", "split", "program")
    for shared, cells in this.missing(jobs(config), together=together, at_most=config.lanes, whole=True):
        where = shared["data_set"], shared["width"], shared["split"]
        if base is None or at != where:
            base = None  # so that two are never in memory
            base, at = based(config, this, *where), where
        epochs = config.epochs or DATA_SETS[shared["data_set"]].epochs
        bound = {"tolerance": config.tolerance}
        went = recipes.sweep_settings(
            base, [recipes.Setting(**(bound | cell["setting"])) for cell in cells],
            seeds=[cell["seed"] for cell in cells], sparsity=shared["sparsity"], learning_rate=0.05, epochs=epochs,
            prune_epochs=max(1, round(0.3 * epochs)),
        )  # fmt: skip
        for i, cell in enumerate(cells):
            labels = {w: z[i].argmax(-1) for w, z in went.logits["delivered"].items()}
            last = {w: z[i].argmax(-1) for w, z in went.logits["last"].items()}
            record(config, this, base, cell, labels, last, int(went.failed_at[i]))


def based(config: Config, this: study.Run, name: str, width: int, split: int) -> recipes.Base:
    """A split with its dense networks; records what the next seed's is beside each: the floor of the noise."""
    dataset, root = DATA_SETS[name].load(config, split), jax.random.fold_in(jax.random.key(config.seed), split)
    base = recipes.base(
        _model(dataset.num_classes, width), dataset, batch_size=128,
        keys=jnp.stack([jax.random.fold_in(root, seed) for seed in range(config.seeds)]),
        file=this.folder / "dense" / f"{name}_{width}_{split}.npz",
    )  # fmt: skip
    for seed in range(config.seeds):
        other = base.labels((seed + 1) % config.seeds)
        cell = {"of": "dense", "data_set": name, "width": width, "split": split, "seed": seed}
        record(config, this, base, cell, other, other, -1 if config.seeds > 1 else 0)
    return base


def record(
    config: Config, this: study.Run, base: recipes.Base, cell: study.Cell, labels: Any, last: Any, failed: int
) -> None:
    """What claims, tables and figures are about, of a network beside the dense one."""
    seed, numbers = cell["seed"], {}
    for which, said in (("", labels), ("last_", last)):
        did = base.judged(seed, said, config.tolerance, ok=failed < 0)
        numbers |= {
            f"{which}met": did["train"]["violation"] <= 0,
            f"{which}train_gap": did["train"]["gap"],
            f"{which}train_accuracy": did["train"]["accuracy"],
            f"{which}test_gap": did["test"]["gap_large"],
            f"{which}test_accuracy": did["test"]["accuracy"],
        }
    changed = np.mean(labels["test"] != base.labels(seed)["test"]) if failed < 0 else math.nan
    named = {n: cell[n] for n in NAMES if n in cell}
    this.record(named, {"failed_at": failed, "changed": float(changed), **numbers})


def run(config: Config) -> None:
    """Everything, and the page."""
    with study.opened(config, NAMES, grows=("splits", "data_dir", "settings"), room=200_000_000) as this:
        for name in config.sets:
            if DATA_SETS[name].file:  # what is wrong with a file is said before anything is trained
                DATA_SETS[name].load(config, config.first_split)
        play(config, this)
        tell(config, this)


# --- what was found ------------------------------------------------------------------------------------------------

#: What makes a pair of runs.
PAIR = ("data_set", "width", "sparsity", "split", "seed")


def rows(records: Records) -> list[dict[str, Any]]:
    """Runs beside naive fine-tuning of the same dense network: ``lost`` of accuracy on train, and ``joint``.

    A run is ``active`` where the last iterate of naive fine-tuning violates the bound: elsewhere nothing is asked of a
    method.
    """
    nft = {tuple(r[n] for n in PAIR): r for r in study.chosen(records, cell="nft")}
    found = []
    for r in study.chosen(records, of="run"):
        if peer := nft.get(tuple(r[n] for n in PAIR)):
            lost = peer["last_train_accuracy"] - r["train_accuracy"]
            joint = r["met"] and lost <= ALLOWED_LOSS
            found.append({**r, "lost": lost, "joint": joint, "active": not peer["last_met"]})
    return found


def claims(records: Records) -> list[study.Claim]:
    """What would have to be seen of the rule, on each of the data sets."""
    there = study.values(study.chosen(records, of="run"), "cell")
    stated = {
        "one_an_epoch": ("train_gap", ("nearer to no gap on train", "further from it"), -1, 0.0),
        "nft": ("test_gap", ("kinder on test to the group that loses most", "harder on it"), -1, 0.0),
        "nft_distilled": ("test_gap", ("kinder on test to the group that loses most", "harder on it"), -1, 0.0),
    }
    accurate = ("test_accuracy", ("no less accurate on test", "less accurate"), 1, -ALLOWED_LOSS)
    return [
        study.Claim(method, peer, column, words, good=good, margin=margin, at=("data_set",), of="cell",
                    over=("width", "sparsity", "split", "seed"), level=title)
        for method in ("ceag", "ceag_distilled")
        for peer, (column, words, good, margin) in [*stated.items(), ("nft", accurate)]
        if {method, peer} <= {*there}
    ]  # fmt: skip


def title(name: str) -> str:
    """A data set as a reader sees it."""
    return DATA_SETS[name].name


def over_data_sets(records: Records, method: str, peer: str) -> str:
    """The largest gap on test, method less peer: the mean of the data sets' means, with its interval over data sets."""
    means = []
    for name in study.values(records, "data_set"):
        mine = {tuple(r[n] for n in PAIR): r["test_gap"] for r in study.chosen(records, data_set=name, cell=method)}
        theirs = {tuple(r[n] for n in PAIR): r["test_gap"] for r in study.chosen(records, data_set=name, cell=peer)}
        means.append(float(np.nanmean([mine[pair] - theirs[pair] for pair in mine if pair in theirs])))
    found = metrics.t_interval(np.array(means))
    return (
        f"Largest gap on test, {method} less {peer}, over {len(means)} data set{'' if len(means) == 1 else 's'}: "
        f"{report.mean_and_half_width(found.mean, found.half_width)} points."
    )


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    found = rows(this.records)
    active = [r for r in found if r["active"]]
    points, counted = partial(report.in_points, lacking="–"), report.counted
    method = report.Name("cell", "method", order=[*SETTINGS])
    names = [report.Name("data_set", "data set", title), report.Name("width", "width"), method]
    columns = {
        "met": counted("met"), "met and accurate": counted("joint"), "train gap": points("train_gap"),
        "lost": points("lost"), "largest loss": report.number("lost", ".4f", of=np.max),
        "test gap": points("test_gap"), "test accuracy": points("test_accuracy"), "changed": points("changed"),
    }  # fmt: skip
    floors = [r | {"cell": "dense, retrained"} for r in study.chosen(this.records, of="dense")]
    compared = {
        "test gap": "test_gap",
        "test accuracy": "test_accuracy",
        "train gap": "train_gap",
        "changed": "changed",
    }
    shown = [
        report.Shown("all", report.table(active, [method], columns), "All data sets: runs in which the last iterate of "
                     "naive fine-tuning violates the bound.", "Lost: accuracy on train against it, in points. "
                     f"Accurate: at most {100 * ALLOWED_LOSS:g} points lost. Test gap: over groups of at least 200.",
                     numbers=pd.DataFrame(found), title="mean ± 95 % over runs"),
        report.Shown("table", report.table(active, names, columns), "The same, by data set and width."),
        report.Shown("paired", report.paired_table(found, [report.Name("data_set", "data set", title), method],
                     compared, of="cell", over=PAIR[1:], peers=lambda m: [n for n in COMPARED if n != m]),
                     "Paired differences in points, the same dense network; all runs."),
        report.Shown("floor", report.table(floors, [report.Name("data_set", "data set", title)],
                     {"test gap": points("test_gap"), "changed": points("changed")}),
                     "The dense network of the next seed in place of a pruned one: what retraining alone does."),
    ]  # fmt: skip
    cells = study.values(found, "cell")
    # In a figure a pair of runs is what a seed is elsewhere.
    drawn = [r | {"seed": "/".join(str(r[n]) for n in PAIR[2:])} for r in found]
    sides = {"train_gap": "gap on train (points)", "test_gap": "gap on test (points)"}
    grid = [
        [figures.Panel(report.lines(study.chosen(drawn, data_set=name), column, along="width", of="cell"), title(name),
                       label) for column, label in sides.items()] for name in study.values(found, "data_set")
    ]  # fmt: skip
    figure = figures.levels(grid, methods=cells, along="width", say="{:g}".format)
    caption = "The largest gap of the delivered network, over the width of its layers."
    pairs = [("ceag", "nft"), ("ceag_distilled", "nft"), ("ceag_distilled", "nft_distilled")]
    overall = [over_data_sets(found, a, b) for a, b in pairs if {a, b} <= {*cells}]
    held = "; ".join(f"{cell}: {sum(r['met'] for r in mine)} of {len(mine)}, accurate {sum(r['joint'] for r in mine)}"
                     for cell in cells if (mine := study.chosen(active, cell=cell)))  # fmt: skip
    failed = sum(r["failed_at"] >= 0 for r in found)
    report.study(
        this, prog="experiments.bound_holds", title="Where the bound holds",
        subtitle="Networks pruned under a bound on what every group may lose, on tables it was not tuned on",
        found=[
            f"{len(found)} runs, {failed} with an infinite loss; in {len(active)} of them naive fine-tuning violates "
            f"the bound of {report.points(config.tolerance)} points. Of these the bound is met by {held or 'nobody'}.",
            *overall, *(study.judge(found, claim) for claim in claims(found)),
        ],
        drawn=[report.Drawn("widths", figure, caption, "as in the table")], shown=shown,
        done=[f"{name}: {', '.join(f'{k} {v}' for k, v in SETTINGS[name].items())}" for name in cells],
        paragraphs=["Delivered is the most accurate network of the final 30 % of the epochs that met the bound on "
                    "train, else the one that violates it least; naive fine-tuning by the same rule."],
    )  # fmt: skip


main = flags.entry(run, Config, prog="bound_holds")


if __name__ == "__main__":
    main()
