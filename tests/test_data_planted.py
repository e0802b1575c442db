"""Planted data: the known answers, and that the draw has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxfair import data

HUGE = {"num_train": 400_000, "num_validation": 1000, "num_test": 200_000, "minority_test": 100_000}


def accuracy(batch, right, group):
    here = np.asarray(batch.group) == group
    return np.mean(right[here] == batch.y[here]), here.sum()


@pytest.mark.slow
def test_the_bayes_accuracy_is_what_a_huge_sample_shows():
    """Undoing the signs of the group reaches the formula in both; ignoring the group reaches the other formula."""
    people = data.planted(key=jax.random.key(1), minority=0.2, **HUGE)
    x = np.asarray(people.train.x)
    assert set(np.unique(x[:, 10])) == {-1.0, 1.0}
    np.testing.assert_array_equal(x[:, 10] == 1, people.train.group == 1)
    signs = np.ones((2, 10))
    signs[1, :8] = -1
    knows = (x[:, :10] * signs[people.train.group]).sum(1) > 0
    ignores = x[:, :10].sum(1) > 0
    for group, turned in ((0, 0.0), (1, 0.8)):
        for rule, expected in ((knows, 0.0), (ignores, turned)):
            found, num = accuracy(people.train, rule, group)
            truth = data.bayes_accuracy(2.0, expected)
            assert abs(found - truth) < 4 * np.sqrt(truth * (1 - truth) / num)
    # And the noise says nothing: no column of it is correlated with the class.
    far = np.abs(np.corrcoef(x[:, 11:].T, people.train.y)[-1, :-1]).max()
    assert far < 5 / np.sqrt(len(x))


def test_the_bayes_accuracy_is_the_normal_distribution():
    for separation in (0.0, 1.0, 2.5):
        assert data.bayes_accuracy(separation) == pytest.approx(norm.cdf(separation), abs=1e-6)
        assert data.bayes_accuracy(separation, 1.0) == pytest.approx(norm.cdf(-separation), abs=1e-6)


@pytest.mark.slow
def test_the_best_rule_cannot_be_beaten_by_another_linear_rule():
    """Within a group, no direction separates better than the planted one (up to the noise of the sample)."""
    people = data.planted(key=jax.random.key(2), minority=0.5, turned=8, **HUGE)
    here = np.asarray(people.train.group) == 1
    x, y = np.asarray(people.train.x)[here][:, :10], people.train.y[here]
    weights = np.linalg.solve(np.cov(x.T), x[y == 1].mean(0) - x[y == 0].mean(0))
    best = np.mean((x @ weights > 0) == y)
    assert best == pytest.approx(data.bayes_accuracy(2.0), abs=4 * np.sqrt(0.025 / here.sum()))
    assert (weights[:8] < 0).all()
    assert (weights[8:] > 0).all()


def test_codes_turn_their_features():
    people = data.planted_many(key=jax.random.key(3), num_groups=7, group_size=20_000, bits=3, test_size=5)
    assert people.group_names == ("000", "100", "010", "001", "110", "101", "011")
    assert set(people.group_sizes()["train"]) == {20_000}
    x, y, group = (np.asarray(a) for a in people.train[:3])
    bits = np.array([[int(b) for b in name] for name in people.group_names])
    np.testing.assert_array_equal(x[:, 3:6] > 0, bits[group].astype(bool))
    for g in range(7):
        here = group == g
        means = (x[here][:, :3] * (2 * y[here] - 1)[:, None]).mean(0)
        np.testing.assert_allclose(means, (1 - 2 * bits[g]) * 2 / np.sqrt(3), atol=5 / np.sqrt(20_000))
        right = ((x[here][:, :3] * (1 - 2 * bits[g])).sum(1) > 0) == y[here]
        assert right.mean() == pytest.approx(data.bayes_accuracy(2.0), abs=0.005)


def test_a_key_gives_one_draw_and_splits_are_disjoint_draws():
    key = jax.random.key(0)
    a, b = data.planted(key=key, num_train=2000), data.planted(key=key, num_train=2000)
    np.testing.assert_array_equal(a.train.x, b.train.x)
    other = data.planted(key=key, num_train=2000, split_seed=1)
    assert not np.array_equal(a.train.x, other.train.x)
    rows = [set(map(bytes, np.asarray(split.x))) for split in (a.train, a.validation, a.test)]
    assert len(set.union(*rows)) == sum(map(len, rows))
    assert jnp.asarray(a.train.x).dtype == jnp.float32
    assert abs(np.mean(a.train.y) - 0.5) < 0.05


def test_a_shortcut_agrees_with_the_class_in_training_and_with_half_of_them_in_test():
    people = data.spurious(key=jax.random.key(4), num_train=20_000, num_test=20_000, agreement=0.9)
    for split, share in ((people.train, 0.9), (people.validation, 0.9), (people.test, 0.5)):
        sign = 2 * split.y - 1
        right = np.asarray(split.x)[:, 1] * sign > 0
        assert right.mean() == pytest.approx(share, abs=1e-3)  # in every draw as many
        np.testing.assert_array_equal(right, split.group % 2)
        np.testing.assert_array_equal(split.group // 2, split.y)
    core = np.asarray(people.test.x)[:, 0] * (2 * people.test.y - 1) > 0
    # Four standard errors of 5,000 people of a group.
    for g in range(4):
        here = people.test.group == g
        assert core[here].mean() == pytest.approx(data.bayes_accuracy(1 / 0.6), abs=4 * np.sqrt(0.05 / 5000))
    other = data.spurious(key=jax.random.key(4), split_seed=1)
    assert not np.array_equal(other.test.x, data.spurious(key=jax.random.key(4)).test.x)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (data.spurious, {"agreement": 1.0}, "agreement=1.0"),
        (data.spurious, {"noise": 0.0}, "noise=0.0"),
        (data.spurious, {"num_train": 10}, "train: of 10 people"),
        (data.planted, {"turned": 11}, "turned=11"),
        (data.planted, {"minority": 0.0}, "0 of 20000"),
        (data.planted, {"minority_test": 8000}, "8000 of 8000"),
        (data.planted_many, {"num_groups": 9, "bits": 3}, "num_groups=9"),
        (data.planted_many, {"test_size": 0}, "0 people"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_drawn_is_refused(make, options, words):
    with pytest.raises(data.DataError, match=words):
        make(key=jax.random.key(0), **options)
