r"""Lagrange multipliers: where they start, the set they live in, and which of them a step touches.

===========  ==========================================  =============================================
kind         a step reads and moves                      file
===========  ==========================================  =============================================
dense        all K multipliers                           this one
indexed      the rows named by ``Evaluation.index``      `constraints.indexed`
implicit     a network of ``Evaluation.features``        `constraints.implicit`
===========  ==========================================  =============================================

An evaluation speaks of R constraints, its *rows*: R = K for dense multipliers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair import tree
from jaxfair.constraints._dual import update_rows
from jaxfair.constraints._numbers import as_mask, check_count, check_number, check_shape, check_switch
from jaxfair.constraints.evaluation import Evaluation


class Multipliers(NamedTuple):
    r"""The dual player's space.

    Attributes:
      init: ``init() -> values``, what the solver's state holds: ``[K]`` float32, or a network's parameters.
      init_dual: ``init_dual(dual, values) -> state`` of the dual optimizer.
      read: ``read(values, evaluation) -> [R]`` multipliers of the rows.
      project: ``project([R], evaluation) -> [R]``, onto :math:`\lambda_k \ge 0` for inequalities (and below the cap,
        where there is one); equalities are free.
      violation: ``violation(strict [R], evaluation) -> [R]``: :math:`\max(g, 0)` of inequalities, h of equalities. No
        cap: that is for multipliers.
      move: ``move(dual, values, state, field [R], observed [R], evaluation) -> (values, state)``: one step of the
        dual optimizer *down* the field. What is not observed stays, multiplier and optimizer state.
      gather: ``gather(tree, evaluation)``: the rows of a tree of ``[K, ...]`` arrays. None where there is nothing per
        constraint.
      scatter: ``scatter(tree, rows, evaluation)``: the inverse.
      rows: ``rows(evaluation) -> R``.
      num_constraints: K; None where there may be any number.
      each: whether the dual optimizer acts on every multiplier by itself.
      all_rows: whether every evaluation speaks of all constraints, in order.
      present: ``present(evaluation) -> [R]`` bool, which rows stand for a constraint; None where all do.
      restart: whether a multiplier is set back when its constraint is satisfied.

    Example:
      A step of plain ascent on three constraints, of which the second is not observed. Gathered are the rows of
      whatever is held per constraint, here all of them:

      >>> space, dual = dense(3, maximum=2.5), optax.sgd(1.0)
      >>> values, strict = space.init(), jnp.array([-1.0, 1.0, 3.0])
      >>> found, observed = Evaluation(jnp.zeros(()), strict, strict), jnp.array([True, False, True])
      >>> space.move(dual, values, space.init_dual(dual, values), -strict, observed, found)[0]
      Array([0. , 0. , 2.5], dtype=float32)
      >>> space.violation(strict, found), space.gather(values, found).shape
      (Array([0., 1., 3.], dtype=float32), (3,))
    """

    init: Callable[[], Any]
    init_dual: Callable[[optax.GradientTransformation, Any], Any]
    read: Callable[[Any, Evaluation], jax.Array]
    project: Callable[[jax.Array, Any], jax.Array]
    violation: Callable[[jax.Array, Any], jax.Array]
    move: Callable[..., tuple[Any, Any]]
    gather: Callable[[Any, Evaluation], Any] | None
    scatter: Callable[[Any, Any, Evaluation], Any] | None
    rows: Callable[[Evaluation], int]
    num_constraints: int | None
    each: bool
    all_rows: bool = False
    present: Callable[[Evaluation], jax.Array] | None = None
    restart: bool = False


def dense(
    num_constraints: int,
    *,
    equality: ArrayLike | Sequence[bool] = False,
    initial: ArrayLike = 0.0,
    maximum: ArrayLike | None = None,
    restart: bool = False,
) -> Multipliers:
    r"""One multiplier per constraint, all of them held in one array and all of them read at each step.

    Args:
      num_constraints: K. Zero is allowed, and makes the solver a plain optimizer.
      equality: whether the constraints are equalities: one bool for all, or ``[K]`` for a problem with both kinds.
      initial: scalar or ``[K]``: the multipliers before the first step.
      maximum: a cap on :math:`|\lambda_k|`, for all or ``[K]``. Without a feasible point multipliers grow for ever; a
        cap bounds what an impossible constraint can do to the loss (the exact penalty method). A multiplier that stays
        at its cap says that the constraint cannot be met, or that the cap is below its true multiplier.
      restart: sets the multiplier of an inequality back to 0, and the state of its optimizer to the start, as soon
        as it is observed to be satisfied: what was summed up while it was violated is not paid off by overshooting.
        At a solution where the constraint is active this oscillates instead of converging.

    Returns:
      The multipliers' space.

    Raises:
      ValueError: for a negative ``num_constraints``, an ``initial`` of another shape, one below 0 for an
        inequality or beyond the cap, or a ``maximum`` that is not above 0. What is traced is not looked at.

    Example:
      The first constraint is an inequality and the second an equality:

      >>> import numpy as np, jax.numpy as jnp
      >>> space = dense(2, equality=np.array([False, True]))
      >>> space.project(jnp.array([-1.0, -1.0]), None)
      Array([ 0., -1.], dtype=float32)

    References:
      Gallego-Posada et al., `Cooper <https://arxiv.org/abs/2504.01212>`_, 2025, where the same object is called
      ``DenseMultiplier``. Restarts: Elenter et al. had them in an early version of it, where the optimizer's state
      was kept and so went on pushing.
    """
    check_switch("restart", restart)
    check_shape("maximum", 0.0 if maximum is None else maximum, num_constraints)
    free, start = start_values(num_constraints, equality, initial, maximum)

    def project(multipliers: Float[Array, " K"], evaluation: Any) -> Float[Array, " K"]:
        del evaluation
        return onto_bounds(multipliers, jnp.asarray(free), maximum)

    def gather(tree: Any, evaluation: Any) -> Any:
        del evaluation
        return tree

    def scatter(tree: Any, rows: Any, evaluation: Any) -> Any:
        del tree, evaluation
        return rows

    return by_rows(
        num_constraints=num_constraints,
        # A copy: what a step may be given to overwrite must not be shared between two runs.
        init=lambda: jnp.array(start),
        project=project,
        gather=gather,
        scatter=scatter,
        rows=lambda evaluation: num_constraints,
        number=lambda evaluation: jnp.arange(num_constraints),
        free=lambda evaluation: jnp.asarray(free),
        restart=restart,
    )._replace(all_rows=True)


def start_values(
    num_constraints: int,
    equality: ArrayLike | Sequence[bool],
    initial: ArrayLike,
    maximum: ArrayLike | None,
) -> tuple[np.ndarray, ArrayLike]:
    """Checks what :func:`dense` is given; which multipliers are free in sign, and where all of them start."""
    check_count("num_constraints", num_constraints, low=0)
    cap = np.inf if maximum is None else maximum
    check_number(cap, lambda m: m > 0, f"maximum={maximum}: give a cap above 0, or None for no cap.")
    free = as_mask("equality", equality, num_constraints)
    check_shape("initial", initial, num_constraints)
    if isinstance(initial, Tracer):
        return free, jnp.broadcast_to(jnp.asarray(initial, jnp.float32), (num_constraints,))
    start = np.broadcast_to(np.asarray(initial, np.float32), (num_constraints,))
    least = start[~free].min(initial=np.inf)
    check_number(start, np.isfinite, f"initial={initial}: give finite numbers.")
    check_number(
        least,
        lambda m: m >= 0,
        f"initial={least} for an inequality: its multiplier must be 0 or more.",
    )
    largest = np.abs(start) if np.ndim(cap) else np.abs(start).max(initial=0.0)
    check_number(cap, lambda m: m >= largest, f"initial={largest} is beyond maximum={maximum}.")
    return free, start


def onto_bounds(
    multipliers: Float[Array, " R"], free: Bool[Array, " R"], maximum: ArrayLike | None
) -> Float[Array, " R"]:
    """The nearest multipliers that are allowed: at least 0 unless free in sign, and at most the cap."""
    projected = above_zero(multipliers, free)
    return projected if maximum is None else jnp.clip(projected, jnp.negative(maximum), maximum)


def above_zero(values: Float[Array, " R"], free: Bool[Array, " R"]) -> Float[Array, " R"]:
    """Cut off at 0 unless free in sign: of strict values, the violations."""
    return jnp.where(free, values, jax.nn.relu(values))


def by_rows(
    *,
    num_constraints: int,
    init: Callable[[], jax.Array],
    project: Callable[[jax.Array, Any], jax.Array],
    gather: Callable[[Any, Evaluation], Any],
    scatter: Callable[[Any, Any, Evaluation], Any],
    rows: Callable[[Evaluation], int],
    number: Callable[[Evaluation], jax.Array],
    free: Callable[[Any], jax.Array],
    restart: bool,
    present: Callable[[Evaluation], jax.Array] | None = None,
) -> Multipliers:
    """Multipliers that are stored one by one: the dual optimizer is mapped over the rows of an evaluation."""

    def move(
        dual: optax.GradientTransformation,
        values: Float[Array, " K"],
        state: Any,
        field: Float[Array, " R"],
        observed: Bool[Array, " R"],
        evaluation: Evaluation,
    ) -> tuple[Float[Array, " K"], Any]:
        before, state_before = gather((values, state), evaluation)
        field = jnp.where(observed, field, 0.0).astype(before.dtype)
        updates, state_after = update_rows(dual, field, state_before, before, number(evaluation))
        after = project(before + updates, evaluation)
        if restart:
            satisfied = observed & (field >= 0) & ~free(evaluation)  # the field is minus the violation
            after = jnp.where(satisfied, 0.0, after)
            state_after = tree.by_lane(satisfied, jax.vmap(dual.init)(after), state_after)
        after = jnp.where(observed, after, before)
        return scatter((values, state), (after, tree.by_lane(observed, state_after, state_before)), evaluation)

    return Multipliers(
        init=init,
        init_dual=lambda dual, values: jax.vmap(dual.init)(values),
        read=gather,
        project=project,
        violation=lambda strict, evaluation: above_zero(strict, free(evaluation)),
        move=move,
        gather=gather,
        scatter=scatter,
        rows=rows,
        num_constraints=num_constraints,
        each=True,
        present=present,
        restart=restart,
    )
