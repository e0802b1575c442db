r"""A smooth error of one example: 1 - u(margin), with which a gap of accuracies has a gradient.

The margin of an example is :math:`t = z_y - \max_{c \ne y} z_c`, above 0 where it is right; of two classes that is
:math:`y f(x)`. A mean over a group of the indicator :math:`1[t > 0]` is its accuracy, so a gap of means of
:math:`1 - u(t)` is a smooth gap of accuracies, for any number of groups and classes:

==============  =====================================  ==========================================================
u               formula                                what it is
==============  =====================================  ==========================================================
``"sigmoid"``   :math:`1 / (1 + e^{-\beta t})`         tight: the indicator for a steep :math:`\beta`
``"hinge"``     :math:`\min(1, \beta t)`               concave, unbounded below: 1 - u is the hinge loss
``"linear"``    :math:`\beta t`                        no example is ever done with; the mean is linear in z
==============  =====================================  ==========================================================

How this differs from Wu et al. and BiFP: they write the gap of two groups as one mean over everybody,
:math:`\frac 1N \sum_i u(s_i y_i f_i) / p(s_i) - 1` with s in {-1, 1}, which for :math:`u(-t) = 1 - u(t)` is the same
number; as BiFP prints it, without the s, it is not a gap at all.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxfair.constraints._numbers import check_number, check_word
from jaxfair.constraints._people import check_logits
from jaxfair.constraints.losses import Loss
from jaxfair.typing import Batch


def soft_error(u: str = "sigmoid", *, steepness: ArrayLike = 1.0) -> Loss:
    r"""The loss 1 - u(margin) of one example.

    Args:
      u: ``"sigmoid"``, ``"hinge"`` or ``"linear"``.
      steepness: :math:`\beta` above 0.

    Returns:
      ``loss(logits [B, C], batch) -> [B]``, for ``proxy_loss=`` of a problem, or ``loss=``.

    Raises:
      ValueError: for another word, or a steepness that is not above 0, unless traced.

    Example:
      A steep sigmoid is the error itself:

      >>> batch = Batch(None, jnp.array([0, 0]), None, None, None)
      >>> logits = jnp.array([[3.0, 1.0, 0.0], [0.0, 1.0, -5.0]])
      >>> soft_error(steepness=50.0)(logits, batch).tolist()
      [0.0, 1.0]
      >>> soft_error("hinge")(logits, batch).tolist()
      [0.0, 2.0]

    References:
      Wu, Zhang, Wu, `On convexity and bounds of fairness-aware classification <https://dl.acm.org/doi/10.1145/3308558.3313723>`_,
      2019.
    """
    check_word("u", u, ("sigmoid", "hinge", "linear"))
    check_number(steepness, lambda s: (s > 0) & jnp.isfinite(s), f"steepness={steepness}: give a number above 0.")

    def loss(logits: Float[Array, "B C"], batch: Batch) -> Float[Array, " B"]:
        check_logits(logits, batch.y)
        z = logits.astype(jnp.float32)
        own = jax.nn.one_hot(jnp.asarray(batch.y), z.shape[1], dtype=bool)
        margin = jnp.sum(jnp.where(own, z, 0.0), axis=1) - jnp.max(jnp.where(own, -jnp.inf, z), axis=1)
        t = jnp.asarray(steepness, jnp.float32) * margin
        if u == "sigmoid":
            return jax.nn.sigmoid(-t)
        return 1.0 - (jnp.minimum(t, 1.0) if u == "hinge" else t)

    return loss
