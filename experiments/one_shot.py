"""One-shot pruning: what a second-order model of the loss is worth, and to which classes.

    python -m experiments.one_shot

prunes trained networks at once, without training afterwards, by magnitude, WoodFisher and CHITA, to 50 to 98 percent of
zeros. The question: how much more accurate are networks whose weights were chosen, and corrected, by a second-order
model from five hundred gradients? And is what the pruning costs shared alike among the classes?

`mlpnet` is 784-40-20-10 without biases, as in the paper on CHITA. MNIST needs a download, so the default data are
scikit-learn's 8 x 8 digits enlarged to 28 x 28; `--dataset fashion_mnist` comes through TFDS. `--networks resnet20` is
a ResNet-20 on CIFAR-10 (`--data_dir` with its two files), trained for as long as `--resnet_epochs` and
`--resnet_examples` say: minutes per seed on a CPU. Its BatchNorm statistics are estimated again after pruning.

Every seed is another network, and of digits another split. It writes `runs/one_shot/<id>/`: config.json, records.jsonl
(one line per pruned network; the same command goes on where a killed run stopped), the dense networks, table.md and
.csv, a figure, report.html.
"""

import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app

from experiments import flags, one_shot_report, runs
from jaxfair import data, metrics, models, sparsity, train, tree
from jaxfair.study import records as records_lib
from jaxfair.typing import Batch, Model

NETWORKS = ("mlpnet", "resnet20")
METHODS = ("magnitude", "woodfisher", "chita", "chita_scaled", "chita_block")
DATASETS = ("digits", "fashion_mnist")
NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Config:
    """Networks pruned at once, by magnitude and by second-order models."""

    # of mlpnet, resnet20
    networks: tuple[str, ...] = flags.items(("mlpnet",))
    # of magnitude, woodfisher, chita, chita_scaled, chita_block
    methods: tuple[str, ...] = flags.items(METHODS)
    # shares of zeros
    sparsities: tuple[float, ...] = flags.items((0.5, 0.8, 0.9, 0.95, 0.98), float)
    # how many networks
    seeds: int = 5
    # for mlpnet: digits (enlarged), or fashion_mnist
    dataset: str = "digits"
    # folder with cifar10_train.npz and cifar10_test.npz, or of TFDS
    data_dir: str = ""
    # of the dense mlpnet
    epochs: int = 30
    # examples a step
    batch_size: int = 64
    # of Adam, falling to 0 along a cosine
    learning_rate: float = 0.002
    # of the dense resnet20
    resnet_epochs: int = 6
    # training images that the resnet20 sees
    resnet_examples: int = 5000
    # test images that it is measured on; fewer are faster on a CPU, which takes 2.5 ms for each
    resnet_test_examples: int = 10_000
    # rows of the matrix of gradients
    gradients: int = 500
    # examples a row, of mlpnet; and of resnet20
    row: int = 1
    resnet_row: int = 16
    # damping of all second-order methods
    ridge: float = 1e-5
    # weights in a block, of woodfisher and chita_block
    block: int = 500
    # whether CHITA's objective has its linear term
    first_order: bool = False
    # batches that BatchNorm statistics are estimated from
    batch_norm_batches: int = 40
    # the run goes into a folder in here
    runs_dir: str = "runs/one_shot"
    # name of that folder; a hash of the settings by default
    id: str = ""


def check(config: Config) -> None:
    """Raises UsageError for what can be known to be wrong before anything is loaded."""
    for flag, allowed in {"networks": NETWORKS, "methods": METHODS}.items():
        if not getattr(config, flag):
            raise runs.UsageError(f"--{flag}: give at least one")
        for name in getattr(config, flag):
            if name not in allowed:
                raise runs.UsageError(
                    f"--{flag}: there is no {name!r}; choose from {', '.join(allowed)}"
                )
    if config.dataset not in DATASETS:
        raise runs.UsageError(f"--dataset={config.dataset}: choose from {', '.join(DATASETS)}")
    if not config.sparsities or not all(0 <= s < 1 for s in config.sparsities):
        raise runs.UsageError(
            f"--sparsities={config.sparsities}: give numbers of at least 0, below 1"
        )
    for flag in ("seeds", "epochs", "batch_size", "resnet_epochs", "resnet_examples",
                 "resnet_test_examples", "gradients", "row", "resnet_row", "block", "batch_norm_batches"):  # fmt: skip
        if getattr(config, flag) < 1:
            raise runs.UsageError(f"--{flag}={getattr(config, flag)}: give a number of at least 1")
    for flag in ("ridge", "learning_rate"):
        if getattr(config, flag) <= 0:
            raise runs.UsageError(f"--{flag}={getattr(config, flag)}: give a number above 0")


# --- the networks --------------------------------------------------------------------------------------------------


def mlpnet(sizes: Sequence[int] = (784, 40, 20, NUM_CLASSES)) -> Model:
    """Dense layers with ReLU between them and no biases; all of them may be pruned."""

    def init(key: jax.Array, x: Any) -> tuple[Any, Any]:
        del x
        keys = jax.random.split(key, len(sizes) - 1)
        shapes = itertools.pairwise(sizes)
        make = jax.nn.initializers.he_normal()
        return {
            f"Dense_{i}": {"kernel": make(k, shape)}
            for i, (k, shape) in enumerate(zip(keys, shapes, strict=True))
        }, {}

    def apply(params: Any, state: Any, x: Any, *, train: bool, key: Any = None) -> tuple[Any, Any]:
        del train, key
        x = x.reshape(len(x), -1)
        for i in range(len(sizes) - 1):
            x = (jax.nn.relu(x) if i else x) @ params[f"Dense_{i}"]["kernel"]
        return x, state

    return Model(init, apply, prunable=lambda path: path.endswith("kernel"))


def load(config: Config, network: str, seed: int) -> tuple[Batch, Batch]:
    """Training and test split."""
    if network == "resnet20":
        cifar = data.load("cifar10", data_dir=config.data_dir or None)
        return data.sample(cifar.train, config.resnet_examples, seed=seed), data.sample(
            cifar.test, config.resnet_test_examples, seed=seed
        )
    if config.dataset == "fashion_mnist":
        fashion = data.load("fashion_mnist", data_dir=config.data_dir or None)
        return fashion.train, fashion.test
    digits = data.load("digits", split_seed=seed)

    def enlarged(split: Batch) -> Batch:
        x = jax.image.resize(split.x, (len(split.x), 28, 28, 1), "linear")
        return split._replace(x=np.asarray(x))

    return enlarged(digits.train), enlarged(digits.test)


class Dense(NamedTuple):
    """A trained network and its data.

    Attributes:
      model: the `Model`.
      params: trained.
      state: BatchNorm statistics, or ``{}``.
      train: its training split.
      test: on which it is measured.
      correct: ``[N]`` bool, what it gets right on test.
    """

    model: Model
    params: Any
    state: Any
    train: Batch
    test: Batch
    correct: np.ndarray


def trained(config: Config, network: str, seed: int, folder: pathlib.Path) -> Dense:
    """The dense network of a seed, from its file where there is one."""
    split, test = load(config, network, seed)
    small = network == "mlpnet"
    model = mlpnet() if small else models.cifar_resnet20(NUM_CLASSES)
    params, state = jax.jit(model.init)(jax.random.key(seed), jnp.asarray(split.x[:1]))
    leaves, treedef = jax.tree.flatten((params, state))
    path = folder / f"dense_{network}_{seed}.npz"
    if path.exists():
        with np.load(path) as arrays:
            leaves = [jnp.asarray(arrays[str(i)]) for i in range(len(leaves))]
        params, state = jax.tree.unflatten(treedef, leaves)
    else:
        params, state = fit(config, network, model, params, state, split, seed)
        saved = {str(i): np.asarray(a) for i, a in enumerate(jax.tree.leaves((params, state)))}
        scratch = path.with_suffix(".tmp.npz")
        np.savez(scratch, **saved)
        scratch.replace(path)
    return Dense(model, params, state, split, test, right(model, params, state, test))


def fit(config: Config, network: str, model: Model, params: Any, state: Any, split: Batch,
        seed: int) -> tuple[Any, Any]:  # fmt: skip
    """Trains a dense network."""
    size = len(split.y)
    batch_size = min(config.batch_size if network == "mlpnet" else 128, size)
    steps = size // batch_size
    epochs = config.epochs if network == "mlpnet" else config.resnet_epochs
    if network == "mlpnet":
        tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, epochs * steps))
    else:
        schedule = optax.cosine_decay_schedule(0.1, epochs * steps)
        tx = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, momentum=0.9))

    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        params, state, opt_state = carry

        def loss(params: Any) -> tuple[Any, Any]:
            logits, new = model.apply(params, state, batch[0], train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), new

        gradient, state = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), None

    carry = params, state, tx.init(params)
    order = functools.partial(
        train.epoch_order, jax.random.key(1000 + seed), num_examples=size, batch_size=batch_size,
        num_steps=steps,
    )  # fmt: skip
    x, y = jnp.asarray(split.x), jnp.asarray(split.y)
    if network == "mlpnet":

        def epoch(carry: Any, number: Any) -> tuple[Any, None]:
            return jax.lax.scan(lambda c, i: step(c, (x[i], y[i])), carry, order(number))

        carry = jax.jit(lambda c: jax.lax.scan(epoch, c, jnp.arange(epochs))[0])(carry)
    else:  # convolutions in a loop are slow on a CPU
        one = jax.jit(step, donate_argnums=0)
        for number in range(epochs):
            for index in order(number):
                carry, _ = one(carry, (x[index], y[index]))
            print(f"resnet20, seed {seed}: epoch {number + 1} of {epochs}", flush=True)
    return carry[0], carry[1]


def right(model: Model, params: Any, state: Any, split: Batch) -> np.ndarray:
    """``[N]`` bool, what a network gets right."""
    predict = _predict(model)
    found = [
        np.asarray(predict(params, state, jnp.asarray(split.x[i : i + 1000])))
        for i in range(0, len(split.y), 1000)
    ]
    return np.concatenate(found) == np.asarray(split.y)


@functools.cache
def _predict(model: Model) -> Callable[..., Any]:
    return jax.jit(lambda p, s, x: model.apply(p, s, x, train=False)[0].argmax(axis=-1))


def gradients_of(config: Config, network: str, dense: Dense) -> jax.Array:
    """``[n, p]``, of the first examples of the training split."""
    row = config.row if network == "mlpnet" else config.resnet_row
    number = min(config.gradients, len(dense.train.y) // row)
    batch = jax.tree.map(lambda a: jnp.asarray(a[: number * row]), (dense.train.x, dense.train.y))

    def loss(params: Any, batch: Any) -> Any:
        logits, _ = dense.model.apply(params, dense.state, batch[0], train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    rows = jax.jit(
        lambda params, batch: sparsity.example_gradients(
            loss, params, batch, prunable=dense.model.prunable, batch_size=row
        )
    )
    if network == "mlpnet":
        return rows(dense.params, batch)
    found = []
    for i in range(number):  # one by one: convolutions in a loop are slow on a CPU
        where = slice(i * row, (i + 1) * row)
        found.append(np.asarray(rows(dense.params, (batch[0][where], batch[1][where]))))
    return jnp.asarray(np.concatenate(found))


def settled(config: Config, dense: Dense, params: Any) -> Any:
    """The state of a pruned network, its BatchNorm statistics estimated again; nothing else moves."""
    state = dense.state
    if not jax.tree.leaves(state):
        return state
    forward = jax.jit(lambda s, x: dense.model.apply(params, s, x, train=True)[1])
    size = len(dense.train.y)
    for i in range(config.batch_norm_batches):
        where = np.arange(128 * i, 128 * (i + 1)) % size
        state = forward(state, jnp.asarray(np.asarray(dense.train.x)[where]))
    return state


# --- the pruners ---------------------------------------------------------------------------------------------------


class Pruned(NamedTuple):
    """One pruning: weights ``[p]``, seconds of the compiled call, bytes that it takes, arguments included."""

    weights: jax.Array
    seconds: float
    memory: int


def prune(config: Config, method: str, first_order: float, A: jax.Array, weights: jax.Array,
          keep: int) -> Pruned:  # fmt: skip
    """One pruning; what is compiled is kept for the next seed."""
    settings = (method, config.ridge, config.block, first_order)
    static = keep if method.startswith("chita") and method != "chita_block" else None
    program = _program(settings, static, A.shape, str(A.dtype))
    arguments = (A, weights) if static is not None else (A, weights, jnp.int32(keep))
    jax.block_until_ready(arguments)  # or the first call would wait for the gradients
    began = time.perf_counter()
    found = jax.block_until_ready(program(*arguments))
    seconds = time.perf_counter() - began
    sizes = program.memory_analysis()
    memory = 0
    if sizes is not None:
        memory = (
            sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
        )
    return Pruned(found, seconds, memory)


@functools.cache
def _program(
    settings: tuple[Any, ...], keep: int | None, shape: tuple[int, ...], dtype: str
) -> Any:
    method, ridge, block, first_order = settings

    def magnitude(A: Any, w: Any, k: Any) -> Any:
        return jnp.where(sparsity.top_k(jnp.abs(w), k), w, 0)

    def woodfisher(A: Any, w: Any, k: Any) -> Any:
        return sparsity.woodfisher_solve(A, w, k, block=block, ridge=ridge).weights

    def chita_block(A: Any, w: Any, k: Any) -> Any:
        found = sparsity.chita_block_solve(
            A, w, k, block=block, ridge=ridge, first_order=first_order
        )
        return found.weights

    def chita(A: Any, w: Any) -> Any:
        found = sparsity.chita_solve(
            A, w, keep, ridge=ridge, first_order=first_order, scaled=method == "chita_scaled"
        )
        return found.weights

    run = {"magnitude": magnitude, "woodfisher": woodfisher, "chita_block": chita_block}
    A, w = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape[1:], dtype)
    if keep is not None:
        return jax.jit(chita).lower(A, w).compile()
    return jax.jit(run[method]).lower(A, w, jax.ShapeDtypeStruct((), jnp.int32)).compile()


@jax.jit
def objective(A: jax.Array, dense: jax.Array, w: jax.Array, ridge: Any, first_order: Any) -> Any:
    """CHITA's, of anybody's weights, a row: the rise of the loss that the second-order model predicts."""
    residual, moved = A @ (dense - w), w - dense
    total = residual @ residual / 2 + ridge * len(A) / 2 * (moved @ moved)
    return (total - first_order * residual.sum()) / len(A)


def measured(config: Config, network: str, method: str, share: float, seed: int, dense: Dense,
             A: jax.Array) -> dict[str, Any]:  # fmt: skip
    """The record of one pruned network."""
    prunable = dense.model.prunable
    weights = sparsity.flatten_prunable(dense.params, prunable=prunable)
    row = config.row if network == "mlpnet" else config.resnet_row
    first_order = 1 / row if config.first_order else 0.0
    zeros = sparsity.num_zeros(share, len(weights))
    pruned = prune(config, method, first_order, A, weights, len(weights) - zeros)
    params = sparsity.unflatten_prunable(pruned.weights, dense.params, prunable=prunable)
    group = np.asarray(dense.test.y)
    record = cell(network, method, share, seed) | {
        "zeros": int(jnp.sum(pruned.weights == 0)),
        "weights": len(weights),
        "accuracy_dense": float(dense.correct.mean()),
        "objective": float(objective(A, weights, pruned.weights, config.ridge, first_order)),
        "seconds": pruned.seconds,
        "memory": pruned.memory,
    }
    for when, state in {"before": dense.state, "after": settled(config, dense, params)}.items():
        correct = right(dense.model, params, state, dense.test)
        gaps = metrics.accuracy_gaps(dense.correct, correct, group, NUM_CLASSES)
        record[f"accuracy_{when}"] = float(correct.mean())
        record[f"max_excess_{when}"] = float(gaps.max_excess)
    return record


# --- the run -------------------------------------------------------------------------------------------------------


def cell(network: str, method: str, share: float, seed: int) -> dict[str, Any]:
    """What names a record."""
    return {"network": network, "method": method, "sparsity": share, "seed": seed}


def identity(config: Config) -> dict[str, Any]:
    """The settings that a record is a function of: a run may be asked for more later, and keeps what it has."""
    of_the_run = ("runs_dir", "id", "methods", "networks", "sparsities", "seeds")
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in of_the_run}


def names_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record[k] for k in ("network", "method", "sparsity", "seed"))


def run(config: Config) -> None:
    """Prunes what is not yet recorded, and writes the report."""
    check(config)
    settings = identity(config)
    with runs.opened(config, settings, 50_000_000) as folder:
        log = folder / "records.jsonl"
        done = {names_of(r) for r in records_lib.read(log)}
        for network in config.networks:
            for seed in range(config.seeds):
                missing = [
                    (method, share)
                    for method in config.methods
                    for share in config.sparsities
                    if (network, method, share, seed) not in done
                ]
                if not missing:
                    continue
                dense = trained(config, network, seed, folder)
                A = gradients_of(config, network, dense)
                print(
                    f"{network}, seed {seed}: {tree.size(dense.params):,} parameters, accuracy "
                    f"{100 * dense.correct.mean():.2f} %, gradients {A.shape[0]} x {A.shape[1]}",
                    flush=True,
                )
                for method, share in missing:
                    record = measured(config, network, method, share, seed, dense, A)
                    records_lib.append(log, record)
                    print(
                        f"{network}, {method}, {100 * share:g} % zeros, seed {seed}: accuracy "
                        f"{100 * record['accuracy_after']:.2f} %, {record['seconds']:.2f} s",
                        flush=True,
                    )
        one_shot_report.write(folder, settings, records_lib.read(log))


main = runs.entry(run, "one_shot")


if __name__ == "__main__":
    app.run(main, flags_parser=flags.parser(Config, prog="one_shot"))
