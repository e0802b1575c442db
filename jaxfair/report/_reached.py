"""How long each method takes until it is where the best of some others ended."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair import study
from jaxfair.report._extra import need


def reached(
    records: Sequence[Mapping[str, Any]],
    *,
    at: Sequence[str],
    targets: Collection[str],
    methods: Collection[str],
    slack: float = 0.0,
    of: str = "method",
) -> Any:
    """When accuracy and gap are those at which the best of the methods in ``targets`` ended: a row per method.

    The best is the one whose mean accuracy less its mean gap is largest at the end, and its means, give or take the
    slack, are the target. What counts is the first time: a run that leaves again was there. A run that never gets there
    is counted as such, and its time is longer than any.

    Args:
      records: each with a ``trail``: lists of time, accuracy, gap and zeros, as shares, from first to last. A network
        that is less sparse than the target is not yet there, whatever it is right about.
      at: fields in whose values the comparisons are made.
      targets: methods one of which sets the target.
      methods: those that are to reach it; the one that sets it stands first.
      slack: how far from the target is near enough, a share.
      of: the field that holds the method.

    Returns:
      A ``pandas.DataFrame``: method, how many runs reached it, the median time of all, and how long they ran.

    Example:
      >>> records = [
      ...     {"data": "mine", "method": "late", "seed": 0, "trail": [[0, 0.5, 0.2, 0.9], [100, 0.8, 0.1, 0.9]]},
      ...     {"data": "mine", "method": "soon", "seed": 0, "trail": [[0, 0.9, 0.0, 0.0], [10, 0.9, 0.1, 0.9]]}]
      >>> reached(records, at=["data"], targets=["late"], methods=["soon"])[["method", "median time"]].values.tolist()
      [['late', '100'], ['soon', '10']]
    """
    pd, rows = need("pandas"), []
    for shared in study.grid(**{name: study.values(records, name) for name in at}):
        mine = study.chosen(records, **shared)
        ends = {m: study.chosen(mine, **{of: m}) for m in study.values(mine, of)}
        last = {m: np.mean([r["trail"][-1][1:] for r in there], axis=0) for m, there in ends.items()}
        setting = [m for m in ends if m in targets]
        if not setting:
            continue
        best = max(setting, key=lambda m: last[m][0] - last[m][1])
        accuracy, gap, zeros = last[best]
        for method in (best, *(m for m in ends if m in methods and m != best)):
            firsts = [
                next(
                    (
                        t
                        for t, a, g, z in r["trail"]
                        if a >= accuracy - slack and g <= gap + slack and z >= zeros - 1e-3
                    ),
                    np.inf,
                )
                for r in ends[method]
            ]
            median = np.median(firsts)
            rows.append({
                **shared, of: method, "reached": f"{np.isfinite(firsts).sum()} of {len(firsts)}",
                "median time": f"{median:,.0f}" if np.isfinite(median) else "never",
                "of": f"{ends[method][0]['trail'][-1][0]:,}",
            })  # fmt: skip
    return pd.DataFrame(rows)
