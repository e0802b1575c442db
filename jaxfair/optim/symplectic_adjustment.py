r"""Symplectic gradient adjustment (SGA): turn the field by its own rotation, towards stable fixed points.

F is the joint field ``(grad_x f, -grad_y f)``, J its Jacobian, ``A = (J - J') / 2`` the part that rotates, d the number
of parameters:

.. code-block:: text

    lambda = c sign(<F, J' F> <A' F, J' F> / d + 0.1)        with alignment; else c
    w_{t+1} = w_t - eta (F + lambda A' F)

- ``J' F`` is the gradient of ``|F|^2 / 2``. The sign makes the adjustment attract to stable fixed points and repel from
  unstable ones; the 0.1 prefers attraction where the products are small.
- On a bilinear game ``A = J``, so it is `consensus`. On a potential game A = 0, and it is gradient descent.
- ``samples="independent"`` takes the products with the Jacobian of an independent minibatch; then ``A' F`` is unbiased
  (the sign, a nonlinear function, is not).

=============  =================
paper          here
=============  =================
xi, H          F, J
lambda         ``adjustment``, relative to the field, times the sign
epsilon        0.1, as in the paper
=============  =================

How this differs from the authors' code: a player's tree may have any structure, and the learning rate multiplies
the adjusted field once.

References:
  Balduzzi, Racaniere, Martens, Foerster, Tuyls and Graepel, `The Mechanics of n-Player Differentiable Games
  <https://arxiv.org/abs/1802.05642>`_, 2018.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import tree
from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array

_EPSILON = 0.1


class SymplecticAdjustmentState(NamedTuple):
    """The state of `symplectic_adjustment`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field, JVPs and VJPs so far, the ones passed in included.
    """

    count: Array
    oracle_calls: Array


def symplectic_adjustment(
    learning_rate: Rate, adjustment: Rate = 1.0, *, align: bool = True, samples: Samples = "same"
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent-ascent, adjusted for the rotation of the field.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      adjustment: c, likewise; relative to the field.
      align: whether to choose the sign of the adjustment at each step.
      samples: whose Jacobian the products take: of the same minibatch (``operator_fn``) or of an
        independent one (``independent_operator_fn``).

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., field=field)``; it needs the
      joint tree and comes first in a chain.

    Raises:
      ValueError: in `optax.partition`, after another transformation (where ``field=`` is passed), and without
        the parameters or the operator.
      TypeError: for complex parameters.

    Example:
      On f(x, y) = x y it is consensus optimisation:

      >>> field = lambda w: jnp.array([w[1], -w[0]])
      >>> tx = symplectic_adjustment(0.5, adjustment=0.5)
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for _ in range(3):
      ...     g = field(w)
      ...     updates, state = tx.update(g, state, w, operator_fn=field, field=g)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"{jnp.linalg.norm(w):.4f}")
      0.9014
      0.8125
      0.7324
    """
    oracles.check_samples(samples)
    if not isinstance(align, bool | np.bool_):
        raise ValueError(f"align must be True or False, but it is {align!r}")
    numbers.check_rates(learning_rate=learning_rate, adjustment=adjustment)

    def init_fn(params):
        oracles.require_joint("symplectic_adjustment", params)
        return SymplecticAdjustmentState(count=jnp.zeros((), jnp.int32), oracle_calls=jnp.zeros((), jnp.int32))

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
        oracles.require_start("symplectic_adjustment", updates, params, field)
        oracles.require_real("symplectic_adjustment", updates)
        second = oracles.second_operator("symplectic_adjustment", samples, operator_fn, independent_operator_fn)
        # The field need not have the dtype of the parameters, which is that of tangents.
        there, vjp = jax.vjp(second, params)
        (pull,) = vjp(optax.tree.cast_like(updates, there))  # J' F
        _, push = jax.jvp(second, (params,), (optax.tree.cast_like(updates, params),))  # J F
        ours, pull = numbers.widen(updates, params), numbers.widen(pull, updates)
        turn = jax.tree.map(lambda a, b: (a - b) / 2, pull, optax.tree.cast_like(push, pull))  # A' F

        eta, c = numbers.at(learning_rate, state.count), numbers.at(adjustment, state.count)
        if align:
            products = tree.inner_product(ours, pull) * tree.inner_product(turn, pull)
            # Not jnp.sign, which is 0 where the products are exactly -0.1 d.
            sign = jnp.where(products / tree.size(params) + _EPSILON < 0, -1.0, 1.0)
            turn = numbers.map_rate(jnp.multiply, sign, turn)
        turn = optax.tree.cast_like(turn, updates)
        direction = numbers.map_rate(lambda c, v, g: g + c * v, c, turn, updates)
        return numbers.descend(eta, direction), SymplecticAdjustmentState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 3),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
