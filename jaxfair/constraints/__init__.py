"""Constrained learning: problems, multipliers, formulations, memories, and the solver that plays them."""

from jaxfair.constraints import penalties as penalties
from jaxfair.constraints import rates as rates
from jaxfair.constraints._game import KKT as KKT
from jaxfair.constraints._game import Game as Game
from jaxfair.constraints._game import Look as Look
from jaxfair.constraints._groups import group_problem as group_problem
from jaxfair.constraints.accuracy_gap import accuracy_gap as accuracy_gap
from jaxfair.constraints.accuracy_parity import accuracy_parity as accuracy_parity
from jaxfair.constraints.churn import churn as churn
from jaxfair.constraints.equalized_loss import equalized_loss as equalized_loss
from jaxfair.constraints.evaluation import Evaluation as Evaluation
from jaxfair.constraints.exact import refreshed as refreshed
from jaxfair.constraints.example_memory import example_memory as example_memory
from jaxfair.constraints.excess_accuracy_gap import excess_accuracy_gap as excess_accuracy_gap
from jaxfair.constraints.formulations import Formulation as Formulation
from jaxfair.constraints.formulations import augmented_lagrangian as augmented_lagrangian
from jaxfair.constraints.formulations import lagrangian as lagrangian
from jaxfair.constraints.formulations import normalized_lagrangian as normalized_lagrangian
from jaxfair.constraints.formulations import quadratic_penalty as quadratic_penalty
from jaxfair.constraints.held_out import HeldOutCarry as HeldOutCarry
from jaxfair.constraints.held_out import confident as confident
from jaxfair.constraints.held_out import held_out as held_out
from jaxfair.constraints.implicit import implicit as implicit
from jaxfair.constraints.indexed import indexed as indexed
from jaxfair.constraints.losses import cross_entropy as cross_entropy
from jaxfair.constraints.losses import distillation as distillation
from jaxfair.constraints.memories import Memory as Memory
from jaxfair.constraints.memories import exponential_average as exponential_average
from jaxfair.constraints.memories import minibatch as minibatch
from jaxfair.constraints.memories import unweighted as unweighted
from jaxfair.constraints.multipliers import Multipliers as Multipliers
from jaxfair.constraints.multipliers import dense as dense
from jaxfair.constraints.problem import Aux as Aux
from jaxfair.constraints.problem import Carry as Carry
from jaxfair.constraints.problem import Outcomes as Outcomes
from jaxfair.constraints.problem import Problem as Problem
from jaxfair.constraints.problem import Reference as Reference
from jaxfair.constraints.problem import group_losses as group_losses
from jaxfair.constraints.problem import outcomes as outcomes
from jaxfair.constraints.problem import reference as reference
from jaxfair.constraints.published import published_equalized_loss as published_equalized_loss
from jaxfair.constraints.published import (
    published_excess_accuracy_gap as published_excess_accuracy_gap,
)
from jaxfair.constraints.replay_buffer import replay_buffer as replay_buffer
from jaxfair.constraints.scaled import scaled as scaled
from jaxfair.constraints.soft_error import soft_error as soft_error
from jaxfair.constraints.solutions import Solution as Solution
from jaxfair.constraints.solutions import best_feasible as best_feasible
from jaxfair.constraints.solutions import stochastic as stochastic
from jaxfair.constraints.solver import Info as Info
from jaxfair.constraints.solver import Solver as Solver
from jaxfair.constraints.solver import SolverState as SolverState
from jaxfair.constraints.solver import solver as solver
from jaxfair.constraints.two_sided import two_sided as two_sided
from jaxfair.constraints.unconstrained import unconstrained as unconstrained
