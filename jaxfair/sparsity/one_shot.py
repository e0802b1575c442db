r"""Pruning at once: of given weights, without training.

One round takes the worst weights by a score. Several rounds come nearer to what pruning one by one would do: round r of
R leaves the density :math:`(1 - s)^{r/R}`, and scores that depend on the network are taken anew from what is left.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxfair import tree
from jaxfair.sparsity import _counts as counts
from jaxfair.sparsity import _numbers
from jaxfair.sparsity._distributions import Distribution, uniform
from jaxfair.sparsity._masks import apply_masks
from jaxfair.sparsity._prunable import over_floats, same_shapes
from jaxfair.sparsity._schedules import Schedule
from jaxfair.sparsity._scores import Score, magnitude
from jaxfair.sparsity._selection import Selection
from jaxfair.sparsity._structures import Structure, unstructured
from jaxfair.typing import Array, Params


def one_shot(
    params: Params,
    sparsity: Any,
    *,
    prunable: Callable[[str], bool],
    score: Score | Callable[[Array, Array | None], Array] = magnitude,
    gradients: Params | None = None,
    scores: Params | Callable[[Params], Params] | None = None,
    rounds: Any = 1,
    masks: Any = None,
    distribution: Distribution = uniform,
    structure: Structure = unstructured,
) -> tuple[Params, Any]:
    r"""Prunes given weights to a sparsity.

    Args:
      params: a tree of arrays.
      sparsity: the share of zeros, in ``[0, 1)``.
      prunable: which leaves, from a path such as ``"Conv_1/kernel"``.
      score: ``score(weights, gradients)`` or a `Score`; the largest are kept.
      gradients: for scores that need them, a tree as `params`.
      scores: in place of `score`, a tree of scores, or a function from the masked weights to one: `snip`, `grasp`,
        `synflow`, `wanda`.
      rounds: R.
      masks: what is pruned already, and stays so.
      distribution: `uniform`, `global_`, `global_normalized`, ``erk()``, ``per_path(...)``.
      structure: `unstructured`, ``n_by_m(2, 4)``, ``block((4, 4))``, ``channel()``, ``balanced()``.

    Returns:
      The weights, exactly zero where pruned, and the tree of masks, True = kept.

    Raises:
      ValueError: for a sparsity outside ``[0, 1)``, scores that are NaN (outside of ``jit``) or of another shape than
        the weights, less than one round, or no prunable leaf.
      TypeError: for scores that are no floats.

    Example:
      >>> params = {"b": jnp.ones(2), "w": jnp.array([3.0, -1.0, 2.0, 0.5])}
      >>> pruned, masks = one_shot(params, 0.5, prunable=lambda path: path == "w")
      >>> pruned["w"].tolist(), masks["w"].tolist()
      ([3.0, 0.0, 2.0, 0.0], [True, False, True, False])
    """
    rounds = _numbers.whole("rounds", rounds, low=None)
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, but it is {rounds}")
    final = counts.exact_sparsity(sparsity)
    if scores is not None:
        score = Score(value=_as_given)
    shares = [counts.exact_sparsity(round(1 - float(1 - final) ** (r / rounds), 7)) for r in range(1, rounds)]
    shares.append(final)
    schedule = Schedule(tuple(range(rounds)), tuple(shares))
    rule = Selection.of(schedule, prunable=prunable, score=score, distribution=distribution, structure=structure)
    masks = rule.given(masks, params)
    params, memory = apply_masks(params, masks), rule.memory(params)
    if final == 0:  # nothing to rank
        return params, masks

    def turn(carry: tuple[Params, Any], r: Any) -> tuple[tuple[Params, Any], None]:
        params, masks = carry
        given = gradients if scores is None else scores(params) if callable(scores) else scores
        if scores is not None:
            same_shapes("scores", given, params, rule.positions(params))
        _refuse_nan(rule, params, given, memory)
        masks = rule.masks(r, masks, params, given, memory)
        return (apply_masks(params, masks), masks), None

    carry, _ = turn((params, masks), 0)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(carry)):
        # A hundred rounds are one program with a loop, not a hundred copies of the network.
        return jax.lax.scan(turn, carry, jnp.arange(1, rounds))[0] if rounds > 1 else carry
    for r in range(1, rounds):
        carry, _ = turn(carry, r)
    return carry


def _as_given(weights: Array, given: Array | None, memory: Any) -> Array:
    assert given is not None
    return given


def _refuse_nan(rule: Selection, params: Params, given: Any, memory: Any) -> None:
    for i, scores in zip(rule.positions(params), rule.scores(params, given, memory), strict=True):
        bad = jnp.isnan(scores).sum()
        if not isinstance(bad, Tracer) and bad:  # under a transformation there is no number to look at
            raise ValueError(f"{int(bad)} scores of {tree.paths(params)[i]} are NaN; such weights cannot be ranked")


def snip(loss: Callable[[Params], Array], params: Params) -> Params:
    r"""Connection sensitivity: :math:`|w \, \partial L / \partial w|` of one batch, at initialisation.

    Args:
      loss: ``loss(params)``, of one batch with every class in it.
      params: initialised so that the variance stays from layer to layer.

    Returns:
      The tree of scores. Compared over all layers: ``distribution=sparsity.global_``. (The authors divide by the sum
      of all scores, which changes no order.)

    Example:
      >>> snip(lambda p: 2 * p["w"].sum(), {"w": jnp.array([1.0, -3.0])})["w"].tolist()
      [2.0, 6.0]

    References:
      Lee, Ajanthan, Torr, *SNIP: single-shot network pruning based on connection sensitivity*, 2019.
    """
    of, floats, whole = over_floats(loss, params)
    return whole([jnp.abs(w * g) for w, g in zip(floats, jax.grad(of)(floats), strict=True)])


def grasp(loss: Callable[[Params], Array], params: Params) -> Params:
    r"""Gradient signal preservation: :math:`w \, (H g)`, of which the largest are kept.

    Removing w changes the squared norm of the gradient by :math:`-2 w (Hg)` to first order; kept is what carries it.
    One Hessian-vector product, by ``jvp`` of ``grad``.

    Args:
      loss: ``loss(params)``, of one batch, ten examples of each class. The authors divide the logits by 200 in it,
        so that the softmax is nearly uniform.
      params: at initialisation.

    Returns:
      The tree of scores, for ``distribution=sparsity.global_``.

    Example:
      With L = (3 a + b)^2 / 2 at (1, 1): g = (12, 4), Hg = (120, 40).

      >>> scores = grasp(lambda p: (3 * p["a"] + p["b"]) ** 2 / 2, {"a": jnp.array(1.0), "b": jnp.array(1.0)})
      >>> scores["a"].item(), scores["b"].item()
      (120.0, 40.0)

    References:
      Wang, Zhang, Grosse, *Picking winning tickets before training by preserving gradient flow*, 2020.
    """
    of, floats, whole = over_floats(loss, params)
    gradient = jax.grad(of)
    _, curved = jax.jvp(gradient, (floats,), (gradient(floats),))
    return whole(jax.tree.map(jnp.multiply, floats, curved))


def synflow(output: Callable[[Params], Array], params: Params) -> Params:
    r"""Synaptic flow: :math:`|w| \, \partial R / \partial |w|`, R the summed output of the network of absolute weights.

    No data is needed: the input is all ones. Of a network of ReLUs R is the sum over all paths of products of weights,
    and the scores of every layer have the same sum, so that in many rounds no layer is emptied.

    Args:
      output: ``output(params)``, the sum of the logits at an input of ones, without noise and batch statistics.
      params: at initialisation.

    Returns:
      The tree of scores; `one_shot` takes ``scores=lambda p: synflow(output, p)``, with ``rounds=100`` and
      ``distribution=sparsity.global_``.

    Example:
      >>> params = {"first": jnp.array([[2.0, -1.0]]), "last": jnp.array([[1.0], [4.0]])}
      >>> scores = synflow(lambda p: (jnp.ones(1) @ p["first"] @ p["last"]).sum(), params)
      >>> scores["first"].tolist(), scores["last"].tolist()
      ([[2.0, 4.0]], [[2.0], [4.0]])

    References:
      Tanaka et al., *Pruning neural networks without any data by iteratively conserving synaptic flow*, 2020. The
      authors compute it in double precision, since R of a deep network overflows single precision; here the dtype is
      that of the parameters.
    """
    of, floats, whole = over_floats(output, params)
    absolute = jax.tree.map(jnp.abs, floats)
    return whole(jax.tree.map(jnp.multiply, absolute, jax.grad(of)(absolute)))
