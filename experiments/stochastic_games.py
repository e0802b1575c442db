"""Plays stochastic games with every method tuned alike, and asks what Omega's gain is made of.

    python -m experiments.stochastic_games --suite omega

reruns the comparisons of Omega's authors (their games, learning rates and optimism), and goes beyond them: every method
is tuned over one grid of learning rates and of a second parameter on seeds of its own, then plays fresh seeds with
the same budget of oracle calls. The claim under test: Omega's gain over the optimistic gradient is more than a larger
effective optimism, o / (1 - b). The page says whether it is.

It writes `runs/stochastic_games/<id>/`: config.json, records.jsonl, tables, figures, report.html. The same command goes
on where a killed run stopped. Two cores take a few minutes for the defaults.
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app

from experiments import flags, stochastic_games_report
from jaxfair import games, optim, train
from jaxfair.games import Game
from jaxfair.report import records as records_lib
from jaxfair.typing import Key

# --------------------------------------------------------------------------------------------------------------------
# Games and methods.


class Setup(NamedTuple):
    """A game of the suite, and the learning rate of Omega's authors for it (None where they have none)."""

    make: Callable[..., Game]
    options: Mapping[str, Any]
    published_rate: float | None = None
    sampled: bool = True  # takes num_samples
    sized: bool = True  # takes dim


def _range(low: float) -> dict[str, float]:
    return {"min_singular": low, "min_eigenvalue": low}


GAMES = {
    "bilinear": Setup(games.bilinear, {}, 0.02),
    "bilinear_0.1": Setup(games.bilinear, {"min_singular": 0.1}, 0.02),
    "bilinear_0.01": Setup(games.bilinear, {"min_singular": 0.01}, 0.02),
    "quadratic": Setup(games.quadratic, {}, 0.01),
    "quadratic_0.1": Setup(games.quadratic, _range(0.1), 0.01),
    "quadratic_linear": Setup(games.quadratic_linear, {}, 0.02),
    "bilinear_ill_conditioned": Setup(games.bilinear_ill_conditioned, {}),
    "bilinear_coordinates": Setup(games.bilinear_coordinates, {}, sampled=False),
    "bilinear_interpolated": Setup(games.bilinear_interpolated, {}),
    "bilinear_additive_noise": Setup(games.bilinear_additive_noise, {}, sampled=False),
    "complex_spectrum": Setup(games.complex_spectrum, {}, sized=False),
}
_OMEGA = tuple(name for name, setup in GAMES.items() if setup.published_rate)
SUITES = {
    "omega": _OMEGA,
    "beyond": tuple(name for name in GAMES if name not in _OMEGA),
    "all": tuple(GAMES),
}
#: The player of the quadratic-linear game with a curvature descends plainly, as in the authors' runs.
_LINEAR_PLAYER_RATE = 0.5


def _sgd(lr):
    return optax.sgd(lr)


def _momentum(lr, decay):
    return optim.omegam(lr, optimism=0.0, decay=decay)


def _optimistic_gradient(lr, optimism):
    return optim.optimistic_gradient(lr, optimism)


def _omega(lr, optimism, decay=0.9):
    return optim.omega(lr, optimism, decay)


def _omegam(lr, optimism, decay=0.9):
    return optim.omegam(lr, optimism, decay)


def _extragradient(lr, extrapolation):
    return optim.extragradient(lr, extrapolation * lr)


def _optimistic_adam(lr, optimism):
    return optim.optimistic_adam(lr, optimism)


def _lookahead(lr, slow_rate):
    return optim.lookahead(optax.sgd(lr), period=10, slow_rate=slow_rate)


def _lead(lr, coupling):
    return optim.lead(lr, coupling)


def _consensus(lr, regularization):
    return optim.consensus(lr, regularization)


class Method(NamedTuple):
    """How a method is made, what is tuned besides its learning rate, and what it costs.

    Attributes:
      make: of a learning rate and the second parameter.
      second: the name of the second parameter, or None.
      values: of the second parameter; None for the values of ``--optimism``.
      calls: oracle calls per step.
      published: settings of Omega's authors, and of the control that they lack: label -> second parameter.
    """

    make: Callable[..., optax.GradientTransformation]
    second: str | None = None
    values: Sequence[float] | None = None
    calls: int = 1
    published: Mapping[str, float | None] = {}


METHODS = {
    "sgd": Method(_sgd, published={"sgd": None}),
    "momentum": Method(
        _momentum, "decay", (0.0, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99), published={"momentum 0.9": 0.9}
    ),
    "optimistic_gradient": Method(
        _optimistic_gradient,
        "optimism",
        published={"optimistic_gradient 1": 1.0, "optimistic_gradient 10": 10.0},
    ),
    "omega": Method(_omega, "optimism", published={"omega 1": 1.0}),
    "omegam": Method(_omegam, "optimism", published={"omegam 1": 1.0}),
    "extragradient": Method(_extragradient, "extrapolation", calls=2),
    "optimistic_adam": Method(_optimistic_adam, "optimism"),
    "lookahead": Method(_lookahead, "slow_rate", (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)),
    "lead": Method(_lead, "coupling", calls=3),
    "consensus": Method(_consensus, "regularization", calls=2),
}
DECAYS = (0.0, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99)


@dataclasses.dataclass(frozen=True)
class Config:
    """Tune methods alike on stochastic games, and compare them on fresh seeds."""

    # omega (the authors' six games), beyond (five games that they do not have) or all
    suite: str = "omega"
    # of the suites; the whole suite by default
    games: tuple[str, ...] = flags.items(())
    # of sgd, momentum, optimistic_gradient, omega, omegam, extragradient, optimistic_adam, lookahead, lead, consensus
    optimizers: tuple[str, ...] = flags.items(
        ("sgd", "momentum", "optimistic_gradient", "omega", "omegam", "extragradient")
    )
    # learning rates of the grid
    rates: tuple[float, ...] = flags.items(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), float
    )
    # optimism of the grid, relative to the gradient; also other second parameters of that kind
    optimism: tuple[float, ...] = flags.items((0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), float)
    # size of each player
    dim: int = 100
    # minibatches that a game is the mean of
    samples: int = 100
    # samples per minibatch
    batch_size: int = 1
    # oracle calls that each method may make
    budget: int = 5000
    # at most this many steps, however many the budget pays for; 0 for no such bound
    steps: int = 0
    # fresh seeds on which tuned methods are compared
    seeds: int = 20
    # seeds of the tuning
    tuning_seeds: int = 4
    # samples per minibatch in the study of the batch size
    batches: tuple[int, ...] = flags.items((1, 4, 16), int)
    # settings along each axis of the stability map
    map_size: int = 24
    # studies besides the comparison: paths, stability, decay, batch; none for an empty list
    studies: tuple[str, ...] = flags.items(("paths", "stability", "decay", "batch"))
    # the key that games and seeds are folded from
    seed: int = 0
    # the run goes into a folder in here
    runs_dir: str = "runs/stochastic_games"
    # name of that folder; a hash of the settings by default
    id: str = ""


NOT_OF_THE_RUN = ("runs_dir", "id")
STUDIES = ("paths", "stability", "decay", "batch")


class UsageError(Exception):
    """A setting that cannot be used; the message is one line that says what to do."""


def check(config: Config) -> None:
    """Raises UsageError for what can be known to be wrong."""
    if config.suite not in SUITES:
        raise UsageError(f"--suite={config.suite}: choose from {', '.join(SUITES)}")
    for flag, known in {"games": GAMES, "optimizers": METHODS, "studies": STUDIES}.items():
        chosen = getattr(config, flag)
        for name in chosen:
            if name not in known:
                raise UsageError(f"--{flag}: there is no {name!r}; choose from {', '.join(known)}")
        if len(set(chosen)) < len(chosen):
            raise UsageError(f"--{flag}: name each once")
    if not config.optimizers:
        raise UsageError(f"--optimizers: choose from {', '.join(METHODS)}")
    smallest = {"samples": 1, "batch_size": 1, "seeds": 1, "tuning_seeds": 1, "map_size": 2,
                "dim": 2, "steps": 0}  # fmt: skip
    for flag, low in smallest.items():
        if getattr(config, flag) < low:
            raise UsageError(f"--{flag}={getattr(config, flag)}: give a number of at least {low}")
    if config.budget < 40:
        raise UsageError(f"--budget={config.budget}: give at least 40 oracle calls")
    if 0 < config.steps < 20:
        raise UsageError(f"--steps={config.steps}: give 0, or at least 20 steps")
    for flag in ("rates", "optimism", "batches"):
        values = getattr(config, flag)
        if not values or min(values) <= 0 or list(values) != sorted(set(values)):
            raise UsageError(f"--{flag}: give rising numbers above 0, such as 0.01,0.1")


# --------------------------------------------------------------------------------------------------------------------
# Playing.


def build(config: Config, name: str) -> Game:
    """The game of that name; the same one in every run with these settings."""
    setup = GAMES[name]
    options = dict(setup.options)
    if name == "bilinear_coordinates" or setup.sized:
        options["dim"] = config.dim
    if setup.sampled:
        options["num_samples"] = config.samples
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    return setup.make(key, **options)


def keys(config: Config, role: str) -> Key:
    """Seeds: those of the tuning are no seeds of the comparison."""
    which, count = {
        "tuning": (1, config.tuning_seeds),
        "comparison": (2, config.seeds),
        "study": (3, min(config.tuning_seeds, 2)),
    }[role]
    return jax.random.split(jax.random.fold_in(jax.random.key(config.seed), which), count)


def length(config: Config, calls: int, records: int) -> tuple[int, int]:
    """``(num_steps, record_every)`` of a method that makes so many oracle calls per step."""
    steps = config.budget // calls
    if config.steps:
        steps = min(steps, config.steps)
    every = max(1, steps // records)
    return steps // every * every, every


def tail(distance: np.ndarray) -> np.ndarray:
    """``[..., R] -> [...]``: the geometric mean over the last tenth of the records; inf where one is not finite."""
    last = np.asarray(distance, np.float64)[..., -max(1, distance.shape[-1] // 10) :]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = np.exp(np.mean(np.log(np.maximum(last, 1e-30)), axis=-1))
    return np.where(np.isfinite(value), value, np.inf)


def start_distance(game: Game) -> float:
    """The typical distance at the start."""
    starts = jax.vmap(lambda key: games.distance(game, game.init(key)))(
        jax.random.split(jax.random.key(0), 64)
    )
    return float(jnp.median(starts))


def settings_of(config: Config, method: Method) -> dict[str, np.ndarray]:
    """The grid of a method."""
    if method.second is None:
        return games.grid(lr=config.rates)
    values = config.optimism if method.values is None else method.values
    return games.grid(**{"lr": config.rates, method.second: values})


def choose(final: np.ndarray) -> int:
    """The setting ``[H, S] -> index`` of the smallest mean log distance, with no seed that diverged if possible."""
    with np.errstate(divide="ignore"):
        score = np.mean(np.log(final), axis=1)
    return int(np.argmin(score))


def tune(config: Config, game: Game, name: str) -> dict[str, Any]:
    """Plays the whole grid on the tuning seeds."""
    method = METHODS[name]
    settings = settings_of(config, method)
    steps, every = length(config, method.calls, 40)
    final = tail(
        games.sweep(
            game, method.make, settings, num_steps=steps, keys=keys(config, "tuning"),
            batch_size=config.batch_size, record_every=every,
        ).distance
    )  # fmt: skip
    best = choose(final)
    return {
        "settings": settings,
        "final": final,
        "chosen": {k: float(v[best]) for k, v in settings.items()},
    }


def compare(
    config: Config, game: Game, make: Callable[..., Any], setting: Mapping[str, float], calls: int
) -> dict[str, Any]:
    """Plays one setting on the fresh seeds."""
    steps, every = length(config, calls, 100)
    seen = games.sweep(
        game, make, {k: [v] for k, v in setting.items()}, num_steps=steps,
        keys=keys(config, "comparison"), batch_size=config.batch_size, record_every=every,
    )  # fmt: skip
    distance = np.asarray(seen.distance[0])
    return {
        "setting": dict(setting),
        "calls": np.asarray(seen.oracle_calls[0, 0]),
        "distance": distance,
        "final": tail(distance),
    }


def _per_player(make, lr, **second):
    """Plain descent for x, the method at half its rate for y: the authors' quadratic-linear runs."""
    parts = {"x": optax.sgd(lr), "y": make(_LINEAR_PLAYER_RATE * lr, **second)}
    return optax.partition(parts, {"x": "x", "y": "y"})


#: One object per method, so that a sweep compiles once.
PER_PLAYER = {name: partial(_per_player, method.make) for name, method in METHODS.items()}


def published(config: Config, game: Game, game_name: str, name: str) -> dict[str, Any]:
    """The authors' settings of a method on the fresh seeds; empty where they have none."""
    method, rate = METHODS[name], GAMES[game_name].published_rate
    runs = {}
    for label, value in method.published.items() if rate else ():
        make = PER_PLAYER[name] if game_name == "quadratic_linear" else method.make
        setting = {"lr": rate} | ({method.second: value} if method.second else {})
        runs[label] = compare(config, game, make, setting, method.calls)
    return runs


# --------------------------------------------------------------------------------------------------------------------
# Studies of one thing at a time.


def path(
    config: Config, game: Game, make: Callable[..., Any], setting: Mapping[str, float], calls: int
) -> np.ndarray:
    """``[T, 2]``: the players in the plane of the mean coupling's largest singular value, around the solution."""
    dim = game.saddle["x"].size
    u, _, vt = np.linalg.svd(np.asarray(game.jacobian)[:dim, dim:])
    u, v = jnp.asarray(u[:, 0]), jnp.asarray(vt[0])
    tx = optax.with_extra_args_support(make(**setting))

    def place(players):
        away = optax.tree.sub(players, game.saddle)
        return jnp.stack([jnp.vdot(u, away["x"]), jnp.vdot(v, away["y"])])

    def step(carry, key):
        players, state = carry
        batch = game.sample(key, config.batch_size)
        field = game.operator(players, batch)
        updates, state = tx.update(
            field, state, players, operator_fn=lambda w: game.operator(w, batch), field=field
        )
        players = optax.apply_updates(players, updates)
        return (players, state), place(players)

    @jax.jit
    def run(key):
        players = game.init(key)
        steps = jax.random.split(key, min(2500, length(config, calls, 100)[0]))
        _, seen = jax.lax.scan(step, (players, tx.init(players)), steps)
        return jnp.concatenate([place(players)[None], seen])

    return np.asarray(run(keys(config, "comparison")[0]))


def radius(
    eigenvalues: np.ndarray, rate: np.ndarray, optimism: np.ndarray, decay: float
) -> np.ndarray:
    r"""The spectral radius of Omega on a linear game: the largest root over all eigenvalues of the Jacobian.

    For an eigenvalue :math:`\lambda` the modes are the roots of
    :math:`z^2 - (1 + b - \eta\lambda(1 + o)) z + b - \eta\lambda(o + b)`; b = 0 is the optimistic gradient.
    """
    scaled = rate[..., None] * np.unique(np.round(eigenvalues.astype(complex), 9))
    o = optimism[..., None]
    linear = -(1 + decay - scaled * (1 + o))
    constant = decay - scaled * (o + decay)
    root = np.sqrt(linear**2 - 4 * constant)
    return np.maximum(np.abs(-linear + root), np.abs(-linear - root)).max(axis=-1) / 2


def stability(config: Config, game: Game) -> dict[str, Any]:
    """Omega and the optimistic gradient over learning rate x optimism: measured on the game, and from theory."""
    rates = np.geomspace(1e-3, 1.0, config.map_size)
    optimism = np.geomspace(0.05, 100.0, config.map_size)
    settings = games.grid(lr=rates, optimism=optimism)
    eigenvalues = games.spectrum(game._replace(num_samples=None)).eigenvalues
    steps, every = length(config, 1, 40)
    result: dict[str, Any] = {"rates": rates, "optimism": optimism}
    for name, decay in (("optimistic_gradient", 0.0), ("omega", 0.9)):
        final = tail(
            games.sweep(
                game, METHODS[name].make, settings, num_steps=steps,
                keys=keys(config, "study"), batch_size=config.batch_size, record_every=every,
            ).distance
        )  # fmt: skip
        final = np.exp(np.mean(np.log(final), axis=1))
        theory = radius(eigenvalues, settings["lr"], settings["optimism"], decay)
        shape = (len(rates), len(optimism))
        result[name] = {"distance": final.reshape(shape), "radius": theory.reshape(shape)}
    return result


def decay_study(config: Config, game: Game, rate: float | None) -> dict[str, Any]:
    """Omega at every decay: with the authors' settings, with a tuned rate, with rate and optimism tuned."""
    result: dict[str, Any] = {"decays": DECAYS}
    steps, every = length(config, 1, 40)
    optimism = sorted({1.0, *config.optimism})
    settings = games.grid(decay=DECAYS, lr=config.rates, optimism=optimism)
    final = tail(
        games.sweep(
            game, _omega, settings, num_steps=steps, keys=keys(config, "tuning"),
            batch_size=config.batch_size, record_every=every,
        ).distance
    )  # fmt: skip
    final = final.reshape(len(DECAYS), len(config.rates), len(optimism), -1)
    one = final[:, :, optimism.index(1.0)]
    if rate in config.rates:
        result["optimism 1, rate of the authors"] = one[:, config.rates.index(rate)].T
    result["optimism 1, rate tuned"] = np.stack([f[choose(f)] for f in one], axis=1)
    both = final.reshape(len(DECAYS), -1, final.shape[-1])
    result["rate and optimism tuned"] = np.stack([f[choose(f)] for f in both], axis=1)
    return result


def batch_study(config: Config, game: Game, names: Sequence[str]) -> dict[str, Any]:
    """Every batch size with its own tuned settings, out of those that lie around the usual ones."""
    result: dict[str, Any] = {"batches": config.batches}
    for name in names:
        method, finals = METHODS[name], []
        steps, every = length(config, method.calls, 40)
        grid = settings_of(config, method)
        for size in config.batches:
            final = tail(
                games.sweep(
                    game, method.make, grid, num_steps=steps, keys=keys(config, "study"),
                    batch_size=size, record_every=every,
                ).distance
            )  # fmt: skip
            finals.append(final[choose(final)])
        result[name] = np.stack(finals, axis=1)
    return result


# --------------------------------------------------------------------------------------------------------------------
# The run.


class Log:
    """What was computed, a record each; what is there already is not computed again."""

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file
        self.done = {tuple(r["of"]): r for r in records_lib.read(file)}

    def get(self, *of: str, compute: Callable[[], Any]) -> Any:
        """The record of that name, computed if it is missing."""
        if of not in self.done:
            begun = time.perf_counter()
            value = compute()
            records_lib.append(self.file, {"of": list(of), "value": value})
            print(f"{' '.join(of)}: {time.perf_counter() - begun:.1f} s", file=sys.stderr)
            # As it will be read again, so that a resumed run sees the same numbers.
            self.done[of] = records_lib.loads(records_lib.dumps({"value": value}))
        return self.done[of]["value"]


def run(config: Config) -> int:
    """Everything, from the flags to the page; gives the exit code."""
    check(config)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in NOT_OF_THE_RUN}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    folder = pathlib.Path(config.runs_dir) / (config.id or digest)
    train.check_folder(folder, 50_000_000)
    if train.claim_folder(folder, settings):
        print(f"going on with the run in {folder}")
    log = Log(folder / "records.jsonl")

    names = config.games or SUITES[config.suite]
    result: dict[str, Any] = {"start": {}, "tuned": {}, "compared": {}, "published": {}}
    built = {game_name: build(config, game_name) for game_name in names}
    for game_name, game in built.items():
        result["start"][game_name] = start_distance(game)
        for name in config.optimizers:
            method, at = METHODS[name], (game_name, name)
            tuned = log.get("tune", *at, compute=partial(tune, config, game, name))
            result["tuned"][at] = tuned
            result["compared"][at] = log.get(
                "compare", *at,
                compute=partial(compare, config, game, method.make, tuned["chosen"], method.calls),
            )  # fmt: skip
            result["published"][at] = log.get(
                "published", *at, compute=partial(published, config, game, game_name, name)
            )
    first, game = names[0], built[names[0]]
    if "paths" in config.studies:
        result["paths"] = {
            name: log.get(
                "path", first, name,
                compute=partial(
                    path, config, game, METHODS[name].make,
                    result["tuned"][first, name]["chosen"], METHODS[name].calls,
                ),
            )
            for name in config.optimizers
        }  # fmt: skip
    if "stability" in config.studies:
        result["stability"] = log.get("stability", first, compute=partial(stability, config, game))
    if "decay" in config.studies:
        result["decay"] = {
            name: log.get(
                "decay", name,
                compute=partial(
                    decay_study, config, built[name], GAMES[name].published_rate
                ),
            )
            for name in names[:2]
        }  # fmt: skip
    if "batch" in config.studies:
        shown = [
            n for n in ("optimistic_gradient", "omega", "extragradient") if n in config.optimizers
        ]
        result["batch"] = log.get("batch", first, compute=partial(batch_study, config, game, shown))
    stochastic_games_report.write(folder, settings, result)
    return 0


def main(config: Config) -> int:
    try:
        return run(config)
    except (UsageError, train.FolderError) as error:
        print(f"stochastic_games: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main, flags_parser=flags.parser(Config, prog="stochastic_games"))
