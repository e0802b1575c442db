"""What a network wants of new people: its columns in order, categories as 0 and 1, numbers on its scale."""

import json
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxfair.data import _codes, _features
from jaxfair.data._dataset import Dataset
from jaxfair.data._errors import DataError, DataWarning, listed, shown
from jaxfair.data._table import Table, of_arrays
from jaxfair.data.own import as_array, read

#: As numbers, how truth values are written.
_TRUTH = {word: str(int(word.lower() == "true")) for word in ("True", "true", "TRUE", "False", "false", "FALSE")}


def inputs(people: Any, known: Dataset | Mapping[str, Any]) -> np.ndarray:
    """The inputs of a network for people that it has not seen.

    As in training: ``x = (column - mean) / deviation``, with the numbers of the training split, and 1 for a person who
    has a category's value, however that is written (``1``, ``1.0`` and ``True`` are one). A value that nobody had in
    training has no feature: it is 0 in all of its column's, and a warning says so.

    Args:
      people: the path of a table, as of :func:`own`, or its columns by name, in a dict or a data frame. Only those
        that the network learned from are read.
      known: what it was trained on; or the metadata of its file, ``sparsity.load(path).metadata``, with
        ``feature_names``, and ``scaling_mean`` and ``scaling_deviation`` where it was standardised.

    Returns:
      ``[N, D]`` float32.

    Raises:
      DataError: a column is not there or no number, or a number is missing.

    Warns:
      DataWarning: of people with a value that nobody had in training.

    Example:
      >>> from jaxfair import data
      >>> table = {"age": [20, 40] * 20, "work": ["nurse", "clerk"] * 20}
      >>> split = ["train"] * 36 + ["validation", "test"] * 2
      >>> mine = data.dataset(table, [0, 1] * 20, ["a", "b"] * 20, split=split, categorical="work")
      >>> mine.feature_names
      ('age', 'work=clerk', 'work=nurse')
      >>> inputs({"work": ["clerk", "nurse"], "age": [30, 45]}, mine).tolist()
      [[0.0, 1.0, 0.0], [1.5, 0.0, 1.0]]
    """
    names, scaling = _wanted(known)
    table = _table(people, names)
    columns = dict(zip(shown(list(table.columns)), table.columns, strict=True))
    values: dict[str, list[str]] = {}
    met: dict[str, np.ndarray] = {}

    def feature(name: str) -> np.ndarray:
        if name in columns:
            numbers = table.columns[columns[name]].numbers
            if numbers is None:
                kind = table.columns[columns[name]].kind
                raise DataError(f"{table.name}: column {name!r} is no number but {kind}, and the network wants numbers")
            return numbers
        # A name may have an equals sign in it, and so may a value.
        places = [place for place, letter in enumerate(name) if letter == "=" and name[:place] in columns]
        places = [place for place in places if name[:place] not in names]
        if not places:
            raise DataError(f"{table.name} has no column for the feature {name!r}, only {listed(columns)}: add it")
        has = np.zeros(table.rows, bool)
        for column, value in ((name[:place], name[place + 1 :]) for place in places):
            if column not in values:
                coded = _codes.groups(table.name, column, table.columns[columns[column]].values, None)
                known = [shown([f"{column}={of}"])[0].removeprefix(f"{column}=") for of in coded.names]
                values[column] = [known[code] for code in coded.codes]
                met[column] = np.zeros(table.rows, bool)
            same = np.array([_same(of, value) for of in values[column]])
            met[column] |= same
            has |= same
        return has.astype(float)

    x = np.stack([feature(name) for name in names], axis=1)
    for column, of in met.items():
        if not of.all():
            new = listed(dict.fromkeys(value for value, is_met in zip(values[column], of, strict=True) if not is_met))
            warnings.warn(f"{table.name}: nobody in training had {column} {new}: no feature says so.", DataWarning, 2)
    if scaling is not None:
        x = (x - scaling[0]) / scaling[1]
    return _features.as_float32(table.name, x, names)


def _wanted(known: Dataset | Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[np.ndarray, np.ndarray] | None]:
    """Names of the features, and their scaling."""
    if isinstance(known, Dataset):
        names, scaling = known.feature_names, known.scaling
    else:
        names = json.loads(known.get("feature_names", "[]"))
        found = [json.loads(known[key]) for key in ("scaling_mean", "scaling_deviation") if key in known]
        scaling = (np.asarray(found[0]), np.asarray(found[1])) if found else None
    if not names:
        raise DataError("the network learned from an array without names of columns: give it x as in training")
    return tuple(names), scaling


def _table(people: Any, names: tuple[str, ...]) -> Table:
    """The columns, with the values of those that may be categories."""
    words = {name[:place] for name in names for place, letter in enumerate(name) if letter == "="}
    if isinstance(people, str | os.PathLike):
        path = pathlib.Path(people)
        # As in training a column of numbers with a word in it is an error, and others may hold anything.
        found = read(path, words, (), [*names, *words])
        if isinstance(found, Table):
            return found
        if "x" in found and "feature_names" in found:
            found = dict(zip(map(str, found["feature_names"]), found["x"].T, strict=True))
        return of_arrays(os.fspath(path), found, words)
    names_of = getattr(people, "columns", people)
    if not isinstance(people, Mapping) and not hasattr(people, "columns"):
        raise DataError(f"people of type {type(people).__name__}: give the path of a table, or its columns by name")
    return of_arrays("the table", {str(name): as_array(people[name]) for name in names_of}, words)


def _same(value: str, known: str) -> bool:
    """Whether two values are one: a table writes a code as 1, 1.0 or True, by what stands beside it."""
    if value == known:
        return True
    try:
        return _TRUTH.get(value, value) == _TRUTH.get(known, known) or float(_TRUTH.get(value, value)) == float(
            _TRUTH.get(known, known)
        )
    except ValueError:
        return False
