r"""EL: every group's loss equals the average loss. The baseline that does not look at the dense model.

.. math::

   \min_\theta L(\theta) \quad \text{subject to} \quad L_g(\theta) - L(\theta) = 0 \quad \text{for every group } g

With ``absolute=True`` the violation is :math:`|L_g - L|`, as in the configurations released with Balancing Act: it is
never negative, so the multipliers can only grow.

How this differs from the authors' code: their buffers of losses ("EL+RB") are ``memory=replay_buffer(G, 40)``; the
default here remembers the last loss of every training example.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.example_memory import example_memory
from jaxfair.constraints.excess_accuracy_gap import PUBLISHED_BUFFER, difference_error
from jaxfair.constraints.memories import Memory
from jaxfair.constraints.problem import (
    Aux,
    Carry,
    Problem,
    check,
    forward,
    group_losses,
    make_init,
    squared_norm,
)
from jaxfair.constraints.replay_buffer import replay_buffer
from jaxfair.typing import Batch, Params


def equalized_loss(
    apply: Callable,
    *,
    num_groups: int,
    mode: str = "recipe",
    absolute: bool | None = None,
    memory: Memory | None = None,
    mean: str | None = None,
    proxy: str | None = None,
    constrained: np.ndarray | None = None,
    start: int = 0,
    weight_decay: float = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
) -> Problem:
    r"""The problem of equalised loss for a model.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      mode: what the four switches below are where they are not given.

        ============  ===================  =======================
        switch        recipe               published
        ============  ===================  =======================
        ``absolute``  False                True
        ``memory``    example_memory       replay_buffer, size 40
        ``mean``      prevalence           uniform
        ``proxy``     prevalence           batch
        ============  ===================  =======================

      absolute: :math:`|L_g - L|` in place of :math:`L_g - L`, for both players.
      memory: where the dual player's losses come from.
      mean: of the remembered average loss, ``"prevalence"`` or ``"uniform"``.
      proxy: ``"prevalence"`` or ``"batch"``, see :func:`~jaxfair.constraints.problem.group_losses`.
      constrained: ``[G]`` bool, the groups that have a constraint. All by default.
      start: the first step at which the constraints are observed.
      weight_decay: adds ``weight_decay / 2 * |params|^2`` to the loss.
      decayed: which leaves the decay speaks of, by path.

    Returns:
      A :class:`Problem` with G equality constraints.

    Raises:
      ValueError: for an unknown switch, or a negative start.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxfair import constraints
      >>> from jaxfair.typing import Batch
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x * params, state
      >>> x = jnp.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
      >>> batch = Batch(x, jnp.zeros(4, jnp.int32), jnp.array([0, 0, 0, 1]), jnp.arange(4), jnp.ones(4))
      >>> dense = constraints.Outcomes(correct=jnp.ones(4), loss=jnp.zeros(4))
      >>> problem = constraints.equalized_loss(apply, num_groups=2)
      >>> problem.evaluate(jnp.ones(()), problem.init({}, dense, batch), batch, None).strict
      Array([-0.5,  1.5], dtype=float32)

    References:
      Tran et al., `Pruning has a disparate impact on model accuracy <https://arxiv.org/abs/2205.13574>`_, 2022;
      Hashemizadeh et al., `Balancing Act <https://arxiv.org/abs/2310.20673>`_, 2024, for the buffers.
    """
    check("mode", mode, ("recipe", "published"))
    published = mode == "published"
    absolute = published if absolute is None else absolute
    if memory is None:
        memory = (
            replay_buffer(num_groups, PUBLISHED_BUFFER) if published else example_memory(num_groups)
        )
    mean = ("uniform" if published else "prevalence") if mean is None else mean
    proxy = ("batch" if published else "prevalence") if proxy is None else proxy
    check("mean", mean, ("prevalence", "uniform"))
    check("proxy", proxy, ("prevalence", "batch"))
    if start < 0:
        raise ValueError(f"start={start}: give a step of at least 0.")
    bounded = np.ones(num_groups, bool) if constrained is None else np.asarray(constrained, bool)

    def evaluate(params: Params, carry: Carry, batch: Batch, key: Any) -> Evaluation:
        ref = carry.reference
        result, loss, model_state = forward(apply, params, carry, batch, key)

        active = carry.step >= start
        fed = batch._replace(weight=jnp.where(active, jnp.asarray(batch.weight), 0.0))
        remembered = memory.push(carry.memory, fed, result.loss)
        losses, observed = memory.group_means(remembered)
        share = jnp.where(observed, ref.prevalence if mean == "prevalence" else 1.0, 0.0)
        average = jnp.sum(share * losses) / jnp.maximum(jnp.sum(share), 1e-12)
        strict = jnp.where(observed, losses - average, 0.0)

        group_loss, seen = group_losses(result.loss, batch, ref.prevalence, proxy)
        direction = group_loss - loss
        if absolute:
            strict, direction = jnp.abs(strict), jnp.abs(direction)
        if weight_decay:
            loss = loss + 0.5 * weight_decay * squared_norm(params, decayed)
        return Evaluation(
            loss=loss,
            proxy=direction,
            strict=strict,
            proxy_observed=seen & jnp.asarray(bounded),
            strict_observed=observed & active & jnp.asarray(bounded),
            carry=Carry(model_state, remembered, ref, carry.step + 1),
            aux=Aux(result.correct, losses),
            strict_error=difference_error(
                memory.standard_errors(remembered), observed, ref.prevalence, mean
            ),
        )

    return Problem(
        num_constraints=num_groups,
        equality=True,
        init=make_init(memory, num_groups, "loss"),
        evaluate=evaluate,
    )
