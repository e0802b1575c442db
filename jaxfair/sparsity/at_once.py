r"""Masks at once, each method as its authors use it: what is compared with what, on which data, in how many rounds.

==================  ==========================================  ================================  ==========
method              score                                       compared                          network
==================  ==========================================  ================================  ==========
``snip``            :math:`|w g|`                               over all layers                   initial
``grasp``           :math:`w (Hg)`, logits over 200             over all layers                   initial
``synflow``         :math:`|w| \, \partial R/\partial |w|`      over all layers, in 100 rounds    initial
``wanda``           :math:`|w| \, \|x\|`                        within an output                  trained
``magnitude_once``  :math:`|w|`                                 within a layer                    trained
==================  ==========================================  ================================  ==========

The scores stand in files of their own, with their references: `snip`, `grasp`, `synflow`, `wanda`, `one_shot`. How this
differs from the authors' code: SynFlow in the dtype of the weights.
"""

from typing import Any

import jax.numpy as jnp
import optax

from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity._distributions import global_
from jaxfair.sparsity._masks import apply_masks
from jaxfair.sparsity._structures import balanced
from jaxfair.sparsity.one_shot import grasp, one_shot, snip, synflow
from jaxfair.sparsity.wanda import wanda
from jaxfair.typing import Array, Model, ModelState, Params

#: What :func:`at_once` knows.
AT_ONCE = ("snip", "grasp", "synflow", "wanda", "magnitude_once")


def at_once(
    method: str,
    model: Model,
    params: Params,
    model_state: ModelState,
    x: Any,
    y: Array,
    sparsity: Any,
    *,
    rounds: Any = 100,
    masks: Any = None,
) -> Any:
    """Masks of a network from one batch, for training under them with a constant schedule.

    Args:
      method: of the table above.
      model: the network; only its prunable leaves are pruned.
      params: its weights, initial or trained.
      model_state: its state, such as BatchNorm statistics.
      x: ``[B, ...]``; for SNIP and GraSP ten examples or more of every class.
      y: ``[B]`` classes.
      sparsity: the share of zeros, in ``[0, 1)``.
      rounds: of SynFlow.
      masks: what is pruned already, and stays so; the weights there count as zeros.

    Returns:
      The tree of masks, True = kept.

    Raises:
      ValueError: for a method that is not in the table; see also `one_shot`.

    Example:
      >>> import jax
      >>> from jaxfair import models, sparsity
      >>> model, x = models.mlp(2, hidden=(8, 8)), jnp.ones((4, 3))
      >>> params, state = model.init(jax.random.key(0), x)
      >>> masks = at_once("snip", model, params, state, x, jnp.array([0, 1, 0, 1]), 0.5)
      >>> sum(int(masks[layer]["kernel"].sum()) for layer in ("Dense_0", "Dense_1"))
      44
    """
    if method not in AT_ONCE:
        raise ValueError(f"method={method!r}: choose one of {', '.join(AT_ONCE)}")

    counts.exact_sparsity(sparsity)  # before the scores, which may take long
    given = {"prunable": model.prunable, "masks": masks}
    if masks is not None:
        params = apply_masks(params, masks)

    def forward(p: Params, x: Any, train: bool) -> Array:
        return model.apply(p, model_state, x, train=train)[0]

    def loss(p: Params) -> Array:
        # Of nearly uniform classes, as the authors of GraSP have it.
        logits = forward(p, x, True) / (200 if method == "grasp" else 1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def flow(p: Params) -> Params:
        return synflow(lambda p: forward(p, jnp.ones_like(x[:1]), False).sum(), p)

    if method == "magnitude_once":
        return one_shot(params, sparsity, **given)[1]
    if method == "wanda":
        scores = wanda(lambda p: forward(p, x, False), params, prunable=model.prunable)
        return one_shot(params, sparsity, scores=scores, structure=balanced(), **given)[1]
    if method == "synflow":
        return one_shot(params, sparsity, scores=flow, rounds=rounds, distribution=global_, **given)[1]
    scores = (snip if method == "snip" else grasp)(loss, params)
    return one_shot(params, sparsity, scores=scores, distribution=global_, **given)[1]
