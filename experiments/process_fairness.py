"""Process fairness: what a network reads, whether leaving features out in turn helps, and what pruning does to it.

    .venv/bin/python -m experiments.process_fairness

trains networks on UCI Adult, of whose features race and sex are sensitive, and asks of each how much of what moves its
scores is theirs: their share of the mean absolute Shapley values of the 13 attributes, exact over all 8,192 coalitions.
Two questions. Does FixOut's ensemble (one network without race, one without sex, one without both; probabilities
averaged) lean less on them, at no loss of accuracy, and on what does it lean instead? And does a network lean more on
them when it is pruned?

Every seed is another split of Adult and another initialisation. Peers make the questions fair: `ensemble` is as many
networks that read everything, so what FixOut gains beyond it comes from leaving out; `longer` is the network trained
for as long again as the pruned one, with the same schedule. Relationship and marital status stand in for sex (husband,
wife): what they move is watched too. Nothing is tuned; one half decides; test is only measured and explained.

What was found on ten splits, in points, with 95 % intervals of paired differences: FixOut's ensemble is 4.9 ± 0.8 less
dependent on race and sex than a network, whose share is 7.2. It keeps a third, as the linearity of Shapley values says.
It is 0.18 ± 0.13 more accurate, but not more than three networks that read everything (0.04 ± 0.10), and little more
than one without race and sex (0.12 ± 0.09), whose share is 0. Relationship and marital status move its scores by 1.0 ±
0.3 more, of 11.4, and men are predicted to earn more than women are as often as before (-0.1 ± 0.6, of 18.3): to read
less is not to decide otherwise. FixOut's rule finds fault with the network in 3 splits of 10: the k of the kurtosis
jumps between 2 and 9, and so does the verdict when people are drawn again. That networks pruned to 95 % lean more on
race and sex than those trained as long does not show (-0.7 ± 1.6). They differ more: two of ten hardly read sex at all.

Ten splits take 7 CPU minutes. It writes `runs/process_fairness/<id>/`: config.json, records.jsonl (one line per
classifier; the same command goes on where a killed run stopped), tables, a figure, report.html.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfair import data, metrics, models, recipes, report, study, train
from jaxfair.cli import flags
from jaxfair.report import figures

SENSITIVE, STAND_INS = ("race", "sex"), ("relationship", "marital-status")
#: What each of the networks that are trained together lacks; two more come from the first.
LACKING = ((), (), (), ("race",), ("sex",), SENSITIVE)
#: Of which of them a classifier is made: the mean of their probabilities.
MEMBERS = {
    "network": (0,), "ensemble": (0, 1, 2), "without": (5,), "fixout": (3, 4, 5), "longer": (6,), "pruned": (7,)
}  # fmt: skip
IN_WORDS = {
    "network": "one network that reads everything",
    "ensemble": "three of them, probabilities averaged",
    "without": "one network without race and sex",
    "fixout": "FixOut: one without race, one without sex, one without both; probabilities averaged",
    "longer": "the network, trained for as long again as the pruned one, with the same schedule",
    "pruned": "the network, pruned gradually by magnitude and trained on",
}
METHODS = tuple(IN_WORDS)
NAMES = ("dataset", "method", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    """What networks on Adult read, with and without FixOut and pruning."""

    # how many splits and initialisations
    seeds: int = flags.one(10, low=1, high=10_000)
    # of network, ensemble, without, fixout, longer, pruned
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # share of zeros of the pruned network
    sparsity: float = flags.one(0.95, above=0, below=1)
    # widths of the hidden layers
    hidden: tuple[int, ...] = flags.several((32, 32), int, low=1)
    # of training, at most; it ends when the validation loss has not fallen for three
    epochs: int = flags.one(20, low=1)
    # of pruning and training on
    prune_epochs: int = flags.one(10, low=1)
    # examples a step
    batch_size: int = flags.one(128, low=1)
    # examples of the training split that are used; 0 is all
    max_train: int = flags.one(0, low=0)
    # people of the test split whose scores are explained
    explained: int = flags.one(100, low=1)
    # people of the training split whose values stand in for those that a coalition lacks
    background: int = flags.one(30, low=1)
    # pairs of orders per person, in place of all coalitions; 0 takes all
    pairs: int = flags.one(0, low=0)
    # the run goes into a folder in here
    runs_dir: str = "runs/process_fairness"
    # name of that folder; a hash of the settings by default
    id: str = ""


def load(config: Config, seed: int) -> data.Dataset:
    """Adult in the split of a seed."""
    adult = data.load("adult", groups=("sex",), split_seed=seed)
    if not config.max_train:
        return adult
    return dataclasses.replace(adult, train=data.sample(adult.train, config.max_train, seed=seed))


@functools.cache
def alone(config: Config, columns: int) -> Any:
    """The network, as an ensemble of one, in the form that all members have."""
    return recipes.pool(models.mlp(2, hidden=config.hidden), np.ones((1, columns), bool))


@functools.cache
def reader(model: Any, player: tuple[int, ...], pairs: int) -> Any:
    """``read(network, test, people, others, key)``: of the second class, probabilities ``[N]`` and values ``[n, P]``.

    Compiled once for all networks of all seeds.
    """

    def read(network: Any, test: Any, people: Any, others: Any, key: Any) -> Any:
        def score(x: Any) -> Any:
            return jnp.exp(model.apply(*network, x, train=False)[0][:, 1])

        options = {"pairs": pairs, "key": key} if pairs else {}
        return score(test), metrics.shapley(score, people, others, player=player, **options).values

    return jax.jit(read)


def trained(config: Config, adult: data.Dataset, methods: Sequence[str], seed: int) -> list[Any]:
    """The single networks, of parameters and a state each, by their places in `MEMBERS`."""
    quiet: dict[str, Any] = {"batch_size": config.batch_size, "progress": False}
    found = recipes.ensemble(
        models.mlp(2, hidden=config.hidden), adult, LACKING, seeds=[seed], epochs=config.epochs, patience=3, **quiet
    )
    single = [
        jax.tree.map(lambda a, i=i: a[:, i : i + 1], (found.params, found.model_state)) for i in range(len(LACKING))
    ]
    model = alone(config, adult.train.x.shape[1])
    begin = recipes.networks(*single[0], several=True, model=model)
    for method, sparsity in {"longer": 0.0, "pruned": config.sparsity}.items():
        if method in methods:
            more = recipes.prune(
                model, adult, begin, sparsity=sparsity, key=seed, epochs=config.prune_epochs, **quiet
            )  # fmt: skip
            single.append((more.params, more.model_state))
        else:
            single.append(None)
    return single


def measured(config: Config, seed: int, methods: Sequence[str]) -> list[dict[str, Any]]:
    """The records of a seed, one for each method."""
    adult, took = load(config, seed), study.clock()
    single = trained(config, adult, methods, seed)
    found, key, test = metrics.players(adult.feature_names), jax.random.key(seed), adult.test
    people, others = (
        data.sample(split, number, seed=seed).x
        for split, number in ((test, config.explained), (adult.train, config.background))
    )
    read = reader(alone(config, test.x.shape[1]), tuple(found.player.tolist()), config.pairs)
    used = sorted({member for method in methods for member in MEMBERS[method]})
    said = {i: jax.tree.map(np.asarray, read(train.take(single[i], 0), test.x, people, others, key)) for i in used}
    records = []
    for method in methods:
        # Shapley values are linear in the score: those of an ensemble are the mean of its members'.
        probability, values = (np.mean(part, axis=0) for part in zip(*(said[i] for i in MEMBERS[method]), strict=True))
        lean = metrics.leaning(values, [name in SENSITIVE for name in found.names], key=key)
        share = dict(zip(found.names, lean.share.tolist(), strict=True))
        size = dict(zip(found.names, lean.importance.tolist(), strict=True))
        label = (probability > 0.5).astype(np.int32)
        rate = metrics.selection_rate(label, test.group, adult.num_groups)
        records.append({
            "accuracy": float(metrics.accuracy(label, test.y)),
            "sensitive": lean.sensitive,
            "sensitive_low": lean.sensitive_low,
            "sensitive_high": lean.sensitive_high,
            "moved_by_sensitive": sum(size[name] for name in SENSITIVE),
            "moved_by_stand_ins": sum(size[name] for name in STAND_INS),
            "k": lean.k,
            "leans": bool(lean.leans),
            "certainty": lean.certainty,
            "selection_gap": float(metrics.disparity(rate)),
            **{f"share_{name}": value for name, value in share.items()},
            **{f"rank_{name}": lean.rank[found.names.index(name)].item() for name in SENSITIVE},
        })  # fmt: skip
    spent = took()
    return [record | {name: value / len(methods) for name, value in spent.items()} for record in records]


def run(config: Config) -> None:
    """Trains and explains what is not yet recorded, and writes the page."""
    wanted = study.grid(dataset=("adult",), seed=range(config.seeds), method=config.methods)
    with study.opened(config, NAMES, grows=("methods", "seeds")) as this:
        for shared, cells in this.missing(wanted, together=("dataset", "seed")):
            methods = [cell["method"] for cell in cells]
            for cell, numbers in zip(cells, measured(config, shared["seed"], methods), strict=True):
                this.record(cell, numbers)
        tell(this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen: of FixOut beside one network and beside as many, and of pruning."""
    less = ("less dependent on race and sex", "more dependent on them")
    reads_more = ("more dependent on race and sex", "less dependent on them")
    as_good = ("no less accurate", "less accurate")
    same = ("no more dependent on relationship and marital status", "more dependent on them")
    more: dict[str, Any] = {"at": ("dataset",), "level": str.title}
    wanted = [
        study.Claim("fixout", "network", "sensitive", less, -1, **more),
        study.Claim("fixout", "network", "accuracy", as_good, 1, margin=-0.003, **more),
        study.Claim("fixout", "ensemble", "sensitive", less, -1, **more),
        study.Claim("fixout", "ensemble", "accuracy", as_good, 1, margin=-0.003, **more),
        study.Claim("fixout", "ensemble", "moved_by_stand_ins", same, -1, margin=-0.01, **more),
        study.Claim("pruned", "longer", "sensitive", reads_more, 1, **more),
    ]
    there = set(study.values(records, "method"))
    return [claim for claim in wanted if {claim.method, claim.peer} <= there]


def shares(records: Sequence[Any]) -> pd.DataFrame:
    """A row per attribute, the largest first; a column per method."""
    names = [name for name in records[0] if name.startswith("share_")]
    names.sort(key=lambda name: -np.mean([r[name] for r in records]))
    there = {m: study.chosen(records, method=m) for m in METHODS if study.chosen(records, method=m)}
    cells = {m: [report.in_points(name, digits=1)(mine) for name in names] for m, mine in there.items()}
    return pd.DataFrame({"attribute": [name.removeprefix("share_") for name in names], **cells})


def tell(this: study.Run) -> None:
    """The page."""
    records, there = this.records, study.values(this.records, "method")
    names = [report.Name("method", order=METHODS)]
    columns = {
        "accuracy": report.in_points("accuracy"),
        "race and sex": report.in_points("sensitive"),
        "race": report.in_points("share_race"),
        "sex": report.in_points("share_sex"),
        "by stand-ins": report.in_points("moved_by_stand_ins"),
        "rank of race": report.number("rank_race", ".1f"),
        "rank of sex": report.number("rank_sex", ".1f"),
        "leans": report.counted("leans"),
        "selection gap": report.in_points("selection_gap"),
    }
    compared = {
        "accuracy": "accuracy", "race and sex": "sensitive", "moved by stand-ins": "moved_by_stand_ins",
        "selection gap": "selection_gap",
    }  # fmt: skip
    peers = {"fixout": ["network", "ensemble", "without"], "pruned": ["longer", "network"], "without": ["network"]}
    paired = report.paired_table(records, names, compared, peers=lambda method: peers.get(method, []))
    drawn = figures.frontier(
        {"Adult": report.pairs(records, "sensitive", "accuracy", along="dataset")},
        x="share of importance that is race's and sex's (%)", y="accuracy on test (%)",
    )  # fmt: skip
    drawn.axes[0].set_xlim(left=-0.3)  # who reads nothing of them is not on the frame
    seconds = sum(r["cpu_seconds"] for r in records)
    pairs = this.settings["pairs"]
    summary = (
        f"{len(study.values(records, 'seed'))} splits of UCI Adult. The scores of {this.settings['explained']} people "
        f"on test were explained by Shapley values of 13 attributes, "
        f"{f'sampled by {pairs} pairs' if pairs else 'exact'}, against {this.settings['background']} people of the "
        "training split."
    )
    report.study(
        this,
        prog="experiments.process_fairness",
        title="What a network reads",
        subtitle="FixOut, and pruning, on UCI Adult",
        found=[summary, *(study.judge(records, claim) for claim in claims(records))],
        drawn=[report.Drawn(
            "reading", drawn,
            "Left is less of race and sex, up is more accurate. Bars are 95 % intervals over splits, which differ more "
            "than the classifiers do: these are compared split by split in the second table.",
            alt="accuracy against the share of importance of race and sex; the numbers are in the table",
        )],
        shown=[
            report.Shown(
                "table", report.table(records, names, columns), "Every classifier.",
                "Accuracy, shares of importance and gap in points on test; mean and half-width of the 95 % t interval "
                "over splits. Race and sex: their share of the mean absolute Shapley values of all attributes. By "
                "stand-ins: these values of relationship and marital status, in points of probability. Leans: in how "
                "many splits race or sex is among the k most important attributes, k chosen by the kurtosis. Selection "
                "gap: between men and women, of being predicted to earn more.",
                numbers=pd.DataFrame(records), title="in points, mean ± 95 % over splits",
            ),
            report.Shown(
                "paired", paired, "Paired differences on the same splits, in points.",
                "An interval without 0 is a difference.",
            ),
            report.Shown("shares", shares(records), "What each classifier reads: shares of importance, in points."),
        ],
        done=[f"{name}: {words}." for name, words in IN_WORDS.items() if name in there],
        paragraphs=[
            *(__doc__ or "").replace("`", "").split("\n\n")[3:4],
            f"Training and explaining took {seconds:,.0f} CPU seconds in all.",
        ],
    )  # fmt: skip


main = flags.entry(run, Config, prog="process_fairness")


if __name__ == "__main__":
    main()
