"""An iteration that is differentiated step by step, in little memory."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def unroll(step: Callable[[Any, Any], Any], x: Any, a: Any, *, length: int, segments: int | None = None) -> Any:
    r"""N steps of an iteration, to be differentiated step by step with the memory of :math:`2 \sqrt n`.

    The states at the ends of the segments are kept, and a segment is computed again on the way back: one more forward
    pass for the memory of a square root.

    Args:
      step: ``step(x, a) -> x``.
      x: where it starts.
      a: a tree, the same at each step.
      length: n.
      segments: into how many the steps are cut; about :math:`\sqrt n` by default. n where a step is kept by itself.

    Returns:
      The last x.

    Raises:
      ValueError: for segments outside of 1 to n.

    Example:
      >>> import jax.numpy as jnp
      >>> decay = lambda x, a: a * x
      >>> jax.grad(lambda a: unroll(decay, jnp.array(1.0), a, length=3))(jnp.array(2.0)).item()
      12.0
    """
    parts = max(round(length**0.5), 1) if segments is None else segments
    if length and not 1 <= parts <= length:
        raise ValueError(f"segments={segments}: cut {length} steps into at least 1 segment and at most {length}.")
    if not length:
        return x
    each, more = divmod(length, parts)

    def run(x: Any, steps: int) -> Any:
        return lax.scan(lambda x, _: (step(x, a), None), x, length=steps)[0]

    def segment(x: Any, _: Any) -> tuple[Any, None]:
        return jax.checkpoint(lambda x: run(x, each), prevent_cse=False)(x), None

    x, _ = lax.scan(segment, x, length=parts)
    return jax.checkpoint(lambda x: run(x, more), prevent_cse=False)(x) if more else x
