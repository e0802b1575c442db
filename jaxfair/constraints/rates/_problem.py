r"""The problem whose constraints are expressions of rates: exact for the multipliers, a surrogate for the weights.

.. math:: \min_\theta L(\theta) \quad \text{subject to} \quad b_k + \sum_r a_{kr}\, \mathrm{rate}_r(\theta) \le 0

**Strict.** Every rate is a quotient over the confusion tensor of the training split (:mod:`_tables`). Carried are
the last prediction of every example and that tensor; a batch takes its examples out of their old cells and puts them
into the new ones, two additions per example, whatever the number of examples and constraints. An example that was
never predicted is in no cell, and a constraint is observed once each of its rates has somebody in its condition.

**Proxy.** The same expression, with every event counted by a function of its margin (:mod:`_proxies`).

How this differs from TFCO: rates are data rather than graphs with their own denominators and variables; the strict
value comes from the whole split instead of the batch; several groups and classes are one tensor.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jaxfair import metrics
from jaxfair.constraints._numbers import check_count, check_number, check_word
from jaxfair.constraints._objective import make_forward
from jaxfair.constraints._people import check_classes, check_weights, finite, ids, last_of_each
from jaxfair.constraints.evaluation import Evaluation
from jaxfair.constraints.losses import Loss, cross_entropy
from jaxfair.constraints.problem import Outcomes, Problem
from jaxfair.constraints.rates._confusion import cell, confusion
from jaxfair.constraints.rates._expressions import Constraint, Expression
from jaxfair.constraints.rates._proxies import PROXIES, make_proxies, shares
from jaxfair.constraints.rates._tables import strict_values, tables
from jaxfair.tree import copied
from jaxfair.typing import Batch, ModelState, Params


class RateMemory(NamedTuple):
    """The last prediction of every training example, and its confusion tensor.

    Attributes:
      predicted: ``[N]`` int32, -1 for an example that was not seen yet.
      weight: ``[N]`` float32, the weight that it had then; 0 for an example that was not seen yet.
      counts: ``[G, C, C]`` float32, by group, class and prediction: sums of the weights.
      squares: ``[G, C, C]`` float32, sums of their squares.
    """

    predicted: jax.Array
    weight: jax.Array
    counts: jax.Array
    squares: jax.Array


class RateCarry(NamedTuple):
    """What the problem of rates carries.

    Attributes:
      model_state: the network's.
      memory: a :class:`RateMemory`, or ``()`` without one.
      share: ``[R]``, the share of the training split in each rate's condition (of a precision: 1 in all its groups).
      step: scalar int32, evaluations so far.
    """

    model_state: ModelState
    memory: Any
    share: jax.Array
    step: jax.Array


class RateAux(NamedTuple):
    """What the problem of rates lets you look at in ``Info.aux``.

    Attributes:
      correct: ``[B]`` float32 train-mode outcomes of the batch, before the step.
      standard_error: ``[K]``, of the strict values, taking the people they were counted on for a sample; infinite where
        unobserved. It does not know how long ago people were predicted.
    """

    correct: jax.Array
    standard_error: jax.Array


def problem(
    apply: Callable,
    constraints: Sequence[Constraint],
    *,
    num_groups: int,
    num_classes: int,
    proxy: str = "hinge",
    temperature: ArrayLike = 1.0,
    estimator: str = "prevalence",
    memory: str = "examples",
    start: ArrayLike = 0,
    loss: Loss = cross_entropy,
    weight_decay: ArrayLike = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
) -> Problem:
    r"""Minimises a mean loss under constraints on rates. All its numbers may be traced.

    Args:
      apply: the model's ``apply(params, state, x, *, train, key)``, with logits ``[B, C]``.
      constraints: K of them, such as ``rates.positive() <= 0.3`` or ``rates.equalized_odds(0.02, num_groups=4)``.
      num_groups: G.
      num_classes: C, at least 2.
      proxy: ``"hinge"``, ``"logistic"`` or ``"sigmoid"``, see :mod:`_proxies`. The two bounds are convex in the
        margins and loose where margins are large; the sigmoid is close, and flat far from the edge.
      temperature: T of the sigmoid, in units of a logit.
      estimator: a rate's proxy divides its sum over the batch by the number of people to be expected in its condition,
        the batch's size times their share of the training split (``"prevalence"``, unbiased, and observed for every
        rate), or by their number in the batch (``"batch"``). A precision always divides by its soft count in the batch.
      memory: ``"examples"``, the last predictions of the whole training split, or ``"batch"``, this batch alone.
      start: the first step at which the constraints are observed, and the memory is fed.
      loss: of one example, ``loss(logits [B, C], batch) -> [B]``: the objective. The proxies are of margins, whatever
        it is.
      weight_decay: adds ``weight_decay / 2 * |params|^2`` to the loss.
      decayed: which leaves the decay speaks of, by path.

    Returns:
      A :class:`Problem`. ``equality`` is ``[K]`` where both kinds occur. ``init(model_state, outcomes, batch,
      prediction=None)`` takes what is known of the starting model's predictions on the training split ``batch``:
      ``prediction``, ``[N]``; with two classes, else the :class:`Outcomes` say it (whoever is not right is wrong in one
      way only). With neither, or ``outcomes=None``, nobody has been seen, and the first epoch fills the memory.
      ``aux`` is a :class:`RateAux`.

    Raises:
      TypeError: for a list with something else than constraints in it.
      ValueError: for an unknown switch, a group or class out of range, a temperature of 0 or less, a negative start;
        when traced, for logits of another shape.

    Example:
      Nobody in group 0 is predicted positive, everybody in group 1 is:

      >>> from jaxfair import constraints
      >>> from jaxfair.constraints import rates
      >>> def apply(params, state, x, *, train, key=None):
      ...     return x * params, state
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.5], [0.0, 3.0]])
      >>> batch = Batch(x, jnp.array([0, 1, 0, 1]), jnp.array([0, 0, 1, 1]), jnp.arange(4), jnp.ones(4))
      >>> bound = rates.positive(group=1) - rates.positive(group=0) <= 0.25
      >>> problem = rates.problem(apply, [bound], num_groups=2, num_classes=2)
      >>> evaluation = problem.evaluate(jnp.ones(()), problem.init({}, None, batch), batch, None)
      >>> evaluation.strict, evaluation.proxy  # (1.5 + 4) / 2 - (-1 - 1) / 2 - 0.25
      (Array([0.75], dtype=float32), Array([3.5], dtype=float32))

    References:
      Cotter et al., `Optimization with Non-Differentiable Constraints with Applications to Fairness, Recall, Churn, and
      Other Goals <https://arxiv.org/abs/1809.04198>`_, 2019; Goh et al., `Satisfying Real-world Goals with Dataset
      Constraints <https://arxiv.org/abs/1606.07558>`_, 2016.
    """
    check_word("proxy", proxy, PROXIES)
    check_word("estimator", estimator, ("prevalence", "batch"))
    check_word("memory", memory, ("examples", "batch"))
    check_number(temperature, lambda t: t > 0, f"temperature={temperature}: give a number above 0.")
    check_count("start", start, low=0)
    t = tables(constraints, num_groups, num_classes)
    for k, constraint in enumerate(constraints):
        if isinstance(constraint, Expression):
            raise TypeError(f"constraints[{k}] is {constraint}, without a bound: compare it.")
    proxies = make_proxies(t, proxy, temperature, estimator)
    forward = make_forward(
        _one_logit_per_class(apply, num_classes),
        loss=loss,
        weight_decay=weight_decay,
        decayed=decayed,
    )

    def init(
        model_state: ModelState,
        outcomes: Outcomes | None,
        batch: Batch,
        prediction: ArrayLike | None = None,
    ) -> Any:
        check_weights(batch.weight)
        check_classes(batch.y, num_classes)
        y, (_, weight) = jnp.asarray(batch.y), finite(batch.weight, batch.weight)
        if prediction is None and outcomes is not None and num_classes == 2:
            prediction = jnp.where(jnp.asarray(outcomes.correct) > 0, y, 1 - y)
        known = jnp.full(y.shape, -1) if prediction is None else jnp.asarray(prediction)
        predicted = jnp.where(weight > 0, known, -1).astype(jnp.int32)
        counts, squares = (
            confusion(predicted, y, batch.group, num_groups, num_classes, w) for w in (weight, weight**2)
        )
        seen = jnp.where(predicted >= 0, weight, 0.0)
        remembered = RateMemory(predicted, seen, counts, squares) if memory == "examples" else ()
        return copied(RateCarry(model_state, remembered, shares(t, batch), jnp.zeros((), jnp.int32)))

    def evaluate(params: Params, carry: Any, batch: Batch, key: Any) -> Evaluation:
        y, weight = jnp.asarray(batch.y), jnp.asarray(batch.weight).astype(jnp.float32)
        found = forward(params, carry.model_state, batch._replace(weight=weight), key)
        value, seen = proxies(found.logits, batch, carry.share)

        active = carry.step >= start
        said = jnp.argmax(found.logits, axis=-1).astype(jnp.int32)
        # `metrics.correct` is the one truth of what a row of logits is right about: nothing, if it is not finite.
        prediction = jnp.where(metrics.correct(found.logits, said), said, -1)
        if memory == "examples":
            fed = jnp.where(active, weight, 0.0)
            remembered = _push(carry.memory, prediction, batch._replace(weight=fed))
            counts, squares = remembered.counts, remembered.squares
        else:
            remembered = ()
            counts, squares = (
                confusion(prediction, y, batch.group, num_groups, num_classes, w) for w in (weight, weight**2)
            )
        strict, error, observed = strict_values(t, counts, squares)
        return Evaluation(
            loss=found.objective,
            proxy=value,
            strict=strict,
            proxy_observed=seen,
            strict_observed=observed & active,
            carry=RateCarry(found.model_state, remembered, carry.share, carry.step + 1),
            aux=RateAux(found.correct, error),
            strict_error=error,
        )

    mixed = t.equality.any() and not t.equality.all()
    equality: Any = t.equality if mixed else bool(t.equality.any())
    return Problem(len(t.constant), equality, init, evaluate)


def _one_logit_per_class(apply: Callable[..., Any], num_classes: int) -> Callable[..., Any]:
    """The model, with the shape of what it says looked at."""

    def checked(*args: Any, **options: Any) -> tuple[jax.Array, ModelState]:
        logits, model_state = apply(*args, **options)
        if logits.ndim != 2 or logits.shape[1] != num_classes:
            raise ValueError(
                f"logits of shape {logits.shape} for num_classes={num_classes}: "
                "the model must give one logit per class, also with two classes."
            )
        return logits, model_state

    return checked


def _push(state: RateMemory, prediction: Int[Array, " B"], batch: Batch) -> RateMemory:
    """Takes the batch's people out of their old cells and puts them into the new ones."""
    people = state.predicted.shape[0]
    _, weight = finite(batch.weight, batch.weight)
    index = jnp.where((weight > 0) & (prediction >= 0), ids("index", batch.index, people, weight.shape), people)
    # Of somebody who is there several times, the last; what is padding, or nobody's, is past the end and dropped.
    index = jnp.where(last_of_each(index, people), index, people)
    now = index < people
    old = state.predicted.at[index].get(mode="fill", fill_value=-1)
    was = state.weight.at[index].get(mode="fill", fill_value=0)
    num_groups, num_classes, _ = state.counts.shape
    out, into = (
        cell(jnp.where(now, of, -1), batch.y, batch.group, num_groups, num_classes, weight.shape)
        for of in (old, prediction)
    )

    def moved(counts: Float[Array, "G C C"], before: Float[Array, " B"], new: Float[Array, " B"]) -> Array:
        return counts.at[out].add(-before, mode="drop").at[into].add(new, mode="drop")

    return RateMemory(
        predicted=state.predicted.at[index].set(prediction, mode="drop"),
        weight=state.weight.at[index].set(weight, mode="drop"),
        counts=moved(state.counts, was, weight),
        squares=moved(state.squares, was**2, weight**2),
    )
