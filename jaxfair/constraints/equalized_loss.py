r"""EL: every group's loss equals the average loss. The baseline that does not look at the dense model.

.. math::

   \min_\theta L(\theta) \quad \text{subject to} \quad L_g(\theta) - L(\theta) = 0 \quad \text{for every group } g

With ``absolute=True`` the violation is :math:`|L_g - L|`, as in the configurations released with Balancing Act: it is
never negative, so the multipliers can only grow.

How this differs from the authors' code: their buffers of losses ("EL+RB") are :func:`published_equalized_loss`; the
default here remembers the last loss of every training example.
"""

from collections.abc import Callable
from typing import Any, Unpack

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxfair.constraints._groups import (
    GroupOptions,
    average_shares,
    difference_error,
    group_problem,
    weighted_average,
)
from jaxfair.constraints._numbers import check_word
from jaxfair.constraints.formulations import normalized_lagrangian
from jaxfair.constraints.problem import Problem, Reference


def equalized_loss(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    absolute: bool = False,
    mean: str = "prevalence",
    **options: Unpack[GroupOptions],
) -> Problem:
    r"""The problem of equalised loss for a model.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      absolute: :math:`|L_g - L|` in place of :math:`L_g - L`, for both players.
      mean: of the remembered average loss, ``"prevalence"`` or ``"uniform"``.
      **options: ``loss``, ``memory``, ``proxy``, ``constrained``, ``start``, ``weight_decay`` and ``decayed``, see
        :func:`group_problem`. The memory starts from the losses in the ``outcomes`` that ``init`` is given.

    Returns:
      A :class:`Problem` with G equality constraints. It recommends :func:`normalized_lagrangian`.

    Raises:
      ValueError: for an unknown word, or a negative start.

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
    check_word("mean", mean, ("prevalence", "uniform"))

    def strict(losses: Float[Array, " G"], observed: Bool[Array, " G"], ref: Reference) -> Float[Array, " G"]:
        average = weighted_average(losses, average_shares(observed, ref.prevalence, mean))
        above = jnp.where(observed, losses - average, 0.0)
        return jnp.abs(above) if absolute else above

    def surrogate(group_loss: Float[Array, " G"], mean_loss: Float[Array, ""], ref: Reference) -> Float[Array, " G"]:
        del ref
        above = group_loss - mean_loss
        return jnp.abs(above) if absolute else above

    return group_problem(
        apply,
        num_groups=num_groups,
        remember="loss",
        strict=strict,
        surrogate=surrogate,
        error=lambda errors, observed, ref: difference_error(
            errors, observed, average_shares(observed, ref.prevalence, mean)
        ),
        equality=True,
        formulation=normalized_lagrangian(),
        **options,
    )
