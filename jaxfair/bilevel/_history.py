"""What a search for a coreset has seen: the loss, the size and the members of every evaluation, at a fixed length."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool

from jaxfair.bilevel._lexicographic import lexicographic_best
from jaxfair.typing import Array, whole

#: The size of an evaluation that was not made yet.
NOBODY = np.iinfo(np.int32).max


class History(NamedTuple):
    """Evaluations, of which there is room for H.

    Attributes:
      losses: ``[H]`` float32; inf where none was made, and for one that is empty, too large, or has diverged.
      sizes: ``[H]`` int32.
      bits: ``[H, ceil(N / 8)]`` uint8, the members as `jax.numpy.packbits` packs them.
      count: scalar int32, evaluations made. Those beyond H stand in the places of the largest losses.
      picked: scalar int32, the place of the one that is chosen.
    """

    losses: Array
    sizes: Array
    bits: Array
    count: Array
    picked: Array


class Coreset(NamedTuple):
    """What a search chose; arrays of NumPy.

    Attributes:
      indices: ``[size]`` int64, the members, ascending.
      mask: ``[N]`` bool.
      loss: of the parameters trained on it.
      size: how many.
      evaluations: how many trainings the search took.
      missing: classes without a member; None where they were not asked for.
    """

    indices: np.ndarray
    mask: np.ndarray
    loss: float
    size: int
    evaluations: int
    missing: tuple[int, ...] | None


def empty(length: int, num_examples: int) -> History:
    """Room for so many evaluations."""
    return History(
        jnp.full(length, jnp.inf, jnp.float32),
        jnp.full(length, NOBODY, jnp.int32),
        jnp.zeros((length, -(-num_examples // 8)), jnp.uint8),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), jnp.int32),
    )


def remember(history: History, mask: Bool[Array, "N"], loss: Array, size: Array) -> History:
    """The history with one more evaluation, which is not chosen yet."""
    held = jnp.arange(len(history.losses)) == history.picked
    worst = jnp.argmax(jnp.where(held, -jnp.inf, history.losses))
    place = jnp.where(history.count < len(history.losses), history.count, worst)
    return History(
        history.losses.at[place].set(loss.astype(jnp.float32)),
        history.sizes.at[place].set(size.astype(jnp.int32)),
        history.bits.at[place].set(jnp.packbits(mask)),
        history.count + 1,
        history.picked,
    )


def choose(history: History, **rule: Any) -> History:
    """The history with its choice, by the rule of `lexicographic_best`."""
    return history._replace(picked=lexicographic_best(history.losses, history.sizes, **rule))


def chosen_mask(state: Any) -> Bool[Array, "N"]:
    """The choice of a search as a mask; it may be traced, and vmapped over lanes.

    Args:
      state: of `coreset` or `relaxed_coreset`.

    Returns:
      ``[N]`` bool.

    Example:
      >>> import jax
      >>> from jaxfair import bilevel
      >>> mean = lambda weight, key: jnp.mean(weight)
      >>> search = bilevel.coreset(mean, lambda m: m, num_examples=3, start=2)
      >>> chosen_mask(search.init(jax.random.key(0), jnp.array([True, False, True]))).tolist()
      [True, False, True]
    """
    history, num_examples = state.history, state.mask.shape[-1]
    return jnp.unpackbits(history.bits[history.picked], count=num_examples).astype(bool)


def coreset_of(state: Any, y: Any = None, num_classes: int | None = None) -> Coreset:
    """The coreset that a search has found so far: indices, to train on with a loop of your own.

    It is the choice among *all* evaluations of the history, and may be another than the incumbent, whose loss may have
    left the band as better ones were seen.

    Args:
      state: of `coreset` or `relaxed_coreset`, of one lane: of several give ``jax.tree.map(lambda a: a[i], state)``.
      y: ``[N]`` classes, to be told which of them have no member: that is allowed, and seldom wanted.
      num_classes: C, if not one more than the largest of ``y``.

    Returns:
      :class:`Coreset`.

    Raises:
      ValueError: for several lanes, a traced state, and classes of another length.

    Example:
      >>> import jax
      >>> from jaxfair import bilevel
      >>> x = jnp.array([-3.0, -2.0, 0.0, 2.0, 3.0])
      >>> mean = lambda weight, key: jnp.sum(weight * x) / jnp.sum(weight)
      >>> search = bilevel.coreset(mean, lambda m: jnp.mean((x - m) ** 2), num_examples=5, start=3, evaluations=9)
      >>> found = bilevel.coreset_of(search.init(jax.random.key(0), x < 2), y=[0, 0, 1, 2, 2])
      >>> found.indices.tolist(), found.evaluations, found.missing
      ([0, 1, 2], 1, (2,))
    """
    history = state.history
    if any(isinstance(leaf, Tracer) for leaf in history):
        raise ValueError("coreset_of gives Python's indices, and cannot be traced: use chosen_mask.")
    if np.ndim(history.picked):
        raise ValueError(f"the state has {len(history.picked)} lanes: give one, jax.tree.map(lambda a: a[0], state).")
    place, num_examples = int(history.picked), state.mask.shape[-1]
    mask = np.asarray(chosen_mask(state))
    missing = None
    if y is not None:
        if np.shape(y) != (num_examples,):
            raise ValueError(f"y of shape {np.shape(y)}: give the classes of all {num_examples} examples.")
        most = whole(num_classes) if num_classes is not None else int(np.max(y)) + 1
        missing = tuple(sorted(set(range(most or 0)) - set(np.asarray(y)[mask].tolist())))
    return Coreset(
        np.flatnonzero(mask), mask, float(history.losses[place]), int(mask.sum()), int(history.count), missing
    )
