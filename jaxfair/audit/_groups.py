"""What is known of each group, in numbers: a row per group, and the tables that show them.

Everything is made from plain arrays and from what :mod:`jaxfair.metrics` infers of them. Gaps are
shares inside and points (hundredths) in what is shown.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxfair.files import visible
from jaxfair.metrics import CANNOT_TELL, GapInference, PredictionChanges, Rates, people_to_judge, verdict
from jaxfair.report import Table, Verdict, need, points, rounded, shorten

#: Of a table without a value.
NOTHING = "–"
#: How long a name may be on a page; the files have all of it.
LONG = 80
#: The verdict of a group that has no bound.
NO_BOUND = "no bound"
#: Shares of a group's predictions that a table may show.
MOVED = ("changed", "newly_wrong")


def group_rows(
    names: Sequence[str],
    inference: GapInference,
    *,
    bound: ArrayLike,
    changes: Rates | None = None,
    constrained: Shaped[ArrayLike, "G"] | None = None,
    right: Any = None,
    predictions: PredictionChanges | None = None,
) -> list[dict[str, Any]]:
    """:func:`group_frame` as plain dicts: it needs no optional package."""
    size, limit = np.asarray(inference.size), np.asarray(bound, float).item()
    seen = size > 0
    bounded = np.ones(len(size), bool) if constrained is None else np.asarray(constrained, bool)
    judged = verdict(inference.low, inference.high, limit)
    if seen.sum() < 2:
        judged = np.full(len(size), CANNOT_TELL)  # a group has no excess over itself
    judged = np.where(bounded, judged, NO_BOUND)
    columns = {
        "group": [visible(name) for name in names],
        "verdict": judged.tolist(),
        "people": size.tolist(),
        "excess_gap": np.asarray(inference.psi, float).tolist(),
        "low": np.asarray(inference.low, float).tolist(),
        "high": np.asarray(inference.high, float).tolist(),
        "p_value": np.asarray(inference.p_value, float).tolist(),
        "smallest_visible_gap": np.asarray(inference.visible, float).tolist(),
        "people_needed": np.where(judged == CANNOT_TELL, people_to_judge(inference, limit), np.nan).tolist(),
    }
    if right is not None:
        for name, values in zip(("right_before", "right_after"), right, strict=True):
            columns[name] = np.asarray(values, float).tolist()
    if predictions is not None:
        for name in MOVED:
            columns[name] = np.asarray(getattr(predictions, name), float).tolist()
    if changes is not None:
        for name, values in changes._asdict().items():
            columns[f"{name}_change"] = np.asarray(values, float).tolist()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return sorted(rows, key=lambda row: -row["excess_gap"] if row["people"] else np.inf)


def group_frame(
    names: Sequence[str],
    inference: GapInference,
    *,
    bound: ArrayLike,
    changes: Rates | None = None,
    constrained: Shaped[ArrayLike, "G"] | None = None,
    right: Any = None,
    predictions: PredictionChanges | None = None,
) -> Any:
    """What is known about each group, in numbers, the most harmed first.

    Args:
      names: ``[G]`` of the groups.
      inference: of :func:`jaxfair.metrics.paired_bootstrap`.
      bound: the tolerance on the excess gap, a share.
      changes: of the rates, sparse minus dense (:func:`jaxfair.metrics.rate_changes`).
      constrained: ``[G]`` bool, which groups have a bound; all by default. The verdict of the others is "no bound".
      right: how many people of each group were right before and after, two arrays ``[G]``; means over seeds.
      predictions: whose prediction changed (:func:`jaxfair.metrics.prediction_changes`); means over seeds.

    Returns:
      A DataFrame with a row per group and the columns ``group``, ``verdict``, ``people``, ``excess_gap``, ``low``,
      ``high`` (simultaneous), ``p_value`` (that the excess gap is 0), ``smallest_visible_gap``, ``people_needed`` (to
      judge one that cannot be judged; nan where no number would do), with ``right`` also ``right_before`` and
      ``right_after``, with ``predictions`` ``changed`` and ``newly_wrong``, and with ``changes``
      ``true_positive_change``, ``false_positive_change``, ``selection_change``. Gaps and changes are shares. A group
      without people comes last, is nan, and cannot be judged; nor can one that is alone, for nobody is there to compare
      it with.

    Example:
      >>> import jax
      >>> from jaxfair import metrics
      >>> lost = metrics.Changes(np.array([-1.0, 0.0, 1.0]), np.array([[20, 2960, 20], [5, 900, 95], [0, 0, 0]]))
      >>> found = metrics.infer(lost, key=jax.random.key(0))
      >>> frame = group_frame(["men", "women", "other"], found, bound=0.01)
      >>> frame[["group", "people", "verdict"]].to_dict("records")
      [{'group': 'women', 'people': 1000, 'verdict': 'violated'},
       {'group': 'men', 'people': 3000, 'verdict': 'holds'},
       {'group': 'other', 'people': 0, 'verdict': 'cannot tell'}]
    """
    more: dict[str, Any] = {"changes": changes, "constrained": constrained, "right": right, "predictions": predictions}
    rows = group_rows(names, inference, bound=bound, **more)
    return need("pandas").DataFrame(rows)


def records(frame: Any) -> list[dict[str, Any]]:
    """The rows of a frame, or of a list of them."""
    return list(frame) if isinstance(frame, Sequence) else frame.to_dict("records")


def group_table(frame: Any, *, caption: str, worst: int | None = None, positive: str = "") -> Table:
    """The frame of :func:`group_frame` as a table to be read, in people and in points.

    Args:
      frame: of :func:`group_frame`.
      caption: what it shows.
      worst: how many of the most harmed groups to show; all by default.
      positive: the name of the class that the rates are of.

    Returns:
      A :class:`jaxfair.report.Table`, whose note explains the columns.

    Example:
      >>> import jax
      >>> from jaxfair import metrics
      >>> lost = metrics.Changes(np.array([-1.0, 0.0, 1.0]), np.array([[20, 2960, 20], [5, 900, 95]]))
      >>> frame = group_frame(["men", "women"], metrics.infer(lost, key=jax.random.key(0)), bound=0.01,
      ...                     right=([2900, 900], [2900, 810]))
      >>> table = group_table(frame, caption="Groups harmed most.", worst=1)
      >>> [f"{column}: {cell}" for column, cell in zip(table.columns, table.rows[0], strict=True)][:6]
      ['group: women', 'verdict: violated', 'people: 1,000', 'right before: 900 (90.0 %)',
       'right after: 810 (81.0 %)', 'excess gap: +6.75']
    """
    shown = records(frame)
    rights = [name for name in ("right_before", "right_after") if shown and name in shown[0]]
    moved = [name for name in MOVED if shown and name in shown[0]]
    rates = {"true_positive_change": "TPR", "false_positive_change": "FPR"}
    rates = {name: text for name, text in rates.items() if shown and name in shown[0]}
    rows = []
    for row in shown[:worst]:
        p, needed = row["p_value"], row.get("people_needed", np.nan)
        rows.append(
            [
                shorten(row["group"], LONG),
                Verdict(state=row["verdict"]),
                f"{row['people']:,}",
                *(of_people(row[name], row["people"]) for name in rights),
                *(percent(row[name]) for name in moved),
                points(row["excess_gap"], sign=True),
                between(row),
                points(row["smallest_visible_gap"]),
                NOTHING if np.isnan(needed) else f"{rounded(needed):,}",
                NOTHING if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
                *(points(row[name], sign=True) for name in rates),
            ]
        )
    columns = ["group", "verdict", "people", *(name.replace("_", " ") for name in rights + moved), "excess gap"]
    columns += ["interval", "smallest visible gap", "people needed", "p", *rates.values()]
    note = (
        "Gaps in points. Excess gap: accuracy lost beyond the average loss. Interval: holds for all groups together. "
        "Smallest visible gap: what this many people could just show; infinite where they could show none. People "
        "needed: to judge a group that cannot be judged. p: that there is no excess gap, by the rule that gives the "
        "interval, not adjusted for the number of groups."
    )
    if moved:
        note = "Changed: predicted another class than before; newly wrong: and right before. " + note
    note = "Right: how many people, the mean over seeds. " * bool(rights) + note
    if rates:
        of = positive and f" of {positive}"
        note += f" TPR and FPR: change of the true-positive and of the false-positive rate{of}."
    return Table(columns=columns, rows=rows, caption=caption, note=note)


def between(row: dict[str, Any]) -> str:
    """The interval of a row, in points; a dash where nobody is."""
    if np.isnan(row["low"]) or np.isnan(row["high"]):
        return NOTHING
    return f"{points(row['low'], sign=True)} to {points(row['high'], sign=True)}"


def percent(share: float) -> str:
    """A share with a digit after the point; a dash where nobody is.

    Example:
      >>> percent(0.0412), percent(float("nan"))
      ('4.1 %', '–')
    """
    return NOTHING if np.isnan(share) else f"{100 * share:.1f} %"


def of_people(count: float | int, people: int) -> str:
    """How many of some people, as a number and a share.

    Example:
      >>> of_people(612.2, 1000)
      '612 (61.2 %)'

      Of a few the mean over seeds is not rounded to what would be another share:

      >>> of_people(0.5, 1)
      '0.5 (50.0 %)'
    """
    whole = people >= 100 or abs(count - round(count)) < 0.05
    return f"{count:,.{0 if whole else 1}f} ({100 * count / people:.1f} %)" if people else NOTHING
