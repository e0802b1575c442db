"""Classes and groups as users have them, in any coding, as the integers that all of the audit counts with."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair.audit._findings import People, Variant

#: What to give in place of fractions.
_CLASSES = "classes, such as probability > 0.5 or logits.argmax(-1)"


def plain(values: Any, what: str, instead: str = _CLASSES) -> np.ndarray:
    """Words, numbers or truth values as an object array of ``str`` or ``int``, with None for whatever is missing.

    Args:
      values: of any shape; None, NaN and pandas' NA are missing.
      what: they are, for errors.
      instead: of fractions.

    Raises:
      ValueError: a fraction, such as a probability, or words among numbers.

    Example:
      >>> plain([1.0, float("nan"), True], "y").tolist(), plain([b"no", "yes", None], "y").tolist()
      ([1, None, 1], ['no', 'yes', None])
    """
    # A list with a NaN among its words would become words, "nan" among them.
    array = np.asarray(values, object) if isinstance(values, list | tuple) else np.asarray(values)
    if array.dtype.kind in "biu":
        return array.astype(np.int64).astype(object)
    found = np.empty(array.shape, object)
    found.flat[:] = [_plain(value, what, instead) for value in array.ravel().tolist()]
    kinds = {type(value) for value in found.flat if value is not None}
    if len(kinds) > 1:
        raise ValueError(f"{what} holds words and numbers: give one kind.")
    return found


def _plain(value: Any, what: str, instead: str) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    same = value == value  # False of NaN, and no truth value of pandas' NA
    if value is None or not (isinstance(same, bool | np.bool_) and same):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value
    if isinstance(value, float) and np.isinf(value):
        return None  # of a network that has diverged
    if not isinstance(value, int | float):
        return str(value)
    if value != int(value):
        raise ValueError(f"{what} holds {value:g}: give {instead}.")
    return int(value)


def coded(values: np.ndarray, order: Sequence[Any]) -> np.ndarray:
    """The place of each value in ``order``, -1 of what is not in there."""
    at = {value: place for place, value in enumerate(order)}
    found = np.fromiter((at.get(value, -1) for value in values.flat), np.int64, count=values.size)
    return found.reshape(values.shape)


def classes(
    y: Any, before: Any, after: Mapping[str, Any], name_before: str, class_names: Sequence[str] | None, split: str
) -> tuple[np.ndarray, list[str], Variant, dict[str, Variant]]:
    """One coding of the true classes and of all that is predicted.

    Args:
      y: ``[N]``.
      before: ``[N]`` or ``[S, N]``, or a :class:`Variant`.
      after: name -> likewise.
      name_before: of the networks before.
      class_names: ``[C]``, of which all others hold integers, or which are the words that they hold.
      split: what these people are called.

    Returns:
      ``y``, the names of the classes, before and after. A prediction that is missing (NaN, or -1 where that is no
      class) is -1, and wrong. A network that makes no other has failed.

    Raises:
      ValueError: ``y`` has no people or misses a class, predictions are no classes or not those of ``y``, or
        ``class_names`` are too few.
    """
    true = plain(y, "y")
    if true.ndim != 1 or not len(true):
        raise ValueError(f"y has shape {true.shape}: give the class of each person, [N].")
    missing = np.array([value is None for value in true.tolist()])
    if missing.any():
        raise ValueError(f"y is missing for person {int(missing.argmax())}: leave such people out.")
    given = {name_before: before, **after}
    labels = {name: _labels(name, one, split, len(true)) for name, one in given.items()}
    seen = set(true.tolist())
    nothing = {None} if -1 in seen else {None, -1}
    for name, predicted in labels.items():
        values = set(predicted.ravel().tolist()) - nothing
        if {type(v) for v in values} - {type(v) for v in seen}:
            raise ValueError(f"y holds {_some(seen)} and {name} {_some(values)}: give both in one coding.")
        if values and not values & seen:
            raise ValueError(f"{name} predicts {_some(values)}, none of which is in y, {_some(seen)}: use its classes.")
    union = seen.union(*({*predicted.ravel().tolist()} - nothing for predicted in labels.values()))
    order, names = _order(union, class_names)
    return (
        coded(true, order),
        names,
        _variant(before, coded(labels[name_before], order), split),
        {name: _variant(one, coded(labels[name], order), split) for name, one in after.items()},
    )


def class_of(positive: Any, names: Sequence[str]) -> int:
    """The place of a class, given as y holds it or by its name.

    Args:
      positive: a word or a number; of classes that have names of their own, a number is the place itself. Where a name
        is a number, as of classes that y calls 1 and 2, a number is a name, and none other is a place.
      names: ``[C]``.

    Raises:
      ValueError: no such class.

    Example:
      >>> class_of("repaid", ["defaults", "repaid"]), class_of(1, ["-1", "1"]), class_of(0, ["no", "yes"])
      (1, 1, 0)
    """
    wanted = plain([positive], "positive").item()
    if str(wanted) in names:
        return list(names).index(str(wanted))
    named = not any(re.fullmatch(r"-?\d+", name) for name in names)
    if named and isinstance(wanted, int) and 0 <= wanted < len(names):
        return wanted
    raise ValueError(f"positive={positive!r} is no class: choose from {', '.join(map(repr, names))}.")


def groups(group: Any, names: Sequence[str] | None, what: str = "group") -> tuple[np.ndarray, list[str]]:
    """``[N]`` groups in ``[0, G)``, -1 where unknown, and their names.

    Args:
      group: ``[N]`` integers or words; None, NaN, an empty word and -1 mean unknown.
      names: ``[G]``, of which ``group`` holds integers then.
      what: they are, for errors.

    Raises:
      ValueError: a group that has no name, or no known group at all.

    Example:
      >>> groups(["a", "", "b", None], None)
      (array([ 0, -1,  1, -1]), ['a', 'b'])
    """
    found = plain(group, what, "integers or words")
    if found.ndim != 1:
        raise ValueError(f"{what} has shape {found.shape}: give the group of each person, [N].")
    known = {v for v in found.tolist() if v is not None and str(v).strip() not in ("", "-1")}
    if not known:
        raise ValueError(f"{what} is unknown of everybody: give the group of each person, [N].")
    if names is None:
        return coded(found, sorted(known)), [str(v) for v in sorted(known)]
    for value in sorted(known):
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise ValueError(
                f"{what} has {value!r} and there are {len(names)} names: give integers in [0, {len(names)}), or -1 "
                "where it is unknown."
            )
    return coded(found, range(len(names))), [str(name) for name in names]


def without_failed(variant: Variant) -> Variant:
    """Networks that predict no class of anybody count as failed."""
    silent = np.any([np.all(labels < 0, axis=1) for labels in variant.labels.values() if np.size(labels)], axis=0)
    return variant._replace(ok=np.asarray(variant.ok, bool) & ~silent)


def known(variant: Variant, people: Mapping[str, People], num_classes: int, name: str) -> Variant:
    """The networks, if they predict classes of a dataset; those that predict nothing else than -1 have failed."""
    for split, who in people.items():
        labels = np.asarray(variant.labels.get(split, ()))
        if labels.ndim != 2 or labels.shape[1] != len(who.y):
            raise ValueError(
                f"{name} has predictions of shape {labels.shape} for {len(who.y)} people of {split}: give [S, N]."
            )
        if labels.dtype.kind not in "iu" or labels.max(initial=-1) >= num_classes or labels.min(initial=0) < -1:
            raise ValueError(
                f"{name} predicts other than classes on {split}: give integers in [0, {num_classes}), or -1 of "
                "a network that has diverged."
            )
    return without_failed(variant)


def _labels(name: str, one: Any, split: str, people: int) -> np.ndarray:
    if isinstance(one, Variant):
        if split not in one.labels:
            raise ValueError(f"{name} predicts {', '.join(one.labels)} and not {split}: give split=.")
        one = one.labels[split]
    shape = np.shape(one)
    if len(shape) not in (1, 2) or shape[-1] != people:
        raise ValueError(f"predictions of shape {shape} for {people} people: give classes, [N] or [S, N].")
    return np.atleast_2d(plain(one, name))


def _variant(one: Any, labels: np.ndarray, split: str) -> Variant:
    if isinstance(one, Variant):
        return without_failed(one._replace(labels={split: labels}))
    return without_failed(Variant({split: labels}, np.ones(len(labels), bool)))


def _order(values: set[Any], class_names: Sequence[str] | None) -> tuple[list[Any], list[str]]:
    if class_names is None:
        return sorted(values), [str(value) for value in sorted(values)]
    names = [str(name) for name in class_names]
    words = isinstance(next(iter(values)), str)
    order: list[Any] = names if words else list(range(len(names)))
    unnamed = values - set(order)
    if unnamed:
        for_what = "for every class that occurs" if words else "for the integers from 0 to the largest class"
        raise ValueError(
            f"class_names has {len(names)} names and none of the class {_some(unnamed)}: give one {for_what}, or leave "
            "class_names out."
        )
    return order, names


def _some(values: set[Any]) -> str:
    shown = [repr(value) for value in sorted(values)[:3]]
    return ", ".join(shown) + (", ..." if len(values) > 3 else "")
