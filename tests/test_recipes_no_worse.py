"""A bound does no harm: what is delivered is never worse than naive fine-tuning in both gap and accuracy."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import numpy as np
import pytest

from jaxfair import data, models, recipes, sparsity, study
from jaxfair.constraints import rates

pytestmark = pytest.mark.usefixtures("compiled_once")

QUIET: Any = {"progress": False}
SHORT: Any = {"sparsity": 0.9, "epochs": 4, "prune_epochs": 2, "batch_size": 32, "steps_per_call": 50, **QUIET}

# --- the rule, of networks that predict what they are told ----------------------------------------------------------

#: Powers of two: shares of them are exact, so that equal gaps are equal numbers.
SIZES = (32, 16, 8, 8)
GROUP = np.repeat(np.arange(4), SIZES)


@functools.cache
def told():
    """Sixty-four people of four groups; of the last, nobody has a bound."""
    names = np.array(["a", "b", "c", "free"])[np.concatenate([GROUP, np.arange(4)])]
    split = ["train"] * 64 + ["validation"] * 4
    return data.dataset(np.ones((68, 1)), np.arange(68) % 2, names, split=split, unconstrained=("free",))


def row(labels, number, failed=()):
    """Networks that predict these classes, ``[S, N]``; every weight is the number of their row."""
    count = len(labels)
    return dataclasses.replace(
        recipes.networks({"w": np.full((count, 2, 3), number, np.float32)}, several=True),
        masks={"w": np.arange(6).reshape(2, 3)[None].repeat(count, 0) != number},
        epoch=np.full(count, 10 * number), averaged=np.full(count, number == 1),
        failed_at=np.isin(np.arange(count), failed) * 8 - 1, history=[{"seed": s, "epoch": 0} for s in range(count)],
    )  # fmt: skip


def applied(dense, bounded, naive, bound, failed=((), ()), **options):
    """The networks of :func:`recipes.no_worse`, where the rows predict these; bounded are number 1, naive number 2."""
    rows = [row(dense, 0), *(row(of, n, lost) for n, of, lost in zip((1, 2), (bounded, naive), failed, strict=True))]
    labels = {id(one): of for one, of in zip(rows, (dense, bounded, naive), strict=True)}
    mine = told()
    return recipes.no_worse(
        rows[1], rows[2], rows[0], mine, bound=bound, predict=lambda of: labels[id(of)], **options
    )  # fmt: skip


def by_hand(dense, label, on, tolerance=0.02):
    """By how much the bound is exceeded on people that have one, and the accuracy, in NumPy."""
    y = told().train.y
    lost = (dense == y) * 1.0 - (label == y)
    group = told().train.group
    gaps = np.array([lost[group == g].mean() for g in range(3)]) - (lost.mean() if on == "excess" else 0)
    allowed = np.maximum(tolerance, 1 / np.array(SIZES[:3]))
    return (gaps - allowed).max(), (label == y).mean()


def drawn(seeds=200):
    """Predictions before, and of two prunings, that are wrong about a few people."""
    rng, y = np.random.default_rng(0), told().train.y
    wrong = rng.random((3, seeds, 64)) < rng.choice([0.02, 0.1, 0.3], (3, seeds, 1))
    return [np.where(of, 1 - y, y) for of in wrong]


def at(group):
    """The places of a group."""
    return np.flatnonzero(told().train.group == group)


def lose(*who):
    """``[1, N]``: a network that is wrong about these, and about nobody else."""
    y = told().train.y
    return np.where(np.isin(np.arange(64), np.concatenate(who)), 1 - y, y)[None]


@pytest.mark.parametrize(("bound", "on"), [(recipes.ceag(0.02), "excess"), (recipes.accuracy_gap(0.02), "gap")])
def test_never_worse_in_both(bound, on):
    dense, bounded, naive = drawn()
    found = applied(dense, bounded, naive, bound)
    numbers = [[by_hand(d, label, on) for d, label in zip(dense, of, strict=True)] for of in (bounded, naive)]
    worse = np.array([n[0] < b[0] - 1e-6 and n[1] > b[1] for b, n in zip(*numbers, strict=True)])
    assert 20 < worse.sum() < 180
    np.testing.assert_array_equal(found.naive, worse)
    for name in ("params", "masks"):
        want = [getattr(row(dense, number), name)["w"] for number in (1, 2)]
        np.testing.assert_array_equal(getattr(found, name)["w"], np.where(worse[:, None, None], want[1], want[0]))
    np.testing.assert_array_equal(found.epoch, np.where(worse, 20, 10))
    np.testing.assert_array_equal(found.averaged, ~worse)
    # What training under the bound made is there to be looked at, of those that are taken, too.
    assert (found.iterates["bounded"].params["w"] == 1).all()
    assert not found.iterates["bounded"].naive.any()
    taken = found.take(np.flatnonzero(worse).tolist())
    assert taken.naive.all()
    assert (taken.params["w"] == 2).all()
    assert (taken.iterates["bounded"].params["w"] == 1).all()


@pytest.mark.slow
def test_a_bound_on_something_else_is_compared_by_its_own_number():
    """Nobody loses accuracy beyond the others, but selection is unequal: the gap would not see it."""
    mine = told()
    y = mine.train.y
    unequal = np.where(mine.train.group == 0, 1, 0)
    bound = recipes.rates(lambda groups: rates.demographic_parity(0.0, num_groups=groups))
    found = applied(np.stack([y] * 2), np.stack([unequal, y]), np.stack([y, unequal]), bound)
    assert found.naive.tolist() == [True, False]


@pytest.mark.slow
def test_equal_is_not_worse():
    dense, bounded, _ = drawn()
    found = applied(dense, bounded, bounded, recipes.ceag(0.02))
    assert not found.naive.any()
    # As accurate with a larger gap, and as large a gap with less accuracy: one of the two is not enough.
    of_a, of_b, of_two = lose(at(0)[:4]), lose(at(1)[:4]), lose(at(0)[:4], at(3)[:2])
    y = told().train.y[None]
    assert not applied(y, of_b, of_a, recipes.ceag(0.0)).naive.any()
    assert not applied(y, of_two, of_a, recipes.accuracy_gap(0.0)).naive.any()
    assert applied(y, lose(at(0)[:5]), of_a, recipes.accuracy_gap(0.0)).naive.all()


def test_one_that_failed_is_worse_than_one_that_did_not():
    dense, bounded, naive = (of[:4] for of in drawn())
    bounded, naive = np.broadcast_to(told().train.y, bounded.shape), 1 - np.broadcast_to(told().train.y, naive.shape)
    found = applied(dense, bounded, naive, recipes.ceag(0.02), failed=((0, 1), (1, 2)))
    assert found.naive.tolist() == [True, False, False, False]
    assert found.failed_at.tolist() == [-1, 7, -1, -1]
    assert found.iterates["bounded"].failed_at.tolist() == [7, 7, -1, -1]


def test_what_is_met_stays_met_where_one_person_is_allowed():
    """One of the eight of c is lost: more than the tolerance, and met. Naive fine-tuning loses three of a instead."""
    y = told().train.y
    bounded, naive = lose(at(2)[:1], at(3)[:3]), lose(at(0)[:3])
    assert by_hand(y, bounded[0], "excess")[0] <= 0 < by_hand(y, naive[0], "excess", 0.02)[0]
    assert not applied(y[None], bounded, naive, recipes.ceag(0.02)).naive.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda naive: dataclasses.replace(naive, seeds=(3,)), r"naive has the seeds \[3\] and not \[0\]"),
        (lambda naive: dataclasses.replace(naive, params={"w": np.ones((1, 2, 4))}), "other names or shapes"),
        (lambda naive: dataclasses.replace(naive, params={"v": np.ones((1, 2, 3))}), "other names or shapes"),
    ],
)
def test_other_networks_are_refused(change, said):
    y = told().train.y[None]
    one = row(y, 0)
    with pytest.raises(ValueError, match=said) as caught:
        recipes.no_worse(one, change(one), one, told(), bound=recipes.ceag(0.02))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="nft has no tolerance"):
        recipes.no_worse(one, one, one, told(), bound=recipes.ceag()._replace(name="nft", tolerance=None))


def test_networks_without_masks_have_all_of_their_weights():
    y = told().train.y
    failed, naive = row(y[None], 1, failed=(0,)), dataclasses.replace(row(y[None], 2), masks=None)
    options: Any = {"bound": recipes.ceag(0.02), "predict": lambda of: y[None]}
    found = recipes.no_worse(failed, naive, row(y[None], 0), told(), **options)
    assert found.naive.all()
    assert found.masks["w"].shape == (1, 2, 3)
    assert np.asarray(found.masks["w"]).all()


# --- the real thing -------------------------------------------------------------------------------------------------


@functools.cache
def people():
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


@functools.cache
def usual():
    return recipes.prune(mlp(), people(), before(), tolerance=0.0, **SHORT)


#: Multipliers that leave nothing of the loss: accuracy falls by five points, and the gap is larger than without.
HARMFUL = recipes.equalized_loss(0.0, rate=100.0)


@functools.cache
def harmed():
    return recipes.prune(mlp(), people(), before(), bound=HARMFUL, naive=usual(), **SHORT)


@pytest.mark.slow
def test_where_a_bound_destroys_naive_fine_tuning_is_delivered(tmp_path):
    found, given = harmed(), harmed().iterates["bounded"]
    assert found.naive.any()
    rows = [recipes.worth(people(), before(), of, bound=HARMFUL) for of in (found, given, usual())]
    for place, (ours, bounded, naive) in enumerate(zip(*rows, strict=True)):
        worse = naive["violation_train"] < bounded["violation_train"]
        worse &= naive["accuracy_train"] > bounded["accuracy_train"]
        assert found.naive[place] == ours["naive"] == worse
        mine, source = found.take([place]), (usual() if worse else given).take([place])
        assert mine.digest() == source.digest()
        for name in ("epoch", "averaged", "failed_at"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(source, name))
        assert not bounded["naive"]
    assert f"; {found.naive.sum()} by naive fine-tuning)" in repr(found)
    assert "naive" not in repr(given)
    # The history is of training under the bound.
    assert all(r["max_multiplier"] > 0 for r in found.history)
    paths = recipes.ship(people(), found, rows[0], tmp_path)
    assert [sparsity.load(path).metadata["naive"] for path in paths] == [str(bool(one)) for one in found.naive]
    # Why the bound was not met is asked of the history, as training gives it.
    missed = [sum(not row["bound_met"] for row in of) for of in rows]
    reasons = [recipes.why(people(), before(), of, bound=HARMFUL, history=found.history) for of in (found, given)]
    assert [bool(lines) for lines in reasons] == [count > 0 for count in missed[:2]]
    assert any("multipliers were still rising" in line for line in reasons[1])
    (said,) = recipes.said_naive(rows[0])
    assert f"in {found.naive.sum()} of 2 seeds" in said
    assert set(found.iterates) == {"last", "stopped", "bounded"}


@pytest.mark.slow
def test_a_bound_that_never_binds_delivers_the_same_bits_with_and_without():
    job = SHORT | {"bound": recipes.ceag(1.0, batches="plain")}
    naive = recipes.prune(mlp(), people(), before(), tolerance=1.0, **SHORT)
    alone = recipes.prune(mlp(), people(), before(), **job)
    found = recipes.prune(mlp(), people(), before(), naive=naive, **job)
    for name in ("params", "masks", "model_state", "epoch", "averaged", "failed_at"):
        chex.assert_trees_all_equal(getattr(found, name), getattr(alone, name))
    assert found.digest() == naive.digest()
    assert not found.naive.any()
    assert not alone.naive.any()
    assert "bounded" not in alone.iterates


@pytest.mark.slow
def test_a_bounded_run_that_fails_delivers_naive_fine_tuning():
    found = recipes.prune(
        mlp(), people(), before(), bound=recipes.ceag(0.0), naive=usual(), learning_rate=1e30, **SHORT
    )  # fmt: skip
    assert found.naive.all()
    assert found.failed_at.tolist() == [-1, -1]
    assert (found.iterates["bounded"].failed_at >= 0).all()
    assert (found.iterates["last"].failed_at >= 0).all()
    chex.assert_trees_all_equal(found.params, usual().params)
    assert found.digest() == usual().digest()


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits_and_its_folder_knows_the_naive_networks(tmp_path):
    job: Any = SHORT | {"bound": HARMFUL, "save_every": 1, "folder": tmp_path}
    for last in (3, 5):
        calls = iter(range(100))
        with pytest.raises(study.Stopped):
            recipes.prune(
                mlp(), people(), before(), naive=usual(),
                stop=lambda calls=calls, last=last: next(calls) >= last, **job,
            )  # fmt: skip
    again = recipes.prune(mlp(), people(), before(), naive=usual(), **job)
    for name in ("params", "masks", "epoch", "averaged", "naive"):
        chex.assert_trees_all_equal(getattr(again, name), getattr(harmed(), name))
    chex.assert_trees_all_equal(again.iterates["bounded"].params, harmed().iterates["bounded"].params)
    other = dataclasses.replace(usual(), params=jax.tree.map(lambda a: a + 1, usual().params))
    for naive, said in ((other, "naive is .* there and"), (None, "naive is .* there and not set here")):
        with pytest.raises(study.FolderError, match=said):
            recipes.prune(mlp(), people(), before(), naive=naive, **job)


def test_naive_networks_that_cannot_be_compared_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="naive= without a tolerance"):
        recipes.prune(mlp(), people(), before(), naive=before(), **SHORT)
    with pytest.raises(ValueError, match=r"naive has the seeds \[0\] and not \[0, 1\]"):
        recipes.prune(mlp(), people(), before(), bound=recipes.ceag(), naive=before().take([0]), **SHORT)
