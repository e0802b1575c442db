r"""What an adversary over examples is: weights for the losses of a batch. One seam for all robust objectives.

.. math:: \min_\theta \max_{w \in \mathcal W} \sum_i w_i\, \ell_i(\theta), \qquad w_i \ge 0, \quad \sum_i w_i = 1

The nominal weights are :math:`p_i = \mathrm{weight}_i / \sum_j \mathrm{weight}_j`; with :math:`w = p` it is ordinary
training. By Danskin's theorem the gradient of the maximum is :math:`\sum_i w_i \nabla \ell_i` with w held fixed, so the
step goes down that. Without the fixing (as in the non-parametric baselines of P-DRO's code) examples with small losses
are pushed *up*.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxfair.typing import Batch


class Objective(NamedTuple):
    """An adversary as two functions: what :func:`jaxfair.robust.solver` trains a network against.

    Attributes:
      init: ``init(key, batch) -> state`` of the adversary, from a key and one batch, of which only shapes matter.
        ``()`` where it has none.
      weigh: ``weigh(state, losses [B], batch, key) -> (weights [B], state, info)``, pure. The losses come without a
        gradient; ``info.value`` is what the adversary makes of them, before anything has moved.

    Example:
      An adversary of one's own, all the weight on the worst example:

      >>> def worst(state, losses, batch, key):
      ...     weights = jax.nn.one_hot(jnp.argmax(jnp.where(batch.weight > 0, losses, -jnp.inf)), len(losses))
      ...     return weights, state, Best(jnp.sum(weights * losses), jnp.sum(weights > 0) / len(losses))
      >>> objective = Objective(init=lambda key, batch: (), weigh=worst)
      >>> batch = Batch(None, None, None, None, jnp.array([1.0, 1.0, 0.0]))
      >>> objective.weigh((), jnp.array([1.0, 2.0, 9.0]), batch, None)[0].tolist()
      [0.0, 1.0, 0.0]
    """

    init: Callable[[Any, Batch], Any]
    weigh: Callable[[Any, jax.Array, Batch, Any], tuple[jax.Array, Any, Any]]


class Best(NamedTuple):
    r"""What the best response to the losses of a batch was.

    Attributes:
      value: scalar, the objective on this batch.
      effective: scalar in (0, 1], the share of the batch that it looks at, :math:`1 / \sum_i w_i^2 / p_i`; 1 for the
        mean.
    """

    value: jax.Array
    effective: jax.Array


def nominal(batch: Batch) -> Float[Array, " B"]:
    """The nominal weights p of a batch: in proportion to its weights, summing to 1; all 0 for a batch of nobody.

    Example:
      >>> nominal(Batch(None, None, None, None, jnp.array([1.0, 3.0, 0.0]))).tolist()
      [0.25, 0.75, 0.0]
    """
    weight = jnp.maximum(jnp.asarray(batch.weight).astype(jnp.float32), 0.0)
    total = jnp.sum(weight)
    return weight / jnp.where(total == 0, 1.0, total)


def best_response(
    weights_of: Callable[[jax.Array, jax.Array], jax.Array],
    value_of: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = lambda losses, p, w: jnp.sum(w * losses),
) -> Objective:
    """The objective of an adversary without memory, from its answer to the losses.

    Args:
      weights_of: ``weights_of(losses [B], p [B]) -> w [B]``, such as :func:`cvar_weights` with its level filled in.
      value_of: ``value_of(losses, p, w) -> scalar``, where the objective is not the weighted mean.

    Example:
      >>> plain = best_response(lambda losses, p: p)
      >>> batch = Batch(None, None, None, None, jnp.ones(2))
      >>> weights, _, info = plain.weigh((), jnp.array([1.0, 2.0]), batch, None)
      >>> weights.tolist(), float(info.value), float(info.effective)
      ([0.5, 0.5], 1.5, 1.0)
    """

    def weigh(state: Any, losses: Float[Array, " B"], batch: Batch, key: Any) -> tuple[jax.Array, Any, Best]:
        del key
        p = nominal(batch)
        w = weights_of(losses, p)
        return w, state, Best(value_of(losses, p, w), effective(w, p))

    return Objective(lambda key, batch: (), weigh)


def effective(w: Float[Array, " B"], p: Float[Array, " B"]) -> Float[Array, ""]:
    """The share of the examples that weights look at: 1 for the nominal ones, p for one example alone.

    Example:
      >>> float(effective(jnp.array([0.0, 1.0]), jnp.array([0.75, 0.25])))
      0.25
    """
    spread = jnp.sum(jnp.where(p > 0, w**2 / jnp.where(p > 0, p, 1.0), 0.0))
    return 1.0 / jnp.where(spread > 0, spread, 1.0)


def erm() -> Objective:
    """Empirical risk minimisation, w = p: ordinary training, through the same step as the others.

    Example:
      >>> batch = Batch(None, None, None, None, jnp.array([1.0, 1.0, 0.0]))
      >>> erm().weigh((), jnp.array([1.0, 2.0, 9.0]), batch, None)[0].tolist()
      [0.5, 0.5, 0.0]
    """
    return best_response(lambda losses, p: p)


def spread_out(losses: Float[Array, " B"], p: Float[Array, " B"]) -> tuple[Float[Array, " B"], Float[Array, ""]]:
    """Losses moved and scaled to [0, 1] over the examples that count, and the scale; all 0 where they are equal.

    Negative losses, losses of all zeros and large ones are no cases of their own then. (Divided by their largest, as
    published, zeros give nan and negative losses wrong weights.)

    Example:
      >>> spread_out(jnp.array([-1.0, 3.0, 99.0]), jnp.array([0.5, 0.5, 0.0]))[0].tolist()
      [0.0, 1.0, 0.0]
    """
    low = jnp.min(jnp.where(p > 0, losses, jnp.inf))
    high = jnp.max(jnp.where(p > 0, losses, -jnp.inf))
    scale = high - low
    # A nan among them makes every weight nan: it ends the run aloud, and never counts 0.
    unit = (losses - low) / jnp.where(scale > 0, scale, jnp.where(scale == 0, 1.0, scale))
    return jnp.where(p > 0, unit, 0.0), scale
