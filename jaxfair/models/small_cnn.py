"""A convolutional network that a CPU trains in seconds an epoch."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.typing import Model, Split


def small_cnn(num_classes: int, widths: Sequence[int] = (16, 32, 32)) -> Model:
    """Three convolutions of 3 x 3 with stride 2 and a linear layer, for a CPU.

    A convolution is a product of patches here: XLA runs its own convolutions many times slower inside loops on a CPU.

    Args:
      num_classes: C.
      widths: the channels of each convolution.

    Returns:
      The `Model`: without state; its first and its last layer are not pruned.

    Example:
      >>> model = small_cnn(10, widths=(4, 8))
      >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> model.apply(params, {}, jnp.zeros((5, 32, 32, 3)), train=False)[0].shape
      (5, 10)
      >>> model.prunable("Conv_0/kernel"), model.prunable("Conv_1/kernel")
      (False, True)
    """

    def patches(x: jax.Array) -> jax.Array:
        height, width = x.shape[1:3]
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return jnp.concatenate(
            [padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)],
            axis=-1,
        )

    def init(key: jax.Array, x: jax.Array) -> tuple[Any, Any]:
        params, (side, channels) = {}, x.shape[2:]
        for i, width in enumerate(widths):
            fan_in, side = 9 * channels, -(-side // 2)
            kernel = jax.random.normal(jax.random.fold_in(key, i), (fan_in, width))
            kernel = kernel * math.sqrt(2 / fan_in)
            params[f"Conv_{i}"] = {"kernel": kernel, "bias": jnp.zeros(width)}
            channels = width
        fan_in = side * side * channels
        kernel = jax.random.normal(jax.random.fold_in(key, len(widths)), (fan_in, num_classes))
        params["last"] = {"kernel": kernel / math.sqrt(fan_in), "bias": jnp.zeros(num_classes)}
        return params, {}

    def features(params: Any, state: Any, x: jax.Array, *, train: bool, key: Any = None) -> Any:
        del train, key
        for i in range(len(widths)):
            layer = params[f"Conv_{i}"]
            x = jax.nn.relu(patches(x) @ layer["kernel"] + layer["bias"][None, None, None])
        return x.reshape(x.shape[0], -1), state

    def head(params: Any, z: jax.Array) -> jax.Array:
        return z @ params["last"]["kernel"] + params["last"]["bias"][None]

    def apply(params: Any, state: Any, x: jax.Array, *, train: bool, key: Any = None) -> Any:
        z, state = features(params, state, x, train=train, key=key)
        return head(params, z), state

    inner = frozenset(f"Conv_{i}/kernel" for i in range(1, len(widths)))
    split = Split(features, head, lambda path: path.startswith("last/"))
    return Model(init, apply, lambda path: path in inner, split)
