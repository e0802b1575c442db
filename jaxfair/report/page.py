"""A web page from results: one file, nothing fetched from anywhere, and no script but ours.

A page is plain data: a title, a few sentences that say what was found, and sections of paragraphs,
tables, pictures and facts. It knows nothing of what was measured, so every experiment can use it.
All text is escaped; a group called ``<script>`` is shown by that name. Pictures are embedded as
images, in which a browser runs nothing. A page with a gallery, or with tables that a reader may sort, has one script,
``templates/page.js``: the page's content security policy names its SHA-256, and a browser runs no other.
"""

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxfair.files import atomic_write, visible
from jaxfair.report._extra import need
from jaxfair.report.figures.style import svg
from jaxfair.report.gallery import Gallery
from jaxfair.report.tables import NOTHING, cell

#: Template, script and styles.
TEMPLATES = Path(__file__).parent / "templates"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A judgement, shown by a sign, a colour and its words; a cell of a table or a line of the summary.

    Attributes:
      state: "holds", "violated", or anything else for an open question.
      text: the words; the state by default.

    Example:
      >>> verdict = Verdict(state="violated", text="women lose 7 points more than the average")
      >>> verdict.kind, str(verdict)
      ('bad', 'women lose 7 points more than the average')
      >>> Verdict(state="cannot tell").kind
      'open'
    """

    state: str
    text: str = ""

    @property
    def kind(self) -> str:
        """The name of the style: "good", "bad" or "open"."""
        return {"holds": "good", "violated": "bad"}.get(self.state, "open")

    def __str__(self) -> str:
        """The words."""
        return self.text or self.state


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a heading per column.

    Attributes:
      columns: headings.
      rows: of cells: text, numbers or :class:`Verdict`. The first cell heads its row.
      caption: what the table shows, in a sentence.
      note: below it, how to read it.

    Example:
      >>> table = Table(columns=["group", "gap"], rows=[["women", 1.5], ["men", -0.5]], caption="Gaps.")
      >>> table.numeric
      [False, True]
      >>> import pandas as pd
      >>> Table.from_frame(pd.DataFrame({"group": ["women"], "gap": [0.015]}), caption="Gaps.").rows
      [['women', '0.015']]
    """

    block: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it is read as numbers, and set to the right."""
        return [i > 0 and all(_looks_like_a_number(row[i]) for row in self.rows) for i in range(len(self.columns))]

    @classmethod
    def from_frame(cls, frame: Any, *, caption: str, note: str = "", digits: int = 3) -> "Table":
        """A table of a pandas DataFrame, the index left out and floats rounded to ``digits``."""
        return cls(
            columns=[str(column) for column in frame.columns],
            rows=[
                [v if isinstance(v, Verdict) else cell(v, digits=digits) for v in row]
                for row in frame.itertuples(index=False)
            ],
            caption=caption,
            note=note,
        )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure inside the page.

    Attributes:
      data: the file's bytes.
      caption: what it shows and how to read it.
      alt: the same for those who cannot see it: what the figure says, not how it looks.
      kind: "svg" or "png".
      narrow: the same for a narrow screen, of the same kind; None where one will do.

    Example:
      >>> Picture(data=b"<svg/>", caption="Nothing.", alt="an empty picture").source
      'data:image/svg+xml;base64,PHN2Zy8+'
    """

    block: ClassVar[str] = "picture"
    data: bytes
    caption: str
    alt: str
    kind: str = "svg"
    narrow: bytes | None = None

    @classmethod
    def from_figure(cls, figure: Any, *, caption: str, alt: str, narrow: Any = None) -> "Picture":
        """A picture of a ``matplotlib.figure.Figure``, as SVG, and of another one for narrow screens."""
        return cls(data=svg(figure), caption=caption, alt=alt, narrow=None if narrow is None else svg(narrow))

    @property
    def source(self) -> str:
        """The picture as a data address."""
        return self._address(self.data)

    @property
    def narrow_source(self) -> str:
        """The narrow picture as a data address; empty where there is none."""
        return "" if self.narrow is None else self._address(self.narrow)

    def _address(self, data: bytes) -> str:
        mime = {"svg": "image/svg+xml", "png": "image/png"}[self.kind]
        return f"data:{mime};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and values: a configuration, versions.

    Attributes:
      items: name to value; values are shown as ``str`` shows them.
      caption: what they are.

    Example:
      >>> html = render(Page(title="Audit", summary=[], sections=[
      ...     Section(title="Settings", blocks=[Facts(items={"sparsity": 0.98})])]))
      >>> "sparsity" in html and "0.98" in html
      True
    """

    block: ClassVar[str] = "facts"
    items: Mapping[str, Any]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Points:
    """A list of sentences.

    Attributes:
      items: the sentences, or :class:`Verdict`.

    Example:
      >>> points = Points(items=["Five seeds.", Verdict(state="holds", text="The bound holds.")])
      >>> html = render(Page(title="Audit", summary=[], sections=[Section(title="Notes", blocks=[points])]))
      >>> "Five seeds." in html and "The bound holds." in html
      True
    """

    block: ClassVar[str] = "points"
    items: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
      title: its heading.
      paragraphs: text before the blocks.
      blocks: :class:`Table`, :class:`Picture`, :class:`Facts`, :class:`Points`, :class:`Gallery`, in their order.
      folded: whether it is closed at first; printed pages show it open.

    Example:
      >>> section = Section(title="The data", paragraphs=["32,561 people."], folded=True)
      >>> "<details" in render(Page(title="Audit", summary=[], sections=[section]))
      True
    """

    title: str
    paragraphs: Sequence[str] = ()
    blocks: Sequence[Table | Picture | Facts | Points | Gallery] = ()
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page.

    Attributes:
      title: its heading.
      summary: paragraphs that a reader in a hurry reads: what was done, and what was found.
      verdicts: the judgements, one line each, under the summary.
      sections: the rest.
      lead: blocks under the verdicts: the answer in a table.
      subtitle: a line under the title: the data, the date, the command.
      footer: the last line.
      language: of the text.
      sortable: whether a reader may sort its tables, by our script; of a page with a gallery it is so.

    Example:
      >>> page = Page(
      ...     title="What pruning did to each group", summary=["Five networks were pruned."],
      ...     verdicts=[Verdict(state="holds", text="ceag, test: the bound holds.")],
      ...     sections=[Section(title="Groups", blocks=[
      ...         Table(columns=["group", "gap"], rows=[["women", 0.4]], caption="In points.")])])
      >>> html = render(page)
      >>> [text in html for text in ("<h1>What pruning did", "ceag, test: the bound holds.", "In points.")]
      [True, True, True]
    """

    title: str
    summary: Sequence[str]
    sections: Sequence[Section] = ()
    verdicts: Sequence[Verdict] = ()
    lead: Sequence[Table | Picture | Facts | Points | Gallery] = ()
    subtitle: str = ""
    footer: str = ""
    language: str = "en"
    sortable: bool = False

    @property
    def galleries(self) -> list[Gallery]:
        """Those of all sections."""
        blocks = [*self.lead, *(block for section in self.sections for block in section.blocks)]
        return [block for block in blocks if isinstance(block, Gallery)]


def _looks_like_a_number(value: Any) -> bool:
    if isinstance(value, Verdict):
        return False
    # "1.2 ± 0.3", "-1 to 4", "< 0.001", "1,234", "98%", "612 (61.2 %)", and a dash for an unknown number
    words = re.split(r"[\s±<>\[\]();%]+|to", cell(value).replace(",", ""))
    words = [word for word in words if word]
    return bool(words) and all(word == NOTHING or _NUMBER.fullmatch(word) for word in words)


def _shown(value: Any) -> Any:
    """What stands in braces: text is seen whole; what the template itself made, and the ends of its lines, stay."""
    return value if hasattr(value, "__html__") else "\n".join(map(visible, str(value).split("\n")))


def render(page: Page) -> str:
    """The page as HTML.

    Args:
      page: what to show.

    Returns:
      A whole document.

    Example:
      >>> html = render(Page(title="Audit of <b>", summary=["Nobody was harmed."]))
      >>> "<h1>Audit of &lt;b&gt;</h1>" in html
      True
    """
    jinja2 = need("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(is_verdict=lambda value: isinstance(value, Verdict))
    environment.filters["cell"] = cell
    script = _ours("page.js") if page.sortable or page.galleries else ""
    digest = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = _ours("gallery.css") if page.galleries else ""
    return environment.get_template("report.html").render(page=page, script=script, digest=digest, style=style)


def _ours(name: str) -> Any:
    """A file of ours as it is: it comes from nobody else."""
    return need("markupsafe").Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def write_page(page: Page, path: str | os.PathLike) -> Path:
    """Write the page to a file, in one step.

    Args:
      page: what to show.
      path: of the file, such as ``runs/balancing_act/1/report.html``.

    Returns:
      The path.

    Example:
      >>> import tempfile
      >>> path = write_page(Page(title="Audit", summary=["Fine."]), tempfile.mkdtemp() + "/r.html")
      >>> path.read_text().startswith("<!DOCTYPE html>")
      True
    """
    return atomic_write(path, render(page))
