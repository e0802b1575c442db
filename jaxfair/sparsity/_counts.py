"""How many weights a sparsity prunes: exact integers, fixed before anything is traced.

A sparsity ``s`` of a layer of ``n`` weights prunes ``ceil(s n)`` of them, and never the last one. The
product is taken in rational arithmetic. In float32 ``ceil(0.6 * 25)`` is 16, and at 0.9 every fifth
size around four million is off by one; in float64 ``ceil(0.55 * 100)`` is 56.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from jax.core import Tracer


def exact_sparsity(sparsity: Any) -> Fraction:
    """The decimal number that was written, as a fraction.

    Args:
      sparsity: a number in ``[0, 1)``: a float, a NumPy or JAX scalar, a `Fraction` or a string. Not a traced value:
        counts are integers that the program is built around.

    Returns:
      The fraction, so that ``0.9`` means 9/10 and not the nearest binary number, and ``1 - 0.7`` means 3/10.

    Raises:
      ValueError: for anything that is not in ``[0, 1)``.

    Example:
      >>> exact_sparsity(0.9), exact_sparsity("1/3"), exact_sparsity(np.float32(0.9)), exact_sparsity(1 - 0.7)
      (Fraction(9, 10), Fraction(1, 3), Fraction(9, 10), Fraction(3, 10))
    """
    if isinstance(sparsity, Tracer):
        raise ValueError(
            "sparsity is traced, but it must be a number, since the program is built around the counts; "
            "give it as a static argument, or a list of schedules"
        )
    try:
        value = _written(sparsity)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        value = None
    if value is None or not 0 <= value < 1:
        raise ValueError(
            f"sparsity is the share of weights that are zero, a number in [0, 1), but it is "
            f"{' '.join(str(sparsity).split())}; write 0.9 to prune 90 % of them"
        )
    return value


def _written(number: Any) -> Fraction:
    """What was written, as far as its type can tell: ``1 - 0.7`` is 3/10 but for the last bits, and so is 2/3."""
    dtype = getattr(number, "dtype", np.dtype(float) if isinstance(number, float) else None)
    if dtype is None or np.ndim(number) or dtype.kind in "iub":
        return Fraction(str(number))
    value = float(number)
    if dtype.itemsize < 4:  # a bfloat16 has three digits, and 0.9 is 0.8984 in it
        decimals = (f"{value:.{n}g}" for n in range(1, 9))
        return Fraction(next((d for d in decimals if np.dtype(dtype).type(d) == number), "nan"))
    most, error = (10**5, 2.0**-50) if dtype.itemsize > 4 else (10**3, 2.0**-24)
    simple = Fraction(value).limit_denominator(most)
    return simple if abs(simple - Fraction(value)) <= error else Fraction(str(number))


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
