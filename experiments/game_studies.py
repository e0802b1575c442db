"""Stochastic games: which method ends nearest, and what the settings of Omega's authors show.

    .venv/bin/python -m experiments.game_studies --suite all

tunes every method over one grid of learning rates and of a second parameter, on seeds of its own, and lets all play
fresh seeds with the same budget of oracle calls. A grid whose best setting lies at an end is extended there, at most
twice, and then refined around the best setting. Beside that it plays the settings of Omega's authors, with a control
that they do not have (the optimistic gradient with Omega's effective optimism), and on the first linear game it maps
which settings converge, draws paths, and varies the size of the minibatch.

It writes `runs/game_studies/<id>/`: config.json, records.jsonl, tables, figures, report.html; the same command goes on
where a killed run stopped. Two cores take a few minutes for the defaults. `experiments.omega_gain` asks what Omega's
gain is made of.
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
#: The methods whose settings are mapped, and the decay of the average of gradients in each.
DECAY = {OG: 0.0, OMEGA: 0.9}
AUTHORS = tuple(name for name, setup in games.SETUPS.items() if setup.published_rate)
BEYOND = tuple(name for name in games.SETUPS if name not in AUTHORS)
SUITES = {"omega": AUTHORS, "beyond": BEYOND, "all": tuple(games.SETUPS)}
STUDIES = ("published", "stability", "batch", "paths")
#: Of the fresh seeds, so many play in the study of the batch size.
BATCH_SEEDS = 8
#: A method that ends no nearer than this share of the start has not moved: a grid is not extended for it.
STANDS_STILL = 0.95
#: Of a cell, what is recorded.
Numbers = Callable[[study.Cell], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Config:
    """Tune methods alike on stochastic games, and compare them on fresh seeds."""

    # omega (the authors' six games), beyond (the others of games.SETUPS) or all
    suite: str = flags.one("omega", of=SUITES)
    # of sgd, momentum, optimistic_gradient, omega, omegam, extragradient, optimistic_adam, lookahead, lead, consensus;
    # each also as sgd_averaged and so on, where the distance is that of the average of all iterates so far
    optimizers: tuple[str, ...] = flags.several(
        ("sgd", "momentum", OG, OMEGA, "omegam", "extragradient", "lookahead"), of=games.METHODS
    )
    # the whole suite by default
    games: tuple[str, ...] = flags.several((), of=games.SETUPS, none=True)
    # besides the comparison: published (settings of Omega's authors), stability, batch, paths; may be empty
    studies: tuple[str, ...] = flags.several(STUDIES, of=STUDIES, none=True)
    # learning rates of the first grid
    rates: tuple[float, ...] = flags.several(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), float, above=0, below=np.inf
    )
    # optimism of the first grid, relative to the gradient; also other second parameters of that kind
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
    # at most this many steps, however many the budget pays for; 0 for no such bound
    steps: int = flags.one(0, low=0)
    # fresh seeds on which tuned methods are compared
    seeds: int = flags.one(20, low=1, high=10_000)
    # seeds of the tuning
    tuning_seeds: int = flags.one(4, low=1, high=10_000)
    # samples per minibatch in the study of the batch size
    batches: tuple[int, ...] = flags.several((1, 5, 10, 20, 100), int, low=1)
    # settings along each axis of the stability map
    map_size: int = flags.one(24, low=2)
    # methods that play at the same time
    workers: int = flags.one(2, low=1)
    # the key that games and seeds are folded from
    seed: int = flags.one(0, low=0)
    # the run goes into a folder in here
    runs_dir: str = "runs/game_studies"
    # name of that folder; a hash of the settings by default
    id: str = ""

    def check(self) -> None:
        """What no field can say by itself."""
        for flag in ("rates", "optimism", "batches"):
            values = getattr(self, flag)
            if list(values) != sorted(set(values)) or max(values) == 0:
                given = ",".join(f"{value:g}" for value in values)
                raise flags.UsageError(f"--{flag}={given}: give rising numbers, such as 1,5,10")

    def chosen(self) -> tuple[str, ...]:
        """The games."""
        return self.games or SUITES[self.suite]

    def first(self) -> str:
        """The game of the studies of one thing: a linear one if there is one."""
        return next((g for g in self.chosen() if games.SETUPS[g].linear), self.chosen()[0])


# --- playing -------------------------------------------------------------------------------------------------------


def rules(config: Config) -> games.Contest:
    """The same for all methods."""
    # Seeds of the tuning are no seeds of the comparison.
    seeds = {"tuning": config.tuning_seeds, "comparison": config.seeds}
    seeds |= {"study": min(config.tuning_seeds, 2)}
    sizes = config.batch_size, config.dim, config.samples
    return games.Contest(config.budget, seeds, *sizes, config.steps, config.seed)


def first_grid(config: Config, method: games.Method) -> dict[str, search.Axis]:
    """The axes of a method."""
    axes = {"lr": search.Axis(config.rates)}
    if method.second is not None:
        axes[method.second] = search.Axis(tuple(method.values or config.optimism), method.high)
    return axes


def tuned(config: Config, game: games.Game, method: games.Method) -> dict[str, Any]:
    """The best setting of a method, and all that was tried."""
    contest = rules(config)
    found = search.tune(
        first_grid(config, method),
        lambda settings: contest.play(game, method, settings, "tuning").final,
        score=games.mean_log,
        good=np.log(STANDS_STILL) + np.mean(np.log(contest.starts(game, "tuning"))),
    )
    return found._asdict() | {"words": found.words().replace("lr", "rate")}


# --- studies of one thing at a time --------------------------------------------------------------------------------


def stability(config: Config, game: games.Game, name: str) -> dict[str, Any]:
    """A method over learning rate x optimism: measured on the game, and from theory."""
    rates = np.geomspace(1e-3, 1.0, config.map_size)
    optimism = np.geomspace(0.05, 100.0, config.map_size)
    settings = games.grid(lr=rates, optimism=optimism)
    eigenvalues = games.spectrum(game._replace(num_samples=None)).eigenvalues
    final = rules(config).play(game, games.METHODS[name], settings, "study").final
    radius = games.radius(eigenvalues, settings["lr"], settings["optimism"], DECAY[name])
    shape = (len(rates), len(optimism))
    return {
        "rates": rates,
        "optimism": optimism,
        "distance": np.exp(games.mean_log(final)).reshape(shape),
        "radius": radius.reshape(shape),
    }


def batches(config: Config, name: str, game: games.Game, method: games.Method) -> Numbers:
    """Every batch size with a setting of the first grid that is tuned for it; fresh seeds."""
    # What is played, and the size that it is told.
    of_size = {size: (game, size) for size in config.batches}
    if games.SETUPS[name].linear and game.num_samples is not None:
        parts, largest = games.sample_matrices(game), max(config.batches)
        of_size = {size: (games.in_minibatches(game, parts, size, largest=largest), 1) for size in of_size}
    grid = games.grid(**{k: axis.values for k, axis in first_grid(config, method).items()})
    found = {}
    for batch, (one, size) in of_size.items():
        contest = rules(config)
        few = contest.seeds | {"comparison": min(config.seeds, BATCH_SEEDS)}
        contest = contest._replace(batch_size=size, seeds=few)
        best = int(np.argmin(games.mean_log(contest.play(one, method, grid, "study").final)))
        setting = {k: v[best : best + 1] for k, v in grid.items()}
        found[batch] = contest.play(one, method, setting, "comparison", records=100).final[0]
    return lambda cell: {"final": found[cell["batch"]][cell["seed"]]}


# --- the run -------------------------------------------------------------------------------------------------------


def wanted(config: Config) -> list[study.Cell]:
    """All cells besides the tuning."""
    seeds, methods, first = range(config.seeds), config.optimizers, config.first()
    cells = study.grid(kind=["compared"], game=config.chosen(), method=methods, seed=seeds)
    if "published" in config.studies:
        labels = [label for label, (name, _) in games.PUBLISHED.items() if name in methods]
        theirs = [game for game in config.chosen() if game in AUTHORS]
        cells += study.grid(kind=["published"], game=theirs, label=labels, seed=seeds)
    if "stability" in config.studies and games.SETUPS[first].linear:
        cells += study.grid(kind=["stability"], game=[first], method=DECAY)
    if "batch" in config.studies:
        both = [name for name in DECAY if name in methods]
        few = range(min(config.seeds, BATCH_SEEDS))
        cells += study.grid(kind=["batch"], game=[first], method=both, batch=config.batches, seed=few)
    if "paths" in config.studies and games.SETUPS[first].linear:
        plain = [name for name in methods if games.METHODS[name].measure is None]
        cells += study.grid(kind=["path"], game=[first], method=plain)
    return cells


def run(config: Config) -> None:
    """Plays what is not yet recorded, and writes the page."""
    contest, game_of = rules(config), study.once(rules(config).build)
    grows = ("suite", "games", "optimizers", "studies", "seeds", "workers")
    names = ("kind", "game", "method", "label", "batch", "seed")
    with study.opened(config, names, grows=grows) as this:
        this.make(
            study.grid(kind=["tuned"], game=config.chosen(), method=config.optimizers),
            lambda of, _: [tuned(config, game_of(of["game"]), games.METHODS[of["method"]])],
            together=("game", "method"),
            workers=config.workers,
        )
        found = {(r["game"], r["method"]): r for r in study.chosen(this.records, kind="tuned")}

        def group(of: study.Cell, cells: list[study.Cell]) -> list[dict[str, Any]]:
            kind, game = of["kind"], game_of(of["game"])
            if kind == "published":
                method, setting = games.published(of["game"], of["label"])
                seen = contest.compare(game, method, setting, "comparison")
                return [seen[cell["seed"]] | {"setting": setting} for cell in cells]
            method, best = games.METHODS[of["method"]], found.get((of["game"], of["method"]), {})
            if kind == "stability":
                return [stability(config, game, of["method"])]
            if kind == "batch":
                return [*map(batches(config, of["game"], game, method), cells)]
            if kind == "path":
                steps = min(2500, contest.length(method, 100)[0])
                seen = games.in_the_plane(
                    game,
                    method.make(**best["chosen"]),
                    num_steps=steps,
                    key=contest.keys("comparison")[0],
                    batch_size=config.batch_size,
                )
                return [{"path": seen}]
            seen = contest.compare(game, method, best["chosen"], "comparison")
            said = {"setting": best["chosen"], "words": best["words"]}
            return [seen[cell["seed"]] | said for cell in cells]

        kinds = ("kind", "game", "method", "label")
        this.make(wanted(config), group, together=kinds, whole=True, workers=config.workers)
        tell(config, this)


# --- the page ------------------------------------------------------------------------------------------------------


def claims(records: Sequence[Any]) -> list[study.Claim]:
    """With the authors' settings: Omega beside the optimistic gradient of equal, and of equal effective, optimism."""
    there, words = (
        study.values(study.chosen(records, kind="published"), "label"),
        ("nearer to the solution", "farther away"),
    )
    return [
        study.Claim("omega 1", peer, "log_distance", words, -1, ("game",))._replace(
            among={"kind": "published"}, of="label", level=str, unit="log points"
        )
        for peer in (f"{OG} 1", f"{OG} 10")
        if {"omega 1", peer} <= set(there)
    ]


def by_game(of: Mapping[str, str]) -> str:
    """Game -> method, said the other way round: ``omega on a, b; sgd on c``."""
    found: dict[str, list[str]] = {}
    for game, name in of.items():
        found.setdefault(name, []).append(game)
    return "; ".join(f"{name} on {', '.join(some)}" for name, some in found.items())


def nearest(records: Sequence[Any]) -> dict[str, str]:
    """The method of the smallest median distance on each game."""
    seen, found = study.chosen(records, kind="compared"), {}
    for game in study.values(seen, "game"):
        mine = study.chosen(seen, game=game)
        median = {
            name: np.median([r["final"] for r in study.chosen(mine, method=name)])
            for name in study.values(mine, "method")
        }
        found[game] = min(median, key=median.__getitem__)
    return found


def lost(rows: Sequence[Any]) -> str:
    """The share of seeds that diverged, in percent."""
    return f"{100 * np.mean([r['final'] > 1.1 * r['start'] for r in rows]):.0f}"


def draw(records: Sequence[Any]) -> list[report.Drawn]:
    """The figures."""
    seen = study.chosen(records, kind="compared")
    curves, methods = report.curves(seen, "distance", along="calls"), study.values(seen, "method")
    start = {game: float(np.median([r["start"] for r in study.chosen(seen, game=game)])) for game in curves}
    drawn = [
        report.Drawn(
            "distance",
            figures.distance_over_calls(curves, start=start, methods=methods, columns=4),
            "Distance to the solution over oracle calls, every method tuned: median and quartiles (bands) of the fresh "
            "seeds. The thin grey line is the typical distance at the start; lower is better.",
            alt=f"nearest at the end: {by_game(nearest(records))}",
        )
    ]
    for game in curves:
        maps, of_paths, batch = (study.chosen(records, kind=kind, game=game) for kind in ("stability", "path", "batch"))
        if of_paths:
            of = {r["method"]: np.array(r["path"]) for r in of_paths}
            drawn.append(
                report.Drawn(
                    f"paths_{game}",
                    figures.paths(of, methods=methods),
                    f"The first steps of one seed on {game}, tuned, in a plane through the solution: across is x "
                    "along u, upwards y along v, the pair of directions that the mean game couples most (its "
                    "largest singular value). The dot is the start, the cross the solution.",
                    alt="paths around the solution; where they end is in the table",
                )
            )
        if maps:
            axes = np.array(maps[0]["rates"]), np.array(maps[0]["optimism"])
            of = {r["method"]: (np.array(r["distance"]), np.array(r["radius"])) for r in maps}
            agree = [
                f"{100 * np.mean((distance <= start[game]) == (radius < 1)):.0f} % of the settings of {name}"
                for name, (distance, radius) in of.items()
            ]
            drawn.append(
                report.Drawn(
                    f"stability_{game}",
                    figures.stability_map(*axes, of, start=start[game]),
                    f"Which settings converge on {game}. Colours are the measured distance at the end, grey is no "
                    "nearer than the start. The line is theory: inside of it the game without noise converges. There a "
                    "setting may still be too slow for the budget, or be driven away by noise. Measurement and theory "
                    f"agree for {' and '.join(agree)}.",
                    alt=f"measurement and theory agree for {' and '.join(agree)}",
                )
            )
        if panels := report.panels(batch, "final", along="batch"):
            drawn.append(
                report.Drawn(
                    f"batch_{game}",
                    figures.effect(panels, xlabel="samples per minibatch", start=start),
                    "Larger minibatches, drawn with replacement, settings tuned for each: median and quartiles of "
                    f"{len(study.values(batch, 'seed'))} fresh seeds. The number of oracle calls is the same, so a "
                    "larger minibatch sees more samples.",
                    alt="distances at the end over the samples per minibatch",
                )
            )
    return drawn


def tell(config: Config, this: study.Run) -> None:
    """The page."""
    records = this.records
    first, seen = nearest(records), study.chosen(records, kind="compared")
    unsolved = " and ".join(game for game in first if not games.SETUPS[game].solved)
    flat = [{k: v for k, v in r.items() if not isinstance(v, list | dict)} for r in records]
    game, columns = (
        report.Name("game"),
        {"distance": report.quartiles("final"), "diverged (%)": lost},
    )
    more = {
        "nearest": lambda rows: "←" if first[rows[0]["game"]] == rows[0]["method"] else "",
        "settings": lambda rows: rows[0]["words"],
    }
    note = (
        "Median and quartiles over fresh seeds; the distance at the end is the geometric mean over the last tenth of "
        "the calls. Diverged: ended more than a tenth farther away than the start. "
    )
    if unsolved:
        note += f"The solution of {unsolved} is not known: the norm of the mean field stands there. "
    report.study(
        this,
        prog="experiments.game_studies",
        title="Stochastic games",
        subtitle=f"{len(first)} games, {config.budget:,} oracle calls for each method",
        found=[
            f"Of all methods, tuned, the smallest median distance has {by_game(first)}.",
            *(study.judge(records, claim) for claim in claims(records)),
        ],
        drawn=draw(records),
        shown=[
            report.Shown(
                "table",
                report.table(seen, [game, report.Name("method")], columns | more),
                "Distance at the end, every method tuned on seeds of its own.",
                note + "° at a bound: a second parameter of 0 makes a method plain descent, a slow_rate of 1 the "
                "method inside; * still at an end after the grid was extended twice; † never came nearer than the "
                "start, so no grid was extended.",
                numbers=pd.DataFrame(flat),
                title="distance at the end, tuned",
            ),
            report.Shown(
                "published",
                report.table(
                    study.chosen(records, kind="published"),
                    [game, report.Name("label", "method")],
                    columns,
                ),
                "Distance at the end with the settings of Omega's authors.",
                note + "The number after a method's name is its second parameter. On quadratic_linear x descends "
                "plainly, and y follows the method at half the rate. optimistic_gradient 10 is a control that the "
                "authors do not have: Omega's effective optimism.",
                title="with the authors' settings",
            ),
        ],
        done=[
            *(f"{name}: {games.METHODS[name].words}." for name in study.values(seen, "method")),
            *(f"{name}: {games.SETUPS[name].words}." for name in first),
        ],
        paragraphs=[
            "One player, x, wants a function to be small, and another one, y, wants it to be large. A method sees only "
            "the field of a random minibatch: both players' gradients, with y's sign turned, so that both descend. One "
            "evaluation of it is an oracle call; a method that needs two per step makes half as many steps. A log "
            "point is a hundredth of the logarithm of a ratio: about one percent of the distance.",
        ],
    )


main = flags.entry(run, Config, prog="game_studies")


if __name__ == "__main__":
    # Compiling takes about as long as playing. At this level it takes half as long, and the steps are as fast: their
    # products are library calls.
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"
    main()
