"""A grid of settings that is extended where its best setting lies at an end, and then refined around the best.

A fixed grid decides what is compared: a method whose best rate lies outside of it looks worse than it is. Here every
method may go where it wants, at the same price:

1. play the first grid;
2. as long as the best setting so far lies at an end of an axis, play another grid beyond that end, at most twice;
3. play a last grid between the neighbours of the best setting.

All grids have as many settings as the first one, so that a program which plays a grid is compiled once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Axis(NamedTuple):
    """The values of one parameter in a grid.

    Attributes:
      values: rising. A 0 among them is a bound.
      high: a bound above, which is reached where it stands among the values; None for no bound.

    Example:
      >>> rates = Axis((0.01, 0.1))
      >>> rates.beyond("upper", rates.values), rates.around(0.1, rates.values)
      ((1.0, 10.0), (0.04642, 0.2154))
    """

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
        """As many values as the axis has, farther on at that end."""
        k = np.arange(1, len(self.values) + 1)
        if end == "lower":
            found = min(reached) * self.step ** -k[::-1].astype(float)
        elif self.high is None:
            found = max(reached) * self.step**k
        else:
            found = self.high - (self.high - max(reached)) * 0.5**k
        return tuple(float(f"{v:.6g}" if self.high else f"{v:.3g}") for v in found)

    def around(self, value: float, reached: Sequence[float]) -> tuple[float, ...]:
        """As many values as the axis has, between the neighbours of one; a bound stays among them."""
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


class Tuned(NamedTuple):
    """What tuning found; made by :func:`tune`.

    Attributes:
      settings: of all settings that were played, ``name -> [H]``.
      results: ``[H, ...]`` what was returned of them.
      chosen: the best setting, ``name -> value``.
      ends: for each name, where its value lies among all that were reached: "" inside, "lower" or "upper" at an end,
        "bound" at a bound of the parameter.
      extended: how many grids were played beyond an end.
      still: whether no setting of the first grid was any good, so that nothing else was played.
    """

    settings: dict[str, np.ndarray]
    results: np.ndarray
    chosen: dict[str, float]
    ends: dict[str, str]
    extended: int
    still: bool

    def words(self) -> str:
        """The best setting with its marks: ``°`` at a bound, ``*`` at an end of what was tried, ``†`` nothing was good.

        Example:
          >>> axes = {"rate": Axis((0.01, 0.1)), "optimism": Axis((0.0, 1.0))}
          >>> tune(axes, lambda settings: settings["optimism"] - settings["rate"]).words()
          'rate 2.15e+03*, optimism 0°'
        """
        mark = {"lower": "*", "upper": "*", "bound": "°", "": ""}
        mark = dict.fromkeys(mark, "") if self.still else mark
        said = [f"{k} {v:.3g}{mark[self.ends[k]]}" for k, v in self.chosen.items()]
        return ", ".join(said) + ("†" if self.still else "")


def tune(
    axes: Mapping[str, Axis],
    play: Callable[[dict[str, np.ndarray]], Any],
    *,
    score: Callable[[np.ndarray], Any] = np.asarray,
    good: float = np.inf,
    extensions: int = 2,
) -> Tuned:
    """Plays grids until the best setting lies inside of them.

    Args:
      axes: the first grid: for each parameter its axis.
      play: of settings ``name -> [H]``, zipped, gives a result for each: ``[H, ...]``.
      score: of results ``[H, ...]`` gives ``[H]`` numbers, the smallest of which is best and nan the worst; by default
        they are that.
      good: a score that the first grid must come below; otherwise it is left as it is.
      extensions: how many grids may be played beyond an end.

    Returns:
      What was played, and the best of it.

    Example:
      The best rate, 0.5, lies outside of the first grid:

      >>> found = tune({"rate": Axis((0.01, 0.1))}, lambda settings: abs(np.log(settings["rate"] / 0.5)))
      >>> found.settings["rate"].tolist(), found.chosen, found.extended
      ([0.01, 0.1, 1.0, 10.0, 0.4642, 2.154], {'rate': 0.4642}, 1)
    """
    blocks: list[dict[str, np.ndarray]] = []
    results: list[np.ndarray] = []

    def play_grid(values: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], float]:
        """Of all that was played so far, the best setting and its score."""
        columns = np.meshgrid(*map(np.asarray, values.values()), indexing="ij")
        blocks.append({k: column.ravel() for k, column in zip(values, columns, strict=True)})
        results.append(np.asarray(play(blocks[-1])))
        scores = np.asarray(score(np.concatenate(results)), float)
        scores = np.where(np.isnan(scores), np.inf, scores)  # a play that failed, which argmin would take for the best
        best = int(np.argmin(scores))
        chosen = {k: float(np.concatenate([b[k] for b in blocks])[best]) for k in axes}
        return chosen, float(scores[best])

    def reached(parameter: str) -> list[float]:
        return np.concatenate([b[parameter] for b in blocks]).tolist()

    def ends() -> dict[str, str]:
        return {k: axis.end(chosen[k], reached(k)) for k, axis in axes.items()}

    chosen, best = play_grid({k: axis.values for k, axis in axes.items()})
    extended, still = 0, not best < good
    while not still and extended < extensions and {"lower", "upper"} & set(ends().values()):
        holds = next(b for b in reversed(blocks) if all(chosen[k] in b[k] for k in axes))
        farther = {}
        for (k, axis), end in zip(axes.items(), ends().values(), strict=True):
            inside = sorted(set(holds[k].tolist()))
            farther[k] = axis.beyond(end, reached(k)) if end in ("lower", "upper") else inside
        chosen, _ = play_grid(farther)
        extended += 1
    if not still:
        chosen, _ = play_grid({k: axis.around(chosen[k], reached(k)) for k, axis in axes.items()})
    settings = {k: np.concatenate([b[k] for b in blocks]) for k in axes}
    return Tuned(settings, np.concatenate(results), chosen, ends(), extended, still)
