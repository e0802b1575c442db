"""The figures of an audit: accuracy against the largest gap, gaps by group, and how both came about in training."""

from typing import Any

import numpy as np

from jaxfair import report
from jaxfair.audit._findings import Findings
from jaxfair.report import figures


def draw(found: Findings) -> list[report.Drawn]:
    """All figures that there is something to draw for."""
    if not found.frames:
        return []  # every training failed
    drawn = _tradeoff(found)
    if found.detailed:
        drawn.append(_by_group(found))
    return drawn + _trajectories(found)


def _tradeoff(found: Findings) -> list[report.Drawn]:
    splits = dict.fromkeys((found.first, found.judged))
    panels = {
        split: {
            name: (
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
        report.Drawn(
            "accuracy_against_gap",
            figures.accuracy_against_gap(panels, tolerance=found.tolerance),
            "Accuracy against the largest excess accuracy gap of any group. Small points are seeds, large ones means "
            "with 95 % intervals over seeds; up and left is better, and the tinted strip is where the bound is met.",
            f"Scatter of largest gap in points and accuracy, means on {first}: {points}.",
        )
    ]


def _by_group(found: Findings) -> report.Drawn:
    def worst(name: str) -> str:
        row = found.frames[name][0].iloc[0]
        return f"{row['group']} at {report.points(row['excess_gap'], digits=1, sign=True)} points"

    group = np.asarray(found.people[found.judged].group)
    return report.Drawn(
        "gaps_by_group",
        figures.gaps_by_group(
            [n if bound else f"{n}, no bound" for n, bound in zip(found.group_names, found.constrained, strict=True)],
            np.bincount(group[group >= 0], minlength=found.num_groups)[: found.num_groups],
            {name: found.frames[name][1] for name in found.detailed},
            tolerance=found.tolerance,
            methods=found.compared,
        ),
        f"Excess accuracy gap of each group on {found.judged}, averaged over seeds, with simultaneous 95 % intervals "
        "over people. The number of people is beside the name.",
        "; ".join(f"{name}, largest: {worst(name)}" for name in found.detailed),
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
        paths[name.removesuffix(" (last)")] = figures.Trajectory(
            stacked("gaps"),
            multipliers[:, : found.num_groups] if multipliers.shape[1] >= found.num_groups else None,
        )
    if not paths:
        return []
    return [
        report.Drawn(
            "trajectories",
            figures.trajectories(
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
