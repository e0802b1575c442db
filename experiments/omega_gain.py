"""Omega against the optimistic gradient: whether its gain is more than a larger effective optimism.

    .venv/bin/python -m experiments.omega_gain

Near a solution with pure rotation a small step of Omega, o against an average of past gradients with decay b, does what
a step of the optimistic gradient does with the optimism o / (1 - b), its effective optimism: ten times o for b = 0.9. A
comparison at equal o compares unequal things. So both are tuned alike, over a grid of learning rates and of optimism on
seeds of its own, which is extended where its best setting lies at an end, at most twice, and then refined around it;
and both play fresh seeds with the same budget of oracle calls. They are compared again at equal effective optimism,
each with a rate of its own, and Omega is played at every decay.

The games are those of Omega's authors; `--games` takes any of `jaxfair.games.SETUPS`. `python -m
experiments.game_studies` asks what other methods do, and what the authors' own settings show. It writes
`runs/omega_gain/<id>/`: config.json, records.jsonl, tables, figures, report.html; the same command goes on where a
killed run stopped. Two cores take a few minutes for the defaults.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfair import games, report, search, study
from jaxfair.cli import flags
from jaxfair.report import figures

OG, OMEGA = "optimistic_gradient", "omega"
#: Of the average of gradients in each, wherever it is not varied.
DECAY = {OG: 0.0, OMEGA: 0.9}
#: Those of Omega's authors.
DECAYS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
PUBLISHED, ONE = "optimism 1, rate of the authors", "optimism 1, rate tuned"
BOTH = "rate and optimism tuned"
#: Of a cell, what is recorded.
Numbers = Callable[[study.Cell], dict[str, Any]]
#: A method that ends no nearer than this share of the start has not moved: a grid is not extended for it.
STANDS_STILL = 0.95
#: Of a logarithm: ratios nearer to 1 than this are no difference in practice.
MARGIN = 0.02


@dataclasses.dataclass(frozen=True)
class Config:
    """Omega and the optimistic gradient, tuned alike on stochastic games and compared on fresh seeds."""

    # those of Omega's authors; any of games.SETUPS
    games: tuple[str, ...] = flags.several(
        [name for name, setup in games.SETUPS.items() if setup.published_rate], of=games.SETUPS
    )
    # besides the comparison: equal (effective optimism), decay; may be empty
    studies: tuple[str, ...] = flags.several(("equal", "decay"), of=("equal", "decay"), none=True)
    # learning rates of the first grid
    rates: tuple[float, ...] = flags.several(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), float, above=0, below=np.inf
    )
    # optimism of the first grid, relative to the gradient
    optimism: tuple[float, ...] = flags.several(
        (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), float, low=0, below=np.inf
    )
    # size of each player
    dim: int = flags.one(100, low=2)
    # minibatches that a game is the mean of
    samples: int = flags.one(100, low=1)
    # samples per minibatch
    batch_size: int = flags.one(1, low=1)
    # oracle calls that each method may make
    budget: int = flags.one(5000, low=40)
    # fresh seeds on which tuned methods are compared
    seeds: int = flags.one(20, low=1, high=10_000)
    # seeds of the tuning
    tuning_seeds: int = flags.one(4, low=1, high=10_000)
    # methods that play at the same time
    workers: int = flags.one(2, low=1)
    # the key that games and seeds are folded from
    seed: int = flags.one(0, low=0)
    # the run goes into a folder in here
    runs_dir: str = "runs/omega_gain"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """What no field can say by itself."""
        for flag in ("rates", "optimism"):
            values = getattr(self, flag)
            if list(values) != sorted(set(values)) or max(values) == 0:
                given = ",".join(f"{value:g}" for value in values)
                raise flags.UsageError(f"--{flag}={given}: give rising numbers, such as 0.1,1,10")


# --- playing -------------------------------------------------------------------------------------------------------


def rules(config: Config) -> games.Contest:
    """The same for both methods."""
    # Seeds of the tuning are no seeds of the comparison.
    seeds = {"tuning": config.tuning_seeds, "comparison": config.seeds}
    seeds |= {"study": min(config.tuning_seeds, 2)}
    sizes = config.batch_size, config.dim, config.samples
    return games.Contest(config.budget, seeds, *sizes, seed=config.seed)


def best(final: np.ndarray) -> int:
    """The setting ``[H, S] -> index`` of the smallest mean log distance."""
    return int(np.argmin(games.mean_log(final)))


def tuned(config: Config, game: games.Game, method: str) -> dict[str, Any]:
    """The best setting of a method, and all that was tried."""
    contest, how = rules(config), games.METHODS[method]
    found = search.tune(
        {"lr": search.Axis(config.rates), "optimism": search.Axis(config.optimism)},
        lambda settings: contest.play(game, how, settings, "tuning").final,
        score=games.mean_log,
        good=np.log(STANDS_STILL) + np.mean(np.log(contest.starts(game, "tuning"))),
    )
    return found._asdict() | {"words": found.words().replace("lr", "rate")}


def compared(config: Config, game: games.Game, method: str, found: Mapping[str, Any]) -> Numbers:
    """The tuned setting on the fresh seeds."""
    seen = rules(config).compare(game, games.METHODS[method], found["chosen"], "comparison")
    said = {"setting": found["chosen"], "words": found["words"]}
    return lambda cell: seen[cell["seed"]] | said


def equal(config: Config, game: games.Game, method: str) -> Numbers:
    """A method at every effective optimism, each with a rate tuned for it, on the fresh seeds."""
    contest, how = rules(config), games.METHODS[method]
    # With the 0, in which both are plain descent, the sweeps have the shape of those of the tuning.
    levels = list(config.optimism)
    optimism = np.asarray(levels) * (1 - DECAY[method])
    shape = len(config.rates), len(levels)
    first = games.grid(lr=config.rates, optimism=optimism)
    final = [contest.play(game, how, first, "tuning").final.reshape(*shape, -1)]
    near = [config.rates[best(final[0][:, i])] for i in range(len(levels))]
    axis = search.Axis(config.rates)
    finer = np.stack([axis.around(rate, config.rates) for rate in near], axis=1)
    second = {"lr": finer.ravel(), "optimism": first["optimism"]}
    final.append(contest.play(game, how, second, "tuning").final.reshape(*shape, -1))
    tried, rates = np.concatenate(final), np.concatenate([first["lr"].reshape(shape), finer])
    lr = [rates[best(tried[:, i]), i] for i in range(len(levels))]
    chosen = {"lr": lr, "optimism": optimism}
    seen = contest.play(game, how, chosen, "comparison", records=100).final
    start = contest.starts(game, "comparison")

    def numbers(cell: study.Cell) -> dict[str, Any]:
        at, i = levels.index(cell["level"]), cell["seed"]
        return games.outcome(start[i], seen[at, i]) | {"lr": lr[at]}

    return numbers


def decays(config: Config, game: games.Game, rate: float | None) -> Numbers:
    """Omega at every decay on the fresh seeds: the authors' settings, a tuned rate, rate and optimism tuned."""
    contest, how = rules(config), games.METHODS[OMEGA]
    optimism = sorted({1.0, *config.optimism})
    grid = games.grid(decay=DECAYS, lr=config.rates, optimism=optimism)
    shape = (len(DECAYS), len(config.rates), len(optimism))
    final = contest.play(game, how, grid, "study").final.reshape(*shape, -1)
    one = [best(f[:, optimism.index(1.0)]) for f in final]
    both = [np.unravel_index(best(f.reshape(-1, f.shape[-1])), shape[1:]) for f in final]
    curves = {} if rate is None else {PUBLISHED: [(rate, 1.0)] * len(DECAYS)}
    curves[ONE] = [(config.rates[i], 1.0) for i in one]
    curves[BOTH] = [(config.rates[i], optimism[j]) for i, j in both]
    pairs = np.array([pair for curve in curves.values() for pair in curve])
    chosen = {"decay": np.tile(DECAYS, len(curves)), "lr": pairs[:, 0], "optimism": pairs[:, 1]}
    seen = contest.play(game, how, chosen, "comparison", records=100).final
    start = contest.starts(game, "comparison")

    def numbers(cell: study.Cell) -> dict[str, Any]:
        of, at, i = list(curves).index(cell["curve"]), DECAYS.index(cell["decay"]), cell["seed"]
        lr, optimism = curves[cell["curve"]][at]
        final = seen[of * len(DECAYS) + at, i]
        return games.outcome(start[i], final) | {"lr": lr, "optimism": optimism}

    return numbers


# --- the run -------------------------------------------------------------------------------------------------------


def wanted(config: Config, game: str) -> list[study.Cell]:
    """The cells of a game besides the tuning."""
    seeds, methods = range(config.seeds), (OG, OMEGA)
    cells = study.grid(kind=["compared"], game=[game], method=methods, seed=seeds)
    if "equal" in config.studies:
        levels = [level for level in config.optimism if level > 0]
        of = {"kind": ["equal"], "game": [game], "method": methods}
        cells += study.grid(**of, level=levels, seed=seeds)
    if "decay" in config.studies:
        theirs = games.SETUPS[game].published_rate is not None
        curves = [PUBLISHED, ONE, BOTH] if theirs else [ONE, BOTH]
        of = {"kind": ["decay"], "game": [game], "method": [OMEGA]}
        cells += study.grid(**of, curve=curves, decay=DECAYS, seed=seeds)
    return cells


def run(config: Config) -> None:
    """Plays what is not yet recorded, and writes the page."""
    game_of = study.once(rules(config).build)
    names = ("kind", "game", "method", "level", "curve", "decay", "seed")
    with study.opened(config, names, grows=("games", "studies", "seeds", "workers")) as this:
        this.make(
            study.grid(kind=["tuned"], game=config.games, method=(OG, OMEGA)),
            lambda of, _: [tuned(config, game_of(of["game"]), of["method"])],
            together=("game", "method"),
            workers=config.workers,
        )
        found = {(r["game"], r["method"]): r for r in study.chosen(this.records, kind="tuned")}

        def group(of: study.Cell, cells: list[study.Cell]) -> list[dict[str, Any]]:
            kind, name, method = of["kind"], of["game"], of["method"]
            if kind == "compared":
                numbers = compared(config, game_of(name), method, found[name, method])
            elif kind == "equal":
                numbers = equal(config, game_of(name), method)
            else:
                numbers = decays(config, game_of(name), games.SETUPS[name].published_rate)
            return [numbers(cell) for cell in cells]

        # Game by game: two studies of a kind would compile the same program at the same time.
        cells = [cell for game in config.games for cell in wanted(config, game)]
        kinds = ("kind", "game", "method")
        this.make(cells, group, together=kinds, whole=True, workers=config.workers)
        tell(config, this)


# --- the page ------------------------------------------------------------------------------------------------------


def solved(records: Sequence[Any]) -> list[Any]:
    """The records, with a ``log_distance`` of inf where a seed of the study at equal effective optimism solved nothing.

    It came no nearer than it started. As where a seed diverged, its game is then left out of a claim by name.
    """
    far = [r["kind"] == "equal" and r["log_distance"] >= np.log(r["start"]) for r in records]
    return [r | {"log_distance": np.inf} if lost else r for r, lost in zip(records, far, strict=True)]


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """What would have to be seen at every game: Omega nearer, both tuned, and at equal effective optimism."""
    at: list[tuple[str, dict[str, Any]]] = [("both tuned", {"kind": "compared"})]
    for level in sorted(study.values(study.chosen(records, kind="equal"), "level")):
        if level >= 1:  # below, both are almost plain descent
            words = f"at an effective optimism of {level:g} of both"
            at.append((words, {"kind": "equal", "level": level}))
    words, claim = ("nearer to the solution", "not nearer by that"), study.Claim
    return [
        claim(OMEGA, OG, "log_distance", words, -1, ("game",), among, MARGIN)._replace(
            level=str, unit=f"log points, {said}"
        )
        for said, among in at
    ]


def draw(records: Sequence[Any]) -> list[report.Drawn]:
    """The figures."""
    kinds = ("compared", "equal", "decay")
    seen, at_equal, of_decay = (study.chosen(records, kind=kind) for kind in kinds)
    start = {
        game: float(np.median(study.by_seed(seen, "start", game=game, method=OMEGA)))
        for game in study.values(seen, "game")
    }
    paths = report.curves(seen, "distance", along="calls")
    drawn = [
        report.Drawn(
            "distance",
            figures.distance_over_calls(paths, start=start, methods=[OG, OMEGA]),
            "Distance to the solution over oracle calls, both tuned: median and quartiles (bands) of the fresh seeds. "
            "The thin grey line is the typical distance at the start; lower is better.",
            alt="distances over oracle calls; those at the end are in the table",
        )
    ]
    if lines := report.panels(at_equal, "final", along="level"):
        drawn.append(
            report.Drawn(
                "effective_optimism",
                figures.effect(lines, xlabel="effective optimism", start=start),
                "The same effective optimism, o / (1 − b), each point with the learning rate that is best for it: "
                "median and quartiles of the fresh seeds. Where the lines lie on each other, Omega's average of "
                "gradients is worth just as much as the optimism that it stands for; points that are missing diverged.",
                alt="distances at the end over the effective optimism; their ratios are in the table",
            )
        )
    if lines := report.panels(of_decay, "final", along="decay", of="curve"):
        drawn.append(
            report.Drawn(
                "decay",
                figures.effect(lines, xlabel="decay b", log_x=False, start=start, columns=1),
                "Omega at different decays b of its average (0 is the optimistic gradient): median and quartiles of "
                "the fresh seeds. With the optimism fixed at 1, a larger decay is also a larger effective optimism; "
                "only where the optimism is tuned too does the line show what the average itself does.",
                alt="distances at the end over decays; the table has their ratios to decay 0",
            )
        )
    return drawn


def shown(records: Sequence[Any]) -> list[report.Shown]:
    """The tables."""
    seen, game = study.chosen(records, kind="compared"), report.Name("game")
    at_equal = study.chosen(solved(records), kind="equal")
    tuned_at = study.chosen(records, kind="decay", curve=BOTH)
    of_decay = [{**r, "b": str(r["decay"])} for r in tuned_at]
    ratio = report.ratio("log_distance", OMEGA, OG)

    def effective(method: str) -> Callable[[Sequence[Any]], str]:
        def text(rows: Sequence[Any]) -> str:
            setting = study.chosen(rows, method=method)[0]["setting"]
            return f"{setting['optimism'] / (1 - DECAY[method]):.3g}"

        return text

    def at(level: float) -> Callable[[Sequence[Any]], str]:
        return lambda rows: ratio(study.chosen(rows, level=level))

    levels = sorted(level for level in study.values(at_equal, "level") if level >= 1)
    flat = [{k: v for k, v in r.items() if not isinstance(v, list | dict)} for r in records]

    def lost(rows: Sequence[Any]) -> str:
        return f"{100 * np.mean([r['final'] > 1.1 * r['start'] for r in rows]):.0f}"

    columns = {"distance": report.quartiles("final"), "diverged (%)": lost}
    columns |= {"settings": lambda rows: rows[0]["words"]}
    sides = {"effective optimism of Omega": effective(OMEGA), "of the other": effective(OG)}
    decays = {f"{b:g}": report.ratio("log_distance", str(b), "0.0", of="b") for b in DECAYS[3:]}
    note = "Geometric mean over seeds with its 95 % interval; below 1 Omega is nearer. "
    return [
        report.Shown(
            "table",
            report.table(seen, [game, report.Name("method")], columns),
            "Distance at the end, both tuned on seeds of their own.",
            "Median and quartiles over fresh seeds; the distance at the end is the geometric mean over the last tenth "
            "of the calls. Diverged: ended more than a tenth farther away than the start. ° at the bound 0, plain "
            "descent; * still at an end after the grid was extended twice; † never came nearer than the start, so no "
            "grid was extended.",
            numbers=pd.DataFrame(flat),
            title="distance at the end, both tuned",
        ),
        report.Shown(
            "paired",
            report.table(seen, [game], {"ratio": ratio} | sides),
            "Omega's distance divided by the optimistic gradient's, on the same fresh seeds.",
            note + "The effective optimism, o / (1 − b), is what tuning chose.",
            title="Omega's distance divided by the optimistic gradient's, both tuned",
        ),
        report.Shown(
            "equal",
            report.table(at_equal, [game], {f"{level:g}": at(level) for level in levels}),
            "The same ratio at equal effective optimism (columns), each with its own learning rate.",
            note + "A dash where a seed of one of them came no nearer than it started.",
            title="the same at equal effective optimism",
        ),
        report.Shown(
            "decay",
            report.table(of_decay, [game], decays),
            "Omega's distance at a decay (columns) divided by that at 0, rate and optimism tuned at each.",
            note + "Rates and optimism are those of the first grid.",
        ),
    ]


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records = this.records
    there = study.values(records, "game")
    report.study(
        this,
        prog="experiments.omega_gain",
        title="What Omega's gain is made of",
        subtitle=f"{len(there)} games, {config.budget:,} oracle calls, seeds of their own",
        found=[study.judge(solved(records), claim) for claim in claims(records)],
        drawn=draw(records),
        shown=shown(records),
        done=[
            *(f"{name}: {games.METHODS[name].words}." for name in (OG, OMEGA)),
            *(f"{name}: {games.SETUPS[name].words}." for name in there),
        ],
        paragraphs=[
            "One player, x, wants a function to be small, and another one, y, wants it to be large. A method sees only "
            "the field of a random minibatch: both players' gradients, with y's sign turned, so that both descend. "
            "Distance means that of both players together to the solution. One evaluation of a minibatch's field is an "
            "oracle call. A log point is a hundredth of the logarithm of a ratio: about one percent of the distance.",
            "Near a solution with pure rotation a small step of Omega does what one of the optimistic gradient does "
            "with the optimism o / (1 − b), its effective optimism. Tuning sees a grid of rates and optimism, on "
            f"{config.tuning_seeds} seeds of its own; the grid is extended (at most twice) where its best setting lies "
            "at an end, and then refined between the neighbours of the best one. A game is not compared where a seed "
            "of one of them diverged; at equal effective optimism also where it came no nearer than it started.",
        ],
    )


main = flags.entry(run, Config, prog="omega_gain")


if __name__ == "__main__":
    # Compiling takes about as long as playing. At this level it takes half as long, and the steps are as fast: their
    # products are library calls.
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"
    main()
