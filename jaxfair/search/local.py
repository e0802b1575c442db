r"""Local regression with an error bar: a mean of the nearest values, and what a random prior would leave unexplained.

.. math:: \mu(x) = \sum_i w_i(x)\, y_i, \qquad \sum_i w_i(x) = 1,

over the k nearest design points. The error bar is that of an ensemble of *randomised priors*: each member draws a
function p with covariance :math:`\kappa`, regresses what it leaves, and adds it back,
:math:`p(x) + \sum_i w_i (y_i - p(x_i))`. No member has to be drawn, since the spread over infinitely many of them does
not depend on y:

.. math:: \sigma^2(x) = \kappa(x, x) - 2 w^\top \kappa(X, x) + w^\top \kappa(X, X)\, w.

It is 0 at a design point that w interpolates, at most the prior's variance times a constant far away, and never below
the variance of a Gaussian process with the same covariance, which it equals for the weights of that process
(:math:`w = \kappa(X, X)^{-1} \kappa(X, x)`). A finite ensemble of B members would add a relative error of
:math:`1 / \sqrt{2 (B - 1)}`, and a search by it would prefer lucky draws.

A *rule* says what the weights are: `shepard` (inverse distances), `linear` (a plane through the neighbours) or
`kriging` (the best ones for that covariance). The cost of a prediction does not grow with the cube of the number of
points, as it does for a Gaussian process.

References:
  Chen and Lam, `Pseudo-Bayesian Optimization <https://arxiv.org/abs/2310.09766>`_, 2023: local regression, randomised
  priors. The closed form is ours. Shepard, "A two-dimensional interpolation function", 1968. Vecchia, 1988, for a
  Gaussian process that sees neighbours only.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxfair.typing import Array


class Shape(NamedTuple):
    """What a local regression is told by its data, all of it by leaving one out.

    Attributes:
      neighbours: [] int32, at most `most_neighbours`.
      power: [] of the inverse distance.
      length: [] over which the prior varies, in units of the cube.
    """

    neighbours: Any
    power: Any
    length: Any


class Near(NamedTuple):
    """The nearest design points of a place, nearest first.

    Attributes:
      index: ``[K]`` int32 rows of the design.
      distance: ``[K]``, inf where there are fewer points.
      reach: [] distance of the first one that does not count, by the shape's number of neighbours; inf for none.
      prior: ``[K]`` covariance of each with the place.
      among: ``[K, K]`` their covariance.
      offset: ``[K, D]`` of each from the place.
      lives: ``[K]`` bool, whether it counts.
    """

    index: Array
    distance: Array
    reach: Array
    prior: Array
    among: Array
    offset: Array
    lives: Array


#: ``rule(near, shape, noise) -> [K]`` weights that sum to 1; those that do not live weigh 0.
Rule = Callable[[Near, Shape, Any], Array]


def matern(distance: Array, length: Any) -> Array:
    r"""The Matern covariance of smoothness 5/2, of variance 1.

    .. math:: \Big(1 + r + \frac{r^2}{3}\Big) e^{-r}, \qquad r = \sqrt{5}\, \mathrm{distance} / \mathrm{length}

    Example:
      >>> [round(float(k), 5) for k in matern(jnp.array([0.0, 0.25, 1.0]), 1.0)]
      [1.0, 0.95096, 0.52399]
    """
    r = jnp.sqrt(5.0) * distance / length
    return jnp.where(jnp.isinf(distance), 0.0, (1 + r + r**2 / 3) * jnp.exp(-r))


def shepard(near: Near, shape: Shape, noise: Any = 0.0) -> Array:
    r"""Inverse distances that fade to 0 where the neighbours end: :math:`d_i^{-p}\,(1 - d_i / d_{k+1})_+`.

    Interpolates where ``noise`` is 0. Otherwise points within a distance over which the prior varies by less than the
    noise weigh alike.

    Example:
      At 0.25 between design points at 0 and 1:

      >>> design = jnp.array([[0.0], [1.0]])
      >>> mean, deviation = predict(
      ...     jnp.array([0.25]), design, jnp.array([1.0, 3.0]), 2, Shape(12, 1.0, 1.0), rule=shepard
      ... )
      >>> round(mean.item(), 5), round(deviation.item() ** 2, 5)
      (1.5, 0.05723)
    """
    squared = jnp.square(near.distance) + jnp.square(noise * shape.length)
    fades = jnp.where(jnp.isinf(near.reach), 1.0, 1 - near.distance / near.reach)
    log_weight = jnp.where(
        near.lives & (fades > 0), -shape.power / 2 * jnp.log(jnp.maximum(squared, 1e-20)) + jnp.log(fades), -jnp.inf
    )
    # All neighbours may be as far as the first that does not count: then they weigh alike.
    none = jnp.all(jnp.isneginf(log_weight))
    log_weight = jnp.where(none, jnp.where(near.lives, 0.0, -jnp.inf), log_weight)
    return jax.nn.softmax(jnp.where(jnp.any(near.lives), log_weight, 0.0))


def linear(near: Near, shape: Shape, noise: Any = 0.0) -> Array:
    r"""A plane through the neighbours instead of a constant, by least squares in Shepard's weights, read at the place.

    The slopes are held down a little, since a place may have fewer neighbours than dimensions.

    Example:
      It follows a line beyond the points that it has, which no average of their values does:

      >>> design = jnp.array([[0.0], [0.2], [0.4]])
      >>> at = lambda rule: predict(jnp.array([0.6]), design, 10 * design[:, 0], 3, Shape(12, 1.0, 1.0), rule=rule)[0]
      >>> round(at(linear).item(), 1), round(at(shepard).item(), 1)
      (6.0, 2.7)
    """
    weights = jnp.where(near.lives, shepard(near, shape, noise), 0.0)
    middle = weights @ near.offset
    spread = jnp.sqrt(weights)[:, None] * (near.offset - middle[None])
    gram = spread @ spread.T
    ridge = 1e-3 * jnp.trace(gram) + 1e-12
    factor = jax.scipy.linalg.cho_factor(gram + ridge * jnp.eye(len(weights)))
    solved = jax.scipy.linalg.cho_solve(factor, spread @ middle)
    return weights - jnp.sqrt(weights) * solved


def kriging(near: Near, shape: Shape, noise: Any = 0.0) -> Array:
    r"""The weights of least :math:`\sigma` among all that sum to 1: a Gaussian process of the neighbours only.

    Example:
      At 0.25 between design points at 0 and 1, where inverse distances leave a variance of 0.0572:

      >>> design, values = jnp.array([[0.0], [1.0]]), jnp.array([1.0, 3.0])
      >>> _, deviation = predict(jnp.array([0.25]), design, values, 2, Shape(12, 1.0, 1.0), rule=kriging)
      >>> round(deviation.item() ** 2, 4)
      0.0558
    """
    del shape
    both = near.lives[:, None] & near.lives[None, :]
    # In float32 neighbours that nearly coincide would make the matrix indefinite.
    ridge = 1e-5 + jnp.square(noise)
    system = jnp.where(both, near.among, 0.0) + jnp.diag(jnp.where(near.lives, ridge, 1.0))
    one = near.lives.astype(near.prior.dtype)
    factor = jax.scipy.linalg.cho_factor(system)
    solved = jax.scipy.linalg.cho_solve(factor, jnp.stack([near.prior * one, one], -1))
    total = jnp.maximum(solved[:, 1].sum(), 1e-6)
    return solved[:, 0] + solved[:, 1] * (1 - solved[:, 0].sum()) / total


def most_neighbours(rule: Rule) -> int:
    """The largest number that is tried: `kriging` gains from many, as it weighs them by what they tell of each other.

    Example:
      >>> most_neighbours(kriging), most_neighbours(shepard)
      (32, 12)
    """
    return 32 if rule is kriging else 12


def _nearest(x, design, lives, most):
    """The nearest of the design points that live, one more than may count: rows and distances."""
    squared = jnp.where(lives, jnp.square(design - x[None]).sum(-1), jnp.inf)
    count = min(most + 1, len(design))
    nearest, index = lax.top_k(-squared, count)
    missing = (0, most + 1 - count)
    return jnp.pad(index, missing), jnp.pad(jnp.sqrt(-nearest), missing, constant_values=jnp.inf)


def _near(x, index, distance, design, shape) -> Near:
    points = design[index[:-1]]
    apart = jnp.sqrt(jnp.square(points[:, None] - points[None, :]).sum(-1))
    lives = (jnp.arange(len(index) - 1) < shape.neighbours) & jnp.isfinite(distance[:-1])
    prior, among = (matern(a, shape.length) for a in (distance[:-1], apart))
    return Near(index[:-1], distance[:-1], distance[shape.neighbours], prior, among, points - x[None], lives)


def _regressed(near, values, shape, rule, noise):
    weights = jnp.where(near.lives, rule(near, shape, noise), 0.0)
    variance = 1 - 2 * weights @ near.prior + weights @ near.among @ weights + jnp.square(noise) * (weights @ weights)
    variance = jnp.where(jnp.any(near.lives), variance, 1.0)
    kept = jnp.where(near.lives.reshape(-1, *[1] * (values.ndim - 1)), values[near.index], 0.0)
    return jnp.tensordot(weights, kept, 1), jnp.sqrt(jnp.maximum(variance, 0.0))


def predict(
    x: Float[Array, "d"],
    design: Float[Array, "n d"],
    values: Float[Array, "n ..."],
    count: Any,
    shape: Shape,
    *,
    rule: Rule = shepard,
    noise: Any = 0.0,
) -> tuple[Array, Array]:
    r"""The mean at a place, and its deviation, for values whose own deviation is 1.

    Args:
      x: ``[D]`` the place.
      design: ``[N, D]``, of which the first ``count`` rows are points; the others may hold anything finite.
      values: ``[N]``, or ``[N, V]`` of several functions: the same weights serve all of them.
      count: [] int.
      shape: the `Shape`.
      rule: of the weights.
      noise: deviation of a value about its function, in the values' units.

    Returns:
      mean: ``[...]``.
      deviation: [], the square root of :math:`\sigma^2` plus the noise that is averaged.

    Example:
      >>> design = jnp.array([[0.0], [1.0], [0.5]])
      >>> at = lambda x: predict(jnp.array([x]), design, jnp.array([0.0, 2.0, 9.0]), 2, Shape(12, 2.0, 0.5))
      >>> [round(float(v), 3) for v in at(1.0)]  # a design point; the third row is not one
      [2.0, 0.0]
    """
    index, distance = _nearest(x, design, jnp.arange(len(design)) < count, most_neighbours(rule))
    return _regressed(_near(x, index, distance, design, shape), values, shape, rule, noise)


def shapes(dimension: int, rule: Rule = shepard) -> Shape:
    """Those that are tried, one after another along the axis: k, p (`kriging` has none) and length.

    Example:
      >>> [len(shapes(6, rule).length) for rule in (shepard, linear, kriging)]
      [45, 45, 15]
    """
    if rule is kriging:
        counts, powers, shares = (8, 16, 32), {2.0}, (0.1, 0.2, 0.4, 0.8, 1.6)
    else:
        counts, powers, shares = (2, 3, 5, 8, 12), {2.0, dimension / 2 + 1, float(dimension)}, (0.1, 0.3, 1.0)
    grid = itertools.product(counts, sorted(powers), (share * dimension**0.5 for share in shares))
    return Shape(*map(jnp.asarray, zip(*grid, strict=True)))


def fitted(
    design: Float[Array, "n d"],
    values: Float[Array, "n"],
    count: Any,
    tried: Shape,
    *,
    rule: Rule = shepard,
    noise: Any = 0.0,
) -> Shape:
    r"""The shape that predicts each point best from the others.

    By the Gaussian likelihood of what is left out, with the scale of the deviations profiled:

    .. math:: \tfrac n2 \log \frac1n \sum_i \frac{(y_i - \mu_{-i})^2}{\sigma_{-i}^2} + \sum_i \log \sigma_{-i}.

    The scale itself is not used afterwards: by leaving one out it comes out too small, and a search by it too greedy.

    Args:
      design: as of `predict`.
      values: ``[N]``.
      count: as of `predict`.
      tried: a `Shape` of ``[H]`` arrays.
      rule: as of `predict`.
      noise: as of `predict`.

    Returns:
      The `Shape`, each field of it [].

    Example:
      A step is best told by the nearest neighbour, a line by more:

      >>> design = jnp.linspace(0, 1, 16)[:, None]
      >>> fitted(design, jnp.where(design[:, 0] < 0.5, 0.0, 1.0), 16, shapes(1)).neighbours.item()
      2
    """
    row, most = jnp.arange(len(design)), most_neighbours(rule)
    lives = row < count
    index, distance = jax.vmap(lambda i: _nearest(design[i], design, lives & (row != i), most))(row)

    def surprise(shape):
        def left_out(x, index, distance):
            return _regressed(_near(x, index, distance, design, shape), values, shape, rule, noise)

        mean, deviation = jax.vmap(left_out)(design, index, distance)
        squared = jnp.where(lives, jnp.square(values - mean), 0.0)
        variance = jnp.where(lives, jnp.maximum(jnp.square(deviation), 1e-8), 1.0)
        scale = jnp.maximum((squared / variance).sum() / jnp.maximum(count, 1), 1e-12)
        return count / 2 * jnp.log(scale) + 0.5 * jnp.log(variance).sum()

    best = jnp.nanargmin(lax.map(surprise, tried))
    return jax.tree.map(lambda a: a[best], tried)
