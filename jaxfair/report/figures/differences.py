"""Paired differences to one method: a row per method, a panel per level, and what else differed in the marker."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.report.figures.style import COLORS, GREY, new_figure, style
from jaxfair.report.tables import NOTHING

#: By the sign of the other number: none that could be told, more, less; not known.
MARKERS = {0: "o", 1: "^", -1: "v", None: "x"}


class Difference(NamedTuple):
    """How much one method's number is above the peer's.

    Attributes:
      mean: of the paired differences; one that is not finite is a dash in its row.
      half_width: of its interval; nan for none.
      other: what stands beside it: 0 where another number (accuracy, say) cannot be told apart, 1 where it is larger,
        -1 where it is smaller, None where it is not known. The marker is full, a hollow triangle up or down, a cross.
    """

    mean: float
    half_width: float
    other: int | None = 0


class Compared(NamedTuple):
    """One panel: a difference per method.

    Attributes:
      differences: those that there are.
      title: above it.

    Example:
      >>> panel = Compared({"ceag": Difference(-1.2, 0.4), "set": Difference(3.0, 1.0, other=-1)}, title="90 %")
      >>> figure = differences([[panel]], methods=["set", "ceag"], along="gap less that of magnitude")
      >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
      ['set', 'ceag']
    """

    differences: Mapping[str, Difference]
    title: str


def differences(rows: Sequence[Sequence[Compared]], *, methods: Sequence[str], along: str) -> Any:
    """A grid of panels with the same methods from top to bottom; left of the line is less than the peer.

    The view of a panel ends at the widest interval of the full markers (of all, if there are none), but not beyond two
    and a half of their median: one method that fails would make dots of all others. What lies there is at the edge,
    without its interval.

    Args:
      rows: of :class:`Compared`, as many in each.
      methods: from top to bottom; those that no panel has are left out.
      along: what the differences are.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> failed = {"set": Difference(0.5, 1.0), "snip": Difference(0.2, 1.5), "random": Difference(40.0, 5.0)}
      >>> figure = differences([[Compared(failed, "98 %")]], methods=list(failed), along="gap (points)")
      >>> round(float(figure.axes[0].get_xlim()[1]), 2)
      4.46
    """
    shown = [m for m in methods if any(m in panel.differences for row in rows for panel in row)]
    with style():
        figure = new_figure(height=(0.18 * len(shown) + 0.9) * len(rows) + 0.4)
        wide = max(map(len, rows), default=1)
        grid = figure.subplots(max(len(rows), 1), wide, squeeze=False, sharey=True)
        for panels, axes_of in zip(rows, grid, strict=False):
            for panel, axes in zip(panels, axes_of, strict=True):
                _draw(axes, panel, shown)
        figure.supxlabel(along, fontsize="medium")
    return figure


def _draw(axes: Any, panel: Compared, methods: Sequence[str]) -> None:
    found = {m: panel.differences[m] for m in methods if m in panel.differences}
    edge = _edge(found.values())
    for method, difference in found.items():
        if not np.isfinite(difference.mean):
            axes.text(0.02, methods.index(method), NOTHING, transform=axes.get_yaxis_transform(), va="center")
            continue
        inside = abs(difference.mean) < edge
        full = difference.other == 0
        axes.errorbar(
            [difference.mean if inside else np.sign(difference.mean) * 0.97 * edge],
            [methods.index(method)],
            xerr=[np.nan_to_num(difference.half_width, posinf=2 * edge) if inside else 0.0],
            marker=MARKERS[difference.other],
            markersize=4,
            markerfacecolor=COLORS[0] if full else "white",
            color=COLORS[0],
            elinewidth=0.8,
            linestyle="none",
        )
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_yticks(range(len(methods)), methods)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.set_title(panel.title)


def _edge(found: Any) -> float:
    reach = [
        (abs(d.mean) + float(np.nan_to_num(d.half_width, posinf=0.0)), d.other) for d in found if np.isfinite(d.mean)
    ]
    widths = [r for r, other in reach if other == 0] or [r for r, _ in reach] or [1.0]
    return 1.05 * min(max(widths), 2.5 * float(np.median(widths))) or 1.0
