"""Cells of class and group, and epochs over some examples: what the baselines share."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxfair.typing import Key


def cell_of(group: Int[np.ndarray, " N"], y: Int[np.ndarray, " N"] | None) -> tuple[Int[np.ndarray, " N"], int]:
    """The cell of each example, class-major, and how many there are; without classes a group is a cell."""
    for name, of in (("group", group), ("class", y)):
        if of is not None and of.size and of.min() < 0:
            raise ValueError(f"{name} {of.min()} is none: drop the people whose {name} is not known, or number them.")
    if not group.size:
        raise ValueError("there are no examples.")
    num_groups = int(group.max()) + 1
    if y is None:
        return group, num_groups
    return y * num_groups + group, num_groups * (int(y.max()) + 1)


def epochs_over(key: Key, members: Int[Array, " M"], *, batch_size: int, num_steps: int) -> Int[Array, "T B"]:
    """Fresh permutations of these examples, one a pass, whole batches only."""
    a_pass = len(members) // batch_size
    passes = -(-num_steps // a_pass)
    permuted = jax.vmap(lambda k: jax.random.permutation(k, members))(jax.random.split(key, passes))
    return permuted[:, : a_pass * batch_size].reshape(-1, batch_size)[:num_steps].astype(jnp.int32)
