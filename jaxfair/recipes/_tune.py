"""What recipes that fine-tune networks share: what they check, how they descend under a bound, what is delivered."""

from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import sparsity, train, tree
from jaxfair.data import Dataset
from jaxfair.recipes import _bounds, _churn, _identity
from jaxfair.recipes._bounds import Bound, Bounded, Facts, free
from jaxfair.recipes._delivery import How, Kept, end_epoch
from jaxfair.recipes._frame import Frame, Place, keys_of
from jaxfair.recipes._gaps import per_group
from jaxfair.recipes._networks import Networks
from jaxfair.recipes._start import Lane
from jaxfair.recipes.check_model import check_finite, check_model
from jaxfair.recipes.no_worse import check_naive, no_worse
from jaxfair.typing import Batch, Key, Model


def facts_of(model: Model, dataset: Dataset, here: Frame, how: How, **descent: Any) -> Facts:
    return Facts(
        apply=model.apply, group=np.asarray(dataset.train.group), constrained=dataset.constrained,
        num_groups=dataset.num_groups, num_classes=dataset.num_classes, batch_size=here.batch_size, steps=here.steps,
        epochs=how.epochs, pruned=how.prune_epochs * here.steps, weight=np.asarray(dataset.train.weight),
        shared={"num_groups": dataset.num_groups, **descent},
    )  # fmt: skip


def sgd(learning_rate: float | int, momentum: float | int, falls: Sequence[int]) -> optax.GradientTransformation:
    rate = optax.piecewise_constant_schedule(learning_rate, dict.fromkeys(falls, 0.1))
    return optax.sgd(rate, momentum=momentum or None)


def descent_facts(
    dense: Networks, naive: Networks | None, optimizer: Any, decayed: Callable[[str], bool] | None
) -> dict[str, Any]:
    """The optimizer, what decays, and what may be delivered instead, as a folder knows them."""
    params, _ = _identity.abstract_lane((dense.params, dense.model_state))
    return {
        "decayed": _identity.paths(params, decayed) if decayed else [],
        "optimizer": _identity.of_optimizer(optimizer, params) if optimizer else "sgd",
        **({} if naive is None else {"naive": naive.digest()}),
    }


def bound_of(given: Any) -> Bound:
    """The bound, or none; a wrong one is told what was meant."""
    if given is None:
        return free()
    if isinstance(given, Bound):
        return given
    name = getattr(given, "__name__", "")
    if callable(given) and any(callable(getattr(made, name, None)) for made in (_bounds, _churn)):
        raise ValueError(f"bound={name}: did you mean recipes.{name}()?")
    if isinstance(given, int | float | np.number):
        raise ValueError(f"bound={given}: did you mean recipes.ceag({given})?")
    raise ValueError(f"bound={given!r}: give a bound such as recipes.ceag(0.01), or None.")


def check_how(how: How, model: Model, dataset: Dataset, naive: Networks | None, dense: Networks) -> None:
    for given in (how.tolerance, how.bound.tolerance):
        if given is not None:
            per_group(given, dataset.num_groups)
    if how.tolerance is not None and not dataset.constrained[np.unique(np.asarray(dataset.train.group))].any():
        raise ValueError("no group is constrained, so nobody has a bound: leave a group out of unconstrained.")
    if not 0 <= how.sparsity < 1:
        raise ValueError(f"sparsity={how.sparsity}: give the share of weights to remove, at least 0 and below 1.")
    if not 0 <= how.prune_epochs < how.epochs:
        raise ValueError(f"prune_epochs={how.prune_epochs}: give at least 0 and fewer than the {how.epochs} epochs.")
    if how.select_on not in ("validation", "train"):
        raise ValueError(f"select_on={how.select_on!r}: choose 'validation' or 'train'.")
    if naive is not None:
        if how.tolerance is None and how.bound.violation is None:
            raise ValueError(
                "naive= without a tolerance: nothing says which network is worse. Give a bound, or leave it out."
            )
        check_naive(naive, dense)
    networks = _identity.abstract_lane((dense.params, dense.model_state))
    check_model(model, dataset, pruned=how.sparsity > 0, networks=networks)
    check_finite(dense.params, dense.seeds, dense.failed_at < 0)


def tune(
    here: Frame, facts: Facts, how: How, bounded: Bounded, solver: Callable[[Lane], Any], begun: tuple[Any, Kept, Lane],
    dense: Networks, *, model: Model, schedule: Any, key: Key | SupportsIndex, phase: str, place: Place,
    save_every: int, show: Callable[..., None], stop: Callable[[], bool], clock: Callable[[], float],
) -> Networks:  # fmt: skip
    """Trains what was begun, epoch by epoch, and gives what is delivered of it."""
    start, kept, lanes_of = begun
    split, draw = _batches(here, facts, bounded.power)
    state = train.fit(
        solver, start, split, keys=keys_of(key, dense.seeds), plan=here.plan, epochs=how.epochs,
        batch_size=here.batch_size, meter=train.group_meter(facts.num_groups), order=draw, num_steps=here.steps,
        average_from=facts.pruned, average_decay=1.0 - 1.0 / here.steps, kept=kept,
        end_epoch=end_epoch(here, facts, how, schedule, bounded.refresh), settings=lanes_of,
        names=[{"phase": phase, "seed": seed} for seed in dense.seeds], record=place.record,
        checkpoints=place.checkpoints, save_every=save_every, show=show, stop=stop, stream=here.stream,
    )  # fmt: skip
    return _delivered(model, dense, state, place.history(), clock())


def _batches(here: Frame, facts: Facts, power: float | None) -> tuple[Batch, Callable[[Key, Any], Any] | None]:
    """The split with the weights of its examples, and who goes into which step; None is a shuffle."""
    if power is None:
        return here.train, None
    sizes: dict[str, Any] = {"batch_size": here.batch_size, "num_steps": here.steps}
    groups: dict[str, Any] = {"group": facts.group, "num_groups": facts.num_groups, "power": power}
    weight = train.balanced_weights(batch_size=here.batch_size, **groups) * np.asarray(here.train.weight, np.float32)
    split = here.train._replace(weight=weight if here.plan.streamed else jnp.asarray(weight))
    return split, lambda key, epoch: train.balanced_order(jax.random.fold_in(key, 1), epoch, **groups, **sizes)


def _delivered(model: Model, dense: Networks, state: train.TrainState, history: Any, seconds: float) -> Networks:
    failed = np.where(dense.failed_at >= 0, dense.failed_at, np.asarray(state.failed_at))
    masks = sparsity.get_masks(state.solver.primal_state)

    def row(network: Any, epoch: Any, averaged: Any, **more: Any) -> Networks:
        return Networks(
            params=network.params, model_state=network.model_state, masks=masks, model=model,
            seeds=dense.seeds, epoch=np.asarray(epoch), averaged=np.asarray(averaged), failed_at=failed, **more,
        )  # fmt: skip

    # Of a lane that failed this is where a call began: no network of this method.
    last = train.network_of(state.solver)
    last = last._replace(params=train.spoilt(last.params, failed >= 0, masks))
    final = np.full(len(dense), len({r["epoch"] for r in history}) - 1)

    def chosen(kept: train.Snapshot, **more: Any) -> Networks:
        # The last stands in where nothing was taken, and for what came from a dense network that failed.
        none = (np.asarray(kept.epoch) < 0) | (dense.failed_at >= 0)
        network = tree.by_lane(none, last, train.Networks(kept.params, kept.model_state))
        epoch = np.where(failed >= 0, -1, final)
        return row(network, np.where(none, epoch, kept.epoch), np.asarray(kept.averaged) & ~none, **more)

    others = {
        "last": row(last, final, np.zeros(len(dense), bool)),
        "stopped": chosen(state.kept.stopped),
    }
    return chosen(state.kept.delivered, iterates=others, history=history, seconds=seconds)


def harmless(
    found: Networks, naive: Networks | None, dense: Networks, dataset: Dataset, how: How, here: Frame
) -> Networks:
    """What is delivered, where there are networks of naive fine-tuning that may be better."""
    if naive is None:
        return found
    return no_worse(
        found, naive, dense, dataset, bound=how.bound, tolerance=how.tolerance,
        predict=lambda networks: here.predict(networks.params, networks.model_state, here.train).label,
    )  # fmt: skip
