r"""Steps towards the measurements, each projected onto what a generator can make (PGD-GAN).

.. math:: w = x + \eta A'(y - A x), \qquad x \leftarrow G(\arg\min_z |G(z) - w|^2 + \lambda |z|^2).

The outer step leaves the generator's range; the projection, a search of its own that begins where the last one ended,
comes back to it. Without the projection a step above :math:`2 / |A|_2^2`, which is about
:math:`2 / (1 + \sqrt{N/M})^2` for Gaussian measurements, would diverge; with it a larger one may pay.

The authors take 10 outer steps of 0.5, 100 inner ones of Adam at 0.1, one start, and begin with x = 0. Here x begins at
the start's signal, and of all outer steps and restarts the point is kept that explains the measurement best.

Source: Shah and Hegde, `Solving Linear Inverse Problems Using GAN Priors <https://arxiv.org/abs/1802.08406>`_, 2018,
and their code.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import ArrayLike

from jaxfair.inverse.compressed_sensing._checks import check_number
from jaxfair.inverse.compressed_sensing.latent_search import Latents, checked, descended, kept
from jaxfair.typing import check_count


def projected_search(
    generator: Callable[..., Any],
    operator: ArrayLike,
    y: ArrayLike,
    start: ArrayLike,
    *,
    step: ArrayLike = 0.5,
    penalty: ArrayLike = 1e-3,
    condition: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    rounds: int = 10,
    steps: int = 100,
) -> Latents:
    r"""Signals of a generator that explain measurements, by projected steps.

    Args:
      generator: ``generator(z) -> x``, or ``generator(z, condition)``, as of `latent_search`.
      operator: A, ``[M, N]``.
      y: ``[B, M]``, the measurements.
      start: ``[R, B, Z]``, where each restart begins, as of `latent_starts`.
      step: :math:`\eta`, above 0; may be traced.
      penalty: :math:`\lambda` of the projection, at least 0; may be traced.
      condition: a tree of ``[B, ...]``, or None.
      optimizer: of the projection; Adam at 0.1 by default.
      rounds: outer steps.
      steps: of the optimizer in each.

    Returns:
      `Latents`; the objective is :math:`|A G(z) - y|^2`.

    Raises:
      ValueError: as `latent_search`, and for a step that is not above 0.

    Example:
      Signals on a line through the plane, of which one number was measured:

      >>> generator = lambda z: z[0] * jnp.array([1.0, 2.0])
      >>> A, y, start = jnp.array([[1.0, 0.0]]), jnp.array([[3.0]]), jnp.zeros((1, 1, 1))
      >>> found = projected_search(generator, A, y, start, step=4.0, penalty=0.0)
      >>> [round(number, 2) for number in found.x[0].tolist()]
      [3.0, 6.0]
    """
    matrix, rows, first, given = checked(generator, operator, y, start, condition)
    check_number("step", step, above=True)
    check_number("penalty", penalty)
    check_count("rounds", rounds)
    check_count("steps", steps)
    tx = optax.with_extra_args_support(optax.adam(0.1) if optimizer is None else optimizer)

    def one(z, y, given):
        def misfit(z):
            return jnp.sum((matrix @ generator(z, *given) - y) ** 2).astype(z.dtype)

        def outer(carry, _):
            z, best, least = carry
            x = generator(z, *given)
            target = x + step * matrix.T @ (y - matrix @ x)

            def distance(z):
                return jnp.sum((generator(z, *given) - target) ** 2) + penalty * jnp.sum(z**2)

            z, _ = descended(distance, z, tx, steps)
            value = misfit(z)
            better = value < least
            return (z, jnp.where(better, z, best), jnp.where(better, value, least)), None

        value = misfit(z)
        begin = z, z, jnp.where(jnp.isfinite(value), value, jnp.inf)
        (_, best, least), _ = lax.scan(outer, begin, length=rounds)
        return best, least

    z, objectives = jax.vmap(jax.vmap(one), in_axes=(0, None, None))(first, rows, given)
    return kept(generator, z, objectives, given)
