"""Small pictures side by side: a row for each way in which they were made, a column for what each was made of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair.report.figures.style import GREY, WIDTH, new_figure, style


def pictures(
    rows: Mapping[str, Any],
    *,
    columns: Sequence[str] | None = None,
    number: int = 8,
    width: float = WIDTH,
    low: float = 0.0,
    high: float = 1.0,
) -> Any:
    """A grid of grey pictures, all on one scale: the same thing above itself, made otherwise.

    Args:
      rows: for each name ``[N, height, width]``, in the same order in every row, a column each; or a mapping from the
        names of columns to such pictures, side by side in one cell. A line break in a name is one.
      columns: where they have names, their order; as they come by default.
      number: of columns without names: how many are shown, the first ones; at most N.
      width: of the figure, in inches.
      low: what is white.
      high: what is black.

    Returns:
      A ``matplotlib.figure.Figure``.

    Raises:
      ValueError: where there is nothing to draw.

    Example:
      >>> figure = pictures({"truth": np.eye(3)[None], "found": np.ones((1, 3, 3))})
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['truth', 'found']
      >>> figure = pictures({"truth": {"4 of 64": np.eye(8)[None]}, "lasso": {"4 of 64": np.zeros((2, 8, 8))}})
      >>> figure.axes[0].get_title(loc="left")
      '4 of 64'
    """
    titled = any(isinstance(row, Mapping) for row in rows.values())
    if not titled:
        number = min([number, *map(len, rows.values())])
        columns = [str(place) for place in range(number)]
    cells = {
        name: row if isinstance(row, Mapping) else {str(place): image[None] for place, image in enumerate(row)}
        for name, row in rows.items()
    }
    columns = list(dict.fromkeys(c for row in cells.values() for c in row)) if columns is None else [*columns]
    if not columns or not cells:
        raise ValueError("no pictures: give at least one row with at least one picture.")
    most = max((np.shape(images)[0] for row in cells.values() for images in row.values()), default=1)
    labels = 0.16 * width
    with style():
        height = (width - labels) / (len(columns) * most)
        figure = new_figure(width=width, height=0.3 * titled + height * 1.05 * len(cells))
        grid = figure.subplots(len(cells), len(columns), squeeze=False)
        for axes in grid.ravel():
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for i, (name, row) in enumerate(cells.items()):
            grid[i][0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
            for axes, column in zip(grid[i], columns, strict=True):
                if titled and i == 0:
                    axes.set_title(column)
                if len(row.get(column, ())):
                    images = np.asarray(row[column], float)
                    between = np.full((*images.shape[:2], 1), np.nan)  # nan is drawn as nothing: a gap
                    tiles = np.concatenate([part for image in zip(images, between, strict=True) for part in image], 1)
                    axes.imshow(tiles[:, :-1], cmap="gray_r", vmin=low, vmax=high)
                    axes.spines[:].set(visible=True, color=GREY, linewidth=0.4)
    return figure
