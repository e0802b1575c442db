"""The columns of a file by their names, as they are, before anyone says which is a class, a group or a score."""

import os
import pathlib
from typing import Any

import numpy as np

from jaxfair.data._codes import MISSING
from jaxfair.data._csv import read_csv
from jaxfair.data._errors import DataError, listed
from jaxfair.data._table import Column, Table, first_line, read_npz, read_parquet

#: What :func:`columns` can read.
SUFFIXES = (".csv", ".tsv", ".parquet", ".npz", ".npy")


class _Everything(frozenset[str]):
    """Every column is wanted, also one of words."""

    def __contains__(self, name: object) -> bool:
        return True


def columns(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    r"""All columns of a table, or all arrays of a file of NumPy.

    Args:
      path: of a ``.csv``, ``.tsv``, ``.parquet``, ``.npz`` or ``.npy`` file, or of a folder of ``.parquet`` parts. No
        file is ever unpickled. How a ``.csv`` file is read: :mod:`jaxfair.data._csv`.

    Returns:
      Name -> ``[N]`` (of ``.npz`` and ``.npy`` of any shape; the only array of the latter has the name of the file,
      without the suffix). Whole numbers are int64 and other numbers float64, NaN where one is missing; what is written
      as no number is (``007``), words and truth values are objects, None where one is missing. The index of a frame is
      left out.

    Raises:
      DataError: the file is missing, of another kind, damaged, pickled or empty, or has a column twice.

    Example:
      >>> import pathlib, tempfile
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name, "scores.csv")
      >>> _ = path.write_text("id,score,class\n007,0.25,no\n012,1,yes\n")
      >>> {name: values.tolist() for name, values in columns(path).items()}
      {'id': ['007', '012'], 'score': [0.25, 1.0], 'class': ['no', 'yes']}
      >>> folder.cleanup()
    """
    path = pathlib.Path(path)
    wanted = _Everything()
    suffix = path.suffix.lower()
    if path.is_dir():
        return _of_table(read_parquet(path, wanted))
    if not path.is_file():
        raise DataError(f"no file {path}: give the path of a {listed(SUFFIXES)} file that exists")
    if suffix == ".npz":
        found = read_npz(path)
        if not found:
            raise DataError(f"{path} holds no array: save some by np.savez(path, name=array)")
        return found
    if suffix == ".npy":
        return {path.stem: _npy(path)}
    if suffix == ".parquet":
        return _of_table(read_parquet(path, wanted))
    if suffix in (".csv", ".tsv"):
        return _of_table(read_csv(path, wanted))
    raise DataError(f"{path} is none of {listed(SUFFIXES)}: convert it to one of these")


def _npy(path: pathlib.Path) -> np.ndarray:
    try:
        with path.open("rb") as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)
    except ValueError as error:
        if "object" in str(error).lower():
            raise DataError(
                f"{path} holds Python objects, which are never unpickled: save numbers as numbers, and words by "
                "np.array([...], dtype=str)"
            ) from None
        raise DataError(f"{path} is damaged ({first_line(error)}): make or download it again") from None
    except (EOFError, OSError, MemoryError, TypeError) as error:
        raise DataError(f"{path} is truncated or damaged ({first_line(error)}): make or download it again") from None


def _of_table(table: Table) -> dict[str, np.ndarray]:
    found = {}
    for name, column in table.columns.items():
        if name not in table.index:
            numeric = column.kind == "number" and column.numbers is not None and not _of_words(column.values)
            found[name] = _numbers(column) if numeric else _objects(column.values)
    if not found:
        raise DataError(f"{table.name} has no column but an index: add the data")
    return found


def _numbers(column: Column) -> np.ndarray:
    # Whole numbers that float64 cannot hold, long identities for example, stand among the values only.
    values = column.values.tolist() if column.values is not None else []
    if values and all(type(value) is int for value in values):
        return np.array(values)
    numbers = np.asarray(column.numbers)
    whole = np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all() and np.abs(numbers).max() < 2**53
    return numbers.astype(np.int64) if whole else numbers


def _of_words(values: Any) -> bool:
    """Whether there are words among what could be read as numbers."""
    return values is not None and any(isinstance(value, str) for value in _objects(values))


def _objects(values: Any) -> np.ndarray:
    """Words and truth values; None for what stands for nothing once it is written down."""
    found = np.asarray(values, object).copy()
    found[[isinstance(value, str) and value.strip() in MISSING for value in found]] = None
    return found
