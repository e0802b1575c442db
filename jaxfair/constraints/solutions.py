r"""Which of the iterates of a run to keep: the best feasible one, or a mixture of at most K + 1.

Constrained games need not converge to a point: the last iterate may violate what an earlier one met. From what was
recorded of T iterates, losses ``[T]`` and violations ``[T, K]`` (positive where violated), choose

- the one with the lowest loss among the feasible, or, if there is none, the one whose largest violation is least;
- or probabilities p for a classifier that draws an iterate for each person:
  :math:`\min_p \sum_t p_t L_t` subject to :math:`\sum_t p_t v_{tk} \le 0`. A linear programme with K + 1
  constraints has a solution with at most K + 1 iterates.

On the host, after the run, with numpy and scipy: it is done once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxfair.constraints._numbers import check_number


class Solution(NamedTuple):
    """What was chosen.

    Attributes:
      iterates: int ``[M]``, numbers of the chosen iterates, ascending.
      probabilities: ``[M]``, which sum to 1; ``[1.]`` for a single iterate.
      loss: the expected loss.
      violations: ``[K]``, the expected violations.
      feasible: whether all of them are at most the slack.
    """

    iterates: np.ndarray
    probabilities: np.ndarray
    loss: float
    violations: np.ndarray
    feasible: bool


def best_feasible(losses: ArrayLike, violations: ArrayLike, *, slack: float = 0.0) -> Solution:
    """The feasible iterate with the lowest loss; if none is feasible, the one that violates least.

    Args:
      losses: ``[T]``. Not finite: never chosen, unless all are.
      violations: ``[T, K]``, positive where violated; of an equality its absolute value.
      slack: violations up to this are let pass.

    Returns:
      The solution, one iterate. Of equals, the latest.

    Raises:
      ValueError: for shapes that do not fit, no iterate, or a slack that is not finite.

    Example:
      >>> best_feasible([1.0, 0.5, 0.1], [[-0.1], [0.0], [0.2]]).iterates
      array([1])
      >>> best_feasible([1.0, 0.5, 0.1], [[0.3], [0.2], [0.4]]).iterates
      array([1])

    References:
      The choice of index of Cotter et al., `Two-Player Games for Efficient Non-Convex Constrained Optimization
      <https://arxiv.org/abs/1804.06500>`_, 2019, in which infeasible iterates are ranked together with the feasible.
    """
    losses, violations = _check(losses, violations, slack)
    worst = violations.max(axis=1, initial=-np.inf)
    allowed = np.isfinite(losses) & (worst <= slack)
    score = np.where(allowed, losses, np.inf) if allowed.any() else _finite(worst, losses)
    chosen = len(score) - 1 - int(np.argmin(score[::-1]))
    return _solution(np.array([chosen]), np.ones(1), losses, violations, slack)


def stochastic(losses: ArrayLike, violations: ArrayLike, *, slack: float = 0.0) -> Solution:
    """The mixture of iterates with the lowest expected loss among those that are feasible in expectation.

    If no mixture is feasible, first the least possible largest violation is found, and then the lowest loss among the
    mixtures that have it.

    Args:
      losses: ``[T]``. Iterates with a loss or a violation that is not finite are never chosen.
      violations: ``[T, K]``, positive where violated. For an equality give two columns, h and -h.
      slack: violations up to this are let pass.

    Returns:
      The solution, at most K + 1 iterates.

    Raises:
      ValueError: for shapes that do not fit, no finite iterate, or a slack that is not finite.

    Example:
      One iterate is good and violates by 1, one is bad and has 3 to spare: three times of four the first.

      >>> solution = stochastic([0.0, 1.0], [[1.0], [-3.0]])
      >>> solution.iterates, solution.probabilities, solution.loss
      (array([0, 1]), array([0.75, 0.25]), 0.25)

    References:
      Cotter et al., `Two-Player Games for Efficient Non-Convex Constrained Optimization
      <https://arxiv.org/abs/1804.06500>`_, 2019, lemma 3 ("shrinking").
    """
    from scipy import optimize  # only who asks this waits for it

    losses, violations = _check(losses, violations, slack)
    usable = np.flatnonzero(np.isfinite(losses) & np.isfinite(violations).all(axis=1))
    if not len(usable):
        raise ValueError("no iterate has a finite loss and finite violations.")
    cost, matrix = losses[usable], violations[usable].T
    num, simplex = len(usable), np.ones((1, len(usable)))
    # The least possible excess over the slack: variables p and s >= 0, with v p - s <= slack.
    least = optimize.linprog(
        np.append(np.zeros(num), 1.0),
        A_ub=np.hstack([matrix, -np.ones((len(matrix), 1))]),
        b_ub=np.full(len(matrix), slack),
        A_eq=np.hstack([simplex, [[0.0]]]),
        b_eq=[1.0],
        method="highs-ds",
    )
    # The simplex method gives a vertex, and so few iterates; the allowance is for its own tolerance of 1e-7.
    excess = least.fun if least.fun > 1e-7 else 0.0
    found = optimize.linprog(
        cost,
        A_ub=matrix,
        b_ub=np.full(len(matrix), slack + excess * (1 + 1e-6)),
        A_eq=simplex,
        b_eq=[1.0],
        method="highs-ds",
    )
    if not found.success:
        raise ValueError(f"the linear programme was not solved: {found.message}")
    chosen = np.flatnonzero(found.x > 1e-9)
    probabilities = found.x[chosen] / found.x[chosen].sum()
    return _solution(usable[chosen], probabilities, losses, violations, slack)


def _check(losses: ArrayLike, violations: ArrayLike, slack: float) -> tuple[np.ndarray, np.ndarray]:
    check_number(slack, np.isfinite, f"slack={slack}: give a finite number, such as 0.")
    losses, violations = np.asarray(losses, float), np.asarray(violations, float)
    if losses.ndim != 1 or not len(losses) or violations.shape[:1] != losses.shape:
        raise ValueError(
            f"losses has shape {losses.shape} and violations {violations.shape}: give [T] and [T, K], T at least 1."
        )
    if violations.ndim != 2:
        raise ValueError(f"violations has shape {violations.shape}: give [T, K].")
    return losses, violations


def _finite(score: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Scores without nan, and infinite where the loss is not finite, unless all are."""
    score = np.where(np.isnan(score), np.inf, score)
    finite = np.isfinite(losses)
    return np.where(finite, score, np.inf) if finite.any() else score


def _solution(
    chosen: np.ndarray,
    probabilities: np.ndarray,
    losses: np.ndarray,
    violations: np.ndarray,
    slack: float,
) -> Solution:
    expected = probabilities @ violations[chosen]
    return Solution(
        iterates=chosen,
        probabilities=probabilities,
        loss=float(probabilities @ losses[chosen]),
        violations=expected,
        feasible=bool((expected <= slack + 1e-6).all()),
    )
