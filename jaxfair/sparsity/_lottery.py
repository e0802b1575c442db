r"""Lottery tickets: train, prune, put the weights back, train again.

.. code-block:: text

    m = 1 (None)
    R times:  w = train(m * w_0, m);   m = the share `keep` of the living of largest |w|;   back to w_0
    result:   m * w_0, with a share keep^R of the weights

:math:`w_0` are the weights at the start, or after a few epochs (late rewinding, which large networks need).

References:
  Frankle, Carbin, *The lottery ticket hypothesis*, 2019; Frankle et al., *Linear mode connectivity and the lottery
  ticket hypothesis*, 2020 (rewinding).
"""

from collections.abc import Callable
from typing import Any

from jaxfair.sparsity import _axes, _numbers
from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity._distributions import Distribution, global_
from jaxfair.sparsity._masks import apply_masks
from jaxfair.sparsity._structures import Structure, unstructured
from jaxfair.sparsity.one_shot import one_shot
from jaxfair.typing import Params


def lottery_ticket(
    train: Callable[[Params, Any], Params],
    params: Params,
    *,
    rounds: Any,
    prunable: Callable[[str], bool],
    keep: Any = 0.8,
    distribution: Distribution = global_,
    structure: Structure = unstructured,
) -> tuple[Params, Any]:
    r"""Finds a sparse network inside the initial one, by iterative magnitude pruning with rewinding.

    Args:
      train: ``train(params, masks)``, the trained weights; what is masked must stay zero: `prune` with a constant
        schedule, or mask the gradients. `masks` is None in the first round, where nothing is masked.
      params: :math:`w_0`, what the ticket is rewound to.
      rounds: R.
      prunable: which leaves.
      keep: the share of the living that every round keeps, in (0, 1).
      distribution: who competes with whom.
      structure: what lives and dies together.

    Returns:
      The ticket: :math:`m \cdot w_0`, and its masks.

    Raises:
      ValueError: for fewer than one round, or `keep` outside of (0, 1).

    Example:
      Training that only tells which weights matter:

      >>> import jax.numpy as jnp
      >>> train = lambda params, masks: {"w": params["w"] * jnp.array([1.0, 9.0, 5.0, 2.0])}
      >>> ticket, masks = lottery_ticket(
      ...     train, {"w": jnp.full(4, 0.5)}, rounds=2, keep=0.5, prunable=lambda path: True)
      >>> ticket["w"].tolist()
      [0.0, 0.5, 0.0, 0.0]
    """
    rounds = _numbers.whole("rounds", rounds, low=None)
    try:
        share = 1 - counts.exact_sparsity(keep)
    except ValueError:
        share = 1
    if rounds < 1 or share == 1:
        raise ValueError(
            f"lottery_ticket needs rounds >= 1 and keep in (0, 1), but it got rounds={rounds}, keep={keep}; "
            "0.8 keeps four of five of the living in every round"
        )
    # Before the first training, which may take long.
    axes = {
        "distribution": _axes.member("distribution", distribution, Distribution),
        "structure": _axes.member("structure", structure, Structure),
    }
    masks = None
    for r in range(1, rounds + 1):
        start = params if masks is None else apply_masks(params, masks)
        trained = train(start, masks)
        _, masks = one_shot(trained, 1 - (1 - share) ** r, prunable=prunable, masks=masks, **axes)
    return apply_masks(params, masks), masks
