r"""Networks that guess the clean x from a noisy one, its label and the time.

Both leave to the network psi only what a Gaussian of unit variance would not know, by a skip of :math:`\alpha_t`:

.. math::
   \text{plain:}\quad \hat x_0 = \alpha_t x + \psi(x, y, t), \qquad
   \text{encoder-decoder:}\quad \hat x_0 = V \big( \alpha_t V^\top x + \psi(V^\top x, y, t) \big)

The second is the paper's form, :math:`s = (V \psi(V^\top x, y, t) - x) / h`, whose score is exact for data
:math:`x = A z`. V is learned, ``[D, d]``; all designs lie in its span. Give labels, and x per dimension or per latent,
of about unit spread.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxfair.inverse.diffusion.sampling import levels
from jaxfair.typing import Key, Params, check_count

#: Numbers that a network is given for a time.
TIMES = 9


class Denoiser(NamedTuple):
    """A network as two functions. Any other ``apply`` of this form will do.

    Attributes:
      init: ``init(key) -> params``.
      apply: ``apply(params, x [B, D], y [B], t [B]) -> [B, D]``, the clean x.
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Array, Array, Array], Array]


def plain(dim: int, *, hidden: Sequence[int] = (256, 256)) -> Denoiser:
    r"""A network that reads and writes all dimensions.

    Args:
      dim: D.
      hidden: the widths between.

    Returns:
      The :class:`Denoiser`. Untrained it is the skip: exact for a standard Gaussian without labels.

    Raises:
      ValueError: for a size below 1.

    Example:
      >>> net = plain(3, hidden=(4,))
      >>> x, t = jnp.array([[2.0, 0.0, -2.0]]), jnp.log(jnp.array([4.0]))
      >>> net.apply(net.init(jax.random.key(0)), x, jnp.zeros(1), t).round(4).tolist()
      [[1.0, 0.0, -1.0]]
    """
    sizes = _sizes(dim, hidden)

    def apply(
        params: Params, x: Float[Array, "B D"], y: Float[Array, " B"], t: Float[Array, " B"]
    ) -> Float[Array, "B D"]:
        return levels(t)[0][:, None] * x + _layers(params["layers"], x, y, t)

    return Denoiser(lambda key: {"layers": _fresh(key, sizes)}, apply)


def encoder_decoder(dim: int, latent: int, *, hidden: Sequence[int] = (256, 256)) -> Denoiser:
    r"""A network between an encoder and a decoder that share a matrix.

    Args:
      dim: D.
      latent: d, at most D.
      hidden: the widths between.

    Returns:
      The :class:`Denoiser`; ``params["basis"]`` is V, orthonormal at first.

    Raises:
      ValueError: for a size below 1, and more latents than dimensions.

    Example:
      What it says lies in the span of V:

      >>> from jaxfair.inverse import diffusion
      >>> net = encoder_decoder(5, 2, hidden=(4,))
      >>> params = net.init(jax.random.key(0))
      >>> clean = net.apply(params, jnp.ones((1, 5)), jnp.zeros(1), jnp.ones(1))
      >>> bool(diffusion.off_support(clean, params["basis"])[0] < 1e-6)
      True
    """
    check_count("latent", latent)
    if latent > dim:
        raise ValueError(f"latent={latent}: give at most as many as there are dimensions, {dim}.")
    check_count("dim", dim)
    sizes = _sizes(latent, hidden)

    def init(key: Key) -> Params:
        first, second = jax.random.split(key)
        basis, _ = jnp.linalg.qr(jax.random.normal(first, (dim, latent)))
        return {"basis": basis, "layers": _fresh(second, sizes)}

    def apply(
        params: Params, x: Float[Array, "B D"], y: Float[Array, " B"], t: Float[Array, " B"]
    ) -> Float[Array, "B D"]:
        code = x @ params["basis"]
        return (levels(t)[0][:, None] * code + _layers(params["layers"], code, y, t)) @ params["basis"].T

    return Denoiser(init, apply)


def _sizes(width: int, hidden: Sequence[int]) -> list[int]:
    check_count("dim", width)
    for size in hidden:
        check_count("hidden", size)
    return [width + TIMES + 1, *hidden, width]


def _fresh(key: Key, sizes: Sequence[int]) -> dict[str, Any]:
    """Layers with zeros in the last: the skip is where training begins."""
    keys, make = jax.random.split(key, len(sizes) - 1), jax.nn.initializers.he_normal()
    layers = {
        f"Dense_{i}": {"bias": jnp.zeros(out), "kernel": make(k, (into, out))}
        for i, (k, (into, out)) in enumerate(zip(keys, itertools.pairwise(sizes), strict=True))
    }
    last = layers[f"Dense_{len(sizes) - 2}"]
    return layers | {f"Dense_{len(sizes) - 2}": {**last, "kernel": jnp.zeros_like(last["kernel"])}}


def _layers(layers: dict[str, Any], code: Array, y: Array, t: Array) -> Array:
    # Times go over four decades: their logarithm is about in [-1, 1], and seen at four wavelengths.
    place = (jnp.log(t) + 2.4) / 4.5
    waves = place[:, None] * (jnp.pi / 2 * jnp.arange(1, TIMES // 2 + 1))[None]
    z = jnp.concatenate([code, y[:, None], place[:, None], jnp.sin(waves), jnp.cos(waves)], axis=1)
    for i in range(len(layers)):
        layer = layers[f"Dense_{i}"]
        z = (z if i == 0 else jax.nn.silu(z)) @ layer["kernel"] + layer["bias"][None]
    return z
