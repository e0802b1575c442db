r"""Robust least squares: a regression whose targets an adversary may move, at a price.

.. math:: \min_x \max_y \frac{1}{2n} \sum_{i=1}^n (z_i^\top x - y_i)^2 - \lambda (y_i - b_i)^2

With :math:`\lambda > 1` the game is concave in y. The solution in x is that of plain least squares,
:math:`Z^\top Z x^* = Z^\top b`, and the adversary's is
:math:`y^* = (\lambda b - Z x^*)/(\lambda - 1)`. A sample is one row of the data, and concerns one
entry of y: most of the adversary stands still at each step.

Source: El Ghaoui and Lebret, Robust Solutions to Least-Squares Problems with Uncertain Data, 1997;
as a stochastic game in Yang, Kiyavash, He, `Global Convergence and Variance-Reduced Optimization
for a Class of Nonconvex-Nonconcave Minimax Problems <https://arxiv.org/abs/2002.09621>`_, 2020.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float, Int

from jaxfair.games._game import Game, uniform_indices
from jaxfair.games._matrices import spread
from jaxfair.games._numbers import check_scales, check_span, sizes
from jaxfair.typing import Key


def robust_least_squares(
    key: Key,
    *,
    dim: int = 20,
    num_samples: int = 100,
    min_singular: ArrayLike = 0.3,
    max_singular: ArrayLike = 1.0,
    penalty: ArrayLike = 2.0,
    noise: ArrayLike = 0.5,
) -> Game:
    r"""Draws a regression problem.

    Args:
      key: a PRNG key for the data.
      dim: d, the number of features, at most `num_samples`.
      num_samples: n, the number of rows.
      min_singular: the smallest singular value of :math:`Z/\sqrt n`, that is, the features'
        smallest standard deviation.
      max_singular: the largest.
      penalty: :math:`\lambda`, above 1.
      noise: the standard deviation of the targets around a linear model.

    Returns:
      The game, with players ``{"x": [d], "y": [n]}`` that start at N(0, I).

    Raises:
      ValueError: for more features than rows, or a penalty of at most 1.

    Example:
      >>> from jaxfair import games
      >>> game = games.robust_least_squares(jax.random.key(0), dim=4, num_samples=5)
      >>> {name: player.shape for name, player in game.saddle.items()}
      {'x': (4,), 'y': (5,)}
      >>> bool(games.residual(game, game.saddle) < 1e-6)
      True
    """
    dim, num_samples = sizes(dim=dim, num_samples=num_samples)
    check_span("singular", min_singular, max_singular)
    check_scales(noise=noise, penalty=penalty)
    if dim > num_samples:
        raise ValueError(f"dim={dim} > num_samples={num_samples}: the regression has many solutions.")
    if not isinstance(penalty, Tracer) and np.asarray(penalty) <= 1:
        raise ValueError(f"penalty={penalty}: the adversary's problem is concave above 1 only.")
    key_left, key_right, key_singular, key_true, key_noise = jax.random.split(key, 5)
    left = jax.random.orthogonal(key_left, num_samples)[:, :dim]
    right = jax.random.orthogonal(key_right, dim)
    singular = num_samples**0.5 * spread(key_singular, (dim,), min_singular, max_singular)
    features = (left * singular[None]) @ right.T
    targets = features @ jax.random.normal(key_true, (dim,))
    targets += noise * jax.random.normal(key_noise, (num_samples,))

    x = right @ (left.T @ targets / singular)
    y = (penalty * targets - features @ x) / (penalty - 1)
    n, dtype = num_samples, features.dtype
    jacobian = jnp.block(
        [
            [features.T @ features / n, -features.T / n],
            [features / n, (penalty - 1) / n * jnp.eye(n, dtype=dtype)],
        ]
    )
    penalty = jnp.asarray(penalty, dtype)

    return Game(
        name="robust_least_squares",
        init=Partial(_init, dim, num_samples),
        sample=uniform_indices(num_samples),
        operator=Partial(_operator, features, targets, penalty),
        mean_operator=Partial(_mean_operator, features, targets, penalty),
        saddle={"x": x, "y": y},
        jacobian=jacobian,
        num_samples=num_samples,
        payoff=Partial(_payoff, features, targets, penalty),
    )


def _init(dim: int, num_samples: int, key: Key) -> Any:
    players = jax.random.normal(key, (dim + num_samples,))
    return {"x": players[:dim], "y": players[dim:]}


def _operator(
    features: Float[Array, "n d"],
    targets: Float[Array, " n"],
    penalty: Float[Array, ""],
    players: Any,
    batch: Int[Array, " b"],
) -> Any:
    rows, y = features[batch], players["y"][batch]
    error = (rows @ players["x"] - y) / batch.size
    ascent = -error - penalty * (y - targets[batch]) / batch.size
    # `add`, not `set`: a row may be drawn more than once.
    return {"x": error @ rows, "y": jnp.zeros_like(players["y"]).at[batch].add(-ascent)}


def _mean_operator(
    features: Float[Array, "n d"],
    targets: Float[Array, " n"],
    penalty: Float[Array, ""],
    players: Any,
) -> Any:
    error = (features @ players["x"] - players["y"]) / targets.size
    return {
        "x": error @ features,
        "y": error + penalty * (players["y"] - targets) / targets.size,
    }


def _payoff(
    features: Float[Array, "n d"],
    targets: Float[Array, " n"],
    penalty: Float[Array, ""],
    players: Any,
    batch: Int[Array, " b"],
) -> Float[Array, ""]:
    y = players["y"][batch]
    error = features[batch] @ players["x"] - y
    return jnp.mean(error**2 - penalty * (y - targets[batch]) ** 2) / 2
