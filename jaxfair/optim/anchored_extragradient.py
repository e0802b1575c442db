r"""The extra anchored gradient (EAG): an extragradient step that is pulled back to the start less and less.

Two evaluations of the joint field per step, P the projection:

.. code-block:: text

    c_t    = w_t + (w_0 - w_t) / (t + 2)
    h_t    = P(c_t - a_t F(w_t))
    w_{t+1} = P(c_t - a_t F'(h_t))

- For a monotone L-Lipschitz F and without noise, the field at the last iterate vanishes at the best possible
  order. With D the distance from the start to a saddle:
  EAG-C, constant ``a <= 1 / (8 L)``: ``|F(w_t)|^2 <= 260 L^2 D^2 / (t + 1)^2``;
  EAG-V, ``a_0 = 0.618 / L`` and then the recursion below: ``|F(w_t)|^2 <= 27 L^2 D^2 / ((t + 1)(t + 2))``.
- ``a_{t+1} = a_t (1 - q / ((t + 1)(t + 3)(1 - q)))`` with ``q = (a_t L)^2``; it falls by little and stays positive.
- The rate is sublinear, also where the extragradient's is linear.

=============  =======================================
paper          here
=============  =======================================
alpha_t        a, ``learning_rate`` (the first of EAG-V)
R, or L        ``lipschitz``
z^k            w_t
=============  =======================================

How this differs from published code: constant and varying steps are one method, in which ``lipschitz=`` asks for the
latter. The anchor is taken from the parameters of the first step, so that ``init`` needs no values.

References:
  Yoon and Ryu, `Accelerated Algorithms for Smooth Convex-Concave Minimax Problems with O(1/k^2) Rate on Squared
  Gradient Norm <https://arxiv.org/abs/2102.07922>`_, 2021.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class AnchoredExtragradientState(NamedTuple):
    """The state of `anchored_extragradient`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field so far, the ones passed in included.
      anchor: the structure and dtype of the parameters: the start w_0. Zeros before the first step.
      rate: ``[]`` float, the varying step a_t of the next update; 0 before the first, and always where
        `lipschitz` is None.
    """

    count: Array
    oracle_calls: Array
    anchor: Any
    rate: Array


def anchored_extragradient(
    learning_rate: Rate,
    *,
    lipschitz: ArrayLike | None = None,
    samples: Samples = "same",
    projection: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """EAG-C, or with ``lipschitz=`` EAG-V.

    Args:
      learning_rate: a; a number, a schedule, or a prefix tree of these. For EAG-V one number, the first step.
      lipschitz: L, the Lipschitz constant of the field; None for EAG-C.
      samples: where the second evaluation is taken: on the same minibatch (``operator_fn``) or on an
        independent one (``independent_operator_fn``).
      projection: of the joint tree onto the feasible set; applied to both points.

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., field=field)``; it needs the
      joint tree and comes first in a chain.

    Raises:
      ValueError: in `optax.partition`, after another transformation (where ``field=`` is passed), and without
        the parameters or the operator.

    Example:
      On f(x, y) = x y with the varying step, where ``t |F|`` stays bounded:

      >>> field = lambda w: jnp.array([w[1], -w[0]])
      >>> tx = anchored_extragradient(0.618, lipschitz=1.0)
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for step in range(30):
      ...     g = field(w)
      ...     updates, state = tx.update(g, state, w, operator_fn=field, field=g)
      ...     w = optax.apply_updates(w, updates)
      ...     if step % 10 == 9:
      ...         print(f"{jnp.linalg.norm(field(w)):.4f}")
      0.1797
      0.1085
      0.0744
    """
    oracles.check_samples(samples)
    numbers.check_rates(learning_rate=learning_rate)
    if lipschitz is not None:
        numbers.check("lipschitz", lipschitz, 0.0, float("inf"), ends="()")

    def init_fn(params):
        oracles.require_joint("anchored_extragradient", params)
        return AnchoredExtragradientState(
            count=jnp.zeros((), jnp.int32),
            oracle_calls=jnp.zeros((), jnp.int32),
            anchor=optax.tree.zeros_like(params),
            rate=jnp.zeros((), jnp.result_type(float)),
        )

    def update_fn(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        operator_fn: Operator | None = None,
        independent_operator_fn: Operator | None = None,
        field: Any = None,
        **extra_args: Any,
    ):
        del extra_args
        oracles.require_start("anchored_extragradient", updates, params, field)
        second = oracles.second_operator("anchored_extragradient", samples, operator_fn, independent_operator_fn)
        t = state.count.astype(state.rate.dtype)
        rate, next_rate = numbers.at(learning_rate, state.count), state.rate
        if lipschitz is not None:
            rate = jnp.where(t == 0, numbers.cast(rate, state.rate.dtype), state.rate)
            q = (rate * numbers.cast(lipschitz, rate.dtype)) ** 2
            next_rate = rate * (1 - q / ((t + 1) * (t + 3) * (1 - q)))

        anchor = optax.tree.where(state.count == 0, params, state.anchor)
        away = optax.tree.sub(params, anchor)
        centre = numbers.move(params, 1 / (t + 2), away)
        half = numbers.move(centre, rate, updates)
        if projection is not None:
            half = projection(half)
        step = numbers.descend(rate, numbers.widen(second(half), updates))
        pull = numbers.map_rate(lambda b, v: -b * v, 1 / (t + 2), away)
        new = optax.tree.add(optax.tree.cast_like(step, updates), optax.tree.cast_like(pull, updates))
        if projection is not None:
            new = optax.tree.sub(projection(optax.tree.add(params, new)), params)
        return new, AnchoredExtragradientState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 2),
            anchor=anchor,
            rate=next_rate,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
