r"""Losses of one example at a time: what a problem minimises, and what its proxies are made of.

A loss is a function ``loss(logits [B, C], batch) -> [B]``. A problem takes the weighted mean of it over the batch as
its objective, and the same losses, group by group, as the proxies of its constraints. Both from one loss: then a step
is a re-weighted mean of it, and no group is trained to be wrong for the sake of another.

Whatever can be said of an example by itself is a loss and needs no problem of its own: smoothed or focal cross entropy,
distillation (the batch has ``index``, so a teacher's logits on the whole split can be closed over), weights per group.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from jaxfair.constraints._numbers import check_number
from jaxfair.constraints._people import check_logits, ids, take
from jaxfair.typing import Batch

#: ``loss(logits [B, C], batch) -> [B]``.
Loss: TypeAlias = Callable[[jax.Array, Batch], jax.Array]


def cross_entropy(logits: Float[Array, "B C"], batch: Batch) -> Float[Array, " B"]:
    """The cross entropy of every example, in float32. The default loss of every problem.

    Args:
      logits: ``[B, C]``.
      batch: of which ``y`` is read.

    Raises:
      ValueError: for shapes that do not fit, and a single logit.

    Example:
      >>> batch = Batch(None, jnp.array([0, 1]), None, None, None)
      >>> cross_entropy(jnp.array([[2.0, 0.0], [0.0, 0.0]]), batch).round(3)
      Array([0.127, 0.693], dtype=float32)
    """
    check_logits(logits, batch.y)
    y = jnp.asarray(batch.y)
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), y)


def distillation(
    teacher: Float[ArrayLike, "N C"] | Callable[[Batch], jax.Array],
    *,
    temperature: ArrayLike = 1.0,
    share: ArrayLike = 1.0,
) -> Loss:
    r"""A loss that follows a teacher: its softened predictions, next to the labels.

    .. math:: (1 - s)\, \mathrm{CE}(z, y) + s\, T^2\, \mathrm{KL}(\sigma(t / T) \,\|\, \sigma(z / T))

    Args:
      teacher: ``[N, C]`` logits t on the whole split, addressed by ``Batch.index``; an index outside of the split has
        no teacher. Or a function of a batch to ``[B, C]``: a network that is asked at every step, where logits of
        everybody do not fit, or inputs are never the same.
      temperature: T above 0.
      share: s in ``[0, 1]``: 0 is :func:`cross_entropy`.

    Returns:
      The loss.

    Raises:
      ValueError: for numbers out of range, unless they are traced, and logits of a teacher that do not fit.

    Example:
      A network that says what its teacher says has nothing to learn from it:

      >>> teacher = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> batch = Batch(None, jnp.array([0, 1]), None, jnp.array([0, 1]), None)
      >>> distillation(teacher, temperature=2.0)(teacher, batch).tolist()
      [0.0, 0.0]

    References:
      Hinton et al., `Distilling the Knowledge in a Neural Network <https://arxiv.org/abs/1503.02531>`_, 2015.
    """
    if not callable(teacher) and np.ndim(teacher) != 2:
        raise ValueError(f"teacher has shape {np.shape(teacher)}: give logits [N, C] on the whole split.")
    check_number(temperature, lambda t: (t > 0) & np.isfinite(t), f"temperature={temperature}: give a number above 0.")
    check_number(share, lambda s: (s >= 0) & (s <= 1), f"share={share}: give a number between 0 and 1.")

    def said_by(batch: Batch, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits ``[B, C]``, and for whom there are some."""
        given: Any = jax.lax.stop_gradient(teacher(batch)) if callable(teacher) else teacher
        known = jnp.asarray(given, jnp.float32)
        if known.shape[1:] != logits.shape[1:]:
            raise ValueError(
                f"teacher has shape {known.shape} beside logits of shape {logits.shape}: give [N, C] and [B, C]."
            )
        if callable(teacher):
            return known, jnp.ones(known.shape[0], bool)
        return take(known, batch.index), ids("index", batch.index, known.shape[0]) < known.shape[0]

    def loss(logits: Float[Array, "B C"], batch: Batch) -> Float[Array, " B"]:
        known, there = said_by(batch, logits)
        said = known / temperature
        mine = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
        far = jnp.sum(jax.nn.softmax(said) * (jax.nn.log_softmax(said) - mine), axis=-1)
        # Of whom the teacher has said nothing, there is nothing to follow.
        far = jnp.where(there, far, 0.0)
        s, t = jnp.asarray(share, jnp.float32), jnp.asarray(temperature, jnp.float32)
        return (1.0 - s) * cross_entropy(logits, batch) + s * t**2 * far

    return loss
