"""What the methods that evaluate the field again ask of their callers.

They are called as ``update(field, state, params, operator_fn=..., independent_operator_fn=...,
mean_operator_fn=..., field=field)``:

- ``operator_fn(w)`` is the field on this minibatch, the one that ``field`` was computed on;
- ``independent_operator_fn(w)`` is the field on a fresh minibatch of the same distribution;
- ``mean_operator_fn(w)`` is the field on all data;
- ``field=`` is optional: the very tree that is passed first. With it, a transformation that stands in front and
  changes the field (a clip, a moment, `optax.MultiSteps`) is an error. Without it the method cannot know
  that the field it sees is not ``operator_fn(params)``, and a clip in front of an extragradient
  diverges silently.

Arguments that a method does not know are ignored.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

#: Where a second evaluation takes its sample from.
Samples: TypeAlias = Literal["same", "independent"]
#: ``w -> field``, both of the structure of the joint tree.
Operator: TypeAlias = Callable[[Any], Any]


def check_samples(samples: str) -> None:
    """Refuses a word that is neither ``"same"`` nor ``"independent"``.

    Raises:
      ValueError: which names both.

    Example:
      >>> check_samples("fresh")
      Traceback (most recent call last):
      ...
      ValueError: samples must be 'same' or 'independent', but it is 'fresh'
    """
    if samples not in ("same", "independent"):
        raise ValueError(f"samples must be 'same' or 'independent', but it is {samples!r}")


def require_joint(method: str, tree: Any) -> None:
    """Refuses a tree from which `optax.partition` or `optax.masked` has taken leaves out.

    Raises:
      ValueError: which says where the method may stand.
    """

    def is_gap(node):
        return isinstance(node, optax.MaskedNode)

    if any(map(is_gap, jax.tree.leaves(tree, is_leaf=is_gap))):
        raise ValueError(
            f"{method} evaluates the field of all players again, so it needs their joint tree; it cannot stand "
            "inside optax.partition or optax.masked. Put it outermost, and give players their own rates by a tree"
        )


def require_untouched(method: str, updates: Any, field: Any) -> None:
    """Refuses updates that are not the field itself, leaf for leaf the same object.

    Raises:
      ValueError: which says where the method may stand. Never where `field` is None.
    """
    if field is None:
        return
    ours, theirs = jax.tree.leaves(updates), jax.tree.leaves(field)
    if len(ours) != len(theirs) or any(a is not b for a, b in zip(ours, theirs, strict=True)):
        raise ValueError(
            f"{method} must come first and see the field as it is: something before it (a clip, a moment, "
            "optax.MultiSteps) changed it, and the evaluations to come would not be changed with it"
        )


def require_params(method: str, params: Any) -> None:
    """Refuses None.

    Raises:
      ValueError: which shows the call.
    """
    if params is None:
        raise ValueError(f"{method} needs the parameters; call update(field, state, params)")


def require_start(method: str, updates: Any, params: Any, field: Any) -> None:
    """All that a method of several evaluations needs before the first: parameters, and the field as it is."""
    require_joint(method, updates)
    require_untouched(method, updates, field)
    require_params(method, params)


def require_operator(method: str, name: str, operator: Operator | None) -> Operator:
    """The operator, if it was passed.

    Raises:
      ValueError: which shows the call.
    """
    if operator is None:
        raise ValueError(f"{method} needs {name}; call update(field, state, params, {name}=...)")
    return operator


def second_operator(
    method: str,
    samples: Samples,
    operator_fn: Operator | None,
    independent_operator_fn: Operator | None,
) -> Operator:
    """The operator of the second evaluation: on the same minibatch or on an independent one."""
    if samples == "same":
        return require_operator(method, "operator_fn", operator_fn)
    return require_operator(method, "independent_operator_fn", independent_operator_fn)


def require_real(method: str, tree: Any) -> None:
    """Refuses complex leaves, where a method multiplies by the transpose of the Jacobian.

    Raises:
      TypeError: which names the method.
    """
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(tree)):
        raise TypeError(f"{method} is defined for real parameters; pass real and imaginary parts")


def players(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The entries at the top of a joint tree, and the function that puts them together again.

    Example:
      >>> parts, together = players({"x": {"w": 1, "b": 2}, "y": 3})
      >>> parts
      [{'w': 1, 'b': 2}, 3]
      >>> together([0, 0])
      {'x': 0, 'y': 0}
    """
    parts, treedef = jax.tree.flatten(tree, is_leaf=lambda node: node is not tree)
    return parts, treedef.unflatten


def off_diagonal(jvp: Operator, tangent: Any) -> Any:
    """What the moves of the other players change in each player's field.

    Args:
      jvp: ``v -> J v``, J the Jacobian of the joint field.
      tangent: v; its top entries are the players.

    Returns:
      ``J v`` without the blocks on the diagonal; one product per player.

    Example:
      >>> def field(w):
      ...     return {"x": 5 * w["x"] + 2 * w["y"], "y": -2 * w["x"] + 7 * w["y"]}
      >>> off_diagonal(field, {"x": jnp.ones(1), "y": jnp.full(1, 10.0)})
      {'x': Array([20.], dtype=float32), 'y': Array([-2.], dtype=float32)}
    """
    parts, together = players(tangent)
    blocks = []
    for i, part in enumerate(parts):
        others = [*parts[:i], optax.tree.zeros_like(part), *parts[i + 1 :]]
        blocks.append(players(jvp(together(others)))[0][i])
    return together(blocks)


def hamiltonian_gradient(
    method: str,
    samples: Samples,
    updates: Any,
    params: Any,
    operator_fn: Operator | None,
    independent_operator_fn: Operator | None,
) -> tuple[Any, int]:
    """The gradient ``J' F`` of ``|F|^2 / 2``, and what it cost beyond the field that is passed.

    Args:
      method: the name for errors.
      samples: ``"same"``: ``J_i' F_i``. ``"independent"``: ``(J_i' F_j + J_j' F_i) / 2``, which is unbiased.
      updates: F_i at `params`, i the minibatch of `operator_fn`.
      params: the joint tree.
      operator_fn: F_i.
      independent_operator_fn: F_j.

    Returns:
      The gradient in the dtypes of `updates`, and the number of evaluations and VJPs.
    """
    require_real(method, updates)
    ours = require_operator(method, "operator_fn", operator_fn)
    # A cotangent has the dtype of the field, which need not be that of the parameters.
    our_field, vjp = jax.vjp(ours, params)
    if samples == "same":
        return optax.tree.cast_like(vjp(optax.tree.cast_like(updates, our_field))[0], updates), 1
    theirs = require_operator(method, "independent_operator_fn", independent_operator_fn)
    their_field, their_vjp = jax.vjp(theirs, params)
    ours_there = their_vjp(optax.tree.cast_like(updates, their_field))[0]
    both = optax.tree.add(vjp(optax.tree.cast_like(their_field, our_field))[0], ours_there)
    return optax.tree.cast_like(optax.tree.scale(0.5, both), updates), 3
