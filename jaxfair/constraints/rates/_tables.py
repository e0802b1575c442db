r"""Rates as matrices over one confusion tensor: their exact values, and how exact those are.

Everything that a rate can say about a classifier is in the counts :math:`n_{gyp}` of people of group g and class y who
are predicted to be p. A rate is a quotient of two sums over it,

.. math::

   r = \frac{\sum_{g \in S} \sum_{yp} E_{yp}\, n_{gyp}}{\sum_{g \in S} \sum_{yp} D_{yp}\, n_{gyp}}
   \qquad \text{with masks } E \le D \text{ of the event and of the condition, and groups } S .

==============  =====================  ==================================
rate            condition D            event E
==============  =====================  ==================================
positive        everybody              p = c
true_positive   y = c                  p = c
false_negative  y = c                  p != c
false_positive  y != c                 p = c
true_negative   y != c                 p != c
accuracy        everybody              p = y
error           everybody              p != y
precision       **p** = c              y = c
==============  =====================  ==================================

Constraints are then one sparse matrix over rates, and rates one sparse matrix over groups and masks. Both are lists of
indices, made once with numpy: as dense matrices, demographic parity between 10,000 groups would have 10^12 elements.

The standard error is that of people drawn independently (the delta method). The influence of one person in cell
(g, y, p) on a rate is :math:`\phi_r = [g \in S](E_{yp} - r D_{yp}) / \sum D n`, on a constraint
:math:`\psi = \sum_r a_r \phi_r`, and the variance is :math:`\sum n_{gyp}\, \psi_{gyp}^2`: for one rate of n people the
binomial :math:`r(1 - r)/n`, for a difference between separate groups the sum of two of these, and for rates that share
people (a group and everybody) their covariance is in it. With weights w, n is :math:`\sum w` in rates, and
:math:`\sum w^2` in the variance: a common factor of all weights changes nothing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jaxfair.constraints.rates._expressions import Constraint, Expression, Rate

#: Which labels a rate speaks of, and the prediction it counts: "is" and "not" the positive class, or the label itself.
KINDS = {
    "positive": ("all", "is"),
    "true_positive": ("is", "is"),
    "false_negative": ("is", "not"),
    "false_positive": ("not", "is"),
    "true_negative": ("not", "not"),
    "accuracy": ("all", "right"),
    "error": ("all", "wrong"),
    "precision": ("is", "is"),  # with a condition on the prediction, see below
}


class Tables(NamedTuple):
    """Constraints as numpy arrays. R rates, M kinds of rates (a name and a class), K constraints.

    Attributes:
      num_groups: G.
      event: ``[M, C, C]`` float32, the mask E over label and prediction.
      condition: ``[M, C, C]`` float32, the mask D.
      labels: ``[M, 2, C]`` float32, the labels in event and condition.
      column: ``[M]``, the class whose margin decides the event; C for the example's own label.
      sign: ``[M]`` float32, -1 where the event is that this class is *not* predicted.
      ratio: ``[M]`` bool, whether the condition depends on the prediction (precision).
      kind: ``[R]``, each rate's kind.
      members: ``[2, *]``, pairs of a rate and a group of it.
      terms: ``[2, T]``, pairs of a constraint and a rate of it.
      coefficient: ``[T]`` float32.
      constant: ``[K]`` float32; of JAX where a number in it is traced.
      equality: ``[K]`` bool.
      pairs: ``[2, P]``, pairs of rates that stand in one constraint, each once.
      shared: ``[2, *]``, pairs of such a pair and a group of both.
      products: ``[2, *]``, pairs of a constraint and a pair in it.
      product: the coefficient of each.
    """

    num_groups: int
    event: np.ndarray
    condition: np.ndarray
    labels: np.ndarray
    column: np.ndarray
    sign: np.ndarray
    ratio: np.ndarray
    kind: np.ndarray
    members: np.ndarray
    terms: np.ndarray
    coefficient: np.ndarray
    constant: np.ndarray | jax.Array
    equality: np.ndarray
    pairs: np.ndarray
    shared: np.ndarray
    products: np.ndarray
    product: np.ndarray


def tables(constraints: Any, num_groups: int, num_classes: int) -> Tables:
    """The matrices of some constraints, or of expressions, which stand for ``expression <= 0``.

    Args:
      constraints: K of them, in a sequence; whatever else comes is refused here.
      num_groups: G, at least 1.
      num_classes: C, at least 2.

    Raises:
      TypeError: for an element that is neither.
      ValueError: for a group or a class out of range.

    Example:
      >>> from jaxfair.constraints import rates
      >>> t = tables([rates.error(group=0) - rates.error() <= 0.1], 2, 2)
      >>> t.coefficient, t.members.tolist()
      (array([ 1., -1.], dtype=float32), [[0, 1, 1], [0, 0, 1]])
    """
    if num_groups < 1 or num_classes < 2:
        raise ValueError(
            f"num_groups={num_groups}, num_classes={num_classes}: give at least one group and two classes."
        )
    if isinstance(constraints, Constraint | Expression):
        raise TypeError(f"{constraints}: give a list of constraints, even of one.")
    rates: dict[Rate, int] = {}
    kinds: dict[tuple[str, int | None], int] = {}
    kind, members, terms, coefficient, constant, equality = [], [], [], [], [], []
    pairs: dict[tuple[int, int], int] = {}
    shared, products, product = [], [], []
    people: list[frozenset[int] | None] = []

    for k, constraint in enumerate(constraints):
        expression = constraint.expression if isinstance(constraint, Constraint) else constraint
        if not isinstance(expression, Expression):
            raise TypeError(
                f"constraints[{k}] is {constraint!r}: give comparisons such as rates.error() <= 0.1. "
                "A family is a list, so put a star before it; equality is spelled rates.equal(a, b)."
            )
        constant.append(expression.constant)
        equality.append(isinstance(constraint, Constraint) and constraint.equality)
        row: list[tuple[int, float]] = []
        for rate, a in expression.terms:
            if rate not in rates:
                _in_range(rate, num_groups, num_classes)
                r = rates[rate] = len(rates)
                kind.append(kinds.setdefault((rate.name, rate.positive), len(kinds)))
                people.append(None if rate.group is None else frozenset(rate.group))
                members += [(r, g) for g in rate.group or range(num_groups)]
            terms.append((k, rates[rate]))
            coefficient.append(a)
            row.append((rates[rate], a))
        for i, (r, a) in enumerate(row):
            for s, b in row[i:]:
                if (r, s) not in pairs:
                    shared += [(len(pairs), g) for g in _both(people[r], people[s], num_groups)]
                    pairs[r, s] = len(pairs)
                products.append((k, pairs[r, s]))
                product.append(a * b if r == s else 2 * a * b)

    masks = [_masks(name, positive, num_classes) for name, positive in kinds]
    shape = (len(kinds), num_classes, num_classes)
    return Tables(
        num_groups=num_groups,
        event=np.array([m[0] for m in masks], np.float32).reshape(shape),
        condition=np.array([m[1] for m in masks], np.float32).reshape(shape),
        labels=np.array([m[2] for m in masks], np.float32).reshape(len(kinds), 2, num_classes),
        column=np.array([num_classes if p is None else p for _, p in kinds], np.int32),
        sign=np.array([-1 if KINDS[name][1] in ("not", "wrong") else 1 for name, _ in kinds], np.float32),
        ratio=np.array([name == "precision" for name, _ in kinds], bool),
        kind=np.array(kind, np.int32),
        members=_columns(members),
        terms=_columns(terms),
        coefficient=np.array(coefficient, np.float32),
        constant=_constants(constant),
        equality=np.array(equality, bool),
        pairs=_columns(list(pairs)),
        shared=_columns(shared),
        products=_columns(products),
        product=np.array(product, np.float32),
    )


def _both(left: frozenset | None, right: frozenset | None, num_groups: int) -> list[int]:
    """The groups that two rates share. None is all of them, and is not written out: pairs with it are many."""
    if left is not None and right is not None:
        return sorted(left & right)
    return sorted(left or right or range(num_groups))


def _constants(numbers: list[Any]) -> np.ndarray | jax.Array:
    """``[K]`` float32; an array of JAX if a number is traced."""
    if any(isinstance(number, Tracer) for number in numbers):
        return jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers])
    return np.array(numbers, np.float32)


def _columns(rows: list[tuple[int, int]]) -> np.ndarray:
    return np.array(rows, np.int32).reshape(-1, 2).T


def _in_range(rate: Rate, num_groups: int, num_classes: int) -> None:
    for g in rate.group or ():
        if g >= num_groups:
            raise ValueError(f"{rate}: there is no group {g} among {num_groups}; give 0 to {num_groups - 1}.")
    if rate.positive is not None and rate.positive >= num_classes:
        raise ValueError(
            f"{rate}: there is no class {rate.positive} among {num_classes}; give positive=0 to {num_classes - 1}."
        )


def _masks(name: str, positive: int | None, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Event [C, C], condition [C, C], and the labels of both [2, C]."""
    of_label, counted = KINDS[name]
    every, diagonal = np.ones((num_classes, num_classes), bool), np.eye(num_classes, dtype=bool)
    is_class = np.arange(num_classes) == positive
    labels = {"all": every[0], "is": is_class, "not": ~is_class}[of_label]
    predicted = {
        "is": every & is_class,
        "not": every & ~is_class,
        "right": diagonal,
        "wrong": ~diagonal,
    }[counted]
    if name == "precision":
        return labels[:, None] & predicted, predicted, np.stack([labels, every[0]])
    condition = every & labels[:, None]
    return condition & predicted, condition, np.stack([labels, labels])


def group_totals(t: Tables, sums: Float[Array, "*F G M"]) -> Float[Array, "*F R"]:
    """The total of each rate's own groups and kind."""
    rate, group = t.members
    picked = jnp.moveaxis(sums, (-2, -1), (0, 1))[group, t.kind[rate]]
    return jnp.moveaxis(jax.ops.segment_sum(picked, rate, len(t.kind)), 0, -1)


def combine(
    t: Tables, values: Float[Array, " T"], observed: Bool[Array, " R"]
) -> tuple[Float[Array, " K"], Bool[Array, " K"]]:
    """Constraints from the value of each term, and which of them have all of their rates observed."""
    constraint, rate = t.terms
    known = observed[rate]
    # One pass over the terms for both, the sum and the number of those that are missing.
    terms = jnp.stack([jnp.where(known, t.coefficient * values, 0.0), jnp.where(known, 0.0, 1.0)])
    total, missing = jax.ops.segment_sum(terms.T, constraint, len(t.constant)).T
    return total + t.constant, missing == 0


def strict_values(
    t: Tables, counts: Float[Array, "G C C"], squares: Float[Array, "G C C"]
) -> tuple[Float[Array, " K"], Float[Array, " K"], Bool[Array, " K"]]:
    """The exact values of the constraints' left sides, their standard errors, and which are observed.

    ``counts`` are sums of the people's weights, and ``squares`` of the squares of them: what the errors are made of.

    A constraint is observed where each of its rates has people in its condition. Where not, the value is 0 and
    the standard error infinite.
    """

    def total(masks):
        # Counts are integers: without this, a GPU would round those above 2,048.
        sums = jnp.einsum("gyp,myp->gm", counts, masks, precision=jax.lax.Precision.HIGHEST)
        return group_totals(t, sums)

    size = total(t.condition)
    seen = size > 0
    some = jnp.where(seen, size, 1.0)
    rate = total(t.event) / some
    value, observed = combine(t, rate[t.terms[1]], seen)

    influence = (t.event[t.kind] - rate[:, None, None] * t.condition[t.kind]) / some[:, None, None]
    left, right = t.pairs
    pair, group = t.shared
    products = squares[group] * influence[left[pair]] * influence[right[pair]]
    covariance = jax.ops.segment_sum(products.sum((1, 2)), pair, len(left))
    constraint, of_pair = t.products
    variance = jax.ops.segment_sum(t.product * covariance[of_pair], constraint, len(t.constant))
    error = jnp.where(observed, jnp.sqrt(jnp.maximum(variance, 0.0)), jnp.inf)
    return jnp.where(observed, value, 0.0), error, observed
