"""A path in a plane through the solution: what a run in many dimensions looks like where the players turn most.

The plane is spanned by the left and right singular vectors u of x and v of y of the mean coupling's largest singular
value, the pair of directions that the mean game couples most.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair.games._game import Game
from jaxfair.games._numbers import sizes
from jaxfair.typing import Key


def in_the_plane(
    game: Game,
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
    key: Key,
    batch_size: int = 1,
) -> np.ndarray:
    """Plays a game, and sees every step in the plane.

    Args:
      game: with a constant Jacobian, and players that are vectors ``x`` and ``y``.
      optimizer: of the joint tree; it may evaluate the field of its minibatch again.
      num_steps: T.
      key: a PRNG key for the start and the minibatches.
      batch_size: samples per minibatch.

    Returns:
      ``[T + 1, 2]`` along u and v, relative to the solution; the start first.

    Example:
      Without noise gradient descent-ascent moves away from the solution of x y:

      >>> from jaxfair import games
      >>> xy = games.finite_sum("xy", B=jnp.ones((1, 1, 1)))
      >>> path = in_the_plane(xy, optax.sgd(0.1), num_steps=3, key=jax.random.key(0))
      >>> distance = np.linalg.norm(path, axis=1)
      >>> (distance[1:] / distance[:-1]).astype(float).round(4).tolist()
      [1.005, 1.005, 1.005]
    """
    num_steps, batch_size = sizes(num_steps=num_steps, batch_size=batch_size)
    dim = game.saddle["x"].size
    u, _, vt = np.linalg.svd(np.asarray(game.jacobian)[:dim, dim:])
    u, v = jnp.asarray(u[:, 0]), jnp.asarray(vt[0])
    tx = optax.with_extra_args_support(optimizer)

    def place(players: Any) -> Any:
        away = optax.tree.sub(players, game.saddle)
        return jnp.stack([jnp.vdot(u, away["x"]), jnp.vdot(v, away["y"])])

    def step(carry: Any, key: Key) -> Any:
        players, state = carry
        batch = game.sample(key, batch_size)
        field = game.operator(players, batch)
        updates, state = tx.update(field, state, players, operator_fn=lambda w: game.operator(w, batch), field=field)
        players = optax.apply_updates(players, updates)
        return (players, state), place(players)

    @jax.jit
    def run(key: Key) -> Any:
        players = game.init(key)
        steps = jax.random.split(key, num_steps)
        _, seen = jax.lax.scan(step, (players, tx.init(players)), steps)
        return jnp.concatenate([place(players)[None], seen])

    return np.asarray(run(key))
