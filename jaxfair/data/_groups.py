"""Groups from attributes: one attribute, the class, or the intersection of several.

A cell of an intersection that is too small to be measured is not dropped, which would hide people
from the report: it joins a group named ``other``, and :attr:`Dataset.merged` says who is in there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxfair.data._errors import DataError, listed

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


def attribute_names(groups: str | Sequence[str], allowed: Sequence[str], *, dataset: str) -> tuple[str, ...]:
    """The option ``groups`` as a tuple of known attributes.

    Raises:
      DataError: an attribute is unknown or named twice.
    """
    chosen = (groups,) if isinstance(groups, str) else tuple(groups)
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
    shape = tuple(len(attribute.names) for attribute in attributes)
    if not attributes:
        raise DataError("groups=() names no attribute: name at least one")
    cell = {
        split: np.ravel_multi_index([np.asarray(a.codes, np.int64) for a in of_split], shape)
        for split, of_split in splits.items()
    }
    size = np.bincount(cell["train"], minlength=int(np.prod(shape)))
    occurring = np.unique(np.concatenate(list(cell.values())))
    words = {
        int(c): [a.names[i] for a, i in zip(attributes, np.unravel_index(c, shape), strict=True)] for c in occurring
    }
    name = {c: ", ".join(of) for c, of in words.items()}
    if len(set(name.values())) < len(name):  # ("a, b", "c") and ("a", "b, c") are not the same people
        name = {c: ", ".join(map(repr, of)) for c, of in words.items()}
    small = [int(c) for c in occurring if size[c] < min_group_size]
    if small:
        # A cell that already bears the name takes the others in.
        small = [int(c) for c in occurring if c in small or name[int(c)] == OTHER]
    large = [int(c) for c in occurring if int(c) not in small]
    number = np.zeros(int(np.prod(shape)), np.int32)
    number[large] = np.arange(len(large), dtype=np.int32)
    number[small] = len(large)
    return Grouping(
        group={split: number[c] for split, c in cell.items()},
        names=tuple(name[c] for c in large) + ((OTHER,) if small else ()),
        merged={OTHER: {name[c]: int(size[c]) for c in small}} if small else {},
    )


def constrained(names: Sequence[str], unconstrained: str | Sequence[str]) -> np.ndarray:
    """Which groups are to be constrained: all but those that ``unconstrained`` names.

    Returns:
      ``[G]`` bool.

    Raises:
      DataError: no group has that name.
    """
    free = (unconstrained,) if isinstance(unconstrained, str) else tuple(unconstrained)
    for name in free:
        if name not in names:
            raise DataError(f"unconstrained={name!r} is no group: choose from {listed(names)}")
    return np.array([name not in free for name in names], bool)
