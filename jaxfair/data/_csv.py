"""Tables as text: one reader, of the standard library alone, with rules that can be read here.

================  ===============================================================================
separator         ``,`` ``;`` tab or ``|``: whichever parts the first line into most names
encoding          UTF-8, with or without a byte order mark, or UTF-16 with one
quotes            ``"..."`` around a value; inside it a separator, a new line, and ``""`` for ``"``
header            the first line that is not empty; names are stripped, and each occurs once
number            as Python writes it (``1``, ``-2.5``, ``1e-3``); where the separator is no comma also
                  ``2,5``, but not both in one file
truth value       ``True``, ``true``, ``TRUE`` and the same of False: 1 and 0
missing           nothing, or one of :data:`~jaxfair.data._codes.MISSING`; a column of nothing else is empty
words             all else. A column of words is text. If half of it are numbers, it is refused: a word in
                  it is a mistake, or a missing value of its own kind (``?``)
lines             with as many values as the header; those with none at all are left out
================  ===============================================================================

A large file is read in pieces: what is kept are 8 bytes per number, and the words of the columns that
are asked for.
"""

import csv
import io
import math
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from jaxfair.data._codes import MISSING
from jaxfair.data._errors import DataError, listed
from jaxfair.data._table import INDEX, Column, Table, first_line, once

_TRUTH = {"True": 1.0, "true": 1.0, "TRUE": 1.0, "False": 0.0, "false": 0.0, "FALSE": 0.0}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
#: Of a class or a group: what is written otherwise, such as 007, is a name.
_CODE = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_ROWS = 50_000
#: Share of words above which a column is text, and not numbers with mistakes.
_TEXT = 0.5
#: Words that people read as numbers: with separators of thousands, a comma, a unit.
_LIKE = re.compile(r"[+-]?[$€£]?\s?(\d{1,3}([,'_ .]\d{3})+|\d+)([.,]\d+)?\s?[%$€£]?")


def read_csv(
    path: pathlib.Path, words: Collection[str], drop: Collection[str] = (), features: Collection[str] = ()
) -> Table:
    """The columns of a ``.csv`` file; see the head of this file.

    Args:
      path: of the file.
      words: names of columns whose values are wanted even if they are text.
      drop: names of columns that nobody wants: they may hold anything.
      features: the only ones, beside ``words``, that are wanted, where there are any.

    Raises:
      DataError: no header, lines of unequal length, a column twice, not UTF-8, numbers with words among them, decimal
        commas and points in one file.
    """
    try:
        with path.open(encoding=_encoding(path), newline="") as file:
            return _read(path, file, words, drop, features)
    except UnicodeError as error:
        raise DataError(f"{path} is no text in UTF-8 ({first_line(error)}): save it as CSV UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}): look for a quote that is not closed") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None


def _encoding(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        mark = file.read(2)
    return "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _read(
    path: pathlib.Path,
    file: io.TextIOWrapper,
    words: Collection[str],
    drop: Collection[str],
    features: Collection[str],
) -> Table:
    separator = _separator(file.read(1 << 16))
    file.seek(0)
    rows = csv.reader(file, delimiter=separator)
    header = next((row for row in rows if any(v.strip() for v in row) and not row[0].startswith("sep=")), None)
    if header is None:
        raise DataError(f"{path} is empty: its first line must name the columns")
    names = _named(path, header)
    if all(_CODE.fullmatch(name) for name in names):
        raise DataError(f"{path} has no names of columns, but {listed(names, limit=5)}: name them in its first line")
    free = {name for name in names if name in drop or (features and name not in (*features, *words))}
    columns = [_Column(name, separator != ",", name in words or name in free) for name in names]
    total, empty = 0, 0
    for chunk, without in _chunks(path, rows, len(names)):
        for column, values in zip(columns, zip(*chunk, strict=True), strict=False):
            column.add(values)
        total, empty = total + len(chunk), empty + without
    if not total:
        raise DataError(f"{path} has a header and no rows: add the data")
    wanted = [column for column in columns if column.name not in free and not column.is_text()]
    pointed = next((column.name for column in wanted if column.points), None)
    commas = next((column.name for column in wanted if column.commas), None)
    if pointed is not None and commas is not None:
        raise DataError(
            f"{path} has a decimal comma in column {commas!r} and a decimal point in {pointed!r}: write points "
            "everywhere, without separators of thousands"
        )
    sentences = (f"left out: {empty} lines without a value",) if empty else ()
    return Table(
        str(path),
        {column.name: column.done(str(path)) for column in columns},
        tuple(name for name in names if name.startswith(INDEX)),
        total,
        sentences,
    )


def _separator(text: str) -> str:
    first = next((line for line in text.lstrip("\ufeff\r\n \t").splitlines() if line.strip()), "")
    if re.fullmatch(r"sep=.", first):  # written by and for spreadsheets
        return first[-1]
    sample = text.lstrip("\ufeff\r\n")
    found = {s: len(next(csv.reader(io.StringIO(sample, newline=""), delimiter=s), ())) for s in ",;\t|"}
    return max(found, key=lambda s: found[s])


def _named(path: pathlib.Path, header: list[str]) -> list[str]:
    """Names of all columns; one without a name is called as pandas does, which is how an index comes back."""
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(header)]
    return once(str(path), names)


def _chunks(path: pathlib.Path, rows: Any, width: int) -> Iterator[tuple[list[list[str]], int]]:
    """Lines of the right length, many at a time, and how many empty ones were left out."""
    chunk: list[list[str]] = []
    empty = 0
    for row in rows:
        if len(row) != width:
            if any(value.strip() for value in row):
                raise DataError(
                    f"{path}: line {rows.line_num} has {len(row)} values and the header {width} names: put values that "
                    "hold a separator in quotes, and look for a quote that is not closed"
                )
            empty += 1
        elif any(map(str.strip, row)):
            chunk.append(row)
        else:
            empty += 1
        if len(chunk) == _ROWS:
            yield chunk, empty
            chunk, empty = [], 0
    yield chunk, empty


class _Column:
    """A column as it is read: numbers as long as it can be, and its words where they are asked for."""

    def __init__(self, name: str, decimal_comma: bool, keep: bool) -> None:
        self.name, self.decimal_comma, self.keep = name, decimal_comma, keep
        self.numbers: list[np.ndarray] = []
        self.words: list[str] = []
        self.seen: dict[str, str] = {}
        self.rows = self.count = self.truths = self.others = 0
        self.points = self.commas = False
        self.first = ("", 0)

    def add(self, values: tuple[str, ...]) -> None:
        if self.keep:
            self.words += [self.seen.setdefault(value, value) for value in values]
        if not self.is_text():
            try:
                found = [float(value) for value in values]
                if any("_" in value for value in values):  # digits may be parted by it in Python only
                    raise ValueError
                self.count += len(found) - sum(map(math.isnan, found))
            except ValueError:
                found = [self._number(value.strip(), self.rows + i) for i, value in enumerate(values)]
            self.points |= self.decimal_comma and any("." in value for value in values)
            self.numbers.append(np.array(found, np.float64))
        self.rows += len(values)

    def _number(self, value: str, row: int) -> float:
        if value in MISSING:
            return np.nan
        if value in _TRUTH:
            self.truths += 1
            return _TRUTH[value]
        text = self._pointed(value)
        self.commas |= text != value
        try:
            found = float("word" if "_" in text else text)
        except ValueError:
            self.others += 1
            self.first = self.first if self.first[0] else (value, row)
            return np.nan
        self.count += not math.isnan(found)
        return found

    def _pointed(self, value: str) -> str:
        """With a decimal point where there is a comma for it."""
        return value.replace(",", ".") if self.decimal_comma and _DECIMAL_COMMA.fullmatch(value) else value

    def is_text(self) -> bool:
        """Whether so much of it is words that it is not meant to be numbers."""
        return self.others > _TEXT * (self.count + self.truths + self.others)

    def done(self, path: str) -> Column:
        words = self._typed() if self.keep else None
        kind = "truth" if self.truths else "number"
        if self.is_text() or (self.others and not self.count):
            like = _LIKE.fullmatch(self.first[0]) is not None
            return Column(f"text: {self.first[0]!r} is no number here" if like else "text", None, words)
        if not self.count and not self.truths:
            return Column("empty", None, words)
        if self.count and (self.others or self.truths):
            if self.keep:  # a class or a group may be both
                return Column("text", None, words)
            word, row = self.first if self.others else ("True", None)
            where = "" if row is None else f" in row {row}, the first of {self.others}"
            raise DataError(
                f"column {self.name!r} of {path} holds numbers, and {word!r}{where}: make it empty where it is "
                f"missing, or leave the column out by drop={self.name!r}"
            )
        return Column(kind, np.concatenate(self.numbers), words)

    def _typed(self) -> np.ndarray:
        """The words, as truth values or numbers where all of them are; None where they are missing."""
        stripped = {word: word.strip() for word in self.seen}
        present = {word for word in stripped.values() if word not in MISSING}
        if present and present <= set(_TRUTH):
            value: dict[str, Any] = {word: bool(_TRUTH[word]) for word in present}
        elif present and all(_CODE.fullmatch(self._pointed(word)) for word in present):
            value = {word: float(self._pointed(word)) for word in present}
            value = {word: int(word) if re.fullmatch(r"[+-]?\d+", word) else number for word, number in value.items()}
        else:
            value = {word: word for word in present}
        result = np.empty(len(self.words), object)
        result[:] = [value.get(stripped[word], stripped[word]) for word in self.words]
        return result
