"""What records say: values over seeds, and differences between what was made from the same seeds.

A *record* is a mapping of names to values; a run's are ``run.records``. A seed may be several fields, ``over=("split",
"seed")``, where the same seed means another thing on another split.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair import metrics

Records = Sequence[Mapping[str, Any]]


def chosen(records: Iterable[Mapping[str, Any]], **names: Any) -> list[Mapping[str, Any]]:
    """The records with these values, in their order.

    Example:
      >>> records = [{"method": "nft", "gap": 0.04}, {"method": "ceag", "gap": 0.01}]
      >>> chosen(records, method="ceag")
      [{'method': 'ceag', 'gap': 0.01}]
    """
    wanted = {name: _plain(value) for name, value in names.items()}
    return [r for r in records if all(n in r and _plain(r[n]) == v for n, v in wanted.items())]


def _plain(value: Any) -> Any:
    """A value as it is compared: a file has lists where there were tuples."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def values(records: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    """The different values of a field, in the order in which they come.

    Example:
      >>> values([{"method": "nft"}, {"method": "ceag"}, {"method": "nft"}], "method")
      ['nft', 'ceag']
    """
    return list({_plain(r[name]): r[name] for r in records if name in r}.values())


def by_seed(
    records: Iterable[Mapping[str, Any]],
    column: str,
    *,
    over: Sequence[str] = ("seed",),
    **names: Any,
) -> np.ndarray:
    """``[S]`` values of a column in the records with these names, in the order of their seeds.

    Args:
      records: of a run.
      column: a number.
      over: the fields that make a seed.
      **names: what the records have in common.

    Returns:
      Floats; empty where there is no such record.

    Raises:
      ValueError: where two records have the same seed, so that ``names`` does not name one cell; or one has no such
        column.

    Example:
      >>> records = [{"method": "nft", "seed": 1, "gap": 0.04}, {"method": "nft", "seed": 0, "gap": 0.03}]
      >>> by_seed(records, "gap", method="nft").tolist()
      [0.03, 0.04]
    """
    return np.array([v for _, v in sorted(_seeds(records, column, over, names).items())], float)


def _seeds(
    records: Iterable[Mapping[str, Any]], column: str, over: Sequence[str], names: Mapping[str, Any]
) -> dict[tuple[Any, ...], Any]:
    found: dict[tuple[Any, ...], Any] = {}
    for record in chosen(records, **names):
        seed = tuple(record[name] for name in over)
        if seed in found:
            raise ValueError(
                f"two records have {', '.join(over)} = {seed[0] if len(seed) == 1 else seed}: "
                f"{_said(names)} names more than one cell"
            )
        if column not in record:
            raise ValueError(f"the record of {_said(names)}, {', '.join(over)} = {seed[0]} has no {column!r}")
        found[seed] = record[column]
    return found


def _said(names: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in names.items()) or "no name"


def over_seeds(
    records: Iterable[Mapping[str, Any]],
    column: str,
    *,
    over: Sequence[str] = ("seed",),
    level: float = 0.95,
    **names: Any,
) -> metrics.Interval:
    """The mean of a column over seeds, with Student's t interval; see :func:`by_seed`.

    Example:
      >>> records = [{"seed": s, "gap": gap} for s, gap in enumerate((0.01, 0.02, 0.03))]
      >>> found = over_seeds(records, "gap")
      >>> print(f"{found.mean:.3f} ± {found.half_width:.3f}")
      0.020 ± 0.025
    """
    return metrics.t_interval(by_seed(records, column, over=over, **names), level=level)


def paired(
    records: Iterable[Mapping[str, Any]],
    column: str,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    over: Sequence[str] = ("seed",),
    level: float = 0.95,
) -> metrics.Interval | None:
    """The mean of a - b over the seeds that both have, with the interval of the paired differences.

    Args:
      records: of a run.
      column: a number.
      a: the names and values of a cell, without its seed.
      b: those of what it is compared with.
      over: the fields that make a seed.
      level: of the interval.

    Returns:
      The interval; None where both have less than two seeds in common: no spread can be had from one.

    Example:
      The second method has a seed less:

      >>> records = [{"method": "nft", "seed": s, "gap": 0.03 + 0.01 * s} for s in range(3)]
      >>> records += [{"method": "ceag", "seed": s, "gap": 0.01 + 0.01 * s} for s in range(2)]
      >>> found = paired(records, "gap", {"method": "ceag"}, {"method": "nft"})
      >>> found.mean.round(3).item(), found.seeds
      (-0.02, 2)
    """
    records = list(records)
    ours, theirs = (_seeds(records, column, over, names) for names in (a, b))
    both = sorted(set(ours) & set(theirs))
    if len(both) < 2:
        return None
    with np.errstate(invalid="ignore"):  # a method that diverged gives an interval of nan
        return metrics.paired_difference(
            np.array([ours[s] for s in both], float), np.array([theirs[s] for s in both], float), level=level
        )


def rank_correlation(
    records: Iterable[Mapping[str, Any]], a: str, b: str, *, of: str = "method", **names: Any
) -> tuple[float, int]:
    """Spearman's rank correlation of two columns over methods, each with its mean over seeds.

    Args:
      records: of a run.
      a: a number.
      b: another one.
      of: the field that holds the method.
      **names: what the records have in common.

    Returns:
      The correlation, nan where there is none, and the number of methods; one whose mean is not finite is left out.
      Means of few seeds are noisy, which draws it to 0.

    Example:
      >>> records = [{"method": m, "seed": 0, "accuracy": a, "gap": g}
      ...            for m, a, g in (("nft", 0.9, 0.01), ("ceag", 0.8, 0.02), ("set", 0.7, 0.05))]
      >>> rank_correlation(records, "accuracy", "gap")
      (-1.0, 3)
    """
    here = chosen(records, **names)
    means = np.array([
        [np.mean([r[column] for r in chosen(here, **{of: method})]) for column in (a, b)] for method in values(here, of)
    ]).reshape(-1, 2)  # fmt: skip
    means = means[np.isfinite(means).all(axis=1)]  # a method that diverged has no rank
    ranks = []
    for mean in means.T:
        # Ties share the middle of their ranks.
        below, same = mean[:, None] > mean, mean[:, None] == mean
        ranks.append(below.sum(1) + same.sum(1) / 2)
    centred = [rank - np.mean(rank) for rank in ranks] if len(means) else [np.zeros(0)] * 2
    norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return (float((centred[0] * centred[1]).sum()) / norm if norm > 0 else float("nan")), len(means)
