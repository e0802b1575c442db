r"""A generator's latents, optimised against measurements (CSGM), also of a generator that knows the measurement.

For a generator G of signals, a measurement :math:`y = A x + e` of one of them is explained by

.. math:: \hat z = \arg\min_z |A G(z) - y|^2 + \lambda |z|^2, \qquad \hat x = G(\hat z).

It is not convex: several starts are tried side by side, and each signal keeps the best point that any of them came by.
The *conditional* form has :math:`G(z, y)`, a generator that was trained given measurements by the same A
(`negative_evidence`); at :math:`z = 0` it is an estimate already, without a search.

The penalty has a scale. Where :math:`G(z) = W z`, and the noise of each measurement has variance s, :math:`\lambda = s`
gives :math:`E[x \mid y]`; a larger one pays for what the generator cannot make, and is chosen on validation signals.

=======================  ===================  =================================================
paper                    here                 there
=======================  ===================  =================================================
:math:`G`                ``generator``        of one latent; this function makes batches of it
:math:`\lambda_{prior}`  ``penalty``          0.1 for MNIST
random restarts          ``start``            10 of 1,000 steps of Adam at 0.01
=======================  ===================  =================================================

The authors take the mean over measurements of squares of :math:`A \sim N(0, 1)`: with
:math:`A \sim N(0, 1/M)` the sum is the same number, and so is the penalty. They keep the last point of a restart; here
it is the best one, so that a rate too large does no harm, and a lane that is lost costs the others nothing.

Sources: Bora, Jalal, Price and Dimakis, `Compressed Sensing using Generative Models
<https://arxiv.org/abs/1703.03208>`_, 2017, and their code. The conditional form after the idea of Kim, Lee and Yang,
`Compressed sensing and measurement-conditional generators <https://arxiv.org/abs/2007.00873>`_, 2020; ours, as their
equations were not to be had.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import ArrayLike

from jaxfair.inverse.compressed_sensing._checks import check_generator, check_measured, check_number
from jaxfair.typing import Array, Key, check_count


class Latents(NamedTuple):
    """What a search found.

    Attributes:
      z: ``[B, Z]``, the latent of each signal's best point.
      x: ``[B, N]``, the signals that the generator makes of them.
      objective: ``[B]``, at them; infinite where no point had a finite one: there z is the first start.
      objectives: ``[R, B]``, the best of each restart.
    """

    z: Array
    x: Array
    objective: Array
    objectives: Array


def latent_starts(key: Key, restarts: int, signals: int, latents: int) -> Array:
    """Standard normal latents to start from; those of fewer restarts are the first of more.

    Args:
      key: of the draw.
      restarts: R.
      signals: B.
      latents: Z, numbers in a latent.

    Returns:
      ``[R, B, Z]``.

    Raises:
      ValueError: for less than one of either.

    Example:
      >>> two, three = (latent_starts(jax.random.key(0), n, 4, 5) for n in (2, 3))
      >>> three.shape, bool((three[:2] == two).all())
      ((3, 4, 5), True)
    """
    for name, value in (("restarts", restarts), ("signals", signals), ("latents", latents)):
        check_count(name, value)
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(restarts))
    return jax.vmap(lambda k: jax.random.normal(k, (signals, latents)))(keys)


def latent_search(
    generator: Callable[..., Any],
    operator: ArrayLike,
    y: ArrayLike,
    start: ArrayLike,
    *,
    penalty: ArrayLike = 0.0,
    condition: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 300,
) -> Latents:
    r"""Latents whose signals explain measurements.

    Args:
      generator: ``generator(z) -> x``, of ``[Z]`` gives ``[N]``, differentiable; with a condition
        ``generator(z, condition)``, of one signal's.
      operator: A, ``[M, N]``.
      y: ``[B, M]``, the measurements.
      start: ``[R, B, Z]``, where each restart begins, as of `latent_starts`.
      penalty: :math:`\lambda`, at least 0; may be traced, so that several penalties are lanes of one program.
      condition: a tree of ``[B, ...]``, what the generator is told of each signal, such as y, standardised; None for a
        generator of latents alone.
      optimizer: any of optax; each lane has a state of its own, and those with a line search get the objective. Adam at
        0.05 by default.
      steps: of the optimizer, at least 0.

    Returns:
      `Latents`.

    Raises:
      ValueError: for shapes that do not fit, a generator of signals of another size, numbers that are not finite, more
        measurements than numbers, or a penalty below 0.

    Example:
      Signals on a line through the plane, of which one number was measured:

      >>> generator = lambda z: z[0] * jnp.array([1.0, 2.0])
      >>> A, y, start = jnp.array([[1.0, 0.0]]), jnp.array([[3.0]]), jnp.zeros((1, 1, 1))
      >>> found = latent_search(generator, A, y, start, optimizer=optax.sgd(0.25))
      >>> [round(number, 3) for number in found.x[0].tolist()], f"{found.objective[0]:.3f}"
      ([3.0, 6.0], '0.000')
    """
    matrix, rows, first, given = checked(generator, operator, y, start, condition)
    check_number("penalty", penalty)
    check_count("steps", steps, low=0)
    tx = optax.with_extra_args_support(optax.adam(0.05) if optimizer is None else optimizer)

    def one(z, y, given):
        def objective(z):
            left = matrix @ generator(z, *given) - y
            return jnp.sum(left**2) + penalty * jnp.sum(z**2)

        return descended(objective, z, tx, steps)

    z, objectives = jax.vmap(jax.vmap(one), in_axes=(0, None, None))(first, rows, given)
    return kept(generator, z, objectives, given)


def checked(generator: Any, operator: Any, y: Any, start: Any, condition: Any) -> tuple[Array, Array, Array, Any]:
    """A, y, the starts, and what the generator is told besides, as a tuple; all of them fit.

    Raises:
      ValueError: where they do not.
    """
    matrix, rows = check_measured(operator, y)
    shape = np.shape(start)
    if len(shape) != 3 or shape[1] != len(rows) or 0 in shape:
        raise ValueError(
            f"start has shape {shape}: give a latent for each restart and signal, [restarts, {len(rows)}, latents], as "
            "latent_starts does."
        )
    given = () if condition is None else (jax.tree.map(jnp.asarray, condition),)
    for leaf in jax.tree.leaves(given):
        if leaf.shape[:1] != (len(rows),):
            raise ValueError(f"condition has shape {leaf.shape}: give a row for each of the {len(rows)} signals.")
    first = jnp.asarray(start, matrix.dtype)
    check_generator(generator, matrix.shape[1], first[0, 0], *jax.tree.map(lambda leaf: leaf[0], given))
    return matrix, rows, first, given


def descended(objective: Callable[[Any], Any], z: Array, tx: Any, steps: int) -> tuple[Array, Array]:
    """The best point of one descent, and its objective; the start and infinity where none was finite."""

    def better(best, z, value):
        value = jnp.asarray(value, z.dtype)
        least = value < best[1]  # false of nan
        return jnp.where(least, z, best[0]), jnp.where(least, value, best[1])

    def step(carry, _):
        z, state, best = carry
        value, gradient = jax.value_and_grad(objective)(z)
        updates, state = tx.update(gradient, state, z, value=value, grad=gradient, value_fn=objective)
        return (optax.apply_updates(z, updates), state, better(best, z, value)), None

    begin = z, tx.init(z), (z, jnp.full((), jnp.inf, z.dtype))
    (last, _, best), _ = lax.scan(step, begin, length=steps)
    return better(best, last, objective(last))


def kept(generator: Callable[..., Any], z: Array, objectives: Array, given: Any) -> Latents:
    """Of every signal the best restart, the first of equal ones."""
    best = jnp.argmin(objectives, axis=0)
    chosen = jnp.take_along_axis(z, best[None, :, None], axis=0)[0]
    x = jax.vmap(lambda z, given: generator(z, *given))(chosen, given)
    return Latents(chosen, x, jnp.min(objectives, axis=0), objectives)
