r"""LEAD: gradient descent-ascent with momentum, and a force against the rotation that the other player's move causes.

With ``D_t = w_t - w_{t-1}`` the last displacement, ``D_0 = 0``, F the joint field ``(grad_x f, -grad_y f)`` and
``J_off`` its Jacobian without the diagonal blocks (``d^2 f / dx dy`` above, ``-d^2 f / dy dx`` below):

.. code-block:: text

    w_{t+1} = w_t + beta D_t - eta (F + c J_off D_t)

In the players' own terms the last product is ``c f_xy (y_t - y_{t-1})`` for x, and the negative of
``c f_yx (x_t - x_{t-1})`` for y.

- On a bilinear game ``J_off D_t = F_t - F_{t-1}``, so with ``beta = 0`` it is `optimistic_gradient` with optimism c.
- ``samples="independent"`` takes the product with the Jacobian of an independent minibatch.
- The first step is plain SGD.

=============  =======================================
paper          here
=============  =======================================
eta            ``learning_rate``
beta           ``momentum``
alpha / eta    ``coupling``, relative to the field
=============  =======================================

How this differs from the authors' code: alpha is given relative to the learning rate, as optimism is everywhere here;
any number of players, the entries at the top of the joint tree.

References:
  Askari Hemmat, Mitra, Lajoie and Mitliagkas, `LEAD: Min-Max Optimization from a Physical Perspective
  <https://arxiv.org/abs/2010.13846>`_, 2023.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class LeadState(NamedTuple):
    """The state of `lead`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field and JVPs so far, the ones passed in included.
      previous: the structure and dtype of the parameters: the last ones. Zeros before the first step.
    """

    count: Array
    oracle_calls: Array
    previous: Any


def lead(
    learning_rate: Rate,
    coupling: Rate = 1.0,
    momentum: Rate = 0.0,
    *,
    samples: Samples = "same",
) -> optax.GradientTransformationExtraArgs:
    """Descent-ascent with momentum and with an eye on the other player's last move.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      coupling: c, likewise; relative to the field.
      momentum: beta, likewise; the learning rate does not multiply it.
      samples: whose Jacobian the product takes: of the same minibatch (``operator_fn``) or of an
        independent one (``independent_operator_fn``).

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., field=field)``; it needs the
      joint tree, whose top entries are the players, and comes first in a chain.

    Raises:
      ValueError: in `optax.partition`, after another transformation (where ``field=`` is passed), and without
        the parameters or the operator.

    Example:
      On f(x, y) = x y with the rate 1/2 it is the optimistic gradient:

      >>> field = lambda w: {"x": w["y"], "y": -w["x"]}
      >>> tx = lead(0.5)
      >>> w = {"x": jnp.ones(()), "y": jnp.zeros(())}
      >>> state = tx.init(w)
      >>> for _ in range(3):
      ...     g = field(w)
      ...     updates, state = tx.update(g, state, w, operator_fn=field, field=g)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"{w['x']:.3f} {w['y']:.3f}")
      1.000 0.500
      0.500 1.000
      -0.250 1.000
    """
    oracles.check_samples(samples)
    numbers.check_rates(learning_rate=learning_rate, coupling=coupling, momentum=momentum)

    def init_fn(params):
        oracles.require_joint("lead", params)
        count, calls = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return LeadState(count=count, oracle_calls=calls, previous=optax.tree.zeros_like(params))

    def update_fn(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        operator_fn: Operator | None = None,
        independent_operator_fn: Operator | None = None,
        field: Any = None,
        **extra_args: Any,
    ):
        del extra_args
        oracles.require_start("lead", updates, params, field)
        second = oracles.second_operator("lead", samples, operator_fn, independent_operator_fn)
        eta, c = numbers.at(learning_rate, state.count), numbers.at(coupling, state.count)
        beta = numbers.at(momentum, state.count)

        previous = optax.tree.where(state.count == 0, params, state.previous)
        moved = optax.tree.sub(params, previous)
        _, jvp = jax.linearize(second, params)
        force = optax.tree.cast_like(oracles.off_diagonal(jvp, moved), updates)
        direction = numbers.map_rate(lambda c, v, g: g + c * v, c, force, updates)
        new = optax.tree.add(
            numbers.descend(eta, direction),
            numbers.map_rate(jnp.multiply, beta, optax.tree.cast_like(moved, updates)),
        )
        return new, LeadState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 1 + len(oracles.players(params)[0])),
            previous=params,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
