"""Compiled programs, kept between the runs of a command: what was compiled once is read the next time.

JAX does the keeping, for this machine's processor and this version of it, and compiles again what it cannot read. A
program is a file in the user's cache folder. It may be deleted at any time, and the oldest are where there is more than
a gigabyte; what comes out is the same, bit for bit.
``JAX_COMPILATION_CACHE_DIR`` names another folder, ``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing.
"""

import contextlib
import itertools
import os
import pathlib
import sys
import warnings
from collections.abc import MutableMapping

#: The variable of JAX that names the folder.
FOLDER = "JAX_COMPILATION_CACHE_DIR"
#: And the one that says from how many seconds of compiling on a program is kept.
FROM_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
#: The most bytes of programs that are kept from one run to the next.
MOST_BYTES = 2**30


def keep(environment: MutableMapping[str, str] = os.environ) -> str:
    """From here on JAX keeps what it compiles, unless something else is asked for or there is no folder for it.

    Only programs call it: whoever imports the library decides for a process of their own.

    Args:
      environment: of the process; it is changed.

    Returns:
      The folder; empty where nothing is kept.

    Example:
      >>> keep({"JAX_COMPILATION_CACHE_DIR": "/elsewhere"})
      '/elsewhere'
    """
    if FOLDER in environment:
        return environment[FOLDER]
    base = environment.get("XDG_CACHE_HOME") or pathlib.Path(environment.get("HOME") or os.devnull, ".cache")
    folder = pathlib.Path(base, "jaxfair", "programs")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = folder.stat()
    except OSError:
        return ""
    # What lies there is run: nobody else may be able to put it there.
    if there.st_uid != os.getuid() or there.st_mode & 0o022 or not os.access(folder, os.W_OK):
        return ""
    _forget_oldest(folder)
    environment[FOLDER] = str(folder)
    environment.setdefault(FROM_SECONDS, "0.2")
    if jax := sys.modules.get("jax"):  # which has read its environment already
        jax.config.update(FOLDER.lower(), str(folder))
        jax.config.update(FROM_SECONDS.lower(), float(environment[FROM_SECONDS]))
    # A damaged program, or a disk that is full, costs time and nothing else.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    return str(folder)


def _forget_oldest(folder: pathlib.Path) -> None:
    """Deletes what was written first, until no more than :data:`MOST_BYTES` are left."""
    with contextlib.suppress(OSError):  # another command may do the same just now
        files = [(file.stat(), file) for file in folder.rglob("*") if file.is_file()]
        newest_first = sorted(files, key=lambda found: found[0].st_mtime, reverse=True)
        sizes = itertools.accumulate(there.st_size for there, _ in newest_first)
        for (_, file), size in zip(newest_first, sizes, strict=True):
            if size > MOST_BYTES:
                file.unlink(missing_ok=True)
