"""Records of a run: one JSON object per line, in a file that survives being killed at any moment.

- :func:`append` ends on disk before it returns (flush and fsync). If the last run died in the
  middle of a line, that half line is cut off first.
- :func:`read` ignores a half-written last line, and refuses any other broken line.
- :func:`truncate` rewrites the file through a temporary one, so that a resumed run starts from the
  records of its checkpoint and no reader ever sees half a file.

JSON has no nan and no infinities, and a diverged loss is worth recording. They are written as
``{"$float": "nan"}``, ``{"$float": "inf"}`` and ``{"$float": "-inf"}`` and come back as floats:
valid JSON for every reader, and no string or null of a user can be mistaken for one. Arrays become
lists, float32 becomes the double of the same value, so every number comes back bit for bit.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxfair import files

_TAG = "$float"


def _plain(value: Any) -> Any:
    """What JSON can say of ``value``."""
    if hasattr(value, "tolist"):  # numpy and JAX arrays and scalars
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {_TAG: str(value)}
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str) or key == _TAG]
        if wrong:
            raise TypeError(f"keys of a record are strings other than {_TAG!r}, not {wrong[0]!r}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a record cannot hold {type(value).__name__}: {value!r}")


def _restored(pairs: dict) -> Any:
    return float(pairs[_TAG]) if pairs.keys() == {_TAG} else pairs


def dumps(record: Mapping[str, Any]) -> str:
    """One record as one line of JSON, without the line's end.

    Args:
      record: strings to numbers, strings, booleans, None, arrays, and lists and mappings of those.

    Returns:
      The line.

    Raises:
      TypeError: for a value that would not come back.

    Example:
      >>> import numpy as np
      >>> dumps({"loss": float("nan"), "gap": np.float32([0.5, 0.25])})
      '{"loss": {"$float": "nan"}, "gap": [0.5, 0.25]}'
    """
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False)


def loads(line: str) -> dict[str, Any]:
    """The record of a line.

    Example:
      >>> loads('{"loss": {"$float": "-inf"}}')
      {'loss': -inf}
    """
    record = json.loads(line, object_hook=_restored)
    if not isinstance(record, dict):
        raise ValueError(f"a record is a JSON object, not {line[:60]!r}")
    return record


def append(path: str | os.PathLike, *records: Mapping[str, Any]) -> None:
    """Add records to the end of the file, and wait until they are on disk.

    Args:
      path: of the file; made, with its folder, if it is missing.
      *records: see :func:`dumps`. All are converted before anything is written.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "records.jsonl"
      >>> append(path, {"step": 1}, {"step": 2})
      >>> whole = path.read_text()
      >>> _ = path.write_text(whole + '{"st')        # killed in the middle of a line
      >>> append(path, {"step": 3})
      >>> read(path)
      [{'step': 1}, {'step': 2}, {'step': 3}]
    """
    path = Path(path)
    data = "".join(dumps(record) + "\n" for record in records).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            rest = memoryview(data)
            while rest:  # on a disk that gets full, a part is written first
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
    except OSError as error:
        raise files.located(error, path) from None


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
    """All records of a file, in order.

    Args:
      path: of the file; one that does not exist has no records.

    Returns:
      The records. A last line without an end was being written when the run died, and is left out.

    Raises:
      DamagedError: a ``ValueError``, for any other line that is no record, with its number.

    Example:
      >>> read("no/such/file.jsonl")
      []
    """
    path = Path(path)
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")  # what follows the last end of line is half a line
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(loads(line.decode()))
        except ValueError as error:
            why = f"line {number} is no record: {' '.join(str(error).split())[:100]}"
            raise files.DamagedError(path, why, "remove that line, and what it recorded is made again") from error
    return records


def truncate(path: str | os.PathLike, keep: Callable[[dict[str, Any]], bool]) -> int:
    """Drop the records that a resumed run will write again.

    Args:
      path: of the file; one that does not exist stays so.
      keep: of a record, whether it stays.

    Returns:
      How many were dropped. The file is replaced in one step, and not touched if nothing has to go.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "records.jsonl"
      >>> append(path, *({"step": step} for step in range(5)))
      >>> truncate(path, lambda record: record["step"] < 3)
      2
      >>> read(path)[-1]
      {'step': 2}
    """
    records = read(path)
    kept = [record for record in records if keep(record)]
    if len(kept) < len(records):
        files.atomic_write(path, "".join(dumps(record) + "\n" for record in kept))
    return len(records) - len(kept)
