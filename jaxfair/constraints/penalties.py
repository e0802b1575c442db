r"""Penalty coefficients c, and how they grow.

A coefficient is one number for all constraints, which looks at the norm of their violations, or one per constraint,
which looks at its own. A violation is :math:`\max(g, 0)` for an inequality and :math:`|h|` for an equality; what is
not observed changes nothing.

====================  ==================================================================================
penalty               after each step
====================  ==================================================================================
constant              stays
multiplicative        times ``growth`` where the violation is above ``tolerance``
additive              plus ``increment`` where the violation is above ``tolerance``
by_feasibility        times ``growth`` where, over ``every`` observations, the violation did not fall to
                      ``shrink`` times what it was
====================  ==================================================================================
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair.constraints._numbers import check_alike, check_number


class Penalty(NamedTuple):
    """The functions of a penalty coefficient.

    Attributes:
      init: ``init(num_constraints) -> state``, with leaves ``[]``, or ``[K]`` if per constraint.
      value: ``value(state) -> c``, ``[]`` or ``[R]``.
      update: ``update(state, violation [R], observed [R]) -> state``; the violations are at least 0.
      per_constraint: whether there is one coefficient for each constraint.

    Example:
      >>> penalty = constant(2.0)
      >>> penalty.value(penalty.init(3))
      Array(2., dtype=float32)
    """

    init: Callable[[int | None], Any]
    value: Callable[[Any], jax.Array]
    update: Callable[[Any, jax.Array, jax.Array], Any]
    per_constraint: bool


def constant(coefficient: ArrayLike, *, per_constraint: bool = False) -> Penalty:
    """A coefficient that stays.

    Args:
      coefficient: c at least 0, scalar or ``[K]``.
      per_constraint: whether a scalar stands for one coefficient for each constraint.

    Raises:
      ValueError: for a coefficient below 0.

    Example:
      >>> import jax.numpy as jnp
      >>> constant(jnp.array([1.0, 3.0])).value(constant(jnp.array([1.0, 3.0])).init(2))
      Array([1., 3.], dtype=float32)
    """
    init, per_constraint = _start(coefficient, per_constraint)
    return Penalty(init, lambda c: c, lambda c, violation, observed: c, per_constraint)


def multiplicative(
    coefficient: ArrayLike,
    *,
    growth: ArrayLike = 1.01,
    tolerance: ArrayLike = 1e-4,
    restart: bool = False,
    maximum: ArrayLike = np.inf,
    per_constraint: bool = False,
) -> Penalty:
    """A coefficient that is multiplied while the violation is above a tolerance.

    Args:
      coefficient: c before the first step, above 0, scalar or ``[K]``.
      growth: the factor, at least 1.
      tolerance: the violation that is let pass.
      restart: back to the start as soon as the violation is within the tolerance.
      maximum: of the coefficient.
      per_constraint: whether a scalar stands for one coefficient for each constraint.

    Raises:
      ValueError: for a coefficient of 0 or less, a tolerance below 0, a growth below 1, a maximum below the
        coefficient, or shapes that do not fit. Here and below, what is traced is not looked at.

    Example:
      >>> import jax.numpy as jnp
      >>> penalty = multiplicative(1.0, growth=2.0, per_constraint=True)
      >>> penalty.update(penalty.init(3), jnp.array([1.0, 0.0, 1.0]), jnp.array([True, True, False]))
      Array([2., 1., 1.], dtype=float32)
    """
    _check_growth(coefficient, growth)
    check_alike(coefficient, per_constraint, growth=growth)
    return _growing(coefficient, lambda c: c * growth, tolerance, restart, maximum, per_constraint)


def additive(
    coefficient: ArrayLike,
    *,
    increment: ArrayLike = 1.0,
    tolerance: ArrayLike = 1e-4,
    restart: bool = False,
    maximum: ArrayLike = np.inf,
    per_constraint: bool = False,
) -> Penalty:
    """A coefficient that is added to while the violation is above a tolerance.

    Args:
      coefficient: c before the first step, at least 0, scalar or ``[K]``.
      increment: what is added, at least 0.
      tolerance: the violation that is let pass.
      restart: back to the start as soon as the violation is within the tolerance.
      maximum: of the coefficient.
      per_constraint: whether a scalar stands for one coefficient for each constraint.

    Raises:
      ValueError: for a coefficient, an increment or a tolerance below 0.

    Example:
      One coefficient looks at the norm of all violations:

      >>> import jax.numpy as jnp
      >>> penalty = additive(0.0, tolerance=4.0)
      >>> penalty.update(penalty.init(2), jnp.array([3.0, 4.0]), jnp.array([True, True]))
      Array(1., dtype=float32)
    """
    check_number(
        increment, lambda i: (i >= 0) & np.isfinite(i), f"increment={increment}: a penalty grows by at least 0."
    )
    check_alike(coefficient, per_constraint, increment=increment)
    return _growing(coefficient, lambda c: c + increment, tolerance, restart, maximum, per_constraint)


class ByFeasibilityState(NamedTuple):
    """The state of :func:`by_feasibility`, leaves ``[]`` or ``[K]``.

    Attributes:
      coefficient: c.
      before: the violation at the last look; infinite before the first.
      seen: int32, observations since the last look.
    """

    coefficient: jax.Array
    before: jax.Array
    seen: jax.Array


def by_feasibility(
    coefficient: ArrayLike,
    *,
    growth: ArrayLike = 10.0,
    shrink: ArrayLike = 0.25,
    every: ArrayLike = 100,
    tolerance: ArrayLike = 1e-4,
    maximum: ArrayLike = np.inf,
    per_constraint: bool = False,
) -> Penalty:
    """A coefficient that grows only where the violation does not fall fast enough, as textbooks have it.

    Once in ``every`` observations the violation is compared with what it was at the last look. If it is above the
    tolerance and above ``shrink`` times that, the coefficient is multiplied by ``growth``.

    Args:
      coefficient: c before the first step, above 0, scalar or ``[K]``.
      growth: the factor, at least 1.
      shrink: in ``(0, 1)``.
      every: observations between looks; the time that the weights have to answer.
      tolerance: the violation that is let pass.
      maximum: of the coefficient.
      per_constraint: whether a scalar stands for one coefficient for each constraint.

    Raises:
      ValueError: for numbers outside of these ranges.

    Example:
      >>> import jax.numpy as jnp
      >>> penalty, seen = by_feasibility(1.0, every=1), jnp.array([True])
      >>> state = penalty.init(1)
      >>> for violation in (8.0, 1.0, 0.9):  # the first look, a fall to an eighth, hardly a fall
      ...     state = penalty.update(state, jnp.array([violation]), seen)
      ...     print(penalty.value(state))
      1.0
      1.0
      10.0

    References:
      Nocedal and Wright, Numerical Optimization, 2006, framework 17.3 and algorithm 17.4.
    """
    _check_growth(coefficient, growth)
    check_alike(coefficient, per_constraint, growth=growth, shrink=shrink, every=every)
    check_number(shrink, lambda s: (s > 0) & (s < 1), f"shrink={shrink}: give a share between 0 and 1.")
    check_number(
        every,
        lambda e: (e >= 1) & (e == np.floor(e)),
        f"every={every}: give a whole number of observations of at least 1.",
    )
    _check_limits(coefficient, tolerance, maximum, per_constraint)
    start, per_constraint = _start(coefficient, per_constraint)

    def init(num_constraints: int | None) -> ByFeasibilityState:
        c = start(num_constraints)
        return ByFeasibilityState(c, jnp.full_like(c, jnp.inf), jnp.zeros(c.shape, jnp.int32))

    def update(
        state: ByFeasibilityState, violation: Float[Array, " R"], observed: Bool[Array, " R"]
    ) -> ByFeasibilityState:
        violation, observed = _seen_by(violation, observed, per_constraint)
        seen = state.seen + observed
        look = observed & (seen >= every)
        slow = look & (violation > tolerance) & (violation > shrink * state.before)
        # The first look has nothing to compare with: shrink times infinity lets everything pass.
        return ByFeasibilityState(
            coefficient=jnp.where(slow, jnp.minimum(state.coefficient * growth, maximum), state.coefficient),
            before=jnp.where(look, violation, state.before),
            seen=jnp.where(look, 0, seen),
        )

    return Penalty(init, lambda state: state.coefficient, update, per_constraint)


def _start(coefficient: ArrayLike, per_constraint: bool) -> tuple[Callable[[int | None], jax.Array], bool]:
    """``init`` of a coefficient, and whether there is one for each constraint."""
    refused = f"coefficient={coefficient}: give a scalar or [K], at least 0."
    # Looked at as it came: of a word NumPy would make a number.
    check_number(coefficient, lambda c: c == c, refused)
    c = coefficient if isinstance(coefficient, Tracer) else np.asarray(coefficient, np.float32)
    if c.ndim > 1:
        raise ValueError(refused)
    check_number(c, lambda c: (c >= 0) & np.isfinite(c), refused)
    vector = per_constraint or c.ndim == 1

    def init(num_constraints: int | None) -> jax.Array:
        if not vector:
            return jnp.array(c, jnp.float32)  # a copy, which a step may overwrite
        if num_constraints is None:
            raise ValueError(
                "one penalty per constraint needs multipliers that are stored one by one: "
                "constraints.dense or constraints.indexed."
            )
        if c.ndim and c.shape != (num_constraints,):
            raise ValueError(f"coefficient has shape {c.shape}, for {num_constraints} constraints.")
        return jnp.array(jnp.broadcast_to(jnp.asarray(c, jnp.float32), (num_constraints,)))

    return init, vector


def _check_growth(coefficient: ArrayLike, growth: ArrayLike) -> None:
    refused = f"growth={growth}: a penalty grows by a factor of at least 1."
    check_number(growth, lambda g: (g >= 1) & np.isfinite(g), refused)
    check_number(
        coefficient, lambda c: c > 0, f"coefficient={coefficient}: a factor makes something of more than 0 only."
    )


def _check_limits(coefficient: ArrayLike, tolerance: ArrayLike, maximum: ArrayLike, per_constraint: bool) -> None:
    check_alike(coefficient, per_constraint, tolerance=tolerance, maximum=maximum)
    check_number(tolerance, lambda t: t >= 0, f"tolerance={tolerance}: give at least 0.")
    if not isinstance(coefficient, Tracer):
        largest = np.asarray(coefficient) if np.ndim(maximum) else np.max(coefficient, initial=0.0)
        check_number(
            maximum,
            lambda m: m >= largest,
            f"maximum={maximum} is below the coefficient that it begins with, {largest}.",
        )


def _seen_by(
    violation: Float[Array, " R"], observed: Bool[Array, " R"], per_constraint: bool
) -> tuple[jax.Array, jax.Array]:
    """What a coefficient looks at: its own violation, or the norm of the observed ones."""
    if per_constraint:
        return violation, observed
    return jnp.sqrt(jnp.sum(jnp.where(observed, violation, 0.0) ** 2)), jnp.any(observed)


def _growing(
    coefficient: ArrayLike,
    grow: Callable[[jax.Array], jax.Array],
    tolerance: ArrayLike,
    restart: bool,
    maximum: ArrayLike,
    per_constraint: bool,
) -> Penalty:
    _check_limits(coefficient, tolerance, maximum, per_constraint)
    start, per_constraint = _start(coefficient, per_constraint)
    if not restart:

        def update(c: jax.Array, violation: jax.Array, observed: jax.Array) -> jax.Array:
            violation, observed = _seen_by(violation, observed, per_constraint)
            return jnp.where(observed & (violation > tolerance), jnp.minimum(grow(c), maximum), c)

        return Penalty(start, lambda c: c, update, per_constraint)

    def update_pair(state: Any, violation: jax.Array, observed: jax.Array) -> Any:
        c, first = state
        violation, observed = _seen_by(violation, observed, per_constraint)
        grown = jnp.where(violation > tolerance, jnp.minimum(grow(c), maximum), first)
        return jnp.where(observed, grown, c), first

    def init_pair(num_constraints: int | None) -> tuple[jax.Array, jax.Array]:
        return start(num_constraints), start(num_constraints)

    return Penalty(init_pair, lambda state: state[0], update_pair, per_constraint)
