"""Where to measure next, by local regression: whether it is as good as a Gaussian process, and what it costs.

    .venv/bin/python -m experiments.pseudo_bayes

minimises functions that tests of global optimisation use, so that the truth is known: a search may measure 60 to 200
points. The claim of the paper on pseudo-Bayesian optimisation (Chen and Lam, 2023) is that local regression with a
randomised prior and expected improvement beats the state of the art. Here against random points, points of low
discrepancy, and scikit-learn's Gaussian process with the same kernel, which chooses by expected improvement among
candidates that are drawn alike.

All searches of a seed begin with the same points. It writes `runs/pseudo_bayes/<id>/`: config.json, records.jsonl (one
line per search; the same command goes on where a killed run stopped), table.md and .csv, figures, report.html.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from scipy import stats
from scipy.stats import qmc

from jaxfair import report, search, study
from jaxfair.cli import flags
from jaxfair.report import figures
from jaxfair.search import space

IN_WORDS = {
    "kriging": "ours: the best weights of at most 32 neighbours",
    "shepard": "weights that fall with distance",
    "linear": "a plane through the neighbours",
    "everywhere": "kriging, with candidates in all of the cube and no region around the best point",
    "batch": "kriging, four points at a time",
    "process": "scikit-learn's Gaussian process, Matern 5/2, fitted again before each point",
    "sobol": "points of low discrepancy",
    "random": "random points",
}
METHODS = tuple(IN_WORDS)
SETTINGS: dict[str, dict[str, Any]] = {
    "kriging": {},
    "shepard": {"rule": search.shepard},
    "linear": {"rule": search.linear},
    "everywhere": {"region": False},
    "batch": {"batch": 4},
}
#: Of Hartmann's function of six variables (Dixon and Szegoe, 1978).
HARTMANN = (
    np.array([1.0, 1.2, 3.0, 3.2]),
    np.array([
        [10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14],
    ]),
    1e-4 * np.array([
        [1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381],
    ]),
)  # fmt: skip
MIXED: space.Space = {
    **{f"x{i}": search.Real(-5, 10) for i in range(3)},
    **{f"n{i}": search.Integer(-5, 10) for i in range(3)},
    "shift": search.Choice((0.0, 1.0, 2.0, 3.0)),
}


class Function(NamedTuple):
    """A function on the unit cube whose minimum is 0.

    Attributes:
      value: ``[D] -> []``.
      dimension: D.
      budget: points that a search may measure.
      snap: as of `jaxfair.search.pseudo_bayes`.
      jumps: as of the same.
    """

    value: Callable[[Any], Any]
    dimension: int
    budget: int
    snap: Callable[[Any], Any] = lambda x: x
    jumps: Any = False


def branin(u: Any) -> Any:
    """Branin's function: three minima, all of them 0 here."""
    x, y = 15 * u[0] - 5, 15 * u[1]
    valley = y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * np.pi)) * jnp.cos(x) + 10 - 0.397887


def hartmann(u: Any) -> Any:
    """Hartmann's function of six variables."""
    alpha, scales, centres = HARTMANN
    return 3.32237 - (alpha * jnp.exp(-(scales * jnp.square(u - centres)).sum(-1))).sum()


def ackley(x: Any) -> Any:
    """Ackley's function: waves on a funnel."""
    far = -20 * jnp.exp(-0.2 * jnp.sqrt(jnp.square(x).mean()))
    return far - jnp.exp(jnp.cos(2 * np.pi * x).mean()) + 20 + np.e


def mixed(u: Any) -> Any:
    """Ackley's of three reals and three whole numbers, moved by a choice: right only at a shift of 1."""
    numbers = 15 * u[:3] - 5
    whole = jnp.floor(jnp.minimum(16 * u[3:6], 15)) - 5
    return ackley(jnp.concatenate([numbers, whole])) + jnp.abs(jnp.argmax(u[6:]) - 1)


FUNCTIONS = {
    "branin": Function(branin, 2, 60),
    "hartmann": Function(hartmann, 6, 100),
    "ackley": Function(lambda u: ackley(15 * u - 5), 10, 100),
    "mixed": Function(mixed, 10, 100, functools.partial(space.snapped, MIXED), space.jumps(MIXED)),
    "ackley_20": Function(lambda u: ackley(15 * u - 5), 20, 200),
}
NAMES, GROWS = ("function", "method", "seed"), ("functions", "methods", "seeds")


@dataclasses.dataclass(frozen=True)
class Config:
    """Searches for a minimum, by local regression and by a Gaussian process."""

    # of branin, hartmann, ackley, mixed, ackley_20 (on which the process takes minutes a seed)
    functions: tuple[str, ...] = flags.several(("branin", "hartmann", "ackley", "mixed"), of=FUNCTIONS)
    # of kriging, shepard, linear, everywhere, batch, process, sobol, random
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # searches
    seeds: int = flags.one(10, low=1, high=10_000)
    # points that a search may measure; 0 is the function's own number
    budget: int = flags.one(0, low=0)
    # among which a point is chosen
    candidates: int = flags.one(900, low=3)
    # the run goes into a folder in here
    runs_dir: str = "runs/pseudo_bayes"
    # name of that folder; a hash of the settings by default
    id: str = ""


def best_so_far(values: Any) -> np.ndarray:
    """Of measured values ``[..., N]``, the least until each."""
    return np.minimum.accumulate(np.asarray(values, np.float64), -1)


# --- the searches --------------------------------------------------------------------------------------------------


def ours(config: Config, of: Function, method: str, budget: int, seeds: Sequence[int]) -> tuple[np.ndarray, float]:
    """The values ``[S, N]`` that searches measured, all of them in one compiled call, and its seconds per search."""
    how = search.pseudo_bayes(
        of.dimension, budget, candidates=config.candidates, snap=of.snap, jumps=of.jumps, **SETTINGS[method]
    )

    def one(key: Any) -> Any:
        first, later = jax.random.split(key)

        def step(told: Any, key: Any) -> tuple[Any, None]:
            x = how.ask(told, key)
            return how.tell(told, x, jax.vmap(of.value)(x)), None

        rounds = -(-budget // SETTINGS[method].get("batch", 1))
        return lax.scan(step, how.init(first), jax.random.split(later, rounds))[0].y

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    program = jax.jit(jax.vmap(one)).lower(keys).compile()
    began = time.perf_counter()
    found = np.asarray(program(keys))
    return found, (time.perf_counter() - began) / len(seeds)


def start(of: Function, count: int, seed: int) -> np.ndarray:
    """Points of low discrepancy, the first of which are those that every search of the seed begins with."""
    how = search.pseudo_bayes(of.dimension, count, first=count, snap=of.snap, jumps=of.jumps, candidates=3)
    told = how.init(jax.random.split(jax.random.key(seed))[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a number of points that is no power of 2
        points = qmc.Sobol(of.dimension, scramble=False).random(count)
    return np.asarray(jax.vmap(of.snap)(jnp.asarray((points + np.asarray(told.shift)) % 1.0, jnp.float32)))


def process(config: Config, of: Function, budget: int, seed: int) -> tuple[np.ndarray, float]:
    """The values of a search by scikit-learn's Gaussian process; the region is TuRBO's, as ours."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    value, rng = jax.jit(jax.vmap(of.value)), np.random.default_rng(seed)
    snap = jax.jit(jax.vmap(of.snap))
    how = search.pseudo_bayes(of.dimension, budget, snap=of.snap, jumps=of.jumps)  # only its region is used
    tell = jax.jit(how.tell)
    told = how.init(jax.random.key(seed))
    x = start(of, min(2 * of.dimension + 2, budget), seed)
    y, seconds = np.asarray(value(x)), 0.0
    for point, seen in zip(x, y, strict=True):
        told = tell(told, jnp.asarray(point[None]), jnp.asarray(seen[None]), 0.0)
    free = np.broadcast_to(np.asarray(of.jumps), of.dimension)
    while len(y) < budget:
        began = time.perf_counter()
        kernel = kernels.ConstantKernel() * kernels.Matern(0.5 * of.dimension**0.5, (1e-2, 1e2), nu=2.5)
        model = GaussianProcessRegressor(kernel, alpha=1e-6, normalize_y=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound
            model.fit(x, y)
        count, centre, side = config.candidates, x[y.argmin()], float(told.side)
        moves = rng.uniform(size=(count - count // 3, of.dimension)) < min(1.0, 20 / of.dimension)
        moves[np.arange(len(moves)), rng.integers(of.dimension, size=len(moves))] |= ~moves.any(1)
        moves &= ~free | (rng.uniform(size=moves.shape) < 0.5)
        low, high = (
            np.where(free, 0, np.maximum(centre - side / 2, 0)),
            np.where(free, 1, np.minimum(centre + side / 2, 1)),
        )
        near = np.where(moves, rng.uniform(low, high, moves.shape), centre)
        drawn = np.asarray(
            snap(np.concatenate([rng.uniform(size=(count // 3, of.dimension)), near]).astype(np.float32))
        )
        mean, deviation = model.predict(drawn, return_std=True)
        gain = y.min() - mean
        score = gain * stats.norm.cdf(gain / deviation) + deviation * stats.norm.pdf(gain / deviation)
        point = drawn[score.argmax()][None]
        seconds += time.perf_counter() - began
        seen = np.asarray(value(point))
        told = tell(told, jnp.asarray(point), jnp.asarray(seen), 0.0)
        x, y = np.concatenate([x, point]), np.concatenate([y, seen])
    return y, seconds


def measured(config: Config, shared: study.Cell, cells: list[study.Cell]) -> list[dict[str, Any]]:
    """The records of all seeds of a method on a function."""
    of, method = FUNCTIONS[shared["function"]], shared["method"]
    budget, seeds = config.budget or of.budget, [cell["seed"] for cell in cells]
    if method in SETTINGS:
        values, seconds = ours(config, of, method, budget, seeds)
        found = [(row, seconds) for row in values]
    elif method == "process":
        found = [process(config, of, budget, seed) for seed in seeds]
    else:
        points = {
            "sobol": lambda seed: start(of, budget, seed),
            "random": lambda seed: np.asarray(
                jax.vmap(of.snap)(jax.random.uniform(jax.random.key(seed), (budget, of.dimension)))
            ),
        }[method]
        found = [(jax.vmap(of.value)(points(seed)), 0.0) for seed in seeds]
    places = sorted({int(n) for n in np.linspace(1, budget, 40).round()})
    records = []
    for values, seconds in found:
        path = np.maximum(best_so_far(values), 0.0)
        records.append({
            "regret": float(path[-1]), "half": float(path[(budget - 1) // 2]), "seconds": seconds,
            "evaluations": places, "path": [float(f"{path[n - 1]:.6g}") for n in places],
        })  # fmt: skip
    return records


# --- the run -------------------------------------------------------------------------------------------------------


def run(config: Config) -> None:
    """Searches what is not yet recorded, and writes the page."""
    wanted = study.grid(function=config.functions, method=config.methods, seed=range(config.seeds))
    with study.opened(config, NAMES, grows=GROWS) as this:
        together = ("function", "method")
        this.make(wanted, lambda of, cells: measured(config, of, cells), together=together, whole=True)
        tell(this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen of ours."""
    there = set(study.values(records, "method"))
    same: dict[str, Any] = {
        "good": -1,
        "at": ("function",),
        "scale": 1.0,
        "unit": "units of the function",
        "level": str,
    }
    nearer, faster = ("nearer to the minimum", "farther from it"), ("faster", "slower")
    wanted = [
        *(study.Claim("kriging", peer, "regret", nearer, **same)
          for peer in ("process", "shepard", "everywhere", "sobol", "random")),
        study.Claim("shepard", "process", "half", ("nearer to the minimum at half the budget", "farther then"), **same),
        study.Claim("kriging", "process", "seconds", faster, **same | {"unit": "seconds"}),
    ]  # fmt: skip
    return [claim for claim in wanted if {claim.method, claim.peer} <= there]


def draw(records: Sequence[Any]) -> list[report.Drawn]:
    """Regret along the evaluations."""
    curves = report.curves(records, "path", along="evaluations", panel="function")
    with figures.style():
        shown = figures.distance_over_calls(curves, methods=METHODS, columns=4)
    for axes in shown.axes:
        axes.set_xlabel("evaluations")
        if axes.get_ylabel():
            axes.set_ylabel("above the minimum")
    ends = {name: min(of, key=lambda method, of=of: np.median(of[method][1][:, -1])) for name, of in curves.items()}
    return [report.Drawn(
        "regret", shown,
        "How far the best point so far is above the minimum: median and quartiles over searches, lower is better.",
        alt="nearest at the end: " + "; ".join(f"{method} on {name}" for name, method in ends.items()),
    )]  # fmt: skip


def tell(this: study.Run) -> None:
    """The page."""
    records, there = this.records, study.values(this.records, "method")
    names = [report.Name("function", order=tuple(FUNCTIONS)), report.Name("method", order=METHODS)]
    columns = {
        "above the minimum": report.number("regret", ".3g"),
        "median": report.number("regret", ".3g", of=np.median),
        "worst": report.number("regret", ".3g", of=np.max),
        "at half the budget": report.number("half", ".3g"),
        "seconds": report.number("seconds", ".2f", of=np.median),
    }
    budget = this.settings["budget"]
    points = ", ".join(f"{budget or FUNCTIONS[f].budget} on {f}" for f in study.values(records, "function"))
    report.study(
        this,
        prog="experiments.pseudo_bayes",
        title="Where to measure next",
        subtitle="Local regression with an error bar, against a Gaussian process",
        found=[
            f"{len(study.values(records, 'seed'))} searches of each method; points that each may measure: {points}.",
            *(study.judge(records, claim) for claim in claims(records)),
        ],
        drawn=draw(records),
        shown=[report.Shown(
            "table", report.table(records, names, columns), "Every method at the end of its budget.",
            "Above the minimum: mean over searches of the best value that was measured, less the function's minimum. "
            "Seconds: what a search costs, without the function and without compilation.",
            numbers=pd.DataFrame([{k: v for k, v in r.items() if not isinstance(v, list)} for r in records]),
            title="the function's own units, mean over searches",
        )],
        done=[f"{name}: {words}." for name, words in IN_WORDS.items() if name in there],
        paragraphs=[
            "All searches of a seed begin with the same 2 D + 2 points of low discrepancy (random: not). Candidates "
            "are drawn alike for all, a third of them anywhere and the others in a region around the best point that "
            "doubles after three improvements and halves after a row of failures. mixed has three reals, three whole "
            "numbers and a choice of four.",
        ],
    )  # fmt: skip


main = flags.entry(run, Config, prog="pseudo_bayes")


if __name__ == "__main__":
    main()
