"""Verdicts in words: who is violated, and who cannot be judged and how many people that would take."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from jaxfair.audit._groups import NO_BOUND, between, records
from jaxfair.metrics import CANNOT_TELL, HOLDS, VIOLATED
from jaxfair.report import Verdict, points, rounded, shorten, who

#: How many groups are named in a sentence; the table has all of them.
NAMED = 3
#: How long the name of a group may be in a sentence.
LONG = 60


def in_words(share: float) -> str:
    """In words: ``1 point``, ``0.5 points``.

    Example:
      >>> in_words(0.01), in_words(0.005)
      ('1 point', '0.5 points')
    """
    number = f"{100 * share:g}"
    return f"{number} point{'' if number == '1' else 's'}"


def count_groups(count: int) -> str:
    """``1 group``, ``2 groups``."""
    return f"{count} group{'' if count == 1 else 's'}"


def state_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The verdict on all groups that have a bound: violated if one is, holds if all do, open otherwise.

    Example:
      >>> state_of([{"verdict": "holds", "people": 9}, {"verdict": "cannot tell", "people": 0}])
      'cannot tell'
    """
    bounded = [row["verdict"] for row in rows if row["verdict"] != NO_BOUND]
    if sum(row["people"] > 0 for row in rows) < 2 or not bounded:
        return CANNOT_TELL
    return VIOLATED if VIOLATED in bounded else CANNOT_TELL if CANNOT_TELL in bounded else HOLDS


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The groups that have a bound: violated ones first, then those that cannot be judged, then those that hold.

    Among those violated or held the largest gap comes first; among the open ones the end of the interval, which is
    what cannot be ruled out, and who is not there comes last.
    """
    kinds = {
        kind: [row for row in rows if row["verdict"] == kind and row["people"]]
        for kind in (VIOLATED, CANNOT_TELL, HOLDS)
    }
    found = []
    for kind, group in kinds.items():
        end = "high" if kind == CANNOT_TELL else "excess_gap"
        found += sorted(group, key=lambda row, end=end: -row[end])
    return found + [row for row in rows if row["verdict"] == CANNOT_TELL and not row["people"]]


def say_rows(rows: Sequence[Mapping[str, Any]], bound: float) -> str:
    """What the verdicts say of a bound, without the method's name; a sentence or two, or three."""
    people, order = len(rows), ranked(rows)
    total, what = len(order), f"the bound of {in_words(bound)}"
    seen = [row for row in rows if row["people"]]
    if total == 0:
        return f"no group {'that has people has a bound' if people else 'has people'}."
    if len(seen) == 1:
        return f"{_named(seen[0])} is the only group that has people, with nobody to compare it with: no verdict."
    by = {kind: [row for row in order if row["verdict"] == kind] for kind in (VIOLATED, CANNOT_TELL, HOLDS)}
    bad, open_, good = (by[kind] for kind in (VIOLATED, CANNOT_TELL, HOLDS))
    parts = [f"is violated for {len(bad)} of {count_groups(total)}"] if bad else []
    if good:
        parts.append(f"holds for {len(good)}" + ("" if bad else f" of {count_groups(total)}"))
    if open_:
        parts.append(f"cannot be judged for {len(open_)} of {total if parts else count_groups(total)}")
    if len(good) == total:
        parts = [f"holds for {'all ' if total > 1 else 'the '}{count_groups(total)}"]
    text, few = f"{what} {joined(parts)}", _listed([_few(row) for row in open_])
    if bad:
        text += f". Violated: {_listed([_gap(row) for row in bad])}." + (f" Cannot be judged: {few}." if few else "")
    else:
        text += f": {few}." if few else f". Nearest to it: {_gap(order[0])}."
    if free := people - total:
        text += f" {count_groups(free)} without a bound {'is' if free == 1 else 'are'} not judged."
    return text


def say_verdicts(frame: Any, *, method: str, split: str, bound: ArrayLike) -> Verdict:
    """One line that says whether the bound holds, for whom not, and who cannot be judged.

    Args:
      frame: of :func:`group_frame`.
      method: what was audited.
      split: on whom, such as "test".
      bound: the tolerance, a share.

    Returns:
      A :class:`jaxfair.report.Verdict`: violated if a group certainly violates it, holds if every group certainly
      keeps it, open otherwise. Groups that have no bound are not counted; one group alone is no verdict.

    Example:
      >>> import pandas as pd
      >>> frame = pd.DataFrame({"group": ["women", "men"], "people": [1000, 300], "people_needed": [float("nan"), 1153],
      ...     "excess_gap": [0.07, -0.02], "low": [0.05, -0.05], "high": [0.09, 0.02],
      ...     "verdict": ["violated", "cannot tell"]})
      >>> print(say_verdicts(frame, method="nft", split="test", bound=0.01))
      nft, test: the bound of 1 point is violated for 1 of 2 groups and cannot be judged for 1 of 2. Violated: women
      (1,000 people), +7.00 points, interval +5.00 to +9.00. Cannot be judged: men (300 people; about 1,200 would be
      needed).
    """
    rows, limit = records(frame), np.asarray(bound, float).item()
    return Verdict(state=state_of(rows), text=f"{method}, {split}: {say_rows(rows, limit)}")


def _named(row: Mapping[str, Any]) -> str:
    return shorten(row["group"], LONG)


def _gap(row: Mapping[str, Any]) -> str:
    gap = f"{points(row['excess_gap'], sign=True)} points, interval {between(dict(row))}"
    return f"{_named(row)} ({who(row['people'])}), {gap}"


def _few(row: Mapping[str, Any]) -> str:
    needed = row.get("people_needed", np.nan)
    how = "its gap lies at the bound" if np.isnan(needed) else f"about {rounded(needed):,} would be needed"
    return f"{_named(row)} ({who(row['people'])}; {how})"


def _listed(words: Sequence[str]) -> str:
    more = len(words) - NAMED
    return "; ".join(words[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def joined(parts: Sequence[str]) -> str:
    """Parts of a sentence: ``a, b and c``."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
