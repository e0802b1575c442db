"""What a stochastic game is: a field that is sampled, and what is known of its solution."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxfair.typing import Key


def no_projection(players: Any) -> Any:
    """The projection of a game without constraints: players as they are."""
    return players


class Game(NamedTuple):
    r"""A stochastic game as a handful of functions.

    One player ``x`` minimises :math:`f(x, y) = E_\xi f_\xi(x, y)` and another one ``y`` maximises
    it. All that an optimizer sees is the joint field of a minibatch,

    .. math:: F_\xi(w) = (\nabla_x f_\xi(w), \; -\nabla_y f_\xi(w)), \qquad w = (x, y),

    in which ascent is already a change of sign: every player descends. Games that are not zero-sum
    fit too (each player's entry is the gradient of its own loss); they have no `payoff`.

    A game's functions may be plain functions; ``jax.tree_util.Partial(function, arrays)`` is better.
    :func:`jaxfair.games.play` and :func:`jaxfair.games.sweep` hand the arrays of a Partial to the
    compiled program as arguments, so that another game of the same shapes does not compile again;
    arrays in a closure become constants of the program.

    Attributes:
      name: a word for tables.
      init: ``init(key) -> players``, a dict of pytrees, one entry per player:
        ``{"x": ..., "y": ...}``.
      sample: ``sample(key, batch_size) -> batch``, drawn with replacement. ``batch_size`` is a
        Python integer.
      operator: ``operator(players, batch) -> field``, of the structure of the players; the mean
        over the batch.
      mean_operator: ``mean_operator(players) -> field``, its expectation.
      saddle: the players at the solution (one of them, where there are many), or None where it is
        not known.
      jacobian: ``[D, D]`` the Jacobian of the mean operator where it is constant, else None. D
        counts the entries of all players in the order of ``jax.flatten_util.ravel_pytree``: x
        before y.
      projection: ``projection(players) -> players`` onto the set that the players must stay in.
      num_samples: n where there are finitely many equally likely samples. A batch is then an int32
        ``[b]`` of indices in ``[0, n)``. None where the noise is continuous.
      payoff: ``payoff(players, batch) -> []``, the f of which `operator` is the field; None where
        the game is not zero-sum.
      gap: ``gap(players) -> []``, the duality gap, where it can be computed.
      distance: ``distance(players) -> []`` to the *set* of solutions, where that is more than the
        one point `saddle`.

    Example:
      The scalar game :math:`f = x y + \xi (x - y)` with noise of two values:

      >>> noise = jnp.array([-1.0, 1.0])
      >>> def operator(players, batch):
      ...     mean = jnp.mean(noise[batch])
      ...     return {"x": players["y"] + mean, "y": -players["x"] + mean}
      >>> game = Game(
      ...     name="xy",
      ...     init=lambda key: {"x": jnp.array(1.0), "y": jnp.array(0.0)},
      ...     sample=lambda key, batch_size: jax.random.randint(key, (batch_size,), 0, 2),
      ...     operator=operator,
      ...     mean_operator=lambda players: operator(players, jnp.arange(2)),
      ...     saddle={"x": jnp.array(0.0), "y": jnp.array(0.0)},
      ...     num_samples=2)
      >>> game.operator(game.init(jax.random.key(0)), jnp.array([1]))
      {'x': Array(1., dtype=float32), 'y': Array(0., dtype=float32)}
    """

    name: str
    init: Callable[..., Any]
    sample: Callable[..., Any]
    operator: Callable[..., Any]
    mean_operator: Callable[..., Any]
    saddle: Any = None
    jacobian: Any = None
    projection: Callable[..., Any] = no_projection
    num_samples: int | None = None
    payoff: Callable[..., Any] | None = None
    gap: Callable[..., Any] | None = None
    distance: Callable[..., Any] | None = None


def distance(game: Game, players: Any) -> Float[Array, ""]:
    """How far the players are from the solution.

    Args:
      game: any game.
      players: a point of it.

    Returns:
      ``[]`` the Euclidean distance to `game.saddle`, or to the set of solutions where the game has
      more than one; nan for a game whose solution is not known.

    Example:
      >>> from jaxfair import games
      >>> game = games.dirac_gan(jax.random.key(0))
      >>> distance(game, {"x": jnp.array([3.0]), "y": jnp.array([4.0])})
      Array(5., dtype=float32)
    """
    if game.distance is not None:
        return game.distance(players)
    if game.saddle is None:
        return jnp.full((), jnp.nan)
    return optax.tree.norm(optax.tree.sub(players, game.saddle))


def residual(game: Game, players: Any) -> Float[Array, ""]:
    r"""How far the players are from being stationary.

    :math:`\|w - \Pi(w - F(w))\|` with the mean operator :math:`F` and the game's projection
    :math:`\Pi`. Without constraints it is :math:`\|F(w)\|`. It is zero at a solution and nowhere
    else.

    Args:
      game: any game.
      players: a point of it.

    Returns:
      ``[]`` the norm.

    Example:
      >>> from jaxfair import games
      >>> game = games.matrix_game(jax.random.key(0), dim=5)
      >>> bool(residual(game, game.saddle) < 1e-6)
      True
    """
    field = game.mean_operator(players)
    if game.projection is no_projection:
        return optax.tree.norm(field)
    moved = game.projection(optax.tree.sub(players, field))
    return optax.tree.norm(optax.tree.sub(players, moved))


class Skeleton(NamedTuple):
    """All of a game but its arrays, hashable: what a compiled program is made for.

    Attributes:
      treedef: the structure of the game.
      is_array: for each leaf, whether it is an array.
      rest: the other leaves: functions, names, numbers.
    """

    treedef: Any
    is_array: tuple[bool, ...]
    rest: tuple[Any, ...]


def split(game: Game) -> tuple[list[Any], Skeleton]:
    """The arrays of a game, and the rest of it; :func:`join` puts them together again."""
    leaves, treedef = jax.tree.flatten(game)
    is_array = tuple(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
    pairs = list(zip(leaves, is_array, strict=True))
    rest = tuple(leaf for leaf, array in pairs if not array)
    return [leaf for leaf, array in pairs if array], Skeleton(treedef, is_array, rest)


def join(arrays: list[Any], skeleton: Skeleton) -> Game:
    """The game whose arrays and rest these are."""
    ours, theirs = iter(arrays), iter(skeleton.rest)
    leaves = [next(ours if array else theirs) for array in skeleton.is_array]
    return skeleton.treedef.unflatten(leaves)


def uniform_indices(num_samples: int) -> Callable[[Key, int], Any]:
    """The ``sample`` of a game with `num_samples` equally likely samples: int32 ``[b]``, with replacement.

    Example:
      >>> uniform_indices(1)(jax.random.key(0), 3)
      Array([0, 0, 0], dtype=int32)
    """
    return Partial(_uniform_indices, num_samples)


def _uniform_indices(num_samples: int, key: Key, batch_size: int) -> Any:
    return jax.random.randint(key, (batch_size,), 0, num_samples, dtype=jnp.int32)
