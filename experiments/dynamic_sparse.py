"""Every way to a sparse network, at the same length of training, and which of them harms groups least.

    python -m experiments.dynamic_sparse

trains networks that become sparse, or are sparse from the start, by sixteen methods from scratch and five from a
trained dense network, to 80, 90, 95 and 98 percent of zeros. Measured: accuracy, the largest excess accuracy gap over
groups against the dense network of the same seed, and what the training cost in multiply-adds. The question: does a
method that is as accurate as another also leave groups as they were, and what does asking for it (FairGRAPE, CEAG) buy?

The data are scikit-learn's digits, whose groups are the classes, every seed another split. `--datasets adult` is Adult
with the groups sex x label; `--datasets cifar10 --data_dir FOLDER` a ResNet-20, minutes per network on a CPU, or with
`--cifar_network small_cnn` a smaller one. The noise floor is a second dense network of another initialisation, measured
against the first. The last iterate counts, and test is only measured. All methods train at one learning rate; on
CIFAR-10 with `--cifar_rates 0.02,0.05,0.1`, each at the one of these that is best on the validation split.

It writes `runs/dynamic_sparse/<id>/`: config.json, records.jsonl (one line per network; the same command goes on where
a killed run stopped), rates.jsonl, the dense networks, table.md and .csv, paired.md, figures, report.html.
"""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app

from experiments import dynamic_sparse_report, flags, runs
from jaxfair import constraints, data, metrics, models, sparsity, train, tree
from jaxfair.study import records as records_lib
from jaxfair.typing import Batch, Model

DATASETS = ("digits", "adult", "cifar10")
CIFAR_NETWORKS = {"cifar_resnet20": models.cifar_resnet20, "small_cnn": models.small_cnn}
SCRATCH = (
    "magnitude", "magnitude_global", "magnitude_erk", "saliency", "fisher", "movement", "random", "static", "set",
    "rigl", "acdc", "ste", "sr_ste", "snip", "grasp", "synflow",
)  # fmt: skip
FURTHER = ("gmp", "fairgrape", "ceag", "wanda", "magnitude_once")
#: Made beside them always: the network all gaps are against, another one, and the first trained for as long again.
CONTROLS = ("dense", "dense_again", "dense_longer")
STRAIGHT = ("ste", "sr_ste")
AT_ONCE = ("snip", "grasp", "synflow", "wanda", "magnitude_once")
#: Of the networks that learning rates are chosen by; no network of the comparison has it.
RATES_SEED = 1000


@dataclasses.dataclass(frozen=True)
class Config:
    """Sparse training by many methods, and what it costs each group."""

    # of digits, adult, cifar10
    datasets: tuple[str, ...] = flags.items(("digits",))
    # of those that are named in this file: SCRATCH and FURTHER
    methods: tuple[str, ...] = flags.items(SCRATCH + FURTHER)
    # shares of zeros
    sparsities: tuple[float, ...] = flags.items((0.8, 0.9, 0.95, 0.98), float)
    # how many seeds
    seeds: int = 5
    # widths of the mlp's hidden layers
    hidden: tuple[int, ...] = flags.items((256, 256), int)
    # of digits, and once more for the methods that start from the dense network
    epochs: int = 40
    adult_epochs: int = 6
    cifar_epochs: int = 6
    # of cifar10: cifar_resnet20, or small_cnn, three convolutions that a CPU trains in seconds an epoch
    cifar_network: str = "cifar_resnet20"
    # training images of cifar10
    examples: int = 5000
    # folder with cifar10_train.npz and cifar10_test.npz, or of TFDS
    data_dir: str = ""
    # examples a step, of digits; 128 of the others
    batch_size: int = 64
    # of SGD with momentum 0.9, falling to 0 along a cosine
    learning_rate: float = 0.05
    cifar_learning_rate: float = 0.1
    # instead of it, for each method the one with the best accuracy on validation
    cifar_rates: tuple[float, ...] = flags.items((), float)
    # share of zeros of the networks that they are chosen by, one of each method and rate
    cifar_rates_sparsity: float = 0.95
    # bound of ceag on the excess gap of every group
    tolerance: float = 0.01
    # step size of its multipliers
    dual_rate: float = 0.01
    # share of the weights that a round of fairgrape keeps
    fairgrape_keep: float = 0.75
    # batches that its importances are averaged over
    importance_batches: int = 4
    # of synflow
    synflow_rounds: int = 100
    # the run goes into a folder in here
    runs_dir: str = "runs/dynamic_sparse"
    # name of that folder; a hash of the settings by default
    id: str = ""


def check(config: Config) -> None:
    """Raises UsageError for what can be known to be wrong before anything is loaded."""
    for flag, allowed in {"datasets": DATASETS, "methods": SCRATCH + FURTHER}.items():
        if not getattr(config, flag):
            raise runs.UsageError(f"--{flag}: give at least one")
        for name in getattr(config, flag):
            if name not in allowed:
                raise runs.UsageError(
                    f"--{flag}: there is no {name!r}; choose from {', '.join(allowed)}"
                )
    if config.cifar_network not in CIFAR_NETWORKS:
        raise runs.UsageError(
            f"--cifar_network={config.cifar_network}: choose from {', '.join(CIFAR_NETWORKS)}"
        )
    if not config.sparsities or not all(0 < s < 1 for s in config.sparsities):
        raise runs.UsageError(f"--sparsities={config.sparsities}: give numbers above 0 and below 1")
    if not all(rate > 0 for rate in config.cifar_rates):
        raise runs.UsageError(f"--cifar_rates={config.cifar_rates}: give numbers above 0")
    if not 0 < config.cifar_rates_sparsity < 1:
        raise runs.UsageError(
            f"--cifar_rates_sparsity={config.cifar_rates_sparsity}: give a share above 0 and below 1"
        )
    if not config.hidden or min(config.hidden) < 1:
        raise runs.UsageError(f"--hidden={config.hidden}: give widths of at least 1")
    for flag in ("seeds", "epochs", "adult_epochs", "cifar_epochs", "examples", "batch_size",
                 "importance_batches", "synflow_rounds"):  # fmt: skip
        if getattr(config, flag) < 1:
            raise runs.UsageError(f"--{flag}={getattr(config, flag)}: give a number of at least 1")
    for flag in ("learning_rate", "cifar_learning_rate", "dual_rate", "tolerance"):
        if not getattr(config, flag) > 0:
            raise runs.UsageError(f"--{flag}={getattr(config, flag)}: give a number above 0")
    if not 0 < config.fairgrape_keep < 1:
        raise runs.UsageError(
            f"--fairgrape_keep={config.fairgrape_keep}: give a share above 0 and below 1"
        )


# --- data and networks ---------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """Data of some seeds, and how long they are trained on. Every array has a leading axis of seeds, S.

    Attributes:
      name: of the dataset.
      seeds: which, S of them.
      model: the `Model`.
      train: its training split, ``[S, N, ...]``.
      test: its test split; validation, where learning rates are chosen.
      groups: G.
      classes: C.
      batch_size: B.
      a_pass: steps of an epoch.
      steps: T, of one training.
      mapped: whether seeds train side by side in one program. On a CPU convolutions do not, nor in a loop.
    """

    name: str
    seeds: tuple[int, ...]
    model: Model
    train: Batch
    test: Batch
    groups: int
    classes: int
    batch_size: int
    a_pass: int
    steps: int
    mapped: bool


def load(config: Config, name: str, seeds: Sequence[int], *, measured_on: str = "test") -> Task:
    """The data of these seeds; the second split is test, or validation where something is chosen."""
    if name == "cifar10":
        found = [data.load("cifar10", data_dir=config.data_dir or None)] * len(seeds)
        splits = [
            (data.sample(d.train, config.examples, seed=seed), getattr(d, measured_on))
            for d, seed in zip(found, seeds, strict=True)
        ]
        model = CIFAR_NETWORKS[config.cifar_network](found[0].num_classes)
        epochs = config.cifar_epochs
    else:
        more = {"groups": ("sex", "label")} if name == "adult" else {}
        found = [data.load(name, split_seed=seed, **more) for seed in seeds]
        splits = [(d.train, getattr(d, measured_on)) for d in found]
        model = models.mlp(found[0].num_classes, hidden=config.hidden)
        epochs = config.epochs if name == "digits" else config.adult_epochs
    both = jax.tree.map(lambda *arrays: np.stack([np.asarray(a) for a in arrays]), *splits)
    size = both[0].y.shape[1]
    batch_size = min(config.batch_size if name == "digits" else 128, size)
    steps = epochs * (size // batch_size)
    if steps < 20:
        raise runs.UsageError(
            f"{name}: {steps} steps of training; give more epochs or a smaller batch"
        )
    return Task(
        name, tuple(seeds), model, *both, found[0].num_groups, found[0].num_classes, batch_size,
        size // batch_size, steps, name != "cifar10",
    )  # fmt: skip


def only(task: Task, rows: Sequence[int]) -> Task:
    """The same of some of the seeds, by their places."""
    train_split, test = at((task.train, task.test), np.asarray(rows))
    seeds = tuple(task.seeds[r] for r in rows)
    return task._replace(seeds=seeds, train=train_split, test=test)


def at(values: Any, where: Any) -> Any:
    """Rows of every array of a tree."""
    return jax.tree.map(lambda a: a[where], values)


def lift(task: Task, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one seed, over the axis of seeds; of one seed alone where seeds are not mapped."""
    if task.mapped:
        return jax.vmap(function)
    return lambda *a: jax.tree.map(lambda v: v[None], function(*at(a, 0)))


def keys(task: Task, purpose: int) -> jax.Array:
    """``[S]`` keys; another purpose has other ones."""
    return jnp.stack([jax.random.fold_in(jax.random.key(s), purpose) for s in task.seeds])


def orders(task: Task, purpose: int) -> jax.Array:
    """``[S, T, B]``: the examples of every step."""

    def one(key: Any) -> Any:
        epochs = jnp.arange(task.steps // task.a_pass)
        drawn = jax.vmap(
            lambda epoch: train.epoch_order(
                key, epoch, num_examples=task.train.y.shape[1], batch_size=task.batch_size,
                num_steps=task.a_pass,
            )
        )(epochs)  # fmt: skip
        return drawn.reshape(task.steps, task.batch_size)

    return jax.jit(jax.vmap(one))(keys(task, purpose))


class Clock:
    """Compiles, then calls, and counts the seconds of the calls only."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a function under ``jit``."""
        program = jax.jit(function).lower(*arguments).compile()
        jax.block_until_ready(arguments)
        began = time.perf_counter()
        found = jax.block_until_ready(program(*arguments))
        self.seconds += time.perf_counter() - began
        return found


def judged(task: Task, params: Any, state: Any, split: Batch) -> constraints.Outcomes:
    """What networks make of every example, ``[S, N]``."""
    program = _judge(task.model, task.mapped)
    if task.mapped:
        return program(params, state, split.x, split.y)
    params, state, x, y = at((params, state, split.x, split.y), 0)
    parts = [program(params, state, x[i : i + 500], y[i : i + 500]) for i in range(0, len(y), 500)]
    return jax.tree.map(lambda *a: jnp.concatenate(a)[None], *parts)


@functools.cache
def _judge(model: Model, mapped: bool) -> Callable[..., Any]:
    def one(params: Any, state: Any, x: Any, y: Any) -> Any:
        return constraints.outcomes(model.apply(params, state, x, train=False)[0], y)

    return jax.jit(jax.vmap(one) if mapped else one)


# --- training ------------------------------------------------------------------------------------------------------


class Carry(NamedTuple):
    """A network in training: weights, BatchNorm statistics, the optimizer's state."""

    params: Any
    state: Any
    optimizer: Any


class Trained(NamedTuple):
    """Networks ``[S]``, and how they came about.

    Attributes:
      params: weights, exactly 0 where pruned.
      state: BatchNorm statistics, or ``{}``.
      masks: True = kept; None for a dense network.
      densities: ``[S, T', L]``, of each leaf at each step, the steps of importances included.
      dense_gradient: ``[T']`` bool, at which of them the gradient of pruned weights was needed.
      seconds: of the compiled calls, all seeds together.
    """

    params: Any
    state: Any
    masks: Any
    densities: np.ndarray
    dense_gradient: np.ndarray
    seconds: float


def inner(config: Config, task: Task) -> optax.GradientTransformation:
    """The optimizer inside of all pruners."""
    if task.name == "cifar10":
        rate = optax.cosine_decay_schedule(config.cifar_learning_rate, task.steps)
        return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9))
    return optax.sgd(optax.cosine_decay_schedule(config.learning_rate, task.steps), momentum=0.9)


def optimizer(config: Config, task: Task, method: str, share: float, key: Any) -> Any:
    """The optimizer of a method. A key is read in ``init`` only, and lives in the state from then on."""
    sgd, steps, all_of = inner(config, task), task.steps, {"prunable": task.model.prunable}
    if method in CONTROLS:
        return sgd
    if method in AT_ONCE or method == "fairgrape":  # masks are put into the state from outside
        return sparsity.prune(sgd, sparsity.constant(0), **all_of)
    begin, end, every = steps // 10, 3 * steps // 4, max(1, steps // 40)
    gradual = sparsity.polynomial(share, begin=begin, end=end, every=every)
    exchanged = sparsity.periodic(share, every=every, end=end)
    if method == "static":
        score = sparsity.random(key)
        return sparsity.prune(
            sgd, sparsity.constant(share), score=score, distribution=sparsity.erk(), **all_of
        )
    if method in ("set", "rigl"):
        make = sparsity.set_ if method == "set" else sparsity.rigl
        return make(sgd, exchanged, key=key, distribution=sparsity.erk(), **all_of)
    if method == "acdc":
        phase = steps // 12
        schedule = sparsity.alternating(share, begin=2 * phase, end=10 * phase, every=phase)
        return sparsity.regrow(sgd, schedule, key=key, grow=sparsity.by_gradient, **all_of)
    if method in STRAIGHT:
        decay = 2e-4 if method == "sr_ste" else 0.0
        return sparsity.straight_through(sgd, exchanged, decay=decay, **all_of)
    scores = {
        "saliency": sparsity.saliency,
        "fisher": sparsity.fisher(),
        "movement": sparsity.movement(),
        "random": sparsity.random(key),
    }
    spread = {"magnitude_global": sparsity.global_, "magnitude_erk": sparsity.erk()}
    return sparsity.prune(
        sgd, gradual, score=scores.get(method, sparsity.magnitude),
        distribution=spread.get(method, sparsity.uniform), **all_of,
    )  # fmt: skip


def density(params: Any, masks: Any) -> jax.Array:
    """``[L]``, the share of living weights of every leaf."""
    if masks is None:
        return jnp.ones(len(jax.tree.leaves(params)))
    return jnp.stack([jnp.mean(m, dtype=jnp.float32) for m in jax.tree.leaves(masks)])


def plain_step(task: Task, tx: Any, method: str) -> Callable[..., Any]:
    """One step on the mean loss: ``(carry, batch) -> (carry, density)``."""

    def step(carry: Carry, batch: Batch) -> tuple[Carry, Any]:
        masks = None if method in CONTROLS else sparsity.get_masks(carry.optimizer)
        used = sparsity.apply_masks(carry.params, masks) if method in STRAIGHT else carry.params

        def loss(params: Any) -> tuple[Any, Any]:
            logits, new = task.model.apply(params, carry.state, batch.x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean(), new

        gradient, state = jax.grad(loss, has_aux=True)(used)
        updates, after = tx.update(gradient, carry.optimizer, carry.params)
        params = optax.apply_updates(carry.params, updates)
        return Carry(params, state, after), density(params, masks)

    return step


def advance(
    task: Task, step: Callable[..., Any], carry: Any, order: Any, clock: Clock
) -> tuple[Any, np.ndarray]:
    """Steps on these examples, ``[S, T, B]``; the new carry, and the densities at every step, ``[S, T, L]``."""
    if task.mapped:

        def many(carry: Any, split: Batch, order: Any) -> Any:
            return jax.lax.scan(lambda c, i: step(c, at(split, i)), carry, order)

        carry, seen = clock.call(jax.vmap(many), carry, task.train, order)
        return carry, np.asarray(seen)
    # Convolutions in a loop are slow on a CPU: one compiled step, called again and again.
    carry, split, order = at((carry, task.train, np.asarray(order)), 0)
    one = jax.jit(step).lower(carry, at(split, order[0])).compile()
    began, seen = time.perf_counter(), []
    for index in order:
        carry, row = one(carry, at(split, index))
        seen.append(np.asarray(row))
    clock.seconds += time.perf_counter() - began
    return jax.tree.map(lambda a: a[None], carry), np.stack(seen)[None]


#: Of all seeds, whose leaves that are never pruned have one True each.
masked = jax.vmap(sparsity.apply_masks)


def fresh(task: Task, purpose: int) -> tuple[Any, Any]:
    """Networks at initialisation."""
    example = jnp.asarray(task.train.x[0, :1])
    found = [jax.jit(task.model.init)(key, example) for key in keys(task, purpose)]
    return jax.tree.map(lambda *a: jnp.stack(a), *found)


def fit(config: Config, task: Task, method: str, share: float, params: Any, state: Any) -> Trained:
    """Trains networks by any method but FairGRAPE and CEAG."""
    clock, order = Clock(), orders(task, 1 if method in CONTROLS[:2] + SCRATCH else 2)
    if method == "dense_again":
        order = orders(task, 3)

    def start(params: Any, key: Any) -> Any:
        return optimizer(config, task, method, share, key).init(params)

    opt_state = jax.jit(lift(task, start))(params, keys(task, 4))
    tx = optimizer(config, task, method, share, jax.random.key(0))
    if method in AT_ONCE:
        opt_state = opt_state._replace(masks=at_once(config, task, method, share, params, state))
    if method not in CONTROLS + STRAIGHT:
        params = masked(params, sparsity.get_masks(opt_state))
    carry = Carry(params, state, opt_state)
    carry, seen = advance(task, plain_step(task, tx, method), carry, order, clock)
    masks = None if method in CONTROLS else sparsity.get_masks(carry.optimizer)
    params = masked(carry.params, masks) if method in STRAIGHT else carry.params
    dense_gradient = np.full(task.steps, method in STRAIGHT)
    if method == "rigl":  # update number t, from 0, exchanges where t + 1 is scheduled
        end, every = 3 * task.steps // 4, max(1, task.steps // 40)
        steps = np.array(sparsity.periodic(share, every=every, end=end).steps[1:])
        dense_gradient[steps - 1] = True
    return Trained(params, carry.state, masks, seen, dense_gradient, clock.seconds)


def at_once(config: Config, task: Task, method: str, share: float, params: Any, state: Any) -> Any:
    """Masks from one batch, with equally many examples of every class, of the training split."""
    each = max(10, 128 // task.classes)
    where = np.stack([
        np.concatenate([np.flatnonzero(y == c)[:each] for c in range(task.classes)])
        for y in np.asarray(task.train.y)
    ])  # fmt: skip
    batch = [np.stack([a[i] for a, i in zip(v, where, strict=True)]) for v in task.train[:2]]
    everything: dict[str, Any] = {"prunable": task.model.prunable}

    def one(params: Any, state: Any, x: Any, y: Any) -> Any:
        def forward(p: Any, x: Any, train: bool) -> Any:
            return task.model.apply(p, state, x, train=train)[0]

        def loss(p: Any) -> Any:
            logits = forward(p, x, True) / (200 if method == "grasp" else 1)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        if method == "synflow":
            return flow(lambda p: forward(p, jnp.ones_like(x[:1]), False).sum(), params)
        if method == "magnitude_once":
            return sparsity.one_shot(params, share, **everything)[1]
        if method == "wanda":
            scores = sparsity.wanda(lambda p: forward(p, x, False), params, **everything)
            options = {"structure": sparsity.balanced()}
        else:
            scores = (sparsity.snip if method == "snip" else sparsity.grasp)(loss, params)
            options = {"distribution": sparsity.global_}
        return sparsity.one_shot(params, share, scores=scores, **options, **everything)[1]

    def flow(output: Callable[..., Any], params: Any) -> Any:
        # In a hundred rounds: a pruner that is fed scores in place of gradients makes them one loop.
        rounds, final = config.synflow_rounds, sparsity.exact_sparsity(share)
        shares = [
            sparsity.exact_sparsity(round(1 - (1 - share) ** (r / rounds), 7))
            for r in range(1, rounds)
        ]
        tx = sparsity.prune(
            optax.sgd(0.0), sparsity.Schedule(tuple(range(1, rounds + 1)), (*shares, final)),
            score=lambda weights, scores: scores, distribution=sparsity.global_, **everything,
        )  # fmt: skip
        nothing = jax.tree.map(jnp.zeros_like, params)

        def turn(carry: Any, _: Any) -> tuple[Any, None]:
            params, found = carry
            scores = sparsity.synflow(output, params)
            updates, found = tx.update(nothing, found, params, score_grads=scores)
            return (optax.apply_updates(params, updates), found), None

        first = params, tx.init(params)
        return sparsity.get_masks(jax.lax.scan(turn, first, length=rounds)[0][1])

    return jax.jit(lift(task, one))(params, state, *batch)


def fit_ceag(config: Config, task: Task, share: float, dense: "Dense") -> Trained:
    """Gradual magnitude pruning of the dense network, with a bound on the excess gap of every group."""
    clock = Clock()
    problem = constraints.excess_accuracy_gap(
        task.model.apply, num_groups=task.groups, tolerance=config.tolerance
    )
    solver = constraints.solver(
        problem,
        primal=optimizer(config, task, "gmp", share, jax.random.key(0)),
        dual=optax.sgd(config.dual_rate),
    )

    def start(params: Any, state: Any, outcomes: Any, split: Batch) -> Any:
        return solver.init(params, problem.init(state, outcomes, split))

    def step(carry: Any, batch: Batch) -> tuple[Any, Any]:
        masks = sparsity.get_masks(carry.primal_state)
        return solver.step(carry, batch)[0], density(carry.params, masks)

    labels = task.train._replace(x=task.train.y)  # its start reads groups and weights only
    first = dense.params, dense.state, dense.train, labels
    carry = jax.jit(lift(task, start))(*first)
    carry, seen = advance(task, step, carry, orders(task, 2), clock)
    masks = sparsity.get_masks(carry.primal_state)
    return Trained(
        carry.params, carry.carry.model_state, masks, seen, np.zeros(task.steps, bool),
        clock.seconds,
    )  # fmt: skip


def fit_fairgrape(config: Config, task: Task, share: float, dense: "Dense") -> Trained:
    """Rounds of FairGRAPE over the first three quarters of training, steps between them."""
    clock, order, total = Clock(), orders(task, 2), task.steps
    tx = optimizer(config, task, "fairgrape", share, None)
    opt_state = jax.jit(lift(task, tx.init))(dense.params)
    carry, step = Carry(dense.params, dense.state, opt_state), plain_step(task, tx, "fairgrape")
    rounds = max(1, math.ceil(math.log(1 - share) / math.log(config.fairgrape_keep)))
    rounds = min(rounds, total // 2)
    begin, end = total // 10, 3 * total // 4
    ends = [begin + (end - begin) * r // max(rounds - 1, 1) for r in range(rounds - 1)] + [end]
    pieces, at_step = [], 0
    for r, stop in enumerate(ends):
        carry, seen = advance(task, step, carry, order[:, at_step:stop], clock)
        pieces.append(seen)
        # The price of the importances: as many passes over these batches as there are groups.
        pieces.append(np.repeat(seen[:, -1:], task.groups * config.importance_batches, axis=1))
        kept = (1 - share) ** ((r + 1) / rounds)
        now = share if r + 1 == rounds else round(1 - kept, 7)
        carry = reselected(config, task, now, carry, order[:, stop:], clock)
        at_step = stop
    carry, seen = advance(task, step, carry, order[:, at_step:], clock)
    pieces.append(seen)
    seen = np.concatenate(pieces, axis=1)
    masks = sparsity.get_masks(carry.optimizer)
    nowhere = np.zeros(seen.shape[1], bool)
    return Trained(carry.params, carry.state, masks, seen, nowhere, clock.seconds)


def reselected(
    config: Config, task: Task, share: float, carry: Carry, order: Any, clock: Clock
) -> Carry:
    """One round: importances on the next batches of the training split, then the choice by groups."""

    def worth(carry: Carry, batch: Batch) -> Any:
        return _importance(task.model, carry, batch, task.groups)

    def choose(carry: Carry, importance: Any) -> Carry:
        masks = sparsity.get_masks(carry.optimizer)
        params, masks = sparsity.fairgrape(
            carry.params, importance, share, prunable=task.model.prunable, masks=masks
        )
        return Carry(params, carry.state, carry.optimizer._replace(masks=masks))

    def whole(carry: Carry, split: Batch, order: Any) -> Carry:
        found = [worth(carry, at(split, index)) for index in order]
        return choose(carry, jax.tree.map(lambda *a: sum(a) / len(a), *found))

    order = order[:, : config.importance_batches]
    if task.mapped:
        return clock.call(jax.vmap(whole), carry, task.train, order)
    # Group by group from here, not in a loop, for the sake of convolutions.
    one, split, order = at(carry, 0), at(task.train, 0), np.asarray(order[0])

    began, program, found = time.perf_counter(), _importance_alone(task.model), []
    for index in order:
        batch = at(split, index)
        rows = [program(one, batch, g) for g in range(task.groups)]
        found.append(jax.tree.map(lambda *a: jnp.concatenate(a), *rows))
    importance = jax.tree.map(lambda *a: sum(a) / len(a), *found)
    after = jax.block_until_ready(jax.jit(choose)(one, importance))
    clock.seconds += time.perf_counter() - began
    return jax.tree.map(lambda a: a[None], after)


def _importance(model: Model, carry: Carry, batch: Batch, groups: int) -> Any:
    def loss(params: Any, batch: Batch) -> Any:
        logits, _ = model.apply(params, carry.state, batch.x, train=False)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch.y)
        return jnp.sum(batch.weight * each) / jnp.maximum(jnp.sum(batch.weight), 1)

    return sparsity.group_importance(loss, carry.params, batch, groups)


@functools.cache
def _importance_alone(model: Model) -> Callable[..., Any]:
    """Of one group; one program for all groups and rounds."""

    def alone(carry: Carry, batch: Batch, group: Any) -> Any:
        mine = batch._replace(group=jnp.where(batch.group == group, 0, 1))
        return _importance(model, carry, mine, 1)

    return jax.jit(alone)


# --- the dense networks --------------------------------------------------------------------------------------------


class Dense(NamedTuple):
    """The dense networks of some seeds: weights and state, and their outcomes on both splits, ``[S, N]``."""

    params: Any
    state: Any
    train: constraints.Outcomes
    test: constraints.Outcomes


def dense_networks(
    config: Config, task: Task, folder: pathlib.Path
) -> tuple[Dense, dict[int, float]]:
    """From their files where there are some; and the seconds of those that were trained now, by seed."""
    empty = jax.eval_shape(lambda: fresh(task, 0))
    leaves, treedef = jax.tree.flatten(empty)
    files = [folder / f"dense_{task.name}_{seed}.npz" for seed in task.seeds]
    rows = [r for r, path in enumerate(files) if not path.exists()]
    seconds = {}
    if rows:
        mine = only(task, rows)
        found = fit(config, mine, "dense", 0.0, *fresh(mine, 0))
        for number, r in enumerate(rows):
            parts = jax.tree.leaves(at((found.params, found.state), number))
            scratch = files[r].with_suffix(".tmp.npz")
            np.savez(scratch, **{str(i): np.asarray(a) for i, a in enumerate(parts)})
            scratch.replace(files[r])
            seconds[task.seeds[r]] = found.seconds
    stacks: list[list[np.ndarray]] = [[] for _ in leaves]
    for path in files:
        with np.load(path) as arrays:
            for i, stack in enumerate(stacks):
                stack.append(arrays[str(i)])
    arrays = [jnp.asarray(np.stack(stack)) for stack in stacks]
    params, state = jax.tree.unflatten(treedef, arrays)
    outcomes = (judged(task, params, state, split) for split in (task.train, task.test))
    return Dense(params, state, *outcomes), seconds


# --- learning rates ------------------------------------------------------------------------------------------------


def choose_rates(config: Config, name: str, folder: pathlib.Path) -> dict[str, Config]:
    """Each method's settings, with the learning rate of its most accurate network on validation.

    The dense network's is chosen first. It is also that of the controls, and of the network from which the methods
    start that start from a trained one. Digits and Adult have another split with every seed, so that the validation
    split of one has examples of another's test split: nothing is chosen there.
    """
    methods = ("dense", *config.methods)
    if name != "cifar10" or not config.cifar_rates:
        return dict.fromkeys((*CONTROLS, *methods), config)
    log = folder / "rates.jsonl"
    task = load(config, name, (RATES_SEED,), measured_on="validation")
    found = {(r["method"], r["rate"]): r["accuracy"] for r in records_lib.read(log)}
    settings = {
        rate: dataclasses.replace(config, cifar_learning_rate=rate) for rate in config.cifar_rates
    }
    chosen: dict[str, Config] = {}

    @functools.cache
    def start() -> Dense:
        return dense_networks(chosen["dense"], task, folder)[0]

    def accuracy(method: str, rate: float) -> float:
        if method == "dense":
            made = fit(settings[rate], task, method, 0.0, *fresh(task, 0))
        else:
            made = trained(settings[rate], task, method, config.cifar_rates_sparsity, start())
        return float(judged(task, made.params, made.state, task.test).correct.mean())

    for method in methods:
        for rate in settings:
            if (method, rate) in found:
                continue
            found[method, rate] = accuracy(method, rate)
            row = {"dataset": name, "method": method, "rate": rate}
            records_lib.append(log, row | {"accuracy": found[method, rate]})
            print(
                f"{name}, {method}, learning rate {rate:g}: {100 * found[method, rate]:.2f} % on validation",
                flush=True,
            )
        chosen[method] = settings[max(settings, key=lambda rate, m=method: found[m, rate])]
    return dict.fromkeys(CONTROLS, chosen["dense"]) | chosen


# --- the records ---------------------------------------------------------------------------------------------------


def trained(config: Config, task: Task, method: str, share: float, dense: Dense) -> Trained:
    """Networks of one method at one sparsity."""
    if method == "ceag":
        return fit_ceag(config, task, share, dense)
    if method == "fairgrape":
        return fit_fairgrape(config, task, share, dense)
    if method == "dense":
        steps, leaves = task.steps, len(jax.tree.leaves(dense.params))
        ones = np.ones((len(task.seeds), steps, leaves))
        nowhere = np.zeros(steps, bool)
        return Trained(dense.params, dense.state, None, ones, nowhere, 0.0)
    if method in FURTHER or method == "dense_longer":
        return fit(config, task, method, share, dense.params, dense.state)
    return fit(config, task, method, share, *fresh(task, 5 if method == "dense_again" else 0))


def measured(
    task: Task, method: str, share: float, found: Trained, dense: Dense
) -> list[dict[str, Any]]:
    """A record per seed."""
    train_out, test_out = (
        judged(task, found.params, found.state, s).correct for s in (task.train, task.test)
    )
    shape = jax.ShapeDtypeStruct((task.batch_size, *task.train.x.shape[2:]), jnp.float32)
    report = sparsity.cost_report(task.model, shape)
    prunable = [task.model.prunable(path) for path in tree.paths(at(found.params, 0))]
    dense_cost = sparsity.training_cost(report, np.ones(task.steps))
    rows = []
    for number, seed in enumerate(task.seeds):
        weights = np.concatenate([
            np.ravel(leaf[number])
            for leaf, chosen in zip(jax.tree.leaves(found.params), prunable, strict=True) if chosen
        ])  # fmt: skip
        pruned = np.zeros(0, bool)
        if found.masks is not None:
            leaves = jax.tree.leaves(found.masks)
            pruned = ~np.concatenate([
                np.ravel(leaf[number]) for leaf, c in zip(leaves, prunable, strict=True) if c
            ])  # fmt: skip
            if np.any(weights[pruned] != 0):
                raise AssertionError(f"{method}: a pruned weight is not zero")
        densities = found.densities[number]
        ones = np.ones((len(densities), 1))  # of products without weights
        cost = sparsity.training_cost(
            report, np.hstack([densities, ones]), dense_gradient=found.dense_gradient
        )
        record = cell(task.name, method, share, seed) | {
            "weights": len(weights),
            "pruned": int(pruned.sum()),
            "zeros": int((weights == 0).sum()),
            "cost": cost,
            "cost_before": dense_cost if method in (*FURTHER, "dense_longer") else 0.0,
            "cost_dense": dense_cost,
            "seconds": found.seconds,
            "side_by_side": len(task.seeds),
        }
        sides = {
            "": (dense.test, test_out, task.test),
            "_train": (dense.train, train_out, task.train),
        }
        for suffix, (before, after, split) in sides.items():
            gaps = metrics.accuracy_gaps(
                before.correct[number], after[number], split.group[number], task.groups
            )
            record[f"accuracy{suffix}"] = float(after[number].mean())
            record[f"accuracy_dense{suffix}"] = float(before.correct[number].mean())
            record[f"max_excess{suffix}"] = float(gaps.max_excess)
            record[f"disparity{suffix}"] = float(gaps.disparity)
            record[f"worst_group{suffix}"] = int(np.nanargmax(gaps.excess))
        rows.append(record)
    return rows


def cell(dataset: str, method: str, share: float, seed: int) -> dict[str, Any]:
    """What names a record."""
    return {"dataset": dataset, "method": method, "sparsity": share, "seed": seed}


def names_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record[k] for k in ("dataset", "method", "sparsity", "seed"))


def identity(config: Config) -> dict[str, Any]:
    """The settings that a record is a function of: a run may be asked for more later, and keeps what it has."""
    of_the_run = ("runs_dir", "id", "methods", "datasets", "sparsities", "seeds")
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in of_the_run}


def run(config: Config) -> None:
    """Trains what is not yet recorded, and writes the report."""
    check(config)
    settings = identity(config)
    wanted = [(method, 0.0) for method in CONTROLS]
    wanted += [(method, share) for share in config.sparsities for method in config.methods]
    with runs.opened(config, settings, 50_000_000) as folder:
        log = folder / "records.jsonl"
        done = {names_of(r) for r in records_lib.read(log)}
        for name in config.datasets:
            every = tuple(range(config.seeds))
            settings_of: dict[str, Config] = {}
            # Side by side, or one after another where a network has convolutions.
            for seeds in [(s,) for s in every] if name == "cifar10" else [every]:
                if all((name, *cell, seed) in done for cell in wanted for seed in seeds):
                    continue
                settings_of = settings_of or choose_rates(config, name, folder)
                task = load(config, name, seeds)
                dense, seconds = dense_networks(settings_of["dense"], task, folder)
                for method, share in wanted:
                    rows = [r for r, s in enumerate(seeds) if (name, method, share, s) not in done]
                    if not rows:
                        continue
                    mine, theirs = only(task, rows), at(dense, np.asarray(rows))
                    found = trained(settings_of[method], mine, method, share, theirs)
                    if method == "dense":
                        found = found._replace(seconds=max(seconds.values(), default=math.nan))
                    records = measured(mine, method, share, found, theirs)
                    records_lib.append(log, *records)
                    accuracy = np.mean([r["accuracy"] for r in records])
                    gap = np.mean([r["max_excess"] for r in records])
                    print(
                        f"{name}, {method}, {100 * share:g} % zeros, {len(rows)} seeds: accuracy "
                        f"{100 * accuracy:.2f} %, excess gap {100 * gap:.2f}, {found.seconds:.1f} s",
                        flush=True,
                    )
        rates = records_lib.read(folder / "rates.jsonl")
        dynamic_sparse_report.write(folder, settings, records_lib.read(log), rates)


main = runs.entry(run, "dynamic_sparse")


if __name__ == "__main__":
    app.run(main, flags_parser=flags.parser(Config, prog="dynamic_sparse"))
