"""What a person types: flags, and the command ``jaxfair``. The roof of the library; nothing in it imports this."""

import importlib
import sys
from collections.abc import Sequence

from jaxfair import __version__
from jaxfair.cli import programs
from jaxfair.cli.heard import heard

#: What the command can do: a module of this room each, whose first line says what.
COMMANDS = {
    "prune": "networks for a table of one's own, pruned under a bound on what each group loses",
    "quantize": "networks for a table of one's own, at few bits, under a bound on what each group loses",
    "audit": "what compression, or a new version, did to each group, from predictions of any framework",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``jaxfair``: ``jaxfair prune --data my.npz ...``.

    Args:
      argv: the words after the program's name; those of the command line by default.

    Returns:
      The exit code: 0, or 2 for a wrong word.

    Example:
      >>> main(["--version"])     # doctest: +ELLIPSIS
      jaxfair ...
      0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and words[:1] and words[0] in COMMANDS:
        programs.keep()
    return heard(lambda: _run(words))


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"jaxfair {__version__}")
        return 0
    if not words or words[0] in ("--help", "-h"):
        print("usage: jaxfair COMMAND [flags]; jaxfair COMMAND --help lists the flags\n")
        for name, what in COMMANDS.items():
            print(f"  {name:<8} {what}")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(
            f"jaxfair: there is no command {words[0]!r}; choose from {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    # Loaded when asked for: JAX alone takes a second.
    return importlib.import_module(f"jaxfair.cli.{words[0]}").main(words[1:])
