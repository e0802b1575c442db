r"""Plain training as a solver: descent of a mean loss by an optax transformation, without any second player.

.. math:: \theta \leftarrow \theta - \mathrm{tx}\big(\nabla_\theta\, \ell(f_\theta(x), \mathrm{batch})\big)

What `optax` users write by hand: one forward, one backward, one update. It is the solver of dense networks; a pruner of
`jaxfair.sparsity` is a ``tx`` like any other. One that takes the gradient at other parameters as well
(`jaxfair.optim.scale_by_sam`, `jaxfair.optim.extragradient`) is given the function; the others cost what they cost.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxfair import metrics
from jaxfair.train.evaluate import has_class
from jaxfair.tree import copied, updated
from jaxfair.typing import Batch, ModelState, Params, Solver


class DescentState(NamedTuple):
    """What descent carries from step to step.

    Attributes:
      params: of the network.
      model_state: its state, such as BatchNorm statistics.
      opt_state: of the optimizer.
      step: scalar int32, the number of steps taken.
    """

    params: Params
    model_state: ModelState
    opt_state: Any
    step: jax.Array


class DescentAux(NamedTuple):
    """What a step lets you look at beside the loss.

    Attributes:
      correct: ``[B]`` float32 train-mode outcomes of the batch, before the step; None where ``y`` are no classes.
    """

    correct: jax.Array | None


class DescentInfo(NamedTuple):
    """What a step measured, at the parameters before it.

    Attributes:
      loss: scalar.
      aux: see :class:`DescentAux`.
    """

    loss: jax.Array
    aux: DescentAux


def mean_cross_entropy(logits: Float[Array, "B C"], batch: Batch) -> Float[Array, ""]:
    """The weighted mean of the cross entropies of a batch; 0 for a batch of nobody.

    Args:
      logits: ``[B, C]``.
      batch: of which ``y`` and ``weight`` are read. An example whose class is none of the C has a loss of 0.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      >>> index = jnp.arange(2)
      >>> batch = Batch(x=index, y=jnp.array([0, 1]), group=index, index=index, weight=jnp.array([1.0, 0.0]))
      >>> mean_cross_entropy(jnp.zeros((2, 2)), batch).round(4)
      Array(0.6931, dtype=float32)
    """
    y, weight = jnp.asarray(batch.y), jnp.asarray(batch.weight).astype(jnp.float32)
    if y.ndim != 1 or not logits.shape[:1] == y.shape == weight.shape:
        raise ValueError(
            f"logits of shape {logits.shape}, classes {y.shape} and weights {weight.shape}: "
            "give [B, C] logits, [B] classes and [B] weights."
        )
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    counted = (weight > 0) & has_class(y, logits.shape[1])
    total = jnp.sum(weight)
    return jnp.sum(jnp.where(counted, loss, 0.0) * weight) / jnp.where(total == 0, 1.0, total)


def descent(
    apply: Callable[..., Any],
    tx: optax.GradientTransformation,
    *,
    loss: Callable[[Array, Batch], Array] = mean_cross_entropy,
    at: Callable[[Params, Any], Params] | None = None,
) -> Solver:
    """Makes the solver of a network that is trained by an optax transformation.

    Args:
      apply: the model's.
      tx: any optax transformation, descending; a pruner of `jaxfair.sparsity`, too. One that takes extra arguments gets
        ``operator_fn(params) -> gradient``, on this batch with the same key and the model state before the step, and
        ``field=``, the gradient itself.
      loss: ``loss(logits, batch) -> scalar``.
      at: ``at(params, opt_state) -> params``, where loss and gradient are taken in place of the parameters themselves;
        the update goes to these. Straight-through training takes them at the masked weights.

    Returns:
      The :class:`~jaxfair.typing.Solver`; ``init(params, model_state={}) -> DescentState``, in arrays of its own.

    Raises:
      ValueError: when traced, for a loss that is no scalar, and for shapes that do not fit.

    Example:
      >>> apply = lambda params, state, x, *, train, key=None: (x @ params, state)
      >>> solver = descent(apply, optax.sgd(1.0))
      >>> zero = jnp.zeros(2, jnp.int32)
      >>> batch = Batch(x=jnp.eye(2), y=zero, group=zero, index=jnp.arange(2), weight=jnp.ones(2))
      >>> state, info = solver.step(solver.init(jnp.zeros((2, 2))), batch, jax.random.key(0))
      >>> state.params.tolist(), info.aux.correct.tolist()
      ([[0.25, -0.25], [0.25, -0.25]], [1.0, 1.0])
    """

    def init(params: Params, model_state: ModelState | None = None) -> DescentState:
        state = {} if model_state is None else model_state
        # Optimizers may begin with the very parameters: no two places of the state share memory.
        return copied(DescentState(params, state, tx.init(params), jnp.zeros((), jnp.int32)))

    def step(state: DescentState, batch: Batch, key: Any) -> tuple[DescentState, DescentInfo]:
        def of(params: Params) -> tuple[Array, tuple[Array, ModelState]]:
            logits, new = apply(params, state.model_state, batch.x, train=True, key=key)
            value = loss(logits, batch)
            if jnp.shape(value) != ():
                raise ValueError(f"loss= gave shape {jnp.shape(value)}: give one number, such as a mean.")
            return value, (logits, new)

        where = state.params if at is None else at(state.params, state.opt_state)
        (value, (logits, new)), gradient = jax.value_and_grad(of, has_aux=True)(where)

        def operator_fn(params: Params) -> Params:
            # What this look leaves of the model state is dropped: that of the first one counts.
            there = params if at is None else at(params, state.opt_state)
            return jax.grad(of, has_aux=True)(there)[0]

        updates, opt_state = updated(
            tx, gradient, state.opt_state, state.params, operator_fn=operator_fn, field=gradient
        )
        params = optax.apply_updates(state.params, updates)
        info = DescentInfo(value, DescentAux(_correct(logits, batch)))
        return DescentState(params, new, opt_state, state.step + 1), info

    return Solver(init, step)


def _correct(logits: Array, batch: Batch) -> Array | None:
    y = jnp.asarray(batch.y)
    if not (jnp.issubdtype(y.dtype, jnp.integer) and y.ndim == 1 and logits.ndim == 2):
        return None
    right = metrics.correct(logits, y).astype(jnp.float32)
    return jnp.where(jnp.asarray(batch.weight) > 0, right, 0.0)
