"""What every problem minimises: the mean of a loss over the batch, and a weight decay; from one forward pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair import metrics
from jaxfair.constraints._numbers import check_number, check_shape, is_zero
from jaxfair.constraints._people import as_float, labelled
from jaxfair.constraints.losses import Loss
from jaxfair.tree import path_string
from jaxfair.typing import Batch, ModelState, Params


class Forward(NamedTuple):
    """What a forward pass gives.

    Attributes:
      logits: ``[B, C]``.
      model_state: the network's, after the batch.
      correct: ``[B]`` float32, 0 for padding.
      losses: ``[B]`` float32, 0 for padding and for an example whose class is none of the C.
      mean: scalar, the weighted mean of the losses; 0 for a batch of nobody.
      objective: scalar, the mean and the weight decay.
      of: ``of(loss) -> (losses, mean)``, the same of another loss of the same logits.
    """

    logits: jax.Array
    model_state: ModelState
    correct: jax.Array
    losses: jax.Array
    mean: jax.Array
    objective: jax.Array
    of: Callable[[Loss], tuple[jax.Array, jax.Array]]


def make_forward(
    apply: Callable[..., Any],
    *,
    loss: Loss,
    weight_decay: ArrayLike,
    decayed: Callable[[str], bool],
) -> Callable[[Params, ModelState, Batch, Any], Forward]:
    """``forward(params, model_state, batch, key)`` of a model and a loss.

    Raises:
      ValueError: for a weight decay below 0, and (when tracing) for logits, classes and losses that do not fit.

    Example:
      >>> from jaxfair.constraints import cross_entropy
      >>> forward = make_forward(lambda p, s, x, **_: (x * p, s), loss=cross_entropy, weight_decay=0.5,
      ...                        decayed=lambda path: True)
      >>> batch = Batch(jnp.eye(2), jnp.array([0, 0]), None, None, jnp.ones(2))
      >>> found = forward(jnp.array(2.0), {}, batch, None)
      >>> found.correct.tolist(), round(float(found.objective - found.mean), 3)
      ([1.0, 0.0], 1.0)
    """
    refused = f"weight_decay={weight_decay}: give a number of at least 0."
    check_shape("weight_decay", weight_decay, None)
    if not callable(loss):
        raise ValueError(f"loss={loss!r}: give a function of logits and batch, such as constraints.cross_entropy.")
    check_number(weight_decay, lambda w: (w >= 0) & np.isfinite(w), refused)

    def forward(params: Params, model_state: ModelState, batch: Batch, key: Any) -> Forward:
        logits, model_state = apply(params, model_state, batch.x, train=True, key=key)
        weight = as_float(batch.weight)
        right = metrics.correct(logits, batch.y)
        total = jnp.sum(weight)

        def of(loss: Loss) -> tuple[jax.Array, jax.Array]:
            losses = loss(logits, batch)
            if jnp.shape(losses) != weight.shape or right.shape != weight.shape:
                raise ValueError(
                    f"loss= gave shape {jnp.shape(losses)} and logits {jnp.shape(logits)} for a batch of weights "
                    f"{weight.shape}: give one number per example."
                )
            # where, not a product: padding may hold anything, and 0 * inf is not 0.
            counted = (weight > 0) & labelled(batch.y, logits.shape[1])
            losses = jnp.where(counted, losses.astype(jnp.float32), 0.0)
            return losses, jnp.sum(weight * losses) / jnp.where(total == 0, 1.0, total)

        losses, mean = of(loss)

        def again(other: Loss) -> tuple[jax.Array, jax.Array]:
            return (losses, mean) if other is loss else of(other)

        correct = jnp.where(weight > 0, right.astype(jnp.float32), 0.0)
        objective = mean
        if not is_zero(weight_decay):
            objective = mean + 0.5 * weight_decay * squared_norm(params, decayed)
        return Forward(logits, model_state, correct, losses, mean, objective, again)

    return forward


def squared_norm(params: Params, decayed: Callable[[str], bool]) -> jax.Array:
    """The sum of squares of the leaves whose path ``decayed`` accepts, for weight decay inside the loss."""
    total = jnp.zeros(())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if decayed(path_string(path)):
            total += jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    return total
