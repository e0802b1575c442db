r"""A matrix game: two players choose mixed strategies, and x pays y the amount :math:`x^\top P y`.

.. math:: \min_{x \in \Delta} \max_{y \in \Delta} x^\top P y, \qquad P = \frac1n \sum_i P_i

Both live on probability simplices, so the field does not vanish at the equilibrium; the projected
residual and the duality gap

.. math:: \mathrm{gap}(x, y) = \max_j (P^\top x)_j - \min_j (P y)_j \ge 0

do. The payoffs are built around an equilibrium that is known exactly: from any matrix M and
strategies :math:`x^*, y^*`,

.. math:: P = (I - \mathbf 1 {x^*}^\top) M (I - y^* \mathbf 1^\top) + u \mathbf 1^\top - \mathbf 1 v^\top

makes every action of the supports worth the same (0), and every other one worse by the slack
:math:`u, v > 0` outside of the supports.

Source: von Neumann, 1928. Optimistic methods converge in last iterate on such games: Daskalakis and
Panageas, `Last-Iterate Convergence: Zero-Sum Games and Constrained Min-Max Optimization
<https://arxiv.org/abs/1807.04252>`_, 2019.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from jaxfair.games._game import Game
from jaxfair.games._matrices import around
from jaxfair.games._numbers import sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def matrix_game(
    key: Key,
    *,
    dim: int = 20,
    support: int | None = None,
    num_samples: int = 100,
    noise: ArrayLike = 1.0,
) -> Game:
    r"""Draws a matrix game with a known equilibrium.

    Args:
      key: a PRNG key for the payoffs and the equilibrium.
      dim: d, the number of actions of each player.
      support: how many actions of each player have a positive probability at the equilibrium; all
        of them by default.
      num_samples: n.
      noise: scale of the noise of the payoff matrices, as in :func:`jaxfair.games.around`.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start uniformly distributed on their
      simplices, the Euclidean projection onto the simplices, and the duality gap. It holds
      ``4 n d**2`` bytes of matrices in float32.

    Raises:
      ValueError: for a support outside ``[1, dim]``.

    Example:
      >>> from jaxfair import games
      >>> game = games.matrix_game(jax.random.key(0), dim=5, support=2, num_samples=4)
      >>> bool(game.gap(game.saddle) < 1e-6)
      True
      >>> corner = {"x": jnp.eye(5)[0], "y": jnp.eye(5)[0]}
      >>> bool(game.gap(corner) > 0.1)
      True
    """
    dim, num_samples = sizes(dim=dim, num_samples=num_samples)
    (support,) = sizes(0, support=dim if support is None else support)
    if not 1 <= support <= dim:
        raise ValueError(f"support={support}: give a number from 1 to dim={dim}.")
    key_payoff, key_saddle, key_slack, key_noise = jax.random.split(key, 4)
    inside = jnp.arange(dim) < support
    # At least a half of the uniform weight on every action of the support: none of them vanishes in float32.
    draws = 0.5 + jax.random.uniform(key_saddle, (2, dim))
    strategies = jnp.where(inside[None], draws, 0)
    x, y = strategies / jnp.sum(strategies, axis=1, keepdims=True)
    slack_x, slack_y = jnp.where(inside[None], 0, 0.5 + jax.random.uniform(key_slack, (2, dim)))

    def against_x(matrix: Array) -> Array:
        return matrix - (x @ matrix)[None]

    def against_y(matrix: Array) -> Array:
        return matrix - (matrix @ y)[:, None]

    # Twice, since the rounding of the second projection is what is left of the first.
    payoff = against_y(against_x(jax.random.normal(key_payoff, (dim, dim))))
    payoff = against_y(against_x(payoff)) + slack_x[:, None] - slack_y[None]

    return finite_sum(
        "matrix_game",
        B=around(key_noise, payoff, num_samples=num_samples, noise=noise),
        init=Partial(_init, dim),
        saddle={"x": x, "y": y},
        projection=_onto_simplices,
        gap=Partial(_gap, payoff),
    )


def _init(dim: int, key: Key) -> Any:
    # Normalised exponentials are uniform on the simplex.
    draws = jax.random.exponential(key, (2, dim))
    x, y = draws / jnp.sum(draws, axis=1, keepdims=True)
    return {"x": x, "y": y}


def _onto_simplices(players: Any) -> Any:
    return {name: optax.projections.projection_simplex(p) for name, p in players.items()}


def _gap(payoff: Float[Array, "d d"], players: Any) -> Float[Array, ""]:
    return jnp.max(players["x"] @ payoff) - jnp.min(payoff @ players["y"])
