"""Images from few measurements: what a generator knows of them, and whose image comes out worst.

    .venv/bin/python -m experiments.inverse_problems

measures images of 64 pixels by 4 to 32 random mixtures with a little noise, and makes them again in thirteen ways: by
their mean, by one matrix (LMMSE), by the lasso, by a generator whose latent is searched (CSGM), by projected steps
(PGD-GAN), by a network from measurement to image (end to end), and by a generator that knows the measurement. `_plus`
moves an answer to the nearest image that explains the measurement.

The papers: CSGM needs 5 to 10 times fewer measurements than the lasso (Bora et al., 2017); a generator that knows the
measurement has up to 10 times less error (Kim, Lee and Yang, 2020). Beside them stand what these papers leave out, one
matrix and a network of the same size; per class, whose images come out worst; and what is left with another matrix, ten
times the noise, and images that are turned.

What was found on five seeds: CSGM does with 4 measurements what the lasso does not with 20 but does with 40; one matrix
is as close as CSGM or closer. A generator that is told the measurement has 1.1 to 5 times less error than CSGM, never
10 times, and a network end to end has nearly all of that. With another matrix both are worse than the mean image.

A method's own number (penalty, strength, step) is chosen on validation, for every number of measurements. A seed is
another matrix, split, set of networks and noise. It writes `runs/inverse_problems/<id>/`: config.json, records.jsonl
(one line per method; the same command goes on where a killed run stopped), tables, figures, report.html.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import data, inverse, metrics, report, study
from jaxfair.cli import flags
from jaxfair.report import figures

IN_WORDS = {
    "mean": "the mean of the training images, whatever was measured",
    "lmmse": "one matrix, from the mean and covariance of the training images",
    "lasso": "few cosines that explain the measurement; no image is learnt from",
    "lasso_5x": "the lasso with 5 times as many measurements",
    "lasso_10x": "the lasso with 10 times as many measurements",
    "csgm": "CSGM: the latent of a VAE is searched",
    "csgm_plus": "csgm, then the nearest image that explains the measurement",
    "projected": "PGD-GAN: steps towards the measurement, projected on what the VAE can make",
    "e2e": "a network from measurement to image",
    "e2e_plus": "e2e, then the nearest image that explains the measurement",
    "conditional_0": "a VAE that is told the measurement, at a latent of 0",
    "conditional": "its latent is searched",
    "conditional_plus": "conditional, then the nearest image that explains the measurement",
}
METHODS = tuple(IN_WORDS)
TIMES = {"lasso_5x": 5, "lasso_10x": 10}
#: Pixels of an image.
DATASETS = {"digits": 64, "fashion_mnist": 784}
#: Test images seen in another way than in training, by the words of a claim.
ELSEWHERE = {"other": "with another matrix", "noisy": "at ten times the noise", "turned": "on turned images"}
NAMES = ("measurements", "method", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    """Images from few measurements."""

    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)  # of those named in this file
    measurements: tuple[int, ...] = flags.several((4, 8, 16, 32), int, low=1)  # at most as many as there are pixels
    seeds: int = flags.one(5, low=1, high=10_000)  # matrices, splits and networks
    dataset: str = flags.one("digits", of=DATASETS)  # digits, or fashion_mnist through TFDS
    data_dir: str = ""  # folder of TFDS
    noise: float = flags.one(0.1, low=0)  # over the root of the number of measurements
    examples: int = flags.one(20_000, low=2)  # training images, at most
    images: int = flags.one(360, low=2)  # of validation, and of test, at most
    hidden: int = flags.one(128, low=1)  # width of the two hidden layers of every network
    latents: int = flags.one(10, low=1)  # numbers in a latent
    train_steps: int = flags.one(4_000, low=1)  # of Adam, for every network
    batch_size: int = flags.one(128, low=1)  # images a step
    learning_rate: float = flags.one(0.001, above=0)  # falling to 0 along a cosine
    search_steps: int = flags.one(200, low=1)  # of Adam, in a latent
    search_rate: float = flags.one(0.05, above=0)
    restarts: int = flags.one(3, low=1)  # of a search
    penalties: tuple[float, ...] = flags.several((0.0003, 0.001, 0.01, 0.1, 1.0), float, low=0)  # of a latent, tried
    strengths: tuple[float, ...] = flags.several((0.001, 0.003, 0.01, 0.03, 0.1, 0.3), float, low=0)  # of the lasso
    outer_steps: tuple[float, ...] = flags.several((0.05, 0.2, 0.5, 1.0), float, above=0)  # of projected
    runs_dir: str = "runs/inverse_problems"  # the run goes into a folder in here
    id: str = ""  # name of that folder; a hash of the settings by default

    def check(self) -> None:
        """What no flag can say by itself."""
        most, pixels = max(self.measurements), DATASETS[self.dataset]
        if most > pixels:
            raise flags.UsageError(f"--measurements={most}: give at most {pixels}, the pixels of an image")


class Images(NamedTuple):
    """Pixels ``[N, D]`` between 0 and 1 of a seed, the classes of the test images, and the sides of an image."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    y: np.ndarray
    shape: tuple[int, int]
    classes: tuple[str, ...]


class Seen(NamedTuple):
    """Images ``[B, D]``, the matrix ``[M, D]`` that a method is told, and the measurements ``[B, M]``."""

    x: np.ndarray
    A: Any
    y: Any


@functools.lru_cache(maxsize=2)
def load(config: Config, seed: int) -> Images:
    """The images of a seed."""
    options: dict[str, Any] = {"data_dir": config.data_dir or None, "standardize": False}
    loaded = data.load(config.dataset, split_seed=seed, **({} if config.dataset == "digits" else options))
    sizes = {"train": config.examples, "validation": config.images, "test": config.images}
    splits = {name: data.sample(getattr(loaded, name), size, seed=seed) for name, size in sizes.items()}
    height, width = splits["train"].x.shape[1:3]
    pixels = {name: np.asarray(s.x, np.float32).reshape(len(s.x), -1) for name, s in splits.items()}
    return Images(**pixels, y=np.asarray(splits["test"].y), shape=(height, width), classes=loaded.class_names)


def looks(config: Config, images: Images, measurements: int, key: Any) -> dict[str, Seen]:
    """The images of validation, and those of test as they were seen in training and elsewhere."""
    first, second, *noises = jax.random.split(key, 7)
    A, other = (inverse.gaussian_measurements(k, measurements, images.train.shape[1]) for k in (first, second))
    turned = np.rot90(images.test.reshape(-1, *images.shape), axes=(1, 2)).reshape(len(images.test), -1)
    seen = {"validation": (images.validation, A, 1), "test": (images.test, A, 1), "other": (images.test, other, 1),
            "noisy": (images.test, A, 10), "turned": (turned, A, 1)}  # fmt: skip

    def look(x: np.ndarray, A: Any, times: int, key: Any) -> Seen:
        clean, deviation = jnp.asarray(x) @ A.T, times * config.noise / np.sqrt(measurements)
        return Seen(x, A, clean + float(deviation) * jax.random.normal(key, clean.shape))

    return {name: look(*one, key=k) for (name, one), k in zip(seen.items(), noises, strict=True)}


def started(key: Any, sizes: Sequence[int]) -> Any:
    """Dense layers."""
    make, keys = jax.nn.initializers.he_normal(), jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, itertools.pairwise(sizes), strict=True)
    return [{"kernel": make(k, pair), "bias": jnp.zeros(pair[1])} for k, pair in pairs]


def network(layers: Any, *given: Any) -> Any:
    """What dense layers with ReLU between them make of some numbers."""
    x = jnp.concatenate(given)
    for i, layer in enumerate(layers):
        x = (jax.nn.relu(x) if i else x) @ layer["kernel"] + layer["bias"]
    return x


def image(params: Any, *given: Any) -> Any:
    """The pixels that a decoder makes."""
    return jax.nn.sigmoid(network(params["decoder"], *given))


@functools.partial(jax.jit, static_argnames=("config", "kind"))
def fitted(x: Any, A: Any, key: Any, *, config: Config, kind: str) -> Any:
    """A trained VAE, a VAE that is told the measurement, or a network end to end; and how measurements are scaled."""
    pixels, hidden, told = x.shape[1], (config.hidden, config.hidden), kind != "vae"
    latents, told_size = config.latents * (kind != "e2e"), len(A) * told
    first, second, drawn, order = jax.random.split(key, 4)
    params = {"decoder": started(second, (latents + told_size, *hidden, pixels))}
    params |= {"encoder": started(first, (pixels + told_size, *hidden, 2 * latents))} if latents else {}

    def measured(key: Any, x: Any) -> Any:
        return x @ A.T + config.noise / float(np.sqrt(len(A))) * jax.random.normal(key, (len(x), len(A)))

    y = measured(drawn, x)
    scale = {"centre": y.mean(0), "width": y.std(0)}
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.train_steps))

    def loss(params: Any, x: Any, key: Any) -> Any:
        seen, draw = jax.random.split(key)
        c, decode = scaled(scale, measured(seen, x)) if told else None, functools.partial(network, params["decoder"])
        if not latents:
            return optax.sigmoid_binary_cross_entropy(jax.vmap(decode)(c), x).sum(1).mean()

        def encode(*given: Any) -> Any:
            return jnp.split(network(params["encoder"], *given), 2)

        return inverse.negative_evidence(encode, decode, x, draw, condition=c).bound.mean()

    def step(carry: Any, key: Any) -> Any:
        params, state = carry
        which, key = jax.random.split(key)
        rows = x[jax.random.randint(which, (config.batch_size,), 0, len(x))]
        updates, state = tx.update(jax.grad(loss)(params, rows, key), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(order, config.train_steps))
    return {"decoder": params["decoder"], **scale}


def scaled(net: Any, y: Any) -> Any:
    """Measurements as a network is told them."""
    return (y - net["centre"][None]) / jnp.maximum(net["width"], 1e-6)[None]


@functools.partial(jax.jit, static_argnames=("config", "method"))
def made(net: Any, A: Any, y: Any, key: Any, number: Any, *, config: Config, method: str) -> Any:
    """Images ``[B, D]`` by a network, of its kind; ``number`` is the method's own."""
    told = scaled(net, y) if method.startswith(("e2e", "conditional")) else None
    if method in ("e2e", "conditional_0"):
        z = jnp.zeros(config.latents * (method != "e2e"))
        return jax.vmap(lambda c: image(net, z, c))(told)
    start = inverse.latent_starts(key, config.restarts, len(y), config.latents)
    generator = functools.partial(image, net)
    if method == "projected":
        budget: dict[str, Any] = {"rounds": 10, "steps": max(1, config.search_steps // 2)}
        return inverse.projected_search(generator, A, y, start, step=number, **budget).x
    search = {"optimizer": optax.adam(config.search_rate), "steps": config.search_steps, "condition": told}
    return inverse.latent_search(generator, A, y, start, penalty=number, **search).x


#: Images with few cosines.
by_lasso = jax.jit(lambda A, y, strength, basis: inverse.lasso(y, A, strength=strength, basis=basis).x)
#: Which network a method needs.
NETS = {"csgm": "vae", "projected": "vae", "e2e": "e2e", "conditional_0": "cvae", "conditional": "cvae"}


@functools.lru_cache(maxsize=4)
def net_of(config: Config, seed: int, kind: str, measurements: int) -> Any:
    """A trained network; the VAE knows no measurement, and is one for all numbers of them."""
    key, x = jax.random.fold_in(jax.random.key(seed), measurements), load(config, seed).train
    A = looks(config, load(config, seed), max(measurements, 1), key)["test"].A
    return fitted(jnp.asarray(x), A, jax.random.fold_in(key, 2), config=config, kind=kind)


def answering(config: Config, seed: int, measurements: int) -> Callable[..., Any]:
    """``answer(method, view, number) -> (images, the error of each, time)``; no search is made twice."""
    images, key = load(config, seed), jax.random.fold_in(jax.random.key(seed), measurements)
    seen = looks(config, images, measurements, key)

    @functools.cache
    def found(method: str, view: str, number: float) -> tuple[Any, Mapping[str, float]]:
        x, A, y = seen[view]
        took = study.clock()
        if method == "mean":
            return np.broadcast_to(images.train.mean(0), x.shape), took()
        if method == "lmmse":
            mean, covariance = images.train.mean(0), np.cov(images.train, rowvar=False)
            variance = max(config.noise**2 / measurements, 1e-8)
            return inverse.lmmse(y, A, mean=mean, covariance=covariance, noise=variance).x, took()
        if method == "lasso":
            return by_lasso(A, y, number, inverse.dct_basis(images.shape)), took()
        kind = NETS[method]
        net, took = net_of(config, seed, kind, 0 if kind == "vae" else measurements), study.clock()
        pixels = made(net, A, y, jax.random.fold_in(key, 1), number, config=config, method=method)
        return jax.block_until_ready(pixels), took()

    def answer(method: str, view: str, number: float) -> tuple[np.ndarray, np.ndarray, Mapping[str, float]]:
        (x, A, y), (pixels, spent) = seen[view], found(method.removesuffix("_plus"), view, number)
        if method.endswith("_plus"):
            pixels = inverse.consistent(pixels, A, y)
        pixels = np.clip(np.asarray(pixels), 0, 1)
        return pixels, np.mean((pixels - x) ** 2, axis=1), spent

    return answer


def tried(config: Config, method: str) -> tuple[float, ...]:
    """A method's own numbers, of which validation chooses."""
    own = {"lasso": config.strengths, "projected": config.outer_steps, "csgm": config.penalties}
    return (own | {"conditional": config.penalties}).get(method.removesuffix("_plus"), (0.0,))


def measured(config: Config, cell: study.Cell, answer: Callable[..., Any]) -> dict[str, Any]:
    """The record of a method."""
    method, images = "lasso" if cell["method"] in TIMES else cell["method"], load(config, cell["seed"])
    number = min(tried(config, method), key=lambda n: float(answer(method, "validation", n)[1].mean()))
    pixels, error, spent = answer(method, "test", number)
    by_class = np.asarray(metrics.group_means(error, images.y, len(images.classes)))
    there = np.isfinite(by_class)  # of few images some classes have none
    record = {
        "error": float(error.mean()),
        "decibels": decibels(error),
        "excess": float(by_class[there].max() - error.mean()),
        "times": float(by_class[there].max() / error.mean()),
        "worst_class": images.classes[int(np.where(there, by_class, -1).argmax())],
        "number": float(number),
        **{f"decibels_{view}": decibels(answer(method, view, number)[1]) for view in ELSEWHERE},
        **{f"class_{images.classes[c]}": float(by_class[c]) for c in np.flatnonzero(there)},
        **spent,
    }
    if cell["seed"] == 0:  # the first image of each class is shown
        rows = [int(np.argmax(images.y == c)) for c in np.flatnonzero(there)]
        shown = {"picture": pixels, "truth": images.test}
        record |= {name: np.round(255 * one[rows]).astype(int).tolist() for name, one in shown.items()}
    return record


def decibels(error: np.ndarray) -> float:
    """The peak signal-to-noise ratio of squared errors: 10 more is a tenth of the error."""
    return -10 * float(np.log10(max(error.mean(), 1e-12)))


# --- the run -------------------------------------------------------------------------------------------------------


def run(config: Config) -> None:
    """Measures what is not yet recorded, and writes the page."""
    wanted = study.grid(seed=range(config.seeds), measurements=config.measurements, method=config.methods)
    wanted = [c for c in wanted if c["measurements"] * TIMES.get(c["method"], 1) <= DATASETS[config.dataset]]
    with study.opened(config, NAMES, grows=("methods", "measurements", "seeds")) as this:
        for shared, cells in this.missing(wanted, together=("seed", "measurements")):
            for times, some in itertools.groupby(cells, key=lambda cell: TIMES.get(cell["method"], 1)):
                answer = answering(config, shared["seed"], shared["measurements"] * times)
                for cell in some:
                    this.record(cell, measured(config, cell, answer))
        tell(this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of the papers' claims, and of what they leave out."""
    at: dict[str, Any] = {"at": ("measurements",), "level": lambda m: f"{m} measurements"}
    closer, most = ("closer to the truth", "farther from it"), max(study.values(records, "measurements"))
    pairs = [*itertools.product(("csgm",), TIMES), ("conditional", "csgm"), ("conditional", "e2e")]
    pairs += [("conditional_plus", "e2e_plus"), ("csgm", "lmmse"), ("conditional", "lmmse"), ("csgm_plus", "csgm")]

    def near(method: str, peer: str, column: str, words: tuple[str, str], **more: Any) -> study.Claim:
        return study.Claim(method, peer, column, words, scale=1.0, unit="decibels", **at, **more)

    found = []
    for method, peer in pairs:  # what the lasso would need may be more than there are pixels
        levels = study.values(study.chosen(records, method=peer), "measurements") if peer in TIMES else [None]
        found += [near(method, peer, "decibels", closer, among={"measurements": m} if m else {}) for m in levels]
    tenth = "at a tenth of the error: closer to the truth", closer[1]
    found.append(near("conditional_plus", "csgm", "decibels", tenth, margin=10, among={"measurements": most}))
    words = {f"decibels_{view}": (f"closer {how}", f"farther {how}") for view, how in ELSEWHERE.items()}
    found += [near("conditional", "csgm", column, said) for column, said in words.items()]
    kinder = ("kinder to the class that comes out worst", "harder on the class that comes out worst")
    even = ("more even among the classes", "less even among them")  # asked after a look at the errors of classes
    peers, shares = ("csgm", "e2e", "lmmse"), {"scale": 1.0, "unit": "times the mean", **at}
    found += [study.Claim("conditional", peer, "excess", kinder, -1, unit="hundredths", **at) for peer in peers]
    found.append(study.Claim("conditional", "lmmse", "times", even, -1, **shares))
    there = set(study.values(records, "method"))
    return [claim for claim in found if {claim.method, claim.peer} <= there]


def pictured(records: Sequence[Any]) -> int:
    """The number of measurements whose images are shown."""
    there = sorted(study.values(records, "measurements"))
    return there[(len(there) - 1) // 2]


def pictures(records: Sequence[Any], *, narrow: bool = False) -> Any:
    """The truth and what each method made of it, an image of each class in a row."""
    mine = [r for r in study.chosen(records, measurements=pictured(records)) if "picture" in r]
    mine = sorted((r for r in mine if r["method"] not in TIMES), key=lambda r: METHODS.index(r["method"]))
    rows, side = {"truth": mine[0]["truth"]}, int(np.sqrt(len(mine[0]["truth"][0])))
    rows |= {r["method"]: r["picture"] for r in mine}
    images = {name: np.array(row).reshape(-1, side, side) for name, row in rows.items()}
    return figures.pictures(images, number=10, high=255.0, **({"width": 3.9} if narrow else {}))


def curves(records: Sequence[Any]) -> Any:
    """Decibels against measurements: of what learns little or searches, of networks; and elsewhere."""
    few = ("mean", "lasso", "lmmse", "csgm", "csgm_plus", "projected")
    more = ("lmmse", "csgm_plus", "e2e", "e2e_plus", "conditional_0", "conditional", "conditional_plus")
    some = ("lmmse", "csgm", "csgm_plus", "e2e", "conditional", "conditional_plus")

    def panel(methods: Sequence[str], column: str, title: str, label: str = "closeness (dB)") -> figures.Panel:
        mine = [r for r in records if r["method"] in methods]
        return figures.Panel(report.lines(mine, column, along="measurements", scale=1), title, label)

    here = [panel(few, "decibels", "searched"), panel(more, "decibels", "with networks")]
    there = [panel(some, f"decibels_{view}", how) for view, how in ELSEWHERE.items()]
    rows = [here, there[:2], [there[2], panel(some, "times", "whose comes out worst", "worst class / mean")]]
    return figures.levels(rows, methods=METHODS, along="measurements")


def tell(this: study.Run) -> None:
    """The page."""
    records, there = this.records, study.values(this.records, "method")
    names = [report.Name("measurements"), report.Name("method", order=METHODS)]
    columns = {
        "error": report.in_points("error"),
        "closeness (dB)": report.number("decibels", ".2f"),
        "worst class": report.number("times", ".2f"),
        "which": lambda rows: pd.Series([r["worst_class"] for r in rows]).mode()[0],
        **{words: report.number(f"decibels_{view}", ".1f") for view, words in ELSEWHERE.items()},
        "own number": report.number("number", ".3g", of=np.median),
        "CPU seconds": report.number("cpu_seconds", ".2f", of=np.median),
    }
    mine = study.chosen(records, measurements=pictured(records))
    of_all = [c for c in sorted(mine[0]) if c.startswith("class_") and all(c in r for r in mine)]
    classes = {c.removeprefix("class_"): report.in_points(c, digits=1) for c in of_all}
    peers = {"conditional": ["csgm", "e2e", "lmmse"], "conditional_plus": ["e2e_plus"], "csgm": ["lmmse", "lasso"]}
    shown = pd.DataFrame([{k: v for k, v in r.items() if k not in ("picture", "truth")} for r in records])
    report.study(
        this,
        prog="experiments.inverse_problems",
        title="Images from few measurements",
        subtitle="Generators that are searched, beside one matrix and a network",
        found=[
            f"{len(study.values(records, 'seed'))} matrices and splits. 10 decibels more are a tenth of the error.",
            *(study.judge(records, claim) for claim in claims(records)),
        ],
        drawn=[
            report.Drawn("pictures", pictures(records), f"The first test image of each class, from {pictured(records)} "
                         "measurements; the first seed.", alt="test images and what each method made of them",
                         narrow=pictures(records, narrow=True)),
            report.Drawn("curves", curves(records), "Higher is closer; in the last panel, lower is fairer. Bars are "
                         "95 % intervals.", alt="closeness by method and measurements, as in the table"),
        ],
        shown=[
            report.Shown(
                "table", report.table(records, names, columns), "Every method at every number of measurements.",
                "On test; mean and half-width of the 95 % t interval over seeds. Error: the mean squared error of a "
                "pixel in [0, 1], in hundredths. Worst class: its error over the mean one, the largest of ten noisy "
                "numbers, and which it is most often. Then decibels with a matrix that the networks were not trained "
                "for, at ten times the noise, and of images turned by 90 degrees. Own number: penalty, strength or "
                "step, chosen on validation; its median. CPU seconds: of the test images, without training; median.",
                numbers=shown, title="error in hundredths, mean ± 95 % over seeds",
            ),
            report.Shown(
                "classes", report.table(mine, names[1:], classes),
                f"The error of every class, {pictured(records)} measurements.",
                "In hundredths; mean and half-width of the 95 % interval over seeds. Less ink makes smaller errors.",
            ),
            report.Shown(
                "paired", report.paired_table(records, names, {"error": "error", "excess of the worst class": "excess"},
                                              peers=lambda m: peers.get(m, [])),
                "Paired differences with the same matrices, in hundredths.",
                "Below 0 the first is better. Excess: how far the worst class's error is above the mean.",
            ),
        ],
        done=[f"{m}: {w}." for m, w in IN_WORDS.items() if m in there],
        paragraphs=["All networks have two hidden layers of one width, and as many steps. Test is only measured."],
    )  # fmt: skip


main = flags.entry(run, Config, prog="inverse_problems")


if __name__ == "__main__":
    main()
