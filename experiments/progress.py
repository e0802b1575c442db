"""What a run shows while it runs: a bar on a terminal, a line now and then anywhere else."""

import contextlib
import time
from typing import Any

import numpy as np
from rich import console, progress


class Progress(contextlib.AbstractContextManager):
    """Loss, accuracy, the largest excess gap and the largest multiplier, as means and maxima over the seeds."""

    def __init__(self) -> None:
        self._console = console.Console(stderr=True)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:>15}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[text]}"),
            progress.TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def epoch(self, name: str, epoch: int, epochs: int, rows: list[dict[str, Any]]) -> None:
        """After each epoch, with the records of its lanes."""

        def of(key: str) -> np.ndarray:
            return np.array([row[key] for row in rows if row.get(key) is not None])

        words = [
            f"loss {np.mean(of('loss')):.3f}",
            f"accuracy {100 * np.mean(of('accuracy')):.1f} %",
        ]
        if "max_gap" in rows[0]:
            words.append(f"largest gap {100 * np.max(of('max_gap')):.1f} pt")
            words.append(f"multiplier {np.max(of('max_multiplier')):.2f}")
        text = ", ".join(words)
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=epochs, text=text)
        self._bar.update(self._tasks[name], completed=epoch + 1, text=text)
        quiet = time.monotonic() - self._last_line > 10
        if not self._console.is_terminal and (quiet or epoch + 1 == epochs):
            self._last_line = time.monotonic()
            self._console.print(
                f"{name}: epoch {epoch + 1} of {epochs}, {text}", highlight=False, soft_wrap=True
            )

    def steps(self, done: int, total: int) -> None:
        """Within an epoch, where it takes more than one call."""
        if not self._console.is_terminal and time.monotonic() - self._last_line > 30:
            self._last_line = time.monotonic()
            self._console.print(f"step {done} of {total}", highlight=False, soft_wrap=True)
