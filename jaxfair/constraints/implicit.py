r"""Multipliers as a network of what is known of a constraint: for more constraints than could be visited.

The network :math:`\lambda_\phi(f_k)` maps the features :math:`f_k` of constraint k to its multiplier, so that
constraints that are alike share what was learnt. Its parameters ascend on
:math:`\sum_k \mathrm{strict}_k\, \lambda_\phi(f_k)`.

A multiplier of an inequality is at least 0: negative outputs are read as 0. There the gradient passes as if they
were not cut off while the constraint is violated, and stops when it is satisfied. (With a plain ``relu`` a constraint
whose output has once been negative would never be heard again.)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxfair.constraints._numbers import as_mask, check_number, check_shape
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.multipliers import Multipliers, above_zero, onto_bounds


def implicit(
    init: Callable[[], Any],
    apply: Callable[[Any, Any], jax.Array],
    *,
    equality: ArrayLike = False,
    maximum: ArrayLike | None = None,
) -> Multipliers:
    r"""Multipliers that a network computes from features of the constraints.

    Args:
      init: ``init() -> parameters`` of the network, before the first step.
      apply: ``apply(parameters, features) -> [R]``, features being what the evaluation gives as
        ``Evaluation.features``: an array ``[R, F]`` or a tree of such.
      equality: whether the constraints are equalities.
      maximum: a cap on the multipliers.

    Returns:
      The multipliers' space. The dual optimizer acts on the network's parameters, all together. Nothing is stored per
      constraint, so formulations with one penalty per constraint are refused.

    Raises:
      ValueError: for a cap that is not above 0; when tracing, for an evaluation without ``features``.

    Example:
      Two features, and a linear network without bias:

      >>> import jax.numpy as jnp, optax
      >>> from jaxfair import constraints
      >>> def evaluate(params, carry, batch, key):
      ...     violation = jnp.array([2.0, -1.0])
      ...     proxy, features = params * violation, jnp.eye(2)
      ...     return constraints.Evaluation(loss=params**2, proxy=proxy, strict=violation, features=features)
      >>> space = constraints.implicit(lambda: jnp.zeros(2), lambda w, f: f @ w)
      >>> solver = constraints.solver(evaluate, multipliers=space, primal=optax.sgd(0.1), dual=optax.sgd(0.5))
      >>> solver.step(solver.init(jnp.zeros(())))[0].multipliers
      Array([1., 0.], dtype=float32)

    References:
      Narasimhan et al., `Approximate Heavily-Constrained Learning with Lagrange Multiplier Models
      <https://papers.nips.cc/paper/2020/hash/62db9e3397c76207a687c360e0243317-Abstract.html>`_, 2020.
    """
    equality = bool(as_mask("equality", equality, 1)[0])
    if maximum is not None:
        check_shape("maximum", maximum, None)
        check_number(maximum, lambda m: m > 0, f"maximum={maximum}: give a cap above 0, or None.")

    def features(evaluation: Evaluation) -> Any:
        if evaluation.features is None:
            raise ValueError("constraints.implicit needs Evaluation.features, one row per constraint.")
        return evaluation.features

    def project(multipliers: Float[Array, " R"], evaluation: Any) -> Float[Array, " R"]:
        del evaluation
        return onto_bounds(multipliers, jnp.full(multipliers.shape, equality), maximum)

    def read(values: Any, evaluation: Evaluation) -> Float[Array, " R"]:
        return project(apply(values, features(evaluation)), evaluation)

    def move(
        dual: optax.GradientTransformation,
        values: Any,
        state: Any,
        field: Float[Array, " R"],
        observed: Bool[Array, " R"],
        evaluation: Evaluation,
    ) -> tuple[Any, Any]:
        raw, pull_back = jax.vjp(lambda v: apply(v, features(evaluation)), values)
        at_bound = (raw <= 0) & (field > 0) if not equality else jnp.zeros_like(observed)
        (gradient,) = pull_back(jnp.where(observed & ~at_bound, field, 0.0).astype(raw.dtype))
        updates, state = dual.update(gradient, state, values)
        return optax.apply_updates(values, updates), state

    return Multipliers(
        init=init,
        init_dual=lambda dual, values: dual.init(values),
        read=read,
        project=project,
        violation=lambda strict, evaluation: above_zero(strict, jnp.full(strict.shape, equality)),
        move=move,
        gather=None,
        scatter=None,
        rows=lambda evaluation: jax.tree.leaves(features(evaluation))[0].shape[0],
        num_constraints=None,
        each=False,
    )
