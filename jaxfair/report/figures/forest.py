"""Effects with their intervals, a row each, side by side for several data sets."""

from collections.abc import Mapping
from typing import Any

from jaxfair.report.figures.style import COLORS, DARK, new_figure, style

#: Of an effect: the end of its interval, its value, and the other end.
Effect = tuple[float, float, float]


def forest(
    panels: Mapping[str, Mapping[str, Effect]],
    *,
    label: str,
    none: float = 1.0,
    base: float | None = 2.0,
    columns: int = 2,
) -> Any:
    """A panel per data set, a row per effect; filled where the interval leaves out "no effect".

    Args:
      panels: for each title the effects, ``{row: (low, value, high)}``, the same rows in each.
      label: of the axis.
      none: where there is no effect: 1 for ratios, 0 for differences. Below it markers are round, above square.
      base: of a logarithmic axis; None for a linear one.
      columns: panels side by side.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> figure = forest({"digits": {"mean: prevalence": (0.4, 0.5, 0.7)}}, label="gap multiplied by")
      >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
      ['mean: prevalence']
    """
    columns = min(len(panels), columns)
    deep = -(-len(panels) // columns)
    most = max(len(rows) for rows in panels.values())
    with style():
        figure = new_figure(height=0.6 + (0.75 + 0.17 * most) * deep)
        grid = figure.subplots(deep, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for number, (axes, (title, rows)) in enumerate(zip(grid, panels.items(), strict=False)):
            for y, (low, value, high) in enumerate(rows.values()):
                color, marker = (COLORS[0], "o") if value < none else (COLORS[1], "s")
                sure = not low <= none <= high
                axes.plot([low, high], [y, y], color=color)
                axes.plot(
                    value,
                    y,
                    marker=marker,
                    color=color,
                    markersize=5,
                    markerfacecolor=color if sure else "white",
                )
            axes.axvline(none, color=DARK, linewidth=0.8, zorder=0.5)
            if base is not None:
                axes.set_xscale("log", base=base)
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            names = list(rows) if number % columns == 0 else [""] * len(rows)
            axes.set_yticks(range(len(rows)), names)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
            axes.set_title(title)
            axes.set_xlabel(label)
    return figure
