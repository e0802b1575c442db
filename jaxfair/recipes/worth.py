"""What pruned networks are worth beside the dense ones that they came from, and which one is to be shipped.

The rule of recommendation: never a network that failed. Among those that met the bound on the training split, the one
with the best accuracy on validation (on train, where there is none); where none met it, the one that exceeds it least,
and that is said. Ties go to the smallest seed. The test split is never looked at: what it says of the network that was
taken is an honest number.

Met is what it is in training and in the audit (:func:`jaxfair.metrics.violation`): the largest gap is at most the
tolerance, where a group of which one person is more than that is allowed one person. Of people with weights a group has
:func:`jaxfair.metrics.effective_counts`, whatever the weights sum to.
"""

import csv
import functools
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxfair import metrics
from jaxfair.data import Dataset
from jaxfair.files import visible
from jaxfair.recipes import _identity
from jaxfair.recipes._bounds import Bound, free
from jaxfair.recipes._judged import judge, unequal
from jaxfair.recipes._networks import Networks, file_of
from jaxfair.typing import Batch

#: Networks, or what they predict: split -> ``[S, N]`` classes.
Predicted = Networks | Mapping[str, Any]


def worth(
    dataset: Dataset,
    dense: Predicted,
    sparse: Predicted,
    *,
    bound: Bound | None = None,
    tolerance: Any = None,
    method: str | None = None,
    seeds: Sequence[int] | None = None,
    failed_at: Any = None,
    naive: Any = None,
) -> list[dict[str, Any]]:
    """A row per seed: accuracy before and after, largest gap and loss on each split, whether the bound was met.

    Args:
      dataset: the data; splits without anybody have no columns.
      dense: the networks before, or their predictions: split -> ``[S, N]`` classes, -1 of a network that diverged.
      sparse: the networks after, in the same order, or their predictions.
      bound: that was trained for; None where there was none.
      tolerance: on the gap that the bound names (without one: on the excess gap); the bound's own by default.
      method: what the networks are called in their files; the bound's name by default.
      seeds: of the rows; the networks' own, or 0, 1, ... of predictions.
      failed_at: ``[S]``, -1 for a network that did not fail; the networks' own. Of predictions, one that predicts
        nothing has failed at step 0.
      naive: ``[S]`` bool, in whose place the network of naive fine-tuning is delivered; the networks' own, or none.

    Returns:
      For each seed ``method``, ``seed``, ``file`` (empty for a network that failed), ``recommended`` (True for one, by
      the rule above), ``bound_met`` (None where no tolerance was given), ``violation_train`` (by how much the bound is
      exceeded: the tolerance, or one person of the group where that is more; at most 0 is met), ``failed_at``,
      ``naive`` (whether it is the network of naive fine-tuning), and for each split ``accuracy_dense_<split>``,
      ``accuracy_<split>``, ``largest_gap_<split>`` (excess, over the groups that have a bound; nan where none of them
      has people), ``worst_group_<split>``, ``largest_loss_<split>``, and shares of predictions: ``changed_<split>``
      (another class than before) and ``newly_wrong_<split>`` (and right before) of everybody,
      ``largest_changed_<split>`` and ``largest_newly_wrong_<split>`` of the group with a bound that has most.

    Raises:
      ValueError: where the two have different numbers of networks, or neither has a split of the data.

    Example:
      Two networks of ten people; the second loses one of the two in group b on train:

      >>> from jaxfair import data, recipes
      >>> y, group = np.array([0, 1] * 10), np.array(["a"] * 8 + ["b"] * 2 + ["a"] * 8 + ["b"] * 2)
      >>> mine = data.dataset(np.ones((20, 1)), y, group, split=["train"] * 10 + ["validation"] * 10)
      >>> before = {"train": np.stack([mine.train.y] * 2), "validation": np.stack([mine.validation.y] * 2)}
      >>> after = {split: labels.copy() for split, labels in before.items()}
      >>> after["train"][1, 9] = 0
      >>> for row in worth(mine, before, after, bound=recipes.ceag(tolerance=0.1)):
      ...     print(row["file"], row["worst_group_train"], round(row["largest_gap_train"], 2), row["recommended"])
      ceag_seed0.safetensors a 0.0 True
      ceag_seed1.safetensors b 0.4 False
    """
    asked = free() if bound is None else bound
    limit = asked.tolerance if tolerance is None else tolerance
    before, after = (of.predictions(dataset) if isinstance(of, Networks) else of for of in (dense, sparse))
    splits = {n: split for n, split in dataset.splits.items() if len(split.y) and n in before and n in after}
    if not splits:
        raise ValueError(f"there are predictions of no split of {dataset.name}: give them as train, validation, test.")
    counts = {len(of[name]) for of in (before, after) for name in splits}
    if len(counts) > 1:
        raise ValueError(f"{' and '.join(map(str, sorted(counts)))} networks: before and after, a row each.")
    if isinstance(sparse, Networks):
        seeds, failed_at = (
            sparse.seeds if seeds is None else seeds,
            sparse.failed_at if failed_at is None else failed_at,
        )
        naive = sparse.naive if naive is None else naive
    called = asked.name if method is None else method
    count = counts.pop()
    if failed_at is None:
        failed_at = [0 if all((np.asarray(after[s][i]) < 0).all() for s in splits) else -1 for i in range(count)]
    rows = []
    for place, seed in enumerate(range(count) if seeds is None else seeds):
        failed = int(failed_at[place])
        labels = {name: tuple(np.asarray(of[name][place]) for of in (before, after)) for name in splits}
        found = {n: _of_split(dataset, split, labels[n][0], labels[n][1]) for n, split in splits.items()}
        asks = limit is not None or asked.violation is not None
        over = math.nan if asks or "train" in found else None
        if "train" in found and failed < 0:
            over = judge(dataset, labels["train"][0], labels["train"][1], asked, limit).over
        rows.append({
            "method": called, "seed": int(seed), "file": "" if failed >= 0 else file_of(called, seed),
            "recommended": False,
            "bound_met": None if over is None else bool(over <= 0),
            "violation_train": math.nan if over is None else over, "failed_at": failed,
            "naive": False if naive is None else bool(naive[place]),
            **{f"{column}_{name}": value for name, of in found.items() for column, value in of.items()},
        })  # fmt: skip
    return recommend(rows)


def _of_split(dataset: Dataset, split: Batch, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    y, group = np.asarray(split.y), np.asarray(split.group)
    right = [np.asarray(metrics.correct(label, y)) for label in (before, after)]
    gaps, moved = _compared(right, before, after, y, group, unequal(split), dataset.num_groups)
    bounded = np.asarray(dataset.constrained) & (np.bincount(group, minlength=dataset.num_groups) > 0)
    excess, loss, changed, wrong = (
        np.where(bounded, np.asarray(of), -np.inf) for of in (gaps.excess, gaps.gap, moved.changed, moved.newly_wrong)
    )
    some = bool(bounded.any())
    return {
        "accuracy_dense": float(np.average(right[0], weights=unequal(split))),
        "accuracy": float(np.average(right[1], weights=unequal(split))),
        "largest_gap": float(excess.max()) if some else math.nan,
        "worst_group": dataset.group_names[int(excess.argmax())] if some else "",
        "largest_loss": float(loss.max()) if some else math.nan,
        "changed": float(moved.overall_changed),
        "newly_wrong": float(moved.overall_newly_wrong),
        "largest_changed": float(changed.max()) if some else math.nan,
        "largest_newly_wrong": float(wrong.max()) if some else math.nan,
    }


@functools.partial(jax.jit, static_argnames="num_groups")  # so that all of a split is one program
def _compared(right: Any, before: Any, after: Any, y: Any, group: Any, weight: Any, num_groups: int) -> Any:
    return (
        metrics.accuracy_gaps(right[0], right[1], group, num_groups, weight=weight),
        metrics.prediction_changes(before, after, y, group, num_groups, weight=weight),
    )


def recommend(
    rows: Sequence[Mapping[str, Any]], *, among: Callable[[Mapping[str, Any]], bool] = lambda row: True
) -> list[dict[str, Any]]:
    """The same rows, of which one is ``recommended``, by the rule of :mod:`jaxfair.recipes.worth`.

    Args:
      rows: of :func:`worth`, of one method or of several.
      among: which of them may be recommended; all by default.

    Example:
      >>> row = {"failed_at": -1, "bound_met": True, "violation_train": -0.01, "seed": 0, "accuracy_validation": 0.8}
      >>> [r["recommended"] for r in recommend([row, row | {"seed": 1, "accuracy_validation": 0.9}])]
      [False, True]
      >>> [r["recommended"] for r in recommend([row, row | {"accuracy_validation": 0.9, "bound_met": False}])]
      [True, False]
    """

    def rank(row: Mapping[str, Any]) -> tuple[float, float, int]:
        accuracy = -row.get("accuracy_validation", row.get("accuracy_train", 0.0))
        met = row["bound_met"] is None or row["bound_met"]
        over = -math.inf if met else row["violation_train"]
        return math.inf if math.isnan(over) else over, accuracy, row["seed"]

    sound = [row for row in rows if row["failed_at"] < 0 and among(row)]
    best = min(sound, key=rank, default=None)
    return [{**row, "recommended": row is best} for row in rows]


def to_ship(rows: Sequence[Mapping[str, Any]], folder: str | os.PathLike[str] = "", *, less: str = "prune less") -> str:
    """The recommended network in a sentence, and by what it was chosen.

    Args:
      rows: of :func:`worth` or :func:`recommend`.
      folder: that the files are in.
      less: what to do where no network met the bound.

    Example:
      >>> row = {"failed_at": -1, "bound_met": True, "violation_train": -0.01, "seed": 0, "accuracy_train": 0.8,
      ...        "file": "ceag_seed0.safetensors"}
      >>> print(to_ship(recommend([row]), "pruned"))
      to ship: pruned/ceag_seed0.safetensors (the bound is met on train by 1 of 1 network; of those it has the best
      accuracy on train, 80.00 %)
    """
    chosen = next((row for row in rows if row["recommended"]), None)
    if chosen is None:
        return f"to ship: none; all {len(rows)} networks failed"
    file = os.path.join(folder, chosen["file"])
    split = "validation" if "accuracy_validation" in chosen else "train"
    told = _on_test(chosen)
    best = f"the best accuracy on {split}, {100 * chosen[f'accuracy_{split}']:.2f} %"
    if chosen["bound_met"] is None:
        return f"to ship: {file} (no bound was asked for; of {len(rows)} networks it has {best}){told}"
    met, of = sum(bool(row["bound_met"]) for row in rows), f"{len(rows)} network{'' if len(rows) == 1 else 's'}"
    if met:
        return f"to ship: {file} (the bound is met on train by {met} of {of}; of those it has {best}){told}"
    return (
        f"to ship: none as it is; no network of {len(rows)} met the bound on train. The nearest is {file}, "
        f"{100 * chosen['violation_train']:.2f} points beyond it{told}: {less}, or allow more"
    )


def _on_test(row: Mapping[str, Any]) -> str:
    """What the chosen network does to people whom nobody looked at; nothing where there are none."""
    if math.isnan(row.get("largest_gap_test", math.nan)):
        return ""
    return (
        f"; on test, which was not looked at for this: {100 * row['accuracy_test']:.2f} %, largest gap "
        f"{100 * row['largest_gap_test']:+.2f} points ({visible(row['worst_group_test'])})"
    )


def ship(
    dataset: Dataset,
    networks: Networks,
    rows: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    facts: Mapping[str, Any] | None = None,
) -> list[pathlib.Path]:
    """Writes the networks that did not fail, with what each is worth in its file's metadata.

    Args:
      dataset: the data; its name, and a hash of its arrays, stand in the files, and what it takes to use a network:
        ``class_names``, ``feature_names``, ``scaling_mean`` and ``scaling_deviation`` as JSON, and ``positive``.
      networks: one for each row.
      rows: of :func:`worth`.
      folder: is made where it is missing.
      facts: what else is to be known: the sparsity, the tolerance, ...

    Returns:
      The paths: ``rows[i]["file"]`` in the folder, where it is not empty.

    Example:
      >>> import tempfile
      >>> from jaxfair import data, recipes, sparsity
      >>> y = np.array([0, 1] * 5)
      >>> mine = data.dataset(np.ones((10, 1)), y, ["a", "b"] * 5, split=["train"] * 10)
      >>> right = {"train": mine.train.y[None]}
      >>> rows = worth(mine, right, right, bound=recipes.ceag(0.01))
      >>> (path,) = ship(mine, recipes.networks({"w": np.ones(3)}), rows, tempfile.mkdtemp(), {"sparsity": 0.5})
      >>> known = sparsity.load(path).metadata
      >>> path.name, known["sparsity"], known["bound_met"], known["accuracy_train"]
      ('ceag_seed0.safetensors', '0.5', 'True', '1.0')
    """
    sound = [place for place, row in enumerate(rows) if row["file"]]
    if not sound:
        return []
    shared = {
        # Where a file was does not belong to what is in it.
        "dataset": pathlib.PurePath(dataset.name).name,
        "data": _identity.dataset_facts(dataset, streamed=False)["data"],
        **_to_use(dataset),
        **(facts or {}),
    }
    # What is recommended depends on the others, and is no property of a network.
    left_out = ("file", "recommended")
    known = [{**shared, **{k: v for k, v in rows[i].items() if k not in left_out}} for i in sound]
    return networks.take(sound).save(folder, rows[sound[0]]["method"], facts=known)


def _to_use(dataset: Dataset) -> dict[str, str]:
    """What is to be known by whoever feeds a network: its columns in order, their scaling, and what it answers."""
    names = {"class_names": dataset.class_names, "feature_names": dataset.feature_names}
    known = {name: json.dumps(of, ensure_ascii=False) for name, of in names.items() if of}
    if dataset.positive is not None:
        known["positive"] = dataset.class_names[dataset.positive]
    if dataset.scaling is not None:
        pairs = zip(("scaling_mean", "scaling_deviation"), dataset.scaling, strict=True)
        known |= {name: json.dumps(np.asarray(numbers, float).tolist()) for name, numbers in pairs}
    return known


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the text of ``networks.csv``: numbers as numbers, nothing where nothing is known.

    Example:
      >>> print(as_csv([{"seed": 0, "bound_met": True, "accuracy_test": 0.5}]), end="")
      seed,bound_met,accuracy_test
      0,True,0.5
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
