"""The page of an audit: the answer, figures, who is harmed, the numbers, and everything as files beside it."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from jaxfair import files, report
from jaxfair.audit._exemplars import Seen, exemplars
from jaxfair.audit._findings import Findings
from jaxfair.audit._looked_at import FILE, as_csv
from jaxfair.audit._sections import sections
from jaxfair.audit._tables import changed_people, file_names
from jaxfair.audit._verdicts import in_words


def write(compared: Any, folder: str | os.PathLike[str], *, title: str, subtitle: str, seen: Seen) -> pathlib.Path:
    """Writes the page of a :class:`jaxfair.audit.Comparison` and its tables, figures and details; gives its path."""
    subtitle = subtitle or f"bound: {in_words(compared.found.tolerance)}"
    folder, short = pathlib.Path(folder), compared.answer().lead()
    harmed, *others = sections(compared.found, seen)  # what cannot be shown is said before anything is written
    tables, figures = report.kept(folder, compared.shown(), compared.drawn())
    compared.write_details(folder, seen.marks)
    page = report.Page(
        title=title,
        subtitle=subtitle,
        summary=short.summary,
        verdicts=short.verdicts,
        lead=short.blocks,
        sections=[
            *figures,
            harmed,
            report.Section(title="Numbers", paragraphs=compared.summary()[:1], blocks=tables),
            *others,
            report.Section(title="Versions", blocks=[_versions()], folded=True),
        ],
        footer="Written by jaxfair.",
        sortable=True,
    )  # fmt: skip
    return report.write_page(page, folder / "report.html")


def write_details(found: Findings, folder: pathlib.Path, marks: Mapping[str, str]) -> None:
    """The files of :meth:`jaxfair.audit.Comparison.write_details`."""
    called = file_names(found.after)
    for name, (frame, _) in found.frames.items():
        if not found.is_last(name) or name in found.detailed:
            report.write_table(frame, folder / "groups", called[name], digits=4)
    files.atomic_write(folder / "people.csv", changed_people(found).to_csv(index=False))
    for name in found.detailed[-1:]:
        files.atomic_write(folder / FILE, as_csv(exemplars(found, name), marks))


def _versions() -> report.Facts:
    facts = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
    for name in ("jaxfair", "jax", "jaxlib", "numpy"):
        facts[name] = importlib.metadata.version(name)
    return report.Facts(items=facts)
