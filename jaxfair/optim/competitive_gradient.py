r"""Competitive gradient descent (CGD): each step is the equilibrium of the local bilinear game.

For two players of a zero-sum game, F the joint field ``(grad_x f, -grad_y f)`` and ``J_off`` its Jacobian without the
diagonal blocks, the displacement D answers to itself:

.. code-block:: text

    D = -eta (F + J_off D)            so           (I + eta J_off) d = F,    w_{t+1} = w_t - eta d

With ``J_off = [[0, B], [-B', 0]]`` the second player is eliminated,

.. code-block:: text

    (I + eta^2 B B') d_x = F_x - eta B F_y,        d_y = F_y + eta B' d_x

and the first system, which is symmetric and positive definite, is solved by conjugate gradients (CG) without any
matrix: one product with B B' is two JVPs.

- On a bilinear game it is the proximal point method: the rate is ``1 / sqrt(1 + (eta s)^2)``, a contraction for every
  step.
- With different rates, ``eta^2`` is their product.
- ``samples="independent"`` takes B from an independent minibatch.

===========================  =====================================
paper                        here
===========================  =====================================
eta                          ``learning_rate``
D_xy^2 f                     B, the block (x, y) of ``J_off``
-D_yx^2 f                    -B', the block (y, x)
===========================  =====================================

How this differs from published code: the inner solve is a `lax.while_loop` inside the compiled step (also under
`vmap` and `scan`), where other JAX code goes through scipy on the host; it starts from zero, not from the last
solution, so the method has no hidden memory; its products are counted.

References:
  Schaefer and Anandkumar, `Competitive Gradient Descent <https://arxiv.org/abs/1905.12103>`_, 2019.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from jaxfair import implicit
from jaxfair.optim import _oracles as oracles
from jaxfair.optim import numbers
from jaxfair.optim._oracles import Operator, Samples
from jaxfair.optim.numbers import Rate
from jaxfair.typing import Array


class CompetitiveGradientState(NamedTuple):
    """The state of `competitive_gradient`.

    Attributes:
      count: ``[]`` int32, the number of updates done.
      oracle_calls: ``[]`` int32, evaluations of the field and JVPs so far, the ones passed in included.
    """

    count: Array
    oracle_calls: Array


def competitive_gradient(
    learning_rate: Rate,
    *,
    max_iterations: ArrayLike = 50,
    tolerance: ArrayLike = 1e-6,
    samples: Samples = "same",
) -> optax.GradientTransformationExtraArgs:
    """Each player's best move against the other's best move, in the local bilinear game.

    Args:
      learning_rate: eta; a number, a schedule, or one of these per player.
      max_iterations: of CG, at most; each costs two JVPs.
      tolerance: CG ends when the residual is this small relative to the right-hand side.
      samples: whose Jacobian the system has: of the same minibatch (``operator_fn``) or of an
        independent one (``independent_operator_fn``).

    Returns:
      The transformation. ``update(field, state, params, operator_fn=..., field=field)``; it needs the
      joint tree, whose two top entries are the players, and comes first in a chain.

    Raises:
      ValueError: in `optax.partition`, after another transformation (where ``field=`` is passed), without
        the parameters or the operator, and for any number of players but two.
      TypeError: for complex parameters.

    Example:
      On f(x, y) = x y the distance shrinks by 1 / sqrt(1 + eta^2), however large the step:

      >>> field = lambda w: {"x": w["y"], "y": -w["x"]}
      >>> tx = competitive_gradient(2.0)
      >>> w = {"x": jnp.ones(1), "y": jnp.zeros(1)}
      >>> state = tx.init(w)
      >>> for _ in range(3):
      ...     g = field(w)
      ...     updates, state = tx.update(g, state, w, operator_fn=field, field=g)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"{optax.tree.norm(w):.4f}")
      0.4472
      0.2000
      0.0894
    """
    oracles.check_samples(samples)
    numbers.check_rates(learning_rate=learning_rate)
    numbers.check("max_iterations", max_iterations, 1.0, float("inf"), whole=True)
    numbers.check("tolerance", tolerance, 0.0, float("inf"))

    def init_fn(params):
        oracles.require_joint("competitive_gradient", params)
        return CompetitiveGradientState(count=jnp.zeros((), jnp.int32), oracle_calls=jnp.zeros((), jnp.int32))

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
        oracles.require_start("competitive_gradient", updates, params, field)
        oracles.require_real("competitive_gradient", updates)
        second = oracles.second_operator("competitive_gradient", samples, operator_fn, independent_operator_fn)
        wide = numbers.widen(updates, params)
        parts, together = oracles.players(wide)
        if len(parts) != 2:
            raise ValueError(
                "competitive_gradient is a method of two players, the top entries of the joint tree; "
                f"this one has {len(parts)}"
            )
        eta = numbers.at(learning_rate, state.count)
        _, jvp = jax.linearize(second, params)

        def respond(player, move):
            """What the other player's direction, times its rate, changes in this player's field."""
            moves = [optax.tree.zeros_like(part) for part in parts]
            moves[1 - player] = move
            scaled = numbers.map_rate(jnp.multiply, eta, together(moves))
            changed = jvp(optax.tree.cast_like(scaled, params))  # in the dtype of the field
            return oracles.players(optax.tree.cast_like(changed, wide))[0][player]

        field_x, field_y = parts
        solve = implicit.conjugate_gradients(max_iterations=max_iterations, tolerance=tolerance)
        d_x, iterations, _ = solve(
            lambda v: optax.tree.sub(v, respond(0, respond(1, v))),
            optax.tree.sub(field_x, respond(0, field_y)),
        )
        d_y = optax.tree.sub(field_y, respond(1, d_x))
        direction = optax.tree.cast_like(together([d_x, d_y]), updates)
        return numbers.descend(eta, direction), CompetitiveGradientState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            oracle_calls=numbers.count_up(state.oracle_calls, 3 + 2 * iterations),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
