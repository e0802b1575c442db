"""Means with intervals over levels: a line per method, side by side so that no bar hides another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.report.figures.style import GREY, looks, new_figure, style


class Panel(NamedTuple):
    """One panel: a line per method.

    Attributes:
      lines: for each method the levels that it has, with mean and half-width: ``{method: {level: (mean, half)}}``.
      title: above it.
      label: of its height.
      baseline: a dotted line (the dense network, say); nan for none.

    Example:
      >>> panel = Panel({"nft": {0.9: (80.0, 1.0)}}, title="digits", label="accuracy (%)")
      >>> len(levels([[panel]], methods=["nft"], along="zeros (%)").axes)
      1
    """

    lines: Mapping[str, Mapping[Any, tuple[Any, Any]]]
    title: str
    label: str = ""
    baseline: float = float("nan")


def levels(
    rows: Sequence[Sequence[Panel]],
    *,
    methods: Sequence[str],
    along: str,
    say: Callable[[Any], str] = str,
    from_zero: bool = False,
    shared: bool = False,
) -> Any:
    """A grid of panels, methods drawn alike in all of them.

    Args:
      rows: of :class:`Panel`, as many in each.
      methods: in the order that gives them their looks.
      along: what the levels are.
      say: a level as a tick.
      from_zero: whether heights begin at 0. Otherwise the view leaves out what lies far below nine of ten means, or
        one method that fails would make lines of all others.
      shared: whether the panels of a row have the same height.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> lines = {"nft": {0.9: (80.0, 1.0), 0.98: (70.0, 2.0)}, "ceag": {0.9: (79.0, 1.0)}}
      >>> figure = levels([[Panel(lines, title="digits")]], methods=["nft", "ceag"], along="zeros")
      >>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
      ['0.9', '0.98']
    """
    look = looks(methods)
    with style():
        figure = new_figure(height=3.3 * len(rows) + 0.35 + 0.22 * (len(methods) // 5))
        grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharey="row" if shared else False)
        handles: dict[str, Any] = {}
        for panels, axes_of in zip(rows, grid, strict=True):
            heights: list[float] = []
            for panel, axes in zip(panels, axes_of, strict=True):
                here = _draw(axes, panel, methods, look, say, handles)
                axes.set_xlabel(along)
                if not from_zero and not shared:
                    _view(axes, here)
                heights += here
            if from_zero:
                for axes in axes_of:
                    axes.set_ylim(bottom=0)
            elif shared:
                _view(axes_of[0], heights)
        columns = min(len(handles), 6) or 1
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
    return figure


def _draw(
    axes: Any,
    panel: Panel,
    methods: Sequence[str],
    look: Mapping[str, Any],
    say: Callable[[Any], str],
    handles: dict[str, Any],
) -> list[float]:
    """One panel; the heights of its means."""
    mine = [m for m in methods if panel.lines.get(m)]
    places = sorted({level for m in mine for level in panel.lines[m]})
    spread = min(0.06, 0.6 / max(len(mine), 1))
    heights = []
    for number, method in enumerate(mine):
        points = panel.lines[method]
        at = [level for level in places if level in points]
        x = [places.index(level) + spread * (number - (len(mine) - 1) / 2) for level in at]
        y, half = np.array([points[level] for level in at], float).T
        heights += [*y]
        handles[method] = axes.errorbar(
            x,
            y,
            yerr=np.nan_to_num(half),
            color=look[method].color,
            marker=look[method].marker,
            linestyle=look[method].line,
            markersize=4,
            linewidth=1.1,
            elinewidth=0.8,
        )
    if np.isfinite(panel.baseline):
        axes.axhline(panel.baseline, color=GREY, linewidth=0.8, linestyle=":")
        heights.append(panel.baseline)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_xticks(range(len(places)), [say(level) for level in places])
    axes.set_xlim(-0.5, max(len(places), 1) - 0.5)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.label)
    return heights


def _view(axes: Any, heights: Sequence[float]) -> None:
    finite = [h for h in heights if np.isfinite(h)]
    if finite:
        low, high = np.quantile(finite, 0.1), max(finite)
        margin = 0.35 * (high - low) + 0.02 * abs(high) + 1e-9
        axes.set_ylim(max(min(finite) - margin, low - margin), high + margin)
