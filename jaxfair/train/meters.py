"""What is summed up over the steps of an epoch: a meter is three functions, and knows of its solver what it likes.

A meter lives in the compiled step. What a meter needs and a solver does not say is an error when the step is traced.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxfair import metrics


class Meter(NamedTuple):
    """Values that each step adds to, that the end of an epoch reads, and that begin again after it.

    Attributes:
      init: ``init() -> values``, any pytree of arrays: at the beginning of an epoch.
      update: ``update(values, state, batch, info) -> values``. ``state`` is the solver's *before* the step, at which
        everything in ``info`` was measured.
      read: ``read(values) -> dict`` of numbers by their names in the records.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Any, Any, Any], Any]
    read: Callable[[Any], dict[str, Array]]


def loss_meter() -> Meter:
    """The mean of the batch losses; of any solver. It is the same one every time: what is compiled with it stays so.

    Example:
      >>> import collections
      >>> Info = collections.namedtuple("Info", "loss")
      >>> meter, values = loss_meter(), loss_meter().init()
      >>> for loss in (1.0, 4.0):
      ...     values = meter.update(values, None, None, Info(jnp.float32(loss)))
      >>> meter.read(values)
      {'loss': Array(2.5, dtype=float32)}
    """
    return _LOSS


def _update_loss(values: Any, state: Any, batch: Any, info: Any) -> Any:
    del state, batch
    loss, steps = values
    return loss + info.loss.astype(jnp.float32), steps + 1.0


_LOSS = Meter(
    init=lambda: (jnp.zeros(()), jnp.zeros(())),
    update=_update_loss,
    read=lambda values: {"loss": values[0] / jnp.maximum(values[1], 1.0)},
)


class GroupSums(NamedTuple):
    """What :func:`group_meter` sums up over the steps of an epoch.

    Attributes:
      loss: scalar sum of the batch losses.
      steps: scalar float32, the steps summed over.
      correct: ``[G]`` examples of each group that were right; here and below, weighted.
      count: ``[G]`` examples of each group.
      right: scalar, examples that were right, also those of no group.
      everybody: scalar, examples.
    """

    loss: jax.Array
    steps: jax.Array
    correct: jax.Array
    count: jax.Array
    right: jax.Array
    everybody: jax.Array


def group_meter(num_groups: int) -> Meter:
    """Loss, accuracy, and every group's accuracy in train mode, over the examples that the epoch came by.

    Args:
      num_groups: G.

    Returns:
      The meter, of any solver whose ``info.aux.correct`` says which examples of the batch were right, ``[B]``: all of
      `jaxfair.constraints`, and :func:`descent`. It is the same one every time, so that what is compiled with it stays
      so. It reads ``loss``, ``accuracy`` and ``group_accuracy`` ``[G]``, as
      `metrics` has them: means by the weights of the batch, nan for a group that was not seen. Whose group is none of
      the G counts in ``accuracy`` only.

    Raises:
      ValueError: when traced, for outcomes, groups and weights that do not fit.

    Example:
      >>> import collections
      >>> Info, Aux, Few = (collections.namedtuple(*n) for n in (
      ...     ("Info", "loss aux"), ("Aux", "correct"), ("Few", "group weight")))
      >>> meter = group_meter(num_groups=2)
      >>> batch = Few(group=jnp.array([0, 0, 1]), weight=jnp.ones(3))
      >>> info = Info(loss=jnp.float32(0.5), aux=Aux(correct=jnp.array([1.0, 0.0, 1.0])))
      >>> meter.read(meter.update(meter.init(), None, batch, info))["group_accuracy"]
      Array([0.5, 1. ], dtype=float32)
    """
    return _group_meter(num_groups)


@functools.lru_cache(maxsize=32)
def _group_meter(num_groups: int) -> Meter:
    def init() -> GroupSums:
        one, each = (lambda: jnp.zeros(())), (lambda: jnp.zeros(num_groups))
        return GroupSums(one(), one(), each(), each(), one(), one())

    def update(sums: GroupSums, state: Any, batch: Any, info: Any) -> GroupSums:
        del state
        if info.aux.correct is None:
            raise ValueError(
                "the solver does not say who was right: classes are [B] integers and logits [B, C] for it."
            )
        weight, right = (jnp.asarray(a).astype(jnp.float32) for a in (batch.weight, info.aux.correct))
        group = jnp.asarray(batch.group)
        if not weight.shape == right.shape == group.shape:
            raise ValueError(
                f"outcomes of shape {right.shape}, groups {group.shape} and weights {weight.shape}: "
                "give one of each for each example."
            )
        right = jnp.where(weight > 0, right, 0.0)
        # In 8 bits there are no more than 127 groups.
        group = group if group.dtype.itemsize > 4 else group.astype(jnp.int32)
        return GroupSums(
            loss=sums.loss + info.loss.astype(jnp.float32),
            steps=sums.steps + 1.0,
            correct=sums.correct + metrics.group_sums(right, group, num_groups, weight=weight),
            count=sums.count + metrics.group_counts(group, num_groups, weight=weight),
            right=sums.right + jnp.sum(weight * right),
            everybody=sums.everybody + jnp.sum(weight),
        )

    def read(sums: GroupSums) -> dict[str, Array]:
        return {
            "loss": sums.loss / jnp.maximum(sums.steps, 1.0),
            "accuracy": _mean(sums.right, sums.everybody),
            "group_accuracy": _mean(sums.correct, sums.count),
        }

    return Meter(init, update, read)


def _mean(sums: Array, counts: Array) -> Array:
    """The quotient, nan of nobody."""
    return jnp.where(counts > 0, sums / jnp.where(counts > 0, counts, 1.0), jnp.nan)


def trace(name: str, look: Callable[[Any, Any], Array], shape: tuple[int, ...], steps: int) -> Meter:
    """One array of every step, instead of a sum: the density of each layer, say.

    Args:
      name: under which it is read.
      look: ``look(state, info) -> array``, float32, of the solver's state before the step.
      shape: of that array.
      steps: T, of an epoch.

    Returns:
      The meter; it reads ``{name: [T, *shape]}``.

    Example:
      >>> import collections
      >>> State = collections.namedtuple("State", "params step")
      >>> meter = trace("weight", lambda state, info: state.params, shape=(), steps=3)
      >>> values = meter.init()
      >>> for t in range(4, 7):                      # in the middle of a training
      ...     values = meter.update(values, State(jnp.float32(t), jnp.int32(t)), None, None)
      >>> meter.read(values)["weight"].tolist()
      [4.0, 5.0, 6.0]
    """

    def update(values: tuple[Array, Array], state: Any, batch: Any, info: Any) -> Any:
        del batch
        rows, count = values
        return rows.at[count].set(look(state, info)), count + 1

    return Meter(
        lambda: (jnp.zeros((steps, *shape)), jnp.zeros((), jnp.int32)),
        update,
        lambda values: {name: values[0]},
    )
