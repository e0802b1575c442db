"""What a weight is worth: a score per weight, of which the largest are kept.

A score is a function ``score(weights, gradients)`` of two arrays of one shape; the result has that
shape, too. ``gradients`` is None where there are none, in ``init``.
"""

import jax.numpy as jnp
from jaxtyping import Float

from jaxfair.typing import Array


def magnitude(
    weights: Float[Array, "..."], gradients: Float[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """The absolute value of the weight.

    Args:
      weights: ``[...]``.
      gradients: not used.

    Returns:
      ``[...]``, in the weights' dtype.

    Example:
      >>> magnitude(jnp.array([-2.0, 1.0])).tolist()
      [2.0, 1.0]
    """
    del gradients
    return jnp.abs(weights)


def saliency(
    weights: Float[Array, "..."], gradients: Float[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """To first order, how much the loss changes when the weight is removed: ``|weight * gradient|``.

    Args:
      weights: ``[...]``.
      gradients: ``[...]``, of the loss by the weights, as they came from the loss and before any
        optimizer.

    Returns:
      ``[...]``, in the weights' dtype.

    Raises:
      ValueError: without gradients, that is at step 0.

    Example:
      >>> saliency(jnp.array([-2.0, 1.0]), jnp.array([0.5, 3.0])).tolist()
      [1.0, 3.0]

    References:
      Molchanov et al., *Pruning convolutional neural networks for resource efficient inference*,
      2017.
    """
    if gradients is None:
        raise ValueError(
            "saliency needs gradients and there are none in init; begin the schedule at step 1 or later"
        )
    return jnp.abs(weights * gradients.astype(weights.dtype))
