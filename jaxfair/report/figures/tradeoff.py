"""What fairness costs: accuracy against the largest excess accuracy gap, one panel per split."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from jaxfair.metrics import t_interval
from jaxfair.report.figures.style import NARROW, WIDTH, bound_line, looks, new_figure, style


def accuracy_against_gap(
    panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    *,
    tolerance: ArrayLike | None = None,
    level: float = 0.95,
    narrow: bool = False,
) -> Any:
    """Every seed as a small point, every method's mean with its t intervals; better is up and left.

    Args:
      panels: ``{split: {method: (gap [S], accuracy [S])}}`` as shares. The methods of the first
        panel give the order of colours. A seed that is nan (a training that failed) is left out,
        and the legend counts the seeds.
      tolerance: the bound on the gap, a share; left of it the panel is tinted.
      level: of the t intervals, drawn where there are at least two seeds.
      narrow: for a screen of 400 pixels: panels below each other.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> import numpy as np
      >>> gap, accuracy = np.array([0.02, 0.03]), np.array([0.86, 0.85])
      >>> figure = accuracy_against_gap({"train": {"nft": (gap, accuracy)}}, tolerance=0.01)
      >>> figure.axes[0].get_xlabel()
      'largest excess accuracy gap (points)'
    """
    look = looks(dict.fromkeys(name for panel in panels.values() for name in panel))
    handles, counts = {}, set()
    with style():
        beside = 1 if narrow else len(panels)
        figure = new_figure(
            width=NARROW if narrow else WIDTH,
            height=(3.0 * len(panels) + 0.3 if narrow else 3.3) + 0.19 * -(-len(look) // (2 if narrow else 4)),
        )
        rows = figure.subplots(len(panels) // beside, beside, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (split, methods) in zip(rows, panels.items(), strict=True):
            axes.grid(color="#e6e6e6", linewidth=0.6)
            for name, (gap, accuracy) in methods.items():
                color, marker, _ = look[name]
                xy = 100 * np.stack([np.asarray(gap, float), np.asarray(accuracy, float)], -1)
                seen = xy[np.isfinite(xy).all(-1)]
                axes.scatter(*seen.T, s=13, color=color, marker=marker, alpha=0.45, linewidths=0)
                found = t_interval(seen, level=level)
                reach = np.nan_to_num(found.half_width)
                handle = axes.errorbar(
                    *found.mean,
                    xerr=reach[0],
                    yerr=reach[1],
                    color=color,
                    marker=marker,
                    markersize=7.5,
                    markeredgecolor="white",
                    markeredgewidth=0.9,
                    elinewidth=1.2,
                    linestyle="none",
                    zorder=3,
                )
                counts.add(len(xy))
                lost = "" if len(seen) == len(xy) else f" ({len(seen)} of {len(xy)} seeds)"
                handles.setdefault(name, (handle, name + lost))
            if tolerance is not None:
                line = bound_line(axes, 100 * np.asarray(tolerance, float).item(), axis="x")
                handles["bound"] = (line, line.get_label())
            axes.set_title(split)
            if axes.get_subplotspec().is_last_row():
                axes.set_xlabel("largest excess accuracy gap (points)")
            if axes.get_subplotspec().is_first_col():
                axes.set_ylabel("accuracy (%)")
            axes.margins(0.08)
        if tolerance is not None:
            left = min(0.0, rows[0].get_xlim()[0])
            rows[0].set_xlim(left=left)
            for axes in rows:
                axes.axvspan(
                    left,
                    100 * np.asarray(tolerance, float).item(),
                    color="#009E73",
                    alpha=0.08,
                    linewidth=0,
                )
        number = " or ".join(str(n) for n in sorted(counts))
        figure.legend(
            [handle for handle, _ in handles.values()],
            [label for _, label in handles.values()],
            loc="outside lower center",
            ncols=min(2 if narrow else 4, len(handles)),
            title="small: one seed"
            if counts == {1}
            else f"small: one seed; large: mean of {number}{chr(10) if narrow else ' '}with {100 * level:g} % interval",
            title_fontsize=8.5,
        )
    return figure
