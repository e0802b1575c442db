"""Empirical risk minimisation, as a problem with no constraints: the baseline goes through the same step."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import ArrayLike

from jaxfair.constraints._numbers import check_count
from jaxfair.constraints._objective import make_forward
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.losses import Loss, cross_entropy
from jaxfair.constraints.problem import Aux, Carry, Outcomes, Problem
from jaxfair.tree import copied
from jaxfair.typing import Batch, ModelState, Params


def unconstrained(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    loss: Loss = cross_entropy,
    weight_decay: ArrayLike = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
) -> Problem:
    r"""Minimises the mean loss, with K = 0 constraints: the solver's step is the plain optimizer's, bit for bit.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G, of the batches; the groups are only counted.
      loss: of one example, ``loss(logits [B, C], batch) -> [B]``.
      weight_decay: adds ``weight_decay / 2 * |params|^2`` to the loss.
      decayed: which leaves the decay speaks of, by path.

    Returns:
      A :class:`Problem` without constraints. Its ``init(model_state, outcomes=None, batch=None)`` needs no reference
      model, and no split.

    Raises:
      ValueError: for a negative weight decay.

    Example:
      >>> import optax
      >>> from jaxfair import constraints
      >>> problem = constraints.unconstrained(lambda p, s, x, **_: (x * p, s), num_groups=1)
      >>> solver = constraints.solver(problem, primal=optax.sgd(1.0))
      >>> batch = Batch(jnp.eye(2), jnp.array([0, 1]), jnp.zeros(2, int), jnp.arange(2), jnp.ones(2))
      >>> state, info = solver.step(solver.init(jnp.zeros(()), problem.init({})), batch)
      >>> state.params, info.loss.round(3)
      (Array(0.5, dtype=float32), Array(0.693, dtype=float32))
    """
    check_count("num_groups", num_groups)
    forward = make_forward(apply, loss=loss, weight_decay=weight_decay, decayed=decayed)

    def init(model_state: ModelState, outcomes: Outcomes | None = None, batch: Batch | None = None) -> Carry:
        del outcomes, batch
        return Carry(copied(model_state), memory=(), reference=(), step=jnp.zeros((), jnp.int32))

    def evaluate(params: Params, carry: Carry, batch: Batch, key: Any) -> Evaluation:
        found = forward(params, carry.model_state, batch, key)
        nothing = jnp.zeros(0, found.objective.dtype)
        return Evaluation(
            loss=found.objective,
            proxy=nothing,
            strict=nothing,
            carry=Carry(found.model_state, carry.memory, carry.reference, carry.step + 1),
            aux=Aux(found.correct, jnp.zeros(num_groups)),
        )

    return Problem(0, False, init, evaluate)
