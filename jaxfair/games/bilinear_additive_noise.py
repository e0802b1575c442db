r"""A deterministic bilinear game with Gaussian noise on its field.

.. math:: F_\xi(w) = \begin{pmatrix} B y \\ -B^\top x \end{pmatrix} + \sqrt v \, \xi, \qquad \xi \sim N(0, I)

The noise depends on nothing, so every linear method has an exact stationary covariance: that of a
discrete Lyapunov equation. On this game it decides between methods: the stationary variance of the
optimistic gradient tends to :math:`v/s^2` with the step size, not to 0, and that of Omega to
:math:`v/(s^2 (2o/(1-b) - 1))`.

Source: the stochastic bilinear example of Hsieh et al., `Explore Aggressively, Update
Conservatively <https://arxiv.org/abs/2003.10162>`_, 2020 (there d = 50, singular values in [1, 2],
noise 0.5).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from jaxfair.games._game import Game
from jaxfair.games._matrices import random_coupling
from jaxfair.games._numbers import check_scales, sizes
from jaxfair.typing import Key


def bilinear_additive_noise(
    key: Key,
    *,
    dim: int = 50,
    min_singular: ArrayLike = 1.0,
    max_singular: ArrayLike = 2.0,
    noise: ArrayLike = 0.5,
) -> Game:
    r"""Draws the coupling of the game.

    Args:
      key: a PRNG key for the coupling.
      dim: d, the size of each of the two players.
      min_singular: the smallest singular value of :math:`B`.
      max_singular: the largest.
      noise: :math:`\sqrt v`, the standard deviation of the noise of every entry of the field of a
        minibatch of one.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I), solved at the origin. A
      batch is ``{"x": [b, d], "y": [b, d]}`` of noise, and there is no `num_samples`.

    Example:
      >>> from jaxfair import games
      >>> game = games.bilinear_additive_noise(jax.random.key(0), dim=5)
      >>> batch = game.sample(jax.random.key(1), 2)
      >>> {name: noise.shape for name, noise in batch.items()}
      {'x': (2, 5), 'y': (2, 5)}
      >>> field = game.operator(game.saddle, batch)
      >>> bool(jnp.allclose(field["x"], batch["x"].mean(axis=0)))
      True
    """
    (dim,) = sizes(dim=dim)
    check_scales(noise=noise)
    coupling = random_coupling(
        key,
        num_samples=1,
        dim=dim,
        min_singular=min_singular,
        max_singular=max_singular,
        normal=False,
    )[0]
    zeros = jnp.zeros((dim, dim), coupling.dtype)

    return Game(
        name="bilinear_additive_noise",
        init=Partial(_init, dim),
        sample=Partial(_sample, jnp.asarray(noise, coupling.dtype), dim),
        operator=Partial(_operator, coupling),
        mean_operator=Partial(_mean_operator, coupling),
        saddle={"x": jnp.zeros(dim, coupling.dtype), "y": jnp.zeros(dim, coupling.dtype)},
        jacobian=jnp.block([[zeros, coupling], [-coupling.T, zeros]]),
        payoff=Partial(_payoff, coupling),
    )


def _init(dim: int, key: Key) -> Any:
    x, y = jax.random.normal(key, (2, dim))
    return {"x": x, "y": y}


def _sample(noise: Float[Array, ""], dim: int, key: Key, batch_size: int) -> Any:
    x, y = noise * jax.random.normal(key, (2, batch_size, dim))
    return {"x": x, "y": y}


def _operator(coupling: Float[Array, "d d"], players: Any, batch: Any) -> Any:
    return {
        "x": coupling @ players["y"] + jnp.mean(batch["x"], axis=0),
        "y": -(players["x"] @ coupling) + jnp.mean(batch["y"], axis=0),
    }


def _mean_operator(coupling: Float[Array, "d d"], players: Any) -> Any:
    return {"x": coupling @ players["y"], "y": -(players["x"] @ coupling)}


def _payoff(coupling: Float[Array, "d d"], players: Any, batch: Any) -> Float[Array, ""]:
    x, y = players["x"], players["y"]
    linear = jnp.vdot(jnp.mean(batch["x"], axis=0), x) - jnp.vdot(jnp.mean(batch["y"], axis=0), y)
    return jnp.vdot(x, coupling @ y) + linear
