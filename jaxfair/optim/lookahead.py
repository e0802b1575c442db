r"""Lookahead for games: every k steps of any method, all players go back part of the way together.

With w the fast iterate and s the slow one, ``s_0 = w_0``:

.. code-block:: text

    w <- w + inner update                         every step
    s <- s + a (w - s),   w <- s                  every k-th step, after it

- If one step of the inner method multiplies a mode by z, a round multiplies it by ``1 - a + a z^k``. The
  rotation of gradient descent-ascent on a bilinear game becomes a contraction for small steps.
- It must act on the *joint* tree at one time: with one wrapper per player and different periods it is another
  method. Nested, ``lookahead(lookahead(tx, ...), ...)`` is the authors' variant with two slow iterates.

=============  =================
paper          here
=============  =================
alpha          ``slow_rate``
k              ``period``
=============  =================

How this differs: from `optax.lookahead`, plain parameters (no pairs of fast and slow), so that it fits where
any transformation does, and extra arguments that reach the inner method. As in the authors' code, the inner
state is not reset. The slow iterate is taken from the parameters of the first step, so that ``init`` needs no values.

References:
  Zhang, Lucas, Hinton and Ba, `Lookahead Optimizer <https://arxiv.org/abs/1907.08610>`_, 2019; Chavdarova, Pagliardini,
  Stich, Fleuret and Jaggi, `Taming GANs with Lookahead-Minmax <https://arxiv.org/abs/2006.14567>`_, 2021.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, DTypeLike

from jaxfair import tree
from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class LookaheadState(NamedTuple):
    """The state of `lookahead`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      slow: the structure of the parameters, `accumulator_dtype`: the slow iterate. Zeros before the
        first step, which takes its parameters instead.
      inner: the state of the inner transformation.
    """

    count: Array
    slow: Any
    inner: Any


def lookahead(
    inner: optax.GradientTransformation,
    *,
    period: ArrayLike,
    slow_rate: Rate = 0.5,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that every `period` steps it goes back towards where it was.

    Args:
      inner: any transformation, its learning rate included. Extra arguments are passed on.
      period: k, the number of inner steps per round.
      slow_rate: a in (0, 1]; a number, a schedule of the step, or a prefix tree of these.
      accumulator_dtype: the dtype of the slow iterate; None is that of the parameters, and float32
        where theirs is narrower.

    Returns:
      The transformation. ``update`` needs the parameters. It stands outermost: what changes its
      updates afterwards changes where the rounds end.

    Raises:
      ValueError: for a period that is no whole number from 1, a slow rate outside (0, 1], and in ``update``
        without parameters.

    Example:
      Descent-ascent on f(x, y) = x y leaves; with lookahead it comes nearer:

      >>> field = lambda w: jnp.array([w[1], -w[0]])
      >>> tx = lookahead(optax.sgd(0.1), period=5)
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for step in range(10):
      ...     updates, state = tx.update(field(w), state, w)
      ...     w = optax.apply_updates(w, updates)
      ...     if step % 5 >= 3:
      ...         print(f"{jnp.linalg.norm(w):.4f}")
      1.0201
      0.9813
      1.0011
      0.9630
    """
    numbers.check("period", period, 1.0, float("inf"), whole=True)
    numbers.check("slow_rate", slow_rate, 0.0, 1.0, ends="(]")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        slow = numbers.zeros_like(params, accumulator_dtype)
        return LookaheadState(count=jnp.zeros((), jnp.int32), slow=slow, inner=inner.init(params))

    def update_fn(updates, state, params=None, **extra_args):
        oracles.require_params("lookahead", params)
        alpha = numbers.at(slow_rate, state.count)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        slow = optax.tree.where(state.count == 0, optax.tree.cast_like(params, state.slow), state.slow)
        count = jnp.asarray(optax.safe_increment(state.count))

        def synchronise(slow, updates):
            fast = numbers.move(numbers.widen(params, slow), -1.0, updates)  # params + updates
            ours = numbers.widen(slow, fast)
            ours = numbers.map_rate(lambda a, s, w: s + a * (w - s), alpha, ours, fast)
            back = optax.tree.sub(ours, numbers.widen(params, ours))
            return optax.tree.cast_like(ours, slow), optax.tree.cast_like(back, updates)

        slow, updates = tree.cond_any(
            count % period == 0, synchronise, lambda slow, updates: (slow, updates), slow, updates
        )
        return updates, LookaheadState(count=count, slow=slow, inner=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
