"""Groups before and after: how many of each were right, and where that went, an arrow per way of pruning."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxfair.report.figures.style import DARK, GREY, NARROW, WIDTH, looks, new_figure, shorten, style, write_above
from jaxfair.report.tables import points


def before_and_after(
    names: Sequence[str],
    size: Shaped[ArrayLike, "G"],
    before: Shaped[ArrayLike, "G"],
    after: Mapping[str, Shaped[ArrayLike, "G"]],
    *,
    called: str = "before",
    show: int = 12,
    methods: Sequence[str] | None = None,
    narrow: bool = False,
) -> Any:
    """One row per group: a line where it was before, and an arrow from there for each way of pruning.

    Args:
      names: ``[G]`` of the groups.
      size: ``[G]`` numbers of people, shown with the names.
      before: ``[G]`` shares of people for whom the network before was right; nan for a group of nobody, left out.
      after: ``{method: [G]}`` the same after.
      called: what the network before is called.
      show: with more groups than this, those that lost most by the first method are shown, and the title says so.
      methods: all methods of the report, for colours that agree with the other figures.
      narrow: for a screen of 400 pixels.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> figure = before_and_after(["men", "women"], np.array([300, 100]), np.array([0.9, 0.8]),
      ...                           {"pruned": np.array([0.9, 0.75])})
      >>> [text.get_text() for text in figure.axes[0].texts if "women" in text.get_text()]
      ['women (100): 80.0 % right before']
    """
    size, start = np.asarray(size), 100 * np.asarray(before, float)
    ends = {name: 100 * np.asarray(share, float) for name, share in after.items()}
    look = looks(methods or list(ends))
    change = {name: end - start for name, end in ends.items()}
    order = np.argsort(next(iter(change.values())), kind="stable")
    order = order[~np.isnan(start[order])]
    total, order = len(order), order[:show]
    shown = np.concatenate([values[order] for values in change.values()])
    left, right = min(shown.min(initial=0), 0), max(shown.max(initial=0), 0)
    room = max(right - left, 0.5)
    with style():
        each = 0.3 + 0.2 * len(ends)
        figure = new_figure(width=NARROW if narrow else WIDTH, height=1.1 + 0.2 * len(ends) + each * len(order))
        axes = figure.subplots()
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        axes.axvline(0, color=DARK, linewidth=1)
        step = 0.6 / len(ends)
        for row, g in enumerate(order):
            label = f"{shorten(names[g], 24 if narrow else 60)} ({int(size[g]):,}): {start[g]:.1f} % right {called}"
            write_above(axes, row - 0.32, label)
            for lane, name in enumerate(ends):
                y = row + (lane + 0.5) * step - 0.12
                _arrow(axes, y, float(change[name][g]), float(ends[name][g]), look[name])
        margin = (0.6 if narrow else 0.3) * room
        axes.set_xlim(left - margin, right + margin)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"change in who is right, in points\n← fewer than {called}        more →")
        if total > len(order):
            axes.set_title(f"the {len(order)} groups, of {total}, that lost most")
        handles = [axes.plot([], [], color=look[n].color, marker=look[n].marker, label=n)[0] for n in ends]
        figure.legend(handles=handles, loc="outside upper left", ncols=1 if narrow else len(handles))
    return figure


def _arrow(axes: Any, y: float, change: float, end: float, look: Any) -> None:
    """From 0 to the change, with what it came to beyond its end."""
    if np.isnan(change):
        return
    axes.plot([0, change], [y, y], color=look.color, linewidth=2.4, solid_capstyle="butt")
    axes.plot([change], [y], color=look.color, marker=look.marker, markersize=6.5)
    side = -1 if change < 0 else 1
    axes.annotate(
        f"{end:.1f} % ({points(change / 100, digits=1, sign=True)})", (change, y), (7 * side, 0), color=DARK,
        textcoords="offset points", va="center", ha="right" if side < 0 else "left",
    )  # fmt: skip
    axes.axhline(y, color=GREY, linewidth=0.2, zorder=0)
