"""The page of an audit: the answer, figures, who is harmed, the numbers, and everything as files beside it."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

from jaxfair import report


def write(compared: Any, folder: str | os.PathLike[str], *, title: str, subtitle: str) -> pathlib.Path:
    """Writes the page of a :class:`jaxfair.audit.Comparison` and its tables, figures and details; gives its path."""
    folder, short = pathlib.Path(folder), compared.answer().lead()
    tables, figures = report.kept(folder, compared.shown(), compared.drawn())
    compared.write_details(folder)
    harmed, *others = compared.sections()
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
    )  # fmt: skip
    return report.write_page(page, folder / "report.html")


def _versions() -> report.Facts:
    facts = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
    for name in ("jaxfair", "jax", "jaxlib", "numpy"):
        facts[name] = importlib.metadata.version(name)
    return report.Facts(items=facts)
