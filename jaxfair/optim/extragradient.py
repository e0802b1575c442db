r"""The extragradient method: look ahead, then step from where you were with the field found there.

Two evaluations of the joint field ``F = (grad_x f, -grad_y f)`` per step, P the projection:

.. code-block:: text

    h_t    = P(w_t - gamma_t F(w_t))
    w_{t+1} = P(w_t - eta_t F'(h_t))

- ``gamma = eta`` is Korpelevich's method. On a bilinear game with singular value s and ``q = eta s < 1`` its
  rate is ``sqrt(1 - q^2 + q^4)``, best ``sqrt(3) / 2``.
- ``samples="same"`` takes F' on the minibatch of F (S-SEG), ``"independent"`` on a fresh one (I-SEG).
  With noise and constant rates both stay at a distance from the saddle.
- Two schedules give the double-step-size method, which does reach it: gamma larger than eta and slower to
  decay, say ``t^(-1/3)`` against ``t^(-2/3)``; on affine games a constant gamma and ``eta ~ 1/t``.

=============  ===========================
papers         here
=============  ===========================
eta            ``learning_rate``
gamma          ``extrapolation_rate``
=============  ===========================

How this differs from the authors' code of these papers: the second evaluation is a function that is passed to
``update``, not a second phase of the optimizer, so one call is one step; the emitted update is
``-eta F'(h)`` exactly where there is no projection.

References:
  Korpelevich, *The extragradient method for finding saddle points and other problems*, 1976; Hsieh, Iutzeler,
  Malick and Mertikopoulos, `Explore Aggressively, Update Conservatively <https://arxiv.org/abs/2003.10162>`_, 2020;
  Gorbunov, Berard, Gidel and Loizou, `Stochastic Extragradient: General Analysis and Improved Rates
  <https://arxiv.org/abs/2111.08611>`_, 2022.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class ExtragradientState(NamedTuple):
    """The state of `extragradient`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field so far, the ones passed in included.
    """

    count: Array
    oracle_calls: Array


def extragradient(
    learning_rate: Rate,
    extrapolation_rate: Rate | None = None,
    *,
    samples: Samples = "same",
    projection: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Extrapolation from the past point, with a second evaluation.

    Args:
      learning_rate: eta; a number, a schedule, or a prefix tree of these.
      extrapolation_rate: gamma, likewise; the learning rate where it is None.
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
      On f(x, y) = x y the distance shrinks by sqrt(1 - 0.25 + 0.0625) per step:

      >>> field = lambda w: jnp.array([w[1], -w[0]])
      >>> tx = extragradient(0.5)
      >>> w = jnp.array([1.0, 0.0])
      >>> state = tx.init(w)
      >>> for _ in range(3):
      ...     g = field(w)
      ...     updates, state = tx.update(g, state, w, operator_fn=field, field=g)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"{jnp.linalg.norm(w):.4f}")
      0.9014
      0.8125
      0.7324
      >>> state.oracle_calls.item()
      6
    """
    oracles.check_samples(samples)
    numbers.check_rates(learning_rate=learning_rate)
    if extrapolation_rate is not None:
        numbers.check_rates(extrapolation_rate=extrapolation_rate)

    def init_fn(params):
        oracles.require_joint("extragradient", params)
        return ExtragradientState(count=jnp.zeros((), jnp.int32), oracle_calls=jnp.zeros((), jnp.int32))

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
        oracles.require_start("extragradient", updates, params, field)
        second = oracles.second_operator("extragradient", samples, operator_fn, independent_operator_fn)
        eta = numbers.at(learning_rate, state.count)
        gamma = eta if extrapolation_rate is None else numbers.at(extrapolation_rate, state.count)

        half = numbers.move(params, gamma, updates)
        if projection is not None:
            half = projection(half)
        new = numbers.emit(params, eta, second(half), updates, projection)
        return new, ExtragradientState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 2),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
