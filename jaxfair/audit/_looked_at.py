"""The section "People to look at": a gallery, how many there are of each kind, what was said of them, and the file."""

import csv
import io
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxfair import report
from jaxfair.audit._exemplars import CARDS, KINDS, VALUES, Exemplar, Seen, cards, check, chosen, exemplars, named
from jaxfair.audit._findings import Findings
from jaxfair.audit._groups import LONG, of_people
from jaxfair.files import visible

#: The kind of somebody who was marked once and whose prediction is now as before.
UNCHANGED = "not changed"
#: The file with everybody; it has the columns of the one that a page saves.
FILE = "exemplars.csv"
#: How many groups a table of the page shows.
SHOWN = 20


def read_marks(path: str | os.PathLike[str], found: Findings) -> dict[str, str]:
    """What somebody said of people: a CSV that a page saved, or ``exemplars.csv`` with its column ``mark`` filled in.

    Args:
      path: of the file. Its columns ``row`` and ``mark`` are read; a row without a mark says nothing.
      found: of the audit, whose people they are.

    Returns:
      row -> mark.

    Raises:
      ValueError: no such column, a mark that there is not, a row that is nobody's, or two marks of one person.
    """
    text = pathlib.Path(path).read_text(encoding="utf-8-sig", errors="replace")
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ",")
    for column in ("row", "mark"):
        if column not in (reader.fieldnames or ()):
            raise ValueError(f"{path}, line 1: no column {column!r}: give a CSV that the page of an audit saved.")
    people = {visible(row) for row in found.people[found.judged].rows.tolist()}
    marks: dict[str, str] = {}
    for line in reader:
        row, mark = (visible((line[name] or "").strip()) for name in ("row", "mark"))
        where = f"{path}, line {reader.line_num}:"
        row = row[1:] if row not in people and row.startswith("'") else row  # as a spreadsheet is kept from a formula
        if not mark:
            continue
        if mark not in report.MARKS:
            raise ValueError(f"{where} mark {report.shorten(mark)!r}: choose from {', '.join(report.MARKS)}.")
        if row not in people:
            raise ValueError(f"{where} row {report.shorten(row)!r} is nobody of {found.judged}: remove that line.")
        if marks.setdefault(row, mark) != mark:
            raise ValueError(f"{where} row {report.shorten(row)!r} has the mark {marks[row]!r} as well: keep one.")
    return marks


def seen(found: Findings, images: Any = None, table: Any = None, marks: str | os.PathLike[str] | None = None) -> Seen:
    """What is shown of people, as a user gives it.

    Args:
      found: of the audit.
      images: ``[N, H, W]`` or ``[N, H, W, C]``; those of the dataset by default.
      table: name -> ``[N]``, or a frame.
      marks: the path of a CSV.

    Raises:
      ValueError: a table without names, other people, no pictures, and as :func:`read_marks`.

    Example:
      What is no picture is said before anything is written:

      >>> from jaxfair.audit import compare
      >>> one = compare([0, 1, 1], [0, 0, 1], [0, 1, 1], ["a", "a", "b"])
      >>> seen(one.found, table={"age": [39, 50, 38]}).table["age"]
      [39, 50, 38]
      >>> seen(one.found, images=[[0.0] * 8] * 3)
      Traceback (most recent call last):
        ...
      ValueError: images has shape (3, 8): give [N, H, W], or [N, H, W, C] of 1, 3 or 4 channels.
    """
    if table is not None and not hasattr(table, "items"):
        raise ValueError(
            f"table is {type(table).__name__}: give a mapping of names to one value per person, or a frame."
        )
    people = found.people[found.judged]
    given = Seen(
        images=people.images if images is None else images,
        table={} if table is None else dict(table.items()),
        marks={} if marks is None else read_marks(marks, found),
    )
    return check(given, len(people.y), found.judged)


def section(found: Findings, shown: Seen) -> list[report.Section]:
    """The section, about the last of the variants that the details show; none where all failed."""
    if not found.detailed:
        return []
    name, split = found.detailed[-1], found.judged
    people, networks = exemplars(found, name), int(found.ok(name).sum())
    some = chosen(people, shown.marks)
    made = cards(some, shown, networks=networks)
    blocks: list[Any] = []
    if made:
        note = "" if len(some) == len(people) else f"The {CARDS} with the largest score; where scores are equal, "
        note += note and f"groups and kinds of change take turns. All {len(people):,} are in {FILE}. "
        more = len(shown.table) - VALUES
        note += f"Of {more + VALUES} columns the first {VALUES} are shown. " if more > 0 else ""
        caption = f"People of {split} whose prediction changed, {found.titled(name)}; newly wrong ones first."
        score = "score" if networks > 1 else ""  # of one network each it is 1
        gallery = report.Gallery(cards=made, caption=caption, note=note.strip(), score=score)
        blocks += [_by_group(found, people, networks), gallery]
    if shown.marks:
        blocks.insert(1 if made else 0, _marked(found, people, shown.marks))
    return [report.Section(title="People to look at", paragraphs=_said(found, name, people, networks), blocks=blocks)]


def _said(found: Findings, name: str, people: Sequence[Exemplar], networks: int) -> list[str]:
    on = f"{report.who(len(found.people[found.judged].y))} of {found.judged}"
    if not people:
        return [f"Of {on}, {found.titled(name)} changes the prediction of nobody."]
    count = Counter(one.kind for one in people)
    kinds = ", ".join(f"{count[kind]:,} {kind}" for kind in KINDS if count[kind])
    lines = [f"Of {on}, {found.titled(name)} changes the prediction of {len(people):,}: {kinds}."]
    if networks > 1:
        lines.append(
            f"A prediction is what most of {networks} networks say. The score is the share of the networks after that "
            "differ from what most said before. In brackets, how many said so before: where they did not agree, chance "
            "may do as much."
        )
    return [*lines, "A label may be wrong, and a person no loss: look at them, and say what you see."]


def _by_group(found: Findings, people: Sequence[Exemplar], networks: int) -> report.Table:
    count, sizes = Counter((one.group, one.kind) for one in people), Counter(named(found))
    groups = sorted(sizes, key=lambda g: (-count[g, KINDS[0]] / sizes[g], -sum(count[g, k] for k in KINDS) / sizes[g]))
    groups = [g for g in groups if any(count[g, kind] for kind in KINDS)]
    more = f"{SHOWN} of {len(groups)} groups, those with the largest share newly wrong." if len(groups) > SHOWN else ""
    return report.Table(
        columns=["group", "people", *KINDS],
        rows=[
            [report.shorten(g, LONG), f"{sizes[g]:,}", *(of_people(count[g, kind], sizes[g]) for kind in KINDS)]
            for g in groups[:SHOWN]
        ],
        caption="Whose prediction changed, by group and kind of change.",
        note=f"{'By what most networks say. ' if networks > 1 else ''}{more}".strip(),
    )


def _marked(found: Findings, people: Sequence[Exemplar], marks: Mapping[str, str]) -> report.Table:
    """How many of each group and kind were given each mark."""
    kinds = {visible(one.row): one.kind for one in people}
    groups = dict(zip(map(visible, found.people[found.judged].rows.tolist()), named(found), strict=True))
    count = Counter((groups[row], kinds.get(row, UNCHANGED), mark) for row, mark in marks.items())
    cells = sorted({key[:2] for key in count}, key=lambda cell: ([*KINDS, UNCHANGED].index(cell[1]), cell[0]))
    rows = [[report.shorten(g, LONG), kind, *(count[g, kind, mark] for mark in report.MARKS)] for g, kind in cells]
    total, back = Counter(marks.values()), any(kind == UNCHANGED for _, kind in cells)
    return report.Table(
        columns=["group", "change", *report.MARKS],
        rows=rows,
        caption=f"What was said of {report.who(len(marks))}, by group and kind of change.",
        note=f"In all {', '.join(f'{total[mark]:,} {mark}' for mark in report.MARKS if total[mark])}."
        + f" {UNCHANGED.capitalize()}: marked once, and predicted now as before." * back,
    )


def as_csv(people: Iterable[Exemplar], marks: Mapping[str, str]) -> str:
    """Everybody, in the columns that a page saves, and how many of the networks before agreed."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "mark", "group", "label", "before", "after", "kind", "score", "agreed"])
    for one in people:
        row = visible(one.row)
        names = map(visible, (one.group, one.label, one.before, one.after, one.kind))
        writer.writerow([row, marks.get(row, ""), *names, f"{one.score:.4g}", f"{one.agreed:.4g}"])
    return file.getvalue()
