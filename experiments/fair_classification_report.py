"""From the records of `experiments.fair_classification` to its tables, figure and page."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from jaxfair import metrics, report
from jaxfair.report import figures
from jaxfair.report.figures import new_figure, style

IN_WORDS = {
    "linear": "jaxfair: a linear model under rate constraints",
    "mlp": "jaxfair: a small MLP under rate constraints",
    "eg_logistic": "fairlearn: ExponentiatedGradient around logistic regression",
    "eg_boosting": "fairlearn: ExponentiatedGradient around histogram gradient boosting",
}
FAMILIES_IN_WORDS = {
    "demographic_parity": (
        "Demographic parity: each group is predicted to earn over $50,000 as often as everybody, up to the slack."
    ),
    "equalized_odds": (
        "Equalised odds: among those who do earn over $50,000, each group is predicted to as often as everybody, and "
        "so it is among those who do not, up to the slack."
    ),
}
NAMES = {"demographic_parity": "demographic parity", "equalized_odds": "equalised odds"}
PEER = "eg_logistic"
TIMES = {
    "cpu_seconds": "CPU seconds",
    "compile_cpu_seconds": "compiling, CPU seconds",
    "seconds": "seconds by the clock",
    "compile_seconds": "compiling, by the clock",
}


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
    """Means over splits with their intervals, in points."""

    def over_seeds(column: str, **names: Any) -> str:
        interval = metrics.t_interval(by_seed(frame, column, **names))
        return report.mean_and_half_width(interval.mean, interval.half_width)

    rows = []
    for family, slack, method in cells(frame):
        names = {"family": family, "slack": slack, "method": method}
        bound = by_seed(frame, "feasible", **names)
        rows.append(
            {
                "family": NAMES[family],
                "slack": said(slack),
                "method": method,
                "accuracy, test": over_seeds("accuracy_test", **names),
                "violation, test": over_seeds("violation_test", **names),
                "accuracy, train": over_seeds("accuracy_train", **names),
                "violation, train": over_seeds("violation_train", **names),
                "met": "" if np.isinf(slack) else f"{int(bound.sum())} of {len(bound)}",
                "mixed": f"{np.mean(by_seed(frame, 'mixed', **names)):.1f}",
            }
        )
    return pd.DataFrame(rows)


def spent(frame: pd.DataFrame) -> pd.DataFrame:
    """What fitting took, all splits and slacks of a family together."""
    rows = []
    for (family, method), part in frame.groupby(["family", "method"], sort=False):
        times = part[list(TIMES)].sum()
        rows.append(
            {"family": NAMES[family], "method": method, "classifiers": len(part)}
            | {words: f"{times[column]:,.0f}" for column, words in TIMES.items()}
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
        row = {"family": NAMES[family], "slack": said(slack), "difference": f"{method} - {PEER}"}
        for column in ("accuracy_test", "violation_test"):
            found = metrics.paired_difference(
                by_seed(frame, column, **ours), by_seed(frame, column, **peer)
            )
            row[column.replace("_", ", ")] = report.mean_and_half_width(
                found.mean, found.half_width
            )
        rows.append(row)
    return pd.DataFrame(rows)


CHOSEN_IN_WORDS = {
    "train": "the training split",
    "validation": "the validation split",
    "both": "the validation split for accuracy and training and validation together for rates",
}


def chosen_words(frame: pd.DataFrame) -> str:
    """Where the mixtures of which methods were chosen."""
    where = frame.groupby("chosen_on", sort=False)["method"].unique()
    return "; ".join(f"{', '.join(m)} on {CHOSEN_IN_WORDS[on]}" for on, m in where.items())


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
            for slack in frame["slack"].unique():
                if np.isfinite(slack):
                    axes.axvline(100 * slack, color="#999999", linewidth=0.8, linestyle=":")
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
                if np.isinf(frame["slack"]).any():
                    axes.plot(
                        x[-1:], y[-1:], color=look[method].color, marker=look[method].marker,
                        markersize=5, markerfacecolor="white", linestyle="none", zorder=3,
                    )  # fmt: skip
            axes.set_title(NAMES[family])
            axes.set_xlabel("largest violation on test (points)")
            axes.set_xlim(left=0)
        panels[0].set_ylabel("accuracy on test (%)")
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles)
        )
    return figure


def against_peer(frame: pd.DataFrame, family: str, slacks: Sequence[float]) -> list[str]:
    """The linear model and fairlearn's on the same splits: one sentence, empty where they cannot be compared."""
    found: dict[str, list[Any]] = {"accuracy_test": [], "violation_test": []}
    for slack in slacks:
        names = {"family": family, "slack": slack}
        for column, differences in found.items():
            ours, theirs = (by_seed(frame, column, method=m, **names) for m in ("linear", PEER))
            if len(ours) != len(theirs) or len(ours) < 2:
                return []
            differences.append(metrics.paired_difference(ours, theirs))

    def listed(differences: Sequence[Any]) -> str:
        return ", ".join(f"{100 * d.mean:+.2f} ± {100 * d.half_width:.2f}" for d in differences)

    def at(flagged: Sequence[bool]) -> str:
        return " and ".join(said(s) for s, flag in zip(slacks, flagged, strict=True) if flag)

    less = at([d.high < 0 for d in found["accuracy_test"]])
    more = at([d.low > 0 for d in found["violation_test"]])
    words = [f"less accurate at slack {less}"] * bool(less)
    words += [f"more violation at slack {more}"] * bool(more)
    if words:
        verdict = f"worse beyond the interval ({'; '.join(words)})"
    else:
        verdict = "no worse beyond the interval at any slack"
    return [
        f"{NAMES[family].capitalize()}: the linear model of jaxfair is {verdict} than fairlearn's around logistic "
        f"regression. At slacks of {', '.join(map(said, slacks))} points its accuracy on test differs by "
        f"{listed(found['accuracy_test'])} points, and its violation by {listed(found['violation_test'])}."
    ]


def beside(frame: pd.DataFrame, slacks: Sequence[float]) -> list[str]:
    """How far the other methods are from fairlearn around logistic regression, from the least to the largest."""
    found = []
    for method in frame["method"].drop_duplicates():
        differences = []
        for family in frame["family"].drop_duplicates():
            for slack in slacks:
                names = {"family": family, "slack": slack}
                ours, theirs = (
                    by_seed(frame, "accuracy_test", method=m, **names) for m in (method, PEER)
                )
                if len(ours) == len(theirs) and len(ours):
                    differences.append(100 * np.mean(ours - theirs))
        if differences and method not in ("linear", PEER):
            found.append(f"{method} by {min(differences):+.1f} to {max(differences):+.1f}")
    if not found:
        return []
    return [
        "Beside them, the accuracy of more flexible models under the same bounds differs from that of fairlearn around "
        f"logistic regression, in points: {', '.join(found)}."
    ]


def headline(frame: pd.DataFrame, settings: Mapping[str, Any]) -> list[str]:
    """What was done and what was found, whichever way it falls."""
    slacks = sorted(settings["slacks"])
    text = [
        f"Classifiers were trained on UCI Adult ({settings['seeds']} splits, the same for all methods) whose groups "
        f"({' x '.join(settings['groups'])}) may differ from everybody's rate by at most "
        f"{', '.join(map(said, slacks))} points, the slack."
    ]
    for family in frame["family"].drop_duplicates():
        text += against_peer(frame, family, slacks)
    text += beside(frame, slacks)
    both = frame[frame["method"].isin(["linear", PEER])]
    if both["method"].nunique() == 2:
        times = both.groupby("method")[list(TIMES)].sum()
        ours, theirs = times.loc["linear"], times.loc[PEER]
        text.append(
            f"To fit all its classifiers, the linear model took {ours['cpu_seconds']:,.0f} seconds of CPU and "
            f"{ours['compile_cpu_seconds']:,.0f} to compile, fairlearn's {theirs['cpu_seconds']:,.0f}: "
            f"{theirs['cpu_seconds'] / max(ours['cpu_seconds'], 1e-9):.1f} times as much, or "
            f"{theirs['cpu_seconds'] / max(ours['cpu_seconds'] + ours['compile_cpu_seconds'], 1e-9):.1f} times with "
            "compiling."
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
    report.write_table(spent(frame), folder, "time")
    figures.save(figure, folder / "figures", "frontier")

    def block(of: pd.DataFrame, caption: str, note: str) -> report.Table:
        return report.Table(
            columns=list(of.columns), rows=of.to_numpy().tolist(), caption=caption, note=note
        )

    note = (
        "In points; mean and half-width of the 95 % t interval over splits. Slack: how far a group's rate may be from "
        "everybody's; none is the classifier without constraints. Violation: the largest such difference, over groups "
        "and rates. Met: in how many splits the bound holds where the mixture was chosen. Mixed: how many predictors "
        "the randomised classifier draws from, on average."
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
    times = block(
        spent(frame),
        "What fitting took.",
        "All splits and slacks of a family together. CPU seconds add up all threads; they are what to compare: the "
        "machine may have had other work, which stretches seconds by the clock. Ours have the training of all "
        "candidate step sizes and the choice of the mixtures in them; compiling, once a family, is apart. fairlearn's "
        "learners run on one thread, which here is their fastest. Predicting for the three splits is in none of them.",
    )
    picture = report.Picture(
        data=figures.svg(figure),
        caption="Accuracy against the largest violation, both on test. Each line goes from the tightest slack at its "
        "left end to the loosest, and on to no constraint at all (hollow marker). Dotted: the slacks. Up and left is "
        "better. Bars are 95 % intervals over splits; the splits differ more than the methods do, which are compared "
        "split by split in the second table below.",
        alt="; ".join(headline(frame, settings)[1:]),
    )
    page = report.Page(
        title="Equal treatment under a bound",
        subtitle=f"jaxfair next to fairlearn on UCI Adult, {settings['seeds']} splits",
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
                    "and is measured by its expected accuracy and rates. fairlearn mixes the predictors of its rounds; "
                    "ours mixes what the weights were after each round of training, at all "
                    f"slacks and step sizes of the multipliers. The mixtures were chosen: {chosen_words(frame)}. There "
                    "the bound holds; violations on test scatter around it, widely for equalised odds: few "
                    "women earn more than $50,000.",
                    "fairlearn and scikit-learn have their own defaults. The settings of ours were chosen on ten other "
                    "splits than those shown; they are splits of the same people, and an earlier version, which was "
                    "worse, had been measured on those shown.",
                ],
            ),
            report.Section(title="The frontier", blocks=[picture]),
            report.Section(title="Numbers", blocks=blocks),
            report.Section(title="Time", blocks=[times]),
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
    report.print_table(spent(frame), title="what fitting took", console=console)
    for line in headline(frame, settings)[1:]:
        console.print(line, highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)
