"""What a program says when it cannot go on: one line and an exit code where a person can mend it, else a traceback."""

import errno
import os

from jaxfair import data, files, models, recipes, study


class UsageError(Exception):
    """A setting that cannot be used; the message is one line that says what to do.

    Example:
      >>> try:
      ...     raise UsageError("--seeds=0: give a number of at least 1")
      ... except UsageError as error:
      ...     print(error)
      --seeds=0: give a number of at least 1
    """


#: What a user can mend: named in one line, without a traceback.
MENDABLE = (UsageError, data.DataError, models.UnknownModel, recipes.ModelError, study.FolderError, files.DamagedError)

#: A disk, a quota, or a limit on files, that is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
#: Paths that cannot be used.
PATHS = (
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip


def one_line(text: object) -> str:
    r"""A message as one line: what would break it, or move a cursor, is escaped.

    Args:
      text: that may hold a name from a user.

    Example:
      >>> one_line("no file my\ntable.npz")
      'no file my\\ntable.npz'
    """
    return "".join(c if c.isprintable() else files.escape(c) for c in str(text))


def mended(error: Exception, folder: str = "") -> tuple[int, str]:
    """The exit code of an error that a person can mend, and the line that says what to do.

    Args:
      error: as it was raised.
      folder: that was written to, for an error that does not say where.

    Returns:
      The exit code and the line; 0 and nothing for an error of ours, which keeps its traceback.

    Example:
      >>> mended(OSError(errno.ENOSPC, "No space left on device"), "runs")
      (1, 'No space left on device: runs; free some space, and the same command goes on from what is saved')
      >>> mended(ZeroDivisionError())
      (0, '')
    """
    if isinstance(error, MENDABLE):
        return 2, one_line(error)
    if isinstance(error, OSError):
        where = one_line(os.fsdecode(error.filename or folder))
        if error.errno in FULL:
            rest = "free some space, and the same command goes on from what is saved"
            return 1, f"{error.strerror}: {where}; {rest}"
        if error.errno in PATHS and error.filename:
            return 2, f"{error.strerror}: {where}; give another path, or see to this one"
    return 0, ""
