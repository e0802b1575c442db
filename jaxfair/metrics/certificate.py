r"""What no group loses more than: one limit for all of them, for new people, at a stated confidence.

Of every group g that has a bound let ``U_g`` be a one-sided upper limit of its excess gap ``psi_g``, that holds on its
own: ``P(psi_g > U_g) <= alpha``. The certificate is the largest of them::

    limit = max_g U_g,        P(max_g psi_g > limit) <= alpha = 1 - level

No price is paid for the number of groups. If the limit is too small at all, it is too small for the group that truly
loses most, h say: ``U_h <= limit < psi_h``, which happens with a chance of alpha at most, whichever group h is. (An
intersection-union test: to show that *all* gaps are small is harder than to show it of one, so that no error adds up.)
So the limit holds for all groups at once, though each ``U_g`` holds one at a time.

``U_g`` comes from the rule that judges (:func:`jaxfair.metrics.infer`), with the whole of alpha on one side: exact
where few people changed, the bootstrap where many did, and in between the mean of both, by the weight w::

    U_g = w (1 - p) (U(Delta) - L(Delta_rest)) + (1 - w) (psi - t_alpha se),       t_alpha the alpha-quantile of t*

The quantile keeps its sign. Of a few who are lost a sample may well hold too few, and then shows too little spread as
well: the two sides of t* differ, and a quantile of ``|t*|`` would be exceeded too often on this one.

Verdicts come from simultaneous two-sided intervals, which say more (of every group, in both directions) and are wider.
With the same key and resamples no ``U_g`` is above the upper end of such an interval, nor below psi. So the two never
contradict each other: where the bound holds for every group the limit is within the bound, and where it is violated for
one the limit is above it. The largest upper end of those intervals would be a certificate, too, and a larger one.

The networks are held fixed and the people vary. Of outcomes that are means over seeds the limit is one for the mean,
not for the network of one seed. And people are new only if nobody chose anything by them.

Source: Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24, 1982; for the signs of the
bootstrap, Hall, The Bootstrap and Edgeworth Expansion, 1992.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike
from scipy import special

from jaxfair.metrics._bootstrap import counted, moments, studentised
from jaxfair.metrics._changes import Changes, generator
from jaxfair.metrics._few import FEW, Rule, make_rule, multiplied, upper_limits
from jaxfair.metrics._rows import PerGroup, check_level, check_whole
from jaxfair.typing import Key

#: The logarithm, to base two, of the largest multiple of people that is looked for: a million times as many.
_MOST = 20


class Sample(NamedTuple):
    """What the limits rest on.

    Attributes:
      rule: of every group.
      standard_error: ``[G]`` of psi.
      quantile: ``[G]`` ``-t_alpha``.
      few: of fewer people who changed a limit is an exact one.
    """

    rule: Rule
    standard_error: np.ndarray
    quantile: np.ndarray
    few: int


class Certificate(NamedTuple):
    """No group with a bound loses more than ``limit`` beyond the average; made by :func:`certificate`.

    Attributes:
      limit: x, a share; inf where it is open.
      group: which group sets it, the first of equals; where it is open, the first about which nothing can be said.
      level: how sure that is, such as 0.95.
      people: ``[G]`` how many people each group has.
      upper: ``[G]`` the limit of each group, which holds one at a time; nan where nobody is.
      bounded: ``[G]`` bool, which groups have a bound: the limit is one for these.
      open: the groups with a bound about which nothing can be said: nobody is there, or so few that none of them may be
        lost by chance (by more than ``1 - level``) where half of all are. One of them, and there is no certificate.
      sample: what the limits rest on.
    """

    limit: float
    group: int
    level: float
    people: np.ndarray
    upper: np.ndarray
    bounded: np.ndarray
    open: tuple[int, ...]
    sample: Sample

    def people_for(self, limit: ArrayLike) -> np.ndarray:
        """How many people each group would need for a certificate of another limit, if the shares found hold.

        The shares of people who are lost, who are gained, and of each group among all: ``m`` times as many people in
        the group and in the rest of it, of whom ``m`` times as many changed, and the limit of the group falls to the
        one that is asked for. What a sample of that size will truly show is a matter of chance.

        Args:
          limit: y, a share.

        Returns:
          ``[G]`` numbers of people: what they are now where that will do, and of a group without a bound; inf where the
          gap that was seen is no smaller than y, or so near to it that a million times as many would not do; nan of
          nobody, whose shares are not known.

        Example:
          >>> import jax
          >>> changes = Changes(np.array([-1.0, 0.0, 1.0]), np.array([[100, 3800, 100], [12, 376, 12]]))
          >>> found = certificate(changes, key=jax.random.key(0))
          >>> found.people_for(0.01).round(-2)
          array([4000., 1500.])
          >>> found.people_for(-0.01)
          array([inf, inf])
        """
        y, psi = np.asarray(limit, np.float64).item(), self.sample.rule.psi
        enough_now = ~self.bounded | (self.upper <= y)
        open_ = ~enough_now & (psi < y) & (self.people > 0)
        # Log2 of a multiple that is too small, and of one that will do.
        low, high = np.zeros(len(psi)), np.where(open_, float(_MOST), 0.0)
        for _ in range(32):
            middle = (low + high) / 2
            enough = _uppers(self.sample, 1.0 - self.level, 2.0**middle) <= y
            low, high = np.where(enough | ~open_, low, middle), np.where(enough | ~open_, middle, high)
        found = np.where(open_ & (high < _MOST), np.ceil(self.people * 2.0**high), np.inf)
        return np.where(self.people == 0, np.nan, np.where(enough_now, self.people, found))


def certificate(
    changes: Changes,
    *,
    key: Key,
    constrained: PerGroup | None = None,
    resamples: int = 10_000,
    level: ArrayLike = 0.95,
    few: int = FEW,
) -> Certificate:
    """The smallest limit of which these people show that no group with a bound loses more, beyond the average.

    Args:
      changes: of :func:`jaxfair.metrics.count_changes`, of people by whom nothing was chosen.
      key: of the resampling.
      constrained: ``[G]`` bool, which groups have a bound; all by default. The others are in the average.
      resamples: number of resamples.
      level: how sure the limit is to hold for all groups.
      few: groups with fewer changed people than this get exact limits, as in :func:`jaxfair.metrics.infer`.

    Returns:
      :class:`Certificate`.

    Raises:
      ValueError: where fewer than two groups have people, for there is nobody to compare with; where no group has a
        bound; and for shapes that do not fit.

    Example:
      Of 4,000 men 100 are lost and 100 gained, of 400 women 12 and 12. No gap was seen; that none is above 1.9 points
      is what so many people can show, and the women, who are few, are the reason:

      >>> import jax
      >>> changes = Changes(np.array([-1.0, 0.0, 1.0]), np.array([[100, 3800, 100], [12, 376, 12]]))
      >>> found = certificate(changes, key=jax.random.key(0))
      >>> round(found.limit, 3), found.group
      (0.019, 1)
    """
    level = float(check_level(level))
    alpha = 1.0 - level
    check_whole("resamples", resamples, 1)
    check_whole("few", few, 0)
    values, counts = counted(changes)
    size = counts.sum(1)
    bounded = np.ones(len(size), bool) if constrained is None else np.asarray(constrained, bool)
    if bounded.shape != size.shape:
        raise ValueError(f"constrained has shape {bounded.shape} and there are {len(size)} groups: give one per group.")
    if (size > 0).sum() < 2:
        raise ValueError(f"people are in {(size > 0).sum()} of {len(size)} groups: give two or more, to be compared.")
    if not bounded.any():
        raise ValueError("no group has a bound: there is nothing to certify.")
    psi, error = moments(counts, values, size, size / size.sum())
    t = studentised(generator(key), Changes(values, counts), psi, resamples)
    # The rank of an upper quantile, as infer takes it. A limit is not below what was seen.
    rank = int(np.ceil((1.0 - alpha) * (resamples - 1)))
    sample = Sample(make_rule(values, counts, psi, few), error, np.maximum(np.sort(-t, axis=0)[rank], 0.0), few)
    upper = np.where(size > 0, _uppers(sample, alpha), np.nan)
    # By their number alone: if what they lost had a say in it, the limit of the others would not hold as it should.
    nothing = bounded & (0.5**size > alpha)
    ranked = np.where(bounded, np.where(nothing, np.inf, upper), -np.inf)
    group = int(ranked.argmax())
    open_ = tuple(np.flatnonzero(nothing).tolist())
    return Certificate(float(ranked[group]), group, level, size, upper, bounded, open_, sample)


def _uppers(sample: Sample, alpha: float, by: np.ndarray | None = None) -> np.ndarray:
    """``[G]`` one-sided limits, also of so many times as many people ``[G]``."""
    rule, error, quantile, few = sample
    if by is not None:
        rule, error = multiplied(rule, by, few), error / np.sqrt(by)
        # Of more people the law is nearer to the normal one, by the root of their number; few tell nothing of it.
        normal = special.ndtri(1.0 - alpha)
        quantile = normal + np.where(sample.rule.weight > 0, 0.0, (quantile - normal) / np.sqrt(by))
    reach = np.where(error > 0, quantile * error, 0.0)
    return upper_limits(rule, np.full(len(error), alpha), reach)
