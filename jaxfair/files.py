"""Whole files or none."""

import hashlib
import os
import secrets
from pathlib import Path


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
    finally:
        temporary.unlink(missing_ok=True)
    return path


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
