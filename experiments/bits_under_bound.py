"""Whether a bound on each group holds at few bits, what it costs, and what of it new people see.

    .venv/bin/python -m experiments.bits_under_bound

takes dense networks to 4, 3 and 2 bits a weight, by rounding and by training at the levels, with and without a bound on
what each group may lose: `ceag` bounds what it loses more than everybody does, `accuracy_gap` what it loses. Without a
bound the network is chosen by the same rule (`qat`), or is simply the last (`qat_last`). All of a split and a seed come
from the same dense network and are compared in pairs. Nothing here was tuned: the multipliers' rule is that of pruning.

`credit`, `credit_label` and `fashion` are read from `--data_dir`, as in `experiments.bound_holds`.

It writes `runs/bits_under_bound/<id>/`: config.json, records.jsonl (one line per network; the same command goes on
where a killed run stopped), tables, a figure, report.html.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments import bound_holds
from jaxfair import data, models, recipes, report, study
from jaxfair.cli import flags
from jaxfair.report import figures

IN_WORDS = {
    "ptq": "the nearest levels; nothing is trained",
    "rounding": "rounding of second order, layer by layer",
    "rounding_ceag": "the same, in which no group's outputs lose more than everybody's; chosen by the bound of ceag",
    "qat_last": "trained at the levels: the last network",
    "qat": "trained at the levels: of the last epochs the most accurate network that met the bound of ceag",
    "qat_ceag": "trained at the levels under a bound on what a group loses more than everybody does",
    "qat_accuracy_gap": "trained at the levels under a bound on what a group loses",
}
METHODS = tuple(IN_WORDS)
#: Judged by what a group loses; the others by what it loses more than everybody does.
OF_LOSS = ("qat_accuracy_gap",)
#: A network may lose so much accuracy against the last of training without a bound.
ALLOWED_LOSS = bound_holds.ALLOWED_LOSS
COLUMNS = {
    "gap": "largest_gap", "loss": "largest_loss", "accuracy": "accuracy", "dense": "accuracy_dense",
    "changed": "changed", "newly_wrong": "largest_newly_wrong",
}  # fmt: skip
NAMES = ("data_set", "bits", "split", "seed", "method")
PAIR = ("data_set", "bits", "split", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    """Find out whether a bound holds at few bits, and what it costs."""

    # of adult_label, adult_race, planted, credit, credit_label, fashion; by default those that need no file
    data_sets: tuple[str, ...] = flags.several((), of=lambda: bound_holds.DATA_SETS, none=True)
    # of ptq, rounding, rounding_ceag, qat_last, qat, qat_ceag, qat_accuracy_gap
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # of a weight
    bits: tuple[int, ...] = flags.several((4, 3, 2), int, low=2, high=8)
    # how many splits, from 1 on: the rule of the multipliers was chosen on split 0
    splits: int = flags.one(2, low=1, high=10_000)
    # dense networks of each split
    seeds: int = flags.one(5, low=1, high=10_000)
    # width of the two hidden layers
    width: int = flags.one(64, low=1)
    # of the dense networks, and of training at the levels
    dense_epochs: int = flags.one(20, low=1)
    epochs: int = flags.one(20, low=1)
    # bound on what each group may lose, as a share of 1
    tolerance: float = flags.one(0.01, above=0)
    # people in the planted set, relative to their own number
    size: float = flags.one(1.0, above=0)
    # where credit.npz and fashion_14x14.npz are
    data_dir: str = ""
    # the run goes into a folder in here
    runs_dir: str = "runs/bits_under_bound"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """What no flag says by itself."""
        if "qat_last" not in self.methods:
            raise flags.UsageError("--methods: all is measured against qat_last; add it")
        self.tables.check()

    @property
    def tables(self) -> bound_holds.Config:
        """What the loaders of `bound_holds` ask for."""
        return bound_holds.Config(data_sets=self.data_sets, data_dir=self.data_dir, size=self.size)


def measured(
    config: Config, dataset: data.Dataset, dense: recipes.Networks, bits: int, methods: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Method -> the records of all seeds."""
    model = models.mlp(dataset.num_classes, hidden=(config.width, config.width))
    trained: dict[str, recipes.Networks] = {}

    def networks(method: str) -> recipes.Networks:
        how, _, bound = method.partition("_")
        if how != "qat" or bound == "last":
            bound = bound if how != "qat" else ""
        if (how, bound) not in trained:
            asked = getattr(recipes, bound)(config.tolerance) if bound else None
            trained[how, bound] = recipes.quantize(
                model, dataset, dense, bits=bits, method=how, bound=asked, progress=False,
                **({"epochs": config.epochs} if how == "qat" else {}),
                **({} if how == "ptq" else {"tolerance": config.tolerance}),
            )  # fmt: skip
        found = trained[how, bound]
        return found.iterates["last"] if method == "qat_last" else found

    records = {}
    for method in methods:
        excess, loss = (
            recipes.worth(dataset, dense, networks(method), bound=on(config.tolerance))
            for on in (recipes.ceag, recipes.accuracy_gap)
        )
        records[method] = [
            {
                "met": of_excess["bound_met"], "met_loss": of_loss["bound_met"], "failed_at": of_loss["failed_at"],
                **{f"{split}_{short}": of_loss[f"{column}_{split}"] if of_loss["failed_at"] < 0 else math.nan
                   for split in ("train", "test") for short, column in COLUMNS.items()},
            }
            for of_excess, of_loss in zip(excess, loss, strict=True)
        ]  # fmt: skip
    return records


def run(config: Config) -> None:
    """Trains and measures what is not yet recorded, and writes the page."""
    wanted = study.grid(
        data_set=config.tables.sets, split=range(1, 1 + config.splits), bits=config.bits, method=config.methods,
        seed=range(config.seeds),
    )  # fmt: skip
    with study.opened(config, NAMES, grows=("data_sets", "data_dir", "methods", "bits", "splits")) as this:
        for name in config.tables.sets:  # what is wrong with a file is said before anything is trained
            if bound_holds.DATA_SETS[name].file:
                bound_holds.DATA_SETS[name].load(config.tables, 1)
        at: Any = None
        for shared, cells in this.missing(wanted, together=("data_set", "split", "bits")):
            if at != (shared["data_set"], shared["split"]):
                at = shared["data_set"], shared["split"]
                dataset = bound_holds.DATA_SETS[at[0]].load(config.tables, at[1])
                model = models.mlp(dataset.num_classes, hidden=(config.width, config.width))
                dense = recipes.dense(
                    model, dataset, seeds=config.seeds, epochs=config.dense_epochs, key=at[1], progress=False
                )
            methods = study.values(cells, "method")
            found = measured(config, dataset, dense, shared["bits"], methods)
            for cell in cells:
                this.record(cell, found[cell["method"]][cell["seed"]])
        tell(config, this)


def rows(records: Sequence[Any]) -> list[dict[str, Any]]:
    """Each network beside the last of training without a bound, of the same dense network.

    ``held`` says whether it met the bound that it is judged by, ``asked`` whether that other one violates it: elsewhere
    nothing is asked of a method.
    """
    last = {tuple(r[n] for n in PAIR): r for r in study.chosen(records, method="qat_last")}
    found = []
    for r in records:
        if peer := last.get(tuple(r[n] for n in PAIR)):
            met = "met_loss" if r["method"] in OF_LOSS else "met"
            lost = peer["train_accuracy"] - r["train_accuracy"]
            joint = r[met] and lost <= ALLOWED_LOSS
            found.append(
                {**r, "held": r[met], "asked": not peer[met] and peer["failed_at"] < 0, "lost": lost, "joint": joint}
            )
    return found


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of the bounds, on each data set at all bits."""
    there, found = {*study.values(records, "method")}, []
    kind = ("kinder on test to the group that loses most", "harder on it")
    stated = [
        ("qat_ceag", "qat", "test_gap", kind, -1, 0.0),
        ("qat_ceag", "qat", "test_accuracy", ("no less accurate on test", "less accurate"), 1, -ALLOWED_LOSS),
        ("qat_accuracy_gap", "qat", "test_loss", kind, -1, 0.0),
        ("rounding_ceag", "rounding", "test_gap", kind, -1, 0.0),
    ]
    for name in study.values(records, "data_set"):
        where = f"{bound_holds.title(name)}, {{}} bits".format
        found += [
            study.Claim(method, peer, column, words, good, margin=margin, at=("bits",), among={"data_set": name},
                        of="method", over=("split", "seed"), level=where)
            for method, peer, column, words, good, margin in stated if {method, peer} <= there
        ]  # fmt: skip
    return found


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records, there = this.records, study.values(this.records, "method")
    found = rows(records)
    method = report.Name("method", order=METHODS)
    data_set, bits = report.Name("data_set", "data set", bound_holds.title), report.Name("bits")
    points = report.in_points
    columns = {
        "train gap": points("train_gap"), "train loss": points("train_loss"), "test gap": points("test_gap"),
        "test loss": points("test_loss"), "test accuracy": points("test_accuracy"), "changed": points("test_changed"),
        "newly wrong": points("test_newly_wrong"),
    }  # fmt: skip
    counted = {"held": report.counted("held"), "and accurate": report.counted("joint"), "lost": points("lost")}
    asked = [r for r in found if r["asked"]]
    held = " ".join(
        f"Where the last of training without a bound exceeds {report.points(config.tolerance)} points of {what} on "
        "train, at most that much is reached by " + "; ".join(
            f"{name} in {sum(r['held'] for r in mine)} of {len(mine)}, accurate {sum(r['joint'] for r in mine)}"
            for name in there if name != "qat_last" and (name in OF_LOSS) == (what == "loss")
            and (mine := study.chosen(asked, method=name))
        ) + "."
        for what in ("excess gap", "loss")
        if any((r["method"] in OF_LOSS) == (what == "loss") for r in asked if r["method"] != "qat_last")
    )  # fmt: skip
    drawn = [r | {"seed": f"{r['split']}/{r['seed']}"} for r in records]
    panels = [
        [
            figures.Panel(
                report.lines(study.chosen(drawn, data_set=name), column, along="bits"), bound_holds.title(name), label
            )
            for column, label in (("train_gap", "gap on train (points)"), ("test_gap", "gap on test (points)"))
        ]
        for name in study.values(records, "data_set")
    ]
    told = [
        report.Shown(
            "table", report.table(records, [data_set, bits, method], columns), "Every way to few bits, all networks.",
            "In points, mean and half-width of the 95 % t interval over splits and seeds. Gap: the most that a group "
            "loses more than everybody does; loss: the most that a group loses; newly wrong: of the group with most.",
            numbers=pd.DataFrame(records), title="in points, mean ± 95 % over splits and seeds",
        ),
    ]  # fmt: skip
    if asked:
        told.insert(0, report.Shown(
            "asked", report.table(asked, [bits, method], counted | columns), "Where something is asked of a bound.",
            "Networks whose last iterate of training without a bound violates it on train. Held: met on train. "
            f"Accurate: at most {100 * ALLOWED_LOSS:g} points of accuracy on train lost against it.",
        ))  # fmt: skip
    seeds = len({(r["split"], r["seed"]) for r in records})
    report.study(
        this, prog="experiments.bits_under_bound", title="Few bits under a bound",
        subtitle="Whether a bound on each group holds at few bits, what it costs, and what new people see of it",
        found=[
            f"{len(records)} networks, of {seeds} dense ones a data set; {sum(r['failed_at'] >= 0 for r in records)} "
            f"with an infinite loss. {held or 'Without a bound none violates it, so that nothing is asked of one.'}",
            *(study.judge(records, claim) for claim in claims(records)),
        ],
        drawn=[report.Drawn(
            "bits", figures.levels(panels, methods=[m for m in METHODS if m in there], along="bits a weight"),
            "The largest gap of a group. Means and 95 % intervals over splits and seeds.",
            alt="largest gap on train and test by bits; the numbers are in the table",
        )],
        shown=told,
        done=[f"{name}: {words}." for name, words in IN_WORDS.items() if name in there],
        paragraphs=["Delivered under a bound, and for qat, is the most accurate network of the last epochs that met "
                    "the bound on train, else the one that violates it least."],
    )  # fmt: skip


main = flags.entry(run, Config, prog="bits_under_bound")


if __name__ == "__main__":
    main()
