"""The few pytree helpers that `optax.tree` lacks."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax


@jax.custom_batching.custom_vmap
def _any_lane(pred):
    return pred


@_any_lane.def_vmap
def _any_lane_of_a_batch(axis_size, in_batched, pred):
    # The result has no batch axis, and goes through `_any_lane` again for the sake of a vmap
    # further out.
    del axis_size, in_batched
    return _any_lane(jnp.any(pred, axis=0)), False


def cond_any(pred: Any, true_fn: Callable, false_fn: Callable, *operands: Any) -> Any:
    """`jax.lax.cond` that stays a conditional under `jax.vmap`.

    With a batched predicate, `lax.cond` becomes a `select`: both branches run at every step, and
    whatever was meant to be rare (a restart, a snapshot, an update of masks) is paid for always.
    Here the lanes are asked together first,

    .. code-block:: text

        if any lane wants the true branch:   each lane takes its own of the two results
        else:                                false_fn for all lanes, and true_fn does not run

    so the expensive branch runs only at steps at which at least one lane needs it. Without `vmap`
    it is `lax.cond`. The result per lane is that of `lax.cond` always. It may be used inside
    `jit`, `scan`, `grad` and nested `vmap`, and the two functions may close over batched values.

    Args:
      pred: ``[]`` bool.
      true_fn: the rare, expensive branch, a function of ``*operands``.
      false_fn: the common branch. It runs beside `true_fn` in a batch that takes the true branch,
        so it should be cheap. Both branches return trees of one structure, shape and dtype.
      *operands: what the branches are called with.

    Returns:
      The result of the branch that `pred` chooses.

    Example:
      A lane that reaches 3 starts again at 0:

      >>> step = lambda x: cond_any(x >= 3, lambda x: x * 0, lambda x: x + 1, x)
      >>> jax.vmap(step)(jnp.arange(5)).tolist()
      [1, 2, 3, 0, 0]
      >>> "cond[" in str(jax.make_jaxpr(jax.vmap(step))(jnp.arange(5)))
      True
    """
    # `lax.cond` with an unbatched predicate survives vmap whatever its operands are, so it is
    # enough to take the batch axis out of the predicate. The inner cond becomes the per-lane
    # select; unbatched it costs nothing.
    pred = jnp.asarray(pred)
    return lax.cond(
        _any_lane(pred),
        lambda *args: lax.cond(pred, true_fn, false_fn, *args),
        false_fn,
        *operands,
    )


def named(name: str, state: Any) -> list[Any]:
    """What the NamedTuples of a tree have under a name, the outermost of them, however deep they lie.

    Example:
      >>> import collections
      >>> Inner, Outer = collections.namedtuple("Inner", "masks"), collections.namedtuple("Outer", "inner count")
      >>> named("masks", (Outer(Inner({"w": True}), 3), 4))
      [{'w': True}]
    """

    def has(node):
        return name in getattr(node, "_fields", ())

    return [getattr(node, name) for node in jax.tree.leaves(state, is_leaf=has) if has(node)]


def prune_like(params: Any, state: Any) -> Any:
    """Weights, an average of iterates say, with zeros where a pruner in some state has pruned.

    An average has members from before the last masks: it is as sparse as they were unless this is done.

    Args:
      params: a tree of arrays.
      state: any tree. What is pruned is the field ``masks`` of one NamedTuple in it, in the structure of `params`,
        True = kept, as the states of `jaxfair.sparsity` have it; without one nothing happens.

    Returns:
      The tree.

    Example:
      >>> import collections
      >>> State = collections.namedtuple("State", "masks")
      >>> prune_like({"w": jnp.ones(2)}, State({"w": jnp.array([True, False])}))["w"].tolist()
      [1.0, 0.0]
    """

    def is_gap(node):  # where `optax.partition` leaves a parameter to another optimizer
        return type(node).__name__ == "MaskedNode"

    leaves, structure = jax.tree.flatten(params)
    for masks in named("masks", state):
        flat, like = jax.tree.flatten(masks, is_leaf=is_gap)
        if like == structure:
            both = zip(leaves, flat, strict=True)
            leaves = [p if is_gap(m) else jnp.where(m, p, jnp.zeros_like(p)) for p, m in both]
    return jax.tree.unflatten(structure, leaves)


def path_string(path: Any) -> str:
    """A key path of `jax.tree_util` as one readable string.

    Args:
      path: the tuple of keys that `jax.tree_util.tree_flatten_with_path` gives for a leaf.

    Returns:
      The names from the root to the leaf, joined by ``/``; ``""`` for a tree that is one leaf.

    Example:
      >>> tree = {"Conv_0": {"kernel": 1.0}, "heads": [2.0]}
      >>> [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
      ['Conv_0/kernel', 'heads/0']
    """
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def map_with_path(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function is told where it is.

    Args:
      fn: ``fn(path, leaf, *rest_leaves)`` with a path such as ``"Conv_0/kernel"``.
      tree: any pytree.
      *rest: pytrees that have `tree`'s structure or continue it.

    Returns:
      The tree of results, of the structure of `tree`.

    Example:
      >>> map_with_path(lambda path, leaf: f"{path}={leaf}", {"a": {"b": 1}})
      {'a': {'b': 'a/b=1'}}
    """
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: fn(path_string(path), *leaves), tree, *rest)


def paths(tree: Any) -> list[str]:
    """The path of every leaf, in the order of `jax.tree.leaves`.

    Example:
      >>> paths({"b": {"kernel": 1, "bias": 2}, "a": 3})
      ['a', 'b/bias', 'b/kernel']
    """
    return [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def names(tree: Any) -> list[str]:
    """The path of every leaf with a ``/`` within a name escaped: no two leaves have one name, as files need it.

    Example:
      >>> names({"a/b": 1, "a": {"b": 2}})
      ['a/b', 'a%2Fb']
    """
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(tree))
    return ["/".join(path_string((key,)).replace("%", "%25").replace("/", "%2F") for key in path) for path in paths]


def size(tree: Any) -> int:
    """The number of entries of all leaves together, a Python integer; works on `jax.eval_shape`'s output too.

    Example:
      >>> size({"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)})
      16
    """
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def inner_product(a: Any, b: Any) -> jax.Array:
    """The inner product of two real trees, ``[]``, summed in float32 or wider.

    Example:
      >>> inner_product({"x": jnp.full(3, 300, jnp.float16)}, {"x": jnp.full(3, 300, jnp.float16)}).item()
      270000.0
    """
    dtype = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(a)))
    # A sum, not a dot product, whose result would need a sharding of its own.
    products = jax.tree.map(lambda x, y: jnp.sum(x.astype(dtype) * y.astype(dtype)), a, b)
    return jnp.asarray(sum(jax.tree.leaves(products), start=jnp.zeros((), dtype)))


def copied(tree: Any) -> Any:
    """The same tree in arrays of its own: what is made from it may be donated, and what was given stays alive.

    Args:
      tree: any pytree. What is no array stays as it is; an array of NumPy becomes one of JAX.

    Returns:
      The tree; no two of its arrays share memory.

    Example:
      >>> state = jnp.zeros(2)
      >>> mine = copied({"weights": state, "before": state})
      >>> jax.jit(lambda tree: tree, donate_argnums=0)(mine)["weights"].tolist(), state.tolist()
      ([0.0, 0.0], [0.0, 0.0])
    """

    def leaf(value: Any) -> Any:
        return jnp.copy(value) if isinstance(value, (jax.Array, np.ndarray)) else value

    return jax.tree.map(leaf, tree)


def taken(tx: optax.GradientTransformation, **offered: Any) -> dict[str, Any]:
    """Of some extra arguments those that a transformation takes beside the gradient, its state and the parameters.

    Args:
      tx: any optax transformation.
      **offered: arguments by name.

    Returns:
      The arguments: none for a plain transformation, all for one with ``**extra_args``, such as a chain.

    Example:
      >>> taken(optax.identity(), field=1), taken(optax.chain(optax.identity()), field=1)
      ({}, {'field': 1})
    """
    if not isinstance(tx, optax.GradientTransformationExtraArgs):
        return {}
    known = inspect.signature(tx.update).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return offered
    return {name: value for name, value in offered.items() if name in known}


def by_lane(lanes: Any, a: Any, b: Any) -> Any:
    """Lane by lane one tree or another.

    Args:
      lanes: ``[S]`` bool.
      a: a tree of ``[S, ...]``, taken where it is True.
      b: of the same structure, taken where it is False. Where a leaf of one has fewer axes than that of the other, such
        as a flag a lane for the mask of all weights, it holds for all of them.

    Returns:
      The tree.

    Example:
      >>> by_lane(np.array([True, False]), {"w": np.ones((2, 3))}, {"w": np.zeros(2)})["w"].tolist()
      [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    return _by_lane(lanes, a, b)


@jax.jit  # so that all leaves are one program
def _by_lane(lanes: Any, a: Any, b: Any) -> Any:
    def leaf(one: Any, other: Any) -> jax.Array:
        arrays = [jnp.asarray(of) for of in (lanes, one, other)]
        dims = max(array.ndim for array in arrays)
        return jnp.where(*(array.reshape(*array.shape, *[1] * (dims - array.ndim)) for array in arrays))

    return jax.tree.map(leaf, a, b)


def updated(
    tx: optax.GradientTransformation, gradient: Any, state: Any, params: Any, **offered: Any
) -> tuple[Any, Any]:
    """A transformation's updates and state, told of some extra arguments those that it takes.

    Args:
      tx: any optax transformation.
      gradient: what it transforms.
      state: its own.
      params: of the network.
      **offered: arguments by name, see :func:`taken`.

    Returns:
      ``(updates, state)``.

    Example:
      >>> import optax
      >>> updated(optax.chain(optax.scale(2.0)), 3.0, optax.chain(optax.scale(2.0)).init(0.0), 0.0, field=3.0)[0]
      6.0
    """
    try:
        return tx.update(gradient, state, params, **taken(tx, **offered))
    except TypeError as error:
        # A chain takes everything, and hands it to each member that takes anything; one that does not know these
        # arguments (`optax.contrib.sam`) is asked without them, as it would be alone.
        if not any(f"unexpected keyword argument '{name}'" in str(error) for name in offered):
            raise
    return tx.update(gradient, state, params)
