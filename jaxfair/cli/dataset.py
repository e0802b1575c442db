"""From flags to a dataset, and what is said of it before anything is trained; for all programs that take a table."""

import os
import pathlib
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from jaxfair import data, files, recipes, report
from jaxfair.cli.failures import UsageError

#: Flags that are options of :func:`jaxfair.data.load` where they are given.
OPTIONS = (
    "groups", "unconstrained", "positive", "label", "features", "drop", "categorical", "standardize", "exclude",
    "data_dir", "folder",
)  # fmt: skip


def loaded(config: Any, name: str) -> data.Dataset:
    """The dataset that the flags describe.

    Args:
      config: of a program; which of the fields are flags of the data, :data:`OPTIONS` says, and ``min_group_size``,
        where less than 0 is the dataset's own choice.
      name: of a dataset, or the path of a file.

    Raises:
      UsageError: no group is left that has a bound.
      DataError: as :func:`jaxfair.data.load`.

    Example:
      >>> import types
      >>> digits = loaded(types.SimpleNamespace(min_group_size=-1, unconstrained=("8",)), "digits")
      >>> digits.constrained.sum()
      np.int64(9)
    """
    given = {option: getattr(config, option, None) for option in OPTIONS}
    options = {option: value for option, value in given.items() if value or value is False}
    if config.min_group_size >= 0:
        options["min_group_size"] = config.min_group_size
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        try:
            dataset = data.load(name, **options)
        except data.DataError as error:
            raise data.DataError(in_flags(str(error))) from error
    for note in noted:
        # What stands among the sentences is printed with them: it is said once.
        if not str(note.message).endswith(dataset.read):
            warnings.warn(in_flags(str(note.message)), note.category, stacklevel=2)
    if not dataset.constrained.any():
        raise UsageError("--unconstrained: no group is left that has a bound; leave one out")
    return dataset


def in_flags(text: str) -> str:
    """What the library says of its arguments, in the words of a command.

    Example:
      >>> in_flags("name another by label=; standardize=True divides by the deviation")
      'name another by --label=; --standardize divides by the deviation'
    """
    names = "|".join((*OPTIONS, "min_group_size", "name_before", "tolerance", "epochs", "sparsity"))
    return re.sub(rf"(?<![-\w.])({names})=(True\b)?", lambda found: f"--{found[1]}" + "=" * (not found[2]), text)


def check_apart(out: str | os.PathLike[str], paths: Iterable[str], kinds: Sequence[str]) -> None:
    """Refuses a folder in which a file lies that is read: what is written there could take its place.

    Args:
      out: where is written.
      paths: of what is read.
      kinds: of files that are written, by the ends of their names.

    Raises:
      UsageError: one of the files lies there.

    Example:
      >>> check_apart("audit", ["people.csv"], [".csv"])
      >>> check_apart(".", ["people.csv"], [".csv"])
      Traceback (most recent call last):
        ...
      jaxfair.cli.failures.UsageError: --out=.: people.csv lies there, and files are written: choose another folder
    """
    folder = pathlib.Path(out).resolve()
    for path in map(pathlib.Path, paths):
        if path.suffix in kinds and path.resolve().parent in (folder, folder / "groups"):
            raise UsageError(f"--out={out}: {path} lies there, and files are written: choose another folder")


def told(dataset: data.Dataset, tolerance: float) -> list[str]:
    r"""What was read, and what chance alone does to the bound, in lines of a terminal.

    Example:
      >>> people = data.dataset([[1.0], [2.0]] * 20, [0, 1] * 20, ["a"] * 20 + ["b" + chr(27)] * 20)
      >>> print(*told(people, 0.5), sep="\n")
      features: 1 numbers a person
      class: y (0, 1)
      groups: group (a, b\x1b)
      split: drawn, 28 train, 4 validation, 8 test, stratified by class and group
    """
    sentences = (*dataset.read, *recipes.noise(dataset, tolerance))
    return [line for text in sentences for line in report.wrapped(files.visible(in_flags(text)), indent="  ")]


def identity(config: Any) -> dict[str, str]:
    """What is in the user's own files, and their names: a run is a function of it, and not of where they are.

    Example:
      >>> import types
      >>> identity(types.SimpleNamespace(data="people.csv", model="models/mine.py:make"))
      {'data': 'people.csv', 'model': 'mine.py:make'}
    """
    own = {"data": config.data, "model": config.model.rpartition(":")[0]}
    named = {flag: pathlib.PurePath(getattr(config, flag)).name for flag in own}
    return named | {f"{flag}_sha256": files.sha256(path) for flag, path in own.items() if os.path.exists(path)}
