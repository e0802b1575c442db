"""A constrained training problem, and what it is made from: outcomes of a model, and the reference they give."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num

from jaxfair import metrics
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
      prevalence: ``[G]``, each group's share of the split; sums to 1.
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


def outcomes(logits: Float[Array, "N C"], y: Num[Array, " N"], weight: Num[Array, " N"] | None = None) -> Outcomes:
    """Correctness (`metrics.correct`) and cross entropy of every example, in float32.

    Args:
      logits: ``[N, C]``. A row that is not finite is right about nobody.
      y: ``[N]`` integer classes.
      weight: ``[N]``, 0 for padding, whose outcomes are 0 then.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> result = outcomes(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1]))
      >>> result.correct, result.loss.round(3)
      (Array([1., 0.], dtype=float32), Array([0.127, 0.693], dtype=float32))
    """
    correct = metrics.correct(logits, y).astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), y)
    if weight is not None:
        # where, not a product: padding may hold anything, and 0 * inf is not 0.
        correct, loss = jnp.where(weight > 0, correct, 0.0), jnp.where(weight > 0, loss, 0.0)
    return Outcomes(correct, loss)


def reference(outcomes: Outcomes, group: Int[Array, " N"], weight: Num[Array, " N"], num_groups: int) -> Reference:
    r"""The dense model's accuracy and loss, over all and by group, on the split that the constraints speak of.

    Args:
      outcomes: ``[N]`` each.
      group: ``[N]``.
      weight: ``[N]``.
      num_groups: G.

    Example:
      >>> import jax.numpy as jnp
      >>> out = Outcomes(correct=jnp.array([1.0, 0.0, 1.0, 1.0]), loss=jnp.array([0.5, 1.0, 0.0, 0.0]))
      >>> ref = reference(out, jnp.array([0, 0, 1, 1]), jnp.ones(4), 2)
      >>> ref.group_accuracy, ref.prevalence
      (Array([0.5, 1. ], dtype=float32), Array([0.5, 0.5], dtype=float32))
    """
    weight = weight.astype(jnp.float32)

    def sums(values: Float[Array, " N"]) -> Float[Array, " G"]:
        return jnp.zeros(num_groups).at[group].add(values)

    counts = sums(weight)
    total = jnp.sum(weight)
    some = jnp.where(counts > 0, counts, 1.0)
    return Reference(
        accuracy=jnp.sum(weight * outcomes.correct) / total,
        group_accuracy=sums(weight * outcomes.correct) / some,
        loss=jnp.sum(weight * outcomes.loss) / total,
        group_loss=sums(weight * outcomes.loss) / some,
        prevalence=counts / total,
    )


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
    group, weight = jnp.asarray(batch.group), jnp.asarray(batch.weight)
    num_groups = prevalence.shape[0]
    sums = jnp.zeros(num_groups).at[group].add(weight * losses)
    if estimator == "prevalence":
        expected = jnp.sum(weight) * prevalence
        seen = prevalence > 0
    else:
        expected = jnp.zeros(num_groups).at[group].add(weight)
        seen = expected > 0
    return sums / jnp.where(seen, expected, 1.0), seen
