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
    if needed and shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(folder))
    with hushed():
        try:
            yield
        except Exception as error:
            number = _number(error)
            if number is None:
                raise
            raise OSError(number, os.strerror(number), os.fspath(folder)) from None


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """What orbax logs of an error in a thread, and prints of it when the thread ends, it raises as well: said once.

    Threads end after the loop which waited for them, or after everything has: where there was an error, what they have
    to say of it stays unsaid for good.

    Example:
      >>> with hushed():
      ...     logging.getLogger("absl").error("a thread failed")
    """
    before, loggers = sys.unraisablehook, [logging.getLogger(name) for name in ("absl", "asyncio")]

    def hook(told: Any) -> None:
        if str(told.exc_value) not in ("Event loop is closed", "sys.meta_path is None, Python is likely shutting down"):
            before(told)

    for logger in loggers:
        logger.addFilter(_quiet)
    sys.unraisablehook = hook
    try:
        yield
        sys.unraisablehook = before
        loggers[1].removeFilter(_quiet)
    finally:
        loggers[0].removeFilter(_quiet)


def _quiet(record: logging.LogRecord) -> bool:
    theirs = record.name == "absl" or any(word in record.getMessage() for word in ("orbax", "OCDBT", "TensorStore"))
    return record.levelno < logging.ERROR or not theirs


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
    with hushed():
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
