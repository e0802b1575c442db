r"""A coreset by gradients: weights per example between 0 and 1, moved by the derivative of the loss on all examples.

.. math::

   m = \mathrm{top}_k(w), \qquad
   w \leftarrow P_k\big[w - \mathrm{tx}(\nabla_m L(\theta(m)))\big], \qquad
   P_k \text{ projects on } \{0 \le w \le 1,\ \textstyle\sum_i w_i \le k\}

:math:`\theta(m)` is trained on the k examples of the largest weight, exactly k, and the derivative goes through that
training, to those that are in it and to those that are not:

- step by step, where ``inner`` can be differentiated (:func:`jaxfair.implicit.unroll` does it in little memory), or
- by the implicit function theorem, where ``objective`` says what ``inner`` has minimised:
  :math:`\nabla_w = -\partial_w \nabla_\theta h\, [\partial_\theta^2 h]^{-1} \nabla_\theta L`, exact at a minimum and an
  approximation elsewhere. With equal weights that is what influence functions say of each example.

The budget k may fall along a schedule. Each subset goes into the same history as those of :func:`coreset`, of which the
same rule chooses (:func:`coreset_of`). A step costs a training that is differentiated: about three to four plain ones
step by step, and by the theorem one and the products of the solve.

With ``straight_through=False`` the training is on the weights themselves, and one more on the rounded subset measures
it. A mean over weighted examples does not know the scale of the weights, so they stay spread over far more than k
examples, and the rounding may lose what the descent has gained: on digits, at one rate and from two starts, 75 such
steps needed 79 to 195 examples, where those through the subset needed 75 to 115.

The paper on lexicographic coresets has no derivatives: it searches directly.

Sources: Lorraine, Vicol and Duvenaud, `Optimizing millions of hyperparameters by implicit differentiation
<https://arxiv.org/abs/1911.02590>`_, 2020; Borsos, Mutny and Krause, `Coresets via bilevel optimization
<https://arxiv.org/abs/2006.03875>`_, 2020, who add examples one by one by the same derivative.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair import implicit
from jaxfair.bilevel import _history
from jaxfair.bilevel._history import History
from jaxfair.bilevel.coreset import check_at_least_0, check_counts
from jaxfair.bilevel.onto_budget import onto_budget
from jaxfair.sparsity import top_k
from jaxfair.tree import copied
from jaxfair.typing import Array, Key, Params, ScalarOrSchedule, Solver, whole


class RelaxedCoresetState(NamedTuple):
    """What the descent carries from step to step.

    Attributes:
      params: trained in the last step, before its update.
      step: scalar int32, the number of steps taken.
      weight: ``[N]`` float32 in ``[0, 1]``, of a sum of at most the budget.
      mask: ``[N]`` bool, the examples of the largest weight.
      opt_state: of the optimizer.
      history: of the rounded subsets; their choice is read by :func:`coreset_of`.
    """

    params: Params
    step: Array
    weight: Array
    mask: Array
    opt_state: Any
    history: History


class RelaxedCoresetInfo(NamedTuple):
    """What a step measured.

    Attributes:
      loss: scalar, on all examples, of what was differentiated; nan where its derivative is not finite.
      rounded: scalar, of the subset before the step; inf where it diverged.
      size: scalar int32, its members.
    """

    loss: Array
    rounded: Array
    size: Array


def relaxed_coreset(
    inner: Callable[[Array, Key], Params],
    outer: Callable[[Params], Array],
    *,
    num_examples: int,
    size: ScalarOrSchedule,
    evaluations: int = 500,
    tolerance: ArrayLike = 0.15,
    target: ArrayLike | None = None,
    ties: bool = True,
    tx: optax.GradientTransformation | None = None,
    objective: Callable[[Params, Array], Array] | None = None,
    solve: implicit.Solve | None = None,
    straight_through: bool = True,
) -> Solver:
    """Makes the descent on relaxed weights.

    Args:
      inner: ``inner(weight, key) -> params``, a training whose examples count by ``weight``, ``[N]`` float32 in
        ``[0, 1]``. Step by step it is differentiated where weights are 0: Adam needs an ``eps_root`` above 0 for that.
      outer: ``outer(params) -> loss`` on all examples.
      num_examples: N.
      size: k, or a schedule of the step that gives it; rounded to a whole number, at least 1, for the subset. Of
        equal weights the first are taken.
      evaluations: for how many subsets the history has room, one a step, the start's first.
      tolerance: as of :func:`coreset`, of the choice.
      target: as of :func:`coreset`.
      ties: as of :func:`coreset`.
      tx: moves the weights; ``optax.adam(0.1)`` by default. An example's derivative is a small number, so something
        that scales it is needed.
      objective: ``objective(params, weight) -> scalar`` that ``inner`` minimises; without it the derivative goes
        through ``inner`` itself.
      solve: of the Hessian's linear system, with an ``objective``; `jaxfair.implicit.conjugate_gradients` by default.
      straight_through: whether the derivative is taken at the subset, not at the weights.

    Returns:
      The :class:`~jaxfair.typing.Solver`. ``init(key, weight=None) -> RelaxedCoresetState`` draws the weights, or
      takes those given, and trains on the subset; ``step`` reads no batch.

    Raises:
      ValueError: in one line, for numbers that cannot be, and a ``solve`` without an ``objective``.
      TypeError: for functions that are none.

    Example:
      The mean of five numbers, from one of them: derivatives pull its weight to where the mean is, at 0.1.

      >>> x = jnp.array([-3.0, -2.0, 0.0, 2.0, 3.5])
      >>> mean = lambda weight, key: jnp.sum(weight * x) / jnp.sum(weight)
      >>> search = relaxed_coreset(mean, lambda m: jnp.mean((x - m) ** 2), num_examples=5, size=1, evaluations=9)
      >>> state, keys = search.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 9)
      >>> state, info = jax.lax.scan(lambda state, key: search.step(state, None, key), state, keys)
      >>> _history.coreset_of(state).indices.tolist()
      [2]
    """
    _check(inner, outer, objective, solve)
    check_counts(num_examples=num_examples, evaluations=evaluations)
    check_at_least_0(tolerance=tolerance)
    if not callable(size):
        check_counts(size=size)
        if not isinstance(size, Tracer) and (whole(size) or 0) > num_examples:
            raise ValueError(f"size={size}: there are {num_examples} examples.")
    tx = optax.adam(0.1) if tx is None else tx
    solve = implicit.conjugate_gradients() if solve is None else solve
    rule: dict[str, Any] = {"tolerance": tolerance, "target": -np.inf if target is None else target, "ties": ties}

    def budget(step: Array) -> Array:
        return jnp.clip(jnp.asarray(size(step) if callable(size) else size, jnp.float32), 1.0, float(num_examples))

    def rounding(weight: Array, step: Array) -> Array:
        return top_k(weight, jnp.round(budget(step)).astype(jnp.int32))

    def derivative(weight: Array, key: Key) -> tuple[Params, Array, Array]:
        if objective is None:

            def through(weight: Array) -> tuple[Array, Params]:
                params = inner(weight, key)
                return outer(params), params

            (loss, params), gradient = jax.value_and_grad(through, has_aux=True)(weight)
            return params, loss, gradient
        params = inner(weight, key)
        found = implicit.hypergradient(lambda p, w: outer(p), objective, params, weight, solve=solve)
        return params, found.value, found.gradient

    def init(key: Key, weight: Any = None) -> RelaxedCoresetState:
        drawing, training = jax.random.split(key)
        if weight is None:
            weight = jax.random.uniform(drawing, (num_examples,))
        if jnp.shape(weight) != (num_examples,):
            raise ValueError(f"weight of shape {jnp.shape(weight)}: give [{num_examples}] floats.")
        weight = onto_budget(jnp.asarray(weight, jnp.float32), budget(jnp.int32(0)))
        mask = rounding(weight, jnp.int32(0))
        history = _history.empty(evaluations, num_examples)
        params = inner(mask.astype(jnp.float32), training)
        return copied(RelaxedCoresetState(params, jnp.int32(0), weight, mask, tx.init(weight), history))

    def step(state: RelaxedCoresetState, batch: Any, key: Key) -> tuple[RelaxedCoresetState, RelaxedCoresetInfo]:
        del batch
        first, second = jax.random.split(key)
        at = state.mask.astype(jnp.float32) if straight_through else state.weight
        params, loss, gradient = derivative(at, first)
        updates, opt_state = tx.update(gradient, state.opt_state, state.weight)
        weight = onto_budget(optax.apply_updates(state.weight, updates), budget(state.step + 1))  # type: ignore
        after = rounding(weight, state.step + 1)
        rounded = loss if straight_through else outer(inner(state.mask.astype(jnp.float32), second))
        rounded = jnp.where(jnp.isfinite(rounded), rounded, jnp.inf).astype(jnp.float32)
        number = jnp.sum(state.mask, dtype=jnp.int32)
        history = _history.choose(_history.remember(state.history, state.mask, rounded, number), **rule)
        moved = RelaxedCoresetState(params, state.step + 1, weight, after, opt_state, history)
        seen = jnp.where(jnp.all(jnp.isfinite(gradient)), loss, jnp.nan)  # subsets of nan would look as good as any
        return moved, RelaxedCoresetInfo(seen, rounded, number)

    return Solver(init, step)


def _check(inner: Any, outer: Any, objective: Any, solve: Any) -> None:
    """Raises for functions that are none, and for a solve of nothing."""
    for name, given in (("inner", inner), ("outer", outer), ("objective", objective)):
        if not callable(given) and not (name == "objective" and given is None):
            raise TypeError(f"{name}={given!r}: give a function.")
    if solve is not None and objective is None:
        raise ValueError("solve= is of the system of an objective's Hessian: give objective=, which inner minimises.")
