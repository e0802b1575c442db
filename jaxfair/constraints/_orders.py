r"""The orders in which a step moves the players: functions of ``(game, state, batch, key)``, one after the other.

=================  =============================================================================================
order              a step
=================  =============================================================================================
dual_primal        one evaluation; the multipliers move first, and the weights see the new ones
simultaneous       one evaluation; the weights see the old multipliers
primal_dual        the weights move first; the multipliers see the constraints at the new weights
extragradient      both move tentatively; both move again, from where they were, by what is found there
joint              one optimizer moves both, see :func:`joint`
=================  =============================================================================================

Whatever is evaluated a second time is on the same batch and from the incoming carry: the memories saw this batch
already, and only what the first evaluation leaves is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxfair.constraints._game import Game, Look, SolverState
from jaxfair.typing import Params


class Moved(NamedTuple):
    """What an order leaves.

    Attributes:
      params: the weights.
      multipliers: of the state.
      primal_state: of the primal or joint optimizer.
      dual_state: of the dual optimizer; ``()`` beside a joint one.
      first: the look at the parameters before the step.
      judged: the look whose strict values the multipliers saw.
      gradient: of the weights, at the first look.
      weights: ``[R]``, of the proxies there.
    """

    params: Params
    multipliers: Any
    primal_state: Any
    dual_state: Any
    first: Look
    judged: Look
    gradient: Any
    weights: jax.Array


def dual_primal(game: Game, state: SolverState, batch: Any, key: Any) -> Moved:
    """The multipliers, then the weights."""
    first = game.look(state.params, state.carry, batch, key)
    penalties = game.read_penalties(state.penalties, first.evaluation)
    values, dual_state = game.move_dual(state, first)
    rows = game.multipliers.read(values, first.evaluation)
    gradient, weights = game.gradient(first, rows, penalties)
    params, primal_state = game.move_primal(state, gradient)
    return Moved(params, values, primal_state, dual_state, first, first, gradient, weights)


def simultaneous(game: Game, state: SolverState, batch: Any, key: Any) -> Moved:
    """Both from the old values."""
    first, gradient, weights = _first(game, state, batch, key)
    values, dual_state = game.move_dual(state, first)
    params, primal_state = game.move_primal(state, gradient)
    return Moved(params, values, primal_state, dual_state, first, first, gradient, weights)


def primal_dual(game: Game, state: SolverState, batch: Any, key: Any) -> Moved:
    """The weights, then the multipliers by what the new weights do."""
    first, gradient, weights = _first(game, state, batch, key)
    params, primal_state = game.move_primal(state, gradient)
    again = game.look(params, state.carry, batch, key)
    values, dual_state = game.move_dual(state, again)
    return Moved(params, values, primal_state, dual_state, first, again, gradient, weights)


def extragradient(game: Game, state: SolverState, batch: Any, key: Any) -> Moved:
    """Both from where they were, by the field half a step ahead. The optimizers' states count one step."""
    first, gradient, weights = _first(game, state, batch, key)
    half_params, _ = game.move_primal(state, gradient)
    half_values, _ = game.move_dual(state, first)
    half = game.look(half_params, state.carry, batch, key)
    rows = game.multipliers.read(half_values, half.evaluation)
    values, dual_state = game.move_dual(state, half)
    penalties = game.read_penalties(state.penalties, first.evaluation)
    params, primal_state = game.move_primal(state, game.gradient(half, rows, penalties)[0])
    return Moved(params, values, primal_state, dual_state, first, half, gradient, weights)


def joint(game: Game, state: SolverState, batch: Any, key: Any) -> Moved:
    r"""One optimizer plays weights and multipliers as one game.

    The joint field of the players :math:`(\theta, \lambda)` is

    .. math::

       F(\theta, \lambda) = \Big( \nabla_\theta L + \sum_k w_k(\lambda) \nabla_\theta \mathrm{proxy}_k,
       \; - a_k(\mathrm{strict}_k) \Big)

    and any optimizer of `jaxfair.optim` may move down it: Omega, extragradient, or a method that multiplies by the
    Jacobian of F. What it evaluates again is on this step's batch, with the carry frozen. The multipliers are
    projected before each evaluation and after the step.

    At the solution of a problem with an inactive inequality F is not 0: the multiplier is held at 0 by its bound.
    Methods that descend :math:`|F|^2` as well (`consensus`, `symplectic_adjustment`, `hamiltonian`) therefore end
    elsewhere there; on equalities they do not.
    """
    first = game.look(state.params, state.carry, batch, key)
    penalties = game.read_penalties(state.penalties, first.evaluation)

    def project(rows: jax.Array) -> jax.Array:
        return game.multipliers.project(rows, first.evaluation)

    def field_at(look: Look, rows: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        gradient, weights = game.gradient(look, rows, penalties)
        ascent = game.formulation.ascent(look.evaluation.strict, penalties)
        down = -jnp.where(look.known, ascent, 0.0).astype(rows.dtype)
        return {"params": gradient, "multipliers": down}, weights

    def operator(players: dict[str, Any]) -> dict[str, Any]:
        look = game.look(players["params"], state.carry, batch, key)
        return field_at(look, project(players["multipliers"]))[0]

    players = {"params": state.params, "multipliers": state.multipliers}
    field, weights = field_at(first, state.multipliers)
    updates, joint_state = optax.with_extra_args_support(game.primal).update(
        field, state.primal_state, players, operator_fn=operator, field=field
    )
    moved: Any = optax.apply_updates(players, updates)
    values = jnp.where(first.known, project(moved["multipliers"]), state.multipliers)
    return Moved(moved["params"], values, joint_state, (), first, first, field["params"], weights)


def _first(game: Game, state: SolverState, batch: Any, key: Any) -> tuple[Look, Any, jax.Array]:
    """The look before the step, and the gradient and weights there with the old multipliers."""
    first = game.look(state.params, state.carry, batch, key)
    penalties = game.read_penalties(state.penalties, first.evaluation)
    old = game.multipliers.read(state.multipliers, first.evaluation)
    return first, *game.gradient(first, old, penalties)


#: The orders of two optimizers.
ORDERS: dict[str, Callable[[Game, SolverState, Any, Any], Moved]] = {
    "dual_primal": dual_primal,
    "simultaneous": simultaneous,
    "primal_dual": primal_dual,
    "extragradient": extragradient,
}
