"""Constrained learning: problems, multipliers, formulations, memories, and the solver that plays them."""

from jaxfair.constraints.accuracy_gap import accuracy_gap as accuracy_gap
from jaxfair.constraints.equalized_loss import equalized_loss as equalized_loss
from jaxfair.constraints.evaluation import Evaluation as Evaluation
from jaxfair.constraints.excess_accuracy_gap import excess_accuracy_gap as excess_accuracy_gap
from jaxfair.constraints.formulations import Formulation as Formulation
from jaxfair.constraints.formulations import lagrangian as lagrangian
from jaxfair.constraints.formulations import normalized_lagrangian as normalized_lagrangian
from jaxfair.constraints.memories import Memory as Memory
from jaxfair.constraints.memories import example_memory as example_memory
from jaxfair.constraints.memories import minibatch as minibatch
from jaxfair.constraints.memories import replay_buffer as replay_buffer
from jaxfair.constraints.multipliers import Multipliers as Multipliers
from jaxfair.constraints.multipliers import dense as dense
from jaxfair.constraints.problem import Outcomes as Outcomes
from jaxfair.constraints.problem import Problem as Problem
from jaxfair.constraints.problem import Reference as Reference
from jaxfair.constraints.problem import outcomes as outcomes
from jaxfair.constraints.problem import reference as reference
from jaxfair.constraints.solver import Info as Info
from jaxfair.constraints.solver import Solver as Solver
from jaxfair.constraints.solver import SolverState as SolverState
from jaxfair.constraints.solver import solver as solver
from jaxfair.constraints.unconstrained import unconstrained as unconstrained
