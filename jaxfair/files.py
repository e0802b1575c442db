"""Whole files or none."""

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
