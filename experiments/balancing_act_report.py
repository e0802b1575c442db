"""What a run of `balancing_act` found: numbers with intervals, verdicts by group, figures, and the page.

Plain arrays in, files out; nothing here trains. Two kinds of uncertainty are kept apart: *seeds* (another training run
would give another network; t intervals over seeds) and *people* (another sample of people would give other gaps;
paired bootstrap within groups). A method is compared with another by the paired differences of the same seeds.
"""

import importlib.metadata
import json
import pathlib
import platform
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from rich.console import Console

from jaxfair import data, files, metrics, report
from jaxfair.report import figures

SPLITS = ("train", "validation", "test")
#: Of how many seeds naive fine-tuning must violate the bound for it to be worth constraining.
ACTIVE = 0.8


class Measured(NamedTuple):
    """One variant on one split, seed by seed.

    Attributes:
      accuracy: ``[S]``.
      psi: ``[S, G]`` excess accuracy gaps; nan for a group that the split lacks.
      loss: ``[S, G]`` each group's own loss of accuracy.
      chance: ``[S]`` the largest gap to be expected if every change were a coin flip.
    """

    accuracy: np.ndarray
    psi: np.ndarray
    loss: np.ndarray
    chance: np.ndarray

    def largest(self, constrained: np.ndarray) -> np.ndarray:
        """``[S]`` the largest gap over the groups that have a bound."""
        return np.nanmax(self.psi[:, constrained], axis=1)


class Findings(NamedTuple):
    """Everything that the files are made from."""

    settings: Mapping[str, Any]
    dataset: data.Dataset
    labels: Mapping[str, Mapping[str, np.ndarray]]  # variant -> split -> [S, N]
    ok: Mapping[str, np.ndarray]  # variant -> [S], whether dense and sparse training were finite
    delivered: Mapping[str, Mapping[str, np.ndarray]]
    records: list[dict[str, Any]]
    times: Mapping[str, float]
    measured: Mapping[tuple[str, str], Measured]
    layers: Mapping[str, Any]  # variant -> sparsity.SparsityReport of the first seed

    def correct(self, variant: str, split: str) -> np.ndarray:
        """``[S, N]`` booleans."""
        return self.labels[variant][split] == getattr(self.dataset, split).y

    @property
    def variants(self) -> list[str]:
        """All but the reference, in the order in which they were trained."""
        return [name for name in self.labels if name != "dense"]

    @property
    def compared(self) -> list[str]:
        """What figures and the page compare: the delivered networks, and naive fine-tuning as it is usually done."""
        return [name for name in self.variants if name in self.methods or name == "nft (last)"]

    @property
    def methods(self) -> list[str]:
        """The variants that are delivered."""
        return [name for name in self.variants if not name.endswith("(last)")]


def find(
    folder: pathlib.Path,
    settings: Mapping[str, Any],
    dataset: data.Dataset,
    result: Mapping[str, Any],
    records: list[dict[str, Any]],
) -> Findings:
    """Measures every variant on every split."""
    dense_ok = result["failed"]["dense"] < 0
    ok = {}
    order = ["dense", *(f"{m}{last}" for m in settings["methods"] for last in ("", " (last)"))]
    labels = {name: result["labels"][name] for name in order if name in result["labels"]}
    for name in labels:
        own = result["failed"].get(name.removesuffix(" (last)"))
        ok[name] = dense_ok if own is None else dense_ok & (own < 0)
    times = json.loads((folder / "wall_times.json").read_text())
    found = Findings(
        settings, dataset, labels, ok, result["delivered"], records, times, {}, result["layers"]
    )
    measured = {
        (name, split): measure(found, name, split)
        for name in labels
        for split in SPLITS
        if len(getattr(dataset, split).y)
    }
    return found._replace(measured=measured)


def measure(found: Findings, variant: str, split: str) -> Measured:
    """Gaps of one variant on one split, against the dense network of the same seed."""
    dense, sparse = found.correct("dense", split), found.correct(variant, split)
    group, num_groups = np.asarray(getattr(found.dataset, split).group), found.dataset.num_groups
    rows = []
    for seed in range(len(dense)):
        gaps = metrics.accuracy_gaps(dense[seed], sparse[seed], group, num_groups)
        null = metrics.sign_flip_null(
            dense[seed],
            sparse[seed],
            group,
            num_groups,
            key=jax.random.key(seed),
            permutations=2000,
        )
        rows.append((sparse[seed].mean(), np.asarray(gaps.excess), np.asarray(gaps.gap), null.mean))
    return Measured(*(np.stack(column) for column in zip(*rows, strict=True)))


# --- tables ------------------------------------------------------------------------------------------------------


def interval(values: np.ndarray) -> str:
    """``1.23 ± 0.40`` in points, over the seeds that did not fail."""
    found = metrics.t_interval(values)
    return report.mean_and_half_width(float(found.mean), float(found.half_width))


def wall_time(found: Findings, variant: str) -> float:
    """Seconds of training of a variant, all seeds together."""
    name = variant.removesuffix(" (last)")
    name = {"nft_es": "nft", "dense_retrained": "dense"}.get(name, name)
    return sum(t for label, t in found.times.items() if re.fullmatch(rf"{name}(_\d+)?", label))


def is_active(found: Findings) -> bool | None:
    """Whether naive fine-tuning violates the bound, so that there is work to do; None if it was not run."""
    key = ("nft (last)", "train")
    if key not in found.measured:
        return None
    largest = found.measured[key].largest(found.dataset.constrained)[found.ok["nft (last)"]]
    if not len(largest):
        return None
    return bool(np.mean(largest > found.settings["tolerance"]) >= ACTIVE)


def main_table(
    found: Findings, frames: Mapping[str, pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table as text, to be read, and as numbers, to be computed with."""
    tolerance, constrained = found.settings["tolerance"], found.dataset.constrained
    active = is_active(found)
    text, numbers = [], []
    for name in ["dense", *found.variants]:
        for split in ("train", "test"):
            if (name, split) not in found.measured:
                continue
            ok = found.ok[name]
            if not ok.any():
                text.append({"method": name, "split": split, "bound": "failed in all seeds"})
                numbers.append({"method": name, "split": split, "seeds": 0})
                continue
            got = found.measured[name, split]
            columns = {
                "accuracy": got.accuracy[ok],
                "largest gap": got.largest(constrained)[ok],
                "by chance": got.chance[ok],
                "smallest gap": np.nanmin(got.psi, axis=1)[ok],
                "largest loss": np.nanmax(got.loss, axis=1)[ok],
                "disparity": (np.nanmax(got.psi, axis=1) - np.nanmin(got.psi, axis=1))[ok],
            }
            row: dict[str, Any] = {"method": name, "split": split}
            number: dict[str, Any] = {**row, "seeds": int(ok.sum())}
            for column, values in columns.items():
                if name == "dense" and column != "accuracy":
                    row[column] = "–"
                    continue
                row[column] = interval(values)
                of_seeds = metrics.t_interval(values)
                number[column] = float(of_seeds.mean)
                number[f"{column} (half-width)"] = float(of_seeds.half_width)
            row["transfer"] = transfer(found, name) if split == "test" else "–"
            met = int(np.sum(columns["largest gap"] <= tolerance))
            if name == "dense":
                row["bound"] = "–"
            elif split == "train":
                row["bound"] = f"met in {met} of {ok.sum()}" + (
                    "; inactive" if active is False and not name.startswith("dense") else ""
                )
                number["bound met"] = met
            else:
                counts = frames[name]["verdict"].value_counts() if name in frames else {}
                row["bound"] = ", ".join(f"{v} {counts[v]}" for v in VERDICTS if v in counts) or "–"
            row["seconds"] = f"{wall_time(found, name):.0f}" if split == "train" else ""
            text.append(row)
            numbers.append(number)
    return pd.DataFrame(text).fillna("–"), pd.DataFrame(numbers)


VERDICTS = ("holds", "violated", "cannot tell")


def transfer(found: Findings, name: str) -> str:
    """The share of what was closed on train that was closed on test as well, mean over seeds."""
    key = ("nft (last)", "train")
    if key not in found.measured or name in ("dense", "nft (last)", "dense_retrained"):
        return "–"
    constrained = found.dataset.constrained
    ok = found.ok[name] & found.ok["nft (last)"]
    if not ok.any():
        return "–"
    closed = metrics.paired_difference(
        *(found.measured[v, "train"].largest(constrained)[ok] for v in ("nft (last)", name))
    )
    if not closed.low > 0:
        return "–"  # a share of what may be nothing
    of = {
        (v, s): found.measured[v, s].largest(constrained)[ok].mean()
        for v in (name, "nft (last)")
        for s in ("train", "test")
    }
    value = metrics.transfer(
        nft_train=of["nft (last)", "train"],
        nft_test=of["nft (last)", "test"],
        train=of[name, "train"],
        test=of[name, "test"],
    )
    return "–" if np.isnan(value) else f"{float(value):.2f}"


def paired_table(found: Findings) -> pd.DataFrame:
    """Differences of the same seeds, against naive fine-tuning chosen by the same rule, and as it is usually done."""
    rows = []
    for baseline in ("nft", "nft (last)"):
        for name in found.variants:
            if baseline not in found.labels or name == baseline or name == "dense_retrained":
                continue
            ok = found.ok[name] & found.ok[baseline]
            if not ok.any():
                continue
            row = {"difference": f"{name} − {baseline}"}
            for split in ("train", "test"):
                a, b = found.measured[name, split], found.measured[baseline, split]
                for column, x, y in (
                    ("largest gap", *(m.largest(found.dataset.constrained) for m in (a, b))),
                    ("accuracy", a.accuracy, b.accuracy),
                ):
                    difference = metrics.paired_difference(x[ok], y[ok])
                    row[f"{column}, {split}"] = report.mean_and_half_width(
                        float(difference.mean), float(difference.half_width)
                    )
            rows.append(row)
    return pd.DataFrame(rows)


def group_frames(found: Findings) -> dict[str, tuple[pd.DataFrame, metrics.GapInference]]:
    """For every variant, what its gaps on test say of each group, averaged over seeds, with intervals over people."""
    test, num_groups = found.dataset.test, found.dataset.num_groups
    group = np.asarray(test.group)
    frames = {}
    for name in found.variants:
        ok = found.ok[name]
        if not ok.any():
            continue
        dense, sparse = (found.correct(v, "test")[ok].mean(0) for v in ("dense", name))
        inference = metrics.paired_bootstrap(
            dense, sparse, group, num_groups, key=jax.random.key(0), resamples=5000
        )
        changes = None
        if found.dataset.num_classes == 2:
            by_seed = [
                metrics.rate_changes(d, s, test.y, group, num_groups)
                for d, s in zip(
                    found.labels["dense"]["test"][ok], found.labels[name]["test"][ok], strict=True
                )
            ]
            changes = metrics.Rates(*(np.mean(rate, axis=0) for rate in zip(*by_seed, strict=True)))
        frame = report.group_frame(
            found.dataset.group_names, inference, bound=found.settings["tolerance"], changes=changes
        )
        frames[name] = (frame, inference)
    return frames


def worst_groups(found: Findings) -> pd.DataFrame:
    """The group that looks worst on validation, and its gap on test: an unbiased look at the worst case."""
    rows = []
    for name in found.variants:
        ok = found.ok[name]
        validation = found.measured.get((name, "validation"))
        if validation is None or not ok.any():
            continue
        test = found.measured[name, "test"].psi[ok]
        bounded = np.where(found.dataset.constrained, validation.psi[ok], np.nan)
        chosen = [metrics.worst_group(psi) for psi in bounded]
        gaps = np.array([psi[g] for psi, g in zip(test, chosen, strict=True)])
        names = [found.dataset.group_names[g] for g in chosen]
        rows.append(
            {
                "method": name,
                "worst on validation": ", ".join(
                    f"{g} ({names.count(g)} of {len(names)})" for g in dict.fromkeys(names)
                ),
                "its gap on test": interval(gaps),
            }
        )
    return pd.DataFrame(rows)


def changed_people(found: Findings) -> pd.DataFrame:
    """Every person of the test split whom a delivered network treats otherwise than the dense one."""
    test, frames = found.dataset.test, []
    for name in found.methods:
        dense, sparse = found.correct("dense", "test"), found.correct(name, "test")
        seeds, people = np.nonzero(dense != sparse)
        frames.append(
            pd.DataFrame(
                {
                    "method": name,
                    "seed": seeds,
                    "row": found.dataset.rows["test"][people],
                    "group": np.array(found.dataset.group_names)[test.group[people]],
                    "class": np.array(found.dataset.class_names)[test.y[people]],
                    "became": np.where(dense[seeds, people], "wrong", "right"),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


# --- figures -----------------------------------------------------------------------------------------------------


def focus(found: Findings) -> list[str]:
    """The methods that the detailed figures show: what one does without thinking, and the best that was tried."""
    constrained = [
        m for m in ("ceag", "accuracy_gap", "ceag_published", "el") if m in found.methods
    ]
    naive = [m for m in ("nft (last)", "nft_es") if m in found.variants]
    shown = [*naive[:1], *constrained[:1]]
    return shown or found.variants[:2]


def in_points(share: float) -> str:
    """In words: ``1 point``, ``0.5 points``."""
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def too_small(frame: pd.DataFrame, method: str, tolerance: float) -> str:
    """Which groups have too few people on test for a gap of the size of the tolerance to be seen."""
    few = frame[frame["smallest_visible_gap"] > tolerance]
    if not len(few):
        return (
            f"Every group has enough people on test for a gap of {in_points(tolerance)} to be seen."
        )
    names = ", ".join(f"{row['group']} ({row['people']:,})" for row in few.to_dict("records"))
    return (
        f"Too few people on test to see a gap of {in_points(tolerance)}, at the share of predictions that {method} "
        f"changed: {names}. Of these groups only a larger harm could be noticed."
    )


def worst_in_words(frame: pd.DataFrame) -> str:
    """The most harmed group of a frame and its gap."""
    worst = frame.iloc[0]
    return f"{worst['group']} at {report.points(worst['excess_gap'], digits=1, sign=True)} points"


def draw(found: Findings, frames: Mapping[str, Any]) -> dict[str, tuple[Any, str, str]]:
    """By name: a figure, its caption, and a description for those who cannot see it."""
    tolerance, constrained = found.settings["tolerance"], found.dataset.constrained
    drawn = {}
    if not frames:
        return drawn  # every training failed
    panels = {
        split: {
            name: (
                found.measured[name, split].largest(constrained)[found.ok[name]],
                found.measured[name, split].accuracy[found.ok[name]],
            )
            for name in found.compared
            if found.ok[name].any()
        }
        for split in ("train", "test")
    }
    points = "; ".join(
        f"{name}: {100 * gap.mean():.1f} and {100 * accuracy.mean():.1f} %"
        for name, (gap, accuracy) in panels["train"].items()
    )
    drawn["accuracy_against_gap"] = (
        figures.accuracy_against_gap(panels, tolerance=tolerance),
        "Accuracy against the largest excess accuracy gap of any group. Small points are seeds, large ones means with "
        "95 % intervals over seeds; up and left is better, and the tinted strip is where the bound is met.",
        f"Scatter of largest gap in points and accuracy, means on train: {points}.",
    )
    shown = [m for m in focus(found) if m in frames]
    sizes = np.bincount(found.dataset.test.group, minlength=found.dataset.num_groups)
    if shown:
        drawn["gaps_by_group"] = (
            figures.gaps_by_group(
                found.dataset.group_names,
                sizes,
                {m: frames[m][1] for m in shown},
                tolerance=tolerance,
                methods=found.compared,
            ),
            "Excess accuracy gap of each group on test, averaged over seeds, with simultaneous 95 % intervals over "
            "people. The number of people is beside the name.",
            "; ".join(f"{m}, largest: {worst_in_words(frames[m][0])}" for m in shown),
        )
    paths = {}
    for name in dict.fromkeys(m.removesuffix(" (last)") for m in focus(found)):
        rows = [r for r in found.records if r["phase"] == name and "gaps" in r]
        epochs = sorted({r["epoch"] for r in rows})
        seeds = sorted({r["seed"] for r in rows})
        if len(rows) != len(epochs) * len(seeds) or not rows:
            continue
        at = {(r["seed"], r["epoch"]): r for r in rows}

        def stacked(
            field: str, at: Any = at, seeds: Any = seeds, epochs: Any = epochs
        ) -> np.ndarray:
            return np.mean([[at[s, e][field] for e in epochs] for s in seeds], axis=0)

        multipliers = stacked("multipliers")
        num = found.dataset.num_groups
        paths[name] = figures.Trajectory(
            stacked("gaps"), multipliers[:, :num] if multipliers.shape[1] >= num else None
        )
    if paths:
        drawn["trajectories"] = (
            figures.trajectories(
                np.arange(1, len(epochs) + 1),
                paths,
                tolerance=tolerance,
                pruning_end=found.settings["prune_epochs"],
                names=found.dataset.group_names,
            ),
            "Excess gaps during training, measured in train mode as the examples came by, and the multipliers; means "
            "over seeds. The vertical line is the end of pruning.",
            "; ".join(
                f"{name} ends with a largest mean gap of {100 * np.max(path.excess[-1]):.1f} points"
                for name, path in paths.items()
            ),
        )
    return drawn


# --- the page ----------------------------------------------------------------------------------------------------


def headline(found: Findings) -> list[str]:
    """What was done and what came out, in sentences."""
    s, d = found.settings, found.dataset
    active = is_active(found)
    dense = {
        split: found.measured["dense", split].accuracy[found.ok["dense"]]
        for split in ("train", "test")
    }
    lines = [
        f"{s['seeds']} dense networks ({s['model']}) were trained on {d.name}, then pruned to "
        f"{100 * s['sparsity']:g} % sparsity and fine-tuned by each method. The question is whether any of "
        f"{d.num_groups} groups ({' x '.join(d.group_attributes) or 'as given'}) loses more accuracy than the average "
        f"does, by more than {in_points(s['tolerance'])}.",
        f"The dense networks are right about {100 * dense['train'].mean():.1f} % of the training split and "
        f"{100 * dense['test'].mean():.1f} % of the test split. The bound was trained for on the former; the wider the "
        "two are apart, the harder it is to meet and the less it says about new people.",
    ]
    if active is False:
        lines.append(
            "The bound is inactive here: naive fine-tuning meets it too often for a constraint to have work to do. No "
            "claim is made about the constrained methods."
        )
    for name in found.variants:
        lost = int(np.sum(~found.ok[name]))
        if lost and not name.endswith("(last)"):
            lines.append(
                f"Training of {name} failed in {lost} of {len(found.ok[name])} seeds, which are left out."
            )
    best = [m for m in focus(found) if m.removesuffix(" (last)") not in ("nft", "nft_es")]
    for name in best[:1]:
        for baseline in ("nft (last)", "nft"):
            if baseline not in found.labels:
                continue
            ok = found.ok[name] & found.ok[baseline]
            if not ok.any():
                continue
            on = {
                what: metrics.paired_difference(*(values[ok] for values in pair))
                for what, pair in {
                    "the largest gap on train": [
                        found.measured[v, "train"].largest(d.constrained) for v in (name, baseline)
                    ],
                    "the largest gap on test": [
                        found.measured[v, "test"].largest(d.constrained) for v in (name, baseline)
                    ],
                    "the accuracy on test": [
                        found.measured[v, "test"].accuracy for v in (name, baseline)
                    ],
                }.items()
            }
            words = [
                f"{what} by {report.mean_and_half_width(float(x.mean), float(x.half_width))}"
                for what, x in on.items()
            ]
            lines.append(
                f"Against {baseline}, {name} changes {words[0]}, {words[1]} and {words[2]} points (paired, 95 % over "
                f"{int(ok.sum())} seeds; an interval that contains 0 decides nothing)."
            )
    lines.append(
        "Every method delivers the iterate, or the average of iterates, that met the bound on the training split "
        "in the final 30 % of the epochs; “(last)” is the last iterate, which is what one gets without this choice."
    )
    return lines


def layer_section(found: Findings) -> list[report.Section]:
    """How many weights each layer kept."""
    names = [name for name in found.methods if name in found.layers and name != "nft_dense"]
    if not names:
        return []
    kept = found.layers[names[-1]]
    rows = [
        [
            layer.path,
            "x".join(map(str, layer.shape)),
            layer.total,
            layer.kept,
            f"{100 * layer.sparsity:.2f} %",
        ]
        for layer in kept.layers
    ]
    table = report.Table(
        columns=["layer", "shape", "weights", "kept", "sparsity"],
        rows=rows,
        caption=f"Weights kept in each layer by {names[-1]}, first seed.",
        note="Layers with sparsity 0 are not prunable.",
    )
    return [report.Section(title="Layers", blocks=[table], folded=True)]


def build_page(
    found: Findings,
    tables: Mapping[str, pd.DataFrame],
    frames: Mapping[str, Any],
    drawn: Mapping[str, Any],
) -> report.Page:
    """The page of the run."""
    s, d = found.settings, found.dataset
    shown = [m for m in focus(found) if m in frames]
    verdicts = [
        report.say_verdicts(frames[m][0], method=m, split="test", bound=s["tolerance"])
        for m in shown
    ]
    pictures = {
        name: report.Picture.from_figure(figure, caption=caption, alt=alt)
        for name, (figure, caption, alt) in drawn.items()
    }
    sections = [
        report.Section(
            title="Methods compared",
            blocks=[
                report.Table.from_frame(
                    tables["main"][tables["main"]["method"].isin(["dense", *found.compared])],
                    caption="In points (percent of people), mean ± half-width of the 95 % t interval over seeds.",
                    note="Gap: a group's loss of accuracy less the average loss; largest over the groups that have a "
                    "bound. By chance: the largest gap to be expected if every changed person were a coin flip. "
                    "Largest loss: of any group, not compared with the average. Disparity: largest less smallest gap. "
                    "Transfer: gap closed on test over gap closed on train, against nft (last), where the latter is "
                    "more than 0. Bound: on train in how "
                    "many seeds it is met; on test the verdicts by group. dense_retrained is the dense network of "
                    "another seed: no smaller gap than its own can be told from training again. table.md has the last "
                    "iterates too.",
                ),
                *([pictures["accuracy_against_gap"]] if pictures else []),
            ]
            + (
                [
                    report.Table.from_frame(
                        tables["paired"][
                            ~tables["paired"]["difference"].str.contains(r"\(last\) −")
                        ],
                        caption="Paired differences, in points: a method less naive fine-tuning, on the same seeds.",
                        note="An interval without 0 is a difference. “nft” is chosen among its iterates by the same "
                        "rule as the method, “nft (last)” is its last iterate.",
                    )
                ]
                if len(tables["paired"])
                else []
            ),
        ),
        report.Section(
            title="Who is harmed",
            paragraphs=[too_small(frames[m][0], m, s["tolerance"]) for m in shown[-1:]],
            blocks=[
                *([pictures["gaps_by_group"]] if "gaps_by_group" in pictures else []),
                *(
                    report.group_table(
                        frames[m][0],
                        caption=f"Groups harmed most by {m}, on test, averaged over seeds.",
                        worst=20,
                    )
                    for m in shown
                ),
                *(
                    [
                        report.Table.from_frame(
                            tables["worst"],
                            caption="The group that looks worst on the validation split, scored on test (points).",
                            note="The largest of many noisy gaps overstates the harm; a group that was chosen on other "
                            "people does not.",
                        )
                    ]
                    if len(tables["worst"])
                    else []
                ),
            ],
        ),
    ]
    if "trajectories" in pictures:
        sections.append(report.Section(title="During training", blocks=[pictures["trajectories"]]))
    sections.extend(layer_section(found))
    sections.append(
        report.Section(
            title="People whose outcome changed",
            paragraphs=[
                "Rows of the test split, first seed; people.csv has all methods and seeds."
            ],
            folded=True,
            blocks=[
                report.people_changed(
                    d.rows["test"],
                    found.correct("dense", "test")[0],
                    found.correct(shown[-1], "test")[0],
                    np.asarray(d.test.group),
                    d.group_names,
                    where="people.csv",
                )
            ]
            if shown
            else [],
        )
    )
    sizes = d.group_sizes()
    sections.append(
        report.Section(
            title="The data",
            paragraphs=[text for text in (d.notes, d.citation and f"Source: {d.citation}") if text],
            blocks=[
                report.Table(
                    columns=["group", *SPLITS, "bound"],
                    rows=[
                        [name, *(int(sizes[split][g]) for split in SPLITS),
                         "yes" if d.constrained[g] else "no"]
                        for g, name in enumerate(d.group_names)
                    ],
                    caption="People in each group.",
                    note="; ".join(
                        f"{name} holds " + ", ".join(f"{cell} ({n})" for cell, n in cells.items())
                        for name, cells in d.merged.items()
                    ),
                )
            ],
        )
    )  # fmt: skip
    packages = ("jaxfair", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    sections.append(
        report.Section(
            title="How to repeat this",
            folded=True,
            blocks=[
                report.Facts(
                    items={
                        k: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v
                        for k, v in s.items()
                    },
                    caption="Settings",
                ),
                report.Facts(
                    items={
                        "python": platform.python_version(),
                        **{p: importlib.metadata.version(p) for p in packages},
                        "backend": f"{jax.default_backend()}, {jax.device_count()} device(s)",
                    },
                    caption="Versions",
                ),
            ],
        )
    )
    return report.Page(
        title="What pruning did to each group",
        subtitle=f"{d.name}, {s['model']}, sparsity {100 * s['sparsity']:g} %, tolerance "
        f"{in_points(s['tolerance'])}, {s['seeds']} seeds",
        summary=headline(found),
        verdicts=verdicts,
        sections=sections,
        footer="Written by jaxfair.",
    )


def write(
    folder: pathlib.Path,
    settings: Mapping[str, Any],
    dataset: data.Dataset,
    result: Mapping[str, Any],
    records: list[dict[str, Any]],
) -> None:
    """Measures, writes all files of the run, and prints the table."""
    found = find(folder, settings, dataset, result, records)
    frames = group_frames(found)
    text, numbers = main_table(found, {name: frame for name, (frame, _) in frames.items()})
    tables = {"main": text, "paired": paired_table(found), "worst": worst_groups(found)}

    report.write_table(text, folder, "table", numbers=numbers)
    if len(tables["paired"]):
        report.write_table(tables["paired"], folder, "paired")
    for name, (frame, _) in frames.items():
        if name in found.methods or name in focus(found):
            report.write_table(frame, folder / "groups", name.replace(" (last)", "_last"), digits=4)
    files.atomic_write(folder / "people.csv", changed_people(found).to_csv(index=False))
    drawn = draw(found, frames)
    for name, (figure, _, _) in drawn.items():
        figures.save(figure, folder / "figures", name)
    report.write_page(build_page(found, tables, frames, drawn), folder / "report.html")

    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    report.print_table(
        text, title=f"{dataset.name}: in points, mean ± 95 % over seeds", console=console
    )
    if len(tables["paired"]):
        report.print_table(tables["paired"], title="paired differences, in points", console=console)
    for name in focus(found):
        if name in frames:
            console.print(
                str(
                    report.say_verdicts(
                        frames[name][0], method=name, split="test", bound=settings["tolerance"]
                    )
                )
            )
    console.print(f"report: {folder / 'report.html'}", highlight=False)
