"""Which columns of a table are features, and what has to be said of their numbers."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from jaxfair.data._categories import check_categorical, indicators
from jaxfair.data._errors import DataError, listed
from jaxfair.data._groups import Names, named
from jaxfair.data._table import Table

#: Columns whose root mean square is larger, and deviations that differ by more, are worth a warning: from about 10 on,
#: steps of SGD at the rates of the recipes are too long for the first layer, and it dies.
_LARGE, _APART = 10, 1e3
#: Fewer rows than this may well have a different number each.
_ROWS = 20


def select(
    table: Table, label: str, used: Collection[str], features: Names | None, drop: Names, categorical: Names = ()
) -> tuple[np.ndarray, tuple[str, ...], int, tuple[str, ...]]:
    """The features of a table.

    Args:
      table: the columns.
      label: the column of the class, which is never a feature.
      used: columns that are groups or a split, which are features only if they are asked for.
      features: the columns to take; none named: all numbers and truth values.
      drop: columns not to take.
      categorical: columns of which each value is a feature of 0 and 1; behind the others.

    Returns:
      ``[N, D]`` float64, D names, the last K of which are of categories, K, and sentences on what was taken.

    Raises:
      DataError: a name that is no column, a feature that is no number, no feature left.
    """
    kinds = named(categorical)
    asked, dropped = tuple(name for name in named(features) if name not in kinds), named(drop)
    check_categorical(table, kinds, label, dropped)
    for option, names in (("features", asked), ("drop", dropped)):
        for name in names:
            if name not in table.columns:
                raise DataError(f"{option}={name!r} is no column of {table.name}: choose from {listed(table.columns)}")
    for name in asked:
        column = table.columns[name]
        if name == label or name == "split":
            raise DataError(
                f"features={name!r} is the {'class' if name == label else 'split'} of {table.name}: leave it out"
            )
        if name in dropped or asked.count(name) > 1:
            raise DataError(f"features={name!r} is named twice, or dropped as well: name it once")
        if column.numbers is None:
            raise DataError(
                f"features={name!r} of {table.name} is no number but {column.kind}: leave it out, or name it by "
                "categorical=, which makes a feature of 0 and 1 of each of its values"
            )
    taken, left = [], []
    for name, column in table.columns.items():
        if name in kinds:
            continue
        why = _why_not(name, column, label, used, dropped, table.index)
        if name in asked or (not named(features) and why is None):
            taken.append(name)
        elif name != label and not (name == "split" and why == "used"):
            left.append(f"{name} ({why or 'not asked for'})")
    taken = list(asked) or taken
    if not taken and not kinds:
        said = f": dropped {listed(left)}" if left else ""
        raise DataError(f"{table.name} has no numeric column beside {listed([label, *used])}{said}; add the features")
    x = np.stack([np.asarray(table.columns[name].numbers, np.float64) for name in taken], axis=1) if taken else None
    ones, of_ones, told = indicators(table, kinds, taken)
    sentences = [f"features: {listed(taken)} ({len(taken)} of {len(table.columns)} columns)"] if taken else []
    sentences += told
    if left:
        words = not kinds and any(name.endswith(" (text)") for name in left)
        sentences.append(f"dropped: {listed(left)}" + "; categorical= learns from words" * words)
    if x is None:
        return ones, of_ones, len(of_ones), tuple(sentences)
    sentences += _row_numbers(x, taken)
    return np.concatenate([x, ones], axis=1), (*taken, *of_ones), len(of_ones), tuple(sentences)


def _why_not(
    name: str, column: Any, label: str, used: Collection[str], dropped: Collection[str], index: Collection[str]
) -> str | None:
    """Why a column is no feature; None if it is one."""
    if name in dropped:
        return "asked to drop"
    if name == label or name == "split":
        return "used"
    if name in used:
        return "a group"
    if name in index:
        return "index"
    return column.kind if column.numbers is None else None


def _row_numbers(x: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Columns that look like the number of a row: whole numbers without a gap, another in every row."""
    found = []
    for column, name in zip(x.T, names, strict=True):
        if len(column) < _ROWS or not np.isfinite(column).all() or np.any(column != np.floor(column)):
            continue
        if column.max() - column.min() == len(column) - 1 and len(np.unique(column)) == len(column):
            found.append(name)
    return (f"looks like a number of the row: {listed(found)}; drop= leaves it out",) if found else ()


def as_float32(where: str, x: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """``x`` as float32.

    Raises:
      DataError: a number is missing, infinite, or larger than float32 holds; says in which row and column.
    """
    with np.errstate(over="ignore"):
        narrow = np.asarray(x, np.float32)
    finite = np.isfinite(narrow).reshape(len(narrow), -1)
    rows = np.flatnonzero(~finite.all(axis=1))
    if not len(rows):
        return narrow
    row, place = int(rows[0]), int((~finite[rows[0]]).argmax())
    value = np.asarray(x).reshape(len(x), -1)[row, place]
    column = f", column {names[place]!r}," if names else ""
    many = f"({len(rows)} rows in all)"
    if np.isnan(value):
        raise DataError(
            f"{where}: x of row {row}{column} is missing {many}: fill in numbers that are missing, remove these rows, "
            "or leave the column out by drop="
        )
    if np.isinf(value):
        raise DataError(f"{where}: x of row {row}{column} is infinite {many}: replace it, or remove these rows")
    raise DataError(
        f"{where}: x of row {row}{column} is {value:g}, which is not finite in float32 (at most 3.4e38) {many}: divide "
        "the column by a number, or take its logarithm"
    )


def remarks(x: np.ndarray, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is odd about the features of the training split.

    Args:
      x: ``[N, ...]`` float32.
      names: of the columns; empty where they have none.

    Returns:
      Sentences, and those of them that are worth a warning.
    """
    said, worth = [], []
    names = names or ([f"column {i}" for i in range(x.shape[1])] if x.ndim == 2 else [])
    if names:
        low, high = x.min(axis=0), x.max(axis=0)
        constant = [name for name, a, b in zip(names, low, high, strict=True) if a == b]
        if constant:
            said.append(f"the same for everybody in train: {listed(constant)}; says nothing")
        deviation = x.std(axis=0, dtype=np.float64)
        spread = np.where(low == high, np.nan, deviation)
        size = np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=0))
        top = int(size.argmax())
        which = f"{names[top]} reaches {max(abs(low[top]), abs(high[top])):g}"
        apart = len(constant) < len(names) and np.nanmax(spread) > _APART * np.nanmin(spread)
        if size[top] <= _LARGE and apart:
            of = [names[int(i)] for i in (np.nanargmin(spread), np.nanargmax(spread))]
            which = f"{of[1]} differs {np.nanmax(spread) / np.nanmin(spread):.0g} times as much as {of[0]}"
    else:
        size, top, apart = np.sqrt(np.mean(np.square(x, dtype=np.float64)))[None], 0, False
        which = f"x reaches {np.abs(x).max():g}"
    if size[top] > _LARGE or apart:
        worth.append(
            f"{which}: a network may learn nothing from numbers so large or so far apart; standardize=True divides by "
            "the deviation"
        )
    return said + worth, worth


def standardized(x: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """``x`` less the mean of the training split, by its deviation; and both, ``[...]`` float64.

    A column of nothing but 0 and 1 stays: divided by its deviation, what one person of a thousand has would be 32.

    Example:
      >>> x, (mean, deviation) = standardized(np.array([[1.0, 5.0], [3.0, 5.0], [4.0, 5.0]]), np.array([0, 1]))
      >>> x.tolist(), mean.tolist(), deviation.tolist()
      ([[-1.0, 0.0], [1.0, 0.0], [2.0, 0.0]], [2.0, 5.0], [1.0, 1.0])
    """
    known = np.asarray(x[train], np.float64)
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    # What is the same for everybody is 0, and not what rounding leaves of it.
    low, same = known.min(axis=0), known.min(axis=0) == known.max(axis=0)
    mean, deviation = np.where(same, low, mean), np.where(same, 1.0, deviation)
    flags = ((known == 0) | (known == 1)).all(axis=0)
    mean, deviation = np.where(flags, 0.0, mean), np.where(flags, 1.0, deviation)
    return ((x - mean) / deviation), (mean, deviation)
