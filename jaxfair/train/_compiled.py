"""What a fit compiles, kept for the next fit of the same solver, meter, order and plan; of the last 32 of each."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from jaxfair.train._layout import Layout
from jaxfair.train.mesh import LANES
from jaxfair.train.meters import Meter
from jaxfair.train.step import TrainState, init_state, make_chunk, make_step, make_streamed_chunk
from jaxfair.typing import Batch, Key


@functools.lru_cache(maxsize=32)
def starter(meter: Meter, average: bool) -> Callable[..., TrainState]:
    """``init(start, kept, settings) -> state`` over lanes."""

    def init(start: Any, kept: Any, settings: Any) -> TrainState:
        return init_state(start, meter, average=average, kept=kept, settings=settings)

    return jax.jit(jax.vmap(init))


@functools.lru_cache(maxsize=32)
def mover(
    solver: Any,
    meter: Meter,
    *,
    average_from: int | None,
    average_decay: float,
    mapped: bool,
    streamed: bool,
    split_axes: Batch,
    whole: bool,
    donate: bool,
    layout: Layout,
) -> Callable[..., TrainState]:
    """A chunk of steps, or a step on a batch that was read on the host; over lanes where they are mapped."""

    def step(state: TrainState, batch: Batch, key: Key) -> TrainState:
        made = solver if hasattr(solver, "step") else solver(state.settings)
        one = make_step(made.step, meter=meter, average_from=average_from, average_decay=average_decay)
        return one(state, layout.shared(batch), key)

    chunk = make_streamed_chunk(step) if streamed else make_chunk(step, whole=whole)
    if mapped:
        axes = None if all(axis is None for axis in split_axes) else split_axes
        lanes = None if layout.mesh is None else LANES
        chunk = jax.vmap(chunk, (0, axes, 0) if streamed else (0, axes, 0, 0), spmd_axis_name=lanes)

    def held(*args: Any) -> TrainState:
        return layout.held(chunk(*args))

    return jax.jit(held, donate_argnums=0) if donate else jax.jit(held)


@functools.lru_cache(maxsize=32)
def drawer(order: Callable[[Key, Any], Any], mapped: bool) -> Callable[..., Any]:
    """``order(keys, epoch)``, over lanes where they are mapped."""
    return jax.jit(jax.vmap(order, in_axes=(0, None)) if mapped else order)


@functools.lru_cache(maxsize=32)
def reader(meter: Meter) -> Callable[..., dict[str, Any]]:
    """``meter.read`` over lanes."""
    return jax.jit(jax.vmap(meter.read))
