"""Bilevel problems: masks and weights found together, and coresets by the same pieces."""

from jaxfair.bilevel._masks import masked as masked
from jaxfair.bilevel._state import Bilevel as Bilevel
from jaxfair.bilevel._state import BilevelAux as BilevelAux
from jaxfair.bilevel._state import BilevelInfo as BilevelInfo
from jaxfair.bilevel._state import BilevelState as BilevelState
from jaxfair.bilevel.bifp import bifp as bifp
from jaxfair.bilevel.bip import bip as bip
from jaxfair.bilevel.onto_budget import onto_budget as onto_budget
