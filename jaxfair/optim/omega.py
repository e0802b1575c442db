r"""Omega: optimism against a moving average of the gradients instead of the last one.

One stochastic gradient per step, `g_t = F(w_t)`, with F the joint field ``(grad_x f, -grad_y f)``:

.. code-block:: text

    m_{-1} = g_0
    d_t    = g_t + o (g_t - m_{t-1})                 the old average
    w_{t+1} = w_t - eta d_t
    m_t    = b m_{t-1} + (1 - b) g_t                 updated after the step

- The optimistic gradient compares with the last gradient, which is as noisy as this one. The
  average is not, so the same correction costs less noise.
- What counts on a bilinear game is the *effective* optimism ``o / (1 - b)``: the method converges
  there if and only if ``o > (1 - b) / 2`` and the step is small enough. With `o = 1, b = 0.9` it is 10.
- Special cases: ``o = 0`` is SGD, ``b = 0`` is `optimistic_gradient`; `omegam` and `nupi` are the
  same family in other parameters. No rate of convergence has been published.

=============  =================
paper          here
=============  =================
eta            ``learning_rate``
alpha / eta    ``optimism``, a ratio to the gradient
beta           ``decay``
=============  =================

How this differs from the authors' code: there, optimism defaults to the learning rate, so that its
effect is of order eta squared; every experiment sets it to 1, which is the default here. Here it may be a
schedule, and the learning rate multiplies the whole direction once.

References:
  Ramirez, Sukumaran, Bertrand and Gidel, `Omega: Optimistic EMA Gradients
  <https://arxiv.org/abs/2306.07905>`_, 2023.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import DTypeLike

from jaxfair.optim import numbers
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class OmegaState(NamedTuple):
    """The state of `scale_by_omega` and of `scale_by_omegam`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      ema: the structure of the parameters, `accumulator_dtype`: the average of the gradients, m.
        Zeros before the first step, which sets it to the first gradient.
    """

    count: Array
    ema: Any


def scale_by_omega(
    optimism: Rate = 1.0, decay: Rate = 0.9, *, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """The direction of `omega`, without the learning rate.

    Args:
      optimism: o, relative to the gradient; any real number, a schedule, or a prefix tree of these.
      decay: b in ``[0, 1)``, the decay of the average.
      accumulator_dtype: the dtype of the average; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation. It may stand anywhere in a chain, and in `optax.partition`.

    Raises:
      ValueError: for a decay outside ``[0, 1)``.

    Example:
      >>> tx = scale_by_omega(optimism=1.0, decay=0.5)
      >>> state = tx.init(jnp.zeros(()))
      >>> for g in (2.0, 3.0, 4.0):  # the average is 2, 2, 2.5 before the step
      ...     direction, state = tx.update(jnp.asarray(g), state)
      ...     print(direction)
      2.0
      4.0
      5.5
    """
    numbers.check("decay", decay, 0.0, 1.0)
    numbers.check_rates(optimism=optimism)
    # Only for decays that are numbers, and not for small ones, which would magnify the rounding of m'.
    in_place = isinstance(decay, (int, float)) and decay >= 0.1

    def init_fn(params):
        ema = numbers.zeros_like(params, accumulator_dtype)
        return OmegaState(count=jnp.zeros((), jnp.int32), ema=ema)

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        o, b = numbers.at(optimism, state.count), numbers.at(decay, state.count)
        grads, first = numbers.widen(updates, state.ema), state.count == 0
        old = optax.tree.where(first, grads, numbers.widen(state.ema, updates))
        ema = numbers.average(b, old, grads)
        if in_place:
            # g - m = (g - m') / b for the new average m'. So nothing reads m once m' is there, and XLA overwrites it
            # in place; where the direction needs m too, it copies m first, and a step takes 2.5 times as long.
            ema = optax.tree.where(first, grads, ema)
            direction = numbers.map_rate(lambda o, g, n: g + o / decay * (g - n), o, grads, ema)
        else:
            direction = numbers.map_rate(lambda o, g, m: g + o * (g - m), o, grads, old)
        return optax.tree.cast_like(direction, updates), OmegaState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            ema=optax.tree.cast_like(ema, state.ema),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def omega(
    learning_rate: Rate,
    optimism: Rate = 1.0,
    decay: Rate = 0.9,
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Optimism against a moving average of the gradients.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      optimism: o, relative to the gradient; any real number, a schedule, or a prefix tree of these.
      decay: b in ``[0, 1)``, the decay of the average.
      accumulator_dtype: the dtype of the average; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation of the joint field. Its first step is plain SGD.

    Raises:
      ValueError: for a decay outside ``[0, 1)``.

    Example:
      On the game f(x, y) = x y, where gradient descent-ascent spirals outwards:

      >>> import jax
      >>> from jaxfair import optim
      >>> def distance(tx, w=jnp.array([1.0, 0.0])):
      ...     def step(carry, _):
      ...         w, state = carry
      ...         updates, state = tx.update(jnp.array([w[1], -w[0]]), state, w)
      ...         return (w + updates, state), None
      ...     (w, _), _ = jax.lax.scan(step, (w, tx.init(w)), None, 500)
      ...     return float(jnp.linalg.norm(w))
      >>> for tx in (optax.sgd(0.02), optim.optimistic_gradient(0.02), optim.omega(0.02)):
      ...     print(f"{distance(tx):.3f}")
      1.105
      0.905
      0.143
    """
    return optax.chain(
        scale_by_omega(optimism, decay, accumulator_dtype=accumulator_dtype),
        numbers.scale_by_rate(learning_rate),
    )
