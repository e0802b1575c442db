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
    group: Int[np.ndarray, " N"], num_groups: int, batch_size: int, *, power: float = 0.0
) -> Int[np.ndarray, " G"]:
    r"""How many places of a batch each group has: in proportion to :math:`n_g^q`, at least one and at most :math:`n_g`.

    With :math:`q = 0` all groups have as many, with :math:`q = 1` a group has its share of the people. Between them
    lies a trade: the fewer places a large group has, the noisier is the loss of them all. The square root,
    :math:`q = 1/2`, gives a group of one per cent nine per cent of the places, and leaves the others 91.

    Places are rounded by Webster's method: one each, and every further one to the group with the largest
    :math:`n_g^q / (b_g + 1/2)`; of equals to the largest.

    Args:
      group: ``[N]`` of the training split.
      num_groups: G.
      batch_size: B, at least G and at most N.
      power: q, at least 0.

    Returns:
      ``[G]``, summing to B.

    Raises:
      ValueError: for a batch with fewer places than groups or more than people, a group without people or out of range,
        or a negative power.

    Example:
      >>> group = np.repeat(np.arange(2), (99, 9))
      >>> [balanced_places(group, 2, 12, power=q).tolist() for q in (0.0, 0.5, 1.0)]
      [[6, 6], [9, 3], [11, 1]]
    """
    outside = group[(group < 0) | (group >= num_groups)]
    if outside.size:
        raise ValueError(
            f"group {outside[0]} is none of {num_groups}: a balanced batch has no places for it; "
            "give the people whose group is not known a group of their own."
        )
    sizes = np.bincount(group, minlength=num_groups)
    if batch_size < num_groups:
        raise ValueError(f"batch_size={batch_size}: a balanced batch has a place for each of {num_groups} groups.")
    if batch_size > len(group):
        raise ValueError(f"batch_size={batch_size}: there are {len(group)} examples.")
    if not power >= 0:
        raise ValueError(f"power={power}: give 0 for equal places, 1 for shares, or between.")
    if (sizes == 0).any():
        raise ValueError(f"group {int(np.argmin(sizes))} has no example.")
    largest_first = np.argsort(-sizes, kind="stable")
    limit, claim = sizes[largest_first], sizes[largest_first].astype(np.float64) ** power
    places = np.ones(num_groups, np.int64)
    for _ in range(batch_size - num_groups):
        quotient = np.where(places < limit, claim / (places + 0.5), -np.inf)
        places[np.argmax(quotient)] += 1
    found = np.empty_like(places)
    found[largest_first] = places
    return found


def balanced_weights(
    group: Int[np.ndarray, " N"], num_groups: int, batch_size: int, *, power: float = 0.0
) -> Float[np.ndarray, " N"]:
    """The weight of every training example in a balanced batch, float32.

    Args:
      group: ``[N]`` of the training split.
      num_groups: G.
      batch_size: B.
      power: as of :func:`balanced_places`.

    Returns:
      ``[N]``, for ``Batch.weight``. A memory of outcomes counts people: give it to `constraints.unweighted`.

    Raises:
      ValueError: as :func:`balanced_places`.

    Example:
      >>> balanced_weights(np.array([0, 0, 0, 0, 0, 0, 1, 1]), num_groups=2, batch_size=4)[-3:]
      array([1.5, 0.5, 0.5], dtype=float32)
    """
    places = balanced_places(group, num_groups, batch_size, power=power)
    sizes = np.bincount(group, minlength=num_groups)
    return (batch_size * sizes / len(group) / places)[group].astype(np.float32)


def balanced_order(
    key: Key,
    epoch: Int[Array, ""] | int,
    *,
    group: Int[np.ndarray, " N"],
    num_groups: int,
    batch_size: int,
    num_steps: int,
    power: float = 0.0,
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
      power: as of :func:`balanced_places`.

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
    places = balanced_places(group, num_groups, batch_size, power=power)
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
