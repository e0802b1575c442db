"""Pruners by name, for a training of T steps: what is pruned when.

==========================  ==========================================================================
gradual methods             from T / 10 to 3 T / 4, every T / 40, along a cubic
STE, SR-STE                 masks follow the weights every T / 40, until 3 T / 4
SET, RigL                   sparse from the start (ERK); weights are exchanged likewise
static                      sparse from the start (ERK), for good
AC/DC                       phases of T / 12: dense for two, then sparse and dense in turn, and two sparse
masks at once, FairGRAPE    from outside: see `jaxfair.recipes.sparse`
==========================  ==========================================================================

The masks of the last quarter are the final ones (AC/DC: of the last sixth). The references stand with the pruners in
`jaxfair.sparsity`.
"""

from collections.abc import Callable
from typing import Any

import optax

from jaxfair import sparsity as sparsity_lib
from jaxfair.typing import Key

#: The methods, in words.
SPARSE = {
    "magnitude": "the smallest weights go, gradually, the same share of every layer (GMP)",
    "magnitude_global": "so, with all layers compared",
    "magnitude_erk": "so, with larger layers sparser (ERK)",
    "saliency": "gradually, the smallest |w g|",
    "fisher": "gradually, the smallest w² times the mean of g²",
    "movement": "gradually, the weights that moved least away from zero",
    "random": "gradually, in a random order",
    "static": "random masks (ERK) that never change",
    "set": "sparse from the start (ERK), small weights exchanged for random ones",
    "rigl": "sparse from the start (ERK), exchanged for those of the largest gradient",
    "acdc": "phases dense and sparse in turn",
    "ste": "dense weights trained straight through masks of the largest",
    "sr_ste": "so, with masked weights drawn to zero",
    "snip": "masks at initialisation, by connection sensitivity",
    "grasp": "masks at initialisation, by gradient flow",
    "synflow": "masks at initialisation, by synaptic flow, without data",
    "wanda": "pruned at once by weight times input, then trained",
    "magnitude_once": "pruned at once by magnitude, then trained",
    "fairgrape": "in rounds that keep each group's share of importance",
    "dense": "not pruned at all",
}
STRAIGHT = ("ste", "sr_ste")


def pruner(
    method: str,
    inner: optax.GradientTransformation,
    sparsity: Any,
    *,
    steps: int,
    prunable: Callable[[str], bool],
    key: Key,
) -> Any:
    """The optimizer of a method for a training of so many steps.

    Args:
      method: of `SPARSE`.
      inner: the optimizer of the living weights.
      sparsity: the share of zeros at the end.
      steps: T.
      prunable: which leaves.
      key: is read in ``init`` only, by what is random, and lives in the state from then on.

    Returns:
      The transformation. That of masks at once and of FairGRAPE prunes nothing by itself: masks are put into its
      state. That of ``"ste"`` and ``"sr_ste"`` wants gradients at the masked weights.

    Raises:
      ValueError: for a method that is not there; see also `jaxfair.sparsity.prune`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> tx = pruner("magnitude", optax.sgd(1.0), 0.5, steps=40, prunable=lambda path: True, key=jax.random.key(0))
      >>> params = {"w": jnp.array([4.0, 3.0, 2.0, 1.0])}
      >>> state = tx.init(params)
      >>> for _ in range(30):
      ...     updates, state = tx.update({"w": jnp.zeros(4)}, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> params["w"].tolist()
      [4.0, 3.0, 0.0, 0.0]
    """
    if method not in SPARSE and method != "given":
        raise ValueError(f"method={method!r}: choose one of {', '.join(SPARSE)}")
    lib: Any = sparsity_lib
    where = {"prunable": prunable}
    if method == "dense":
        return inner
    if method in lib.AT_ONCE or method in ("fairgrape", "given"):
        return lib.prune(inner, lib.constant(0), **where)
    begin, end, every = steps // 10, 3 * steps // 4, max(1, steps // 40)
    exchanged, erk = lib.periodic(sparsity, every=every, end=end), lib.erk()
    if method == "static":
        fixed, score = lib.constant(sparsity), lib.random(key)
        return lib.prune(inner, fixed, score=score, distribution=erk, **where)
    if method in ("set", "rigl"):
        make = lib.set_ if method == "set" else lib.rigl
        return make(inner, exchanged, key=key, distribution=erk, **where)
    if method == "acdc":
        phase = steps // 12
        phases = lib.alternating(sparsity, begin=2 * phase, end=10 * phase, every=phase)
        return lib.regrow(inner, phases, key=key, grow=lib.by_gradient, **where)
    if method in STRAIGHT:
        decay = 2e-4 if method == "sr_ste" else 0.0
        return lib.straight_through(inner, exchanged, decay=decay, **where)
    gradual = lib.polynomial(sparsity, begin=begin, end=end, every=every)
    scores = {
        "saliency": lib.saliency,
        "fisher": lib.fisher(),
        "movement": lib.movement(),
        "random": lib.random(key),
    }
    spread = {"magnitude_global": lib.global_, "magnitude_erk": erk}
    score, distribution = scores.get(method, lib.magnitude), spread.get(method, lib.uniform)
    return lib.prune(inner, gradual, score=score, distribution=distribution, **where)
