r"""What is pruned as a whole: single weights, blocks and channels of them, or n of every m.

A structure pools the scores of the weights to scores of *units*, and spreads the mask of the units back. Two kinds
do not pool but re-rank: `n_by_m` protects the n best of every m, and `balanced` compares only within an output.

>>> n_by_m(2, 4).pool(jnp.array([1.0, 4.0, 2.0, 3.0])).tolist()
[1.0, inf, 2.0, inf]
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from jaxfair.sparsity import _axes, _numbers
from jaxfair.typing import Array


class Structure(NamedTuple):
    """The units that live or die together.

    Attributes:
      pool: from the scores of the weights to the scores of the units, an array of any shape.
        Weights that are pruned already have the score -inf, and a unit of such weights alone must
        get it, too. In a unit that has others as well they count as 0 in a mean.
      expand: ``expand(unit_mask, shape)``, from the mask of the units to the mask of the weights.
      most: ``most(shape)``, how many units of a leaf may be pruned at most; None where all but one.
    """

    pool: Callable[[Array], Array]
    expand: Callable[[Array, tuple[int, ...]], Array]
    most: Callable[[tuple[int, ...]], int] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Says in one line that there is nothing to call."""
        _axes.called(self)


def _float(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _mean(scores: Array, axes: tuple[int, ...], number: Any) -> Array:
    """The mean score of each unit of so many weights: 0 for what is pruned, -inf where nothing is left."""
    gone = jnp.isneginf(scores)
    wide = _float(scores.dtype)  # a sum of many may be beyond float16, and means of 8 bits tie
    total = jnp.sum(jnp.where(gone, jnp.zeros_like(scores), scores), axis=axes, dtype=wide)
    mean = jnp.maximum(total / number, jnp.finfo(total.dtype).min)  # what lives is never -inf
    return jnp.where(jnp.all(gone, axis=axes), jnp.full_like(total, -jnp.inf), mean)


#: Every weight is a unit.
unstructured = Structure(pool=lambda scores: scores, expand=lambda mask, shape: mask.reshape(shape))


def n_by_m(n: Any, m: Any, *, axis: Any = -2) -> Structure:
    r"""At least n of every m neighbours along an axis live: N:M sparsity, as 2:4 of NVIDIA's sparse tensor cores.

    The n best of every m are never pruned; of the others the worst of the whole pool go first, so that a schedule may
    rise to N:M. At the final sparsity :math:`1 - n/m` exactly n of every m live; a higher one is refused. Among equal
    scores the earlier in the group is kept. (JaxPruner jumps to N:M at the first update whatever the schedule says,
    and keeps the later.)

    Args:
      n: weights that live in every group, 1 to m - 1.
      m: size of the groups; it divides the axis.
      axis: along which groups lie; -2, of a kernel ``[..., in, out]``, is the one that a product sums over.
        Vectors have only -1.

    Returns:
      The `Structure`.

    Raises:
      ValueError: for n outside of 1 to m - 1; when it is used, for an axis that m does not divide.

    Example:
      >>> import jax, optax
      >>> from jaxfair import sparsity
      >>> tx = sparsity.prune(
      ...     optax.sgd(0.1), sparsity.constant(0.5), structure=n_by_m(2, 4), prunable=lambda path: True)
      >>> masks = sparsity.get_masks(tx.init({"w": jax.random.normal(jax.random.key(0), (8, 3))}))
      >>> masks["w"].reshape(2, 4, 3).sum(axis=1).tolist()
      [[2, 2, 2], [2, 2, 2]]

    References:
      Mishra et al., *Accelerating sparse deep neural networks*, 2021; Zhou et al., *Learning N:M fine-grained
      structured sparse neural networks from scratch*, 2021.
    """
    n, m, axis = (_numbers.whole(name, x, low=None) for name, x in (("n", n), ("m", m), ("axis", axis)))
    if not 1 <= n < m:
        raise ValueError(f"n_by_m needs 1 <= n < m, but it got n={n}, m={m}; 2 of 4 is usual")

    def along(shape):
        at = len(shape) - 1 if len(shape) == 1 else axis
        if not -len(shape) <= at < len(shape):
            raise ValueError(
                f"n_by_m({n}, {m}): a leaf of shape {tuple(shape)} has no axis {axis}; leave it dense (prunable=)"
            )
        at %= len(shape)
        if shape[at] % m:
            raise ValueError(
                f"n_by_m({n}, {m}): axis {at} of a leaf of shape {tuple(shape)} is not a multiple of {m}; "
                "leave this leaf dense (prunable=) or choose another axis"
            )
        return at

    def pool(scores):
        at = along(scores.shape)
        rows = jnp.moveaxis(scores, at, -1)
        groups = rows.reshape(*rows.shape[:-1], -1, m)
        # How many of the group are better: m is small, and m * m comparisons are less than a sort.
        mine, other = groups[..., :, None], groups[..., None, :]
        earlier = jnp.tri(m, k=-1, dtype=bool).reshape((1,) * (groups.ndim - 1) + (m, m))
        rank = jnp.sum((other > mine) | ((other == mine) & earlier), axis=-1)
        safe = jnp.where(rank < n, jnp.full_like(groups, jnp.inf), groups)
        return jnp.moveaxis(safe.reshape(rows.shape), -1, at)

    return Structure(
        pool=pool,
        expand=lambda mask, shape: mask.reshape(shape),
        most=lambda shape: math.prod(shape) // m * (m - n) + 0 * along(shape),
    )


def balanced(axis: Any = -1) -> Structure:
    """Weights compete only with those of the same output: every output loses the same number, plus or minus one.

    The score is replaced by minus its rank within the output, so that all outputs lose their worst, then all their
    second worst. Wanda prunes so.

    Args:
      axis: of the outputs, -1 for a kernel ``[..., in, out]``.

    Returns:
      The `Structure`.

    Raises:
      ValueError: when it is used, for a leaf that has no such axis.

    Example:
      >>> balanced().pool(jnp.array([[1.0, 30.0], [2.0, 10.0], [3.0, 20.0]])).tolist()
      [[-2.0, 0.0], [-1.0, -2.0], [0.0, -1.0]]
    """
    axis = _numbers.whole("axis", axis, low=None)

    def pool(scores):
        _has_axis("balanced", axis, scores.shape)
        # Ranks are whole numbers, of which bfloat16 has only 256 in a row.
        rows = jnp.moveaxis(scores, axis, -1).astype(np.promote_types(scores.dtype, np.float32))
        flat = rows.reshape(-1, rows.shape[-1])
        order = jnp.argsort(flat, axis=0, descending=True, stable=True)
        places = jnp.broadcast_to((0 - jnp.arange(len(flat))).astype(flat.dtype)[:, None], flat.shape)
        rank = jnp.put_along_axis(flat, order, places, axis=0, inplace=False)
        gone = jnp.isneginf(flat)  # pruned already: below every rank
        ranked = jnp.where(gone, flat, rank).reshape(rows.shape)
        return jnp.moveaxis(ranked, -1, axis)

    return Structure(pool=pool, expand=lambda mask, shape: mask.reshape(shape))


def block(shape: Any, *, reduce: str = "mean") -> Structure:
    """Blocks of the last dimensions live or die together; what sticks out at the edges is a smaller block.

    Args:
      shape: of a block, such as ``(4, 4)``, over the last dimensions of a leaf.
      reduce: ``"mean"`` or ``"max"`` of the scores, over the weights that the block has.

    Returns:
      The `Structure`.

    Raises:
      ValueError: for a size below 1 or another word; when it is used, for a leaf of fewer dimensions.

    Example:
      >>> scores = jnp.arange(12.0).reshape(3, 4)
      >>> block((2, 2)).pool(scores).tolist()
      [[2.5, 4.5], [8.5, 10.5]]
    """
    try:
        sizes = tuple(_numbers.whole("a size of a block", size, low=None) for size in shape)
    except TypeError:
        raise ValueError(
            f"a block has a size for each of the last dimensions, but it is {shape}; write (4, 4)"
        ) from None
    if not sizes or min(sizes) < 1:
        raise ValueError(f"a block has sizes of at least 1, but it is {tuple(shape)}")
    if reduce not in ("mean", "max"):
        raise ValueError(f"reduce must be 'mean' or 'max', but it is {reduce!r}")

    def split(x, fill):
        """Pads to whole blocks -> the blocks' dimensions and their insides, alternating."""
        if x.ndim < len(sizes):
            raise ValueError(
                f"block({sizes}) needs leaves of {len(sizes)} dimensions, but one has the shape {x.shape}; "
                "leave it dense (prunable=)"
            )
        lead = x.ndim - len(sizes)
        padding = [(0, 0)] * lead + [(0, -d % b) for d, b in zip(x.shape[lead:], sizes, strict=True)]
        x = jnp.pad(x, padding, constant_values=fill)
        inside = [n for d, b in zip(x.shape[lead:], sizes, strict=True) for n in (d // b, b)]
        return x.reshape(*x.shape[:lead], *inside), tuple(lead + 1 + 2 * i for i in range(len(sizes)))

    def pool(scores):
        if reduce == "max":
            blocks, axes = split(scores, -np.inf)
            return jnp.max(blocks, axis=axes)
        blocks, axes = split(scores, -np.inf)
        number, _ = split(jnp.ones_like(scores, dtype=_float(scores.dtype)), 0)
        return _mean(blocks, axes, jnp.sum(number, axis=axes))

    def expand(mask, shape):
        lead = len(shape) - len(sizes)
        for i, size in enumerate(sizes):
            mask = jnp.repeat(mask, size, axis=lead + i)
        return mask[tuple(slice(0, d) for d in shape)]

    return Structure(pool=pool, expand=expand)


def _has_axis(name: str, axis: int, shape: tuple[int, ...]) -> None:
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{name}({axis}): a leaf of shape {shape} has no axis {axis}; leave it dense (prunable=)")


def channel(axis: Any = -1) -> Structure:
    """All weights with one index along an axis live or die together; the score is their mean.

    Of a kernel ``[height, width, in, out]``, -1 prunes filters (output channels) and -2 input channels; of an attention
    kernel ``[embed, heads, head_dim]``, -2 prunes heads. What reads a dead channel elsewhere (biases, norms, the next
    kernel) is not masked: `remove_channels` takes it out.

    Args:
      axis: of the channels.

    Returns:
      The `Structure`.

    Raises:
      ValueError: when it is used, for a leaf that has no such axis.

    Example:
      >>> channel(-1).pool(jnp.array([[1.0, 2.0], [3.0, 5.0]])).tolist()
      [2.0, 3.5]
      >>> channel(-1).expand(jnp.array([False, True]), (2, 2)).tolist()
      [[False, True], [False, True]]
    """
    axis = _numbers.whole("axis", axis, low=None)

    def pool(scores):
        _has_axis("channel", axis, scores.shape)
        at = axis % scores.ndim
        others = tuple(i for i in range(scores.ndim) if i != at)
        return _mean(scores, others, max(scores.size // max(scores.shape[at], 1), 1))

    def expand(mask, shape):
        at = axis % len(shape)
        return jnp.broadcast_to(mask.reshape([n if i == at else 1 for i, n in enumerate(shape)]), shape)

    return Structure(pool=pool, expand=expand)
