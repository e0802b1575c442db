"""Constraints in other units: each of them times a number, so that one dual step size suits all."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair.constraints._numbers import check_number, check_shape
from jaxfair.constraints._people import take
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.problem import Problem
from jaxfair.typing import Params


def scaled(problem: Problem, scale: ArrayLike) -> Problem:
    r"""The same problem with the constraints :math:`s_k g_k \le 0` in place of :math:`g_k \le 0`.

    What is feasible stays so. A multiplier's step is :math:`s_k` times as long, and so is what it weighs: together as
    if the dual step size of the constraint were :math:`s_k^2` times as large. Under an augmented Lagrangian or a
    quadratic penalty, the constraint's penalty is.

    Args:
      problem: any.
      scale: a number above 0, or ``[K]`` of them; may be traced.

    Returns:
      The problem.

    Raises:
      ValueError: for a number of 0 or less, or as many as there are no constraints.

    Example:
      The second constraint speaks of few, and counts for less:

      >>> from jaxfair import constraints
      >>> def evaluate(params, carry, batch, key):
      ...     v = jnp.array([0.25, -0.5]) * params
      ...     return constraints.Evaluation(params**2, v, v)
      >>> problem = constraints.Problem(2, False, lambda *_: (), evaluate)
      >>> constraints.scaled(problem, jnp.array([1.0, 0.5])).evaluate(jnp.ones(()), (), None, None).strict
      Array([ 0.25, -0.25], dtype=float32)
    """
    check_shape("scale", scale, problem.num_constraints)
    check_number(scale, lambda s: (s > 0) & np.isfinite(s), f"scale={scale}: give numbers above 0.")

    def evaluate(params: Params, carry: Any, batch: Any, key: Any) -> Evaluation:
        found = problem.evaluate(params, carry, batch, key)
        s = jnp.asarray(scale)
        if found.index is not None and s.ndim:
            s = take(s, found.index)  # a row that stands for nothing is 0
        error = None if found.strict_error is None else s * found.strict_error
        return found._replace(proxy=s * found.proxy, strict=s * found.strict, strict_error=error)

    return problem._replace(evaluate=evaluate, bound=jnp.asarray(scale) * problem.bound)
