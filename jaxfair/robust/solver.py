r"""A network against an adversary over examples, as a solver: one forward, one backward, one look at the losses.

.. math:: w \leftarrow \mathrm{weigh}(\ell(\theta)), \qquad
   \theta \leftarrow \theta - \mathrm{tx}\Big(\sum_i w_i\, \nabla_\theta\, \ell_i(\theta)\Big)

It runs in `jaxfair.train.fit` as every :class:`~jaxfair.typing.Solver` does: jitted, vmapped over seeds and settings.
A pruner of `jaxfair.sparsity`, a quantiser of `jaxfair.quant` or a sharpness-aware transformation is a ``tx`` like any
other, so a robust objective holds through compression as well.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxfair import metrics
from jaxfair.constraints import cross_entropy
from jaxfair.robust.objective import Objective
from jaxfair.tree import copied, updated
from jaxfair.typing import Batch, ModelState, Params, Solver


class RobustState(NamedTuple):
    """What a robust run carries from step to step.

    Attributes:
      params: of the network.
      model_state: its state, such as BatchNorm statistics.
      opt_state: of the optimizer.
      adversary: the objective's state.
      step: scalar int32, the number of steps taken.
    """

    params: Params
    model_state: ModelState
    opt_state: Any
    adversary: Any
    step: jax.Array


class RobustAux(NamedTuple):
    """What a step lets you look at beside its losses.

    Attributes:
      correct: ``[B]`` float32 train-mode outcomes of the batch, before the step; 0 for padding.
      weights: ``[B]``, the adversary's.
      adversary: the objective's own info.
    """

    correct: jax.Array
    weights: jax.Array
    adversary: Any


class RobustInfo(NamedTuple):
    """What a step measured, at the parameters before it.

    Attributes:
      loss: scalar, the robust objective on this batch.
      mean_loss: scalar, the plain mean of the same losses.
      aux: see :class:`RobustAux`.
    """

    loss: jax.Array
    mean_loss: jax.Array
    aux: RobustAux


def solver(
    apply: Callable[..., Any],
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    loss: Callable[[Array, Batch], Array] = cross_entropy,
) -> Solver:
    """Makes the solver of a network that is trained against an adversary.

    Args:
      apply: the model's.
      objective: such as :func:`group_dro` or :func:`cvar`.
      tx: any optax transformation, descending. One that evaluates again (``operator_fn``) is given the gradient at
        other parameters with the weights of this step.
      loss: of one example, ``loss(logits [B, C], batch) -> [B]``, such as those of `jaxfair.constraints`.

    Returns:
      The :class:`~jaxfair.typing.Solver`; ``init(params, model_state={}, adversary=()) -> RobustState``, in arrays of
      its own. An objective that has a state says so in its docstring: ``adversary=objective.init(key, batch)``.

    Raises:
      TypeError: for an objective that was not called, or something else.
      ValueError: when traced, for losses that are not one for each example, and an adversary that was not begun.

    Example:
      The worst half of two examples is the one that is not yet right:

      >>> from jaxfair import robust
      >>> apply = lambda params, state, x, *, train, key=None: (x @ params, state)
      >>> game = robust.solver(apply, robust.cvar(0.5), optax.sgd(1.0))
      >>> zero = jnp.zeros(2, jnp.int32)
      >>> batch = Batch(x=jnp.eye(2), y=zero, group=zero, index=jnp.arange(2), weight=jnp.ones(2))
      >>> start = jnp.array([[3.0, 0.0], [0.0, 0.0]])
      >>> state, info = game.step(game.init(start), batch, jax.random.key(0))
      >>> info.aux.weights.tolist(), state.params.tolist()
      ([0.0, 1.0], [[3.0, 0.0], [0.5, -0.5]])
    """
    if not isinstance(objective, Objective):
        hint = f" did you mean robust.{objective.__name__}(...)?" if callable(objective) else ""
        raise TypeError(f"objective={objective!r}: give a robust.Objective, such as robust.cvar(0.2).{hint}")

    def init(params: Params, model_state: ModelState | None = None, adversary: Any = ()) -> RobustState:
        state = {} if model_state is None else model_state
        # Optimizers may begin with the very parameters: no two places of the state share memory.
        return copied(RobustState(params, state, tx.init(params), adversary, jnp.zeros((), jnp.int32)))

    def step(state: RobustState, batch: Batch, key: Any) -> tuple[RobustState, RobustInfo]:
        model_key, adversary_key = (None, None) if key is None else jax.random.split(key)
        weight = jnp.asarray(batch.weight).astype(jnp.float32)
        if not jax.tree.leaves(state.adversary):
            # Without this the adversary would fail at the first number that it looks for.
            begun = jax.eval_shape(lambda: objective.init(jax.random.key(0), batch))
            if jax.tree.leaves(begun):
                raise ValueError(
                    "this objective has a state: solver.init(params, model_state, objective.init(key, batch))."
                )

        def losses_at(params: Params) -> tuple[Float[Array, " B"], tuple[Array, ModelState]]:
            logits, new = apply(params, state.model_state, batch.x, train=True, key=model_key)
            losses = loss(logits, batch)
            if jnp.shape(losses) != weight.shape:
                raise ValueError(
                    f"loss= gave shape {jnp.shape(losses)} for a batch of weights {weight.shape}: "
                    "give one number per example."
                )
            # where, not a product: padding may hold anything, and 0 * inf is not 0.
            y = jnp.asarray(batch.y)
            counted = (weight > 0) & (y >= 0) & (y < logits.shape[1])
            return jnp.where(counted, losses.astype(jnp.float32), 0.0), (logits, new)

        def against(params: Params) -> tuple[Array, Any]:
            losses, (logits, new) = losses_at(params)
            seen = jax.lax.stop_gradient(losses)
            found = jax.lax.stop_gradient(objective.weigh(state.adversary, seen, batch, adversary_key))
            right = jnp.where(weight > 0, metrics.correct(logits, batch.y).astype(jnp.float32), 0.0)
            return jnp.sum(found[0] * losses), (found, seen, right, new)

        gradient_at = jax.value_and_grad(against, has_aux=True)
        (_, ((weights, adversary, told), losses, correct, new)), gradient = gradient_at(state.params)

        def operator(params: Params) -> Params:
            def fixed(at: Params) -> Array:
                return jnp.sum(weights * losses_at(at)[0])

            return jax.grad(fixed)(params)

        updates, opt_state = updated(tx, gradient, state.opt_state, state.params, operator_fn=operator, field=gradient)
        params = optax.apply_updates(state.params, updates)
        total = jnp.sum(weight)
        mean = jnp.sum(weight * losses) / jnp.where(total == 0, 1.0, total)
        info = RobustInfo(told.value, mean, RobustAux(correct, weights, told))
        return RobustState(params, new, opt_state, adversary, state.step + 1), info

    return Solver(init, step)
