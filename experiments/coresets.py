"""Coresets: how many chosen examples are worth as much as so many random ones, and to whom.

    .venv/bin/python -m experiments.coresets

looks for the smallest subset of the training set on which softmax regression reaches the loss, on all training
examples, that it has on `--start` random ones in the mean. A direct search over subsets (LBCS), with our moves and with
the published walk, stands beside random subsets, the best of as many of them as the searches train on, herding,
gradient matching, and a descent by the derivative through the training, which the paper has not. All may train equally
often; a step of the descent counts as `--step_cost` trainings. And which group pays for it? Data are digits, whose
groups are the classes, and Adult, by sex.

Everything is chosen on the training split; test is only measured, on a network fitted to the end on the subset.

Found with the defaults, five splits, in four CPU minutes. 200 random examples are worth these with 1,000
trainings, with 95 % intervals: 38 ± 7 of digits and 17 ± 6 of Adult found by swap, 62 ± 9 and 41 ± 21 by the derivative
(its rate is from three other splits), 82 ± 19 and 140 ± 31 by herding, 95 ± 14 and 62 ± 10 by matching, 119 ± 6 and 94
± 22 by the best of random ones, and 131 ± 23 and 174 ± 30 by the published walk, which keeps 81 to 88 % of its random
start. With 100 trainings herding (digits) and matching (both) are not told apart from swap. What we like less: a
coreset is one of its training. In the 40 steps it was chosen by, swap's of Adult is right about 81.8 ± 0.9 %, as 200
random ones (81.5); fitted to the end about 77.9 ± 4.2 (81.4). And no group was seen to gain or to pay beside 200 random
examples: intervals are too wide. Of as few random ones as swap's 38 a class of digits loses 46 points more than the
average, of swap's 15.

It writes `runs/coresets/<id>/`: config.json, records.jsonl (one line per coreset; the same command goes on where a
killed run stopped), tables, a figure, report.html.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import bilevel, data, implicit, metrics, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch

IN_WORDS = {
    "random": "as many random examples as the searches start with: their mean loss is what all others have to reach",
    "best_of_random": "the best of random subsets, the size halved in on with an eighth of the trainings each",
    "herding": "herding per class: the shortest beginning that reaches the loss",
    "matching": "greedy matching of the mean gradient at four points of a training: the shortest beginning",
    "flow": "the published walk, with its drift",
    "flip": "direct search: members leave by a rate, half as many outsiders enter",
    "swap": "direct search: some members leave, at most as many outsiders enter; equal size and smaller loss is better",
    "gradient": "weights per example moved by the derivative of the loss on all, through the training; top k of them",
    "random_same": "as many random examples as swap needs",
    "best_same": "the best, on the training split, of random subsets of that size",
}
METHODS = tuple(IN_WORDS)
SAME = ("random_same", "best_same")
NAMES = ("dataset", "evaluations", "method", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    """The smallest subset of a training set that reaches a loss, found in many ways."""

    # of digits, adult
    data_sets: tuple[str, ...] = flags.several(("digits", "adult"), of=("digits", "adult"))
    # of random, best_of_random, herding, matching, flow, flip, swap, gradient, random_same, best_same
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # trainings that a method may make
    evaluations: tuple[int, ...] = flags.several((100, 1000), int, low=8)
    # how many splits
    seeds: int = flags.one(5, low=1, high=10_000)
    # members of the random subsets whose loss is to be reached, and of those that searches start with
    start: int = flags.one(200, low=2)
    # examples of the training split that are used, at most
    examples: int = flags.one(8000, low=10)
    # steps of Adam of a training within a search
    steps: int = flags.one(40, low=1)
    # of Adam
    learning_rate: float = flags.one(0.05, above=0)
    # weight decay in the loss
    ridge: float = flags.one(0.001, above=0)
    # steps of the network that is measured
    fit_steps: int = flags.one(300, low=1)
    # random subsets, for means over them
    draws: int = flags.one(20, low=1)
    # trainings that a step by the derivative counts as
    step_cost: int = flags.one(4, low=1)
    # of Adam on the weights per example, times the number of steps
    gradient_rate: float = flags.one(1.25, above=0)
    # the run goes into a folder in here
    runs_dir: str = "runs/coresets"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """What no flag can say by itself."""
        if set(SAME) & set(self.methods) and "swap" not in self.methods:
            raise flags.UsageError("--methods: random_same and best_same have the size of swap's coreset: add swap")


def load(config: Config, name: str, seed: int) -> data.Dataset:
    """A split, with flat inputs."""
    options: dict[str, Any] = {"digits": {"flatten": True}, "adult": {"groups": ("sex",)}}[name]
    found = data.load(name, split_seed=seed, **options)
    if config.start * 2 > min(config.examples, len(found.train.y)):
        raise flags.UsageError(f"--start={config.start}: {name} has not twice as many training examples")
    return dataclasses.replace(found, train=data.sample(found.train, config.examples, seed=seed))


# --- the two levels ------------------------------------------------------------------------------------------------


class Level:
    """Softmax regression on some examples, and its loss on all of them; the arrays may be traced."""

    def __init__(self, config: Config, x: Any, y: Any, num_classes: int) -> None:
        self.config, self.x, self.y, self.num_classes = config, x, y, num_classes

    def losses(self, params: Any, rows: Any = slice(None)) -> Any:
        """The cross entropy of each example."""
        logits = self.x[rows] @ params["kernel"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, self.y[rows])

    def objective(self, params: Any, weight: Any, rows: Any = slice(None)) -> Any:
        """What a training minimises."""
        mean = jnp.sum(self.losses(params, rows) * weight) / jnp.maximum(jnp.sum(weight), 1e-6)
        return mean + self.config.ridge / 2 * optax.tree.norm(params, squared=True)

    def outer(self, params: Any) -> Any:
        """The loss on all examples."""
        return jnp.mean(self.losses(params))

    def fit(self, weight: Any, *, most: int, steps: int, points: bool = False) -> Any:
        """A training that touches at most so many rows; with ``points``, also at four places on its way."""
        rows, weight = bilevel.members(weight, most)
        tx = optax.adam(self.config.learning_rate)
        shape = (self.x.shape[1], self.num_classes)
        params = {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1:])}

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = tx.update(jax.grad(self.objective)(params, weight, rows), state)
            return (optax.apply_updates(params, updates), state), params if points else None

        (params, _), before = jax.lax.scan(step, (params, tx.init(params)), length=steps)
        if not points:
            return params
        return jax.tree.map(lambda a: a[np.linspace(0, steps - 1, 4).astype(int)], before)

    def worth(self, mask: Any, most: int) -> Any:
        """The loss on all examples after a training on some."""
        return self.outer(self.fit(mask.astype(jnp.float32), most=most, steps=self.config.steps))

    def random(self, key: Any, size: Any) -> Any:
        """A random subset, ``[N]`` bool."""
        return sparsity.top_k(jax.random.uniform(key, self.y.shape), size)

    def features(self, params: Any = None) -> Any:
        """The gradient of each example's loss; without parameters the input beside its class, as herding reads it."""
        classes = jax.nn.one_hot(self.y, self.num_classes)
        if params is not None:
            classes = jax.nn.softmax(self.x @ params["kernel"] + params["bias"][None]) - classes
        inputs = jnp.concatenate([self.x, jnp.ones_like(self.x[:, :1])], axis=1)
        return (classes[:, :, None] * inputs[:, None, :]).reshape(len(self.y), -1)


def best_of_random(level: Level, most: int, goal: Any, key: Any, *, start: int, trainings: int) -> Any:
    """Halves the size in: an eighth of the trainings at each size, whose best reaches the goal or not."""

    def narrow(carry: Any, key: Any) -> Any:
        low, high, mask = carry
        size = (low + high) // 2
        found, loss = best_of(level, most, key, size, trainings // 8)
        pairs = (low, size), (size, high), (found, mask)
        return tuple(jnp.where(loss <= goal, yes, no) for yes, no in pairs), None

    first, *keys = jax.random.split(key, 9)
    begin = jnp.int32(0), jnp.int32(start), level.random(first, start)
    return jax.lax.scan(narrow, begin, jnp.stack(keys))[0][2]


def best_of(level: Level, most: int, key: Any, size: Any, number: int) -> Any:
    """The best of random subsets of a size, and its loss."""
    keys = jax.random.split(key, number)
    losses = jax.lax.map(lambda k: level.worth(level.random(k, size), most), keys)
    return level.random(keys[jnp.argmin(losses)], size), jnp.min(losses)


def shortest(level: Level, most: int, goal: Any, order: Any, *, trainings: int) -> Any:
    """The shortest beginning of an order that reaches the goal; all of it if none does."""
    lengths = np.unique(np.linspace(1, most, min(trainings, most)).astype(np.int32))

    def beginning(length: Any) -> Any:
        return jnp.zeros(level.y.shape, bool).at[order].set(jnp.arange(most) < length)

    losses = jax.lax.map(lambda length: level.worth(beginning(length), most), jnp.asarray(lengths))
    return beginning(jnp.min(jnp.where(losses <= goal, lengths, most)))


def searched(level: Level, method: str, most: int, goal: Any, key: Any, start: Any, trainings: int) -> Any:
    """The choice of a search that begins with a subset."""
    config = level.config

    def inner(weight: Any, key: Any) -> Any:
        return level.fit(weight, most=most, steps=config.steps)

    rule: dict[str, Any] = {"num_examples": len(level.y), "tolerance": 0.0, "target": goal}
    if method == "gradient":
        length, begin = max(trainings // config.step_cost, 2), jnp.where(start, 0.6, 0.25)
        solver = bilevel.relaxed_coreset(
            inner, level.outer, evaluations=length, objective=level.objective,
            size=lambda step: config.start * 0.05 ** (step / (length - 1)), **rule,
            tx=optax.adam(config.gradient_rate / length), solve=implicit.conjugate_gradients(max_iterations=10),
        )  # fmt: skip
    else:
        moves = {"swap": bilevel.swap(), "flip": bilevel.flip(entries=0.5), "flow": bilevel.flow()}
        length, begin = trainings - 1, start
        solver = bilevel.coreset(
            inner, level.outer, start=config.start, limit=config.start * 6 // 5 + 1, evaluations=trainings,
            proposal=moves[method], ties=method != "flow", **rule,
        )  # fmt: skip
    state = solver.init(key, begin)
    state, _ = jax.lax.scan(lambda s, k: (solver.step(s, None, k)[0], None), state, jax.random.split(key, length))
    return bilevel.chosen_mask(state)


@functools.cache
def program(config: Config, method: str, trainings: int, num_classes: int) -> Any:
    """``find(x, y, goal, key, size) -> (masks [K, N], start [N])``, compiled once for all splits."""
    most = 2 * config.start

    def find(x: Any, y: Any, goal: Any, key: Any, size: Any) -> Any:
        level = Level(config, x, y, num_classes)
        starting, key = jax.random.split(key)
        start = level.random(starting, config.start)
        if method in ("random", "random_same"):
            return jax.vmap(lambda k: level.random(k, size))(jax.random.split(key, config.draws)), start
        if method == "best_same":
            mask, _ = best_of(level, most, key, size, trainings)
        elif method == "best_of_random":
            mask = best_of_random(level, most, goal, key, start=config.start, trainings=trainings)
        elif method == "herding":
            mask = shortest(level, most, goal, bilevel.herding(level.features(), most), trainings=trainings)
        elif method == "matching":
            on_all = level.fit(jnp.ones(y.shape), most=len(y), steps=config.steps, points=True)
            seen = jnp.concatenate([level.features(train.take(on_all, i)) for i in range(4)], axis=1)
            mask = shortest(level, most, goal, bilevel.gradient_matching(seen, most), trainings=trainings)
        else:
            mask = searched(level, method, most, goal, key, start, trainings)
        return mask[None], start

    return jax.jit(find)


@functools.cache
def measuring(config: Config, num_classes: int, most: int) -> Any:
    """``measure(x, y, masks, test) -> (losses [K], right [K, T] as in a search, right [K, T] at the end)``."""

    def measure(x: Any, y: Any, masks: Any, test: Batch) -> Any:
        level = Level(config, x, y, num_classes)

        def right(params: Any) -> Any:
            return jnp.argmax(test.x @ params["kernel"] + params["bias"][None], axis=1) == test.y

        def one(mask: Any) -> Any:
            weight = mask.astype(jnp.float32)
            short, long = (level.fit(weight, most=most, steps=n) for n in (config.steps, config.fit_steps))
            return level.outer(short), right(short), right(long)

        return jax.lax.map(one, masks)

    return jax.jit(measure)


# --- the run -------------------------------------------------------------------------------------------------------


def compiled(config: Config) -> Config:
    """The settings that a program depends on."""
    return dataclasses.replace(config, data_sets=(), methods=(), evaluations=(), seeds=1, runs_dir="", id="")


class Split(NamedTuple):
    """A split: its training part, the loss to be reached, whom on test the network on everybody gets right ``[T]``."""

    dataset: data.Dataset
    x: jax.Array
    y: jax.Array
    goal: float
    right: np.ndarray


def split_of(config: Config, name: str, seed: int) -> Split:
    """The split of a seed, and the mean loss of random subsets of it."""
    dataset = load(config, name, seed)
    x, y, classes = jnp.asarray(dataset.train.x), jnp.asarray(dataset.train.y), dataset.num_classes
    settings, key = compiled(config), jax.random.key(seed)
    masks, _ = program(settings, "random", 0, classes)(x, y, 0.0, key, jnp.int32(config.start))
    losses, *_ = measuring(settings, classes, 2 * config.start)(x, y, masks, dataset.test)
    *_, right = measuring(settings, classes, len(y))(x, y, jnp.ones((1, len(y)), bool), dataset.test)
    return Split(dataset, x, y, float(losses.mean()), np.asarray(right[0]))


def measured(config: Config, split: Split, cell: study.Cell, size: int) -> dict[str, Any]:
    """The record of a coreset, or the means over several random ones."""
    dataset, test, classes = split.dataset, split.dataset.test, split.dataset.num_classes
    settings, key = compiled(config), jax.random.key(cell["seed"])
    fixed = cell["method"] in ("random", "random_same")  # whatever the number of trainings is
    find, took = program(settings, cell["method"], 0 if fixed else cell["evaluations"], classes), study.clock()
    found = jax.block_until_ready(find(split.x, split.y, split.goal, key, jnp.int32(size)))
    spent, (masks, start) = took(), jax.tree.map(np.asarray, found)
    losses, short, right = measuring(settings, classes, 2 * config.start)(split.x, split.y, masks, test)
    gaps = [metrics.accuracy_gaps(split.right, one, test.group, dataset.num_groups) for one in right]
    groups = [metrics.group_means(one, test.group, dataset.num_groups) for one in right]
    return {
        "size": float(masks.sum(1).mean()),
        "loss": float(losses.mean()),
        "goal": split.goal,
        "reached": bool(losses.mean() <= split.goal * (1 + 1e-5)),  # the same sum in another program
        "accuracy": float(right.mean()),
        "accuracy_short": float(short.mean()),
        "accuracy_all": float(split.right.mean()),
        "max_excess": float(np.mean([gap.max_excess for gap in gaps])),
        "spread": float(np.mean([metrics.disparity(one) for one in groups])),
        "spread_all": float(metrics.disparity(metrics.group_means(split.right, test.group, dataset.num_groups))),
        "missing": float(np.mean([classes - len(set(dataset.train.y[mask].tolist())) for mask in masks])),
        "from_start": float((masks & start).sum() / masks.sum()),
        **spent,
    }


def run(config: Config) -> None:
    """Finds what is not yet recorded, and writes the page."""
    methods = [method for method in METHODS if method in config.methods]  # what has swap's size comes after it
    asked = {"dataset": config.data_sets, "seed": range(config.seeds), "evaluations": config.evaluations}
    wanted = study.grid(**asked, method=methods)
    with study.opened(config, NAMES, grows=("data_sets", "methods", "evaluations", "seeds")) as this:
        for shared, cells in this.missing(wanted, together=("dataset", "seed")):
            split = split_of(config, shared["dataset"], shared["seed"])
            for cell in cells:
                size = config.start
                if cell["method"] in SAME:
                    (swapped,) = study.chosen(this.records, **{**cell, "method": "swap"})
                    size = int(swapped["size"])
                this.record(cell, measured(config, split, cell, size))
        tell(this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of the direct search with our moves."""
    at: dict[str, Any] = {"at": ("dataset", "evaluations"), "level": str}
    examples: dict[str, Any] = {"scale": 1.0, "unit": "examples", **at}
    smaller, better = ("smaller at equal loss", "larger at equal loss"), ("more accurate", "less accurate")
    kinder = ("no harder on the group that loses most", "harder on the group that loses most")
    peers = ("random", "best_of_random", "herding", "matching", "flow", "gradient")
    wanted = [
        *(study.Claim("swap", peer, "size", smaller, -1, **examples) for peer in peers),
        *(study.Claim("gradient", peer, "size", smaller, -1, **examples) for peer in peers[1:-1]),
        *(study.Claim("swap", peer, "accuracy", better, 1, **at) for peer in SAME),
        study.Claim("swap", "random", "max_excess", kinder, -1, margin=-0.01, **at),
    ]
    there = set(study.values(records, "method"))
    return [claim for claim in wanted if {claim.method, claim.peer} <= there]


def tell(this: study.Run) -> None:
    """The page."""
    records, there = this.records, study.values(this.records, "method")
    names = [report.Name("dataset"), report.Name("evaluations", "trainings"), report.Name("method", order=METHODS)]

    def examples(rows: Sequence[Any]) -> str:
        found = metrics.t_interval([r["size"] / 100 for r in rows])  # it is shown in points
        return report.mean_and_half_width(found.mean, found.half_width, digits=0)

    columns = {
        "examples": examples,
        "reached": report.counted("reached"),
        "loss on train": report.number("loss", ".3f"),
        "accuracy, as searched": report.in_points("accuracy_short", digits=1),
        "accuracy": report.in_points("accuracy", digits=1),
        "largest excess gap": report.in_points("max_excess", digits=1),
        "spread of groups": report.in_points("spread", digits=1),
        "classes missing": report.number("missing", ".1f"),
        "from the start": report.in_points("from_start", digits=0),
        "CPU seconds": report.number("cpu_seconds", ".1f", of=np.median),
    }
    peers = {"swap": [m for m in METHODS if m != "swap"], "gradient": ["random"], "flow": ["random"]}
    compared = {"accuracy, as searched": "accuracy_short", "accuracy": "accuracy", "excess gap": "max_excess"}
    summary = (
        f"{len(study.values(records, 'seed'))} splits. To be reached: the loss on the training split of "
        f"{this.settings['start']} random examples, in the mean over {this.settings['draws']} draws."
    )
    report.study(
        this,
        prog="experiments.coresets",
        title="How few examples will do",
        subtitle="Coresets by direct search, by derivatives and by rule",
        found=[summary, *(study.judge(records, claim) for claim in claims(records))],
        drawn=[drawn(records)],
        shown=[
            report.Shown(
                "table", report.table(records, names, columns), "Every way to find a coreset.",
                "Means over splits with the half-width of the 95 % t interval. Reached: in how many splits a coreset "
                "reaches the loss; herding and matching end at twice the random ones. Accuracy: on test, in points, of "
                "a network fitted to the end; as searched: after the few steps of a search's training. Largest excess "
                "gap: what the group that lost most, against a network on the whole training split, lost beyond the "
                "average, in points. Spread: between the best and the worst group. From the start: the share of a "
                "coreset that a search began with. Rows of random subsets are means over draws. CPU seconds: the "
                "median over splits; the first has the compilation.",
                numbers=pd.DataFrame(records), title="mean ± 95 % over splits",
            ),
            report.Shown(
                "paired", report.paired_table(records, names, compared, peers=lambda m: peers.get(m, [])),
                "Paired differences on the same splits, in points.",
                "An interval without 0 is a difference. More accuracy is better, smaller gaps are.",
            ),
        ],
        done=[f"{name}: {words}." for name, words in IN_WORDS.items() if name in there],
        paragraphs=[
            *(__doc__ or "").replace("`", "").split("\n\n")[3:4],
            f"Searching took {sum(r['cpu_seconds'] for r in records):,.0f} CPU seconds in all.",
        ],
    )  # fmt: skip


def drawn(records: Sequence[Any]) -> report.Drawn:
    """Size at equal loss, accuracy and gap against the number of trainings."""
    sides, rows = {"size": ("examples at equal loss", 1), "accuracy": ("accuracy on test (%)", 100)}, []
    sides |= {"max_excess": ("largest excess gap (points)", 100)}
    for name in study.values(records, "dataset"):
        mine = [r for r in study.chosen(records, dataset=name) if r["method"] not in SAME]
        best = {"accuracy": 100 * float(np.mean([r["accuracy_all"] for r in mine]))}
        lines = {c: report.lines(mine, c, along="evaluations", scale=scale) for c, (_, scale) in sides.items()}
        rows.append([figures.Panel(lines[c], name, sides[c][0], best.get(c, np.nan)) for c in sides])
    return report.Drawn(
        "coresets",
        figures.levels(rows, methods=METHODS, along="trainings"),
        "All reach the same loss on the training split; fewer examples are better. Dotted: the accuracy on the whole "
        "training split. Bars are 95 % intervals over splits.",
        alt="size at equal loss, accuracy and gap by method and number of trainings; the numbers are in the table",
    )


main = flags.entry(run, Config, prog="coresets")


if __name__ == "__main__":
    main()
