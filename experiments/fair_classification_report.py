"""From the records of `experiments.fair_classification` to its tables, figure and page."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from jaxfair import metrics, report
from jaxfair.report import figures
from jaxfair.report.figures.style import new_figure, style

IN_WORDS = {
    "linear": "jaxfair: a linear model under rate constraints",
    "mlp": "jaxfair: a small MLP under rate constraints",
    "eg_logistic": "fairlearn: ExponentiatedGradient around logistic regression",
    "eg_boosting": "fairlearn: ExponentiatedGradient around histogram gradient boosting",
}
FAMILIES_IN_WORDS = {
    "demographic_parity": "Demographic parity: each group is predicted to earn over $50,000 as often as everybody.",
    "equalized_odds": "Equalised odds: each group's true-positive and false-positive rates are those of everybody.",
}
PEER = "eg_logistic"


def said(slack: float) -> str:
    """A slack in points, as a column shows it."""
    return "none" if np.isinf(slack) else f"{100 * slack:g}"


def by_seed(frame: pd.DataFrame, column: str, **names: Any) -> np.ndarray:
    """``[S]`` values of one cell, in the order of the seeds."""
    chosen = frame
    for key, value in names.items():
        chosen = chosen[chosen[key] == value]
    return chosen.sort_values("seed")[column].to_numpy(float)


def cells(frame: pd.DataFrame) -> list[tuple[str, float, str]]:
    """Family, slack and method of each row of the table, constraints from loose to tight."""
    found = []
    for family in frame["family"].drop_duplicates():
        part = frame[frame["family"] == family]
        for slack in sorted(part["slack"].unique(), reverse=True):
            for method in part["method"].drop_duplicates():
                if len(by_seed(part, "seed", slack=slack, method=method)):
                    found.append((family, slack, method))
    return found


def main_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their intervals, in points."""

    def over_seeds(column: str, **names: Any) -> str:
        interval = metrics.t_interval(by_seed(frame, column, **names))
        return report.mean_and_half_width(interval.mean, interval.half_width)

    rows = []
    for family, slack, method in cells(frame):
        names = {"family": family, "slack": slack, "method": method}
        bound = by_seed(frame, "feasible", **names)
        rows.append(
            {
                "family": family,
                "slack": said(slack),
                "method": method,
                "accuracy, test": over_seeds("accuracy_test", **names),
                "violation, test": over_seeds("violation_test", **names),
                "violation, train": over_seeds("violation_train", **names),
                "met on train": "" if np.isinf(slack) else f"{int(bound.sum())} of {len(bound)}",
                "mixed": f"{np.mean(by_seed(frame, 'mixed', **names)):.1f}",
                "seconds": f"{np.sum(by_seed(frame, 'seconds', **names)):.0f}",
            }
        )
    return pd.DataFrame(rows)


def paired_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Each method less fairlearn around logistic regression, on the same splits."""
    rows = []
    for family, slack, method in cells(frame):
        peer = {"family": family, "slack": slack, "method": PEER}
        ours = {**peer, "method": method}
        if method == PEER or not np.array_equal(
            by_seed(frame, "seed", **peer), by_seed(frame, "seed", **ours)
        ):
            continue
        row = {"family": family, "slack": said(slack), "difference": f"{method} - {PEER}"}
        for column in ("accuracy_test", "violation_test"):
            found = metrics.paired_difference(
                by_seed(frame, column, **ours), by_seed(frame, column, **peer)
            )
            row[column.replace("_", ", ")] = report.mean_and_half_width(
                found.mean, found.half_width
            )
        rows.append(row)
    return pd.DataFrame(rows)


def frontier(frame: pd.DataFrame) -> Any:
    """Accuracy against violation on test, a line per method over the slacks."""
    families = list(frame["family"].drop_duplicates())
    methods = list(frame["method"].drop_duplicates())
    look = figures.looks(methods)
    with style():
        figure = new_figure(height=3.7)
        panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
        handles = {}
        for axes, family in zip(panels, families, strict=True):
            axes.grid(color="#e6e6e6", linewidth=0.6)
            for method in methods:
                points = []
                for slack in sorted(frame["slack"].unique()):
                    names = {"family": family, "method": method, "slack": slack}
                    both = [by_seed(frame, c, **names) for c in ("violation_test", "accuracy_test")]
                    if len(both[0]):
                        found = metrics.t_interval(100 * np.stack(both, axis=-1))
                        points.append((*found.mean, *np.nan_to_num(found.half_width)))
                if not points:
                    continue
                x, y, dx, dy = np.array(points).T
                handles[method] = axes.errorbar(
                    x, y, xerr=dx, yerr=dy, color=look[method].color, marker=look[method].marker,
                    linestyle=look[method].line, markersize=5, linewidth=1.3, elinewidth=0.8,
                )  # fmt: skip
            axes.set_title(family.replace("_", " "))
            axes.set_xlabel("largest violation on test (points)")
            axes.set_xlim(left=0)
        panels[0].set_ylabel("accuracy on test (%)")
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles)
        )
    return figure


def headline(frame: pd.DataFrame, settings: Mapping[str, Any]) -> list[str]:
    """What was done and what was found, whichever way it falls."""
    slacks = ", ".join(said(s) for s in settings["slacks"])
    text = [
        f"Classifiers were trained on UCI Adult ({settings['seeds']} splits, the same for all methods) whose groups "
        f"({' x '.join(settings['groups'])}) may differ from everybody's rate by at most {slacks} points."
    ]
    for family in frame["family"].drop_duplicates():
        worse, better, compared = [], [], 0
        for slack in sorted(settings["slacks"]):
            names = {"family": family, "slack": slack}
            ours, theirs = (
                by_seed(frame, "accuracy_test", method=m, **names) for m in ("linear", PEER)
            )
            if len(ours) != len(theirs) or len(ours) < 2:
                continue
            compared += 1
            found = metrics.paired_difference(ours, theirs)
            words = f"{100 * found.mean:+.2f} ± {100 * found.half_width:.2f} at {said(slack)}"
            if found.high < 0:
                worse.append(words)
            elif found.low > 0:
                better.append(words)
        if not compared:
            continue
        name = family.replace("_", " ")
        if worse:
            text.append(
                f"{name}: the linear model of jaxfair is less accurate than fairlearn's around logistic regression "
                f"beyond the interval at {len(worse)} of {compared} slacks (points of accuracy: {'; '.join(worse)})."
            )
        else:
            text.append(
                f"{name}: at none of {compared} slacks is the linear model of jaxfair less accurate than fairlearn's "
                "around logistic regression beyond the interval"
                + (
                    f"; at {len(better)} it is more accurate ({'; '.join(better)})."
                    if better
                    else "."
                )
            )
    spent = frame.groupby("method", sort=False)["seconds"].sum()
    text.append(
        "Seconds for everything in the table: "
        + ", ".join(f"{m} {s:,.0f}" for m, s in spent.items())
        + "."
    )
    return text


def write(
    folder: pathlib.Path, settings: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> None:
    """Writes all files of the run, and prints the table."""
    frame = pd.DataFrame(records)
    table, paired, figure = main_table(frame), paired_table(frame), frontier(frame)
    report.write_table(table, folder, "table", numbers=frame)
    if len(paired):
        report.write_table(paired, folder, "paired")
    figures.save(figure, folder / "figures", "frontier")

    def block(of: pd.DataFrame, caption: str, note: str) -> report.Table:
        return report.Table(
            columns=list(of.columns), rows=of.to_numpy().tolist(), caption=caption, note=note
        )

    note = (
        "In points; mean and half-width of the 95 % t interval over splits. Slack: how far a group's rate may be from "
        "everybody's on the training split; none is the classifier without constraints. Violation: the largest such "
        "difference, over groups and rates. Met on train: in how many splits. Mixed: how many predictors the "
        "randomised classifier draws from, on average. Seconds: of all splits together; of jaxfair with compilation "
        "and all candidate step sizes, shared out over the slacks that are trained side by side."
    )
    blocks = [block(table, "Every method at every slack.", note)]
    if len(paired):
        blocks.append(
            block(
                paired,
                "Paired differences on the same splits, in points.",
                "An interval without 0 is a difference. More accuracy is better, less violation is better; read both.",
            )
        )
    picture = report.Picture(
        data=figures.svg(figure),
        caption="Accuracy against the largest violation, both on test: from left to right looser constraints, the last "
        "point of each line none at all. Up and left is better. Bars are 95 % intervals over splits.",
        alt="; ".join(headline(frame, settings)[1:]),
    )
    page = report.Page(
        title="Equal treatment under a bound",
        subtitle=f"UCI Adult, {settings['seeds']} splits",
        summary=headline(frame, settings),
        sections=[
            report.Section(
                title="What was trained",
                blocks=[
                    report.Points(
                        items=[FAMILIES_IN_WORDS[f] for f in frame["family"].drop_duplicates()]
                        + [f"{m}: {IN_WORDS[m]}." for m in frame["method"].drop_duplicates()]
                    )
                ],
                paragraphs=[
                    "Both sides deliver a randomised classifier, which draws one of a few predictors for each person, "
                    "and is measured by its expected accuracy and rates. It is chosen on the training split; test is "
                    "only measured. The bound is on the training split, so violations on test scatter around it. "
                    "fairlearn and scikit-learn have their own defaults; the settings of ours were chosen on two other "
                    "splits than those shown.",
                ],
            ),
            report.Section(title="The frontier", blocks=[picture]),
            report.Section(title="Numbers", blocks=blocks),
            report.Section(
                title="Settings",
                blocks=[report.Facts(items=dict(settings))],
                folded=True,
            ),
        ],
        footer="Written by jaxfair.",
    )
    report.write_page(page, folder / "report.html")
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    report.print_table(table, title="in points, mean ± 95 % over splits", console=console)
    for line in headline(frame, settings)[1:]:
        console.print(line, highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)
