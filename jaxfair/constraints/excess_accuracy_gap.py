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

How this differs from the authors' code: the switches that they fixed are arguments. With ``mode="recipe"``, the
default, the estimate is free of sampling noise and of the offset that the unweighted mean brings, and training
aims at half the tolerance; use it with :func:`normalized_lagrangian` and a dual rate of 1 / (steps of an epoch), for
what the multipliers see lags by half an epoch. With ``mode="published"`` every switch is as
in their code, and these of its defects are left out: weight decay that reached the last layer only and entered
the constraint, model selection on the test split.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

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
from jaxfair.constraints.replay_buffer import replay_buffer
from jaxfair.typing import Batch, Params

#: The size of the published replay buffers.
PUBLISHED_BUFFER = 40


def excess_accuracy_gap(
    apply: Callable,
    *,
    num_groups: int,
    tolerance: float,
    mode: str = "recipe",
    memory: Memory | None = None,
    mean: str | None = None,
    proxy: str | None = None,
    margin: float | None = None,
    detach_average: bool = False,
    two_sided: bool = False,
    constrained: np.ndarray | None = None,
    start: int = 0,
    weight_decay: float = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
) -> Problem:
    r"""The problem of CEAG for a model.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      tolerance: :math:`\epsilon \ge 0`, as a share of 1: 0.01 is one point of accuracy.
      mode: ``"recipe"`` or ``"published"``: what the four switches below are where they are not given.

        ============  ===================  =======================
        switch        recipe               published
        ============  ===================  =======================
        ``memory``    example_memory       replay_buffer, size 40
        ``mean``      prevalence           uniform
        ``proxy``     prevalence           batch
        ``margin``    0.5                  1
        ============  ===================  =======================

      memory: where the estimates of the groups' accuracies come from.
      mean: of the average accuracy of the sparse model. ``"prevalence"`` weighs groups by their share of the training
        split, as the dense model's average does, so that equal models have :math:`\psi = 0`. ``"uniform"`` gives every
        group the same weight and so adds :math:`\mathrm{mean}_g A_g - A` to every gap: on unbalanced data an unharmed
        network already violates.
      proxy: see :func:`~jaxfair.constraints.problem.group_losses`: ``"prevalence"`` or ``"batch"``.
      margin: the multipliers see the tolerance times this. Below 1, the network is trained to a tighter bound than it
        is judged by, since estimates lag and what is delivered moves around the bound.
      detach_average: no gradient through the average loss in the proxy.
      two_sided: also bound :math:`-\psi_g \le \epsilon`; constraints ``G..2G-1``.
      constrained: ``[G]`` bool, the groups that have a bound. All by default.
      start: the first step at which the constraints are observed and the memory is fed; the paper starts
        after the last pruning step.
      weight_decay: adds ``weight_decay / 2 * |params|^2`` to the loss. 0 where the optimizer does it.
      decayed: which leaves the decay speaks of, by path; all by default, BatchNorm and biases included.

    Returns:
      A :class:`Problem` with G constraints (2G if two-sided).

    Raises:
      ValueError: for an unknown switch, or a negative tolerance, margin or start.

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
    check("mode", mode, ("recipe", "published"))
    published = mode == "published"
    if memory is None:
        memory = (
            replay_buffer(num_groups, PUBLISHED_BUFFER) if published else example_memory(num_groups)
        )
    mean = ("uniform" if published else "prevalence") if mean is None else mean
    proxy = ("batch" if published else "prevalence") if proxy is None else proxy
    margin = (1.0 if published else 0.5) if margin is None else margin
    check("mean", mean, ("prevalence", "uniform"))
    check("proxy", proxy, ("prevalence", "batch"))
    check_tolerance(tolerance)
    if not margin >= 0 or start < 0:
        raise ValueError(f"margin={margin}, start={start}: give numbers of at least 0.")
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
        if mean == "prevalence":
            # Over the observed groups on both sides, so that the average is one of the same people.
            share = jnp.where(observed, ref.prevalence, 0.0)
            average = jnp.sum(share * gap) / jnp.maximum(jnp.sum(share), 1e-12)
        else:
            average = ref.accuracy - jnp.sum(jnp.where(observed, accuracy, 0.0)) / jnp.maximum(
                jnp.sum(observed), 1
            )
        excess = gap - average
        error = difference_error(memory.standard_errors(remembered), observed, ref.prevalence, mean)

        group_loss, seen = group_losses(result.loss, batch, ref.prevalence, proxy)
        average_loss = jax.lax.stop_gradient(loss) if detach_average else loss
        surrogate = (group_loss - ref.group_loss) - (average_loss - ref.loss)

        observed = observed & active & jnp.asarray(bounded)
        seen = seen & jnp.asarray(bounded)
        strict, direction = excess - bound, surrogate - bound
        if two_sided:
            strict = jnp.concatenate([strict, -excess - bound])
            direction = jnp.concatenate([direction, -surrogate - bound])
            observed, seen, error = (jnp.tile(values, 2) for values in (observed, seen, error))
        if weight_decay:
            loss = loss + 0.5 * weight_decay * squared_norm(params, decayed)
        return Evaluation(
            loss=loss,
            proxy=direction,
            strict=strict,
            proxy_observed=seen,
            strict_observed=observed,
            carry=Carry(model_state, remembered, ref, carry.step + 1),
            aux=Aux(result.correct, accuracy),
            strict_error=error,
        )

    return Problem(
        num_constraints=2 * num_groups if two_sided else num_groups,
        equality=False,
        init=make_init(memory, num_groups, "correct"),
        evaluate=evaluate,
    )


def difference_error(
    errors: Float[Array, " G"],
    observed: Bool[Array, " G"],
    prevalence: Float[Array, " G"],
    mean: str,
) -> Float[Array, " G"]:
    r"""Standard errors of :math:`A_g - \sum_h s_h A_h`, groups being independent and shares s summing to 1.

    .. math:: (1 - s_g)^2 e_g^2 + \sum_{h \ne g} s_h^2 e_h^2 = (1 - 2 s_g) e_g^2 + \sum_h s_h^2 e_h^2

    The dense model's accuracies are constants of the training split here. What is right for both models or wrong for
    both is not set off, so this is an upper limit.
    """
    share = jnp.where(observed, prevalence if mean == "prevalence" else 1.0, 0.0)
    share = share / jnp.maximum(jnp.sum(share), 1e-12)
    squares = jnp.where(observed & jnp.isfinite(errors), errors, 0.0) ** 2
    variance = (1.0 - 2.0 * share) * squares + jnp.sum(share**2 * squares)
    return jnp.where(observed & jnp.isfinite(errors), jnp.sqrt(jnp.maximum(variance, 0.0)), jnp.inf)
