r"""OmegaM: Omega with momentum; optimism on the moving average itself.

One stochastic gradient per step, `g_t = F(w_t)`, with F the joint field ``(grad_x f, -grad_y f)``:

.. code-block:: text

    m_{-1} = g_0
    m_t    = b m_{t-1} + (1 - b) g_t
    d_t    = m_t + o (m_t - m_{t-1})
    w_{t+1} = w_t - eta d_t

- It is `omega` with the optimism ``(1 - b)(1 + o) - 1``, exactly and from the first step. So with
  `o = 1, b = 0.9`, the authors' setting, it is Omega with the *negative* optimism -0.8.
- It converges on a bilinear game if and only if ``o > 1 / (1 - b) - 1 / 2`` (9.5 for b = 0.9) and the
  step is small enough. The default must diverge there; on strongly monotone games it is momentum with a
  correction.
- ``o = 0`` is SGD with momentum and dampening b; ``o = b / (1 - b)`` is plain SGD.

=============  =================
paper          here
=============  =================
eta            ``learning_rate``
alpha / eta    ``optimism``, a ratio to the average
beta           ``decay``
=============  =================

How this differs from the authors' code: as in `omega`.

References:
  Ramirez, Sukumaran, Bertrand and Gidel, `Omega: Optimistic EMA Gradients
  <https://arxiv.org/abs/2306.07905>`_, 2023.
"""

import jax.numpy as jnp
import optax
from jaxtyping import DTypeLike

from jaxfair.optim import numbers
from jaxfair.optim.numbers import Rate
from jaxfair.optim.omega import OmegaState


def scale_by_omegam(
    optimism: Rate = 1.0, decay: Rate = 0.9, *, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """The direction of `omegam`, without the learning rate.

    Args:
      optimism: o, relative to the average; any real number, a schedule, or a prefix tree of these.
      decay: b in ``[0, 1)``, the decay of the average.
      accumulator_dtype: the dtype of the average; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation. It may stand anywhere in a chain, and in `optax.partition`.

    Raises:
      ValueError: for a decay outside ``[0, 1)``.

    Example:
      >>> tx = scale_by_omegam(optimism=1.0, decay=0.5)
      >>> state = tx.init(jnp.zeros(()))
      >>> for g in (2.0, 3.0, 4.0):  # the average becomes 2, 2.5, 3.25
      ...     direction, state = tx.update(jnp.asarray(g), state)
      ...     print(direction)
      2.0
      3.0
      4.0
    """
    numbers.check("decay", decay, 0.0, 1.0)
    numbers.check_rates(optimism=optimism)

    def init_fn(params):
        ema = numbers.zeros_like(params, accumulator_dtype)
        return OmegaState(count=jnp.zeros((), jnp.int32), ema=ema)

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        o, b = numbers.at(optimism, state.count), numbers.at(decay, state.count)
        first = state.count == 0
        grads = numbers.widen(updates, state.ema)
        old = optax.tree.where(first, grads, numbers.widen(state.ema, updates))
        # Of two equal trees the average is not always that tree to the last bit.
        ema = optax.tree.where(first, grads, numbers.average(b, old, grads))
        direction = numbers.map_rate(lambda o, m, n: m + o * (m - n), o, ema, old)
        return optax.tree.cast_like(direction, updates), OmegaState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            ema=optax.tree.cast_like(ema, state.ema),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def omegam(
    learning_rate: Rate,
    optimism: Rate = 1.0,
    decay: Rate = 0.9,
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Omega with momentum.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      optimism: o, relative to the average; any real number, a schedule, or a prefix tree of these.
      decay: b in ``[0, 1)``, the decay of the average.
      accumulator_dtype: the dtype of the average; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation of the joint field. Its first step is plain SGD.

    Raises:
      ValueError: for a decay outside ``[0, 1)``.

    Example:
      It is Omega in other parameters:

      >>> from jaxfair import optim
      >>> pair = optim.omegam(0.1, optimism=1.0, decay=0.9), optim.omega(0.1, optimism=-0.8, decay=0.9)
      >>> states = [tx.init(jnp.zeros(())) for tx in pair]
      >>> for g in (2.0, 3.0, -4.0):
      ...     for i, tx in enumerate(pair):
      ...         update, states[i] = tx.update(jnp.asarray(g), states[i])
      ...         print(f"{update:.4f}", end=" ")
      -0.2000 -0.2000 -0.2200 -0.2200 -0.0880 -0.0880
    """
    return optax.chain(
        scale_by_omegam(optimism, decay, accumulator_dtype=accumulator_dtype),
        numbers.scale_by_rate(learning_rate),
    )
