r"""What a denoiser is trained by: its error in the clean x at random times, given the label.

.. math::
   \mathcal L = E_{t, \varepsilon} \sum_i \frac{w_i}{\sum_j w_j}\, \min(\alpha_t^2 / h_t,\, c)\,
   \big\| \hat x_0(\alpha_t x_i + \sqrt{h_t}\, \varepsilon_i,\, y_i,\, t) - x_i \big\|^2,
   \qquad \log t \sim U(\log t_0, \log T)

Its minimum is the mean of x given the noisy one and the label, so that `score` is the conditional score. Without the
cap c the weight would be that of score matching, in which the smallest times decide everything. The times of a batch
are one random number and even steps from it: each is uniform, and together they cover the range.

Source: Vincent, Neural Computation 23, 2011 (denoising is score matching); Kingma et al., `Variational diffusion models
<https://arxiv.org/abs/2107.00630>`_, 2021 (times of a batch); Yuan et al., 2023 (labels).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jaxfair.inverse.diffusion._checks import check_above_zero, check_finite, check_rows, check_times
from jaxfair.inverse.diffusion.denoisers import Denoiser
from jaxfair.inverse.diffusion.sampling import levels
from jaxfair.tree import copied, updated
from jaxfair.typing import Batch, Key, Params, Solver, check_count


class DenoisingState(NamedTuple):
    """What training a denoiser carries from step to step.

    Attributes:
      params: of the denoiser.
      opt_state: of the optimizer.
      step: scalar int32, the number of steps taken.
    """

    params: Params
    opt_state: Any
    step: jax.Array


class DenoisingInfo(NamedTuple):
    """What a step measured, at the parameters before it.

    Attributes:
      loss: scalar.
    """

    loss: jax.Array


def denoising_loss(
    apply: Callable[..., Array],
    params: Params,
    x: Float[Array, "B D"],
    y: Float[Array, " B"],
    key: Key,
    *,
    weight: Float[Array, " B"] | None = None,
    first: ArrayLike = 1e-3,
    last: ArrayLike = 8.0,
    cap: ArrayLike = 5.0,
) -> Float[Array, ""]:
    """The weighted error in the clean x, at one random time for each example.

    Args:
      apply: ``apply(params, x, y, t) -> [B, D]``.
      params: of the denoiser.
      x: ``[B, D]`` data.
      y: ``[B]`` their pseudo-labels.
      key: of times and noise.
      weight: ``[B]``, 0 for padding.
      first: the smallest time.
      last: the largest.
      cap: of the weight of small times.

    Returns:
      A scalar; 0 for a batch of nobody.

    Raises:
      ValueError: for times or a cap of 0 or less, or out of order, unless traced.

    Example:
      A denoiser that knows the one example makes no error:

      >>> one = jnp.array([[1.0, 2.0]])
      >>> denoising_loss(lambda params, x, y, t: one, {}, one, jnp.zeros(1), jax.random.key(0)).item()
      0.0
    """
    check_times(first, last)
    check_above_zero("cap", cap)
    y = jnp.asarray(y).astype(x.dtype)
    w = jnp.ones_like(y) if weight is None else jnp.asarray(weight).astype(x.dtype)
    there = w > 0
    x, y = jnp.where(there[:, None], x, 0), jnp.where(there, y, 0)
    when, how = jax.random.split(key)
    even = jnp.arange(y.shape[0], dtype=x.dtype) / y.shape[0]
    place = (jax.random.uniform(when, (), x.dtype) + even) % 1.0
    low, high = (jnp.log(jnp.asarray(t, x.dtype)) for t in (first, last))
    t = jnp.exp(low + (high - low) * place)
    alpha, h = levels(t)
    noisy = alpha[:, None] * x + jnp.sqrt(h)[:, None] * jax.random.normal(how, x.shape, x.dtype)
    error = jnp.sum((apply(params, noisy, y, t) - x) ** 2, axis=1)
    error = jnp.minimum(alpha**2 / h, jnp.asarray(cap, x.dtype)) * error
    total = jnp.sum(jnp.where(there, w, 0))
    return jnp.sum(jnp.where(there, w * error, 0)) / jnp.where(total > 0, total, 1)


def solver(
    apply: Callable[..., Array],
    tx: optax.GradientTransformation,
    *,
    first: ArrayLike = 1e-3,
    last: ArrayLike = 8.0,
    cap: ArrayLike = 5.0,
) -> Solver:
    """Makes the solver of a denoiser, for `jaxfair.train.fit` or a loop of one's own.

    Args:
      apply: ``apply(params, x, y, t) -> [B, D]``.
      tx: any optax transformation.
      first: the smallest time.
      last: the largest.
      cap: of the weight of small times.

    Returns:
      The :class:`~jaxfair.typing.Solver`; ``init(params) -> DenoisingState``. Of a batch it reads ``x``, ``y`` (the
      pseudo-labels, floats) and ``weight``.

    Raises:
      ValueError: for times or a cap of 0 or less, or out of order, unless traced.

    Example:
      Data are all at 3, and the denoiser is a constant:

      >>> apply = lambda params, x, y, t: jnp.broadcast_to(params, x.shape)
      >>> descend = solver(apply, optax.sgd(0.1))
      >>> zero = jnp.zeros(64)
      >>> batch = Batch(x=jnp.full((64, 1), 3.0), y=zero, group=zero, index=zero, weight=jnp.ones(64))
      >>> step = lambda state, key: descend.step(state, batch, key)
      >>> state, info = jax.lax.scan(step, descend.init(jnp.zeros(1)), jax.random.split(jax.random.key(0), 50))
      >>> round(float(state.params[0]), 3), bool(info.loss[-1] < 1e-6)
      (3.0, True)
    """
    check_times(first, last)
    check_above_zero("cap", cap)

    def init(params: Params) -> DenoisingState:
        return copied(DenoisingState(params, tx.init(params), jnp.zeros((), jnp.int32)))

    def step(state: DenoisingState, batch: Batch, key: Any) -> tuple[DenoisingState, DenoisingInfo]:
        def of(params: Params) -> Array:
            x, y, weight = (jnp.asarray(a) for a in (batch.x, batch.y, batch.weight))
            return denoising_loss(apply, params, x, y, key, weight=weight, first=first, last=last, cap=cap)

        loss, gradient = jax.value_and_grad(of)(state.params)
        updates, opt_state = updated(tx, gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return DenoisingState(params, opt_state, state.step + 1), DenoisingInfo(loss)

    return Solver(init, step)


class Fitted(NamedTuple):
    """A trained denoiser; made by :func:`fit`.

    Attributes:
      params: after the last step; for ``functools.partial(denoiser.apply, params)``.
      loss: ``[steps]``, before each step.
    """

    params: Params
    loss: Array


def fit(
    denoiser: Denoiser,
    x: ArrayLike,
    labels: ArrayLike,
    key: Key,
    *,
    tx: optax.GradientTransformation,
    steps: int,
    batch_size: int = 256,
) -> Fitted:
    """Trains a denoiser from its start, on batches drawn with replacement: one loop in one program.

    Labels may be traced: ``jax.vmap`` over them trains many networks side by side, from the same start and on the same
    batches. For checkpoints, a stop, or data that do not fit, give :func:`solver` to `jaxfair.train.fit`.

    Args:
      denoiser: with its ``init``.
      x: ``[N, D]`` data.
      labels: ``[N]`` their pseudo-labels.
      key: of all that is random.
      tx: any optax transformation.
      steps: static.
      batch_size: static.

    Returns:
      The :class:`Fitted`.

    Raises:
      ValueError: for shapes that do not fit, numbers that are not finite, and counts below 1.

    Example:
      Data lie on a line, and the label is the place there:

      >>> from jaxfair.inverse import diffusion
      >>> place = jax.random.normal(jax.random.key(0), (500,))
      >>> x = place[:, None] * jnp.array([[0.6, 0.8]])
      >>> net = diffusion.encoder_decoder(2, 1, hidden=(16,))
      >>> found = fit(net, x, place, jax.random.key(1), tx=optax.adam(0.01), steps=200, batch_size=64)
      >>> bool(found.loss[-20:].mean() < 0.5 * found.loss[:20].mean())
      True
    """
    check_rows("x", x, ("labels", labels))
    check_finite("x", x)
    check_finite("labels", labels)
    check_count("steps", steps)
    check_count("batch_size", batch_size)
    data, y = jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.float32)
    descend, (begin, go) = solver(denoiser.apply, tx), jax.random.split(key)

    def step(state: DenoisingState, key: Key) -> tuple[DenoisingState, Array]:
        choose, learn = jax.random.split(key)
        rows = jax.random.randint(choose, (batch_size,), 0, len(data))
        batch = Batch(data[rows], y[rows], rows, rows, jnp.ones(batch_size))
        state, info = descend.step(state, batch, learn)
        return state, info.loss

    state, loss = lax.scan(step, descend.init(denoiser.init(begin)), jax.random.split(go, steps))
    return Fitted(state.params, loss)
