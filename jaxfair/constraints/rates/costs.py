r"""Constraints on rates as costs of mistakes: cross entropy with other weights, which is what a reduction minimises.

With two classes, whether a person is predicted 1 is :math:`y + (1 - 2 y) [\text{wrong}]`. A constraint is linear in
the predictions, with a person's **influence** :math:`a_{kn}` on it: what predicting 1 for the person adds. Where
*wrong* is counted by the cross entropy :math:`\ell_n`,

.. math:: \mathrm{proxy}_k = \sum_n a_{kn} \begin{cases} 1 - \ell_n & y_n = 1 \\ \ell_n & y_n = 0 \end{cases}

and the Lagrangian is cross entropy in which a person weighs :math:`1/N + (1 - 2 y_n) \sum_k \lambda_k a_{kn}`. Its
optimum for known probabilities moves their log-odds by a constant per group and label, so a logistic model that was
right stays right, whatever the multipliers. A sigmoid in place of the rate bends the log-odds, and a hinge is loose.

How this differs from fairlearn's reductions: there a learner is called again for each vector of multipliers, with hard
costs; here weights and multipliers move together. No weight is clipped: it may be negative where multipliers are large.

References:
  Agarwal et al., `A Reductions Approach to Fair Classification <https://arxiv.org/abs/1803.02453>`_, 2018.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Integer

from jaxfair.constraints._people import check_classes, check_weights, ids, labelled
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.problem import Problem
from jaxfair.constraints.rates._expressions import Constraint, Expression
from jaxfair.constraints.rates._tables import Tables, tables
from jaxfair.typing import Batch, Params


def _conditions(
    constraints: Sequence[Constraint | Expression], split: Batch, num_groups: int
) -> tuple[Tables, np.ndarray]:
    """The tables, and ``[R, N]`` float64: the weights of the people in each rate's condition."""
    t = tables(constraints, num_groups, 2)
    if t.ratio[t.kind].any():
        raise ValueError(
            "precision is no sum over people with fixed weights: give rates whose condition is in the labels."
        )
    within = np.zeros((len(t.kind), num_groups + 1), bool)  # the last column: an unknown group
    within[tuple(t.members)] = True
    check_weights(split.weight)
    check_classes(split.y, 2)
    group = np.asarray(ids("group", split.group, num_groups, np.shape(split.weight)))
    y = np.asarray(ids("y", split.y, 2, np.shape(split.weight)))
    labels = np.pad(t.labels[t.kind, 1] > 0, ((0, 0), (0, 1)))  # the last column: an unknown class
    return t, (within[:, group] & labels[:, y]) * np.asarray(split.weight, np.float64)


def influence(constraints: Sequence[Constraint | Expression], split: Batch, *, num_groups: int) -> np.ndarray:
    """What predicting 1 for a person adds to each constraint. Made once, with NumPy.

    Args:
      constraints: K of them, of two classes, without precision.
      split: N people; ``x`` is not read.
      num_groups: G.

    Returns:
      ``[K, N]`` float32. Of rates that only count people who are predicted 1, such as those of demographic parity and
      equalised odds, the influences of these people add up to the constraint's left side.

    Raises:
      TypeError, ValueError: as :func:`jaxfair.constraints.rates.problem`, and for a precision.

    Example:
      Group 0 has two of four people. Predicting 1 for one of them raises its rate by a half, everybody's by a fourth:

      >>> from jaxfair.constraints import rates
      >>> split = Batch(None, np.array([1, 0, 1, 0]), np.array([0, 0, 1, 1]), np.arange(4), np.ones(4))
      >>> rates.influence([rates.positive(group=0) - rates.positive() <= 0.1], split, num_groups=2)
      array([[ 0.25,  0.25, -0.25, -0.25]], dtype=float32)
    """
    t, there = _conditions(constraints, split, num_groups)
    size = there.sum(axis=1, keepdims=True)
    adds = (t.event[t.kind, :, 1] - t.event[t.kind, :, 0]).astype(np.float64)
    adds = adds[:, np.minimum(np.asarray(ids("y", split.y, 2)), 1)]  # of an unknown class nobody is there
    return _summed(t, adds * there / np.where(size > 0, size, 1.0)).astype(np.float32)


def _summed(t: Tables, of_rate: np.ndarray) -> np.ndarray:
    total = np.zeros((len(t.constant), of_rate.shape[1]))
    for k, r, coefficient in zip(*t.terms, t.coefficient, strict=True):
        total[k] += float(coefficient) * of_rate[r]
    return total


def people(constraints: Sequence[Constraint | Expression], split: Batch, *, num_groups: int) -> np.ndarray:
    """The share of a split that each constraint speaks of: the fewest people of whom it has a rate.

    A rate of few people moves more at each step than one of many. ``constraints.scaled`` by the root of this share
    gives all of them about the same noise, so that one dual step size suits all.

    Args:
      constraints: as :func:`influence`.
      split: N people.
      num_groups: G.

    Returns:
      ``[K]`` float64.

    Raises:
      TypeError, ValueError: as :func:`influence`.

    Example:
      >>> from jaxfair.constraints import rates
      >>> split = Batch(None, np.array([1, 0, 1, 0]), np.array([0, 1, 1, 1]), np.arange(4), np.ones(4))
      >>> rates.people([rates.positive(group=0) - rates.positive() <= 0.1], split, num_groups=2)
      array([0.25])
    """
    t, there = _conditions(constraints, split, num_groups)
    size, fewest = there.sum(axis=1), np.full(len(t.constant), np.inf)
    np.minimum.at(fewest, t.terms[0], size[t.terms[1]])
    return fewest / np.asarray(split.weight, np.float64).sum()


def expected(
    constraints: Sequence[Constraint | Expression],
    probability: Float[ArrayLike, "..."],
    split: Batch,
    *,
    num_groups: int,
) -> np.ndarray:
    """Expressions and constraints of a randomised classifier, exactly; of hard predictions it is ``rates.measure``.

    Args:
      constraints: K of them, of two classes, without precision.
      probability: ``[N]``, of predicting 1 for each person.
      split: N people; ``x`` is not read.
      num_groups: G.

    Returns:
      ``[K]`` float64: the left sides, with the right sides of constraints taken off; nan where a rate has nobody in its
      condition.

    Raises:
      TypeError, ValueError: as :func:`influence`.

    Example:
      A coin for group 0, and everybody in group 1:

      >>> from jaxfair.constraints import rates
      >>> split = Batch(None, np.array([1, 0, 1, 0]), np.array([0, 0, 1, 1]), np.arange(4), np.ones(4))
      >>> rates.expected([rates.accuracy(group=0), rates.positive(group=1) - rates.positive() <= 0.1],
      ...                np.array([0.5, 0.5, 1.0, 1.0]), split, num_groups=2).round(3).tolist()
      [0.5, 0.15]
    """
    t, there = _conditions(constraints, split, num_groups)
    y, p = np.asarray(split.y), np.asarray(probability, np.float64)
    if p.shape != y.shape:
        raise ValueError(f"probability has shape {p.shape} for {y.shape} classes: give one for each example.")
    values = np.full((len(t.kind), 1), np.nan)
    for r, weight in enumerate(there):
        who = weight > 0
        events = t.event[t.kind[r]].astype(np.float64)[y[who]]
        if who.any():
            happens = events[:, 1] * p[who] + events[:, 0] * (1.0 - p[who])
            values[r] = np.average(happens, weights=weight[who])
    return _summed(t, values)[:, 0] + np.array([_constant(c) for c in constraints])


def _constant(constraint: Constraint | Expression) -> float:
    # In float64: the tables have float32.
    expression = constraint.expression if isinstance(constraint, Constraint) else constraint
    return float(expression.constant)


def cost_proxy(
    logits: Float[Array, "B 2"], y: Integer[ArrayLike, " B"], influence: Float[ArrayLike, "K B"]
) -> Float[Array, " K"]:
    r"""Constraints with cross entropies in place of mistakes.

    Args:
      logits: ``[B, 2]``.
      y: ``[B]``.
      influence: ``[K, B]`` of these people, 0 for padding.

    Returns:
      ``[K]``.

    Example:
      Somebody of class 0 whose probability is even costs log 2:

      >>> cost_proxy(jnp.zeros((1, 2)), jnp.array([0]), jnp.ones((1, 1)))
      Array([0.6931472], dtype=float32)
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    loss = jnp.where(labelled(y, 2), loss, 0.0)
    return jnp.asarray(influence) @ jnp.where(y == 1, 1.0 - loss, loss)


def costs(problem: Problem, apply: Callable[..., Any], influence: ArrayLike) -> Problem:
    """A problem of rates with costs of mistakes for its proxies; its strict values stay.

    Args:
      problem: of :func:`jaxfair.constraints.rates.problem`, with two classes. Its own proxies are not computed.
      apply: the model's, as it was given there. It is called a second time on the same arguments, which compiles to
        one call.
      influence: ``[K, N]`` of :func:`influence`, addressed by ``Batch.index``; may be traced, one of each lane.

    Returns:
      The problem. On a batch a sum over all people is estimated by N / B times that of the batch.

    Raises:
      ValueError: for influences on another number of constraints.

    Example:
      Everybody is even. The gap of the rates is 0.1 below its bound, and costs of mistakes cancel:

      >>> from jaxfair.constraints import rates
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x * params, state
      >>> split = Batch(jnp.zeros((4, 2)), jnp.array([1, 0, 1, 0]), jnp.array([0, 0, 1, 1]), jnp.arange(4), jnp.ones(4))
      >>> bounds = [rates.positive(group=0) - rates.positive(group=1) <= 0.1]
      >>> problem = rates.problem(apply, bounds, num_groups=2, num_classes=2)
      >>> problem = rates.costs(problem, apply, rates.influence(bounds, split, num_groups=2))
      >>> found = problem.evaluate(jnp.ones(()), problem.init({}, None, split), split, None)
      >>> found.strict, found.proxy
      (Array([-0.1], dtype=float32), Array([0.], dtype=float32))
    """
    known: Any = influence
    if jnp.ndim(known) != 2 or known.shape[0] != problem.num_constraints:
        raise ValueError(
            f"influence of shape {jnp.shape(known)}: give one row for each of {problem.num_constraints} constraints."
        )

    def evaluate(params: Params, carry: Any, batch: Batch, key: Any) -> Evaluation:
        found = problem.evaluate(params, carry, batch, key)
        logits, _ = apply(params, carry.model_state, batch.x, train=True, key=key)
        weight = jnp.asarray(batch.weight).astype(jnp.float32)
        # Padding may hold anything, and 0 * inf is not 0.
        logits = jnp.where(weight[:, None] > 0, logits, 0.0)
        at = ids("index", batch.index, known.shape[1], weight.shape)
        total = jnp.sum(weight)
        here = jnp.asarray(known).at[:, at].get(mode="fill", fill_value=0)
        here = here * (known.shape[1] / jnp.where(total > 0, total, 1.0))
        return found._replace(proxy=cost_proxy(logits, batch.y, weight[None] * here))

    return problem._replace(evaluate=evaluate)
