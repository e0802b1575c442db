"""What a run of `dual_dynamics` found: effects with intervals, targets, figures and the page, from its records alone.

Records may be few: what they do not suffice for is left out, and the page says what is missing. Nothing here trains.
"""

import importlib.metadata
import itertools
import math
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import scipy.stats
from rich.console import Console

from experiments import dual_dynamics_design as design
from jaxfair import metrics, report
from jaxfair.report import figures
from jaxfair.report.figures import COLORS, DARK, new_figure, style

#: Of how many runs naive fine-tuning must violate the bound for it to be worth constraining.
ACTIVE = 0.8
#: The library's default on three kinds of batches, and on one of them at a rate of 1 an epoch.
RECIPES = ("recipe", "recipe_balanced", "recipe_root", "recipe_epoch")
BASELINES = ("nft_balanced", "nft_distilled", "nft_threshold")
#: Data sets on which a gap of the test split can be told from noise, so that a win may be claimed there.
TESTED = ("adult_label", "planted", "planted_many", "cifar10")
NAMES = {
    "adult_label": "Adult, sex x label", "adult_race": "Adult, race x sex", "planted": "planted minority",
    "planted_many": "planted, many groups", "cifar10": "CIFAR-10, classes",
}  # fmt: skip
#: Gaps below this are told apart no more when logarithms are taken: a tenth of a point.
SMALLEST = 1e-3

Record = Mapping[str, Any]


class Fit(NamedTuple):
    """A linear model of the screened cells.

    Attributes:
      terms: of each column.
      beta: ``[P]``.
      covariance: ``[P, P]``.
      df: residual degrees of freedom.
      residual: residual variance.
      matrix: ``[R, P]``.
      response: ``[R]``.
    """

    terms: list[str]
    beta: np.ndarray
    covariance: np.ndarray
    df: int
    residual: float
    matrix: np.ndarray
    response: np.ndarray


def is_active(nft: Sequence[Record]) -> bool:
    """Whether naive fine-tuning, its last iterate, violates the bound in at least 4 of 5 runs."""
    over = [r["last"]["train"]["violation"] > 0 for r in nft]
    return bool(over) and float(np.mean(over)) >= ACTIVE


def fit(settings: Sequence[Mapping[str, Any]], response: np.ndarray) -> Fit | None:
    """Ordinary least squares with interactions; without them where the cells are too few; None for fewer still."""
    for interactions in (design.INTERACTIONS, ()):
        matrix, terms = design.model_matrix([dict(s) for s in settings], interactions)
        df = len(matrix) - matrix.shape[1]
        if df < 2 or np.linalg.matrix_rank(matrix) < matrix.shape[1]:
            continue
        inverse = np.linalg.inv(matrix.T @ matrix)
        beta = inverse @ matrix.T @ response
        residual = float(np.sum((response - matrix @ beta) ** 2) / df)
        return Fit(terms, beta, residual * inverse, df, residual, matrix, np.asarray(response))
    return None


def predicted_best(
    settings: Sequence[Mapping[str, Any]],
    response: np.ndarray,
    without: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
    """The setting, of all combinations, for which the model predicts the least response."""
    found = fit(settings, response)
    if found is None:
        return None
    everything = [
        dict(zip(design.LEVELS, values, strict=True))
        for values in itertools.product(*design.LEVELS.values())
    ]
    interactions = design.INTERACTIONS if any(" x " in t for t in found.terms) else ()
    matrix, _ = design.model_matrix(everything, interactions)
    for index in np.argsort(matrix @ found.beta, kind="stable"):
        if everything[index] not in list(without):
            return everything[index]
    return None


class Runs:
    """The records, by what they are of."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.runs = [r for r in records if r["of"] == "run"]
        self.dense = [r for r in records if r["of"] == "dense"]
        self.choice = next((r["settings"] for r in records if r["of"] == "choice"), {})
        self.sets = list(dict.fromkeys(r["data_set"] for r in self.runs))
        #: The split on which rates and tolerances are varied.
        self.first_split = min(
            (r["split"] for r in self.runs if r["stage"] == "confirm"), default=1
        )

    def of(self, stage: str, data_set: str, cell: str) -> dict[tuple[int, int], Record]:
        """(split, seed) -> record."""
        return {
            (r["split"], r["seed"]): r for r in self.runs
            if (r["stage"], r["data_set"], r["cell"]) == (stage, data_set, cell)
        }  # fmt: skip

    def cells(self, stage: str, data_set: str) -> list[str]:
        """In the order in which they were played."""
        return list(dict.fromkeys(
            r["cell"] for r in self.runs if (r["stage"], r["data_set"]) == (stage, data_set)
        ))  # fmt: skip

    def active(self, data_set: str) -> bool:
        """By all runs of naive fine-tuning in the confirmation, or else in the screening."""
        for stage in ("confirm", "screen"):
            found = list(self.of(stage, data_set, "nft").values())
            if found:
                return is_active(found)
        return False

    def screened(self, data_set: str) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """Settings of the design's cells, and responses per cell, means over seeds.

        A run that failed counts as the worst that was measured on the data set: to leave it out would praise its cell.
        """
        cells = [cell for cell in self.cells("screen", data_set) if cell.isdigit()]
        rows = {cell: list(self.of("screen", data_set, cell).values()) for cell in cells}
        last = [r["last"]["train"] for of in rows.values() for r in of if r["failed_at"] < 0]
        if not last:
            return [], {}
        gap = max(t["gap"] for t in last)
        accuracy = min(t["accuracy"] for t in last)
        responses: dict[str, list[float]] = {"gap": [], "accuracy": []}
        for of in rows.values():
            measured = [r["last"]["train"] if r["failed_at"] < 0 else None for r in of]
            gaps = [gap if t is None else t["gap"] for t in measured]
            right = [accuracy if t is None else t["accuracy"] for t in measured]
            responses["gap"].append(float(np.mean(np.log2(np.maximum(gaps, SMALLEST)))))
            responses["accuracy"].append(100 * float(np.mean(right)))
        settings = [dict(of[0]["setting"]) for of in rows.values()]
        return settings, {name: np.array(values) for name, values in responses.items()}


def paired(a: Mapping[Any, Record], b: Mapping[Any, Record], value: Any) -> tuple[Any, np.ndarray]:
    """The interval of the differences of the runs that both have, and the differences."""
    at = [k for k in a if k in b]
    x, y = (np.array([value(of[k]) for k in at]) for of in (a, b))
    ok = np.isfinite(x) & np.isfinite(y)
    return metrics.paired_difference(x[ok], y[ok]), (x - y)[ok]


def _t(values: Sequence[float], digits: int = 2) -> str:
    finite = np.array([v for v in values if math.isfinite(v)])
    found = metrics.t_interval(finite)
    return (
        report.mean_and_half_width(found.mean, found.half_width, digits=digits)
        if len(finite)
        else "–"
    )


# --- effects -----------------------------------------------------------------------------------------------------


def effects_table(runs: Runs) -> pd.DataFrame:
    """Each level against the factor's first, published one: per data set and response."""
    rows = []
    for data_set in runs.sets:
        settings, responses = runs.screened(data_set)
        for name, response in responses.items():
            found = fit(settings, response) if len(settings) else None
            if found is None:
                continue
            quantile = scipy.stats.t.ppf(0.975, found.df)
            for factor, levels in design.LEVELS.items():
                columns = [i for i, t in enumerate(found.terms) if t == factor]
                coded = design.contrasts(factor, levels)
                for level, code in zip(levels[1:], coded[1:], strict=True):
                    difference = code - coded[0]
                    value = float(difference @ found.beta[columns])
                    part = found.covariance[np.ix_(columns, columns)]
                    half = float(quantile * math.sqrt(difference @ part @ difference))
                    rows.append({
                        "data set": data_set, "response": name, "factor": factor, "level": str(level),
                        "against": str(levels[0]), "effect": value, "low": value - half, "high": value + half,
                        "df": found.df,
                    })  # fmt: skip
    return pd.DataFrame(rows)


def terms_table(runs: Runs) -> pd.DataFrame:
    """F tests of all terms of the model of the gap, per data set."""
    found = {}
    for data_set in runs.sets:
        settings, responses = runs.screened(data_set)
        model = fit(settings, responses["gap"]) if len(settings) else None
        if model is None:
            continue
        for term in dict.fromkeys(model.terms[1:]):
            kept = [i for i, t in enumerate(model.terms) if t != term]
            degrees = len(model.terms) - len(kept)
            reduced = model.matrix[:, kept]
            rest = model.response - reduced @ np.linalg.lstsq(reduced, model.response)[0]
            extra = float(rest @ rest) - model.residual * model.df
            ratio = extra / degrees / max(model.residual, 1e-12)
            p = float(scipy.stats.f.sf(ratio, degrees, model.df))
            found.setdefault(term, {"term": term, "df": degrees})[NAMES[data_set]] = (
                f"{ratio:.1f} ({'p < 0.001' if p < 0.001 else f'p = {p:.3f}'})"
            )
    return pd.DataFrame(list(found.values())).fillna("–") if found else pd.DataFrame()


def say_effect(row: Mapping[str, Any]) -> str:
    """``x 0.42 (0.30 to 0.58)`` of gaps, points of accuracy."""
    values = [row["effect"], row["low"], row["high"]]
    if row["response"] == "gap":
        a, b, c = (2.0**v for v in values)
        return f"{a:.2f} ({b:.2f} to {c:.2f})"
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*values)


def readable_effects(effects: pd.DataFrame, response: str) -> pd.DataFrame:
    """A row per level, a column per data set."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in effects[effects["response"] == response].to_dict("records"):
        at = (row["factor"], row["level"])
        line = rows.setdefault(
            at, {"factor": row["factor"], "level": f"{row['level']} (against {row['against']})"}
        )
        line[NAMES[row["data set"]]] = say_effect(row)
    return pd.DataFrame(list(rows.values())).fillna("–")


def say_optimizers(effects: pd.DataFrame) -> list[str]:
    """What the three methods with memory bring to multipliers, each in a sentence."""
    if not len(effects):
        return []
    lines = []
    for level in design.LEVELS["optimizer"][1:]:
        rows = effects[
            (effects["factor"] == "optimizer") & (effects["level"] == level) & (effects["response"] == "gap")
        ].to_dict("records")  # fmt: skip
        better = [NAMES[r["data set"]] for r in rows if r["high"] < 0]
        worse = [NAMES[r["data set"]] for r in rows if r["low"] > 0]
        words = [f"smaller gaps on {', '.join(better)}"] if better else []
        words += [f"larger gaps on {', '.join(worse)}"] if worse else []
        numbers = "; ".join(f"{NAMES[r['data set']]}: x {say_effect(r)}" for r in rows)
        verdict = " and ".join(words) or "no difference that the screening can tell from 0"
        lines.append(f"{level} against gradient ascent: {verdict} ({numbers}).")
    return lines


# --- tables of the confirmation ----------------------------------------------------------------------------------


def method_table(runs: Runs) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every method on every data set: text and numbers."""
    text, numbers = [], []
    for data_set in runs.sets:
        active = runs.active(data_set)
        nft = runs.of("confirm", data_set, "nft")
        played = runs.cells("confirm", data_set)
        first = [c for c in ("nft", *BASELINES, "published", *RECIPES) if c in played]
        for cell in dict.fromkeys([*first, *sorted(played)]):
            found = runs.of("confirm", data_set, cell)
            rows = list(found.values())
            met = {
                w: sum(r[w]["train"]["violation"] <= 0 for r in rows) for w in ("last", "delivered")
            }
            joint = sum(is_joint(found[k], nft[k]) for k in found if k in nft)
            values = {
                f"{what}, {which}": [r[which][split][key] for r in rows]
                for what, split, key in (
                    ("train gap", "train", "gap"), ("by chance", "train", "by_chance"),
                    ("train accuracy", "train", "accuracy"),
                    ("test gap", "test", "gap_large"), ("test accuracy", "test", "accuracy"),
                )
                for which in ("last", "delivered")
            }  # fmt: skip
            row = {"data set": NAMES[data_set], "method": cell}
            text.append(row | {
                "train gap, last": _t(values["train gap, last"]),
                "train gap": _t(values["train gap, delivered"]),
                "by chance": _t(values["by chance, delivered"]),
                "met, last": f"{met['last']} of {len(rows)}",
                "met": f"{met['delivered']} of {len(rows)}" + ("" if active else "; inactive"),
                "met and accurate": f"{joint} of {len(rows)}",
                "train accuracy": _t(values["train accuracy, delivered"]),
                "test gap": _t(values["test gap, delivered"]),
                "test accuracy": _t(values["test accuracy, delivered"]),
            })  # fmt: skip
            numbers.append(row | {"runs": len(rows), "met, last": met["last"], "met": met["delivered"],
                                  "met and accurate": joint, "active": active}
                           | {k: float(np.nanmean(v)) if np.isfinite(v).any() else math.nan
                              for k, v in values.items()})  # fmt: skip
        floor = [
            r["retrained"]["test"]["gap_large"]
            for r in runs.dense
            if r["data_set"] == data_set and r["split"]
        ]
        if floor and nft:
            text.append(
                {"data set": NAMES[data_set], "method": "dense, retrained", "test gap": _t(floor)}
            )
    return pd.DataFrame(text).fillna("–"), pd.DataFrame(numbers)


def is_joint(run: Record, nft: Record, allowed: float = 0.003) -> bool:
    """Whether a delivered network meets the tolerance, and is as accurate as the last iterate of naive fine-tuning."""
    mine = run["delivered"]["train"]
    return mine["violation"] <= 0 and mine["accuracy"] >= nft["last"]["train"]["accuracy"] - allowed


def best_baseline(runs: Runs, data_set: str) -> str | None:
    """Of NFT and the baselines that with the smallest mean gap on test; best of four, so it is flattered a little."""
    means = {}
    for cell in ("nft", *BASELINES):
        gaps = [
            r["delivered"]["test"]["gap_large"] for r in runs.of("confirm", data_set, cell).values()
        ]
        if gaps and np.isfinite(gaps).any():
            means[cell] = float(np.nanmean(gaps))
    return min(means, key=lambda cell: means[cell]) if means else None


def paired_table(runs: Runs) -> pd.DataFrame:
    """Test gaps of the constrained methods less those of each baseline, the same splits and seeds."""
    rows = []
    for data_set in runs.sets:
        best = best_baseline(runs, data_set)
        for cell in (*RECIPES, "published", *runs.choice):
            mine = runs.of("confirm", data_set, cell)
            for baseline in ("nft", *BASELINES):
                theirs = runs.of("confirm", data_set, baseline)
                if not set(mine) & set(theirs):
                    continue
                line = {"data set": NAMES[data_set], "difference": f"{cell} − {baseline}"
                        + (" (best)" if baseline == best else "")}  # fmt: skip
                for name, split, key in (("train gap", "train", "gap"), ("test gap", "test", "gap_large"),
                                         ("test accuracy", "test", "accuracy")):  # fmt: skip
                    found, _ = paired(mine, theirs, lambda r, s=split, k=key: r["delivered"][s][k])
                    line[name] = report.mean_and_half_width(found.mean, found.half_width)
                rows.append(line)
    return pd.DataFrame(rows)


def by_rate(runs: Runs, data_set: str, cell: str) -> dict[float, list[Record]]:
    """Dual rate -> runs on the first split, from the confirmation and from the frontier."""
    seeds = {r["seed"] for r in runs.runs if r["stage"] == "frontier"}
    found: dict[float, list[Record]] = {}
    for r in runs.runs:
        own = (r["stage"], r["cell"], r["split"]) == ("confirm", cell, runs.first_split) and r[
            "seed"
        ] in seeds
        varied = r["stage"] == "frontier" and r["cell"].startswith(f"{cell} rate ")
        if r["data_set"] == data_set and (own or varied):
            found.setdefault(r["setting"]["rate"], []).append(r)
    return dict(sorted(found.items()))


def target_rows(runs: Runs, tolerance: float) -> list[dict[str, Any]]:
    """The targets for every constrained method on every data set, with the number that was reached."""
    rows = []
    for data_set in runs.sets:
        active = runs.active(data_set)
        nft = runs.of("confirm", data_set, "nft")
        for cell in (*RECIPES, *runs.choice):
            mine = runs.of("confirm", data_set, cell)
            shared = [k for k in mine if k in nft]

            def add(
                target: str, reached: bool, value: str, data_set: Any = data_set, cell: Any = cell,
                active: Any = active,
            ) -> None:  # fmt: skip
                state = "inactive" if not active else "reached" if reached else "not reached"
                rows.append({"data set": data_set, "method": cell, "target": target, "value": value,
                             "state": state})  # fmt: skip

            if shared:
                joint = sum(is_joint(mine[k], nft[k]) for k in shared)
                add("train: met, and accuracy at least NFT's − 0.3 points, in 90 % of the runs",
                    joint >= 0.9 * len(shared), f"{joint} of {len(shared)}")  # fmt: skip
            rates = by_rate(runs, data_set, cell)
            # With few records there is only the method's own rate: that is no sweep.
            if len(rates) > 1:
                gaps = {rate: np.array([r["delivered"]["train"]["gap"] for r in found])
                        for rate, found in rates.items()}  # fmt: skip
                # A mean with a run that failed is nan, which is below no bound: hence `all` below and not `max`.
                means = {rate: float(np.mean(g)) for rate, g in gaps.items()}
                shown = ", ".join(f"{rate:g}: {report.points(m)}" for rate, m in means.items())
                inner = [m for rate, m in means.items() if rate in (0.01, 0.1)]
                add(f"train: mean gap at most {report.points(tolerance)} at dual rates .01 and .1",
                    bool(inner) and all(m <= tolerance for m in inner), shown)  # fmt: skip
                add(f"train: mean gap at most {report.points(1.5 * tolerance)} from .001 to 1",
                    all(m <= 1.5 * tolerance for m in means.values()), shown)  # fmt: skip
                pairs = [
                    (r, nft.get((r["split"], r["seed"]))) for found in rates.values() for r in found
                ]
                losses = [n["last"]["train"]["accuracy"] - r["delivered"]["train"]["accuracy"]
                          for r, n in pairs if n is not None]  # fmt: skip
                both = all(r["delivered"]["train"]["both"] for r, _ in pairs)
                worst = float(np.max(losses, initial=-1.0))  # nan, of a run that failed, stays
                add("every rate: accuracy at least NFT's − 2 points, both classes in every group of 100",
                    worst <= 0.02 and both,
                    f"largest loss {report.points(worst)}, both classes: {'yes' if both else 'no'}")  # fmt: skip
            best = best_baseline(runs, data_set)
            if best is not None and shared:
                found, _ = paired(mine, runs.of("confirm", data_set, best),
                                  lambda r: r["delivered"]["test"]["gap_large"])  # fmt: skip
                value = (
                    f"{report.mean_and_half_width(found.mean, found.half_width)} (against {best})"
                )
                if data_set in TESTED:
                    add(
                        "test: gap below the best baseline's, interval below 0",
                        bool(found.high < 0),
                        value,
                    )
                else:
                    rows.append({"data set": data_set, "method": cell, "state": "shown only", "value": value,
                                 "target": "test: gap less the best baseline's, within the noise"})  # fmt: skip
    return rows


# --- figures -----------------------------------------------------------------------------------------------------


def _panels(count: int, height: float, columns: int = 2) -> tuple[Any, list[Any]]:
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = new_figure(height=0.6 + height * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, list(grid[:count])


def effects_figure(effects: pd.DataFrame) -> Any:
    """Factors by which the largest gap on train is multiplied, a panel per data set; hollow where 1 is inside."""
    rows = effects[effects["response"] == "gap"]
    sets = list(dict.fromkeys(rows["data set"]))
    labels = [
        f"{r['factor']}: {r['level']}" for r in rows[rows["data set"] == sets[0]].to_dict("records")
    ]
    with style():
        figure, grid = _panels(len(sets), 0.75 + 0.17 * len(labels))
        for number, (axes, data_set) in enumerate(zip(grid, sets, strict=True)):
            mine = rows[rows["data set"] == data_set].to_dict("records")
            for y, row in enumerate(mine):
                sure = row["low"] > 0 or row["high"] < 0
                color = COLORS[0] if row["effect"] < 0 else COLORS[1]
                axes.plot([2.0 ** row["low"], 2.0 ** row["high"]], [y, y], color=color)
                axes.plot(2.0 ** row["effect"], y, marker="o" if row["effect"] < 0 else "s", color=color,
                          markerfacecolor=color if sure else "white", markersize=5)  # fmt: skip
            axes.axvline(1, color=DARK, linewidth=0.8, zorder=0.5)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.set_yticks(range(len(mine)), labels if number % 2 == 0 else [""] * len(mine))
            axes.set_ylim(len(mine) - 0.5, -0.5)
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
            axes.set_title(NAMES[data_set])
            axes.set_xlabel("gap multiplied by")
    return figure


def rates_figure(runs: Runs, sets: Sequence[str], cells: Sequence[str], tolerance: float) -> Any:
    """Over the dual rate: the largest gap of the delivered network on train above, its accuracy below."""
    look = figures.looks(cells)
    shown = {}
    with style():
        figure = new_figure(height=4.6)
        grid = figure.subplots(2, len(sets), squeeze=False, sharex=True)
        for column, data_set in zip(grid.T, sets, strict=True):
            for cell in cells:
                rates = by_rate(runs, data_set, cell)
                for axes, key in zip(column, ("gap", "accuracy"), strict=True):
                    values = [
                        [100 * r["delivered"]["train"][key] for r in rows]
                        for rows in rates.values()
                    ]
                    if not values:
                        continue
                    color, marker, line = look[cell]
                    (shown[cell],) = axes.plot(
                        list(rates), [np.mean(v) for v in values], color=color, marker=marker, linestyle=line,
                        markersize=4,
                    )  # fmt: skip
                    for rate, seeds in zip(rates, values, strict=True):
                        axes.plot(
                            [rate] * len(seeds), seeds, marker, color=color, markersize=2, alpha=0.6
                        )
            column[0].set_title(NAMES[data_set], fontsize=8)
            column[0].axhline(100 * tolerance, color=DARK, linestyle=(0, (6, 3)), linewidth=1)
            column[1].set_xscale("log")
            column[1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            column[1].minorticks_off()
            column[1].set_xlabel("dual rate")
        grid[0][0].set_ylabel("largest gap (points)")
        grid[1][0].set_ylabel("accuracy (%)")
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=4)
    return figure


def frontier_figure(runs: Runs, sets: Sequence[str], cells: Sequence[str]) -> Any:
    """Accuracy against the largest gap, delivered, on train: lines over tolerances, faint ones over rates."""
    look = figures.looks(cells)
    shown: dict[str, Any] = {}
    with style():
        figure, grid = _panels(len(sets), 2.4)
        for axes, data_set in zip(grid, sets, strict=True):
            for cell in cells:
                color, marker, line = look[cell]
                for kind in ("tolerance", "rate"):
                    found: dict[str, list[Record]] = {}
                    for r in runs.runs:
                        if r["data_set"] == data_set and r["cell"].startswith(f"{cell} {kind} "):
                            found.setdefault(r["cell"], []).append(r)
                    own = [
                        r
                        for (split, _), r in runs.of("confirm", data_set, cell).items()
                        if split == runs.first_split
                    ]
                    groups = list(found.values()) + ([own] if own and found else [])
                    points = sorted(
                        tuple(np.mean([100 * r["delivered"]["train"][k] for r in rows]) for k in ("gap", "accuracy"))
                        for rows in groups
                    )  # fmt: skip
                    if not points:
                        continue
                    x, y = zip(*points, strict=True)
                    (drawn,) = axes.plot(
                        x, y, color=color, marker=marker, markersize=4,
                        linestyle=line if kind == "tolerance" else "none",
                        markerfacecolor=color if kind == "tolerance" else "white",
                    )  # fmt: skip
                    shown[f"{cell}, over {kind}s"] = drawn
            axes.set_title(NAMES[data_set])
            axes.set_xlabel("largest gap on train (points)")
            axes.grid(color="#e6e6e6", linewidth=0.6)
        grid[0].set_ylabel("accuracy on train (%)")
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=3)
    return figure


def tradeoff(runs: Runs, data_set: str, tolerance: float) -> Any:
    """Delivered networks, and naive fine-tuning's last: accuracy against the largest gap."""
    panels: dict[str, dict[str, Any]] = {}
    for split, key in (("train", "gap"), ("test", "gap_large")):
        for cell in runs.cells("confirm", data_set):
            rows = list(runs.of("confirm", data_set, cell).values())
            for name, which in {cell: "delivered"}.items() | (
                {"nft (last)": "last"}.items() if cell == "nft" else set()
            ):
                panels.setdefault(split, {})[name] = tuple(
                    np.array([r[which][split][k] for r in rows]) for k in (key, "accuracy")
                )
    order = sorted(panels["train"])
    panels = {
        s: {m: of[m] for m in order if np.isfinite(of[m][0]).any()} for s, of in panels.items()
    }
    return figures.accuracy_against_gap(
        {s: of for s, of in panels.items() if of}, tolerance=tolerance
    )


def path_figure(runs: Runs, data_set: str, cells: Sequence[str], tolerance: float) -> Any | None:
    """Gaps and multipliers during training, means over runs."""
    paths, epochs = {}, None
    for cell in cells:
        rows = list(runs.of("confirm", data_set, cell).values()) or list(
            runs.of("screen", data_set, cell).values()
        )
        rows = [r for r in rows if r["failed_at"] < 0]
        if rows:
            epochs = rows[0]["path"]["epochs"]
            paths[cell] = figures.Trajectory(
                *(np.mean([r["path"][k] for r in rows], axis=0) for k in ("gaps", "multipliers"))
            )
    if not paths:
        return None
    about = next(r for r in runs.dense if r["data_set"] == data_set)
    names = (
        about["groups"] if about["num_groups"] <= 12 else ["largest", "90 %", "median", "smallest"]
    )
    return figures.trajectories(
        np.array(epochs),
        paths,
        tolerance=tolerance,
        pruning_end=np.array(about["prune"]),
        names=names,
    )


def draw(runs: Runs, effects: pd.DataFrame, tolerance: float) -> dict[str, tuple[Any, str, str]]:
    """The figures: name -> (figure, caption, alternative text)."""
    drawn: dict[str, tuple[Any, str, str]] = {}
    if len(effects):
        strong = effects[
            (effects["response"] == "gap") & ((effects["low"] > 0) | (effects["high"] < 0))
        ]
        words = "; ".join(f"{r['factor']} {r['level']} on {r['data set']}: {say_effect(r)}"
                          for r in strong.to_dict("records"))  # fmt: skip
        drawn["effects"] = (
            effects_figure(effects),
            "Main effects of the screening: the factor by which the largest gap of the last iterate on train is "
            "multiplied when a level takes the place of the published one, with 95 % intervals. Left of 1 (round "
            "markers) is better; filled where the interval leaves out 1.",
            words or "No effect can be told from none.",
        )
    cells = ["published", *RECIPES, *list(runs.choice)[:1]]
    sets = [d for d in runs.sets if any(len(by_rate(runs, d, c)) > 1 for c in cells)]
    if sets:
        drawn["rates"] = (
            rates_figure(runs, sets, cells, tolerance),
            "The largest gap (above; the dashed line is the tolerance) and the accuracy (below) of the delivered "
            "network on train, over the dual rate. Small points are seeds.",
            "; ".join(
                f"{NAMES[d]}, {c}: " + ", ".join(
                    f"{rate:g} {100 * np.mean([r['delivered']['train']['gap'] for r in rows]):.2f}"
                    for rate, rows in by_rate(runs, d, c).items())
                for d in sets for c in cells if by_rate(runs, d, c)),
        )  # fmt: skip
        drawn["frontier"] = (
            frontier_figure(runs, sets, cells),
            "The frontier: accuracy against the largest gap of the delivered network on train, over tolerances (lines) "
            "and over dual rates (hollow markers). Up and left is better.",
            "Accuracy against gap over tolerances and dual rates; the numbers are in records.jsonl.",
        )
    for data_set in runs.sets:
        if runs.cells("confirm", data_set):
            drawn[f"tradeoff_{data_set}"] = (
                tradeoff(runs, data_set, tolerance),
                f"{NAMES[data_set]}: accuracy against the largest gap, on train over all groups and on test over "
                f"groups "
                "of at least 200 people. Small points are runs, large ones means with 95 % intervals.",
                f"Scatter of {NAMES[data_set]}; means are in the table of methods.",
            )  # fmt: skip
        figure = path_figure(
            runs,
            data_set,
            ["published", *RECIPES, *list(runs.choice)[:1]],
            tolerance,
        )
        if figure is not None:
            drawn[f"path_{data_set}"] = (
                figure,
                f"{NAMES[data_set]}: excess gaps during training, in train mode as examples came by, and multipliers; "
                "means over runs. The vertical line is the end of pruning. Of many groups quantiles are shown.",
                f"Gaps and multipliers over epochs on {NAMES[data_set]}.",
            )
    return drawn


# --- the page ----------------------------------------------------------------------------------------------------


def say_setting(setting: Mapping[str, Any]) -> str:
    """A setting in a line."""
    return ", ".join(
        f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in setting.items()
    )


def summary_lines(
    settings: Mapping[str, Any], runs: Runs, targets: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What was done, what was found, and what is missing."""
    count = {
        stage: sum(r["stage"] == stage for r in runs.runs)
        for stage in ("screen", "confirm", "frontier")
    }
    lines = [
        f"{count['screen']} runs of the screening, {count['confirm']} of the confirmation and {count['frontier']} of "
        f"the frontier, on {', '.join(NAMES[d] for d in runs.sets)}. The bound is "
        f"{report.points(settings['tolerance'])} "
        "points on every group's excess accuracy gap, or one person where that is more."
    ]  # fmt: skip
    inactive = [NAMES[d] for d in runs.sets if not runs.active(d)]
    if inactive:
        lines.append(
            f"Inactive, since naive fine-tuning meets the bound too often: {', '.join(inactive)}. Nothing is claimed "
            f"there."
        )
    judged = [t for t in targets if t["state"] in ("reached", "not reached")]
    for cell in dict.fromkeys(t["method"] for t in judged):
        mine = [t for t in judged if t["method"] == cell]
        reached = sum(t["state"] == "reached" for t in mine)
        lines.append(f"{cell}: {reached} of {len(mine)} targets reached.")
    failed = sum(r["failed_at"] >= 0 for r in runs.runs)
    if failed:
        lines.append(f"In {failed} runs the loss was not finite; they count as violations.")
    screened = any(r["stage"] == "screen" for r in runs.runs)
    if screened and not runs.choice:
        lines.append("The screening is not finished: what follows is of the runs so far.")
    return lines


def build_page(
    settings: Mapping[str, Any], runs: Runs, tables: Mapping[str, pd.DataFrame],
    targets: Sequence[Mapping[str, Any]], drawn: Mapping[str, Any],
) -> report.Page:  # fmt: skip
    """The page of the run."""
    pictures = {
        name: report.Picture.from_figure(figure, caption=caption, alt=alt)
        for name, (figure, caption, alt) in drawn.items()
    }
    state = {"reached": "holds", "not reached": "violated"}
    sections = []
    if targets:
        sections.append(report.Section(title="Targets", blocks=[report.Table(
            columns=["data set", "method", "target", "value", "judgement"],
            rows=[[NAMES[t["data set"]], t["method"], t["target"], t["value"],
                   report.Verdict(state=state.get(t["state"], "open"), text=t["state"])] for t in targets],
            caption="Delivered networks; values in points.",
            note="Inactive: naive fine-tuning's last iterate violates the bound in fewer than 4 of 5 runs. "
            "Accuracies are "
            "compared with that iterate, of the same split and seed. Gaps at dual rates are means over seeds of one "
            "split.",
        )]))  # fmt: skip
    confirmed = [pictures[n] for n in pictures if n.startswith("tradeoff_")]
    if len(tables["methods"]):
        sections.append(report.Section(title="Methods", blocks=[
            report.Table.from_frame(
                tables["methods"], caption="In points, mean ± half-width of the 95 % t interval over splits and seeds.",
                note="Delivered networks, unless it says last. Gap: the largest excess accuracy gap; on test over "
                "groups "
                "of at least 200 people. By chance: what the train gap would be on average if every prediction that "
                "changed were a coin flip. Groups are weighed by their share of the training split everywhere. "
                "dense, retrained: the gap between two dense networks, the floor of the noise. nft_threshold of "
                "sex x label has one threshold per sex, since the label is not known at test time.",
            ),
            *confirmed,
        ]))  # fmt: skip
    if len(tables["paired"]):
        sections.append(report.Section(title="Against the baselines", blocks=[report.Table.from_frame(
            tables["paired"], caption="Paired differences in points, the same splits and seeds, 95 % t intervals.",
            note="(best) is the baseline with the smallest mean gap on test. The interval takes the runs for "
            "independent; "
            "those of a split share their people.",
        )]))  # fmt: skip
    if len(tables["effects"]):
        blocks: list[Any] = [pictures["effects"]]
        for response, caption in (
            ("gap", "Factor by which the largest gap on train (last iterate) is multiplied, 95 % intervals."),
            ("accuracy", "Change of the accuracy on train (last iterate), in points, 95 % intervals."),
        ):  # fmt: skip
            frame = readable_effects(tables["effects"], response)
            blocks.append(report.Table.from_frame(frame, caption=caption))
        blocks.append(report.Table.from_frame(
            tables["terms"], caption="F statistics of all terms of the model of the logarithm of the gap.",
            note="Least squares on the means of each cell over seeds: main effects and the interactions shown. It "
            "takes "
            "the errors for independent, of one variance, and interactions that are not in the model for noise, so "
            "that they widen the intervals. Logarithms are of gaps of at least 0.1 points. A run that failed "
            "counts as the worst that was measured on its data set.",
        ))  # fmt: skip
        sections.append(report.Section(
            title="Effects of the factors", blocks=blocks,
            paragraphs=[
                "Every level against the published one, over all levels of the other factors. "
                "Main effects are orthogonal to each other; in part they are aliased with interactions."
            ],
        ))  # fmt: skip
        sections.append(report.Section(
            title="What optimism brings to multipliers",
            paragraphs=["Three methods with the proportional gain of half an epoch of steps, as the lag of the "
            "estimate "
                        "asks for; they differ in the filter of the slope."],
            blocks=[report.Points(items=say_optimizers(tables["effects"]))],
        ))  # fmt: skip
    if "rates" in pictures:
        sections.append(report.Section(
            title="Dual rates and tolerances", blocks=[pictures["rates"], pictures["frontier"]]
        ))  # fmt: skip
    paths = [pictures[n] for n in pictures if n.startswith("path_")]
    if paths:
        sections.append(report.Section(title="During training", blocks=paths))
    if runs.choice:
        sections.append(report.Section(title="The chosen settings", blocks=[
            report.Facts(items={name: say_setting(s) for name, s in runs.choice.items()}, caption="Settings"),
        ], paragraphs=[
            "Chosen by train and validation of the screening, on the data sets where the bound is active: cells are "
            "ranked "
            "by the number of runs whose delivered network meets the tolerance at naive fine-tuning's accuracy less "
            "0.3 "
            "points, on train and validation; then by what the last iterates lack in both. The last of them is the "
            "setting "
            "for which a linear model of log(0.1 + lack) predicts least. The test split was not looked at."
        ]))  # fmt: skip
    aliases = design.aliasing(design.read())
    table = pd.DataFrame([
        {"factor": factor, "interaction": other, "correlation": f"{size:.2f}"}
        for (factor, other), size in sorted(aliases.items(), key=lambda item: -item[1])
    ])  # fmt: skip
    sections.append(report.Section(title="The design", folded=True, paragraphs=[
        " ".join((design.__doc__ or "").split("\n\n", 1)[1].split())
    ], blocks=[report.Table.from_frame(
        table, caption="Main effects that are aliased with two-factor interactions, and how far."
    )]))  # fmt: skip
    versions = {
        p: importlib.metadata.version(p) for p in ("jaxfair", "jax", "jaxlib", "optax", "numpy")
    }
    sections.append(report.Section(title="How to repeat this", folded=True, blocks=[
        report.Facts(items={k: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v
                            for k, v in settings.items()}, caption="Settings"),
        report.Facts(items={"python": platform.python_version(), **versions,
                            "backend": f"{jax.default_backend()}, {jax.device_count()} device(s)"},
                     caption="Versions"),
    ]))  # fmt: skip
    return report.Page(
        title="Which constraints hold",
        subtitle=f"{len(runs.runs):,} runs, {len(runs.sets)} data set{'s' * (len(runs.sets) != 1)}, tolerance "
        f"{report.points(settings['tolerance'])} points",
        summary=summary_lines(settings, runs, targets),
        sections=sections,
        footer="Written by jaxfair.",
    )  # fmt: skip


def write(folder: pathlib.Path, settings: Mapping[str, Any], records: Sequence[Record]) -> None:
    """Writes all files of the run, and prints the tables."""
    runs = Runs(records)
    effects = effects_table(runs)
    text, numbers = method_table(runs)
    targets = target_rows(runs, settings["tolerance"])
    tables = {
        "methods": text,
        "paired": paired_table(runs),
        "effects": effects,
        "terms": terms_table(runs),
    }
    frames = {"methods": (text, numbers), "paired": (tables["paired"], None), "effects": (effects, None),
              "terms": (tables["terms"], None), "targets": (pd.DataFrame(targets), None)}  # fmt: skip
    for name, (frame, of_numbers) in frames.items():
        if len(frame):
            report.write_table(frame, folder, name, numbers=of_numbers)
    drawn = draw(runs, effects, settings["tolerance"])
    for name, (figure, _, _) in drawn.items():
        figures.save(figure, folder / "figures", name)
    page = build_page(settings, runs, tables, targets, drawn)
    report.write_page(page, folder / "report.html")

    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    for name, title in (("methods", "methods, in points"), ("targets", "targets")):
        if len(frames[name][0]):
            report.print_table(frames[name][0], title=title, console=console)
    console.print("\n".join([*page.summary, *say_optimizers(effects)]), highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)
