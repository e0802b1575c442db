"""A constrained training problem, and what it is made from: outcomes of a model, and the reference they give."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from jaxfair import metrics
from jaxfair.constraints._people import (
    as_float,
    check_classes,
    check_logits,
    finite,
    ids,
    labelled,
    ratio,
    sums_by_group,
)
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.formulations import Formulation, lagrangian
from jaxfair.constraints.multipliers import Multipliers
from jaxfair.typing import Batch, ModelState, Params


class Outcomes(NamedTuple):
    """How a model did on every example of a split.

    Attributes:
      correct: ``[N]`` float32, 1 where the predicted class is the true one.
      loss: ``[N]`` float32 cross entropy, or the loss that the problem was given.

    Example:
      >>> import jax.numpy as jnp
      >>> Outcomes(correct=jnp.array([1.0, 0.0]), loss=jnp.array([0.1, 2.0])).correct.mean()
      Array(0.5, dtype=float32)
    """

    correct: jax.Array
    loss: jax.Array


class Reference(NamedTuple):
    """What the dense model reached on the training split; constants of the constraints. Made by :func:`reference`.

    Attributes:
      accuracy: scalar, over all examples.
      group_accuracy: ``[G]``; 0 for a group without an example.
      loss: scalar mean cross entropy.
      group_loss: ``[G]``.
      prevalence: ``[G]``, each group's share of the split; sums to 1 where everybody has a group.
    """

    accuracy: jax.Array
    group_accuracy: jax.Array
    loss: jax.Array
    group_loss: jax.Array
    prevalence: jax.Array


class Carry(NamedTuple):
    """What a problem's ``evaluate`` carries.

    Attributes:
      model_state: the network's, such as BatchNorm statistics.
      memory: the memory's state; ``()`` where there is none.
      reference: constants of the dense model, a :class:`Reference`; ``()`` where there is nothing to compare with.
      step: scalar int32, evaluations so far.
    """

    model_state: ModelState
    memory: Any
    reference: Any
    step: jax.Array


class Aux(NamedTuple):
    """What a problem lets you look at in ``Info.aux``.

    Attributes:
      correct: ``[B]`` float32 train-mode outcomes of the batch, before the step.
      estimate: ``[G]``, the memory's mean outcome of each group (accuracy or loss); 0 where unobserved.
    """

    correct: jax.Array
    estimate: jax.Array


class Problem(NamedTuple):
    """A constrained training problem, made from a model. :func:`solver` takes from it all that it says.

    Attributes:
      num_constraints: K.
      equality: whether the constraints are equalities: one bool for all, or ``[K]``.
      init: ``init(model_state, outcomes, batch) -> carry`` before the first step, from the :class:`Outcomes` of the
        dense model on the whole training split ``batch``.
      evaluate: ``evaluate(params, carry, batch, key) -> Evaluation``.
      formulation: the recommended one.
      multipliers: where they live; None is ``dense(num_constraints, equality=equality)``.
      bound: what was taken off the constrained quantities, so that ``strict + bound`` is the quantity itself.

    Example:
      A problem of one's own, x² subject to x = 1:

      >>> import jax, jax.numpy as jnp, optax
      >>> from jaxfair import constraints
      >>> def evaluate(params, carry, batch, key):
      ...     h = params[None] - 1.0
      ...     return constraints.Evaluation(loss=params**2, proxy=h, strict=h)
      >>> problem = constraints.Problem(1, equality=True, init=lambda *_: (), evaluate=evaluate)
      >>> solver = constraints.solver(problem, primal=optax.sgd(0.1), dual=optax.sgd(0.5))
      >>> state, _ = jax.lax.scan(lambda s, _: solver.step(s), solver.init(jnp.zeros(())), length=100)
      >>> round(float(state.params), 3), round(float(state.multipliers[0]), 3)
      (1.0, -2.0)
    """

    num_constraints: int
    equality: bool | np.ndarray
    init: Callable[..., Any]
    evaluate: Callable[[Params, Any, Any, Any], Evaluation]
    formulation: Formulation = lagrangian()
    multipliers: Multipliers | None = None
    bound: ArrayLike = 0.0


def outcomes(
    logits: Float[ArrayLike, "N C"], y: Shaped[ArrayLike, "..."], weight: Shaped[ArrayLike, "..."] | None = None
) -> Outcomes:
    """Correctness (`metrics.correct`) and cross entropy of every example, in float32.

    Args:
      logits: ``[N, C]``. A row that is not finite is right about nobody.
      y: ``[N]`` integer classes. An example whose class is none of the C is never right, and has a loss of 0.
      weight: ``[N]``, 0 for padding, whose outcomes are 0 then.

    Raises:
      ValueError: for shapes that do not fit, and for two classes that are called -1 and 1.

    Example:
      >>> import jax.numpy as jnp
      >>> result = outcomes(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1]))
      >>> result.correct, result.loss.round(3)
      (Array([1., 0.], dtype=float32), Array([0.127, 0.693], dtype=float32))
    """
    known: Any = jnp.asarray(logits)
    check_logits(known, y)
    correct = metrics.correct(known, y).astype(jnp.float32)
    check_classes(y, known.shape[1])
    loss = optax.softmax_cross_entropy_with_integer_labels(known.astype(jnp.float32), jnp.asarray(y))
    loss = jnp.where(labelled(y, known.shape[1]), loss, 0.0)
    if weight is not None:
        if jnp.shape(weight) != correct.shape:
            raise ValueError(f"weight has shape {jnp.shape(weight)} for classes of shape {correct.shape}: give [N].")
        # where, not a product: padding may hold anything, and 0 * inf is not 0.
        there = jnp.asarray(weight) > 0
        correct, loss = jnp.where(there, correct, 0.0), jnp.where(there, loss, 0.0)
    return Outcomes(correct, loss)


def reference(
    outcomes: Outcomes, group: Shaped[ArrayLike, "..."], weight: Shaped[ArrayLike, "..."], num_groups: int
) -> Reference:
    r"""The dense model's accuracy and loss, over all and by group, on the split that the constraints speak of.

    Args:
      outcomes: ``[N]`` each. A loss that is not finite is left out of the means of losses.
      group: ``[N]``. Whose group is none of the G counts in the means over everybody only, and so in the denominator of
        the groups' shares, which then sum to less than 1.
      weight: ``[N]``.
      num_groups: G.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> out = Outcomes(correct=jnp.array([1.0, 0.0, 1.0, 1.0]), loss=jnp.array([0.5, 1.0, 0.0, 0.0]))
      >>> ref = reference(out, jnp.array([0, 0, 1, 1]), jnp.ones(4), 2)
      >>> ref.group_accuracy, ref.prevalence
      (Array([0.5, 1. ], dtype=float32), Array([0.5, 0.5], dtype=float32))
    """
    weight = as_float(weight)
    at = ids("group", group, num_groups, weight.shape)

    def means(values: ArrayLike) -> tuple[Float[Array, ""], Float[Array, " G"]]:
        values, w = finite(values, weight)
        sums, counts = (sums_by_group(v, at, num_groups) for v in (w * values, w))
        return ratio(jnp.sum(w * values), jnp.sum(w)), ratio(sums, counts)

    (accuracy, group_accuracy), (loss, group_loss) = means(outcomes.correct), means(outcomes.loss)
    _, known = finite(weight, weight)
    sizes = sums_by_group(known, at, num_groups)
    prevalence = ratio(sizes, jnp.broadcast_to(jnp.sum(known), sizes.shape))
    return Reference(accuracy, group_accuracy, loss, group_loss, prevalence)


def group_losses(
    losses: Float[Array, " B"],
    batch: Batch,
    prevalence: Float[Array, " G"],
    estimator: str,
) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
    r"""The batch's estimate of every group's mean loss, differentiable, and which groups it speaks of.

    ``"batch"`` divides a group's sum of losses by its number in the batch, :math:`\sum_{i \in g} l_i / n_g`, for the
    groups that are present. ``"prevalence"`` divides by the number to be expected,
    :math:`\sum_{i \in g} l_i / (B p_g)`, for every group: it is unbiased, an absent group counts as 0, and an
    example's weight does not depend on who else happens to be in the batch.

    Args:
      losses: ``[B]``.
      batch: of which ``group`` and ``weight`` are read.
      prevalence: ``[G]``, the groups' shares of the split.
      estimator: ``"batch"`` or ``"prevalence"``.

    Example:
      Two people, one of group 0, where one in four is expected to be:

      >>> batch = Batch(None, None, jnp.array([0, 1]), None, jnp.ones(2))
      >>> losses, share = jnp.array([1.0, 1.5]), jnp.array([0.25, 0.75])
      >>> group_losses(losses, batch, share, "prevalence")[0]
      Array([2., 1.], dtype=float32)
      >>> group_losses(losses, batch, share, "batch")[0]
      Array([1. , 1.5], dtype=float32)
    """
    weight, num_groups = as_float(batch.weight), prevalence.shape[0]
    if jnp.shape(losses) != weight.shape:
        raise ValueError(
            f"losses have shape {jnp.shape(losses)} beside weights of shape {weight.shape}: give [B] each."
        )
    group = ids("group", batch.group, num_groups, weight.shape)
    # where, not a product: padding may hold anything, and 0 * inf is not 0.
    sums = sums_by_group(weight * jnp.where(weight > 0, losses, 0.0), group, num_groups)
    if estimator == "prevalence":
        expected = jnp.sum(weight) * prevalence
    else:
        expected = sums_by_group(weight, group, num_groups)
    seen = expected > 0
    return sums / jnp.where(seen, expected, 1.0), seen
