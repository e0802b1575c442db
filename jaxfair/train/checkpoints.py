"""Checkpoints of a run, by orbax: a folder per phase, the latest step only, whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxfair.train._stored import hushed, reading, writing
from jaxfair.train.mesh import on_host, put
from jaxfair.tree import names


class Checkpoints:
    """The checkpoints of one phase of a run.

    Orbax writes into a temporary folder and renames it, so that a run killed at any moment leaves the last complete
    checkpoint; leftovers of the killed one are removed when the folder is opened again.

    Of several processes the first alone writes and reads, and the others are sent what it has read. So a run can go on
    with another number of them, the folder need not be on a disk of all, and one that dies holds up nobody: the others
    notice where they meet it next, while orbax's own barriers have them wait for minutes.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> with Checkpoints(tempfile.mkdtemp()) as store:
      ...     store.save(10, {"w": jnp.arange(3.0)})
      ...     store.restore({"w": jnp.zeros(3)})
      (10, {'w': Array([0., 1., 2.], dtype=float32)})
    """

    def __init__(self, folder: str | os.PathLike[str], *, several: bool = False):
        """Opens a folder.

        Args:
          folder: of the checkpoints; made where it is not there.
          several: whether all processes of ``jax.distributed`` have a part in the state; each makes the same calls.
        """
        import orbax.checkpoint  # half a second, which only who saves waits for

        self._folder, self._several, self._orbax = pathlib.Path(folder), several, orbax.checkpoint
        self._manager: Any = self._first(self._opened)

    def _opened(self) -> Any:
        more: dict[str, Any] = {"create": True}
        if self._several:
            self._folder.mkdir(parents=True, exist_ok=True)
            alone = {"primary_host": 0, "active_processes": {0}, "barrier_sync_key_prefix": "first"}
            more = {"create": False, "multiprocessing_options": self._orbax.options.MultiprocessingOptions(**alone)}
        with hushed():  # a checkpoint that is damaged is an error where it is read
            options = self._orbax.CheckpointManagerOptions(max_to_keep=1, **more)
            return self._orbax.CheckpointManager(self._folder.absolute(), options=options)

    def _first(self, action: Callable[[], Any]) -> Any:
        """What the first process gets, in the first process; what fails there fails in all, none waits for it."""
        found, error = None, None
        if not self._several or jax.process_index() == 0:
            try:
                found = action()
            except Exception as raised:
                error = raised
        if self._several and multihost_utils.broadcast_one_to_all(np.array(error is not None)) and error is None:
            raise OSError(f"{self._folder}: the first process cannot go on, and says why")
        if error is not None:
            raise error
        return found

    def save(self, step: int, state: Any) -> None:
        """Saves and waits: when it returns, the checkpoint is on disk. Saving the same step again does nothing.

        Raises:
          ValueError: for a leaf that is no number, before anything is written.
          OSError: where the disk is full or may not be written.
        """
        leaves = _by_path(state)
        leaves = on_host(leaves) if self._several else leaves

        def write() -> None:
            with writing(self._folder, tree_bytes(leaves) + 10_000):
                if step not in self._manager.all_steps():
                    self._manager.save(step, args=self._orbax.args.StandardSave(leaves))
                self._manager.wait_until_finished()

        self._first(write)

    def latest(self) -> int | None:
        """The step of the last complete checkpoint, or None."""
        step = self._first(lambda: self._manager.latest_step())
        if not self._several:
            return step
        told = int(multihost_utils.broadcast_one_to_all(np.array(-1 if step is None else step)))
        return None if told < 0 else told

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """``(step, state)`` of the last checkpoint, or None where there is none yet.

        Args:
          like: a state with the shapes, dtypes and shardings to be read; its values do not matter.

        Raises:
          DamagedError: for one that cannot be read, or that holds something else.
        """
        step = self.latest()
        if step is None:
            return None
        wanted = _by_path(like)
        if self._several:
            wanted = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in wanted.items()}

        def reads() -> Any:
            with reading(self._folder / str(step)):
                return self._manager.restore(step, args=self._orbax.args.StandardRestore(wanted))

        read = self._first(reads)
        if self._several:
            read = multihost_utils.broadcast_one_to_all(wanted if read is None else dict(read))
        leaves, treedef = jax.tree.flatten(like)
        found = [_like(read.get(name, leaf), leaf) for name, leaf in zip(names(like), leaves, strict=True)]
        return step, jax.tree.unflatten(treedef, found)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._several and jax.process_index():
            return
        with contextlib.ExitStack() as stack:
            if exception[0] is not None:  # what closing has to say of it was said
                stack.enter_context(contextlib.suppress(Exception))
            stack.enter_context(writing(self._folder))
            self._manager.close()


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves by their paths, without the empty ones (no multipliers, say): orbax refuses them, and none at all."""
    leaves = zip(names(tree), jax.tree.leaves(tree), strict=True)
    found = {name: _plain(name, leaf) for name, leaf in leaves if np.size(leaf)}
    return found or {"%": np.zeros(1, bool)}


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key)


def _plain(name: str, leaf: Any) -> Any:
    """A leaf as orbax knows it: a PRNG key is its bits. NumPy's stay NumPy's, for float64 is float32 in JAX."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array):
        return leaf
    array = np.asarray(leaf)
    if not jax.numpy.issubdtype(array.dtype, np.number) and array.dtype != bool:
        raise ValueError(f"a checkpoint has arrays of numbers, but {name} is {leaf!r}; leave it out of the state")
    return array


def _like(read: Any, leaf: Any) -> Any:
    if isinstance(leaf, (bool, int, float, complex)) and not isinstance(leaf, np.generic):
        return type(leaf)(np.asarray(read).item())
    if _is_key(leaf) and not _is_key(read):
        read = jax.random.wrap_key_data(jax.numpy.asarray(read), impl=jax.random.key_impl(leaf))
    # What was sent by another process is of NumPy.
    return put(read, leaf.sharding) if isinstance(leaf, jax.Array) and not isinstance(read, jax.Array) else read


def tree_bytes(tree: Any) -> int:
    """The size of a pytree of arrays in bytes.

    Example:
      >>> import jax.numpy as jnp
      >>> tree_bytes({"a": jnp.zeros((2, 3)), "b": jnp.zeros(4, jnp.int8)})
      28
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
