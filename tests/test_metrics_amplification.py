"""Directional bias amplification against loops over pairs, and thresholds against a search."""

import jax
import numpy as np
import pytest

from jaxfair import metrics

N, M, A, T = 120, 90, 3, 4
COLUMNS = ("given", "true", "predicted", "train_given", "train_true")
amplification_of = jax.jit(metrics.amplification)


@pytest.fixture(scope="module")
def people():
    """Several labels may be 1 at once; nobody of test has attribute 2, and pair (0, 0) is independent on train."""
    rng = np.random.default_rng(0)
    sizes = {"given": (N, A), "true": (N, T), "predicted": (N, T), "train_given": (M, A), "train_true": (M, T)}
    made = {name: (rng.random(size) < 0.4).astype(np.int32) for name, size in sizes.items()}
    made["given"][:, 2] = 0
    made["train_given"][:, 0] = np.arange(M) % 2
    made["train_true"][:, 0] = np.arange(M) % 3 == 0
    return made


def brute(given, true, predicted, train_given, train_true):
    """The pairs, one after another."""
    pairs = np.full((given.shape[1], true.shape[1]), np.nan)
    for a, t in np.ndindex(pairs.shape):
        both = int((train_given[:, a] & train_true[:, t]).sum()) * len(train_given)
        apart = int(train_given[:, a].sum()) * int(train_true[:, t].sum())
        here = given[:, a] == 1
        if here.any():
            pairs[a, t] = np.sign(both - apart) * (predicted[here, t].mean() - true[here, t].mean())
    return pairs


def test_the_pairs_are_those_of_a_loop(people):
    wanted = brute(**people)
    found = amplification_of(**people)
    np.testing.assert_allclose(found.pairs, wanted, atol=1e-6)
    np.testing.assert_allclose(found.mean, np.nanmean(wanted), rtol=1e-5)
    assert found.defined == 2 * T
    assert (found.direction[0, 0], found.pairs[0, 0]) == (0, 0)


def test_the_other_direction_is_given_and_predicted_exchanged(people):
    """By the definition, written from the other end: P(Ahat | T) - P(A | T)."""
    rng = np.random.default_rng(1)
    said = (rng.random((N, A)) < 0.5).astype(np.int32)
    found = metrics.amplification(
        people["true"], people["given"], said, train_given=people["train_true"], train_true=people["train_given"]
    )
    forth = amplification_of(**people)
    np.testing.assert_array_equal(found.direction, forth.direction.T)
    for t, a in np.ndindex(T, A):
        here = people["true"][:, t] == 1
        delta = said[here, a].mean() - people["given"][here, a].mean()
        np.testing.assert_allclose(found.pairs[t, a], forth.direction[a, t] * delta, atol=1e-6)


def test_a_perfect_predictor_amplifies_nothing_and_an_extreme_one_at_most_1(people):
    assert amplification_of(**(people | {"predicted": people["true"]})).mean == 0
    one = np.ones((N, 1), np.int32)
    train = np.array([[1], [1], [0]])
    most = metrics.amplification(one, 0 * one, one, train_given=train, train_true=train)
    least = metrics.amplification(one, one, 0 * one, train_given=train, train_true=train)
    assert (most.mean, least.mean) == (1, -1)
    nobody = metrics.amplification(0 * one, one, one, train_given=train, train_true=train)
    assert np.isnan(nobody.mean)
    assert nobody.defined == 0


def test_padding_is_the_same_as_absence_and_a_weight_of_two_as_two_people(people):
    twice = {name: np.concatenate([a, a[:7]]).astype(np.float32) for name, a in people.items()}
    weight = {"weight": np.ones(N + 3), "train_weight": np.ones(M + 3)}
    padded = {
        name: np.concatenate([a, np.full((3, a.shape[1]), np.nan)]).astype(np.float32) for name, a in people.items()
    }
    for one in weight.values():
        one[:7], one[-3:] = 2, 0
    found = metrics.amplification(**padded, **weight)
    wanted = amplification_of(**twice)
    np.testing.assert_allclose(found.pairs, wanted.pairs, atol=1e-6)
    np.testing.assert_array_equal(found.direction, wanted.direction)


def test_a_population_is_vmapped_and_its_interval_is_students(people):
    rng = np.random.default_rng(2)
    said = (rng.random((5, N, T)) < 0.5).astype(np.int32)
    rest = {name: people[name] for name in COLUMNS if name != "predicted"}
    means = jax.vmap(lambda p: metrics.amplification(predicted=p, **rest).mean)(said)
    wanted = [np.nanmean(brute(predicted=one, **rest)) for one in said]
    np.testing.assert_allclose(means, wanted, rtol=1e-4, atol=1e-6)
    assert metrics.t_interval(means).half_width > 1.5 * 1.96 * np.std(means) / np.sqrt(5)


@pytest.mark.parametrize("distinct", [True, False])
def test_thresholds_give_as_many_as_there_are(distinct):
    rng = np.random.default_rng(3)
    scores = rng.random((50, T)) if distinct else rng.integers(0, 5, (50, T)).astype(float)
    positive = rng.random((50, T)) < np.array([0.0, 0.3, 0.7, 1.0])
    cut = np.asarray(metrics.matched_thresholds(scores, positive))
    for t in range(T):
        many, wanted = (scores[:, t] > cut[t]).sum(), positive[:, t].sum()
        # No threshold at all comes nearer.
        every = [(scores[:, t] > c).sum() for c in (-np.inf, *scores[:, t])]
        assert abs(many - wanted) == min(abs(np.array(every) - wanted))
        if distinct and wanted < 50:
            np.testing.assert_allclose(cut[t], np.sort(scores[:, t])[::-1][wanted], rtol=1e-6)
    assert np.isneginf(cut[3])
    gone = np.concatenate([scores, np.full((2, T), np.nan)])  # who has no score is never positive
    np.testing.assert_array_equal(metrics.matched_thresholds(gone, np.pad(positive, ((0, 2), (0, 0)))), cut)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"predicted": np.ones((N, T + 1))}, r"predicted of shape \(120, 5\) on test: give"),
        ({"given": np.ones(N)}, r"given of shape \(120,\)"),
        ({"train_true": np.ones((M + 1, T))}, r"true of shape \(91, 4\) on train"),
        ({"train_true": np.ones((M, T + 1))}, r"3 and 4 columns, on train 3 and 5: give the same columns"),
        ({"weight": np.ones(N - 1)}, r"weight of shape \(119,\) on test"),
    ],
)
def test_what_cannot_be_is_one_line(people, wrong, words):
    with pytest.raises(ValueError, match=words) as error:
        metrics.amplification(**(people | wrong))
    assert "\n" not in str(error.value)


def test_thresholds_need_two_columns():
    with pytest.raises(ValueError, match=r"scores of shape \(3,\), positive of \(3,\): give"):
        metrics.matched_thresholds([0.1, 0.2, 0.3], [0, 1, 0])
