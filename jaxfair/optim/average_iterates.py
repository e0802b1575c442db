r"""Averages of the iterates, for evaluation: what the optimizer does is one thing, what is looked at another.

With t counting from the last restart of the average:

.. code-block:: text

    W_t = W_{t-1} + c_t (w_t - W_{t-1})
    c_t = 1 / t                              uniform
    c_t = (1 - b) / (1 - b^t)                exponential, with the bias taken out

- This is no average of gradients (that is `omega`): the trajectory does not change, unless ``jump`` is asked for.
- For convex-concave games the mean of the iterates converges where the last one only circles. With a constant step and
  noise it is nearer to the saddle than the last iterate; restarts *from* it (``period=..., jump=True``) also make the
  start be forgotten geometrically.
- The start w_0 is not in the average.
- Around a pruner, the average is zero where the last iterate is pruned, as it is inside of one.

=======================  =====================
papers                   here
=======================  =====================
length of an epoch       ``period``
restarting               ``jump``
=======================  =====================

How this differs from `optax.ema`, which averages updates, and from published code, which has it inside each method:
one wrapper for all.

References:
  Polyak and Juditsky, *Acceleration of stochastic approximation by averaging*, 1992; Li, Yu, Loizou, Gidel, Ma,
  Le Roux and Jordan, `On the Convergence of Stochastic Extragradient for Bilinear Games using Restarted Iteration
  Averaging <https://arxiv.org/abs/2107.00464>`_, 2022.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike, DTypeLike

from jaxfair import tree
from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.typing import Array, Params


class AverageIteratesState(NamedTuple):
    """The state of `average_iterates`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      iterate_average: the structure of the parameters, `accumulator_dtype`: W. Zeros before the first step.
      inner: the state of the inner transformation.
    """

    count: Array
    iterate_average: Any
    inner: Any


def average_iterates(
    inner: optax.GradientTransformation,
    *,
    decay: ArrayLike | None = None,
    period: ArrayLike | None = None,
    jump: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that its state holds an average of the iterates; `get_average` reads it.

    Args:
      inner: any transformation, its learning rate included. Extra arguments are passed on.
      decay: b in (0, 1) for an exponential average; None for the uniform one.
      period: the average starts afresh every so many steps; None for never. Just after a step that ends a
        period, `get_average` gives the average of that period.
      jump: at the end of each period the iterate itself moves to the average. The inner state stays.
      accumulator_dtype: the dtype of the average; None is that of the parameters, and float32 where theirs is
        narrower: a long average in bfloat16 stands still.

    Returns:
      The transformation. ``update`` needs the parameters. It stands outermost: it averages
      ``params + updates`` as it emits them.

    Raises:
      ValueError: for a decay or a period that is out of range, for ``jump`` without a
        period, and in ``update`` without parameters.

    Example:
      The extragradient's iterates circle in towards the saddle of f(x, y) = x y; their mean is there already:

      >>> from jaxfair import optim
      >>> field = lambda w: jnp.array([w[1], -w[0]])
      >>> tx = average_iterates(optim.extragradient(0.1))
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for _ in range(63):  # about once around
      ...     g = field(w)
      ...     updates, state = tx.update(g, state, w, operator_fn=field, field=g)
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{jnp.linalg.norm(w):.2f} {jnp.linalg.norm(get_average(state)):.2f}")
      0.73 0.04
    """
    if decay is not None:
        numbers.check("decay", decay, 0.0, 1.0, ends="()")
    if period is not None:
        numbers.check("period", period, 1.0, float("inf"), whole=True)
    if jump and period is None:
        raise ValueError("jump moves the iterate at the end of a period: pass period= too")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        average = numbers.zeros_like(params, accumulator_dtype)
        return AverageIteratesState(count=jnp.zeros((), jnp.int32), iterate_average=average, inner=inner.init(params))

    def update_fn(updates, state, params=None, **extra_args):
        oracles.require_params("average_iterates", params)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        age = state.count if period is None else state.count % jnp.asarray(period)
        weight = _weight(decay, age.astype(jnp.result_type(float)) + 1)
        old = numbers.widen(numbers.widen(state.iterate_average, params), updates)
        new = numbers.move(optax.tree.cast_like(params, old), -1.0, updates)  # params + updates
        old = optax.tree.where(age == 0, new, old)
        average = numbers.map_rate(lambda c, m, w: m + c * (w - m), weight, old, new)
        average = tree.prune_like(average, inner_state)
        count = jnp.asarray(optax.safe_increment(state.count))

        def onto_average(average, updates):
            def move(m, w, u):
                return (m - w.astype(m.dtype)).astype(u.dtype)

            return jax.tree.map(move, average, params, updates)

        if jump:
            due = count % jnp.asarray(period) == 0
            updates = tree.cond_any(due, onto_average, lambda _, u: u, average, updates)
        return updates, AverageIteratesState(
            count=count,
            iterate_average=optax.tree.cast_like(average, state.iterate_average),
            inner=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _weight(decay: ArrayLike | None, t: Array) -> Array:
    """c_t, in the dtype of t."""
    if decay is None:
        return 1 / t
    # On the host in 64 bits where it can be: in 32 of them 1 - 1e-8 is 1.
    b = decay.astype(t.dtype) if isinstance(decay, jax.Array) else np.asarray(decay, np.float64)
    rest, log = (jnp.asarray(part, t.dtype) for part in (1 - b, (np if isinstance(b, np.ndarray) else jnp).log(b)))
    below = rest > 0  # of a decay that is 1 in its dtype the limit is the uniform average
    exponential = jnp.where(below, rest, 1) / -jnp.expm1(t * jnp.where(below, log, -1))
    return jnp.where(below, exponential, 1 / t)


def get_average(opt_state: Any) -> Params:
    """The average in the state of an optimizer, however deep it lies.

    Args:
      opt_state: the state of `average_iterates`, or of a wrapper around one, after at least one update.

    Returns:
      The tree of averaged parameters.

    Raises:
      ValueError: where there is no average of iterates, or more than one.

    Example:
      >>> tx = average_iterates(optax.sgd(1.0))
      >>> state = tx.init(jnp.zeros(()))
      >>> params = jnp.zeros(())
      >>> for _ in range(3):  # the iterates are -1, -2, -3
      ...     updates, state = tx.update(jnp.ones(()), state, params)
      ...     params = params + updates
      >>> get_average(state).item()
      -2.0
    """

    def has_average(node):
        return isinstance(node, AverageIteratesState)

    leaves = jax.tree.leaves(opt_state, is_leaf=has_average)
    found = [node for node in leaves if has_average(node)]
    if len(found) != 1:
        raise ValueError(
            f"get_average needs the state of one average_iterates, but it found {len(found)} in this "
            f"{type(opt_state).__name__}; pass what its init or update returned"
        )
    return found[0].iterate_average
