r"""Designs from noise: the way back of an Ornstein-Uhlenbeck process, under a label that is asked for.

Forward, :math:`x_t = \alpha_t x_0 + \sqrt{h_t}\, \varepsilon` with :math:`\alpha_t = e^{-t/2}`,
:math:`h_t = 1 - e^{-t}`. A step back from t to s draws from the law of :math:`x_s` given :math:`x_t` and the denoiser's
:math:`\hat x_0`, which is Gaussian:

.. math::
   x_s \sim N\Big( \frac{a\, h_s\, x_t + \alpha_s\, h_{ts}\, \hat x_0}{h_t},\; \frac{h_{ts} h_s}{h_t} I \Big),
   \qquad a = \frac{\alpha_t}{\alpha_s},\; h_{ts} = 1 - a^2

Times are spaced evenly in their logarithm: near 0 the law changes by factors, which even steps would jump over. A step
knows the mean of the clean x and not its spread, so that designs are a little less spread than the law: with 100 steps
a variance of 1 becomes 0.94, and one of 1/65 (along the reward, at a noise of 1/8) nine tenths of itself; with even
steps 0.81, and a fifth. The mean is exact. The last step returns :math:`\hat x_0` itself; the raw :math:`x_t` would
carry noise of :math:`h_t` in each dimension, and a penalty on that is no error of learning.

Source: Ho, Jain and Abbeel, `Denoising diffusion probabilistic models <https://arxiv.org/abs/2006.11239>`_, 2020 (the
posterior); Yuan et al., 2023 (labels).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jaxfair.inverse.diffusion._checks import check_finite, check_times
from jaxfair.typing import Key, check_count

#: ``denoise(x [N, D], y [N], t [N]) -> [N, D]``: the mean of x_0 given x_t = x and the label y.
Denoise = Callable[[Array, Array, Array], Array]


class Samples(NamedTuple):
    """Designs; made by :func:`sample`.

    Attributes:
      x: ``[N, D]``.
      extrapolation: of the target's shape, how many standard deviations it lies above the mean of the labels that were
        trained on. Beyond what was seen (about 4 with 65,536 labels) a design is the network's guess.
    """

    x: Array
    extrapolation: Array


def levels(t: ArrayLike) -> tuple[Array, Array]:
    r"""How much of x is left at a time, and the variance of the noise: :math:`\alpha_t` and :math:`h_t`.

    Args:
      t: times, at least 0, of any shape.

    Example:
      >>> alpha, h = levels(jnp.log(4.0))
      >>> alpha.round(4).item(), h.round(4).item()
      (0.5, 0.75)
    """
    t = jnp.asarray(t)
    return jnp.exp(-t / 2), -jnp.expm1(-t)


def score(x: Float[Array, "N D"], clean: Float[Array, "N D"], t: Float[Array, " N"]) -> Float[Array, "N D"]:
    r"""The gradient of the log density at x, from the mean of the clean x given it: :math:`(\alpha \hat x_0 - x) / h`.

    Args:
      x: ``[N, D]`` noisy.
      clean: ``[N, D]``, what a denoiser says of them.
      t: ``[N]`` times, above 0.

    Example:
      Of a standard Gaussian the clean mean is alpha x, and the score -x:

      >>> x, t = jnp.array([[1.0, -2.0]]), jnp.array([0.5])
      >>> score(x, levels(t)[0][:, None] * x, t).round(4).tolist()
      [[-1.0, 2.0]]
    """
    alpha, h = levels(t)
    return (alpha[:, None] * clean - x) / h[:, None]


def sample(
    denoise: Denoise,
    target: ArrayLike,
    key: Key,
    *,
    labels: ArrayLike,
    num: int,
    dim: int,
    steps: int = 100,
    first: ArrayLike = 1e-3,
    last: ArrayLike = 8.0,
) -> Samples:
    """Draws designs whose label is the target.

    Args:
      denoise: ``denoise(x [N, D], y [N], t [N]) -> [N, D]``: of a trained network
        ``functools.partial(denoiser.apply, params)``.
      target: a number, or ``[N]``, one for each design. It may be traced: targets are lanes of ``jax.vmap``. Labels
        drawn at random in place of one target give plain samples.
      key: of all that is random; the same key gives the same designs.
      labels: ``[M]``, the pseudo-labels that were trained on, for the extrapolation.
      num: N, static.
      dim: D, static.
      steps: how often the denoiser is asked, at least 2; static.
      first: the time at which the last step is made.
      last: the time at which noise is begun with.

    Returns:
      The :class:`Samples`.

    Raises:
      ValueError: for a target that is not finite or of another shape, counts that are too small, times out of order,
        labels that are not finite, and a denoiser that gives another shape.

    Example:
      Data on the first axis, standard normal, whose label is the place there with noise of 1: a target of 2 halves.

      >>> from jaxfair.inverse import diffusion
      >>> law = diffusion.gaussian(jnp.zeros(2), jnp.diag(jnp.array([1.0, 0.0])), jnp.array([1.0, 0.0]), noise=1.0)
      >>> labels = np.array([-2.0, 0.0, 2.0])
      >>> found = sample(law.denoise, 2.0, jax.random.key(0), labels=labels, num=4000, dim=2)
      >>> found.x.mean(0).round(1).tolist(), round(float(found.extrapolation), 2)
      ([1.0, 0.0], 1.22)
    """
    for name, value, low in (("num", num, 1), ("dim", dim, 1), ("steps", steps, 2)):
        check_count(name, value, low)
    check_times(first, last)
    if np.shape(target) not in ((), (num,)):
        raise ValueError(f"target of shape {np.shape(target)}: give one number, or {num}, one for each design.")
    check_finite("target", target)
    check_finite("labels", labels)
    seen = jnp.asarray(labels, jnp.float32)
    y = jnp.broadcast_to(jnp.asarray(target, jnp.float32), (num,))
    low, high = (jnp.log(jnp.asarray(t, jnp.float32)) for t in (first, last))
    times = jnp.exp(jnp.linspace(high, low, steps))
    beginning, between = jax.random.split(key)

    def back(x: Array, now: Any) -> tuple[Array, None]:
        t, s, k = now
        (alpha_t, h_t), (alpha_s, h_s) = levels(t), levels(s)
        gained = levels(t - s)[1]
        clean = denoise(x, y, jnp.broadcast_to(t, (num,)))
        mean = (alpha_t / alpha_s * h_s * x + alpha_s * gained * clean) / h_t
        return mean + jnp.sqrt(gained * h_s / h_t) * jax.random.normal(k, x.shape), None

    x = jax.random.normal(beginning, (num, dim))
    shape = jax.eval_shape(denoise, x, y, y).shape
    if shape != x.shape:
        raise ValueError(f"denoise= gave shape {shape} of {x.shape}: give the clean x of each row.")
    x, _ = lax.scan(back, x, (times[:-1], times[1:], jax.random.split(between, steps - 1)))
    clean = denoise(x, y, jnp.broadcast_to(times[-1], (num,)))
    return Samples(clean, (jnp.asarray(target, jnp.float32) - jnp.mean(seen)) / jnp.std(seen))
