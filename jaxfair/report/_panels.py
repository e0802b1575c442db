"""From a study's records to the panels of a figure that shows all seeds: a line per method, with a band."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def panels(
    records: Sequence[Mapping[str, Any]],
    column: str,
    *,
    along: str,
    of: str = "method",
    panel: str = "game",
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Numbers of all seeds, by panel and line: what :func:`jaxfair.report.figures.effect` draws.

    Args:
      records: of a run; each level of a line has the same seeds.
      column: a number.
      along: the field whose values are the levels.
      of: the field that names the lines.
      panel: the field that names the panels.

    Returns:
      ``{panel: {line: (levels [X], numbers [S, X])}}``. A panel in which no median over seeds is finite is left out:
      there is nothing to draw.

    Example:
      >>> records = [{"game": "xy", "method": "omega", "level": level, "seed": seed, "final": level / 2}
      ...            for level in (1, 10) for seed in range(3)]
      >>> levels, numbers = panels(records, "final", along="level")["xy"]["omega"]
      >>> levels.tolist(), numbers.shape
      ([1, 10], (3, 2))
    """
    found: dict[str, Any] = {}
    for r in records:
        line = found.setdefault(r[panel], {}).setdefault(r[of], {})
        line.setdefault(r[along], []).append(r[column])
    made = {
        name: {label: (np.array([*line]), np.array([*line.values()], float).T) for label, line in lines_of.items()}
        for name, lines_of in found.items()
    }
    return {
        name: lines_of
        for name, lines_of in made.items()
        if any(np.isfinite(np.median(numbers, axis=0)).any() for _, numbers in lines_of.values())
    }


def curves(
    records: Sequence[Mapping[str, Any]],
    column: str,
    *,
    along: str,
    of: str = "method",
    panel: str = "game",
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Curves of all seeds, each in a record, by panel and line: as :func:`panels` gives numbers.

    Args:
      records: of a run, one per seed.
      column: a list of R numbers.
      along: the list of R places that they belong to, the same one for all seeds of a line.
      of: the field that names the lines.
      panel: the field that names the panels.

    Returns:
      ``{panel: {line: (places [R], numbers [S, R])}}``.

    Example:
      >>> records = [{"game": "xy", "method": "omega", "seed": seed, "calls": [1, 2], "distance": [1.0, 0.5]}
      ...            for seed in range(3)]
      >>> calls, distance = curves(records, "distance", along="calls")["xy"]["omega"]
      >>> calls.tolist(), distance.shape
      ([1, 2], (3, 2))
    """
    found: dict[str, Any] = {}
    for r in records:
        line = found.setdefault(r[panel], {}).setdefault(r[of], (np.array(r[along]), []))
        line[1].append(r[column])
    return {
        name: {label: (places, np.array(rows, float)) for label, (places, rows) in lines_of.items()}
        for name, lines_of in found.items()
    }
