"""What the optimizer inside a pruner sees of the gradient elsewhere: the same as of the gradient here.

A transformation that evaluates the gradient again (`jaxfair.optim.scale_by_sam`) is given functions for it. A pruner
changes the gradient before the inner optimizer sees it, and has to change what these functions give in the same way.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxfair.sparsity._masks import apply_masks

#: The functions of parameters, as `jaxfair.optim` names them.
NAMES = ("operator_fn", "independent_operator_fn", "mean_operator_fn")


def seen_within(extra: dict[str, Any], change: Callable[[Any, Any], Any], raw: Any, changed: Any) -> dict[str, Any]:
    """The extra arguments of an inner optimizer.

    Args:
      extra: those of the outer one.
      change: ``change(gradient, params) -> gradient``, what is done to a gradient at these parameters.
      raw: the gradient that the outer one was given.
      changed: what the inner one is given, ``change(raw, params)``.

    Returns:
      The arguments; ``field=``, if it is the raw gradient, is the changed one.

    Example:
      >>> double = lambda gradient, params: 2 * gradient
      >>> seen_within({"operator_fn": lambda w: w + 1, "key": 7}, double, 1.0, 2.0)["operator_fn"](3)
      8
    """
    found = dict(extra)
    for name in NAMES:
        if found.get(name) is not None:
            found[name] = lambda params, of=extra[name]: change(of(params), params)
    ours, theirs = jax.tree.leaves(raw), jax.tree.leaves(extra.get("field"))
    if len(ours) == len(theirs) and all(a is b for a, b in zip(ours, theirs, strict=True)):
        found["field"] = changed
    return found


def masked_within(extra: dict[str, Any], gradients: Any, masks: Any) -> tuple[Any, dict[str, Any]]:
    """The masked gradients, and the extra arguments that go with them.

    Example:
      >>> import jax.numpy as jnp
      >>> kept = {"w": jnp.array([True, False])}
      >>> masked, extra = masked_within({"operator_fn": lambda w: w}, {"w": jnp.ones(2)}, kept)
      >>> masked["w"].tolist(), extra["operator_fn"]({"w": jnp.full(2, 3.0)})["w"].tolist()
      ([1.0, 0.0], [3.0, 0.0])
    """
    masked = apply_masks(gradients, masks)
    return masked, seen_within(extra, lambda g, _: apply_masks(g, masks), gradients, masked)
