r"""The rule that judges a group: exact where few of its people changed, the bootstrap where many did, smoothly between.

The excess gap is ``psi = (1 - p) (Delta - Delta_rest)``, with p the group's share of people: the average contains the
group itself, and what is left are two independent gaps. The exact interval takes that of
:func:`jaxfair.metrics.exact_gap_interval` for ``Delta`` at nine tenths of the error, and a wide one for ``Delta_rest``,
mostly thousands of people, at the last tenth. With reach r, what the bootstrap puts on both sides of psi, it is::

    low = w (1 - p) (L(Delta) - U(Delta_rest)) + (1 - w) (psi - r)

and likewise above; the weight w falls from 1 for ``few`` people who changed, in the group or in the rest of it, to 0
for half as many again. (Where most changed it is those who did not that count.) The rest counts as well, since a large
group is compared with a small one beside it: of fifty people of whom one changed the bootstrap knows too little. All
that is said of a group comes from this one rule: its p-value is the smallest error at which 0 is outside, and its
smallest visible gap the smallest with which 0 would be.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from jaxfair.metrics._exact import Bounds
from jaxfair.metrics._paired import box, lower_limit, rejects

#: Of fewer people who changed the interval is an exact one; half as many again, and it is the bootstrap's alone.
FEW, SETTLED = 10, 15
# Of the error: to the group's own gap, and to that of the rest.
_OWN, _REST = 0.9, 0.1
# Below it p-values are not told apart.
_LEAST = 1e-12
# With this many changes the normal law is as good for the rest, and narrower.
_MANY = 50

#: error ``[G]`` -> what the bootstrap puts on both sides of psi, ``[G]``.
Reach = Callable[[np.ndarray], np.ndarray]


class Rule(NamedTuple):
    """What the judgement of every group rests on.

    Attributes:
      size: ``[G]`` people.
      lost: ``[G]`` sum of the positive differences.
      gained: ``[G]`` sum of the negative ones, without their sign.
      share: ``[G]`` p.
      psi: ``[G]`` excess gaps.
      weight: ``[G]`` w, of the exact interval.
      rest: size ``[G]``, lost, gained, variance of one difference, and people changed, of all others.
      binary: whether every difference is -1, 0 or 1.
      told: ``[G]`` of how many people the difference is not the commonest one, those who changed, mostly; in the group
        or in the rest of it, whichever has fewer.
    """

    size: np.ndarray
    lost: np.ndarray
    gained: np.ndarray
    share: np.ndarray
    psi: np.ndarray
    weight: np.ndarray
    rest: tuple[np.ndarray, ...]
    binary: bool
    told: np.ndarray


def make_rule(values: np.ndarray, counts: np.ndarray, psi: np.ndarray, few: int) -> Rule:
    """The rule for counts ``[G, V]`` of differences ``[V]``."""
    size = counts.sum(1)
    lost, gained = counts @ np.maximum(values, 0.0), counts @ np.maximum(-values, 0.0)
    changed, square = counts[:, values != 0].sum(1), counts @ values**2
    others = [total.sum() - total for total in (size, lost, gained, square, changed)]
    n = np.maximum(others[0], 1)
    variance = np.maximum(others[3] / n - ((others[1] - others[2]) / n) ** 2, 0.0)
    rest = counts.sum(0) - counts
    told = np.minimum(size - counts.max(1, initial=0), rest.sum(1) - rest.max(1, initial=0))
    return Rule(
        size=size.astype(np.float64),
        lost=lost,
        gained=gained,
        share=size / max(size.sum(), 1),
        psi=psi,
        weight=_weight(told, few),
        rest=(others[0].astype(np.float64), others[1], others[2], variance, others[4]),
        binary=bool(np.isin(values, (-1, 0, 1)).all()),
        told=told,
    )


def _weight(told: np.ndarray, few: int) -> np.ndarray:
    return np.clip(3 - 2 * told / max(few, 1), 0.0, 1.0) if few else np.zeros(len(told))


def multiplied(rule: Rule, by: np.ndarray, few: int) -> Rule:
    """The rule of so many times as many people ``[G]``, in each group and in the rest of it, at the same shares."""
    whole = np.round if rule.binary else np.asarray
    size, lost, gained, variance, changed = rule.rest
    return rule._replace(
        size=np.round(rule.size * by), lost=whole(rule.lost * by), gained=whole(rule.gained * by),
        weight=_weight(rule.told * by, few), told=rule.told * by,
        rest=(size * by, lost * by, gained * by, variance, changed * by),
    )  # fmt: skip


def few_changed(rule: Rule) -> np.ndarray:
    """``[G]`` whether the exact interval is all of a group's."""
    return (rule.weight >= 1) & (rule.size > 0)


def mirrored(rule: Rule) -> Rule:
    """The rule with the networks exchanged: its lower ends are minus the upper ones."""
    size, lost, gained, *more = rule.rest
    return rule._replace(lost=rule.gained, gained=rule.lost, psi=-rule.psi, rest=(size, gained, lost, *more))


def intervals(rule: Rule, error: np.ndarray, reach: np.ndarray) -> Bounds:
    """Of psi, at the error ``[G]`` of each group, with what the bootstrap puts on both sides ``[G]``."""
    return Bounds(_low(rule, error, reach), -_low(mirrored(rule), error, reach))


def upper_limits(rule: Rule, error: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """``[G]`` what psi exceeds with a chance of `error` at most: one side of an interval of twice the error."""
    return -_low(mirrored(rule), np.minimum(2 * error, 1.0), reach)


def p_values(rule: Rule, reach: Reach, least: float) -> np.ndarray:
    """``[G]`` the smallest error at which 0 is outside; where the bootstrap has a part, not below `least`."""
    both = [_p_value(one, reach, least) for one in (rule, mirrored(rule))]
    return np.minimum(*both)


def visible_gaps(rule: Rule, error: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """``[G]`` the smallest psi, with as many gained as there are, for which 0 is below the interval; inf if none is."""
    most = rule.size - rule.gained
    middle_of = (lambda a, b: np.floor((a + b) / 2)) if rule.binary else (lambda a, b: (a + b) / 2)
    n, rest = np.maximum(rule.size, 1.0), (rule.rest[1] - rule.rest[2]) / np.maximum(rule.rest[0], 1.0)

    def with_lost(lost):
        psi = (1 - rule.share) * ((lost - rule.gained) / n - rest)
        return rule._replace(lost=lost, psi=psi)

    seen, unseen = most, np.minimum(-1.0, most)
    for _ in range(int(np.ceil(np.log2(np.max(most, initial=1.0) + 2))) + (0 if rule.binary else 20)):
        middle = middle_of(unseen, seen)
        above = _above_zero(with_lost(np.maximum(middle, 0.0)), error, reach)
        seen, unseen = np.where(above, middle, seen), np.where(above, unseen, middle)
    at = with_lost(np.maximum(seen, 0.0))
    # What is there is seen to the last bit, however its psi was computed.
    psi = np.where(seen == rule.lost, rule.psi, at.psi)
    exact = np.where(_above_zero(at, error, reach), psi, np.inf)
    return np.where(rule.weight > 0, exact, np.nextafter(reach, np.inf))


def _upper_of_the_rest(rule: Rule, error: np.ndarray) -> np.ndarray:
    size, lost, gained, variance, changed = rule.rest
    n, tail = np.maximum(size, 1.0), _REST * error / 2
    normal = (lost - gained) / n + special.ndtri(1.0 - tail) * np.sqrt(variance / n)
    exact = -box(size, gained, lost, tail, rule.binary)
    return np.where(changed >= _MANY, normal, exact)


def _low(rule: Rule, error: np.ndarray, reach: np.ndarray) -> np.ndarray:
    w = rule.weight
    part = w > 0
    own = np.zeros_like(rule.psi)
    size, lost, gained, tail = (x[part] for x in (rule.size, rule.lost, rule.gained, _OWN * error / 2))
    own[part] = lower_limit(size, lost, gained, tail, rule.binary)
    exact = (1 - rule.share) * (own - _upper_of_the_rest(rule, error))
    return np.where(part, w * exact, 0.0) + np.where(w < 1, (1 - w) * (rule.psi - np.where(w < 1, reach, 0.0)), 0.0)


def _above_zero(rule: Rule, error: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Whether ``_low`` is above 0, by one test of the own gap instead of its limit."""
    w, scale = rule.weight, rule.weight * (1 - rule.share)
    normal = np.where(w < 1, (1 - w) * (rule.psi - np.where(w < 1, reach, 0.0)), 0.0)
    part = scale > 0
    needed = _upper_of_the_rest(rule, error) - normal / np.where(part, scale, 1.0)
    above = np.where(w > 0, False, normal > 0)
    size, lost, gained, tail = (x[part] for x in (rule.size, rule.lost, rule.gained, _OWN * error / 2))
    above[part] = rejects(size, lost, gained, needed[part], tail, rule.binary)
    return above


def _p_value(rule: Rule, reach: Reach, least: float) -> np.ndarray:
    low = np.log(np.where(rule.weight < 1, least, _LEAST))
    # No side has an error above 1, and only that on which psi lies can leave out 0.
    high = np.zeros_like(low)
    low = np.where(rule.psi > 0, low, high)
    for _ in range(22):
        middle = (low + high) / 2
        outside = _above_zero(rule, np.exp(middle), reach(np.exp(middle)))
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return np.exp(high)
