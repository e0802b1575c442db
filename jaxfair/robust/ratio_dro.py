r"""RP-DRO: the adversary is a network that says of each example how much more it should count.

.. math:: r_i \propto p_i\, e^{s_\psi(x_i, y_i)} \;\; \text{in the batch}, \qquad
   \min_\theta \max_\psi \; \sum_i r_i \ell_i(\theta) - \tau \sum_i r_i \log (r_i / p_i)

:math:`s_\psi(x, y)` is the logit of class y of a classifier. Both networks take one step on each batch, against each
other's values before it. A step costs that of both networks: twice an ordinary one for an adversary of the same size.
With an adversary that can say anything, :math:`r_i \propto p_i e^{\ell_i/\tau}`, the answer of :func:`kl_penalty`; over
cells c it tends to :math:`q_c \propto p_c\, e^{\mathrm E[\ell | c] / \tau}`: it runs to *hard* cells, where
:func:`parametric_dro` runs to noisy ones.

How this differs from the authors' code: the adversary's last layer starts at 0, so that the first step is ordinary
training (there it is commented out); weights sum to 1, not to the batch's size. Ratios are normalised in the batch.
A small temperature is dangerous: the adversary gains by picking examples whose labels are wrong.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from jaxfair.robust._numbers import check_number
from jaxfair.robust.objective import Objective, effective, nominal
from jaxfair.tree import map_with_path
from jaxfair.typing import Batch, Model, split_of


class RatioState(NamedTuple):
    """The adversary of :func:`ratio_dro`.

    Attributes:
      params: of its network.
      model_state: its state, such as BatchNorm statistics; it runs in evaluation mode, so they stay.
      opt_state: of its optimizer.
    """

    params: Any
    model_state: Any
    opt_state: Any


class RatioInfo(NamedTuple):
    """What the adversary made of a batch.

    Attributes:
      value: scalar, the losses under its weights; what it pays for them is not in it.
      divergence: scalar, KL of its weights from the nominal ones.
      effective: scalar in (0, 1], the share of the batch that it looks at.
    """

    value: jax.Array
    divergence: jax.Array
    effective: jax.Array


def ratio_dro(
    adversary: Model,
    optimizer: optax.GradientTransformation,
    *,
    temperature: ArrayLike,
) -> Objective:
    r"""Trains against a network that weighs the examples of each batch.

    Args:
      adversary: a classifier of the same inputs and classes, often smaller than the network, that knows its last layer
        (``split``): every model of `jaxfair.models` does.
      optimizer: of the adversary, descending.
      temperature: :math:`\tau` above 0, what distance from the nominal weights costs. A large one is ordinary training.

    Returns:
      The :class:`Objective`; ``init(key, batch)`` makes the adversary, and must be called.

    Raises:
      ValueError: for a temperature that is not above 0, unless traced, and an adversary that does not know its last
        layer.

    Example:
      A linear adversary that sees nothing but the class learns that class 1 is lost:

      >>> from jaxfair import models
      >>> objective = ratio_dro(models.mlp(2, hidden=()), optax.sgd(1.0), temperature=1.0)
      >>> batch = Batch(jnp.zeros((2, 1)), jnp.array([0, 1]), None, None, jnp.ones(2))
      >>> state = objective.init(jax.random.key(0), batch)
      >>> for _ in range(50):
      ...     weights, state, info = objective.weigh(state, jnp.array([0.0, 1.0]), batch, None)
      >>> print(np.asarray(weights).round(3), round(float(info.divergence), 3))
      [0.269 0.731] 0.111

    References:
      Michel et al., `Distributionally robust models with parametric likelihood ratios
      <https://arxiv.org/abs/2204.06340>`_, 2022.
    """
    check_number(temperature, lambda t: np.asarray(t) > 0, f"temperature={temperature}: give a number above 0.")
    in_head = split_of(adversary).in_head

    def init(key: Any, batch: Batch) -> RatioState:
        params, model_state = adversary.init(key, batch.x)
        params = map_with_path(lambda path, leaf: jnp.zeros_like(leaf) if in_head(path) else leaf, params)
        return RatioState(params, model_state, optimizer.init(params))

    def weigh(
        state: RatioState, losses: Float[Array, " B"], batch: Batch, key: Any
    ) -> tuple[Float[Array, " B"], RatioState, RatioInfo]:
        del key
        p = nominal(batch)

        def played(params: Any) -> tuple[Array, tuple[Array, Array]]:
            logits, _ = adversary.apply(params, state.model_state, batch.x, train=False)
            scores = jnp.take_along_axis(logits, jnp.asarray(batch.y)[:, None], axis=1, mode="clip")[:, 0]
            log_ratio, weights = normalized_ratios(scores, p)
            divergence = jnp.sum(jnp.where(p > 0, weights * log_ratio, 0.0))
            return jnp.asarray(temperature) * divergence - jnp.sum(weights * losses), (weights, divergence)

        (_, (weights, divergence)), gradient = jax.value_and_grad(played, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        moved = RatioState(optax.apply_updates(state.params, updates), state.model_state, opt_state)
        info = RatioInfo(jnp.sum(weights * losses), divergence, effective(weights, p))
        return weights, moved, info

    return Objective(init, weigh)


def normalized_ratios(
    scores: Float[Array, " B"], p: Float[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    r"""Log-ratios :math:`s_i - \log \sum_j p_j e^{s_j}` and weights :math:`p_i e^{\text{log-ratio}_i}`, summing to 1.

    Example:
      >>> log_ratio, weights = normalized_ratios(jnp.array([0.0, jnp.log(3.0), 99.0]), jnp.array([0.5, 0.5, 0.0]))
      >>> weights.round(6).tolist()
      [0.25, 0.75, 0.0]
    """
    there = p > 0
    scores = jnp.where(there, scores, 0.0)
    log_ratio = scores - jax.nn.logsumexp(scores, b=jnp.where(jnp.any(there), p, 1.0))
    return log_ratio, jnp.where(there, p * jnp.exp(log_ratio), 0.0)
