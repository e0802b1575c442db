"""Multipliers of a very large number of constraints, of which a step sees a few."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxfair.constraints._numbers import check_shape, check_switch
from jaxfair.constraints._people import ids, last_of_each
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.multipliers import Multipliers, by_rows, onto_bounds, start_values


def indexed(
    num_constraints: int,
    *,
    equality: ArrayLike | Sequence[bool] = False,
    initial: ArrayLike = 0.0,
    maximum: ArrayLike | None = None,
    restart: bool = False,
) -> Multipliers:
    """One multiplier per constraint, of which a step reads and moves the rows that its evaluation names.

    An evaluation gives ``index`` ``[R]``, the numbers of the constraints that its ``proxy`` and ``strict`` ``[R]``
    speak of. Multipliers, the state of their optimizer and per-constraint penalties are read and written at these rows
    only, in place, so that a step with a million constraints costs what one with R constraints does
    (`benchmarks/indexed_multipliers.py`). With all constraints in ``index`` it is :func:`~jaxfair.constraints.dense`.

    Args:
      num_constraints: K, at most 2^31 - 1.
      equality: one bool for all, or ``[K]``.
      initial: scalar or ``[K]``.
      maximum: a cap for all of them, as in :func:`~jaxfair.constraints.dense`.
      restart: as in :func:`~jaxfair.constraints.dense`.

    Returns:
      The multipliers' space. Of a constraint that is named more than once, the last row counts, as if the others were
      not there. A row for nothing, to fill up a fixed R, has the number K: whatever it says is not looked at.

    Raises:
      ValueError: as :func:`~jaxfair.constraints.dense`; and, when tracing, for an evaluation without ``index``.

    Example:
      Five constraints, of which this step sees the last and the first:

      >>> import jax.numpy as jnp, optax
      >>> from jaxfair import constraints
      >>> def evaluate(params, carry, batch, key):
      ...     violation = jnp.array([2.0, -1.0])
      ...     proxy, index = params * violation, jnp.array([4, 0])
      ...     return constraints.Evaluation(loss=params**2, proxy=proxy, strict=violation, index=index)
      >>> solver = constraints.solver(evaluate, multipliers=constraints.indexed(5),
      ...                             primal=optax.sgd(0.1), dual=optax.sgd(0.5))
      >>> solver.step(solver.init(jnp.zeros(())))[0].multipliers
      Array([0., 0., 0., 0., 1.], dtype=float32)

    References:
      Gallego-Posada et al., `Cooper <https://arxiv.org/abs/2504.01212>`_, 2025 (``IndexedMultiplier``).
    """
    check_switch("restart", restart)
    check_shape("maximum", 0.0 if maximum is None else maximum, None)
    free, start = start_values(num_constraints, equality, initial, maximum)
    all_free, none_free = bool(free.all()), not free.any()

    def is_free(evaluation: Any) -> jax.Array:
        rows = index(evaluation).shape
        if all_free or none_free:
            return jnp.full(rows, all_free and num_constraints > 0)
        return jnp.asarray(free).at[place(evaluation)].get(mode="fill", fill_value=False)

    def present(evaluation: Evaluation) -> jax.Array:
        return last_of_each(place(evaluation), num_constraints)

    def place(evaluation: Evaluation) -> jax.Array:
        return ids("Evaluation.index", index(evaluation), num_constraints)

    def project(multipliers: Float[Array, " R"], evaluation: Any) -> Float[Array, " R"]:
        return onto_bounds(multipliers, is_free(evaluation), maximum)

    def gather(tree: Any, evaluation: Evaluation) -> Any:
        at = place(evaluation)
        # Zero for a row that is not there.
        return jax.tree.map(lambda leaf: leaf.at[at].get(mode="fill", fill_value=0), tree)

    def scatter(tree: Any, rows: Any, evaluation: Evaluation) -> Any:
        at = jnp.where(present(evaluation), place(evaluation), num_constraints)
        return jax.tree.map(lambda leaf, row: leaf.at[at].set(row, mode="drop", unique_indices=True), tree, rows)

    return by_rows(
        num_constraints=num_constraints,
        init=lambda: jnp.array(start),
        project=project,
        gather=gather,
        scatter=scatter,
        rows=lambda evaluation: index(evaluation).shape[0],
        number=place,
        free=is_free,
        restart=restart,
        present=present,
    )


def index(evaluation: Evaluation) -> jax.Array:
    """The numbers of the constraints of an evaluation, ``[R]``.

    Raises:
      ValueError: if it has none, or they are no integers of one dimension.
    """
    if evaluation.index is None:
        raise ValueError("constraints.indexed needs Evaluation.index, the numbers of the constraints.")
    at = jnp.asarray(evaluation.index)
    if at.ndim != 1 or not jnp.issubdtype(at.dtype, jnp.integer):
        raise ValueError(
            f"Evaluation.index has shape {at.shape} and dtype {at.dtype}: give one integer per constraint."
        )
    return at
