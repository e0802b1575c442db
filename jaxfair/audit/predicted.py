"""What a model says of people, in any of the forms in which models say it, as classes and how sure it is.

================================  ==============================================================================
shape, of N people                what it is taken for
================================  ==============================================================================
``[N]``, ``[S, N]``               classes: integers, truth values or words; of S networks
``[N]``, ``[S, N]`` of fractions  scores from 0 to 1 of the second of two classes, which is predicted from
                                  ``threshold`` on
``[N, C]``, ``[S, N, C]``         probabilities, each person's summing to one; numbers of which any lies outside
                                  ``[0, 1]`` are logits. The largest is predicted, of equals the first
================================  ==============================================================================
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.audit import _coding
from jaxfair.audit._findings import Variant

#: How far the probabilities of a person may be from summing to one: two decimals of three classes, written down.
SUM = 0.02


class Predicted(NamedTuple):
    """Predictions in one form.

    Attributes:
      classes: ``[S, N]`` int64, places among the names of the classes; -1 for no class at all.
      probabilities: ``[S, N, C]`` float64; None where only classes are known.
    """

    classes: np.ndarray
    probabilities: np.ndarray | None = None

    @property
    def confidence(self) -> np.ndarray | None:
        """``[S, N]``, the probability of the class that is predicted; None where only classes are known."""
        if self.probabilities is None:
            return None
        at = np.maximum(self.classes, 0)[..., None]
        return np.take_along_axis(self.probabilities, at, -1)[..., 0]


def predicted(
    values: Any,
    people: int,
    class_names: Sequence[str],
    *,
    order: Sequence[Any] | None = None,
    where: str = "predictions",
    threshold: float = 0.5,
    logits: bool = False,
) -> Predicted:
    """Predictions of any form as classes, and as probabilities where they are known.

    Args:
      values: see the head of this file.
      people: N.
      class_names: ``C`` names, in the order of columns of probabilities.
      order: ``C`` values by which the classes are called where they are predicted; the names themselves by default.
      where: what errors call the predictions: a file, or an argument.
      threshold: of scores.
      logits: whether numbers are logits, also if all of them lie in ``[0, 1]``.

    Returns:
      :class:`Predicted`.

    Raises:
      ValueError: a shape that fits in no way, a number that is missing or not finite, probabilities that do not sum to
        one, scores outside ``[0, 1]`` or of other than two classes, a class that has no name. The first row is named.

    Example:
      >>> said = predicted([[0.9, 0.1], [0.3, 0.7]], 2, ["no", "yes"])
      >>> said.classes.tolist(), said.confidence.tolist()
      ([[0, 1]], [[0.9, 0.7]])
      >>> predicted([0.2, 0.8], 2, ["no", "yes"], threshold=0.9).classes.tolist()
      [[0, 0]]
      >>> predicted([[0.9, 0.3]], 1, ["no", "yes"])
      Traceback (most recent call last):
        ...
      ValueError: predictions, row 0: probabilities sum to 1.2 and not to 1: mend them, or say that they are logits.
    """
    array = np.asarray(values, object) if isinstance(values, list | tuple) else np.asarray(values)
    if isinstance(values, list | tuple) and array.size and all(type(v) in (int, float) for v in array.flat):
        array = array.astype(float)
    numeric, last = array.dtype.kind in "fiu", array.shape[-2:]
    if numeric and last == (people, len(class_names)):
        table = array.reshape(-1, people, array.shape[-1]).astype(float)
        if array.ndim <= 3 and not _of_networks(array, people, len(class_names)):
            return _of_probabilities(table, where, logits)
    if array.ndim not in (1, 2) or array.shape[-1] != people:
        raise ValueError(
            f"{where} has shape {array.shape} for {people} people and {len(class_names)} classes: give classes or "
            f"scores [{people}], of several networks [S, {people}], or probabilities [{people}, {len(class_names)}]."
        )
    array = np.atleast_2d(array)
    if array.dtype.kind == "f" and not _whole(array, where):
        return _of_scores(array, where, class_names, threshold)
    return Predicted(_of_classes(array, where, class_names if order is None else order))


def _of_networks(array: np.ndarray, people: int, classes: int) -> bool:
    """Whether integers ``[S, N]`` are meant of as many networks as people, on as many people as classes."""
    return array.ndim == 2 and people == classes and array.dtype.kind in "iu"


def _whole(array: np.ndarray, where: str) -> bool:
    """Whether floats are classes; some frames have no integers where a value is missing."""
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(
            f"{where}, row {_row(bad)}: the prediction is {_nothing(array[bad])}: leave such people out of all files."
        )
    return bool((array == np.floor(array)).all())


def _nothing(values: np.ndarray) -> str:
    return "missing" if np.isnan(values).any() else "infinite"


def _row(bad: np.ndarray) -> int:
    """The first person of whom something is wrong; ``[S, N]``."""
    return int(np.argwhere(bad.any(0))[0, 0])


def _of_probabilities(table: np.ndarray, where: str, logits: bool) -> Predicted:
    bad = np.asarray(~np.isfinite(table).all(-1))
    if bad.any():
        what = f"a number is {_nothing(table[bad])}"
        raise ValueError(f"{where}, row {_row(bad)}: {what}: leave such people out of all files.")
    if logits or table.min(initial=0) < 0 or table.max(initial=0) > 1:
        raised = np.exp(table - table.max(-1, keepdims=True))
        return Predicted(table.argmax(-1), raised / raised.sum(-1, keepdims=True))
    total = table.sum(-1)
    bad = np.asarray(np.abs(total - 1) > SUM)
    if bad.any():
        row = _row(bad)
        raise ValueError(
            f"{where}, row {row}: probabilities sum to {total[:, row][bad[:, row]][0]:g} and not to 1: mend them, or "
            "say that they are logits."
        )
    return Predicted(table.argmax(-1), table / total[..., None])


def _of_scores(array: np.ndarray, where: str, class_names: Sequence[str], threshold: float) -> Predicted:
    if len(class_names) != 2:
        raise ValueError(
            f"{where} holds fractions, such as {array[0, 0]:g}, and there are {len(class_names)} classes: give a "
            "probability of each class, or the classes."
        )
    bad = (array < 0) | (array > 1)
    if bad.any():
        row = _row(bad)
        raise ValueError(
            f"{where}, row {row}: the score {array[:, row][bad[:, row]][0]:g} is no probability of "
            f"{class_names[1]!r}: give numbers from 0 to 1, or the classes."
        )
    return Predicted((array >= threshold).astype(np.int64), np.stack([1 - array, array], -1))


def _of_classes(array: np.ndarray, where: str, order: Sequence[Any]) -> np.ndarray:
    at = {value: place for place, value in enumerate(order)}
    if array.dtype.kind in "biuf" and all(isinstance(value, int) for value in order):
        known, places = np.array(sorted(order)), np.array([at[v] for v in sorted(order)])
        spot = np.minimum(np.searchsorted(known, array), len(known) - 1)
        found = np.where(known[spot] == array, places[spot], -1)
    else:
        found = np.array([[at.get(_said(value), -1) for value in row] for row in array.tolist()], np.int64)
    bad = found < 0
    if bad.any():
        row = _row(bad)
        value = array[:, row][bad[:, row]][0]
        known = ", ".join(map(str, order[:5])) + (", ..." if len(order) > 5 else "")
        missing = value is None or (isinstance(value, str) and not value.strip())
        what = "the prediction is missing" if missing else f"{_said(value)!r} is no class ({known})"
        comma = isinstance(value, str) and re.fullmatch(r"[+-]?\d*,\d+", value.strip())
        mend = "write numbers with a point" if comma else "mend it"
        raise ValueError(f"{where}, row {row}: {what}: {mend}, or name every class.")
    return found


def _said(value: Any) -> Any:
    """A class as people write it: a word without the spaces around it, a truth value as 0 or 1."""
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    return value.strip() if isinstance(value, str) else int(value) if isinstance(value, bool) else value


def in_classes(one: Any, y: Any, class_names: Sequence[str] | None, *, where: str, split: str) -> Any:
    """Predictions as classes in the coding of ``y``: those of numbers that are no classes; others as they are.

    Args:
      one: predictions in any form, or a :class:`Variant`.
      y: ``[N]`` the true classes.
      class_names: ``[C]``, in the order of columns of probabilities; where y holds integers in ``[0, C)`` they need no
        names, and where as many classes occur as there are columns it is their order.
      where: what errors call them.
      split: what these people are called.

    Raises:
      ValueError: as :func:`predicted`; columns of which nobody said what they are.

    Example:
      >>> in_classes(np.array([[0.9, 0.1], [0.3, 0.7]]), ["no", "yes"], None, where="after", split="test").labels
      {'test': array([['no', 'yes']], dtype=object)}
    """
    if isinstance(one, Predicted):
        said, order = one, _order(y, class_names, 0, where)
    else:
        array = np.asarray(one) if not isinstance(one, Variant) and _numbers(one) else np.zeros(0)
        shape, people = array.shape, len(y)
        fractions = array.dtype.kind == "f" and bool((np.nan_to_num(array) % 1 != 0).any())
        of_columns = array.ndim in (2, 3) and shape[-2:-1] == (people,) and (shape[-1] != people or fractions)
        if not of_columns:  # a single score per person has a threshold, which nobody said here
            return one
        order = _order(y, class_names, shape[-1], where)
        said = predicted(array, people, [*map(str, order)], where=where)
    values = np.array([*order, None], object)
    sure = {} if said.confidence is None else {split: said.confidence}
    return Variant({split: values[said.classes]}, np.ones(len(said.classes), bool), confidence=sure)


def _numbers(one: Any) -> bool:
    array = np.asarray(one, object) if isinstance(one, list | tuple) else np.asarray(one)
    return array.dtype.kind in "fiu" or (array.dtype.kind == "O" and all(type(v) in (int, float) for v in array.flat))


def _order(y: Any, class_names: Sequence[str] | None, columns: int, where: str) -> list[Any]:
    """The values by which y calls the classes that columns are of."""
    values = _coding.plain(y, "y").tolist()
    seen = sorted({value for value in values if value is not None})
    whole = all(isinstance(value, int) for value in seen)
    if class_names is not None:
        return [*range(len(class_names))] if whole else [*map(str, class_names)]
    if whole and columns and seen[0] >= 0 and seen[-1] < columns:
        return [*range(columns)]
    if columns and len(seen) != columns:
        raise ValueError(
            f"{where} has {columns} columns and y {len(seen)} classes: give class_names=, in the order of the columns."
        )
    return seen
