r"""Names as they are shown: whatever is in them is seen as text, on a page, in a figure, in a terminal or a file.

A name comes from a user's file. What would move the cursor, ring the bell, turn the direction of a line or end it is
written as its escape, ``\x1b`` say; every other letter stays as it is.
"""

import math
import re
import textwrap
import unicodedata
from typing import Any

from jaxfair.files import visible


def shorten(text: Any, length: int = 44) -> str:
    """At most ``length`` characters that are seen, the middle left out: names of groups often differ at the end.

    Args:
      text: a name.
      length: of the result, at most.

    Example:
      >>> shorten("Asian-Pacific-Islander, Female, over 60", 20)
      'Asian-Pac…, over 60'
    """
    text = re.sub(" +", " ", visible(text)).strip()
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half].rstrip()}…{text[-half:]}"


def columns(text: str) -> int:
    """How many columns of a terminal text takes: Chinese, Japanese and Korean letters take two.

    Example:
      >>> columns("abc"), columns("日本")
      (3, 4)
    """
    wide = (2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)
    return sum(wide)


def fitted(text: Any, width: int) -> str:
    """A name cut to the columns that there are, and filled up to them.

    Args:
      text: a name.
      width: in columns of a terminal.

    Example:
      >>> fitted("women", 8) + "|", fitted("a very long name", 8) + "|"
      ('women   |', 'a v…ame |')
    """
    short, length = shorten(text, width), width
    while columns(short) > width and length > 3:
        length -= 1
        short = shorten(text, length)
    return short + " " * (width - columns(short))


def wrapped(text: str, *, width: int = 80, indent: str = "") -> list[str]:
    """Lines of at most ``width`` columns; a word that is longer is broken.

    Args:
      text: one paragraph.
      width: of a line.
      indent: of all lines but the first.

    Example:
      >>> wrapped("one two three", width=8, indent="  ")
      ['one two', '  three']
    """
    room = width
    while True:
        lines = textwrap.wrap(text, room, subsequent_indent=indent, break_on_hyphens=False) or [""]
        if room <= width // 2 or all(columns(line) <= width for line in lines):
            return lines
        room -= 1


def who(people: int) -> str:
    """How many people, in words.

    Example:
      >>> who(0), who(1), who(1000)
      ('nobody', '1 person', '1,000 people')
    """
    return {0: "nobody", 1: "1 person"}.get(people, f"{people:,} people")


def rounded(count: float | int) -> int:
    """A number of people that it would take, to two digits and upward: more would be more than is known.

    Example:
      >>> rounded(1153), rounded(87)
      (1200, 87)
    """
    step = 10 ** max(len(f"{count:.0f}") - 2, 0)
    return math.ceil(count / step) * step
