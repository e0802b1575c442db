r"""Popov's method, the past extragradient: the extragradient with last step's gradient for the extrapolation.

One gradient per step, ``g_t = F(h_t)``, taken at the extrapolated points h, which are what the parameters
hold; the base points z stand behind them:

.. code-block:: text

    z_{t+1} = z_t - eta_t g_t
    h_{t+1} = z_{t+1} - gamma_{t+1} g_t

so that the update is ``h_{t+1} - h_t = -(eta_t g_t + gamma_{t+1} g_t - gamma_t g_{t-1})``. The start
``z_0 = h_0 + gamma_1 g_0`` makes the first step plain SGD.

- With equal constant rates it is `optimistic_gradient` with optimism 1; with ``gamma = o eta``, optimism o.
- With schedules it is not: there the last correction that was made is taken back exactly, whatever the rate is now.
  A gamma that decays more slowly than eta is the single-call double-step-size method.

=============  ===========================
papers         here
=============  ===========================
eta            ``learning_rate``
gamma          ``extrapolation_rate``
=============  ===========================

How this differs from published code: no second copy of the weights; the base points can be had as
``z = params + offset``.

References:
  Popov, *A modification of the Arrow-Hurwicz method for search of saddle points*, 1980; Hsieh, Iutzeler,
  Malick and Mertikopoulos, `On the Convergence of Single-Call Stochastic Extra-Gradient Methods
  <https://arxiv.org/abs/1908.08465>`_, 2019.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import DTypeLike

from jaxfair.optim import numbers
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class PastExtragradientState(NamedTuple):
    """The state of `past_extragradient`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      offset: the structure of the parameters, `accumulator_dtype`: ``z_t - h_t = gamma_t g_{t-1}``. Zeros
        before the first step, which takes its own gradient instead.
    """

    count: Array
    offset: Any


def past_extragradient(
    learning_rate: Rate, extrapolation_rate: Rate, *, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """The extragradient at the price of one gradient, with two rates.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      extrapolation_rate: gamma, likewise. It is an absolute rate, not relative to eta.
      accumulator_dtype: the dtype of the offset; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation of the joint field. It may stand anywhere in a chain, and in `optax.partition`.
      Its first step is plain SGD. A projection may come last in the chain.

    Example:
      >>> tx = past_extragradient(0.1, extrapolation_rate=0.5)
      >>> state = tx.init(jnp.zeros(()))
      >>> for g in (2.0, 3.0, 4.0):
      ...     update, state = tx.update(jnp.asarray(g), state)
      ...     print(f"{update:.2f}")
      -0.20
      -0.80
      -0.90
    """
    numbers.check_rates(learning_rate=learning_rate, extrapolation_rate=extrapolation_rate)

    def init_fn(params):
        offset = numbers.zeros_like(params, accumulator_dtype)
        return PastExtragradientState(count=jnp.zeros((), jnp.int32), offset=offset)

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        count = jnp.asarray(optax.safe_increment(state.count))
        eta, gamma = numbers.at(learning_rate, state.count), numbers.at(extrapolation_rate, count)
        grads = numbers.widen(updates, state.offset)
        new = numbers.map_rate(jnp.multiply, gamma, grads)
        old = optax.tree.where(state.count == 0, new, numbers.widen(state.offset, updates))
        step = numbers.descend(eta, grads)
        update = jax.tree.map(lambda s, n, o: s - (n - o), step, new, old)
        return optax.tree.cast_like(update, updates), PastExtragradientState(
            count=count, offset=optax.tree.cast_like(new, state.offset)
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
