r"""How multipliers weigh the constraints against the loss.

The weights descend on :math:`L + \sum_k w_k\, \mathrm{proxy}_k`. A formulation says what :math:`w` is.

====================  =============================================  ==========================================
formulation           weight of constraint k                         gradient of the loss is multiplied by
====================  =============================================  ==========================================
lagrangian            :math:`\lambda_k`                              1
normalized            :math:`\lambda_k / (1 + \sum_j |\lambda_j|)`   1
====================  =============================================  ==========================================
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float


class Formulation(NamedTuple):
    """The functions of a formulation; its penalties, where it has any, live in the solver's state.

    Attributes:
      init: ``init(multipliers) -> penalties``. ``()`` where there are none.
      weights: ``weights(multipliers, strict, proxy, penalties) -> [K]``, how much each proxy counts next to a loss
        that counts 1.
      update: ``update(penalties, multipliers, strict, observed) -> penalties``, after each step.

    Example:
      >>> import jax.numpy as jnp
      >>> formulation = lagrangian()
      >>> formulation.weights(jnp.array([0.0, 2.0]), jnp.zeros(2), jnp.zeros(2), ())
      Array([0., 2.], dtype=float32)
    """

    init: Callable[[jax.Array], Any]
    weights: Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]
    update: Callable[[Any, jax.Array, jax.Array, jax.Array], Any]


def _no_penalties(multipliers: jax.Array) -> tuple[()]:
    del multipliers
    return ()


def _unchanged(
    penalties: Any, multipliers: jax.Array, strict: jax.Array, observed: jax.Array
) -> Any:
    del multipliers, strict, observed
    return penalties


def lagrangian() -> Formulation:
    r"""The Lagrangian :math:`L + \sum_k \lambda_k\, \mathrm{proxy}_k`.

    Example:
      >>> import jax.numpy as jnp
      >>> lagrangian().weights(jnp.array([0.5, 3.0]), jnp.zeros(2), jnp.zeros(2), ())
      Array([0.5, 3. ], dtype=float32)
    """

    def weights(
        multipliers: Float[jax.Array, " K"],
        strict: Float[jax.Array, " K"],
        proxy: Float[jax.Array, " K"],
        penalties: tuple[()],
    ) -> Float[jax.Array, " K"]:
        del strict, proxy, penalties
        return multipliers

    return Formulation(_no_penalties, weights, _unchanged)


def normalized_lagrangian() -> Formulation:
    r"""The Lagrangian with multipliers :math:`\mu_k = \lambda_k / (1 + \sum_j |\lambda_j|)`, so :math:`\sum |\mu| < 1`.

    At a solution of the problem :math:`\mu` satisfies the KKT conditions, so :math:`\lambda = \mu / (1 - \sum|\mu|)`
    exists only where the optimal multipliers sum to less than one. For constraints that compare a group with the
    average, such as :func:`excess_accuracy_gap`, this is what keeps every example's weight positive: with the
    proxy :math:`L_g - L` the average loss keeps the weight :math:`1 - \sum \mu > 0`, where the plain Lagrangian's
    :math:`1 - \sum \lambda` turns negative as soon as the multipliers exceed one together, and the network is then
    trained to be wrong.

    Example:
      >>> import jax.numpy as jnp
      >>> normalized_lagrangian().weights(jnp.array([1.0, 2.0]), jnp.zeros(2), jnp.zeros(2), ())
      Array([0.25, 0.5 ], dtype=float32)
    """

    def weights(
        multipliers: Float[jax.Array, " K"],
        strict: Float[jax.Array, " K"],
        proxy: Float[jax.Array, " K"],
        penalties: tuple[()],
    ) -> Float[jax.Array, " K"]:
        del strict, proxy, penalties
        return multipliers / (1.0 + jnp.sum(jnp.abs(multipliers)))

    return Formulation(_no_penalties, weights, _unchanged)
