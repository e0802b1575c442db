"""How training went: gaps and multipliers over epochs, a column per method."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxfair.report.figures.style import (
    DARK,
    GREY,
    NARROW,
    WIDTH,
    Look,
    bound_line,
    looks,
    new_figure,
    shorten,
    style,
)


class Trajectory(NamedTuple):
    """One method's training.

    Attributes:
      excess: ``[T, G]`` excess accuracy gaps after each recorded epoch, as shares.
      multipliers: ``[T, G]``, or None for a method without any.
    """

    excess: Any
    multipliers: Any = None


def trajectories(
    epochs: Shaped[ArrayLike, "T"],
    results: Mapping[str, Trajectory],
    *,
    tolerance: ArrayLike | None = None,
    pruning_end: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    highlight: int = 4,
    narrow: bool = False,
) -> Any:
    r"""Excess gaps above, multipliers below; thin lines are groups, the thick one is the largest gap.

    Args:
      epochs: ``[T]``.
      results: a :class:`Trajectory` per method, a column each.
      tolerance: the bound, a share.
      pruning_end: the epoch at which pruning ended, marked by a vertical line.
      names: ``[G]`` of the groups, for the legend.
      highlight: how many groups have a colour and a name: those with the largest mean gap over all
        methods and epochs. The others are grey.
      narrow: for a screen of 400 pixels: methods below each other.

    Returns:
      A ``matplotlib.figure.Figure``. The row of multipliers is left out if no method has any.

    Example:
      >>> import numpy as np
      >>> path = Trajectory(excess=np.zeros((3, 2)), multipliers=np.ones((3, 2)))
      >>> figure = trajectories(np.arange(3), {"ceag": path}, tolerance=0.01, names=["a", "b"])
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['excess accuracy\ngap (points)', 'multiplier']
    """
    epochs = np.asarray(epochs)
    excess = {name: 100 * np.asarray(path.excess, float) for name, path in results.items()}
    multipliers = {
        name: np.asarray(path.multipliers, float) for name, path in results.items() if path.multipliers is not None
    }
    groups = next(iter(excess.values())).shape[1]
    mean = np.mean([np.nan_to_num(path).mean(0) for path in excess.values()], axis=0)
    worst = np.argsort(-mean, kind="stable")[:highlight]
    labels = [str(g) for g in range(groups)] if names is None else list(names)
    look = looks([labels[g] for g in worst])
    named = {int(g): (shorten(labels[g], 32), look[labels[g]]) for g in worst}
    groups_shown, others = {}, {}

    with style():
        rows, columns = 2 if multipliers else 1, len(results)
        figure, grid = _grid(rows, [name in multipliers for name in results], narrow)
        for column, name in enumerate(results):
            top = grid[0, column]
            _draw_groups(top, epochs, excess[name], named, groups_shown, others)
            others["largest gap"] = _draw_largest(top, epochs, excess[name])
            top.set_title(name)
            top.axhline(0, color="#b0b0b0", linewidth=0.8, zorder=0.5)
            if tolerance is not None:
                line = bound_line(top, 100 * np.asarray(tolerance, float).item(), axis="y")
                others[line.get_label()] = line
            own = [axes for axes in grid[:, column] if axes is not None]
            for axes in own:
                axes.grid(color="#e6e6e6", linewidth=0.6)
                if pruning_end is not None:
                    others["pruning ends"] = axes.axvline(pruning_end, color=DARK, linestyle=":", linewidth=1)
            if rows == 2 and name in multipliers:
                axes = grid[1, column]
                _draw_groups(axes, epochs, multipliers[name], named, groups_shown, others)
            elif len(own) == 2:
                _leave_empty(grid[1, column], top)
            own[-1].set_xlabel("epoch")
            if narrow or column == 0:
                top.set_ylabel("excess accuracy\ngap (points)")
        axes_of = [c for c, name in enumerate(results) if name in multipliers] if rows == 2 else []
        for column in axes_of if narrow else axes_of[:1]:
            grid[1, column].set_ylabel("multiplier")
            grid[1, column].tick_params(labelleft=True)
        handles = groups_shown | others
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=1 if narrow else min(columns + (columns < 3), 4, len(handles)),
        )
    return figure


def _grid(rows: int, below: Sequence[bool], narrow: bool) -> tuple[Any, np.ndarray]:
    """A figure with axes ``[rows, columns]``: a column per method, on a narrow screen one below the other.

    Args:
      rows: gaps, and multipliers.
      below: which methods have multipliers; a narrow screen has no place for the others' (None).
      narrow: whether the screen is.
    """
    columns = len(below)
    if not narrow:
        figure = new_figure(width=max(WIDTH, min(2.4 * columns + 0.4, 9.6)), height=1.0 + 1.85 * rows)
        return figure, figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    count = columns + (rows - 1) * sum(below)
    figure = new_figure(width=NARROW, height=2.2 + 1.75 * count)
    all_axes = iter(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    grid = np.full((rows, columns), None, object)
    for column, more in enumerate(below):
        for row in range(rows if more else 1):
            grid[row, column] = next(all_axes)
    return figure, grid


def _draw_groups(
    axes: Any,
    epochs: np.ndarray,
    paths: np.ndarray,
    named: Mapping[int, tuple[str, Look]],
    groups: dict[str, Any],
    others: dict[str, Any],
) -> None:
    """A line per group, grey for those without a name; the lines are noted for the legend."""
    for g in np.setdiff1d(np.arange(paths.shape[1]), list(named)):
        # As pixels where they are many: a hundred outlines of lines make a heavy file.
        pixels = {"alpha": 0.6, "rasterized": paths.shape[1] > 30}
        (line,) = axes.plot(epochs, paths[:, g], color=GREY, linewidth=0.6, **pixels)
        others["other groups"] = line
    for g, (name, look) in named.items():
        dashes = {"linestyle": look.line, "linewidth": 1.3}
        (groups[name],) = axes.plot(epochs, paths[:, g], color=look.color, zorder=2.5, **dashes)


def _draw_largest(axes: Any, epochs: np.ndarray, paths: np.ndarray) -> Any:
    largest = np.where(np.isnan(paths), -np.inf, paths).max(1)
    largest = np.where(np.isinf(largest), np.nan, largest)
    # Under the groups, and wide: it is one of them at every epoch.
    wide = {"linewidth": 4.5, "alpha": 0.22, "solid_capstyle": "round"}
    return axes.plot(epochs, largest, color="black", **wide)[0]


def _leave_empty(axes: Any, above: Any) -> None:
    """In place of multipliers; the epochs stand under the axes above."""
    axes.set_axis_off()
    for line in axes.lines:
        line.set_visible(False)
    axes.text(0.5, 0.5, "no multipliers", transform=axes.transAxes, ha="center", color=GREY)
    above.tick_params(labelbottom=True)
    above.set_xlabel("epoch")
