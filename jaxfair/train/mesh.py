"""Several devices, on one machine or on many: which of them have which lanes, and which part of each batch."""

import atexit
import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, Sharding

from jaxfair.study.interrupt import Stopped
from jaxfair.typing import whole

#: The two axes of a mesh: runs side by side, and the examples of a batch.
LANES, BATCH = "lanes", "batch"
#: What JAX says where another process has gone.
LOST = re.compile(r"Gloo|NCCL|UNAVAILABLE|heartbeat|[Cc]onnection|[Bb]arrier")


def mesh(lanes: int = 1, batch: int | None = None, *, devices: Sequence[Any] | None = None) -> Mesh:
    """Arranges devices in a table, lanes down and the examples of a batch across: for ``train.plan`` and ``train.fit``.

    Lanes do not speak to each other. The devices of a row share each batch of their lanes: every one has the whole
    network and takes its part of the examples, and the gradients, and all else that is a sum over examples, are summed
    over the row. The numbers are those of one device but for the order of those sums.

    Several machines are the same: call ``jax.distributed.initialize()`` first, in every process, and then do in each of
    them exactly the same. ``jax.devices()`` are then those of all machines, in the order of the processes, so that a
    row lies on as few machines as it can.

    Args:
      lanes: rows, a divisor of the number of lanes.
      batch: columns, a divisor of the batch size; by default all devices that are left.
      devices: all by default.

    Returns:
      A mesh with the axes ``"lanes"`` and ``"batch"``.

    Raises:
      ValueError: for numbers that are none, or more than there are devices.

    Example:
      >>> import optax
      >>> from jaxfair import data, models, train
      >>> digits, model = data.load("digits"), models.mlp(10, hidden=(16,))
      >>> found = train.dense(model, digits.train, keys=jax.random.split(jax.random.key(0), 2), epochs=1,
      ...                     batch_size=64, plan=train.plan(model, digits.train, mesh=mesh(lanes=1)))
      >>> found.params["Dense_0"]["kernel"].shape
      (2, 64, 16)
      >>> mesh(lanes=3, devices=jax.devices()[:1])
      Traceback (most recent call last):
      ...
      ValueError: lanes=3, batch=1: a mesh of 3 devices, and 1 is there: give fewer.
    """
    found = list(jax.devices() if devices is None else devices)
    rows = whole(lanes)
    columns = max(1, len(found) // max(rows or 1, 1)) if batch is None else whole(batch)
    if rows is None or columns is None or rows < 1 or columns < 1:
        raise ValueError(f"lanes={lanes}, batch={batch}: give whole numbers of at least 1.")
    if rows * columns > len(found):
        there = f"{len(found)} {'is' if len(found) == 1 else 'are'} there"
        raise ValueError(f"lanes={rows}, batch={columns}: a mesh of {rows * columns} devices, and {there}: give fewer.")
    table = np.array(found[: rows * columns]).reshape(rows, columns)
    return Mesh(table, (LANES, BATCH), axis_types=(AxisType.Auto, AxisType.Auto))


def check_mesh(given: Any) -> None:
    """Refuses what :func:`mesh` did not make.

    Raises:
      TypeError: for what is no mesh.
      ValueError: for one with other axes.

    Example:
      >>> check_mesh(4)
      Traceback (most recent call last):
      ...
      TypeError: mesh=4: give train.mesh(lanes=..., batch=...).
    """
    if not isinstance(given, Mesh):
        raise TypeError(f"mesh={given!r}: give train.mesh(lanes=..., batch=...).")
    if given.axis_names != (LANES, BATCH) or set(given.axis_types) != {AxisType.Auto}:
        raise ValueError(f"mesh with the axes {given.axis_names}: give train.mesh(lanes=..., batch=...).")


def on_host(tree: Any) -> Any:
    """The arrays of a tree in this process, wherever they lie: of lanes on other machines, too.

    Args:
      tree: of arrays; every process must ask for the same.

    Returns:
      The tree with NumPy's arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> on_host({"w": jnp.arange(3)})
      {'w': array([0, 1, 2], dtype=int32)}
    """

    def one(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
            array = multihost_utils.process_allgather(array, tiled=True)
        return np.asarray(array)

    return jax.tree.map(one, tree)


def put(array: Any, where: Sharding) -> jax.Array:
    """An array that every process has, or that lies on a mesh already, where it is to lie.

    Example:
      >>> from jax.sharding import NamedSharding, PartitionSpec
      >>> put(np.arange(2), NamedSharding(mesh(1, 1, devices=jax.devices()[:1]), PartitionSpec())).tolist()
      [0, 1]
    """
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        there = array.sharding.is_equivalent_to(where, array.ndim)
        return array if there else _moved(where)(array)
    if where.is_fully_addressable:
        return jax.device_put(array, where)
    if isinstance(array, jax.Array) and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        bits, kind = jax.random.key_data(array), jax.random.key_impl(array)
        return jax.random.wrap_key_data(put(bits, where), impl=kind)
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, where, lambda part: host[part])


@functools.lru_cache(maxsize=32)
def _moved(where: Sharding) -> Callable[[jax.Array], jax.Array]:
    """Kept, so that the ends of all epochs share what the first has compiled."""
    return jax.jit(lambda array: array, out_shardings=where)


class LostProcessError(SystemExit):
    """Another process of the run has ended: this one can do nothing more, and ends with a line.

    Start all of them again, as many as there are now, and a run with checkpoints goes on from its last.

    Example:
      It is a ``SystemExit``, so that a script that catches nothing ends with the line and the code 1:

      >>> try:
      ...     raise LostProcessError("another process has ended")
      ... except SystemExit as error:
      ...     print(error.code)
      another process has ended
    """


@contextlib.contextmanager
def told_of_lost(several: bool) -> Iterator[None]:
    """Raises one line where a sum over processes fails since one of them has gone.

    Another error, which is this process's own, passes; where nothing catches it, the process ends as soon as it has
    been told, so that the others are not left waiting.

    Args:
      several: whether there are others.

    Raises:
      LostProcessError: where one has gone.

    Example:
      >>> with told_of_lost(several=True):
      ...     raise jax.errors.JaxRuntimeError("INTERNAL: Gloo all-reduce failed: Connection reset by peer")
      Traceback (most recent call last):
      ...
      jaxfair.train.mesh.LostProcessError: another process has ended: start all again, and the run goes on from its ...
    """
    try:
        yield
    except Stopped:  # all of them have
        raise
    except (Exception, KeyboardInterrupt) as error:
        lost = isinstance(error, jax.errors.JaxRuntimeError) and LOST.search(str(error))
        if several and lost:
            atexit.register(_end_at_once)
            raise LostProcessError(
                "another process has ended: start all again, and the run goes on from its last checkpoint."
            ) from None
        if several:  # the others would wait for this one, and this one for them
            sys.excepthook = functools.partial(_told_and_ended, sys.excepthook)
        raise


def _told_and_ended(tell: Callable[..., Any], *error: Any) -> None:
    tell(*error)
    _end_at_once()


def _end_at_once() -> None:
    """JAX's own goodbye, which comes after this one, waits for minutes for the process that is gone, and aborts."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
