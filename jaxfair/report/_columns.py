"""Columns of a table: what is said of the records of one cell, one per seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair import metrics
from jaxfair import study as studies
from jaxfair.report.tables import NOTHING, mean_and_half_width

#: Of the records of one cell, a row's text.
Column = Callable[[Sequence[Mapping[str, Any]]], str]


def numbers(records: Sequence[Mapping[str, Any]], column: str) -> np.ndarray:
    """``[R]`` numbers of the records.

    Raises:
      ValueError: where a record lacks the column.

    Example:
      >>> numbers([{"method": "nft", "gap": 0.02}], "gap").tolist()
      [0.02]
    """
    for record in records:
        if column not in record:
            # What names a record stands before what was found.
            said = ", ".join(f"{name}={value!r}" for name, value in list(record.items())[:8])
            raise ValueError(f"no column {column!r} in the record that begins with {said or 'nothing'}")
    return np.array([r[column] for r in records], float)


def points(column: str, *, digits: int = 2, lacking: str | None = None) -> Column:
    """A column of shares: mean and half-width of the 95 % t interval over seeds, in points.

    Args:
      column: of the records.
      digits: after the decimal point.
      lacking: what stands where no record has a finite value; records that have none are left out then. Without it,
        every record must have the column, and one nan makes a nan.

    Example:
      >>> points("accuracy", digits=1)([{"accuracy": 0.8}, {"accuracy": 0.82}])
      '81.0 ± 12.7'
      >>> points("accuracy", lacking="–")([{"gap": 0.1}])
      '–'
    """

    def text(records: Sequence[Mapping[str, Any]]) -> str:
        if lacking is not None:
            records = [r for r in records if np.isfinite(r.get(column, np.nan))]
            if not records:
                return lacking
        found = metrics.t_interval(numbers(records, column))
        return mean_and_half_width(found.mean, found.half_width, digits=digits)

    return text


def counted(column: str) -> Column:
    """A column of yes and no: in how many of the records that have it something holds.

    Example:
      >>> counted("met")([{"met": True}, {"met": False}, {}])
      '1 of 2'
    """

    def text(records: Sequence[Mapping[str, Any]]) -> str:
        found = [bool(r[column]) for r in records if column in r]
        return f"{sum(found)} of {len(found)}" if found else "–"

    return text


def number(column: str, spec: str = ".3g", *, of: Callable[[Any], Any] = np.mean) -> Column:
    """A column of numbers: their mean (or median, or maximum) over seeds.

    Example:
      >>> number("seconds", ".1f", of=np.median)([{"seconds": 1.0}, {"seconds": 2.0}])
      '1.5'
    """
    return lambda records: format(float(of(numbers(records, column))), spec)


def quartiles(column: str, spec: str = ".3g") -> Column:
    """A column of numbers: their median over seeds, and the quartiles; infinite where seeds that diverged have a part.

    A seed that is nan has diverged, too.

    Example:
      >>> quartiles("distance")([{"distance": d} for d in (1.0, 2.0, 3.0, 4.0, float("inf"))])
      '3 (2 to 4)'
    """

    def text(records: Sequence[Mapping[str, Any]]) -> str:
        values = numbers(records, column)
        values = np.minimum(np.where(np.isnan(values), np.inf, values), 1e300)
        low, middle, high = (format(v, spec) if v < 1e200 else "∞" for v in np.quantile(values, [0.25, 0.5, 0.75]))
        return f"{middle} ({low} to {high})"

    return text


def ratio(column: str, ours: str, theirs: str, *, of: str = "method", over: Sequence[str] = ("seed",)) -> Column:
    """A column of logarithms: one method's number divided by another's, on the same seeds.

    Args:
      column: a logarithm.
      ours: a method.
      theirs: another one.
      of: the field that holds the method.
      over: the fields that make a seed.

    Returns:
      The column: the geometric mean of the ratios with its 95 % t interval; a dash where they have less than two seeds
      in common, or a number is not finite.

    Example:
      >>> records = [{"method": m, "seed": s, "log_time": t + 0.1 * s}
      ...            for m, t in (("old", 0.7), ("new", 0.0)) for s in range(3)]
      >>> ratio("log_time", "new", "old")(records)
      '0.497 [0.497, 0.497]'
    """

    def text(records: Sequence[Mapping[str, Any]]) -> str:
        mine = [r for r in records if r.get(of) in (ours, theirs)]
        if not np.isfinite(numbers(mine, column)).all():
            return NOTHING
        found = studies.paired(mine, column, {of: ours}, {of: theirs}, over=over)
        if found is None:
            return NOTHING
        low, mean, high = np.exp([found.low, found.mean, found.high])
        return f"{mean:.3g} [{low:.3g}, {high:.3g}]"

    return text


def quotient(column: str, to: str, spec: str = ".2f") -> Column:
    """A column of one number over another: the mean over seeds.

    Example:
      >>> quotient("cost", "cost_dense")([{"cost": 1.0, "cost_dense": 4.0}, {"cost": 2.0, "cost_dense": 4.0}])
      '0.38'
    """
    return lambda records: format(float(np.mean(numbers(records, column) / numbers(records, to))), spec)
