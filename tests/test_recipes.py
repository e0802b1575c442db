"""The main job in a call: the bounds hold, runs go on where they stopped, and networks of any library go through."""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxfair import constraints, data, metrics, models, recipes, sparsity, study, train
from jaxfair.constraints import rates
from jaxfair.recipes import _ascent
from jaxfair.recipes._judged import judge
from jaxfair.typing import Model

pytestmark = pytest.mark.usefixtures("compiled_once")
QUIET: Any = {"progress": False}
SHORT: Any = {"epochs": 4, "prune_epochs": 2, "batch_size": 32, **QUIET}


@functools.cache
def people():
    """A small planted set: two classes, three groups, one of them rare."""
    rng = np.random.default_rng(0)
    group = rng.choice(["north", "south", "west"], 600, p=[0.5, 0.4, 0.1])
    x = rng.normal(size=(600, 8))
    y = (x[:, 0] + np.where(group == "south", x[:, 1], -x[:, 2]) > 0).astype(int)
    return data.dataset(x, y, group, name="people")


def mlp():
    return models.mlp(2, hidden=(16,))


@functools.cache
def before():
    return recipes.dense(mlp(), people(), seeds=2, epochs=6, batch_size=32, **QUIET)


@pytest.mark.slow
def test_what_is_delivered_is_exactly_sparse_and_one_of_the_iterates():
    after = recipes.prune(mlp(), people(), before(), sparsity=0.9, bound=recipes.ceag(0.05), **SHORT)  # fmt: skip
    assert len(after) == 2
    kernel, mask = after.params["Dense_0"]["kernel"], after.masks["Dense_0"]["kernel"]
    assert (~mask).sum(axis=(1, 2)).tolist() == [int(np.ceil(0.9 * 8 * 16))] * 2
    np.testing.assert_array_equal(np.asarray(kernel)[~np.asarray(mask)], 0.0)
    assert (after.epoch >= 2).all()
    assert set(after.iterates) == {"last", "stopped"}
    rows = [row for row in after.history if row["seed"] == 1]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    # The gap that was written down is the gap of what was delivered, on the training split.
    taken = rows[int(after.epoch[1])]
    which = "average" if after.averaged[1] else "last"
    split, model = people().train, mlp()
    correct = [metrics.correct(jnp.asarray(net.predict(split)[1]), split.y) for net in (before(), after)]
    gaps = metrics.accuracy_gaps(*correct, split.group, 3)
    assert float(gaps.max_excess) == pytest.approx(taken[f"{which}_train_gap"], abs=1e-6)
    assert float(correct[1].mean()) == pytest.approx(taken[f"{which}_train_accuracy"], abs=1e-6)
    del model


@functools.cache
def weighted():
    """The same people, of whom those of the south count five times as much, and some not at all."""
    mine, rng = people(), np.random.default_rng(1)
    splits = {
        name: split._replace(
            weight=(rng.choice([0, 1, 1], len(split.y)) * np.where(split.group == 1, 5, 1)).astype("f4")
        )
        for name, split in mine.splits.items()
    }
    return dataclasses.replace(mine, **splits)


@pytest.mark.parametrize(
    "bound",
    [
        recipes.ceag(0.05, batches="plain"),
        recipes.ceag(0.05, batches="balanced"),
        recipes.accuracy_gap(0.05),
        recipes.churn(0.05),
    ],
    ids=["plain", "balanced", "own gap", "churn"],
)
@pytest.mark.slow
def test_people_count_by_the_weights_of_their_split(bound):
    mine = weighted()
    after = recipes.prune(mlp(), mine, before().take([0]), sparsity=0.9, bound=bound, **SHORT)
    row = after.history[int(after.epoch[0])]
    split, which = mine.train, "average" if after.averaged[0] else "last"
    right = [np.asarray(metrics.correct(net.predict(split)[0], split.y)) for net in (before(), after)]
    gaps = metrics.accuracy_gaps(*right, split.group, 3, weight=split.weight)
    accuracy = np.average(right[1], weights=split.weight)
    assert abs(accuracy - right[1].mean()) > 1e-3
    assert row[f"{which}_train_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert row[f"{which}_train_gap"] == pytest.approx(float(gaps.max_excess), abs=1e-6)
    stopped = after.iterates["stopped"]
    judges = mine.validation
    correct = np.asarray(metrics.correct(stopped.predict(judges)[0], judges.y))
    best = max(r["validation_accuracy"] for r in after.history if "validation_accuracy" in r)
    assert best == pytest.approx(np.average(correct, weights=judges.weight), abs=1e-6)
    (told,) = recipes.worth(mine, before().take([0]), after, bound=bound)
    assert told["accuracy_train"] == pytest.approx(accuracy, abs=1e-6)
    assert told["largest_gap_train"] == pytest.approx(float(gaps.max_excess), abs=1e-6)
    moved = metrics.prediction_changes(
        before().predict(split)[0], after.predict(split)[0], split.y, split.group, 3, weight=split.weight
    )  # fmt: skip
    assert told["largest_changed_train"] == pytest.approx(float(moved.changed.max()), abs=1e-6)
    if bound.name == "churn":
        assert row[f"{which}_train_violation"] == pytest.approx(float(moved.changed.max()) - 0.05, abs=1e-6)


@pytest.mark.slow
def test_multipliers_see_people_by_the_weights_of_their_split():
    """Of batches with as many of each group, too: the memory begins with the dense network's weighted gaps."""
    mine, bound = weighted(), recipes.ceag(0.0, batches="balanced", rate=1.0)
    group, weight = np.asarray(mine.train.group), np.asarray(mine.train.weight)
    facts = recipes.Facts(
        apply=lambda params, state, x, **_: (x @ params, state), group=group, constrained=np.ones(3, bool),
        num_groups=3, num_classes=2, batch_size=30, steps=1, pruned=0, shared={"num_groups": 3}, weight=weight,
    )  # fmt: skip
    problem = bound.make(facts).problem
    right = np.random.default_rng(2).random(len(group)) < 0.7
    dense = constraints.Outcomes(jnp.ones(len(group)), jnp.zeros(len(group)))
    carry = problem.init({}, dense, mine.train)
    logits = jnp.eye(2)[jnp.where(right, mine.train.y, 1 - mine.train.y)]
    whole = mine.train._replace(x=logits, weight=weight * train.balanced_weights(group, 3, 30))
    found = problem.evaluate(jnp.eye(2), carry, whole, None).strict + problem.bound
    gaps = metrics.accuracy_gaps(np.ones(len(group)), right, group, 3, weight=weight)
    np.testing.assert_allclose(found, gaps.excess, atol=1e-6)


@pytest.mark.slow
def test_a_folder_knows_the_masks_that_pruning_goes_on_from(tmp_path):
    """The same weights under other masks are another job: what may live again differs."""
    params = jax.tree.map(lambda a: a[0], before().params)
    masks = jax.tree.map(lambda a: np.ones(a.shape, bool), params)
    masks["Dense_0"]["kernel"][0] = False
    mine = recipes.networks(jax.tree.map(lambda a, m: a * m, params, masks), model=mlp())
    job = functools.partial(recipes.prune, mlp(), people(), sparsity=0.5, bound=None, folder=tmp_path, **SHORT)
    job(mine)
    with pytest.raises(study.FolderError, match="dense"):
        job(recipes.networks(jax.tree.map(lambda a: a[0], mine.params), masks=masks, model=mlp()))


@pytest.mark.slow
def test_pruning_goes_on_from_what_was_pruned(tmp_path):
    """The zeros of sparse networks stay, whether they come from a recipe or from files."""
    half = recipes.prune(mlp(), people(), before(), sparsity=0.5, bound=recipes.ceag(0.05), **SHORT)
    saved = sparsity.load(half.save(tmp_path)[0])
    mine = recipes.networks(saved.params, saved.state, masks=saved.masks, model=mlp())
    for start in (half.take([0]), mine):
        more = recipes.prune(mlp(), people(), start, sparsity=0.75, bound=recipes.ceag(0.05), **SHORT)
        kernel, mask = np.asarray(more.params["Dense_0"]["kernel"]), np.asarray(more.masks["Dense_0"]["kernel"])
        assert (~mask).sum() == 96
        assert (kernel[~mask] == 0).all()
        assert not mask[~np.asarray(start.masks["Dense_0"]["kernel"])].any()
    with pytest.raises(ValueError, match="the mask of w has the shape"):
        recipes.networks({"w": np.ones((3, 2))}, masks={"w": np.ones((2, 2), bool)})


@pytest.mark.slow
def test_a_bound_that_never_binds_changes_nothing():
    free = recipes.prune(mlp(), people(), before(), sparsity=0.5, tolerance=1.0, **SHORT)
    loose = recipes.prune(mlp(), people(), before(), sparsity=0.5, bound=recipes.ceag(1.0, batches="plain"), **SHORT)
    chex.assert_trees_all_equal(free.params, loose.params)
    assert all(row["max_multiplier"] == 0 for row in loose.history)
    # Without any tolerance it is the last average; with one, the most accurate on train of all that met it.
    last = recipes.prune(mlp(), people(), before(), sparsity=0.5, **SHORT)
    assert last.epoch.tolist() == [3, 3]
    assert last.averaged.all()
    for lane in range(2):
        rows = [row for row in free.history if row["seed"] == lane and "last_train_accuracy" in row]
        most = max(row[f"{which}_train_accuracy"] for row in rows for which in ("last", "average"))
        right = np.asarray(free.predict(people().train)[lane]) == people().train.y
        assert right.mean() == pytest.approx(most, abs=1e-6)


@pytest.mark.slow
def test_multipliers_are_told_at_the_end_of_an_epoch_how_the_network_does():
    """What a memory has seen in training is up to an epoch old; with a pass over the split it knows."""
    bound, found = recipes.ceag(0.0), []

    def make(facts):
        bounded = bound.make(facts)

        def refresh(carry, label, split):
            told = bounded.refresh(carry, label, split)
            jax.debug.callback(lambda sums, right: found.append((sums, right)), told.memory.sums, label == split.y)
            return told

        return bounded._replace(refresh=refresh)

    after = recipes.prune(mlp(), people(), before(), sparsity=0.9, bound=bound._replace(make=make), **SHORT)
    jax.effects_barrier()
    assert len(found) == 2 * SHORT["epochs"]
    group = np.asarray(people().train.group)
    for sums, right in found:
        np.testing.assert_array_equal(sums, np.bincount(group, right))
    last = [np.asarray(labels) == people().train.y for labels in after.iterates["last"].predict(people().train)]
    for right in last:
        assert any(np.array_equal(right, seen) for _, seen in found)


@pytest.mark.parametrize("bound", [None, recipes.ceag(0.05)], ids=["nft", "ceag"])
@pytest.mark.slow
def test_a_network_may_follow_the_dense_one(bound, tmp_path):
    """All of the loss at the teacher: more people get the class that it gives them, and a run goes on where it was."""
    job: Any = SHORT | {"sparsity": 0.9, "bound": bound, "epochs": 8}
    alone = recipes.prune(mlp(), people(), before(), **job)
    calls = iter(range(100))
    with pytest.raises(study.Stopped):
        recipes.prune(
            mlp(), people(), before(), distill=1.0, folder=tmp_path, stop=lambda: next(calls) >= 3, save_every=1, **job
        )
    whole = recipes.prune(mlp(), people(), before(), distill=1.0, **job)
    again = recipes.prune(mlp(), people(), before(), distill=1.0, folder=tmp_path, save_every=1, **job)
    chex.assert_trees_all_equal(again.params, whole.params)
    with pytest.raises(study.FolderError, match="distill"):
        recipes.prune(mlp(), people(), before(), distill=0.5, folder=tmp_path, save_every=1, **job)
    dense = before().predict(people().train)
    agree = [(net.iterates["last"].predict(people().train) == dense).mean() for net in (alone, whole)]
    assert agree[1] > agree[0]


def test_what_a_multiplier_goes_up_by_is_clear_of_noise_and_never_more_than_its_share():
    """R / T a step for what is clear, however large; proportional to the violation near the bound; slower for few."""
    people_of, steps = np.array([50, 500, 5000]), 100
    dual = _ascent.ascent(0.01, people_of, steps)

    def step(violation):
        given = -np.full(3, violation, np.float32)
        return np.asarray(dual.update(given, dual.init(given))[0])

    most = _ascent.TRAVEL / steps
    np.testing.assert_allclose(step(0.5), most, rtol=1e-6)
    np.testing.assert_allclose(step(-0.5), -most, rtol=1e-6)
    near = step(0.004)
    assert (np.diff(near) > 0).all()
    np.testing.assert_allclose(step(0.008), 2 * near, rtol=1e-5)
    # Of somebody who is alone one person is everything: it is held to that.
    assert _ascent.aims(0.01, np.array([0, 1, 99, 101]), 1.0).tolist() == [1.0, 1.0, 1 / 99, 0.01]


@pytest.mark.parametrize("scale", [1.0, 1 / 60, 60.0])
def test_what_one_person_is_does_not_depend_on_the_scale_of_weights(scale):
    """Of twenty people, who all count the same; multipliers are trained to half of what is asked for."""
    group = np.repeat([0, 1], [40, 20])
    facts = recipes.Facts(
        apply=lambda *of, **_: None, group=group, constrained=np.ones(2, bool), num_groups=2, num_classes=2,
        batch_size=30, steps=1, pruned=0, shared={"num_groups": 2}, weight=np.full(60, scale, np.float32),
    )  # fmt: skip
    np.testing.assert_allclose(recipes.accuracy_gap(0.01).make(facts).problem.bound, [0.5 / 20, 0.5 / 10], rtol=1e-5)


@pytest.mark.parametrize(
    "bound",
    [
        recipes.accuracy_gap(0.0),
        recipes.ceag_published(0.0, rate=0.05),
        recipes.equalized_loss(rate=0.05),
        recipes.rates(lambda groups: rates.demographic_parity(0.0, num_groups=groups)),
        recipes.churn(0.0),
    ],
    ids=lambda bound: bound.name,
)
@pytest.mark.slow
def test_every_bound_moves_its_multipliers(bound):
    after = recipes.prune(mlp(), people(), before(), sparsity=0.9, bound=bound, **SHORT)
    assert max(row["max_multiplier"] for row in after.history) > 0  # it may be satisfied at the end
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
    assert (after.predict(people().train) == people().train.y).mean() > 0.6
    if bound.name == "rates":
        taken = [r for r in after.history if r["seed"] == 0][int(after.epoch[0])]
        which = "average" if after.averaged[0] else "last"
        said = rates.measure(
            rates.demographic_parity(0.0, num_groups=3),
            jnp.asarray(after.predict(people().train)[0]), people().train.y, people().train.group,
            num_groups=3, num_classes=2,
        )  # fmt: skip
        assert float(said.value.max()) == pytest.approx(taken[f"{which}_train_violation"], abs=1e-6)


@pytest.mark.parametrize("more", [0, 1])
def test_an_equality_is_missed_upwards_and_downwards(more):
    group = np.array(["a", "b"] * 20)
    mine = data.dataset(np.arange(40.0)[:, None] / 40, np.arange(40) // 2 % 2, group)
    bound = recipes.rates([rates.equal(rates.positive(group=0), rates.positive(group=1))])
    judged = judge(mine, np.asarray(mine.train.y), (np.asarray(mine.train.group) == more).astype(int), bound, None)
    assert judged.over == 1.0


def test_bounds_that_depend_on_the_number_of_groups_are_known_by_those_of_the_data():
    def between(tolerance):
        return recipes.rates(lambda groups: rates.demographic_parity(tolerance * (groups - 2), num_groups=groups))

    known = [between(tolerance).known(3) for tolerance in (0.1, 0.2)]
    assert known[0] != known[1] != between(0.2).known(4)
    one = rates.demographic_parity(0.1, num_groups=3)
    assert recipes.rates(one).known(3) == recipes.rates(lambda groups: one).known(3) == known[0]


@pytest.mark.parametrize(("lanes", "stops"), [("map", (3, 5)), ("loop", (9,))])
@pytest.mark.slow
def test_a_stopped_recipe_goes_on_bit_for_bit(tmp_path, lanes, stops):
    job: Any = SHORT | {
        "sparsity": 0.9, "bound": recipes.ceag(0.0), "lanes": lanes, "steps_per_call": 50, "save_every": 1,
    }  # fmt: skip
    whole = recipes.prune(mlp(), people(), before(), **job)
    for stop_after in stops:
        calls = iter(range(100))
        with pytest.raises(study.Stopped):
            recipes.prune(
                mlp(), people(), before(), folder=tmp_path,
                stop=lambda calls=calls, last=stop_after: next(calls) >= last, **job,
            )  # fmt: skip
    again = recipes.prune(mlp(), people(), before(), folder=tmp_path, **job)
    for name in ("params", "masks", "epoch", "averaged"):
        chex.assert_trees_all_equal(getattr(whole, name), getattr(again, name))
    key = lambda row: (row["seed"], row["epoch"])
    assert sorted(again.history, key=key) == sorted(whole.history, key=key)
    finished = recipes.prune(mlp(), people(), before(), folder=tmp_path, **job)
    chex.assert_trees_all_equal(finished.params, whole.params)
    with pytest.raises(study.FolderError, match="another config"):
        recipes.prune(mlp(), people(), before(), folder=tmp_path, **job | {"sparsity": 0.8})
    other = recipes.networks(jax.tree.map(lambda a: a + 1, before().params), several=True)
    with pytest.raises(study.FolderError, match="dense is"):
        recipes.prune(mlp(), people(), other, folder=tmp_path, **job)


@pytest.mark.slow
def test_another_number_of_seeds_or_another_key_is_said_in_a_line(tmp_path):
    job: Any = {"epochs": 1, "progress": False, "folder": tmp_path}
    recipes.dense(mlp(), people(), seeds=2, **job)
    for change, said in (({"seeds": 3}, r"seeds is \[0, 1\] there and \[0, 1, 2\] here"),
                         ({"seeds": 2, "key": 7}, r"key is \['threefry2x32', 0, 0\] there and")):  # fmt: skip
        with pytest.raises(study.FolderError, match=said) as caught:
            recipes.dense(mlp(), people(), **job, **change)
        assert "\n" not in str(caught.value)
        assert "folder=" in str(caught.value)
    gone_on = recipes.dense(mlp(), people(), seeds=2, key=jax.random.key(0), **job)  # the same key
    assert gone_on.seeds == (0, 1)


@pytest.mark.slow
def test_a_network_that_fails_is_said():
    after = recipes.prune(mlp(), people(), before(), sparsity=0.5, learning_rate=1e30, **SHORT)
    assert (after.failed_at >= 0).all()
    for row in (after, *after.iterates.values()):  # nothing was pruned before: right about nobody, and no dense network
        assert (row.predict(people().train) == -1).all()
        assert row.epoch.tolist() in ([-1, -1], [3, 3])
        kernel, mask = row.params["Dense_0"]["kernel"], row.masks["Dense_0"]["kernel"]
        assert np.isnan(kernel[mask]).all()
    assert np.isnan([row["loss"] for row in after.history]).all()
    assert {row["failed_at"] for row in after.history} == set(after.failed_at.tolist())


@pytest.mark.slow
def test_what_was_kept_before_a_network_failed_stays():
    job = SHORT | {"sparsity": 0.5, "tolerance": 1.0, "epochs": 10}
    steps = train.steps_per_epoch(len(people().train.y), 32)
    late = optax.sgd(lambda step: jnp.where(step < 9 * steps, 0.05, 1e30))
    after = recipes.prune(mlp(), people(), before(), optimizer=late, **job)
    assert (after.failed_at >= 9 * steps).all()
    assert after.epoch.tolist() == [8, 8]
    assert np.isfinite(after.params["Dense_0"]["kernel"]).all()
    assert (after.predict(people().train) == people().train.y).mean() > 0.6
    assert np.isnan(after.iterates["last"].params["Dense_1"]["bias"]).all()


@pytest.mark.slow
def test_a_dense_network_that_failed_is_said_and_handed_on():
    with pytest.warns(UserWarning, match=r"dense: the loss was not finite, of seed 0 at step \d+, seed 3 at step"):
        bad = recipes.dense(mlp(), people(), seeds=(0, 3), epochs=1, learning_rate=1e30, **QUIET)
    assert (bad.failed_at >= 0).all()
    mixed = dataclasses.replace(before(), failed_at=np.array([-1, 7]))
    after = recipes.prune(mlp(), people(), mixed, sparsity=0.5, **SHORT)
    assert after.failed_at.tolist() == [-1, 7]
    for row in (after, *after.iterates.values()):
        label = row.predict(people().train)
        assert (label[1] == -1).all()
        assert (label[0] == people().train.y).mean() > 0.6


@pytest.mark.slow
def test_a_bound_on_losses_is_delivered_by_them():
    """No group may lose more than one of its people: the bound is on their losses, not on the excess."""
    after = recipes.prune(mlp(), people(), before(), sparsity=0.9, bound=recipes.accuracy_gap(0.0), **SHORT)
    split = people().train
    correct = [np.asarray(net.predict(split)) == split.y for net in (before(), after)]
    for lane in range(2):
        gaps = metrics.accuracy_gaps(correct[0][lane], correct[1][lane], split.group, 3)
        row = [r for r in after.history if r["seed"] == lane][int(after.epoch[lane])]
        which = "average" if after.averaged[lane] else "last"
        over = metrics.violation(gaps.gap, 0.0, np.bincount(split.group, minlength=3))
        assert float(over) == pytest.approx(row[f"{which}_train_violation"], abs=1e-6)
        assert float(jnp.nanmax(gaps.excess)) == pytest.approx(row[f"{which}_train_gap"], abs=1e-6)
        of = [r for r in after.history if r["seed"] == lane and "last_train_violation" in r]
        over = [r[f"{w}_train_violation"] for r in of for w in ("last", "average")]
        best = row[f"{which}_train_violation"]
        assert best == min(over) if min(over) > 0 else best <= 0


@functools.cache
def digits():
    """Images of ten digits, each of which is a group, and dense networks that know them."""
    mine = data.load("digits")
    model = models.mlp(10, hidden=(16,))
    return mine, model, recipes.dense(model, mine, seeds=2, epochs=10, batch_size=64, **QUIET)


def largest_share_of_changes(networks, split="train"):
    mine, _, dense = digits()
    of = getattr(mine, split)
    return [
        float(jnp.nanmax(metrics.prediction_changes(b, a, of.y, of.group, mine.num_groups).changed))
        for b, a in zip(dense.predict(of), networks.predict(of), strict=True)
    ]


@pytest.mark.slow
def test_under_a_bound_on_churn_fewer_predictions_of_the_worst_group_change():
    mine, model, dense = digits()
    job: Any = {"sparsity": 0.9, "epochs": 16, "batch_size": 64, **QUIET}
    free = recipes.prune(model, mine, dense, **job)
    bound = recipes.churn(0.02)
    held = recipes.prune(model, mine, dense, bound=bound, **job)
    usual, few = (np.array(largest_share_of_changes(networks)) for networks in (free, held))
    assert (usual > 0.02).all()
    assert (few < usual).all()
    # Not by the choice of the iterate alone: the last ones differ, too.
    assert np.mean(largest_share_of_changes(held.iterates["last"])) < np.mean(
        largest_share_of_changes(free.iterates["last"])
    )
    # What was written down, and by what is delivered, is this share.
    for row, share in zip(recipes.worth(mine, dense, held, bound=bound), few, strict=True):
        assert row["largest_changed_train"] == pytest.approx(share, abs=1e-6)
        assert row["violation_train"] == pytest.approx(share - 0.02, abs=1e-6)
        assert row["bound_met"] == (np.float32(share) <= np.float32(0.02))
    for lane in range(2):
        of = [r for r in held.history if r["seed"] == lane and "last_train_violation" in r]
        over = {(r["epoch"], w): r[f"{w}_train_violation"] for r in of for w in ("last", "average")}
        taken = over[int(held.epoch[lane]), "average" if held.averaged[lane] else "last"]
        assert taken == pytest.approx(few[lane] - 0.02, abs=1e-6)
        assert taken == min(over.values()) if min(over.values()) > 0 else taken <= 0


def other_people(**change):
    mine = people()
    split = mine.train._replace(**{name: of(getattr(mine.train, name)) for name, of in change.items()})
    return dataclasses.replace(mine, train=split)


@pytest.mark.parametrize("what", ["x", "y", "constrained", "model", "prunable", "decayed", "optimizer"])
@pytest.mark.slow
def test_another_job_in_the_same_folder_is_refused(tmp_path, what):
    job: Any = SHORT | {"sparsity": 0.5, "folder": tmp_path, "weight_decay": 1e-4, "optimizer": optax.adam(1e-3)}
    model, mine, wrong, said = mlp(), people(), dict(job), what
    recipes.prune(model, mine, before(), **job | {"epochs": 3})
    if what in ("x", "y"):
        mine, said = other_people(**{what: lambda a: a[::-1].copy()}), "data"
    elif what == "constrained":
        mine = dataclasses.replace(mine, constrained=np.array([True, False, True]))
    elif what == "model":
        old = model.apply
        model = model._replace(apply=lambda *a, **k: (lambda z, s: (2 * z, s))(*old(*a, **k)))
    elif what == "prunable":
        model = model._replace(prunable=lambda path: path == "Dense_1/kernel")
    elif what == "decayed":
        wrong["decayed"] = lambda path: path.endswith("kernel")
    else:
        wrong["optimizer"] = optax.adam(2e-3)
    with pytest.raises(study.FolderError, match=rf"\({said} is .* there and ") as caught:
        recipes.prune(model, mine, before(), **wrong | {"epochs": 3})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_same_job_made_again_goes_on(tmp_path):
    def job(rate, epochs=1):
        rate = optax.cosine_decay_schedule(rate, 100)
        return recipes.dense(mlp(), people(), seeds=1, epochs=epochs, learning_rate=rate, folder=tmp_path, **QUIET)

    first = job(1e-3)
    chex.assert_trees_all_equal(job(1e-3).params, first.params)
    with pytest.raises(study.FolderError, match="learning_rate is schedule"):
        job(2e-3)
    with pytest.raises(study.FolderError, match="epochs is 1 there and 2 here"):
        job(1e-3, 2)


@pytest.mark.slow
def test_another_number_of_epochs_is_said_as_that(tmp_path):
    job: Any = {"sparsity": 0.5, "folder": tmp_path, "batch_size": 32, **QUIET}
    recipes.prune(mlp(), people(), before(), epochs=3, **job)
    with pytest.raises(study.FolderError, match=r"\(epochs is 3 there and 10 here\)"):
        recipes.prune(mlp(), people(), before(), epochs=10, **job)
    with open(tmp_path / "nft" / "config.json") as file:
        found = json.load(file)
    assert found["decay_epochs"] is found["prune_epochs"] is None


@pytest.mark.slow
def test_without_a_validation_split_the_last_is_stopped_at():
    mine = people()
    none = mine.validation._replace(**{name: getattr(mine.validation, name)[:0] for name in mine.validation._fields})
    after = recipes.prune(
        mlp(), dataclasses.replace(mine, validation=none), before(), sparsity=0.5, **SHORT
    )  # fmt: skip
    stopped, last = after.iterates["stopped"], after.iterates["last"]
    assert stopped.epoch.tolist() == [3, 3]
    chex.assert_trees_all_equal(stopped.params, last.params)


@pytest.mark.slow
def test_a_base_needs_no_validation_split():
    mine = people()
    none = mine.validation._replace(**{name: getattr(mine.validation, name)[:0] for name in mine.validation._fields})
    keys = jax.random.split(jax.random.key(0), 1)
    found = recipes.base(mlp(), dataclasses.replace(mine, validation=none), keys=keys, batch_size=32, epochs=2)
    labels = found.labels(0)
    assert sorted(found.judged(0, labels, 0.01)) == ["test", "train"]
    assert before().predict(none).shape == (2, 0)
    with pytest.raises(ValueError, match="no validation split, on which thresholds are chosen"):
        found.thresholded(0, {"test": np.asarray(found.logits["test"][0])}, {"test": mine.test.group})


@pytest.mark.slow
def test_where_nothing_can_be_measured_the_last_is_delivered():
    bound = recipes.ceag()._replace(tolerance=None, violation=lambda label, split, facts: jnp.float32(jnp.nan))
    after = recipes.prune(mlp(), people(), before(), sparsity=0.5, bound=bound, **SHORT)
    assert after.epoch.tolist() == [3, 3]
    chex.assert_trees_all_equal(after.params, after.iterates["last"].params)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"bound": recipes.ceag}, r"bound=ceag: did you mean recipes.ceag\(\)\?"),
        ({"bound": 0.02}, r"bound=0.02: did you mean recipes.ceag\(0.02\)\?"),
        ({"tolerance": np.nan}, "tolerance=nan: give a share of 1"),
        ({"bound": recipes.ceag(2)}, "tolerance=2: give a share of 1"),
        ({"bound": recipes.churn(2)}, "limit=2: give a share of 1"),
        ({"bound": recipes.churn}, r"bound=churn: did you mean recipes.churn\(\)\?"),
        ({"bound": recipes.ceag(), "nobody": True}, "no group is constrained"),
        ({"epochs": 0, "prune_epochs": None}, "epochs=0: give a whole number of at least 1"),
        ({"save_every": 0}, "save_every=0: give a whole number of at least 1"),
    ],
)
def test_what_would_deliver_nothing_is_refused(wrong, words):
    mine = people()
    if wrong.pop("nobody", False):
        mine = dataclasses.replace(mine, constrained=np.zeros(3, bool))
    with pytest.raises(ValueError, match=words):
        recipes.prune(mlp(), mine, before(), **SHORT | {"sparsity": 0.5} | wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seeds": 0}, "seeds=0: give at least one, and each once"),
        ({"seeds": (1, 1)}, r"seeds=\(1, 1\): give at least one, and each once"),
        ({"seeds": 2.0}, "seeds=2.0: give a whole number"),
        ({"epochs": 0}, "epochs=0: give"),
        ({"save_every": -1}, "save_every=-1: give"),
    ],
)
def test_seeds_and_epochs_that_cannot_be_are_said(wrong, words):
    with pytest.raises(ValueError, match=words):
        recipes.dense(mlp(), people(), **QUIET | {"epochs": 1} | wrong)


@pytest.mark.slow
def test_numbers_of_numpy_are_numbers():
    job: Any = {"epochs": 1, "batch_size": 64, **QUIET}
    found = recipes.dense(mlp(), people(), seeds=np.int64(1), key=np.int32(3), **job)
    chex.assert_trees_all_equal(found.params, recipes.dense(mlp(), people(), seeds=[0], key=3, **job).params)
    assert found.seeds == (0,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0: give the share"),
        ({"sparsity": 0.5, "prune_epochs": 4}, "prune_epochs=4: give at least 0 and fewer than"),
        ({"sparsity": 0.5, "select_on": "test"}, "select_on='test'"),
        ({"sparsity": 0.5, "bound": recipes.ceag(batches="even")}, "batches='even': choose from"),
        ({"sparsity": 0.5, "lanes": "row"}, "lanes='row'"),
        ({"sparsity": 0.5, "distill": 1.5}, "distill=1.5: give a share of the loss from 0 to 1"),
        ({"sparsity": 0.5, "distill": float("nan")}, "distill=nan: give a share"),
        ({"sparsity": 0.5, "distill": 0.5, "temperature": 0.0}, "temperature=0.0: give a number above 0"),
    ],
)
def test_what_cannot_be_is_said(wrong, words):
    with pytest.raises(ValueError, match=words):
        recipes.prune(mlp(), people(), before(), **SHORT | wrong)
    with pytest.raises(ValueError, match="no parameters"):
        recipes.networks({})
    with pytest.raises(ValueError, match="first axis"):
        recipes.networks({"a": np.ones((2, 3)), "b": np.ones((3, 3))}, several=True)


@pytest.mark.slow
def test_files_are_read_again(tmp_path):
    after = recipes.prune(mlp(), people(), before(), sparsity=0.9, **SHORT)
    paths = after.save(tmp_path, "mine")
    assert [path.name for path in paths] == ["mine_seed0.safetensors", "mine_seed1.safetensors"]
    saved = sparsity.load(paths[1])
    chex.assert_trees_all_equal(saved.params, jax.tree.map(lambda a: np.asarray(a[1]), after.params))  # fmt: skip
    assert "another" not in repr(before().save(tmp_path, "dense"))


# --- a network of one's own ---------------------------------------------------------------------------------------


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(16, name="hidden")(x))
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
        return nn.Dense(2, name="out")(x)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(8, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(16, 16, rngs=rngs) for _ in range(11)])
        self.out = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x):
        x = self.drop(nnx.relu(self.norm(self.hidden(x))))
        for block in self.blocks[:1]:
            x = x + block(x)
        return self.out(x)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["weight", "bias"], meta_fields=["features"])
class Layer:
    """A layer as Equinox has them: a pytree that is called, with a number that is none of its parameters."""

    def __init__(self, weight, bias, features=0):
        self.weight, self.bias, self.features = weight, bias, features

    def __call__(self, x):
        return x @ self.weight + self.bias[None]


class Tree(NamedTuple):
    hidden: Layer
    out: Layer


def pytree():
    """What `eqx.partition` and `eqx.combine` would make of an Equinox module, by hand."""

    def init(key, x):
        a, b = jax.random.split(key)
        layers = (
            Layer(jax.random.normal(k, (n, m)) / n**0.5, jnp.zeros(m), m)
            for k, n, m in ((a, x.shape[-1], 16), (b, 16, 2))
        )
        return Tree(*layers), {}

    def apply(params, state, x, *, train, key=None):
        return params.out(jax.nn.relu(params.hidden(x))), state

    return Model(init, apply, prunable=lambda path: path == "hidden/weight")


def functions():
    def init(key, x):
        a, b = jax.random.split(key)
        first = jax.random.normal(a, (x.shape[-1], 16)) / x.shape[-1] ** 0.5
        return {"hidden": {"kernel": first}, "out": jax.random.normal(b, (16, 2)) / 4}, {}

    def apply(params, state, x, *, train, key=None):
        return jax.nn.relu(x @ params["hidden"]["kernel"]) @ params["out"], state

    return Model(init, apply, prunable=lambda path: path == "hidden/kernel")


def hidden_kernel(path):
    return path == "hidden/kernel"


OWN = {
    "linen": lambda: models.linen(Linen(), prunable=hidden_kernel),
    "nnx": lambda: models.nnx(lambda rngs: Nnx(rngs), prunable=hidden_kernel),
    "pytree": pytree,
    "functions": functions,
}


@pytest.mark.parametrize("library", OWN)
@pytest.mark.slow
def test_a_network_of_ones_own(library, tmp_path):
    """Trained here, or anywhere: then it comes as `recipes.networks(params, state)`."""
    model = OWN[library]()
    dense = recipes.dense(model, people(), seeds=1, epochs=4, batch_size=32, **QUIET)
    one = jax.tree.map(lambda a: a[0], (dense.params, dense.model_state))
    mine = recipes.networks(*one)
    after = recipes.prune(model, people(), mine, sparsity=0.5, bound=recipes.ceag(0.05), **SHORT)
    kernel = after.params.hidden.weight if library == "pytree" else after.params["hidden"]["kernel"]
    assert int((np.asarray(kernel) == 0).sum()) == 64
    before, pruned = (n.predict(people().test, model=model) for n in (mine, after))
    assert (before == people().test.y).mean() > 0.7
    assert (pruned == people().test.y).mean() > 0.6
    if library in ("linen", "nnx"):
        moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), after.model_state, mine.model_state)  # fmt: skip
        assert max(jax.tree.leaves(moved)) > 0  # BatchNorm statistics were trained along
    if library != "pytree":
        after.save(tmp_path)


def test_nnx_is_the_module_itself():
    """Eval and train mode, statistics and dropout, against the module that NNX calls."""
    model = models.nnx(lambda rngs: Nnx(rngs), prunable=hidden_kernel)
    x = jax.random.normal(jax.random.key(1), (64, 8))
    params, state = model.init(jax.random.key(0), x)
    module = Nnx(nnx.Rngs(jax.random.key(0)))
    module.eval()
    logits, _ = model.apply(params, state, x, train=False)
    np.testing.assert_allclose(logits, module(x), rtol=1e-6, atol=1e-6)
    train = jax.jit(functools.partial(model.apply, train=True))
    logits, moved = train(params, state, x, key=jax.random.key(2))
    other, _ = model.apply(params, state, x, train=True, key=jax.random.key(3))
    assert float(abs(logits - other).max()) > 0  # another key drops others
    same, _ = model.apply(params, state, x, train=True, key=jax.random.key(2))
    np.testing.assert_allclose(logits, same, rtol=1e-5, atol=1e-5)
    module.train()
    module(x)
    np.testing.assert_allclose(moved["norm"]["mean"], module.norm.mean[...], rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, state)
    assert sum(model.prunable(p) for p in ("hidden/kernel", "out/kernel")) == 1
    names = sorted(params["blocks"])
    assert names == sorted(map(str, range(11)))
    np.testing.assert_array_equal(params["blocks"]["10"]["kernel"], module.blocks[10].kernel[...])


@pytest.mark.slow
def test_any_optimizer_of_optax():
    after = recipes.prune(mlp(), people(), before(), sparsity=0.5, optimizer=optax.adamw(1e-3), **SHORT)
    assert int((np.asarray(after.params["Dense_0"]["kernel"][0]) == 0).sum()) == 64
