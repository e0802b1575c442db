r"""A gradient per example, as the rows of a matrix: what second-order pruners know about the loss.

.. math:: A = (\nabla \ell_1, \dots, \nabla \ell_n)^\top \in R^{n \times p}, \qquad \tfrac1n A^\top A \approx
   \text{Hessian of the mean loss}

The p columns are the prunable weights, leaf after leaf in the order of `jax.tree.leaves`, each leaf flattened. The
matrix takes ``n p`` numbers; the Hessian would take ``p^2``. It is the empirical Fisher matrix, so the
approximation is the better, the closer the network is to having learnt its data.

A row may be the mean gradient of a few examples: fewer rows for the same data. With b examples a row, ``A'A / n``
is about ``1 / b`` of the Fisher matrix; the pruners' ``first_order`` puts that right.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped

from jaxfair.sparsity._prunable import places, positions
from jaxfair.typing import Array, Params


def example_gradients(
    loss_fn: Callable[[Params, Any], Any],
    params: Params,
    batch: Any,
    *,
    prunable: Callable[[str], bool],
    batch_size: int = 1,
    chunk: int = 64,
) -> Float[Array, "n p"]:
    """The gradients of many examples by the prunable weights, one a row.

    Args:
      loss_fn: ``loss_fn(params, batch) -> []``, the mean loss of a batch, which has its leading axis also where it
        is one example. Run a network with BatchNorm on its stored statistics (``train=False``).
      params: the tree of parameters.
      batch: a pytree of arrays ``[N, ...]``.
      prunable: which leaves may be pruned, from a path such as ``"Conv_0/kernel"``; the others are constants here.
      batch_size: examples a row; N must be a multiple of it.
      chunk: rows that are computed at once. Memory grows with it, beside the result. Convolutions on a CPU are
        slow in loops and under vmap: there, call this once per row, and stack.

    Returns:
      ``[N / batch_size, p]`` in the dtype of the prunable leaves.

    Raises:
      ValueError: leaves of the batch with different leading axes, a batch size that does not divide them, or no
        prunable leaf.

    Example:
      The loss ``(w x - y)^2 / 2`` has the gradient ``(w x - y) x``:

      >>> def loss_fn(params, batch):
      ...     x, y = batch
      ...     return jnp.mean((params["w"] * x - y) ** 2) / 2
      >>> batch = jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0])
      >>> example_gradients(loss_fn, {"w": jnp.array([3.0])}, batch, prunable=lambda path: True).tolist()
      [[3.0], [10.0]]
    """
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or not next(iter(sizes)):
        raise ValueError(f"the leaves of batch need one leading axis in common, but theirs are {sorted(sizes)}")
    ((size,),) = sizes
    if batch_size < 1 or size % batch_size:
        raise ValueError(f"batch_size={batch_size} does not divide the {size} examples; leave some of them out")
    leaves, treedef = jax.tree.flatten(params)
    chosen = positions(params, prunable)

    def loss_of(prunable_leaves, minibatch):
        whole = list(leaves)
        for i, leaf in zip(chosen, prunable_leaves, strict=True):
            whole[i] = leaf
        return loss_fn(jax.tree.unflatten(treedef, whole), minibatch)

    def row(minibatch):
        return _ravel(jax.grad(loss_of)([leaves[i] for i in chosen], minibatch))

    rows = size // batch_size
    batches = jax.tree.map(lambda a: jnp.reshape(a, (rows, batch_size, *jnp.shape(a)[1:])), batch)
    if rows == 1:  # neither a loop nor a vmap, for convolutions on a CPU
        return row(jax.tree.map(lambda a: a[0], batches))[None]
    if rows <= chunk:
        return jax.vmap(row)(batches)
    return jax.lax.map(row, batches, batch_size=chunk)


def flatten_prunable(params: Params, *, prunable: Callable[[str], bool]) -> Shaped[Array, "p"]:
    """The prunable weights as one vector, in the order of the columns of `example_gradients`.

    Args:
      params: the tree of parameters, or their masks.
      prunable: which leaves.

    Returns:
      ``[p]``.

    Raises:
      ValueError: no prunable leaf.

    Example:
      >>> params = {"a": jnp.ones(2), "b": jnp.zeros((1, 2)), "c": jnp.array([3.0])}
      >>> flatten_prunable(params, prunable=lambda path: path != "a").tolist()
      [0.0, 0.0, 3.0]
    """
    leaves = jax.tree.leaves(params)
    return _ravel([jnp.asarray(leaves[i]) for i in places(params, prunable)])


def unflatten_prunable(vector: Float[Array, "p"], params: Params, *, prunable: Callable[[str], bool]) -> Params:
    """The inverse: the parameters with their prunable weights from a vector.

    Args:
      vector: ``[p]``.
      params: the tree that has the shapes and dtypes, and the weights that are not prunable.
      prunable: which leaves.

    Returns:
      The tree.

    Raises:
      ValueError: a vector of another length than the prunable weights, or no prunable leaf.

    Example:
      >>> params = {"a": jnp.ones(2), "b": jnp.zeros((1, 2))}
      >>> unflatten_prunable(jnp.array([5.0, 6.0]), params, prunable=lambda path: path == "b")["b"].tolist()
      [[5.0, 6.0]]
    """
    leaves, treedef = jax.tree.flatten(params)
    for i, piece in _pieces(vector, leaves, positions(params, prunable)):
        leaves[i] = piece.astype(jnp.result_type(leaves[i]))
    return jax.tree.unflatten(treedef, leaves)


def unflatten_masks(mask: Bool[Array, "p"], params: Params, *, prunable: Callable[[str], bool]) -> Any:
    """A mask of the vector as the tree of masks that the library uses.

    Args:
      mask: ``[p]``, True = kept.
      params: the tree that has the shapes.
      prunable: which leaves.

    Returns:
      The tree of bool arrays; the scalar True where a leaf is never pruned.

    Raises:
      ValueError: a mask of another length than the prunable weights, or no prunable leaf.

    Example:
      >>> params = {"a": jnp.ones(2), "b": jnp.zeros((1, 2))}
      >>> masks = unflatten_masks(jnp.array([True, False]), params, prunable=lambda path: path == "b")
      >>> jax.tree.map(lambda m: m.tolist(), masks)
      {'a': True, 'b': [[True, False]]}
    """
    leaves, treedef = jax.tree.flatten(params)
    masks = [jnp.ones((), bool)] * len(leaves)
    for i, piece in _pieces(mask, leaves, positions(params, prunable)):
        masks[i] = piece
    return jax.tree.unflatten(treedef, masks)


def _ravel(leaves: list[Any]) -> Array:
    dtype = jnp.result_type(*leaves)
    return jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in leaves])


def _pieces(vector: Any, leaves: list[Any], chosen: list[int]) -> list[tuple[int, Any]]:
    size = sum(leaves[i].size for i in chosen)
    if len(vector) != size:
        raise ValueError(f"the prunable leaves have {size} weights, but the vector has {len(vector)}")
    found, begin = [], 0
    for i in chosen:
        end = begin + leaves[i].size
        found.append((i, vector[begin:end].reshape(leaves[i].shape)))
        begin = end
    return found
