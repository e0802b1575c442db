"""Sensing: whether pruning as compressed sensing beats gradual magnitude pruning at equal steps, and to whom.

    .venv/bin/python -m experiments.sensing

trains a network, prunes it in rounds with training in between, and goes on with the last masks. In each round weights
go by magnitude, by weight times input (wanda), or as `sparsity.csp` has it: the sparse weights of which a layer's
inputs tell least, found without labels. Two of the methods say which half of that is worth it: magnitude's support with
values re-solved, and csp with a random sensing matrix, which must not win. All of them begin with the same trained
network, and have the same steps, optimizer and examples; a dense network that goes on as long stands beside them.

csp is our design: the paper that the idea comes from (arXiv 2102.04932) has no public equations.

Found, with five seeds in twelve CPU minutes, for digits, 12,000 images of Fashion-MNIST and 10,000 of CIFAR-10 (95 %
intervals): with the few steps that the defaults leave after pruning, csp is more accurate than magnitude by 9.3 ± 1.9
points on CIFAR-10 and 2.6 ± 1.2 on Fashion-MNIST at 90 % of zeros, as much or more at 97 %, and kinder to the class
that loses most; on digits it is not told apart. Random measurements never win. At 90 % all of it is the re-solve; with
more zeros the re-solve of magnitude's support can go wrong (on digits), and csp does not. And it stands in for
training: with ten times as many steps afterwards (`--after 30`) nothing is told apart any more on Fashion-MNIST (+0.2 ±
0.5, -0.3 ± 1.0 and -0.8 ± 1.8 points at 90, 97 and 99 %) and on CIFAR-10 at 90 % (+0.8 ± 1.6).

Data are digits and CIFAR-10 (`--data_dir` with its two files), or a file of one's own (`--file`, as `data.load` reads
it). The network of images with colours reads patches of 3 x 3 by dense layers: a convolution whose inputs are known.

It writes `runs/sensing/<id>/`: config.json, records.jsonl (one line per network; the same command goes on where a
killed run stopped), the dense networks, tables, a figure, report.html.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import data, metrics, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch, Model

IN_WORDS = {
    "dense": "not pruned, trained for as many steps",
    "magnitude": "gradually, the smallest weights (GMP)",
    "magnitude_solved": "so, and the kept weights re-solved for the layer's inputs at every round",
    "wanda": "gradually, the smallest weight times the norm of its input, compared over the whole layer",
    "csp": "gradually, support and values as sparsity.csp finds them from the layer's inputs",
    "csp_random": "so, with half as many random measurements in place of the inputs: the control",
}
METHODS, PEER = tuple(IN_WORDS)[1:], "magnitude"
DATA_SETS = ("digits", "cifar10", "file")


@dataclasses.dataclass(frozen=True)
class Config:
    """Gradual pruning by magnitude and by what a layer's inputs can tell."""

    # of digits, cifar10, file
    data_sets: tuple[str, ...] = flags.several(("digits",), of=DATA_SETS)
    # of magnitude, magnitude_solved, wanda, csp, csp_random
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # shares of zeros of all layers but the last
    sparsities: tuple[float, ...] = flags.several((0.9, 0.97, 0.99), float, low=0, below=1)
    # how many networks
    seeds: int = flags.one(5, low=1, high=10_000)
    # folder with cifar10_train.npz and cifar10_test.npz, or of TFDS
    data_dir: str = ""
    # of the data set "file", with arrays x, y and group
    file: str = ""
    # training images that are used, at most
    examples: int = flags.one(10_000, low=10)
    # hidden units, of flat inputs
    hidden: tuple[int, ...] = flags.several((128, 64), int, low=1)
    # steps in a round
    every: int = flags.one(100, low=1)
    # rounds before pruning, with pruning at their beginning, and after it
    before: int = flags.one(15, low=1)
    rounds: int = flags.one(10, low=1)
    after: int = flags.one(3, low=1)
    # examples a step
    batch_size: int = flags.one(64, low=1)
    # of Adam, falling to 0 along a cosine
    learning_rate: float = flags.one(0.002, above=0)
    # examples whose inputs are measured
    calibration: int = flags.one(1000, low=1)
    # the run goes into a folder in here
    runs_dir: str = "runs/sensing"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """What no flag can say by itself."""
        if ("file" in self.data_sets) != bool(self.file):
            raise flags.UsageError("--file=people.npz goes with --data_sets=file")


# --- data and networks ---------------------------------------------------------------------------------------------


def dense_model(sizes: Sequence[int], patches: bool) -> Model:
    """Dense layers with ReLU; with ``patches`` all but the last read patches of 3 x 3, at every other place."""
    widths = [*(9 * n for n in sizes[:-2]), sizes[-2]] if patches else sizes[:-1]

    def init(key: jax.Array, x: Any) -> tuple[Any, Any]:
        keys, make = jax.random.split(key, len(widths)), jax.nn.initializers.he_normal()
        layers = {
            f"Dense_{i}": {"bias": jnp.zeros(out), "kernel": make(k, (n, out))}
            for i, (k, n, out) in enumerate(zip(keys, widths, sizes[1:], strict=True))
        }
        return layers, {}

    def apply(params: Any, state: Any, x: Any, *, train: bool, key: Any = None) -> tuple[Any, Any]:
        for i in range(len(widths)):
            last, layer = i == len(widths) - 1, params[f"Dense_{i}"]
            if patches and not last:
                rows, wide = (x.shape[1] + 1) // 2, jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
                corners = [(a, b) for a in range(3) for b in range(3)]
                x = jnp.concatenate([wide[:, a : a + 2 * rows : 2, b : b + 2 * rows : 2] for a, b in corners], -1)
            elif patches:
                x = x.mean((1, 2))
            x = x @ layer["kernel"] + layer["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
            x = x if last else jax.nn.relu(x)
        return x, state

    ends = [f"Dense_{i}/kernel" for i in range(len(widths) - 1)]
    return Model(init, apply, prunable=lambda path: path in ends)


class Task(NamedTuple):
    """A data set of S seeds: arrays ``[S, N, ...]``; the solver of masked networks, and what drives it."""

    seeds: tuple[int, ...]
    model: Model
    train: Batch
    test: Batch
    solver: Any
    inner: Any
    classes: int
    plan: train.Plan


def load(config: Config, name: str, seeds: Sequence[int]) -> Task:
    """The data of these seeds, pixels between 0 and 1."""
    options: dict[str, Any] = {"data_dir": config.data_dir or None} if name == "cifar10" else {}
    sets = []
    for seed in seeds:
        if name == "file":
            options = {"groups": "y", "split_seed": seed}
        elif name == "digits":
            options = {"split_seed": seed}
        sets.append(data.load(config.file if name == "file" else name, **options))
    splits = [(data.sample(d.train, config.examples, seed=s), d.test) for s, d in zip(seeds, sets, strict=True)]
    split, test = jax.tree.map(lambda *arrays: np.stack(arrays), *splits)
    coloured, most = split.x.ndim == 5 and split.x.shape[-1] > 1, max(1.0, float(np.max(split.x)))
    shaped = (lambda x: x) if coloured else (lambda x: x.reshape(*x.shape[:2], -1))
    split, test = (b._replace(x=shaped(np.asarray(b.x, np.float32) / most)) for b in (split, test))
    classes = sets[0].num_classes
    sizes = (3, 8, 16, 32, 64, classes) if coloured else (split.x.shape[-1], *config.hidden, classes)
    model = dense_model(sizes, coloured)
    steps = config.every * (config.before + config.rounds + config.after)
    inner = optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))
    tx = sparsity.prune(inner, sparsity.constant(0), prunable=model.prunable)
    plan = train.plan(model, train.take(split, 0), "map")
    return Task(tuple(seeds), model, split, test, train.descent(model.apply, tx), inner, classes, plan)


@functools.cache
def order(people: int, batch_size: int, steps: int) -> Any:
    """``order(key, epoch) -> [T, B]``, whole passes and a beginning of one."""
    a_pass = people // batch_size
    passes = -(-steps // a_pass)

    def of(key: Any, epoch: Any) -> Any:
        known = {"num_examples": people, "batch_size": batch_size, "num_steps": passes * a_pass}
        return train.epoch_order(key, epoch, **known)[:steps]

    return of


def trained(config: Config, task: Task, state: Any, rounds: Sequence[int]) -> Any:
    """The solver's state ``[S, ...]`` after some rounds of training."""
    people = task.train.y.shape[1]
    batch_size = min(config.batch_size, people)
    for number in rounds:
        keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), 10 + number) for seed in task.seeds])
        found = train.fit(
            task.solver, state, task.train, keys=keys, epochs=1, batch_size=batch_size, num_steps=config.every,
            plan=task.plan, split_axes=Batch(0, 0, 0, 0, 0), order=order(people, batch_size, config.every),
        )  # fmt: skip
        state = found.solver
    return state


def begun(config: Config, task: Task, folder: pathlib.Path, name: str) -> Any:
    """The state of the dense networks when pruning begins, from its file where there is one."""
    keys = jnp.stack([jax.random.key(seed) for seed in task.seeds])
    example = jnp.zeros((1, *task.train.x.shape[2:]))
    start = task.plan.lift(lambda key: task.solver.init(*task.model.init(key, example)))(keys)
    files = [folder / f"dense_{name}_{seed}.npz" for seed in task.seeds]

    def make(rows: list[int]) -> Any:
        mine = task._replace(seeds=tuple(task.seeds[i] for i in rows), train=train.take(task.train, np.array(rows)))
        return trained(config, mine, train.take(start, np.array(rows)), range(config.before))

    return train.from_files(files, jax.eval_shape(lambda: train.take(start, 0)), make)


# --- a round of pruning --------------------------------------------------------------------------------------------


@functools.cache
def measuring(model: Model) -> Any:
    """``grams(params, x)``, of the inputs of every layer that is pruned."""
    return jax.jit(
        lambda params, x: sparsity.input_grams(
            lambda p: model.apply(p, {}, x, train=False)[0], params, prunable=model.prunable
        )
    )


def pruned(config: Config, task: Task, method: str, lane: int, state: Any, share: float, number: int) -> Any:
    """A lane's state with fewer weights."""
    params, masks, prunable = state.params, state.opt_state.masks, task.model.prunable
    grams = measuring(task.model)(params, jnp.asarray(task.train.x[lane][: config.calibration]))
    if method == "csp_random":
        keys = jax.random.split(jax.random.fold_in(jax.random.key(task.seeds[lane]), 1000 + number), len(grams))
        for key, (path, gram) in zip(keys, list(grams.items()), strict=True):
            phi = jax.random.normal(key, (gram.shape[-1] // 2, gram.shape[-1]))
            grams[path] = phi.T @ phi
    if method.startswith("csp"):
        params, new, _ = sparsity.csp(params, grams, share, prunable=prunable)
    else:
        scores = jax.tree.map(jnp.abs, params)
        if method == "wanda":
            for path, gram in grams.items():
                layer, leaf = path.split("/")
                scores[layer][leaf] *= jnp.sqrt(jnp.diagonal(gram[0]))[:, None]
        new = sparsity.one_shot(params, share, scores=scores, prunable=prunable)[1]
        if method == "magnitude_solved":
            params = sparsity.re_solve(params, grams, new, prunable=prunable)
        params = sparsity.apply_masks(params, new)
    back = jax.tree.map(lambda now, then: now & ~then, new, masks)
    inner = sparsity.reset_moments(task.inner, state.opt_state.inner, params, back)
    returned = sum(int(jnp.sum(b)) for b in jax.tree.leaves(back))
    return state._replace(params=params, opt_state=state.opt_state._replace(masks=new, inner=inner)), returned


def gradual(config: Config, task: Task, method: str, share: float, state: Any) -> tuple[Any, Any, np.ndarray]:
    """The state at the end, the parameters right after the last pruning, and how many weights came back, ``[S]``."""
    schedule, returned = (
        sparsity.stage_sparsities(share, config.rounds, kind="polynomial"),
        np.zeros(len(task.seeds), int),
    )
    bare = state.params
    for number, now in enumerate(schedule):
        if method != "dense":
            lanes = [pruned(config, task, method, i, train.take(state, i), now, number) for i in range(len(task.seeds))]
            state, back = train.stack([lane for lane, _ in lanes]), [n for _, n in lanes]
            returned += np.array(back)
        bare = state.params
        state = trained(config, task, state, [config.before + number])
    first = config.before + config.rounds
    return trained(config, task, state, range(first, first + config.after)), bare, returned


# --- the run -------------------------------------------------------------------------------------------------------


@functools.cache
def judging(model: Model) -> Any:
    """``right(params, x, y) -> [S, N]``, who is classified rightly."""
    return jax.jit(jax.vmap(lambda p, x, y: metrics.correct(model.apply(p, {}, x, train=False)[0], y)))


def right(task: Task, params: Any) -> np.ndarray:
    """``[S, N]``, who of the test split is."""
    return np.asarray(judging(task.model)(params, task.test.x, task.test.y))


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the page."""
    seeds, where = range(config.seeds), {"data": config.data_sets}
    wanted = study.grid(**where, sparsity=[0.0], method=["dense"], seed=seeds)
    wanted += study.grid(**where, sparsity=config.sparsities, method=config.methods, seed=seeds)
    names = ("data", "sparsity", "method", "seed")
    with study.opened(config, names, grows=("data_sets", "sparsities", "methods", "seeds")) as this:

        @functools.lru_cache(maxsize=1)
        def ready(name: str, seeds: tuple[int, ...]) -> tuple[Task, Any, np.ndarray]:
            task = load(config, name, seeds)
            start = begun(config, task, this.folder, name)
            dense, *_ = gradual(config, task, "dense", 0.0, start)
            return task, start, right(task, dense.params)

        for shared, cells in this.missing(wanted, together=names[:3], whole=True):
            task, start, dense = ready(shared["data"], tuple(cell["seed"] for cell in cells))
            took, method = study.clock(), shared["method"]
            state, bare, returned = gradual(config, task, method, shared["sparsity"], start)
            spent, after, once = took(), right(task, state.params), right(task, bare)
            flat = jax.vmap(functools.partial(sparsity.flatten_prunable, prunable=task.model.prunable))(state.params)
            for i, cell in enumerate(cells):
                gaps = metrics.accuracy_gaps(dense[i], after[i], task.test.y[i], task.classes)
                this.record(cell, {
                    "accuracy": float(after[i].mean()),
                    "accuracy_bare": float(once[i].mean()),
                    "accuracy_dense": float(dense[i].mean()),
                    "max_excess": float(gaps.max_excess),
                    "worst_change": -float(gaps.largest_loss),
                    "weights": flat.shape[1],
                    "zeros": int(jnp.sum(flat[i] == 0)),
                    "returned": int(returned[i]),
                    **spent,
                })  # fmt: skip
        tell(this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of csp, of each of its halves, and of the control, on each data set."""
    better, kinder = ("more accurate", "less accurate"), ("kinder to the class that loses most", "harder on it")
    wanted = [("csp", "magnitude", "accuracy", better), ("csp", "magnitude", "worst_change", kinder)]
    pairs = ("csp", "magnitude_solved"), ("magnitude_solved", "magnitude"), ("csp_random", "magnitude")
    wanted += [(method, peer, "accuracy", better) for method, peer in pairs]
    return [
        study.Claim(method, peer, column, words, among={"data": name})
        for name in study.values(records, "data")
        for method, peer, column, words in wanted
        if all(study.chosen(records, data=name, method=m) for m in (method, peer))
    ]


def headline(records: Sequence[Any]) -> list[str]:
    """What was done, in a sentence per data set."""
    said = []
    for name in study.values(records, "data"):
        dense = study.by_seed(study.chosen(records, data=name), "accuracy", method="dense")
        weights = study.chosen(records, data=name)[0]["weights"]
        said.append(
            f"{name}: {len(dense)} networks with {weights:,} weights that may be pruned; dense, and trained as long, "
            f"{100 * dense.mean():.1f} % accurate."
        )
    return said


def drawn(records: Sequence[Any]) -> report.Drawn:
    """Accuracy after the last pruning and at the end, and what the class that loses most loses."""
    sides = {
        "accuracy_bare": "right after the last pruning (%)",
        "accuracy": "accuracy at the end (%)",
        "worst_change": "class that loses most (points)",
    }
    rows = []
    for name in study.values(records, "data"):
        mine = study.chosen(records, data=name)
        dense = 100 * study.by_seed(mine, "accuracy", method="dense").mean()
        sparse = [r for r in mine if r["method"] != "dense"]
        level = {"accuracy_bare": dense, "accuracy": dense}
        rows.append([
            figures.Panel(report.lines(sparse, c, along="sparsity"), name, said, level.get(c, np.nan))
            for c, said in sides.items()
        ])  # fmt: skip
    return report.Drawn(
        "sensing",
        figures.levels(rows, methods=METHODS, along="zeros", say=study.percent),
        "Dotted: dense. Bars are 95 % intervals over seeds.",
        alt="accuracy and the loss of the class that loses most, a line per method; the numbers are in the table",
    )


def tell(this: study.Run) -> None:
    """The page."""
    records, there = this.records, study.values(this.records, "method")
    zeros = report.Name("sparsity", "zeros", study.percent)
    names = [report.Name("data"), zeros, report.Name("method", order=tuple(IN_WORDS))]
    columns = {
        "accuracy": report.in_points("accuracy"),
        "right after pruning": report.in_points("accuracy_bare"),
        "class that loses most": report.in_points("worst_change"),
        "largest excess gap": report.in_points("max_excess"),
        "came back": report.number("returned", ".0f"),
        "CPU seconds": report.number("cpu_seconds", ".0f", of=np.median),
    }
    compared = {"accuracy": "accuracy", "class that loses most": "worst_change", "excess gap": "max_excess"}
    peers = {m: [PEER] for m in METHODS if m != PEER} | {"csp": [PEER, "magnitude_solved", "wanda"]}
    report.study(
        this,
        prog="experiments.sensing",
        title="Pruned by what the inputs tell",
        subtitle="Pruning as compressed sensing beside gradual magnitude pruning",
        found=[*headline(records), *(study.judge(records, claim) for claim in claims(records))],
        drawn=[drawn(records)],
        shown=[
            report.Shown(
                "table", report.table(records, names, columns), "Every method at every sparsity.",
                "On test, in points; mean and half-width of the 95 % t interval over seeds. Right after pruning: "
                "before the steps that follow the last round. Class that loses most: its change of accuracy against "
                "the dense network of the same seed, the smallest of several noisy numbers, so below 0 by chance "
                "alone. Largest excess gap: what that class lost beyond what all lost. Came back: weights that one "
                "round pruned and a later one took back, in the mean. CPU seconds: of all seeds side by side, after "
                "the shared beginning.",
                numbers=pd.DataFrame(records), title="in points, mean ± 95 % over seeds",
            ),
            report.Shown(
                "paired", report.paired_table(records, names, compared, peers=lambda m: peers.get(m, [])),
                "Paired differences on the same seeds, in points.",
                "An interval without 0 is a difference. More accuracy, changes nearer to 0, smaller gaps are better.",
            ),
        ],
        done=[f"{m}: {w}." for m, w in IN_WORDS.items() if m in there],
        paragraphs=[
            "Every layer but the last has the share of zeros. Rounds prune along a cubic. Values that are re-solved "
            "keep the moments of Adam; weights that come back begin with fresh ones. Nothing was tuned; test is only "
            "measured."
        ],
    )  # fmt: skip


main = flags.entry(run, Config, prog="sensing")


if __name__ == "__main__":
    main()
