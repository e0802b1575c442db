r"""The closed form of Gaussian data: the law of a design given its label, and the exact denoiser.

For :math:`x \sim N(\mu, \Sigma)` and a label :math:`\hat y = \theta^\top (x - \mu) + \nu \xi`, with
:math:`q = \theta^\top \Sigma\, \theta + \nu^2`:

.. math::
   x \mid \hat y = a \;\sim\; N\Big(\mu + \frac{a}{q}\, \Sigma\theta,\; S\Big), \qquad
   S = \Sigma - \frac{\Sigma\theta\theta^\top\Sigma}{q}

and the mean of :math:`x_0` given :math:`x_t = x` and that label is, with m the mean above,

.. math:: \hat x_0 = m + \alpha_t S\, (\alpha_t^2 S + h_t I)^{-1} (x - \alpha_t m)

:math:`\Sigma` may be singular: for latents :math:`x = A z` with :math:`A^\top A = I` it is :math:`A A^\top`, and the
score is an encoder and a decoder between which everything happens in d dimensions. Three uses: the oracle of every part
of this room; the least that any generator has to beat, fitted to the mean and covariance of data; and a fast answer
where the reward is linear and data are nearly Gaussian.

Source: conditioning of Gaussians; Yuan et al., `Reward-directed conditional diffusion
<https://arxiv.org/abs/2307.07055>`_, 2023, for the form of the score.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxfair.inverse.diffusion._checks import check_above_zero, check_finite
from jaxfair.inverse.diffusion.sampling import levels
from jaxfair.typing import Key


class Gaussian(NamedTuple):
    """The closed form; made by :func:`gaussian`.

    Attributes:
      mean: ``mean(target) -> [D]``, of designs with that label.
      covariance: ``[D, D]``, of designs, whatever the label is.
      denoise: ``denoise(x [N, D], y [N], t [N]) -> [N, D]``, exact; for :func:`sample`, and as an oracle of networks.
      draw: ``draw(target, key, num) -> [num, D]``, designs without any steps.
    """

    mean: Callable[[ArrayLike], Array]
    covariance: Array
    denoise: Callable[[Array, Array, Array], Array]
    draw: Callable[..., Array]


def gaussian(center: ArrayLike, covariance: ArrayLike, theta: ArrayLike, *, noise: ArrayLike) -> Gaussian:
    r"""The closed form of Gaussian data under a linear reward.

    Args:
      center: ``[D]``, the mean of data.
      covariance: ``[D, D]``, symmetric and at least 0; it may be singular.
      theta: ``[D]``, the reward's direction: a label of 0 is that of the mean.
      noise: :math:`\nu` of the labels, above 0.

    Returns:
      The :class:`Gaussian`.

    Raises:
      ValueError: for shapes that do not fit, numbers that are not finite, and a noise of 0 or less.

    Example:
      A reward along (0.6, 0.8) and labels with noise of 0.5: of a target of 2 designs reach 1.6.

      >>> law = gaussian(jnp.zeros(2), jnp.eye(2), jnp.array([0.6, 0.8]), noise=0.5)
      >>> print(np.asarray(law.mean(2.0)).round(2), np.asarray(law.mean(2.0) @ jnp.array([0.6, 0.8])).round(2))
      [0.96 1.28] 1.6
      >>> print(np.asarray(law.covariance).round(3))
      [[ 0.712 -0.384]
       [-0.384  0.488]]
    """
    shapes = np.shape(center), np.shape(covariance), np.shape(theta)
    dim = np.size(center)
    if shapes != ((dim,), (dim, dim), (dim,)):
        raise ValueError(
            f"center of shape {shapes[0]}, covariance {shapes[1]}, theta {shapes[2]}: give [D], [D, D] and [D]."
        )
    check_above_zero("noise", noise)
    for name, values in (("center", center), ("covariance", covariance), ("theta", theta)):
        check_finite(name, values)
    mu, sigma, direction = (jnp.asarray(a, jnp.float32) for a in (center, covariance, theta))
    slope, given, values, axes = _conditioned(sigma, direction, jnp.asarray(noise, mu.dtype))

    def mean(target: ArrayLike) -> Float[Array, " D"]:
        return mu + jnp.asarray(target, mu.dtype) * slope

    def denoise(x: Float[Array, "N D"], y: Float[Array, " N"], t: Float[Array, " N"]) -> Float[Array, "N D"]:
        alpha, h = (level[:, None] for level in levels(t))
        m = mu[None] + y[:, None] * slope[None]
        kept = alpha * values[None] / (alpha**2 * values[None] + h)
        return m + (kept * ((x - alpha * m) @ axes)) @ axes.T

    def draw(target: ArrayLike, key: Key, num: int) -> Float[Array, "N D"]:
        return mean(target)[None] + (jax.random.normal(key, (num, dim)) * jnp.sqrt(values)[None]) @ axes.T

    return Gaussian(mean, given, denoise, draw)


@jax.jit
def _conditioned(sigma: Array, theta: Array, noise: Array) -> tuple[Array, Array, Array, Array]:
    """How the mean goes with the label ``[D]``; the covariance given the label, its eigenvalues and their axes."""
    along = sigma @ theta
    q = theta @ along + noise**2
    given = sigma - jnp.outer(along, along) / q
    values, axes = jnp.linalg.eigh((given + given.T) / 2)
    # What is rounding of 0 would be divided by the smallest variance of noise.
    values = jnp.where(values > theta.size * jnp.finfo(values.dtype).eps * jnp.max(values), values, 0.0)
    return along / q, given, values, axes
