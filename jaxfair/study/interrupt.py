"""Ctrl-C as a request: what runs ends where it can be taken up again."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Stopped(Exception):
    """Raised by what was asked to stop, such as :func:`jaxfair.train.fit`, after it has saved.

    It is no failure: the checkpoint holds the last step that was done. Catch it outside of all
    phases, tell the user that the same command goes on from there, and exit with 0.

    Example:
      >>> import os, signal
      >>> try:
      ...     with interruptible() as stop:
      ...         os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C
      ...         if stop():
      ...             raise Stopped
      ... except Stopped:
      ...     print("stopped; the same command goes on from there")
      stopped; the same command goes on from there
    """


class Interrupt:
    """Whether the process was asked to end; made by :func:`interruptible`."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.requested


@contextlib.contextmanager
def interruptible(
    signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT),
) -> Iterator[Interrupt]:
    """Turns SIGTERM and Ctrl-C into a request that is looked at between two chunks; a second ends the process.

    Example:
      >>> import os, signal
      >>> with interruptible() as stop:
      ...     os.kill(os.getpid(), signal.SIGTERM)
      ...     stop()
      True
    """
    interrupt = Interrupt()
    before = {}

    def ask(number: int, frame: Any) -> None:
        del number, frame
        interrupt.requested = True
        # Of all: the second request may be another signal than the first.
        for each, handler in before.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():  # only there may a signal be handled
        for number in signals:
            before[number] = signal.signal(number, ask)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
