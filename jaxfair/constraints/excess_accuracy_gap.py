r"""CEAG: no group may lose more accuracy than the average does, by more than a tolerance.

.. math::

   \min_\theta L(\theta) \quad \text{subject to} \quad
   \psi_g = [A_g(d) - A_g(\theta)] - [A(d) - A(\theta)] \le \epsilon \quad \text{for every group } g

with :math:`A` the accuracy on the training split and :math:`d` the dense model. Accuracy has no gradient, so the
multipliers see :math:`\psi_g` and the weights see the same expression in cross entropy,
:math:`\tilde\psi_g = [L_g(\theta) - L_g(d)] - [L(\theta) - L(d)]`.

==========================  ==========================================================
paper                       here
==========================  ==========================================================
:math:`\epsilon`            ``tolerance``; the multipliers see ``margin * tolerance``
:math:`\psi_g - \epsilon`   ``Evaluation.strict``
:math:`\tilde\psi_g`        ``Evaluation.proxy`` (with the tolerance taken off)
replay buffer of size k     ``memory=replay_buffer(G, k)``
==========================  ==========================================================

A step on this problem trains on a re-weighted cross entropy. With weights :math:`w_g` from the formulation, an
example of group g counts :math:`(1 - \sum_k w_k)/B + w_g/(B p_g)` (``proxy="prevalence"``) or
:math:`(1 - \sum_{k \in \text{batch}} w_k)/B + w_g/n_g` (``proxy="batch"``).

How this differs from the authors' code: the switches that they fixed are arguments. By default the estimate is free of
sampling noise and of the offset that the unweighted mean brings, and training aims at half the tolerance. How fast the
multipliers move is up to the dual optimizer: :func:`jaxfair.recipes.ceag` has a rule for it. Their settings are
:func:`published_excess_accuracy_gap`.
"""

from collections.abc import Callable
from typing import Any, Unpack

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair.constraints._groups import (
    GroupOptions,
    average_shares,
    check_tolerance,
    difference_error,
    group_problem,
    weighted_average,
)
from jaxfair.constraints._numbers import check_word
from jaxfair.constraints.formulations import normalized_lagrangian
from jaxfair.constraints.problem import Problem, Reference


def excess_accuracy_gap(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    tolerance: ArrayLike,
    mean: str = "prevalence",
    margin: ArrayLike = 0.5,
    **options: Unpack[GroupOptions],
) -> Problem:
    r"""The problem of CEAG for a model.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      tolerance: :math:`\epsilon` in ``[0, 1]``, as a share of 1: 0.01 is one point of accuracy.
      mean: of the average accuracy of the sparse model. ``"prevalence"`` weighs groups by their share of the training
        split, as the dense model's average does, so that equal models have :math:`\psi = 0`. ``"uniform"`` gives every
        group the same weight and so adds :math:`\mathrm{mean}_g A_g - A` to every gap: on unbalanced data an unharmed
        network already violates.
      margin: the multipliers see the tolerance times this. Below 1, the network is trained to a tighter bound than it
        is judged by, since estimates lag and what is delivered moves around the bound.
      **options: ``loss``, ``memory``, ``proxy``, ``constrained``, ``start``, ``weight_decay`` and ``decayed``, see
        :func:`group_problem`.

    Returns:
      A :class:`Problem` with G constraints. It recommends :func:`normalized_lagrangian`. To bound :math:`-\psi_g` as
      well, see :func:`two_sided`.

    Raises:
      ValueError: for an unknown word, or a tolerance, margin or start out of range.

    Example:
      Two groups, a model that is wrong about group 1 where the dense one was right:

      >>> import jax.numpy as jnp, numpy as np
      >>> from jaxfair import constraints
      >>> from jaxfair.typing import Batch
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x * params, state
      >>> x = jnp.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
      >>> batch = Batch(x, jnp.zeros(4, jnp.int32), jnp.array([0, 0, 0, 1]), jnp.arange(4), jnp.ones(4))
      >>> dense = constraints.Outcomes(correct=jnp.ones(4), loss=jnp.zeros(4))
      >>> problem = constraints.excess_accuracy_gap(apply, num_groups=2, tolerance=0.1)
      >>> problem.evaluate(jnp.ones(()), problem.init({}, dense, batch), batch, None).strict
      Array([-0.3,  0.7], dtype=float32)

    References:
      Hashemizadeh et al., `Balancing Act: Constraining Disparate Impact in Sparse Models
      <https://arxiv.org/abs/2310.20673>`_, 2024.
    """
    check_word("mean", mean, ("prevalence", "uniform"))
    check_tolerance(tolerance, margin)

    def strict(accuracy: Float[Array, " G"], observed: Bool[Array, " G"], ref: Reference) -> Float[Array, " G"]:
        gap = jnp.where(observed, ref.group_accuracy - accuracy, 0.0)
        if mean == "prevalence":
            # Over the observed groups on both sides, so that the average is one of the same people.
            return gap - weighted_average(gap, average_shares(observed, ref.prevalence, mean))
        sparse = jnp.sum(jnp.where(observed, accuracy, 0.0)) / jnp.maximum(jnp.sum(observed), 1)
        return gap - (ref.accuracy - sparse)

    def surrogate(group_loss: Float[Array, " G"], mean_loss: Float[Array, ""], ref: Reference) -> Float[Array, " G"]:
        return (group_loss - ref.group_loss) - (mean_loss - ref.loss)

    return group_problem(
        apply,
        num_groups=num_groups,
        strict=strict,
        surrogate=surrogate,
        error=lambda errors, observed, ref: difference_error(
            errors, observed, average_shares(observed, ref.prevalence, mean)
        ),
        bound=jnp.asarray(margin) * jnp.asarray(tolerance),
        formulation=normalized_lagrangian(),
        **options,
    )
