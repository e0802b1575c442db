"""Columns whose values are kinds and no amounts: a feature of 0 and 1 of each value."""

from collections.abc import Collection

import numpy as np

from jaxfair.data import _codes
from jaxfair.data._errors import DataError, listed
from jaxfair.data._table import Table

#: Values of a column; with more it is a name or a text.
_MOST = 200


def check_categorical(table: Table, categorical: Collection[str], label: str, dropped: Collection[str]) -> None:
    """Raises for names that are no columns, or are something else."""
    for name in categorical:
        if name not in table.columns:
            raise DataError(f"categorical={name!r} is no column of {table.name}: choose from {listed(table.columns)}")
        if name in (label, "split"):
            what = "class" if name == label else "split"
            raise DataError(f"categorical={name!r} is the {what} of {table.name}: leave it out")
        if name in dropped or list(categorical).count(name) > 1:
            raise DataError(f"categorical={name!r} is named twice, or dropped as well: name it once")


def indicators(
    table: Table, categorical: Collection[str], taken: Collection[str]
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """A feature of 0 and 1 for each value of each of these columns.

    Args:
      table: the columns, with the values of these.
      categorical: their names. What is missing is a value, ``unknown``.
      taken: names of features that there are already.

    Returns:
      ``[N, K]`` float64, K names such as ``region=north``, and a sentence where there is one to say.

    Raises:
      DataError: a column of more values than 200, or of fractions; two features of one name.
    """
    parts, names, told = [np.zeros((table.rows, 0))], [], []
    for name in categorical:
        coded = _codes.groups(table.name, name, table.columns[name].values, None)
        if len(coded.names) > _MOST:
            raise DataError(
                f"categorical={name!r} of {table.name} has {len(coded.names):,} values, and a feature would be made of "
                f"each: put rare ones together, so that at most {_MOST} are left, or leave it out"
            )
        parts.append(coded.codes[:, None] == np.arange(len(coded.names)))
        made = [f"{name}={value}" for value in coded.names]
        if twice := {*taken, *names} & {*made}:
            raise DataError(
                f"categorical={name!r} of {table.name} makes a feature {min(twice)!r}, and there is one of that name: "
                "rename a column"
            )
        names += made
        told.append(f"{name} ({len(coded.names)} values)")
    said = (f"features of 0 and 1 of each value: {listed(told)}",) if told else ()
    return np.concatenate(parts, axis=1).astype(np.float64), tuple(names), said
