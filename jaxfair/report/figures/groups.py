"""Who is harmed: the excess accuracy gap of every group, with simultaneous intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxfair.metrics import CANNOT_TELL, GapInference, verdict
from jaxfair.report._extra import need
from jaxfair.report.figures.style import NARROW, WIDTH, Look, bound_line, looks, new_figure, shorten, style, write_above

#: Behind what the interval does not answer.
UNSURE = "#ededed"


def gaps_by_group(
    names: Sequence[str],
    size: Shaped[ArrayLike, "G"],
    results: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike] | GapInference],
    *,
    tolerance: ArrayLike,
    show: int = 20,
    by: str | None = None,
    methods: Sequence[str] | None = None,
    bounded: Shaped[ArrayLike, "G"] | None = None,
    narrow: bool = False,
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
      bounded: ``[G]`` bool, which groups have a bound; all by default. The others are hollow, and no question.
      narrow: for a screen of 400 pixels: names stand above their rows, and what makes the legend below each other.

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
            for x in ((result.psi, result.low, result.high) if isinstance(result, GapInference) else result)
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
    left, right = _limits([np.stack(values)[:, order] for values in found.values()], bound)
    with style():
        lines = 1.55 + (0.2 * (lanes + 3) if narrow else 0)
        each = max(0.24, 0.15 * lanes + 0.06) + 0.16 * narrow
        figure = new_figure(width=NARROW if narrow else WIDTH, height=lines + len(order) * each)
        axes = figure.subplots()
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        # Where names stand above, they have a lane of their own.
        step = (0.55 if narrow else 0.8) / lanes
        unsure = cut = False
        for lane, (name, values) in enumerate(found.items()):
            for row, g in enumerate(order):
                y = row + (lane - (lanes - 1) / 2) * step + 0.2 * narrow
                judged = bounded is None or bool(np.asarray(bounded)[g])
                psi, low, high = (float(value[g]) for value in values)
                open_question = judged and bool(verdict(low, high, bound) == CANNOT_TELL)
                if open_question:
                    axes.axhspan(y - step / 2, y + step / 2, color=UNSURE, linewidth=0, zorder=0)
                unsure |= open_question
                cut |= _draw_row(axes, y, (psi, low, high), (left, right), look[name], open_question or not judged)
        handles = [_handle(look[name], name) for name in found]
        handles.append(bound_line(axes, bound, axis="x"))
        axes.set_xlim(left, right)
        axes.axvline(0, color="#b0b0b0", linewidth=0.8, zorder=1)
        axes.set_ylim(len(order) - 0.5, -0.5)
        labels = [f"{shorten(names[g], 36 if narrow else 44)} ({int(size[g]):,})" for g in order]
        _name_rows(axes, labels, inside=narrow)
        axes.tick_params(axis="y", length=0, pad=7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(
            "accuracy lost beyond the average loss (points)\n← lost less than average        lost more than average →"
            if not narrow
            else "excess accuracy gap (points)\n← lost less        than average        lost more →"
        )
        if total > len(order):
            whose = f"\nof {by}"
            axes.set_title(f"the {len(order)} groups, of {total}, with the largest gap{whose}", loc="left")
        if unsure:
            words = "cannot tell: interval contains the bound"
            handles.append(need("matplotlib.patches").Patch(color=UNSURE, label=words))
        if cut:
            handles.append(_handle(Look("#444444", ">", ""), "interval goes on"))
        # All in a row, where they fit.
        letters = sum(len(handle.get_label()) for handle in handles)
        figure.legend(
            handles=handles, loc="outside upper left", ncols=1 if narrow else 4 if letters < 70 else 2
        )  # fmt: skip
    return figure


def _name_rows(axes: Any, labels: Sequence[str], *, inside: bool) -> None:
    """The names of the rows, beside them, or above each inside of the axes."""
    axes.set_yticks(range(len(labels)), [] if inside else labels)
    if inside:
        for row, label in enumerate(labels):
            write_above(axes, row - 0.27, label)


def _limits(shown: Sequence[np.ndarray], bound: float) -> tuple[float, float]:
    """The ends of the axis.

    A group of thirty people may have an interval of eighty points: where that would squeeze all others into a line, it
    is cut off, with an arrow.

    Args:
      shown: per method ``[3, R]``: gap, low and high.
      bound: in points.
    """
    ends = np.abs(np.concatenate([values[1:].ravel() for values in shown]))
    reach = max(
        1.25 * max(np.abs(values[0]).max(initial=0) for values in shown),
        3 * bound,
        np.quantile(ends, 0.7) if ends.size else 0,
        0.1,  # two copies of one network still need an axis
    )
    left = -min(reach, max(np.max([-v[1].min(initial=0) for v in shown]) * 1.08, 0.1 * reach))
    right = min(reach, max(np.max([v[2].max(initial=0) for v in shown]) * 1.08, 1.3 * bound))
    return left, right


def _draw_row(
    axes: Any,
    y: float,
    gap: tuple[float, float, float],
    limits: tuple[float, float],
    look: Look,
    open_question: bool,
) -> bool:
    """Draws a gap with its interval; whether the interval was cut off."""
    (psi, low, high), (left, right) = gap, limits
    axes.plot(np.clip([low, high], left, right), [y, y], color=look.color, linewidth=1.6, zorder=2)
    for end, arrow, beyond in ((left, "<", low < left), (right, ">", high > right)):
        if beyond:
            axes.plot(end, y, arrow, color=look.color, markersize=5, clip_on=False)
    face = "white" if open_question else look.color
    marker = {"marker": look.marker, "markersize": 5.5, "markeredgewidth": 1.3}
    axes.plot(psi, y, color=look.color, markerfacecolor=face, zorder=3, **marker)
    return bool(low < left or high > right)


def _handle(look: Look, label: str) -> Any:
    line = need("matplotlib.lines").Line2D
    return line([], [], color=look.color, marker=look.marker, label=label)
