"""The folder of a run: may it be written, whose is it, and who works in it."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxfair import files
from jaxfair.study.cells import Run, settings_of
from jaxfair.study.interrupt import interruptible

#: What to do, for programs and for calls.
_OTHER = "choose another folder (--id, --out or folder=)"


class FolderError(RuntimeError):
    """A run folder that cannot be used; the message says why and what to do.

    Raised by :func:`check_folder` for a folder that cannot be written to or a disk without enough
    room, and by :func:`claim_folder` for a folder of another config, all before anything is
    trained. Choose another folder, or free or remove the one that is named. A program that speaks
    to a person prints the message, one line, and exits:

    Example:
      >>> import tempfile
      >>> try:
      ...     check_folder(tempfile.mkdtemp(), needed_bytes=10**18)
      ... except FolderError as error:
      ...     print(error)
      /... has ... MB free and the run needs about 1000000000000 MB: free some space or choose another folder.
    """


def can_be_name(name: str) -> bool:
    """Whether a run may be called so: empty, or the name of a folder, in its place and not above it.

    Args:
      name: of a run, as ``--id`` gives it.

    Example:
      >>> [can_be_name(name) for name in ("", "mine", "..", "a/b", "..mine", " ")]
      [True, True, False, False, True, False]
    """
    plain = name.isprintable() and name == name.strip()
    return plain and name not in (".", "..") and not set(name) & set("/\\")


def check_folder(folder: str | os.PathLike[str], needed_bytes: int = 0) -> None:
    """Finds a folder that cannot be written, or a disk that is full, before any training is done.

    Args:
      folder: is created if it is not there.
      needed_bytes: what the run is going to write.

    Raises:
      FolderError: one line, naming the folder and what to do.

    Example:
      >>> import tempfile
      >>> check_folder(tempfile.mkdtemp(), needed_bytes=1000)
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except (OSError, ValueError) as error:  # a path with NUL in it is a ValueError
        why = getattr(error, "strerror", None) or error
        raise FolderError(
            f"cannot write to {folder} ({why}): choose a folder that you may write to, or free some space."
        ) from None
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise FolderError(
            f"{folder} has {free / 1e6:.0f} MB free and the run needs about {needed_bytes / 1e6:.0f} MB: "
            "free some space or choose another folder."
        )


def claim_folder(folder: str | os.PathLike[str], config: dict[str, Any]) -> bool:
    """Writes ``config.json`` into a fresh run folder; accepts one that holds the same config; refuses another.

    Args:
      folder: the run's.
      config: what the run is a function of; anything that ``json`` can write.

    Returns:
      Whether the folder already held this run.

    Raises:
      FolderError: naming the first setting that differs, in the order of ``config``.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> claim_folder(folder, {"sparsity": 0.9}), claim_folder(folder, {"sparsity": 0.9})
      (False, True)
      >>> claim_folder(folder, {"sparsity": 0.98})
      Traceback (most recent call last):
        ...
      jaxfair.study.folder.FolderError: ... (sparsity is 0.9 there and 0.98 here): ...
    """
    path = pathlib.Path(folder) / "config.json"
    config = json.loads(json.dumps(config))  # as it comes back: tuples become lists
    if path.exists():
        try:
            there = json.loads(path.read_text())
            if not isinstance(there, dict):
                raise ValueError
        except (ValueError, OSError):
            raise FolderError(f"{path} cannot be read: {_OTHER}, or move that one away.") from None
        for name in dict.fromkeys([*config, *there]):
            if not _same(there.get(name), config.get(name)):
                raise FolderError(
                    f"{folder} holds a run with another config ({name} is {_said(there, name)} there and "
                    f"{_said(config, name)} here): {_OTHER}, or remove that one."
                )
        return True
    files.atomic_write(path, json.dumps(config, indent=2) + "\n")
    return False


def _same(there: Any, here: Any) -> bool:
    # As text a nan is itself; as numbers 1 is 1.0.
    return there == here or json.dumps(there, sort_keys=True) == json.dumps(here, sort_keys=True)


def _said(settings: Mapping[str, Any], name: str) -> str:
    return " ".join(str(settings[name]).split()) if name in settings else "not set"


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps a second process out of a run folder, in which two would write over each other's records.

    The lock is the system's, on an open file: it goes when the process goes, however it ends.

    Raises:
      FolderError: where another process is working in the folder.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with alone_in(folder), alone_in(folder):
      ...     pass
      Traceback (most recent call last):
        ...
      jaxfair.study.folder.FolderError: another process is working in ...: ...
    """
    path = pathlib.Path(folder) / ".lock"
    try:
        file = open(path, "w")  # noqa: SIM115, closed below
    except OSError as error:
        raise FolderError(f"cannot write to {path} ({error.strerror}): {_OTHER}, or see to that one.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FolderError(f"another process is working in {folder}: wait until it is done, or {_OTHER}.") from None
        yield


@contextlib.contextmanager
def opened(
    config: Any,
    names: Sequence[str],
    *,
    grows: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
    room: int = 50_000_000,
) -> Iterator[Run]:
    """The run of a config, in a folder of its own, for this process alone.

    Inside, Ctrl-C and SIGTERM are requests: :meth:`Run.missing` ends the run between two groups, with
    :class:`Stopped`. A run that failed before anything was recorded leaves no folder behind.

    Args:
      config: a dataclass with ``runs_dir``, the folder of all runs, and ``id``, the name of this one's; without an id
        it is a hash of the settings.
      names: the fields of a record that name it.
      grows: fields of the config that the next run may have larger (methods, seeds, levels): what is recorded stays.
      more: settings besides the config's, such as the hash of a file.
      room: bytes that the disk must have.

    Yields:
      The :class:`Run`.

    Raises:
      FolderError: a folder of another config, or one that cannot be used.

    Example:
      >>> import dataclasses, tempfile
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     rate: float = 0.1
      ...     seeds: int = 1
      ...     runs_dir: str = tempfile.mkdtemp()
      ...     id: str = "mine"
      >>> for seeds in (1, 2):     # asked for one seed, then for two
      ...     with opened(Config(seeds=seeds), ("seed",), grows=("seeds",)) as run:
      ...         for shared, cells in run.missing([{"seed": s} for s in range(seeds)], say=lambda line: None):
      ...             for cell in cells:
      ...                 run.record(cell, {"accuracy": 0.8 + 0.01 * cell["seed"]})
      ...         len(run.records)
      1
      going on with the run in ...
      2
    """
    if not can_be_name(config.id):
        raise FolderError(f"id={config.id!r} is no name of a folder: give one without '/' that is not '.' or '..'")
    settings = settings_of(config, grows) | dict(more or {})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    folder = pathlib.Path(config.runs_dir) / (config.id or digest)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    check_folder(folder, room)
    with alone_in(folder):
        if claim_folder(folder, settings):
            print(f"going on with the run in {folder}")
        try:
            with interruptible() as stop:
                yield Run(folder, names=names, settings=settings, config=config, stop=stop)
        except BaseException:
            # Data that are not there leave nothing behind.
            if made and {path.name for path in folder.iterdir()} <= {"config.json", ".lock"}:
                shutil.rmtree(folder)
                for parent in made[1:]:
                    with contextlib.suppress(OSError):  # another run is in it by now
                        parent.rmdir()
            raise
