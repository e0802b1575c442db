"""Which example goes into which step: a pure function of the key and the epoch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxfair.typing import Key

#: An epoch has at least this many steps, however small the data; then it goes through the data more than once.
MIN_STEPS = 100


def steps_per_epoch(num_examples: int, batch_size: int, *, min_steps: int = MIN_STEPS) -> int:
    """The number of steps of an epoch: full batches only, whole passes, at least ``min_steps``.

    Args:
      num_examples: N.
      batch_size: B.
      min_steps: below this many steps a pass, an epoch is several passes.

    Raises:
      ValueError: where there are fewer examples than a batch holds.

    Example:
      >>> steps_per_epoch(22_000, 128), steps_per_epoch(1_000, 128)
      (171, 105)
    """
    if not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"batch_size={batch_size}: give a number from 1 to {num_examples}, the examples of the training split."
        )
    a_pass = num_examples // batch_size
    passes = -(-min_steps // a_pass) if a_pass < min_steps else 1
    return a_pass * passes


def epoch_order(
    key: Key, epoch: Int[Array, ""] | int, *, num_examples: int, batch_size: int, num_steps: int
) -> Int[Array, "T B"]:
    """The examples of each step of an epoch: a fresh permutation a pass, without the partial batch at its end.

    Within a step every example is there at most once, also where an epoch has several passes.

    Args:
      key: the lane's.
      epoch: its number; the order depends on key and epoch alone, so a resumed run goes on with the same one.
      num_examples: N.
      batch_size: B.
      num_steps: T, from :func:`steps_per_epoch`.

    Returns:
      ``[T, B]`` int32 positions in the training split.

    Example:
      >>> import jax
      >>> order = epoch_order(jax.random.key(0), 0, num_examples=10, batch_size=3, num_steps=6)
      >>> order.shape, len(set(order[:3].ravel().tolist()))
      ((6, 3), 9)
    """
    a_pass = num_examples // batch_size
    keys = jax.random.split(jax.random.fold_in(key, epoch), num_steps // a_pass)
    permuted = jax.vmap(lambda k: jax.random.permutation(k, num_examples))(keys)
    return permuted[:, : a_pass * batch_size].reshape(num_steps, batch_size).astype(jnp.int32)


@functools.lru_cache(maxsize=32)
def shuffled(num_examples: int, batch_size: int | None, num_steps: int) -> Callable[[Key, Any], Array]:
    """``order(key, epoch)``: :func:`epoch_order` with the key folded by 1; nobody where a step sees the whole split.

    It is the same one for the same numbers, so that what is compiled of it stays so.
    """

    def drawn(key: Key, epoch: Any) -> Array:
        if batch_size is None:
            return jnp.zeros((num_steps, 0), jnp.int32)
        return epoch_order(
            jax.random.fold_in(key, 1), epoch, num_examples=num_examples, batch_size=batch_size, num_steps=num_steps
        )  # fmt: skip

    return drawn
