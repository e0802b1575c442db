r"""Who is memorised: whom a network gets right only if it was trained on them.

Of K networks, each trained on a random part of the people (``train.population``), person i is in the training set of
some and not of others. What is memorised of them is

.. math::
   \mathrm{mem}_i = P(\hat Y_i = y_i \mid i \in S) - P(\hat Y_i = y_i \mid i \notin S)

with both probabilities estimated over networks. It is near 1 for a label that nobody could guess and that the network
knows, 0 for what is learnt from others or not at all. With shares x/n of right networks, the standard error of a person
is that of a difference of two proportions to each of which one success and one failure are added, so that ten right of
ten are no certainty.

Means over groups share the networks: their errors do not shrink with the number of people. They are had from leaving
out one network after another (the jackknife), and say how far other networks of the same kind would change the mean;
the people stay the same.

References:
  Feldman and Zhang, `What Neural Networks Memorize and Why <https://arxiv.org/abs/2008.03703>`_, NeurIPS 2020; Agresti
  and Caffo, Simple and effective confidence intervals for proportions and differences of proportions, The American
  Statistician 54, 2000; Efron and Stein, The jackknife estimate of variance, Annals of Statistics 9, 1981.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.metrics._grouped import group_counts, group_means
from jaxfair.metrics._rows import Numbers, Rows, as_float, same
from jaxfair.typing import Array


class Memorisation(NamedTuple):
    """What is memorised of each person.

    Attributes:
      score: ``[N]`` in [-1, 1], ``inside - outside``; nan for a person who was in the training set of all networks, or
        of none.
      error: ``[N]``, its standard error; likewise.
      inside: ``[N]``, the share of right networks among those that were trained on the person.
      outside: ``[N]``, among the others.
      trained: ``[N]``, how many networks were trained on the person.
      held_out: ``[N]``, how many were not.
    """

    score: Array
    error: Array
    inside: Array
    outside: Array
    trained: Array
    held_out: Array


class GroupMemorisation(NamedTuple):
    """What is memorised of each group.

    Attributes:
      mean: ``[G]``, over the group's people; nan for a group of nobody.
      error: ``[G]``, its standard error over networks.
      count: ``[G]``, people (or their weight) that are in the mean: those whom at least two networks were trained on,
        and two were not.
    """

    mean: Array
    error: Array
    count: Array


def memorisation(prediction: Numbers, y: Rows, included: Numbers) -> Memorisation:
    """What is memorised of each person, from networks that were trained on random parts of them.

    Args:
      prediction: ``[K, N]`` classes, such as ``train.population`` gives: what network k says of person i. What is no
        class, of a network that diverged, is wrong.
      y: ``[N]`` classes.
      included: ``[K, N]``, whether person i was in the training set of network k.

    Returns:
      :class:`Memorisation`.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      Everybody gets the first person right, the second only who was told; and of the third nobody was not:

      >>> said = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]])
      >>> told = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 1]])
      >>> found = memorisation(said, np.array([1, 1, 0]), told)
      >>> found.score.tolist(), found.trained.tolist()
      ([0.0, 1.0, nan], [2.0, 2.0, 4.0])
      >>> print(f"{found.error[1]:.2f}")
      0.31
    """
    right, told = _asked(prediction, y, included)
    (inside, trained), (outside, held_out) = (_shares(right, part) for part in (told, ~told))
    both = (trained > 0) & (held_out > 0)
    score = jnp.where(both, inside - outside, jnp.nan)
    variance = _variance(inside, trained) + _variance(outside, held_out)
    return Memorisation(score, jnp.where(both, jnp.sqrt(variance), jnp.nan), inside, outside, trained, held_out)


def group_memorisation(
    prediction: Numbers,
    y: Rows,
    included: Numbers,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
) -> GroupMemorisation:
    """The mean of :func:`memorisation` in every group.

    Args:
      prediction: as there.
      y: likewise.
      included: likewise.
      group: ``[N]`` integers in ``[0, num_groups)``; others belong to no group.
      num_groups: G, static.
      weight: ``[N]``, 0 for padding; all ones by default.

    Returns:
      :class:`GroupMemorisation`.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> told, group = rng.random((40, 6)) < 0.5, np.array([0, 0, 0, 1, 1, 1])
      >>> said = np.where(group == 0, 1, told)          # of group 1, only who is told knows
      >>> found = group_memorisation(said, np.ones(6, int), told, group, 2)
      >>> found.mean.tolist(), found.error.tolist(), found.count.tolist()
      ([0.0, 1.0], [0.0, 0.0], [3.0, 3.0])
    """
    right, told = _asked(prediction, y, included)
    weight = jnp.ones(right.shape[1]) if weight is None else as_float(weight)
    known = (told.sum(0) > 1) & ((~told).sum(0) > 1)
    weight = jnp.where(known, weight, 0)
    counts = [(as_float(right & part), as_float(part)) for part in (told, ~told)]
    sums = [(hits.sum(0), part.sum(0)) for hits, part in counts]

    def mean(scores: Any) -> Any:
        return group_means(scores, group, num_groups, weight=weight)

    def without(hit_in: Any, in_: Any, hit_out: Any, out: Any) -> Any:
        inside, outside = (
            (hits - hit) / jnp.maximum(number - one, 1)
            for (hits, number), hit, one in zip(sums, (hit_in, hit_out), (in_, out), strict=True)
        )
        return mean(inside - outside)

    networks = right.shape[0]
    nobody = jnp.zeros(right.shape[1])
    full = without(nobody, nobody, nobody, nobody)
    fewer = jax.vmap(without)(*(part for pair in counts for part in pair))
    spread = jnp.sum((fewer - fewer.mean(0, keepdims=True)) ** 2, axis=0)
    error = jnp.sqrt(spread * (networks - 1) / max(networks, 1))
    return GroupMemorisation(full, error, group_counts(group, num_groups, weight=weight))


def _asked(prediction: Any, y: Any, included: Any) -> tuple[Array, Array]:
    """``[K, N]`` bool each: whether network k is right about person i, and whether it was trained on them."""
    shapes = {"prediction": np.shape(prediction), "y": np.shape(y), "included": np.shape(included)}
    first = shapes["prediction"]
    if len(first) != 2 or shapes["included"] != first or shapes["y"] != first[1:]:
        said = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise ValueError(f"{said}: give [K, N] of K networks and N people, [N], and [K, N].")
    # On the host, 64 bits stay as they are.
    prediction, y = (a if isinstance(a, jax.Array) else np.asarray(a) for a in (prediction, y))
    return same(prediction, y[None]), jnp.asarray(included) != 0


def _shares(right: Array, part: Array) -> tuple[Array, Array]:
    """The share of right ones in a part of the networks, nan of none, and how many they are."""
    number = part.sum(0).astype(jnp.result_type(float))
    hits = (right & part).sum(0).astype(number.dtype)
    return jnp.where(number > 0, hits / jnp.maximum(number, 1), jnp.nan), number


def _variance(share: Array, number: Array) -> Array:
    added = (jnp.where(number > 0, share, 0) * number + 1) / (number + 2)
    return added * (1 - added) / (number + 2)
