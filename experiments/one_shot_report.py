"""From the records of `experiments.one_shot` to its tables, figure and page."""

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
    "magnitude": "the smallest weights go, the others stay as they are",
    "woodfisher": "OBS in blocks: rank by w² / (2 [F⁻¹]), then move the rest jointly",
    "chita": "CHITA: sparse least squares on the gradients, thresholded by bare weights as in the paper",
    "chita_scaled": "CHITA, thresholded in units of each weight's own curvature",
    "chita_block": "CHITA in blocks: magnitude's support, exact values per block",
}
PEER = "magnitude"
DATA_IN_WORDS = {
    "digits": "scikit-learn's digits (8 x 8, enlarged to 28 x 28: not MNIST)",
    "fashion_mnist": "Fashion-MNIST",
}


def by_seed(frame: pd.DataFrame, column: str, **names: Any) -> np.ndarray:
    """``[S]`` values of one cell, in the order of the seeds."""
    chosen = frame
    for key, value in names.items():
        chosen = chosen[chosen[key] == value]
    return chosen.sort_values("seed")[column].to_numpy(float)


def cells(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """What names each row of the table, from dense to sparse."""
    found = frame[["network", "sparsity", "method"]].drop_duplicates()
    order = {m: i for i, m in enumerate(IN_WORDS)}
    found = found.sort_values(
        ["network", "sparsity", "method"], key=lambda c: c.map(order) if c.name == "method" else c
    )
    return found.to_dict("records")


def has_statistics(frame: pd.DataFrame, network: str) -> bool:
    """Whether BatchNorm statistics were estimated again: only then do before and after differ."""
    return network == "resnet20" and len(frame) > 0


def main_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their intervals; accuracies and gaps in points."""
    both = any(has_statistics(frame, n) for n in frame["network"].unique())
    rows = []
    for names in cells(frame):

        def over_seeds(column: str, names: Mapping[str, Any] = names) -> str:
            interval = metrics.t_interval(by_seed(frame, column, **names))
            return report.mean_and_half_width(interval.mean, interval.half_width)

        row = {
            "network": names["network"],
            "zeros (%)": f"{100 * names['sparsity']:g}",
            "method": names["method"],
        }
        if both:
            row |= {"accuracy, old statistics": over_seeds("accuracy_before")}
        row |= {
            "accuracy": over_seeds("accuracy_after"),
            "largest excess gap": over_seeds("max_excess_after"),
            "predicted rise of loss": f"{np.mean(by_seed(frame, 'objective', **names)):.3g}",
            "seconds": f"{np.median(by_seed(frame, 'seconds', **names)):.2f}",
            "memory (MB)": f"{np.max(by_seed(frame, 'memory', **names)) / 1e6:,.0f}",
        }
        rows.append(row)
    return pd.DataFrame(rows)


def paired_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Each method less magnitude, on the same networks."""
    rows = []
    for names in cells(frame):
        peer = {**names, "method": PEER}
        if names["method"] == PEER or not np.array_equal(
            by_seed(frame, "seed", **peer), by_seed(frame, "seed", **names)
        ):
            continue
        row = {
            "network": names["network"],
            "zeros (%)": f"{100 * names['sparsity']:g}",
            "difference": f"{names['method']} - {PEER}",
        }
        for column, said in {
            "accuracy_after": "accuracy",
            "max_excess_after": "excess gap",
        }.items():
            found = metrics.paired_difference(
                by_seed(frame, column, **names), by_seed(frame, column, **peer)
            )
            row[said] = report.mean_and_half_width(found.mean, found.half_width)
        rows.append(row)
    return pd.DataFrame(rows)


def curves(frame: pd.DataFrame) -> Any:
    """Accuracy, and the largest excess gap over classes, against the share of zeros."""
    networks = list(frame["network"].drop_duplicates())
    methods = [m for m in IN_WORDS if m in set(frame["method"])]
    look = figures.looks(methods)
    sides = {
        "accuracy_after": "accuracy on test (%)",
        "max_excess_after": "largest excess accuracy gap\nover classes (points)",
    }
    with style():
        figure = new_figure(height=3.4 * len(networks) + 0.3)
        panels = figure.subplots(len(networks), 2, squeeze=False)
        handles: dict[str, Any] = {}
        for network, row in zip(networks, panels, strict=True):
            part = frame[frame["network"] == network]
            shares = sorted(part["sparsity"].unique())
            for (column, said), axes in zip(sides.items(), row, strict=True):
                axes.grid(color="#e6e6e6", linewidth=0.6)
                for number, method in enumerate(methods):
                    points = []
                    for at, share in enumerate(shares):
                        values = by_seed(part, column, method=method, sparsity=share)
                        if len(values):
                            found = metrics.t_interval(100 * values)
                            # Side by side, or the bars hide each other.
                            x = at + 0.06 * (number - (len(methods) - 1) / 2)
                            points.append((x, found.mean, np.nan_to_num(found.half_width)))
                    if points:
                        x, y, dy = np.array(points).T
                        handles[method] = axes.errorbar(
                            x, y, yerr=dy, color=look[method].color, marker=look[method].marker,
                            linestyle=look[method].line, markersize=4, linewidth=1.2, elinewidth=0.8,
                        )  # fmt: skip
                axes.set_xticks(range(len(shares)), [f"{100 * s:g}" for s in shares])
                axes.set_xlabel("zeros (%)")
                axes.set_ylabel(said)
                axes.set_ylim(bottom=0)
            row[0].axhline(
                100 * part["accuracy_dense"].mean(), color="#888888", linewidth=0.8, linestyle=":"
            )
            row[0].set_title(f"{network}: accuracy (dotted: dense)")
            row[1].set_title(f"{network}: who pays")
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles)
        )
    return figure


def headline(frame: pd.DataFrame, settings: Mapping[str, Any]) -> list[str]:
    """What was done and what was found, whichever way it falls."""
    text = []
    for network in frame["network"].drop_duplicates():
        part = frame[frame["network"] == network]
        seeds = part["seed"].nunique()
        where = DATA_IN_WORDS[settings["dataset"]] if network == "mlpnet" else "CIFAR-10"
        text.append(
            f"{network} on {where}, {seeds} networks of {100 * part['accuracy_dense'].mean():.1f} % accuracy, pruned "
            "at once and not trained afterwards."
        )
        for method in IN_WORDS:
            if method == PEER or method not in set(part["method"]):
                continue
            better, worse, compared = [], [], 0
            for share in sorted(part["sparsity"].unique()):
                ours, theirs = (
                    by_seed(part, "accuracy_after", method=m, sparsity=share)
                    for m in (method, PEER)
                )
                if len(ours) != len(theirs) or len(ours) < 2:
                    continue
                compared += 1
                found = metrics.paired_difference(ours, theirs)
                words = (
                    f"{100 * found.mean:+.1f} ± {100 * found.half_width:.1f} at {100 * share:g} %"
                )
                if found.low > 0:
                    better.append(words)
                elif found.high < 0:
                    worse.append(words)
            if not compared:
                continue
            line = f"{method} is more accurate than magnitude beyond the interval at {len(better)} of {compared} "
            line += "sparsities" + (f" (points: {'; '.join(better)})" if better else "")
            line += f", less accurate at {len(worse)}"
            line += f" ({'; '.join(worse)})." if worse else "."
            text.append(line)
    return text


def write(
    folder: pathlib.Path, settings: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> None:
    """Writes all files of the run, and prints the table."""
    frame = pd.DataFrame(records)
    table, paired, figure = main_table(frame), paired_table(frame), curves(frame)
    said = headline(frame, settings)
    report.write_table(table, folder, "table", numbers=frame)
    if len(paired):
        report.write_table(paired, folder, "paired")
    figures.save(figure, folder / "figures", "curves")

    def block(of: pd.DataFrame, caption: str, note: str) -> report.Table:
        return report.Table(
            columns=list(of.columns), rows=of.to_numpy().tolist(), caption=caption, note=note
        )

    note = (
        "Accuracy and gap in points on test; mean and half-width of the 95 % t interval over seeds. Largest excess "
        "gap: what the class that lost most lost beyond what all lost together; the largest of ten noisy numbers, so "
        "above 0 by chance alone. Predicted rise of loss: CHITA's objective per gradient, of every method's weights. "
        "Seconds: median of the compiled call. Memory: of its arguments, results and temporaries."
    )
    blocks = [block(table, "Every method at every sparsity.", note)]
    if len(paired):
        blocks.append(
            block(
                paired,
                "Paired differences on the same networks, in points.",
                "An interval without 0 is a difference. More accuracy is better, a smaller gap is better.",
            )
        )
    picture = report.Picture(
        data=figures.svg(figure),
        caption="Left: accuracy after pruning, without any training. Right: the loss of the class that lost most "
        "beyond the average loss. Bars are 95 % intervals over seeds.",
        alt="; ".join(said),
    )
    page = report.Page(
        title="Pruned at once",
        subtitle="Magnitude, WoodFisher and CHITA without retraining",
        summary=said,
        sections=[
            report.Section(
                title="What was done",
                blocks=[
                    report.Points(
                        items=[
                            f"{m}: {w}." for m, w in IN_WORDS.items() if m in set(frame["method"])
                        ]
                    )
                ],
                paragraphs=[
                    "All second-order methods see the same gradients, of training examples, and have the same damping. "
                    "Numbers of zeros are exact. Test is only measured.",
                ],
            ),
            report.Section(title="Accuracy and who pays", blocks=[picture]),
            report.Section(title="Numbers", blocks=blocks),
            report.Section(
                title="Settings", blocks=[report.Facts(items=dict(settings))], folded=True
            ),
        ],
        footer="Written by jaxfair.",
    )
    report.write_page(page, folder / "report.html")
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    report.print_table(table, title="in points, mean ± 95 % over seeds", console=console)
    for line in said:
        console.print(line, highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)
