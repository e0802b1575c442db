"""A multilayer perceptron."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxfair.models.linen import linen
from jaxfair.typing import Model


class _MLP(nn.Module):
    num_classes: int
    hidden: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        del train  # nothing here depends on it
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        x = nn.Dense(self.num_classes, dtype=self.dtype)(x)
        return x.astype(jnp.float32)


def mlp(num_classes: int, *, hidden: Sequence[int] = (256, 256), dtype: Any = jnp.float32) -> Model:
    """Dense layers with ReLU between them.

    The layers are ``Dense_0`` to ``Dense_{len(hidden)}``, each with a ``kernel`` and a ``bias``.
    The kernels of the hidden layers are prunable; the last layer and all biases stay dense.

    Args:
      num_classes: C.
      hidden: widths of the hidden layers; ``()`` makes a linear model, with nothing to prune.
      dtype: of the computation. Parameters are float32 always, and so are the logits.

    Returns:
      The `Model`: ``[B, ...] -> [B, C]``, inputs flattened, with the state ``{}``.

    Example:
      >>> import jax
      >>> from jaxfair import tree
      >>> model = mlp(2, hidden=(8,))
      >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 5)))
      >>> tree.map_with_path(lambda path, leaf: (leaf.shape, model.prunable(path)), params)["Dense_0"]
      {'bias': ((8,), False), 'kernel': ((5, 8), True)}
      >>> model.apply(params, state, jnp.zeros((3, 5)), train=False)[0].shape
      (3, 2)
    """
    hidden_kernels = frozenset(f"Dense_{i}/kernel" for i in range(len(hidden)))
    module, last = _MLP(num_classes, tuple(hidden), dtype), f"Dense_{len(hidden)}"
    return linen(module, prunable=lambda path: path in hidden_kernels, head=last)
