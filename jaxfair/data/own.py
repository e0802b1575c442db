"""The user's own data: a table in a ``.csv`` or ``.parquet`` file, arrays in a ``.npz`` file, or arrays.

A table has a row per person and, under names that may be chosen,

==============  =================================================================================
the class       column ``y``, or the one that ``label=`` names: integers (-1 is one of them), truth
                values (0 and 1) or words. Nobody may be without one
the groups      column ``group``, or those that ``groups=`` names: integers, truth values or words.
                Nothing, None, NaN, -1 and words such as ``NA`` mean ``unknown``
``split``       optional: train, validation or test. Without it 70 / 10 / 20 per cent are drawn,
                with people of every class and group in each as far as it can be; a column that
                knows no validation has 12 per cent of train drawn for it
the features    all other columns of numbers and truth values, or those that ``features=`` names; and a
                0 or 1 of each value of those that ``categorical=`` names
==============  =================================================================================

Other text, dates, lists, the index of a frame and the columns of groups are no features;
:attr:`Dataset.read <jaxfair.data.Dataset>` says what was taken and what was not. A ``.npz`` file has
arrays ``[N]`` with these names, or ``x`` ``[N, ...]`` in place of the features (images, say), and may
have ``class_names``, ``group_names`` and ``feature_names``, of which the others hold numbers then. A
folder of ``.parquet`` parts is one table. How a ``.csv`` file is read: :mod:`jaxfair.data._csv`.

People whose group is not known are people: they stay in the data, in a group of their own. No file
is ever unpickled.
"""

import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair.data import _features
from jaxfair.data._assembly import assembled
from jaxfair.data._csv import read_csv
from jaxfair.data._dataset import Dataset
from jaxfair.data._errors import DataError, listed
from jaxfair.data._groups import Names, named
from jaxfair.data._raw import of_columns, of_table
from jaxfair.data._table import Table, of_arrays, once, read_npz, read_parquet

#: What :func:`own` can read.
SUFFIXES = (".csv", ".tsv", ".parquet", ".npz")


def own(
    path: str | os.PathLike[str],
    *,
    label: str = "y",
    groups: Names = "group",
    features: Names | None = None,
    drop: Names = (),
    categorical: Names = (),
    min_group_size: int = 0,
    unconstrained: Names = (),
    split_seed: int = 0,
    positive: Any = None,
    standardize: bool | None = None,
) -> Dataset:
    r"""The user's own data; see the head of this file for what the file must hold.

    Args:
      path: of a ``.csv``, ``.parquet`` or ``.npz`` file, or of a folder of ``.parquet`` parts.
      label: the column of the class.
      groups: columns whose intersection makes the groups; ``label`` stands for the class.
      features: columns to learn from; by default all numbers that are nothing else.
      drop: columns not to learn from.
      categorical: columns whose values are kinds, words or numbers: each value that
        somebody in train has is a feature of 0 and 1. Missing, also -1, is the value ``unknown``.
      min_group_size: groups with fewer training examples are merged into ``other``.
      unconstrained: names of groups that are not to be constrained, such as ``unknown``.
      split_seed: which of the possible splits, where the file has no ``split``.
      positive: the name of the class that is the good outcome for a person, such as ``"repaid"``.
      standardize: subtract the mean of the training split and divide by its deviation, which are kept in
        ``Dataset.scaling``. By default the columns of a table are standardised, since a network learns nothing from
        ages beside shares, and an array ``x`` is taken as it is.

    Returns:
      A :class:`Dataset`, ``x`` in float32; its ``read`` says what was read.

    Raises:
      DataError: the file is missing, damaged or pickled, a column is missing or of a wrong shape,
        ``x`` is not finite, a named group has no training example, or a split has an unknown name.

    Example:
      >>> import pathlib, tempfile
      >>> from jaxfair import data
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name, "mine.csv")
      >>> rows = [f"{i},{20 + i % 50},{'no' if i % 3 else 'yes'},{'men' if i % 2 else 'women'}" for i in range(200)]
      >>> _ = path.write_text("\n".join(["name,age,repaid,sex", *(f"p{row}" for row in rows)]))
      >>> mine = data.load(path, label="repaid", groups=("sex", "label"), positive="yes")
      >>> mine.group_names, mine.class_names[mine.positive]
      (('men, no', 'men, yes', 'women, no', 'women, yes'), 'yes')
      >>> print(*mine.read, sep="\n")
      features: age (1 of 4 columns)
      dropped: name (text), sex (a group); categorical= learns from words
      standardised: less the mean of the training split, by its deviation
      class: repaid (no, yes), of which yes is the good outcome
      groups: sex (men, women) x class
      split: drawn, 140 train, 20 validation, 40 test, stratified by class and group
      >>> folder.cleanup()
    """
    path = pathlib.Path(path)
    label = str(label)
    columns = tuple(g for g in named(groups) if g not in ("label", label))
    words = {label, "group", "split", *columns, *named(categorical)}
    found = read(path, words, named(drop), named(features))
    of_found: Any = of_table if isinstance(found, Table) else of_columns
    raw = of_found(found, os.fspath(path), label, columns, features, drop, categorical)
    return assembled(
        raw, groups, min_group_size, unconstrained, split_seed, positive, standardize, source=os.fspath(path)
    )


def read(path: pathlib.Path, words: Collection[str], drop: Collection[str] = (), features: Collection[str] = ()) -> Any:
    """A :class:`Table`, or of a ``.npz`` file its arrays; the arguments are those of ``read_csv``."""
    if path.is_dir():
        return read_parquet(path, words)
    if not path.is_file():
        raise DataError(f"no file {path}: give the path of a {listed(SUFFIXES)} file that exists")
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, words)
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_csv(path, words, drop, features)
    raise DataError(f"{path} is none of {listed(SUFFIXES)}: convert it to one of these")


def dataset(
    x: Any,
    y: Any,
    group: Any = None,
    *,
    split: Any = None,
    name: str = "mine",
    class_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    groups: Names | None = None,
    features: Names | None = None,
    drop: Names = (),
    categorical: Names = (),
    min_group_size: int = 0,
    unconstrained: Names = (),
    split_seed: int = 0,
    positive: Any = None,
    standardize: bool | None = None,
) -> Dataset:
    """The user's own arrays as a dataset; what stands at the head of this file for a file holds for them, too.

    Args:
      x: ``[N, ...]`` numbers, or a data frame, whose numeric columns are meant.
      y: ``[N]`` the class, integers, truth values or words.
      group: ``[N]`` the group, integers, truth values or words; or several of them, in a dict or a data frame. Who has
        none (None, NaN, empty, -1) is in ``unknown``.
      split: ``[N]``: train, validation or test; by default 70 / 10 / 20 per cent are drawn.
      name: of the dataset, on pages and in errors.
      class_names: ``C`` names; ``y`` then holds integers in ``[0, C)``.
      group_names: ``G`` names; ``group`` then holds integers in ``[-1, G)``.
      feature_names: ``D`` names of the columns of an array x.
      groups: ``group``, or the names of several; ``label`` stands for the class. All that are given by default.
      features: as of :func:`own`.
      drop: as of :func:`own`.
      categorical: as of :func:`own`.
      min_group_size: as of :func:`own`.
      unconstrained: as of :func:`own`.
      split_seed: as of :func:`own`.
      positive: as of :func:`own`.
      standardize: as of :func:`own`.

    Returns:
      A :class:`Dataset`, ``x`` in float32; its ``read`` says what was read.

    Raises:
      DataError: as :func:`own`.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> mine = dataset(rng.normal(size=(200, 3)), rng.integers(0, 2, 200), rng.choice(["north", "south"], 200))
      >>> mine
      Dataset('mine': 140 train, 20 validation, 40 test, x [3], 2 classes, 2 groups)
    """
    given = {"group": group} if group is not None else {}
    if _is_frame(group):
        given = _columns(group, f"group of {name}")
    chosen = ((*given,) or ("group",)) if groups is None else named(groups)
    arrays = {"class_names": class_names, "group_names": group_names, "feature_names": feature_names, "split": split}
    arrays = {key: value for key, value in arrays.items() if value is not None} | {"y": y} | given
    arrays = {key: as_array(v) for key, v in arrays.items()}
    columns = tuple(g for g in chosen if g not in ("label", "y"))
    if _is_frame(x):
        table = of_arrays(name, _columns(x, f"x of {name}"), named(categorical))
        values, found, kinds, sentences = _features.select(table, "", (), features, drop, categorical)
        arrays["feature_names"] = np.array(found)
        features, drop, categorical = None, (), ()
    else:
        values, kinds = np.ma.filled(x.astype(float), np.nan) if isinstance(x, np.ma.MaskedArray) else x, 0
        sentences = ()
    raw = of_columns(arrays | {"x": values}, name, "y", columns, features, drop, categorical)
    if _is_frame(x):
        raw = raw._replace(sentences=sentences, by_columns=True, kinds=kinds)
    return assembled(raw, chosen, min_group_size, unconstrained, split_seed, positive, standardize, source="")


def as_array(values: Any) -> np.ndarray:
    """Values as they are; what is masked, or None in a list, is None."""
    if isinstance(values, np.ma.MaskedArray):  # whose values are still there behind the mask
        seen = np.array(values.data, object)
        seen[np.ma.getmaskarray(values)] = None
        return seen
    # NumPy makes words of everything in a list with a word in it: "nan" of NaN, and "None" of None.
    return np.asarray(values, object if isinstance(values, list | tuple) else None)


def _is_frame(values: Any) -> bool:
    return isinstance(values, Mapping) or hasattr(values, "columns")


def _columns(frame: Any, where: str) -> dict[str, Any]:
    names = once(where, [str(key) for key in getattr(frame, "columns", frame)])
    return dict(zip(names, (frame[key] for key in getattr(frame, "columns", frame)), strict=True))
