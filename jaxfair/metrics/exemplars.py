r"""Compression-identified exemplars: the examples on which networks before and after compression vote differently.

K networks were trained before compression, K' are there after it. With n_c(x) the number of them that say class c of
example x, and ``K(x) = sum_c n_c(x)`` those that say anything (a network that has diverged does not)::

    mode(x)      = argmax_c n_c(x)                                  the class that most of them say
    exemplar(x)  : mode before differs from mode after              the *modal* exemplar of the papers
    score(x)     = sum_c |n_c(x) / K(x) - n'_c(x) / K'(x)|          the *taxicab* score, in [0, 2]

No true classes are needed. **Ties:** where several classes have most votes, and one of them has most votes on the other
side as well, the mode has not moved: an exemplar is an example of which *no* class is a mode on both sides. So nothing
depends on how classes are numbered. (The authors' code takes the largest number of the tied classes, which calls an
example moved by what its class is called. Their score counts networks: it is K times this one where K = K'.)

**The noise floor.** Two populations that were trained alike, and of which none was compressed, differ in some modes,
too. So the networks before are split into two random halves A and B of h networks each, and compared are::

    noise        mode over A, before      with mode over B, before
    compressed   mode over A, before      with mode over B, after

for several splits. Where K' = K, network k after is taken to have been made from network k before, and the two differ
in nothing but the compression; else h of the K' are drawn. What compression did is the excess of the second over the
first. Halves are noisier than the whole, so both shares are larger than that of all networks.

Sources: Hooker, Courville, Clark, Dauphin and Frome, What Do Compressed Deep Neural Networks Forget?, 2019 (PIE);
Hooker, Moorosi, Clark, Bengio and Denton, Characterising Bias in Compressed Models, 2020 (CIE). The noise floor is
ours.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import ArrayLike, Bool, Int

from jaxfair.metrics._exact import Bounds
from jaxfair.metrics._rows import Numbers, as_classes, as_float, check_level, check_whole
from jaxfair.typing import Array, Key


class Exemplars(NamedTuple):
    """What two populations say of every example; made by :func:`exemplars`.

    Attributes:
      before: ``[N]`` int32, the class that most networks before say; of several the first that is a mode after, too,
        else the first. -1 where none says any.
      after: ``[N]`` likewise.
      exemplar: ``[N]`` whether no class is a mode on both sides. False where one side says nothing.
      score: ``[N]`` the taxicab score, in ``[0, 2]``; nan where one side says nothing.
    """

    before: Array
    after: Array
    exemplar: Array
    score: Array


class NoiseFloor(NamedTuple):
    """Exemplars that trainings alone make, beside those with compression; made by :func:`noise_floor`.

    Attributes:
      noise: ``[R, N]`` exemplars between two halves of the networks before.
      compressed: ``[R, N]`` exemplars between the first half before and as many networks after.
      share: of all examples, among ``noise``; the mean over splits.
      share_range: in which the share of `level` of the splits lies. What another split of the same networks would give;
        for what other trainings give, repeat them.
      compressed_share: likewise, among ``compressed``.
      compressed_range: likewise.
      excess: ``compressed_share - share``.
      excess_range: likewise, of the difference in a split.
      networks: h, in a half.
    """

    noise: np.ndarray
    compressed: np.ndarray
    share: float
    share_range: Bounds
    compressed_share: float
    compressed_range: Bounds
    excess: float
    excess_range: Bounds
    networks: int


def exemplars(before: Numbers, after: Numbers, num_classes: int) -> Exemplars:
    """The examples on which two populations of networks vote differently, and by how much.

    Args:
      before: ``[K, N]`` integers in ``[0, num_classes)``, what each network says of each example, such as
        :func:`jaxfair.train.population` gives. -1, or the largest value of an unsigned type, is no class.
      after: ``[K', N]`` of the same examples in the same order; there may be more or fewer networks.
      num_classes: C, static.

    Returns:
      :class:`Exemplars`.

    Raises:
      ValueError: for shapes that do not fit, and for what is no class.

    Example:
      Three networks and four examples. Of the second the vote moves; of the last there are ties, with class 2 in both:

      >>> before = np.array([[0, 1, 1, 0], [0, 1, 1, 2], [0, 0, 1, 1]])
      >>> after = np.array([[0, 0, 1, 2], [0, 0, 2, 2], [0, 1, 1, 1]])
      >>> found = exemplars(before, after, 3)
      >>> found.exemplar.tolist(), found.before.tolist(), found.after.tolist()
      ([False, True, False, False], [0, 1, 1, 2], [0, 0, 1, 2])
      >>> np.asarray(found.score).round(2)
      array([0.  , 0.67, 0.67, 0.67], dtype=float32)
    """
    return _voted(*_pair(before, after, num_classes), num_classes)


def noise_floor(
    before: Numbers, after: Numbers, num_classes: int, *, key: Key, splits: int = 50, level: ArrayLike = 0.95
) -> NoiseFloor:
    """How many exemplars two random halves of the networks before have, beside those that compression makes.

    Args:
      before: ``[K, N]`` classes, as of :func:`exemplars`; of four networks or more that say something.
      after: ``[K', N]`` likewise. Where K' = K, network k after is taken to have been made from network k before.
      num_classes: C.
      key: of the splits.
      splits: R, how many.
      level: of the ranges over splits.

    Returns:
      :class:`NoiseFloor`. A network that says nothing of anybody is left out, with its partner.

    Raises:
      ValueError: for fewer networks, for no split, and as :func:`exemplars`.

    Example:
      Twenty networks that guess are as different from themselves as from twenty others:

      >>> rng = np.random.default_rng(0)
      >>> before, after = rng.integers(0, 2, (2, 20, 500))
      >>> floor = noise_floor(before, after, 2, key=jax.random.key(0), splits=20)
      >>> 0.2 < floor.share < 0.4, bool(floor.excess_range.low < 0 < floor.excess_range.high), floor.networks
      (True, True, 10)
    """
    check_whole("splits", splits, 1)
    level = check_level(level)
    before, after = map(np.asarray, _pair(before, after, num_classes))
    alive = [(p >= 0).any(1) for p in (before, after)]
    if len(before) == len(after):
        alive = [alive[0] & alive[1]] * 2
    before, after = before[alive[0]], after[alive[1]]
    half = min(len(before) // 2, len(after))
    if half < 2 or not before.shape[1]:
        raise ValueError(
            f"{len(before)} networks before and {len(after)} after say something of {before.shape[1]} examples: the "
            "noise floor takes four before, two after, and an example."
        )
    noise, compressed = map(np.asarray, _halves(before, after, jax.random.split(key, splits), num_classes, half))
    share, with_it = noise.mean(1), compressed.mean(1)

    def spread(x: np.ndarray) -> Bounds:
        return Bounds(*np.quantile(x, np.array([1 - level, 1 + level]) / 2))

    return NoiseFloor(
        noise=noise, compressed=compressed, share=float(share.mean()), share_range=spread(share),
        compressed_share=float(with_it.mean()), compressed_range=spread(with_it),
        excess=float((with_it - share).mean()), excess_range=spread(with_it - share), networks=half,
    )  # fmt: skip


def _pair(before: Numbers, after: Numbers, num_classes: int) -> tuple[Array, Array]:
    """Both populations as int32, with -1 for no class; they are of the same examples, and in C classes."""
    check_whole("num_classes", num_classes, 1)
    found = [as_classes(p, name) for p, name in ((before, "before"), (after, "after"))]
    if found[0].shape[1] != found[1].shape[1] or not min(len(p) for p in found):
        raise ValueError(
            f"before of shape {found[0].shape}, after of shape {found[1].shape}: give a row per network, and the same "
            "examples in both."
        )
    for said, name in zip(found, ("before", "after"), strict=True):
        largest: Any = said.max() if said.size and not isinstance(said, Tracer) else -1
        if largest >= num_classes:
            raise ValueError(f"{name} has the class {largest}: give 0 to {num_classes - 1}, and -1 for none.")
    return found[0], found[1]


def _votes(said: Int[Array, "K N"], num_classes: int) -> Int[Array, "N C"]:
    classes = jnp.arange(num_classes, dtype=said.dtype)[None, None]
    return (said[:, :, None] == classes).sum(0, dtype=jnp.int32)


def _modes(votes: Int[Array, "N C"]) -> Bool[Array, "N C"]:
    """All classes with most votes; none where nobody votes."""
    most = votes.max(-1, keepdims=True)
    return (votes == most) & (most > 0)


@partial(jax.jit, static_argnums=2)
def _voted(before: Int[Array, "K N"], after: Int[Array, "L N"], num_classes: int) -> Exemplars:
    votes = [_votes(said, num_classes) for said in (before, after)]
    modes = [_modes(v) for v in votes]
    both, some = modes[0] & modes[1], [m.any(-1) for m in modes]
    stayed = both.any(-1)
    first = [
        jnp.where(there, jnp.argmax(jnp.where(stayed[:, None], both, m), -1), -1).astype(jnp.int32)
        for m, there in zip(modes, some, strict=True)
    ]
    known = some[0] & some[1]
    shares = [v / jnp.maximum(v.sum(-1, keepdims=True), 1) for v in map(as_float, votes)]
    score = jnp.where(known, jnp.abs(shares[0] - shares[1]).sum(-1), jnp.nan)
    return Exemplars(first[0], first[1], known & ~stayed, score)


@partial(jax.jit, static_argnums=(3, 4))
def _halves(
    before: Int[Array, "K N"], after: Int[Array, "L N"], keys: Key, num_classes: int, half: int
) -> tuple[Bool[Array, "R N"], Bool[Array, "R N"]]:
    """Exemplars between two halves before, and between the first of them and networks after; of each split."""

    def one(key: Key) -> tuple[Array, Array]:
        own, theirs = jax.random.split(key)
        order = jax.random.permutation(own, len(before))
        first, second = order[:half], order[half : 2 * half]
        compressed = second if len(after) == len(before) else jax.random.permutation(theirs, len(after))[:half]
        modes = [_modes(_votes(p, num_classes)) for p in (before[first], before[second], after[compressed])]
        known = [m.any(-1) for m in modes]
        moved = [known[0] & known[i] & ~(modes[0] & modes[i]).any(-1) for i in (1, 2)]
        return moved[0], moved[1]

    return lax.map(one, keys)
