r"""Performance per resource unit (PePR): what a model's accuracy is worth, given what the others of its cohort cost.

Of models with performance P in [0, 1] and cost c (joules, FLOPs, bytes, seconds, ...), compared on the same data:

.. math::
   \mathrm{PePR}_i = \frac{P_i}{1 + \alpha R_i}, \qquad R_i = \frac{c_i - \min c}{\max c - \min c}

With :math:`\alpha = 1` it is P for the cheapest model and P / 2 for the dearest. A smaller alpha favours performance.
In a cohort whose costs are equal, or of one model, R is not defined by this; it is 0 here.

The score of a model depends on its cohort, and so does the order. With :math:`r = \max c - \min c`,

.. math::
   \mathrm{PePR}_i = \frac{r}{\alpha} \cdot \frac{P_i}{c_i + b}, \qquad b = \frac{r}{\alpha} - \min c

so the order is that of :math:`P_i / (c_i + b)`: the cohort has its say through this one number. Hence

- leaving out a model that is neither the cheapest nor the dearest changes no other score;
- one model that is dear enough makes b so large that the order of the others is that of their performance;
- of two models of which the dearer is the better, but not :math:`1 + \alpha` times as good, some cohort puts either
  first: theirs alone the cheaper one, and a cohort with a dear enough third the better one.

References:
  Selvan, Pepin, Igel, Samuel and Dam, `Equity through Access: A Case for Small-scale Deep Learning
  <https://arxiv.org/abs/2403.12562>`_, NLDL 2025, for the score; the rest is derived here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike, Float

from jaxfair.metrics._rows import Numbers, alike, as_float
from jaxfair.typing import Array


class PeprCohort(NamedTuple):
    """The scores of a cohort, and what they would be without one of its models.

    Attributes:
      score: ``[M]``.
      rank: ``[M]``, 1 for the highest score; equal ones share the better rank; nan without a score.
      without_cheapest: ``[M]`` scores where the cheapest model (the first of equals) is left out; nan of that one.
      without_dearest: ``[M]``, likewise. Leaving out any other model changes no score.
      overturned: ``[2]``, the share of the other pairs that change their order, without the cheapest and without the
        dearest; nan where there is no pair.
    """

    score: Array
    rank: Array
    without_cheapest: Array
    without_dearest: Array
    overturned: Array


def pepr(performance: Numbers, cost: Numbers, *, alpha: ArrayLike = 1.0) -> Float[Array, "M"]:
    """The performance per resource unit of every model of a cohort.

    Args:
      performance: ``[M]`` in [0, 1], such as accuracy.
      cost: ``[M]``, in any unit: only where a model stands between the cheapest and the dearest counts. A model whose
        cost is not finite is not of the cohort, and has no score.
      alpha: how much cost counts, from 0 (nothing).

    Returns:
      ``[M]`` scores; nan for a model that is not of the cohort.

    Raises:
      ValueError: for shapes that differ, a negative performance (which a higher cost would improve) or alpha.

    Example:
      The cheapest keeps its accuracy, the dearest half of it:

      >>> [f"{score:.3f}" for score in pepr([0.80, 0.84, 0.90], [10.0, 20.0, 50.0])]
      ['0.800', '0.672', '0.450']
      >>> [f"{score:.3f}" for score in pepr([0.80, 0.84, 0.90], [10.0, 20.0, 1000.0])]
      ['0.800', '0.832', '0.450']
    """
    performance, cost = _models(performance, cost, alpha)
    known = jnp.isfinite(cost)
    return _scores(performance, cost, known, alpha)


def pepr_cohort(performance: Numbers, cost: Numbers, *, alpha: ArrayLike = 1.0) -> PeprCohort:
    """Scores and ranks of a cohort, and how they would change without any one of its models.

    Args:
      performance: as of :func:`pepr`.
      cost: likewise.
      alpha: likewise.

    Returns:
      :class:`PeprCohort`.

    Raises:
      ValueError: as :func:`pepr`.

    Example:
      Without the dearest model, the second is no longer cheap, and the first is ahead of it:

      >>> found = pepr_cohort([0.80, 0.84, 0.90], [10.0, 20.0, 1000.0])
      >>> found.rank.tolist(), found.overturned.tolist()
      ([2.0, 1.0, 3.0], [0.0, 1.0])
      >>> [f"{score:.2f}" for score in found.without_dearest]
      ['0.80', '0.42', 'nan']
    """
    performance, cost = _models(performance, cost, alpha)
    known = jnp.isfinite(cost)
    score = _scores(performance, cost, known, alpha)
    each = jnp.arange(cost.shape[0])

    def without(one: Array) -> Array:
        return _scores(performance, cost, known & (each != one), alpha)

    if cost.shape[0] == 0:
        nothing = jnp.full((2,), jnp.nan, score.dtype)
        return PeprCohort(score, score, score, score, nothing)
    fewer = [without(jnp.argmin(jnp.where(known, sign * cost, jnp.inf))) for sign in (1, -1)]
    better = (score[None, :] > score[:, None]).sum(1).astype(score.dtype)
    return PeprCohort(
        score=score,
        rank=jnp.where(jnp.isnan(score), jnp.nan, 1 + better),
        without_cheapest=fewer[0],
        without_dearest=fewer[1],
        overturned=jnp.stack([pairs_overturned(score, one) for one in fewer]),
    )


def pairs_overturned(a: Numbers, b: Numbers) -> Float[Array, ""]:
    """The share of pairs of models that two scores put in opposite orders: 0 if they agree, 1 for the reverse.

    Of scores without ties it is (1 - tau) / 2, with Kendall's tau.

    Args:
      a: ``[M]`` scores; a model with a nan in either is left out.
      b: ``[M]``, of the same models.

    Returns:
      A scalar: over all pairs, those that a score calls equal included; nan where there is no pair.

    Raises:
      ValueError: for shapes that differ.

    Example:
      >>> pairs_overturned([0.9, 0.8, 0.7], [0.9, 0.6, 0.7]).round(3)
      Array(0.333, dtype=float32)

    References:
      Kendall, A new measure of rank correlation, Biometrika 30, 1938.
    """
    _row(a=a, b=b)
    a, b = as_float(a), as_float(b)
    known = ~(jnp.isnan(a) | jnp.isnan(b))
    order = [jnp.sign(x[:, None] - x[None, :]) for x in (jnp.where(known, a, 0), jnp.where(known, b, 0))]
    both = known[:, None] & known[None, :]
    opposite = jnp.where(both, order[0] * order[1] < 0, False).sum().astype(a.dtype)  # each pair twice
    models = known.sum().astype(a.dtype)
    pairs = models * (models - 1)
    return jnp.where(pairs > 0, opposite / jnp.maximum(pairs, 1), jnp.nan)


def _row(**arrays: Numbers) -> None:
    alike(**arrays)
    name, shape = next((name, np.shape(array)) for name, array in arrays.items())
    if len(shape) != 1:
        raise ValueError(f"{name} of shape {shape}: give [M], one number for each model.")


def _models(performance: Numbers, cost: Numbers, alpha: ArrayLike) -> tuple[Array, Array]:
    _row(performance=performance, cost=cost)
    performance, cost = as_float(performance), as_float(cost)
    for name, values in {"performance": performance, "alpha": alpha}.items():
        if not isinstance(values, Tracer) and np.any(np.asarray(values, np.float64) < 0):
            least = np.nanmin(np.asarray(values, np.float64))
            raise ValueError(f"{name} of {least:g}: give numbers of at least 0.")
    return performance, cost


def _scores(performance: Array, cost: Array, known: Array, alpha: ArrayLike) -> Array:
    low = jnp.min(jnp.where(known, cost, jnp.inf), initial=jnp.inf)
    spread = jnp.max(jnp.where(known, cost, -jnp.inf), initial=-jnp.inf) - low
    apart = known & (spread > 0)
    relative = jnp.where(apart, jnp.where(apart, cost - low, 0) / jnp.where(spread > 0, spread, 1), 0)
    weight = jax.lax.convert_element_type(jnp.asarray(alpha), cost.dtype)
    return jnp.where(known, performance.astype(cost.dtype) / (1 + weight * relative), jnp.nan)
