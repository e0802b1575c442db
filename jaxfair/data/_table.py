"""Files and frames as named columns: what kind each is, before anyone says what it is for."""

import decimal
import json
import os
import pathlib
import re
import urllib.parse
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data._errors import DataError, extra, listed

#: How the names of an index begin that was written as a column.
INDEX = ("__index_level_", "Unnamed: ")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      kind: ``number`` or ``truth`` (both may be features), or what else it is: ``text``, ``date``, ``list``, ``empty``,
        ...
      numbers: ``[N]`` float64, NaN where missing; None of what is no number.
      values: ``[N]`` the values as they are, for a class or a group; None where they were not asked for.
    """

    kind: str
    numbers: np.ndarray | None
    values: Any


class Table(NamedTuple):
    """Columns of one length.

    Attributes:
      name: what errors call it.
      columns: by name, in the order of the file.
      index: names of those that number the rows and say nothing about them.
      rows: N.
      sentences: on what was left out.
    """

    name: str
    columns: dict[str, Column]
    index: tuple[str, ...]
    rows: int
    sentences: tuple[str, ...] = ()


def once(where: str, names: Sequence[str]) -> list[str]:
    """The names, of which each occurs once.

    Raises:
      DataError: one occurs twice.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{where} has more than one column {twice[0]!r}: rename or remove all but one")
    return list(names)


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
                f"{path} is no .npz file, or holds Python objects, which are never unpickled: save numbers as numbers, "
                "and words by np.array([...], dtype=str) with '' where one is missing"
            ) from None
        raise DataError(f"{path} is damaged ({first_line(error)}): make or download it again") from None
    # A byte that is wrong may say of a file that it is encrypted, or of another version of the format.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, AttributeError) as error:
        raise DataError(f"{path} is truncated or damaged ({first_line(error)}): make or download it again") from None


def of_arrays(where: str, arrays: Mapping[str, Any], words: Collection[str]) -> Table:
    """A table of arrays ``[N]``, of a file or a frame.

    Args:
      where: what errors call it.
      arrays: by name. Those of more dimensions are of the kind ``array``, and are no features.
      words: names of columns whose values are wanted even if they are text.

    Raises:
      DataError: no array, or arrays of unequal lengths.
    """
    given = {str(name): np.asarray(values) for name, values in arrays.items()}
    flat = {name: len(values) for name, values in given.items() if values.ndim == 1}
    if not flat:
        raise DataError(f"{where} has no column of one value per example, only {listed(given)}: add the data")
    if len(set(flat.values())) > 1:
        raise DataError(
            f"{where}: lengths differ ({listed(f'{k} {n}' for k, n in flat.items())}): give one value per example"
        )
    rows = next(iter(flat.values()))
    if not rows:
        raise DataError(f"{where} has no rows: add the data")
    index = tuple(name for name in given if name.startswith(INDEX))
    return Table(where, {name: _of_array(values, name in words) for name, values in given.items()}, index, rows)


def _of_array(values: np.ndarray, keep: bool) -> Column:
    kinds = {"M": "date", "m": "duration", "U": "text", "S": "text", "T": "text", "c": "complex", "V": "record"}
    kept = values if keep else None
    if values.ndim != 1:
        return Column("array", None, kept)
    if values.dtype.kind in "biuf":
        return _numbers("truth" if values.dtype.kind == "b" else "number", values.astype(np.float64), kept)
    if values.dtype.kind == "O":
        kind, numbers = _of_objects(values.tolist())
        return Column(kind, None, kept) if numbers is None else _numbers(kind, numbers, kept)
    return Column(kinds.get(values.dtype.kind, "unknown"), None, kept)


def _numbers(kind: str, numbers: np.ndarray, kept: Any) -> Column:
    """A column of numbers; of one that holds none nothing can be learned."""
    return Column("empty", None, kept) if np.isnan(numbers).all() else Column(kind, numbers, kept)


def _of_objects(values: list[Any]) -> tuple[str, np.ndarray | None]:
    """Kind and numbers of Python objects, some of which may be missing."""
    present = [v for v in values if v is not None and type(v).__name__ not in ("NAType", "NaTType")]
    if not present:
        return "empty", None
    if all(isinstance(v, bool | np.bool_) for v in present):
        kind = "truth"
    elif all(isinstance(v, int | float | decimal.Decimal | np.integer | np.floating) for v in present):
        kind = "number"
    else:
        other = next(v for v in present if not isinstance(v, int | float))
        return ("text" if isinstance(other, str | bytes) else type(other).__name__), None
    here = [v is not None and type(v).__name__ not in ("NAType", "NaTType") for v in values]
    return kind, np.array([float(v) if h else np.nan for v, h in zip(values, here, strict=True)], np.float64)


def read_parquet(path: pathlib.Path, words: Collection[str]) -> Table:
    """The columns of a ``.parquet`` file, or of a folder of parts.

    Parts are read in the order of their names; ``key=value`` in the name of a folder is a column ``key``. A column
    that a part lacks is missing in its rows.

    Args:
      path: of the file or folder.
      words: names of columns whose values are wanted even if they are text.

    Raises:
      DataError: PyArrow is not installed, no part, a file that is damaged, a column twice, parts that do not fit.
    """
    pyarrow = extra("pyarrow", need=os.fspath(path))
    parquet = extra("pyarrow.parquet", need=os.fspath(path))
    parts = _parts(path) if path.is_dir() else [path]
    part, tables, keys = path, [], []
    try:
        for part in parts:
            with parquet.ParquetFile(part) as file:
                names = once(str(part), file.schema_arrow.names)
                kinds = {name: _arrow_kind(pyarrow.types, file.schema_arrow.field(name).type) for name in names}
                read = [name for name in names if kinds[name] in ("number", "truth") or name in words]
                table = file.read(columns=read)
                tables.append({name: _of_arrow(pyarrow, kinds[name], table, name, words) for name in names})
                keys.append((file.metadata.num_rows, _keys(part, path), _pandas_index(file.schema_arrow)))
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{part} is truncated or damaged ({first_line(error)}): make or download it again") from None
    rows = sum(number for number, _, _ in keys)
    if not rows:
        raise DataError(f"{path} has no rows: add the data")
    for table, (number, of_part, _) in zip(tables, keys, strict=True):
        for name, value in of_part.items():
            table[name] = _of_array(np.full(number, value, object), True)
    # In the order of the first part that has them.
    columns = {name: _joined(path, name, tables, keys) for table in tables for name in table}
    index = tuple(name for name in columns if name in keys[0][2] or name.startswith(INDEX))
    return Table(str(path), columns, index, rows)


def _joined(path: pathlib.Path, name: str, tables: Sequence[dict[str, Column]], keys: Sequence[Any]) -> Column:
    """A column of all parts; where a part has none it is missing."""
    pieces = [table.get(name, Column("empty", None, None)) for table in tables]
    kinds = {piece.kind for piece in pieces} - {"empty"}
    kinds = {"number"} if kinds == {"number", "truth"} else kinds
    if len(kinds) > 1:
        raise DataError(
            f"column {name!r} of {path} is {' in one part and '.join(sorted(kinds))} in another: write it alike in all"
        )
    values = None
    if any(piece.values is not None for piece in pieces):
        nothing = [np.full(number, None, object) for number, _, _ in keys]
        values = np.concatenate([n if p.values is None else p.values for p, n in zip(pieces, nothing, strict=True)])
    if all(piece.numbers is None for piece in pieces):
        return Column(kinds.pop() if kinds else "empty", None, values)
    missing = [np.full(number, np.nan) for number, _, _ in keys]
    numbers = [n if p.numbers is None else p.numbers for p, n in zip(pieces, missing, strict=True)]
    return Column(kinds.pop(), np.concatenate(numbers), values)


def _keys(part: pathlib.Path, path: pathlib.Path) -> dict[str, Any]:
    """The columns that the names of a part's folders hold: sex=men/part-0.parquet."""
    found = [name.partition("=") for name in part.relative_to(path).parent.parts if "=" in name] if part != path else []
    values = {key: urllib.parse.unquote(value) for key, _, value in found}
    whole = {key: int(value) if re.fullmatch(r"-?\d+", value, re.ASCII) else value for key, value in values.items()}
    return {key: None if value == "__HIVE_DEFAULT_PARTITION__" else value for key, value in whole.items()}


def _parts(path: pathlib.Path) -> list[pathlib.Path]:
    hidden = (".", "_")
    found = [
        part
        for part in sorted(path.rglob("*.parquet"))
        if part.is_file() and not any(name.startswith(hidden) for name in part.relative_to(path).parts)
    ]
    if not found:
        raise DataError(f"folder {path} holds no .parquet file: give a file, or a folder of parts of one table")
    return found


def _arrow_kind(types: Any, kind: Any) -> str:
    if types.is_dictionary(kind):
        kind = kind.value_type
    for name, test in (
        ("truth", types.is_boolean), ("number", types.is_integer), ("number", types.is_floating),
        ("number", types.is_decimal), ("text", types.is_string), ("text", types.is_large_string),
        ("text", types.is_string_view), ("empty", types.is_null), ("duration", types.is_duration),
        ("date", types.is_temporal), ("list", types.is_nested),
    ):  # fmt: skip
        if test(kind):
            return name
    return str(kind)


def _of_arrow(pyarrow: Any, kind: str, table: Any, name: str, words: Collection[str]) -> Column:
    if name not in table.column_names:
        return Column(kind, None, None)
    column = table[name]
    values = None
    if name in words:
        values = np.empty(len(column), object)
        values[:] = column.to_pylist()
    if kind not in ("number", "truth"):
        return Column(kind, None, values)
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    # What float64 cannot hold exactly, float32 cannot either: nothing is lost that would be kept.
    numbers = column.cast(pyarrow.float64(), safe=False).to_numpy()
    return _numbers(kind, np.asarray(numbers, np.float64), values)


def _pandas_index(schema: Any) -> set[str]:
    """Columns that were the index of a frame; a range of numbers is none, as it is not stored as a column."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        return {name for name in metadata.get("index_columns", ()) if isinstance(name, str)}
    except (ValueError, AttributeError, TypeError):  # by somebody else's hand
        return set()


def first_line(error: BaseException) -> str:
    """The first line of another library's message, for one of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
