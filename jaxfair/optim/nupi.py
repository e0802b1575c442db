r"""nuPI: a proportional-integral controller on a moving average of the gradients.

One gradient per step, ``e_t = F(w_t)``:

.. code-block:: text

    xi_{-1} = e_0
    xi_t   = nu xi_{t-1} + (1 - nu) e_t
    w_{t+1} = w_t - eta [K_I e_t + K_P (xi_t - xi_{t-1})]

- Made for Lagrange multipliers, whose oscillation the proportional term damps (it is then the dual player's
  gradient, with its sign already flipped in the joint field).
- With ``K_I = 1`` it is `omega` with the optimism ``K_P (1 - nu)``. ``K_P = 0`` is SGD; ``nu = 0`` is
  `optimistic_gradient` with optimism K_P. ``K_I = a / (1 - nu)`` with
  ``K_P = -a nu / (1 - nu)^2`` is Polyak's momentum nu.

=============  ===========================
paper          here
=============  ===========================
eta            ``learning_rate``
K_P            ``proportional``
K_I            ``integral``
nu             ``decay``
=============  ===========================

How this differs from the authors' code: one start. ``xi_{-1} = e_0`` makes the first step ``-eta K_I e_0``, plain SGD
for ``K_I = 1``. Their implementation has two starts, and each stores another average after the first step
(zero, and ``(1 - nu) e_0``), so trajectories agree only up to that.

References:
  Sohrabi, Ramirez, Zhang, Lacoste-Julien and Gallego-Posada, `On PI Controllers for Updating Lagrange Multipliers in
  Constrained Optimization <https://arxiv.org/abs/2406.04558>`_, 2024.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import DTypeLike

from jaxfair.optim import numbers
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class NuPIState(NamedTuple):
    """The state of `nupi`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      ema: the structure of the parameters, `accumulator_dtype`: the average of the gradients, xi.
        Zeros before the first step, which sets it to the first gradient.
    """

    count: Array
    ema: Any


def scale_by_nupi(
    proportional: Rate = 1.0,
    integral: Rate = 1.0,
    decay: Rate = 0.0,
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `nupi`, without the learning rate.

    Args:
      proportional: K_P; any real number, a schedule, or a prefix tree of these.
      integral: K_I, likewise.
      decay: nu in ``(-1, 1)``.
      accumulator_dtype: the dtype of the average; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation. It may stand anywhere in a chain, and in `optax.partition`.

    Raises:
      ValueError: for a decay outside ``(-1, 1)``.

    Example:
      >>> tx = scale_by_nupi(proportional=2.0, decay=0.5)
      >>> state = tx.init(jnp.zeros(()))
      >>> for e in (2.0, 3.0, 4.0):  # the average becomes 2, 2.5, 3.25
      ...     direction, state = tx.update(jnp.asarray(e), state)
      ...     print(direction)
      2.0
      4.0
      5.5
    """
    numbers.check("decay", decay, -1.0, 1.0, ends="()")
    numbers.check_rates(proportional=proportional, integral=integral)

    def init_fn(params):
        ema = numbers.zeros_like(params, accumulator_dtype)
        return NuPIState(count=jnp.zeros((), jnp.int32), ema=ema)

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        k_p, k_i = numbers.at(proportional, state.count), numbers.at(integral, state.count)
        nu = numbers.at(decay, state.count)
        first = state.count == 0
        errors = numbers.widen(updates, state.ema)
        old = optax.tree.where(first, errors, numbers.widen(state.ema, updates))
        # Of two equal trees the average is not always that tree to the last bit.
        ema = optax.tree.where(first, errors, numbers.average(nu, old, errors))
        direction = optax.tree.add(
            numbers.map_rate(jnp.multiply, k_i, errors),
            numbers.map_rate(lambda k, new, old: k * (new - old), k_p, ema, old),
        )
        return optax.tree.cast_like(direction, updates), NuPIState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            ema=optax.tree.cast_like(ema, state.ema),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def nupi(
    learning_rate: Rate,
    proportional: Rate = 1.0,
    integral: Rate = 1.0,
    decay: Rate = 0.0,
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A proportional-integral controller, for multipliers above all.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      proportional: K_P; any real number, a schedule, or a prefix tree of these.
      integral: K_I, likewise.
      decay: nu in ``(-1, 1)``.
      accumulator_dtype: the dtype of the average; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation of the joint field. With ``integral=1`` its first step is plain SGD.

    Raises:
      ValueError: for a decay outside ``(-1, 1)``.

    Example:
      With the proportional gain 10 and the decay 0.9 it is Omega's default:

      >>> from jaxfair import optim
      >>> pair = optim.nupi(0.1, proportional=10.0, decay=0.9), optim.omega(0.1)
      >>> states = [tx.init(jnp.zeros(())) for tx in pair]
      >>> for e in (2.0, 3.0, -4.0):
      ...     for i, tx in enumerate(pair):
      ...         update, states[i] = tx.update(jnp.asarray(e), states[i])
      ...         print(f"{update:.4f}", end=" ")
      -0.2000 -0.2000 -0.4000 -0.4000 1.0100 1.0100
    """
    return optax.chain(
        scale_by_nupi(proportional, integral, decay, accumulator_dtype=accumulator_dtype),
        numbers.scale_by_rate(learning_rate),
    )
