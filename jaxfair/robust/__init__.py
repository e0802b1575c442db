"""Objectives whose second player is an adversary over examples, groups or criteria."""

from jaxfair.robust.last_layer import LastLayer as LastLayer
from jaxfair.robust.last_layer import last_layer as last_layer
from jaxfair.robust.last_layer import with_head as with_head
from jaxfair.robust.selmix import SelMixAux as SelMixAux
from jaxfair.robust.selmix import SelMixInfo as SelMixInfo
from jaxfair.robust.selmix import SelMixState as SelMixState
from jaxfair.robust.selmix import policy as policy
from jaxfair.robust.selmix import selmix as selmix
