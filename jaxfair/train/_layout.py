"""Where the arrays of a run lie on a mesh. Nothing here moves data in a step: XLA does, from what is said here.

=====================================================  ============================================================
what                                                    where
=====================================================  ============================================================
parameters, multipliers, optimizers, masks, averages    a copy on every device of the row that has the lane
a memory of every training example, ``[N]``             each device of the row has a part, where N divides
a batch                                                 each device of the row has a part
the training split                                      a copy on every device; each machine reads its part of a batch
                                                        where it is streamed
=====================================================  ============================================================
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxfair.train.mesh import BATCH, LANES, check_mesh, mesh, put
from jaxfair.train.plan import Plan
from jaxfair.typing import Batch


class Layout(NamedTuple):
    """Of one run; hashable, so that what is compiled for it is kept.

    Attributes:
      mesh: of the devices; None where everything stays where it is.
      mapped: whether the first axis of a state is the lanes.
      people: N, by which what is kept of every example is recognised. A matrix with as many rows is divided likewise,
        which changes where it lies and no number.
    """

    mesh: Mesh | None
    mapped: bool
    people: int

    @property
    def spans(self) -> bool:
        """Whether other processes have a part."""
        return self.mesh is not None and self.mesh.is_multi_process

    @property
    def writes(self) -> bool:
        """Whether this process writes the records."""
        return not self.spans or jax.process_index() == 0

    def _at(self, *axes: str) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, P(*axes))

    def _where(self, array: Any) -> NamedSharding:
        assert self.mesh is not None
        lanes, shape = (LANES,) if self.mapped else (), np.shape(array)[self.mapped :]
        divided = shape and shape[0] == self.people and self.people % self.mesh.shape[BATCH] == 0
        return self._at(*lanes, BATCH) if divided else self._at(*lanes)

    def place(self, tree: Any) -> Any:
        """The state of lanes, where it belongs."""
        return tree if self.mesh is None else jax.tree.map(lambda a: put(a, self._where(a)), tree)

    def spread(self, tree: Any, axis: Any = 0) -> Any:
        """What each lane has of its own, undivided; with None what lanes share, a copy on every device."""
        lanes = (LANES,) if self.mapped and axis is not None else ()
        return tree if self.mesh is None else jax.tree.map(lambda a: put(a, self._at(*lanes)), tree)

    def held(self, tree: Any) -> Any:
        """Inside of a program: a state that stays where it was, so that the next call finds it there."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self._where(a)), tree)

    def shared(self, batch: Batch) -> Batch:
        """Inside of a program, in one lane: each device of a row has its part of a batch."""
        if self.mesh is None or len(batch.y) % self.mesh.shape[BATCH]:  # a whole split need not divide
            return batch
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self._at(BATCH)), batch)

    def mine(self, order: np.ndarray) -> np.ndarray:
        """The part ``[T, b]`` of an order ``[T, B]`` that this process reads."""
        if self.mesh is None:
            return order
        parts = self._at(BATCH).addressable_devices_indices_map(order.shape[1:]).values()
        return order[:, np.unique(np.concatenate([np.arange(order.shape[1])[part] for part in parts]))]

    def assembled(self, batch: Batch, size: int) -> Batch:
        """A batch of this size of the parts that the processes have read."""
        if self.mesh is None:
            return batch
        local = (np.asarray(a) for a in batch)
        make = jax.make_array_from_process_local_data
        return Batch(*(make(self._at(BATCH), a, (size, *a.shape[1:])) for a in local))

    def agreed(self, stop: bool) -> bool:
        """Whether any process was asked to stop: all of them stop at the same step."""
        return bool(multihost_utils.process_allgather(np.array(stop)).any()) if self.spans else stop


def layout(given: Mesh | None, plan: Plan, lanes: int, people: int, batch_size: int | None) -> Layout:
    """The layout of a run; without a mesh lanes are spread over the devices of this machine, where they divide.

    Raises:
      ValueError: for a mesh that the lanes or the batch cannot be divided over.
    """
    if given is None:
        devices = jax.local_devices()
        alone = len(devices) == 1 or not plan.mapped or lanes % len(devices)
        return Layout(None if alone else mesh(len(devices), 1, devices=devices), plan.mapped, people)
    check_mesh(given)
    rows, columns = given.shape[LANES], given.shape[BATCH]
    if rows > 1 and not plan.mapped:
        raise ValueError(f"a mesh of lanes={rows}, but lanes run one after another here: give train.mesh(lanes=1).")
    if lanes % rows:
        raise ValueError(f"{lanes} lanes over a mesh of lanes={rows}: give a divisor of the number of lanes.")
    if batch_size is not None and batch_size % columns:
        raise ValueError(f"batch_size={batch_size} over a mesh of batch={columns}: give a multiple of {columns}.")
    return Layout(given, plan.mapped, people)
