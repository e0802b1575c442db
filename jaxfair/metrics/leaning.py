r"""Process fairness: whether a model leans on sensitive features, whatever its outcomes are.

Of Shapley values phi ``[N, P]`` of N people and P players (features, or attributes of several columns)::

    importance_p = mean_i |phi_ip|
    share_p      = importance_p / sum_q importance_q
    rank_p       = 1 + the number of players that are more important

FixOut's rule: a model *leans* on the sensitive players if one of them is among the k most important. A player that is
worth nothing to anybody, or less than a millionth of all (which may be rounding), is among no k, however few others
matter.

**Choosing k.** LimeOut had k = 10. FixOut's later rule removes features from the ranked list until the kurtosis of what
is left has changed by more than a threshold, of which 0.5 to 1 are advised. The paper's pseudocode was not at hand;
read here as: the least important goes first, the change is against the kurtosis of the whole list, and k is how many
are left when it has become too large. (The most important first would end at once: the kurtosis is theirs.) Where it
never does, such as for players that matter alike, k is P.

**How sure.** People are drawn again, with replacement, and everything is computed anew, k included. The model is held
fixed; what another seed would have learned is for :func:`jaxfair.metrics.t_interval`. A rank is a bumpy number, and its
interval is one of percentiles.

Sources: Bhargava, Couceiro and Napoli, `LimeOut <https://arxiv.org/abs/2006.10531>`_, 2020; Alves, Amblard, Bernier,
Couceiro and Napoli, `Reducing unintended bias <https://arxiv.org/abs/2108.02662>`_, 2021, for the kurtosis;
Grgic-Hlaca, Zafar, Gummadi and Weller, Beyond distributive fairness, 2018, for process fairness. Differs from FixOut:
Shapley values of all players in place of LIME's or SHAP's samples, and intervals.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike

from jaxfair.metrics._changes import generator
from jaxfair.metrics._rows import Numbers, Rows, check_level, check_whole
from jaxfair.typing import Key

#: A share below which importance may be the rounding of scores in 32 bits.
_NOTHING = 1e-6
#: Resamples drawn at a time hold at most so many counts.
_COUNTS = 4_000_000


class Leaning(NamedTuple):
    """How much a model leans on each player, and on the sensitive ones; all nan where there is nobody.

    Attributes:
      importance: ``[P]`` mean absolute value.
      share: ``[P]`` of all importance; 0 where nothing matters.
      share_low: ``[P]`` lower ends of the intervals, over people.
      share_high: ``[P]`` upper ends.
      rank: ``[P]``, 1 for the most important; equals have the same.
      rank_low: ``[P]``.
      rank_high: ``[P]``.
      sensitive: the share of all sensitive players together.
      sensitive_low: the lower end of its interval.
      sensitive_high: the upper end.
      k: of the rule.
      leans: 1 if a sensitive player is among the k most important, 0 if none is.
      certainty: the share of the resamples that say the same.
    """

    importance: np.ndarray
    share: np.ndarray
    share_low: np.ndarray
    share_high: np.ndarray
    rank: np.ndarray
    rank_low: np.ndarray
    rank_high: np.ndarray
    sensitive: float
    sensitive_low: float
    sensitive_high: float
    k: float
    leans: float
    certainty: float


def leaning(
    values: Numbers,
    sensitive: Numbers,
    *,
    key: Key,
    k: int | None = None,
    threshold: ArrayLike = 0.5,
    weight: Rows | None = None,
    level: ArrayLike = 0.95,
    resamples: int = 2000,
) -> Leaning:
    """Whether a model leans on sensitive features, and how sure that is.

    Args:
      values: ``[N, P]`` Shapley values of one score, of :func:`jaxfair.metrics.shapley`.
      sensitive: ``[P]``, whether a player is.
      key: of the resamples.
      k: how many of the most important may not be sensitive; None finds it by the kurtosis.
      threshold: of the change of the kurtosis.
      weight: ``[N]``, 0 for padding; all ones by default.
      level: of the intervals.
      resamples: how many.

    Returns:
      :class:`Leaning`.

    Raises:
      ValueError: for shapes that do not fit, and numbers that cannot be.

    Example:
      >>> import jax
      >>> values = np.array([[0.5, 0.1, 0.01], [-0.4, 0.2, 0.0], [0.6, -0.1, 0.01]])
      >>> found = leaning(values, [False, True, False], k=1, key=jax.random.key(0))
      >>> found.rank.tolist(), round(found.sensitive, 3), found.leans
      ([1.0, 2.0, 3.0], 0.208, 0.0)
      >>> leaning(values, [False, True, False], k=2, key=jax.random.key(0)).leans
      1.0
    """
    error = 1 - float(check_level(level))
    check_whole("resamples", resamples, 1)
    if k is not None:
        check_whole("k", k, 1)
    size, marked = np.abs(np.asarray(values, np.float64)), np.asarray(sensitive, bool)
    part = np.ones(len(size)) if weight is None else np.asarray(weight, np.float64)
    if size.ndim != 2 or marked.shape != size.shape[1:] or part.shape != size.shape[:1]:
        weights = "" if weight is None else f", weight of shape {part.shape}"
        raise ValueError(
            f"values of shape {size.shape}, sensitive of shape {marked.shape}{weights}: give [N, P], [P] and [N]."
        )
    there = part != 0
    size, part = size[there], part[there]
    mean, share, rank, chosen, leans = _of(_means(np.ones((1, len(size))), size, part), marked, k, threshold)
    drawn = [_of(_means(counts, size, part), marked, k, threshold) for counts in _resamples(len(size), resamples, key)]
    _, shares, ranks, _, said = (np.concatenate(found) for found in zip(*drawn, strict=True))
    sides = [error / 2, 1 - error / 2]
    with np.errstate(invalid="ignore"):
        (low, high), together = np.quantile(shares, sides, axis=0), np.quantile(shares[:, marked].sum(1), sides)
        first, last = np.quantile(ranks, sides, axis=0, method="nearest")
    agree = np.nan if np.isnan(leans[0]) else float(np.mean(said == leans[0]))
    return Leaning(
        importance=mean[0], share=share[0], share_low=low, share_high=high, rank=rank[0], rank_low=first,
        rank_high=last, sensitive=float(share[0][marked].sum()) if len(size) else np.nan,
        sensitive_low=float(together[0]) if len(size) else np.nan,
        sensitive_high=float(together[1]) if len(size) else np.nan,
        k=float(chosen[0]), leans=float(leans[0]), certainty=agree,
    )  # fmt: skip


def _resamples(people: int, resamples: int, key: Key):
    """``[R, N]``, how often each person is drawn, a block of resamples at a time."""
    rng, block = generator(key), max(1, _COUNTS // max(people, 1))
    for first in range(0, resamples, block):
        rows = min(block, resamples - first)
        yield rng.multinomial(people, np.full(people, 1 / people), rows) if people else np.zeros((rows, 0))


def _means(counts: np.ndarray, size: np.ndarray, part: np.ndarray) -> np.ndarray:
    """``[R, P]`` importance of each resample; nan of nobody."""
    total = counts @ part
    with np.errstate(invalid="ignore", divide="ignore"):
        return counts @ (size * part[:, None]) / total[:, None]


def _of(mean: np.ndarray, marked: np.ndarray, k: int | None, threshold: ArrayLike) -> tuple[np.ndarray, ...]:
    """Importance, shares, ranks, k and whether it leans, of each row of importances ``[R, P]``."""
    total = mean.sum(1, keepdims=True)
    share = np.where(total > 0, mean / np.where(total > 0, total, 1), mean)
    rank = np.where(np.isnan(mean), np.nan, 1.0 + (mean[:, None, :] > mean[:, :, None]).sum(2))
    known = ~np.isnan(total[:, 0])
    most = np.full(len(mean), float(k)) if k is not None else _find_k(mean, threshold)
    inside = (rank <= most[:, None]) & (share > _NOTHING) & marked
    return mean, share, rank, np.where(known, most, np.nan), np.where(known, inside.any(1), np.nan)


def _find_k(mean: np.ndarray, threshold: ArrayLike) -> np.ndarray:
    """``[R]``: how many of the most important are left when the kurtosis of a row ``[R, P]`` has changed too much."""
    ranked = -np.sort(-mean, axis=1)
    count = ranked.shape[1]
    left = np.stack([_kurtosis(ranked[:, :n]) for n in range(1, count + 1)], axis=1)
    with np.errstate(invalid="ignore"):
        far = np.abs(left - left[:, -1:]) > threshold  # of n left, at n - 1
    # The largest n that is too far: what is removed before it, is not.
    return np.where(far.any(1), count - np.argmax(far[:, ::-1], axis=1), count).astype(np.float64)


def _kurtosis(values: np.ndarray) -> np.ndarray:
    """``[R]`` of rows, m4 / m2^2: 3 of a normal distribution; nan where all are equal."""
    off = values - values.mean(1, keepdims=True)
    scale = np.abs(off).max(1, keepdims=True)
    off = off / np.where(scale > 0, scale, np.nan)
    return (off**4).mean(1) / (off**2).mean(1) ** 2
