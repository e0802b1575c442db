r"""A bilinear game with many solutions: every coupling has the same null space.

.. math:: f_i(x, y) = x^\top U \mathrm{diag}(s_i) V^\top y + a_i^\top x - c_i^\top y

with :math:`U, V` of r < d orthonormal columns and :math:`a_i, c_i` in their span. The solutions
form an affine space of dimension 2(d - r). No sample moves the players along it, so a method cannot
but end at the solution nearest to its start, and the distance that counts is the distance to the
whole set. Methods that invert the Jacobian, or that are tuned to its smallest singular value, meet
a zero here.

Source: ours; the setting is that of the error bounds of Hsieh et al., `Explore Aggressively, Update
Conservatively <https://arxiv.org/abs/2003.10162>`_, 2020, which hold without strong monotonicity.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from jaxfair.games._game import Game
from jaxfair.games._matrices import spread
from jaxfair.games._numbers import check_scales, check_span, sizes
from jaxfair.games.finite_sum import finite_sum
from jaxfair.typing import Key


def bilinear_rank_deficient(
    key: Key,
    *,
    dim: int = 100,
    rank: int = 50,
    num_samples: int = 100,
    min_singular: ArrayLike = 0.1,
    max_singular: ArrayLike = 1.0,
    bias: ArrayLike = 1.0,
) -> Game:
    r"""Draws a bilinear game of a given rank.

    Args:
      key: a PRNG key for the matrices and biases.
      dim: d, the size of each of the two players.
      rank: r, at least 1 and at most `dim`.
      num_samples: n.
      min_singular: the smallest of the nonzero singular values, drawn as
        :func:`jaxfair.games.spread` says.
      max_singular: the largest.
      bias: scale of :math:`a_i, c_i`, whose norms are about `bias` times :math:`\sqrt{r/d}`.

    Returns:
      The game, with players ``{"x": [d], "y": [d]}`` that start at N(0, I). `saddle` is the
      solution of least norm, `distance` the distance to the set of all of them. It holds
      ``4 n d**2`` bytes of matrices in float32.

    Raises:
      ValueError: for a rank outside ``[1, dim]``.

    Example:
      >>> from jaxfair import games
      >>> game = games.bilinear_rank_deficient(jax.random.key(0), dim=5, rank=2, num_samples=4)
      >>> int(jnp.linalg.matrix_rank(game.jacobian))
      4
    """
    dim, rank, num_samples = sizes(dim=dim, rank=rank, num_samples=num_samples)
    check_scales(bias=bias)
    check_span("singular", min_singular, max_singular)
    if not 1 <= rank <= dim:
        raise ValueError(f"rank={rank}: give a number from 1 to dim={dim}.")
    key_left, key_right, key_singular, key_a, key_c = jax.random.split(key, 5)
    left = jax.random.orthogonal(key_left, dim)[:, :rank]
    right = jax.random.orthogonal(key_right, dim)[:, :rank]
    singular = spread(key_singular, (num_samples, rank), min_singular, max_singular)
    scale = bias / dim**0.5
    a = scale * jax.random.normal(key_a, (num_samples, rank))
    c = scale * jax.random.normal(key_c, (num_samples, rank))

    # In the coordinates of the two bases the mean game is diagonal: s y + a = 0, s x = c.
    mean = jnp.mean(singular, axis=0)
    saddle = {
        "x": left @ (jnp.mean(c, axis=0) / mean),
        "y": -right @ (jnp.mean(a, axis=0) / mean),
    }
    return finite_sum(
        "bilinear_rank_deficient",
        B=jnp.einsum("ij,nj,kj->nik", left, singular, right),
        a=a @ left.T,
        c=c @ right.T,
        saddle=saddle,
        distance=Partial(_distance_to_set, left, right, saddle),
    )


def _distance_to_set(
    left: Float[Array, "d r"], right: Float[Array, "d r"], saddle: dict, players: dict
) -> Float[Array, ""]:
    across = (left.T @ (players["x"] - saddle["x"]), right.T @ (players["y"] - saddle["y"]))
    return jnp.linalg.norm(jnp.concatenate(across))
