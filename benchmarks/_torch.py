"""What the peers of `constrained_step` share in PyTorch: a network under pruning, and the constraints of a batch.

What is done to make it fast: every sum over groups is one `index_add_`, so that nothing loops over groups (`loop=True`
takes the sums group by group instead, as the released code of CEAG goes through its buffers); the memory is updated in
place; masks go through `torch._foreach_mul_`; SGD is the fused one where asked. Compiling the
network with `torch.compile` was tried and was no faster: the price is in the many small operations around it.

What a peer does not do, though the loop of jaxfair does: average the iterates, count meters, and check that the loss is
finite. So it has the lighter work.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from jaxfair.typing import Batch


class Pruned:
    """A network of dense layers under pruning, from jaxfair's parameters, and its optimizer."""

    def __init__(self, params: dict[str, Any], *, learning_rate: float, momentum: float, fused: bool):
        # The same starting point: flax keeps kernels as [in, out], torch as [out, in].
        layers: list[torch.nn.Module] = []
        for name in sorted(params):
            kernel = torch.tensor(np.asarray(params[name]["kernel"])).T.contiguous()
            linear = torch.nn.Linear(kernel.shape[1], kernel.shape[0])
            linear.weight.data = kernel
            linear.bias.data = torch.tensor(np.asarray(params[name]["bias"]))
            layers += [linear, torch.nn.ReLU()]
        self.layers = torch.nn.Sequential(*layers[:-1])
        self.prunable = [m.weight for m in self.layers if isinstance(m, torch.nn.Linear)][:-1]
        self.masks = [torch.ones_like(w) for w in self.prunable]
        self.optimizer = torch.optim.SGD(
            self.layers.parameters(), lr=learning_rate, momentum=momentum, fused=fused or None
        )
        self.optimizer.register_step_pre_hook(self._mask_gradients)
        self.optimizer.register_step_post_hook(self._mask_weights)

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


class ExcessAccuracyGap:
    """CEAG with a memory of every example's last outcome, on batches that are picked by index."""

    def __init__(
        self,
        network: torch.nn.Module,
        split: Batch,
        correct: np.ndarray,
        loss: np.ndarray,
        *,
        num_groups: int,
        bound: float,
        loop: bool,
    ):
        self.network, self.num_groups, self.bound, self.loop = network, num_groups, bound, loop
        self.x, self.y = torch.tensor(split.x), torch.tensor(split.y).long()
        self.group = torch.tensor(split.group).long()
        self.outcome = torch.tensor(correct)
        self.sums = self.by_group(self.outcome, self.group)
        self.counts = self.by_group(torch.ones(len(self.group)), self.group).clamp(min=1.0)
        self.group_accuracy = self.sums / self.counts
        self.prevalence = self.counts / len(self.group)
        self.group_loss = self.by_group(torch.tensor(loss), self.group) / self.counts
        self.loss = float(np.mean(loss))

    def by_group(self, values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """Sums by group."""
        if self.loop:
            return torch.stack([values[group == g].sum() for g in range(self.num_groups)])
        return torch.zeros(self.num_groups).index_add_(0, group, values)

    def measure(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss, the proxies and the strict values on these examples; the memory learns their outcomes."""
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
        return loss, proxy, strict


class Training:
    """A network, its constraints, and a step of a peer's.

    Attributes:
      network: the :class:`Pruned`.
      gaps: the :class:`ExcessAccuracyGap`, with its memory.
      step: ``step(index)``, on these examples.
      multipliers: ``multipliers() -> [G]``.
    """

    def __init__(
        self,
        network: Pruned,
        gaps: ExcessAccuracyGap,
        step: Callable[[torch.Tensor], Any],
        multipliers: Callable[[], torch.Tensor],
        *,
        threads: int | None = None,
    ):
        self.network, self.gaps, self.step, self.multipliers = network, gaps, step, multipliers
        self.threads = os.cpu_count() if threads is None else threads

    def epoch(self, order: torch.Tensor, zeros: Sequence[int]) -> None:
        """The steps of this order, and then new masks."""
        torch.set_num_threads(self.threads)
        for index in order:
            self.step(index)
        self.network.prune(zeros)
