r"""A generative adversarial network of two small perceptrons on a ring of Gaussians.

.. math:: f_i(x, y) = \log \sigma(D_y(u_i)) + \log(1 - \sigma(D_y(G_x(z_i))))

The generator x minimises, the discriminator y maximises. Data :math:`u_i` and latent points
:math:`z_i` are drawn once, in pairs: it is a finite sum like the others, with an exact mean
operator and an exact expectation over minibatches. The field comes from automatic differentiation;
the solution is not known, and the residual is what there is to look at. The ring of modes is the
standard picture of mode collapse and of cycling between modes.

Source: Goodfellow et al., `Generative Adversarial Networks <https://arxiv.org/abs/1406.2661>`_,
2014 (the zero-sum form, without the non-saturating loss); Metz et al., `Unrolled Generative
Adversarial Networks <https://arxiv.org/abs/1611.02163>`_, 2017, for the ring.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float, Int

from jaxfair.games._game import Game, uniform_indices
from jaxfair.games._numbers import check_scales, sizes
from jaxfair.typing import Key


def gaussian_mixture_gan(
    key: Key,
    *,
    num_samples: int = 1024,
    num_modes: int = 8,
    radius: ArrayLike = 2.0,
    noise: ArrayLike = 0.1,
    latent_dim: int = 4,
    hidden: int = 32,
) -> Game:
    """Draws the data of the game.

    Args:
      key: a PRNG key for the data and the latent points.
      num_samples: n, the number of pairs of a data point and a latent point.
      num_modes: how many Gaussians stand on the ring, at equal angles.
      radius: of the ring.
      noise: the standard deviation of each Gaussian.
      latent_dim: the number of inputs of the generator, which are N(0, 1).
      hidden: the width of the two hidden layers of each network.

    Returns:
      The game. The players are networks, dicts
      ``{"layer_0": {"kernel": [in, out], "bias": [out]}, ...}`` of three layers with tanh between
      them; :func:`jaxfair.games.generate` shows what x makes of latent points. Kernels start at
      N(0, 1/in), biases at 0.

    Example:
      >>> from jaxfair import games
      >>> game = games.gaussian_mixture_gan(jax.random.key(0), num_samples=16, hidden=5)
      >>> players = game.init(jax.random.key(1))
      >>> jax.tree.map(jnp.shape, players["x"]["layer_2"])
      {'bias': (2,), 'kernel': (5, 2)}
      >>> generate(players["x"], jnp.zeros((3, 4))).shape
      (3, 2)
    """
    num_samples, num_modes = sizes(num_samples=num_samples, num_modes=num_modes)
    latent_dim, hidden = sizes(latent_dim=latent_dim, hidden=hidden)
    check_scales(radius=radius, noise=noise)
    key_mode, key_noise, key_latent = jax.random.split(key, 3)
    angle = 2 * jnp.pi * jax.random.randint(key_mode, (num_samples,), 0, num_modes) / num_modes
    centre = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    data = centre + noise * jax.random.normal(key_noise, (num_samples, 2))
    latent = jax.random.normal(key_latent, (num_samples, latent_dim))

    return Game(
        name="gaussian_mixture_gan",
        init=Partial(_init, latent_dim, hidden),
        sample=uniform_indices(num_samples),
        operator=Partial(_operator, data, latent),
        mean_operator=Partial(_field, data, latent),
        num_samples=num_samples,
        payoff=Partial(_payoff, data, latent),
    )


def generate(generator: Any, latent: Float[Array, "b l"]) -> Float[Array, "b 2"]:
    """The points that a generator makes of latent points.

    Args:
      generator: ``players["x"]`` of the game.
      latent: ``[b, latent_dim]``.

    Returns:
      ``[b, 2]``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxfair import games
      >>> game = games.gaussian_mixture_gan(jax.random.key(0), latent_dim=4)
      >>> players = game.init(jax.random.key(1))
      >>> games.generate(players["x"], jnp.zeros((3, 4))).shape
      (3, 2)
    """
    return _forward(generator, latent)


def _init(latent_dim: int, hidden: int, key: Key) -> Any:
    key_x, key_y = jax.random.split(key)
    return {
        "x": _network(key_x, latent_dim, hidden, hidden, 2),
        "y": _network(key_y, 2, hidden, hidden, 1),
    }


def _network(key: Key, *sizes: int) -> dict[str, dict[str, Array]]:
    shapes = list(itertools.pairwise(sizes))
    # One draw for all layers: every shape that is drawn is a program of its own to compile.
    ends = list(itertools.accumulate(m * n for m, n in shapes))
    draws = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    return {
        f"layer_{i}": {"kernel": draw.reshape(m, n) / m**0.5, "bias": jnp.zeros(n)}
        for i, (draw, (m, n)) in enumerate(zip(draws, shapes, strict=True))
    }


def _forward(network: Any, inputs: Float[Array, "b i"]) -> Float[Array, "b o"]:
    layers = [network[f"layer_{i}"] for i in range(len(network))]
    for layer in layers[:-1]:
        inputs = jnp.tanh(inputs @ layer["kernel"] + layer["bias"][None])
    return inputs @ layers[-1]["kernel"] + layers[-1]["bias"][None]


def _value(players: Any, data: Float[Array, "b 2"], latent: Float[Array, "b l"]) -> Array:
    real = _forward(players["y"], data)
    fake = _forward(players["y"], generate(players["x"], latent))
    return jnp.mean(jax.nn.log_sigmoid(real)) + jnp.mean(jax.nn.log_sigmoid(-fake))


def _field(data: Float[Array, "b 2"], latent: Float[Array, "b l"], players: Any) -> Any:
    gradient = jax.grad(_value)(players, data, latent)
    return {"x": gradient["x"], "y": jax.tree.map(jnp.negative, gradient["y"])}


def _operator(data: Float[Array, "n 2"], latent: Float[Array, "n l"], players: Any, batch: Int[Array, " b"]) -> Any:
    return _field(data[batch], latent[batch], players)


def _payoff(
    data: Float[Array, "n 2"], latent: Float[Array, "n l"], players: Any, batch: Int[Array, " b"]
) -> Float[Array, ""]:
    return _value(players, data[batch], latent[batch])
