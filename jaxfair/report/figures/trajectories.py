"""How training went: gaps and multipliers over epochs, a column per method."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxfair.report.figures.style import (
    DARK,
    GREY,
    looks,
    new_figure,
    shorten,
    style,
    tolerance_line,
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
    highlight: int = 3,
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
        name: np.asarray(path.multipliers, float)
        for name, path in results.items()
        if path.multipliers is not None
    }
    groups = next(iter(excess.values())).shape[1]
    mean = np.mean([np.nan_to_num(path).mean(0) for path in excess.values()], axis=0)
    worst = np.argsort(-mean, kind="stable")[:highlight]
    names = [str(g) for g in range(groups)] if names is None else names
    look = looks([names[g] for g in worst])
    handles = {}

    with style():
        rows, columns = 2 if multipliers else 1, len(results)
        figure = new_figure(width=max(3.4, min(2.4 * columns + 0.4, 9.6)), height=1.0 + 1.85 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)

        def groups_of(axes, paths):
            thin = np.setdiff1d(np.arange(groups), worst)
            for g in thin:
                (handle,) = axes.plot(epochs, paths[:, g], color=GREY, linewidth=0.6, alpha=0.6)
                handles["other groups"] = handle
            for g in worst:
                color, _, line = look[names[g]]
                (handle,) = axes.plot(
                    epochs, paths[:, g], color=color, linestyle=line, linewidth=1.2
                )
                handles[shorten(names[g], 32)] = handle

        for column, name in enumerate(results):
            top = grid[0, column]
            groups_of(top, excess[name])
            with np.errstate(all="ignore"):
                largest = np.where(np.isnan(excess[name]), -np.inf, excess[name]).max(1)
            (handle,) = top.plot(epochs, largest, color="black", linewidth=2.2, alpha=0.85)
            handles["largest gap"] = handle
            top.set_title(name)
            top.axhline(0, color="#b0b0b0", linewidth=0.8, zorder=0.5)
            if tolerance is not None:
                tolerance_line(top, 100 * tolerance, axis="y")
            if rows == 2:
                bottom = grid[1, column]
                if name in multipliers:
                    groups_of(bottom, multipliers[name])
                else:
                    bottom.text(
                        0.5,
                        0.5,
                        "no multipliers",
                        transform=bottom.transAxes,
                        ha="center",
                        va="center",
                        color=GREY,
                    )
            for axes in grid[:, column]:
                axes.grid(color="#e6e6e6", linewidth=0.6)
                if pruning_end is not None:
                    axes.axvline(pruning_end, color=DARK, linestyle=":", linewidth=1)
            if pruning_end is not None:
                top.annotate(
                    "pruning ends",
                    (pruning_end, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(3, -2),
                    textcoords="offset points",
                    va="top",
                    fontsize=8,
                    color=DARK,
                )
            grid[-1, column].set_xlabel("epoch")
        grid[0, 0].set_ylabel("excess accuracy\ngap (points)")
        if rows == 2:
            grid[1, 0].set_ylabel("multiplier")
        if tolerance is not None:
            handles["bound"] = grid[0, 0].lines[-1]
            for line in grid[0, 0].lines:
                if line.get_linestyle() == "--" and line.get_color() == DARK:
                    handles["bound"] = line
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(3, len(handles)),
        )
    return figure
