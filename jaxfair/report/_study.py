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
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxfair import study as studies
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


class Drawn(NamedTuple):
    """A figure of the page, also written to ``figures/``.

    Attributes:
      name: of its files.
      figure: of matplotlib.
      caption: what it shows and how to read it.
      alt: what it says, for those who cannot see it.
    """

    name: str
    figure: Any
    caption: str
    alt: str


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
      sections: more, after the tables.
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
    for one in shown:
        if len(one.frame):
            write_table(one.frame, run.folder, one.name, numbers=one.numbers)
    for one in drawn:
        figures_lib.save(one.figure, run.folder / "figures", one.name)
    judged = [Verdict(state=one.state, text=one.sentence()) if isinstance(one, studies.Found) else one for one in found]
    page = Page(
        title=title,
        subtitle=subtitle,
        summary=[one for one in judged if isinstance(one, str)],
        verdicts=[one for one in judged if isinstance(one, Verdict)],
        sections=[
            *([Section(title="Figures", blocks=[_picture(one) for one in drawn])] if drawn else []),
            *([Section(title="Numbers", blocks=[_block(one) for one in shown if len(one.frame)])] if shown else []),
            *sections,
            Section(
                title="What was done",
                blocks=[Points(items=list(done))] if done else [],
                paragraphs=paragraphs,
            ),
            Section(
                title="How to repeat this",
                blocks=[Facts(items=repeat(run, prog))],
                paragraphs=[
                    "The same command goes on where a run stopped, and makes nothing twice. The page shows everything "
                    "that the folder holds, also what an earlier call asked for."
                ],
            ),
            Section(title="Settings", blocks=[Facts(items=run.settings)], folded=True),
        ],
        footer="Written by jaxfair.",
    )
    path = write_page(page, run.folder / "report.html")
    console = console or _console()
    for one in shown:
        if one.title and len(one.frame):
            print_table(one.frame, title=one.title, console=console)
    for line in [*judged, f"report: {path}"]:
        console.print(str(line), highlight=False, markup=False, soft_wrap=True)
    return path


def _picture(one: Drawn) -> Picture:
    return Picture(data=figures_lib.svg(one.figure), caption=one.caption, alt=one.alt)


def _block(one: Shown) -> Table:
    return Table.from_frame(one.frame, caption=one.caption, note=one.note)


def _console() -> Any:
    made = need("rich.console").Console()
    # A file or a pipe has no width; this one does not break the tables of the experiments.
    return made if made.is_terminal else need("rich.console").Console(width=160)


def repeat(run: studies.Run, prog: str) -> dict[str, str]:
    """The command of a run, and what it ran on.

    Args:
      run: the study's; flags at their defaults are left out.
      prog: the module that was run.

    Example:
      >>> facts = repeat(studies.Run(pathlib.Path("runs"), names=("seed",)), "experiments.mine")
      >>> facts["command"], sorted(facts)[:3]
      ('python -m experiments.mine', ['command', 'date', 'flax'])
    """
    import jax

    words = ["python", "-m", prog]
    for field in dataclasses.fields(run.config) if run.config is not None else ():
        value = getattr(run.config, field.name)
        if value != field.default:
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
