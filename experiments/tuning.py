"""Whether it is worth it to choose learning rate and dual rate, and whether a search does it better than a grid.

    .venv/bin/python -m experiments.tuning

prunes a network under a bound on each group, with settings that are chosen on validation: by `recipes.tuned`, by a grid
of as many settings, by as many random ones; and with the recipe's own. All are measured on test, where nothing was
chosen. A setting is allowed where the bound was met on train.

Every seed has dense networks, a search and random settings of its own; the grid is the same for all. It writes
`runs/tuning/<id>/`: config.json, records.jsonl (one line per method and seed; the same command goes on where a killed
run stopped), table.md and .csv, a figure, report.html.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxfair import data, metrics, models, recipes, report, search, study
from jaxfair.cli import flags
from jaxfair.report import figures

IN_WORDS = {
    "default": "the recipe's own settings: one run",
    "search": "settings one after another, each where improvement is most to be expected; the first is the default",
    "grid": "a grid of learning rates and dual rates",
    "random": "settings at random",
}
METHODS = tuple(IN_WORDS)
DATASETS = ("adult", "planted", "digits")
NAMES, GROWS = ("dataset", "method", "seed"), ("datasets", "methods", "seeds")
START = {"learning_rate": [0.05], "travel": [recipes.TRAVEL]}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings chosen on validation, measured on test."""

    # of adult, planted, digits
    datasets: tuple[str, ...] = flags.several(("adult", "planted"), of=DATASETS)
    # of default, search, grid, random
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # of everything
    seeds: int = flags.one(5, low=1, high=10_000)
    # settings that a method may play
    budget: int = flags.one(12, low=1)
    # networks a setting
    networks: int = flags.one(2, low=1)
    # people of the training split
    max_train: int = flags.one(3000, low=50)
    # units of the hidden layer
    hidden: int = flags.one(32, low=1)
    # share of zeros
    sparsity: float = flags.one(0.95, low=0, below=1)
    # on what a group may lose beyond what all lose
    tolerance: float = flags.one(0.01, low=0, below=1)
    # of the dense networks, and of pruning and fine-tuning
    dense_epochs: int = flags.one(10, low=1)
    epochs: int = flags.one(20, low=2)
    # the run goes into a folder in here
    runs_dir: str = "runs/tuning"
    # name of that folder; a hash of the settings by default
    id: str = ""


def load(config: Config, name: str) -> data.Dataset:
    """The data, of the training split some people."""
    if name == "planted":
        whole = data.planted(key=jax.random.key(5), num_train=config.max_train * 3 // 2, split_seed=0)
    else:
        whole = data.load(name)
    return dataclasses.replace(whole, train=data.sample(whole.train, config.max_train, seed=0))


def settings_of(method: str, budget: int, seed: int) -> dict[str, list[float]]:
    """What is played first; of all but the search that is everything."""
    if method in ("default", "search"):
        return START
    if method == "random":
        cube = np.random.default_rng(seed).uniform(size=(budget, len(START)))
    else:
        across = max(1, round(budget**0.5))
        rates = -(-budget // across)
        axes = np.meshgrid((np.arange(rates) + 0.5) / rates, (np.arange(across) + 0.5) / across, indexing="ij")
        cube = np.stack([axis.ravel() for axis in axes], -1)[:budget]
    return {name: column.tolist() for name, column in search.decoded(recipes.OVER, cube).items()}


def measured(config: Config, dataset: data.Dataset, dense: recipes.Networks, cell: study.Cell) -> dict[str, Any]:
    """The record of a method."""
    model, began = models.mlp(dataset.num_classes, hidden=(config.hidden,)), time.perf_counter()

    def play(setting: dict[str, Any]) -> recipes.Networks:
        return recipes.prune(
            model, dataset, dense, sparsity=config.sparsity, epochs=config.epochs, key=cell["seed"], progress=False,
            bound=recipes.ceag(config.tolerance, travel=setting["travel"]), learning_rate=setting["learning_rate"],
        )  # fmt: skip

    first = settings_of(cell["method"], config.budget, cell["seed"])
    found = recipes.tuned(
        play, recipes.OVER, dataset, dense, bound=recipes.ceag(config.tolerance), start=first, key=cell["seed"],
        budget=config.budget if cell["method"] == "search" else len(first["travel"]),
    )  # fmt: skip
    before, after, y = dense.predict(dataset.test), found.networks.predict(dataset.test), np.asarray(dataset.test.y)
    right = [[np.asarray(metrics.correct(label, y)) for label in of] for of in (before, after)]
    group, count = np.asarray(dataset.test.group), dataset.num_groups
    gaps = [metrics.accuracy_gaps(a, b, group, count).max_excess for a, b in zip(*right, strict=True)]
    return {
        "accuracy": float(np.mean(right[1])), "dense": float(np.mean(right[0])), "gap": float(np.mean(gaps)),
        "validation": float(found.accuracy[found.row]), "met": found.met, **found.chosen,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def run(config: Config) -> None:
    """Plays what is not yet recorded, and writes the page."""
    wanted = study.grid(dataset=config.datasets, seed=range(config.seeds), method=config.methods)
    of = functools.cache(functools.partial(load, config))
    with study.opened(config, NAMES, grows=GROWS) as this:
        for shared, cells in this.missing(wanted, together=("dataset", "seed")):
            dataset = of(shared["dataset"])
            first = shared["seed"] * config.networks
            dense = recipes.dense(
                models.mlp(dataset.num_classes, hidden=(config.hidden,)), dataset, progress=False,
                seeds=range(first, first + config.networks), epochs=config.dense_epochs,
            )  # fmt: skip
            for cell in cells:
                this.record(cell, measured(config, dataset, dense, cell))
        tell(this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of the search."""
    there = set(study.values(records, "method"))
    return [
        study.Claim("search", peer, column, words, good, at=("dataset",), level=str)
        for peer in ("default", "grid", "random")
        for column, words, good in (
            ("accuracy", ("more accurate on test", "less accurate on test"), 1),
            ("gap", ("kinder to the group that loses most", "harder on it"), -1),
        )
        if {"search", peer} <= there
    ]


def tell(this: study.Run) -> None:
    """The page."""
    records, there = this.records, study.values(this.records, "method")
    names = [report.Name("dataset", order=DATASETS), report.Name("method", order=METHODS)]
    columns = {
        "accuracy": report.in_points("accuracy"),
        "largest gap": report.in_points("gap"),
        "on validation": report.in_points("validation"),
        "bound met": lambda rows: f"{sum(r['met'] for r in rows)} of {len(rows)}",
        "learning rate": report.number("learning_rate", ".3f", of=np.median),
        "travel": report.number("travel", ".1f", of=np.median),
        "seconds": report.number("seconds", ".0f", of=np.median),
    }
    panels = [
        figures.Panel(report.lines(records, column, along="dataset"), title, label)
        for column, title, label in (
            ("accuracy", "accuracy", "accuracy on test (%)"), ("gap", "who pays", "largest excess gap (points)"),
        )
    ]  # fmt: skip
    budget = this.settings["budget"]
    report.study(
        this,
        prog="experiments.tuning",
        title="Settings chosen on validation",
        subtitle="A search, a grid and chance, at equal cost",
        found=[
            f"{len(study.values(records, 'seed'))} seeds; each method but the default plays {budget} settings of the "
            "learning rate and of how far a multiplier can go.",
            *(study.judge(records, claim) for claim in claims(records)),
        ],
        drawn=[report.Drawn(
            "levels", figures.levels([panels], methods=METHODS, along="", say=str),
            "On test, with 95 % intervals over seeds.", alt="accuracy and largest gap; the numbers are in the table",
        )],
        shown=[report.Shown(
            "table", report.table(records, names, columns), "Every method with the setting that it chose.",
            "Accuracy and largest excess gap in points on test; mean and half-width of the 95 % t interval over seeds. "
            "On validation: what was chosen by, and so too good. Bound met: on train.",
            numbers=pd.DataFrame(records), title="in points, mean ± 95 % over seeds",
        )],
        done=[f"{name}: {words}." for name, words in IN_WORDS.items() if name in there],
        paragraphs=["Allowed are settings whose networks all met the bound on train; where none is, the least excess."],
    )  # fmt: skip


main = flags.entry(run, Config, prog="tuning")


if __name__ == "__main__":
    main()
