"""Which dead weights come to life, and what share of the living makes room for them: parts of `regrow`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair.sparsity import _axes, _numbers
from jaxfair.typing import Array, Key


@_axes.value("grow")
def by_gradient(weights: Array, gradients: Array | None, key: Key) -> Array:
    """Growth by the size of the dense gradient, as RigL.

    Example:
      >>> by_gradient(jnp.zeros(2), jnp.array([-3.0, 1.0]), jax.random.key(0)).tolist()
      [3.0, 1.0]
    """
    del key
    return jnp.zeros_like(weights) if gradients is None else jnp.abs(gradients)


@_axes.value("grow")
def at_random(weights: Array, gradients: Array | None, key: Key) -> Array:
    """Growth of any dead weight with the same probability, as SET.

    Example:
      >>> drawn = [at_random(jnp.zeros(4), None, jax.random.key(i)).argmax() for i in range(40)]
      >>> sorted({int(i) for i in drawn})
      [0, 1, 2, 3]
    """
    del gradients
    # A number of 16 bits has 128 values there: of equal ones the first would grow.
    return jax.random.uniform(key, weights.shape, jnp.promote_types(weights.dtype, jnp.float32))


def cosine_drop(first: ArrayLike, end: Any) -> Callable[[Any], Array]:
    r"""The share of exchanged weights falls from `first` to 0: :math:`\frac{f}{2}(1 + \cos(\pi t / T))`.

    Raises:
      ValueError: for a share outside of [0, 1], or a step that is no whole number.

    Example:
      >>> share = cosine_drop(0.3, 100)
      >>> [round(float(share(t)), 3) for t in (0, 50, 100, 200)]
      [0.3, 0.15, 0.0, 0.0]
    """
    _numbers.within("first", first, 0, 1, hint="0.3 exchanges 30 % of the living")
    end = _numbers.whole("end", end)

    def share(step):
        t = jnp.minimum(jnp.asarray(step, jnp.float32) / max(end, 1), 1.0)
        return jnp.asarray(first, jnp.float32) / 2 * (1 + jnp.cos(np.float32(np.pi) * t))

    return share
