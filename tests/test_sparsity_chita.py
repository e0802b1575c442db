"""CHITA against every support of small problems, closed forms, and itself by another route."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import models, sparsity
from jaxfair.sparsity.second_order import _least_squares as least_squares

pytestmark = pytest.mark.usefixtures("strict_dtype")

RNG = np.random.default_rng(0)
RIDGE, P, NUM = 1e-3, 10, 60


def problems(n):
    """Stored inputs: columns whose sizes differ by a log-normal factor, in float64."""
    gradients = RNG.normal(size=(NUM, n, P)) * np.exp(RNG.normal(size=(NUM, 1, P)) / 2)
    return gradients, RNG.normal(size=(NUM, P)), RNG.integers(2, 9, size=NUM)


# n < k for most, and n >= k for all.
PROBLEMS = {4: problems(4), 20: problems(20)}


def objective(A, dense, w, ridge=RIDGE, first_order=0.0):
    residual = A @ (dense - w)
    penalty = ridge * len(A) / 2 * np.sum((w - dense) ** 2)
    return residual @ residual / 2 + penalty - first_order * residual.sum()


def best_on(A, dense, support, ridge=RIDGE, first_order=0.0):
    """The best weights with this support, by the normal equations."""
    support = list(support)
    dead = np.setdiff1d(np.arange(len(dense)), support)
    target = A[:, dead] @ dense[dead] - first_order
    gram = A[:, support].T @ A[:, support] + ridge * len(A) * np.eye(len(support))
    w = np.zeros_like(dense)
    w[support] = dense[support] + np.linalg.solve(gram, A[:, support].T @ target)
    return w


def brute_force(A, dense, k, first_order=0.0):
    found = [best_on(A, dense, s, first_order=first_order) for s in itertools.combinations(range(len(dense)), int(k))]
    return min(objective(A, dense, w, first_order=first_order) for w in found)


TRACES = []


@functools.cache
def program(scaled):
    """All problems as lanes of one program, k and the linear term traced."""

    def solve(A, dense, k, first_order):
        TRACES.append(A.shape)
        return sparsity.chita_solve(A, dense, k, ridge=RIDGE, scaled=scaled, first_order=first_order, max_iterations=60)

    return jax.jit(jax.vmap(solve, in_axes=(0, 0, 0, None)))


@functools.cache
def solved(n, scaled=False, first_order=0.0, all_kept=False):
    A, dense, k = PROBLEMS[n]
    k = np.full_like(k, P) if all_kept else k
    found = program(scaled)(
        jnp.asarray(A, jnp.float32), jnp.asarray(dense, jnp.float32), jnp.asarray(k, jnp.int32),
        jnp.float32(first_order),
    )  # fmt: skip
    return jax.tree.map(np.asarray, found)


@functools.cache
def optimum(n):
    return np.array([brute_force(*args) for args in zip(*PROBLEMS[n], strict=True)])


@pytest.mark.parametrize("n", PROBLEMS)
@pytest.mark.slow
def test_objective_is_what_it_says_and_never_below_brute_force(n):
    A, dense, k = PROBLEMS[n]
    found = solved(n)
    w = found.weights.astype(np.float64)
    exact = np.array([objective(*args) for args in zip(A, dense, w, strict=True)])
    # A residual of float32 sums of 10 products, squared: some 1e-6 of the dense output's square.
    scale = 0.5 * np.sum(np.einsum("bnp,bp->bn", A, dense) ** 2, axis=1)
    np.testing.assert_allclose(found.objective, exact, atol=3e-6 * scale.max(), rtol=1e-4)
    assert np.all(exact >= optimum(n) * (1 - 1e-5))
    np.testing.assert_array_equal(found.mask.sum(axis=1), k)
    np.testing.assert_array_equal(found.weights[~found.mask], 0.0)


@pytest.mark.parametrize("n", PROBLEMS)
@pytest.mark.slow
def test_values_on_the_support_are_the_best(n):
    """The back-solve is right on both of its sides: n < k and n >= k."""
    A, dense, _ = PROBLEMS[n]
    found = solved(n)
    for a, d, w, mask in zip(A, dense, found.weights, found.mask, strict=True):
        best = objective(a, d, best_on(a, d, np.flatnonzero(mask)))
        reached = objective(a, d, w.astype(np.float64))
        # Float32 moves a minimum by its rounding, and the value by the square of it, but for the
        # rounding of the objective by which candidates are judged.
        assert reached <= best * (1 + 1e-4) + 1e-5 * np.sum((a @ d) ** 2)


@pytest.mark.slow
def test_how_often_the_best_support_is_found():
    """Honest shares of 60 problems, with room: it is a heuristic.

    Seen: within 1 % of the optimum are 48 % of them by bare weights and 73 % in units of curvature (42 % by bare
    weights with 4 gradients). What is lost by magnitude with exact values is lost to 70 % and to 4 %.
    """
    A, dense, k = PROBLEMS[20]
    best = optimum(20)
    plain = np.array(
        [objective(a, d, best_on(a, d, np.argsort(-np.abs(d))[:q])) for a, d, q in zip(A, dense, k, strict=True)]
    )
    within, lost = {}, {}
    for scaled in (False, True):
        found = solved(20, scaled).objective
        within[scaled] = np.mean(found <= best * 1.01)
        lost[scaled] = np.sum(found - best) / np.sum(plain - best)
    assert within[False] > 0.35
    assert within[True] > 0.6
    assert lost[True] < 0.2
    assert lost[False] < 0.85
    assert np.mean(solved(4).objective <= optimum(4) * 1.01) > 0.25


@pytest.mark.parametrize("first_order", [0.0, 0.3])
def test_objective_never_rises(first_order):
    found = solved(20, first_order=first_order)
    assert np.all(np.diff(found.trace, axis=1) <= 0)
    np.testing.assert_array_equal(found.trace[:, -1], found.objective)
    assert np.all(found.iterations < 60)
    assert np.all(found.trace[:, 0] > found.trace[:, -1])


def test_linear_term_is_a_shift_of_the_residual():
    A, dense, _ = PROBLEMS[20]
    found = solved(20, first_order=0.3)
    for a, d, w, value in zip(A, dense, found.weights, found.objective, strict=True):
        # alpha'(w - w_bar) with alpha = 0.3 times the sum of the rows.
        moved = w.astype(np.float64) - d
        exact = objective(a, d, w) + 0.3 * a.sum(axis=0) @ moved
        assert value == pytest.approx(exact, rel=1e-4, abs=1e-5 * np.sum((a @ d) ** 2))


def test_nothing_pruned_is_nothing_changed():
    found = solved(20, all_kept=True)
    np.testing.assert_array_equal(found.weights, PROBLEMS[20][1].astype(np.float32))
    np.testing.assert_array_equal(found.objective, 0.0)


def test_two_back_solves_agree():
    rows = jnp.asarray(RNG.normal(size=(5, 5)), jnp.float32)
    target = jnp.asarray(RNG.normal(size=5), jnp.float32)
    by_n = least_squares.ridge_regression(jnp.concatenate([rows, jnp.zeros((2, 5))]), target, jnp.array(0.1))
    by_k = least_squares.ridge_regression(rows, target, jnp.array(0.1))
    gram = np.asarray(rows, np.float64) @ np.asarray(rows, np.float64).T + 0.1 * np.eye(5)
    exact = np.linalg.solve(gram, np.asarray(rows @ target, np.float64))
    # The condition number of the gram matrix is about 200, times 6e-8.
    np.testing.assert_allclose(by_k, exact, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(by_n[:5], exact, rtol=2e-4, atol=1e-5)
    np.testing.assert_array_equal(by_n[5:], 0.0)


def test_one_program_serves_every_k_and_a_static_k_finds_the_same():
    solved(20), solved(20, first_order=0.3), solved(20, all_kept=True)
    assert TRACES.count((20, P)) <= 2  # one per value of scaled
    A, dense, k = PROBLEMS[20]
    lane = np.flatnonzero(k == 7)[0]
    # Seven of ten make all columns active, so it is the same search but for its back-solve.
    params = {"w": jnp.asarray(dense[lane], jnp.float32)}
    pruned, masks, found = sparsity.chita(
        params,
        jnp.asarray(A[lane], jnp.float32),
        0.3,
        prunable=bool,
        ridge=RIDGE,
        max_iterations=60,
    )
    np.testing.assert_array_equal(masks["w"], solved(20).mask[lane])
    np.testing.assert_array_equal(pruned["w"], found.weights)
    np.testing.assert_allclose(pruned["w"], solved(20).weights[lane], rtol=1e-4, atol=1e-5)
    assert int(masks["w"].sum()) == 10 - math.ceil(0.3 * 10)


def test_blocks_are_ridge_regressions_on_the_support_of_magnitude():
    A, dense = RNG.normal(size=(6, 11)), RNG.normal(size=11)
    found = sparsity.chita_block_solve(
        jnp.asarray(A, jnp.float32), jnp.asarray(dense, jnp.float32), 5, block=4, ridge=RIDGE
    )
    kept = np.argsort(-np.abs(dense))[:5]
    assert set(np.flatnonzero(found.mask)) == set(kept)
    expected = np.zeros(11)
    for begin in (0, 4, 8):
        part = np.arange(begin, min(begin + 4, 11))
        inside = [i for i, j in enumerate(part) if j in kept]
        expected[part] = best_on(A[:, part], dense[part], inside)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-4, atol=1e-5)  # 1e-7 x condition
    np.testing.assert_array_equal(np.asarray(found.weights)[~np.asarray(found.mask)], 0.0)
    exact = objective(A, dense, np.asarray(found.weights, np.float64))
    assert float(found.objective) == pytest.approx(exact, rel=1e-4)
    # One block of everything is the best on the support; pieces of it are no better.
    whole = best_on(A, dense, kept)
    assert objective(A, dense, whole) <= exact * (1 + 1e-5)


@functools.cache
def network():
    model = models.mlp(3, hidden=(6,))
    with jax.numpy_dtype_promotion("standard"):
        params, _ = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    x = jnp.asarray(RNG.normal(size=(12, 4)), jnp.float32)
    y = jnp.asarray(RNG.integers(3, size=12), jnp.int32)

    def loss(params, batch):
        with jax.numpy_dtype_promotion("standard"):
            logits, _ = model.apply(params, {}, batch[0], train=False)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    return params, loss, (x, y)


@pytest.mark.parametrize(("batch_size", "chunk"), [(1, 64), (3, 3), (12, 1)])
@pytest.mark.slow
def test_rows_are_gradients(batch_size, chunk):
    params, loss, batch = network()
    prunable = lambda path: path.endswith("kernel")
    settings = {"prunable": prunable, "batch_size": batch_size, "chunk": chunk}
    rows = jax.jit(lambda p, b: sparsity.example_gradients(loss, p, b, **settings))(params, batch)
    assert rows.shape == (12 // batch_size, 4 * 6 + 6 * 3)
    for i in (0, len(rows) - 1):
        some = jax.tree.map(lambda a, i=i: a[i * batch_size : (i + 1) * batch_size], batch)
        gradient = sparsity.flatten_prunable(jax.jit(jax.grad(loss))(params, some), prunable=prunable)
        np.testing.assert_allclose(rows[i], gradient, rtol=1e-5, atol=1e-7)


def test_vector_and_tree_are_inverse():
    params, _, _ = network()
    prunable = lambda path: path.endswith("kernel")
    vector = sparsity.flatten_prunable(params, prunable=prunable)
    back = sparsity.unflatten_prunable(vector, params, prunable=prunable)
    jax.tree.map(np.testing.assert_array_equal, params, back)
    masks = sparsity.unflatten_masks(vector > 0, params, prunable=prunable)
    np.testing.assert_array_equal(masks["Dense_0"]["kernel"], params["Dense_0"]["kernel"] > 0)
    assert masks["Dense_0"]["bias"].shape == ()
    with pytest.raises(ValueError, match="42 weights, but the vector has 41"):
        sparsity.unflatten_prunable(vector[1:], params, prunable=prunable)


def test_a_tree_is_pruned_to_the_exact_count_in_stages():
    params, loss, batch = network()
    prunable = lambda path: path.endswith("kernel")

    def gradients_of(params, stage):
        rows = lambda p: sparsity.example_gradients(loss, p, batch, prunable=prunable)
        return jax.jit(rows)(params)

    prune = functools.partial(sparsity.chita_block, prunable=prunable, block=20)
    shares = sparsity.stage_sparsities(0.55, 2, kind="mfac")
    pruned, masks, found = sparsity.chita_stages(gradients_of, params, shares, prune=prune)
    assert len(found) == 2
    assert int(found[-1].mask.sum()) == 42 - math.ceil(0.55 * 42)
    for layer in ("Dense_0", "Dense_1"):
        dead = ~np.asarray(masks[layer]["kernel"])
        np.testing.assert_array_equal(np.asarray(pruned[layer]["kernel"])[dead], 0.0)
        np.testing.assert_array_equal(pruned[layer]["bias"], params[layer]["bias"])


def test_schedules_of_stages():
    stages = sparsity.stage_sparsities
    assert stages(0.9, 2, kind="constant") == (0.9, 0.9)
    np.testing.assert_allclose(stages(0.9, 3, kind="linear", base=0.3), (0.5, 0.7, 0.9))
    expected = [0.9 - 0.6 * (1 - x) ** 3 for x in (1 / 3, 2 / 3, 1)]
    np.testing.assert_allclose(stages(0.9, 3, kind="polynomial", base=0.3), expected)
    ratio = (0.1 / 0.7) ** (1 / 3)
    expected = [1 - 0.7 * ratio ** (i + 1) for i in range(3)]
    np.testing.assert_allclose(stages(0.9, 3, kind="mfac", base=0.3), expected)
    assert stages(0.9, 3, base=0.3)[0] == pytest.approx(0.3)
    for kind in ("constant", "linear", "polynomial", "mfac", "exponential"):
        found = stages(0.97, 5, kind=kind, base=0.3)
        assert found[-1] == 0.97
        assert np.all(np.diff(found) >= 0)
        assert stages(0.97, 1, kind=kind) == (0.97,)


A2, W2 = jnp.ones((2, 3)), jnp.ones(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sparsity.chita_solve(A2, W2, 1, ridge=0.0), "ridge must be above 0, but it is 0.0"),
        (lambda: sparsity.chita_solve(A2, W2, 2, active=1), "active=1 is smaller than keep=2"),
        (lambda: sparsity.chita_block_solve(A2, W2, 1, block=0), "block must be above 0"),
        (lambda: sparsity.chita({"w": W2}, jnp.ones((2, 4)), 0.5, prunable=bool), "has 4 columns"),
        (lambda: sparsity.chita({"w": W2}, A2, 1.0, prunable=bool), "sparsity is the share"),
        (lambda: sparsity.chita({"w": W2}, A2, 0.5, prunable=lambda p: False), "no leaf is prunable"),
        (lambda: sparsity.stage_sparsities(0.9, 0), "stages must be at least 1"),
        (lambda: sparsity.stage_sparsities(0.9, 2, kind="cubic"), "kind must be one of constant"),
        (lambda: sparsity.stage_sparsities(0.9, 2, base=0.95), "base must be between 0"),
        (lambda: sparsity.chita_stages(len, {}, (), prune=len), "sparsities is empty"),
        (lambda: sparsity.chita_stages(len, {}, (0.5, 0.4), prune=len), "may not fall"),
        (
            lambda: sparsity.example_gradients(len, {"w": W2}, A2, prunable=bool, batch_size=3),
            "batch_size=3 does not divide the 2 examples",
        ),
        (
            lambda: sparsity.example_gradients(len, {"w": W2}, (A2, W2), prunable=bool),
            "need one leading axis in common",
        ),
    ],
    ids=[
        "ridge", "active", "block", "columns", "sparsity", "prunable", "stages", "kind", "base", "empty", "falling",
        "batch_size", "axes",
    ],
)  # fmt: skip
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()


BOTH = {"prunable": lambda path: True}
TREE = {"w": jnp.asarray(RNG.normal(size=10), jnp.float32)}
ROWS = jnp.asarray(RNG.normal(size=(6, 10)), jnp.float32)


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.parametrize("prune", [sparsity.chita, sparsity.chita_block])
def test_a_ridge_that_is_not_above_zero_is_refused_before_it_is_traced(prune, value):
    with pytest.raises(ValueError, match=f"ridge must be above 0, but it is {value}"):
        prune(TREE, ROWS, 0.5, ridge=value, **BOTH)


@pytest.mark.slow
def test_any_integer_is_a_known_k():
    for keep in (6, np.int64(6), jnp.int32(6)):
        with pytest.raises(ValueError, match="active=3 is smaller than keep=6"):
            sparsity.chita_solve(ROWS, TREE["w"], keep, active=3)
        assert int(sparsity.chita_solve(ROWS, TREE["w"], keep).mask.sum()) == 6
    traced = jax.jit(lambda k: sparsity.chita_solve(ROWS, TREE["w"], k, active=3))
    with pytest.raises(ValueError, match="with a traced keep all 10"):
        traced(6)
    none = sparsity.chita_solve(ROWS, TREE["w"], 0)
    assert not none.mask.any()
    assert not none.weights.any()
    with pytest.raises(ValueError, match="max_iterations must be above 0, but it is 0"):
        sparsity.chita_solve(ROWS, TREE["w"], 3, max_iterations=0)


@pytest.mark.parametrize("prune", [sparsity.chita, sparsity.chita_block, sparsity.woodfisher])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.slow
def test_half_precision_is_solved_in_float32(prune, dtype):
    params, rows = {"w": TREE["w"].astype(dtype)}, ROWS.astype(dtype)
    pruned, masks, _ = prune(params, rows, 0.5, **BOTH)
    wide = {"w": params["w"].astype(jnp.float32)}
    expected, same, _ = prune(wide, rows.astype(jnp.float32), 0.5, **BOTH)
    assert pruned["w"].dtype == dtype
    np.testing.assert_array_equal(masks["w"], same["w"])
    np.testing.assert_array_equal(pruned["w"], expected["w"].astype(dtype))


@pytest.mark.slow
def test_a_small_active_set_finds_the_objective_of_its_support():
    # 9 of 40 columns at once. The start is magnitude pruning, which is far from good: columns must be exchanged.
    drawn = np.random.default_rng(5)
    A = drawn.normal(size=(30, 40)).astype(np.float32)
    dense = drawn.normal(size=40).astype(np.float32)
    found = sparsity.chita_solve(jnp.asarray(A), jnp.asarray(dense), 6, ridge=RIDGE)
    w, mask = np.asarray(found.weights, float), np.asarray(found.mask)
    assert mask.sum() == 6
    assert (w[~mask] == 0).all()
    # The value is that of all 40 columns, those outside of the set included.
    np.testing.assert_allclose(float(found.objective), objective(A, dense, w), rtol=1e-5)
    magnitude = np.argsort(-np.abs(dense))[:6]
    start = objective(A, dense, best_on(A, dense, magnitude))
    whole = sparsity.chita_solve(jnp.asarray(A), jnp.asarray(dense), 6, ridge=RIDGE, active=40)
    assert float(found.objective) < 0.95 * start
    assert float(found.objective) < 1.1 * float(whole.objective)


def test_blocks_with_a_first_order_term_are_ridge_regressions_on_a_shifted_target():
    A, dense = np.asarray(ROWS, float), np.asarray(TREE["w"], float)
    found = sparsity.chita_block_solve(ROWS, TREE["w"], 5, block=10, ridge=RIDGE, first_order=4.0)
    support = np.flatnonzero(np.asarray(found.mask))
    # One block is the whole problem: no values on this support are better.
    best = best_on(A, dense, support, first_order=4.0)
    np.testing.assert_allclose(found.weights, best, rtol=2e-3, atol=2e-3)  # float32, condition of some hundreds
    alpha = 4.0 * A.sum(axis=0)
    n = len(A)
    tau = alpha @ alpha / (np.sum((A @ alpha) ** 2) + n * RIDGE * alpha @ alpha)
    largest = np.sort(np.argsort(-np.abs(dense - tau * alpha))[:5])
    np.testing.assert_array_equal(support, largest)
    assert set(largest) != set(np.argsort(-np.abs(dense))[:5])  # it is not plain magnitude


@pytest.mark.slow
def test_every_stage_sees_what_the_one_before_left():
    seen = []

    def gradients_of(params, stage):
        seen.append((stage, np.asarray(params["w"])))
        return ROWS

    prune = functools.partial(sparsity.chita, **BOTH)
    _, masks, found = sparsity.chita_stages(gradients_of, TREE, (0.3, 0.6), prune=prune)
    first, _, _ = prune(TREE, ROWS, 0.3)
    assert [stage for stage, _ in seen] == [0, 1]
    np.testing.assert_array_equal(seen[0][1], TREE["w"])
    np.testing.assert_array_equal(seen[1][1], first["w"])
    assert len(found) == 2
    assert int(masks["w"].sum()) == 4


@pytest.mark.parametrize("kind", ["constant", "linear", "polynomial", "mfac", "exponential"])
def test_stages_are_decimals_that_begin_at_the_base_and_do_not_fall(kind):
    assert sparsity.stage_sparsities(0.9, 3, base=0.3)[0] == 0.3
    for percent in range(5, 100, 5):
        final = percent / 100
        for base in (0.0, final / 2, final):
            found = sparsity.stage_sparsities(final, 3, kind=kind, base=base)
            assert all(a <= b for a, b in itertools.pairwise(found))
            assert base <= found[0]
            assert found[-1] == final
