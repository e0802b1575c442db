"""Where the zeros are: the sparsity of every layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxfair.report.figures.style import WIDTH, looks, new_figure, shorten, style


def sparsity_by_layer(
    layers: Sequence[str],
    size: Shaped[ArrayLike, "L"],
    sparsity: Mapping[str, Shaped[ArrayLike, "L"]],
    *,
    methods: Sequence[str] | None = None,
) -> Any:
    """The share of zeros in every layer, a marker per method.

    Args:
      layers: ``[L]`` names, from input to output.
      size: ``[L]`` numbers of weights, shown with the names.
      sparsity: ``{method: [L] shares of zeros}``.
      methods: all methods of the report, for colours that agree with the other figures.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> import numpy as np
      >>> figure = sparsity_by_layer(["Dense_0"], np.array([4096]), {"nft": np.array([0.98])})
      >>> figure.axes[0].get_yticklabels()[0].get_text()
      'Dense_0 (4,096)'
    """
    look = looks(methods or list(sparsity))
    size = np.asarray(size)
    with style():
        figure = new_figure(width=WIDTH, height=1.3 + 0.26 * len(layers))
        axes = figure.subplots()
        rows = np.arange(len(layers))
        lanes = len(sparsity)
        for lane, (name, shares) in enumerate(sparsity.items()):
            color, marker, _ = look[name]
            y = rows + (lane - (lanes - 1) / 2) * 0.6 / max(lanes, 1)
            axes.plot(
                100 * np.asarray(shares, float), y, marker, color=color, markersize=5, label=name
            )
        axes.hlines(rows, 0, 100, color="#e6e6e6", linewidth=0.6, zorder=0)
        axes.set_yticks(
            rows, [f"{shorten(n)} ({int(k):,})" for n, k in zip(layers, size, strict=True)]
        )
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("weights that are zero (%); in brackets, the weights of the layer")
        figure.legend(loc="outside upper left", ncols=4)
    return figure
