"""The rates by name: shares of people, as expressions. What each of them is stands in `jaxfair.constraints.rates`."""

from typing import Any

from jaxfair.constraints.rates._expressions import Expression, Rate, groups, positive_class


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
