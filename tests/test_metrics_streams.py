"""Streams: what comes batch by batch, in any order and on several devices, is what whole arrays give."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import metrics
from jaxfair.metrics._totals import add, read, total

N, G, C, B = 96, 4, 3, 12
RNG = np.random.default_rng(0)
#: Group 2 is empty, and some belong to none.
GROUP = RNG.choice([0, 1, 3, -1], N, p=[0.5, 0.3, 0.15, 0.05])
WEIGHT = RNG.choice([0.0, 0.3, 1.0, 2.7], N).astype(np.float32)
CLASSES, PREDICTED = RNG.integers(0, C, (2, N))
#: A thousand plus or minus one: squares about 0 would lose it.
VALUES = (1000 + RNG.normal(size=N)).astype(np.float32)
GUESSES = (VALUES + RNG.normal(size=N)).astype(np.float32)
LABELS, GIVEN = RNG.integers(0, 2, (2, N, 2))


class Case(NamedTuple):
    stream: metrics.Stream
    whole: Any
    arrays: tuple[np.ndarray, ...]


CASES = {
    "moments": Case(metrics.stream_moments(G), metrics.group_moments, (VALUES, GROUP)),
    "confusion": Case(
        metrics.stream_confusion(G, C),
        functools.partial(metrics.confusion, num_classes=C),
        (PREDICTED, CLASSES, GROUP),
    ),
    "multilabel": Case(metrics.stream_multilabel_confusion(G, 2), metrics.multilabel_confusion, (GIVEN, LABELS, GROUP)),
    "regression": Case(metrics.stream_regression(G), metrics.regression_errors, (GUESSES, VALUES, GROUP)),
}
each = pytest.mark.parametrize("name", CASES)


def in_batches(case, order, state=None):
    state = case.stream.init() if state is None else state
    for rows in np.reshape(order, (-1, B)):
        state = case.stream.update(state, *(x[rows] for x in case.arrays), weight=WEIGHT[rows])
    return state


def assert_close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-6)


@each
def test_batches_in_any_order_and_on_any_device_are_the_whole(name):
    case = CASES[name]
    whole = case.whole(*case.arrays, G, weight=WEIGHT)
    assert all((jnp.isnan(leaf[2]) | (leaf[2] == 0)).all() for leaf in jax.tree.leaves(whole))
    forth, back = (in_batches(case, order) for order in (np.arange(N), RNG.permutation(N)))
    assert_close(case.stream.compute(forth), whole)
    assert_close(case.stream.compute(back), whole)
    # Two devices that never saw each other's people, one that saw none, and both ways round.
    half = N // 2
    parts = [in_batches(case, rows) for rows in (np.arange(half), np.arange(half, N))]
    for states in ([*parts, case.stream.init()], [case.stream.init(), *parts[::-1]]):
        assert_close(case.stream.compute(functools.reduce(case.stream.merge, states)), whole)


@each
def test_nobody_changes_nothing_and_is_nobody(name):
    case = CASES[name]
    state = in_batches(case, np.arange(B))
    padded = case.stream.update(state, *(x[:B] for x in case.arrays), weight=np.zeros(B, np.float32))
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    nobody = case.stream.compute(case.stream.init())
    for leaf in jax.tree.leaves(nobody):
        assert (np.isnan(leaf) | (leaf == 0)).all()


def test_a_stream_may_be_scanned_and_mapped():
    """One state for each of two lanes, batches scanned within, joined at the end."""
    stream = CASES["confusion"].stream
    arrays = [jnp.asarray(x).reshape(2, -1, B) for x in CASES["confusion"].arrays]

    def lane(arrays):
        return jax.lax.scan(lambda state, batch: (stream.update(state, *batch), None), stream.init(), arrays)[0]

    lanes = jax.jit(jax.vmap(lane))(arrays)
    joined = stream.merge(*(jax.tree.map(lambda x, i=i: x[i], lanes) for i in range(2)))
    np.testing.assert_array_equal(
        stream.compute(joined), metrics.confusion(*CASES["confusion"].arrays, G, num_classes=C)
    )


def test_a_batch_of_another_shape_of_rows_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"values of shape \(3,\), group of shape \(2,\)") as raised:
        CASES["moments"].stream.update(CASES["moments"].stream.init(), np.zeros(3), np.zeros(2, int))
    assert "\n" not in str(raised.value)


def test_sums_stay_precise_over_many_batches():
    """Ten thousand times a tenth, and more ones than float32 can count: both to the last digit."""

    def step(state, value):
        return add(state, total(value)), state.value

    few = jax.jit(lambda start, terms: jax.lax.scan(step, total(start), terms)[0])
    tenths = few(jnp.float32(0), jnp.full(10_000, 0.1, jnp.float32))
    np.testing.assert_allclose(read(tenths), 10_000 * np.float64(np.float32(0.1)), rtol=6e-8)
    assert abs(float(tenths.value) - 1000) > 1e-2  # what a sum alone has: it stands still in between
    ones = few(jnp.float32(2**24), jnp.ones(10_000, jnp.float32))
    assert read(ones) == 2**24 + 10_000
    assert read(add(total(jnp.float32(np.inf)), total(jnp.float32(1)))) == np.inf


@pytest.mark.slow
def test_moments_stay_precise_over_many_batches():
    """A thousand plus or minus one in twenty thousand batches of five, against float64."""
    values = (1000 + np.random.default_rng(1).normal(size=(20_000, 5))).astype(np.float32)
    stream, group = metrics.stream_moments(1), jnp.zeros(5, jnp.int32)
    state, _ = jax.jit(
        lambda v: jax.lax.scan(lambda state, batch: (stream.update(state, batch, group), None), stream.init(), v)
    )(values)
    found = stream.compute(state)
    exact = values.astype(np.float64)
    np.testing.assert_allclose([found.size[0], found.mean[0]], [exact.size, exact.mean()], rtol=1e-7)
    np.testing.assert_allclose(found.variance[0], exact.var(), rtol=1e-6)
