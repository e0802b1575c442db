r"""Batches in which every group has a fixed number of places, and the weights that undo it.

With :math:`b_g` places of B for group g and :math:`p_g` its share of the training split, an example of g weighs

.. math:: w_g = B\, p_g / b_g

The weights of a batch sum to B whatever was drawn, so the weighted mean over a batch, which every problem of
`jaxfair.constraints` takes, is an unbiased estimate of the mean over the training split: examples of a group come from
random permutations of it. Only the noise is shared out otherwise: a group of one per cent is seen in every step, with
small weights, in place of now and then with large ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxfair.typing import Key


def balanced_places(
    group: Int[np.ndarray, " N"], num_groups: int, batch_size: int
) -> Int[np.ndarray, " G"]:
    """How many places of a batch each group has: equally many; what is left goes to the largest groups.

    Args:
      group: ``[N]`` of the training split.
      num_groups: G.
      batch_size: B, at least G.

    Returns:
      ``[G]``, summing to B.

    Raises:
      ValueError: for a batch with fewer places than groups, or a group with fewer people than places.

    Example:
      >>> balanced_places(np.array([0, 0, 0, 0, 0, 1, 1]), num_groups=2, batch_size=3)
      array([2, 1])
    """
    sizes = np.bincount(group, minlength=num_groups)
    if batch_size < num_groups:
        raise ValueError(
            f"batch_size={batch_size}: a balanced batch has a place for each of {num_groups} groups."
        )
    places = np.full(num_groups, batch_size // num_groups)
    places[np.argsort(-sizes, kind="stable")[: batch_size % num_groups]] += 1
    if (sizes < places).any():
        short = int(np.argmax(sizes < places))
        raise ValueError(
            f"group {short} has {sizes[short]} examples for {places[short]} places: give a smaller batch_size."
        )
    return places


def balanced_weights(
    group: Int[np.ndarray, " N"], num_groups: int, batch_size: int
) -> Float[np.ndarray, " N"]:
    """The weight of every training example in a balanced batch, float32.

    Args:
      group: ``[N]`` of the training split.
      num_groups: G.
      batch_size: B.

    Returns:
      ``[N]``, for ``Batch.weight``. A memory of outcomes must be fed ones instead: it counts people.

    Raises:
      ValueError: as :func:`balanced_places`.

    Example:
      >>> balanced_weights(np.array([0, 0, 0, 0, 0, 0, 1, 1]), num_groups=2, batch_size=4)[-3:]
      array([1.5, 0.5, 0.5], dtype=float32)
    """
    sizes = np.bincount(group, minlength=num_groups)
    places = balanced_places(group, num_groups, batch_size)
    return (batch_size * sizes / len(group) / places)[group].astype(np.float32)


def balanced_order(
    key: Key,
    epoch: Int[Array, ""] | int,
    *,
    group: Int[np.ndarray, " N"],
    num_groups: int,
    batch_size: int,
    num_steps: int,
) -> Int[Array, "T B"]:
    """The examples of each step of an epoch, every group with its places; the counterpart of :func:`epoch_order`.

    A group's examples are taken from fresh permutations of it, as many as the epoch needs, whole batches of places
    only: within a step an example is there at most once.

    Args:
      key: the lane's.
      epoch: its number; the order depends on key and epoch alone.
      group: ``[N]`` of the training split, a NumPy array: the plan of the places is made when tracing.
      num_groups: G.
      batch_size: B.
      num_steps: T.

    Returns:
      ``[T, B]`` int32 positions in the training split; the places of group 0 come first.

    Raises:
      ValueError: as :func:`balanced_places`.

    Example:
      >>> group = np.array([0, 0, 0, 0, 0, 0, 1, 1])
      >>> order = balanced_order(jax.random.key(0), 0, group=group, num_groups=2, batch_size=4, num_steps=3)
      >>> group[np.asarray(order)].tolist()
      [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    places = balanced_places(group, num_groups, batch_size)
    members = [np.flatnonzero(group == g) for g in range(num_groups)]
    # All permutations of all groups in one sort: by segment, one for each, and within it by random bits.
    examples, segments, positions = [], [], []
    begin = segment = 0
    steps = np.arange(num_steps)
    for of_group, count in zip(members, places, strict=True):
        per_pass = len(of_group) // count
        passes = -(-num_steps // per_pass)
        examples.append(np.tile(of_group, passes))
        segments.append(np.repeat(segment + np.arange(passes), len(of_group)))
        first = begin + steps // per_pass * len(of_group) + steps % per_pass * count
        positions.append(first[:, None] + np.arange(count))
        begin, segment = begin + passes * len(of_group), segment + passes
    bits = jax.random.bits(jax.random.fold_in(key, epoch), (begin,))
    order = (
        jnp.asarray(np.concatenate(segments).astype(np.int32)),
        bits,
        jnp.asarray(np.concatenate(examples).astype(np.int32)),
    )
    shuffled = jax.lax.sort(order, num_keys=2)[2]
    return shuffled[jnp.asarray(np.concatenate(positions, axis=1).astype(np.int32))]
