"""What a program does when nobody reads its output any more, or when it is interrupted: it ends without a traceback."""

import contextlib
import os
import sys
from collections.abc import Callable

#: The exit code then, as a shell counts it: 128 and the number of SIGPIPE.
UNREAD = 141
#: And the one where a person pressed Ctrl-C: 128 and the number of SIGINT.
INTERRUPTED = 130


def heard(job: Callable[[], int]) -> int:
    """The exit code of a job, which ends where its output goes into a pipe that was closed, as ``| head`` does.

    Ctrl-C while it trains is the business of `jaxfair.study.interruptible`; at other times it ends the job with a word.

    Args:
      job: of no arguments; gives an exit code.

    Example:
      >>> heard(lambda: 2)
      2
    """
    try:
        try:
            return job()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Else Python would try again at its end, and say that it could not.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # one that is no file
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return UNREAD
