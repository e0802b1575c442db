"""Bilevel problems: masks and weights found together, and coresets by the same pieces."""

from jaxfair.bilevel._history import Coreset as Coreset
from jaxfair.bilevel._history import History as History
from jaxfair.bilevel._history import chosen_mask as chosen_mask
from jaxfair.bilevel._history import coreset_of as coreset_of
from jaxfair.bilevel._lexicographic import lexicographic_band as lexicographic_band
from jaxfair.bilevel._lexicographic import lexicographic_best as lexicographic_best
from jaxfair.bilevel._lexicographic import lexicographic_better as lexicographic_better
from jaxfair.bilevel._proposals import FlowMemory as FlowMemory
from jaxfair.bilevel._proposals import Proposal as Proposal
from jaxfair.bilevel._proposals import flip as flip
from jaxfair.bilevel._proposals import flow as flow
from jaxfair.bilevel._proposals import swap as swap
from jaxfair.bilevel.coreset import CoresetInfo as CoresetInfo
from jaxfair.bilevel.coreset import CoresetState as CoresetState
from jaxfair.bilevel.coreset import coreset as coreset
from jaxfair.bilevel.coreset import members as members
from jaxfair.bilevel.gradient_matching import gradient_matching as gradient_matching
from jaxfair.bilevel.herding import herding as herding
from jaxfair.bilevel.onto_budget import onto_budget as onto_budget
from jaxfair.bilevel.relaxed_coreset import RelaxedCoresetInfo as RelaxedCoresetInfo
from jaxfair.bilevel.relaxed_coreset import RelaxedCoresetState as RelaxedCoresetState
from jaxfair.bilevel.relaxed_coreset import relaxed_coreset as relaxed_coreset
