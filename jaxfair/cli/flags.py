"""A frozen dataclass as the schema of flags: types, defaults, guards, and the comments as help.

A field says what it may be, so that a flag that cannot be is one line and exit code 2, before anything is loaded::

    @dataclasses.dataclass(frozen=True)
    class Config:
        # of nft, ceag
        methods: tuple[str, ...] = flags.several(("nft", "ceag"), of=METHODS)
        # how many networks
        seeds: int = flags.one(5, low=1)

What no field can say by itself (two flags that do not go together) a method ``check(self)`` of the dataclass says, by
raising :class:`UsageError`.
"""

import dataclasses
import difflib
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import simple_parsing
from absl import app, logging
from absl import flags as absl_flags

from jaxfair import study
from jaxfair.cli import programs
from jaxfair.cli.failures import UsageError, mended, one_line
from jaxfair.cli.heard import heard


class Guard(NamedTuple):
    """What a value may be.

    Attributes:
      low: at least.
      above: more than.
      high: at most.
      below: less than.
      of: the words it may be one of; a function gives them where they are known late.
      none: whether an empty tuple, or an empty word, is let pass.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None
    of: Iterable[str] | Callable[[], Iterable[str]] | None = None
    none: bool = False

    def wrong(self, value: Any) -> str:
        """What is wrong with a single value, as an instruction; empty if nothing is."""
        if self.of is not None:
            allowed = list(self.of() if callable(self.of) else self.of)
            if value in allowed or (self.none and not value):
                return ""
            near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            return f"there is no {value!r}; {hint}choose from {', '.join(map(str, allowed))}"
        bounds = {
            "of at least": (self.low, lambda v, b: v >= b),
            "above": (self.above, lambda v, b: v > b),
            "of at most": (self.high, lambda v, b: v <= b),
            "below": (self.below, lambda v, b: v < b),
        }
        there = {words: bound for words, (bound, _) in bounds.items() if bound is not None}
        # Not "value < bound": nan is within no bound.
        if all(test(value, bound) for bound, test in bounds.values() if bound is not None):
            return ""
        return "give a number " + " and ".join(f"{words} {b:g}" for words, b in there.items())


def one(
    default: Any,
    *,
    low: float | int | None = None,
    above: float | int | None = None,
    high: float | int | None = None,
    below: float | int | None = None,
    of: Iterable[str] | Callable[[], Iterable[str]] | None = None,
    none: bool = False,
) -> Any:
    """A field of one value.

    Args:
      default: of the flag.
      low: it is at least this.
      above: it is more than this.
      high: it is at most this.
      below: it is less than this.
      of: it is one of these.
      none: or it is empty.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     seeds: int = one(5, low=1)
      >>> check(Config(seeds=0))
      Traceback (most recent call last):
        ...
      jaxfair.cli.failures.UsageError: --seeds=0: give a number of at least 1
    """
    guard = Guard(low, above, high, below, of, none)
    return simple_parsing.field(default=default, metadata={"guard": guard})


def several(
    default: Sequence[Any],
    type: Callable[[str], Any] = str,
    *,
    low: float | int | None = None,
    above: float | int | None = None,
    high: float | int | None = None,
    below: float | int | None = None,
    of: Iterable[str] | Callable[[], Iterable[str]] | None = None,
    none: bool = False,
    separator: str = ",",
) -> Any:
    """A field of a tuple, given as ``--methods nft,ceag``; each of its values is guarded.

    Args:
      default: of the flag.
      type: of a value.
      low: each is at least this.
      above: each is more than this.
      high: each is at most this.
      below: each is less than this.
      of: each is one of these.
      none: whether it may be empty.
      separator: of the values.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     methods: tuple[str, ...] = several(("nft",), of=("nft", "ceag"))
      >>> check(Config(methods=("caeg",)))
      Traceback (most recent call last):
        ...
      jaxfair.cli.failures.UsageError: --methods: there is no 'caeg'; did you mean 'ceag'? choose from nft, ceag
    """

    def split(text: str) -> tuple[Any, ...]:
        return tuple(type(word.strip()) for word in text.split(separator) if word.strip())

    split.__name__ = f"list of {getattr(type, '__name__', 'values')}"
    shown = f"A{separator}B{separator}..."
    guard = Guard(low, above, high, below, of, none)
    return simple_parsing.field(
        default=tuple(default),
        type=split,
        nargs=None,
        metavar=shown,
        metadata={"guard": guard, "separator": separator},
    )


def yes_or_no() -> Any:
    """A field that is True, False, or None where nobody says: ``--name``, ``--name=false``, or neither.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     scaled: bool | None = yes_or_no()
      >>> [parser(Config, prog="try")(["try", *words]).scaled for words in ([], ["--scaled"], ["--scaled=false"])]
      [None, True, False]
    """
    return simple_parsing.field(default=None, type=simple_parsing.utils.str2bool, nargs="?", const=True)


def check(config: Any) -> None:
    """Raises for the first field that is not what its guard allows, and asks ``config.check`` where there is one.

    Raises:
      UsageError: one line that names the flag, its value and what is allowed.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     shares: tuple[float, ...] = several((0.5,), float, low=0, below=1)
      >>> check(Config(shares=(0.5, 1.0)))
      Traceback (most recent call last):
        ...
      jaxfair.cli.failures.UsageError: --shares=1.0: give a number of at least 0 and below 1
    """
    for field in dataclasses.fields(config):
        guard, value = field.metadata.get("guard") or Guard(), getattr(config, field.name)
        several = isinstance(value, tuple)
        if several and not value and not guard.none and "guard" in field.metadata:
            raise UsageError(f"--{field.name}: give at least one")
        for item in value if several else (value,):
            wrong = guard.wrong(item) or _impossible(item, guard)
            if wrong:
                named = "" if guard.of is not None else f"={item}"
                raise UsageError(f"--{field.name}{named}: {wrong}")
        if several and guard.of is not None and len(set(value)) < len(value):
            raise UsageError(f"--{field.name}={','.join(map(str, value))}: name each once")
        if field.name == "id" and not study.can_be_name(str(value)):
            raise UsageError(f"--id={value}: give the name of a folder, without '/' and not '.' or '..'")
        if field.name == "runs_dir" and not str(value).strip():
            raise UsageError("--runs_dir: give the folder that runs go into")
    if hasattr(config, "check"):
        config.check()


def _impossible(value: Any, guard: Guard) -> str:
    """What no flag can be, whatever it is for; empty if it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return "give a finite number"
    # Counts and places are int32 in JAX.
    if isinstance(value, int) and guard.high is None and abs(value) >= 2**31:
        return f"give a number of at most {2**31 - 1}"
    if isinstance(value, str) and "\0" in value:
        return "give a text without the character NUL"
    return ""


class _Parser(simple_parsing.ArgumentParser):
    """One line and exit code 2 for what cannot be parsed, where argparse prints the whole usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {one_line(message)} (--help lists the flags)", file=sys.stderr)
        raise SystemExit(2)


def parser(config_class: Any, *, prog: str) -> Callable[[Sequence[str]], Any]:
    """A ``flags_parser`` for ``absl.app.run``: absl's own flags first, the rest into the dataclass.

    Args:
      config_class: of the flags.
      prog: the name of the program, as its errors begin.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     seeds: int = one(5, low=1)
      >>> parser(Config, prog="try")(["try", "--seeds=3"])
      Config(seeds=3)
    """

    def parse(argv: Sequence[str]) -> Any:
        words = _Parser(prog=prog, allow_abbrev=False, add_help=True)
        words.add_arguments(config_class, dest="config")
        # Warnings only, unless --verbosity asks for more: orbax notes every file that it writes.
        absl_flags.FLAGS.set_default("verbosity", logging.WARNING)
        logging.set_verbosity(logging.WARNING)
        # absl keeps --help for itself, and would show its own flags only.
        asked = {"--help", "-h"} & set(argv)
        try:
            rest = [] if asked else absl_flags.FLAGS(list(argv), known_only=True)[1:]
        except absl_flags.Error as error:
            words.error(str(error))
        for word in rest:
            if word.endswith("=--"):  # argparse takes it for the end of the flags, and makes a list of nothing of it
                words.error(f"argument {word.removesuffix('=--')}: '--' is no value")
        absl_flags.FLAGS.mark_as_parsed()
        return words.parse_args(["--help"] if asked else rest).config

    return parse


def entry(run: Callable[[Any], int | None], config_class: type[Any], *, prog: str) -> Callable[..., int]:
    """``main`` of a program: the guards, then ``run``; what a user can mend is one line on stderr and an exit code.

    Args:
      run: of a config; what it returns is the exit code, None is 0.
      config_class: the dataclass of flags.
      prog: the name of the program.

    Returns:
      ``main(argv=None)``: of the words after the program's name. Without them it takes those of the command line,
      under absl, and ends the process.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     seeds: int = one(5, low=1)
      >>> main = entry(lambda config: print(config.seeds, "seeds"), Config, prog="try")
      >>> main(["--seeds=3"])
      3 seeds
      0
    """

    def guarded(config: Any) -> int:
        # What is known of a dataset's harms is for the reader, not the line of code that loads it.
        warnings.formatwarning = lambda message, *where, **more: f"note: {message}\n"
        try:
            check(config)
            return run(config) or 0
        except study.Stopped as stopped:
            where = f" in {one_line(stopped)}" if str(stopped) else ""
            print(f"stopped and saved{where}; the same command goes on from there")
            return 0
        except Exception as error:
            where = getattr(config, "runs_dir", "") or getattr(config, "out", "")
            code, line = mended(error, where)
            if not code:
                raise
            print(f"{prog}: {line}", file=sys.stderr)
            return code

    def main(argv: Sequence[str] | None = None) -> int:
        parse = parser(config_class, prog=prog)
        if argv is None:
            programs.keep()
            sys.exit(heard(lambda: app.run(guarded, flags_parser=parse)))
        return heard(lambda: guarded(parse([prog, *argv])))

    return main
