r"""What memorising does to bias, by formula: how the gaps between two groups follow from who is memorised.

A network is always right about those it has memorised (D = 1); about the others (D = 0) it says t with probability
:math:`h_{ay}(t)`, in group a and class y. With :math:`P_{ya} = P(Y=y, A=a)`, the memorised mass
:math:`m_{ya} = P(D=1, Y=y, A=a)`, its share :math:`\mu_{ya} = m_{ya} / P_{ya}` of the cell, :math:`p = P(A=1)` and
:math:`r_t = P(\hat Y = t \mid D=0)`, the gaps "group 1 less group 0" are

.. math::
   \text{parity:}\quad & \frac{p_D\, q_t (q_t^+ - p) + (1 - p_D)\, r_t (r_t^+ - p)}{p (1 - p)},
      \qquad q_t = P(Y=t \mid D=1) \\
   \text{opportunity:}\quad & (1 - \mu_{y0}) f_{y0} - (1 - \mu_{y1}) f_{y1}, \qquad f_{ya} = 1 - h_{ay}(y) \\
   \text{odds:}\quad & (1 - \mu_{y1}) h_{1y}(t) - (1 - \mu_{y0}) h_{0y}(t), \qquad t \ne y

where a plus marks the share of group 1 in what stands before it. Parity is a covariance of prediction and group over
the variance of the group, so that the memorised and the others add up. Memorising helps or harms: it takes the labels'
own imbalance in, and the base predictions' out.

All three are linear in the masses, so the sets without bias are cut out by linear equations in a box
:math:`0 \le m_{ya} \le P_{ya}`:

=============  ====================================================================================================
opportunity    of class y at least :math:`P_{yw} (1 - f_{yg} / f_{yw})`, of the group w that is worse off than g
odds           the same, where the two groups' errors have one profile, :math:`h_{1y}(t) \propto h_{0y}(t)`; else all of
               a class who are in a group with errors. With two classes there is one way to err, and the profiles agree
parity         of a linear program, which also says how much may be memorised at most, and whether any set will do
parity, given  of base predictions of the others with :math:`c_t = r_t (r_t^+ - p)`: at least B / (1 + B), with
the others     :math:`B = \sum_t (c_t)_+ / p + (-c_t)_+ / (1 - p)`; T / (1 + T) where the others have the same groups
               as all, with T the total variation distance between the predictions of the two groups
=============  ====================================================================================================

References:
  Pepin, Igel and Selvan, `When Can Memorization Improve Fairness? <https://arxiv.org/abs/2412.09254>`_, 2024, for the
  question and the criteria; the formulas are derived here, and their wording and normalisation may differ.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfair.metrics._rows import Numbers, as_float
from jaxfair.typing import Array

#: Shares closer than this are equal.
_CLOSE = 1e-9


class MemorisedBias(NamedTuple):
    """Three gaps, each of group 1 less group 0; nan where a group, or its part in a class, has nobody.

    Attributes:
      parity: ``[C]``, of P(predicted t).
      opportunity: ``[C]``, of P(predicted y | class y).
      odds: ``[C, C]``, row y, column t: of P(predicted t | class y). Its diagonal is ``opportunity``.
    """

    parity: Array
    opportunity: Array
    odds: Array


class MemorisedMass(NamedTuple):
    """How much has to be memorised for no bias, as shares of all people.

    Attributes:
      parity_least: for parity in all classes; nan where no memorised set gives it.
      parity_most: the largest mass that gives it; likewise.
      parity_set: ``[2, C]``, a set of the least mass, by group and class; likewise.
      opportunity_least: ``[C]``, for equal opportunity in class y; nan where a group has nobody in it. At most all of
        it may be memorised, as for the odds.
      odds_least: ``[C]``, for equalised odds in class y.
      proportional: ``[C]`` bool, whether the errors of the two groups in class y have one profile.
    """

    parity_least: float
    parity_most: float
    parity_set: np.ndarray
    opportunity_least: np.ndarray
    odds_least: np.ndarray
    proportional: np.ndarray


def memorised_bias(counts: Numbers, confusion: Numbers) -> MemorisedBias:
    """The gaps of a network that is right about whom it has memorised.

    Args:
      counts: ``[2, 2, C]`` people, or their mass, by memorised (1) or not (0), group and class.
      confusion: ``[2, C, C]``: for each group and class, how often each class is predicted of those who are not
        memorised; each row sums to 1. A row of nobody may hold anything.

    Returns:
      :class:`MemorisedBias`. All of it jits, maps and differentiates.

    Raises:
      ValueError: for other shapes.

    Example:
      Nobody is memorised, and group 1 is predicted positive six times in ten, group 0 four; then half of group 0 is:

      >>> base = np.array([[[0.6, 0.4], [0.6, 0.4]], [[0.4, 0.6], [0.4, 0.6]]])
      >>> people = np.full((2, 2), 25.0)
      >>> found = memorised_bias(np.stack([people, 0 * people]), base)
      >>> print(f"{found.parity[1]:.2f}, {found.opportunity[1]:.2f}")
      0.20, 0.20
      >>> half = np.array([[0.5], [0.0]]) * people
      >>> found = memorised_bias(np.stack([people - half, half]), base)
      >>> print(f"{found.parity[1]:.2f}, {found.opportunity[1]:.2f}")
      0.15, -0.10
    """
    _check(counts, (2, 2), confusion, "counts")
    counts, confusion = as_float(counts), as_float(confusion)
    return MemorisedBias(*_gaps(jnp, counts, confusion.astype(counts.dtype)))


def zero_bias_residuals(counts: Numbers, confusion: Numbers) -> MemorisedBias:
    r"""What is left of the linear equations that a memorised set without bias fulfils.

    In masses, with :math:`b_t = (1 - p_D)\, r_t (r_t^+ - p)`: for parity :math:`(1-p)\, m_{t1} - p\, m_{t0} + b_t`; for
    the odds, and on their diagonal for opportunity,
    :math:`P_{y0} (P_{y1} - m_{y1})\, h_{1y}(t) - P_{y1} (P_{y0} - m_{y0})\, h_{0y}(t)` for each error, with
    the sum of them, negated, for t = y.

    Args:
      counts: as of :func:`memorised_bias`.
      confusion: likewise.

    Returns:
      :class:`MemorisedBias` of residuals: 0 where there is no bias, of the gaps' signs, and never nan (an empty cell
      has none to speak of).

    Example:
      A third of a class whose misses are three to two:

      >>> base = np.array([[[1.0, 0.0], [0.3, 0.7]], [[1.0, 0.0], [0.2, 0.8]]])
      >>> people = np.array([[30.0, 30.0], [10.0, 30.0]])
      >>> third = np.array([[0, 10.0], [0, 0]])
      >>> found = zero_bias_residuals(np.stack([people - third, third]), base)
      >>> print(f"{abs(found.opportunity[1]):.3f}, {found.parity[1]:.3f}")
      0.000, 0.048
    """
    _check(counts, (2, 2), confusion, "counts")
    counts, confusion = as_float(counts), as_float(confusion)
    share = counts / jnp.where(counts.sum() > 0, counts.sum(), 1)
    predicted, all_of = _predicted(jnp, share, confusion.astype(counts.dtype)), share.sum(0)
    p = all_of[1].sum()
    errors = _errors(jnp, share[0], confusion.astype(counts.dtype))
    odds = all_of[0][:, None] * errors[1] - all_of[1][:, None] * errors[0]
    odds = _with_diagonal(jnp, odds)
    return MemorisedBias(predicted[1] - p * predicted.sum(0), jnp.diagonal(odds), odds)


def memorised_mass(people: Numbers, confusion: Numbers) -> MemorisedMass:
    """How much has to be memorised, of people about whom the network is wrong as it is, until there is no bias.

    Runs on the host, in float64.

    Args:
      people: ``[2, C]`` people, or their mass, by group and class.
      confusion: ``[2, C, C]`` as of :func:`memorised_bias`: what the network says of anyone it has not memorised.

    Returns:
      :class:`MemorisedMass`.

    Raises:
      ValueError: for other shapes.

    Example:
      Errors are three to two in class 1. A third of the worse group's part of it, of three in ten people, makes up:

      >>> base = np.array([[[1.0, 0.0], [0.3, 0.7]], [[1.0, 0.0], [0.2, 0.8]]])
      >>> found = memorised_mass([[30, 30], [20, 20]], base)
      >>> found.opportunity_least.round(6).tolist(), found.proportional.tolist()
      ([0.0, 0.1], [True, True])
    """
    _check(people, (2,), confusion, "people")
    people, h = np.asarray(people, np.float64), np.asarray(confusion, np.float64)
    share = people / people.sum()
    cell = np.where(share > 0, share, np.nan)
    error = _errors(np, np.ones_like(share), h) * (share > 0)[:, :, None]
    miss = error.sum(2)
    worse = miss.argmax(0)
    each = np.arange(share.shape[1])
    most, least = miss[worse, each], miss[1 - worse, each]
    # Where nobody errs there is nothing to make up for; and an empty cell has no rate.
    part = 1 - least / np.where(most > 0, most, 1) if share.size else most
    mass = np.where(most > 0, cell[worse, each] * part, 0.0) + 0 * cell.sum(0)
    profiles = np.abs(error[1] * miss[0][:, None] - error[0] * miss[1][:, None]).max(1, initial=0) <= _CLOSE
    every = np.where(miss > 0, cell, 0.0).sum(0)
    parity = _extent(share, h)
    return MemorisedMass(*parity, mass, np.where(profiles, mass, every) + 0 * cell.sum(0), profiles)


def parity_mass(predicted: Numbers, share: Any = None) -> float:
    """The least mass to memorise for parity, given what the network says of those who are *not* memorised.

    Args:
      predicted: ``[2, C]`` people, or their mass, by group and predicted class, of those who are not memorised.
      share: p, group 1's of all people; by default that among those who are not memorised.

    Returns:
      B / (1 + B) of the head of this file, a share of all people. Whether there are enough people in the cells to
      memorise is not asked.

    Raises:
      ValueError: for other shapes.

    Example:
      Positive rates of 0.6 and 0.4 in groups of one size:

      >>> round(parity_mass([[60, 40], [40, 60]]), 6)
      0.166667
    """
    if np.ndim(predicted) != 2 or np.shape(predicted)[0] != 2:
        raise ValueError(f"predicted of shape {np.shape(predicted)}: give [2, C], two groups by predicted class.")
    joint = np.asarray(predicted, np.float64)
    joint = joint / joint.sum()
    p = joint[1].sum() if share is None else float(share)
    c = joint[1] - p * joint.sum(0)
    total = float((np.maximum(c, 0) / p + np.maximum(-c, 0) / (1 - p)).sum())
    return total / (1 + total)


def _check(people: Any, axes: tuple[int, ...], confusion: Any, name: str) -> None:
    """Refuses shapes other than ``[*axes, C]`` and ``[2, C, C]``."""
    of, shape = np.shape(people), np.shape(confusion)
    if len(of) != len(axes) + 1 or of[:-1] != axes or shape != (2, of[-1], of[-1]):
        said = ", ".join(map(str, axes))
        raise ValueError(f"{name} of shape {of}, confusion of shape {shape}: give [{said}, C] and [2, C, C].")


def _errors(xp: Any, mass: Any, h: Any) -> Any:
    """``[2, C, C]`` mass of each error, 0 on the diagonal; of an empty cell 0, whatever its confusion says."""
    off = 1 - xp.eye(h.shape[-1], dtype=h.dtype)
    return xp.where(mass[:, :, None] > 0, h, 0) * mass[:, :, None] * off[None]


def _with_diagonal(xp: Any, errors: Any) -> Any:
    """``[C, C]`` of which each row sums to 0: what is gained in errors is lost in hits."""
    return errors - xp.eye(errors.shape[0], dtype=errors.dtype) * errors.sum(1)[:, None]


def _predicted(xp: Any, share: Any, h: Any) -> Any:
    """``[2, C]`` mass by group and predicted class."""
    others = share[0]
    return share[1] + (xp.where(others[:, :, None] > 0, h, 0) * others[:, :, None]).sum(1)


def _gaps(xp: Any, counts: Any, h: Any) -> tuple[Any, Any, Any]:
    """The three formulas, in either of the two libraries; ``p q (q+ - p)`` is a mass less its expectation."""
    share = counts / xp.where(counts.sum() > 0, counts.sum(), 1)
    all_of = share.sum(0)
    p = all_of[1].sum()
    predicted = _predicted(xp, share, h)
    variance = p * (1 - p)
    both = variance > 0
    parity = xp.where(both, (predicted[1] - p * predicted.sum(0)) / xp.where(both, variance, 1), xp.nan)
    there = all_of > 0
    rates = _errors(xp, share[0], h) / xp.where(there, all_of, 1)[:, :, None]
    odds = xp.where((there[0] & there[1])[:, None], _with_diagonal(xp, rates[1] - rates[0]), xp.nan)
    return parity, xp.diagonal(odds), odds


def _extent(share: np.ndarray, h: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The least and the most mass without a parity gap, and a least set, by linear programs in the masses ``[2 C]``."""
    from scipy import optimize  # only who asks this waits for it

    nothing = np.zeros_like(share)
    start = _gaps(np, np.stack([share, nothing]), h)[0]
    if not np.isfinite(start).all() or not share.size:
        return float("nan"), float("nan"), np.full_like(share, np.nan)
    columns = []
    for cell in np.ndindex(share.shape):
        one = nothing.copy()
        one[cell] = share[cell]
        moved = _gaps(np, np.stack([share - one, one]), h)[0] - start
        columns.append(moved / share[cell] if share[cell] else 0 * start)
    # The gaps add up to 0: one equation follows from the others, and rounding must not make it another one.
    equations, rest = np.array(columns).T[:-1], -start[:-1]
    bounds = list(zip(nothing.ravel(), share.ravel(), strict=True))
    cost = np.ones(share.size)
    least, most = (optimize.linprog(sign * cost, A_eq=equations, b_eq=rest, bounds=bounds) for sign in (1, -1))
    if not (least.success and most.success):
        return float("nan"), float("nan"), np.full_like(share, np.nan)
    return float(least.fun), float(-most.fun), least.x.reshape(share.shape)
