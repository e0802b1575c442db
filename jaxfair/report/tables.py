"""Tables of results: in a terminal, as Markdown to be read, as CSV to be computed with.

A value over seeds is written as the mean and the half-width of its interval, in points: ``1.23 ±
0.40``.
"""

import math
import os
from pathlib import Path
from typing import Any

from jaxfair.files import atomic_write, visible
from jaxfair.report._extra import need

#: What stands where nothing is known.
NOTHING = "\N{EN DASH}"
# Characters that Markdown or the HTML inside it would take for more than text.
_MARKDOWN = str.maketrans(
    {c: "\\" + c for c in "\\`*_[]|~$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}
)


def points(share: Any, *, digits: int = 2, sign: bool = False) -> str:
    """A share in points (hundredths), as text.

    Args:
      share: a number; 0.01 is one point.
      digits: after the decimal point.
      sign: whether a plus is shown.

    Returns:
      The text, and a dash for nan.

    Example:
      >>> points(0.0123), points(-0.0), points(0.02, sign=True), points(float("nan"))
      ('1.23', '0.00', '+2.00', '–')
    """
    number = float(share) * 100
    if math.isnan(number):
        return NOTHING
    text = f"{number:.{digits}f}"
    text = text.lstrip("-") if float(text) == 0 else text  # no one reads "-0.00" with pleasure
    return f"+{text}" if sign and float(text) > 0 else text


def mean_and_half_width(mean: Any, half_width: Any, *, digits: int = 2) -> str:
    """A mean with the half-width of its interval, both in points.

    Args:
      mean: a share.
      half_width: of its interval; nan if there is none (one seed).
      digits: after the decimal point.

    Returns:
      The text.

    Example:
      >>> mean_and_half_width(0.0123, 0.004), mean_and_half_width(0.0123, float("nan"))
      ('1.23 ± 0.40', '1.23')
    """
    text = points(mean, digits=digits)
    if text == NOTHING or math.isnan(float(half_width)):
        return text
    return f"{text} ± {points(half_width, digits=digits)}"


def cell(value: Any, *, digits: int = 3) -> str:
    """A cell as text: floats rounded, nan and None as a dash, everything else as it is, and to be seen.

    Example:
      >>> cell(0.123456), cell(float("nan")), cell(1_000), cell("race x sex")
      ('0.123', '–', '1000', 'race x sex')
    """
    if value is None or value is getattr(need("pandas"), "NA", None):
        return NOTHING
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float):
        return NOTHING if math.isnan(value) else f"{value:.{digits}f}"
    return visible(value)


def _is_number(frame, column) -> bool:
    return need("pandas").api.types.is_numeric_dtype(frame[column])


def markdown(frame: Any, *, digits: int = 3) -> str:
    r"""A DataFrame as a Markdown table; numbers to the right, text escaped, the index left out.

    Args:
      frame: a pandas DataFrame.
      digits: of floats, after the decimal point.

    Returns:
      The table, with an end of line.

    Example:
      >>> import pandas as pd
      >>> print(markdown(pd.DataFrame({"group": ["a|b", "<i>"], "gap": [0.5, float("nan")]})), end="")
      | group | gap |
      |:---|---:|
      | a\|b | 0.500 |
      | &lt;i&gt; | – |
    """
    rows = [[visible(column) for column in frame.columns]]
    rows += [[cell(v, digits=digits) for v in row] for row in frame.itertuples(index=False)]
    lines = ["| " + " | ".join(text.translate(_MARKDOWN) for text in row) + " |" for row in rows]
    ruler = "|" + "|".join("---:" if _is_number(frame, c) else ":---" for c in frame.columns) + "|"
    return "\n".join([lines[0], ruler, *lines[1:]]) + "\n"


def csv(frame: Any) -> str:
    r"""A DataFrame as CSV with all digits, the index left out; a name that is no plain line is escaped.

    Example:
      >>> import pandas as pd
      >>> print(csv(pd.DataFrame({"group": ["a" + chr(27), "b, c"], "gap": [0.5, 1.0]})), end="")
      group,gap
      a\x1b,0.5
      "b, c",1.0
    """
    shown = frame.map(lambda value: visible(value) if isinstance(value, str) else value)
    return shown.rename(columns=visible).to_csv(index=False, lineterminator="\n")


def write_table(
    frame: Any,
    folder: str | os.PathLike,
    name: str = "table",
    *,
    numbers: Any = None,
    digits: int = 3,
) -> tuple[Path, Path]:
    """Write ``name.md`` and ``name.csv``.

    Args:
      frame: a pandas DataFrame, as people read it.
      folder: for the files.
      name: of the files, without an ending.
      numbers: the DataFrame for the CSV file, if it is another one.
      digits: of floats in the Markdown file; the CSV file has all of them.

    Returns:
      The paths of the two files.

    Example:
      >>> import pandas as pd, tempfile
      >>> frame = pd.DataFrame({"method": ["nft"], "gap": [0.04321]})
      >>> read, computed = write_table(frame, tempfile.mkdtemp())
      >>> print(read.read_text() + computed.read_text(), end="")
      | method | gap |
      |:---|---:|
      | nft | 0.043 |
      method,gap
      nft,0.04321
    """
    data = frame if numbers is None else numbers
    return (
        atomic_write(Path(folder) / f"{name}.md", markdown(frame, digits=digits)),
        atomic_write(Path(folder) / f"{name}.csv", csv(data)),
    )


def print_table(frame: Any, *, title: str = "", digits: int = 3, console: Any = None) -> None:
    """Show a DataFrame in the terminal.

    Args:
      frame: a pandas DataFrame.
      title: above it.
      digits: of floats, after the decimal point.
      console: a ``rich.console.Console``; standard output by default.

    Example:
      >>> import pandas as pd
      >>> print_table(pd.DataFrame({"method": ["nft"], "gap": [0.04321]}))
      <BLANKLINE>
       method    gap
      ────────────────
       nft     0.043
      <BLANKLINE>
    """
    rich_table, text = need("rich.table"), need("rich.text")
    # As Text, for in a plain string rich would read "[red]" as markup.
    heading = text.Text(visible(title), style="table.title") if title else None
    table = rich_table.Table(title=heading, box=need("rich.box").SIMPLE_HEAD)
    for column in frame.columns:
        justify = "right" if _is_number(frame, column) else "left"
        table.add_column(text.Text(visible(column)), justify=justify)
    for row in frame.itertuples(index=False):
        table.add_row(*(text.Text(cell(value, digits=digits)) for value in row))
    (console or need("rich.console").Console()).print(table)
