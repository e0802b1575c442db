"""The worst group: what robust training gives it, with groups known and unknown, and what pruning leaves of that.

    .venv/bin/python -m experiments.worst_groups

trains small networks in eleven ways on three tables: a shortcut that agrees with the class for 95 % of the people,
planted data with a minority of 1 %, and UCI Adult with the cells of sex and income. Each is then pruned to 90 and 98 %
zeros, by magnitude and gradually, twice: `own`, with the training that made it, and `plain`, with ordinary training
and the least weight decay, as a person would who is handed the network. What is measured is the accuracy of the worst
group on test.

Every method has the same budget: six settings, three weight decays and two values of the method's own number, each
trained for the same number of steps. With groups `known` the setting is chosen by the worst group of validation;
`unknown`, by everybody's accuracy there, and only methods that do not use groups take part. Test data choose nothing.

What was found on five draws: with groups known, Group DRO gives the worst group 7 to 21 points more than ordinary
training does, and 19 to 29 at 98 % zeros if it goes on while it is pruned; pruned with ordinary training, a robust
network is an ordinary one. Group-balanced batches are not told apart from Group DRO. With groups unknown no claim holds
at all levels. The rates of P-DRO's density were set after a look at a pair that collapsed, on test as well.

A seed is another draw of the data, initialisation and order. It writes `runs/worst_groups/<id>/`: config.json,
records.jsonl (one line per network; the same command goes on where a killed run stopped), tables, figures, report.html.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import constraints, data, metrics, models, report, robust, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch, Model

IN_WORDS = {
    "erm": "ordinary training (ERM); its own number is a factor of the learning rate",
    "rwg": "batches with as many people of every group; a factor of the learning rate",
    "subg": "as many people of every group as the smallest has, the others left out; a factor of the learning rate",
    "group_dro": "Group DRO on such batches; the rate of its weights",
    "bound": "CEAG's machinery with a bound on how far a group is below everybody; the rate of its multipliers",
    "lisa": "LISA: mixtures of pairs of one class or of one group; how even they are",
    "dfr": "ordinary training, then a last layer of balanced parts of half of validation; the strength of its penalty",
    "cvar": "CVaR; the share of each batch that it looks at",
    "p_dro": "P-DRO with a Gaussian for each class, at a temperature of 1; the rate of the density",
    "rp_dro": "RP-DRO with an adversary of the same size; the temperature",
    "jtt": "JTT: once more, with those that a short training gets wrong counting more; how much more",
}
METHODS = tuple(IN_WORDS)
#: Two values of each method's own number, within the usual ones.
OWN = {
    "erm": (1.0, 0.3), "rwg": (1.0, 0.3), "subg": (1.0, 0.3), "group_dro": (0.01, 0.1), "bound": (0.1, 1.0),
    "lisa": (0.5, 2.0), "dfr": (1.0, 10.0), "cvar": (0.1, 0.3), "p_dro": (1e-4, 1e-3), "rp_dro": (0.3, 1.0),
    "jtt": (5.0, 20.0),
}  # fmt: skip
NEEDS_GROUPS = ("rwg", "subg", "group_dro", "bound", "lisa", "dfr")
DATASETS = {
    "spurious": "a shortcut that agrees with the class for 95 % of the people",
    "planted": "a minority of 1 % in which most features mean the other class",
    "adult": "UCI Adult, the cells of sex and income",
}
SELECTIONS = ("known", "unknown")
FINISHES = ("own", "plain")
NAMES = ("dataset", "selection", "method", "finish", "sparsity", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    """Robust training before and after pruning."""

    datasets: tuple[str, ...] = flags.several(tuple(DATASETS), of=DATASETS)  # of spurious, planted, adult
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)  # of those named in this file
    sparsities: tuple[float, ...] = flags.several((0.9, 0.98), float, above=0, below=1)  # shares of zeros
    seeds: int = flags.one(5, low=1, high=10_000)  # how many draws of data and initialisations
    decays: tuple[float, ...] = flags.several((1e-4, 1e-2, 1e-1), float, low=0)  # weight decays that are tried
    hidden: tuple[int, ...] = flags.several((32, 32), int, low=1)  # widths of the hidden layers
    steps: int = flags.one(1_200, low=1)  # of training
    prune_steps: int = flags.one(900, low=3)  # of pruning, of which the first two thirds prune
    short_steps: int = flags.one(60, low=1)  # of the short training of JTT
    batch_size: int = flags.one(128, low=4)  # examples a step
    learning_rate: float = flags.one(0.05, above=0)  # of SGD with momentum 0.9
    max_train: int = flags.one(8_000, low=400)  # people of the training split of Adult and of planted that are used
    runs_dir: str = "runs/worst_groups"  # the run goes into a folder in here
    id: str = ""  # name of that folder; a hash of the settings by default


class Task(NamedTuple):
    """The draws of a table, ``[S, N, ...]`` each, with the same people of each group and class in the same places."""

    model: Model
    train: Batch
    validation: Batch
    test: Batch
    group: np.ndarray
    y: np.ndarray
    attribute: np.ndarray
    sizes: np.ndarray
    classes: int
    names: tuple[str, ...]


def drawn(config: Config, name: str, seed: int) -> data.Dataset:
    """One draw of a table."""
    if name == "adult":
        return data.load("adult", groups=("sex", "label"), split_seed=seed)
    if name == "planted":  # half as many again, so that every draw has enough of each group and class
        return data.planted(key=jax.random.key(5), num_train=config.max_train * 3 // 2, split_seed=seed)
    return data.spurious(key=jax.random.key(5), split_seed=seed)


def begin(config: Config, name: str) -> Task:
    """All draws; of training as many of each group and class as the first one says, in their order."""
    loaded = [drawn(config, name, seed) for seed in range(config.seeds)]
    first = loaded[0]
    people = min(config.max_train, len(first.train.y))
    cells = [one.train.group * first.num_classes + one.train.y for one in loaded]
    counts = np.bincount(cells[0], minlength=first.num_groups * first.num_classes)
    counts = np.round(counts * people / len(cells[0])).astype(int)
    stacks: dict[str, list[Batch]] = {"train": [], "validation": [], "test": []}
    for one, cell in zip(loaded, cells, strict=True):
        places = np.concatenate([np.flatnonzero(cell == c)[:count] for c, count in enumerate(counts)])
        kept = jax.tree.map(lambda leaf, places=places: leaf[places], one.train)
        stacks["train"].append(kept._replace(index=np.arange(len(places), dtype=np.int32)))
        stacks["validation"].append(one.validation)
        stacks["test"].append(one.test)
    stacked = {split: jax.tree.map(lambda *leaves: np.stack(leaves), *parts) for split, parts in stacks.items()}
    group, y = (leaf[0] for leaf in (stacked["train"].group, stacked["train"].y))
    sizes, model = np.bincount(group), models.mlp(first.num_classes, hidden=config.hidden)
    # What a group is beside the class: the sign of the shortcut, the population, the sex.
    attribute = {"spurious": (y == group % 2).astype(int), "planted": group, "adult": group // 2}[name]
    return Task(model, **stacked, group=group, y=y, attribute=attribute, sizes=sizes, classes=first.num_classes,
                names=first.group_names)  # fmt: skip


def objective_of(task: Task, method: str, own: Any) -> robust.Objective:
    """The adversary of a method; that of ordinary training for those whose batches are what is robust."""
    if method == "group_dro":
        return robust.group_dro(len(task.sizes), rate=own, sizes=task.sizes)
    if method == "cvar":
        return robust.cvar(own)
    if method == "rp_dro":
        return robust.ratio_dro(task.model, optax.adam(1e-3), temperature=own)
    if method == "p_dro":
        # One density for all draws: that of the first one; what it learns is each lane's own.
        first = jax.tree.map(lambda leaf: leaf[0], task.train)
        density = robust.gaussians(first.x, first.y, task.classes)
        return robust.parametric_dro(density, optax.sgd(own), temperature=1.0)
    return robust.erm()


def solver_of(config: Config, task: Task, method: str, setting: Any, schedule: Any = None) -> tuple[Any, Any]:
    """The solver of a method, and ``start(key, params, split)`` of its state. The setting may be traced."""
    factor = setting["own"] if method in ("erm", "rwg", "subg") else 1.0
    plain = optax.sgd(config.learning_rate * factor, momentum=0.9)
    tx = optax.chain(optax.add_decayed_weights(setting["decay"]), plain)
    if schedule is not None:
        tx = sparsity.prune(tx, schedule, prunable=task.model.prunable)
    if method == "bound":
        problem = constraints.accuracy_parity(task.model.apply, num_groups=len(task.sizes), tolerance=0.02)
        problem = problem._replace(formulation=constraints.normalized_lagrangian())
        game = constraints.solver(problem, primal=tx, dual=optax.sgd(setting["own"]))
        return game, lambda key, params, split: game.init(params, problem.init({}, None, split))
    objective = objective_of(task, method, setting["own"])
    apply, mixed = task.model.apply, method == "lisa"
    solver = robust.solver(robust.once(apply) if mixed else apply, objective, tx)
    solver = robust.lisa(solver, alpha=setting["own"]) if mixed else solver

    def start(key: Any, params: Any, split: Batch) -> Any:
        few = jax.tree.map(lambda leaf: leaf[:2], split)
        return solver.init(params, {}, objective.init(key, few))

    return solver, start


def order_of(config: Config, task: Task, method: str, steps: int) -> Any:
    """Who is in which batch: anybody, balanced groups, or the members of a balanced part."""
    size, more = config.batch_size, {"group": task.group, "num_steps": steps}
    if method in ("rwg", "group_dro"):
        return functools.partial(train.balanced_order, num_groups=len(task.sizes), batch_size=size, **more)
    if method == "subg":
        least = min(size, len(task.sizes) * int(task.sizes.min()))
        return functools.partial(robust.subsample_order, batch_size=least, **more)
    if method == "lisa":
        return functools.partial(robust.lisa_order, batch_size=size, y=task.y, **more | {"group": task.attribute})

    def anybody(key: Any, epoch: Any) -> Any:
        return jax.random.randint(jax.random.fold_in(key, epoch), (steps, size), 0, len(task.group))

    return anybody


def fitted(
    config: Config, task: Task, method: str, lanes: dict[str, Any], params: Any, steps: int, *,
    share: float | None = None, weight: Any = None,
) -> Any:  # fmt: skip
    """Parameters ``[L, ...]`` after so many steps of L lanes, pruned where asked, and which lanes stopped at a nan."""
    end = max(1, 2 * steps // 3)
    schedule = None if share is None else sparsity.polynomial(share, begin=0, end=end, every=max(1, end // 20))
    seeds = np.asarray(lanes["seed"])
    split = jax.tree.map(lambda leaf: jnp.asarray(leaf[seeds]), task.train)
    split = split if weight is None else split._replace(weight=jnp.asarray(weight))
    keys = jnp.stack([jax.random.fold_in(jax.random.key(int(s)), 0 if share is None else 1) for s in seeds])
    setting = {name: jnp.asarray(lanes[name], jnp.float32) for name in ("decay", "own")}
    made = functools.partial(solver_of, config, task, method, schedule=schedule)
    start = jax.jit(jax.vmap(lambda s, key, p, rows: made(s)[1](key, p, rows)))(setting, keys, params, split)
    state = train.fit(
        lambda s: made(s)[0], start, split, keys=keys, settings=setting, epochs=1, batch_size=config.batch_size,
        num_steps=steps, order=order_of(config, task, method, steps), split_axes=Batch._make([0] * 5),
    )  # fmt: skip
    return state.solver.params, np.asarray(state.failed_at) >= 0


predictor = functools.cache(lambda model: train.predictor(model.apply, train.Plan(), own=True))


def right_about(task: Task, params: Any, split: Batch) -> np.ndarray:
    """``[L, N]``: who is classified rightly."""
    return np.asarray(predictor(task.model)(params, {}, split).label) == np.asarray(split.y)


def trained(config: Config, task: Task, method: str) -> tuple[dict[str, Any], Any]:
    """Every setting with every seed: the lanes, and their dense networks."""
    grid = list(itertools.product(range(config.seeds), config.decays, OWN[method]))
    lanes = dict(zip(("seed", "decay", "own"), map(np.array, zip(*grid, strict=True)), strict=True))
    start = jax.vmap(lambda key: task.model.init(key, jnp.asarray(task.train.x[0, :1]))[0])
    fresh = start(jnp.stack([jax.random.key(int(s)) for s in lanes["seed"]]))
    weight = None
    if method == "jtt":
        short, _ = fitted(config, task, "erm", lanes | {"own": np.ones(len(grid))}, fresh, config.short_steps)
        split = jax.tree.map(lambda leaf: leaf[lanes["seed"]], task.train)
        correct = right_about(task, short, split)
        each = zip(correct, lanes["own"], strict=True)
        weight = np.stack([robust.just_train_twice(right, up=up) for right, up in each])
    base = {"jtt": "erm", "dfr": "erm"}.get(method, method)
    own = lanes["own"] if base == method else np.ones(len(grid))
    found, stopped = fitted(config, task, base, lanes | {"own": own}, fresh, config.steps, weight=weight)
    lanes = lanes | {"stopped": stopped} | ({} if weight is None else {"weight": weight})
    return lanes, retrained(task, lanes, found) if method == "dfr" else found


def retrained(task: Task, lanes: dict[str, Any], params: Any) -> Any:
    """The last layers anew, on every other person of validation; the others choose the setting."""
    half = task.validation._replace(weight=task.validation.weight * (task.validation.index % 2 == 0))
    held = jax.tree.map(lambda leaf: jnp.asarray(leaf[lanes["seed"]]), half)
    split, groups = task.model.split, len(task.sizes)
    assert split is not None

    def one(params: Any, rows: Batch, strength: Any, key: Any) -> Any:
        z, _ = split.features(params, {}, rows.x, train=False)
        head = robust.last_layer(
            z, rows.y, rows.group, num_classes=task.classes, num_groups=groups, key=key, strengths=(strength,),
            penalty="l2", refits=5, steps=200, weight=rows.weight,
        )  # fmt: skip
        return robust.with_head(params, split, head)

    keys = jnp.stack([jax.random.fold_in(jax.random.key(int(s)), 2) for s in lanes["seed"]])
    return jax.jit(jax.vmap(one))(params, held, jnp.asarray(lanes["own"], jnp.float32), keys)


def accuracies(task: Task, lanes: dict[str, Any], params: Any, split: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Of each lane: everybody's accuracy, with the groups' shares of training, and that of each group."""
    rows = jax.tree.map(lambda leaf: leaf[lanes["seed"]], split)
    right = right_about(task, params, rows)
    means = functools.partial(metrics.group_means, num_groups=len(task.sizes))
    of_group = np.stack([means(one, group) for one, group in zip(right, rows.group, strict=True)])
    return of_group @ (task.sizes / task.sizes.sum()), of_group


def chosen(config: Config, lanes: dict[str, Any], mean: np.ndarray, of_group: np.ndarray, selection: str) -> np.ndarray:
    """The lane of each seed that validation prefers; the first of equals."""
    score = of_group.min(axis=1) if selection == "known" else mean
    of_seed = (np.flatnonzero(lanes["seed"] == s) for s in range(config.seeds))
    return np.array([at[np.argmax(score[at])] for at in of_seed])


def networks(config: Config, task: Task, method: str, selections: Sequence[str]) -> list[dict[str, Any]]:
    """All records of a method on a table: dense, and pruned with its own training and with the ordinary one."""
    lanes, dense = trained(config, task, method)
    held = task.validation
    if method == "dfr":  # not whom its last layers were fitted on
        held = held._replace(group=np.where(held.index % 2 == 0, -1, held.group))
    mean, of_group = accuracies(task, lanes, dense, held)
    at = np.concatenate([chosen(config, lanes, mean, of_group, selection) for selection in selections])
    best = {name: values[at] for name, values in lanes.items()}
    params = jax.tree.map(lambda leaf: leaf[at], dense)
    weight = best.pop("weight", None)
    found = [("own", 0.0, params, best["stopped"])]
    for finish, share in itertools.product(FINISHES, config.sparsities):
        plain = finish == "plain"
        base = "erm" if plain or method in ("jtt", "dfr") else method
        numbers = {"own": best["own"] if base == method and not plain else np.ones(len(at))}
        if plain:
            numbers["decay"] = np.full(len(at), min(config.decays))
        more = {"share": share, "weight": None if plain else weight}
        kept, stopped = fitted(config, task, base, best | numbers, params, config.prune_steps, **more)
        kept = retrained(task, best, kept) if method == "dfr" and not plain else kept
        found.append((finish, share, kept, stopped))
    records = []
    for finish, share, pruned, stopped in found:
        everybody, groups = accuracies(task, best, pruned, task.test)
        for i, (selection, seed) in enumerate(itertools.product(selections, range(config.seeds))):
            worst = int(np.argmin(groups[i]))
            records.append({
                "selection": selection, "method": method, "finish": finish, "sparsity": share, "seed": seed,
                "worst": float(groups[i, worst]), "worst_group": task.names[worst], "accuracy": float(everybody[i]),
                "by_group": [float(a) for a in groups[i]], "decay": float(best["decay"][i]),
                "own_number": float(best["own"][i]), "stopped": bool(stopped[i]),
                "stage": "pruned" if share else "dense", **({"pruned": float(groups[i, worst])} if share else {}),
            })  # fmt: skip
    return records


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the page."""
    with study.opened(config, NAMES, grows=("datasets", "methods", "seeds")) as this:
        for name in config.datasets:
            task = study.once(lambda name=name: begin(config, name))
            wanted = []
            for method, selection, finish in itertools.product(config.methods, SELECTIONS, FINISHES):
                if selection == "unknown" and method in NEEDS_GROUPS:
                    continue
                shares = (0.0, *config.sparsities) if finish == "own" else config.sparsities
                wanted += study.grid(
                    dataset=[name], selection=[selection], method=[method], finish=[finish], sparsity=shares,
                    seed=range(config.seeds),
                )  # fmt: skip
            for shared, cells in this.missing(wanted, together=("dataset", "method"), whole=True):
                took, method = study.clock(), shared["method"]
                selections = [s for s in SELECTIONS if s == "known" or method not in NEEDS_GROUPS]
                rows = networks(config, task(), method, selections)
                spent = took()
                of = {tuple(row[n] for n in NAMES[1:]): row for row in rows}
                for cell in cells:
                    row = of[tuple(cell[n] for n in NAMES[1:])]
                    numbers = {k: v for k, v in row.items() if k not in NAMES}
                    this.record(cell, numbers | {k: v / len(rows) for k, v in spent.items()})
        tell(this)


def claims(records: Sequence[Any], *, every: bool = False) -> list[study.Claim]:
    """That robust training helps the worst group, and is kept: of two methods, or of all, pruned in both ways."""
    better, as_good = ("better for the worst group", "worse for it"), ("no worse for the worst group", "worse for it")
    wanted = [
        *(("known", m, "erm", better, 0.0) for m in NEEDS_GROUPS),
        ("known", "rwg", "group_dro", as_good, -0.01),
        *(("unknown", m, "erm", better, 0.0) for m in ("cvar", "p_dro", "rp_dro", "jtt")),
    ]
    found = []
    for dataset in study.values(records, "dataset"):
        for (selection, method, peer, words, margin), finish in itertools.product(wanted, FINISHES):
            if not every and (finish == "plain" or method not in ("group_dro", "jtt")):
                continue
            among = {"dataset": dataset, "selection": selection, "finish": finish}
            among |= {"stage": "pruned"} if finish == "plain" else {}
            if {method, peer} <= set(study.values(study.chosen(records, **among), "method")):
                found.append(study.Claim(method, peer, "worst", words, margin=margin, among=among, level=zeros))
        for method in ("group_dro", "dfr") if every else ("group_dro",):
            among = {"dataset": dataset, "selection": "known", "method": method, "stage": "pruned"}
            if set(FINISHES) <= set(study.values(study.chosen(records, **among), "finish")):
                found.append(study.Claim("own", "plain", "pruned", better, of="finish", among=among, level=zeros))
    return found


def headline(records: Sequence[Any]) -> list[str]:
    """The worst group with ordinary training and Group DRO: dense, and with the most zeros, pruned in both ways."""
    most, say, said = max(study.values(records, "sparsity")), report.in_points("worst", digits=0), []
    for dataset, method in itertools.product(study.values(records, "dataset"), ("erm", "group_dro")):
        of = functools.partial(study.chosen, records, dataset=dataset, selection="known", method=method)
        if of():
            dense, own, plain = (
                say(of(finish=f, sparsity=s)) for f, s in (("own", 0.0), ("own", most), ("plain", most))
            )
            said.append(
                f"Worst group of {dataset}, {method}: {dense} dense; {own} at {zeros(most)}; {plain} pruned plainly."
            )
    return said


def zeros(share: float) -> str:
    """A sparsity as a reader sees it."""
    return f"{100 * share:g} % zeros" if share else "dense"


def column(name: str, finish: str, share: float) -> Callable[[Sequence[Any]], str]:
    """The numbers of a method at one sparsity and finish."""
    say, of = report.in_points(name, digits=1), functools.partial(study.chosen, finish=finish, sparsity=share)
    return lambda rows: say(mine) if (mine := of(rows)) else ""


def tell(this: study.Run) -> None:
    """The page."""
    records = this.records
    names = [report.Name("dataset"), report.Name("selection", "groups"), report.Name("method", order=METHODS)]
    shares = sorted(set(study.values(records, "sparsity")) - {0.0})
    parts = [("dense", "own", 0.0)]
    parts += [(f"{100 * s:g} %, {f}", f, s) for s in shares for f in FINISHES]
    worst = report.table(records, names, {said: column("worst", f, s) for said, f, s in parts})
    everybody = report.table(records, names, {said: column("accuracy", f, s) for said, f, s in parts})
    rows = []
    for dataset in study.values(records, "dataset"):
        row = []
        for selection in study.values(records, "selection"):
            fit = ("erm", *(m for m in METHODS if (m in NEEDS_GROUPS) == (selection == "known")))
            mine = study.chosen(records, dataset=dataset, selection=selection, finish="own")
            lines = report.lines([r for r in mine if r["method"] in fit], "worst", along="sparsity")
            row.append(figures.Panel(lines, f"{dataset}, groups {selection}", "worst group (%)"))
        rows.append(row)
    drawing = figures.levels(rows, methods=METHODS, along="zeros (%)", say=lambda s: f"{100 * s:g}")
    seconds = sum(r["cpu_seconds"] for r in records)
    judged = [study.judge(records, claim) for claim in claims(records, every=True)]
    report.study(
        this,
        prog="experiments.worst_groups",
        title="The worst group",
        subtitle="robust training, before and after pruning",
        found=[*headline(records), *(study.judge(records, claim) for claim in claims(records))],
        drawn=[report.Drawn(
            "worst", drawing, "Accuracy of the worst group on test. Bars: 95 % intervals over seeds.",
            alt="accuracy of the worst group against the share of zeros; the numbers are in the table",
        )],
        shown=[
            report.Shown(
                "table", worst, "The worst group, every method.",
                "Accuracy on test in points, mean and half-width of the 95 % t interval over seeds. Own: pruned "
                "with the training that made it, at its weight decay; plain: with ordinary training and the least one.",
                numbers=pd.DataFrame(records), title="worst group, in points, mean ± 95 % over seeds",
            ),
            report.Shown("everybody", everybody, "Everybody, with the groups' shares of training."),
            report.Shown("claims", report.verdicts(judged), "Every claim, also of networks pruned plainly."),
        ],
        done=[f"{m}: {w}." for m, w in IN_WORDS.items() if m in study.values(records, "method")]
        + [f"{d}: {w}." for d, w in DATASETS.items() if d in study.values(records, "dataset")],
        paragraphs=[
            f"Training and measuring took {seconds:,.0f} CPU seconds in all. {sum(r['stopped'] for r in records)} of "
            f"{len(records)} networks stopped at a number that is not finite, and count as they were then.",
        ],
    )  # fmt: skip


main = flags.entry(run, Config, prog="worst_groups")


if __name__ == "__main__":
    main()
