r"""Who shares the zeros with whom: every layer for itself, or all layers together.

A distribution turns a sparsity and the prunable layers into *pools* of layers, each with its integer number of
zeros. The scores of one pool compete with each other.

>>> from fractions import Fraction
>>> layers = [Layer("a", (4, 4), 16), Layer("b", (7,), 7)]
>>> s = Fraction(9, 10)
>>> [d.zeros(s, s, layers) for d in (uniform, global_)]
[[15, 6], [21]]
"""

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from jaxfair.sparsity import _axes, _numbers
from jaxfair.sparsity import _counts as counts
from jaxfair.typing import Array


class Layer(NamedTuple):
    """What a distribution knows of a prunable leaf.

    Attributes:
      path: such as ``"Conv_1/kernel"``.
      shape: of its weights.
      units: how many things can be pruned: weights, or blocks or channels of them.
    """

    path: str
    shape: tuple[int, ...]
    units: int


class Distribution(NamedTuple):
    """How the zeros spread over the layers.

    Attributes:
      pools: ``pools(num_layers)``, lists of positions of layers; each position is in one list.
      zeros: ``zeros(sparsity, final, layers)``, the number of pruned units of every pool at this `sparsity` on the
        way to the `final` one.
      emptied: ``emptied(final, layers)``, paths of the layers of which the final sparsity would leave nothing, were it
        not that one unit always lives; None where that cannot be.
      scale: ``scale(scores, kept)``, scores that can be compared between layers; None leaves them as they are.
    """

    pools: Callable[[int], list[list[int]]]
    zeros: Callable[[Fraction, Fraction, Sequence[Layer]], list[int]]
    emptied: Callable[[Fraction, Sequence[Layer]], list[str]] | None = None
    scale: Callable[[Array, Array], Array] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Says in one line that there is nothing to call."""
        _axes.called(self)


def _each_for_itself(num_layers: int) -> list[list[int]]:
    return [[i] for i in range(num_layers)]


def _all_together(num_layers: int) -> list[list[int]]:
    return [list(range(num_layers))]


def _same_share(sparsity: Fraction, final: Fraction, layers: Sequence[Layer]) -> list[int]:
    return [counts.num_zeros(sparsity, layer.units) for layer in layers]


def _share_of_all(sparsity: Fraction, final: Fraction, layers: Sequence[Layer]) -> list[int]:
    return [counts.num_zeros(sparsity, sum(layer.units for layer in layers))]


def _empties(share: Any, layer: Layer) -> bool:
    return math.ceil(share * layer.units) >= layer.units


def _by_norm(scores: Array, kept: Array) -> Array:
    # Free of units: second-order scores of 1e-12 are normalised like others, and no square leaves the range.
    wide = scores.astype(np.promote_types(scores.dtype, np.float32))
    alive = jnp.abs(jnp.where(kept & jnp.isfinite(wide), wide, jnp.zeros_like(wide)))
    largest = jnp.max(alive, initial=0)
    largest = jnp.where(largest > 0, largest, 1)
    norm = jnp.sqrt(jnp.sum(jnp.square(alive / largest)))
    return wide / largest / jnp.where(norm > 0, norm, 1)


#: Every layer has the same sparsity: ``ceil(s n_l)`` zeros in layer l, and at least one weight of
#: each lives.
uniform = Distribution(
    pools=_each_for_itself,
    zeros=_same_share,
    emptied=lambda final, layers: [layer.path for layer in layers if _empties(final, layer)],
)

#: The scores of all layers are compared: ``ceil(s sum_l n_l)`` zeros in all. A layer may lose all
#: of its weights.
global_ = Distribution(pools=_all_together, zeros=_share_of_all)

#: As `global_`, with the scores of a layer divided by their L2 norm over its living weights, so that a layer of small
#: weights is not emptied first.
global_normalized = Distribution(pools=_all_together, zeros=_share_of_all, scale=_by_norm)


def erk(*, power: Any = 1, kernel: bool = True) -> Distribution:
    r"""Erdős-Rényi(-kernel): the more weights a layer has, the sparser it is.

    .. math:: 1 - s_l = \min\Big(1, \epsilon \Big(\frac{\sum_j d_{l,j}}{\prod_j d_{l,j}}\Big)^{power}\Big)

    over the dimensions :math:`d_{l,j}` of layer l, with :math:`\epsilon` such that ``ceil(s n)`` of all n units are
    pruned, exactly: layers that would have more than all of their weights are dense, the rest
    shares what is left, and what rounding leaves goes to the largest remainders.

    Args:
      power: of the ratio.
      kernel: False takes only the last two dimensions, in and out: ER.

    Returns:
      The `Distribution`.

    Raises:
      ValueError: for a power that is no finite number.

    Example:
      >>> s = Fraction(1, 2)
      >>> layers = [Layer("a", (2, 4), 8), Layer("b", (3, 6), 18), Layer("c", (2, 4, 6), 48)]
      >>> zeros = erk().zeros(s, s, layers)
      >>> zeros, sum(zeros) == 74 // 2
      ([0, 6, 31], True)

    References:
      Mocanu et al., *Scalable training of artificial neural networks with adaptive sparse connectivity*, 2018;
      Evci et al., *Rigging the lottery*, 2020. JaxPruner rounds each layer by itself, and its total drifts.
    """
    _numbers.within("power", power)
    power = int(power) if float(power).is_integer() else float(power)

    def zeros(sparsity, final, layers):
        raw = []
        for layer in layers:
            dims = layer.shape if kernel else layer.shape[-2:]
            raw.append(Fraction(sum(dims), math.prod(dims)) ** power)
        sizes = [layer.units for layer in layers]
        return _spread(sparsity, [Fraction(r) for r in raw], sizes)

    return Distribution(pools=_each_for_itself, zeros=zeros)


def _spread(sparsity: Fraction, raw: Sequence[Fraction], sizes: Sequence[int]) -> list[int]:
    """Zeros per layer such that densities are proportional to `raw`, at most 1, and the total is exact."""
    keep = sum(sizes) - counts.num_zeros(sparsity, sum(sizes))
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(sizes)) if i not in dense]
        left = keep - sum(sizes[i] for i in dense)
        weight = sum(raw[i] * sizes[i] for i in rest)
        epsilon = left / weight if rest else Fraction(0)
        full = [i for i in rest if epsilon * raw[i] > 1]
        if not full:
            break
        dense.update(full)
    # At least one of every layer lives, where so many do.
    exact = [Fraction(n) if i in dense else epsilon * raw[i] * n for i, n in enumerate(sizes)]
    kept = [max(math.floor(share), 1) if keep >= len(sizes) else math.floor(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda i: (kept[i] - exact[i], i))  # most below its share first
    while sum(kept) != keep:
        if sum(kept) < keep:
            i = next(i for i in order if kept[i] < sizes[i])
            kept[i] += 1
        else:
            i = max((i for i in order if kept[i] > 1), key=lambda i: kept[i] - exact[i])
            kept[i] -= 1
        order = sorted(order, key=lambda i: (kept[i] - exact[i], i))
    return [n - k for n, k in zip(sizes, kept, strict=True)]


def per_path(sparsities: Mapping[str, Any], *, default: Any = 0.0) -> Distribution:
    """Every layer its own final sparsity, by name.

    A layer with the final sparsity ``f`` has ``f s(t) / s_final`` while a schedule rises to ``s_final``: the schedule
    says when, the map how much.

    Args:
      sparsities: path or pattern (``"Block_2_*/kernel"``, as of `fnmatch`) to final sparsity in ``[0, 1)``; the first
        that matches counts.
      default: final sparsity of layers that no pattern matches.

    Returns:
      The `Distribution`.

    Raises:
      ValueError: for a sparsity outside ``[0, 1)``; when it is used, for a pattern that matches no prunable layer.

    Example:
      >>> half = Fraction(1, 2)
      >>> layers = [Layer("Conv_1/kernel", (10, 10), 100), Layer("Conv_2/kernel", (10, 10), 100)]
      >>> per_path({"Conv_2/*": 0.9}, default=0.2).zeros(half, 2 * half - Fraction(1, 10), layers)
      [12, 50]
    """
    finals = {pattern: counts.exact_sparsity(value) for pattern, value in sparsities.items()}
    rest = counts.exact_sparsity(default)

    def shares(layers):
        unused = [p for p in finals if not any(fnmatch.fnmatchcase(x.path, p) for x in layers)]
        if unused:
            raise ValueError(
                f"per_path: no prunable layer matches {unused}; there are {[layer.path for layer in layers]}"
            )
        matching = ((f for p, f in finals.items() if fnmatch.fnmatchcase(x.path, p)) for x in layers)
        return [next(found, rest) for found in matching]

    def zeros(sparsity, final, layers):
        so_far = sparsity / final if final else Fraction(0)
        pairs = zip(shares(layers), layers, strict=True)
        return [counts.num_zeros(share * so_far, layer.units) for share, layer in pairs]

    def emptied(final, layers):
        pairs = zip(shares(layers), layers, strict=True)
        return [layer.path for share, layer in pairs if _empties(share, layer)]

    return Distribution(pools=_each_for_itself, zeros=zeros, emptied=emptied)
