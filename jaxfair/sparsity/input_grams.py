r"""The Gram matrices of what kernels are multiplied with: :math:`X^\top X`, the Hessian of a layer's squared error.

For a layer :math:`y = x W`, :math:`\| X W - X \hat W \|^2 = \mathrm{tr}(\Delta^\top X^\top X \Delta)` for a change
:math:`\Delta` of the weights: rounding (GPTQ) and pruning (OBC) by layers need this matrix and no labels. It is found
as the norms of `wanda` are, by walking the program of the network.

References:
  Frantar and Alistarh, *Optimal Brain Compression*, 2022.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair import tree
from jaxfair.sparsity._prunable import positions
from jaxfair.sparsity.wanda import walk
from jaxfair.typing import Array, Params


def input_grams(
    forward: Callable[[Params], Any],
    params: Params,
    *,
    prunable: Callable[[str], bool],
    group: Any = None,
    num_groups: int = 1,
) -> dict[str, Array]:
    """Gram matrices of the inputs of every kernel, over examples and places, for each group.

    Args:
      forward: ``forward(params)``, the network on a calibration batch.
      params: the weights.
      prunable: which leaves: kernels ``[n, out]`` of dense layers. One that is applied at several places, as by a
        network that unfolds images, sums over them.
      group: ``[B]``, the group of each example, which come first in what the kernels are multiplied with; None for all
        in one. An example of no group counts in none.
      num_groups: G, static.

    Returns:
      By path ``[G, n, n]`` float32; 0 for a group of nobody.

    Raises:
      ValueError: for a leaf that reaches no product, or that is multiplied in another way; for groups of other people.

    Example:
      >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
      >>> grams = input_grams(lambda p: x @ p["w"], {"w": jnp.ones((2, 3))}, prunable=lambda path: True)
      >>> grams["w"].tolist()
      [[[1.0, 2.0], [2.0, 5.0]]]
    """
    chosen = positions(params, prunable)
    closed = jax.make_jaxpr(forward)(params)
    paths, leaves = tree.paths(params), jax.tree.leaves(params)
    found: dict[int, Array] = {}

    def record(leaf: int, side: int, kernel: Any, x: Any, options: Any) -> None:
        if leaf not in chosen:
            return
        ok = side == 1 and kernel.ndim == 2 and not options["dimension_numbers"][1][0]
        if not (ok and options["dimension_numbers"][0] == ((x.ndim - 1,), (0,))):
            raise ValueError(
                f"{paths[leaf]} is no kernel [n, out] of a dense layer: its inputs have no one Gram matrix; leave "
                "it out (prunable=)"
            )
        value = _gram(jnp.asarray(x, jnp.float32), group, num_groups)
        found[leaf] = found[leaf] + value if leaf in found else value

    walk(closed.jaxpr, closed.consts, leaves, list(range(len(leaves))), record)
    if missing := [paths[i] for i in chosen if i not in found]:
        raise ValueError(
            f"{missing[0]} reaches no product as it is, so that it has no inputs; leave it out (prunable=)"
        )
    return {paths[i]: found[i] for i in chosen}


def _gram(x: Array, group: Any, num_groups: int) -> Array:
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    if group is None:
        return jnp.einsum("bpi,bpj->ij", rows, rows)[None]
    of = jnp.asarray(group)
    if of.shape != rows.shape[:1]:
        raise ValueError(f"groups of shape {of.shape} for {rows.shape[0]} examples: give [B] groups")
    member = (of[:, None] == jnp.arange(num_groups)[None]).astype(jnp.float32)
    return jnp.einsum("bg,bpi,bpj->gij", member, rows, rows)
