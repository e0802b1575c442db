"""What is what in the user's own data: the class, the groups, the split and the features."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data import _features
from jaxfair.data._errors import DataError, listed
from jaxfair.data._groups import named
from jaxfair.data._table import Table, of_arrays

_NAMES = ("class_names", "group_names", "feature_names")


class Raw(NamedTuple):
    """What was read, before anything is coded.

    Attributes:
      where: what errors call it.
      x: ``[N, ...]`` numbers.
      feature_names: of the columns of x; empty where they have none.
      y: ``[N]``, the column ``label``.
      label: its name.
      groups: column -> ``[N]``.
      split: ``[N]``, or None.
      names: ``class_names`` and ``group_names``, or None.
      sentences: on what was read.
      by_columns: whether x was put together of the columns of a table.
      kinds: how many of its last columns are 1 for who has a value of a category.
    """

    where: str
    x: np.ndarray
    feature_names: tuple[str, ...]
    y: Any
    label: str
    groups: dict[str, Any]
    split: Any
    names: Mapping[str, Any]
    sentences: tuple[str, ...]
    by_columns: bool = False
    kinds: int = 0


def _need(where: str, columns: Mapping[str, Any], label: str, groups: Sequence[str]) -> None:
    for name, option in ((label, "label="), *((group, "groups=") for group in groups)):
        if name not in columns:
            raise DataError(f"{where} has no {name!r}, only {listed(columns)}: add it, or name another by {option}")


def of_table(
    table: Table, where: str, label: str, groups: Sequence[str], features: Any, drop: Any, categorical: Any = ()
) -> Raw:
    _need(where, table.columns, label, groups)
    used = [name for name in dict.fromkeys([*groups, "group"]) if name in table.columns and name != label]
    x, names, kinds, sentences = _features.select(table, label, used, features, drop, categorical)
    values = {name: column.values for name, column in table.columns.items()}
    return Raw(
        where, x, names, values[label], label, {name: values[name] for name in groups or used},
        values.get("split"), {}, (*sentences, *table.sentences), True, kinds,
    )  # fmt: skip


def of_columns(
    arrays: dict[str, Any], where: str, label: str, groups: Sequence[str], features: Any, drop: Any,
    categorical: Any = (),
) -> Raw:  # fmt: skip
    """Arrays with an x, or columns without one."""
    names = {name: arrays[name] for name in _NAMES if name in arrays}
    columns = {name: value for name, value in arrays.items() if name not in _NAMES}
    _need(where, columns, label, groups)
    special = {label, *groups, "group", "split"}
    words = special | set(named(categorical))
    x = np.asarray(columns["x"]) if "x" in columns else None
    others = {n for n, v in columns.items() if n not in special | {"x"} and v.ndim == 1 and v.dtype.kind in "biuf"}
    if x is None or (x.ndim == 1 and others):
        table = of_arrays(where, columns, words)
        return of_table(table, where, label, groups, features, drop, categorical)._replace(names=names)
    if x.dtype.kind not in "biuf" or x.ndim < 2 or not x.size:
        hint = "; x.astype(float) makes numbers of objects" if x.dtype.kind == "O" else ""
        raise DataError(f"x of {where} has shape {x.shape} and type {x.dtype}: give numbers of shape [N, ...]{hint}")
    found = tuple(str(name) for name in np.asarray(names.get("feature_names", ())).reshape(-1))
    if found and (x.ndim != 2 or len(found) != x.shape[1] or len(set(found)) < len(found)):
        raise DataError(f"{where} has {len(found)} feature_names and x of shape {x.shape}: give each column its own")
    kinds = 0
    left = [f"{name} (beside x)" for name in columns if name not in special | {"x"}]
    if found:
        table = of_arrays(where, dict(zip(found, x.T, strict=True)), words)
        x, found, kinds, sentences = _features.select(table, "", (), features, drop, categorical)
    elif named(features) or named(drop) or named(categorical):
        raise DataError(
            f"x of {where} has no names of columns: give feature_names, or leave out features=, drop= and categorical="
        )
    else:
        sentences = (f"features: {' x '.join(map(str, x.shape[1:]))} numbers a person",)
    sentences += (f"dropped: {listed(left)}",) if left else ()
    wanted = groups or [name for name in ("group",) if name in columns]
    of = {name: columns[name] for name in wanted}
    return Raw(where, x, found, columns[label], label, of, columns.get("split"), names, sentences, kinds=kinds)
