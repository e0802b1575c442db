r"""Why a bound was not met, and what to do about it: of each network that exceeds its bound on the training split.

Let g be the group that exceeds it most, :math:`\epsilon` the tolerance, and :math:`\lambda_g` its multiplier at the end
of each epoch. What is looked for:

- *Below what can be seen*: one person of g is more than :math:`\epsilon`, or so is the largest gap that chance alone
  gives the people whose outcome changed (:func:`jaxfair.metrics.sign_flip_null`). No training helps.
- *Infeasible*: the dense network knows g by heart. Its accuracy on g falls from train to people whom it was not trained
  on by more than everybody's does; that part is lost with the weights that held it. It is said where it is more than
  :math:`\epsilon` and than two standard errors. Or :math:`\lambda_g` stands still at its largest, and the bound is
  exceeded all the same.
- *Still rising*: :math:`\lambda_g` rose in the last third of the epochs.

Several may be true of one network. Where none is, the distance that is left is said.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxfair import metrics
from jaxfair.data import Dataset
from jaxfair.files import visible
from jaxfair.recipes._bounds import Bound
from jaxfair.recipes._gaps import per_group
from jaxfair.recipes._judged import judge, unequal
from jaxfair.recipes._networks import Networks
from jaxfair.recipes.worth import Predicted
from jaxfair.report import shorten, who

#: A multiplier rises where it moves by more than this share of itself,
RISES = 0.01
#: and stands still where it moves by less than this.
STILL = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class _Missed:
    """A network that exceeds its bound: its place, its seed, the group that exceeds it most, and how it stands."""

    place: int
    seed: int
    group: int
    over: float
    gap: float


#: What is said, and of which places.
_Cause = tuple[str, set[int]]


def why(
    dataset: Dataset,
    dense: Predicted,
    sparse: Predicted,
    *,
    bound: Bound | None,
    tolerance: Any = None,
    seeds: Sequence[int] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Why the bound was not met by some networks, and what to do: at most three sentences; none where all met it.

    Args:
      dataset: the data.
      dense: the networks before, or their predictions: split -> ``[S, N]`` classes, -1 of a network that failed.
      sparse: the networks after, in the same order, or their predictions. Those that failed are left out.
      bound: that was trained for, on a gap; of another (:func:`rates`) only the distance is told. Nothing is said of
        None.
      tolerance: on the gap, one for all groups or ``[G]``; the bound's own by default.
      seeds: of the networks; their own, or 0, 1, ... of predictions.
      history: a dict for each epoch and seed with ``multipliers``; the networks' own by default.

    Example:
      Three of the twenty people of group b are lost, at a tolerance of a tenth of a person:

      >>> from jaxfair import data, recipes
      >>> group, split = ["a"] * 180 + ["b"] * 20, ["train"] * 200
      >>> mine = data.dataset(np.ones((202, 1)), [0, 1] * 101, [*group, "a", "b"], split=[*split, *["validation"] * 2])
      >>> after = np.where(np.arange(200) < 197, mine.train.y, 1 - mine.train.y)
      >>> print(*why(mine, {"train": mine.train.y[None]}, {"train": after[None]}, bound=recipes.ceag(0.005)))
      the bound was not met on train in 1 of 1 seed: it is below what can be seen (seed 0, b: one of its 20 people is
      5.0 points and the largest gap by chance alone is about 3... points): ask for no less (tolerance=0.05)
    """
    if bound is None:
        return []
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
            seed = place if seeds is None else int(seeds[place])
            missed.append(_Missed(place, seed, group, judged.over, float(judged.gap[group])))
    if not missed:
        return []
    told, explained = [], set()
    if bound.violation is None:
        told, explained = _causes(dataset, before, after, history, missed, per_group(limit, dataset.num_groups))
    rest = [one for one in missed if one.place not in explained]
    if rest:
        told.append(_distance(dataset, rest))
    head = "the bound was not met on train in {} of {} seed{}: {}"
    return [head.format(len(places), sound, "" if sound == 1 else "s", text) for text, places in told[:3]]


def _causes(
    dataset: Dataset,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    missed: Sequence[_Missed],
    limit: np.ndarray,
) -> tuple[list[_Cause], set[int]]:
    """What was found, one way of being infeasible at most; and who is explained by any of it."""
    stuck, rising = _multipliers(dataset, history, missed)
    unseen, by_heart = _unseen(dataset, before, after, missed, limit), _by_heart(dataset, before, missed, limit)
    told = [cause for cause in (unseen, by_heart or stuck, rising) if cause is not None]
    return told, {place for cause in (unseen, by_heart, stuck, rising) if cause is not None for place in cause[1]}


def _unseen(
    dataset: Dataset, before: Mapping[str, Any], after: Mapping[str, Any], missed: Sequence[_Missed], limit: np.ndarray
) -> _Cause | None:
    """Where the tolerance is less than one person of the group, or than what chance alone gives."""
    y, group, sizes = np.asarray(dataset.train.y), np.asarray(dataset.train.group), _sizes(dataset, "train")
    bound_to = np.asarray(dataset.constrained)[group]
    weight = unequal(dataset.train)
    found: dict[_Missed, dict[str, float]] = {}
    for one in missed:
        right = [np.asarray(of["train"])[one.place] == y for of in (before, after)]
        null = metrics.sign_flip_null(
            right[0][bound_to], right[1][bound_to], group[bound_to], dataset.num_groups, key=jax.random.key(0),
            weight=None if weight is None else weight[bound_to], permutations=1000,
        )  # fmt: skip
        least = {"person": 1 / sizes[one.group], "chance": float(null.mean)}
        if least := {what: share for what, share in least.items() if share > limit[one.group] + 1e-6}:
            found[one] = least
    if not found:
        return None
    most = max(found, key=lambda one: max(found[one].values()))
    words = {
        "person": f"one of its {who(round(sizes[most.group]))} is {{}}",
        "chance": "the largest gap by chance alone is about {}",
    }
    said = " and ".join(words[what].format(_points(share)) for what, share in found[most].items())
    return (
        f"it is below what can be seen ({_where(dataset, most)}: {said}): ask for no less "
        f"(tolerance={_upward(max(found[most].values()))})"
    ), {one.place for one in found}


def _by_heart(
    dataset: Dataset, before: Mapping[str, Any], missed: Sequence[_Missed], limit: np.ndarray
) -> _Cause | None:
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
        if excess > max(float(limit[one.group]), 2 * math.sqrt(share * (1 - share) / count)):
            found[one] = excess, there[0]
    if not found:
        return None
    most = max(found, key=lambda one: found[one][0])
    (excess, split), size = found[most], float(_sizes(dataset, "train")[most.group])
    return (
        f"it cannot be had from dense networks that know a group by heart ({_where(dataset, most)}: from train to "
        f"{split} accuracy on it falls by {_points(excess)} more than on all, which is about {round(excess * size):,} "
        f"of its {who(round(size))}): stop dense training earlier, prune less (sparsity=), or allow more (tolerance=)"
    ), {one.place for one in found}


def _multipliers(
    dataset: Dataset, history: Sequence[Mapping[str, Any]], missed: Sequence[_Missed]
) -> tuple[_Cause | None, _Cause | None]:
    """Where the multiplier of the group that loses most stands at its largest, and where it still rises."""
    stuck: dict[_Missed, tuple[float, float]] = {}
    rising: dict[_Missed, tuple[float, float]] = {}
    epochs = 0
    for one in missed:
        rows = sorted((row for row in history if row["seed"] == one.seed), key=lambda row: row["epoch"])
        path = np.abs(np.array([row.get("multipliers", []) for row in rows], float))
        if path.ndim != 2 or path.shape[1] != dataset.num_groups or len(path) < 3:
            continue
        path, epochs, third = path[:, one.group], len(path), len(path) // 3
        last, then = float(path[-1]), float(path[-1 - third])
        if last - then > RISES * last:
            rising[one] = then, last
        elif last > 0 and np.ptp([*path[-1 - third :], np.max(path)]) <= STILL * last:
            stuck[one] = then, last
    return _stuck(dataset, stuck), _rising(dataset, rising, epochs)


def _stuck(dataset: Dataset, found: Mapping[_Missed, tuple[float, float]]) -> _Cause | None:
    if not found:
        return None
    most = max(found, key=lambda one: one.over)
    return (
        f"it cannot be had at this sparsity ({_where(dataset, most)}: its multiplier stands at its largest, "
        f"{found[most][1]:.2f}, and its gap stays {_points(most.over)} too large): prune less (sparsity=), stop dense "
        "training earlier, or allow more (tolerance=)"
    ), {one.place for one in found}


def _rising(dataset: Dataset, found: Mapping[_Missed, tuple[float, float]], epochs: int) -> _Cause | None:
    if not found:
        return None
    most = max(found, key=lambda one: one.over)
    then, last = found[most]
    return (
        f"multipliers were still rising at the last epoch ({_where(dataset, most)}: from {then:.2f} to {last:.2f} in "
        f"the last third of {epochs} epochs): train longer (epochs={2 * epochs}, say), or allow more (tolerance=)"
    ), {one.place for one in found}


def _distance(dataset: Dataset, missed: Sequence[_Missed]) -> _Cause:
    most = max(missed, key=lambda one: one.over)
    more = "" if math.isnan(most.gap) else f" (tolerance={_upward(most.gap)})"
    return (
        f"by up to {_points(most.over)} ({_where(dataset, most)}), and nothing that was recorded says why: prune less "
        f"(sparsity=), train longer (epochs=), or allow more{more}"
    ), {one.place for one in missed}


def _sizes(dataset: Dataset, split: str) -> np.ndarray:
    """``[G]`` people, or as many as their weights make of them."""
    of = dataset.splits[split]
    return np.asarray(metrics.effective_counts(of.group, dataset.num_groups, weight=unequal(of)), float)


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
    """A tolerance of at least that, to a tenth of a point; what rounding adds to a share is no more."""
    return f"{math.ceil(1000 * share - 1e-3) / 1000:g}"
