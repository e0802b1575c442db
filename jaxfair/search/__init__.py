"""Choosing settings: grids that grow where their end is best, and are refined around the best."""

from jaxfair.search.grid import Axis as Axis
from jaxfair.search.grid import Tuned as Tuned
from jaxfair.search.grid import tune as tune
