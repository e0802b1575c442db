r"""A step in which one optimizer plays weights and multipliers as one game.

The joint field of the players :math:`(\theta, \lambda)` is

.. math::

   F(\theta, \lambda) = \Big( \nabla_\theta L + \sum_k w_k(\lambda) \nabla_\theta \mathrm{proxy}_k,
   \; - a_k(\mathrm{strict}_k) \Big)

and any optimizer of `jaxfair.optim` may move down it: Omega, extragradient, or a method that multiplies by the Jacobian
of F. What it evaluates again is on this step's batch, with the carry frozen. The multipliers are projected before each
evaluation and after the step.

At the solution of a problem with an inactive inequality F is not 0: the multiplier is held at 0 by its bound. Methods
that descend :math:`|F|^2` as well (`consensus`, `symplectic_adjustment`, `hamiltonian`) therefore end elsewhere there;
on equalities they do not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxfair.constraints.look import Game, Look
from jaxfair.typing import Params


def joint_step(
    game: Game,
    joint: optax.GradientTransformation,
    first: Look,
    params: Params,
    multipliers: jax.Array,
    joint_state: Any,
    penalties: Any,
    carry: Any,
    batch: Any,
    key: Any,
) -> tuple[Params, jax.Array, Any, Any, jax.Array]:
    """Moves both players.

    Args:
      game: the problem.
      joint: the optimizer of ``{"params": ..., "multipliers": [K]}``.
      first: the look at ``params``.
      params: of the weights.
      multipliers: ``[K]``.
      joint_state: of the optimizer.
      penalties: of the formulation.
      carry: what came into the step.
      batch: of the step.
      key: of the step.

    Returns:
      New params, multipliers and optimizer state; the gradient of the weights at ``params``, and the proxies' weights.
    """

    def project(rows: jax.Array) -> jax.Array:
        return game.multipliers.project(rows, first.evaluation)

    def field_at(look: Look, rows: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        gradient, weights = game.gradient(look, rows, penalties)
        ascent = game.formulation.ascent(look.evaluation.strict, penalties)
        down = -jnp.where(look.known, ascent, 0.0).astype(rows.dtype)
        return {"params": gradient, "multipliers": down}, weights

    def operator(players: dict[str, Any]) -> dict[str, Any]:
        look = game.look(players["params"], carry, batch, key)
        return field_at(look, project(players["multipliers"]))[0]

    players = {"params": params, "multipliers": multipliers}
    field, weights = field_at(first, multipliers)
    updates, joint_state = optax.with_extra_args_support(joint).update(
        field, joint_state, players, operator_fn=operator, field=field
    )
    moved: Any = optax.apply_updates(players, updates)
    values = jnp.where(first.known, project(moved["multipliers"]), multipliers)
    return moved["params"], values, joint_state, field["params"], weights
