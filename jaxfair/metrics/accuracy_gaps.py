r"""What compression cost each group: accuracy gaps between a dense and a sparse network.

With ``A_g`` the accuracy on group g, ``A`` the accuracy on everyone, d the dense and s the sparse
network::

    Delta_g = A_g(d) - A_g(s)      accuracy gap: positive where the group lost accuracy
    Delta   = A(d) - A(s)          overall accuracy gap
    psi_g   = Delta_g - Delta      excess accuracy gap: what the group lost beyond the average
    max_g psi_g                    the quantity that is bounded by a tolerance
    Psi_PW  = max_g psi_g - min_g psi_g                                            disparity

If the groups partition the examples with shares ``p_g``, then ``sum_g p_g psi_g = 0``. Hence the
largest excess is never negative, it is 0 only where all gaps are equal, and the disparity is at
least as large.

All values are shares of people (0.01 is one point). A group with no example is nan, and no maximum
sees it.

Source: Hashemizadeh, Ramirez, Sukumaran, Farnadi, Lacoste-Julien and Gallego-Posada, Balancing Act:
Constraining Disparate Impact in Sparse Models, ICLR 2024.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from jaxfair.metrics._grouped import group_counts, group_means, overall_mean
from jaxfair.metrics._rows import Numbers, PerGroup, Rows, alike, as_float, fit
from jaxfair.typing import Array


class AccuracyGaps(NamedTuple):
    """The gaps of one sparse network against its dense one, on one split.

    Attributes:
      gap: ``[G]`` Delta_g, nan for a group with no example.
      overall: scalar Delta, over all examples, also those of no group; or of the groups, by
        ``share``.
      excess: ``[G]`` psi_g.
      max_excess: scalar, the largest psi_g.
      disparity: scalar Psi_PW.
      largest_loss: scalar, the largest Delta_g.
      size: ``[G]`` number of examples (sum of weights).
    """

    gap: Array
    overall: Array
    excess: Array
    max_excess: Array
    disparity: Array
    largest_loss: Array
    size: Array


def accuracy_gap(dense: Numbers, sparse: Numbers) -> Float[Array, "*shape"]:
    """Delta = A(dense) - A(sparse), of any accuracies: positive where the sparse network is worse.

    Args:
      dense: accuracies of the dense network, in ``[0, 1]``.
      sparse: accuracies of the sparse one, of the same shape.

    Returns:
      Their difference.

    Example:
      >>> accuracy_gap(jnp.array([0.75, 0.5]), jnp.array([0.5, 0.5]))
      Array([0.25, 0.  ], dtype=float32)
    """
    alike(dense=dense, sparse=sparse)
    return as_float(dense) - as_float(sparse)


def excess_accuracy_gap(
    dense: PerGroup,
    sparse: PerGroup,
    *,
    dense_overall: ArrayLike,
    sparse_overall: ArrayLike,
) -> Float[Array, "G"]:
    """psi_g = (A_g(d) - A_g(s)) - (A(d) - A(s)).

    Args:
      dense: ``[G]`` accuracies of the dense network.
      sparse: ``[G]`` accuracies of the sparse network.
      dense_overall: the dense network's accuracy on everyone: weighted by people, not the mean over
        groups.
      sparse_overall: the sparse network's.

    Returns:
      ``[G]``, nan where an accuracy is nan.

    Example:
      >>> dense, sparse = jnp.array([0.75, 1.0]), jnp.array([0.5, 1.0])      # equally large groups
      >>> excess_accuracy_gap(
      ...     dense, sparse, dense_overall=dense.mean(), sparse_overall=sparse.mean())
      Array([ 0.125, -0.125], dtype=float32)
    """
    alike(dense=dense, sparse=sparse)
    if np.shape(dense_overall) != () or np.shape(sparse_overall) != ():
        shapes = f"dense_overall of shape {np.shape(dense_overall)}, sparse_overall of shape {np.shape(sparse_overall)}"
        raise ValueError(f"{shapes}: give the accuracy on everyone, one number each.")
    return accuracy_gap(dense, sparse) - accuracy_gap(dense_overall, sparse_overall)


def max_excess_accuracy_gap(excess: PerGroup) -> Float[Array, ""]:
    """max_g psi_g over the groups that are not nan; nan if all are.

    It is biased upwards: the maximum of noisy numbers exceeds the largest truth. See
    :func:`jaxfair.metrics.sign_flip_null` for how much of it is noise.

    Example:
      >>> max_excess_accuracy_gap(jnp.array([0.125, jnp.nan, -0.125]))
      Array(0.125, dtype=float32)
    """
    excess = as_float(excess)
    seen = ~jnp.isnan(excess)
    highest = jnp.where(seen, excess, -jnp.inf).max(initial=-jnp.inf)
    return jnp.where(seen.any(), highest, jnp.nan)


def violation(excess: PerGroup, tolerance: ArrayLike, sizes: PerGroup) -> Float[Array, ""]:
    """By how much the largest excess gap exceeds its bound: the tolerance, or one person where that is more.

    Args:
      excess: ``[G]`` excess gaps; nan for a group with no example.
      tolerance: a share of 1.
      sizes: ``[G]`` people of each group; where they have weights, :func:`jaxfair.metrics.effective_counts`.

    Returns:
      Scalar; at most 0 where the bound is met. The last digit of a float32 mean is no violation.

    Example:
      One of 20 people is more than the tolerance, and not held against the network:

      >>> violation(jnp.array([0.05, 0.01]), 0.02, jnp.array([20, 1000])).round(4)
      Array(-0., dtype=float32)
    """
    alike(excess=excess, sizes=sizes)
    allowed = jnp.maximum(jnp.asarray(tolerance), 1.0 / jnp.maximum(as_float(sizes), 1.0)) + 1e-6
    return max_excess_accuracy_gap(as_float(excess) - allowed)


def disparity(values: PerGroup) -> Float[Array, ""]:
    """max_g - min_g over the groups that are not nan; nan if all are.

    Of excess gaps (or of gaps: the overall term cancels) this is the pairwise disparity Psi_PW. Of
    selection rates it is the demographic parity difference.

    Example:
      >>> disparity(jnp.array([0.125, jnp.nan, -0.125]))
      Array(0.25, dtype=float32)
    """
    return max_excess_accuracy_gap(values) + max_excess_accuracy_gap(-as_float(values))


def largest_loss(gap: PerGroup) -> Float[Array, ""]:
    """max_g Delta_g: the accuracy lost by the group that lost most; negative if every group gained.

    Example:
      >>> largest_loss(jnp.array([0.25, jnp.nan, 0.0]))
      Array(0.25, dtype=float32)
    """
    return max_excess_accuracy_gap(gap)


def accuracy_gaps(
    dense_correct: Rows,
    sparse_correct: Rows,
    group: Rows,
    num_groups: int,
    *,
    weight: Rows | None = None,
    share: PerGroup | None = None,
) -> AccuracyGaps:
    """All gaps, from what the two networks got right on the same examples.

    Args:
      dense_correct: ``[N]`` booleans (or shares, of several seeds).
      sparse_correct: ``[N]``, the same people in the same order.
      group: ``[N]`` integers; an example outside ``[0, num_groups)`` counts in the overall gap
        only.
      num_groups: G, static.
      weight: ``[N]``, 0 for padding; all ones by default.
      share: ``[G]`` weights of the groups in the average (they need not sum to 1), such as their
        shares of the training split: then the same average is taken off on every split. Groups with
        no example here have no part in it. By default the average is over these people.

    Returns:
      :class:`AccuracyGaps`. Of two networks that are right on the same people every gap is exactly
      0: the difference is taken per person, before any rounding.

    Example:
      Six people; of group 0 one is lost, of group 1 nobody, and group 2 is empty:

      >>> import numpy as np
      >>> dense = jnp.array([1, 1, 1, 0, 1, 1], bool)
      >>> sparse = jnp.array([1, 0, 1, 0, 1, 1], bool)
      >>> gaps = accuracy_gaps(dense, sparse, jnp.array([0, 0, 0, 1, 1, 1]), 3)
      >>> for name in ("gap", "overall", "excess", "max_excess", "disparity"):
      ...     print(name, np.asarray(getattr(gaps, name)).round(3))
      gap [0.333 0.      nan]
      overall 0.167
      excess [ 0.167 -0.167    nan]
      max_excess 0.167
      disparity 0.333

      With group 1 three times as large where the network was trained:

      >>> accuracy_gaps(dense, sparse, jnp.array([0, 0, 0, 1, 1, 1]), 3, share=jnp.array([1, 3, 0])).overall
      Array(0.08333334, dtype=float32)
    """
    fit(dense_correct=dense_correct, sparse_correct=sparse_correct, group=group, weight=weight)
    if share is not None and np.shape(share) != (num_groups,):
        raise ValueError(f"share of shape {np.shape(share)}: give one number for each of {num_groups} groups.")
    lost = as_float(dense_correct) - as_float(sparse_correct)
    gap = group_means(lost, group, num_groups, weight=weight)
    if share is None:
        overall = overall_mean(lost, weight=weight)
    else:
        overall = overall_mean(gap, weight=jnp.where(jnp.isnan(gap), 0.0, as_float(share)))
    excess = gap - overall
    return AccuracyGaps(
        gap=gap,
        overall=overall,
        excess=excess,
        max_excess=max_excess_accuracy_gap(excess),
        disparity=disparity(excess),
        largest_loss=largest_loss(gap),
        size=group_counts(group, num_groups, weight=weight),
    )
