"""Checkpoints of a run, by orbax: a folder per phase, the latest step only, whole or not at all."""

import contextlib
import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxfair.train._stored import reading, writing


class Checkpoints:
    """The checkpoints of one phase of a run.

    Orbax writes into a temporary folder and renames it, so that a run killed at any moment leaves the last complete
    checkpoint; leftovers of the killed one are removed when the folder is opened again.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> with Checkpoints(tempfile.mkdtemp()) as store:
      ...     store.save(10, {"w": jnp.arange(3.0)})
      ...     store.restore({"w": jnp.zeros(3)})
      (10, {'w': Array([0., 1., 2.], dtype=float32)})
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self._folder = pathlib.Path(folder)
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True),
        )

    def save(self, step: int, state: Any) -> None:
        """Saves and waits: when it returns, the checkpoint is on disk. Saving the same step again does nothing."""
        with writing(self._folder, tree_bytes(_by_path(state)) + 10_000):
            if step not in self._manager.all_steps():
                self._manager.save(step, args=ocp.args.StandardSave(_by_path(state)))
            self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """The step of the last complete checkpoint, or None."""
        return self._manager.latest_step()

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """``(step, state)`` of the last checkpoint, or None where there is none yet.

        Args:
          like: a state with the shapes, dtypes and shardings to be read; its values do not matter.

        Raises:
          DamagedError: for one that cannot be read, or that holds something else.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        with reading(self._folder / str(step)):
            read = self._manager.restore(step, args=ocp.args.StandardRestore(_by_path(like)))
        leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
        found = [_like(read.get(_name(path), leaf), leaf) for path, leaf in leaves]
        return step, jax.tree.unflatten(treedef, found)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.ExitStack() as stack:
            if exception[0] is not None:  # what closing has to say of it was said
                stack.enter_context(contextlib.suppress(Exception))
            stack.enter_context(writing(self._folder))
            self._manager.close()


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves by their paths, without the empty ones (no multipliers, say), which orbax refuses."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): _plain(leaf) for path, leaf in leaves if jax.numpy.size(leaf)}


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> jax.Array:
    """A leaf as orbax knows it: a PRNG key is its bits."""
    return jax.random.key_data(leaf) if _is_key(leaf) else jax.numpy.asarray(leaf)


def _like(read: Any, leaf: Any) -> Any:
    if not _is_key(leaf) or _is_key(read):
        return read
    return jax.random.wrap_key_data(read, impl=jax.random.key_impl(leaf))


def tree_bytes(tree: Any) -> int:
    """The size of a pytree of arrays in bytes.

    Example:
      >>> import jax.numpy as jnp
      >>> tree_bytes({"a": jnp.zeros((2, 3)), "b": jnp.zeros(4, jnp.int8)})
      28
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
