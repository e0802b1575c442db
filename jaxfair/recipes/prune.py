"""The main job in a call: from dense networks to sparse ones that keep every group's loss of accuracy under a bound.

Gradual magnitude pruning over the first epochs, then fine-tuning under fixed masks, both as a game between weights and
multipliers. What is delivered is chosen on the training split, in the final 30 % of the epochs: the most accurate
iterate, or moving average of iterates, that met the bound; else the one that violates it least.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
import optax
from jax.sharding import Mesh

from jaxfair import sparsity as sparsity_lib
from jaxfair.data import Dataset
from jaxfair.recipes import _identity
from jaxfair.recipes._bounds import Bound, Facts
from jaxfair.recipes._delivery import How
from jaxfair.recipes._found import after, check_pruner, found, told_facts
from jaxfair.recipes._frame import anywhere, at_least_one, frame, key_facts, keys_of, placed
from jaxfair.recipes._networks import Networks
from jaxfair.recipes._progress import Progress
from jaxfair.recipes._start import begin, game
from jaxfair.recipes._tune import bound_of, check_how, descent_facts, facts_of, harmless, sgd, tune
from jaxfair.typing import Key, Model

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
    mesh: Mesh | None = None,
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
      mesh: as of :func:`dense`.
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
    asked, bound = dict(locals()), bound_of(bound)
    rise = round(0.3 * epochs) if prune_epochs is None else prune_epochs
    by = bound.tolerance if tolerance is None else tolerance
    how = How(sparsity, bound, by, epochs=epochs, prune_epochs=rise, select_on=select_on)
    looked = rise if method != "magnitude" else 0  # epochs before the ones that are followed here
    at_least_one(epochs=epochs, save_every=save_every)
    check_how(how, model, dataset, naive, dense)
    falls = (round(0.7 * epochs),) if decay_epochs is None else tuple(decay_epochs)
    here = frame(
        model, dataset, batch_size=batch_size, lanes=lanes, steps_per_call=steps_per_call,
        eval_batch_size=eval_batch_size, max_data_bytes=max_data_bytes, mesh=mesh,
    )  # fmt: skip
    dense, naive = anywhere(mesh, dense), anywhere(mesh, naive)
    how, facts = after(looked, how, facts_of(model, dataset, here, how, weight_decay=weight_decay, decayed=decayed))
    times = [[(epoch - begun) * here.steps for epoch in falls] for begun in (looked, 0)]
    inner, first_inner = (optimizer or sgd(learning_rate, momentum, at) for at in times)
    schedule = _schedule(0 if looked else sparsity, facts)
    primal = sparsity_lib.prune(inner, schedule, prunable=model.prunable)
    bounded, solver = game(bound, facts, primal, order=order, share=distill, temperature=temperature)
    check_pruner(method, bounded, here, rise, dense, levels or {}, distill=distill, order=order)
    network = _identity.abstract_lane((dense.params, dense.model_state))

    def settings() -> dict[str, Any]:
        return _identity.dataset_facts(dataset, streamed=here.plan.streamed) | {
            **{name: asked[name] for name in ASKED}, "seeds": list(dense.seeds), "dense": dense.digest(),
            **bound.known(dataset.num_groups), "delivered by": how.tolerance, "key": key_facts(key),
            **(told_facts(method, model, network, dataset.train.x, sparsity, levels or {}) if looked else {}),
            **descent_facts(dense, naive, optimizer, decayed if np.any(np.asarray(weight_decay) != 0) else None),
            **_identity.model_facts(model, network, dataset.train.x),
        }  # fmt: skip

    with placed(folder, name or bound.name, settings, progress) as (place, show, clock):
        first = None if not looked else found(
            method, model, here, bounded, dense, sparsity=sparsity, epochs=rise, keys=keys_of(key, dense.seeds),
            optimizer=first_inner, folder=place.checkpoints, levels=levels or {},
        )  # fmt: skip
        begun = begin(here, bounded, solver, dense, teach=np.any(np.asarray(distill) != 0), first=first)
        tuned = tune(
            here, facts, how, bounded, solver, begun, dense, model=model, schedule=schedule, key=key,
            phase=name or bound.name, place=place, save_every=save_every, show=show, stop=stop, clock=clock,
        )  # fmt: skip
    return harmless(tuned, naive, dense, dataset, how, here)


def _schedule(sparsity: float | int, facts: Facts) -> Any:
    if facts.pruned:
        return sparsity_lib.polynomial(sparsity, begin=0, end=facts.pruned, every=facts.steps)
    return sparsity_lib.constant(sparsity, begin=1)
