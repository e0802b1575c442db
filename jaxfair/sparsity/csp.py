r"""Pruning as compressed sensing: the sparse weights of which a layer's inputs can least tell that they changed.

A layer's weights W ``[n, out]`` are to be recovered as V, with k entries, from what its own inputs X measure of them:

.. math::
    \min_{\|V\|_0 \le k} \; \tfrac12 \operatorname{tr}\,(W - V)^\top G \, (W - V), \qquad
    G = X^\top X + \text{ridge} \cdot \overline{\operatorname{diag}(X^\top X)} \, I

which is half the squared change of the layer's outputs. k counts over the whole matrix, so outputs compete.

.. code-block:: text

    from each of three starts   the k largest of |W|, of |W| d, of |G W| / d,   d the root of G's diagonal
      repeat `rounds` times
        iterative hard thresholding   V <- P_k(V + G (W - V) / L), in units of 1 or of d;
                                      longer steps while the error falls, shorter ones where it would rise
        re-solve                      all values on that support at their optimum: conjugate gradients per output
    the V of the lowest error

With G = I the best V is magnitude's, and with a diagonal G that of `wanda`, both with the weights as they are: what the
inputs add is that kept weights take over what the pruned ones did. A *random* sensing matrix in place of X adds only
noise to the ranking by magnitude. An input that is always 0 has weights that cost nothing: they go first.

**This design is ours.** The paper that the idea comes from recasts pruning as compressed sensing within training, and
its equations are not public; nothing here is to be named after its authors. It is `chita` with inputs in place of
gradients, a layer at a time.

References:
  Zhen, Nguyen, Chang, Mouchtaris and Rastrow, *Sparsification via compressed sensing for automatic speech
  recognition*, 2021, https://arxiv.org/abs/2102.04932, for the idea; Blumensath and Davies, *Iterative hard
  thresholding for compressed sensing*, 2009; Foucart, *Hard thresholding pursuit*, 2011, for the re-solve.
"""

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import ArrayLike

from jaxfair import tree
from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity import _quadratic as quadratic
from jaxfair.sparsity._distributions import Distribution, Layer, uniform
from jaxfair.sparsity._prunable import positions
from jaxfair.sparsity._quadratic import Place
from jaxfair.sparsity.second_order._least_squares import require_positive
from jaxfair.sparsity.top_k import top_k
from jaxfair.typing import Array, Params


class CspSolution(NamedTuple):
    """What `csp_solve` found.

    Attributes:
      weights: ``[n, out]``, 0 where pruned.
      mask: ``[n, out]`` bool, exactly k of them True.
      error: ``[]``, the objective; 0 at the dense weights.
      trace: ``[2 rounds + 1]``, the objective at the start, after each thresholding and each re-solve; it never rises.
    """

    weights: Array
    mask: Array
    error: Array
    trace: Array


class CspResult(NamedTuple):
    """What `csp` found, by path.

    Attributes:
      lost: ``[]`` each, the squared change of the outputs over the squared outputs: 0 at best, and above 1
        where a large ridge, or outputs that nearly cancel, make it worse than no weights at all.
      kept: how many weights live.
    """

    lost: dict[str, Array]
    kept: dict[str, int]


def csp_solve(
    weights: Array,
    gram: Array,
    keep: Any,
    *,
    ridge: ArrayLike = 1e-4,
    rounds: int = 3,
    steps: int = 50,
    tolerance: float = 1e-4,
) -> CspSolution:
    """The k weights of a layer to keep, and their values.

    Args:
      weights: W, ``[n, out]``.
      gram: ``[n, n]``, the inputs' second moments, as of `input_grams`; any scale.
      keep: k, an integer or traced.
      ridge: what a changed weight costs by itself, in units of the mean of the diagonal, above 0.
      rounds: of thresholding and re-solve.
      steps: at most so many of thresholding, and twice as many of conjugate gradients, each round.
      tolerance: thresholding stops where the error falls by less, relatively.

    Returns:
      `CspSolution`.

    Raises:
      ValueError: for a k outside of [1, n out], a ridge or numbers of steps that are not above 0, a Gram matrix of
        another width, and for what is not finite, unless it is traced.

    Example:
      Two inputs that nearly agree. The larger weight stays, and takes over what the other did:

      >>> gram = jnp.array([[1.0, 0.9], [0.9, 1.0]])
      >>> found = csp_solve(jnp.array([[1.0], [0.8]]), gram, 1)
      >>> found.mask[:, 0].tolist(), f"{found.weights[0, 0]:.2f}", f"{found.error:.3f}"
      ([True, False], '1.72', '0.061')
    """
    require_positive(ridge=ridge, rounds=rounds, steps=steps)
    quadratic.check_layer(weights, gram)
    if not isinstance(keep, Tracer) and not 1 <= operator.index(keep) <= weights.size:
        raise ValueError(f"keep must be in [1, {weights.size}], but it is {keep}")
    dense, moments, unit = quadratic.moments_of(weights, gram, ridge)
    size = jnp.sqrt(jnp.diagonal(moments))[:, None]
    ones = jnp.ones_like(size)
    starts = jnp.stack([jnp.abs(dense), jnp.abs(dense) * size, jnp.abs(moments @ dense) / size])
    units = jnp.stack([ones, size, size])

    def from_start(scores, scale):
        mask = top_k(scores, keep)
        weights = jnp.where(mask, dense, 0)
        step = 1 / (1.05 * _largest(moments / (scale * scale.T)))

        def round_(place, _):
            first = _thresholded(moments, dense, place, keep, scale, step, steps, tolerance)
            second = quadratic.solved(moments, dense, first, 2 * steps)
            return second, jnp.stack([first.error, second.error])

        begun = quadratic.place_of(moments, dense, weights, mask)
        place, trace = lax.scan(round_, begun, None, rounds)
        return place, jnp.concatenate([begun.error[None], trace.ravel()])

    places, traces = jax.vmap(from_start)(starts, units)
    # Of equal errors the first: magnitude's.
    best = jnp.argmin(jnp.where(jnp.isfinite(places.error), places.error, jnp.inf))
    place, trace = jax.tree.map(lambda a: a[best], (places, traces))
    return CspSolution(place.weights.astype(weights.dtype), place.mask, place.error * unit, trace * unit)


def _largest(matrix: Array) -> Array:
    """The largest eigenvalue, from below, by powers: no step is taken on its word."""

    def once(_, v):
        return matrix @ (v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny))

    start = matrix[:, jnp.argmax(jnp.sum(matrix * matrix, axis=0))]
    return jnp.linalg.norm(lax.fori_loop(0, 20, once, start))


def _thresholded(
    moments: Array, dense: Array, place: Place, keep: Any, scale: Array, step: Array, steps: int, tolerance: float
) -> Place:
    """Hard thresholding with steps that grow while the error falls and shrink where it would rise."""

    def once(carry):
        place, tau, count, _ = carry
        moved = place.weights + tau * place.pull / (scale * scale)
        mask = top_k(jnp.abs(moved) * scale, keep)
        moved = jnp.where(mask, moved, 0)
        new = quadratic.place_of(moments, dense, moved, mask)
        better = new.error < place.error
        far = place.error - new.error > tolerance * jnp.abs(place.error)
        chosen = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, place)
        # A long step that gains nothing is halved; if one of 1 / L does not, that is the end.
        return chosen, jnp.where(far, 1.5 * tau, jnp.maximum(tau / 2, step)), count + 1, far | (tau > step)

    start = (place, 8 * step, jnp.int32(0), jnp.array(True))
    return lax.while_loop(lambda c: c[3] & (c[2] < steps), once, start)[0]


@partial(jax.jit, static_argnames=("rounds", "steps"))
def _compiled(weights: Array, gram: Array, keep: Any, **settings: Any) -> CspSolution:
    return csp_solve(weights, gram, keep, **settings)


def csp(
    params: Params,
    grams: Mapping[str, Array],
    sparsity: Any,
    *,
    prunable: Callable[[str], bool],
    distribution: Distribution = uniform,
    ridge: ArrayLike = 1e-4,
    rounds: int = 3,
    steps: int = 50,
) -> tuple[Params, Any, CspResult]:
    """Prunes the dense layers of a network at once, and corrects the weights that stay.

    For pruning on the way, call it at a schedule's steps with the inputs of the network as it is then, hold the masks
    (`prune` with ``constant(0)`` and ``masks=``) and train in between; or without training, `chita_stages` with it as
    ``prune`` and `input_grams` as ``gradients_of``. What was pruned may come back: see `reset_moments`.

    Args:
      params: the tree of parameters.
      grams: by path ``[n, n]``, or ``[G, n, n]``, which are added up: `input_grams` with the same `prunable`, on some
        batch. Groups may be weighed first.
      sparsity: the share to prune of every layer, in ``[0, 1)``.
      prunable: which leaves: kernels ``[n, out]`` of dense layers, also of one that reads patches of an image.
      distribution: `uniform`, ``erk()`` or ``per_path(...)``. Errors of different layers cannot be compared.
      ridge: see `csp_solve`, as are the others.
      rounds: of thresholding and re-solve.
      steps: of each.

    Returns:
      The parameters, their tree of masks (True = kept; the scalar True for a leaf that is not prunable), and the
      `CspResult`.

    Raises:
      ValueError: a sparsity outside ``[0, 1)``, a distribution in which layers compete, a layer without a Gram matrix
        or with one of another width or of no examples, or as `csp_solve`.

    Example:
      >>> from jaxfair import sparsity
      >>> x = jnp.array([[1.0, 1.0, 0.0], [2.0, 2.0, 1.0]])
      >>> params, forward = {"w": jnp.array([[0.5], [1.0], [0.1]])}, lambda p: x @ p["w"]
      >>> grams = sparsity.input_grams(forward, params, prunable=lambda path: True)
      >>> pruned, masks, found = csp(params, grams, 0.6, prunable=lambda path: True)
      >>> masks["w"][:, 0].tolist(), f"{pruned['w'][1, 0]:.2f}", f"{found.lost['w']:.4f}"
      ([False, True, False], '1.54', '0.0002')
    """
    chosen, paths, leaves = positions(params, prunable), tree.paths(params), jax.tree.leaves(params)
    layers = [Layer(paths[i], jnp.shape(leaves[i]), jnp.size(leaves[i])) for i in chosen]
    if any(len(pool) != 1 for pool in distribution.pools(len(layers))):
        raise ValueError("csp prunes each layer by what its outputs lose; take uniform, erk() or per_path(...)")
    share = counts.exact_sparsity(sparsity)
    zeros = distribution.zeros(share, share, layers)
    masks, lost, kept = [jnp.array(True) for _ in leaves], {}, {}
    for i, layer, gone in zip(chosen, layers, zeros, strict=True):
        gram = quadratic.gram_of(grams, layer.path)
        kept[layer.path] = layer.units - gone
        quadratic.check_layer(leaves[i], gram)
        numbers: dict[str, Any] = {"ridge": ridge, "rounds": rounds, "steps": steps}
        found = _compiled(leaves[i], gram, jnp.int32(kept[layer.path]), **numbers)
        moved = leaves[i] - found.weights
        whole, change = (jnp.sum(v * (gram @ v.astype(gram.dtype))) for v in (leaves[i], moved))
        leaves[i], masks[i] = found.weights, found.mask
        lost[layer.path] = jnp.where(whole > 0, change / jnp.where(whole > 0, whole, 1), 0)
    whole_tree = partial(jax.tree.unflatten, jax.tree.structure(params))
    return whole_tree(leaves), whole_tree(masks), CspResult(lost, kept)
