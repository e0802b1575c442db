r"""Optimistic Adam: optimism on Adam's direction.

One gradient per step, ``g_t = F(w_t)``:

.. code-block:: text

    r_t    = m^_t / (sqrt(v^_t) + eps)             Adam's direction, with bias correction
    r_{-1} = r_0
    w_{t+1} = w_t - eta [r_t + o (r_t - r_{t-1})]

A heuristic for GANs; no guarantee for games is known. Its first step is Adam's.

=============  =================
paper          here
=============  =================
eta            ``learning_rate``
beta_1         ``b1``
beta_2         ``b2``
=============  =================

How this differs: from the authors' code, by the first step (there ``r_{-1} = 0``, a double step) and by a free
optimism; from `optax.optimistic_adam_v2`, by an optimism that may be a schedule or one number per
player, and by plain rather than Nesterov momentum, as in the paper.

References:
  Daskalakis, Ilyas, Syrgkanis and Zeng, `Training GANs with Optimism <https://arxiv.org/abs/1711.00141>`_, 2018.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, DTypeLike

from jaxfair.optim import numbers
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class OptimisticAdamState(NamedTuple):
    """The state of `scale_by_optimistic_adam`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      adam: the state of `optax.scale_by_adam`.
      previous: the structure of the parameters, `accumulator_dtype`: Adam's last direction. Zeros
        before the first step.
    """

    count: Array
    adam: Any
    previous: Any


def scale_by_optimistic_adam(
    optimism: Rate = 1.0,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `optimistic_adam`, without the learning rate.

    Args:
      optimism: o, relative to Adam's direction; any real number, a schedule, or a prefix tree of these.
      b1: the decay of the first moment.
      b2: the decay of the second moment.
      eps: added to the root of the second moment.
      accumulator_dtype: the dtype of both moments and of the stored direction; None is that of the
        parameters, and float32 where theirs is narrower: in float16 1e-8 is zero, and in bfloat16 0.999 is 1.

    Returns:
      The transformation. It may stand in a chain, and in `optax.partition`.

    Example:
      >>> tx = scale_by_optimistic_adam()
      >>> state = tx.init(jnp.zeros(()))
      >>> for g in (2.0, -2.0):  # Adam's directions are 1 and -0.0526
      ...     direction, state = tx.update(jnp.asarray(g), state)
      ...     print(f"{direction:.4f}")
      1.0000
      -1.1053
    """
    numbers.check_rates(optimism=optimism)
    numbers.check("b1", b1, 0.0, 1.0)
    numbers.check("b2", b2, 0.0, 1.0)
    numbers.check("eps", eps, 0.0, float("inf"))
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)

    def init_fn(params):
        # Adam keeps both moments in the dtype of what it is given.
        zeros = numbers.zeros_like(params, accumulator_dtype)
        return OptimisticAdamState(count=jnp.zeros((), jnp.int32), adam=adam.init(zeros), previous=zeros)

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        o = numbers.at(optimism, state.count)
        grads = optax.tree.cast_like(updates, state.previous)
        scaled, adam_state = adam.update(grads, state.adam)
        scaled = optax.tree.cast_like(scaled, state.previous)
        old = optax.tree.where(state.count == 0, scaled, state.previous)
        direction = numbers.map_rate(lambda o, r, m: r + o * (r - m), o, scaled, old)
        return optax.tree.cast_like(direction, updates), OptimisticAdamState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            adam=optax.tree.cast_like(adam_state, state.adam),
            previous=scaled,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def optimistic_adam(
    learning_rate: Rate,
    optimism: Rate = 1.0,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam with a look at its last direction.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      optimism: o, relative to Adam's direction; any real number, a schedule, or a prefix tree of these.
      b1: the decay of the first moment.
      b2: the decay of the second moment.
      eps: added to the root of the second moment.
      accumulator_dtype: the dtype of both moments and of the stored direction; None is that of the
        parameters, and float32 where theirs is narrower.

    Returns:
      The transformation of the joint field. Its first step is Adam's.

    Example:
      >>> tx = optimistic_adam(0.1, optimism=0.5)
      >>> updates, state = tx.update(jnp.array([2.0, -30.0]), tx.init(jnp.zeros(2)))
      >>> print(f"{updates[0]:.4f} {updates[1]:.4f}")
      -0.1000 0.1000
    """
    return optax.chain(
        scale_by_optimistic_adam(optimism, b1=b1, b2=b2, eps=eps, accumulator_dtype=accumulator_dtype),
        numbers.scale_by_rate(learning_rate),
    )
