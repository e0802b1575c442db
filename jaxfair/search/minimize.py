"""A search over settings that are played outside of a compiled program: trainings, say, several side by side."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.search import local, space
from jaxfair.search.pseudo_bayes import pseudo_bayes
from jaxfair.typing import Key


class Searched(NamedTuple):
    """What a search found; made by `minimize`.

    Attributes:
      settings: of all that were played, in their order, ``name -> [H]``.
      values: ``[H]`` as they were played; what is not finite failed.
      excess: ``[H]``, at most 0 where a setting is allowed; all 0 where nothing bounds them.
      row: of the best setting: the least value among those allowed, or the least excess, where nobody is.
      met: whether it is allowed.
      chosen: it, ``name -> value``.
    """

    settings: dict[str, np.ndarray]
    values: np.ndarray
    excess: np.ndarray
    row: int
    met: bool
    chosen: dict[str, Any]

    def words(self) -> str:
        """The best setting, and what it was worth.

        Example:
          >>> found = minimize({"x": space.Real(0, 1)}, lambda s: (s["x"] - 0.5) ** 2, budget=4, key=jax.random.key(0))
          >>> found.words()
          'x 0..., 4 settings played'
        """
        said = [f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}" for name, v in self.chosen.items()]
        said.append(f"{len(self.values)} settings played")
        failed = np.sum(~np.isfinite(self.values + self.excess))
        return ", ".join([*said, f"{failed} of them failed"] if failed else said)


def best_row(values: np.ndarray, excess: np.ndarray) -> tuple[int, bool]:
    """The row of the best setting, and whether it is allowed: the rule of `pseudo_bayes`, in float64.

    The least value among those allowed; where none is, the least excess, and of those the least value.

    Example:
      >>> best_row(np.array([3.0, 1.0, np.nan, 2.0]), np.array([0.0, 0.5, 0.0, 0.0]))
      (3, True)
    """
    finite = np.isfinite(values) & np.isfinite(excess)
    if not finite.any():
        return 0, False
    excess = np.where(finite, np.maximum(excess, 0.0), np.inf)
    order = np.lexsort((np.where(finite, values, np.inf), excess))
    return int(order[0]), bool(excess[order[0]] <= 0)


def minimize(
    over: space.Space,
    play: Callable[[dict[str, np.ndarray]], Any],
    *,
    budget: int,
    key: Key,
    batch: int = 1,
    constrained: bool = False,
    noise: float = 0.0,
    start: Mapping[str, Any] | None = None,
    first: int | None = None,
    rule: local.Rule = local.kriging,
) -> Searched:
    """Searches settings by `pseudo_bayes`: the ones whose value is least.

    Args:
      over: the settings, ``name -> Real | Integer | Choice``.
      play: of settings ``name -> [Q]``, zipped, gives their values ``[Q]``; a pair of values and excess where
        ``constrained``. A value that is not finite says that this play failed.
      budget: how many settings are played.
      key: of the first design and the candidates.
      batch: how many are played side by side.
      constrained: whether an excess above 0 forbids a setting.
      noise: deviation of a value when it is played again, in deviations of all values; 0.1 is a guess for means over a
        few seeds.
      start: settings to play first, ``name -> [Q]``: the ones in use.
      first: as of `pseudo_bayes`.
      rule: as of `pseudo_bayes`.

    Returns:
      The `Searched`.

    Raises:
      ValueError: for bounds, a budget or values that cannot be, before or as soon as something is played.

    Example:
      >>> over = {"rate": space.Real(1e-4, 1.0, log=True), "optimizer": space.Choice(("sgd", "adam"))}
      >>> def loss(settings):
      ...     best = np.where(settings["optimizer"] == "adam", 1e-3, 1e-1)
      ...     return np.log10(settings["rate"] / best) ** 2 + (settings["optimizer"] == "sgd")
      >>> found = minimize(over, loss, budget=24, key=jax.random.key(0))
      >>> found.chosen["optimizer"], bool(3e-4 < found.chosen["rate"] < 3e-3)
      ('adam', True)
    """
    space.check(over)
    dimension = sum(space.widths(over))
    begun = space.encoded(over, start) if start else np.zeros((0, dimension))
    if len(begun) > budget:
        raise ValueError(f"budget={budget}: below the {len(begun)} settings of start=")
    if first is None:
        first = max(1, min(2 * dimension + 2, budget - len(begun)))
    ask, tell, init = _compiled(
        tuple(map(_shape_of, over.values())), budget, batch, min(len(begun) + first, budget), rule, noise, constrained
    )
    told = init(jax.random.fold_in(key, 0))
    given = {name: space.column((start or {})[name]) for name in over} if len(begun) else {}
    points, values, excess, settings = [], [], [], {name: [] for name in over}
    while (count := sum(map(len, points))) < budget:
        if count < len(begun):
            x = begun[count : count + batch]
            played = {name: column[count : count + batch] for name, column in given.items()}
        else:
            x = np.asarray(ask(told, jax.random.fold_in(key, 1 + count)))[: budget - count]
            played = space.decoded(over, x)
        y, over_by = _results(play(played), len(x), constrained)
        for held, new in ((points, x), (values, y), (excess, over_by), *((settings[k], played[k]) for k in over)):
            held.append(new)
        # Less the first, since float32 sees no small differences of large sums.
        known = np.concatenate(values)
        level = next(iter(known[np.isfinite(known)]), 0.0)
        told = tell(told, *(jnp.asarray(part, jnp.float32) for part in (x, y - level, over_by)))
    found = np.concatenate(values), np.concatenate(excess)
    row, met = best_row(*found)
    columns = {name: np.concatenate(parts) for name, parts in settings.items()}
    return Searched(columns, *found, row, met, setting_of(columns, row))


def setting_of(settings: Mapping[str, np.ndarray], row: int) -> dict[str, Any]:
    """One of several settings, as Python's numbers.

    Example:
      >>> setting_of({"rate": np.array([0.1, 0.2]), "optimizer": np.array(["sgd", "adam"])}, 1)
      {'rate': 0.2, 'optimizer': 'adam'}
    """
    picked = {name: column[row] for name, column in settings.items()}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in picked.items()}


def _shape_of(setting: space.Real | space.Integer | space.Choice) -> space.Real | space.Integer | space.Choice:
    """What the cube knows of a setting: searches over settings of the same kinds are one program."""
    if isinstance(setting, space.Choice):
        return space.Choice(tuple(range(len(setting.values))))
    return space.Integer(0, setting.high - setting.low) if isinstance(setting, space.Integer) else space.Real(0, 1)


@functools.lru_cache(maxsize=16)
def _compiled(
    shapes: tuple[Any, ...], budget: int, batch: int, first: int, rule: local.Rule, noise: float, constrained: bool
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    over = {str(number): shape for number, shape in enumerate(shapes)}
    search = pseudo_bayes(
        sum(space.widths(over)), budget, batch=batch, first=first, rule=rule, noise=noise, constrained=constrained,
        snap=functools.partial(space.snapped, over), jumps=space.jumps(over),
    )  # fmt: skip
    return jax.jit(search.ask), jax.jit(search.tell), search.init


def _results(found: Any, count: int, constrained: bool) -> tuple[np.ndarray, np.ndarray]:
    if constrained and not (isinstance(found, tuple) and len(found) == 2):
        raise ValueError("play gave no pair of values and excess: constrained=True asks for both")
    pair = found if constrained else (found, np.zeros(count))
    value, excess = (np.asarray(part, np.float64) for part in pair)
    for name, part in (("values", value), ("excess", excess)):
        if part.shape != (count,):
            raise ValueError(f"play gave {name} of shape {part.shape} for {count} settings: one number for each")
    return value, excess
