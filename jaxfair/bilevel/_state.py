"""What a bilevel run carries, measures and offers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxfair.typing import Params


class BilevelState(NamedTuple):
    """What a bilevel run carries from step to step.

    Attributes:
      params: the lower player: dense weights, of which masks take their part. ``solver.network(state)`` is the sparse
        network.
      scores: the upper player: float32 scores, an array per prunable leaf, in the shape of its units; of relaxed masks
        in [0, 1].
      masks: what the weights are multiplied by in the network: a tree as the parameters, ``[]`` where a leaf is not
        prunable; bool, or of relaxed masks floats.
      multipliers: ``[K]`` float32; empty without constraints.
      penalties: the formulation's state.
      weights_state: of the weights' optimizer, or of the joint one.
      masks_state: of the masks' optimizer; ``()`` beside a joint one.
      dual_state: of the multipliers' optimizer.
      carry: what the problem carries: model state, memories, constants.
      step: scalar int32, the number of steps taken.
    """

    params: Params
    scores: Any
    masks: Any
    multipliers: Any
    penalties: Any
    weights_state: Any
    masks_state: Any
    dual_state: Any
    carry: Any
    step: jax.Array


class BilevelAux(NamedTuple):
    """What a step lets you look at beside the loss.

    Attributes:
      correct: ``[B]`` float32 train-mode outcomes of the batch, each part at the weights and masks that it met.
      estimate: ``[G]``, what the problem's memory knows of each group; empty without constraints.
    """

    correct: jax.Array
    estimate: jax.Array


class BilevelInfo(NamedTuple):
    """What a step measured.

    Attributes:
      loss: scalar, of the lower level, before the step.
      upper_loss: scalar, of the upper level, before its step.
      strict: ``[K]``, the constrained quantities at the lower level.
      strict_observed: ``[K]`` bool.
      multipliers: ``[K]``, before the step.
      weights: ``[K]``, how much each proxy counted at the lower level.
      aux: see :class:`BilevelAux`.
    """

    loss: jax.Array
    upper_loss: jax.Array
    strict: jax.Array
    strict_observed: jax.Array
    multipliers: jax.Array
    weights: jax.Array
    aux: BilevelAux


class Bilevel(NamedTuple):
    """A :class:`~jaxfair.typing.Solver` of two levels, and the network that a state of it is.

    Attributes:
      init: ``init(params, carry, scores=None) -> BilevelState``, in arrays of its own. ``carry`` is the problem's
        ``init``; of `bip` the model state. ``scores`` begin with the magnitudes of the weights where none are given.
      step: ``step(state, batch, key) -> (BilevelState, BilevelInfo)``. The batch is cut into equal parts: the first
        ``weight_steps`` of them are for the weights, the others for the masks.
      network: ``network(state) -> (params, masks)``, the weights, exactly 0 where pruned, and bool masks with exactly
        the number of zeros of the schedule at ``state.step``.
    """

    init: Callable[..., BilevelState]
    step: Callable[..., tuple[BilevelState, BilevelInfo]]
    network: Callable[[BilevelState], tuple[Params, Params]]
