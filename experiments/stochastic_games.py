"""Plays stochastic games with every method tuned alike, and asks what Omega's gain is made of.

    python -m experiments.stochastic_games --suite omega

reruns the comparisons of Omega's authors (their games, learning rates and optimism), and goes beyond them: every method
is tuned over one grid of learning rates and of a second parameter on seeds of its own, then plays fresh seeds with
the same budget of oracle calls. A grid whose best setting lies at an end is extended there, at most twice, and then
refined around the best setting. The claim under test: Omega's gain over the optimistic gradient is more than a larger
effective optimism, o / (1 - b). The page says whether it is.

`--suite all` plays every game of `jaxfair.games.SUITE`. It writes `runs/stochastic_games/<id>/`: config.json,
records.jsonl, tables, figures, report.html. The same command goes on where a killed run stopped. Two cores take a few
minutes for the defaults.
"""

import dataclasses
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from experiments import flags, runs, stochastic_games_report
from jaxfair import games, optim
from jaxfair.games import Game
from jaxfair.study import records as records_lib
from jaxfair.typing import Key

# --------------------------------------------------------------------------------------------------------------------
# Games and methods.


class Setup(NamedTuple):
    """A game, and what a run needs to know of it.

    Attributes:
      make: of a key and options.
      options: of the game, besides its size.
      published_rate: the learning rate of Omega's authors; None for a game that they do not have.
      sampled: whether it takes ``num_samples``.
      sized: whether it takes ``dim``.
      linear: whether every sample's field is affine on the whole space, so that there is a theory of its stability.
      solved: whether its solution is known; without one the norm of the mean field takes the place of the distance.
    """

    make: Callable[..., Game]
    options: Mapping[str, Any] = {}
    published_rate: float | None = None
    sampled: bool = True
    sized: bool = True
    linear: bool = True
    solved: bool = True


def _range(low: float) -> dict[str, float]:
    return {"min_singular": low, "min_eigenvalue": low}


def _rank_deficient(key, *, dim, num_samples):
    return games.bilinear_rank_deficient(key, dim=dim, rank=dim // 2, num_samples=num_samples)


def _robust_least_squares(key, *, num_samples):
    return games.robust_least_squares(key, dim=min(20, num_samples), num_samples=num_samples)


def _dirac_gan(key, *, num_samples):
    # Data with a spread, or the game would be without noise.
    return games.dirac_gan(key, num_samples=num_samples, noise=0.5)


GAMES = {
    "bilinear": Setup(games.bilinear, {}, 0.02),
    "bilinear_0.1": Setup(games.bilinear, {"min_singular": 0.1}, 0.02),
    "bilinear_0.01": Setup(games.bilinear, {"min_singular": 0.01}, 0.02),
    "quadratic": Setup(games.quadratic, {}, 0.01),
    "quadratic_0.1": Setup(games.quadratic, _range(0.1), 0.01),
    "quadratic_linear": Setup(games.quadratic_linear, {}, 0.02),
    "bilinear_ill_conditioned": Setup(games.bilinear_ill_conditioned),
    "bilinear_rank_deficient": Setup(_rank_deficient, linear=False),  # one solution of many
    "bilinear_coordinates": Setup(games.bilinear_coordinates, sampled=False),
    "bilinear_interpolated": Setup(games.bilinear_interpolated),
    "bilinear_additive_noise": Setup(games.bilinear_additive_noise, sampled=False),
    "complex_spectrum": Setup(games.complex_spectrum, sized=False),
    "matrix_game": Setup(games.matrix_game, sized=False, linear=False),
    "robust_least_squares": Setup(_robust_least_squares, sized=False, linear=False),
    "lagrangian_qp": Setup(games.lagrangian_qp, sized=False, linear=False),
    "dirac_gan": Setup(_dirac_gan, sized=False, linear=False),
    "gaussian_mixture_gan": Setup(
        games.gaussian_mixture_gan, {"num_samples": 256, "hidden": 16},
        sampled=False, sized=False, linear=False, solved=False,
    ),
}  # fmt: skip
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
      values: of the second parameter, rising; None for the values of ``--optimism``. A 0 among them is a bound.
      high: a bound above, which the second parameter may reach where it stands among the values; None for no bound.
      calls: oracle calls per step.
      published: settings of Omega's authors, and of the control that they lack: label -> second parameter.
      measure: at which point the distance is taken, as in `games.play`.
    """

    make: Callable[..., optax.GradientTransformation]
    second: str | None = None
    values: Sequence[float] | None = None
    high: float | None = None
    calls: int = 1
    published: Mapping[str, float | None] = {}
    measure: Callable[[Any, Any], Any] | None = None


def _average(players, state):
    return optim.get_average(state)


def _averaged(method: Method) -> Method:
    """The same iterates, looked at through their average: the steps of a method are not changed by it."""

    def make(lr, **second):
        return optim.average_iterates(method.make(lr, **second))

    return method._replace(make=make, published={}, measure=_average)


METHODS = {
    "sgd": Method(_sgd, published={"sgd": None}),
    "momentum": Method(
        _momentum, "decay", (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99), high=1.0,
        published={"momentum 0.9": 0.9},
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
    "lookahead": Method(
        _lookahead, "slow_rate", (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0), high=1.0
    ),
    "lead": Method(_lead, "coupling", calls=3),
    "consensus": Method(_consensus, "regularization", calls=2),
}  # fmt: skip
METHODS |= {f"{name}_averaged": _averaged(method) for name, method in METHODS.items()}
#: Those of Omega's authors.
DECAYS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)


@dataclasses.dataclass(frozen=True)
class Config:
    """Tune methods alike on stochastic games, and compare them on fresh seeds."""

    # omega (the authors' six games), beyond (the others of games.SUITE) or all
    suite: str = "omega"
    # of the suites; the whole suite by default
    games: tuple[str, ...] = flags.items(())
    # of sgd, momentum, optimistic_gradient, omega, omegam, extragradient, optimistic_adam, lookahead, lead, consensus;
    # each also as sgd_averaged and so on, where the distance is that of the average of all iterates so far
    optimizers: tuple[str, ...] = flags.items(
        ("sgd", "momentum", "optimistic_gradient", "omega", "omegam", "extragradient", "lookahead")
    )
    # learning rates of the first grid, which is extended where its end is best
    rates: tuple[float, ...] = flags.items(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), float
    )
    # optimism of the first grid, relative to the gradient; also other second parameters of that kind
    optimism: tuple[float, ...] = flags.items((0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), float)
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
    batches: tuple[int, ...] = flags.items((1, 5, 10, 20, 100), int)
    # settings along each axis of the stability map
    map_size: int = 24
    # studies besides the comparison: equal (effective optimism), paths, stability, decay, batch; may be empty
    studies: tuple[str, ...] = flags.items(("equal", "paths", "stability", "decay", "batch"))
    # methods that play at the same time
    workers: int = 2
    # the key that games and seeds are folded from
    seed: int = 0
    # the run goes into a folder in here
    runs_dir: str = "runs/stochastic_games"
    # name of that folder; a hash of the settings by default
    id: str = ""


NOT_OF_THE_RUN = ("runs_dir", "id", "workers")
STUDIES = ("equal", "paths", "stability", "decay", "batch")
#: The methods whose difference is in question, and the decay of the average of gradients in each.
EMA = {"optimistic_gradient": 0.0, "omega": 0.9}
#: Of the fresh seeds, so many play in the study of the batch size.
BATCH_SEEDS = 8
#: How often a grid may be extended at an end.
EXTENSIONS = 2
#: A method that ends no nearer than this share of the start has not moved: a grid is not extended for it.
STANDS_STILL = 0.95


def check(config: Config) -> None:
    """Raises UsageError for what can be known to be wrong."""
    if config.suite not in SUITES:
        raise runs.UsageError(f"--suite={config.suite}: choose from {', '.join(SUITES)}")
    for flag, known in {"games": GAMES, "optimizers": METHODS, "studies": STUDIES}.items():
        chosen = getattr(config, flag)
        for name in chosen:
            if name not in known:
                raise runs.UsageError(
                    f"--{flag}: there is no {name!r}; choose from {', '.join(known)}"
                )
        if len(set(chosen)) < len(chosen):
            raise runs.UsageError(f"--{flag}={','.join(chosen)}: name each once")
    if not config.optimizers:
        raise runs.UsageError(f"--optimizers: choose from {', '.join(METHODS)}")
    smallest = {"samples": 1, "batch_size": 1, "seeds": 1, "tuning_seeds": 1, "map_size": 2,
                "dim": 2, "steps": 0, "workers": 1}  # fmt: skip
    for flag, low in smallest.items():
        if getattr(config, flag) < low:
            raise runs.UsageError(
                f"--{flag}={getattr(config, flag)}: give a number of at least {low}"
            )
    if config.budget < 40:
        raise runs.UsageError(f"--budget={config.budget}: give at least 40 oracle calls")
    if 0 < config.steps < 20:
        raise runs.UsageError(f"--steps={config.steps}: give 0, or at least 20 steps")
    for flag, example in {"rates": "0.01,0.1", "optimism": "0,1,10", "batches": "1,10"}.items():
        values = getattr(config, flag)
        above = max(values, default=0) > 0 and (min(values) > 0 or flag == "optimism")
        finite = all(0 <= value < float("inf") for value in values)
        if not (above and finite and list(values) == sorted(set(values))):
            given = ",".join(f"{value:g}" for value in values)
            low = "of at least 0" if flag == "optimism" else "above 0"
            raise runs.UsageError(f"--{flag}={given}: give rising numbers {low}, such as {example}")


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


def starts(config: Config, game: Game, role: str) -> np.ndarray:
    """``[S]``: the distance of every seed at its start (the norm of the mean field where no solution is known)."""
    measure = games.distance if has_distance(game) else games.residual

    def start(key):
        return measure(
            game, game.init(jax.random.split(key, 3)[0])
        )  # the first of the keys that `play` makes

    return np.asarray(jax.jit(jax.vmap(start))(keys(config, role)))


def has_distance(game: Game) -> bool:
    """Whether the game's solution is known."""
    return game.saddle is not None or game.distance is not None


class Played(NamedTuple):
    """Settings on seeds: ``distance [H, S, R]``, its ``final [H, S]``, and the oracle ``calls [R]``."""

    distance: np.ndarray
    final: np.ndarray
    calls: np.ndarray


def played(
    config: Config, game: Game, method: Method, settings: Mapping[str, Any], seeds: Key, *,
    records: int, batch_size: int | None = None,
) -> Played:  # fmt: skip
    """Plays every setting on every seed within the budget."""
    steps, every = length(config, method.calls, records)
    settings = {name: np.asarray(values) for name, values in settings.items()}
    seen = games.sweep(
        game, method.make, settings, num_steps=steps, keys=seeds, record_every=every,
        batch_size=config.batch_size if batch_size is None else batch_size, measure=method.measure,
    )  # fmt: skip
    distance = np.asarray(seen.distance if has_distance(game) else seen.residual)
    return Played(distance, tail(distance), np.asarray(seen.oracle_calls[0, 0]))


def choose(final: np.ndarray) -> int:
    """The setting ``[H, S] -> index`` of the smallest mean log distance, with no seed that diverged if possible."""
    return int(np.argmin(score(final)))


def score(final: np.ndarray) -> np.ndarray:
    """``[H, S] -> [H]``: the mean log distance."""
    with np.errstate(divide="ignore"):
        return np.mean(np.log(final), axis=-1)


class Axis(NamedTuple):
    """The values of one parameter in a grid, rising; 0 among them is a bound, and so is `high`."""

    values: tuple[float, ...]
    high: float | None = None

    @property
    def step(self) -> float:
        """The typical ratio of neighbours."""
        above = [v for v in self.values if v > 0]
        return (above[-1] / above[0]) ** (1 / (len(above) - 1)) if len(above) > 1 else 3.0

    def end(self, value: float, reached: Sequence[float]) -> str:
        """Where a value lies among all that were reached: "", "lower", "upper", or "bound"."""
        if value == 0 or value == self.high:
            return "bound"
        return "lower" if value <= min(reached) else "upper" if value >= max(reached) else ""

    def beyond(self, end: str, reached: Sequence[float]) -> tuple[float, ...]:
        """As many values as the grid has, farther on at that end."""
        k = np.arange(1, len(self.values) + 1)
        if end == "lower":
            found = min(reached) * self.step ** -k[::-1].astype(float)
        elif self.high is None:
            found = max(reached) * self.step**k
        else:
            found = self.high - (self.high - max(reached)) * 0.5**k
        return tuple(float(f"{v:.6g}" if self.high else f"{v:.3g}") for v in found)

    def around(self, value: float, reached: Sequence[float]) -> tuple[float, ...]:
        """As many values as the grid has, between the neighbours of one; a bound stays among them."""
        reached = sorted(set(reached))
        at, count = reached.index(value), len(self.values)
        below = reached[at - 1] if at else value / self.step
        above = reached[at + 1] if at + 1 < len(reached) else value * self.step
        if value == 0:
            found = np.linspace(0, above, count + 1)[:-1]
        elif self.high is not None:
            found = np.linspace(below, min(above, self.high), count + 2 - (value == self.high))[1:]
            found = found[:count]
        elif below == 0:
            found = np.linspace(0, above, count + 2)[1:-1]
        else:
            found = np.geomspace(below, above, count + 2)[1:-1]
        return tuple(float(f"{v:.4g}") for v in found)


def axes_of(config: Config, method: Method) -> dict[str, Axis]:
    """The first grid of a method."""
    axes = {"lr": Axis(config.rates)}
    if method.second is not None:
        values = config.optimism if method.values is None else method.values
        axes[method.second] = Axis(tuple(values), method.high)
    return axes


def tune(config: Config, game: Game, name: str) -> dict[str, Any]:
    """Plays a grid on the tuning seeds, extends it where its best setting lies at an end, and refines it there.

    All grids have as many settings as the first one, so they share one compiled program.
    """
    method = METHODS[name]
    axes = axes_of(config, method)
    start = float(np.exp(np.mean(np.log(starts(config, game, "tuning")))))
    blocks: list[dict[str, np.ndarray]] = []
    finals: list[np.ndarray] = []

    def play_grid(values: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], float]:
        """Of all that was played so far, the best setting and its distance."""
        blocks.append(games.grid(**values))
        finals.append(
            played(config, game, method, blocks[-1], keys(config, "tuning"), records=40).final
        )
        best = choose(np.concatenate(finals))
        chosen = {k: float(np.concatenate([b[k] for b in blocks])[best]) for k in axes}
        return chosen, float(np.exp(score(np.concatenate(finals))[best]))

    def reached(parameter: str) -> list[float]:
        return np.concatenate([b[parameter] for b in blocks]).tolist()

    def ends() -> dict[str, str]:
        return {k: axis.end(chosen[k], reached(k)) for k, axis in axes.items()}

    chosen, distance = play_grid({k: axis.values for k, axis in axes.items()})
    extended = 0
    still = not distance < STANDS_STILL * start
    while not still and extended < EXTENSIONS and {"lower", "upper"} & set(ends().values()):
        holds = next(b for b in reversed(blocks) if all(chosen[k] in b[k] for k in axes))
        chosen, distance = play_grid(
            {
                k: axis.beyond(end, reached(k)) if end in ("lower", "upper")
                else sorted(set(holds[k].tolist()))
                for (k, axis), end in zip(axes.items(), ends().values(), strict=True)
            }
        )  # fmt: skip
        extended += 1
    if not still:
        chosen, _ = play_grid({k: axis.around(chosen[k], reached(k)) for k, axis in axes.items()})
    return {
        "settings": {k: np.concatenate([b[k] for b in blocks]) for k in axes},
        "final": np.concatenate(finals),
        "chosen": chosen,
        "ends": ends(),
        "extended": extended,
        "still": still,
    }


def compare(
    config: Config, game: Game, method: Method, setting: Mapping[str, float]
) -> dict[str, Any]:
    """Plays one setting on the fresh seeds."""
    settings = {k: [v] for k, v in setting.items()}
    seen = played(config, game, method, settings, keys(config, "comparison"), records=100)
    return {
        "setting": dict(setting),
        "calls": seen.calls,
        "distance": seen.distance[0],
        "final": seen.final[0],
    }


def _per_player(make, lr, **second):
    """Plain descent for x, the method at half its rate for y: the authors' quadratic-linear runs."""
    parts = {"x": optax.sgd(lr), "y": make(_LINEAR_PLAYER_RATE * lr, **second)}
    return optax.partition(parts, {"x": "x", "y": "y"})


#: One object per method, so that a sweep compiles once.
PER_PLAYER = {
    name: method._replace(make=partial(_per_player, method.make))
    for name, method in METHODS.items()
}


def published(config: Config, game: Game, game_name: str, name: str) -> dict[str, Any]:
    """The authors' settings of a method on the fresh seeds; empty where they have none."""
    rate = GAMES[game_name].published_rate
    method = PER_PLAYER[name] if game_name == "quadratic_linear" else METHODS[name]
    played = {}
    for label, value in method.published.items() if rate else ():
        setting = {"lr": rate} | ({method.second: value} if method.second else {})
        played[label] = compare(config, game, method, setting)
    return played


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
    result: dict[str, Any] = {"rates": rates, "optimism": optimism}
    for name, decay in EMA.items():
        final = played(
            config, game, METHODS[name], settings, keys(config, "study"), records=40
        ).final
        theory = radius(eigenvalues, settings["lr"], settings["optimism"], decay)
        shape = (len(rates), len(optimism))
        distance = np.exp(score(final))
        result[name] = {"distance": distance.reshape(shape), "radius": theory.reshape(shape)}
    return result


def equal(config: Config, game: Game) -> dict[str, Any]:
    """Both methods at the same effective optimism, each with a rate tuned for it, on the fresh seeds."""
    # With the 0, in which both are plain descent, the sweeps have the shape of those of the tuning.
    levels = np.asarray(config.optimism)
    shape = len(config.rates), len(levels)
    axis = Axis(config.rates)
    shown = np.flatnonzero(levels > 0)
    result: dict[str, Any] = {"levels": levels[shown]}
    for name, decay in EMA.items():
        method, seeds = METHODS[name], keys(config, "tuning")
        first = games.grid(lr=config.rates, optimism=levels * (1 - decay))
        final = [played(config, game, method, first, seeds, records=40).final]
        by_level = final[0].reshape(*shape, -1)
        best = [config.rates[choose(by_level[:, i])] for i in range(len(levels))]
        finer = np.stack([axis.around(rate, config.rates) for rate in best], axis=1)
        second = {"lr": finer.ravel(), "optimism": first["optimism"]}
        final.append(played(config, game, method, second, seeds, records=40).final)
        final = np.concatenate([f.reshape(*shape, -1) for f in final])
        rates = np.concatenate([first["lr"].reshape(shape), finer])
        chosen = {
            "lr": [rates[choose(final[:, i]), i] for i in range(len(levels))],
            "optimism": levels * (1 - decay),
        }
        seen = played(config, game, method, chosen, keys(config, "comparison"), records=100).final
        result[name] = {"final": seen[shown], "lr": np.asarray(chosen["lr"])[shown]}
    return result


_DECAYED = Method(_omega, "optimism")  # with the decay as a third setting


def decay_study(config: Config, game: Game, rate: float | None) -> dict[str, Any]:
    """Omega at every decay on the fresh seeds: the authors' settings, a tuned rate, rate and optimism tuned."""
    optimism = sorted({1.0, *config.optimism})
    grid = games.grid(decay=DECAYS, lr=config.rates, optimism=optimism)
    final = played(config, game, _DECAYED, grid, keys(config, "study"), records=40).final
    shape = (len(DECAYS), len(config.rates), len(optimism))
    final = final.reshape(*shape, -1)
    place = optimism.index(1.0)
    of_rate = [int(choose(f[:, place])) for f in final]
    of_both = [np.unravel_index(choose(f.reshape(-1, f.shape[-1])), shape[1:]) for f in final]
    curves = {
        "optimism 1, rate tuned": [(config.rates[i], 1.0) for i in of_rate],
        "rate and optimism tuned": [(config.rates[i], optimism[j]) for i, j in of_both],
    }
    if rate is not None:
        curves = {"optimism 1, rate of the authors": [(rate, 1.0)] * len(DECAYS)} | curves
    pairs = np.array([pair for curve in curves.values() for pair in curve])
    chosen = {
        "decay": np.tile(DECAYS, len(curves)), "lr": pairs[:, 0], "optimism": pairs[:, 1]
    }  # fmt: skip
    seen = played(config, game, _DECAYED, chosen, keys(config, "comparison"), records=100).final
    seen = seen.reshape(len(curves), len(DECAYS), -1)
    return {
        "decays": DECAYS,
        "curves": {label: f.T for label, f in zip(curves, seen, strict=True)},
        "optimism": [optimism[j] for _, j in of_both],
    }


def matrices(game: Game) -> dict[str, jax.Array]:
    """The matrices and linear terms of all samples of a linear game, ``[n, ...]`` each; those that are 0 left out."""
    flat, restore = ravel_pytree(jax.tree.map(jnp.zeros_like, game.saddle))

    def field(w, sample):
        return ravel_pytree(game.operator(restore(w), sample[None]))[0]

    samples = jnp.arange(game.num_samples)
    offset = jax.vmap(field, in_axes=(None, 0))(flat, samples)
    slope = jax.lax.map(lambda sample: jax.jacfwd(field)(flat, sample), samples)
    d = game.saddle["x"].size
    parts = {"a": offset[:, :d], "c": offset[:, d:], "A": slope[:, :d, :d], "B": slope[:, :d, d:],
             "C": slope[:, d:, d:]}  # fmt: skip
    return {name: part for name, part in parts.items() if name == "B" or bool(part.any())}


def in_minibatches(game: Game, parts: Mapping[str, jax.Array], size: int, largest: int) -> Game:
    """The linear game whose samples are minibatches of so many of its samples.

    Their matrices are averaged before they are used, for many steps at a time: a step of a large minibatch costs as
    much as one of a small minibatch, and all sizes share one compiled program.
    """
    weights = jnp.where(jnp.arange(largest) < size, 1 / size, 0.0)
    return game._replace(
        sample=Partial(_sample_mean, dict(parts), weights), operator=_field_of_mean, payoff=None
    )


def _sample_mean(parts: Mapping[str, Any], weights: Any, key: Key, batch_size: int) -> Any:
    del batch_size
    count = parts["B"].shape[0]
    drawn = jax.random.randint(key, weights.shape, 0, count)
    share = jnp.zeros(count).at[drawn].add(weights)
    return {name: jnp.tensordot(share, part, 1) for name, part in parts.items()}


def _field_of_mean(players: Any, mean: Mapping[str, Any]) -> Any:
    x, y = players["x"], players["y"]
    field = {"x": mean["B"] @ y, "y": -(x @ mean["B"])}
    for name, player, other in (("A", "x", x), ("C", "y", y)):
        if name in mean:
            field[player] += mean[name] @ other
    for name, player in (("a", "x"), ("c", "y")):
        if name in mean:
            field[player] += mean[name]
    return field


def batch_study(
    config: Config, game: Game, names: Sequence[str], *, linear: bool
) -> dict[str, Any]:
    """Every batch size with settings tuned for it, out of the first grid; fresh seeds."""
    result: dict[str, Any] = {"batches": config.batches}
    # What is played, and the size that it is told.
    of_size = {size: (game, size) for size in config.batches}
    if linear and game.num_samples is not None:
        parts, largest = matrices(game), max(config.batches)
        of_size = {size: (in_minibatches(game, parts, size, largest), 1) for size in of_size}
    fresh = keys(config, "comparison")[:BATCH_SEEDS]
    for name in names:
        method, finals = METHODS[name], []
        grid = games.grid(**{k: axis.values for k, axis in axes_of(config, method).items()})
        for one, size in of_size.values():
            final = played(
                config, one, method, grid, keys(config, "study"), records=40, batch_size=size
            ).final
            best = choose(final)
            setting = {k: v[best : best + 1] for k, v in grid.items()}
            seen = played(config, one, method, setting, fresh, records=100, batch_size=size)
            finals.append(seen.final[0])
        result[name] = np.stack(finals, axis=1)
    return result


# --------------------------------------------------------------------------------------------------------------------
# The run.


class Log:
    """What was computed, a record each; what is there already is not computed again. Threads may share it."""

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file
        self.done = {tuple(r["of"]): r for r in records_lib.read(file)}
        self.lock = threading.Lock()

    def get(self, *of: str, compute: Callable[[], Any]) -> Any:
        """The record of that name, computed if it is missing."""
        if of not in self.done:
            begun = time.perf_counter()
            value = compute()
            # As it will be read again, so that a resumed run sees the same numbers.
            record = records_lib.loads(records_lib.dumps({"value": value}))
            with self.lock:
                records_lib.append(self.file, {"of": list(of), "value": value})
                print(f"{' '.join(of)}: {time.perf_counter() - begun:.1f} s", file=sys.stderr)
                self.done[of] = record
        return self.done[of]["value"]


class Built:
    """The games of a run, each built when it is first played."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.games: dict[str, Game] = {}
        self.lock = threading.Lock()

    def __getitem__(self, name: str) -> Game:
        with self.lock:
            if name not in self.games:
                self.games[name] = build(self.config, name)
            return self.games[name]


def run(config: Config) -> int:
    """Everything, from the flags to the page; gives the exit code."""
    check(config)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in NOT_OF_THE_RUN}
    with runs.opened(config, settings, 50_000_000) as folder:
        result = play_all(config, Log(folder / "records.jsonl"))
        stochastic_games_report.write(folder, settings, result)
    return 0


def play_all(config: Config, log: Log) -> dict[str, Any]:
    """All numbers of a run, out of the log or played."""
    names = config.games or SUITES[config.suite]
    built = Built(config)
    result: dict[str, Any] = {"start": {}, "tuned": {}, "compared": {}, "published": {}}
    result["unsolved"] = [name for name in names if not GAMES[name].solved]
    for game in names:
        result["start"][game] = log.get(
            "start", game, compute=lambda game=game: starts(config, built[game], "comparison")
        )

    def method_on_game(game: str, name: str) -> None:
        at = game, name
        tuned = log.get("tune", *at, compute=lambda: tune(config, built[game], name))
        result["tuned"][at] = tuned
        result["compared"][at] = log.get(
            "compare", *at,
            compute=lambda: compare(config, built[game], METHODS[name], tuned["chosen"]),
        )  # fmt: skip
        result["published"][at] = log.get(
            "published", *at, compute=lambda: published(config, built[game], game, name)
        )

    def study(kind: str, *of: str, compute: Callable[[], Any]) -> tuple[tuple[str, ...], Any]:
        return (kind, *of), log.get(kind, *of, compute=compute)

    linear = [name for name in names if GAMES[name].linear]
    first = linear[0] if linear else names[0]
    with futures.ThreadPoolExecutor(config.workers) as pool:
        jobs = [
            pool.submit(method_on_game, game, name) for game in names for name in config.optimizers
        ]
        studies = []
        for game in names:
            # Not one study after the other: two of a kind would compile the same program at the same time.
            if "equal" in config.studies and set(EMA) <= set(config.optimizers):
                studies.append(
                    pool.submit(
                        study, "equal", game, compute=lambda game=game: equal(config, built[game])
                    )
                )
            if "decay" in config.studies:
                studies.append(
                    pool.submit(
                        study, "decay", game,
                        compute=lambda game=game: decay_study(
                            config, built[game], GAMES[game].published_rate
                        ),
                    )
                )  # fmt: skip
        if "stability" in config.studies and linear:
            studies.append(
                pool.submit(study, "stability", first, compute=lambda: stability(config, built[first]))
            )  # fmt: skip
        if "batch" in config.studies:
            shown = [name for name in EMA if name in config.optimizers]
            studies.append(
                pool.submit(
                    study,
                    "batch",
                    first,
                    compute=lambda: batch_study(config, built[first], shown, linear=bool(linear)),
                )
            )
        # In this order, so that the first thing that went wrong is the one that is raised.
        for job in jobs:
            job.result()
        if "paths" in config.studies and linear:
            studies += [
                pool.submit(
                    study, "path", first, name,
                    compute=lambda name=name: path(
                        config, built[first], METHODS[name].make,
                        result["tuned"][first, name]["chosen"], METHODS[name].calls,
                    ),
                )
                for name in config.optimizers
                if METHODS[name].measure is None
            ]  # fmt: skip
        found = dict(job.result() for job in studies)
    for at in [(game, name) for game in names for name in config.optimizers]:
        for part in ("tuned", "compared", "published"):
            result[part][at] = result[part].pop(at)  # in the order of the flags, whoever was first
    for kind in ("equal", "decay"):
        result[kind] = {of[1]: value for of, value in found.items() if of[0] == kind}
    result["paths"] = {of[2]: value for of, value in found.items() if of[0] == "path"}
    for kind in ("stability", "batch"):
        result[kind] = found.get((kind, first))
    result["first"] = first
    return result


main = runs.entry(run, "stochastic_games")


if __name__ == "__main__":
    # Compiling takes about as long as playing. At this level it takes half as long, and the steps are as fast: their
    # products are library calls.
    os.environ["XLA_FLAGS"] = (
        f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"
    )
    app.run(main, flags_parser=flags.parser(Config, prog="stochastic_games"))
