"""Numbers that an optimizer is given: constants, schedules, or one per player.

A *rate* is a number, a schedule of the step, or a tree of those that is a prefix of the joint tree, so that
``{"x": 0.02, "y": 0.01}`` gives each player its own. Every number meets a gradient in one place,
`map_rate`, which casts it to the dtype of the leaf: a float32 array must not turn a bfloat16 update
into a float32 one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import DTypeLike

from jaxfair.typing import Array

#: A number, a schedule, or a prefix tree of these.
Rate: TypeAlias = Any


class RateState(NamedTuple):
    """The state of `scale_by_rate` where a schedule is in it.

    Attributes:
      count: ``[]`` int32, the number of updates done.
    """

    count: Array


#: The largest value of an int32 counter, at which it stays.
_MOST = np.iinfo(np.int32).max


def check(name: str, value: Rate, low: float, high: float, *, whole: bool = False, ends: str = "[)") -> None:
    """Refuses numbers outside their range, nan among them, and None; Python's, NumPy's and JAX's alike.

    Args:
      name: of the option.
      value: a number, an array, or a tree of these; what is traced, or a schedule, is not looked at.
      low: the lower end of the range.
      high: the upper end.
      whole: whether it must be a whole number.
      ends: which ends belong to the range: ``"[)"``, ``"(]"``, ``"[]"`` or ``"()"``.

    Raises:
      ValueError: which names the option, the range and the number.

    Example:
      >>> check("decay", np.float32(1.5), 0.0, 1.0)
      Traceback (most recent call last):
      ...
      ValueError: decay must be in [0.0, 1.0), but it is 1.5
    """
    span = f"{ends[0]}{low}, {high}{ends[1]}"
    for number in jax.tree.leaves(value, is_leaf=lambda leaf: leaf is None):
        if callable(number) or isinstance(number, Tracer):
            continue
        given = np.asarray(number)
        try:
            if given.dtype.kind in "USc":  # of "0.5", and of the real part of 0.5j, NumPy would make a number
                raise TypeError
            real = given.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number in {span}, but it is {number!r}") from None
        above = real >= low if ends[0] == "[" else real > low
        below = real <= high if ends[1] == "]" else real < high
        if not (above & below).all():
            raise ValueError(f"{name} must be in {span}, but it is {number}")
        if whole and not (real == np.floor(real)).all():
            raise ValueError(f"{name} must be a whole number in {span}, but it is {number}")


def check_rates(**rates: Rate) -> None:
    """Refuses rates and gains with a number that is not finite, or with None.

    Raises:
      ValueError: which names the option and the number.

    Example:
      >>> check_rates(learning_rate={"x": 0.1, "y": float("nan")})
      Traceback (most recent call last):
      ...
      ValueError: learning_rate must be in (-inf, inf), but it is nan
    """
    for name, rate in rates.items():
        check(name, rate, -float("inf"), float("inf"), ends="()")


def count_up(count: Array, by: Any) -> Array:
    """``count + by``, an int32 that stays at its largest value instead of starting again below zero.

    Args:
      count: ``[]`` int32, not negative.
      by: a number, not negative, of any size and dtype.

    Example:
      >>> count = count_up(jnp.int32(2_000_000_000), 147_483_647)
      >>> [count_up(count, by).item() for by in (0, 1, 1e12)]
      [2147483647, 2147483647, 2147483647]
    """
    # On the host, where 64 bits are at hand, before JAX makes 32 of them.
    by = jnp.asarray(
        by if isinstance(by, jax.Array) else np.minimum(np.asarray(by, np.float64), _MOST).astype(np.int32)
    )
    by = jnp.where(by >= _MOST, _MOST, by.astype(jnp.int32)) if by.dtype != jnp.int32 else by
    return jnp.where(by > _MOST - count, _MOST, count + by)


def at(rate: Rate, count: Any) -> Any:
    """The numbers of a rate at one step: schedules are called, all else stays.

    Example:
      >>> at({"x": 0.1, "y": lambda step: 1 / (step + 1)}, 3)
      {'x': 0.1, 'y': 0.25}
    """
    return jax.tree.map(lambda r: r(count) if callable(r) else r, rate)


def cast(number: Any, dtype: DTypeLike) -> Array:
    """A real number in the precision of `dtype`, which may be complex.

    Example:
      >>> cast(0.5, jnp.complex64).dtype, cast(jnp.float32(0.5), jnp.bfloat16).dtype
      (dtype('float32'), dtype(bfloat16))
    """
    return jnp.asarray(number, jnp.finfo(dtype).dtype)


def map_rate(fn: Callable[..., Any], rate: Any, tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` of ``fn(number, leaf, *rest_leaves)``, each number in its leaf's dtype.

    Args:
      fn: a function of a number and of leaves.
      rate: numbers, as `at` gives them: one, or a prefix tree of `tree`.
      tree: a tree of arrays.
      *rest: trees of the same structure.

    Returns:
      The tree of results, of the structure of `tree`.

    Example:
      >>> map_rate(lambda r, g: r * g, {"x": 2.0, "y": 3.0}, {"x": jnp.ones(2), "y": [jnp.ones(1)]})
      {'x': Array([2., 2.], dtype=float32), 'y': [Array([3.], dtype=float32)]}
    """

    def below(number, *subtrees):
        return jax.tree.map(lambda g, *r: fn(cast(number, g.dtype), g, *r), *subtrees)

    return jax.tree.map(below, rate, tree, *rest)


def widen(tree: Any, other: Any) -> Any:
    """The tree, each leaf in the wider of its own dtype and that of the other tree's leaf, float32 at least.

    Example:
      >>> widen(jnp.ones(1, jnp.bfloat16), jnp.ones(1, jnp.float16)).dtype
      dtype('float32')
    """

    def leaf(a, b):
        return a.astype(jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32))

    return jax.tree.map(leaf, tree, other)


def average(decay: Any, old: Any, new: Any) -> Any:
    """``decay * old + (1 - decay) * new``, leaf by leaf.

    The complement is taken before the numbers are rounded to a leaf's dtype, so that 0.9 and 0.1
    are both as near as that dtype allows.
    """
    rest = jax.tree.map(lambda b: 1 - b, decay)
    return optax.tree.add(map_rate(jnp.multiply, decay, old), map_rate(jnp.multiply, rest, new))


def zeros_like(params: Any, dtype: DTypeLike | None = None) -> Any:
    """Zeros in which something is summed or averaged, of the structure of `params`.

    Args:
      params: a tree of arrays, or of their shapes.
      dtype: of the zeros; a real one stands for its complex twin on complex leaves. None is the dtype of the
        parameters, but float32 where that is narrower: an average stands still in bfloat16 as soon as what is to be
        added is less than a 256th of it.

    Returns:
      The tree of zeros.

    Example:
      >>> params = {"x": jnp.ones(1, jnp.bfloat16)}
      >>> zeros_like(params)["x"].dtype, zeros_like(params, jnp.bfloat16)["x"].dtype
      (dtype('float32'), dtype(bfloat16))
    """

    def leaf(p):
        if dtype is None:
            return jnp.zeros_like(p, dtype=jnp.promote_types(p.dtype, jnp.float32))
        if jnp.issubdtype(p.dtype, jnp.complexfloating):
            return jnp.zeros_like(p, dtype=jnp.promote_types(dtype, jnp.complex64))
        return jnp.zeros_like(p, dtype=dtype)

    return jax.tree.map(leaf, params)


def move(params: Any, rate: Any, field: Any) -> Any:
    """``params - rate * field`` in the dtype of the parameters.

    Example:
      >>> move(jnp.ones(2), 0.5, jnp.array([1.0, 2.0])).tolist()
      [0.5, 0.0]
    """
    wide = widen(params, field)
    moved = map_rate(lambda r, f, w: w - r * f, rate, widen(field, params), wide)
    return optax.tree.cast_like(moved, params)


def descend(rate: Any, direction: Any) -> Any:
    """``-rate * direction``: the update that goes with a direction."""
    return map_rate(lambda r, d: -r * d, rate, direction)


def emit(
    params: Any,
    rate: Any,
    direction: Any,
    like: Any,
    projection: Callable[[Any], Any] | None = None,
) -> Any:
    """The update that a step from `params` along minus `direction` needs, in the dtypes of `like`.

    Without a projection it is ``-rate * direction`` to the last bit; with one, the projected point
    minus the parameters.

    Example:
      >>> positive = lambda w: jnp.maximum(w, 0.0)
      >>> w, g = jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0])
      >>> emit(w, 1.0, g, g, positive).tolist()
      [-1.0, -2.0]
    """
    if projection is None:
        return optax.tree.cast_like(descend(rate, widen(direction, like)), like)
    target = projection(move(params, rate, direction))
    return optax.tree.cast_like(optax.tree.sub(target, params), like)


def scale_by_rate(learning_rate: Rate) -> optax.GradientTransformationExtraArgs:
    """The last link of a chain: minus the learning rate, in the dtype of the gradient.

    As `optax.scale_by_learning_rate`, but with a rate per player, and without promotion.

    Args:
      learning_rate: a number, a schedule, or a prefix tree of these.

    Returns:
      The transformation; stateless where no schedule is in the rate.

    Example:
      >>> tx = scale_by_rate({"x": 0.5, "y": lambda step: 1.0 / (step + 1)})
      >>> params = {"x": jnp.ones(1), "y": jnp.ones(1)}
      >>> updates, state = tx.update(params, tx.init(params))
      >>> tx.update(params, state)[0]
      {'x': Array([-0.5], dtype=float32), 'y': Array([-0.5], dtype=float32)}
    """
    check_rates(learning_rate=learning_rate)
    scheduled = any(callable(r) for r in jax.tree.leaves(learning_rate))

    def init_fn(params):
        del params
        return RateState(jnp.zeros((), jnp.int32)) if scheduled else optax.EmptyState()

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        if not scheduled:
            return descend(learning_rate, updates), state
        updates = descend(at(learning_rate, state.count), updates)
        return updates, RateState(jnp.asarray(optax.safe_increment(state.count)))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
