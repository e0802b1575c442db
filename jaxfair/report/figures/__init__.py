"""Figures from plain arrays; each function returns a matplotlib Figure, and ``save`` writes it."""

from jaxfair.report.figures.before_after import before_and_after
from jaxfair.report.figures.differences import Compared, Difference, differences
from jaxfair.report.figures.forest import forest
from jaxfair.report.figures.frontier import frontier
from jaxfair.report.figures.games import distance_over_calls, effect, paths, stability_map
from jaxfair.report.figures.groups import gaps_by_group
from jaxfair.report.figures.levels import Panel, levels
from jaxfair.report.figures.pictures import pictures
from jaxfair.report.figures.style import (
    COLORS,
    DARK,
    Look,
    looks,
    new_figure,
    png,
    save,
    style,
    svg,
)
from jaxfair.report.figures.tradeoff import accuracy_against_gap
from jaxfair.report.figures.trajectories import Trajectory, trajectories

__all__ = [
    "COLORS",
    "DARK",
    "Compared",
    "Difference",
    "Look",
    "Panel",
    "Trajectory",
    "accuracy_against_gap",
    "before_and_after",
    "differences",
    "distance_over_calls",
    "effect",
    "forest",
    "frontier",
    "gaps_by_group",
    "levels",
    "looks",
    "new_figure",
    "paths",
    "pictures",
    "png",
    "save",
    "stability_map",
    "style",
    "svg",
    "trajectories",
]
