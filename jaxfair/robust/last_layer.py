r"""Last-layer retraining (DFR): the last layer of a network, fitted anew on data in which all groups are as many.

A network that leans on what goes along with a class (a background, say) mostly has the other features too; its last
layer weighs them wrongly. So that layer alone is fitted again, by regularised multinomial regression on what it reads,
on subsets with as many examples of every group as the smallest has:

.. math:: \min_{W, b}\ \sum_{i \in \text{subset}} \ell\big(W^\top \tfrac{z_i - \mu}{\sigma} + b,\, y_i\big)
   + s\, \Omega(W), \qquad \Omega = \|W\|_1 \ \text{or}\ \tfrac12 \|W\|_2^2

Features are standardised first, and that is folded back into the layer. The strength s is chosen on one half of the
examples by the worst group, after a fit on the other; then the layers of several random balanced subsets of all
examples are averaged. A convex problem, solved by accelerated proximal gradient steps with restarts; all refits and all
strengths are lanes of one program.

Groups are cells here: of an attribute and classes, give ``group * C + y``, or few examples of one class decide.

Differs from the authors' code: the features are standardised by the mean and deviation of everything given, while
tuning and after (there: of a balanced fold first, of the training split afterwards); for two classes there are two
logits, whose squared penalty at s is scikit-learn's at s / 2 (with the absolute one they are the same).

Source: Kirichenko, Izmailov and Wilson, `Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations
<https://arxiv.org/abs/2204.02937>`_, ICLR 2023. The solver: Beck and Teboulle, SIAM J. Imaging Sci. 2, 2009, with the
restarts of O'Donoghue and Candès, Found. Comput. Math. 15, 2015.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from jaxfair import metrics, tree
from jaxfair.typing import Key, Params, Split

#: The authors' 1 / C, of scikit-learn's C.
STRENGTHS = (1.0, 1 / 0.7, 1 / 0.3, 10.0, 1 / 0.07, 1 / 0.03, 100.0)
PENALTIES = ("l1", "l2")


class LastLayer(NamedTuple):
    """A last layer, and how it was found.

    Attributes:
      kernel: ``[F, C]``.
      bias: ``[C]``.
      strength: scalar, the one that was chosen.
      worst: ``[n]``, the accuracy of the worst group on the half that was kept aside, at each strength; nan where there
        was nothing to choose.
    """

    kernel: jax.Array
    bias: jax.Array
    strength: jax.Array
    worst: jax.Array


def last_layer(
    features: ArrayLike,
    y: ArrayLike,
    group: ArrayLike,
    *,
    num_classes: int,
    num_groups: int,
    key: Key,
    weight: ArrayLike | None = None,
    strengths: Sequence[ArrayLike] = STRENGTHS,
    penalty: str = "l1",
    refits: int = 20,
    steps: int = 500,
) -> LastLayer:
    """Fits a last layer on group-balanced subsets, and averages.

    Args:
      features: ``[N, F]``, what the last layer reads: of ``split.features(..., train=False)``. Of examples that the
        network was not trained on, as the authors advise: on those that it was, groups look alike.
      y: ``[N]`` classes.
      group: ``[N]``, cells that are to count alike. Those of another number, and of weight 0, are left out.
      num_classes: C, static.
      num_groups: G, static.
      key: of the halves and the subsets.
      weight: ``[N]``, 0 for padding; who has another weight is there or not.
      strengths: s, from which one is chosen; with one there is no choice, and no half is kept aside.
      penalty: ``"l1"`` or ``"l2"``; the bias is free.
      refits: subsets.
      steps: of the solver; each reads the data twice.

    Returns:
      The :class:`LastLayer`, for raw features. Put it into a network with :func:`with_head`.

    Raises:
      ValueError: for shapes that do not fit, a class without an example, features that are not finite, an unknown
        penalty, a strength that is negative, and a group with less than two examples (one, if nothing is chosen).
        Traced, such a group makes all numbers nan.

    Example:
      The first feature is what decides, the second goes along with it in all but a few:

      >>> rng = np.random.default_rng(0)
      >>> y = np.repeat([0, 1], 100)
      >>> along = np.where(np.arange(200) % 10 == 0, 1 - y, y)
      >>> z = np.stack([2 * y - 1 + rng.normal(size=200), 4 * along], axis=1)
      >>> found = last_layer(z, y, 2 * along + y, num_classes=2, num_groups=4, key=jax.random.key(0), steps=100)
      >>> weight = found.kernel[:, 1] - found.kernel[:, 0]
      >>> bool(weight[0] > 5 * abs(weight[1]))
      True
    """
    _check(features, y, group, weight, num_classes, num_groups, strengths, penalty, refits)
    z, y, group = jnp.asarray(features, jnp.float32), jnp.asarray(y), jnp.asarray(group)
    there = jnp.ones(len(y)) if weight is None else jnp.where(jnp.asarray(weight) > 0, 1.0, 0.0)
    there = jnp.where((group >= 0) & (group < num_groups) & (y >= 0) & (y < num_classes), there, 0.0)
    group = jnp.where(there > 0, group, num_groups)
    return _retrained(
        z, y, group, there, key, jnp.asarray(strengths, jnp.float32), num_classes, num_groups, penalty, refits, steps
    )


@functools.partial(jax.jit, static_argnums=(6, 7, 8, 9, 10))
def _retrained(
    z: Array,
    y: Array,
    group: Array,
    there: Array,
    key: Key,
    strengths: Array,
    classes: int,
    groups: int,
    penalty: str,
    refits: int,
    steps: int,
) -> LastLayer:
    z = jnp.where(there[:, None] > 0, z, 0)
    everybody = jnp.sum(there)
    mean = jnp.sum(z * there[:, None], axis=0) / everybody
    spread = jnp.sqrt(jnp.sum((z - mean[None]) ** 2 * there[:, None], axis=0) / everybody)
    spread = jnp.where(spread > 0, spread, 1.0)  # a unit that is dead stays at 0
    z = (z - mean[None]) / spread[None]
    fit = functools.partial(_fit, z, y, classes=classes, penalty=penalty, steps=steps)
    halving, choosing, drawing = jax.random.split(key, 3)

    if len(strengths) > 1:
        half = (_ranks(halving, group, groups) % 2 == 0) & (there > 0)
        chosen = _balanced(choosing, jnp.where(half, group, groups), groups)
        kernels, biases = jax.vmap(lambda s: fit(chosen, s))(strengths)
        right = jnp.argmax(jnp.einsum("nf,sfc->snc", z, kernels) + biases[:, None], axis=-1) == y[None]
        aside = jnp.where(half, groups, group)
        worst = jnp.min(jax.vmap(lambda r: metrics.group_means(r, aside, groups))(right), axis=1)
        strength = strengths[jnp.argmax(worst)]
    else:
        worst, strength = jnp.full(1, jnp.nan), strengths[0]

    chosen = jax.vmap(lambda k: _balanced(k, group, groups))(jax.random.split(drawing, refits))
    kernel, bias = jax.tree.map(lambda a: jnp.mean(a, axis=0), jax.vmap(lambda w: fit(w, strength))(chosen))
    kernel = kernel / spread[:, None]
    # A group without anybody has no balanced subset.
    kernel = jnp.where(jnp.all(jnp.sum(chosen, axis=1) > 0), kernel, jnp.nan)
    return LastLayer(kernel, bias - mean @ kernel, strength, worst)


def _ranks(key: Key, group: Int[Array, " N"], groups: int) -> Int[Array, " N"]:
    """A random place for everybody within the own group, from 0."""
    bits = jax.random.bits(key, group.shape)
    order = jnp.lexsort((bits, group))
    first = jnp.searchsorted(group[order], jnp.arange(groups + 1))
    return jnp.zeros_like(order).at[order].set(jnp.arange(len(group)) - first[group[order]])


def _balanced(key: Key, group: Int[Array, " N"], groups: int) -> Float[Array, " N"]:
    """1 for the members of a random subset with as many of each group as the smallest has, 0 for the others."""
    least = jnp.min(jnp.bincount(group, length=groups + 1)[:groups])
    return ((group < groups) & (_ranks(key, group, groups) < least)).astype(jnp.float32)


def _fit(
    z: Float[Array, "N F"],
    y: Int[Array, " N"],
    weight: Float[Array, " N"],
    strength: Array,
    *,
    classes: int,
    penalty: str,
    steps: int,
) -> tuple[Array, Array]:
    """Regularised multinomial regression: the kernel ``[F, C]`` and the bias ``[C]`` in units of ``z``."""
    count = jnp.maximum(jnp.sum(weight), 1.0)
    shrink = strength / count
    # With a column of ones the bias is a row of the kernel, which no penalty touches.
    x = jnp.concatenate([z, jnp.ones((len(z), 1), z.dtype)], axis=1)
    free = jnp.arange(x.shape[1])[:, None] == z.shape[1]
    target = jax.nn.one_hot(y, classes)

    def power(v: Array, _: Any) -> tuple[Array, None]:
        v = x.T @ (weight * (x @ v))
        return v / jnp.linalg.norm(v), None

    v, _ = lax.scan(power, jnp.ones(x.shape[1]) / np.sqrt(x.shape[1]), None, length=30)
    # The Hessian of softmax is at most 1/2; a tenth more, as the power method comes from below.
    rate = 1 / (1.1 * jnp.linalg.norm(x.T @ (weight * (x @ v))) / count / 2 + (shrink if penalty == "l2" else 0.0))

    def gradient(W: Array) -> Array:
        found = x.T @ (weight[:, None] * (jax.nn.softmax(x @ W) - target)) / count
        return found + jnp.where(free, 0.0, shrink * W) if penalty == "l2" else found

    def nearest(W: Array) -> Array:
        if penalty == "l2":
            return W
        return jnp.where(free, W, jnp.sign(W) * jnp.maximum(jnp.abs(W) - rate * shrink, 0.0))

    def body(at: tuple[Array, Array, Array], _: Any) -> tuple[tuple[Array, Array, Array], None]:
        W, ahead, t = at
        new = nearest(ahead - rate * gradient(ahead))
        overshot = jnp.sum((ahead - new) * (new - W)) > 0
        t = jnp.where(overshot, 1.0, t)
        t_new = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return (new, new + (t - 1) / t_new * (new - W), t_new), None

    zero = jnp.zeros((x.shape[1], classes))
    (W, _, _), _ = lax.scan(body, (zero, zero, jnp.float32(1.0)), None, length=steps)
    return W[:-1], W[-1]


def with_head(params: Params, split: Split, head: LastLayer) -> Params:
    """The parameters of a network with another last layer.

    Args:
      params: of the whole network.
      split: its cut, ``model.split``: the leaves of the last layer are a kernel ``[F, C]`` and a bias ``[C]``.
      head: of :func:`last_layer`.

    Returns:
      The parameters.

    Raises:
      ValueError: for leaves of other shapes, and a layer without a bias.

    Example:
      >>> from jaxfair import models
      >>> model = models.mlp(2, hidden=())
      >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 3)))
      >>> head = LastLayer(jnp.ones((3, 2)), jnp.array([0.0, 1.0]), jnp.float32(1), jnp.ones(1))
      >>> model.apply(with_head(params, model.split, head), {}, jnp.ones((1, 3)), train=False)[0].tolist()
      [[3.0, 4.0]]
    """
    new = {part.shape: part for part in (head.kernel, head.bias)}
    there = {path: leaf.shape for path, leaf in zip(tree.paths(params), jax.tree.leaves(params), strict=True)}
    there = {path: shape for path, shape in there.items() if split.in_head(path)}
    if sorted(there.values()) != sorted(new):
        raise ValueError(
            f"the last layer has {there or 'no leaves'}: give one whose leaves are a kernel {head.kernel.shape} and a "
            f"bias {head.bias.shape}."
        )
    return tree.map_with_path(
        lambda path, leaf: new[leaf.shape].astype(leaf.dtype) if split.in_head(path) else leaf, params
    )


def _check(
    features: Any,
    y: Any,
    group: Any,
    weight: Any,
    num_classes: int,
    num_groups: int,
    strengths: Sequence[ArrayLike],
    penalty: str,
    refits: int,
) -> None:
    shapes = np.shape(features), np.shape(y), np.shape(group), np.shape(y if weight is None else weight)
    if len(shapes[0]) != 2 or any(shape != shapes[0][:1] for shape in shapes[1:]):
        raise ValueError(
            f"features of shape {shapes[0]}, y {shapes[1]}, group {shapes[2]}, weight {shapes[3]}: "
            "give [N, F], and one number for each of the N."
        )
    if penalty not in PENALTIES:
        raise ValueError(f"penalty={penalty!r}: choose one of {', '.join(map(repr, PENALTIES))}.")
    if not len(strengths) or not all(isinstance(s, Tracer) or np.all(np.asarray(s) >= 0) for s in strengths):
        raise ValueError(f"strengths={strengths}: give at least one number, none of them negative.")
    if refits < 1:
        raise ValueError(f"refits={refits}: give a whole number of at least 1.")
    if any(isinstance(a, Tracer) for a in (group, weight)):
        return
    there = np.ones(shapes[1], bool) if weight is None else np.asarray(weight) > 0
    there = there & (np.asarray(group) >= 0) & (np.asarray(group) < num_groups)
    if not isinstance(y, Tracer):
        # Whose class is none of them is left out.
        there = there & (np.asarray(y) >= 0) & (np.asarray(y) < num_classes)
        absent = set(range(num_classes)) - set(np.asarray(y)[there].tolist())
        if absent:
            raise ValueError(f"class {min(absent)} has no example: number classes from 0 to {num_classes - 1}.")
    if not isinstance(features, Tracer) and not np.isfinite(np.asarray(features)[there]).all():
        raise ValueError("features that are not finite: the network has diverged, or its inputs are not finite.")
    sizes = [int(np.sum((np.asarray(group) == g) & (there > 0))) for g in range(num_groups)]
    needed = 2 if len(strengths) > 1 else 1
    if min(sizes) < needed:
        raise ValueError(
            f"group {int(np.argmin(sizes))} has {min(sizes)} examples: {needed} are needed"
            + (", one for each half; with one strength, 1." if needed == 2 else ".")
        )
