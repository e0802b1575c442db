"""What is measured after each epoch of pruning, what is kept of it, and by which rule it is delivered."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import metrics, train
from jaxfair.recipes._bounds import Bound, Facts
from jaxfair.recipes._frame import Frame
from jaxfair.recipes._gaps import excess_of, largest_gap

#: Measured of a candidate on the training split.
OF_TRAIN = ("train_gap", "train_violation")


class Kept(NamedTuple):
    """What a lane keeps from epoch to epoch.

    Attributes:
      delivered: the most accurate that met the bound, else the least violating.
      stopped: the one with the best accuracy on the split that is selected on.
    """

    delivered: train.Snapshot
    stopped: train.Snapshot


class How(NamedTuple):
    """What was asked for, as the end of an epoch needs it."""

    sparsity: float | int
    bound: Bound
    tolerance: Any
    epochs: int
    prune_epochs: int
    select_on: str


def end_epoch(
    here: Frame, facts: Facts, how: How, schedule: Any, refresh: Callable[..., Any] | None = None
) -> Callable[..., train.Epoch]:
    """What is measured after each epoch, what is kept of it, and what the constraints are told of it."""
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
        if how.tolerance is None:
            return jnp.float32(-jnp.inf), values
        over = excess_of(correct, outcomes.correct, split, constrained, how.tolerance, how.bound.on)
        return over, values if how.bound.on == "excess" else values | {"train_violation": over}

    def deliver(kept: Kept, networks: Any, epoch: Any, labels: Any, outcomes: Any) -> tuple[Kept, dict[str, Any]]:
        found = [violation(label, outcomes) for label in labels]
        # Without a bound all that come are equals, and the last is delivered.
        asked = how.tolerance is not None or how.bound.violation is not None
        accuracy = [of["train_accuracy"] for _, of in found] if asked else None
        delivered = train.deliver(kept.delivered, networks, [over for over, _ in found], epoch, accuracy=accuracy)
        values = {
            f"{which}_{name}": value
            for which, (_, of) in zip(("last", "average"), found, strict=True)
            for name, value in of.items()
        }
        return kept._replace(delivered=delivered), values

    def sound(failed: Any, kept: Kept, before: Kept) -> Kept:
        return jax.tree.map(lambda new, old: jnp.where(failed >= 0, old, new), kept, before)

    def told(solver: Any, label: Any) -> Any:
        assert refresh is not None
        return solver._replace(carry=refresh(solver.carry, label, split))

    told_of = here.plan.lift(told)
    gaps_of, sound_of = here.plan.lift(gaps), here.plan.lift(sound)
    early_of = here.plan.lift(early, (0, 0, None, 0, None))
    deliver_of = here.plan.lift(deliver, (0, 0, None, 0, 0))

    def end(state: train.TrainState, epoch: int, values: dict[str, Any]) -> train.Epoch:
        network, kept = train.network_of(state.solver), state.kept
        values |= gaps_of(state.meters, state.solver.multipliers, state.settings)
        del values["group_accuracy"]
        values["sparsity"] = jnp.full_like(values["loss"], schedule.at((epoch + 1) * facts.steps))
        if epoch >= how.prune_epochs and selects:
            label = here.predict(*network, selection).label
            kept, values[f"{how.select_on}_accuracy"] = early_of(kept, network, epoch, label, judges)
        last = here.predict(*network, here.train).label if refresh or epoch >= window else None
        if epoch >= window:
            labels = (last, here.predict(*state.average, here.train).label)
            kept, more = deliver_of(kept, (network, state.average), epoch, labels, state.settings)
            values |= more
        # A lane that failed stands where its last call began, maybe before anything was pruned: what it kept until
        # then stays, and what is measured of it is nothing.
        kept, dead = sound_of(state.failed_at, kept, state.kept), state.failed_at >= 0
        measured = {
            name: jnp.where(dead, jnp.nan, value)
            for name, value in values.items() if name.endswith(("loss", "accuracy", *OF_TRAIN))
        }  # fmt: skip
        solver = told_of(state.solver, last) if refresh else state.solver
        return train.Epoch(state._replace(kept=kept, solver=solver), values | measured)

    return end
