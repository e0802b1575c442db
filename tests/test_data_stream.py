"""Streaming gives the same batches as memory, in the order that was asked for."""

import threading

import jax
import numpy as np
import pytest

from jaxfair import data


@pytest.fixture(scope="module")
def split():
    return data.load("digits").train


def lazy(split):
    """The same split with its features behind a source that numbers its rows otherwise."""
    shift = 1000
    source = data.Source(lambda row: np.asarray(split.x)[row - shift], np.arange(len(split.y)) + shift, (8, 8, 1))
    return split._replace(x=source)


def test_a_source_is_indexed_like_its_array(split):
    source = lazy(split).x
    assert (source.shape, source.dtype, len(source)) == (split.x.shape, split.x.dtype, len(split.x))
    for at in (3, -1, slice(2, 9, 3), np.array([5, 5, 0]), np.array([[1, 2], [3, 4]]), [7]):
        np.testing.assert_array_equal(source[at], split.x[at])


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_the_stream_is_the_gathered_batches_bit_for_bit(split, num_threads):
    order = np.random.default_rng(0).permutation(len(split.y))[:320].reshape(10, 32)
    expected = [data.gather(split, step) for step in order]
    for one in (split, lazy(split)):
        got = list(data.stream(one, order, num_threads=num_threads))
        assert len(got) == 10
        for a, b in zip(got, expected, strict=True):
            jax.tree.map(np.testing.assert_array_equal, tuple(a), tuple(b))
            assert [f.dtype for f in a] == [f.dtype for f in b]


def test_a_stream_resumes_anywhere(split):
    order = np.arange(40).reshape(10, 4)
    rest = [b.index.tolist() for b in data.stream(lazy(split), order[6:])]
    assert rest == order[6:].tolist()


def test_reading_is_parallel(split):
    barrier = threading.Barrier(2, timeout=20)

    def read(row):
        if row < 2:
            barrier.wait()  # passes only if rows 0 and 1 are read at the same time
        return np.zeros((8, 8, 1), np.float32)

    both = split._replace(x=data.Source(read, np.arange(len(split.y)), (8, 8, 1)))
    assert len(list(data.stream(both, np.array([[0], [1]]), num_threads=2))) == 2


def test_in_memory_undoes_a_source(split):
    np.testing.assert_array_equal(data.in_memory(lazy(split)).x, split.x)
    assert data.in_memory(split) is split
    assert data.num_bytes(lazy(split)) == split.x.nbytes


def test_no_step_no_batch(split):
    assert list(data.stream(split, np.zeros((0, 4), int))) == []


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (np.arange(4), "[T, B]"),
        (np.ones((2, 2)), "float64"),
        (np.array([[0, 5000]]), "5000"),
        (np.array([[-1, 2]]), "-1"),
    ],
)
def test_a_wrong_order_is_refused(split, order, words):
    with pytest.raises(data.DataError) as caught:
        data.stream(split, order)
    assert words in str(caught.value)


def test_a_row_of_another_shape_is_refused(split):
    odd = data.Source(lambda row: np.zeros((row, 1), np.float32), np.array([2, 3]), (2, 1))
    with pytest.raises(data.DataError, match="row 3"):
        odd[[0, 1]]


def test_a_sample_of_a_file_sorted_by_class_has_every_class(split):
    order = np.argsort(np.asarray(split.y), kind="stable")
    by_class = jax.tree.map(lambda a: np.asarray(a)[order], split)
    drawn = data.sample(by_class, 200, seed=0)
    assert np.bincount(drawn.y, minlength=10).min() >= 8  # of 20 each; the first 200 rows have two classes
    np.testing.assert_array_equal(drawn.index, np.arange(200, dtype=np.int32), strict=True)
    rows = {tuple(x.ravel()) for x in np.asarray(by_class.x)}
    assert all(tuple(x.ravel()) in rows for x in drawn.x)
    again, other = (data.sample(by_class, 200, seed=s) for s in (0, 1))
    np.testing.assert_array_equal(again.x, drawn.x)
    assert not np.array_equal(other.x, drawn.x)
    np.testing.assert_array_equal(data.sample(lazy(split), 7, seed=3).x, data.sample(split, 7, seed=3).x)
    assert len(data.sample(split, 10**6, seed=0).y) == len(split.y)
    with pytest.raises(data.DataError, match="0 examples"):
        data.sample(split, 0, seed=0)
