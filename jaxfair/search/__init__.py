"""Choosing settings: grids that grow where their end is best, and pseudo-Bayesian optimisation."""

from jaxfair.search.grid import Axis as Axis
from jaxfair.search.grid import Tuned as Tuned
from jaxfair.search.grid import tune as tune
from jaxfair.search.local import Near as Near
from jaxfair.search.local import Rule as Rule
from jaxfair.search.local import Shape as Shape
from jaxfair.search.local import fitted as fitted
from jaxfair.search.local import kriging as kriging
from jaxfair.search.local import linear as linear
from jaxfair.search.local import matern as matern
from jaxfair.search.local import predict as predict
from jaxfair.search.local import shapes as shapes
from jaxfair.search.local import shepard as shepard
from jaxfair.search.minimize import Searched as Searched
from jaxfair.search.minimize import minimize as minimize
from jaxfair.search.pseudo_bayes import Search as Search
from jaxfair.search.pseudo_bayes import Told as Told
from jaxfair.search.pseudo_bayes import best as best
from jaxfair.search.pseudo_bayes import log_expected_improvement as log_expected_improvement
from jaxfair.search.pseudo_bayes import pseudo_bayes as pseudo_bayes
from jaxfair.search.space import Choice as Choice
from jaxfair.search.space import Integer as Integer
from jaxfair.search.space import Real as Real
from jaxfair.search.space import Space as Space
from jaxfair.search.space import decoded as decoded
from jaxfair.search.space import encoded as encoded
