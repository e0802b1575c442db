"""Fair pruning: masks and weights found together, or pruned first and mended later.

    .venv/bin/python -m experiments.fair_pruning

prunes networks on UCI Adult and on planted data with a minority of 1 percent, by BiFP and by methods of one and of two
stages. Of one stage: SNIP, the lottery ticket, gradual magnitude (GMP), FairGRAPE, BiP; of filters the smallest, FPGM
and BiP. Each is then trained on, as it is (`gmp`) or under a fairness constraint (`gmp_fair`); CEAG's way is GMP under
the constraint from its first step (`joint`), BiFP finds the masks under it as well. `--definition` is trained for, and
all are measured: that no group is right less often than everybody (`performance`, two-sided), that none loses much
(`degradation`), or more than the others (`degradation_fairness`, two-sided).

All begin with the same dense networks (SNIP and lottery tickets with their initialisation) and have the same epochs,
rates and surrogate. The surrogate and the multipliers' rate were set after a look at three seeds on Adult, at which the
cross entropy collapsed; nothing was set for one method. An iteration is an optimizer's step on one minibatch: dense
training, rounds of pruning, and mask steps count. Targets are fixed on validation, where the best of two stages ends.

What was found, with 690 networks in 27 minutes: BiFP's gaps are smaller where two stages leave them open (Adult 90 %:
-4.1 ± 4.0 points beside `gmp_fair`, for 1.4 ± 1.1 of accuracy; planted 97 %: -6.2 ± 3.0), not where they close them; no
claim holds at all levels, and of Adult's filters `fpgm_fair` is fairer at 90 % (1.7 ± 0.5).

A seed is another initialisation and order; `--split` is another split. It writes `runs/fair_pruning/<id>/`:
config.json, records.jsonl (one line per network; the same command goes on where a killed run stopped), tables, figures,
report.html. CelebA (blond hair) and LFW (wavy hair), both by gender, are presets, packed by TFDS in `--data_dir`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import constraints, data, metrics, models, recipes, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch, Model

STAGES = {
    "snip": "SNIP: masks at initialisation, by connection sensitivity",
    "lottery": "lottery ticket: trained, pruned and rewound three times",
    "gmp": "gradual magnitude pruning",
    "fairgrape": "FairGRAPE: in rounds that keep each group's share of importance",
    "l1": "the filters of smallest mean size go, at once",
    "fpgm": "FPGM: the filters next to the geometric median go, at once",
    "bip": "BiP: masks and weights found together, without a constraint",
}
TOGETHER = {
    "joint": "GMP under the constraint from its first step (CEAG's way)",
    "bifp": "BiFP: masks and weights found together, under the constraint at both levels",
    "bifp_masks": "BiFP with the constraint at the masks' level only",
    "bifp_weights": "BiFP with the constraint at the weights' level only",
    "bifp_relaxed": "BiFP with relaxed masks, made binary at the end",
    "bifp_held_out": "BiFP whose masks see three tenths of the training split, and whose weights the rest",
}
OF = {"weights": ("snip", "lottery", "gmp", "fairgrape", "bip", *TOGETHER), "filters": ("l1", "fpgm", "bip", "bifp")}
IN_WORDS = STAGES | {f"{m}_fair": f"{m}, then trained on under the constraint" for m in STAGES} | TOGETHER
METHODS = tuple(IN_WORDS)
DEFINITIONS = ("performance", "degradation", "degradation_fairness")
DATASETS = ("adult", "adult_race_sex", "planted", "celeb_a", "lfw")
SURROGATES = ("cross_entropy", "sigmoid", "hinge", "linear")
NAMES = ("dataset", "structure", "sparsity", "method", "seed")
#: Measured on test: in words, whether more is better, and how it is said.
MEASURES = {
    "accuracy": ("accuracy", 1, ("more accurate", "less accurate")),
    "gap": ("|gap|", -1, ("fairer in performance", "less fair in performance")),
    "worst_loss": ("largest loss of a group", -1, ("kinder to the group that loses most", "harder on it")),
    "loss_gap": ("degradation gap", -1, ("fairer in degradation", "less fair in degradation")),
}
first_of = functools.lru_cache(lambda method: method.removesuffix("_fair"))
SLACK, ROUNDS, HELD_OUT = 0.005, 3, 0.3


@dataclasses.dataclass(frozen=True)
class Config:
    """BiFP beside pruning of one and of two stages."""

    datasets: tuple[str, ...] = flags.several(("adult", "planted"), of=DATASETS)
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)  # of those named in this file
    structures: tuple[str, ...] = flags.several(("weights", "filters"), of=OF)  # what is pruned as a whole
    sparsities: tuple[float, ...] = flags.several((0.7, 0.9, 0.97), float, above=0, below=1)  # shares of zeros
    seeds: int = flags.one(5, low=1, high=10_000)  # how many
    split: int = flags.one(0, low=0)  # which split of the data
    definition: str = flags.one("performance", of=DEFINITIONS)  # of fairness, that networks are trained for
    tolerance: float = flags.one(0.02, low=0, high=1)  # of it
    surrogate: str = flags.one("sigmoid", of=SURROGATES)  # what the constraint is differentiated through
    dual_rate: float = flags.one(0.5, above=0)  # step size of the multipliers
    mask_rate: float = flags.one(1.0, above=0)  # step size of scores, along a cosine to 0
    gamma: float = flags.one(10.0, above=0)  # curvature of the lower level in BiP's closed form
    hidden: tuple[int, ...] = flags.several((64, 64), int, low=1)  # widths of the layers
    network: str = flags.one("small_cnn", of=("small_cnn", "resnet18"))  # of images
    dense_epochs: int = flags.one(8, low=1)  # of dense training
    epochs: int = flags.one(8, low=1)  # of pruning
    more_epochs: int = flags.one(4, low=1)  # of training on; methods of one run have these too
    batch_size: int = flags.one(128, low=2)  # examples a step
    learning_rate: float = flags.one(0.05, above=0)  # of SGD with momentum 0.9, along a cosine to 0
    max_train: int = flags.one(10_000, low=0)  # training examples that are used, but of planted; 0 is all
    data_dir: str = ""  # of images, where TFDS has them
    runs_dir: str = "runs/fair_pruning"  # the run goes into a folder in here
    id: str = ""  # name of that folder; a hash of the settings by default


class Task(NamedTuple):
    """Data, a network for them, and the dense networks of S seeds with their outcomes on train and test, ``[S, N]``."""

    data: data.Dataset
    model: Model
    plan: train.Plan
    share: np.ndarray
    steps: int
    fresh: Any
    dense: Any
    of_train: constraints.Outcomes
    of_test: np.ndarray


def load(config: Config, name: str) -> tuple[data.Dataset, Model]:
    """A dataset with its network."""
    if name.startswith("adult"):
        groups = ("race", "sex") if name == "adult_race_sex" else ("sex",)
        loaded = data.load("adult", groups=groups, split_seed=config.split)
    elif name == "planted":
        # Under 1 percent, and more than a hundred people.
        loaded = data.planted(key=jax.random.key(17), num_train=12_000, minority=0.009, split_seed=config.split)
    else:
        target, where = {"celeb_a": "Blond_Hair", "lfw": "Wavy Hair"}[name], config.data_dir or None
        loaded = data.load(name, target=target, groups=("Male",), data_dir=where, image_size=64, max_bytes=10**11)
    if name != "planted" and 0 < config.max_train < len(loaded.train.y):
        loaded = dataclasses.replace(loaded, train=data.sample(loaded.train, config.max_train, seed=0))
    made = models.mlp if np.ndim(loaded.train.x) == 2 else getattr(models, config.network)
    return loaded, made(loaded.num_classes, **({"hidden": config.hidden} if made is models.mlp else {}))


def keys(config: Config, purpose: int) -> jax.Array:
    """``[S]`` keys; another purpose has other ones."""
    return jnp.stack([jax.random.fold_in(jax.random.key(s), purpose) for s in range(config.seeds)])


def trained(
    config: Config, task: Task, method: str, share: float, start: Any, epochs: int, order: int, *,
    fair: bool = False, **more: Any,
) -> recipes.Sparse:  # fmt: skip
    """Networks by one method of `recipes.sparse`, watched on validation."""
    rate = optax.cosine_decay_schedule(config.learning_rate, epochs * task.steps)
    if fair:
        more |= {"problem": constraint(config, task), "dual": optax.sgd(config.dual_rate), "reference": task.of_train}
    size = min(config.batch_size, len(task.data.train.y) // 2 * 2)
    return recipes.sparse(
        method, task.model, task.data.train, share, optimizer=optax.sgd(rate, momentum=0.9), keys=keys(config, order),
        start=start, epochs=epochs, batch_size=size, plan=task.plan, num_groups=task.data.num_groups,
        watch=functools.partial(watched, task), **more,
    )  # fmt: skip


def constraint(config: Config, task: Task) -> constraints.Problem:
    """Of the definition that is trained for."""
    how: dict[str, Any] = {"num_groups": task.data.num_groups, "tolerance": config.tolerance}
    if config.surrogate != "cross_entropy":
        how["proxy_loss"] = constraints.soft_error(config.surrogate)
    if config.definition == "degradation":
        problem = constraints.accuracy_gap(task.model.apply, **how)
    else:
        of = {"performance": constraints.accuracy_parity, "degradation_fairness": constraints.excess_accuracy_gap}
        problem = constraints.two_sided(of[config.definition](task.model.apply, **how))
    return problem._replace(formulation=constraints.normalized_lagrangian())


def fairness(correct: Any, group: Any, num_groups: int, share: Any) -> tuple[Any, Any, Any]:
    """Everybody's accuracy, with the groups' shares of train; the gap of the best and the worst; each group's."""
    by_group = metrics.group_means(correct, group, num_groups)
    return jnp.sum(share * jnp.nan_to_num(by_group)), metrics.disparity(by_group), by_group


def watched(task: Task, params: Any, state: Any) -> jax.Array:
    """Accuracy and gap on validation, and the share of zeros, ``[3]``."""
    split = task.data.validation
    logits, _ = task.model.apply(params, state, jnp.asarray(split.x), train=False)
    right = metrics.correct(logits, jnp.asarray(split.y)).astype(jnp.float32)
    found = fairness(right, jnp.asarray(split.group), task.data.num_groups, jnp.asarray(task.share))
    zeros = jnp.mean(sparsity.flatten_prunable(params, prunable=task.model.prunable) == 0)
    return jnp.stack([*found[:2], zeros])


def begin(config: Config, name: str) -> Task:
    """The task, with dense networks trained."""
    loaded, model = load(config, name)
    plan = train.plan(model, loaded.train)
    fresh = plan.lift(lambda key: model.init(key, jnp.asarray(loaded.train.x[:1])))(keys(config, 0))
    share = np.bincount(loaded.train.group, minlength=loaded.num_groups) / len(loaded.train.group)
    steps = len(loaded.train.y) // min(config.batch_size, len(loaded.train.y) // 2 * 2)
    task = Task(loaded, model, plan, share.astype(np.float32), steps, fresh, None, None, None)  # type: ignore[arg-type]
    dense = trained(config, task, "dense", 0.0, fresh, config.dense_epochs, 1)
    task = task._replace(dense=dense)
    of_train, of_test = (outcomes(task, dense, split) for split in (loaded.train, loaded.test))
    return task._replace(of_train=of_train, of_test=np.asarray(of_test.correct))


predictor = functools.cache(lambda model, plan: train.predictor(model.apply, plan))


def outcomes(task: Task, found: Any, split: Batch) -> constraints.Outcomes:
    """``[S, N]``: who is right about whom."""
    said = predictor(task.model, task.plan)(found.params, found.model_state, split)
    return constraints.Outcomes(jnp.float32(said.label == split.y[None]), said.loss)


class Path(NamedTuple):
    """How a network came to be: its stages, the iterations before each, those of a step of the first, and its time."""

    stages: tuple[recipes.Sparse, ...]
    before: tuple[int, ...]
    speed: int = 1
    spent: Any = None


def levels(config: Config, task: Task, structure: str, epochs: int, **more: Any) -> dict[str, Any]:
    """What BiP and BiFP are told."""
    rate = optax.cosine_decay_schedule(config.mask_rate, epochs * task.steps)
    filters = {"structure": sparsity.channel(-1), "distribution": sparsity.uniform} if structure == "filters" else {}
    numbers = {"gamma": config.gamma, "weight_decay": 1e-4, "masks": optax.sgd(rate)}
    return {"levels": numbers | filters | more}


def masks_of(task: Task, share: float, params: Any, fpgm: bool = False, **axes: Any) -> Any:
    """``[S, ...]``, of the largest weights or filters, or of the filters farthest from all others."""
    prunable = task.model.prunable
    more = axes | ({"scores": functools.partial(sparsity.fpgm, prunable=prunable)} if fpgm else {})
    return jax.vmap(lambda p: sparsity.one_shot(p, share, prunable=prunable, **more)[1])(params)


def first_stage(config: Config, task: Task, method: str, structure: str, share: float) -> Path:
    """Pruning without a constraint."""
    at, short = config.dense_epochs * task.steps, config.epochs
    start = task.dense.params, task.dense.model_state
    if method == "snip":
        few = data.of_each_class(task.data.train, 64)
        few = jax.tree.map(lambda a: np.broadcast_to(a[None], (config.seeds, *np.shape(a))), few)
        return Path((trained(config, task, "snip", share, task.fresh, short, 2, few=few),), (0,))
    if method == "lottery":
        params, _ = start
        for r in range(1, ROUNDS + 1):
            part = round(1 - (1 - share) ** (r / ROUNDS), 7)
            masks = masks_of(task, part, params, distribution=sparsity.global_)
            found = trained(config, task, "given", share, task.fresh, short, 2 + r, masks=masks)
            params = found.params
        return Path((found,), (at + (ROUNDS - 1) * short * task.steps,))
    if method in ("l1", "fpgm"):
        masks = masks_of(task, share, start[0], method == "fpgm", structure=sparsity.channel(-1))
        return Path((trained(config, task, "given", share, start, short, 2, masks=masks),), (at,))
    if method == "bip":
        found = trained(config, task, "bip", share, start, short, 2, **levels(config, task, structure, short))
        return Path((found,), (at,), 2)
    name = "magnitude" if method == "gmp" else method
    return Path((trained(config, task, name, share, start, short, 2),), (at,))


def in_one_run(config: Config, task: Task, method: str, structure: str, share: float) -> Path:
    """Pruning under the constraint, for as long as the two stages together."""
    at, long = config.dense_epochs * task.steps, config.epochs + config.more_epochs
    start = task.dense.params, task.dense.model_state
    if method == "joint":
        return Path((trained(config, task, "magnitude", share, start, long, 2, fair=True),), (at,))
    more: dict[str, Any] = {
        "bifp_masks": {"fair": ("masks",)}, "bifp_weights": {"fair": ("weights",)}, "bifp_relaxed": {"relaxed": True}
    }.get(method, {})  # fmt: skip
    held = round(HELD_OUT * len(task.data.train.y)) if method == "bifp_held_out" else 0
    told = levels(config, task, structure, long, **more)
    return Path((trained(config, task, "bifp", share, start, long, 2, fair=True, held_out=held, **told),), (at,), 2)


def measured(config: Config, task: Task, path: Path) -> list[dict[str, Any]]:
    """The record of every seed."""
    test, groups, end = task.data.test, task.data.num_groups, path.stages[-1]
    right = np.asarray(outcomes(task, end, test).correct)
    final = np.asarray(task.plan.lift(functools.partial(watched, task))(end.params, end.model_state))
    soft = None
    if end.soft is not None:
        seen = outcomes(task, end._replace(params=end.soft), test).correct
        soft = [fairness(correct, test.group, groups, task.share)[:2] for correct in np.asarray(seen)]
    layers = [m for m in jax.tree.leaves(end.masks) if np.ndim(m) > 1]
    some = jax.tree.map(jnp.asarray, data.sample(task.data.train, min(2048, len(task.data.train.y)), seed=1))
    before = task.dense.params, task.dense.model_state
    kept = recipes.kept_importance(task.model, some, before, end.masks, num_groups=groups, plan=task.plan)
    rows = []
    for i in range(config.seeds):
        accuracy, gap, by_group = fairness(right[i], test.group, groups, task.share)
        was, gap_before, had = fairness(task.of_test[i], test.group, groups, task.share)
        lost = np.asarray(had - by_group)
        trail = []
        for stage, offset, speed in zip(path.stages, path.before, (path.speed, 1), strict=False):
            seen = np.asarray(stage.watched)[i]
            trail += [[offset + speed * e * task.steps, *map(float, row)] for e, row in enumerate(seen)]
        last = trail[-1][0] + (path.speed if len(path.stages) == 1 else 1) * task.steps
        rows.append({
            "accuracy": float(accuracy), "gap": float(gap), "worst_loss": float(np.nanmax(lost)),
            "loss_gap": float(np.nanmax(np.abs(lost - (was - accuracy)))),
            "accuracy_dense": float(was), "gap_dense": float(gap_before),
            "validation_accuracy": float(final[i, 0]), "validation_gap": float(final[i, 1]),
            "iterations": last, "trail": [*trail, [last, *map(float, final[i])]],
            **({} if soft is None else dict(zip(("soft_accuracy", "soft_gap"), map(float, soft[i]), strict=True))),
            "density": [float(jnp.mean(m[i])) for m in layers],
            **{f"kept_{name}": float(share) for name, share in zip(task.data.group_names, kept[i], strict=True)},
        })  # fmt: skip
    return rows


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the page."""
    if config.batch_size % 2:
        raise flags.UsageError(f"--batch_size={config.batch_size}: BiP and BiFP cut it in halves; give an even number")
    if not any(first_of(m) in OF[s] for m in config.methods for s in config.structures):
        raise flags.UsageError(f"none of the methods prunes {' or '.join(config.structures)}; see --structures")
    with study.opened(config, NAMES, grows=("datasets", "methods", "structures", "sparsities", "seeds")) as this:
        for name in config.datasets:
            train_missing(config, name, this)
        tell(this)


def train_missing(config: Config, name: str, this: study.Run) -> None:
    """All networks on one dataset, seeds side by side; a first stage once for both of its second ones."""
    wanted = []
    for structure, share in itertools.product(config.structures, config.sparsities):
        methods = sorted((m for m in config.methods if first_of(m) in OF[structure]), key=first_of)
        where = {"dataset": [name], "structure": [structure], "sparsity": [share]}
        wanted += study.grid(**where, seed=range(config.seeds), method=methods)
    task = functools.cache(lambda: begin(config, name))

    @functools.lru_cache(maxsize=1)
    def stage(*how: Any) -> Path:
        took = study.clock()
        return first_stage(config, task(), *how)._replace(spent=took())

    for shared, cells in this.missing(wanted, together=("structure", "sparsity", "method"), whole=True):
        method, how, steps = shared["method"], (shared["structure"], shared["sparsity"]), task().steps
        first = None if method in TOGETHER else stage(first_of(method), *how)
        took = study.clock()
        if first is None:
            path = in_one_run(config, task(), method, *how)
        else:
            found, fair, more = first.stages[-1], method.endswith("_fair"), config.more_epochs
            begun = found.params, found.model_state
            then = trained(config, task(), "given", how[1], begun, more, 9, fair=fair, masks=found.masks)
            before = first.before[0], first.before[0] + first.speed * config.epochs * steps
            path = first._replace(stages=(found, then), before=before)
        spent = {key: value + (first.spent[key] if first else 0) for key, value in took().items()}
        for cell, row in zip(cells, measured(config, task(), path), strict=True):
            this.record(cell, row | {key: value / len(cells) for key, value in spent.items()})


def claims(records: Sequence[Any], *, every: bool = False) -> list[study.Claim]:
    """The paper's: BiFP beside mending after pruning; all of them beside its ablations and in every measure, too."""
    more = ("snip_fair", "lottery_fair", "bip_fair", "bifp_weights", "bifp_masks") if every else ()
    peers = ("gmp_fair", "fpgm_fair", "joint", *more)
    return [
        study.Claim("bifp", peer, column, words, good, among={"dataset": dataset, "structure": structure})
        for dataset, structure in itertools.product(*(study.values(records, name) for name in NAMES[:2]))
        for peer in peers
        if {"bifp", peer} <= set(study.values(study.chosen(records, dataset=dataset, structure=structure), "method"))
        for column, (_, good, words) in MEASURES.items()
        if every or column in ("accuracy", "gap")
    ]


def headline(records: Sequence[Any]) -> list[str]:
    """Gap and accuracy at the middle sparsity, and what was not run."""
    shares, say = sorted(study.values(records, "sparsity")), functools.partial(report.in_points, digits=1)
    at = {"structure": records[0]["structure"], "sparsity": shares[len(shares) // 2]}
    said = [
        f"{d}, {100 * at['sparsity']:g} % zeros, |gap| at accuracy: " + ", ".join(
            f"{m} {say('gap')(of)} at {say('accuracy')(of)}" for m in ("gmp", "gmp_fair", "joint", "bifp")
            if (of := study.chosen(records, dataset=d, method=m, **at))
        ) + "." for d in study.values(records, "dataset")
    ]  # fmt: skip
    run_there = {"celeb_a", "lfw"} & set(study.values(records, "dataset"))
    return said if run_there else [*said, "All of this is on stand-ins: the paper's CelebA and LFW were not run."]


def masks(records: Sequence[Any]) -> pd.DataFrame:
    """Density of each layer, what is kept of each group's importance, and what relaxed masks were before the end."""
    rows = [
        {n: r[n] for n in NAMES[:-1]} | {f"layer {i}": d for i, d in enumerate(r["density"])}
        | {k: v for k, v in r.items() if k.startswith(("kept_", "soft_"))} for r in records
    ]  # fmt: skip
    return pd.DataFrame(rows).groupby(list(NAMES[:-1]), sort=False).mean().round(3).reset_index()


def tell(this: study.Run) -> None:
    """The page."""
    records = this.records
    zeros = report.Name("sparsity", "zeros (%)", lambda share: f"{100 * share:g}")
    names = [report.Name("dataset"), report.Name("structure"), zeros, report.Name("method", order=METHODS)]
    columns = {words: report.in_points(name) for name, (words, *_) in MEASURES.items()}
    columns |= {"seconds": report.number("seconds", ".1f")}
    peers = {"bifp": ["gmp_fair", "bip_fair", "fpgm_fair", "joint"], **{m: ["bifp"] for m in TOGETHER if m != "bifp"}}
    compared = {words: name for name, (words, *_) in MEASURES.items()}
    pairs = itertools.product(*(study.values(records, name) for name in NAMES[:2]))
    parts = {(d, s): mine for d, s in pairs if (mine := study.chosen(records, dataset=d, structure=s))}
    two = (("accuracy", "accuracy on test (%)"), ("gap", "|gap| on test (points)"))
    rows = [
        [figures.Panel(report.lines(mine, c, along="sparsity"), title=f"{d}, {s}", label=label) for c, label in two]
        for (d, s), mine in parts.items()
    ]
    low, judged = min(study.values(records, "sparsity")), [study.judge(records, c) for c in claims(records, every=True)]
    sparse = {where: study.chosen(mine, sparsity=low) for where, mine in parts.items()}
    points = {", ".join(w): report.pairs(mine, "gap", "accuracy", along="sparsity") for w, mine in sparse.items()}
    front = figures.frontier(points, x="|gap| on test (points)", y="accuracy on test (%)")
    drawn = figures.levels(rows, methods=METHODS, along="zeros (%)", say=lambda s: f"{100 * s:g}")
    shown = [
        report.Shown(
            "table", report.table(records, names, columns), "Every method.",
            "On test, in points, with 95 % t intervals over seeds. |gap|: of the groups of most and least accuracy. "
            "Degradation: beside the dense network. Accuracy: groups by their share of train. Seconds: a seed's part.",
            numbers=pd.DataFrame(records), title="in points, mean ± 95 % over seeds",
        ),
        report.Shown(
            "paired", report.paired_table(records, names, compared, peers=lambda m: peers.get(m, [])),
            "Paired differences on the same seeds, in points.", "An interval without 0 is a difference.",
        ),
        report.Shown(
            "reached",
            report.reached(records, at=NAMES[:3], targets=[f"{m}_fair" for m in STAGES], methods=TOGETHER, slack=SLACK),
            "Iterations, the median over seeds, until the best of two stages, which stands first, is reached.",
        ),
        report.Shown("claims", report.verdicts(judged), "Every claim: the paper's, and beside CEAG's way and GMP."),
        report.Shown("masks", masks(records), "Density of layers; each group's importance kept; relaxed masks' end."),
    ]  # fmt: skip
    report.study(
        this, prog="experiments.fair_pruning", title="Masks and weights found together",
        subtitle="BiFP, and pruning of one and of two stages",
        found=[*headline(records), *(study.judge(records, claim) for claim in claims(records))],
        drawn=[
            report.Drawn("tradeoff", front, f"At {100 * low:g} % zeros: left is fairer, up is more accurate.",
                         alt="accuracy against the gap; the numbers are in the table"),
            report.Drawn("curves", drawn, "Bars: 95 % intervals.", alt="accuracy and gap against the share of zeros"),
        ],
        shown=shown, done=[f"{m}: {w}." for m, w in IN_WORDS.items() if m in study.values(records, "method")],
        paragraphs=(__doc__ or "").replace("`", "").split("\n\n")[2:4],
    )  # fmt: skip


main = flags.entry(run, Config, prog="fair_pruning")


if __name__ == "__main__":
    main()
