"""Small pictures in a grid: what each method made beside what it was made from, or beside what others made."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair.report.figures.style import WIDTH, new_figure, style


def pictures(rows: Mapping[str, Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> Any:
    """A row for each name, a cell for each column, and in a cell some pictures side by side.

    Args:
      rows: for each name and column ``[K, H, W]`` numbers in [0, 1], dark where they are large; a cell that is not
        there stays empty.
      columns: in their order; as they come by default.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> figure = pictures({"truth": {"4 of 64": np.eye(8)[None]}, "lasso": {"4 of 64": np.zeros((1, 8, 8))}})
      >>> len(figure.axes), figure.axes[1].get_ylabel()
      (2, 'lasso')
    """
    columns = list(dict.fromkeys(c for row in rows.values() for c in row)) if columns is None else columns
    most = max((np.shape(images)[0] for row in rows.values() for images in row.values()), default=1)
    with style():
        height = WIDTH / (len(columns) * most + 1.5)
        figure = new_figure(height=0.3 + (height + 0.06) * max(len(rows), 1))
        grid = figure.subplots(max(len(rows), 1), max(len(columns), 1), squeeze=False)
        for axes in grid.ravel():
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for i, (name, row) in enumerate(rows.items()):
            grid[i][0].set_ylabel(name, rotation=0, ha="right", va="center")
            for axes, column in zip(grid[i], columns, strict=True):
                if i == 0:
                    axes.set_title(column)
                if column in row:
                    tiles = np.pad(np.asarray(row[column], float), ((0, 0), (1, 1), (1, 1)))
                    axes.imshow(np.concatenate([*tiles], axis=1), cmap="gray_r", vmin=0, vmax=1)
    return figure
