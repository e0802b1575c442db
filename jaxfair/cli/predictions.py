"""Predictions, labels and attributes from files, as arrays of the same people; for programs that audit any model."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair.audit import Predicted, predicted
from jaxfair.cli.failures import UsageError
from jaxfair.cli.sources import NAMES, USUAL, Files, Source


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
    if isinstance(value, float) and not value.is_integer():
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


def attributes(files: Files, given: Sequence[Source], people: int, *, whole: bool = True) -> dict[str, np.ndarray]:
    """The attributes of people, by their names, in the order in which they are given.

    Args:
      files: the files.
      given: of the attributes.
      people: N.
      whole: whether they are groups, which are whole numbers or words.

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
            raise UsageError(f"--{source.flag}={source}: the file has no column for it")
        for name in names:
            values = columns[files.chosen(source._replace(column=name))]
            if values.ndim != 1:
                raise UsageError(f"{source.path}:{name} has shape {values.shape}: give one value per person, [N]")
            if whole and values.dtype.kind == "f" and (part := _no_codes(values)).any():
                row = int(part.argmax())
                what = "fractions" if np.isfinite(values[row]) else "infinite numbers"
                raise UsageError(
                    f"{source.path}:{name} holds {what} ({values[row]:g} in row {row}): a group is an integer or a "
                    "word; cut the numbers into a few of them first"
                )
            if name in found:
                raise UsageError(f"--{source.flag}: {name!r} is named twice: name each once")
            words = columns.get("group_names") if values.dtype.kind in "iu" else None
            values = files.aligned(values, source._replace(column=name), 0, people)
            found[name] = values if words is None else _called(values, words, source)
    return found


def _no_codes(values: np.ndarray) -> np.ndarray:
    """Which floats are no whole numbers; those that are missing may be."""
    return ~np.isnan(values) & (np.isinf(values) | (np.floor(values) != values))


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
    sure = one.probabilities
    return Predicted(np.repeat(one.classes, networks, 0), None if sure is None else np.repeat(sure, networks, 0))
