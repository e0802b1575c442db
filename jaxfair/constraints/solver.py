r"""A solver for constrained problems: one forward, one backward, two optimizers.

.. math::

   \min_\theta L(\theta) \quad \text{subject to} \quad g_k(\theta) \le 0, \quad h_k(\theta) = 0

as a game between the weights, which descend on the Lagrangian with the *proxy* constraints, and the multipliers,
which ascend on the *strict* ones:

.. math::

   \lambda_k &\leftarrow \Pi\,[\lambda_k + \eta_d\, \mathrm{strict}_k(\theta)] \quad \text{where observed} \\
   \theta &\leftarrow \theta - \eta_p\, \nabla_\theta\,
   \big[ L + \textstyle\sum_k w_k(\lambda)\, \mathrm{proxy}_k \big](\theta)

Both players are optax chains: the primal one on the parameters, the dual one on each multiplier by itself. Or one
optimizer plays both. The orders in which they move are :mod:`jaxfair.constraints._orders`.

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

from jaxfair.constraints._dual import refuse_mixing
from jaxfair.constraints._game import KKT, Game
from jaxfair.constraints._game import SolverState as SolverState
from jaxfair.constraints._numbers import check_made, check_word
from jaxfair.constraints._orders import ORDERS as ORDERS
from jaxfair.constraints._orders import joint as joint_order
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.formulations import Formulation, lagrangian
from jaxfair.constraints.multipliers import Multipliers, dense
from jaxfair.constraints.problem import Problem
from jaxfair.tree import copied
from jaxfair.typing import Params


class Info(NamedTuple):
    """What a step lets you look at. All of it was measured at the parameters *before* the step.

    R is the number of rows of the evaluation, K for dense multipliers. Nothing here leaves the device, and what is not
    looked at is not computed under ``jax.jit``.

    Attributes:
      loss: scalar.
      proxy: ``[R]``.
      strict: ``[R]``.
      proxy_observed: ``[R]`` bool.
      strict_observed: ``[R]`` bool.
      multipliers: ``[R]``, before the step.
      weights: ``[R]``, how much each proxy counted in the primal direction; 0 where unobserved.
      kkt: how far from the conditions of optimality. Where no point is feasible, ``kkt.feasibility`` stays up while the
        multipliers grow without end, or to their cap.
      aux: the ``aux`` of the evaluation.
    """

    loss: jax.Array
    proxy: jax.Array
    strict: jax.Array
    proxy_observed: jax.Array
    strict_observed: jax.Array
    multipliers: jax.Array
    weights: jax.Array
    kkt: KKT
    aux: Any


class Solver(NamedTuple):
    """The two functions of a solver, made by :func:`solver`.

    Attributes:
      init: ``init(params, carry=()) -> SolverState``.
      step: ``step(state, batch=None, key=None) -> (SolverState, Info)``; jit, vmap and scan it freely.
    """

    init: Callable[..., SolverState]
    step: Callable[..., tuple[SolverState, Info]]


def solver(
    problem: Problem | Callable[[Params, Any, Any, Any], Evaluation],
    *,
    primal: optax.GradientTransformation | None = None,
    dual: optax.GradientTransformation | None = None,
    joint: optax.GradientTransformation | None = None,
    multipliers: Multipliers | None = None,
    formulation: Formulation | None = None,
    order: str = "dual_primal",
) -> Solver:
    r"""Makes the solver of a constrained problem.

    Args:
      problem: a :class:`Problem`, or a plain function ``evaluate(params, carry, batch, key) -> Evaluation``, pure. All
        evaluations within a step share batch, key and incoming carry; only what the first one leaves in ``carry`` is
        kept.
      primal: the optimizer of the parameters, descending.
      dual: the optimizer of the multipliers. It is given minus the strict values, so a plain ``optax.sgd`` ascends;
        it acts on every multiplier by itself, and one that mixes them (a global clip) is refused. A rate of its own
        for each of K constraints is an array, ``optax.sgd(jnp.array([0.1, 0.2]))``. Not needed for a problem without
        constraints.
      joint: in place of ``primal`` and ``dual``: one optimizer of the game ``{"params": ..., "multipliers": [K]}``,
        such as those of `jaxfair.optim`. It may evaluate the field again on this batch (``operator_fn``), and
        differentiate it. An unobserved multiplier stays, but its part of the optimizer's state goes on. Dense
        multipliers only.
      multipliers: the dual player's space: :func:`dense`, :func:`indexed` or :func:`implicit`. By default the problem's
        own. A plain function does not say how many constraints it has, nor of which kind, so there it must be given.
      formulation: how multipliers weigh the proxies; by default the one that the problem recommends, and
        :func:`lagrangian` for a plain function.
      order: ``"dual_primal"`` evaluates once, moves the multipliers, then the weights with the new multipliers;
        ``"simultaneous"`` evaluates once and moves both from the old values; ``"primal_dual"`` moves the weights,
        evaluates again and then moves the multipliers; ``"extragradient"`` moves both tentatively, evaluates there,
        and moves both from where they were with what it found (the optimizers' states count one step). A joint
        optimizer has its own order.

    Returns:
      The :class:`Solver`.

    Raises:
      TypeError: for multipliers, a formulation or optimizers that were not called.
      ValueError: for an unknown ``order``, for optimizers too few or too many, for a ``dual`` that mixes constraints,
        a formulation that does not fit the multipliers, a plain function without multipliers, and (when tracing) for
        constraints of the wrong shape.

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
    check_word("order", order, tuple(ORDERS))
    if isinstance(problem, Problem):
        if multipliers is None:
            multipliers = problem.multipliers or dense(problem.num_constraints, equality=problem.equality)
        formulation = problem.formulation if formulation is None else formulation
        if problem.num_constraints == 0 and joint is None and dual is None:
            dual = optax.sgd(0.0)
        evaluate = problem.evaluate
    else:
        evaluate = problem
        formulation = lagrangian() if formulation is None else formulation
    if multipliers is None:
        raise ValueError(
            "a plain function does not say how many constraints it has: "
            "give multipliers=constraints.dense(K), or a constraints.Problem."
        )
    check_made("multipliers", multipliers, Multipliers)
    check_made("formulation", formulation, Formulation)
    if not callable(evaluate):
        raise TypeError(f"problem={problem!r}: give a constraints.Problem, or a function that evaluates one.")
    _check_players(primal, dual, joint, multipliers, formulation, order)
    # What _check_players has seen to: one of them for both players, or one for each.
    first, second = (joint, joint) if joint is not None else (primal, dual)
    assert first is not None
    assert second is not None
    game = Game(evaluate, multipliers, formulation, first, second)
    play = ORDERS[order] if joint is None else joint_order

    def init(params: Params, carry: Any = ()) -> SolverState:
        values = multipliers.init()
        if joint is not None:
            primal_state, dual_state = joint.init({"params": params, "multipliers": values}), ()
        else:
            primal_state = game.primal.init(params)
            dual_state = multipliers.init_dual(game.dual, values)
        begun = SolverState(
            params=params,
            multipliers=values,
            penalties=formulation.init(multipliers.num_constraints),
            primal_state=primal_state,
            dual_state=dual_state,
            carry=carry,
            step=jnp.zeros((), jnp.int32),
        )
        # Optimizers may begin with the very parameters: no two places of the state share memory.
        return copied(begun)

    def step(state: SolverState, batch: Any = None, key: Any = None) -> tuple[SolverState, Info]:
        moved = play(game, state, batch, key)
        first, evaluation = moved.first, moved.first.evaluation
        new_state = SolverState(
            params=moved.params,
            multipliers=moved.multipliers,
            penalties=game.update_penalties(state.penalties, moved.judged),
            primal_state=moved.primal_state,
            dual_state=moved.dual_state,
            carry=evaluation.carry,
            step=state.step + 1,
        )
        info = Info(
            loss=first.loss,
            proxy=first.proxy,
            strict=evaluation.strict,
            proxy_observed=first.seen,
            strict_observed=first.known,
            multipliers=multipliers.read(state.multipliers, evaluation),
            weights=moved.weights,
            kkt=game.kkt(first, moved.gradient, moved.weights),
            aux=evaluation.aux,
        )
        return new_state, info

    return Solver(init, step)


def _check_players(
    primal: optax.GradientTransformation | None,
    dual: optax.GradientTransformation | None,
    joint: optax.GradientTransformation | None,
    multipliers: Multipliers,
    formulation: Formulation,
    order: str,
) -> None:
    """Raises for optimizers too few or too many, or that are none, and for what does not go together."""
    for name, player in (("primal", primal), ("dual", dual), ("joint", joint)):
        if player is not None and not all(callable(getattr(player, of, None)) for of in ("init", "update")):
            said = getattr(player, "__name__", repr(player))
            raise TypeError(f"{name}={said}: give an optax optimizer, such as optax.sgd(0.1).")
    if formulation.needs_all and not multipliers.all_rows:
        raise ValueError(
            "this formulation weighs a constraint by the multipliers of all others: use constraints.dense."
        )
    if joint is not None:
        if primal is not None or dual is not None or order != "dual_primal":
            raise ValueError("joint= plays both players in its own order: give neither primal=, dual= nor order=.")
        if not multipliers.all_rows:
            raise ValueError("joint= needs all multipliers at each step: use constraints.dense.")
        if multipliers.restart:
            raise ValueError(
                "restart=True sets back the state of each multiplier's own optimizer: "
                "with joint= there is none; give primal= and dual=."
            )
    elif primal is None or dual is None:
        raise ValueError("give primal= and dual=, one optimizer for each player, or joint= for both.")
    elif multipliers.each:
        refuse_mixing(dual, multipliers.num_constraints)
