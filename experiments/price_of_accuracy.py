"""What accuracy costs: performance per resource unit (PePR) of small, large and pruned networks, and whom it favours.

    .venv/bin/python -m experiments.price_of_accuracy

trains networks of several widths on digits and on Adult, prunes each by magnitude, and scores all of them, on one data
set, as one cohort: accuracy / (1 + R), with R the place of a network's cost between the cheapest and the dearest. The
costs are measured: FLOPs and bytes by XLA's account of the compiled prediction, its seconds, and joules where the
processor's meter may be read. Beside them stand the FLOPs and bytes of a machine that skips zeros: no compiled program
does, so a pruned network costs by the former what the dense one does.

Tested are the published claims (small models are ahead; they are hardly less accurate), on our own networks and on 131
published models; how far the order depends on cohort, resource and seed; and a question of our own: is it the same if
the worst group's accuracy stands in place of the average? Groups are the classes of digits, and sex x label of Adult.

Found with the defaults, five seeds, in a minute and a half of one core:

- On Adult the smallest network is first by all resources, the clock among them, and 0.2 ± 0.3 points less accurate than
  the widest. On digits it is too small, by 31 ± 25 points: the second smallest is first.
- Of 131 published models the smaller half is 10 points of PePR ahead, by each of four resources; one cannot tell that
  it is less accurate.
- By FLOPs, bytes and seconds of a compiled program pruned networks are no better than dense ones. Where zeros are
  skipped, 90 % of them are worth 35 to 37 points at 256 units; at 4 units they cost more accuracy than they save.
- The order depends on the cohort: without the widest networks 0 to 19 % of the other pairs change places; by another
  seed 2 to 12 % do (of seconds 7 to 13 %).
- By the worst group's accuracy the first stays the first. On Adult 11 to 18 % of pairs change places, beside 2 to 4 %
  by another seed (by seconds no more than by that); on digits no more than by another seed.

It writes `runs/price_of_accuracy/<id>/`: config.json, records.jsonl (one line per network; the same command goes on
where a killed run stopped), tables, figures, report.html.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import data, metrics, models, report, sparsity, study, train, tree
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch, Model

MEASURED = {
    "flops": "FLOPs of one prediction, by XLA's account of the compiled program",
    "bytes": "bytes that it reads and writes, likewise",
    "seconds": "seconds of one prediction, median over calls, per example",
}
SKIPPED = {
    "kept_flops": "FLOPs of products with weights that are not zero",
    "kept_bytes": "bytes of the file in which zeros are not stored, the least of three formats",
}
METER = study.energy_meter()
COSTS = {**MEASURED, **SKIPPED} | ({"joules": "joules of the whole processor per example"} if METER else {})
IN_WORDS = {"flops": "FLOPs", "bytes": "bytes", "seconds": "seconds", "joules": "joules"}
IN_WORDS |= {"kept_flops": "FLOPs with zeros skipped", "kept_bytes": "bytes without the zeros"}
DENSE = "dense"
TABLE = pathlib.Path(__file__).with_name("pepr_131_models.csv.xz")
PUBLISHED = {"pepr_e": "energy", "pepr_c": "CO2", "pepr_t": "time", "pepr_m": "memory"}
RESOURCES = {"energy_kwh": "pepr_e", "co2_g": "pepr_c", "last_epoch_s": "pepr_t", "memory_gb": "pepr_m"}
SMALL, LARGE = "the small half of 131 published models", "the large half"
AGAIN, WORST = "the same score of another seed", "the score of the worst group"
MEDIAN = 24.6e6  # parameters, below which a published model is called small
NAMES = ("data", "width", "zeros", "seed")
LOSS = train.loss_meter()  # one for all, or each training is compiled anew
OWN = Batch(0, 0, 0, 0, 0)  # every seed has a split of its own


@dataclasses.dataclass(frozen=True)
class Config:
    """Performance per resource unit of networks of several widths, dense and pruned."""

    data_sets: tuple[str, ...] = flags.several(("digits", "adult"), of=("digits", "adult"))  # of digits, adult
    widths: tuple[int, ...] = flags.several((4, 16, 64, 256), int, low=1, high=8192)  # of the two hidden layers
    sparsities: tuple[float, ...] = flags.several(
        (0.5, 0.9), float, above=0, below=1
    )  # shares of zeros, beside the dense networks
    # of adult's groups, with the label
    adult_groups: str = flags.one("sex", of=("sex", "race", "age", "education"))
    seeds: int = flags.one(5, low=1, high=10_000)  # how many, each on a split of its own
    # of digits; as many again in which networks are pruned, or not
    epochs: int = flags.one(30, low=1)
    # of adult, likewise
    adult_epochs: int = flags.one(3, low=1)
    # examples a step of digits; 128 of adult
    batch_size: int = flags.one(32, low=1)
    # of SGD with momentum, falling to 0 along a cosine
    learning_rate: float = flags.one(0.05, above=0)
    # examples in the prediction that is measured
    predicted: int = flags.one(1024, low=1)
    repeats: int = flags.one(50, low=1)  # calls whose median is taken
    alpha: float = flags.one(1.0, low=0)  # how much cost counts
    runs_dir: str = "runs/price_of_accuracy"  # the run goes into a folder in here
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """One model is no cohort."""
        if len(set(self.widths)) < 2:
            raise flags.UsageError(f"--widths: {len(set(self.widths))} width; give two or more to compare")


# --- the networks --------------------------------------------------------------------------------------------------

predictor = functools.cache(lambda model: train.predictor(model.apply, train.Plan(), own=True))


@functools.cache
def network(classes: int, width: int) -> Model:
    """Two hidden layers."""
    return models.mlp(classes, hidden=(width, width))


@functools.cache
def order_of(**sizes: int) -> Any:
    """The examples of each step, compiled once."""
    return lambda key, epoch: train.epoch_order(jax.random.fold_in(key, 1), epoch, **sizes)


@functools.cache
def solver_of(model: Model, steps: int, rate: float, share: float) -> Any:
    """Compiled once; with a share of zeros it prunes until three quarters of the steps are done."""
    tx = optax.sgd(optax.cosine_decay_schedule(rate, steps), momentum=0.9)
    if share:
        schedule = sparsity.polynomial(share, begin=0, end=3 * steps // 4, every=max(1, steps // 40))
        tx = sparsity.prune(tx, schedule, prunable=model.prunable)
    return train.descent(model.apply, tx)


def load(config: Config, name: str, seeds: Sequence[int]) -> tuple[Any, Batch, Batch]:
    """The data set of the first seed, and training and test splits ``[S, N, ...]``."""
    more: dict[str, Any] = {"groups": (config.adult_groups, "label")} if name == "adult" else {"flatten": True}
    sets = [data.load(name, split_seed=seed, **more) for seed in seeds]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *((d.train, d.test) for d in sets))
    return sets[0], *stacked


def named(share: float) -> str:
    """A share of zeros as the records have it."""
    return f"{100 * share:g} % zeros" if share else DENSE


def trained(config: Config, name: str, model: Model, split: Batch, seeds: Sequence[int]) -> dict[str, Any]:
    """By share of zeros the networks of all seeds, from the same dense ones."""
    people, epochs = split.y.shape[1], config.adult_epochs if name == "adult" else config.epochs
    batch_size = min(128 if name == "adult" else config.batch_size, people)
    a_pass = people // batch_size
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])

    def after(start: Any, share: float, purpose: int) -> Any:
        found = train.dense(
            model, split, keys=jax.vmap(jax.random.fold_in, (0, None))(keys, purpose), epochs=epochs,
            solver=solver_of(model, epochs * a_pass, config.learning_rate, share), batch_size=batch_size,
            num_steps=a_pass, split_axes=OWN, start=start,
            meter=LOSS, order=order_of(num_examples=people, batch_size=batch_size, num_steps=a_pass),
        )  # fmt: skip
        return found.params, found.model_state

    # All train for as long again, the dense ones too, or the longer training would count for the zeros.
    begun = after(None, 0.0, 0)
    return {share: after(begun, share, 1) for share in (0.0, *config.sparsities)}


def costs(config: Config, model: Model, networks: Any, lane: int, x: np.ndarray) -> dict[str, float]:
    """What one prediction of one network costs, per example."""
    params, state = train.take(networks, lane)
    masks = tree.map_with_path(lambda path, leaf: leaf != 0 if model.prunable(path) else True, params)
    x = jnp.asarray(np.resize(x, (config.predicted, *x.shape[1:])))
    how: dict[str, Any] = {"repeats": config.repeats, "meter": METER, "least_seconds": 0.1 * bool(METER)}
    found = study.cost(compiled(model, params, state, x), params, state, x, **how)
    kept = sparsity.cost_report(model, x[:1], masks).total
    per = {name: value / len(x) for name, value in found._asdict().items()}
    per |= {"kept_flops": 2.0 * kept.sparse_multiply_adds, "kept_bytes": float(kept.smallest_bytes)}
    return {f"cost_{name}": per[name] for name in COSTS}


@functools.lru_cache
def _compiled(model: Model, shapes: Any) -> Any:
    def label(params: Any, state: Any, x: Any) -> Any:
        return jnp.argmax(model.apply(params, state, x, train=False)[0], axis=-1)

    return jax.jit(label).lower(*jax.tree.unflatten(*shapes)).compile()


def compiled(model: Model, *args: Any) -> Any:
    """The program that says the class of each example, once for all networks of a shape."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda *a: a, *args))
    return _compiled(model, (structure, tuple(leaves)))


def cohort(config: Config, name: str, seeds: Sequence[int]) -> dict[tuple[int, str, int], dict[str, Any]]:
    """Numbers of every network by width, zeros and seed; networks of one seed are one cohort."""
    mine, split, test = load(config, name, seeds)
    rows: dict[tuple[int, str, int], dict[str, Any]] = {}
    for width in dict.fromkeys(config.widths):
        model = network(mine.num_classes, width)
        for share, networks in trained(config, name, model, split, seeds).items():
            said = predictor(model)(*networks, test).label
            for lane, seed in enumerate(seeds):
                right = metrics.correct(said[lane], test.y[lane])
                groups = metrics.group_means(right, test.group[lane], mine.num_groups)
                rows[width, named(share), seed] = {
                    "network": f"the network {width} wide",
                    "accuracy": float(right.mean()),
                    "worst": float(jnp.nanmin(groups)),
                    "worst_group": mine.group_names[int(jnp.nanargmin(groups))],
                    **costs(config, model, networks, lane, test.x[lane]),
                }
    for seed in seeds:
        cells = [row for key, row in rows.items() if key[2] == seed]
        for resource, performance in itertools.product(COSTS, ("accuracy", "worst")):
            cost = [row[f"cost_{resource}"] for row in cells]
            scores = metrics.pepr([row[performance] for row in cells], cost, alpha=config.alpha)
            for row, score in zip(cells, scores, strict=True):
                row[f"{column_of(performance)}_{resource}"] = float(score)
    return rows


def column_of(performance: str) -> str:
    """What the columns of a score begin with."""
    return "pepr" if performance == "accuracy" else "pepr_worst"


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the page."""
    zeros = [DENSE, *map(named, config.sparsities)]
    wanted = study.grid(data=config.data_sets, width=config.widths, zeros=zeros, seed=range(config.seeds))
    with study.opened(config, NAMES, grows=("data_sets", "seeds")) as this:
        for shared, cells in this.missing(wanted, together=("data",), whole=True):
            seeds = study.values([c for c in cells if not this.has(c)], "seed")
            found = cohort(config, shared["data"], seeds)
            for cell in cells:
                if cell["seed"] in seeds:
                    this.record(cell, found[cell["width"], cell["zeros"], cell["seed"]])
        tell(config, this)


# --- what is claimed -----------------------------------------------------------------------------------------------


def higher(column: str) -> tuple[str, str]:
    """How it is said whose score is higher."""
    performance, resource = ("worst-group ", column[11:]) if "worst" in column else ("", column[5:])
    more, less = (f"of {word} {performance}PePR by {IN_WORDS[resource]}" for word in ("higher", "lower"))
    return more, less


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """The narrowest are ahead of the widest, also for the worst group; and pruned ones, where zeros are skipped."""
    networks = [f"the network {width} wide" for width in sorted(study.values(records, "width"))]
    found = []
    for name in study.values(records, "data"):
        ends = networks[0], networks[-1]
        at: dict[str, Any] = {"at": ("zeros",), "among": {"data": name}, "of": "network", "level": str}
        for column in ("pepr_flops", "pepr_seconds", "pepr_worst_flops"):  # bytes go with FLOPs
            found.append(study.Claim(*ends, column, higher(column), **at))
        words = ("no less accurate", "less accurate")
        found.append(study.Claim(*ends, "accuracy", words, margin=-0.01, **at))
        at = {"at": ("width",), "among": {"data": name}, "of": "zeros", "level": "{} wide".format}
        for zeros in [z for z in study.values(records, "zeros") if z != DENSE]:
            found.append(study.Claim(zeros, DENSE, "pepr_kept_flops", higher("pepr_kept_flops"), **at))
    return found


def orders(records: Sequence[Any], alpha: float) -> list[dict[str, Any]]:
    """The share of pairs of networks that change their order, by what is changed, for each resource and seed."""
    found = []
    for name, resource in itertools.product(study.values(records, "data"), COSTS):
        mine = study.chosen(records, data=name)
        by = {seed: study.chosen(mine, seed=seed) for seed in study.values(mine, "seed")}
        score = {seed: [r[f"pepr_{resource}"] for r in rows] for seed, rows in by.items()}
        for seed, rows in by.items():
            column = {c: [r[c] for r in rows] for c in rows[0] if not isinstance(rows[0][c], str)}
            base_name, turned = f"pepr_{resource}", metrics.pairs_overturned
            base = column[base_name]
            fewer = [i for i, width in enumerate(column["width"]) if width < max(column["width"])]
            performance, cost, before = (
                [column[c][i] for i in fewer] for c in ("accuracy", f"cost_{resource}", base_name)
            )
            narrower = turned(before, metrics.pepr(performance, cost, alpha=alpha))
            others = [turned(base, score[other]) for other in by if other != seed and len(score[other]) == len(base)]
            changes = {
                AGAIN: float(np.mean(others)) if others else float("nan"),
                WORST: float(turned(base, column[f"pepr_worst_{resource}"])),
                "without the widest networks": float(narrower),
                "accuracy alone": float(turned(base, column["accuracy"])),
                "by FLOPs": float(turned(base, column["pepr_flops"])),
            }
            found += [
                {"data": name, "resource": resource, "seed": seed, "changed": change, "overturned": share}
                for change, share in changes.items()
            ]
    return found


@functools.cache
def published() -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The published table by setting, and means of small and large models as records."""
    every, rows, halves = pd.read_csv(TABLE), [], []
    for setting, mine in every.groupby("dataset", sort=False):
        best, accurate = mine.loc[mine.pepr_e.idxmax()], mine.loc[mine.accuracy.idxmax()]
        fewer = metrics.pepr_cohort(mine.accuracy.to_numpy(), mine.energy_kwh.to_numpy())
        ours = {p: np.asarray(metrics.pepr(mine.accuracy.to_numpy(), mine[r].to_numpy())) for r, p in RESOURCES.items()}
        alone = metrics.pairs_overturned(ours["pepr_e"], mine.accuracy.to_numpy())
        rows.append({
            "setting": setting, "most accurate": f"{accurate.model}: {100 * accurate.accuracy:.1f}",
            "best PePR (energy)": f"{best.model}: {best.pepr_e:.3f}, {100 * best.accuracy:.1f}",
            "pairs turned without the dearest (%)": f"{100 * float(fewer.overturned[1]):.1f}",
            "by accuracy alone (%)": f"{100 * float(alone):.1f}",
        })  # fmt: skip
        small = (mine.num_param < MEDIAN).to_numpy()
        for half, where in {SMALL: small, LARGE: ~small}.items():
            halves += [
                {"size": half, "setting": setting, "resource": PUBLISHED[p], "pepr": float(ours[p][where].mean()),
                 "accuracy": float(mine.accuracy[where].mean())}
                for p in PUBLISHED
            ]  # fmt: skip
    return pd.DataFrame(rows), halves


# --- the page ------------------------------------------------------------------------------------------------------


def judged(records: Sequence[Any], turned: Sequence[Any], halves: Sequence[Any]) -> list[study.Found]:
    """Ours, what else changes the order, and the published table."""
    found = [study.judge(records, claim) for claim in claims(records)]
    pruned = study.values(records, "zeros")[-1]
    for name in study.values(records, "data"):
        # No program skips zeros: only the clock could tell them apart.
        how: dict[str, Any] = {"at": ("width",), "among": {"data": name}, "of": "zeros", "level": "{} wide".format}
        found.append(study.judge(records, study.Claim(pruned, DENSE, "pepr_seconds", higher("pepr_seconds"), **how)))
        how = {
            "at": ("resource",),
            "among": {"data": name},
            "of": "changed",
            "level": IN_WORDS.__getitem__,
            "unit": "points of all pairs",
        }
        words = ("further from the order by average accuracy", "nearer to it")
        found.append(study.judge(turned, study.Claim(WORST, AGAIN, "overturned", words, **how)))
    how = {"of": "size", "level": str, "at": ("resource",), "over": ("setting",)}
    words = ("of higher PePR", "of lower PePR")
    found.append(study.judge(halves, study.Claim(SMALL, LARGE, "pepr", words, **how)))
    words, how["among"] = ("no less accurate", "less accurate"), {"resource": "energy"}
    return [*found, study.judge(halves, study.Claim(SMALL, LARGE, "accuracy", words, margin=-0.01, **how))]


def firsts(records: Sequence[Any]) -> list[str]:
    """Who is first, by accuracy and by each score, of means over seeds."""
    said = []
    for name in study.values(records, "data"):
        mean = pd.DataFrame(study.chosen(records, data=name)).groupby(["width", "zeros"]).mean(numeric_only=True)
        best = {c: "{} wide, {}".format(*mean[c].idxmax()) for c in mean}
        lists = ["; ".join(f"{IN_WORDS[r]}: {best[f'{score}_{r}']}" for r in COSTS) for score in ("pepr", "pepr_worst")]
        said.append(
            f"First of {len(mean)} on {name}, in the mean over seeds: {best['accuracy']}, by accuracy; by PePR of "
            f"{lists[0]}. By the worst group's accuracy: {best['worst']}; by its PePR of {lists[1]}."
        )
    return said


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records = this.records
    turned, (table, halves) = orders(records, config.alpha), published()
    names = [report.Name("data"), report.Name("width"), report.Name("zeros")]
    columns = {"accuracy": report.in_points("accuracy", digits=1), "worst group": report.in_points("worst", digits=1)}
    columns |= {f"PePR: {IN_WORDS[r]}": report.number(f"pepr_{r}", ".3f") for r in COSTS}
    columns |= {"worst group's: FLOPs": report.number("pepr_worst_flops", ".3f")}
    costs_of = {IN_WORDS[r]: report.number(f"cost_{r}", ",.3g", of=np.median) for r in COSTS}
    overturned = {"pairs turned (%)": report.in_points("overturned", digits=1, lacking="–")}
    by = [
        report.Name("data"),
        report.Name("resource", say=IN_WORDS.__getitem__),
        report.Name("changed", "what is changed"),
    ]
    report.study(
        this, prog="experiments.price_of_accuracy", title="The price of accuracy",
        subtitle="Performance per resource unit of small, large and pruned networks",
        found=[*firsts(records), *judged(records, turned, halves)],
        drawn=[
            report.Drawn(
                "scores", drawn(records),
                "PePR against width. By XLA's FLOPs a pruned network costs what the dense one does; where zeros are "
                "skipped it is cheaper. Last: the worst group's accuracy in place of the average. Bars are 95 % "
                "intervals over seeds.",
                alt="scores against the width of the hidden layers; the numbers are in the table",
            )
        ],
        shown=[
            report.Shown(
                "table", report.table(records, names, columns), "Every network.",
                "Accuracies in points on test, mean and half-width of the 95 % t interval over seeds. PePR: means over "
                "seeds, each within its cohort.",
                numbers=pd.DataFrame(records), title="in points, mean ± 95 % over seeds",
            ),
            report.Shown("costs", report.table(records, names, costs_of), "One prediction: medians over seeds."),
            report.Shown(
                "orders", report.table(turned, by, overturned), "Pairs of networks whose order by PePR changes.",
                "Another seed is the noise floor: another split and another training, the same score. Two seeds share "
                "what is between them, so that its interval is a little too narrow.",
            ),
            report.Shown(
                "published", table, "131 published models in eight settings of three medical image sets.",
                "Accuracies in points. Selvan et al., 2024; one training each, so that intervals over settings are all "
                "there is, and settings of the same images are not independent.",
            ),
        ],
        done=[f"{IN_WORDS[r]}: {words}." for r, words in COSTS.items()],
        paragraphs=[
            "Each seed is another split of the data and another training. Networks have two hidden layers. All train "
            "twice: dense, and from there for as long again, while the smallest weights of the pruned ones go. Test is "
            "only measured." + ("" if METER else " The processor's meter of energy could not be read on this machine.")
        ],
    )  # fmt: skip


def drawn(records: Sequence[Any]) -> Any:
    """A row per data set: PePR by width, a line per share of zeros."""
    sides = {
        "pepr_flops": "by XLA's FLOPs",
        "pepr_kept_flops": "zeros skipped",
        "pepr_worst_flops": "worst group, FLOPs",
    }
    rows = [
        [
            figures.Panel(report.lines(mine, column, along="width", of="zeros", scale=1), f"{name}: {title}", "PePR")
            for column, title in sides.items()
        ]
        for name in study.values(records, "data")
        for mine in [study.chosen(records, data=name)]
    ]
    return figures.levels(rows, methods=study.values(records, "zeros"), along="width", shared=True)


main = flags.entry(run, Config, prog="price_of_accuracy")


if __name__ == "__main__":
    main()
