r"""One maker for the problems that compare groups: what they share, so that each of them is its two formulas.

A step evaluates, in one forward pass,

.. math::

   \mathrm{strict}_g = s_g(\hat e) - b \qquad \mathrm{proxy}_g = \sigma_g(L_1, \ldots, L_G, L) - b

with :math:`\hat e` what a memory knows of every group's outcomes (accuracy, or loss), :math:`L_g` the batch's estimate
of the group's loss, L its mean loss, and b a bound. A problem says s and :math:`\sigma`; the forward pass, the memory,
the reference, the masks and the numbers stand here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair.constraints._numbers import check_count, check_made, check_number, check_shape, check_word
from jaxfair.constraints._objective import Forward, make_forward
from jaxfair.constraints._people import as_float, check_weights
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.example_memory import example_memory
from jaxfair.constraints.formulations import Formulation, lagrangian
from jaxfair.constraints.losses import Loss, cross_entropy
from jaxfair.constraints.memories import Memory
from jaxfair.constraints.problem import (
    Aux,
    Carry,
    Outcomes,
    Problem,
    Reference,
    group_losses,
    reference,
)
from jaxfair.tree import copied
from jaxfair.typing import Batch, ModelState, Params

#: ``strict(estimate [G], observed [G], reference) -> [G]``.
Strict: TypeAlias = Callable[[jax.Array, jax.Array, Reference], jax.Array]
#: ``surrogate(group_loss [G], mean_loss, reference) -> [G]``.
Surrogate: TypeAlias = Callable[[jax.Array, jax.Array, Reference], jax.Array]
#: ``estimator(losses [B], batch, prevalence [G]) -> (group_loss [G], seen [G])``.
Estimator: TypeAlias = Callable[..., tuple[jax.Array, jax.Array]]
#: ``look(forward, batch, reference) -> (outcomes [B], losses [B], mean_loss)``.
Look: TypeAlias = Callable[[Forward, Batch, Any], tuple[jax.Array, jax.Array, jax.Array]]


class GroupOptions(TypedDict, total=False):
    """What every problem of groups may be told beside its own numbers; the defaults stand in :func:`group_problem`."""

    loss: Loss
    memory: Memory | None
    proxy: str | Estimator
    proxy_loss: Loss | None
    constrained: ArrayLike | Sequence[bool] | None
    start: ArrayLike
    weight_decay: ArrayLike
    decayed: Callable[[str], bool]


def group_problem(
    apply: Callable[..., Any],
    *,
    num_groups: int,
    strict: Strict,
    surrogate: Surrogate,
    remember: str | Look = "correct",
    error: Callable[[jax.Array, jax.Array, Reference], jax.Array] = lambda e, observed, ref: e,
    bound: ArrayLike = 0.0,
    equality: bool = False,
    formulation: Formulation | None = None,
    loss: Loss = cross_entropy,
    memory: Memory | None = None,
    proxy: str | Estimator = "prevalence",
    proxy_loss: Loss | None = None,
    constrained: ArrayLike | Sequence[bool] | None = None,
    start: ArrayLike = 0,
    weight_decay: ArrayLike = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
) -> Problem:
    r"""A problem with one constraint per group, from the formulas of its two sides. All its numbers may be traced.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``.
      num_groups: G.
      strict: ``strict(estimate [G], observed [G], reference) -> [G]``, what is bounded, of the memory's means.
        Unobserved groups have the estimate 0, and what is said of them is not looked at.
      surrogate: ``surrogate(group_loss [G], mean_loss, reference) -> [G]``, the same in losses, differentiable.
      remember: ``"correct"`` or ``"loss"``, the outcome that the memory is fed. Or a function ``(forward, batch,
        reference) -> (outcome [B], losses [B], mean_loss)``, where the constraints are about something else than the
        true classes: the proxies are then made of these losses, and the problem is given an ``init`` of its own.
      error: ``error(standard_errors [G], observed [G], reference) -> [G]``, those of ``strict``.
      bound: b, taken off both sides; scalar or ``[G]``.
      equality: whether the constraints are equalities.
      formulation: the recommended one; :func:`lagrangian` by default.
      loss: of one example, see :mod:`losses`: the objective is its mean, and the proxies are made of it.
      proxy_loss: what the proxies are made of in place of it: of distillation, say, the cross entropy, since the bound
        is on what is right and not on what a teacher says. The outcomes of the reference are those of this loss.
      memory: where the estimates come from; :func:`example_memory` by default.
      proxy: how the batch estimates a group's loss: ``"prevalence"`` or ``"batch"``, see :func:`group_losses`, or a
        function ``(losses [B], batch, prevalence [G]) -> (group_loss [G], seen [G])``.
      constrained: ``[G]`` bool, the groups that have a constraint. All by default.
      start: the first step at which the constraints are observed and the memory is fed.
      weight_decay: adds ``weight_decay / 2 * |params|^2`` to the loss. 0 where the optimizer does it.
      decayed: which leaves the decay speaks of, by path; all by default, BatchNorm and biases included.

    Returns:
      A :class:`Problem` with G constraints.

    Raises:
      TypeError: for a memory or formulation that was not called.
      ValueError: for an unknown word, a mask that is not one bool per group, or numbers out of range, unless traced.

    Example:
      The excess accuracy gap without a gradient through the average loss:

      >>> import jax, jax.numpy as jnp
      >>> from jaxfair import constraints
      >>> def strict(accuracy, observed, ref):
      ...     gap = jnp.where(observed, ref.group_accuracy - accuracy, 0.0)
      ...     return gap - jnp.sum(ref.prevalence * gap)
      >>> def surrogate(group_loss, mean_loss, ref):
      ...     return (group_loss - ref.group_loss) - (jax.lax.stop_gradient(mean_loss) - ref.loss)
      >>> problem = constraints.group_problem(lambda p, s, x, **_: (x * p, s), num_groups=2, bound=0.25,
      ...                                     strict=strict, surrogate=surrogate)
      >>> x = jnp.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
      >>> batch = Batch(x, jnp.zeros(4, jnp.int32), jnp.array([0, 0, 0, 1]), jnp.arange(4), jnp.ones(4))
      >>> dense = constraints.Outcomes(correct=jnp.ones(4), loss=jnp.zeros(4))
      >>> problem.evaluate(jnp.ones(()), problem.init({}, dense, batch), batch, None).strict
      Array([-0.5,  0.5], dtype=float32)
    """
    if not callable(proxy):
        check_word("proxy", proxy, ("prevalence", "batch"))
    check_count("num_groups", num_groups)
    check_count("start", start, low=0)
    check_shape("bound", bound, num_groups, "groups")
    memory = example_memory(num_groups) if memory is None else memory
    formulation = lagrangian() if formulation is None else formulation
    check_made("memory", memory, Memory)
    bounded = _mask(constrained, num_groups)
    estimator = proxy if callable(proxy) else partial(group_losses, estimator=proxy)
    forward = make_forward(apply, loss=loss, weight_decay=weight_decay, decayed=decayed)
    look = remember if callable(remember) else _own(remember, loss if proxy_loss is None else proxy_loss)

    def evaluate(params: Params, carry: Carry, batch: Batch, key: Any) -> Evaluation:
        ref = carry.reference
        found = forward(params, carry.model_state, batch, key)

        active = carry.step >= start
        fed = batch._replace(weight=jnp.where(active, as_float(batch.weight), 0.0))
        outcome, losses, mean = look(found, batch, ref)
        remembered = memory.push(carry.memory, fed, outcome)
        estimate, observed = memory.group_means(remembered)
        if estimate.shape != (num_groups,):
            raise ValueError(
                f"memory= has means of shape {estimate.shape} for num_groups={num_groups}: make it of as many groups."
            )
        group_loss, seen = estimator(losses, batch, ref.prevalence)
        return Evaluation(
            loss=found.objective,
            proxy=surrogate(group_loss, mean, ref) - bound,
            strict=strict(estimate, observed, ref) - bound,
            proxy_observed=seen & bounded,
            strict_observed=observed & active & bounded,
            carry=Carry(found.model_state, remembered, ref, carry.step + 1),
            aux=Aux(found.correct, estimate),
            strict_error=error(memory.standard_errors(remembered), observed, ref),
        )

    return Problem(
        num_constraints=num_groups,
        equality=equality,
        init=_make_init(memory, num_groups, str(remember)),
        evaluate=evaluate,
        formulation=formulation,
        bound=bound,
    )


def _own(remember: str, loss: Loss) -> Look:
    """The outcome that is remembered, and the losses that the proxies are made of, with their mean."""
    return lambda found, batch, ref: (found.correct if remember == "correct" else found.losses, *found.of(loss))


def _mask(constrained: ArrayLike | Sequence[bool] | None, num_groups: int) -> jax.Array:
    """``[G]`` bool. A list of group numbers is not taken for a mask."""
    if constrained is None:
        return jnp.ones(num_groups, bool)
    mask = jnp.asarray(constrained if isinstance(constrained, jax.Array) else np.asarray(constrained))
    if mask.dtype != jnp.bool_ or mask.shape != (num_groups,):
        raise ValueError(
            f"constrained has dtype {mask.dtype} and shape {mask.shape}: "
            f"give one bool for each of the {num_groups} groups."
        )
    return mask


def _make_init(memory: Memory, num_groups: int, remember: str) -> Callable[[ModelState, Outcomes | None, Batch], Carry]:
    """``Problem.init`` for a memory of ``"correct"`` or ``"loss"``."""

    def init(model_state: ModelState, outcomes: Outcomes | None, batch: Batch) -> Carry:
        if outcomes is None:
            raise ValueError(
                "outcomes=None: this problem compares groups with what a reference model did; "
                "give the constraints.outcomes of one on the training split."
            )
        check_weights(batch.weight)
        return Carry(
            model_state=copied(model_state),
            memory=copied(memory.init(batch.group, outcomes._asdict()[remember], batch.weight)),
            reference=reference(outcomes, batch.group, batch.weight, num_groups),
            step=jnp.zeros((), jnp.int32),
        )

    return init


def average_shares(observed: Bool[Array, " G"], prevalence: Float[Array, " G"], mean: str) -> Float[Array, " G"]:
    """The weights of the observed groups in an average over groups; 0 for the others. They need not sum to 1."""
    return jnp.where(observed, prevalence if mean == "prevalence" else 1.0, 0.0)


def weighted_average(values: Float[Array, " G"], share: Float[Array, " G"]) -> Float[Array, ""]:
    """The mean of values by shares that need not sum to 1; 0 without any."""
    return jnp.sum(share * values) / jnp.maximum(jnp.sum(share), 1e-12)


def difference_error(
    errors: Float[Array, " G"], observed: Bool[Array, " G"], share: Float[Array, " G"]
) -> Float[Array, " G"]:
    r"""Standard errors of :math:`A_g - \sum_h s_h A_h`, groups being independent and shares s made to sum to 1.

    .. math:: (1 - s_g)^2 e_g^2 + \sum_{h \ne g} s_h^2 e_h^2

    The dense model's accuracies are constants of the training split here. What is right for both models or wrong for
    both is not set off, so this is an upper limit.
    """
    known = observed & jnp.isfinite(errors)
    own = jnp.where(known, errors, 0.0)
    total = jnp.maximum(jnp.sum(share), 1e-12)
    variance = (_others(share) / total * own) ** 2 + _others((share / total * own) ** 2)
    return jnp.where(known, jnp.sqrt(variance), jnp.inf)


def _others(values: Float[Array, " G"]) -> Float[Array, " G"]:
    """The sum of all others, without a subtraction: next to a group of almost everybody nothing would be left."""
    nobody = jnp.zeros_like(values[:1])
    before = jnp.concatenate([nobody, jnp.cumsum(values)[:-1]])
    after = jnp.concatenate([jnp.cumsum(values[::-1])[:-1][::-1], nobody])
    return before + after


def check_tolerance(tolerance: ArrayLike, margin: ArrayLike) -> None:
    """Raises for a tolerance that is no share of people, or a margin below 0."""
    check_number(
        tolerance,
        lambda t: (t >= 0) & (t <= 1) & (t.dtype != bool),
        f"tolerance={tolerance}: it bounds a loss of accuracy as a share of 1, "
        "so give a number between 0 and 1, such as 0.01 for one point.",
    )
    check_number(margin, lambda m: (m >= 0) & np.isfinite(m), f"margin={margin}: give a number of at least 0.")
