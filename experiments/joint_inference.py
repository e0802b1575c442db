"""Joint inference: whether it pays to find an equilibrium model's input and its fixed point in one iteration (JIIO).

    .venv/bin/python -m experiments.joint_inference

trains a deep equilibrium model with a latent of 8 numbers to make digits, by the envelope gradient. Then latents of
test digits are sought: jointly, with Anderson acceleration or none, and by Adam with inner loops for fixed point and
adjoint, warm-started, under a cosine. Each has, for every budget, the best of its rates on validation. A digit is
explained where the loss, with the fixed point solved at the latent that was found, is within 2 % of the best that long
runs found. What the model is good for: reconstruction, denoising and inpainting beside principal components and a
Gaussian's one matrix.

Found with the defaults, five splits, seven CPU minutes on one core (`taskset -c 0`; two are slower where others work):
to explain 80 % of the digits joint inference needs 64 evaluations, two loops 257, 557 and 2,195 with inner loops of 1,
3 and 8 steps. The paper's three to nine times fewer holds. By the processor's time it does not: with 8 points, which is
quickest, 15 ms stand beside 18, 21 and 59. Type II is ahead early (50 evaluations), and ends lower; by Gram-Schmidt it
takes two thirds to four fifths of the time. Squares per pixel, in hundredths, are 1.44 ± 0.08 beside 2.37 ± 0.08 of as
many principal components; of noise 1.87 and of hidden pixels 8.8, beside 2.86 and 12.1, but one matrix does it better:
1.45 and 7.6.

It writes `runs/joint_inference/<id>/`: config.json, records.jsonl (the same command goes on where a killed run
stopped), the generators, pictures, tables, figures, report.html.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair import data, inverse, metrics, report, study, train
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.typing import Solver

IN_WORDS = {
    "jiio_1": "joint inference, Anderson type I over 20 points",
    "jiio_2": "joint inference, Anderson type II over 20 points",
    "jiio_t": "joint inference, type II over 20 points by truncated Gram-Schmidt, which solves no system",
    "jiio_8": "joint inference, Anderson type I over 8 points",
    "joint": "the joint iteration without acceleration",
    "nested_1": "Adam on the latent, fixed point and adjoint by one step each",
    "nested_3": "Adam on the latent, fixed point and adjoint by 3 steps each",
    "nested_8": "Adam on the latent, fixed point and adjoint by 8 steps each",
}
METHODS = tuple(IN_WORDS)
JOINT: dict[str, tuple[int, Any]] = {
    "jiio_1": (20, 1),
    "jiio_2": (20, 2),
    "jiio_t": (20, "truncated"),
    "jiio_8": (8, 1),
    "joint": (1, 1),
}
#: What is tried on validation digits: rates, weights of the prior, and noises of the Gaussian's measurement.
RATES = {"jiio": (0.03, 0.1, 0.3), "join": (0.003, 0.01, 0.03), "nest": (0.03, 0.1, 0.3, 1.0)}
#: How near to the best loss a digit is explained; the prior's weight in training; the noise that is to be removed.
WITHIN, PRIOR, NOISE = 0.02, 0.001, 0.2
PRIORS, NOISES = (0.001, 0.01, 0.1, 0.3, 1.0), (0.001, 0.01, 0.03, 0.1)
MODELS = {
    "equilibrium": "the generator's picture at the latent that joint inference found, as is, not trained for the task",
    "pca": "principal components, as many as the latent has numbers, by least squares on what is seen",
    "gaussian": "the posterior mean under a Gaussian fitted to the training digits, noise chosen on validation",
}
TASKS = ("reconstruct", "denoise", "inpaint")
NAMES = ("task", "method", "evaluations", "target", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    """Latents of a deep equilibrium generator, found jointly with its fixed point or in two loops."""

    # of jiio_1, jiio_2, jiio_t, jiio_8, joint, nested_1, nested_3, nested_8
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # evaluations of the model that a method may make
    evaluations: tuple[int, ...] = flags.several((20, 40, 80, 160, 320, 640, 1280), int, low=8)
    # shares of the digits that are to be explained
    targets: tuple[float, ...] = flags.several((0.5, 0.8, 0.9), float, above=0, high=1)
    # how many splits, generators and noises
    seeds: int = flags.one(5, low=1, high=10_000)
    # digits of validation and of test, at most
    examples: int = flags.one(179, low=8, high=179)
    # numbers of the model's state, and of the latent
    width: int = flags.one(64, low=1)
    latent: int = flags.one(8, low=1, high=60)
    # spectral norm of the model's matrix, at most
    bound: float = flags.one(0.9, above=0, below=1)
    # passes over the training digits
    epochs: int = flags.one(45, low=1)
    # examples a step
    batch_size: int = flags.one(128, low=1)
    # of Adam, falling to 0 along a cosine
    learning_rate: float = flags.one(0.005, above=0)
    # the run goes into a folder in here
    runs_dir: str = "runs/joint_inference"
    # name of that folder; a hash of the settings by default
    id: str = ""


# --- the generator -------------------------------------------------------------------------------------------------


def init(config: Config, key: Any) -> Any:
    """Its parameters."""
    n = config.width
    shapes = (n, n), (n, config.latent), (64, n)
    w, u, v = (jax.random.normal(jax.random.fold_in(key, i), s) / s[1] ** 0.5 for i, s in enumerate(shapes))
    return {"w": w, "u": u, "b": jnp.zeros(n), "v": v, "c": jnp.full(64, -1.0)}


def normed(params: Any, bound: float) -> Any:
    """The same with a matrix whose spectral norm is bounded: the fixed point is there, and unique."""
    return params | {"w": params["w"] * bound / jnp.maximum(jnp.linalg.norm(params["w"], 2), bound)}


def layer(p: Any) -> Any:
    """The model."""
    return lambda z, x: jnp.tanh(p["w"] @ z + p["u"] @ x + p["b"])


def decode(p: Any, z: Any) -> Any:
    """The picture of a state, ``[64]``."""
    return jax.nn.sigmoid(p["v"] @ z + p["c"])


def loss_of(p: Any, y: Any, seen: Any, prior: Any) -> Any:
    """Squares over the pixels that are seen, and the prior."""
    return lambda z, x: jnp.sum(seen * (decode(p, z) - y) ** 2) + prior * jnp.sum(x**2)


@functools.cache
def generator(config: Config, steps: int) -> Solver:
    """Trained at latents that joint inference found, by the gradient of the Lagrangian: no adjoint is solved."""
    zeros = jnp.zeros(config.width), jnp.zeros(config.latent)

    def apply(params: Any, state: Any, y: Any, *, train: bool, key: Any = None) -> tuple[Any, Any]:
        p, fixed = normed(params, config.bound), normed(jax.lax.stop_gradient(params), config.bound)
        how = {"rate": 0.1, "memory": 10, "evaluations": 40}

        def one(y: Any) -> Any:
            at = inverse.joint_inference(layer(fixed), loss_of(fixed, y, 1.0, PRIOR), *zeros, **how).at
            return inverse.lagrangian(layer(p), loss_of(p, y, 1.0, PRIOR), at)

        return jax.vmap(one)(y), state

    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))
    return train.descent(apply, tx, loss=lambda values, batch: jnp.mean(values))


def trained(config: Config, split: Any, seed: int) -> Any:
    """A generator's parameters ``[1, ...]``."""
    size = min(config.batch_size, len(split.y))
    solver = generator(settings_of(config), config.epochs * (len(split.y) // size))
    start = jax.vmap(lambda key: solver.init(init(config, key)))(jax.random.key(seed)[None])
    keys = jax.random.key(100 + seed)[None]
    return train.fit(solver, start, split, keys=keys, epochs=config.epochs, batch_size=size).solver.params


# --- latents -------------------------------------------------------------------------------------------------------


def nested(p: Any, loss: Any, zeros: Any, rate: Any, evaluations: Any, inner: int) -> Any:
    """Adam on the latent; fixed point and adjoint go on from where they were. The last product is for free."""
    function, tx, length = layer(p), optax.scale_by_adam(), evaluations // inner

    def outer(i: Any, carry: Any) -> Any:
        z, x, mu, state = carry
        for _ in range(inner):
            z = function(z, x)
        _, pull = jax.vjp(function, z, x)
        loss_z, loss_x = jax.grad(loss, argnums=(0, 1))(z, x)
        for _ in range(inner):
            mu = loss_z + pull(mu)[0]
        updates, state = tx.update(loss_x + pull(mu)[1], state)
        return z, x - rate * (1 + jnp.cos(jnp.pi * i / length)) / 2 * updates, mu, state

    z, x = zeros
    return jax.lax.fori_loop(0, length, outer, (z, x, jnp.zeros_like(z), tx.init(x)))[1]


@functools.cache
def finder(config: Config, method: str) -> Any:
    """``find(params, y [B, 64], seen [64], prior, rate, evaluations) -> x [B, latent]``."""

    def one(params: Any, y: Any, seen: Any, prior: Any, rate: Any, evaluations: Any) -> Any:
        p, zeros = normed(params, config.bound), (jnp.zeros(config.width), jnp.zeros(config.latent))
        loss = loss_of(p, y, seen, prior)
        if method not in JOINT:
            return nested(p, loss, zeros, rate, evaluations, int(method.removeprefix("nested_")))
        memory, kind = JOINT[method]
        how = {"memory": memory, "kind": kind, "evaluations": evaluations}
        return inverse.joint_inference(layer(p), loss, *zeros, rate=rate, **how).at.x

    return jax.jit(jax.vmap(one, in_axes=(None, 0, None, None, None, None)))


@functools.cache
def judging(config: Config) -> Any:
    """``judge(params, x, y, seen, prior) -> (loss [B], picture [B, 64])``, at the fixed point of each latent."""

    def one(params: Any, x: Any, y: Any, seen: Any, prior: Any) -> Any:
        p = normed(params, config.bound)
        z = inverse.equilibrium(layer(p), jnp.zeros(config.width), x, evaluations=100).value
        return loss_of(p, y, seen, prior)(z, x), decode(p, z)

    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0, None, None)))


def settings_of(config: Config) -> Config:
    """The settings that a program depends on."""
    return dataclasses.replace(config, methods=(), evaluations=(), targets=(), seeds=1, runs_dir="", id="")


class Latents:
    """The generator of a seed, its validation and test digits, and the best loss of each that is known."""

    def __init__(self, config: Config, seed: int, folder: Any) -> None:
        self.config, self.settings, self.seed = config, settings_of(config), seed
        digits = data.load("digits", flatten=True, split_seed=seed)
        self.train, self.labels = digits.train.x, digits.test.y[: config.examples]
        self.y = {"validation": digits.validation.x[: config.examples], "test": digits.test.x[: config.examples]}
        like = jax.eval_shape(lambda: init(config, jax.random.key(0)))
        made = train.from_files([folder / f"generator_{seed}.npz"], like, lambda _: trained(config, digits.train, seed))
        self.params, self.all, self.best = train.take(made, 0), jnp.ones(64), {}

    def losses(self, method: str, part: str, rate: float, evaluations: int) -> np.ndarray:
        """Of each digit, at the latent that a method finds."""
        x = finder(self.settings, method)(self.params, self.y[part], self.all, PRIOR, rate, evaluations)
        return np.asarray(judging(self.settings)(self.params, x, self.y[part], self.all, PRIOR)[0])

    def explained(self, method: str, part: str, rate: float, evaluations: int) -> np.ndarray:
        """Whether each digit is, beside the best of long runs, which are the same whatever is asked for."""
        if part not in self.best:
            most = max(self.config.evaluations)
            runs = [(m, rate, n) for m, n in (("jiio_1", most // 2), ("nested_1", 2 * most)) for rate in RATES[m[:4]]]
            self.best[part] = np.nanmin([self.losses(m, part, *how) for m, *how in runs], axis=0)
        return self.losses(method, part, rate, evaluations) <= (1 + WITHIN) * self.best[part]

    def speed(self, method: str, evaluations: int) -> dict[str, Any]:
        """The share of test digits that is explained, with the best rate on validation, and how long that takes."""
        shares = {rate: self.explained(method, "validation", rate, evaluations).mean() for rate in RATES[method[:4]]}
        rate = max(shares, key=shares.__getitem__)
        arguments = self.params, self.y["test"], self.all, PRIOR, rate, evaluations
        explained, times = self.explained(method, "test", rate, evaluations), []
        for _ in range(3):
            began = time.process_time()
            jax.block_until_ready(finder(self.settings, method)(*arguments))
            times.append(time.process_time() - began)
        return {"share": float(explained.mean()), "rate": rate, "cpu_seconds": min(times)}

    def measured(self, task: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """What is seen of the digits of both parts; which pixels are, and which are asked for."""
        seen, rng = np.ones((8, 8), np.float32), np.random.default_rng(self.seed)
        if task == "inpaint":
            seen[2:6, 2:6] = 0
        seen, noise = seen.ravel(), NOISE if task == "denoise" else 0.0
        given = {part: (y + noise * rng.normal(size=y.shape).astype(np.float32)) * seen for part, y in self.y.items()}
        return given, seen, 1 - seen if task == "inpaint" else np.ones_like(seen)

    def pictures(self, task: str, method: str) -> np.ndarray:
        """``[B, 64]`` of test, by the setting that is best on validation."""
        given, seen, asked = self.measured(task)

        def of(part: str, setting: float) -> np.ndarray:
            if method == "equilibrium":
                x = finder(self.settings, "jiio_1")(self.params, given[part], seen, setting, 0.1, 160)
                return np.asarray(judging(self.settings)(self.params, x, given[part], seen, setting)[1])
            return linear(self.train, given[part], seen, self.config.latent if method == "pca" else 64, setting)

        settings = {"equilibrium": PRIORS, "gaussian": NOISES, "pca": (1e-4,)}[method]
        errors = {s: np.mean(asked * (of("validation", s) - self.y["validation"]) ** 2) for s in settings}
        return of("test", min(errors, key=errors.__getitem__))

    def errors(self, task: str, method: str) -> dict[str, Any]:
        """Squares per pixel that was to be found, and those of the class that has the largest."""
        asked = self.measured(task)[2]
        squares = (asked * (self.pictures(task, method) - self.y["test"]) ** 2).sum(1) / asked.sum()
        worst = np.nanmax(metrics.group_means(squares, self.labels, 10))
        return {"error": float(squares.mean()), "worst_class": float(worst)}


def linear(train_x: Any, y: Any, seen: Any, components: int, noise: float) -> np.ndarray:
    """The posterior mean of principal components with their variances, of which pixels were seen through noise."""
    mean = train_x.mean(0)
    _, spread, basis = np.linalg.svd(train_x - mean, full_matrices=False)
    basis, variance = basis[:components].T, spread[:components] ** 2 / len(train_x) + 1e-9
    system = basis.T @ (seen[:, None] * basis) + noise * np.diag(1 / variance)
    return mean + np.linalg.solve(system, basis.T @ (seen * (y - mean)).T).T @ basis.T


def needed(records: Sequence[Any], target: float, most: int) -> dict[str, Any]:
    """What a method needs to explain a share of the digits, between two budgets along the logarithm.

    Who does not get there has needed the most, at the pace of its largest budget.
    """
    rows = sorted(records, key=lambda r: r["evaluations"])
    budgets, seconds = (np.log2([r[name] for r in rows]) for name in ("evaluations", "cpu_seconds"))
    shares = np.array([r["share"] for r in rows])
    reached, i = bool((shares >= target).any()), int(np.argmax(shares >= target))
    part = (target - shares[i - 1]) / (shares[i] - shares[i - 1]) if i else 1.0
    more = np.log2(most) - budgets[-1]
    ends = [float((1 - part) * v[i - 1] + part * v[i] if reached else v[-1] + more) for v in (budgets, seconds)]
    return {"log_evaluations": ends[0], "log_seconds": ends[1], "reached": reached}


# --- the run -------------------------------------------------------------------------------------------------------


def run(config: Config) -> None:
    """Finds what is not yet recorded, and writes the page."""
    seeds = range(config.seeds)
    wanted = study.grid(task=["speed"], seed=seeds, method=config.methods, evaluations=config.evaluations)
    # Where it is accelerated nothing changes after a quarter of the evaluations, and they cost more.
    most = max(min(config.evaluations), max(config.evaluations) // 4)
    wanted = [cell for cell in wanted if cell["method"][:4] != "jiio" or cell["evaluations"] <= most]
    wanted += study.grid(task=["latents"], seed=seeds, method=config.methods, target=config.targets)
    peers = study.grid(task=TASKS, seed=seeds, method=MODELS)
    # With as many numbers as there are pixels the Gaussian would reconstruct anything.
    wanted += [cell for cell in peers if (cell["task"], cell["method"]) != ("reconstruct", "gaussian")]
    with study.opened(config, NAMES, grows=("methods", "targets", "seeds")) as this:
        for shared, cells in this.missing(wanted, together=("seed",)):
            latents = Latents(config, shared["seed"], this.folder)
            if shared["seed"] == 0:
                train.save(this.folder / "pictures.npz", shown_digits(latents))
            for cell in cells:
                task, method = cell["task"], cell["method"]
                if task == "latents":
                    mine = study.chosen(this.records, task="speed", method=method, seed=shared["seed"])
                    this.record(cell, needed(mine, cell["target"], 2 * max(config.evaluations)))
                elif task == "speed":
                    this.record(cell, latents.speed(method, cell["evaluations"]))
                else:
                    this.record(cell, latents.errors(task, method))
        tell(this)


def shown_digits(latents: Latents, number: int = 8) -> dict[str, np.ndarray]:
    """The first test digits, and what was made of them."""
    rows = {"digit": latents.y["test"]}
    for task, before, peer in zip(TASKS, ("", "noisy", "hidden"), ("pca", "gaussian", "gaussian"), strict=True):
        if before:
            rows[before] = latents.measured(task)[0]["test"]
        rows |= {f"{task}: {method}": latents.pictures(task, method) for method in ("equilibrium", peer)}
    return {f"{i} {name}": np.asarray(rows[name][:number], np.float32) for i, name in enumerate(rows)}


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen: three times fewer evaluations, and seconds; and pictures nearer to the truth."""

    def quicker(method: str, peer: str, unit: str, times: int = 1) -> study.Claim:
        return study.Claim(
            method, peer, f"log_{unit}", (f"quicker in {unit}", f"slower in {unit}"), -1, at=("target",),
            among={"task": "latents"}, scale=1.0, unit="doublings", margin=round(np.log2(times), 2),
        )  # fmt: skip

    def nearer(peer: str, **among: str) -> study.Claim:
        words, shown = ("nearer to the truth", "farther from it"), {"unit": "hundredths", "level": str}
        return study.Claim("equilibrium", peer, "error", words, -1, ("task",), among, **shown)

    wanted = [quicker("jiio_1", f"nested_{n}", "evaluations", times=3) for n in (1, 3, 8)]
    wanted += [quicker("jiio_8", f"nested_{n}", "seconds", times=3) for n in (1, 3, 8)]
    wanted += [quicker("jiio_1", peer, "evaluations") for peer in ("joint", "jiio_2")]
    wanted += [quicker("jiio_8", "jiio_1", "seconds"), quicker("jiio_t", "jiio_2", "seconds"), nearer("pca")]
    wanted += [nearer("gaussian", task=task) for task in TASKS[1:]]
    there = set(study.values(records, "method"))
    return [claim for claim in wanted if {claim.method, claim.peer} <= there]


def tell(this: study.Run) -> None:
    """The page."""
    records = this.records
    speeds, ends = (study.chosen(records, task=task) for task in ("speed", "latents"))
    errors = [r for r in records if r["task"] in TASKS]
    method = report.Name("method", order=(*METHODS, *MODELS))
    takes: dict[str, Any] = {"reached": report.counted("reached")}
    takes["evaluations"] = report.number("log_evaluations", ",.0f", of=lambda v: 2 ** np.mean(v))
    takes["milliseconds"] = report.number("log_seconds", ",.1f", of=lambda v: 1000 * 2 ** np.mean(v))
    squares = {"error": report.in_points("error"), "worst class": report.in_points("worst_class")}
    report.study(
        this,
        prog="experiments.joint_inference",
        title="An input and its equilibrium, found together",
        subtitle="Joint inference beside two loops, in evaluations and in seconds",
        found=[
            f"{len(study.values(records, 'seed'))} generators. Explained: within 2 % of the best loss that is known.",
            *(study.judge(records, claim) for claim in claims(records)),
        ],
        drawn=[*drawn_speed(speeds), *drawn_digits(this)],
        shown=[
            report.Shown(
                "table", report.table(ends, [report.Name("target", "explained", study.percent), method], takes),
                "What it takes to explain a share of the digits.",
                "Geometric means over seeds, between two budgets along the logarithm. An evaluation is one of the "
                "model and one product with its Jacobian. Who does not get there counts with twice the largest budget, "
                "at its pace. Milliseconds: of the processor, for all test digits, the least of three calls.",
                numbers=pd.DataFrame(records), title="geometric means over seeds",
            ),
            report.Shown(
                "errors", report.table(errors, [report.Name("task", order=TASKS), method], squares),
                "Squares per pixel, times 100.",
                "Mean and half-width of the 95 % t interval over seeds; of inpainting, over the hidden pixels. Worst "
                "class: of the digit whose error is largest.", title="times 100, mean ± 95 % over seeds",
            ),
        ],
        done=[f"{m}: {w}." for m, w in (IN_WORDS | MODELS).items() if study.chosen(records, method=m)],
        paragraphs=["Rates, prior and the Gaussian's noise are chosen on validation. Latents begin at zero."],
    )  # fmt: skip


def drawn_speed(records: Sequence[Any]) -> list[report.Drawn]:
    """The share that is explained, along evaluations and along seconds."""
    look, titles = figures.looks(METHODS), ("evaluations", "processor milliseconds for all digits")
    with figures.style():
        figure = figures.new_figure(height=3.6)
        axes_of = figure.subplots(1, 2, sharey=True)
        for method in study.values(records, "method"):
            rows, (color, marker, line) = study.chosen(records, method=method), look[method]
            means = [
                [np.mean(study.by_seed(rows, name, evaluations=n)) for n in sorted(study.values(rows, "evaluations"))]
                for name in ("evaluations", "cpu_seconds", "share")
            ]
            for axes, along in zip(axes_of, (means[0], 1000 * np.array(means[1])), strict=True):
                axes.semilogx(along, 100 * np.array(means[2]), color=color, marker=marker, ls=line, ms=4, label=method)
        for axes, title in zip(axes_of, titles, strict=True):
            axes.set_xlabel(title)
            axes.xaxis.set_major_formatter("{x:g}")
        axes_of[0].set_ylabel("digits explained (%)")
        figure.legend(*axes_of[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    said = "Means over seeds; left by evaluations of the model, right by the processor's time. Up and left is better."
    return [report.Drawn("speed", figure, said, alt="digits explained, by method; the numbers are in the table")]


def drawn_digits(this: study.Run) -> list[report.Drawn]:
    """Digits of the first seed, and what was made of them."""
    with np.load(this.folder / "pictures.npz") as file:
        rows = {name[2:].replace(": ", "\n"): file[name].reshape(-1, 8, 8) for name in sorted(file.files)}
    wide, narrow = figures.pictures(rows), figures.pictures(rows, number=4, width=3.9)
    said = "The first test digits of the first seed: none was chosen. Darker is more ink."
    return [report.Drawn("digits", wide, said, alt="digits, and what was made of them", narrow=narrow)]


main = flags.entry(run, Config, prog="joint_inference")


if __name__ == "__main__":
    main()
