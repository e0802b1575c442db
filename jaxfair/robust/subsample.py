r"""SUBG: as many examples of every group and class as there are of the smallest; the rest is not used.

With :math:`n_c` examples in cell c (a class of a group), :math:`\min_c n_c` are drawn of each, once per seed, and plain
training sees these alone. It is the cheapest thing to try, and has no setting. A network that can fit everything ends
near where plain training ends, however its examples are weighted, but not if the others are not there. What it costs
are data: of 20,000 people of whom 200 are a minority, it leaves some 400.

Its counterpart that keeps all examples is RWG: group-balanced batches, `jaxfair.train.balanced_order` with ``power=0``.

Reference: Idrissi, Arjovsky, Pezeshki and Lopez-Paz, `Simple data balancing achieves competitive worst-group-accuracy
<https://arxiv.org/abs/2110.14503>`_, 2022 (SUBG, RWG; SUBY and RWY are the same by class alone).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxfair.robust._cells import cell_of, epochs_over
from jaxfair.typing import Key


def subsample(key: Key, group: Int[np.ndarray, " N"], y: Int[np.ndarray, " N"] | None = None) -> Int[Array, " M"]:
    """Draws as many examples of every cell as the smallest has.

    Args:
      key: which of them.
      group: ``[N]`` of the training split, a NumPy array: how many are drawn is known when tracing.
      y: ``[N]`` classes; None balances the groups alone. With classes in place of groups it is SUBY.

    Returns:
      ``[M]`` int32 positions in the training split, cell by cell, classes outermost; M is the smallest cell's number
      times the number of cells.

    Raises:
      ValueError: for a cell without an example, of which nothing would be left, and for ids below 0.

    Example:
      >>> group, y = np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 0, 1, 1])
      >>> kept = np.asarray(subsample(jax.random.key(0), group, y))
      >>> list(zip(y[kept].tolist(), group[kept].tolist()))
      [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    cell, num_cells = cell_of(group, y)
    sizes = np.bincount(cell, minlength=num_cells)
    least = int(sizes.min())
    if not least:
        of_class, of_group = divmod(int(sizes.argmin()), int(group.max()) + 1)
        where = f"group {of_group}" if y is None else f"class {of_class} in group {of_group}"
        raise ValueError(f"there is no example of {where}, so nobody would be kept; merge groups, or balance y=None.")
    bits = jax.random.bits(key, (len(cell),))
    order = (jnp.asarray(cell, jnp.int32), bits, jnp.arange(len(cell), dtype=jnp.int32))
    shuffled = jax.lax.sort(order, num_keys=2)[2]
    first = np.cumsum(sizes) - sizes
    return shuffled[(first[:, None] + np.arange(least)).ravel()]


def subsample_order(
    key: Key,
    epoch: Any,
    *,
    group: Int[np.ndarray, " N"],
    y: Int[np.ndarray, " N"] | None = None,
    batch_size: int,
    num_steps: int,
) -> Int[Array, "T B"]:
    """The examples of each step of an epoch, for `jaxfair.train.fit`: permutations of a seed's subsample.

    Args:
      key: the lane's. The subsample follows from it alone, so it is the same in all epochs.
      epoch: its number.
      group: ``[N]`` of the training split, a NumPy array.
      y: ``[N]`` classes, or None.
      batch_size: B.
      num_steps: T.

    Raises:
      ValueError: as :func:`subsample`, and for a batch larger than the subsample.

    Example:
      >>> group, y = np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 0, 1, 1])
      >>> order = subsample_order(jax.random.key(0), 3, group=group, y=y, batch_size=4, num_steps=2)
      >>> kept = subsample(jax.random.split(jax.random.key(0))[0], group, y)
      >>> [sorted(step) == sorted(kept.tolist()) for step in order.tolist()]
      [True, True]
    """
    of_subset, of_epochs = jax.random.split(key)
    kept = subsample(of_subset, group, y)
    if not 1 <= batch_size <= len(kept):
        raise ValueError(f"batch_size={batch_size}: give a number from 1 to {len(kept)}, which the subsample has.")
    return epochs_over(jax.random.fold_in(of_epochs, epoch), kept, batch_size=batch_size, num_steps=num_steps)
