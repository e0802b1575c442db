"""Methods compared at an equal price: a budget of oracle calls, and the distance at the end of it.

One evaluation of a minibatch's field is an oracle call. A method that needs two per step makes half as many steps.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfair.games._game import Game, Skeleton, distance, join, residual, split
from jaxfair.games._methods import Method
from jaxfair.games._suite import SETUPS
from jaxfair.games.sweep import sweep
from jaxfair.typing import Key


class Played(NamedTuple):
    """Settings on seeds, as :meth:`Contest.play` played them.

    Attributes:
      distance: ``[H, S, R]`` to the solution along the run; the norm of the mean field where no solution is known.
      final: ``[H, S]`` at the end: see :func:`tail`.
      calls: ``[R]`` the oracle calls at each record.
    """

    distance: np.ndarray
    final: np.ndarray
    calls: np.ndarray


def tail(distance: Any) -> np.ndarray:
    """``[..., R] -> [...]``: the geometric mean over the last tenth of the records; inf where one is not finite.

    Example:
      >>> tail(np.array([[8.0, 4.0, 2.0], [1.0, 10.0, np.nan]]))
      array([ 2., inf])
    """
    last = np.asarray(distance, np.float64)[..., -max(1, np.shape(distance)[-1] // 10) :]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = np.exp(np.mean(np.log(np.maximum(last, 1e-30)), axis=-1))
    return np.where(np.isfinite(value), value, np.inf)


def mean_log(final: Any) -> np.ndarray:
    """``[H, S] -> [H]``: the mean over seeds of the logarithm; inf where a seed diverged, so that it is never chosen.

    Example:
      >>> mean_log(np.array([[1.0, np.e], [0.1, np.inf]]))
      array([0.5, inf])
    """
    with np.errstate(divide="ignore"):
        return np.mean(np.log(final), axis=-1)


def outcome(start: Any, final: Any) -> dict[str, Any]:
    """What is recorded of a seed: the distances at both ends, and the logarithm, whose differences are ratios.

    Example:
      >>> outcome(2.0, 1.0)["log_distance"].item()
      0.0
    """
    return {"start": start, "final": final, "log_distance": np.log(final)}


def _has_distance(game: Game) -> bool:
    return game.saddle is not None or game.distance is not None


@partial(jax.jit, static_argnames="skeleton")
def _starts(arrays: Any, keys: Key, *, skeleton: Skeleton) -> Any:
    game = join(arrays, skeleton)
    measure = distance if _has_distance(game) else residual

    def start(key: Key) -> Any:
        # The first of the keys that `play` makes.
        return measure(game, game.init(jax.random.split(key, 3)[0]))

    return jax.vmap(start)(keys)


class Contest(NamedTuple):
    """The rules of a comparison: the same games, minibatches, seeds and price for every method.

    Attributes:
      budget: oracle calls that each method may make.
      seeds: how many there are for each role, such as ``{"tuning": 4, "comparison": 20}``. Those of one role are no
        seeds of another, and a role with more of them begins with the same ones.
      batch_size: samples per minibatch.
      dim: the size of each player, of a game that has one.
      num_samples: of a game that has them.
      max_steps: at most so many steps, however many the budget pays for; 0 for no such bound.
      seed: the key that games and seeds are folded from.

    Example:
      Extragradient makes half as many steps:

      >>> from jaxfair import games
      >>> contest = Contest(budget=40, seeds={"comparison": 4}, dim=2, num_samples=3)
      >>> game, method = contest.build("bilinear"), games.METHODS["extragradient"]
      >>> seen = contest.play(game, method, {"lr": [0.1], "extrapolation": [1.0]}, "comparison", records=5)
      >>> seen.calls.tolist(), seen.final.shape
      ([8, 16, 24, 32, 40], (1, 4))
    """

    budget: int
    seeds: Mapping[str, int]
    batch_size: int = 1
    dim: int = 100
    num_samples: int = 100
    max_steps: int = 0
    seed: int = 0

    def build(self, name: str) -> Game:
        """A game of ``games.SETUPS``, the same one whenever these rules are."""
        key = jax.random.fold_in(jax.random.key(self.seed), 0)
        return SETUPS[name].build(key, dim=self.dim, num_samples=self.num_samples)

    def length(self, method: Method, records: int) -> tuple[int, int]:
        """``(num_steps, record_every)``; a few records more than asked for where the steps are not divisible."""
        steps = self.budget // method.calls
        if self.max_steps:
            steps = min(steps, self.max_steps)
        every = max(1, steps // records)
        return steps // every * every, every

    def keys(self, role: str) -> Key:
        """``[S]`` of the seeds of a role."""
        place = 1 + list(self.seeds).index(role)
        key = jax.random.fold_in(jax.random.key(self.seed), place)
        return jax.random.split(key, self.seeds[role])

    def starts(self, game: Game, role: str) -> np.ndarray:
        """``[S]``: how far from the solution the seeds start; the norm of the mean field where no solution is known."""
        arrays, skeleton = split(game)
        return np.asarray(_starts(arrays, self.keys(role), skeleton=skeleton))

    def play(
        self,
        game: Game,
        method: Method,
        settings: Mapping[str, Any],
        role: str,
        *,
        records: int = 40,
    ) -> Played:
        """Every setting of a method on every seed of a role, within the budget.

        Args:
          game: any.
          method: one of ``games.METHODS``, or one's own.
          settings: ``name -> [H]``, zipped, as in :func:`jaxfair.games.sweep`.
          role: whose seeds play.
          records: of the distance, about.

        Returns:
          The distances.
        """
        steps, every = self.length(method, records)
        seen = sweep(
            game,
            method.make,
            {name: np.asarray(values) for name, values in settings.items()},
            num_steps=steps,
            keys=self.keys(role),
            record_every=every,
            batch_size=self.batch_size,
            measure=method.measure,
        )
        found = np.asarray(seen.distance if _has_distance(game) else seen.residual)
        return Played(found, tail(found), np.asarray(seen.oracle_calls[0, 0]))

    def compare(self, game: Game, method: Method, setting: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
        """One setting of a method on the seeds of a role: what is recorded of each seed.

        Args:
          game: any.
          method: one of ``games.METHODS``, or one's own.
          setting: ``name -> number``.
          role: whose seeds play.

        Returns:
          A dict per seed: ``start`` and ``final`` distance, ``log_distance`` (of the final one), and along the run
          ``calls`` and ``distance``.
        """
        seen = self.play(game, method, {k: [v] for k, v in setting.items()}, role, records=100)
        return [
            outcome(start, final) | {"calls": seen.calls, "distance": distance}
            for start, final, distance in zip(self.starts(game, role), seen.final[0], seen.distance[0], strict=True)
        ]
