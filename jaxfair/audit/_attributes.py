"""Groups from one attribute of people or several: the cells of their intersection, and each attribute by itself."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair import data
from jaxfair.audit import _coding


class Cells(NamedTuple):
    """The groups, and what they are cells of.

    Attributes:
      group: ``[N]`` in ``[0, G)``, -1 where any attribute is unknown.
      names: ``G``.
      merged: name of a merged group -> {name of a cell in it: size}.
      attributes: name -> ``[N]`` places among its values, -1 where unknown, and the values; empty of one attribute.
    """

    group: np.ndarray
    names: Sequence[str]
    merged: Mapping[str, Mapping[str, int]]
    attributes: Mapping[str, tuple[np.ndarray, Sequence[str]]]


def cells(group: Any, names: Sequence[str] | None, min_group_size: int) -> Cells:
    """The groups of people.

    Args:
      group: ``[N]`` integers or words, as :func:`jaxfair.audit._coding.groups` takes them; or several attributes, a
        mapping or a frame, whose intersection is meant.
      names: ``[G]``, of which a single ``group`` holds integers then.
      min_group_size: cells with fewer people are merged into ``other``.

    Raises:
      ValueError: attributes of unequal lengths, names of groups where they are made here, nobody of known group.

    Example:
      >>> found = cells({"sex": ["w", "m", "m", "w"], "age": [1, 1, 2, None]}, None, 0)
      >>> found.group.tolist(), found.names
      ([2, 0, 1, -1], ('m, 1', 'm, 2', 'w, 1'))
      >>> found.attributes["age"]
      (array([ 0,  0,  1, -1]), ['1', '2'])
    """
    given = {str(name): group[name] for name in getattr(group, "columns", group)} if _is_table(group) else {"": group}
    if not given:
        raise ValueError("group has no attribute: give at least one.")
    if names is not None and len(given) > 1:
        raise ValueError("names= are of one group and several attributes are given: leave names out.")
    lengths = {name: len(values) for name, values in given.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"attributes of unequal lengths: {', '.join(f'{k} {n}' for k, n in lengths.items())}.")
    each = {name: _coding.groups(values, names, name or "group") for name, values in given.items()}
    known = np.all([codes >= 0 for codes, _ in each.values()], axis=0)
    if len(each) == 1 and not min_group_size:
        codes, found = next(iter(each.values()))
        return Cells(codes, found, {}, {})
    if not known.any():
        raise ValueError(f"nobody is known by all of {', '.join(each)}: give people of whom all are.")
    of = [data.Attribute(codes[known], tuple(named)) for codes, named in each.values()]
    grouping = data.intersect({"train": of}, min_group_size=min_group_size)
    cell = np.full(known.shape, -1)
    cell[known] = grouping.group["train"]
    return Cells(cell, grouping.names, grouping.merged, each if len(each) > 1 else {})


def _is_table(group: Any) -> bool:
    return isinstance(group, Mapping) or hasattr(group, "columns")


def bounded(names: Sequence[str], unconstrained: Sequence[str]) -> np.ndarray:
    """``[G]`` bool: all groups but those that are named.

    Raises:
      ValueError: no group of that name.

    Example:
      >>> bounded(["men", "unknown"], ["unknown"])
      array([ True, False])
    """
    for name in unconstrained:
        if name not in names:
            raise ValueError(f"unconstrained={name!r} is no group: choose from {', '.join(names)}.")
    return np.array([name not in unconstrained for name in names], bool)
