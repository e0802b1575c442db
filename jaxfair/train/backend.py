"""What the machine and the model ask of the loop: how many steps a call takes, and whether seeds are mapped."""

from collections.abc import Callable
from typing import Any

import jax


def has_convolution(function: Callable[..., Any], *args: Any) -> bool:
    """Whether a function, traced on these arguments, contains a convolution.

    XLA runs convolutions on a CPU many times slower inside a loop, and slower per lane when they are mapped. Measured
    with jax 0.10.2 on two cores, ResNet-20, batch 128: 0.74 s a step alone, 20.9 s inside ``scan``, 3.4 times the time
    per lane under ``vmap``. So there a run takes one step per call and its seeds one after another.

    Example:
      >>> import jax.numpy as jnp
      >>> has_convolution(jnp.dot, jnp.ones((2, 2)), jnp.ones((2, 2)))
      False
    """

    def within(jaxpr: Any) -> bool:
        for equation in jaxpr.eqns:
            if "conv_general" in equation.primitive.name:
                return True
            for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns") and within(inner):
                    return True
        return False

    return within(jax.make_jaxpr(function)(*args).jaxpr)
