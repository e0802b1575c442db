"""What compression does to which examples: the claims of the papers on exemplars, each beside its noise floor.

    .venv/bin/python -m experiments.compression_audit

trains populations of K dense networks and compresses each of them: pruned; pruned under a bound on what groups may
lose; rounded after training to float16, or to int8 weights (symmetric, one scale per tensor; activations are not). On
which examples do the populations before and after vote differently? Hooker et al. found such exemplars few, hard for
the dense networks as well, and small and hard groups over-represented among them; rounding to make fewer than pruning;
and compression to amplify bias. But populations that were trained alike differ in some votes, too. So claims stand
beside exemplars of noise, between two halves of the dense population, and a control that is trained on, not pruned.

What was found on digits and a planted minority of 1 % (K = 30, 5 splits, 17 minutes on two busy cores): exemplars are
few, 0.3 to 2.1 %, and rounding makes none. At 97 % of zeros they are more than noise and control make; at 50 % and 90 %
they are not told apart from the control's. They are hard (dense error 39 to 67 %, of all 3 %), but no harder than those
of noise, and easier at 97 %. The minority is over-represented 23 times at 50 % and 9 times at 97 %; in noise it is 18
times. The bound makes no fewer of them, but at 97 % the minority's error falls by 27 % under it, and grows by 6 %
without. That compression amplifies bias was not seen.

It writes `runs/compression_audit/<id>/`: config.json, records.jsonl, tables, a figure, report.html.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import data, metrics, models, recipes, report, study, train, tree
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch, Model

Records = Sequence[Mapping[str, Any]]
IN_WORDS = {
    "pruned": "gradual magnitude pruning and fine-tuning, without a bound",
    "bound": "the same under the bound of CEAG, whose multipliers see each example's last outcome",
    "retrained": "trained on for as long by the same rule, and nothing is pruned: the control",
    "int8": "weights rounded to 8 bits after training, symmetric, one scale per tensor",
    "float16": "parameters rounded to half precision after training",
}
METHODS, LEVELS = tuple(IN_WORDS), ("pruned", "bound")  # those that have a sparsity
NAMES, GROWS = ("data_set", "method", "sparsity", "seed"), ("data_sets", "seeds", "methods", "sparsities")
FEW, LARGE = 0.1, 200  # exemplars are few below this share; of groups with fewer people in test nothing is said


@dataclasses.dataclass(frozen=True)
class Config:
    """Who is forgotten by compression, beside who is forgotten by training again."""

    # of digits, planted, adult
    data_sets: tuple[str, ...] = flags.several(("digits", "planted"), of=lambda: DATA_SETS)
    # of pruned, bound, retrained, int8, float16
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # shares of zeros
    sparsities: tuple[float, ...] = flags.several((0.5, 0.9, 0.97), float, above=0, below=1)
    # how often all is repeated, each time on another split
    seeds: int = flags.one(5, low=1, high=10_000)
    # K, networks in a population
    networks: int = flags.one(30, low=4, high=10_000)
    # width of the hidden layer
    hidden: int = flags.one(32, low=1)
    # of training
    epochs: int = flags.one(20, low=1)
    # of pruning and fine-tuning
    prune_epochs: int = flags.one(10, low=3)
    # examples a step
    batch_size: int = flags.one(128, low=1)
    # of SGD
    learning_rate: float = flags.one(0.05, above=0)
    # on the excess accuracy gap of each group, of the bound and of the rule of delivery
    tolerance: float = flags.one(0.01, above=0)
    # pairs of halves, of the noise floor
    halves: int = flags.one(20, low=1, high=10_000)
    # people in the planted set, relative to 5,000 of training
    size: float = flags.one(1.0, above=0)
    # the run goes into a folder in here
    runs_dir: str = "runs/compression_audit"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """What no flag says by itself."""
        if "pruned" not in self.methods:
            raise flags.UsageError("--methods: all is measured against pruned; add it")


# --- data ----------------------------------------------------------------------------------------------------------


def planted(config: Config, seed: int) -> data.Dataset:
    """A minority of 1 %, in which one of four has class 1: an attribute that goes with the label, as in CelebA."""
    names = ("num_train", "num_validation", "num_test", "minority_test")
    numbers = zip(names, (5000, 1000, 3000, 1000), (800, 400, 400, 100), strict=True)
    sizes: dict[str, Any] = {name: max(round(config.size * number), low) for name, number, low in numbers}
    found = data.planted(key=jax.random.key(0), minority=0.015, split_seed=seed, **sizes)
    splits, rows = {}, {}
    for name, batch in found.splits.items():
        of_both = (batch.group == 1) & (batch.y == 1)
        # As many on every split, or it would be another program.
        kept = np.flatnonzero(~of_both | (np.cumsum(of_both) % 3 == 1))[: int((batch.group == 0).sum())]
        taken = Batch(*(np.asarray(array)[kept] for array in batch))
        splits[name] = taken._replace(index=np.arange(len(kept), dtype=np.int32))
        rows[name] = found.rows[name][kept]
    return dataclasses.replace(found, **splits, rows=rows)


#: Name -> what it is called on the page, and how a split of it is loaded.
DATA_SETS: dict[str, tuple[str, Callable[[Config, int], data.Dataset]]] = {
    "digits": ("digits", lambda config, seed: data.load("digits", flatten=True, split_seed=seed)),
    "planted": ("planted minority", planted),
    "adult": ("Adult", lambda config, seed: data.load("adult", groups=("race", "sex"), split_seed=seed)),
}


# --- populations ---------------------------------------------------------------------------------------------------


def rounded(model: Model, params: Any, method: str) -> Any:
    """Parameters ``[K, ...]`` as they are after rounding; of int8 the weights of layers only."""

    def int8(path: str, w: Any) -> Any:
        if not model.prunable(path):
            return w
        scale = jnp.abs(w).max(axis=tuple(range(1, w.ndim)), keepdims=True) / 127
        return jnp.where(scale > 0, jnp.round(w / jnp.where(scale > 0, scale, 1)) * scale, w)

    if method == "int8":
        return tree.map_with_path(int8, params)
    return jax.tree.map(lambda w: w.astype(jnp.float16).astype(w.dtype), params)


class Population(NamedTuple):
    """A split with its K dense networks."""

    base: recipes.Base
    said: np.ndarray  # [K, N], on test
    weight: np.ndarray  # [N], so that groups count as they do in the training split
    hardest: int | None  # of the large groups the one with the largest error of the dense networks on validation
    smallest: int | None  # of the training split; None where it is not large, or groups are of about one size


network = functools.cache(models.mlp)  # the same network for all splits is compiled once


def populated(config: Config, name: str, seed: int) -> Population:
    """Trains the dense networks of a split."""
    dataset = DATA_SETS[name][1](config, seed)
    model, bases = network(dataset.num_classes, hidden=(config.hidden,)), []

    def made(keys: Any, members: np.ndarray) -> train.Networks:
        tx = optax.sgd(config.learning_rate, momentum=0.9)
        bases.append(recipes.base(
            model, dataset, keys=keys, batch_size=config.batch_size, epochs=config.epochs, patience=config.epochs, tx=tx
        ))  # fmt: skip
        return bases[0].networks

    said = train.population(
        made, model, {"validation": dataset.validation, "test": dataset.test}, key=jax.random.key(seed),
        size=config.networks, num_classes=dataset.num_classes, at_once=config.networks,
    )  # fmt: skip
    sizes = {which: numbers.astype(float) for which, numbers in dataset.group_sizes().items()}
    share, judge = sizes["train"] / sizes["train"].sum(), dataset.validation
    weight = (share / np.maximum(sizes["test"], 1))[dataset.test.group] * len(dataset.test.y)
    errors = _rates(said["validation"], judge.y, judge.group, dataset.num_groups).error
    large, small = sizes["test"] >= LARGE, int(share.argmin())
    hardest = int(np.where(large, np.nan_to_num(errors, nan=-1.0).mean(0), -2).argmax()) if large.any() else None
    smallest = small if large[small] and share[small] < 0.5 / dataset.num_groups else None
    return Population(bases[0], said["test"], weight.astype(np.float32), hardest, smallest)


def compressed(config: Config, here: Population, method: str, sparsity: float, seed: int) -> np.ndarray:
    """What the population predicts after compression, ``[K, N]``."""
    base, epochs = here.base, config.prune_epochs

    def made(keys: Any, members: np.ndarray) -> train.Networks:
        dense = base.networks
        if method in ("int8", "float16"):
            return dense._replace(params=rounded(base.model, dense.params, method))
        # From a memory of outcomes, the rule is one program for all splits. A rate of 0 keeps all multipliers at 0.
        rule = recipes.RULE | {"estimate": "memory"} if method == "bound" else {"rate": 0.0}
        setting = recipes.Setting(**{"tolerance": config.tolerance, **rule})
        went = recipes.sweep_settings(
            base, [setting] * len(members), seeds=[*map(int, members)], sparsity=sparsity,
            learning_rate=config.learning_rate, epochs=epochs, prune_epochs=max(1, round(0.3 * epochs)),
        )  # fmt: skip
        after = went.delivered
        return after._replace(params=train.spoilt(after.params, jnp.asarray(went.failed_at >= 0)))

    return train.population(
        made, base.model, {"test": base.dataset.test}, key=jax.random.key(seed), size=config.networks,
        num_classes=base.dataset.num_classes, at_once=config.networks,
    )["test"]  # fmt: skip


def measured(config: Config, here: Population, after: np.ndarray, key: jax.Array) -> dict[str, Any]:
    """The record of one population after compression."""
    dataset, test, weight = here.base.dataset, here.base.dataset.test, here.weight
    classes, groups = dataset.num_classes, dataset.num_groups
    found = metrics.exemplars(here.said, after, classes)
    floor = metrics.noise_floor(here.said, after, classes, key=key, splits=config.halves)
    masks = {"": np.asarray(found.exemplar)[None], "_matched": floor.compressed, "_noise": floor.noise}
    rates = [_rates(said, test.y, test.group, groups, weight=weight) for said in (here.said, after)]
    wrong, wrong_after = ((said != test.y).mean(0) for said in (here.said, after))
    error, after_it = (float(of @ weight / weight.sum()) for of in (wrong, wrong_after))
    record: dict[str, Any] = {"accuracy_dense": 1 - error, "accuracy": 1 - after_it, "error_on_all": error}
    record["score"] = float(np.nan_to_num(np.asarray(found.score)) @ weight / weight.sum())
    for which, of in masks.items():
        mass = of @ weight
        record[f"exemplars{which}"] = float(mass.mean() / weight.sum())
        record[f"error_on{which}"] = float((of @ (wrong * weight)).sum() / mass.sum()) if mass.sum() else np.nan
        times = np.asarray(metrics.representation_ratio(of.mean(0), test.group, groups, weight=weight))
        for who, group in (("hardest", here.hardest), ("smallest", here.smallest)):
            record[f"{who}{which}"] = np.nan if group is None else float(times[group])
    # Recall less the network's own accuracy, as in the paper on PIE.
    errors, own = ([np.asarray(getattr(of, name), np.float64) for of in rates] for name in ("error", "overall_error"))
    tested = metrics.welch_test(*(e - mean[:, None] for e, mean in zip(errors, own, strict=True)))
    for name, p in (("hit", tested.p_value), ("hit_adjusted", tested.adjusted)):
        record[name] = float((p <= 0.05).sum() / max(np.isfinite(p).sum(), 1))
    of_hardest = [e[:, here.hardest] if here.hardest is not None else e[:, 0] * np.nan for e in errors]
    for who, both in (("hardest", of_hardest), ("all", own)):
        record[f"change_{who}"] = float(metrics.normalised_change(*both).change)
    for when, said in (("_dense", here.said), ("", after)):
        # Of digits the groups are the classes, and no attribute goes with them.
        biased = _amplification(said, test, dataset.train, groups) if classes == 2 else np.nan
        record[f"amplification{when}"] = float(np.mean(biased))
    return {name: value for name, value in record.items() if np.isfinite(value)}


_rates = jax.jit(metrics.population_rates, static_argnums=3)


@functools.partial(jax.jit, static_argnums=3)
def _amplification(said: Any, test: Batch, split: Batch, num_groups: int) -> Any:
    """Of every network's own decisions, group -> class 1."""
    given, train_given = (jax.nn.one_hot(of.group, num_groups) for of in (test, split))
    true, train_true = ((of.y == 1)[:, None] for of in (test, split))
    more = {"train_given": train_given, "train_true": train_true}
    return jax.vmap(lambda p: metrics.amplification(given, true, p[:, None] == 1, **more).mean)(said)


# --- the run -------------------------------------------------------------------------------------------------------


def run(config: Config) -> None:
    """Compresses what is not yet recorded, and writes the page."""
    cells = study.grid(
        data_set=config.data_sets, seed=range(config.seeds), method=config.methods, sparsity=(0.0, *config.sparsities)
    )
    wanted = [cell for cell in cells if (cell["sparsity"] > 0) == (cell["method"] in LEVELS)]
    with study.opened(config, NAMES, grows=GROWS) as this:
        for shared, cells in this.missing(wanted, together=("data_set", "seed")):
            name, seed = shared["data_set"], shared["seed"]
            here, key = populated(config, name, seed), jax.random.fold_in(jax.random.key(1), seed)
            for cell in cells:
                after = compressed(config, here, cell["method"], cell["sparsity"], seed)
                this.record(cell, measured(config, here, after, key))
        tell(config, this)


# --- what was found ------------------------------------------------------------------------------------------------

KINDS = {"exemplars of pruning": "_matched", "exemplars of noise": "_noise", "all": "_all"}
MORE, FEWER = ("richer in exemplars", "poorer in exemplars"), ("poorer in exemplars", "richer in exemplars")
PRUNING, *PEERS = KINDS
CLAIMS: tuple[tuple[str, str, str, tuple[str, str], int], ...] = (
    ("pruned", "one in ten", "exemplars", ("rarer", "more frequent"), -1),
    ("pruned", "noise", "exemplars_matched", MORE, 1),
    ("retrained", "noise", "exemplars_matched", MORE, 1),
    ("pruned", "retrained", "exemplars_matched", MORE, 1),
    *((method, "pruned", "exemplars", FEWER, -1) for method in ("int8", "float16", "bound")),
    *((f"the dense error on {PRUNING}", f"the dense error on {kind}", "error_on", ("higher", "lower"), 1)
      for kind in PEERS),
    *((f"the {who} group among {PRUNING}", f"the {who} group among {kind}", who, ("larger", "smaller"), 1)
      for who in ("hardest", "smallest") for kind in PEERS),
    ("the error of the hardest group", "the error of all", "change", ("raised more, in parts of itself,", "less"), 1),
    ("pruned", "retrained", "change_hardest", ("harder on the hardest group", "kinder to it"), 1),
    ("bound", "pruned", "change_hardest", ("kinder to the hardest group", "harder on it"), -1),
    *(("pruned", peer, "amplification", ("more biased", "less biased"), 1) for peer in ("dense", "retrained")),
)  # fmt: skip


def rows(records: Records) -> list[dict[str, Any]]:
    """What claims compare, at every sparsity: what has none stands at all of them, and so do noise and constants."""
    levels, found = sorted(study.values(study.chosen(records, method="pruned"), "sparsity")), []
    nothing = {name: np.nan for record in records for name in record}  # what is not finite is not recorded
    for r in [collections.defaultdict(lambda: np.nan, nothing | dict(record)) for record in records]:
        for sparsity in [r["sparsity"]] if r["method"] in LEVELS else levels:
            named = {"data_set": r["data_set"], "seed": r["seed"], "sparsity": sparsity}
            found.append({**r, **named})
            if r["method"] != "pruned":
                continue
            more: dict[str, dict[str, float]] = {
                "noise": {"exemplars_matched": r["exemplars_noise"]}, "one in ten": {"exemplars": FEW},
                "dense": {"amplification": r["amplification_dense"]},
                "the error of the hardest group": {"change": r["change_hardest"]},
                "the error of all": {"change": r["change_all"]},
            }  # fmt: skip
            for kind, which in KINDS.items():
                more[f"the dense error on {kind}"] = {"error_on": r[f"error_on{which}"]}
                for who in ("hardest", "smallest"):
                    more[f"the {who} group among {kind}"] = {who: 1.0 if kind == "all" else r[f"{who}{which}"]}
            found += [{**named, "method": method, **numbers} for method, numbers in more.items()]
    return found


def claims(found: Records) -> list[study.Claim]:
    """What would have to be seen, on each data set; of `records` as of their `rows`."""
    have = {
        (r["data_set"], r["method"], c) for r in found for c, v in r.items() if isinstance(v, int | float) and v == v
    }
    times = {"scale": 1.0, "unit": "times its share"}
    return [
        study.Claim(method, peer, column, words, good, among={"data_set": name},
                    **(times if column in ("hardest", "smallest") else {}))
        for name in study.values(found, "data_set") for method, peer, column, words, good in CLAIMS
        if {(name, method, column), (name, peer, column)} <= have
    ]  # fmt: skip


def headline(config: Config, records: Records, judged: Sequence[study.Found]) -> list[str]:
    """What was done, in a sentence per data set, and how many claims hold."""
    said = []
    for name in study.values(records, "data_set"):
        mine = study.chosen(records, data_set=name, method="pruned")
        accuracy, noise = (100 * np.mean([r[c] for r in mine]) for c in ("accuracy_dense", "exemplars_noise"))
        said.append(
            f"{DATA_SETS[name][0]}: {len(study.values(mine, 'seed'))} populations of {config.networks} networks of "
            f"{accuracy:.1f} % accuracy, two halves of which differ in the vote on {noise:.2f} % of examples by noise."
        )
    states, kinds = [one.state for one in judged], (metrics.HOLDS, metrics.VIOLATED, metrics.CANNOT_TELL)
    return [*said, f"{len(states)} claims: " + ", ".join(f"{kind} {states.count(kind)}" for kind in kinds) + "."]


def verdicts(judged: Sequence[study.Found]) -> report.Table:
    """A row per claim, a column per data set."""
    names, table = list(dict.fromkeys(one.claim.among["data_set"] for one in judged)), {}
    for one in judged:
        words = f"{one.claim.method} is {one.claim.words[0]} than {one.claim.peer}"
        table.setdefault(words, {})[one.claim.among["data_set"]] = report.Verdict(state=one.state, text=one.state)
    cells = [[words, *(of.get(name, "–") for name in names)] for words, of in table.items()]
    return report.Table(columns=["claim", *names], rows=cells, caption="At every sparsity, beyond the 95 % interval.")


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records, points = this.records, report.in_points
    found = rows(records)
    judged = [study.judge(found, claim) for claim in claims(found)]
    first = headline(config, records, judged)
    zeros = report.Name("sparsity", "zeros (%)", lambda share: f"{100 * share:g}")
    names = [report.Name("data_set", "data"), zeros, report.Name("method", order=METHODS)]
    maybe = functools.partial(points, lacking="–")
    counts = {
        "accuracy": points("accuracy"), "exemplars": points("exemplars"), "of halves": points("exemplars_matched"),
        "noise": points("exemplars_noise"), "taxicab score": report.number("score", ".3f"),
        "groups hit": points("hit", digits=0), "adjusted": points("hit_adjusted", digits=0),
    }  # fmt: skip
    who = {
        "dense error": maybe("error_on_matched"), "in noise": maybe("error_on_noise"), "of all": points("error_on_all"),
        "hardest": times("hardest_matched"), "in noise ": times("hardest_noise"),
        "smallest": times("smallest_matched"), "in noise  ": times("smallest_noise"),
    }  # fmt: skip
    harm = {
        "hardest: error (%)": maybe("change_hardest", digits=0), "all: error (%)": maybe("change_all", digits=0),
        "amplification": maybe("amplification"), "of the dense": maybe("amplification_dense"),
    }  # fmt: skip
    report.study(
        this, prog="experiments.compression_audit", title="What compression forgets",
        subtitle="Exemplars of pruned and rounded populations, beside those of noise",
        found=judged, lead=report.Lead(first, (), [verdicts(judged)], first),
        drawn=[report.Drawn(
            "exemplars", curves(found),
            "Left: examples on which half of the dense networks and the other half, compressed, vote differently; "
            "noise is the other half as it was. Right: how many times its share of the people the hardest group has "
            "among them; without large groups, how often the dense networks err on them. Bars are 95 % intervals.",
            alt="exemplars, and the share of the hardest group among them, as in the tables",
        )],
        shown=[
            report.Shown(
                "table", report.table(records, names, counts), "How many exemplars.",
                "In % of examples, groups weighted by their share of the training split; mean and half-width of the 95 "
                "% t interval over splits. Exemplars: the vote of all networks before and after differs, as the papers "
                "count. Of halves: half of the networks before, and the other half after; noise: and the other half "
                "before. Groups hit: share of groups (of digits: classes) whose accuracy, less the network's own, "
                "Welch's test finds changed at 5 %, as in the paper; adjusted: by Holm's rule.",
                numbers=pd.DataFrame(records), title="in %, mean ± 95 % over splits",
            ),
            report.Shown(
                "who", report.table(records, names, who), "Which examples, and whose.",
                "Exemplars of halves. Dense error: on them, in %. The hardest group has the largest dense error on "
                "validation; hardest, smallest: how many times its share of the people a group has among exemplars.",
            ),
            report.Shown(
                "harm", report.table(records, names, harm), "What it does to groups.",
                "Error: how much of itself it gained, in %. Amplification: directional, group to class 1, of the "
                "networks' own decisions, in points.",
            ),
        ],
        done=[f"{m}: {w}." for m, w in IN_WORDS.items() if m in study.values(records, "method")],
        paragraphs=[
            "Network k after is made from network k before. Pruned, bound and retrained networks are trained for as "
            "many steps and delivered by the same rule. Test is only measured. Not tried: int8 with activations, whose "
            "ranges are calibrated on examples."
        ],
    )  # fmt: skip


def times(column: str) -> Callable[[Records], str]:
    """A column of ratios: mean and half-width over the splits that have one."""

    def text(mine: Records) -> str:
        some = metrics.t_interval(np.array([r[column] for r in mine if np.isfinite(r.get(column, np.nan))]))
        return f"{some.mean:.1f} ± {some.half_width:.1f}" if some.seeds > 1 else "–"

    return text


def curves(found: Records) -> Any:
    """Exemplars, and the hardest group among them, against the share of zeros."""
    grid, both = [], (("pruned", "_matched"), ("noise", "_noise"))
    look = {"methods": [*METHODS, "noise"], "along": "zeros (%)", "say": lambda s: f"{100 * s:g}"}
    for name in study.values(found, "data_set"):
        mine = study.chosen(found, data_set=name)
        # A set without a large group has nobody's share.
        who = "hardest" if any(np.isfinite(r.get("hardest_noise", np.nan)) for r in mine) else "error_on"
        label, scale = {"hardest": ("the hardest: times its share", 1), "error_on": ("dense error on them (%)", 100)}[
            who
        ]
        picked = [
            {"method": kind, "seed": r["seed"], "sparsity": r["sparsity"], "value": value}
            for r in study.chosen(mine, method="pruned") for kind, which in both
            if np.isfinite(value := r.get(f"{who}{which}", np.nan))
        ]  # fmt: skip
        counted = report.lines([r for r in mine if "exemplars_matched" in r], "exemplars_matched", along="sparsity")
        sides = (counted, "exemplars (%)"), (report.lines(picked, "value", along="sparsity", scale=scale), label)
        grid.append([figures.Panel(of, DATA_SETS[name][0], of_what) for of, of_what in sides])
    return figures.levels(grid, from_zero=True, **look)


main = flags.entry(run, Config, prog="compression_audit")


if __name__ == "__main__":
    main()
