"""What one look at a constrained problem returns: the loss, and every constraint twice."""

from typing import Any, NamedTuple

import jax
from jaxtyping import ArrayLike


class Evaluation(NamedTuple):
    r"""The loss and the constraints at some parameters, on some batch.

    A constraint has a **proxy**, which is differentiable and gives the weights their direction, and a **strict**
    value, which is the truth and moves the multipliers. They may differ: accuracy has no gradient, cross entropy
    has. Inequalities are :math:`g \le 0`, equalities :math:`h = 0`. For a constraint that is differentiable
    itself, give the same array twice.

    An unobserved proxy may be anything but nan in its *derivative*: 0 times nan is nan. So divide by a number that is
    never 0, ``jnp.sum(m * p) / jnp.where(n > 0, n, 1.0)`` with ``n = jnp.sum(m)``, and not by ``n`` itself.

    Attributes:
      loss: scalar, differentiable.
      proxy: ``[K]``, differentiable.
      strict: ``[K]``.
      proxy_observed: ``[K]`` bool, or a scalar for all: whether this batch says anything about the proxy. An
        unobserved proxy has no part in this step's direction.
      strict_observed: ``[K]`` bool, or a scalar for all: whether ``strict`` is known; nan never is. An unobserved
        constraint keeps its multiplier, and the state of the multiplier's optimizer. Its strict value is taken for 0
        by every formulation.
      carry: what the next evaluation starts from: model state, memories, constants. A pytree of arrays with the
        same structure that came in.
      aux: anything to look at, returned in ``Info.aux``.
      index: ``[R]`` integers, for `constraints.indexed`: the numbers of the R constraints that ``proxy`` and
        ``strict``, then ``[R]``, speak of; K for a row that stands for nothing. Of a constraint that is named more
        than once, the last row counts.
      features: ``[R, F]`` or a tree of such, for `constraints.implicit`.
      strict_error: ``[K]``, the standard errors of ``strict``, where they are known.

    Example:
      Minimise ``|x|^2`` subject to ``x_0 + x_1 >= 1``:

      >>> import jax.numpy as jnp
      >>> def evaluate(params, carry, batch, key):
      ...     violation = jnp.array([1.0 - params.sum()])
      ...     return Evaluation(loss=jnp.sum(params**2), proxy=violation, strict=violation, carry=carry)
      >>> evaluate(jnp.array([0.25, 0.25]), (), None, None).strict
      Array([0.5], dtype=float32)
    """

    loss: jax.Array
    proxy: jax.Array
    strict: jax.Array
    proxy_observed: ArrayLike = True
    strict_observed: ArrayLike = True
    carry: Any = ()
    aux: Any = ()
    index: Any = None
    features: Any = None
    strict_error: Any = None
