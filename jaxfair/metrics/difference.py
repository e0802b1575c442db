r"""How far apart groups are, in both conventions of the field: differences and ratios of any numbers per group.

With a number ``m_g`` per group, ``m`` that of everybody and ``m_r`` that of a group r of reference:

==================  ==================================  ========================================
method              difference                          ratio
==================  ==================================  ========================================
between_groups      ``max_g m_g - min_g m_g``           ``min_g m_g / max_g m_g``
to_overall          ``max_g |m_g - m|``                 ``min_g min(m_g / m, m / m_g)``
to_reference        ``m_g - m_r``, signed, per group    ``m_g / m_r``, per group
==================  ==================================  ========================================

The first two are fairlearn's: unsigned, symmetric in the groups, one number. The third is AIF360's with r the
privileged group: its difference is below 0, and its ratio (disparate impact) below 1, where the other group has less.
AIF360 pools everybody who is not privileged into one group: pass ``group != r`` as groups 0 and 1.

Numbers come as ``[G]``, as ``[G, C]`` (each class is compared by itself; the largest over classes is the extension to
several of them), or as a NamedTuple or dict of these, which comes back with its fields. A group that is nan is unknown
and left out. fairlearn's rates are 0 where nobody is in their condition; :func:`jax.numpy.nan_to_num` of a rate gives
its numbers.

Sources: `fairlearn <https://fairlearn.org>`_, ``MetricFrame``; `AIF360 <https://github.com/Trusted-AI/AIF360>`_,
``sklearn.metrics``; Hardt, Price and Srebro, Equality of Opportunity in Supervised Learning, NeurIPS 2016.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from jaxfair.metrics._rows import Numbers, as_float
from jaxfair.typing import Array, whole

#: What groups are compared with.
METHODS = ("between_groups", "to_overall", "to_reference")


def difference(
    values: Any, *, method: str = "between_groups", overall: Any = None, reference: ArrayLike | None = None
) -> Any:
    """The difference between groups.

    Args:
      values: ``[G, ...]`` numbers, or a NamedTuple or dict of such: rates, accuracies, mean errors, AUCs.
      method: ``"between_groups"``, ``"to_overall"`` or ``"to_reference"``, as in the table above.
      overall: for ``"to_overall"``: the same of everybody, ``[...]``, in the same NamedTuple or dict.
      reference: for ``"to_reference"``: r, a number from 0 to G - 1; it may be traced.

    Returns:
      ``[...]``, at least 0; for ``"to_reference"`` ``[G, ...]``, signed. Nan where no group is known.

    Raises:
      ValueError: for another method, for one without what it compares with, and for shapes that do not fit.

    Example:
      Demographic parity, equal opportunity and the rest at once:

      >>> from jaxfair.metrics import group_rates
      >>> y, group = jnp.array([1, 1, 0, 0, 1, 1, 0, 0]), jnp.array([0, 0, 0, 0, 1, 1, 1, 1])
      >>> rates = group_rates(jnp.array([1, 1, 1, 0, 1, 0, 0, 0]), y, group, 2)
      >>> found = difference(rates)
      >>> print(found.selection, found.true_positive, found.false_positive)
      0.5 0.5 0.5
      >>> difference(rates, method="to_reference", reference=0).selection.tolist()
      [0.0, -0.5]
    """
    return _compared(_differ, values, method, overall, reference)


def ratio(
    values: Any, *, method: str = "between_groups", overall: Any = None, reference: ArrayLike | None = None
) -> Any:
    """The ratio between groups: 1 where they are equal. Arguments as those of :func:`difference`.

    Returns:
      ``[...]`` in ``[0, 1]`` (of numbers that are not negative), nan where all are 0; for ``"to_reference"``
      ``[G, ...]``, inf where the reference alone is 0.

    Raises:
      ValueError: as :func:`difference`.

    Example:
      >>> selection = jnp.array([0.75, 0.25, jnp.nan])
      >>> print(ratio(selection), ratio(selection, method="to_overall", overall=0.5))
      0.33333334 0.5
      >>> ratio(selection, method="to_reference", reference=1)
      Array([ 3.,  1., nan], dtype=float32)
    """
    return _compared(_divide, values, method, overall, reference)


def equalized_odds_difference(
    rates: Any,
    *,
    method: str = "between_groups",
    combine: str = "worst_case",
    overall: Any = None,
    reference: ArrayLike | None = None,
) -> Float[Array, "*shape"]:
    """The difference of the true-positive and of the false-positive rate in one number.

    Args:
      rates: of :func:`group_rates` or :func:`confusion_rates`; or anything with fields ``true_positive`` and
        ``false_positive`` of ``[G, ...]``.
      method: as in :func:`difference`.
      combine: ``"worst_case"``, the larger in size; ``"mean"`` of both, which with signs may cancel; or
        ``"mean_absolute"`` of their sizes. With ``method="to_reference"`` the latter two are AIF360's average odds
        difference and average odds error.
      overall: as in :func:`difference`.
      reference: as in :func:`difference`.

    Returns:
      ``[...]``; ``[G, ...]`` with ``method="to_reference"``. Nan where either rate is.

    Raises:
      ValueError: as :func:`difference`, and for another ``combine``.

    Example:
      Group 1 has both rates higher than group 0. Group 2 has one higher and one lower, which a mean with signs hides:

      >>> from jaxfair.metrics import Rates
      >>> rates = Rates(jnp.array([0.5, 0.75, 0.75]), jnp.array([0.25, 0.5, 0.0]), jnp.array([0.5, 0.6, 0.5]))
      >>> for combine in ("mean", "mean_absolute"):
      ...     print(equalized_odds_difference(rates, method="to_reference", reference=0, combine=combine))
      [0.   0.25 0.  ]
      [0.   0.25 0.25]
    """
    _one_of("combine", combine, ("worst_case", "mean", "mean_absolute"))
    a, b = _odds(_differ, rates, method, overall, reference)
    if combine == "mean":
        return (a + b) / 2
    a, b = jnp.abs(a), jnp.abs(b)
    return jnp.maximum(a, b) if combine == "worst_case" else (a + b) / 2


def equalized_odds_ratio(
    rates: Any,
    *,
    method: str = "between_groups",
    combine: str = "worst_case",
    overall: Any = None,
    reference: ArrayLike | None = None,
) -> Float[Array, "*shape"]:
    """The ratio of the true-positive and of the false-positive rate in one number; as the difference.

    Args:
      rates: as in :func:`equalized_odds_difference`.
      method: as there.
      combine: ``"worst_case"``, the smaller one, or their ``"mean"``.
      overall: as there.
      reference: as there.

    Returns:
      As there.

    Raises:
      ValueError: as there.

    Example:
      >>> from jaxfair.metrics import Rates
      >>> rates = Rates(jnp.array([0.8, 0.4]), jnp.array([0.2, 0.25]), jnp.array([0.5, 0.5]))
      >>> print(equalized_odds_ratio(rates), equalized_odds_ratio(rates, combine="mean"))
      0.5 0.65
    """
    _one_of("combine", combine, ("worst_case", "mean"))
    a, b = _odds(_divide, rates, method, overall, reference)
    return jnp.minimum(a, b) if combine == "worst_case" else (a + b) / 2


def _odds(compare, rates, method, overall, reference):
    """The comparisons of the two rates."""
    both = {name: getattr(rates, name) for name in ("true_positive", "false_positive")}
    of_all = None if overall is None else {name: getattr(overall, name) for name in both}
    return _compared(compare, both, method, of_all, reference).values()


def _one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: give one of {', '.join(allowed)}.")


def _leaf(x: Any) -> bool:
    """A list of numbers is an array; what has names is a tree."""
    return not isinstance(x, dict) and not hasattr(x, "_fields")


def _compared(compare, values, method, overall, reference):
    """The comparison of every field with its own counterpart."""
    _one_of("method", method, METHODS)
    if method == "to_overall" and overall is None:
        raise ValueError("method='to_overall' without overall: give the same numbers of everybody, overall=...")
    if method == "to_reference" and reference is None:
        raise ValueError("method='to_reference' without reference: give the number of a group, reference=...")
    at = (method, reference)
    if method != "to_overall":
        return jax.tree.map(lambda x: compare(_groups(x, reference), None, *at), values, is_leaf=_leaf)
    return jax.tree.map(lambda x, y: compare(*_with(x, y), *at), values, overall, is_leaf=_leaf)


def _groups(values: Numbers, reference: ArrayLike | None) -> Array:
    shape = np.shape(values)
    if not shape:
        raise ValueError(f"one number, {values}: give one per group, [G, ...].")
    number = whole(reference)
    if number is not None and not 0 <= number < shape[0]:
        raise ValueError(f"reference={reference}: give a group from 0 to {shape[0] - 1}.")
    return as_float(values)


def _with(values: Numbers, overall: Numbers) -> tuple[Array, Array]:
    values = _groups(values, None)
    if np.shape(overall) != values.shape[1:]:
        raise ValueError(
            f"values of shape {values.shape}, overall of shape {np.shape(overall)}: "
            "give one number per group, and that of everybody."
        )
    return values, as_float(overall).astype(values.dtype)


def _largest(values: Float[Array, "G *shape"]) -> Float[Array, "*shape"]:
    """The largest over groups that are known; nan if none is."""
    known = ~jnp.isnan(values)
    return jnp.where(known.any(0), jnp.where(known, values, -jnp.inf).max(0, initial=-jnp.inf), jnp.nan)


def _differ(values, overall, method, reference):
    if method == "to_reference":
        return values - _row(values, reference)
    if method == "to_overall":
        return _largest(jnp.abs(values - jnp.broadcast_to(overall, values.shape)))
    return _largest(values) + _largest(-values)


def _divide(values, overall, method, reference):
    if method == "to_reference":
        return values / _row(values, reference)
    if method == "to_overall":
        times = values / jnp.broadcast_to(overall, values.shape)
        return -_largest(-jnp.where(times > 1, 1 / times, times))
    return -_largest(-values) / _largest(values)


def _row(values, reference):
    """The numbers of the group of reference, beside those of every group."""
    return jnp.broadcast_to(jnp.take(values, jnp.asarray(reference), axis=0), values.shape)
