"""Stochastic games: what they are, a suite of them, and how they are played."""

from jaxfair.games._contest import Contest as Contest
from jaxfair.games._contest import Played as Played
from jaxfair.games._contest import mean_log as mean_log
from jaxfair.games._contest import outcome as outcome
from jaxfair.games._contest import tail as tail
from jaxfair.games._game import Game as Game
from jaxfair.games._game import distance as distance
from jaxfair.games._game import residual as residual
from jaxfair.games._matrices import around as around
from jaxfair.games._matrices import random_coupling as random_coupling
from jaxfair.games._matrices import random_symmetric as random_symmetric
from jaxfair.games._matrices import spread as spread
from jaxfair.games._methods import METHODS as METHODS
from jaxfair.games._methods import Method as Method
from jaxfair.games._published import PUBLISHED as PUBLISHED
from jaxfair.games._published import published as published
from jaxfair.games._suite import SETUPS as SETUPS
from jaxfair.games._suite import SUITE as SUITE
from jaxfair.games._suite import Setup as Setup
from jaxfair.games.bilinear import bilinear as bilinear
from jaxfair.games.bilinear_additive_noise import bilinear_additive_noise as bilinear_additive_noise
from jaxfair.games.bilinear_coordinates import bilinear_coordinates as bilinear_coordinates
from jaxfair.games.bilinear_ill_conditioned import (
    bilinear_ill_conditioned as bilinear_ill_conditioned,
)
from jaxfair.games.bilinear_interpolated import bilinear_interpolated as bilinear_interpolated
from jaxfair.games.bilinear_rank_deficient import bilinear_rank_deficient as bilinear_rank_deficient
from jaxfair.games.complex_spectrum import complex_spectrum as complex_spectrum
from jaxfair.games.dirac_gan import dirac_gan as dirac_gan
from jaxfair.games.finite_sum import finite_sum as finite_sum
from jaxfair.games.gaussian_mixture_gan import gaussian_mixture_gan as gaussian_mixture_gan
from jaxfair.games.gaussian_mixture_gan import generate as generate
from jaxfair.games.in_minibatches import in_minibatches as in_minibatches
from jaxfair.games.in_minibatches import sample_matrices as sample_matrices
from jaxfair.games.in_the_plane import in_the_plane as in_the_plane
from jaxfair.games.lagrangian_qp import lagrangian_qp as lagrangian_qp
from jaxfair.games.matrix_game import matrix_game as matrix_game
from jaxfair.games.play import Trajectory as Trajectory
from jaxfair.games.play import play as play
from jaxfair.games.quadratic import quadratic as quadratic
from jaxfair.games.quadratic_linear import quadratic_linear as quadratic_linear
from jaxfair.games.robust_least_squares import robust_least_squares as robust_least_squares
from jaxfair.games.spectrum import Spectrum as Spectrum
from jaxfair.games.spectrum import radius as radius
from jaxfair.games.spectrum import spectrum as spectrum
from jaxfair.games.sweep import grid as grid
from jaxfair.games.sweep import sweep as sweep
