"""What an audit says, in words and blocks of a page: verdicts, who is harmed, layers, people, and the data."""

from typing import Any

import numpy as np

from jaxfair import metrics, report
from jaxfair.audit._findings import Findings
from jaxfair.audit._groups import NO_BOUND, group_table, people_changed, say_verdicts
from jaxfair.audit._tables import in_words, main_table, paired_table, worst_groups


def verdicts(found: Findings) -> list[report.Verdict]:
    """A line for each of the variants that the details show."""
    return [
        say_verdicts(found.frames[m][0], method=m, split=found.judged, bound=found.tolerance) for m in found.detailed
    ]


def summary(found: Findings) -> list[str]:
    """What was compared, how good it was before, and what failed, in sentences."""
    seeds = len(found.before.ok)
    before = {s: found.measured[found.name_before, s].accuracy[found.before.ok] for s in found.people}
    said = ", ".join(f"{100 * accuracy.mean():.1f} % of {split}" for split, accuracy in before.items() if len(accuracy))
    lines = [
        f"{seeds} network{'' if seeds == 1 else 's'} before, right about {said or 'nobody: all failed'}, and "
        f"{', '.join(found.after)}. "
        + (
            f"The question is whether any of {_bounded(found)} loses more accuracy than the average does, by more than "
            f"{in_words(found.tolerance)}."
            if found.bounded
            else "No group has a bound: gaps are measured, and nothing is judged."
        )
    ]
    return [*lines, *idle(found), *failures(found), *unknown(found)]


def _bounded(found: Findings) -> str:
    if found.bounded == found.num_groups:
        return f"{found.num_groups} groups"
    return f"the {found.num_groups} groups, of which {found.bounded} {'has' if found.bounded == 1 else 'have'} a bound,"


def idle(found: Findings) -> list[str]:
    """A sentence where there is nothing to do."""
    if found.active is not False:
        return []
    return [
        "The bound is inactive here: naive fine-tuning meets it too often for a constraint to have work to do. No "
        "claim is made about the constrained methods."
    ]


def failures(found: Findings) -> list[str]:
    """A sentence for each variant whose training failed, those before included."""
    lines = []
    for name in found.names:
        lost = int(np.sum(~np.asarray(found.of(name).ok)))
        if lost and not found.is_last(name):
            lines.append(f"Training of {name} failed in {lost} of {len(found.ok(name))} seeds, which are left out.")
    return lines


def unknown(found: Findings) -> list[str]:
    """A sentence for each split with people of whom no group is known."""
    lines = []
    for split, people in found.people.items():
        group = np.asarray(people.group)
        if count := int(np.sum((group < 0) | (group >= found.num_groups))):
            who = "1 person" if count == 1 else f"{count:,} people"
            lines.append(f"The group of {who} of {split} is unknown: they count in the accuracy, and in no gap.")
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
        f"Against {peer}, {name} changes {words[0]}, {words[1]} and {words[2]} points (paired, 95 % over "
        f"{int(ok.sum())} seeds; an interval that contains 0 decides nothing)."
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
            "group, not compared with the average. Disparity: largest less smallest gap. Bound: on train in how many "
            f"seeds it is met; on {found.judged} the verdicts by group.{note and ' '}{note}",
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


def sections(found: Findings) -> list[report.Section]:
    """Who is harmed, the layers, the people whose outcome changed, and the data."""
    detailed = found.detailed
    harmed = report.Section(
        title="Who is harmed",
        paragraphs=[_too_small(found, name) for name in detailed[-1:]],
        blocks=[
            group_table(
                found.frames[name][0],
                caption=f"Groups harmed most by {name}, on {found.judged}, averaged over seeds.",
                worst=20,
            )
            for name in detailed
        ],
    )
    return [harmed, *_layers(found), *_people(found), _data(found)]


def _too_small(found: Findings, name: str) -> str:
    """Which groups have too few people for a gap of the size of the tolerance to be seen."""
    frame, bound = found.frames[name][0], in_words(found.tolerance)
    frame = frame[frame["verdict"] != NO_BOUND]
    if not len(frame):
        return f"No group that has people on {found.judged} has a bound."
    few = frame[frame["smallest_visible_gap"] > found.tolerance]
    if not len(few):
        return f"Every group has enough people on {found.judged} for a gap of {bound} to be seen."
    names = ", ".join(f"{row['group']} ({row['people']:,})" for row in few.to_dict("records"))
    return (
        f"Too few people on {found.judged} to see a gap of {bound}, at the share of predictions that {name} "
        f"changed: {names}. Of these groups only a larger harm could be noticed."
    )


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
        caption=f"Weights kept in each layer by {names[-1]}, first seed.",
        note="Layers with sparsity 0 are not prunable.",
    )
    return [report.Section(title="Layers", blocks=[table], folded=True)]


def _people(found: Findings) -> list[report.Section]:
    people = found.people[found.judged]
    return [
        report.Section(
            title="People whose outcome changed",
            paragraphs=[f"Rows of the {found.judged} split, first seed, {name}; people.csv has all methods and seeds."],
            folded=True,
            blocks=[
                people_changed(
                    people.rows,
                    found.correct(found.name_before, found.judged)[0],
                    found.correct(name, found.judged)[0],
                    people.group,
                    found.group_names,
                    where="people.csv",
                )
            ],
        )
        for name in found.detailed[-1:]
    ]


def _data(found: Findings) -> report.Section:
    rows = []
    for g, name in enumerate(found.group_names):
        sizes = [int((np.asarray(people.group) == g).sum()) for people in found.people.values()]
        rows.append([name, *sizes, "yes" if found.constrained[g] else "no"])
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
