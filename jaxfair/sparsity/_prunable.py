"""Which leaves may be pruned: the ones that were chosen, are float arrays, and are neither scalars nor empty."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair import tree
from jaxfair.typing import Params


def positions(params: Params, prunable: Callable[[str], bool]) -> list[int]:
    """The positions of the prunable leaves among `jax.tree.leaves`.

    A scalar (a temperature, a scale) is never pruned, whatever `prunable` says of it, and neither is a leaf without
    entries: their mask is the scalar True.

    Args:
      params: the tree of parameters, or their shapes.
      prunable: from a path such as ``"Conv_1/kernel"``.

    Returns:
      Positions, ascending; at least one.

    Raises:
      ValueError: where no leaf is left.
      TypeError: for a leaf that is no float array, and for a `prunable` that is no function.

    Example:
      >>> positions({"a": jnp.ones(2), "b": jnp.ones(1), "t": jnp.ones(())}, lambda path: path != "a")
      [1]
    """
    chosen, leaves = places(params, prunable), jax.tree.leaves(params)
    for i in chosen:
        if not jnp.issubdtype(leaves[i].dtype, jnp.floating):
            path = tree.paths(params)[i]
            raise TypeError(f"a prunable leaf must be a float array, but {path} has the dtype {leaves[i].dtype}")
    return chosen


def places(params: Any, prunable: Callable[[str], bool]) -> list[int]:
    """:func:`positions`, also of trees that are no parameters but have their structure: masks, scores.

    Example:
      >>> places({"a": jnp.ones(2, bool), "b": jnp.ones((), bool)}, lambda path: True)
      [0]
    """
    if not callable(prunable):
        raise TypeError(
            f"prunable must be a function of a leaf's path, but it is a {type(prunable).__name__}; "
            "write lambda path: path.endswith('kernel')"
        )
    paths, leaves = tree.paths(params), jax.tree.leaves(params)
    wanted = [i for i, path in enumerate(paths) if prunable(path)]
    if not wanted:
        raise ValueError(f"no leaf is prunable; prunable(path) was False for each of {paths}")
    chosen = [i for i in wanted if jnp.ndim(leaves[i]) and jnp.size(leaves[i])]
    if not chosen:
        raise ValueError(
            f"no leaf is prunable; {', '.join(paths[i] for i in wanted)} are scalars or empty, which are never pruned"
        )
    return chosen


def over_floats(loss: Callable[[Params], Any], params: Params) -> tuple[Callable[[Any], Any], list[Any], Callable]:
    """A loss as a function of the leaves that have a derivative: counters and flags among the parameters have none.

    Args:
      loss: ``loss(params)``.
      params: the parameters.

    Returns:
      ``of(floats)``, the loss of a list of leaves; these leaves of `params`; and ``whole(floats)``, a tree as `params`
      with those leaves and zeros elsewhere.

    Example:
      >>> of, floats, whole = over_floats(lambda p: 3 * p["w"] * p["n"], {"n": 2, "w": 1.0})
      >>> whole(jax.grad(of)(floats))
      {'n': Array(0, dtype=int32), 'w': Array(6., dtype=float32, weak_type=True)}
    """
    leaves, treedef = jax.tree.flatten(params)
    which = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]

    def put(floats, others):
        found = list(others)
        for i, leaf in zip(which, floats, strict=True):
            found[i] = leaf
        return jax.tree.unflatten(treedef, found)

    nothing = [jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    return lambda floats: loss(put(floats, leaves)), [leaves[i] for i in which], lambda floats: put(floats, nothing)


def same_structure(name: str, given: Any, params: Params) -> list[Any]:
    """The leaves of a tree that must have the structure of the parameters.

    Raises:
      ValueError: for another structure, with what is missing and what is too much.

    Example:
      >>> same_structure("scores", {"v": 1.0}, {"w": jnp.ones(2)})
      Traceback (most recent call last):
      ...
      ValueError: scores have not the structure of the parameters: w is missing, v is too much
    """
    if jax.tree.structure(given) != jax.tree.structure(params):
        here, there = tree.paths(given), tree.paths(params)
        missing, more = [p for p in there if p not in here], [p for p in here if p not in there]
        pairs = ((missing, "is missing"), (more, "is too much"))
        said = ", ".join(f"{', '.join(which[:3])} {word}" for which, word in pairs if which)
        raise ValueError(f"{name} have not the structure of the parameters: {said or 'the containers differ'}")
    return jax.tree.leaves(given)


def same_shapes(name: str, given: Any, params: Params, chosen: list[int] | None = None) -> list[Any]:
    """The leaves of a tree that must have the structure and the shapes of the parameters.

    Args:
      name: what they are, in the plural.
      given: the tree.
      params: the parameters.
      chosen: positions of the leaves whose shapes matter; None for all.

    Returns:
      The leaves.

    Raises:
      ValueError: with both shapes.

    Example:
      >>> same_shapes("gradients", {"w": jnp.ones(())}, {"w": jnp.ones(2)})
      Traceback (most recent call last):
      ...
      ValueError: gradients of w have the shape (), but its weights have (2,)
    """
    leaves, weights = same_structure(name, given, params), jax.tree.leaves(params)
    for i in range(len(weights)) if chosen is None else chosen:
        if jnp.shape(leaves[i]) != jnp.shape(weights[i]):
            raise ValueError(
                f"{name} of {tree.paths(params)[i]} have the shape {jnp.shape(leaves[i])}, but its weights have "
                f"{jnp.shape(weights[i])}"
            )
    return leaves
