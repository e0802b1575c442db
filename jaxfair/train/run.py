"""A whole run as a pure function of a key: what `train.fit` does for one lane, without a host beside it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.train.meters import Meter
from jaxfair.train.order import epoch_order, steps_per_epoch
from jaxfair.train.step import TrainState, init_state, make_chunk, make_step
from jaxfair.typing import Batch, Key


def run(
    solver: Any,
    start: Any,
    split: Batch,
    key: Key,
    *,
    epochs: int,
    batch_size: int | None,
    meter: Meter | None = None,
    order: Callable[[Key, Any], Any] | None = None,
    num_steps: int | None = None,
    look: Callable[[TrainState, Any], Any] = lambda state, epoch: None,
) -> tuple[TrainState, Any]:
    """Trains one lane; ``jit`` it, and ``vmap`` it over keys, settings, splits, or all three.

    No progress, no checkpoints, no early end: for many short runs, of which whole tables are one program. Not for
    convolutions on a CPU, which are many times slower inside a loop: use :func:`fit` with a :func:`plan`.

    Args:
      solver: any :class:`~jaxfair.typing.Solver`; made inside the mapped function, its numbers may be lanes.
      start: the solver's state before the first step.
      split: the training split.
      key: of the run.
      epochs: how many.
      batch_size: B; None where every step sees the whole split.
      meter: as of :func:`fit`; it begins again after each epoch.
      order: as of :func:`fit`: ``order(key, epoch) -> [T, B]``.
      num_steps: T, of an epoch; as of :func:`fit`.
      look: ``look(state, epoch) -> what is kept of it``, at the end of each epoch.

    Returns:
      The state after the last epoch, and what was looked at, ``[E, ...]``.

    Example:
      Gradient descent of a line through two points, from five starts side by side:

      >>> import optax
      >>> from jaxfair import train
      >>> apply = lambda params, state, x, *, train, key=None: (x * params, state)
      >>> solver = train.descent(apply, optax.sgd(0.1), loss=lambda out, batch: jnp.mean((out - batch.y) ** 2))
      >>> x, index = jnp.array([1.0, 2.0]), jnp.arange(2)
      >>> split = Batch(x=x, y=3 * x, group=index, index=index, weight=jnp.ones(2))
      >>> one = lambda w, key: run(solver, solver.init(w), split, key, epochs=30, batch_size=None,
      ...                          look=lambda state, epoch: state.solver.params)
      >>> state, weights = jax.vmap(one)(jnp.arange(5.0), jax.random.split(jax.random.key(0), 5))
      >>> (state.solver.params - 3).round(2).tolist(), weights.shape
      ([0.0, 0.0, 0.0, 0.0, 0.0], (5, 30))
    """
    people, split = len(split.y), jax.tree.map(jnp.asarray, split)
    steps = num_steps or (1 if batch_size is None else steps_per_epoch(people, batch_size))
    chunk = make_chunk(make_step(solver.step, meter=meter), whole=batch_size is None)
    begun = init_state(start, meter, average=False)

    def drawn(epoch: Any) -> Any:
        if order is not None:
            return order(key, epoch)
        if batch_size is None:
            return jnp.zeros((steps, 0), jnp.int32)
        return epoch_order(
            jax.random.fold_in(key, 1), epoch, num_examples=people, batch_size=batch_size, num_steps=steps
        )  # fmt: skip

    def one(state: TrainState, epoch: Any) -> tuple[TrainState, Any]:
        moved = chunk(state._replace(meters=begun.meters), split, drawn(epoch), key)
        return moved, look(moved, epoch)

    return jax.lax.scan(one, begun, jnp.arange(epochs))
