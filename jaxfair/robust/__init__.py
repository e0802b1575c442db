"""Objectives whose second player is an adversary over examples, groups or criteria."""

from jaxfair.robust.complaints.driven import DrivenCarry as DrivenCarry
from jaxfair.robust.complaints.driven import driven as driven
from jaxfair.robust.complaints.incompatible import implied_false_positive_rate as implied_false_positive_rate
from jaxfair.robust.complaints.incompatible import incompatible as incompatible
from jaxfair.robust.complaints.independent_sets import heaviest_set as heaviest_set
from jaxfair.robust.complaints.independent_sets import independent_sets as independent_sets
from jaxfair.robust.complaints.offline_cost import best_state as best_state
from jaxfair.robust.complaints.offline_cost import offline_cost as offline_cost
from jaxfair.robust.complaints.optimistic_policy import OptimisticMemory as OptimisticMemory
from jaxfair.robust.complaints.optimistic_policy import optimistic_policy as optimistic_policy
from jaxfair.robust.complaints.play import Played as Played
from jaxfair.robust.complaints.play import Policy as Policy
from jaxfair.robust.complaints.play import play as play
from jaxfair.robust.complaints.play import stay_policy as stay_policy
from jaxfair.robust.complaints.threshold_policy import threshold_bound as threshold_bound
from jaxfair.robust.complaints.threshold_policy import threshold_policy as threshold_policy
from jaxfair.robust.just_train_twice import just_train_twice as just_train_twice
from jaxfair.robust.just_train_twice import weighted_order as weighted_order
from jaxfair.robust.lisa import lisa as lisa
from jaxfair.robust.lisa import lisa_order as lisa_order
from jaxfair.robust.lisa import once as once
from jaxfair.robust.subsample import subsample as subsample
from jaxfair.robust.subsample import subsample_order as subsample_order
