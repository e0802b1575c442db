"""From files of predictions, labels and groups to arrays of the same people; for programs that audit what others made.

A source is ``FILE`` or ``FILE:COLUMN``; after the first, a column alone is one of the same file, and with ``--table``
every source is a column of that table. Sources of predictions may have a name, ``pruned=FILE``; those of one name are
networks of one kind. A column that is not there is looked for as one of each class: ``p`` as ``p_no``, ``p_yes``.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair import data
from jaxfair.audit import Predicted, predicted
from jaxfair.cli.failures import UsageError

#: Names of arrays of a ``.npz`` file that speak for themselves, and columns that no role asks for.
USUAL = {
    "before": ("before", "predictions", "probabilities", "logits"),
    "after": ("after", "predictions", "probabilities", "logits"),
    "labels": ("y", "labels", "label"),
    "groups": ("group", "groups"),
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


def sources(flag: str, words: Sequence[str], table: str, *, named: bool = False) -> list[Source]:
    """What a flag names.

    Args:
      flag: its name.
      words: as it was given.
      table: of which all are columns; empty without one.
      named: whether a source may have a name.

    Raises:
      UsageError: nothing, or a column of no file.

    Example:
      >>> [str(source) for source in sources("groups", ["people.csv:sex", "age"], "")]
      ['people.csv:sex', 'people.csv:age']
      >>> sources("after", ["int8=p8", "int4=p4"], "said.parquet", named=True)[1]
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
        usual = [name for name in USUAL[source.flag] if name in free]
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


def classes_of(values: np.ndarray, source: Source, names: Sequence[str]) -> tuple[np.ndarray, list[str], list[Any]]:
    """The labels as places among the classes.

    Args:
      values: ``[N]``.
      source: of them.
      names: of the classes, in the order of columns of probabilities; the values that occur where it is empty.

    Returns:
      ``[N]``, ``C`` names, and the ``C`` values by which classes are called in other files.

    Raises:
      UsageError: a label that is missing or no class, or fewer than two classes.

    Example:
      >>> where = Source("labels", "", "y.csv", "")
      >>> classes_of(np.array(["no", "yes", "no"], object), where, ())
      (array([0, 1, 0]), ['no', 'yes'], ['no', 'yes'])
      >>> classes_of(np.array([1, 0]), where, ("no", "yes"))
      (array([1, 0]), ['no', 'yes'], [0, 1])
    """
    if values.ndim != 1:
        raise UsageError(f"{source} has shape {values.shape}: give the class of each person, [N]")
    plain = [_plain(value, source, row) for row, value in enumerate(values.tolist())]
    kinds = {type(value) for value in plain}
    if len(kinds) > 1:
        raise UsageError(f"{source} holds words and numbers: give one kind")
    whole = kinds == {int}
    order = [*range(len(names))] if names and whole else [*names] if names else sorted(set(plain))
    at = {value: place for place, value in enumerate(order)}
    for row, value in enumerate(plain):
        if value not in at:
            raise UsageError(f"{source}, row {row}: {value!r} is none of the {len(names)} classes of --classes")
    if len(order) < 2:
        raise UsageError(f"{source} has one class, {order[0]!r}: name all classes by --classes")
    if len(order) > 1000 or (not names and len(order) > 20 and 5 * len(order) > len(plain)):
        raise UsageError(f"{source} has {len(order):,} different values in {len(plain):,} rows: these are no classes")
    return np.array([at[value] for value in plain]), [*map(str, names or order)], order


def _plain(value: Any, source: Source, row: int) -> int | str:
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    value = value.strip() if isinstance(value, str) else value
    if value is None or value == "" or value != value:
        raise UsageError(f"{source}, row {row}: the label is missing: leave such people out of all files")
    if isinstance(value, float) and value != int(value):
        raise UsageError(f"{source}, row {row}: {value:g} is no class: give integers or words")
    return value if isinstance(value, str) else int(value)


def said(
    files: Files, given: Sequence[Source], people: int, class_names: Sequence[str], order: Sequence[Any], *,
    named: bool, threshold: float, logits: bool,
) -> dict[str, Predicted]:  # fmt: skip
    """Predictions of the networks of each name, one after the other.

    Args:
      files: the files.
      given: of the predictions.
      people: N.
      class_names: ``C``.
      order: ``C`` values by which classes are called.
      named: whether the names of the classes were given, so that integers are places among them.
      threshold: of scores.
      logits: whether numbers are logits.

    Raises:
      UsageError: predictions that are none.
    """
    found: dict[str, list[Predicted]] = {}
    for source in given:
        values = files.several(source, class_names)
        numbers = values.dtype.kind in "iu"
        axis = _axis(values, people, len(class_names), files.ids is None)
        values = files.aligned(values, source, axis, people)
        by = [*range(len(class_names))] if named and numbers else order
        try:
            one = predicted(
                values, people, class_names, order=by, where=str(source), threshold=threshold, logits=logits
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(in_flags(str(error))) from None
        found.setdefault(source.name, []).append(one)
    return {name: joined(several) for name, several in found.items()}


def _axis(values: np.ndarray, people: int, classes: int, in_order: bool) -> int:
    """Which axis is people's."""
    if values.ndim == 2 and values.shape[1] == classes and values.dtype.kind == "f":
        return 0
    if values.ndim == 2 and values.shape[0] == people and values.shape[1] == classes != people and in_order:
        return 0
    if values.ndim == 3:
        return 1
    return values.ndim - 1


def joined(several: Sequence[Predicted]) -> Predicted:
    """Networks of several files, side by side."""
    known = [one.probabilities for one in several]
    all_known = all(p is not None for p in known)
    return Predicted(
        np.concatenate([one.classes for one in several]),
        np.concatenate([p for p in known if p is not None]) if all_known else None,
    )


def attributes(files: Files, given: Sequence[Source], people: int) -> dict[str, np.ndarray]:
    """The attributes of people, by their names, in the order in which they are given.

    Raises:
      UsageError: no column, one of more than a value per person, or one name twice.
    """
    found: dict[str, np.ndarray] = {}
    for source in given:
        columns = files.columns(source.path)
        names = [source.column] if source.column else [n for n in columns if n not in (files.id, *NAMES)]
        if pathlib.PurePath(source.path).suffix.lower() == ".npz" and not source.column:
            names = [name for name in names if name in USUAL["groups"]] or names
        if not names:
            raise UsageError(f"--groups={source}: the file has no column of groups")
        for name in names:
            values = columns[files.chosen(source._replace(column=name))]
            if values.ndim != 1:
                raise UsageError(f"{source.path}:{name} has shape {values.shape}: give the group of each person, [N]")
            if values.dtype.kind == "f" and (part := np.nan_to_num(values) % 1 != 0).any():
                row = int(part.argmax())
                raise UsageError(
                    f"{source.path}:{name} holds fractions ({values[row]:g} in row {row}): a group is an integer or a "
                    "word; cut the numbers into a few of them first"
                )
            if name in found:
                raise UsageError(f"--groups: {name!r} is named twice: name each once")
            words = columns.get("group_names") if values.dtype.kind in "iu" else None
            values = files.aligned(values, source._replace(column=name), 0, people)
            found[name] = values if words is None else _called(values, words, source)
    return found


def _called(values: np.ndarray, names: np.ndarray, source: Source) -> np.ndarray:
    if values.max(initial=-1) >= len(names) or values.min(initial=0) < -1:
        raise UsageError(f"{source} has groups outside of its {len(names)} group_names")
    return np.array([*map(str, names.tolist()), ""], object)[values]


def in_flags(text: str) -> str:
    """What the library says, in the words of a command.

    Example:
      >>> in_flags("p.npy, row 3: probabilities sum to 2 and not to 1: mend them, or say that they are logits.")
      'p.npy, row 3: probabilities sum to 2 and not to 1: mend them, or say that they are logits (--logits)'
    """
    text = text.removesuffix(".")
    text = text.replace("say that they are logits", "say that they are logits (--logits)")
    return text.replace("or name every class", "or name every class by --classes")


def of_networks(found: Mapping[str, Predicted], networks: int) -> dict[str, Predicted]:
    """As many networks of each kind as there are to compare with; one stands for all.

    Raises:
      UsageError: numbers that do not fit.
    """
    return {name: _as_many(name, one, networks) for name, one in found.items()}


def _as_many(name: str, one: Predicted, networks: int) -> Predicted:
    number = len(one.classes)
    if number == networks:
        return one
    if number != 1:
        raise UsageError(f"{name}: {number} networks where {networks} are compared: give one, or as many on all sides")
    return Predicted(*(None if a is None else np.repeat(a, networks, 0) for a in one))


def _listed(names: Any) -> str:
    names = [*map(str, names)]
    return ", ".join(map(repr, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
