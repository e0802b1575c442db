"""Whole files or none; and what stands in a user's file, as text that can be shown."""

import contextlib
import hashlib
import os
import secrets
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

#: Unicode's controls, marks of direction and the like, halves of pairs, and separators of lines and paragraphs.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
#: Marks inside of words and pictures (zero-width joiners), which change how their neighbours look and nothing else.
_JOINS = {"\u200c", "\u200d"}


class DamagedError(ValueError):
    """A file of a run that cannot be read: one line says which, why, and what to remove.

    Example:
      >>> print(DamagedError("runs/1/records.jsonl", "line 3 is no record", "remove that line"))
      runs/1/records.jsonl is damaged (line 3 is no record): remove that line
    """

    def __init__(self, path: str | os.PathLike, why: str, instead: str) -> None:
        super().__init__(f"{os.fspath(path)} is damaged ({why}): {instead}")
        self.path, self.why = os.fspath(path), why


def atomic_write(path: str | os.PathLike, content: str | bytes) -> Path:
    """Write a whole file, so that at any moment either the old one or the new one is there.

    Args:
      path: of the file; missing folders are made.
      content: text (written as UTF-8) or bytes.

    Returns:
      The path.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "runs" / "table.md"
      >>> atomic_write(path, "a").read_text()
      'a'
      >>> sorted(p.name for p in path.parent.iterdir())      # nothing is left behind
      ['table.md']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    # In the same folder, for a rename across file systems is a copy; not by tempfile, whose files
    # only their owner may read.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise located(error, path) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def located(error: OSError, path: str | os.PathLike) -> OSError:
    """An error of the system with the path that it is about: a write that fails does not say where.

    Args:
      error: as it was caught.
      path: that was written.

    Example:
      >>> print(located(OSError(28, "No space left on device"), "runs/1/records.jsonl"))
      [Errno 28] No space left on device: 'runs/1/records.jsonl'
    """
    return error if error.errno is None else OSError(error.errno, error.strerror, os.fspath(path))


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, as ``sha256sum`` says it; of a folder, that of its files and their names, in order.

    Args:
      path: of the file or the folder.

    Example:
      >>> import tempfile
      >>> path = atomic_write(Path(tempfile.mkdtemp()) / "a.txt", "a")
      >>> sha256(path)[:8], sha256(path.parent)[:8]
      ('ca978112', '29ef94e5')
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        listed = "".join(f"{sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in inside)
        return hashlib.sha256(listed.encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def arrays(path: str | os.PathLike, instead: str) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz`` file of ours.

    Args:
      path: of the file.
      instead: what to do where it is not whole.

    Raises:
      DamagedError: for a file that is not whole.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "labels.npz"
      >>> np.savez(path, test=np.arange(3))
      >>> arrays(path, "remove it")["test"].tolist()
      [0, 1, 2]
      >>> _ = path.write_bytes(path.read_bytes()[:-9])
      >>> arrays(path, "remove it")
      Traceback (most recent call last):
        ...
      jaxfair.files.DamagedError: .../labels.npz is damaged (File is not a zip file): remove it
    """
    try:
        # NumPy leaves a file open that it opened and could not read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except OSError:
        raise
    except Exception as error:  # of zip, of zlib, or of NumPy
        raise DamagedError(path, " ".join(str(error).split())[:100], instead) from None


def escape(letter: str) -> str:
    r"""A character as Python would write it in ASCII: ``\n``, ``\x1b``, ``\u202e``.

    Example:
      >>> print(escape(chr(11)), escape(chr(0x4E2D)))
      \x0b \u4e2d
    """
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def visible(text: Any) -> str:
    r"""Text with everything escaped that is no letter to be seen.

    Args:
      text: of any kind; ``str`` makes text of it.

    Returns:
      One line.

    Example:
      >>> print(visible("red" + chr(27) + "[31m" + chr(10) + "two"))
      red\x1b[31m\ntwo
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(escape(c) if unicodedata.category(c) in _HIDDEN and c not in _JOINS else c for c in text)
