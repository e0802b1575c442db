"""Who shares the zeros with whom: every layer for itself, or all layers together.

A distribution turns a sparsity and the shapes of the prunable leaves into *pools* of leaves, each
with its integer number of zeros. The scores of one pool compete with each other.

>>> from fractions import Fraction
>>> uniform.zeros(Fraction(9, 10), [(4, 4), (7,)]), global_.zeros(Fraction(9, 10), [(4, 4), (7,)])
([15, 6], [21])
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from jaxfair.sparsity import counts


class Distribution(NamedTuple):
    """How the zeros spread over the layers.

    Attributes:
      pools: ``pools(num_leaves)``, lists of positions of leaves; each position is in one list.
      zeros: ``zeros(sparsity, shapes)``, the number of zeros of every pool; ``shapes`` has one
        shape per leaf.
    """

    pools: Callable[[int], list[list[int]]]
    zeros: Callable[[Fraction, Sequence[tuple[int, ...]]], list[int]]


def _each_layer_its_share(sparsity: Fraction, shapes: Sequence[tuple[int, ...]]) -> list[int]:
    return [counts.zeros(sparsity, math.prod(shape)) for shape in shapes]


def _one_share_for_all(sparsity: Fraction, shapes: Sequence[tuple[int, ...]]) -> list[int]:
    return [counts.zeros(sparsity, sum(math.prod(shape) for shape in shapes))]


#: Every layer has the same sparsity: ``ceil(s n_l)`` zeros in layer l, and at least one weight of
#: each lives.
uniform = Distribution(pools=lambda n: [[i] for i in range(n)], zeros=_each_layer_its_share)

#: The scores of all layers are compared: ``ceil(s sum_l n_l)`` zeros in all. A layer may lose all
#: of its weights.
global_ = Distribution(pools=lambda n: [list(range(n))], zeros=_one_share_for_all)
