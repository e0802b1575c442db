r"""The fast extragradient (FEG): anchoring that also bears some negative comonotonicity.

Two evaluations of the joint field per step, ``b_t = 1 / (t + 1)``, r the comonotonicity, a the learning rate ``1 / L``:

.. code-block:: text

    c_t    = w_t + b_t (w_0 - w_t)
    h_t    = c_t - (1 - b_t)(a + 2 r) F(w_t)
    w_{t+1} = c_t - a F'(h_t) - (1 - b_t) 2 r F(w_t)

- For an L-Lipschitz F with ``<F(u) - F(v), u - v> >= r |F(u) - F(v)|^2``, ``r > -1 / (2 L)`` (0 for a monotone one,
  negative for some nonmonotone ones), and without noise: ``|F(w_t)|^2 <= 4 D^2 / ((1 / L + 2 r)^2 t^2)``, D
  the distance from the start to a solution. That is 27 / 4 times better than the bound of EAG-V.
- At the first step h is the start, so the step is that of SGD.

=============  =================
paper          here
=============  =================
1 / L          ``learning_rate``
rho            ``comonotonicity``
beta_k         b_t, with t = k
=============  =================

How this differs from published code: the learning rate is the parameter, not L. The anchor is taken from the
parameters of the first step, so that ``init`` needs no values.

References:
  Lee and Kim, `Fast Extra Gradient Methods for Smooth Structured Nonconvex-Nonconcave Minimax Problems
  <https://arxiv.org/abs/2106.02326>`_, 2021.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class FastExtragradientState(NamedTuple):
    """The state of `fast_extragradient`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field so far, the ones passed in included.
      anchor: the structure and dtype of the parameters: the start w_0. Zeros before the first step.
    """

    count: Array
    oracle_calls: Array
    anchor: Any


def fast_extragradient(
    learning_rate: Rate, *, comonotonicity: ArrayLike = 0.0, samples: Samples = "same"
) -> optax.GradientTransformationExtraArgs:
    """The extragradient with anchoring and two different steps.

    Args:
      learning_rate: a, at most ``1 / L``; a number, a schedule, or a prefix tree of these.
      comonotonicity: r, above ``-a / 2``. Where only L is known to hold, 0.
      samples: where the second evaluation is taken: on the same minibatch (``operator_fn``) or on an
        independent one (``independent_operator_fn``).

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., field=field)``; it needs the
      joint tree and comes first in a chain. The analysis is without constraints: there is no projection.

    Raises:
      ValueError: in `optax.partition`, after another transformation (where ``field=`` is passed), and without
        the parameters or the operator.

    Example:
      On f(x, y) = x y, where ``t |F|`` stays bounded:

      >>> field = lambda w: jnp.array([w[1], -w[0]])
      >>> tx = fast_extragradient(0.5)
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for step in range(30):
      ...     g = field(w)
      ...     updates, state = tx.update(g, state, w, operator_fn=field, field=g)
      ...     w = optax.apply_updates(w, updates)
      ...     if step % 10 == 9:
      ...         print(f"{jnp.linalg.norm(field(w)):.4f}")
      0.1377
      0.0918
      0.0657
    """
    oracles.check_samples(samples)
    numbers.check_rates(learning_rate=learning_rate, comonotonicity=comonotonicity)

    def init_fn(params):
        oracles.require_joint("fast_extragradient", params)
        count, calls = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return FastExtragradientState(count=count, oracle_calls=calls, anchor=optax.tree.zeros_like(params))

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
        oracles.require_start("fast_extragradient", updates, params, field)
        second = oracles.second_operator("fast_extragradient", samples, operator_fn, independent_operator_fn)
        eta = numbers.at(learning_rate, state.count)
        b, r = 1 / (state.count.astype(jnp.result_type(float)) + 1), comonotonicity

        anchor = optax.tree.where(state.count == 0, params, state.anchor)
        away = optax.tree.sub(params, anchor)
        centre = numbers.move(params, b, away)
        kept = numbers.map_rate(lambda k, g: k * g, 1 - b, updates)  # (1 - b) F(w)
        half = numbers.move(numbers.move(centre, eta, kept), 2 * r, kept)
        step = optax.tree.cast_like(numbers.descend(eta, second(half)), updates)
        pull = optax.tree.cast_like(numbers.descend(b, away), updates)
        new = optax.tree.add(optax.tree.add(step, pull), numbers.descend(2 * r, kept))
        return new, FastExtragradientState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 2),
            anchor=anchor,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
