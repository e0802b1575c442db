"""The tables of an audit: what each method did, differences on the same seeds, worst groups, and whom it changed."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxfair import metrics, report
from jaxfair.audit._findings import Findings
from jaxfair.audit._moved import shares
from jaxfair.files import visible

VERDICTS = ("holds", "violated", "cannot tell")
#: Of a table without a value.
NOTHING = "–"
#: What stands in the file with the numbers alone, who fared best: the page has room for who was harmed.
IN_FILE = ("smallest gap", "disparity")


def file_names(names: Iterable[str]) -> dict[str, str]:
    """A name for the files of each variant: letters, digits, dots, dashes and underscores, and no two alike.

    Example:
      >>> file_names(["nft (last)", "../../x", "<b>x</b>", "B x/b"])
      {'nft (last)': 'nft_last', '../../x': 'x', '<b>x</b>': 'b_x_b', 'B x/b': 'B_x_b_2'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        base = re.sub(r"[^\w.-]+", "_", name).strip("._-")[:100] or "variant"
        chosen, count = base, 1
        while chosen.casefold() in taken:  # some file systems do not tell capitals
            count += 1
            chosen = f"{base}_{count}"
        taken.add(chosen.casefold())
        found[name] = chosen
    return found


def interval(values: np.ndarray, *, digits: int = 2) -> str:
    """``1.23 ± 0.40`` in points, over the seeds that did not fail; a dash if there is nothing to tell."""
    if np.isnan(values).any():
        return NOTHING
    found = metrics.t_interval(values)
    return report.mean_and_half_width(float(found.mean), float(found.half_width), digits=digits)


def main_table(found: Findings) -> tuple[Any, Any]:
    """Every variant on the first and on the judged split: as text, to be read, and as numbers, to be computed with."""
    pandas = report.need("pandas")
    text, numbers = [], []
    for name in found.names:
        for split in dict.fromkeys((found.first, found.judged)):
            ok = found.ok(name)
            if not ok.any():
                text.append({"method": name, "bound": "failed in all seeds", "split": split})
                numbers.append({"method": name, "split": split, "seeds": 0})
                continue
            row, number = _row(found, name, split)
            text.append(row)
            numbers.append(number)
    return pandas.DataFrame(text).fillna(NOTHING), pandas.DataFrame(numbers)


def _row(found: Findings, name: str, split: str) -> tuple[dict[str, Any], dict[str, Any]]:
    got, ok, is_first = found.measured[name, split], found.ok(name), split == found.first
    moved = shares(found.moved[name, split], np.asarray(found.constrained))
    columns = {
        "accuracy": got.accuracy[ok],
        "largest gap": found.largest(name, split)[ok],
        "by chance": got.chance[ok],
        "smallest gap": np.nanmin(got.psi, axis=1)[ok],
        "largest loss": np.nanmax(got.loss, axis=1)[ok],
        "disparity": (np.nanmax(got.psi, axis=1) - np.nanmin(got.psi, axis=1))[ok],
        **{column: values[ok] for column, values in moved.items()},
    }
    row: dict[str, Any] = {"method": name, "bound": NOTHING, "split": split}
    number: dict[str, Any] = {"method": name, "split": split, "seeds": int(ok.sum())}
    for column, values in columns.items():
        if name == found.name_before and column != "accuracy":
            row[column] = NOTHING
            continue
        row[column] = interval(values, digits=1 if column in moved else 2)
        if np.isnan(values).any():
            continue
        of_seeds = metrics.t_interval(values)
        number[column] = float(of_seeds.mean)
        number[f"{column} (half-width)"] = float(of_seeds.half_width)
    row = {column: text for column, text in row.items() if column not in IN_FILE}
    if found.naive:
        row["transfer"] = transfer(found, name) if split == found.judged else NOTHING
    row["bound"] = _bound(found, name, split, columns["largest gap"], number)
    if not np.isnan(found.before.seconds):
        row["seconds"] = f"{found.of(name).seconds:.0f}" if is_first else ""
    return row, number


def _bound(found: Findings, name: str, split: str, largest: np.ndarray, number: dict[str, Any]) -> str:
    """On train in how many seeds it is met; on the judged split the verdicts by group."""
    if name == found.name_before:
        return NOTHING
    if split == found.judged:
        judged = [row["verdict"] for row in found.rows.get(name, ())]
        return ", ".join(f"{v} {judged.count(v)}" for v in VERDICTS if v in judged) or NOTHING
    if np.isnan(largest).any():
        return NOTHING
    met = int(found.met(name).sum())
    number["bound met"] = met
    return f"met in {met} of {len(largest)}"


def transfer(found: Findings, name: str) -> str:
    """The share of what was closed on train that was closed on the judged split as well, mean over seeds."""
    train, naive = found.first, found.naive
    if naive not in found.after or name in (found.name_before, naive, *found.controls):
        return NOTHING
    ok = found.ok(name) & found.ok(naive)
    if not ok.any() or not found.bounded:
        return NOTHING
    closed = metrics.paired_difference(*(found.largest(v, train)[ok] for v in (naive, name)))
    if not closed.low > 0:
        return NOTHING  # a share of what may be nothing
    of = {(v, s): found.largest(v, s)[ok].mean() for v in (name, naive) for s in (train, found.judged)}
    value = metrics.transfer(
        nft_train=of[naive, train],
        nft_test=of[naive, found.judged],
        train=of[name, train],
        test=of[name, found.judged],
    )
    return NOTHING if np.isnan(value) else f"{float(value):.2f}"


def paired_table(found: Findings) -> Any:
    """Differences of the same seeds, of each method less its peers."""
    rows = []
    for peer in found.peers:
        for name in found.after:
            if peer not in found.after or name == peer or name in found.controls:
                continue
            ok = found.ok(name) & found.ok(peer)
            if not ok.any() or not found.bounded:
                continue
            row = {"difference": f"{name} − {peer}"}
            for split in dict.fromkeys((found.first, found.judged)):
                a, b = found.measured[name, split], found.measured[peer, split]
                for column, x, y in (
                    ("largest gap", found.largest(name, split), found.largest(peer, split)),
                    ("accuracy", a.accuracy, b.accuracy),
                ):
                    difference = metrics.paired_difference(x[ok], y[ok])
                    row[f"{column}, {split}"] = report.mean_and_half_width(
                        float(difference.mean), float(difference.half_width)
                    )
            rows.append(row)
    return report.need("pandas").DataFrame(rows)


def worst_groups(found: Findings) -> Any:
    """The group that looks worst on validation, and its gap on the judged split: an unbiased look at the worst case."""
    rows = []
    for name in found.after:
        ok = found.ok(name)
        if "validation" not in found.people or found.judged == "validation" or not ok.any():
            continue
        validation, judged = (found.measured[name, s].psi[ok] for s in ("validation", found.judged))
        bounded = np.where(found.constrained, validation, np.nan)
        if np.isnan(bounded).all():
            continue  # nobody to look at
        chosen = [metrics.worst_group(psi) for psi in bounded]
        gaps = np.array([psi[g] for psi, g in zip(judged, chosen, strict=True)])
        names = [found.group_names[g] for g in chosen]
        rows.append(
            {
                "method": name,
                "worst on validation": ", ".join(
                    f"{g} ({names.count(g)} of {len(names)})" for g in dict.fromkeys(names)
                ),
                f"its gap on {found.judged}": interval(gaps),
            }
        )
    return report.need("pandas").DataFrame(rows)


def changed_people(found: Findings) -> Any:
    """Every person of the judged split whom a network treats otherwise than the one before."""
    pandas, people, frames = report.need("pandas"), found.people[found.judged], []
    for name in found.after:
        if found.is_last(name):
            continue
        dense, sparse = (found.correct(v, found.judged) for v in (found.name_before, name))
        seeds, who = np.nonzero((dense != sparse) & found.ok(name)[:, None])
        group = np.array([*found.group_names, "unknown"])[
            np.where((people.group >= 0) & (people.group < found.num_groups), people.group, -1)
        ]
        frames.append(
            pandas.DataFrame(
                {
                    "method": visible(name),
                    "seed": seeds,
                    "row": people.rows[who],
                    "group": group[who],
                    "class": np.array(found.class_names)[people.y[who]],
                    "became": np.where(dense[seeds, who], "wrong", "right"),
                }
            )
        )
    return pandas.concat(frames, ignore_index=True)
