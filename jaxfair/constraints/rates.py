r"""Rate constraints: shares of people, added, scaled, compared, and handed to the solver as a problem.

With the label y, the prediction p, the positive class c and the groups S::

    positive, coverage   P(p = c  | S)               accuracy    P(p = y  | S)
    true_positive        P(p = c  | y = c, S)        error       P(p != y | S)
    false_negative       P(p != c | y = c, S)        precision   P(y = c  | p = c, S)
    false_positive       P(p = c  | y != c, S)
    true_negative        P(p != c | y != c, S)

Every function takes ``group``, None for everybody, one group, or several whose people are pooled, and those that have a
positive class take ``positive``: with more than two classes, that one against the rest. They return expressions::

    bound = rates.positive(group=0) - rates.positive(group=1) <= 0.02
    problem = rates.problem(model.apply, [bound], num_groups=4, num_classes=2)

How this differs from TFCO (TensorFlow), where constraints are written the same way: a rate knows its groups by number,
not by a context of tensors; which surrogate stands in for it is the problem's choice and not the rate's; sums of rates
are data that can be printed, compared and hashed.

The **families** bound how far groups are apart. ``between="overall"``: each group's rate is within ``slack`` of
everybody's rate, in both directions, 2G constraints; the reductions of fairlearn call this ``difference_bound``.
``between="pairs"``: any two groups are within ``slack`` of each other, G(G-1) constraints; then max - min over groups,
which fairlearn's metrics call a difference, is at most ``slack``. Everybody's rate is a mean of the groups' rates, so
pairs within s of each other are within s of it, and groups within s of it are within 2s of each other.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jaxfair.constraints.problem import check
from jaxfair.constraints.rate_expressions import Constraint as Constraint
from jaxfair.constraints.rate_expressions import Expression as Expression
from jaxfair.constraints.rate_expressions import Rate as Rate
from jaxfair.constraints.rate_expressions import equal as equal
from jaxfair.constraints.rate_expressions import groups, positive_class
from jaxfair.constraints.rate_problem import Measured as Measured
from jaxfair.constraints.rate_problem import RateAux as RateAux
from jaxfair.constraints.rate_problem import RateCarry as RateCarry
from jaxfair.constraints.rate_problem import RateMemory as RateMemory
from jaxfair.constraints.rate_problem import measure as measure
from jaxfair.constraints.rate_problem import problem as problem


def _rate(name: str, group: Any, positive: Any = None) -> Expression:
    chosen = None if positive is None else positive_class(positive)
    return Expression(((Rate(name, groups(group), chosen), 1.0),))


def positive(*, group: Any = None, positive: int = 1) -> Expression:
    """The selection rate, P(p = c | S): the share of people who are predicted to be of the positive class.

    Args:
      group: None for everybody, a group, or several of them, pooled.
      positive: c.

    Raises:
      TypeError: for a ``group`` that is none of these.
      ValueError: for negative or fractional numbers, or no group at all.

    Example:
      >>> positive(group=(0, 2), positive=3)
      positive(group=(0, 2), positive=3)
    """
    return _rate("positive", group, positive)


def coverage(*, group: Any = None, positive: int = 1) -> Expression:
    """Another word for :func:`positive`, and the same expression: how much of a group the positive prediction covers.

    The word of Goh et al. for a budget, such as "10 % of customers get a call". It is not the coverage of selective
    classification, the share of examples on which a classifier does not abstain: these classifiers always answer.

    Args:
      group: as :func:`positive`.
      positive: as :func:`positive`.

    Example:
      >>> coverage() <= 0.1
      positive() <= 0.1

    References:
      Goh et al., `Satisfying Real-world Goals with Dataset Constraints <https://arxiv.org/abs/1606.07558>`_, 2016.
    """
    return _rate("positive", group, positive)


def true_positive(*, group: Any = None, positive: int = 1) -> Expression:
    """P(p = c | y = c, S), also called recall or sensitivity: what equal opportunity compares.

    Args:
      group: as :func:`positive`.
      positive: c.

    Example:
      >>> true_positive(group=1) >= 0.9
      -true_positive(group=1) <= -0.9
    """
    return _rate("true_positive", group, positive)


def false_negative(*, group: Any = None, positive: int = 1) -> Expression:
    """P(p != c | y = c, S): those of the positive class who are missed. With :func:`true_positive`, 1.

    Args:
      group: as :func:`positive`.
      positive: c.

    Example:
      >>> false_negative(group=0) - false_negative(group=1)
      false_negative(group=0) - false_negative(group=1)
    """
    return _rate("false_negative", group, positive)


def false_positive(*, group: Any = None, positive: int = 1) -> Expression:
    """P(p = c | y != c, S): those of other classes who are taken for positive.

    Args:
      group: as :func:`positive`.
      positive: c.

    Example:
      >>> false_positive() <= 0.05
      false_positive() <= 0.05
    """
    return _rate("false_positive", group, positive)


def true_negative(*, group: Any = None, positive: int = 1) -> Expression:
    """P(p != c | y != c, S), also called specificity. With :func:`false_positive`, 1.

    Args:
      group: as :func:`positive`.
      positive: c.

    Example:
      >>> 0.95 <= true_negative()
      -true_negative() <= -0.95
    """
    return _rate("true_negative", group, positive)


def accuracy(*, group: Any = None) -> Expression:
    """P(p = y | S), of all classes.

    Args:
      group: as :func:`positive`.

    Example:
      >>> accuracy() - accuracy(group=2) <= 0.01
      accuracy() - accuracy(group=2) <= 0.01
    """
    return _rate("accuracy", group)


def error(*, group: Any = None) -> Expression:
    """P(p != y | S), of all classes. With :func:`accuracy`, 1.

    Args:
      group: as :func:`positive`.

    Example:
      >>> sum(error(group=g) for g in range(3)) / 3 <= 0.25
      0.3333333333333333 * error(group=0) + 0.3333333333333333 * error(group=1)
      + 0.3333333333333333 * error(group=2) <= 0.25
    """
    return _rate("error", group)


def precision(*, group: Any = None, positive: int = 1) -> Expression:
    """P(y = c | p = c, S): how many of those predicted positive are.

    The only rate whose condition depends on the prediction. Its strict value is the exact quotient, observed
    while somebody is predicted positive; its proxy is the quotient of two soft counts on the batch, which is neither a
    bound nor unbiased. ``precision() >= s`` says the same as a linear bound with the shares of the classes as factors;
    the quotient needs no such numbers.

    Args:
      group: as :func:`positive`.
      positive: c.

    Example:
      >>> precision(group=0) >= 0.75
      -precision(group=0) <= -0.75
    """
    return _rate("precision", group, positive)


def _apart(
    rate: Callable[..., Expression], slack: float, num_groups: int, positive: int, between: str
) -> list[Constraint]:
    check("between", between, ("overall", "pairs"))
    if not slack >= 0:
        raise ValueError(f"slack={slack}: give a number of at least 0, such as 0.02.")
    if num_groups < 2:
        raise ValueError(f"num_groups={num_groups}: it takes two groups to be apart.")
    each = [rate(group=g, positive=positive) for g in range(num_groups)]
    everybody = rate(positive=positive)

    def gaps() -> Iterator[Expression]:
        if between == "pairs":
            yield from (a - b for a in each for b in each if a is not b)
        else:
            yield from (a - everybody for a in each)
            yield from (everybody - a for a in each)

    return [gap <= slack for gap in gaps()]


def demographic_parity(
    slack: float, *, num_groups: int, positive: int = 1, between: str = "overall"
) -> list[Constraint]:
    """Groups are predicted positive equally often, within ``slack``.

    Args:
      slack: at least 0, as a share of 1.
      num_groups: G, at least 2.
      positive: the positive class. For all classes, add up one such list for each.
      between: ``"overall"``: first G constraints "not above the rate of everybody by more", then G "not below";
        ``"pairs"``: for every ordered pair of groups.

    Returns:
      2G or G(G-1) constraints.

    Raises:
      ValueError: for a negative slack, fewer than two groups, or another word for ``between``.

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
    slack: float, *, num_groups: int, positive: int = 1, between: str = "overall"
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
    slack: float, *, num_groups: int, positive: int = 1, between: str = "overall"
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
