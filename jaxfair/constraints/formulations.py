r"""How multipliers weigh the constraints against the loss.

The weights of the network descend on :math:`L + \sum_k w_k\, \mathrm{proxy}_k`. That is the gradient of
:math:`L + \sum_k \ell(\lambda_k, v_k)`, with the strict value v in the weight, and the proxy for the direction. The
multipliers ascend on a. With :math:`\Pi` the projection of the multipliers (at least 0 for an inequality, identity for
an equality), and c a penalty:

=====================  ===========================  ============================================  =========
formulation            w                            :math:`\ell`                                  a
=====================  ===========================  ============================================  =========
lagrangian             :math:`\lambda`              :math:`\lambda v`                             v
normalized_lagrangian  :math:`\mu`                  :math:`\mu v`                                 v
augmented_lagrangian   :math:`\Pi(\lambda + c v)`   :math:`[\Pi(\lambda + c v)^2-\lambda^2]/2c`   v, or c v
quadratic_penalty      :math:`c\, \Pi(v)`           :math:`c\, \Pi(v)^2 / 2`                      0
power_penalty          :math:`c\, \Pi(v)^{p-1}`     :math:`c\, \Pi(v)^p / p`                      0
=====================  ===========================  ============================================  =========

with :math:`\mu_k = \lambda_k / (1 + \sum_j |\lambda_j|)`. Weights on a simplex, :func:`softmax`, stand beside
:func:`worst_group`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair.constraints import penalties as penalties_lib
from jaxfair.constraints.penalties import Penalty

#: ``project(rows) -> rows``, of the multipliers that a formulation works on.
Project = Callable[[jax.Array], jax.Array]


class Formulation(NamedTuple):
    r"""The functions of a formulation; its penalties, where it has any, live in the solver's state.

    Attributes:
      init: ``init(num_constraints) -> penalties``. ``()`` where there are none.
      value: ``value(multipliers, violation, penalties, project) -> [R]``, :math:`\ell`.
      weights: ``weights(multipliers, strict, penalties, project) -> [R]``, how much each proxy counts next to a loss
        that counts 1: the derivative of ``value`` by the violation.
      ascent: ``ascent(strict, penalties) -> [R]``, what the multipliers go up by, before the dual optimizer.
      update: ``update(penalties, strict, observed, project) -> penalties``, after each step. A strict value that is not
        observed is 0 here as in ``weights``.
      per_constraint: whether the penalties are arrays ``[K]``, to be read at the rows of an evaluation.
      needs_all: whether the weight of one constraint depends on the multipliers of all others.
      of_violation: whether the weights are made of violations rather than of multipliers: ``project`` then cuts off
        at 0 only, and a cap of the multipliers does not concern it. (In ``update`` it never does.)

    Example:
      >>> import jax.numpy as jnp
      >>> formulation = lagrangian()
      >>> formulation.weights(jnp.array([0.0, 2.0]), jnp.zeros(2), (), lambda rows: rows)
      Array([0., 2.], dtype=float32)
    """

    init: Callable[[int | None], Any]
    value: Callable[[jax.Array, jax.Array, Any, Project], jax.Array]
    weights: Callable[[jax.Array, jax.Array, Any, Project], jax.Array]
    ascent: Callable[[jax.Array, Any], jax.Array]
    update: Callable[[Any, jax.Array, jax.Array, Project], Any]
    per_constraint: bool = False
    needs_all: bool = False
    of_violation: bool = False


def _no_penalties(num_constraints: int | None) -> tuple[()]:
    del num_constraints
    return ()


def _unchanged(penalties: Any, strict: Any, observed: Any, project: Project) -> Any:
    del strict, observed, project
    return penalties


def _violation(strict: Float[Array, " R"], penalties: Any) -> Float[Array, " R"]:
    del penalties
    return strict


def _grow(coefficient: Penalty) -> Callable[[Any, jax.Array, jax.Array, Project], Any]:
    """``update`` of the formulations that have a penalty: it looks at the size of what is violated."""

    def update(penalties: Any, strict: Float[Array, " R"], observed: Bool[Array, " R"], project: Project) -> Any:
        return coefficient.update(penalties, jnp.abs(project(strict)), observed)

    return update


def lagrangian() -> Formulation:
    r"""The Lagrangian :math:`L + \sum_k \lambda_k\, \mathrm{proxy}_k`.

    Example:
      >>> import jax.numpy as jnp
      >>> lagrangian().weights(jnp.array([0.5, 3.0]), jnp.zeros(2), (), lambda rows: rows)
      Array([0.5, 3. ], dtype=float32)
    """

    def value(
        multipliers: Float[Array, " R"],
        violation: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        del penalties, project
        return multipliers * violation

    def weights(
        multipliers: Float[Array, " R"],
        strict: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        del strict, penalties, project
        return multipliers

    return Formulation(_no_penalties, value, weights, _violation, _unchanged)


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
      >>> normalized_lagrangian().weights(jnp.array([1.0, 2.0]), jnp.zeros(2), (), lambda rows: rows)
      Array([0.25, 0.5 ], dtype=float32)
    """

    def weights(
        multipliers: Float[Array, " R"],
        strict: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        del strict, penalties, project
        return multipliers / (1.0 + jnp.sum(jnp.abs(multipliers)))

    def value(
        multipliers: Float[Array, " R"],
        violation: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        return weights(multipliers, violation, penalties, project) * violation

    return Formulation(_no_penalties, value, weights, _violation, _unchanged, needs_all=True)


def augmented_lagrangian(penalty: ArrayLike | Penalty, *, dual_step: bool = False) -> Formulation:
    r"""The augmented Lagrangian, with :math:`w = \Pi(\lambda + c\, v)`.

    Near a solution its curvature across an active constraint is that of the loss plus :math:`c \nabla v \nabla v^\top`,
    so it converges where the Lagrangian circles, and also where the Lagrangian has a maximum along the constraint.

    Args:
      penalty: c, a number or ``[K]``, or a :class:`~jaxfair.constraints.penalties.Penalty` that grows. At c = 0 it is
        the Lagrangian, in value and gradient.
      dual_step: whether the multipliers ascend on :math:`c\, v` in place of :math:`v`: with ``dual=optax.sgd(1.0)``
        that is the method of multipliers' own step, :math:`\lambda \leftarrow \Pi(\lambda + c\, v)`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> multipliers, violation = jnp.array([1.0, 1.0]), jnp.array([2.0, -2.0])
      >>> formulation = augmented_lagrangian(3.0)
      >>> formulation.weights(multipliers, violation, formulation.init(2), jax.nn.relu)
      Array([7., 0.], dtype=float32)

    References:
      Nocedal and Wright, Numerical Optimization, 2006, equations 17.36 and 17.64 to 17.65. Their
      :math:`[\Pi(\lambda + c v)^2 - \lambda^2]/2c` divides by c; here nothing does unless the projection cut off,
      which it cannot at c = 0.
    """
    coefficient = penalty if isinstance(penalty, Penalty) else penalties_lib.constant(penalty)

    def value(
        multipliers: Float[Array, " R"],
        violation: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        c = coefficient.value(penalties)
        raw = multipliers + c * violation
        cut = project(raw) != raw
        bound = jax.lax.stop_gradient(project(raw))
        # (bound^2 - multipliers^2) / 2c, plus what the value loses by the weight staying at its bound.
        safe = jnp.where(cut, c, 1.0)
        at_bound = bound * violation - (multipliers - bound) ** 2 / (2.0 * safe)
        return jnp.where(cut, at_bound, violation * (multipliers + 0.5 * c * violation))

    def weights(
        multipliers: Float[Array, " R"],
        strict: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        return project(multipliers + coefficient.value(penalties) * strict)

    def ascent(strict: Float[Array, " R"], penalties: Any) -> Float[Array, " R"]:
        return coefficient.value(penalties) * strict if dual_step else strict

    return Formulation(coefficient.init, value, weights, ascent, _grow(coefficient), coefficient.per_constraint)


def quadratic_penalty(penalty: ArrayLike | Penalty) -> Formulation:
    r"""The penalty :math:`\tfrac{c}{2} \Pi(v)^2`, without multipliers, which stay where they are.

    Its minimum violates every active constraint by its multiplier over c, so c must grow, and conditioning suffers.

    Args:
      penalty: c, a number or ``[K]``, or a :class:`~jaxfair.constraints.penalties.Penalty` that grows.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> formulation = quadratic_penalty(3.0)
      >>> formulation.weights(jnp.zeros(2), jnp.array([2.0, -2.0]), formulation.init(2), jax.nn.relu)
      Array([6., 0.], dtype=float32)

    References:
      Nocedal and Wright, Numerical Optimization, 2006, section 17.1.
    """
    return power_penalty(penalty, power=2)


def power_penalty(penalty: ArrayLike | Penalty, *, power: float | int = 2) -> Formulation:
    r"""The penalty :math:`\tfrac{c}{p} |\Pi(v)|^p`, with :math:`w = c\, |\Pi(v)|^{p-1} \mathrm{sign}(v)`.

    At p = 1 it is exact: for c above the largest multiplier of the solution its minimum is the solution. The price is a
    weight that jumps from 0 to c at the bound.

    Args:
      penalty: c, a number or ``[K]``, or a :class:`~jaxfair.constraints.penalties.Penalty` that grows.
      power: p, at least 1.

    Raises:
      ValueError: for a power below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> for power in (1, 2, 3):
      ...     formulation = power_penalty(3.0, power=power)
      ...     print(formulation.weights(jnp.zeros(2), jnp.array([2.0, -2.0]), formulation.init(2), jax.nn.relu))
      [3. 0.]
      [6. 0.]
      [12.  0.]

    References:
      Nocedal and Wright, Numerical Optimization, 2006, sections 17.1 and 17.2.
    """
    if not power >= 1:
        raise ValueError(f"power={power}: a penalty has a power of at least 1.")
    coefficient = penalty if isinstance(penalty, Penalty) else penalties_lib.constant(penalty)

    def to_the(violation: Float[Array, " R"], p: float | int) -> Float[Array, " R"]:
        """The power of the size with the sign; 0 of 0 always."""
        if p == 1:
            return violation
        size = jnp.abs(violation)
        return jnp.where(size > 0, jnp.sign(violation) * jnp.where(size > 0, size, 1.0) ** p, 0.0)

    def value(
        multipliers: Float[Array, " R"],
        violation: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        del multipliers
        projected = project(violation)
        return coefficient.value(penalties) / power * projected * to_the(projected, power - 1)

    def weights(
        multipliers: Float[Array, " R"],
        strict: Float[Array, " R"],
        penalties: Any,
        project: Project,
    ) -> Float[Array, " R"]:
        del multipliers
        return coefficient.value(penalties) * to_the(project(strict), power - 1)

    def ascent(strict: Float[Array, " R"], penalties: Any) -> Float[Array, " R"]:
        del penalties
        return jnp.zeros_like(strict)

    return Formulation(
        coefficient.init,
        value,
        weights,
        ascent,
        _grow(coefficient),
        coefficient.per_constraint,
        of_violation=True,
    )
