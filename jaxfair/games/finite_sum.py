r"""Games that are a finite sum of quadratic functions, from their matrices.

.. math::
  f_i(x, y) = \tfrac12 x^\top A_i x + x^\top B_i y - \tfrac12 y^\top C_i y + a_i^\top x - c_i^\top y,
  \qquad i \in \{1, \dots, n\}

The field of a minibatch is affine, with the average of the matrices of its samples, and the mean
operator is

.. math::
  F(w) = \begin{pmatrix} \bar A & \bar B \\ -\bar B^\top & \bar C \end{pmatrix} w
         + \begin{pmatrix} \bar a \\ \bar c \end{pmatrix}.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from jaxfair.games._game import Game, no_projection, uniform_indices
from jaxfair.typing import Key


def finite_sum(
    name: str,
    *,
    B: Float[Array, "n dx dy"],
    A: Float[Array, "n dx dx"] | None = None,
    C: Float[Array, "n dy dy"] | None = None,
    a: Float[Array, "n dx"] | None = None,
    c: Float[Array, "n dy"] | None = None,
    init: Callable[..., Any] | None = None,
    saddle: Any = None,
    projection: Callable[..., Any] = no_projection,
    gap: Callable[..., Any] | None = None,
    distance: Callable[..., Any] | None = None,
) -> Game:
    r"""The game of n quadratic functions, each given by its matrices.

    A minibatch gathers the matrices of its samples, so one step reads batch x d x d numbers per
    matrix and seed. The game holds all of them: ``4 * n * dx * dy`` bytes per matrix in float32, 4
    MB for d = n = 100, 4 GB for d = n = 1000.

    Args:
      name: a word for tables.
      B: ``[n, dx, dy]`` the couplings of the two players.
      A: ``[n, dx, dx]`` symmetric, the curvature of the minimising player; None for none.
      C: ``[n, dy, dy]`` symmetric, the (negative) curvature of the maximising player; None for
        none.
      a: ``[n, dx]`` the linear term of the minimising player; None for none.
      c: ``[n, dy]`` the linear term of the maximising player, with the sign above; None for none.
      init: ``init(key) -> {"x": [dx], "y": [dy]}``; standard normal by default.
      saddle: the solution. By default it is the solution of least norm of :math:`F(w) = 0` in the
        sense of least squares.
      projection: onto the set of a constrained game. Such a game must bring its `saddle`.
      gap: the game's duality gap, if it has one.
      distance: the distance to the set of solutions, if there is more than one.

    Returns:
      The game. A batch is an int32 ``[b]`` of samples.

    Raises:
      ValueError: for a constrained game without a saddle.

    Example:
      Two samples whose couplings are 0 and 2, so that the mean game is :math:`x y + x`, solved at
      (0, -1):

      >>> game = finite_sum("pair", B=jnp.array([[[0.0]], [[2.0]]]), a=jnp.array([[2.0], [0.0]]))
      >>> jax.tree.map(lambda v: round(float(v[0]), 5) + 0.0, game.saddle)
      {'x': 0.0, 'y': -1.0}
      >>> game.operator({"x": jnp.array([3.0]), "y": jnp.array([5.0])}, jnp.array([1]))
      {'x': Array([10.], dtype=float32), 'y': Array([-6.], dtype=float32)}
      >>> game.jacobian
      Array([[ 0.,  1.],
             [-1.,  0.]], dtype=float32)
    """
    num_samples, dim_x, dim_y = B.shape
    samples = {"A": A, "B": B, "C": C, "a": a, "c": c}
    samples = {name: value for name, value in samples.items() if value is not None}
    means = {name: jnp.mean(value, axis=0) for name, value in samples.items()}

    def mean(name: str, *shape: int) -> Array:
        return means.get(name, jnp.zeros(shape, B.dtype))

    jacobian = jnp.block(
        [
            [mean("A", dim_x, dim_x), mean("B", dim_x, dim_y)],
            [-mean("B", dim_x, dim_y).T, mean("C", dim_y, dim_y)],
        ]
    )
    if saddle is None:
        if projection is not no_projection:
            raise ValueError(f"{name}: a constrained game must bring its saddle: the zero of its operator is not it.")
        offset = jnp.concatenate([mean("a", dim_x), mean("c", dim_y)])
        solution = jnp.linalg.lstsq(jacobian, -offset)[0]
        saddle = {"x": solution[:dim_x], "y": solution[dim_x:]}

    return Game(
        name=name,
        init=Partial(_standard_normal, dim_x, dim_y, B.dtype) if init is None else init,
        sample=uniform_indices(num_samples),
        operator=Partial(_operator, samples),
        mean_operator=Partial(_mean_operator, means),
        saddle=saddle,
        jacobian=jacobian,
        projection=projection,
        num_samples=num_samples,
        payoff=Partial(_payoff, samples),
        gap=gap,
        distance=distance,
    )


def _standard_normal(dim_x: int, dim_y: int, dtype: Any, key: Key) -> Any:
    players = jax.random.normal(key, (dim_x + dim_y,), dtype)
    return {"x": players[:dim_x], "y": players[dim_x:]}


def _gather(samples: dict[str, Any], batch: Int[Array, " b"]) -> dict[str, Any]:
    # The default mode fills rows of indices that are out of bounds with nan, which costs a pass
    # over the matrices; "clip" only looks at the indices.
    return {name: value.at[batch].get(mode="clip") for name, value in samples.items()}


def _field(parts: dict[str, Any], players: Any) -> Any:
    x, y = players["x"], players["y"]
    field_x, field_y = _times(parts["B"], y), -_transpose_times(parts["B"], x)
    if "A" in parts:
        field_x += _times(parts["A"], x)
    if "C" in parts:
        field_y += _times(parts["C"], y)
    if "a" in parts:
        field_x += jnp.mean(parts["a"], axis=0)
    if "c" in parts:
        field_y += jnp.mean(parts["c"], axis=0)
    return {"x": field_x, "y": field_y}


def _operator(samples: dict[str, Any], players: Any, batch: Int[Array, " b"]) -> Any:
    return _field(_gather(samples, batch), players)


def _mean_operator(means: dict[str, Any], players: Any) -> Any:
    return _field({name: value[None] for name, value in means.items()}, players)


def _payoff(samples: dict[str, Any], players: Any, batch: Int[Array, " b"]) -> Float[Array, ""]:
    parts = _gather(samples, batch)
    x, y = players["x"], players["y"]
    value = jnp.vdot(x, _times(parts["B"], y))
    if "A" in parts:
        value += jnp.vdot(x, _times(parts["A"], x)) / 2
    if "C" in parts:
        value -= jnp.vdot(y, _times(parts["C"], y)) / 2
    if "a" in parts:
        value += jnp.vdot(jnp.mean(parts["a"], axis=0), x)
    if "c" in parts:
        value -= jnp.vdot(jnp.mean(parts["c"], axis=0), y)
    return value


# The batch is folded into the rows, so that one minibatch is one matrix-vector product. An average
# of the matrices first would write [d, d] numbers; a batched product with a batch of one is three
# times slower on a CPU under vmap.
def _times(matrices: Float[Array, "b r k"], vector: Float[Array, " k"]) -> Float[Array, " r"]:
    batch, rows, columns = matrices.shape
    return jnp.mean((matrices.reshape(batch * rows, columns) @ vector).reshape(batch, rows), axis=0)


def _transpose_times(matrices: Float[Array, "b r k"], vector: Float[Array, " r"]) -> Float[Array, " k"]:
    batch, rows, columns = matrices.shape
    return jnp.tile(vector, batch) @ matrices.reshape(batch * rows, columns) / batch
