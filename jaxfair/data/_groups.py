"""Groups from attributes: one attribute, the class, or the intersection of several.

A cell of an intersection that is too small to be measured is not dropped, which would hide people
from the report: it joins a group named ``other``, and :attr:`Dataset.merged` says who is in there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxfair.data._errors import DataError, listed
from jaxfair.data._splits import cells
from jaxfair.files import visible

#: One name or several; a column of a frame may be called 3.
Names: TypeAlias = str | int | Sequence[str | int]

OTHER = "other"
UNKNOWN = "unknown"


class Attribute(NamedTuple):
    """One attribute of the rows of a split.

    Attributes:
      codes: ``[N]`` integers that index ``names``.
      names: what each code means; the same in every split.
    """

    codes: np.ndarray
    names: tuple[str, ...]


class Grouping(NamedTuple):
    """The groups of all splits.

    Attributes:
      group: split -> ``[N]`` int32 in ``[0, G)``.
      names: ``G`` names.
      merged: name of a merged group -> {name of a cell: its size in the training split}.
    """

    group: dict[str, np.ndarray]
    names: tuple[str, ...]
    merged: dict[str, dict[str, int]]


def named(option: Any) -> tuple[str, ...]:
    """An option that is one name or several, as words."""
    if option is None:
        return ()
    return tuple(map(str, option)) if isinstance(option, Iterable) and not isinstance(option, str) else (str(option),)


def attribute_names(groups: Names, allowed: Sequence[str], *, dataset: str) -> tuple[str, ...]:
    """The option ``groups`` as a tuple of known attributes.

    Raises:
      DataError: an attribute is unknown or named twice.
    """
    chosen = named(groups)
    for name in chosen:
        if name not in allowed:
            raise DataError(f"{dataset} has no group attribute {name!r}: choose from {listed(allowed)}")
    if len(set(chosen)) < len(chosen):
        raise DataError(f"groups={chosen!r} names an attribute twice: name each once")
    return chosen


def intersect(splits: Mapping[str, Sequence[Attribute]], *, min_group_size: int = 0) -> Grouping:
    """One group for each combination of values that occurs in any split.

    Args:
      splits: split -> its attributes, in the same order in every split. No attribute: one group,
        ``all``.
      min_group_size: cells with fewer examples than this in the split ``"train"`` are merged into
        ``other``.

    Returns:
      The groups, in the order of the attributes' names (the last attribute varies fastest),
      ``other`` last.

    Example:
      >>> sex = Attribute(np.array([0, 0, 1, 1, 1]), ("Female", "Male"))
      >>> label = Attribute(np.array([0, 1, 0, 0, 1]), ("no", "yes"))
      >>> grouping = intersect({"train": [sex, label]}, min_group_size=2)
      >>> grouping.names, grouping.group["train"].tolist()
      (('Male, no', 'other'), [1, 1, 0, 0, 1])
      >>> grouping.merged
      {'other': {'Female, no': 1, 'Female, yes': 1, 'Male, yes': 1}}
    """
    attributes = splits["train"]
    if not attributes:
        raise DataError("groups=() names no attribute: name at least one")
    # Of all splits together, and only the combinations that occur: there may be very many that do not.
    columns = [np.concatenate([np.asarray(of[i].codes) for of in splits.values()]) for i in range(len(attributes))]
    _, first, cell = np.unique(cells(*columns), return_index=True, return_inverse=True)
    ends = np.cumsum([len(of[0].codes) for of in splits.values()])[:-1]
    of_split = dict(zip(splits, np.split(cell, ends), strict=True))
    size = np.bincount(of_split["train"], minlength=len(first))
    words = [[a.names[codes[row]] for a, codes in zip(attributes, columns, strict=True)] for row in first]
    names = [", ".join(of) for of in words]
    if len(set(names)) < len(names):  # ("a, b", "c") and ("a", "b, c") are not the same people
        names = [", ".join(map(repr, of)) for of in words]
    small = size < min_group_size
    if small.any():  # a cell that already bears the name takes the others in
        small |= np.array([name == OTHER for name in names])
    number = np.where(small, (~small).sum(), np.cumsum(~small) - 1).astype(np.int32)
    merged = {name: int(n) for name, n, is_small in zip(names, size, small, strict=True) if is_small}
    return Grouping(
        group={split: number[of] for split, of in of_split.items()},
        names=tuple(name for name, is_small in zip(names, small, strict=True) if not is_small)
        + (OTHER,) * bool(merged),
        merged={OTHER: merged} if merged else {},
    )


def constrained(names: Sequence[str], unconstrained: Names) -> np.ndarray:
    """Which groups are to be constrained: all but those that ``unconstrained`` names.

    Returns:
      ``[G]`` bool.

    Raises:
      DataError: no group has that name.
    """
    free = tuple(map(visible, named(unconstrained)))
    for name in free:
        if name not in names:
            raise DataError(f"unconstrained='{name}' is no group: choose from {listed(names)}")
    return np.array([name not in free for name in names], bool)
