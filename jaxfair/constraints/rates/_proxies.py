r"""Differentiable stand-ins for rates: functions of margins in place of zeros and ones.

"Predicted c" is :math:`m_c \ge 0` with the margin :math:`m_c = z_c - \max_{j \ne c} z_j` of the logits.
Counting an event by a function of its margin m (:math:`-m_c` for "not predicted c") in place of 0 or 1:

=========  =========================================  ======================================================
proxy      where the rate's coefficient is positive   where it is negative
=========  =========================================  ======================================================
hinge      :math:`\max(0, 1 + m)`                     :math:`1 - \max(0, 1 - m)`
logistic   :math:`\log(1 + e^m) / \log 2`             :math:`1 - \log(1 + e^{-m}) / \log 2`
sigmoid    :math:`1 / (1 + e^{-m/T})`                 the same
=========  =========================================  ======================================================

The first two bound the event from above, or from below where that matters, so the proxy of an inequality is never less
than its strict value on the same people. Two cases always take the sigmoid: precision, the quotient of two soft counts
(no bound), and equalities, whose multipliers have both signs: a bound that is pushed the wrong way has no minimum.

The condition of a rate is counted exactly: it depends on the labels, and not on the network. Only that of a precision
is soft too.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxfair.constraints._people import ids
from jaxfair.constraints.rates._tables import Tables, combine, group_totals
from jaxfair.typing import Batch

#: Upper bounds of an event by its margin. One less the bound of the opposite event is the lower bound.
BOUNDS = {
    "hinge": lambda margin: jax.nn.relu(1.0 + margin),
    "logistic": lambda margin: jax.nn.softplus(margin) * float(1.0 / np.log(2.0)),
}
PROXIES = (*BOUNDS, "sigmoid")
#: Fewer people than this, by soft count, are nobody: a quotient by them has no gradient worth following.
FEWEST = 1e-6


def margins(logits: Float[Array, "B C"], y: Int[Array, " B"]) -> Float[Array, "B C+1"]:
    """Each class's logit less the largest other one, and in the last column that of the example's own class.

    Args:
      logits: ``[B, C]``.
      y: ``[B]``.

    Example:
      >>> margins(jnp.array([[1.0, 3.0, 0.5]]), jnp.array([0]))
      Array([[-2. ,  2. , -2.5, -2. ]], dtype=float32)
    """
    best = jnp.argmax(logits, axis=1, keepdims=True)
    chosen = jnp.arange(logits.shape[1])[None] == best
    # The best by its place: a maximum would split its gradient between equal logits, the class itself among them.
    first = jnp.take_along_axis(logits, best, axis=1)
    second = jnp.max(jnp.where(chosen, -jnp.inf, logits), axis=1, keepdims=True)
    result = logits - jnp.where(chosen, second, first)
    return jnp.concatenate([result, jnp.take_along_axis(result, y[:, None], axis=1)], axis=1)


def _people(t: Tables, batch: Batch) -> Float[Array, "2 B M"]:
    """Each example's weight in the event's labels, and in the condition's, of every kind of rate."""
    weight = jnp.asarray(batch.weight).astype(jnp.float32)
    labels = jnp.asarray(t.labels).transpose(1, 2, 0)
    known = ids("y", batch.y, labels.shape[1], weight.shape)
    return weight[None, :, None] * labels.at[:, known].get(mode="fill", fill_value=0)


def _by_group(t: Tables, values: Float[Array, "F B M"], batch: Batch) -> Float[Array, "F G M"]:
    """Sums over the examples of each group; those of an unknown group go past the end and are dropped."""
    group = ids("group", batch.group, t.num_groups, values.shape[1:2])
    sums = jnp.zeros((values.shape[0], t.num_groups, values.shape[2]))
    return sums.at[:, group].add(values, mode="drop")


def shares(t: Tables, batch: Batch) -> Float[Array, " R"]:
    """The share of a split that is in each rate's condition; a precision's labels are all of them.

    Args:
      t: the tables.
      batch: the whole split.

    Example:
      >>> from jaxfair.constraints import rates
      >>> from jaxfair.constraints.rates._tables import tables
      >>> t = tables([rates.true_positive() - rates.error(group=1) <= 0.1], 2, 2)
      >>> batch = Batch(None, jnp.array([1, 0, 0, 0]), jnp.array([0, 0, 1, 1]), jnp.arange(4), jnp.ones(4))
      >>> shares(t, batch)
      Array([0.25, 0.5 ], dtype=float32)
    """
    condition = group_totals(t, _by_group(t, _people(t, batch)[1:], batch))[0]
    total = jnp.sum(jnp.asarray(batch.weight)).astype(jnp.float32)
    return condition / jnp.where(total > 0, total, 1.0)


def make_proxies(
    t: Tables, proxy: str, temperature: ArrayLike, estimator: str
) -> Callable[
    [Float[Array, "B C"], Batch, Float[Array, " R"]],
    tuple[Float[Array, " K"], Bool[Array, " K"]],
]:
    """The function that gives the constraints' proxies on a batch.

    Args:
      t: the tables.
      proxy: one of ``PROXIES``.
      temperature: of the sigmoid.
      estimator: ``"prevalence"`` or ``"batch"``.

    Returns:
      ``proxies(logits, batch, share) -> (values, observed)``, with ``share`` from :func:`shares`.

    Example:
      The upper bound of an error is the hinge loss, 1 less the margin of the own class:

      >>> from jaxfair.constraints import rates
      >>> from jaxfair.constraints.rates._tables import tables
      >>> proxies = make_proxies(tables([rates.error() <= 0.5], 1, 2), "hinge", 1.0, "batch")
      >>> batch = Batch(None, jnp.array([0, 0]), jnp.array([0, 0]), jnp.arange(2), jnp.ones(2))
      >>> proxies(jnp.array([[3.0, 0.0], [0.5, 0.0]]), batch, jnp.ones(1))[0]  # (0 + 0.5) / 2 - 0.5
      Array([-0.25], dtype=float32)
    """
    constraint, rate = t.terms
    soft = t.equality[constraint] | t.ratio[t.kind[rate]] | (proxy == "sigmoid")
    # The three functions of a margin; a term needs one of them, and what no term needs is not computed.
    functions = {
        "soft": lambda margin: jax.nn.sigmoid(margin / temperature),
        "upper": lambda margin: BOUNDS[proxy](margin),
        "lower": lambda margin: 1.0 - BOUNDS[proxy](-margin),
    }
    needed = np.where(soft, "soft", np.where(t.coefficient > 0, "upper", "lower")).tolist()
    used = sorted(set(needed)) or ["soft"]
    row = np.array([used.index(word) for word in needed], np.int32)
    ratio = t.ratio[t.kind]

    def proxies(
        logits: Float[Array, "B C"], batch: Batch, share: Float[Array, " R"]
    ) -> tuple[Float[Array, " K"], Bool[Array, " K"]]:
        weight = jnp.asarray(batch.weight).astype(jnp.float32)
        # Of no class: no label has a part in the sums, and any margin will do.
        y = jnp.minimum(ids("y", batch.y, logits.shape[1]), logits.shape[1] - 1)
        # Padding may hold anything, and 0 * inf is not 0.
        logits = jnp.where(weight[:, None] > 0, logits.astype(jnp.float32), 0.0)
        margin = margins(logits, y)[:, t.column] * t.sign[None]
        event, condition = _people(t, batch)
        counted = jnp.stack([functions[word](margin) for word in used])
        totals = group_totals(t, _by_group(t, event[None] * counted, batch))

        if estimator == "prevalence":
            size = jnp.sum(weight) * share
        else:
            size = group_totals(t, _by_group(t, condition[None], batch))[0]
        if ratio.any():
            predicted = condition * functions["soft"](margin)
            expected = group_totals(t, _by_group(t, predicted[None], batch))[0]
            size = jnp.where(ratio, expected, size)
        seen = size > np.where(ratio, FEWEST, 0.0).astype(np.float32)
        return combine(t, (totals / jnp.where(seen, size, 1.0)[None])[row, rate], seen)

    return proxies
