r"""The Dirac GAN: the smallest generative adversarial network, and the smallest game on which training cycles.

The generator puts all its mass at x; the discriminator is linear, :math:`D(u) = y u`, with the
logistic loss:

.. math:: f_i(x, y) = h(y u_i) + h(-y x), \qquad h(t) = -\log(1 + e^{-t})

The solution is :math:`x^* = \bar u, y^* = 0`. Where all the data are at the origin, the Jacobian
there is a rotation of angular velocity 1/2 and nothing else. Data that are spread, or away from the
origin, damp it: the discriminator's curvature is :math:`(\overline{u^2} + \bar u^2)/4`. The game is
not linear, and far from the solution its field is bounded.

Source: Mescheder, Geiger, Nowozin, `Which Training Methods for GANs do actually Converge?
<https://arxiv.org/abs/1801.04406>`_, 2018.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float, Int

from jaxfair.games._game import Game, uniform_indices
from jaxfair.games._numbers import check_scales, sizes
from jaxfair.optim.numbers import check_rates
from jaxfair.typing import Key


def dirac_gan(key: Key, *, num_samples: int = 100, target: ArrayLike = 0.0, noise: ArrayLike = 0.0) -> Game:
    r"""Draws the data of the game.

    Args:
      key: a PRNG key for the data.
      num_samples: n, the number of points :math:`u_i`.
      target: the expectation of the data.
      noise: their standard deviation. With the default of 0, as in the source, the game is
        deterministic.

    Returns:
      The game, with players ``{"x": [1], "y": [1]}`` that start at N(0, 1).

    Example:
      >>> from jaxfair import games
      >>> game = games.dirac_gan(jax.random.key(0))
      >>> game.mean_operator({"x": jnp.array([1.0]), "y": jnp.array([0.0])})
      {'x': Array([-0.], dtype=float32), 'y': Array([0.5], dtype=float32)}
      >>> games.spectrum(game).eigenvalues.round(5).tolist()
      [-0.5j, 0.5j]
    """
    (num_samples,) = sizes(num_samples=num_samples)
    check_scales(noise=noise)
    check_rates(target=target)
    data = target + noise * jax.random.normal(key, (num_samples,))

    return Game(
        name="dirac_gan",
        init=_init,
        sample=uniform_indices(num_samples),
        operator=Partial(_operator, data),
        mean_operator=Partial(_field, data),
        saddle={"x": jnp.mean(data, keepdims=True), "y": jnp.zeros(1, data.dtype)},
        num_samples=num_samples,
        payoff=Partial(_payoff, data),
    )


def _init(key: Key) -> Any:
    x, y = jax.random.normal(key, (2, 1))
    return {"x": x, "y": y}


def _field(data: Float[Array, " b"], players: Any) -> Any:
    x, y = players["x"], players["y"]
    # h'(t) = sigmoid(-t)
    fake, real = jax.nn.sigmoid(y * x), jax.nn.sigmoid(-y * data)
    return {"x": -y * fake, "y": x * fake - jnp.mean(data * real, keepdims=True)}


def _operator(data: Float[Array, " n"], players: Any, batch: Int[Array, " b"]) -> Any:
    return _field(data[batch], players)


def _payoff(data: Float[Array, " n"], players: Any, batch: Int[Array, " b"]) -> Float[Array, ""]:
    x, y = players["x"], players["y"]
    return jnp.mean(jax.nn.log_sigmoid(y * data[batch])) + jnp.sum(jax.nn.log_sigmoid(-y * x))
