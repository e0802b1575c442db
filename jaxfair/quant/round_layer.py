r"""Rounding that is chosen: each weight in turn, the others making up for its error (GPTQ); bounds on each group.

For a layer :math:`y = x W` with inputs x and the Gram matrix of the inputs :math:`H = X^\top X` (``[n, n]``), what
rounding W to :math:`\hat W` costs is, exactly,

.. math:: \ell(\hat W) = \mathrm{tr}\big( (\hat W - W)^\top H\, (\hat W - W) \big)

The nearest level of each weight is best where H is diagonal only. GPTQ rounds row by row (an input at a time, all
outputs side by side) and after each moves the rows that are still free to where they are best, given the error of this
one: with the upper Cholesky factor U of :math:`(H + \delta I)^{-1}`,

.. math:: e_i = \frac{w_i - q(w_i)}{U_{ii}}, \qquad w_j \leftarrow w_j - U_{ij}\, e_i \quad (j > i)

**Under a bound on every group** (`round_groups`): with a Gram matrix :math:`H_g` of each group's inputs, the cost of a
group is :math:`\ell_g = \mathrm{tr}(\Delta^\top H_g \Delta)`, and

.. math:: \min_{\hat W} \sum_g \ell_g \quad \text{subject to} \quad \ell_g \le c_g

is played as a game: GPTQ is the best response to the matrix :math:`\sum_g (1 + \lambda_g) H_g`, the multipliers rise
where a group is above its bound, and the best of what was seen, the nearest levels included, is delivered: the cheapest
that met all bounds, else the one with the smallest violation. No promise comes with it: a bound may be met by rounding
that no multipliers lead to. A group that is a small part of the data is a small part of H, and pays for it; here it
cannot.

How this differs from the authors' code: one compiled loop; grids that are given, of any granularity, and stay; no block
size, since the update of a block is the same numbers.

References:
  Frantar, Ashkboos, Hoefler, Alistarh, `GPTQ <https://arxiv.org/abs/2210.17323>`_, 2023. Hassibi and Stork, *Second
  order derivatives for network pruning: Optimal Brain Surgeon*, 1993.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair.quant import _numbers
from jaxfair.quant._granularity import spread
from jaxfair.quant._quantizer import Grid, quantize
from jaxfair.typing import Array, whole

#: Of the mean of the diagonal, what is added to a matrix that has no factor.
SINGULAR = 0.01


class Rounded(NamedTuple):
    """What `round_groups` found.

    Attributes:
      weights: of the layer, at their levels.
      losses: ``[G]``, what each group's outputs lose.
      multipliers: ``[G]``, those that the weights are a best response to.
      met: ``[]`` bool, whether every bound is met.
    """

    weights: Array
    losses: Array
    multipliers: Array
    met: Array


def round_layer(w: Any, gram: Any, grid: Grid, *, damping: ArrayLike = 0.01, sort: bool = True) -> Array:
    r"""Rounds the kernel of a layer by second order (GPTQ).

    Args:
      w: ``[n, out]``, inputs first, as kernels of JAX are.
      gram: ``[n, n]``, :math:`X^\top X` of the inputs, as of :func:`jaxfair.sparsity.input_grams`; any scale.
      grid: of ``w``, of any granularity.
      damping: :math:`\delta`, of the mean of the diagonal; at least 0. Where that leaves the matrix without a factor,
        as of fewer people than inputs, it is 0.01 more.
      sort: whether inputs with a large diagonal are rounded first, while many are left to make up for them.

    Returns:
      ``[n, out]``, levels of the grid, of the dtype of ``w``. A weight that is zero on input stays zero.

    Raises:
      ValueError: for shapes that do not fit, and for a damping below 0.

    Example:
      Two inputs that are nearly one: what the first rounds up, the second rounds down.

      >>> from jaxfair import quant
      >>> w, grid = jnp.array([[0.6], [0.6], [2.0]]), quant.grid([[1.0]], 3)
      >>> gram = jnp.array([[1.0, 0.95, 0.0], [0.95, 1.0, 0.0], [0.0, 0.0, 1.0]])
      >>> quant.quantize(w, grid).ravel().tolist(), round_layer(w, gram, grid).ravel().tolist()
      ([1.0, 1.0, 2.0], [1.0, 0.0, 2.0])
    """
    weights, matrix = jnp.asarray(w), jnp.asarray(gram)
    if weights.ndim != 2 or matrix.shape != (weights.shape[0],) * 2:
        raise ValueError(
            f"weights of shape {weights.shape} with a Gram matrix {matrix.shape}: give [n, out] weights, inputs first, "
            "and the [n, n] matrix of their inputs"
        )
    _numbers.within("damping", damping, 0)
    dtype = _numbers.working(weights.dtype)
    wide, hessian = weights.astype(dtype), matrix.astype(dtype)
    diagonal = jnp.diagonal(hessian)
    # An input that is never there costs nothing, and is rounded to the nearest.
    absent = diagonal <= 0
    hessian = hessian + jnp.diag(jnp.where(absent, 1, jnp.asarray(damping, dtype) * jnp.mean(diagonal)))
    order = jnp.argsort(-jnp.diagonal(hessian)) if sort else jnp.arange(len(diagonal))
    hessian = hessian[order][:, order]
    # U of H^-1 = U' U, from a factor of H in the reverse order: no inverse is formed.
    lower = jnp.linalg.cholesky(hessian[::-1, ::-1])
    # Of fewer people than inputs the matrix is singular: without any damping it has no factor.
    more = jnp.diag(jnp.full_like(diagonal, SINGULAR * jnp.mean(diagonal)))
    lower = lax.cond(
        jnp.isfinite(lower).all(), lambda: lower, lambda: jnp.linalg.cholesky(hessian[::-1, ::-1] + more)
    )  # fmt: skip
    upper = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(diagonal), dtype=dtype), lower=True)[::-1, ::-1]

    step, zero = (spread(jnp.asarray(part, dtype), weights.shape) for part in (grid.scale, grid.zero))
    step, zero = (jnp.broadcast_to(part, weights.shape)[order] for part in (step, zero))
    low, high = jnp.asarray(grid.low, dtype), jnp.asarray(grid.high, dtype)
    gone, places = (wide == 0)[order], jnp.arange(len(diagonal))

    def one(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        free, done = state
        row = free[i]
        level = (jnp.clip(jnp.round(row / step[i]) + zero[i], low, high) - zero[i]) * step[i]
        level = jnp.where(gone[i], 0, level)
        error = (row - level) / upper[i, i]
        later = (places > i) * upper[i]
        return free - later[:, None] * error[None], done.at[i].set(level)

    _, done = lax.fori_loop(0, len(diagonal), one, (wide[order], jnp.zeros_like(wide)))
    return jnp.zeros_like(done).at[order].set(done).astype(weights.dtype)


def layer_loss(w: Any, rounded: Any, gram: Any) -> Array:
    r"""What a layer's outputs lose: :math:`\mathrm{tr}(\Delta^\top H \Delta)`, the squared error over all inputs.

    Args:
      w: ``[n, out]``.
      rounded: ``[n, out]``.
      gram: ``[n, n]``, or ``[G, n, n]`` for one loss a group.

    Returns:
      ``[]``, or ``[G]``.

    Example:
      >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
      >>> layer_loss(jnp.zeros((2, 1)), jnp.ones((2, 1)), x.T @ x).item(), jnp.sum((x @ jnp.ones((2, 1))) ** 2).item()
      (10.0, 10.0)
    """
    change = jnp.asarray(rounded) - jnp.asarray(w)
    return jnp.einsum("io,...ij,jo->...", change, jnp.asarray(gram), change)


def round_groups(
    w: Any,
    grams: Any,
    grid: Grid,
    bound: ArrayLike,
    *,
    rounds: Any = 100,
    rate: ArrayLike = 10.0,
    damping: ArrayLike = 0.01,
) -> Rounded:
    r"""Rounds a layer so that no group's outputs lose more than a bound.

    Args:
      w: ``[n, out]``, inputs first.
      grams: ``[G, n, n]``, of each group's inputs. Divided by the number of people of a group they make losses per
        person.
      grid: of ``w``.
      bound: :math:`c_g`, one for all groups or ``[G]``, above 0; infinity for a group that may lose what it likes.
      rounds: of the game, static. The first is GPTQ for all groups together.
      rate: by how much a multiplier rises when its group loses twice its bound.
      damping: as in `round_layer`.

    Returns:
      The `Rounded`: of the rounds and of the nearest levels, what has the least loss over all groups and meets every
      bound, else what has its worst group least above its bound.

    Raises:
      ValueError: for shapes that do not fit, bounds that are not above 0, rounds that are no whole number.

    Example:
      A small group with inputs of its own loses more by GPTQ than by rounding to the nearest; bounded, less:

      >>> from jaxfair import quant
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> w, *mixed = (jax.random.normal(key, (8, 8)) for key in keys)
      >>> grams = jnp.stack([0.96 * mixed[0].T @ mixed[0], 0.04 * mixed[1].T @ mixed[1]])
      >>> grid = quant.calibrate(w, 3)
      >>> nearest = layer_loss(w, quant.quantize(w, grid), grams)
      >>> free = round_groups(w, grams, grid, jnp.inf, rounds=1)
      >>> bounded = round_groups(w, grams, grid, jnp.array([jnp.inf, nearest[1]]))
      >>> for loss in (nearest, free.losses, bounded.losses):
      ...     print(f"{loss.sum():.0f} {loss[1]:.1f}")
      26 1.1
      20 1.6
      25 0.9
    """
    weights, matrices = jnp.asarray(w), jnp.asarray(grams)
    if weights.ndim != 2 or matrices.ndim != 3 or matrices.shape[1:] != (weights.shape[0],) * 2:
        raise ValueError(
            f"weights of shape {weights.shape} with Gram matrices {matrices.shape}: give [n, out] weights, inputs "
            "first, and [G, n, n] matrices"
        )
    count = whole(rounds)
    if count is None or count < 1:
        raise ValueError(f"rounds={rounds}: give a whole number, 1 or more")
    if not isinstance(bound, Tracer) and not (np.asarray(bound) > 0).all():
        raise ValueError(f"bound={bound}: a bound is above 0, since levels are not the weights")
    _numbers.within("rate", rate, 0, open_low=True)
    limits = jnp.broadcast_to(jnp.asarray(bound, jnp.float32), matrices.shape[:1])

    def judged(found: Array, multipliers: Array) -> tuple[Rounded, Array]:
        losses = layer_loss(weights, found, matrices).astype(jnp.float32)
        above = jnp.max(losses / limits) - 1
        # Below 0 for all that meet the bounds, and then in the order of their losses.
        score = jnp.where(above <= 0, -1 / (1 + jnp.sum(losses)), above)
        return Rounded(found, losses, multipliers, above <= 0), score

    def play(state: tuple[Array, Rounded, Array], _: Any) -> tuple[tuple[Array, Rounded, Array], None]:
        multipliers, best, least = state
        both = jnp.einsum("g,gij->ij", 1 + multipliers, matrices)
        now, score = judged(round_layer(weights, both, grid, damping=damping), multipliers)
        best = jax.tree.map(lambda new, old: jnp.where(score < least, new, old), now, best)
        multipliers = jnp.maximum(multipliers + rate * (now.losses / limits - 1), 0)
        return (multipliers, best, jnp.minimum(score, least)), None

    none = jnp.zeros(len(matrices), jnp.float32)
    (_, best, _), _ = lax.scan(play, (none, *judged(quantize(weights, grid), none)), None, count)
    return best
