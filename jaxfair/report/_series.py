"""From a study's records to what a figure draws: means over levels, pairs of numbers, differences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair import study as studies
from jaxfair.report import figures


def lines(
    records: Sequence[Mapping[str, Any]],
    column: str,
    *,
    along: str,
    of: str = "method",
    scale: float | int = 100,
) -> dict[str, dict[Any, tuple[float, float]]]:
    """Means and half-widths over seeds, by method and level: the lines of a :class:`jaxfair.report.figures.Panel`.

    Args:
      records: of a run, those of one panel.
      column: a number.
      along: the field whose values are the levels.
      of: the field that holds the method.
      scale: 100 shows shares as points.

    Example:
      >>> lines([{"method": "nft", "sparsity": 0.9, "seed": s, "gap": 0.02} for s in range(2)], "gap", along="sparsity")
      {'nft': {0.9: (2.0, 0.0)}}
    """
    found: dict[str, dict[Any, tuple[float, float]]] = {}
    for method in studies.values(records, of):
        mine = studies.chosen(records, **{of: method})
        found[method] = {}
        for level in studies.values(mine, along):
            interval = studies.over_seeds(mine, column, **{along: level})
            found[method][level] = scale * float(interval.mean), scale * float(interval.half_width)
    return found


def pairs(
    records: Sequence[Mapping[str, Any]], x: str, y: str, *, along: str, of: str = "method"
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Two numbers of every seed, by method and level: a panel of :func:`jaxfair.report.figures.frontier`.

    Args:
      records: of a run, those of one panel.
      x: the first number.
      y: the second.
      along: the field whose values are the levels; they go from small to large.
      of: the field that holds the method.

    Example:
      >>> records = [{"method": "nft", "sparsity": 0.9, "seed": s, "gap": 0.02, "accuracy": 0.8} for s in range(2)]
      >>> pairs(records, "gap", "accuracy", along="sparsity")
      {'nft': [(array([0.02, 0.02]), array([0.8, 0.8]))]}
    """
    found = {}
    for method in studies.values(records, of):
        mine = studies.chosen(records, **{of: method})
        found[method] = [
            (
                studies.by_seed(mine, x, **{along: level}),
                studies.by_seed(mine, y, **{along: level}),
            )
            for level in sorted(studies.values(mine, along))
        ]
    return found


def differences(
    found: Sequence[studies.Beside],
    *,
    rows: str,
    columns: str,
    methods: Sequence[str],
    along: str,
    say: Callable[[Any], str] = str,
    of: str = "method",
    scale: float | int = 100,
) -> Any:
    """A figure of methods beside their peer: :func:`jaxfair.report.figures.differences`, a panel per level.

    Args:
      found: of :func:`jaxfair.study.beside`.
      rows: the field of a cell whose values are the rows of panels.
      columns: the field whose values are the panels of a row.
      methods: from top to bottom.
      along: what the differences are.
      say: a value of ``columns`` as text.
      of: the field that holds the method.
      scale: 100 shows shares as points.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> records = [{"data": "digits", "method": m, "sparsity": 0.9, "seed": s, "accuracy": 0.8, "gap": g * s}
      ...            for m, g in (("nft", 0.04), ("ceag", 0.01)) for s in range(2)]
      >>> found = studies.beside(records, "nft", "gap", "accuracy", at=("data", "sparsity"))
      >>> figure = differences(found, rows="data", columns="sparsity", methods=["ceag"], along="gap (points)")
      >>> figure.axes[0].get_title(loc="left")
      'digits: 0.9'
    """
    panels: dict[Any, dict[Any, dict[str, figures.Difference]]] = {}
    for one in found:
        row = panels.setdefault(one.cell[rows], {})
        row.setdefault(one.cell[columns], {})[one.cell[of]] = figures.Difference(
            scale * float(one.difference.mean), scale * float(one.difference.half_width), one.side
        )
    places = sorted({one.cell[columns] for one in found})
    grid = [[figures.Compared(row.get(at, {}), f"{name}: {say(at)}") for at in places] for name, row in panels.items()]
    return figures.differences(grid, methods=methods, along=along)
