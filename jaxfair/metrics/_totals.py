r"""Sums and means that grow batch by batch and stay precise: what streams are made of.

A million batches added up in float32 lose what is below the last digit of the sum. So a :class:`Total` carries what
rounding left out (Knuth's two-sum)::

    s = a + b,   e = (a - (s - (s - a))) + (b - (s - a))       a + b = s + e exactly

and squares are taken about a mean, never about 0, and joined by Chan, Golub and LeVeque's rule: of two sets with weight
n, mean m and sum of squares M about it, with ``d = m_b - m_a``::

    n = n_a + n_b,   m = m_a + d n_b / n,   M = M_a + M_b + d^2 n_a n_b / n

Both joins are commutative and associative up to rounding: batches may come in any order, and states of several devices
may be joined in any tree.

Source: Knuth, The Art of Computer Programming 2, section 4.2.2; Chan, Golub and LeVeque, The American Statistician 37,
1983.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxfair.metrics._grouped import group_counts, group_means, group_sums
from jaxfair.metrics._rows import Rows, as_float, as_group
from jaxfair.typing import Array


class Total(NamedTuple):
    """A sum, in two numbers.

    Attributes:
      value: ``[...]`` the sum as it is rounded.
      rest: ``[...]`` what rounding left out.
    """

    value: Array
    rest: Array


class Spread(NamedTuple):
    """Values about their mean, per group.

    Attributes:
      size: ``[G]`` sum of weights, :class:`Total`.
      mean: ``[G]`` weighted mean, 0 of nobody, :class:`Total`.
      squares: ``[G]`` weighted sum of squared distances to the mean, :class:`Total`.
    """

    size: Total
    mean: Total
    squares: Total


def nothing(*shape: int) -> Total:
    """A sum of no terms."""
    zero = jnp.zeros(shape, jnp.result_type(float))
    return Total(zero, zero)


def total(value: Array) -> Total:
    """A sum that was just taken."""
    return Total(value, jnp.zeros_like(value))


def add(a: Total, b: Total) -> Total:
    """The sum of two sums.

    Example:
      >>> a = total(jnp.float32(2**24))
      >>> for _ in range(4):
      ...     a = add(a, total(jnp.float32(1)))                  # each alone would be rounded away
      >>> read(a).item() - 2**24
      4.0
    """
    value = a.value + b.value
    part = value - a.value
    rest = (a.value - (value - part)) + (b.value - part)
    # What is infinite has no rest: inf - inf would be nan.
    rest = jnp.where(jnp.isfinite(value), rest, 0)
    return Total(value, a.rest + b.rest + rest)


def read(of: Total) -> Array:
    """The sum, rounded once."""
    return of.value + of.rest


def no_spread(num_groups: int) -> Spread:
    """Nobody in any group."""
    return Spread(nothing(num_groups), nothing(num_groups), nothing(num_groups))


def spread(values: Rows, group: Rows, num_groups: int, weight: Rows | None) -> Spread:
    """The people of one batch: first their mean, then their squares about it."""
    size = group_counts(group, num_groups, weight=weight)
    mean = group_means(values, group, num_groups, weight=weight)
    about = jnp.where(size > 0, mean, 0)
    at = as_group(group, num_groups)
    apart = as_float(values) - jnp.append(about, 0)[at]
    squares = group_sums(apart * apart, at, num_groups, weight=weight)
    # The mean was rounded: what is left of the values says by how much.
    left = jnp.where(size > 0, group_means(apart, at, num_groups, weight=weight), 0)
    return Spread(total(size.astype(mean.dtype)), Total(about, left), total(squares - size * left * left))


def join(a: Spread, b: Spread) -> Spread:
    """Two sets of people as one."""
    n_a, n_b = read(a.size), read(b.size)
    size = add(a.size, b.size)
    n = jnp.where(read(size) > 0, read(size), 1)
    d = (b.mean.value - a.mean.value) + (b.mean.rest - a.mean.rest)
    # Of a set of nobody the other is all there is, to the last digit.
    mean = add(a.mean, total(jnp.where(n_b > 0, d * (n_b / n), 0)))
    mean = Total(*(jnp.where(n_a > 0, x, y) for x, y in zip(mean, b.mean, strict=True)))
    squares = add(add(a.squares, b.squares), total(d * d * (n_a * (n_b / n))))
    return Spread(size, mean, squares)


def deviations(of: Spread) -> Float[Array, "G"]:
    """The squares about the mean, 0 where they are no more than the rounding of the mean itself.

    Of equal values, such as 0.1, the mean is a last digit away from them.
    """
    squares, size, mean = read(of.squares), read(of.size), read(of.mean)
    noise = 4 * np.finfo(squares.dtype).eps * jnp.abs(mean)
    return jnp.where(squares > size * noise * noise, squares, jnp.where(jnp.isnan(squares), squares, 0))
