r"""Why a bound was not met, and what to do about it: of each network that exceeds its bound on the training split.

Let g be the group that exceeds it most, :math:`\epsilon` the tolerance, and :math:`\lambda_g` its multiplier at the end
of each epoch. What is looked for:

- *Below what can be seen*: one person of g is more than :math:`\epsilon`, or so is the largest gap that chance alone
  gives the people whose outcome changed (:func:`jaxfair.metrics.sign_flip_null`). No training helps.
- *Infeasible*: the dense network knows g by heart. Its accuracy on g falls from train to people whom it was not trained
  on by more than everybody's does; that part is lost with the weights that held it. It is said where it is more than
  :math:`\epsilon` and than two standard errors. Or :math:`\lambda_g` stands still at its largest, and the bound is
  exceeded all the same.
- *Still rising*: :math:`\lambda_g` ends at its largest and rose in the last third of the epochs.

Several may be true of one network. Where none is, the distance that is left is said.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfair import metrics
from jaxfair.data import Dataset
from jaxfair.files import visible
from jaxfair.recipes._bounds import Bound
from jaxfair.recipes._judged import Judged, judge, unequal
from jaxfair.recipes._networks import Networks
from jaxfair.recipes.worth import Predicted
from jaxfair.report import shorten, who

#: A multiplier that moves by less than this share of itself stands still.
STILL = 0.01


class _Missed(NamedTuple):
    """A network that exceeds its bound: its place, its seed, the group that exceeds it most, and how it stands."""

    place: int
    seed: int
    group: int
    judged: Judged


def why(
    dataset: Dataset,
    dense: Predicted,
    sparse: Predicted,
    *,
    bound: Bound,
    tolerance: Any = None,
    seeds: Sequence[int] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Why the bound was not met by some networks, and what to do: at most three sentences; none where all met it.

    Args:
      dataset: the data.
      dense: the networks before, or their predictions: split -> ``[S, N]`` classes, -1 of a network that failed.
      sparse: the networks after, in the same order, or their predictions. Those that failed are left out.
      bound: that was trained for, on a gap; of another (:func:`rates`) only the distance is told.
      tolerance: on the gap; the bound's own by default.
      seeds: of the networks; their own, or 0, 1, ... of predictions.
      history: a dict for each epoch and seed with ``multipliers``; the networks' own by default.

    Example:
      One of two people of group b is lost, at a tolerance of a tenth of a person:

      >>> from jaxfair import data, recipes
      >>> y = np.array([0, 1] * 100)
      >>> mine = data.dataset(np.ones((200, 1)), y, ["a"] * 180 + ["b"] * 20, split=["train"] * 200)
      >>> after = np.where(np.arange(200) < 197, mine.train.y, 1 - mine.train.y)
      >>> print(*why(mine, {"train": mine.train.y[None]}, {"train": after[None]}, bound=recipes.ceag(0.005)))
      the bound was not met on train in 1 of 1 seed: it is below what can be seen (seed 0, b: one of its 20 people is
      5.0 points, and the largest gap by chance alone about ... points): ask for no less (tolerance=0...)
    """
    limit = bound.tolerance if tolerance is None else tolerance
    if isinstance(sparse, Networks):
        seeds, history = sparse.seeds if seeds is None else seeds, history or sparse.history
    failed = sparse.failed_at >= 0 if isinstance(sparse, Networks) else None
    before, after = (of.predictions(dataset) if isinstance(of, Networks) else of for of in (dense, sparse))
    sound, missed = 0, []
    for place, labels in enumerate(np.asarray(after["train"])):
        if failed[place] if failed is not None else (labels < 0).all():
            continue
        sound += 1
        judged = judge(dataset, np.asarray(before["train"])[place], labels, bound, limit)
        if judged.over is not None and judged.over > 0:
            group = -1 if np.isnan(judged.beyond).all() else int(np.nanargmax(judged.beyond))
            missed.append(_Missed(place, place if seeds is None else int(seeds[place]), group, judged))
    if not missed:
        return []
    causes = [] if bound.violation is not None else [
        _unseen(dataset, before, after, missed, float(limit)),
        _by_heart(dataset, before, missed, float(limit)),
        *_multipliers(dataset, history, missed),
    ]  # fmt: skip
    told = [cause for cause in causes if cause is not None]
    explained = {place for _, places in told for place in places}
    rest = [one for one in missed if one.place not in explained]
    if rest:
        told.append(_distance(dataset, rest, limit))
    head = "the bound was not met on train in {} of {} seed{}: {}"
    return [head.format(len(places), sound, "" if sound == 1 else "s", text) for text, places in told[:3]]


def _unseen(
    dataset: Dataset, before: Mapping[str, Any], after: Mapping[str, Any], missed: Sequence[_Missed], limit: float
) -> tuple[str, set[int]] | None:
    """Where the tolerance is less than one person of the group, or than what chance alone gives."""
    y, group, sizes = np.asarray(dataset.train.y), np.asarray(dataset.train.group), _sizes(dataset, "train")
    bound_to = np.asarray(dataset.constrained)[group]
    found = {}
    for one in missed:
        right = [np.asarray(of["train"])[one.place] == y for of in (before, after)]
        null = metrics.sign_flip_null(
            *(those[bound_to] for those in right), group[bound_to], dataset.num_groups, key=jax.random.key(0),
            permutations=1000,
        )  # fmt: skip
        found[one] = 1 / sizes[one.group], float(null.mean)
    found = {one: least for one, least in found.items() if max(least) > limit + 1e-6}
    if not found:
        return None
    most = max(found, key=lambda one: max(found[one]))
    person, chance = found[most]
    return (
        f"it is below what can be seen ({_where(dataset, most)}: one of its {who(round(sizes[most.group]))} is "
        f"{_points(person)}, and the largest gap by chance alone about {_points(chance)}): ask for no less "
        f"(tolerance={_upward(max(person, chance))})"
    ), {one.place for one in found}


def _by_heart(
    dataset: Dataset, before: Mapping[str, Any], missed: Sequence[_Missed], limit: float
) -> tuple[str, set[int]] | None:
    """Where the dense network is overfitted to the group that loses most, more than to everybody."""
    found = {}
    for one in missed:
        there = [name for name in ("validation", "test") if name in before and _sizes(dataset, name)[one.group] > 0]
        if not there:
            continue
        (train, all_train), (other, all_other) = (
            _accuracies(dataset, name, before, one) for name in ("train", there[0])
        )  # fmt: skip
        count = _sizes(dataset, there[0])[one.group]
        # As if two more had been seen, one right and one wrong: of few people all may be right by chance.
        share = (other * count + 1) / (count + 2)
        excess = (train - other) - (all_train - all_other)
        if excess > max(limit, 2 * math.sqrt(share * (1 - share) / count)):
            found[one] = excess, there[0]
    if not found:
        return None
    most = max(found, key=lambda one: found[one][0])
    (excess, split), size = found[most], _sizes(dataset, "train")[most.group]
    return (
        f"it cannot be had from dense networks that know a group by heart ({_where(dataset, most)}: from train to "
        f"{split} accuracy on it falls by {_points(excess)} more than on all, which is about {round(excess * size):,} "
        f"of its {who(round(size))}): stop dense training earlier, prune less (sparsity=), or allow more (tolerance=)"
    ), {one.place for one in found}


def _multipliers(
    dataset: Dataset, history: Sequence[Mapping[str, Any]], missed: Sequence[_Missed]
) -> list[tuple[str, set[int]] | None]:
    """Where the multiplier of the group that loses most stands at its largest, and where it still rises."""
    stuck: dict[_Missed, tuple[float, float]] = {}
    rising = dict(stuck)
    epochs = 0
    for one in missed:
        rows = sorted((row for row in history if row["seed"] == one.seed), key=lambda row: row["epoch"])
        path = np.abs(np.array([row.get("multipliers") or [] for row in rows], float))
        if path.ndim != 2 or path.shape[1] != dataset.num_groups or len(path) < 3:
            continue
        path, epochs = path[:, one.group], max(epochs, len(path))
        last, then = float(path[-1]), float(path[-1 - len(path) // 3])
        if not last > 0 or last < (1 - STILL) * np.max(path):
            continue  # it never moved, failed, or fell again
        if last - then > STILL * last:
            rising[one] = then, last
        elif np.ptp(path[-1 - len(path) // 3 :]) <= STILL * last:
            stuck[one] = then, last
    told: list[tuple[str, set[int]] | None] = []
    if stuck:
        most = max(stuck, key=lambda one: float(one.judged.over or 0))
        told.append((
            f"it cannot be had at this sparsity ({_where(dataset, most)}: its multiplier stands at its largest, "
            f"{stuck[most][1]:.2f}, and the gap stays {_points(most.judged.over)} too large): prune less (sparsity=), "
            "stop dense training earlier, or allow more (tolerance=)",
            {one.place for one in stuck},
        ))  # fmt: skip
    if rising:
        most = max(rising, key=lambda one: float(one.judged.over or 0))
        then, last = rising[most]
        told.append((
            f"multipliers were still rising at the last epoch ({_where(dataset, most)}: from {then:.2f} to {last:.2f} "
            f"in the last {epochs // 3} of {epochs} epochs): train longer (epochs={2 * epochs}, say), or allow more "
            "(tolerance=)",
            {one.place for one in rising},
        ))  # fmt: skip
    return told


def _distance(dataset: Dataset, missed: Sequence[_Missed], limit: Any) -> tuple[str, set[int]]:
    most = max(missed, key=lambda one: float(one.judged.over or 0))
    instead = "" if limit is None or most.group < 0 else _upward(float(limit) + float(most.judged.over or 0))
    return (
        f"it was missed by up to {_points(most.judged.over)} ({_where(dataset, most)}), and nothing of what was "
        f"recorded says why: prune less (sparsity=), train longer (epochs=), or allow more (tolerance={instead})"
    ), {one.place for one in missed}


def _sizes(dataset: Dataset, split: str) -> np.ndarray:
    """``[G]`` people, as their weights sum to."""
    of = dataset.splits[split]
    return np.asarray(metrics.group_counts(of.group, dataset.num_groups, weight=unequal(of)), float)


def _accuracies(dataset: Dataset, split: str, before: Mapping[str, Any], one: _Missed) -> tuple[float, float]:
    """Of the dense network on the group, and on everybody."""
    of = dataset.splits[split]
    right = (np.asarray(before[split])[one.place] == np.asarray(of.y)).astype(float)
    weight, those = np.asarray(of.weight, float), np.asarray(of.group) == one.group
    return float(np.average(right[those], weights=weight[those])), float(np.average(right, weights=weight))


def _where(dataset: Dataset, one: _Missed) -> str:
    named = "" if one.group < 0 else f", {shorten(visible(dataset.group_names[one.group]))}"
    return f"seed {one.seed}{named}"


def _points(share: Any) -> str:
    return f"{100 * float(share):.1f} points"


def _upward(share: float) -> str:
    """A tolerance of at least that, to a tenth of a point."""
    return f"{math.ceil(1000 * share - 1e-9) / 1000:g}"
