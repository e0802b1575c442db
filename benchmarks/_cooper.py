"""The constrained step of `constrained_step`, written with PyTorch and Cooper as Cooper's documentation recommends.

One `ConstrainedMinimizationProblem` with one constraint of G inequalities and a `DenseMultiplier`; the strict
violation moves the multipliers and the proxy moves the weights (`ConstraintState(violation, strict_violation)`);
`AlternatingDualPrimalOptimizer`, the recommended one, with SGD on both sides: one forward and one backward a step.

The weights, multipliers, masks and memory after a step are those of jaxfair's step, as a test shows. What both have to
do before they come here stands in `_torch`.
"""

from typing import Any

import cooper
import torch

from benchmarks import _torch


class NormalizedLagrangian(cooper.formulations.Lagrangian):
    r"""The weights see :math:`\lambda / (1 + \sum \lambda)`, as in `constraints.normalized_lagrangian`."""

    def compute_contribution_to_primal_lagrangian(
        self, constraint_state: cooper.ConstraintState, multiplier: cooper.multipliers.Multiplier
    ) -> Any:
        """Cooper's own contribution, divided."""
        store = super().compute_contribution_to_primal_lagrangian(constraint_state, multiplier)
        total = 1.0 + multiplier.weight.detach().sum()
        return store._replace(lagrangian_contribution=store.lagrangian_contribution / total)


class Problem(cooper.ConstrainedMinimizationProblem):
    """The constraints of CEAG as Cooper wants to have them."""

    def __init__(self, gaps: _torch.ExcessAccuracyGap):
        super().__init__()
        self.measure = gaps.measure
        self.gaps = cooper.Constraint(
            constraint_type=cooper.ConstraintType.INEQUALITY,
            formulation_type=NormalizedLagrangian,
            multiplier=cooper.multipliers.DenseMultiplier(num_constraints=gaps.num_groups),
        )

    def compute_cmp_state(self, index: torch.Tensor) -> cooper.CMPState:
        """The loss and the constraints on these examples."""
        loss, proxy, strict = self.measure(index)
        state = cooper.ConstraintState(violation=proxy, strict_violation=strict)
        return cooper.CMPState(loss=loss, observed_constraints={self.gaps: state})


def training(
    network: _torch.Pruned, gaps: _torch.ExcessAccuracyGap, *, dual_rate: float, threads: int | None = None
) -> _torch.Training:
    """Cooper's optimizer of the network and of the multipliers."""
    problem = Problem(gaps)
    optimizer = cooper.optim.AlternatingDualPrimalOptimizer(
        cmp=problem,
        primal_optimizers=network.optimizer,
        dual_optimizers=torch.optim.SGD(problem.dual_parameters(), lr=dual_rate, maximize=True),
    )
    return _torch.Training(
        network,
        gaps,
        lambda index: optimizer.roll(compute_cmp_state_kwargs={"index": index}),
        lambda: problem.gaps.multiplier.weight.detach(),
        threads=threads,
    )
