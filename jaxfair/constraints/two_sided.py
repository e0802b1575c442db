"""A constraint from both sides: not only no group harmed by more than the bound, but none favoured by more."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.problem import Problem
from jaxfair.typing import Params


def two_sided(problem: Problem) -> Problem:
    r"""Bounds the constrained quantities from below as well: :math:`-b \le q_k \le b` in place of :math:`q_k \le b`.

    Args:
      problem: K inequalities :math:`q_k - b \le 0`, with b in ``problem.bound``.

    Returns:
      A problem with 2K inequalities: those of ``problem``, and then :math:`-q_k - b \le 0`.

    Raises:
      ValueError: for equalities, for a problem that brings its own multipliers, and (when tracing) for evaluations with
        ``index`` or ``features``.

    Example:
      Group 1 gains what group 0 loses, and with both sides bounded both of them violate:

      >>> import jax.numpy as jnp
      >>> from jaxfair import constraints
      >>> def evaluate(params, carry, batch, key):
      ...     v = jnp.array([0.3, -0.3]) - 0.1
      ...     return constraints.Evaluation(params**2, v, v)
      >>> problem = constraints.Problem(2, False, lambda *_: (), evaluate, bound=0.1)
      >>> both = constraints.two_sided(problem)
      >>> both.evaluate(jnp.ones(()), (), None, None).strict.round(3)
      Array([ 0.2, -0.4, -0.4,  0.2], dtype=float32)
    """
    num = problem.num_constraints
    if np.any(problem.equality) or problem.multipliers is not None:
        raise ValueError("two_sided bounds inequalities with dense multipliers: an equality has both sides already.")

    def both(values: jax.Array, bound: ArrayLike) -> jax.Array:
        return jnp.concatenate([values, -(values + bound) - bound])

    def twice(values: ArrayLike) -> jax.Array:
        return jnp.tile(jnp.broadcast_to(jnp.asarray(values), (num,)), 2)

    def evaluate(params: Params, carry: Any, batch: Any, key: Any) -> Evaluation:
        found = problem.evaluate(params, carry, batch, key)
        if found.index is not None or found.features is not None:
            raise ValueError("two_sided needs dense constraints, without Evaluation.index or features.")
        return found._replace(
            proxy=both(found.proxy, problem.bound),
            strict=both(found.strict, problem.bound),
            proxy_observed=twice(found.proxy_observed),
            strict_observed=twice(found.strict_observed),
            strict_error=None if found.strict_error is None else twice(found.strict_error),
        )

    bound = problem.bound if jnp.ndim(problem.bound) == 0 else jnp.tile(problem.bound, 2)
    return problem._replace(num_constraints=2 * num, evaluate=evaluate, bound=bound)
