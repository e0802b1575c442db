"""How methods play stochastic games: distances over oracle calls, paths, stability, effects of a parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxfair.report._extra import need
from jaxfair.report.figures.style import DARK, GREY, WIDTH, Look, looks, new_figure, style


def _panels(count: int, *, columns: int = 3, height: float = 2.2) -> tuple[Any, list[Any]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    width = WIDTH if columns > 1 else 5.0
    figure = new_figure(width=width, height=0.7 + height * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def _log(*axes: Any) -> None:
    """Logarithmic axes with plain numbers; also between the decades where there are few of them."""
    ticker = need("matplotlib.ticker")
    for axis in axes:
        low, high = axis.get_view_interval()
        decades = np.log10(high / low) if low > 0 else 3
        subs = (1.0,) if decades > 2 else (1.0, 3.0) if decades > 1 else (1.0, 2.0, 3.0, 5.0)
        axis.set_major_locator(ticker.LogLocator(subs=subs, numticks=8))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def _edges(centres: np.ndarray) -> np.ndarray:
    """Of cells around centres that are evenly spaced on a logarithmic axis."""
    log = np.log(centres)
    middle = (log[1:] + log[:-1]) / 2
    return np.exp(np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]]))


def _band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quartiles over the first axis; what is not finite counts as far away, and is not drawn."""
    far = np.where(np.isfinite(values), values, 1e300)
    quartiles = np.quantile(far, [0.25, 0.5, 0.75], axis=0)
    return tuple(np.where(quartiles < 1e200, quartiles, np.nan))


def distance_over_calls(
    results: Mapping[str, Mapping[str, tuple[Any, Any]]],
    *,
    start: Mapping[str, float] | None = None,
    methods: Sequence[str] | None = None,
    columns: int = 6,
) -> Any:
    """The distance to the solution over oracle calls: a panel per game, the median and quartiles per method.

    Args:
      results: ``{game: {method: (calls [R], distance [S, R])}}``.
      start: per game the distance at the start, drawn as a thin line; what is above ten times it is cut
        off.
      methods: all methods, in the order of their colours; those of the first game by default.
      columns: of the legend, at most.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> import numpy as np
      >>> path = (np.array([1, 2]), np.array([[1.0, 0.5], [1.0, 0.4]]))
      >>> figure = distance_over_calls({"bilinear": {"omega": path}})
      >>> figure.axes[0].get_ylabel()
      'distance'
    """
    names = list(methods or next(iter(results.values())))
    look = looks(names)
    shown: dict[str, Any] = {}
    with style():
        figure, grid = _panels(len(results))
        for i, (axes, (game, of_game)) in enumerate(zip(grid, results.items(), strict=True)):
            for name, (calls, distance) in of_game.items():
                low, middle, high = _band(np.asarray(distance, float))
                color, _, line = look[name]
                axes.fill_between(calls, low, high, color=color, alpha=0.18, linewidth=0)
                (shown[name],) = axes.plot(calls, middle, color=color, linestyle=line)
            axes.set_yscale("log")
            if start is not None:
                axes.axhline(start[game], color=GREY, linewidth=0.7, zorder=0.5)
                axes.set_ylim(top=min(axes.get_ylim()[1], 10 * start[game]))
            _log(axes.yaxis)
            axes.set_title(game)
            axes.grid(color="#e6e6e6", linewidth=0.6)
            axes.set_xlabel("oracle calls")
            if i % 3 == 0:
                axes.set_ylabel("distance")
        figure.legend(
            list(shown.values()),
            list(shown),
            loc="outside lower center",
            ncols=min(len(shown), columns),
        )
    return figure


def paths(results: Mapping[str, Shaped[ArrayLike, "T 2"]], *, methods: Sequence[str] | None = None) -> Any:
    """Joint trajectories in a plane through the solution: a panel per method.

    Args:
      results: per method ``[T, 2]`` coordinates relative to the solution.
      methods: all methods, in the order of their colours.

    Returns:
      A ``matplotlib.figure.Figure``; all panels have one scale, that of the start.

    Example:
      >>> import numpy as np
      >>> figure = paths({"sgd": np.eye(2)})
      >>> figure.axes[0].get_xlabel()
      'x, along u'
    """
    look = looks(list(methods or results))
    limit = 1.6 * max(np.abs(np.asarray(path, float)[0]).max() for path in results.values())
    limit = max(limit, 1e-6)
    with style():
        figure, grid = _panels(len(results), height=2.3)
        for axes, (name, path) in zip(grid, results.items(), strict=True):
            path = np.asarray(path, float)
            path = np.where(np.isfinite(path), path, np.nan)
            color = look[name].color
            axes.axhline(0, color="#d0d0d0", linewidth=0.6, zorder=0.4)
            axes.axvline(0, color="#d0d0d0", linewidth=0.6, zorder=0.4)
            axes.plot(path[:, 0], path[:, 1], color=color, linewidth=0.8)
            axes.plot(*path[0], marker="o", color=DARK, markersize=5, linestyle="none")
            axes.plot(0, 0, marker="+", color="black", markersize=9, linestyle="none")
            axes.set_xlim(-limit, limit)
            axes.set_ylim(-limit, limit)
            axes.set_aspect("equal")
            axes.set_title(name)
            axes.set_xlabel("x, along u")
        for axes in grid[::3]:
            axes.set_ylabel("y, along v")
    return figure


def stability_map(
    learning_rates: Shaped[ArrayLike, "L"],
    optimism: Shaped[ArrayLike, "O"],
    results: Mapping[str, tuple[Any, Any]],
    *,
    start: float,
) -> Any:
    """Where a method converges: measured distances as colours, the analytic boundary as a line.

    Args:
      learning_rates: ``[L]``, increasing.
      optimism: ``[O]``, increasing.
      results: per method ``(distance [L, O], radius [L, O])``: the distance that was reached, and the spectral
        radius of the method's operator on the mean game. The boundary is where it is 1.
      start: the distance at the start; what is farther, or not finite, is hatched as not converged.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> import numpy as np
      >>> seen = (np.array([[0.1, 20.0], [0.2, 0.3]]), np.array([[0.9, 1.1], [0.9, 0.99]]))
      >>> figure = stability_map(np.array([0.01, 0.1]), np.array([1.0, 10.0]), {"omega": seen}, start=10.0)
      >>> figure.axes[0].get_xlabel()
      'learning rate'
    """
    log_norm, line = need("matplotlib.colors").LogNorm, need("matplotlib.lines").Line2D
    patch = need("matplotlib.patches").Patch
    rates, optimism = np.asarray(learning_rates), np.asarray(optimism)
    measured = {name: np.asarray(d, float).T for name, (d, _) in results.items()}
    good = {name: np.isfinite(d) & (d < start) for name, d in measured.items()}
    best = min((d[good[name]].min() for name, d in measured.items() if good[name].any()), default=1)
    with style():
        figure, grid = _panels(len(results), columns=2, height=2.6)
        mesh = None
        for axes, (name, (_, radius)) in zip(grid, results.items(), strict=True):
            axes.set_facecolor("#ededed")
            inside = np.ma.masked_where(~good[name], measured[name])
            colors = {"norm": log_norm(best, max(start, 1.01 * best)), "cmap": "viridis"}
            edges = _edges(rates), _edges(optimism)
            mesh = axes.pcolormesh(*edges, inside, shading="flat", rasterized=True, **colors)
            log_radius = np.log(np.maximum(np.asarray(radius, float).T, 1e-12))
            if log_radius.min() < 0 < log_radius.max():
                axes.contour(rates, optimism, log_radius, [0.0], colors="#D55E00", linewidths=1.6)
            axes.set_xscale("log")
            axes.set_yscale("log")
            _log(axes.xaxis, axes.yaxis)
            axes.set_title(name)
            axes.set_xlabel("learning rate")
        grid[0].set_ylabel("optimism")
        bar = figure.colorbar(mesh, ax=grid, label="distance at the end", shrink=0.9)
        _log(bar.ax.yaxis)
        handles = [line([], [], color="#D55E00"), patch(facecolor="#ededed")]
        words = ["boundary of the mean game, from theory", "no nearer than the start, measured"]
        figure.legend(handles, words, loc="outside lower center", ncols=2)
    return figure


def effect(
    panels: Mapping[str, Mapping[str, tuple[Any, Any]]],
    *,
    xlabel: str,
    ylabel: str = "distance at the end",
    log_x: bool = True,
    start: Mapping[str, float] | None = None,
    columns: int = 3,
) -> Any:
    """The effect of a parameter: a panel per game, a line with quartiles over seeds per method.

    Args:
      panels: ``{game: {label: (values [X], result [S, X])}}``.
      xlabel: what the parameter is.
      ylabel: what the result is.
      log_x: whether the parameter's axis is logarithmic.
      start: per game the distance at the start, a thin line.
      columns: of the legend, at most; one under a single panel.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> import numpy as np
      >>> line = (np.array([1, 10]), np.array([[1.0, 0.5]]))
      >>> figure = effect({"bilinear": {"omega": line}}, xlabel="batch size")
      >>> figure.axes[0].get_xlabel()
      'batch size'
    """
    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    look: dict[str, Look] = looks(labels)
    shown: dict[str, Any] = {}
    with style():
        figure, grid = _panels(len(panels))
        for i, (axes, (game, lines)) in enumerate(zip(grid, panels.items(), strict=True)):
            for label, (x, result) in lines.items():
                low, middle, high = _band(np.asarray(result, float))
                color, marker, line = look[label]
                axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
                (shown[label],) = axes.plot(x, middle, color=color, linestyle=line, marker=marker, markersize=4)
            axes.set_yscale("log")
            if log_x:
                axes.set_xscale("log")
            if start is not None:
                axes.axhline(start[game], color=GREY, linewidth=0.7, zorder=0.5)
                axes.set_ylim(top=min(axes.get_ylim()[1], 10 * start[game]))
            _log(axes.yaxis, *([axes.xaxis] if log_x else []))
            axes.set_title(game)
            axes.set_xlabel(xlabel)
            axes.grid(color="#e6e6e6", linewidth=0.6)
            if i % 3 == 0:
                axes.set_ylabel(ylabel)
        figure.legend(
            list(shown.values()),
            list(shown),
            loc="outside lower center",
            ncols=min(len(shown), columns if len(panels) > 1 else 1),
        )
    return figure
