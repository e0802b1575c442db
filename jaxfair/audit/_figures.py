"""The figures of an audit: groups before and after, their gaps, accuracy against the largest gap, and training.

Each is drawn twice, for a page and for a narrow screen.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxfair import report
from jaxfair.audit._findings import Findings
from jaxfair.report import figures


def draw(found: Findings) -> list[report.Drawn]:
    """All figures that there is something to draw for."""
    if not found.rows:
        return []  # every training failed
    drawn = [_before_and_after(found), _by_group(found)] if found.detailed else []
    return drawn + _tradeoff(found) + _trajectories(found)


def _twice(name: str, make: Callable[..., Any], caption: str, alt: str) -> report.Drawn:
    return report.Drawn(name, make(), caption, alt, make(narrow=True))


def _before_and_after(found: Findings) -> report.Drawn:
    people, shares = {}, {}
    for name in found.detailed:
        at = {row["group"]: row for row in found.rows[name]}
        rows = [at[group] for group in found.group_names]
        size = np.array([row["people"] for row in rows], float)
        with np.errstate(invalid="ignore", divide="ignore"):
            people["before"], shares[found.titled(name)] = (
                np.array([row[side] for row in rows]) / size for side in ("right_before", "right_after")
            )
        people["size"] = size
    before = found.titled(found.name_before)
    return _twice(
        "before_and_after",
        functools.partial(
            figures.before_and_after, found.group_names, people["size"], people["before"], shares,
            called="before", methods=[found.titled(name) for name in found.compared],
        ),
        f"How many of a group the network is right about on {found.judged}, after less before ({before}), in points, "
        "and what that came to. Means over seeds; whether a change is more than chance, the next figure says.",
        "; ".join(
            f"{shown}: {group} from {100 * start:.1f} to {100 * end:.1f} %"
            for shown, ends in shares.items()
            for group, start, end in list(zip(found.group_names, people["before"], ends, strict=True))[:12]
        ),
    )  # fmt: skip


def _tradeoff(found: Findings) -> list[report.Drawn]:
    splits = dict.fromkeys((found.first, found.judged))
    panels = {
        split: {
            found.titled(name): (
                found.largest(name, split)[found.ok(name)],
                found.measured[name, split].accuracy[found.ok(name)],
            )
            for name in found.compared
            if found.ok(name).any() and not np.isnan(found.largest(name, split)).any()
        }
        for split in splits
    }
    panels = {split: points for split, points in panels.items() if points}
    if not panels:
        return []  # no group has a bound
    first = next(iter(panels))
    points = "; ".join(
        f"{name}: {100 * gap.mean():.1f} and {100 * accuracy.mean():.1f} %"
        for name, (gap, accuracy) in panels[first].items()
    )
    return [
        _twice(
            "accuracy_against_gap",
            functools.partial(figures.accuracy_against_gap, panels, tolerance=found.tolerance),
            "Accuracy against the largest excess accuracy gap of any group. Small points are seeds, large ones means "
            "with 95 % intervals over seeds; up and left is better, and the tinted strip is where the bound is met.",
            f"Scatter of largest gap in points and accuracy, means on {first}: {points}.",
        )
    ]


def _by_group(found: Findings) -> report.Drawn:
    def worst(name: str) -> str:
        row = next((row for row in found.rows[name] if row["people"]), None)
        return f"{row['group']} at {report.points(row['excess_gap'], digits=1, sign=True)} points" if row else "nobody"

    group = np.asarray(found.people[found.judged].group)
    return _twice(
        "gaps_by_group",
        functools.partial(
            figures.gaps_by_group,
            [n if bound else f"{n}, no bound" for n, bound in zip(found.group_names, found.constrained, strict=True)],
            np.bincount(group[group >= 0], minlength=found.num_groups)[: found.num_groups],
            {found.titled(name): found.inferred[name] for name in found.detailed},
            tolerance=found.tolerance,
            methods=[found.titled(name) for name in found.compared],
            bounded=np.asarray(found.constrained),
        ),
        f"Excess accuracy gap of each group on {found.judged}, averaged over seeds, with simultaneous 95 % intervals "
        "over people. The number of people is beside the name.",
        "; ".join(f"{found.titled(name)}, largest: {worst(name)}" for name in found.detailed),
    )


def _trajectories(found: Findings) -> list[report.Drawn]:
    paths: dict[str, Any] = {}
    epochs: list[int] = []
    for name in dict.fromkeys(found.focus or found.after):
        rows = [r for r in found.after[name].history if "gaps" in r] if name in found.after else []
        steps, seeds = sorted({r["epoch"] for r in rows}), sorted({r["seed"] for r in rows})
        if len(rows) != len(steps) * len(seeds) or not rows:
            continue
        at = {(r["seed"], r["epoch"]): r for r in rows}

        def stacked(field: str, at: Any = at, seeds: Any = seeds, steps: Any = steps) -> np.ndarray:
            return np.mean([[at[s, e][field] for e in steps] for s in seeds], axis=0)

        multipliers, epochs = stacked("multipliers"), steps
        paths[found.labels.get(name, name.removesuffix(" (last)"))] = figures.Trajectory(
            stacked("gaps"),
            multipliers[:, : found.num_groups] if multipliers.shape[1] >= found.num_groups else None,
        )
    if not paths:
        return []
    return [
        _twice(
            "trajectories",
            functools.partial(
                figures.trajectories,
                np.arange(1, len(epochs) + 1),
                paths,
                tolerance=found.tolerance,
                pruning_end=found.pruned_at,
                names=found.group_names,
            ),
            "Excess gaps during training, measured in train mode as the examples came by, and the multipliers; means "
            "over seeds." + ("" if found.pruned_at is None else " The vertical line is the end of pruning."),
            "; ".join(
                f"{name} ends with a largest mean gap of {100 * np.max(path.excess[-1]):.1f} points"
                for name, path in paths.items()
            ),
        )
    ]
