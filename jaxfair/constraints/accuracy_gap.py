r"""Bounds each group's own loss of accuracy against the dense model.

.. math::

   \min_\theta L(\theta) \quad \text{subject to} \quad
   \Delta_g = A_g(d) - A_g(\theta) \le \epsilon \quad \text{for every } g

The excess accuracy gap compares a group with the average, so a network that is worse for everybody alike meets
its bound. Here nobody may lose more than the tolerance, and levelling down does not count as fair. The proxy is
:math:`L_g(\theta) - L_g(d)`; the average does not appear.

An example of group g counts :math:`1/B + w_g/(B p_g)`: positive whatever the multipliers, so the plain Lagrangian is
safe here, and :func:`normalized_lagrangian` only shifts attention from the loss to the constraints less fast.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.example_memory import example_memory
from jaxfair.constraints.memories import Memory
from jaxfair.constraints.problem import (
    Aux,
    Carry,
    Problem,
    check,
    check_tolerance,
    forward,
    group_losses,
    make_init,
    squared_norm,
)
from jaxfair.typing import Batch, Params


def accuracy_gap(
    apply: Callable,
    *,
    num_groups: int,
    tolerance: float,
    memory: Memory | None = None,
    proxy: str = "prevalence",
    margin: float = 0.5,
    constrained: np.ndarray | None = None,
    start: int = 0,
    weight_decay: float = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
) -> Problem:
    r"""The problem that bounds every group's own loss of accuracy.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      tolerance: :math:`\epsilon \ge 0`, as a share of 1.
      memory: where the estimates come from; :func:`example_memory` by default.
      proxy: ``"prevalence"`` or ``"batch"``, see :func:`~jaxfair.constraints.problem.group_losses`.
      margin: the multipliers see the tolerance times this.
      constrained: ``[G]`` bool, the groups that have a bound. All by default.
      start: the first step at which the constraints are observed.
      weight_decay: adds ``weight_decay / 2 * |params|^2`` to the loss.
      decayed: which leaves the decay speaks of, by path.

    Returns:
      A :class:`Problem` with G constraints.

    Raises:
      ValueError: for an unknown switch, or a negative tolerance, margin or start.

    Example:
      A model that is wrong about one of the three members of group 0 is not excused by being wrong about group 1:

      >>> import jax.numpy as jnp
      >>> from jaxfair import constraints
      >>> from jaxfair.typing import Batch
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x * params, state
      >>> x = jnp.array([[0.0, 2.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
      >>> batch = Batch(x, jnp.zeros(4, jnp.int32), jnp.array([0, 0, 0, 1]), jnp.arange(4), jnp.ones(4))
      >>> dense = constraints.Outcomes(correct=jnp.ones(4), loss=jnp.zeros(4))
      >>> problem = constraints.accuracy_gap(apply, num_groups=2, tolerance=0.1, margin=1.0)
      >>> strict = problem.evaluate(jnp.ones(()), problem.init({}, dense, batch), batch, None).strict
      >>> [round(float(value), 3) for value in strict]
      [0.233, 0.9]

    References:
      The constraint is the group accuracy gap of Hashemizadeh et al., `Balancing Act <https://arxiv.org/abs/2310.20673>`_,
      2024, without the average; ours.
    """
    check("proxy", proxy, ("prevalence", "batch"))
    check_tolerance(tolerance)
    if not margin >= 0 or start < 0:
        raise ValueError(f"margin={margin}, start={start}: give numbers of at least 0.")
    memory = example_memory(num_groups) if memory is None else memory
    bounded = np.ones(num_groups, bool) if constrained is None else np.asarray(constrained, bool)
    bound = margin * tolerance

    def evaluate(params: Params, carry: Carry, batch: Batch, key: Any) -> Evaluation:
        ref = carry.reference
        result, loss, model_state = forward(apply, params, carry, batch, key)

        active = carry.step >= start
        fed = batch._replace(weight=jnp.where(active, jnp.asarray(batch.weight), 0.0))
        remembered = memory.push(carry.memory, fed, result.correct)
        accuracy, observed = memory.group_means(remembered)
        gap = jnp.where(observed, ref.group_accuracy - accuracy, 0.0)

        group_loss, seen = group_losses(result.loss, batch, ref.prevalence, proxy)
        if weight_decay:
            loss = loss + 0.5 * weight_decay * squared_norm(params, decayed)
        return Evaluation(
            loss=loss,
            proxy=(group_loss - ref.group_loss) - bound,
            strict=gap - bound,
            proxy_observed=seen & jnp.asarray(bounded),
            strict_observed=observed & active & jnp.asarray(bounded),
            carry=Carry(model_state, remembered, ref, carry.step + 1),
            aux=Aux(result.correct, accuracy),
            strict_error=memory.standard_errors(remembered),
        )

    return Problem(
        num_constraints=num_groups,
        equality=False,
        init=make_init(memory, num_groups, "correct"),
        evaluate=evaluate,
    )
