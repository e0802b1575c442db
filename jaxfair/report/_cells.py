"""From a study's records to tables and lines: a row per cell, a column per number.

A :class:`Name` says which field names a row and how; a column is a function of the cell's records, one per seed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair import metrics
from jaxfair import study as studies
from jaxfair.report import figures
from jaxfair.report._extra import need
from jaxfair.report.tables import mean_and_half_width

#: Of the records of one cell, a row's text.
Column = Callable[[Sequence[Mapping[str, Any]]], str]


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


def points(column: str, *, digits: int = 2) -> Column:
    """A column of shares: mean and half-width of the 95 % t interval over seeds, in points.

    Example:
      >>> points("accuracy", digits=1)([{"accuracy": 0.8}, {"accuracy": 0.82}])
      '81.0 ± 12.7'
    """

    def text(records: Sequence[Mapping[str, Any]]) -> str:
        found = metrics.t_interval(np.array([r[column] for r in records], float))
        return mean_and_half_width(found.mean, found.half_width, digits=digits)

    return text


def number(column: str, spec: str = ".3g", *, of: Callable[[Any], Any] = np.mean) -> Column:
    """A column of numbers: their mean (or median, or maximum) over seeds.

    Example:
      >>> number("seconds", ".1f", of=np.median)([{"seconds": 1.0}, {"seconds": 2.0}])
      '1.5'
    """
    return lambda records: format(float(of(np.array([r[column] for r in records], float))), spec)


def ratio(column: str, to: str, spec: str = ".2f") -> Column:
    """A column of one number over another: the mean over seeds.

    Example:
      >>> ratio("cost", "cost_dense")([{"cost": 1.0, "cost_dense": 4.0}, {"cost": 2.0, "cost_dense": 4.0}])
      '0.38'
    """
    return lambda records: format(float(np.mean([r[column] / r[to] for r in records])), spec)


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
            found = [v for v in name.order if v in found] + [
                v for v in found if v not in name.order
            ]
        elif all(isinstance(v, int | float) for v in found):
            found = sorted(found)
        place[name.field] = {value: i for i, value in enumerate(found)}
    rows = dict.fromkeys(tuple(r[n.field] for n in names) for r in there)
    ordered = sorted(
        rows, key=lambda row: [place[n.field][v] for n, v in zip(names, row, strict=True)]
    )
    return [{n.field: v for n, v in zip(names, row, strict=True)} for row in ordered]


def _said(cell: Mapping[str, Any], names: Sequence[Name]) -> dict[str, str]:
    return {n.title or n.field: n.say(cell[n.field]) for n in names}


def table(
    records: Sequence[Mapping[str, Any]], names: Sequence[Name], columns: Mapping[str, Column]
) -> Any:
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
      >>> table(records, [Name("method")], {"gap": points("gap", digits=1)}).to_dict("records")
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
      good: 1 where more is better, -1 where less is; the first of equal ones has the mark.
      spec: how the number is written.
      scale: 100 shows shares in percent.

    Returns:
      A DataFrame of text.

    Example:
      >>> records = [{"method": "rigl", "rate": r, "accuracy": a} for r, a in ((0.1, 0.53), (0.05, 0.49))]
      >>> wide_table(records, Name("method"), Name("rate"), "accuracy").to_dict("records")
      [{'method': 'rigl', '0.05': '49.0', '0.1': '53.0 *'}]
    """
    rows = []
    for cell in cells(records, [row]):
        mine = studies.chosen(records, **cell)
        best = max(mine, key=lambda record: good * record[column])
        said = _said(cell, [row])
        for place in cells(records, [along]):
            for record in studies.chosen(mine, **place):
                text = format(scale * record[column], spec) + (" *" if record is best else "")
                said[along.say(place[along.field])] = text
        rows.append(said)
    return need("pandas").DataFrame(rows).fillna("")


def lines(
    records: Sequence[Mapping[str, Any]],
    column: str,
    *,
    along: str,
    of: str = "method",
    scale: float | int = 100,
) -> dict[str, dict[Any, tuple[float, float]]]:
    """Means and half-widths over seeds, by method and level: the lines of a :class:`jaxfair.report.figures.Panel`.

    Args:
      records: of a run, those of one panel.
      column: a number.
      along: the field whose values are the levels.
      of: the field that holds the method.
      scale: 100 shows shares as points.

    Example:
      >>> lines([{"method": "nft", "sparsity": 0.9, "seed": s, "gap": 0.02} for s in range(2)], "gap", along="sparsity")
      {'nft': {0.9: (2.0, 0.0)}}
    """
    found: dict[str, dict[Any, tuple[float, float]]] = {}
    for method in studies.values(records, of):
        mine = studies.chosen(records, **{of: method})
        found[method] = {}
        for level in studies.values(mine, along):
            interval = studies.over_seeds(mine, column, **{along: level})
            found[method][level] = scale * float(interval.mean), scale * float(interval.half_width)
    return found


def differences(
    found: Sequence[studies.Beside],
    *,
    rows: str,
    columns: str,
    methods: Sequence[str],
    along: str,
    say: Callable[[Any], str] = str,
    of: str = "method",
    scale: float | int = 100,
) -> Any:
    """A figure of methods beside their peer: :func:`jaxfair.report.figures.differences`, a panel per level.

    Args:
      found: of :func:`jaxfair.study.beside`.
      rows: the field of a cell whose values are the rows of panels.
      columns: the field whose values are the panels of a row.
      methods: from top to bottom.
      along: what the differences are.
      say: a value of ``columns`` as text.
      of: the field that holds the method.
      scale: 100 shows shares as points.

    Returns:
      A ``matplotlib.figure.Figure``.

    Example:
      >>> records = [{"data": "digits", "method": m, "sparsity": 0.9, "seed": s, "accuracy": 0.8, "gap": g * s}
      ...            for m, g in (("nft", 0.04), ("ceag", 0.01)) for s in range(2)]
      >>> found = studies.beside(records, "nft", "gap", "accuracy", at=("data", "sparsity"))
      >>> figure = differences(found, rows="data", columns="sparsity", methods=["ceag"], along="gap (points)")
      >>> figure.axes[0].get_title(loc="left")
      'digits: 0.9'
    """
    panels: dict[Any, dict[Any, dict[str, figures.Difference]]] = {}
    for one in found:
        row = panels.setdefault(one.cell[rows], {})
        row.setdefault(one.cell[columns], {})[one.cell[of]] = figures.Difference(
            scale * float(one.difference.mean), scale * float(one.difference.half_width), one.side
        )
    places = sorted({one.cell[columns] for one in found})
    grid = [
        [figures.Compared(row.get(at, {}), f"{name}: {say(at)}") for at in places]
        for name, row in panels.items()
    ]
    return figures.differences(grid, methods=methods, along=along)
