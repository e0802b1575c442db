r"""Bits and zeros chosen together: the shortest path in the Fisher metric from the float network to a small one.

A network is described by the bits of each layer and one level of pruning. A move lowers one layer to its next number of
bits, or prunes to the next level. With the weights :math:`\theta` of a description (pruned by importance
:math:`F_i \theta_i^2` over all layers, then rounded, :math:`s_l = \max|w_l| / (2^{b_l - 1} - 1)`) and the diagonal of
the Fisher information F:

.. math::

   g &\leftarrow g + \sqrt{\textstyle\sum_i F_i\,(\theta_i - \theta'_i)^2} \quad \text{the length of a move} \\
   h &= |c - c^*| \sqrt{\textstyle\sum_i F_i\,\theta_i^2} \quad \text{how far it still is} \\
   c &= \frac{\sum_l \mathrm{nnz}_l\, b_l}{32 \sum_l N_l} \quad \text{the size, as a share of the float network's}

until :math:`c < c^*`. Greedy keeps the best move of each step; A* keeps all that were not gone on with, and goes on
with the least :math:`g + h`; where greedy finds less, that is delivered. Pruning levels are
:math:`1 - 10^{-3 j / 39}`.

How this differs from the authors' code: the goal is tested where a description is gone on with, so that A* delivers the
one with the least :math:`g + h`, not the first that was written down, and a shorter way to a description takes the
place of a longer one; importance is that of the float weights, so that
masks nest whatever the path; Fisher information is the mean of squared
gradients of *examples* (:func:`fisher_diagonal`), not the square of a batch's mean gradient; bits are any that fall, 8,
6, 5, 4, 3 and 2 by default.

References:
  Zandonati, Bucagu, Pol, Pierini, Sirkin, Kopetz, `Towards Optimal Compression: Joint Pruning and Quantization
  <https://arxiv.org/abs/2302.07612>`_, 2023.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import sparsity, tree
from jaxfair.quant import _numbers
from jaxfair.quant._quantizer import Quantizer, calibrate, quantize
from jaxfair.quant._trees import chosen, quantizable
from jaxfair.typing import Params, whole

#: The levels of pruning: none, then ever less of what is left.
SPARSITIES = tuple(float(level) for level in 1 - np.logspace(0, -3, 40))
FLOAT = 32


class FitStep(NamedTuple):
    """A description on the path.

    Attributes:
      bits: by path; 32 is a float.
      sparsity: the level of pruning.
      size: c.
      cost: g.
      estimate: h.
    """

    bits: dict[str, int]
    sparsity: float
    size: float
    cost: float
    estimate: float


class FitCompressed(NamedTuple):
    """What `fitcompress` found.

    Attributes:
      params: the network at its levels, zeros included; the float weights below are what training goes on with.
      bits: by path, for `quantized`; a layer that is left a float has 32.
      masks: as of a pruner, True = kept.
      path: the descriptions from the float network to this one, each a `FitStep`.
      looked_at: how many descriptions were gone on with, in both searches of A*.
    """

    params: Params
    bits: dict[str, int]
    masks: Any
    path: tuple[FitStep, ...]
    looked_at: int


def fisher_diagonal(loss: Callable[[Params, Any], Any], params: Params, examples: Any) -> Params:
    r"""The diagonal of the empirical Fisher information: the mean of the squared gradients of examples.

    Args:
      loss: ``loss(params, example)``, a scalar for one example.
      params: the parameters, floats.
      examples: a pytree of arrays with a leading axis of examples.

    Returns:
      The structure of `params`.

    Example:
      >>> loss = lambda p, x: p["w"] @ x
      >>> fisher_diagonal(loss, {"w": jnp.ones(2)}, jnp.array([[1.0, 0.0], [3.0, 2.0]]))["w"].tolist()
      [5.0, 2.0]
    """
    count = jax.tree.leaves(examples)[0].shape[0]

    def add(total: Any, example: Any) -> tuple[Any, None]:
        gradient = jax.grad(loss)(params, example)
        return jax.tree.map(lambda t, g: t + jnp.square(g.astype(t.dtype)) / count, total, gradient), None

    # In 16 bits a long sum stands still.
    none = jax.tree.map(lambda w: jnp.zeros(jnp.shape(w), _numbers.working(jnp.result_type(w))), params)
    found = jax.lax.scan(add, none, examples)[0]
    return jax.tree.map(lambda f, w: f.astype(jnp.result_type(w)), found, params)


class _Layers(NamedTuple):
    """What a search needs of the network: its leaves, which of them are compressed, and the choices."""

    leaves: list[Any]
    treedef: Any
    places: dict[str, int]
    bits: tuple[int, ...]
    sparsities: tuple[float, ...]
    quantizer: Quantizer

    def weights(self, key: tuple[int, ...], kept: list[Any], parent: Any) -> list[Any]:
        """The weights of a description: pruned, then rounded. What the parent has already is not made again."""
        found = []
        for i, (place, mask, step) in enumerate(zip(self.places.values(), kept, key[:-1], strict=True)):
            if parent is not None and (parent.key[i], parent.key[-1]) == (step, key[-1]):
                found.append(parent.weights[i])
                continue
            w, bits = jnp.where(mask, self.leaves[place], 0), self.bits[step]
            found.append(w if bits == FLOAT else quantize(w, calibrate(w, bits, self.quantizer)))
        return found

    def kept(self, level: int, importance: list[Any]) -> list[Any]:
        """The masks of a level of pruning."""
        total = sum(i.size for i in importance)
        count = sparsity.num_zeros(self.sparsities[level], total)
        return sparsity.global_top_k(importance, total - count)

    def size(self, key: tuple[int, ...], kept: list[Any]) -> float:
        """c, as a share of 32 bits a weight."""
        used = sum(float(jnp.sum(m)) * self.bits[width] for m, width in zip(kept, key[:-1], strict=True))
        return used / (FLOAT * sum(m.size for m in kept))

    def whole(self, weights: list[Any]) -> Params:
        """The tree of parameters with these weights."""
        leaves = list(self.leaves)
        for place, w in zip(self.places.values(), weights, strict=True):
            leaves[place] = w
        return jax.tree.unflatten(self.treedef, leaves)

    def of(self, params: Params) -> list[Any]:
        """The compressed leaves of a tree."""
        leaves = jax.tree.leaves(params)
        return [leaves[place] for place in self.places.values()]


def fitcompress(
    params: Params,
    fisher: Params | Callable[[Params], Params],
    goal: Any,
    *,
    bits: Sequence[Any] = (8, 6, 5, 4, 3, 2),
    sparsities: Sequence[Any] = SPARSITIES,
    search: str = "greedy",
    most: Any = 1000,
    quantizer: Quantizer = Quantizer(),  # noqa: B008, a constant
    quantized: Callable[[str], bool] = quantizable,
) -> FitCompressed:
    """Chooses the bits of each layer and one level of pruning for a size.

    Args:
      params: the trained network.
      fisher: the diagonal of its Fisher information, a tree as `params` (:func:`fisher_diagonal`), or a function from
        parameters to it, which is then asked again at each description that is gone on with.
      goal: the size to get below, as a share of the float network's, above 0 and below 1: 0.1 is a tenth.
      bits: that a layer may have, falling; it begins as a float. Empty prunes only.
      sparsities: the levels of pruning, rising from 0; ``(0,)`` quantises only.
      search: ``"greedy"`` or ``"a_star"``.
      most: descriptions that A* goes on with at most; from the best of them it is greedy. What it finds is never
        worse than what greedy does.
      quantizer: how.
      quantized: which leaves, from a path; size and costs are of these.

    Returns:
      The `FitCompressed`. Fine-tune it from the float weights, with
      ``sparsity.prune(quant.quantized(tx, bits=found.bits), ..., masks=found.masks)``.

    Raises:
      ValueError: for a goal that no description reaches, bits that do not fall, sparsities that do not rise, a search
        that is not known, no leaf, Fisher information of another network.

    Example:
      The second layer matters a hundred times as much, and keeps more bits:

      >>> params = {name: {"kernel": jax.random.normal(jax.random.key(0), (4, 4))} for name in ("a", "b")}
      >>> fisher = {"a": {"kernel": jnp.full((4, 4), 0.01)}, "b": {"kernel": jnp.ones((4, 4))}}
      >>> found = fitcompress(params, fisher, 0.2, bits=(8, 6, 4, 2), sparsities=(0.0,))
      >>> found.bits, found.path[-1].size
      ({'a/kernel': 4, 'b/kernel': 8}, 0.1875)
    """
    layers = _layers(params, goal, bits, sparsities, search, quantizer, quantized)
    limit = whole(most)
    if limit is None or limit < 1:
        raise ValueError(f"most={most}: give a whole number, 1 or more")
    ask: Callable[[Any], Any] = fisher if callable(fisher) else lambda _: fisher
    information = _information(layers, ask, params)
    importance = [f * jnp.square(w) for f, w in zip(information, layers.of(params), strict=True)]
    start: tuple[int, ...] = (0,) * (len(layers.places) + 1)
    first = _node(layers, start, layers.kept(0, importance), None, goal, information)

    def searched(limit: int) -> tuple[_Node, int]:
        """What a search arrives at that looks back at most so often, and then is greedy; and at how many it looked."""
        waiting, counter, looked = [(first.estimate, 0, first)], itertools.count(1), 0
        shortest: dict[tuple[int, ...], float] = {start: 0.0}
        known = information
        while waiting:
            _, _, node = heapq.heappop(waiting)
            if node.cost > shortest[node.key]:
                continue  # a shorter way to it was found since
            if node.size < goal:
                return node, looked
            looked += 1
            if callable(fisher):
                known = _information(layers, ask, layers.whole(node.weights))
            if looked > limit:
                waiting.clear()
            for key in _moves(layers, node.key):
                kept = node.kept if key[-1] == node.key[-1] else layers.kept(key[-1], importance)
                new = _node(layers, key, kept, node, goal, known)
                # Who is greedy goes on from here, whatever was looked at before.
                if looked > limit or new.cost < shortest.get(key, math.inf):
                    shortest[key] = new.cost
                    heapq.heappush(waiting, (new.cost + new.estimate, next(counter), new))
        raise ValueError(f"goal={goal}: no bits and no pruning get below it; give fewer bits, or more sparsity")

    ways = [searched(0)]
    if search == "a_star":  # what is left to go is an estimate: the least of it may end worse
        ways.append(searched(limit))
    found, _ = min(ways, key=lambda way: way[0].cost + way[0].estimate)
    return _delivered(layers, found, sum(looked for _, looked in ways))


class _Node(NamedTuple):
    key: tuple[int, ...]
    weights: list[Any]
    kept: list[Any]
    size: float
    cost: float
    estimate: float
    parent: Any


def _node(layers: _Layers, key: Any, kept: Any, parent: Any, goal: Any, information: list[Any]) -> _Node:
    """A description, with what it costs to come to from its parent."""
    weights, cost = layers.weights(key, kept, parent), 0.0
    if parent is not None:
        both = zip(information, parent.weights, weights, strict=True)
        moved = sum(float(jnp.sum(f * jnp.square(a - b))) for f, a, b in both if a is not b)
        cost = parent.cost + math.sqrt(moved)
    norm = sum(float(jnp.sum(f * jnp.square(w))) for f, w in zip(information, weights, strict=True))
    size = layers.size(key, kept)
    return _Node(key, weights, kept, size, cost, abs(size - goal) * math.sqrt(norm), parent)


def _moves(layers: _Layers, key: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The descriptions one step on."""
    ends = [len(layers.bits) - 1] * (len(key) - 1) + [len(layers.sparsities) - 1]
    return [
        (*key[:i], step + 1, *key[i + 1 :]) for i, (step, end) in enumerate(zip(key, ends, strict=True)) if step < end
    ]


def _delivered(layers: _Layers, node: _Node, looked: int) -> FitCompressed:
    path, at = [], node
    while at is not None:
        widths = {name: layers.bits[step] for name, step in zip(layers.places, at.key[:-1], strict=True)}
        path.append(FitStep(widths, layers.sparsities[at.key[-1]], at.size, at.cost, at.estimate))
        at = at.parent
    masks = [jnp.ones((), bool) for _ in layers.leaves]
    for place, mask in zip(layers.places.values(), node.kept, strict=True):
        masks[place] = mask
    masks = jax.tree.unflatten(layers.treedef, masks)
    return FitCompressed(layers.whole(node.weights), path[0].bits, masks, tuple(path[::-1]), looked)


def _information(layers: _Layers, fisher: Callable[[Any], Any], params: Params) -> list[Any]:
    found = fisher(params)
    if jax.tree.structure(found) != layers.treedef:
        raise ValueError(f"fisher= has the leaves {tree.paths(found)}: give a tree like the parameters")
    return layers.of(found)


def _layers(
    params: Params, goal: Any, bits: Any, sparsities: Any, search: str, quantizer: Quantizer, quantized: Any
) -> _Layers:
    """What was given, checked."""
    _numbers.within("goal", goal, 0, 1, open_low=True)
    if search not in ("greedy", "a_star"):
        raise ValueError(f"search={search!r}: give 'greedy' or 'a_star'")
    for width in bits:
        _numbers.bits(width, least=quantizer.checked().scheme.least)
    widths = (FLOAT, *(int(width) for width in bits))
    if any(a <= b for a, b in itertools.pairwise(widths)):
        raise ValueError(f"bits={tuple(bits)}: they fall, and are below 32")
    levels = tuple(float(level) for level in sparsities)
    if not levels or levels[0] != 0 or any(not a < b < 1 for a, b in itertools.pairwise(levels)):
        raise ValueError(f"sparsities={levels[:4]}: they rise from 0, and are below 1")
    leaves, treedef = jax.tree.flatten(params)
    return _Layers(leaves, treedef, chosen(params, quantized), widths, levels, quantizer)
