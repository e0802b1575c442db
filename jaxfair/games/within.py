"""Methods compared at an equal price: a budget of oracle calls, and the distance at the end of it.

One evaluation of a minibatch's field is an oracle call. A method that needs two per step makes half as many steps.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfair.games._game import Game, distance, residual
from jaxfair.games._methods import Method
from jaxfair.games.sweep import sweep
from jaxfair.typing import Key


class Played(NamedTuple):
    """Settings on seeds, as :func:`within` played them.

    Attributes:
      distance: ``[H, S, R]`` to the solution along the run; the norm of the mean field where no solution is known.
      final: ``[H, S]`` at the end: see :func:`tail`.
      calls: ``[R]`` the oracle calls at each record.
    """

    distance: np.ndarray
    final: np.ndarray
    calls: np.ndarray


def length(*, budget: int, calls: int, records: int, max_steps: int = 0) -> tuple[int, int]:
    """``(num_steps, record_every)`` of a method within a budget.

    Args:
      budget: oracle calls.
      calls: oracle calls per step.
      records: how many are wanted; there are a few more where the steps are not divisible.
      max_steps: at most so many, however many the budget pays for; 0 for no such bound.

    Example:
      >>> length(budget=1000, calls=1, records=100), length(budget=1000, calls=2, records=100)
      ((1000, 10), (500, 5))
    """
    steps = budget // calls
    if max_steps:
        steps = min(steps, max_steps)
    every = max(1, steps // records)
    return steps // every * every, every


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


def starts(game: Game, keys: Key) -> np.ndarray:
    """``[S]``: how far from the solution the seeds start; the norm of the mean field where no solution is known.

    Args:
      game: any.
      keys: ``[S]`` as those of `sweep`.

    Example:
      >>> from jaxfair import games
      >>> game = games.SETUPS["dirac_gan"].build(jax.random.key(0))
      >>> starts(game, jax.random.split(jax.random.key(1), 3)).shape
      (3,)
    """
    measure = distance if _has_distance(game) else residual

    def start(key: Key) -> Any:
        # The first of the keys that `play` makes.
        return measure(game, game.init(jax.random.split(key, 3)[0]))

    return np.asarray(jax.jit(jax.vmap(start))(keys))


def _has_distance(game: Game) -> bool:
    return game.saddle is not None or game.distance is not None


def within(
    game: Game,
    method: Method,
    settings: Mapping[str, Any],
    *,
    budget: int,
    keys: Key,
    batch_size: int = 1,
    records: int = 100,
    max_steps: int = 0,
) -> Played:
    """Plays every setting of a method on every seed within a budget of oracle calls.

    Args:
      game: any.
      method: one of ``games.METHODS``, or one's own.
      settings: ``name -> [H]``, zipped, as in :func:`jaxfair.games.sweep`.
      budget: oracle calls.
      keys: ``[S]``, one per seed.
      batch_size: samples per minibatch.
      records: of the distance, about.
      max_steps: at most so many; 0 for no such bound.

    Returns:
      The distances.

    Example:
      Extragradient makes half as many steps:

      >>> from jaxfair import games
      >>> game = games.SETUPS["bilinear"].build(jax.random.key(0), dim=2, num_samples=3)
      >>> keys = jax.random.split(jax.random.key(1), 4)
      >>> setting = {"lr": [0.1], "extrapolation": [1.0]}
      >>> seen = within(game, games.METHODS["extragradient"], setting, budget=40, keys=keys, records=5)
      >>> seen.calls.tolist(), seen.final.shape
      ([8, 16, 24, 32, 40], (1, 4))
    """
    steps, every = length(budget=budget, calls=method.calls, records=records, max_steps=max_steps)
    seen = sweep(
        game,
        method.make,
        {name: np.asarray(values) for name, values in settings.items()},
        num_steps=steps,
        keys=keys,
        record_every=every,
        batch_size=batch_size,
        measure=method.measure,
    )
    found = np.asarray(seen.distance if _has_distance(game) else seen.residual)
    return Played(found, tail(found), np.asarray(seen.oracle_calls[0, 0]))
