"""The user's own data, from a ``.npz`` or a ``.parquet`` file, or from arrays.

===============  ================================================================================
``x``            ``[N, ...]`` numbers. In parquet: all numeric columns that have no other meaning
``y``            ``[N]`` the class, integers (-1 is one of them) or strings
``group``        ``[N]`` the group, integers or strings. None, NaN, empty and -1 mean ``unknown``
``split``        optional ``[N]``: train, validation or test. Without it: 70 / 10 / 20 per cent,
                 stratified by y and group
``class_names``  optional, npz only: ``C`` names; ``y`` then holds integers in ``[0, C)``
``group_names``  optional, npz only: ``G`` names; ``group`` then holds integers in ``[-1, G)``
===============  ================================================================================

People whose group is not known are people: they stay in the data, in a group of their own. No file
is ever unpickled.
"""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxfair.data._dataset import Dataset, Part, assemble
from jaxfair.data._errors import DataError, extra, listed
from jaxfair.data._groups import UNKNOWN
from jaxfair.data._splits import SPLITS, cells, stratified

_SPECIAL = ("y", "group", "split")


def own(
    path: str | os.PathLike[str],
    *,
    groups: str | Sequence[str] = "group",
    min_group_size: int = 0,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
    positive: Any = None,
) -> Dataset:
    """The user's own data; see the head of this file for what the file must hold.

    Args:
      path: of a ``.npz`` or ``.parquet`` file.
      groups: ``group``, ``label`` or both, whose intersection is meant.
      min_group_size: groups with fewer training examples are merged into ``other``.
      unconstrained: names of groups that are not to be constrained, such as ``unknown``.
      split_seed: which of the possible splits, where the file has no ``split``.
      positive: the name of the class that is the good outcome for a person, such as ``"repaid"``.

    Returns:
      A :class:`Dataset`. ``x`` is taken as it is (float32): nothing is standardised.

    Raises:
      DataError: the file is missing, damaged or pickled, an array is missing or of a wrong shape,
        ``x`` is not finite, a named group has no training example, or a split has an unknown name.

    Example:
      >>> import pathlib, tempfile
      >>> from jaxfair import data
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name, "mine.npz")
      >>> np.savez(path, x=np.ones((20, 3)), y=np.arange(20) % 2, group=["a", ""] * 10)
      >>> mine = data.load(path, unconstrained="unknown")
      >>> mine.group_names, mine.constrained.tolist()
      (('a', 'unknown'), [True, False])
      >>> folder.cleanup()
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}: give the path of a .npz or .parquet file that exists")
    read = {".npz": read_npz, ".parquet": _read_parquet}.get(path.suffix)
    if read is None:
        raise DataError(f"{path} is neither .npz nor .parquet: convert it to one of these")
    return _assembled(
        os.fspath(path), read(path), groups, min_group_size, unconstrained, split_seed, positive=positive, source=os.fspath(path)
    )  # fmt: skip


def dataset(
    x: Any,
    y: Any,
    group: Any,
    *,
    split: Any = None,
    name: str = "mine",
    class_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
    groups: str | Sequence[str] = "group",
    min_group_size: int = 0,
    unconstrained: str | Sequence[str] = (),
    split_seed: int = 0,
    positive: Any = None,
) -> Dataset:
    """The user's own arrays as a dataset; what stands at the head of this file for a file holds for them, too.

    Args:
      x: ``[N, ...]`` numbers.
      y: ``[N]`` the class, integers or strings.
      group: ``[N]`` the group, integers or strings; None, NaN, empty and -1 mean ``unknown``.
      split: ``[N]``: train, validation or test; by default 70 / 10 / 20 per cent, stratified by y and group.
      name: of the dataset, on pages and in errors.
      class_names: ``C`` names; ``y`` then holds integers in ``[0, C)``.
      group_names: ``G`` names; ``group`` then holds integers in ``[-1, G)``.
      groups: as of :func:`own`.
      min_group_size: as of :func:`own`.
      unconstrained: as of :func:`own`.
      split_seed: as of :func:`own`.
      positive: as of :func:`own`.

    Returns:
      A :class:`Dataset`. ``x`` is taken as it is (float32): nothing is standardised.

    Raises:
      DataError: as :func:`own`.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> mine = dataset(rng.normal(size=(200, 3)), rng.integers(0, 2, 200), rng.choice(["north", "south"], 200))
      >>> mine
      Dataset('mine': 142 train, 20 validation, 38 test, x [3], 2 classes, 2 groups)
    """
    columns = {"x": x, "y": y, "group": group, "split": split}
    names = {"class_names": class_names, "group_names": group_names}
    given = {k: np.asarray(v) for k, v in (columns | names).items() if v is not None}
    # NumPy makes words of everything in a list with a word in it: "nan" of NaN, and "None" of None.
    given |= {k: np.asarray(columns[k], object) for k in _SPECIAL if isinstance(columns[k], list | tuple)}
    return _assembled(name, given, groups, min_group_size, unconstrained, split_seed, positive=positive, source="")


def _assembled(
    path: str,
    columns: dict[str, Any],
    groups: str | Sequence[str],
    min_group_size: int,
    unconstrained: str | Sequence[str],
    split_seed: int,
    *,
    positive: Any,
    source: str,
) -> Dataset:
    """A dataset from its columns; ``path`` is what errors call it."""
    for name in ("x", "y", "group"):
        if name not in columns:
            raise DataError(f"{path} has no {name!r}, only {listed(columns)}: add it")
    x = np.asarray(columns["x"])
    if x.dtype.kind not in "biuf" or x.ndim < 2:
        raise DataError(f"x of {path} has shape {x.shape} and type {x.dtype}: give numbers of shape [N, ...]")
    y, class_names = _codes(path, "y", columns["y"], columns.get("class_names"), unknown=None)
    group, group_names = _codes(path, "group", columns["group"], columns.get("group_names"), unknown=UNKNOWN)
    lengths = {"x": len(x), "y": len(y), "group": len(group)}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{k} {n}" for k, n in lengths.items())
        raise DataError(f"{path}: lengths differ ({given}): give one value per example")
    rows = _rows(path, columns.get("split"), y, group, split_seed)
    empty = set(range(len(group_names))) - set(group[rows["train"]].tolist())
    if empty and not min_group_size:
        raise DataError(
            f"group {group_names[min(empty)]!r} of {path} has no example in the training split: add "
            "some, remove the group, or merge small groups by min_group_size=1"
        )
    with np.errstate(over="ignore"):  # what overflows is infinite, and is refused as such
        x = x.astype(np.float32)
    return assemble(
        path,
        {split: Part(x[r], y[r], {"group": group[r]}, r) for split, r in rows.items()},
        class_names=class_names,
        vocabularies={"group": group_names},
        groups=groups,
        min_group_size=min_group_size,
        unconstrained=unconstrained,
        positive=positive,
        feature_names=columns.get("feature_names", ()),
        source=source,
    )


def read_npz(path: pathlib.Path) -> dict[str, Any]:
    """The arrays of a ``.npz`` file, never unpickled.

    Raises:
      DataError: the file is truncated or otherwise damaged, or holds pickled objects.
    """
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise DataError(
                f"{path} is no .npz file, or holds Python objects, which are never unpickled: save "
                "strings as np.array([...], dtype=str)"
            ) from None
        raise DataError(f"{path} is damaged ({_line(error)}): make or download it again") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise DataError(f"{path} is truncated or damaged ({_line(error)}): make or download it again") from None


def _read_parquet(path: pathlib.Path) -> dict[str, Any]:
    pyarrow = extra("pyarrow", need=os.fspath(path))
    parquet = extra("pyarrow.parquet", need=os.fspath(path))
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is truncated or damaged ({_line(error)}): make or download it again") from None
    types = pyarrow.types
    features = [
        field.name
        for field in table.schema
        if field.name not in _SPECIAL
        and (types.is_integer(field.type) or types.is_floating(field.type) or types.is_boolean(field.type))
    ]
    if not features:
        raise DataError(f"{path} has no numeric column beside {listed(_SPECIAL)}: add the features")
    columns: dict[str, Any] = {
        name: np.array(table[name].to_pylist(), object) for name in _SPECIAL if name in table.column_names
    }
    # A missing number becomes NaN, which is refused further on by row.
    x = [np.array([np.nan if v is None else v for v in table[f].to_pylist()]) for f in features]
    return columns | {
        "x": np.stack([np.asarray(v, np.float64) for v in x], axis=1),
        "feature_names": tuple(features),
    }


def _plain(value: Any, column: str, path: str) -> Any:
    """A value as ``int`` or ``str``; None where it is missing."""
    value = value.item() if isinstance(value, np.generic) else value
    same = value == value  # False of NaN, and no truth value of pandas' NA
    if value is None or not (isinstance(same, bool | np.bool_) and same):
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float):  # how a column of integers looks once one of them is missing
        if not value.is_integer():
            raise DataError(f"{column} of {path} holds fractions: give integers or strings")
        value = int(value)
    if isinstance(value, int):
        return int(value)  # of truth values, too
    return str(value) if str(value).strip() else None


def _codes(
    path: str, column: str, values: Any, names: Any, *, unknown: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and names of a column; missing values are named ``unknown``, or refused if None."""
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"{column} of {path} has shape {values.shape}: give one value per example")
    plain = [_plain(value, column, path) for value in values.tolist()]
    # -1 is how integers say that a group is unknown; of y it is a class.
    none = {None} if unknown is None else {None, -1, "-1"}
    missing = np.array([(v.strip() if isinstance(v, str) else v) in none for v in plain])
    if unknown is None and missing.any():
        raise DataError(
            f"{column} of {path} is missing in row {int(missing.argmax())} ({int(missing.sum())} "
            "rows in all): remove these rows"
        )
    present = [v for v, m in zip(plain, missing, strict=True) if not m]
    if names is None:
        # Integers in the order of numbers, all else in the order of words.
        numbers = all(isinstance(v, int) for v in present)
        words = sorted({str(v) for v in present}, key=int if numbers else None)
        code = {word: i for i, word in enumerate(words)}
        codes = [-1 if m else code[str(v)] for v, m in zip(plain, missing, strict=True)]
    else:
        words = [str(name) for name in np.asarray(names).reshape(-1)]
        for v in present:
            if not isinstance(v, int) or not 0 <= v < len(words):
                raise DataError(
                    f"{column} of {path} has the value {v!r}, but {len(words)} names are given: "
                    f"use integers in [0, {len(words)})"
                )
        codes = [-1 if m else v for v, m in zip(plain, missing, strict=True)]
    result = np.array(codes, np.int64)
    if missing.any() and unknown is not None:
        if unknown not in words:
            words.append(unknown)
        result[missing] = words.index(unknown)
    return result, tuple(words)


def _rows(path: str, split: Any, y: np.ndarray, group: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    if split is None:
        return dict(zip(SPLITS, stratified(cells(y, group), seed=seed), strict=True))
    split = np.asarray(split)
    if split.shape != y.shape:
        raise DataError(f"split of {path} has shape {split.shape}: give one value per example")
    for value in sorted({str(v) for v in split.tolist()}):
        if value not in SPLITS:
            raise DataError(f"split of {path} has the value {value!r}: use {listed(SPLITS)}")
    return {name: np.flatnonzero(split.astype(str) == name).astype(np.int64) for name in SPLITS}


def _line(error: BaseException) -> str:
    """The first line of another library's message, for one of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
