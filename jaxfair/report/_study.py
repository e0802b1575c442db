"""The page of a study: what was found, figures, tables, what was done, and how to repeat it.

The answer comes first, and what it rests on after it.
"""

import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxfair import study as studies
from jaxfair.files import visible
from jaxfair.report import figures as figures_lib
from jaxfair.report._extra import need
from jaxfair.report.page import Facts, Page, Picture, Points, Section, Table, Verdict, write_page
from jaxfair.report.tables import print_table, write_table


class Shown(NamedTuple):
    """A table of the page, also written to ``name.md`` and ``.csv``.

    Attributes:
      name: of its files.
      frame: a DataFrame of text.
      caption: what it shows.
      note: how to read it.
      numbers: the DataFrame for the CSV file, if it is another one.
      title: where it is printed as well; empty prints nothing.
    """

    name: str
    frame: Any
    caption: str
    note: str = ""
    numbers: Any = None
    title: str = ""

    def block(self) -> Table:
        """The table of the page."""
        return Table.from_frame(self.frame, caption=self.caption, note=self.note)


class Drawn(NamedTuple):
    """A figure of the page, also written to ``figures/``.

    Attributes:
      name: of its files.
      figure: of matplotlib.
      caption: what it shows and how to read it.
      alt: what it says, for those who cannot see it.
      narrow: the same figure for a narrow screen; None where one will do.
    """

    name: str
    figure: Any
    caption: str
    alt: str
    narrow: Any = None

    def picture(self) -> Picture:
        """The picture of the page."""
        return Picture.from_figure(self.figure, caption=self.caption, alt=self.alt, narrow=self.narrow)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``name.svg`` and ``.png``, and for narrow screens ``name_narrow.svg``."""
        figures_lib.save(self.figure, folder, self.name)
        if self.narrow is not None:
            figures_lib.save(self.narrow, folder, f"{self.name}_narrow", formats=("svg",))


def kept(folder: pathlib.Path, shown: Sequence[Shown], drawn: Sequence[Drawn]) -> tuple[list[Table], list[Section]]:
    """Writes tables and figures as files; gives the tables that have rows, and a section of the figures, if any.

    Args:
      folder: tables go into it, figures into ``figures/``.
      shown: the tables.
      drawn: the figures.

    Example:
      >>> kept(pathlib.Path("nowhere"), (), ())
      ([], [])
    """
    there = [one for one in shown if len(one.frame)]
    for one in there:
        write_table(one.frame, folder, one.name, numbers=one.numbers)
    for one in drawn:
        one.save(folder / "figures")
    figures = [Section(title="Figures", blocks=[one.picture() for one in drawn])] if drawn else []
    return [one.block() for one in there], figures


class Lead(NamedTuple):
    """The answer, which leads the page and the terminal; what was found in particular comes after the tables then.

    Attributes:
      summary: sentences.
      verdicts: a line each.
      blocks: lists and tables under them.
      lines: what is printed.
    """

    summary: Sequence[str]
    verdicts: Sequence[Verdict]
    blocks: Sequence[Table | Points]
    lines: Sequence[str]


def study(
    run: studies.Run,
    *,
    prog: str,
    title: str,
    subtitle: str,
    found: Sequence[str | studies.Found | Verdict],
    drawn: Sequence[Drawn] = (),
    shown: Sequence[Shown] = (),
    done: Sequence[str] = (),
    paragraphs: Sequence[str] = (),
    sections: Sequence[Section] = (),
    lead: Lead | None = None,
    verbose: bool = True,
    unused: Sequence[str] = (),
    console: Any = None,
) -> pathlib.Path:
    """Writes all files of a run, its page among them, and prints what was found.

    Args:
      run: the study's.
      prog: the module that was run, such as ``experiments.one_shot``.
      title: of the page.
      subtitle: a line under it.
      found: sentences, and the verdicts of claims and audits, which are sentences too.
      drawn: figures.
      shown: tables.
      done: what was done, a line each: the methods in words.
      paragraphs: and what is to be said of all of them.
      sections: more, after the tables; with a ``lead`` the first of them stands before the tables.
      lead: the answer, if another one than ``found`` is to be read first.
      verbose: whether tables and what was found are printed as well, where there is a lead.
      unused: settings that this run made no use of, which are not shown.
      console: of rich; standard output by default.

    Returns:
      The path of the page.

    Example:
      >>> import tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> path = study(studies.Run(folder, names=("seed",)), prog="experiments.mine", title="Mine",
      ...              subtitle="two seeds", found=["Nothing was found."])
      Nothing was found.
      report: ...
      >>> "How to repeat this" in path.read_text()
      True
    """
    tables, figures = kept(run.folder, shown, drawn)
    judged = [Verdict(state=one.state, text=one.sentence()) if isinstance(one, studies.Found) else one for one in found]
    first = lead or Lead(
        [one for one in judged if isinstance(one, str)], [one for one in judged if isinstance(one, Verdict)], (), ()
    )
    before = list(sections[:1]) if lead else []
    page = Page(
        title=title,
        subtitle=subtitle,
        summary=first.summary,
        verdicts=first.verdicts,
        lead=first.blocks,
        sections=[
            *figures,
            *before,
            *([Section(title="Numbers", blocks=tables)] if shown else []),
            *([Section(title="What was found", blocks=[Points(items=judged)])] if lead else []),
            *sections[len(before) :],
            Section(
                title="What was done",
                blocks=[Points(items=list(done))] if done else [],
                paragraphs=paragraphs,
            ),
            Section(
                title="How to repeat this",
                blocks=[Facts(items=repeat(run, prog, unused))],
                paragraphs=[
                    "The same command goes on where a run stopped, and makes nothing twice. The page shows everything "
                    "that the folder holds, also what an earlier call asked for."
                ],
            ),
            Section(
                title="Settings",
                blocks=[Facts(items={name: value for name, value in run.settings.items() if name not in unused})],
                folded=True,
            ),
        ],
        footer="Written by jaxfair.",
    )
    path = write_page(page, run.folder / "report.html")
    console = console or _console()
    _print(console, first.lines)
    if verbose:
        for one in shown:
            if one.title and len(one.frame):
                print_table(one.frame, title=one.title, console=console)
        _print(console, judged)
    _print(console, [f"report: {path}"])
    return path


def _print(console: Any, lines: Sequence[Any]) -> None:
    for line in "\n".join(map(str, lines)).split("\n") if lines else ():
        console.print(visible(line), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _console() -> Any:
    made = need("rich.console").Console()
    # A file or a pipe has no width; this one does not break the tables of the experiments.
    return made if made.is_terminal else need("rich.console").Console(width=160)


def repeat(run: studies.Run, prog: str, unused: Sequence[str] = ()) -> dict[str, str]:
    """The command of a run, and what it ran on.

    Args:
      run: the study's; flags at their defaults are left out.
      prog: the module that was run.
      unused: flags that are left out.

    Example:
      >>> facts = repeat(studies.Run(pathlib.Path("runs"), names=("seed",)), "experiments.mine")
      >>> facts["command"], sorted(facts)[:3]
      ('...python -m experiments.mine', ['command', 'date', 'flax'])
    """
    import jax

    # The environment of the clone is named; one that is elsewhere is the reader's affair.
    mine = pathlib.Path(sys.executable)
    here = mine.is_relative_to(pathlib.Path.cwd())
    words = [str(mine.relative_to(pathlib.Path.cwd())) if here else "python", "-m", prog]
    for field in dataclasses.fields(run.config) if run.config is not None else ():
        value = getattr(run.config, field.name)
        if value != field.default and field.name not in unused:
            separator = field.metadata.get("separator", ",")
            text = separator.join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(shlex.quote(f"--{field.name}={text}"))
    facts = {"command": " ".join(words), "date": datetime.date.today().isoformat()}
    facts["machine"] = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{jax.local_device_count()} x {jax.devices()[0].device_kind}"
    )
    facts["python"] = platform.python_version()
    for name in ("jaxfair", "jax", "jaxlib", "optax", "flax", "numpy"):
        facts[name] = importlib.metadata.version(name)
    return facts
