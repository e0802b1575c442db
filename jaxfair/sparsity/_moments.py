"""Optimizer moments of weights that come back: they start afresh.

A weight that was pruned and lives again has moments of another life. Which parts of an optimizer's
state belong to which weight is what `optax.tree.map_params` knows: there is no list of state classes here.
It cannot read the state of `optax.lbfgs`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxfair.typing import Params


def reset_moments(inner: optax.GradientTransformation, inner_state: Any, params: Params, newcomers: Any) -> Any:
    """Sets what the optimizer remembers of some weights to what ``init`` would give them.

    Args:
      inner: the optimizer.
      inner_state: its state.
      params: the parameters.
      newcomers: the structure of `params`; bool, of the leaf's shape or ``[]``; True = start again.

    Returns:
      The state. Counters and other parts that belong to no single weight stay as they are, and so do
      moments that have not the shape of their weights (the factors of adafactor). Where ``init``
      gives something else than zero (the accumulator of adagrad), that is what they get.

    Example:
      >>> params = {"w": jnp.zeros(2)}
      >>> inner = optax.trace(0.9)
      >>> state = inner.update({"w": jnp.ones(2)}, inner.init(params))[1]
      >>> reset_moments(inner, state, params, {"w": jnp.array([True, False])}).trace["w"].tolist()
      [0.0, 1.0]
    """

    def is_gap(x):  # where `optax.partition` and `optax.masked` leave a parameter out
        return isinstance(x, optax.MaskedNode)

    # A tree of the state's structure with a flag per weight, or one False for the whole leaf.
    flags = optax.tree.map_params(
        inner,
        lambda leaf, new: leaf if is_gap(leaf) else new,
        inner_state,
        newcomers,
        transform_non_params=lambda leaf: False,
        is_leaf=is_gap,
    )

    def choose(flag, leaf, fresh):
        if flag is False or jnp.shape(flag) not in ((), jnp.shape(leaf)):
            return leaf
        return jnp.where(flag, fresh, leaf)

    return jax.tree.map(choose, flags, inner_state, inner.init(params))
