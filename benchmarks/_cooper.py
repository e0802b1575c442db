"""The constrained step of `constrained_step`, written with PyTorch and Cooper as Cooper's documentation recommends.

One `ConstrainedMinimizationProblem` with one constraint of G inequalities and a `DenseMultiplier`; the strict
violation moves the multipliers and the proxy moves the weights (`ConstraintState(violation, strict_violation)`);
`AlternatingDualPrimalOptimizer`, the recommended one, with SGD on both sides: one forward and one backward a step.

What is done to make it fast: every sum over groups is one `index_add_`, so that nothing loops over groups (`loop=True`
takes the sums group by group instead, as the released code of CEAG goes through its buffers); the memory is updated in
place; masks go through `torch._foreach_mul_`; SGD is the fused one where asked. Compiling the
network with `torch.compile` was tried and was no faster: the price is in the many small operations around it.

The weights, multipliers, masks and memory after a step are those of jaxfair's step, as a test shows. What it does not
do, though the loop of jaxfair does: average the iterates, count meters, and check that the loss is finite. So it has
the lighter work.
"""

import os
from collections.abc import Sequence
from typing import Any

import cooper
import numpy as np
import torch

from jaxfair.typing import Batch


class NormalizedLagrangian(cooper.formulations.Lagrangian):
    r"""The weights see :math:`\lambda / (1 + \sum \lambda)`, as in `constraints.normalized_lagrangian`."""

    def compute_contribution_to_primal_lagrangian(
        self, constraint_state: cooper.ConstraintState, multiplier: cooper.multipliers.Multiplier
    ) -> Any:
        """Cooper's own contribution, divided."""
        store = super().compute_contribution_to_primal_lagrangian(constraint_state, multiplier)
        total = 1.0 + multiplier.weight.detach().sum()
        return store._replace(lagrangian_contribution=store.lagrangian_contribution / total)


class ExcessAccuracyGap(cooper.ConstrainedMinimizationProblem):
    """CEAG with a memory of every example's last outcome, on batches that are picked by index."""

    def __init__(
        self,
        network: torch.nn.Module,
        split: Batch,
        correct: np.ndarray,
        loss: np.ndarray,
        *,
        num_groups: int,
        tolerance: float,
        margin: float,
        loop: bool,
    ):
        super().__init__()
        self.network, self.num_groups, self.bound = network, num_groups, margin * tolerance
        self.loop = loop
        self.x, self.y = torch.tensor(split.x), torch.tensor(split.y).long()
        self.group = torch.tensor(split.group).long()
        self.outcome = torch.tensor(correct)
        self.sums = self.by_group(self.outcome, self.group)
        self.counts = self.by_group(torch.ones(len(self.group)), self.group).clamp(min=1.0)
        self.group_accuracy = self.sums / self.counts
        self.prevalence = self.counts / len(self.group)
        self.group_loss = self.by_group(torch.tensor(loss), self.group) / self.counts
        self.loss = float(np.mean(loss))
        self.gaps = cooper.Constraint(
            constraint_type=cooper.ConstraintType.INEQUALITY,
            formulation_type=NormalizedLagrangian,
            multiplier=cooper.multipliers.DenseMultiplier(num_constraints=num_groups),
        )

    def by_group(self, values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Sums by group."""
        if self.loop:
            return torch.stack([values[group == g].sum() for g in range(self.num_groups)])
        return torch.zeros(self.num_groups).index_add_(0, group, values)

    def compute_cmp_state(self, index: torch.Tensor) -> cooper.CMPState:
        """The loss and the constraints on these examples; the memory learns their outcomes."""
        x, y, group = self.x[index], self.y[index], self.group[index]
        logits = self.network(x)
        losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
        loss = losses.mean()

        with torch.no_grad():
            correct = (logits.argmax(dim=1) == y).float()
            self.sums += self.by_group(correct - self.outcome[index], group)
            self.outcome[index] = correct
            gap = self.group_accuracy - self.sums / self.counts
            strict = gap - torch.dot(self.prevalence, gap) - self.bound

        group_loss = self.by_group(losses, group) / (len(y) * self.prevalence)
        proxy = (group_loss - self.group_loss) - (loss - self.loss) - self.bound
        state = cooper.ConstraintState(violation=proxy, strict_violation=strict)
        return cooper.CMPState(loss=loss, observed_constraints={self.gaps: state})


class Training:
    """A network under pruning, its problem, and Cooper's optimizer."""

    def __init__(
        self,
        params: dict[str, Any],
        split: Batch,
        correct: np.ndarray,
        loss: np.ndarray,
        *,
        num_groups: int,
        learning_rate: float,
        momentum: float,
        dual_rate: float,
        tolerance: float,
        margin: float,
        loop: bool = False,
        fused: bool = False,
        threads: int | None = None,
    ):
        self.threads = os.cpu_count() if threads is None else threads
        # The same starting point: flax keeps kernels as [in, out], torch as [out, in].
        layers: list[torch.nn.Module] = []
        for name in sorted(params):
            kernel = torch.tensor(np.asarray(params[name]["kernel"])).T.contiguous()
            linear = torch.nn.Linear(kernel.shape[1], kernel.shape[0])
            linear.weight.data = kernel
            linear.bias.data = torch.tensor(np.asarray(params[name]["bias"]))
            layers += [linear, torch.nn.ReLU()]
        self.network = torch.nn.Sequential(*layers[:-1])
        self.prunable = [m.weight for m in self.network if isinstance(m, torch.nn.Linear)][:-1]
        self.masks = [torch.ones_like(w) for w in self.prunable]
        self.problem = ExcessAccuracyGap(
            self.network, split, correct, loss,
            num_groups=num_groups, tolerance=tolerance, margin=margin, loop=loop,
        )  # fmt: skip
        primal = torch.optim.SGD(self.network.parameters(), lr=learning_rate, momentum=momentum, fused=fused or None)
        primal.register_step_pre_hook(self._mask_gradients)
        primal.register_step_post_hook(self._mask_weights)
        dual = torch.optim.SGD(self.problem.dual_parameters(), lr=dual_rate, maximize=True)
        self.optimizer = cooper.optim.AlternatingDualPrimalOptimizer(
            cmp=self.problem, primal_optimizers=primal, dual_optimizers=dual
        )

    def _mask_gradients(self, *_: Any) -> None:
        torch._foreach_mul_([w.grad for w in self.prunable], self.masks)

    @torch.no_grad()
    def _mask_weights(self, *_: Any) -> None:
        torch._foreach_mul_([w.data for w in self.prunable], self.masks)

    @torch.no_grad()
    def prune(self, zeros: Sequence[int]) -> None:
        """Removes this many of the smallest weights of every hidden layer."""
        for weight, mask, number in zip(self.prunable, self.masks, zeros, strict=True):
            if number:
                mask.copy_(weight.abs() > weight.abs().flatten().kthvalue(number).values)
        self._mask_weights()

    def epoch(self, order: torch.Tensor, zeros: Sequence[int]) -> None:
        """The steps of this order, and then new masks."""
        torch.set_num_threads(self.threads)
        for index in order:
            self.optimizer.roll(compute_cmp_state_kwargs={"index": index})
        self.prune(zeros)
