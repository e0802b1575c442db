"""The main job in a call: from dense networks to sparse ones that keep every group's loss of accuracy under a bound.

Gradual magnitude pruning over the first epochs, then fine-tuning under fixed masks, both as a game between weights and
multipliers. What is delivered is chosen on the training split, in the final 30 % of the epochs: the most accurate
iterate, or moving average of iterates, that met the bound; else the one that violates it least.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import sparsity as sparsity_lib
from jaxfair import train
from jaxfair.data import Dataset
from jaxfair.recipes import _bounds, _churn, _identity
from jaxfair.recipes._bounds import Bound, Facts, free
from jaxfair.recipes._delivery import How, end_epoch
from jaxfair.recipes._found import after, check_pruner, found, told_facts
from jaxfair.recipes._frame import Frame, at_least_one, frame, key_facts, keys_of, placed
from jaxfair.recipes._networks import Networks
from jaxfair.recipes._progress import Progress
from jaxfair.recipes._start import begin, facts_of, game
from jaxfair.recipes.check_model import check_finite, check_model
from jaxfair.recipes.no_worse import check_naive, no_worse
from jaxfair.typing import Batch, Key, Model

#: What a folder knows of a call as it was made.
ASKED = (
    "sparsity", "epochs", "prune_epochs", "batch_size", "learning_rate", "momentum", "decay_epochs", "weight_decay",
    "order", "distill", "temperature", "select_on", "lanes", "steps_per_call",
)  # fmt: skip


def prune(
    model: Model,
    dataset: Dataset,
    dense: Networks,
    *,
    sparsity: float | int,
    method: str = "magnitude",
    bound: Bound | Any = None,
    tolerance: Any = None,
    naive: Networks | None = None,
    key: Key | SupportsIndex = 0,
    epochs: int = 50,
    prune_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float | int = 0.05,
    momentum: float | int = 0.9,
    decay_epochs: Sequence[int] | None = None,
    weight_decay: Any = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
    optimizer: optax.GradientTransformation | None = None,
    distill: Any = 0.0,
    temperature: Any = 2.0,
    order: str = "dual_primal",
    select_on: str = "validation",
    folder: str | os.PathLike[str] | None = None,
    name: str | None = None,
    save_every: int = 10,
    progress: Progress | bool = True,
    stop: Callable[[], bool] = lambda: False,
    lanes: str = "auto",
    steps_per_call: int = 0,
    eval_batch_size: int = 2048,
    max_data_bytes: int = 4_000_000_000,
    levels: Mapping[str, Any] | None = None,
) -> Networks:
    """Prunes networks gradually and fine-tunes them, under a bound on what each group loses.

    Args:
      model: the network; its ``prunable`` says which weights may go.
      dataset: on whose training split the bound is kept.
      dense: of :func:`dense`, or your own by :func:`networks`: what a group loses is counted from how these do. What
        their masks prune stays so.
      sparsity: share of the prunable weights that is removed, at least 0 and below 1.
      method: ``"magnitude"``: the smallest go, gradually, the same share of every layer. ``"bip"``, ``"bifp"``: masks
        and weights are found together, all layers compared, without or under the bound (:mod:`jaxfair.bilevel`); then
        they are trained on, with multipliers and a schedule in ``optimizer=`` that begin again. A run that was killed
        while it looked for masks begins again with that.
      bound: :func:`ceag`, :func:`accuracy_gap`, :func:`churn`, :func:`ceag_published`, :func:`equalized_loss`,
        :func:`rates`; None fine-tunes without one.
      tolerance: on the excess accuracy gap (of :func:`accuracy_gap`: on a group's own), by which the delivered network
        is chosen; the bound's own by default, and without a bound none: then it is the last moving average.
      naive: what this same call makes without the bound, with the same ``tolerance``; where the network of a seed would
        be worse than these in both the largest gap and the accuracy on train, it is delivered (:func:`no_worse`).
      key: that all seeds are folded from.
      epochs: of pruning and fine-tuning together.
      prune_epochs: the sparsity rises, or masks are found, over these first epochs; three tenths of all by default.
      batch_size: examples a step.
      learning_rate: of SGD.
      momentum: of SGD.
      decay_epochs: after these epochs the learning rate falls to a tenth; after seven tenths of all by default.
      weight_decay: half of it times the squared norm of the parameters is added to the loss.
      decayed: which parameters decay, by path.
      optimizer: in place of SGD, any optax transformation, around which the pruner goes.
      distill: share of the loss that follows the dense network's softened predictions, in place of the labels; see
        :func:`jaxfair.constraints.distillation`. The bound is on what is right all the same.
      temperature: by which they are softened.
      order: in which the players move, see `jaxfair.constraints.solver`.
      select_on: ``"validation"`` or ``"train"``, on which ``iterates["stopped"]`` is chosen; the last iterate, where it
        has nobody.
      folder: as of :func:`dense`.
      name: of this job in the folder and on the screen; the bound's by default.
      save_every: epochs between checkpoints.
      progress: whether to show it.
      stop: as of :func:`dense`.
      lanes: as of :func:`dense`.
      steps_per_call: as of :func:`dense`.
      eval_batch_size: as of :func:`dense`.
      max_data_bytes: as of :func:`dense`.
      levels: of BiP and BiFP, in place of the recipe's: ``masks``, the optimizer of the scores, ``gamma``,
        ``weight_decay``, ``hypergradient``, ``relaxed``, ``fair``, ``structure``, ... of `jaxfair.bilevel.bifp`.

    Returns:
      The delivered :class:`Networks`, exactly zero where pruned; ``iterates`` has other choices from the same run, and
      ``naive`` says whose place a network of ``naive=`` took. A network that failed, or whose dense one did, has a
      ``failed_at``; where there was nothing to deliver before that, its weights are nan, and it is right about nobody.

    Raises:
      ModelError: for networks that do not fit the model and the data, as of :func:`check_model`.
      ValueError: for a sparsity, a bound, a schedule or batches that cannot be.
      FolderError: for a folder with the same job of other settings or from other networks.

    Example:
      >>> from jaxfair import data, models, recipes
      >>> mine, model = data.load("digits"), models.mlp(10, hidden=(16,))
      >>> before = recipes.dense(model, mine, seeds=2, epochs=4, progress=False)
      >>> after = prune(model, mine, before, sparsity=0.5, bound=recipes.ceag(0.05), epochs=4, progress=False)
      >>> after
      Networks(2 networks of 1,210 parameters, ... of them 0)
      >>> bool((after.predict(mine.test) == mine.test.y).mean() > 0.5)
      True

    References:
      Hashemizadeh et al., `Balancing Act <https://arxiv.org/abs/2310.20673>`_, 2024; Zhu and Gupta, `To Prune, or
      Not to Prune <https://arxiv.org/abs/1710.01878>`_, 2017, for the schedule.
    """
    asked, bound = dict(locals()), _bound(bound)
    rise = round(0.3 * epochs) if prune_epochs is None else prune_epochs
    by = bound.tolerance if tolerance is None else tolerance
    how = How(sparsity, bound, by, epochs=epochs, prune_epochs=rise, select_on=select_on)
    looked = rise if method != "magnitude" else 0  # epochs before the ones that are followed here
    at_least_one(epochs=epochs, save_every=save_every)
    _check(how, model, dataset, naive, dense)
    falls = (round(0.7 * epochs),) if decay_epochs is None else tuple(decay_epochs)
    here = frame(
        model, dataset, batch_size=batch_size, lanes=lanes, steps_per_call=steps_per_call,
        eval_batch_size=eval_batch_size, max_data_bytes=max_data_bytes,
    )  # fmt: skip
    how, facts = after(looked, how, facts_of(model, dataset, here, how, weight_decay=weight_decay, decayed=decayed))
    times = [[(epoch - begun) * here.steps for epoch in falls] for begun in (looked, 0)]
    inner, first_inner = (optimizer or _sgd(learning_rate, momentum, at) for at in times)
    schedule = _schedule(0 if looked else sparsity, facts)
    primal = sparsity_lib.prune(inner, schedule, prunable=model.prunable)
    bounded, solver = game(bound, facts, primal, order=order, share=distill, temperature=temperature)
    check_pruner(method, bounded, here, rise, dense, distill=distill, order=order)
    network = _identity.abstract_lane((dense.params, dense.model_state))

    def settings() -> dict[str, Any]:
        return _identity.dataset_facts(dataset, streamed=here.plan.streamed) | {
            **{name: asked[name] for name in ASKED}, "seeds": list(dense.seeds), "dense": dense.digest(),
            "bound": bound.name, **bound.settings, "delivered by": how.tolerance, "key": key_facts(key),
            **(told_facts(method, model, network, dataset.train.x, sparsity, levels or {}) if looked else {}),
            **_descent_facts(dense, naive, optimizer, decayed if np.any(np.asarray(weight_decay) != 0) else None),
            **_identity.model_facts(model, network, dataset.train.x),
        }  # fmt: skip

    with placed(folder, name or bound.name, settings, progress) as (place, show, clock):
        first = None if not looked else found(
            method, model, here, bounded, dense, sparsity=sparsity, epochs=rise, keys=keys_of(key, dense.seeds),
            optimizer=first_inner, folder=place.checkpoints, levels=levels or {},
        )  # fmt: skip
        start, kept, lanes_of = begin(here, bounded, solver, dense, teach=np.any(np.asarray(distill) != 0), first=first)
        split, draw = _batches(here, facts, bounded.power)
        state = train.fit(
            solver, start, split, keys=keys_of(key, dense.seeds), plan=here.plan, epochs=how.epochs,
            batch_size=here.batch_size, meter=train.group_meter(facts.num_groups), order=draw, num_steps=here.steps,
            average_from=facts.pruned, average_decay=1.0 - 1.0 / here.steps, kept=kept,
            end_epoch=end_epoch(here, facts, how, schedule, bounded.refresh), settings=lanes_of,
            names=[{"phase": name or bound.name, "seed": seed} for seed in dense.seeds], record=place.record,
            checkpoints=place.checkpoints, save_every=save_every, show=show, stop=stop, stream=here.stream,
        )  # fmt: skip
        made = _delivered(model, dense, state, place.history(), clock())
    return _harmless(made, naive, dense, dataset, how, here)


def _sgd(learning_rate: float | int, momentum: float | int, falls: Sequence[int]) -> optax.GradientTransformation:
    rate = optax.piecewise_constant_schedule(learning_rate, dict.fromkeys(falls, 0.1))
    return optax.sgd(rate, momentum=momentum or None)


def _descent_facts(
    dense: Networks, naive: Networks | None, optimizer: Any, decayed: Callable[[str], bool] | None
) -> dict[str, Any]:
    """The optimizer, what decays, and what may be delivered instead, as a folder knows them."""
    params, _ = _identity.abstract_lane((dense.params, dense.model_state))
    return {
        "decayed": _identity.paths(params, decayed) if decayed else [],
        "optimizer": _identity.of_optimizer(optimizer, params) if optimizer else "sgd",
        **({} if naive is None else {"naive": naive.digest()}),
    }


def _bound(given: Any) -> Bound:
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


def _check(how: How, model: Model, dataset: Dataset, naive: Networks | None, dense: Networks) -> None:
    for given in (how.tolerance, how.bound.tolerance):
        if given is not None and not np.all((np.asarray(given) >= 0) & (np.asarray(given) <= 1)):
            raise ValueError(f"tolerance={given}: give a share of 1, at least 0 and at most 1; 0.01 is one point.")
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


def _schedule(sparsity: float | int, facts: Facts) -> Any:
    if facts.pruned:
        return sparsity_lib.polynomial(sparsity, begin=0, end=facts.pruned, every=facts.steps)
    return sparsity_lib.constant(sparsity, begin=1)


def _batches(here: Frame, facts: Facts, power: float | None) -> tuple[Batch, Callable[[Key, Any], Any]]:
    """The split with the weights of its examples, and who goes into which step."""
    sizes: dict[str, Any] = {"batch_size": here.batch_size, "num_steps": here.steps}
    if power is None:
        return here.train, lambda key, epoch: train.epoch_order(
            jax.random.fold_in(key, 1), epoch, num_examples=len(facts.group), **sizes
        )
    groups: dict[str, Any] = {"group": facts.group, "num_groups": facts.num_groups, "power": power}
    weight = train.balanced_weights(batch_size=here.batch_size, **groups) * np.asarray(here.train.weight, np.float32)
    split = here.train._replace(weight=weight if here.plan.streamed else jnp.asarray(weight))
    return split, lambda key, epoch: train.balanced_order(jax.random.fold_in(key, 1), epoch, **groups, **sizes)


def _delivered(model: Model, dense: Networks, state: train.TrainState, history: Any, seconds: float) -> Networks:
    failed = np.where(dense.failed_at >= 0, dense.failed_at, np.asarray(state.failed_at))
    masks = sparsity_lib.get_masks(state.solver.primal_state)

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
        network = jax.tree.map(
            lambda a, b: jnp.where(none.reshape(-1, *[1] * (a.ndim - 1)), b, a),
            train.Networks(kept.params, kept.model_state), last,
        )  # fmt: skip
        epoch = np.where(failed >= 0, -1, final)
        return row(network, np.where(none, epoch, kept.epoch), np.asarray(kept.averaged) & ~none, **more)

    others = {
        "last": row(last, final, np.zeros(len(dense), bool)),
        "stopped": chosen(state.kept.stopped),
    }
    return chosen(state.kept.delivered, iterates=others, history=history, seconds=seconds)


def _harmless(
    found: Networks, naive: Networks | None, dense: Networks, dataset: Dataset, how: How, here: Frame
) -> Networks:
    """What is delivered, where there are networks of naive fine-tuning that may be better."""
    if naive is None:
        return found
    return no_worse(
        found, naive, dense, dataset, bound=how.bound, tolerance=how.tolerance,
        predict=lambda networks: here.predict(networks.params, networks.model_state, here.train).label,
    )  # fmt: skip
