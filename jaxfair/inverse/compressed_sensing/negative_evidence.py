r"""The loss of a variational autoencoder, plain or given a measurement.

A generator that is to be searched (`latent_search`) has to be trained, with standard normal latents. Of an encoder
:math:`q(z \mid x, y) = N(m, \mathrm{diag}\, s^2)` and a decoder :math:`p(x \mid z, y)` the negative evidence bound is

.. math:: -\log p(x \mid y) \le E_q[-\log p(x \mid z, y)] + \sum_i \tfrac12 (m_i^2 + s_i^2 - 1) - \log s_i,

estimated with one draw :math:`z = m + s \epsilon`. Without y it is the bound of a plain VAE, and the decoder the
generator of CSGM; with :math:`y = A x + e`, drawn afresh for every batch with *the* A of the test, it is that of the
conditional generator. Such a network knows one A: another one needs another network. Standardise y by its mean and
spread on training signals.

Sources: Kingma and Welling, `Auto-Encoding Variational Bayes <https://arxiv.org/abs/1312.6114>`_, 2014; Sohn, Lee and
Yan, Learning Structured Output Representation using Deep Conditional Generative Models, 2015.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from jaxfair.typing import Array, Key


class NegativeEvidence(NamedTuple):
    """The bound of every signal, and its two parts.

    Attributes:
      bound: ``[B]``, the sum: what is minimised, in nats.
      misfit: ``[B]``, what the decoder's signal lacks.
      divergence: ``[B]``, of the encoder's latents from standard normal ones, at least 0.
    """

    bound: Array
    misfit: Array
    divergence: Array


def bernoulli(x: Array, logits: Array) -> Array:
    """Minus the log likelihood of pixels in [0, 1], given logits of white."""
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, x))


def negative_evidence(
    encode: Callable[..., tuple[Any, Any]],
    decode: Callable[..., Any],
    x: ArrayLike,
    key: Key,
    *,
    condition: Any = None,
    misfit: Callable[[Any, Any], Any] = bernoulli,
) -> NegativeEvidence:
    """The negative evidence bound of signals.

    Args:
      encode: ``encode(x) -> (mean, log_deviation)``, ``[Z]`` each, of one signal; with a condition ``encode(x, c)``.
      decode: ``decode(z) -> output``, or ``decode(z, c)``, what the misfit reads.
      x: ``[B, N]``, the signals; in [0, 1] for the default misfit.
      key: of the draw of latents.
      condition: a tree of ``[B, ...]``, what both are told of each signal; None for a plain VAE.
      misfit: ``misfit(x, output) -> []``, minus the log likelihood; by default outputs are logits of pixels.

    Returns:
      `NegativeEvidence`; the loss is the mean of the bounds, or a weighted one.

    Raises:
      ValueError: for signals that are no rows, or a condition of another number of rows.

    Example:
      Latents that say nothing diverge by nothing, and a decoder that knows nothing lacks log 2 a pixel:

      >>> nothing = lambda x: (jnp.zeros(3), jnp.zeros(3))
      >>> found = negative_evidence(nothing, lambda z: jnp.zeros(4), jnp.ones((1, 4)), jax.random.key(0))
      >>> found.divergence.tolist(), f"{found.misfit[0] / 4:.4f}"
      ([0.0], '0.6931')
    """
    rows = jnp.asarray(x)
    if rows.ndim != 2:
        raise ValueError(f"x has shape {rows.shape}: give a row for each signal, [B, N].")
    given = () if condition is None else (jax.tree.map(jnp.asarray, condition),)
    for leaf in jax.tree.leaves(given):
        if leaf.shape[:1] != rows.shape[:1]:
            raise ValueError(f"condition has shape {leaf.shape}: give a row for each of the {len(rows)} signals.")

    def one(x, key, given):
        mean, log_deviation = encode(x, *given)
        z = mean + jnp.exp(log_deviation) * jax.random.normal(key, mean.shape, mean.dtype)
        apart = jnp.sum((mean**2 + jnp.exp(2 * log_deviation) - 1) / 2 - log_deviation)
        lacking = misfit(x, decode(z, *given))
        return NegativeEvidence(lacking + apart, lacking, apart)

    return jax.vmap(one)(rows, jax.random.split(key, len(rows)), given)
