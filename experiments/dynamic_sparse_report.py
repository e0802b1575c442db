"""From the records of `experiments.dynamic_sparse` to its tables, figures and page."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from jaxfair import metrics, report
from jaxfair.report import figures
from jaxfair.report.figures import COLORS, new_figure, style

IN_WORDS = {
    "dense": "the dense network; all gaps are against it",
    "dense_again": "another initialisation and order of the data: the noise floor",
    "dense_longer": "the dense network, trained for as long again",
    "magnitude": "the smallest weights go, gradually, the same share of every layer (GMP)",
    "magnitude_global": "so, with all layers compared",
    "magnitude_erk": "so, with larger layers sparser (ERK)",
    "saliency": "gradually, the smallest |w g|",
    "fisher": "gradually, the smallest w² times the mean of g²",
    "movement": "gradually, the weights that moved least away from zero",
    "random": "gradually, in a random order",
    "static": "random masks (ERK) that never change",
    "set": "sparse from the start (ERK), small weights exchanged for random ones",
    "rigl": "sparse from the start (ERK), exchanged for those of the largest gradient",
    "acdc": "phases dense and sparse in turn",
    "ste": "dense weights trained straight through masks of the largest",
    "sr_ste": "so, with masked weights drawn to zero",
    "snip": "masks at initialisation, by connection sensitivity",
    "grasp": "masks at initialisation, by gradient flow",
    "synflow": "masks at initialisation, by synaptic flow, without data",
    "gmp": "the dense network, pruned gradually by magnitude",
    "fairgrape": "the dense network, in rounds that keep each group's share of importance",
    "ceag": "the dense network, gmp with a bound on every group's excess gap",
    "wanda": "the dense network, pruned at once by weight times input, then trained",
    "magnitude_once": "the dense network, pruned at once by magnitude, then trained",
}
CONTROLS = ("dense", "dense_again", "dense_longer")
FURTHER = ("gmp", "fairgrape", "ceag", "wanda", "magnitude_once")
PEER = "magnitude"
FAIR = ("fairgrape", "ceag")


def by_seed(frame: pd.DataFrame, column: str, **names: Any) -> np.ndarray:
    """``[S]`` values of one cell, in the order of the seeds."""
    chosen = frame
    for key, value in names.items():
        chosen = chosen[chosen[key] == value]
    return chosen.sort_values("seed")[column].to_numpy(float)


def paired(frame: pd.DataFrame, column: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    """The interval of a - b over the seeds that both have; None where there are less than two."""
    seeds = [set(by_seed(frame, "seed", **names)) for names in (a, b)]
    both = frame[frame["seed"].isin(seeds[0] & seeds[1])]
    if len(seeds[0] & seeds[1]) < 2:
        return None
    return metrics.paired_difference(by_seed(both, column, **a), by_seed(both, column, **b))


def said(interval: Any) -> str:
    """Mean and half-width in points."""
    return report.mean_and_half_width(interval.mean, interval.half_width)


def cells(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """What names each row of the table, from dense to sparse."""
    found = frame[["dataset", "sparsity", "method"]].drop_duplicates()
    order = {m: i for i, m in enumerate(IN_WORDS)}
    found = found.sort_values(
        ["dataset", "sparsity", "method"], key=lambda c: c.map(order) if c.name == "method" else c
    )
    return found.to_dict("records")


def main_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their intervals; accuracies and gaps in points."""
    rows = []
    for names in cells(frame):
        part = frame
        for key, value in names.items():
            part = part[part[key] == value]
        row = {
            "data": names["dataset"],
            "zeros (%)": f"{100 * part['pruned'].mean() / part['weights'].mean():.2f}",
            "method": names["method"],
        }
        columns = {
            "accuracy": "accuracy",
            "max_excess": "largest excess gap",
            "accuracy_train": "accuracy, train",
            "max_excess_train": "gap, train",
        }
        for column, title in columns.items():
            row[title] = said(metrics.t_interval(by_seed(part, column)))
        own, before, dense = (part[c].mean() for c in ("cost", "cost_before", "cost_dense"))
        row["cost"] = f"{own / dense:.2f}" + (
            f"\N{NO-BREAK SPACE}+\N{NO-BREAK SPACE}{before / dense:.0f}" if before else ""
        )
        row["seconds"] = f"{part['seconds'].median():.1f}"
        rows.append(row)
    return pd.DataFrame(rows)


def paired_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Each method less magnitude, and CEAG less FairGRAPE, on the same seeds."""
    rows = []
    for names in cells(frame):
        peers = [PEER] if names["method"] not in (PEER, *CONTROLS) else []
        peers += ["fairgrape", "gmp"] if names["method"] == "ceag" else []
        peers += ["gmp"] if names["method"] == "fairgrape" else []
        for peer in peers:
            found = {
                title: paired(frame, column, names, {**names, "method": peer})
                for column, title in {
                    "accuracy": "accuracy", "max_excess": "excess gap",
                    "max_excess_train": "gap, train",
                }.items()
            }  # fmt: skip
            if None in found.values():
                continue
            rows.append(
                {
                    "data": names["dataset"],
                    "zeros (%)": f"{100 * names['sparsity']:g}",
                    "difference": f"{names['method']} - {peer}",
                }
                | {title: said(interval) for title, interval in found.items()}
            )
    return pd.DataFrame(rows)


def rates_table(rates: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Accuracy on validation, in percent, of each method at each learning rate; the best is marked."""
    frame = pd.DataFrame(rates)
    order = [m for m in IN_WORDS if m in set(frame["method"])]
    wide = frame.pivot(index="method", columns="rate", values="accuracy").loc[order]
    best = wide.idxmax(axis="columns")
    return pd.DataFrame([
        {"method": method}
        | {
            f"{rate:g}": f"{100 * value:.1f}" + (" *" if rate == best[method] else "")
            for rate, value in row.items()
        }
        for method, row in wide.iterrows()
    ])  # fmt: skip


def _legend(figure: Any, handles: Mapping[str, Any]) -> None:
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6)


def curves(frame: pd.DataFrame) -> Any:
    """Figure 1: accuracy against the share of zeros; from scratch, and from the dense network.

    The view ends below where nine of ten means are, or one method that fails would make lines of all others.
    """
    datasets = list(frame["dataset"].drop_duplicates())
    look = figures.looks(IN_WORDS)
    with style():
        figure = new_figure(height=3.3 * len(datasets) + 1.2)
        panels = figure.subplots(len(datasets), 2, squeeze=False, sharey="row")
        handles: dict[str, Any] = {}
        for dataset, row in zip(datasets, panels, strict=True):
            part = frame[frame["dataset"] == dataset]
            shares = sorted(s for s in part["sparsity"].unique() if s > 0)
            methods = [m for m in IN_WORDS if m in set(part["method"]) and m not in CONTROLS]
            level, heights = 100 * part["accuracy_dense"].mean(), []
            for later, axes in enumerate(row):
                mine = [m for m in methods if (m in FURTHER) == bool(later)]
                for number, method in enumerate(mine):
                    points = []
                    for place, share in enumerate(shares):
                        values = by_seed(part, "accuracy", method=method, sparsity=share)
                        if len(values):
                            found = metrics.t_interval(100 * values)
                            # Side by side, or the bars hide each other.
                            x = place + 0.04 * (number - (len(mine) - 1) / 2)
                            points.append((x, found.mean, np.nan_to_num(found.half_width)))
                    if not points:
                        continue
                    x, y, dy = np.array(points).T
                    heights += [*y]
                    handles[method] = axes.errorbar(
                        x, y, yerr=dy, color=look[method].color, marker=look[method].marker,
                        linestyle=look[method].line, markersize=3.5, linewidth=0.9, elinewidth=0.7,
                    )  # fmt: skip
                axes.axhline(level, color="#888888", linewidth=0.8, linestyle=":")
                axes.grid(color="#e6e6e6", linewidth=0.6)
                axes.set_xticks(range(len(shares)), [f"{100 * s:g}" for s in shares])
                axes.set_xlim(-0.5, len(shares) - 0.5)
                axes.set_xlabel("zeros (%)")
                axes.set_title(f"{dataset}: from {'the dense network' if later else 'scratch'}")
            row[0].set_ylabel("accuracy on test (%)")
            if heights:
                low, high = np.quantile(heights, 0.1), max(*heights, level)
                margin = 0.35 * (high - low) + 0.5
                row[0].set_ylim(max(min(heights) - 0.5, low - margin), high + margin)
        _legend(figure, handles)
    return figure


def who_pays(frame: pd.DataFrame) -> Any:
    """Figure 2: each method's largest excess gap less magnitude's, a row per method and a panel per sparsity.

    At equal accuracy: a marker is full where the accuracies cannot be told apart, and hollow where the method is more
    (triangle up) or less accurate (down). The view ends at the widest interval of the full ones, of all if there are
    none, but not beyond two and a half of their median; a marker that lies there is at the edge.
    """
    datasets = list(frame["dataset"].drop_duplicates())
    shares = sorted(s for s in frame["sparsity"].unique() if s > 0)
    methods = [m for m in IN_WORDS if m in set(frame["method"]) and m not in (PEER, *CONTROLS)]
    with style():
        figure = new_figure(height=(0.18 * len(methods) + 0.9) * len(datasets) + 0.4)
        panels = figure.subplots(len(datasets), len(shares), squeeze=False, sharey=True)
        for dataset, row in zip(datasets, panels, strict=True):
            part = frame[frame["dataset"] == dataset]
            for share, axes in zip(shares, row, strict=True):
                found = {}
                for place, method in enumerate(methods):
                    names = {"method": method, "sparsity": share}
                    gap, accuracy = (
                        paired(part, c, names, names | {"method": PEER})
                        for c in ("max_excess", "accuracy")
                    )
                    if gap is not None and accuracy is not None:
                        found[place] = (
                            100 * gap.mean,
                            100 * np.nan_to_num(gap.half_width),
                            accuracy,
                        )
                reach = {p: abs(m) + h for p, (m, h, _) in found.items()}
                equal = [reach[p] for p, (_, _, a) in found.items() if a.low <= 0 <= a.high]
                widths = equal or [*reach.values()] or [1.0]
                edge = 1.05 * min(max(widths), 2.5 * float(np.median(widths)))
                for place, (middle, half, accuracy) in found.items():
                    same = accuracy.low <= 0 <= accuracy.high
                    shown, half = (
                        (middle, half)
                        if abs(middle) < edge
                        else (np.sign(middle) * 0.97 * edge, 0.0)
                    )
                    axes.errorbar(
                        [shown], [place], xerr=[half],
                        marker="o" if same else "^" if accuracy.mean > 0 else "v", markersize=4,
                        markerfacecolor=COLORS[0] if same else "white", color=COLORS[0],
                        elinewidth=0.8, linestyle="none",
                    )  # fmt: skip
                axes.axvline(0, color="#888888", linewidth=0.8)
                axes.set_xlim(-edge, edge)
                axes.set_ylim(len(methods) - 0.5, -0.5)
                axes.set_yticks(range(len(methods)), methods)
                axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
                axes.set_title(f"{dataset}: {100 * share:g} % zeros")
        figure.supxlabel("largest excess gap less that of magnitude (points)", fontsize="medium")
    return figure


def extremes(frame: pd.DataFrame) -> pd.DataFrame:
    """The smallest gap, the most accurate method, and how ranks by both go together."""
    rows = []
    for (dataset, share), here in frame[frame["sparsity"] > 0].groupby(["dataset", "sparsity"]):
        methods = [m for m in IN_WORDS if m in set(here["method"])]
        accuracy, gap = (
            np.array([by_seed(here, c, method=m).mean() for m in methods])
            for c in ("accuracy", "max_excess")
        )
        least, best = int(gap.argmin()), int(accuracy.argmax())
        a, b = _ranks(accuracy), _ranks(gap)
        related = np.corrcoef(a, b)[0, 1] if a.std() > 0 and b.std() > 0 else np.nan
        rows.append({
            "data": dataset, "zeros (%)": f"{100 * share:g}",
            "smallest gap": f"{methods[least]} ({100 * gap[least]:.1f}; accuracy {100 * accuracy[least]:.1f})",
            "most accurate": f"{methods[best]} ({100 * accuracy[best]:.1f}; gap {100 * gap[best]:.1f})",
            "methods": len(methods),
            "rank correlation": f"{related:.2f}" if np.isfinite(related) else "–",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _ranks(values: Any) -> np.ndarray:
    return pd.Series(values).rank().to_numpy()


def points(interval: Any) -> str:
    """A difference in points, with its sign."""
    return f"{100 * interval.mean:+.1f} ± {100 * interval.half_width:.1f}"


def headline(frame: pd.DataFrame) -> list[str]:
    """What was found, whichever way it falls."""
    text = []
    for dataset in frame["dataset"].drop_duplicates():
        part = frame[frame["dataset"] == dataset]
        floor = by_seed(part, "max_excess", method="dense_again", sparsity=0.0)
        dense = by_seed(part, "accuracy", method="dense", sparsity=0.0)
        line = (
            f"{dataset}, {part['seed'].nunique()} seeds, dense accuracy {100 * dense.mean():.1f} %."
        )
        if len(floor):
            line += f" Noise floor: of two dense networks the largest excess gap is {100 * floor.mean():.1f} points."
        text.append(line)
        better, worse, compared = [], [], 0
        for share in sorted(s for s in part["sparsity"].unique() if s > 0):
            here = part[part["sparsity"] == share]
            methods = [m for m in IN_WORDS if m in set(here["method"])]
            for method in methods:
                if method == PEER or PEER not in methods:
                    continue
                names, peer = (
                    {"method": method, "sparsity": share},
                    {"method": PEER, "sparsity": share},
                )
                accuracy, gap = (paired(part, c, names, peer) for c in ("accuracy", "max_excess"))
                if accuracy is None or not accuracy.low <= 0 <= accuracy.high:
                    continue  # not at an accuracy that cannot be told from magnitude's
                compared += 1
                if gap.high < 0:
                    better.append(f"{method} at {100 * share:g} % ({points(gap)})")
                elif gap.low > 0:
                    worse.append(f"{method} at {100 * share:g} % ({points(gap)})")
        if compared:
            text.append(
                f"Of {compared} comparisons in which a method is as accurate as magnitude, as far as these seeds tell, "
                f"the gap is smaller beyond the interval in {len(better)}"
                + (f": {'; '.join(better)}" if better else "")
                + f"; larger in {len(worse)}"
                + (f": {'; '.join(worse)}" if worse else "")
                + f". Chance alone would give about {compared / 20:.1f}."
            )
        text += fair(part)
    return text


def fair(part: pd.DataFrame) -> list[str]:
    """CEAG beside FairGRAPE, on one dataset."""
    if not set(FAIR) <= set(part["method"]):
        return []
    lines = []
    for share in sorted(s for s in part["sparsity"].unique() if s > 0):
        ceag, grape = ({"method": m, "sparsity": share} for m in ("ceag", "fairgrape"))
        gap, accuracy = (paired(part, c, ceag, grape) for c in ("max_excess", "accuracy"))
        if gap is None:
            continue
        verdict = "smaller" if gap.high < 0 else "larger" if gap.low > 0 else "not told apart"
        lines.append(
            f"{100 * share:g} %: gap {points(gap)} ({verdict}), accuracy {points(accuracy)}"
        )
    return [f"CEAG less FairGRAPE, in points: {'; '.join(lines)}."] if lines else []


def write(
    folder: pathlib.Path,
    settings: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    rates: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Writes all files of the run, and prints the table."""
    frame = pd.DataFrame(records)
    table, differences, first = main_table(frame), paired_table(frame), curves(frame)
    found, ends = headline(frame), extremes(frame)
    report.write_table(table, folder, "table", numbers=frame)
    figures.save(first, folder / "figures", "accuracy")

    def block(of: pd.DataFrame, caption: str, note: str) -> report.Table:
        return report.Table(
            columns=list(of.columns), rows=of.to_numpy().tolist(), caption=caption, note=note
        )

    note = (
        "Accuracy and gaps in points, on test unless it says train; mean and half-width of the 95 % t interval over "
        "seeds. Largest excess gap: what the group that lost most against the dense network of the same seed lost "
        "beyond what all lost; the largest of noisy numbers, so above 0 by chance alone: compare with dense_again. "
        "Cost: multiply-adds of the training, with the masks as they were at every step, over those of dense "
        "training; + 1 where a dense network was trained before. FairGRAPE's importances are counted, scores and "
        "masks that are taken once are not. Seconds: of the compiled calls, all seeds side by side."
    )
    ends_note = (
        "Means over seeds, in points, on test. The best of many noisy numbers flatters; a rank correlation of -1 means "
        "that the more accurate method always has the smaller gap."
    )
    blocks = [block(ends, "The ends of the table.", ends_note)] if len(ends) else []
    blocks += [block(table, "Every method at every sparsity.", note)]
    if len(differences):
        report.write_table(differences, folder, "paired")
        blocks.append(
            block(
                differences,
                "Paired differences on the same seeds, in points.",
                "An interval without 0 is a difference; of twenty comparisons one is by chance. More accuracy is "
                "better, a smaller gap is better. What starts from the dense network was trained twice as long.",
            )
        )
    if rates:
        blocks.append(
            block(
                rates_table(rates),
                "Learning rates (columns), and which each method has (*).",
                "Accuracy on the validation split, in percent, of one network each, whose seed is not in the "
                "comparison. The controls and the network that others start from have that of dense.",
            )
        )
    pictures = [
        report.Picture(
            data=figures.svg(first),
            caption="Accuracy against sparsity (dotted: dense). Bars are 95 % intervals over seeds; what lies below"
            " the view is in the table.",
            alt="accuracy against sparsity, a line per method; the numbers are in the table",
        ),
    ]
    compared = differences.get("difference", pd.Series(dtype=str)).str.endswith(f" - {PEER}")
    if compared.any():
        second = who_pays(frame)
        figures.save(second, folder / "figures", "who_pays")
        pictures.append(
            report.Picture(
                data=figures.svg(second),
                caption="Who pays, at equal accuracy: the largest excess gap less that of gradual magnitude pruning "
                "from scratch, with 95 % intervals over the same seeds. Left of the line harms less. Full: as accurate "
                "as magnitude, as far as these seeds tell; triangles up and down: more and less accurate. What lies "
                "beyond the view is at its edge, without its interval.",
                alt="; ".join(found),
            )
        )
    page = report.Page(
        title="Sparse training",
        subtitle="Which way to a sparse network harms groups least?",
        summary=found,
        sections=[
            report.Section(title="Accuracy, and who pays", blocks=pictures),
            report.Section(title="Numbers", blocks=blocks),
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
                    "All methods have the same optimizer, the same examples at each step and the same number of steps; "
                    "those that start from the dense network have as many again. "
                    + (
                        "On CIFAR-10 each has its own learning rate, chosen on validation. "
                        if rates
                        else ""
                    )
                    + "The last iterate counts, and test is only measured. Numbers of zeros are exact.",
                ],
            ),
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
    for line in found:
        console.print(line, highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)
