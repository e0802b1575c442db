"""Few bits in a call: from networks of floats, dense or pruned, to ones at their levels, under a bound on every group.

What is delivered is exactly on its grids, so that `jaxfair.audit.compare` looks at the network that is shipped, and
`jaxfair.quant.save` writes it small. Candidates are judged at their levels, by the rule of `jaxfair.recipes.prune`.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxfair import quant, sparsity, train, tree
from jaxfair.data import Dataset
from jaxfair.recipes import _identity
from jaxfair.recipes._bounds import Bound
from jaxfair.recipes._delivery import How
from jaxfair.recipes._frame import Frame, anywhere, at_least_one, frame, key_facts, placed
from jaxfair.recipes._networks import Networks
from jaxfair.recipes._progress import Progress
from jaxfair.recipes._rounding import check_dense, rounded
from jaxfair.recipes._start import begin, game
from jaxfair.recipes._tune import bound_of, check_how, descent_facts, facts_of, harmless, sgd, tune
from jaxfair.typing import Key, Model, Params

#: How a network may come to its levels.
QUANTIZED = {
    "ptq": "the nearest levels, nothing is trained",
    "qat": "trained at its levels, the gradient straight through",
    "oscillation": "trained as floats, pushed away from their levels, and rounded at the end",
    "rounding": "levels that are chosen layer by layer, each weight making up for others (GPTQ)",
}
#: Nothing is pruned; what was pruned stays so.
STILL = sparsity.constant(0.0, begin=1)
#: A grid for each output of a kernel, symmetric, the largest weight a level.
PER_CHANNEL = quant.Quantizer(granularity=quant.per_channel())
#: What a folder knows of a call as it was made.
ASKED = (
    "method", "bits", "epochs", "batch_size", "learning_rate", "momentum", "decay_epochs", "weight_decay", "order",
    "select_on", "lanes", "steps_per_call", "strength",
)  # fmt: skip


def quantize(
    model: Model,
    dataset: Dataset,
    networks: Networks,
    *,
    bits: Any = 4,
    bound: Bound | Any = None,
    method: str = "ptq",
    tolerance: Any = None,
    naive: Networks | None = None,
    quantizer: quant.Quantizer = PER_CHANNEL,
    quantized: Callable[[str], bool] | None = None,
    strength: Any = 1.0,
    key: Key | SupportsIndex = 0,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float | int = 0.05,
    momentum: float | int = 0.9,
    decay_epochs: Sequence[int] | None = None,
    weight_decay: Any = 0.0,
    decayed: Callable[[str], bool] = lambda path: True,
    optimizer: optax.GradientTransformation | None = None,
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
) -> Networks:
    """Quantises networks, and where it trains, under a bound on what each group loses.

    Args:
      model: the network.
      dataset: on whose training split the bound is kept.
      networks: of :func:`dense` or :func:`prune`, or your own by :func:`networks`: what a group loses is counted from
        how these do, as floats. What their masks prune stays zero.
      bits: b for all weights, or by path.
      bound: as of :func:`prune`; None is without one. ``"rounding"`` under a bound tries rounding under which the
        outputs of no bounded group lose more, and delivers by the bound.
      method: ``"ptq"``, ``"qat"``, ``"oscillation"`` (constraints see floats in a step, and levels after each epoch),
        or ``"rounding"`` of dense kernels, from the inputs on the training split.
      tolerance: as of :func:`prune`.
      naive: what this same call makes without the bound, with the same ``tolerance``; as of :func:`prune`.
      quantizer: how; the steps of learned scales are trained by :func:`jaxfair.quant.quantized` instead.
      quantized: which leaves, from a path; by default :func:`jaxfair.quant.quantizable` ones of two axes and more.
      strength: of ``"oscillation"``, see :func:`jaxfair.quant.add_oscillation`.
      key: that all seeds are folded from.
      epochs: of training.
      batch_size: examples a step.
      learning_rate: of SGD.
      momentum: of SGD.
      decay_epochs: after these epochs the learning rate falls to a tenth; after seven tenths of all by default.
      weight_decay: as of :func:`prune`.
      decayed: which parameters decay, by path.
      optimizer: in place of SGD, any optax transformation.
      order: in which the players move, see `jaxfair.constraints.solver`.
      select_on: ``"validation"`` or ``"train"``, on which ``iterates["stopped"]`` is chosen.
      folder: as of :func:`dense`; what trains nothing is made anew, and keeps nothing.
      name: of this job in the folder and on the screen; method and bound by default, such as ``"qat_ceag"``.
      save_every: epochs between checkpoints.
      progress: whether to show it.
      stop: as of :func:`dense`.
      lanes: as of :func:`dense`.
      steps_per_call: as of :func:`dense`.
      eval_batch_size: as of :func:`dense`.
      max_data_bytes: as of :func:`dense`.
      mesh: as of :func:`dense`.

    Returns:
      The :class:`Networks`, each leaf on the levels of ``grids``; ``iterates`` are other choices from the same run, at
      their levels too, and of ``"rounding"`` the candidates.

    Raises:
      ModelError: for networks that do not fit the model and the data, as of :func:`check_model`.
      ValueError: for bits, a method, a bound or a schedule that cannot be, each in one line.
      FolderError: for a folder with the same job of other settings or from other networks.

    Example:
      >>> from jaxfair import data, models, recipes
      >>> mine, model = data.load("digits"), models.mlp(10, hidden=(16,))
      >>> before = recipes.dense(model, mine, seeds=2, epochs=4, progress=False)
      >>> after = quantize(model, mine, before, bits=4)
      >>> len(np.unique(after.params["Dense_0"]["kernel"][0, :, 0])) <= 15  # of one output
      True
      >>> params, grids = jax.tree.map(lambda leaf: leaf[0], (after.params, after.grids))
      >>> sum(quant.stored_bytes(params, grids).values()), sum(leaf.nbytes for leaf in jax.tree.leaves(params))
      (800, 4840)
    """
    asked, bound = dict(locals()), bound_of(bound)
    by = bound.tolerance if tolerance is None else tolerance
    how = How(0.0, bound, by, epochs=epochs, prune_epochs=0, select_on=select_on)
    at_least_one(epochs=epochs, save_every=save_every)
    check_how(how, model, dataset, naive, networks)
    chosen = _checked(method, bound, networks, bits, quantizer, quantized, naive)
    network = quant.model(model, bits, quantizer=quantizer, quantized=chosen)
    here = frame(
        model, dataset, batch_size=batch_size, lanes=lanes, steps_per_call=steps_per_call,
        eval_batch_size=eval_batch_size, max_data_bytes=max_data_bytes, mesh=mesh,
    )  # fmt: skip
    networks, naive = anywhere(mesh, networks), anywhere(mesh, naive)
    grids = functools.partial(quant.grids, bits=bits, quantizer=quantizer, quantized=chosen)
    if method == "ptq":
        return _at_levels(_untrained(networks, model), grids, networks.masks)
    if method == "rounding":
        found = rounded(
            model, dataset, _untrained(networks, model), networks, how, grids=grids, quantized=chosen,
            predict=lambda of: here.predict(of.params, of.model_state, here.train).label, batch_size=eval_batch_size,
        )  # fmt: skip
        return harmless(found, naive, networks, dataset, how, here)

    seen = network if method == "qat" else model
    facts = facts_of(seen, dataset, here, how, weight_decay=weight_decay, decayed=decayed)
    falls = (round(0.7 * epochs),) if decay_epochs is None else tuple(decay_epochs)
    inner = optimizer or sgd(learning_rate, momentum, [epoch * here.steps for epoch in falls])
    if method == "oscillation":
        inner = optax.chain(quant.add_oscillation(strength, bits, quantizer=quantizer, quantized=chosen), inner)
    primal = sparsity.prune(inner, STILL, prunable=_masked(networks, model))
    bounded, solver = game(bound, facts, primal, order=order, share=0.0, temperature=1.0)
    phase = name or f"{method}_{bound.name}"

    def settings() -> dict[str, Any]:
        lane = _identity.abstract_lane((networks.params, networks.model_state))
        return _identity.dataset_facts(dataset, streamed=here.plan.streamed) | {
            **{name: asked[name] for name in ASKED}, "seeds": list(networks.seeds), "networks": networks.digest(),
            **bound.known(dataset.num_groups), "delivered by": how.tolerance, "key": key_facts(key),
            **descent_facts(networks, naive, optimizer, decayed if np.any(np.asarray(weight_decay) != 0) else None),
            **_identity.model_facts(network, lane, dataset.train.x),
        }  # fmt: skip

    with placed(folder, phase, settings, progress) as (place, show, clock):
        begun = begin(here, bounded, solver, networks, teach=False)
        tuned = tune(
            _judging(here, network, eval_batch_size), facts, how, bounded, solver, begun, networks, model=model,
            schedule=STILL, key=key, phase=phase, place=place, save_every=save_every, show=show, stop=stop, clock=clock,
        )  # fmt: skip
    return harmless(_at_levels(tuned, grids, networks.masks), naive, networks, dataset, how, here)


def _checked(
    method: str, bound: Bound, networks: Networks, bits: Any, quantizer: Any, quantized: Any, naive: Networks | None
) -> Callable[[str], bool]:
    """Which leaves are quantised, where everything that was asked for can be; from shapes alone."""
    if method not in QUANTIZED:
        raise ValueError(f"method={method!r}: choose one of {', '.join(QUANTIZED)}.")
    if method == "ptq" and (bound.name != "nft" or naive is not None):
        raise ValueError(
            f"bound={bound.name} with method='ptq', which trains nothing and keeps no bound: choose 'qat', "
            "'oscillation' or 'rounding'."
        )
    if naive is not None and naive.grids is None:
        raise ValueError("naive= has no levels: give networks of recipes.quantize, of the same bits.")
    if quantizer.checked().scale.learned:
        raise ValueError("learned steps are trained by quant.quantized: give another scale, such as quant.extremes.")
    lane = _identity.abstract_lane(networks.params)
    paths = dict(zip(tree.paths(lane), (leaf.ndim for leaf in jax.tree.leaves(lane)), strict=True))

    def matrices(path: str) -> bool:
        return quant.quantizable(path) and paths[path] >= 2

    chosen = matrices if quantized is None else quantized
    jax.eval_shape(lambda params: quant.grids(params, bits, quantizer=quantizer, quantized=chosen), lane)
    if method == "rounding":
        check_dense(lane, chosen)
    return chosen


def _untrained(networks: Networks, model: Model) -> Networks:
    """The same, exactly zero where they are pruned, without what was told of their training."""
    params = networks.params
    if networks.masks is not None:
        params = jax.vmap(sparsity.apply_masks)(params, networks.masks)
    return dataclasses.replace(
        networks, params=params, model=model, iterates={}, history=(), seconds=0.0, grids=None,
        naive=np.zeros(len(networks), bool),
    )  # fmt: skip


def _masked(networks: Networks, model: Model) -> Callable[[str], bool]:
    """The leaves that have masks, whether the model calls them prunable or not; those that may have, where none has."""
    axes = (
        {}
        if networks.masks is None
        else dict(zip(tree.paths(networks.masks), jax.tree.leaves(networks.masks), strict=True))
    )
    there = {path for path, mask in axes.items() if np.ndim(mask) > 1}
    return there.__contains__ if there else model.prunable


def _judging(here: Frame, network: Model, batch_size: int) -> Frame:
    """The frame that looks at networks at their levels."""
    return here._replace(predict=train.predictor(network.apply, here.plan, batch_size=batch_size))


def _at_levels(networks: Networks, grids: Callable[[Params], Any], masks: Any) -> Networks:
    """The networks and their iterates rounded to the nearest levels, with the grids and the masks that they had."""

    @jax.jit
    @jax.vmap
    def levels(params: Params) -> tuple[Params, Any]:
        own = grids(params)
        return quant.quantize_params(params, own), own

    def one(of: Networks) -> Networks:
        params, own = levels(jax.tree.map(jnp.asarray, of.params))
        others = {name: one(other) for name, other in of.iterates.items()}
        return dataclasses.replace(of, params=params, grids=own, masks=masks, iterates=others)

    return one(networks)
