"""What a recipe shows while it runs: a bar on a terminal, a line now and then anywhere else or without `rich`."""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxfair.report import points


class Progress(contextlib.AbstractContextManager):
    """Loss, accuracy, the largest excess gap and the largest multiplier, as means and maxima over the seeds.

    Example:
      >>> with Progress(every=0) as screen:
      ...     show = screen.of("dense")
      ...     show(10, 20, [{"epoch": 0, "loss": 0.5, "accuracy": 0.8}])  # on standard error
    """

    def __init__(self, *, every: float | int = 10) -> None:
        """A screen for several phases.

        Args:
          every: seconds between two lines, where there is no bar.
        """
        self._every, self._last, self._bar = every, time.monotonic(), None
        self._tasks: dict[str, Any] = {}
        if sys.stderr.isatty() and importlib.util.find_spec("rich"):
            from rich import console, progress

            self._bar = progress.Progress(
                # A name such as "[x]" is no markup.
                progress.TextColumn("{task.description:>15}", markup=False),
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[text]}", markup=False),
                progress.TimeElapsedColumn(),
                console=console.Console(stderr=True),
            )

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def of(self, name: str) -> Callable[[int, int, list[dict[str, Any]]], None]:
        """``show`` for `jaxfair.train.fit`, of the phase of that name."""

        def show(done: int, total: int, rows: list[dict[str, Any]]) -> None:
            if rows:
                self._epoch(name, done, total, rows)
            else:
                self._line(f"{name}: step {done} of {total}", 3 * self._every)

        return show

    def _epoch(self, name: str, done: int, total: int, rows: list[dict[str, Any]]) -> None:
        text, epochs = _in_words(rows), rows[0]["epoch"] + 1
        count = round(total * epochs / done)
        if self._bar is None:
            self._line(f"{name}: epoch {epochs} of {count}, {text}", 0 if done == total else self._every)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=count, text=text)
        self._bar.update(self._tasks[name], completed=epochs, text=text)

    def _line(self, line: str, after: float | int) -> None:
        if self._bar is None and time.monotonic() - self._last >= after:
            self._last = time.monotonic()
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _in_words(rows: list[dict[str, Any]]) -> str:
    def of(key: str) -> np.ndarray:
        return np.array([row[key] for row in rows if row.get(key) is not None])

    words = [f"loss {np.mean(of('loss')):.3f}", f"accuracy {100 * np.mean(of('accuracy')):.1f} %"]
    if "max_gap" in rows[0]:
        words.append(f"largest gap {points(np.max(of('max_gap')), digits=1)} pt")
        words.append(f"multiplier {np.max(of('max_multiplier')):.2f}")
    return ", ".join(words)
