"""Whether networks are as often right as they say they are, of each group, before and after."""

from typing import Any

import jax
import numpy as np

from jaxfair import metrics, report
from jaxfair.audit._findings import Findings
from jaxfair.audit._groups import LONG, NOTHING

#: How many groups a table shows.
SHOWN = 20


def moved(found: Findings, name: str) -> metrics.CalibrationChanges | None:
    """Calibration errors on the judged split, of the first network that is sound; None where nobody said how sure.

    One network, not their mean: a mean of networks is a model that nobody uses, and calibrated otherwise.
    """
    split, ok = found.judged, np.flatnonzero(found.ok(name))
    sides = [found.before, found.of(name)]
    if not len(ok) or any(split not in side.confidence for side in sides):
        return None
    group, seed = np.asarray(found.people[split].group), int(ok[0])
    (sure, right), (surer, righter) = (
        (np.asarray(side.confidence[split])[seed], found.correct(name_of, split)[seed])
        for name_of, side in zip((found.name_before, name), sides, strict=True)
    )
    changes = metrics.calibration_changes
    return changes(sure, right, surer, righter, group, found.num_groups, key=jax.random.key(0), resamples=500)


def calibrated(found: Findings) -> list[report.Section]:
    """A section with a table for each variant that the details show; none where only classes are known."""
    tables = [_table(found, name, one) for name in found.detailed if (one := moved(found, name)) is not None]
    if not tables:
        return []
    text = (
        "A network that says 90 % should be right nine times in ten. The error is how far it is from that, in points, "
        "with what chance adds to it taken off: a small group would look worse by chance alone. The intervals hold for "
        "all groups of a table together; a group of fewer than ten people has none. Only how sure a network is of what "
        "it predicts is looked at."
    )
    return [report.Section(title="How sure it is", paragraphs=[text], blocks=tables)]


def _table(found: Findings, name: str, one: metrics.CalibrationChanges) -> report.Table:
    # Those first of whom most can be said: the end of the interval that is nearest to no change.
    sure = np.where(one.size >= 10, np.nan_to_num(one.low, nan=-1.0), -1.0)
    order = [int(g) for g in np.lexsort((-np.nan_to_num(one.change, nan=-1.0), -sure)) if one.size[g]]
    networks = " (the first network)" if len(found.before.ok) > 1 else ""
    more = f"; {SHOWN} of {len(order)} groups" if len(order) > SHOWN else ""
    return report.Table(
        columns=["group", "people", "error before", "after", "change", "interval"],
        rows=[_row(found, one, g) for g in order[:SHOWN]],
        caption=f"Calibration by group: {found.titled(name)}{networks}, on {found.judged}{more}.",
        note="Calibration error of the predicted class, root of the mean square over bins of equal size, debiased; "
        "95 % bootstrap intervals over people.",
    )


def _row(found: Findings, one: metrics.CalibrationChanges, g: int) -> list[Any]:
    few = one.size[g] < 10
    between = f"{report.points(one.low[g], sign=True)} to {report.points(one.high[g], sign=True)}"
    return [
        report.shorten(found.group_names[g], LONG),
        f"{int(one.size[g]):,}",
        report.points(one.before[g]),
        report.points(one.after[g]),
        report.points(one.change[g], sign=True),
        NOTHING if few else between,
    ]
