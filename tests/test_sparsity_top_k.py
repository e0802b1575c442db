"""The exact top-k against a sort in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import sparsity
from jaxfair.sparsity.top_k import top_k_of_groups

pytestmark = pytest.mark.usefixtures("strict_dtype")

RNG = np.random.default_rng(0)
top_k = jax.jit(sparsity.top_k)
global_top_k = jax.jit(sparsity.global_top_k)


def brute_force(scores, k):
    """Largest first, and among equals the lowest flat index first; bool of the shape of `scores`."""
    flat = np.asarray(scores, np.float64).reshape(-1)
    order = np.lexsort((np.arange(flat.size), -flat))
    mask = np.zeros(flat.size, bool)
    mask[order[:k]] = True
    return mask.reshape(np.shape(scores))


CASES = {
    "distinct": RNG.permutation(24).reshape(4, 6) - 12.0,
    "ties": RNG.integers(-2, 3, size=(3, 3, 2)).astype(float),
    "all equal": np.full((5,), 0.25),
    "one": np.array([-3.0]),
    "scalar": np.array(2.0),
    "signed zeros": np.array([0.0, -0.0, 1.0, -0.0, 0.0, -1.0]),
    "infinite": np.array([np.inf, -np.inf, 0.0, 1e30, np.inf, -1e30, -np.inf]),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_every_k_equals_a_sort(dtype):
    groups = {name: [jnp.asarray(case).astype(dtype)] for name, case in CASES.items()}
    search = jax.jit(lambda groups, ks: top_k_of_groups(groups, list(ks)))  # one program for all
    for k in range(25):
        ks = [min(k, scores.size) for (scores,) in groups.values()]
        masks = search(list(groups.values()), jnp.array(ks))
        for k_, (name, (scores,)), (mask,) in zip(ks, groups.items(), masks, strict=True):
            expected = brute_force(scores.astype(jnp.float32), k_)
            np.testing.assert_array_equal(mask, expected, err_msg=name)


def test_denormal_numbers_are_told_apart():
    scores = jnp.array([1, 3, 2, 0], jnp.uint32).view(jnp.float32)  # multiples of 1.4e-45
    assert top_k(scores, 2).tolist() == [False, True, True, False]


def test_nan_is_the_largest_and_the_count_stays():
    scores = jnp.array([np.nan, 1.0, -np.nan, np.inf])
    assert top_k(scores, 2).tolist() == [True, False, True, False]
    assert top_k(scores, 3).tolist() == [True, False, True, True]


def test_double_precision():
    with jax.enable_x64(True):
        scores = jnp.array([1.0, 1.0 + 1e-12, 1.0 - 1e-12, 1.0], jnp.float64)
        assert sparsity.top_k(scores, 2).tolist() == [True, True, False, False]
        assert sparsity.top_k(scores, 3).tolist() == [True, True, False, True]


def test_k_out_of_range_keeps_none_or_all():
    scores = jnp.array([1.0, 2.0])
    assert top_k(scores, -3).tolist() == [False, False]
    assert top_k(scores, 9).tolist() == [True, True]


def test_vmapped_with_a_k_per_lane():
    scores = jnp.asarray(RNG.integers(0, 4, size=(5, 12)), jnp.float32)
    k = jnp.array([0, 3, 5, 11, 12])
    masks = jax.jit(jax.vmap(sparsity.top_k))(scores, k)
    for lane in range(5):
        np.testing.assert_array_equal(masks[lane], brute_force(scores[lane], int(k[lane])))


@pytest.mark.parametrize("values", [3, 1000], ids=["ties", "distinct"])
def test_global_goes_by_leaf_order_then_flat_index(values):
    shapes = {"a": (3, 2), "b": {"c": (4,), "d": (1, 1)}, "e": (5,)}
    scores = jax.tree.map(
        lambda shape: jnp.asarray(RNG.integers(0, values, shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    flat = np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(scores)])
    for k in range(flat.size + 1):
        masks = global_top_k(scores, jnp.int32(k))
        assert jax.tree.structure(masks) == jax.tree.structure(scores)
        got = np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(masks)])
        np.testing.assert_array_equal(got, brute_force(flat, k))


def test_global_over_two_dtypes_compares_values():
    scores = [jnp.array([1.0, 3.0], jnp.bfloat16), jnp.array([2.0, 1.0], jnp.float32)]
    with jax.numpy_dtype_promotion("standard"):
        masks = sparsity.global_top_k(scores, 2)
    assert [m.tolist() for m in masks] == [[False, True], [True, False]]


def test_groups_do_not_compete():
    big, small = jnp.array([9.0, 8.0, 7.0]), jnp.array([1.0, 2.0])
    masks = top_k_of_groups([[big], [small]], [1, 2])
    assert [m.tolist() for (m,) in masks] == [[True, False, False], [True, True]]
    assert top_k_of_groups([], []) == []


def test_a_permutation_of_distinct_scores_permutes_the_mask():
    scores = jnp.asarray(RNG.permutation(30), jnp.float32)
    order = RNG.permutation(30)
    np.testing.assert_array_equal(top_k(scores[order], 11), np.asarray(top_k(scores, 11))[order])


def test_k_is_traced_so_one_program_serves_all():
    traces = []

    @jax.jit
    def f(scores, k):
        traces.append(1)
        return sparsity.top_k(scores, k)

    assert [int(f(jnp.arange(8.0), k).sum()) for k in range(9)] == list(range(9))
    assert len(traces) == 1
