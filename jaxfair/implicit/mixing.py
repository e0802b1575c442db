r"""Anderson acceleration, an evaluation at a time: the next point is a mix of the last images.

The plain iteration :math:`x \leftarrow F(x)` forgets what it saw. With the last m points at hand, their steps
:math:`\Delta X` and the changes :math:`\Delta R` of the residual :math:`r = x - F(x)`, the next point is

.. math:: x_{k+1} = F(x_k) - (\Delta X - \Delta R)\, \gamma, \qquad
          \begin{cases} \Delta X^\top (r_k - \Delta R\, \gamma) = 0 & \text{type I} \\
          \gamma = \arg\min \|r_k - \Delta R\, \gamma\| & \text{type II} \end{cases}

so m = 1 is the plain iteration, and on an affine map of d numbers with m > d both end after d + 2 evaluations: type II
is GMRES there, type I the method of full orthogonalisation. They are quasi-Newton methods: F need not contract.

A third kind is type II by a truncated Gram-Schmidt process: each change is made orthogonal to those that are kept, and
its step goes along, so :math:`\gamma = \Delta R^\top r` and there is no system to solve. On an affine map it is type II
until a pair is forgotten; with many small lanes it is quicker.

The textbook's weights of m images that sum to 1 are the same thing. Differences lose fewer digits: close to the end two
points agree in most of theirs, and so do products of the points. Each pair of differences is kept at a length of 1 (of
the change), and of the products of all pairs only those of the newest are computed.

What comes out is the point with the smallest :math:`|x - F(x)|` of all that were evaluated, the start among them. The
authors of joint inference take the smallest one relative to :math:`|F(x)|`; an iteration that runs off has a small one
of these at the end. An image that is not finite sends the iteration back to the best point, without its memory.

References:
  Anderson, *Iterative procedures for nonlinear integral equations*, 1965. Walker and Ni, `Anderson acceleration for
  fixed-point iterations <https://doi.org/10.1137/10078356X>`_, 2011. Fang and Saad, `Two classes of multisecant methods
  <https://doi.org/10.1002/nla.617>`_, 2009 (the types). Tang, Xu, He, Saad and Xi, `Anderson acceleration with
  truncated Gram-Schmidt <https://arxiv.org/abs/2403.14961>`_, 2024.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import ArrayLike

from jaxfair.typing import Array, whole

#: Of the acceleration: 1, 2 or "truncated".
Kind = int | str


class History(NamedTuple):
    """The last differences, of trees with d numbers, for a memory of m points.

    Attributes:
      point: ``[d]``, the last that was evaluated.
      left: ``[d]``, its residual.
      known: ``[]`` bool, whether there is a last one.
      steps: ``[m - 1, d]``, differences of points, in units of the change of the residual.
      changes: ``[m - 1, d]``, changes of the residual, of length 1.
      products: ``[m - 1, m - 1]``, of steps (type I) or changes (type II) with changes.
      filled: ``[m - 1]`` bool, which of them there are.
    """

    point: Array
    left: Array
    known: Array
    steps: Array
    changes: Array
    products: Array
    filled: Array


class MixingState(NamedTuple):
    """What `mixing` carries from evaluation to evaluation.

    Attributes:
      x: the tree where F is to be evaluated next. It may be replaced, by its projection say.
      best: the tree with the smallest residual so far; the start before the first evaluation.
      residual: ``[]``, its own; inf before the first evaluation.
      evaluations: ``[]`` int32.
      history: of differences; None for a memory of 1.
    """

    x: Any
    best: Any
    residual: Array
    evaluations: Array
    history: History | None


class Mixing(NamedTuple):
    """Anderson acceleration as two functions; made by `mixing`.

    Attributes:
      init: ``init(x) -> MixingState``.
      update: ``update(state, image) -> MixingState``, with the image ``F(state.x)``.
    """

    init: Callable[[Any], MixingState]
    update: Callable[[MixingState, Any], MixingState]


def mixing(*, memory: int = 10, kind: Kind = 1, ridge: ArrayLike = 0.0) -> Mixing:
    """Anderson acceleration for a loop of one's own: a map that changes, points that are projected.

    Args:
      memory: m, how many points are mixed, at least 1; of d numbers d + 1 at most. The state has 2 (m - 1) trees.
      kind: 1 or 2, the type, or "truncated".
      ridge: added to the diagonal of the products, relative to its largest entry; a small one slows type II down much.

    Returns:
      The two functions.

    Raises:
      ValueError: for a memory that is no whole number of at least 1, another type, a tree with other numbers than
        floats, and an image that is not like the point.

    Example:
      >>> mix = mixing(memory=3)
      >>> state = mix.init(jnp.zeros(2))
      >>> for _ in range(4):  # two numbers: after 2 + 2 evaluations
      ...     state = mix.update(state, jnp.array([[0.0, 2.0], [-2.0, 0.0]]) @ state.x + 1.0)
      >>> [round(number, 4) for number in state.best.tolist()]  # where the plain iteration runs off
      [0.6, -0.2]
    """
    if (whole(memory) or 0) < 1:
        raise ValueError(f"memory={memory}: give a whole number of points of at least 1; 1 is the plain iteration.")
    if kind not in (1, 2, "truncated"):
        raise ValueError(f"kind={kind!r}: there are type 1 (orthogonal to steps), type 2 (least squares), 'truncated'.")
    most = int(memory) - 1

    def init(x: Any) -> MixingState:
        x = jax.tree.map(jnp.asarray, x)
        wrong = [leaf.dtype for leaf in jax.tree.leaves(x) if not jnp.issubdtype(leaf.dtype, jnp.floating)]
        if wrong:
            raise ValueError(f"the start has numbers of type {wrong[0]}: give floats, such as 0.0 in place of 0.")
        flat, dtype = ravel_pytree(x)[0], _wide(x)
        history, rows = None, min(most, flat.size)  # of d numbers, d differences say all
        if rows:
            none, pairs = jnp.zeros(flat.shape, dtype), jnp.zeros((rows, flat.size), dtype)
            products, filled = jnp.zeros((rows, rows), dtype), jnp.zeros(rows, bool)
            history = History(none, none, jnp.zeros((), bool), pairs, pairs, products, filled)
        return MixingState(x, x, jnp.full((), jnp.inf, dtype), jnp.zeros((), jnp.int32), history)

    def update(state: MixingState, image: Any) -> MixingState:
        _check_alike(state.x, image)
        (flat, back), dtype = ravel_pytree(state.x), _wide(state.x)
        x, f = flat.astype(dtype), ravel_pytree(image)[0].astype(dtype)
        left = x - f
        size = jnp.sqrt(left @ left)
        better, finite = size < state.residual, jnp.isfinite(size)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.x, state.best)
        following, history = image, state.history
        if history is not None:
            history = _remembered(history, x, left, state.evaluations % len(history.filled), finite, kind)
            following = back(_mixed(history, f, left, kind, ridge).astype(flat.dtype))
        x = jax.tree.map(lambda new, old: jnp.where(finite, new, old), following, best)
        return MixingState(x, best, jnp.where(better, size, state.residual), state.evaluations + 1, history)

    return Mixing(init, update)


def unfinished(evaluations: ArrayLike, tolerance: ArrayLike) -> Callable[[MixingState], Array]:
    r"""Whether a loop of `mixing` goes on: the predicate of a `while_loop`.

    Args:
      evaluations: at most; may be traced.
      tolerance: it ends where :math:`|x - F(x)| \le` this times :math:`|x|`. With Python's 0.0 lanes are not looked at:
        all of them end together, and a loop under `vmap` writes in place.

    Returns:
      ``predicate(state) -> [] bool``.

    Example:
      >>> state = mixing().init(jnp.zeros(2))
      >>> bool(unfinished(3, 1e-6)(state)), bool(unfinished(0, 1e-6)(state))
      (True, False)
    """

    def predicate(state: MixingState) -> Array:
        more = state.evaluations < evaluations
        if isinstance(tolerance, int | float) and tolerance == 0:
            return more
        enough = jnp.asarray(tolerance, state.residual.dtype) * optax.tree.norm(state.best).astype(state.residual.dtype)
        return more & ~(state.residual <= enough)

    return predicate


def _wide(x: Any) -> Any:
    """Of products: float32, or wider if a leaf is."""
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(x)))


def _check_alike(x: Any, image: Any) -> None:
    def kinds(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", tree)

    if kinds(x) != kinds(image):
        raise ValueError(
            f"the function made {kinds(image)} of {kinds(x)}: give one that keeps structure, shape, dtype."
        )


def _remembered(history: History, x: Array, left: Array, slot: Array, finite: Array, kind: Kind) -> History:
    """The history with the pair of this point in a slot; without any where the image is not finite."""
    step, change = x - history.point, left - history.left
    if kind == "truncated":
        step, change = _orthogonal(history, step, change, history.filled.at[slot].set(False))
    length = jnp.sqrt(change @ change)
    there = history.known & finite & (length > 0) & jnp.isfinite(length)
    scale = 1 / jnp.where(there, length, 1)
    step, change = (jnp.where(there, d * scale, 0) for d in (step, change))
    steps, changes = history.steps.at[slot].set(step), history.changes.at[slot].set(change)
    products = history.products
    if kind != "truncated":
        lefts, lefts_new = (steps, step) if kind == 1 else (changes, change)
        products = products.at[slot].set(changes @ lefts_new).at[:, slot].set(lefts @ change)
    return History(x, left, finite, steps, changes, products, history.filled.at[slot].set(there) & finite)


def _orthogonal(history: History, step: Array, change: Array, kept: Array) -> tuple[Array, Array]:
    """The pair without the part of the change that lies along the changes that are kept; twice is enough."""
    before = jnp.sqrt(change @ change)
    for _ in range(2):
        along = jnp.where(kept, history.changes @ change, 0)
        step, change = step - along @ history.steps, change - along @ history.changes
    new = jnp.sqrt(change @ change) > 10 * jnp.finfo(change.dtype).eps * before
    return step, jnp.where(new, change, 0)


def _mixed(history: History, f: Array, left: Array, kind: Kind, ridge: ArrayLike) -> Array:
    """The next point; the plain image where the system has no finite solution."""
    filled = history.filled
    weights = jnp.where(filled, (history.steps if kind == 1 else history.changes) @ left, 0)
    if kind != "truncated":
        diagonal = jnp.where(filled, jnp.diagonal(history.products), 0)
        eye = jnp.eye(len(filled), dtype=f.dtype)
        more = jnp.asarray(ridge, f.dtype) * jnp.max(jnp.abs(diagonal)) * eye
        system = jnp.where(filled[:, None] & filled[None, :], history.products + more, eye)
        weights = jnp.linalg.solve(system, weights)
    mixed = f - (weights @ history.steps - weights @ history.changes)
    return jnp.where(jnp.all(jnp.isfinite(mixed)), mixed, f)
