"""A linear game whose samples are minibatches: a step of a large minibatch costs as much as one of a small one.

The matrices of a minibatch are averaged before they are used, for many steps at a time, and all sizes share one
compiled program. Drawn with replacement, as `play` does.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from jaxfair.games._game import Game
from jaxfair.typing import Key


def sample_matrices(game: Game) -> dict[str, jax.Array]:
    """The matrices and linear terms of all samples of a linear game; those that are 0 left out.

    Args:
      game: of two vectors ``x`` and ``y``, with finitely many samples, whose fields are affine.

    Returns:
      ``A [n, dx, dx]``, ``B [n, dx, dy]``, ``C [n, dy, dy]``, ``a [n, dx]`` and ``c [n, dy]``, as
      :func:`jaxfair.games.finite_sum` takes them; ``B`` is always there.

    Example:
      >>> from jaxfair import games
      >>> game = games.quadratic_linear(jax.random.key(0), dim=3, num_samples=4, bias=0.0)
      >>> {name: part.shape for name, part in sample_matrices(game).items()}
      {'A': (4, 3, 3), 'B': (4, 3, 3)}
    """
    flat, restore = ravel_pytree(jax.tree.map(jnp.zeros_like, game.saddle))

    def field(w: Any, sample: Any) -> Any:
        return ravel_pytree(game.operator(restore(w), sample[None]))[0]

    samples = jnp.arange(game.num_samples)
    offset = jax.vmap(field, in_axes=(None, 0))(flat, samples)
    slope = jax.lax.map(lambda sample: jax.jacfwd(field)(flat, sample), samples)
    d = game.saddle["x"].size
    parts = {
        "a": offset[:, :d],
        "c": offset[:, d:],
        "A": slope[:, :d, :d],
        "B": slope[:, :d, d:],
        "C": slope[:, d:, d:],
    }
    return {name: part for name, part in parts.items() if name == "B" or bool(part.any())}


def in_minibatches(game: Game, parts: Mapping[str, jax.Array], size: int, *, largest: int) -> Game:
    """The linear game whose samples are minibatches of so many of its samples.

    Args:
      game: a linear one.
      parts: its :func:`sample_matrices`.
      size: samples per minibatch.
      largest: of the sizes that share a compiled program.

    Returns:
      A game to be played with a ``batch_size`` of 1, which stands for one minibatch. It has no payoff.

    Example:
      >>> from jaxfair import games
      >>> game = games.bilinear(jax.random.key(0), dim=3, num_samples=4)
      >>> ten = in_minibatches(game, sample_matrices(game), 10, largest=100)
      >>> players = game.init(jax.random.key(1))
      >>> ten.operator(players, ten.sample(jax.random.key(2), 1))["x"].shape
      (3,)
    """
    weights = jnp.where(jnp.arange(largest) < size, 1 / size, 0.0)
    return game._replace(sample=Partial(_sample_mean, dict(parts), weights), operator=_field_of_mean, payoff=None)


def _sample_mean(parts: Mapping[str, Any], weights: Any, key: Key, batch_size: int) -> Any:
    del batch_size
    count = parts["B"].shape[0]
    drawn = jax.random.randint(key, weights.shape, 0, count)
    share = jnp.zeros(count).at[drawn].add(weights)
    return {name: jnp.tensordot(share, part, 1) for name, part in parts.items()}


def _field_of_mean(players: Any, mean: Mapping[str, Any]) -> Any:
    x, y = players["x"], players["y"]
    field = {"x": mean["B"] @ y, "y": -(x @ mean["B"])}
    for name, player, other in (("A", "x", x), ("C", "y", y)):
        if name in mean:
            field[player] += mean[name] @ other
    for name, player in (("a", "x"), ("c", "y")):
        if name in mean:
            field[player] += mean[name]
    return field
