"""The words that the whole library shares: names of dimensions, aliases of arrays, and the three seams.

Dimensions, wherever a shape is written:

====  ==========================================================================
B     examples in a minibatch
G     groups of people (or of images); a group is an integer in ``[0, G)``
C     classes
F     features that the last layer reads
K     constraints
N     examples in a split
M     outcomes that a memory keeps per group
S     seeds, the vmapped axis of a run
T     steps of a run
D     features
====  ==========================================================================

The three seams are :class:`Batch` (what data gives to training), :class:`Model` (what a network gives to training) and
:class:`Solver` (what an algorithm gives to training). The library never asks what is behind them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

#: An array of JAX.
Array: TypeAlias = jax.Array
#: A PRNG key, made by ``jax.random.key``.
Key: TypeAlias = jax.Array
#: A pytree of parameters: nested dicts of arrays.
Params: TypeAlias = Any
#: A pytree of model state that is not trained by gradient: BatchNorm statistics, say. ``{}`` where there is none.
ModelState: TypeAlias = Any
#: A number, or a function of the step that gives one (an ``optax.Schedule``).
ScalarOrSchedule: TypeAlias = ArrayLike | Callable[[Any], Any]


class Batch(NamedTuple):
    """Examples with their groups: a minibatch, or a whole split.

    Attributes:
      x: ``[B, ...]`` features.
      y: ``[B]`` int32 class in ``[0, C)``. With another number the example has no class: it has a loss of 0, nobody is
        right about it, and in rates it is nobody.
      group: ``[B]`` int32 group in ``[0, G)``. With another number the example belongs to no group, and counts with
        everybody only.
      index: ``[B]`` int32 position of the example in its own split, unique within the split. A memory of
        every training example's last outcome is addressed by it; another number is nobody's. An example may be in a
        batch several times: means over the batch count it as often, and such a memory keeps its last outcome.
      weight: ``[B]`` float32, at least 0: how much the example counts; 1, and 0 for padding, where there is no more to
        say. Every mean in the library is weighted by it. Of a person that counts four times as much there is still one,
        so a common factor of all weights changes no mean and no standard error.

    Example:
      >>> import numpy as np
      >>> batch = Batch(
      ...     x=np.zeros((3, 2), np.float32), y=np.array([0, 1, 1], np.int32), group=np.array([0, 0, 1], np.int32),
      ...     index=np.arange(3, dtype=np.int32), weight=np.ones(3, np.float32))
      >>> batch.x.shape
      (3, 2)
    """

    x: Any
    y: jax.Array | np.ndarray
    group: jax.Array | np.ndarray
    index: jax.Array | np.ndarray
    weight: jax.Array | np.ndarray


class Split(NamedTuple):
    """A network cut before its last layer: the same network as two functions, one after the other.

    Who retrains the last layer alone, or mixes what it reads, needs no more of a network than this. The law, bit for
    bit where both sides are one program (or both none):
    ``head(params, features(params, state, x, train=t, key=k)[0]) == apply(params, state, x, train=t, key=k)[0]``, and
    the new state is that of ``apply``.

    Attributes:
      features: ``features(params, state, x, *, train, key=None) -> (z, state)``; ``z`` is ``[B, F]``.
      head: ``head(params, z) -> logits``, ``[B, C]``, affine in ``z``. ``params`` are those of the whole network.
      in_head: ``in_head(path) -> bool``, whether a leaf of ``params`` is of the head, such as ``"Dense_1/kernel"``.

    Example:
      A network of two matrices, by hand:

      >>> import jax.numpy as jnp
      >>> def features(params, state, x, *, train, key=None):
      ...     return jax.nn.relu(x @ params["hidden"]), state
      >>> split = Split(features, lambda params, z: z @ params["last"], lambda path: path == "last")
      >>> params = {"hidden": jnp.eye(2), "last": jnp.ones((2, 3))}
      >>> split.head(params, split.features(params, {}, jnp.array([[2.0, -1.0]]), train=False)[0]).tolist()
      [[2.0, 2.0, 2.0]]
    """

    features: Callable[..., tuple[jax.Array, ModelState]]
    head: Callable[[Params, Any], jax.Array]
    in_head: Callable[[str], bool]


class Model(NamedTuple):
    """A network as three functions; what is inside is nobody's business.

    Attributes:
      init: ``init(key, x) -> (params, state)``. ``x`` is one batch of inputs, ``[B, ...]``; only its shape and
        dtype matter. ``params`` are nested dicts, ``state`` is ``{}`` for a network without one.
      apply: ``apply(params, state, x, *, train, key=None) -> (logits, state)``, pure. ``logits`` is ``[B, C]``.
        With ``train=False`` the state comes back as it went in.
      prunable: ``prunable(path) -> bool`` for the path of a leaf of ``params``, such as ``"Conv_1/kernel"``: the
        model itself knows which of its layers are the first and the last.
      split: the same network cut before its last layer, as :class:`Split`; None where that is not known. Who replaces
        ``apply`` replaces this too.

    Example:
      A linear model, written by hand:

      >>> import jax, jax.numpy as jnp
      >>> def init(key, x):
      ...     return {"kernel": jax.random.normal(key, (x.shape[-1], 2))}, {}
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x @ params["kernel"], state
      >>> linear = Model(init, apply, prunable=lambda path: path.endswith("kernel"))
      >>> params, state = linear.init(jax.random.key(0), jnp.zeros((1, 3)))
      >>> linear.apply(params, state, jnp.zeros((5, 3)), train=False)[0].shape
      (5, 2)
    """

    init: Callable[..., tuple[Params, ModelState]]
    apply: Callable[..., tuple[jax.Array, ModelState]]
    prunable: Callable[[str], bool]
    split: Split | None = None


def split_of(network: Any) -> Split:
    """A network's :class:`Split`, or one line that says how to make it.

    Args:
      network: a `Model`, or a `Split`.

    Raises:
      TypeError: for what is neither.
      ValueError: for a model without.

    Example:
      >>> split_of(Model(init=None, apply=None, prunable=None))
      Traceback (most recent call last):
      ...
      ValueError: the network is not cut before its last layer: give head= to models.linen or .nnx, or Model(split=...).
    """
    if isinstance(network, Split):
        return network
    if not isinstance(network, Model):
        raise TypeError(f"{type(network).__name__} is no network: give a Model that has a split, or a typing.Split.")
    if network.split is None:
        raise ValueError(
            "the network is not cut before its last layer: give head= to models.linen or .nnx, or Model(split=...)."
        )
    return network.split


class Stage(NamedTuple):
    """A layer that makes channels, hands each on by itself (depthwise), or reads them.

    Attributes:
      kernel: path of the weights, such as ``"Block_0/Conv_0/kernel"``.
      axis: of the channels in it: -1 where they are made, -2 where they are read; -1 is its output then. A dense layer
        that reads a flattened image has a multiple of the channels there.
      bias: path of the bias, axis 0 along the outputs; None without.
      norm: path of the BatchNorm directly behind, such as ``"Block_0/BatchNorm_0"``; None without.
      activation: behind it, ``"identity"``, ``"relu"``, ``"relu6"`` or ``"gelu"`` (the exact one).
      padded: whether it pads the image that it reads with zeros.
      epsilon: of the BatchNorm.
    """

    kernel: str
    axis: int = -1
    bias: str | None = None
    norm: str | None = None
    activation: str = "relu"
    padded: bool = False
    epsilon: float = 1e-5


class Channels(NamedTuple):
    """The channels between some layers.

    Attributes:
      stages: the layer that makes them, then those that hand each on by itself.
      readers: all layers that read the last stage. A constant can go into their bias, or their norm.
      shares: (path, axis) of further parameters that have these channels, such as the queries of a head.
    """

    stages: tuple[Stage, ...]
    readers: tuple[Stage, ...]
    shares: tuple[tuple[str, int], ...] = ()


class Solver(NamedTuple):
    """An algorithm as two functions: what `jaxfair.train` runs, whatever it solves.

    Constrained problems, bilevel ones, quantisation-aware training, robust objectives and plain descent are all
    solvers. The trainer reads ``state.params``, ``state.step`` and ``info.loss``, and where there is one the model
    state: ``state.model_state``, or ``state.carry.model_state``. Nothing else is asked of them.

    Attributes:
      init: ``init(params, ...) -> state``, a pytree with ``params`` and ``step``, a scalar int32: the number of steps
        taken. What else it takes and holds (multipliers, masks, an adversary) is the algorithm's own.
      step: ``step(state, batch, key) -> (state, info)``, pure: jit, vmap and scan it freely. ``info.loss`` is a scalar,
        measured before the step.

    Example:
      Gradient descent on a mean, written by hand:

      >>> import jax, jax.numpy as jnp
      >>> class State(NamedTuple):
      ...     params: jax.Array
      ...     step: jax.Array
      >>> class Info(NamedTuple):
      ...     loss: jax.Array
      >>> def step(state, batch, key):
      ...     loss, gradient = jax.value_and_grad(lambda p: jnp.mean((p - batch) ** 2))(state.params)
      ...     return State(state.params - 0.25 * gradient, state.step + 1), Info(loss)
      >>> solver = Solver(init=lambda params: State(params, jnp.int32(0)), step=step)
      >>> state, info = solver.step(solver.init(jnp.float32(0.0)), jnp.array([1.0, 3.0]), None)
      >>> float(state.params), float(info.loss)
      (1.0, 5.0)
    """

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, Any]]


def whole(number: Any) -> int | None:
    """A whole number of Python, NumPy or JAX as Python's integer; None for what is none: 2.5, nan, inf, True, "2".

    Args:
      number: anything. A float without a fraction, such as 1e4, is whole; a traced number has no value yet.

    Example:
      >>> whole(np.float32(3)), whole(np.int8(3)), whole(2.5), whole(float("inf")), whole(True)
      (3, 3, None, None, None)
    """
    if isinstance(number, Tracer) or np.shape(number) != ():
        return None
    value = np.asarray(number)
    if value.dtype.kind in "iu":
        return int(value)
    if value.dtype.kind not in "fVO":  # bfloat16 is a float, though NumPy does not know it
        return None
    try:
        value = value.astype(np.float64)
    except (TypeError, ValueError):
        return None
    return int(value) if np.isfinite(value) and value == np.floor(value) else None


def check_count(name: str, value: Any, low: int = 1) -> None:
    """Refuses what is no whole number, or too small a one; also a traced number, of which nobody can know it.

    Args:
      name: for the message.
      value: anything.
      low: the smallest that will do.

    Raises:
      ValueError: with the name and the value.

    Example:
      >>> check_count("num_groups", 0)
      Traceback (most recent call last):
      ...
      ValueError: num_groups=0: give a whole number of at least 1.
    """
    number = whole(value)
    if number is None or number < low:
        raise ValueError(f"{name}={value}: give a whole number of at least {low}.")
