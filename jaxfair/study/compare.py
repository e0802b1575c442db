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
    return [r for r in records if all(name in r and r[name] == v for name, v in names.items())]


def values(records: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    """The different values of a field, in the order in which they come.

    Example:
      >>> values([{"method": "nft"}, {"method": "ceag"}, {"method": "nft"}], "method")
      ['nft', 'ceag']
    """
    return list(dict.fromkeys(r[name] for r in records if name in r))


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
      ValueError: where two records have the same seed: ``names`` does not name one cell.

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
            said = ", ".join(f"{name}={value!r}" for name, value in names.items())
            raise ValueError(
                f"two records have {', '.join(over)} = {seed[0] if len(seed) == 1 else seed}: "
                f"{said or 'no name'} names more than one cell"
            )
        found[seed] = record[column]
    return found


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
    return metrics.paired_difference(
        np.array([ours[s] for s in both], float),
        np.array([theirs[s] for s in both], float),
        level=level,
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
      The correlation, nan where there is none, and the number of methods. Means of few seeds are noisy, which draws it
      to 0.

    Example:
      >>> records = [{"method": m, "seed": 0, "accuracy": a, "gap": g}
      ...            for m, a, g in (("nft", 0.9, 0.01), ("ceag", 0.8, 0.02), ("set", 0.7, 0.05))]
      >>> rank_correlation(records, "accuracy", "gap")
      (-1.0, 3)
    """
    here = chosen(records, **names)
    methods = values(here, of)
    ranks = []
    for column in (a, b):
        means = np.array([np.mean([r[column] for r in chosen(here, **{of: m})]) for m in methods])
        # Ties share the middle of their ranks.
        below, same = means[:, None] > means, means[:, None] == means
        ranks.append(below.sum(1) + same.sum(1) / 2)
    centred = [rank - rank.mean() for rank in ranks]
    norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return (float((centred[0] * centred[1]).sum()) / norm if norm > 0 else float("nan")), len(methods)
