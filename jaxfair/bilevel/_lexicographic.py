r"""Two objectives in order of priority: which of two evaluations is better, and which of many is the best.

Of evaluations with a loss :math:`f_1` and a size :math:`f_2`, and the smallest loss :math:`f_1^*` of all so far, the
*band* is

.. math:: f_1 \le b = \max\big(f_1^* (1 + \varepsilon),\; t\big)

with a tolerance :math:`\varepsilon` and, if there is one, a target :math:`t`. Within the band all losses are as good,
and the smaller size wins; outside of it the smaller loss does. A new evaluation moves :math:`f_1^*` before it is
compared.

Everything is elementwise: arrays of evaluations are compared at once. The loss of what may not be chosen, and of what
diverged, is inf.

Source: the comparison of LexiFlow (Zhang, Jia, Wang and Wu, `Targeted Hyperparameter Optimization with Lexicographic
Preferences <https://openreview.net/forum?id=0Ij9_q567Ma>`_, 2023), as its code runs it: "within" is strict when two
are compared and not strict when one is chosen; among equal sizes within the band nothing is better. Here the smaller
loss is, with ``ties=True``.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Int

from jaxfair.typing import Array


def lexicographic_band(best: ArrayLike, *, tolerance: ArrayLike = 0.15, target: ArrayLike = -np.inf) -> Array:
    """The largest loss that is as good as the best.

    Args:
      best: the smallest loss of all evaluations so far.
      tolerance: the share by which a loss may be larger.
      target: a loss that is good enough, whatever the best is.

    Returns:
      The loss. Of a negative ``best`` a share is no room: there the band is ``best`` itself, or the target.

    Example:
      >>> round(lexicographic_band(0.9).item(), 4), lexicographic_band(0.9, target=2.0).item()
      (1.035, 2.0)
    """
    best = jnp.asarray(best, jnp.result_type(float, best))
    return jnp.maximum(jnp.maximum(best * (1 + jnp.asarray(tolerance, best.dtype)), best), target).astype(best.dtype)


def lexicographic_better(
    new: tuple[ArrayLike, ArrayLike],
    incumbent: tuple[ArrayLike, ArrayLike],
    best: ArrayLike,
    *,
    tolerance: ArrayLike = 0.15,
    target: ArrayLike = -np.inf,
    ties: bool = True,
) -> Array:
    """Whether a new evaluation replaces the incumbent.

    Args:
      new: loss and size.
      incumbent: loss and size of what it would replace.
      best: the smallest loss of all evaluations before the new one.
      tolerance: the share by which a loss may be above the smallest; with 0 the loss alone counts.
      target: a loss that is good enough.
      ties: whether a smaller loss is better where both are within the band and of one size; the published rule says
        no.

    Returns:
      Bool, of the common shape of the numbers.

    Example:
      The smallest loss is 0.9, so up to 1.035 a smaller size is better, whatever its loss:

      >>> lexicographic_better((1.0, 2), (0.95, 3), 0.9).item(), lexicographic_better((2.0, 1), (0.95, 3), 0.9).item()
      (True, False)
    """
    (loss, size), (old_loss, old_size) = new, incumbent
    loss, old_loss = jnp.asarray(loss), jnp.asarray(old_loss)
    band = lexicographic_band(jnp.minimum(jnp.asarray(best), loss), tolerance=tolerance, target=target)
    smaller = jnp.asarray(size) < jnp.asarray(old_size)
    if ties:
        smaller = smaller | ((jnp.asarray(size) == jnp.asarray(old_size)) & (loss < old_loss))
    return jnp.where((loss < band) & (old_loss < band), smaller, loss < old_loss)


def lexicographic_best(
    losses: ArrayLike,
    sizes: ArrayLike,
    *,
    tolerance: ArrayLike = 0.15,
    target: ArrayLike = -np.inf,
    ties: bool = True,
) -> Int[Array, ""]:
    """Which of many evaluations is chosen: the smallest within the band of their smallest loss.

    Args:
      losses: ``[H]``, inf for what may not be chosen.
      sizes: ``[H]``.
      tolerance: the share by which a loss may be above the smallest.
      target: a loss that is good enough.
      ties: whether the smallest loss is chosen among equal sizes; the published rule chooses the last.

    Returns:
      Its place, scalar int32. Of equal ones the last; 0 where every loss is inf.

    Example:
      >>> lexicographic_best(jnp.array([0.90, 1.00, 0.95, 2.00]), jnp.array([4, 3, 3, 1])).item()
      2
    """
    losses, sizes = jnp.asarray(losses), jnp.asarray(sizes)
    band = lexicographic_band(jnp.min(losses), tolerance=tolerance, target=target)
    inside = (losses <= band) & (losses < jnp.inf)
    chosen = inside & (sizes == jnp.min(jnp.where(inside, sizes, jnp.iinfo(jnp.int32).max)))
    if ties:
        chosen &= losses == jnp.min(jnp.where(chosen, losses, jnp.inf))
    return jnp.max(jnp.where(chosen, jnp.arange(len(losses), dtype=jnp.int32), 0))
