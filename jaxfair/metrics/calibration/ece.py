r"""The expected calibration error of every group, plain and debiased.

With the people of a group in bins b of n_b, of mean confidence conf_b and accuracy acc_b::

    ECE_p = ( sum_b n_b/n |conf_b - acc_b|^p )^(1/p)

It is biased. A bin of few people has an accuracy that is off by chance, and what is off has no sign under the bars: the
ECE of a perfectly calibrated model is above 0, and the more the smaller the group (about ``sqrt(B a (1 - a) / n)`` for
p = 2 and a share a who are right). Groups of different sizes must not be compared by it. The debiased estimators take
off what chance adds, for p = 2::

    D = sum_b n_b/n ( (conf_b - acc_b)^2 - acc_b (1 - acc_b) / (n_b - 1) ),    ECE = sqrt(max(D, 0))

and for p = 1 ::

    ECE = 2 sum_b n_b/n |conf_b - acc_b| - sum_b n_b/n E|conf_b - A_b|,    A_b ~ Normal(acc_b, acc_b (1 - acc_b) / n_b)

A bin of one person says nothing about its own noise, and adds 0. D itself, :func:`ece_squared`, may be negative, and is
0 in the mean for a calibrated model, of whatever size its group is: means, and comparisons of groups, are best taken of
it. Its root is above 0 again, as a root that cannot be negative must be.

Sources: Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015;
Bröcker, Estimating reliability and resolution of probability forecasts, Climate Dynamics 39, 2012; Ferro and Fricker, A
bias-corrected decomposition of the Brier score, QJRMS 138, 2012; Kumar, Liang and Ma, Verified uncertainty calibration,
NeurIPS 2019. Kumar et al. take the mean of 1,000 draws of A_b; here it is that of a folded normal, in closed form: no
key is needed, and the same people always get the same number. For both p what is below 0 is 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike, Float

from jaxfair.metrics._rows import Rows, check_whole
from jaxfair.metrics.calibration._bins import Cells, check_binning, checked
from jaxfair.metrics.calibration.reliability import curve
from jaxfair.typing import Array


def ece(
    confidence: Rows,
    correct: Rows,
    group: Rows | None = None,
    num_groups: int = 1,
    *,
    weight: Rows | None = None,
    bins: int = 15,
    binning: str = "mass",
    p: ArrayLike = 2.0,
) -> Float[Array, "G"]:
    """The plain calibration error of every group; too large by chance, and most for small groups.

    Args:
      confidence: ``[N]`` in ``[0, 1]``; nan makes its group nan. Of logits: :func:`jaxfair.metrics.top_label`.
      correct: ``[N]`` booleans, or 0 and 1.
      group: ``[N]`` integers; those outside ``[0, num_groups)`` are left out. Without it all people are one group.
      num_groups: G, static.
      weight: ``[N]``, 0 for padding and 1 for people; all ones by default.
      bins: B, static.
      binning: "mass", bins of as many people each, group by group; or "width", bins that are equally wide.
      p: of the norm, from 1. The mean gap is p = 1; large gaps count more with p = 2.

    Returns:
      ``[G]`` in ``[0, 1]``, nan for an empty group.

    Raises:
      ValueError: for shapes that do not fit, for confidences, outcomes and weights that are none, and for p below 1.

    Example:
      Ten people are told 0.8, and eight of them rightly; ten of another group are told 0.8, and five rightly:

      >>> confidence, correct = [0.8] * 20, [1] * 8 + [0] * 2 + [1] * 5 + [0] * 5
      >>> ece(confidence, correct, [0] * 10 + [1] * 10, 2).round(3)
      Array([0. , 0.3], dtype=float32)
    """
    check_norm(p)
    found = _curve(confidence, correct, group, num_groups, weight, bins, binning)
    return _plain(found, jnp.asarray(p, found.size.dtype))


def ece_squared(
    confidence: Rows,
    correct: Rows,
    group: Rows | None = None,
    num_groups: int = 1,
    *,
    weight: Rows | None = None,
    bins: int = 15,
    binning: str = "mass",
) -> Float[Array, "G"]:
    """The square of the calibration error with what chance adds taken off: D of the file's docstring.

    Args:
      confidence: as in :func:`ece`.
      correct: as there.
      group: as there.
      num_groups: G, static.
      weight: as there.
      bins: B, static.
      binning: as there.

    Returns:
      ``[G]``, negative where the bins are off by less than chance would have it; nan for an empty group.

    Raises:
      ValueError: as :func:`ece`.

    Example:
      Eight of ten told 0.8 are right, which is less off than chance: 0 - 0.8 * 0.2 / 9.

      >>> ece_squared([0.8] * 10, [1] * 8 + [0] * 2).round(4)
      Array([-0.0178], dtype=float32)
    """
    return squared(_curve(confidence, correct, group, num_groups, weight, bins, binning))


def ece_debiased(
    confidence: Rows,
    correct: Rows,
    group: Rows | None = None,
    num_groups: int = 1,
    *,
    weight: Rows | None = None,
    bins: int = 15,
    binning: str = "mass",
    p: int = 2,
) -> Float[Array, "G"]:
    """The calibration error of every group with what chance adds taken off.

    Args:
      confidence: as in :func:`ece`.
      correct: as there.
      group: as there.
      num_groups: G, static.
      weight: as there.
      bins: B, static.
      binning: as there.
      p: 1 or 2, static.

    Returns:
      ``[G]``, nan for an empty group; 0 where the bins are off by no more than chance would have it.

    Raises:
      ValueError: as :func:`ece`, and for another p.

    Example:
      Of ten people told 0.8, five are right; some of that gap of 0.3 is chance:

      >>> for p in (1, 2):
      ...     print(f"{ece_debiased([0.8] * 10, [1, 0] * 5, p=p).item():.3f}")
      0.296
      0.249
    """
    if p not in (1, 2):
        raise ValueError(f"p={p}: the debiased error is known for p = 1 and p = 2; ece takes others")
    found = _curve(confidence, correct, group, num_groups, weight, bins, binning)
    return jnp.sqrt(jnp.maximum(squared(found), 0)) if p == 2 else _less_noise(found)


def check_norm(p: ArrayLike) -> None:
    """Refuses a p below 1, where it can be looked at.

    Example:
      >>> check_norm(0.5)
      Traceback (most recent call last):
      ...
      ValueError: p must be at least 1, but it is 0.5
    """
    if not isinstance(p, Tracer) and not np.asarray(p) >= 1:
        raise ValueError(f"p must be at least 1, but it is {p}")


def _curve(confidence, correct, group, num_groups, weight, bins, binning) -> Cells:
    check_whole("bins", bins, 1)
    check_binning(binning)
    people = checked(confidence, correct, group, num_groups, weight)
    return curve(*people, num_groups=num_groups, bins=bins, binning=binning)


def over_bins(value: Float[Array, "G K"], size: Float[Array, "G K"]) -> Float[Array, "G"]:
    """The mean over people of what holds of their bin; nan for nobody."""
    total = size.sum(1)
    sums = (jnp.where(size > 0, value, 0) * size).sum(1)
    return jnp.where(total > 0, sums / jnp.maximum(total, 1), jnp.nan)


@jax.jit
def _plain(found: Cells, p: Float[Array, ""]) -> Float[Array, "G"]:
    gap = jnp.abs(found.confidence - found.accuracy)
    return over_bins(gap**p, found.size) ** (1 / p)


@jax.jit
def squared(found: Cells) -> Float[Array, "G"]:
    """D of reliability curves ``[G, K]``."""
    size, confidence, accuracy = found
    terms = (confidence - accuracy) ** 2 - accuracy * (1 - accuracy) / jnp.maximum(size - 1, 1)
    return over_bins(_of_two(terms, found), size)


@jax.jit
def _less_noise(found: Cells) -> Float[Array, "G"]:
    """For p = 1; ``E|gap + sd Z|`` is the mean of a folded normal."""
    size, confidence, accuracy = found
    gap = jnp.abs(confidence - accuracy)
    sd = jnp.sqrt(accuracy * (1 - accuracy) / jnp.maximum(size, 1))
    z = gap / jnp.where(sd > 0, sd, 1)
    folded = sd * (2 / jnp.pi) ** 0.5 * jnp.exp(-(z**2) / 2) + gap * jax.lax.erf(z / 2**0.5)
    terms = 2 * gap - jnp.where(sd > 0, folded, gap)
    return jnp.maximum(over_bins(_of_two(terms, found), size), 0)


def _of_two(terms: Float[Array, "G K"], found: Cells) -> Float[Array, "G K"]:
    """A bin of one person adds 0, unless it is nan."""
    return jnp.where((found.size == 1) & jnp.isfinite(found.confidence), 0, terms)
