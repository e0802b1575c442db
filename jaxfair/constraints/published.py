"""CEAG and equalised loss with the settings that were published, for comparison with them.

============  ===================  =======================
setting       the default here     published
============  ===================  =======================
``memory``    example_memory       replay_buffer, size 40
``mean``      prevalence           uniform
``proxy``     prevalence           batch
``margin``    0.5                  1 (of CEAG)
``absolute``  False                True (of equalised loss)
formulation   normalized           plain Lagrangian
============  ===================  =======================

These defects of the authors' code are left out: weight decay that reached the last layer only and entered the
constraint, model selection on the test split.
"""

from collections.abc import Callable
from typing import Any, Unpack

from jaxtyping import ArrayLike

from jaxfair.constraints._groups import GroupOptions
from jaxfair.constraints.equalized_loss import equalized_loss
from jaxfair.constraints.excess_accuracy_gap import excess_accuracy_gap
from jaxfair.constraints.formulations import lagrangian
from jaxfair.constraints.problem import Problem
from jaxfair.constraints.replay_buffer import replay_buffer

#: The size of the published replay buffers.
PUBLISHED_BUFFER = 40


def _settings(num_groups: int, options: GroupOptions) -> GroupOptions:
    settings: GroupOptions = {
        "memory": replay_buffer(num_groups, PUBLISHED_BUFFER),
        "proxy": "batch",
    }
    return {**settings, **options}


def published_excess_accuracy_gap(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    tolerance: ArrayLike,
    **options: Unpack[GroupOptions],
) -> Problem:
    """CEAG as it was published: :func:`excess_accuracy_gap` with other settings, see :mod:`published`.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      tolerance: as a share of 1.
      **options: as :func:`excess_accuracy_gap`. In the paper ``start`` is the step after the last pruning.

    Returns:
      A :class:`Problem` with G constraints. It recommends the plain :func:`lagrangian`.

    Example:
      No group is observed before its buffer is full:

      >>> import jax.numpy as jnp
      >>> from jaxfair import constraints
      >>> from jaxfair.typing import Batch
      >>> problem = constraints.published_excess_accuracy_gap(
      ...     lambda p, s, x, **_: (x * p, s), num_groups=2, tolerance=0.01)
      >>> batch = Batch(jnp.eye(2), jnp.array([0, 1]), jnp.array([0, 1]), jnp.arange(2), jnp.ones(2))
      >>> dense = constraints.outcomes(jnp.eye(2), batch.y)
      >>> problem.evaluate(jnp.ones(()), problem.init({}, dense, batch), batch, None).strict_observed
      Array([False, False], dtype=bool)

    References:
      Hashemizadeh et al., `Balancing Act <https://arxiv.org/abs/2310.20673>`_, 2024.
    """
    problem = excess_accuracy_gap(
        apply,
        num_groups=num_groups,
        tolerance=tolerance,
        mean="uniform",
        margin=1.0,
        **_settings(num_groups, options),
    )
    return problem._replace(formulation=lagrangian())


def published_equalized_loss(apply: Callable[..., Any], *, num_groups: int, **options: Unpack[GroupOptions]) -> Problem:
    """Equalised loss with buffers, as it was released: absolute values, so multipliers only grow.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      **options: as :func:`equalized_loss`.

    Returns:
      A :class:`Problem` with G equality constraints. It recommends the plain :func:`lagrangian`.

    Example:
      >>> from jaxfair import constraints
      >>> problem = constraints.published_equalized_loss(lambda p, s, x, **_: (x * p, s), num_groups=2)
      >>> problem.equality, problem.num_constraints
      (True, 2)

    References:
      Hashemizadeh et al., `Balancing Act <https://arxiv.org/abs/2310.20673>`_, 2024.
    """
    problem = equalized_loss(
        apply,
        num_groups=num_groups,
        absolute=True,
        mean="uniform",
        **_settings(num_groups, options),
    )
    return problem._replace(formulation=lagrangian())
