r"""Moves of a direct search over subsets: how the next subset comes out of the incumbent.

- `swap` lets some members go and takes at most as many outsiders in: the size never grows.
- `flip` lets every member go, and every outsider come, by a rate of its own.
- `flow` is the published walk, FLOW2 on a relaxation in :math:`[0, 1]^N` as LBCS has changed it; it is here to be
  compared with.

A proposal may remember something from move to move. What `flow` remembers: :math:`x`, members where it is above 1/2,
which starts at 0.6 for them and 0.25 for the others, and a direction :math:`d`. It proposes
:math:`\mathrm{clip}(x + s d)`, then :math:`\mathrm{clip}(x - s d)`, then draws again. :math:`d \sim N(-0.1, 1)^N`,
scaled to norm 1: the drift of -0.1 lets examples go. :math:`s = 0.0327 \sqrt N` does not shrink. As in the authors'
code the second move is made from the *new* point if the first was accepted: but for the clipping it is the subset of
before, and one training is wasted on it after each success.

Sources: Xia, Liu, Zhang, Wu, Wei and Liu, `Refined Coreset Selection <https://arxiv.org/abs/2311.08675>`_, 2024, and
their code, for `flow`; Wu, Wang and Huang, `Frugal Optimization <https://arxiv.org/abs/2005.01571>`_, 2021, for FLOW2.
`swap` and `flip` are ours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike, Bool

from jaxfair.sparsity import top_k
from jaxfair.typing import Array, Key


class Proposal(NamedTuple):
    """A kind of move.

    Attributes:
      init: ``init(mask) -> memory``, a pytree; ``()`` for a move that remembers nothing.
      propose: ``propose(memory, mask, key) -> (mask, accepted, rejected)``: another subset ``[N]`` bool, and what is
        remembered if it becomes the incumbent, and if not.
      several: whether several moves may be made from one memory, side by side.

    Example:
      A move of your own, which lets the first member go:

      >>> shrink = Proposal(
      ...     init=lambda mask: (),
      ...     propose=lambda memory, mask, key: (mask.at[jnp.argmax(mask)].set(False), (), ()), several=False)
      >>> shrink.propose((), jnp.array([False, True, True]), None)[0].tolist()
      [False, False, True]
    """

    init: Callable[..., Any]
    propose: Callable[..., tuple[Array, Any, Any]]
    several: bool


def _check_share(name: str, value: ArrayLike, low: float = 0.0) -> None:
    if not isinstance(value, Tracer) and not low <= float(np.asarray(value).item()) <= 1:
        raise ValueError(f"{name}={value}: give a share between {low:g} and 1.")


def swap(share: ArrayLike = 0.05) -> Proposal:
    """Some members go, and at most as many outsiders come.

    Args:
      share: of the members that go, at least one; as many outsiders come as a uniform number from 0 to these.

    Returns:
      The :class:`Proposal`.

    Raises:
      ValueError: for no share.

    Example:
      >>> mask = jnp.arange(100) < 40
      >>> after, *_ = swap().propose((), mask, jax.random.key(0))
      >>> (mask & ~after).sum().item(), (after & ~mask).sum().item()
      (2, 2)
    """
    _check_share("share", share)

    def propose(memory: Any, mask: Bool[Array, "N"], key: Key) -> tuple[Array, Any, Any]:
        first, second = jax.random.split(key)
        drawn = jax.random.uniform(first, mask.shape)  # members and outsiders do not overlap: one draw does for both
        size = jnp.sum(mask, dtype=jnp.int32)
        going = jnp.maximum((share * size).astype(jnp.int32), 1)
        coming = jax.random.randint(second, (), 0, going + 1)
        gone = top_k(jnp.where(mask, drawn, -1.0), going)
        came = top_k(jnp.where(mask, -1.0, drawn), jnp.minimum(coming, mask.size - size))
        return (mask & ~gone) | came, memory, memory

    return Proposal(lambda mask: (), propose, several=True)


def flip(rate: ArrayLike = 0.05, *, entries: ArrayLike = 1.0) -> Proposal:
    """Every member goes by a rate, every outsider comes by one that makes as many of them, in the mean.

    Args:
      rate: at which members go.
      entries: how many come for each that goes, in the mean: with less than 1 subsets tend to shrink.

    Returns:
      The :class:`Proposal`.

    Raises:
      ValueError: for rates outside ``[0, 1]``.

    Example:
      >>> mask = jnp.arange(1000) < 400
      >>> after, *_ = flip(0.1).propose((), mask, jax.random.key(0))
      >>> (mask & ~after).sum().item(), (after & ~mask).sum().item()
      (40, 43)
    """
    _check_share("rate", rate)
    _check_share("entries", entries)

    def propose(memory: Any, mask: Bool[Array, "N"], key: Key) -> tuple[Array, Any, Any]:
        size = jnp.sum(mask, dtype=jnp.int32)
        coming = rate * entries * size / jnp.maximum(mask.size - size, 1)
        turned = jax.random.uniform(key, mask.shape) < jnp.where(mask, rate, coming)
        return mask ^ turned, memory, memory

    return Proposal(lambda mask: (), propose, several=True)


class FlowMemory(NamedTuple):
    """What the published walk remembers.

    Attributes:
      point: ``[N]`` float32 in ``[0, 1]``, the relaxed incumbent.
      direction: ``[N]`` float32 of norm 1, the last one.
      back: bool, whether the next move is against it.
    """

    point: Array
    direction: Array
    back: Array


def flow(step: ArrayLike = 0.0327, *, drift: ArrayLike = -0.1) -> Proposal:
    """The published walk: a random direction of a relaxation, and then its opposite.

    Args:
      step: its length per coordinate, in units of the box: 8 in all for 60,000 examples is 0.0327.
      drift: mean of a direction's entries before they are scaled; 0 for FLOW2 without the drift.

    Returns:
      The :class:`Proposal`, for one candidate a step.

    Raises:
      ValueError: for a step that is no share.

    Example:
      >>> mask, walk = jnp.arange(1000) < 100, flow()
      >>> after, accepted, rejected = walk.propose(walk.init(mask), mask, jax.random.key(0))
      >>> (after ^ mask).sum().item(), accepted.back.item()
      (0, True)
    """
    _check_share("step", step)

    def init(mask: Bool[Array, "N"]) -> FlowMemory:
        point = jnp.where(mask, 0.6, 0.25).astype(jnp.float32)
        return FlowMemory(point, jnp.zeros_like(point), jnp.zeros((), bool))

    def propose(memory: FlowMemory, mask: Bool[Array, "N"], key: Key) -> tuple[Array, Any, Any]:
        drawn = jax.random.normal(key, mask.shape) + drift
        fresh = drawn / jnp.linalg.norm(drawn)
        direction = jnp.where(memory.back, memory.direction, fresh)
        length = jnp.where(memory.back, -1.0, 1.0) * step * np.sqrt(mask.size).astype(np.float32)
        point = jnp.clip(memory.point + length * direction, 0.0, 1.0).astype(jnp.float32)
        after = FlowMemory(point, direction.astype(jnp.float32), ~memory.back)
        return point > 0.5, after, after._replace(point=memory.point)

    return Proposal(init, propose, several=False)
