r"""A solver for constrained problems: one forward, one backward, two optimizers.

.. math::

   \min_\theta L(\theta) \quad \text{subject to} \quad g_k(\theta) \le 0, \quad h_k(\theta) = 0

as a game between the weights, which descend on the Lagrangian with the *proxy* constraints, and the multipliers,
which ascend on the *strict* ones:

.. math::

   \lambda_k &\leftarrow \Pi\,[\lambda_k + \eta_d\, \mathrm{strict}_k(\theta)] \quad \text{where observed} \\
   \theta &\leftarrow \theta - \eta_p\, \nabla_\theta\,
   \big[ L + \textstyle\sum_k w_k(\lambda)\, \mathrm{proxy}_k \big](\theta)

Both players are optax chains: the primal one on the parameters, the dual one on each multiplier by itself.

The gradient is one pull-back of the vector :math:`(1, w)` through ``(loss, proxy)``: the cost of a step does not grow
with the number of constraints, and the multipliers can be updated between the forward and the backward pass.

Differences to Cooper (PyTorch): the problem is a pure function instead of an object that registers its constraints;
the state of the dual optimizer of an unobserved constraint does not move (there, a dense multiplier's momentum
goes on); the whole step is one compiled function.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.formulations import Formulation, lagrangian
from jaxfair.constraints.multipliers import Multipliers
from jaxfair.typing import Params

ORDERS = ("dual_primal", "simultaneous", "primal_dual")


class SolverState(NamedTuple):
    """What a run carries from step to step.

    Attributes:
      params: the primal player.
      multipliers: ``[K]`` float32, at least 0 for inequalities.
      penalties: the formulation's state; ``()`` where it has none.
      primal_state: the state of the primal optimizer.
      dual_state: the state of the dual optimizer, every leaf with a leading axis of K.
      carry: what ``evaluate`` carries: model state, memories, constants.
      step: scalar int32, the number of steps taken.
    """

    params: Params
    multipliers: jax.Array
    penalties: Any
    primal_state: Any
    dual_state: Any
    carry: Any
    step: jax.Array


class Info(NamedTuple):
    """What a step lets you look at. All of it was measured at the parameters *before* the step.

    Attributes:
      loss: scalar.
      proxy: ``[K]``.
      strict: ``[K]``.
      proxy_observed: ``[K]`` bool.
      strict_observed: ``[K]`` bool.
      weights: ``[K]``, how much each proxy counted in the primal direction; 0 where unobserved.
      aux: the ``aux`` of the evaluation.
    """

    loss: jax.Array
    proxy: jax.Array
    strict: jax.Array
    proxy_observed: jax.Array
    strict_observed: jax.Array
    weights: jax.Array
    aux: Any


class Solver(NamedTuple):
    """The two functions of a solver, made by :func:`solver`.

    Attributes:
      init: ``init(params, carry=()) -> SolverState``.
      step: ``step(state, batch=None, key=None) -> (SolverState, Info)``; jit, vmap and scan it freely.

    Example:
      >>> Solver._fields
      ('init', 'step')
    """

    init: Callable[..., SolverState]
    step: Callable[..., tuple[SolverState, Info]]


def solver(
    evaluate: Callable[[Params, Any, Any, Any], Evaluation],
    *,
    multipliers: Multipliers,
    primal: optax.GradientTransformation,
    dual: optax.GradientTransformation,
    formulation: Formulation | None = None,
    order: str = "dual_primal",
) -> Solver:
    r"""Makes the solver of a constrained problem.

    Args:
      evaluate: ``evaluate(params, carry, batch, key) -> Evaluation``, pure. All evaluations within a step share
        batch, key and incoming carry.
      multipliers: the dual player's space, such as :func:`dense`.
      primal: the optimizer of the parameters, descending.
      dual: the optimizer of the multipliers. It is given minus the strict values, so a plain ``optax.sgd`` ascends;
        it acts on every multiplier by itself, and one that mixes them (a global clip) is refused.
      formulation: how multipliers weigh the proxies; :func:`lagrangian` by default.
      order: ``"dual_primal"`` evaluates once, moves the multipliers, then the weights with the new multipliers;
        ``"simultaneous"`` evaluates once and moves both from the old values; ``"primal_dual"`` moves the weights,
        evaluates again and then moves the multipliers.

    Returns:
      The :class:`Solver`.

    Raises:
      ValueError: for an unknown ``order``, for a ``dual`` that mixes constraints, and (when tracing) for constraints
        whose shape is not ``[K]``.

    Example:
      Minimise ``x^2 + y^2`` subject to ``x + y = 1``. The solution is ``x = y = 1/2``, the multiplier ``-1``:

      >>> import jax, jax.numpy as jnp, optax
      >>> from jaxfair import constraints
      >>> def evaluate(params, carry, batch, key):
      ...     violation = (params.sum() - 1.0)[None]
      ...     return constraints.Evaluation(loss=(params**2).sum(), proxy=violation, strict=violation)
      >>> solver = constraints.solver(evaluate, multipliers=constraints.dense(1, equality=True),
      ...                             primal=optax.sgd(0.1), dual=optax.sgd(0.5))
      >>> state, _ = jax.lax.scan(lambda state, _: solver.step(state), solver.init(jnp.zeros(2)), length=200)
      >>> [round(float(v), 4) for v in (*state.params, *state.multipliers)]
      [0.5, 0.5, -1.0]

    References:
      Gallego-Posada et al., `Cooper <https://arxiv.org/abs/2504.01212>`_, 2025; Cotter et al., `Two-Player Games for
      Efficient Non-Convex Constrained Optimization <https://arxiv.org/abs/1804.06500>`_, 2019, for proxies.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order!r}: choose one of {', '.join(map(repr, ORDERS))}.")
    formulation = lagrangian() if formulation is None else formulation
    _refuse_mixing(dual)
    num = multipliers.num_constraints

    def init(params: Params, carry: Any = ()) -> SolverState:
        values = multipliers.init()
        return SolverState(
            params=params,
            multipliers=values,
            penalties=formulation.init(values),
            primal_state=primal.init(params),
            dual_state=jax.vmap(dual.init)(values),
            carry=carry,
            step=jnp.zeros((), jnp.int32),
        )

    def checked(evaluation: Evaluation) -> tuple[Evaluation, Array, Array]:
        """The evaluation, and its two masks with shape [K]: of the proxies, and of the strict values."""
        for name in ("proxy", "strict"):
            shape = jnp.shape(getattr(evaluation, name))
            if shape != (num,):
                raise ValueError(
                    f"Evaluation.{name} has shape {shape}, but there are {num} multipliers: "
                    "give one value per constraint."
                )
        seen, known = (
            jnp.broadcast_to(jnp.asarray(mask, bool), (num,))
            for mask in (evaluation.proxy_observed, evaluation.strict_observed)
        )
        return evaluation, seen, known

    def move_multipliers(
        values: Float[Array, " K"],
        dual_state: Any,
        strict: Float[Array, " K"],
        observed: Bool[Array, " K"],
    ) -> tuple[Float[Array, " K"], Any]:
        field = -jnp.where(observed, strict, 0.0).astype(values.dtype)
        updates, moved_state = jax.vmap(dual.update)(field, dual_state, values)
        moved = multipliers.project(values + jnp.asarray(updates))
        dual_state = jax.tree.map(
            lambda new, old: jnp.where(observed.reshape(num, *[1] * (new.ndim - 1)), new, old),
            moved_state,
            dual_state,
        )
        return jnp.where(observed, moved, values), dual_state

    def step(state: SolverState, batch: Any = None, key: Any = None) -> tuple[SolverState, Info]:
        def value(params):
            evaluation, seen, known = checked(evaluate(params, state.carry, batch, key))
            return (evaluation.loss, evaluation.proxy), (evaluation, seen, known)

        (loss, proxy), pull_back, (evaluation, seen, known) = jax.vjp(
            value, state.params, has_aux=True
        )

        values, dual_state = state.multipliers, state.dual_state
        if order != "primal_dual":
            values, dual_state = move_multipliers(values, dual_state, evaluation.strict, known)
        # No stop_gradient anywhere: the weights enter as the cotangent, and nothing is differentiated by them.
        weights = formulation.weights(
            state.multipliers if order == "simultaneous" else values,
            evaluation.strict,
            evaluation.proxy,
            state.penalties,
        )
        weights = jnp.where(seen, weights, 0.0).astype(proxy.dtype)
        (gradient,) = pull_back((jnp.ones_like(loss), weights))
        updates, primal_state = primal.update(gradient, state.primal_state, state.params)
        params = optax.apply_updates(state.params, updates)

        strict, observed = evaluation.strict, known
        if order == "primal_dual":
            # The memories saw this batch already, so the second evaluation starts from the incoming carry and
            # leaves none of its own.
            again, _, observed = checked(evaluate(params, state.carry, batch, key))
            strict = again.strict
            values, dual_state = move_multipliers(values, dual_state, strict, observed)

        new_state = SolverState(
            params=params,
            multipliers=values,
            penalties=formulation.update(state.penalties, values, strict, observed),
            primal_state=primal_state,
            dual_state=dual_state,
            carry=evaluation.carry,
            step=state.step + 1,
        )
        info = Info(
            loss=loss,
            proxy=proxy,
            strict=evaluation.strict,
            proxy_observed=seen,
            strict_observed=known,
            weights=weights,
            aux=evaluation.aux,
        )
        return new_state, info

    return Solver(init, step)


def _refuse_mixing(dual: optax.GradientTransformation) -> None:
    """Raises if the dual optimizer treats a vector of multipliers otherwise than each of them by itself.

    The step maps the optimizer over the constraints, so a global clip would quietly become a clip of each one. Two
    steps on two multipliers of very different violations show it.
    """
    values, field = jnp.array([0.5, 2.0]), jnp.array([1e-3, -1e3])
    together, apart = dual.init(values), jax.vmap(dual.init)(values)
    for _ in range(2):
        joint, together = dual.update(field, together, values)
        each, apart = jax.vmap(dual.update)(field, apart, values)
        same = jnp.allclose(jnp.asarray(joint), jnp.asarray(each), rtol=1e-5, equal_nan=True)
        if isinstance(same, Tracer):
            return  # a learning rate that is being traced cannot be looked at
        if not same:
            raise ValueError(
                "dual= mixes the constraints (a clip by global norm does): the multipliers are updated each by itself, "
                "so give a transformation that acts on every element alone, such as optax.clip."
            )
