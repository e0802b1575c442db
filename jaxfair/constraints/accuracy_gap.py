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
from typing import Any, Unpack

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair.constraints._groups import GroupOptions, check_tolerance, group_problem
from jaxfair.constraints.problem import Problem, Reference


def accuracy_gap(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    tolerance: ArrayLike,
    margin: ArrayLike = 0.5,
    **options: Unpack[GroupOptions],
) -> Problem:
    r"""The problem that bounds every group's own loss of accuracy.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      tolerance: :math:`\epsilon` in ``[0, 1]``, as a share of 1.
      margin: the multipliers see the tolerance times this.
      **options: ``loss``, ``memory``, ``proxy``, ``constrained``, ``start``, ``weight_decay`` and ``decayed``, see
        :func:`group_problem`.

    Returns:
      A :class:`Problem` with G constraints. It recommends the plain :func:`lagrangian`.

    Raises:
      ValueError: for an unknown word, or a tolerance, margin or start out of range.

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
    check_tolerance(tolerance, margin)

    def strict(accuracy: Float[Array, " G"], observed: Bool[Array, " G"], ref: Reference) -> Float[Array, " G"]:
        return jnp.where(observed, ref.group_accuracy - accuracy, 0.0)

    def surrogate(group_loss: Float[Array, " G"], mean_loss: Float[Array, ""], ref: Reference) -> Float[Array, " G"]:
        del mean_loss
        return group_loss - ref.group_loss

    return group_problem(
        apply,
        num_groups=num_groups,
        strict=strict,
        surrogate=surrogate,
        bound=jnp.asarray(margin) * jnp.asarray(tolerance),
        **options,
    )
