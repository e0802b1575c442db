"""The words and tables of an audit: which groups were harmed, how sure that is, who the people are.

Everything is made from plain arrays and from what :mod:`jaxfair.metrics` infers of them. Gaps are
shares inside and points (hundredths) in what is shown.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Int, Shaped

from jaxfair.metrics import (
    CANNOT_TELL,
    HOLDS,
    VIOLATED,
    GapInference,
    Rates,
    verdict,
)
from jaxfair.report import Table, Verdict, need, points

#: Of a table without a value.
NOTHING = "–"
#: The verdict of a group that has no bound.
NO_BOUND = "no bound"


def group_frame(
    names: Sequence[str],
    inference: GapInference,
    *,
    bound: ArrayLike,
    changes: Rates | None = None,
    constrained: Shaped[ArrayLike, "G"] | None = None,
) -> Any:
    """What is known about each group, in numbers, the most harmed first.

    Args:
      names: ``[G]`` of the groups.
      inference: of :func:`jaxfair.metrics.paired_bootstrap`.
      bound: the tolerance on the excess gap, a share.
      changes: of the rates, sparse minus dense (:func:`jaxfair.metrics.rate_changes`).
      constrained: ``[G]`` bool, which groups have a bound; all by default. The verdict of the others is "no bound".

    Returns:
      A DataFrame with a row per group that has people, and the columns ``group``, ``people``,
      ``changed``, ``excess_gap``, ``low``, ``high`` (simultaneous), ``p_value`` (that the excess
      gap is 0), ``verdict``, ``smallest_visible_gap``, and with ``changes`` also
      ``true_positive_change``, ``false_positive_change``, ``selection_change``. Gaps and changes
      are shares.

    Example:
      >>> import jax
      >>> from jaxfair import metrics
      >>> lost = metrics.Changes(np.array([-1.0, 0.0, 1.0]), np.array([[20, 2960, 20], [5, 900, 95]]))
      >>> found = metrics.infer(lost, key=jax.random.key(0))
      >>> frame = group_frame(["men", "women"], found, bound=0.01)
      >>> frame[["group", "people", "verdict"]].to_dict("records")
      [{'group': 'women', 'people': 1000, 'verdict': 'violated'},
       {'group': 'men', 'people': 3000, 'verdict': 'holds'}]
    """
    seen = inference.size > 0
    columns = {
        "group": [str(name) for name in names],
        "people": inference.size,
        "changed": inference.changed,
        "excess_gap": inference.psi,
        "low": inference.low,
        "high": inference.high,
        "p_value": inference.p_value,
        "verdict": np.where(
            True if constrained is None else np.asarray(constrained, bool),
            verdict(inference.low, inference.high, np.asarray(bound, float).item()),
            NO_BOUND,
        ),
        "smallest_visible_gap": inference.visible,
    }
    if changes is not None:
        for name, values in changes._asdict().items():
            columns[f"{name}_change"] = np.asarray(values, float)
    frame = need("pandas").DataFrame(columns)[seen]
    return frame.sort_values("excess_gap", ascending=False, kind="stable", ignore_index=True)


def group_table(frame: Any, *, caption: str, worst: int | None = None) -> Table:
    """The frame of :func:`group_frame` as a table to be read, in points.

    Args:
      frame: of :func:`group_frame`.
      caption: what it shows.
      worst: how many of the most harmed groups to show; all by default.

    Returns:
      A :class:`jaxfair.report.Table`, whose note explains the columns.

    Example:
      >>> import jax
      >>> from jaxfair import metrics
      >>> lost = metrics.Changes(np.array([-1.0, 0.0, 1.0]), np.array([[20, 2960, 20], [5, 900, 95]]))
      >>> frame = group_frame(["men", "women"], metrics.infer(lost, key=jax.random.key(0)), bound=0.01)
      >>> table = group_table(frame, caption="Groups harmed most.", worst=1)
      >>> [f"{column}: {cell}" for column, cell in zip(table.columns, table.rows[0], strict=True)][:6]
      ['group: women', 'people: 1,000', 'people changed: 100', 'excess gap: +6.75', 'interval: ...',
       'verdict: violated']
    """
    rows = []
    for row in frame.head(len(frame) if worst is None else worst).to_dict("records"):
        p = row["p_value"]
        rows.append(
            [
                row["group"],
                f"{row['people']:,}",
                f"{row['changed']:,}",
                points(row["excess_gap"], sign=True),
                f"{points(row['low'], sign=True)} to {points(row['high'], sign=True)}",
                Verdict(state=row["verdict"]),
                points(row["smallest_visible_gap"]),
                "< 0.001" if p < 0.001 else f"{p:.3f}",
                *(
                    points(row[name], sign=True)
                    for name in (
                        "true_positive_change",
                        "false_positive_change",
                        "selection_change",
                    )
                    if name in row
                ),
            ]
        )
    columns = [
        "group",
        "people",
        "people changed",
        "excess gap",
        "interval",
        "verdict",
        "smallest visible gap",
        "p",
    ]
    rates = {
        "true_positive_change": "TPR",
        "false_positive_change": "FPR",
        "selection_change": "selected",
    }
    columns += [text for name, text in rates.items() if name in frame]
    note = (
        "In points. Excess gap: accuracy lost beyond the average loss. Interval: holds for all "
        "groups together. Smallest visible gap: what this many people could just show; infinite "
        "where they could show none. p: that there is no excess gap, by the rule that gives the "
        "interval, not adjusted for the number of groups."
    )
    if len(columns) > 8:
        note += " TPR, FPR, selected: change of the true-positive, false-positive and selection rate."
    return Table(columns=columns, rows=rows, caption=caption, note=note)


def say_verdicts(frame: Any, *, method: str, split: str, bound: ArrayLike) -> Verdict:
    """One line that says whether the bound holds.

    Args:
      frame: of :func:`group_frame`.
      method: what was audited.
      split: on whom, such as "test".
      bound: the tolerance, a share.

    Returns:
      A :class:`jaxfair.report.Verdict`: violated if a group certainly violates it, holds if every
      group certainly keeps it, open otherwise. Groups that have no bound are not counted.

    Example:
      >>> import pandas as pd
      >>> frame = pd.DataFrame({"group": ["women", "men"], "people": [1000, 3000],
      ...     "excess_gap": [0.07, -0.02], "low": [0.05, -0.03], "high": [0.09, -0.01],
      ...     "verdict": ["violated", "holds"]})
      >>> print(say_verdicts(frame, method="nft", split="test", bound=0.01))
      nft, test: the bound of 1 point is violated for 1 of 2 groups and holds for 1. Worst: women
      (1,000 people), +7.00 points, interval +5.00 to +9.00.
    """
    people, frame = len(frame), frame[frame["verdict"] != NO_BOUND]
    counts = frame["verdict"].value_counts().to_dict()
    total, bad, open_ = len(frame), counts.get(VIOLATED, 0), counts.get(CANNOT_TELL, 0)
    number = f"{100 * np.asarray(bound, float).item():g}"
    what = f"the bound of {number} point{'' if number == '1' else 's'}"
    if total == 0:
        lack = "that has people has a bound" if people else "has people"
        return Verdict(state=CANNOT_TELL, text=f"{method}, {split}: no group {lack}.")
    if bad == 0 and open_ == 0:
        text = f"{method}, {split}: {what} holds for {'all ' if total > 1 else 'the '}{_groups(total)}."
        state = HOLDS
    else:
        parts = [f"is violated for {bad} of {_groups(total)}"] if bad else []
        if counts.get(HOLDS, 0):
            parts.append(f"holds for {counts[HOLDS]}" + ("" if bad else f" of {_groups(total)}"))
        if open_:
            parts.append(f"cannot be judged for {open_}" + ("" if parts else f" of {_groups(total)}"))
        text = f"{method}, {split}: {what} " + _and(parts) + "."
        state = VIOLATED if bad else CANNOT_TELL
    worst = frame.loc[frame["excess_gap"].idxmax()]
    text += (
        f" Worst: {worst['group']} ({worst['people']:,} people), "
        f"{points(worst['excess_gap'], sign=True)} points, interval "
        f"{points(worst['low'], sign=True)} to {points(worst['high'], sign=True)}."
    )
    if free := people - total:
        text += f" {_groups(free)} without a bound {'is' if free == 1 else 'are'} not judged."
    return Verdict(state=state, text=text)


def people_changed(
    index: Int[ArrayLike, "N"],
    dense_correct: Shaped[ArrayLike, "N"],
    sparse_correct: Shaped[ArrayLike, "N"],
    group: Int[ArrayLike, "N"],
    names: Sequence[str],
    *,
    first: int = 50,
    where: str = "",
) -> Table:
    """Who became wrong and who became right, by row of the data set.

    Args:
      index: ``[N]`` rows of the people in their split.
      dense_correct: ``[N]`` booleans.
      sparse_correct: ``[N]`` booleans.
      group: ``[N]`` integers; people outside ``[0, G)`` are left out.
      names: ``[G]`` of the groups.
      first: how many rows are listed per group; the counts are complete.
      where: the file that has all of them, named in the note.

    Returns:
      A :class:`jaxfair.report.Table` with a row per group in which somebody changed.

    Example:
      >>> table = people_changed(
      ...     np.array([7, 8, 9]), np.array([True, True, False]), np.array([False, True, True]),
      ...     np.array([0, 0, 1]), ["men", "women"])
      >>> [list(row) for row in table.rows]
      [['men', '1', '7', '0', '–'], ['women', '0', '–', '1', '9']]
    """
    index, group = np.asarray(index), np.asarray(group)
    dense, sparse = np.asarray(dense_correct, bool), np.asarray(sparse_correct, bool)

    def listed(rows):
        more = f" and {len(rows) - first:,} more" if len(rows) > first else ""
        return ", ".join(str(row) for row in rows[:first]) + more if len(rows) else NOTHING

    rows = []
    for g, name in enumerate(names):
        wrong = np.sort(index[(group == g) & dense & ~sparse])
        right = np.sort(index[(group == g) & ~dense & sparse])
        if len(wrong) + len(right):
            rows.append([str(name), f"{len(wrong):,}", listed(wrong), f"{len(right):,}", listed(right)])
    note = f"At most {first} rows are listed per cell."
    return Table(
        columns=["group", "became wrong", "rows", "became right", "rows"],
        rows=rows,
        caption="People whose prediction changed between right and wrong",
        note=f"{note} All of them: {where}." if where else note,
    )


def _groups(count: int) -> str:
    return f"{count} group{'' if count == 1 else 's'}"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
