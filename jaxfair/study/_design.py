"""Designs from files: the levels that a row of a CSV file names.

A file is written by a person or a spreadsheet, which writes 0.10 for 0.1. A word that is no level is not guessed at.
"""

import csv
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

#: Each factor with its levels.
Levels = Mapping[str, Sequence[Any]]


def read(path: str | os.PathLike[str], levels: Levels) -> list[dict[str, Any]]:
    r"""A design from a CSV file, a row per setting, with the values of the levels that it names.

    Args:
      path: of the file.
      levels: of each factor. Numbers may be written in any way: ``0.10`` is the level 0.1.

    Raises:
      ValueError: where a row has no value of a factor, or one that is not among its levels.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "design.csv"
      >>> _ = path.write_text("mean,rate\nuniform,0.10\n")
      >>> read(path, {"mean": ("uniform", "prevalence"), "rate": (0.01, 0.1)})
      [{'mean': 'uniform', 'rate': 0.1}]
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))

    def level(row: int, name: str) -> Any:
        text = rows[row].get(name)
        found = [v for v in levels[name] if str(v) == text] or [v for v in levels[name] if _same_number(v, text)]
        if not found:
            raise ValueError(
                f"row {row + 1} of {os.fspath(path)} has {'nothing' if text is None else repr(text)} in the column "
                f"{name!r}, which is none of its levels: {', '.join(map(repr, levels[name]))}"
            )
        return found[0]

    return [{name: level(row, name) for name in levels} for row in range(len(rows))]


def _same_number(value: Any, text: str | None) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False  # a word is compared as a word: "1" is not "1.0"
    try:
        return float(text or "") == float(value)
    except ValueError:
        return False
