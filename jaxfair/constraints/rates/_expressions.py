r"""Linear expressions of rates, as data: what :mod:`jaxfair.constraints.rates` builds and its problem reads.

A rate is the share of the people in a **condition** for whom an **event** holds. An expression is

.. math:: e = b + \sum_t a_t\, \mathrm{rate}_t ,

numbers :math:`a_t` and :math:`b` and names of rates; no array is in it, so it can be a key of a dict, be printed, be
compared and be closed over by a compiled function. A constraint is :math:`e \le 0` or :math:`e = 0`. Only b, and so
the bound of a constraint, may be a traced number, so that several slacks are lanes of one program; it prints as
"traced" and equals itself only. The :math:`a_t` may not: the surrogate of a rate depends on their signs.

``==`` between two expressions compares them as data and gives a bool, as for every other frozen value: Python derives
sets, dicts and ``in`` from it. The *constraint* that two expressions are equal is therefore spelled :func:`equal`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeAlias

import jax
from jax.core import Tracer

#: A plain number, or one that is traced.
Number: TypeAlias = float | jax.Array


@dataclass(frozen=True)
class Rate:
    """The name of a rate: which one, of whom, and for which class.

    Attributes:
      name: such as ``"true_positive"``.
      group: the groups whose people are counted, ascending; None for everybody.
      positive: the class that counts as positive, against all others; None where the rate has none (accuracy, error).

    Example:
      >>> Rate("true_positive", group=(0, 2), positive=1)
      true_positive(group=(0, 2))
    """

    name: str
    group: tuple[int, ...] | None = None
    positive: int | None = None

    def __repr__(self) -> str:
        words = []
        if self.group is not None:
            words.append(f"group={self.group[0] if len(self.group) == 1 else self.group}")
        if self.positive not in (None, 1):
            words.append(f"positive={self.positive}")
        return f"{self.name}({', '.join(words)})"


@dataclass(frozen=True, eq=False)
class Expression:
    """A linear expression of rates. Made by the functions of ``rates`` and by arithmetic; see there.

    The order of the terms is kept for printing; two expressions are equal where they have the same terms in any order.

    Attributes:
      terms: pairs of a rate and its coefficient, every rate once and no coefficient 0.
      constant: the number :math:`b`, which may be traced.

    Raises:
      TypeError: for arithmetic that is not linear, with something that is neither an expression nor a number, for
        strict comparison, and for its truth value.
      ValueError: for a number that is not finite.

    Example:
      >>> from jaxfair.constraints import rates
      >>> gap = rates.positive(group=0) - rates.positive(group=1)
      >>> 2 * gap + 0.1
      2 * positive(group=0) - 2 * positive(group=1) + 0.1
      >>> gap + rates.error() - gap == rates.error()
      True
      >>> gap <= 0.02
      positive(group=0) - positive(group=1) <= 0.02
    """

    terms: tuple[tuple[Rate, float], ...]
    constant: Number = 0.0

    # numpy would take an expression for an array of one object: with this, it leaves the arithmetic to us.
    __array_ufunc__ = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[frozenset[tuple[Rate, float]], Any]:
        traced = isinstance(self.constant, Tracer)
        return frozenset(self.terms), ("traced", id(self.constant)) if traced else self.constant

    def __add__(self, other: Any) -> "Expression":
        other = _expression(other)
        return _collect((*self.terms, *other.terms), self.constant + other.constant)

    def __neg__(self) -> "Expression":
        return self * -1.0

    def __sub__(self, other: Any) -> "Expression":
        return self + -_expression(other)

    def __rsub__(self, other: Any) -> "Expression":
        return _expression(other) + -self

    def __mul__(self, other: Any) -> "Expression":
        if isinstance(other, Expression):
            raise TypeError(
                f"({self}) * ({other}): a product of rates is not linear. "
                "Scale rates by numbers, or bound each of them by itself."
            )
        scale = _plain(other)
        return _collect(((rate, scale * a) for rate, a in self.terms), scale * self.constant)

    def __truediv__(self, other: Any) -> "Expression":
        if isinstance(other, Expression):
            raise TypeError(
                f"({self}) / ({other}): a quotient of rates is not linear. To bound a / b by s, bound a - s * b by 0."
            )
        if not _plain(other):
            raise ZeroDivisionError(f"({self}) / 0")
        return self * (1.0 / _plain(other))

    def __rtruediv__(self, other: Any) -> "Expression":
        raise TypeError(f"{other} / ({self}): one over a rate is not linear.")

    __radd__, __rmul__ = __add__, __mul__

    def __le__(self, other: Any) -> "Constraint":
        return Constraint(self - other)

    def __ge__(self, other: Any) -> "Constraint":
        return Constraint(other - self)

    def __lt__(self, other: Any) -> "Constraint":
        raise TypeError(f"({self}) < {other}: a strict bound has no solution on its edge; use <=.")

    def __gt__(self, other: Any) -> "Constraint":
        raise TypeError(f"({self}) > {other}: a strict bound has no solution on its edge; use >=.")

    def __bool__(self) -> bool:
        raise TypeError(f"{self} is an expression of rates: it is neither true nor false.")

    def __repr__(self) -> str:
        words = [(a, str(rate) if abs(a) == 1 else f"{_word(abs(a))} * {rate}") for rate, a in self.terms]
        if isinstance(self.constant, Tracer):
            words.append((1.0, "traced"))
        elif self.constant or not words:
            number = float(self.constant)
            words.append((number, _word(abs(number))))
        first, *rest = words
        text = f"-{first[1]}" if first[0] < 0 else first[1]
        return text + "".join(f" {'-' if a < 0 else '+'} {word}" for a, word in rest)


@dataclass(frozen=True)
class Constraint:
    """An expression that must be at most 0, or equal to 0. Made by ``<=``, ``>=`` and :func:`equal`.

    Attributes:
      expression: the left side, with the right side taken off.
      equality: whether it must be 0, rather than at most 0.

    Raises:
      ValueError: where the expression has no rate in it.
      TypeError: for its truth value, which Python asks for in a chained comparison, and for comparing it again.

    Example:
      >>> from jaxfair.constraints import rates
      >>> bound = rates.precision() >= 0.8
      >>> bound
      -precision() <= -0.8
      >>> bound.expression
      -precision() + 0.8
    """

    expression: Expression
    equality: bool = False

    def __post_init__(self) -> None:
        if not self.expression.terms:
            raise ValueError(f"{self}: the rates have cancelled, and no network can change what is left.")

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self} is a constraint: it is neither true nor false. "
            "If you wrote a chain such as 0.1 <= rate <= 0.2, write two constraints."
        )

    def _compared(self, other: Any) -> "Constraint":
        raise TypeError(f"({self}) compared with {other}: a constraint has one bound; write two constraints.")

    __le__ = __ge__ = __lt__ = __gt__ = _compared

    def __repr__(self) -> str:
        terms = Expression(self.expression.terms)
        # 0.0 - b and not -b: there is no minus zero to print.
        right = Expression((), 0.0 - self.expression.constant)
        return f"equal({terms}, {right})" if self.equality else f"{terms} <= {right}"


def equal(left: Any, right: Any) -> Constraint:
    """The constraint that two expressions, or an expression and a number, are the same number.

    Not spelled ``==``, which compares expressions as data.

    Args:
      left: an :class:`Expression` or a number.
      right: an :class:`Expression` or a number.

    Raises:
      TypeError: for anything else.
      ValueError: where no rate is left over.

    Example:
      >>> from jaxfair.constraints import rates
      >>> rates.equal(rates.positive(group=0), rates.positive(group=1))
      equal(positive(group=0) - positive(group=1), 0)
    """
    return Constraint(_expression(left) - right, equality=True)


def groups(group: Any) -> tuple[int, ...] | None:
    """The groups in the form that :class:`Rate` holds: None, or ascending and each of them once.

    Example:
      >>> groups(2), groups((2, 0, 2)), groups(None)
      ((2,), (0, 2), None)
    """
    if group is None:
        return None
    members = [group] if isinstance(group, Integral) else group
    if not isinstance(members, Iterable) or isinstance(members, str):
        raise TypeError(f"group={group!r}: give None for all, a group, or several of them.")
    members = list(members)
    if not members or not all(_whole(g) for g in members):
        raise ValueError(f"group={group!r}: groups are integers from 0, at least one of them.")
    return tuple(sorted({int(g) for g in members}))


def positive_class(positive: Any) -> int:
    """The class as an int.

    Example:
      >>> positive_class(3)
      3
    """
    if not _whole(positive):
        raise ValueError(f"positive={positive!r}: classes are integers from 0.")
    return int(positive)


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _plain(value: Any) -> float:
    """A Python float of a plain number, also of a concrete JAX scalar; a traced one is refused with the rest."""
    concrete = isinstance(value, jax.Array) and not isinstance(value, Tracer)
    if concrete and value.ndim == 0 and value.dtype != bool:
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{value!r} of type {type(value).__name__}: expressions hold rates and plain numbers.")
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number}: expressions hold finite numbers.")
    return number


def _number(value: Any) -> Number:
    """What may be added to an expression: a plain number, or a traced scalar."""
    return value if isinstance(value, Tracer) and value.ndim == 0 else _plain(value)


def _expression(value: Any) -> Expression:
    return value if isinstance(value, Expression) else Expression((), _number(value))


def _collect(terms: Iterable[tuple[Rate, float]], constant: Number) -> Expression:
    """The expression with every rate once, in the order of first appearance, and those with coefficient 0 gone."""
    sums: dict[Rate, float] = {}
    for rate, coefficient in terms:
        sums[rate] = sums.get(rate, 0.0) + coefficient
    return Expression(tuple((rate, a) for rate, a in sums.items() if a), constant)


def _word(number: float) -> str:
    """A number as it would be typed: no point where it is whole, all its digits where not."""
    return str(int(number)) if number == int(number) else repr(number)
