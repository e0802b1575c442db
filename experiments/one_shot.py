"""One-shot pruning: what a second-order model of the loss is worth, and to which classes.

    .venv/bin/python -m experiments.one_shot

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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import data, metrics, models, report, sparsity, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Batch, Model

IN_WORDS = {
    "magnitude": "the smallest weights go, the others stay as they are",
    "woodfisher": "OBS in blocks: rank by w² / (2 [F⁻¹]), then move the rest jointly",
    "chita": "CHITA: sparse least squares on the gradients, thresholded by bare weights as in the paper",
    "chita_scaled": "CHITA, thresholded in units of each weight's own curvature",
    "chita_block": "CHITA in blocks: magnitude's support, exact values per block",
}
METHODS, PEER = tuple(IN_WORDS), "magnitude"
DATASETS = {
    "digits": "scikit-learn's digits (8 x 8, enlarged to 28 x 28: not MNIST)",
    "fashion_mnist": "Fashion-MNIST",
}
NUM_CLASSES = 10
NAMES, GROWS = (
    ("network", "method", "sparsity", "seed"),
    ("methods", "networks", "sparsities", "seeds"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Networks pruned at once, by magnitude and by second-order models."""

    # of mlpnet, resnet20
    networks: tuple[str, ...] = flags.several(("mlpnet",), of=("mlpnet", "resnet20"))
    # of magnitude, woodfisher, chita, chita_scaled, chita_block
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # shares of zeros
    sparsities: tuple[float, ...] = flags.several((0.5, 0.8, 0.9, 0.95, 0.98), float, low=0, below=1)
    # how many networks
    seeds: int = flags.one(5, low=1, high=10_000)
    # for mlpnet: digits (enlarged), or fashion_mnist
    dataset: str = flags.one("digits", of=DATASETS)
    # folder with cifar10_train.npz and cifar10_test.npz, or of TFDS
    data_dir: str = ""
    # of the dense mlpnet
    epochs: int = flags.one(30, low=1)
    # examples a step
    batch_size: int = flags.one(64, low=1)
    # of Adam, falling to 0 along a cosine
    learning_rate: float = flags.one(0.002, above=0)
    # of the dense resnet20
    resnet_epochs: int = flags.one(6, low=1)
    # training images that the resnet20 sees
    resnet_examples: int = flags.one(5000, low=1)
    # test images that it is measured on; fewer are faster on a CPU, which takes 2.5 ms for each
    resnet_test_examples: int = flags.one(10_000, low=1)
    # rows of the matrix of gradients
    gradients: int = flags.one(500, low=1)
    # examples a row, of mlpnet; and of resnet20
    row: int = flags.one(1, low=1)
    resnet_row: int = flags.one(16, low=1)
    # damping of all second-order methods
    ridge: float = flags.one(1e-5, above=0)
    # weights in a block, of woodfisher and chita_block
    block: int = flags.one(500, low=1)
    # whether CHITA's objective has its linear term
    first_order: bool = False
    # batches that BatchNorm statistics are estimated from
    batch_norm_batches: int = flags.one(40, low=1)
    # the run goes into a folder in here
    runs_dir: str = "runs/one_shot"
    # name of that folder; a hash of the settings by default
    id: str = ""


# --- the networks --------------------------------------------------------------------------------------------------


def mlpnet(sizes: Sequence[int] = (784, 40, 20, NUM_CLASSES)) -> Model:
    """Dense layers with ReLU between them and no biases; all of them may be pruned."""

    def init(key: jax.Array, x: Any) -> tuple[Any, Any]:
        del x
        keys = jax.random.split(key, len(sizes) - 1)
        shapes = itertools.pairwise(sizes)
        make = jax.nn.initializers.he_normal()
        return {
            f"Dense_{i}": {"kernel": make(k, shape)} for i, (k, shape) in enumerate(zip(keys, shapes, strict=True))
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
      right: ``right(params, state) -> [N]`` bool, what a network like it gets right on test.
      correct: ``[N]`` bool, what it gets right itself.
    """

    model: Model
    params: Any
    state: Any
    train: Batch
    test: Batch
    right: Callable[..., np.ndarray]
    correct: np.ndarray


def dense_network(config: Config, network: str, seed: int, *, folder: pathlib.Path) -> Dense:
    """The dense network of a seed, from its file where there is one."""
    split, test = load(config, network, seed)
    small, size = network == "mlpnet", len(split.y)
    model = mlpnet() if small else models.cifar_resnet20(NUM_CLASSES)
    batch_size = min(config.batch_size if small else 128, size)
    epochs, steps = config.epochs if small else config.resnet_epochs, size // batch_size
    rate = config.learning_rate if small else 0.1
    schedule = optax.cosine_decay_schedule(rate, epochs * steps)
    tx = optax.adam(schedule)
    if not small:
        tx = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, momentum=0.9))
    plan = train.plan(model, split, lanes="loop")  # there is one
    start = jax.jit(model.init)(jax.random.key(seed), jnp.asarray(split.x[:1]))
    found = train.dense(
        model, split, tx=tx, keys=jax.random.key(1000 + seed)[None], epochs=epochs, batch_size=batch_size,
        plan=plan, start=train.stack([start]), file=folder / f"dense_{network}_{seed}.npz", num_steps=steps,
        order=lambda key, epoch: train.epoch_order(
            key, epoch, num_examples=size, batch_size=batch_size, num_steps=steps
        ),
    )  # fmt: skip
    predict = train.predictor(model.apply, plan)

    def right(params: Any, state: Any) -> np.ndarray:
        return np.asarray(predict(*train.stack([(params, state)]), test).label[0]) == test.y

    params, state = train.take((found.params, found.model_state), 0)
    return Dense(model, params, state, split, test, right, right(params, state))


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


def prune(
    config: Config, method: str, first_order: float, A: jax.Array, weights: jax.Array, keep: int
) -> tuple[jax.Array, float, int]:
    """The weights ``[p]``, the seconds of the compiled call, and the bytes that it takes, arguments included."""
    settings = (method, config.ridge, config.block, first_order)
    # CHITA's shapes depend on how many are kept; the others take the number as data.
    static = keep if method in ("chita", "chita_scaled") else None
    program = _program(settings, static, A.shape, str(A.dtype))
    arguments = (A, weights) if static is not None else (A, weights, jnp.int32(keep))
    jax.block_until_ready(arguments)  # or the first call would wait for the gradients
    began = time.perf_counter()
    found = jax.block_until_ready(program(*arguments))
    seconds, sizes = time.perf_counter() - began, program.memory_analysis()
    parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return found, seconds, sum(getattr(sizes, part) for part in parts) if sizes else 0


@functools.cache
def _program(settings: tuple[Any, ...], keep: int | None, shape: tuple[int, ...], dtype: str) -> Any:
    """Compiled once for all seeds."""
    method, ridge, block, first_order = settings

    def pruned(A: Any, w: Any, k: Any = keep) -> Any:
        if method == "magnitude":
            return jnp.where(sparsity.top_k(jnp.abs(w), k), w, 0)
        if method == "woodfisher":
            return sparsity.woodfisher_solve(A, w, k, block=block, ridge=ridge).weights
        how = {"ridge": ridge, "first_order": first_order}
        if method == "chita_block":
            return sparsity.chita_block_solve(A, w, k, block=block, **how).weights
        return sparsity.chita_solve(A, w, k, scaled=method == "chita_scaled", **how).weights

    A, w = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape[1:], dtype)
    count = () if keep is not None else (jax.ShapeDtypeStruct((), jnp.int32),)
    return jax.jit(pruned).lower(A, w, *count).compile()


@jax.jit
def objective(A: jax.Array, dense: jax.Array, w: jax.Array, ridge: Any, first_order: Any) -> Any:
    """CHITA's, of anybody's weights, a row: the rise of the loss that the second-order model predicts."""
    residual, moved = A @ (dense - w), w - dense
    total = residual @ residual / 2 + ridge * len(A) / 2 * (moved @ moved)
    return (total - first_order * residual.sum()) / len(A)


def measured(config: Config, cell: study.Cell, dense: Dense, A: jax.Array) -> dict[str, Any]:
    """The record of one pruned network."""
    prunable = dense.model.prunable
    weights = sparsity.flatten_prunable(dense.params, prunable=prunable)
    row = config.row if cell["network"] == "mlpnet" else config.resnet_row
    first_order = 1 / row if config.first_order else 0.0
    zeros = sparsity.num_zeros(cell["sparsity"], len(weights))
    keep = len(weights) - zeros
    pruned, seconds, memory = prune(config, cell["method"], first_order, A, weights, keep)
    params = sparsity.unflatten_prunable(pruned, dense.params, prunable=prunable)
    group = np.asarray(dense.test.y)
    record = {
        "zeros": int(jnp.sum(pruned == 0)),
        "weights": len(weights),
        "accuracy_dense": float(dense.correct.mean()),
        "objective": float(objective(A, weights, pruned, config.ridge, first_order)),
        "seconds": seconds,
        "memory": memory,
    }
    for when, state in {"before": dense.state, "after": settled(config, dense, params)}.items():
        correct = dense.right(params, state)
        gaps = metrics.accuracy_gaps(dense.correct, correct, group, NUM_CLASSES)
        record[f"accuracy_{when}"] = float(correct.mean())
        record[f"max_excess_{when}"] = float(gaps.max_excess)
    return record


# --- the run -------------------------------------------------------------------------------------------------------


def run(config: Config) -> None:
    """Prunes what is not yet recorded, and writes the page."""
    wanted = study.grid(
        network=config.networks,
        seed=range(config.seeds),
        method=config.methods,
        sparsity=config.sparsities,
    )
    with study.opened(config, NAMES, grows=GROWS) as this:
        for shared, cells in this.missing(wanted, together=("network", "seed")):
            dense = dense_network(config, **shared, folder=this.folder)
            A = gradients_of(config, shared["network"], dense)
            for cell in cells:
                this.record(cell, measured(config, cell, dense, A))
        tell(config, this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of every method, beside magnitude, on each network."""
    columns = {
        "accuracy_after": ("more accurate", "less accurate", 1),
        "max_excess_after": ("kinder to the class that loses most", "harder on it", -1),
    }
    return [
        study.Claim(method, PEER, column, (better, worse), good, among={"network": network})
        for network in study.values(records, "network")
        for method in METHODS
        if method != PEER and study.chosen(records, network=network, method=method)
        for column, (better, worse, good) in columns.items()
    ]


def headline(config: Config, records: Sequence[Any]) -> list[str]:
    """What was done, in a sentence per network."""
    said = []
    for network in study.values(records, "network"):
        mine = study.chosen(records, network=network)
        where = DATASETS[config.dataset] if network == "mlpnet" else "CIFAR-10"
        accuracy = 100 * np.mean([r["accuracy_dense"] for r in mine])
        said.append(
            f"{network} on {where}, {len(study.values(mine, 'seed'))} networks of {accuracy:.1f} % accuracy, pruned at "
            "once and not trained afterwards."
        )
    return said


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records = this.records
    names = [
        report.Name("network"),
        report.Name("sparsity", "zeros (%)", lambda share: f"{100 * share:g}"),
        report.Name("method", order=METHODS),
    ]
    columns = {
        "accuracy": report.in_points("accuracy_after"),
        "largest excess gap": report.in_points("max_excess_after"),
        "predicted rise of loss": report.number("objective"),
        "seconds": report.number("seconds", ".2f", of=np.median),
        "memory (MB)": lambda rows: f"{max(r['memory'] for r in rows) / 1e6:,.0f}",
    }
    if "resnet20" in study.values(records, "network"):
        # Its BatchNorm statistics are estimated again: only then do before and after differ.
        columns = {"accuracy, old statistics": report.in_points("accuracy_before")} | columns
    compared = {"accuracy": "accuracy_after", "excess gap": "max_excess_after"}
    report.study(
        this,
        prog="experiments.one_shot",
        title="Pruned at once",
        subtitle="Magnitude, WoodFisher and CHITA without retraining",
        found=[*headline(config, records), *(study.judge(records, c) for c in claims(records))],
        drawn=[
            report.Drawn(
                "curves",
                curves(records),
                "Left: accuracy after pruning, without any training (dotted: dense). Right: the loss of the class that "
                "lost most beyond the average loss. Bars are 95 % intervals over seeds.",
                alt="accuracy and the largest excess gap against the share of zeros; the numbers are in the table",
            )
        ],
        shown=[
            report.Shown(
                "table",
                report.table(records, names, columns),
                "Every method at every sparsity.",
                "Accuracy and gap in points on test; mean and half-width of the 95 % t interval over seeds. Largest "
                "excess gap: what the class that lost most lost beyond what all lost together; the largest of ten "
                "noisy numbers, so above 0 by chance alone. Predicted rise of loss: CHITA's objective per "
                "gradient, of every method's weights. Seconds: median of the compiled call. Memory: of its "
                "arguments, results and temporaries.",
                numbers=pd.DataFrame(records),
                title="in points, mean ± 95 % over seeds",
            ),
            report.Shown(
                "paired",
                report.paired_table(records, names, compared, peers=lambda method: [PEER]),
                "Paired differences on the same networks, in points.",
                "An interval without 0 is a difference. More accuracy is better, a smaller gap is better.",
            ),
        ],
        done=[f"{m}: {w}." for m, w in IN_WORDS.items() if m in study.values(records, "method")],
        paragraphs=[
            "All second-order methods see the same gradients, of training examples, and have the same damping. Numbers "
            "of zeros are exact. Test is only measured."
        ],
    )


def curves(records: Sequence[Any]) -> Any:
    """Accuracy, and the largest excess gap over classes, against the share of zeros."""
    sides = {
        "accuracy_after": ("accuracy", "accuracy on test (%)"),
        "max_excess_after": ("who pays", "largest excess gap over classes (points)"),
    }
    rows = []
    for network in study.values(records, "network"):
        mine = study.chosen(records, network=network)
        dense = 100 * np.mean([r["accuracy_dense"] for r in mine])
        rows.append([
            figures.Panel(
                report.lines(mine, column, along="sparsity"),
                title=f"{network}: {title}",
                label=label,
                baseline=dense if title == "accuracy" else np.nan,
            )
            for column, (title, label) in sides.items()
        ])  # fmt: skip
    return figures.levels(rows, methods=METHODS, along="zeros (%)", say=lambda s: f"{100 * s:g}", from_zero=True)


main = flags.entry(run, Config, prog="one_shot")


if __name__ == "__main__":
    main()
