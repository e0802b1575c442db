r"""The optimistic gradient: one gradient per step, corrected by its last change.

With `g_t = F(w_t)`, F the joint field ``(grad_x f, -grad_y f)``:

.. code-block:: text

    g_{-1} = g_0
    w_{t+1} = w_t - eta [g_t + o (g_t - g_{t-1})]

- On a bilinear game with singular value s it converges if and only if ``o > 1/2`` and
  ``(eta s)^2 < (2 o - 1) / (o^2 (2 o + 1))``; for o = 1 that is ``eta s < 1 / sqrt(3)``, best at 1/2 with the
  rate ``1 / sqrt(2)``.
- With noise, constant optimism keeps the iterates at a distance from the saddle that does not vanish with
  the step. A *rate-separated* method does: let ``learning_rate`` decay, and optimism grow as
  ``extrapolation(t) / learning_rate(t)``.
- As the learning rate changes, the whole direction scales with it. `past_extragradient` has two separate rates.

How this differs from optax: `optax.optimistic_gradient_descent(alpha=1, beta=o)` is the same update,
but its beta cannot be a schedule or one number per player, and it has no ``accumulator_dtype``. Both take
the first gradient for the one before it; the code of Daskalakis et al. takes zero, and starts with a double step.

References:
  Popov, *A modification of the Arrow-Hurwicz method for search of saddle points*, 1980; Daskalakis, Ilyas,
  Syrgkanis and Zeng, `Training GANs with Optimism <https://arxiv.org/abs/1711.00141>`_, 2018; Mokhtari, Ozdaglar and
  Pattathil, `A Unified Analysis of Extra-gradient and Optimistic Gradient Methods
  <https://arxiv.org/abs/1901.08511>`_, 2020.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import DTypeLike

from jaxfair.optim import numbers
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class OptimisticGradientState(NamedTuple):
    """The state of `scale_by_optimistic_gradient`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      previous: the structure of the parameters, `accumulator_dtype`: the last gradient. Zeros
        before the first step, which takes its own gradient instead.
    """

    count: Array
    previous: Any


def scale_by_optimistic_gradient(
    optimism: Rate = 1.0, *, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """The direction of `optimistic_gradient`, without the learning rate.

    Args:
      optimism: o, relative to the gradient; any real number, a schedule, or a prefix tree of these.
      accumulator_dtype: the dtype of the stored gradient; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation. It may stand anywhere in a chain, and in `optax.partition`.

    Example:
      >>> tx = scale_by_optimistic_gradient()
      >>> state = tx.init(jnp.zeros(()))
      >>> for g in (2.0, 3.0, 4.0):
      ...     direction, state = tx.update(jnp.asarray(g), state)
      ...     print(direction)
      2.0
      4.0
      5.0
    """
    numbers.check_rates(optimism=optimism)

    def init_fn(params):
        previous = numbers.zeros_like(params, accumulator_dtype)
        return OptimisticGradientState(count=jnp.zeros((), jnp.int32), previous=previous)

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        o = numbers.at(optimism, state.count)
        grads = numbers.widen(updates, state.previous)
        old = optax.tree.where(state.count == 0, grads, numbers.widen(state.previous, updates))
        direction = numbers.map_rate(lambda o, g, m: g + o * (g - m), o, grads, old)
        return optax.tree.cast_like(direction, updates), OptimisticGradientState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            previous=optax.tree.cast_like(updates, state.previous),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def optimistic_gradient(
    learning_rate: Rate, optimism: Rate = 1.0, *, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent-ascent with a look at the last gradient.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      optimism: o, relative to the gradient; any real number, a schedule, or a prefix tree of these.
      accumulator_dtype: the dtype of the stored gradient; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation of the joint field. Its first step is plain SGD.

    Example:
      One number per player, and a schedule for one of them:

      >>> tx = optimistic_gradient({"x": 0.1, "y": 0.2}, {"x": 1.0, "y": lambda step: 2.0 * step})
      >>> field = {"x": jnp.asarray(1.0), "y": jnp.asarray(1.0)}
      >>> updates, state = tx.update(field, tx.init(field))
      >>> updates, state = tx.update({"x": jnp.asarray(2.0), "y": jnp.asarray(2.0)}, state)
      >>> print(f"{updates['x']:.1f} {updates['y']:.1f}")
      -0.3 -0.8
    """
    return optax.chain(
        scale_by_optimistic_gradient(optimism, accumulator_dtype=accumulator_dtype),
        numbers.scale_by_rate(learning_rate),
    )
