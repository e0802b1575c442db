"""What can be wrong with a disk, said by orbax in hundreds of lines from its threads: here it is one."""

import contextlib
import errno
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from jaxfair import files


@contextlib.contextmanager
def writing(folder: str | os.PathLike[str], needed: int = 0) -> Iterator[None]:
    """Raises ``OSError`` with the system's number where a checkpoint could not be written, and nothing else is printed.

    Args:
      folder: of the checkpoint.
      needed: bytes that the disk must have, asked before anything is written.

    Example:
      >>> try:
      ...     with writing("run/checkpoints"):
      ...         raise ValueError("RESOURCE_EXHAUSTED: Failed writing: ... [os_error_code='28']")
      ... except OSError as error:
      ...     print(error)
      [Errno 28] No space left on device: 'run/checkpoints'
    """
    before = sys.unraisablehook

    def hook(told: Any) -> None:
        # Threads that write end after the loop which waited for them, or after everything has.
        if str(told.exc_value) not in ("Event loop is closed", "sys.meta_path is None, Python is likely shutting down"):
            before(told)

    with _unlogged():
        try:
            if needed and shutil.disk_usage(folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(folder))
            sys.unraisablehook = hook
            yield
            sys.unraisablehook = before
        except Exception as error:
            number = _number(error)
            if number is None:
                raise
            raise OSError(number, os.strerror(number), os.fspath(folder)) from None


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """What orbax logs of an error in a thread, it raises as well."""
    logger, quiet = logging.getLogger("absl"), lambda record: record.levelno < logging.ERROR
    logger.addFilter(quiet)
    try:
        yield
    finally:
        logger.removeFilter(quiet)


@contextlib.contextmanager
def reading(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Raises one line where a checkpoint cannot be read.

    Args:
      folder: of the checkpoint.

    Raises:
      DamagedError: whatever orbax had to say.

    Example:
      >>> with reading("run/checkpoints/306"):
      ...     raise KeyError("d/1f2e")
      Traceback (most recent call last):
        ...
      jaxfair.files.DamagedError: run/checkpoints/306 is damaged (KeyError): remove it, and it is trained again
    """
    with _unlogged():
        try:
            yield
        except PermissionError:
            raise
        except Exception as error:
            raise files.DamagedError(folder, type(error).__name__, "remove it, and it is trained again") from error


def _number(error: BaseException | None) -> int | None:
    """The system's number of an error, which may be in what caused it, or in its text only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(found[1])
        if os.strerror(errno.ENOSPC) in str(error):
            return errno.ENOSPC
        error = error.__cause__ or error.__context__
    return None
