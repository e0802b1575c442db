"""How a run is executed: seeds side by side, one after another, or streamed. Asked once, and told to everyone."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxfair.train.backend import has_convolution
from jaxfair.train.mesh import check_mesh
from jaxfair.typing import Batch, Model

LANES = ("auto", "map", "loop")


class Plan(NamedTuple):
    """What follows from the machine, the model and the size of the data; made by :func:`plan`.

    The default is right for whatever fits on the device and has no convolutions on a CPU.

    Attributes:
      mapped: whether lanes run side by side, as a vmapped axis, or one after another.
      streamed: whether the training split stays on the host and is read batch by batch.
      slow_loops: whether XLA would run this model many times slower inside a loop: convolutions on a CPU. Then there is
        one step a call, and evaluation is a loop on the host.
      steps_per_call: steps of one compiled call; 0 is a whole epoch.
      mesh: of the devices that share the work; None for one device, or lanes spread over those of this machine.

    Example:
      >>> Plan().groups(3), Plan(mapped=False).groups(3)
      ([[0, 1, 2]], [[0], [1], [2]])
    """

    mapped: bool = True
    streamed: bool = False
    slow_loops: bool = False
    steps_per_call: int = 0
    mesh: Mesh | None = None

    def groups(self, lanes: int) -> list[list[int]]:
        """Which of so many lanes run together."""
        every = list(range(lanes))
        return [every] if self.mapped else [[i] for i in every]

    def lift(self, function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        """A function of one lane as a compiled function of lanes, every array of which has them as its first axis.

        Args:
          function: of one lane.
          in_axes: as of ``jax.vmap``: None for an argument that all lanes share.

        Returns:
          The function; mapped, or called for one lane after another and stacked.

        Example:
          >>> double = Plan(mapped=False).lift(lambda a, b: a * b, in_axes=(0, None))
          >>> double(jnp.arange(3), 2).tolist()
          [0, 2, 4]
        """
        if self.mapped:
            return jax.jit(jax.vmap(function, in_axes=in_axes))
        compiled = jax.jit(function)

        def one_by_one(*args: Any) -> Any:
            axes = in_axes if isinstance(in_axes, Sequence) else [in_axes] * len(args)
            mapped = [a for a, axis in zip(args, axes, strict=True) if axis is not None]
            lanes = len(jax.tree.leaves(mapped)[0])
            results = [
                compiled(*(a if axis is None else take(a, i) for a, axis in zip(args, axes, strict=True)))
                for i in range(lanes)
            ]
            return stack(results)

        return one_by_one


def plan(
    model: Model,
    split: Batch,
    lanes: str = "auto",
    *,
    steps_per_call: int = 0,
    max_data_bytes: int = 4_000_000_000,
    mesh: Mesh | None = None,
) -> Plan:
    """Decides how a model is trained on a split, on this machine.

    Args:
      model: the network.
      split: the training split, in memory or with a lazy ``x``.
      lanes: ``"map"`` side by side, ``"loop"`` one after another, ``"auto"`` loop for convolutions on a CPU only.
      steps_per_call: steps in one compiled call; 0 is a whole epoch, 64 where batches are streamed, and 1 for
        convolutions on a CPU.
      max_data_bytes: a split whose features take more is streamed from where it is, one lane after another.
      mesh: of :func:`jaxfair.train.mesh`, for a run on several devices or machines.

    Returns:
      The :class:`Plan`.

    Raises:
      ValueError: for an unknown ``lanes``, or a negative number of steps.

    Example:
      >>> from jaxfair import data, models
      >>> plan(models.mlp(10), data.load("digits").train)
      Plan(mapped=True, streamed=False, slow_loops=False, steps_per_call=0, mesh=None)
    """
    if lanes not in LANES:
        raise ValueError(f"lanes={lanes!r}: choose one of {', '.join(map(repr, LANES))}.")
    if steps_per_call < 0:
        raise ValueError(f"steps_per_call={steps_per_call}: give a number of steps, or 0.")
    if mesh is not None:
        check_mesh(mesh)
    example = jnp.zeros((2, *split.x.shape[1:]), jnp.float32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), example)
    convolves = has_convolution(lambda p, s, x: model.apply(p, s, x, train=False), *abstract, example)
    slow_loops = convolves and jax.default_backend() == "cpu"
    streamed = math.prod(split.x.shape) * np.dtype(split.x.dtype).itemsize > max_data_bytes
    mapped = lanes == "map" or (lanes == "auto" and not slow_loops)
    # Streamed, a call is a stretch of steps that are read ahead; a stop is looked for between two calls.
    per_call = steps_per_call or (64 if streamed else 1 if slow_loops else 0)
    return Plan(mapped and not streamed, streamed, slow_loops, per_call, mesh)


def take(values: Any, lanes: Any) -> Any:
    """One lane of a tree of arrays ``[S, ...]``, or some of them.

    Example:
      >>> take({"w": jnp.arange(6).reshape(3, 2)}, 1)["w"].tolist()
      [2, 3]
    """
    return jax.tree.map(lambda a: a[lanes], values)


def stack(lanes: Sequence[Any]) -> Any:
    """Trees of one lane each as one tree of arrays ``[S, ...]``.

    Example:
      >>> stack([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])["w"].shape
      (2, 2)
    """
    return jax.tree.map(lambda *a: jnp.stack(a), *lanes)
