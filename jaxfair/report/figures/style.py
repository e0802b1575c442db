"""How every figure looks, and how it is written to disk.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; each comes with a marker
and a line style of its own, so that a grey print can be read as well. Figures are made without
pyplot: nothing global is touched, and nothing has to be closed. They are written without a date
and with fixed identifiers, so the same numbers give the same bytes.
"""

import functools
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jaxfair.files import atomic_write, escape, visible
from jaxfair.report import _text
from jaxfair.report._extra import need

#: Okabe and Ito's palette, less the yellow, which white paper swallows.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "p", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
#: For what stands back: a group among many, a tolerance.
GREY, DARK = "#8c8c8c", "#333333"
#: The width of a page's text, in inches, and of a telephone's.
WIDTH, NARROW = 7.2, 3.9
#: Comes with matplotlib: the same letters on every machine.
FONT = "DejaVu Sans"
#: For letters that it lacks, where one of them is installed. What none of them has is written as its escape.
FALLBACK = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC",
    "Hiragino Sans", "Apple SD Gothic Neo", "Malgun Gothic", "Nirmala UI", "Noto Sans", "Noto Sans Devanagari",
    "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Ethiopic", "Noto Emoji", "Arial Unicode MS", "FreeSans",
)  # fmt: skip

_RC = {
    "font.family": [FONT],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "text.parse_math": False,  # a dollar in the name of a group is a dollar
    "svg.fonttype": "path",
    "svg.hashsalt": "jaxfair",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.formatter.useoffset": False,
}


class Look(NamedTuple):
    """How one method is drawn, in all figures.

    Attributes:
      color: a hexadecimal colour.
      marker: a matplotlib marker.
      line: a matplotlib line style.
    """

    color: str
    marker: str
    line: Any


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, by its place in the list: pass all methods, in the same order, to every figure.

    Args:
      names: of the methods. From the eighth on, colours repeat with another marker.

    Returns:
      A look per name.

    Example:
      >>> looks(["nft", "ceag"])["ceag"]
      Look(color='#D55E00', marker='s', line='--')
    """
    count = len(COLORS)
    return {
        name: Look(
            COLORS[i % count],
            MARKERS[(i + i // count) % count],
            LINES[(i + i // count) % count],
        )
        for i, name in enumerate(names)
    }


def style() -> Any:
    """The context in which figures are drawn *and* saved: some settings are read only when saving."""
    return need("matplotlib").rc_context(_RC | {"font.family": list(_fonts())})


@functools.cache
def _fonts() -> dict[str, frozenset[int]]:
    """The fonts that there are, with the letters that they have."""
    manager, font = need("matplotlib.font_manager"), need("matplotlib.ft2font").FT2Font
    installed = {entry.name: entry.fname for entry in manager.fontManager.ttflist}
    found = {FONT: manager.findfont(FONT)} | {name: installed[name] for name in FALLBACK if name in installed}
    return {name: frozenset(font(path).get_charmap()) for name, path in found.items()}


def drawable(text: str) -> str:
    r"""Text as it can be drawn: a letter that no font has is written as its escape, and so is what is no letter.

    Lines stay lines: they are the figure's own; a name has none once it is shortened.

    Example:
      >>> print(drawable("women" + chr(11)), drawable(chr(0x10FFFD)))
      women\x0b \U0010fffd
    """
    letters = frozenset().union(*_fonts().values())
    lines = (visible(line) for line in text.split("\n"))
    return "\n".join("".join(c if ord(c) in letters else escape(c) for c in line) for line in lines)


def shorten(text: Any, length: int = 44) -> str:
    """At most ``length`` characters that can be drawn, the middle left out."""
    return _text.shorten(drawable(visible(text)), length)


def _make_drawable(figure: Any) -> None:
    """All text of a figure; ticks are made anew when they are drawn, by what their formatter gives."""
    ticker = need("matplotlib.ticker")
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, ticker.FixedFormatter):
                formatter.seq = [drawable(str(text)) for text in formatter.seq]
            elif isinstance(formatter, ticker.FuncFormatter):
                formatter.func = functools.partial(_drawable_tick, formatter.func)
    for text in figure.findobj(need("matplotlib.text").Text):
        if (shown := drawable(text.get_text())) != text.get_text():
            text.set_text(shown)


def _drawable_tick(label: Any, value: Any, position: Any) -> str:
    return drawable(str(label(value, position)))


def write_above(axes: Any, y: float, label: str) -> None:
    """The name of a row, inside of the axes, at their left; nothing makes room for it, and nothing shines through."""
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    text = axes.text(0.0, y, label, transform=axes.get_yaxis_transform(), va="center", zorder=4, bbox=behind)
    text.set_in_layout(False)


def new_figure(*, width: float | int = WIDTH, height: float | int) -> Any:
    """An empty ``matplotlib.figure.Figure`` of a size in inches, laid out so that nothing overlaps."""
    return need("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def _bytes(figure, kind: str) -> bytes:
    # Without a date and a version: the same figure is the same file.
    metadata = {
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[kind]
    buffer = io.BytesIO()
    with style():
        _make_drawable(figure)
        if figure.get_layout_engine() is not None:
            # Laying out again moves things by a hair: done once, the second file equals the first.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def svg(figure: Any) -> bytes:
    """A figure as an SVG file, letters as outlines: it looks alike everywhere."""
    return _bytes(figure, "svg")


def png(figure: Any) -> bytes:
    """A figure as a PNG file of 200 dots per inch."""
    return _bytes(figure, "png")


def save(
    figure: Any, folder: str | os.PathLike, name: str, *, formats: tuple[str, ...] = ("svg", "png")
) -> dict[str, Path]:
    """Write a figure as ``name.svg`` and ``name.png`` (and ``name.pdf`` if asked).

    Args:
      figure: a ``matplotlib.figure.Figure``.
      folder: for the files.
      name: of the files, without an ending.
      formats: of "svg", "png", "pdf".

    Returns:
      The path of each format. Each file is replaced in one step, and equal figures give equal
      files.

    Example:
      >>> import tempfile
      >>> figure = new_figure(width=2, height=1)
      >>> folder = tempfile.mkdtemp()
      >>> sorted(save(figure, folder, "empty"))
      ['png', 'svg']
    """
    return {kind: atomic_write(Path(folder) / f"{name}.{kind}", _bytes(figure, kind)) for kind in formats}


def bound_line(axes: Any, bound: float, *, axis: str) -> Any:
    """The bound, as a dashed dark line with a label for the legend.

    Args:
      axes: to draw in.
      bound: in points.
      axis: on which the bound is read, "x" or "y".

    Returns:
      The line.
    """
    draw = axes.axvline if axis == "x" else axes.axhline
    label = f"bound ({bound:g} point{'' if bound == 1 else 's'})"
    return draw(bound, color=DARK, linestyle=(0, (6, 3)), linewidth=1, zorder=2.2, label=label)
