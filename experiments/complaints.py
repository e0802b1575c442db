"""Fairness by complaints: what policies pay that fix criteria which exclude each other, beside the cheapest play.

    .venv/bin/python -m experiments.complaints

plays policies through streams of complaints on random graphs of criteria. The model is ours, after the idea of Awasthi,
Cortes, Mansour and Mohri (arXiv 2008.09490), of whose paper only the abstract was read; the graphs and the streams are
artificial, as theirs are. The questions: how much more than the cheapest play in hindsight does a rule pay that knows
nothing of what comes, is it within its bound, and how does regret grow with time where complaints follow a law?

What was found on twenty random graphs of six criteria, after 100,000 events, with 95 % intervals over graphs: the
threshold rule stays far within its bound of 16 optima. Where complaints move from one criterion to another in bursts it
pays 1.97 ± 0.03 optima, less than every policy that stays somewhere, the best state in hindsight (2.26 ± 0.19) among
them, and less than fixing nothing (5.4). Against complaints that are made to hurt it, it pays 4.2 ± 0.3, twice what
fixing nothing pays there (2.2): it holds its promise, and does no better. Where complaints are drawn it never settles
and pays 2.8 ± 0.3. The optimistic rule does settle, at 1.01 optima; its regret grows like T^(0.23 ± 0.04), that of
exploring first and committing then like T^(0.62 ± 0.01), which is smaller at 1,000 events, and more than three times as
large at 100,000.

Twenty graphs take a minute. It writes `runs/complaints/<id>/`: config.json, records.jsonl (one line per policy and
stream; the same command goes on where a killed run stopped), tables, figures, report.html.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfair import metrics, report, robust, study
from jaxfair.cli import flags
from jaxfair.report import figures

STREAMS = {
    "cruel": "one complaint an event, about a criterion that the threshold rule has not fixed at the time",
    "bursts": "one complaint an event, about one criterion for a while, then about another",
    "drawn": "every criterion draws a complaint of 0 or 1 at every event, with a chance of its own",
}
#: Streams without a law, of one complaint an event: the theorem speaks of these.
WITHOUT_LAW = ("cruel", "bursts")
IN_WORDS = {
    "threshold": "fix a criterion when complaints since it was unfixed have cost as much as fixing it",
    "optimistic": "go to the state that is cheapest by lower confidence bounds; they are made for the stream drawn",
    "commit": "watch for T^(2/3) events and fix nothing, then go to the state that was cheapest, and stay",
    "never": "fix nothing",
    "everything": "go to a largest set of criteria at once, of equals the cheapest, and stay",
    "static": "go to the best state to stay in, known in hindsight, and stay",
}
METHODS = tuple(IN_WORDS)
BOUND = "what the theorem allows the threshold rule: 2 (1 + Δρ) times the optimum, and each criterion's cost once"
NAMES, GROWS = ("stream", "length", "method", "seed"), ("streams", "methods", "lengths", "seeds")


@dataclasses.dataclass(frozen=True)
class Config:
    """Policies that fix criteria which exclude each other, by complaints."""

    # how many graphs, with costs and streams of their own
    seeds: int = flags.one(20, low=1, high=10_000)
    # of cruel, bursts, drawn
    streams: tuple[str, ...] = flags.several(tuple(STREAMS), of=tuple(STREAMS))
    # of threshold, optimistic, commit, never, everything, static
    methods: tuple[str, ...] = flags.several(METHODS, of=METHODS)
    # events of a stream; policies that must know how many there will be are told
    lengths: tuple[int, ...] = flags.several((1_000, 3_000, 10_000, 30_000, 100_000), int, low=2, high=10_000_000)
    # how many; there are two to this many states
    criteria: int = flags.one(6, low=1, high=12)
    # the chance that two of them exclude each other
    edges: float = flags.one(0.4, low=0, high=1)
    # what it costs at least to fix one; a complaint costs 1 at most
    cost: float = flags.one(5.0, above=0, below=1e6)
    # how many times as much it may cost
    spread: float = flags.one(4.0, low=1, high=1e6)
    # events that a burst has on average
    burst: float = flags.one(50.0, low=1)
    # the run goes into a folder in here
    runs_dir: str = "runs/complaints"
    # name of that folder; a hash of the settings by default
    id: str = ""


# --- the streams ---------------------------------------------------------------------------------------------------


def world(config: Config, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The graph of a seed, what fixing costs, and how often criteria are complained of."""
    rng, k = np.random.default_rng(seed), config.criteria
    upper = np.triu(rng.random((k, k)) < config.edges, 1)
    return upper | upper.T, config.cost * rng.uniform(1, config.spread, k), rng.uniform(0.1, 0.9, k)


def cruel(key: Any, length: int, graph: Any, costs: Any) -> Any:
    """``[T, k]``: the threshold rule is played, and complained of where it has not fixed."""
    policy, (of, size) = robust.threshold_policy(graph, costs), jax.random.split(key)
    scores = jax.random.uniform(of, (length, len(costs)))
    sizes = 1 - jax.random.uniform(size, (length,))

    def event(before: Any, drawn: Any) -> Any:
        (fixed, memory), (score, loss) = before, drawn
        losses = loss * jax.nn.one_hot(jnp.argmax(score + ~fixed), len(costs))
        return policy.act(memory, fixed, jnp.where(fixed, 0, losses)), losses

    begun = jnp.zeros(len(costs), bool), policy.init()
    return jax.lax.scan(event, begun, (scores, sizes))[1]


def bursts(key: Any, length: int, k: int, burst: float) -> Any:
    """``[T, k]``: a new criterion is drawn now and then."""
    when, who, size = jax.random.split(key, 3)
    begins = jax.random.bernoulli(when, 1 / burst, (length,))
    since = jax.lax.cummax(jnp.where(begins, jnp.arange(length), 0))
    about = jax.random.randint(who, (length,), 0, k)[since]
    return (1 - jax.random.uniform(size, (length, 1))) * jax.nn.one_hot(about, k)


def drawn(key: Any, length: int, means: Any) -> Any:
    """``[T, k]``: complaints of 0 and 1."""
    return jax.random.bernoulli(key, means[None, :], (length, len(means))).astype(jnp.float32)


@functools.cache
def maker(config: Config, stream: str, length: int) -> Any:
    """``make(keys [S], graphs, costs, means) -> events [S, T, k]``."""

    def make(key: Any, graph: Any, costs: Any, means: Any) -> Any:
        if stream == "cruel":
            return cruel(key, length, graph, costs)
        return bursts(key, length, len(costs), config.burst) if stream == "bursts" else drawn(key, length, means)

    return jax.jit(jax.vmap(make))


# --- the policies --------------------------------------------------------------------------------------------------


def commit_policy(graph: Any, horizon: int) -> robust.Policy:
    """Watches for T^(2/3) events; its memory is what was seen, and the number of the event."""
    watched = int(np.ceil(horizon ** (2 / 3)))

    def act(memory: Any, fixed: Any, seen: Any) -> Any:
        total, event, state = memory
        state = jnp.where(event == watched, robust.heaviest_set(graph, total), state)
        return state, (total + jnp.where(event < watched, seen, 0), event + 1, state)

    k = len(graph)
    return robust.Policy(lambda: (jnp.zeros(k), jnp.int32(0), jnp.zeros(k, bool)), act)


def policies(events: Any, graph: Any, costs: Any) -> dict[str, robust.Policy]:
    """All of them, for one stream."""
    length, stay = len(events), robust.stay_policy
    return {
        "threshold": robust.threshold_policy(graph, costs),
        "optimistic": robust.optimistic_policy(graph, horizon=length, largest=1.0),
        "commit": commit_policy(graph, length),
        "never": stay(jnp.zeros(len(costs), bool)),
        "everything": stay(robust.heaviest_set(graph, 1 - costs / (2 * jnp.sum(costs)))),
        "static": stay(robust.best_state(events, graph, costs)),
    }


@jax.jit
@jax.vmap
def outcomes(events: Any, graph: Any, costs: Any, means: Any) -> tuple[Any, Any]:
    """What every policy paid ``[S]``, and the offline optimum."""
    found, best = {}, jnp.sum(jnp.where(robust.heaviest_set(graph, means), 0, means))
    for name, policy in policies(events, graph, costs).items():
        played = robust.play(policy, events, graph, costs)
        spent, left = jnp.sum(played.spent), jnp.sum(jnp.where(played.fixed, 0, means), axis=1)
        found[name] = {
            "cost": jnp.sum(played.paid) + spent,
            "spent": spent,
            "moves": jnp.sum(jnp.any(played.fixed[1:] != played.fixed[:-1], axis=1)) + jnp.any(played.fixed[0]),
            "regret": jnp.sum(left - best) + spent,
        }
    return found, robust.offline_cost(events, graph, costs)[-1]


def measured(config: Config, shared: study.Cell, cells: Sequence[study.Cell]) -> list[dict[str, Any]]:
    """The numbers of the cells of a stream and a length, all seeds side by side."""
    seeds, took = sorted({cell["seed"] for cell in cells}), study.clock()
    graphs, costs, means = (np.stack(part) for part in zip(*(world(config, seed) for seed in seeds), strict=True))
    costs, means = costs.astype(np.float32), means.astype(np.float32)
    make = maker(config, shared["stream"], shared["length"])
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    events = make(keys, graphs, costs, means)
    found, optimum = jax.tree.map(np.asarray, outcomes(events, graphs, costs, means))
    factor = [float(robust.threshold_bound(*of)) for of in zip(graphs, costs, strict=True)]
    spent, records = took(), []
    for cell in cells:
        i = seeds.index(cell["seed"])
        least = optimum[i].item()
        record: dict[str, Any] = {"setting": "without a law" if cell["stream"] in WITHOUT_LAW else "drawn"}
        record |= {"optimum": least, "factor": factor[i], "pairs": int(graphs[i].sum()) // 2}
        if cell["method"] == "bound":
            record["cost"] = factor[i] * least + costs[i].sum().item()
        else:
            record |= {name: values[i].item() for name, values in found[cell["method"]].items()}
        if record["setting"] != "drawn":
            record.pop("regret", None)
        record["ratio"] = record["cost"] / least
        records.append(record | {name: value / len(cells) for name, value in spent.items()})
    return records


# --- the run -------------------------------------------------------------------------------------------------------


def run(config: Config) -> None:
    """Plays what is not yet recorded, and writes the page."""
    axes = {"stream": config.streams, "length": config.lengths, "seed": range(config.seeds)}
    wanted = study.grid(**axes, method=config.methods)
    if "threshold" in config.methods:
        held = [stream for stream in config.streams if stream in WITHOUT_LAW]
        wanted += study.grid(**axes | {"stream": held}, method=("bound",))
    with study.opened(config, NAMES, grows=GROWS) as this:
        together = ("stream", "length")
        this.make(wanted, lambda of, cells: measured(config, of, cells), together=together, whole=True)
        tell(this)


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen: of the threshold rule without a law, of the optimistic one with one."""
    longest, there = max(study.values(records, "length"), default=0), set(study.values(records, "method"))
    paid: dict[str, Any] = {"at": ("stream",), "scale": 1.0, "unit": "optima", "level": str}
    late: dict[str, Any] = {"at": ("length",), "scale": 1.0, "unit": "complaints of 1", "level": "{:,}".format}
    without = paid | {"among": {"setting": "without a law", "length": longest}}
    law = late | {"among": {"setting": "drawn"}}
    cheaper, less = ("cheaper", "dearer"), ("of less regret", "of more regret")
    wanted = [
        study.Claim("threshold", "bound", "ratio", cheaper, -1, **without),
        study.Claim("threshold", "never", "ratio", cheaper, -1, **without),
        study.Claim("threshold", "everything", "ratio", cheaper, -1, **without),
        study.Claim("threshold", "static", "ratio", cheaper, -1, **without),
        study.Claim("threshold", "optimistic", "ratio", cheaper, -1, **without),
        study.Claim("optimistic", "commit", "regret", less, -1, **law),
        study.Claim("optimistic", "threshold", "regret", less, -1, **law),
    ]
    settings = set(study.values(records, "setting"))
    return [c for c in wanted if {c.method, c.peer} <= there and c.among["setting"] in settings]


def exponents(records: Sequence[Any]) -> dict[str, Any]:
    """Method -> the interval over seeds of the slope of log regret against log T, least squares over the lengths."""
    found = {}
    for method in study.values(records, "method"):
        mine = [r for r in study.chosen(records, method=method) if r.get("regret", 0) > 0]
        slopes = []
        for seed in study.values(mine, "seed"):
            at = study.chosen(mine, seed=seed)
            if len(at) > 1:
                slopes.append(np.polyfit(np.log([r["length"] for r in at]), np.log([r["regret"] for r in at]), 1)[0])
        if len(slopes) > 1:
            found[method] = metrics.t_interval(np.array(slopes))
    return found


def said(interval: Any, digits: int) -> str:
    """Mean and half-width."""
    return f"{interval.mean:,.{digits}f} ± {interval.half_width:,.{digits}f}"


def mean_of(column: str, digits: int) -> Any:
    """Mean and half-width over seeds; nothing where no seed has the column."""

    def text(rows: Sequence[Any]) -> str:
        return said(metrics.t_interval([r[column] for r in rows]), digits) if column in rows[0] else "–"

    return text


def draw(records: Sequence[Any]) -> list[report.Drawn]:
    """Costs over the optimum along time, and regret."""
    panels = []
    for stream in study.values(records, "stream"):
        mine = [r for r in study.chosen(records, stream=stream) if r["method"] != "bound"]
        lines = report.lines(mine, "ratio", along="length", scale=1)
        panels.append(
            figures.Panel(lines, title=stream, label="" if panels else "cost / offline optimum", baseline=1.0)
        )
    along, say = "thousand events", lambda length: f"{length / 1000:g}"
    shown = [report.Drawn(
        "ratios", figures.levels([panels], methods=METHODS, along=along, say=say, from_zero=True),
        "What policies paid over what the cheapest play in hindsight paid (dotted: 1). Bars are 95 % intervals over "
        "graphs. The bound of the threshold rule, in the table, is far above.",
        alt="cost over the offline optimum against the number of events; the numbers are in the table",
    )]  # fmt: skip
    law = study.chosen(records, setting="drawn")
    if law:
        lines = report.lines(law, "regret", along="length", scale=1)
        drawn = figures.levels([[figures.Panel(lines, "drawn", "regret")]], methods=METHODS, along=along, say=say)
        heights = [mean for line in lines.values() for mean, _ in line.values()]
        drawn.axes[0].set_yscale("log")
        drawn.axes[0].yaxis.set_major_formatter("{x:,.0f}")
        drawn.axes[0].set_ylim(min(heights) / 2, max(heights) * 2)
        shown.append(report.Drawn(
            "regret", drawn,
            "Where complaints are drawn: expected cost beyond that of being in the best state from the first event on, "
            "fixing included, both axes logarithmic.",
            alt="regret against the number of events; the numbers are in the table",
        ))  # fmt: skip
    return shown


def tell(this: study.Run) -> None:
    """The page."""
    records, lengths = this.records, sorted(study.values(this.records, "length"))
    order = (*METHODS[:1], "bound", *METHODS[1:])
    end, law = study.chosen(records, length=lengths[-1]), study.chosen(records, setting="drawn")
    columns = {
        "cost / optimum": mean_of("ratio", 2),
        "largest": report.number("ratio", ".2f", of=np.max),
        "fixing": mean_of("spent", 0),
        "moves": mean_of("moves", 0),
    }
    names = [report.Name("stream", order=tuple(STREAMS)), report.Name("method", order=order)]
    shown = [report.Shown(
        "table", report.table(end, names, columns), f"Every policy after {lengths[-1]:,} events.",
        "Cost over the offline optimum: mean and half-width of the 95 % t interval over graphs, and the largest. "
        "Fixing: what was paid for it. Moves: events at which the state changed.",
        numbers=pd.DataFrame(records), title="mean ± 95 % over graphs",
    )]  # fmt: skip
    found: list[Any] = [
        f"{len(study.values(records, 'seed'))} random graphs of {this.settings['criteria']} criteria, of which two "
        f"exclude each other with a chance of {this.settings['edges']:g}; to fix one costs "
        f"{this.settings['cost']:g} to {this.settings['cost'] * this.settings['spread']:g}, a complaint 1 at most."
    ]
    if law:
        slopes = exponents(law)
        rows = []
        for method in [m for m in METHODS if study.chosen(law, method=m)]:
            mine = study.chosen(law, method=method)
            at = {f"{n:,}": mean_of("regret", 0)(study.chosen(mine, length=n)) for n in lengths}
            rows.append({"method": method} | at | {"exponent": said(slopes[method], 2) if method in slopes else "–"})
        shown.append(report.Shown(
            "growth", pd.DataFrame(rows), "Regret where complaints are drawn, by the number of events.",
            "Exponent: the slope of its logarithm against that of the number of events, per graph. The theory says at "
            "most 1/2 for optimistic, but for logarithms, and 2/3 for commit.",
        ))  # fmt: skip
        if slopes:
            listed = "; ".join(f"{method} {said(slope, 2)}" for method, slope in slopes.items())
            found.append(f"Regret grows like a power of the number of events; the exponents are: {listed}.")
    there = study.values(records, "method")
    report.study(
        this,
        prog="experiments.complaints",
        title="Fairness by complaints",
        subtitle="Our model, after the idea of arXiv 2008.09490",
        found=[*found, *(study.judge(records, claim) for claim in claims(records))],
        drawn=draw(records),
        shown=shown,
        done=[
            *(f"{name}: {words}." for name, words in IN_WORDS.items() if name in there),
            *([f"bound: {BOUND}."] if "bound" in there else []),
            *(f"{name}: {words}." for name, words in STREAMS.items() if name in study.values(records, "stream")),
        ],
        paragraphs=[
            "The model is ours, after the idea of Awasthi, Cortes, Mansour and Mohri (arXiv 2008.09490): criteria are "
            "the nodes of a graph whose edges join those that exclude each other; a complaint costs as long as its "
            "criterion is not fixed; to fix one costs once, and unfixes those that it excludes. Complaints of an event "
            "are seen before the move, and paid for after it. All policies meet the same streams; cruel is made "
            "against the threshold rule, and the others meet what was made for it.",
        ],
    )  # fmt: skip


main = flags.entry(run, Config, prog="complaints")


if __name__ == "__main__":
    main()
