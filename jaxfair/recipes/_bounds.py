"""What a recipe can bound, each as one object: the problem, how its multipliers move, and how batches are made.

A bound is made without knowing model or data: `ceag(tolerance=0.01)` is the same for everyone. The recipe gives it
the :class:`Facts`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import constraints, metrics
from jaxfair.constraints import rates as rates_lib
from jaxfair.recipes._ascent import MARGIN, TRAVEL, aims, ascent, people_of
from jaxfair.recipes._batches import power_of
from jaxfair.typing import Batch


class Facts(NamedTuple):
    """What a bound is told of the model, the data and the schedule.

    Attributes:
      apply: the model's.
      group: ``[N]`` of the training split.
      constrained: ``[G]`` bool, the groups that have a bound.
      num_groups: G.
      num_classes: C.
      batch_size: B.
      steps: of an epoch.
      pruned: the step at which pruning ends.
      weight: ``[N]`` of the training split, how much its people count; None is all the same.
      epochs: of the run.
      shared: keyword arguments that every problem takes: ``num_groups``, ``loss``, ``weight_decay``, ``decayed``.
      dense: ``[N]``, what the dense network predicts on the split that is judged; known where a violation is measured.
    """

    apply: Callable[..., Any]
    group: np.ndarray
    constrained: np.ndarray
    num_groups: int
    num_classes: int
    batch_size: int
    steps: int
    pruned: int
    shared: dict[str, Any]
    weight: np.ndarray | None = None
    epochs: int = 1
    dense: Any = None

    @property
    def of_groups(self) -> dict[str, Any]:
        """Keyword arguments of every problem that compares groups: its proxies are cross entropy, whatever the loss."""
        return self.shared | {"constrained": self.constrained, "proxy_loss": constraints.cross_entropy}


class Bounded(NamedTuple):
    """A bound for a model and its data.

    Attributes:
      problem: of `jaxfair.constraints`.
      dual: the optimizer of the multipliers.
      power: of `jaxfair.recipes._batches`.
      begin: ``begin(model_state, outcomes, split, label) -> carry``, from how the dense network did.
      refresh: ``refresh(carry, label, split) -> carry``, from what the network predicts at the end of an epoch,
        ``[N]``: what a memory knows is up to an epoch old, and was seen in training.
    """

    problem: constraints.Problem
    dual: optax.GradientTransformation
    power: float | None = None
    begin: Callable[..., Any] | None = None
    refresh: Callable[[Any, jax.Array, Batch], Any] | None = None


class Bound(NamedTuple):
    """A bound that :func:`prune` trains under; made by :func:`ceag` and the like.

    Attributes:
      name: of the method.
      tolerance: on the gap that ``on`` names, by which the delivered network is chosen; None where another number says
        whether the bound is met.
      make: ``make(facts) -> Bounded``.
      violation: ``violation(label, split, facts) -> scalar``: by how much a network exceeds the bound on a split, in
        place of the gap less the tolerance; ``facts.dense`` is what the dense network predicts there.
      settings: what the bound is a function of, to be compared when a run is taken up again; see :meth:`known`.
      on: which gap of `jaxfair.metrics.accuracy_gaps` the tolerance is on: ``"excess"``, or ``"gap"``, what a group
        itself loses.
      of_groups: further settings, of which there are others for another number of groups.
    """

    name: str
    tolerance: Any
    make: Callable[[Facts], Bounded]
    violation: Callable[[jax.Array, Batch, Facts], jax.Array] | None = None
    settings: Mapping[str, Any] = {}
    on: str = "excess"
    of_groups: Callable[[int], Mapping[str, Any]] = lambda num_groups: {}

    def known(self, num_groups: int) -> dict[str, Any]:
        """Its name and all settings, of data with so many groups.

        Args:
          num_groups: G.
        """
        return {"bound": self.name, **self.of_groups(num_groups), **self.settings}


def _of_people(memory: constraints.Memory, weight: Any) -> constraints.Memory:
    """A memory in which people count by the weights of the split, ``[N]``, whatever a batch makes of them."""
    if weight is None or np.all(np.asarray(weight) == 1):
        return constraints.unweighted(memory)
    known = jnp.asarray(weight, jnp.float32)

    def push(state: Any, batch: Batch, outcome: Any) -> Any:
        there = jnp.asarray(batch.weight) > 0
        own = known.at[jnp.asarray(batch.index)].get(mode="fill", fill_value=0)
        return memory.push(state, batch._replace(weight=jnp.where(there, own, 0.0)), outcome)

    return memory._replace(push=push)


def gap_bound(
    name: str,
    make_problem: Callable[..., constraints.Problem],
    tolerance: Any,
    rate: Any,
    batches: str,
    on: str = "excess",
    outcome: Callable[..., jax.Array] = lambda label, split, carry: metrics.correct(label, split.y),
    travel: Any = TRAVEL,
) -> Bound:
    """A bound of a tolerance for each group, with the multipliers and the batches of :func:`ceag`.

    ``outcome(label, split, carry) -> [N]`` is what the problem remembers of everyone, by what is predicted.
    """

    def make(facts: Facts) -> Bounded:
        people = people_of(facts.group, facts.weight, facts.num_groups)
        options = {**facts.of_groups, "tolerance": aims(tolerance, people, MARGIN)}
        power = power_of(batches, facts.group, facts.num_groups, facts.batch_size)
        memory = constraints.example_memory(facts.num_groups)
        if power is not None:
            memory = _of_people(memory, facts.weight)
        dual = ascent(tolerance, people, facts.steps * facts.epochs, travel) if rate is None else optax.sgd(rate)
        problem = make_problem(facts.apply, margin=MARGIN, memory=memory, **options)

        def refresh(carry: Any, label: jax.Array, split: Batch) -> Any:
            known = outcome(label, split, carry).astype(jnp.float32)
            return carry._replace(memory=memory.init(split.group, known, split.weight))

        # Normalised also where the problem does not ask for it: one point of loss and of gap keep their proportion.
        normalized = problem._replace(formulation=constraints.normalized_lagrangian())
        return Bounded(normalized, dual, power, refresh=refresh)

    if rate is not None and travel != TRAVEL:
        raise ValueError(f"rate={rate}, travel={travel}: travel is of the rule that rate replaces: give one of them.")
    if not (np.isfinite(travel) and travel > 0):
        raise ValueError(f"travel={travel}: give a number above 0; multipliers would never rise.")
    settings = {"tolerance": tolerance, "rate": rate, "batches": batches}
    if travel != TRAVEL:  # folders of runs without it stay the same
        settings["travel"] = travel
    return Bound(name, tolerance, make, settings=settings, on=on)


def ceag(tolerance: Any = 0.01, *, rate: Any = None, batches: str = "auto", travel: Any = TRAVEL) -> Bound:
    """No group loses more accuracy than the average does by more than the tolerance: the bound to begin with.

    Args:
      tolerance: a share of 1, for all groups or ``[G]``, one for each; 0.01 is one point.
      rate: step size of plain ascent; None is the rule of `jaxfair.recipes._ascent`, which needs no tuning.
      batches: ``"plain"``; ``"balanced"`` or ``"root"``, in which every group has as many places, or in proportion to
        the root of its size, re-weighted; ``"auto"`` is root where a batch has a place for each group.
      travel: how far that rule can move a multiplier in a run; :func:`tuned` may choose it.

    Example:
      >>> ceag(tolerance=0.02).tolerance
      0.02

    References:
      Hashemizadeh et al., `Balancing Act: Constraining Disparate Impact in Sparse Models
      <https://arxiv.org/abs/2310.20673>`_, 2024; :func:`jaxfair.constraints.excess_accuracy_gap` says what differs.
    """
    return gap_bound("ceag", constraints.excess_accuracy_gap, tolerance, rate, batches, travel=travel)


def accuracy_gap(tolerance: Any = 0.01, *, rate: Any = None, batches: str = "auto", travel: Any = TRAVEL) -> Bound:
    """No group loses more accuracy than the tolerance, whatever the others lose.

    Args:
      tolerance: as of :func:`ceag`, but on what a group itself loses; the delivered network is chosen by that, too.
      rate: as of :func:`ceag`.
      batches: as of :func:`ceag`.
      travel: as of :func:`ceag`.

    Example:
      >>> accuracy_gap(0.02).name
      'accuracy_gap'
    """
    return gap_bound("accuracy_gap", constraints.accuracy_gap, tolerance, rate, batches, on="gap", travel=travel)


def ceag_published(tolerance: Any = 0.01, *, rate: Any = 0.002) -> Bound:
    """The excess gap as in the authors' code: constraints from the end of pruning on, and the plain Lagrangian.

    Args:
      tolerance: as of :func:`ceag`.
      rate: step size of the multipliers.

    Example:
      >>> ceag_published().settings
      {'tolerance': 0.01, 'rate': 0.002}
    """

    def make(facts: Facts) -> Bounded:
        problem = constraints.published_excess_accuracy_gap(
            facts.apply,
            start=facts.pruned,
            tolerance=tolerance,
            **facts.of_groups,
        )
        return Bounded(problem, optax.sgd(rate))

    settings = {"tolerance": tolerance, "rate": rate}
    return Bound("ceag_published", tolerance, make, settings=settings)


def equalized_loss(tolerance: Any = 0.01, *, rate: Any = 1e-4) -> Bound:
    """All groups have the loss of everybody.

    Args:
      tolerance: on the excess accuracy gap; no number of the constraint, but what the delivered network is chosen by.
      rate: step size of the multipliers; at 1e-3 and above accuracy collapses on Adult.

    Example:
      >>> equalized_loss().settings
      {'tolerance': 0.01, 'rate': 0.0001}

    References:
      Tran et al., `Pruning has a disparate impact on model accuracy <https://arxiv.org/abs/2205.13574>`_, 2022.
    """

    def make(facts: Facts) -> Bounded:
        problem = constraints.equalized_loss(facts.apply, **facts.of_groups)
        return Bounded(problem, optax.sgd(rate))

    settings = {"tolerance": tolerance, "rate": rate}
    return Bound("equalized_loss", tolerance, make, settings=settings)


def rates(
    bounds: Sequence[Any] | Callable[[int], Sequence[Any]],
    *,
    proxy: str = "sigmoid",
    rate: Any = None,
) -> Bound:
    """Bounds on rates of predictions: of `jaxfair.constraints.rates`.

    Args:
      bounds: constraints, or a function from the number of groups to them.
      proxy: what stands in for a rate where it is differentiated.
      rate: step size of the multipliers; None is one over the steps of an epoch.

    Returns:
      The bound; the network that is delivered is the most accurate that met all of them on the training split.

    Example:
      Demographic parity, for as many groups as the data have:

      >>> from jaxfair.constraints import rates as of
      >>> rates(lambda groups: of.demographic_parity(0.02, num_groups=groups)).name
      'rates'
    """

    def given(num_groups: int) -> Sequence[Any]:
        return bounds(num_groups) if callable(bounds) else bounds

    def make(facts: Facts) -> Bounded:
        problem = rates_lib.problem(
            facts.apply, given(facts.num_groups), num_classes=facts.num_classes, proxy=proxy, **facts.shared
        )  # fmt: skip

        def begin(model_state: Any, outcomes: Any, split: Batch, label: jax.Array) -> Any:
            init: Any = problem.init  # of rates: it takes predictions, too
            return init(model_state, outcomes, split, prediction=label)

        dual = optax.sgd(1 / facts.steps if rate is None else rate)
        return Bounded(problem, dual, begin=begin)

    def violation(label: jax.Array, split: Batch, facts: Facts) -> jax.Array:
        sizes = {"num_groups": facts.num_groups, "num_classes": facts.num_classes}
        asked = list(given(facts.num_groups))
        found = rates_lib.measure(asked, label, split.y, split.group, weight=split.weight, **sizes)
        both_ways = np.array([one.equality for one in asked])  # an equality is missed by what it is off, up or down
        return jnp.nanmax(jnp.where(both_ways, jnp.abs(found.value), found.value))

    def of_groups(num_groups: int) -> dict[str, Any]:
        return {"bounds": [str(b) for b in given(num_groups)]}

    return Bound("rates", None, make, violation, {"proxy": proxy, "rate": rate}, of_groups=of_groups)


def free() -> Bound:
    """No bound at all: naive fine-tuning.

    Example:
      >>> free().name
      'nft'
    """

    def make(facts: Facts) -> Bounded:
        problem = constraints.unconstrained(facts.apply, **facts.shared)
        return Bounded(problem, optax.sgd(1.0))

    return Bound("nft", None, make)
