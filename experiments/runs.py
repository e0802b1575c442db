"""What the experiments share: a folder for each run, one line for what cannot be used, and the kinds of batches."""

import contextlib
import errno
import hashlib
import json
import pathlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxfair import data, models, study

#: Kinds of batches: the power of a group's size that its places are in proportion to; None is without replacement from
#: all people. Re-weighted exactly, the loss is the same on average.
BATCHES = {"plain": None, "balanced": 0.0, "root": 0.5}


class UsageError(Exception):
    """A setting that cannot be used; the message is one line that says what to do."""


#: What a user can mend: named in one line, without a traceback.
MENDABLE = (UsageError, data.DataError, models.UnknownModel, study.FolderError)


@contextlib.contextmanager
def opened(config: Any, settings: Mapping[str, Any], room: int) -> Iterator[pathlib.Path]:
    """The run's folder, for this process alone.

    Args:
      config: has ``runs_dir`` and ``id``; without an id, the folder's name is a hash of the settings.
      settings: what the run's numbers are a function of; a folder that holds others is refused.
      room: bytes that the disk must have.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    folder = pathlib.Path(config.runs_dir) / (config.id or digest)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    study.check_folder(folder, room)
    with study.alone_in(folder):
        if study.claim_folder(folder, dict(settings)):
            print(f"going on with the run in {folder}")
        try:
            yield folder
        except MENDABLE:
            # Data that are not there leave nothing behind.
            if made and {path.name for path in folder.iterdir()} <= {"config.json", ".lock"}:
                shutil.rmtree(folder)
                for parent in made[1:]:
                    with contextlib.suppress(OSError):  # another run is in it by now
                        parent.rmdir()
            raise


def entry(run: Callable[[Any], int | None], prog: str) -> Callable[[Any], int]:
    """``main`` of an experiment: ``run``, with an exit code and a line on stderr for what a user can mend."""

    def main(config: Any) -> int:
        # What is known of a dataset's harms is for the reader, not the line of code that loads it.
        warnings.formatwarning = lambda message, *where, **more: f"note: {message}\n"
        try:
            return run(config) or 0
        except MENDABLE as error:
            print(f"{prog}: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            where = error.filename or config.runs_dir
            print(
                f"{prog}: {error.strerror}: {where}; free some space, and the same command goes on from "
                "what is saved",
                file=sys.stderr,
            )
            return 1

    return main
