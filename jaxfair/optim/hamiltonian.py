r"""Hamiltonian gradient descent: all players together descend the squared norm of the field.

F is the joint field ``(grad_x f, -grad_y f)``, J its Jacobian, and the Hamiltonian is ``|F|^2 / 2``:

.. code-block:: text

    w_{t+1} = w_t - eta (J_i' F_j + J_j' F_i) / 2

with i and j independent minibatches.

- The estimate is unbiased, because the two factors of each product are independent; with one minibatch for both
  (``samples="same"``) it is the gradient of the mean of ``|F_i|^2 / 2``, another function.
- On a bilinear game with singular value s the rate is ``|1 - eta s^2|``: a minimisation, with no rotation left.
- It goes to any stationary point of the game, a maximum of the minimising player as well.

=============  =================
paper          here
=============  =================
gamma          ``learning_rate``
xi             F
=============  =================

How this differs from the authors' code: matrix-free (two VJPs) for any field, where theirs has the matrices
of its games.

References:
  Loizou, Berard, Jolicoeur-Martineau, Vincent, Lacoste-Julien and Mitliagkas, `Stochastic Hamiltonian Gradient Methods
  for Smooth Games <https://arxiv.org/abs/2007.04202>`_, 2020.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class HamiltonianState(NamedTuple):
    """The state of `hamiltonian`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field and VJPs so far, the ones passed in included.
    """

    count: Array
    oracle_calls: Array


def hamiltonian(learning_rate: Rate, *, samples: Samples = "independent") -> optax.GradientTransformationExtraArgs:
    """Descent of half the squared norm of the joint field.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      samples: ``"independent"`` is unbiased, and needs ``operator_fn`` and ``independent_operator_fn``;
        ``"same"`` needs the former only, and is the exact gradient where there is no noise.

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., independent_operator_fn=...,
      field=field)``; it needs the joint tree and comes first in a chain.

    Raises:
      ValueError: in `optax.partition`, after another transformation (where ``field=`` is passed), and without
        the parameters or the operators.
      TypeError: for complex parameters.

    Example:
      Without noise, on f(x, y) = x y, each step halves the distance:

      >>> field = lambda w: jnp.array([w[1], -w[0]])
      >>> tx = hamiltonian(0.5, samples="same")
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for _ in range(3):
      ...     g = field(w)
      ...     updates, state = tx.update(g, state, w, operator_fn=field, field=g)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"{jnp.linalg.norm(w):.4f}")
      0.5000
      0.2500
      0.1250
    """
    oracles.check_samples(samples)
    numbers.check_rates(learning_rate=learning_rate)

    def init_fn(params):
        oracles.require_joint("hamiltonian", params)
        return HamiltonianState(count=jnp.zeros((), jnp.int32), oracle_calls=jnp.zeros((), jnp.int32))

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
        oracles.require_start("hamiltonian", updates, params, field)
        gradient, calls = oracles.hamiltonian_gradient(
            "hamiltonian", samples, updates, params, operator_fn, independent_operator_fn
        )
        eta = numbers.at(learning_rate, state.count)
        return numbers.descend(eta, gradient), HamiltonianState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 1 + calls),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
