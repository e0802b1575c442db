"""What a bound costs: one number against another over the levels of a bound, a line per method."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair.metrics import t_interval
from jaxfair.report.figures.style import GREY, looks, new_figure, style


def frontier(
    panels: Mapping[str, Mapping[str, Sequence[tuple[Any, Any]]]],
    *,
    x: str,
    y: str,
    bounds: Sequence[float] = (),
    hollow: bool = False,
) -> Any:
    """Means over seeds with t intervals in both directions, joined from level to level.

    Args:
      panels: ``{title: {method: [(x [S], y [S]), ...]}}``, a pair for each level, in their order, as shares.
      x: what the first number of a pair is.
      y: what the second is.
      bounds: where dotted lines stand, as shares of ``x``.
      hollow: whether the last level has a hollow marker: it is no bound at all.

    Returns:
      A ``matplotlib.figure.Figure``, in points.

    Example:
      >>> pairs = [([0.02, 0.03], [0.82, 0.83]), ([0.11, 0.12], [0.84, 0.85])]
      >>> figure = frontier({"parity": {"linear": pairs}}, x="violation", y="accuracy", bounds=[0.02])
      >>> figure.axes[0].get_xlabel()
      'violation'
    """
    look = looks(dict.fromkeys(method for panel in panels.values() for method in panel))
    handles: dict[str, Any] = {}
    with style():
        figure = new_figure(height=3.7)
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, methods) in zip(row, panels.items(), strict=True):
            axes.grid(color="#e6e6e6", linewidth=0.6)
            for bound in bounds:
                axes.axvline(100 * bound, color=GREY, linewidth=0.8, linestyle=":")
            for method, pairs in methods.items():
                found = [t_interval(100 * np.asarray(p, float).T) for p in pairs]
                mean = np.array([f.mean for f in found]).T
                half = np.nan_to_num(np.array([f.half_width for f in found]).T)
                color, marker, line = look[method]
                drawn = {"color": color, "marker": marker, "markersize": 5}
                handles[method] = axes.errorbar(
                    *mean, xerr=half[0], yerr=half[1], linestyle=line, linewidth=1.3, elinewidth=0.8, **drawn
                )  # fmt: skip
                if hollow:
                    last = mean[:, -1:]
                    axes.plot(*last, markerfacecolor="white", linestyle="none", zorder=3, **drawn)
            axes.set_title(title)
            axes.set_xlabel(x)
            axes.set_xlim(left=0)
        row[0].set_ylabel(y)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)))
    return figure
