"""Who is harmed: the excess accuracy gap of every group, with simultaneous intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxfair.metrics import CANNOT_TELL, GapInference, verdict
from jaxfair.report._extra import need
from jaxfair.report.figures.style import WIDTH, bound_line, looks, new_figure, shorten, style


def gaps_by_group(
    names: Sequence[str],
    size: Shaped[ArrayLike, "G"],
    results: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike] | GapInference],
    *,
    tolerance: ArrayLike,
    show: int = 20,
    by: str | None = None,
    methods: Sequence[str] | None = None,
) -> Any:
    """One row per group, one lane per method; filled markers where the interval answers, hollow where not.

    Args:
      names: ``[G]`` of the groups.
      size: ``[G]`` numbers of people, shown with the names.
      results: ``{method: (psi [G], low [G], high [G])}`` as shares, or a GapInference per method.
        Two or three methods can be compared well.
      tolerance: the bound, a share.
      show: with more groups than this, the ones with the largest gaps are shown, and the title
        says so.
      by: the method that orders the groups; the first by default.
      methods: all methods of the report, for colours that agree with the other figures.

    Returns:
      A ``matplotlib.figure.Figure``. Groups that are nan (no people) are left out.

    Example:
      >>> import numpy as np
      >>> psi = np.array([0.02, -0.01])
      >>> figure = gaps_by_group(["a", "b"], np.array([40, 80]),
      ...                        {"nft": (psi, psi - 0.02, psi + 0.02)}, tolerance=0.01)
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['a (40)', 'b (80)']
    """
    found = {
        name: tuple(
            100 * np.asarray(x, float)
            for x in (
                (result.psi, result.low, result.high)
                if isinstance(result, GapInference)
                else result
            )
        )
        for name, result in results.items()
    }
    look = looks(methods or list(found))
    size = np.asarray(size)
    by = next(iter(found)) if by is None else by
    order = np.argsort(-found[by][0], kind="stable")
    order = order[~np.isnan(found[by][0][order])]
    total, order = len(order), order[:show]
    lanes = len(found)
    bound = 100 * np.asarray(tolerance, float).item()
    # A group of thirty people may have an interval of eighty points: where that would squeeze all
    # others into a line, it is cut off, with an arrow.
    shown = [np.stack(values)[:, order] for values in found.values()]
    ends = np.abs(np.concatenate([values[1:].ravel() for values in shown]))
    reach = max(
        1.25 * max(np.abs(values[0]).max(initial=0) for values in shown),
        3 * bound,
        np.quantile(ends, 0.7) if ends.size else 0,
        0.1,  # two copies of one network still need an axis
    )
    left = -min(reach, max(np.max([-v[1].min(initial=0) for v in shown]) * 1.08, 0.1 * reach))
    right = min(reach, max(np.max([v[2].max(initial=0) for v in shown]) * 1.08, 1.3 * bound))
    lines = need("matplotlib.lines")
    patches = need("matplotlib.patches")

    with style():
        figure = new_figure(width=WIDTH, height=1.55 + len(order) * max(0.24, 0.15 * lanes + 0.06))
        axes = figure.subplots()
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        step = 0.8 / lanes
        unsure = cut = False
        for lane, (name, (psi, low, high)) in enumerate(found.items()):
            color, marker, _ = look[name]
            for row, g in enumerate(order):
                y = row + (lane - (lanes - 1) / 2) * step
                open_question = verdict(low[g], high[g], bound) == CANNOT_TELL
                unsure |= bool(open_question)
                if open_question:
                    axes.axhspan(y - step / 2, y + step / 2, color="#ededed", linewidth=0, zorder=0)
                inside = np.clip([low[g], high[g]], left, right)
                axes.plot(inside, [y, y], color=color, linewidth=1.6, zorder=2)
                for end, arrow, beyond in (
                    (left, "<", low[g] < left),
                    (right, ">", high[g] > right),
                ):
                    if beyond:
                        cut = True
                        axes.plot(end, y, arrow, color=color, markersize=5, clip_on=False)
                axes.plot(
                    psi[g],
                    y,
                    marker=marker,
                    markersize=5.5,
                    color=color,
                    markerfacecolor="white" if open_question else color,
                    markeredgewidth=1.3,
                    zorder=3,
                )
        line = bound_line(axes, bound, axis="x")
        axes.set_xlim(left, right)
        axes.axvline(0, color="#b0b0b0", linewidth=0.8, zorder=1)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_yticks(
            range(len(order)), [f"{shorten(str(names[g]))} ({int(size[g]):,})" for g in order]
        )
        axes.tick_params(axis="y", length=0, pad=7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(
            "excess accuracy gap (points): accuracy lost beyond the average loss\n"
            "← lost less than average        lost more than average →"
        )
        if total > len(order):
            axes.set_title(
                f"the {len(order)} groups, of {total}, with the largest gap of {by}", loc="left"
            )
        handles: list[Any] = [
            lines.Line2D([], [], color=look[name].color, marker=look[name].marker, label=name)
            for name in found
        ]
        handles.append(line)
        if unsure:
            handles.append(
                patches.Patch(color="#ededed", label="cannot tell: interval contains the bound")
            )
        if cut:
            handles.append(
                lines.Line2D([], [], color="#444444", marker=">", label="interval goes on")
            )
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure
