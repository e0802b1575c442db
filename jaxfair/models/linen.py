"""A Flax Linen module as a `Model`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxfair.typing import Model


def linen(module: nn.Module, *, prunable: Callable[[str], bool]) -> Model:
    """Puts a Linen module behind the seam that the library sees.

    Args:
      module: its ``__call__(x, *, train)`` gives the logits ``[B, C]``. Dropout and the like draw
        from the stream called ``"dropout"``.
      prunable: which leaves of the parameters may be pruned, from a path such as
        ``"Conv_0/kernel"``.

    Returns:
      The `Model`. Its state is the dict of the module's other collections, such as
      ``{"batch_stats": ...}``, or ``{}``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> class Linear(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x, *, train):
      ...         return nn.Dense(2)(x)
      >>> model = linen(Linear(), prunable=lambda path: path.endswith("kernel"))
      >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
      >>> jax.tree.map(jnp.shape, params), state
      ({'Dense_0': {'bias': (2,), 'kernel': (3, 2)}}, {})
    """

    def init(key, x):
        state = dict(module.init({"params": key}, x, train=False))
        params = state.pop("params")
        return params, state

    def apply(params, state, x, *, train, key=None) -> tuple[Any, Any]:
        variables = {"params": params, **state}
        rngs = None if key is None else {"dropout": key}
        if not (train and state):
            return module.apply(variables, x, train=train, rngs=rngs), state
        logits, new_state = module.apply(variables, x, train=train, rngs=rngs, mutable=list(state))
        return logits, dict(new_state)

    return Model(init, apply, prunable)
