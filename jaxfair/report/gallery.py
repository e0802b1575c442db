r"""A gallery of examples for a page: a card each, which a person filters, sorts and marks.

The cards are part of the page and are read without a script too. Where scripts run, ours
(``templates/page.js``) adds the filters and the marks; the page's content security policy lets no other run, by its
SHA-256. The script reads its data from a JSON element in which ``<``, ``>`` and ``&`` are escapes, and sets all that it
shows as text. Marks are kept in the browser under :attr:`Gallery.id`, a hash of the cards, so that those of another
report do not mix with them.
"""

import base64
import functools
import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from jaxfair.files import visible
from jaxfair.report._extra import need

#: What a person may say of an example.
MARKS = ("mislabelled", "ambiguous", "atypical", "fine", "harmed")
#: What is exported, a column each.
COLUMNS = ("row", "mark", "group", "label", "before", "after", "kind", "score")
#: Pictures of fewer pixels a side are shown larger, with edges that stay sharp.
SMALL = 64
#: The bytes that pictures may take in a page, and the sides that are tried, in pixels.
BUDGET = 3_000_000
SIDES = (192, 128, 96, 64, 48, 32, 24, 16)
#: How kinds of change look; all others look open.
_STYLES = {"newly wrong": "bad", "newly right": "good"}
#: What would end a script element, or a line in one.
_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


@dataclass(frozen=True, kw_only=True)
class Card:
    """An example.

    Attributes:
      row: its place in the source, or its name there.
      group: whom it belongs to.
      label: the true class.
      before: the class predicted before.
      after: and after.
      kind: of change; "newly wrong" and "newly right" have a colour.
      score: by which cards are filtered and sorted.
      words: the score in words; the number by default.
      agreed: in words, how many networks agreed on the class before.
      image: ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3]`` or ``[H, W, 4]`` uint8, or None.
      values: what else is known of it, by name.
      mark: what somebody said of it; empty if nobody did.

    Example:
      >>> Card(row=7, group="women", label="yes", before="yes", after="no", kind="newly wrong", score=0.8).row
      7
    """

    row: Any
    group: str
    label: str
    before: str
    after: str
    kind: str
    score: float
    words: str = ""
    agreed: str = ""
    image: Any = None
    values: Mapping[str, Any] = field(default_factory=dict)
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Cards, with a mark each.

    Attributes:
      cards: in the order in which they are seen first.
      caption: what they are.
      note: below them.
      score: what the score is called; empty where all have the same one.
      of: what a row is called.
      marks: what a person may say of a card; nine at most, for each has a digit.

    Example:
      >>> card = Card(row=7, group="women", label="yes", before="yes", after="no", kind="newly wrong", score=0.8)
      >>> gallery = Gallery(cards=[card], caption="People to look at.")
      >>> import json
      >>> json.loads(str(gallery.json))["cards"][0]["group"], len(gallery.id)
      ('women', 17)
    """

    block: ClassVar[str] = "gallery"
    cards: Sequence[Card]
    caption: str
    note: str = ""
    score: str = "score"
    of: str = "row"
    marks: Sequence[str] = MARKS

    @functools.cached_property
    def id(self) -> str:
        """The name under which a browser keeps the marks: equal cards have an equal one."""
        return "g" + hashlib.sha256(json.dumps(self._data()).encode()).hexdigest()[:16]

    @property
    def json(self) -> Any:
        """What the script reads: JSON that may stand in a script element, for nothing in it is markup."""
        text = json.dumps({"id": self.id, **self._data()}, allow_nan=False)
        return need("markupsafe").Markup(text.translate(_ESCAPES))

    def _data(self) -> dict[str, Any]:
        cards = [
            {name: visible(getattr(card, name)) for name in COLUMNS}
            | {"score": None if math.isnan(card.score) else float(card.score)}
            for card in self.cards
        ]
        names = {name: visible(getattr(self, name)) for name in ("of", "score")}
        return {**names, "marks": [*map(visible, self.marks)], "columns": COLUMNS, "cards": cards}

    def style(self, card: Card) -> str:
        """How a kind of change looks: "good", "bad" or "open"."""
        return _STYLES.get(card.kind, "open")

    def is_small(self, card: Card) -> bool:
        """Whether a picture is to be shown larger than it is."""
        return max(np.shape(card.image)[:2]) < SMALL

    @functools.cached_property
    def pictures(self) -> list[str]:
        """A data address for each card, empty without a picture; of as many pixels as leave the page small enough."""
        images = [card.image for card in self.cards if card.image is not None]
        side = next((side for side in SIDES if _size(images, side) <= BUDGET), SIDES[-1])
        made = [b"" if card.image is None else png(shrunk(card.image, side)) for card in self.cards]
        return ["data:image/png;base64," + base64.b64encode(data).decode() if data else "" for data in made]


def _size(images: Sequence[np.ndarray], side: int) -> float:
    """Bytes of pictures as files, from some of them."""
    some = images[:: -(-len(images) // 30) or 1]
    return sum(len(png(shrunk(image, side))) for image in some) * len(images) / max(len(some), 1)


def shrunk(image: UInt8[np.ndarray, "H W *C"], side: int) -> UInt8[np.ndarray, "h w *C"]:
    """A picture of at most ``side`` pixels a side: means over squares.

    Args:
      image: of bytes.
      side: in pixels.

    Example:
      >>> shrunk(np.array([[0, 10], [20, 30]], np.uint8), 1).tolist(), shrunk(np.zeros((5, 9), np.uint8), 4).shape
      ([[15]], (2, 3))
    """
    step = -(-max(image.shape[:2]) // side)
    if step <= 1:
        return image
    total, count = image.astype(np.float64), np.ones(image.shape[:2])
    for axis in (0, 1):
        starts = np.arange(0, image.shape[axis], step)
        total, count = (np.add.reduceat(a, starts, axis) for a in (total, count))
    return np.round(total / count.reshape(count.shape + (1,) * (image.ndim - 2))).astype(np.uint8)


def png(image: UInt8[np.ndarray, "H W *C"]) -> bytes:
    """A picture as a PNG file.

    Args:
      image: ``[H, W]`` or ``[H, W, 1]`` grey, ``[H, W, 3]`` red, green and blue, ``[H, W, 4]`` with opacity.

    Raises:
      ValueError: for another shape.

    Example:
      >>> png(np.zeros((2, 3), np.uint8))[1:4], len(png(np.zeros((2, 3, 3), np.uint8)))
      (b'PNG', 68)

    References:
      W3C, `Portable Network Graphics <https://www.w3.org/TR/png/>`_, sections 5 and 11.
    """
    kind = {(): 0, (1,): 0, (3,): 2, (4,): 6}.get(image.shape[2:])
    if kind is None or 0 in image.shape:
        raise ValueError(f"a picture has shape {image.shape}: give [H, W], or [H, W, C] of 1, 3 or 4 channels.")
    height, width = image.shape[:2]
    lines = np.ascontiguousarray(image).reshape(height, -1)
    # Each line begins with the number of its filter: none.
    raw = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0), b"IDAT": zlib.compress(raw)}
    file = b"\x89PNG\r\n\x1a\n"
    for name, data in {**parts, b"IEND": b""}.items():
        file += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return file
