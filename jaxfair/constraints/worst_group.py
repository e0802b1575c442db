r"""The worst group's loss as a game: weights on a simplex against the network. Group DRO for every optimizer.

.. math:: \min_\theta \max_{q \in \Delta} \; \sum_g q_g L_g(\theta) + s\, L(\theta)

A problem whose constraints are the groups' losses and whose loss is 0 (or a share s of the mean): with the formulation
:func:`softmax`, ``dual=optax.sgd(eta)`` and the order ``"dual_primal"`` it is the published Group DRO, step for step,
and that of :func:`jaxfair.robust.group_dro`. As a game it takes any optimizer of `jaxfair.optim` (``joint=``), which
the published form does not.

How this differs from the authors' code: the adjustment of small groups moves q only; there it enters the reported
losses, too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxfair.constraints._numbers import check_count, check_number, check_shape
from jaxfair.constraints._objective import make_forward
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.formulations import Formulation, Project, lagrangian
from jaxfair.constraints.losses import Loss, cross_entropy
from jaxfair.constraints.problem import Aux, Carry, Outcomes, Problem, group_losses
from jaxfair.tree import copied
from jaxfair.typing import Batch, ModelState, Params


def softmax() -> Formulation:
    r"""Weights on a simplex: no constraint is to hold, the largest is to be small.

    .. math:: w = q = \mathrm{softmax}(\lambda), \qquad \ell = q v

    With multipliers of free sign (``equality=True``) and gradient ascent of rate :math:`\eta` on them, q moves by
    exponentiated gradients, :math:`q_k \propto q_k e^{\eta v_k}`: with group losses for v that is Group DRO, see
    :func:`worst_group`. A constant added to all multipliers changes nothing.

    Example:
      >>> softmax().weights(jnp.array([5.0, 5.0]), jnp.zeros(2), (), lambda rows: rows)
      Array([0.5, 0.5], dtype=float32)

    References:
      Sagawa et al., `Distributionally robust neural networks for group shifts
      <https://arxiv.org/abs/1911.08731>`_, 2020.
    """

    def weights(
        multipliers: Float[Array, " R"],
        strict: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        del strict, penalties, project
        return jax.nn.softmax(multipliers)

    def value(
        multipliers: Float[Array, " R"],
        violation: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        return weights(multipliers, violation, penalties, project) * violation

    return lagrangian()._replace(value=value, weights=weights, needs_all=True)


def worst_group(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    adjustment: ArrayLike = 0.0,
    mean_share: ArrayLike = 0.0,
    loss: Loss = cross_entropy,
    weight_decay: ArrayLike = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
) -> Problem:
    r"""The problem of the worst group's loss for a model.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      adjustment: added to what moves the weights, one number or ``[G]``, such as :math:`C / \sqrt{n_g}`: small groups
        are then held to a lower training loss.
      mean_share: s, at least 0: how much the mean loss counts beside the worst group's.
      loss: of one example, ``loss(logits [B, C], batch) -> [B]``.
      weight_decay: adds ``weight_decay / 2 * |params|^2`` to the loss.
      decayed: which leaves the decay speaks of, by path.

    Returns:
      A :class:`Problem` with one row per group, observed where the batch has somebody of it, and the formulation
      :func:`softmax`. Its ``init(model_state, outcomes=None, batch=None)`` needs no reference model, and no split.

    Raises:
      ValueError: for numbers out of range, unless traced.

    Example:
      Two groups want another number each; the worse one is served until both are as badly off:

      >>> import optax
      >>> from jaxfair import constraints
      >>> def apply(params, state, x, *, train, key=None):
      ...     return jnp.tile(params, (len(x), 1)), state
      >>> distance = lambda logits, batch: jnp.where(batch.y == 0, 1.0, 4.0) * (logits[:, 0] - batch.y) ** 2
      >>> problem = constraints.worst_group(apply, num_groups=2, loss=distance)
      >>> solver = constraints.solver(problem, primal=optax.sgd(0.01), dual=optax.sgd(0.01))
      >>> two = jnp.arange(2)
      >>> batch = Batch(jnp.zeros((2, 1)), two, two, two, jnp.ones(2))
      >>> start = solver.init(jnp.zeros(2), problem.init({}))
      >>> state, info = jax.lax.scan(lambda s, _: solver.step(s, batch), start, length=20_000)
      >>> print(np.asarray(state.params[0]).round(3), np.asarray(jax.nn.softmax(state.multipliers)).round(3))
      0.667 [0.667 0.333]

    References:
      Sagawa et al., `Distributionally robust neural networks for group shifts
      <https://arxiv.org/abs/1911.08731>`_, 2020.
    """
    check_count("num_groups", num_groups)
    check_shape("adjustment", adjustment, num_groups, "groups")
    for name, value in (("adjustment", adjustment), ("mean_share", mean_share)):
        check_number(value, lambda v: (v >= 0) & np.isfinite(v), f"{name}={value}: give numbers of at least 0.")
    forward = make_forward(apply, loss=loss, weight_decay=weight_decay, decayed=decayed)

    def init(model_state: ModelState, outcomes: Outcomes | None = None, batch: Batch | None = None) -> Carry:
        del outcomes, batch
        return Carry(copied(model_state), memory=(), reference=(), step=jnp.zeros((), jnp.int32))

    def evaluate(params: Params, carry: Carry, batch: Batch, key: Any) -> Evaluation:
        found = forward(params, carry.model_state, batch, key)
        of_group, seen = group_losses(found.losses, batch, jnp.ones(num_groups), "batch")
        return Evaluation(
            loss=jnp.asarray(mean_share) * found.mean + (found.objective - found.mean),
            proxy=of_group,
            strict=of_group + jnp.asarray(adjustment, of_group.dtype),
            proxy_observed=seen,
            strict_observed=seen,
            carry=Carry(found.model_state, carry.memory, carry.reference, carry.step + 1),
            aux=Aux(found.correct, of_group),
        )

    return Problem(num_groups, True, init, evaluate, softmax())
