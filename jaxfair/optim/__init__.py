"""Optimizers of min-max problems as optax transformations of the joint field.

Every one receives ``F(w) = (grad_x f, -grad_y f)`` on the joint tree of the players and descends: who ascends is in the
sign of the field. There are four kinds.

- One gradient per step, anywhere in a chain and in `optax.partition`: `omega`, `omegam`, `optimistic_gradient`,
  `optimistic_adam`, `nupi`, `past_extragradient`, `halpern`. Rates and optimism may be schedules, and trees with one
  number per player.
- More evaluations, through ``operator_fn=`` and its like (see `Operator` and `Samples`), on the joint tree and first
  in a chain: `extragradient`, `anchored_extragradient`, `fast_extragradient`, `svrg_extragradient`; with products by
  the Jacobian `consensus`, `hamiltonian`, `symplectic_adjustment`, `competitive_gradient`, `lead`.
- Sharpness, of one player or of some leaves of a game: `scale_by_sam` and `scale_by_gcsam` replace the field by the one
  a small way uphill, through ``operator_fn=`` and first in a chain.
- Wrappers of any of these: `lookahead`, and `average_iterates`, which leaves the play alone (`get_average`
  reads it).

And for the player whose model is linear, `linear_preconditioner`, first in a chain.
"""

from jaxfair.optim._oracles import Operator as Operator
from jaxfair.optim._oracles import Samples as Samples
from jaxfair.optim.anchored_extragradient import (
    AnchoredExtragradientState as AnchoredExtragradientState,
)
from jaxfair.optim.anchored_extragradient import anchored_extragradient as anchored_extragradient
from jaxfair.optim.average_iterates import AverageIteratesState as AverageIteratesState
from jaxfair.optim.average_iterates import average_iterates as average_iterates
from jaxfair.optim.average_iterates import get_average as get_average
from jaxfair.optim.competitive_gradient import CompetitiveGradientState as CompetitiveGradientState
from jaxfair.optim.competitive_gradient import competitive_gradient as competitive_gradient
from jaxfair.optim.consensus import ConsensusState as ConsensusState
from jaxfair.optim.consensus import consensus as consensus
from jaxfair.optim.extragradient import ExtragradientState as ExtragradientState
from jaxfair.optim.extragradient import extragradient as extragradient
from jaxfair.optim.fast_extragradient import FastExtragradientState as FastExtragradientState
from jaxfair.optim.fast_extragradient import fast_extragradient as fast_extragradient
from jaxfair.optim.halpern import HalpernState as HalpernState
from jaxfair.optim.halpern import halpern as halpern
from jaxfair.optim.hamiltonian import HamiltonianState as HamiltonianState
from jaxfair.optim.hamiltonian import hamiltonian as hamiltonian
from jaxfair.optim.lead import LeadState as LeadState
from jaxfair.optim.lead import lead as lead
from jaxfair.optim.linear_preconditioner import linear_curvature as linear_curvature
from jaxfair.optim.linear_preconditioner import linear_preconditioner as linear_preconditioner
from jaxfair.optim.lookahead import LookaheadState as LookaheadState
from jaxfair.optim.lookahead import lookahead as lookahead
from jaxfair.optim.numbers import Rate as Rate
from jaxfair.optim.numbers import scale_by_rate as scale_by_rate
from jaxfair.optim.nupi import NuPIState as NuPIState
from jaxfair.optim.nupi import nupi as nupi
from jaxfair.optim.nupi import scale_by_nupi as scale_by_nupi
from jaxfair.optim.omega import OmegaState as OmegaState
from jaxfair.optim.omega import omega as omega
from jaxfair.optim.omega import scale_by_omega as scale_by_omega
from jaxfair.optim.omegam import omegam as omegam
from jaxfair.optim.omegam import scale_by_omegam as scale_by_omegam
from jaxfair.optim.optimistic_adam import OptimisticAdamState as OptimisticAdamState
from jaxfair.optim.optimistic_adam import optimistic_adam as optimistic_adam
from jaxfair.optim.optimistic_adam import scale_by_optimistic_adam as scale_by_optimistic_adam
from jaxfair.optim.optimistic_gradient import OptimisticGradientState as OptimisticGradientState
from jaxfair.optim.optimistic_gradient import optimistic_gradient as optimistic_gradient
from jaxfair.optim.optimistic_gradient import (
    scale_by_optimistic_gradient as scale_by_optimistic_gradient,
)
from jaxfair.optim.past_extragradient import PastExtragradientState as PastExtragradientState
from jaxfair.optim.past_extragradient import past_extragradient as past_extragradient
from jaxfair.optim.scale_by_sam import GcSamState as GcSamState
from jaxfair.optim.scale_by_sam import SamState as SamState
from jaxfair.optim.scale_by_sam import scale_by_gcsam as scale_by_gcsam
from jaxfair.optim.scale_by_sam import scale_by_sam as scale_by_sam
from jaxfair.optim.svrg_extragradient import SvrgExtragradientState as SvrgExtragradientState
from jaxfair.optim.svrg_extragradient import svrg_extragradient as svrg_extragradient
from jaxfair.optim.symplectic_adjustment import (
    SymplecticAdjustmentState as SymplecticAdjustmentState,
)
from jaxfair.optim.symplectic_adjustment import symplectic_adjustment as symplectic_adjustment
