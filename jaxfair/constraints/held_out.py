r"""Two data sets: the weights learn from one, the multipliers judge by the other. And judging with confidence.

A constraint that holds on the training split need not hold for new people. Where there are enough of them, the strict
value may be measured on people that the weights are not trained on, and a multiplier may be told to rise only when the
violation is more than noise.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair.constraints._numbers import check_number, check_shape
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.problem import Carry, Problem
from jaxfair.typing import ModelState, Params


class HeldOutCarry(NamedTuple):
    """What :func:`held_out` carries.

    Attributes:
      proxy: the carry of the problem that the weights see.
      strict: the carry of the problem that the multipliers see.
    """

    proxy: Carry
    strict: Carry

    @property
    def model_state(self) -> ModelState:
        """The network's, which the weights' problem updates."""
        return self.proxy.model_state


def held_out(proxy: Problem, strict: Problem) -> Problem:
    """Takes the loss and the proxies from one problem, and the strict values from another.

    The two are the same constraint on two splits: each has its own memory and its own reference. A step is given a pair
    of batches and costs a second forward pass.

    Args:
      proxy: gives loss and proxies; its batches are from the training split.
      strict: gives the strict values; its batches are held out.

    Returns:
      The problem. ``init(model_state, outcomes, batch)`` and ``evaluate(params, carry, batch, key)`` take pairs
      ``(training, held out)`` for ``outcomes`` and ``batch``. ``aux`` is a pair.

    Raises:
      ValueError: if the two have not the same constraints in number and kind.

    Example:
      The network is right on the training split, so its weights have nothing to learn from a wrong held-out example;
      but the multiplier of that group will see it:

      >>> import jax.numpy as jnp
      >>> from jaxfair import constraints
      >>> from jaxfair.typing import Batch
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x * params, state
      >>> problem = constraints.accuracy_gap(apply, num_groups=2, tolerance=0.0)
      >>> both = constraints.held_out(problem, problem)
      >>> group, one = jnp.array([0, 1]), jnp.ones(2)
      >>> right, wrong = jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([[2.0, 0.0], [0.0, 2.0]])
      >>> splits = tuple(Batch(x, jnp.zeros(2, int), group, jnp.arange(2), one) for x in (right, wrong))
      >>> dense = constraints.Outcomes(correct=one, loss=jnp.zeros(2))
      >>> both.evaluate(jnp.ones(()), both.init({}, (dense, dense), splits), splits, None).strict
      Array([0., 1.], dtype=float32)

    References:
      Cotter et al., `Training Well-Generalizing Classifiers for Fairness Metrics and Other Data-Dependent Constraints
      <https://arxiv.org/abs/1807.00028>`_, 2019.
    """
    same_kind = np.array_equal(proxy.equality, strict.equality)
    if proxy.num_constraints != strict.num_constraints or not same_kind:
        raise ValueError(
            f"proxy has {proxy.num_constraints} constraints (equality={proxy.equality}) and strict "
            f"{strict.num_constraints} (equality={strict.equality}): give the same constraint on two splits."
        )

    def init(model_state: ModelState, outcomes: Any, batch: Any) -> Any:
        return HeldOutCarry(
            proxy.init(model_state, outcomes[0], batch[0]),
            strict.init(model_state, outcomes[1], batch[1]),
        )

    def evaluate(params: Params, carry: HeldOutCarry, batch: Any, key: Any) -> Evaluation:
        trained = proxy.evaluate(params, carry.proxy, batch[0], key)
        # The network is one and the same, with its BatchNorm statistics as they came in; what the held-out
        # batch would make of them is dropped.
        judged = strict.evaluate(
            jax.lax.stop_gradient(params),
            carry.strict._replace(model_state=carry.model_state),
            batch[1],
            key,
        )
        kept = judged.carry._replace(model_state=trained.carry.model_state)
        return trained._replace(
            strict=judged.strict,
            strict_observed=judged.strict_observed,
            strict_error=judged.strict_error,
            carry=HeldOutCarry(trained.carry, kept),
            aux=(trained.aux, judged.aux),
        )

    return proxy._replace(init=init, evaluate=evaluate)


def confident(problem: Problem, *, z: ArrayLike = 1.645) -> Problem:
    r"""Lets a multiplier rise only where the violation is more than noise.

    A strict value v > 0 is replaced by the lower limit of its one-sided confidence interval, :math:`\max(v - z e, 0)`
    with e its standard error. Values of at most 0 stay, so multipliers fall as before; of equalities both signs shrink.

    Args:
      problem: any problem whose evaluations have ``strict_error``.
      z: the quantile of the normal distribution, one for all or ``[K]``; 1.645 is 95 % for each constraint by itself.

    Returns:
      The problem. Multipliers that rise later let through violations that cannot be told from noise: it trades
      violations that are real but small for weight that is not spent on chance.

    Raises:
      ValueError: for a negative z, and (when tracing) for evaluations without standard errors.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxfair import constraints
      >>> def evaluate(params, carry, batch, key):
      ...     v = jnp.array([0.3, 0.1, -0.2])
      ...     return constraints.Evaluation(params**2, v, v, strict_error=jnp.full(3, 0.1))
      >>> problem = constraints.Problem(3, False, lambda *_: (), evaluate)
      >>> strict = constraints.confident(problem, z=2.0).evaluate(jnp.ones(()), (), None, None).strict
      >>> [round(float(value), 3) for value in strict]
      [0.1, 0.0, -0.2]
    """
    check_shape("z", z, problem.num_constraints)
    check_number(z, lambda z: z >= 0, f"z={z}: give a quantile of at least 0.")

    def evaluate(params: Params, carry: Any, batch: Any, key: Any) -> Evaluation:
        found = problem.evaluate(params, carry, batch, key)
        if found.strict_error is None:
            raise ValueError("confident needs Evaluation.strict_error, the standard errors.")
        # Not z * e: 0 * inf is not 0.
        error = jnp.where(jnp.isinf(found.strict_error), jnp.inf, jnp.asarray(z) * found.strict_error)
        limit = jnp.maximum(jnp.abs(found.strict) - error, 0.0)
        if jnp.shape(found.strict_error) != jnp.shape(found.strict):
            raise ValueError(
                f"Evaluation.strict_error has shape {jnp.shape(found.strict_error)} and strict "
                f"{jnp.shape(found.strict)}: give one standard error for each."
            )
        shrunk = jnp.sign(found.strict) * limit
        # A multiplier of an inequality falls as fast as ever.
        both_signs = (found.strict > 0) | jnp.asarray(problem.equality)
        shrunk = jnp.where(both_signs, shrunk, found.strict)
        return found._replace(strict=shrunk)

    return problem._replace(evaluate=evaluate)
