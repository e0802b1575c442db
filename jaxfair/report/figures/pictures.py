"""Small pictures side by side: a row for each way in which they were made, a column for each of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxfair.report.figures.style import GREY, WIDTH, new_figure, style


def pictures(
    rows: Mapping[str, Any], *, number: int = 8, width: float = WIDTH, low: float = 0.0, high: float = 1.0
) -> Any:
    """A grid of grey pictures, all on one scale: the same thing above itself, made otherwise.

    Args:
      rows: for each name ``[N, height, width]``, the same N in the same order; a line break in a name is one.
      number: how many are shown, the first ones; at most N.
      width: of the figure, in inches.
      low: what is white.
      high: what is black.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> figure = pictures({"truth": np.eye(3)[None], "found": np.ones((1, 3, 3))})
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['truth', 'found']
    """
    number = min([number, *map(len, rows.values())])
    labels = 0.16 * width
    with style():
        figure = new_figure(width=width, height=len(rows) * (width - labels) / number)
        grid = figure.subplots(len(rows), number, squeeze=False)
        for axes_of, (name, images) in zip(grid, rows.items(), strict=True):
            for axes, image in zip(axes_of, images, strict=False):
                axes.imshow(np.asarray(image), cmap="gray_r", vmin=low, vmax=high)
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set(visible=True, color=GREY, linewidth=0.4)
            axes_of[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure
