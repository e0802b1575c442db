"""Bits and zeros: at equal bytes, whether fewer bits or fewer weights cost less, whether both together do, and to whom.

    .venv/bin/python -m experiments.bits_and_zeros

trains small networks, compresses each to 8, 4, 3 and 2 bits for each weight that there was in five ways, and trains
all of them on for as long, under their masks and their quantisers: the same bits everywhere (`bits`); zeros alone, by
magnitude over all layers (`zeros`); FITCompress, which chooses bits of each layer and one level of pruning by the
Fisher information (`fit`), and the same with bits alone and with zeros alone (`fit_bits`, `fit_zeros`). Beside them a
second dense network from another initialisation (`second`): what it changes for a group is what chance changes.

Bytes are those of the paper on FITCompress, living weights times their bits; where the living ones are is not counted,
and takes another bit for each weight: the column `stored` has it. Measured on test: accuracy, and the largest excess
accuracy gap of a group against the dense network of the seed, which was trained on for as long.

What was found on five seeds, in points with 95 % intervals of paired differences: bits cost less than zeros. On digits
the worst class of networks of zeros alone loses more at 3 bits (6.4 ± 3.7), 4 (2.7 ± 2.4) and 8 (2.6 ± 1.8); on Adult
no difference is seen. Both together are the best for the fewest bytes: at 2 bits `fit` is 2.5 ± 1.2 more accurate than
bits alone on digits and 0.6 ± 0.2 on Adult; at 4 bits 0.6 ± 0.4 on digits, and else not told apart. But the places of
the living are not free: with a bit for each, `fit` at 2 bits takes what bits alone take at 3, which are as accurate.

Every seed is another split and another initialisation. It writes `runs/bits_and_zeros/<id>/`: config.json,
records.jsonl (one line per network; the same command goes on where a killed run stopped), tables, a figure,
report.html.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jax import lax

from jaxfair import data, metrics, models, quant, report, sparsity, study
from jaxfair.cli import flags
from jaxfair.report import figures

IN_WORDS = {
    "bits": "as many bits in every layer, no zeros",
    "zeros": "the smallest weights of all layers are zero, the others floats",
    "fit": "FITCompress: bits of each layer and a level of pruning, a greedy path in the Fisher metric",
    "fit_bits": "the same with bits alone",
    "fit_zeros": "the same with zeros alone",
    "second": "another dense network of another initialisation, not compressed",
}
METHODS = tuple(IN_WORDS)
DATASETS = {"digits": "scikit-learn's digits, groups are classes", "adult": "UCI Adult, groups are race and sex"}
NAMES = ("dataset", "bits", "method", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    """Small networks compressed to the same bytes by bits, by zeros, and by both."""

    # of digits, adult
    data_sets: tuple[str, ...] = flags.several(tuple(DATASETS), of=DATASETS)
    # of bits, zeros, fit, fit_bits, fit_zeros, second
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # for each weight that there was, of 32: the size
    bits: tuple[int, ...] = flags.several((8, 4, 3, 2), int, low=2, high=16)
    # how many splits and initialisations
    seeds: int = flags.one(5, low=1, high=10_000)
    # widths of the hidden layers
    hidden: tuple[int, ...] = flags.several((64, 64), int, low=1)
    # passes over the training split before, and after compression: of digits
    epochs: int = flags.one(60, low=1)
    tune_epochs: int = flags.one(30, low=1)
    # and of adult
    adult_epochs: int = flags.one(8, low=1)
    adult_tune_epochs: int = flags.one(4, low=1)
    # examples a step
    batch_size: int = flags.one(64, low=1)
    # of Adam, falling to 0 along a cosine, twice
    learning_rate: float = flags.one(0.002, above=0)
    # examples that the Fisher information is taken of
    examples: int = flags.one(512, low=1)
    # examples of the training split that are used; 0 is all
    max_train: int = flags.one(0, low=0)
    # the run goes into a folder in here
    runs_dir: str = "runs/bits_and_zeros"
    # name of that folder; a hash of the settings by default
    id: str = ""


def kernels(path: str) -> bool:
    return path.endswith("kernel")


@functools.cache
def load(name: str, seed: int, max_train: int) -> data.Dataset:
    """The data set in the split of a seed."""
    groups = {"groups": ("race", "sex")} if name == "adult" else {}
    found = data.load(name, split_seed=seed, **groups)
    if not max_train:
        return found
    return dataclasses.replace(found, train=data.sample(found.train, max_train, seed=seed))


def loss_of(network: Any, params: Any, x: Any, y: Any) -> Any:
    logits, _ = network.apply(params, {}, x, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@functools.cache
def trainer(config: Config, num_classes: int, epochs: int) -> Callable[..., Any]:
    """``train(key, params, masks, bits by path, x, y) -> params``: one program for all networks of a data set."""
    network = models.mlp(num_classes, hidden=config.hidden)

    def run(key: Any, params: Any, masks: Any, bits: Any, x: Any, y: Any) -> Any:
        size, batch = len(y), min(config.batch_size, len(y))
        steps = size // batch
        adam = optax.adam(optax.cosine_decay_schedule(config.learning_rate, epochs * steps))
        tx = sparsity.prune(
            quant.quantized(adam, bits=bits, quantized=kernels), sparsity.constant(0.0), prunable=kernels, masks=masks
        )

        def step(carry: Any, places: Any) -> Any:
            params, state = carry
            at = quant.quantized_params(params, state)
            gradients = jax.grad(lambda p: loss_of(network, p, x[places], y[places]))(at)
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        def epoch(carry: Any, key: Any) -> Any:
            order = jax.random.permutation(key, size)[: steps * batch].reshape(steps, batch)
            return lax.scan(step, carry, order)

        begin = sparsity.apply_masks(params, masks)
        (params, state), _ = lax.scan(epoch, (begin, tx.init(begin)), jax.random.split(key, epochs))
        return quant.quantized_params(params, state)

    return jax.jit(run)


def whole(params: Any) -> tuple[Any, dict[str, int]]:
    """Masks and bits of a network that is not compressed; a float has 32."""
    masks = jax.tree.map(lambda w: jnp.ones(w.shape if w.ndim == 2 else (), bool), params)
    return masks, {f"{name}/kernel": 32 for name in params}


def compressed(config: Config, method: str, bits: int, params: Any, fisher: Any) -> tuple[Any, dict[str, int]]:
    """Masks and bits by path, of a size of so many bits for each weight that there was."""
    masks, widths = whole(params)
    size = bits / 32
    if method == "bits":
        return masks, dict.fromkeys(widths, bits)
    if method == "zeros":
        _, masks = sparsity.one_shot(params, 1 - size, distribution=sparsity.global_, prunable=kernels)
        return masks, widths
    # As small as the others, or the next step below.
    options: dict[str, Any] = {"fit_bits": {"sparsities": (0.0,)}, "fit_zeros": {"bits": ()}}.get(method, {})
    found = quant.fitcompress(params, fisher, size * 1.001, quantized=kernels, **options)
    return found.masks, found.bits


def sizes(masks: Any, widths: dict[str, int]) -> dict[str, float]:
    """Bytes of the living weights, and with a bit for each that says whether it lives, as shares of the floats'."""
    total = living = every = 0.0
    for path, bits in widths.items():
        mask = masks[path.split("/")[0]]["kernel"]
        total, living = total + mask.size, living + float(jnp.sum(mask)) * bits
        every += mask.size if not bool(jnp.all(mask)) else 0
    return {"size": living / (32 * total), "stored": (living + every) / (32 * total)}


def measured(config: Config, dataset: str, seed: int, cells: Sequence[study.Cell]) -> list[dict[str, Any]]:
    """The records of a seed, one for each cell."""
    mine, took = load(dataset, seed, config.max_train), study.clock()
    network = models.mlp(mine.num_classes, hidden=config.hidden)
    first, after = (
        (config.adult_epochs, config.adult_tune_epochs) if dataset == "adult" else (config.epochs, config.tune_epochs)
    )
    long, short = (trainer(config, mine.num_classes, epochs) for epochs in (first, after))
    x, y = jnp.asarray(mine.train.x), jnp.asarray(mine.train.y)
    key, again = jax.random.split(jax.random.key(seed))

    def dense(key: Any) -> Any:
        params, _ = network.init(key, x[:1])
        return long(key, params, *whole(params), x, y)

    def right(params: Any) -> np.ndarray:
        return np.asarray(metrics.correct(network.apply(params, {}, mine.test.x, train=False)[0], mine.test.y))

    params = dense(key)
    before = right(short(key, params, *whole(params), x, y))
    few = x[: config.examples], y[: config.examples]
    one = lambda p, example: loss_of(network, p, example[0][None], example[1][None])  # noqa: E731
    fisher = jax.jit(functools.partial(quant.fisher_diagonal, one))(params, few)
    second: Any = None
    records = []
    for cell in cells:
        method, bits = cell["method"], cell["bits"]
        if method == "second":  # the same for all sizes
            if second is None:
                other = dense(again)
                second = right(short(again, other, *whole(other), x, y))
            now, said = second, sizes(*whole(params))
            widths = whole(params)[1]
        else:
            masks, widths = compressed(config, method, bits, params, fisher)
            now, said = right(short(key, params, masks, widths, x, y)), sizes(masks, widths)
        gaps = metrics.accuracy_gaps(before, now, mine.test.group, mine.num_groups)
        records.append({
            "accuracy": float(now.mean()),
            "dense": float(before.mean()),
            "gap": float(gaps.max_excess),
            **said,
            "layers": ", ".join(map(str, widths.values())),
        })  # fmt: skip
    spent = took()
    return [record | {name: value / len(cells) for name, value in spent.items()} for record in records]


def run(config: Config) -> None:
    """Trains and measures what is not yet recorded, and writes the page."""
    wanted = study.grid(dataset=config.data_sets, seed=range(config.seeds), bits=config.bits, method=config.methods)
    with study.opened(config, NAMES, grows=("data_sets", "methods", "bits", "seeds")) as this:
        for shared, cells in this.missing(wanted, together=("dataset", "seed")):
            records = measured(config, shared["dataset"], shared["seed"], cells)
            for cell, numbers in zip(cells, records, strict=True):
                this.record(cell, numbers)
        tell(this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen, on each data set at every size."""
    found, there = [], set(study.values(records, "method"))
    for dataset in study.values(records, "dataset"):
        more: dict[str, Any] = {"at": ("bits",), "among": {"dataset": dataset}, "level": "{} of 32 bits".format}
        more |= {"margin": -0.005}
        good = ("no less accurate", "less accurate")
        fair = ("no worse for its worst group", "worse for its worst group")
        found += [study.Claim("fit", peer, "accuracy", good, **more) for peer in ("bits", "zeros")]
        found += [study.Claim("bits", "zeros", "gap", fair, -1, **more | {"margin": 0.0})]
        found += [study.Claim("fit", "second", "gap", fair, -1, **more | {"margin": -0.01})]
    return [claim for claim in found if {claim.method, claim.peer} <= there]


def tell(this: study.Run) -> None:
    """The page."""
    records, there = this.records, study.values(this.records, "method")
    names = [report.Name("dataset"), report.Name("bits"), report.Name("method", order=METHODS)]
    columns = {
        "accuracy": report.in_points("accuracy"),
        "largest gap": report.in_points("gap"),
        "size": report.in_points("size"),
        "stored": report.in_points("stored"),
    }
    rows = [
        [
            figures.Panel(
                report.lines(study.chosen(records, dataset=dataset), column, along="bits"), f"{dataset}: {title}", label
            )
            for column, title, label in (("accuracy", "accuracy", "%"), ("gap", "largest gap", "points"))
        ]
        for dataset in study.values(records, "dataset")
    ]
    drawn = figures.levels(rows, methods=[m for m in METHODS if m in there], along="bits a weight that there was")
    seconds = sum(r["cpu_seconds"] for r in records)
    report.study(
        this,
        prog="experiments.bits_and_zeros",
        title="Bits and zeros",
        subtitle="which gram of compression costs least, and whom",
        found=[study.judge(records, claim) for claim in claims(records)],
        drawn=[report.Drawn(
            "sizes", drawn,
            "Left is smaller. Means and 95 % intervals over seeds; second is what another initialisation changes.",
            alt="accuracy and largest gap against the size; the numbers are in the table",
        )],
        shown=[report.Shown(
            "table", report.table(records, names, columns), "Every way of compressing.",
            "In points on test, mean and half-width of the 95 % t interval over seeds. Bits: of 32, for each weight "
            "that there was. Largest gap: the largest excess accuracy gap of a group against the dense network of the "
            "seed. Size: of the living weights, of the floats' bytes. Stored: with the places of the living.",
            numbers=pd.DataFrame(records), title="in points, mean ± 95 % over seeds",
        )],
        done=[f"{name}: {words}." for name, words in IN_WORDS.items() if name in there],
        paragraphs=[f"Training and measuring took {seconds:,.0f} CPU seconds in all."],
    )  # fmt: skip


main = flags.entry(run, Config, prog="bits_and_zeros")


if __name__ == "__main__":
    main()
