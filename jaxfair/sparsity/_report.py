"""How sparse every layer is, as plain data that prints as a table."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfair import tree
from jaxfair.typing import Params


class LayerSparsity(NamedTuple):
    """One leaf of the parameters; Python numbers only.

    Attributes:
      path: such as ``"Conv_0/kernel"``; ``"total"`` for the sum of all.
      shape: the shape of the leaf, ``()`` for the sum.
      kept: how many weights live.
      total: how many there are.
      sparsity: ``1 - kept / total``.
    """

    path: str
    shape: tuple[int, ...]
    kept: int
    total: int
    sparsity: float


class SparsityReport(NamedTuple):
    """What `sparsity_report` returns; ``print`` shows a table.

    Attributes:
      layers: one row per leaf, in the order of `jax.tree.leaves`.
      prunable: the sum over the leaves whose mask is an array of their own shape.
      total: the sum over all leaves, those that are never pruned included.
    """

    layers: tuple[LayerSparsity, ...]
    prunable: LayerSparsity
    total: LayerSparsity

    def __str__(self):
        """The table."""
        rows = [("layer", "shape", "kept", "total", "sparsity")]
        for row in (*self.layers, self.prunable, self.total):
            shape = "x".join(map(str, row.shape))
            rows.append((row.path, shape, f"{row.kept:,}", f"{row.total:,}", f"{row.sparsity:.4f}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for path, shape, *numbers in rows:
            cells = [path.ljust(widths[0]), shape.ljust(widths[1])]
            cells += [n.rjust(w) for n, w in zip(numbers, widths[2:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def sparsity_report(params: Params, masks: Any) -> SparsityReport:
    """Counts the living weights of every leaf.

    Counted are the masks, not the zeros of the weights: a bias that happens to be zero lives. Not
    for use under ``jit``.

    Args:
      params: the parameters, arrays of any dtype.
      masks: their masks, True = kept, of the leaf's shape or ``[]``.

    Returns:
      The `SparsityReport`.

    Raises:
      ValueError: for masks of another network, or of several.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"Dense_0": {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 2))}}
      >>> masks = {"Dense_0": {"bias": jnp.array(True), "kernel": jnp.arange(6).reshape(3, 2) >= 4}}
      >>> print(sparsity_report(params, masks))
      layer           shape  kept  total  sparsity
      Dense_0/bias    2         2      2    0.0000
      Dense_0/kernel  3x2       2      6    0.6667
      prunable                  2      6    0.6667
      total                     4      8    0.5000
    """
    paths, leaves, masked = tree.paths(params), jax.tree.leaves(params), jax.tree.leaves(masks)
    if len(leaves) != len(masked):
        raise ValueError(f"there are {len(masked)} masks for {len(leaves)} leaves; pass the masks of these parameters")
    layers, prunable = [], []
    for path, p, m in zip(paths, leaves, masked, strict=True):
        mask = np.asarray(m)
        if mask.shape not in ((), p.shape):
            raise ValueError(
                f"the mask of {path} has the shape {mask.shape}, its weights have {p.shape}; "
                "pass masks of one network, not of a vmapped batch"
            )
        kept = int(np.broadcast_to(mask, p.shape).sum())
        layers.append(_row(path, p.shape, kept, int(p.size)))
        if mask.shape == p.shape and p.shape:
            prunable.append(layers[-1])
    return SparsityReport(tuple(layers), _sum("prunable", prunable), _sum("total", layers))


def _row(path: str, shape: tuple[int, ...], kept: int, total: int) -> LayerSparsity:
    return LayerSparsity(path, shape, kept, total, 1 - kept / total if total else 0.0)


def _sum(name: str, rows: list[LayerSparsity]) -> LayerSparsity:
    return _row(name, (), sum(r.kept for r in rows), sum(r.total for r in rows))
