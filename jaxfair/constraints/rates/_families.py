"""Families of constraints that bound how far groups are apart: of everybody, or of each other."""

from collections.abc import Callable, Iterator

from jaxtyping import ArrayLike

from jaxfair.constraints._numbers import check_count, check_number, check_word
from jaxfair.constraints.rates._expressions import Constraint, Expression
from jaxfair.constraints.rates._named import coverage, false_positive, true_positive


def _apart(
    rate: Callable[..., Expression], slack: ArrayLike, num_groups: int, positive: int, between: str
) -> list[Constraint]:
    check_word("between", between, ("overall", "pairs"))
    check_number(
        slack,
        lambda s: (s >= 0) & (s <= 1) & (s.dtype != bool),
        f"slack={slack}: it bounds a difference of shares of 1, so give a number between 0 and 1, such as 0.02.",
    )
    check_count("num_groups", num_groups)
    if num_groups < 2:
        raise ValueError(f"num_groups={num_groups}: it takes two groups to be apart.")
    each = [rate(group=g, positive=positive) for g in range(int(num_groups))]
    everybody = rate(positive=positive)

    def gaps() -> Iterator[Expression]:
        if between == "pairs":
            yield from (a - b for a in each for b in each if a is not b)
        else:
            yield from (a - everybody for a in each)
            yield from (everybody - a for a in each)

    return [gap <= slack for gap in gaps()]


def demographic_parity(
    slack: ArrayLike, *, num_groups: int, positive: int = 1, between: str = "overall"
) -> list[Constraint]:
    """Groups are predicted positive equally often, within ``slack``.

    Args:
      slack: between 0 and 1, a share of 1. It may be traced.
      num_groups: G, at least 2.
      positive: the positive class. For all classes, add up one such list for each.
      between: ``"overall"``: first G constraints "not above the rate of everybody by more", then G "not below";
        ``"pairs"``: for every ordered pair of groups.

    Returns:
      2G or G(G-1) constraints.

    Raises:
      ValueError: for a slack outside of that, fewer than two groups, or another word for ``between``.

    Example:
      >>> for bound in demographic_parity(0.02, num_groups=2):
      ...     print(bound)
      positive(group=0) - positive() <= 0.02
      positive(group=1) - positive() <= 0.02
      positive() - positive(group=0) <= 0.02
      positive() - positive(group=1) <= 0.02

    References:
      Agarwal et al., `A Reductions Approach to Fair Classification <https://arxiv.org/abs/1803.02453>`_, 2018.
    """
    return _apart(coverage, slack, num_groups, positive, between)


def equal_opportunity(
    slack: ArrayLike, *, num_groups: int, positive: int = 1, between: str = "overall"
) -> list[Constraint]:
    """Those of the positive class are recognised equally often in all groups: true-positive rates within ``slack``.

    Args:
      slack: as :func:`demographic_parity`.
      num_groups: G, at least 2.
      positive: the positive class.
      between: as :func:`demographic_parity`.

    Returns:
      2G or G(G-1) constraints.

    Raises:
      ValueError: as :func:`demographic_parity`.

    Example:
      >>> equal_opportunity(0.02, num_groups=2, between="pairs")[0]
      true_positive(group=0) - true_positive(group=1) <= 0.02

    References:
      Hardt et al., `Equality of Opportunity in Supervised Learning <https://arxiv.org/abs/1610.02413>`_, 2016.
    """
    return _apart(true_positive, slack, num_groups, positive, between)


def equalized_odds(
    slack: ArrayLike, *, num_groups: int, positive: int = 1, between: str = "overall"
) -> list[Constraint]:
    """True-positive and false-positive rates of all groups within ``slack``: :func:`equal_opportunity` of both sides.

    Args:
      slack: as :func:`demographic_parity`.
      num_groups: G, at least 2.
      positive: the positive class.
      between: as :func:`demographic_parity`.

    Returns:
      4G or 2G(G-1) constraints, those on true-positive rates first.

    Raises:
      ValueError: as :func:`demographic_parity`.

    Example:
      >>> equalized_odds(0.02, num_groups=2)[-1]
      false_positive() - false_positive(group=1) <= 0.02

    References:
      Hardt et al., `Equality of Opportunity in Supervised Learning <https://arxiv.org/abs/1610.02413>`_, 2016.
    """
    both = true_positive, false_positive
    return [b for rate in both for b in _apart(rate, slack, num_groups, positive, between)]
