r"""One run of a game: a pure function of its key, and one `jax.lax.scan`.

In which order the players move, with the field :math:`F_t` of the minibatch of step t and one step
of an optimizer written as :math:`w \leftarrow w - \mathrm{d}(F)`:

- ``"simultaneous"``: :math:`w \leftarrow \Pi(w - d(F_t(w)))`, one optimizer for the joint tree.
- ``"alternating"``: :math:`x \leftarrow \Pi_x(x - d_x(F_t^x(x, y)))`, and then
  :math:`y \leftarrow \Pi_y(y - d_y(F_t^y(x, y)))` with the new x on the same minibatch.
- ``"local"``: every player moves against the others as they were at the last synchronisation, which
  happens every :math:`\tau` steps:
  :math:`x \leftarrow \Pi_x(x - d_x(F_t^x(x, y_s))), \; y \leftarrow \Pi_y(y - d_y(F_t^y(x_s, y)))`,
  s the last multiple of :math:`\tau`. Only a synchronisation communicates. With :math:`\tau = 1` it
  is the simultaneous order.

Source of the local order: Yoon, Choudhury, Loizou, `Multiplayer Federated Learning: Reaching
Equilibrium with Less Communication <https://arxiv.org/abs/2501.08263>`_, 2025 (PEARL-SGD). There,
players draw their samples independently; here all see the same minibatch, as in the other orders.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxfair.games._calls import counted, marked
from jaxfair.games._game import Game, Skeleton, distance, join, residual, split
from jaxfair.games._numbers import sizes
from jaxfair.optim.numbers import count_up
from jaxfair.typing import Key

Order: TypeAlias = Literal["simultaneous", "alternating", "local"]
#: A transformation of the joint tree, or one per player.
Optimizer: TypeAlias = optax.GradientTransformation | Mapping[str, optax.GradientTransformation]

# Minibatches are drawn for this many steps at once (for more, where more lie between two records):
# drawing them one by one costs more than a step of a small game.
_DRAWN_AT_ONCE = 128


class Trajectory(NamedTuple):
    """What was seen along a run of T steps, recorded every k-th: R = T / k.

    A run that diverges ends in inf or nan, here as in every field. In a sweep, each field has two
    axes in front: ``[H, S, ...]``, settings and seeds.

    Attributes:
      distance: ``[R]`` to the saddle, or to the set of solutions; nan where the game's solution is
        not known.
      residual: ``[R]`` the norm of the mean operator, projected for a constrained game.
      gap: ``[R]`` the duality gap; nan for a game without one.
      oracle_calls: ``[R]`` int32, how many times the field of a minibatch had been evaluated by
        then: one per step for the field that the optimizer is given, and its calls of the functions
        that evaluate it again, which are counted as they happen (those in one `jax.vmap` as one);
        or what its state says in `oracle_calls`, where that is more (products with the Jacobian,
        passes over all data). It stays at the largest int32. In the orders that move players one
        by one each player evaluates its own part of the field once per step, which counts as one.
      players: the players after the last step.
    """

    distance: jax.Array
    residual: jax.Array
    gap: jax.Array
    oracle_calls: jax.Array
    players: Any


def play(
    game: Game,
    optimizer: Optimizer,
    *,
    num_steps: int,
    key: Key,
    batch_size: int = 1,
    record_every: int = 1,
    order: Order = "simultaneous",
    local_steps: int = 1,
    measure: Callable[[Any, Any], Any] | None = None,
) -> Trajectory:
    r"""Plays a game.

    The optimizer is called as
    ``update(field, state, players, operator_fn=..., independent_operator_fn=..., mean_operator_fn=..., field=field)``:
    functions of the players that evaluate the field again, on this step's minibatch, on an
    independent one of the same size, and on all data.

    All of it is one compiled program. It is compiled once for a given game, optimizer *object* and
    set of options: another key costs no compilation, another call of ``optax.sgd(0.1)`` does.

    Args:
      game: the game.
      optimizer: a transformation of the joint tree of players. In the alternating and local orders
        a dict of one transformation per player, which move in the order of the dict.
      num_steps: T.
      key: a PRNG key for the start and the minibatches. The minibatch of step t depends on nothing
        but the key and t.
      batch_size: samples per minibatch, drawn with replacement.
      record_every: k, which divides T: the measurements are taken, and their memory is used, once
        in k steps. One costs about as much as a step with the mean operator. The indices (or the
        noise) of k minibatches are held at a time, of about 128 where k is smaller.
      order: who moves when; see above.
      local_steps: tau, the steps between synchronisations in the local order.
      measure: ``measure(players, state) -> players``: at which point the distance, residual and gap
        are taken; ``lambda players, state: optim.get_average(state)`` for an average of the
        iterates. By default where the players are.

    Returns:
      The trajectory.

    Raises:
      ValueError: for lengths that are no whole numbers of at least 1, if `record_every` does not divide
        `num_steps`, for `local_steps` in another order, or an `optimizer` that is of the wrong kind
        for the order.

    Example:
      On :math:`f = x y` gradient descent-ascent with rate 0.1 multiplies the distance by
      :math:`\sqrt{1.01}` at each step:

      >>> from jaxfair import games
      >>> xy = games.finite_sum("xy", B=jnp.ones((1, 1, 1)))
      >>> trajectory = play(xy, optax.sgd(0.1), num_steps=6, record_every=2, key=jax.random.key(0))
      >>> factors = trajectory.distance[1:] / trajectory.distance[:-1]  # of two steps each
      >>> [round(float(factor), 4) for factor in factors]
      [1.01, 1.01]
      >>> trajectory.oracle_calls
      Array([2, 4, 6], dtype=int32)

      In turns, the players stay on an ellipse:

      >>> turns = {"x": optax.sgd(0.1), "y": optax.sgd(0.1)}
      >>> trajectory = play(xy, turns, num_steps=1000, key=jax.random.key(0), order="alternating")
      >>> bool(trajectory.distance.max() < 1.1 * trajectory.distance.min())
      True
    """
    moves = _moves(game, optimizer, order)
    arrays, skeleton = split(game)
    return _compiled(
        arrays,
        key,
        skeleton=skeleton,
        moves=moves,
        order=order,
        measure=measure,
        **lengths(num_steps, batch_size, record_every, order, local_steps),
    )


@partial(
    jax.jit,
    static_argnames=(
        "skeleton",
        "moves",
        "num_steps",
        "batch_size",
        "record_every",
        "order",
        "local_steps",
        "measure",
    ),
)
def _compiled(arrays: Any, key: Key, *, skeleton: Skeleton, moves: Any, order: Order, **options: Any) -> Trajectory:
    optimizer = moves[0][1] if order == "simultaneous" else dict(moves)
    return traced(join(arrays, skeleton), optimizer, key=key, order=order, **options)


def _moves(game: Game, optimizer: Optimizer, order: Order) -> tuple[tuple[str, Any], ...]:
    """The optimizers with the names of the players that they move; hashable."""
    if order == "simultaneous":
        if isinstance(optimizer, Mapping):
            raise ValueError(
                "order='simultaneous' takes one transformation of the joint tree; "
                "optax.partition makes one out of one per player."
            )
        return (("", optimizer),)
    if order not in ("alternating", "local"):
        raise ValueError(f"order={order!r}: give 'simultaneous', 'alternating' or 'local'.")
    names = set(jax.eval_shape(game.init, jax.random.key(0)))
    if not isinstance(optimizer, Mapping) or set(optimizer) != names:
        raise ValueError(f"order={order!r} takes a dict of transformations for {sorted(names)}.")
    return tuple(optimizer.items())


def lengths(num_steps: Any, batch_size: Any, record_every: Any, order: Order, local_steps: Any) -> dict[str, int]:
    """The lengths of a run as Python's integers.

    Raises:
      ValueError: for one that is no whole number of at least 1, and for those that do not go together.
    """
    names = ("num_steps", "batch_size", "record_every", "local_steps")
    whole = sizes(**dict(zip(names, (num_steps, batch_size, record_every, local_steps), strict=True)))
    num_steps, _, record_every, local_steps = whole
    if num_steps % record_every:
        raise ValueError(
            f"num_steps={num_steps}, record_every={record_every}: give a number of steps that record_every divides."
        )
    if local_steps > 1 and order != "local":
        raise ValueError(
            f"local_steps={local_steps} with order={order!r}: give 1 or more, and more than 1 in the local order only."
        )
    return dict(zip(names, whole, strict=True))


def traced(
    game: Game,
    optimizer: Optimizer,
    *,
    num_steps: int,
    key: Key,
    batch_size: int,
    record_every: int,
    order: Order,
    local_steps: int,
    measure: Callable[[Any, Any], Any] | None,
) -> Trajectory:
    """`play` without a compilation of its own, for callers that are compiled."""
    moves = _moves(game, optimizer, order)
    key_start, key_batch, key_independent = jax.random.split(key, 3)

    def draw(key, t):
        # One vmap over all of t compiles in half the time of one over each of its axes.
        flat = jax.vmap(lambda s: game.sample(jax.random.fold_in(key, s), batch_size))(t.ravel())
        return jax.tree.map(lambda leaf: leaf.reshape(*t.shape, *leaf.shape[1:]), flat)

    def step(carry, drawn):
        players, states, synchronised, calls = carry
        t, batch, independent = drawn
        calls = count_up(calls, 1)
        if order == "simultaneous":
            ((_, tx),), (state,) = moves, states
            again = {
                "operator_fn": marked(lambda w: game.operator(w, batch)),
                "independent_operator_fn": marked(lambda w: game.operator(w, independent)),
                "mean_operator_fn": marked(game.mean_operator),
            }

            def update(field, state, players):
                return optax.with_extra_args_support(tx).update(field, state, players, field=field, **again)

            (updates, state), more = counted(update, game.operator(players, batch), state, players)
            players = game.projection(optax.apply_updates(players, updates))
            return (players, (state,), synchronised, count_up(calls, more)), None

        if order == "local":
            synchronised = optax.tree.where(t % local_steps == 0, players, synchronised)
        new_states = []
        for (name, tx), state in zip(moves, states, strict=True):
            # What this player sees of the others: where they are, or where they were.
            others = synchronised if order == "local" else players
            seen = {**others, name: players[name]}
            field = game.operator(seen, batch)[name]
            updates, state = tx.update(field, state, players[name])
            moved = optax.apply_updates(players[name], updates)
            projected = game.projection({**seen, name: moved})[name]
            players = {**players, name: projected}
            new_states.append(state)
        return (players, tuple(new_states), synchronised, calls), None

    def record(carry, drawn):
        carry, _ = lax.scan(step, carry, drawn)
        players, states, _, calls = carry
        at = players
        if measure is not None:
            at = measure(players, states[0] if order == "simultaneous" else dict_of(states))
        nan = jnp.full((), jnp.nan)
        return carry, (
            distance(game, at),
            residual(game, at),
            nan if game.gap is None else game.gap(at),
            _oracle_calls(states, calls),
        )

    def dict_of(states):
        return {name: state for (name, _), state in zip(moves, states, strict=True)}

    def chunk(carry, t):
        # t: [records, record_every]
        drawn = t, draw(key_batch, t), draw(key_independent, t)
        return lax.scan(record, carry, drawn)

    num_records = num_steps // record_every
    records = max(1, _DRAWN_AT_ONCE // record_every)
    records = next(r for r in range(min(records, num_records), 0, -1) if num_records % r == 0)
    steps = jnp.arange(num_steps, dtype=jnp.int32).reshape(-1, records, record_every)

    players = game.init(key_start)
    if order == "simultaneous":
        states, synchronised = (moves[0][1].init(players),), ()
    else:
        states = tuple(tx.init(players[name]) for name, tx in moves)
        synchronised = players if order == "local" else ()
    carry = players, states, synchronised, jnp.zeros((), jnp.int32)
    carry, seen = lax.scan(chunk, carry, steps)
    return Trajectory(*(s.reshape(num_records) for s in seen), players=carry[0])


def _oracle_calls(states: Any, calls: Any) -> Any:
    # A wrapper that counts does so for what it wraps, and a state counts what is dearer than a call: the largest.
    counts = [count for _, count in optax.tree.get_all_with_path(states, "oracle_calls")]
    return jnp.max(jnp.stack([calls, *counts])).astype(jnp.int32)
