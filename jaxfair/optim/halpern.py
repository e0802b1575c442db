r"""Halpern's iteration (the optimal Halpern method): a plain step, pulled back to the start less and less.

One gradient per step, ``g_t = F(w_t)``, P the projection:

.. code-block:: text

    T w    = P(w - eta F(w))
    w_{t+1} = 1 / (t + 2) w_0 + (t + 1) / (t + 2) T w_t

- For a nonexpansive T, ``|w_t - T w_t| <= 2 |w_0 - w*| / (t + 1)``: the residual of the *last* iterate at
  the best rate that is possible.
- ``w - eta F(w)`` is nonexpansive for ``eta <= 2 / l`` where F is 1/l-cocoercive (a convex function, a
  regularised game). The field of a bilinear game is not cocoercive: take `anchored_extragradient` there,
  or pass the field ``w - T w`` of a resolvent T with a learning rate of 1.
- The first step is half of SGD's.

=============  ===========================
papers         here
=============  ===========================
lambda_{t+1}   ``1 / (t + 2)``
T              the step with ``learning_rate``
=============  ===========================

How this differs from textbooks: nothing but that it is written as an update. The anchor is taken from the
parameters of the first step, so that ``init`` needs no values.

References:
  Halpern, *Fixed points of nonexpanding maps*, 1967; Lieder, *On the convergence rate of the Halpern-iteration*, 2021;
  Diakonikolas, `Halpern Iteration for Near-Optimal and Parameter-Free Monotone Inclusion
  <https://arxiv.org/abs/2002.08872>`_, 2020.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class HalpernState(NamedTuple):
    """The state of `halpern`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      anchor: the structure and dtype of the parameters: the start w_0. Zeros before the first step.
    """

    count: Array
    anchor: Any


def halpern(
    learning_rate: Rate, *, projection: Callable[[Any], Any] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Plain steps with a vanishing pull to the start.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      projection: of the parameters onto the feasible set.

    Returns:
      The transformation of the joint field; ``update`` needs the parameters. It may stand in
      `optax.partition`.

    Raises:
      ValueError: in ``update`` without parameters.

    Example:
      A rotation by 90 degrees has the one fixed point 0, around which plain iteration turns forever:

      >>> field = lambda w: w - jnp.array([-w[1], w[0]])
      >>> tx = halpern(1.0)
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for _ in range(4):
      ...     updates, state = tx.update(field(w), state, w)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"{jnp.linalg.norm(field(w)):.4f}")
      1.0000
      0.4714
      0.0000
      0.2828
    """
    numbers.check_rates(learning_rate=learning_rate)

    def init_fn(params):
        return HalpernState(count=jnp.zeros((), jnp.int32), anchor=optax.tree.zeros_like(params))

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        oracles.require_params("halpern", params)
        anchor = optax.tree.where(state.count == 0, params, state.anchor)
        eta = numbers.at(learning_rate, state.count)
        pull = 1 / (state.count.astype(jnp.result_type(float)) + 2)

        step = numbers.emit(params, eta, updates, updates, projection)
        back = optax.tree.cast_like(optax.tree.sub(anchor, params), updates)
        new = numbers.map_rate(lambda b, s, a: s + b * (a - s), pull, step, back)
        return new, HalpernState(count=jnp.asarray(optax.safe_increment(state.count)), anchor=anchor)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
