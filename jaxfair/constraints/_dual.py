"""The optimizer of the multipliers, mapped over the constraints: each moves by itself, maybe at a rate of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int


def update_rows(
    dual: optax.GradientTransformation,
    field: Float[Array, " R"],
    state: Any,
    values: Float[Array, " R"],
    number: Int[Array, " R"],
) -> tuple[Float[Array, " R"], Any]:
    """One step of the dual optimizer on every row by itself.

    A transformation that has a number for each of K constraints, such as ``optax.sgd(jnp.array([0.1, 0.2]))``, answers
    each row with K updates, of which its own is taken: K^2 numbers a step.

    Args:
      dual: the optimizer.
      field: what it is given.
      state: its state, every leaf ``[R, ...]``.
      values: the multipliers.
      number: which constraint a row is.

    Example:
      >>> dual, one = optax.sgd(jnp.array([0.1, 0.2, 0.4])), jnp.ones(2)
      >>> update_rows(dual, one, jax.vmap(dual.init)(one), one, jnp.array([2, 0]))[0]
      Array([-0.4, -0.1], dtype=float32)
    """
    updates, after = jax.vmap(dual.update)(field, state, values)

    def own(leaf: jax.Array, like: jax.Array) -> jax.Array:
        if leaf.ndim == like.ndim:
            return leaf
        at = number.reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.take_along_axis(leaf, at, axis=-1, mode="clip")[..., 0]

    return own(jnp.asarray(updates), values), jax.tree.map(own, after, state)


def refuse_mixing(dual: optax.GradientTransformation, num: int | None) -> None:
    """Raises if the dual optimizer treats a vector of multipliers otherwise than each of them by itself.

    The step maps the optimizer over the constraints, so a global clip would quietly become a clip of each one. Two
    steps on multipliers of very different violations show it.

    Args:
      dual: the optimizer.
      num: K.

    Raises:
      ValueError: for one that mixes, and for numbers that are not one for each constraint.

    Example:
      >>> refuse_mixing(optax.sgd(jnp.array([0.1, 0.2])), 3)
      Traceback (most recent call last):
        ...
      ValueError: dual= has 2 numbers for 3 constraints: give one for all, or one for each.
    """
    numbers = _numbers_of(dual)
    if numbers is not None and numbers != num:
        raise ValueError(f"dual= has {numbers} numbers for {num} constraints: give one for all, or one for each.")
    row = np.arange(2 if numbers is None else numbers)
    values, field = jnp.where(row % 2, 2.0, 0.5), jnp.where(row % 2, -1e3, 1e-3)
    together, apart = dual.init(values), jax.vmap(dual.init)(values)
    for _ in range(2):
        joint, together = dual.update(field, together, values)
        each, apart = update_rows(dual, field, apart, values, jnp.asarray(row))
        same = jnp.allclose(jnp.asarray(joint), jnp.asarray(each), rtol=1e-5, equal_nan=True)
        if isinstance(same, Tracer):
            return  # a learning rate that is being traced cannot be looked at
        if not same:
            raise ValueError(
                "dual= mixes the constraints (a clip by global norm does): the multipliers are updated each by itself, "
                "so give a transformation that acts on every element alone, such as optax.clip."
            )


def _numbers_of(dual: optax.GradientTransformation) -> int | None:
    """How many numbers the dual optimizer has, one for each constraint; None where it has one for all."""

    def update() -> Any:
        one = jnp.ones(())
        return jnp.asarray(dual.update(one, dual.init(one), one)[0])

    try:
        shape = jax.eval_shape(update).shape
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"dual= does not move a single multiplier ({str(error).splitlines()[0]}): "
            "give a rate for each constraint as an array, such as optax.sgd(jnp.array([0.1, 0.2]))."
        ) from error
    if len(shape) > 1:
        raise ValueError(f"dual= moves a single multiplier by an update of shape {shape}: give one number for each.")
    return shape[0] if shape else None
