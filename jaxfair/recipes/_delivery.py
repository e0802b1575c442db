"""What is measured after each epoch of pruning, what is kept of it, and by which rule it is delivered."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import metrics, train
from jaxfair.recipes._bounds import Bound, Facts, largest_gap
from jaxfair.recipes._frame import Frame

#: Measured of a candidate on the training split.
OF_TRAIN = ("train_gap", "train_violation")


class Kept(NamedTuple):
    """What a lane keeps from epoch to epoch.

    Attributes:
      delivered: the latest that met the bound, else the least violating.
      stopped: the one with the best accuracy on the split that is selected on.
    """

    delivered: train.Snapshot
    stopped: train.Snapshot


class Before(NamedTuple):
    """How a dense network did on the training split, as the end of an epoch needs it.

    Attributes:
      correct: ``[N]`` float32, 1 where the predicted class is the true one.
      label: ``[N]``, the predicted class.
    """

    correct: jax.Array
    label: jax.Array


class How(NamedTuple):
    """What was asked for, as the end of an epoch needs it."""

    sparsity: float | int
    bound: Bound
    tolerance: Any
    epochs: int
    prune_epochs: int
    select_on: str


def end_epoch(here: Frame, facts: Facts, how: How, schedule: Any) -> Callable[..., train.Epoch]:
    """What is measured after each epoch, and what is kept of it."""
    constrained, meter = jnp.asarray(facts.constrained), train.group_meter(facts.num_groups)
    # Delivery looks at the final 30 % of the epochs, where the masks are fixed.
    window = max(how.epochs - math.ceil(0.3 * how.epochs), how.prune_epochs)
    selection = here.validation if how.select_on == "validation" else here.train
    selects = len(selection.y) > 0
    split, judges = (batch._replace(x=np.zeros(0, np.float32)) for batch in (here.train, selection))

    def gaps(meters: Any, multipliers: jax.Array, outcomes: Any) -> dict[str, Any]:
        seen = meter.read(meters)
        reference = metrics.group_means(outcomes.correct, split.group, facts.num_groups, weight=split.weight)
        lost = reference - seen["group_accuracy"]
        excess = lost - (jnp.average(outcomes.correct, weights=split.weight) - seen["accuracy"])
        return {
            "gaps": excess,
            "max_gap": metrics.max_excess_accuracy_gap(jnp.where(constrained, excess, jnp.nan)),
            "multipliers": multipliers,
            "max_multiplier": jnp.max(jnp.abs(multipliers), initial=0.0),
        }

    def early(kept: Kept, network: Any, epoch: Any, label: Any, of: Any) -> tuple[Kept, jax.Array]:
        accuracy = metrics.accuracy(label, of.y, weight=of.weight)
        better = train.better_score(kept.stopped, -accuracy)
        stopped = train.keep_if(
            better, kept.stopped, network.params, network.model_state, -accuracy, epoch, averaged=False
        )  # fmt: skip
        return kept._replace(stopped=stopped), accuracy

    def violation(label: jax.Array, outcomes: Any) -> tuple[Any, dict[str, Any]]:
        correct = metrics.correct(label, split.y).astype(jnp.float32)
        gap = largest_gap(correct, outcomes.correct, split, constrained)
        values = {"train_gap": gap, "train_accuracy": metrics.accuracy(label, split.y, weight=split.weight)}
        if how.bound.violation is not None:
            over = how.bound.violation(label, split, facts._replace(dense=outcomes.label))
            return over, values | {"train_violation": over}
        if how.bound.on != "excess" and how.tolerance is not None:
            over = largest_gap(correct, outcomes.correct, split, constrained, how.bound.on) - how.tolerance
            return over, values | {"train_violation": over}
        return (jnp.float32(-jnp.inf) if how.tolerance is None else gap - how.tolerance), values

    def deliver(kept: Kept, networks: Any, epoch: Any, labels: Any, outcomes: Any) -> tuple[Kept, dict[str, Any]]:
        found = [violation(label, outcomes) for label in labels]
        delivered = train.deliver(kept.delivered, networks, [over for over, _ in found], epoch)
        values = {
            f"{which}_{name}": value
            for which, (_, of) in zip(("last", "average"), found, strict=True)
            for name, value in of.items()
        }
        return kept._replace(delivered=delivered), values

    def sound(failed: Any, kept: Kept, before: Kept, values: Any) -> tuple[Kept, dict[str, Any]]:
        # A lane that failed stands where its last call began, maybe before anything was pruned: what it kept until
        # then stays, and what is measured of it is nothing.
        dead = failed >= 0
        kept = jax.tree.map(lambda new, old: jnp.where(dead, old, new), kept, before)
        return kept, {name: jnp.where(dead, jnp.nan, value) for name, value in values.items()}

    gaps_of, sound_of = here.plan.lift(gaps), here.plan.lift(sound)
    early_of = here.plan.lift(early, (0, 0, None, 0, None))
    deliver_of = here.plan.lift(deliver, (0, 0, None, 0, 0))

    def end(state: train.TrainState, epoch: int, values: dict[str, Any]) -> train.Epoch:
        network, kept = train.network_of(state.solver), state.kept
        values |= gaps_of(state.meters, state.solver.multipliers, state.settings)
        del values["group_accuracy"]
        target = float(schedule((epoch + 1) * facts.steps))
        values["sparsity"] = jnp.full_like(values["loss"], target)
        if epoch >= how.prune_epochs and selects:
            label = here.predict(*network, selection).label
            kept, values[f"{how.select_on}_accuracy"] = early_of(kept, network, epoch, label, judges)
        if epoch >= window:
            both = (network, state.average)
            labels = tuple(here.predict(*one, here.train).label for one in both)
            kept, more = deliver_of(kept, both, epoch, labels, state.settings)
            values |= more
        measured = {name: value for name, value in values.items() if name.endswith(("loss", "accuracy", *OF_TRAIN))}
        kept, measured = sound_of(state.failed_at, kept, state.kept, measured)
        return train.Epoch(state._replace(kept=kept), values | measured)

    return end
