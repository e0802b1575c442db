r"""Constraints that complaints switch on and off: criteria of a training, of which not all can be enforced at once.

Criterion k is the k-th constraint of a problem of `jaxfair.constraints`, and its complaint what the batch says of its
violation, :math:`\max(\mathrm{strict}_k, 0)`, or :math:`|\mathrm{strict}_k|` of an equality. A constraint that is not
fixed is not enforced: it has no part in the direction of the weights, and its multiplier waits. What a policy fixes is
enforced from the same step on.

The model is ours: see :func:`jaxfair.robust.play`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.robust.complaints.play import Policy


class DrivenCarry(NamedTuple):
    """What a problem that is driven by complaints carries.

    Attributes:
      inner: the problem's own carry.
      fixed: ``[K]`` booleans, which constraints are enforced.
      memory: the policy's.
      paid: scalar, the complaints so far about constraints that were not enforced.
    """

    inner: Any
    fixed: jax.Array
    memory: Any
    paid: jax.Array

    @property
    def model_state(self) -> Any:
        """The network's, where the problem carries one."""
        return getattr(self.inner, "model_state", {})


def driven(problem: Any, policy: Policy) -> Any:
    """Makes a problem whose constraints are enforced when a policy says so.

    Args:
      problem: a `jaxfair.constraints.Problem` of K constraints.
      policy: for K criteria, such as :func:`~jaxfair.robust.threshold_policy`; a cost is a sum of violations then.

    Returns:
      A `Problem` with the same multipliers and formulation; ``carry.fixed`` says what is enforced.

    Raises:
      ValueError: when traced, for a policy of another number of criteria, and for constraints that are indexed.

    Example:
      x is to be at least 1, and at most -1: the two exclude each other. After four of 16 steps the first is enforced,
      and x grows; when enough was complained of the second, it is enforced in place of the first:

      >>> import numpy as np, optax
      >>> from jaxfair import constraints, robust
      >>> def evaluate(params, carry, batch, key):
      ...     g = jnp.stack([1.0 - params, params + 1.0])
      ...     return constraints.Evaluation(loss=0.0 * params, proxy=g, strict=g)
      >>> both = constraints.Problem(2, equality=False, init=lambda *_: (), evaluate=evaluate)
      >>> edge, costs = np.array([[0, 1], [1, 0]], bool), np.array([5.0, 20.0])
      >>> either = driven(both, robust.threshold_policy(edge, costs))
      >>> solver = constraints.solver(either, primal=optax.sgd(0.1), dual=optax.sgd(1.0))
      >>> def step(state, _):
      ...     state, _ = solver.step(state)
      ...     return state, state.carry.fixed
      >>> start = solver.init(jnp.zeros(()), either.init())
      >>> jax.lax.scan(step, start, length=16)[1].astype(int).sum(axis=0).tolist()
      [8, 4]
    """

    def init(*args: Any, **kwargs: Any) -> DrivenCarry:
        none = jnp.zeros(problem.num_constraints, bool)
        return DrivenCarry(problem.init(*args, **kwargs), none, policy.init(), jnp.zeros(()))

    def evaluate(params: Any, carry: DrivenCarry, batch: Any, key: Any) -> Any:
        seen = problem.evaluate(params, carry.inner, batch, key)
        if seen.index is not None:
            raise ValueError("driven() does not go with indexed constraints: a policy knows them all.")
        known = jnp.broadcast_to(jnp.asarray(seen.strict_observed, bool), carry.fixed.shape)
        above = jnp.maximum(seen.strict, 0)
        violation = jax.lax.stop_gradient(jnp.where(problem.equality, jnp.abs(seen.strict), above))
        complaints = jnp.where(known & jnp.isfinite(violation), violation, 0)
        fixed, memory = policy.act(carry.memory, carry.fixed, jnp.where(carry.fixed, 0, complaints))
        if jnp.shape(fixed) != carry.fixed.shape:
            raise ValueError(f"a policy of {len(fixed)} criteria: the problem has {len(carry.fixed)} constraints.")
        paid = carry.paid + jnp.sum(jnp.where(fixed, 0, complaints))
        return seen._replace(
            proxy_observed=jnp.asarray(seen.proxy_observed, bool) & fixed,
            strict_observed=known & fixed,
            carry=DrivenCarry(seen.carry, fixed, memory, paid),
        )

    return problem._replace(init=init, evaluate=evaluate)
