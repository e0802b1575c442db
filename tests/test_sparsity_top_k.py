"""The exact top-k against a sort in NumPy."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import sparsity
from jaxfair.sparsity import _sortable as search
from jaxfair.sparsity._sortable import sortable
from jaxfair.sparsity.top_k import top_k_of_groups

pytestmark = pytest.mark.usefixtures("strict_dtype")

RNG = np.random.default_rng(0)
top_k = jax.jit(sparsity.top_k)
global_top_k = jax.jit(sparsity.global_top_k)


def brute_force(scores, k):
    """NaN, then the largest first, and among equals the lowest flat index; bool of the shape of `scores`."""
    with np.errstate(invalid="ignore"):  # a signalling NaN may become a quiet one
        flat = np.asarray(scores, np.float64).reshape(-1)
    order = np.lexsort((np.arange(flat.size), -flat, ~np.isnan(flat)))
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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
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


@pytest.mark.slow
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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_keys_are_in_the_order_of_all_numbers_of_16_bits(dtype):
    x = jnp.arange(1 << 16, dtype=jnp.uint16).view(dtype)
    keys, values = np.asarray(sortable(x)).astype(int), np.asarray(x.astype(jnp.float32))
    nan = np.isnan(values)
    assert set(keys[nan]) == {keys.max()}
    order = np.argsort(keys[~nan], kind="stable")
    rises = np.diff(values[~nan][order]) > 0  # also from one denormal number to the next
    np.testing.assert_array_equal(np.diff(keys[~nan][order]) > 0, rises)
    assert keys.min() > 0
    assert keys.max() < 2**16 - 1


# More than `search.LARGE`, so that a sample starts the search, and no multiple of the length of a row.
SIZE = (1 << 16) + 4321
NORMAL = RNG.normal(size=SIZE).astype(np.float32)
POSITION = np.arange(SIZE)
HARD = {
    "normal": NORMAL,
    "sorted": np.sort(NORMAL),
    "all equal": np.full(SIZE, -2.5),
    "zeros of both signs": np.where(POSITION % 3 == 0, -0.0, 0.0),
    "all NaN": np.full(SIZE, np.nan),
    "few values": np.rint(NORMAL),
    "pairs": np.repeat(NORMAL, 2)[:SIZE],
    "rounded": np.asarray(jnp.asarray(NORMAL).astype(jnp.bfloat16).astype(jnp.float32)),
    "pruned": np.where(NORMAL < 1.0, -np.inf, NORMAL),
    "pruned in one place": np.where(POSITION < 0.9 * SIZE, -np.inf, np.abs(NORMAL)),
    "a run of ties": np.where((POSITION > 20_000) & (POSITION < 50_000), 0.5, NORMAL),
    "not finite": np.select([i == POSITION % 7 for i in range(4)], [np.nan, np.inf, -np.inf, 0.0], NORMAL),
    "denormal": (RNG.integers(0, 1 << 12, SIZE).astype(np.uint32)).view(np.float32),
    "all bits": RNG.integers(0, 1 << 32, SIZE, dtype=np.uint64).astype(np.uint32).view(np.float32),
    "all magnitudes": 10.0 ** RNG.uniform(-44, 38, SIZE),
    "two far clusters": np.where(POSITION % 2 == 0, 1.0, 1e30) * (1 + 1e-6 * NORMAL),
    "the sample is larger": np.where(POSITION % 8192 % search.STRIDE == 0, 100.0 + NORMAL, NORMAL),
    "the sample is smaller": np.where(POSITION % 8192 % search.STRIDE == 0, -100.0, NORMAL),
    "dense near the least": 1.0 + np.float32(2.0**-23) * np.exp2(RNG.uniform(0, 22, SIZE)),
}  # fmt: skip
KS = (0, 1, 2, 37, SIZE // 50, SIZE // 10, SIZE // 2, SIZE - 100, SIZE - 1, SIZE)


@pytest.mark.parametrize("name", HARD)
def test_hard_data_equal_a_sort(name):
    scores = HARD[name].astype(np.float32)
    for k in KS:
        np.testing.assert_array_equal(top_k(scores, k), brute_force(scores, k), err_msg=str(k))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float64])
@pytest.mark.slow
def test_many_numbers_of_other_widths_equal_a_sort(dtype):
    with jax.enable_x64(dtype is jnp.float64):
        for name in ("normal", "not finite", "all magnitudes"):
            scores = jnp.asarray(HARD[name]).astype(dtype)
            for k in KS:
                expected = brute_force(scores, k)
                np.testing.assert_array_equal(top_k(scores, k), expected, err_msg=f"{name} {k}")


def test_ties_go_by_leaf_order_across_rows_and_groups():
    """Three groups of leaves of many sizes, few values, so that every k cuts through ties."""
    sizes = [(5, 40_000, 1), (17, 300, 30_000, 2), (8_000,)]
    groups = [[RNG.integers(0, 3, n).astype(np.float32) for n in group] for group in sizes]
    for share in (0.0, 0.001, 0.2, 1 / 3, 0.5, 0.9, 1.0):
        ks = [int(share * sum(group)) for group in sizes]
        for group, k, masks in zip(groups, ks, jax.jit(top_k_of_groups)(groups, ks), strict=True):
            expected = brute_force(np.concatenate(group), k)
            np.testing.assert_array_equal(np.concatenate(masks), expected)


def test_lanes_of_hard_data_are_searched_as_if_alone():
    names = ("normal", "all equal", "pruned", "not finite", "the sample is larger")
    scores = np.stack([HARD[name].astype(np.float32) for name in names])
    lanes = jax.jit(jax.vmap(sparsity.top_k))
    for k in ([SIZE // 10] * 5, [0, 77, SIZE // 20, SIZE // 7, SIZE], [SIZE // 2] * 5):
        for lane, mask in enumerate(lanes(scores, np.array(k))):
            np.testing.assert_array_equal(mask, top_k(scores[lane], k[lane]), err_msg=names[lane])


def test_inside_of_a_scan_and_a_conditional():
    scores = jnp.asarray(CASES["ties"], jnp.float32)

    @jax.jit
    def kept(ks):
        def body(total, k):
            mask = jax.lax.cond(k % 2 == 0, sparsity.top_k, lambda s, _: jnp.zeros(s.shape, bool), scores, k)
            return total + jnp.sum(mask, dtype=jnp.int32), mask

        return jax.lax.scan(body, jnp.int32(0), ks)

    total, masks = kept(jnp.arange(6))
    assert int(total) == 0 + 2 + 4
    for k in (0, 2, 4):
        np.testing.assert_array_equal(masks[k], brute_force(scores, k))


def test_arrays_without_entries_have_empty_masks():
    empty = jnp.zeros((0, 3))
    masks = top_k_of_groups([[empty], [jnp.array([1.0, 2.0]), empty], []], [1, 1, 0])
    assert [[m.tolist() for m in group] for group in masks] == [[[]], [[False, True], []], []]
    assert top_k_of_groups([[empty]], [0])[0][0].shape == (0, 3)


def test_passes_are_few_whatever_the_data(monkeypatch):
    seen, count = [], search.count

    def counting(rows, owner, thresholds, dtype):
        if rows.size >= SIZE:
            jax.debug.callback(lambda _: seen.append(1), thresholds)
        return count(rows, owner, thresholds, dtype)

    monkeypatch.setattr(search, "count", counting)
    counted = jax.jit(lambda scores, k: sparsity.top_k(scores[:-1], k))  # of a size of its own
    # Each pass leaves a third of the interval at most: 21 for 32 bits, and the one of the sample.
    most = dict.fromkeys(HARD, 22) | {"normal": 7, "all equal": 1, "few values": 1, "pruned": 7}
    for name, limit in most.items():
        seen.clear()
        mask = counted(HARD[name].astype(np.float32), SIZE // 10)
        jax.effects_barrier()
        assert int(mask.sum()) == SIZE // 10
        assert 1 <= len(seen) <= limit, name


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jaxfair import sparsity

assert jax.device_count() == 2
rng = np.random.default_rng(0)
tree = {"a": rng.normal(size=(512, 300)).astype(np.float32), "b": np.rint(rng.normal(size=(6, 10))).astype(np.float32)}
search = jax.jit(sparsity.global_top_k)
k = 140_000
flat = np.concatenate([tree["a"].ravel(), tree["b"].ravel()])
expected = np.zeros(flat.size, bool)
expected[np.argsort(-flat, stable=True)[:k]] = True
for axis in (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(axis,))
    specs = {"a": jax.P("d"), "b": jax.P(None, "d")}
    spread = jax.tree.map(lambda x, s: jax.device_put(x, jax.NamedSharding(mesh, s)), tree, specs)
    found = search(spread, k)
    np.testing.assert_array_equal(np.concatenate([np.ravel(found["a"]), np.ravel(found["b"])]), expected)
print("equal")
"""


@pytest.mark.slow
def test_scores_on_two_devices_give_the_masks_of_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    run = subprocess.run(
        [sys.executable, "-c", SHARDED],
        capture_output=True, text=True, timeout=300, env=os.environ | {"XLA_FLAGS": flags},
    )  # fmt: skip
    assert run.stdout == "equal\n", run.stderr
