"""What is wanted and what is done: cells by name, and a run that records each of them once.

A *cell* is a dict of names and values, ``{"method": "ceag", "sparsity": 0.9, "seed": 3}``: what makes one record
another than the next. A *record* is a cell with the numbers that were found in it, one line of ``records.jsonl``. A run
that was killed and is started again has the records that it had, and makes those that are missing.
"""

import dataclasses
import itertools
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

from jaxfair import files
from jaxfair.study import records as records_lib
from jaxfair.study._pace import Pace
from jaxfair.study.interrupt import Interrupt, Stopped

#: Names and values.
Cell = dict[str, Any]


def grid(**values: Iterable[Any]) -> list[Cell]:
    """All combinations of values, the last name varying fastest.

    Args:
      **values: for each name its values.

    Returns:
      The cells; those of two grids may be added, as lists are.

    Example:
      >>> grid(method=("nft", "ceag"), seed=range(2))[:3]
      [{'method': 'nft', 'seed': 0}, {'method': 'nft', 'seed': 1}, {'method': 'ceag', 'seed': 0}]
    """
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


class Run:
    """A run's folder with its records; made by :func:`jaxfair.study.opened`.

    Attributes:
      folder: the run's.
      settings: what its numbers are a function of, as ``config.json`` has them.
      config: the dataclass of flags that it was asked for with.
      names: the fields of a record that name it. A record may lack some of them.
      records: all that are done, in the order in which they were made.
      stop: whether the process was asked to end; pass it to ``train.fit(stop=...)``.

    Example:
      Four cells are wanted, in groups that share a seed. Half of them are there already:

      >>> import tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> run = Run(folder, names=("seed", "method"))
      >>> for method in ("nft", "ceag"):
      ...     run.record({"seed": 0, "method": method}, {"accuracy": 0.5})
      >>> wanted = grid(seed=range(2), method=("nft", "ceag"))
      >>> for shared, cells in Run(folder, names=("seed", "method")).missing(wanted, together=("seed",)):
      ...     print(shared, [cell["method"] for cell in cells])
      {'seed': 1} ['nft', 'ceag']
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        names: Sequence[str],
        settings: Mapping[str, Any] | None = None,
        config: Any = None,
        stop: Interrupt | None = None,
        log: str = "records.jsonl",
    ) -> None:
        self.folder, self.names, self.config = pathlib.Path(folder), tuple(names), config
        self.settings = dict(settings or {})
        self.stop = stop or Interrupt()
        self._file, self._lock = self.folder / log, threading.Lock()
        self._done = {}
        for number, record in enumerate(records_lib.read(self._file), start=1):
            if not set(self.names) & set(record):
                why = f"line {number} has none of {', '.join(self.names)}"
                raise files.DamagedError(self._file, why, "remove that line, and what it recorded is made again")
            self._done[self._key(record)] = record

    @property
    def records(self) -> list[dict[str, Any]]:
        """All records."""
        return list(self._done.values())

    def _key(self, cell: Mapping[str, Any]) -> str:
        # As it is read again: tuples are lists in a file, a number of NumPy is a number, and 1.0 is 1.
        named = {name: cell[name] for name in self.names if name in cell}
        whole = {name: int(v) for name, v in named.items() if isinstance(v, float) and v.is_integer()}
        return records_lib.dumps(named | whole)

    def _same(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        """Raises where two cells have one name: what lies between them would be lost."""
        differ = [name for name in one if name in other and name not in self.names]
        differ = [n for n in differ if records_lib.dumps({n: one[n]}) != records_lib.dumps({n: other[n]})]
        if differ:
            raise ValueError(
                f"two cells differ in {differ[0]!r} only, which is not among the names ({', '.join(self.names)}): "
                "add it"
            )

    def has(self, cell: Mapping[str, Any]) -> bool:
        """Whether the record of a cell is there."""
        return self._key(cell) in self._done

    def record(self, cell: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
        """The record of a cell, on disk before this returns. One that is there already stays as it is.

        Args:
          cell: what names it.
          numbers: what was found; see :func:`jaxfair.study.dumps` for what it may hold.

        Raises:
          ValueError: where ``numbers`` has a name of a cell, ``cell`` has none, or another cell has the same names.
        """
        wrong = sorted(set(numbers) & (set(self.names) | set(cell)))
        if wrong:
            raise ValueError(f"{wrong[0]!r} names a record: it stands in the cell, not in its numbers")
        if not set(cell) & set(self.names):
            raise ValueError(f"{dict(cell)}: a cell has at least one of {', '.join(self.names)}")
        with self._lock:
            key = self._key(cell)
            if key in self._done:
                self._same(cell, self._done[key])
            else:
                record = {**cell, **numbers}
                records_lib.append(self._file, record)
                # As it will be read again, so that a resumed run sees the same numbers.
                self._done[key] = records_lib.loads(records_lib.dumps(record))

    def get(self, cell: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The record of a cell, computed first where it is missing. Threads may share a run.

        Args:
          cell: what names it.
          compute: gives its numbers.

        Example:
          >>> import tempfile
          >>> run = Run(pathlib.Path(tempfile.mkdtemp()), names=("of",))
          >>> run.get({"of": ["tune", "omega"]}, lambda: {"rate": 0.1})["rate"]
          0.1
          >>> run.get({"of": ["tune", "omega"]}, lambda: {"rate": 0.5})["rate"]     # it is there
          0.1
        """
        key = self._key(cell)
        if key not in self._done:
            self.record(cell, compute())
        return self._done[key]

    def missing(
        self,
        wanted: Iterable[Mapping[str, Any]],
        *,
        together: Sequence[str] = (),
        at_most: int | None = None,
        whole: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> Iterator[tuple[Cell, list[Cell]]]:
        """Cells that are wanted and not recorded, in groups that are made together.

        The groups are cut from what is wanted, not from what is left, so that a run which goes on after a kill cuts as
        it would have done. Between two groups the run can be stopped, and it says how long the rest will take.

        Args:
          wanted: all cells. Groups, and the cells in them, keep this order.
          together: names whose values the cells of a group share, or that all of them lack; without any, all cells are
            one group.
          at_most: cells in a group; larger ones are cut evenly, since each size is compiled anew.
          whole: whether a group of which something is missing comes with all its cells: what is computed side by side
            may depend on its neighbours in the last digit.
          say: is given a line after each group; by default it goes to standard error.

        Yields:
          ``(shared, cells)``: the names and values that the group shares, and its cells.

        Raises:
          Stopped: between two groups, where the process was asked to end.
        """
        todo = self._todo(wanted, together, at_most, whole)
        pace = Pace([len(cells) for _, cells in todo], say)
        for shared, cells in todo:
            if self.stop():
                raise Stopped(self.folder)
            yield shared, cells
            pace.done()

    def make(
        self,
        wanted: Iterable[Mapping[str, Any]],
        compute: Callable[[Cell, list[Cell]], Iterable[Mapping[str, Any]]],
        *,
        together: Sequence[str] = (),
        at_most: int | None = None,
        whole: bool = False,
        workers: int = 1,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Computes and records what is missing, some groups at the same time.

        For groups of which each is one thread's work, such as many small programs to compile. Records stand in the
        order of what is wanted, whoever was first, so that a run which goes on after a kill writes the same file.

        Args:
          wanted: as in :meth:`missing`, like ``together``, ``at_most``, ``whole`` and ``say``.
          compute: of ``(shared, cells)`` gives the numbers of each cell.
          together: names whose values the cells of a group share.
          at_most: cells in a group.
          whole: whether a group comes with all its cells.
          workers: groups that are computed at the same time.
          say: is given a line after each group.

        Raises:
          Stopped: between two groups, where the process was asked to end.

        Example:
          >>> import tempfile
          >>> run = Run(pathlib.Path(tempfile.mkdtemp()), names=("seed",))
          >>> run.make(grid(seed=range(3)), lambda shared, cells: [{"square": shared["seed"] ** 2} for _ in cells],
          ...          together=("seed",), workers=2, say=lambda line: None)
          >>> run.records
          [{'seed': 0, 'square': 0}, {'seed': 1, 'square': 1}, {'seed': 2, 'square': 4}]
        """
        todo = self._todo(wanted, together, at_most, whole)
        pace = Pace([len(cells) for _, cells in todo], say)
        pool = futures.ThreadPoolExecutor(workers)
        jobs = [pool.submit(compute, shared, cells) for shared, cells in todo]

        def keep(job: futures.Future[Any], cells: list[Cell]) -> None:
            for cell, numbers in zip(cells, job.result(), strict=True):
                self.record(cell, numbers)

        try:
            for job, (_, cells) in zip(jobs, todo, strict=True):
                if self.stop():
                    raise Stopped(self.folder)
                keep(job, cells)
                pace.done()
        except BaseException as error:
            # What is done, or nearly so, is not lost for what failed before it.
            pool.shutdown(wait=not isinstance(error, KeyboardInterrupt), cancel_futures=True)
            for job, (_, cells) in zip(jobs, todo, strict=True):
                if job.done() and not job.cancelled() and job.exception() is None:
                    keep(job, cells)
            raise
        pool.shutdown()

    def _todo(
        self,
        wanted: Iterable[Mapping[str, Any]],
        together: Sequence[str],
        at_most: int | None,
        whole: bool,
    ) -> list[tuple[Cell, list[Cell]]]:
        """The groups of which something is missing."""
        groups: dict[str, tuple[Cell, list[Cell]]] = {}
        seen: dict[str, Mapping[str, Any]] = {}
        for cell in wanted:
            self._same(cell, seen.setdefault(self._key(cell), cell))
            shared = {name: cell[name] for name in together if name in cell}
            groups.setdefault(records_lib.dumps(shared), (shared, []))[1].append(dict(cell))
        chunks = [(shared, part) for shared, cells in groups.values() for part in _cut(cells, at_most or len(cells))]
        todo = []
        for shared, cells in chunks:
            lacking = [cell for cell in cells if not self.has(cell)]
            if lacking:
                todo.append((shared, cells if whole else lacking))
        return todo


def _cut(cells: list[Cell], at_most: int) -> list[list[Cell]]:
    """Ten of at most eight are five and five."""
    size = -(-len(cells) // -(-len(cells) // at_most))
    return [cells[i : i + size] for i in range(0, len(cells), size)]


def settings_of(config: Any, grows: Sequence[str] = ()) -> dict[str, Any]:
    """What a run's numbers are a function of: the fields of a dataclass, less where it is and what may be added to it.

    Args:
      config: a dataclass with ``runs_dir`` and ``id``.
      grows: fields that may be larger the next time: what is recorded stays right.

    Example:
      >>> @dataclasses.dataclass
      ... class Config:
      ...     rate: float = 0.1
      ...     seeds: int = 5
      ...     runs_dir: str = "runs"
      ...     id: str = ""
      >>> settings_of(Config(), grows=("seeds",))
      {'rate': 0.1}
    """
    fields = dataclasses.asdict(config)
    unknown = sorted(set(grows) - set(fields))
    if unknown:
        raise ValueError(f"grows has {unknown[0]!r}, which is no field of {type(config).__name__}")
    return {k: v for k, v in fields.items() if k not in ("runs_dir", "id", *grows)}
