"""Sources of a command line, ``FILE:COLUMN``, and files whose people are brought into one order.

A source is ``FILE`` or ``FILE:COLUMN``; after the first, a column alone is one of the same file, and with ``--table``
every source is a column of that table. Sources of predictions may have a name, ``pruned=FILE``; those of one name are
networks of one kind. A column that is not there is looked for as one of each class: ``p`` as ``p_no``, ``p_yes``.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair import data
from jaxfair.cli.failures import UsageError

#: Names of arrays of a ``.npz`` file that speak for themselves, and columns that no role asks for.
USUAL = {
    "before": ("before", "predictions", "probabilities", "logits"),
    "after": ("after", "predictions", "probabilities", "logits"),
    "labels": ("y", "labels", "label"),
    "groups": ("group", "groups"),
    "images": ("images", "x"),
}
NAMES = ("class_names", "group_names")


class Source(NamedTuple):
    """Where values stand.

    Attributes:
      flag: that gave it, for errors.
      name: of the kind of network; empty where none was given.
      path: of the file.
      column: empty where the file has to say it.
    """

    flag: str
    name: str
    path: str
    column: str

    def __str__(self) -> str:
        return f"{self.path}:{self.column}" if self.column else self.path


def named_sources(flag: str, words: Sequence[str], table: str, *, named: bool = False) -> list[Source]:
    """What a flag names.

    Args:
      flag: its name.
      words: as it was given.
      table: of which all are columns; empty without one.
      named: whether a source may have a name.

    Raises:
      UsageError: nothing, or a column of no file.

    Example:
      >>> [str(source) for source in named_sources("groups", ["people.csv:sex", "age"], "")]
      ['people.csv:sex', 'people.csv:age']
      >>> named_sources("after", ["int8=p8", "int4=p4"], "said.parquet", named=True)[1]
      Source(flag='after', name='int4', path='said.parquet', column='p4')
    """
    found: list[Source] = []
    for word in words:
        name, sign, rest = word.partition("=")
        if not (named and sign and name) or _is_file(word):
            name, rest = "", word
        if table:
            found.append(Source(flag, name, table, rest))
            continue
        path, colon, column = rest.rpartition(":")
        if _is_file(rest) or not colon:
            path, column = rest, ""
        if not _is_file(path) and not colon and found and not pathlib.PurePath(path).suffix:
            path, column = found[-1].path, path
        found.append(Source(flag, name, path, column))
    return found


def _is_file(path: str) -> bool:
    try:
        return pathlib.Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, or has a NUL in it
        return False


class Files:
    """Files of which each is read once, and whose people are brought into one order."""

    def __init__(self, id: str = "") -> None:
        self.id = id
        self._read: dict[str, dict[str, np.ndarray]] = {}
        self._order: dict[str, np.ndarray] = {}
        self.ids: np.ndarray | None = None
        self.first = ""
        self.left_out: list[str] = []

    @property
    def paths(self) -> list[str]:
        """Of the files that were read."""
        return [*self._read]

    def columns(self, path: str) -> dict[str, np.ndarray]:
        """The columns of a file."""
        if path not in self._read:
            self._read[path] = data.columns(path)
        return self._read[path]

    def start(self, source: Source) -> np.ndarray:
        """The labels, whose people and order all other files follow."""
        values = self.columns(source.path)[self.chosen(source)]
        self.first = str(source)
        if self.id:
            self.ids = self._ids(source.path)
            if len(self.ids) != len(values):
                raise UsageError(f"{source.path} has {len(self.ids)} values of {self.id!r} and {len(values)} labels")
        return values

    def chosen(self, source: Source) -> str:
        """The name of the column of a source; see :meth:`several` for columns that are one of each class."""
        found = self.columns(source.path)
        if source.column:
            if source.column not in found:
                raise UsageError(
                    f"{source.path} has no column {source.column!r} (--{source.flag}), only {_listed(found)}"
                )
            return source.column
        free = [name for name in found if name not in (self.id, *NAMES)]
        usual = [name for name in USUAL.get(source.flag, ()) if name in free]
        if len(free) == 1 or usual:
            return (usual or free)[0]
        raise UsageError(
            f"--{source.flag}={source.path}: the file has {_listed(free)}: say which, as {source.path}:{free[0]}"
            if free
            else f"--{source.flag}={source.path}: the file has no column but {self.id!r}"
        )

    def several(self, source: Source, class_names: Sequence[str]) -> np.ndarray:
        """The values of a source, which may be a column of each class, ``[N, C]``."""
        found = self.columns(source.path)
        if source.column not in found:
            stem = f"{source.column}_" if source.column else ""
            for prefix in dict.fromkeys((stem, *(() if stem else ("p_", "prob_", "probability_")))):
                if all(f"{prefix}{name}" in found for name in class_names):
                    return np.stack([np.asarray(found[f"{prefix}{name}"], float) for name in class_names], 1)
        return found[self.chosen(source)]

    def aligned(self, values: np.ndarray, source: Source, axis: int, people: int) -> np.ndarray:
        """The values in the order of the labels.

        Raises:
          UsageError: other people, or as many that they cannot be the same.
        """
        if self.ids is None:
            if values.shape[axis] != people:
                raise UsageError(
                    f"{source} has {values.shape[axis]} people and {self.first} {people}: give the same people in the "
                    "same order, or name the column that says who they are by --id"
                )
            return values
        if source.path not in self._order:
            self._order[source.path] = self._places(source.path)
        return np.take(values, self._order[source.path], axis)

    def _ids(self, path: str) -> np.ndarray:
        found = self.columns(path)
        if self.id not in found:
            raise UsageError(f"{path} has no column {self.id!r} (--id), only {_listed(found)}")
        ids = found[self.id]
        if ids.ndim != 1:
            raise UsageError(f"{path}: {self.id!r} has shape {ids.shape}: give one value per person")
        words = np.array([str(value).strip() for value in ids.tolist()], object)
        seen: dict[str, int] = {}
        for row, word in enumerate(words):
            if word in ("", "None", "nan"):
                raise UsageError(f"{path}, row {row}: {self.id!r} is missing: give everybody one")
            if word in seen:
                raise UsageError(
                    f"{path}, row {row}: {self.id!r} {word!r} stands in row {seen[word]} as well: keep one"
                )
            seen[word] = row
        return words

    def _places(self, path: str) -> np.ndarray:
        assert self.ids is not None
        ids = self._ids(path)
        at = {word: row for row, word in enumerate(ids)}
        for row, word in enumerate(self.ids):
            if word not in at:
                raise UsageError(
                    f"{path} lacks {self.id!r} {word!r}, which {self.first} has in row {row}: add that person, or take "
                    "them out of the labels"
                )
        more = len(ids) - len(self.ids)
        if more:
            self.left_out.append(f"{path}: {more:,} {'person' if more == 1 else 'people'} without a label left out.")
        return np.array([at[word] for word in self.ids])


def _listed(names: Any) -> str:
    names = [*map(str, names)]
    return ", ".join(map(repr, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
