r"""The constrained step of `constrained_step`, written with PyTorch and humancompatible-train.

Its augmented Lagrangian, `dual_optim.ALM`, in the form that it takes by itself where there is a penalty c, that of
Hestenes, Powell and Rockafellar: the weights see :math:`\max(\lambda + c v, 0)`. It knows one value per constraint and
no proxy, so it is given one whose number is the strict value and whose gradient is the proxy's. With the penalty as its
rate the multipliers move as those of `constraints.augmented_lagrangian` do under plain SGD, and weights, multipliers,
masks and memory after a step are those of jaxfair's step, as a test shows.
"""

import torch
from humancompatible.train import dual_optim

from benchmarks import _torch


def training(
    network: _torch.Pruned, gaps: _torch.ExcessAccuracyGap, *, dual_rate: float, threads: int | None = None
) -> _torch.Training:
    """The entry point that its documentation recommends, with the network's own optimizer."""
    dual = dual_optim.ALM(gaps.num_groups, lr=dual_rate, penalty=dual_rate, is_ineq=True)

    def step(index: torch.Tensor) -> None:
        loss, proxy, strict = gaps.measure(index)
        network.optimizer.zero_grad()
        dual.forward_update(loss, strict + proxy - proxy.detach()).backward()
        network.optimizer.step()

    return _torch.Training(network, gaps, step, lambda: dual.duals.detach(), threads=threads)
