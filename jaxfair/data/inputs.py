"""What a network wants of new people: its columns in order, categories as 0 and 1, numbers on its scale."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxfair.data import _codes, _features
from jaxfair.data._dataset import Dataset
from jaxfair.data._errors import DataError, listed, shown
from jaxfair.data._table import Table, of_arrays
from jaxfair.data.own import read


def inputs(people: Any, known: Dataset | Mapping[str, Any]) -> np.ndarray:
    """The inputs of a network for people that it has not seen.

    As in training: ``x = (column - mean) / deviation``, with the numbers of the training split, and 1 for a person who
    has a category's value. A value that nobody had in training has no feature: it is 0 in all of its column's.

    Args:
      people: the path of a table, as of :func:`own`, or its columns by name, in a dict or a data frame. Only those
        that the network learned from are read.
      known: what it was trained on; or the metadata of its file, ``sparsity.load(path).metadata``, with
        ``feature_names``, and ``scaling_mean`` and ``scaling_deviation`` where it was standardised.

    Returns:
      ``[N, D]`` float32.

    Raises:
      DataError: a column is not there or no number, or a number is missing.

    Example:
      >>> from jaxfair import data
      >>> table = {"age": [20, 40] * 20, "work": ["nurse", "clerk"] * 20}
      >>> split = ["train"] * 36 + ["validation", "test"] * 2
      >>> mine = data.dataset(table, [0, 1] * 20, ["a", "b"] * 20, split=split, categorical="work")
      >>> mine.feature_names
      ('age', 'work=clerk', 'work=nurse')
      >>> inputs({"work": ["clerk", "cook"], "age": [30, 45]}, mine).tolist()
      [[0.0, 1.0, 0.0], [1.5, 0.0, 0.0]]
    """
    names, scaling = _wanted(known)
    table = _table(people, names)
    columns = dict(zip(shown(list(table.columns)), table.columns, strict=True))
    codes: dict[str, _codes.Coded] = {}

    def feature(name: str) -> np.ndarray:
        if name in columns:
            numbers = table.columns[columns[name]].numbers
            if numbers is None:
                kind = table.columns[columns[name]].kind
                raise DataError(f"{table.name}: column {name!r} is no number but {kind}, and the network wants numbers")
            return numbers
        for column in _categories(name, columns):
            if column not in codes:
                codes[column] = _codes.groups(table.name, column, table.columns[columns[column]].values, None)
            of = [shown([f"{column}={value}"])[0] == name for value in codes[column].names]
            return np.array(of, float)[codes[column].codes]
        raise DataError(f"{table.name} has no column for the feature {name!r}, only {listed(columns)}: add it")

    x = np.stack([feature(name) for name in names], axis=1)
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
        return found if isinstance(found, Table) else of_arrays(os.fspath(path), found, words)
    columns = {str(name): np.asarray(people[name]) for name in getattr(people, "columns", people)}
    return of_arrays("the table", columns, words)


def _categories(name: str, columns: Mapping[str, str]) -> list[str]:
    """The columns whose value a feature may be, the longest first: a name may have an equals sign in it."""
    places = [place for place, letter in enumerate(name) if letter == "="]
    return [name[:place] for place in reversed(places) if name[:place] in columns]
