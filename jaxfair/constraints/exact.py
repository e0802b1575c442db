"""The exact estimate: a memory that is filled anew from the whole training split, every so many steps."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import ArrayLike

from jaxfair.constraints._numbers import check_count
from jaxfair.constraints.memories import Memory
from jaxfair.constraints.solver import Solver
from jaxfair.tree import cond_any
from jaxfair.typing import Batch


def refreshed(
    solver: Solver,
    memory: Memory,
    correct: Callable[[Any, Any], jax.Array],
    split: Batch,
    *,
    every: ArrayLike,
) -> Solver:
    """A solver whose memory is filled from the whole split before every n-th step: no lag, at the price of a pass.

    Args:
      solver: of a problem of groups that was made with ``memory``.
      memory: its memory.
      correct: ``correct(params, model_state) -> [N]`` outcomes on the split, in eval mode.
      split: the training split, of which ``group`` and ``weight`` are read.
      every: n. Between two refreshes the memory is fed by batches, as it would be without.

    Returns:
      The solver.

    Raises:
      ValueError: for an ``every`` that is no whole number of at least 1, unless it is traced.

    Example:
      A linear model that is wrong about everybody; the memory knows it at once:

      >>> import jax.numpy as jnp, optax
      >>> from jaxfair import constraints
      >>> apply = lambda params, state, x, *, train, key=None: (x * params, state)
      >>> x, zero = jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.zeros(2, jnp.int32)
      >>> split = Batch(x, zero, zero, jnp.arange(2), jnp.ones(2))
      >>> memory = constraints.example_memory(num_groups=1)
      >>> problem = constraints.excess_accuracy_gap(apply, num_groups=1, tolerance=0.1, memory=memory)
      >>> solver = constraints.solver(problem, primal=optax.sgd(0.1), dual=optax.sgd(0.1))
      >>> right = lambda params, state: constraints.outcomes(x * params, zero).correct
      >>> exact = refreshed(solver, memory, right, split, every=5)
      >>> state = exact.init(-jnp.ones(()), problem.init({}, constraints.outcomes(x, zero), split))
      >>> state, _ = exact.step(state, jax.tree.map(lambda a: a[:1], split), None)
      >>> state.carry.memory.sums.tolist()
      [0.0]
    """
    check_count("every", every)

    def filled(carry: Any, params: Any) -> Any:
        return memory.init(split.group, correct(params, carry.model_state), split.weight)

    def kept(carry: Any, params: Any) -> Any:
        del params
        return carry.memory

    def step(state: Any, batch: Batch | None = None, key: Any = None) -> tuple[Any, Any]:
        now = cond_any(state.step % every == 0, filled, kept, state.carry, state.params)
        return solver.step(state._replace(carry=state.carry._replace(memory=now)), batch, key)

    return solver._replace(step=step)
