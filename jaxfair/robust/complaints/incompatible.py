r"""Which criteria exclude each other, from base rates: equal precision and equal error rates.

Among people of whom a share p is positive, the false positive rate follows from precision (PPV) and the false negative
rate:

.. math:: \mathrm{FPR} = \frac{p}{1 - p} \cdot \frac{1 - \mathrm{PPV}}{\mathrm{PPV}} \cdot (1 - \mathrm{FNR})

So a classifier that is not perfect, and has the same precision and the same false negative rate in groups whose base
rates differ, has different false positive rates. This is an edge of the graph of
:func:`~jaxfair.robust.independent_sets`, between equal precision (or calibration) and equal error rates.

Sources: Chouldechova, `Fair prediction with disparate impact <https://arxiv.org/abs/1703.00056>`_, 2017; Kleinberg,
Mullainathan and Raghavan, `Inherent Trade-Offs in the Fair Determination of Risk Scores
<https://arxiv.org/abs/1609.05807>`_, 2016.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Num, Shaped

from jaxfair.optim import numbers
from jaxfair.robust.complaints.independent_sets import floats


def implied_false_positive_rate(
    base_rate: Num[ArrayLike, "*N"], precision: Num[ArrayLike, "*N"], false_negative_rate: Num[ArrayLike, "*N"]
) -> Shaped[Array, "*N"]:
    """The false positive rate that follows from the three; above 1 where there is no such classifier.

    Args:
      base_rate: p, the share of positives, in [0, 1).
      precision: the share of positives among those that are predicted to be, in (0, 1].
      false_negative_rate: the share of positives that are not predicted to be, in [0, 1].

    Raises:
      ValueError: for numbers outside of these.

    Example:
      >>> import numpy as np
      >>> p = np.array([0.5, 0.3])
      >>> implied_false_positive_rate(p, np.full(2, 0.8), np.full(2, 0.2)).round(6).tolist()
      [0.20000000298023224, 0.08571399748325348]
    """
    numbers.check("base_rate", base_rate, 0.0, 1.0)
    numbers.check("precision", precision, 0.0, 1.0, ends="(]")
    numbers.check("false_negative_rate", false_negative_rate, 0.0, 1.0, ends="[]")
    p, precise, missed = floats(base_rate), floats(precision), floats(false_negative_rate)
    return p / (1 - p) * (1 - precise) / precise * (1 - missed)


def incompatible(
    base_rates: Num[Any, " G"],
    *,
    precision: ArrayLike,
    false_negative_rate: ArrayLike,
    tolerance: ArrayLike = 0.0,
) -> Bool[Array, ""]:
    """Whether groups cannot have this precision, this false negative rate, and equal false positive rates.

    Args:
      base_rates: ``[G]``, the share of positives of each group; nan for a group without people, which is left out.
      precision: that all groups are to have, in (0, 1].
      false_negative_rate: that all groups are to have, in [0, 1].
      tolerance: how far their false positive rates may be apart, at least 0.

    Returns:
      True where they cannot: the rates that follow are further apart, or one of them is above 1.

    Raises:
      ValueError: for numbers outside of these.

    Example:
      >>> import numpy as np
      >>> rates = np.array([0.5, 0.3])
      >>> [bool(incompatible(rates, precision=p, false_negative_rate=0.2, tolerance=0.1)) for p in (0.8, 0.9, 1.0)]
      [True, False, False]
    """
    numbers.check("tolerance", tolerance, 0.0, float("inf"))
    p = floats(base_rates)
    same = jnp.ones_like(p)
    there = ~jnp.isnan(p)
    rate = implied_false_positive_rate(jnp.where(there, p, 0), same * precision, same * false_negative_rate)
    highest, lowest = (
        jnp.max(jnp.where(there, rate, -jnp.inf), initial=-jnp.inf),
        jnp.min(jnp.where(there, rate, jnp.inf), initial=jnp.inf),
    )
    return (highest > 1) | (highest - lowest > tolerance)
