"""Whether memorising hides bias, as the formulas say, and whether pruning forgets the memorised first.

    .venv/bin/python -m experiments.memorisation

trains populations of networks, each on a random part of a small training split: wide ones for long, which can learn
people by heart, wide ones for a short time, and narrow ones for long, which cannot. Who is memorised is what a network
gets right only if it was trained on them (`metrics.memorisation`). From who is memorised, and what is said of those who
are not, the formulas of `metrics.memorised_bias` predict the gaps between two groups on the people that a network was
trained on. Everything in the prediction comes from one half of the networks, and is compared with the other half.

Data are a planted minority that looks like the other class, and Adult, whose group is women.

Found with the defaults, five seeds, in a minute of one core:

- Train deceives. A wide network is right about all of planted whom it saw, so that there is no gap among the positives;
  on new people the minority is 14 ± 5 points behind. On Adult the gap turns: women are 3.5 ± 0.7 ahead on train, and
  11 ± 6 behind on test. To train for long does no harm on test: stopped early, the minority is 44 behind, women 17.
- The formula goes the right way. Of the wide networks' 13 points among unseen people of planted it leaves 8, where
  none is: many are memorised in part, which a threshold does not see. On Adult it predicts the turn, 6 ± 4.
- At 90 % zeros a network forgets 10 % (planted) and 8 % (Adult) of the memorised that it was right about, and less than
  1 % of the others; at 50 % hardly anybody. Those of the minority, and women, it forgets *less* often than those of the
  other group (1 beside 12 %, 3 beside 9 %): we had claimed the opposite.

It writes `runs/memorisation/<id>/`: config.json, records.jsonl (one line per population; the same command goes on where
a killed run stopped), tables, a figure, report.html.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pandas as pd

from jaxfair import data, metrics, models, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch

SETTINGS = {
    "a wide network": "can memorise: --width units, --epochs",
    "a wide network stopped early": "the same, after --short epochs",
    "a narrow network": "cannot: --narrow units, --epochs",
}
LONG, SHORT, NARROW = SETTINGS
IN_SHORT = {LONG: "wide", SHORT: "stopped early", NARROW: "narrow"}
DENSE = "dense"
GROUPS = {"planted": ("the majority", "the minority"), "adult": ("men", "women")}
GAPS = {"parity": "P(positive)", "opportunity": "P(positive | positive)", "odds": "the larger of both errors"}
FORGOTTEN = {
    "forgotten_memorised": "a memorised person",
    "forgotten_others": "another person",
    "forgotten_memorised_1": "a memorised person of group 1",
    "forgotten_memorised_0": "a memorised person of group 0",
}
FORMULA, SHARES, NOBODY = "the formula", "the formula in shares", "the gap of unseen people"
NAMES = ("data", "setting", "zeros", "seed")
LOSS = train.loss_meter()  # one for all, or each training is compiled anew
memorisation, memorised_bias = jax.jit(metrics.memorisation), jax.jit(metrics.memorised_bias)
group_memorisation = jax.jit(metrics.group_memorisation, static_argnames="num_groups")


@dataclasses.dataclass(frozen=True)
class Config:
    """What networks memorise, what it does to bias, and what pruning forgets."""

    data_sets: tuple[str, ...] = flags.several(("planted", "adult"), of=GROUPS)  # of planted, adult
    seeds: int = flags.one(5, low=1, high=10_000)  # how many draws of data and population
    networks: int = flags.one(24, low=4, high=65_000)  # in a population
    people: int = flags.one(1000, low=20)  # people in the training split
    share: float = flags.one(0.6, above=0, below=1)  # of them that a network sees
    minority: float = flags.one(0.1, above=0, below=1)  # of planted: the minority's share
    # of planted: how far the classes are apart; the best network is right about Phi of it
    separation: float = flags.one(1.5, above=0)
    # hidden units of the networks that can memorise; and of those that cannot
    width: int = flags.one(128, low=1, high=65_000)
    narrow: int = flags.one(2, low=1, high=65_000)
    # passes; and of those that are stopped early
    epochs: int = flags.one(60, low=1)
    short: int = flags.one(4, low=1)
    # passes in which networks are pruned, and trained on
    prune_epochs: int = flags.one(20, low=2)
    # shares of zeros
    sparsities: tuple[float, ...] = flags.several((0.5, 0.9), float, above=0, below=1)
    batch_size: int = flags.one(50, low=1)  # examples a step
    # of adam, sgd (with momentum 0.9), and its step size
    optimizer: str = flags.one("adam", of=("adam", "sgd"))
    learning_rate: float = flags.one(0.003, above=0)
    # a person is memorised whose score is above this
    memorised: float = flags.one(0.5, low=0, below=1)
    runs_dir: str = "runs/memorisation"  # the run goes into a folder in here
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """A step is no more than all people."""
        if self.batch_size > self.people:
            raise flags.UsageError(f"--batch_size={self.batch_size}: give at most --people={self.people}")


# --- the networks --------------------------------------------------------------------------------------------------


class Population(NamedTuple):
    """What K networks say of ``train`` and ``test``, ``[K, N]``, and who was in whose training set, ``[K, N]``."""

    train: np.ndarray
    test: np.ndarray
    told: np.ndarray


def load(config: Config, name: str, seed: int) -> tuple[Batch, Batch]:
    """Train and test, with group 1 the minority, or women."""
    if name == "adult":
        adult = data.load("adult", groups="sex", split_seed=seed)
        women = adult.group_names.index("Female")
        parts = [data.sample(adult.train, config.people, seed=seed), adult.test]
        split, test = (part._replace(group=(part.group == women).astype(np.int32)) for part in parts)
        return split, test
    key = jax.random.fold_in(jax.random.key(7), seed)
    how: dict[str, Any] = {"num_train": config.people, "minority": config.minority, "separation": config.separation}
    people = data.planted(key=key, num_validation=100, num_test=6000, minority_test=3000, **how)
    return people.train, people.test


@functools.cache
def network(width: int) -> Any:
    """One hidden layer."""
    return models.mlp(2, hidden=(width,))


@functools.cache
def order_of(**sizes: int) -> Any:
    """The examples of each step, compiled once."""
    return lambda key, epoch: train.epoch_order(jax.random.fold_in(key, 1), epoch, **sizes)


@functools.cache
def solver_of(model: Any, optimizer: str, rate: float, steps: int, share: float) -> Any:
    """Compiled once for all seeds; with a share of zeros it prunes until half of the steps are done."""
    tx = optax.adam(rate) if optimizer == "adam" else optax.sgd(rate, momentum=0.9)
    if share:
        schedule = sparsity.polynomial(share, begin=0, end=steps // 2, every=max(1, steps // 40))
        tx = sparsity.prune(tx, schedule, prunable=model.prunable)
    return train.descent(model.apply, tx)


@functools.cache
def starter(model: Any) -> Any:
    """Fresh networks from keys."""
    return jax.jit(jax.vmap(lambda key, x: model.init(jax.random.fold_in(key, 0), x), (0, None)))


@functools.cache
def predictor(model: Any) -> Any:
    """What networks side by side say."""
    return train.predictor(model.apply, train.Plan())


def trained(
    config: Config, width: int, epochs: int, splits: tuple[Batch, Batch], told: np.ndarray, seed: int,
    share: float = 0.0, start: Any = None,
) -> tuple[Population, Any]:  # fmt: skip
    """A population and its networks: fresh ones, or pruned from others that saw the same people."""
    steps = config.people // config.batch_size
    # Without pruning one program does for any length.
    length = steps * epochs if share else 0
    model = network(width)
    solver = solver_of(model, config.optimizer, config.learning_rate, length, share)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), round(1000 * share)), len(told))
    if start is None:
        start = starter(model)(keys, splits[0].x[:1])
    found = train.dense(
        model, splits[0]._replace(weight=told.astype(np.float32)), solver=solver, keys=keys, epochs=epochs,
        batch_size=config.batch_size, num_steps=steps, split_axes=train.SHARED._replace(weight=0), start=start,
        meter=LOSS, order=order_of(num_examples=config.people, batch_size=config.batch_size, num_steps=steps),
    )  # fmt: skip
    said = [np.asarray(predictor(model)(found.params, found.model_state, split).label) for split in splits]
    return Population(*said, told), (found.params, found.model_state)


def populations(config: Config, name: str, seed: int) -> dict[tuple[str, str], dict[str, Any]]:
    """The numbers of every population of a seed, by setting and zeros."""
    splits = load(config, name, seed)
    told = np.random.default_rng(seed).random((config.networks, config.people)) < config.share
    found, rows = {}, {}
    for setting in SETTINGS:
        width, epochs = (config.width, config.epochs)
        width, epochs = {SHORT: (width, config.short), NARROW: (config.narrow, epochs)}.get(setting, (width, epochs))
        found[setting] = trained(config, width, epochs, splits, told, seed)
        rows[setting, DENSE] = measured(config, found[setting][0], splits)
    dense, start = found[LONG]
    known = np.nan_to_num(np.asarray(memorisation(dense.train, splits[0].y, told).score)) > config.memorised
    for share in config.sparsities:
        pruned, _ = trained(config, config.width, config.prune_epochs, splits, told, seed, share, start)
        row = measured(config, pruned, splits) | forgotten(dense, pruned, splits[0], known)
        rows[LONG, named(share)] = row
    return rows


def named(share: float) -> str:
    """A share of zeros as the records have it."""
    return f"{100 * share:g} % zeros"


# --- what is measured ----------------------------------------------------------------------------------------------


def rates(said: np.ndarray, split: Batch, among: np.ndarray) -> np.ndarray:
    """``[2, 2, 2]`` how often each class is said, by group and class, of some of the pairs of network and person."""
    cell = np.broadcast_to(4 * split.group + 2 * split.y, said.shape) + said
    counts = np.bincount(cell[among & (said >= 0)], minlength=8).reshape(2, 2, 2)
    return counts / np.maximum(counts.sum(-1, keepdims=True), 1)


def gaps(people: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """The three gaps, group 1 less group 0, of people ``[D, 2, 2]`` and of what is said of those with D = 0."""
    found = memorised_bias(people, said)
    odds = np.asarray(found.odds)
    errors = np.array([odds[0, 1], odds[1, 0]])
    return {
        "parity": float(found.parity[1]),
        "opportunity": float(found.opportunity[1]),
        "odds": float(np.abs(errors).max()),
    }


def measured(config: Config, population: Population, splits: tuple[Batch, Batch]) -> dict[str, Any]:
    """Who is memorised, the gaps on train and on others, and what the formulas say of those on train."""
    (said, new, told), (split, test) = population, splits
    score = memorisation(said, split.y, told)
    of_groups = group_memorisation(said, split.y, told, split.group, num_groups=2)
    half = np.arange(len(told)) % 2 == 0  # whose networks predict; the others are predicted
    mine = memorisation(said[half], split.y, told[half])
    known = np.nan_to_num(np.asarray(mine.score)) > config.memorised
    cells = 2 * split.group + split.y
    people = np.bincount(cells, minlength=4).reshape(2, 2)
    kept = np.stack([np.bincount(cells[known == d], minlength=4).reshape(2, 2) for d in (False, True)])
    nobody = np.stack([people, 0 * people])
    base = rates(said[half], split, ~told[half])
    others = rates(said[half], split, ~told[half] & ~known)
    # In shares: what of a cell has to be memorised for its accuracy inside, of those who are right about it outside.
    inside = rates(said[half], split, told[half])
    right = [np.diagonal(rate, axis1=1, axis2=2) for rate in (inside, base)]
    share = np.clip((right[0] - right[1]) / np.maximum(1 - right[1], 1e-9), 0, 1)
    predicted = {
        FORMULA: gaps(kept, others),
        SHARES: gaps(np.stack([(1 - share) * people, share * people]), base),
        NOBODY: gaps(nobody, base),
    }
    seen = gaps(nobody, rates(said[~half], split, told[~half]))
    row: dict[str, Any] = {
        "accuracy_train": float((said == split.y)[told].mean()),
        "accuracy_test": float((new == test.y).mean()),
        "memorised": float(np.mean(np.nan_to_num(np.asarray(score.score)) > config.memorised)),
    }
    for a in (0, 1):
        row |= {f"score_{a}": float(of_groups.mean[a]), f"score_error_{a}": float(of_groups.error[a])}
    mass = metrics.memorised_mass(people, base)
    row["least_mass"] = float(mass.opportunity_least[1])
    row["mass"] = float(known[split.y == 1].sum() / len(known))
    tested = gaps(nobody, rates(new, test, np.ones(new.shape, bool)))
    for gap in GAPS:
        row |= {f"{gap}_train": seen[gap], f"{gap}_test": tested[gap]}
        row |= {f"{gap}_size_train": abs(seen[gap]), f"{gap}_size_test": abs(tested[gap])}
        row |= {f"{gap} by {by}": found[gap] for by, found in predicted.items()}
        row |= {f"{gap} error of {by}": abs(found[gap] - seen[gap]) for by, found in predicted.items()}
    return row


def forgotten(dense: Population, pruned: Population, split: Batch, known: np.ndarray) -> dict[str, float]:
    """Of those whom a network saw and was right about, the share about whom its pruned one is wrong."""
    before, after = dense.train == split.y, pruned.train == split.y
    parts = {"memorised": known, "others": ~known}
    parts |= {f"memorised_{a}": known & (split.group == a) for a in (0, 1)}
    parts |= {f"others_{a}": ~known & (split.group == a) for a in (0, 1)}
    found = {}
    for name, part in parts.items():
        there = before & dense.told & part
        if there.any():  # else there is nobody to forget
            found[f"forgotten_{name}"] = float((there & ~after).sum() / there.sum())
    return found


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the page."""
    seeds = range(config.seeds)
    wanted = study.grid(data=config.data_sets, seed=seeds, setting=SETTINGS, zeros=[DENSE])
    wanted += study.grid(data=config.data_sets, seed=seeds, setting=[LONG], zeros=map(named, config.sparsities))
    with study.opened(config, NAMES, grows=("data_sets", "seeds")) as this:
        for shared, cells in this.missing(wanted, together=("data", "seed")):
            found = populations(config, shared["data"], shared["seed"])
            for cell in cells:
                this.record(cell, found[cell["setting"], cell["zeros"]])
        tell(this)


# --- what is claimed -----------------------------------------------------------------------------------------------


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """That who can memorise has smaller gaps on train than who cannot, and on new people no larger ones."""
    found = []
    for name in study.values(records, "data"):
        how: dict[str, Any] = {"good": -1, "of": "setting", "at": ("zeros",), "level": str}
        how["among"] = {"data": name, "zeros": DENSE}
        for peer, where in ((NARROW, "train"), (SHORT, "test")):
            for gap in ("opportunity", "odds"):
                words = tuple(f"of a {size} gap of {gap} on {where}" for size in ("smaller", "larger"))
                found.append(study.Claim(LONG, peer, f"{gap}_size_{where}", words, **how))
    return found


def further(records: Sequence[Any]) -> list[study.Found]:
    """Whether the formula predicts, gaps are smaller on train, and pruning forgets the memorised, of which group."""
    errors, places, lost, found = [], [], [], []
    for r in records:
        names = {name: r[name] for name in NAMES}
        for gap in GAPS:
            errors += [
                names | {"gap": gap, "by": by, "error": r[f"{gap} error of {by}"]} for by in (FORMULA, SHARES, NOBODY)
            ]
            places += [names | {"gap": gap, "where": w, "size": r[f"{gap}_size_{w}"]} for w in ("train", "test")]
        lost += [names | {"who": who, "forgotten": r[column]} for column, who in FORGOTTEN.items() if column in r]
    for name in study.values(records, "data"):
        among: dict[str, Any] = {"data": name, "setting": LONG, "zeros": DENSE}
        for by in (FORMULA, SHARES):
            words = ("nearer to the gap on train", "farther from it")
            claim = study.Claim(by, NOBODY, "error", words, -1, ("gap",), among, of="by", level=str)
            found.append(study.judge(errors, claim))
        words = ("the place of smaller gaps", "the place of larger gaps")
        found.append(
            study.judge(places, study.Claim("train", "test", "size", words, -1, ("gap",), among, of="where", level=str))
        )
        how: dict[str, Any] = {"of": "who", "at": ("zeros",), "level": str, "among": {"data": name}}
        words = ("forgotten more often", "forgotten less often")
        first, others, one, zero = FORGOTTEN.values()
        found += [
            study.judge(lost, study.Claim(*pair, "forgotten", words, **how)) for pair in ((first, others), (one, zero))
        ]
    return found


def by_gap(records: Sequence[Any]) -> list[dict[str, Any]]:
    """A record for each gap, with what it is on train and test, and by each prediction."""
    return [
        {name: r[name] for name in NAMES}
        | {"gap": gap, "train": r[f"{gap}_train"], "test": r[f"{gap}_test"]}
        | {by: r[f"{gap} by {by}"] for by in (FORMULA, SHARES, NOBODY)}
        for r in records
        for gap in GAPS
    ]


def headline(records: Sequence[Any]) -> list[str]:
    """What was seen, in a sentence per data set."""
    said = []
    for name in study.values(records, "data"):
        mine = study.chosen(records, data=name, setting=LONG, zeros=DENSE)
        mean = {c: 100 * np.mean([r[c] for r in mine]) for c in mine[0] if isinstance(mine[0][c], float)}
        said.append(
            f"{name}: a wide network is right about {mean['accuracy_train']:.1f} % of whom it saw and "
            f"{mean['accuracy_test']:.1f} % of new people; {mean['memorised']:.1f} % of all are memorised. Of "
            f"the positives among {GROUPS[name][1]} it recognises {mean['opportunity_train']:+.1f} points more than of "
            f"those among {GROUPS[name][0]} on train, and {mean['opportunity_test']:+.1f} on test."
        )
    return said


def tell(this: study.Run) -> None:
    """The page."""
    records = this.records
    names = [report.Name("data"), report.Name("setting", order=[*SETTINGS]), report.Name("zeros")]
    point = functools.partial(report.in_points, digits=1, lacking="–")
    columns = {
        "accuracy, train": point("accuracy_train"), "test": point("accuracy_test"), "memorised": point("memorised"),
        "score, group 0": point("score_0"), "group 1": point("score_1"),
        "least mass": point("least_mass"), "memorised mass": point("mass"),
    }  # fmt: skip
    forgot = {f"{w.replace('_', ' of group ')}": point(f"forgotten_{w}") for w in
              ("memorised", "others", "memorised_0", "memorised_1", "others_0", "others_1")}  # fmt: skip
    of_gaps = {title: point(title) for title in ("train", FORMULA, SHARES, NOBODY, "test")}
    pruned = [r for r in records if r["zeros"] != DENSE]
    report.study(
        this, prog="experiments.memorisation", title="What is memorised",
        subtitle="Does memorising hide bias, and whom does pruning forget",
        found=[*headline(records), *(study.judge(records, claim) for claim in claims(records)), *further(records)],
        drawn=[
            report.Drawn(
                "gaps", drawn(records),
                "Size of the gap between the two groups in P(positive | positive) on train, as the formula says, of "
                "unseen people of the same split, and on test. Bars are 95 % intervals over seeds.",
                alt="sizes of gaps by setting; the numbers are in the table of gaps",
            )
        ],
        shown=[
            report.Shown(
                "table", report.table(records, names, columns), "Populations.",
                "In points, mean and half-width of the 95 % t interval over seeds. Memorised: whose score is above "
                "the threshold. Least mass: of class 1, as a share of all people, that has to be memorised for equal "
                "opportunity; beside it what is.",
                numbers=pd.DataFrame(records), title="in points, mean ± 95 % over seeds",
            ),
            report.Shown(
                "gaps", report.table(by_gap(records), [*names, report.Name("gap")], of_gaps),
                "Gaps in points, group 1 less group 0; of the odds the size of the larger error.",
            ),
            report.Shown(
                "forgotten", report.table(pruned, names, forgot), "Forgotten by the pruned network.",
                "Of those whom a network was trained on and right about, the share about whom its pruned one is wrong.",
            ),
        ],
        done=[f"{setting}: {words}." for setting, words in SETTINGS.items()],
        paragraphs=[
            f"Group 1 is, of {' and of '.join(f'{name} {groups[1]}' for name, groups in GROUPS.items())}. Each seed is "
            "another draw of people and another population. Gaps on train are of the people that a network was trained "
            "on; half of the networks make the prediction, the other half the gap. In shares: the part of each cell "
            "that would have to be memorised for its accuracy, in place of who is above the threshold. With two "
            "classes that is no more than accuracy carried from one half of the networks to the other; where both are "
            "right about all, it says nothing. Pruned networks start from the wide ones, and see the same people."
        ],
    )  # fmt: skip


def drawn(records: Sequence[Any]) -> Any:
    """A panel per data set: the opportunity gap by setting, a line per place or prediction."""
    lines = ("train", FORMULA, NOBODY, "test")
    rows = [
        {"data": r["data"], "setting": r["setting"], "seed": r["seed"], "line": line, "size": abs(r[line])}
        for r in study.chosen(by_gap(records), zeros=DENSE, gap="opportunity")
        for line in lines
    ]
    panels = [
        figures.Panel(report.lines(study.chosen(rows, data=d), "size", along="setting", of="line"), d, "gap (points)")
        for d in study.values(rows, "data")
    ]
    return figures.levels([panels], methods=lines, along="", say=IN_SHORT.__getitem__, from_zero=True)


main = flags.entry(run, Config, prog="memorisation")


if __name__ == "__main__":
    main()
