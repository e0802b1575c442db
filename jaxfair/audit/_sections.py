"""What an audit says, in words and blocks of a page: verdicts, who is harmed, layers, people, and the data."""

import dataclasses
from typing import Any

import numpy as np

from jaxfair import metrics, report
from jaxfair.audit._answer import blind, one_person
from jaxfair.audit._by_attribute import by_attribute
from jaxfair.audit._calibrated import calibrated
from jaxfair.audit._exemplars import Seen
from jaxfair.audit._findings import ACTIVE, Findings
from jaxfair.audit._groups import LONG, NO_BOUND, NOTHING, between, group_table, of_people
from jaxfair.audit._looked_at import section as looked_at
from jaxfair.audit._looked_at import seen as seen_of
from jaxfair.audit._measures import selected
from jaxfair.audit._tables import main_table, paired_table, worst_groups
from jaxfair.audit._verdicts import in_words, ranked, say_verdicts

#: How many groups a table of the page shows.
SHOWN = 20


def verdicts(found: Findings) -> list[report.Verdict]:
    """A line for each of the variants that the details show."""
    return [
        say_verdicts(found.rows[m], method=found.titled(m), split=found.judged, bound=found.tolerance)
        for m in found.detailed
    ]


def summary(found: Findings) -> list[str]:
    """What was compared, how good it was before, and what failed, in sentences."""
    seeds = len(found.before.ok)
    before = {s: found.measured[found.name_before, s].accuracy[found.before.ok] for s in found.people}
    said = ", ".join(f"{100 * accuracy.mean():.1f} % of {split}" for split, accuracy in before.items() if len(accuracy))
    lines = [
        f"{seeds} network{'' if seeds == 1 else 's'} before, right about {said or 'nobody: all failed'}, and "
        f"{', '.join(map(found.titled, found.after))}. "
        + (
            f"The question is whether any of {_bounded(found)} loses more accuracy than the average does, by more than "
            f"{in_words(found.tolerance)}."
            if found.bounded
            else "No group has a bound: gaps are measured, and nothing is judged."
        )
    ]
    return [*lines, *remarks(found)]


def remarks(found: Findings) -> list[str]:
    """What has to be said before anything else."""
    return [*idle(found), *failures(found), *unweighted(found), *unknown(found), *blind(found)]


def _bounded(found: Findings) -> str:
    if found.bounded == found.num_groups:
        return f"{found.num_groups} groups"
    return f"the {found.num_groups} groups, of which {found.bounded} {'has' if found.bounded == 1 else 'have'} a bound,"


def idle(found: Findings) -> list[str]:
    """A sentence where there is nothing to do; it stands once for the run, and on no row."""
    if found.active is not False:
        return []
    met = found.met(found.naive)
    return [
        f"The bound is inactive here: {found.titled(found.naive)} violates it in only {int((~met).sum())} of "
        f"{len(met)} seeds, and {100 * ACTIVE:g} % of them would have to. No claim is made about what was trained "
        "under a bound."
    ]


def failures(found: Findings) -> list[str]:
    """A sentence for each variant whose training failed, those before included."""
    lines = []
    for name in found.names:
        lost = int(np.sum(~np.asarray(found.of(name).ok)))
        if lost and not found.is_last(name):
            lines.append(
                f"Training of {found.titled(name)} failed in {lost} of {len(found.ok(name))} seeds, which are left out."
            )
    return lines


def unweighted(found: Findings) -> list[str]:
    """A sentence where training may have counted people otherwise than this page does."""
    if not found.weighted:
        return []
    return [
        f"People of {', '.join(found.weighted)} have weights, by which a bound is trained and judged: here everybody "
        "counts the same."
    ]


def unknown(found: Findings) -> list[str]:
    """A sentence for each split with people of whom no group is known."""
    lines = []
    for split, people in found.people.items():
        group = np.asarray(people.group)
        if count := int(np.sum((group < 0) | (group >= found.num_groups))):
            lines.append(
                f"The group of {report.who(count)} of {split} is unknown: they count in the accuracy, and in no gap."
            )
    return lines


def differences(found: Findings, name: str, peer: str) -> list[str]:
    """A sentence that compares two variants on the same seeds; none where they have none in common."""
    if name not in found.after or peer not in found.after or name == peer:
        return []
    ok = found.ok(name) & found.ok(peer)
    if not ok.any() or not found.bounded:
        return []
    first = found.first
    pairs = {
        f"the largest gap on {first}": [found.largest(v, first) for v in (name, peer)],
        f"the largest gap on {found.judged}": [found.largest(v, found.judged) for v in (name, peer)],
        f"the accuracy on {found.judged}": [
            found.measured[v, found.judged].accuracy for v in (name, peer)
        ],
    }  # fmt: skip
    on = {what: metrics.paired_difference(*(values[ok] for values in pair)) for what, pair in pairs.items()}
    words = [f"{what} by {report.mean_and_half_width(float(x.mean), float(x.half_width))}" for what, x in on.items()]
    return [
        f"Against {found.titled(peer)}, {found.titled(name)} changes {words[0]}, {words[1]} and {words[2]} points "
        f"(paired, 95 % over {int(ok.sum())} seeds; an interval that contains 0 decides nothing)."
    ]


def shown(found: Findings, *, note: str = "") -> list[report.Shown]:
    """The tables: methods compared, paired differences, worst groups."""
    text, numbers = main_table(found)
    tables = [
        report.Shown(
            "table",
            text,
            "In points (percent of people), mean ± half-width of the 95 % t interval over seeds.",
            "Gap: a group's loss of accuracy less the average loss; largest over the groups that have a bound. By "
            "chance: the largest gap to be expected if every changed person were a coin flip. Largest loss: of any "
            "group, not compared with the average. Changed: predicted another class than before; newly wrong: and "
            "right before; the worst group is the one with a bound that has most. Bound: on train in how many seeds it "
            f"is met; on {found.judged} the verdicts by group. Smallest gap and disparity, largest less smallest, are "
            f"in table.csv.{one_person(found)}{_called(found)}{note and ' '}{note}",
            numbers=numbers,
            title="in points, mean ± 95 % over seeds",
        )
    ]
    paired = paired_table(found)
    if len(paired):
        tables.append(
            report.Shown(
                "paired",
                paired,
                "Paired differences, in points: a method less another one, on the same seeds.",
                "An interval without 0 is a difference.",
                title="paired differences, in points",
            )
        )
    worst = worst_groups(found)
    if len(worst):
        tables.append(
            report.Shown(
                "worst",
                worst,
                f"The group that looks worst on the validation split, scored on {found.judged} (points).",
                "The largest of many noisy gaps overstates the harm; a group that was chosen on other people does not.",
            )
        )
    return tables


def _called(found: Findings) -> str:
    """Which rows are meant by the plain words."""
    words = [f"{name} is “{words}”" for name, words in found.labels.items() if name in found.after and name != words]
    return f" {'; '.join(words)}." if words else ""


def sections(found: Findings, seen: Seen | None = None) -> list[report.Section]:
    """Who is harmed, the people to look at, who is selected, the layers, and the data."""
    tables = [
        group_table(
            found.rows[name],
            caption=f"Groups harmed most, {found.titled(name)}, on {found.judged}, averaged over seeds"
            + (f": {SHOWN} of {found.num_groups}; all are in the folder groups." if found.num_groups > SHOWN else "."),
            worst=SHOWN,
            positive="" if found.positive is None else found.class_names[found.positive],
        )
        for name in found.detailed
    ]
    # How to read them stands once, below the last.
    tables = [dataclasses.replace(table, note="") for table in tables[:-1]] + tables[-1:]
    harmed = report.Section(
        title="Who is harmed",
        paragraphs=[*_in_people(found), *filter(None, (_too_small(found, name) for name in found.detailed[-1:]))],
        blocks=tables,
    )
    people = looked_at(found, seen or seen_of(found))
    more = (*by_attribute(found), *people, *calibrated(found), *_selection(found), *_layers(found))
    return [harmed, *more, _data(found)]


def _in_people(found: Findings) -> list[str]:
    """Of the group that is worst off, how many people were right before and after, a sentence for each variant."""
    lines = []
    for name in found.detailed:
        rows = [row for row in ranked(found.rows[name]) if row["people"]]
        if rows:
            row = rows[0]
            before, after = (of_people(row[side], row["people"]) for side in ("right_before", "right_after"))
            lines.append(
                f"{found.titled(name)}: of {report.who(row['people'])} in {report.shorten(row['group'], 60)}, the "
                f"network was right about {before} before and about {after} after."
            )
    return lines


def _too_small(found: Findings, name: str) -> str:
    """Which groups have too few people for a gap of the size of the tolerance to be seen."""
    bound, on = in_words(found.tolerance), f"on {found.judged}"
    rows = [row for row in found.rows[name] if row["verdict"] != NO_BOUND]
    if not rows:
        return f"No group that has people {on} has a bound."
    if sum(row["people"] > 0 for row in found.rows[name]) < 2:
        return f"Only one group has people {on}: there is nobody to compare it with."
    few = [row for row in rows if not row["people"] or row["smallest_visible_gap"] > found.tolerance]
    if not few and any(row["verdict"] == metrics.CANNOT_TELL for row in rows):
        return ""  # they lie near the bound, as the verdict says
    if not few:
        return f"Every group has enough people {on} for a gap of {bound} to be seen."
    names = ", ".join(f"{report.shorten(row['group'], 60)} ({row['people']:,})" for row in few[:20])
    names += f" and {len(few) - 20} more" if len(few) > 20 else ""
    return (
        f"Too few people {on} to see a gap of {bound}, at the share of predictions that changed with "
        f"{found.titled(name)}: {names}. Of these groups only a larger harm could be noticed."
    )


def _selection(found: Findings) -> list[report.Section]:
    """Who is predicted the good outcome: rates before and after, with intervals and verdicts."""
    if found.positive is None or not found.detailed:
        return []
    what = f"selected as {report.shorten(found.class_names[found.positive], 60)}"
    columns = ["group", "verdict", "people", f"{what}, before", "after", "lost beyond the average", "interval"]
    blocks = [
        report.Table(
            columns=[*columns, "people needed"],
            rows=[_selection_row(row) for row in selected(found, name)[:SHOWN]],
            caption=f"Who is {what}: {found.titled(name)}, on {found.judged}, averaged over seeds.",
            note="How many people, the mean over seeds, and the share of their group. Lost beyond the average, in "
            "points: by how much more the rate fell than that of all people, judged by the same "
            f"{in_words(found.tolerance)}; the interval holds for all groups together. Nothing was trained for this.",
        )
        for name in found.detailed
    ]
    return [report.Section(title="Who is selected", blocks=blocks)]


def _selection_row(row: dict[str, Any]) -> list[Any]:
    needed = row["people_needed"]
    return [
        report.shorten(row["group"], LONG),
        report.Verdict(state=row["verdict"]),
        f"{row['people']:,}",
        *(of_people(row[side], row["people"]) for side in ("right_before", "right_after")),
        report.points(row["excess_gap"], sign=True),
        between(row),
        NOTHING if np.isnan(needed) else f"{report.rounded(needed):,}",
    ]


def _layers(found: Findings) -> list[report.Section]:
    names = [
        n
        for n in found.after
        if (kept := found.after[n].layers) is not None and any(la.kept < la.total for la in kept.layers)
    ]  # fmt: skip
    if not names:
        return []
    rows: list[list[Any]] = [
        [la.path, "x".join(map(str, la.shape)), la.total, la.kept, f"{100 * la.sparsity:.2f} %"]
        for la in found.after[names[-1]].layers.layers
    ]
    table = report.Table(
        columns=["layer", "shape", "weights", "kept", "sparsity"],
        rows=rows,
        caption=f"Weights kept in each layer, {found.titled(names[-1])}, first seed.",
        note="Layers with sparsity 0 are not prunable.",
    )
    return [report.Section(title="Layers", blocks=[table], folded=True)]


def _data(found: Findings) -> report.Section:
    rows = []
    for g, name in enumerate(found.group_names):
        sizes = [int((np.asarray(people.group) == g).sum()) for people in found.people.values()]
        rows.append([report.shorten(name, LONG), *sizes, "yes" if found.constrained[g] else "no"])
    merged = [
        f"{name} holds " + ", ".join(f"{cell} ({n})" for cell, n in cells.items())
        for name, cells in found.merged.items()
    ]
    table = report.Table(
        columns=["group", *found.people, "bound"],
        rows=rows,
        caption="People in each group.",
        note="; ".join(merged),
    )
    return report.Section(title="The data", paragraphs=list(found.source), blocks=[table])
