"""From the values of a column to codes and their names: what a class, a group and a missing value look like."""

import datetime
import decimal
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data._errors import DataError, listed
from jaxfair.data._groups import UNKNOWN

#: Words that are what becomes of a missing value once it is written down.
MISSING = frozenset(
    {"", "None", "nan", "NaN", "NAN", "Nan", "-nan", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT", "null", "NULL"}
)
#: Values that are no class, on average of fewer people than this; so are more values than that.
_FEW, _MANY = 5, 20


class Coded(NamedTuple):
    """A column as codes.

    Attributes:
      codes: ``[N]`` int64 that index ``names``.
      names: of the codes.
      sentences: on what was missing and how that was written.
    """

    codes: np.ndarray
    names: tuple[str, ...]
    sentences: tuple[str, ...] = ()


def classes(where: str, column: str, values: Any, names: Any) -> Coded:
    """The classes of a column, of which every row has one.

    Args:
      where: what the data are called in errors.
      column: its name.
      values: ``[N]`` integers, truth values (0 and 1) or words.
      names: ``C`` names, of which ``values`` holds numbers; None: the values are the names.

    Raises:
      DataError: a value is missing, a fraction or no value at all; one class; so many that they are no classes.

    Example:
      >>> classes("mine", "y", [1, -1, 1], None)
      Coded(codes=array([1, 0, 1]), names=('-1', '1'), sentences=())
    """
    plain = _values(where, column, values)
    missing = [row for row, value in enumerate(plain) if value is None or value in MISSING]
    if missing:
        how = f" (as {plain[missing[0]]!r})" if plain[missing[0]] else ""
        raise DataError(
            f"{column} of {where} is missing{how} in row {missing[0]} ({len(missing)} rows in all): if "
            "this is how a class is written, write a word such as 'no' or a number; if it is not known, leave these "
            "rows out"
        )
    codes, found = _coded(where, column, plain, names)
    number = len(set(codes.tolist()))
    if number < 2:
        raise DataError(
            f"{column} of {where} has one class, {found[codes[0]]!r}: there is nothing to tell apart; give a column of "
            "two classes or more"
        )
    if number > _MANY and number * _FEW > len(plain):
        what = "numbers, and no" if all(isinstance(v, int) for v in plain) else "words, and no"
        raise DataError(
            f"{column} of {where} has {number} different values in {len(plain)} rows: these are {what} classes; cut "
            "them into a few classes first, or name another column as the class"
        )
    return Coded(codes, found)


def groups(where: str, column: str, values: Any, names: Any) -> Coded:
    """The groups of a column; who has none is in ``unknown``.

    Args:
      where: what the data are called in errors.
      column: its name.
      values: ``[N]`` integers, truth values (0 and 1) or words; missing where they are None, NaN, -1 or in
        :data:`MISSING`.
      names: ``G`` names, of which ``values`` holds numbers; None: the values are the names.

    Raises:
      DataError: a value is a fraction or no value at all.

    Example:
      >>> groups("mine", "sex", ["men", "NA", None, "women"], None).names
      ('men', 'women', 'unknown')
    """
    plain = _values(where, column, values)
    none = MISSING | {"-1", UNKNOWN}
    missing = np.array([value is None or str(value) in none for value in plain])
    codes, found = _coded(where, column, [None if m else v for v, m in zip(plain, missing, strict=True)], names)
    if not missing.any():
        return Coded(codes, found)
    if UNKNOWN not in found:
        found = (*found, UNKNOWN)
    codes[missing] = found.index(UNKNOWN)
    written = sorted({str(v) for v, m in zip(plain, missing, strict=True) if m and v not in (None, "", UNKNOWN)})
    how = f" ({listed(map(repr, written))} in the data is read as missing)" if written else ""
    people = "1 person has" if missing.sum() == 1 else f"{int(missing.sum()):,} people have"
    return Coded(codes, found, (f"{people} no {column}: they are in {UNKNOWN!r}{how}",))


def split_names(where: str, values: Any) -> list[str | None]:
    """The split of each row, a word; None where it is missing."""
    return [None if value is None else str(value) for value in _values(where, "split", values)]


def _values(where: str, column: str, values: Any) -> list[int | str | None]:
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"{column} of {where} has shape {values.shape}: give one value per example")
    if values.dtype.kind == "M":  # as numbers of nanoseconds otherwise
        values = np.datetime_as_string(values).astype(object)
    if values.dtype.kind in "biu":
        return values.astype(int).tolist() if values.dtype != np.uint64 else values.tolist()
    return [_plain(value, row, column, where) for row, value in enumerate(values.tolist())]


def _plain(value: Any, row: int, column: str, where: str) -> int | str | None:
    """A value as ``int`` or ``str``; None where it is missing."""
    if isinstance(value, str):
        return value.strip()
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, list | tuple | set | dict | np.ndarray):
        raise DataError(f"{column} of {where} holds a {type(value).__name__} in row {row}: give one value per example")
    same = value == value  # False of NaN, and no truth value of pandas' NA
    if value is None or not (isinstance(same, bool | np.bool_) and same):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip("\0 ")
    if isinstance(value, float | decimal.Decimal):  # how integers look once one of them is missing
        if not math.isfinite(value):
            raise DataError(
                f"{column} of {where} is infinite ({value} in row {row}): a class or a group is an integer or a word; "
                "write the one that is meant, or leave such rows out"
            )
        if value != int(value):
            raise DataError(
                f"{column} of {where} holds fractions ({value} in row {row}): a class, a group or a category is "
                "an integer or a word; cut the numbers into a few of them first"
            )
        return int(value)
    if isinstance(value, int):
        return int(value)  # of truth values, too
    if isinstance(value, datetime.datetime) and not any((value.hour, value.minute, value.second, value.microsecond)):
        return str(value.date())
    return str(value).strip()


def _coded(
    where: str, column: str, plain: Sequence[int | str | None], names: Any
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes, -1 where missing, and their names."""
    if names is None:
        words = {str(value) for value in plain if value is not None}
        # Integers in the order of numbers, all else in the order of words.
        numbers = all(re.fullmatch(r"-?\d+", word, re.ASCII) for word in words)
        found = sorted(words, key=(lambda word: (int(word), word)) if numbers else None)
        code = {word: number for number, word in enumerate(found)}
        return np.array([-1 if v is None else code[str(v)] for v in plain], np.int64), tuple(found)
    found = [str(name) for name in np.asarray(names).reshape(-1)]
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"the names of {column} of {where} have {twice!r} twice: give each a name of its own")
    for value in plain:
        if value is not None and (not isinstance(value, int) or not 0 <= value < len(found)):
            raise DataError(
                f"{column} of {where} has the value {value!r}, but {len(found)} names are given: "
                f"use integers in [0, {len(found)})"
            )
    return np.array([-1 if value is None else value for value in plain], np.int64), tuple(found)
