r"""P-DRO: the adversary is a density that moves to where the losses are; examples count by how likely it finds them.

.. math:: w_i \propto p_i\, \frac{q_\psi(z_i)}{q_{\psi_0}(z_i)}, \qquad
   \psi \leftarrow \psi + \mathrm{tx}\Big(\nabla_\psi \sum_i p_i\, e^{\ell_i/\tau - \log Z} \log q_\psi(z_i)\Big)

Three relaxations make a game out of :math:`\min_\theta \max_{\mathrm{KL}(q \| p) \le \kappa} \mathrm E_q\, \ell`; each
is an argument:

1. the density of the data, which nobody has, is replaced by :math:`q_{\psi_0}`, the model at its start, fitted to the
   data by maximum likelihood; or by ``log_p``, where it is known (shares of groups);
2. the ball is replaced by its Lagrangian optimum :math:`q^* \propto p\, e^{\ell / \tau}` at a ``temperature``; or the
   temperature is found in each batch, for a ball of ``radius``;
3. q is fitted to :math:`q^*` by ``fit="reversed"``, a weighted maximum likelihood (the step above), which is no
   zero-sum game any more; or ``"zero_sum"`` ascends the weighted loss itself, less tau times the divergence.

Over cells, the reversed fit tends to :math:`q_c \propto p_c\, \mathrm E[e^{\ell/\tau} | c]`: it runs to *noisy* cells,
where :func:`ratio_dro` runs to hard ones.

How this differs from the authors' code: Z is the mean over the last batches, as a moving average, not their sum;
weights sum to 1 in the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from jaxfair.robust._numbers import check_number
from jaxfair.robust.kullback_leibler import kl_ball_weights
from jaxfair.robust.objective import Objective, effective, nominal
from jaxfair.robust.ratio_dro import normalized_ratios
from jaxfair.typing import Batch


class Density(NamedTuple):
    r"""A model of the examples, such as :func:`cells` and :func:`gaussians`.

    Attributes:
      params: fitted to the data by maximum likelihood: :math:`\psi_0`.
      log_prob: ``log_prob(params, batch) -> [B]``, up to a constant that does not depend on the parameters.
    """

    params: Any
    log_prob: Callable[[Any, Batch], jax.Array]


class DensityState(NamedTuple):
    """The adversary of :func:`parametric_dro`.

    Attributes:
      params: of its density.
      opt_state: of its optimizer.
      log_z: scalar, the moving average of the normaliser, as a logarithm; -inf before the first step.
    """

    params: Any
    opt_state: Any
    log_z: jax.Array


class DensityInfo(NamedTuple):
    """What the density made of a batch.

    Attributes:
      value: scalar, the losses under its weights.
      divergence: scalar, KL of its weights from the nominal ones.
      effective: scalar in (0, 1], the share of the batch that it looks at.
    """

    value: jax.Array
    divergence: jax.Array
    effective: jax.Array


def cells(of: Callable[[Batch], Any], counts: ArrayLike | Sequence[int]) -> Density:
    """A probability for each of some cells: groups, groups by classes, clusters. Its fit is exact: their shares.

    Args:
      of: ``of(batch) -> [B]`` numbers of cells. Whose number is none of them keeps the nominal weight, up to the
        normalisation, and moves nothing.
      counts: ``[cells]`` numbers of training examples, each at least 1.

    Returns:
      The :class:`Density`.

    Raises:
      ValueError: for a cell without a training example: it has no density to compare with.

    Example:
      >>> density = cells(lambda batch: batch.group, [9, 1])
      >>> batch = Batch(None, None, jnp.array([0, 1]), None, None)
      >>> print(np.asarray(jnp.exp(density.log_prob(density.params, batch))).round(3))
      [0.9 0.1]
    """
    known = np.asarray(counts, np.float64)
    if known.ndim != 1 or not (known >= 1).all():
        raise ValueError(
            f"counts={known.tolist()}: give one number for each cell, at least 1: number only those there are."
        )

    def log_prob(params: Any, batch: Batch) -> jax.Array:
        cell, known = jnp.asarray(of(batch)), jax.nn.log_softmax(params)
        there = (cell >= 0) & (cell < len(known))
        return jnp.where(there, known[jnp.where(there, cell, 0)], 0.0)

    return Density(jnp.asarray(np.log(known / known.sum()), jnp.float32), log_prob)


def gaussians(x: Float[np.ndarray, "N *D"], y: np.ndarray, num_classes: int, *, floor: float = 0.5) -> Density:
    """A probability for each class, and a Gaussian with a diagonal covariance for its features.

    Features are measured in units of their deviation over everybody, so that one rate is right for all of them, and a
    column that is constant says nothing.

    Args:
      x: ``[N, ...]`` of the training split.
      y: ``[N]`` classes, of which each has an example.
      num_classes: C.
      floor: what a deviation within a class is at least, in that of everybody. With little of it, one person with a
        rare value in a column that is constant for the others has all the weight.

    Returns:
      The :class:`Density`.

    Raises:
      ValueError: for a class without an example.

    Example:
      >>> density = gaussians(np.array([[0.0], [2.0], [4.0]]), np.array([0, 0, 1]), 2)
      >>> [round(float(m), 2) for m in density.params["mean"][:, 0]]
      [-0.61, 1.22]
    """
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    absent = set(range(num_classes)) - set(np.asarray(y).tolist())
    if absent:
        raise ValueError(f"class {min(absent)} has no training example: a density of it cannot be fitted.")
    middle, spread = flat.mean(0), flat.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    of_class = [(flat[np.asarray(y) == c] - middle) / spread for c in range(num_classes)]
    params = {
        "share": jnp.asarray([np.log(len(rows) / len(flat)) for rows in of_class], jnp.float32),
        "mean": jnp.asarray(np.stack([rows.mean(0) for rows in of_class]), jnp.float32),
        "log_scale": jnp.asarray(np.log(np.stack([np.maximum(r.std(0), floor) for r in of_class])), jnp.float32),
    }
    middle, spread = middle.astype(np.float32), spread.astype(np.float32)

    def log_prob(params: Any, batch: Batch) -> jax.Array:
        y = jnp.asarray(batch.y)
        mean, log_scale = params["mean"][y], params["log_scale"][y]
        unit = (jnp.asarray(batch.x).reshape(len(y), -1) - middle[None]) / spread[None]
        from_mean = (unit - mean) * jnp.exp(-log_scale)
        return jax.nn.log_softmax(params["share"])[y] - jnp.sum(0.5 * from_mean**2 + log_scale, axis=1)

    return Density(params, log_prob)


def parametric_dro(
    density: Density,
    optimizer: optax.GradientTransformation,
    *,
    temperature: ArrayLike | None = None,
    radius: ArrayLike | None = None,
    fit: str = "reversed",
    log_p: Callable[[Batch], jax.Array] | None = None,
    decay: ArrayLike = 0.8,
) -> Objective:
    r"""Trains against a density that moves to where the losses are.

    Args:
      density: such as :func:`cells`; always fitted to the data before.
      optimizer: of the density's parameters, descending.
      temperature: :math:`\tau` above 0; a large one is ordinary training.
      radius: :math:`\kappa` above 0 in place of a temperature: it is found in each batch, see :func:`kl_ball`.
      fit: ``"reversed"`` or ``"zero_sum"``; the latter needs a temperature.
      log_p: ``log_p(batch) -> [B]``, the density of the data where it is known; by default that at the start.
      decay: of the moving average of Z, in [0, 1): 0 normalises each batch by itself.

    Returns:
      The :class:`Objective`; ``init(key, batch)`` must be called.

    Raises:
      ValueError: for both or none of temperature and radius, numbers out of range unless traced, or an unknown word.

    Example:
      >>> density = cells(lambda batch: batch.group, [1, 1])
      >>> objective = parametric_dro(density, optax.sgd(0.5), temperature=1.0)
      >>> batch = Batch(None, None, jnp.array([0, 1]), None, jnp.ones(2))
      >>> state = objective.init(jax.random.key(0), batch)
      >>> for _ in range(100):
      ...     weights, state, info = objective.weigh(state, jnp.array([0.0, 1.0]), batch, None)
      >>> print(np.asarray(weights).round(3))
      [0.269 0.731]

    References:
      Michel et al., `Modeling the second player in distributionally robust optimization
      <https://arxiv.org/abs/2103.10282>`_, 2021.
    """
    if (temperature is None) == (radius is None):
        raise ValueError(f"temperature={temperature} and radius={radius}: give one of them.")
    if fit not in ("reversed", "zero_sum") or (fit == "zero_sum" and temperature is None):
        raise ValueError(f"fit={fit!r}: choose 'reversed', or 'zero_sum' with a temperature.")
    if temperature is not None:
        check_number(temperature, lambda t: t > 0, f"temperature={temperature}: give a number above 0.")
    if radius is not None:
        check_number(radius, lambda r: (r > 0) & np.isfinite(r), f"radius={radius}: give a number above 0.")
    check_number(decay, lambda d: (d >= 0) & (d < 1), f"decay={decay}: give a number from 0 to below 1.")
    tau = jnp.asarray(jnp.inf if temperature is None else temperature)
    kept = jnp.asarray(decay)

    def init(key: Any, batch: Batch) -> DensityState:
        del key, batch
        return DensityState(density.params, optimizer.init(density.params), jnp.asarray(-jnp.inf))

    def target(losses: Array, p: Array, log_z: Array) -> tuple[Array, Array]:
        """How much each example counts in the fit, and the normaliser."""
        if radius is not None:
            return kl_ball_weights(losses, p, radius), log_z
        log_mean = jax.nn.logsumexp(losses / tau, b=jnp.where(jnp.any(p > 0), p, 1.0))
        # -inf before the first step: then it is this batch's own.
        log_z = jnp.where(
            jnp.isneginf(log_z), log_mean, jnp.logaddexp(log_z + jnp.log(kept), log_mean + jnp.log1p(-kept))
        )
        return p * jnp.exp(losses / tau - log_z), log_z

    def weigh(
        state: DensityState, losses: Float[Array, " B"], batch: Batch, key: Any
    ) -> tuple[Float[Array, " B"], DensityState, DensityInfo]:
        del key
        p = nominal(batch)
        base = density.log_prob(density.params, batch) if log_p is None else log_p(batch)
        wanted, log_z = target(losses, p, state.log_z)

        def played(params: Any) -> tuple[Array, tuple[Array, Array]]:
            log_q = density.log_prob(params, batch)
            log_ratio, weights = normalized_ratios(log_q - base, p)
            divergence = jnp.sum(jnp.where(p > 0, weights * log_ratio, 0.0))
            if fit == "zero_sum":
                return tau * divergence - jnp.sum(weights * losses), (weights, divergence)
            return -jnp.sum(wanted * jnp.where(p > 0, log_q, 0.0)), (weights, divergence)

        (_, (weights, divergence)), gradient = jax.value_and_grad(played, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        moved = DensityState(optax.apply_updates(state.params, updates), opt_state, log_z)
        return weights, moved, DensityInfo(jnp.sum(weights * losses), divergence, effective(weights, p))

    return Objective(init, weigh)
