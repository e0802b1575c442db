"""How many weights a sparsity prunes: exact integers, fixed before anything is traced.

A sparsity ``s`` of a layer of ``n`` weights prunes ``ceil(s n)`` of them, and never the last one. The
product is taken in rational arithmetic. In float32 ``ceil(0.6 * 25)`` is 16, and at 0.9 every fifth
size around four million is off by one; in float64 ``ceil(0.55 * 100)`` is 56.
"""

import math
from fractions import Fraction
from typing import Any


def exact_sparsity(sparsity: Any) -> Fraction:
    """The decimal number that was written, as a fraction.

    Args:
      sparsity: a number in ``[0, 1)``: a float, a NumPy scalar, a `Fraction` or a string. Not a
        traced value: counts are integers that the program is built around.

    Returns:
      The fraction, so that ``0.9`` means 9/10 and not the nearest binary number.

    Raises:
      ValueError: for anything that is not in ``[0, 1)``.

    Example:
      >>> exact_sparsity(0.9), exact_sparsity("1/3")
      (Fraction(9, 10), Fraction(1, 3))
    """
    try:
        value = Fraction(str(sparsity))
    except (ValueError, ZeroDivisionError):
        value = None
    if value is None or not 0 <= value < 1:
        raise ValueError(
            f"sparsity is the share of weights that are zero, a number in [0, 1), but it is {sparsity}; "
            f"write 0.9 to prune 90 % of them"
        )
    return value


def num_zeros(sparsity: Any, size: int) -> int:
    """The number of weights to prune, ``min(ceil(sparsity * size), size - 1)``.

    Args:
      sparsity: a number in ``[0, 1)``.
      size: the number of weights.

    Returns:
      A Python integer; at least one weight lives.

    Example:
      >>> num_zeros(0.55, 100), num_zeros(0.9, 7), num_zeros(0.99, 1)
      (55, 6, 0)
    """
    return max(min(math.ceil(exact_sparsity(sparsity) * size), size - 1), 0)
