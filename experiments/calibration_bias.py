"""How far off estimates of calibration are, and whether they are fair to small groups.

    .venv/bin/python -m experiments.calibration_bias

simulates models whose calibration is known: confidences are Beta, and how often a confidence is right is a given curve.
Each repetition is an audit of one model on groups of 50 to 12,800 people, all with the same curve. So an estimate is
off from the truth by its bias, and two groups differ by their sizes alone. The questions, the first three after
Roelofs et al. (AISTATS 2022): is the plain ECE too large for a calibrated model? Are bins of equal mass less biased
than bins of equal width? Are the sweep and the debiased estimate nearer to the truth? And ours: does a small group
look worse calibrated than a large one where both are alike, by how much, and which estimate mends it?

A seed is `--repetitions` audits; claims are about means over them, with intervals over seeds. It writes
`runs/calibration_bias/<id>/`: config.json, records.jsonl, table.md and .csv, a figure, report.html.

What was found (ten seeds of 100 audits, 15 bins, p = 2; three minutes on two cores), in points:

- Of a calibrated model (Beta(4, 1)) the plain ECE is 19.5 for 50 people, 9.7 for 200 and 1.2 for 12,800; for 200 people
  it is 5.5 with 5 bins and 18.0 with 50.
- Equal mass is less biased than equal width for calibrated models of 200 people and more, by 0.2 to 1.0. Of 50 people
  it is the other way round, and of the overconfident model at every size: as it stands the claim is violated.
- Debiased (5.5, 2.3 and 0.3 in the first case) and sweep (7.8, 4.9 and 1.1) are nearer to the truth than the plain ECE
  at every size on every curve. But the debiased one varies twice as much: where the model is off, the sweep has the
  smaller root mean square error for up to 800 people (50 overconfident ones: 6.0, and 9.7).
- Beside 12,800 people with the same calibrated curve, a group of 50 looks worse by 18.3 in the plain ECE, in every
  single audit; by 6.7 in the sweep, in 99 percent of them; by 5.2 in the debiased one, in 63 percent. So the sweep does
  not mend it, and the debiased error, a root that is cut off at 0, not quite. Its square does nearly: it is off by 3
  square points where the plain one is off by 396, and calls the small group worse in 47 percent of audits. Groups are
  best compared by `metrics.ece_squared`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfair import metrics, report, study
from jaxfair.cli import flags
from jaxfair.metrics import calibration
from jaxfair.report import figures

IN_WORDS = {
    "width": "plain ECE, bins of equal width",
    "mass": "plain ECE, bins of equal mass",
    "debiased": "ECE less what chance adds, bins of equal mass, cut off at 0",
    "sweep": "ECE with as many bins of equal mass as keep the accuracies in order",
    "squared": "the square of debiased, not cut off and without the root; compared in squares only",
}
METHODS, PEER, TRUTH = tuple(IN_WORDS), "mass", "truth"
CURVES = {
    "calibrated": calibration.KnownCurve(4.0, 1.0),
    "calibrated_sharp": calibration.KnownCurve(8.0, 0.5),
    "slightly_off": calibration.KnownCurve(4.0, 1.0, intercept=-0.1, slope=0.9),
    "overconfident": calibration.KnownCurve(4.0, 1.0, intercept=-0.4, slope=0.7),
}
NAMES = ("curve", "method", "bins", "size", "seed")
GROWS = ("curves", "methods", "seeds")


@dataclasses.dataclass(frozen=True)
class Config:
    """The bias of calibration errors, and their fairness to small groups."""

    # of calibrated, calibrated_sharp, slightly_off, overconfident
    curves: tuple[str, ...] = flags.several(tuple(CURVES), of=CURVES)
    # of width, mass, debiased, sweep, squared
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # people of the groups of each audit, in thousands of people at most 1,000
    sizes: tuple[int, ...] = flags.several((50, 200, 800, 3200, 12_800), int, low=2, high=1_000_000)
    # how many bins; claims are about the first
    bins: tuple[int, ...] = flags.several((15, 5, 50), int, low=1, high=10_000)
    # how many times it is repeated, for intervals
    seeds: int = flags.one(10, low=1, high=10_000)
    # audits of a seed, whose mean is taken
    repetitions: int = flags.one(100, low=1, high=100_000)
    # audits that are estimated at once
    at_once: int = flags.one(10, low=1, high=100_000)
    # the run goes into a folder in here
    runs_dir: str = "runs/calibration_bias"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """Refuses what would be one group, or one column, twice."""
        for name in ("sizes", "bins"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise flags.UsageError(f"--{name}={','.join(map(str, given))}: name each once")


# --- the estimates -------------------------------------------------------------------------------------------------


def settings(config: Config) -> list[tuple[str, int]]:
    """Methods with their numbers of bins; 0 for the sweep, which finds its own."""
    found = [(method, bins) for bins in config.bins for method in config.methods if method != "sweep"]
    return found + ([("sweep", 0)] if "sweep" in config.methods else [])


def estimate(method: str, bins: int, confidence: Any, correct: Any, group: Any, num_groups: int) -> jax.Array:
    """``[G]`` by one method; of ``squared`` they are squares."""
    rows = confidence, correct, group, num_groups
    if method == "sweep":
        return metrics.ece_sweep(*rows).error
    if method == "squared":
        return metrics.ece_squared(*rows, bins=bins)
    if method == "debiased":
        return metrics.ece_debiased(*rows, bins=bins)
    return metrics.ece(*rows, bins=bins, binning=method)


def audits(config: Config) -> Callable[[Any, Any], np.ndarray]:
    """``audits(confidence, correct)`` of ``[R, N]`` people: ``[M, R, G]`` estimates, of all settings."""
    sizes, of = config.sizes, settings(config)
    group = jnp.repeat(jnp.arange(len(sizes)), jnp.array(sizes), total_repeat_length=sum(sizes))

    def one(people: tuple[jax.Array, jax.Array]) -> jax.Array:
        # In one program: the people are sorted once for all.
        return jnp.stack([estimate(*setting, *people, group, len(sizes)) for setting in of])

    every = jax.jit(lambda *people: jax.lax.map(one, people, batch_size=min(config.at_once, config.repetitions)))
    return lambda *people: np.moveaxis(np.asarray(every(*people), np.float64), 0, 1)


@functools.cache
def true_error(curve: str) -> float:
    """Of p = 2."""
    return calibration.true_error(CURVES[curve])


def measured(found: np.ndarray, method: str, config: Config, truth: float, at: int) -> dict[str, Any]:
    """The record of a method and a size, of ``[R, G]`` estimates."""
    square = found if method == "squared" else found**2
    record: dict[str, Any] = {"truth": truth, "square_bias": float(square[:, at].mean() - truth**2)}
    if method != "squared":
        off = found[:, at] - truth
        record |= {"bias": float(off.mean()), "distance": float(abs(off.mean())), "spread": float(off.std())}
        record["error"] = float(np.sqrt((off**2).mean()))
    largest = int(np.argmax(config.sizes))
    if at != largest:
        # "smaller" is there for whom there is a larger group to be compared with.
        beyond, squares = found[:, at] - found[:, largest], square[:, at] - square[:, largest]
        record |= {"smaller": config.sizes[at], "worse": float(np.mean((beyond > 0) + 0.5 * (beyond == 0)))}
        record |= {"beyond_square": float(squares.mean()), "unfair_square": float(abs(squares.mean()))}
        if method != "squared":
            record |= {"beyond": float(beyond.mean()), "unfair": float(abs(beyond.mean()))}
    return record


def run(config: Config) -> None:
    """Simulates what is not yet recorded, and writes the page."""
    of = [*settings(config), (TRUTH, 0)]
    wanted = [
        cell | {"method": method, "bins": bins, "size": size}
        for cell in study.grid(curve=config.curves, seed=range(config.seeds))
        for method, bins in of
        for size in config.sizes
    ]
    shape = config.repetitions, sum(config.sizes)
    every = audits(config)
    people = functools.cache(
        lambda name: jax.jit(functools.partial(calibration.draw, CURVES[name], shape=shape))
    )  # compiled once for a curve
    with study.opened(config, NAMES, grows=GROWS) as this:
        for shared, cells in this.missing(wanted, together=("curve", "seed")):
            key = jax.random.fold_in(jax.random.key(shared["seed"]), tuple(CURVES).index(shared["curve"]))
            found = every(*people(shared["curve"])(key))
            truth = true_error(shared["curve"])
            known = np.full_like(found[0], truth)
            for cell in cells:
                which, at = of.index((cell["method"], cell["bins"])), config.sizes.index(cell["size"])
                numbers = found[which] if which < len(found) else known
                this.record(cell, measured(numbers, cell["method"], config, truth, at))
        tell(config, this)


# --- the page ------------------------------------------------------------------------------------------------------


class Question(NamedTuple):
    """What would have to be seen of a method, on a curve at every size.

    Attributes:
      words: as a sentence.
      method: of which it is asked.
      peer: beside which.
      column: the number.
      sides: how it is said if it is so, and if it is not.
      good: 1 where more is claimed, -1 where less is.
    """

    words: str
    method: str
    peer: str
    column: str
    sides: tuple[str, str]
    good: int = -1


LARGER, FURTHER = ("larger", "smaller"), ("further from the truth", "nearer to it")
NEARER, FAIRER = ("nearer to the truth", "further from it"), ("fairer to the smaller group", "less fair to it")
AGAINST = ("more often against the smaller group", "less often against it")
MORE = "calls the smaller of two groups that are alike the worse calibrated one in more than half of the audits"
QUESTIONS = (
    Question("The plain error is too large of a calibrated model", PEER, TRUTH, "bias", LARGER, 1),
    Question(
        "Bins of equal width are further from the truth than of equal mass", "width", PEER, "distance", FURTHER, 1
    ),
    Question("The debiased error is nearer to the truth than the plain one", "debiased", PEER, "distance", NEARER),
    Question("The sweep is nearer to the truth than the plain error", "sweep", PEER, "distance", NEARER),
    Question(f"The plain error {MORE}", PEER, TRUTH, "worse", AGAINST, 1),
    Question(f"The debiased error {MORE}", "debiased", TRUTH, "worse", AGAINST, 1),
    Question(f"The sweep {MORE}", "sweep", TRUTH, "worse", AGAINST, 1),
    Question("The debiased error is fairer to small groups than the plain one", "debiased", PEER, "unfair", FAIRER),
    Question("The sweep is fairer to small groups than the plain error", "sweep", PEER, "unfair", FAIRER),
    Question("Debiased squares are fairer to small groups than plain ones", "squared", PEER, "unfair_square", FAIRER),
)
#: Units of the numbers in which claims are said, if not points.
UNITS = {"worse": ("percent of audits", 100.0), "unfair_square": ("square points", 1e4)}


def asked(records: Sequence[Any]) -> list[tuple[Question, study.Claim]]:
    """The questions with their claims, curve by curve."""
    found = []
    for curve, question in itertools.product(study.values(records, "curve"), QUESTIONS):
        _, method, peer, column, sides, good = question
        there = [study.chosen(records, curve=curve, method=name) for name in (method, peer)]
        # Of a model that is not calibrated the plain error need not be too large.
        if all(there) and (peer != TRUTH or there[1][0]["truth"] < 1e-6):
            at = "size" if column in ("bias", "distance") else "smaller"
            unit, scale = UNITS.get(column, ("points", 100.0))
            claim = study.Claim(method, peer, column, sides, good, (at,), {"curve": curve}, unit=unit, scale=scale)
            found.append((question, claim._replace(level=lambda n: f"n = {n:,}")))
    return found


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen."""
    return [claim for _, claim in asked(records)]


def answers(records: Sequence[Any]) -> list[report.Verdict]:
    """A line for each question: it holds if it does on every curve, and is violated if it is on one."""
    found: dict[str, dict[str, list[str]]] = {}
    for question, claim in asked(records):
        by_state = found.setdefault(question.words, {})
        by_state.setdefault(study.judge(records, claim).state, []).append(claim.among["curve"])
    said = []
    for words, by_state in found.items():
        state = next((s for s in (metrics.VIOLATED, metrics.CANNOT_TELL) if s in by_state), metrics.HOLDS)
        where = "; ".join(f"{s} on {', '.join(curves)}" for s, curves in by_state.items())
        if len(by_state) == 1:
            where = f"on {', '.join(by_state[state])}"
        said.append(report.Verdict(state=state, text=f"{words}: {state} ({where})."))
    return said


def headline(config: Config, records: Sequence[Any]) -> list[str]:
    """How much it is for the smallest group, in a sentence or two per curve."""
    said, small, large = [], min(config.sizes), max(config.sizes)
    for curve in study.values(records, "curve"):
        mine = [r for r in study.chosen(records, curve=curve, size=small) if r["method"] != TRUTH]

        def each(column: str, scale: int, sign: str, mine: Sequence[Any] = mine) -> str:
            methods = [r["method"] for r in mine if column in r]
            means = {m: study.over_seeds(mine, column, method=m).mean for m in dict.fromkeys(methods)}
            return ", ".join(f"{m} {scale * mean:{sign}}" for m, mean in means.items())

        off = f"Of {small:,} people, estimates are off by {each('bias', 100, '+.1f')} points."
        beside = (
            f" The same curve on {large:,} people looks better by {each('beyond', 100, '.1f')} points; the small group "
            f"looks worse in {each('worse', 100, '.0f')} percent of audits."
        )
        truth = f"{curve}, a true error of {100 * mine[0]['truth']:.1f} points. "
        said.append(truth + off + (beside if small < large else ""))
    return said


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records = this.records
    # The sweep and the truth have no number of bins; claims are about the first that was asked for.
    main = [r for r in records if r["bins"] in (0, config.bins[0])]
    said, found = headline(config, main), answers(main)
    names = [
        report.Name("curve", order=tuple(CURVES)),
        report.Name("size", "people", lambda n: f"{n:,}"),
        report.Name("method", order=METHODS),
    ]
    shown = [r for r in main if r["method"] != TRUTH]
    dash = {"lacking": "–"}
    columns = {
        "bias": report.in_points("bias", **dash),
        "spread": report.in_points("spread", **dash),
        "root mean square": report.in_points("error", **dash),
        "beyond the largest group": report.in_points("beyond", **dash),
        "looks worse than it (%)": report.in_points("worse", digits=0, **dash),
    }
    by_bins = [r for r in records if r["bins"] and r["method"] != "squared"]
    every = [names[0], names[1], report.Name("bins"), names[2]]
    report.study(
        this,
        prog="experiments.calibration_bias",
        title="How far off calibration errors are",
        subtitle="Plain, debiased and swept, on simulated models of known calibration, in groups of different sizes",
        found=[study.judge(main, claim) for claim in claims(main)],
        lead=report.Lead(said, found, (), [*said, *map(str, found)]),
        drawn=[
            report.Drawn(
                "curves",
                drawn(config, main),
                "Left: how far the mean estimate is from the truth (dotted), by the number of people. Right: by how "
                "much a group of that size looks worse calibrated than the largest, which has the same curve; 0 is "
                "fair. Bars are 95 % intervals over seeds.",
                alt="bias, and the difference between groups, against the number of people; numbers are in the table",
            )
        ],
        shown=[
            report.Shown(
                "table",
                report.table(shown, names, columns),
                f"Every estimate at every size, with {config.bins[0]} bins.",
                "In points, with the 95 % interval over seeds. Spread: the standard deviation over audits. Looks "
                "worse: how often the group's estimate is above that of the largest group (a tie is half); 50 is fair. "
                "squared is a square, and has no bias in points.",
                numbers=pd.DataFrame(records),
                title="in points, mean ± 95 % over seeds",
            ),
            report.Shown(
                "bins",
                report.table(by_bins, every, {title: columns[title] for title in ("bias", "root mean square")}),
                "The same with other numbers of bins.",
                "In points, with the 95 % interval over seeds.",
            ),
        ],
        done=[f"{m}: {w}." for m, w in IN_WORDS.items() if m in study.values(records, "method")]
        + [f"{name}: {curve_in_words(CURVES[name])}." for name in study.values(records, "curve")],
        paragraphs=[
            f"{config.repetitions} audits a seed. In each, all groups have the same curve, and are estimated each by "
            "itself. All methods see the same people. The true error is that of p = 2, as all estimates are."
        ],
    )  # fmt: skip


def curve_in_words(curve: calibration.KnownCurve) -> str:
    """What is simulated.

    Example:
      >>> curve_in_words(CURVES["slightly_off"])
      'confidence f ~ Beta(4, 1), logit P(right) = -0.1 + 0.9 logit f; true error 2.86 points'
    """
    truth = 100 * calibration.true_error(curve)
    return (
        f"confidence f ~ Beta({curve.a:g}, {curve.b:g}), {curve.link} P(right) = {curve.intercept:g} + "
        f"{curve.slope:g} {curve.link} f; true error {truth:.2f} points"
    )


def drawn(config: Config, records: Sequence[Any]) -> Any:
    """Bias, and the difference between groups, against the number of people; a row per curve."""
    methods = [m for m in METHODS if m in config.methods and m != "squared"]
    rows = []
    for curve in study.values(records, "curve"):
        mine = [r for r in study.chosen(records, curve=curve) if r["method"] in methods]
        rows.append([
            figures.Panel(report.lines(mine, "bias", along="size"), f"{curve}: bias", "points", 0.0),
            figures.Panel(
                report.lines([r for r in mine if "smaller" in r], "beyond", along="size"),
                f"{curve}: beyond the largest group",
                baseline=0.0,
            ),
        ])  # fmt: skip
    return figures.levels(rows, methods=METHODS, along="people", say=lambda n: f"{n:,}")


main = flags.entry(run, Config, prog="calibration_bias")


if __name__ == "__main__":
    main()
