r"""The lasso in a basis: signals with few large numbers, from fewer measurements than numbers.

.. math:: \hat c = \arg\min_c \tfrac12 |A B c - y|^2 + \alpha |c|_1, \qquad \hat x = B \hat c,

by accelerated proximal steps (FISTA) of 1 / :math:`|AB|_2^2`, whose momentum starts again where it points uphill. How
far an answer is from the best one at most, its duality gap tells: of :math:`r = y - ABc`, shrunk to
:math:`\theta = r \min(1, \alpha / |(AB)'r|_\infty)`, the dual value is :math:`\tfrac12|y|^2 - \tfrac12|y - \theta|^2`.

scikit-learn's ``Lasso(alpha)`` divides the squares by M: its alpha is :math:`\alpha / M` here, and without
``fit_intercept=False`` it fits one more number. A signal with a known mean is better searched around it: give
``y - A mean``, and add the mean.

Sources: Beck and Teboulle, `FISTA <https://doi.org/10.1137/080716542>`_, 2009; O'Donoghue and Candès, `Adaptive restart
<https://arxiv.org/abs/1204.3982>`_, 2012.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike

from jaxfair.inverse.compressed_sensing._checks import check_measured, check_number, check_rows
from jaxfair.typing import Array, check_count


class Lasso(NamedTuple):
    """What the lasso found.

    Attributes:
      x: ``[B, N]``, the signals.
      coefficients: ``[B, N]``, c.
      objective: ``[B]``, at them.
      gap: ``[B]``, by how much the objective is above the least one, at most; near 0 where the steps were enough.
    """

    x: Array
    coefficients: Array
    objective: Array
    gap: Array


def lasso(
    y: ArrayLike, operator: ArrayLike, *, strength: ArrayLike, basis: ArrayLike | None = None, steps: int = 500
) -> Lasso:
    r"""Signals that have few numbers in a basis.

    Args:
      y: ``[B, M]``, the measurements.
      operator: A, ``[M, N]``.
      strength: :math:`\alpha`, at least 0; may be traced, so that several strengths are lanes of one program.
      basis: ``[N, N]``, orthogonal, such as `dct_basis`; None for the numbers themselves.
      steps: of FISTA.

    Returns:
      `Lasso`.

    Raises:
      ValueError: for shapes that do not fit, numbers that are not finite, a strength below 0, or no steps.

    Example:
      Three numbers of sixteen are not 0, and eight measurements find them:

      >>> import jax
      >>> from jaxfair import inverse
      >>> truth = jnp.zeros((1, 16)).at[0, jnp.array([2, 7, 11])].set(jnp.array([1.0, -2.0, 3.0]))
      >>> A = inverse.gaussian_measurements(jax.random.key(1), 8, 16)
      >>> found = lasso(truth @ A.T, A, strength=1e-3, steps=2000)
      >>> jnp.flatnonzero(jnp.abs(found.x[0]) > 0.1).tolist(), bool(jnp.abs(found.x - truth).max() < 0.01)
      ([2, 7, 11], True)
    """
    matrix, rows = check_measured(operator, y)
    check_number("strength", strength)
    check_count("steps", steps)
    number, eye = matrix.shape[1], jnp.eye(matrix.shape[1], dtype=matrix.dtype)
    if basis is not None:
        check_rows("basis", basis, (number, number))
    columns = eye if basis is None else jnp.asarray(basis, matrix.dtype)
    seen, alpha = matrix @ columns, jnp.asarray(strength, matrix.dtype)
    rate = 1 / jnp.maximum(jnp.linalg.norm(seen, 2) ** 2, jnp.finfo(matrix.dtype).tiny)

    def step(carry, _):
        c, ahead, t = carry
        moved = ahead - rate * (ahead @ seen.T - rows) @ seen
        new = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - rate * alpha, 0)
        # Each signal has a momentum of its own: it begins anew where the last move was against it.
        uphill = jnp.sum((ahead - new) * (new - c), axis=1) > 0
        t = jnp.where(uphill, 1, t)
        after = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        further = jnp.where(uphill, 0, (t - 1) / after)
        return (new, new + further[:, None] * (new - c), after), None

    start = jnp.zeros((len(rows), number), matrix.dtype)
    (found, _, _), _ = lax.scan(step, (start, start, jnp.ones(len(rows), matrix.dtype)), length=steps)
    left = rows - found @ seen.T
    objective = jnp.sum(left**2, axis=1) / 2 + alpha * jnp.sum(jnp.abs(found), axis=1)
    steepest = jnp.max(jnp.abs(left @ seen), axis=1)
    shrunk = left * jnp.minimum(1, alpha / jnp.where(steepest > 0, steepest, 1))[:, None]
    dual = (jnp.sum(rows**2, axis=1) - jnp.sum((rows - shrunk) ** 2, axis=1)) / 2
    return Lasso(found @ columns.T, found, objective, objective - dual)
