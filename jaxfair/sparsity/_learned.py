r"""Masks that are trained by gradient, under weights that may be frozen.

============  ==============================  ==================================================
method        mask m of a score s             derivative that is used
============  ==============================  ==================================================
edge-popup    1 for the top k of \|s\|        dm/d\|s\| = 1
adapting      sigmoid(t_l s), t_l large       dm/ds = t_s sigmoid(t_s s)(1 - sigmoid(t_s s))
============  ==============================  ==================================================

The scores are a tree like any other: any optax transformation trains them. With weights w the network sees ``m * w``:

.. code-block:: python

    loss = lambda scores: of_network(jax.tree.map(jnp.multiply, params, sparsity.edge_popup(scores, 0.5, ...)))

References:
  Ramanujan et al., *What's hidden in a randomly weighted neural network?*, 2020. Gao, Colombo, Wang, *Adapting by
  pruning: a case study on BERT*, 2021.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike, Float

from jaxfair import tree
from jaxfair.sparsity import _numbers
from jaxfair.sparsity._distributions import Distribution, uniform
from jaxfair.sparsity._structures import Structure, unstructured
from jaxfair.sparsity.one_shot import one_shot
from jaxfair.typing import Array, Key, Params


def edge_popup(
    scores: Params,
    sparsity: Any,
    *,
    prunable: Callable[[str], bool],
    distribution: Distribution = uniform,
    structure: Structure = unstructured,
) -> Params:
    """Masks of the largest scores, through which gradients pass as if they were the absolute scores.

    Args:
      scores: the structure of the parameters; what counts is their absolute value. Leaves that are not prunable may
        have any shape.
      sparsity: the share of zeros, in ``[0, 1)``.
      prunable: which leaves.
      distribution: as in `prune`.
      structure: as in `prune`.

    Returns:
      The structure of the parameters with floats 0 and 1; ``[]`` 1 for leaves that are not prunable.

    Raises:
      ValueError: as `one_shot`.

    Example:
      >>> scores = {"w": jnp.array([0.1, -0.9])}
      >>> masked = lambda s: edge_popup(s, 0.5, prunable=lambda path: True)["w"] * jnp.array([5.0, 7.0])
      >>> masked(scores).tolist(), jax.grad(lambda s: masked(s).sum())(scores)["w"].tolist()
      ([0.0, 7.0], [5.0, -7.0])
    """
    sizes = jax.tree.map(jnp.abs, scores)
    axes = {"distribution": distribution, "structure": structure}
    _, masks = one_shot(jax.lax.stop_gradient(sizes), sparsity, prunable=prunable, **axes)

    def through(path, size, mask):
        if not prunable(path) or mask.ndim == 0:  # scalars are never pruned
            return jnp.ones((), size.dtype)
        # The number is the mask; the derivative is that of |score|.
        return mask.astype(size.dtype) + (size - jax.lax.stop_gradient(size))

    return tree.map_with_path(through, sizes, masks)


@jax.custom_jvp
def _switch(phi, steep, smooth):
    del smooth
    wide = phi.astype(np.promote_types(phi.dtype, np.float32))  # 1e5 is infinite in float16
    return jax.nn.sigmoid(jnp.asarray(steep, wide.dtype) * wide).astype(phi.dtype)


@_switch.defjvp
def _switch_jvp(primals, tangents):
    phi, steep, smooth = primals
    slope = jnp.asarray(smooth, phi.dtype)
    soft = jax.nn.sigmoid(slope * phi)
    return _switch(phi, steep, smooth), slope * soft * (1 - soft) * tangents[0]


def sigmoid_mask(phi: Float[Array, "..."], *, steep: ArrayLike = 1e5, smooth: ArrayLike = 1.0) -> Float[Array, "..."]:
    r"""A mask that is a step forward and a smooth sigmoid backward: adapting by pruning.

    Args:
      phi: ``[...]``; above 0 a weight lives.
      steep: :math:`t_l` of the value.
      smooth: :math:`t_s` of the derivative.

    Returns:
      ``[...]``, 0 or 1 but for `phi` within a few ``1 / steep`` of 0.

    Raises:
      ValueError: for a steepness that is not above 0.

    Example:
      >>> phi = jnp.array([0.5, -0.5])
      >>> sigmoid_mask(phi).tolist(), jax.grad(lambda p: sigmoid_mask(p).sum())(phi).round(3).tolist()
      ([1.0, 0.0], [0.235..., 0.235...])
    """
    _numbers.within("steep", steep, 0, above=True)
    _numbers.within("smooth", smooth, 0, above=True)
    return _switch(phi, steep, smooth)


def drift(rate: ArrayLike) -> optax.GradientTransformation:
    r"""Draws every score down by the same amount a step: the pressure to prune of adapting by pruning.

    It stands last: ``optax.chain(optax.sgd(2e-5), sparsity.drift(2e-7))``. Train until the share of negative scores is
    the sparsity wanted; weights whose scores were negative may come back.

    Args:
      rate: :math:`\gamma`, added as :math:`-\gamma` to every update.

    Returns:
      The transformation.

    Example:
      >>> tx = optax.chain(optax.sgd(1.0), drift(0.5))
      >>> params = {"phi": jnp.array([1.0, 2.0])}
      >>> updates, _ = tx.update({"phi": jnp.array([0.0, 1.0])}, tx.init(params), params)
      >>> updates["phi"].tolist()
      [-0.5, -1.5]
    """
    _numbers.within("rate", rate)
    return optax.stateless(lambda updates, params: jax.tree.map(lambda u: u - jnp.asarray(rate, u.dtype), updates))


def initial_phi(key: Key, params: Params, *, mean: ArrayLike = 0.01, variance: ArrayLike = 0.001) -> Params:
    """Scores to begin with, normal around a small positive mean: most weights live.

    Example:
      >>> phi = initial_phi(jax.random.key(0), {"w": jnp.zeros(10_000)})
      >>> 0.6 < float((phi["w"] > 0).mean()) < 0.65
      True
    """
    _numbers.within("mean", mean)
    _numbers.within("variance", variance, 0)
    leaves, treedef = jax.tree.flatten(params)

    def draw(number, leaf):
        dtype = leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.float32
        normal = jax.random.normal(jax.random.fold_in(key, number), leaf.shape, dtype)
        return jnp.asarray(mean, dtype) + jnp.asarray(variance**0.5, dtype) * normal

    drawn = [draw(number, leaf) for number, leaf in enumerate(leaves)]
    return jax.tree.unflatten(treedef, drawn)
