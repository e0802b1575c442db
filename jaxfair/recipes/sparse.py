"""Sparse training by any method, at the same length: from a fresh network or a trained one to one with exact zeros.

What is pruned when is said by :func:`pruner`; masks at once are taken before the first step, and FairGRAPE prunes in
rounds over the same stretch as the gradual methods, each by the importances of a few batches. BiP and BiFP move masks
and weights at every step, each on a half of its batch, under the budget from the first step on.

All of them see the same examples. Beside the networks comes what their training cost, with the masks as they were at
every step: methods that are sparse from the start are cheaper.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import bilevel, constraints, train, tree
from jaxfair import sparsity as sparsity_lib
from jaxfair.recipes._levels import TWO_LEVELS, two_levels, weights_part, with_masks
from jaxfair.recipes._rounds import prune_round, stages
from jaxfair.recipes.pruner import STRAIGHT, pruner
from jaxfair.typing import Batch, Key, Model, ModelState, Params


class Sparse(NamedTuple):
    """Networks that were trained to be sparse, and how dense they were on the way.

    Attributes:
      params: ``[S, ...]``, exactly 0 where pruned; nan elsewhere in a network that failed, which is right about nobody.
      model_state: ``[S, ...]``, such as BatchNorm statistics.
      masks: ``[S, ...]``, True = kept; None of a dense network.
      densities: ``[S, T', L]``, the share of living weights of each leaf at each step. T' is T, and for FairGRAPE the
        steps that its importances are worth beside it.
      dense_gradient: ``[T']`` bool, at which of them the gradient of pruned weights was needed, too.
      cost: ``[S]``, multiply-adds of the training, with the masks as they were at every step. FairGRAPE's importances
        are counted; scores and masks that are taken once are not.
      failed_at: ``[S]`` int32, the step whose loss was not finite; -1 where there was none.
      watched: ``[S, epochs, W]``, what ``watch`` saw before each epoch; None without.
      soft: ``[S, ...]``, of relaxed masks the parameters as the network saw them at the end, before masks were made
        binary; else None.
    """

    params: Params
    model_state: ModelState
    masks: Any
    densities: np.ndarray
    dense_gradient: np.ndarray
    cost: list[float]
    failed_at: jax.Array
    watched: np.ndarray | None = None
    soft: Params | None = None


def sparse(
    method: str,
    model: Model,
    split: Batch,
    sparsity: Any,
    *,
    optimizer: optax.GradientTransformation,
    keys: Key,
    start: tuple[Params, ModelState],
    epochs: int,
    batch_size: int,
    mask_keys: Key | None = None,
    plan: train.Plan | None = None,
    split_axes: Batch = train.SHARED,
    few: Batch | None = None,
    num_groups: int = 0,
    keep: float = 0.75,
    batches: int = 4,
    rounds: int = 100,
    problem: constraints.Problem | None = None,
    dual: optax.GradientTransformation | None = None,
    reference: constraints.Outcomes | None = None,
    masks: Any = None,
    levels: Mapping[str, Any] | None = None,
    held_out: int = 0,
    watch: Callable[[Params, ModelState], jax.Array] | None = None,
    **options: Any,
) -> Sparse:
    """Trains networks side by side that are sparse at the end.

    Args:
      method: of `SPARSE`, or of `LEVELS`: ``"bip"``, ``"bifp"``, and ``"given"`` for masks that are there.
      model: the network.
      split: the training split.
      sparsity: the share of zeros at the end, of the prunable leaves.
      optimizer: of the living weights, for all steps: epochs times the full batches of a pass.
      keys: ``[S]``; the order of the examples follows from them.
      start: ``(params, model_state)``, ``[S, ...]``, fresh or trained.
      epochs: passes over the split.
      batch_size: B.
      mask_keys: ``[S]``, of what is drawn in masks; the keys folded by 4 by default.
      plan: of :func:`jaxfair.train.plan`.
      split_axes: a `Batch` of 0 for the arrays of the split that every lane has of its own, else None.
      few: for masks at once, a batch with equally many examples of every class, ``[S, B, ...]``.
      num_groups: G, for FairGRAPE.
      keep: the share of the living that a round of FairGRAPE keeps.
      batches: that its importances are averaged over.
      rounds: of SynFlow.
      problem: constraints of the training, such as :func:`jaxfair.constraints.excess_accuracy_gap`, for methods whose
        optimizer prunes by itself, BiFP, and given masks; none by default.
      dual: the optimizer of its multipliers.
      reference: what the dense networks make of the training split, ``[S, N]``.
      masks: ``[S, ...]``, of the method ``"given"``.
      levels: keyword arguments of :func:`jaxfair.bilevel.bifp`, for BiP and BiFP: ``masks``, the optimizer of the
        scores, ``gamma``, ``weight_decay``, ``structure``, ``fair``, ...
      held_out: of BiP and BiFP: so many people at the end of the split are for the masks only, and the others for the
        weights; 0 shares all of them.
      watch: ``watch(params, model_state) -> [W]``, asked before each epoch of the network as it is then.
      **options: further ones of :func:`jaxfair.train.fit`: ``show``, ``stop``.

    Returns:
      The networks.

    Raises:
      ValueError: for a method that is not there, one that goes with no constraints, or masks at once without ``few``.

    Example:
      >>> from jaxfair import data, models
      >>> digits, model = data.load("digits"), models.mlp(10, hidden=(16, 16))
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> start = jax.vmap(lambda key: model.init(key, digits.train.x[:1]))(keys)
      >>> found = sparse("rigl", model, digits.train, 0.9, optimizer=optax.sgd(0.1), keys=keys, start=start,
      ...                epochs=2, batch_size=64)
      >>> masks = [found.masks[layer]["kernel"][0] for layer in ("Dense_0", "Dense_1")]
      >>> sum(int(mask.sum()) for mask in masks), sum(mask.size for mask in masks), found.densities.shape
      (128, 1280, (2, 38, 6))
    """
    plan, told = train.Plan() if plan is None else plan, levels or {}
    people = len(split.y) if split_axes.y is None else split.y.shape[1]
    a_pass = people // batch_size
    steps = epochs * a_pass
    _check(method, problem, few, num_groups, masks, held_out)

    def made(key: Key) -> Any:
        if method in TWO_LEVELS:
            return two_levels(method, model, sparsity, optimizer, problem, dual, told)
        tx = pruner(method, optimizer, sparsity, steps=steps, prunable=model.prunable, key=key)
        if problem is None:
            return train.descent(model.apply, tx, at=_masked if method in STRAIGHT else None)
        return constraints.solver(problem, primal=tx, dual=dual)

    def begin(params: Params, state: ModelState, key: Key, few: Any, outcomes: Any, masks: Any, *labels: Any) -> Any:
        if problem is not None:
            state = problem.init(state, outcomes, Batch(*labels))
        begun = made(key).init(params, state)
        if method in sparsity_lib.AT_ONCE:
            masks = sparsity_lib.at_once(method, model, params, state, few.x, few.y, sparsity, rounds=rounds)
            begun = begun._replace(opt_state=begun.opt_state._replace(masks=masks))
        if method == "given":
            begun = with_masks(begun, masks)
        if method in (*STRAIGHT, "dense", *TWO_LEVELS):
            return begun
        return begun._replace(params=_masked(params, begun))

    mask_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 4) if mask_keys is None else mask_keys
    # The start of constraints reads groups and weights only.
    labels = split._replace(x=split.y), split_axes._replace(x=split_axes.y)
    lifted = plan.lift(begin, (0, 0, 0, 0, 0, 0, *labels[1]))
    state = lifted(*start, mask_keys, few, reference, masks, *labels[0])
    see = None if method == "dense" else _mixed if method in TWO_LEVELS else _masked
    of_weights = weights_part(batch_size, people - held_out, told) if held_out else batch_size
    following = functools.partial(_order, people, batch_size, epochs, held_out, of_weights)
    pieces, looks, failed, first = [], [], [], 0
    for last, pruned in stages(method, sparsity, steps, keep):
        found, seen, looked = _trained(
            made(jax.random.key(0)), state, split, following(first, last), last - first, keys=keys, plan=plan,
            batch_size=batch_size, split_axes=split_axes, see=see, watch=watch, a_pass=a_pass, **options,
        )  # fmt: skip
        state = found.solver
        pieces.append(seen)
        looks.append(looked)
        failed.append(found.failed_at)
        if pruned:
            # The price of the importances: as many passes over these batches as there are groups.
            pieces.append(np.repeat(seen[:, -1:], num_groups * batches, axis=1))
            order = plan.lift(following(last, last + batches), (0, None))(keys, 0)
            state = prune_round(model, plan, state, split, split_axes, order, num_groups, pruned)
        first = last
    shape = batch_size, *(split.x.shape[1:] if split_axes.x is None else split.x.shape[2:])
    failed_at = functools.reduce(lambda a, b: jnp.where(a >= 0, a, b), failed)
    network = plan.lift(made(jax.random.key(0)).network) if method in TWO_LEVELS else None
    ended = _finished(method, model, state, np.concatenate(pieces, axis=1), sparsity, steps, shape, failed_at, network)
    soft = jax.vmap(bilevel.masked)(state.masks, state.params) if told.get("relaxed") else None
    return ended._replace(watched=None if watch is None else np.concatenate(looks, axis=1)[:, ::a_pass], soft=soft)


def _check(method: str, problem: Any, few: Any, num_groups: int, masks: Any, held_out: int) -> None:
    """Raises for what does not go together."""
    if method == "bifp" and problem is None:
        raise ValueError("method='bifp' takes problem=, what the network is to keep; without one it is 'bip'")
    if held_out and method not in TWO_LEVELS:
        raise ValueError(f"held_out={held_out}: of {method!r} nobody is held out; that is for BiP and BiFP")
    if (method == "given") != (masks is not None):
        raise ValueError("masks= are for method='given', and it takes them")
    if problem is not None and method in (*STRAIGHT, *sparsity_lib.AT_ONCE, "fairgrape", "bip"):
        raise ValueError(f"method={method!r} does not go with constraints: use magnitude")
    if method == "fairgrape" and num_groups < 1:
        raise ValueError(f"num_groups={num_groups}: FairGRAPE takes the number of groups")
    if few is None and method in sparsity_lib.AT_ONCE:
        raise ValueError(f"method={method!r} takes few=, a batch for its scores")


def _finished(
    method: str, model: Model, state: Any, densities: np.ndarray, sparsity: Any, steps: int,
    shape: tuple[int, ...], failed_at: jax.Array, network: Callable[[Any], Any] | None,
) -> Sparse:  # fmt: skip
    """The networks of the last state, and what they cost on batches of this shape."""
    params, model_state = train.network_of(state)
    if network is not None:
        params, masks = network(state)
    else:
        masks = None if method == "dense" else sparsity_lib.get_masks(state)
    if method in STRAIGHT:
        params = jax.vmap(sparsity_lib.apply_masks)(params, masks)

    # A lane that failed stands where it began: that is no network of this method.
    params = train.spoilt(params, failed_at >= 0, masks)
    dense_gradient = np.full(densities.shape[1], method in (*STRAIGHT, *TWO_LEVELS))
    if method == "rigl":  # update number t, from 0, exchanges where t + 1 is scheduled
        every, end = max(1, steps // 40), 3 * steps // 4
        exchanged = np.array(sparsity_lib.periodic(sparsity, every=every, end=end).steps[1:])
        dense_gradient[exchanged - 1] = True
    cost = _cost(model, shape, densities, dense_gradient)
    return Sparse(params, model_state, masks, densities, dense_gradient, cost, failed_at)


def _masked(params: Params, state: Any) -> Params:
    return sparsity_lib.apply_masks(params, sparsity_lib.get_masks(state))


def _mixed(params: Params, state: Any) -> Params:
    return bilevel.masked(state.masks, params)


def _order(
    people: int, batch_size: int, epochs: int, held_out: int, size: int, first: int, last: int
) -> Callable[..., Any]:
    """``order(key, _) -> [T', B]``: the examples of some of the steps; the held out behind ``size`` others in each."""
    a_pass = people // batch_size
    # Of those who are not held out there may be more than an epoch has places for.
    drawn = max(a_pass, (people - held_out) // size)
    one = functools.partial(train.epoch_order, num_examples=people - held_out, batch_size=size, num_steps=drawn)

    def order(key: Key, _: Any) -> jax.Array:
        every = jax.vmap(one, (None, 0))(key, jnp.arange(epochs))[:, :a_pass].reshape(epochs * a_pass, size)
        if held_out:
            shape = epochs * a_pass, batch_size - size
            others = jax.random.randint(jax.random.fold_in(key, 7), shape, people - held_out, people, every.dtype)
            every = jnp.concatenate([every, others], axis=1)
        return every[first:last]

    return order


def _trained(
    solver: Any,
    state: Any,
    split: Batch,
    order: Any,
    steps: int,
    *,
    see: Callable[[Params, Any], Params] | None,
    watch: Callable[..., jax.Array] | None,
    a_pass: int,
    **options: Any,
) -> tuple[train.TrainState, np.ndarray, np.ndarray]:
    """Some steps, the densities at each, ``[S, T', L]``, and what was watched before the first of each pass."""
    leaves, lanes = len(jax.tree.leaves(state.params)), []
    example = jax.tree.map(lambda a: a[0], train.network_of(state))
    width = 0 if watch is None else jax.eval_shape(watch, *example).size

    def density(state: Any) -> jax.Array:
        if see is None:
            return jnp.ones(leaves)
        masks = jax.tree.leaves(sparsity_lib.get_masks(state))
        return jnp.stack([jnp.mean(mask != 0, dtype=jnp.float32) for mask in masks])

    def seen(state: Any) -> jax.Array:
        assert watch is not None
        params, model_state = train.network_of(state)
        return watch(params if see is None else see(params, state), model_state)

    def look(state: Any, _: Any) -> jax.Array:
        if watch is None:
            return density(state)
        watched = tree.cond_any(state.step % a_pass == 0, seen, lambda state: jnp.zeros(width), state)
        return jnp.concatenate([density(state), watched])

    def end_epoch(state: train.TrainState, _: int, values: Mapping[str, Any]) -> train.Epoch:
        lanes.append(np.asarray(values["looks"]))
        return train.Epoch(state, {})

    meter = train.trace("looks", look, (leaves + width,), steps)
    found = train.fit(
        solver, state, split, order=order, epochs=1, num_steps=steps, meter=meter, end_epoch=end_epoch, **options
    )  # fmt: skip
    looks = np.concatenate(lanes)
    return found, looks[..., :leaves], looks[..., leaves:]


def _cost(model: Model, shape: Any, densities: np.ndarray, dense_gradient: Any) -> list[float]:
    """Multiply-adds of each network's training on batches of this shape."""
    report = sparsity_lib.cost_report(model, jax.ShapeDtypeStruct(shape, jnp.float32))
    # A column of ones, for products without weights.
    padded = np.pad(densities, ((0, 0), (0, 0), (0, 1)), constant_values=1)
    return [sparsity_lib.training_cost(report, d, dense_gradient=dense_gradient) for d in padded]
