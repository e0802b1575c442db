"""Grouped sums, gaps and rates: brute-force twins, laws, and agreement with fairlearn."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import metrics

N, G = 200, 5


@pytest.fixture
def people():
    """200 people; group 3 is empty."""
    rng = np.random.default_rng(0)
    group = rng.choice([0, 1, 2, 4], size=N, p=[0.5, 0.3, 0.15, 0.05]).astype(np.int32)
    dense = rng.random(N) < 0.9
    sparse = np.where(rng.random(N) < 0.2, ~dense, dense)
    return dense, sparse, group


def brute_means(values, group, weight):
    out = np.full(G, np.nan)
    for g in range(G):
        rows = [i for i in range(len(values)) if group[i] == g and weight[i] > 0]
        if rows:
            out[g] = sum(weight[i] * values[i] for i in rows) / sum(weight[i] for i in rows)
    return out


@pytest.mark.usefixtures("strict_dtype")
@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32, jnp.bfloat16])
def test_means_equal_a_loop(people, dtype):
    dense, _, group = people
    weight = np.random.default_rng(1).random(N).astype(np.float32)
    means = metrics.group_means(jnp.asarray(dense, dtype), group, G, weight=weight)
    assert means.dtype == jnp.float32
    np.testing.assert_allclose(means, brute_means(dense, group, weight), rtol=1e-5)


def test_padding_is_the_same_as_absence_whatever_it_holds(people):
    dense, _, group = people
    values = np.concatenate([dense, [np.nan, np.inf]]).astype(np.float32)
    padded_group = np.concatenate([group, [0, 1]]).astype(np.int32)
    weight = np.concatenate([np.ones(N), [0, 0]]).astype(np.float32)
    padded = metrics.group_means(values, padded_group, G, weight=weight)
    np.testing.assert_array_equal(padded, metrics.group_means(dense, group, G))


@pytest.mark.parametrize("outside", [-1, G, G + 7])
def test_people_of_no_group_are_left_out(people, outside):
    dense, _, group = people
    more = np.concatenate([group, [outside]]).astype(np.int32)
    np.testing.assert_array_equal(
        metrics.group_sums(np.append(dense, True), more, G), metrics.group_sums(dense, group, G)
    )


def test_an_empty_group_has_no_mean_and_no_gradient(people):
    dense, _, group = people
    values = jnp.asarray(dense, jnp.float32)
    assert jnp.isnan(metrics.group_means(values, group, G)[3])
    gradient = jax.grad(lambda v: jnp.nansum(metrics.group_means(v, group, G)))(values)
    assert jnp.isfinite(gradient).all()


def test_jit_and_vmap_agree_with_a_loop(people):
    dense, sparse, group = people
    stack = jnp.stack([jnp.asarray(dense), jnp.asarray(sparse)])
    found = jax.jit(jax.vmap(lambda v: metrics.group_means(v, group, G)))(stack)
    expected = jnp.stack([metrics.group_means(v, group, G) for v in stack])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_accuracy_of_logits_and_of_classes_agree():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 3)).astype(np.float32)
    y = rng.integers(0, 3, 50).astype(np.int32)
    classes = logits.argmax(-1).astype(np.int32)
    assert metrics.accuracy(logits, y) == metrics.accuracy(classes, y)
    np.testing.assert_allclose(metrics.accuracy(logits, y), (classes == y).mean(), rtol=1e-6)


def test_a_diverged_network_is_wrong_everywhere():
    logits = jnp.full((4, 2), jnp.nan)
    assert not metrics.correct(logits, jnp.zeros(4, jnp.int32)).any()


def test_classes_are_compared_in_a_dtype_that_holds_both():
    def right(prediction, y):
        return metrics.correct(np.asarray(prediction), np.asarray(y)).tolist()

    assert right(np.uint8([44]), [300]) == [False]
    assert right([300], np.uint8([44])) == [False]
    logits = np.zeros((1, 300), np.float32)
    logits[0, 256] = 1.0
    assert right(logits, np.uint8([0])) == [False]
    assert right(jnp.array([256.0], jnp.bfloat16), [257]) == [False]
    assert right([True, False], np.int8([1, 1])) == [True, False]


def test_infinite_logits_are_wrong_and_classes_that_are_ruled_out_are_not():
    logits = jnp.array([[jnp.inf, 0.0], [-jnp.inf, 0.0], [-jnp.inf, -jnp.inf]])
    assert metrics.correct(logits, jnp.array([0, 1, 0])).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("prediction", "y"),
    [((3, 1), (3,)), ((3,), (3, 1)), ((3, 2), (2,)), ((3,), (1,)), ((2, 3, 4), (2,))],
)
def test_shapes_that_do_not_fit_are_named(prediction, y):
    """Unchecked, as users have it: one logit per row would be right about class 0, whatever it says."""
    correct = inspect.unwrap(metrics.correct)
    with pytest.raises(ValueError, match=re.escape(str(prediction))) as raised:
        correct(jnp.zeros(prediction), jnp.zeros(y, int))
    assert str(y) in str(raised.value)


# --- accuracy gaps ---


@pytest.mark.parametrize("seed", range(10))
def test_excess_gaps_of_a_partition_average_to_zero(seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, G, N).astype(np.int32)
    dense, sparse = rng.random((2, N)) < [[0.9], [0.7]]
    found = metrics.accuracy_gaps(dense, sparse, group, G)
    share = found.size / N
    assert abs(float((share * found.excess).sum())) < 1e-6
    assert found.max_excess >= 0
    assert found.disparity >= found.max_excess
    np.testing.assert_allclose(found.max_excess, found.largest_loss - found.overall, atol=1e-7)


def test_a_copy_has_no_gap_at_all(people):
    dense, _, group = people
    found = metrics.accuracy_gaps(dense, dense, group, G)
    for value in (found.gap, found.excess):
        np.testing.assert_array_equal(value, np.where(np.arange(G) == 3, np.nan, 0.0))
    assert (found.max_excess, found.disparity, found.largest_loss, found.overall) == (0, 0, 0, 0)


def test_gaps_from_people_equal_gaps_from_accuracies(people):
    dense, sparse, group = people
    found = metrics.accuracy_gaps(dense, sparse, group, G)
    by_group = [metrics.group_means(c, group, G) for c in (dense, sparse)]
    excess = metrics.excess_accuracy_gap(*by_group, dense_overall=jnp.mean(dense), sparse_overall=jnp.mean(sparse))
    np.testing.assert_allclose(found.gap, metrics.accuracy_gap(*by_group), atol=1e-6)
    np.testing.assert_allclose(found.excess, excess, atol=1e-6)
    np.testing.assert_allclose(metrics.disparity(found.gap), found.disparity, atol=1e-6)


def test_order_of_people_and_names_of_groups_do_not_matter(people):
    dense, sparse, group = people
    rng = np.random.default_rng(3)
    found = metrics.accuracy_gaps(dense, sparse, group, G)
    order, name = rng.permutation(N), rng.permutation(G).astype(np.int32)
    again = metrics.accuracy_gaps(dense[order], sparse[order], name[group[order]], G)
    np.testing.assert_allclose(again.excess[name], found.excess, atol=1e-7)
    np.testing.assert_allclose(again.max_excess, found.max_excess, atol=1e-7)


@pytest.mark.usefixtures("strict_dtype")
def test_gaps_with_given_shares_take_the_same_average_off_on_every_split(people):
    dense, sparse, group = people
    plain = metrics.accuracy_gaps(dense, sparse, group, G)
    # The groups' own sizes are the average over the people.
    by_size = metrics.accuracy_gaps(dense, sparse, group, G, share=plain.size)
    np.testing.assert_allclose(by_size.excess, plain.excess, atol=1e-6)
    share = np.arange(1.0, G + 1, dtype=np.float32)
    found = metrics.accuracy_gaps(dense, sparse, group, G, share=share)
    gap = np.asarray(plain.gap, np.float64)
    seen = ~np.isnan(gap)
    assert not seen[3]  # and it has no part in the average, whatever its share
    by_hand = gap - np.average(gap[seen], weights=share[seen])
    np.testing.assert_allclose(found.excess, by_hand, atol=1e-6)
    np.testing.assert_array_equal(found.gap, plain.gap)


def test_swapping_the_networks_changes_the_sign(people):
    dense, sparse, group = people
    forth = metrics.accuracy_gaps(dense, sparse, group, G)
    back = metrics.accuracy_gaps(sparse, dense, group, G)
    np.testing.assert_array_equal(forth.excess, -back.excess)
    assert forth.disparity == back.disparity


def test_no_group_at_all_is_nan():
    assert jnp.isnan(metrics.max_excess_accuracy_gap(jnp.full(3, jnp.nan)))
    assert jnp.isnan(metrics.disparity(jnp.full(3, jnp.nan)))


# --- whose prediction changed ---


@pytest.mark.usefixtures("strict_dtype")
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_changed_and_newly_wrong_predictions_are_counted_one_by_one(classes, weighted):
    """Group 3 is empty, and two of a hundred people belong to no group: they count with everybody."""
    rng = np.random.default_rng(classes)
    y, before, after = rng.integers(0, classes, (3, N)).astype(np.int32)
    group = rng.choice([0, 1, 2, 4, -1], size=N, p=[0.5, 0.3, 0.13, 0.05, 0.02]).astype(np.int32)
    weight = rng.choice([0, 0.5, 2], N).astype(np.float32) if weighted else np.ones(N, np.float32)
    kinds: dict = {
        "changed": [a != b for a, b in zip(after, before, strict=True)],
        "newly_wrong": [b == t != a for t, a, b in zip(y, after, before, strict=True)],
        "newly_right": [b != t == a for t, a, b in zip(y, after, before, strict=True)],
    }
    found = metrics.prediction_changes(before, after, y, group, G, weight=weight if weighted else None)
    for name, people in kinds.items():
        np.testing.assert_allclose(getattr(found, name), brute_means(people, group, weight), rtol=1e-5)
        everybody = np.average(np.array(people, float), weights=weight)
        np.testing.assert_allclose(getattr(found, f"overall_{name}"), everybody, rtol=1e-5)
    # What is newly wrong less what is newly right is the accuracy that was lost.
    gaps = metrics.accuracy_gaps(before == y, after == y, group, G, weight=weight)
    np.testing.assert_allclose(found.newly_wrong - found.newly_right, gaps.gap, atol=1e-6)
    np.testing.assert_allclose(found.overall_newly_wrong - found.overall_newly_right, gaps.overall, atol=1e-6)
    outcomes = found.newly_wrong + found.newly_right
    if classes == 2:  # then a class that changed is an outcome that changed
        np.testing.assert_allclose(outcomes, found.changed, atol=1e-6)
    else:
        assert (np.delete(outcomes - found.changed, 3) < 0).all()
    assert np.isnan(found.changed[3])


def test_changes_of_many_seeds_are_those_of_each_and_know_no_true_class_by_another_name():
    rng = np.random.default_rng(0)
    y, before, after = rng.integers(0, 300, (3, 2, N)).astype(np.uint16)
    after = np.where(rng.random((2, N)) < 0.5, before, after)
    group = rng.integers(0, G, N).astype(np.uint8)
    mapped = jax.jit(jax.vmap(lambda b, a: metrics.prediction_changes(b, a, y[0], group, G)))(before, after)
    for seed in range(2):
        alone = metrics.prediction_changes(before[seed], after[seed], y[0], group, G)
        for a, b in zip(mapped, alone, strict=True):
            np.testing.assert_allclose(a[seed], b, rtol=1e-6)
    assert 0.4 < float(mapped.overall_changed[0]) < 0.6
    # 300 is not 44, though it is in eight bits; and the true classes are not looked at for what changed.
    narrow = metrics.prediction_changes(np.uint8([44]), np.uint16([300]), np.uint8([44]), [0], 1)
    assert narrow.changed.tolist() == narrow.newly_wrong.tolist() == [1.0]
    unknown = metrics.prediction_changes(before[0], after[0], np.full(N, -1), group, G)
    np.testing.assert_array_equal(unknown.changed, mapped.changed[0])
    assert float(unknown.overall_newly_wrong) == 0


# --- rates ---


@pytest.mark.parametrize("positive", [0, 1, 2])
def test_rates_agree_with_fairlearn(positive):
    import fairlearn.metrics as fairlearn

    rng = np.random.default_rng(positive)
    y, prediction = rng.integers(0, 3, (2, 400)).astype(np.int32)
    group = rng.integers(0, 4, 400).astype(np.int32)
    weight = rng.random(400).astype(np.float32)
    frame = fairlearn.MetricFrame(
        metrics={
            "true_positive": fairlearn.true_positive_rate,
            "false_positive": fairlearn.false_positive_rate,
            "selection": fairlearn.selection_rate,
        },
        y_true=(y == positive).astype(int),
        y_pred=(prediction == positive).astype(int),
        sensitive_features=group,
        sample_params={name: {"sample_weight": weight} for name in ("true_positive", "false_positive", "selection")},
    )
    rates = metrics.group_rates(prediction, y, group, 4, positive=positive, weight=weight)
    for name, rate in rates._asdict().items():
        np.testing.assert_allclose(rate, frame.by_group[name].to_numpy(), rtol=1e-5)
        np.testing.assert_allclose(metrics.disparity(rate), frame.difference()[name], rtol=1e-5)


def test_a_rate_of_nobody_is_nan_and_a_copy_changes_nothing():
    y, group = np.array([1, 1, 0], np.int32), np.array([0, 0, 1], np.int32)
    prediction = np.array([1, 0, 1], np.int32)
    rates = metrics.group_rates(prediction, y, group, 3)
    np.testing.assert_array_equal(rates.true_positive, [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(rates.false_positive, [np.nan, 1, np.nan])
    for change in metrics.rate_changes(prediction, prediction, y, group, 3):
        assert jnp.nansum(jnp.abs(change)) == 0


# --- precision: many people in float32 ---


def mixed(n, rng):
    """0.1 for most, something for the others, in five groups of very different sizes."""
    values = np.where(rng.random(n) < 0.7, 0.1, rng.gamma(1.0, 2.0, n)).astype(np.float32)
    return values, rng.choice(G, n, p=[0.9, 0.06, 0.03, 0.01, 0.0]).astype(np.int32)


def means_of(values, group, weight=None):
    weight = np.ones(len(values)) if weight is None else np.asarray(weight, np.float64)
    with np.errstate(invalid="ignore"):
        total = np.bincount(group, weight * np.asarray(values, np.float64), G)
        return total / np.bincount(group, weight, G)


def test_a_million_times_a_tenth_is_a_tenth():
    values, one = jnp.full(10**6, 0.1), jnp.zeros(10**6, jnp.int32)
    np.testing.assert_allclose(metrics.group_means(values, one, 1), 0.1, rtol=2e-7)
    np.testing.assert_allclose(metrics.group_sums(values, one, 1), 1e5, rtol=2e-7)
    gaps = metrics.accuracy_gaps(values, jnp.zeros(10**6), one, 1)
    np.testing.assert_allclose(gaps.excess, 0.0, atol=2e-8)
    np.testing.assert_allclose([gaps.overall, gaps.gap[0]], 0.1, rtol=2e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("jit", [False, True])
def test_means_of_many_people_have_the_precision_of_float32(weighted, jit):
    rng = np.random.default_rng(1)
    values, group = mixed(300_000, rng)
    weight = rng.random(300_000).astype(np.float32) if weighted else None
    means = lambda v, g: metrics.group_means(v, g, G, weight=weight)
    found = (jax.jit(means) if jit else means)(values, group)
    np.testing.assert_allclose(found, means_of(values, group, weight), rtol=1e-6)
    order = np.argsort(group, kind="stable")  # and in whatever order they come
    again = metrics.group_means(values[order], group[order], G, weight=None if weight is None else weight[order])
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_many_groups_and_many_people():
    """Where groups times blocks would be too many."""
    group = np.arange(200_000, dtype=np.int32) % 40_000
    group[: len(group) // 2] = 0
    values = np.full(200_000, 0.1, np.float32)
    np.testing.assert_allclose(metrics.group_means(values, group, 40_000), 0.1, rtol=3e-7)


def test_people_are_counted_beyond_the_whole_numbers_of_float32():
    many = jnp.ones(2**24 + 2**10, bool)
    nobodys = jnp.zeros(many.shape, jnp.int8)
    assert metrics.group_counts(nobodys, 1)[0] == 2**24 + 2**10
    assert metrics.group_means(many, nobodys, 1)[0] == 1
    assert metrics.accuracy(many, many) == 1


@pytest.mark.parametrize("scale", [1e-30, 1 / 1500, 1.0, 7.0, 1e30])
def test_how_many_people_weights_stand_for_does_not_depend_on_their_scale(scale):
    group, weight = np.arange(1500) % 3, np.where(np.arange(1500) % 6 < 3, 1, 0)
    found = metrics.effective_counts(group, 4, weight=(weight * scale).astype(np.float32))
    np.testing.assert_allclose(found, [250, 250, 250, 0], rtol=1e-6)
    np.testing.assert_array_equal(metrics.effective_counts(group, 4), [500, 500, 500, 0])


def test_infinite_values_stay_in_their_group_however_many_people_there_are():
    values, group = mixed(5000, np.random.default_rng(2))
    values[group == 2] = np.inf
    found = np.asarray(metrics.group_means(values, group, G))
    assert found[2] == np.inf
    np.testing.assert_allclose(found[[0, 1, 3]], means_of(values, group)[[0, 1, 3]], rtol=3e-7)


def test_the_gradient_of_a_mean_of_many_people_is_that_of_a_mean():
    values, group = mixed(5000, np.random.default_rng(3))
    gradient = jax.grad(lambda v: metrics.group_means(v, group, G)[1])(values)
    np.testing.assert_allclose(gradient, (group == 1) / (group == 1).sum(), rtol=1e-6)


@pytest.mark.parametrize("of", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_the_largest_of_32_bits_is_not_minus_one(of):
    large, small = of(np.array([2**32 - 1, 2**31, 7], np.uint32)), of(np.array([-1, -(2**31), 7], np.int32))
    assert metrics.correct(large, small).tolist() == metrics.correct(small, large).tolist() == [False, False, True]
    assert metrics.correct(large, large).tolist() == [True] * 3
