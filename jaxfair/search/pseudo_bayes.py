r"""Pseudo-Bayesian optimisation: where to measure next, by local regression with an error bar and no Gaussian process.

Minimises a function on the unit cube that is dear to measure, and may be noisy, fail, or be bound by a second one.
After a first few points of a low-discrepancy design, each proposal maximises the expected improvement

.. math:: \mathrm{EI}(x) = (b - \mu)\, \Phi(u) + \sigma\, \varphi(u), \qquad u = \frac{b - \mu}{\sigma},

b the best value so far, over candidates of which one in three is anywhere in the cube and the others lie in a region
around the best point; :math:`\mu, \sigma` are those of `jaxfair.search.local`, whose shape is chosen anew before each
proposal. The region doubles after three improvements and halves after a row of failures. A predictor that is consistent
locally, an error bar that stays in every ball without points, and an acquisition that is positive wherever there is an
error bar are enough to converge to the optimum: what the candidates outside of the region are for.

With ``constrained`` a second value ``excess``, at most 0 where a point is allowed, is predicted by the same weights,
and EI is of the best allowed value times the chance that a point is allowed. While nobody is, the chance alone is
maximised.

All functions are pure, of arrays of a fixed size: they jit, vmap over keys, and run inside of a `lax.scan`.

References:
  Chen and Lam, `Pseudo-Bayesian Optimization <https://arxiv.org/abs/2310.09766>`_, 2023, for the axioms and the recipe;
  no code of theirs is public, and rule, candidates and constants here are ours. Eriksson et al., `TuRBO
  <https://arxiv.org/abs/1910.01739>`_, 2019, for the region. Ament et al., `Unexpected improvements to expected
  improvement <https://arxiv.org/abs/2310.20708>`_, 2023, for its logarithm.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import stats

from jaxfair.search import local
from jaxfair.typing import Array, Key

#: Of the region: its side at the beginning, the smallest before it begins again, the largest.
SIDE, SMALLEST, LARGEST = 0.8, 2.0**-7, 1.6
#: What is worse than the third quartile by so many times the quartiles' distance counts as no worse than that.
QUARTILES, FAR = (0.25, 0.5, 0.75), 3.0
#: Improvements in a row after which the region doubles.
SUCCESSES = 3


class Told(NamedTuple):
    """What a search knows.

    Attributes:
      x: ``[N, D]`` points of the cube, N the budget; rows from ``count`` on are empty.
      y: ``[N]`` values as they were told; what is not finite has failed.
      excess: ``[N]``, at most 0 where the point is allowed; 0 where nothing was told.
      count: [] int32 how many values were told. Those beyond the budget are counted and forgotten.
      shift: ``[D]`` of the first design.
      side: [] of the region around the best point.
      successes: [] int32 improvements in a row.
      failures: [] int32 the contrary.
    """

    x: Array
    y: Array
    excess: Array
    count: Array
    shift: Array
    side: Array
    successes: Array
    failures: Array


class Search(NamedTuple):
    """Pure functions, made by `pseudo_bayes`.

    Attributes:
      init: ``init(key) -> Told``.
      ask: ``ask(told, key) -> [Q, D]`` points of the cube to measure.
      tell: ``tell(told, x, y, excess=0) -> Told``, of ``[Q, D]`` and ``[Q]``; the order within a batch does not matter.
    """

    init: Callable[[Key], Told]
    ask: Callable[[Told, Key], Array]
    tell: Callable[..., Told]


def best(told: Told) -> tuple[Array, Array]:
    """The row of the best point so far, and whether it is one: finite and allowed.

    While nobody is allowed, the row of least excess among those that did not fail.

    Example:
      >>> search = pseudo_bayes(1, budget=4, first=2)
      >>> told = search.init(jax.random.key(0))
      >>> told = search.tell(told, jnp.array([[0.1], [0.7], [0.2]]), jnp.array([3.0, 1.0, jnp.nan]))
      >>> [int(v) for v in best(told)]
      [1, 1]
    """
    finite = _finite(told)
    allowed = finite & (told.excess <= 0)
    none = ~jnp.any(allowed)
    order = jnp.where(none, jnp.where(finite, told.excess, jnp.inf), jnp.where(allowed, told.y, jnp.inf))
    return jnp.argmin(order), ~none


def log_expected_improvement(mean: Array, deviation: Array, best: Any) -> Array:
    r"""The logarithm of :math:`E \max(b - Y, 0)` for a normal Y; -inf where it is certain that nothing improves.

    Of the logarithm, since EI itself is 0 in float32 some fourteen deviations away, and a search could not tell which
    candidate is the least hopeless.

    Example:
      >>> round(jnp.exp(log_expected_improvement(jnp.array(1.5), jnp.sqrt(0.0572340), 1.0)).item(), 6)
      0.001591
      >>> [round(float(v), 1) for v in log_expected_improvement(jnp.array([20.0, 30.0]), jnp.ones(2), 0.0)]
      [-206.9, -457.7]
    """
    certain = deviation <= 0
    scale = jnp.where(certain, 1.0, deviation)
    u = (best - mean) / scale
    far = u < -4.0
    near = jnp.where(far, 0.0, u)
    direct = jnp.log(near * stats.norm.cdf(near) + stats.norm.pdf(near))
    v = jnp.square(jnp.where(far, u, -4.0))
    # Mills' ratio: u Phi(u) + phi(u) = phi(u) (1 / u^2 - 3 / u^4 + 15 / u^6 - 105 / u^8 ...).
    series = stats.norm.logpdf(jnp.sqrt(v)) - jnp.log(v) + jnp.log1p(-3 / v * (1 - 5 / v * (1 - 7 / v)))
    log_certain = jnp.log(jnp.maximum(best - mean, 0.0))
    return jnp.where(certain, log_certain, jnp.log(scale) + jnp.where(far, series, direct))


def pseudo_bayes(
    dimension: int,
    budget: int,
    *,
    batch: int = 1,
    first: int | None = None,
    rule: local.Rule = local.kriging,
    noise: Any = 0.0,
    candidates: int = 900,
    region: bool = True,
    constrained: bool = False,
    snap: Callable[[Array], Array] = lambda x: x,
    jumps: Any = False,
) -> Search:
    """A search for the minimum of a function on the unit cube.

    Args:
      dimension: D.
      budget: how many values may be told.
      batch: how many points a proposal has; each but the first is proposed as if the ones before had been measured,
        with the value that was predicted.
      first: points of the first design; 2 D + 2 by default, or the budget, where that is less.
      rule: of the local regression, `jaxfair.search.kriging`, `shepard` or `linear`.
      noise: deviation of a value about its function, in deviations of all values that were told; with 0 the
        regression interpolates.
      candidates: among which the best is proposed.
      region: whether two candidates in three lie around the best point; otherwise all are anywhere.
      constrained: whether `tell` is told an excess.
      snap: what the cube's points are rounded to, ``[D] -> [D]``, where not every point can be measured.
      jumps: ``[D]`` bool, coordinates that are drawn anew from all of [0, 1], also in the region.

    Returns:
      The `Search`.

    Raises:
      ValueError: for a number of dimensions, points or candidates that cannot be.

    Example:
      A parabola, in one compiled program:

      >>> search = pseudo_bayes(2, budget=30)
      >>> def step(told, key):
      ...     x = search.ask(told, key)
      ...     return search.tell(told, x, jnp.square(x - 0.3).sum(-1)), None
      >>> told, _ = lax.scan(step, search.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 30))
      >>> row, _ = best(told)
      >>> bool(jnp.abs(told.x[row] - 0.3).max() < 0.03)
      True
    """
    first = min(2 * dimension + 2, budget) if first is None else first
    for name in ("dimension", "budget", "batch", "first", "candidates"):
        if locals()[name] < 1:
            raise ValueError(f"{name}={locals()[name]}: at least 1")
    if first > budget:
        raise ValueError(f"first={first} points are more than the budget of {budget}: take fewer, or a larger budget")
    design, tried = _design(dimension, first), local.shapes(dimension, rule)
    patience = -(-max(4, dimension) // batch)
    anywhere = candidates if not region else -(-candidates // 3)
    free = jnp.broadcast_to(jnp.asarray(jumps), (dimension,))

    def init(key: Key) -> Told:
        empty = jnp.zeros(budget)
        zero = jnp.zeros((), jnp.int32)
        shift = jax.random.uniform(key, (dimension,))
        return Told(jnp.zeros((budget, dimension)), empty, empty, zero, shift, jnp.asarray(SIDE), zero, zero)

    def proposed(told: Told, key: Key) -> Array:
        everywhere, around = jax.random.split(key)
        drawn = jax.random.uniform(everywhere, (anywhere, dimension))
        if region:
            centre = told.x[best(told)[0]]
            drawn = jnp.concatenate([drawn, _around(centre, told.side, free, around, candidates - anywhere)])
        return jax.vmap(snap)(drawn)

    def ask(told: Told, key: Key) -> Array:
        values, bound = _standardised(told, constrained)
        shape = local.fitted(told.x, values[:, 0], _rows(told), tried, rule=rule, noise=noise)

        def one(carry, key):
            x, values, count = carry
            drawn = proposed(told, key)
            mean, deviation = jax.vmap(
                lambda point: local.predict(point, x, values, count, shape, rule=rule, noise=noise)
            )(drawn)
            score = log_expected_improvement(mean[:, 0], deviation, bound)
            if constrained:
                allowed = stats.norm.logcdf(-mean[:, 1] / jnp.maximum(deviation, 1e-6))
                score = allowed + jnp.where(best(told)[1], score, 0.0)
            # What was measured without noise, or is about to be, has nothing left to tell; rounding may say otherwise.
            live = (jnp.arange(budget) < count)[None]
            again = jnp.any(jnp.all(drawn[:, None] == x[None], -1) & live, -1) & (jnp.asarray(noise) <= 0)
            chosen = jnp.argmax(jnp.where(again & ~jnp.all(again), -jnp.inf, score))
            at = jnp.minimum(count, budget - 1)
            carry = x.at[at].set(drawn[chosen]), values.at[at].set(mean[chosen]), jnp.minimum(count + 1, budget)
            return carry, drawn[chosen]

        start = (told.x, values, _rows(told))
        _, found = lax.scan(one, start, jax.random.split(key, batch))
        row = told.count + jnp.arange(batch)
        begun = jax.vmap(snap)((design[jnp.minimum(row, first - 1)] + told.shift[None]) % 1.0)
        return jnp.where((row < first)[:, None], begun, found)

    def tell(told: Told, x: Array, y: Array, excess: Any = 0.0) -> Told:
        if x.shape != (len(y), dimension):
            raise ValueError(f"x of shape {x.shape} for {len(y)} values on a cube of {dimension} dimensions")
        at = told.count + jnp.arange(len(y))
        over = jnp.broadcast_to(jnp.asarray(excess, told.excess.dtype), y.shape)
        new = told._replace(
            x=told.x.at[at].set(x, mode="drop"),
            y=told.y.at[at].set(y, mode="drop"),
            excess=told.excess.at[at].set(over, mode="drop"),
            count=told.count + len(y),
        )
        return _region(new, _improved(told, new), patience, told.count >= first)

    return Search(init, ask, tell)


def _finite(told: Told) -> Array:
    return (jnp.arange(len(told.y)) < told.count) & jnp.isfinite(told.y) & jnp.isfinite(told.excess)


def _rows(told: Told) -> Array:
    return jnp.minimum(told.count, len(told.y))


def _design(dimension: int, count: int) -> Array:
    """Sobol's points: of a search each is shifted by the same random vector, modulo 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a number that is no power of 2 is less even, and good enough
        from scipy.stats import qmc  # a second, which only this start waits for

        return jnp.asarray(qmc.Sobol(dimension, scramble=False).random(count), jnp.float32)


def _around(centre: Array, side: Array, free: Array, key: Key, count: int) -> Array:
    """Candidates that differ from the centre in some twenty coordinates, at least one, by half a side at most."""
    (which, where, one, kept), dimension = jax.random.split(key, 4), len(centre)
    moves = jax.random.uniform(which, (count, dimension)) < min(1.0, 20 / dimension)
    at_least = jax.nn.one_hot(jax.random.randint(one, (count,), 0, dimension), dimension, dtype=bool)
    moves |= at_least & ~moves.any(-1, keepdims=True)
    low = jnp.where(free, 0.0, jnp.maximum(centre - side / 2, 0.0))[None]
    high = jnp.where(free, 1.0, jnp.minimum(centre + side / 2, 1.0))[None]
    drawn = low + (high - low) * jax.random.uniform(where, (count, dimension))
    # A coordinate that jumps does so in one candidate of two: else few would keep the best one's choice.
    moves &= ~free[None] | jax.random.bernoulli(kept, 0.5, (count, dimension))
    return jnp.where(moves, drawn, centre[None])


def _standardised(told: Told, constrained: bool) -> tuple[Array, Array]:
    """The values ``[N, 1 or 2]`` in deviations about their median, failures as the worst; and the best of them."""
    finite = _finite(told)

    def of(values, centred):
        low, middle, high = jnp.nan_to_num(jnp.nanquantile(jnp.where(finite, values, jnp.nan), jnp.array(QUARTILES)))
        # A loss that exploded is as bad as it is large, which would leave no difference among the good ones.
        capped = jnp.minimum(values, jnp.where(high > low, high + FAR * (high - low), jnp.inf))
        kept = jnp.where(finite, capped, jnp.nan)
        worst = jnp.nan_to_num(jnp.max(jnp.where(finite, capped, -jnp.inf)), neginf=0.0)
        values, centre = capped, middle if centred else 0.0
        scale = jnp.nan_to_num(jnp.nanstd(kept))
        return (jnp.where(finite, values, worst) - centre) / jnp.where(scale > 0, scale, 1.0)

    values = of(told.y, True)[:, None]
    if constrained:
        values = jnp.concatenate([values, of(told.excess, False)[:, None]], 1)
    return values, values[best(told)[0], 0]


def _improved(before: Told, after: Told) -> Array:
    """Whether the best point is better: allowed and none was, or by more than a thousandth of its value or excess."""
    (old, was), (new, now) = best(before), best(after)

    def less(values: Array, olds: Array) -> Array:
        return values[new] < olds[old] - 1e-3 * jnp.abs(olds[old])

    better = jnp.where(now, ~was | less(after.y, before.y), less(after.excess, before.excess))
    nothing = ~jnp.any(_finite(before))
    return jnp.where(nothing, jnp.any(_finite(after)), better)


def _region(told: Told, improved: Array, patience: int, begun: Array) -> Told:
    successes = jnp.where(improved, told.successes + 1, 0)
    failures = jnp.where(improved, 0, told.failures + 1)
    grows, shrinks = successes >= SUCCESSES, failures >= patience
    side = jnp.where(grows, jnp.minimum(2 * told.side, LARGEST), jnp.where(shrinks, told.side / 2, told.side))
    new = told._replace(
        side=jnp.where(side < SMALLEST, SIDE, side),
        successes=jnp.where(grows, 0, successes),
        failures=jnp.where(shrinks, 0, failures),
    )
    return jax.tree.map(lambda a, b: jnp.where(begun, a, b), new, told)
