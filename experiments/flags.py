"""A frozen dataclass as the schema of an experiment's flags: types, defaults, and the comments as help."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import simple_parsing
from absl import flags, logging

Config = TypeVar("Config")


def items(default: Sequence[Any], of: type = str, *, separator: str = ",") -> Any:
    """A field that holds a tuple and is given as ``--methods nft,ceag``."""

    def split(text: str) -> tuple[Any, ...]:
        return tuple(of(word.strip()) for word in text.split(separator) if word.strip())

    split.__name__ = f"list of {of.__name__}"
    shown = f"A{separator}B{separator}..."
    return simple_parsing.field(default=tuple(default), type=split, nargs=None, metavar=shown)


class _Parser(simple_parsing.ArgumentParser):
    """One line and exit code 2 for what cannot be parsed, where argparse prints the whole usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (--help lists the flags)", file=sys.stderr)
        raise SystemExit(2)


def parser(config_class: type[Config], *, prog: str) -> Callable[[Sequence[str]], Config]:
    """A ``flags_parser`` for ``absl.app.run``: absl's own flags first, the rest into the dataclass."""

    def parse(argv: Sequence[str]) -> Config:
        words = _Parser(prog=prog, allow_abbrev=False, add_help=True)
        words.add_arguments(config_class, dest="config")
        # Warnings only, unless --verbosity asks for more: orbax notes every file that it writes.
        flags.FLAGS.set_default("verbosity", logging.WARNING)
        logging.set_verbosity(logging.WARNING)
        # absl keeps --help for itself, and would show its own flags only.
        asked = {"--help", "-h"} & set(argv)
        rest = [] if asked else flags.FLAGS(list(argv), known_only=True)[1:]
        flags.FLAGS.mark_as_parsed()
        return words.parse_args(["--help"] if asked else rest).config

    return parse
