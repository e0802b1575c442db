"""The suite: every game by its name, and how it is set up where methods are compared."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxfair.games._game import Game
from jaxfair.games.bilinear import bilinear
from jaxfair.games.bilinear_additive_noise import bilinear_additive_noise
from jaxfair.games.bilinear_coordinates import bilinear_coordinates
from jaxfair.games.bilinear_ill_conditioned import bilinear_ill_conditioned
from jaxfair.games.bilinear_interpolated import bilinear_interpolated
from jaxfair.games.bilinear_rank_deficient import bilinear_rank_deficient
from jaxfair.games.complex_spectrum import complex_spectrum
from jaxfair.games.dirac_gan import dirac_gan
from jaxfair.games.gaussian_mixture_gan import gaussian_mixture_gan
from jaxfair.games.lagrangian_qp import lagrangian_qp
from jaxfair.games.matrix_game import matrix_game
from jaxfair.games.quadratic import quadratic
from jaxfair.games.quadratic_linear import quadratic_linear
from jaxfair.games.robust_least_squares import robust_least_squares
from jaxfair.typing import Key

#: Every game by its name: ``SUITE[name](key, **options) -> Game``.
SUITE: dict[str, Callable[..., Game]] = {
    "bilinear": bilinear,
    "quadratic": quadratic,
    "quadratic_linear": quadratic_linear,
    "bilinear_ill_conditioned": bilinear_ill_conditioned,
    "bilinear_rank_deficient": bilinear_rank_deficient,
    "bilinear_coordinates": bilinear_coordinates,
    "bilinear_interpolated": bilinear_interpolated,
    "bilinear_additive_noise": bilinear_additive_noise,
    "complex_spectrum": complex_spectrum,
    "matrix_game": matrix_game,
    "robust_least_squares": robust_least_squares,
    "dirac_gan": dirac_gan,
    "gaussian_mixture_gan": gaussian_mixture_gan,
    "lagrangian_qp": lagrangian_qp,
}


class Setup(NamedTuple):
    """A game with its options, and what a comparison needs to know of it.

    Attributes:
      make: of a key and options.
      words: what it is, for a reader.
      options: of the game, besides its size.
      published_rate: the learning rate of Omega's authors; None for a game that they do not have.
      sampled: whether it takes ``num_samples``.
      sized: whether it takes ``dim``.
      linear: whether every sample's field is affine on the whole space, so that there is a theory of its stability.
      solved: whether its solution is known; without one the norm of the mean field takes the place of the distance.
    """

    make: Callable[..., Game]
    words: str
    options: Mapping[str, Any] = {}
    published_rate: float | None = None
    sampled: bool = True
    sized: bool = True
    linear: bool = True
    solved: bool = True

    def build(self, key: Key, *, dim: int = 100, num_samples: int = 100) -> Game:
        """The game.

        Args:
          key: a PRNG key for its matrices.
          dim: the size of each player, of a game that has one.
          num_samples: of a game that has them.
        """
        size = ({"dim": dim} if self.sized else {}) | ({"num_samples": num_samples} if self.sampled else {})
        return self.make(key, **self.options, **size)


def _rank_deficient(key: Key, *, dim: int, num_samples: int) -> Game:
    return bilinear_rank_deficient(key, dim=dim, rank=dim // 2, num_samples=num_samples)


def _robust_least_squares(key: Key, *, num_samples: int) -> Game:
    return robust_least_squares(key, dim=min(20, num_samples), num_samples=num_samples)


def _dirac_gan(key: Key, *, num_samples: int) -> Game:
    # Data with a spread, or the game would be without noise.
    return dirac_gan(key, num_samples=num_samples, noise=0.5)


#: Set-ups by name, Omega's authors' six first: ``SETUPS[name].build(key, dim=, num_samples=) -> Game``.
SETUPS = {
    "bilinear": Setup(
        bilinear,
        "x'By; the matrix of every sample is the identity, so that all noise is in the linear terms",
        published_rate=0.02,
    ),
    "bilinear_0.1": Setup(
        bilinear,
        "x'By; the singular values of the samples' matrices lie between 0.1 and 1",
        {"min_singular": 0.1},
        published_rate=0.02,
    ),
    "bilinear_0.01": Setup(
        bilinear,
        "x'By; the singular values of the samples' matrices lie between 0.01 and 1",
        {"min_singular": 0.01},
        published_rate=0.02,
    ),
    "quadratic": Setup(
        quadratic,
        "both players have a curvature of 1 besides a weak coupling",
        published_rate=0.01,
    ),
    "quadratic_0.1": Setup(
        quadratic,
        "both players have curvatures between 0.1 and 1 besides a weak coupling",
        {"min_singular": 0.1, "min_eigenvalue": 0.1},
        published_rate=0.01,
    ),
    "quadratic_linear": Setup(
        quadratic_linear,
        "x has a curvature of 1, y has none: the shape of a problem with constraints",
        published_rate=0.02,
    ),
    "bilinear_ill_conditioned": Setup(
        bilinear_ill_conditioned,
        "x'By, the singular values of the mean matrix between 0.01 and 1",
    ),
    "bilinear_rank_deficient": Setup(
        _rank_deficient,
        "x'By with a matrix of half the rank: many solutions, the nearest one counts",
        linear=False,  # one solution of many
    ),
    "bilinear_coordinates": Setup(bilinear_coordinates, "x'By, each sample showing one coordinate", sampled=False),
    "bilinear_interpolated": Setup(bilinear_interpolated, "x'By, without noise at the solution"),
    "bilinear_additive_noise": Setup(
        bilinear_additive_noise,
        "x'By with Gaussian noise that depends on nothing",
        sampled=False,
    ),
    "complex_spectrum": Setup(
        complex_spectrum,
        "a quadratic game with eigenvalues from purely imaginary to real",
        sized=False,
    ),
    "matrix_game": Setup(matrix_game, "mixed strategies on simplices", sized=False, linear=False),
    "robust_least_squares": Setup(
        _robust_least_squares,
        "a regression against an adversary who moves the targets",
        sized=False,
        linear=False,
    ),
    "lagrangian_qp": Setup(
        lagrangian_qp,
        "a quadratic program against the multipliers of its constraints",
        sized=False,
        linear=False,
    ),
    "dirac_gan": Setup(
        _dirac_gan,
        "the smallest generative adversarial network, of one number per player",
        sized=False,
        linear=False,
    ),
    "gaussian_mixture_gan": Setup(
        gaussian_mixture_gan,
        "a small generative adversarial network on a ring of eight Gaussians",
        {"num_samples": 256, "hidden": 16},
        sampled=False,
        sized=False,
        linear=False,
        solved=False,
    ),
}
