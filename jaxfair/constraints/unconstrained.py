"""Empirical risk minimisation, as a problem with no constraints: the baseline goes through the same step."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.memories import minibatch
from jaxfair.constraints.problem import Aux, Carry, Problem, forward, make_init, squared_norm
from jaxfair.typing import Batch, Params


def unconstrained(
    apply: Callable,
    *,
    num_groups: int,
    weight_decay: float = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
) -> Problem:
    r"""Minimises the mean cross entropy, with K = 0 constraints.

    With ``constraints.dense(0)`` the solver's step is the plain optimizer's step, bit for bit.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G, of the batches; the groups are only counted.
      weight_decay: adds ``weight_decay / 2 * |params|^2`` to the loss.
      decayed: which leaves the decay speaks of, by path.

    Example:
      >>> problem = unconstrained(lambda *args, **kwargs: None, num_groups=4)
      >>> problem.num_constraints
      0
    """
    memory = minibatch(num_groups)

    def evaluate(params: Params, carry: Carry, batch: Batch, key: Any) -> Evaluation:
        result, loss, model_state = forward(apply, params, carry, batch, key)
        if weight_decay:
            loss = loss + 0.5 * weight_decay * squared_norm(params, decayed)
        nothing = jnp.zeros(0, loss.dtype)
        return Evaluation(
            loss=loss,
            proxy=nothing,
            strict=nothing,
            carry=Carry(model_state, carry.memory, carry.reference, carry.step + 1),
            aux=Aux(result.correct, jnp.zeros(num_groups)),
        )

    return Problem(0, False, make_init(memory, num_groups, "correct"), evaluate)
