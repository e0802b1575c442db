r"""The Lagrangian of a quadratic program, its multipliers being the second player.

.. math:: \min_x \max_{y \ge 0} \tfrac12 x^\top Q x + q^\top x + y^\top (G x - h)

Constrained learning in small: the multipliers are a linear player with a projection, those of
inactive constraints are pinned at zero, and the noise is in the objective and in the constraints.
The problem is built around a known solution, by the conditions of Karush, Kuhn and Tucker:
:math:`q = -Q x^* - G^\top y^*`, and :math:`h = G x^*` plus a slack where :math:`y^* = 0`.

Source: ours; the testing ground of constrained deep learning, as in Sohrabi et al., `On PI
Controllers for Updating Lagrange Multipliers in Constrained Optimization
<https://arxiv.org/abs/2406.04558>`_, 2024.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import ArrayLike

from jaxfair.games._game import Game
from jaxfair.games._matrices import around, random_symmetric
from jaxfair.games._numbers import sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def lagrangian_qp(
    key: Key,
    *,
    dim: int = 20,
    num_constraints: int = 10,
    num_active: int = 5,
    num_samples: int = 100,
    min_eigenvalue: ArrayLike = 0.1,
    max_eigenvalue: ArrayLike = 1.0,
    noise: ArrayLike = 0.1,
) -> Game:
    r"""Draws a quadratic program with a known solution.

    Args:
      key: a PRNG key for the program and its solution.
      dim: d, the number of variables.
      num_constraints: m, the number of inequalities.
      num_active: how many of them are active at the solution, with a multiplier of at least 0.5; at
        most d.
      num_samples: n.
      min_eigenvalue: the smallest eigenvalue of Q.
      max_eigenvalue: the largest.
      noise: scale of the noise of G, q and h, as in :func:`jaxfair.games.around`; Q is without.

    Returns:
      The game, with players ``{"x": [d], "y": [m]}``: x starts at N(0, I), the multipliers at 0,
      and the projection keeps them from becoming negative. It holds ``4 n d (d + m)`` bytes of
      matrices in float32.

    Raises:
      ValueError: for more active constraints than constraints or variables.

    Example:
      >>> from jaxfair import games
      >>> game = games.lagrangian_qp(jax.random.key(0), dim=5, num_constraints=5, num_active=2, num_samples=4)
      >>> (game.saddle["y"] > 0).tolist()
      [True, True, False, False, False]
      >>> bool(games.residual(game, game.saddle) < 1e-6)
      True
    """
    dim, num_constraints, num_samples = sizes(dim=dim, num_constraints=num_constraints, num_samples=num_samples)
    (num_active,) = sizes(0, num_active=num_active)
    if not 0 <= num_active <= min(dim, num_constraints):
        raise ValueError(
            f"num_active={num_active}: give a number from 0 to {min(dim, num_constraints)}, the smaller of "
            f"dim={dim} and num_constraints={num_constraints}."
        )
    key_q, key_g, key_x, key_y, key_slack, *keys = jax.random.split(key, 8)
    hessian = random_symmetric(
        key_q,
        num_samples=1,
        dim=dim,
        min_eigenvalue=min_eigenvalue,
        max_eigenvalue=max_eigenvalue,
    )[0]
    constraints = jax.random.normal(key_g, (num_constraints, dim)) / dim**0.5
    active = jnp.arange(num_constraints) < num_active
    x = jax.random.normal(key_x, (dim,))
    y = jnp.where(active, 0.5 + jax.random.uniform(key_y, (num_constraints,)), 0)
    slack = jnp.where(active, 0, 0.5 + jax.random.uniform(key_slack, (num_constraints,)))

    return finite_sum(
        "lagrangian_qp",
        A=jnp.broadcast_to(hessian[None], (num_samples, dim, dim)),
        B=around(keys[0], constraints.T, num_samples=num_samples, noise=noise),
        a=around(keys[1], -hessian @ x - constraints.T @ y, num_samples=num_samples, noise=noise),
        c=around(keys[2], constraints @ x + slack, num_samples=num_samples, noise=noise),
        init=Partial(_init, dim, num_constraints),
        saddle={"x": x, "y": y},
        projection=_nonnegative_multipliers,
    )


def _init(dim: int, num_constraints: int, key: Key) -> Any:
    return {"x": jax.random.normal(key, (dim,)), "y": jnp.zeros(num_constraints)}


def _nonnegative_multipliers(players: Any) -> Any:
    return {"x": players["x"], "y": jax.nn.relu(players["y"])}
