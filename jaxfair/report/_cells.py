"""From a study's records to tables: a row per cell, a column per number.

A :class:`Name` says which field names a row and how; a column (`_columns`) is a function of the cell's records.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair import study as studies
from jaxfair.report._columns import Column, numbers
from jaxfair.report._extra import need
from jaxfair.report.tables import NOTHING, mean_and_half_width


class Name(NamedTuple):
    """A field that names the rows of a table.

    Attributes:
      field: of the records.
      title: of the column; the field by default.
      say: a value as text.
      order: its values in their order; else numbers go from small to large, and words come as they come.

    Example:
      >>> Name("sparsity", "zeros (%)", say=lambda share: f"{100 * share:g}").say(0.98)
      '98'
    """

    field: str
    title: str = ""
    say: Callable[[Any], str] = str
    order: Sequence[Any] = ()


def cells(records: Sequence[Mapping[str, Any]], names: Sequence[Name]) -> list[dict[str, Any]]:
    """What names each row: the combinations that there are, in order.

    Example:
      >>> records = [{"method": m, "seed": s} for s in range(2) for m in ("ceag", "nft")]
      >>> cells(records, [Name("method", order=("nft", "ceag"))])
      [{'method': 'nft'}, {'method': 'ceag'}]
    """
    there = [r for r in records if all(n.field in r for n in names)]
    place = {}
    for name in names:
        found = studies.values(there, name.field)
        if name.order:
            found = [v for v in name.order if v in found] + [v for v in found if v not in name.order]
        elif all(isinstance(v, int | float) for v in found):
            found = sorted(found)
        place[name.field] = {value: i for i, value in enumerate(found)}
    rows = dict.fromkeys(tuple(r[n.field] for n in names) for r in there)
    ordered = sorted(rows, key=lambda row: [place[n.field][v] for n, v in zip(names, row, strict=True)])
    return [{n.field: v for n, v in zip(names, row, strict=True)} for row in ordered]


def _said(cell: Mapping[str, Any], names: Sequence[Name]) -> dict[str, str]:
    return {n.title or n.field: n.say(cell[n.field]) for n in names}


def table(records: Sequence[Mapping[str, Any]], names: Sequence[Name], columns: Mapping[str, Column]) -> Any:
    """A table with a row per cell.

    Args:
      records: of a run.
      names: the fields that name a row, and its first columns.
      columns: for each title a function of the records of a cell; see :func:`points`, :func:`number`.

    Returns:
      A DataFrame of text.

    Example:
      >>> records = [{"method": m, "seed": s, "gap": g + 0.01 * s}
      ...            for m, g in (("nft", 0.04), ("ceag", 0.01)) for s in range(2)]
      >>> from jaxfair.report import in_points
      >>> table(records, [Name("method")], {"gap": in_points("gap", digits=1)}).to_dict("records")
      [{'method': 'nft', 'gap': '4.5 ± 6.4'}, {'method': 'ceag', 'gap': '1.5 ± 6.4'}]
    """
    rows = []
    for cell in cells(records, names):
        mine = studies.chosen(records, **cell)
        rows.append(_said(cell, names) | {title: column(mine) for title, column in columns.items()})
    return need("pandas").DataFrame(rows)


def paired_table(
    records: Sequence[Mapping[str, Any]],
    names: Sequence[Name],
    columns: Mapping[str, str],
    *,
    peers: Callable[[str], Iterable[str]],
    of: str = "method",
    over: Sequence[str] = ("seed",),
    digits: int = 2,
) -> Any:
    """Paired differences, in points: each method less its peers, on the same seeds.

    Args:
      records: of a run.
      names: the fields that name a row; one of them is ``of``.
      columns: for each title the field that is compared.
      peers: of a method, the methods it is compared with.
      of: the field that holds the method.
      over: the fields that make a seed.
      digits: after the decimal point.

    Returns:
      A DataFrame of text; without a row where nothing has two seeds in common.

    Example:
      >>> records = [{"method": m, "seed": s, "gap": g + 0.01 * s}
      ...            for m, g in (("nft", 0.04), ("ceag", 0.01)) for s in range(2)]
      >>> found = paired_table(records, [Name("method")], {"gap": "gap"}, peers=lambda m: ["nft"])
      >>> found.to_dict("records")
      [{'difference': 'ceag - nft', 'gap': '-3.00 ± 0.00'}]
    """
    rows = []
    for cell in cells(records, names):
        for peer in peers(cell[of]):
            if peer == cell[of]:
                continue
            found = {
                title: studies.paired(records, column, cell, {**cell, of: peer}, over=over)
                for title, column in columns.items()
            }
            if None in found.values():
                continue
            said = _said(cell, [n for n in names if n.field != of])
            rows.append(
                said
                | {"difference": f"{cell[of]} - {peer}"}
                | {
                    title: mean_and_half_width(i.mean, i.half_width, digits=digits)
                    for title, i in found.items()
                    if i is not None
                }
            )
    return need("pandas").DataFrame(rows)


def wide_table(
    records: Sequence[Mapping[str, Any]],
    row: Name,
    along: Name,
    column: str,
    *,
    good: int = 1,
    spec: str = ".1f",
    scale: float | int = 100,
) -> Any:
    """A table with a row per value of one field and a column per value of another; the best of each row is marked.

    Args:
      records: one for each place.
      row: the field that names a row.
      along: the field that names a column.
      column: the number.
      good: 1 where more is better, -1 where less is; the first of equal ones has the mark, nan is a dash and has none.
      spec: how the number is written.
      scale: 100 shows shares in percent.

    Returns:
      A DataFrame of text.

    Raises:
      ValueError: where a record lacks the number.

    Example:
      >>> records = [{"method": "rigl", "rate": r, "accuracy": a} for r, a in ((0.1, 0.53), (0.05, 0.49))]
      >>> wide_table(records, Name("method"), Name("rate"), "accuracy").to_dict("records")
      [{'method': 'rigl', '0.05': '49.0', '0.1': '53.0 *'}]
    """
    rows = []
    for cell in cells(records, [row]):
        mine = studies.chosen(records, **cell)
        known = [r for r, value in zip(mine, numbers(mine, column), strict=True) if not np.isnan(value)]
        best = max(known, key=lambda record: good * record[column], default=None)
        said = _said(cell, [row])
        for place in cells(records, [along]):
            for record in studies.chosen(mine, **place):
                text = NOTHING if np.isnan(record[column]) else format(scale * record[column], spec)
                text += " *" if record is best else ""
                said[along.say(place[along.field])] = text
        rows.append(said)
    return need("pandas").DataFrame(rows).fillna("")
