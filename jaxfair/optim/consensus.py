r"""Consensus optimisation: descend-ascend, and descend the squared norm of the field a little at the same time.

F is the joint field ``(grad_x f, -grad_y f)``, J its Jacobian, and ``J' F`` the gradient of ``|F|^2 / 2``:

.. code-block:: text

    w_{t+1} = w_t - eta (F + gamma J' F)

- On a bilinear game with singular value s the rate is ``|1 - eta (i s + gamma s^2)|``.
- With noise, ``samples="independent"`` is unbiased: ``(J_i' F_j + J_j' F_i) / 2`` on minibatches i and j, which
  is the stochastic method of Loizou et al. ``samples="same"`` takes ``J_i' F_i``, as Mescheder et al. did; its
  mean is the gradient of the mean of ``|F_i|^2 / 2``, another function.

=============  ===========================
papers         here
=============  ===========================
h, alpha       ``learning_rate``
gamma          ``regularization``, relative to the field
=============  ===========================

How this differs from the authors' code: the learning rate multiplies both terms, and the product ``J' F`` is one VJP
of the field, not a second differentiation of its norm.

References:
  Mescheder, Nowozin and Geiger, `The Numerics of GANs <https://arxiv.org/abs/1705.10461>`_, 2017; Loizou, Berard,
  Gidel, Mitliagkas and Lacoste-Julien, `Stochastic Gradient Descent-Ascent and Consensus Optimization for Smooth Games
  <https://arxiv.org/abs/2107.00052>`_, 2021.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class ConsensusState(NamedTuple):
    """The state of `consensus`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field and VJPs so far, the ones passed in included.
    """

    count: Array
    oracle_calls: Array


def consensus(
    learning_rate: Rate, regularization: Rate = 1.0, *, samples: Samples = "same"
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent-ascent with the gradient of the Hamiltonian added.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      regularization: gamma, likewise; relative to the field.
      samples: ``"same"`` needs ``operator_fn``; ``"independent"`` is unbiased, and needs
        ``independent_operator_fn`` too.

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., field=field)``; it needs the
      joint tree and comes first in a chain.

    Raises:
      ValueError: in `optax.partition`, after another transformation (where ``field=`` is passed), and without
        the parameters or the operators.
      TypeError: for complex parameters.

    Example:
      On f(x, y) = x y with both rates 1/2 the distance shrinks by ``|1 - (i + 0.5) / 2|``:

      >>> field = lambda w: jnp.array([w[1], -w[0]])
      >>> tx = consensus(0.5, regularization=0.5)
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
    numbers.check_rates(learning_rate=learning_rate, regularization=regularization)

    def init_fn(params):
        oracles.require_joint("consensus", params)
        return ConsensusState(count=jnp.zeros((), jnp.int32), oracle_calls=jnp.zeros((), jnp.int32))

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
        oracles.require_start("consensus", updates, params, field)
        gradient, calls = oracles.hamiltonian_gradient(
            "consensus", samples, updates, params, operator_fn, independent_operator_fn
        )
        eta = numbers.at(learning_rate, state.count)
        gamma = numbers.at(regularization, state.count)
        direction = numbers.map_rate(lambda c, v, g: g + c * v, gamma, gradient, updates)
        return numbers.descend(eta, direction), ConsensusState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 1 + calls),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
