r"""What each feature contributes to a score: Shapley values of any function, exact or sampled.

For a function f of features, an example x, and a background sample b_1 .. b_K, the features play a game: a coalition S
of them is worth the mean score of people who have x's values in S and a background person's values elsewhere::

    v(S)  = sum_k w_k f(x_S, b_k outside of S) / sum_k w_k
    phi_i = sum over S without i of  |S|! (P - |S| - 1)! / P!  (v(S + i) - v(S))

This is the *interventional* game: it asks what the function reads, not what a feature says about others. A player is a
feature, or several columns that say one thing (the indicators of one attribute, the pixels of a patch): they change
hands together. For a linear score ``x @ w`` with a player a column, ``phi_i = w_i (x_i - mean b_i)``.

================  ================================================================
efficiency        sum_i phi_i = f(x) - mean f(b)
symmetry          players that are worth the same to every coalition get the same
dummy             a player that f does not read gets 0
linearity         phi of a f + b g is a phi of f + b phi of g
================  ================================================================

*Exact* takes all 2^P coalitions, K calls each. *Sampled* takes pairs of orders: the players come one after another, in
a random order and in its reverse, and each gets what it adds. Every pair is unbiased and efficient, and for functions
whose players interact by twos at most it is exact. The standard error is that of the orders alone: the background is
part of the question.

A row of a batch may be rounded by its place in it. So a dummy has exactly 0 where coalitions are looked at one by one
(``batch_size=1``), and is off by the last digit of the score elsewhere.

Sources: Shapley, A value for n-person games, 1953; Castro, Gomez and Tejada, Computers & OR 36, 2009, for sampled
orders; Mitchell, Cooper, Frank and Holmes, `Sampling Permutations <https://arxiv.org/abs/2104.12199>`_, 2022, for
pairs; Janzing, Minorics and Bloebaum, `Feature relevance quantification <https://arxiv.org/abs/1910.13413>`_, 2020, for
the game.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxfair.metrics._grouped import group_counts, group_means, group_sums
from jaxfair.metrics._rows import Numbers, Rows, as_float, as_group, check_whole
from jaxfair.typing import Array, Key

#: More players than this have too many coalitions to look at each: 16 have 65,536.
MOST = 16


class Shapley(NamedTuple):
    """What each player contributes to the score of each example.

    Attributes:
      values: ``[N, P, ...]``, with the trailing dimensions of a score.
      standard_error: likewise, of the sampled orders; 0 where all coalitions were looked at, nan from a single pair.
      base: ``[...]``, the mean score of the background, which the values add to.
    """

    values: Array
    standard_error: Array
    base: Array


class Players(NamedTuple):
    """Which columns are whose; made by :func:`players`.

    Attributes:
      player: ``[D]`` int32, the player of each column.
      names: P names of the players.
    """

    player: np.ndarray
    names: tuple[str, ...]


def players(names: Sequence[str], *, separator: str = "=") -> Players:
    """The attributes behind columns: ``race=Black`` and ``race=White`` are both of ``race``.

    Args:
      names: D names of columns, such as ``dataset.feature_names``.
      separator: what stands between an attribute and its value; a name without one is an attribute itself.

    Returns:
      :class:`Players`, in the order in which attributes come first.

    Example:
      >>> found = players(["age", "race=Black", "race=White"])
      >>> found.names, found.player.tolist()
      (('age', 'race'), [0, 1, 1])
    """
    of = [str(name).split(separator)[0] for name in names]
    unique = tuple(dict.fromkeys(of))
    return Players(np.array([unique.index(name) for name in of], np.int32), unique)


def shapley(
    score: Callable[[Any], Any],
    x: Numbers,
    background: Numbers,
    *,
    player: Any = None,
    pairs: int | None = None,
    key: Key | None = None,
    weight: Rows | None = None,
    batch_size: int = 8192,
) -> Shapley:
    """Shapley values of the features of examples, under a score.

    It is one program of loops, whose memory is bounded: jit it (with ``score`` and all that is static closed over), and
    differentiate or map it like any other.

    Args:
      score: ``score([B, ...]) -> [B, ...]``, a JAX function that treats rows alike; a probability, a logit, several.
      x: ``[N, ...]`` the examples.
      background: ``[K, ...]`` whose values stand in for those that are not in a coalition.
      player: integers from 0 of the shape of a row of ``x``, static: whose a column is; by default each is its own.
      pairs: how many pairs of orders are drawn for each example; None looks at all coalitions, for up to 16 players.
      key: of the orders.
      weight: ``[K]`` of the background, 0 for padding; all ones by default.
      batch_size: rows that ``score`` is given at once; the background of one coalition at least.

    Returns:
      :class:`Shapley`.

    Raises:
      ValueError: for shapes that do not fit, too many players to be exact, or pairs without a key.

    Example:
      Of a product half goes to either factor, and nothing to what is not read:

      >>> score = lambda x: x[:, 0] * x[:, 1]
      >>> found = shapley(score, [[2.0, 3.0, 9.0]], [[0.0, 0.0, 0.0]])
      >>> found.values.tolist(), found.base.item()
      ([[3.0, 3.0, 0.0]], 0.0)
    """
    x, background = as_float(x), as_float(background)
    owner, count = _owners(x, background, player)
    part = jnp.ones(len(background), background.dtype) if weight is None else as_float(weight)
    if part.shape != (len(background),):
        raise ValueError(
            f"weight of shape {part.shape} for a background of shape {background.shape}: give one number a row of it."
        )
    if pairs is None and count > MOST:
        raise ValueError(f"{count} players have 2^{count} coalitions: give pairs= and key=, and orders are sampled.")
    if pairs is not None:
        check_whole("pairs", pairs, 1)
        if key is None:
            raise ValueError(f"pairs={pairs} without a key: give key=, from which the orders are drawn.")

    def mean(scores: Any) -> Array:
        scores = as_float(scores)
        wide = part.reshape(-1, *[1] * (scores.ndim - 1)).astype(scores.dtype)
        # 0 * nan is nan: what stands in the padding must not matter.
        return jnp.sum(jnp.where(wide != 0, scores, 0) * wide, axis=0) / jnp.sum(wide)

    base = mean(score(background))
    size = max(1, batch_size // max(len(background), 1))  # coalitions at once

    def game(example: Any) -> Callable[[Any], Array]:
        # Less the base, so that sums of large numbers that cancel stay small.
        return lambda s: mean(score(jnp.where(s[owner][None], example[None], background))) - base

    if pairs is None or key is None:
        values = lax.map(lambda row: _exact(game(row), count, size), x, batch_size=max(1, size >> count))
        return Shapley(values, jnp.zeros_like(values), base)
    keys = jax.random.split(key, len(x))
    values, error = lax.map(lambda row: _sampled(game(row[0]), row[1], count, pairs, size), (x, keys))
    return Shapley(values, error, base)


def _owners(x: Any, background: Any, player: Any) -> tuple[np.ndarray, int]:
    """The player of each column, and how many there are."""
    if x.ndim < 2 or x.shape[1:] != background.shape[1:]:
        raise ValueError(
            f"x of shape {x.shape}, background of shape {background.shape}: give rows of the same features in both."
        )
    if player is None:
        player = np.arange(math.prod(x.shape[1:])).reshape(x.shape[1:])
    player = np.asarray(player)
    if player.shape != x.shape[1:] or player.dtype.kind not in "iu" or (player.size and player.min() < 0):
        raise ValueError(
            f"player of {player.dtype}{list(player.shape)} for x of shape {x.shape}: give an integer from 0 for each "
            "feature of a row."
        )
    return player.astype(np.int32), int(player.max()) + 1 if player.size else 0


def _exact(worth: Callable[[Any], Array], count: int, size: int) -> Array:
    """``[P, ...]``: a sum over all coalitions, whose number has a bit for each player."""
    number = jnp.arange(2**count, dtype=jnp.int32)
    bits = jnp.arange(count, dtype=jnp.int32)
    members = (number[:, None] >> bits[None]) & 1 > 0
    found = lax.map(worth, members, batch_size=size)
    # 1 / (P binom(P - 1, |S|)), of the coalitions S that lack the player.
    share = np.array([1 / (count * math.comb(count - 1, s)) for s in range(count)] + [0])
    share = jnp.asarray(share.astype(found.dtype))[members.sum(1)]

    def of(bit: Any) -> Array:
        # Differences first: of a player that is not read each is 0, and no sum of large numbers has to cancel.
        added = found[number | (1 << bit)] - found
        return jnp.tensordot(share, added, axes=(0, 0), precision="highest")

    return lax.map(of, bits)


def _sampled(worth: Callable[[Any], Array], key: Key, count: int, pairs: int, size: int) -> tuple[Array, Array]:
    """``[P, ...]`` twice: the mean over pairs of orders, and its standard error."""

    def pair(key: Any) -> Array:
        place = jax.random.permutation(key, count)
        both = jnp.stack([place, count - 1 - place])  # an order, and its reverse
        reached = jnp.arange(count + 1)
        coalitions = (both[:, None, :] < reached[None, :, None]).reshape(-1, count)
        found = lax.map(worth, coalitions, batch_size=size)
        added = jnp.diff(found.reshape(2, count + 1, *found.shape[1:]), axis=1)
        return (added[0, both[0]] + added[1, both[1]]) / 2

    drawn = lax.map(pair, jax.random.split(key, pairs))
    mean = drawn.mean(0)
    if pairs == 1:
        return mean, jnp.full_like(mean, jnp.nan)
    return mean, drawn.std(0, ddof=1) / math.sqrt(pairs)


class Importance(NamedTuple):
    """How much each player moves the scores of each group.

    Attributes:
      mean: ``[G, P]`` of the absolute values over the group's examples; nan for an empty group.
      standard_error: ``[G, P]`` over examples; nan for fewer than two.
    """

    mean: Array
    standard_error: Array


def importance(values: Numbers, group: Rows, num_groups: int, *, weight: Rows | None = None) -> Importance:
    """The mean absolute Shapley value of each player over the examples of each group.

    Sampled values are larger on average than exact ones, by their standard error at most: ``E|phi + noise| >= |phi|``.

    Args:
      values: ``[N, P]`` Shapley values of one score.
      group: ``[N]`` integers; those outside ``[0, num_groups)`` are left out. For everybody together: zeros.
      num_groups: G, static.
      weight: ``[N]``, 0 for padding; all ones by default.

    Returns:
      :class:`Importance`.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      >>> found = importance([[1.0, 0.0], [-3.0, 0.0], [0.5, 1.0]], [0, 0, 1], 2)
      >>> found.mean.tolist(), found.standard_error[0].tolist()
      ([[2.0, 0.0], [0.5, 1.0]], [1.0, 0.0])
    """
    size = jnp.abs(as_float(values))
    shapes = [np.shape(array) for array in (group, weight) if array is not None]
    if size.ndim != 2 or any(shape != size.shape[:1] for shape in shapes):
        said = " and ".join(map(str, shapes))
        raise ValueError(f"values of shape {size.shape} for groups (weights) of shape {said}: give [N, P] and [N].")
    means = jax.vmap(lambda column: group_means(column, group, num_groups, weight=weight), 1, 1)(size)
    ones = jnp.ones(len(size)) if weight is None else as_float(weight)
    people = group_sums(ones != 0, group, num_groups)
    total = group_counts(group, num_groups, weight=weight)
    own = means.at[as_group(group, num_groups)].get(mode="fill", fill_value=0)
    squares = jnp.where((ones != 0)[:, None], (ones[:, None] * (size - own)) ** 2, 0)
    spread = jax.vmap(lambda column: group_sums(column, group, num_groups), 1, 1)(squares)
    # The usual s / sqrt(n) where all weigh the same.
    bessel = jnp.where(people > 1, people / jnp.where(people > 1, people - 1, 1), jnp.nan)
    error = jnp.sqrt(spread * bessel[:, None]) / jnp.where(total > 0, total, 1)[:, None]
    return Importance(means, error)
