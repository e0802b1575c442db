"""The grammar that the accuracy and loss constraints share: outcomes, references, and one forward pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Num

from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.memories import Memory
from jaxfair.typing import Batch, ModelState, Params


class Outcomes(NamedTuple):
    """How a model did on every example of a split.

    Attributes:
      correct: ``[N]`` float32, 1 where the predicted class is the true one.
      loss: ``[N]`` float32 cross entropy.

    Example:
      >>> import jax.numpy as jnp
      >>> Outcomes(correct=jnp.array([1.0, 0.0]), loss=jnp.array([0.1, 2.0])).correct.mean()
      Array(0.5, dtype=float32)
    """

    correct: jax.Array
    loss: jax.Array


class Reference(NamedTuple):
    """What the dense model reached on the training split; constants of the constraints.

    Attributes:
      accuracy: scalar, over all examples.
      group_accuracy: ``[G]``; 0 for a group without an example.
      loss: scalar mean cross entropy.
      group_loss: ``[G]``.
      prevalence: ``[G]``, each group's share of the split; sums to 1.

    Example:
      >>> Reference._fields
      ('accuracy', 'group_accuracy', 'loss', 'group_loss', 'prevalence')
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
      memory: the memory's state.
      reference: constants of the dense model.
      step: scalar int32, evaluations so far.
    """

    model_state: ModelState
    memory: Any
    reference: Reference
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
    """A constrained training problem, made from a model.

    Attributes:
      num_constraints: K, for ``constraints.dense``.
      equality: whether the constraints are equalities: one bool for all, or ``[K]``.
      init: ``init(model_state, outcomes, batch) -> Carry``: the carry before the first step, from the
        :class:`Outcomes` of the dense model on the whole training split ``batch``.
      evaluate: for :func:`solver`.

    Example:
      >>> Problem._fields
      ('num_constraints', 'equality', 'init', 'evaluate')
    """

    num_constraints: int
    equality: bool | np.ndarray
    init: Callable[[ModelState, Outcomes, Batch], Carry]
    evaluate: Callable[[Params, Any, Batch, Any], Evaluation]


def outcomes(
    logits: Float[Array, "N C"], y: Num[Array, " N"], weight: Num[Array, " N"] | None = None
) -> Outcomes:
    """Correctness and cross entropy of every example, in float32.

    Args:
      logits: ``[N, C]``.
      y: ``[N]`` integer classes.
      weight: ``[N]``, 0 for padding, whose outcomes are 0 then.

    Example:
      >>> import jax.numpy as jnp
      >>> result = outcomes(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1]))
      >>> result.correct, result.loss.round(3)
      (Array([1., 0.], dtype=float32), Array([0.127, 0.693], dtype=float32))
    """
    logits = logits.astype(jnp.float32)
    # argmax takes the first of equal logits, so a constant network is right only about class 0.
    correct = (jnp.argmax(logits, axis=-1) == y).astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    if weight is not None:
        # where, not a product: padding may hold anything, and 0 * inf is not 0.
        correct, loss = jnp.where(weight > 0, correct, 0.0), jnp.where(weight > 0, loss, 0.0)
    return Outcomes(correct, loss)


def reference(
    outcomes: Outcomes, group: Int[Array, " N"], weight: Num[Array, " N"], num_groups: int
) -> Reference:
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


def make_init(
    memory: Memory, num_groups: int, remembered: str
) -> Callable[[ModelState, Outcomes, Batch], Carry]:
    """``Problem.init`` for a memory of ``remembered``: ``"correct"`` or ``"loss"``."""

    def init(model_state: ModelState, outcomes: Outcomes, batch: Batch) -> Carry:
        group, weight = jnp.asarray(batch.group), jnp.asarray(batch.weight)
        return Carry(
            model_state=model_state,
            memory=memory.init(group, getattr(outcomes, remembered), weight),
            reference=reference(outcomes, group, weight, num_groups),
            step=jnp.zeros((), jnp.int32),
        )

    return init


def forward(
    apply: Callable, params: Params, carry: Carry, batch: Batch, key: Any
) -> tuple[Outcomes, jax.Array, ModelState]:
    """One forward pass in train mode: the outcomes of the batch, its mean loss, and the new model state."""
    logits, model_state = apply(params, carry.model_state, batch.x, train=True, key=key)
    weight = jnp.asarray(batch.weight)
    result = outcomes(logits, jnp.asarray(batch.y), weight)
    mean_loss = jnp.sum(weight * result.loss) / jnp.sum(weight)
    return result, mean_loss, model_state


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


def squared_norm(params: Params, decayed: Callable[[str], bool]) -> jax.Array:
    """The sum of squares of the leaves whose path ``decayed`` accepts, for weight decay inside the loss."""
    total = jnp.zeros(())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if decayed(jax.tree_util.keystr(path, simple=True, separator="/")):
            total += jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    return total


def check(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises for a switch that is none of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, allowed))}.")


def check_tolerance(tolerance: float) -> None:
    """Raises for a tolerance that is not a number of at least 0."""
    if not tolerance >= 0:
        raise ValueError(
            f"tolerance={tolerance}: it bounds a loss of accuracy, "
            "so give a number of at least 0, such as 0.01 for one point."
        )
