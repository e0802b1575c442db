"""Splits that do not fit in memory: the features stay where they are, everything else is an array.

A split is a :class:`~jaxfair.typing.Batch` either way. In memory ``x`` is an array; streamed, it is
a :class:`Source`, which reads examples when it is indexed. ``split.x[indices]`` means the same for
both, so code that gathers need not know, and :func:`stream` reads ahead on threads (grain) where it
matters.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data._errors import DataError, extra
from jaxfair.typing import Batch


class Source:
    """Features that are read when they are indexed: an array as far as ``x[indices]`` goes.

    Attributes:
      shape: ``(N, ...)``, as of the array that it stands for.
      dtype: of what indexing gives: float32.

    Example:
      Five rows of a source of squares, the last one first:

      >>> read = lambda row: np.full(2, row**2, np.float32)
      >>> x = Source(read, rows=np.array([4, 3, 2, 1, 0]), shape=(2,))
      >>> x, len(x)
      (Source(shape=(5, 2), dtype=float32), 5)
      >>> x[[0, 3]].tolist()
      [[16.0, 16.0], [1.0, 1.0]]
    """

    def __init__(self, read: Callable[[int], np.ndarray], rows: np.ndarray, shape: tuple[int, ...]):
        """Features of ``rows``.

        Args:
          read: row -> its features, float32 of shape ``shape``. Called from several threads at
            once.
          rows: ``[N]`` the row of each example.
          shape: of one example.
        """
        self._read = read
        self._rows = np.asarray(rows, np.int64)
        self.shape = (len(self._rows), *shape)
        self.dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: Any) -> np.ndarray:
        """The features at an integer, a slice or an array of integers, in that order."""
        rows = self._rows[np.asarray(indices) if not isinstance(indices, slice) else indices]
        if rows.ndim == 0:
            return self._one(int(rows))
        out = np.empty((rows.size, *self.shape[1:]), self.dtype)
        for i, row in enumerate(rows.reshape(-1)):
            out[i] = self._one(int(row))
        return out.reshape(*rows.shape, *self.shape[1:])

    def _one(self, row: int) -> np.ndarray:
        x = self._read(row)
        if x.shape != self.shape[1:]:
            raise DataError(
                f"row {row} has features of shape {x.shape}, the others {self.shape[1:]}: repair or remove it"
            )
        return x

    def __repr__(self) -> str:
        return f"Source(shape={self.shape}, dtype={self.dtype})"


def gather(split: Batch, indices: Any) -> Batch:
    """The examples at these positions of a split, in this order, as numpy arrays.

    Args:
      split: of a :class:`~jaxfair.data.Dataset`, in memory or streamed.
      indices: integers of any shape ``[...]``, in ``[0, N)``.

    Returns:
      A batch whose arrays have the leading shape ``[...]``.

    Example:
      >>> from jaxfair import data
      >>> batch = data.gather(data.load("digits").train, [5, 3])
      >>> batch.x.shape, batch.index.tolist()
      ((2, 8, 8, 1), [5, 3])
    """
    indices = np.asarray(indices)
    return Batch(*(field[indices] for field in split))


def num_bytes(split: Batch) -> int:
    """The bytes that a split's features take as an array.

    Args:
      split: of a :class:`~jaxfair.data.Dataset`, in memory or streamed.

    Example:
      >>> from jaxfair import data
      >>> data.num_bytes(data.load("digits").train)  # 1,260 images of 64 pixels of 4 bytes
      322560
    """
    return math.prod(split.x.shape) * np.dtype(split.x.dtype).itemsize


def fits(split: Batch, *, max_bytes: int) -> bool:
    """Whether the features of a split take at most ``max_bytes`` in memory (or on a device).

    Example:
      >>> from jaxfair import data
      >>> digits = data.load("digits")  # 1,260 images of 64 pixels of 4 bytes
      >>> data.fits(digits.train, max_bytes=322_560), data.fits(digits.train, max_bytes=322_559)
      (True, False)
    """
    return num_bytes(split) <= max_bytes


class _Batches(NamedTuple):
    """Random access to batches, as grain wants it: one element is one batch."""

    split: Batch
    order: np.ndarray

    def read(self, step: int) -> Batch:
        return gather(self.split, self.order[step])


def stream(split: Batch, order: np.ndarray, *, num_threads: int = 8, prefetch: int = 16) -> Iterator[Batch]:
    """Minibatches in a given order, read ahead on threads.

    The batches are those of ``gather(split, order[t])`` for t = 0, 1, ..., bit for bit, whatever
    the number of threads: who makes the order decides everything, and a run resumes at step t with
    ``order[t:]``.

    Args:
      split: of a :class:`~jaxfair.data.Dataset`, in memory or streamed.
      order: ``[T, B]`` integers, the positions of each step's examples in the split.
      num_threads: that read at once, each a whole batch. 0 reads in the caller's thread.
      prefetch: batches that are read ahead at most.

    Yields:
      ``T`` batches of ``B`` examples, as numpy arrays.

    Raises:
      DataError: ``order`` is not a matrix of integers in ``[0, N)``, or grain is not installed.

    Example:
      >>> import numpy as np
      >>> from jaxfair import data
      >>> order = np.arange(12).reshape(3, 4)
      >>> [batch.index.tolist() for batch in data.stream(data.load("digits").train, order)]
      [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    """
    order = np.asarray(order)
    size = len(split.y)
    if order.ndim != 2 or order.dtype.kind not in "iu":
        raise DataError(f"order has shape {order.shape} and type {order.dtype}: give integers of shape [T, B]")
    if order.size and not (order.min() >= 0 and order.max() < size):
        raise DataError(
            f"order names example {order.max() if order.max() >= size else order.min()} of a split "
            f"of {size}: give positions in [0, {size})"
        )
    grain = extra("grain", need="data.stream")
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    batches = _Batches(split, order)
    steps = grain.MapDataset.range(len(order)).map(batches.read)
    return iter(steps.to_iter_dataset(options))


def in_memory(split: Batch, *, num_threads: int = 8) -> Batch:
    """The split with its features as one array; itself where they are one already.

    Args:
      split: of a :class:`~jaxfair.data.Dataset`, in memory or streamed.
      num_threads: that read at once.

    Example:
      >>> x = Source(lambda row: np.full(2, row, np.float32), rows=np.array([7, 5]), shape=(2,))
      >>> zeros, index = np.zeros(2, np.int32), np.arange(2, dtype=np.int32)
      >>> in_memory(Batch(x, y=zeros, group=zeros, index=index, weight=np.ones(2, np.float32))).x
      array([[7., 7.],
             [5., 5.]], dtype=float32)
    """
    if isinstance(split.x, np.ndarray):
        return split
    x = np.empty(split.x.shape, split.x.dtype)
    size = max(1, min(256, len(x)))
    whole = len(x) - len(x) % size
    order = np.arange(whole).reshape(-1, size)
    for batch in stream(split, order, num_threads=num_threads):
        x[batch.index] = batch.x
    x[whole:] = split.x[whole:]
    return split._replace(x=x)
