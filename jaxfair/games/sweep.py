"""Many runs of a game at once: settings x seeds, in one compiled call."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from jaxfair.games._game import Game, Skeleton, join, split
from jaxfair.games.play import Order, Trajectory, lengths, traced
from jaxfair.typing import Key


def grid(**values: Any) -> dict[str, np.ndarray]:
    """The product of lists of values, zipped: what :func:`sweep` takes as settings.

    Args:
      **values: a list of numbers per name.

    Returns:
      A dict ``name -> [H]``, H the product of the lengths; the last name varies fastest. To look at
      a result ``[H, ...]`` as a table, reshape its first axis to the lengths.

    Example:
      >>> {name: value.tolist() for name, value in grid(lr=[0.1, 0.2], o=[1.0, 5.0, 10.0]).items()}
      {'lr': [0.1, 0.1, 0.1, 0.2, 0.2, 0.2], 'o': [1.0, 5.0, 10.0, 1.0, 5.0, 10.0]}
    """
    columns = np.meshgrid(*map(np.asarray, values.values()), indexing="ij")
    return {name: column.ravel() for name, column in zip(values, columns, strict=True)}


def sweep(
    game: Game | Callable[[Key], Game],
    make_optimizer: Callable[..., Any],
    settings: Mapping[str, ArrayLike],
    *,
    num_steps: int,
    keys: Key,
    batch_size: int = 1,
    record_every: int = 1,
    order: Order = "simultaneous",
    local_steps: int = 1,
    measure: Callable[[Any, Any], Any] | None = None,
) -> Trajectory:
    """Plays a game with every setting of an optimizer and every seed.

    ``[h, s]`` of the result is ``play(game, make_optimizer(**settings[h]), key=keys[s], ...)``. All
    settings of a seed see the same start and the same minibatches, so differences between them are
    not noise of the sampling; it also makes a lane cheap, because a minibatch is fetched from
    memory once per seed. A lane that diverges goes to inf and nan by itself.

    Inside of `jax.jit`, a sweep is part of the caller's program. Keys that are sharded over devices
    (``jax.device_put`` with a ``NamedSharding``) spread the seeds over them.

    Args:
      game: the game, the same one in all lanes; or a function of a key that makes one, for a game
        per seed. Row s is then ``play(game(k), ..., key=l)`` with
        ``k, l = jax.random.split(keys[s])``, and memory holds S games.
      make_optimizer: ``make_optimizer(**setting)`` makes an optimizer for
        :func:`jaxfair.games.play` out of scalars, which are traced. If it has a parameter called
        ``key``, it is given one for each lane: random methods should take it, or all lanes toss the
        same coins.
      settings: a dict ``name -> [H]`` of one length H, zipped: see :func:`grid`.
      num_steps: T.
      keys: ``[S]`` PRNG keys, one per seed.
      batch_size: as in `play`.
      record_every: as in `play`. The result takes ``16 * H * S * T / record_every`` bytes.
      order: as in `play`.
      local_steps: as in `play`.
      measure: as in `play`.

    Returns:
      A trajectory whose fields have the axes ``[H, S, ...]``.

    Raises:
      ValueError: for settings of different lengths, or none; and what `play` raises.

    Example:
      >>> import optax
      >>> from jaxfair import games
      >>> xy = games.finite_sum("xy", B=jnp.ones((1, 1, 1)))
      >>> result = sweep(
      ...     xy, lambda lr, o: optax.optimistic_gradient_descent(lr, beta=o), grid(lr=[0.1, 0.2], o=[0.0, 1.0]),
      ...     num_steps=100, record_every=50, keys=jax.random.split(jax.random.key(0), 3))
      >>> result.distance.shape
      (4, 3, 2)
      >>> (result.distance[:, :, -1] < result.distance[:, :, 0]).all(axis=1).tolist()
      [False, True, False, True]
    """
    columns = {name: jnp.asarray(column) for name, column in settings.items()}
    shapes = {name: column.shape for name, column in columns.items()}
    if not columns or len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
        raise ValueError(f"settings have the shapes {shapes}: give arrays of one axis and one length.")
    # A game enters as its arrays, so that they are not constants of the program.
    arrays, source = split(game) if isinstance(game, Game) else ([], game)
    return _sweep(
        arrays,
        columns,
        keys,
        source=source,
        make_optimizer=make_optimizer,
        order=order,
        measure=measure,
        **lengths(num_steps, batch_size, record_every, order, local_steps),
    )


@partial(
    jax.jit,
    static_argnames=(
        "source",
        "make_optimizer",
        "num_steps",
        "batch_size",
        "record_every",
        "order",
        "local_steps",
        "measure",
    ),
)
def _sweep(
    arrays: Any,
    columns: dict[str, Any],
    keys: Key,
    *,
    source: Skeleton | Callable[[Key], Game],
    make_optimizer: Callable[..., Any],
    **options: Any,
) -> Trajectory:
    is_random = "key" in inspect.signature(make_optimizer).parameters
    num_settings = next(iter(columns.values())).size

    def seed(key):
        if isinstance(source, Skeleton):
            game = join(arrays, source)
        else:
            key_game, key = jax.random.split(key)
            game = source(key_game)

        # Settings inside, seeds outside: the minibatches stay without an axis of settings.
        def lane(index, column):
            extra = {}
            if is_random:
                extra["key"] = jax.random.fold_in(jax.random.fold_in(key, 1), index)
            return traced(game, make_optimizer(**column, **extra), key=key, **options)

        return jax.vmap(lane)(jnp.arange(num_settings), columns)

    return jax.vmap(seed, out_axes=1)(keys)
